package detect

import (
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

const secretText = "the quarterly numbers are bad" // 29 bytes

func decode(t testing.TB, text string) (v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	return v
}

func TestFlowFindsText(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body any
		part Part
		want string // found_in; empty for no finding
	}{
		"equal":           {secretText, Part{"body", secretText}, "body"},
		"in a longer one": {secretText, Part{"body", "FYI: " + secretText + "!"}, "body"},
		"at the very end": {secretText, Part{"body", "FYI: " + secretText}, "body"},
		"nested": {
			map[string]any{"messages": []any{map[string]any{"text": secretText}}},
			Part{"body", map[string]any{"a": 1.5, "b": []any{nil, true, map[string]any{"note": secretText}}}},
			"body.b[2].note",
		},
		"white space around the remembered one": {" \n" + secretText + "\t", Part{"body", secretText}, "body"},
		"query values": {
			secretText, Part{"query", map[string][]string{"q": {"x", secretText}}}, "query.q[1]",
		},
		"named map type": {secretText, Part{"query", url.Values{"q": {secretText}}}, "query.q[0]"},
		"path segments":  {secretText, Part{"path", []string{"a", secretText}}, "path[1]"},
		"headers": {
			secretText, Part{"headers", map[string]string{"X-Note": secretText}}, "headers.X-Note",
		},
		"name of a field": {secretText, Part{"body", map[string]any{secretText: 1.0}}, "body (a name)"},
		"bytes":           {secretText, Part{"body", []byte(secretText)}, "body"},
		"raw JSON":        {json.RawMessage(`["` + secretText + `"]`), Part{"body", secretText}, "body"},
		"a struct": {
			struct{ Text string }{secretText}, Part{"body", struct{ Note string }{secretText}}, "body.Note",
		},
		"16 characters":         {"0123456789abcdef", Part{"body", "x0123456789abcdefx"}, "body"},
		"15 characters":         {"0123456789abcde", Part{"body", "0123456789abcde"}, ""},
		"16 letters of 2 bytes": {strings.Repeat("é", 16), Part{"body", strings.Repeat("é", 16)}, "body"},
		"15 letters of 2 bytes": {strings.Repeat("é", 15), Part{"body", strings.Repeat("é", 15)}, ""},
		"16 with white space":   {" 23456789abcdef ", Part{"body", " 23456789abcdef "}, ""},
		"a part of it":          {secretText, Part{"body", secretText[:len(secretText)-1]}, ""},
		"same beginning":        {secretText, Part{"body", secretText[:20] + "good, as it happens"}, ""},
		"names of fields are not remembered": {
			map[string]any{"organization_memberships_url": "x"}, Part{"body", "organization_memberships_url"}, "",
		},
		"numbers are not remembered": {1234567890123456.0, Part{"body", "1234567890123456"}, ""},
		"nothing":                    {nil, Part{"body", nil}, ""},
		"not JSON":                   {func() {}, Part{"body", make(chan int)}, ""},
		"invalid UTF-8":              {strings.Repeat("\xff", 16), Part{"body", strings.Repeat("\xff", 16)}, "body"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := NewFlow()
			f.Remember("gmail", tt.body)
			finding := f.Check("slack", []string{}, Part{"method", "POST"}, tt.part)
			if tt.want == "" {
				assert.Nil(t, finding)
				return
			}
			require.NotNil(t, finding)
			assert.Equal(t, DataFlowViolation, finding.Signal)
			assert.Equal(t, stack.SeverityCritical, finding.Severity)
			assert.Equal(t, "data_flow_violation_fire:gmail_to_slack", finding.Reason())
			assert.Equal(t, map[string]any{
				"source_service": "gmail", "target_service": "slack", "found_in": tt.want,
			}, finding.Metadata)
			assert.NotContains(t, fmt.Sprint(*finding), secretText)
		})
	}
}

func TestFlowServices(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		from      []string // services that answered the text
		to        string
		allowFrom []string
		source    string // empty for no finding
	}{
		"allowed when absent":              {[]string{"gmail"}, "slack", nil, ""},
		"empty is none":                    {[]string{"gmail"}, "slack", []string{}, "gmail"},
		"named":                            {[]string{"gmail"}, "slack", []string{"notion", "gmail"}, ""},
		"another named":                    {[]string{"gmail"}, "slack", []string{"notion"}, "gmail"},
		"back to where it came from":       {[]string{"slack"}, "slack", []string{}, ""},
		"also answered by the target":      {[]string{"gmail", "slack"}, "slack", []string{}, ""},
		"an allowed one does not launder":  {[]string{"gmail", "notion"}, "slack", []string{"notion"}, "gmail"},
		"all sources allowed":              {[]string{"gmail", "notion"}, "slack", []string{"notion", "gmail"}, ""},
		"nothing remembered":               {nil, "slack", []string{}, ""},
		"the first of several, by name":    {[]string{"notion", "gmail"}, "slack", []string{}, "gmail"},
		"names of services are not prefix": {[]string{"gmail"}, "gmail2", []string{}, "gmail"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := NewFlow()
			for _, service := range tt.from {
				f.Remember(service, secretText)
			}
			finding := f.Check(tt.to, tt.allowFrom, Part{"body", secretText})
			if tt.source == "" {
				assert.Nil(t, finding)
				return
			}
			require.NotNil(t, finding)
			assert.Equal(t, tt.source, finding.Metadata["source_service"])
		})
	}
}

