package strictjson

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReader(t *testing.T) {
	t.Parallel()
	r := New(` {"s":"a\u00e9\n😀","i":-12,"null":null,"list":["x",null],"none":[],"gone":null,"skip":{"a":[1.5e3,true,false]},"value":{"a":[1.5e3,true,false,null,"x",{}]},"objects":[{"a":1}]} `)
	var got struct {
		s, null    string
		i          int64
		list, none []string
		gone       []string
		value      any
		objects    []map[string]any
	}
	r.Object(func(name string) {
		switch name {
		case "s":
			got.s = r.String()
		case "i":
			got.i = r.Int()
		case "null":
			got.null = r.String()
		case "list":
			got.list = r.Strings()
		case "none":
			got.none = r.Strings()
		case "gone":
			got.gone = r.Strings()
		case "value":
			got.value = r.Value()
		case "objects":
			got.objects = r.Objects()
		default:
			r.Skip()
		}
	})
	require.NoError(t, r.End())
	assert.Equal(t, "aé\n😀", got.s)
	assert.Equal(t, int64(-12), got.i)
	assert.Equal(t, []string{"x", ""}, got.list)
	assert.Equal(t, []string{}, got.none)
	assert.Nil(t, got.gone)
	assert.Equal(t, map[string]any{"a": []any{1500.0, true, false, nil, "x", map[string]any{}}}, got.value)
	assert.Equal(t, []map[string]any{{"a": 1.0}}, got.objects)
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing": "", "space": " ", "two values": "1 2", "trailing": "{}x", "a name twice": `{"a":1,"a":1}`,
		"a name twice, escaped": `{"a":1,"\u0061":1}`, "a name twice, deep down": `[{"b":{"a":1,"c":2,"a":3}}]`,
		"no name": `{1:2}`, "no value": `{"a"}`, "a comma at the end": `{"a":1,}`, "a comma in an array": `[1,]`, "no end": `[1`,
		"no end of an object": `{"a":1`, "no end of a string": `"a`, "an escape at the end": `"a\`, "no escape": `"\x"`, "a line break": "\"a\nb\"",
		"no UTF-8": "\"\xff\"", "a zero in front": "01", "no digits": "-", "a dot": "1.", "an exponent": "1e", "a plus": "+1", "half a word": "tru",
		"NaN": "NaN", "deep": strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), "many members": manyMembers(maxMembers + 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var wrong *Error
			require.ErrorAs(t, Check(text), &wrong)
			assert.True(t, wrong.Syntax, wrong.Reason)
			assert.NotEmpty(t, wrong.Reason)
		})
	}
	for _, good := range []string{"0", "-0.5E+1", `""`, "null", manyMembers(maxMembers), `{"a":{"x":1},"b":{"x":1}}`,
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)} {
		require.NoError(t, Check(good), good)
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"` + strconv.Itoa(i) + `":0`)
	}
	return "{" + b.String()[1:] + "}"
}

func TestTypes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		read func(r *Reader)
	}{
		"a string":         {"1", func(r *Reader) { _ = r.String() }},
		"an int":           {`"1"`, func(r *Reader) { r.Int() }},
		"a fraction":       {"1.0", func(r *Reader) { r.Int() }},
		"an exponent":      {"1e3", func(r *Reader) { r.Int() }},
		"too large":        {"9223372036854775808", func(r *Reader) { r.Int() }},
		"an object":        {"[]", func(r *Reader) { r.Object(nil) }},
		"no null object":   {"null", func(r *Reader) { r.Object(nil) }},
		"an array":         {"{}", func(r *Reader) { r.Array(nil) }},
		"strings":          {"[1]", func(r *Reader) { r.Strings() }},
		"no objects":       {"[1]", func(r *Reader) { r.Objects() }},
		"a huge number":    {"1e999", func(r *Reader) { r.Value() }},
		"by the caller":    {"1", func(r *Reader) { r.Int(); r.Fail("is too small") }},
		"a boolean":        {"true", func(r *Reader) { r.Int() }},
		"the first counts": {"[1,2]", func(r *Reader) { r.Strings(); r.Fail("no"); r.Int() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(`{"a":{"b":` + test.text + `}}`)
			r.Object(func(string) { r.Object(func(string) { test.read(r) }) })
			var wrong *Error
			require.ErrorAs(t, r.End(), &wrong)
			assert.False(t, wrong.Syntax, wrong.Reason)
			assert.Equal(t, "a.b", wrong.Path)
			assert.Equal(t, "a.b: "+wrong.Reason, wrong.Error())
		})
	}
}

// FuzzCheck holds the reader to encoding/json: what it takes, that takes as well; what it refuses beyond that is known.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e-7,"x\n\u00e9",null,true,false]}`, `{"a":1,"a":2}`, "[[[]]]", `"\ud800"`, "1e999", "\"\xff\"", " 1\n", `{"a":`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := Check(text)
		if err == nil {
			require.True(t, json.Valid([]byte(text)), "%q", text)
			r := New(text)
			got := r.Value()
			var want any
			if json.Unmarshal([]byte(text), &want) != nil { // a number that is too large
				require.Error(t, r.End())
				return
			}
			require.NoError(t, r.End())
			require.Equal(t, want, got)
			return
		}
		var wrong *Error
		require.True(t, errors.As(err, &wrong) && wrong.Syntax)
		if json.Valid([]byte(text)) {
			require.Regexp(t, "twice|UTF-8|deeper|members", wrong.Reason, "%q", text)
		}
	})
}
