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
