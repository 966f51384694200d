package stack_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// A grant token reaches what was made with it, and nothing else of the account.
func TestGrantReach(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newGrant(t, stack.ConnectParams{})
	agent, conn, mission, p := work(t, s.theirs, "theirs")
	ownAgent, ownConn, ownMission, ownPassport := work(t, s.account, "own")
	hook := func(c *stack.Client, agentID string) (*stack.CreatedInboundWebhook, error) {
		return c.InboundWebhooks.Create(ctx, stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: agentID})
	}
	webhook, err := hook(s.theirs, agent.ID)
	require.NoError(t, err)
	ownWebhook, err := hook(s.account, ownAgent.ID)
	require.NoError(t, err)
	theirs := s.theirs
	intent := &stack.Intent{Summary: "x", Services: []string{"slack"}}

	for what, call := range map[string]func(agentID, connID, missionID, webhookID string, p *stack.Passport) error{
		"agents.get":    func(a, _, _, _ string, _ *stack.Passport) error { return failure(theirs.Agents.Get(ctx, a)) },
		"agents.update": func(a, _, _, _ string, _ *stack.Passport) error { return failure(theirs.Agents.Activate(ctx, a)) },
		"services.grant": func(a, _, _, _ string, _ *stack.Passport) error {
			return failure(theirs.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: a, ServiceConnectionID: conn.ID, Scopes: conn.Scopes}))
		},
		"services.grant connection": func(_, c, _, _ string, _ *stack.Passport) error {
			return failure(theirs.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: c, Scopes: conn.Scopes}))
		},
		"services.permissions": func(a, _, _, _ string, _ *stack.Passport) error {
			return failure(theirs.Services.GetAgentPermissions(ctx, a))
		},
		"services.verify": func(_, c, _, _ string, _ *stack.Passport) error { return failure(theirs.Services.Verify(ctx, c)) },
		"credentials.by_connection": func(_, c, _, _ string, _ *stack.Passport) error {
			return failure(theirs.Credentials.GetByConnection(ctx, c, stack.CredentialParams{}))
		},
		"missions.get": func(_, _, m, _ string, _ *stack.Passport) error { return failure(theirs.Missions.Get(ctx, m)) },
		"missions.start": func(a, _, _, _ string, _ *stack.Passport) error {
			return failure(theirs.Missions.Start(ctx, stack.MissionStartParams{AgentID: a,
				Mission: stack.MissionOpenParams{IntentSummary: "x"}, Passport: &stack.MissionPassportParams{Intent: intent}}))
		},
		"passports.issue agent": func(a, _, _, _ string, _ *stack.Passport) error {
			return failure(theirs.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: a, MissionIDs: []string{mission}, Intent: intent}))
		},
		"passports.report": func(_, _, _, _ string, p *stack.Passport) error { return failure(theirs.Passports.Report(ctx, p.JTI)) },
		"passports.active": func(a, _, _, _ string, _ *stack.Passport) error {
			return failure(theirs.Passports.ListActive(ctx, stack.PassportListParams{AgentID: a}))
		},
		"webhooks.get": func(_, _, _, w string, _ *stack.Passport) error { return failure(theirs.InboundWebhooks.Get(ctx, w)) },
		"webhooks.create": func(a, _, _, _ string, _ *stack.Passport) error {
			return failure(hook(theirs, a))
		},
	} {
		require.NoError(t, call(agent.ID, conn.ID, mission, webhook.ID, p), what)
		require.ErrorIs(t, call(ownAgent.ID, ownConn.ID, ownMission, ownWebhook.ID, ownPassport), stack.ErrNotFound, what)
	}
	open := func(p stack.MissionOpenParams) error {
		p.IntentSummary = "x"
		return failure(theirs.Missions.Open(ctx, p))
	}
	for what, call := range map[string]error{
		"the owner's Mission": failure(theirs.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: agent.ID,
			MissionIDs: []string{ownMission}, Intent: intent})),
		"the owner's identity": failure(theirs.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: agent.ID,
			MissionIDs: []string{mission}, Intent: intent, IdentityClaimIDs: []string{"clm_owner"}})),
		"the owner's authority": failure(theirs.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: agent.ID,
			MissionIDs: []string{mission}, Intent: intent, AuthorityBindingIDs: []string{"ab_owner"}})),
		"a Mission with the owner's authority": open(stack.MissionOpenParams{AuthorityBindingIDs: []string{"ab_owner"}}),
		"a Mission of the owner's fleet": failure(theirs.Missions.Start(ctx, stack.MissionStartParams{AgentID: agent.ID,
			Mission:  stack.MissionOpenParams{IntentSummary: "x", FleetPolicyID: "flp_owner", IdempotencyKey: "k"},
			Passport: &stack.MissionPassportParams{Intent: intent}})),
		"a start for the owner's agent": failure(theirs.Missions.Start(ctx, stack.MissionStartParams{AgentID: agent.ID,
			Mission:  stack.MissionOpenParams{IntentSummary: "x", AgentID: ownAgent.ID},
			Passport: &stack.MissionPassportParams{Intent: intent}})),
	} {
		require.ErrorIs(t, call, stack.ErrNotFound, what)
	}
	for what, call := range map[string]error{
		"proxy":   failure(theirs.Proxy.Request(ctx, withPassport(post("#x"), ownPassport))),
		"refresh": failure(theirs.Passports.Refresh(ctx, stack.PassportRefreshParams{Token: ownPassport.Token})),
		"delegate": failure(theirs.Passports.Delegate(ctx, stack.PassportDelegateParams{ParentToken: ownPassport.Token, ChildAgentID: agent.ID,
			Scopes: []stack.PassportScope{}})),
		"credentials": failure(theirs.Credentials.Get(ctx, "slack", stack.CredentialParams{PassportToken: ownPassport.Token})),
	} {
		require.ErrorIs(t, call, stack.ErrUnauthorized, what)
	}
	credential, err := theirs.Credentials.Get(ctx, "slack", stack.CredentialParams{})
	require.NoError(t, err)
	assert.Equal(t, "token-of-theirs", credential.Credential.Reveal(), "not the newer one of the account")

	for what, call := range map[string]error{
		"audit":     failure(theirs.Audit.List(ctx, stack.AuditListParams{})),
		"team":      failure(theirs.Team.List(ctx)),
		"revokeAll": failure(theirs.Passports.RevokeAll(ctx, "x")),
		"missions":  failure(theirs.Missions.List(ctx, stack.MissionListParams{})),
		"billing":   failure(theirs.Billing.Balance(ctx)),
		"identity":  failure(theirs.Identity.ListClaims(ctx)),
		"connect":   failure(theirs.PartnerConnect.Connect(ctx, stack.ConnectParams{Email: "a@example.com"})),
		"tenants":   failure(theirs.PartnerTenants.List(ctx)),
	} {
		refusal := requireRefused(t, call, 403, "FORBIDDEN")
		assert.Equal(t, "grant_route", refusal.Details["check"], what)
	}

	agents, err := theirs.Agents.List(ctx)
	require.NoError(t, err)
	require.Len(t, agents, 1)
	assert.Equal(t, agent.ID, agents[0].ID)
	connections, err := theirs.Services.List(ctx)
	require.NoError(t, err)
	require.Len(t, connections, 1)
	assert.Equal(t, conn.ID, connections[0].ID)
	hooks, err := theirs.InboundWebhooks.List(ctx)
	require.NoError(t, err)
	for _, w := range hooks {
		assert.Equal(t, agent.ID, w.AgentID)
	}
	active, err := theirs.Passports.ListActive(ctx, stack.PassportListParams{})
	require.NoError(t, err)
	require.NotEmpty(t, active)
	for _, a := range active {
		assert.Equal(t, agent.ID, a.AgentID)
	}
	agents, err = s.account.Agents.List(ctx)
	require.NoError(t, err)
	assert.Len(t, agents, 2, "the owner sees all")
}

