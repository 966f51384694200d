package stack_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// grantStage is a partner with a grant on a customer's account, and that customer.
type grantStage struct {
	*stage
	grant   *stack.Connected
	theirs  *stack.Client // the partner's, with the grant token
	account *stack.Client // the customer's own
}

func newGrant(t *testing.T, params stack.ConnectParams) *grantStage {
	t.Helper()
	s := &grantStage{stage: newStage(t, stack.Enforced)}
	if params.Email == "" {
		params.Email = "Ada@Example.com"
	}
	var err error
	s.grant, err = s.client.PartnerConnect.Connect(t.Context(), params)
	require.NoError(t, err)
	s.theirs = s.Client(stack.WithAPIKey(s.grant.GrantToken.Reveal()))
	key, err := s.AccountKey(s.grant.Email)
	require.NoError(t, err)
	s.account = s.Client(stack.WithAPIKey(key.Reveal()))
	return s
}

// work makes an agent with Slack and a passport, as a client does.
func work(t *testing.T, c *stack.Client, name string) (agent *stack.Agent, conn *stack.Connection, mission string, p *stack.Passport) {
	t.Helper()
	ctx := t.Context()
	agent, err := c.Agents.Register(ctx, stack.AgentRegisterParams{Name: name, CredentialAccess: stack.CredentialDirect})
	require.NoError(t, err)
	conn, err = c.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: stack.NewSecret("token-of-" + name),
		Scopes: []string{"chat:write"}})
	require.NoError(t, err)
	_, err = c.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: conn.ID, Scopes: conn.Scopes})
	require.NoError(t, err)
	m, err := c.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "Test"})
	require.NoError(t, err)
	p, err = c.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: agent.ID, MissionIDs: []string{m.MissionID},
		Intent: &stack.Intent{Summary: "Test", Services: []string{"slack"}}})
	require.NoError(t, err)
	return agent, conn, m.MissionID, p
}

func TestConnectMakesAnAccount(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newGrant(t, stack.ConnectParams{ExternalCustomerID: "c-1"})
	assert.Regexp(t, `^sk_grant_`, s.grant.GrantToken.Reveal())
	assert.Equal(t, stack.ConnectActive, s.grant.Status)
	assert.True(t, s.grant.ConsentURL.IsZero())
	assert.Equal(t, "ada@example.com", s.grant.Email)
	assert.Equal(t, "c-1", s.grant.ExternalCustomerID)
	assert.Len(t, s.grant.Scopes, 11, "all")
	assert.Nil(t, s.grant.Providers, "all")
	assert.NotEqual(t, s.OperatorID(), s.grant.OperatorID)

	agent, _, _, p := work(t, s.theirs, "theirs")
	assert.Equal(t, s.grant.OperatorID, agent.OperatorID)
	_, err := s.theirs.Proxy.Request(ctx, withPassport(post("#x"), p))
	require.NoError(t, err)
	assert.Equal(t, "Bearer token-of-theirs", s.Forwarded("slack.com")[0].Header.Get("Authorization"))
	seen, err := s.account.Agents.Get(ctx, agent.ID)
	require.NoError(t, err, "the account is the customer's")
	assert.Equal(t, agent, seen)
	_, err = s.client.Agents.Get(ctx, agent.ID)
	require.ErrorIs(t, err, stack.ErrNotFound, "and not the partner's")

	again, err := s.client.PartnerConnect.Connect(ctx, stack.ConnectParams{Email: "ADA@example.com"})
	require.NoError(t, err)
	assert.Equal(t, s.grant.PartnerConnection, again.PartnerConnection)
	assert.True(t, again.GrantToken.IsZero(), "shown once")
	list, err := s.client.PartnerConnect.ListConnections(ctx)
	require.NoError(t, err)
	assert.Equal(t, []stack.PartnerConnection{s.grant.PartnerConnection}, list)
	one, err := s.client.PartnerConnect.GetConnection(ctx, s.grant.GrantID)
	require.NoError(t, err)
	assert.Equal(t, &s.grant.PartnerConnection, one)
	for _, path := range []string{"/v1/partner/connections", "/v1/partner/connections/" + s.grant.GrantID} {
		assert.NotContains(t, fmt.Sprint(s.raw(t, "GET", path, nil)), "sk_grant_")
	}
}

