package stacktest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"ok":true}`))
})

func post() stack.ProxyRequest {
	return stack.ProxyRequest{Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage?a=b", Body: map[string]any{"text": "hi"}}
}

func run(ctx context.Context, client *stack.Client, agentID string, fn func(context.Context, *stack.Mission) error) error {
	return client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agentID, Intent: "test", Services: []string{"slack"}}, fn)
}

// recorder is a TB that notes failures instead of failing.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
	logs     []string
	cleanups []func()
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return context.Background() }
func (r *recorder) Cleanup(f func())         { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// try runs fn as a test of its own would and returns how it failed.
func try(t *testing.T, fn func(tb stacktest.TB)) []string {
	t.Helper()
	return tryLogged(t, fn).failures
}

func tryLogged(t *testing.T, fn func(tb stacktest.TB)) *recorder {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(r)
	}()
	<-done
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
	return r
}

func TestAgentIsReadyToWork(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t, stacktest.FailOnOpenMissions())
	srv.Upstream("Slack.com", ok)
	srv.Upstream("crm.example", ok)
	agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack", "crm"}, Credential: "the-credential"})
	err := srv.Client().Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "x", Services: []string{"slack", "crm"}},
		func(ctx context.Context, m *stack.Mission) error {
			if _, err := m.Proxy(ctx, post()); err != nil {
				return err
			}
			_, err := m.Proxy(ctx, stack.ProxyRequest{Service: "crm", URL: "https://crm.example/people"})
			return err
		})
	require.NoError(t, err)
	sent := srv.Forwarded("slack.com")
	require.Len(t, sent, 1)
	assert.Equal(t, "POST", sent[0].Method)
	assert.Equal(t, "/api/chat.postMessage", sent[0].Path)
	assert.Equal(t, "a=b", sent[0].Query)
	assert.Equal(t, "Bearer the-credential", sent[0].Header.Get("Authorization"))
	assert.JSONEq(t, `{"text":"hi"}`, string(sent[0].Body))
	assert.Len(t, srv.Forwarded("crm.example"), 1)
	sent[0].Header.Set("Authorization", "tampered")
	assert.Equal(t, "Bearer the-credential", srv.Forwarded("slack.com")[0].Header.Get("Authorization"), "views are copies")
	srv.RequireNoSecurityEvents(t)
	srv.RequireAuditIntact(t)
	assert.Equal(t, "agent.register", srv.Audit()[0].Action)
}

func TestWorksInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
		began := srv.Now()
		var jti string
		err := run(t.Context(), srv.Client(), agent.ID, func(ctx context.Context, m *stack.Mission) error {
			jti = m.JTI()
			time.Sleep(10 * time.Minute)
			return ctx.Err()
		})
		require.NoError(t, err)
		assert.Equal(t, 10*time.Minute, srv.Now().Sub(began))
		assert.Len(t, srv.Checkpoints(jti), 2)
	})
}

func TestURLIsTheSameServer(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	url, err := srv.URL()
	require.NoError(t, err)
	again, err := srv.URL()
	require.NoError(t, err)
	assert.Equal(t, url, again)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client, err := stack.New(stack.WithBaseURL(url), stack.WithAPIKey(srv.APIKey()), stack.WithHTTPClient(&http.Client{Transport: transport}))
	require.NoError(t, err)
	agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "over-tcp"})
	require.NoError(t, err)
	got, err := srv.Client().Agents.Get(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, srv.OperatorID(), got.OperatorID)
	assert.Equal(t, 2, srv.Requests())
}

func TestAdvanceMakesWhatFellDueHappen(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	err := run(t.Context(), srv.Client(), agent.ID, func(ctx context.Context, m *stack.Mission) error {
		srv.Advance(5 * time.Minute)
		assert.Contains(t, srv.RequireRevoked(t, m.JTI()), "checkpoint_silence_fire:")
		_, err := m.Proxy(ctx, post())
		return err
	})
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	var signals []string
	for _, e := range srv.SecurityEvents() {
		signals = append(signals, e.SignalType)
	}
	assert.Equal(t, []string{"checkpoint_silence", "revoked_passport_use"}, signals)
}

func TestBadSettingsPanic(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	assert.Panics(t, func() { srv.Advance(-time.Second) })
	assert.Panics(t, func() { srv.SetPolicy(stacktest.Policy{Tier: "gold"}) })
	assert.Panics(t, func() { srv.SetPolicy(stacktest.Policy{RevocationDelay: time.Millisecond}) })
	assert.Panics(t, func() { srv.Client(stack.WithTimeout(-1)) })
}

func TestUnknownRequests(t *testing.T) {
	t.Parallel()
	r := tryLogged(t, func(tb stacktest.TB) {
		srv := stacktest.New(tb)
		srv.RequireNoUnknownRequests(tb)
		client := srv.Client()
		assert.Error(t, client.Do(tb.Context(), "POST", "/v1/agent", nil, nil))
		assert.Error(t, client.Do(tb.Context(), "PUT", "/v1/agents", nil, nil))
		assert.Equal(t, []string{"POST /v1/agent (the nearest is GET /v1/agents)",
			"PUT /v1/agents (the nearest is GET /v1/agents)"}, srv.UnknownRequests())
		srv.RequireNoUnknownRequests(tb)
	})
	require.Len(t, r.failures, 1)
	assert.Contains(t, r.failures[0], "no route POST /v1/agent")
	assert.Len(t, r.logs, 2)
}

func TestCloseWaitsForWhatIsHandled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, err := stacktest.Start()
		require.NoError(t, err)
		var handled atomic.Bool
		srv.Upstream("slack.com", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			time.Sleep(10 * time.Second)
			handled.Store(true)
		}))
		agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
		go func() {
			_ = run(t.Context(), srv.Client(stack.WithMaxRetries(0)), agent.ID,
				func(ctx context.Context, m *stack.Mission) error { _, err := m.Proxy(ctx, post()); return err })
		}()
		time.Sleep(time.Second)
		srv.Close()
		assert.True(t, handled.Load())
		srv.Close()
	})
}

func TestCloseEndsADelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, err := stacktest.Start()
		require.NoError(t, err)
		srv.Fault(stacktest.Fault{Path: "/v1/agents", Delay: time.Hour})
		began := time.Now()
		go func() { _, _ = srv.Client(stack.WithMaxRetries(0)).Agents.List(t.Context()) }()
		time.Sleep(time.Second)
		srv.Close()
		assert.Equal(t, time.Second, time.Since(began))
	})
}

func TestWithLogger(t *testing.T) {
	t.Parallel()
	var log strings.Builder // written by one request at a time, the last one before Close returns
	srv, err := stacktest.Start(stacktest.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	require.NoError(t, err)
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}, Credential: "hush-hush"})
	srv.Close()
	assert.Contains(t, log.String(), "route=/v1/agents/register status=200")
	for _, secret := range []string{"hush-hush", srv.APIKey(), agent.ID} {
		assert.NotContains(t, log.String(), secret)
	}
}

func TestUpstreamURL(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	require.Error(t, srv.UpstreamURL("slack.com", "not a url"))
	assert.Panics(t, func() { srv.Upstream("no host at all", ok) })
}

func TestFailOnOpenMissions(t *testing.T) {
	t.Parallel()
	failures := try(t, func(tb stacktest.TB) {
		srv := stacktest.New(tb, stacktest.FailOnOpenMissions())
		_, err := srv.Client().Missions.Open(tb.Context(), stack.MissionOpenParams{IntentSummary: "forgotten"})
		assert.NoError(t, err)
	})
	require.Len(t, failures, 1)
	assert.Contains(t, failures[0], "forgotten")
}

func TestAssertionsFail(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		assert func(*stacktest.Server, stacktest.TB, *stack.Mission)
		want   string
	}{
		"not checked out": {func(s *stacktest.Server, tb stacktest.TB, m *stack.Mission) { s.RequireCheckedOut(tb, m.JTI()) }, "was not checked out; it is active"},
		"unknown":         {func(s *stacktest.Server, tb stacktest.TB, _ *stack.Mission) { s.RequireCheckedOut(tb, "pp_x") }, `no passport "pp_x"`},
		"not revoked":     {func(s *stacktest.Server, tb stacktest.TB, m *stack.Mission) { s.RequireRevoked(tb, m.JTI()) }, "is not revoked; it is active"},
		"events": {func(s *stacktest.Server, tb stacktest.TB, m *stack.Mission) {
			_, _ = m.Proxy(m.Context(), stack.ProxyRequest{Service: "github", URL: "https://api.github.com/"})
			s.RequireNoSecurityEvents(tb)
		}, "credential_outside_scope"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failures := try(t, func(tb stacktest.TB) {
				srv := stacktest.New(tb)
				agent := srv.Agent(tb, stacktest.AgentConfig{Services: []string{"slack"}})
				_ = run(tb.Context(), srv.Client(), agent.ID, func(_ context.Context, m *stack.Mission) error {
					tc.assert(srv, tb, m)
					t.Error("the assertion let it pass")
					return nil
				})
			})
			require.Len(t, failures, 1)
			assert.Contains(t, failures[0], tc.want)
		})
	}
}

func TestAgentFailsTheTest(t *testing.T) {
	t.Parallel()
	failures := try(t, func(tb stacktest.TB) {
		stacktest.New(tb).Agent(tb, stacktest.AgentConfig{Name: "Not A Slug"})
	})
	require.Len(t, failures, 1)
	assert.Contains(t, failures[0], "registering the agent")
}

func TestResetForgets(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	key := srv.APIKey()
	srv.Agent(t, stacktest.AgentConfig{})
	srv.Advance(time.Hour)
	srv.Reset()
	assert.Equal(t, key, srv.APIKey())
	agents, err := srv.Client().Agents.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, agents)
	assert.WithinDuration(t, time.Now(), srv.Now(), time.Minute)
}

func TestViewsAreCopies(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.Agent(t, stacktest.AgentConfig{})
	rows := srv.Audit()
	rows[0].Action = "tampered"
	assert.Equal(t, "agent.register", srv.Audit()[0].Action)
	srv.RequireAuditIntact(t)
	assert.Nil(t, srv.Passport("pp_x"))
	assert.Nil(t, srv.Checkout("pp_x"))
	_, found := srv.Mission("ms_x")
	assert.False(t, found)
}

func TestStartRefusesANilOption(t *testing.T) {
	t.Parallel()
	_, err := stacktest.Start(nil)
	require.ErrorContains(t, err, "option 0 is nil")
}

func ExampleNew() {
	// In a test: srv := stacktest.New(t). A program starts and closes it itself.
	srv, err := stacktest.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	srv.Upstream("crm.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"credential injected": strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ")})
	}))

	ctx, client := context.Background(), srv.Client()
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "crm-reader"})
	if err != nil {
		fmt.Println(err)
		return
	}
	connection, err := client.Services.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: "crm",
		Credential: stack.CustomCredential{Token: stack.NewSecret("s3cret-token")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err = client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: connection.ID,
		Scopes: connection.Scopes}); err != nil {
		fmt.Println(err)
		return
	}
	var jti string
	err = client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agent.ID, Intent: "Read the CRM", Services: []string{"crm"}},
		func(ctx context.Context, m *stack.Mission) error {
			jti = m.JTI()
			resp, proxyErr := m.Proxy(ctx, stack.ProxyRequest{Service: "crm", URL: "https://crm.example/people"})
			if proxyErr != nil {
				return proxyErr
			}
			fmt.Println(resp.Status, string(resp.Body))
			return nil
		})
	fmt.Println("error:", err)
	fmt.Println("review:", srv.Checkout(jti).ReviewStatus)
	fmt.Println("requests that reached the CRM:", len(srv.Forwarded("crm.example")))
	// Output:
	// 200 {"credential injected":true}
	// error: <nil>
	// review: clean
	// requests that reached the CRM: 1
}
