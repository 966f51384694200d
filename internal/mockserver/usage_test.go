package mockserver

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestChargeCountsByCalendarMonth(t *testing.T) {
	t.Parallel()
	lastOfMonth := time.Date(2026, 1, 31, 23, 59, 59, 999_999_999, time.UTC)
	for _, tier := range []stack.Tier{stack.TierFree, stack.TierDeveloper} {
		t.Run(string(tier), func(t *testing.T) {
			t.Parallel()
			op := newOperator(New(Options{}), newID("op_"))
			op.policy.Tier = tier
			limit := *op.limit(meterProxy)
			for range limit {
				require.NoError(t, op.charge(lastOfMonth, meterProxy))
			}
			err := op.charge(lastOfMonth, meterProxy)
			var refusal *apiError
			require.True(t, errors.As(err, &refusal))
			assert.Equal(t, 402, refusal.status)
			assert.Equal(t, "INSUFFICIENT_CREDITS", refusal.code)
			assert.Equal(t, "plan_meter", refusal.details["check"])
			assert.Equal(t, meterProxy, refusal.details["meter"])
			assert.Equal(t, limit, refusal.details["limit"])
			assert.Equal(t, limit, refusal.details["used"])
			assert.Equal(t, "2026-01", refusal.details["period"])
			require.NoError(t, op.charge(lastOfMonth, meterPassports), "each meter has its own allowance")

			used := op.meterUsage(lastOfMonth, meterProxy)
			assert.Equal(t, stack.MeterUsage{Tier: tier, Limit: &limit, Used: limit, Remaining: new(int), Period: "2026-01"}, used)

			next := lastOfMonth.Add(time.Nanosecond)
			require.NoError(t, op.charge(next, meterProxy), "a new month begins")
			left := limit - 1
			used = op.meterUsage(next, meterProxy)
			assert.Equal(t, stack.MeterUsage{Tier: tier, Limit: &limit, Used: 1, Remaining: &left, Period: "2026-02"}, used)
		})
	}
}

func TestEnterpriseHasNoLimits(t *testing.T) {
	t.Parallel()
	op := newOperator(New(Options{}), newID("op_"))
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for range 6_000 {
		require.NoError(t, op.charge(now, meterProxy))
	}
	assert.Equal(t, stack.MeterUsage{Tier: stack.TierEnterprise, Used: 6_000, Period: "2026-03"}, op.meterUsage(now, meterProxy))
	for _, what := range []string{capAgents, capServices, capMembers} {
		require.NoError(t, op.capacity(what, 1<<30))
	}

	op.policy.Tier = stack.TierFree // a smaller plan does not make what was used undone
	used := op.meterUsage(now, meterProxy)
	assert.Equal(t, 6_000, used.Used)
	assert.Equal(t, 0, *used.Remaining)
}

func TestAllowanceCoverageAfterADowngrade(t *testing.T) {
	t.Parallel()
	op := newOperator(New(Options{}), newID("op_"))
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for range 10_000 {
		require.NoError(t, op.charge(now, meterActions))
	}
	start, end := month(now)
	for tier, want := range map[stack.Tier]float64{stack.TierEnterprise: 1, stack.TierDeveloper: 1, stack.TierFree: 0.5} {
		op.policy.Tier = tier
		actions := op.consumption(start, end, false).Actions
		assert.InDelta(t, want, actions.AllowanceCoverage, 1e-9, tier)
		assert.Equal(t, 10_000, actions.Used, tier)
	}
}

func TestCapacityByTier(t *testing.T) {
	t.Parallel()
	cases := []struct {
		tier  stack.Tier
		what  string
		limit int
	}{
		{stack.TierFree, capMembers, 1},
		{stack.TierDeveloper, capMembers, 5},
		{stack.TierStudio, capMembers, 25},
		{stack.TierFree, capAgents, 10},
		{stack.TierFree, capServices, 10},
	}
	for _, tt := range cases {
		t.Run(string(tt.tier)+" "+tt.what, func(t *testing.T) {
			t.Parallel()
			op := newOperator(New(Options{}), newID("op_"))
			op.policy.Tier = tt.tier
			require.NoError(t, op.capacity(tt.what, tt.limit-1))
			var refusal *apiError
			require.True(t, errors.As(op.capacity(tt.what, tt.limit), &refusal))
			assert.Equal(t, 403, refusal.status)
			assert.Equal(t, "TIER_LIMIT_EXCEEDED", refusal.code)
			assert.Equal(t, tt.limit, refusal.details["limit"])
			assert.Equal(t, tt.what, refusal.details["resource"])
		})
	}
}

func TestChargeKeepsItsOrderWhenTheClockLagsBehind(t *testing.T) {
	t.Parallel()
	op := newOperator(New(Options{}), newID("op_"))
	at := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for _, offset := range []time.Duration{0, -time.Second, time.Second, -time.Minute} {
		require.NoError(t, op.charge(at.Add(offset), meterProxy))
	}
	assert.Equal(t, 4, op.meters.count(meterProxy, at, at.Add(2*time.Second)))
	assert.Zero(t, op.meters.count(meterProxy, at.Add(2*time.Second), at), "a window that ends before it begins holds nothing")
}

// total is every use of a meter.
func (m meters) total(meter string) int { return m.before(meter, time.Unix(1<<40, 0)) }

func TestMetersStayBoundedAndMonthsExact(t *testing.T) {
	t.Parallel()
	var m meters
	start, end := month(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	const each = maxTallies
	at := start.Add(-each * time.Second / 2)
	for range 3 * each { // half of the first hundred thousand falls before the month
		m.use(at, meterProxy)
		at = at.Add(time.Second)
	}
	assert.LessOrEqual(t, len(m[meterProxy]), maxTallies)
	assert.Equal(t, 3*each, m.total(meterProxy))
	assert.Equal(t, 3*each-each/2, m.count(meterProxy, start, end), "a month begins with an hour")
	late := at.Add(-100 * time.Second)
	assert.Equal(t, 100, m.count(meterProxy, late, end), "what is new is counted to the moment")
	for range 5 {
		m.use(at, meterProxy)
	}
	assert.Equal(t, 5, m.count(meterProxy, at, end), "several in one moment")
}

func TestPassportsStopWhenTheMeterIsUsedUp(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	ctx := t.Context()
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "bot", AccountabilityMode: stack.Standard})
	require.NoError(t, err)
	op.mu.Lock()
	op.policy.Tier = stack.TierFree
	for range *op.limit(meterPassports) - 1 {
		require.NoError(t, op.charge(s.Now(), meterPassports))
	}
	op.mu.Unlock()
	start := stack.MissionStartParams{AgentID: agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "use up the plan"}}
	_, err = client.Missions.Start(ctx, start)
	require.NoError(t, err, "the last one that the plan holds")
	_, err = client.Missions.Start(ctx, start)
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	assert.Equal(t, 402, apiErr.Status)
	assert.Equal(t, "INSUFFICIENT_CREDITS", apiErr.Code)
	assert.Equal(t, "passports", apiErr.Details["meter"])
}

func BenchmarkCharge(b *testing.B) {
	op := newOperator(New(Options{}), newID("op_"))
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		if err := op.charge(now, meterProxy); err != nil {
			b.Fatal(err)
		}
	}
}
