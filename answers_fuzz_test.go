package stack_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzTypes holds that every type of the package takes any JSON or refuses it, and that what it took it writes as JSON that it
// takes again and writes the same.
func FuzzTypes(f *testing.F) {
	for _, text := range []string{`{}`, `null`, `[]`, `7`, `"x"`, `{"id":"a","token":"b","expires_at":"2026-01-02T03:04:05Z","metadata":{"a":[1e400,null]}}`,
		`{"exp":1e300,"iat":-1,"stk":{"checkpoint_interval":0.5}}`, `{"pattern":{"kind":"x"},"credential":{"a":"b"},"passport_ttl":9223372036854775807}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range exported {
			first := reflect.New(reflect.TypeOf(v))
			if json.Unmarshal(data, first.Interface()) != nil {
				continue
			}
			text, err := json.Marshal(first.Interface())
			if err != nil {
				continue // a time of a year that RFC 3339 has no digits for, or the like
			}
			second := reflect.New(reflect.TypeOf(v))
			require.NoError(t, json.Unmarshal(text, second.Interface()), "%T wrote %s", v, text)
			again, err := json.Marshal(second.Interface())
			require.NoError(t, err)
			require.Equal(t, string(text), string(again), "%T", v)
		}
	})
}
