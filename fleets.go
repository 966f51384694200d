package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"time"
)

// FleetsService runs fleets: a versioned policy says what its members may do, agents and workloads join by proving that they
// hold a key, and each of their Missions gets no more than the policy gives. Reach it as [Client].Fleets.
//
// The shapes of policies, members and sessions are this SDK's and its mock's own: of the hosted service's, only the routes
// and a few names are known.
type FleetsService struct{ client *Client }

// Sentinels of fleets for errors.Is.
var (
	// ErrFleetRevoked means that the fleet is over: nothing can be changed in it, and nobody can join it or act in it.
	ErrFleetRevoked error = &kind{text: "fleet revoked", codes: []string{"FLEET_REVOKED"}}

	// ErrFleetMembershipRequired means that the agent is no active member of the fleet.
	ErrFleetMembershipRequired error = &kind{text: "not a member of the fleet", codes: []string{"FLEET_MEMBERSHIP_REQUIRED"}}

	// ErrFleetOperationNotAllowed means that none of the operations that the fleet allows fits the call. The error's Details
	// say of each why, under "operations".
	ErrFleetOperationNotAllowed error = &kind{text: "operation not allowed by the fleet",
		codes: []string{"FLEET_OPERATION_NOT_ALLOWED"}}

	// ErrFleetLimitExceeded means that a Mission asks for more than its fleet gives, or that the fleet has no room left.
	ErrFleetLimitExceeded error = &kind{text: "fleet limit exceeded", codes: []string{"FLEET_LIMIT_EXCEEDED"}}

	// ErrRevisionConflict means that somebody else has revised the policy since. The error's Details name the revision under
	// "allowed".
	ErrRevisionConflict error = &kind{text: "revision conflict", codes: []string{"REVISION_CONFLICT"}}

	// ErrIdempotencyKeyReused means that an idempotency key was sent before with another request.
	ErrIdempotencyKeyReused error = &kind{text: "idempotency key reused for another request",
		codes: []string{"IDEMPOTENCY_KEY_REUSED"}}
)

// FleetStatus is whether a fleet, or a member of it, may act.
type FleetStatus string

// Fleet statuses.
const (
	FleetActive  FleetStatus = "active"
	FleetRevoked FleetStatus = "revoked" // for good
)

// FleetMemberKind is how a member joined.
type FleetMemberKind string

// Kinds of fleet members.
const (
	FleetAgent    FleetMemberKind = "agent"    // an agent with a key of its own
	FleetWorkload FleetMemberKind = "workload" // a process that is started without a person, such as a job of a CI
)

// FleetDefinition is the content of a policy.
type FleetDefinition struct {
	Name        string       `json:"name"`                  // at most 128 characters
	Description string       `json:"description,omitempty"` // at most 500 characters
	Members     FleetMembers `json:"members,omitzero"`

	// Access is what a Mission of the fleet reaches; its members need no grants of their own. Scopes are some of the
	// connection's, and AllowDataFrom has no wildcard.
	Access []PassportScope `json:"access"`
	// Operations are the calls that may be made within Access; nil is all calls. A call must fit one of them, a proxied one and
	// one to a model alike.
	Operations []FleetOperation `json:"operations,omitzero"`
	// Limits bound each Mission.
	Limits FleetLimits `json:"limits,omitzero"`

	MaxLiveMissions int           `json:"max_live_missions,omitempty"`       // of all members together; default: no limit
	MaxMissionTTL   time.Duration `json:"max_mission_ttl_seconds,omitzero"`  // default 24h
	MaxPassportTTL  time.Duration `json:"max_passport_ttl_seconds,omitzero"` // default 1h
}

// MarshalJSON writes durations in seconds.
func (d FleetDefinition) MarshalJSON() ([]byte, error) {
	type plain FleetDefinition
	if d.Access == nil {
		d.Access = []PassportScope{}
	}
	return marshalJSON(struct {
		plain
		MaxMissionTTL  seconds `json:"max_mission_ttl_seconds,omitzero"`
		MaxPassportTTL seconds `json:"max_passport_ttl_seconds,omitzero"`
	}{plain(d), seconds(d.MaxMissionTTL), seconds(d.MaxPassportTTL)})
}

