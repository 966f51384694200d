package stack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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

func TestMissionChecksOutOnEveryPath(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	tests := map[string]struct {
		run     func(context.Context, *stack.Mission) error
		wantErr error
		state   stack.MissionState
		summary string
	}{
		"return":        {func(context.Context, *stack.Mission) error { return nil }, nil, stack.MissionCompleted, ""},
		"error":         {func(context.Context, *stack.Mission) error { return boom }, boom, stack.MissionRevoked, "Mission failed: *errors.errorString: boom"},
		"marked failed": {func(_ context.Context, m *stack.Mission) error { _ = m.Fail(boom); return nil }, nil, stack.MissionRevoked, "Mission failed: *errors.errorString: boom"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Enforced)
			var m *stack.Mission
			err := s.client.Passports.RunMission(t.Context(), s.params(), func(ctx context.Context, mission *stack.Mission) error {
				m = mission
				return tc.run(ctx, mission)
			})
			require.ErrorIs(t, err, tc.wantErr)
			s.RequireCheckedOut(t, m.JTI())
			record, err := s.client.Missions.Get(t.Context(), m.ID())
			require.NoError(t, err)
			assert.Equal(t, tc.state, record.Status)
			report, err := s.client.Passports.Report(t.Context(), m.JTI())
			require.NoError(t, err)
			assert.Equal(t, tc.summary, report.Checkout.Summary)
			assert.Error(t, m.Context().Err(), "the context ends with the Mission")
		})
	}
}

func TestMissionChecksOutAPanicAndLetsItGoOn(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	var jti, id string
	assert.PanicsWithValue(t, "kaboom", func() {
		var err error
		m := s.open(t)
		jti, id = m.JTI(), m.ID()
		defer m.Close(&err)
		panic("kaboom")
	})
	s.RequireCheckedOut(t, jti)
	record, err := s.client.Missions.Get(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, stack.MissionRevoked, record.Status)
	assert.Contains(t, record.EndNotes, "kaboom")
}

func TestMissionChecksOutWhenTheRunIsLeftByGoexit(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	var m *stack.Mission
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.client.Passports.RunMission(t.Context(), s.params(), func(_ context.Context, mission *stack.Mission) error {
			m = mission
			goexit()
			return nil
		})
	}()
	<-done
	s.RequireCheckedOut(t, m.JTI())
	record, err := s.client.Missions.Get(t.Context(), m.ID())
	require.NoError(t, err)
	assert.Equal(t, stack.MissionRevoked, record.Status)
}

func TestMissionChecksOutAfterTheOpenersContextIsDone(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	ctx, cancel := context.WithCancel(t.Context())
	m, err := s.client.Passports.Mission(ctx, s.params())
	require.NoError(t, err)
	cancel()
	_, proxyErr := m.Proxy(m.Context(), post("#support"))
	require.ErrorIs(t, proxyErr, context.Canceled)
	runErr := proxyErr
	m.Close(&runErr)
	assert.Equal(t, proxyErr, runErr, "closing had nothing to add")
	s.RequireCheckedOut(t, m.JTI())
	m.Close(&runErr) // once more: nothing happens
	assert.Equal(t, proxyErr, runErr)
}

