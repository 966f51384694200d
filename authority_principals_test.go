package stack_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestAuthorityPrincipals(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	made, err := s.api.CreatePrincipal(ctx, stack.PrincipalParams{Kind: stack.PrincipalOrganization, DisplayName: "Acme",
		ExternalRef: "crm-7", IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(made.ID, "prn_"))
	assert.False(t, made.CreatedAt.IsZero())
	assert.Equal(t, stack.Principal{ID: made.ID, OperatorID: s.OperatorID(), Kind: stack.PrincipalOrganization,
		DisplayName: "Acme", ExternalRef: "crm-7", Status: stack.PrincipalActive, CreatedAt: made.CreatedAt}, *made)
	got, err := s.api.GetPrincipal(ctx, made.ID)
	require.NoError(t, err)
	assert.Equal(t, made, got)
	list, err := s.api.ListPrincipals(ctx)
	require.NoError(t, err)
	assert.Equal(t, []stack.Principal{*made, *s.principal}, list, "newest first")

	for field, params := range map[string]stack.PrincipalParams{
		"body.kind":         {Kind: "dog", DisplayName: "x"},
		"body.display_name": {Kind: stack.PrincipalPerson, DisplayName: " "},
		"body.external_ref": {Kind: stack.PrincipalPerson, DisplayName: "x", ExternalRef: strings.Repeat("x", 257)},
	} {
		params.IdempotencyKey = authorityKey()
		requireField(t, failure(s.api.CreatePrincipal(ctx, params)), field)
	}
	long := stack.PrincipalParams{Kind: stack.PrincipalPerson, DisplayName: strings.Repeat("ü", 201), IdempotencyKey: authorityKey()}
	requireField(t, failure(s.api.CreatePrincipal(ctx, long)), "body.display_name")
	for name, err := range map[string]error{
		"get":     failure(s.api.GetPrincipal(ctx, "prn_x")),
		"archive": failure(s.api.ArchivePrincipal(ctx, "prn_x", authorityReason("x"))),
		"erase":   failure(s.api.ErasePrincipal(ctx, "prn_x", authorityWrite())),
		"slash":   failure(s.api.GetPrincipal(ctx, "a/b?c#d")),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
		requireRefused(t, err, http.StatusNotFound, "NOT_FOUND")
	}
}

func TestAuthorityReasonCodes(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	for _, code := range []string{" ", "Left", "7days", "with space", "_x", strings.Repeat("x", 65), "naïve"} {
		_, err := s.api.ArchivePrincipal(t.Context(), s.principal.ID, authorityReason(code))
		requireField(t, err, "body.reason_code")
	}
	_, err := s.api.ArchivePrincipal(t.Context(), s.principal.ID, authorityReason("x"+strings.Repeat("_9", 31)+"y"))
	require.NoError(t, err)
}

func TestAuthorityArchive(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	active, waiting := s.active(t), s.draft(t)
	request := s.askApproval(t, waiting.ID, "boss")[0]
	archived, err := s.api.ArchivePrincipal(ctx, s.principal.ID, authorityReason("left_company"))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.PrincipalArchived, "left_company", false},
		[]any{archived.Status, archived.ReasonCode, archived.ArchivedAt.IsZero()})
	for _, id := range []string{active.ID, waiting.ID} {
		b, failed := s.api.GetBinding(ctx, id, authorityVersion(0))
		require.NoError(t, failed)
		assert.Equal(t, []any{stack.BindingRevoked, "left_company"}, []any{b.Status, b.ReasonCode}, "it lets nobody act any more")
	}
	require.ErrorContains(t, s.ApproveAuthority(request.ID), "cancelled")
	proof, err := s.api.GetProof(ctx, s.proof.ID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, stack.ProofActive, proof.Status, "the records stay")

	id := s.principal.ID
	for name, err := range map[string]error{
		"archive": failure(s.api.ArchivePrincipal(ctx, id, authorityReason("x"))),
		"proof": failure(s.api.ImportProof(ctx, stack.ProofImportParams{PrincipalID: id, Kind: stack.ProofConsent,
			Content: stack.NewSecret("x"), IdempotencyKey: authorityKey()})),
		"session": failure(s.api.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: id,
			Kind: stack.ProofConsent, Purpose: "x", IdempotencyKey: authorityKey()})),
		"OIDC": failure(s.api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: id, Purpose: "x",
			IdempotencyKey: authorityKey()})),
		"binding": failure(s.api.CreateBinding(ctx, s.binding())),
	} {
		require.Error(t, err, name)
		requireState(t, err, stack.PrincipalArchived)
	}
	_, err = s.api.ErasePrincipal(ctx, id, authorityWrite())
	require.NoError(t, err)
}

