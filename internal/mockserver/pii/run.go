package pii

import "strings"

// longestRun is the number of characters of the longest thing with a checksum, an IBAN of Saint Lucia and the like.
const longestRun = 34

// longestNational is the number of characters of the longest national number.
const longestNational = 18

// run is a run of letters and digits, in capitals, with single separators between them.
type run struct {
	start      int
	chars      [longestRun]byte
	at         [longestRun]int  // where each stands in the scanned text
	separators [longestRun]byte // what stands before each, or 0
	size       int
}

// run looks for what has a checksum and starts at start, where a word with a digit near does: cards, IBANs and national
// numbers.
func (p *pass) run(start int) {
	if gluedBefore(p.text, start) {
		return
	}
	r := &p.current
	r.read(p.text, start)
	iban := 0 // the length that an IBAN of this start has
	if r.size >= 4 && r.separators[1] == 0 && r.separators[2] == 0 && r.separators[3] == 0 {
		iban = ibanLength(r.chars[:4])
	}
	var mask uint64             // of the characters that a separator stands before
	var groups [longestRun]int8 // the same as numbers
	count := 0
	for size := 1; size <= r.size; size++ {
		if size < r.size && r.separators[size] == 0 {
			continue // inside a group
		}
		if end := r.at[size-1] + 1; !gluedAfter(p.text, end) {
			if size == iban {
				p.iban(r, end)
			}
			if size >= shortestCard && size <= longestCard {
				p.card(r, end, size, groups[:count])
			}
			p.national(r, end, formKey{size: size, mask: mask})
		}
		mask |= 1 << size
		groups[count] = int8(size)
		count++
	}
}

// read reads the run at start.
func (r *run) read(text []byte, start int) {
	r.start, r.size = start, 0
	var separator byte
	i := start
	for ; i < len(text) && r.size < longestRun; i++ {
		c := text[i]
		if isAlnum(c) {
			r.chars[r.size], r.at[r.size], r.separators[r.size] = upper(c), i, separator
			r.size++
			separator = 0
			continue
		}
		if separator != 0 || strings.IndexByte(" -./+(", c) < 0 {
			break
		}
		separator = c
	}
	if r.size == longestRun && i < len(text) && isAlnum(text[i]) { // leave out the group that goes on past the limit
		for r.size > 0 && r.separators[r.size-1] == 0 {
			r.size--
		}
		r.size = max(0, r.size-1)
	}
}

// iban adds r, of the length that an IBAN of its start has, if it is one.
func (p *pass) iban(r *run, end int) {
	size := ibanLength(r.chars[:4])
	c := r.chars[:size]
	if !isIBAN(c) {
		return
	}
	base := 1.0
	grouped := r.separators[4] != 0
	for i := 1; i < size; i++ {
		if (r.separators[i] != 0) != (grouped && i%4 == 0) {
			base = 0.7
		}
	}
	p.add(candidate{kind: IBAN, country: string(c[:2]), start: r.start, end: end, base: base, value: string(c)})
}

// card adds the first size characters of r, in groups that start at groups, if they are a card's number.
func (p *pass) card(r *run, end, size int, groups []int8) {
	c := r.chars[:size]
	for i, separator := range r.separators[:size] {
		if !isDigit(c[i]) || separator != 0 && strings.IndexByte(" -.", separator) < 0 {
			return
		}
	}
	if base := cardBase(c, groups); base > 0 {
		p.add(candidate{kind: Card, start: r.start, end: end, base: base, value: string(c)})
	}
}

// national adds the first characters of r, which have the given key, as each country's number that they are.
func (p *pass) national(r *run, end int, key formKey) {
	if key.size > longestNational {
		return
	}
	c := r.chars[:key.size]
	for _, form := range p.session.redactor.nationals[key] {
		if !form.matches(r) || !form.check(c) {
			continue
		}
		found := candidate{
			kind: NationalID, country: form.country, start: r.start, end: end, base: form.base, value: string(c),
		}
		if form.parenthesis {
			if end == len(p.text) || p.text[end] != ')' {
				continue
			}
			found.end++
		}
		if form.spaced && p.amongNumbers(r.start, end) {
			found.base /= 2
		}
		p.add(found)
	}
}

// amongNumbers reports whether text[start:end], digits in groups with spaces, has more of such groups beside it.
func (p *pass) amongNumbers(start, end int) bool {
	return start > 1 && p.text[start-1] == ' ' && isDigit(p.text[start-2]) ||
		end+1 < len(p.text) && p.text[end] == ' ' && isDigit(p.text[end+1])
}

// form is one way in which a country's number is written.
type form struct {
	country     string
	shape       string // d for a digit, a for a letter, x for either
	separators  string // what stands before each character, \x00 for nothing and ~ for a space or a hyphen
	spaced      bool   // digits in groups with spaces
	parenthesis bool   // the last group stands in parentheses
	base        float64
	check       func(c []byte) bool
}

// formKey is what is quickly known of a run.
type formKey struct {
	size int
	mask uint64
}

// matches reports whether r starts with characters and separators of the form.
func (f *form) matches(r *run) bool {
	for i := range len(f.shape) {
		c := r.chars[i]
		if f.shape[i] == 'd' && !isDigit(c) || f.shape[i] == 'a' && !isLetter(c) {
			return false
		}
		want, is := f.separators[i], r.separators[i]
		if want != is && (want != '~' || is != ' ' && is != '-') {
			return false
		}
	}
	return true
}

// nationalIndex holds the forms by formKey.
type nationalIndex map[formKey][]*form

// indexNationals returns the forms of the given countries, or of all when that is nil.
func indexNationals(countries []string) nationalIndex {
	wanted := map[string]bool{}
	for _, country := range countries {
		wanted[country] = true
	}
	index := nationalIndex{}
	for _, n := range nationals {
		if countries != nil && !wanted[n.country] {
			continue
		}
		for _, written := range n.forms {
			f, key := parseForm(written.as)
			f.country, f.base, f.check = n.country, written.base, n.check
			index[key] = append(index[key], f)
		}
	}
	return index
}

// parseForm reads a form as it stands in the table, such as dddddd-dddd.
func parseForm(as string) (*form, formKey) {
	f := &form{}
	key := formKey{}
	var separator byte
	for _, c := range []byte(strings.TrimSuffix(as, ")")) {
		if !isLetter(c) {
			separator = c
			key.mask |= 1 << key.size
			f.spaced = f.spaced || c == ' ' || c == '~'
			f.parenthesis = c == '('
			continue
		}
		f.shape += string(c)
		f.separators += string(separator)
		separator = 0
		key.size++
	}
	f.spaced = f.spaced && strings.Trim(f.shape, "d") == ""
	return f, key
}
