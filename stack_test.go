package stack_test

import (
	"net/http"
	"net/http/cookiejar"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		opt   stack.Option
		param string
		says  string
	}{
		"no key":               {stack.WithAPIKey(""), "WithAPIKey", "STACK_API_KEY"},
		"key with a space":     {stack.WithAPIKey("sk live"), "WithAPIKey", "space"},
		"key with a line":      {stack.WithAPIKey("sk\n"), "WithAPIKey", "space"},
		"key beyond ASCII":     {stack.WithAPIKey("sk_é"), "WithAPIKey", "ASCII"},
		"no base URL":          {stack.WithBaseURL(""), "WithBaseURL", stack.DefaultBaseURL},
		"no HTTP client":       {stack.WithHTTPClient(nil), "WithHTTPClient", "nil"},
		"no logger":            {stack.WithLogger(nil), "WithLogger", "nil"},
		"no timeout":           {stack.WithTimeout(0), "WithTimeout", "0s"},
		"timeout below zero":   {stack.WithTimeout(-time.Second), "WithTimeout", "-1s"},
		"retries below zero":   {stack.WithMaxRetries(-1), "WithMaxRetries", "-1"},
		"too many retries":     {stack.WithMaxRetries(21), "WithMaxRetries", "0 to 20"},
		"no product":           {stack.WithUserAgent(""), "WithUserAgent", "triage/1.2"},
		"product with a line":  {stack.WithUserAgent("a\nb"), "WithUserAgent", "ASCII"},
		"product beyond ASCII": {stack.WithUserAgent("é"), "WithUserAgent", "ASCII"},
		"poll too often":       {stack.WithPollInterval(time.Millisecond), "WithPollInterval", "1s to 1m0s"},
		"poll too seldom":      {stack.WithPollInterval(time.Hour), "WithPollInterval", "1h0m0s"},
		"nil":                  {nil, "option", "nil"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := stack.New(stack.WithAPIKey("k"), tc.opt)
			requireParam(t, err, tc.param)
			assert.ErrorContains(t, err, tc.says)
			assert.Nil(t, c)
		})
	}
}

func TestBaseURLs(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"https://api.example":              "https://api.example",
		"https://api.example/":             "https://api.example",
		"https://api.example///":           "https://api.example",
		"HTTP://API.example:8080":          "http://api.example:8080",
		"https://api.example/prefix":       "https://api.example/prefix",
		"https://api.example/pre/fix//":    "https://api.example/pre/fix",
		"https://api.example/a%2Fb/c%20d/": "https://api.example/a%2Fb/c%20d",
		"http://[2001:db8::1]:80":          "http://[2001:db8::1]:80",
	} {
		s := &scripted{steps: []step{answer(200, agentJSON)}}
		c := script(t, s, stack.WithBaseURL(given))
		assert.Equal(t, want, c.BaseURL())
		_, err := c.Agents.Get(t.Context(), "a/b")
		require.NoError(t, err)
		require.NoError(t, c.Do(t.Context(), "GET", "/v1/agents/a%2Fb", nil, nil))
		for _, r := range s.requests {
			assert.Equal(t, want+"/v1/agents/a%2Fb", r.URL.String(), given)
		}
	}
	for _, bad := range []string{"ftp://x", "https://", "https:///v1", "https://:443", "http:x", "/v1", "x", "://",
		"https://x:port", "https://x y", "https://x/%zz", "https://x\x00", "https://hunter2@x", "https://u:hunter2@x", "https://u:hunter2/x@x",
		"https://u:hunter2%zz@x",
		"https://x?key=hunter2", "https://x?", "https://x/#hunter2", "https://x#"} {
		_, err := stack.New(stack.WithAPIKey("k"), stack.WithBaseURL(bad))
		requireParam(t, err, "WithBaseURL")
		assert.NotContains(t, err.Error(), "hunter2")
		assert.NotContains(t, err.Error(), "\x00")
	}
}

func TestUserAgent(t *testing.T) {
	t.Parallel()
	s := &scripted{steps: []step{answer(200, "[]")}}
	_, err := script(t, s).Agents.List(t.Context())
	require.NoError(t, err)
	_, err = script(t, s, stack.WithUserAgent("triage/1.2 (support)")).Agents.List(t.Context())
	require.NoError(t, err)
	ours := regexp.QuoteMeta("getstack-go/"+stack.Version+" ("+runtime.Version()+"; "+runtime.GOOS+"/"+runtime.GOARCH) + `\)`
	assert.Regexp(t, "^"+ours+"$", s.requests[0].Header.Get("User-Agent"))
	assert.Regexp(t, "^"+ours+` triage/1\.2 \(support\)$`, s.requests[1].Header.Get("User-Agent"))
}

// The program's own HTTP client is copied: its transport and cookies are used, the rest of it stays as it is.
func TestSharedHTTPClientStaysAsItIs(t *testing.T) {
	t.Parallel()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	s := &scripted{steps: []step{answer(200, "[]", "Set-Cookie", "session=1; Path=/")}}
	shared := &http.Client{Transport: s, Jar: jar}
	c := script(t, s, stack.WithHTTPClient(shared))
	for range 2 {
		_, err = c.Agents.List(t.Context())
		require.NoError(t, err)
	}
	assert.Equal(t, "session=1", s.requests[1].Header.Get("Cookie"))
	assert.Zero(t, shared.Timeout)
	assert.Nil(t, shared.CheckRedirect)
}

// A program may have wrapped the default transport, as tracing does: then the client uses it as it is.
//
//nolint:paralleltest // it replaces a variable of net/http
func TestReplacedDefaultTransport(t *testing.T) {
	original := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = original })
	s := &scripted{steps: []step{answer(200, "[]")}}
	http.DefaultTransport = s
	c, err := stack.New(stack.WithAPIKey("k"))
	require.NoError(t, err)
	_, err = c.Agents.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, s.requests, 1)
}

// Who imports the client alone compiles nothing of the rest.
func TestImportGraph(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").CombinedOutput()
	require.NoError(t, err, string(out))
	for _, foreign := range []string{"tmc/langchaingo", "go-chi/chi", "internal/mockserver", "jsonschema-go", "stack/stacktest",
		"stretchr/testify", "go-jose"} {
		assert.NotContains(t, string(out), foreign)
	}
	assert.Contains(t, strings.Fields(string(out)), "github.com/getstack-go/stack")
}
