// Package schema compiles JSON Schemas that strangers wrote, of draft 2020-12 and draft-07, and validates values with them
// in bounded time. Its errors say where a value fails and what is allowed there, and never show the value.
//
// Validation is that of google/jsonschema-go. What is added is what a server needs that takes schemas from its callers: the
// schema is held against a meta-schema, references lead nowhere outside it, and neither recursion nor size can keep the
// server busy.
package schema

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// Bounds of a schema and of validating with it.
const (
	MaxSize  = 64 << 10 // bytes of a schema
	maxSteps = 500_000  // places of a schema that meet places of a value
	maxDepth = 500      // of steps within steps
)

// Error says what is wrong with a schema or with a value.
type Error struct {
	Path    string // JSON Pointer to the place that fails; empty is the whole
	Keyword string // of the schema, such as minimum; empty when no keyword refused it
	Allowed any    // what would be right there
	Reason  string // one clause, without the value
}

func (e *Error) Error() string {
	at := e.Path
	switch {
	case at == "":
		at = "the root"
	case len(at) > 200: // names may be as long as the value
		at = strings.ToValidUTF8(at[:200], "") + "…"
	}
	return at + " " + e.Reason
}

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct {
	raw      any            // decoded
	refs     map[string]any // what each $ref in it leads to
	parsed   *jsonschema.Schema
	resolved *jsonschema.Resolved
}

//go:embed meta.json
var metaJSON []byte

// meta is the schema of schemas: the keywords of both drafts. It is of our own making, since those of the drafts need
// $dynamicRef and know one draft each.
var meta = func() *Schema {
	var raw any
	if err := json.Unmarshal(metaJSON, &raw); err != nil {
		panic(err)
	}
	s, err := compile(raw, metaJSON)
	if err != nil {
		panic(err)
	}
	return s
}()

// Compile checks a schema, which must be an object, and makes it ready to validate with. Without $schema it is of draft
// 2020-12. Refused with an [*Error] are a schema that its draft does not allow, one over [MaxSize], a pattern that is not RE2
// or is over 256 characters, a reference that is not of the form # or #/pointer, a nested $id, and a schema that refers to
// itself without going down into the value.
func Compile(data []byte) (*Schema, error) {
	if len(data) > MaxSize {
		return nil, &Error{Reason: fmt.Sprintf("is %d bytes long; at most %d are allowed", len(data), MaxSize), Allowed: MaxSize}
	}
	var raw any
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, &Error{Reason: "is not JSON", Allowed: "a JSON object"}
	}
	if _, ok := raw.(map[string]any); !ok {
		return nil, &Error{Reason: "is not an object", Allowed: "a JSON object"}
	}
	if err := meta.Validate(data); err != nil {
		return nil, err
	}
	return compile(raw, data)
}

// rootID names the schema inside, so that a part of it can be validated with alone. No reference can lead out of it.
const rootID = "mem:///schema"

func compile(raw any, data []byte) (*Schema, error) {
	s := &Schema{raw: raw, refs: map[string]any{}, parsed: &jsonschema.Schema{}}
	if err := s.checkParts(raw, ""); err != nil {
		return nil, err
	}
	if err := s.checkLoops(raw); err != nil {
		return nil, err
	}
	err := json.Unmarshal(data, s.parsed)
	if err == nil {
		s.parsed.ID = rootID
		s.resolved, err = s.parsed.Resolve(nil)
	}
	if err != nil {
		return nil, &Error{Reason: "is not a valid schema: " + strings.ReplaceAll(err.Error(), rootID, "#"),
			Allowed: "a valid JSON Schema"}
	}
	return s, nil
}

