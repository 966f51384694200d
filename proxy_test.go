package stack_test

import (
	"context"
	"encoding/json"
	"errors"
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

// started opens a Mission with the given change and returns its passport.
func (s *stage) started(t *testing.T, change ...func(*stack.MissionOpenParams)) *stack.StartedMission {
	t.Helper()
	open := stack.MissionOpenParams{IntentSummary: "Test", ExpiresIn: time.Hour}
	for _, c := range change {
		c(&open)
	}
	m, err := s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: s.agent.ID, Mission: open,
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "Test", Services: []string{"slack"}}}})
	require.NoError(t, err)
	return m
}

func (s *stage) do(t *testing.T, p *stack.Passport, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
	t.Helper()
	r.PassportToken = p.Token
	return s.client.Proxy.Request(t.Context(), r)
}

func TestProxyInjectsTheCredential(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	s.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Set-Cookie", "session=1")
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		_, _ = w.Write([]byte(`{"id":12345678901234567890,"echo":"` + r.Header.Get("Authorization") + `"}`))
	}))
	p := s.issue(t)
	resp, err := s.do(t, p, stack.ProxyRequest{Service: "slack", Method: "post", URL: "https://slack.com/api/x?a=1", Query: map[string]string{"b": "2 3"},
		Headers: map[string]string{"X-Custom": "kept", "Authorization": "Bearer stolen", "Cookie": "c=1", "X-Api-Key": "k", "X-Stack-Thing": "x", "X-Passport-Token": "y", "Host": "evil"},
		Body:    json.RawMessage(`{"n":12345678901234567890}`)})
	require.NoError(t, err)
	assert.Equal(t, 200, resp.Status)
	assert.True(t, resp.OK())
	assert.NotEmpty(t, resp.OperationID)
	assert.Contains(t, string(resp.Body), "12345678901234567890", "numbers stay exact")
	assert.NotContains(t, string(resp.Body), stacktest.DefaultCredential, "a credential that comes back is redacted")
	assert.Contains(t, string(resp.Body), "[REDACTED]")
	assert.NotContains(t, resp.Headers["x-echo"], stacktest.DefaultCredential)
	assert.NotContains(t, resp.Headers, "set-cookie")
	sent := s.Forwarded("slack.com")[0]
	assert.Equal(t, "POST", sent.Method)
	assert.Equal(t, "a=1&b=2+3", sent.Query)
	assert.Equal(t, "Bearer "+stacktest.DefaultCredential, sent.Header.Get("Authorization"))
	assert.Equal(t, "kept", sent.Header.Get("X-Custom"))
	for _, dropped := range []string{"Cookie", "X-Api-Key", "X-Stack-Thing", "X-Passport-Token"} {
		assert.Empty(t, sent.Header.Get(dropped), dropped)
	}
	assert.Contains(t, string(sent.Body), "12345678901234567890")
	rows := s.Audit()
	row := rows[len(rows)-1]
	assert.Equal(t, "credential.proxy", row.Action)
	assert.Equal(t, "vault", row.Layer)
	assert.Equal(t, p.JTI, row.PassportJTI)
	assert.Len(t, row.PayloadHash, 64)
	for _, r := range rows {
		assert.NotContains(t, r.ErrorMessage, stacktest.DefaultCredential)
	}
}

