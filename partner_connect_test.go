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