// checkParts checks what the meta-schema cannot say, of a schema and everything in it, and finds where references lead.
func (s *Schema) checkParts(schema any, path string) error {
	object, ok := schema.(map[string]any)
	if !ok {
		return nil
	}
	if _, ok := object["$id"]; ok && path != "" {
		return &Error{Path: path + "/$id", Keyword: "$id", Reason: "stands inside of a schema; only the root may have one",
			Allowed: "left out"}
	}
	if _, ok := object["items"].([]any); ok && !s.draft7() {
		return &Error{Path: path + "/items", Keyword: "items",
			Reason: "is a list, which is draft-07; write prefixItems, or set $schema", Allowed: "a schema"}
	}
	for keyword := range object {
		// The library's decoder does not look at upper and lower case, and would take for a keyword what nobody checked.
		if known := misspelt(keyword); known != "" {
			return &Error{Path: path + "/" + escape(keyword), Keyword: known,
				Reason: "is written otherwise than the keyword " + known, Allowed: known}
		}
	}
	if ref, ok := object["$ref"].(string); ok {
		target, ok := follow(s.raw, ref)
		if !ok {
			return &Error{Path: path + "/$ref", Keyword: "$ref", Reason: "leads nowhere",
				Allowed: "# or #/pointer to a schema in this one"}
		}
		s.refs[ref] = target
	}
	for keyword, how := range applicators {
		for name, part := range how.parts(object[keyword]) {
			if err := s.checkParts(part, path+"/"+keyword+name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Schema) draft7() bool {
	root, _ := s.raw.(map[string]any)
	draft, _ := root["$schema"].(string)
	return strings.Contains(draft, "draft-07")
}

// keywords are those of the meta-schema.
var keywords = func() (names []string) {
	var m struct {
		Defs struct {
			Schema struct {
				Properties map[string]any `json:"properties"`
			} `json:"schema"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(metaJSON, &m); err != nil {
		panic(err)
	}
	for name := range m.Defs.Schema.Properties {
		names = append(names, name)
	}
	return names
}()

// misspelt returns the keyword that a word differs from in upper and lower case only.
func misspelt(word string) string {
	for _, known := range keywords {
		if known == word {
			return ""
		}
	}
	for _, known := range keywords {
		if strings.EqualFold(known, word) {
			return known
		}
	}
	return ""
}

// follow finds what a reference of the form # or #/pointer leads to.
func follow(root any, ref string) (any, bool) {
	u, err := url.Parse(ref)
	if err != nil {
		return nil, false
	}
	at := root
	if u.Fragment != "" {
		for _, name := range strings.Split(strings.TrimPrefix(u.Fragment, "/"), "/") {
			name = unescape(name)
			switch v := at.(type) {
			case map[string]any:
				at = v[name]
			case []any:
				i, err := strconv.Atoi(name)
				if err != nil || i < 0 || i >= len(v) {
					return nil, false
				}
				at = v[i]
			default:
				return nil, false
			}
		}
	}
	switch at.(type) {
	case map[string]any, bool:
		return at, true
	}
	return nil, false
}

func escape(name string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(name) }

func unescape(name string) string { return strings.NewReplacer("~1", "/", "~0", "~").Replace(name) }

// Validate checks a JSON value. It fails with an [*Error] that names the first place that the schema refuses, and for a value
// that would take too long.
func (s *Schema) Validate(data []byte) (err error) {
	var value any
	if json.Unmarshal(data, &value) != nil {
		return &Error{Reason: "is not a JSON value, or has a number beyond 64-bit floating point", Allowed: "a JSON value"}
	}
	value = opaque(value)
	r := rehearsal{schema: s}
	if !r.run(s.raw, value) {
		return &Error{Reason: fmt.Sprintf("needs more than %d steps, or %d within each other, to validate", maxSteps, maxDepth),
			Allowed: "a smaller value, or a schema with fewer branches"}
	}
	defer func() {
		if p := recover(); p != nil {
			err = &Error{Reason: fmt.Sprintf("cannot be validated with this schema: %v", p), Allowed: "a schema without this"}
		}
	}()
	if failure := s.resolved.Validate(value); failure != nil {
		return s.explain(failure, value)
	}
	return nil
}

// The library prints values into its errors, at every level of a schema. These types keep it short, and keep the value's
// owner from reading it in a log.
type (
	object map[string]any
	list   []any
)

func (object) String() string { return "an object" }

func (list) String() string { return "an array" }

// opaque gives objects and arrays types that print nothing of what is in them. It changes v.
func opaque(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			v[name] = opaque(member)
		}
		return object(v)
	case []any:
		for i, item := range v {
			v[i] = opaque(item)
		}
		return list(v)
	}
	return v
}