func TestProxyVerbs(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	verbs := map[string]func(context.Context, stack.ProxyRequest) (*stack.ProxyResponse, error){"GET": s.client.Proxy.Get, "POST": s.client.Proxy.Post,
		"PUT": s.client.Proxy.Put, "PATCH": s.client.Proxy.Patch, "DELETE": s.client.Proxy.Delete}
	for method, verb := range verbs {
		before := len(s.Forwarded("slack.com"))
		resp, err := verb(t.Context(), withPassport(stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"}, p))
		require.NoError(t, err)
		assert.Equal(t, method, s.Forwarded("slack.com")[before].Method)
		assert.Equal(t, method != "GET", resp.OperationID != "", "a write carries an operation id")
	}
}

// A call that is wrong in every way is refused by the earliest check; mended there, by the next.
func TestProxyOrderOfChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack", "github"}, AllowDataFrom: []string{},
			Constraints: []stack.Constraint{{Path: "body.channel", Op: stack.OpEq, Value: "#support"}}})
		s := &stage{srv, srv.Client(stack.WithMaxRetries(0)), agent}
		const leak = "a long text that came through github"
		srv.Upstream("api.github.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"text":"` + leak + `"}`))
		}))
		srv.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
		m, err := s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "x", MaxActions: 1, ExpiresIn: time.Hour},
			Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "x", Services: []string{"slack", "github"}}}})
		require.NoError(t, err)
		_, err = s.do(t, &m.Passport, stack.ProxyRequest{Service: "github", Method: "POST", URL: "https://api.github.com/", Body: map[string]any{"channel": "#support"},
			OperationID: "operation-of-another-call"})
		require.NoError(t, err)

		call := stack.ProxyRequest{Service: "notion", Method: "POST", URL: "https://elsewhere.example/", OperationID: "operation-of-another-call",
			Body: map[string]any{"channel": "#random", "text": leak}}
		refused := func(status int, code, check string) {
			t.Helper()
			_, refusal := s.do(t, &m.Passport, call)
			apiErr := requireRefused(t, refusal, status, code)
			assert.Equal(t, check, apiErr.Details["check"])
			assert.Equal(t, call.OperationID, apiErr.OperationID)
		}
		good := m.Passport.Token
		m.Passport.Token = stack.NewSecret("rubbish")
		refused(401, "UNAUTHORIZED", "passport_signature")
		m.Passport.Token = good
		refused(403, "FORBIDDEN", "service_scope")
		call.Service = "slack"
		refused(403, "FORBIDDEN", "constraint")
		call.Body.(map[string]any)["channel"] = "#support"
		refused(403, "MISSION_CAP_EXCEEDED", "mission_cap")
		m, err = s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "x", ExpiresIn: time.Hour},
			Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "x", Services: []string{"slack", "github"}}}})
		require.NoError(t, err)
		_, err = s.do(t, &m.Passport, stack.ProxyRequest{Service: "github", Method: "POST", URL: "https://api.github.com/", Body: map[string]any{"channel": "#support"}})
		require.NoError(t, err)
		refused(403, "DATA_FLOW_BLOCKED", "data_flow")
		call.Body.(map[string]any)["text"] = "fine"
		refused(409, "OPERATION_ID_REUSED", "operation_replay")
		call.OperationID = "operation-of-this-call-alone"
		refused(403, "PROXY_HOST_NOT_ALLOWED", "url_safety")
		call.URL, call.OperationID = "https://slack.com/api/x", "operation-of-the-mended-call"
		refused(502, "UPSTREAM_UNREACHABLE", "forward")
		srv.Upstream("slack.com", http.NotFoundHandler())
		resp, err := s.do(t, &m.Passport, call)
		require.NoError(t, err)
		assert.Equal(t, 404, resp.Status, "what the service says is data")
		assert.False(t, resp.OK())
	})
}

func TestProxyClientSideChecks(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	before := s.Requests()
	for param, r := range map[string]stack.ProxyRequest{
		"service":      {URL: "https://slack.com/"},
		"method":       {Service: "slack", Method: "TRACE", URL: "https://slack.com/"},
		"url":          {Service: "slack", URL: "slack.com/api"},
		"body":         {Service: "slack", Method: "POST", URL: "https://slack.com/", Body: func() {}},
		"operation id": {Service: "slack", Method: "POST", URL: "https://slack.com/", OperationID: "short"},
	} {
		_, err := s.client.Proxy.Request(t.Context(), r)
		requireParam(t, err, param)
	}
	_, err := s.client.Proxy.Request(t.Context(), stack.ProxyRequest{Service: "slack", URL: "https://user:secret@slack.com/"})
	requireParam(t, err, "url")
	assert.NotContains(t, err.Error(), "secret")
	_, err = s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: "short"})
	requireParam(t, err, "operation_id")
	_, err = s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: stack.NewOperationID()})
	requireParam(t, err, "passport token")
	assert.Equal(t, before, s.Requests())
	id := stack.NewOperationID()
	assert.Regexp(t, `^[A-Za-z0-9_-]{24}$`, id)
	assert.NotEqual(t, id, stack.NewOperationID())
}

func TestMissionCaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		get := stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"}
		tests := map[string]func(*stack.MissionOpenParams){
			"max_actions":             func(p *stack.MissionOpenParams) { p.MaxActions = 2 },
			"max_actions_per_service": func(p *stack.MissionOpenParams) { p.MaxActionsPerService = map[string]int{"slack": 2, "github": 9} },
			"max_duration_seconds":    func(p *stack.MissionOpenParams) { p.MaxDuration = time.Minute },
		}
		for capName, change := range tests {
			for _, behavior := range []stack.CapBehavior{stack.CapBlock, stack.CapWarn} {
				m := s.started(t, change, func(p *stack.MissionOpenParams) {
					p.CapBehavior = map[string]stack.CapBehavior{capName: behavior}
				})
				before := len(s.SecurityEvents())
				for range 2 {
					_, err := s.do(t, &m.Passport, get)
					require.NoError(t, err, capName)
				}
				time.Sleep(time.Minute + time.Second)
				_, err := s.do(t, &m.Passport, get)
				events := s.SecurityEvents()[before:]
				require.Len(t, events, 1, capName)
				assert.Equal(t, "mission_cap_exceeded", events[0].SignalType)
				assert.Equal(t, capName, events[0].Metadata["cap"])
				if behavior == stack.CapWarn {
					require.NoError(t, err, "let through with a warning")
					assert.Equal(t, stack.SeverityWarning, events[0].Severity)
					continue
				}
				require.ErrorIs(t, err, stack.ErrMissionCapExceeded)
				apiErr := requireRefused(t, err, 403, "MISSION_CAP_EXCEEDED")
				assert.Contains(t, apiErr.Details, "sent")
				assert.Contains(t, apiErr.Details, "allowed")
				assert.Equal(t, stack.SeverityCritical, events[0].Severity)
			}
		}
	})
}

func TestCapsHoldUnderConcurrency(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	m := s.started(t, func(p *stack.MissionOpenParams) { p.MaxActions = 10 })
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			_, _ = s.do(t, &m.Passport, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"})
		})
	}
	wg.Wait()
	assert.Len(t, s.Forwarded("slack.com"), 10)
}

func TestDataFlowWall(t *testing.T) {
	t.Parallel()
	const secret = "the quarterly numbers of the company"
	tests := map[string]struct {
		allow   []string
		blocked bool
	}{"absent allows": {nil, false}, "empty allows none": {[]string{}, true}, "named": {[]string{"github"}, false}, "another named": {[]string{"notion"}, true}}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := stacktest.New(t)
			agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Enforced, Services: []string{"slack", "github"}, AllowDataFrom: tc.allow})
			srv.Upstream("api.github.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(`{"huge":1e400,"body":"` + secret + `"}`))
			}))
			srv.Upstream("slack.com", http.NotFoundHandler())
			err := srv.Client().Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "x", Services: []string{"slack", "github"}},
				func(ctx context.Context, m *stack.Mission) error {
					if _, err := m.Proxy(ctx, stack.ProxyRequest{Service: "github", URL: "https://api.github.com/x"}); err != nil {
						return err
					}
					_, err := m.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage",
						Headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, Body: "text=FYI%3A+" + strings.ReplaceAll(secret, " ", "+")})
					return err
				})
			if !tc.blocked {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, stack.ErrDataFlowBlocked)
			events := srv.SecurityEvents()
			assert.Equal(t, "data_flow_violation", events[0].SignalType)
			for _, v := range events[0].Metadata {
				assert.NotContains(t, v, secret)
			}
			assert.Empty(t, srv.Forwarded("slack.com"))
		})
	}
}

func TestDriftRevokesAnEnforcedPassport(t *testing.T) {
	t.Parallel()
	for mode, dies := range map[stack.Accountability]bool{stack.Enforced: true, stack.Logged: false} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, mode)
			p := s.issue(t)
			var err error
			calls := 0
			for i := range 30 {
				if _, err = s.do(t, p, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/" + string(rune('a'+i)) + "/list"}); err != nil {
					break
				}
				calls++
			}
			assert.Contains(t, s.signals(), "scope_drift")
			if !dies {
				require.NoError(t, err)
				assert.Len(t, s.signals(), 1, "once per passport")
				return
			}
			require.ErrorIs(t, err, stack.ErrPassportRevoked)
			assert.Equal(t, 9, calls, "eight new paths at 0.25 reach 2.00 with the ninth call, which still goes through")
			assert.Contains(t, s.RequireRevoked(t, p.JTI), "scope_drift_fire:")
		})
	}
}

func TestProxyBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		p := s.issue(t)
		var err error
		for range 61 {
			_, err = s.do(t, p, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"})
			require.NoError(t, err)
		}
		assert.Equal(t, []string{"credential_burst"}, s.signals())
		assert.Equal(t, stack.SeverityWarning, s.SecurityEvents()[0].Severity)
		for err == nil {
			_, err = s.do(t, p, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"})
		}
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
		assert.Len(t, s.Forwarded("slack.com"), 180, "at three times the bound it is critical")
	})
}

func TestDeadPassportsRaiseEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		get := stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"}
		expired := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL = time.Minute })
		time.Sleep(time.Minute)
		_, err := s.do(t, expired, get)
		require.ErrorIs(t, err, stack.ErrPassportExpired)
		revoked := s.issue(t)
		_, err = s.client.Passports.Revoke(t.Context(), revoked.JTI, "x")
		require.NoError(t, err)
		_, err = s.do(t, revoked, get)
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
		assert.Equal(t, []string{"expired_passport_use", "revoked_passport_use"}, s.signals())
		_, err = s.client.Proxy.Request(t.Context(), get)
		requireRefused(t, err, 401, "UNAUTHORIZED")

		s.SetPolicy(stacktest.Policy{RevocationDelay: 30 * time.Second})
		slow := s.issue(t)
		_, err = s.client.Passports.Revoke(t.Context(), slow.JTI, "x")
		require.NoError(t, err)
		_, err = s.do(t, slow, get)
		require.NoError(t, err, "the revocation has not reached the proxy")
		time.Sleep(30 * time.Second)
		_, err = s.do(t, slow, get)
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
	})
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
		_, err = s.do(t, p, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"})
		require.NoError(t, err)
		assert.Zero(t, time.Since(began))
		require.NoError(t, <-done)
	})
}

const operationID = "op-0123456789-0123456789"

func TestOperationsReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		m := s.started(t, func(p *stack.MissionOpenParams) { p.ExpiresIn = 24 * time.Hour })
		r := post("#support")
		r.OperationID = operationID
		first, err := s.do(t, &m.Passport, r)
		require.NoError(t, err)
		again, err := s.do(t, &m.Passport, r)
		require.NoError(t, err)
		assert.Equal(t, first, again)
		assert.Len(t, s.Forwarded("slack.com"), 1, "it happened once")
		other := post("#random")
		other.OperationID = operationID
		_, err = s.do(t, &m.Passport, other)
		require.ErrorIs(t, err, stack.ErrOperationReused)
		requireRefused(t, err, http.StatusConflict, "OPERATION_ID_REUSED")

		op, err := s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: operationID, PassportToken: m.Passport.Token})
		require.NoError(t, err)
		assert.Nil(t, op.Response)
		op, err = s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: operationID, IncludeResponse: true, PassportToken: m.Passport.Token})
		require.NoError(t, err)
		assert.Equal(t, stack.DeliveryResponseReceived, op.DeliveryState)
		assert.Equal(t, stack.ReplayAvailable, op.ReplayState)
		assert.Equal(t, stack.AccountingCommitted, op.AccountingState)
		assert.Equal(t, "slack", op.Provider)
		assert.Equal(t, "POST", op.Method)
		assert.Equal(t, "not_required", op.ProviderOutcome)
		assert.NotNil(t, op.DispatchedAt)
		assert.NotNil(t, op.ResponseReceivedAt)
		assert.JSONEq(t, `{"ok":true}`, string(op.Response.Body))
		_, err = s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: stack.NewOperationID(), PassportToken: m.Passport.Token})
		requireRefused(t, err, 404, "NOT_FOUND")
		stranger := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
		theirs := s.issue(t, func(p *stack.PassportIssueParams) { p.AgentID = stranger.ID })
		_, err = s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: operationID, PassportToken: theirs.Token})
		requireRefused(t, err, 404, "NOT_FOUND")
	})
}

