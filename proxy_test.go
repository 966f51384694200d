package stack_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// newStageWith is newStage with an agent of one's own.
func newStageWith(t *testing.T, cfg stacktest.AgentConfig, opts ...stack.Option) *stage {
	t.Helper()
	s := newStage(t, stack.Logged, opts...)
	s.agent = s.Agent(t, cfg)
	return s
}

// started opens a Mission with the given change and returns its passport, for all services of the agent.
func (s *stage) started(t *testing.T, change ...func(*stack.MissionOpenParams)) *stack.StartedMission {
	t.Helper()
	open := stack.MissionOpenParams{IntentSummary: "Test", ExpiresIn: time.Hour}
	for _, c := range change {
		c(&open)
	}
	services := slices.Sorted(maps.Keys(s.agent.Connections))
	m, err := s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: s.agent.ID, Mission: open,
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "Test", Services: services}}})
	require.NoError(t, err)
	return m
}

// do makes a proxied call under a passport.
func (s *stage) do(t *testing.T, p *stack.Passport, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
	t.Helper()
	return s.client.Proxy.Request(t.Context(), withPassport(r, p))
}

// sent is what Slack got last.
func (s *stage) sent(t *testing.T) stacktest.ForwardedRequest {
	t.Helper()
	all := s.Forwarded("slack.com")
	require.NotEmpty(t, all)
	return all[len(all)-1]
}

// lastRow is the newest audit row of an action.
func (s *stage) lastRow(t *testing.T, action string) stack.AuditEntry {
	t.Helper()
	for _, row := range slices.Backward(s.Audit()) {
		if row.Action == action {
			return row
		}
	}
	require.Fail(t, "no audit row of "+action)
	return stack.AuditEntry{}
}

// answers is a service that says one thing.
func answers(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write([]byte(body))
	}
}

// taking makes a service slow, until its caller has gone.
func taking(d time.Duration, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			next(w, r)
		case <-r.Context().Done():
		}
	}
}

const jsonType, formType = "application/json", "application/x-www-form-urlencoded"

// read is a harmless call to Slack.
var read = stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"}

func TestProxyVerbs(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	verbs := map[string]func(context.Context, stack.ProxyRequest) (*stack.ProxyResponse, error){
		"GET": s.client.Proxy.Get, "POST": s.client.Proxy.Post, "PUT": s.client.Proxy.Put, "PATCH": s.client.Proxy.Patch,
		"DELETE": s.client.Proxy.Delete, "": s.client.Proxy.Request}
	for method, verb := range verbs {
		resp, err := verb(t.Context(), withPassport(read, p))
		require.NoError(t, err)
		if method == "" {
			method = "GET"
		}
		assert.Equal(t, method, s.sent(t).Method)
		assert.Equal(t, method != "GET", resp.OperationID != "", "a write carries an operation id")
		assert.True(t, resp.OK())
		assert.JSONEq(t, `{"ok":true}`, string(resp.Body))
	}
}

