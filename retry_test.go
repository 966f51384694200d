package stack_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

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
		"never sent":   {broken(errDial), 4, 4, 4},
		"no such host": {broken(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}), 4, 4, 4},
		"reset":        {broken(&net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}), 4, 4, 1},
		"certificate":  {broken(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), 1, 1, 1},
		"redirect":     {answer(307, "", "Location", "https://evil.example/"), 1, 1, 1},
		"429":          {refuse(429), 4, 4, 4},
		"connection":   {broken(io.ErrUnexpectedEOF), 4, 4, 1},
		"cut body":     {cut(), 4, 4, 1},
		"408":          {refuse(408), 4, 4, 1},
		"500":          {refuse(500), 4, 4, 1},
		"502":          {refuse(502), 4, 4, 1},
		"503":          {refuse(503), 4, 4, 1},
		"504":          {refuse(504), 4, 4, 1},
		"400":          {refuse(400), 1, 1, 1},
		"401":          {refuse(401), 1, 1, 1},
		"403":          {refuse(403), 1, 1, 1},
		"404":          {refuse(404), 1, 1, 1},
		"422":          {refuse(422), 1, 1, 1},
		"409":          {refuse(409), 1, 1, 1},
		"501":          {refuse(501), 1, 1, 1},
		"505":          {refuse(505), 1, 1, 1},
		"304":          {refuse(304), 1, 1, 1},
		"cut refusal":  {cutShort(404), 1, 1, 1},
		"not JSON":     {answer(200, "<html>"), 1, 1, 1},
		"good answer":  {answer(200, agentJSON), 1, 1, 1},
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

// cutShort is a refusal whose body ends early.
func cutShort(status int) step {
	return step{choose: func(*http.Request) step {
		return step{status: status, body: io.MultiReader(strings.NewReader(`{"error":`), errReader{})}
	}}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Of a refusal, the status is told even when its body did not arrive whole.
func TestCutRefusalKeepsItsStatus(t *testing.T) {
	t.Parallel()
	_, err := script(t, &scripted{steps: []step{cutShort(404)}}).Agents.Get(t.Context(), "agt_1")
	require.ErrorIs(t, err, stack.ErrNotFound)
}

// The escape hatch is retried by its method.
func TestRetriesOfDo(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int{"GET": 4, "get": 4, "HEAD": 1, "POST": 1, "PUT": 1, "PATCH": 1, "DELETE": 1} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{steps: []step{answer(503, "")}}
			require.Error(t, script(t, s).Do(t.Context(), method, "/v1/x", nil, nil))
			assert.Len(t, s.requests, want, method)
		})
	}
}

func TestRetryEndsWell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{steps: []step{answer(503, ""), broken(io.EOF), cut(), answer(200, agentJSON)}}
		agent, err := script(t, s).Agents.Get(t.Context(), "agt_1")
		require.NoError(t, err)
		assert.Equal(t, "agt_1", agent.ID)
		assert.Len(t, s.requests, 4)
	})
}

// The wait is a random part of a ceiling that doubles, whatever the failure.
func TestFullJitter(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]step{"status": answer(503, ""), "connection": broken(io.EOF), "cut body": cut(),
		"dial": broken(errDial)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				waits := map[time.Duration]bool{}
				for range 5 {
					s := &scripted{steps: []step{one}}
					_, err := script(t, s, stack.WithMaxRetries(8)).Agents.Get(t.Context(), "agt_1")
					require.Error(t, err)
					require.Len(t, s.at, 9)
					for i, at := range s.at[1:] {
						wait := at.Sub(s.at[i])
						waits[wait] = true
						assert.GreaterOrEqual(t, wait, time.Millisecond)
						assert.LessOrEqual(t, wait, min(250*time.Millisecond<<i, 8*time.Second)+time.Millisecond, "retry %d", i+1)
					}
				}
				assert.Greater(t, len(waits), 30, "and it is random")
			})
		})
	}
}

// What the server asks to wait is waited for, and no less, however the transport presents the answer.
func TestRetryAfterIsAFloor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		date := func(after time.Duration, layout string) func() string {
			return func() string { return time.Now().Add(after).UTC().Format(layout) }
		}
		for name, tc := range map[string]struct {
			after    func() string
			low, top time.Duration
		}{
			"seconds":           {func() string { return "7" }, 7 * time.Second, 8 * time.Second},
			"the cap":           {func() string { return "30" }, 30 * time.Second, 31 * time.Second},
			"a date":            {date(9*time.Second, http.TimeFormat), 8 * time.Second, 9 * time.Second},
			"an old form":       {date(9*time.Second, time.ANSIC), 8 * time.Second, 9 * time.Second},
			"a date that is by": {date(-time.Hour, http.TimeFormat), 0, time.Second},
			"nonsense":          {func() string { return "soon" }, 0, time.Second},
			"below zero":        {func() string { return "-5" }, 0, time.Second},
			"zero":              {func() string { return "0" }, 0, time.Second},
		} {
			for _, status := range []int{429, 503, 500} {
				var at []time.Time
				transport := transportFunc(func(*http.Request) (*http.Response, error) { // as some do, it sets no Response.Request
					at = append(at, time.Now())
					if len(at) == 1 {
						return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {tc.after()}}, Body: http.NoBody}, nil
					}
					return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(agentJSON))}, nil
				})
				c := script(t, nil, stack.WithHTTPClient(&http.Client{Transport: transport}))
				_, err := c.Agents.Get(t.Context(), "agt_1")
				require.NoError(t, err)
				require.Len(t, at, 2)
				assert.GreaterOrEqual(t, at[1].Sub(at[0]), tc.low, "%s after %d", name, status)
				assert.LessOrEqual(t, at[1].Sub(at[0]), tc.top, "%s after %d", name, status)
			}
		}
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
			"just beyond the cap":      {"31", time.Hour, 31 * time.Second},
			"beyond all bounds":        {"99999999999999999999", time.Hour, (1<<31 - 1) * time.Second},
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

