package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"time"
)

// SkillRequest is something that an account would like to have done.
type SkillRequest struct {
	ID                  string          `json:"id"`
	OperatorID          string          `json:"operator_id"`
	Description         string          `json:"description"`
	DesiredInputSchema  json.RawMessage `json:"desired_input_schema"`  // null is anything
	DesiredOutputSchema json.RawMessage `json:"desired_output_schema"` // null is anything
	MaxPriceCents       *int            `json:"max_price_cents"`       // nil is any
	Tags                []string        `json:"tags"`
	Status              string          `json:"status"` // open; there is no way yet to close a request
	CreatedAt           time.Time       `json:"created_at"`
}

// SkillRequestParams describes what is looked for.
type SkillRequestParams struct {
	Description string `json:"description"` // 1 to 1000 characters
	// DesiredInputSchema describes what would be given, DesiredOutputSchema what is wanted; default: anything.
	DesiredInputSchema  any      `json:"desired_input_schema,omitempty"`
	DesiredOutputSchema any      `json:"desired_output_schema,omitempty"`
	MaxPriceCents       *int     `json:"max_price_cents,omitempty"` // default any
	Tags                []string `json:"tags,omitempty"`
}

// PostRequest puts a request on the board. It fails with a [*ParamError] without a description, and with [ErrInvalidRequest]
// for a field out of bounds and a schema that is none.
//
// POST /v1/skill-requests
func (s *SkillsService) PostRequest(ctx context.Context, params SkillRequestParams) (*SkillRequest, error) {
	if err := required("description", params.Description); err != nil {
		return nil, err
	}
	return send[SkillRequest](ctx, s.client, post("/v1/skill-requests").with(params))
}

// SkillRequestListParams selects requests.
type SkillRequestListParams struct {
	Status string // default open
	Limit  int    // 1 to 100; default 20
	Offset int
}

// ListRequests returns requests of all accounts, newest first. It fails with [ErrInvalidRequest] for a parameter out of bounds.
//
// GET /v1/skill-requests
func (s *SkillsService) ListRequests(ctx context.Context, params SkillRequestListParams) ([]SkillRequest, error) {
	return sendList[SkillRequest](ctx, s.client, get("/v1/skill-requests").param("status", params.Status).
		number("limit", params.Limit).number("offset", params.Offset))
}

// AllRequests walks the requests of all pages. An error ends it.
//
// GET /v1/skill-requests
func (s *SkillsService) AllRequests(ctx context.Context, params SkillRequestListParams) iter.Seq2[SkillRequest, error] {
	params.Limit = cmp.Or(params.Limit, 100)
	return pages(1, func(page int) ([]SkillRequest, int, error) {
		part := params
		part.Offset += (page - 1) * params.Limit
		requests, err := s.ListRequests(ctx, part)
		return requests, params.Limit, err
	})
}

// GetRequest returns a request of any account. It fails with [ErrNotFound].
//
// GET /v1/skill-requests/{request_id}
func (s *SkillsService) GetRequest(ctx context.Context, requestID string) (*SkillRequest, error) {
	return send[SkillRequest](ctx, s.client, get("/v1/skill-requests/{request_id}", requestID))
}

// SkillMatches are the skills that can do what a request asks for.
type SkillMatches struct {
	RequestID string       `json:"request_id"`
	Matches   []SkillMatch `json:"matches"` // best first
}

// SkillMatch is one skill that fits.
type SkillMatch struct {
	SkillID     string   `json:"skill_id"`
	Name        string   `json:"name"`
	PriceCents  int      `json:"price_cents"`
	Score       float64  `json:"score"`        // 0 to 1: the share of tags in common, and of the description's words
	SharedTags  []string `json:"shared_tags"`  // with the request
	SchemasFit  bool     `json:"schemas_fit"`  // always true of a match for a request with schemas
	SharedWords []string `json:"shared_words"` // of the two descriptions and the name
}

// GetRequestMatches returns the active skills that a request's schemas fit, within its price: what the skill demands as input
// the request gives, and what the request wants as output the skill gives. A request without schemas takes the skills that
// have a tag or words in common with it. It fails with [ErrNotFound].
//
// GET /v1/skill-requests/{request_id}/matches
func (s *SkillsService) GetRequestMatches(ctx context.Context, requestID string) (*SkillMatches, error) {
	return send[SkillMatches](ctx, s.client, get("/v1/skill-requests/{request_id}/matches", requestID))
}

// SkillSuggestions are ways to meet a request by several skills in a row.
type SkillSuggestions struct {
	RequestID    string             `json:"request_id"`
	Compositions []SkillComposition `json:"compositions"` // shortest first, then cheapest
}

// SkillComposition is a chain of skills, each of which takes the output of the one before.
type SkillComposition struct {
	Steps      []SkillMatch `json:"steps"`
	PriceCents int          `json:"price_cents"` // of all
}

// SuggestComposition returns chains of two or three active skills that lead from a request's input to its output, within its
// price. A request without both schemas gets none. It fails with [ErrNotFound].
//
// GET /v1/skill-requests/{request_id}/suggest
func (s *SkillsService) SuggestComposition(ctx context.Context, requestID string) (*SkillSuggestions, error) {
	return send[SkillSuggestions](ctx, s.client, get("/v1/skill-requests/{request_id}/suggest", requestID))
}
