package mockserver

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/getstack-go/stack"
)

const schemaRoot = "#/components/schemas/"

// schemas makes the JSON schemas of the types that travel. Structs with a name become components, which the others refer to.
type schemas struct {
	named map[string]*jsonschema.Schema
	types map[string]reflect.Type // of named
}

func newSchemas() *schemas {
	return &schemas{named: map[string]*jsonschema.Schema{}, types: map[string]reflect.Type{}}
}

// nullable are the lists and objects that may be null: of a list, null is everything, as the empty list is nothing.
var nullable = map[reflect.Type][]string{
	reflect.TypeFor[stack.TeamMember]():         {"allowed_connections"},
	reflect.TypeFor[stack.TeamInvitation]():     {"allowed_connections"},
	reflect.TypeFor[stack.PartnerConnection]():  {"providers"},
	reflect.TypeFor[stack.Connected]():          {"providers"},
	reflect.TypeFor[stack.PIIConfig]():          {"countries"},
	reflect.TypeFor[stack.Usage]():              {"passthrough"}, // in a window
	reflect.TypeFor[stack.ServiceRequirement](): {"required_scopes", "accepted_providers"},
}

// selfDescribed is a type whose JSON says nothing of its fields.
type selfDescribed interface {
	schema(*schemas) *jsonschema.Schema
}

// of returns the schema of a type as [decodeStrict] reads it and encoding/json writes it.
func (s *schemas) of(t reflect.Type) *jsonschema.Schema {
	switch t {
	case timeType:
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case durationType:
		return &jsonschema.Schema{Type: "integer", Description: "in seconds"}
	case secretType:
		return &jsonschema.Schema{Type: "string", Format: "password"}
	case rawType, anyType:
		return &jsonschema.Schema{}
	case reflect.TypeFor[stack.Consumption]():
		return &jsonschema.Schema{Type: "object", Required: []string{"actions", "activity"}, Properties: map[string]*jsonschema.Schema{
			"activity": s.of(reflect.TypeFor[stack.Activity]()), "actions": s.of(reflect.TypeFor[stack.ActionUsage]())},
			AdditionalProperties: s.of(reflect.TypeFor[stack.Meter]())}
	}
	if self, ok := reflect.Zero(t).Interface().(selfDescribed); ok {
		return self.schema(s)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return orNull(s.of(t.Elem()))
	case reflect.Struct:
		return s.object(t)
	case reflect.Map:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: s.of(t.Elem())}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &jsonschema.Schema{Type: "string", ContentEncoding: "base64"}
		}
		return &jsonschema.Schema{Type: "array", Items: s.of(t.Elem())}
	case reflect.String:
		return &jsonschema.Schema{Type: "string", Enum: enums[t]}
	case reflect.Bool:
		return &jsonschema.Schema{Type: "boolean"}
	case reflect.Int, reflect.Int64:
		return &jsonschema.Schema{Type: "integer"}
	case reflect.Float64:
		return &jsonschema.Schema{Type: "number"}
	}
	panic("mockserver: no JSON schema for " + t.String())
}

// schema is that of either form.
func (l listOrPage[T]) schema(s *schemas) *jsonschema.Schema {
	type plain listOrPage[T]
	page := s.fields(reflect.TypeFor[plain]())
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{page.Properties["items"], page}}
}

func orNull(of *jsonschema.Schema) *jsonschema.Schema {
	switch {
	case of.Type != "" && of.Enum == nil:
		of.Types, of.Type = []string{of.Type, "null"}, ""
		return of
	case reflect.DeepEqual(of, &jsonschema.Schema{}):
		return of
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{of, {Type: "null"}}}
}

// object is a component where the type has a name.
func (s *schemas) object(t reflect.Type) *jsonschema.Schema {
	name := t.Name()
	if name == "" {
		return s.fields(t)
	}
	name = strings.ToUpper(name[:1]) + name[1:]
	if other, ok := s.types[name]; !ok {
		s.types[name] = t // before its fields, which may lead back to it
		s.named[name] = s.fields(t)
	} else if other != t {
		panic("mockserver: two types of the API are called " + name)
	}
	return &jsonschema.Schema{Ref: schemaRoot + name}
}

func (s *schemas) fields(t reflect.Type) *jsonschema.Schema {
	out := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: never()}
	known := jsonFields(t)
	out.Required = known.required
	empty, filled := written(t, false), written(t, true)
	for _, name := range sortedKeys(known.byName) {
		typ := known.byName[name].typ
		field := s.of(typ)
		if number := filled[name]; isNumber(number) {
			switch { // of what JSON's own types cannot hold, a value tells how it is written
			case typ == timeType && len(number) > len("1767323045"):
				field = &jsonschema.Schema{Type: "integer", Description: "in milliseconds since the Unix epoch"}
			case typ == timeType:
				field = &jsonschema.Schema{Type: "integer", Description: "in seconds since the Unix epoch"}
			case typ == durationType && string(number) != "90":
				field = &jsonschema.Schema{Type: "number", Description: "in milliseconds"}
			}
		}
		if slices.Contains(nullable[t], name) || string(empty[name]) == "null" && !slices.Contains([]reflect.Kind{reflect.Slice, reflect.Map, reflect.Pointer}, typ.Kind()) {
			field = orNull(field)
		}
		out.Properties[name] = field
	}
	for name, text := range filled { // what no field stands for
		if _, ok := known.byName[name]; !ok && isNumber(text) {
			out.Properties[name] = orNull(&jsonschema.Schema{Type: "number"})
		}
	}
	return out
}

// never is the schema that nothing meets.
func never() *jsonschema.Schema { return &jsonschema.Schema{Not: &jsonschema.Schema{}} }

func isNumber(text json.RawMessage) bool {
	return len(text) > 0 && (text[0] == '-' || text[0] >= '0' && text[0] <= '9')
}

var sampleTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// written are the members of a struct with a JSON form of its own, as it writes them: filled is with a moment in its times and
// 90 seconds in its durations.
func written(t reflect.Type, filled bool) (members map[string]json.RawMessage) {
	if !t.Implements(reflect.TypeFor[json.Marshaler]()) {
		return nil
	}
	v := reflect.New(t).Elem()
	for _, f := range reflect.VisibleFields(t) {
		switch {
		case !filled || f.Anonymous || !f.IsExported():
		case f.Type == timeType:
			v.FieldByIndex(f.Index).Set(reflect.ValueOf(sampleTime))
		case f.Type == reflect.PointerTo(timeType):
			v.FieldByIndex(f.Index).Set(reflect.ValueOf(&sampleTime))
		case f.Type == durationType:
			v.FieldByIndex(f.Index).SetInt(int64(90 * time.Second))
		}
	}
	data, err := json.Marshal(v.Interface())
	if err == nil {
		err = json.Unmarshal(data, &members)
	}
	if err != nil {
		panic("mockserver: " + t.String() + " has a JSON form that is no object: " + err.Error())
	}
	return members
}
