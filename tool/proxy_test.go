package tool_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/tool"
)

var _ tool.Proxier = (*stack.Mission)(nil)

// proxyFunc is a Proxier for tests.
type proxyFunc func(ctx context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error)

func (f proxyFunc) Proxy(ctx context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
	return f(ctx, r)
}

// answering is a Proxier that gives a fixed answer.
func answering(status int, body string) proxyFunc {
	return func(context.Context, stack.ProxyRequest) (*stack.ProxyResponse, error) {
		return &stack.ProxyResponse{Status: status, Body: json.RawMessage(body)}, nil
	}
}

type issueIn struct {
	Owner  string   `json:"owner"`
	Repo   string   `json:"repo"`
	Number int64    `json:"number"`
	State  string   `json:"state,omitempty"`
	Draft  bool     `json:"draft,omitempty"`
	ETag   string   `json:"etag,omitempty"`
	Title  string   `json:"title,omitempty"`
	Labels []string `json:"labels,omitempty"`
}

var issueEndpoint = tool.Endpoint{
	Service: "github", Method: "PATCH",
	URL: "https://api.github.com/repos/{owner}/{repo}/issues/{number}" +
		"?per_page=5&state={state}&q=repo:{owner}/{repo}&draft={draft}",
	Headers: map[string]string{"Accept": "application/vnd.github+json", "If-None-Match": "{etag}"},
}

func TestProxyToolRequest(t *testing.T) {
	t.Parallel()
	fixed := map[string]string{"per_page": "5", "q": "repo:o/r"}
	with := func(more map[string]string) map[string]string {
		all := maps.Clone(fixed)
		maps.Copy(all, more)
		return all
	}
	accept := map[string]string{"Accept": "application/vnd.github+json"}
	tests := map[string]struct {
		input   string
		url     string
		query   map[string]string
		headers map[string]string
		body    string
	}{
		"required arguments only": {
			input: `{"owner":"o","repo":"r","number":7}`,
			url:   "https://api.github.com/repos/o/r/issues/7", query: fixed, headers: accept, body: "null",
		},
		"all arguments": {
			input: `{"owner":"o","repo":"r","number":9007199254740993,"state":"open & shut","draft":false,"etag":"\"x\"",` +
				`"title":"<T>","labels":["a","b"]}`,
			url:     "https://api.github.com/repos/o/r/issues/9007199254740993",
			query:   with(map[string]string{"state": "open & shut", "draft": "false"}),
			headers: map[string]string{"Accept": "application/vnd.github+json", "If-None-Match": `"x"`},
			body:    `{"title":"<T>","labels":["a","b"]}`,
		},
		"nulls and empty values": {
			input: `{"owner":"o","repo":"r","number":0,"state":null,"etag":null,"title":"","labels":[]}`,
			url:   "https://api.github.com/repos/o/r/issues/0", query: fixed, headers: accept, body: `{"title":"","labels":[]}`,
		},
		"escaped path": {
			input: `{"owner":"a/b?c#d","repo":"%2e%2e ü..","number":1}`,
			url:   "https://api.github.com/repos/a%2Fb%3Fc%23d/%252e%252e%20%C3%BC../issues/1",
			query: map[string]string{"per_page": "5", "q": "repo:a/b?c#d/%2e%2e ü.."}, headers: accept, body: "null",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got stack.ProxyRequest
			made, err := tool.ProxyTool[issueIn]("issue", "Change an issue.", proxyFunc(
				func(_ context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
					got = r
					return &stack.ProxyResponse{Status: 200, Body: json.RawMessage(`{"id":1,"html":"<b>"}`)}, nil
				}), issueEndpoint)
			require.NoError(t, err)

			out, err := made.Call(t.Context(), tt.input)
			require.NoError(t, err)
			assert.Equal(t, `{"status":200,"body":{"id":1,"html":"<b>"}}`, out)
			assert.Equal(t, "github", got.Service)
			assert.Equal(t, "PATCH", got.Method)
			assert.Equal(t, tt.url, got.URL)
			assert.Equal(t, tt.query, got.Query)
			assert.Equal(t, tt.headers, got.Headers)
			body, err := json.Marshal(got.Body)
			require.NoError(t, err)
			assert.JSONEq(t, tt.body, string(body))
		})
	}
}

