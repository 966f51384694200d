package stack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// viaTransport opens a Mission over a Slack of one's own and returns its HTTP client.
func viaTransport(t *testing.T, slack http.HandlerFunc) (*stage, *stack.Mission, *http.Client) {
	t.Helper()
	s := newStage(t, stack.Logged)
	if slack != nil {
		s.Upstream("slack.com", slack)
	}
	m := s.open(t)
	t.Cleanup(func() { m.Close(nil) })
	return s, m, m.HTTPClient("slack")
}

// trackedBody tells whether it was closed, and may fail.
type trackedBody struct {
	io.Reader
	closed   bool
	closeErr error
}

func (b *trackedBody) Close() error { b.closed = true; return b.closeErr }

// newRequest makes a request with a tracked body, as an API client does: with a credential of its own.
func newRequest(t *testing.T, method, target, contentType, body string) (*http.Request, *trackedBody) {
	t.Helper()
	tracked := &trackedBody{Reader: strings.NewReader(body)}
	req, err := http.NewRequestWithContext(t.Context(), method, target, tracked)
	require.NoError(t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Authorization", "Bearer of-the-client")
	return req, tracked
}

// answered is a response that was read and closed.
type answered struct {
	*http.Response
	text string
}

// roundTrip makes a request and checks what holds for all of them: the body is closed, the caller's request left alone.
func roundTrip(t *testing.T, c *http.Client, req *http.Request) (answered, error) {
	t.Helper()
	header, target := req.Header.Clone(), req.URL.String()
	resp, err := c.Do(req)
	if tracked, ok := req.Body.(*trackedBody); ok {
		assert.True(t, tracked.closed, "the body is closed")
	}
	assert.Equal(t, header, req.Header, "the caller's request is not changed")
	assert.Equal(t, target, req.URL.String())
	if err != nil {
		assert.Nil(t, resp)
		return answered{}, err
	}
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return answered{resp, string(data)}, nil
}

func TestTransportBodies(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ contentType, body, arrives string }{
		"JSON": {"application/json; charset=utf-8", `{"id":12345678901234567890,"f":1.0,"a":"<b>&"}`,
			`{"id":12345678901234567890,"f":1.0,"a":"<b>&"}`},
		"JSON with spaces":   {jsonType, "\n{ \"a\" : [ 1 ] }\n", `{"a":[1]}`},
		"a list":             {jsonType, `[1,2]`, `[1,2]`},
		"a string of JSON":   {jsonType, `"quoted"`, `"quoted"`},
		"null":               {jsonType, `null`, `null`},
		"a number":           {jsonType, ` 17`, ` 17`},
		"JSON dialect":       {"application/vnd.api+json", `{"a":1}`, `{"a":1}`},
		"JSON as text":       {"text/json", `"quoted"`, `"quoted"`},
		"JSON without type":  {"", `{"a": 1}`, `{"a": 1}`},
		"form":               {formType, "text=a+b&channel=%23c", "text=a+b&channel=%23c"},
		"slack-go's form":    {formType, "channel=C1&text=a+b&token=", "channel=C1&text=a+b"},
		"a token in a form":  {formType, "token=xoxb-1&text=token", "text=token"},
		"a token in JSON":    {jsonType, `{"token":"a"}`, `{"token":"a"}`},
		"text":               {"text/plain", "plain words <&> ä\n", "plain words <&> ä\n"},
		"not quite JSON":     {jsonType, "{oops", "{oops"},
		"white space":        {jsonType, " ", " "},
		"empty":              {jsonType, "", ""},
		"a type that is bad": {"text/;;", "words", "words"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, c := viaTransport(t, nil)
			req, _ := newRequest(t, "POST", "https://slack.com/api/x?a=b#part", tc.contentType, tc.body)
			req.Header["X-Many"] = []string{"1", "2"}
			req.Header.Set("Cookie", "a=b")
			resp, err := roundTrip(t, c, req)
			require.NoError(t, err)
			assert.Equal(t, `{"ok":true}`, resp.text)
			sent := s.sent(t)
			assert.Equal(t, tc.arrives, string(sent.Body))
			assert.Equal(t, []any{"POST", "/api/x", "a=b"}, []any{sent.Method, sent.Path, sent.Query})
			assert.Equal(t, "1, 2", sent.Header.Get("X-Many"))
			assert.Equal(t, "Bearer "+stacktest.DefaultCredential, sent.Header.Get("Authorization"))
			assert.Empty(t, sent.Header.Get("Cookie"))
			if tc.contentType != "" && tc.body != "" {
				assert.Equal(t, tc.contentType, sent.Header.Get("Content-Type"))
			}
		})
	}
}

