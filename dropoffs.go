package stack

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// DropoffsService hands one payload from one agent to another: checked against a schema, encrypted while it waits, and
// collected once. Reach it as [Client].Dropoffs.
type DropoffsService struct{ client *Client }

// MaxDropoffTTL is the longest a drop-off may wait; left out, it is 30 minutes. (contract: server-api 13)
const MaxDropoffTTL = 24 * time.Hour

// Sentinels for errors.Is of drop-offs; they match by the API's code.
var (
	ErrSchemaValidationFailed error = &kind{text: "the payload does not match the schema",
		codes: []string{"SCHEMA_VALIDATION_FAILED"}}
	ErrDropoffNotDeposited     error = &kind{text: "nothing was deposited yet", codes: []string{"DROPOFF_NOT_DEPOSITED"}}
	ErrDropoffAlreadyDeposited error = &kind{text: "a payload was deposited before",
		codes: []string{"DROPOFF_ALREADY_DEPOSITED"}}
	ErrDropoffAlreadyCollected error = &kind{text: "the payload was collected before",
		codes: []string{"DROPOFF_ALREADY_COLLECTED"}}
	ErrDropoffExpired error = &kind{text: "the drop-off has expired", codes: []string{"DROPOFF_EXPIRED"}}
)

// DropoffStatus is how far a drop-off has come. It never goes back.
type DropoffStatus string

// Drop-off statuses.
const (
	DropoffCreated   DropoffStatus = "created"
	DropoffDeposited DropoffStatus = "deposited"
	DropoffCollected DropoffStatus = "collected"
	DropoffExpired   DropoffStatus = "expired" // by its time or by [DropoffsService.Expire]; the payload is wiped
	DropoffFailed    DropoffStatus = "failed"  // the payload could not be decrypted; it is wiped
)

// DropoffOnExpire is what happens when a drop-off expires.
type DropoffOnExpire string

// OnExpireNotify tells the operator; it is the default and the only value known.
const OnExpireNotify DropoffOnExpire = "notify"

// Dropoff is a drop-off without its payload, which only [DropoffsService.Collect] gives.
type Dropoff struct {
	ID             string          `json:"id"`
	OperatorID     string          `json:"operator_id"`
	FromAgentID    string          `json:"from_agent_id"` // the producer
	ToAgentID      string          `json:"to_agent_id"`   // the consumer
	Status         DropoffStatus   `json:"status"`
	Schema         json.RawMessage `json:"schema"`
	OnExpire       DropoffOnExpire `json:"on_expire"`
	MissionID      string          `json:"mission_id,omitempty"` // to which the payload's bytes are counted
	DepositedBytes int             `json:"deposited_bytes"`
	CreatedAt      time.Time       `json:"created_at"`
	ExpiresAt      time.Time       `json:"expires_at"`
	DepositedAt    time.Time       `json:"deposited_at,omitzero"`
	CollectedAt    time.Time       `json:"collected_at,omitzero"`
	ExpiredAt      time.Time       `json:"expired_at,omitzero"`
}

// DropoffCreateParams describes a drop-off.
type DropoffCreateParams struct {
	FromAgentID string `json:"from_agent"` // the agent that may deposit
	ToAgentID   string `json:"to_agent"`   // the agent that may collect

	// Schema is the JSON Schema that the payload must match, an object: a map, a struct, a json.RawMessage or a
	// *jsonschema.Schema. Drafts 2020-12 (the default) and 07.
	Schema any `json:"schema"`

	TTL      time.Duration   `json:"ttl_seconds,omitzero"` // whole seconds, at most MaxDropoffTTL, default 30m
	OnExpire DropoffOnExpire `json:"on_expire,omitempty"`  // default: notify

	// PassportToken is the producer's passport. An agent that calls presents it; the operator's key needs none. With it the
	// payload's bytes are counted to the passport's Mission.
	PassportToken Secret `json:"-"`
}

// MarshalJSON writes the duration in seconds.
func (p DropoffCreateParams) MarshalJSON() ([]byte, error) {
	type plain DropoffCreateParams
	return marshalJSON(struct {
		plain
		TTL seconds `json:"ttl_seconds,omitzero"`
	}{plain(p), seconds(p.TTL)})
}

