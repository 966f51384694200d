package mockserver

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

// meters hold how many uses there were up to each moment at which there was one, in order, by meter. What a month or a window
// holds is a search, and a new month needs no reset.
type meters map[string][]tally

// tally is how many uses there were up to a moment, and with it.
type tally struct {
	at    int64 // in milliseconds
	total int
}

const maxTallies = 10_000 // of one meter; beyond it, the older half of them is kept to the hour

// What a plan limits: uses of a meter in a month, and things that are kept.
const (
	meterActions   = "actions" // what agents did at services: so far, every proxied call that passed its checks
	meterPassports = "passports"
	meterProxy     = "proxy_calls"
	meterDropoffs  = "dropoffs"
	meterSkills    = "free_skill_invocations"
	meterScans     = "scans"

	capAgents   = "agents"
	capServices = "services"
	capMembers  = "members"
	capSkills   = "skills"
)

// plans is what each tier may use; what is not listed has no limit. The passports and proxied calls of free and studio and
// all seats are those of the hosted service, the other numbers are ours. (contract: server-api 4)
var plans = map[stack.Tier]map[string]int{
	stack.TierFree: {meterActions: 5_000, meterPassports: 50_000, meterProxy: 5_000, meterScans: 5_000, meterDropoffs: 1_000,
		meterSkills: 500, capAgents: 10, capServices: 10, capMembers: 1, capSkills: 5},
	stack.TierDeveloper: {meterActions: 50_000, meterPassports: 500_000, meterProxy: 50_000, meterScans: 50_000, meterDropoffs: 10_000,
		meterSkills: 5_000, capAgents: 100, capServices: 50, capMembers: 5, capSkills: 25},
	stack.TierStudio: {meterActions: 500_000, meterPassports: 5_000_000, meterProxy: 500_000, meterScans: 500_000, meterDropoffs: 100_000,
		meterSkills: 50_000, capAgents: 1_000, capServices: 250, capMembers: 25, capSkills: 250},
}

// limit is what the operator's plan allows of something; nil is no limit.
func (op *operator) limit(what string) *int {
	if n, ok := plans[op.policy.Tier][what]; ok {
		return &n
	}
	return nil
}

// payer is the account whose plan and wallet pay: a tenant's partner, or else the account itself. (contract: semantics 21)
func (op *operator) payer() *operator {
	if op.partner != nil {
		return op.partner
	}
	return op
}

// holdPool locks a tenant's partner for as long as something is quoted and counted, and returns what lets go of it.
func (op *operator) holdPool() (release func()) {
	if op.partner == nil {
		return func() {}
	}
	op.partner.mu.Lock()
	return op.partner.mu.Unlock
}

// meterUse is one use of a meter: what the wallet pays for it, 0 within the plan.
type meterUse struct {
	meter string
	cents int
}

// quote says what one more use of a meter costs. What the plan has none left of this month the wallet pays, and when it
// cannot, beside what is owed already, the use is refused. A negotiated cap is hard. The pool must be held.
// (contract: server-api 4, 28)
func (op *operator) quote(now time.Time, meter string, owed int) (meterUse, error) {
	payer := op.payer()
	u := payer.meterUsage(now, meter)
	if limit := payer.policy.ActionCap; meter == meterActions && limit > 0 && u.Used >= limit {
		return meterUse{}, refuse(http.StatusPaymentRequired, "ALLOWANCE_EXHAUSTED",
			fmt.Sprintf("the partner's and its tenants' %d actions of %s are used up", limit, u.Period),
			map[string]any{"check": "action_cap", "meter": meter, "limit": limit, "used": u.Used, "period": u.Period,
				"allowed": fmt.Sprintf("%d a month", limit)})
	}
	if u.Limit == nil || u.Used < *u.Limit {
		return meterUse{meter: meter}, nil
	}
	if payer.wallet.cents-owed < overageCents {
		return meterUse{}, refuse(http.StatusPaymentRequired, "INSUFFICIENT_CREDITS",
			fmt.Sprintf("the %s plan's %s of %s are used up and the wallet is empty", u.Tier, meter, u.Period),
			map[string]any{"check": "plan_meter", "meter": meter, "tier": u.Tier, "limit": *u.Limit, "used": u.Used,
				"period": u.Period, "price_cents": overageCents, "balance_cents": payer.wallet.cents,
				"allowed": fmt.Sprintf("%d a month", *u.Limit)})
	}
	return meterUse{meter, overageCents}, nil
}

