package stack

import (
	"context"
	"fmt"
	"time"
)

// IdentityService has people verified, so that passports can show that somebody stands behind an agent, and lets services
// demand that. Reach it as [Client].Identity.
type IdentityService struct{ client *Client }

// ErrIdentityRequirementsNotMet means that a service demands identity claims that the passport does not carry. The error's
// Details list them under "unmet".
var ErrIdentityRequirementsNotMet error = &kind{text: "identity requirements not met",
	codes: []string{"IDENTITY_REQUIREMENTS_NOT_MET"}}

// ErrVerificationPending means that the person has not yet done their part of a verification.
var ErrVerificationPending error = &kind{text: "the verification waits for the person",
	codes: []string{"VERIFICATION_PENDING"}}

// IdentityLayer is how much an identity claim says.
type IdentityLayer string

// Identity layers. (contract: server-api 16)
const (
	LayerHumanity   IdentityLayer = "humanity"   // a person is behind the agent; who it is stays unknown
	LayerIdentity   IdentityLayer = "identity"   // who the person is, of which a claim holds a reference only
	LayerDelegation IdentityLayer = "delegation" // the person lets the agent act for them in named ways
)

// Claim types, one a layer. The names of the first two are the hosted service's.
const (
	ClaimVerifiedHuman    = "verified_human"
	ClaimVerifiedIdentity = "verified_identity"
	ClaimDelegation       = "delegation"
)

// Assurance is how sure a provider is of what it attests.
type Assurance string

// Assurance levels, from least to most.
const (
	AssuranceLow         Assurance = "low"
	AssuranceSubstantial Assurance = "substantial"
	AssuranceHigh        Assurance = "high"
)

// IdentityProvider verifies people.
type IdentityProvider struct {
	Key         string          `json:"key"`
	Name        string          `json:"name"`
	Layers      []IdentityLayer `json:"layers"`
	Assurance   Assurance       `json:"assurance"` // the highest it gives
	Description string          `json:"description"`
	ClaimTypes  []string        `json:"claim_types"`
}

// ListProviders returns the providers that can verify a person.
//
// GET /v1/identity/providers
func (s *IdentityService) ListProviders(ctx context.Context) ([]IdentityProvider, error) {
	return sendList[IdentityProvider](ctx, s.client, get("/v1/identity/providers"))
}

// VerificationStatus is how far a verification has come.
type VerificationStatus string

// Verification statuses.
const (
	VerificationPending  VerificationStatus = "pending"  // waits for the person
	VerificationVerified VerificationStatus = "verified" // its claims are made
)

// VerificationParams starts a verification.
type VerificationParams struct {
	ProviderKey string `json:"provider_key"`
	// RequestedClaims are claim types of the provider; the mock's default is ClaimVerifiedHuman alone.
	RequestedClaims []string `json:"requested_claims,omitempty"`
	ReturnURL       string   `json:"return_url,omitempty"` // http(s) URL to which the person goes back afterwards
}

// VerificationSession is a person's verification that is under way.
type VerificationSession struct {
	SessionRef       string             `json:"session_ref"`
	AuthorizationURL string             `json:"authorization_url,omitempty"` // where the person is sent
	Status           VerificationStatus `json:"status"`
	ExpiresAt        time.Time          `json:"expires_at,omitzero"` // until when the person and the caller can finish it
}

// InitiateVerification starts the verification of a person by a provider: send the person to the AuthorizationURL, then call
// [IdentityService.CompleteVerification]. It fails with a [*ParamError] without a provider, with [ErrNotFound] for an unknown
// one, and with [ErrInvalidRequest] for a claim that the provider does not give and a return URL that is none.
//
// The mock's AuthorizationURL is a page of its own, whose button stands in for the person.
//
// POST /v1/identity/verify/initiate
func (s *IdentityService) InitiateVerification(
	ctx context.Context, params VerificationParams,
) (*VerificationSession, error) {
	if err := required("provider_key", params.ProviderKey); err != nil {
		return nil, err
	}
	return send[VerificationSession](ctx, s.client, post("/v1/identity/verify/initiate").with(params))
}

// IdentityVerification is a verification that is done.
type IdentityVerification struct {
	SessionRef  string             `json:"session_ref"`
	ProviderKey string             `json:"provider_key"`
	Status      VerificationStatus `json:"status"` // verified
	Claims      []IdentityClaim    `json:"claims"` // one for each that was requested
}

type completeVerificationParams struct {
	ProviderKey string `json:"provider_key"`
	SessionRef  string `json:"session_ref"`
}

// CompleteVerification makes the claims of a verification once the person has done their part. A repetition returns the same
// claims. It fails with [ErrVerificationPending] before that, with code VERIFICATION_EXPIRED when it took too long (15 minutes
// in the mock), with [ErrNotFound] for an unknown session, and with [ErrInvalidRequest] when it is another provider's.
//
// POST /v1/identity/verify/complete
func (s *IdentityService) CompleteVerification(
	ctx context.Context, providerKey, sessionRef string,
) (*IdentityVerification, error) {
	if err := required("provider_key", providerKey); err != nil {
		return nil, err
	}
	if err := required("session_ref", sessionRef); err != nil {
		return nil, err
	}
	cl := post("/v1/identity/verify/complete").with(completeVerificationParams{providerKey, sessionRef})
	cl.keyed = true // a repetition returns the same claims
	return send[IdentityVerification](ctx, s.client, cl)
}

