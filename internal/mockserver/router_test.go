package mockserver

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// ask sends one request and returns its answer.
func ask(t testing.TB, s *Server, method, target, body string, change ...func(*http.Request)) (*httptest.ResponseRecorder, map[string]any) {
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

func TestStrictInput(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method, target, body, field string
	}{
		"unknown field":          {"POST", "/v1/agents/register", `{"name":"a-1","nmae":"x"}`, "body.nmae"},
		"wrong case":             {"POST", "/v1/agents/register", `{"Name":"a-1"}`, "body.Name"},
		"nested unknown field":   {"POST", "/v1/missions/start", `{"agent_id":"a","mission":{"intent_summary":"x","extra":1}}`, "body.mission.extra"},
		"missing":                {"POST", "/v1/agents/register", `{}`, "body.name"},
		"no body":                {"POST", "/v1/agents/register", ``, "body.name"},
		"null":                   {"POST", "/v1/agents/register", `{"name":null}`, "body.name"},
		"wrong type":             {"POST", "/v1/agents/register", `{"name":7}`, "body.name"},
		"wrong type inside":      {"POST", "/v1/missions", `{"intent_summary":"x","intent_services":["a",7]}`, "body.intent_services[1]"},
		"a fraction":             {"POST", "/v1/missions", `{"intent_summary":"x","max_actions":1.5}`, "body.max_actions"},
		"a duration as a string": {"POST", "/v1/missions", `{"intent_summary":"x","expires_in_seconds":"900"}`, "body.expires_in_seconds"},
		"given twice":            {"POST", "/v1/agents/register", `{"name":"a-1","name":"a-2"}`, "body.name"},
		"twice in a free object": {"POST", "/v1/missions", `{"intent_summary":"x","limits":{"a":1,"a":2}}`, "body.limits.a"},
		"trailing data":          {"POST", "/v1/agents/register", `{"name":"a-1"} {}`, "body"},
		"not JSON":               {"POST", "/v1/agents/register", `{name}`, "body"},
		"cut short":              {"POST", "/v1/agents/register", `{"name":"a-`, "body"},
		"an array":               {"POST", "/v1/agents/register", `[]`, "body"},
		"a bomb":                 {"POST", "/v1/missions", `{"intent_summary":"x","limits":{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`, ""},
		"unknown parameter":      {"GET", "/v1/missions?stauts=live", ``, "query.stauts"},
		"repeated parameter":     {"GET", "/v1/missions?page=1&page=2", ``, "query.page"},
		"no number":              {"GET", "/v1/missions?page=one", ``, "query.page"},
		"body where none is":     {"DELETE", "/v1/agents/agt_x", `{"a":1}`, "body"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec, answer := ask(t, New(Options{}), tc.method, tc.target, tc.body)
			assert.Equal(t, http.StatusBadRequest, rec.Code, answer)
			code, details := refusalOf(t, answer)
			assert.Equal(t, "INVALID_REQUEST", code)
			assert.Equal(t, "validation", details["check"])
			if tc.field != "" {
				assert.Equal(t, tc.field, details["field"])
			}
		})
	}
}

