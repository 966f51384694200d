package stack_test

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	bad := map[string]stack.Option{
		"WithAPIKey":       stack.WithAPIKey("sk live"),
		"WithBaseURL":      stack.WithBaseURL(""),
		"WithHTTPClient":   stack.WithHTTPClient(nil),
		"WithLogger":       stack.WithLogger(nil),
		"WithTimeout":      stack.WithTimeout(0),
		"WithMaxRetries":   stack.WithMaxRetries(-1),
		"WithUserAgent":    stack.WithUserAgent("a\nb"),
		"WithPollInterval": stack.WithPollInterval(time.Hour),
		"option":           nil,
	}
	for name, opt := range bad {
		_, err := stack.New(stack.WithAPIKey("k"), opt)
		requireParam(t, err, name)
	}
	_, err := stack.New(stack.WithAPIKey(""))
	requireParam(t, err, "WithAPIKey")
	for _, url := range []string{"ftp://x", "https://", "/v1", "https://user:pass@x", "https://x?q=1", "https://x#f", "://"} {
		_, err := stack.New(stack.WithAPIKey("k"), stack.WithBaseURL(url))
		requireParam(t, err, "WithBaseURL")
		assert.NotContains(t, err.Error(), "pass")
	}
}

// A key from the environment goes only where it belongs.
func TestAmbientKey(t *testing.T) {
	tests := map[string]struct {
		envKey, envURL string
		opts           []stack.Option
		want           string // the key that is sent, or empty for a refusal
	}{
		"default URL":                  {"sk_env", "", nil, "sk_env"},
		"URL from the environment":     {"sk_env", "https://other.example", nil, "sk_env"},
		"the same URL in code":         {"sk_env", "https://other.example", []stack.Option{stack.WithBaseURL("https://other.example")}, "sk_env"},
		"the default URL in code":      {"sk_env", "", []stack.Option{stack.WithBaseURL(stack.DefaultBaseURL)}, "sk_env"},
		"loopback":                     {"sk_env", "", []stack.Option{stack.WithBaseURL("http://127.0.0.1:4242")}, "sk_env"},
		"loopback by name":             {"sk_env", "", []stack.Option{stack.WithBaseURL("http://localhost:4242")}, "sk_env"},
		"IPv6 loopback":                {"sk_env", "", []stack.Option{stack.WithBaseURL("http://[::1]:4242")}, "sk_env"},
		"another URL in code":          {"sk_env", "", []stack.Option{stack.WithBaseURL("https://evil.example")}, ""},
		"looks like loopback":          {"sk_env", "", []stack.Option{stack.WithBaseURL("https://localhost.evil.example")}, ""},
		"another than the environment": {"sk_env", "https://a.example", []stack.Option{stack.WithBaseURL("https://b.example")}, ""},
		"explicit key anywhere":        {"sk_env", "", []stack.Option{stack.WithBaseURL("https://b.example"), stack.WithAPIKey("sk_code")}, "sk_code"},
		"explicit key wins":            {"sk_env", "", []stack.Option{stack.WithAPIKey("sk_code")}, "sk_code"},
		"no key at all":                {"", "", nil, ""},
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
				return
			}
			require.NoError(t, err)
			_, err = c.Agents.List(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "Bearer "+tc.want, s.requests[0].Header.Get("Authorization"))
		})
	}
}

func TestAmbientKeyIsChecked(t *testing.T) {
	t.Setenv("STACK_API_KEY", "two words")
	_, err := stack.New()
	requireParam(t, err, "STACK_API_KEY")
}

// Who imports the client alone compiles nothing of the rest.
func TestImportGraph(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").CombinedOutput()
	require.NoError(t, err, string(out))
	for _, foreign := range []string{"tmc/langchaingo", "go-chi/chi", "internal/mockserver", "jsonschema-go", "stack/stacktest", "stretchr/testify"} {
		assert.NotContains(t, string(out), foreign)
	}
	assert.Contains(t, strings.Fields(string(out)), "github.com/getstack-go/stack")
}
