// Package strictjson reads JSON in one pass into whatever its caller pulls out of it. Unlike encoding/json it takes names by
// their case and refuses an object with two members of one name, text that is not UTF-8, and deep nesting.
package strictjson

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxDepth   = 32
	maxMembers = 256 // of one object; each name is compared with those before it
)

// Error is the first thing that was wrong.
type Error struct {
	Path   string // of the value, its names joined by dots; empty for the whole
	Syntax bool   // it is no JSON, or has a name twice; else a value is of another type than it should be
	Reason string // holds nothing of the text
}

// Error says where and what.
func (e *Error) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

// Reader reads one JSON text. After an error every method gives the zero value and reads nothing; [Reader.End] returns it.
type Reader struct {
	text  string
	at    int
	path  []string // of the value that is read
	names []string // of the members so far, of the objects that are open
	depth int
	err   *Error
}

// New returns a reader of the text. What it gives shares the text's memory.
func New(text string) *Reader {
	return &Reader{text: text, path: make([]string, 0, 8), names: make([]string, 0, 32)}
}

// Check returns what is wrong with a text as JSON, whatever it holds.
func Check(text string) error {
	r := New(text)
	r.Skip()
	return r.End()
}

// End returns the first error, which is that something follows the value when nothing else was wrong.
func (r *Reader) End() error {
	if r.Next(); r.err == nil && r.at < len(r.text) {
		r.syntax("something follows the value")
	}
	if r.err != nil {
		return r.err
	}
	return nil
}

// Fail makes the value that was read last an error of its type.
func (r *Reader) Fail(reason string) { r.fail(false, reason) }

func (r *Reader) syntax(reason string) { r.fail(true, reason) }

func (r *Reader) fail(syntax bool, reason string) {
	if r.err == nil {
		r.err = &Error{Path: strings.Join(r.path, "."), Syntax: syntax, Reason: reason}
		r.at = len(r.text)
	}
}

// Next passes over whitespace and returns the byte that comes next, which tells the type of a value; 0 at the end.
func (r *Reader) Next() byte {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return c
		}
	}
	return 0
}

// next takes a byte of structure if it comes next.
func (r *Reader) next(c byte) bool {
	if r.Next() != c {
		return false
	}
	r.at++
	return true
}

// null takes a null if it comes next. All but objects may be null, which is the zero value.
func (r *Reader) null() bool { return r.Next() == 'n' && r.literal("null") }

func (r *Reader) literal(word string) bool {
	if !strings.HasPrefix(r.text[r.at:], word) {
		r.syntax("is no JSON value")
		return false
	}
	r.at += len(word)
	return true
}

// wrong fails with what should have been there.
func (r *Reader) wrong(want string) {
	switch c := r.Next(); {
	case r.err != nil:
	case c == 0:
		r.syntax("the text ends too early")
	case c == '{' || c == '[' || c == '"' || c == '-' || c >= '0' && c <= '9' || c == 't' || c == 'f' || c == 'n':
		r.fail(false, "must be "+want)
	default:
		r.syntax("is no JSON value")
	}
}

// Object reads an object. Member is called for each of its members and must read the value.
func (r *Reader) Object(member func(name string)) {
	if !r.next('{') {
		r.wrong("an object")
		return
	}
	first := len(r.names)
	r.items('}', func() {
		name := r.name()
		if slices.Contains(r.names[first:], name) {
			r.syntax("has a member twice")
		}
		if len(r.names)-first >= maxMembers {
			r.syntax(fmt.Sprintf("has over %d members", maxMembers))
		}
		r.names, r.path = append(r.names, name), append(r.path, name)
		if r.err == nil {
			member(name)
		}
		r.path = r.path[:len(r.path)-1]
	})
	r.names = r.names[:first]
}

func (r *Reader) name() string {
	if r.Next() != '"' {
		r.syntax("an object has a member without a name")
		return ""
	}
	name := r.quoted()
	if !r.next(':') {
		r.syntax("an object has a member without a value")
	}
	return name
}

// Array reads an array. Item is called for each of its values and must read it. It reports whether there was one: false is
// null.
func (r *Reader) Array(item func()) bool {
	if r.null() {
		return false
	}
	if !r.next('[') {
		r.wrong("an array")
		return false
	}
	r.items(']', item)
	return true
}