// The kill switch ends the context with its cause, from a proxied call, a checkpoint, or the poll of an idle agent.
func TestMissionLearnsOfARevocation(t *testing.T) {
	t.Parallel()
	learn := map[string]func(*testing.T, *stack.Mission){
		"from a proxied call": func(t *testing.T, m *stack.Mission) {
			_, err := m.Proxy(t.Context(), post("#support"))
			require.ErrorIs(t, err, stack.ErrPassportRevoked)
		},
		"from a checkpoint": func(t *testing.T, m *stack.Mission) {
			require.ErrorIs(t, m.Checkpoint(t.Context()), stack.ErrPassportRevoked)
		},
		"from the poll": func(t *testing.T, m *stack.Mission) {
			began := time.Now()
			<-m.Context().Done()
			assert.LessOrEqual(t, time.Since(began), 60*time.Second, "the promise of the kill switch")
		},
	}
	for name, how := range learn {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Enforced)
				m := s.open(t)
				_, err := s.client.Passports.Revoke(t.Context(), m.JTI(), "gone rogue")
				require.NoError(t, err)
				how(t, m)
				require.Error(t, m.Context().Err())
				cause := context.Cause(m.Context())
				require.ErrorIs(t, cause, stack.ErrPassportRevoked)
				assert.ErrorContains(t, cause, "gone rogue")
				_, err = m.Proxy(t.Context(), post("#support"))
				require.ErrorIs(t, err, stack.ErrPassportRevoked, "later calls are refused without being sent")
				_, err = m.Token(t.Context())
				require.ErrorIs(t, err, stack.ErrPassportRevoked)

				var runErr error // the run did not notice: it is told at the end
				m.Close(&runErr)
				require.ErrorIs(t, runErr, stack.ErrPassportRevoked)
				s.RequireCheckedOut(t, m.JTI())
				assert.Len(t, s.Forwarded("slack.com"), 0)
			})
		})
	}
}

func TestMissionEndedByTheOperatorIsTheCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		m := s.open(t)
		_, err := s.client.Missions.Revoke(t.Context(), m.ID(), stack.MissionRevokeParams{Reason: stack.ReasonAdversarial})
		require.NoError(t, err)
		<-m.Context().Done()
		var ended *stack.MissionEndedError
		require.ErrorAs(t, context.Cause(m.Context()), &ended)
		assert.Equal(t, m.ID(), ended.MissionID)
		assert.Equal(t, stack.MissionRevoked, ended.State)
		m.Close(nil)
	})
}

// One poll serves all Missions of a client.
func TestPollIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		var missions []*stack.Mission
		for range 20 {
			missions = append(missions, s.open(t))
		}
		before := s.Requests()
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		assert.Equal(t, 4, s.Requests()-before, "one request every 15 s")
		for _, m := range missions {
			m.Close(nil)
		}
		before = s.Requests()
		time.Sleep(time.Minute)
		assert.Equal(t, before, s.Requests(), "no Mission, no poll")
	})
}

// Fault 9: a call that failed is logged; one that never reached the proxy is not.
func TestFailedCallsAreLogged(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged, stack.WithMaxRetries(0))
	m := s.open(t)
	_, err := m.Proxy(t.Context(), stack.ProxyRequest{Service: "slack", Method: "GET", URL: "https://unmapped.example/x"})
	require.Error(t, err)
	_, err = m.Proxy(t.Context(), stack.ProxyRequest{Service: "github", Method: "GET", URL: "https://api.github.com/x"})
	require.ErrorIs(t, err, stack.ErrForbidden)
	_, err = m.Proxy(t.Context(), stack.ProxyRequest{Service: "slack", URL: "not a url"})
	var param *stack.ParamError
	require.ErrorAs(t, err, &param)
	_, err = m.Proxy(t.Context(), post("#support"))
	require.NoError(t, err)
	summary := m.Summary()
	assert.Equal(t, 3, summary.Calls)
	assert.Equal(t, 2, summary.Failed)
	m.Close(nil)
	require.NotNil(t, m.Result())
	for _, flag := range m.Result().Flags {
		assert.NotEqual(t, "unreported_action", flag.Type, flag.Message)
		assert.NotEqual(t, "phantom_action", flag.Type, flag.Message)
	}
}

// A read that may have happened is logged, although the last attempt at it was refused at the door.
func TestReadThatActedBeforeItWasRefusedIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged, stack.WithMaxRetries(1))
		m := s.open(t)
		s.Fault(stacktest.Fault{Path: "/v1/proxy", Status: 429})
		s.Fault(stacktest.Fault{Path: "/v1/proxy", Close: stacktest.CloseAfter})
		_, err := m.Proxy(t.Context(), read)
		require.ErrorIs(t, err, stack.ErrRateLimited)
		assert.Len(t, s.Forwarded("slack.com"), 1)
		assert.Equal(t, 1, m.Summary().Calls)
		s.Fault(stacktest.Fault{Path: "/v1/proxy", Status: 429, Times: 2})
		_, err = m.Proxy(t.Context(), read)
		require.ErrorIs(t, err, stack.ErrRateLimited)
		assert.Equal(t, 1, m.Summary().Calls, "this one was refused twice")
		m.Close(nil)
	})
}

