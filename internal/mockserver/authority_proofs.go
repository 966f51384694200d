package mockserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

const maxProofContent = 64 << 10 // bytes

// proof is a proof in all its versions; their contents are sealed.
type proof struct {
	versions []*proofVersion
}

type proofVersion struct {
	stack.Proof
	sealed vault.Sealed
}

func (p *proof) newest() *proofVersion { return p.versions[len(p.versions)-1] }

func (p *proof) view() stack.Proof { return p.newest().Proof }

type (
	proofOut struct {
		Proof *stack.Proof `json:"proof"`
	}
	proofsOut struct {
		Proofs []stack.Proof `json:"proofs"`
	}
	proofSessionOut struct {
		Session *stack.ProofCollectionSession `json:"session"`
	}
)

type importProofIn struct {
	Body stack.ProofImportParams `body:""`
}

func (s *Server) importProof(_ context.Context, c *caller, in importProofIn) (*proofOut, error) {
	op, now, b := c.op, s.clock.now(), in.Body
	content := b.Content.Reveal()
	if err := firstError(
		chosen("body.kind", b.Kind, stack.ProofConsent, stack.ProofMandate),
		ahead("body.expires_at", b.ExpiresAt, now, math.MaxInt64),
	); err != nil {
		return nil, err
	}
	if content == "" || len(content) > maxProofContent {
		return nil, invalid("body.content", fmt.Sprintf("%d bytes long", len(content)),
			fmt.Sprintf("1 to %d bytes long", maxProofContent))
	}
	if _, err := op.activePrincipal(b.PrincipalID); err != nil {
		return nil, err
	}
	pr := &proof{}
	if b.ProofID != "" {
		var err error
		if pr, err = op.nextOfProof(b); err != nil {
			return nil, err
		}
	}
	v, err := s.addProof(op, pr, stack.Proof{PrincipalID: b.PrincipalID, Kind: b.Kind, Source: stack.ProofImported,
		ExpiresAt: b.ExpiresAt.UTC()}, content, now)
	if err != nil {
		return nil, err
	}
	return &proofOut{&v.Proof}, nil
}

// nextOfProof finds a proof that may have the version that is imported.
func (op *operator) nextOfProof(b stack.ProofImportParams) (*proof, error) {
	pr, err := op.proofByID(b.ProofID)
	if err != nil {
		return nil, err
	}
	last := pr.newest()
	switch {
	case last.PrincipalID != b.PrincipalID:
		return nil, invalid("body.principal_id", b.PrincipalID, "the principal of the proof")
	case last.Kind != b.Kind:
		return nil, invalid("body.kind", string(b.Kind), string(last.Kind)+", the kind of the proof")
	case last.Status == stack.ProofRevoked || last.Status == stack.ProofErased:
		return nil, wrongState("proof", last.ID, last.Status, "a proof that is active or expired")
	case len(pr.versions) == maxVersions:
		return nil, wrongState("proof", last.ID, fmt.Sprintf("in its version %d", maxVersions), "a proof with fewer versions")
	}
	return pr, nil
}

// addProof puts the next version of a proof on record, the first one of a new proof.
func (s *Server) addProof(op *operator, pr *proof, v stack.Proof, content string, now time.Time) (*proofVersion, error) {
	v.ID, v.OperatorID, v.Version, v.Status, v.CreatedAt = newID("prf_"), op.id, len(pr.versions)+1, stack.ProofActive, now
	if v.Version > 1 {
		v.ID = pr.newest().ID
	}
	plain := []byte(content)
	defer clear(plain)
	sum := sha256.Sum256(plain)
	v.Digest = "sha256:" + hex.EncodeToString(sum[:])
	sealed, err := s.vault.Seal(plain, op.id+"/"+v.ID)
	if err != nil {
		return nil, err
	}
	if v.Version > 1 && pr.newest().Status == stack.ProofActive {
		pr.newest().Status = stack.ProofSuperseded
	}
	added := &proofVersion{v, sealed}
	pr.versions = append(pr.versions, added)
	op.authority.proofs.put(v.ID, pr)
	if !v.ExpiresAt.IsZero() {
		op.due.add(v.ExpiresAt, func(at time.Time) { op.proofDue(added, at) })
	}
	op.recordAuthority(now, "proof_"+string(v.Source), v.ID, "")
	return added, nil
}

// proofDue notices that a version has expired, and ends the bindings that rest on it.
func (op *operator) proofDue(v *proofVersion, at time.Time) {
	if v.Status != stack.ProofActive && v.Status != stack.ProofSuperseded {
		return
	}
	v.Status = stack.ProofExpired
	op.recordAuthority(at, "proof_expire", v.ID, "")
	op.endBindings(func(b *bindingVersion) bool { return b.restsOn(v.ID, v.Version) }, stack.BindingRevoked, "proof_expired", at)
}

// collectedContent is what a person's agreement on a page leaves as the content of a proof.
func collectedContent(principal *stack.Principal, purpose string, now time.Time) (string, error) {
	content, err := json.Marshal(map[string]any{"principal_id": principal.ID, "name": principal.DisplayName,
		"agreed_to": purpose, "at": now})
	return string(content), err
}

type createProofSessionIn struct {
	Body stack.ProofCollectionParams `body:""`
}

