package tool

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

// typeSchemas describe types whose JSON is not what their Go kind suggests.
var typeSchemas = map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[json.RawMessage](): {Description: "any JSON value"},
	reflect.TypeFor[[]byte]():          {Type: "string", ContentEncoding: "base64"},
	reflect.TypeFor[time.Time]():       {Type: "string", Format: "date-time"},
}

// setSchema makes the schema of the arguments' type, lets the user adjust it, and prepares it for validation.
func (t *Tool) setSchema(in reflect.Type) error {
	if kind := in.Kind(); kind != reflect.Struct && kind != reflect.Map {
		return fmt.Errorf("the arguments are a %s; they must be a struct or a map with string keys", in)
	}
	s, err := jsonschema.ForType(in, &jsonschema.ForOptions{TypeSchemas: typeSchemas})
	if err != nil {
		return fmt.Errorf("no JSON Schema for the arguments: %w", err)
	}
	soften(s)
	if t.adjust != nil {
		t.adjust(s)
	}
	if s.Type != "object" {
		return fmt.Errorf("the schema of the arguments (%s) is not that of an object", in)
	}
	t.usage = usage(s)
	if t.schema, err = json.Marshal(s); err != nil {
		return fmt.Errorf("encode the JSON Schema of the arguments: %w", err)
	}
	// What is validated is what the model is told, and nobody else holds a pointer into it.
	t.root = new(jsonschema.Schema)
	if err = json.Unmarshal(t.schema, t.root); err != nil {
		return fmt.Errorf("read back the JSON Schema of the arguments: %w", err)
	}
	if t.resolved, err = t.root.Resolve(nil); err != nil {
		return fmt.Errorf("the JSON Schema of the arguments is not valid: %w", err)
	}
	return nil
}

// soften takes from an inferred schema what providers refuse: a type that is a list (pointers and slices are inferred as
// "null or T"), an object without properties, and the bare schema true.
func soften(s *jsonschema.Schema) {
	if len(s.Types) == 2 && s.Types[0] == "null" {
		s.Type, s.Types = s.Types[1], nil
	}
	if s.Type == "object" && s.Properties == nil {
		s.Properties = map[string]*jsonschema.Schema{}
	}
	children := []*jsonschema.Schema{s.Items}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Not == nil {
		children = append(children, s.AdditionalProperties)
	}
	for _, property := range s.Properties {
		children = append(children, property)
	}
	for _, child := range children {
		if child == nil {
			continue
		}
		soften(child)
		if reflect.ValueOf(*child).IsZero() {
			child.Description = "any JSON value"
		}
	}
}

// dropNulls removes the optional properties that are null: models write null for what they leave out.
func dropNulls(value any, s *jsonschema.Schema) {
	switch value := value.(type) {
	case map[string]any:
		for name, v := range value {
			switch property := s.Properties[name]; {
			case property == nil:
			case v == nil && !slices.Contains(s.Required, name):
				delete(value, name)
			default:
				dropNulls(v, property)
			}
		}
	case []any:
		if s.Items != nil {
			for _, v := range value {
				dropNulls(v, s.Items)
			}
		}
	}
}

// usage says in a few words what the arguments are.
func usage(s *jsonschema.Schema) string {
	names := slices.Clone(s.PropertyOrder)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		if s.AdditionalProperties != nil && s.AdditionalProperties.Not != nil {
			return "there are no arguments"
		}
		return "the arguments are a JSON object"
	}
	list := make([]string, 0, len(names))
	for _, name := range names {
		property := s.Properties[name]
		if property == nil { // adjust removed it
			continue
		}
		about := property.Type
		if about == "" {
			about = strings.Join(property.Types, " or ")
		}
		if about == "" {
			about = "any"
		}
		if len(property.Enum) > 0 {
			about += fmt.Sprintf(", one of %v", property.Enum)
		}
		if slices.Contains(s.Required, name) {
			about += ", required"
		}
		list = append(list, fmt.Sprintf("%s (%s)", name, about))
	}
	return "the arguments are " + strings.Join(list, ", ")
}

// explain turns a validation error into a text that names the field.
func explain(err error) string {
	var field string
	text := strings.ReplaceAll(err.Error(), "<invalid reflect.Value>", "null")
	for {
		after, ok := strings.CutPrefix(text, "validating ")
		path, rest, found := strings.Cut(after, ": ")
		if !ok || !found || path != "root" && !strings.HasPrefix(path, "/") {
			break
		}
		field, text = fieldOf(path), rest
	}
	if field != "" {
		text = field + ": " + text
	}
	return strings.Join(strings.Fields(text), " ") // in one line
}

// fieldOf makes the name of an argument from the path of its schema: /properties/to/items/properties/id is to[].id.
func fieldOf(path string) string {
	var field strings.Builder
	parts := strings.Split(path, "/")
	for i := 0; i < len(parts); i++ {
		switch parts[i] {
		case "items":
			field.WriteString("[]")
		case "additionalProperties":
			field.WriteString(".*")
		case "properties":
			if i++; i < len(parts) {
				field.WriteString("." + strings.NewReplacer("~1", "/", "~0", "~").Replace(parts[i]))
			}
		}
	}
	return strings.TrimPrefix(field.String(), ".")
}
