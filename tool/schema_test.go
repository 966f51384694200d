package tool_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/tool"
)

func TestSchema(t *testing.T) {
	t.Parallel()
	type item struct {
		ID   int     `json:"id"`
		Note *string `json:"note,omitempty"`
	}
	type embedded struct {
		Page int8 `json:"page,omitempty"`
	}
	type everything struct {
		Zeta   string            `json:"zeta" jsonschema:"comes first"`
		Items  []item            `json:"items,omitempty"`
		Raw    json.RawMessage   `json:"raw,omitempty"`
		Blob   []byte            `json:"blob,omitempty"`
		At     time.Time         `json:"at,omitzero"`
		Until  *time.Time        `json:"until,omitempty"`
		Labels map[string]string `json:"labels,omitempty"`
		Any    any               `json:"any,omitempty"`
		Empty  struct{}          `json:"empty,omitzero"`
		Hidden string            `json:"-"`
		embedded
	}
	tests := map[string]struct {
		schema json.RawMessage
		want   string
	}{
		"types and order": {
			echo[everything](t).Schema(),
			`{"type":"object","properties":{"zeta":{"type":"string","description":"comes first"},` +
				`"items":{"type":"array","items":{"type":"object","properties":{"id":{"type":"integer"},"note":{"type":"string"}},` +
				`"required":["id"],"additionalProperties":false}},` +
				`"raw":{"description":"any JSON value"},"blob":{"type":"string","contentEncoding":"base64"},` +
				`"at":{"type":"string","format":"date-time"},"until":{"type":"string","format":"date-time"},` +
				`"labels":{"type":"object","properties":{},"additionalProperties":{"type":"string"}},` +
				`"any":{"description":"any JSON value"},` +
				`"empty":{"type":"object","properties":{},"additionalProperties":false},` +
				`"page":{"type":"integer","minimum":-128,"maximum":127}},"required":["zeta"],"additionalProperties":false}`,
		},
		"empty struct": {
			echo[struct{}](t).Schema(), `{"type":"object","properties":{},"additionalProperties":false}`,
		},
		"map": {
			echo[map[string]int](t).Schema(),
			`{"type":"object","properties":{},"additionalProperties":{"type":"integer"}}`,
		},
		"adjusted": {
			echo[struct {
				Mood string `json:"mood"`
			}](t, tool.WithSchema(func(s *jsonschema.Schema) { s.Properties["mood"].Enum = []any{"good", "bad"} })).Schema(),
			`{"type":"object","properties":{"mood":{"type":"string","enum":["good","bad"]}},"required":["mood"],` +
				`"additionalProperties":false}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, string(tt.schema))
		})
	}
}

func TestSchemaIsACopy(t *testing.T) {
	t.Parallel()
	var kept *jsonschema.Schema
	made := echo[postIn](t, tool.WithSchema(func(s *jsonschema.Schema) { kept = s }))
	before := string(made.Schema())

	kept.Required = nil
	made.Schema()[0] = 'x'
	params := made.Parameters()
	params["type"] = "string"
	params["properties"].(map[string]any)["text"].(map[string]any)["type"] = "integer"

	assert.Equal(t, before, string(made.Schema()))
	fresh, err := json.Marshal(made.Parameters())
	require.NoError(t, err)
	assert.JSONEq(t, before, string(fresh))
	out, err := made.Call(t.Context(), `{}`)
	require.NoError(t, err)
	assert.Contains(t, out, "missing properties")
}
