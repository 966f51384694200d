package stack_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestIssueLifetimes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		mode          stack.Accountability
		ttl, interval time.Duration
		mission       time.Duration
		want          time.Duration
	}{
		"default":                         {stack.Logged, 0, 0, time.Hour, 15 * time.Minute},
		"asked for":                       {stack.Logged, time.Minute, 0, time.Hour, time.Minute},
		"the most":                        {stack.Logged, time.Hour, 0, 2 * time.Hour, time.Hour},
		"never past the Mission":          {stack.Logged, time.Hour, 0, 10 * time.Minute, 10 * time.Minute},
		"enforced: the interval":          {stack.Enforced, time.Hour, 2 * time.Minute, time.Hour, 2 * time.Minute},
		"enforced: the default interval":  {stack.Enforced, 0, 0, time.Hour, 5 * time.Minute},
		"enforced: the shorter one":       {stack.Enforced, time.Minute, time.Hour, time.Hour, time.Minute},
		"logged: an interval is no leash": {stack.Logged, 0, time.Minute, time.Hour, 15 * time.Minute},
		"standard":                        {stack.Standard, 0, 0, time.Hour, 15 * time.Minute},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, tc.mode)
				p, err := s.client.Passports.Issue(t.Context(), s.issueParams(s.mission(t, tc.mission), func(p *stack.PassportIssueParams) {
					p.TTL, p.CheckpointInterval = tc.ttl, tc.interval
				}))
				require.NoError(t, err)
				assert.Equal(t, tc.want, p.ExpiresAt.Sub(s.Now()))
				assert.Equal(t, tc.mode, p.Accountability)
				claims := s.claims(t, p.Token)
				assert.Equal(t, p.ExpiresAt, claims.ExpiresAt)
				assert.Equal(t, p.JTI, claims.JTI)
			})
		})
	}
}

func TestIssuedClaims(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	p := s.issue(t)
	c := s.claims(t, p.Token)
	assert.Equal(t, s.agent.ID, c.Subject)
	assert.Equal(t, "getstack.run", c.Issuer)
	assert.Equal(t, "stack:passport", c.Audience)
	assert.Equal(t, s.OperatorID(), c.STK.OperatorID)
	assert.Equal(t, s.agent.Name, c.STK.AgentName)
	assert.Equal(t, []string{"slack"}, c.STK.IntentServices)
	assert.Equal(t, "Test", c.STK.IntentSummary)
	assert.Equal(t, 5*time.Minute, c.STK.CheckpointInterval)
	assert.Len(t, c.STK.MissionIDs, 1)
	assert.Zero(t, c.STK.DelegationDepth)
	assert.True(t, strings.HasPrefix(c.STK.SessionID, "ses_"))
	require.Len(t, c.STK.Services, 1)
	assert.Equal(t, s.agent.Connections["slack"].ID, c.STK.Services[0].ConnectionID)
	assert.Equal(t, s.agent.Connections["slack"].Scopes, c.STK.Services[0].Scopes)
}

