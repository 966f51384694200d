package stack

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"time"
)

// MissionsService opens, reads and ends Mission records. To run an agent inside one, use [PassportsService.Mission],
// which does all of that by itself. Reach it as [Client].Missions.
type MissionsService struct{ client *Client }

// MaxMissionLifetime is the longest a Mission may live; left out, it is 15 minutes. (contract: decisions, Missions)
const MaxMissionLifetime = 24 * time.Hour

// RevokeReason is why a Mission is revoked. Either reason revokes its passports.
type RevokeReason string

// Reasons to revoke a Mission.
const (
	ReasonAdversarial   RevokeReason = "adversarial"
	ReasonOperatorClean RevokeReason = "operator_initiated_clean"
)

// CapBehavior is what happens to the call that would cross a cap.
type CapBehavior string

// Cap behaviours. The default is to block.
const (
	CapBlock CapBehavior = "block"
	CapWarn  CapBehavior = "warn"
)

// MissionOpenParams describes a Mission. Caps that are zero are no caps.
type MissionOpenParams struct {
	IntentSummary string        `json:"intent_summary"`
	AgentID       string        `json:"agent_id,omitempty"` // default: any agent of the operator
	ExpiresIn     time.Duration `json:"expires_in_seconds,omitzero"`

	IntentServices         []string       `json:"intent_services,omitempty"`
	ExpectedCounterparties []string       `json:"expected_counterparties,omitempty"`
	BaselineProfile        map[string]any `json:"baseline_profile,omitempty"`
	ExpectedOutputShape    map[string]any `json:"expected_output_shape,omitempty"`

	MaxActions           int                    `json:"max_actions,omitempty"`
	MaxActionsPerService map[string]int         `json:"max_actions_per_service,omitempty"`
	MaxDropoffBytes      int                    `json:"max_dropoff_bytes,omitempty"`
	MaxDuration          time.Duration          `json:"max_duration_seconds,omitzero"`
	MaxConcurrentIntents int                    `json:"max_concurrent_intents,omitempty"`
	CoverageCapCents     int                    `json:"coverage_cap_cents,omitempty"`
	CapBehavior          map[string]CapBehavior `json:"cap_behavior,omitempty"` // by the cap's name on the wire

	ParentPassportServices []string `json:"parent_passport_services,omitempty"`
	// AuthorityBindingIDs are the bindings that passports of the Mission carry unless they name some of them; others they cannot.
	AuthorityBindingIDs []string `json:"authority_binding_ids,omitempty"`

	// FleetPolicyID makes it a Mission of a fleet, whose member AgentID then must name: it reaches what the fleet's policy
	// gives, in the revision of this moment, and no grants are needed. The mock refuses the next four without it.
	FleetPolicyID string `json:"fleet_policy_id,omitempty"`
	// IdempotencyKey makes a repetition give the same Mission, for 24 hours. [MissionsService.Start] needs one.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	// RequestedAccess narrows the policy's access; nil is all of it, an empty list none.
	RequestedAccess []PassportScope `json:"requested_access,omitzero"`
	// RequestedOperations picks and narrows operations of the policy; nil is all of them, an empty list none.
	RequestedOperations []RequestedOperation `json:"requested_operations,omitzero"`
	// Limits lowers limits of the policy.
	Limits *FleetLimits `json:"limits,omitempty"`
}

// MarshalJSON writes durations in seconds.
func (p MissionOpenParams) MarshalJSON() ([]byte, error) {
	type plain MissionOpenParams
	return marshalJSON(struct {
		plain
		ExpiresIn   seconds `json:"expires_in_seconds,omitzero"`
		MaxDuration seconds `json:"max_duration_seconds,omitzero"`
	}{plain(p), seconds(p.ExpiresIn), seconds(p.MaxDuration)})
}

