package stack

import (
	"context"
	"log/slog"
	"time"
)

// ProofKind says what a proof is.
type ProofKind string

// Proof kinds.
const (
	ProofConsent        ProofKind = "consent"         // the principal's own statement
	ProofMandate        ProofKind = "mandate"         // a document, such as a power of attorney
	ProofEnterpriseOIDC ProofKind = "enterprise_oidc" // a sign-in at the operator's OIDC provider; made by an OIDC request only
)

// ProofStatus is the state of one version of a proof.
type ProofStatus string

// Proof statuses. Only an active one can be used for a binding.
const (
	ProofActive     ProofStatus = "active"
	ProofSuperseded ProofStatus = "superseded" // a newer version was imported
	ProofRevoked    ProofStatus = "revoked"
	ProofExpired    ProofStatus = "expired"
	ProofErased     ProofStatus = "erased"
)

// ProofSource says how a proof came to be.
type ProofSource string

// Proof sources.
const (
	ProofImported  ProofSource = "import"
	ProofCollected ProofSource = "collection_session"
	ProofFromOIDC  ProofSource = "enterprise_oidc_request"
)

// ProofImportParams hands over a proof.
type ProofImportParams struct {
	PrincipalID string    `json:"principal_id"`
	Kind        ProofKind `json:"kind"` // consent or mandate
	// Content is the proof itself, such as a signed statement: text of at most 65,536 bytes. The server keeps it encrypted,
	// and gives it to nobody.
	Content        Secret    `json:"content"`
	ProofID        string    `json:"proof_id,omitempty"`  // makes it the next version of this proof, of the same principal and kind
	ExpiresAt      time.Time `json:"expires_at,omitzero"` // default: never
	IdempotencyKey string    `json:"-"`                   // mandatory
}

// LogValue gives slog the proof without its content.
func (p ProofImportParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("principal_id", p.PrincipalID), slog.String("kind", string(p.Kind)),
		slog.Any("content", p.Content))
}

// Proof is one version of a proof. It holds nothing of the content but its digest.
type Proof struct {
	ID          string      `json:"id"`
	OperatorID  string      `json:"operator_id"`
	PrincipalID string      `json:"principal_id"`
	Kind        ProofKind   `json:"kind"`
	Version     int         `json:"version"` // from 1
	Status      ProofStatus `json:"status"`
	Source      ProofSource `json:"source"`
	Digest      string      `json:"digest,omitempty"` // sha256: and the SHA-256 of the content in hex; gone when erased
	CreatedAt   time.Time   `json:"created_at"`
	ExpiresAt   time.Time   `json:"expires_at,omitzero"`
	RevokedAt   time.Time   `json:"revoked_at,omitzero"`
	ReasonCode  string      `json:"reason_code,omitempty"` // why it was revoked
	ErasedAt    time.Time   `json:"erased_at,omitzero"`
}

// ImportProof puts a proof on record, or the next version of one. Bindings keep to the version with which they were made. It
// fails with a [*ParamError] for a field that is missing, with [ErrInvalidRequest], with [ErrNotFound] for an unknown
// principal or proof, and with [ErrAuthorityState] for a principal that is archived or a proof that was revoked or erased.
//
// POST /v1/authority/proofs/import
func (s *AuthorityService) ImportProof(ctx context.Context, params ProofImportParams) (*Proof, error) {
	if err := required("principal_id", params.PrincipalID); err != nil {
		return nil, err
	}
	if err := required("kind", string(params.Kind)); err != nil {
		return nil, err
	}
	if params.Content.IsZero() {
		return nil, &ParamError{Param: "content", Reason: "is empty; it is required"}
	}
	return authorityWrite[Proof](ctx, s.client, post("/v1/authority/proofs/import").with(params), params.IdempotencyKey,
		"proof")
}

// RequestStatus is how far something has come that waits for a person's decision.
type RequestStatus string

// Request statuses.
const (
	RequestPending   RequestStatus = "pending"
	RequestApproved  RequestStatus = "approved"
	RequestRejected  RequestStatus = "rejected"
	RequestExpired   RequestStatus = "expired"   // nobody decided within 24 hours
	RequestCancelled RequestStatus = "cancelled" // there is nothing to decide any more
)

// ProofCollectionParams asks a principal for a proof.
type ProofCollectionParams struct {
	PrincipalID    string    `json:"principal_id"`
	Kind           ProofKind `json:"kind"`                 // consent or mandate
	Purpose        string    `json:"purpose"`              // what the person is asked to agree to; at most 500 characters
	ReturnURL      string    `json:"return_url,omitempty"` // http(s) URL to which the person goes back afterwards
	IdempotencyKey string    `json:"-"`                    // mandatory
}

