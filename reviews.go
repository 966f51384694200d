package stack

import (
	"cmp"
	"context"
	"iter"
	"time"
)

// ReviewsService lists and decides the reviews of checkouts. Reach it as [Client].Reviews.
type ReviewsService struct{ client *Client }

// ReviewDecision is an operator's verdict on a checkout.
type ReviewDecision string

// Review decisions.
const (
	DecisionApproved ReviewDecision = "approved"
	DecisionBlocked  ReviewDecision = "blocked"
)

// Review is the decided review of a checkout.
type Review struct {
	ReviewID        string         `json:"review_id"`
	CheckoutID      string         `json:"checkout_id"`
	AgentID         string         `json:"agent_id"`
	Decision        ReviewDecision `json:"decision"`
	Notes           string         `json:"notes,omitempty"`
	PassportBlocked bool           `json:"passport_blocked"`
	DecidedAt       time.Time      `json:"decided_at"`
}

// ReviewListParams filters and pages the reviews of checkouts.
type ReviewListParams struct {
	Status ReviewStatus // default [ReviewFlagged]
	Page   int          // from 1
	Limit  int          // default 20, at most 100
}

// ReviewItem is a checkout with the outcome of its review. A decision changes its status: to clean when it was approved,
// to blocked when it was blocked.
type ReviewItem struct {
	CheckoutID    string       `json:"checkout_id"`
	PassportJTI   string       `json:"passport_jti"`
	AgentID       string       `json:"agent_id"`
	AgentName     string       `json:"agent_name"` // as it was when the passport was issued
	IntentSummary string       `json:"intent_summary"`
	ReviewStatus  ReviewStatus `json:"review_status"`
	Flags         []Flag       `json:"flags"`
	SubmittedAt   time.Time    `json:"submitted_at"`
}

// ReviewPage is one page of reviewed checkouts, newest first.
type ReviewPage struct {
	Items []ReviewItem `json:"items"`
	Total int          `json:"total"` // on all pages
}

const defaultReviewLimit = 20

// List returns one page of the checkouts whose review has the status. It fails with [ErrInvalidRequest] for a status that
// does not exist and for a page or limit out of bounds.
//
// GET /v1/passports/reviews
func (s *ReviewsService) List(ctx context.Context, params ReviewListParams) (*ReviewPage, error) {
	return send[ReviewPage](ctx, s.client, get("/v1/passports/reviews").
		param("status", string(params.Status)).number("page", params.Page).number("limit", params.Limit))
}

// All walks the checkouts of all pages from params.Page on. It reads all pages before it yields the first checkout, so
// that checkouts may be decided on the way. An error ends it.
//
// GET /v1/passports/reviews
func (s *ReviewsService) All(ctx context.Context, params ReviewListParams) iter.Seq2[ReviewItem, error] {
	params.Limit = cmp.Or(params.Limit, defaultReviewLimit) // the answer does not say it
	return readAhead(pages(params.Page, func(page int) ([]ReviewItem, int, error) {
		params := params
		params.Page = page
		p, err := s.List(ctx, params)
		if err != nil {
			return nil, 0, err
		}
		return p.Items, params.Limit, nil
	}))
}

// ReviewDecideParams is an operator's verdict on a checkout.
type ReviewDecideParams struct {
	Decision    ReviewDecision `json:"decision"`
	Notes       string         `json:"notes,omitempty"`        // at most 1000 characters
	BlockFuture bool           `json:"block_future,omitempty"` // also keep the agent from further passports

	// GovernanceApprovalID names a human's approval. Without it, a caller with an API key who approves gets
	// ErrGovernanceApprovalRequired, whose details hold the approval_id to have approved.
	GovernanceApprovalID string `json:"-"`
}

// Decide settles the review of a checkout, whatever its status, once. To approve needs a human's approval, to block does
// not. It fails with [ErrGovernanceApprovalRequired], with [ErrConflict] and code REVIEW_ALREADY_DECIDED the second time,
// and with [ErrNotFound] for an unknown checkout, or with BlockFuture when its agent was deleted.
//
// POST /v1/passports/reviews/{checkout_id}/decide
func (s *ReviewsService) Decide(ctx context.Context, checkoutID string, params ReviewDecideParams) (*Review, error) {
	if err := required("decision", string(params.Decision)); err != nil {
		return nil, err
	}
	return send[Review](ctx, s.client, post("/v1/passports/reviews/{checkout_id}/decide", checkoutID).with(params).
		head("X-Governance-Approval", params.GovernanceApprovalID))
}