// Fault 10: the passport is renewed inside the Mission.
func TestTokenIsRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		m := s.open(t, func(p *stack.MissionParams) { p.TTL, p.ExpiresIn = time.Minute, time.Hour })
		jti := m.JTI()
		first, err := m.Token(t.Context())
		require.NoError(t, err)
		before := s.Requests()
		again, err := m.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, first.Reveal(), again.Reveal(), "a short life is no reason to renew on every call")
		assert.Equal(t, before, s.Requests())
		for range 50 {
			time.Sleep(time.Minute)
			_, err := m.Proxy(t.Context(), post("#support"))
			require.NoError(t, err)
		}
		assert.Equal(t, jti, m.JTI())
		m.Close(nil)
	})
}

func TestTokenIsRenewedOnceForAllWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		m := s.open(t, func(p *stack.MissionParams) { p.ExpiresIn = time.Hour })
		time.Sleep(14*time.Minute - time.Second)
		synctest.Wait()
		s.Fault(stacktest.Fault{Path: "/v1/passports/refresh", Delay: 2 * time.Second})
		time.Sleep(2 * time.Second)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := m.Token(t.Context())
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		refreshes := 0
		for _, e := range s.Audit() {
			if e.Action == "passport.refresh" {
				refreshes++
			}
		}
		assert.Equal(t, 1, refreshes)
		m.Close(nil)
	})
}

// Fault 11: a bound enforced Mission has checkpoints, and is left open.
func TestBoundMission(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		opened, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "Shared", ExpiresIn: time.Hour})
		require.NoError(t, err)
		m := s.open(t, func(p *stack.MissionParams) { p.MissionID = opened.MissionID })
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		assert.Len(t, s.Checkpoints(m.JTI()), 1)
		var runErr error
		m.Close(&runErr)
		require.NoError(t, runErr)
		record, err := s.client.Missions.Get(t.Context(), opened.MissionID)
		require.NoError(t, err)
		assert.Equal(t, stack.MissionLive, record.Status)
	})
}

// Fault 14: an answer without a passport leaves no Mission open.
func TestUnusableStartAnswerClosesTheMission(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	withoutPassport := transportFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := s.Transport().RoundTrip(req)
		if err != nil || req.URL.Path != "/v1/missions/start" {
			return resp, err
		}
		defer resp.Body.Close() //nolint:errcheck // read to its end
		var answer map[string]any
		if err = json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return nil, err
		}
		delete(answer, "passport")
		body, err := json.Marshal(answer)
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return resp, err
	})
	client := s.client
	broken := s.Client(stack.WithHTTPClient(&http.Client{Transport: withoutPassport}))
	_, err := broken.Passports.Mission(t.Context(), s.params())
	var decode *stack.DecodeError
	require.ErrorAs(t, err, &decode)
	page, err := client.Missions.List(t.Context(), stack.MissionListParams{})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	assert.Equal(t, stack.MissionRevoked, page.Items[0].Status)
}

// Fault 16: what is reported of a call and of a failure is bounded and bare.
func TestReportsHoldNoSecretsAndAreBounded(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	m := s.open(t)
	_, err := m.Proxy(t.Context(), post("#support"))
	require.NoError(t, err)
	m.Log("slack", "POST", "https://user:password@slack.com/path?token=secret#fragment")
	require.NoError(t, m.Checkpoint(t.Context()))
	runErr := errors.New(strings.Repeat("long ", 5000))
	m.Close(&runErr)
	var targets []string
	for _, call := range s.Checkpoints(m.JTI())[0].ToolCalls {
		targets = append(targets, call.Target)
	}
	assert.Equal(t, []string{"https://slack.com/api/chat.postMessage", "https://slack.com/path"}, targets)
	assert.Less(t, len(s.Checkout(m.JTI()).Summary), 1000)
}

func TestStandardAgentHasNoCheckpoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Standard)
		m := s.open(t, func(p *stack.MissionParams) { p.CheckpointInterval = time.Minute })
		require.NoError(t, m.Checkpoint(t.Context()))
		time.Sleep(10 * time.Minute)
		var err error
		m.Close(&err)
		require.NoError(t, err)
		assert.Empty(t, s.Checkpoints(m.JTI()))
		assert.Equal(t, stack.ReviewClean, m.Result().ReviewStatus)
	})
}

// Fault 20: a successful exit may say what came of it.
func TestMissionResult(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	m := s.open(t)
	_, err := m.Proxy(t.Context(), post("#support"))
	require.NoError(t, err)
	m.SetResult("Acknowledged one ticket.", map[string]any{"tickets": 1})
	m.Close(&err)
	require.NoError(t, err)
	assert.Equal(t, "Acknowledged one ticket.", s.Checkout(m.JTI()).Summary)
	record, err := s.client.Missions.Get(t.Context(), m.ID())
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"tickets": 1.0}, record.Output)
	assert.Equal(t, stack.ReviewClean, m.Result().ReviewStatus, m.Result().Flags)
	table := m.Summary().String()
	assert.Regexp(t, `slack +yes +1 +0 +POST×1`, table)
	assert.Contains(t, table, "review: clean")
}

func TestSummaryNamesUndeclaredServices(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	m := s.open(t)
	m.Log("github", "GET", "")
	m.Close(nil)
	assert.Regexp(t, `github +NO +1 +0 +GET×1`, m.Summary().String())
	assert.Equal(t, stack.ReviewBlocked, m.Result().ReviewStatus)
}

func TestMissionDelegates(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	child := s.Agent(t, stacktest.AgentConfig{Mode: stack.Enforced})
	m := s.open(t, func(p *stack.MissionParams) { p.WillDelegate = true })
	passport, err := m.Delegate(t.Context(), stack.PassportDelegateParams{ChildAgentID: child.ID})
	require.NoError(t, err)
	request := post("#support")
	request.PassportToken = passport.Token
	_, err = s.client.Proxy.Request(t.Context(), request)
	require.NoError(t, err)
	var closeErr error
	m.Close(&closeErr)
	require.NoError(t, closeErr)
	assert.Equal(t, []string{child.ID}, s.Checkout(m.JTI()).DelegatedTo)
	_, err = m.Delegate(t.Context(), stack.PassportDelegateParams{ChildAgentID: child.ID})
	require.ErrorContains(t, err, "MISSION_CLOSED")
}

func TestMissionIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	m := s.open(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			_, err := m.Proxy(t.Context(), stack.ProxyRequest{Service: "slack", URL: fmt.Sprintf("https://slack.com/%d", i)})
			assert.NoError(t, err)
			m.Log("slack", "GET", "local")
			assert.NoError(t, m.Checkpoint(t.Context()))
			_ = m.Summary()
		})
	}
	wg.Wait()
	var err error
	m.Close(&err)
	require.NoError(t, err)
	assert.Equal(t, 32, m.Summary().Calls)
}

func TestMissionParamsAreCheckedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	bad := map[string]func(*stack.MissionParams){
		"agent_id":                    func(p *stack.MissionParams) { p.AgentID = "" },
		"intent":                      func(p *stack.MissionParams) { p.Intent = "" },
		"ttl_seconds":                 func(p *stack.MissionParams) { p.TTL = 2 * time.Hour },
		"checkpoint_interval_seconds": func(p *stack.MissionParams) { p.CheckpointInterval = time.Second },
		"expires_in_seconds":          func(p *stack.MissionParams) { p.ExpiresIn = 25 * time.Hour },
		"estimated_duration_seconds":  func(p *stack.MissionParams) { p.EstimatedDuration = 1500 * time.Millisecond },
	}
	before := s.Requests()
	for name, change := range bad {
		p := s.params()
		change(&p)
		_, err := s.client.Passports.Mission(t.Context(), p)
		var param *stack.ParamError
		require.ErrorAs(t, err, &param, name)
		assert.Equal(t, name, param.Param)
	}
	assert.Equal(t, before, s.Requests())
}