func TestProxyClientSideChecks(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	before := s.Requests()
	called := func(string) error { assert.Fail(t, "OnOperationID is for what can be sent"); return nil }
	tests := map[string]struct {
		param string
		r     stack.ProxyRequest
	}{
		"no service":      {"service", stack.ProxyRequest{URL: "https://slack.com/"}},
		"unknown method":  {"method", stack.ProxyRequest{Service: "slack", Method: "TRACE", URL: "https://slack.com/"}},
		"no URL":          {"url", stack.ProxyRequest{Service: "slack"}},
		"relative URL":    {"url", stack.ProxyRequest{Service: "slack", URL: "/api"}},
		"no scheme":       {"url", stack.ProxyRequest{Service: "slack", URL: "slack.com/api"}},
		"another scheme":  {"url", stack.ProxyRequest{Service: "slack", URL: "file:///etc/passwd"}},
		"no host":         {"url", stack.ProxyRequest{Service: "slack", URL: "https://:443/"}},
		"user info":       {"url", stack.ProxyRequest{Service: "slack", URL: "https://user:secret@slack.com/"}},
		"no URL at all":   {"url", stack.ProxyRequest{Service: "slack", URL: "https://user:secret/@slack.com:x/"}},
		"no JSON":         {"body", stack.ProxyRequest{Service: "slack", URL: "https://slack.com/", Body: func() {}}},
		"broken raw JSON": {"body", stack.ProxyRequest{Service: "slack", URL: "https://slack.com/", Body: json.RawMessage(`{`)}},
		"short id":        {"operation id", stack.ProxyRequest{Service: "slack", URL: "https://slack.com/", OperationID: "short"}},
		"long id": {"operation id", stack.ProxyRequest{Service: "slack", URL: "https://slack.com/",
			OperationID: strings.Repeat("a", 257)}},
		"id with a newline": {"operation id", stack.ProxyRequest{Service: "slack", URL: "https://slack.com/",
			OperationID: strings.Repeat("a", 22) + "\n"}},
	}
	for name, tc := range tests {
		for _, method := range []string{"POST", ""} {
			if tc.r.Method != "TRACE" {
				tc.r.Method = method
			}
			tc.r.OnOperationID = called
			_, err := s.client.Proxy.Request(t.Context(), tc.r)
			requireParam(t, err, tc.param)
			assert.NotContains(t, err.Error(), "secret", name)
		}
	}
	_, err := s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: "short"})
	requireParam(t, err, "operation_id")
	_, err = s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: stack.NewOperationID()})
	requireParam(t, err, "passport token")
	assert.Equal(t, before, s.Requests())
	id := stack.NewOperationID()
	assert.Regexp(t, `^[A-Za-z0-9_-]{24}$`, id)
	assert.NotEqual(t, id, stack.NewOperationID())
}

// (contract: decisions, Proxy: the headers that are dropped)
func TestProxyHeaders(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	s.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"Set-Cookie", "Keep-Alive", "Proxy-Authenticate", "Trailer", "Upgrade", "X-Hop",
			"X-Stack-Body-Encoding"} {
			w.Header().Set(name, "dropped")
		}
		w.Header().Set("Connection", "close, x-hop")
		w.Header().Set("X-Kept", "kept")
		w.Header()["Link"] = []string{"<a>", "<b>"}
		w.WriteHeader(http.StatusNoContent)
	}))
	dropped := []string{"Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "Api-Key", "X-Passport-Token",
		"X-Stack-Thing", "X-STACK-Authority-Request-Id", "X-Intent-Approval-Id", "X-Intent-Thing", "Keep-Alive", "TE", "Trailer",
		"Transfer-Encoding", "Upgrade", "Proxy-Connection", "Host", "Content-Length", "Expect", "X-Hop"}
	r := stack.ProxyRequest{Service: "slack", Method: "post", URL: "https://slack.com/api/x?a=1#part",
		Query: map[string]string{"b": "2 3", "c": "ä&"}, Body: map[string]string{"a": "b"},
		Headers: map[string]string{"x-custom": "kept", "Idempotency-Key": "kept", "User-Agent": "mine", "Connection": "x-hop"}}
	for _, name := range dropped {
		r.Headers[strings.ToLower(name)] = "of the caller"
	}
	resp, err := s.do(t, s.issue(t), r)
	require.NoError(t, err)
	assert.Equal(t, http.StatusNoContent, resp.Status)
	assert.Equal(t, map[string]string{"x-kept": "kept", "link": "<a>, <b>"}, resp.Headers)
	sent := s.sent(t)
	assert.Equal(t, "POST", sent.Method)
	assert.Equal(t, "a=1&b=2+3&c=%C3%A4%26", sent.Query)
	assert.Equal(t, http.Header{"Authorization": {"Bearer " + stacktest.DefaultCredential}, "Content-Type": {jsonType},
		"X-Custom": {"kept"}, "Idempotency-Key": {"kept"}, "User-Agent": {"mine"}}, sent.Header)
}

