package stack_test

import (
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// authorityWrites is every call that changes something, with a given idempotency key. Each can be made once on a fresh stage.
func authorityWrites(t *testing.T, s *authorityStage) map[string]func(idempotencyKey string) (any, error) {
	t.Helper()
	ctx, api := t.Context(), s.api
	archived, gone := s.newPrincipal(t), s.newPrincipal(t)
	revoked, erasable := s.newProof(t, s.principal.ID), s.newProof(t, s.principal.ID)
	_, err := api.RevokeProof(ctx, erasable.ID, authorityReason("x"))
	require.NoError(t, err)
	asked, approved, fallen, dead := s.draft(t), s.draft(t), s.draft(t), s.draft(t)
	require.NoError(t, s.ApproveAuthority(s.askApproval(t, approved.ID, "boss")[0].ID))
	lent := s.active(t, func(p *stack.AuthorityBindingParams) { p.MayDelegate = true })
	other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	ready, err := api.CreateReceiver(ctx, stack.ReceiverParams{Name: "R", Hosts: []string{"r.example"}, IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	readyKey := s.addKey(t, ready.ID, s.signer)
	challenge, err := api.CreateReceiverVerificationChallenge(ctx, ready.ID, authorityWrite())
	require.NoError(t, err)
	require.NoError(t, s.AnswerReceiverChallenge(challenge.ID, readyKey.ID, ed25519.Sign(s.signer, []byte(challenge.Challenge))))
	_, unused, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	spare := s.addKey(t, s.receiver.ID, unused)
	_, fresh, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	profile, err := api.CreateProfileVersion(ctx, stack.ProfileVersionParams{ProfileKind: stack.ProfileProof, IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	presented := s.active(t)
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#a"), s.issue(t, carrying(presented.ID))))
	require.NoError(t, err)
	shown, err := api.ListPresentations(ctx)
	require.NoError(t, err)
	require.Len(t, shown, 1)

	return map[string]func(string) (any, error){
		"create_enterprise_oidc_request": func(k string) (any, error) {
			return api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: s.principal.ID, Purpose: "x",
				IdempotencyKey: k})
		},
		"create_principal": func(k string) (any, error) {
			return api.CreatePrincipal(ctx, stack.PrincipalParams{Kind: stack.PrincipalOrganization, DisplayName: "Acme",
				IdempotencyKey: k})
		},
		"archive_principal": func(k string) (any, error) {
			return api.ArchivePrincipal(ctx, archived.ID, stack.AuthorityReasonParams{ReasonCode: "left", IdempotencyKey: k})
		},
		"erase_principal": func(k string) (any, error) {
			return api.ErasePrincipal(ctx, gone.ID, stack.AuthorityWriteParams{IdempotencyKey: k})
		},
		"import_proof": func(k string) (any, error) {
			return api.ImportProof(ctx, stack.ProofImportParams{PrincipalID: s.principal.ID, Kind: stack.ProofMandate,
				Content: stack.NewSecret("text"), IdempotencyKey: k})
		},
		"create_proof_collection_session": func(k string) (any, error) {
			return api.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: s.principal.ID,
				Kind: stack.ProofConsent, Purpose: "x", IdempotencyKey: k})
		},
		"revoke_proof": func(k string) (any, error) {
			return api.RevokeProof(ctx, revoked.ID, stack.AuthorityReasonParams{ReasonCode: "x", IdempotencyKey: k})
		},
		"erase_proof": func(k string) (any, error) {
			return api.EraseProof(ctx, erasable.ID, stack.AuthorityWriteParams{IdempotencyKey: k})
		},
		"create_binding": func(k string) (any, error) {
			return api.CreateBinding(ctx, s.binding(func(p *stack.AuthorityBindingParams) { p.IdempotencyKey = k }))
		},
		"create_approval_requests": func(k string) (any, error) {
			return api.CreateApprovalRequests(ctx, asked.ID, stack.ApprovalRequestParams{Approvers: []string{"a"}, IdempotencyKey: k})
		},
		"activate_binding": func(k string) (any, error) {
			return api.ActivateBinding(ctx, approved.ID, stack.BindingActivateParams{IdempotencyKey: k})
		},
		"delegate_binding": func(k string) (any, error) {
			return api.DelegateBinding(ctx, lent.ID, stack.BindingDelegateParams{AgentID: other.ID, IdempotencyKey: k})
		},
		"revoke_binding": func(k string) (any, error) {
			return api.RevokeBinding(ctx, fallen.ID, stack.AuthorityReasonParams{ReasonCode: "x", IdempotencyKey: k})
		},
		"erase_binding": func(k string) (any, error) {
			return api.EraseBinding(ctx, dead.ID, stack.AuthorityWriteParams{IdempotencyKey: k})
		},
		"create_receiver": func(k string) (any, error) {
			return api.CreateReceiver(ctx, stack.ReceiverParams{Name: "Bank", Hosts: []string{"bank.example"}, IdempotencyKey: k})
		},
		"create_receiver_verification_challenge": func(k string) (any, error) {
			return api.CreateReceiverVerificationChallenge(ctx, s.receiver.ID, stack.AuthorityWriteParams{IdempotencyKey: k})
		},
		"verify_receiver": func(k string) (any, error) {
			return api.VerifyReceiver(ctx, ready.ID, stack.AuthorityWriteParams{IdempotencyKey: k})
		},
		"add_receiver_key": func(k string) (any, error) {
			return api.AddReceiverKey(ctx, s.receiver.ID, stack.ReceiverKeyParams{PublicKey: publicKey(fresh), IdempotencyKey: k})
		},
		"revoke_receiver_key": func(k string) (any, error) {
			return api.RevokeReceiverKey(ctx, s.receiver.ID, spare.ID,
				stack.AuthorityReasonParams{ReasonCode: "x", IdempotencyKey: k})
		},
		"create_profile_version": func(k string) (any, error) {
			return api.CreateProfileVersion(ctx, stack.ProfileVersionParams{ProfileKind: stack.ProfileApproval, IdempotencyKey: k})
		},
		"activate_profile_version": func(k string) (any, error) {
			return api.ActivateProfileVersion(ctx, profile.ID, stack.ProfileActivateParams{ProfileKind: stack.ProfileProof,
				IdempotencyKey: k})
		},
		"erase_presentation": func(k string) (any, error) {
			return api.ErasePresentation(ctx, shown[0].ID, stack.AuthorityWriteParams{IdempotencyKey: k})
		},
	}
}

// Every change: without a key it is not sent, its key lets it happen once, and it is audited once.
func TestAuthorityWritesHappenOnce(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	writes := authorityWrites(t, s)
	assert.Len(t, writes, 22)
	for name, call := range writes {
		sent := s.Requests()
		_, err := call("")
		requireParam(t, err, "idempotency_key")
		assert.Equal(t, sent, s.Requests(), "%s: nothing is sent", name)

		before := len(s.Audit())
		k := "once-" + name
		first, err := call(k)
		require.NoError(t, err, name)
		rows := s.Audit()[before:]
		require.NotEmpty(t, rows, name)
		for _, row := range rows {
			assert.True(t, strings.HasPrefix(row.Action, "authority."), "%s: %s", name, row.Action)
			assert.NotEmpty(t, row.TraceID, name)
		}
		again, err := call(k)
		require.NoError(t, err, name)
		assert.Equal(t, first, again, name)
		assert.Len(t, s.Audit(), before+len(rows), "%s: a repetition changes nothing", name)
	}
	s.RequireAuditIntact(t)
}

// What the server says to other clients: a key must be there, and belongs to one request.
func TestAuthorityKeyIsMandatory(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	err := s.client.Do(t.Context(), "POST", "/v1/authority/principals", map[string]any{"kind": "person", "display_name": "x"}, nil)
	requireField(t, err, "header Idempotency-Key")

	params := stack.PrincipalParams{Kind: stack.PrincipalPerson, DisplayName: "A", IdempotencyKey: "one"}
	_, err = s.api.CreatePrincipal(t.Context(), params)
	require.NoError(t, err)
	params.DisplayName = "B"
	_, err = s.api.CreatePrincipal(t.Context(), params)
	requireRefused(t, err, http.StatusConflict, "IDEMPOTENCY_KEY_REUSED")
	other := s.newPrincipal(t)
	_, err = s.api.ErasePrincipal(t.Context(), other.ID, stack.AuthorityWriteParams{IdempotencyKey: "erase"})
	require.NoError(t, err)
	_, err = s.api.ErasePrincipal(t.Context(), s.principal.ID, stack.AuthorityWriteParams{IdempotencyKey: "erase"})
	requireRefused(t, err, http.StatusConflict, "IDEMPOTENCY_KEY_REUSED")
	list, err := s.api.ListPrincipals(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 2)
}

func TestAuthorityParamErrors(t *testing.T) {
	t.Parallel()
	client, err := stack.New(stack.WithAPIKey("sk_live_x"), stack.WithBaseURL("http://stack.mock"),
		stack.WithHTTPClient(&http.Client{Transport: noCalls{t}}))
	require.NoError(t, err)
	ctx, api := t.Context(), client.Authority
	binding := func(change func(*stack.AuthorityBindingParams)) error {
		p := stack.AuthorityBindingParams{PrincipalID: "p", AgentID: "a", ReceiverID: "r", Services: []string{"s"},
			ProofIDs: []string{"x"}, Purpose: "y", IdempotencyKey: "k"}
		change(&p)
		return failure(api.CreateBinding(ctx, p))
	}
	reason := stack.AuthorityReasonParams{IdempotencyKey: "k"}
	for name, tt := range map[string]struct {
		err   error
		param string
	}{
		"OIDC, principal":    {failure(api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{Purpose: "x"})), "principal_id"},
		"OIDC, purpose":      {failure(api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: "x"})), "purpose"},
		"OIDC, id":           {failure(api.GetEnterpriseOIDCRequest(ctx, "")), "request_id"},
		"principal, kind":    {failure(api.CreatePrincipal(ctx, stack.PrincipalParams{DisplayName: "x"})), "kind"},
		"principal, name":    {failure(api.CreatePrincipal(ctx, stack.PrincipalParams{Kind: "person"})), "display_name"},
		"principal, id":      {failure(api.GetPrincipal(ctx, "..")), "principal_id"},
		"archive, reason":    {failure(api.ArchivePrincipal(ctx, "x", reason)), "reason_code"},
		"archive, id":        {failure(api.ArchivePrincipal(ctx, "", authorityReason("x"))), "principal_id"},
		"erase, id":          {failure(api.ErasePrincipal(ctx, "", authorityWrite())), "principal_id"},
		"proof, principal":   {failure(api.ImportProof(ctx, stack.ProofImportParams{})), "principal_id"},
		"proof, kind":        {failure(api.ImportProof(ctx, stack.ProofImportParams{PrincipalID: "x"})), "kind"},
		"proof, content":     {failure(api.ImportProof(ctx, stack.ProofImportParams{PrincipalID: "x", Kind: "consent"})), "content"},
		"session, principal": {failure(api.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{})), "principal_id"},
		"session, kind": {failure(api.CreateProofCollectionSession(ctx,
			stack.ProofCollectionParams{PrincipalID: "x"})), "kind"},
		"session, purpose": {failure(api.CreateProofCollectionSession(ctx,
			stack.ProofCollectionParams{PrincipalID: "x", Kind: "consent"})), "purpose"},
		"session, id":       {failure(api.GetProofCollectionSession(ctx, "")), "session_id"},
		"proof, id":         {failure(api.GetProof(ctx, "", authorityVersion(0))), "proof_id"},
		"proof, version":    {failure(api.GetProof(ctx, "x", authorityVersion(-1))), "version"},
		"revoke, proof":     {failure(api.RevokeProof(ctx, "", authorityReason("x"))), "proof_id"},
		"revoke, reason":    {failure(api.RevokeProof(ctx, "x", reason)), "reason_code"},
		"erase, proof":      {failure(api.EraseProof(ctx, "", authorityWrite())), "proof_id"},
		"binding principal": {binding(func(p *stack.AuthorityBindingParams) { p.PrincipalID = "" }), "principal_id"},
		"binding agent":     {binding(func(p *stack.AuthorityBindingParams) { p.AgentID = "" }), "agent_id"},
		"binding receiver":  {binding(func(p *stack.AuthorityBindingParams) { p.ReceiverID = "" }), "receiver_id"},
		"binding purpose":   {binding(func(p *stack.AuthorityBindingParams) { p.Purpose = "" }), "purpose"},
		"binding services":  {binding(func(p *stack.AuthorityBindingParams) { p.Services = nil }), "services"},
		"binding proofs":    {binding(func(p *stack.AuthorityBindingParams) { p.ProofIDs = nil }), "proof_ids"},
		"binding uses":      {binding(func(p *stack.AuthorityBindingParams) { p.MaxUses = -1 }), "max_uses"},
		"binding, id":       {failure(api.GetBinding(ctx, "", authorityVersion(0))), "binding_id"},
		"binding, version":  {failure(api.GetBinding(ctx, "x", authorityVersion(-1))), "version"},
		"approvers":         {failure(api.CreateApprovalRequests(ctx, "x", stack.ApprovalRequestParams{})), "approvers"},
		"approvals, id":     {failure(api.ListApprovalRequests(ctx, "")), "binding_id"},
		"activate, version": {failure(api.ActivateBinding(ctx, "x", stack.BindingActivateParams{Version: -1})), "version"},
		"activate, id":      {failure(api.ActivateBinding(ctx, "", stack.BindingActivateParams{IdempotencyKey: "k"})), "binding_id"},
		"delegate, agent":   {failure(api.DelegateBinding(ctx, "x", stack.BindingDelegateParams{})), "agent_id"},
		"delegate, uses": {failure(api.DelegateBinding(ctx, "x",
			stack.BindingDelegateParams{AgentID: "a", MaxUses: -1})), "max_uses"},
		"revoke, binding":  {failure(api.RevokeBinding(ctx, "", authorityReason("x"))), "binding_id"},
		"erase, binding":   {failure(api.EraseBinding(ctx, "", authorityWrite())), "binding_id"},
		"receiver, name":   {failure(api.CreateReceiver(ctx, stack.ReceiverParams{Hosts: []string{"x"}})), "name"},
		"receiver, hosts":  {failure(api.CreateReceiver(ctx, stack.ReceiverParams{Name: "x"})), "hosts"},
		"receiver, id":     {failure(api.GetReceiver(ctx, "")), "receiver_id"},
		"challenge, id":    {failure(api.CreateReceiverVerificationChallenge(ctx, "", authorityWrite())), "receiver_id"},
		"verify, id":       {failure(api.VerifyReceiver(ctx, "", authorityWrite())), "receiver_id"},
		"key":              {failure(api.AddReceiverKey(ctx, "x", stack.ReceiverKeyParams{})), "public_key"},
		"key, id":          {failure(api.RevokeReceiverKey(ctx, "x", "", authorityReason("x"))), "key_id"},
		"profile":          {failure(api.CreateProfileVersion(ctx, stack.ProfileVersionParams{})), "profile_kind"},
		"profile activate": {failure(api.ActivateProfileVersion(ctx, "x", stack.ProfileActivateParams{})), "profile_kind"},
		"profile, id": {failure(api.ActivateProfileVersion(ctx, "",
			stack.ProfileActivateParams{ProfileKind: "proof", IdempotencyKey: "k"})), "profile_id"},
		"use, id":             {failure(api.GetUse(ctx, "")), "use_id"},
		"presentation, id":    {failure(api.GetPresentation(ctx, "")), "presentation_id"},
		"presentation, erase": {failure(api.ErasePresentation(ctx, "", authorityWrite())), "presentation_id"},
		"a key that no header carries": {failure(api.ErasePresentation(ctx, "x",
			stack.AuthorityWriteParams{IdempotencyKey: "é"})), "Idempotency-Key"},
	} {
		var param *stack.ParamError
		require.ErrorAs(t, tt.err, &param, name)
		assert.Equal(t, tt.param, param.Param, name)
	}
}

