package stack

import (
	"context"
	"log/slog"
	"time"
)

// PrincipalKind says what a principal is.
type PrincipalKind string

// Principal kinds.
const (
	PrincipalPerson       PrincipalKind = "person"
	PrincipalOrganization PrincipalKind = "organization"
)

// PrincipalStatus is the state of a principal.
type PrincipalStatus string

// Principal statuses.
const (
	PrincipalActive   PrincipalStatus = "active"
	PrincipalArchived PrincipalStatus = "archived" // lets nobody act any more; stays on record
)

// PrincipalParams describes a principal.
type PrincipalParams struct {
	Kind           PrincipalKind `json:"kind"`
	DisplayName    string        `json:"display_name"`           // what people who approve are shown; at most 200 characters
	ExternalRef    string        `json:"external_ref,omitempty"` // the operator's own id of them; at most 256 characters
	IdempotencyKey string        `json:"-"`                      // mandatory
}

// LogValue gives slog the kind of the principal, and not who it is.
func (p PrincipalParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("kind", string(p.Kind)))
}

// Principal is somebody on whose authority agents act.
type Principal struct {
	ID          string          `json:"id"`
	OperatorID  string          `json:"operator_id"`
	Kind        PrincipalKind   `json:"kind"`
	DisplayName string          `json:"display_name"`
	ExternalRef string          `json:"external_ref,omitempty"`
	Status      PrincipalStatus `json:"status"`
	CreatedAt   time.Time       `json:"created_at"`
	ArchivedAt  time.Time       `json:"archived_at,omitzero"`
	ReasonCode  string          `json:"reason_code,omitempty"` // why it was archived
}

// LogValue gives slog the principal without who it is.
func (p Principal) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", p.ID), slog.String("status", string(p.Status)))
}

// CreatePrincipal puts a principal on record. It fails with a [*ParamError] without a kind, a name or an idempotency key, and
// with [ErrInvalidRequest].
//
// POST /v1/authority/principals
func (s *AuthorityService) CreatePrincipal(ctx context.Context, params PrincipalParams) (*Principal, error) {
	if err := required("kind", string(params.Kind)); err != nil {
		return nil, err
	}
	if err := required("display_name", params.DisplayName); err != nil {
		return nil, err
	}
	return authorityWrite[Principal](ctx, s.client, post("/v1/authority/principals").with(params), params.IdempotencyKey,
		"principal")
}

// ListPrincipals returns the principals that are not erased, newest first; of more than 1000 the newest.
//
// GET /v1/authority/principals
func (s *AuthorityService) ListPrincipals(ctx context.Context) ([]Principal, error) {
	return sendWrappedList[Principal](ctx, s.client, get("/v1/authority/principals"), "principals")
}

// GetPrincipal returns a principal. It fails with [ErrNotFound], and with [ErrAuthorityErased] when it was erased.
//
// GET /v1/authority/principals/{principal_id}
func (s *AuthorityService) GetPrincipal(ctx context.Context, principalID string) (*Principal, error) {
	return sendWrapped[Principal](ctx, s.client, get("/v1/authority/principals/{principal_id}", principalID), "principal")
}

// ArchivePrincipal ends what a principal lets others do: their bindings are revoked with the same reason, what waits for a
// person is cancelled, and no proof, binding or request can be made for them again. Their records stay. It fails with
// [ErrAuthorityState] for a principal that is archived already, with [ErrNotFound] and with [ErrAuthorityErased].
//
// POST /v1/authority/principals/{principal_id}/archive
func (s *AuthorityService) ArchivePrincipal(
	ctx context.Context, principalID string, params AuthorityReasonParams,
) (*Principal, error) {
	return authorityReason[Principal](ctx, s.client, post("/v1/authority/principals/{principal_id}/archive", principalID),
		params, "principal")
}

// ErasePrincipal wipes a principal for good, in whatever state it is, with their bindings and the content of their proofs,
// and returns the tombstone. Uses and presentations stay: they hold ids only. It fails with [ErrNotFound], and with
// [ErrAuthorityErased] the next time.
//
// POST /v1/authority/principals/{principal_id}/erase
func (s *AuthorityService) ErasePrincipal(
	ctx context.Context, principalID string, params AuthorityWriteParams,
) (*Tombstone, error) {
	return authorityWrite[Tombstone](ctx, s.client,
		post("/v1/authority/principals/{principal_id}/erase", principalID).with(params), params.IdempotencyKey, "tombstone")
}
