package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// InvocationStatus is how far an invocation has come.
type InvocationStatus string

// Invocation statuses; the last three are final.
const (
	InvocationPending   InvocationStatus = "pending" // of an open skill: nobody has claimed it yet
	InvocationRunning   InvocationStatus = "running"
	InvocationCompleted InvocationStatus = "completed"
	InvocationFailed    InvocationStatus = "failed"
	InvocationExpired   InvocationStatus = "expired" // nobody completed it in time
)

// Final reports whether the invocation is over.
func (s InvocationStatus) Final() bool {
	return s == InvocationCompleted || s == InvocationFailed || s == InvocationExpired
}

// InvocationError is why an invocation failed.
type InvocationError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Invocation is one use of a skill.
type Invocation struct {
	ID        string           `json:"id"`
	SkillID   string           `json:"skill_id"`
	AgentID   string           `json:"agent_id,omitempty"` // who invoked it; not told to the publisher
	Status    InvocationStatus `json:"status"`
	Input     json.RawMessage  `json:"input,omitempty"` // told to the publisher of an open skill
	Output    json.RawMessage  `json:"output"`          // null until it is completed
	Error     *InvocationError `json:"error"`
	Price     int              `json:"price_cents"`
	ExpiresAt time.Time        `json:"expires_at"`
	CreatedAt time.Time        `json:"created_at"`
	StartedAt *time.Time       `json:"started_at"`
	// CompletedAt is when the invocation came to its end, whichever.
	CompletedAt     *time.Time    `json:"completed_at"`
	LLMTokensInput  *int          `json:"llm_tokens_input"`  // of llm steps
	LLMTokensOutput *int          `json:"llm_tokens_output"` // of llm steps
	Duration        time.Duration `json:"-"`                 // execution_duration_ms on the wire
}

// MarshalJSON writes the duration in milliseconds.
func (i Invocation) MarshalJSON() ([]byte, error) {
	type plain Invocation
	out := struct {
		plain
		Duration *milliseconds `json:"execution_duration_ms"`
	}{plain: plain(i)}
	if i.StartedAt != nil && i.CompletedAt != nil {
		out.Duration = (*milliseconds)(&i.Duration)
	}
	return marshalJSON(out)
}

// UnmarshalJSON reads the duration in milliseconds.
func (i *Invocation) UnmarshalJSON(data []byte) error {
	type plain Invocation
	in := struct {
		*plain
		Duration milliseconds `json:"execution_duration_ms"`
	}{plain: (*plain)(i)}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	i.Duration = time.Duration(in.Duration)
	return nil
}

// SkillInvokeParams invokes a skill.
type SkillInvokeParams struct {
	Input      any    `json:"input"`                 // a JSON object that the skill's input schema holds for
	AgentID    string `json:"agent_id,omitempty"`    // who invokes it; default the passport's agent
	PassportID string `json:"passport_id,omitempty"` // jti of a live passport of the agent, whose Mission accounts for it

	// ApprovalID is that of an approved intent, where the account's policy demands one.
	ApprovalID string `json:"-"`
	// IdempotencyKey makes a repetition harmless: it returns the first invocation, which is paid once. With it, or with an
	// AuthorityRequestID, the SDK repeats a call whose answer was lost.
	IdempotencyKey string `json:"-"`
	// AuthorityRequestID does the same, and must be 22 to 256 letters, digits, - and _.
	AuthorityRequestID string `json:"-"`
}

// Invoke has a skill done. A sealed or source skill has run when the answer comes, within 30 s of computing; an open one is
// pending until its publisher completes it: see [SkillsService.Wait]. A failure of the skill itself is no error here: the
// invocation's Status says it, and what was paid is refunded.
//
// It fails with a [*ParamError] without an input and for a malformed AuthorityRequestID; with code SKILL_NOT_FOUND for a skill
// that does not exist or is suspended ([ErrNotFound]); with code SCHEMA_VALIDATION_FAILED ([ErrInvalidRequest] does not match it)
// for an input against its schema; with [ErrTrustLevelInsufficient], [ErrUnauthorizedSkillAccess], [ErrIntentApprovalRequired],
// [ErrPromptInjectionBlocked], [ErrMissionCapExceeded], [ErrPassportRevoked] or [ErrInsufficientCredits]; and with
// [ErrConflict] when a key comes with another request.
//
// POST /v1/skills/{skill_id}/invoke
func (s *SkillsService) Invoke(ctx context.Context, skillID string, params SkillInvokeParams) (*Invocation, error) {
	if params.Input == nil {
		return nil, &ParamError{Param: "input", Reason: "is nil; it must be a JSON object"}
	}
	if id := params.AuthorityRequestID; id != "" && !operationIDPattern.MatchString(id) {
		return nil, &ParamError{Param: "authority_request_id", Reason: "must be 22 to 256 letters, digits, hyphens and underscores"}
	}
	cl := post("/v1/skills/{skill_id}/invoke", skillID).with(params).head("X-Intent-Approval-Id", params.ApprovalID).
		head("Idempotency-Key", params.IdempotencyKey).head("X-STACK-Authority-Request-Id", params.AuthorityRequestID)
	cl.keyed = params.IdempotencyKey != "" || params.AuthorityRequestID != ""
	return send[Invocation](ctx, s.client, cl)
}

