package stack

import (
	"context"
	"encoding/json"
	"time"
)

// ProfileKind says what a profile rules.
type ProfileKind string

// Profile kinds. At most one version of each is active.
const (
	ProfileReceiver ProfileKind = "receiver" // what bindings may say; without an active one none can be made
	ProfileApproval ProfileKind = "approval" // how many people must approve a binding; without one: 1
	ProfileProof    ProfileKind = "proof"    // which proofs a binding may rest on; without one: any
)

// ProfileStatus is the state of a profile version.
type ProfileStatus string

// Profile statuses.
const (
	ProfileDraft      ProfileStatus = "draft"
	ProfileActive     ProfileStatus = "active"
	ProfileSuperseded ProfileStatus = "superseded" // another version is active; this one may be activated again
)

// ProfileRules are what a profile says; each belongs to one kind, and is refused for another.
type ProfileRules struct {
	Services           []string      `json:"services,omitempty"`             // receiver: what bindings may cover; default: anything
	MaxLifetime        time.Duration `json:"max_lifetime_seconds,omitzero"`  // receiver: of a binding; default: a year
	RequiredApprovals  int           `json:"required_approvals,omitempty"`   // approval: 1 to 10; default: 1
	AcceptedProofKinds []ProofKind   `json:"accepted_proof_kinds,omitempty"` // proof; default: all
}

// MarshalJSON writes the duration in seconds.
func (r ProfileRules) MarshalJSON() ([]byte, error) {
	type plain ProfileRules
	return marshalJSON(struct {
		plain
		MaxLifetime seconds `json:"max_lifetime_seconds,omitzero"`
	}{plain(r), seconds(r.MaxLifetime)})
}

// UnmarshalJSON reads the duration in seconds.
func (r *ProfileRules) UnmarshalJSON(data []byte) error {
	type plain ProfileRules
	w := struct {
		*plain
		MaxLifetime seconds `json:"max_lifetime_seconds"`
	}{plain: (*plain)(r)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	r.MaxLifetime = time.Duration(w.MaxLifetime)
	return nil
}

// ProfileVersionParams describes the next version of a kind of profile.
type ProfileVersionParams struct {
	ProfileKind    ProfileKind  `json:"profile_kind"`
	Name           string       `json:"name,omitempty"` // at most 200 characters
	Rules          ProfileRules `json:"rules,omitzero"`
	IdempotencyKey string       `json:"-"` // mandatory
}

// ProfileVersion is one version of a kind of profile.
type ProfileVersion struct {
	ID          string        `json:"id"`
	OperatorID  string        `json:"operator_id"`
	ProfileKind ProfileKind   `json:"profile_kind"`
	Version     int           `json:"version"` // from 1, counted by kind
	Name        string        `json:"name,omitempty"`
	Status      ProfileStatus `json:"status"`
	Rules       ProfileRules  `json:"rules"`
	CreatedAt   time.Time     `json:"created_at"`
	ActivatedAt time.Time     `json:"activated_at,omitzero"` // for the last time
}

// CreateProfileVersion drafts the next version of a kind of profile; nothing changes until it is activated. It fails with a
// [*ParamError] without a kind, and with [ErrInvalidRequest].
//
// POST /v1/authority/profile-versions
func (s *AuthorityService) CreateProfileVersion(ctx context.Context, params ProfileVersionParams) (*ProfileVersion, error) {
	if err := required("profile_kind", string(params.ProfileKind)); err != nil {
		return nil, err
	}
	return authorityWrite[ProfileVersion](ctx, s.client, post("/v1/authority/profile-versions").with(params),
		params.IdempotencyKey, "profile")
}

// ProfileActivateParams names the kind of the profile again, so that nobody replaces another kind by mistake.
type ProfileActivateParams struct {
	ProfileKind    ProfileKind `json:"profile_kind"`
	IdempotencyKey string      `json:"-"` // mandatory
}

// ActivateProfileVersion makes a version the active one of its kind; the one before is superseded. Bindings that exist keep to
// the version with which they were made. It fails with a [*ParamError] without a kind, with [ErrInvalidRequest] for another
// kind than the profile's, with [ErrAuthorityState] for a version that is active already, and with [ErrNotFound].
//
// POST /v1/authority/profile-versions/{profile_id}/activate
func (s *AuthorityService) ActivateProfileVersion(
	ctx context.Context, profileID string, params ProfileActivateParams,
) (*ProfileVersion, error) {
	if err := required("profile_kind", string(params.ProfileKind)); err != nil {
		return nil, err
	}
	return authorityWrite[ProfileVersion](ctx, s.client,
		post("/v1/authority/profile-versions/{profile_id}/activate", profileID).with(params), params.IdempotencyKey, "profile")
}
