package schema

import (
	"iter"
	"strconv"
)

// place says what the schemas under a keyword are applied to.
type place int

const (
	nowhere place = iota // to nothing, until a reference leads there
	here                 // to the value itself
	items                // to the items of an array
	members              // to the members of an object
	names                // to the names of the members
)

// applicator is a keyword that holds schemas: by name, or one or a list of them.
type applicator struct {
	to    place
	named bool
}

var applicators = map[string]applicator{
	"allOf": {to: here}, "anyOf": {to: here}, "oneOf": {to: here}, "not": {to: here},
	"if": {to: here}, "then": {to: here}, "else": {to: here},
	"dependentSchemas": {to: here, named: true}, "dependencies": {to: here, named: true},
	"prefixItems": {to: items}, "items": {to: items}, "additionalItems": {to: items}, "unevaluatedItems": {to: items},
	"contains":   {to: items},
	"properties": {to: members, named: true}, "patternProperties": {to: members, named: true},
	"additionalProperties": {to: members}, "unevaluatedProperties": {to: members},
	"propertyNames": {to: names},
	"$defs":         {to: nowhere, named: true}, "definitions": {to: nowhere, named: true}, "contentSchema": {to: nowhere},
}

// parts walks the schemas that a keyword's value holds, with what leads to each from the keyword.
func (a applicator) parts(value any) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		switch v := value.(type) {
		case map[string]any:
			if !a.named {
				yield("", v)
				return
			}
			for name, part := range v {
				if _, strings := part.([]any); !strings && !yield("/"+escape(name), part) { // dependencies may list names
					return
				}
			}
		case []any:
			for i, part := range v {
				if !yield("/"+strconv.Itoa(i), part) {
					return
				}
			}
		}
	}
}

// rehearsal walks a schema and a value as validating will, at least as far, and counts the steps. Without it a schema of a
// hundred lines could keep the library busy for years, or overflow the stack, which no recover catches.
type rehearsal struct {
	schema       *Schema
	steps, depth int
}

// run reports whether the bounds hold.
func (r *rehearsal) run(schema, value any) bool {
	r.steps++
	s, ok := schema.(map[string]any)
	if !ok {
		return r.steps <= maxSteps
	}
	if enum, ok := s["enum"].([]any); ok {
		r.steps += len(enum)
	}
	if text, ok := value.(string); ok {
		r.steps += len(text) / 64 // patterns look at all of it
	}
	if r.steps > maxSteps || r.depth == maxDepth {
		return false
	}
	r.depth++
	defer func() { r.depth-- }()
	if ref, ok := s["$ref"].(string); ok && !r.run(r.schema.refs[ref], value) {
		return false
	}
	for keyword := range s {
		how, ok := applicators[keyword]
		if !ok {
			continue
		}
		for name, part := range how.parts(s[keyword]) {
			if !r.apply(keyword, name, how.to, part, value) {
				return false
			}
		}
	}
	return true
}

// apply runs one part of a schema on what it is applied to. It takes more than the library would: every item or member,
// except that properties are known by their names.
func (r *rehearsal) apply(keyword, name string, to place, part, value any) bool {
	switch to {
	case here:
		return r.run(part, value)
	case items:
		array, _ := value.(list)
		for _, item := range array {
			if !r.run(part, item) {
				return false
			}
		}
	case members, names:
		o, _ := value.(object)
		if keyword == "properties" {
			member, ok := o[unescape(name[1:])]
			return !ok || r.run(part, member)
		}
		for memberName, member := range o {
			if to == names {
				member = memberName
			}
			if !r.run(part, member) {
				return false
			}
		}
	}
	return true
}

// checkLoops refuses a schema that comes back to itself without going down into the value: validating would never end.
func (s *Schema) checkLoops(schema any) error {
	r := rehearsal{schema: s}
	var check func(part any, path string) error
	check = func(part any, path string) error {
		if !r.run(part, nil) {
			return &Error{Path: path, Keyword: "$ref",
				Reason:  "comes back to itself without going down into the value, or branches too often",
				Allowed: "references that go down through properties or items"}
		}
		object, _ := part.(map[string]any)
		for keyword, how := range applicators {
			for name, inner := range how.parts(object[keyword]) {
				if err := check(inner, path+"/"+keyword+name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return check(schema, "")
}
