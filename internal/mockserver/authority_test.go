package mockserver

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// authorised makes one of everything, with a binding in force for a fresh agent.
func authorised(t *testing.T, s *Server, client *stack.Client) (*stack.AuthorityBinding, *stack.ReceiverChallenge) {
	t.Helper()
	ctx, api, n := t.Context(), client.Authority, 0
	key := func() string {
		n++
		return fmt.Sprint("k", n)
	}
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "bot"})
	require.NoError(t, err)
	principal, err := api.CreatePrincipal(ctx, stack.PrincipalParams{Kind: "person", DisplayName: "canary", IdempotencyKey: key()})
	require.NoError(t, err)
	proof, err := api.ImportProof(ctx, stack.ProofImportParams{PrincipalID: principal.ID, Kind: "consent",
		Content: stack.NewSecret("canary-content"), IdempotencyKey: key()})
	require.NoError(t, err)
	profile, err := api.CreateProfileVersion(ctx, stack.ProfileVersionParams{ProfileKind: "receiver", IdempotencyKey: key()})
	require.NoError(t, err)
	_, err = api.ActivateProfileVersion(ctx, profile.ID, stack.ProfileActivateParams{ProfileKind: "receiver", IdempotencyKey: key()})
	require.NoError(t, err)
	receiver, err := api.CreateReceiver(ctx, stack.ReceiverParams{Name: "R", Hosts: []string{"r.example"}, IdempotencyKey: key()})
	require.NoError(t, err)
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	k, err := api.AddReceiverKey(ctx, receiver.ID, stack.ReceiverKeyParams{PublicKey: base64.RawURLEncoding.EncodeToString(public),
		IdempotencyKey: key()})
	require.NoError(t, err)
	challenge, err := api.CreateReceiverVerificationChallenge(ctx, receiver.ID, stack.AuthorityWriteParams{IdempotencyKey: key()})
	require.NoError(t, err)
	require.NoError(t, s.AnswerReceiverChallenge(challenge.ID, k.ID, ed25519.Sign(private, []byte(challenge.Challenge))))
	_, err = api.VerifyReceiver(ctx, receiver.ID, stack.AuthorityWriteParams{IdempotencyKey: key()})
	require.NoError(t, err)
	binding, err := api.CreateBinding(ctx, stack.AuthorityBindingParams{PrincipalID: principal.ID, AgentID: agent.ID,
		ReceiverID: receiver.ID, Services: []string{"slack"}, ProofIDs: []string{proof.ID}, Purpose: "x", IdempotencyKey: key()})
	require.NoError(t, err)
	requests, err := api.CreateApprovalRequests(ctx, binding.ID, stack.ApprovalRequestParams{Approvers: []string{"a"}, IdempotencyKey: key()})
	require.NoError(t, err)
	require.NoError(t, s.ApproveAuthority(requests[0].ID))
	binding, err = api.ActivateBinding(ctx, binding.ID, stack.BindingActivateParams{IdempotencyKey: key()})
	require.NoError(t, err)
	challenge, err = api.CreateReceiverVerificationChallenge(ctx, receiver.ID, stack.AuthorityWriteParams{IdempotencyKey: key()})
	require.NoError(t, err)
	return binding, challenge
}

