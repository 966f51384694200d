package schema

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	draft7    = `"$schema":"http://json-schema.org/draft-07/schema#"`
	draft2020 = `"$schema":"https://json-schema.org/draft/2020-12/schema"`
)

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ schema, path, says string }{
		"not JSON":             {`{`, "", "not JSON"},
		"a boolean":            {`true`, "", "not an object"},
		"too large":            {`{"description":"` + strings.Repeat("x", MaxSize) + `"}`, "", "at most 65536"},
		"unknown type":         {`{"properties":{"a":{"type":"strin"}}}`, "/properties/a/type", "anyOf"},
		"negative length":      {`{"minLength":-1}`, "/minLength", "minimum 0"},
		"wrong kind":           {`{"properties":{"a":{"minimum":"5"}}}`, "/properties/a/minimum", `type "number"`},
		"null for a schema":    {`{"items":null}`, "/items", "type"},
		"nothing to choose":    {`{"anyOf":[]}`, "/anyOf", "minItems 1"},
		"multiple of nothing":  {`{"multipleOf":0}`, "/multipleOf", "exclusiveMinimum 0"},
		"a draft of long ago":  {`{"$schema":"http://json-schema.org/draft-04/schema#"}`, "/$schema", "enum"},
		"remote reference":     {`{"properties":{"a":{"$ref":"https://example.com/a.json"}}}`, "/properties/a/$ref", "pattern"},
		"file reference":       {`{"$ref":"file:///etc/passwd"}`, "/$ref", "pattern"},
		"anchor":               {`{"$anchor":"a"}`, "/$anchor", "may not be there"},
		"dynamic reference":    {`{"$dynamicRef":"#a"}`, "/$dynamicRef", "may not be there"},
		"nowhere":              {`{"$ref":"#/$defs/none"}`, "/$ref", "leads nowhere"},
		"to a list":            {`{"$ref":"#/allOf","allOf":[{}]}`, "/$ref", "leads nowhere"},
		"to what is no schema": {`{"$ref":"#/default","default":{}}`, "", "not a valid schema"},
		"bad index":            {`{"$ref":"#/allOf/1","allOf":[{}]}`, "/$ref", "leads nowhere"},
		"nested id":            {`{"items":{"$id":"https://example.com/x"}}`, "/items/$id", "only the root"},
		"misspelt keyword":     {`{"properties":{"a":{"AllOf":[{"$ref":"#"}]}}}`, "/properties/a/AllOf", "allOf"},
		"folded keyword":       {`{"propertie\u017f":{}}`, "/propertieſ", "properties"},
		"list of items":        {`{"items":[{}]}`, "/items", "prefixItems"},
		"bad pattern":          {`{"pattern":"("}`, "", "missing closing"},
		"pattern of Perl":      {`{"pattern":"(?=x)"}`, "", "invalid or unsupported Perl syntax"},
		"long pattern":         {`{"pattern":"` + strings.Repeat("x", 257) + `"}`, "/pattern", "maxLength 256"},
		"long member pattern": {`{"patternProperties":{"` + strings.Repeat("x", 257) + `":{}}}`, "/patternProperties",
			"maxLength 256"},
		"itself": {`{"$ref":"#"}`, "", "comes back to itself"},
		"itself in a branch": {`{"properties":{"a":{"anyOf":[{"type":"null"},{"$ref":"#/properties/a"}]}}}`, "/properties/a",
			"comes back to itself"},
		"itself by two": {`{"$defs":{"a":{"not":{"$ref":"#/$defs/b"}},"b":{"if":{"$ref":"#/$defs/a"}}},"properties":{"x":{"$ref":"#/$defs/a"}}}`, "", "comes back to itself"},
		"a bomb":        {bomb(40), "", "branches too often"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Compile([]byte(tt.schema))
			var refused *Error
			require.ErrorAs(t, err, &refused)
			assert.Contains(t, refused.Error(), tt.says)
			if tt.path != "" {
				assert.Equal(t, tt.path, refused.Path)
			}
			assert.NotNil(t, refused.Allowed)
			assert.NotContains(t, refused.Error(), rootID)
		})
	}
}

