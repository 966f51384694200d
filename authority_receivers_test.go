package stack_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestAuthorityReceivers(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	hosts := []string{"bank.example", "api.bank.example:8443"}
	r, err := s.api.CreateReceiver(ctx, stack.ReceiverParams{Name: "Bank", Hosts: hosts, IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(r.ID, "rcv_"))
	assert.Equal(t, stack.Receiver{ID: r.ID, OperatorID: s.OperatorID(), Name: "Bank", Hosts: hosts,
		Status: stack.ReceiverUnverified, Keys: []stack.ReceiverKey{}, CreatedAt: r.CreatedAt}, *r)
	requireState(t, failure(s.api.CreateReceiverVerificationChallenge(ctx, r.ID, authorityWrite())), "without a key")
	requireState(t, failure(s.api.VerifyReceiver(ctx, r.ID, authorityWrite())), "without a challenge")

	k := s.addKey(t, r.ID, s.signer)
	assert.Equal(t, stack.ReceiverKey{ID: k.ID, ReceiverID: r.ID, Algorithm: "Ed25519", PublicKey: publicKey(s.signer),
		Status: stack.ReceiverKeyActive, CreatedAt: k.CreatedAt}, *k)
	challenge, err := s.api.CreateReceiverVerificationChallenge(ctx, r.ID, authorityWrite())
	require.NoError(t, err)
	assert.Equal(t, r.ID, challenge.ReceiverID)
	assert.Contains(t, challenge.Challenge, r.ID, "it says whose it is")
	requireState(t, failure(s.api.VerifyReceiver(ctx, r.ID, authorityWrite())), "unanswered")

	// The receiver answers by itself, without a key of the API.
	answer, err := json.Marshal(map[string]string{"key_id": k.ID,
		"signature": base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.signer, []byte(challenge.Challenge)))})
	require.NoError(t, err)
	status, body := s.fetch(t, "POST", challenge.ResponseURL, string(answer))
	require.Equal(t, http.StatusOK, status, body)
	assert.JSONEq(t, `{"challenge_id":"`+challenge.ID+`","status":"answered"}`, body)
	got, err := s.api.GetReceiver(ctx, r.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.ReceiverUnverified, got.Status)
	verified, err := s.api.VerifyReceiver(ctx, r.ID, authorityWrite())
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ReceiverVerified, k.ID, false}, []any{verified.Status, verified.VerifiedKeyID, verified.VerifiedAt.IsZero()})
	assert.Equal(t, []stack.ReceiverKey{*k}, verified.Keys)
	requireState(t, failure(s.api.VerifyReceiver(ctx, r.ID, authorityWrite())), "without a challenge")
	list, err := s.api.ListReceivers(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{r.ID, s.receiver.ID}, []string{list[0].ID, list[1].ID})
	assert.Equal(t, *verified, list[0])

	for name, err := range map[string]error{
		"get":       failure(s.api.GetReceiver(ctx, "rcv_x")),
		"challenge": failure(s.api.CreateReceiverVerificationChallenge(ctx, "rcv_x", authorityWrite())),
		"verify":    failure(s.api.VerifyReceiver(ctx, "rcv_x", authorityWrite())),
		"add": failure(s.api.AddReceiverKey(ctx, "rcv_x", stack.ReceiverKeyParams{PublicKey: publicKey(s.signer),
			IdempotencyKey: authorityKey()})),
		"revoke":       failure(s.api.RevokeReceiverKey(ctx, "rcv_x", k.ID, authorityReason("x"))),
		"key":          failure(s.api.RevokeReceiverKey(ctx, r.ID, "rky_x", authorityReason("x"))),
		"another's":    failure(s.api.RevokeReceiverKey(ctx, r.ID, s.receiver.Keys[0].ID, authorityReason("x"))),
		"escaped path": failure(s.api.RevokeReceiverKey(ctx, r.ID, "a/b", authorityReason("x"))),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	for field, params := range map[string]stack.ReceiverParams{
		"body.name":     {Name: " ", Hosts: hosts},
		"body.hosts":    {Name: "x", Hosts: make([]string, 17)},
		"body.hosts[1]": {Name: "x", Hosts: []string{"a.example", "a.example"}},
		"body.hosts[0]": {Name: "x", Hosts: []string{"https://bank.example"}},
	} {
		params.IdempotencyKey = authorityKey()
		requireField(t, failure(s.api.CreateReceiver(ctx, params)), field)
	}
	for _, host := range []string{"Bank.example", "*.example", "bank.example/x", "a b", "bank.example:", "ü.example"} {
		_, err = s.api.CreateReceiver(ctx, stack.ReceiverParams{Name: "x", Hosts: []string{host}, IdempotencyKey: authorityKey()})
		requireField(t, err, "body.hosts[0]")
	}
}

