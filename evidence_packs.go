package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// EvidencePacksService exports evidence packs: what happened in a Mission, a session, an incident or a quarter, in one
// document whose digest the deployment has signed, so that anybody can verify it without STACK ([VerifyEvidencePack]).
// Packs are of the enterprise plan: on another, every method fails with the code TIER_LIMIT_EXCEEDED. They hold rows of the
// audit log, so a member's key is refused with [ErrForbidden]. Reach it as [Client].EvidencePacks.
type EvidencePacksService struct{ client *Client }

// EvidenceScopeKind is what an evidence pack is about.
type EvidenceScopeKind string

// Kinds of evidence scopes.
const (
	EvidenceMission  EvidenceScopeKind = "mission"  // a Mission with its passports; the reference is ms_…
	EvidenceSession  EvidenceScopeKind = "session"  // all passports of a session; the reference is ses_…
	EvidenceIncident EvidenceScopeKind = "incident" // a security event; the reference is incident:sev_…
	EvidencePeriod   EvidenceScopeKind = "period"   // a quarter in UTC; the reference is period:2026-Q1
)

// EvidenceScope is what one evidence pack is about.
type EvidenceScope struct {
	Kind EvidenceScopeKind `json:"kind"`
	Ref  string            `json:"ref"`
}

// String returns the scope as the list's filter has it, such as mission:ms_… or period:2026-Q1.
func (s EvidenceScope) String() string {
	prefix := string(s.Kind) + ":"
	return prefix + strings.TrimPrefix(s.Ref, prefix)
}

func (s EvidenceScope) check() error {
	switch s.Kind {
	case EvidenceMission, EvidenceSession, EvidenceIncident, EvidencePeriod:
	default:
		return &ParamError{Param: "scope.kind", Reason: fmt.Sprintf("is %q; it must be mission, session, incident or period", s.Kind)}
	}
	return required("scope.ref", s.Ref)
}

// EvidencePackExportParams says what to export.
type EvidencePackExportParams struct {
	Scope      EvidenceScope `json:"scope"`
	Supersedes string        `json:"supersedes,omitempty"` // id of an older pack of the same scope that this one replaces

	// AirGap puts into the pack what a reader without a network needs besides: the public keys, and the envelopes of the
	// operator reviews. Compare the keys with ones that you trust: a forger would put his own there.
	AirGap bool `json:"air_gap,omitempty"`
}

// EvidencePack is an exported pack.
type EvidencePack struct {
	PackID       string            `json:"pack_id"`
	ClaimID      string            `json:"claim_id"`
	PackClaim    EvidencePackClaim `json:"pack_claim"`
	SupersededBy string            `json:"superseded_by,omitempty"` // id of the pack that replaced this one

	EnvelopeCOSE string          `json:"envelope_cose,omitempty"` // PackClaim as it was signed; not in lists
	Manifest     json.RawMessage `json:"manifest,omitempty"`      // the exact bytes; only where the pack was just exported
}

// EvidencePackClaim is what the deployment has signed about a pack. The shape is ours.
type EvidencePackClaim struct {
	Type           string        `json:"type"` // evidence_pack
	Version        int           `json:"version"`
	ClaimID        string        `json:"claim_id"`
	PackID         string        `json:"pack_id"`
	OperatorID     string        `json:"operator_id"`
	IssuedAt       time.Time     `json:"issued_at_ms"` // epoch milliseconds on the wire
	Scope          EvidenceScope `json:"scope"`
	Supersedes     string        `json:"supersedes,omitempty"`
	AirGap         bool          `json:"air_gap"`
	ManifestSHA256 string        `json:"manifest_sha256"` // of the manifest's canonical bytes, in lower-case hex
	ManifestBytes  int           `json:"manifest_bytes"`
}

// What signed claims and manifests call themselves.
const (
	EvidencePackType     = "evidence_pack"
	EvidenceManifestType = "evidence_manifest"
	EvidenceVersion      = 1
)

// MarshalJSON writes the time in epoch milliseconds.
func (c EvidencePackClaim) MarshalJSON() ([]byte, error) {
	type plain EvidencePackClaim
	return marshalJSON(struct {
		plain
		IssuedAt epochMillis `json:"issued_at_ms"`
	}{plain(c), epochMillis(c.IssuedAt)})
}

