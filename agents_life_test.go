package stack_test

import (
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

// What the SDK's types cannot say is refused, too.
func TestAgentRulesOnTheWire(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	at := "/v1/agents/" + s.agent.ID
	tests := map[string]struct {
		method, path string
		body         map[string]any
		field        string
	}{
		"no name":          {"POST", "/v1/agents/register", map[string]any{}, "body.name"},
		"a null name":      {"POST", "/v1/agents/register", map[string]any{"name": nil}, "body.name"},
		"a number":         {"POST", "/v1/agents/register", map[string]any{"name": 7}, "body.name"},
		"an unknown field": {"POST", "/v1/agents/register", map[string]any{"name": "a-1", "colour": "red"}, "body.colour"},
		"another case":     {"POST", "/v1/agents/register", map[string]any{"Name": "a-1"}, "body.Name"},
		"a text for a bool": {"POST", "/v1/agents/register", map[string]any{"name": "a-1", "llm_redact_pii": "no"},
			"body.llm_redact_pii"},
		"an icon that is none": {"POST", "/v1/agents/register", map[string]any{"name": "a-1", "icon_url": "icon.png"},
			"body.icon_url"},
		"no status":        {"PATCH", at, map[string]any{"status": ""}, "body.status"},
		"another status":   {"PATCH", at, map[string]any{"status": "asleep"}, "body.status"},
		"no mode":          {"PATCH", at, map[string]any{"accountability_mode": ""}, "body.accountability_mode"},
		"no access":        {"PATCH", at, map[string]any{"credential_access": ""}, "body.credential_access"},
		"no escalation":    {"PATCH", at, map[string]any{"on_warning": ""}, "body.on_warning"},
		"no name at all":   {"PATCH", at, map[string]any{"name": ""}, "body.name"},
		"the key mode":     {"PATCH", at, map[string]any{"key_mode": "stack_managed"}, "body.key_mode"},
		"the profile":      {"PATCH", at, map[string]any{"profile": "proxied-llm-bot"}, "body.profile"},
		"the block itself": {"PATCH", at, map[string]any{"passport_blocked": false}, "body.passport_blocked"},
		"another icon":     {"PATCH", at, map[string]any{"icon_url": "javascript:alert(1)"}, "body.icon_url"},
		"a body to delete": {"DELETE", at, map[string]any{"really": true}, "body"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := s.client.Do(t.Context(), tc.method, tc.path, tc.body, nil)
			apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
			assert.Equal(t, tc.field, apiErr.Details["field"])
			assert.Contains(t, apiErr.Details, "allowed")
		})
	}
	t.Cleanup(func() {
		assert.Equal(t, 1, s.countRows("agent.register"), "what is refused is not registered")
		assert.Zero(t, s.countRows("agent.update"))
	})
}

func TestAgentUpdateEveryField(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		time.Sleep(time.Hour)
		p := stack.AgentUpdateParams{Name: new(string), Description: new(string), AccountabilityMode: new(stack.Accountability),
			CredentialAccess: new(stack.CredentialAccess), OnWarning: new(stack.Escalation), OnCritical: new(stack.Escalation),
			LLMInjectSystemPrompt: new(bool), LLMRedactPII: new(bool), IconURL: new(string)}
		*p.Name, *p.Description, *p.AccountabilityMode, *p.CredentialAccess = "other", "What it does", stack.Standard, stack.CredentialDirect
		*p.OnWarning, *p.OnCritical, *p.IconURL = stack.EscalateBlock, stack.EscalateBlock, "data:image/png;base64,AA=="
		changed, err := s.client.Agents.Update(t.Context(), s.agent.ID, p)
		require.NoError(t, err)
		want := s.agent.Agent
		want.Name, want.Description, want.AccountabilityMode, want.CredentialAccess = "other", "What it does", stack.Standard, stack.CredentialDirect
		want.OnWarning, want.OnCritical, want.IconURL = stack.EscalateBlock, stack.EscalateBlock, "data:image/png;base64,AA=="
		want.LLMInjectSystemPrompt, want.LLMRedactPII, want.UpdatedAt = false, false, want.CreatedAt.Add(time.Hour)
		assert.Equal(t, want, *changed)
		*p.Description, *p.IconURL = "", ""
		changed, err = s.client.Agents.Update(t.Context(), s.agent.ID,
			stack.AgentUpdateParams{Description: p.Description, IconURL: p.IconURL})
		require.NoError(t, err)
		assert.Empty(t, changed.Description+changed.IconURL, "both may be taken away")
	})
}

