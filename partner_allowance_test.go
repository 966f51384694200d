package stack_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestTenantAllowance(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Enforced)
	p, own := s.issue(t), s.stage.issue(t)
	s.SetPolicy(stacktest.Policy{ActionCap: 3})
	require.NoError(t, s.act(ctx, p))
	require.NoError(t, s.act(ctx, p))
	_, err := s.client.Proxy.Request(ctx, withPassport(post("#own"), own))
	require.NoError(t, err)
	err = s.act(ctx, p)
	require.ErrorIs(t, err, stack.ErrAllowanceExhausted)
	requireRefused(t, err, 402, "ALLOWANCE_EXHAUSTED")
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#own"), own))
	requireRefused(t, err, 402, "ALLOWANCE_EXHAUSTED")
	assert.Len(t, s.Forwarded("slack.com"), 3)
	s.SetPolicy(stacktest.Policy{})
	require.NoError(t, s.act(ctx, p))

	_, err = s.account.Billing.TopUp(ctx, 1000)
	require.ErrorIs(t, err, stack.ErrTenantBilledByPartner)
	requireRefused(t, err, 403, "TENANT_BILLED_BY_PARTNER")
	_, err = s.account.Billing.Balance(ctx)
	require.NoError(t, err, "reading is no change")

	s.SetPolicy(stacktest.Policy{PartnerInactive: true})
	_, err = s.account.Agents.List(ctx)
	require.ErrorIs(t, err, stack.ErrBillingAccountInactive)
	requireRefused(t, err, 403, "BILLING_ACCOUNT_INACTIVE")
	_, err = s.client.PartnerTenants.IssuePassport(ctx, s.tenant.OperatorID,
		stack.TenantPassportParams{AgentID: s.bot.ID, MissionIDs: []string{"ms_x"}})
	requireRefused(t, err, 403, "BILLING_ACCOUNT_INACTIVE")
	_, err = s.client.Agents.List(ctx)
	require.NoError(t, err)
}

// A plan's allowance is drawn on by all, and the partner's wallet pays for what goes beyond it.
func TestTenantsDrawOnThePartnersWallet(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Enforced)
	dropoff := func() error {
		return failure(s.account.Dropoffs.Create(ctx, stack.DropoffCreateParams{FromAgentID: s.bot.ID, ToAgentID: s.bot.ID,
			Schema: map[string]any{"type": "object"}}))
	}
	for range 999 {
		require.NoError(t, dropoff())
	}
	s.SetPolicy(stacktest.Policy{Tier: stack.TierFree}) // after the tenants came
	require.NoError(t, dropoff())
	requireRefused(t, dropoff(), 402, "INSUFFICIENT_CREDITS")
	require.NoError(t, s.TopUp(1000))
	require.NoError(t, dropoff())
	balance, err := s.client.Billing.Balance(ctx)
	require.NoError(t, err)
	assert.Less(t, balance.BalanceCents, 1000)
	assert.Equal(t, 1001, s.usageOf(t, "dropoffs"))
}

func (s *tenantStage) usageOf(t *testing.T, meter string) int {
	t.Helper()
	usage, err := s.client.Usage.Get(t.Context(), stack.UsageParams{})
	require.NoError(t, err)
	return usage.Consumption.Meters[meter].Used
}

// What a tenant buys, the partner's wallet pays, and what comes back goes there.
func TestTenantsBuySkillsFromThePartnersWallet(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Logged)
	p := shout()
	p.ExecutionMode, p.ExecutionSteps, p.AgentID, p.PricePerInvocation = stack.ExecuteOpen, nil, s.agent.ID, 30
	sk := publish(t, s.client, p)
	params := text("hello")
	params.AgentID = s.bot.ID
	_, err := s.account.Skills.Invoke(ctx, sk.ID, params)
	requireRefused(t, err, 402, "INSUFFICIENT_CREDITS")
	require.NoError(t, s.TopUp(100))
	inv, err := s.account.Skills.Invoke(ctx, sk.ID, params)
	require.NoError(t, err)
	assert.Equal(t, 70, balance(t, s.client).BalanceCents)
	assert.Equal(t, 0, balance(t, s.account).BalanceCents)
	_, err = s.client.Skills.ClaimInvocation(ctx, inv.ID)
	require.NoError(t, err)
	_, err = s.client.Skills.FailInvocation(ctx, inv.ID, stack.InvocationError{Code: "X", Message: "x"})
	require.NoError(t, err)
	assert.Equal(t, 100, balance(t, s.client).BalanceCents, "the price comes back")
	assert.Equal(t, 1, s.tenantActions(t))
}

func (s *tenantStage) tenantActions(t *testing.T) int {
	t.Helper()
	tenant, err := s.client.PartnerTenants.Get(t.Context(), s.tenant.OperatorID)
	require.NoError(t, err)
	return tenant.Usage.Actions
}

// A hard cap is hard, however many come at once, and nobody waits for nobody forever.
func TestTenantsAtOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newTenant(t, stack.Logged)
	p, own := s.issue(t), s.stage.issue(t)
	s.SetPolicy(stacktest.Policy{ActionCap: 20})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { _ = s.act(ctx, p) })
		all.Go(func() { _, _ = s.client.Proxy.Request(ctx, withPassport(post("#own"), own)) })
		all.Go(func() { assert.NoError(t, failure(s.client.PartnerTenants.List(ctx))) })
		all.Go(func() { assert.NoError(t, failure(s.client.PartnerTenants.Create(ctx, ""))) })
		all.Go(func() { s.Advance(0) })
		all.Go(func() { assert.NoError(t, failure(s.account.Usage.Get(ctx, stack.UsageParams{}))) })
	}
	all.Wait()
	assert.Len(t, s.Forwarded("slack.com"), 20)
}
