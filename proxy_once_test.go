package stack_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// Whatever is lost on the way: the service gets a write once, and the caller its answer, or the truth that nobody has one.
func TestWritesHappenOnce(t *testing.T) {
	t.Parallel()
	type fault = stacktest.Fault
	type list = []stacktest.Fault
	const before, after = stacktest.CloseBefore, stacktest.CloseAfter
	onAPI := func(f fault) fault { f.Method, f.Path = "POST", "/v1/proxy"; return f }
	onAsking := func(f fault) fault { f.Path = "/v1/proxy/operations/get"; return f }
	onSlack := func(f fault) fault { f.Path = "upstream:slack.com"; return f }
	const ever = 1000
	tests := map[string]struct {
		faults  list
		slow    time.Duration // how long the service takes once it has the call
		arrives int
		unknown bool   // the outcome is
		code    string // of the error otherwise
		takes   time.Duration
	}{
		"nothing":               {arrives: 1},
		"API: 408":              {faults: list{onAPI(fault{Status: 408})}, arrives: 1},
		"API: 429":              {faults: list{onAPI(fault{Status: 429})}, arrives: 1},
		"API: 500":              {faults: list{onAPI(fault{Status: 500})}, arrives: 1},
		"API: 503, three times": {faults: list{onAPI(fault{Status: 503, Times: 3})}, arrives: 1},
		"API: 503, for ever":    {faults: list{onAPI(fault{Status: 503, Times: ever})}, code: "FAULT_INJECTED"},
		"API: 503, wait": {faults: list{onAPI(fault{Status: 503, RetryAfter: 20 * time.Second})}, arrives: 1,
			takes: 20 * time.Second},
		"API: 503, wait long":        {faults: list{onAPI(fault{Status: 503, RetryAfter: time.Minute})}, code: "FAULT_INJECTED"},
		"API: 400":                   {faults: list{onAPI(fault{Status: 400})}, code: "FAULT_INJECTED"},
		"API: lost before":           {faults: list{onAPI(fault{Close: before})}, arrives: 1},
		"API: lost before, for ever": {faults: list{onAPI(fault{Close: before, Times: ever})}, unknown: true},
		"API: lost after":            {faults: list{onAPI(fault{Close: after})}, arrives: 1},
		"API: lost after, for ever":  {faults: list{onAPI(fault{Close: after, Times: ever})}, arrives: 1},
		"API: cut":                   {faults: list{onAPI(fault{TruncateBytes: 3})}, arrives: 1},
		"API: hangs":                 {faults: list{onAPI(fault{Delay: time.Minute})}, arrives: 1, takes: 10 * time.Second},
		"asking fails once":          {faults: list{onAPI(fault{Close: after}), onAsking(fault{Close: after})}, arrives: 1},
		"asking fails": {faults: list{onAPI(fault{Close: after}), onAsking(fault{Status: 503, Times: ever})}, arrives: 1,
			unknown: true},
		"not sent, and asking fails": {faults: list{onAPI(fault{Close: before}), onAsking(fault{Status: 418, Times: ever})},
			unknown: true},
		"asked while it runs":      {slow: 25 * time.Second, arrives: 1, takes: 25 * time.Second},
		"asked until it times out": {slow: 40 * time.Second, arrives: 1, unknown: true, takes: 30 * time.Second},
		"service: slow to reach": {faults: list{onSlack(fault{Delay: 20 * time.Second})}, arrives: 1,
			takes: 20 * time.Second},
		"service: not reached":       {faults: list{onSlack(fault{Close: before})}, arrives: 1},
		"service: never reached":     {faults: list{onSlack(fault{Close: before, Times: ever})}, code: "UPSTREAM_UNREACHABLE"},
		"service: too late to reach": {faults: list{onSlack(fault{Delay: time.Minute})}, arrives: 1, takes: 30 * time.Second},
		"service: answer lost":       {faults: list{onSlack(fault{Close: after})}, arrives: 1, unknown: true},
		"service: answer cut":        {faults: list{onSlack(fault{TruncateBytes: 3})}, arrives: 1, unknown: true},
		"both: answer lost": {faults: list{onAPI(fault{Close: after}), onSlack(fault{Close: after})}, arrives: 1,
			unknown: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged, stack.WithTimeout(10*time.Second))
				s.Upstream("slack.com", taking(tc.slow, answers(jsonType, `{"ok":true}`)))
				m := s.open(t)
				for _, f := range tc.faults {
					s.Fault(f)
				}
				r := post("#support")
				var stored []string
				r.OnOperationID = func(id string) error { stored = append(stored, id); return nil }
				began := time.Now()
				resp, err := m.Proxy(t.Context(), r)
				assert.GreaterOrEqual(t, time.Since(began), tc.takes)
				assert.Less(t, time.Since(began), tc.takes+30*time.Second)
				assert.Len(t, s.Forwarded("slack.com"), tc.arrives)
				require.Len(t, stored, 1)
				switch {
				case tc.unknown:
					require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
				case tc.code != "":
					require.NotErrorIs(t, err, stack.ErrOutcomeUnknown)
				default:
					require.NoError(t, err)
					assert.JSONEq(t, `{"ok":true}`, string(resp.Body))
					assert.Equal(t, stored[0], resp.OperationID)
				}
				if err != nil {
					var apiErr *stack.Error
					require.ErrorAs(t, err, &apiErr)
					assert.Equal(t, stored[0], apiErr.OperationID)
					if tc.code != "" {
						assert.Equal(t, tc.code, apiErr.Code)
					}
				}
				assert.Equal(t, 1, m.Summary().Calls, "it is logged, once")
				m.Close(nil)
				if tc.arrives == 1 {
					require.NotNil(t, m.Result())
					for _, flag := range m.Result().Flags {
						assert.NotContains(t, []string{"unreported_action", "phantom_action"}, flag.Type, flag.Message)
					}
				}
			})
		})
	}
}