// A suspended agent gets no passport by any way, and neither its passport nor its delegations are taken.
func TestSuspendedAgentIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	mission := s.mission(t, time.Hour)
	p, err := s.client.Passports.Issue(t.Context(), s.issueParams(mission))
	require.NoError(t, err)
	child := s.Agent(t, stacktest.AgentConfig{})
	_, err = s.client.Agents.Suspend(t.Context(), s.agent.ID)
	require.NoError(t, err)
	delegate := func(parent *stack.Passport, childID string) error {
		return failure(s.client.Passports.Delegate(t.Context(),
			stack.PassportDelegateParams{ParentToken: parent.Token, ChildAgentID: childID}))
	}
	for name, err := range map[string]error{
		"issue": failure(s.client.Passports.Issue(t.Context(), s.issueParams(mission))),
		"start": failure(s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: s.agent.ID,
			Mission: stack.MissionOpenParams{IntentSummary: "x"}})),
		"renew":      failure(s.client.Missions.Renew(t.Context(), mission)),
		"refresh":    failure(s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: p.Token})),
		"proxy":      failure(s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p))),
		"delegation": delegate(p, child.ID),
	} {
		apiErr := requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
		assert.Equal(t, "agent_status", apiErr.Details["check"], name)
	}
	_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
	require.NoError(t, err, "what it did before may still be told")
	_, err = s.client.Agents.Activate(t.Context(), s.agent.ID)
	require.NoError(t, err)
	_, err = s.client.Agents.Suspend(t.Context(), child.ID)
	require.NoError(t, err)
	mustRefuse(t, delegate(p, child.ID), http.StatusForbidden, "FORBIDDEN")
	_, err = s.client.Agents.Activate(t.Context(), child.ID)
	require.NoError(t, err)
	require.NoError(t, delegate(p, child.ID))
	assert.Len(t, s.OpenMissions(), 1, "the Mission whose start was refused is not open")
}

func TestDeletedAgentLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	chain := s.chain(t, s.issue(t), 2)
	assigned, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x", AgentID: s.agent.ID})
	require.NoError(t, err)
	_, err = s.client.Agents.Delete(t.Context(), s.agent.ID)
	require.NoError(t, err)
	for i, p := range chain {
		assert.Equal(t, "Agent deleted", s.RequireRevoked(t, p.JTI), i)
		_, err = s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p))
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
	}
	assert.Equal(t, 1, s.countRows("passport.revoke"))
	assert.Equal(t, 2, s.countRows("passport.revoke_cascade"))
	assert.Equal(t, 1, s.countRows("agent.delete"))
	for name, err := range map[string]error{
		"again":       failure(s.client.Agents.Delete(t.Context(), s.agent.ID)),
		"permissions": failure(s.client.Services.GetAgentPermissions(t.Context(), s.agent.ID)),
		"issue": failure(s.client.Passports.Issue(t.Context(), stack.PassportIssueParams{AgentID: s.agent.ID,
			MissionIDs: []string{assigned.MissionID}})),
		"revoke": failure(s.client.Passports.RevokeAgent(t.Context(), s.agent.ID, "")),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	list, err := s.client.Agents.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 2, "the delegates")
	report, err := s.client.Passports.Report(t.Context(), chain[0].JTI)
	require.NoError(t, err, "the account of what it did stays")
	assert.Equal(t, "revoked", report.Passport.Status)
	_, err = s.client.Passports.Checkout(t.Context(), chain[0].JTI, stack.CheckpointParams{})
	require.NoError(t, err)
}

