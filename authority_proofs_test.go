package stack_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestAuthorityProofs(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	sum := sha256.Sum256([]byte("I agree, signed"))
	first := s.proof
	assert.True(t, strings.HasPrefix(first.ID, "prf_"))
	assert.Equal(t, stack.Proof{ID: first.ID, OperatorID: s.OperatorID(), PrincipalID: s.principal.ID, Kind: stack.ProofConsent,
		Version: 1, Status: stack.ProofActive, Source: stack.ProofImported, Digest: "sha256:" + hex.EncodeToString(sum[:]),
		CreatedAt: first.CreatedAt}, *first)

	second := s.newProof(t, s.principal.ID, func(p *stack.ProofImportParams) {
		p.ProofID, p.Content = first.ID, stack.NewSecret("I agree again")
	})
	assert.Equal(t, []any{first.ID, 2, stack.ProofActive}, []any{second.ID, second.Version, second.Status})
	assert.NotEqual(t, first.Digest, second.Digest)
	for n, want := range map[int]*stack.Proof{0: second, 2: second} {
		got, err := s.api.GetProof(ctx, first.ID, authorityVersion(n))
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	old, err := s.api.GetProof(ctx, first.ID, authorityVersion(1))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ProofSuperseded, first.Digest}, []any{old.Status, old.Digest})
	for name, err := range map[string]error{
		"version": failure(s.api.GetProof(ctx, first.ID, authorityVersion(3))),
		"get":     failure(s.api.GetProof(ctx, "prf_x", authorityVersion(0))),
		"revoke":  failure(s.api.RevokeProof(ctx, "prf_x", authorityReason("x"))),
		"erase":   failure(s.api.EraseProof(ctx, "prf_x", authorityWrite())),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	requireField(t, s.client.Do(ctx, "GET", "/v1/authority/proofs/"+first.ID+"?version=0", nil, nil), "query.version")
	other := s.newProof(t, s.principal.ID)
	list, err := s.api.ListProofs(ctx)
	require.NoError(t, err)
	assert.Equal(t, []stack.Proof{*other, *second}, list, "newest first, each in its newest version")

	requireState(t, failure(s.api.EraseProof(ctx, first.ID, authorityWrite())), stack.ProofActive)
	revoked, err := s.api.RevokeProof(ctx, first.ID, authorityReason("withdrawn"))
	require.NoError(t, err)
	assert.Equal(t, []any{2, stack.ProofRevoked, "withdrawn", false},
		[]any{revoked.Version, revoked.Status, revoked.ReasonCode, revoked.RevokedAt.IsZero()})
	old, err = s.api.GetProof(ctx, first.ID, authorityVersion(1))
	require.NoError(t, err)
	assert.Equal(t, stack.ProofRevoked, old.Status, "in all its versions")
	requireState(t, failure(s.api.RevokeProof(ctx, first.ID, authorityReason("x"))), stack.ProofRevoked)
	next := stack.ProofImportParams{PrincipalID: s.principal.ID, Kind: stack.ProofConsent, ProofID: first.ID,
		Content: stack.NewSecret("x"), IdempotencyKey: authorityKey()}
	requireState(t, failure(s.api.ImportProof(ctx, next)), stack.ProofRevoked)

	gone, err := s.api.EraseProof(ctx, first.ID, authorityWrite())
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ProofErased, "", false}, []any{gone.Status, gone.Digest, gone.ErasedAt.IsZero()})
	got, err := s.api.GetProof(ctx, first.ID, authorityVersion(1))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ProofErased, ""}, []any{got.Status, got.Digest})
	requireState(t, failure(s.api.EraseProof(ctx, first.ID, authorityWrite())), stack.ProofErased)
	requireState(t, failure(s.api.RevokeProof(ctx, first.ID, authorityReason("x"))), stack.ProofErased)
}