func TestAuthorityOfAnotherOperator(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	binding, _ := authorised(t, s, client)
	ctx := t.Context()
	session, err := client.Authority.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: binding.PrincipalID,
		Kind: "consent", Purpose: "x", IdempotencyKey: "s"})
	require.NoError(t, err)
	oidc, err := client.Authority.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: binding.PrincipalID,
		Purpose: "x", IdempotencyKey: "o"})
	require.NoError(t, err)
	use := &stack.AuthorityUse{ID: "use_1"}
	op.authority.uses.put(use.ID, use)
	presentation := &stack.AuthorityPresentation{ID: "pres_1"}
	op.authority.presentations.put(presentation.ID, presentation)
	receiver, err := client.Authority.GetReceiver(ctx, binding.ReceiverID)
	require.NoError(t, err)

	_, stranger := newStranger(t, s)
	own, _ := authorised(t, s, stranger)
	agents, err := stranger.Agents.List(ctx)
	require.NoError(t, err)
	mission, err := stranger.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x"})
	require.NoError(t, err)

	api, n := stranger.Authority, 0
	write := func() stack.AuthorityWriteParams {
		n++
		return stack.AuthorityWriteParams{IdempotencyKey: fmt.Sprint("w", n)}
	}
	reason := func() stack.AuthorityReasonParams {
		return stack.AuthorityReasonParams{ReasonCode: "x", IdempotencyKey: write().IdempotencyKey}
	}
	version := stack.AuthorityVersionParams{}
	bind := func(change func(*stack.AuthorityBindingParams)) error {
		p := stack.AuthorityBindingParams{PrincipalID: own.PrincipalID, AgentID: own.AgentID, ReceiverID: own.ReceiverID,
			Services: own.Services, ProofIDs: []string{own.Proofs[0].ProofID}, Purpose: "x", IdempotencyKey: write().IdempotencyKey}
		change(&p)
		return failure(api.CreateBinding(ctx, p))
	}
	proofID := binding.Proofs[0].ProofID
	for name, err := range map[string]error{
		"principal": failure(api.GetPrincipal(ctx, binding.PrincipalID)),
		"archive":   failure(api.ArchivePrincipal(ctx, binding.PrincipalID, reason())),
		"erase":     failure(api.ErasePrincipal(ctx, binding.PrincipalID, write())),
		"oidc":      failure(api.GetEnterpriseOIDCRequest(ctx, oidc.ID)),
		"oidc create": failure(api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: binding.PrincipalID,
			Purpose: "x", IdempotencyKey: "a"})),
		"session": failure(api.GetProofCollectionSession(ctx, session.ID)),
		"session create": failure(api.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: binding.PrincipalID,
			Kind: "consent", Purpose: "x", IdempotencyKey: "a"})),
		"import": failure(api.ImportProof(ctx, stack.ProofImportParams{PrincipalID: binding.PrincipalID, Kind: "consent",
			Content: stack.NewSecret("x"), IdempotencyKey: "a"})),
		"import version": failure(api.ImportProof(ctx, stack.ProofImportParams{PrincipalID: own.PrincipalID, Kind: "consent",
			Content: stack.NewSecret("x"), ProofID: proofID, IdempotencyKey: "b"})),
		"proof":            failure(api.GetProof(ctx, proofID, version)),
		"proof revoke":     failure(api.RevokeProof(ctx, proofID, reason())),
		"proof erase":      failure(api.EraseProof(ctx, proofID, write())),
		"binding":          failure(api.GetBinding(ctx, binding.ID, version)),
		"binding version":  bind(func(p *stack.AuthorityBindingParams) { p.BindingID = binding.ID }),
		"of principal":     bind(func(p *stack.AuthorityBindingParams) { p.PrincipalID = binding.PrincipalID }),
		"of agent":         bind(func(p *stack.AuthorityBindingParams) { p.AgentID = binding.AgentID }),
		"of receiver":      bind(func(p *stack.AuthorityBindingParams) { p.ReceiverID = binding.ReceiverID }),
		"of proof":         bind(func(p *stack.AuthorityBindingParams) { p.ProofIDs = []string{proofID} }),
		"requests":         failure(api.ListApprovalRequests(ctx, binding.ID)),
		"requests create":  failure(api.CreateApprovalRequests(ctx, binding.ID, stack.ApprovalRequestParams{Approvers: []string{"a"}, IdempotencyKey: "a"})),
		"activate":         failure(api.ActivateBinding(ctx, binding.ID, stack.BindingActivateParams{IdempotencyKey: "a"})),
		"delegate":         failure(api.DelegateBinding(ctx, binding.ID, stack.BindingDelegateParams{AgentID: own.AgentID, IdempotencyKey: "a"})),
		"delegate to":      failure(api.DelegateBinding(ctx, own.ID, stack.BindingDelegateParams{AgentID: binding.AgentID, IdempotencyKey: "a"})),
		"binding revoke":   failure(api.RevokeBinding(ctx, binding.ID, reason())),
		"binding erase":    failure(api.EraseBinding(ctx, binding.ID, write())),
		"receiver":         failure(api.GetReceiver(ctx, receiver.ID)),
		"challenge":        failure(api.CreateReceiverVerificationChallenge(ctx, receiver.ID, write())),
		"verify":           failure(api.VerifyReceiver(ctx, receiver.ID, write())),
		"key":              failure(api.AddReceiverKey(ctx, receiver.ID, stack.ReceiverKeyParams{PublicKey: receiver.Keys[0].PublicKey, IdempotencyKey: "a"})),
		"key revoke":       failure(api.RevokeReceiverKey(ctx, receiver.ID, receiver.Keys[0].ID, reason())),
		"profile":          failure(api.ActivateProfileVersion(ctx, binding.ReceiverProfileVersionID, stack.ProfileActivateParams{ProfileKind: "receiver", IdempotencyKey: "a"})),
		"use":              failure(api.GetUse(ctx, use.ID)),
		"presentation":     failure(api.GetPresentation(ctx, presentation.ID)),
		"presented, erase": failure(api.ErasePresentation(ctx, presentation.ID, write())),
		"passport": failure(stranger.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: agents[0].ID,
			MissionIDs: []string{mission.MissionID}, Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}},
			AuthorityBindingIDs: []string{binding.ID}})),
		"mission": failure(stranger.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x", AuthorityBindingIDs: []string{binding.ID}})),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	got, err := client.Authority.GetBinding(ctx, binding.ID, version)
	require.NoError(t, err)
	assert.Equal(t, binding, got, "and nothing has happened to it")
	for name, count := range map[string]func() (int, error){
		"principals":    func() (int, error) { list, err := api.ListPrincipals(ctx); return len(list), err },
		"proofs":        func() (int, error) { list, err := api.ListProofs(ctx); return len(list), err },
		"bindings":      func() (int, error) { list, err := api.ListBindings(ctx); return len(list), err },
		"receivers":     func() (int, error) { list, err := api.ListReceivers(ctx); return len(list), err },
		"uses":          func() (int, error) { list, err := api.ListUses(ctx); return len(list) + 1, err },
		"presentations": func() (int, error) { list, err := api.ListPresentations(ctx); return len(list) + 1, err },
	} {
		n, err := count()
		require.NoError(t, err)
		assert.Equal(t, 1, n, "%s: its own only", name)
	}
}

