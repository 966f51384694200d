package stack

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The example of RFC 8037, appendix A, which is that of the JOSE cookbook (curve25519/jws.json) as well: its key, its payload,
// the token and no other. It is no passport, so it goes only as far as its signature.
func TestEdDSAVectors(t *testing.T) {
	t.Parallel()
	const (
		key = `{"kty":"OKP","crv":"Ed25519","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",` +
			`"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}`
		signed    = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
		signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
	)
	keys, err := ParseJWKS([]byte(`{"keys":[` + key + `]}`))
	require.NoError(t, err)
	public := keys["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"]
	require.NotNil(t, public)
	token, refusal := splitToken(signed + "." + signature)
	require.Nil(t, refusal)
	payload, err := base64.RawURLEncoding.DecodeString(token.payload)
	require.NoError(t, err)
	assert.Equal(t, "Example of Ed25519 signing", string(payload))
	assert.True(t, token.verifiedBy(public))

	v, err := NewPassportVerifier(PassportVerifierConfig{Keys: keys})
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), NewSecret(signed+"."+signature))
	var verification *VerificationError
	require.ErrorAs(t, err, &verification)
	assert.Equal(t, RefusedUnknownKey, verification.Reason, "it names no key")

	for i := range token.signature {
		changed := *token
		changed.signature[i] ^= 1
		assert.False(t, changed.verifiedBy(public), i)
	}
	changed := *token
	changed.signed += "A"
	assert.False(t, changed.verifiedBy(public))
}

// What is remembered is bounded, and what is used stays.
func TestRecent(t *testing.T) {
	t.Parallel()
	r := recent[int]{limit: 10}
	r.put("used", -1)
	for i := range 1000 {
		r.put(string(rune('a'+i)), i)
		v, ok := r.get("used")
		require.True(t, ok && v == -1)
		require.LessOrEqual(t, len(r.young)+len(r.old), 20)
		if i >= 10 {
			v, ok = r.get(string(rune('a' + i - 3)))
			require.True(t, ok && v == i-3)
		}
	}
	_, ok := r.get("a")
	assert.False(t, ok)
}
