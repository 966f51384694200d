package stack_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestAgentDefaults(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	agents := srv.Client().Agents
	agent, err := agents.Register(t.Context(), stack.AgentRegisterParams{Name: "triage", Description: "Sorts tickets"})
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(agent.ID, "agt_"))
	assert.Equal(t, srv.OperatorID(), agent.OperatorID)
	assert.Equal(t, stack.Enforced, agent.AccountabilityMode)
	assert.Equal(t, stack.CredentialProxyOnly, agent.CredentialAccess)
	assert.Equal(t, stack.KeyStackManaged, agent.KeyMode)
	assert.Equal(t, stack.AgentActive, agent.Status)
	assert.Equal(t, stack.EscalateNotify, agent.OnWarning)
	assert.Equal(t, stack.EscalateNotify, agent.OnCritical)
	assert.True(t, agent.LLMInjectSystemPrompt)
	assert.True(t, agent.LLMRedactPII)
	assert.False(t, agent.PassportBlocked)
	assert.False(t, agent.CreatedAt.IsZero())
	got, err := agents.Get(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, agent, got)
	list, err := agents.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []stack.Agent{*agent}, list)
}

func TestAgentProfile(t *testing.T) {
	t.Parallel()
	agents := stacktest.New(t).Client().Agents
	off := false
	agent, err := agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot", Profile: stack.ProfileProxiedLLMBot,
		CredentialAccess: stack.CredentialDirect, OnCritical: stack.EscalateBlock, LLMRedactPII: &off})
	require.NoError(t, err)
	assert.Equal(t, stack.Logged, agent.AccountabilityMode, "the profile's")
	assert.Equal(t, stack.CredentialDirect, agent.CredentialAccess, "given explicitly")
	assert.Equal(t, stack.EscalateBlock, agent.OnCritical)
	assert.False(t, agent.LLMRedactPII, "an explicit false is sent")
	assert.True(t, agent.LLMInjectSystemPrompt)
}

func TestAgentRules(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	bad := map[string]stack.AgentRegisterParams{
		"body.name":                {Name: "Not A Slug"},
		"body.description":         {Name: "a-1", Description: strings.Repeat("ä", 257)},
		"body.accountability_mode": {Name: "a-1", AccountabilityMode: "strict"},
		"body.credential_access":   {Name: "a-1", CredentialAccess: "all"},
		"body.key_mode":            {Name: "a-1", KeyMode: "mine"},
		"body.on_warning":          {Name: "a-1", OnWarning: "panic"},
		"body.on_critical":         {Name: "a-1", OnCritical: "panic"},
		"body.profile":             {Name: "a-1", Profile: "superbot"},
		"body.icon_url":            {Name: "a-1", IconURL: strings.Repeat("x", 100_001)},
	}
	for field, params := range bad {
		_, err := client.Agents.Register(t.Context(), params)
		apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
		require.ErrorIs(t, err, stack.ErrInvalidRequest)
		assert.Equal(t, field, apiErr.Details["field"])
		assert.Contains(t, apiErr.Details, "sent")
		assert.Contains(t, apiErr.Details, "allowed")
	}
	for _, name := range []string{"a", "-a", "a-", strings.Repeat("a", 65), "ä-b"} {
		_, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: name})
		mustRefuse(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	}
	_, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: strings.Repeat("a", 64), Description: strings.Repeat("ä", 256)})
	require.NoError(t, err)
	_, err = client.Agents.Register(t.Context(), stack.AgentRegisterParams{})
	requireParam(t, err, "name")
}

func TestAgentUpdate(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	agents := srv.Client().Agents
	agent := srv.Agent(t, stacktest.AgentConfig{})
	mode, name := stack.Logged, "renamed"
	changed, err := agents.Update(t.Context(), agent.ID, stack.AgentUpdateParams{Name: &name, AccountabilityMode: &mode})
	require.NoError(t, err)
	assert.Equal(t, "renamed", changed.Name)
	assert.Equal(t, stack.Logged, changed.AccountabilityMode)
	assert.Equal(t, agent.CredentialAccess, changed.CredentialAccess, "what is nil stays")
	assert.False(t, changed.UpdatedAt.Before(agent.UpdatedAt))
	bad := "No Slug"
	_, err = agents.Update(t.Context(), agent.ID, stack.AgentUpdateParams{Name: &bad})
	mustRefuse(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	got, err := agents.Get(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, "renamed", got.Name, "a refused change changes nothing")
	err = srv.Client().Do(t.Context(), "PATCH", "/v1/agents/"+agent.ID, map[string]any{"key_mode": "co_signed"}, nil)
	apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	assert.Equal(t, "body.key_mode", apiErr.Details["field"], "it cannot change")
}

func TestSuspendedAgentGetsNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	m := s.open(t)
	suspended, err := s.client.Agents.Suspend(t.Context(), s.agent.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.AgentSuspended, suspended.Status)
	_, err = m.Proxy(t.Context(), post("#support"))
	mustRefuse(t, err, http.StatusForbidden, "FORBIDDEN")
	_, err = s.client.Passports.Mission(t.Context(), s.params())
	apiErr := requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
	assert.Equal(t, "agent_status", apiErr.Details["check"])
	active, err := s.client.Agents.Activate(t.Context(), s.agent.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.AgentActive, active.Status)
	_, err = m.Proxy(t.Context(), post("#support"))
	require.NoError(t, err)
	m.Close(nil)
}