// items reads what stands between brackets and commas.
func (r *Reader) items(end byte, item func()) {
	if r.depth++; r.depth > maxDepth {
		r.syntax(fmt.Sprintf("is nested deeper than %d", maxDepth))
	}
	for more := !r.next(end); more && r.err == nil; {
		item()
		if more = r.next(','); !more && !r.next(end) {
			r.syntax("an array or object does not end")
		}
	}
	r.depth--
}

// String reads a string; null is the empty one.
func (r *Reader) String() string {
	if r.null() {
		return ""
	}
	if r.Next() != '"' {
		r.wrong("a string")
		return ""
	}
	return r.quoted()
}

// Strings reads an array of strings; null is nil.
func (r *Reader) Strings() (list []string) {
	if r.Array(func() { list = append(list, r.String()) }) && list == nil {
		list = []string{}
	}
	return list
}

// quoted reads the string that comes next.
func (r *Reader) quoted() string {
	if r.err != nil {
		return ""
	}
	start, plain := r.at, true
	for i := start + 1; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			r.at = i + 1
			if plain {
				return r.text[start+1 : i]
			}
			return r.unescape(r.text[start:r.at])
		case c == '\\':
			plain = false
			i++
		case c >= utf8.RuneSelf:
			plain = false
		case c < ' ':
			r.syntax("a string has a control character")
			return ""
		}
	}
	r.syntax("a string does not end")
	return ""
}

func (r *Reader) unescape(quoted string) (text string) {
	if !utf8.ValidString(quoted) {
		r.syntax("a string is not UTF-8")
	} else if json.Unmarshal([]byte(quoted), &text) != nil {
		r.syntax("a string has an escape that there is not")
	}
	return text
}

// Int reads a whole number that is written as one; null is 0.
func (r *Reader) Int() int64 {
	if r.null() {
		return 0
	}
	if c := r.Next(); c != '-' && (c < '0' || c > '9') {
		r.wrong("a whole number")
		return 0
	}
	n, err := strconv.ParseInt(r.number(), 10, 64)
	if err != nil {
		r.Fail("must be a whole number of at most 64 bits")
	}
	return n
}

// number reads the number that comes next, as it is written.
func (r *Reader) number() string {
	start := r.at
	digits := func() (n int) {
		for ; r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9'; n++ {
			r.at++
		}
		return n
	}
	take := func(set string) bool {
		ok := r.at < len(r.text) && strings.IndexByte(set, r.text[r.at]) >= 0
		if ok {
			r.at++
		}
		return ok
	}
	take("-")
	zero := r.at < len(r.text) && r.text[r.at] == '0'
	n := digits()
	bad := n == 0 || zero && n > 1
	if take(".") {
		bad = digits() == 0 || bad
	}
	if take("eE") {
		take("+-")
		bad = digits() == 0 || bad
	}
	if bad {
		r.syntax("is no JSON number")
		return ""
	}
	return r.text[start:r.at]
}

// Skip reads any value.
func (r *Reader) Skip() {
	switch c := r.Next(); {
	case c == '{':
		r.Object(func(string) { r.Skip() })
	case c == '[':
		r.Array(r.Skip)
	case c == '"':
		r.quoted()
	case c == '-' || c >= '0' && c <= '9':
		r.number()
	default:
		r.word()
	}
}

// word reads what has no other form.
func (r *Reader) word() any {
	switch r.Next() {
	case 't':
		return r.literal("true")
	case 'f':
		return !r.literal("false")
	case 'n':
		r.literal("null")
	default:
		r.wrong("a value")
	}
	return nil
}

// Value reads any value as encoding/json does it: as a map[string]any, []any, string, float64, bool or nil.
func (r *Reader) Value() any {
	switch c := r.Next(); {
	case c == '{':
		object := map[string]any{}
		r.Object(func(name string) { object[name] = r.Value() })
		return object
	case c == '[':
		list := []any{}
		r.Array(func() { list = append(list, r.Value()) })
		return list
	case c == '"':
		return r.quoted()
	case c == '-' || c >= '0' && c <= '9':
		n, err := strconv.ParseFloat(r.number(), 64)
		if err != nil {
			r.Fail("must be a number of 64 bits")
		}
		return n
	}
	return r.word()
}

// Objects reads an array of objects; null is nil.
func (r *Reader) Objects() (list []map[string]any) {
	if r.Array(func() {
		object := map[string]any{}
		r.Object(func(name string) { object[name] = r.Value() })
		list = append(list, object)
	}) && list == nil {
		list = []map[string]any{}
	}
	return list
}