// charge counts one use of a meter, or refuses it.
func (op *operator) charge(now time.Time, meter string) error {
	defer op.holdPool()()
	use, err := op.quote(now, meter, 0)
	if err == nil {
		op.count(now, use)
	}
	return err
}

// count notes a use of a meter that was quoted. The pool must be held since then.
func (op *operator) count(now time.Time, use meterUse) {
	payer := op.payer()
	if use.cents > 0 {
		payer.wallet.move(now, stack.TransactionOverage, -use.cents, use.meter+" beyond the plan")
	}
	if payer != op {
		payer.pooled.use(now, use.meter)
	}
	op.meters.use(now, use.meter)
}

// use counts one use of a meter.
func (m *meters) use(now time.Time, meter string) {
	if *m == nil {
		*m = meters{}
	}
	uses, next := (*m)[meter], tally{now.UnixMilli(), 1}
	if len(uses) > 0 {
		last := &uses[len(uses)-1]
		if next.at <= last.at {
			last.total++
			return
		}
		next.total += last.total
	}
	if len(uses) >= maxTallies {
		uses = hourly(uses, maxTallies/2)
	}
	(*m)[meter] = append(uses, next)
}

// hourly keeps of the first n tallies only the last of each hour: months, which begin and end with an hour, stay exact.
func hourly(uses []tally, n int) []tally {
	const hour = int64(time.Hour / time.Millisecond)
	kept := uses[:0]
	for i, t := range uses {
		if i >= n || t.at/hour != uses[i+1].at/hour {
			kept = append(kept, t)
		}
	}
	return kept
}

// capacity refuses another thing of a kind when the plan holds no more than there are.
func (op *operator) capacity(what string, have int) error {
	limit := op.limit(what)
	if limit == nil || have < *limit {
		return nil
	}
	return refuse(http.StatusForbidden, "TIER_LIMIT_EXCEEDED",
		fmt.Sprintf("the %s plan holds at most %d %s", op.policy.Tier, *limit, what),
		map[string]any{"check": "plan_limit", "resource": what, "tier": op.policy.Tier, "limit": *limit, "used": have,
			"allowed": fmt.Sprintf("at most %d", *limit)})
}

// tiers are the plans, each with all that the one before it has.
var tiers = []stack.Tier{stack.TierFree, stack.TierDeveloper, stack.TierStudio, stack.TierEnterprise}

// needsTier refuses something that begins with a plan above the operator's.
func (op *operator) needsTier(least stack.Tier, what string) error {
	first := slices.Index(tiers, least)
	plan := op.plan()
	if slices.Index(tiers, plan) >= first {
		return nil
	}
	return refuse(http.StatusForbidden, "TIER_LIMIT_EXCEEDED",
		fmt.Sprintf("%s needs the %s plan or a higher one, and this is the %s plan", what, least, plan),
		map[string]any{"check": "plan_tier", "tier": plan, "allowed": tiers[first:]})
}

// meterUsage is what a meter has counted in the running month.
func (op *operator) meterUsage(now time.Time, meter string) stack.MeterUsage {
	start, end := month(now)
	u := stack.MeterUsage{Tier: op.policy.Tier, Limit: op.limit(meter), Period: period(start),
		Used: op.used(meter, start, end)}
	if u.Limit != nil {
		left := max(0, *u.Limit-u.Used)
		u.Remaining = &left
	}
	return u
}

// used counts the uses of the account's plan, those by its tenants too.
func (op *operator) used(meter string, start, end time.Time) int {
	return op.meters.count(meter, start, end) + op.pooled.count(meter, start, end)
}

// count returns the uses of a meter from start up to, without, end.
func (m meters) count(meter string, start, end time.Time) int {
	return max(0, m.before(meter, end)-m.before(meter, start))
}

