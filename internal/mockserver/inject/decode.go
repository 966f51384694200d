package inject

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// cleaner takes away what only disguises a text, which then stands for it.
type cleaner struct {
	layer string
	clean func(string) string
}

// cleaners are applied one after the other.
var cleaners = []cleaner{
	{LayerURL, unescapeURLs},
	{LayerInvisible, visible},
	{LayerHomoglyphs, plainScript},
}

// decoder undoes one way of hiding words. It returns nothing when the text shows no sign of it.
type decoder struct {
	layer  string
	decode func(text string, tokens []token, lex *lexicon) []string
	once   bool // a second time would give a text that was looked at already
}

// decoders are all of them.
var decoders = []decoder{
	{LayerHex, hexRuns, false},
	{LayerBase64, base64Runs, false},
	{LayerLeetspeak, unleet, false},
	{LayerSeparators, join, false},
	{LayerROT13, turned(hintROT13, rot13), true},
	{LayerReversed, turned(hintReversed, reverse, reverseWords), true},
	{LayerROT13, turned(hintBoth, rot13), true},
}

// turned makes a decoder of functions that turn a text, used when enough of its words would be words of the lexicon.
func turned(sign hint, turns ...func(string) string) func(string, []token, *lexicon) []string {
	return func(text string, tokens []token, _ *lexicon) []string {
		n := 0
		for _, t := range tokens {
			if t.hint&sign != 0 {
				n++
			}
		}
		if n < minTurned {
			return nil
		}
		var all []string
		for _, turn := range turns {
			all = append(all, turn(text))
		}
		return all
	}
}

// minTurned is the least words that must show that a text is turned.
const minTurned = 2

// rot13 turns the letters of ASCII by half the alphabet.
func rot13(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return 'a' + (r-'a'+13)%26
		case 'A' <= r && r <= 'Z':
			return 'A' + (r-'A'+13)%26
		}
		return r
	}, text)
}

// reverse returns the characters of a text last to first.
func reverse(text string) string {
	reversed := make([]byte, 0, len(text))
	for len(text) > 0 {
		_, n := utf8.DecodeLastRuneInString(text)
		reversed = append(reversed, text[len(text)-n:]...)
		text = text[:len(text)-n]
	}
	return string(reversed)
}

// reverseWords reverses each run of characters between spaces.
func reverseWords(text string) string {
	return mapChunks(text, reverse)
}

// mapChunks replaces each run of characters between spaces of ASCII.
func mapChunks(text string, change func(string) string) string {
	var b strings.Builder
	b.Grow(len(text))
	for i := 0; i < len(text); {
		start := i
		for i < len(text) && text[i] <= ' ' {
			i++
		}
		b.WriteString(text[start:i])
		start = i
		for i < len(text) && text[i] > ' ' {
			i++
		}
		if i > start {
			b.WriteString(change(text[start:i]))
		}
	}
	return b.String()
}

// unescapeURLs decodes what is percent-encoded, as often as a text is followed.
func unescapeURLs(text string) string {
	for range maxDepth {
		decoded := unescapeURL(text)
		if decoded == text {
			break
		}
		text = decoded
	}
	return text
}

// unescapeURL decodes what is percent-encoded, and a plus between words as a space when there are no spaces.
func unescapeURL(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	plus := !strings.Contains(text, " ")
	decoded := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '%' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]):
			decoded = append(decoded, unhex(text[i+1])<<4|unhex(text[i+2]))
			i += 2
		case text[i] == '+' && plus:
			decoded = append(decoded, ' ')
		default:
			decoded = append(decoded, text[i])
		}
	}
	return string(decoded)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

// shortestHidden is the least bytes that a run must decode to.
const shortestHidden = 8

// hexRuns returns the text in all runs of hexadecimal bytes, which may have a prefix (\x, 0x, \u00) and a separator each.
func hexRuns(text string, _ []token, _ *lexicon) []string {
	var all strings.Builder
	var decoded []byte
	for i := 0; i < len(text); {
		start := i
		decoded = decoded[:0]
		for {
			j := i + hexPrefix(text[i:])
			if j+1 >= len(text) || !isHex(text[j]) || !isHex(text[j+1]) {
				break
			}
			decoded = append(decoded, unhex(text[j])<<4|unhex(text[j+1]))
			i = j + 2
			if i < len(text) && strings.IndexByte(" ,:-\n", text[i]) >= 0 {
				i++
			}
		}
		if len(decoded) >= shortestHidden && isText(decoded) {
			all.Write(decoded)
			all.WriteByte('\n')
		}
		if i == start {
			i++
		}
	}
	return nonEmpty(all.String())
}

// hexPrefix returns how long the prefix of a hexadecimal byte at the start of text is.
func hexPrefix(text string) int {
	if text == "" || text[0] != '\\' && text[0] != '0' {
		return 0
	}
	for _, prefix := range []string{`\u00`, `\x`, "0x", "0X"} {
		if strings.HasPrefix(text, prefix) {
			return len(prefix)
		}
	}
	return 0
}

// nonEmpty returns the text, unless it is empty.
func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// isText reports whether decoded bytes are text, and not what comes of decoding something else.
func isText(decoded []byte) bool {
	if !utf8.Valid(decoded) {
		return false
	}
	letters := 0
	for _, c := range decoded {
		switch {
		case c < ' ' && c != '\n' && c != '\r' && c != '\t', c == 0x7F:
			return false
		case isLetter(c), c == ' ', c == '%', c == '=':
			letters++
		}
	}
	return letters*10 >= len(decoded)*4
}

// base64Runs returns the text in all runs of base64, standard or for URLs, padded or not, in one line or several.
func base64Runs(text string, _ []token, _ *lexicon) []string {
	var all strings.Builder
	for i := 0; i < len(text); {
		lines, end := base64Lines(text, i)
		i = end
		if len(lines) > 1 && decodeBase64(&all, strings.Join(lines, "")) {
			continue
		}
		for _, line := range lines {
			decodeBase64(&all, line)
		}
	}
	return nonEmpty(all.String())
}

// base64Lines returns the lines of base64 that start at text[i], and where to go on.
func base64Lines(text string, i int) (lines []string, end int) {
	for {
		from := i
		for i < len(text) && isBase64(text[i]) {
			i++
		}
		long := i-from >= shortestHidden*4/3
		if long || i > from && len(lines) > 0 { // the last line may be short
			lines = append(lines, text[from:i])
		}
		if !long {
			return lines, max(i, from+1)
		}
		from = i
		for i < len(text) && (text[i] == '\n' || text[i] == '\r') {
			i++
		}
		if i == from {
			return lines, i
		}
	}
}

func isBase64(c byte) bool {
	return class[c] != classOther || c == '+' || c == '/' || c == '-' || c == '_'
}

// decodeBase64 writes what a run decodes to, itself or, as part of a path, its parts, and reports whether there was any.
func decodeBase64(to *strings.Builder, run string) bool {
	if len(run) < shortestHidden*4/3 {
		return false
	}
	whole := run[:len(run)-len(run)%4+[]int{0, 0, 2, 3}[len(run)%4]] // one character left over says nothing
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(whole, "-_") {
		encoding = base64.RawURLEncoding
	}
	if decoded, err := encoding.DecodeString(whole); err == nil && isText(decoded) {
		to.Write(decoded)
		to.WriteByte('\n')
		return true
	}
	found := false
	if strings.Contains(run, "/") {
		for part := range strings.SplitSeq(run, "/") {
			found = decodeBase64(to, part) || found
		}
	}
	return found
}