func TestGrantScopesAndProviders(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newGrant(t, stack.ConnectParams{Providers: []string{"slack"}, Scopes: []stack.ConnectScope{stack.ScopeAgentsWrite,
		stack.ScopeServicesConnect, stack.ScopePassportsWrite, stack.ScopeProxyRead}})
	agent, _, _, p := work(t, s.theirs, "theirs")
	r := withPassport(post("#x"), p)
	_, err := s.theirs.Proxy.Request(ctx, r)
	refusal := requireRefused(t, err, 403, "FORBIDDEN")
	assert.Equal(t, "grant_scope", refusal.Details["check"])
	r.Method, r.Body = "GET", nil
	_, err = s.theirs.Proxy.Request(ctx, r)
	require.NoError(t, err)
	for what, call := range map[string]error{
		"agents:read": failure(s.theirs.Agents.Get(ctx, agent.ID)),
		"webhooks:write": failure(s.theirs.InboundWebhooks.Create(ctx,
			stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: agent.ID})),
		"credentials:read": failure(s.theirs.Credentials.Get(ctx, "slack", stack.CredentialParams{})),
	} {
		refusal = requireRefused(t, call, 403, "FORBIDDEN")
		assert.Equal(t, what, refusal.Details["allowed"])
	}
	_, err = s.theirs.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "github", OAuthToken: stack.NewSecret("x"),
		Scopes: []string{"repo"}})
	refusal = requireRefused(t, err, 403, "FORBIDDEN")
	assert.Equal(t, "grant_providers", refusal.Details["check"])
	_, err = s.theirs.Services.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: "crm",
		Credential: stack.CustomCredential{Token: stack.NewSecret("x")}})
	requireRefused(t, err, 403, "FORBIDDEN")
}

