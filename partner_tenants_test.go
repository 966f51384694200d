package stack_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// tenantStage is a partner with a tenant that has an agent with Slack.
type tenantStage struct {
	*stage
	tenant  *stack.CreatedTenant
	account *stack.Client // the tenant's own
	bot     *stack.Agent
	slack   *stack.Connection
}

func newTenant(t *testing.T, mode stack.Accountability) *tenantStage {
	t.Helper()
	ctx := t.Context()
	s := &tenantStage{stage: newStage(t, stack.Enforced)}
	var err error
	s.tenant, err = s.client.PartnerTenants.Create(ctx, "customer-1")
	require.NoError(t, err)
	s.account = s.Client(stack.WithAPIKey(s.tenant.APIKey.Reveal()))
	s.bot, err = s.account.Agents.Register(ctx, stack.AgentRegisterParams{Name: "bot", AccountabilityMode: mode})
	require.NoError(t, err)
	s.slack, err = s.account.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack",
		OAuthToken: stack.NewSecret("tenant-token"), Scopes: []string{"chat:write", "channels:read"}})
	require.NoError(t, err)
	_, err = s.account.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: s.bot.ID, ServiceConnectionID: s.slack.ID,
		Scopes: s.slack.Scopes})
	require.NoError(t, err)
	return s
}

// open opens a Mission of the tenant.
func (s *tenantStage) open(t *testing.T) string {
	t.Helper()
	m, err := s.account.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "Answer customers"})
	require.NoError(t, err)
	return m.MissionID
}

// issue issues a passport of the tenant's agent, as the partner.
func (s *tenantStage) issue(t *testing.T) *stack.Passport {
	t.Helper()
	p, err := s.client.PartnerTenants.IssuePassport(t.Context(), s.tenant.OperatorID,
		stack.TenantPassportParams{AgentID: s.bot.ID, MissionIDs: []string{s.open(t)}})
	require.NoError(t, err)
	return p
}

func (s *tenantStage) act(ctx context.Context, p *stack.Passport) error {
	_, err := s.account.Proxy.Request(ctx, withPassport(post("#support"), p))
	return err
}

func TestTenantCreate(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Enforced)
	assert.Regexp(t, `^op_[a-z0-9]{26}$`, s.tenant.OperatorID)
	assert.Regexp(t, `^sk_live_`, s.tenant.APIKey.Reveal())
	assert.Equal(t, stack.Tenant{OperatorID: s.tenant.OperatorID, ExternalCustomerID: "customer-1", Tier: stack.TierPartner,
		Billing: stack.BillingPartner, Status: stack.TenantActive, CreatedAt: s.tenant.CreatedAt}, s.tenant.Tenant)
	assert.Equal(t, s.tenant.OperatorID, s.bot.OperatorID)
	usage, err := s.account.Usage.Get(ctx, stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, stack.TierPartner, usage.Tier)

	_, err = s.client.PartnerTenants.Create(ctx, "customer-1")
	refusal := requireRefused(t, err, 409, "TENANT_EXISTS")
	assert.Equal(t, s.tenant.OperatorID, refusal.Details["operator_id"])
	_, err = s.client.PartnerTenants.Create(ctx, strings.Repeat("x", 257))
	requireRefused(t, err, 400, "INVALID_REQUEST")
	err = s.client.Do(ctx, "POST", "/v1/partner/tenants", map[string]any{"tier": "enterprise"}, nil)
	requireRefused(t, err, 400, "TENANT_TIER_NOT_ALLOWED")
	_, err = s.account.PartnerTenants.Create(ctx, "")
	requireRefused(t, err, 403, "FORBIDDEN")
	_, member := join(t, s.Server, stack.TeamInviteParams{Role: stack.RoleStandard})
	_, err = member.PartnerTenants.Create(ctx, "")
	requireRefused(t, err, 403, "FORBIDDEN")

	anonymous, err := s.client.PartnerTenants.Create(ctx, "")
	require.NoError(t, err)
	s.SetPolicy(stacktest.Policy{TenantLimit: 2})
	_, err = s.client.PartnerTenants.Create(ctx, "")
	require.ErrorIs(t, err, stack.ErrTenantLimitReached)
	requireRefused(t, err, 409, "TENANT_LIMIT_REACHED")
	_, err = s.client.PartnerTenants.Revoke(ctx, anonymous.OperatorID)
	require.NoError(t, err)
	_, err = s.client.PartnerTenants.Create(ctx, "")
	require.NoError(t, err, "a revoked tenant does not count")
	s.SetPolicy(stacktest.Policy{Tier: stack.TierStudio})
	_, err = s.client.PartnerTenants.Create(ctx, "")
	requireRefused(t, err, 403, "FORBIDDEN")
	for _, row := range s.Audit() {
		assert.NotContains(t, fmt.Sprint(row), s.tenant.APIKey.Reveal())
	}
}

