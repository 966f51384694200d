package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"time"
)

// IntentsService says beforehand what an agent is about to do: it tries a call out without making it, and asks a person to
// approve one. Reach it as [Client].Intents.
type IntentsService struct{ client *Client }

// Bounds of how long an approval can be decided and used; left out, it is 15 minutes.
const (
	MinApprovalLifetime = time.Minute
	MaxApprovalLifetime = 24 * time.Hour
)

// ErrApprovalClosed means that an approval was decided before, or has expired.
var ErrApprovalClosed error = &kind{text: "the approval is closed", codes: []string{"APPROVAL_CLOSED"}}

// IntentType is the kind of thing that an intent is about.
type IntentType string

// Intent types.
const (
	IntentProxy IntentType = "proxy" // a proxied call; the default
	IntentLLM   IntentType = "llm"   // a call to a model through the gateway
	IntentSkill IntentType = "skill" // the invocation of a skill
)

// IntentClaim says what an agent is about to do. What is left out the server fills in from the passport: AgentID,
// Accountability, MissionRef, SubmittedAt. The names are the hosted service's, what they mean here is the mock's.
// (contract: endpoints 2.16)
type IntentClaim struct {
	Type       string     `json:"type,omitempty"`        // "intent", which is the default
	IntentType IntentType `json:"intent_type,omitempty"` // default: IntentProxy

	// Target is what is acted on: the absolute URL of a proxied call or of the model's provider, or the id of a skill. An
	// approval holds for its scheme, host and path, and, where it or the parameters have a query, for exactly that query.
	Target string `json:"target"`
	// Action is what is done: the method of a call (POST by default to a model), and invoke, the default, of a skill.
	Action     string            `json:"action,omitempty"`
	Parameters *IntentParameters `json:"parameters,omitempty"`

	AgentID        string         `json:"agent_id,omitempty"`       // the passport's agent
	Accountability Accountability `json:"accountability,omitempty"` // the passport's mode
	MissionRef     string         `json:"mission_ref,omitempty"`    // the passport's Mission
	SubmittedAt    time.Time      `json:"submitted_at,omitzero"`

	// What follows is for the person who decides; nothing is checked against it.
	NamedIntent        string   `json:"named_intent,omitempty"`   // at most 128 characters
	EstimatedCostCents int      `json:"estimated_cost,omitempty"` // in cents
	Reason             string   `json:"reason,omitempty"`         // at most 1000 characters
	Requires           []string `json:"requires,omitempty"`       // at most 32
	UserSubject        string   `json:"user_subject,omitempty"`   // for whom it is done; at most 256 characters
}

// IntentParameters are the rest of the call, as a [ProxyRequest] has it. Of a skill only Body is used, its input.
type IntentParameters struct {
	Service string            `json:"service,omitempty"` // provider key; not of a skill
	Headers map[string]string `json:"headers,omitempty"`
	Query   map[string]string `json:"query,omitempty"`
	Body    any               `json:"body,omitempty"`
}

// IntentOf describes a proxied call, to simulate it or to have it approved before it is made.
func IntentOf(r ProxyRequest) IntentClaim {
	return IntentClaim{IntentType: IntentProxy, Target: r.URL, Action: cmp.Or(r.Method, "GET"),
		Parameters: &IntentParameters{Service: r.Service, Headers: r.Headers, Query: r.Query, Body: r.Body}}
}

// IntentSimulateParams describes a dry run.
type IntentSimulateParams struct {
	Intent IntentClaim `json:"intent"`
	// IntentClaimRef is the id (pc_…) of an intent that was claimed before, which the simulation is of.
	IntentClaimRef string `json:"intent_claim_ref,omitempty"`
	// Persist set to false leaves no trace of the simulation; by default it is kept as a claim.
	Persist *bool `json:"persist,omitempty"`

	PassportToken Secret `json:"-"` // under which the call would be made
	ApprovalID    string `json:"-"` // that the call would carry, if any
}

