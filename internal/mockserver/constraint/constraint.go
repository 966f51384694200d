// Package constraint judges whether an outgoing request keeps within the parameter constraints of a passport. It knows
// nothing of HTTP servers, grants or intents: it is given constraints and a request, and answers which constraint fails.
// (contract: server-api 10)
//
// Where the contract is silent, these rules are this package's own:
//
//   - A path that leads to nothing fails every operator, not_eq and not_in included: what cannot be seen is not allowed.
//     A body that is not JSON and not a form has no body.* paths, a query that cannot be parsed has no query.* paths.
//   - Where a path leads to several values (a repeated query key or form field, one header in two spellings), each of them
//     must satisfy the constraint.
//   - Values are equal when they have the same JSON type and the same value. Numbers compare by exact value, whatever their
//     notation: 1, 1.0 and 10e-1 are equal, 9007199254740993 and 9007199254740992 are not. Nothing is converted: the
//     number 1 and the text "1" differ.
//   - method, url.*, headers.* and query.* are always text, so their constraints must hold text.
//   - matches finds its pattern anywhere in the text; anchor it with ^ and $. It and starts_with fail on what is no text.
//   - url.pathname is percent-decoded with dot segments resolved. A path with an encoded slash or with empty segments can
//     be understood in two ways, as written or with plain single slashes; both are looked at, so both must satisfy.
//   - url.host keeps a port that is not the scheme's own, and loses a trailing dot.
//   - Values given for method, url.host, url.origin and url.pathname are brought into the same form as what they are
//     compared with, so not_eq "API.example.com" does refuse api.example.com. A pattern is taken as it is.
//   - body.<path> goes through objects by key and through arrays by index from 0. In a form, all after "body." is the name
//     of the field. A key that holds a dot cannot be reached in JSON.
package constraint

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
)

const (
	maxConstraints = 32  // per service
	maxPattern     = 256 // characters
	maxPath        = 256 // bytes
)

const (
	allowedOps   = "eq, not_eq, in, not_in, matches or starts_with"
	allowedPaths = "method, url.pathname, url.host, url.origin, headers.<name>, query.<key> or body.<dotted.path>"
)

// Request is the outgoing call that constraints look at.
type Request struct {
	// Method is the HTTP verb, in any case.
	Method string
	// URL is the target with the call's extra query parameters already in it and without placeholders.
	URL *url.URL
	// Headers are the caller's own, by name in any case.
	Headers map[string]string
	// Body is what encoding/json gives with UseNumber, or [url.Values] for a form, or a string for any other text, or nil.
	Body any
}

// Violation is a constraint that does not hold. It is an error whose text says what was sent and what would be allowed.
type Violation struct {
	// Constraint is the one that failed.
	Constraint stack.Constraint
	// Got is the value found at its path. It is "[REDACTED]" when the path's last part names a credential.
	Got any
	// Missing says that the path leads to nothing.
	Missing bool
}

// Error says which path failed, what was sent and what would be allowed.
func (v *Violation) Error() string {
	got := "missing"
	if !v.Missing {
		got = show(v.Got)
	}
	return fmt.Sprintf("%s is %s; allowed: %s", clip(v.Constraint.Path), got, v.Allowed())
}

// Allowed says in words what the constraint would accept.
func (v *Violation) Allowed() string {
	value := v.Constraint.Value
	switch v.Constraint.Op {
	case stack.OpEq:
		return show(value)
	case stack.OpNotEq:
		return "anything but " + show(value)
	case stack.OpIn:
		return "one of " + showList(value)
	case stack.OpNotIn:
		return "anything but " + showList(value)
	case stack.OpMatches:
		return "text that matches " + show(value)
	case stack.OpStartsWith:
		return "text that starts with " + show(value)
	}
	return fmt.Sprintf("nothing, since the operator %s is unknown", show(string(v.Constraint.Op)))
}

// Validate reports whether the constraints are well formed: at most 32, each with a known path and operator, a value of the
// type the operator needs, and a pattern that compiles. Its error names the constraint by its index, the field, what it was
// and what it may be.
func Validate(cs []stack.Constraint) error {
	if len(cs) > maxConstraints {
		return fmt.Errorf("constraints has %d entries; it must have at most %d", len(cs), maxConstraints)
	}
	for i, c := range cs {
		if field, was, allowed := fault(c); field != "" {
			return fmt.Errorf("constraints[%d].%s is %s; it must be %s", i, field, was, allowed)
		}
	}
	return nil
}