func TestFlowNamesInFoundInAreCut(t *testing.T) {
	t.Parallel()
	f := NewFlow()
	f.Remember("gmail", secretText)
	finding := f.Check("slack", []string{}, Part{"body", map[string]any{strings.Repeat("n", 10_000): secretText}})
	require.NotNil(t, finding)
	assert.Less(t, len(finding.Metadata["found_in"].(string)), 200)
}

func TestFlowForgetsTheOldestOfTheSameService(t *testing.T) {
	t.Parallel()
	f := NewFlow()
	text := func(i int) string { return fmt.Sprintf("%08d is the number of the text", i) }
	known := func(s string) bool { return f.Check("slack", []string{}, Part{"body", s}) != nil }
	f.Remember("gmail", "a string that came through gmail")
	for i := range flowMaxFields {
		f.Remember("notion", text(i))
	}
	require.True(t, known(text(0)))
	f.Remember("notion", text(0)) // seen again: now the newest
	f.Remember("notion", text(flowMaxFields))
	f.Remember("notion", text(flowMaxFields+1))
	assert.True(t, known(text(0)))
	assert.False(t, known(text(1)))
	assert.False(t, known(text(2)))
	assert.True(t, known(text(3)))
	assert.True(t, known(text(flowMaxFields+1)))
	assert.True(t, known("a string that came through gmail"), "one service does not wash out another's")
	assert.Len(t, f.fields, flowMaxFields+1)
	assert.LessOrEqual(t, len(f.prefixes), flowMaxFields+1)

	for i := range 2 * flowMaxFields { // nothing of what was dropped stays behind
		f.Remember("notion", text(1_000_000+i))
	}
	assert.Len(t, f.fields, flowMaxFields+1)
	assert.Len(t, f.prefixes, flowMaxFields+1)
}

func TestFlowBoundsLengthsPerPrefix(t *testing.T) {
	t.Parallel()
	f := NewFlow()
	for i := range 3 * flowMaxPerPrefix {
		f.Remember("gmail", "https://example.com/"+strings.Repeat("x", i))
	}
	require.Len(t, f.prefixes, 1)
	for _, spans := range f.prefixes {
		assert.Len(t, spans, flowMaxPerPrefix)
	}
	assert.Len(t, f.fields, flowMaxPerPrefix)
	f.Remember("gmail", "https://example.com/y")
	assert.NotNil(t, f.Check("slack", []string{}, Part{"body", "https://example.com/y"}), "a known length is still taken")
}

func TestFlowKeepsNoText(t *testing.T) {
	t.Parallel()
	f := NewFlow()
	f.Remember("gmail", secretText)
	for _, elements := range f.fields {
		assert.NotContains(t, fmt.Sprintf("%+v", *elements[0].Value.(*field)), secretText[:flowWindow])
	}
	g := NewFlow()
	assert.NotEqual(t, f.sum(secretText), g.sum(secretText), "every Flow has keys of its own")
	assert.NotEqual(t, f.hmac(secretText), g.hmac(secretText))
}

// TestFlowAgainstSearching compares with strings.Contains over texts of a small alphabet, where much nearly matches.
func TestFlowAgainstSearching(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 6))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab"[random.IntN(20)/19]
		}
		return string(b)
	}
	hits := 0
	for range 3000 {
		f := NewFlow()
		var fields []string
		for range 1 + random.IntN(20) {
			s := text(random.IntN(60))
			fields = append(fields, s)
			f.Remember("gmail", s)
		}
		out := text(random.IntN(300))
		want := false
		for _, s := range fields {
			want = want || len(s) >= flowMinRunes && strings.Contains(out, s)
		}
		if want {
			hits++
		}
		require.Equal(t, want, f.Check("slack", []string{}, Part{"body", out}) != nil, "%q in %q", fields, out)
	}
	assert.Greater(t, hits, 300)
	assert.Less(t, hits, 2700)
}