// bomb doubles n times.
func bomb(n int) string {
	defs := make([]string, n)
	for i := range n - 1 {
		ref := fmt.Sprintf(`{"$ref":"#/$defs/d%d"}`, i+1)
		defs[i] = fmt.Sprintf(`"d%d":{"allOf":[%s,%s]}`, i, ref, ref)
	}
	defs[n-1] = fmt.Sprintf(`"d%d":{}`, n-1)
	return `{"$ref":"#/$defs/d0","$defs":{` + strings.Join(defs, ",") + `}}`
}

// order is what the tests below validate with.
const order = `{` + draft2020 + `,"$id":"https://example.com/order.json","type":"object",
	"properties":{
		"lines":{"type":"array","minItems":1,"items":{"$ref":"#/$defs/line"}},
		"total":{"type":"number","minimum":0},
		"tags":{"type":"array","prefixItems":[{"const":"v1"}],"items":{"type":"string","pattern":"^[a-z]+$"}},
		"next":{"anyOf":[{"type":"null"},{"$ref":"#"}]},
		"by/who":{"type":"string"}},
	"patternProperties":{"^x-":{"type":"string"}},
	"additionalProperties":false,
	"required":["lines"],
	"if":{"properties":{"total":{"const":0}},"required":["total"]},"then":{"properties":{"tags":{"maxItems":1}}},
	"$defs":{"line":{"type":"object","required":["sku","price"],
		"properties":{"sku":{"type":"string"},"price":{"type":"number","exclusiveMinimum":0}},
		"additionalProperties":{"type":"boolean"}}}}`