// fault finds what is wrong with one constraint; field is empty when nothing is.
func fault(c stack.Constraint) (field, was, allowed string) {
	if !validPath(c.Path) {
		return "path", show(c.Path), allowedPaths
	}
	value, ok := plain(c.Value)
	if !ok {
		return "value", fmt.Sprintf("a %T", c.Value), "a JSON value"
	}
	text, isText := value.(string)
	switch c.Op {
	case stack.OpEq, stack.OpNotEq:
		if isTextPath(c.Path) && !isText {
			return "value", show(value), "a string, since " + c.Path + " is text"
		}
	case stack.OpIn, stack.OpNotIn:
		list, isList := value.([]any)
		if !isList {
			return "value", show(value), "an array for " + string(c.Op)
		}
		for j, item := range list {
			if _, itemIsText := item.(string); isTextPath(c.Path) && !itemIsText {
				return fmt.Sprintf("value[%d]", j), show(item), "a string, since " + c.Path + " is text"
			}
		}
	case stack.OpStartsWith:
		if !isText {
			return "value", show(value), "a string for starts_with"
		}
	case stack.OpMatches:
		if !isText {
			return "value", show(value), "a string for matches"
		}
		if n := len([]rune(text)); n > maxPattern {
			return "value", fmt.Sprintf("%d characters long", n), fmt.Sprintf("an RE2 pattern of at most %d", maxPattern)
		}
		if _, err := regexp.Compile(text); err != nil {
			return "value", show(text), "an RE2 pattern: " + clip(err.Error())
		}
	default:
		return "op", show(string(c.Op)), allowedOps
	}
	return "", "", ""
}

// Check returns the first constraint that the request does not satisfy, or nil when all hold. A constraint that Validate
// would refuse is never satisfied.
func Check(cs []stack.Constraint, r Request) *Violation {
	for _, c := range cs {
		values := resolve(c.Path, r)
		if len(values) == 0 {
			return &Violation{Constraint: c, Missing: true}
		}
		holds := condition(c, r)
		for _, got := range values {
			if !holds(got) {
				if isSensitive(c.Path) {
					got = "[REDACTED]"
				}
				return &Violation{Constraint: c, Got: got}
			}
		}
	}
	return nil
}

// condition makes the test that a constraint puts each value to. Patterns are compiled for each check: it takes a few
// microseconds, and a cache of foreign patterns would have to be bounded.
func condition(c stack.Constraint, r Request) func(got any) bool {
	never := func(any) bool { return false }
	value, ok := plain(c.Value)
	if !ok {
		return never
	}
	switch c.Op {
	case stack.OpEq, stack.OpNotEq:
		value = normal(c.Path, value, r)
		return func(got any) bool { return equal(got, value) == (c.Op == stack.OpEq) }
	case stack.OpIn, stack.OpNotIn:
		list, ok := value.([]any)
		if !ok {
			return never
		}
		return func(got any) bool {
			member := slices.ContainsFunc(list, func(item any) bool { return equal(got, normal(c.Path, item, r)) })
			return member == (c.Op == stack.OpIn)
		}
	case stack.OpStartsWith:
		prefix, ok := value.(string)
		if !ok {
			return never
		}
		switch c.Path {
		case "method":
			prefix = strings.ToUpper(prefix)
		case "url.host", "url.origin":
			prefix = strings.ToLower(prefix)
		}
		return func(got any) bool {
			text, ok := got.(string)
			return ok && strings.HasPrefix(text, prefix)
		}
	case stack.OpMatches:
		text, ok := value.(string)
		if !ok {
			return never
		}
		pattern, err := regexp.Compile(text)
		if err != nil {
			return never
		}
		return func(got any) bool {
			text, ok := got.(string)
			return ok && pattern.MatchString(text)
		}
	}
	return never
}

const clipLength = 120

// clip bounds a foreign text for a message.
func clip(s string) string {
	if len(s) > clipLength {
		return strings.ToValidUTF8(s[:clipLength], "") + "…"
	}
	return s
}

// show writes a value as JSON, bounded.
func show(v any) string {
	if text, ok := v.(string); ok {
		return fmt.Sprintf("%q", clip(text))
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("a %T", v)
	}
	return clip(string(data))
}

// showList writes the first entries of an array, separated by commas.
func showList(v any) string {
	const most = 10
	v, _ = plain(v)
	list, ok := v.([]any)
	if !ok {
		return show(v)
	}
	if len(list) == 0 {
		return "nothing, since the list is empty"
	}
	var shown []string
	for _, item := range list[:min(len(list), most)] {
		shown = append(shown, show(item))
	}
	if len(list) > most {
		shown = append(shown, fmt.Sprintf("… (%d in all)", len(list)))
	}
	return strings.Join(shown, ", ")
}
