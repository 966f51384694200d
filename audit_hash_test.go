package stack

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzAppendJSONString compares with encoding/json, which differs in nothing but U+2028 and U+2029.
func FuzzAppendJSONString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1f\"\\\b\f\n\r\t<&>\x7f\u2028\u2029é\U0001f600")
	f.Add(`\u2028`)
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "\ufffd")
		got := appendJSONString(nil, s)
		var back string
		require.NoError(t, json.Unmarshal(got, &back))
		require.Equal(t, s, back)

		separators := strings.NewReplacer("\u2028", "", "\u2029", "")
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		require.NoError(t, enc.Encode(separators.Replace(s)))
		require.Equal(t, strings.TrimSuffix(want.String(), "\n"), separators.Replace(string(got)))
	})
}