func TestTenantListGetUsage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Enforced)
	idle, err := s.client.PartnerTenants.Create(ctx, "")
	require.NoError(t, err)
	p := s.issue(t)
	for range 3 {
		require.NoError(t, s.act(ctx, p))
	}
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#own"), s.stage.issue(t)))
	require.NoError(t, err)

	period := s.Now().Format("2006-01")
	tenant, err := s.client.PartnerTenants.Get(ctx, s.tenant.OperatorID)
	require.NoError(t, err)
	want := s.tenant.Tenant
	want.Usage = &stack.TenantUsage{Period: period, Actions: 3}
	assert.Equal(t, &want, tenant)
	list, err := s.client.PartnerTenants.List(ctx)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, want, list[0])
	assert.Equal(t, idle.OperatorID, list[1].OperatorID)
	assert.Equal(t, 0, list[1].Usage.Actions)
	assert.NotContains(t, fmt.Sprint(s.raw(t, "GET", "/v1/partner/tenants", nil)), "sk_live_")

	usage, err := s.client.Usage.Get(ctx, stack.UsageParams{})
	require.NoError(t, err)
	own, tenants := 1, 2
	assert.Equal(t, stack.ActionUsage{Used: 4, AllowanceCoverage: 1, AllowanceTier: stack.TierEnterprise, Pooled: true,
		OwnUsed: &own, Tenants: &tenants}, usage.Consumption.Actions)
	assert.Equal(t, 4, usage.Consumption.Meters["proxy_calls"].Used)
	usage, err = s.account.Usage.Get(ctx, stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, 3, usage.Consumption.Actions.Used)
	assert.False(t, usage.Consumption.Actions.Pooled)
}

// A tenant sees nothing of its partner and of other tenants, and nobody sees anything of it.
func TestTenantsAreIsolated(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Enforced)
	created, err := s.client.PartnerTenants.Create(ctx, "customer-2")
	require.NoError(t, err)
	sibling := s.Client(stack.WithAPIKey(created.APIKey.Reveal()))
	p := s.issue(t)
	webhook, err := s.client.PartnerTenants.CreateInboundWebhook(ctx, s.tenant.OperatorID,
		stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: s.bot.ID})
	require.NoError(t, err)
	mission := s.open(t)
	for name, other := range map[string]*stack.Client{"partner": s.client, "sibling": sibling} {
		for what, call := range map[string]error{
			"agent":      failure(other.Agents.Get(ctx, s.bot.ID)),
			"passport":   failure(other.Passports.Report(ctx, p.JTI)),
			"mission":    failure(other.Missions.Get(ctx, mission)),
			"connection": failure(other.Services.Verify(ctx, s.slack.ID)),
			"webhook":    failure(other.InboundWebhooks.Get(ctx, webhook.ID)),
		} {
			require.ErrorIs(t, call, stack.ErrNotFound, "%s: %s", name, what)
		}
		_, err = other.Proxy.Request(ctx, withPassport(post("#x"), p))
		require.ErrorIs(t, err, stack.ErrUnauthorized, name)
	}
	agents, err := sibling.Agents.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, agents)
	_, err = s.account.Agents.Get(ctx, s.agent.ID)
	require.ErrorIs(t, err, stack.ErrNotFound)
	for what, call := range map[string]error{
		"get":    failure(s.account.PartnerTenants.Get(ctx, created.OperatorID)),
		"revoke": failure(sibling.PartnerTenants.Revoke(ctx, s.tenant.OperatorID)),
		"issue": failure(sibling.PartnerTenants.IssuePassport(ctx, s.tenant.OperatorID,
			stack.TenantPassportParams{AgentID: s.bot.ID, MissionIDs: []string{mission}})),
		"webhook": failure(sibling.PartnerTenants.CreateInboundWebhook(ctx, s.tenant.OperatorID,
			stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: s.bot.ID})),
		"secret": failure(sibling.PartnerTenants.SetInboundWebhookSigningSecret(ctx, s.tenant.OperatorID, webhook.ID,
			stack.ProviderSecretParams{SigningSecret: stack.NewSecret("0123456789abcdef")})),
		"unknown agent": failure(s.client.PartnerTenants.IssuePassport(ctx, s.tenant.OperatorID,
			stack.TenantPassportParams{AgentID: s.agent.ID, MissionIDs: []string{mission}})),
	} {
		requireRefused(t, call, 404, "NOT_FOUND")
		require.ErrorIs(t, call, stack.ErrNotFound, what)
	}
	for _, row := range s.Audit() {
		assert.NotEqual(t, s.bot.ID, row.AgentID, "the tenant's log is the tenant's")
	}
	tenants, err := s.account.PartnerTenants.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, tenants)
}

