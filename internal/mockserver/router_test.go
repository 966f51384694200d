package mockserver

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ask sends one request and returns its answer.
func ask(
	t testing.TB, s *Server, method, target, body string, change ...func(*http.Request),
) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+s.first.APIKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, c := range change {
		c(req)
	}
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, req)
	var answer map[string]any
	if strings.HasPrefix(strings.TrimSpace(rec.Body.String()), "{") {
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &answer))
	}
	assert.True(t, strings.HasPrefix(rec.Header().Get("X-Request-Id"), "req_"), "every answer has a request id")
	assert.Equal(t, "application/json", rec.Header().Get("Content-Type"))
	return rec, answer
}

func refusalOf(t testing.TB, answer map[string]any) (code string, details map[string]any) {
	t.Helper()
	e, ok := answer["error"].(map[string]any)
	require.True(t, ok, answer)
	assert.NotEmpty(t, e["message"])
	details, _ = e["details"].(map[string]any)
	code, _ = e["code"].(string)
	return code, details
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	tests := []struct {
		method, target string
		status         int
		code, nearest  string
	}{
		{"GET", "/v1/agent", 404, "ROUTE_NOT_FOUND", "GET /v1/agents"},
		{"POST", "/v1/passport/issue", 404, "ROUTE_NOT_FOUND", "POST /v1/passports/issue"},
		{"GET", "/v1/agents/agt_1/permission", 404, "ROUTE_NOT_FOUND", "GET /v1/agents/{agent_id}/permissions"},
		{"GET", "/v1/agents/", 404, "ROUTE_NOT_FOUND", "GET /v1/agents/{agent_id}"},
		{"POST", "/v1/agents/register/", 404, "ROUTE_NOT_FOUND", "POST /v1/agents/register"},
		{"GET", "//v1/agents", 404, "ROUTE_NOT_FOUND", ""},
		{"GET", "/v1/Agents", 404, "ROUTE_NOT_FOUND", "GET /v1/agents"},
		{"GET", "/v2/agents", 404, "ROUTE_NOT_FOUND", "GET /v1/agents"},
		{"GET", "/v1/agents/a/b", 404, "ROUTE_NOT_FOUND", ""},
		{"GET", "/v1/" + strings.Repeat("long/", 1000), 404, "ROUTE_NOT_FOUND", ""},
		{"FETCH", "/nothing", 404, "ROUTE_NOT_FOUND", ""},
		{"GET", "/", 404, "ROUTE_NOT_FOUND", ""},
		{"GET", "/_mock/state", 404, "ROUTE_NOT_FOUND", ""},
		{"GET", "/v1/agents/register/x/y/z", 404, "ROUTE_NOT_FOUND", ""},
		{"PUT", "/v1/agents/agt_1", 405, "METHOD_NOT_ALLOWED", ""},
		{"GET", "/v1/passports/issue", 405, "METHOD_NOT_ALLOWED", "POST /v1/passports/issue"},
		{"FETCH", "/v1/agents", 405, "METHOD_NOT_ALLOWED", "GET /v1/agents"},
		{"OPTIONS", "/v1/agents", 405, "METHOD_NOT_ALLOWED", "GET /v1/agents"},
		{"HEAD", "/v1/proxy", 405, "METHOD_NOT_ALLOWED", "POST /v1/proxy"},
	}
	for _, tc := range tests {
		rec, answer := ask(t, s, tc.method, tc.target, "")
		assert.Equal(t, tc.status, rec.Code, tc.target)
		code, details := refusalOf(t, answer)
		assert.Equal(t, tc.code, code)
		if tc.nearest != "" {
			assert.Equal(t, tc.nearest, details["nearest"])
		}
		assert.NotEmpty(t, details["nearest"])
		assert.Equal(t, tc.status == 405, rec.Header().Get("Allow") != "", tc.target)
		assert.Less(t, rec.Body.Len(), 1000, "what is told of a foreign path is bounded")
	}
	rec, answer := ask(t, s, "PUT", "/v1/agents/agt_1", "")
	assert.Equal(t, "DELETE, GET, PATCH", rec.Header().Get("Allow"))
	_, details := refusalOf(t, answer)
	assert.Equal(t, []any{"DELETE", "GET", "PATCH"}, details["allowed"])
}

func TestEscapedIDsReachTheHandler(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	for id, want := range map[string]string{"a%2Fb": "a/b", "a%20b": "a b", "%C3%A9": "é", "a%252Fb": "a%2Fb", "a+b": "a+b",
		"%2e%2e": "..", "a%3Fb%23c": "a?b#c", "a;b": "a;b"} {
		rec, answer := ask(t, s, "GET", "/v1/agents/"+id, "")
		assert.Equal(t, http.StatusNotFound, rec.Code)
		_, details := refusalOf(t, answer)
		assert.Equal(t, want, details["sent"])
	}
}

func TestPanicsAndFailuresOfOursStayInside(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	mux := http.NewServeMux()
	routes := map[string]route{
		"panic": endpoint("GET", "/panic", func(*Server, context.Context, *caller, none) (*none, error) {
			panic("inner text")
		}, public),
		"error": endpoint("GET", "/error", func(*Server, context.Context, *caller, none) (*none, error) {
			return nil, context.DeadlineExceeded
		}, public),
		"json": endpoint("GET", "/json", func(*Server, context.Context, *caller, none) (*chan int, error) {
			c := make(chan int)
			return &c, nil
		}, public),
	}
	for name, r := range routes {
		mux.HandleFunc("/"+name, func(w http.ResponseWriter, req *http.Request) { s.serve(w, req, &r) })
	}
	s.handler = mux
	for name := range routes {
		rec, answer := ask(t, s, "GET", "/"+name, "")
		assert.Equal(t, http.StatusInternalServerError, rec.Code)
		code, _ := refusalOf(t, answer)
		assert.Equal(t, "INTERNAL", code)
		assert.NotContains(t, rec.Body.String(), "inner text")
		assert.NotContains(t, rec.Body.String(), "deadline")
		assert.Contains(t, rec.Body.String(), rec.Header().Get("X-Request-Id"))
	}
}

// Every route's input can be bound: a tag that bind does not know would panic at the first request.
func TestRouteTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range routes() {
		key := r.method + " " + r.pattern
		assert.False(t, seen[key], "%s is there twice", key)
		seen[key] = true
		for i := range r.in.NumField() {
			tag := r.in.Field(i).Tag
			known := 0
			for _, name := range []string{"path", "query", "header", "body", "raw", "headers", "rawquery"} {
				if _, ok := tag.Lookup(name); ok {
					known++
				}
			}
			assert.Equal(t, 1, known, "%s: field %s says where it comes from", key, r.in.Field(i).Name)
		}
		for _, segment := range strings.Split(r.pattern, "/") {
			if isPlaceholder(segment) {
				found := false
				for i := range r.in.NumField() {
					found = found || "{"+r.in.Field(i).Tag.Get("path")+"}" == segment
				}
				assert.True(t, found, "%s: %s is bound", key, segment)
			}
		}
	}
}