// UnmarshalJSON reads durations in seconds.
func (p *MissionOpenParams) UnmarshalJSON(data []byte) error {
	type plain MissionOpenParams
	w := struct {
		*plain
		ExpiresIn   seconds `json:"expires_in_seconds"`
		MaxDuration seconds `json:"max_duration_seconds"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.ExpiresIn, p.MaxDuration = time.Duration(w.ExpiresIn), time.Duration(w.MaxDuration)
	return nil
}

func (p MissionOpenParams) check() error {
	if err := required("intent_summary", p.IntentSummary); err != nil {
		return err
	}
	if err := between("max_duration_seconds", p.MaxDuration, time.Second, MaxMissionLifetime); err != nil {
		return err
	}
	return between("expires_in_seconds", p.ExpiresIn, time.Second, MaxMissionLifetime)
}

// OpenedMission is a Mission that was just opened.
type OpenedMission struct {
	MissionID string    `json:"mission_id"`
	ClaimID   string    `json:"claim_id"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Open opens a Mission without issuing a passport. It fails with a [*ParamError] or [ErrInvalidRequest], and with
// [ErrNotFound] for an agent, fleet policy or authority binding that there is not, and with [ErrAuthorityBindingInactive]
// for a binding that is not in force or is another agent's.
//
// A Mission of a fleet also fails with [ErrFleetRevoked], with [ErrFleetMembershipRequired], with [ErrScopeEscalation] for access
// and operations that the policy does not give, with [ErrFleetLimitExceeded] for limits and lifetimes beyond the policy's and
// when the fleet has all the live Missions that it may have, and with [ErrIdempotencyKeyReused].
//
// POST /v1/missions
func (s *MissionsService) Open(ctx context.Context, params MissionOpenParams) (*OpenedMission, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	cl := post("/v1/missions").with(params)
	cl.keyed = params.IdempotencyKey != ""
	return send[OpenedMission](ctx, s.client, cl)
}

// MissionPassportParams are the fields of a passport that is issued together with its Mission.
type MissionPassportParams struct {
	Intent              *Intent         `json:"intent,omitempty"`
	TTL                 time.Duration   `json:"ttl_seconds,omitzero"`
	CheckpointInterval  time.Duration   `json:"checkpoint_interval_seconds,omitzero"`
	Scopes              []PassportScope `json:"scopes,omitempty"`
	AuthorityBindingIDs []string        `json:"authority_binding_ids,omitzero"`
	IdentityClaimIDs    []string        `json:"identity_claim_ids,omitzero"`
	AccountabilityMode  Accountability  `json:"accountability_mode,omitempty"` // at least as strict as the agent's
}

// MarshalJSON writes durations in seconds.
func (p MissionPassportParams) MarshalJSON() ([]byte, error) {
	type plain MissionPassportParams
	return marshalJSON(struct {
		plain
		TTL                seconds `json:"ttl_seconds,omitzero"`
		CheckpointInterval seconds `json:"checkpoint_interval_seconds,omitzero"`
	}{plain(p), seconds(p.TTL), seconds(p.CheckpointInterval)})
}

// UnmarshalJSON reads durations in seconds.
func (p *MissionPassportParams) UnmarshalJSON(data []byte) error {
	type plain MissionPassportParams
	w := struct {
		*plain
		TTL                seconds `json:"ttl_seconds"`
		CheckpointInterval seconds `json:"checkpoint_interval_seconds"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.TTL, p.CheckpointInterval = time.Duration(w.TTL), time.Duration(w.CheckpointInterval)
	return nil
}

// MissionStartParams opens a Mission and issues its first passport in one call. With a FleetPolicyID in Mission it is a Mission
// of that fleet, and the wire has the Mission's fields beside agent_id and passport. (contract: endpoints 2.17)
type MissionStartParams struct {
	AgentID  string                 `json:"agent_id"` // in a fleet: a member
	Mission  MissionOpenParams      `json:"mission"`
	Passport *MissionPassportParams `json:"passport,omitempty"` // in a fleet, its intent defaults to the Mission's
}

// StartedMission is a Mission with its first passport.
type StartedMission struct {
	OpenedMission
	Passport Passport `json:"passport"`
}

// LogValue gives slog the Mission without the passport's token.
func (m StartedMission) LogValue() slog.Value {
	return slog.GroupValue(slog.String("mission_id", m.MissionID), slog.Time("expires_at", m.ExpiresAt), slog.Any("passport", m.Passport))
}

// Start opens a Mission for an agent and issues its passport. When the passport cannot be issued, the server revokes the
// Mission before it answers, so nothing stays behind. It fails as [MissionsService.Open] and [PassportsService.Issue] do.
//
// In a fleet the Mission needs an IdempotencyKey, and a repetition gives the same Mission and passport.
//
// POST /v1/missions/start
func (s *MissionsService) Start(ctx context.Context, params MissionStartParams) (*StartedMission, error) {
	if err := required("agent_id", params.AgentID); err != nil {
		return nil, err
	}
	if err := params.Mission.check(); err != nil {
		return nil, err
	}
	if p := params.Passport; p != nil {
		if err := checkPassport(p.Intent, p.TTL, p.CheckpointInterval); err != nil {
			return nil, err
		}
	}
	cl := post("/v1/missions/start").with(params).boundToMission()
	if params.Mission.FleetPolicyID != "" {
		if err := required("idempotency_key", params.Mission.IdempotencyKey); err != nil {
			return nil, err
		}
		cl.keyed = true
	}
	return send[StartedMission](ctx, s.client, cl)
}

// RenewedMission is a Mission with a fresh passport.
type RenewedMission struct {
	MissionID string    `json:"mission_id"`
	ExpiresAt time.Time `json:"expires_at"`
	Passport  Passport  `json:"passport"`
}

// LogValue gives slog the Mission without the passport's token.
func (m RenewedMission) LogValue() slog.Value {
	return slog.GroupValue(slog.String("mission_id", m.MissionID), slog.Time("expires_at", m.ExpiresAt), slog.Any("passport", m.Passport))
}

// Renew issues a fresh passport for a live Mission: same permission, same recorded usage, same deadline and limits. It
// fails with a [*MissionEndedError] once the Mission is over, and with [ErrForbidden] when it has had no passport yet.
//
// POST /v1/missions/{mission_id}/renew
func (s *MissionsService) Renew(ctx context.Context, missionID string) (*RenewedMission, error) {
	return send[RenewedMission](ctx, s.client, post("/v1/missions/{mission_id}/renew", missionID).with(struct{}{}).boundToMission())
}

// MissionCompleteParams ends a Mission well.
type MissionCompleteParams struct {
	Output map[string]any `json:"output,omitempty"`
}

// MissionEnd says how a Mission ended.
type MissionEnd struct {
	MissionID     string    `json:"mission_id"`
	ClaimID       string    `json:"claim_id"`
	TerminalState string    `json:"terminal_state"` // completed_successful, revoked or expired
	CompletedAt   time.Time `json:"completed_at"`
	Transitioned  bool      `json:"transitioned"` // false when it had ended before
	Reason        string    `json:"reason,omitempty"`
}

// Complete ends a Mission and revokes its passports. A repetition returns the earlier end. It fails with [ErrNotFound].
//
// POST /v1/missions/{mission_id}/complete
func (s *MissionsService) Complete(ctx context.Context, missionID string, params MissionCompleteParams) (*MissionEnd, error) {
	cl := post("/v1/missions/{mission_id}/complete", missionID).with(params)
	cl.keyed = true // idempotent by the contract
	return send[MissionEnd](ctx, s.client, cl)
}

// MissionRevokeParams ends a Mission badly.
type MissionRevokeParams struct {
	Reason RevokeReason `json:"reason"`
	Notes  string       `json:"notes,omitempty"` // at most 1000 characters
}

// Revoke ends a Mission and revokes its passports. A repetition returns the earlier end. It fails with [ErrNotFound].
//
// POST /v1/missions/{mission_id}/revoke
func (s *MissionsService) Revoke(ctx context.Context, missionID string, params MissionRevokeParams) (*MissionEnd, error) {
	if err := required("reason", string(params.Reason)); err != nil {
		return nil, err
	}
	cl := post("/v1/missions/{mission_id}/revoke", missionID).with(params)
	cl.keyed = true
	return send[MissionEnd](ctx, s.client, cl)
}

// MissionRecord is a Mission as the server keeps it.
type MissionRecord struct {
	MissionID      string       `json:"mission_id"`
	ClaimID        string       `json:"claim_id"`
	OperatorID     string       `json:"operator_id"`
	AgentID        string       `json:"agent_id,omitempty"`
	Status         MissionState `json:"status"` // live, completed, revoked or expired
	IntentSummary  string       `json:"intent_summary"`
	IntentServices []string     `json:"intent_services"`
	OpenedAt       time.Time    `json:"opened_at"`
	ExpiresAt      time.Time    `json:"expires_at"`
	EndedAt        time.Time    `json:"ended_at,omitzero"`
	EndReason      string       `json:"end_reason,omitempty"`
	EndNotes       string       `json:"end_notes,omitempty"`

	ExpectedCounterparties []string       `json:"expected_counterparties,omitempty"`
	BaselineProfile        map[string]any `json:"baseline_profile,omitempty"`
	ExpectedOutputShape    map[string]any `json:"expected_output_shape,omitempty"`
	ParentPassportServices []string       `json:"parent_passport_services,omitempty"`
	AuthorityBindingIDs    []string       `json:"authority_binding_ids,omitempty"`

	Output    map[string]any `json:"output,omitempty"`
	Caps      MissionCaps    `json:"caps"`
	Usage     MissionUsage   `json:"usage"`
	Passports []string       `json:"passports"` // the jtis, oldest first

	Fleet *FleetMission `json:"fleet,omitempty"` // of a Mission of a fleet
}

// MissionCaps are the limits a Mission was opened with; zero is no limit.
type MissionCaps struct {
	MaxActions           int                    `json:"max_actions,omitempty"`
	MaxActionsPerService map[string]int         `json:"max_actions_per_service,omitempty"`
	MaxDropoffBytes      int                    `json:"max_dropoff_bytes,omitempty"`
	MaxDurationSeconds   int                    `json:"max_duration_seconds,omitempty"`
	MaxConcurrentIntents int                    `json:"max_concurrent_intents,omitempty"`
	CoverageCapCents     int                    `json:"coverage_cap_cents,omitempty"`
	CapBehavior          map[string]CapBehavior `json:"cap_behavior,omitempty"`
}

// MissionUsage is what a Mission has used of its caps.
type MissionUsage struct {
	Actions           int            `json:"actions"`
	ActionsPerService map[string]int `json:"actions_per_service"`
	DropoffBytes      int            `json:"dropoff_bytes"`
}

// Get returns a Mission. It fails with [ErrNotFound].
//
// GET /v1/missions/{mission_id}
func (s *MissionsService) Get(ctx context.Context, missionID string) (*MissionRecord, error) {
	return send[MissionRecord](ctx, s.client, get("/v1/missions/{mission_id}", missionID))
}

// MissionListParams filters and pages Missions.
type MissionListParams struct {
	Status MissionState
	Page   int // from 1
	Limit  int // default 20, at most 100
}

// MissionPage is one page of Missions, newest first.
type MissionPage struct {
	Items []MissionRecord `json:"items"`
	Total int             `json:"total"`
	Page  int             `json:"page"`
	Limit int             `json:"limit"`
}

// List returns one page of Missions. It fails with [ErrInvalidRequest] for a status or page that does not exist.
//
// GET /v1/missions
func (s *MissionsService) List(ctx context.Context, params MissionListParams) (*MissionPage, error) {
	return send[MissionPage](ctx, s.client, get("/v1/missions").
		param("status", string(params.Status)).number("page", params.Page).number("limit", params.Limit))
}

// All walks the Missions of all pages from params.Page on. An error ends it.
//
// GET /v1/missions
func (s *MissionsService) All(ctx context.Context, params MissionListParams) iter.Seq2[MissionRecord, error] {
	all := pages(params.Page, func(page int) ([]MissionRecord, int, error) {
		params := params
		params.Page = page
		p, err := s.List(ctx, params)
		if err != nil {
			return nil, 0, err
		}
		return p.Items, p.Limit, nil
	})
	if params.Status == "" {
		return all
	}
	return readAhead(all) // the loop may end the Missions that it meets, and they leave the list
}

// MissionActivity is what happened in a Mission so far, in the order of time.
type MissionActivity struct {
	MissionID string         `json:"mission_id"`
	Status    MissionState   `json:"status"`
	Events    []MissionEvent `json:"events"`
	Usage     MissionUsage   `json:"usage"`
	Caps      MissionCaps    `json:"caps"`
}

// MissionEvent is one thing that happened in a Mission.
type MissionEvent struct {
	At          time.Time      `json:"at"`
	Type        string         `json:"type"` // mission.open, passport.issue, credential.proxy, checkpoint, checkout, …
	PassportJTI string         `json:"passport_jti,omitempty"`
	AgentID     string         `json:"agent_id,omitempty"`
	Data        map[string]any `json:"data,omitempty"`
}

// Activity returns what happened in a Mission so far. It fails with [ErrNotFound].
//
// GET /v1/missions/{mission_id}/replay
func (s *MissionsService) Activity(ctx context.Context, missionID string) (*MissionActivity, error) {
	return send[MissionActivity](ctx, s.client, get("/v1/missions/{mission_id}/replay", missionID))
}

// OperatorReview is a signed review of a Mission by its operator. Of the mock's, Claim has the type operator_review.
type OperatorReview struct {
	ClaimID    string         `json:"claim_id"`
	OperatorID string         `json:"operator_id"`
	IssuedAt   time.Time      `json:"issued_at_ms"` // epoch milliseconds on the wire
	Claim      map[string]any `json:"claim,omitempty"`
	Body       map[string]any `json:"body,omitempty"` // the older name of Claim

	EnvelopeCOSE string `json:"envelope_cose,omitempty"` // the claim as it was signed; in the [EvidenceManifest] of an air-gapped pack
}

// MarshalJSON writes the time in epoch milliseconds.
func (r OperatorReview) MarshalJSON() ([]byte, error) {
	type plain OperatorReview
	return marshalJSON(struct {
		plain
		IssuedAt epochMillis `json:"issued_at_ms"`
	}{plain(r), epochMillis(r.IssuedAt)})
}

// UnmarshalJSON reads the time in epoch milliseconds.
func (r *OperatorReview) UnmarshalJSON(data []byte) error {
	type plain OperatorReview
	w := struct {
		*plain
		IssuedAt epochMillis `json:"issued_at_ms"`
	}{plain: (*plain)(r)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	r.IssuedAt = time.Time(w.IssuedAt)
	return nil
}

type operatorReviewList struct {
	Items []OperatorReview `json:"items"`
}

// ListOperatorReviews returns the signed reviews of a Mission, newest first: a live one has none; the first is issued when
// the Mission ends, and a further revision with every checkout and every decided review after that. It fails with
// [ErrNotFound].
//
// GET /v1/missions/{mission_id}/operator-reviews
func (s *MissionsService) ListOperatorReviews(ctx context.Context, missionID string) ([]OperatorReview, error) {
	list, err := send[operatorReviewList](ctx, s.client, get("/v1/missions/{mission_id}/operator-reviews", missionID))
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// ListDossiers returns those operator reviews of a Mission that are of the older kind, dossiers, with their content in
// Body. It fails with [ErrNotFound].
//
// GET /v1/missions/{mission_id}/operator-reviews
func (s *MissionsService) ListDossiers(ctx context.Context, missionID string) ([]OperatorReview, error) {
	reviews, err := s.ListOperatorReviews(ctx, missionID)
	if err != nil {
		return nil, err
	}
	dossiers := []OperatorReview{}
	for _, r := range reviews {
		if r.Claim != nil {
			r.Body = r.Claim
		}
		if kind, _ := r.Body["type"].(string); kind == "dossier" {
			r.Claim = nil
			dossiers = append(dossiers, r)
		}
	}
	return dossiers, nil
}

// DownloadOperatorReview writes the exact COSE bytes of a signed review, which [VerifyClaimCOSE] takes, to w and returns
// their number. It fails with [ErrNotFound], and as w does.
//
// GET /v1/missions/{mission_id}/operator-reviews/{claim_id}/download
func (s *MissionsService) DownloadOperatorReview(ctx context.Context, missionID, claimID string, w io.Writer) (int64, error) {
	return s.client.download(ctx, get("/v1/missions/{mission_id}/operator-reviews/{claim_id}/download", missionID, claimID),
		"review", w)
}
