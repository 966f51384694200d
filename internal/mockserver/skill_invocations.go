package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/inject"
	"github.com/getstack-go/stack/internal/mockserver/schema"
)

const (
	openSkillLife   = time.Hour        // how long an open skill's publisher has
	sealedSkillLife = 30 * time.Second // of computing, and of waiting for models (contract: server-api 15)
	maxInvocations  = 2000             // that are remembered; the oldest that are over go first
	maxListed       = 1000
)

// invocation is one use of a skill. It belongs to the market; what the buyer paid is in the buyer's wallet.
type invocation struct {
	stack.Invocation
	skill    *skill    // as it was
	buyer    *operator // who pays
	by       *caller   // who invoked it
	passport *passport // under which; nil for none
}

func skillInvocationRoutes() []route {
	return []route{
		endpoint("POST", "/v1/skills/{skill_id}/invoke", (*Server).invokeSkill, unlocked),
		endpoint("GET", "/v1/skills/invocations/mine", (*Server).listInvocations),
		endpoint("GET", "/v1/skills/invocations/pending", (*Server).listPendingInvocations),
		endpoint("GET", "/v1/skills/invocations/{invocation_id}", (*Server).getInvocation),
		endpoint("POST", "/v1/skills/invocations/{invocation_id}/claim", (*Server).claimInvocation),
		endpoint("POST", "/v1/skills/invocations/{invocation_id}/complete", (*Server).completeInvocation, unlocked),
		endpoint("POST", "/v1/skills/invocations/{invocation_id}/fail", (*Server).failInvocation, unlocked),
	}
}

type invokeSkillIn struct {
	SkillID     string `path:"skill_id"`
	ApprovalID  string `header:"X-Intent-Approval-Id"`
	Key         string `header:"Idempotency-Key"`
	OperationID string `header:"X-STACK-Authority-Request-Id"`
	Body        struct {
		Input      json.RawMessage `json:"input"`
		AgentID    string          `json:"agent_id,omitempty"`
		PassportID string          `json:"passport_id,omitempty"`
	} `body:""`
}

// key is what makes a repetition of the invocation the same one; empty is nothing.
func (in *invokeSkillIn) key() (string, error) {
	switch {
	case in.Key != "":
		return in.Key, firstError(idempotencyKey("header Idempotency-Key", in.Key))
	case in.OperationID != "":
		return in.OperationID, checkOperationID("header X-STACK-Authority-Request-Id", in.OperationID)
	}
	return "", nil
}

// invokeSkill admits an invocation with the buyer locked, and then runs it, unless it is open, with nobody locked.
func (s *Server) invokeSkill(ctx context.Context, c *caller, in invokeSkillIn) (*stack.Invocation, error) {
	key, err := in.key()
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(bytes.TrimSpace(in.Body.Input), []byte("{")) {
		return nil, invalid("body.input", "no object", "a JSON object")
	}
	verdict, err := s.inspectInput(ctx, c.op, in.Body.Input)
	if err != nil {
		return nil, err
	}
	inv, fresh, err := s.admitInvocation(c, in, key, verdict)
	if err != nil {
		return nil, err
	}
	if fresh && inv.skill.ExecutionMode != stack.ExecuteOpen {
		if key != "" {
			ctx = context.WithoutCancel(ctx) // a caller who hangs up must find the outcome under the key
		}
		s.execute(ctx, inv)
	}
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	return inv.seenBy(c.op), nil
}

// inspectInput runs the injection chain over an input. (contract: semantics 14)
func (s *Server) inspectInput(ctx context.Context, op *operator, input json.RawMessage) (inject.Result, error) {
	var content any
	if err := json.Unmarshal(input, &content); err != nil {
		return inject.Result{}, err
	}
	op.mu.Lock()
	scanner := op.scanner
	op.mu.Unlock()
	return s.inspect(ctx, scanner, content, inject.Deep), nil
}