// What lost the answer of a service is told behind the unknown outcome.
func TestUnknownOutcomeNamesItsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		s.Upstream("slack.com", answers("text/plain", strings.Repeat("x", 10<<20+1)))
		_, err := s.do(t, s.issue(t), post("#support"))
		require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
		assert.ErrorContains(t, err, "RESPONSE_TOO_LARGE")
		assert.Len(t, s.Forwarded("slack.com"), 1)
	})
}

// Without retries a write is sent once, and what came of it is still asked for.
func TestWriteWithoutRetries(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged, stack.WithMaxRetries(0))
	p := s.issue(t)
	s.Fault(stacktest.Fault{Path: "/v1/proxy", Close: stacktest.CloseAfter})
	_, err := s.do(t, p, post("#support"))
	require.NoError(t, err)
	s.Fault(stacktest.Fault{Path: "/v1/proxy", Close: stacktest.CloseBefore})
	_, err = s.do(t, p, post("#support"))
	require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
	assert.Len(t, s.Forwarded("slack.com"), 1)
}

func TestReadsAreRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		p := s.issue(t)
		for _, f := range []stacktest.Fault{{Close: stacktest.CloseAfter, Times: 2}, {Status: 503}, {TruncateBytes: 3}} {
			before := len(s.Forwarded("slack.com"))
			f.Path = "/v1/proxy"
			s.Fault(f)
			resp, err := s.do(t, p, read)
			require.NoError(t, err)
			assert.Empty(t, resp.OperationID)
			want := map[bool]int{true: 1, false: 2}[f.Status == 503]
			if f.Times == 2 {
				want = 3
			}
			assert.Len(t, s.Forwarded("slack.com"), before+want)
		}
		assert.Equal(t, 0, s.countRows("detector.scope_drift"))
	})
}

func TestOnOperationIDStopsTheCall(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	full := errors.New("disk full")
	r := post("#support")
	before := s.Requests()
	r.OnOperationID = func(id string) error {
		assert.Regexp(t, `^[A-Za-z0-9_-]{24}$`, id)
		assert.Equal(t, before, s.Requests(), "it is told before anything is sent")
		return full
	}
	_, err := s.do(t, p, r)
	require.ErrorIs(t, err, full)
	assert.Equal(t, before, s.Requests())
	r.OperationID, r.OnOperationID = operationID, func(id string) error { assert.Equal(t, operationID, id); return nil }
	resp, err := s.do(t, p, r)
	require.NoError(t, err)
	assert.Equal(t, operationID, resp.OperationID)
}

// Two who make the same write at the same time make it once, and both get its answer.
func TestConcurrentWritesOfOneOperation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		p := s.issue(t)
		s.Upstream("slack.com", taking(4*time.Second, answers(jsonType, `{"ok":true}`)))
		r := post("#support")
		r.OperationID = operationID
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				resp, err := s.do(t, p, r)
				if assert.NoError(t, err) {
					assert.JSONEq(t, `{"ok":true}`, string(resp.Body))
				}
			})
		}
		time.Sleep(time.Second)
		other := post("#random")
		other.OperationID = operationID
		assert.ErrorIs(t, failure(s.do(t, p, other)), stack.ErrOperationReused)
		wg.Wait()
		assert.Len(t, s.Forwarded("slack.com"), 1)
	})
}