func TestAuthorityProofRefusals(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	good := stack.ProofImportParams{PrincipalID: s.principal.ID, Kind: stack.ProofConsent, Content: stack.NewSecret("canary")}
	other := s.newPrincipal(t)
	for name, tt := range map[string]struct {
		change func(*stack.ProofImportParams)
		field  string
	}{
		"kind":              {func(p *stack.ProofImportParams) { p.Kind = "rumour" }, "body.kind"},
		"an OIDC sign-in":   {func(p *stack.ProofImportParams) { p.Kind = stack.ProofEnterpriseOIDC }, "body.kind"},
		"past":              {func(p *stack.ProofImportParams) { p.ExpiresAt = s.Now() }, "body.expires_at"},
		"too long":          {func(p *stack.ProofImportParams) { p.Content = stack.NewSecret(strings.Repeat("canary", 11_000)) }, "body.content"},
		"other kind":        {func(p *stack.ProofImportParams) { p.ProofID, p.Kind = s.proof.ID, stack.ProofMandate }, "body.kind"},
		"another principal": {func(p *stack.ProofImportParams) { p.ProofID, p.PrincipalID = s.proof.ID, other.ID }, "body.principal_id"},
	} {
		params := good
		params.IdempotencyKey = authorityKey()
		tt.change(&params)
		_, err := s.api.ImportProof(t.Context(), params)
		require.Error(t, err, name)
		requireField(t, err, tt.field)
		assert.NotContains(t, fmt.Sprint(err, requireRefused(t, err, 400, "INVALID_REQUEST").Details), "canary", name)
	}
	for name, params := range map[string]stack.ProofImportParams{
		"principal": {PrincipalID: "prn_x", Kind: stack.ProofConsent, Content: stack.NewSecret("x")},
		"proof":     {PrincipalID: s.principal.ID, Kind: stack.ProofConsent, Content: stack.NewSecret("x"), ProofID: "prf_x"},
	} {
		params.IdempotencyKey = authorityKey()
		_, err := s.api.ImportProof(t.Context(), params)
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	for range 99 {
		s.newProof(t, s.principal.ID, func(p *stack.ProofImportParams) { p.ProofID = s.proof.ID })
	}
	params := good
	params.ProofID, params.IdempotencyKey = s.proof.ID, authorityKey()
	requireState(t, failure(s.api.ImportProof(t.Context(), params)), "in its version 100")
}

func TestAuthorityProofCollection(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	open := func() *stack.ProofCollectionSession {
		session, err := s.api.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: s.principal.ID,
			Kind: stack.ProofMandate, Purpose: "May file <taxes>", ReturnURL: "https://app.example/back?a=<b>",
			IdempotencyKey: authorityKey()})
		require.NoError(t, err)
		return session
	}
	session := open()
	assert.Equal(t, stack.ProofCollectionSession{ID: session.ID, OperatorID: s.OperatorID(), PrincipalID: s.principal.ID,
		Kind: stack.ProofMandate, Purpose: "May file <taxes>", CollectionURL: session.CollectionURL, Status: stack.RequestPending,
		CreatedAt: session.CreatedAt, ExpiresAt: session.CreatedAt.Add(24 * time.Hour)}, *session)
	_, page := s.fetch(t, "GET", session.CollectionURL, "")
	assert.Contains(t, page, "May file &lt;taxes&gt;")
	assert.NotContains(t, page, "app.example")
	_, page = s.fetch(t, "POST", session.CollectionURL+"/approve", "")
	assert.Contains(t, page, `<a href="https://app.example/back?a=%3cb%3e">`)
	done, err := s.api.GetProofCollectionSession(ctx, session.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.RequestApproved, done.Status)
	proof, err := s.api.GetProof(ctx, done.ProofID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ProofMandate, stack.ProofCollected, s.principal.ID},
		[]any{proof.Kind, proof.Source, proof.PrincipalID})
	s.draft(t, func(p *stack.AuthorityBindingParams) { p.ProofIDs = []string{proof.ID} })

	declined := open()
	require.NoError(t, s.RejectAuthority(declined.ID))
	declined, err = s.api.GetProofCollectionSession(ctx, declined.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{stack.RequestRejected, ""}, []any{declined.Status, declined.ProofID})

	for field, params := range map[string]stack.ProofCollectionParams{
		"body.kind":       {Kind: stack.ProofEnterpriseOIDC, Purpose: "x"},
		"body.purpose":    {Kind: stack.ProofConsent, Purpose: "\t"},
		"body.return_url": {Kind: stack.ProofConsent, Purpose: "x", ReturnURL: "javascript:alert(1)"},
	} {
		params.PrincipalID, params.IdempotencyKey = s.principal.ID, authorityKey()
		requireField(t, failure(s.api.CreateProofCollectionSession(ctx, params)), field)
	}
	_, err = s.api.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: "prn_x", Kind: stack.ProofConsent,
		Purpose: "x", IdempotencyKey: authorityKey()})
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = s.api.GetProofCollectionSession(ctx, "pcs_x")
	require.ErrorIs(t, err, stack.ErrNotFound)
	status, _ := s.fetch(t, "GET", session.CollectionURL+"x", "")
	assert.Equal(t, http.StatusNotFound, status)
}

