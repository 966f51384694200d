package mockserver

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/inject"
)

const (
	intentLifetime     = 15 * time.Minute // of an approval (contract: decisions, Approvals)
	maxPendingIntents  = 1000
	maxIntentClaims    = 10_000 // that are remembered; the oldest goes
	maxDecided         = 2_500  // approvals, of intents and of governance each; the oldest that cannot be used any more goes
	maxIntentTarget    = 8 << 10
	maxIntentReason    = 1000
	maxIntentRequires  = 32
	maxIntentSubject   = 256
	maxNamedIntent     = 128
	skillService       = "skill"
	skillAction        = "invoke"
	maxIntentCostCents = 1 << 40
)

// intentClaim is what is remembered of a claim: an intent that was submitted, or a simulation.
type intentClaim struct {
	id, kind string
	ref      string // of a simulation: the claim of its intent, if it has one
	intent   stack.IntentClaim
}

func intentRoutes() []route {
	return []route{
		endpoint("POST", "/v1/intents/simulate", (*Server).simulateIntent, unlocked),
		endpoint("POST", "/v1/intents/submit", (*Server).submitIntent, unlocked),
		endpoint("GET", "/v1/intents/pending", (*Server).listPendingIntents),
		endpoint("GET", "/v1/intents/{approval_id}", (*Server).getIntent),
		endpoint("POST", "/v1/intents/{approval_id}/approve", (*Server).approveIntent, adminOnly),
		endpoint("POST", "/v1/intents/{approval_id}/reject", (*Server).rejectIntent),
	}
}

// intentBody is a stack.IntentClaim whose body is kept as it was written, as the proxy keeps it.
type intentBody struct {
	stack.IntentClaim
	Parameters *struct {
		Service string            `json:"service,omitempty"`
		Headers map[string]string `json:"headers,omitempty"`
		Query   map[string]string `json:"query,omitempty"`
		Body    json.RawMessage   `json:"body,omitempty"`
	} `json:"parameters,omitempty"`
}

// intended is an intent and the call that it describes.
type intended struct {
	claim stack.IntentClaim
	kind  stack.IntentType
	call  *proxyCall
}

// beginIntent finds the passport, and scans what the call would send, as the proxy does. The operator is not locked then.
func (s *Server) beginIntent(ctx context.Context, c *caller, token stack.Secret, in intentBody) (*intended, error) {
	call := &proxyCall{caller: c, op: c.op, now: s.clock.now()}
	scanner, err := s.identifyCall(call, token)
	if err != nil {
		return nil, err
	}
	intent, err := readIntent(call, in)
	if err == nil && intent.kind == stack.IntentProxy {
		call.injection = s.inspect(ctx, scanner, call.outgoing(), inject.Deep)
	}
	return intent, err
}

// resume goes on with the operator locked. A revocation is heeded when it is as old as delay.
func (s *Server) resume(intent *intended, delay time.Duration) error {
	call := intent.call
	call.now = s.clock.now()
	call.op.sweep(call.now)
	if intent.kind != stack.IntentSkill {
		call.resolveTarget()
	}
	return call.op.usable(call.passport, call.now, delay)
}