func TestProxyToolRefusesArguments(t *testing.T) {
	t.Parallel()
	type in struct {
		Path   string `json:"path"`
		Suffix string `json:"suffix"`
		Tag    string `json:"tag,omitempty"`
	}
	called := false
	made, err := tool.ProxyTool[in]("t", "d", proxyFunc(
		func(context.Context, stack.ProxyRequest) (*stack.ProxyResponse, error) {
			called = true
			return nil, nil
		}),
		tool.Endpoint{
			Service: "s", Method: "GET", URL: "https://h/a/{path}/.{suffix}", Headers: map[string]string{"X-Tag": "v1 {tag}"},
		})
	require.NoError(t, err)
	t.Cleanup(func() { assert.False(t, called, "a request was sent with refused arguments") })

	tests := map[string]struct{ input, want string }{
		"empty":                        {`{"path":"","suffix":"x"}`, `path: "" cannot be part of a path`},
		"dot":                          {`{"path":".","suffix":"x"}`, `path: "." cannot be part of a path`},
		"two dots":                     {`{"path":"..","suffix":"x"}`, `path: ".." cannot be part of a path`},
		"dots inside":                  {`{"path":"a/../b","suffix":"x"}`, `path: "a/../b" cannot be part of a path`},
		"backslash":                    {`{"path":"a\\..","suffix":"x"}`, `path: "a\\.." cannot be part of a path`},
		"dots with what stands beside": {`{"path":"a","suffix":"."}`, `suffix: "." cannot be part of a path`},
		"header of two lines": {
			`{"path":"a","suffix":"x","tag":"a\r\nX-Evil: b"}`, `tag: a header value must not hold control characters`,
		},
		"missing": {`{"suffix":"x"}`, `missing properties: ["path"]`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := made.Call(t.Context(), tt.input)
			require.NoError(t, err)
			code, message := observed(t, out)
			assert.Equal(t, "INVALID_ARGUMENTS", code)
			assert.Contains(t, message, tt.want)
		})
	}
}

func TestProxyToolMapArguments(t *testing.T) {
	t.Parallel()
	var got stack.ProxyRequest
	p := proxyFunc(func(_ context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
		got = r
		return &stack.ProxyResponse{Status: 204}, nil
	})
	post, err := tool.ProxyTool[map[string]any]("t", "d", p, tool.Endpoint{Service: "s", Method: "POST", URL: "https://h/"})
	require.NoError(t, err)
	out, err := post.Call(t.Context(), `{"a":1}`)
	require.NoError(t, err)
	assert.Equal(t, `{"status":204}`, out)
	assert.Equal(t, map[string]any{"a": json.Number("1")}, got.Body)

	read, err := tool.ProxyTool[map[string]any]("t", "d", p, tool.Endpoint{Service: "s", Method: "GET", URL: "https://h/"})
	require.NoError(t, err)
	out, err = read.Call(t.Context(), `{"a":1}`)
	require.NoError(t, err)
	_, message := observed(t, out)
	assert.Equal(t, `there is no place for ["a"]`, message)
}

func TestProxyToolServerPlaceholders(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"{{instance_url}}/sobjects/{id}":                  "{{instance_url}}/sobjects/%7B%7Baccount_id%7D%7D",
		"https://{{account_id}}.example.com/{id}?q={{x}}": "https://{{account_id}}.example.com/%7B%7Baccount_id%7D%7D",
	} {
		var got stack.ProxyRequest
		made, err := tool.ProxyTool[struct {
			ID string `json:"id"`
		}]("t", "d", proxyFunc(func(_ context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
			got = r
			return &stack.ProxyResponse{Status: 200}, nil
		}), tool.Endpoint{Service: "salesforce", Method: "GET", URL: template})
		require.NoError(t, err)
		_, err = made.Call(t.Context(), `{"id":"{{account_id}}"}`)
		require.NoError(t, err)
		assert.Equal(t, want, got.URL)
	}
}