func TestAuthorityReceiverAnswers(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	_, other, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	k := s.receiver.Keys[0]
	stale, err := s.api.CreateReceiverVerificationChallenge(ctx, s.receiver.ID, authorityWrite())
	require.NoError(t, err)
	challenge, err := s.api.CreateReceiverVerificationChallenge(ctx, s.receiver.ID, authorityWrite())
	require.NoError(t, err)
	good := base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.signer, []byte(challenge.Challenge)))
	forged := base64.RawURLEncoding.EncodeToString(ed25519.Sign(other, []byte(challenge.Challenge)))
	replayed := base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.signer, []byte(stale.Challenge)))
	for name, tt := range map[string]struct {
		url, keyID, signature string
		status                int
		text                  string
	}{
		"unknown":         {challenge.ResponseURL + "x", k.ID, good, 404, "challenge not found"},
		"replaced":        {stale.ResponseURL, k.ID, replayed, 404, "challenge not found"},
		"unknown key":     {challenge.ResponseURL, "rky_x", good, 404, "receiver key not found"},
		"another key":     {challenge.ResponseURL, k.ID, forged, 403, "receiver_signature"},
		"other challenge": {challenge.ResponseURL, k.ID, replayed, 403, "receiver_signature"},
		"not base64url":   {challenge.ResponseURL, k.ID, "***", 400, "body.signature"},
		"too short":       {challenge.ResponseURL, k.ID, "AAAA", 400, "body.signature"},
	} {
		body, failed := json.Marshal(map[string]string{"key_id": tt.keyID, "signature": tt.signature})
		require.NoError(t, failed)
		status, answer := s.fetch(t, "POST", tt.url, string(body))
		assert.Equal(t, tt.status, status, "%s: %s", name, answer)
		assert.Contains(t, answer, tt.text, name)
	}
	requireState(t, failure(s.api.VerifyReceiver(ctx, s.receiver.ID, authorityWrite())), "unanswered")
	status, answer := s.fetch(t, "POST", challenge.ResponseURL, `{"key_id":"x"}`)
	assert.Equal(t, http.StatusBadRequest, status, answer)

	require.NoError(t, s.AnswerReceiverChallenge(challenge.ID, k.ID, ed25519.Sign(s.signer, []byte(challenge.Challenge))))
	_, err = s.api.RevokeReceiverKey(ctx, s.receiver.ID, k.ID, authorityReason("leaked"))
	require.NoError(t, err)
	requireState(t, failure(s.api.VerifyReceiver(ctx, s.receiver.ID, authorityWrite())), stack.ReceiverKeyRevoked)
	require.ErrorContains(t, s.AnswerReceiverChallenge(challenge.ID, k.ID, nil), "revoked")
}

func TestAuthorityReceiverChallengeExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newAuthorityStage(t)
		challenge, err := s.api.CreateReceiverVerificationChallenge(t.Context(), s.receiver.ID, authorityWrite())
		require.NoError(t, err)
		assert.Equal(t, s.Now().Add(15*time.Minute), challenge.ExpiresAt)
		signature := ed25519.Sign(s.signer, []byte(challenge.Challenge))
		time.Sleep(15*time.Minute - time.Nanosecond)
		require.NoError(t, s.AnswerReceiverChallenge(challenge.ID, s.receiver.Keys[0].ID, signature))
		time.Sleep(time.Nanosecond)
		require.ErrorContains(t, s.AnswerReceiverChallenge(challenge.ID, s.receiver.Keys[0].ID, signature), "expired")
		requireState(t, failure(s.api.VerifyReceiver(t.Context(), s.receiver.ID, authorityWrite())), "expired")
	})
}