// LogValue gives slog the parameters without the passport and what the intent holds.
func (p IntentSimulateParams) LogValue() slog.Value {
	return slog.GroupValue(p.Intent.logged(), slog.String("intent_claim_ref", p.IntentClaimRef),
		slog.Any("passport_token", p.PassportToken), slog.String("approval_id", p.ApprovalID))
}

func (c IntentClaim) logged() slog.Attr {
	return slog.Group("intent", slog.String("type", string(c.IntentType)), slog.String("action", c.Action),
		slog.String("target", bareURL(c.Target)))
}

// IntentSimulation is what a dry run found.
type IntentSimulation struct {
	Allowed bool `json:"allowed"` // the call would pass every check, as things are now
	// DenialReasons has one entry for each check that refuses. The call itself would be refused with the first.
	DenialReasons []DenialReason `json:"denial_reasons"`
	SimulatedCost SimulatedCost  `json:"simulated_cost"`
	// PredictedDetectorFires are the security events that the call would raise, in order.
	PredictedDetectorFires []PredictedFire       `json:"predicted_detector_fires"`
	SimulatedAt            time.Time             `json:"simulated_at"`
	ClaimID                string                `json:"claim_id,omitempty"` // of the simulation, unless persist was false
	IntentClaimRef         string                `json:"intent_claim_ref,omitempty"`
	Diagnostics            SimulationDiagnostics `json:"diagnostics"`
}

// DenialReason is the refusal that a call would meet.
type DenialReason struct {
	Check   string         `json:"check"` // the step that refuses, as in SimulationDiagnostics
	Status  int            `json:"status"`
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Details map[string]any `json:"details,omitempty"`
}

// SimulatedCost is what the call would use up, also when it is refused on its way.
type SimulatedCost struct {
	Meters         map[string]int `json:"meters"`          // uses of the plan's meters, by their names
	OverageCents   int            `json:"overage_cents"`   // that the wallet would pay for uses beyond the plan
	MissionActions int            `json:"mission_actions"` // counted against max_actions and max_actions_per_service
}

// PredictedFire is a security event that a call would raise.
type PredictedFire struct {
	SignalType      string         `json:"signal_type"`
	Severity        Severity       `json:"severity"`
	Message         string         `json:"message"`
	Metadata        map[string]any `json:"metadata,omitempty"`
	RevokesPassport bool           `json:"revokes_passport"`
}

// SimulationDiagnostics says how a dry run came to its result.
type SimulationDiagnostics struct {
	Checks           []SimulatedCheck `json:"checks"`            // in the order of the pipeline
	ApprovalRequired bool             `json:"approval_required"` // the policy asks for an approved intent
	Novelty          float64          `json:"novelty"`           // of a call that is allowed, for scope drift, 0 to 1
	TotalNovelty     float64          `json:"total_novelty"`     // of the passport after the call
}

// CheckOutcome is how a check of a dry run ended.
type CheckOutcome string

// Check outcomes.
const (
	CheckPassed  CheckOutcome = "passed"
	CheckRefused CheckOutcome = "refused"
	CheckSkipped CheckOutcome = "skipped" // it has nothing to look at after an earlier refusal
)

// SimulatedCheck is one check of a dry run.
type SimulatedCheck struct {
	Check   string       `json:"check"`
	Outcome CheckOutcome `json:"outcome"`
	Code    string       `json:"code,omitempty"` // of the refusal
}

// Simulate tries a call out: it runs the checks of the proxy itself on it and changes nothing. Nothing is sent, raised,
// charged or used up; only a claim is kept of it, unless Persist is false. Of skills and calls to models it looks at scope
// (models) and approval.
//
// A call that would be refused is no error but a simulation that is not allowed. It fails with a [*ParamError] without an
// intent's target or a passport, with [ErrInvalidRequest] for an intent that describes no call, with [ErrNotFound] for an
// unknown IntentClaimRef, and with [ErrPassportRevoked] and [ErrPassportExpired].
//
// POST /v1/intents/simulate
func (s *IntentsService) Simulate(ctx context.Context, params IntentSimulateParams) (*IntentSimulation, error) {
	if err := params.Intent.check(params.PassportToken); err != nil {
		return nil, err
	}
	cl := post("/v1/intents/simulate").with(params).passport(params.PassportToken).
		head("X-Intent-Approval-Id", params.ApprovalID)
	return send[IntentSimulation](ctx, s.client, cl)
}

