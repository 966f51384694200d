package forward

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

const redacted = "[REDACTED]"

// minSecret is the length from which on a secret is looked for in answers. Shorter ones would shred ordinary text.
const minSecret = 6

// redactor replaces a credential's secrets in what comes back from an upstream. It recognises a secret as it is; with any of
// its characters escaped for JSON, a URL, a form, HTML or quoted-printable text, in up to three layers; and in base64, of either
// alphabet and wherever in a longer text, or in hexadecimal digits, both of them possibly escaped and broken into lines. It does
// not recognise what an upstream has encrypted, compressed, reversed, translated or encoded in two such alphabets one over the
// other, nor a secret of which it says only a part. The nil redactor has nothing to look for.
type redactor struct {
	spellings []spelling
	starts    [256]uint64 // with what byte which of them may begin; number i is bit i%64
	names     []string    // the secrets in lower case
}

// spelling is one way in which a secret may be written, apart from escapes.
type spelling struct {
	text        string
	skip        string // what may stand between any two of its characters
	fold        bool   // the text is in lower case, and case does not matter
	left, right bool   // the neighbour in base64 holds some of the secret's bits as well
	base64      bool
}

func (c Credential) redactor() *redactor {
	r := &redactor{}
	for _, s := range c.secrets {
		if secret := s.Reveal(); len(secret) >= minSecret {
			r.spellings = append(r.spellings, spellings(secret)...)
			r.names = append(r.names, strings.ToLower(secret))
		}
	}
	if len(r.spellings) == 0 {
		return nil
	}
	// The longest first: the first that fits is taken, and one may begin with another.
	slices.SortFunc(r.spellings, func(a, b spelling) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), cmp.Compare(a.text, b.text))
	})
	r.spellings = slices.Compact(r.spellings)
	for i, f := range r.spellings {
		bit := uint64(1) << (i % 64)
		r.starts[f.text[0]] |= bit
		if f.fold {
			r.starts[strings.ToUpper(f.text[:1])[0]] |= bit
		}
	}
	return r
}

// spellings lists the ways in which a secret may be written.
func spellings(secret string) []spelling {
	list := []spelling{{text: secret}}
	if bare := strings.TrimRight(secret, "="); len(bare) >= minSecret {
		list = append(list, spelling{text: bare})
	}
	quoted := encodeJSON(secret)
	inners := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), string(quoted[1 : len(quoted)-1])}
	slices.Sort(inners)
	for _, inner := range slices.Compact(inners) {
		list = append(list, spelling{text: hex.EncodeToString([]byte(inner)), fold: true, skip: " :-\r\n"})
		list = append(list, base64Spellings(inner)...)
	}
	return list
}

// base64Spellings lists what base64 makes of a text at the three places, modulo 3, at which it may begin in a longer one, without
// the characters that depend on its neighbours.
func base64Spellings(text string) []spelling {
	var list []spelling
	for before := range 3 {
		padded := []byte(strings.Repeat("\x00", before) + text)
		first, last := (before*8+5)/6, len(padded)*8/6
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			list = append(list, spelling{text: encoding.EncodeToString(padded)[first:last], skip: "\r\n", base64: true,
				left: before > 0, right: len(padded)*8%6 > 0})
		}
	}
	return list
}

// match returns where the spelling ends that begins at i. Else it says whether more text could make one of it.
func (f *spelling) match(text string, i int) (end int, ok, more bool) {
	var buffer, spare [8]int
	at, next := append(buffer[:0], i), spare[:0] // an escape may be read in several ways
	for j := 0; j < len(f.text); {
		size := 1
		if f.text[j] >= utf8.RuneSelf {
			_, size = utf8.DecodeRuneInString(f.text[j:])
		}
		want := f.text[j : j+size]
		next = next[:0]
		for _, i := range at {
			if f.skip != "" && j > 0 {
				i = f.passOver(text, i)
			}
			more = more || cutOff(text, i)
			for layer := range layers + 1 {
				if after, ok := f.take(text, i, layer, want); ok && !slices.Contains(next, after) && len(next) < cap(spare[:]) {
					next = append(next, after)
				}
				if i < len(text) && !isLead(text[i]) && size == 1 {
					break // all layers read the same
				}
			}
		}
		if len(next) == 0 {
			return 0, false, more
		}
		at, next = next, at
		j += size
	}
	return slices.Max(at), true, false
}

// passOver skips a few of the characters that may stand between two of its own.
func (f *spelling) passOver(text string, i int) int {
	for range 4 {
		char, next := readChar(text, i, 1)
		if char == "" || !strings.Contains(f.skip, char) {
			break
		}
		i = next
	}
	return i
}