// on_warning and on_critical block the agent for findings of exactly that severity, of either pipeline.
func TestEscalationBlocksTheAgent(t *testing.T) {
	t.Parallel()
	outside := func(t *testing.T, s *stage, p *stack.Passport) { // warning when logged, critical when enforced
		_, err := s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}})
		require.NoError(t, err)
	}
	checkout := func(report stack.CheckpointParams) func(*testing.T, *stage, *stack.Passport) {
		return func(t *testing.T, s *stage, p *stack.Passport) {
			_, err := s.client.Passports.Checkout(t.Context(), p.JTI, report)
			require.NoError(t, err)
		}
	}
	const block, notify = stack.EscalateBlock, stack.EscalateNotify
	tests := map[string]struct {
		mode              stack.Accountability
		warning, critical stack.Escalation
		act               func(*testing.T, *stage, *stack.Passport)
		reason            string // empty: not blocked
	}{
		"a warning":                      {stack.Logged, block, notify, outside, "credential_outside_scope_fire:github"},
		"a critical event":               {stack.Enforced, notify, block, outside, "credential_outside_scope_fire:github"},
		"a warning is not critical":      {stack.Logged, notify, block, outside, ""},
		"a critical event is no warning": {stack.Enforced, block, notify, outside, ""},
		"a flagged checkout": {stack.Logged, block, notify, checkout(stack.CheckpointParams{DelegatedTo: []string{"agt_x"}}),
			"undeclared_delegation_fire:1_agents"},
		"a blocked checkout": {stack.Logged, notify, block, checkout(stack.CheckpointParams{ServicesUsed: []string{"github"}, ActionsCount: 1}),
			"undeclared_service_fire:github"},
		"an idle checkout is an info": {stack.Logged, block, block, checkout(stack.CheckpointParams{}), ""},
		"standard is not judged": {stack.Standard, block, block,
			checkout(stack.CheckpointParams{ServicesUsed: []string{"github"}, ActionsCount: 1}),
			""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, tc.mode)
			_, err := s.client.Agents.Update(t.Context(), s.agent.ID,
				stack.AgentUpdateParams{OnWarning: &tc.warning, OnCritical: &tc.critical})
			require.NoError(t, err)
			mission := s.mission(t, time.Hour)
			p, err := s.client.Passports.Issue(t.Context(), s.issueParams(mission))
			require.NoError(t, err)
			tc.act(t, s, p)
			agent, err := s.client.Agents.Get(t.Context(), s.agent.ID)
			require.NoError(t, err)
			assert.Equal(t, tc.reason, agent.PassportBlockedReason)
			assert.Equal(t, tc.reason != "", agent.PassportBlocked)
			_, err = s.client.Passports.Issue(t.Context(), s.issueParams(mission))
			if tc.reason == "" {
				require.NoError(t, err)
				return
			}
			apiErr := requireRefused(t, err, http.StatusForbidden, "PASSPORT_BLOCKED")
			require.ErrorIs(t, err, stack.ErrPassportBlocked)
			assert.Equal(t, "passport_blocked", apiErr.Details["check"])
			assert.Equal(t, s.agent.ID, apiErr.Details["sent"])
			assert.Contains(t, apiErr.Message, tc.reason)
			assert.Equal(t, strings.Replace(agentKeys, "passport_blocked",
				"passport_blocked passport_blocked_at passport_blocked_reason", 1),
				keys(s.raw(t, "GET", "/v1/agents/"+s.agent.ID, nil)))
		})
	}
}

func TestUnblock(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	block := func(id string) {
		warning := stack.EscalateBlock
		_, err := s.client.Agents.Update(t.Context(), id, stack.AgentUpdateParams{OnWarning: &warning})
		require.NoError(t, err)
		p := s.issue(t, func(p *stack.PassportIssueParams) { p.AgentID = id })
		_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}})
		require.NoError(t, err)
	}
	unblock := func(id, approval string) (*stack.Agent, error) {
		return s.client.Agents.Unblock(t.Context(), id, stack.AgentUnblockParams{GovernanceApprovalID: approval})
	}
	rows := len(s.Audit())
	agent, err := unblock(s.agent.ID, "")
	require.NoError(t, err, "an agent that is not blocked needs no approval")
	assert.Equal(t, s.agent.Agent, *agent)
	assert.Len(t, s.Audit(), rows, "nothing has changed")

	other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	block(s.agent.ID)
	block(other.ID)
	apiErr := requireRefused(t, failure(unblock(other.ID, "")), http.StatusForbidden, "GOVERNANCE_APPROVAL_REQUIRED")
	foreign := apiErr.Details["approval_id"].(string)
	require.NoError(t, s.Approve(foreign))
	apiErr = requireRefused(t, failure(unblock(s.agent.ID, foreign)), http.StatusForbidden, "GOVERNANCE_APPROVAL_REQUIRED")
	assert.Contains(t, apiErr.Message, "the one sent is for agent.unblock of "+other.ID)
	approval := apiErr.Details["approval_id"].(string)
	mustRefuse(t, failure(unblock(s.agent.ID, approval)), http.StatusForbidden, "GOVERNANCE_APPROVAL_REQUIRED")
	require.NoError(t, s.Approve(approval))
	agent, err = unblock(s.agent.ID, approval)
	require.NoError(t, err)
	assert.False(t, agent.PassportBlocked)
	assert.Empty(t, agent.PassportBlockedReason)
	assert.True(t, agent.PassportBlockedAt.IsZero())
	s.issue(t)
	block(s.agent.ID)
	mustRefuse(t, failure(unblock(s.agent.ID, approval)), http.StatusForbidden, "GOVERNANCE_APPROVAL_REQUIRED")
}