func TestIssueRefusals(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	live := s.mission(t, time.Hour)
	other := s.Agent(t, stacktest.AgentConfig{Services: []string{"github"}})
	foreign, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x", AgentID: other.ID})
	require.NoError(t, err)
	scope := func(connection string, scopes ...string) func(*stack.PassportIssueParams) {
		return func(p *stack.PassportIssueParams) {
			p.Scopes = []stack.PassportScope{{ServiceConnectionID: connection, Scopes: scopes}}
		}
	}
	slack := s.agent.Connections["slack"]
	tests := map[string]struct {
		mission string
		change  func(*stack.PassportIssueParams)
		status  int
		code    string
		check   string
	}{
		"unknown agent":     {live, func(p *stack.PassportIssueParams) { p.AgentID = "agt_x" }, 404, "NOT_FOUND", "exists"},
		"foreign Mission":   {foreign.MissionID, nil, 403, "FORBIDDEN", "mission_agent"},
		"no intent":         {live, func(p *stack.PassportIssueParams) { p.Intent = nil }, 400, "ACCOUNTABILITY_REQUIRED", "intent"},
		"no summary":        {live, func(p *stack.PassportIssueParams) { p.Intent.Summary = " " }, 400, "ACCOUNTABILITY_REQUIRED", "intent"},
		"no services":       {live, func(p *stack.PassportIssueParams) { p.Intent.Services = nil }, 400, "ACCOUNTABILITY_REQUIRED", "intent"},
		"long summary":      {live, func(p *stack.PassportIssueParams) { p.Intent.Summary = strings.Repeat("x", 501) }, 400, "INVALID_REQUEST", "validation"},
		"not granted":       {live, scope(other.Connections["github"].ID, "repo"), 400, "SCOPE_ESCALATION", "scope"},
		"scope not granted": {live, scope(slack.ID, "admin"), 400, "SCOPE_ESCALATION", "scope"},
		"no scope":          {live, scope(slack.ID), 400, "INVALID_REQUEST", "validation"},
		"weaker mode":       {live, func(p *stack.PassportIssueParams) { p.AccountabilityMode = stack.Logged }, 400, "INVALID_REQUEST", "validation"},
		"named intents":     {live, func(p *stack.PassportIssueParams) { p.NamedIntents = []map[string]any{{"name": "x"}} }, 400, "INVALID_REQUEST", "validation"},
		"authority binding": {live, func(p *stack.PassportIssueParams) { p.AuthorityBindingIDs = []string{"bnd_x"} }, 404, "NOT_FOUND", "exists"},
		"identity claim":    {live, func(p *stack.PassportIssueParams) { p.IdentityClaimIDs = []string{"clm_x"} }, 404, "NOT_FOUND", "exists"},
		"bad constraint": {live, func(p *stack.PassportIssueParams) {
			p.Scopes = []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes, Constraints: []stack.Constraint{{Path: "body.x", Op: "like", Value: "y"}}}}
		}, 400, "INVALID_REQUEST", "validation"},
		"data-flow wildcard": {live, func(p *stack.PassportIssueParams) {
			p.Scopes = []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes, AllowDataFrom: []string{"*"}}}
		}, 400, "INVALID_REQUEST", "validation"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			params := s.issueParams(tc.mission)
			if tc.change != nil {
				tc.change(&params)
			}
			_, refusal := s.client.Passports.Issue(t.Context(), params)
			apiErr := requireRefused(t, refusal, tc.status, tc.code)
			assert.Equal(t, tc.check, apiErr.Details["check"])
		})
	}
	for param, change := range map[string]func(*stack.PassportIssueParams){
		"agent_id":                    func(p *stack.PassportIssueParams) { p.AgentID = "" },
		"mission_ids":                 func(p *stack.PassportIssueParams) { p.MissionIDs = []string{live, live} },
		"ttl_seconds":                 func(p *stack.PassportIssueParams) { p.TTL = time.Second },
		"checkpoint_interval_seconds": func(p *stack.PassportIssueParams) { p.CheckpointInterval = 2 * time.Hour },
	} {
		_, refusal := s.client.Passports.Issue(t.Context(), s.issueParams(live, change))
		requireParam(t, refusal, param)
	}
	raw := map[string]any{"agent_id": s.agent.ID, "mission_ids": []string{}}
	err = s.client.Do(t.Context(), "POST", "/v1/passports/issue", raw, nil)
	apiErr := requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
	assert.Contains(t, apiErr.Message, "bound to exactly one Mission")
}

func TestIssueNarrows(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	slack := s.agent.Connections["slack"]
	only := stack.Constraint{Path: "body.channel", Op: stack.OpEq, Value: "#support"}
	p := s.issue(t, func(p *stack.PassportIssueParams) {
		p.Scopes = []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes[:1], Constraints: []stack.Constraint{only}, AllowDataFrom: []string{}}}
	})
	service := s.claims(t, p.Token).STK.Services[0]
	assert.Equal(t, slack.Scopes[:1], service.Scopes)
	assert.Equal(t, []stack.Constraint{only}, service.Constraints)
	assert.Equal(t, []string{}, service.AllowDataFrom, "an empty list is none, and not absent")
}