// before returns the uses of a meter before a moment.
func (m meters) before(meter string, moment time.Time) int {
	uses := m[meter]
	n, _ := slices.BinarySearchFunc(uses, moment.UnixMilli(), func(t tally, at int64) int { return cmp.Compare(t.at, at) })
	if n == 0 {
		return 0
	}
	return uses[n-1].total
}

func month(now time.Time) (start, end time.Time) {
	start = time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	return start, start.AddDate(0, 1, 0)
}

func period(start time.Time) string { return start.Format("2006-01") }

func usageRoutes() []route {
	return []route{endpoint("GET", "/v1/usage", (*Server).getUsage)}
}

type usageIn struct {
	Since time.Time `query:"since"`
	Until time.Time `query:"until"`
}

func (s *Server) getUsage(_ context.Context, c *caller, in usageIn) (*stack.Usage, error) {
	op, now := c.op, s.clock.now()
	start, end := month(now)
	u := &stack.Usage{Tier: op.policy.Tier, AccountSince: op.since, PeriodLabel: period(start), Passthrough: map[string]any{}}
	window := !in.Since.IsZero() || !in.Until.IsZero()
	if window {
		if err := firstError(inOrder("query.until", in.Since, in.Until)); err != nil {
			return nil, err
		}
		u.PeriodLabel, u.Passthrough = "custom", nil
		start, end = or(in.Since, op.since), or(in.Until, end)
		if end.Before(start) && in.Since.IsZero() {
			start = end
		} else if end.Before(start) {
			end = start
		}
	}
	u.PeriodStart, u.PeriodEnd = start, end
	u.Consumption = op.consumption(start, end, window)
	u.SpendCents, u.WalletCents.Balance, u.EarningsCents = op.wallet.spent(start, end), op.wallet.cents, op.server.market.earnings(op.id)
	return u, nil
}

// consumption counts what flowed in a period and what is kept; in a window also how much of that was created inside it.
func (op *operator) consumption(start, end time.Time, window bool) stack.Consumption {
	metered := func(name string) stack.Meter {
		return stack.Meter{Used: op.used(name, start, end), Limit: op.limit(name)}
	}
	kept := func(name string, used, made int) stack.Meter {
		m := stack.Meter{Used: used, Limit: op.limit(name)}
		if window {
			m.CreatedInWindow = &made
		}
		return m
	}
	inside := func(at time.Time) int {
		if at.Before(start) || !at.Before(end) {
			return 0
		}
		return 1
	}
	var agents, services, members int
	for a := range op.agents.all() {
		agents += inside(a.CreatedAt)
	}
	for conn := range op.connections.all() {
		services += inside(conn.ConnectedAt)
	}
	for m := range op.members.all() {
		members += inside(m.InvitedAt)
	}
	op.server.market.mu.Lock()
	skills, published := op.server.market.published(op, inside)
	op.server.market.mu.Unlock()
	actions := metered(meterActions)
	coverage := 1.0
	if actions.Limit != nil && actions.Used > *actions.Limit { // the plan was changed for a smaller one
		coverage = float64(*actions.Limit) / float64(actions.Used)
	}
	pool := stack.ActionUsage{Used: actions.Used, Limit: actions.Limit, AllowanceCoverage: coverage, AllowanceTier: op.policy.Tier}
	if tenants := op.tenants.len(); tenants > 0 {
		own := op.meters.count(meterActions, start, end)
		pool.Pooled, pool.OwnUsed, pool.Tenants = true, &own, &tenants
	}
	return stack.Consumption{
		Activity: stack.Activity{Total: len(op.chain.Range(start, end))},
		Actions:  pool,
		Meters: map[string]stack.Meter{
			meterPassports: metered(meterPassports), meterProxy: metered(meterProxy), meterScans: metered(meterScans),
			meterDropoffs: metered(meterDropoffs), meterSkills: metered(meterSkills),
			capAgents:   kept(capAgents, op.agents.len(), agents),
			capServices: kept(capServices, op.connections.len(), services),
			capMembers:  kept(capMembers, op.members.len(), members),
			capSkills:   kept(capSkills, skills, published),
		},
	}
}