// admitInvocation checks an invocation and takes its price, once for each key.
func (s *Server) admitInvocation(c *caller, in invokeSkillIn, key string, verdict inject.Result) (
	inv *invocation, fresh bool, err error,
) {
	op := c.op
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	run := func() (*invocation, error) {
		fresh = true
		return s.newInvocation(c, now, in, verdict)
	}
	if key == "" {
		inv, err = run()
		return inv, fresh, err
	}
	digest, err := digestOf(in.SkillID, in.Body)
	if err != nil {
		return nil, false, err
	}
	inv, err = once(op, now, "skills.invoke", key, digest, run)
	return inv, fresh, err
}

// newInvocation holds an invocation to everything that can stand in its way, and then begins it. The buyer is locked.
func (s *Server) newInvocation(c *caller, now time.Time, in invokeSkillIn, verdict inject.Result) (*invocation, error) {
	op := c.op
	sk, err := s.market.offered(in.SkillID)
	if err != nil {
		return nil, err
	}
	p, a, err := op.invoker(now, in.Body.PassportID, or(in.Body.AgentID, c.agentID))
	if err != nil {
		return nil, err
	}
	inv := &invocation{skill: sk, buyer: op, by: c, passport: p, Invocation: stack.Invocation{ID: newID("sinv_"), SkillID: sk.ID, Input: in.Body.Input,
		Status: stack.InvocationPending, Price: sk.PricePerInvocation, CreatedAt: now, ExpiresAt: now.Add(openSkillLife)}}
	if a != nil {
		inv.AgentID = a.ID
	}
	row := skillRow("skill.invoke", inv.ID)
	if p != nil {
		row = p.row(row.Action)
		row.Layer, row.TraceID = "skills", inv.ID
	}
	if err := s.mayInvoke(op, now, inv, a, in.ApprovalID, verdict); err != nil {
		var refusal *apiError
		if errors.As(err, &refusal) {
			row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomeBlocked, refusal.code, refusal.message
			op.record(now, row)
		}
		return nil, err
	}
	if sk.ExecutionMode != stack.ExecuteOpen {
		inv.Status, inv.StartedAt, inv.ExpiresAt = stack.InvocationRunning, &now, now.Add(sealedSkillLife)
	}
	op.record(now, row)
	if p != nil {
		p.mission.Usage.Actions++
		op.note(now, p, "skill.invoke", map[string]any{"skill_id": sk.ID, "invocation_id": inv.ID})
	}
	s.market.begin(inv)
	if sk.ExecutionMode == stack.ExecuteOpen {
		op.due.add(inv.ExpiresAt, func(at time.Time) { s.expireInvocation(inv, at) })
	}
	return inv, nil
}

// invoker finds who invokes: the agent of a live passport, an agent by its id, or the operator itself, which is none.
func (op *operator) invoker(now time.Time, passportID, agentID string) (*passport, *agent, error) {
	var p *passport
	if passportID != "" {
		var ok bool
		if p, ok = op.passports.get(passportID); !ok {
			return nil, nil, notFound("passport", passportID)
		}
		if err := op.usable(p, now, 0); err != nil {
			return nil, nil, err
		}
		if agentID != "" && agentID != p.agentID() {
			return nil, nil, invalid("body.agent_id", agentID, "the passport's agent "+p.agentID())
		}
		agentID = p.agentID()
	}
	if agentID == "" {
		return nil, nil, nil
	}
	a, err := op.agentByID(agentID)
	if err != nil {
		return nil, nil, err
	}
	return p, a, a.mayHavePassport()
}