func TestGrantsDataFlowWildcardIsExpanded(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack", "github"}, AllowDataFrom: []string{"*"}})
	m, err := srv.Client().Passports.Mission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "x", Services: []string{"slack"}})
	require.NoError(t, err)
	token, err := m.Token(t.Context())
	require.NoError(t, err)
	v, err := srv.Client().Passports.Verify(t.Context(), token)
	require.NoError(t, err)
	for _, service := range v.Claims.STK.Services {
		want := map[string]string{"slack": "github", "github": "slack"}[service.ServiceName]
		assert.Equal(t, []string{want, "skill"}, service.AllowDataFrom, "and what skills answer")
	}
	m.Close(nil)
}

// Each way in which a Mission can be over is recognised.
func TestMissionEnded(t *testing.T) {
	t.Parallel()
	end := map[stack.MissionState]func(*stage, string) error{
		stack.MissionCompleted: func(s *stage, id string) error {
			_, err := s.client.Missions.Complete(context.Background(), id, stack.MissionCompleteParams{}) //nolint:usetesting // any context does
			return err
		},
		stack.MissionRevoked: func(s *stage, id string) error {
			_, err := s.client.Missions.Revoke(context.Background(), id, stack.MissionRevokeParams{Reason: stack.ReasonAdversarial}) //nolint:usetesting // any context does
			return err
		},
		stack.MissionExpired:  func(*stage, string) error { time.Sleep(time.Hour); return nil },
		stack.MissionNotFound: nil,
	}
	for state, how := range end {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				id := s.mission(t, time.Hour)
				issued, err := s.client.Passports.Issue(t.Context(), s.issueParams(id))
				require.NoError(t, err)
				calls := map[string]func() error{
					"issue": func() error { _, err := s.client.Passports.Issue(t.Context(), s.issueParams(id)); return err },
					"refresh": func() error {
						_, err := s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: issued.Token})
						return err
					},
					"renew": func() error { _, err := s.client.Missions.Renew(t.Context(), id); return err },
				}
				if how == nil {
					id = "ms_unknown"
					delete(calls, "refresh")
				} else {
					require.NoError(t, how(s, id))
				}
				for name, call := range calls {
					var ended *stack.MissionEndedError
					require.ErrorAs(t, call(), &ended, name)
					assert.Equal(t, state, ended.State)
					assert.Equal(t, id, ended.MissionID)
					assert.Contains(t, []int{403, 404}, ended.Err.Status)
				}
			})
		})
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		id := s.mission(t, 20*time.Hour)
		p, err := s.client.Passports.Issue(t.Context(), s.issueParams(id))
		require.NoError(t, err)
		time.Sleep(14 * time.Minute)
		again, err := s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: p.Token})
		require.NoError(t, err)
		assert.Equal(t, p.JTI, again.JTI, "the same passport")
		assert.Equal(t, 15*time.Minute, again.ExpiresAt.Sub(s.Now()))
		old := s.claims(t, p.Token)
		assert.Equal(t, p.ExpiresAt, old.ExpiresAt, "the old token still counts; the record decides")

		time.Sleep(10 * time.Hour)
		_, err = s.client.Proxy.Get(t.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x", PassportToken: again.Token})
		require.ErrorIs(t, err, stack.ErrPassportExpired)
		late, err := s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: again.Token, TTL: time.Hour})
		require.NoError(t, err, "within 24 hours after its expiry")
		assert.Equal(t, time.Hour, late.ExpiresAt.Sub(s.Now()))

		time.Sleep(9*time.Hour + 40*time.Minute)
		last, err := s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: late.Token})
		require.NoError(t, err)
		assert.Equal(t, 6*time.Minute, last.ExpiresAt.Sub(s.Now()), "never past its Mission")
	})
}

func TestRefreshRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		refresh := func(token stack.Secret) error {
			_, err := s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: token})
			return err
		}
		requireParam(t, refresh(stack.Secret{}), "token")
		mustRefuse(t, refresh(stack.NewSecret("rubbish")), 401, "UNAUTHORIZED")
		revoked := s.issue(t)
		_, err := s.client.Passports.Revoke(t.Context(), revoked.JTI, "x")
		require.NoError(t, err)
		require.ErrorIs(t, refresh(revoked.Token), stack.ErrPassportRevoked)
		done := s.issue(t)
		_, err = s.client.Passports.Checkout(t.Context(), done.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
		require.ErrorIs(t, refresh(done.Token), stack.ErrPassportRevoked)

		long, err := s.client.Passports.Issue(t.Context(), s.issueParams(s.mission(t, 24*time.Hour), func(p *stack.PassportIssueParams) { p.TTL = time.Minute }))
		require.NoError(t, err)
		_ = long // a Mission lives 24 hours at most, so a passport past its grace is past its Mission, too
		time.Sleep(25 * time.Hour)
		var ended *stack.MissionEndedError
		require.ErrorAs(t, refresh(long.Token), &ended)
	})
}

// A refresh does not stand in for a checkpoint.
func TestRefreshDoesNotMoveTheCheckpointDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		p := s.issue(t)
		time.Sleep(4 * time.Minute)
		again, err := s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: p.Token, TTL: time.Hour})
		require.NoError(t, err)
		assert.Equal(t, p.ExpiresAt, again.ExpiresAt)
		time.Sleep(time.Minute)
		assert.Contains(t, s.RequireRevoked(t, p.JTI), "checkpoint_silence_fire:")
	})
}

func TestVerify(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		verify := func(token string) *stack.Verification {
			v, err := s.client.Passports.Verify(t.Context(), stack.NewSecret(token))
			require.NoError(t, err, "a bad token is a result, not an error")
			return v
		}
		p := s.issue(t)
		assert.True(t, verify(p.Token.Reveal()).Valid)
		assert.Equal(t, "malformed", verify("rubbish").Reason)
		forged := stacktest.New(t)
		other := (&stage{forged, forged.Client(), forged.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})}).issue(t)
		assert.Equal(t, "invalid_signature", verify(other.Token.Reveal()).Reason, "another server's")

		expired := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL = time.Minute })
		revoked := s.issue(t)
		_, err := s.client.Passports.Revoke(t.Context(), revoked.JTI, "because")
		require.NoError(t, err)
		done := s.issue(t)
		_, err = s.client.Passports.Checkout(t.Context(), done.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		assert.Equal(t, "expired", verify(expired.Token.Reveal()).Reason)
		v := verify(revoked.Token.Reveal())
		assert.Equal(t, "revoked", v.Reason)
		assert.Equal(t, "because", v.RevocationReason)
		assert.False(t, v.RevokedAt.IsZero())
		assert.Equal(t, "revoked", verify(done.Token.Reveal()).Reason)
		_, err = s.client.Missions.Complete(t.Context(), s.claims(t, p.Token).STK.MissionIDs[0], stack.MissionCompleteParams{})
		require.NoError(t, err)
		assert.Equal(t, "mission_ended", verify(p.Token.Reveal()).Reason)
	})
}