// What is answered fills the budget again, one fifth of a retry at a time.
func TestRetryBudgetIsRefilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := true
		s := &scripted{steps: []step{{choose: func(r *http.Request) step {
			if down {
				return answer(503, "").choose(r)
			}
			return answer(404, "").choose(r) // an answer like any other
		}}}}
		c := script(t, s)
		calls := func(n int) int {
			before := len(s.requests)
			for range n {
				_, err := c.Agents.Get(t.Context(), "agt_1")
				require.Error(t, err)
			}
			return len(s.requests) - before
		}
		calls(100)
		assert.Equal(t, 1, calls(1), "spent")
		down = false
		assert.Equal(t, 4, calls(4))
		down = true
		assert.Equal(t, 1, calls(1), "not yet")
		down = false
		calls(1)
		down = true
		assert.Equal(t, 2, calls(1), "one retry")
		assert.Equal(t, 1, calls(1), "spent again")
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

// An answer that has arrived counts, although the context ended with it: a write that happened is told as one.
func TestAnswerWinsOverTheEndOfItsContext(t *testing.T) {
	t.Parallel()
	for status, check := range map[int]func(error){
		200: func(err error) { require.NoError(t, err) },
		403: func(err error) { require.ErrorIs(t, err, stack.ErrForbidden) },
		503: func(err error) { require.ErrorContains(t, err, "503") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &scripted{steps: []step{{choose: func(r *http.Request) step {
			cancel()
			return answer(status, agentJSON).choose(r)
		}}}}
		_, err := script(t, s).Agents.Get(ctx, "agt_1")
		check(err)
		assert.Len(t, s.requests, 1)
	}
}

// A cancelled wait between attempts ends the call, and its cause is told.
func TestCancelledWhileWaiting(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]step{"status": answer(503, "", "Retry-After", "20"), "dial": broken(errDial)} {
		synctest.Test(t, func(t *testing.T) {
			because := &stack.MissionEndedError{MissionID: "ms_1", State: stack.MissionRevoked, Err: &stack.Error{Code: "X"}}
			ctx, cancel := context.WithCancelCause(t.Context())
			s := &scripted{steps: []step{{choose: func(r *http.Request) step {
				time.AfterFunc(time.Microsecond, func() { cancel(because) })
				if one.choose != nil {
					return one.choose(r)
				}
				return one
			}}}}
			_, err := script(t, s).Agents.Get(ctx, "agt_1")
			require.ErrorIs(t, err, context.Canceled, name)
			var ended *stack.MissionEndedError
			require.ErrorAs(t, err, &ended, name)
			require.ErrorContains(t, err, "stack: GET /v1/agents/{agent_id}: context canceled: stack: Mission ms_1 has ended")
			assert.Len(t, s.requests, 1)
		})
	}
}

// The log has one line for each attempt, with the wait that follows it.
func TestAttemptsAreLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &scripted{steps: []step{answer(503, "", "Retry-After", "3", "X-Request-Id", "req_1"), broken(io.EOF), answer(503, "")}}
		c := script(t, s, stack.WithMaxRetries(3),
			stack.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
		_, err := c.Agents.Get(t.Context(), "agt_1")
		require.Error(t, err)
		type line struct {
			Msg, Method, Route, Error string
			RequestID                 string `json:"request_id"`
			Attempt, Status           int
			Elapsed                   time.Duration
			RetryIn                   time.Duration `json:"retry_in"`
		}
		var lines []line
		for dec := json.NewDecoder(&log); dec.More(); {
			var l line
			require.NoError(t, dec.Decode(&l))
			assert.Equal(t, []string{"stack call", "GET", "/v1/agents/{agent_id}"}, []string{l.Msg, l.Method, l.Route})
			assert.Equal(t, l.Attempt < 4, l.RetryIn > 0)
			lines = append(lines, line{Error: l.Error, RequestID: l.RequestID, Attempt: l.Attempt, Status: l.Status})
			if l.Attempt == 1 {
				assert.Equal(t, 3*time.Second, l.RetryIn)
			}
		}
		assert.Equal(t, []line{{Attempt: 1, Status: 503, RequestID: "req_1"}, {Attempt: 2, Error: "EOF"}, {Attempt: 3, Status: 503},
			{Attempt: 4, Status: 503}}, lines)
	})
}

// Fifty goroutines share a client through an outage.
func TestRetriesConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		failed := map[string]bool{}
		s := &scripted{steps: []step{{choose: func(r *http.Request) step {
			mu.Lock()
			defer mu.Unlock()
			if !failed[r.URL.Path] {
				failed[r.URL.Path] = true
				return answer(503, "", "Retry-After", "1").choose(r)
			}
			return answer(200, `{"id":"`+r.URL.Path[len("/prefix/v1/agents/"):]+`"}`).choose(r)
		}}}}
		c := script(t, s)
		var wg sync.WaitGroup
		for i := range 50 {
			id := "agt_" + strings.Repeat("x", i)
			wg.Go(func() {
				agent, err := c.Agents.Get(t.Context(), id)
				if assert.NoError(t, err) {
					assert.Equal(t, id, agent.ID)
				}
			})
		}
		wg.Wait()
		assert.Len(t, s.requests, 100)
	})
}