func TestConnectAsksTheOwner(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newStage(t, stack.Enforced)
	connect := s.client.PartnerConnect
	grant, err := connect.Connect(ctx, stack.ConnectParams{Email: "operator@example.com", Providers: []string{"slack"}})
	require.NoError(t, err)
	assert.Equal(t, stack.ConnectPending, grant.Status)
	assert.Empty(t, grant.OperatorID, "whose it is shows later")
	client := s.Client(stack.WithAPIKey(grant.GrantToken.Reveal()))
	_, err = client.Agents.List(ctx)
	requireRefused(t, err, 401, "INVALID_API_KEY")

	rotated, err := connect.RotateToken(ctx, grant.GrantID)
	require.NoError(t, err)
	require.NoError(t, s.ApproveGrant(grant.GrantID))
	require.ErrorContains(t, s.ApproveGrant(grant.GrantID), "is active")
	_, err = client.Agents.List(ctx)
	requireRefused(t, err, 401, "INVALID_API_KEY")
	client = s.Client(stack.WithAPIKey(rotated.GrantToken.Reveal()))
	_, err = client.Agents.List(ctx)
	require.NoError(t, err)
	one, err := connect.GetConnection(ctx, grant.GrantID)
	require.NoError(t, err)
	assert.Equal(t, stack.ConnectActive, one.Status)
	assert.Equal(t, s.OperatorID(), one.OperatorID)
	assert.False(t, one.ApprovedAt.IsZero())
	agents, err := client.Agents.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, agents, "the account has one, which is not the grant's")
	require.ErrorContains(t, s.ApproveGrant("pgr_none"), "not found")
	require.ErrorContains(t, s.DenyGrant("pgr_none"), "not found")
	require.ErrorContains(t, s.RevokeGrant("pgr_none"), "not found")
	_, err = s.AccountKey("nobody@example.com")
	require.ErrorContains(t, err, "not found")
}

func TestConsentPage(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]stack.PartnerConnectionStatus{"approve": stack.ConnectActive, "deny": stack.ConnectDenied} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := newStage(t, stack.Enforced)
			grant, err := s.client.PartnerConnect.Connect(ctx, stack.ConnectParams{Email: "operator@example.com",
				Scopes: []stack.ConnectScope{stack.ScopeAgentsRead}, Providers: []string{"slack"}})
			require.NoError(t, err)
			require.Equal(t, stack.ConnectPending, grant.Status, "the account exists")
			web := &http.Client{Transport: s.Transport()}
			page := func(method, url string, status int) string {
				req, bad := http.NewRequestWithContext(ctx, method, url, http.NoBody)
				require.NoError(t, bad)
				resp, bad := web.Do(req)
				require.NoError(t, bad)
				defer func() { _ = resp.Body.Close() }()
				text, bad := io.ReadAll(resp.Body)
				require.NoError(t, bad)
				require.Equal(t, status, resp.StatusCode, string(text))
				return string(text)
			}
			link := grant.ConsentURL.Reveal()
			shown := page(http.MethodGet, link, 200)
			for _, part := range []string{"operator@example.com", "agents:read", "slack", link[strings.LastIndex(link, "/")+1:] + "/" + action} {
				assert.Contains(t, shown, part)
			}
			assert.NotContains(t, shown, grant.GrantToken.Reveal())
			assert.Contains(t, page(http.MethodPost, link+"/"+action, 200), string(want))
			page(http.MethodPost, link+"/approve", 404)
			page(http.MethodGet, link, 404)
			one, err := s.client.PartnerConnect.GetConnection(ctx, grant.GrantID)
			require.NoError(t, err)
			assert.Equal(t, want, one.Status)
			_, err = s.Client(stack.WithAPIKey(grant.GrantToken.Reveal())).Agents.List(ctx)
			assert.Equal(t, want == stack.ConnectActive, err == nil)
			if want == stack.ConnectDenied {
				_, err = s.client.PartnerConnect.RotateToken(ctx, grant.GrantID)
				requireRefused(t, err, 409, "GRANT_ENDED")
				again, err := s.client.PartnerConnect.Connect(ctx, stack.ConnectParams{Email: "operator@example.com"})
				require.NoError(t, err)
				assert.Equal(t, stack.ConnectPending, again.Status, "one may ask again")
			}
		})
	}
}

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