// UnmarshalJSON reads durations in seconds.
func (d *FleetDefinition) UnmarshalJSON(data []byte) error {
	type plain FleetDefinition
	w := struct {
		*plain
		MaxMissionTTL  seconds `json:"max_mission_ttl_seconds"`
		MaxPassportTTL seconds `json:"max_passport_ttl_seconds"`
	}{plain: (*plain)(d)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	d.MaxMissionTTL, d.MaxPassportTTL = time.Duration(w.MaxMissionTTL), time.Duration(w.MaxPassportTTL)
	return nil
}

func (d FleetDefinition) check() error {
	if err := required("name", d.Name); err != nil {
		return err
	}
	if err := between("max_mission_ttl_seconds", d.MaxMissionTTL, time.Second, MaxMissionLifetime); err != nil {
		return err
	}
	return between("max_passport_ttl_seconds", d.MaxPassportTTL, MinPassportTTL, MaxPassportTTL)
}

// FleetMembers says who may join.
type FleetMembers struct {
	Max   int               `json:"max,omitempty"`   // how many at a time, at most 1000; default 100
	Kinds []FleetMemberKind `json:"kinds,omitempty"` // default: both
	// AccountabilityMode is of the agents that joining registers; default enforced.
	AccountabilityMode Accountability `json:"accountability_mode,omitempty"`
}

// FleetOperation is a kind of call. A call fits when all of it holds.
type FleetOperation struct {
	Name    string   `json:"name"`              // lower-case letters, digits and inner hyphens and underscores, at most 64
	Service string   `json:"service"`           // one of the policy's access
	Methods []string `json:"methods,omitempty"` // default: all
	Path    string   `json:"path,omitempty"`    // of the URL: the whole of it, or its beginning when it ends in *; default: any
	// Constraints must hold as well, such as of the body.
	Constraints []Constraint `json:"constraints,omitempty"`
	MaxCalls    int          `json:"max_calls,omitempty"` // in one Mission; default: no limit
}

// FleetLimits bound one Mission; zero is no limit. The call that would cross one fails with [ErrMissionCapExceeded].
type FleetLimits struct {
	MaxActions           int            `json:"max_actions,omitempty"`
	MaxActionsPerService map[string]int `json:"max_actions_per_service,omitempty"`
	MaxDropoffBytes      int            `json:"max_dropoff_bytes,omitempty"`
}

// FleetPolicy is a fleet as the server keeps it. Its definition has the defaults filled in.
type FleetPolicy struct {
	ID           string          `json:"id"`
	OperatorID   string          `json:"operator_id"`
	Status       FleetStatus     `json:"status"`
	Revision     int             `json:"revision"` // from 1
	Definition   FleetDefinition `json:"definition"`
	MemberCount  int             `json:"member_count"`  // active ones
	LiveMissions int             `json:"live_missions"` // of all members
	CreatedAt    time.Time       `json:"created_at"`
	UpdatedAt    time.Time       `json:"updated_at"`
	RevokedAt    time.Time       `json:"revoked_at,omitzero"`
}

// List returns all fleets, newest first, the revoked ones too.
//
// GET /v1/fleets
func (s *FleetsService) List(ctx context.Context) ([]FleetPolicy, error) {
	return sendList[FleetPolicy](ctx, s.client, get("/v1/fleets"))
}

// FleetPageParams picks a page.
type FleetPageParams struct {
	Page  int // from 1
	Limit int // default 20, at most 100
}

// on asks a call for the page. The server answers with a bare array unless both parameters are sent.
func (p FleetPageParams) on(cl *call) *call {
	if p.Page == 0 {
		p.Page = 1
	}
	if p.Limit == 0 {
		p.Limit = 20
	}
	return cl.number("page", p.Page).number("limit", p.Limit)
}

// FleetPage is one page of fleets, newest first.
type FleetPage struct {
	Items []FleetPolicy `json:"items"`
	Total int           `json:"total"`
	Page  int           `json:"page"`
	Limit int           `json:"limit"`
}

// ListPage returns one page of fleets. It fails with [ErrInvalidRequest] for a page that does not exist.
//
// GET /v1/fleets
func (s *FleetsService) ListPage(ctx context.Context, params FleetPageParams) (*FleetPage, error) {
	return send[FleetPage](ctx, s.client, params.on(get("/v1/fleets")))
}

// All walks the fleets of all pages from params.Page on. An error ends it.
//
// GET /v1/fleets
func (s *FleetsService) All(ctx context.Context, params FleetPageParams) iter.Seq2[FleetPolicy, error] {
	return pages(params.Page, func(page int) ([]FleetPolicy, int, error) {
		p, err := s.ListPage(ctx, FleetPageParams{Page: page, Limit: params.Limit})
		if err != nil {
			return nil, 0, err
		}
		return p.Items, p.Limit, nil
	})
}

// Get returns a fleet. It fails with [ErrNotFound].
//
// GET /v1/fleets/{policy_id}
func (s *FleetsService) Get(ctx context.Context, policyID string) (*FleetPolicy, error) {
	return send[FleetPolicy](ctx, s.client, get("/v1/fleets/{policy_id}", policyID))
}

// FleetActivateParams goes with the definition of a new fleet.
type FleetActivateParams struct {
	IdempotencyKey       string // makes a repetition give the first answer, for 24 hours; at most 255 printable ASCII characters
	GovernanceApprovalID string // a human's approval, from the Details of the refused call
}

// Activate makes a policy and starts its fleet. That gives access, so a call with an API key fails with
// [ErrGovernanceApprovalRequired] until a human has approved this very definition; the call is then repeated with the approval
// and the same idempotency key. It fails with a [*ParamError], with [ErrInvalidRequest], with [ErrNotFound] for a connection
// that there is not, with [ErrScopeEscalation] for a scope that a connection does not have, and with
// [ErrIdempotencyKeyReused].
//
// POST /v1/fleets
func (s *FleetsService) Activate(
	ctx context.Context, definition FleetDefinition, params FleetActivateParams,
) (*FleetPolicy, error) {
	if err := firstError(definition.check(), required("Idempotency-Key", params.IdempotencyKey)); err != nil {
		return nil, err
	}
	return send[FleetPolicy](ctx, s.client, post("/v1/fleets").with(definition).
		once(params.IdempotencyKey).head("X-Governance-Approval", params.GovernanceApprovalID))
}

// once makes a call repeatable by its Idempotency-Key.
func (c *call) once(key string) *call {
	c.keyed = true
	return c.head("Idempotency-Key", key)
}

// FleetReviseParams goes with the new definition of a fleet.
type FleetReviseParams struct {
	ExpectedRevision     int    // the one that was read; it must still be the newest
	IdempotencyKey       string // makes a repetition give the first answer, for 24 hours; at most 255 printable ASCII characters
	GovernanceApprovalID string // a human's approval, from the Details of the refused call
}

// Revise puts another definition in the place of a fleet's and counts its revision up. Missions that run keep the one that they
// began with. What only tightens needs no approval; what gives more anywhere fails with [ErrGovernanceApprovalRequired] until a
// human has approved it. It fails with [ErrRevisionConflict] when the fleet has another revision than expected, with
// [ErrNotFound], with [ErrFleetRevoked], and as [FleetsService.Activate] does.
//
// PUT /v1/fleets/{policy_id}
func (s *FleetsService) Revise(
	ctx context.Context, policyID string, definition FleetDefinition, params FleetReviseParams,
) (*FleetPolicy, error) {
	if err := firstError(definition.check(), required("Idempotency-Key", params.IdempotencyKey)); err != nil {
		return nil, err
	}
	if params.ExpectedRevision < 1 {
		return nil, &ParamError{Param: "If-Match", Reason: fmt.Sprintf("is %d; it must be the revision that was read, from 1",
			params.ExpectedRevision)}
	}
	return send[FleetPolicy](ctx, s.client, put("/v1/fleets/{policy_id}", policyID).with(definition).
		head("If-Match", strconv.Itoa(params.ExpectedRevision)).once(params.IdempotencyKey).
		head("X-Governance-Approval", params.GovernanceApprovalID))
}

// FleetRevocation says what a revocation did.
type FleetRevocation struct {
	FleetPolicyID    string      `json:"fleet_policy_id"`
	AgentID          string      `json:"agent_id,omitempty"` // of a member's revocation
	Status           FleetStatus `json:"status"`             // revoked
	RevokedAt        time.Time   `json:"revoked_at"`
	RevokedMembers   int         `json:"revoked_members"`
	RevokedMissions  int         `json:"revoked_missions"`
	RevokedPassports int         `json:"revoked_passports"`
}

// Revoke ends a fleet for good: its members, their Missions and all their passports are revoked. A repetition revokes nothing
// more. It fails with [ErrNotFound].
//
// POST /v1/fleets/{policy_id}/revoke
func (s *FleetsService) Revoke(ctx context.Context, policyID string) (*FleetRevocation, error) {
	cl := post("/v1/fleets/{policy_id}/revoke", policyID).with(struct{}{})
	cl.keyed = true
	return send[FleetRevocation](ctx, s.client, cl)
}

// FleetMember is an agent that has joined a fleet.
type FleetMember struct {
	AgentID       string          `json:"agent_id"`
	FleetPolicyID string          `json:"fleet_policy_id"`
	Name          string          `json:"name"`
	Kind          FleetMemberKind `json:"kind"`
	Status        FleetStatus     `json:"status"`
	PublicKey     PublicKeyJWK    `json:"public_key"`
	EnrolledAt    time.Time       `json:"enrolled_at"`
	RevokedAt     time.Time       `json:"revoked_at,omitzero"`
}

// Membership returns an agent's membership, or nil when it is in no fleet or no longer in one. It fails with [ErrNotFound] for
// an agent that there is not.
//
// GET /v1/fleets/membership/{agent_id}
func (s *FleetsService) Membership(ctx context.Context, agentID string) (*FleetMember, error) {
	member, err := send[*FleetMember](ctx, s.client, get("/v1/fleets/membership/{agent_id}", agentID))
	if err != nil {
		return nil, err
	}
	return *member, nil
}

// Members returns the members of a fleet in the order in which they joined, the revoked ones too. It fails with [ErrNotFound].
//
// GET /v1/fleets/{policy_id}/members
func (s *FleetsService) Members(ctx context.Context, policyID string) ([]FleetMember, error) {
	return sendList[FleetMember](ctx, s.client, get("/v1/fleets/{policy_id}/members", policyID))
}

// FleetMembersPage is one page of a fleet's members, in the order in which they joined.
type FleetMembersPage struct {
	Items []FleetMember `json:"items"`
	Total int           `json:"total"`
	Page  int           `json:"page"`
	Limit int           `json:"limit"`
}

// MembersPage returns one page of the members of a fleet. It fails with [ErrNotFound], and with [ErrInvalidRequest] for a page
// that does not exist.
//
// GET /v1/fleets/{policy_id}/members
func (s *FleetsService) MembersPage(ctx context.Context, policyID string, params FleetPageParams) (*FleetMembersPage, error) {
	return send[FleetMembersPage](ctx, s.client, params.on(get("/v1/fleets/{policy_id}/members", policyID)))
}

// AllMembers walks the members of all pages from params.Page on. An error ends it.
//
// GET /v1/fleets/{policy_id}/members
func (s *FleetsService) AllMembers(
	ctx context.Context, policyID string, params FleetPageParams,
) iter.Seq2[FleetMember, error] {
	return pages(params.Page, func(page int) ([]FleetMember, int, error) {
		p, err := s.MembersPage(ctx, policyID, FleetPageParams{Page: page, Limit: params.Limit})
		if err != nil {
			return nil, 0, err
		}
		return p.Items, p.Limit, nil
	})
}

// RevokeMember throws one agent out of a fleet: its membership, its Missions in the fleet and all its passports are revoked. A
// repetition revokes nothing more. It fails with [ErrNotFound] for a fleet that there is not, and for an agent that never was
// in it.
//
// POST /v1/fleets/{policy_id}/members/{agent_id}/revoke
func (s *FleetsService) RevokeMember(ctx context.Context, policyID, agentID string) (*FleetRevocation, error) {
	cl := post("/v1/fleets/{policy_id}/members/{agent_id}/revoke", policyID, agentID).with(struct{}{})
	cl.keyed = true
	return send[FleetRevocation](ctx, s.client, cl)
}

// FleetSession binds what a fleet runs together. While it lasts, the passports of the Missions that begin in the fleet carry
// its SessionID, so [PassportsService.RevokeSession] stops them all, and the fleet goes on.
type FleetSession struct {
	SessionID     string    `json:"session_id"`
	FleetPolicyID string    `json:"fleet_policy_id"`
	Revision      int       `json:"revision"` // of the policy now
	StartedAt     time.Time `json:"started_at"`
	ExpiresAt     time.Time `json:"expires_at"` // 24 hours after it began
}

type fleetSessionParams struct {
	FleetPolicyID string `json:"fleet_policy_id,omitempty"`
}

// Session returns the running session of a fleet, and starts one where there is none. Without a fleetPolicyID it is the
// operator's only active fleet. It fails with [ErrNotFound] for a fleet that there is not, with [ErrFleetRevoked], and with
// [ErrInvalidRequest] when none is named and there is not exactly one.
//
// POST /v1/fleets/session
func (s *FleetsService) Session(ctx context.Context, fleetPolicyID string) (*FleetSession, error) {
	cl := post("/v1/fleets/session").with(fleetSessionParams{fleetPolicyID})
	cl.keyed = true // a repetition finds it running
	return send[FleetSession](ctx, s.client, cl)
}
