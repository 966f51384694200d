package stack

import (
	"context"
	"time"
)

// EnterpriseOIDCParams asks a human to show at the operator's OIDC provider that a principal stands behind a request.
type EnterpriseOIDCParams struct {
	PrincipalID    string `json:"principal_id"`
	Purpose        string `json:"purpose"` // what the person reads and approves; at most 500 characters
	IdempotencyKey string `json:"-"`       // mandatory
}

// EnterpriseOIDCRequest is a request that waits for a human. It grants nothing by itself.
type EnterpriseOIDCRequest struct {
	ID          string        `json:"id"`
	OperatorID  string        `json:"operator_id"`
	PrincipalID string        `json:"principal_id"`
	Purpose     string        `json:"purpose"`
	ApprovalURL string        `json:"approval_url"` // where the person is sent
	Status      RequestStatus `json:"status"`
	ProofID     string        `json:"proof_id,omitempty"` // once approved: of kind enterprise_oidc
	CreatedAt   time.Time     `json:"created_at"`
	ExpiresAt   time.Time     `json:"expires_at"`
	DecidedAt   time.Time     `json:"decided_at,omitzero"`
}

// CreateEnterpriseOIDCRequest makes a pending request, for which a human must go to the ApprovalURL within 24 hours, review it
// and sign in at the operator's OIDC provider. It grants nothing by itself: when they approve it, the principal has a proof of
// kind enterprise_oidc. It fails with a [*ParamError] for a field that is missing, with [ErrInvalidRequest], [ErrNotFound] and,
// for an archived principal, [ErrAuthorityState].
//
// The mock's ApprovalURL is a page of its own, whose buttons stand in for the person and the provider.
//
// POST /v1/authority/enterprise-oidc/requests
func (s *AuthorityService) CreateEnterpriseOIDCRequest(
	ctx context.Context, params EnterpriseOIDCParams,
) (*EnterpriseOIDCRequest, error) {
	if err := required("principal_id", params.PrincipalID); err != nil {
		return nil, err
	}
	if err := required("purpose", params.Purpose); err != nil {
		return nil, err
	}
	return authorityWrite[EnterpriseOIDCRequest](ctx, s.client, post("/v1/authority/enterprise-oidc/requests").with(params),
		params.IdempotencyKey, "")
}

// GetEnterpriseOIDCRequest returns a request. It fails with [ErrNotFound].
//
// GET /v1/authority/enterprise-oidc/requests/{request_id}
func (s *AuthorityService) GetEnterpriseOIDCRequest(ctx context.Context, requestID string) (*EnterpriseOIDCRequest, error) {
	return send[EnterpriseOIDCRequest](ctx, s.client, get("/v1/authority/enterprise-oidc/requests/{request_id}", requestID))
}

// UseOutcome is what became of a call under a binding.
type UseOutcome string

// Use outcomes.
const (
	UseAllowed UseOutcome = "allowed"  // the call was sent
	UseRefused UseOutcome = "refused"  // the binding was not in force
	UseNotSent UseOutcome = "not_sent" // the binding was in force, and the service could not be reached
)

// AuthorityUse is one call under a binding, without anything of what was said in it.
type AuthorityUse struct {
	ID             string     `json:"id"`
	OperatorID     string     `json:"operator_id"`
	BindingID      string     `json:"binding_id"`
	BindingVersion int        `json:"binding_version"`
	AgentID        string     `json:"agent_id"`
	PassportJTI    string     `json:"passport_jti"`
	MissionID      string     `json:"mission_id"`
	ReceiverID     string     `json:"receiver_id"`
	Service        string     `json:"service"`
	Method         string     `json:"method"`
	Host           string     `json:"host"`
	Outcome        UseOutcome `json:"outcome"`
	// Reason says why the binding was not in force: its status, erased, exhausted or receiver_unverified.
	Reason string    `json:"reason,omitempty"`
	UsedAt time.Time `json:"used_at"`
}

// ListUses returns the uses of bindings, newest first; of more than 1000 the newest. The mock keeps 10,000.
//
// GET /v1/authority/uses
func (s *AuthorityService) ListUses(ctx context.Context) ([]AuthorityUse, error) {
	return sendWrappedList[AuthorityUse](ctx, s.client, get("/v1/authority/uses"), "uses")
}

// GetUse returns a use. It fails with [ErrNotFound].
//
// GET /v1/authority/uses/{use_id}
func (s *AuthorityService) GetUse(ctx context.Context, useID string) (*AuthorityUse, error) {
	return sendWrapped[AuthorityUse](ctx, s.client, get("/v1/authority/uses/{use_id}", useID), "use")
}

// AuthorityPresentation says that a receiver was shown a binding: a call to one of its hosts carried the passport.
type AuthorityPresentation struct {
	ID                       string    `json:"id"`
	OperatorID               string    `json:"operator_id"`
	UseID                    string    `json:"use_id"`
	BindingID                string    `json:"binding_id"`
	BindingVersion           int       `json:"binding_version"`
	BindingClaimID           string    `json:"binding_claim_id"`
	BindingDigest            string    `json:"binding_digest"`
	ReceiverID               string    `json:"receiver_id"`
	ReceiverProfileVersionID string    `json:"receiver_profile_version_id"`
	PassportJTI              string    `json:"passport_jti"`
	Host                     string    `json:"host"`
	PresentedAt              time.Time `json:"presented_at"`
}

// ListPresentations returns the presentations that are not erased, newest first; of more than 1000 the newest. The mock keeps
// 10,000.
//
// GET /v1/authority/presentations
func (s *AuthorityService) ListPresentations(ctx context.Context) ([]AuthorityPresentation, error) {
	return sendWrappedList[AuthorityPresentation](ctx, s.client, get("/v1/authority/presentations"), "presentations")
}

// GetPresentation returns a presentation. It fails with [ErrNotFound] and with [ErrAuthorityErased].
//
// GET /v1/authority/presentations/{presentation_id}
func (s *AuthorityService) GetPresentation(ctx context.Context, presentationID string) (*AuthorityPresentation, error) {
	return sendWrapped[AuthorityPresentation](ctx, s.client, get("/v1/authority/presentations/{presentation_id}", presentationID),
		"presentation")
}

// ErasePresentation wipes a presentation and returns the tombstone; the use stays. It fails with [ErrNotFound], and with
// [ErrAuthorityErased] the next time.
//
// POST /v1/authority/presentations/{presentation_id}/erase
func (s *AuthorityService) ErasePresentation(
	ctx context.Context, presentationID string, params AuthorityWriteParams,
) (*Tombstone, error) {
	return authorityWrite[Tombstone](ctx, s.client,
		post("/v1/authority/presentations/{presentation_id}/erase", presentationID).with(params), params.IdempotencyKey,
		"tombstone")
}
