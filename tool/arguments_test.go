package tool

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{}`, `{"a":1}`, `{"__arg1":"{}"}`, `{"__arg1":{"a":1}}`, `{"__arg1":5}`, "```json\n{\"a\":1}\n```",
		`"{\"a\":1}"`, `[{"a":1}]`, `{"a":1} trailing`, `{"a"`, `{"__arg1":"\"{}\""}`,
		"{\"a\":\"\xff\"}", `{"a":1e999}`, `{"list":[{"id":null}]}`,
	} {
		f.Add(seed)
	}
	type in struct {
		A    float64 `json:"a,omitempty"`
		List []struct {
			ID *int `json:"id,omitempty"`
		} `json:"list,omitempty"`
	}
	t, err := build[in]("t", "d", nil, func(*Tool) error { return nil })
	require.NoError(f, err)
	f.Fuzz(func(test *testing.T, input string) {
		args, err := t.arguments(input)
		if err != nil {
			var argument *ArgumentError
			require.ErrorAs(test, err, &argument)
			assert.LessOrEqual(test, len(argument.Reason), 700)
			return
		}
		var object map[string]json.RawMessage
		require.NoError(test, json.Unmarshal(args, &object), "what is accepted is an object")
		_, wrapped := object[arg1]
		assert.False(test, wrapped, "what is accepted is unwrapped")
		again, err := t.arguments(string(args))
		require.NoError(test, err, "what is accepted is accepted again")
		assert.Equal(test, string(args), string(again))
		if _, err := decode[in](t, args); err != nil {
			var argument *ArgumentError
			require.ErrorAs(test, err, &argument)
		}
	})
}
