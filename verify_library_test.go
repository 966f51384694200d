package stack_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// Another implementation verifies what the mock mints, with the keys that it serves, and what that signs is verified here.
func TestPassportsInAnotherLibrary(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	p := s.issue(t)
	parsed, err := jwt.ParseSigned(p.Token.Reveal(), []jose.SignatureAlgorithm{jose.EdDSA})
	require.NoError(t, err)
	text, err := json.Marshal(s.raw(t, "GET", "/v1/.well-known/jwks.json", nil))
	require.NoError(t, err)
	var set jose.JSONWebKeySet
	require.NoError(t, json.Unmarshal(text, &set))
	require.Len(t, set.Key(parsed.Headers[0].KeyID), 1)
	var registered jwt.Claims
	var private struct {
		STK map[string]any `json:"stk"`
	}
	require.NoError(t, parsed.Claims(set, &registered, &private))
	require.NoError(t, registered.ValidateWithLeeway(jwt.Expected{Issuer: "getstack.run", Subject: s.agent.ID, ID: p.JTI,
		AnyAudience: jwt.Audience{"stack:passport"}, Time: time.Now()}, 0))
	assert.Equal(t, s.agent.ID, private.STK["agent_id"])

	f := newForger("k1")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: f.key, KeyID: "k1"}},
		(&jose.SignerOptions{}).WithType("JWT"))
	require.NoError(t, err)
	now := time.Now()
	token, err := jwt.Signed(signer).Claims(jwt.Claims{ID: "pp_1", Subject: "agt_1", Issuer: "getstack.run",
		Audience: jwt.Audience{"x", "stack:passport"}, IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Minute))}).
		Claims(map[string]any{"stk": map[string]any{"operator_id": "op_1", "agent_id": "agt_1"}}).Serialize()
	require.NoError(t, err)
	got, err := f.verifier(t).Verify(t.Context(), stack.NewSecret(token))
	require.NoError(t, err)
	assert.Equal(t, "op_1", got.STK.OperatorID)
}
