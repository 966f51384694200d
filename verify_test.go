package stack_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestSigningKeys(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	keys, err := s.client.SigningKeys(t.Context())
	require.NoError(t, err)
	require.Len(t, keys, 1)
	signed, signature, found := lastCut(s.issue(t).Token.Reveal())
	require.True(t, found)
	mac, err := base64.RawURLEncoding.DecodeString(signature)
	require.NoError(t, err)
	for _, key := range keys {
		assert.True(t, ed25519.Verify(key, []byte(signed), mac), "they sign passports")
	}

	pack, err := s.client.EvidencePacks.Export(t.Context(), stack.EvidencePackExportParams{
		Scope: stack.EvidenceScope{Kind: stack.EvidenceMission, Ref: s.open(t).ID()}})
	require.NoError(t, err)
	var manifest bytes.Buffer
	_, err = s.client.EvidencePacks.Download(t.Context(), pack.PackID, &manifest)
	require.NoError(t, err)
	_, err = stack.VerifyEvidencePack(manifest.Bytes(), pack.EnvelopeCOSE, keys)
	require.NoError(t, err, "and claims")
}

func lastCut(token string) (before, after string, found bool) {
	i := strings.LastIndexByte(token, '.')
	return token[:max(i, 0)], token[i+1:], i >= 0
}

func TestSigningKeysFails(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.Fault(stacktest.Fault{Method: "GET", Path: "/v1/.well-known/jwks.json", Status: http.StatusForbidden, Times: 1})
	_, err := srv.Client().SigningKeys(t.Context())
	require.ErrorIs(t, err, stack.ErrForbidden)
	garbage := &scripted{steps: []step{answer(http.StatusOK, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"short"}]}`)}}
	_, err = srv.Client(stack.WithHTTPClient(&http.Client{Transport: garbage})).SigningKeys(t.Context())
	var bad *stack.ProofError
	require.ErrorAs(t, err, &bad)
}

// verifies is the configuration of a verifier that fetches the mock's keys.
func (s *stage) verifies(change ...func(*stack.PassportVerifierConfig)) stack.PassportVerifierConfig {
	config := stack.PassportVerifierConfig{JWKSURL: "http://localhost/v1/.well-known/jwks.json",
		HTTPClient: &http.Client{Transport: s.Transport()}}
	for _, c := range change {
		c(&config)
	}
	return config
}

// An operator's own set has the keys of its agents, which sign claims; no verifier of passports takes it.
func TestOperatorKeys(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	none, err := s.client.OperatorKeys(t.Context(), s.OperatorID())
	require.NoError(t, err)
	assert.Empty(t, none)
	other := s.Agent(t, stacktest.AgentConfig{})
	want := stack.PublicKeys{}
	enroll := func(id string) {
		key := newForger("").key
		challenge, failed := s.client.Agents.EnrollmentChallenge(t.Context(), id)
		require.NoError(t, failed)
		require.NoError(t, failure(s.client.Agents.Enroll(t.Context(), id, stack.AgentEnrollParams{ChallengeID: challenge.ChallengeID,
			PublicKey:       stack.PublicKeyJWK{KTY: "OKP", CRV: "Ed25519", X: base64.RawURLEncoding.EncodeToString(publicOf(key))},
			SignedChallenge: stack.NewSecret(base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(challenge.Challenge))))})))
		want[stack.AgentKeyID(id)] = publicOf(key)
		claim, failed := stack.SignClaim(stack.Claim{{"type", "intent"}}, key, id)
		require.NoError(t, failed)
		keys, failed := s.client.OperatorKeys(t.Context(), s.OperatorID())
		require.NoError(t, failed)
		require.NoError(t, failure(stack.VerifyClaim(claim, keys)))
	}
	enroll(s.agent.ID)
	enroll(other.ID)
	keys, err := s.client.OperatorKeys(t.Context(), s.OperatorID())
	require.NoError(t, err)
	assert.Equal(t, want, keys)

	_, err = stack.NewPassportVerifier(stack.PassportVerifierConfig{Keys: keys})
	requireParam(t, err, "Keys")
	_, err = stack.NewPassportVerifier(s.verifies(func(c *stack.PassportVerifierConfig) {
		c.JWKSURL = "http://localhost/v1/operators/" + s.OperatorID() + "/jwks.json"
	}))
	requireParam(t, err, "JWKSURL")
	_, err = s.client.OperatorKeys(t.Context(), "op_other")
	requireRefused(t, err, http.StatusNotFound, "NOT_FOUND")
	garbage := &scripted{steps: []step{answer(http.StatusOK, `[]`)}}
	_, err = s.Client(stack.WithHTTPClient(&http.Client{Transport: garbage})).OperatorKeys(t.Context(), "op_1")
	requireProof(t, err, stack.ProofKey)

	require.NoError(t, failure(s.client.Agents.Delete(t.Context(), other.ID)))
	keys, err = s.client.OperatorKeys(t.Context(), s.OperatorID())
	require.NoError(t, err)
	assert.Len(t, keys, 1)
}
