package mockserver

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

// checkout is the end of a passport's accountability, with its review once somebody decided it.
type checkout struct {
	stack.ReportedCheckout
	passport *passport
	review   *stack.Review
}

type checkpointIn struct {
	JTI  string                 `path:"passport_jti"`
	Body stack.CheckpointParams `body:""`
}

const maxToolCalls = 20_000

// checkReport holds the rules for what a checkpoint or checkout reports.
func checkReport(p stack.CheckpointParams) error {
	if err := firstError(
		listAtMost("body.services_used", p.ServicesUsed, maxServices, maxServiceName),
		listAtMost("body.delegated_to", p.DelegatedTo, 1000, 64),
		within("body.actions_count", p.ActionsCount, 0, 1<<31),
		atMost("body.summary", p.Summary, 1000),
		within("body.tool_calls (length)", len(p.ToolCalls), 0, maxToolCalls),
	); err != nil {
		return err
	}
	for i, call := range p.ToolCalls {
		at := fmt.Sprintf("body.tool_calls[%d].", i)
		if err := firstError(filled(at+"service", call.Service), filled(at+"method", call.Method), atMost(at+"service", call.Service, maxServiceName),
			atMost(at+"method", call.Method, 128), atMost(at+"target", call.Target, 8192)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) checkpointPassport(_ context.Context, c *caller, in checkpointIn) (*stack.Checkpoint, error) {
	op, now := c.op, s.clock.now()
	p, err := op.passportByID(in.JTI)
	if err != nil {
		return nil, err
	}
	if p.mode() == stack.Standard {
		return nil, refuse(http.StatusNotFound, "CHECKPOINT_NOT_AVAILABLE", "a passport in standard mode has no checkpoints",
			map[string]any{"check": "accountability_mode", "sent": p.mode(), "allowed": []stack.Accountability{stack.Enforced, stack.Logged}})
	}
	if err := p.mustBeOpen(now); err != nil {
		return nil, err
	}
	if err := checkReport(in.Body); err != nil {
		return nil, err
	}
	cp := stack.Checkpoint{CheckpointID: newID("cp_"), PassportJTI: p.jti(), Flags: []string{}}
	if p.mode() == stack.Enforced {
		op.awaitCheckpoint(p, now)
		op.extend(p, p.checkpointDue)
		cp.NewExpiresAt = p.expiresAt
	}
	op.record(now, p.row("passport.checkpoint"))
	op.note(now, p, "passport.checkpoint", map[string]any{"checkpoint_id": cp.CheckpointID, "actions_count": in.Body.ActionsCount})
	for _, service := range undeclared(p, in.Body) {
		cp.Flags = append(cp.Flags, string(detect.CredentialOutsideScope)+":"+service)
		op.raise(now, p, outsideScope(p, service, "A checkpoint reports a service outside the passport's scope."))
	}
	p.checkpoints = append(p.checkpoints, stack.ReportedCheckpoint{Checkpoint: cp, CheckpointParams: in.Body, CreatedAt: now})
	return &cp, nil
}

// undeclared lists the reported services that the passport does not reach.
func undeclared(p *passport, report stack.CheckpointParams) []string {
	var names []string
	add := func(name string) {
		if _, ok := p.service(name); !ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range report.ServicesUsed {
		add(name)
	}
	for _, call := range report.ToolCalls {
		add(call.Service)
	}
	return names
}

func outsideScope(p *passport, service, message string) detect.Finding {
	return detect.Finding{Signal: detect.CredentialOutsideScope, Severity: detect.CredentialOutsideScope.Severity(p.mode()), Detail: clip(service),
		Message: message, Metadata: map[string]any{"service": clip(service), "intent_services": p.claims.STK.IntentServices,
			"granted_providers": p.grantedProviders()}}
}

// mustBeOpen refuses a passport that is over, without raising an event: a checkpoint in flight meets this by no fault of
// the agent's.
func (p *passport) mustBeOpen(now time.Time) error {
	sent := map[string]any{"check": "passport_state", "sent": p.status(now), "allowed": "active"}
	if p.ended() {
		sent["revocation_reason"] = p.reason
		return refuse(http.StatusUnauthorized, "PASSPORT_REVOKED", strings.TrimSuffix("the passport is "+p.status(now)+": "+p.reason, ": "), sent)
	}
	if !now.Before(p.expiresAt) {
		return refuse(http.StatusUnauthorized, "PASSPORT_EXPIRED", "the passport has expired", sent)
	}
	return nil
}

// checkoutPassport ends a passport and reviews it. A revoked or expired passport may still be checked out, once: the
// account of what happened matters most where something went wrong.
func (s *Server) checkoutPassport(_ context.Context, c *caller, in checkpointIn) (*stack.Checkout, error) {
	op, now := c.op, s.clock.now()
	p, err := op.passportByID(in.JTI)
	if err != nil {
		return nil, err
	}
	if p.checkout != nil {
		return nil, refuse(http.StatusUnauthorized, "PASSPORT_REVOKED", "the passport was checked out before",
			map[string]any{"check": "passport_state", "sent": p.status(now), "checkout_id": p.checkout.CheckoutID, "allowed": "one checkout"})
	}
	if err := checkReport(in.Body); err != nil {
		return nil, err
	}
	account := p.accounts(op, now, in.Body)
	findings := op.tunedAll(detect.Review(account))
	status := detect.Status(findings)
	result := stack.Checkout{CheckoutID: newID("co_"), PassportJTI: p.jti(), ReviewStatus: status, Flags: []stack.Flag{}}
	for _, f := range findings {
		result.Flags = append(result.Flags, stack.Flag{Type: string(f.Signal), Severity: f.Severity, Message: f.Message})
	}
	p.checkedOutAt = now
	p.checkout = &checkout{passport: p, ReportedCheckout: stack.ReportedCheckout{Checkout: result, CheckpointParams: in.Body, SubmittedAt: now}}
	op.checkouts.put(result.CheckoutID, p.checkout)
	op.record(now, p.row("passport.checkout"))
	op.note(now, p, "passport.checkout", map[string]any{"checkout_id": result.CheckoutID, "review_status": status})
	op.tellReview(now, p.checkout)
	for _, f := range findings {
		op.escalate(now, p.agentID(), f)
	}
	if a, ok := op.agents.get(p.agentID()); ok {
		a.baseline.Add(account.Actions())
	}
	op.reviewMission(now, p.mission, causeCheckout, p.checkout)
	return &result, nil
}

// tellReview notifies of a checkout that somebody should look at.
func (op *operator) tellReview(now time.Time, co *checkout) {
	kind := stack.EventReviewFlagged
	switch co.ReviewStatus {
	case stack.ReviewClean:
		return
	case stack.ReviewBlocked:
		kind = stack.EventReviewBlocked
	}
	message := fmt.Sprintf("A checkout of %s is %s; flags: %d.", co.passport.claims.STK.AgentName, co.ReviewStatus, len(co.Flags))
	op.tell(now, kind, message, map[string]any{"checkout_id": co.CheckoutID, "passport_jti": co.PassportJTI,
		"agent_id": co.passport.agentID(), "flags": co.Flags})
}

// accounts sets what was declared and reported beside what was observed.
func (p *passport) accounts(op *operator, now time.Time, report stack.CheckpointParams) detect.Checkout {
	c := detect.Checkout{Mode: p.mode(), IntentServices: p.claims.STK.IntentServices, Started: p.issuedAt, Ended: now,
		CheckpointInterval: p.claims.STK.CheckpointInterval, Checkpoints: len(p.checkpoints), ActionsCount: &report.ActionsCount,
		ServicesUsed: report.ServicesUsed, ToolCalls: toolCalls(report), DelegatedTo: report.DelegatedTo, Observed: p.observed,
		ObservedDelegations: p.delegatedTo}
	if p.intent != nil {
		c.WillDelegate, c.Estimate = p.intent.WillDelegate, p.intent.EstimatedDuration
	}
	for _, cp := range p.checkpoints {
		c.ServicesUsed = append(c.ServicesUsed, cp.ServicesUsed...)
		c.Checkpointed = append(c.Checkpointed, toolCalls(cp.CheckpointParams)...)
		c.DelegatedTo = append(c.DelegatedTo, cp.DelegatedTo...)
	}
	c.Connected = func(service string) bool {
		for conn := range op.connections.all() {
			if conn.Provider == service && conn.Status != stack.ConnectionPending {
				return true
			}
		}
		return false
	}
	if a, ok := op.agents.get(p.agentID()); ok {
		c.Baseline = a.baseline
	}
	return c
}

func toolCalls(report stack.CheckpointParams) []detect.ToolCall {
	calls := make([]detect.ToolCall, len(report.ToolCalls))
	for i, call := range report.ToolCalls {
		calls[i] = detect.ToolCall{Service: call.Service, Method: call.Method, Target: call.Target}
	}
	return calls
}

type passportIn struct {
	JTI string `path:"passport_jti"`
}

func (s *Server) reportPassport(_ context.Context, c *caller, in passportIn) (*stack.PassportReport, error) {
	p, err := c.op.passportByID(in.JTI)
	if err != nil {
		return nil, err
	}
	return p.report(s.clock.now()), nil
}

func (p *passport) report(now time.Time) *stack.PassportReport {
	r := &stack.PassportReport{Intent: p.intent, Checkpoints: slices.Clone(p.checkpoints), Passport: stack.ReportedPassport{
		ActivePassport: p.summary(), Status: p.status(now), CheckedOutAt: p.checkedOutAt, RevokedAt: p.revokedAt, RevocationReason: p.reason}}
	if r.Checkpoints == nil {
		r.Checkpoints = []stack.ReportedCheckpoint{}
	}
	if p.checkout != nil {
		out := p.checkout.ReportedCheckout
		r.Checkout, r.Review = &out, p.checkout.review
	}
	return r
}