func (c IntentClaim) check(passport Secret) error {
	if err := required("intent.target", c.Target); err != nil {
		return err
	}
	if passport.IsZero() {
		return required("passport_token", "")
	}
	return nil
}

// IntentSubmitParams asks for the approval of an intent.
type IntentSubmitParams struct {
	Intent IntentClaim `json:"intent"`
	// ExpiresIn is how long the approval can be decided and used: whole seconds, MinApprovalLifetime to MaxApprovalLifetime,
	// default 15m.
	ExpiresIn      time.Duration `json:"expires_in_seconds,omitzero"`
	SkipSimulation bool          `json:"skip_simulation,omitempty"`

	PassportToken Secret `json:"-"` // under which the call will be made
}

// MarshalJSON writes the duration in seconds.
func (p IntentSubmitParams) MarshalJSON() ([]byte, error) {
	type plain IntentSubmitParams
	return marshalJSON(struct {
		plain
		ExpiresIn seconds `json:"expires_in_seconds,omitzero"`
	}{plain(p), seconds(p.ExpiresIn)})
}

// UnmarshalJSON reads the duration in seconds.
func (p *IntentSubmitParams) UnmarshalJSON(data []byte) error {
	type plain IntentSubmitParams
	w := struct {
		*plain
		ExpiresIn seconds `json:"expires_in_seconds"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.ExpiresIn = time.Duration(w.ExpiresIn)
	return nil
}

// LogValue gives slog the parameters without the passport and what the intent holds.
func (p IntentSubmitParams) LogValue() slog.Value {
	return slog.GroupValue(p.Intent.logged(), slog.Duration("expires_in", p.ExpiresIn),
		slog.Any("passport_token", p.PassportToken))
}

// IntentStatus is how far an approval has come. Only pending ever changes.
type IntentStatus string

// Intent statuses.
const (
	IntentPending  IntentStatus = "pending"
	IntentApproved IntentStatus = "approved" // it can be used once, until it expires
	IntentRejected IntentStatus = "rejected"
	IntentExpired  IntentStatus = "expired" // nobody decided it in time
)

// SubmittedIntent is an intent that waits for a person.
type SubmittedIntent struct {
	ApprovalID       string            `json:"approval_id"` // goes into [ProxyRequest].ApprovalID once it is approved
	IntentClaimID    string            `json:"intent_claim_id"`
	SimulatedClaimID string            `json:"simulated_claim_id,omitempty"`
	Status           IntentStatus      `json:"status"` // pending
	ExpiresAt        time.Time         `json:"expires_at"`
	Simulation       *IntentSimulation `json:"simulation,omitempty"`
}

// Submit claims an intent and puts it before the operator's people. It is simulated first, as if it were approved, so that
// they see what would come of it; a simulation that is not allowed does not keep it from them. It fails with a
// [*ParamError] without an intent's target or a passport and for an ExpiresIn out of bounds, with [ErrInvalidRequest] for an
// intent that describes no call, with code TOO_MANY_PENDING_APPROVALS when 1000 are pending, and with [ErrPassportRevoked]
// and [ErrPassportExpired].
//
// POST /v1/intents/submit
func (s *IntentsService) Submit(ctx context.Context, params IntentSubmitParams) (*SubmittedIntent, error) {
	if err := params.Intent.check(params.PassportToken); err != nil {
		return nil, err
	}
	if err := between("expires_in_seconds", params.ExpiresIn, MinApprovalLifetime, MaxApprovalLifetime); err != nil {
		return nil, err
	}
	return send[SubmittedIntent](ctx, s.client, post("/v1/intents/submit").with(params).passport(params.PassportToken))
}

// IntentApproval is an intent and what was decided of it.
type IntentApproval struct {
	ID               string            `json:"id"`
	OperatorID       string            `json:"operator_id"`
	AgentID          string            `json:"agent_id"`
	PassportJTI      string            `json:"passport_jti"`
	MissionID        string            `json:"mission_id"`
	Status           IntentStatus      `json:"status"`
	Intent           IntentClaim       `json:"intent"`
	IntentClaimID    string            `json:"intent_claim_id"`
	SimulatedClaimID string            `json:"simulated_claim_id,omitempty"`
	Simulation       *IntentSimulation `json:"simulation,omitempty"`
	CreatedAt        time.Time         `json:"created_at"`
	ExpiresAt        time.Time         `json:"expires_at"`
	DecidedAt        time.Time         `json:"decided_at,omitzero"`
	DecidedBy        string            `json:"decided_by,omitempty"` // a member's id, else the operator's
	Notes            string            `json:"notes,omitempty"`
	UsedAt           time.Time         `json:"used_at,omitzero"` // when a call used it up
	OperationID      string            `json:"operation_id,omitempty"`
}

// Get returns an approval whatever its status. It fails with [ErrNotFound].
//
// GET /v1/intents/{approval_id}
func (s *IntentsService) Get(ctx context.Context, approvalID string) (*IntentApproval, error) {
	return send[IntentApproval](ctx, s.client, get("/v1/intents/{approval_id}", approvalID))
}

// Defaults of [IntentWaitParams].
const (
	DefaultIntentTimeout      = time.Minute
	DefaultIntentPollInterval = time.Second
)

// IntentWaitParams says how to wait for a decision.
type IntentWaitParams struct {
	Timeout      time.Duration // default: DefaultIntentTimeout
	PollInterval time.Duration // default: DefaultIntentPollInterval; at least 10 ms
}

// IntentOutcome is what came of waiting for a decision.
type IntentOutcome struct {
	Initial  *SubmittedIntent // nil from [IntentsService.Wait]
	Final    *IntentApproval  // as it was read last
	TimedOut bool             // Final is still pending
}

// Approved reports whether the approval can be used.
func (o *IntentOutcome) Approved() bool { return o.Final != nil && o.Final.Status == IntentApproved }

// Wait reads an approval until it is no longer pending or the timeout has passed, which is no error but an outcome that
// timed out. A rejection is none either. It fails as [IntentsService.Get] does, with a [*ParamError] for parameters out of
// bounds, and with the cause of the context's end.
//
// GET /v1/intents/{approval_id}
func (s *IntentsService) Wait(ctx context.Context, approvalID string, params IntentWaitParams) (*IntentOutcome, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(cmp.Or(params.Timeout, DefaultIntentTimeout))
	interval := cmp.Or(params.PollInterval, DefaultIntentPollInterval)
	for {
		row, err := s.Get(ctx, approvalID)
		if err != nil {
			return nil, err
		}
		left := time.Until(deadline)
		if row.Status != IntentPending || left <= 0 {
			return &IntentOutcome{Final: row, TimedOut: row.Status == IntentPending}, nil
		}
		if err := sleep(ctx, min(interval, left)); err != nil {
			return nil, fmt.Errorf("stack: waiting for approval %s: %w", approvalID, err)
		}
	}
}

func (p IntentWaitParams) check() error {
	if p.Timeout < 0 {
		return &ParamError{Param: "timeout", Reason: fmt.Sprintf("is %s; it must be more than zero", p.Timeout)}
	}
	const least = 10 * time.Millisecond
	if p.PollInterval != 0 && p.PollInterval < least {
		return &ParamError{Param: "poll_interval", Reason: fmt.Sprintf("is %s; it must be at least %s", p.PollInterval, least)}
	}
	return nil
}

// SubmitAndWait is [IntentsService.Submit] and then [IntentsService.Wait]. Where the waiting fails, it returns an outcome
// with the Initial answer beside the error, so that the approval is not lost.
//
// POST /v1/intents/submit, then GET /v1/intents/{approval_id}
func (s *IntentsService) SubmitAndWait(
	ctx context.Context, params IntentSubmitParams, wait IntentWaitParams,
) (*IntentOutcome, error) {
	if err := wait.check(); err != nil {
		return nil, err
	}
	initial, err := s.Submit(ctx, params)
	if err != nil {
		return nil, err
	}
	outcome, err := s.Wait(ctx, initial.ApprovalID, wait)
	if err != nil {
		return &IntentOutcome{Initial: initial}, err
	}
	outcome.Initial = initial
	return outcome, nil
}

// IntentListParams pages the pending approvals.
type IntentListParams struct {
	Page  int // from 1
	Limit int // default 20, at most 100
}

// IntentPage is one page of pending approvals, oldest first.
type IntentPage struct {
	Items []IntentApproval `json:"items"`
	Total int              `json:"total"` // on all pages
	Page  int              `json:"page"`
	Limit int              `json:"limit"`
}

// ListPending returns one page of the operator's pending approvals. It fails with [ErrInvalidRequest] for a page or limit
// out of bounds.
//
// GET /v1/intents/pending
func (s *IntentsService) ListPending(ctx context.Context, params IntentListParams) (*IntentPage, error) {
	return send[IntentPage](ctx, s.client, get("/v1/intents/pending").number("page", params.Page).
		number("limit", params.Limit))
}

// AllPending walks the pending approvals of all pages from params.Page on. It reads all pages before it yields the first
// approval, so that approvals may be decided on the way. An error ends it.
//
// GET /v1/intents/pending
func (s *IntentsService) AllPending(ctx context.Context, params IntentListParams) iter.Seq2[IntentApproval, error] {
	return readAhead(pages(params.Page, func(page int) ([]IntentApproval, int, error) {
		params := params
		params.Page = page
		p, err := s.ListPending(ctx, params)
		if err != nil {
			return nil, 0, err
		}
		return p.Items, p.Limit, nil
	}))
}

// IntentApproveParams goes with an approval.
type IntentApproveParams struct {
	Notes string `json:"notes,omitempty"` // at most 1000 characters
}

// Approve lets the call that an intent describes happen, once and until the approval expires. It is for the operator's own
// key and for members with role admin, not for agents. It fails with [ErrApprovalClosed] for one that is no longer pending,
// with [ErrNotFound], and with [ErrForbidden] for other members.
//
// POST /v1/intents/{approval_id}/approve
func (s *IntentsService) Approve(
	ctx context.Context, approvalID string, params IntentApproveParams,
) (*IntentApproval, error) {
	return send[IntentApproval](ctx, s.client, post("/v1/intents/{approval_id}/approve", approvalID).with(params))
}

// IntentRejectParams goes with a rejection.
type IntentRejectParams struct {
	Notes       string `json:"notes,omitempty"`        // at most 1000 characters
	BlockFuture bool   `json:"block_future,omitempty"` // also suspend the agent
}

// IntentRejection is a rejected approval and what fell with it.
type IntentRejection struct {
	IntentApproval
	Revocation     Revocation `json:"revocation"` // of the passport, and of what was delegated from it
	AgentSuspended bool       `json:"agent_suspended"`
}

// Reject refuses an intent and revokes the passport that it was submitted with, with everything delegated from that;
// BlockFuture also suspends the agent, so that it gets no further passports. Members need role standard for it: whoever may
// pull the kill switch may do this. It fails with [ErrApprovalClosed] for an approval that is no longer pending, and with
// [ErrNotFound], with BlockFuture also when the agent was deleted.
//
// POST /v1/intents/{approval_id}/reject
func (s *IntentsService) Reject(
	ctx context.Context, approvalID string, params IntentRejectParams,
) (*IntentRejection, error) {
	return send[IntentRejection](ctx, s.client, post("/v1/intents/{approval_id}/reject", approvalID).with(params))
}
