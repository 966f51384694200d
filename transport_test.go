package stack_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// scripted answers each request with the next step; the last one is for all that follow.
type scripted struct {
	mu       sync.Mutex
	steps    []step
	requests []*http.Request
	bodies   []string
	at       []time.Time
}

// step is how one request is answered: after it was looked at, with a failure, or a status, a header and a body.
type step struct {
	status int
	body   io.Reader
	header []string // names and values in turn
	err    error
	hang   bool                     // wait for the end of the request's context
	choose func(*http.Request) step // decide by the request
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	body := ""
	if r.Body != nil {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
		body = string(data)
	}
	s.requests, s.bodies, s.at = append(s.requests, r), append(s.bodies, body), append(s.at, time.Now())
	next := s.steps[min(len(s.requests), len(s.steps))-1]
	s.mu.Unlock()
	if next.choose != nil {
		next = next.choose(r)
	}
	if next.hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if next.err != nil {
		return nil, next.err
	}
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i+1 < len(next.header); i += 2 {
		h.Set(next.header[i], next.header[i+1])
	}
	return &http.Response{StatusCode: next.status, Header: h, Body: io.NopCloser(next.body), Request: r}, nil
}

func answer(status int, body string, header ...string) step {
	return step{choose: func(*http.Request) step {
		return step{status: status, body: strings.NewReader(body), header: header}
	}}
}

func broken(err error) step { return step{err: err} }

// cut is an answer whose body ends early.
func cut() step {
	return step{choose: func(*http.Request) step {
		return step{status: 200, body: io.MultiReader(strings.NewReader(`{"id":`), errReader{})}
	}}
}

var errDial = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

func script(t *testing.T, s *scripted, opts ...stack.Option) *stack.Client {
	t.Helper()
	c, err := stack.New(append([]stack.Option{stack.WithBaseURL("https://api.example/prefix/"),
		stack.WithAPIKey("sk_live_canary"), stack.WithHTTPClient(&http.Client{Transport: s})}, opts...)...)
	require.NoError(t, err)
	return c
}

const agentJSON = `{"id":"agt_1","name":"a","unknown_field":{"kept":"out"}}`

func TestRequestForm(t *testing.T) {
	t.Parallel()
	s := &scripted{steps: []step{answer(200, agentJSON)}}
	c := script(t, s, stack.WithUserAgent("triage/1.2"))
	assert.Equal(t, "https://api.example/prefix", c.BaseURL())
	_, err := c.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "a<b>&c", Description: "é"})
	require.NoError(t, err)
	_, err = c.Agents.Unblock(t.Context(), "agt_1", stack.AgentUnblockParams{GovernanceApprovalID: "gov_1"})
	require.NoError(t, err)
	r := s.requests[0]
	assert.Equal(t, "https://api.example/prefix/v1/agents/register", r.URL.String())
	assert.Equal(t, "Bearer sk_live_canary", r.Header.Get("Authorization"))
	assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
	assert.Regexp(t, `^getstack-go/\S+ \(go\S+; \w+/\w+\) triage/1\.2$`, r.Header.Get("User-Agent"))
	assert.Equal(t, `{"name":"a<b>&c","description":"é"}`, s.bodies[0], "compact, without HTML escapes")
	assert.Empty(t, s.bodies[1])
	assert.Equal(t, "application/json", s.requests[1].Header.Get("Content-Type"), "on body-less calls too")
	assert.Equal(t, "gov_1", s.requests[1].Header.Get("X-Governance-Approval"))
}