func TestTransportWithoutABody(t *testing.T) {
	t.Parallel()
	s, _, c := viaTransport(t, nil)
	for _, body := range []io.Reader{nil, http.NoBody} {
		for _, method := range []string{"", "GET", "POST", "PUT", "PATCH", "DELETE"} {
			req, err := http.NewRequestWithContext(t.Context(), method, "https://slack.com/api/x", body)
			require.NoError(t, err)
			_, err = roundTrip(t, c, req)
			require.NoError(t, err)
			assert.Empty(t, s.sent(t).Body)
		}
	}
}

func TestTransportAnswers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		contentType, body string
		status            int
	}{
		"JSON":             {jsonType, `{"id":12345678901234567890,"f":1.0,"a":"<b>&"}`, 200},
		"a string of JSON": {jsonType, `"quoted"`, 200},
		"JSON as text":     {"text/json", `"quoted"`, 200},
		"a JSON dialect":   {"application/problem+json", `{"title":"no"}`, 404},
		"text":             {"text/plain", "\"quoted\" words\n", 200},
		"text like JSON":   {"text/plain", `{"a":1}`, 200},
		"a number":         {"text/plain", `17`, 200},
		"null in text":     {"text/plain", "null", 200},
		"HTML":             {"text/html; charset=utf-8", "<b>ä", 503},
		"binary":           {"image/png", "\x89PNG\xff", 200},
		"no type":          {"", "words", 200},
		"too many":         {jsonType, `{"ok":false}`, 429},
		"no body":          {"", "", 204},
		"an empty body":    {jsonType, "", 200},
		"an odd status":    {jsonType, `{}`, 299},
		"not modified":     {"", "", 304},
	}
	links := []string{`<https://slack.com/api/x?page=2>; rel="next"`, `<https://slack.com/api/x?page=9>; rel="last"`}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, c := viaTransport(t, func(w http.ResponseWriter, _ *http.Request) {
				if tc.contentType != "" {
					w.Header().Set("Content-Type", tc.contentType)
				}
				w.Header()["Link"] = links
				w.Header().Set("Retry-After", "7")
				w.Header().Set("X-RateLimit-Remaining", "0")
				w.Header().Set("Content-Encoding", "identity")
				w.WriteHeader(tc.status)
				_, _ = w.Write([]byte(tc.body))
			})
			req, _ := newRequest(t, "GET", "https://slack.com/api/x", "", "")
			resp, err := roundTrip(t, c, req)
			require.NoError(t, err)
			assert.Equal(t, tc.status, resp.StatusCode)
			assert.Equal(t, fmt.Sprintf("%d %s", tc.status, http.StatusText(tc.status)), resp.Status)
			assert.Equal(t, []any{"HTTP/1.1", 1, 1}, []any{resp.Proto, resp.ProtoMajor, resp.ProtoMinor})
			assert.Equal(t, tc.body, resp.text)
			assert.EqualValues(t, len(tc.body), resp.ContentLength)
			assert.Same(t, req, resp.Request)
			assert.Equal(t, "7", resp.Header.Get("Retry-After"))
			assert.Equal(t, "0", resp.Header.Get("X-Ratelimit-Remaining"))
			assert.Equal(t, strings.Join(links, ", "), resp.Header.Get("Link"))
			for _, dropped := range []string{"X-Stack-Body-Encoding", "Content-Encoding", "Content-Length", "Transfer-Encoding"} {
				assert.NotContains(t, resp.Header, dropped)
			}
		})
	}
}

// A redirect to another host is the answer; the client above follows it through the proxy, which refuses that host.
func TestTransportRedirect(t *testing.T) {
	t.Parallel()
	_, _, c := viaTransport(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
	})
	req, _ := newRequest(t, "GET", "https://slack.com/api/x", "", "")
	_, err := roundTrip(t, c, req)
	requireRefused(t, err, http.StatusForbidden, "PROXY_HOST_NOT_ALLOWED")
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := roundTrip(t, c, req)
	require.NoError(t, err)
	assert.Equal(t, "https://elsewhere.example/", resp.Header.Get("Location"))
}

func TestTransportRefusesBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	s, m, c := viaTransport(t, nil)
	before := s.Requests()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	require.NoError(t, w.WriteField("a", "b"))
	require.NoError(t, w.Close())
	tests := map[string]struct{ param, method, target, contentType, body string }{
		"HEAD":         {"method", "HEAD", "", "", ""},
		"OPTIONS":      {"method", "OPTIONS", "", "", ""},
		"CONNECT":      {"method", "CONNECT", "", "", ""},
		"multipart":    {"body", "POST", "", w.FormDataContentType(), form.String()},
		"binary":       {"body", "POST", "", "application/octet-stream", "\xff\xfe"},
		"binary JSON":  {"body", "POST", "", jsonType, "{\"a\":\"\xff\"}"},
		"a bad form":   {"body", "POST", "", formType, "a=%zz&token=x"},
		"semicolons":   {"body", "POST", "", formType, "a=1;b=2"},
		"too large":    {"body", "POST", "", "text/plain", strings.Repeat("x", 9<<20+1)},
		"user info":    {"url", "POST", "https://user:hunter2@slack.com/", "", ""},
		"a bad scheme": {"url", "POST", "ftp://slack.com/", "", ""},
	}
	for name, tc := range tests {
		if tc.target == "" {
			tc.target = "https://slack.com/api/x"
		}
		req, _ := newRequest(t, tc.method, tc.target, tc.contentType, tc.body)
		_, err := roundTrip(t, c, req)
		var param *stack.ParamError
		require.ErrorAs(t, err, &param, name)
		assert.Equal(t, tc.param, param.Param, name)
		assert.NotContains(t, param.Error(), "hunter2")
	}
	req, _ := newRequest(t, "POST", "https://slack.com/api/x", "", "x")
	req.Header.Set("X-STACK-Authority-Request-Id", "short")
	_, err := roundTrip(t, c, req)
	requireParam(t, errors.Unwrap(err), "operation id")

	broken, closing := errors.New("disk broken"), errors.New("cannot close")
	req, tracked := newRequest(t, "POST", "https://slack.com/api/x", "", "")
	tracked.Reader = io.MultiReader(strings.NewReader("half"), &failingReader{broken})
	_, err = roundTrip(t, c, req)
	require.ErrorIs(t, err, broken)
	req, tracked = newRequest(t, "POST", "https://slack.com/api/x", "", "whole")
	tracked.closeErr = closing
	_, err = roundTrip(t, c, req)
	require.ErrorIs(t, err, closing)

	assert.Equal(t, before, s.Requests())
	assert.Zero(t, m.Summary().Calls)
	req, _ = newRequest(t, "POST", "https://slack.com/api/x", "text/plain", strings.Repeat("x", 9<<20))
	_, err = roundTrip(t, c, req)
	require.NoError(t, err, "the largest body there may be")
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

// A retrying client above repeats the same operation.
func TestTransportTakesTheOperationID(t *testing.T) {
	t.Parallel()
	s, _, c := viaTransport(t, nil)
	for _, name := range []string{"X-STACK-Authority-Request-Id", "x-stack-authority-request-id"} {
		req, _ := newRequest(t, "POST", "https://slack.com/api/x", "", "same")
		req.Header.Set(name, operationID)
		_, err := roundTrip(t, c, req)
		require.NoError(t, err)
	}
	sent := s.Forwarded("slack.com")
	require.Len(t, sent, 1)
	assert.Empty(t, sent[0].Header.Get("X-STACK-Authority-Request-Id"))
	for range 2 {
		req, _ := newRequest(t, "POST", "https://slack.com/api/x", "", "same")
		_, err := roundTrip(t, c, req)
		require.NoError(t, err)
	}
	assert.Len(t, s.Forwarded("slack.com"), 3, "without one, each request is an operation of its own")
}

func TestTransportFailsWithTheAPIsErrors(t *testing.T) {
	t.Parallel()
	s, m, c := viaTransport(t, nil)
	req, _ := newRequest(t, "GET", "https://elsewhere.example/", "", "")
	_, err := roundTrip(t, c, req)
	var urlErr *url.Error
	require.ErrorAs(t, err, &urlErr)
	requireRefused(t, err, http.StatusForbidden, "PROXY_HOST_NOT_ALLOWED")
	s.Fault(stacktest.Fault{Path: "upstream:slack.com", Close: stacktest.CloseAfter})
	req, _ = newRequest(t, "POST", "https://slack.com/api/x", "", "x")
	_, err = roundTrip(t, c, req)
	require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
	req, _ = newRequest(t, "POST", "https://slack.com/api/x", jsonType, `{"a":1,"a":2}`)
	_, err = roundTrip(t, c, req)
	require.ErrorIs(t, err, stack.ErrInvalidRequest)
	require.NoError(t, m.Context().Err())

	_, err = s.client.Passports.Revoke(t.Context(), m.JTI(), "enough")
	require.NoError(t, err)
	for range 2 { // the second time, nothing is sent
		req, _ = newRequest(t, "POST", "https://slack.com/api/x", "", "x")
		_, err = roundTrip(t, c, req)
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
		var apiErr *stack.Error
		require.ErrorAs(t, err, &apiErr)
	}
	require.ErrorIs(t, context.Cause(m.Context()), stack.ErrPassportRevoked, "and the Mission's context has ended")
}