// GetInvocation returns an invocation that the account made, or one of its skills. It fails with code INVOCATION_NOT_FOUND,
// which is [ErrNotFound].
//
// GET /v1/skills/invocations/{invocation_id}
func (s *SkillsService) GetInvocation(ctx context.Context, invocationID string) (*Invocation, error) {
	return send[Invocation](ctx, s.client, get("/v1/skills/invocations/{invocation_id}", invocationID))
}

// ListInvocations returns the invocations that the account made, newest first, at most the last 1000.
//
// GET /v1/skills/invocations/mine
func (s *SkillsService) ListInvocations(ctx context.Context) ([]Invocation, error) {
	return sendList[Invocation](ctx, s.client, get("/v1/skills/invocations/mine"))
}

// ListPendingInvocations returns what waits for the account's open skills, oldest first; with a skill's id, for that one. It
// fails with [ErrNotFound] for a skill that is not the account's.
//
// GET /v1/skills/invocations/pending
func (s *SkillsService) ListPendingInvocations(ctx context.Context, skillID string) ([]Invocation, error) {
	return sendList[Invocation](ctx, s.client, get("/v1/skills/invocations/pending").param("skill_id", skillID))
}

// ClaimInvocation takes on a pending invocation of one of the account's open skills, which then nobody else can. It fails with
// [ErrNotFound], and with [ErrConflict] for one that is not pending.
//
// POST /v1/skills/invocations/{invocation_id}/claim
func (s *SkillsService) ClaimInvocation(ctx context.Context, invocationID string) (*Invocation, error) {
	return send[Invocation](ctx, s.client, post("/v1/skills/invocations/{invocation_id}/claim", invocationID))
}

type completeInvocationParams struct {
	Output any `json:"output"`
}

// CompleteInvocation delivers the output of a claimed invocation, an object that the skill's output schema holds for, and
// earns its price. It fails with a [*ParamError] without an output, with [ErrNotFound], with [ErrConflict] for one that is not
// claimed, and with code SCHEMA_VALIDATION_FAILED, after which it can be tried again.
//
// POST /v1/skills/invocations/{invocation_id}/complete
func (s *SkillsService) CompleteInvocation(ctx context.Context, invocationID string, output any) (*Invocation, error) {
	if output == nil {
		return nil, &ParamError{Param: "output", Reason: "is nil; it must be a JSON object"}
	}
	return send[Invocation](ctx, s.client,
		post("/v1/skills/invocations/{invocation_id}/complete", invocationID).with(completeInvocationParams{output}))
}

type failInvocationParams struct {
	Error InvocationError `json:"error"`
}

// FailInvocation gives up a claimed or pending invocation and says why; its price is refunded. It fails with a [*ParamError]
// without a code or a message, with [ErrNotFound], and with [ErrConflict] for one that is over.
//
// POST /v1/skills/invocations/{invocation_id}/fail
func (s *SkillsService) FailInvocation(ctx context.Context, invocationID string, reason InvocationError) (*Invocation, error) {
	for param, value := range map[string]string{"code": reason.Code, "message": reason.Message} {
		if err := required(param, value); err != nil {
			return nil, err
		}
	}
	return send[Invocation](ctx, s.client,
		post("/v1/skills/invocations/{invocation_id}/fail", invocationID).with(failInvocationParams{reason}))
}

// Wait reads an invocation every interval (default 1 s) until it is over, and returns it, whichever way it ended. It ends with
// the context, whose error it then returns together with the invocation as it was last seen.
//
// GET /v1/skills/invocations/{invocation_id}
func (s *SkillsService) Wait(ctx context.Context, invocationID string, interval time.Duration) (*Invocation, error) {
	if interval < 0 {
		return nil, &ParamError{Param: "interval", Reason: fmt.Sprintf("is %s; it must not be negative", interval)}
	}
	if interval == 0 {
		interval = time.Second
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last *Invocation
	for {
		invocation, err := s.GetInvocation(ctx, invocationID)
		switch {
		case ctx.Err() != nil && last != nil:
			return last, fmt.Errorf("invocation %s is %s: %w", invocationID, last.Status, context.Cause(ctx))
		case err != nil || invocation.Status.Final():
			return invocation, err
		}
		last = invocation
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
