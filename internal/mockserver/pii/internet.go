package pii

import (
	"net/netip"
	"strings"
)

const (
	longestLocal  = 64  // of a mail address, before the @ (RFC 5321)
	longestDomain = 253 // of a host name (RFC 1035)
	longestLabel  = 63
)

// email looks for a mail address around the @ at at. Quoted local parts are not known.
func (p *pass) email(at int) {
	start := at
	spaced := at > 0 && p.text[at-1] == ideograph // a local part in a script without spaces is taken up to what is not of it
	for start > 0 && at-start < longestLocal && isLocal(p.text[start-1], spaced) {
		start--
	}
	for start < at && strings.IndexByte(".-'", p.text[start]) >= 0 {
		start++
	}
	end := p.domain(at + 1)
	if start == at || end < 0 {
		return
	}
	if string(p.text[start:at]) == "git" && end < len(p.text) && strings.IndexByte(":/", p.text[end]) >= 0 {
		return // git@host:path is everybody's name on that host
	}
	p.add(candidate{kind: Email, start: start, end: end, base: 1, value: strings.ToLower(string(p.text[start:end]))})
}

// isLocal reports whether c may stand in the local part of a mail address.
func isLocal(c byte, ideographs bool) bool {
	return isWord(c) || strings.IndexByte(".%+-'&", c) >= 0 || ideographs && c == ideograph
}

// domain returns where the host name that starts at start ends, or -1 when it is none that mail goes to: two labels or
// more, the last of letters.
func (p *pass) domain(start int) int {
	ideographs := start < len(p.text) && p.text[start] == ideograph
	end := -1 // of the longest good name so far
	labels := 0
	for i := start; i-start < longestDomain; {
		label := i
		letters := true
		for i < len(p.text) && i-label <= longestLabel {
			c := p.text[i]
			if !isAlnum(c) && c != '-' && c != letter && (!ideographs || c != ideograph) {
				break
			}
			letters = letters && c != '-' && !isDigit(c)
			i++
		}
		size := i - label
		if size == 0 || size > longestLabel || p.text[label] == '-' {
			break
		}
		if labels == 0 && isScale(p.text[label:i]) {
			return -1 // a picture's file name, as in logo@2x.png
		}
		labels++
		punycode := size > 4 && strings.EqualFold(string(p.text[label:label+4]), "xn--")
		if labels > 1 && size > 1 && (letters || punycode) && p.text[i-1] != '-' {
			end = i
		}
		if i >= len(p.text) || p.text[i] != '.' {
			break
		}
		i++
	}
	return end
}

// isScale reports whether label is a number and an x.
func isScale(label []byte) bool {
	last := len(label) - 1
	return label[last] == 'x' && last > 0 && strings.Trim(string(label[:last]), "0123456789") == ""
}

// ipv4 looks for an IPv4 address at start, where a digit is.
func (p *pass) ipv4(start int) {
	base := 1.0
	if start > 1 {
		switch before := p.text[start-2]; p.text[start-1] {
		case '.':
			if isWord(before) {
				return // inside something longer
			}
		case '-', '/':
			if isLetter(before) {
				base = 0.3 // a product's version, as in Agent/1.2.3.4
			}
		}
	}
	i := start
	largest := 0
	for part := range 4 {
		if part > 0 {
			if i >= len(p.text) || p.text[i] != '.' {
				return
			}
			i++
		}
		value, digits := 0, 0
		for ; i < len(p.text) && isDigit(p.text[i]) && digits < 4; digits++ {
			value = value*10 + int(p.text[i]-'0')
			i++
		}
		if digits == 0 || digits > 3 || value > 255 {
			return
		}
		largest = max(largest, value)
	}
	if i < len(p.text) && isWord(p.text[i]) || i+1 < len(p.text) && p.text[i] == '.' && isDigit(p.text[i+1]) {
		return
	}
	if largest < 30 {
		base = min(base, 0.5) // may be a version or a section too
	}
	p.add(candidate{kind: IP, start: start, end: i, base: base, value: string(p.text[start:i])})
}

// ipv6 looks for an IPv6 address at start, where a hexadecimal digit or a colon is.
func (p *pass) ipv6(start int) {
	const longest = 45
	end, colons, digits, decimals := start, 0, 0, 0
	for end < len(p.text) && end-start <= longest && (isHex(p.text[end]) || p.text[end] == ':' || p.text[end] == '.') {
		switch c := p.text[end]; {
		case c == ':':
			colons++
		case isDigit(c):
			decimals++
			digits++
		case c != '.':
			digits++
		}
		end++
		if end-start > 4 && colons == 0 {
			return
		}
	}
	for end > start && (p.text[end-1] == '.' || p.text[end-1] == ':' && (end < start+2 || p.text[end-2] != ':')) {
		end--
	}
	if colons < 2 || end-start > longest || insideGroups(p.text, start) ||
		end < len(p.text) && isWord(p.text[end]) {
		return
	}
	addr, err := netip.ParseAddr(string(p.text[start:end]))
	if err != nil {
		return
	}
	base := 1.0
	if digits < 5 || decimals == 0 {
		base = 0.3 // may be a scope or a slice of a program, as in add::face or [1::2]
	}
	p.add(candidate{kind: IP, start: start, end: end, base: base, value: addr.String()})
}

// insideGroups reports whether a colon and a hexadecimal group, or another colon, stand before start.
func insideGroups(text []byte, start int) bool {
	if start == 0 || text[start-1] != ':' {
		return false
	}
	i := start - 1
	for i > 0 && start-i < 6 && isWord(text[i-1]) {
		i--
		if !isHex(text[i]) {
			return false
		}
	}
	return start-i < 6
}