// A binding stands and falls with its proofs, in the versions with which it was made.
func TestAuthorityBindingsFallWithTheirProof(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newAuthorityStage(t)
		ctx := t.Context()
		withProof := func(ids ...string) func(*stack.AuthorityBindingParams) {
			return func(p *stack.AuthorityBindingParams) { p.ProofIDs = ids }
		}
		brief := s.newProof(t, s.principal.ID, func(p *stack.ProofImportParams) { p.ExpiresAt = s.Now().Add(time.Hour) })
		steady := s.active(t)
		onBrief := s.active(t, withProof(s.proof.ID, brief.ID))
		s.newProof(t, s.principal.ID, func(p *stack.ProofImportParams) { p.ProofID = brief.ID })
		onRenewed := s.active(t, withProof(brief.ID))
		assert.Equal(t, []stack.ProofVersion{{ProofID: brief.ID, Version: 2}}, onRenewed.Proofs)
		time.Sleep(time.Hour)
		b, err := s.api.GetBinding(ctx, onBrief.ID, authorityVersion(0))
		require.NoError(t, err)
		assert.Equal(t, []any{stack.BindingRevoked, "proof_expired"}, []any{b.Status, b.ReasonCode})
		assert.Equal(t, stack.BindingActive, s.status(t, onRenewed.ID, 0))
		old, err := s.api.GetProof(ctx, brief.ID, authorityVersion(1))
		require.NoError(t, err)
		assert.Equal(t, stack.ProofExpired, old.Status)

		_, err = s.api.RevokeProof(ctx, brief.ID, authorityReason("withdrawn"))
		require.NoError(t, err)
		b, err = s.api.GetBinding(ctx, onRenewed.ID, authorityVersion(0))
		require.NoError(t, err)
		assert.Equal(t, []any{stack.BindingRevoked, "withdrawn"}, []any{b.Status, b.ReasonCode})
		assert.Equal(t, stack.BindingActive, s.status(t, steady.ID, 0))

		fleeting := s.newProof(t, s.principal.ID, func(p *stack.ProofImportParams) { p.ExpiresAt = s.Now().Add(time.Minute) })
		time.Sleep(time.Minute)
		requireState(t, failure(s.api.CreateBinding(ctx, s.binding(withProof(fleeting.ID)))), stack.ProofExpired)
		requireState(t, failure(s.api.RevokeProof(ctx, fleeting.ID, authorityReason("x"))), stack.ProofExpired)
		_, err = s.api.EraseProof(ctx, fleeting.ID, authorityWrite())
		require.NoError(t, err)
	})
}