func TestAuthorityErasure(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	binding := s.active(t)
	pass := s.issue(t, carrying(binding.ID))
	waiting := s.draft(t)
	request := s.askApproval(t, waiting.ID, "boss")[0]
	session, err := s.api.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: s.principal.ID,
		Kind: stack.ProofConsent, Purpose: "canary", IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	oidc, err := s.api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: s.principal.ID, Purpose: "canary",
		IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	bystander := s.newPrincipal(t)
	theirs := s.newProof(t, bystander.ID)

	tomb, err := s.api.ErasePrincipal(ctx, s.principal.ID, authorityWrite())
	require.NoError(t, err)
	assert.Equal(t, stack.Tombstone{ID: s.principal.ID, OperatorID: s.OperatorID(), Object: "principal", ErasedAt: tomb.ErasedAt,
		ErasedBindingIDs: []string{waiting.ID, binding.ID}, ErasedProofIDs: []string{s.proof.ID}}, *tomb)
	assert.False(t, tomb.ErasedAt.IsZero())
	for name, err := range map[string]error{
		"get":     failure(s.api.GetPrincipal(ctx, s.principal.ID)),
		"archive": failure(s.api.ArchivePrincipal(ctx, s.principal.ID, authorityReason("x"))),
		"erase":   failure(s.api.ErasePrincipal(ctx, s.principal.ID, authorityWrite())),
		"binding": failure(s.api.CreateBinding(ctx, s.binding())),
	} {
		require.Error(t, err, name)
		requireErased(t, err, tomb)
	}
	for _, id := range []string{binding.ID, waiting.ID} {
		_, err = s.api.GetBinding(ctx, id, authorityVersion(0))
		requireErased(t, err, &stack.Tombstone{ID: id, Object: "binding", OperatorID: s.OperatorID()})
	}
	proof, err := s.api.GetProof(ctx, s.proof.ID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ProofErased, ""}, []any{proof.Status, proof.Digest})
	for _, url := range []string{request.ApprovalURL, session.CollectionURL, oidc.ApprovalURL} {
		status, _ := s.fetch(t, "GET", url, "")
		assert.Equal(t, http.StatusNotFound, status, "no page tells of them")
	}
	session, err = s.api.GetProofCollectionSession(ctx, session.ID)
	require.NoError(t, err)
	oidc, err = s.api.GetEnterpriseOIDCRequest(ctx, oidc.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{"", stack.RequestCancelled, "", stack.RequestCancelled},
		[]any{session.Purpose, session.Status, oidc.Purpose, oidc.Status})
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#a"), pass))
	require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive)

	list, err := s.api.ListPrincipals(ctx)
	require.NoError(t, err)
	assert.Equal(t, []stack.Principal{*bystander}, list)
	bindings, err := s.api.ListBindings(ctx)
	require.NoError(t, err)
	assert.Empty(t, bindings)
	got, err := s.api.GetProof(ctx, theirs.ID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, theirs, got, "nobody else's")
	s.RequireAuditIntact(t)
}

func TestAuthorityOIDCRequest(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	ask := func() *stack.EnterpriseOIDCRequest {
		r, err := s.api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: s.principal.ID,
			Purpose: "Sign <off>", IdempotencyKey: authorityKey()})
		require.NoError(t, err)
		return r
	}
	r := ask()
	assert.Equal(t, stack.EnterpriseOIDCRequest{ID: r.ID, OperatorID: s.OperatorID(), PrincipalID: s.principal.ID,
		Purpose: "Sign <off>", ApprovalURL: r.ApprovalURL, Status: stack.RequestPending, CreatedAt: r.CreatedAt,
		ExpiresAt: r.CreatedAt.Add(24 * time.Hour)}, *r)
	proofs := func() int {
		list, err := s.api.ListProofs(ctx)
		require.NoError(t, err)
		return len(list)
	}
	assert.Equal(t, 1, proofs(), "it grants nothing by itself")
	status, page := s.fetch(t, "GET", r.ApprovalURL, "")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, page, "<h1>Sign in for Principal &lt;P&gt;</h1>")
	assert.Contains(t, page, "<li>Sign &lt;off&gt;</li>")
	assert.Contains(t, page, `<form method="post" action="`+r.ID+`/approve"><button>`)
	for range 2 {
		status, page = s.fetch(t, "POST", r.ApprovalURL+"/approve", "")
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, page, "Decided: approved")
		assert.NotContains(t, page, "<form")
	}
	status, page = s.fetch(t, "POST", r.ApprovalURL+"/reject", "")
	assert.Equal(t, http.StatusConflict, status, page)
	require.ErrorContains(t, s.RejectAuthority(r.ID), "AUTHORITY_STATE")
	got, err := s.api.GetEnterpriseOIDCRequest(ctx, r.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.RequestApproved, got.Status)
	assert.False(t, got.DecidedAt.IsZero())
	proof, err := s.api.GetProof(ctx, got.ProofID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ProofEnterpriseOIDC, stack.ProofFromOIDC, s.principal.ID, stack.ProofActive},
		[]any{proof.Kind, proof.Source, proof.PrincipalID, proof.Status})
	assert.Equal(t, 1, s.countRows("authority.request_approve"))

	no := ask()
	require.NoError(t, s.RejectAuthority(no.ID))
	require.ErrorContains(t, s.ApproveAuthority(no.ID), "rejected")
	got, err = s.api.GetEnterpriseOIDCRequest(ctx, no.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{stack.RequestRejected, ""}, []any{got.Status, got.ProofID})
	assert.Equal(t, 2, proofs())

	for field, params := range map[string]stack.EnterpriseOIDCParams{
		"body.purpose": {PrincipalID: s.principal.ID, Purpose: strings.Repeat("x", 501)},
	} {
		params.IdempotencyKey = authorityKey()
		requireField(t, failure(s.api.CreateEnterpriseOIDCRequest(ctx, params)), field)
	}
	_, err = s.api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: "prn_x", Purpose: "x",
		IdempotencyKey: authorityKey()})
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = s.api.GetEnterpriseOIDCRequest(ctx, "oidc_x")
	require.ErrorIs(t, err, stack.ErrNotFound)
	require.ErrorContains(t, s.ApproveAuthority("oidc_x"), "NOT_FOUND")
}

func TestAuthorityRequestsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newAuthorityStage(t)
		r, err := s.api.CreateEnterpriseOIDCRequest(t.Context(), stack.EnterpriseOIDCParams{PrincipalID: s.principal.ID,
			Purpose: "x", IdempotencyKey: authorityKey()})
		require.NoError(t, err)
		binding := s.draft(t)
		approval := s.askApproval(t, binding.ID, "boss")[0]
		time.Sleep(24*time.Hour - time.Nanosecond)
		status, _ := s.fetch(t, "GET", r.ApprovalURL, "")
		assert.Equal(t, http.StatusOK, status)
		time.Sleep(time.Nanosecond)
		require.ErrorContains(t, s.ApproveAuthority(r.ID), "AUTHORITY_REQUEST_EXPIRED")
		status, _ = s.fetch(t, "POST", r.ApprovalURL+"/reject", "")
		assert.Equal(t, http.StatusGone, status)
		got, err := s.api.GetEnterpriseOIDCRequest(t.Context(), r.ID)
		require.NoError(t, err)
		assert.Equal(t, stack.RequestExpired, got.Status)
		assert.Equal(t, 2, s.countRows("authority.request_expire"))
		list, err := s.api.ListApprovalRequests(t.Context(), binding.ID)
		require.NoError(t, err)
		assert.Equal(t, []any{approval.ID, stack.RequestExpired}, []any{list[0].ID, list[0].Status})
		assert.Equal(t, stack.BindingPending, s.status(t, binding.ID, 1), "others may be asked")
		s.activate(t, binding.ID)
	})
}

// What was answered to a keyed call goes with the object it tells of; its key stays taken.
func TestAuthorityErasesStoredAnswers(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	create := stack.PrincipalParams{Kind: stack.PrincipalPerson, DisplayName: "canary", IdempotencyKey: authorityKey()}
	principal, err := s.api.CreatePrincipal(ctx, create)
	require.NoError(t, err)
	imported := stack.ProofImportParams{PrincipalID: principal.ID, Kind: stack.ProofConsent, Content: stack.NewSecret("I agree"),
		IdempotencyKey: authorityKey()}
	proof, err := s.api.ImportProof(ctx, imported)
	require.NoError(t, err)
	asked := stack.EnterpriseOIDCParams{PrincipalID: principal.ID, Purpose: "canary", IdempotencyKey: authorityKey()}
	_, err = s.api.CreateEnterpriseOIDCRequest(ctx, asked)
	require.NoError(t, err)
	bound := s.binding(func(p *stack.AuthorityBindingParams) { p.PrincipalID, p.ProofIDs = principal.ID, []string{proof.ID} })
	binding, err := s.api.CreateBinding(ctx, bound)
	require.NoError(t, err)
	answer, err := s.api.CreateBinding(ctx, bound)
	require.NoError(t, err)
	assert.Equal(t, binding, answer)

	_, err = s.api.RevokeProof(ctx, proof.ID, authorityReason("x"))
	require.NoError(t, err)
	_, err = s.api.EraseProof(ctx, proof.ID, authorityWrite())
	require.NoError(t, err)
	guess := imported
	guess.Content = stack.NewSecret("I do not agree")
	for _, params := range []stack.ProofImportParams{imported, guess} {
		require.ErrorIs(t, failure(s.api.ImportProof(ctx, params)), stack.ErrAuthorityErased, "nothing tells which it was")
	}
	_, err = s.api.CreateBinding(ctx, bound)
	require.NoError(t, err, "it is not erased")

	erase := authorityWrite()
	tomb, err := s.api.ErasePrincipal(ctx, principal.ID, erase)
	require.NoError(t, err)
	again, err := s.api.ErasePrincipal(ctx, principal.ID, erase)
	require.NoError(t, err)
	assert.Equal(t, tomb, again)
	for name, refused := range map[string]error{
		"principal": failure(s.api.CreatePrincipal(ctx, create)),
		"binding":   failure(s.api.CreateBinding(ctx, bound)),
		"request":   failure(s.api.CreateEnterpriseOIDCRequest(ctx, asked)),
	} {
		require.ErrorIs(t, refused, stack.ErrAuthorityErased, name)
	}
	other := s.newPrincipal(t)
	assert.NotEqual(t, principal.ID, other.ID)
}