func TestListActive(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	mine := s.issue(t)
	theirs := s.issue(t, func(p *stack.PassportIssueParams) { p.AgentID = other.ID })
	gone := s.issue(t)
	_, err := s.client.Passports.Revoke(t.Context(), gone.JTI, "")
	require.NoError(t, err)
	jtis := func(p stack.PassportListParams) (list []string) {
		active, err := s.client.Passports.ListActive(t.Context(), p)
		require.NoError(t, err)
		for _, a := range active {
			list = append(list, a.JTI)
		}
		return list
	}
	assert.Equal(t, []string{mine.JTI, theirs.JTI}, jtis(stack.PassportListParams{}))
	assert.Equal(t, []string{theirs.JTI}, jtis(stack.PassportListParams{AgentID: other.ID}))
	session := s.claims(t, mine.Token).STK.SessionID
	assert.Equal(t, []string{mine.JTI}, jtis(stack.PassportListParams{SessionID: session}))
	assert.Empty(t, jtis(stack.PassportListParams{AgentID: "agt_x"}))
}

func TestDelegation(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	chain := s.chain(t, s.issue(t), 4)
	root := s.claims(t, chain[0].Token).STK
	for depth, p := range chain {
		stk := s.claims(t, p.Token).STK
		assert.Equal(t, depth, stk.DelegationDepth)
		assert.Equal(t, root.SessionID, stk.SessionID)
		assert.Equal(t, root.MissionIDs, stk.MissionIDs)
		assert.Equal(t, root.Services, stk.Services, "handed on unchanged")
		if depth > 0 {
			assert.Equal(t, chain[depth-1].JTI, stk.ParentPassportID)
			assert.False(t, p.ExpiresAt.After(chain[0].ExpiresAt), "no longer than its parent")
		}
		_, err := s.client.Proxy.Get(t.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x", PassportToken: p.Token})
		require.NoError(t, err)
	}
	fifth := s.Agent(t, stacktest.AgentConfig{})
	_, err := s.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: chain[4].Token, ChildAgentID: fifth.ID})
	require.ErrorIs(t, err, stack.ErrDelegationDepthExceeded)
	apiErr := requireRefused(t, err, 400, "DELEGATION_DEPTH_EXCEEDED")
	assert.Equal(t, 4.0, apiErr.Details["allowed"])
	events := s.SecurityEvents()
	require.NotEmpty(t, events)
	assert.Equal(t, "delegation_violation", events[len(events)-1].SignalType)
}

func TestDelegationRefusals(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	root := s.issue(t)
	slack := s.agent.Connections["slack"]
	child := s.Agent(t, stacktest.AgentConfig{})
	weak := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged})
	tests := map[string]struct {
		change func(*stack.PassportDelegateParams)
		status int
		code   string
	}{
		"unknown child": {func(p *stack.PassportDelegateParams) { p.ChildAgentID = "agt_x" }, 404, "NOT_FOUND"},
		"weaker mode":   {func(p *stack.PassportDelegateParams) { p.ChildAgentID = weak.ID }, 400, "DELEGATION_ACCOUNTABILITY_VIOLATION"},
		"other connection": {func(p *stack.PassportDelegateParams) {
			p.Scopes = []stack.PassportScope{{ServiceConnectionID: "scon_x", Scopes: []string{"a"}}}
		}, 400, "SCOPE_ESCALATION"},
		"wider scope": {func(p *stack.PassportDelegateParams) {
			p.Scopes = []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: []string{"admin"}}}
		}, 400, "SCOPE_ESCALATION"},
		"bad parent": {func(p *stack.PassportDelegateParams) {
			p.ParentToken, p.Scopes = stack.NewSecret("rubbish"), []stack.PassportScope{}
		}, 401, "UNAUTHORIZED"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stack.PassportDelegateParams{ParentToken: root.Token, ChildAgentID: child.ID}
			tc.change(&p)
			_, err := s.client.Passports.Delegate(t.Context(), p)
			mustRefuse(t, err, tc.status, tc.code)
		})
	}
	_, err := s.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: root.Token, ChildAgentID: child.ID, Services: []string{"github"}})
	requireParam(t, err, "services")
	_, err = s.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: stack.NewSecret("rubbish"), ChildAgentID: child.ID})
	requireParam(t, err, "token")
	_, err = s.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: root.Token})
	requireParam(t, err, "child_agent_id")
	_, err = s.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: root.Token, ChildAgentID: child.ID, TTL: time.Second})
	requireParam(t, err, "ttl_seconds")
	none, err := s.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: root.Token, ChildAgentID: child.ID, Scopes: []stack.PassportScope{}})
	require.NoError(t, err)
	_, err = s.client.Proxy.Get(t.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/x", PassportToken: none.Token})
	require.ErrorIs(t, err, stack.ErrForbidden, "an empty list of scopes reaches nothing")
}