func TestDeletedAgentTakesItsPassportsWithIt(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	m := s.open(t)
	deleted, err := s.client.Agents.Delete(t.Context(), s.agent.ID)
	require.NoError(t, err)
	assert.Equal(t, &stack.Deleted{ID: s.agent.ID, Deleted: true}, deleted)
	assert.Equal(t, "Agent deleted", s.RequireRevoked(t, m.JTI()))
	_, err = s.client.Agents.Get(t.Context(), s.agent.ID)
	mustRefuse(t, err, http.StatusNotFound, "NOT_FOUND")
	m.Close(nil)
}

func TestUnblockNeedsAHuman(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "blocky", OnWarning: stack.EscalateBlock, AccountabilityMode: stack.Logged})
	require.NoError(t, err)
	err = client.Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "x", Services: []string{"slack"}}, nothing)
	require.NoError(t, err, "an idle Mission is only an info")
	m, err := client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "x", Services: []string{"slack"}})
	require.NoError(t, err)
	_, err = m.Proxy(t.Context(), stack.ProxyRequest{Service: "github", URL: "https://api.github.com/"}) // a warning in logged mode
	require.ErrorIs(t, err, stack.ErrForbidden)
	m.Close(nil)
	blocked, err := client.Agents.Get(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.True(t, blocked.PassportBlocked)
	assert.Contains(t, blocked.PassportBlockedReason, "credential_outside_scope_fire:")
	assert.False(t, blocked.PassportBlockedAt.IsZero())
	_, err = client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "x", Services: []string{"slack"}})
	require.ErrorIs(t, err, stack.ErrPassportBlocked)

	_, err = client.Agents.Unblock(t.Context(), agent.ID, stack.AgentUnblockParams{})
	require.ErrorIs(t, err, stack.ErrGovernanceApprovalRequired)
	apiErr := requireRefused(t, err, http.StatusForbidden, "GOVERNANCE_APPROVAL_REQUIRED")
	approval, _ := apiErr.Details["approval_id"].(string)
	require.NoError(t, srv.Approve(approval))
	unblocked, err := client.Agents.Unblock(t.Context(), agent.ID, stack.AgentUnblockParams{GovernanceApprovalID: approval})
	require.NoError(t, err)
	assert.False(t, unblocked.PassportBlocked)
}

func TestUnknownAgents(t *testing.T) {
	t.Parallel()
	agents := stacktest.New(t).Client().Agents
	calls := map[string]func(id string) error{
		"get":      func(id string) error { _, err := agents.Get(t.Context(), id); return err },
		"update":   func(id string) error { _, err := agents.Update(t.Context(), id, stack.AgentUpdateParams{}); return err },
		"suspend":  func(id string) error { _, err := agents.Suspend(t.Context(), id); return err },
		"activate": func(id string) error { _, err := agents.Activate(t.Context(), id); return err },
		"delete":   func(id string) error { _, err := agents.Delete(t.Context(), id); return err },
		"unblock": func(id string) error {
			_, err := agents.Unblock(t.Context(), id, stack.AgentUnblockParams{})
			return err
		},
	}
	for name, call := range calls {
		err := call("agt_nobody/../x")
		require.ErrorIs(t, err, stack.ErrNotFound, name)
		mustRefuse(t, err, http.StatusNotFound, "NOT_FOUND")
		requireParam(t, call(""), "agent_id")
		requireParam(t, call(".."), "agent_id")
	}
}

func TestAgentJSONSurvives(t *testing.T) {
	t.Parallel()
	agent := stacktest.New(t).Agent(t, stacktest.AgentConfig{}).Agent
	data, err := json.Marshal(agent)
	require.NoError(t, err)
	var back stack.Agent
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, agent, back)
}
