package schema

import (
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// explain says where in the value validation failed. The library names the places in the schema that it went through; the
// place in the value follows from them, but for the items and members that one part of the schema is applied to in turn:
// those are tried again.
func (s *Schema) explain(failure error, value any) *Error {
	e := &Error{}
	here, cause := "", failure // place in the schema
	for {
		next := errors.Unwrap(cause)
		if next == nil {
			break
		}
		there := strings.TrimPrefix(strings.TrimSuffix(cause.Error(), ": "+next.Error()), "validating ")
		if there == rootID {
			there = ""
		}
		cause = next
		if below, ok := strings.CutPrefix(there, here+"/"); ok { // else a reference was followed, and the value is the same
			if name, inner, ok := s.descend(s.object(here), below, there, value); ok {
				e.Path, value = e.Path+"/"+escape(name), inner
			}
		}
		here = there
	}
	schema := s.object(here)
	if schema == nil {
		e.Reason, e.Allowed = "may not be there", "left out"
		return e
	}
	e.Keyword = failedKeyword(cause.Error())
	e.Allowed = schema[e.Keyword]
	if e.Keyword == "additionalProperties" {
		if o, ok := value.(object); ok {
			for _, name := range sortedNames(o) {
				if !named(schema, name) {
					e.Path += "/" + escape(name)
					e.Reason = "is not a member that the schema knows, and it allows no others"
					return e
				}
			}
		}
	}
	e.Reason = "does not satisfy " + e.Keyword
	if text, err := json.Marshal(e.Allowed); err == nil && e.Allowed != nil && len(text) <= 200 {
		e.Reason += " " + string(text)
	}
	return e
}

// failedKeyword reads the keyword that a message of the library begins with.
func failedKeyword(message string) string {
	if strings.HasPrefix(message, "unexpected additional properties") {
		return "additionalProperties"
	}
	keyword, _, _ := strings.Cut(message, ":")
	keyword, _, _ = strings.Cut(keyword, "[") // dependentRequired["name"]
	return keyword
}

// object returns the schema at a place, nil when it is a boolean.
func (s *Schema) object(place string) map[string]any {
	found, _ := follow(s.raw, (&url.URL{Fragment: place}).String())
	schema, _ := found.(map[string]any)
	return schema
}

// descend finds the item or member that a part of a schema was applied to and refused. The part lies below the schema's own
// place, there from the root.
func (s *Schema) descend(schema map[string]any, below, there string, value any) (name string, inner any, ok bool) {
	keyword, rest, _ := strings.Cut(below, "/")
	switch v := value.(type) {
	case object:
		if applicators[keyword].to != members {
			return "", nil, false
		}
		if keyword == "properties" {
			name = unescape(rest)
			inner, ok = v[name]
			return name, inner, ok
		}
		refuses := s.part(there)
		for _, name := range sortedNames(v) {
			subject := !named(schema, name)
			if keyword == "patternProperties" {
				subject = matches(unescape(rest), name)
			}
			if subject && refuses(v[name]) {
				return name, v[name], true
			}
		}
	case list:
		if applicators[keyword].to != items {
			return "", nil, false
		}
		if i, err := strconv.Atoi(rest); err == nil && i < len(v) { // of prefixItems, or of items in draft-07
			return rest, v[i], true
		}
		first := 0
		for _, before := range []string{"prefixItems", "items"} {
			if tuple, ok := schema[before].([]any); ok {
				first = len(tuple)
			}
		}
		refuses := s.part(there)
		for i := first; i < len(v); i++ {
			if refuses(v[i]) {
				return strconv.Itoa(i), v[i], true
			}
		}
	}
	return "", nil, false
}

// named reports whether a schema's properties or patterns know a member, so that additionalProperties does not apply.
func named(schema map[string]any, name string) bool {
	properties, _ := schema["properties"].(map[string]any)
	if _, ok := properties[name]; ok {
		return true
	}
	patterns, _ := schema["patternProperties"].(map[string]any)
	for pattern := range patterns {
		if matches(pattern, name) {
			return true
		}
	}
	return false
}

func matches(pattern, name string) bool {
	ok, err := regexp.MatchString(pattern, name)
	return ok && err == nil
}

// part makes a function that reports whether the part of the schema at a place refuses a value.
func (s *Schema) part(place string) func(value any) bool {
	alone := &jsonschema.Schema{Schema: s.parsed.Schema, Ref: rootID + (&url.URL{Fragment: place}).String(),
		Defs: map[string]*jsonschema.Schema{"root": s.parsed}}
	resolved, err := alone.Resolve(nil)
	if err != nil { // a draft-07 root that is a reference has no id to find it by
		return func(any) bool { return false }
	}
	return func(value any) bool { return resolved.Validate(value) != nil }
}

func sortedNames(o object) []string {
	names := make([]string, 0, len(o))
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
