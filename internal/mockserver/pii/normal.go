package pii

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// What normalised text holds for characters that have no ASCII form of their own. None is a byte of ASCII.
const (
	letter    = 0x80 // a letter of a script that puts spaces between words
	ideograph = 0x81 // a letter of a script that does not, so that a number may stand right beside it
	symbol    = 0x82 // anything else
	barrier   = 0x83 // a placeholder: nothing found ever reaches across it
)

// normal is text in a form that is easy to scan: one byte a character, with digits, spaces and punctuation of all scripts
// as ASCII, marks taken off letters, and invisible characters left out.
type normal struct {
	source string
	text   []byte
	from   []int32 // where each byte's character starts in source
}

// normalise returns text's normal form, with label's words before it.
func normalise(text, label string) *normal {
	n := &normal{
		source: text,
		text:   make([]byte, 0, len(text)+len(label)+2),
		from:   make([]int32, 0, len(text)+len(label)+2),
	}
	if label != "" {
		n.add(label, 0)
		n.text, n.from = append(n.text, ':', '\n'), append(n.from, 0, 0)
		for i, c := range n.text { // a label is a word only: nothing is found in it
			if !isLetter(c) && c != ':' && c != '\n' {
				n.text[i] = ' '
			}
		}
	}
	n.add(text, 1)
	return n
}

// add appends text's normal form. Its characters' places are their offsets times scale.
func (n *normal) add(text string, scale int32) {
	for i := 0; i < len(text); {
		start := int32(i) * scale //nolint:gosec // a text of over 2 GiB does not reach here
		c := text[i]
		switch {
		case c == '[':
			if size := placeholderSize(text[i:]); size > 0 {
				n.text, n.from = append(n.text, barrier), append(n.from, start)
				i += size
				continue
			}
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(text[i:])
			if folded := fold(r); folded != 0 {
				n.text, n.from = append(n.text, folded), append(n.from, start)
			}
			i += size
			continue
		}
		n.text, n.from = append(n.text, c), append(n.from, start)
		i++
	}
}

// span returns the offsets in source of text[start:end].
func (n *normal) span(start, end int) (from, to int) {
	last := int(n.from[end-1])
	_, size := utf8.DecodeRuneInString(n.source[last:])
	return int(n.from[start]), last + size
}

// collapse replaces each of the spans, which are in order and apart, by one barrier.
func (n *normal) collapse(spans []candidate) {
	at, done := 0, 0
	for _, span := range spans {
		at += copy(n.text[at:], n.text[done:span.start])
		copy(n.from[at-(span.start-done):], n.from[done:span.start])
		n.text[at], n.from[at] = barrier, n.from[span.start]
		at++
		done = span.end
	}
	copy(n.from[at:], n.from[done:])
	at += copy(n.text[at:], n.text[done:])
	n.text, n.from = n.text[:at], n.from[:at]
}

// placeholderSize returns the length of the placeholder that text starts with, or 0.
func placeholderSize(text string) int {
	const longest = len("[NATIONAL_ID:SE_1234567]")
	end := strings.IndexByte(text[:min(len(text), longest)], ']')
	if end < 0 {
		return 0
	}
	name, number, ok := cutLast(text[1:end], '_')
	if !ok || number == "" || strings.Trim(number, "0123456789") != "" {
		return 0
	}
	if country, national := strings.CutPrefix(name, string(NationalID)+":"); national {
		if !isCountry(country) {
			return 0
		}
		return end + 1
	}
	switch Kind(name) {
	case Email, Card, IBAN, IP, Phone:
		return end + 1
	default:
		return 0
	}
}

