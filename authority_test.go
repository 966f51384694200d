package stack_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// authorityStage is a stage with all that a binding needs: a principal with a proof, an active receiver profile, and Slack as
// a verified receiver.
type authorityStage struct {
	*stage
	api       *stack.AuthorityService
	principal *stack.Principal
	proof     *stack.Proof
	receiver  *stack.Receiver
	signer    ed25519.PrivateKey
}

var authorityKeys atomic.Int64

// authorityKey makes up an idempotency key.
func authorityKey() string { return fmt.Sprintf("key-%d", authorityKeys.Add(1)) }

func authorityWrite() stack.AuthorityWriteParams {
	return stack.AuthorityWriteParams{IdempotencyKey: authorityKey()}
}

func authorityReason(reason string) stack.AuthorityReasonParams {
	return stack.AuthorityReasonParams{ReasonCode: reason, IdempotencyKey: authorityKey()}
}

func authorityVersion(n int) stack.AuthorityVersionParams {
	return stack.AuthorityVersionParams{Version: n}
}

func newAuthorityStage(t *testing.T) *authorityStage {
	t.Helper()
	s := &authorityStage{stage: newStage(t, stack.Logged)}
	s.api = s.client.Authority
	s.principal = s.newPrincipal(t)
	s.proof = s.newProof(t, s.principal.ID)
	s.activateProfile(t, stack.ProfileReceiver, stack.ProfileRules{})
	var err error
	s.receiver, err = s.api.CreateReceiver(t.Context(), stack.ReceiverParams{Name: "Slack", Hosts: []string{"slack.com"},
		IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	_, s.signer, err = ed25519.GenerateKey(nil)
	require.NoError(t, err)
	s.receiver = s.verifyReceiver(t, s.receiver.ID, s.addKey(t, s.receiver.ID, s.signer).ID, s.signer)
	return s
}

func (s *authorityStage) newPrincipal(t *testing.T) *stack.Principal {
	t.Helper()
	p, err := s.api.CreatePrincipal(t.Context(), stack.PrincipalParams{Kind: stack.PrincipalPerson, DisplayName: "Principal <P>",
		IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	return p
}

func (s *authorityStage) newProof(t *testing.T, principalID string, change ...func(*stack.ProofImportParams)) *stack.Proof {
	t.Helper()
	params := stack.ProofImportParams{PrincipalID: principalID, Kind: stack.ProofConsent,
		Content: stack.NewSecret("I agree, signed"), IdempotencyKey: authorityKey()}
	for _, c := range change {
		c(&params)
	}
	p, err := s.api.ImportProof(t.Context(), params)
	require.NoError(t, err)
	return p
}

func (s *authorityStage) activateProfile(t *testing.T, kind stack.ProfileKind, rules stack.ProfileRules) *stack.ProfileVersion {
	t.Helper()
	p, err := s.api.CreateProfileVersion(t.Context(), stack.ProfileVersionParams{ProfileKind: kind, Rules: rules,
		IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	p, err = s.api.ActivateProfileVersion(t.Context(), p.ID, stack.ProfileActivateParams{ProfileKind: kind, IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	return p
}

func publicKey(signer ed25519.PrivateKey) string {
	return base64.RawURLEncoding.EncodeToString(signer.Public().(ed25519.PublicKey))
}

func (s *authorityStage) addKey(t *testing.T, receiverID string, signer ed25519.PrivateKey) *stack.ReceiverKey {
	t.Helper()
	k, err := s.api.AddReceiverKey(t.Context(), receiverID, stack.ReceiverKeyParams{PublicKey: publicKey(signer),
		IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	return k
}

func (s *authorityStage) verifyReceiver(t *testing.T, receiverID, keyID string, signer ed25519.PrivateKey) *stack.Receiver {
	t.Helper()
	challenge, err := s.api.CreateReceiverVerificationChallenge(t.Context(), receiverID, authorityWrite())
	require.NoError(t, err)
	require.NoError(t, s.AnswerReceiverChallenge(challenge.ID, keyID, ed25519.Sign(signer, []byte(challenge.Challenge))))
	r, err := s.api.VerifyReceiver(t.Context(), receiverID, authorityWrite())
	require.NoError(t, err)
	return r
}

// binding describes a binding of the stage's agent for Slack.
func (s *authorityStage) binding(change ...func(*stack.AuthorityBindingParams)) stack.AuthorityBindingParams {
	p := stack.AuthorityBindingParams{PrincipalID: s.principal.ID, AgentID: s.agent.ID, ReceiverID: s.receiver.ID,
		Services: []string{"slack"}, ProofIDs: []string{s.proof.ID}, Purpose: "Answer tickets", IdempotencyKey: authorityKey()}
	for _, c := range change {
		c(&p)
	}
	return p
}

func (s *authorityStage) draft(t *testing.T, change ...func(*stack.AuthorityBindingParams)) *stack.AuthorityBinding {
	t.Helper()
	b, err := s.api.CreateBinding(t.Context(), s.binding(change...))
	require.NoError(t, err)
	return b
}

func (s *authorityStage) askApproval(t *testing.T, bindingID string, approvers ...string) []stack.ApprovalRequest {
	t.Helper()
	list, err := s.api.CreateApprovalRequests(t.Context(), bindingID, stack.ApprovalRequestParams{Approvers: approvers,
		IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	return list
}

func (s *authorityStage) activate(t *testing.T, bindingID string) *stack.AuthorityBinding {
	t.Helper()
	require.NoError(t, s.ApproveAuthority(s.askApproval(t, bindingID, "boss@example.com")[0].ID))
	b, err := s.api.ActivateBinding(t.Context(), bindingID, stack.BindingActivateParams{IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	return b
}

// active makes a binding that is in force.
func (s *authorityStage) active(t *testing.T, change ...func(*stack.AuthorityBindingParams)) *stack.AuthorityBinding {
	t.Helper()
	return s.activate(t, s.draft(t, change...).ID)
}

// carrying asks for a passport that carries bindings.
func carrying(ids ...string) func(*stack.PassportIssueParams) {
	return func(p *stack.PassportIssueParams) { p.AuthorityBindingIDs = append([]string{}, ids...) }
}

func (s *authorityStage) status(t *testing.T, bindingID string, n int) stack.BindingStatus {
	t.Helper()
	b, err := s.api.GetBinding(t.Context(), bindingID, authorityVersion(n))
	require.NoError(t, err)
	return b.Status
}

// requireState checks a refusal for the state that something is in.
func requireState[S ~string](t *testing.T, err error, status S) {
	t.Helper()
	require.ErrorIs(t, err, stack.ErrAuthorityState)
	refused := requireRefused(t, err, http.StatusConflict, "AUTHORITY_STATE")
	assert.Equal(t, string(status), refused.Details["status"])
	assert.NotEmpty(t, refused.Details["allowed"])
}

// requireErased checks that what was erased is told to be so, with its tombstone.
func requireErased(t *testing.T, err error, tomb *stack.Tombstone) {
	t.Helper()
	require.ErrorIs(t, err, stack.ErrAuthorityErased)
	refused := requireRefused(t, err, http.StatusGone, "AUTHORITY_ERASED")
	assert.Subset(t, refused.Details["tombstone"], map[string]any{"id": tomb.ID, "object": tomb.Object,
		"operator_id": tomb.OperatorID})
}

// requireField checks that a field was refused.
func requireField(t *testing.T, err error, field string) {
	t.Helper()
	require.ErrorIs(t, err, stack.ErrInvalidRequest)
	assert.Equal(t, field, requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST").Details["field"])
}

// fetch asks for a page as a browser does, or hands in an answer as a receiver does: without a key.
func (s *authorityStage) fetch(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.Transport().RoundTrip(req)
	require.NoError(t, err)
	defer func() { assert.NoError(t, resp.Body.Close()) }()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(answer)
}