func TestAuthorityReceiverKeys(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	add := func(text string) error {
		return failure(s.api.AddReceiverKey(ctx, s.receiver.ID, stack.ReceiverKeyParams{PublicKey: text, IdempotencyKey: authorityKey()}))
	}
	for _, text := range []string{"AAAA", "***", publicKey(s.signer) + "=", strings.Repeat("A", 44)} {
		requireField(t, add(text), "body.public_key")
	}
	requireState(t, add(publicKey(s.signer)), stack.ReceiverKeyActive)

	old := s.receiver.Keys[0]
	requireField(t, failure(s.api.RevokeReceiverKey(ctx, s.receiver.ID, old.ID, authorityReason("No!"))), "body.reason_code")
	_, next, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	nextKey := s.addKey(t, s.receiver.ID, next)
	binding := s.active(t)
	pass := s.issue(t, carrying(binding.ID))
	revoked, err := s.api.RevokeReceiverKey(ctx, s.receiver.ID, old.ID, authorityReason("rotated"))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ReceiverKeyRevoked, "rotated", false},
		[]any{revoked.Status, revoked.ReasonCode, revoked.RevokedAt.IsZero()})
	requireState(t, failure(s.api.RevokeReceiverKey(ctx, s.receiver.ID, old.ID, authorityReason("x"))), stack.ReceiverKeyRevoked)
	requireState(t, add(publicKey(s.signer)), stack.ReceiverKeyRevoked)
	r, err := s.api.GetReceiver(ctx, s.receiver.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ReceiverUnverified, "", true}, []any{r.Status, r.VerifiedKeyID, r.VerifiedAt.IsZero()})
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#a"), pass))
	assert.Equal(t, "receiver_unverified", requireRefused(t, err, 403, "AUTHORITY_BINDING_INACTIVE").Details["reason"])

	draft := s.draft(t)
	require.NoError(t, s.ApproveAuthority(s.askApproval(t, draft.ID, "boss")[0].ID))
	_, err = s.api.ActivateBinding(ctx, draft.ID, stack.BindingActivateParams{IdempotencyKey: authorityKey()})
	requireState(t, err, stack.ReceiverUnverified)

	s.verifyReceiver(t, s.receiver.ID, nextKey.ID, next)
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#a"), pass))
	require.NoError(t, err, "it has shown another key")

	for range 9 { // with the one above, ten are active
		_, more, failed := ed25519.GenerateKey(nil)
		require.NoError(t, failed)
		s.addKey(t, s.receiver.ID, more)
	}
	_, more, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	requireState(t, add(publicKey(more)), "with 10 active keys of 11")
}

