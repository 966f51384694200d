package stack_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// newWideStage is a stage whose agent has two services, narrowed both.
func newWideStage(t *testing.T, mode stack.Accountability) *stage {
	t.Helper()
	srv := stacktest.New(t)
	for _, host := range []string{"slack.com", "api.github.com"} {
		srv.Upstream(host, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}
	agent := srv.Agent(t, stacktest.AgentConfig{Mode: mode, Services: []string{"slack", "github"},
		Constraints:   []stack.Constraint{{Path: "method", Op: stack.OpIn, Value: []any{"GET", "POST"}}},
		AllowDataFrom: []string{"github", "crm"}})
	return &stage{srv, srv.Client(), agent}
}

func both(p *stack.PassportIssueParams) { p.Intent.Services = []string{"slack", "github"} }

// Without scopes of its own a delegation hands on what the parent's token reaches, as narrow as it is.
func TestDelegationDerivesItsScopes(t *testing.T) {
	t.Parallel()
	s := newWideStage(t, stack.Logged)
	root := s.issue(t, both)
	parents := s.claims(t, root.Token).STK.Services
	for name, tc := range map[string]struct {
		services []string
		want     []stack.PassportService
	}{
		"all":     {nil, parents},
		"by name": {[]string{"github"}, parents[1:]},
		"none":    {[]string{}, []stack.PassportService{}},
	} {
		child, err := s.delegate(t, root, func(p *stack.PassportDelegateParams) { p.Services = tc.services })
		require.NoError(t, err, name)
		stk := s.claims(t, child.Token).STK
		assert.Equal(t, tc.want, stk.Services, name)
		assert.Len(t, stk.IntentServices, len(tc.want), "and the intent goes as far as the scopes")
		assert.Equal(t, "Test", stk.IntentSummary)
	}
}

func TestDelegationNarrows(t *testing.T) {
	t.Parallel()
	s := newWideStage(t, stack.Logged)
	root := s.issue(t, both)
	slack := s.agent.Connections["slack"]
	added := stack.Constraint{Path: "body.channel", Op: stack.OpEq, Value: "#support"}
	with := func(change func(*stack.PassportScope)) func(*stack.PassportDelegateParams) {
		return func(p *stack.PassportDelegateParams) {
			scope := stack.PassportScope{ServiceConnectionID: slack.ID, Scopes: slack.Scopes[:1]}
			change(&scope)
			p.Scopes = []stack.PassportScope{scope}
		}
	}
	child, err := s.delegate(t, root, with(func(p *stack.PassportScope) {
		p.Constraints,
			p.AllowDataFrom = []stack.Constraint{added}, []string{}
	}))
	require.NoError(t, err)
	got := s.claims(t, child.Token).STK.Services
	require.Len(t, got, 1)
	assert.Equal(t, slack.Scopes[:1], got[0].Scopes)
	assert.Equal(t, []stack.Constraint{{Path: "method", Op: stack.OpIn, Value: []any{"GET", "POST"}}, added},
		got[0].Constraints)
	assert.Equal(t, []string{}, got[0].AllowDataFrom)

	for name, tc := range map[string]struct {
		parent *stack.Passport
		change func(*stack.PassportScope)
		code   string
		field  string
	}{
		"a connection that the parent has not": {root, func(p *stack.PassportScope) { p.ServiceConnectionID = "scon_x" },
			"SCOPE_ESCALATION",
			"body.scopes[0].service_connection_id"},
		"a scope that the parent has not": {root, func(p *stack.PassportScope) { p.Scopes = []string{"admin"} },
			"SCOPE_ESCALATION", "body.scopes[0].scopes"},
		"a scope that only the root has": {child, func(p *stack.PassportScope) { p.Scopes = slack.Scopes[1:2] },
			"SCOPE_ESCALATION",
			"body.scopes[0].scopes"},
		"data from elsewhere": {root, func(p *stack.PassportScope) { p.AllowDataFrom = []string{"gmail"} },
			"SCOPE_ESCALATION", "body.scopes[0].allow_data_from"},
		"data that the parent has": {child, func(p *stack.PassportScope) { p.AllowDataFrom = []string{"crm"} },
			"SCOPE_ESCALATION", "body.scopes[0].allow_data_from"},
		"data from everywhere": {root, func(p *stack.PassportScope) { p.AllowDataFrom = []string{"*"} },
			"INVALID_REQUEST", "body.scopes[0].allow_data_from"},
		"no scope": {root, func(p *stack.PassportScope) { p.Scopes = []string{} }, "INVALID_REQUEST",
			"body.scopes[0].scopes"},
	} {
		before := len(s.SecurityEvents())
		apiErr := requireRefused(t, failure(s.delegate(t, tc.parent, with(tc.change))), http.StatusBadRequest, tc.code)
		assert.Equal(t, tc.field, apiErr.Details["field"], name)
		assert.Contains(t, apiErr.Details, "sent", name)
		assert.Contains(t, apiErr.Details, "allowed", name)
		events := s.SecurityEvents()[before:]
		if tc.code == "INVALID_REQUEST" {
			assert.Empty(t, events, name)
			continue
		}
		require.Len(t, events, 1, name)
		assert.Equal(t, []any{"delegation_violation", stack.SeverityWarning, tc.parent.JTI},
			[]any{events[0].SignalType, events[0].Severity, events[0].PassportJTI})
		assert.Equal(t, "SCOPE_ESCALATION", events[0].Metadata["code"])
	}
}

// What is granted and not declared is out of the parent's reach, and so out of its child's.
func TestDelegationGoesNoFurtherThanTheIntent(t *testing.T) {
	t.Parallel()
	s := newWideStage(t, stack.Logged)
	root := s.issue(t) // declares slack alone
	github := s.agent.Connections["github"]
	for name, change := range map[string]func(*stack.PassportDelegateParams){
		"by scope": func(p *stack.PassportDelegateParams) {
			p.Scopes = []stack.PassportScope{{ServiceConnectionID: github.ID, Scopes: github.Scopes}}
		},
		"by name": func(p *stack.PassportDelegateParams) { p.Services = []string{"github"} },
	} {
		apiErr := requireRefused(t, failure(s.delegate(t, root, change)), http.StatusBadRequest, "SCOPE_ESCALATION")
		assert.Equal(t, "github", apiErr.Details["sent"], name)
		assert.Equal(t, []any{"slack"}, apiErr.Details["allowed"], name)
	}
	child, err := s.delegate(t, root)
	require.NoError(t, err)
	assert.Equal(t, []string{"slack"}, s.claims(t, child.Token).STK.IntentServices)
	_, err = s.client.Proxy.Get(t.Context(), withPassport(stack.ProxyRequest{Service: "slack", URL: "https://slack.com/x"},
		child))
	require.NoError(t, err)
	_, err = s.client.Proxy.Get(t.Context(), withPassport(stack.ProxyRequest{Service: "github",
		URL: "https://api.github.com/x"}, child))
	mustRefuse(t, err, http.StatusForbidden, "FORBIDDEN")
}

// A child is held to account at least as closely as its parent.
func TestDelegationNeverWeakensTheMode(t *testing.T) {
	t.Parallel()
	modes := []stack.Accountability{stack.Standard, stack.Logged, stack.Enforced}
	for parentRank, parentMode := range modes {
		s := newStage(t, parentMode)
		root := s.issue(t)
		for rank, mode := range modes {
			child := s.Agent(t, stacktest.AgentConfig{Mode: mode})
			p, err := s.delegate(t, root, func(p *stack.PassportDelegateParams) { p.ChildAgentID = child.ID })
			if rank < parentRank {
				apiErr := requireRefused(t, err, http.StatusBadRequest, "DELEGATION_ACCOUNTABILITY_VIOLATION")
				assert.Equal(t, string(mode), apiErr.Details["sent"])
				assert.Equal(t, "an agent that is at least "+string(parentMode), apiErr.Details["allowed"])
				continue
			}
			require.NoError(t, err)
			assert.Equal(t, mode, p.Accountability)
			if mode == stack.Enforced {
				assert.Equal(t, 5*time.Minute, s.claims(t, p.Token).STK.CheckpointInterval)
			}
		}
	}

	// The passport's own mode counts, not its agent's.
	s := newStage(t, stack.Standard)
	root := s.issue(t, func(p *stack.PassportIssueParams) { p.AccountabilityMode = stack.Enforced })
	_, err := s.delegate(t, root, func(p *stack.PassportDelegateParams) { p.ChildAgentID = s.agent.ID })
	mustRefuse(t, err, http.StatusBadRequest, "DELEGATION_ACCOUNTABILITY_VIOLATION")
}

func TestDelegationEndsWithItsParentAtTheLatest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		began := s.Now()
		root := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL, p.CheckpointInterval = 10*time.Minute, time.Hour })
		ttl := func(d time.Duration) func(*stack.PassportDelegateParams) {
			return func(p *stack.PassportDelegateParams) { p.TTL = d }
		}
		long, err := s.delegate(t, root, ttl(time.Hour))
		require.NoError(t, err)
		assert.Equal(t, root.ExpiresAt, long.ExpiresAt)
		short, err := s.delegate(t, root, ttl(time.Minute))
		require.NoError(t, err)
		assert.Equal(t, time.Minute, short.ExpiresAt.Sub(began))
		assert.Equal(t, time.Hour, s.claims(t, short.Token).STK.CheckpointInterval, "the parent's interval")
		mustRefuse(t, s.client.Do(t.Context(), "POST", "/v1/passports/delegate",
			map[string]any{"parent_passport_token": root.Token.Reveal(),
				"child_agent_id": s.agent.ID, "scopes": []any{}, "ttl_seconds": 59}, nil), http.StatusBadRequest, "INVALID_REQUEST")
		mustRefuse(t, s.client.Do(t.Context(), "POST", "/v1/passports/delegate",
			map[string]any{"parent_passport_token": root.Token.Reveal(),
				"child_agent_id": s.agent.ID}, nil), http.StatusBadRequest, "INVALID_REQUEST")
	})
}

