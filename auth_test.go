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
	const a, b, code = "https://a.example", "https://b.example", "sk_code"
	in := func(url string, keys ...string) (opts []stack.Option) {
		if url != "" {
			opts = append(opts, stack.WithBaseURL(url))
		}
		for _, key := range keys {
			opts = append(opts, stack.WithAPIKey(key))
		}
		return opts
	}
	tests := map[string]struct {
		key, url string // in the environment
		opts     []stack.Option
		want     string // the key that is sent, or empty for a refusal
		host     string // where it is sent
	}{
		"default URL":                         {"sk_env", "", nil, "sk_env", "api.getstack.run"},
		"URL from the environment":            {"sk_env", a, nil, "sk_env", "a.example"},
		"the same URL in code":                {"sk_env", a, in(a), "sk_env", "a.example"},
		"the same but for slash and case":     {"sk_env", "https://A.example//", in("HTTPS://a.Example/"), "sk_env", "a.example"},
		"the default URL in code":             {"sk_env", "", in(stack.DefaultBaseURL + "/"), "sk_env", "api.getstack.run"},
		"the default in code, another in env": {"sk_env", a, in(stack.DefaultBaseURL), "sk_env", "api.getstack.run"},
		"loopback":                            {"sk_env", "", in("http://127.0.0.1:4242"), "sk_env", "127.0.0.1:4242"},
		"loopback network":                    {"sk_env", "", in("http://127.9.9.9"), "sk_env", "127.9.9.9"},
		"loopback by name":                    {"sk_env", "", in("http://localhost:4242/prefix"), "sk_env", "localhost:4242"},
		"IPv6 loopback":                       {"sk_env", "", in("http://[::1]:4242"), "sk_env", "[::1]:4242"},
		"env URL is broken, code decides":     {"sk_env", "nonsense", in("http://localhost"), "sk_env", "localhost"},

		"another URL in code":          {"sk_env", "", in(b), "", ""},
		"looks like loopback":          {"sk_env", "", in("https://localhost.evil.example"), "", ""},
		"looks like the loopback IP":   {"sk_env", "", in("https://127.0.0.1.evil.example"), "", ""},
		"unspecified address":          {"sk_env", "", in("http://0.0.0.0:80"), "", ""},
		"looks like the default":       {"sk_env", "", in("https://api.getstack.run.evil.example"), "", ""},
		"default without TLS":          {"sk_env", "", in("http://api.getstack.run"), "", ""},
		"default on another port":      {"sk_env", "", in("https://api.getstack.run:8443"), "", ""},
		"another than the environment": {"sk_env", a, in(b), "", ""},
		"another prefix":               {"sk_env", a + "/x", in(a + "/y"), "", ""},
		"env URL is broken":            {"sk_env", "nonsense", in(b), "", ""},
		"no key at all":                {"", "", nil, "", ""},
		"no key for loopback":          {"", "", in("http://localhost"), "", ""},

		"explicit key anywhere":  {"sk_env", "", in(b, code), code, "b.example"},
		"explicit key, env URL":  {"sk_env", a, in("", code), code, "a.example"},
		"explicit key wins":      {"sk_env", "", in("", code), code, "api.getstack.run"},
		"explicit key, bad env":  {"two words", "", in("", code), code, "api.getstack.run"},
		"the last option counts": {"", "", in("", "sk_first", code), code, "api.getstack.run"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			t.Setenv("STACK_API_KEY", tc.key)
			t.Setenv("STACK_BASE_URL", tc.url)
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