func TestGrantRevoke(t *testing.T) {
	t.Parallel()
	for name, byOwner := range map[string]bool{"by the partner": false, "by the owner": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := newGrant(t, stack.ConnectParams{})
			agent, conn, _, p := work(t, s.theirs, "theirs")
			_, ownConn, _, ownPassport := work(t, s.account, "own")
			webhook, err := s.theirs.InboundWebhooks.Create(ctx, stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: agent.ID})
			require.NoError(t, err)
			if byOwner {
				require.NoError(t, s.RevokeGrant(s.grant.GrantID))
			}
			end, err := s.client.PartnerConnect.RevokeConnection(ctx, s.grant.GrantID)
			require.NoError(t, err)
			want := &stack.PartnerConnectionEnd{GrantID: s.grant.GrantID, Status: stack.ConnectRevoked, RevokedAt: end.RevokedAt}
			if !byOwner {
				want.Transitioned, want.PassportsRevoked, want.WebhooksRevoked, want.ConnectionsRevoked = true, 1, 1, 1
			}
			assert.Equal(t, want, end)
			again, err := s.client.PartnerConnect.RevokeConnection(ctx, s.grant.GrantID)
			require.NoError(t, err)
			assert.Equal(t, &stack.PartnerConnectionEnd{GrantID: s.grant.GrantID, Status: stack.ConnectRevoked, RevokedAt: end.RevokedAt}, again)

			_, err = s.theirs.Agents.List(ctx)
			requireRefused(t, err, 401, "INVALID_API_KEY")
			v, err := s.client.Passports.Verify(ctx, p.Token)
			require.NoError(t, err)
			assert.False(t, v.Valid)
			status, _ := sendTo(t, s.Server, webhook.WebhookURL, "{}", "X-Webhook-Signature",
				hex.EncodeToString(mac(sha256.New, []byte(webhook.IncomingSigningSecret.Reveal()), "{}")))
			assert.Equal(t, http.StatusGone, status)
			connections, err := s.account.Services.List(ctx)
			require.NoError(t, err)
			require.Len(t, connections, 1)
			assert.Equal(t, ownConn.ID, connections[0].ID)
			assert.NotEqual(t, conn.ID, ownConn.ID)
			v, err = s.client.Passports.Verify(ctx, ownPassport.Token)
			require.NoError(t, err)
			assert.True(t, v.Valid, "what is the owner's stays")
			_, err = s.account.Agents.Get(ctx, agent.ID)
			require.NoError(t, err, "the agents are the owner's")

			one, err := s.client.PartnerConnect.GetConnection(ctx, s.grant.GrantID)
			require.NoError(t, err)
			assert.Equal(t, stack.ConnectRevoked, one.Status)
			_, err = s.client.PartnerConnect.RotateToken(ctx, s.grant.GrantID)
			requireRefused(t, err, 409, "GRANT_ENDED")
			renewed, err := s.client.PartnerConnect.Connect(ctx, stack.ConnectParams{Email: "ada@example.com"})
			require.NoError(t, err)
			assert.Equal(t, stack.ConnectPending, renewed.Status, "now the account exists")
			require.NoError(t, s.ApproveGrant(renewed.GrantID))
			_, err = s.Client(stack.WithAPIKey(renewed.GrantToken.Reveal())).Agents.Get(ctx, agent.ID)
			require.ErrorIs(t, err, stack.ErrNotFound, "another grant made it")
		})
	}
}