// UnmarshalJSON reads the duration in seconds.
func (p *DropoffCreateParams) UnmarshalJSON(data []byte) error {
	type plain DropoffCreateParams
	w := struct {
		*plain
		TTL seconds `json:"ttl_seconds"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.TTL = time.Duration(w.TTL)
	return nil
}

// LogValue gives slog the parameters without the passport and the schema.
func (p DropoffCreateParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("from_agent", p.FromAgentID), slog.String("to_agent", p.ToAgentID),
		slog.Duration("ttl", p.TTL))
}

// Create makes an empty drop-off. It fails with a [*ParamError] without agents or a schema and for a TTL out of bounds, with
// [ErrNotFound] for an unknown agent, with [ErrInvalidRequest] for a schema that is not valid, refers to another document or
// is too large, and, with a passport, with [ErrForbidden] when it is not the producer's, [ErrPassportRevoked] and
// [ErrPassportExpired].
//
// POST /v1/dropoffs
func (s *DropoffsService) Create(ctx context.Context, params DropoffCreateParams) (*Dropoff, error) {
	if err := required("from_agent", params.FromAgentID); err != nil {
		return nil, err
	}
	if err := required("to_agent", params.ToAgentID); err != nil {
		return nil, err
	}
	if params.Schema == nil {
		return nil, &ParamError{Param: "schema", Reason: "is missing; it must be a JSON Schema object"}
	}
	if err := between("ttl_seconds", params.TTL, time.Second, MaxDropoffTTL); err != nil {
		return nil, err
	}
	return send[Dropoff](ctx, s.client, post("/v1/dropoffs").with(params).passport(params.PassportToken))
}

// DropoffDepositParams fills a drop-off.
type DropoffDepositParams struct {
	AgentID string `json:"agent_id"` // the producer
	Payload any    `json:"payload"`  // sent as JSON; nil is null

	// PassportToken or PassportJTI shows the producer's passport; an agent that calls presents one of them.
	PassportToken Secret `json:"-"`
	PassportJTI   string `json:"passport_jti,omitempty"`
	// MissionID counts the payload's bytes to a Mission. Default: the passport's Mission, then the one the drop-off was
	// created in, if any.
	MissionID string `json:"mission_id,omitempty"`
}

// LogValue gives slog the parameters without the passport and the payload.
func (p DropoffDepositParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("agent_id", p.AgentID), slog.String("passport_jti", p.PassportJTI),
		slog.String("mission_id", p.MissionID), slog.String("payload", redacted))
}

// Deposit puts the payload into a drop-off, once. It fails with a [*ParamError] without an agent, with
// [ErrSchemaValidationFailed] when the payload does not match the schema (Details["path"] is a JSON Pointer to the place, and
// the drop-off stays empty), with [ErrForbidden] for another agent than the producer or another agent's passport, with
// [ErrMissionCapExceeded] when the Mission's max_dropoff_bytes would be crossed, with [ErrDropoffAlreadyDeposited] (also
// after collection), [ErrDropoffExpired], [ErrNotFound], and with code PAYLOAD_TOO_LARGE over 1 MiB.
//
// POST /v1/dropoffs/{dropoff_id}/deposit
func (s *DropoffsService) Deposit(ctx context.Context, dropoffID string, params DropoffDepositParams) (*Dropoff, error) {
	if err := required("agent_id", params.AgentID); err != nil {
		return nil, err
	}
	cl := post("/v1/dropoffs/{dropoff_id}/deposit", dropoffID).with(params).passport(params.PassportToken)
	return send[Dropoff](ctx, s.client, cl)
}

// DropoffCollectParams says who collects.
type DropoffCollectParams struct {
	AgentID string `json:"agent_id"` // the consumer

	// PassportToken is the consumer's passport. An agent that calls presents it; the operator's key needs none.
	PassportToken Secret `json:"-"`
}

// LogValue gives slog the agent.
func (p DropoffCollectParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("agent_id", p.AgentID), slog.Any("passport_token", p.PassportToken))
}

// CollectedDropoff is what a drop-off held.
type CollectedDropoff struct {
	ID      string          `json:"id"`
	Status  DropoffStatus   `json:"status"`  // collected
	Payload json.RawMessage `json:"payload"` // as it was deposited
}

// LogValue gives slog the drop-off without the payload.
func (d CollectedDropoff) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", d.ID), slog.String("status", string(d.Status)), slog.String("payload", redacted))
}

// Collect takes the payload out: it is decrypted, returned and wiped in one step, so that of several collectors one gets it.
// An answer that is lost on its way is lost; the call is not sent again. It fails with a [*ParamError] without an agent, with
// [ErrForbidden] for another agent than the consumer or another agent's passport, with [ErrDropoffNotDeposited],
// [ErrDropoffAlreadyCollected], [ErrDropoffExpired] and [ErrNotFound].
//
// POST /v1/dropoffs/{dropoff_id}/collect
func (s *DropoffsService) Collect(
	ctx context.Context, dropoffID string, params DropoffCollectParams,
) (*CollectedDropoff, error) {
	if err := required("agent_id", params.AgentID); err != nil {
		return nil, err
	}
	cl := post("/v1/dropoffs/{dropoff_id}/collect", dropoffID).with(params).passport(params.PassportToken)
	return send[CollectedDropoff](ctx, s.client, cl)
}

// Expire ends a drop-off before its time and wipes what it holds. Expiring twice changes nothing. It fails with
// [ErrDropoffAlreadyCollected] when there is nothing left to wipe, and with [ErrNotFound].
//
// POST /v1/dropoffs/{dropoff_id}/expire
func (s *DropoffsService) Expire(ctx context.Context, dropoffID string) (*Dropoff, error) {
	cl := post("/v1/dropoffs/{dropoff_id}/expire", dropoffID)
	cl.keyed = true // a repetition finds it expired
	return send[Dropoff](ctx, s.client, cl)
}

// Get returns a drop-off without its payload. It fails with [ErrNotFound].
//
// GET /v1/dropoffs/{dropoff_id}
func (s *DropoffsService) Get(ctx context.Context, dropoffID string) (*Dropoff, error) {
	return send[Dropoff](ctx, s.client, get("/v1/dropoffs/{dropoff_id}", dropoffID))
}

// List returns the operator's drop-offs without their payloads, oldest first.
//
// GET /v1/dropoffs
func (s *DropoffsService) List(ctx context.Context) ([]Dropoff, error) {
	return sendList[Dropoff](ctx, s.client, get("/v1/dropoffs"))
}