func TestTenantRevoke(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Enforced)
	p := s.issue(t)
	s.issue(t)
	webhook, err := s.client.PartnerTenants.CreateInboundWebhook(ctx, s.tenant.OperatorID,
		stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: s.bot.ID})
	require.NoError(t, err)
	member, err := s.account.Team.Invite(ctx, stack.TeamInviteParams{Email: "m@example.com", Name: "M"})
	require.NoError(t, err)
	key, err := s.AcceptInvitation(member.ID)
	require.NoError(t, err)
	offered := publish(t, s.account, shout())
	usage, err := s.account.Usage.Get(ctx, stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, 1, usage.Consumption.Meters["skills"].Used)
	invoke(t, s.client, offered.ID, text("x"))

	r, err := s.client.PartnerTenants.Revoke(ctx, s.tenant.OperatorID)
	require.NoError(t, err)
	assert.Equal(t, &stack.TenantRevocation{OperatorID: s.tenant.OperatorID, Transitioned: true, WebhooksRevoked: 1,
		PassportsRevoked: 2, RevokedAt: r.RevokedAt}, r)
	again, err := s.client.PartnerTenants.Revoke(ctx, s.tenant.OperatorID)
	require.NoError(t, err)
	assert.Equal(t, &stack.TenantRevocation{OperatorID: s.tenant.OperatorID, RevokedAt: r.RevokedAt}, again)
	for action, n := range map[string]int{"tenant.create": 1, "tenant.issue_passport": 2, "tenant.create_webhook": 1, "tenant.revoke": 1} {
		assert.Equal(t, n, s.countRows(action), action)
	}

	for _, client := range []*stack.Client{s.account, s.Client(stack.WithAPIKey(key.Reveal()))} {
		_, err = client.Agents.List(ctx)
		requireRefused(t, err, 401, "INVALID_API_KEY")
	}
	_, err = s.client.Skills.Invoke(ctx, offered.ID, text("x"))
	requireRefused(t, err, 404, "SKILL_NOT_FOUND")
	v, err := s.client.Passports.Verify(ctx, p.Token)
	require.NoError(t, err)
	assert.False(t, v.Valid)
	status, _ := sendTo(t, s.Server, webhook.WebhookURL, "{}", "X-Webhook-Signature",
		hex.EncodeToString(mac(sha256.New, []byte(webhook.IncomingSigningSecret.Reveal()), "{}")))
	assert.Equal(t, http.StatusGone, status)
	tenant, err := s.client.PartnerTenants.Get(ctx, s.tenant.OperatorID)
	require.NoError(t, err)
	assert.Equal(t, stack.TenantRevoked, tenant.Status)
	assert.Equal(t, r.RevokedAt, tenant.RevokedAt)

	_, err = s.client.PartnerTenants.IssuePassport(ctx, s.tenant.OperatorID,
		stack.TenantPassportParams{AgentID: s.bot.ID, MissionIDs: []string{"ms_x"}})
	requireRefused(t, err, 409, "TENANT_REVOKED")
	_, err = s.client.PartnerTenants.CreateInboundWebhook(ctx, s.tenant.OperatorID,
		stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: s.bot.ID})
	requireRefused(t, err, 409, "TENANT_REVOKED")
	_, err = s.client.PartnerTenants.Revoke(ctx, "op_none")
	requireRefused(t, err, 404, "NOT_FOUND")
	replacement, err := s.client.PartnerTenants.Create(ctx, "customer-1")
	require.NoError(t, err, "the customer's id is free again")
	assert.NotEqual(t, s.tenant.OperatorID, replacement.OperatorID)
}