// IdentityClaim is what is known of a person. It holds nothing personal: ClaimRef refers to what the server keeps encrypted.
type IdentityClaim struct {
	ID              string        `json:"id"`
	OperatorID      string        `json:"operator_id"`
	ProviderKey     string        `json:"provider_key"`
	Layer           IdentityLayer `json:"layer"`
	ClaimType       string        `json:"claim_type"`
	ClaimRef        string        `json:"claim_ref"`
	AssuranceLevel  Assurance     `json:"assurance_level"`
	VerifiedAt      time.Time     `json:"verified_at"`
	ExpiresAt       time.Time     `json:"expires_at,omitzero"`
	DelegatedScopes []string      `json:"delegated_scopes,omitempty"` // of a delegation
}

// ListClaims returns the claims that are neither revoked nor expired, oldest first.
//
// GET /v1/identity/claims
func (s *IdentityService) ListClaims(ctx context.Context) ([]IdentityClaim, error) {
	return sendList[IdentityClaim](ctx, s.client, get("/v1/identity/claims"))
}

// ClaimRevocation says what the revocation of a claim did; its Type is bulk_claim.
type ClaimRevocation struct {
	Revocation
	ClaimID string `json:"claim_id"`
	// RevokedClaims are the claims that fell: this one, and the delegations that rested on it.
	RevokedClaims []string `json:"revoked_claims"`
}

// RevokeClaim withdraws a claim for good. It satisfies no requirement from then on, and where the operator's settings say
// identity_auto_revoke, every passport that carries it is revoked. A delegation falls with the identity claim that it rests
// on. Revoking twice changes nothing. It fails with [ErrNotFound].
//
// DELETE /v1/identity/claims/{claim_id}
func (s *IdentityService) RevokeClaim(ctx context.Context, claimID string) (*ClaimRevocation, error) {
	cl := del("/v1/identity/claims/{claim_id}", claimID)
	cl.keyed = true // a repetition finds it revoked
	return send[ClaimRevocation](ctx, s.client, cl)
}

type delegateParams struct {
	DelegatedScopes []string `json:"delegated_scopes"`
}

// GrantDelegation makes a claim of layer delegation: the identified person lets agents act for them in the named ways, such
// as tax:file. It takes assurance and expiry of the newest identity claim, on which it rests. It fails with a [*ParamError]
// without scopes, with [ErrInvalidRequest], and with [ErrIdentityRequirementsNotMet] when nobody is identified.
//
// POST /v1/identity/delegate
func (s *IdentityService) GrantDelegation(ctx context.Context, delegatedScopes []string) (*IdentityClaim, error) {
	if len(delegatedScopes) == 0 {
		return nil, &ParamError{Param: "delegated_scopes", Reason: "is empty; it must name at least one scope"}
	}
	return send[IdentityClaim](ctx, s.client, post("/v1/identity/delegate").with(delegateParams{delegatedScopes}))
}

// ClaimTTL is how long a new claim holds.
type ClaimTTL string

// Claim TTLs.
const (
	ClaimTTL30Days  ClaimTTL = "30d"
	ClaimTTL90Days  ClaimTTL = "90d"
	ClaimTTL180Days ClaimTTL = "180d"
	ClaimTTL1Year   ClaimTTL = "1y"
)

// ClaimInheritance says whether a passport carries claims that it was not asked to carry.
type ClaimInheritance string

// Claim inheritances.
const (
	InheritAuto  ClaimInheritance = "auto"   // all that are active
	InheritOptIn ClaimInheritance = "opt_in" // only those that identity_claim_ids names
)

// IdentitySettings are the operator's rules for identity claims. In the mock they begin as 1y, auto and true.
type IdentitySettings struct {
	ClaimTTL         ClaimTTL         `json:"identity_claim_ttl"` // of claims made from now on
	ClaimInheritance ClaimInheritance `json:"identity_claim_inheritance"`
	AutoRevoke       bool             `json:"identity_auto_revoke"` // revoke the passports that carry a revoked claim
}

// GetSettings returns the operator's identity settings.
//
// GET /v1/operators/me/identity-settings
func (s *IdentityService) GetSettings(ctx context.Context) (*IdentitySettings, error) {
	return send[IdentitySettings](ctx, s.client, get("/v1/operators/me/identity-settings"))
}

// IdentitySettingsParams changes identity settings; what is empty or nil stays as it is.
type IdentitySettingsParams struct {
	ClaimTTL         ClaimTTL         `json:"identity_claim_ttl,omitempty"`
	ClaimInheritance ClaimInheritance `json:"identity_claim_inheritance,omitempty"`
	AutoRevoke       *bool            `json:"identity_auto_revoke,omitempty"`
}

