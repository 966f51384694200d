package mockserver

import (
	"context"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

// maxOperatorReviews is how many revisions of a Mission's review are kept, the newest.
const maxOperatorReviews = 1000

// reviewCause is what a revision of an operator review was issued for.
type reviewCause string

const (
	causeEnd      reviewCause = "mission_end"
	causeCheckout reviewCause = "checkout" // after the end
	causeDecision reviewCause = "decision" // after the end
)

// reviewMission issues a revision of the review of a Mission that is over: what it came to, what its checkouts and detectors
// found, and what was decided. A live one has none. The hosted service has people write reviews in its dashboard; here the
// first is issued when the Mission ends, and another when a checkout or decision comes after that. What it is issued for has
// its row in the audit log, so it has none of its own. This is ours.
func (op *operator) reviewMission(now time.Time, m *mission, cause reviewCause, co *checkout) {
	if m.end == nil {
		return
	}
	m.revisions++
	status, checkouts := m.reviewStatus()
	id := newID("pc_")
	claim := map[string]any{"type": "operator_review", "version": 1, "claim_id": id, "operator_id": op.id,
		"mission_id": m.MissionID, "issued_at_ms": now.UnixMilli(), "revision": m.revisions, "cause": string(cause),
		"terminal_state": m.end.TerminalState, "end_claim_id": m.end.ClaimID, "ended_at_ms": m.EndedAt.UnixMilli(),
		"actions": m.Usage.Actions, "passports": len(m.passports), "checkouts": checkouts, "review_status": string(status),
		"security_events": map[string]any{"info": m.signals[stack.SeverityInfo], "warning": m.signals[stack.SeverityWarning],
			"critical": m.signals[stack.SeverityCritical]}}
	set := func(name, value string) { // unless it is empty
		if value != "" {
			claim[name] = value
		}
	}
	set("agent_id", m.AgentID)
	set("end_reason", m.EndReason)
	if n := len(m.reviews); n > 0 {
		set("supersedes", m.reviews[n-1].ClaimID)
	}
	if co != nil {
		set("checkout_id", co.CheckoutID)
		set("checkout_status", string(co.ReviewStatus))
		if r := co.review; r != nil {
			set("review_id", r.ReviewID)
			set("decision", string(r.Decision))
			set("notes", r.Notes)
		}
	}
	m.reviews = append(m.reviews, stack.OperatorReview{ClaimID: id, OperatorID: op.id,
		IssuedAt: time.UnixMilli(now.UnixMilli()).UTC(), Claim: claim})
	if extra := len(m.reviews) - maxOperatorReviews; extra > 0 {
		m.reviews = slices.Delete(m.reviews, 0, extra)
	}
}

// reviewStatus is the worst of the Mission's checkouts, and how many there are; without one nothing was flagged.
func (m *mission) reviewStatus() (worst stack.ReviewStatus, checkouts int) {
	up := []stack.ReviewStatus{stack.ReviewClean, stack.ReviewFlagged, stack.ReviewBlocked}
	worst = stack.ReviewClean
	for _, p := range m.passports {
		if p.checkout == nil {
			continue
		}
		checkouts++
		if slices.Index(up, p.checkout.ReviewStatus) > slices.Index(up, worst) {
			worst = p.checkout.ReviewStatus
		}
	}
	return worst, checkouts
}

type operatorReviews struct {
	Items []stack.OperatorReview `json:"items"`
}

// listOperatorReviews lists the revisions, newest first.
func (s *Server) listOperatorReviews(_ context.Context, c *caller, in missionIn) (*operatorReviews, error) {
	m, err := c.op.missionByID(in.MissionID)
	if err != nil {
		return nil, err
	}
	list := &operatorReviews{Items: append([]stack.OperatorReview{}, m.reviews...)}
	slices.Reverse(list.Items)
	return list, nil
}

type operatorReviewIn struct {
	MissionID string `path:"mission_id"`
	ClaimID   string `path:"claim_id"`
}

// downloadOperatorReview signs the claim anew, which gives the same bytes each time: the encoding and Ed25519 are both
// deterministic.
func (s *Server) downloadOperatorReview(_ context.Context, c *caller, in operatorReviewIn) (*document, error) {
	m, err := c.op.missionByID(in.MissionID)
	if err != nil {
		return nil, err
	}
	for _, r := range m.reviews {
		if r.ClaimID == in.ClaimID {
			envelope, err := s.signer.SignClaim(r.Claim)
			if err != nil {
				return nil, err
			}
			return &document{contentType: `application/cose; cose-type="cose-sign1"`, body: envelope}, nil
		}
	}
	return nil, notFound("operator review", in.ClaimID)
}