func (s *Server) createProofSession(ctx context.Context, c *caller, in createProofSessionIn) (*proofSessionOut, error) {
	op, now, b := c.op, s.clock.now(), in.Body
	if err := firstError(
		chosen("body.kind", b.Kind, stack.ProofConsent, stack.ProofMandate),
		filled("body.purpose", b.Purpose),
		atMost("body.purpose", b.Purpose, maxPurpose),
		checkReturnURL("body.return_url", b.ReturnURL),
	); err != nil {
		return nil, err
	}
	principal, err := op.activePrincipal(b.PrincipalID)
	if err != nil {
		return nil, err
	}
	session := &stack.ProofCollectionSession{ID: newID("pcs_"), OperatorID: op.id, PrincipalID: principal.ID, Kind: b.Kind,
		Purpose: b.Purpose, Status: stack.RequestPending, CreatedAt: now, ExpiresAt: now.Add(decisionLifetime)}
	session.CollectionURL = decisionURL(ctx, session.ID)
	op.authority.sessions.put(session.ID, session)
	op.ask(&decision{id: session.ID, principalID: principal.ID, title: "A " + string(b.Kind) + " of " + principal.DisplayName,
		lines: []string{b.Purpose}, returnURL: b.ReturnURL, expiresAt: session.ExpiresAt, status: &session.Status,
		decidedAt: &session.DecidedAt, decided: func(at time.Time) error {
			if session.Status != stack.RequestApproved {
				return nil
			}
			content, err := collectedContent(principal, session.Purpose, at)
			if err != nil {
				return err
			}
			v, err := s.addProof(op, &proof{}, stack.Proof{PrincipalID: principal.ID, Kind: session.Kind,
				Source: stack.ProofCollected}, content, at)
			if err == nil {
				session.ProofID = v.ID
			}
			return err
		}})
	op.recordAuthority(now, "proof_session_create", session.ID, "")
	return &proofSessionOut{session}, nil
}

type proofSessionIn struct {
	SessionID string `path:"session_id"`
}

func (s *Server) getProofSession(_ context.Context, c *caller, in proofSessionIn) (*proofSessionOut, error) {
	session, err := find(c.op, &c.op.authority.sessions, "proof collection session", in.SessionID)
	return &proofSessionOut{session}, err
}

func (s *Server) listProofs(_ context.Context, c *caller, _ none) (*proofsOut, error) {
	return &proofsOut{newest(&c.op.authority.proofs, (*proof).view)}, nil
}

func (op *operator) proofByID(id string) (*proof, error) {
	return find(op, &op.authority.proofs, "proof", id)
}

type getProofIn struct {
	ProofID string `path:"proof_id"`
	Version *int   `query:"version"`
}

func (s *Server) getProof(_ context.Context, c *caller, in getProofIn) (*proofOut, error) {
	pr, err := c.op.proofByID(in.ProofID)
	if err != nil {
		return nil, err
	}
	v, err := inVersion("proof", in.ProofID, pr.versions, in.Version, pr.newest())
	if err != nil {
		return nil, err
	}
	return &proofOut{&v.Proof}, nil
}

type revokeProofIn struct {
	ProofID string                      `path:"proof_id"`
	Body    stack.AuthorityReasonParams `body:""`
}

func (s *Server) revokeProof(_ context.Context, c *caller, in revokeProofIn) (*proofOut, error) {
	op, now, reason := c.op, s.clock.now(), in.Body.ReasonCode
	pr, err := op.proofByID(in.ProofID)
	if err != nil {
		return nil, err
	}
	if err = checkReason(reason); err != nil {
		return nil, err
	}
	last := pr.newest()
	if last.Status != stack.ProofActive {
		return nil, wrongState("proof", last.ID, last.Status, "an active proof")
	}
	for _, v := range pr.versions {
		v.Status, v.RevokedAt, v.ReasonCode = stack.ProofRevoked, now, reason
	}
	op.recordAuthority(now, "proof_revoke", last.ID, reason)
	op.endBindings(func(b *bindingVersion) bool { return b.restsOn(last.ID, 0) }, stack.BindingRevoked, reason, now)
	return &proofOut{&last.Proof}, nil
}

type proofIn struct {
	ProofID string `path:"proof_id"`
}

func (s *Server) eraseProof(_ context.Context, c *caller, in proofIn) (*proofOut, error) {
	pr, err := c.op.proofByID(in.ProofID)
	if err != nil {
		return nil, err
	}
	last := pr.newest()
	if last.Status != stack.ProofRevoked && last.Status != stack.ProofExpired {
		return nil, wrongState("proof", last.ID, last.Status, "a proof that is revoked or expired")
	}
	c.op.wipeProof(pr, s.clock.now())
	return &proofOut{&last.Proof}, nil
}

// wipeProof takes the content and the digest from a proof: a digest tells a content that can be guessed.
func (op *operator) wipeProof(pr *proof, now time.Time) {
	for _, v := range pr.versions {
		v.Status, v.ErasedAt, v.Digest, v.sealed = stack.ProofErased, now, "", vault.Sealed{}
	}
	id := pr.newest().ID
	op.wipe("proof", id)
	op.recordAuthority(now, "proof_erase", id, "")
	op.endBindings(func(b *bindingVersion) bool { return b.restsOn(id, 0) }, stack.BindingRevoked, "proof_erased", now)
}
