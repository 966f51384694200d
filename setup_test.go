package stack_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// stage is a mock with an enforced agent that may use slack, and a Slack that says ok.
type stage struct {
	*stacktest.Server
	client *stack.Client
	agent  stacktest.Agent
}

// newStage starts the mock with an agent of the given mode.
func newStage(t *testing.T, mode stack.Accountability, opts ...stack.Option) *stage {
	t.Helper()
	srv, transport, logger := watched(t)
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	}))
	opts = append([]stack.Option{conforming(t, transport), stack.WithLogger(logger)}, opts...)
	return &stage{srv, srv.Client(opts...), srv.Agent(t, stacktest.AgentConfig{Mode: mode, Services: []string{"slack"}})}
}

// params describes a Mission of the agent.
func (s *stage) params() stack.MissionParams {
	return stack.MissionParams{AgentID: s.agent.ID, Intent: "Acknowledge tickets", Services: []string{"slack"},
		ExpiresIn: time.Hour}
}

// open opens a Mission as an SDK user does.
func (s *stage) open(t *testing.T, change ...func(*stack.MissionParams)) *stack.Mission {
	t.Helper()
	p := s.params()
	for _, c := range change {
		c(&p)
	}
	m, err := s.client.Passports.Mission(t.Context(), p)
	require.NoError(t, err)
	return m
}

// mission opens a Mission without a passport, for any agent.
func (s *stage) mission(t *testing.T, lifetime time.Duration) string {
	t.Helper()
	m, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "Test", ExpiresIn: lifetime})
	require.NoError(t, err)
	return m.MissionID
}

// issueParams asks for a passport of the agent.
func (s *stage) issueParams(missionID string, change ...func(*stack.PassportIssueParams)) stack.PassportIssueParams {
	p := stack.PassportIssueParams{AgentID: s.agent.ID, MissionIDs: []string{missionID},
		Intent: &stack.Intent{Summary: "Test", Services: []string{"slack"}}}
	for _, c := range change {
		c(&p)
	}
	return p
}

// issue issues a passport in a Mission of its own.
func (s *stage) issue(t *testing.T, change ...func(*stack.PassportIssueParams)) *stack.Passport {
	t.Helper()
	p, err := s.client.Passports.Issue(t.Context(), s.issueParams(s.mission(t, time.Hour), change...))
	require.NoError(t, err)
	return p
}

// delegate delegates a passport, to a fresh enforced agent unless a change names one.
func (s *stage) delegate(t *testing.T, parent *stack.Passport,
	change ...func(*stack.PassportDelegateParams)) (*stack.Passport, error) {
	t.Helper()
	p := stack.PassportDelegateParams{ParentToken: parent.Token}
	for _, c := range change {
		c(&p)
	}
	if p.ChildAgentID == "" {
		p.ChildAgentID = s.Agent(t, stacktest.AgentConfig{Mode: stack.Enforced}).ID
	}
	return s.client.Passports.Delegate(t.Context(), p)
}

// chain delegates a root passport on, n times.
func (s *stage) chain(t *testing.T, root *stack.Passport, n int) (passports []*stack.Passport) {
	t.Helper()
	passports = append(passports, root)
	for range n {
		child := s.Agent(t, stacktest.AgentConfig{Mode: stack.Enforced})
		p, err := s.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: passports[len(passports)-1].Token, ChildAgentID: child.ID})
		require.NoError(t, err)
		passports = append(passports, p)
	}
	return passports
}

// claims verifies a token and returns what it holds.
func (s *stage) claims(t *testing.T, token stack.Secret) *stack.PassportClaims {
	t.Helper()
	v, err := s.client.Passports.Verify(t.Context(), token)
	require.NoError(t, err)
	require.True(t, v.Valid, v.Reason)
	return v.Claims
}

// signals lists the kinds of the security events so far.
func (s *stage) signals() (list []string) {
	for _, e := range s.SecurityEvents() {
		list = append(list, e.SignalType)
	}
	return list
}

// countRows counts the audit rows of an action.
func (s *stage) countRows(action string) (n int) {
	for _, row := range s.Audit() {
		if row.Action == action {
			n++
		}
	}
	return n
}

// revocations lists the audit rows of revocations by passport, and fails where a passport has two.
func (s *stage) revocations(t *testing.T) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for _, row := range s.Audit() {
		if row.Action == "passport.revoke" || row.Action == "passport.revoke_cascade" {
			assert.NotContains(t, rows, row.PassportJTI, "one row for each")
			assert.NotEmpty(t, row.ErrorMessage, "the reason")
			rows[row.PassportJTI] = row.Action
		}
	}
	return rows
}

// raw makes a call past the SDK's types, so that the bytes on the wire are judged and not what both sides make of them.
func (s *stage) raw(t *testing.T, method, path string, in any) map[string]any {
	t.Helper()
	var out map[string]any
	require.NoError(t, s.client.Do(t.Context(), method, path, in, &out))
	return out
}

// keys lists the names in an answer, in order.
func keys[M ~map[string]V, V any](m M) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }

// post is a write to Slack.
func post(channel string) stack.ProxyRequest {
	return stack.ProxyRequest{Service: "slack", Method: "POST",
		URL:  "https://slack.com/api/chat.postMessage?secret=in-the-query",
		Body: map[string]any{"channel": channel, "text": "On it"}}
}

// withPassport presents a passport with a call.
func withPassport(r stack.ProxyRequest, p *stack.Passport) stack.ProxyRequest {
	r.PassportToken = p.Token
	return r
}

// requireRefused checks that err is the API's refusal, and that it explains itself.
func requireRefused(t *testing.T, err error, status int, code string) stack.Error {
	t.Helper()
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	require.Equal(t, code, apiErr.Code, apiErr.Message)
	require.Equal(t, status, apiErr.Status)
	assert.NotEmpty(t, apiErr.Message)
	assert.NotEmpty(t, apiErr.RequestID)
	assert.Contains(t, apiErr.Details, "check", "details name the check that failed")
	return *apiErr
}

// requireParam checks that the SDK refused an argument before it sent anything.
func requireParam(t *testing.T, err error, param string) {
	t.Helper()
	var p *stack.ParamError
	require.ErrorAs(t, err, &p)
	assert.Equal(t, param, p.Param)
}

// transportFunc is an http.RoundTripper.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// nothing is a run that does nothing.
func nothing(context.Context, *stack.Mission) error { return nil }
