package stack_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestFleetPassports(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, passports := t.Context(), s.client.Passports
	f := s.activate(t, func(d *stack.FleetDefinition) { d.MaxPassportTTL = 5 * time.Minute })
	a, b := s.FleetMember(t, f.ID), s.FleetMember(t, f.ID)
	m := s.start(t, a)
	issued, err := passports.Issue(ctx, stack.PassportIssueParams{AgentID: a.AgentID, MissionIDs: []string{m.MissionID}})
	require.NoError(t, err)
	claims := s.claims(t, issued.Token)
	assert.Equal(t, 5*time.Minute, claims.ExpiresAt.Sub(claims.IssuedAt), "the policy's, which is less than the default")
	assert.Len(t, claims.STK.Services, 1)
	_, err = passports.Issue(ctx, stack.PassportIssueParams{AgentID: a.AgentID, MissionIDs: []string{m.MissionID},
		Scopes: []stack.PassportScope{{ServiceConnectionID: "scon_x", Scopes: []string{"x"}}}})
	require.ErrorIs(t, err, stack.ErrScopeEscalation)
	_, err = passports.Issue(ctx, stack.PassportIssueParams{AgentID: b.AgentID, MissionIDs: []string{m.MissionID}})
	requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
	_, err = passports.Issue(ctx, stack.PassportIssueParams{AgentID: a.AgentID, MissionIDs: []string{m.MissionID}, TTL: time.Hour})
	require.ErrorIs(t, err, stack.ErrFleetLimitExceeded)
	_, err = passports.Refresh(ctx, stack.PassportRefreshParams{Token: issued.Token, TTL: time.Hour})
	require.ErrorIs(t, err, stack.ErrFleetLimitExceeded)
	_, err = passports.Refresh(ctx, stack.PassportRefreshParams{Token: issued.Token})
	require.NoError(t, err)

	delegate := func(child string, ttl time.Duration) error {
		return failure(passports.Delegate(ctx, stack.PassportDelegateParams{ParentToken: issued.Token, ChildAgentID: child, TTL: ttl}))
	}
	require.NoError(t, delegate(b.AgentID, 0))
	require.ErrorIs(t, delegate(b.AgentID, time.Hour), stack.ErrFleetLimitExceeded)
	require.ErrorIs(t, delegate(s.agent.ID, 0), stack.ErrFleetMembershipRequired, "a passport stays within the fleet")
	require.NoError(t, failure(s.client.Fleets.RevokeMember(ctx, f.ID, b.AgentID)))
	require.ErrorIs(t, delegate(b.AgentID, 0), stack.ErrFleetMembershipRequired)
}

// The SDK's Mission runs in a fleet as anywhere else.
func TestFleetMissionObject(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx := t.Context()
	member := s.FleetMember(t, s.activate(t).ID)
	opened, err := s.client.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "Post", AgentID: member.AgentID,
		FleetPolicyID: member.FleetPolicyID, ExpiresIn: time.Hour})
	require.NoError(t, err)
	m, err := s.client.Passports.Mission(ctx, stack.MissionParams{AgentID: member.AgentID, MissionID: opened.MissionID, Intent: "Post",
		Services: []string{"slack"}})
	require.NoError(t, err)
	_, err = m.Proxy(m.Context(), post("C123"))
	require.NoError(t, err)
	_, err = m.Proxy(m.Context(), post("OTHER"))
	require.ErrorIs(t, err, stack.ErrFleetOperationNotAllowed)
	m.Close(&err)
	s.RequireCheckedOut(t, m.JTI())
}

// A simulation knows the fleet's operations, and uses none of them up.
func TestFleetSimulation(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	f := s.activate(t, func(d *stack.FleetDefinition) { d.Operations[0].MaxCalls = 1 })
	m := s.start(t, s.FleetMember(t, f.ID))
	codes := func(r stack.ProxyRequest) (codes []string) {
		sim, err := s.client.Intents.Simulate(t.Context(), stack.IntentSimulateParams{Intent: stack.IntentOf(r), PassportToken: m.Passport.Token})
		require.NoError(t, err)
		for _, d := range sim.DenialReasons {
			codes = append(codes, d.Code)
		}
		return codes
	}
	assert.Empty(t, codes(post("C123")))
	assert.Empty(t, codes(post("C123")))
	assert.Equal(t, []string{"FLEET_OPERATION_NOT_ALLOWED"}, codes(post("OTHER")))
	assert.Empty(t, s.signals(), "nothing has happened")
	require.NoError(t, failure(s.client.Proxy.Post(t.Context(), withPassport(post("C123"), &m.Passport))))
	assert.Equal(t, []string{"MISSION_CAP_EXCEEDED"}, codes(post("C123")))
}

// A call to a model is a call like any other.
func TestFleetModels(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	s.Upstream("api.openai.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"model":"small","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}`))
	}))
	openAI := s.Agent(t, stacktest.AgentConfig{Services: []string{"openai"}}).Connections["openai"]
	f := s.activate(t, func(d *stack.FleetDefinition) {
		d.Access = append(d.Access, stack.PassportScope{ServiceConnectionID: openAI.ID, Scopes: openAI.Scopes})
		d.Operations = append(d.Operations, stack.FleetOperation{Name: "ask-small", Service: "openai", MaxCalls: 1,
			Constraints: []stack.Constraint{{Path: "body.model", Op: stack.OpEq, Value: "small"}}})
	})
	m := s.start(t, s.FleetMember(t, f.ID))
	ask := func(model string) error {
		return failure(s.client.LLM.OpenAI(t.Context(), stack.LLMParams{Passport: stack.NewStaticToken(m.Passport.Token),
			Body: map[string]any{"model": model, "messages": []any{}}}))
	}
	require.ErrorIs(t, ask("large"), stack.ErrFleetOperationNotAllowed)
	require.NoError(t, ask("small"))
	require.ErrorIs(t, ask("small"), stack.ErrMissionCapExceeded)
}

// A service that is disconnected is gone for the fleet as well.
func TestFleetAndConnections(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx := t.Context()
	member := s.FleetMember(t, s.activate(t).ID)
	m := s.start(t, member)
	_, err := s.client.Services.Disconnect(ctx, s.slack.ID)
	require.NoError(t, err)
	s.RequireRevoked(t, m.Passport.JTI)
	require.ErrorIs(t, failure(s.client.Missions.Renew(ctx, m.MissionID)), stack.ErrScopeEscalation)
	requireRefused(t, failure(s.client.Missions.Start(ctx, s.startParams(member))), http.StatusBadRequest, "ACCOUNTABILITY_REQUIRED")
}
