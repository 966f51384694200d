package stack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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
	c, err := stack.New(append([]stack.Option{stack.WithBaseURL("https://api.example/prefix/"), stack.WithAPIKey("sk_live_canary"),
		stack.WithHTTPClient(&http.Client{Transport: s})}, opts...)...)
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

func TestIDsAreEscaped(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"a b": "a%20b", "a/b": "a%2Fb", "a?b": "a%3Fb", "../x": "..%2Fx", "a%2Fb": "a%252Fb", "é": "%C3%A9",
		"a#b": "a%23b", "a+b": "a%2Bb", "A-z_0.9~": "A-z_0.9~", "...": "..."} {
		s := &scripted{steps: []step{answer(200, agentJSON)}}
		_, err := script(t, s).Agents.Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, "/prefix/v1/agents/"+want, s.requests[0].URL.EscapedPath(), id)
		assert.Empty(t, s.requests[0].URL.RawQuery)
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	s := &scripted{steps: []step{answer(200, `{"n":1}`)}}
	c := script(t, s)
	var out struct{ N int }
	require.NoError(t, c.Do(t.Context(), "post", "/v1/new/a%2Fb?x=1&y=2", map[string]any{"k": "v"}, &out))
	assert.Equal(t, 1, out.N)
	assert.Equal(t, "https://api.example/prefix/v1/new/a%2Fb?x=1&y=2", s.requests[0].URL.String())
	assert.Equal(t, "POST", s.requests[0].Method)
	assert.Equal(t, `{"k":"v"}`, s.bodies[0])
	for _, path := range []string{"", "v1/x", "//evil.example/v1", "https://evil.example/"} {
		requireParam(t, c.Do(t.Context(), "GET", path, nil, nil), "path")
	}
	assert.Len(t, s.requests, 1)
}

// The table of checkRetry.
func TestRetryTable(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(context.Context, *stack.Client) error{
		"read": func(ctx context.Context, c *stack.Client) error { _, err := c.Agents.Get(ctx, "agt_1"); return err },
		"keyed": func(ctx context.Context, c *stack.Client) error {
			_, err := c.Missions.Complete(ctx, "ms_1", stack.MissionCompleteParams{})
			return err
		},
		"other": func(ctx context.Context, c *stack.Client) error {
			_, err := c.Agents.Register(ctx, stack.AgentRegisterParams{Name: "a"})
			return err
		},
	}
	refuse := func(status int) step {
		return answer(status, `{"error":{"code":"X","message":"m"}}`)
	}
	tests := map[string]struct {
		step               step
		read, keyed, other int // attempts
	}{
		"never sent":  {broken(errDial), 4, 4, 4},
		"429":         {refuse(429), 4, 4, 4},
		"connection":  {broken(io.ErrUnexpectedEOF), 4, 4, 1},
		"cut body":    {cut(), 4, 4, 1},
		"408":         {refuse(408), 4, 4, 1},
		"500":         {refuse(500), 4, 4, 1},
		"502":         {refuse(502), 4, 4, 1},
		"503":         {refuse(503), 4, 4, 1},
		"504":         {refuse(504), 4, 4, 1},
		"400":         {refuse(400), 1, 1, 1},
		"401":         {refuse(401), 1, 1, 1},
		"404":         {refuse(404), 1, 1, 1},
		"409":         {refuse(409), 1, 1, 1},
		"501":         {refuse(501), 1, 1, 1},
		"not JSON":    {answer(200, "<html>"), 1, 1, 1},
		"good answer": {answer(200, agentJSON), 1, 1, 1},
	}
	for name, tc := range tests {
		for kind, want := range map[string]int{"read": tc.read, "keyed": tc.keyed, "other": tc.other} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := &scripted{steps: []step{tc.step}}
					err := kinds[kind](t.Context(), script(t, s))
					assert.Len(t, s.requests, want)
					for _, body := range s.bodies[1:] {
						assert.Equal(t, s.bodies[0], body, "the same body each time")
					}
					var apiErr *stack.Error
					if errors.As(err, &apiErr) {
						assert.Equal(t, want, apiErr.Attempts)
					}
				})
			})
		}
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestRetryEndsWell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{steps: []step{answer(503, "", "Retry-After", "7"), broken(io.EOF), cut(), answer(200, agentJSON)}}
		agent, err := script(t, s).Agents.Get(t.Context(), "agt_1")
		require.NoError(t, err)
		assert.Equal(t, "agt_1", agent.ID)
		assert.GreaterOrEqual(t, s.at[1].Sub(s.at[0]), 7*time.Second, "Retry-After is a floor")
		assert.Less(t, s.at[3].Sub(s.at[1]), 3*time.Second, "the jitter is bounded")
	})
}

func TestLongRetryAfterIsPassedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		date := time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)
		tests := map[string]struct {
			after string
			limit time.Duration
			want  time.Duration
		}{
			"beyond the cap":           {"3600", time.Hour * 2, time.Hour},
			"beyond the deadline":      {"20", 10 * time.Second, 20 * time.Second},
			"a date past the deadline": {date, 10 * time.Second, 20 * time.Second},
		}
		for name, tc := range tests {
			s := &scripted{steps: []step{answer(429, `{"error":{"code":"RATE_LIMITED"}}`, "Retry-After", tc.after)}}
			ctx, cancel := context.WithTimeout(t.Context(), tc.limit)
			began := time.Now()
			_, err := script(t, s).Agents.Get(ctx, "agt_1")
			cancel()
			assert.Zero(t, time.Since(began), name)
			require.ErrorIs(t, err, stack.ErrRateLimited)
			var apiErr *stack.Error
			require.ErrorAs(t, err, &apiErr)
			assert.InDelta(t, tc.want.Seconds(), apiErr.RetryAfter.Seconds(), 1, name)
			assert.Len(t, s.requests, 1)
		}
	})
}

// An outage does not multiply the load for ever.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{steps: []step{answer(503, "")}}
		c := script(t, s)
		const calls = 100
		for range calls {
			_, _ = c.Agents.Get(t.Context(), "agt_1")
		}
		assert.Equal(t, calls+100, len(s.requests), "a hundred retries, then none")
	})
}

func TestNoRetries(t *testing.T) {
	t.Parallel()
	s := &scripted{steps: []step{answer(503, "")}}
	_, err := script(t, s, stack.WithMaxRetries(0)).Agents.Get(t.Context(), "agt_1")
	require.Error(t, err)
	assert.Len(t, s.requests, 1)
}

func TestContextErrorsSurvive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{steps: []step{{hang: true}}}
		c := script(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Agents.Get(ctx, "agt_1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		because := errors.New("the operator said so")
		caused, cancelCause := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancelCause(because) })
		_, err = c.Agents.Get(caused, "agt_1")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, because)

		waiting := script(t, &scripted{steps: []step{answer(503, "", "Retry-After", "20")}})
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		began := time.Now()
		_, err = waiting.Agents.Get(ctx, "agt_1")
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, time.Second, time.Since(began), "a wait ends with the context")
	})
}

func TestTimeoutBoundsAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{steps: []step{{hang: true}, answer(200, agentJSON)}}
		began := time.Now()
		_, err := script(t, s, stack.WithTimeout(3*time.Second)).Agents.Get(t.Context(), "agt_1")
		require.NoError(t, err, "a read is tried again")
		assert.GreaterOrEqual(t, time.Since(began), 3*time.Second)
	})
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
	for _, one := range []step{answer(200, agentJSON, "X-Request-Id", "req_1"), answer(403, `{"error":{"code":"FORBIDDEN","message":"no"}}`),
		broken(errors.New("broken pipe"))} {
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
