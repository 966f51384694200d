package pii

import "sort"

// maxPasses bounds how often a text is gone over. A second pass sees what the first has found as placeholders, so that
// redacting the output again changes nothing; more passes are needed only when one finding brings a word nearer to the
// next, which a word's reach bounds.
const maxPasses = 32

// candidate is what may be personal data, by its place in normalised text.
type candidate struct {
	kind       Kind
	country    string
	start, end int
	value      string  // the canonical form
	base       float64 // the confidence before words near it are weighed
}

// located is a Finding with its value, which stays inside the package.
type located struct {
	Finding

	value string
}

// name returns the placeholder's type.
func (f Finding) name() string {
	if f.Kind == NationalID {
		return string(f.Kind) + ":" + f.Country
	}
	return string(f.Kind)
}

// key identifies the value among all that a Session has seen.
func (f located) key() string { return f.name() + "=" + f.value }

// pass is one going over a normalised text.
type pass struct {
	session  *Session
	text     []byte
	hints    []hint
	accepted []candidate // until resolve not yet in order and apart
	current  run         // here so that it is allocated once
}

// find returns what is to be redacted in text, in no order.
func (s *Session) find(text, label string) []located {
	var found []located
	norm := normalise(text, label)
	for range maxPasses {
		p := &pass{session: s, text: norm.text, hints: hints(norm.text)}
		p.scan()
		if len(p.accepted) == 0 {
			break
		}
		p.resolve()
		for _, c := range p.accepted {
			f := located{Finding: Finding{Kind: c.kind, Country: c.country, Confidence: c.base}, value: c.value}
			f.Start, f.End = norm.span(c.start, c.end)
			found = append(found, f)
			s.seen[f.key()] = true
		}
		norm.collapse(p.accepted)
	}
	return found
}

// scan collects the candidates of the whole text that are to be redacted.
func (p *pass) scan() {
	for i := 0; i < len(p.text); i++ {
		c := p.text[i]
		atStart := i == 0 || !isWord(p.text[i-1])
		switch {
		case c == '@':
			p.email(i)
		case c == ':' && atStart:
			p.ipv6(i)
		case c == '+', c == '(' && atStart:
			p.phone(i)
		case isAlnum(c) && atStart:
			if size := uuidSize(p.text[i:]); size > 0 {
				i += size - 1
				continue
			}
			p.token(i)
		}
	}
}

// token tries what may start at i, where a word of letters and digits does.
func (p *pass) token(i int) {
	if isHex(p.text[i]) {
		p.ipv6(i)
	}
	if isDigit(p.text[i]) {
		p.ipv4(i)
		p.phone(i)
	}
	for _, c := range p.text[i:min(i+8, len(p.text))] { // the longest start without a digit is that of an Italian code
		if isDigit(c) {
			p.run(i)
			return
		}
	}
}

// add accepts c, with the words near it weighed, when its confidence reaches the threshold or its value was found already.
func (p *pass) add(c candidate) {
	c.base = p.weigh(c)
	f := located{Finding: Finding{Kind: c.kind, Country: c.country}, value: c.value}
	if c.base >= p.session.redactor.config.Threshold || p.session.seen[f.key()] {
		p.accepted = append(p.accepted, c)
	}
}

// resolve leaves of candidates that overlap the longest, and of equally long ones the most confident.
func (p *pass) resolve() {
	sort.SliceStable(p.accepted, func(i, j int) bool { return p.accepted[i].start < p.accepted[j].start })
	kept := p.accepted[:1]
	for _, c := range p.accepted[1:] {
		last := &kept[len(kept)-1]
		switch {
		case c.start >= last.end:
			kept = append(kept, c)
		case c.end-c.start > last.end-last.start,
			c.end-c.start == last.end-last.start && c.base > last.base:
			*last = c // what it drops beyond c's place is found in the next pass
		}
	}
	p.accepted = kept
}

// gluedBefore reports whether what starts at start goes on from something longer, as in 3.1415 or ab12-34567, or is an
// amount of money.
func gluedBefore(text []byte, start int) bool {
	if start == 0 {
		return false
	}
	switch text[start-1] {
	case '-', '.':
	case '$':
		return true
	default:
		return isWord(text[start-1])
	}
	for i := start - 2; i >= 0 && i >= start-20 && isWord(text[i]); i-- {
		if isDigit(text[i]) {
			return true
		}
	}
	return false
}

// gluedAfter reports whether what ends before end goes on into something longer, or is a percentage.
func gluedAfter(text []byte, end int) bool {
	if end == len(text) {
		return false
	}
	switch text[end] {
	case '-', '.':
	case '%':
		return true
	default:
		return isWord(text[end])
	}
	for i := end + 1; i < len(text) && i <= end+20 && isWord(text[i]); i++ {
		if isDigit(text[i]) {
			return true
		}
	}
	return false
}

// uuidSize returns the length of the UUID that text starts with, or 0.
func uuidSize(text []byte) int {
	const size = 36
	if len(text) < size || text[8] != '-' {
		return 0
	}
	for i, c := range text[:size] {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return 0
			}
		} else if !isHex(c) {
			return 0
		}
	}
	if len(text) > size && isWord(text[size]) {
		return 0
	}
	return size
}

// isHex reports whether c is a hexadecimal digit.
func isHex(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