func TestLenientWhereTheSDKsAre(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	rec, _ := ask(t, s, "POST", "/v1/passports/revoke-all", `{"reason":null}`)
	assert.Equal(t, http.StatusOK, rec.Code, "the Python SDK sends a null reason")
	rec, _ = ask(t, s, "POST", "/v1/passports/revoke-all", "", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
	assert.Equal(t, http.StatusOK, rec.Code, "and an empty body as JSON")
	rec, _ = ask(t, s, "GET", "/v1/agents", "", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
	assert.Equal(t, http.StatusOK, rec.Code)
	rec, _ = ask(t, s, "DELETE", "/v1/agents/agt_x", "{}")
	assert.Equal(t, http.StatusNotFound, rec.Code, "{} is as good as no body")
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	rec, answer := ask(t, s, "POST", "/v1/agents/register", `{"name":"`+strings.Repeat("x", 1<<20)+`"}`)
	assert.Equal(t, http.StatusRequestEntityTooLarge, rec.Code)
	code, details := refusalOf(t, answer)
	assert.Equal(t, "PAYLOAD_TOO_LARGE", code)
	assert.EqualValues(t, 1<<20, details["allowed"])
	rec, answer = ask(t, s, "POST", "/v1/agents/register", `name=a`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
	assert.Equal(t, http.StatusUnsupportedMediaType, rec.Code)
	code, _ = refusalOf(t, answer)
	assert.Equal(t, "UNSUPPORTED_MEDIA_TYPE", code)
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
		{"GET", "/", 404, "ROUTE_NOT_FOUND", ""},
		{"GET", "/_mock/state", 404, "ROUTE_NOT_FOUND", ""},
		{"GET", "/v1/agents/register/x/y/z", 404, "ROUTE_NOT_FOUND", ""},
		{"PUT", "/v1/agents/agt_1", 405, "METHOD_NOT_ALLOWED", ""},
		{"GET", "/v1/passports/issue", 405, "METHOD_NOT_ALLOWED", ""},
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
	}
	rec, answer := ask(t, s, "PUT", "/v1/agents/agt_1", "")
	assert.Equal(t, "DELETE, GET, PATCH", rec.Header().Get("Allow"))
	_, details := refusalOf(t, answer)
	assert.Equal(t, []any{"DELETE", "GET", "PATCH"}, details["allowed"])
}

func TestEscapedIDsReachTheHandler(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	for target, want := range map[string]string{"/v1/agents/a%2Fb": "a/b", "/v1/agents/a%20b": "a b", "/v1/agents/%C3%A9": "é", "/v1/agents/a%252Fb": "a%2Fb"} {
		rec, answer := ask(t, s, "GET", target, "")
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
		"panic": endpoint("GET", "/panic", func(*Server, context.Context, *caller, none) (*none, error) { panic("inner text") }, public),
		"error": endpoint("GET", "/error", func(*Server, context.Context, *caller, none) (*none, error) { return nil, context.DeadlineExceeded }, public),
		"json":  endpoint("GET", "/json", func(*Server, context.Context, *caller, none) (*chan int, error) { c := make(chan int); return &c, nil }, public),
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

func TestAuthentication(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	for header, code := range map[string]string{"": "UNAUTHORIZED", "Basic abc": "UNAUTHORIZED", "Bearer ": "UNAUTHORIZED", "Bearer eyJx": "UNAUTHORIZED",
		"Bearer sk_live_": "INVALID_API_KEY", "Bearer sk_live_nobody": "INVALID_API_KEY", "bearer " + s.first.APIKey + "x": "INVALID_API_KEY"} {
		rec, answer := ask(t, s, "GET", "/v1/agents", "", func(r *http.Request) { r.Header.Set("Authorization", header) })
		assert.Equal(t, http.StatusUnauthorized, rec.Code, header)
		got, details := refusalOf(t, answer)
		assert.Equal(t, code, got, header)
		assert.Equal(t, "authentication", details["check"])
		assert.NotContains(t, rec.Body.String(), s.first.APIKey)
	}
	rec, _ := ask(t, s, "GET", "/v1/agents", "", func(r *http.Request) { r.Header.Set("Authorization", "bearer "+s.first.APIKey) })
	assert.Equal(t, http.StatusOK, rec.Code, "the scheme's case does not matter")
	rec, _ = ask(t, s, "GET", "/v1/.well-known/jwks.json", "", func(r *http.Request) { r.Header.Del("Authorization") })
	assert.Equal(t, http.StatusOK, rec.Code, "the keys are public")
}

func TestAuthFailureBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		wrong := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+s.first.APIKey[:20]+"guess") }
		for range 19 {
			ask(t, s, "GET", "/v1/agents", "", wrong)
		}
		assert.Empty(t, s.SecurityEvents())
		ask(t, s, "GET", "/v1/agents", "", wrong)
		require.Len(t, s.SecurityEvents(), 1)
		assert.Equal(t, "auth_failure_burst", s.SecurityEvents()[0].SignalType)
	})
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		limit := 3
		_, err := s.ChangePolicy(PolicyChange{RateLimitPerMinute: &limit})
		require.NoError(t, err)
		for range 3 {
			rec, _ := ask(t, s, "GET", "/v1/agents", "")
			assert.Equal(t, http.StatusOK, rec.Code)
		}
		time.Sleep(20 * time.Second)
		rec, answer := ask(t, s, "GET", "/v1/agents", "")
		assert.Equal(t, http.StatusTooManyRequests, rec.Code)
		code, _ := refusalOf(t, answer)
		assert.Equal(t, "RATE_LIMITED", code)
		assert.Equal(t, "40", rec.Header().Get("Retry-After"))
		time.Sleep(40 * time.Second)
		rec, _ = ask(t, s, "GET", "/v1/agents", "")
		assert.Equal(t, http.StatusOK, rec.Code)
	})
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
			for _, name := range []string{"path", "query", "header", "body"} {
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

// Whatever the strict decoder takes, encoding/json takes, too, and the other way round only for what it may refuse.
func FuzzDecodeStrict(f *testing.F) {
	f.Add(`{"agent_id":"a","mission_ids":["m"],"ttl_seconds":60,"intent":{"summary":"s","services":["x"]}}`)
	f.Add(`{"agent_id":"a","scopes":[{"service_connection_id":"c","scopes":["s"],"constraints":[{"path":"method","op":"eq","value":{"a":[1]}}],"allow_data_from":[]}]}`)
	f.Add(`{"a":1}{`)
	f.Add(`null`)
	types := []reflect.Type{reflect.TypeFor[stack.PassportIssueParams](), reflect.TypeFor[stack.MissionStartParams](), reflect.TypeFor[proxyBody](),
		reflect.TypeFor[stack.CheckpointParams]()}
	f.Fuzz(func(t *testing.T, body string) {
		for _, typ := range types {
			strict := reflect.New(typ)
			if err := decodeStrict([]byte(body), strict.Interface()); err != nil {
				var refusal *apiError
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, http.StatusBadRequest, refusal.status)
				continue
			}
			if strings.TrimSpace(body) == "" {
				continue
			}
			lenient := reflect.New(typ)
			require.NoError(t, json.Unmarshal([]byte(body), lenient.Interface()))
			require.Equal(t, lenient.Interface(), strict.Interface())
		}
	})
}

func BenchmarkDecodeStrict(b *testing.B) {
	body := []byte(`{"agent_id":"agt_1","mission_ids":["ms_1"],"ttl_seconds":900,"intent":{"summary":"Triage","services":["slack"],"will_delegate":true}}`)
	b.ReportAllocs()
	for b.Loop() {
		var p stack.PassportIssueParams
		require.NoError(b, decodeStrict(body, &p))
	}
}