// A caller who gives up in the middle of a write finds its answer later.
func TestWriteCancelledMidWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		m := s.open(t)
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Delay: 20 * time.Second})
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, enough)
		defer cancel()
		r := post("#support")
		r.OperationID = operationID
		began := time.Now()
		_, err := m.Proxy(ctx, r)
		assert.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, enough)
		require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
		assert.Equal(t, 1, m.Summary().Calls)
		_, err = m.Proxy(t.Context(), r)
		require.NoError(t, err, "the server went on, and the answer is found under the operation id")
		assert.Len(t, s.Forwarded("slack.com"), 1)
		m.Close(nil)
	})
}

// A read whose caller has hung up ends at once on the server, too.
func TestReadCancelledMidWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		p := s.issue(t)
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Delay: 20 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.client.Proxy.Request(ctx, withPassport(read, p))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		row := s.lastRow(t, "credential.proxy")
		assert.Equal(t, stack.OutcomeFailure, row.Outcome)
		assert.Equal(t, time.Second, row.Duration)
	})
}

// A call whose context is over before it begins is not sent, and nobody wonders about its outcome.
func TestWriteCancelledBefore(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	m := s.open(t)
	before := s.Requests()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	for _, r := range []stack.ProxyRequest{post("#support"), read} {
		_, err := m.Proxy(ctx, r)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, enough)
		require.NotErrorIs(t, err, stack.ErrOutcomeUnknown)
	}
	assert.Equal(t, before, s.Requests())
	assert.Zero(t, m.Summary().Calls, "there is nothing to report")
	m.Close(nil)
}

// The passport dies while the SDK asks what became of a write: that stays unknown, is reported, and ends the Mission.
func TestPassportDiesWhileAsking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged, stack.WithTimeout(5*time.Second))
		s.Upstream("slack.com", taking(20*time.Second, answers(jsonType, `{}`)))
		m := s.open(t)
		time.AfterFunc(7*time.Second, func() { _, _ = s.client.Passports.Revoke(t.Context(), m.JTI(), "rogue") })
		_, err := m.Proxy(t.Context(), post("#support"))
		require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
		assert.ErrorContains(t, err, "rogue")
		require.ErrorIs(t, context.Cause(m.Context()), stack.ErrPassportRevoked)
		assert.Equal(t, 1, m.Summary().Calls)
		m.Close(nil)
		for _, flag := range m.Result().Flags {
			assert.NotEqual(t, "unreported_action", flag.Type, flag.Message)
		}
	})
}

// answering is a server that answers the route with these statuses and texts in turn, the last one for ever, and breaks
// every other connection.
func answering(count *atomic.Int32, route string, answers ...string) http.RoundTripper {
	return transportFunc(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		text := ""
		if strings.HasSuffix(req.URL.Path, route) {
			text = answers[min(int(count.Add(1))-1, len(answers)-1)]
		}
		if text == "" {
			return nil, io.ErrUnexpectedEOF
		}
		status, body, _ := strings.Cut(text, " ")
		code := map[string]int{"200": 200, "404": 404}[status]
		return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {jsonType}}, Request: req,
			Body: io.NopCloser(strings.NewReader(body))}, nil
	})
}

// What the hosted service may say of an operation and the mock does not.
func TestAskingAboutAnOperation(t *testing.T) {
	t.Parallel()
	const screening = `200 {"delivery_state":"response_received","replay_state":"screening"}`
	const screened = `200 {"delivery_state":"response_received","replay_state":"available","response":{"status":201}}`
	tests := map[string]struct {
		answers []string
		asked   int32
		status  int // of the answer; 0 is an unknown outcome
	}{
		"screened":     {[]string{screening, screening, screened}, 3, 201},
		"erased":       {[]string{`200 {"delivery_state":"response_received","replay_state":"erased"}`}, 1, 0},
		"expired":      {[]string{`200 {"delivery_state":"response_received","replay_state":"expired"}`}, 1, 0},
		"no such page": {[]string{"404 <html>"}, 1, 0},
		"no route":     {[]string{`404 {"error":{"code":"ROUTE_NOT_FOUND"}}`}, 1, 0},
		"for ever":     {[]string{`200 {"delivery_state":"dispatching"}`}, 11, 0},
		"garbage":      {[]string{`200 <html>`}, 1, 0},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				client, err := stack.New(stack.WithAPIKey("sk_live_x"), stack.WithBaseURL("http://stack.mock"),
					stack.WithHTTPClient(&http.Client{Transport: answering(&asked, "/operations/get", tc.answers...)}))
				require.NoError(t, err)
				r := post("#support")
				r.PassportToken = stack.NewSecret("token")
				resp, err := client.Proxy.Request(t.Context(), r)
				assert.Equal(t, tc.asked, asked.Load())
				if tc.status == 0 {
					require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, tc.status, resp.Status)
				assert.NotEmpty(t, resp.OperationID)
			})
		})
	}
}