func TestModularArithmetic(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 8))
	p := new(big.Int).SetUint64(prime)
	values := []uint64{0, 1, 2, prime - 1, prime - 2, 1 << 60, 255}
	for range 1000 {
		values = append(values, random.Uint64N(prime))
	}
	for _, a := range values {
		b := values[random.IntN(len(values))]
		x, y := new(big.Int).SetUint64(a), new(big.Int).SetUint64(b)
		of := func(z *big.Int) uint64 { return z.Mod(z, p).Uint64() }
		require.Equal(t, of(new(big.Int).Mul(x, y)), mulMod(a, b))
		require.Equal(t, of(new(big.Int).Add(x, y)), addMod(a, b))
		require.Equal(t, of(new(big.Int).Sub(x, y)), subMod(a, b))
		n := random.IntN(1000)
		require.Equal(t, new(big.Int).Exp(x, big.NewInt(int64(n)), p).Uint64(), power(a, n))
	}
	require.Equal(t, uint64(0), mulMod(prime-1, 0))
	require.Equal(t, uint64(1), mulMod(prime-1, prime-1))
}

// TestFlowWorstCase has every position begin like 256 remembered fields.
func TestFlowWorstCase(t *testing.T) {
	t.Parallel()
	f := worstFlow()
	body := strings.Repeat("a", 4<<10)
	assert.Nil(t, f.Check("slack", []string{}, Part{"body", body}))
	assert.NotNil(t, f.Check("slack", []string{}, Part{"body", body + "!"}))
}

// TestFlowAllowedTextIsNotHashedAtEachPlace would not end in time if an allowed text were confirmed wherever it stands.
func TestFlowAllowedTextIsNotHashedAtEachPlace(t *testing.T) {
	t.Parallel()
	f := NewFlow()
	f.Remember("slack", strings.Repeat("a", 1<<18))
	f.Remember("gmail", strings.Repeat("a", 1<<18+1))
	assert.Nil(t, f.Check("slack", []string{"gmail"}, Part{"body", strings.Repeat("a", 1<<19)}))
}

func worstFlow() *Flow {
	f := NewFlow()
	for i := range flowMaxPerPrefix {
		f.Remember("gmail", strings.Repeat("a", flowWindow+i)+"!")
	}
	return f
}

func FuzzFlow(f *testing.F) {
	f.Add(`{"text":"the quarterly numbers are bad"}`, `{"note":"see: the quarterly numbers are bad"}`)
	f.Add(`["aaaaaaaaaaaaaaaaaaaaaaaa"]`, `"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"`)
	f.Add(`"éééééééééééééééé"`, `{"éééééééééééééééé":[]}`)
	f.Fuzz(func(t *testing.T, in, out string) {
		var answer, request any
		if json.Unmarshal([]byte(in), &answer) != nil || json.Unmarshal([]byte(out), &request) != nil {
			return
		}
		var fields []string
		walk(answer, false, func(s string) bool {
			if s = strings.TrimSpace(s); len([]rune(s)) >= flowMinRunes {
				fields = append(fields, s)
			}
			return false
		})
		_, want := walk(request, true, func(s string) bool {
			for _, field := range fields {
				if strings.Contains(s, field) {
					return true
				}
			}
			return false
		})
		if len(fields) > flowMaxPerPrefix {
			return
		}
		flow := NewFlow()
		flow.Remember("gmail", answer)
		if got := flow.Check("slack", []string{}, Part{"body", request}) != nil; got != want {
			t.Fatalf("%q in %q: %t", in, out, got)
		}
	})
}

func benchmarkFlow(b *testing.B, f *Flow, body any) {
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if f.Check("slack", []string{}, Part{"body", body}) != nil {
			b.Fatal("nothing to find here")
		}
	}
}

func BenchmarkFlowCheck(b *testing.B) {
	f := NewFlow()
	for i := range flowMaxFields {
		f.Remember("gmail", fmt.Sprintf("%08d is the number of the text", i))
	}
	random := rand.New(rand.NewPCG(9, 10))
	text := make([]byte, 64<<10)
	for i := range text {
		text[i] = byte('a' + random.IntN(26))
	}
	b.Run("one string", func(b *testing.B) { benchmarkFlow(b, f, string(text)) })
	list := make([]any, 1024)
	for i := range list {
		list[i] = map[string]any{"id": float64(i), "text": string(text[64*i : 64*i+64])}
	}
	b.Run("1024 objects", func(b *testing.B) { benchmarkFlow(b, f, list) })
	b.Run("all begins alike", func(b *testing.B) { benchmarkFlow(b, worstFlow(), strings.Repeat("a", 64<<10)) })
}

func BenchmarkFlowRemember(b *testing.B) {
	list := make([]any, 1024)
	for i := range list {
		list[i] = map[string]any{"text": fmt.Sprintf("%064d", i)}
	}
	f := NewFlow()
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		f.Remember("gmail", list)
	}
}