// cutLast cuts s around the last sep.
func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// Letters with marks of Latin, and those of Cyrillic, with what each is folded to. The two strings of a pair have a
// character for a character.
const (
	latinFrom = "ÀÁÂÃÄÅĀĂĄÆàáâãäåāăąæÇĆĈĊČçćĉċčÐĎĐðďđÈÉÊËĒĔĖĘĚèéêëēĕėęěĜĞĠĢĝğġģĤĦĥħÌÍÎÏĨĪĬĮİìíîïĩīĭįıĴĵĶķĹĻĽŁĺļľłÑ" +
		"ŃŅŇñńņňÒÓÔÕÖØŌŎŐŒòóôõöøōŏőœŔŖŘŕŗřŚŜŞŠȘśŝşšșßŢŤŦȚţťŧțÙÚÛÜŨŪŬŮŰŲùúûüũūŭůűųŴŵÝŶŸýŷÿŹŻŽźżžÞþ"
	latinTo = "AAAAAAAAAAaaaaaaaaaaCCCCCcccccDDDdddEEEEEEEEEeeeeeeeeeGGGGggggHHhhIIIIIIIIIiiiiiiiiiJjKkLLLLllllN" +
		"NNNnnnnOOOOOOOOOOooooooooooRRRrrrSSSSSssssssTTTTttttUUUUUUUUUUuuuuuuuuuuWwYYYyyyZZZzzzTt"
	cyrillicFrom = "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюяЁёІіЇїЄє"
	cyrillicTo   = "ABVGDEJZIIKLMNOPRSTUFHCCSSYYYEUAabvgdejziiklmnoprstufhccssyyyeuaEeIiIiEe"
)

// foldedLetters holds what the letters above are folded to.
var foldedLetters = func() map[rune]byte {
	folded := map[rune]byte{}
	for i, r := range []rune(latinFrom) {
		folded[r] = latinTo[i]
	}
	for i, r := range []rune(cyrillicFrom) {
		folded[r] = cyrillicTo[i]
	}
	return folded
}()

// unspaced are the scripts that put no spaces between words.
var unspaced = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar,
}

// fold returns r, which is not ASCII, as a byte of normalised text, or 0 when it is left out.
func fold(r rune) byte {
	switch {
	case r >= 0xFF01 && r <= 0xFF5E: // the full-width forms of ASCII
		return byte(r - 0xFEE0)
	case r == 0xFF61 || r == 0x3002 || r == 0x2024:
		return '.'
	case r == '×' || r == '÷':
		return symbol
	}
	if c, ok := foldedLetters[r]; ok {
		return c
	}
	switch {
	case unicode.IsDigit(r):
		return '0' + digitValue(r)
	case unicode.In(r, unspaced...):
		return ideograph
	case unicode.IsLetter(r):
		return letter
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Variation_Selector):
		return 0
	case unicode.In(r, unicode.Zs):
		return ' '
	case unicode.In(r, unicode.Zl, unicode.Zp), r == 0x85:
		return '\n'
	case unicode.In(r, unicode.Pd), r == 0x2212: // dashes, and the minus sign
		return '-'
	default:
		return symbol
	}
}

// digitValue returns the value of the decimal digit r. In each range of Unicode's decimal digits they stand in order from
// zero, ten to a set.
func digitValue(r rune) byte {
	for _, set := range unicode.Nd.R16 {
		if r >= rune(set.Lo) && r <= rune(set.Hi) {
			return byte((r - rune(set.Lo)) % 10)
		}
	}
	for _, set := range unicode.Nd.R32 {
		if r >= rune(set.Lo) && r <= rune(set.Hi) {
			return byte((r - rune(set.Lo)) % 10)
		}
	}
	return 0
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isUpper(c byte) bool  { return c >= 'A' && c <= 'Z' }
func isLower(c byte) bool  { return c >= 'a' && c <= 'z' }
func isLetter(c byte) bool { return isUpper(c) || isLower(c) }
func isAlnum(c byte) bool  { return isDigit(c) || isLetter(c) }

// isWord reports whether a number right beside c would be part of a longer name.
func isWord(c byte) bool { return isAlnum(c) || c == '_' || c == letter }

// upper returns the letter c as a capital, and any other byte as it is.
func upper(c byte) byte {
	if isLower(c) {
		return c - 'a' + 'A'
	}
	return c
}