// UpdateSettings changes the operator's identity settings and returns them as they are then. Claims and passports that exist
// stay as they are. It fails with [ErrInvalidRequest] for a value that does not exist.
//
// PATCH /v1/operators/me/identity-settings
func (s *IdentityService) UpdateSettings(ctx context.Context, params IdentitySettingsParams) (*IdentitySettings, error) {
	cl := patch("/v1/operators/me/identity-settings").with(params)
	cl.keyed = true // it sets values
	return send[IdentitySettings](ctx, s.client, cl)
}

// ServiceRequirementParams is what a service demands of the passports that use it.
type ServiceRequirementParams struct {
	Layer            IdentityLayer `json:"layer"`
	RequiresClaim    string        `json:"requires_claim"` // the layer's claim type
	MinimumAssurance Assurance     `json:"minimum_assurance"`

	AcceptedProviders []string `json:"accepted_providers,omitempty"` // default: all
	RequiredScopes    []string `json:"required_scopes,omitempty"`    // layer delegation: all of them must be delegated

	// RequiresPII and LawfulBasis belong to the layer identity, which must have both: a service that learns who somebody is
	// says why it may.
	RequiresPII bool   `json:"requires_pii,omitempty"`
	LawfulBasis string `json:"lawful_basis,omitempty"` // at most 256 characters
}

func (p ServiceRequirementParams) check() error {
	if err := required("layer", string(p.Layer)); err != nil {
		return err
	}
	if err := required("requires_claim", p.RequiresClaim); err != nil {
		return err
	}
	if err := required("minimum_assurance", string(p.MinimumAssurance)); err != nil {
		return err
	}
	if p.Layer == LayerIdentity && (!p.RequiresPII || p.LawfulBasis == "") {
		return &ParamError{Param: "lawful_basis", Reason: fmt.Sprintf(
			"is %q with requires_pii %t; layer identity needs requires_pii true and a lawful basis", p.LawfulBasis, p.RequiresPII)}
	}
	return nil
}

// ServiceRequirement is a requirement as the server keeps it.
type ServiceRequirement struct {
	ID         string `json:"id"`
	OperatorID string `json:"operator_id"`
	ServiceID  string `json:"service_id"`

	Layer             IdentityLayer `json:"layer"`
	RequiresClaim     string        `json:"requires_claim"`
	MinimumAssurance  Assurance     `json:"minimum_assurance"`
	AcceptedProviders []string      `json:"accepted_providers"` // nil is all
	RequiredScopes    []string      `json:"required_scopes"`
	RequiresPII       bool          `json:"requires_pii"`
	LawfulBasis       *string       `json:"lawful_basis"`
}

// GetServiceRequirements returns what a service demands, oldest first. serviceID is a catalogue service's id or provider key,
// or the name of a connected custom service. It fails with [ErrNotFound] for a service that is neither.
//
// GET /v1/services/{service_id}/requirements
func (s *IdentityService) GetServiceRequirements(ctx context.Context, serviceID string) ([]ServiceRequirement, error) {
	return sendList[ServiceRequirement](ctx, s.client, get("/v1/services/{service_id}/requirements", serviceID))
}

// SetServiceRequirement adds a demand to a service: from then on a proxied call to it fails with
// [ErrIdentityRequirementsNotMet] unless its passport carries an active claim that satisfies every one. It fails with a
// [*ParamError] for a field that is missing, and for layer identity without requires_pii and a lawful basis; with
// [ErrInvalidRequest] for a value that does not exist; and with [ErrNotFound] for an unknown service.
//
// POST /v1/services/{service_id}/requirements
func (s *IdentityService) SetServiceRequirement(
	ctx context.Context, serviceID string, params ServiceRequirementParams,
) (*ServiceRequirement, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return send[ServiceRequirement](ctx, s.client, post("/v1/services/{service_id}/requirements", serviceID).with(params))
}

// ServiceRequirements are the demands of a service.
type ServiceRequirements struct {
	Requirements []ServiceRequirement `json:"requirements"`
}

type replaceRequirementParams struct {
	Requirement *ServiceRequirementParams `json:"requirement"`
}

// ReplaceServiceRequirement puts one demand in the place of all that a service has; nil takes them all away. It fails as
// [IdentityService.SetServiceRequirement] does.
//
// PUT /v1/services/{service_id}/requirements
func (s *IdentityService) ReplaceServiceRequirement(
	ctx context.Context, serviceID string, requirement *ServiceRequirementParams,
) (*ServiceRequirements, error) {
	if requirement != nil {
		if err := requirement.check(); err != nil {
			return nil, err
		}
	}
	cl := put("/v1/services/{service_id}/requirements", serviceID).with(replaceRequirementParams{requirement})
	return send[ServiceRequirements](ctx, s.client, cl)
}

// DeleteServiceRequirement takes one demand of a service away. It fails with [ErrNotFound].
//
// DELETE /v1/services/{service_id}/requirements/{requirement_id}
func (s *IdentityService) DeleteServiceRequirement(ctx context.Context, serviceID, requirementID string) error {
	cl := del("/v1/services/{service_id}/requirements/{requirement_id}", serviceID, requirementID)
	_, err := s.client.transport.do(ctx, cl)
	return err
}