// The content of a proof lies sealed, and an erasure leaves none of it.
func TestProofsAreSealedAndWiped(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	binding, _ := authorised(t, s, client)
	pr, ok := op.authority.proofs.get(binding.Proofs[0].ProofID)
	require.True(t, ok)
	v := pr.newest()
	assert.NotContains(t, fmt.Sprintf("%+v %s", v, v.sealed), "canary")
	plain, err := s.vault.Open(v.sealed, op.id+"/"+v.ID)
	require.NoError(t, err)
	assert.Equal(t, "canary-content", string(plain))

	session, err := client.Authority.CreateProofCollectionSession(t.Context(), stack.ProofCollectionParams{PrincipalID: binding.PrincipalID,
		Kind: "consent", Purpose: "the purpose", IdempotencyKey: "s"})
	require.NoError(t, err)
	require.NoError(t, s.ApproveAuthority(session.ID))
	session, err = client.Authority.GetProofCollectionSession(t.Context(), session.ID)
	require.NoError(t, err)
	collected, ok := op.authority.proofs.get(session.ProofID)
	require.True(t, ok)
	plain, err = s.vault.Open(collected.newest().sealed, op.id+"/"+session.ProofID)
	require.NoError(t, err)
	assert.Contains(t, string(plain), `"agreed_to":"the purpose"`)

	_, err = client.Authority.ErasePrincipal(t.Context(), binding.PrincipalID, stack.AuthorityWriteParams{IdempotencyKey: "e"})
	require.NoError(t, err)
	for _, p := range []*proof{pr, collected} {
		_, err = s.vault.Open(p.newest().sealed, op.id+"/"+p.newest().ID)
		require.Error(t, err)
	}
	assert.Zero(t, op.authority.decisions.len(), "the pages are gone with the names on them")
	for _, row := range s.Audit() {
		assert.NotContains(t, fmt.Sprintf("%+v", row), "canary")
	}
}

func TestAuthorityRecordsAreBounded(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	for i := range maxAuthorityRecords + 2 {
		u := &stack.AuthorityUse{ID: fmt.Sprint("use_", i), UsedAt: time.Unix(int64(i), 0).UTC()}
		keep(&op.authority.uses, u.ID, u)
	}
	assert.Equal(t, maxAuthorityRecords, op.authority.uses.len())
	_, err := client.Authority.GetUse(t.Context(), "use_1")
	require.ErrorIs(t, err, stack.ErrNotFound, "the oldest is forgotten")
	_, err = client.Authority.GetUse(t.Context(), "use_2")
	require.NoError(t, err)
	list, err := client.Authority.ListUses(t.Context())
	require.NoError(t, err)
	require.Len(t, list, maxAuthorityList)
	assert.Equal(t, fmt.Sprint("use_", maxAuthorityRecords+1), list[0].ID)
}

// Whatever a receiver sends, it is told what is wrong with it, and only the one signature is taken.
func FuzzReceiverAnswer(f *testing.F) {
	for _, seed := range []string{"", "AAAA", "***", strings.Repeat("A", 86), strings.Repeat("-", 86), "AA==", "\x00", "é"} {
		f.Add("rky_x", seed)
	}
	s := New(Options{})
	client, err := stack.New(stack.WithAPIKey(s.first.APIKey), stack.WithBaseURL("http://mock.test"),
		stack.WithHTTPClient(&http.Client{Transport: direct{s}}))
	require.NoError(f, err)
	op, ok := s.operatorByID(s.first.OperatorID)
	require.True(f, ok)
	var challenge *stack.ReceiverChallenge
	var keyID string
	f.Fuzz(func(t *testing.T, id, signature string) {
		if challenge == nil {
			_, challenge = authorised(t, s, client)
			r, _ := op.authority.receivers.get(challenge.ReceiverID)
			keyID = r.Keys[0].ID
		}
		for _, name := range []string{id, keyID} {
			in := answerChallengeIn{ChallengeID: challenge.ID}
			in.Body.KeyID, in.Body.Signature = name, signature
			_, err := s.answerChallenge(t.Context(), nil, in)
			var refused *apiError
			require.ErrorAs(t, err, &refused)
			assert.NotEmpty(t, refused.details["check"])
		}
		ch, ok := op.authority.challenges.get(challenge.ID)
		require.True(t, ok)
		assert.Empty(t, ch.answeredWith)
	})
}
