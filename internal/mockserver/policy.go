package mockserver

import (
	"time"

	"github.com/getstack-go/stack"
)

// Policy is what a test may set of an operator's account.
type Policy struct {
	// RequireIntentApproval lets proxied writes through only with an approved intent that fits.
	RequireIntentApproval bool
	// RevocationDelay is how long the proxy still takes a revoked passport, in whole seconds up to an hour.
	RevocationDelay time.Duration
	// RequireDestinationApproval makes every action on a notification destination need a human's approval.
	RequireDestinationApproval bool
	// RateLimitPerMinute is how many requests a minute may have; 0 is no limit.
	RateLimitPerMinute int
	// Tier is the plan.
	Tier stack.Tier
	// TenantLimit is how many live tenants a partner may have; 0 is as many as the mock holds, 1000.
	TenantLimit int
	// ActionCap is how many actions a partner and its tenants may have in a month together, whatever the wallet holds; 0 is no
	// such cap.
	ActionCap int
	// PartnerInactive suspends the account as a partner: its tenants are refused.
	PartnerInactive bool
}

func (p Policy) check() error {
	if p.RevocationDelay%time.Second != 0 {
		return invalid("body.revocation_delay_seconds", p.RevocationDelay.Seconds(), "a whole number of seconds")
	}
	return firstError(
		within("body.revocation_delay_seconds", int(p.RevocationDelay/time.Second), 0, 3600),
		within("body.rate_limit_per_minute", p.RateLimitPerMinute, 0, 1_000_000),
		chosen("body.tier", p.Tier, tiers...),
		within("body.tenant_limit", p.TenantLimit, 0, maxTenants),
		within("body.action_cap", p.ActionCap, 0, 1_000_000_000),
	)
}

// PolicyChange is a policy as control routes and seeds write it. What is nil stays as it is.
type PolicyChange struct {
	RequireIntentApproval      *bool       `json:"require_intent_approval,omitempty"`
	RequireDestinationApproval *bool       `json:"require_destination_approval,omitempty"`
	RevocationDelaySeconds     *int        `json:"revocation_delay_seconds,omitempty"`
	RateLimitPerMinute         *int        `json:"rate_limit_per_minute,omitempty"`
	Tier                       *stack.Tier `json:"tier,omitempty"`
	TenantLimit                *int        `json:"tenant_limit,omitempty"`
	ActionCap                  *int        `json:"action_cap,omitempty"`
	PartnerInactive            *bool       `json:"partner_inactive,omitempty"`
}

// ChangePolicy changes the first operator's policy and returns it as it is then. It fails on a value out of bounds.
func (s *Server) ChangePolicy(change PolicyChange) (p Policy, err error) {
	if delay := change.RevocationDelaySeconds; delay != nil { // before it becomes a duration, which it might not fit
		if err = firstError(within("body.revocation_delay_seconds", *delay, 0, 3600)); err != nil {
			return Policy{}, err
		}
	}
	s.view(func(op *operator) {
		p = op.policy
		replace(&p.RequireIntentApproval, change.RequireIntentApproval)
		replace(&p.RequireDestinationApproval, change.RequireDestinationApproval)
		replace(&p.RateLimitPerMinute, change.RateLimitPerMinute)
		replace(&p.Tier, change.Tier)
		replace(&p.TenantLimit, change.TenantLimit)
		replace(&p.ActionCap, change.ActionCap)
		replace(&p.PartnerInactive, change.PartnerInactive)
		if delay := change.RevocationDelaySeconds; delay != nil {
			p.RevocationDelay = time.Duration(*delay) * time.Second
		}
		if err = p.check(); err == nil {
			op.policy = p
		}
	})
	return p, err
}

// SetPolicy sets the first operator's whole policy; without a tier, to the enterprise one. It fails on a value out of bounds.
func (s *Server) SetPolicy(p Policy) error {
	p.Tier = or(p.Tier, stack.TierEnterprise)
	if err := p.check(); err != nil {
		return err
	}
	s.view(func(op *operator) { op.policy = p })
	return nil
}