// ProofCollectionSession is a principal's chance to give a proof.
type ProofCollectionSession struct {
	ID            string        `json:"id"`
	OperatorID    string        `json:"operator_id"`
	PrincipalID   string        `json:"principal_id"`
	Kind          ProofKind     `json:"kind"`
	Purpose       string        `json:"purpose"`
	CollectionURL string        `json:"collection_url"` // where the person is sent
	Status        RequestStatus `json:"status"`
	ProofID       string        `json:"proof_id,omitempty"` // once approved
	CreatedAt     time.Time     `json:"created_at"`
	ExpiresAt     time.Time     `json:"expires_at"`
	DecidedAt     time.Time     `json:"decided_at,omitzero"`
}

// CreateProofCollectionSession opens a session in which a principal gives a proof themselves: send the person to the
// CollectionURL within 24 hours. When they have agreed, the session is approved and names the proof. It fails with a
// [*ParamError] for a field that is missing, with [ErrInvalidRequest], [ErrNotFound] and, for an archived principal,
// [ErrAuthorityState].
//
// The mock's CollectionURL is a page of its own, whose buttons stand in for the person.
//
// POST /v1/authority/proof-collection-sessions
func (s *AuthorityService) CreateProofCollectionSession(
	ctx context.Context, params ProofCollectionParams,
) (*ProofCollectionSession, error) {
	if err := required("principal_id", params.PrincipalID); err != nil {
		return nil, err
	}
	if err := required("kind", string(params.Kind)); err != nil {
		return nil, err
	}
	if err := required("purpose", params.Purpose); err != nil {
		return nil, err
	}
	return authorityWrite[ProofCollectionSession](ctx, s.client, post("/v1/authority/proof-collection-sessions").with(params),
		params.IdempotencyKey, "session")
}

// GetProofCollectionSession returns a session. It fails with [ErrNotFound].
//
// GET /v1/authority/proof-collection-sessions/{session_id}
func (s *AuthorityService) GetProofCollectionSession(ctx context.Context, sessionID string) (*ProofCollectionSession, error) {
	return sendWrapped[ProofCollectionSession](ctx, s.client,
		get("/v1/authority/proof-collection-sessions/{session_id}", sessionID), "session")
}

// ListProofs returns the newest version of each proof, erased ones too, newest proof first; of more than 1000 the newest.
//
// GET /v1/authority/proofs
func (s *AuthorityService) ListProofs(ctx context.Context) ([]Proof, error) {
	return sendWrappedList[Proof](ctx, s.client, get("/v1/authority/proofs"), "proofs")
}

// AuthorityVersionParams chooses a version.
type AuthorityVersionParams struct {
	Version int // from 1; default: see the method
}

func (p AuthorityVersionParams) check() error {
	if p.Version < 0 {
		return &ParamError{Param: "version", Reason: "is negative; versions count from 1"}
	}
	return nil
}

// GetProof returns a proof, by default its newest version. It fails with a [*ParamError] for a negative version, and with
// [ErrNotFound] for an unknown proof or version. An erased proof is still found: as erased.
//
// GET /v1/authority/proofs/{proof_id}
func (s *AuthorityService) GetProof(ctx context.Context, proofID string, params AuthorityVersionParams) (*Proof, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return sendWrapped[Proof](ctx, s.client,
		get("/v1/authority/proofs/{proof_id}", proofID).number("version", params.Version), "proof")
}

// RevokeProof withdraws a proof with all its versions, and revokes the bindings that rest on it with the same reason. It fails
// with [ErrAuthorityState] unless the proof is active, and with [ErrNotFound].
//
// POST /v1/authority/proofs/{proof_id}/revoke
func (s *AuthorityService) RevokeProof(ctx context.Context, proofID string, params AuthorityReasonParams) (*Proof, error) {
	return authorityReason[Proof](ctx, s.client, post("/v1/authority/proofs/{proof_id}/revoke", proofID), params, "proof")
}

// EraseProof wipes the content of a proof in all its versions, and its digest. What is left is the proof as erased: proofs
// have no tombstone. (contract: endpoints 2.27) It fails with [ErrAuthorityState] for a proof that is active, which must be
// revoked first, and for one that is erased already; and with [ErrNotFound].
//
// POST /v1/authority/proofs/{proof_id}/erase
func (s *AuthorityService) EraseProof(ctx context.Context, proofID string, params AuthorityWriteParams) (*Proof, error) {
	return authorityWrite[Proof](ctx, s.client, post("/v1/authority/proofs/{proof_id}/erase", proofID).with(params),
		params.IdempotencyKey, "proof")
}
