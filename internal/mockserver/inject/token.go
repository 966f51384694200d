package inject

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// token is a word of a text: a run of letters and digits, or one character of a script that puts no spaces between words.
type token struct {
	word       int32 // its place in the lexicon; 0 when it is not there
	start, end int32 // byte offsets in the text
	sentence   int32 // the number of its sentence
	hint       hint
	quoted     bool
}

// longestWord is the most bytes of a word that are looked up. No word of the lexicon is longer.
const longestWord = 40

// tokenize returns the words of a text. It is done by hand since it is most of a scan's work.
func tokenize(text string, lex *lexicon) []token {
	tokens := make([]token, 0, len(text)/5+1)
	var word [longestWord + utf8.UTFMax]byte // the current word, folded
	size, start := 0, -1
	var sentence int32
	quotes := quoteState{text: text}

	flush := func(end int) {
		if start < 0 {
			return
		}
		//nolint:gosec // a text of over 2 GiB does not reach here
		t := token{start: int32(start), end: int32(end), sentence: sentence}
		if size > 0 && size <= longestWord {
			e := lex.look(word[:size])
			t.word, t.hint = e.word, e.hint
		}
		tokens = append(tokens, t)
		size, start = 0, -1
	}
	put := func(b byte) {
		if size <= longestWord {
			word[size] = b
			size++
		}
	}
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			switch class[c] {
			case classLetter:
				if start < 0 {
					start = i
				}
				put(c)
			case classUpper:
				if start < 0 {
					start = i
				}
				put(c + 'a' - 'A')
			default:
				if c == '\'' && start >= 0 && i+1 < len(text) && isLetter(text[i+1]) {
					break // don't, you're
				}
				flush(i)
				if endsSentence(text, i) {
					sentence++
				}
				quotes.see(rune(c), i, len(tokens), tokens)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '’' && start >= 0:
		case unicode.Is(unicode.Mn, r): // a mark on the letter before
		case isIdeographic(r):
			flush(i)
			start = i
			size = copy(word[:], text[i:i+n])
			flush(i + n)
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mc, r):
			if start < 0 {
				start = i
			}
			var folded [32]byte // none decomposes to more, and if one did it would only cost time
			for _, b := range foldRune(folded[:0], r, text[i:i+n]) {
				put(b)
			}
		default:
			flush(i)
			if r == '。' || r == '！' || r == '？' || r == '।' {
				sentence++
			}
			quotes.see(r, i, len(tokens), tokens)
		}
		i += n
	}
	flush(len(text))
	return tokens
}

// The classes of ASCII characters.
const (
	classOther = iota
	classLetter
	classUpper
)

// isLetter reports whether c is a letter or digit of ASCII, or part of a character beyond it.
func isLetter(c byte) bool { return c >= utf8.RuneSelf || class[c] != classOther }

// class has each ASCII character's class. Digits count as letters; what is beyond ASCII has no class here.
var class = func() (c [256]byte) {
	for i := range c {
		switch {
		case 'a' <= i && i <= 'z', '0' <= i && i <= '9':
			c[i] = classLetter
		case 'A' <= i && i <= 'Z':
			c[i] = classUpper
		}
	}
	return c
}()

// isIdeographic reports whether r is of a script that puts no spaces between words.
func isIdeographic(r rune) bool {
	return r >= 0x2E80 && (unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana) || r == 'ー')
}

// foldRune appends r in small letters without marks. Source is r as it stands in the text.
func foldRune(to []byte, r rune, source string) []byte {
	if r >= 0xAC00 && r <= 0xD7A3 { // Hangul would fall apart
		return append(to, source...)
	}
	if plain, ok := plainLetters[unicode.ToLower(r)]; ok {
		return append(to, plain...)
	}
	decomposed := norm.NFKD.PropertiesString(source).Decomposition()
	if decomposed == nil {
		return utf8.AppendRune(to, unicode.ToLower(r))
	}
	for len(decomposed) > 0 {
		r, n := utf8.DecodeRune(decomposed)
		if !unicode.Is(unicode.Mn, r) && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			to = utf8.AppendRune(to, unicode.ToLower(r))
		}
		decomposed = decomposed[n:]
	}
	return to
}

// plainLetters are letters that Unicode does not decompose.
var plainLetters = map[rune]string{'ß': "ss", 'ø': "o", 'ł': "l", 'æ': "ae", 'œ': "oe", 'đ': "d", 'ı': "i", 'þ': "th"}

// endsSentence reports whether the ASCII character text[i] ends a sentence: a full stop or the like before a space, or the
// second line break in a row.
func endsSentence(text string, i int) bool {
	switch text[i] {
	case '.', '!', '?', ';':
		return i+1 == len(text) || text[i+1] <= ' ' || text[i+1] == '"' || text[i+1] == '\''
	case '\n':
		for i++; i < len(text) && text[i] <= ' '; i++ {
			if text[i] == '\n' {
				return true
			}
		}
	}
	return false
}

// quoteState marks the words between quotation marks, in code and in quoted lines.
type quoteState struct {
	text string
	open [4]int // for each kind of mark, the number of the first word inside, plus one; 0 when closed
}

// The kinds of quotation marks.
const (
	quoteStraight = iota
	quoteCurly
	quoteCode
	quoteLine
)

// longestQuote is how many words a quotation may have. What is longer is no quotation but a document in quotes.
const longestQuote = 120

// see takes note of the character r at text[i], with count words before it.
func (q *quoteState) see(r rune, i, count int, tokens []token) {
	switch r {
	case '"':
		q.toggle(quoteStraight, count, tokens)
	case '`':
		q.toggle(quoteCode, count, tokens)
	case '“', '„', '«', '「', '‘':
		q.open[quoteCurly] = count + 1
	case '”', '»', '」', '’':
		if q.open[quoteCurly] != 0 {
			q.toggle(quoteCurly, count, tokens)
		}
	case '>':
		if i == 0 || q.text[i-1] == '\n' {
			q.open[quoteLine] = count + 1
		}
	case '\n':
		if q.open[quoteLine] != 0 {
			q.toggle(quoteLine, count, tokens)
		}
	case '\'': // only one that is no apostrophe comes here
		if q.open[quoteCurly] != 0 || i == 0 || q.text[i-1] <= ' ' || q.text[i-1] == '(' {
			q.toggle(quoteCurly, count, tokens)
		}
	}
}

// toggle opens a quotation, or closes the open one and marks its words. One that never closes marks nothing.
func (q *quoteState) toggle(kind, count int, tokens []token) {
	first := q.open[kind] - 1
	if first < 0 {
		q.open[kind] = count + 1
		return
	}
	q.open[kind] = 0
	if count-first > longestQuote {
		q.open[kind] = count + 1 // a mark was missing somewhere: this one may open the next
		return
	}
	for i := first; i < count; i++ {
		tokens[i].quoted = true
	}
}
