package mockserver

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/pb33f/libopenapi"
	"github.com/pb33f/libopenapi/datamodel/high/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/conform"
)

// served gets the description as anybody can.
func served(t *testing.T) []byte {
	t.Helper()
	rec, _ := ask(t, New(Options{}), "GET", "/openapi.json", "", func(r *http.Request) { r.Header.Del("Authorization") })
	require.Equal(t, http.StatusOK, rec.Code)
	return rec.Body.Bytes()
}

// A library that is not ours reads the document and finds nothing amiss, and every route in it.
func TestOpenAPIIsSound(t *testing.T) {
	t.Parallel()
	text := served(t)
	doc, err := libopenapi.NewDocument(text)
	require.NoError(t, err)
	assert.Equal(t, "3.1.0", doc.GetVersion())
	model, err := doc.BuildV3Model()
	require.NoError(t, err)

	operations := map[string]*v3.Operation{}
	ids := map[string]string{}
	for pattern, item := range model.Model.Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			name := strings.ToUpper(method) + " " + pattern
			operations[name] = op
			assert.NotContains(t, ids, op.OperationId, "%s has the id of %s", name, ids[op.OperationId])
			ids[op.OperationId] = name
			var declared []string
			for _, p := range op.Parameters {
				require.NotNil(t, p.Schema.Schema(), "%s %s", name, p.Name)
				if p.In == "path" {
					assert.True(t, *p.Required, "%s %s", name, p.Name)
					declared = append(declared, "{"+p.Name+"}")
				}
			}
			assert.ElementsMatch(t, regexp.MustCompile(`\{[^}]*\}`).FindAllString(pattern, -1), declared, name)
			for status, answer := range op.Responses.Codes.FromOldest() {
				assert.NotEmpty(t, answer.Description, "%s %s", name, status)
				for kind, media := range answer.Content.FromOldest() {
					_, err := media.Schema.BuildSchema()
					assert.NoError(t, err, "%s %s %s", name, status, kind)
				}
			}
		}
	}
	for _, r := range routes() {
		op := operations[r.method+" "+r.pattern]
		if assert.NotNil(t, op, r.pattern) {
			assert.Equal(t, r.out == rawType, op.Responses.Codes.GetOrZero("400") == nil, r.pattern)
			assert.Equal(t, r.public, len(op.Security) > 0, r.pattern)
		}
	}
	assert.Len(t, operations, len(routes()))
}

// Every reference leads somewhere, and every component is referred to.
func TestOpenAPIReferences(t *testing.T) {
	t.Parallel()
	text := served(t)
	var whole map[string]any
	require.NoError(t, json.Unmarshal(text, &whole))
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"\$ref":"#/([^"]*)"`).FindAllSubmatch(text, -1) {
		used[string(m[1])] = true
		var at any = whole
		for _, step := range strings.Split(string(m[1]), "/") {
			object, _ := at.(map[string]any)
			at = object[step]
		}
		assert.NotNil(t, at, "%s leads nowhere", m[1])
	}
	parts, _ := whole["components"].(map[string]any)
	for _, kind := range []string{"schemas", "responses"} {
		named, _ := parts[kind].(map[string]any)
		assert.NotEmpty(t, named)
		for name := range named {
			assert.True(t, used["components/"+kind+"/"+name], "%s is used nowhere", name)
		}
	}
}

func TestOpenAPIIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	first, err := json.Marshal(describeRoutes(routes()))
	require.NoError(t, err)
	again, err := json.Marshal(describeRoutes(routes()))
	require.NoError(t, err)
	assert.True(t, bytes.Equal(first, again))
	assert.JSONEq(t, string(first), string(served(t)))
}

// Each example is what its schema asks for; a request's binds.
func TestOpenAPIExamples(t *testing.T) {
	t.Parallel()
	doc := describeRoutes(routes())
	check, err := conform.New(served(t))
	require.NoError(t, err)
	holds := func(name string, schema *jsonschema.Schema, example any) {
		text, err := json.Marshal(example)
		require.NoError(t, err)
		assert.NoError(t, check.Value(schema, text), "%s: %s", name, text)
	}
	for _, r := range routes() {
		name := r.method + " " + r.pattern
		op := doc.Paths[r.pattern][strings.ToLower(r.method)]
		for _, p := range op.Parameters {
			holds(name+" "+p.Name, p.Schema, p.Example)
		}
		if op.RequestBody != nil {
			for kind, media := range op.RequestBody.Content {
				holds(name+" "+kind, media.Schema, media.Example)
			}
			i := slices.IndexFunc(reflect.VisibleFields(r.in), func(f reflect.StructField) bool { return f.Tag == `body:""` })
			if i >= 0 {
				text, err := json.Marshal(op.RequestBody.Content[jsonMedia].Example)
				require.NoError(t, err)
				assert.NoError(t, decodeStrict(text, reflect.New(r.in.Field(i).Type).Interface()), "%s: %s", name, text)
			}
		}
		for status, answer := range op.Responses {
			for kind, media := range answer.Content {
				require.NotNil(t, media.Example, name)
				holds(name+" "+status+" "+kind, media.Schema, media.Example)
			}
		}
	}
	for name, answer := range doc.Components.Responses {
		holds(name, answer.Content[jsonMedia].Schema, answer.Content[jsonMedia].Example)
	}
}
