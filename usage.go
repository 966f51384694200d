package stack

import (
	"context"
	"encoding/json"
	"time"
)

// UsageService reads what an account has used. Reach it as [Client].Usage.
type UsageService struct{ client *Client }

// Tier is an account's plan.
type Tier string

// Tiers.
const (
	TierFree       Tier = "free"
	TierDeveloper  Tier = "developer"
	TierStudio     Tier = "studio"
	TierEnterprise Tier = "enterprise"
)

// MeterUsage is what a plan's meter has counted in the running month.
type MeterUsage struct {
	Tier      Tier   `json:"tier"`
	Limit     *int   `json:"limit"` // nil is no limit
	Used      int    `json:"used"`
	Remaining *int   `json:"remaining"` // nil without a limit
	Period    string `json:"period"`    // the month, such as 2026-02
	Pooled    bool   `json:"pooled,omitempty"`
}

// UsageParams selects what usage is counted in. Without bounds it is the current month; with one, a window.
type UsageParams struct {
	Since time.Time // default, with Until: when the account was made
	Until time.Time // exclusive; default, with Since: the end of the current month
}

// Usage is what an account has used, spent and earned in a period. Money is in cents.
type Usage struct {
	Tier          Tier           `json:"tier"`
	PeriodStart   time.Time      `json:"period_start"`
	PeriodEnd     time.Time      `json:"period_end"`
	PeriodLabel   string         `json:"period_label"`  // the month, such as 2026-02, or custom
	AccountSince  time.Time      `json:"account_since"` // nothing happened before it
	Consumption   Consumption    `json:"consumption"`
	Passthrough   map[string]any `json:"passthrough"` // nil in a window
	SpendCents    SpendCents     `json:"spend_cents"`
	WalletCents   WalletCents    `json:"wallet_cents"`
	EarningsCents EarningsCents  `json:"earnings_cents"`
}

// Consumption is what was used of a plan.
type Consumption struct {
	Activity Activity
	Actions  ActionUsage
	Meters   map[string]Meter // all other members of the object, such as passports, proxy_calls and agents
}

// Activity counts everything that happened, metered or not; in the mock, the rows of the audit log.
type Activity struct {
	Total int `json:"total"`
}

// ActionUsage is the pool of metered actions; in the mock, the proxied calls that passed their checks.
type ActionUsage struct {
	Used              int     `json:"used"`
	Limit             *int    `json:"limit"`              // nil is no limit
	AllowanceCoverage float64 `json:"allowance_coverage"` // share of Used that the plan covers, 0 to 1
	AllowanceTier     Tier    `json:"allowance_tier"`
	Pooled            bool    `json:"pooled,omitempty"`   // Used is that of a whole pool
	OwnUsed           *int    `json:"own_used,omitempty"` // this account's share of a pool
	Tenants           *int    `json:"tenants,omitempty"`  // accounts in the pool
}

// Meter is what was used of one thing that a plan limits.
type Meter struct {
	Used            int  `json:"used"`
	Limit           *int `json:"limit"`                       // nil is no limit
	CreatedInWindow *int `json:"created_in_window,omitempty"` // things that are kept, in a window only
}

// SpendCents is what was spent, in cents.
type SpendCents struct {
	Skills     int `json:"skills"`
	LLMCompute int `json:"llm_compute"`
	Identity   int `json:"identity"`
	Overage    int `json:"overage"`
	Total      int `json:"total"`
}

// WalletCents is what is left to spend, in cents.
type WalletCents struct {
	Balance int `json:"balance"`
}

// EarningsCents is what was earned, in cents.
type EarningsCents struct {
	Unpaid   int `json:"unpaid"`
	Lifetime int `json:"lifetime"`
}

// MarshalJSON writes the meters beside activity and actions.
func (c Consumption) MarshalJSON() ([]byte, error) {
	all := make(map[string]any, len(c.Meters)+2)
	for name, meter := range c.Meters {
		all[name] = meter
	}
	all["activity"], all["actions"] = c.Activity, c.Actions
	return marshalJSON(all)
}

// UnmarshalJSON takes every further member that can be read as a meter for one.
func (c *Consumption) UnmarshalJSON(data []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	*c = Consumption{Meters: map[string]Meter{}}
	for name, member := range all {
		var err error
		switch name {
		case "activity":
			err = json.Unmarshal(member, &c.Activity)
		case "actions":
			err = json.Unmarshal(member, &c.Actions)
		default:
			var meter *Meter
			if json.Unmarshal(member, &meter) == nil && meter != nil {
				c.Meters[name] = *meter
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Get returns what the account has used, spent and earned. In a window, what flows (actions, passports, proxied calls) is
// counted inside it, and what is kept (agents, services) says how many were created inside it. It fails with
// [ErrInvalidRequest] for a window that ends before it begins.
//
// GET /v1/usage
func (s *UsageService) Get(ctx context.Context, params UsageParams) (*Usage, error) {
	return send[Usage](ctx, s.client, get("/v1/usage").moment("since", params.Since).moment("until", params.Until))
}
