package stack_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/veraison/go-cose"

	"github.com/getstack-go/stack"
)

// Published COSE_Sign1 messages: those for EdDSA of the COSE working group's examples, and those that go-cose's conformance
// tests read and refuse.
const (
	coseEd25519 = "d28445a201270300a10442313154546869732069732074686520636f6e74656e742e58407142fd2ff96d56db85bee905a76ba1d0b7321a95c8c4d3607c57819" +
		"32b7afb8711497dfa751bf40b58b3bcc32300b1487f3db34085eef013bf08f4a44d6fef0d" // eddsa-sig-01
	coseEd448 = "d28443a10127a10445336434343854546869732069732074686520636f6e74656e742e5872988240a3a2f189bd486de14aa77f54686c576a09f2e7ed9bae91" +
		"0df9139c2ac3be7c27b7e10a20fa17c9d57d3510a2cf1f634bc0345ab9be00849842171d1e9e98b2674c0e38bfcf6c557a1692b01b71015a47ac9f7748840cad1da80cbb" +
		"5b349309febb912672b377c8b2072af1598b3700" // eddsa-sig-02
	coseES256 = "d28445a201260300a10442313154546869732069732074686520636f6e74656e742e58402ad3b9dcc1e13d04f357e11cc8acd825196620e62f0d8deca7267250" +
		"8b829d90e07a3f23be6aa36fd6ebd31e2ed08d1760bffd981f991bfc94a45199a54875c4" // sign1-verify-0001
	coseTail = "546869732069732074686520636f6e74656e742e5840ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff" +
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
	coseHeaderMap    = "d284a10126a104423131" + coseTail           // sign1-verify-negative-0000
	coseHeaderArray  = "d28443820126a104423131" + coseTail         // sign1-verify-negative-0001
	coseHeaderTwice  = "d28445a201260126a104423131" + coseTail     // sign1-verify-negative-0002
	coseUnprotected2 = "d28443a10126a20442313104423132" + coseTail // sign1-verify-negative-0003
)

// rfc8032Key is the key of the first test of RFC 8032, section 7.1, which has signed eddsa-sig-01.
func rfc8032Key(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	seed, err := hex.DecodeString("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
	require.NoError(t, err)
	return ed25519.NewKeyFromSeed(seed)
}

// TestCOSEVectors holds the published messages against the profile of a claim. None is one, and each is refused for the first
// thing that it is not: as published by its tag, and without it by its headers.
func TestCOSEVectors(t *testing.T) {
	t.Parallel()
	keys := stack.PublicKeys{"11": publicOf(rfc8032Key(t)), "3d448": publicOf(rfc8032Key(t))}
	tests := []struct {
		name, message string
		untagged      stack.ProofCheck
		says          string
	}{
		{"EdDSA, Ed25519", coseEd25519, stack.ProofHeader, "its typ is not stack/claim+cose"},
		{"EdDSA, Ed448", coseEd448, stack.ProofHeader, "its typ is not stack/claim+cose"},
		{"ES256", coseES256, stack.ProofHeader, "its alg is not EdDSA"},
		{"the protected header is no byte string", coseHeaderMap, stack.ProofEncoding, "no untagged COSE_Sign1"},
		{"the protected header is no map", coseHeaderArray, stack.ProofEncoding, "no untagged COSE_Sign1"},
		{"a protected header twice", coseHeaderTwice, stack.ProofEncoding, "no untagged COSE_Sign1"},
		{"an unprotected header twice", coseUnprotected2, stack.ProofEncoding, "no untagged COSE_Sign1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			message, err := hex.DecodeString(tt.message)
			require.NoError(t, err)
			_, err = stack.VerifyClaimCOSE(message, keys)
			assert.Contains(t, requireProof(t, err, stack.ProofEncoding).Reason, "no untagged COSE_Sign1")
			require.Equal(t, byte(0xd2), message[0], "the tag of a COSE_Sign1")
			_, err = stack.VerifyClaimCOSE(message[1:], keys)
			assert.Contains(t, requireProof(t, err, tt.untagged).Reason, tt.says)
		})
	}
}

// TestCOSEVectorInTheProfile checks the signature of the Ed25519 example, makes it again byte by byte, and moves its content and
// key into the headers of a claim: that is refused for its payload alone, which is text and no map.
func TestCOSEVectorInTheProfile(t *testing.T) {
	t.Parallel()
	key := rfc8032Key(t)
	message, err := hex.DecodeString(coseEd25519)
	require.NoError(t, err)
	var m cose.Sign1Message
	require.NoError(t, m.UnmarshalCBOR(message))
	verifier, err := cose.NewVerifier(cose.AlgorithmEdDSA, publicOf(key))
	require.NoError(t, err)
	require.NoError(t, m.Verify(nil, verifier))
	assert.Equal(t, "This is the content.", string(m.Payload))

	signer, err := cose.NewSigner(cose.AlgorithmEdDSA, key)
	require.NoError(t, err)
	again := cose.Sign1Message{Headers: m.Headers, Payload: m.Payload}
	require.NoError(t, again.Sign(nil, nil, signer))
	assert.Equal(t, m.Signature, again.Signature)

	keys := stack.PublicKeys{"agent:agt_test:v1": publicOf(key)}
	_, err = stack.VerifyClaimCOSE(sealed(t, key, claimHeaders(), m.Payload), keys)
	requireProof(t, err, stack.ProofPayload)
	claim, err := stack.VerifyClaimCOSE(sealed(t, key, claimHeaders(), append([]byte{0xa1, 0x61, 'c', 0x54}, m.Payload...)), keys)
	require.NoError(t, err, "as the only field of a map")
	var fields map[string]any
	require.NoError(t, claim.Decode(&fields))
	assert.Equal(t, map[string]any{"c": m.Payload}, fields)
}