// A service that says the credential back, in whatever form, is not heard. (contract: decisions, Proxy)
func TestProxyRedactsTheCredential(t *testing.T) {
	t.Parallel()
	const secret = `sk/very+"secret"=token`
	quoted, err := json.Marshal(secret)
	require.NoError(t, err)
	tests := map[string]struct{ contentType, body string }{
		"JSON":         {jsonType, `{"n":12345678901234567890,"list":[{"said":` + string(quoted) + `}]}`},
		"JSON escapes": {jsonType, `{"said":"\u0073k/very+\"secret\"=token"}`},
		"a name":       {jsonType, `{` + string(quoted) + `:1}`},
		"text":         {"text/plain", "your token is " + secret + "!"},
		"a URL":        {"text/html", `<a href="?t=` + url.QueryEscape(secret) + `">`},
		"binary":       {"image/png", "\xff\xfe" + secret},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"own"}, Credential: secret})
			s.Upstream("own.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, "Bearer "+secret, r.Header.Get("Authorization"))
				w.Header().Set("X-Said", r.Header.Get("Authorization"))
				answers(tc.contentType, tc.body)(w, r)
			}))
			m := s.started(t)
			resp, err := s.do(t, &m.Passport, stack.ProxyRequest{Service: "own", Method: "POST", URL: "https://own.example/"})
			require.NoError(t, err)
			assert.Equal(t, "Bearer [REDACTED]", resp.Headers["x-said"])
			text := string(resp.Body)
			if name == "binary" {
				var wrapped struct{ Base64 []byte }
				require.NoError(t, resp.Decode(&wrapped))
				text = string(wrapped.Base64)
			}
			if name == "JSON" {
				assert.Contains(t, text, "12345678901234567890", "the rest stays as it is")
			}
			assert.Contains(t, text, "[REDACTED]")
			assert.NotContains(t, text, "secret")
			op, err := s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: resp.OperationID,
				IncludeResponse: true, PassportToken: m.Passport.Token})
			require.NoError(t, err)
			activity, err := s.client.Missions.Activity(t.Context(), m.MissionID)
			require.NoError(t, err)
			for _, told := range []any{op, s.Audit(), activity} {
				all, err := json.Marshal(told)
				require.NoError(t, err)
				assert.NotContains(t, string(all), "secret")
			}
		})
	}
}

// (contract: decisions, Bodies through the proxy)
func TestProxyBodies(t *testing.T) {
	t.Parallel()
	form := map[string]string{"content-type": formType + "; charset=utf-8"}
	tests := map[string]struct {
		headers           map[string]string
		body              any
		arrives, arriveAs string
	}{
		"object": {nil, map[string]any{"a": "<&>", "b": nil}, `{"a":"<&>","b":null}`, jsonType},
		"list":   {nil, []any{1, "two"}, `[1,"two"]`, jsonType},
		"numbers": {nil, json.RawMessage(`{"n":12345678901234567890,"f":1.0,"e":1E+400}`),
			`{"n":12345678901234567890,"f":1.0,"e":1E+400}`, jsonType},
		"number":         {nil, 17, "17", jsonType},
		"false":          {nil, false, "false", jsonType},
		"string":         {nil, "plain <words>", "plain <words>", "text/plain; charset=utf-8"},
		"empty string":   {nil, "", "", "text/plain; charset=utf-8"},
		"string of JSON": {map[string]string{"Content-Type": jsonType}, `{ "spaced" : 1.0 }`, `{ "spaced" : 1.0 }`, jsonType},
		"string of XML":  {map[string]string{"Content-Type": "application/xml"}, "<a>ä</a>", "<a>ä</a>", "application/xml"},
		"a JSON dialect": {map[string]string{"Content-Type": "application/vnd.api+json"}, map[string]int{"a": 1}, `{"a":1}`,
			"application/vnd.api+json"},
		"form": {form,
			json.RawMessage(`{"channel":"#c","n":12345678901234567890,"on":true,"tags":["a","b c"],"none":null}`),
			"channel=%23c&n=12345678901234567890&on=true&tags=a&tags=b+c", form["content-type"]},
		"form as written": {form, "text=a+b&channel=%23c", "text=a+b&channel=%23c", form["content-type"]},
		"nothing":         {nil, nil, "", ""},
		"null":            {nil, json.RawMessage("null"), "", ""},
	}
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	for name, tc := range tests {
		_, err := s.do(t, p, stack.ProxyRequest{Service: "slack", Method: "PUT", URL: "https://slack.com/",
			Headers: tc.headers, Body: tc.body})
		require.NoError(t, err, name)
		assert.Equal(t, tc.arrives, string(s.sent(t).Body), name)
		assert.Equal(t, tc.arriveAs, s.sent(t).Header.Get("Content-Type"), name)
	}
}