// The same over TCP, where the bytes are what counts.
func TestRequestFormOverTCP(t *testing.T) {
	t.Parallel()
	type seen struct {
		method, uri, body string
		length            int64
		encoding          []string
		header            http.Header
	}
	var got []seen
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		got = append(got, seen{r.Method, r.RequestURI, string(body), r.ContentLength, r.TransferEncoding, r.Header})
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		_, err = zip.Write([]byte(`{"id":"agt_1","deleted":true}`))
		assert.NoError(t, errors.Join(err, zip.Close()))
	}))
	defer srv.Close()
	c, err := stack.New(stack.WithAPIKey("sk_1"), stack.WithBaseURL(srv.URL+"/prefix/")) // with the client's own transport
	require.NoError(t, err)
	ctx := t.Context()
	agent, err := c.Agents.Get(ctx, "a/b")
	require.NoError(t, err)
	assert.Equal(t, "agt_1", agent.ID)
	_, err = c.Agents.Unblock(ctx, "agt_1", stack.AgentUnblockParams{})
	require.NoError(t, err)
	_, err = c.Agents.Delete(ctx, "agt_1")
	require.NoError(t, err)
	_, err = c.Agents.Register(ctx, stack.AgentRegisterParams{Name: "é"})
	require.NoError(t, err)
	require.NoError(t, c.Do(ctx, "HEAD", "/v1/x?y=%20", nil, nil))

	wants := []seen{
		{method: "GET", uri: "/prefix/v1/agents/a%2Fb"},
		{method: "POST", uri: "/prefix/v1/agents/agt_1/unblock"},
		{method: "DELETE", uri: "/prefix/v1/agents/agt_1"},
		{method: "POST", uri: "/prefix/v1/agents/register", body: `{"name":"é"}`, length: 13},
		{method: "HEAD", uri: "/prefix/v1/x?y=%20"},
	}
	require.Len(t, got, len(wants))
	for i, want := range wants {
		header := got[i].header
		got[i].header = nil
		assert.Equal(t, want, got[i])
		assert.Equal(t, []string{"Bearer sk_1"}, header["Authorization"])
		assert.Equal(t, []string{"application/json"}, header["Content-Type"])
		assert.NotContains(t, header, "X-Passport-Token", "headers without a value are not sent")
		assert.NotContains(t, header, "X-Governance-Approval")
	}
}

// A redirect to another server is not followed, with the key or without it.
func TestRedirectsOverTCP(t *testing.T) {
	t.Parallel()
	var foreign atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { foreign.Add(1) }))
	defer other.Close()
	var keys []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Authorization")+r.Header.Get("X-Passport-Token"))
		switch r.URL.Path {
		case "/v1/credentials/here":
			http.Redirect(w, r, "/v1/credentials/moved", http.StatusMovedPermanently)
		case "/v1/credentials/moved":
			_, _ = w.Write([]byte(`{"provider":"moved"}`))
		default:
			http.Redirect(w, r, other.URL+"/v1/credentials/slack", http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	c, err := stack.New(stack.WithAPIKey("sk_1"), stack.WithBaseURL(srv.URL), stack.WithHTTPClient(srv.Client()))
	require.NoError(t, err)
	passport := stack.CredentialParams{PassportToken: stack.NewSecret("-token")}
	credential, err := c.Credentials.Get(t.Context(), "here", passport)
	require.NoError(t, err)
	assert.Equal(t, "moved", credential.Provider)
	_, err = c.Credentials.Get(t.Context(), "away", passport)
	require.EqualError(t, err,
		"stack: GET /v1/credentials/{provider}: redirect refused: it leads to another scheme, host or port")
	_, err = c.Proxy.Post(t.Context(),
		stack.ProxyRequest{Service: "slack", URL: "https://slack.com/x", PassportToken: passport.PassportToken})
	require.ErrorContains(t, err, "redirect refused: the call is a POST")
	assert.Zero(t, foreign.Load())
	assert.Subset(t, []string{"Bearer sk_1-token"}, keys, "on the same host the key goes along")
}

func TestIDsAreEscaped(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"a b": "a%20b", "a/b": "a%2Fb", "a?b": "a%3Fb", "../x": "..%2Fx", "a%2Fb": "a%252Fb",
		"é": "%C3%A9", "a#b": "a%23b", "a+b": "a%2Bb", "A-z_0.9~": "A-z_0.9~", "...": "...", "a\nb": "a%0Ab", "a{b}": "a%7Bb%7D",
		"a:b@c": "a%3Ab%40c", "\xff": "%FF", " ": "%20"} {
		s := &scripted{steps: []step{answer(200, agentJSON)}}
		_, err := script(t, s).Agents.Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, "/prefix/v1/agents/"+want, s.requests[0].URL.EscapedPath(), id)
		assert.Equal(t, "/prefix/v1/agents/"+id, s.requests[0].URL.Path, "it arrives as it was given")
		assert.Empty(t, s.requests[0].URL.RawQuery)
		assert.Equal(t, "api.example", s.requests[0].URL.Host)
	}
	s := &scripted{steps: []step{answer(200, "[]")}}
	_, err := script(t, s).Passports.ListActive(t.Context(), stack.PassportListParams{AgentID: "a b&c=d#é"})
	require.NoError(t, err)
	assert.Equal(t, "agent_id=a+b%26c%3Dd%23%C3%A9", s.requests[0].URL.RawQuery)
}

