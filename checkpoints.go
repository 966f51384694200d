package stack

import (
	"context"
	"time"
)

// ToolCall is one action of an agent, as a checkpoint or a checkout reports it.
type ToolCall struct {
	Service string `json:"service"`
	Method  string `json:"method"`
	Target  string `json:"target,omitempty"`
}

// CheckpointParams reports what an agent has done: since the last checkpoint in a checkpoint, altogether in a checkout.
type CheckpointParams struct {
	ServicesUsed []string   `json:"services_used"`
	ActionsCount int        `json:"actions_count"`
	ToolCalls    []ToolCall `json:"tool_calls,omitempty"`
	Summary      string     `json:"summary,omitempty"` // at most 1000 characters
	DelegatedTo  []string   `json:"delegated_to,omitempty"`
}

func (p CheckpointParams) check() error {
	if p.ActionsCount < 0 {
		return &ParamError{Param: "actions_count", Reason: "is negative; it counts actions"}
	}
	return nil
}

// normal makes sure that a list goes out where the wire wants one.
func (p CheckpointParams) normal() CheckpointParams {
	if p.ServicesUsed == nil {
		p.ServicesUsed = []string{}
	}
	return p
}

// Checkpoint is an accepted checkpoint.
type Checkpoint struct {
	CheckpointID string    `json:"checkpoint_id"`
	PassportJTI  string    `json:"passport_jti"`
	NewExpiresAt time.Time `json:"new_expires_at,omitzero"` // enforced passports: how long this one keeps it alive
	Flags        []string  `json:"flags"`
}

// Flag is a finding of the post-hoc checks.
type Flag struct {
	Type     string   `json:"type"`
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
}

// Checkout is an accepted checkout: the end of a passport, and its review.
type Checkout struct {
	CheckoutID   string       `json:"checkout_id"`
	PassportJTI  string       `json:"passport_jti"`
	ReviewStatus ReviewStatus `json:"review_status"`
	Flags        []Flag       `json:"flags"`
}

// Checkpoint reports the actions since the last one; on an enforced passport it also moves the expiry. It fails with
// [ErrCheckpointNotAvailable] in standard mode, with [ErrPassportRevoked] or [ErrPassportExpired] when it comes too late,
// and with [ErrNotFound].
//
// POST /v1/passports/{passport_jti}/checkpoint
func (s *PassportsService) Checkpoint(ctx context.Context, jti string, params CheckpointParams) (*Checkpoint, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return send[Checkpoint](ctx, s.client, post("/v1/passports/{passport_jti}/checkpoint", jti).with(params.normal()))
}

// Checkout reports everything and ends the passport; the server reviews what was declared against what happened. It fails
// with [ErrPassportRevoked] when the passport was checked out before, and with [ErrNotFound].
//
// POST /v1/passports/{passport_jti}/checkout
func (s *PassportsService) Checkout(ctx context.Context, jti string, params CheckpointParams) (*Checkout, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return send[Checkout](ctx, s.client, post("/v1/passports/{passport_jti}/checkout", jti).with(params.normal()))
}

// PassportReport is everything that is on record about one passport.
type PassportReport struct {
	Passport    ReportedPassport     `json:"passport"`
	Intent      *Intent              `json:"intent"`
	Checkpoints []ReportedCheckpoint `json:"checkpoints"`
	Checkout    *ReportedCheckout    `json:"checkout"`
	Review      *Review              `json:"review"`
}

// ReportedPassport is a passport with its whole fate.
type ReportedPassport struct {
	ActivePassport
	Status           string    `json:"status"` // active, checked_out, revoked or expired
	CheckedOutAt     time.Time `json:"checked_out_at,omitzero"`
	RevokedAt        time.Time `json:"revoked_at,omitzero"`
	RevocationReason string    `json:"revocation_reason,omitempty"`
}

// ReportedCheckpoint is a checkpoint with what it reported.
type ReportedCheckpoint struct {
	Checkpoint
	CheckpointParams
	CreatedAt time.Time `json:"created_at"`
}

// ReportedCheckout is a checkout with what it reported.
type ReportedCheckout struct {
	Checkout
	CheckpointParams
	SubmittedAt time.Time `json:"submitted_at"`
}

// Report returns what is on record about a passport. It fails with [ErrNotFound].
//
// GET /v1/passports/{passport_jti}/report
func (s *PassportsService) Report(ctx context.Context, jti string) (*PassportReport, error) {
	return send[PassportReport](ctx, s.client, get("/v1/passports/{passport_jti}/report", jti))
}
