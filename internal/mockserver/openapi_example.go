package mockserver

import (
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// resolve follows a schema's reference.
func (s *schemas) resolve(schema *jsonschema.Schema) *jsonschema.Schema {
	if name, ok := strings.CutPrefix(schema.Ref, schemaRoot); ok {
		return s.named[name]
	}
	return schema
}

// example makes a value that a schema holds for one called name: whole with all its fields, otherwise with those that it must
// have.
func (s *schemas) example(schema *jsonschema.Schema, name string, whole bool) any {
	return exampleMaker{s, whole}.value(schema, name, nil)
}

type exampleMaker struct {
	*schemas
	whole bool
}

// value makes a value. The references that led to it are not followed again.
func (m exampleMaker) value(schema *jsonschema.Schema, name string, within []string) any {
	if schema.Ref != "" {
		within = append(within[:len(within):len(within)], schema.Ref)
		schema = m.resolve(schema)
	}
	kind := schema.Type
	if len(schema.Types) > 0 {
		kind = schema.Types[0]
	}
	switch {
	case len(schema.AnyOf) > 0:
		return m.value(schema.AnyOf[0], name, within)
	case len(schema.OneOf) > 0:
		return m.value(schema.OneOf[0], name, within)
	case len(schema.Enum) > 0:
		return schema.Enum[0]
	case kind == "object":
		out := map[string]any{}
		for field, of := range schema.Properties {
			if m.wanted(schema, field, within) {
				out[field] = m.value(of, field, within)
			}
		}
		if of := schema.AdditionalProperties; of != nil && of.Not == nil && m.whole && !leadsBack(of, within) {
			out["name"] = m.value(of, "name", within)
		}
		return out
	case kind == "array":
		if leadsBack(schema.Items, within) {
			return []any{}
		}
		return []any{m.value(schema.Items, strings.TrimSuffix(name, "s"), within)}
	case kind == "integer", kind == "number":
		return 1
	case kind == "boolean":
		return true
	case kind == "string":
		return exampleText(schema, name)
	}
	return map[string]any{} // anything
}

func (m exampleMaker) wanted(schema *jsonschema.Schema, field string, within []string) bool {
	for _, required := range schema.Required {
		if required == field {
			return true
		}
	}
	return m.whole && !leadsBack(schema.Properties[field], within)
}

func leadsBack(schema *jsonschema.Schema, within []string) bool {
	for _, ref := range within {
		if ref == schema.Ref || len(schema.AnyOf) > 0 && ref == schema.AnyOf[0].Ref {
			return true
		}
	}
	return false
}

func exampleText(schema *jsonschema.Schema, name string) string {
	switch {
	case schema.Format == "date-time":
		return sampleTime.Format("2006-01-02T15:04:05Z07:00")
	case schema.ContentEncoding == "base64":
		return "aGVsbG8="
	case strings.HasSuffix(name, "url"):
		return "https://example.com/"
	case strings.HasSuffix(name, "email"):
		return "a@example.com"
	case strings.HasSuffix(name, "_id"), name == "id":
		return name + "_1"
	}
	return name
}