// An id that is no id is refused before anything is sent: it would name another path.
func TestIDsAreChecked(t *testing.T) {
	t.Parallel()
	s := &scripted{steps: []step{answer(200, agentJSON)}}
	c := script(t, s)
	for _, id := range []string{"", ".", ".."} {
		for param, call := range map[string]func() error{
			"agent_id":      func() error { return failure(c.Agents.Get(t.Context(), id)) },
			"passport_jti":  func() error { return failure(c.Passports.Checkpoint(t.Context(), id, stack.CheckpointParams{})) },
			"provider":      func() error { return failure(c.Credentials.Get(t.Context(), id, stack.CredentialParams{})) },
			"claim_id":      func() error { return failure(c.Missions.DownloadOperatorReview(t.Context(), "ms_1", id, io.Discard)) },
			"mission_id":    func() error { return failure(c.Missions.Renew(t.Context(), id)) },
			"connection_id": func() error { return failure(c.Services.Disconnect(t.Context(), id)) },
		} {
			requireParam(t, call(), param)
		}
	}
	assert.Empty(t, s.requests)
}

// What JSON cannot hold is refused before anything is sent.
func TestBodiesAreChecked(t *testing.T) {
	t.Parallel()
	s := &scripted{steps: []step{answer(200, "{}")}}
	c := script(t, s)
	for name, body := range map[string]any{"NaN": math.NaN(), "infinity": math.Inf(-1), "channel": make(chan int),
		"func": func() {}} {
		in := map[string]any{"n": body}
		requireParam(t, c.Do(t.Context(), "POST", "/v1/x", in, nil), "body of POST /v1/x")
		_, err := c.Proxy.Post(t.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/x", Body: in})
		requireParam(t, err, "body")
		assert.ErrorContains(t, err, "cannot be sent as JSON", name)
	}
	assert.Empty(t, s.requests)
}

func TestDo(t *testing.T) {
	t.Parallel()
	s := &scripted{steps: []step{answer(200, `{"n":1}`)}}
	c := script(t, s)
	var out struct{ N int }
	require.NoError(t, c.Do(t.Context(), "post", "/v1/new/a%2Fb?x=1&y=2", map[string]any{"k": "<v>"}, &out))
	assert.Equal(t, 1, out.N)
	assert.Equal(t, "https://api.example/prefix/v1/new/a%2Fb?x=1&y=2", s.requests[0].URL.String())
	assert.Equal(t, "POST", s.requests[0].Method)
	assert.Equal(t, `{"k":"<v>"}`, s.bodies[0])
	for _, path := range []string{
		"/", "/v1/x/", "/v1//x", "/v1/x?a=b%20c&d", "/v1/a:b", "/v1/%2e%2e%2f", "/v1/...", "/v1/x?next=//evil.example/..",
	} {
		require.NoError(t, c.Do(t.Context(), "GET", path, nil, nil), path)
		assert.Equal(t, "https://api.example/prefix"+path, s.requests[len(s.requests)-1].URL.String())
	}
	sent := len(s.requests)
	for _, path := range []string{"", "v1/x", "//evil.example/v1", "//evil.example/..", "///evil.example", "https://evil.example/",
		"/v1/x#part", "/v1/x#", "/v1/../x", "/v1/..", "/./v1", "/v1/%2e%2E/x", "/v1/a b", "/v1/é", "/v1/x?a b", "/v1/%zz",
		"/v1/x\r\nX-Evil: 1", "?x", "/v1/..?q=hunter2"} {
		err := c.Do(t.Context(), "GET", path, nil, nil)
		requireParam(t, err, "path")
		assert.NotContains(t, err.Error(), "hunter2", "the query may hold secrets")
		assert.NotContains(t, err.Error(), "\n")
	}
	for _, method := range []string{"", "GET ", "GET /v1/x", "G\nT", "É"} {
		requireParam(t, c.Do(t.Context(), method, "/v1/x", nil, nil), "method")
	}
	assert.Len(t, s.requests, sent)
}

// Errors and logs of Do name the path as it was given, without the query.
func TestDoNamesThePath(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := script(t, &scripted{steps: []step{answer(403, `{"error":{"code":"C","message":"m"}}`)}},
		stack.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	err := c.Do(t.Context(), "delete", "/v1/a%0Ab?q=hunter2", nil, nil)
	require.EqualError(t, err, "stack: DELETE /v1/a%0Ab: 403 C: m")
	require.ErrorIs(t, err, stack.ErrForbidden)
	assert.Contains(t, log.String(), `"route":"/v1/a%0Ab"`)
	assert.NotContains(t, log.String(), "hunter2")
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		location string
		post     bool
		follows  bool
	}{
		"same host":      {"https://api.example/prefix/v1/elsewhere", false, true},
		"other host":     {"https://evil.example/", false, false},
		"other scheme":   {"http://api.example/", false, false},
		"other port":     {"https://api.example:8443/", false, false},
		"write":          {"https://api.example/prefix/v1/elsewhere", true, false},
		"relative":       {"/prefix/v1/elsewhere", false, true},
		"round in rings": {"https://api.example/prefix/v1/agents/agt_1", false, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scripted{steps: []step{{choose: func(r *http.Request) step {
				if strings.HasSuffix(r.URL.Path, "/elsewhere") {
					return answer(200, agentJSON).choose(r)
				}
				return answer(307, "", "Location", tc.location).choose(r)
			}}}}
			c := script(t, s)
			var err error
			if tc.post {
				_, err = c.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "a"})
			} else {
				_, err = c.Agents.Get(t.Context(), "agt_1")
			}
			if tc.follows {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, "redirect refused")
			}
			for _, r := range s.requests {
				assert.Equal(t, "api.example", r.URL.Host, "the key goes nowhere else")
			}
		})
	}
}