// What a lost answer does to a write: it happens at most once, and the caller learns what can be known.
func TestWritesHappenOnce(t *testing.T) {
	t.Parallel()
	api := func(f stacktest.Fault) stacktest.Fault { f.Method, f.Path = "POST", "/v1/proxy"; return f }
	slack := func(f stacktest.Fault) stacktest.Fault { f.Path = "upstream:slack.com"; return f }
	tests := map[string]struct {
		fault   stacktest.Fault
		arrives int
		wantErr error
		code    string
	}{
		"API refuses before it handles":  {api(stacktest.Fault{Status: 503}), 1, nil, ""},
		"connection lost before":         {api(stacktest.Fault{Close: stacktest.CloseBefore}), 1, nil, ""},
		"connection lost after":          {api(stacktest.Fault{Close: stacktest.CloseAfter}), 1, nil, ""},
		"answer cut":                     {api(stacktest.Fault{TruncateBytes: 3}), 1, nil, ""},
		"API hangs past the timeout":     {api(stacktest.Fault{Delay: time.Minute}), 1, nil, ""},
		"service slower than the client": {slack(stacktest.Fault{Delay: 20 * time.Second}), 1, nil, ""},
		"service not reached":            {slack(stacktest.Fault{Close: stacktest.CloseBefore}), 1, nil, ""},
		"service's answer lost":          {slack(stacktest.Fault{Close: stacktest.CloseAfter}), 1, stack.ErrOutcomeUnknown, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged, stack.WithTimeout(10*time.Second))
				p := s.issue(t)
				s.Fault(tc.fault)
				r := post("#support")
				var stored string
				r.OnOperationID = func(id string) error { stored = id; return nil }
				resp, err := s.do(t, p, r)
				assert.Len(t, s.Forwarded("slack.com"), tc.arrives)
				require.NotEmpty(t, stored)
				if tc.wantErr == nil {
					require.NoError(t, err)
					assert.JSONEq(t, `{"ok":true}`, string(resp.Body))
					assert.Equal(t, stored, resp.OperationID)
					return
				}
				require.ErrorIs(t, err, tc.wantErr)
				var apiErr *stack.Error
				require.ErrorAs(t, err, &apiErr)
				assert.Equal(t, stored, apiErr.OperationID)
				r.OperationID, r.OnOperationID = stored, nil
				_, err = s.do(t, p, r)
				requireRefused(t, err, http.StatusConflict, "OPERATION_OUTCOME_UNKNOWN")
				assert.Len(t, s.Forwarded("slack.com"), tc.arrives, "nobody sends it again")
			})
		})
	}
}

func TestOnOperationIDStopsTheCall(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	full := errors.New("disk full")
	r := post("#support")
	r.OnOperationID = func(string) error { return full }
	before := s.Requests()
	_, err := s.do(t, p, r)
	require.ErrorIs(t, err, full)
	assert.Equal(t, before, s.Requests())
}

func TestWriteCancelledMidWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		p := s.issue(t)
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Delay: 20 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := withPassport(post("#support"), p)
		r.OperationID = operationID
		_, err := s.client.Proxy.Request(ctx, r)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
		_, err = s.client.Proxy.Request(t.Context(), r)
		require.NoError(t, err, "the server went on, and the answer is found under the operation id")
		assert.Len(t, s.Forwarded("slack.com"), 1)
	})
}

func TestProxyUpstreamTrouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged, stack.WithMaxRetries(0), stack.WithTimeout(2*time.Minute))
		p := s.issue(t)
		get := stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"}
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Delay: time.Minute})
		began := time.Now()
		_, err := s.do(t, p, get)
		requireRefused(t, err, http.StatusGatewayTimeout, "UPSTREAM_TIMEOUT")
		assert.Equal(t, 30*time.Second, time.Since(began))
		s.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 10<<20+1)) }))
		_, err = s.do(t, p, get)
		requireRefused(t, err, http.StatusBadGateway, "RESPONSE_TOO_LARGE")
		s.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0xff, 0xfe}) }))
		resp, err := s.do(t, p, get)
		require.NoError(t, err)
		assert.JSONEq(t, `{"base64":"//4="}`, string(resp.Body))
		assert.Equal(t, "base64", resp.Headers["x-stack-body-encoding"])
		err = s.client.Do(t.Context(), "POST", "/v1/proxy", map[string]any{"service": "slack", "method": "POST", "url": "https://slack.com/", "body": strings.Repeat("x", 10<<20)}, nil)
		requireRefused(t, err, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	})
}

func TestProxyUsage(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	for range 3 {
		_, err := s.do(t, p, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x"})
		require.NoError(t, err)
	}
	u, err := s.client.Proxy.Usage(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 3, u.Used)
	assert.Equal(t, stack.TierEnterprise, u.Tier)
	assert.Nil(t, u.Limit, "no limit on this plan")
}