// An answer that is not wrapped as the route promises is an error, and not an empty result.
func TestAuthorityAnswersAreUnwrapped(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{}`:                     `it has no "principal"`,
		`{"principals":[]}`:      `it has no "principal"`,
		`{"principal":null}`:     `it has no "principal"`,
		`{"principal":[]}`:       `"principal": json: cannot unmarshal`,
		`[]`:                     "cannot unmarshal array",
		`{"principal":{"id":7}}`: `"principal": json: cannot unmarshal number`,
	} {
		client, err := stack.New(stack.WithAPIKey("sk_live_x"), stack.WithBaseURL("http://stack.mock"),
			stack.WithHTTPClient(&http.Client{Transport: transportFunc(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
			})}))
		require.NoError(t, err)
		_, err = client.Authority.GetPrincipal(t.Context(), "prn_x")
		var decode *stack.DecodeError
		require.ErrorAs(t, err, &decode, body)
		assert.Equal(t, "/v1/authority/principals/{principal_id}", decode.Route)
		assert.ErrorContains(t, err, want, body)
	}
}

// A change is sent again after a failure that may have lost its answer: its key makes that harmless.
func TestAuthorityWritesAreRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		client, err := stack.New(stack.WithAPIKey("sk_live_x"), stack.WithBaseURL("http://stack.mock"),
			stack.WithHTTPClient(&http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
				if keys = append(keys, r.Header.Get("Idempotency-Key")); len(keys) == 1 {
					return nil, errors.New("cut")
				}
				return &http.Response{StatusCode: 200, Header: http.Header{},
					Body: io.NopCloser(strings.NewReader(`{"principal":{"id":"prn_1"}}`))}, nil
			})}))
		require.NoError(t, err)
		_, err = client.Authority.CreatePrincipal(t.Context(), stack.PrincipalParams{Kind: stack.PrincipalPerson, DisplayName: "x",
			IdempotencyKey: "k1"})
		require.NoError(t, err)
		assert.Equal(t, []string{"k1", "k1"}, keys)
	})
}

func TestAuthorityLogsNobody(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	logger := slog.New(slog.NewTextHandler(&out, nil))
	logger.Info("x", "a", stack.PrincipalParams{Kind: stack.PrincipalPerson, DisplayName: "canary"},
		"b", stack.Principal{ID: "prn_1", DisplayName: "canary", ExternalRef: "canary"},
		"c", stack.ProofImportParams{PrincipalID: "prn_1", Content: stack.NewSecret("canary")})
	assert.NotContains(t, out.String(), "canary")
	assert.Contains(t, out.String(), "prn_1")
}