// A parent that is over hands on nothing, and trying is a use of it.
func TestDelegationFromADeadParent(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		kill   func(*testing.T, *stage, *stack.Passport)
		code   string
		signal string
	}{
		"revoked": {func(t *testing.T, s *stage, p *stack.Passport) {
			require.NoError(t, failure(s.client.Passports.Revoke(t.Context(), p.JTI, "rogue")))
		}, "PASSPORT_REVOKED", "revoked_passport_use"},
		"checked out": {func(t *testing.T, s *stage, p *stack.Passport) {
			require.NoError(t, failure(s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{})))
		}, "PASSPORT_REVOKED", "post_checkout_access"},
		"expired": {func(*testing.T, *stage, *stack.Passport) { time.Sleep(15 * time.Minute) }, "PASSPORT_EXPIRED",
			"expired_passport_use"},
		"of an ended Mission": {func(t *testing.T, s *stage, p *stack.Passport) {
			id := s.claims(t, p.Token).STK.MissionIDs[0]
			require.NoError(t, failure(s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{})))
		}, "PASSPORT_REVOKED", "revoked_passport_use"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				root := s.issue(t)
				tc.kill(t, s, root)
				mustRefuse(t, failure(s.delegate(t, root)), http.StatusUnauthorized, tc.code)
				assert.Equal(t, []string{tc.signal}, s.signals())
				assert.Zero(t, s.countRows("passport.delegate"))
			})
		})
	}
}

// A blocked agent may go on with what it has, but is handed nothing.
func TestDelegationToABlockedAgent(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	warning := stack.EscalateBlock
	_, err := s.client.Agents.Update(t.Context(), s.agent.ID, stack.AgentUpdateParams{OnWarning: &warning})
	require.NoError(t, err)
	p := s.issue(t)
	_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}})
	require.NoError(t, err)
	_, err = s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p))
	require.NoError(t, err)
	_, err = s.delegate(t, p, func(p *stack.PassportDelegateParams) { p.ChildAgentID = s.agent.ID })
	mustRefuse(t, err, http.StatusForbidden, "PASSPORT_BLOCKED")
}
