package stack

import (
	"context"
	"iter"
	"time"
)

// SecurityEventsService lists and resolves what the detectors saw. Reach it as [Client].SecurityEvents.
type SecurityEventsService struct{ client *Client }

// SecurityEvent is what a detector saw.
type SecurityEvent struct {
	ID          string         `json:"id"`
	OperatorID  string         `json:"operator_id"`
	AgentID     string         `json:"agent_id"`
	PassportJTI string         `json:"passport_jti"`
	SignalType  string         `json:"signal_type"` // such as credential_outside_scope
	Severity    Severity       `json:"severity"`
	Message     string         `json:"message"`
	Metadata    map[string]any `json:"metadata"`
	Resolved    bool           `json:"resolved"`
	ResolvedAt  time.Time      `json:"resolved_at,omitzero"`
	CreatedAt   time.Time      `json:"created_at"`
}

// SecurityEventListParams filters and pages security events.
type SecurityEventListParams struct {
	AgentID string
	Page    int // from 1
	Limit   int // default 50, at most 100
}

// SecurityEventPage is one page of unresolved security events, newest first.
type SecurityEventPage struct {
	Events          []SecurityEvent `json:"events"`
	UnresolvedCount int             `json:"unresolved_count"` // on all pages, for the agent asked for
	Page            int             `json:"page"`
	Limit           int             `json:"limit"`
}

// List returns one page of the unresolved events. It fails with [ErrInvalidRequest] for a page or limit out of bounds.
//
// GET /v1/security-events
func (s *SecurityEventsService) List(ctx context.Context, params SecurityEventListParams) (*SecurityEventPage, error) {
	return send[SecurityEventPage](ctx, s.client, get("/v1/security-events").
		param("agent_id", params.AgentID).number("page", params.Page).number("limit", params.Limit))
}

// All walks the unresolved events of all pages from params.Page on. It reads all pages before it yields the first event,
// so that events may be resolved on the way. An error ends it.
//
// GET /v1/security-events
func (s *SecurityEventsService) All(ctx context.Context, params SecurityEventListParams) iter.Seq2[SecurityEvent, error] {
	return readAhead(pages(params.Page, func(page int) ([]SecurityEvent, int, error) {
		params := params
		params.Page = page
		p, err := s.List(ctx, params)
		if err != nil {
			return nil, 0, err
		}
		return p.Events, p.Limit, nil
	}))
}

// Get returns an event, resolved or not. It fails with [ErrNotFound].
//
// GET /v1/security-events/{event_id}
func (s *SecurityEventsService) Get(ctx context.Context, eventID string) (*SecurityEvent, error) {
	return send[SecurityEvent](ctx, s.client, get("/v1/security-events/{event_id}", eventID))
}

// Resolve marks an event as dealt with. Resolving it again changes nothing. It fails with [ErrNotFound].
//
// POST /v1/security-events/{event_id}/resolve
func (s *SecurityEventsService) Resolve(ctx context.Context, eventID string) (*SecurityEvent, error) {
	cl := post("/v1/security-events/{event_id}/resolve", eventID)
	cl.keyed = true // a repetition changes nothing
	return send[SecurityEvent](ctx, s.client, cl)
}