func TestAuthorityProfiles(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	rules := stack.ProfileRules{Services: []string{"slack", "github"}, MaxLifetime: time.Hour}
	draft, err := s.api.CreateProfileVersion(ctx, stack.ProfileVersionParams{ProfileKind: stack.ProfileReceiver, Name: "Strict",
		Rules: rules, IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	assert.Equal(t, stack.ProfileVersion{ID: draft.ID, OperatorID: s.OperatorID(), ProfileKind: stack.ProfileReceiver, Version: 2,
		Name: "Strict", Status: stack.ProfileDraft, Rules: rules, CreatedAt: draft.CreatedAt}, *draft)
	loose := s.draft(t, func(p *stack.AuthorityBindingParams) { p.Services = []string{"anything"} })
	activate := func(id string, kind stack.ProfileKind) (*stack.ProfileVersion, error) {
		return s.api.ActivateProfileVersion(ctx, id, stack.ProfileActivateParams{ProfileKind: kind, IdempotencyKey: authorityKey()})
	}
	_, err = activate(draft.ID, stack.ProfileProof)
	requireField(t, err, "body.profile_kind")
	_, err = activate("prv_x", stack.ProfileProof)
	require.ErrorIs(t, err, stack.ErrNotFound)
	strict, err := activate(draft.ID, stack.ProfileReceiver)
	require.NoError(t, err)
	assert.Equal(t, []any{stack.ProfileActive, false}, []any{strict.Status, strict.ActivatedAt.IsZero()})
	_, err = activate(draft.ID, stack.ProfileReceiver)
	requireState(t, err, stack.ProfileActive)

	_, err = s.api.CreateBinding(ctx, s.binding(func(p *stack.AuthorityBindingParams) { p.Services = []string{"slack", "notion"} }))
	requireField(t, err, "body.services[1]")
	_, err = s.api.CreateBinding(ctx, s.binding(func(p *stack.AuthorityBindingParams) { p.ExpiresAt = s.Now().Add(2 * time.Hour) }))
	requireField(t, err, "body.expires_at")
	bound := s.draft(t)
	assert.Equal(t, []any{draft.ID, bound.CreatedAt.Add(time.Hour)}, []any{bound.ReceiverProfileVersionID, bound.ExpiresAt})
	got := s.activate(t, loose.ID)
	assert.Equal(t, loose.ReceiverProfileVersionID, got.ReceiverProfileVersionID, "what was made before keeps to its profile")
	assert.NotEqual(t, draft.ID, loose.ReceiverProfileVersionID)
	back, err := activate(loose.ReceiverProfileVersionID, stack.ProfileReceiver)
	require.NoError(t, err, "one that was superseded can come back")
	assert.Equal(t, []any{1, stack.ProfileActive}, []any{back.Version, back.Status})
	_, err = activate(draft.ID, stack.ProfileReceiver)
	require.NoError(t, err, "and so there is only one")

	s.activateProfile(t, stack.ProfileProof, stack.ProfileRules{AcceptedProofKinds: []stack.ProofKind{stack.ProofMandate}})
	requireField(t, failure(s.api.CreateBinding(ctx, s.binding())), "body.proof_ids[0]")
	mandate := s.newProof(t, s.principal.ID, func(p *stack.ProofImportParams) { p.Kind = stack.ProofMandate })
	s.draft(t, func(p *stack.AuthorityBindingParams) { p.ProofIDs = []string{mandate.ID} })

	type rulesOf = stack.ProfileVersionParams
	for field, params := range map[string]rulesOf{
		"body.profile_kind":                  {ProfileKind: "agent"},
		"body.name":                          {ProfileKind: stack.ProfileProof, Name: strings.Repeat("x", 201)},
		"body.rules.services":                {ProfileKind: stack.ProfileProof, Rules: stack.ProfileRules{Services: []string{"x"}}},
		"body.rules.max_lifetime_seconds":    {ProfileKind: stack.ProfileReceiver, Rules: stack.ProfileRules{MaxLifetime: time.Second}},
		"body.rules.required_approvals":      {ProfileKind: stack.ProfileApproval, Rules: stack.ProfileRules{RequiredApprovals: 11}},
		"body.rules.accepted_proof_kinds":    {ProfileKind: stack.ProfileApproval, Rules: stack.ProfileRules{AcceptedProofKinds: []stack.ProofKind{"x"}}},
		"body.rules.accepted_proof_kinds[0]": {ProfileKind: stack.ProfileProof, Rules: stack.ProfileRules{AcceptedProofKinds: []stack.ProofKind{"x"}}},
		"body.rules.services[1]":             {ProfileKind: stack.ProfileReceiver, Rules: stack.ProfileRules{Services: []string{"x", "x"}}},
	} {
		params.IdempotencyKey = authorityKey()
		requireField(t, failure(s.api.CreateProfileVersion(ctx, params)), field)
	}
	for name, params := range map[string]rulesOf{
		"lifetime":  {ProfileKind: stack.ProfileProof, Rules: stack.ProfileRules{MaxLifetime: time.Hour}},
		"approvals": {ProfileKind: stack.ProfileProof, Rules: stack.ProfileRules{RequiredApprovals: 1}},
	} {
		params.IdempotencyKey = authorityKey()
		require.ErrorIs(t, failure(s.api.CreateProfileVersion(ctx, params)), stack.ErrInvalidRequest, name)
	}
}

// Without a receiver profile in force, a binding could not say which one it was made under.
func TestAuthorityBindingNeedsAProfile(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	_, err := s.client.Authority.CreateBinding(t.Context(), stack.AuthorityBindingParams{PrincipalID: "p", AgentID: s.agent.ID,
		ReceiverID: "r", Services: []string{"slack"}, ProofIDs: []string{"x"}, Purpose: "y", IdempotencyKey: authorityKey()})
	requireState(t, err, "not active")
}

// Profiles are settings of the organisation: a member needs to be an admin to change them.
func TestAuthorityOfMembers(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	for role, may := range map[stack.TeamRole][2]bool{ // make a principal, change the profile
		stack.RoleReadonly: {false, false}, stack.RoleStandard: {true, false}, stack.RoleAdmin: {true, true}} {
		_, member := join(t, s.Server, stack.TeamInviteParams{Role: role})
		_, err := member.Authority.ListPrincipals(t.Context())
		require.NoError(t, err, role)
		made := failure(member.Authority.CreatePrincipal(t.Context(), stack.PrincipalParams{Kind: stack.PrincipalPerson,
			DisplayName: "x", IdempotencyKey: authorityKey()}))
		created := failure(member.Authority.CreateProfileVersion(t.Context(), stack.ProfileVersionParams{
			ProfileKind: stack.ProfileReceiver, IdempotencyKey: authorityKey()}))
		draft, err := s.api.CreateProfileVersion(t.Context(), stack.ProfileVersionParams{ProfileKind: stack.ProfileReceiver,
			IdempotencyKey: authorityKey()})
		require.NoError(t, err)
		activated := failure(member.Authority.ActivateProfileVersion(t.Context(), draft.ID,
			stack.ProfileActivateParams{ProfileKind: stack.ProfileReceiver, IdempotencyKey: authorityKey()}))
		for err, ok := range map[*error]bool{&made: may[0], &created: may[1], &activated: may[1]} {
			if ok {
				require.NoError(t, *err, role)
				continue
			}
			require.ErrorIs(t, *err, stack.ErrForbidden, role)
		}
	}
}