// readIntent checks an intent and makes the call of it that the proxy's checks look at. What it leaves open is filled in.
func readIntent(call *proxyCall, in intentBody) (*intended, error) {
	const at = "body.intent."
	claim, parameters, p := in.IntentClaim, in.Parameters, call.passport
	claim.IntentType = or(claim.IntentType, stack.IntentProxy)
	if err := firstError(
		oneOf(at+"type", claim.Type, "intent"),
		chosen(at+"intent_type", claim.IntentType, stack.IntentProxy, stack.IntentLLM, stack.IntentSkill),
		filled(at+"target", claim.Target), atMost(at+"target", claim.Target, maxIntentTarget),
		ofPassport(at+"agent_id", claim.AgentID, p.agentID()),
		ofPassport(at+"accountability", claim.Accountability, p.mode()),
		ofPassport(at+"mission_ref", claim.MissionRef, p.mission.MissionID),
		atMost(at+"named_intent", claim.NamedIntent, maxNamedIntent),
		within(at+"estimated_cost", claim.EstimatedCostCents, 0, maxIntentCostCents),
		atMost(at+"reason", claim.Reason, maxIntentReason),
		listAtMost(at+"requires", claim.Requires, maxIntentRequires, maxIntentSubject),
		atMost(at+"user_subject", claim.UserSubject, maxIntentSubject),
	); err != nil {
		return nil, err
	}
	call.in = proxyBody{Method: strings.ToUpper(claim.Action), URL: claim.Target}
	if parameters != nil {
		call.in.Service, call.in.Headers, call.in.Query = parameters.Service, parameters.Headers, parameters.Query
		call.in.Body = parameters.Body
		claim.Parameters = &stack.IntentParameters{Service: parameters.Service, Query: parameters.Query}
		claim.Parameters.Headers = maps.Clone(parameters.Headers)
		maps.DeleteFunc(claim.Parameters.Headers, func(name, _ string) bool { // credentials above all are not kept
			return !forward.Reaches(name)
		})
		if len(parameters.Body) > 0 {
			claim.Parameters.Body = parameters.Body
		}
	}
	var err error
	switch claim.IntentType {
	case stack.IntentProxy:
		if err = firstError(chosen(at+"action", call.in.Method, proxyMethods...),
			filled(at+"parameters.service", call.in.Service)); err == nil {
			err = call.validate()
		}
	case stack.IntentLLM:
		call.in.Method = or(call.in.Method, http.MethodPost)
		if _, bad := forward.ParseURL(claim.Target); bad != nil {
			err = invalid(at+"target", redacted, "the URL of the model's provider")
		} else {
			err = firstError(chosen(at+"action", call.in.Method, http.MethodPost),
				chosen(at+"parameters.service", call.in.Service, "anthropic", "openai", "openrouter"))
		}
	default:
		call.in.Method, call.in.Service = or(claim.Action, skillAction), or(call.in.Service, skillService)
		err = firstError(chosen(at+"action", call.in.Method, skillAction),
			chosen(at+"parameters.service", call.in.Service, skillService))
	}
	if err != nil {
		return nil, err
	}
	claim.Type, claim.Action = "intent", call.in.Method
	claim.AgentID, claim.Accountability, claim.MissionRef = p.agentID(), p.mode(), p.mission.MissionID
	claim.SubmittedAt = or(claim.SubmittedAt, call.now)
	return &intended{claim, claim.IntentType, call}, nil
}

// ofPassport refuses a field that says other than the passport; empty stands for "not given".
func ofPassport[T ~string](field string, sent, is T) *apiError {
	if sent == "" || sent == is {
		return nil
	}
	return invalid(field, string(sent), "the passport's, "+string(is)+", or left out")
}

// claimIntent remembers a claim and returns its id.
func (op *operator) claimIntent(claim *intentClaim) string {
	claim.id = newID("pc_")
	if op.intentClaims.len() >= maxIntentClaims {
		op.intentClaims.delete(op.intentClaims.order[0])
	}
	op.intentClaims.put(claim.id, claim)
	return claim.id
}

type simulateIntentIn struct {
	Passport   stack.Secret `header:"X-Passport-Token"`
	ApprovalID string       `header:"X-Intent-Approval-Id"`
	Body       struct {
		Intent         intentBody `json:"intent"`
		IntentClaimRef string     `json:"intent_claim_ref,omitempty"`
		Persist        *bool      `json:"persist,omitempty"`
	} `body:""`
}

