package inject

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// visible returns a text without characters that show nothing, and with the letters that are hidden in tags and variation
// selectors.
func visible(text string) string {
	clean := strings.IndexFunc(text, isInvisible)
	if clean < 0 {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	b.WriteString(text[:clean])
	var hidden []byte // the bytes in a row of variation selectors
	reveal := func() {
		if len(hidden) >= shortestHidden && isText(hidden) {
			b.WriteByte(' ')
			b.Write(hidden)
			b.WriteByte(' ')
		}
		hidden = hidden[:0]
	}
	for text = text[clean:]; text != ""; {
		r, n := utf8.DecodeRuneInString(text)
		source := text[:n]
		text = text[n:]
		if r >= 0xFE00 && r <= 0xFE0F {
			hidden = append(hidden, byte(r-0xFE00))
			continue
		}
		if r >= 0xE0100 && r <= 0xE01EF {
			hidden = append(hidden, byte(r-0xE0100+16))
			continue
		}
		reveal()
		switch {
		case r >= 0xE0020 && r <= 0xE007E: // tags stand for ASCII
			b.WriteByte(byte(r - 0xE0000))
		case !isInvisible(r):
			b.WriteString(source)
		}
	}
	reveal()
	return b.String()
}

// isInvisible reports whether r shows nothing and is no space.
func isInvisible(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7F
	case r == 0x034F, r == 0x115F, r == 0x1160, r == 0x17B4, r == 0x17B5, r == 0x3164, r == 0xFFA0:
		return true
	case r >= 0xFE00 && r <= 0xFE0F, r >= 0xE0000 && r <= 0xE0FFF:
		return true
	}
	return unicode.Is(unicode.Cf, r)
}

// lookAlikes are letters that look like one of ASCII, in small letters, and have no decomposition to it.
var lookAlikes = func() map[rune]rune {
	all := map[rune]rune{}
	for ascii, letters := range map[rune]string{
		'a': "аαɑᴀ", 'b': "ьвƅʙβ", 'c': "сϲᴄ", 'd': "ԁɗᴅ", 'e': "еєεɛᴇҽ", 'f': "ғϝꜰƒ", 'g': "ɡցɢԍ", 'h': "һհʜн",
		'i': "іιıɩɪӏі", 'j': "јϳᴊ", 'k': "кκᴋ", 'l': "ⅼʟ", 'm': "мᴍ", 'n': "ոηɴпи", 'o': "оοօσᴏө", 'p': "рρᴘ", 'q': "ԛգ",
		'r': "гʀяᴦ", 's': "ѕꜱƽ", 't': "тτᴛ", 'u': "υսᴜц", 'v': "ѵνᴠ", 'w': "ԝωшᴡ", 'x': "хχ×", 'y': "уγүʏ", 'z': "ᴢʐ",
	} {
		for _, r := range letters {
			all[r] = ascii
		}
	}
	return all
}()

// plainScript returns a text in the letters of ASCII that its letters look like. A word of another script is left alone
// when any of its letters looks like none.
func plainScript(text string) string {
	if isASCII(text) {
		return text
	}
	return mapChunks(text, func(word string) string {
		if isASCII(word) {
			return word
		}
		plain := make([]byte, 0, len(word))
		for i := 0; i < len(word); {
			r, n := utf8.DecodeRuneInString(word[i:])
			c := lookAlike(r, word[i:i+n])
			switch {
			case c != 0:
				plain = append(plain, c)
			case unicode.Is(unicode.Mn, r):
			case unicode.IsLetter(r):
				return word
			default:
				plain = append(plain, word[i:i+n]...)
			}
			i += n
		}
		return string(plain)
	})
}