// mayInvoke are the checks of an invocation, in their order; the last takes what it costs. (contract: server-api 15)
func (s *Server) mayInvoke(op *operator, now time.Time, inv *invocation, a *agent, approvalID string,
	verdict inject.Result) error {
	sk, p := inv.skill, inv.passport
	if a != nil && !a.mayUseSkill(sk.ID) {
		return refuse(http.StatusForbidden, "UNAUTHORIZED_SKILL_ACCESS", "the agent's skill access does not reach the skill",
			map[string]any{"check": "skill_access", "sent": sk.ID, "skill_access_mode": a.SkillAccessMode, "allowed": a.AllowedSkills})
	}
	if check := op.trust(sk, now); !check.Satisfied {
		return refuse(http.StatusForbidden, "TRUST_LEVEL_INSUFFICIENT", "the skill demands trust level "+string(check.Required)+": "+
			check.Reason, map[string]any{"check": "trust_level", "sent": check.Level, "allowed": check.Required})
	}
	bindings, err := op.authorized(now, inv)
	if err != nil {
		return err
	}
	if err = sk.validate(sk.input, "body.input", inv.Input); err != nil {
		return err
	}
	if p != nil {
		if err = op.withinCaps(now, p, inv); err != nil {
			return err
		}
	}
	if f := injectionFinding(verdict, "A skill's input", map[string]any{"skill_id": sk.ID}); f != nil {
		op.raise(now, p, *f)
		if verdict.Verdict == inject.Critical {
			return refuseInjection("the input", verdict)
		}
	}
	approval, err := op.approvedSkill(now, p, approvalID, sk.ID)
	if err != nil {
		return err
	}
	if err = op.pay(now, inv); err != nil {
		return err
	}
	op.useApproval(now, approval, "")
	for i, ref := range refsTo(bindings) {
		bindings[i].use(1)
		op.recordUse(p, ref, inv.use(now, stack.UseAllowed, ""))
	}
	return nil
}

// authorized finds the bindings of the passport that the invocation is a use of: those that name the skill among their
// services, by its id or, with all others, as "skill".
func (op *operator) authorized(now time.Time, inv *invocation) ([]*bindingVersion, error) {
	if inv.passport == nil {
		return nil, nil
	}
	bindings, lapsed := op.covering(inv.passport, inv.SkillID, skillService)
	if lapsed != nil {
		op.recordUse(inv.passport, lapsed.ref, inv.use(now, stack.UseRefused, lapsed.reason))
		return nil, lapsed.refusal()
	}
	return bindings, nil
}

// use is the invocation as a use of a binding: the method is that of an approved intent.
func (inv *invocation) use(now time.Time, outcome stack.UseOutcome, reason string) stack.AuthorityUse {
	return stack.AuthorityUse{Service: inv.SkillID, Method: skillAction, Outcome: outcome, Reason: reason, UsedAt: now}
}

func (a *agent) mayUseSkill(id string) bool {
	switch a.SkillAccessMode {
	case stack.SkillsNone:
		return false
	case stack.SkillsListed:
		return slices.Contains(a.AllowedSkills, id)
	}
	return true
}

// validate holds a value against one of the skill's schemas; nil takes anything.
func (sk *skill) validate(s *schema.Schema, field string, value json.RawMessage) error {
	if s == nil {
		return nil
	}
	err := s.Validate(value)
	var bad *schema.Error
	if !errors.As(err, &bad) {
		return err
	}
	return refuse(http.StatusBadRequest, "SCHEMA_VALIDATION_FAILED", field+" does not match the skill's schema: "+bad.Error(),
		map[string]any{"check": "schema", "field": field, "path": clip(bad.Path), "keyword": bad.Keyword, "allowed": bad.Allowed})
}

// withinCaps refuses an invocation that would cross a cap of the passport's Mission: it is one of its actions.
func (op *operator) withinCaps(now time.Time, p *passport, inv *invocation) error {
	m := p.mission
	var crossed []capCrossing
	if limit := m.Caps.MaxActions; limit > 0 && m.Usage.Actions >= limit {
		crossed = append(crossed, capCrossing{"max_actions", m.Usage.Actions + 1, limit})
	}
	if age := now.Sub(m.OpenedAt); m.maxDuration > 0 && age > m.maxDuration {
		crossed = append(crossed, capCrossing{"max_duration_seconds", int(age / time.Second), int(m.maxDuration / time.Second)})
	}
	for _, c := range crossed {
		finding, err := m.crosses(c, "A skill's invocation", map[string]any{"skill_id": inv.SkillID})
		op.raise(now, p, finding)
		if err != nil {
			return err
		}
	}
	return nil
}

// approvedSkill is the gate of intent approvals. Where there is one, only a passport says for whom an approval was given.
func (op *operator) approvedSkill(now time.Time, p *passport, approvalID, skillID string) (*intentApproval, error) {
	if p == nil && op.policy.RequireIntentApproval {
		return nil, refuse(http.StatusForbidden, "INTENT_APPROVAL_REQUIRED", "an invocation needs an approved intent, and a passport",
			map[string]any{"check": "intent_approval", "sent": "no passport_id", "allowed": "passport_id, and X-Intent-Approval-Id"})
	}
	return op.approved(now, p, approvalID, "", act{service: skillService, method: skillAction, target: skillID})
}