// The request's own context is heeded.
func TestTransportCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, m, c := viaTransport(t, nil)
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Delay: 20 * time.Second})
		c.Timeout = time.Second
		req, _ := newRequest(t, "GET", "https://slack.com/api/x", "", "")
		began := time.Now()
		_, err := roundTrip(t, c, req)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))
		require.NoError(t, m.Context().Err())
	})
}

// Each request is logged, by its bare URL.
func TestTransportIsLogged(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	m := s.open(t, func(p *stack.MissionParams) { p.CheckpointInterval = time.Minute })
	c := m.HTTPClient("slack")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			req, _ := newRequest(t, "GET", "https://slack.com/api/x?token=hunter2#part", "", "")
			_, err := roundTrip(t, c, req)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	require.NoError(t, m.Checkpoint(t.Context()))
	calls := s.Checkpoints(m.JTI())[0].ToolCalls
	assert.Len(t, calls, 8)
	assert.Equal(t, stack.ToolCall{Service: "slack", Method: "GET", Target: "https://slack.com/api/x"}, calls[0])
	m.Close(nil)
}

// clientToldOf is a client of the server whose proxied calls are answered with a text instead.
func clientToldOf(srv *stacktest.Server, answer *string) *stack.Client {
	told := func(req *http.Request) (*http.Response, error) {
		if req.URL.Path != "/v1/proxy" {
			return srv.Transport().RoundTrip(req)
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(*answer)),
			Request: req}, req.Body.Close()
	}
	return srv.Client(stack.WithMaxRetries(0), stack.WithHTTPClient(&http.Client{Transport: transportFunc(told)}))
}

// What is no answer of a proxy is an error, and no response.
func TestTransportAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"no status":   `{}`,
		"bad status":  `{"status":99,"body":{}}`,
		"high status": `{"status":1000,"body":{}}`,
		"no base64":   `{"status":200,"headers":{"x-stack-body-encoding":"base64"},"body":{"base64":"!"}}`,
		"text":        `{"status":200,"headers":{"X-Stack-Body-Encoding":"base64"},"body":"words"}`,
		"nothing":     `{"status":200,"headers":{"x-stack-body-encoding":"base64"},"body":{}}`,
	}
	for name, body := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Logged)
			s.client = clientToldOf(s.Server, &body)
			m := s.open(t)
			req, _ := newRequest(t, "GET", "https://slack.com/api/x", "", "")
			_, err := roundTrip(t, m.HTTPClient("slack"), req)
			var decode *stack.DecodeError
			require.ErrorAs(t, err, &decode)
			assert.Equal(t, "/v1/proxy", decode.Route)
			m.Close(nil)
		})
	}
}

// The proxy's answers go into http.Response as any service's could: nothing panics, and what is given has its body whole.
func FuzzTransportAnswer(f *testing.F) {
	f.Add(`{"status":200,"headers":{"content-type":"application/json"},"body":{"id":12345678901234567890}}`)
	f.Add(`{"status":200,"headers":{"content-type":"text/plain"},"body":"words"}`)
	f.Add(`{"status":200,"headers":{"x-stack-body-encoding":"base64"},"body":{"base64":"//4="}}`)
	f.Add(`{"status":204,"headers":{"a\nb":"c"},"body":null}`)
	f.Add(`{"status":-1}`)
	srv := stacktest.New(f)
	agent := srv.Agent(f, stacktest.AgentConfig{Mode: stack.Standard, Services: []string{"slack"}})
	answer := ""
	m, err := clientToldOf(srv, &answer).Passports.Mission(f.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "x",
		Services: []string{"slack"}})
	require.NoError(f, err)
	f.Cleanup(func() { m.Close(nil) })
	f.Fuzz(func(t *testing.T, text string) {
		answer = text
		req, _ := newRequest(t, "GET", "https://slack.com/api/x", "", "")
		resp, err := m.Transport("slack").RoundTrip(req)
		if err != nil {
			var decode *stack.DecodeError
			require.ErrorAs(t, err, &decode)
			return
		}
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.EqualValues(t, len(body), resp.ContentLength)
		require.True(t, json.Valid([]byte(text)))
		var sent stack.ProxyResponse
		require.NoError(t, json.Unmarshal([]byte(text), &sent))
		require.Equal(t, sent.Status, resp.StatusCode)
	})
}