func TestProxyAnswers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status                     int
		contentType, body, arrives string
	}{
		"JSON": {200, jsonType, `{"n":12345678901234567890,"f":1.0,"a":"<&>"}`,
			`{"n":12345678901234567890,"f":1.0,"a":"<&>"}`},
		"a JSON dialect":    {201, "application/problem+json; charset=utf-8", `[]`, `[]`},
		"JSON that is none": {200, jsonType, `{oops`, `"{oops"`},
		"text":              {200, "text/plain", "\"quoted\" <words>\n", `"\"quoted\" <words>\n"`},
		"a number as text":  {200, "text/plain", "17", `"17"`},
		"bytes": {200, "application/pdf", "\xff\xfe\x00",
			`{"base64":"` + base64.StdEncoding.EncodeToString([]byte("\xff\xfe\x00")) + `"}`},
		"nothing":          {204, "", "", "null"},
		"a client's error": {404, jsonType, `{"ok":false}`, `{"ok":false}`},
		"a server's error": {503, "text/html", "<h1>down", `"<h1>down"`},
		"a redirect":       {302, "text/plain", "elsewhere", `"elsewhere"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Logged)
			s.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example/")
				w.Header().Set("Content-Type", tc.contentType)
				w.WriteHeader(tc.status)
				_, _ = w.Write([]byte(tc.body))
			}))
			resp, err := s.do(t, s.issue(t), post("#support"))
			require.NoError(t, err, "what the service says is data")
			assert.Equal(t, tc.status, resp.Status)
			assert.Equal(t, tc.status < 400, resp.OK())
			assert.Equal(t, tc.arrives, string(resp.Body))
			encoding, marked := resp.Headers["x-stack-body-encoding"]
			assert.Equal(t, name == "bytes", marked)
			if marked {
				assert.Equal(t, "base64", encoding)
			}
			assert.Len(t, s.Forwarded("slack.com"), 1)
			row := s.lastRow(t, "credential.proxy")
			assert.Equal(t, tc.status >= 400, row.Outcome == stack.OutcomeFailure)
		})
	}
}

// Every proxied call leaves one row, whatever came of it. (contract: server-api 9.2)
func TestProxyAuditRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged, stack.WithMaxRetries(0), stack.WithTimeout(time.Minute))
		p := s.issue(t)
		sum := sha256.Sum256([]byte(`{"channel":"#support","text":"On it"}`))
		tests := map[string]struct {
			fault    stacktest.Fault
			url      string
			outcome  stack.AuditOutcome
			code     string
			duration time.Duration
		}{
			"delivered": {stacktest.Fault{Delay: 3 * time.Second}, "", stack.OutcomeSuccess, "", 3 * time.Second},
			"refused by the service": {stacktest.Fault{Status: 429, Delay: time.Second}, "", stack.OutcomeFailure, "UPSTREAM_429",
				time.Second},
			"too late":    {stacktest.Fault{Delay: time.Minute}, "", stack.OutcomeFailure, "UPSTREAM_TIMEOUT", 30 * time.Second},
			"lost":        {stacktest.Fault{Close: stacktest.CloseAfter}, "", stack.OutcomeFailure, "UPSTREAM_UNREACHABLE", 0},
			"not allowed": {stacktest.Fault{}, "https://elsewhere.example/", stack.OutcomeBlocked, "PROXY_HOST_NOT_ALLOWED", 0},
		}
		for name, tc := range tests {
			if tc.url == "" {
				tc.url = post("").URL
				tc.fault.Path = "upstream:slack.com"
				s.Fault(tc.fault)
			}
			before := s.countRows("credential.proxy")
			r := post("#support")
			r.URL = tc.url
			_, _ = s.do(t, p, r)
			assert.Equal(t, before+1, s.countRows("credential.proxy"), name)
			row := s.lastRow(t, "credential.proxy")
			assert.Equal(t, []any{"vault", tc.outcome, tc.code, p.JTI, s.agent.ID, tc.duration, hex.EncodeToString(sum[:])},
				[]any{row.Layer, row.Outcome, row.ErrorCode, row.PassportJTI, row.AgentID, row.Duration, row.PayloadHash}, name)
		}
		_, err := s.do(t, p, read)
		require.NoError(t, err)
		assert.Empty(t, s.lastRow(t, "credential.proxy").PayloadHash, "no body, no hash")
		s.RequireAuditIntact(t)
	})
}

func TestProxyUpstreamTrouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged, stack.WithMaxRetries(0), stack.WithTimeout(2*time.Minute))
		p := s.issue(t)
		s.Upstream("slack.com", taking(time.Minute, answers(jsonType, `{}`)))
		began := time.Now()
		_, err := s.do(t, p, read)
		requireRefused(t, err, http.StatusGatewayTimeout, "UPSTREAM_TIMEOUT")
		assert.Equal(t, 30*time.Second, time.Since(began))
		s.Upstream("slack.com", answers("text/plain", strings.Repeat("x", 10<<20+1)))
		_, err = s.do(t, p, read)
		requireRefused(t, err, http.StatusBadGateway, "RESPONSE_TOO_LARGE")
		s.Upstream("slack.com", answers("text/plain", strings.Repeat("x", 10<<20)))
		resp, err := s.do(t, p, read)
		require.NoError(t, err)
		assert.Len(t, resp.Body, 10<<20+2)
		s.Upstream("slack.com", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("inner text") }))
		_, err = s.do(t, p, read)
		apiErr := requireRefused(t, err, http.StatusBadGateway, "UPSTREAM_UNREACHABLE")
		assert.Equal(t, "https://slack.com/api/x", apiErr.Details["url"])
	})
}

func TestProxyBodyOver10MiB(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	r := post("#support")
	r.Body = strings.Repeat("x", 10<<20-1000)
	_, err := s.do(t, s.issue(t), r)
	require.NoError(t, err)
	r.Body = strings.Repeat("x", 10<<20)
	_, err = s.do(t, s.issue(t), r)
	apiErr := requireRefused(t, err, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	assert.EqualValues(t, 10<<20, apiErr.Details["allowed"])
	assert.Len(t, s.Forwarded("slack.com"), 1)
}

// A slow service holds up nobody else.
func TestNoLockAcrossTheUpstream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		p := s.issue(t)
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Delay: 20 * time.Second})
		done := make(chan error, 1)
		go func() { _, err := s.do(t, p, post("#support")); done <- err }()
		time.Sleep(time.Second)
		began := time.Now()
		_, err := s.client.Agents.List(t.Context())
		require.NoError(t, err)
		_, err = s.do(t, p, read)
		require.NoError(t, err)
		_, err = s.client.Passports.Revoke(t.Context(), p.JTI, "the kill switch works meanwhile")
		require.NoError(t, err)
		assert.Zero(t, time.Since(began))
		require.NoError(t, <-done, "what was on its way is answered")
		_, err = s.do(t, p, read)
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
	})
}

func TestProxyUsage(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	for range 3 {
		_, err := s.do(t, p, read)
		require.NoError(t, err)
	}
	u, err := s.client.Proxy.Usage(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 3, u.Used)
	assert.Equal(t, stack.TierEnterprise, u.Tier)
	assert.Nil(t, u.Limit, "no limit on this plan")
	s.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
	u, err = s.client.Proxy.Usage(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []any{stack.TierFree, 5000, 3, 4997}, []any{u.Tier, *u.Limit, u.Used, *u.Remaining})
	assert.Equal(t, "limit period remaining tier used", keys(s.raw(t, "GET", "/v1/proxy/usage", nil)))
}