func TestAnswersThatAreNotTheExpectedJSON(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"html": "<html><body>Bad gateway", "empty": "", "array": "[]", "cut": `{"id":`} {
		s := &scripted{steps: []step{answer(200, body)}}
		_, err := script(t, s).Agents.Get(t.Context(), "agt_1")
		var decode *stack.DecodeError
		require.ErrorAs(t, err, &decode, name)
		assert.Equal(t, "/v1/agents/{agent_id}", decode.Route)
		assert.Equal(t, 200, decode.Status)
	}
	s := &scripted{steps: []step{answer(204, "")}}
	_, err := script(t, s).Agents.Get(t.Context(), "agt_1")
	require.NoError(t, err, "204 is an answer without a body")
	s = &scripted{steps: []step{answer(200, `"`+strings.Repeat("x", 49<<20)+`"`)}}
	_, err = script(t, s).Agents.Get(t.Context(), "agt_1")
	require.ErrorContains(t, err, "the answer is over")
	assert.Len(t, s.requests, 1, "and another try would not mend it")
}

// Nothing secret and no id is in logs or errors.
func TestLogsAndErrorsAreBare(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, one := range []step{answer(200, agentJSON, "X-Request-Id", "req_1"),
		answer(403, `{"error":{"code":"FORBIDDEN","message":"no"}}`), broken(errors.New("broken pipe"))} {
		s := &scripted{steps: []step{one}}
		c := script(t, s, stack.WithLogger(logger), stack.WithMaxRetries(1))
		_, err := c.Audit.List(t.Context(), stack.AuditListParams{AgentID: "agt_secretid"})
		_, err2 := c.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: stack.NewSecret("token-canary")})
		_, err3 := c.Agents.Get(t.Context(), "agt_secretid")
		for _, text := range []string{fmt.Sprint(err), fmt.Sprint(err2), fmt.Sprint(err3), fmt.Sprintf("%+v %#v", c, err)} {
			assert.NotContains(t, text, "canary")
			assert.NotContains(t, text, "agt_secretid")
		}
	}
	assert.Contains(t, log.String(), `"route":"/v1/agents/{agent_id}"`)
	assert.Contains(t, log.String(), `"request_id":"req_1"`)
	assert.NotContains(t, log.String(), "canary")
	assert.NotContains(t, log.String(), "agt_secretid")
}

func TestClientIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	c := script(t, &scripted{steps: []step{{choose: func(r *http.Request) step {
		n.Add(1)
		return answer(200, agentJSON).choose(r)
	}}}})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { _, err := c.Agents.Get(t.Context(), "agt_1"); assert.NoError(t, err) })
	}
	wg.Wait()
	assert.EqualValues(t, 50, n.Load())
}

// One whole call over a transport in memory: what the client itself costs.
func BenchmarkGet(b *testing.B) {
	transport := transportFunc(func(r *http.Request) (*http.Response, error) {
		body := io.NopCloser(strings.NewReader(agentJSON))
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body, Request: r}, nil
	})
	c, err := stack.New(stack.WithAPIKey("k"), stack.WithHTTPClient(&http.Client{Transport: transport}))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, err := c.Agents.Get(b.Context(), "agt_1")
		require.NoError(b, err)
	}
}