func TestTenantPassports(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Enforced)
	tenants, id := s.client.PartnerTenants, s.tenant.OperatorID
	p := s.issue(t)
	claims := s.claims(t, p.Token)
	assert.Equal(t, id, claims.STK.OperatorID)
	assert.Equal(t, s.bot.ID, claims.Subject)
	assert.Equal(t, "Answer customers", claims.STK.IntentSummary, "the Mission's")
	assert.Equal(t, []string{"slack"}, claims.STK.IntentServices)
	require.NoError(t, s.act(ctx, p))

	p, err := tenants.IssuePassport(ctx, id, stack.TenantPassportParams{AgentID: s.bot.ID, MissionIDs: []string{s.open(t)},
		TTL: 2 * time.Minute, AccountabilityMode: stack.Enforced,
		Services: []stack.TenantScope{{ServiceConnectionID: s.slack.ID, Scopes: []string{"channels:read"}}}})
	require.NoError(t, err)
	assert.WithinDuration(t, s.Now().Add(2*time.Minute), p.ExpiresAt, 5*time.Second)
	assert.Equal(t, []string{"channels:read"}, s.claims(t, p.Token).STK.Services[0].Scopes)

	minted, err := tenants.MintOutboundPassport(ctx, id, stack.OutboundPassportParams{AgentID: s.bot.ID, MissionID: s.open(t),
		Scopes: []string{"chat:write"}})
	require.NoError(t, err)
	assert.Equal(t, minted.Token.Reveal(), minted.HeaderValue.Reveal())
	claims = s.claims(t, minted.Token)
	assert.Equal(t, minted.PassportID, claims.JTI)
	assert.Equal(t, stack.Enforced, claims.STK.Accountability)
	require.Len(t, claims.STK.Services, 1)
	assert.Equal(t, s.slack.ID, claims.STK.Services[0].ConnectionID)
	assert.Equal(t, []string{"chat:write"}, claims.STK.Services[0].Scopes)

	bare, err := s.account.Agents.Register(ctx, stack.AgentRegisterParams{Name: "bare"})
	require.NoError(t, err)
	minted, err = tenants.MintOutboundPassport(ctx, id, stack.OutboundPassportParams{AgentID: bare.ID, MissionID: s.open(t)})
	require.NoError(t, err, "it shows who it is, and reaches nothing")
	assert.Empty(t, s.claims(t, minted.Token).STK.Services)

	_, err = tenants.MintOutboundPassport(ctx, id, stack.OutboundPassportParams{AgentID: s.bot.ID})
	requireParam(t, err, "mission_id")
	_, err = tenants.IssuePassport(ctx, id, stack.TenantPassportParams{MissionIDs: []string{"ms_x"}})
	requireParam(t, err, "agent_id")
	for _, missions := range [][]string{nil, {""}, {"ms_1", "ms_2"}} {
		_, err = tenants.IssuePassport(ctx, id, stack.TenantPassportParams{AgentID: s.bot.ID, MissionIDs: missions})
		requireParam(t, err, "mission_ids")
	}
	_, err = tenants.IssuePassport(ctx, id, stack.TenantPassportParams{AgentID: s.bot.ID, MissionIDs: []string{"ms_x"}, TTL: time.Second})
	requireParam(t, err, "ttl_seconds")

	closed := s.open(t)
	_, err = s.account.Missions.Complete(ctx, closed, stack.MissionCompleteParams{})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		change func(*stack.TenantPassportParams)
		status int
		code   string
	}{
		"unknown mission": {func(p *stack.TenantPassportParams) { p.MissionIDs = []string{"ms_none"} }, 404, "NOT_FOUND"},
		"the partner's":   {func(p *stack.TenantPassportParams) { p.MissionIDs = []string{s.mission(t, time.Hour)} }, 404, "NOT_FOUND"},
		"closed mission":  {func(p *stack.TenantPassportParams) { p.MissionIDs = []string{closed} }, 403, "FORBIDDEN"},
		"named intent":    {func(p *stack.TenantPassportParams) { p.NamedIntents = []string{"send"} }, 400, "INVALID_REQUEST"},
		"weaker mode":     {func(p *stack.TenantPassportParams) { p.AccountabilityMode = stack.Standard }, 400, "INVALID_REQUEST"},
		"foreign connection": {func(p *stack.TenantPassportParams) {
			p.Services = []stack.TenantScope{{ServiceConnectionID: s.agent.Connections["slack"].ID, Scopes: []string{"chat:write"}}}
		}, 400, "SCOPE_ESCALATION"},
		"foreign scope": {func(p *stack.TenantPassportParams) {
			p.Services = []stack.TenantScope{{Scopes: []string{"chat:write", "admin"}}}
		}, 400, "SCOPE_ESCALATION"},
		"no scope": {func(p *stack.TenantPassportParams) { p.Services = []stack.TenantScope{{Scopes: []string{}}} }, 400, "SCOPE_ESCALATION"},
		"two without a connection": {func(p *stack.TenantPassportParams) {
			p.Services = []stack.TenantScope{{Scopes: []string{"chat:write"}}, {Scopes: []string{"channels:read"}}}
		}, 400, "INVALID_REQUEST"},
	} {
		params := stack.TenantPassportParams{AgentID: s.bot.ID, MissionIDs: []string{s.open(t)}}
		c.change(&params)
		_, err := tenants.IssuePassport(ctx, id, params)
		var refused *stack.Error
		require.ErrorAs(t, err, &refused, name)
		assert.Equal(t, c.code, refused.Code, "%s: %s", name, refused.Message)
		assert.Equal(t, c.status, refused.Status, name)
		var ended *stack.MissionEndedError
		require.NotErrorAs(t, err, &ended)
	}
}