// UnmarshalJSON reads the time in epoch milliseconds.
func (c *EvidencePackClaim) UnmarshalJSON(data []byte) error {
	type plain EvidencePackClaim
	w := struct {
		*plain
		IssuedAt epochMillis `json:"issued_at_ms"`
	}{plain: (*plain)(c)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	c.IssuedAt = time.Time(w.IssuedAt)
	return nil
}

// EvidenceManifest is the content of a pack. On the wire it is canonical JSON (RFC 8785), which one content has in one form
// only, so that its digest can be computed anew from any form of it. The shape is ours.
type EvidenceManifest struct {
	Type       string        `json:"type"` // evidence_manifest
	Version    int           `json:"version"`
	PackID     string        `json:"pack_id"`
	OperatorID string        `json:"operator_id"`
	Scope      EvidenceScope `json:"scope"`
	From       time.Time     `json:"from,omitzero"` // of a period, inclusive
	To         time.Time     `json:"to,omitzero"`   // of a period, exclusive
	CreatedAt  time.Time     `json:"created_at"`
	Supersedes string        `json:"supersedes,omitempty"`
	AirGap     bool          `json:"air_gap"`

	ChainHead ChainHead       `json:"chain_head"`     // of the whole audit log when the pack was made
	Keys      json.RawMessage `json:"keys,omitempty"` // the deployment's JWKS, with AirGap

	Missions        []MissionRecord  `json:"missions"`
	Passports       []PassportReport `json:"passports"` // with their intents, checkpoints, checkouts and reviews
	SecurityEvents  []SecurityEvent  `json:"security_events"`
	OperatorReviews []OperatorReview `json:"operator_reviews"`
	Audit           []AuditEntry     `json:"audit"` // oldest first

	Sections map[string]EvidenceSection `json:"sections"` // by the name of each of the five lists above
}

// EvidenceSection sums up one list of a manifest.
type EvidenceSection struct {
	Count  int    `json:"count"`
	SHA256 string `json:"sha256"` // of the list's canonical bytes, in lower-case hex
}

// Export makes a pack of what is on record of a scope and returns it with its manifest. It fails with a [*ParamError], with
// [ErrInvalidRequest] for a reference of another form, a quarter that has not begun, a pack of another scope to supersede,
// or a scope whose manifest would be over 16 MB; with [ErrNotFound] for a scope or pack that there is not; with
// [ErrConflict] when the pack to supersede is superseded already; and with the code TIER_LIMIT_EXCEEDED when too many packs
// are kept.
//
// POST /v1/evidence-packs
func (s *EvidencePacksService) Export(ctx context.Context, params EvidencePackExportParams) (*EvidencePack, error) {
	if err := params.Scope.check(); err != nil {
		return nil, err
	}
	return send[EvidencePack](ctx, s.client, post("/v1/evidence-packs").with(params))
}

// Get returns a pack with the envelope that [VerifyEvidencePack] takes, without its manifest. It fails with [ErrNotFound].
//
// GET /v1/evidence-packs/{pack_id}
func (s *EvidencePacksService) Get(ctx context.Context, packID string) (*EvidencePack, error) {
	return send[EvidencePack](ctx, s.client, get("/v1/evidence-packs/{pack_id}", packID))
}

// Download writes the exact bytes of a pack's manifest to w and returns their number. It fails with [ErrNotFound], and as w
// does.
//
// GET /v1/evidence-packs/{pack_id}/download
func (s *EvidencePacksService) Download(ctx context.Context, packID string, w io.Writer) (int64, error) {
	return s.client.download(ctx, get("/v1/evidence-packs/{pack_id}/download", packID), "manifest", w)
}

// EvidencePackListParams narrows a listing of packs.
type EvidencePackListParams struct {
	Scope EvidenceScope // the zero scope is all
}

type evidencePackList struct {
	Items []EvidencePack `json:"items"`
}

// List returns the packs, newest first, without manifests and envelopes. It fails with a [*ParamError], and with
// [ErrInvalidRequest] for a scope whose reference has another form.
//
// GET /v1/evidence-packs
func (s *EvidencePacksService) List(ctx context.Context, params EvidencePackListParams) ([]EvidencePack, error) {
	cl := get("/v1/evidence-packs")
	if params.Scope != (EvidenceScope{}) {
		if err := params.Scope.check(); err != nil {
			return nil, err
		}
		cl.param("scope", params.Scope.String())
	}
	list, err := send[evidencePackList](ctx, s.client, cl)
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}