// pay takes the price, or counts a free invocation on the plan; either way it is one of the plan's actions.
func (op *operator) pay(now time.Time, inv *invocation) error {
	defer op.holdPool()()
	action, err := op.quote(now, meterActions, inv.Price)
	if err != nil {
		return err
	}
	if inv.Price > 0 {
		if err = op.debit(now, stack.TransactionInvocation, inv.Price, "invocation of "+inv.SkillID); err != nil {
			return err
		}
	} else {
		free, refusal := op.quote(now, meterSkills, action.cents)
		if refusal != nil {
			return refusal
		}
		op.count(now, free)
	}
	op.count(now, action)
	return nil
}

// offered finds a skill that can be invoked, by anybody.
func (m *market) offered(id string) (*skill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if sk, ok := m.skills.get(id); ok && sk.Status == stack.SkillActive {
		return sk, nil
	}
	return nil, refuse(http.StatusNotFound, "SKILL_NOT_FOUND", "active skill not found: "+clip(id),
		map[string]any{"check": "exists", "sent": clip(id)})
}

// begin puts an invocation on record, in the place of the oldest that is over when there are too many.
func (m *market) begin(inv *invocation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.invocations.makeRoom(maxInvocations, func(old *invocation) bool { return old.Status.Final() })
	m.invocations.put(inv.ID, inv)
	if sk, ok := m.skills.get(inv.SkillID); ok {
		sk.InvocationCount++
	}
}

// seenBy is an invocation as one of its two sides may see it. The market is locked.
func (inv *invocation) seenBy(op *operator) *stack.Invocation {
	out := inv.Invocation
	if inv.buyer == op {
		out.Input = nil // it is the buyer's own
		return &out
	}
	out.AgentID = ""
	if inv.skill.ExecutionMode != stack.ExecuteOpen {
		out.Input, out.Output = nil, nil
	}
	return &out
}

// invocationFor finds an invocation of an operator, as its buyer or its publisher. The market is locked.
func (m *market) invocationFor(op *operator, id string, publisher bool) (*invocation, error) {
	inv, ok := m.invocations.get(id)
	if !ok || inv.skill.OperatorID != op.id && (publisher || inv.buyer != op) {
		return nil, refuse(http.StatusNotFound, "INVOCATION_NOT_FOUND", "invocation not found: "+clip(id),
			map[string]any{"check": "exists", "sent": clip(id)})
	}
	return inv, nil
}

type invocationIn struct {
	InvocationID string `path:"invocation_id"`
}

func (s *Server) getInvocation(_ context.Context, c *caller, in invocationIn) (*stack.Invocation, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	inv, err := s.market.invocationFor(c.op, in.InvocationID, false)
	if err != nil {
		return nil, err
	}
	return inv.seenBy(c.op), nil
}

func (s *Server) listInvocations(_ context.Context, c *caller, _ none) (*[]stack.Invocation, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	list := []stack.Invocation{}
	for inv := range s.market.invocations.newest() {
		if inv.buyer == c.op && len(list) < maxListed {
			list = append(list, *inv.seenBy(c.op))
		}
	}
	return &list, nil
}

type listPendingInvocationsIn struct {
	SkillID string `query:"skill_id"`
}

func (s *Server) listPendingInvocations(_ context.Context, c *caller, in listPendingInvocationsIn) (*[]stack.Invocation, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	if in.SkillID != "" {
		if sk, ok := s.market.skills.get(in.SkillID); !ok || sk.OperatorID != c.op.id {
			return nil, notFound("skill of this operator", in.SkillID)
		}
	}
	list := []stack.Invocation{}
	for inv := range s.market.invocations.all() {
		if inv.skill.OperatorID == c.op.id && inv.Status == stack.InvocationPending && len(list) < maxListed &&
			(in.SkillID == "" || inv.SkillID == in.SkillID) {
			list = append(list, *inv.seenBy(c.op))
		}
	}
	return &list, nil
}