const canary = "canary-6f2d"

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ schema, value, path, keyword string }{
		"good": {order,
			`{"lines":[{"sku":"a","price":1,"gift":true}],"tags":["v1","b"],"next":null,"x-note":"n"}`, "-", ""},
		"recursion": {order,
			`{"lines":[{"sku":"a","price":1}],"next":{"lines":[{"sku":"a","price":1}],"next":null}}`, "-", ""},
		"root":    {order, `[]`, "", "type"},
		"missing": {order, `{"total":1}`, "", "required"},
		"in the second line": {order, `{"lines":[{"sku":"a","price":1},{"sku":"canary-6f2d","price":0}]}`,
			"/lines/1/price", "exclusiveMinimum"},
		"missing in a line":        {order, `{"lines":[{"sku":"a","price":1},{"sku":"a"}]}`, "/lines/1", "required"},
		"further member of a line": {order, `{"lines":[{"sku":"a","price":1,"gift":"canary-6f2d"}]}`, "/lines/0/gift", "type"},
		"unknown member": {order, `{"lines":[{"sku":"a","price":1}],"x-a":"b","extra":"canary-6f2d"}`, "/extra",
			"additionalProperties"},
		"member of a pattern": {order, `{"lines":[{"sku":"a","price":1}],"x-a":["canary-6f2d"]}`, "/x-a", "type"},
		"tuple":               {order, `{"lines":[{"sku":"a","price":1}],"tags":["canary-6f2d"]}`, "/tags/0", "const"},
		"after the tuple": {order, `{"lines":[{"sku":"a","price":1}],"tags":["v1","ok","canary-6f2d"]}`, "/tags/2",
			"pattern"},
		"no branch":        {order, `{"lines":[{"sku":"a","price":1}],"next":"canary-6f2d"}`, "/next", "anyOf"},
		"then":             {order, `{"lines":[{"sku":"a","price":1}],"total":0,"tags":["v1","b"]}`, "/tags", "maxItems"},
		"escaped name":     {order, `{"lines":[{"sku":"a","price":1}],"by/who":7}`, "/by~1who", "type"},
		"false":            {`{"properties":{"a":false}}`, `{"a":"canary-6f2d"}`, "/a", ""},
		"not":              {`{"items":{"not":{"type":"string"}}}`, `[1,"canary-6f2d"]`, "/1", "not"},
		"one of":           {`{"oneOf":[{"type":"string"},{"minLength":2}]}`, `"canary-6f2d"`, "", "oneOf"},
		"enum":             {`{"enum":["a",{"b":[1]}]}`, `{"b":[1.0]}`, "-", ""},
		"enum, refused":    {`{"enum":["a"]}`, `{"b":"canary-6f2d"}`, "", "enum"},
		"unique":           {`{"uniqueItems":true}`, `[{"a":["canary-6f2d"]},{"a":["canary-6f2d"]}]`, "", "uniqueItems"},
		"contains":         {`{"contains":{"type":"null"}}`, `["canary-6f2d"]`, "", "contains"},
		"names":            {`{"propertyNames":{"maxLength":3}}`, `{"canary-6f2d":1}`, "", "maxLength"},
		"dependent":        {`{"dependentRequired":{"a":["b"]}}`, `{"a":"canary-6f2d"}`, "", "dependentRequired"},
		"dependent schema": {`{"dependentSchemas":{"a":{"required":["b"]}}}`, `{"a":1}`, "", "required"},
		"unevaluated": {`{"allOf":[{"properties":{"a":true}}],"unevaluatedProperties":false}`, `{"a":1,"b":2}`,
			"/a", ""},
		"integers are numbers":     {`{"type":"number"}`, `1`, "-", ""},
		"1.0 is an integer":        {`{"type":"integer"}`, `1.0`, "-", ""},
		"length counts characters": {`{"maxLength":2}`, `"éé"`, "-", ""},
		"beyond floating point":    {`{}`, `1e400`, "", ""},
		"not JSON":                 {`{}`, `{`, "", ""},
		"null":                     {`{"type":"null"}`, `null`, "-", ""},

		"draft-07 tuple": {`{` + draft7 + `,"items":[{"type":"string"}],"additionalItems":{"type":"number"}}`,
			`["a",1,"canary-6f2d"]`, "/2", "type"},
		"draft-07 tuple, its item": {`{` + draft7 + `,"items":[{"type":"string"},{"type":"null"}]}`, `["a",1]`, "/1", "type"},
		"draft-07 dependencies": {`{` + draft7 + `,"dependencies":{"a":["b"],"c":{"required":["d"]}}}`, `{"a":1}`, "",
			"dependentRequired"},
		"draft-07 dependent schema": {`{` + draft7 + `,"dependencies":{"a":["b"],"c":{"required":["d"]}}}`, `{"c":1}`, "",
			"required"},
		"draft-07 siblings of $ref":  {`{` + draft7 + `,"properties":{"a":{"$ref":"#/definitions/s","maxLength":1}},"definitions":{"s":{"type":"string"}}}`, `{"a":"long"}`, "-", ""},
		"draft-07 definitions":       {`{` + draft7 + `,"items":{"$ref":"#/definitions/s"},"definitions":{"s":{"type":"string"}}}`, `["a",1]`, "/1", "type"},
		"draft-07 root is reference": {`{` + draft7 + `,"$ref":"#/definitions/s","definitions":{"s":{"items":{"type":"string"}}}}`, `["a",1]`, "", "type"},
		"2020-12 siblings of $ref": {`{"properties":{"a":{"$ref":"#/$defs/s","maxLength":1}},"$defs":{"s":{"type":"string"}}}`,
			`{"a":"long"}`, "/a", "maxLength"},
		"reference that is escaped": {`{"$ref":"#/$defs/a%20b~1c","$defs":{"a b/c":{"type":"string"}}}`, `1`, "", "type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Compile([]byte(tt.schema))
			require.NoError(t, err)
			err = s.Validate([]byte(tt.value))
			if tt.path == "-" {
				require.NoError(t, err)
				return
			}
			var refused *Error
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, []string{tt.path, tt.keyword}, []string{refused.Path, refused.Keyword}, refused.Error())
			assert.NotContains(t, strings.ReplaceAll(refused.Error(), refused.Path, ""), canary, "the value stays out of the error")
			assert.NotContains(t, refused.Error(), rootID)
		})
	}
}