func TestTenantInboundWebhooks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Enforced)
	tenants, id := s.client.PartnerTenants, s.tenant.OperatorID
	webhook, err := tenants.CreateInboundWebhook(ctx, id, stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: s.bot.ID,
		ForwardURL: "https://app.example.com/", GenericConfig: &stack.InboundGenericConfig{Prefix: "v0="}})
	require.NoError(t, err)
	assert.Equal(t, id, webhook.OperatorID)
	list, err := s.account.InboundWebhooks.List(ctx)
	require.NoError(t, err)
	assert.Equal(t, []stack.InboundWebhook{webhook.InboundWebhook}, list, "it is the tenant's")
	list, err = s.client.InboundWebhooks.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, list)

	secret := stack.NewSecret("the provider's own secret")
	set, err := tenants.SetInboundWebhookSigningSecret(ctx, id, webhook.ID, stack.ProviderSecretParams{SigningSecret: secret})
	require.NoError(t, err)
	assert.Equal(t, &stack.SigningSecretStatus{WebhookID: webhook.ID, Status: "configured"}, set)
	into := &receiver{secret: webhook.WebhookSecret, status: 200}
	s.Upstream("app.example.com", into)
	send := func(body string) int {
		status, _ := sendTo(t, s.Server, webhook.WebhookURL, body, "X-Webhook-Signature",
			"v0="+hex.EncodeToString(mac(sha256.New, []byte(secret.Reveal()), body)))
		return status
	}
	assert.Equal(t, 200, send("{}"))
	into.secret = stack.NewSecret("a downstream secret of my own")
	_, err = tenants.SetInboundWebhookSigningSecret(ctx, id, webhook.ID,
		stack.ProviderSecretParams{SigningSecret: secret, DownstreamSigningSecret: into.secret})
	require.NoError(t, err)
	assert.Equal(t, 200, send("[]"))
	assert.Equal(t, []error{nil, nil}, into.errs)
	s.SetPolicy(stacktest.Policy{PartnerInactive: true})
	assert.Equal(t, 403, send("1"))

	_, err = tenants.SetInboundWebhookSigningSecret(ctx, id, webhook.ID, stack.ProviderSecretParams{})
	requireParam(t, err, "signing_secret")
	_, err = tenants.CreateInboundWebhook(ctx, id, stack.InboundWebhookParams{})
	requireParam(t, err, "provider")
	s.SetPolicy(stacktest.Policy{})
	_, err = tenants.SetInboundWebhookSigningSecret(ctx, id, "whk_none", stack.ProviderSecretParams{SigningSecret: secret})
	requireRefused(t, err, 404, "NOT_FOUND")
}
