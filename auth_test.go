package stack_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// A key from the environment goes only where it belongs.
func TestAmbientKey(t *testing.T) {
	in := stack.WithBaseURL
	tests := map[string]struct {
		envKey, envURL string
		opts           []stack.Option
		want           string // the key that is sent, or empty for a refusal
		host           string // where it is sent
	}{
		"default URL":                     {"sk_env", "", nil, "sk_env", "api.getstack.run"},
		"URL from the environment":        {"sk_env", "https://other.example", nil, "sk_env", "other.example"},
		"the same URL in code":            {"sk_env", "https://other.example", []stack.Option{in("https://other.example")}, "sk_env", "other.example"},
		"the same but for slash, case":    {"sk_env", "https://Other.example//", []stack.Option{in("HTTPS://other.example/")}, "sk_env", "other.example"},
		"the default URL in code":         {"sk_env", "", []stack.Option{in(stack.DefaultBaseURL + "/")}, "sk_env", "api.getstack.run"},
		"default URL in code, other env":  {"sk_env", "https://other.example", []stack.Option{in(stack.DefaultBaseURL)}, "sk_env", "api.getstack.run"},
		"loopback":                        {"sk_env", "", []stack.Option{in("http://127.0.0.1:4242")}, "sk_env", "127.0.0.1:4242"},
		"loopback network":                {"sk_env", "", []stack.Option{in("http://127.9.9.9")}, "sk_env", "127.9.9.9"},
		"loopback by name":                {"sk_env", "", []stack.Option{in("http://localhost:4242/prefix")}, "sk_env", "localhost:4242"},
		"IPv6 loopback":                   {"sk_env", "", []stack.Option{in("http://[::1]:4242")}, "sk_env", "[::1]:4242"},
		"env URL is broken, code decides": {"sk_env", "nonsense", []stack.Option{in("http://localhost")}, "sk_env", "localhost"},

		"another URL in code":          {"sk_env", "", []stack.Option{in("https://evil.example")}, "", ""},
		"looks like loopback":          {"sk_env", "", []stack.Option{in("https://localhost.evil.example")}, "", ""},
		"looks like the loopback IP":   {"sk_env", "", []stack.Option{in("https://127.0.0.1.evil.example")}, "", ""},
		"unspecified address":          {"sk_env", "", []stack.Option{in("http://0.0.0.0:80")}, "", ""},
		"looks like the default":       {"sk_env", "", []stack.Option{in("https://api.getstack.run.evil.example")}, "", ""},
		"default without TLS":          {"sk_env", "", []stack.Option{in("http://api.getstack.run")}, "", ""},
		"default on another port":      {"sk_env", "", []stack.Option{in("https://api.getstack.run:8443")}, "", ""},
		"another than the environment": {"sk_env", "https://a.example", []stack.Option{in("https://b.example")}, "", ""},
		"another prefix":               {"sk_env", "https://a.example/x", []stack.Option{in("https://a.example/y")}, "", ""},
		"env URL is broken":            {"sk_env", "nonsense", []stack.Option{in("https://b.example")}, "", ""},
		"no key at all":                {"", "", nil, "", ""},
		"no key for loopback":          {"", "", []stack.Option{in("http://localhost")}, "", ""},

		"explicit key anywhere":  {"sk_env", "", []stack.Option{in("https://b.example"), stack.WithAPIKey("sk_code")}, "sk_code", "b.example"},
		"explicit key, env URL":  {"sk_env", "https://a.example", []stack.Option{stack.WithAPIKey("sk_code")}, "sk_code", "a.example"},
		"explicit key wins":      {"sk_env", "", []stack.Option{stack.WithAPIKey("sk_code")}, "sk_code", "api.getstack.run"},
		"explicit key, bad env":  {"two words", "", []stack.Option{stack.WithAPIKey("sk_code")}, "sk_code", "api.getstack.run"},
		"the last option counts": {"", "", []stack.Option{stack.WithAPIKey("sk_a"), stack.WithAPIKey("sk_b")}, "sk_b", "api.getstack.run"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("STACK_API_KEY", tc.envKey)
			t.Setenv("STACK_BASE_URL", tc.envURL)
			s := &scripted{steps: []step{answer(200, "[]")}}
			c, err := stack.New(append(tc.opts, stack.WithHTTPClient(&http.Client{Transport: s}))...)
			if tc.want == "" {
				require.ErrorIs(t, err, stack.ErrNoCredentials)
				assert.NotContains(t, err.Error(), "sk_env")
				assert.Contains(t, err.Error(), "WithAPIKey", "it says what to do")
				return
			}
			require.NoError(t, err)
			_, err = c.Agents.List(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "Bearer "+tc.want, s.requests[0].Header.Get("Authorization"))
			assert.Equal(t, tc.host, s.requests[0].URL.Host)
		})
	}
}

func TestEnvironmentIsChecked(t *testing.T) {
	t.Setenv("STACK_API_KEY", "two words")
	_, err := stack.New()
	requireParam(t, err, "STACK_API_KEY")
	assert.NotContains(t, err.Error(), "two words")

	t.Setenv("STACK_API_KEY", "sk_env")
	t.Setenv("STACK_BASE_URL", "https://user:hunter2@x")
	_, err = stack.New()
	requireParam(t, err, "STACK_BASE_URL")
	assert.NotContains(t, err.Error(), "hunter2")
}