// take reads one character of the spelling, which may be several bytes.
func (f *spelling) take(text string, i, layer int, want string) (next int, ok bool) {
	for want != "" {
		char, after := readChar(text, i, layer)
		if char == "" {
			return i, false
		}
		rest, ok := strings.CutPrefix(want, char)
		if !ok && f.fold && len(char) == 1 {
			rest, ok = strings.CutPrefix(want, string(lower(char[0])))
		}
		if !ok {
			return i, false
		}
		want, i = rest, after
	}
	return i, true
}

// find returns the first secret that begins at from or later. Without one it says from where on more text could make one: at
// the end of the text when nowhere.
func (r *redactor) find(text string, from int) (start, end int, ok bool) {
	open := len(text)
	for i := from; i < len(text); i++ {
		candidates := r.starts[text[i]]
		if isLead(text[i]) {
			candidates |= r.escaped(text, i)
			if cutOff(text, i) {
				open = min(open, i)
			}
		}
		if candidates == 0 {
			continue
		}
		for n := range r.spellings {
			f := &r.spellings[n]
			if candidates&(1<<(n%64)) == 0 || !f.mayBegin(text, i) {
				continue
			}
			end, ok, more := f.match(text, i)
			if ok {
				start, end = f.widen(text, i, end, from)
				return start, end, true
			}
			if more {
				open = min(open, i)
			}
		}
	}
	return open, len(text), false
}

// escaped returns which spellings may begin with what the escape at i stands for.
func (r *redactor) escaped(text string, i int) (candidates uint64) {
	for layer := range layers {
		if char, _ := readChar(text, i, layer+1); char != "" {
			candidates |= r.starts[char[0]]
		}
	}
	return candidates
}

// mayBegin is a quick look at the first two bytes.
func (f *spelling) mayBegin(text string, i int) bool {
	if isLead(text[i]) || i+1 == len(text) {
		return true
	}
	c, want := text[i+1], f.text[1]
	return c == want || f.fold && lower(c) == want || isLead(c) || f.skip != "" && strings.IndexByte(f.skip, c) >= 0
}

// widen takes in the neighbours that hold bits of the secret too, and the padding.
func (f *spelling) widen(text string, start, end, from int) (wideStart, wideEnd int) {
	if !f.base64 {
		return start, end
	}
	if f.left && start > from && isBase64(text[start-1]) {
		start--
	}
	if f.right && end < len(text) && isBase64(text[end]) {
		end++
	}
	for range 2 {
		if end < len(text) && text[end] == '=' {
			end++
		}
	}
	return start, end
}

func isBase64(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("+/-_", c) >= 0 }

// text returns s without secrets.
func (r *redactor) text(s string) string {
	if r == nil {
		return s
	}
	start, end, ok := r.find(s, 0)
	if !ok {
		return s
	}
	var clean strings.Builder
	from := 0
	for ok {
		clean.WriteString(s[from:start])
		clean.WriteString(redacted)
		from = end
		start, end, ok = r.find(s, from)
	}
	clean.WriteString(s[from:])
	return clean.String()
}

// name returns the name of a header, in lower case, without secrets.
func (r *redactor) name(s string) string {
	if r == nil {
		return s
	}
	for _, secret := range r.names {
		s = strings.ReplaceAll(s, secret, redacted)
	}
	return s
}

// json returns a JSON document without secrets. It stays byte for byte as it was unless it holds one, or might: inside a
// JSON string any character may be written as an escape.
func (r *redactor) json(document []byte) []byte {
	if r == nil {
		return document
	}
	text := string(document)
	if !strings.Contains(text, `\`) {
		if _, _, ok := r.find(text, 0); !ok {
			return document
		}
	}
	value, err := decodeJSON(document)
	if err != nil {
		return []byte(`"` + redacted + `"`) // it was checked before, so this does not happen
	}
	value, found := r.value(value)
	if !found {
		return document
	}
	return encodeJSON(value)
}

// value returns a decoded JSON value without secrets, and whether it had one.
func (r *redactor) value(v any) (out any, found bool) {
	switch v := v.(type) {
	case string:
		clean := r.text(v)
		return clean, clean != v
	case json.Number:
		if clean := r.text(v.String()); clean != v.String() {
			return clean, true
		}
	case []any:
		for i, item := range v {
			cleanItem, hit := r.value(item)
			v[i], found = cleanItem, found || hit
		}
		return v, found
	case map[string]any:
		clean := make(map[string]any, len(v))
		for key, item := range v {
			name := r.text(key)
			cleanItem, hit := r.value(item)
			clean[name] = cleanItem
			found = found || hit || name != key
		}
		return clean, found
	}
	return v, false
}