func TestProxyToolAnswers(t *testing.T) {
	t.Parallel()
	page := `"` + strings.Repeat("x", 5000) + `"`
	tests := map[string]struct {
		status     int
		body, want string
	}{
		"JSON":        {200, `{"ok":true}`, `{"status":200,"body":{"ok":true}}`},
		"text":        {200, `"<p>hi</p>"`, `{"status":200,"body":"<p>hi</p>"}`},
		"null":        {200, `null`, `{"status":200}`},
		"no body":     {204, ``, `{"status":204}`},
		"not found":   {404, `{"message":"Not Found"}`, `{"status":404,"body":{"message":"Not Found"}}`},
		"long error":  {500, page, `{"status":500,"body":"` + strings.Repeat("x", 2026) + "\n[cut: the first 2048 of 5024 bytes]"},
		"long answer": {200, page, `{"status":200,"body":` + page + `}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, err := tool.ProxyTool[struct{}]("t", "d", answering(tt.status, tt.body),
				tool.Endpoint{Service: "s", Method: "GET", URL: "https://h/"})
			require.NoError(t, err)
			out, err := made.Call(t.Context(), "")
			require.NoError(t, err)
			assert.Equal(t, tt.want, out)
		})
	}
}

func TestProxyToolFailure(t *testing.T) {
	t.Parallel()
	made, err := tool.ProxyTool[struct{}]("t", "d", proxyFunc(
		func(context.Context, stack.ProxyRequest) (*stack.ProxyResponse, error) {
			return nil, &stack.Error{Status: 401, Code: "PASSPORT_REVOKED"}
		}), tool.Endpoint{Service: "s", Method: "GET", URL: "https://h/"})
	require.NoError(t, err)
	_, err = made.Call(t.Context(), "")
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
}

func TestProxyToolFromContext(t *testing.T) {
	t.Parallel()
	made, err := tool.ProxyTool[struct{}]("t", "d", tool.FromContext(),
		tool.Endpoint{Service: "s", Method: "GET", URL: "https://h/"})
	require.NoError(t, err)

	_, err = made.Call(t.Context(), "")
	require.EqualError(t, err,
		"tool t: the tool is defective: its context carries no Mission; start the run with tool.NewContext")

	for _, body := range []string{"1", "2"} {
		out, err := made.Call(tool.NewContext(t.Context(), answering(200, body)), "")
		require.NoError(t, err)
		assert.Equal(t, `{"status":200,"body":`+body+`}`, out)
	}
}

func TestProxyToolRefuses(t *testing.T) {
	t.Parallel()
	type in struct {
		ID       string   `json:"id"`
		Optional string   `json:"optional,omitempty"`
		List     []string `json:"list,omitempty"`
	}
	endpoint := func(method, url string) tool.Endpoint { return tool.Endpoint{Service: "s", Method: method, URL: url} }
	tests := map[string]struct {
		endpoint tool.Endpoint
		want     string
	}{
		"no service":            {tool.Endpoint{Method: "POST", URL: "https://h/"}, "the endpoint has no service"},
		"method":                {endpoint("HEAD", "https://h/"), `method "HEAD" must be GET, POST, PUT, PATCH or DELETE`},
		"method in lower":       {endpoint("post", "https://h/"), `method "post" must be`},
		"relative":              {endpoint("POST", "/a"), "it must be absolute, http or https"},
		"scheme":                {endpoint("POST", "ftp://h/a"), "it must be absolute, http or https"},
		"argument in host":      {endpoint("POST", "https://{id}/a"), "invalid character"},
		"argument in port":      {endpoint("POST", "https://h:{id}/a"), "invalid port"},
		"user":                  {endpoint("POST", "https://u:p@h/a"), "neither user nor fragment"},
		"fragment":              {endpoint("POST", "https://h/a#b"), "neither user nor fragment"},
		"bad escape":            {endpoint("POST", "https://h/%zz"), "invalid URL escape"},
		"unknown of the server": {endpoint("POST", "{{other}}/a"), "it must be absolute"},
		"unknown in path": {
			endpoint("POST", "https://h/{{other}}"), "the server fills in {{instance_url}} and {{account_id}} only",
		},
		"half a brace":     {endpoint("POST", "https://h/{id"), "a brace lacks its other half"},
		"unknown argument": {endpoint("POST", "https://h/{no}"), `there is no argument "no"`},
		"optional in path": {
			endpoint("POST", "https://h/{optional}"), `argument "optional" is part of the path, so it must be required`,
		},
		"list in path":       {endpoint("POST", "https://h/{list}"), `argument "list" must be a string, a number or a boolean`},
		"list in query":      {endpoint("POST", "https://h/?l={list}"), `argument "list" must be a string, a number or a boolean`},
		"unknown in query":   {endpoint("POST", "https://h/?l={no}"), `there is no argument "no"`},
		"bad query":          {endpoint("POST", "https://h/?a=%zz"), "invalid URL escape"},
		"repeated parameter": {endpoint("POST", "https://h/?a=1&a=2"), `query parameter "a" occurs more than once`},
		"unplaced in GET":    {endpoint("GET", "https://h/{id}?o={optional}"), `argument "list" has no place in a GET`},
		"unknown in header": {
			tool.Endpoint{Service: "s", Method: "POST", URL: "https://h/", Headers: map[string]string{"X-A": "{no}"}},
			`header X-A: there is no argument "no"`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tool.ProxyTool[in]("t", "d", answering(200, ""), tt.endpoint)
			require.Error(t, err)
			assert.Contains(t, err.Error(), "tool t: ")
			assert.Contains(t, err.Error(), tt.want)
		})
	}

	_, err := tool.ProxyTool[struct{}]("t", "d", nil, endpoint("GET", "https://h/"))
	require.EqualError(t, err, "tool t: the proxier is nil")
	_, err = tool.ProxyTool[struct{}]("t", "", answering(200, ""), endpoint("GET", "https://h/"))
	require.ErrorContains(t, err, "the description is empty")
}

func TestProxyToolArgumentsOfGoTypes(t *testing.T) {
	t.Parallel()
	made, err := tool.ProxyTool[struct {
		ID int8 `json:"id"`
	}]("t", "d", proxyFunc(func(_ context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
		return nil, errors.New(r.URL)
	}), tool.Endpoint{Service: "s", Method: "GET", URL: "https://h/{id}"},
		tool.WithSchema(func(s *jsonschema.Schema) { s.Properties["id"].Maximum = nil }))
	require.NoError(t, err)
	for input, want := range map[string]string{
		`{"id":5}`:   "https://h/5",
		`{"id":5.0}`: "id: number 5.0 does not fit into int8; the arguments are id (integer, required)",
		`{"id":500}`: "id: number 500 does not fit into int8; the arguments are id (integer, required)",
	} {
		out, err := made.Call(t.Context(), input)
		require.NoError(t, err)
		_, message := observed(t, out)
		assert.Equal(t, want, message)
	}
}
