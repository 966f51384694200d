package mockserver

import (
	"context"
	"net/http"

	"github.com/getstack-go/stack"
)

func reviewRoutes() []route {
	return []route{
		endpoint("GET", "/v1/passports/reviews", (*Server).listReviews),
		endpoint("POST", "/v1/passports/reviews/{checkout_id}/decide", (*Server).decideReview),
	}
}

type listReviewsIn struct {
	Status stack.ReviewStatus `query:"status"`
	Page   *int               `query:"page"`
	Limit  *int               `query:"limit"`
}

func (s *Server) listReviews(_ context.Context, c *caller, in listReviewsIn) (*stack.ReviewPage, error) {
	number, size, err := paging(in.Page, in.Limit, 20)
	if err != nil {
		return nil, err
	}
	status := or(in.Status, stack.ReviewFlagged)
	if err := firstError(oneOf("query.status", status, stack.ReviewClean, stack.ReviewFlagged, stack.ReviewBlocked)); err != nil {
		return nil, err
	}
	found, total := page(c.op.checkouts.newest(), number, size, func(co *checkout) bool { return co.ReviewStatus == status })
	items := make([]stack.ReviewItem, len(found))
	for i, co := range found {
		stk := co.passport.claims.STK
		items[i] = stack.ReviewItem{CheckoutID: co.CheckoutID, PassportJTI: co.PassportJTI, AgentID: stk.AgentID,
			AgentName: stk.AgentName, IntentSummary: stk.IntentSummary, ReviewStatus: co.ReviewStatus,
			Flags: co.Flags, SubmittedAt: co.SubmittedAt}
	}
	return &stack.ReviewPage{Items: items, Total: total}, nil
}

type decideReviewIn struct {
	CheckoutID string                   `path:"checkout_id"`
	Body       stack.ReviewDecideParams `body:""`
}

// decideReview settles a review, whatever the status of the checkout: an operator may know of a clean one what the
// detectors do not. Everything that can refuse comes before the approval, which is used up by the call that passes.
func (s *Server) decideReview(_ context.Context, c *caller, in decideReviewIn) (*stack.Review, error) {
	op, now, p := c.op, s.clock.now(), in.Body
	if err := firstError(
		chosen("body.decision", p.Decision, stack.DecisionApproved, stack.DecisionBlocked),
		atMost("body.notes", p.Notes, maxNotes),
	); err != nil {
		return nil, err
	}
	co, ok := op.checkouts.get(in.CheckoutID)
	if !ok {
		return nil, notFound("checkout", in.CheckoutID)
	}
	if co.review != nil {
		return nil, refuse(http.StatusConflict, "REVIEW_ALREADY_DECIDED",
			"the review was decided before: "+string(co.review.Decision),
			map[string]any{"check": "review_state", "sent": p.Decision, "review_id": co.review.ReviewID, "decision": co.review.Decision,
				"decided_at": co.review.DecidedAt, "allowed": "one decision"})
	}
	a, known := op.agents.get(co.passport.agentID())
	if p.BlockFuture && !known {
		return nil, notFound("agent", co.passport.agentID())
	}
	if p.Decision == stack.DecisionApproved {
		if err := op.governed(now, c, "review.approve", co.CheckoutID); err != nil {
			return nil, err
		}
		co.ReviewStatus = stack.ReviewClean
	} else {
		co.ReviewStatus = stack.ReviewBlocked
	}
	action := "review." + string(p.Decision)
	op.record(now, co.passport.row(action))
	op.note(now, co.passport, action, map[string]any{"checkout_id": co.CheckoutID})
	if p.BlockFuture && !a.PassportBlocked {
		op.blockAgent(now, a, "the review of "+co.CheckoutID+" blocked it")
	}
	co.review = &stack.Review{ReviewID: newID("rev_"), CheckoutID: co.CheckoutID, AgentID: co.passport.agentID(),
		Decision: p.Decision, Notes: p.Notes, PassportBlocked: known && a.PassportBlocked, DecidedAt: now}
	op.reviewMission(now, co.passport.mission, causeDecision, co)
	return co.review, nil
}