// lookAlike returns the character of ASCII that r looks like, or 0. Source is r as it stands in the text.
func lookAlike(r rune, source string) byte {
	switch {
	case r < utf8.RuneSelf:
		return byte(r)
	case r >= 0x1F150 && r <= 0x1F169: // white in a black circle
		return byte('a' + r - 0x1F150)
	case r >= 0x1F170 && r <= 0x1F189: // white in a black square
		return byte('a' + r - 0x1F170)
	case r >= 0x1F1E6 && r <= 0x1F1FF: // of flags
		return byte('a' + r - 0x1F1E6)
	}
	if c := lookAlikes[unicode.ToLower(r)]; c != 0 {
		return byte(c)
	}
	var folded [32]byte
	if unicode.IsLetter(r) || unicode.IsDigit(r) {
		if base := foldRune(folded[:0], r, source); len(base) == 1 && base[0] < utf8.RuneSelf {
			return base[0]
		}
		return 0
	}
	if r >= 0x2460 && r <= 0x24FF || r >= 0x1F100 && r <= 0x1F149 || r >= 0xFF00 && r <= 0xFFEF {
		switch plain := norm.NFKC.Bytes([]byte(source)); {
		case len(plain) == 1:
			return plain[0]
		case len(plain) == 3 && plain[0] == '(': // as in (a)
			return plain[1]
		}
	}
	return 0
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// leet are the characters that stand for letters in leetspeak.
var leet = [256]byte{
	'0': 'o', '1': 'i', '3': 'e', '4': 'a', '5': 's', '7': 't', '8': 'b', '9': 'g', '@': 'a', '$': 's', '!': 'i', '|': 'l',
	'+': 't', '(': 'c', '6': 'g', '2': 'z',
}

// unleet returns the text with words in leetspeak spelt out, when any of them is in the lexicon, turned or not.
func unleet(text string, _ []token, lex *lexicon) []string {
	if !strings.ContainsAny(text, "01234567@$!|+") {
		return nil
	}
	known := false
	plain := mapChunks(text, func(word string) string {
		spelt, ok := unleetWord(word, lex)
		known = known || ok
		return spelt
	})
	if !known {
		return nil
	}
	return []string{plain}
}

// unleetWord spells a word out, and reports whether the lexicon has it then.
func unleetWord(word string, lex *lexicon) (spelt string, known bool) {
	if len(word) > longestWord || !hasLeet(word) {
		return word, false
	}
	body := strings.TrimRight(word, `!|.,;:?)]}"'*_`)
	tail := word[len(body):]
	core := strings.TrimLeft(body, `([{"'*_`)
	lead := body[:len(body)-len(core)]
	letters, signs := 0, 0
	for i := range len(core) {
		switch c := core[i]; {
		case leet[c] != 0:
			signs++
		case class[c] != classOther:
			letters++
		case c != '-' && c != '_' && c != '\'':
			return word, false
		}
	}
	if signs == 0 || letters+signs < 3 || letters == 0 && signs < 4 {
		return word, false
	}
	guess := make([]byte, len(core))
	for _, one := range []byte{'l', 'i'} { // the second guess stays
		for i := range guess {
			switch c := core[i]; {
			case c == '1' || c == '|' || c == '!':
				guess[i] = one
			case leet[c] != 0:
				guess[i] = leet[c]
			case class[c] == classUpper:
				guess[i] = c + 'a' - 'A'
			default:
				guess[i] = c
			}
		}
		if lex.words[string(guess)] != (entry{}) {
			known = true
			break
		}
	}
	return lead + string(guess) + tail, known
}

// hasLeet reports whether a word has a character that stands for a letter.
func hasLeet(word string) bool {
	for i := range len(word) {
		if leet[word[i]] != 0 {
			return true
		}
	}
	return false
}

// join returns the text with words put together that are torn apart by separators (i.g.n.o.r.e, i g n o r e, ig-nore), and
// apart that are written together (ignoreprevious), when the lexicon has any of them.
func join(text string, tokens []token, lex *lexicon) []string {
	var b strings.Builder
	done := 0
	for at := 0; at < len(tokens); {
		words, end := joinAt(text, tokens, at, lex)
		if words != "" {
			b.WriteString(text[done:tokens[at].start])
			b.WriteString(words)
			done = int(tokens[end-1].end)
		}
		at = end
	}
	if done == 0 {
		return nil
	}
	b.WriteString(text[done:])
	return []string{b.String()}
}

// joinAt returns what the words from tokens[at] to before tokens[end] should be, or the empty text when they are well.
func joinAt(text string, tokens []token, at int, lex *lexicon) (words string, end int) {
	if end = tornEnd(tokens, at); end-at >= minTorn {
		return mend(text, tokens[at:end], lex), end
	}
	end = at + 1
	if tokens[at].word == 0 && tokens[at].end-tokens[at].start >= minGlued {
		return segment(letters(text, tokens[at:end]), lex), end
	}
	for end < len(tokens) && end-at < 8 && hyphened(text, tokens[end-1], tokens[end]) {
		end++
	}
	if end-at > 1 {
		joined := letters(text, tokens[at:end])
		if e := lex.words[joined]; e != (entry{}) && len(joined) >= hintLength {
			return joined, end
		}
	}
	return "", end
}

// minTorn is the least single characters in a row that may be a word.
const minTorn = 4

// minGlued is the least bytes of a word that may be several written together.
const minGlued = 14

// tornEnd returns the end of the row of single characters that starts at tokens[at].
func tornEnd(tokens []token, at int) int {
	end := at
	for end < len(tokens) && tokens[end].end-tokens[end].start == 1 &&
		(end == at || tokens[end].start-tokens[end-1].end <= 4) {
		end++
	}
	return end
}

// mend puts a row of single characters together. Where the separator is wider than the first, a word ends; when it never
// is, the words are found by the lexicon.
func mend(text string, tokens []token, lex *lexicon) string {
	first := text[tokens[0].end:tokens[1].start]
	var b strings.Builder
	known := false
	for from := 0; from < len(tokens); {
		to := from + 1
		for to < len(tokens) && !wider(text[tokens[to-1].end:tokens[to].start], first) {
			to++
		}
		word := letters(text, tokens[from:to])
		if from == 0 && to == len(tokens) {
			return segment(word, lex)
		}
		known = known || len(word) >= 3 && lex.words[word] != (entry{})
		b.WriteString(word)
		b.WriteByte(' ')
		from = to
	}
	if !known {
		return ""
	}
	return b.String()
}

// wider reports whether what stands between two characters ends a word, when first stands between those of a word.
func wider(between, first string) bool {
	return len(between) > len(first) || strings.Contains(between, " ") && !strings.Contains(first, " ")
}

// hyphened reports whether two words have only a separator between them that words do not usually have.
func hyphened(text string, a, b token) bool {
	return b.start-a.end >= 1 && b.start-a.end <= 2 && !strings.ContainsAny(text[a.end:b.start], " \n\t\r,")
}

// letters returns the words' letters of ASCII in a row, in small letters.
func letters(text string, tokens []token) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString(strings.ToLower(text[t.start:t.end]))
	}
	return b.String()
}

// segment puts spaces between the words of the lexicon in a row of letters, the longest first. It returns the empty text
// when there are too few.
func segment(row string, lex *lexicon) string {
	var b strings.Builder
	found, loose := 0, false
	for i := 0; i < len(row); {
		n := lex.longest(row[i:], 16)
		if n >= 3 {
			found++
		}
		if n == 0 {
			if !loose {
				b.WriteByte(' ')
			}
			loose = true
			b.WriteByte(row[i])
			i++
			continue
		}
		loose = false
		b.WriteByte(' ')
		b.WriteString(row[i : i+n])
		i += n
	}
	if found == 0 || found < 2 && len(row) > 12 {
		return ""
	}
	return b.String() + " "
}
