package forward

import (
	"html"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// layers is how many escapes one around the other are seen through, such as JSON inside JSON inside a URL.
const layers = 3

// longestEscape bounds how far an escape is read, in characters.
const longestEscape = 12

// isLead reports whether c begins an escape: of JSON and of programming languages, of URLs, of HTML, of quoted-printable text,
// or of a form's space.
func isLead(c byte) bool { return c == '\\' || c == '%' || c == '&' || c == '=' || c == '+' }

// readChar returns what the text stands for at i, once so many layers of escapes are taken off, and where it goes on. At the
// end of the text it is empty.
func readChar(text string, i, layer int) (char string, next int) {
	if i >= len(text) {
		return "", i
	}
	if layer == 0 {
		return text[i : i+1], i + 1
	}
	char, next = readChar(text, i, layer-1)
	if len(char) == 1 && isLead(char[0]) {
		if meant, after := unescape(text, char[0], next, layer-1); meant != "" {
			return meant, after
		}
	}
	return char, next
}

// unescape reads the rest of an escape after its lead. It returns an empty text when there is none.
func unescape(text string, lead byte, i, layer int) (meant string, next int) {
	switch lead {
	case '+':
		return " ", i
	case '%', '=':
		if value, after, ok := readHex(text, i, 2, layer); ok {
			return string([]byte{byte(value)}), after
		}
		if after, ok := lineBreak(text, i); ok && lead == '=' { // of quoted-printable text: no character at all
			return readChar(text, after, layer)
		}
	case '&':
		return readEntity(text, i, layer)
	case '\\':
		return readBackslash(text, i, layer)
	}
	return "", i
}

// lineBreak returns what comes after a line break.
func lineBreak(text string, i int) (next int, ok bool) {
	rest := text[i:]
	for _, end := range []string{"\r\n", "\n"} {
		if strings.HasPrefix(rest, end) {
			return i + len(end), true
		}
	}
	return i, false
}

// readBackslash reads what follows a backslash. Before any character that means nothing else the backslash means nothing.
func readBackslash(text string, i, layer int) (meant string, next int) {
	char, next := readChar(text, i, layer)
	switch char {
	case "n", "r", "t":
		return map[string]string{"n": "\n", "r": "\r", "t": "\t"}[char], next
	case "x":
		if value, after, ok := readHex(text, next, 2, layer); ok {
			return string([]byte{byte(value)}), after
		}
	case "u":
		if value, after, ok := readHex(text, next, 4, layer); ok {
			return readSurrogate(text, value, after, layer)
		}
	}
	return char, next
}

// readSurrogate completes a character of which \uXXXX may be the first half.
func readSurrogate(text string, first rune, i, layer int) (meant string, next int) {
	if utf16.IsSurrogate(first) {
		lead, at := readChar(text, i, layer)
		u, at := readChar(text, at, layer)
		if second, after, ok := readHex(text, at, 4, layer); ok && lead == `\` && u == "u" {
			return string(utf16.DecodeRune(first, second)), after
		}
	}
	return string(first), i
}

// readEntity reads the rest of a character reference of HTML.
func readEntity(text string, i, layer int) (meant string, next int) {
	var name strings.Builder
	name.WriteByte('&')
	for range longestEscape {
		char, after := readChar(text, i, layer)
		if char == "" || !isAlphanumeric(char[0]) && char != "#" && char != ";" {
			break
		}
		name.WriteString(char)
		i = after
		if char == ";" {
			if meant = html.UnescapeString(name.String()); meant != name.String() && utf8.RuneCountInString(meant) == 1 {
				return meant, i
			}
			break
		}
	}
	return "", i
}

// cutOff reports whether the text ends at i, or in an escape that begins there.
func cutOff(text string, i int) bool {
	if i >= len(text) {
		return true
	}
	if !isLead(text[i]) || len(text)-i > longestEscape {
		return false
	}
	rest, digits := text[i+1:], 2
	switch text[i] {
	case '+':
		return false
	case '&':
		return !strings.Contains(rest, ";") && strings.IndexFunc(rest, func(r rune) bool {
			return r != '#' && (r >= utf8.RuneSelf || !isAlphanumeric(byte(r)))
		}) < 0
	case '\\':
		if rest == "" {
			return true
		}
		if rest[0] == 'u' {
			digits = 4
		} else if rest[0] != 'x' {
			return false
		}
		rest = rest[1:]
	}
	return len(rest) < digits && strings.Trim(rest, "0123456789abcdefABCDEF") == ""
}

func readHex(text string, i, digits, layer int) (value rune, next int, ok bool) {
	for range digits {
		char, after := readChar(text, i, layer)
		if len(char) != 1 {
			return 0, i, false
		}
		digit := strings.IndexByte("0123456789abcdef", lower(char[0]))
		if digit < 0 {
			return 0, i, false
		}
		value, i = value<<4|rune(digit), after
	}
	return value, i, true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func isAlphanumeric(c byte) bool {
	c = lower(c)
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}