func TestGrantTokenRotation(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newGrant(t, stack.ConnectParams{})
	agent, _, _, _ := work(t, s.theirs, "theirs")
	rotated, err := s.client.PartnerConnect.RotateToken(ctx, s.grant.GrantID)
	require.NoError(t, err)
	assert.Regexp(t, `^sk_grant_`, rotated.GrantToken.Reveal())
	assert.NotEqual(t, s.grant.GrantToken.Reveal(), rotated.GrantToken.Reveal())
	_, err = s.theirs.Agents.List(ctx)
	requireRefused(t, err, 401, "INVALID_API_KEY")
	_, err = s.Client(stack.WithAPIKey(rotated.GrantToken.Reveal())).Agents.Get(ctx, agent.ID)
	require.NoError(t, err, "the reach is the grant's")
	_, err = s.client.PartnerConnect.RevokeConnection(ctx, s.grant.GrantID)
	require.NoError(t, err)
	for _, action := range []string{"partner.connect", "partner.rotate", "partner.revoke"} {
		assert.Equal(t, 1, s.countRows(action), "in the partner's log: %s", action)
	}
	rows, err := s.account.Audit.List(ctx, stack.AuditListParams{Limit: 100})
	require.NoError(t, err)
	var actions []string
	for _, row := range rows.Entries {
		if row.TraceID == s.grant.GrantID {
			actions = append(actions, row.Action)
		}
	}
	assert.Equal(t, []string{"partner.grant_revoke", "partner.grant_rotate", "partner.grant_activate", "partner.grant_request"}, actions,
		"in the owner's log")
}

func TestConnectRefusals(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newGrant(t, stack.ConnectParams{})
	connect := s.client.PartnerConnect
	_, err := connect.Connect(ctx, stack.ConnectParams{})
	requireParam(t, err, "email")
	for field, p := range map[string]stack.ConnectParams{
		"body.email":                {Email: "nobody"},
		"body.external_customer_id": {ExternalCustomerID: strings.Repeat("x", 257)},
		"body.scopes[1]":            {Scopes: []stack.ConnectScope{stack.ScopeAgentsRead, "audit:read"}},
		"body.scopes[2]":            {Scopes: []stack.ConnectScope{stack.ScopeAgentsRead, stack.ScopeProxyRead, stack.ScopeAgentsRead}},
		"body.providers[0]":         {Providers: []string{"no-such-service"}},
		"body.providers[1]":         {Providers: []string{"slack", "slack"}},
	} {
		if p.Email == "" {
			p.Email = "bob@example.com"
		}
		_, err = connect.Connect(ctx, p)
		refusal := requireRefused(t, err, 400, "INVALID_REQUEST")
		assert.Equal(t, field, refusal.Details["field"])
	}
	for _, call := range []error{failure(connect.GetConnection(ctx, "pgr_none")), failure(connect.RevokeConnection(ctx, "pgr_none")),
		failure(connect.RotateToken(ctx, "pgr_none"))} {
		requireRefused(t, call, 404, "NOT_FOUND")
	}
	for _, call := range []error{failure(s.account.PartnerConnect.GetConnection(ctx, s.grant.GrantID)),
		failure(s.account.PartnerConnect.RevokeConnection(ctx, s.grant.GrantID)),
		failure(s.account.PartnerConnect.RotateToken(ctx, s.grant.GrantID))} {
		requireRefused(t, call, 404, "NOT_FOUND")
	}
	_, err = s.account.PartnerConnect.Connect(ctx, stack.ConnectParams{Email: "bob@example.com"})
	refusal := requireRefused(t, err, 403, "FORBIDDEN")
	assert.Equal(t, "partner", refusal.Details["check"])
	_, member := join(t, s.Server, stack.TeamInviteParams{Role: stack.RoleStandard})
	_, err = member.PartnerConnect.RotateToken(ctx, s.grant.GrantID)
	requireRefused(t, err, 403, "FORBIDDEN")
}

// Of many calls for one address at once, one makes the grant.
func TestConnectAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	const calls = 16
	grants := make(chan *stack.Connected, calls)
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			grant, err := s.client.PartnerConnect.Connect(t.Context(), stack.ConnectParams{Email: "ada@example.com"})
			assert.NoError(t, err)
			grants <- grant
		})
	}
	all.Wait()
	close(grants)
	ids, tokens := map[string]bool{}, 0
	for g := range grants {
		ids[g.GrantID] = true
		if !g.GrantToken.IsZero() {
			tokens++
		}
		assert.Equal(t, stack.ConnectActive, g.Status)
	}
	assert.Len(t, ids, 1)
	assert.Equal(t, 1, tokens)
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