// What is proven of an account's owner is not in the passports of a partner's agents.
func TestGrantsDoNotInheritIdentity(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newGrant(t, stack.ConnectParams{})
	session, err := s.account.Identity.InitiateVerification(ctx, stack.VerificationParams{ProviderKey: "login_gov"})
	require.NoError(t, err)
	require.NoError(t, s.VerifyIdentity(session.SessionRef))
	_, err = s.account.Identity.CompleteVerification(ctx, "login_gov", session.SessionRef)
	require.NoError(t, err)
	_, _, _, theirs := work(t, s.theirs, "theirs")
	_, _, _, own := work(t, s.account, "own")
	assert.Empty(t, s.claims(t, theirs.Token).STK.IdentityClaims)
	assert.Len(t, s.claims(t, own.Token).STK.IdentityClaims, 1)
}

// A Mission runs under a grant token as it does under any key.
func TestMissionUnderAGrant(t *testing.T) {
	t.Parallel()
	s := newGrant(t, stack.ConnectParams{})
	agent, _, _, _ := work(t, s.theirs, "theirs")
	m, err := s.theirs.Passports.Mission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Test", Services: []string{"slack"},
		ExpiresIn: time.Hour})
	require.NoError(t, err)
	_, err = m.Proxy(m.Context(), post("#x"))
	require.NoError(t, err)
	m.Close(&err)
	require.NoError(t, err)
}

// An account's own address needs no verification, and nobody else's is its own.
func TestDestinationsOfAConnectedAccount(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newGrant(t, stack.ConnectParams{})
	for address, want := range map[string]bool{"ADA@example.com": true, "operator@example.com": false} {
		d, err := s.account.DeliveryMethods.Add(ctx, stack.DestinationAddParams{ChannelType: stack.ChannelEmail, Destination: address})
		require.NoError(t, err)
		assert.Equal(t, want, d.Verified, address)
	}
}