func TestValidateIsBounded(t *testing.T) {
	t.Parallel()
	nested := strings.Repeat(`{"a":`, 60) + "1" + strings.Repeat("}", 60)
	many := "[" + strings.Repeat(`"x",`, 200_000) + `"x"]`
	for name, tt := range map[string]struct{ schema, value string }{
		"recursion that branches": {`{"properties":{"a":{"allOf":[{"$ref":"#"},{"$ref":"#"}]}}}`, nested},
		"many branches":           {`{"items":{"anyOf":[{"type":"null"},{"type":"array"},{"type":"object"}]}}`, many},
		"deep nesting": {`{"properties":{"a":{"$ref":"#"}}}`,
			strings.Repeat(`{"a":`, 600) + "1" + strings.Repeat("}", 600)},
		"long strings": {`{"items":{"anyOf":[` + strings.TrimSuffix(strings.Repeat(`{"pattern":"(x+)+y"},`, 100),
			",") + `]}}`, `["` + strings.Repeat("x", 900_000) + `"]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Compile([]byte(tt.schema))
			require.NoError(t, err)
			require.ErrorContains(t, s.Validate([]byte(tt.value)), "steps")
		})
	}
	s, err := Compile([]byte(`{"type":"array","items":{"type":"string"}}`))
	require.NoError(t, err)
	require.NoError(t, s.Validate([]byte(many)), "a large value of a plain schema is not too much")
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s, err := Compile([]byte(order))
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			assert.NoError(t, s.Validate([]byte(`{"lines":[{"sku":"a","price":1}]}`)))
			assert.Error(t, s.Validate([]byte(`{"lines":[{"sku":"a","price":0}]}`)))
		})
	}
	wg.Wait()
}

// Whatever comes in, an answer comes out in time: the schema is refused, or the value is, at a place that it has, or it is
// taken.
func FuzzSchema(f *testing.F) {
	for _, seed := range [][2]string{{order, `{"lines":[{"sku":"a","price":0}]}`}, {`{"$ref":"#"}`, `1`}, {bomb(20), `1`},
		{`{` + draft7 + `,"items":[{}],"additionalItems":false}`, `[1,2]`}, {`{"AllOf":[{"$ref":"#"}]}`, `{}`},
		{`{"multipleOf":1e-300}`, `1e300`}, {`{"uniqueItems":true}`, `[null,null]`}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		s, err := Compile([]byte(text))
		if err != nil {
			var refused *Error
			require.ErrorAs(t, err, &refused)
			return
		}
		if err = s.Validate([]byte(value)); err == nil {
			require.True(t, json.Valid([]byte(value)))
			return
		}
		var refused *Error
		require.ErrorAs(t, err, &refused)
		require.NotEmpty(t, refused.Reason)
		var root any
		if json.Unmarshal([]byte(value), &root) == nil && refused.Path != "" {
			require.True(t, has(root, refused.Path), "%s has no %s", value, refused.Path)
		}
	})
}

func has(v any, path string) bool {
	for _, name := range strings.Split(path, "/")[1:] {
		switch inner := v.(type) {
		case map[string]any:
			member, ok := inner[unescape(name)]
			if !ok {
				return false
			}
			v = member
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(inner) {
				return false
			}
			v = inner[i]
		default:
			return false
		}
	}
	return true
}

func BenchmarkValidate(b *testing.B) {
	s, err := Compile([]byte(order))
	require.NoError(b, err)
	value := []byte(`{"lines":[` + strings.Repeat(`{"sku":"a","price":1},`, 99) + `{"sku":"a","price":1}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Validate(value); err != nil {
			b.Fatal(err)
		}
	}
}