func TestRevocationCascades(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	chain := s.chain(t, s.issue(t), 3)
	r, err := s.client.Passports.Revoke(t.Context(), chain[0].JTI, "gone rogue")
	require.NoError(t, err)
	assert.Equal(t, "single", r.Type)
	assert.Equal(t, chain[0].JTI, r.JTI)
	assert.Equal(t, 1, r.RevokedCount)
	assert.Equal(t, 3, r.CascadedCount)
	assert.Equal(t, []string{chain[1].JTI, chain[2].JTI, chain[3].JTI}, r.Cascaded, "breadth first")
	rows := map[string]string{}
	for _, row := range s.Audit() {
		if strings.HasPrefix(row.Action, "passport.revoke") {
			rows[row.PassportJTI] = row.Action
		}
	}
	assert.Equal(t, map[string]string{chain[0].JTI: "passport.revoke", chain[1].JTI: "passport.revoke_cascade",
		chain[2].JTI: "passport.revoke_cascade", chain[3].JTI: "passport.revoke_cascade"}, rows)
	for _, p := range chain {
		assert.Equal(t, "gone rogue", s.RequireRevoked(t, p.JTI))
	}
	again, err := s.client.Passports.Revoke(t.Context(), chain[0].JTI, "once more")
	require.NoError(t, err)
	assert.Zero(t, again.RevokedCount)
	assert.Equal(t, "gone rogue", again.Reason, "the first reason stays")
	_, err = s.client.Passports.Revoke(t.Context(), "pp_x", "")
	mustRefuse(t, err, 404, "NOT_FOUND")
	_, err = s.client.Passports.Revoke(t.Context(), "", "")
	requireParam(t, err, "jti")
}

func TestBulkRevocation(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	a, b := s.issue(t), s.issue(t)
	child := s.chain(t, a, 1)[1]
	session := s.claims(t, b.Token).STK.SessionID

	bySession, err := s.client.Passports.RevokeSession(t.Context(), session, "session")
	require.NoError(t, err)
	assert.Equal(t, "bulk_session", bySession.Type)
	assert.Equal(t, session, bySession.SessionID)
	assert.Equal(t, 1, bySession.RevokedCount)
	assert.Equal(t, "session", s.RequireRevoked(t, b.JTI))

	byAgent, err := s.client.Passports.RevokeAgent(t.Context(), s.agent.ID, "")
	require.NoError(t, err)
	assert.Equal(t, "bulk_agent", byAgent.Type)
	assert.Equal(t, s.agent.ID, byAgent.AgentID)
	assert.Equal(t, []string{child.JTI}, byAgent.Cascaded)
	s.RequireRevoked(t, a.JTI)
	s.RequireRevoked(t, child.JTI)
	_, err = s.client.Passports.RevokeAgent(t.Context(), "agt_x", "")
	mustRefuse(t, err, 404, "NOT_FOUND")

	c, d := s.issue(t), s.issue(t)
	all, err := s.client.Passports.RevokeAll(t.Context(), "fire drill")
	require.NoError(t, err)
	assert.Equal(t, "bulk_operator", all.Type)
	assert.Equal(t, 2, all.RevokedCount)
	s.RequireRevoked(t, c.JTI)
	s.RequireRevoked(t, d.JTI)
	active, err := s.client.Passports.ListActive(t.Context(), stack.PassportListParams{})
	require.NoError(t, err)
	assert.Empty(t, active)
	s.RequireAuditIntact(t)
}