func (s *Server) simulateIntent(ctx context.Context, c *caller, in simulateIntentIn) (*stack.IntentSimulation, error) {
	op := c.op
	intent, err := s.beginIntent(ctx, c, in.Passport, in.Body.Intent)
	if err != nil {
		return nil, err
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	if err = s.resume(intent, op.policy.RevocationDelay); err != nil { // as late as the proxy notices
		return nil, err
	}
	ref := in.Body.IntentClaimRef
	if _, known := op.intentClaims.get(ref); ref != "" && !known {
		return nil, notFound("intent claim", ref)
	}
	intent.call.approvalID = in.ApprovalID
	sim, err := s.simulate(intent, true)
	if err != nil {
		return nil, err
	}
	sim.IntentClaimRef = ref
	if in.Body.Persist == nil || *in.Body.Persist {
		s.keepSimulation(intent, sim)
	}
	return sim, nil
}

// keepSimulation puts a simulation on record.
func (s *Server) keepSimulation(intent *intended, sim *stack.IntentSimulation) {
	op := intent.call.op
	sim.ClaimID = op.claimIntent(&intentClaim{kind: "simulation", ref: sim.IntentClaimRef, intent: intent.claim})
	row := intent.call.passport.row("intent.simulate")
	row.TraceID = sim.ClaimID
	if !sim.Allowed {
		row.ErrorCode = sim.DenialReasons[0].Code
	}
	op.record(intent.call.now, row)
}

type submitIntentIn struct {
	Passport stack.Secret `header:"X-Passport-Token"`
	Body     struct {
		Intent           intentBody `json:"intent"`
		ExpiresInSeconds *int       `json:"expires_in_seconds,omitempty"`
		SkipSimulation   bool       `json:"skip_simulation,omitempty"`
	} `body:""`
}

// submitIntent: what cannot be called at all is refused, what may not be called is put before the people with a simulation
// that says so.
func (s *Server) submitIntent(ctx context.Context, c *caller, in submitIntentIn) (*stack.SubmittedIntent, error) {
	op := c.op
	lifetime := int(intentLifetime / time.Second)
	replace(&lifetime, in.Body.ExpiresInSeconds)
	if err := firstError(within("body.expires_in_seconds", lifetime, int(stack.MinApprovalLifetime/time.Second),
		int(stack.MaxApprovalLifetime/time.Second))); err != nil {
		return nil, err
	}
	intent, err := s.beginIntent(ctx, c, in.Passport, in.Body.Intent)
	if err != nil {
		return nil, err
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	if err = s.resume(intent, 0); err != nil {
		return nil, err
	}
	now, p := intent.call.now, intent.call.passport
	if intent.call.targetErr != nil {
		return nil, intent.call.invalidURL()
	}
	pending := func(a *intentApproval) bool { return a.Status == stack.IntentPending }
	if _, count := page(op.approvals.all(), 1, 1, pending); count >= maxPendingIntents {
		return nil, refuse(http.StatusConflict, "TOO_MANY_PENDING_APPROVALS", "too many intents wait for a decision",
			map[string]any{"check": "pending_approvals", "sent": count + 1, "allowed": maxPendingIntents})
	}
	a := &intentApproval{act: intent.call.act(), IntentApproval: stack.IntentApproval{ID: newID("apr_"), OperatorID: op.id,
		AgentID: p.agentID(), PassportJTI: p.jti(), MissionID: p.mission.MissionID, Status: stack.IntentPending,
		Intent: intent.claim, CreatedAt: now, ExpiresAt: now.Add(time.Duration(lifetime) * time.Second)}}
	a.IntentClaimID = op.claimIntent(&intentClaim{kind: "intent", intent: intent.claim})
	if !in.Body.SkipSimulation {
		if a.Simulation, err = s.simulate(intent, false); err != nil {
			return nil, err
		}
		a.Simulation.IntentClaimRef = a.IntentClaimID
		s.keepSimulation(intent, a.Simulation)
		a.SimulatedClaimID = a.Simulation.ClaimID
	}
	op.approvals.makeRoom(maxDecided, func(old *intentApproval) bool { return old.Status != stack.IntentPending && !now.Before(old.ExpiresAt) })
	op.approvals.put(a.ID, a)
	op.due.add(a.ExpiresAt, whenDue(&op.approvals, a.ID, op.approvalDue))
	row := a.row("intent.submit")
	row.Outcome = stack.OutcomePending
	op.record(now, row)
	op.noteApproval(now, a, "intent.submit")
	op.tell(now, stack.EventIntentRequested, "An intent of an agent waits for a decision.", map[string]any{
		"approval_id": a.ID, "agent_id": a.AgentID, "passport_jti": a.PassportJTI, "mission_id": a.MissionID,
		"action": a.Intent.Action, "reason": a.Intent.Reason, "expires_at": a.ExpiresAt})
	return &stack.SubmittedIntent{ApprovalID: a.ID, IntentClaimID: a.IntentClaimID, SimulatedClaimID: a.SimulatedClaimID,
		Status: a.Status, ExpiresAt: a.ExpiresAt, Simulation: a.Simulation}, nil
}

type listPendingIntentsIn struct {
	Page  *int `query:"page"`
	Limit *int `query:"limit"`
}

func (s *Server) listPendingIntents(_ context.Context, c *caller, in listPendingIntentsIn) (*stack.IntentPage, error) {
	number, size, err := paging(in.Page, in.Limit, 20)
	if err != nil {
		return nil, err
	}
	found, total := page(c.op.approvals.all(), number, size, func(a *intentApproval) bool {
		return a.Status == stack.IntentPending
	})
	items := make([]stack.IntentApproval, len(found))
	for i, a := range found {
		items[i] = a.IntentApproval
	}
	return &stack.IntentPage{Items: items, Total: total, Page: number, Limit: size}, nil
}

type intentIn struct {
	ApprovalID string `path:"approval_id"`
}

func (op *operator) intentByID(id string) (*intentApproval, error) {
	return op.approvals.find("approval", id)
}

func (s *Server) getIntent(_ context.Context, c *caller, in intentIn) (*stack.IntentApproval, error) {
	a, err := c.op.intentByID(in.ApprovalID)
	if err != nil {
		return nil, err
	}
	return &a.IntentApproval, nil
}

type approveIntentIn struct {
	ApprovalID string                    `path:"approval_id"`
	Passport   stack.Secret              `header:"X-Passport-Token"`
	Body       stack.IntentApproveParams `body:""`
}

// approveIntent is for people: the operator's own key, or an admin's. An agent must not approve itself.
func (s *Server) approveIntent(_ context.Context, c *caller, in approveIntentIn) (*stack.IntentApproval, error) {
	a, err := c.deciding(in.ApprovalID, in.Passport, in.Body.Notes)
	if err != nil {
		return nil, err
	}
	if err := c.op.decide(s.clock.now(), a, stack.IntentApproved, c.id(), in.Body.Notes); err != nil {
		return nil, err
	}
	return &a.IntentApproval, nil
}

// deciding finds the approval that a caller wants to decide. A passport shows that an agent is calling.
func (c *caller) deciding(approvalID string, p stack.Secret, notes string) (*intentApproval, error) {
	if !p.IsZero() {
		return nil, forbidden("an agent may not decide an approval", map[string]any{"check": "approver",
			"sent": "a passport", "allowed": "the operator's or a member's key, without a passport"})
	}
	if err := firstError(atMost("body.notes", notes, maxNotes)); err != nil {
		return nil, err
	}
	return c.op.intentByID(approvalID)
}

// id names the caller: the agent, the member, or else the operator.
func (c *caller) id() string {
	if c.agentID != "" {
		return c.agentID
	}
	if c.member != nil {
		return c.member.ID
	}
	return c.op.id
}

type rejectIntentIn struct {
	ApprovalID string                   `path:"approval_id"`
	Passport   stack.Secret             `header:"X-Passport-Token"`
	Body       stack.IntentRejectParams `body:""`
}

// rejectIntent revokes the passport as well, and may suspend the agent. (contract: semantics, 15)
func (s *Server) rejectIntent(_ context.Context, c *caller, in rejectIntentIn) (*stack.IntentRejection, error) {
	op, now := c.op, s.clock.now()
	a, err := c.deciding(in.ApprovalID, in.Passport, in.Body.Notes)
	if err != nil {
		return nil, err
	}
	agent, known := op.agents.get(a.AgentID)
	if in.Body.BlockFuture && !known {
		return nil, notFound("agent", a.AgentID)
	}
	p, err := op.passportByID(a.PassportJTI)
	if err != nil {
		return nil, err
	}
	if err = op.decide(now, a, stack.IntentRejected, c.id(), in.Body.Notes); err != nil {
		return nil, err
	}
	count := 0
	revoked, cascaded := op.revokePassport(now, p, "Intent "+a.ID+" rejected")
	if revoked {
		count = 1
	}
	r := revocation("single", p.reason, p.revokedAt, count, cascaded)
	r.JTI = p.jti()
	if in.Body.BlockFuture && agent.Status != stack.AgentSuspended {
		agent.Status, agent.UpdatedAt = stack.AgentSuspended, now
		op.record(now, stack.AuditEntry{AgentID: agent.ID, Action: "agent.suspend", TraceID: a.ID,
			ErrorMessage: p.reason})
	}
	return &stack.IntentRejection{IntentApproval: a.IntentApproval, Revocation: *r,
		AgentSuspended: known && agent.Status == stack.AgentSuspended}, nil
}
