package stack_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/veraison/go-cose"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/edkey"
	"github.com/getstack-go/stack/stacktest"
)

// testKey is the key of the contract's vector: the seed 00 01 … 1f.
func testKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

func publicOf(key crypto.Signer) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// testKeys knows the test key as that of the agent agt_test.
func testKeys() stack.PublicKeys {
	return stack.PublicKeys{stack.AgentKeyID("agt_test"): publicOf(testKey())}
}

// The vector of the contract, endpoints 6.
const (
	vectorEnvelope = "hFgoowEnBFFhZ2VudDphZ3RfdGVzdDp2MRBwc3RhY2svY2xhaW0rY29zZaBYMqdkdHlwZWZpbnRlbnRhbgFib2v1Y25pbPZhZvs_-" +
		"AAAAAAAAGRsaXN0gmFhIGFiQgECWEBAoeA25TPpF_vy3puk0BAnCTkmOT13g3n6s6RUI4oML_19sbxIB1hwWHjLa55ATp0klrpuAzJpvFsUaaWLQMUE"
	vectorPayload = "a7647479706566696e74656e74616e01626f6bf5636e696cf66166fb3ff8000000000000646c697374826161206162420102"
)

func vectorClaim() stack.Claim {
	return stack.Claim{{"type", "intent"}, {"n", 1}, {"ok", true}, {"nil", nil}, {"f", 1.5}, {"list", []any{"a", -1}},
		{"b", []byte{1, 2}}}
}

func TestSignClaimVector(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg", base64.RawURLEncoding.EncodeToString(publicOf(testKey())))
	got, err := stack.SignClaim(vectorClaim(), testKey(), "agt_test")
	require.NoError(t, err)
	assert.Equal(t, vectorEnvelope, got)
	got, err = stack.SignClaim(vectorClaim(), remoteKey{testKey()}, "agt_test")
	require.NoError(t, err)
	assert.Equal(t, vectorEnvelope, got, "by a key that is kept elsewhere")
	claim, err := stack.VerifyClaim(vectorEnvelope, testKeys())
	require.NoError(t, err)
	assert.Equal(t, "agent:agt_test:v1", claim.KeyID)
	assert.Equal(t, vectorPayload, hex.EncodeToString(claim.Payload))
	var fields map[string]any
	require.NoError(t, claim.Decode(&fields))
	assert.Equal(t, map[string]any{"type": "intent", "n": int64(1), "ok": true, "nil": nil, "f": 1.5, "list": []any{"a", int64(-1)},
		"b": []byte{1, 2}}, fields)
	var typed struct {
		Type string
		N    int
		B    []byte `json:"b"`
	}
	require.NoError(t, claim.Decode(&typed))
	assert.Equal(t, []any{"intent", 1, []byte{1, 2}}, []any{typed.Type, typed.N, typed.B})
	var wrong struct{ Type int }
	requireProof(t, claim.Decode(&wrong), stack.ProofPayload)
}

// remoteKey signs without showing its key.
type remoteKey struct{ key ed25519.PrivateKey }

func (k remoteKey) Public() crypto.PublicKey { return k.key.Public() }
func (k remoteKey) Sign(r io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.key.Sign(r, message, opts)
}

// brokenKey cannot sign.
type brokenKey struct{ remoteKey }

func (brokenKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the key store is away")
}

// requireProof checks that a verification failed at one check, and explains itself on one line.
func requireProof(t *testing.T, err error, check stack.ProofCheck) stack.ProofError {
	t.Helper()
	var proof *stack.ProofError
	require.ErrorAs(t, err, &proof)
	require.Equal(t, check, proof.Check, err.Error())
	assert.Contains(t, err.Error(), string(check))
	assert.NotContains(t, err.Error(), "\n")
	assert.Less(t, len(err.Error()), 2000)
	return *proof
}

func TestSignClaimEncodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		claim any
		want  string // the payload in hex
	}{
		{"empty", stack.Claim{}, "a0"},
		{"the order is kept", stack.Claim{{"b", 1}, {"a", 2}}, "a2616201616102"},
		{"in nested claims too", stack.Claim{{"x", stack.Claim{{"b", 1}, {"a", 2}}}}, "a16178a2616201616102"},
		{"maps are sorted", map[string]any{"b": 1, "a": 2}, "a2616102616201"},
		{"structs are sorted, and go by their json tags", struct {
			B int `json:"b"`
			A int `json:"a"`
			C int `json:"c,omitempty"`
		}{1, 2, 0}, "a2616102616201"},
		{"the shortest integers", stack.Claim{{"a", []any{23, 24, 255, 256, 65536, uint64(math.MaxUint64), int64(math.MinInt64)}}},
			"a161618717181818ff1901001a000100001bffffffffffffffff3b7fffffffffffffff"},
		{"whole doubles", stack.Claim{{"a", 1.0}}, "a16161fb3ff0000000000000"},
		{"text is UTF-8", stack.Claim{{"é", "😀"}}, "a162c3a964f09f9880"},
		{"more than 23 fields", func() (c stack.Claim) {
			for i := range 24 {
				c = append(c, stack.ClaimField{Name: string(rune('a' + i)), Value: nil})
			}
			return c
		}(), "b818" + func() (s string) {
			for i := range 24 {
				s += fmt.Sprintf("61%xf6", 'a'+i)
			}
			return s
		}()},
		{"time", stack.Claim{{"t", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}},
			"a16174" + "74" + hex.EncodeToString([]byte("2026-01-02T03:04:05Z"))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for range 3 { // maps have no order of their own
				envelope, err := stack.SignClaim(test.claim, testKey(), "agt_test")
				require.NoError(t, err)
				claim, err := stack.VerifyClaim(envelope, testKeys())
				require.NoError(t, err)
				assert.Equal(t, test.want, hex.EncodeToString(claim.Payload))
			}
		})
	}
}

func TestSignClaimRefuses(t *testing.T) {
	t.Parallel()
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	good := stack.Claim{{"type", "intent"}}
	tests := []struct {
		name  string
		claim any
		key   crypto.Signer
		agent string
		param string
	}{
		{"no agent", good, testKey(), "", "agent_id"},
		{"no key", good, nil, "a", "private_key"},
		{"an empty key", good, ed25519.PrivateKey{}, "a", "private_key"},
		{"half a key", good, testKey()[:32], "a", "private_key"},
		{"another kind of key", good, other, "a", "private_key"},
		{"a key that fails", good, brokenKey{remoteKey{testKey()}}, "a", "envelope"},
		{"nothing", nil, testKey(), "a", "envelope"},
		{"a list", []any{1}, testKey(), "a", "envelope"},
		{"text", "type", testKey(), "a", "envelope"},
		{"a name twice", stack.Claim{{"a", 1}, {"a", 2}}, testKey(), "a", "envelope"},
		{"a channel", stack.Claim{{"a", make(chan int)}}, testKey(), "a", "envelope"},
		{"too large", stack.Claim{{"a", strings.Repeat("x", stack.MaxClaimSize)}}, testKey(), "a", "envelope"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := stack.SignClaim(test.claim, test.key, test.agent)
			requireParam(t, err, test.param)
		})
	}
}

// sealed makes an envelope by go-cose itself, with any headers.
func sealed(t testing.TB, key ed25519.PrivateKey, h cose.Headers, payload []byte) []byte {
	t.Helper()
	signer, err := cose.NewSigner(cose.AlgorithmEdDSA, key)
	require.NoError(t, err)
	envelope, err := cose.Sign1Untagged(rand.Reader, signer, h, payload, nil)
	require.NoError(t, err)
	return envelope
}

func claimHeaders(change ...func(*cose.Headers)) cose.Headers {
	h := cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA,
		cose.HeaderLabelKeyID: []byte("agent:agt_test:v1"), cose.HeaderLabelType: "stack/claim+cose"}}
	for _, c := range change {
		c(&h)
	}
	return h
}

func TestVerifyClaimRefuses(t *testing.T) {
	t.Parallel()
	vector, err := base64.RawURLEncoding.DecodeString(vectorEnvelope)
	require.NoError(t, err)
	payload, err := hex.DecodeString(vectorPayload)
	require.NoError(t, err)
	text := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	changed := func(at int) string {
		b := bytes.Clone(vector)
		b[at] ^= 1
		return text(b)
	}
	with := func(change func(*cose.Headers)) string {
		return text(sealed(t, testKey(), claimHeaders(change), payload))
	}
	of := func(hexPayload string) string {
		b, hexErr := hex.DecodeString(hexPayload)
		require.NoError(t, hexErr)
		return text(sealed(t, testKey(), claimHeaders(), b))
	}
	_, err = stack.VerifyClaim(text(sealed(t, testKey(), claimHeaders(), payload)), testKeys())
	require.NoError(t, err, "the cases below fail for what they change only")
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)

	tests := []struct {
		name, envelope string
		want           stack.ProofCheck
	}{
		{"nothing", "", stack.ProofEncoding},
		{"no base64", "hF!", stack.ProofEncoding},
		{"standard base64", base64.RawStdEncoding.EncodeToString(vector), stack.ProofEncoding},
		{"padding", vectorEnvelope + "=", stack.ProofEncoding},
		{"a line break", vectorEnvelope[:10] + "\n" + vectorEnvelope[10:], stack.ProofEncoding},
		{"stray bits", text(vector[:1])[:1] + "F", stack.ProofEncoding},
		{"too long", strings.Repeat("A", 2*stack.MaxClaimSize), stack.ProofEncoding},
		{"cut short", text(vector[:len(vector)-1]), stack.ProofEncoding},
		{"something after it", text(append(bytes.Clone(vector), 0)), stack.ProofEncoding},
		{"tagged", text(append([]byte{0xd2}, vector...)), stack.ProofEncoding},
		{"an array of three", text([]byte{0x83, 0x40, 0xa0, 0x40}), stack.ProofEncoding},
		{"no signature", text(append(bytes.Clone(vector[:len(vector)-66]), 0x40)), stack.ProofEncoding},
		{"a detached payload", text(slicesReplace(vector, append([]byte{0x58, 0x32}, payload...), []byte{0xf6})), stack.ProofEncoding},

		{"another alg", changed(5), stack.ProofHeader},
		{"no alg", text(slicesReplace(vector, []byte{0x58, 0x28, 0xa3, 0x01, 0x27}, []byte{0x58, 0x26, 0xa2})), stack.ProofHeader},
		{"no typ", with(func(h *cose.Headers) { delete(h.Protected, cose.HeaderLabelType) }), stack.ProofHeader},
		{"another typ", with(func(h *cose.Headers) { h.Protected[cose.HeaderLabelType] = "application/cwt" }), stack.ProofHeader},
		{"no kid", with(func(h *cose.Headers) { delete(h.Protected, cose.HeaderLabelKeyID) }), stack.ProofHeader},
		{"an empty kid", with(func(h *cose.Headers) { h.Protected[cose.HeaderLabelKeyID] = []byte{} }), stack.ProofHeader},
		{"crit", with(func(h *cose.Headers) {
			h.Protected[int64(99)], h.Protected[cose.HeaderLabelCritical] = "x", []any{int64(99)}
		}), stack.ProofHeader},
		{"an unprotected header", with(func(h *cose.Headers) {
			h.Unprotected = cose.UnprotectedHeader{int64(99): "x"}
		}), stack.ProofHeader},
		{"kid outside the signature", with(func(h *cose.Headers) {
			delete(h.Protected, cose.HeaderLabelKeyID)
			h.Unprotected = cose.UnprotectedHeader{cose.HeaderLabelKeyID: []byte("agent:agt_test:v1")}
		}), stack.ProofHeader},

		{"an unknown kid", with(func(h *cose.Headers) { h.Protected[cose.HeaderLabelKeyID] = []byte("agent:agt_other:v1") }), stack.ProofKey},
		{"a kid that would break the line", with(func(h *cose.Headers) { h.Protected[cose.HeaderLabelKeyID] = []byte("a\n\x1b[31m") }), stack.ProofKey},

		{"the payload changed", changed(len(vector) - 70), stack.ProofSignature},
		{"the signature changed", changed(len(vector) - 1), stack.ProofSignature},
		{"the signature cut", text(append(append(bytes.Clone(vector[:len(vector)-66]), 0x58, 0x3f), vector[len(vector)-64:len(vector)-1]...)), stack.ProofSignature},
		{"another key", text(sealed(t, stranger, claimHeaders(), payload)), stack.ProofSignature},
		{"other headers under the signature", text(slicesReplace(vector, []byte("+cose"), []byte("+cosf"))), stack.ProofHeader},

		{"an empty payload", of(""), stack.ProofPayload},
		{"a list", of("80"), stack.ProofPayload},
		{"null", of("f6"), stack.ProofPayload},
		{"something after the map", of("a000"), stack.ProofPayload},
		{"a name twice", of("a2616101616102"), stack.ProofPayload},
		{"a number for a name", of("a10102"), stack.ProofPayload},
		{"an indefinite length", of("bf616101ff"), stack.ProofPayload},
		{"a tag", of("a16161c100"), stack.ProofPayload},
		{"text that is not UTF-8", of("a1616161ff"), stack.ProofPayload},
		{"nested too deep", of("a16161" + strings.Repeat("81", 40) + "00"), stack.ProofPayload},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			claim, refusal := stack.VerifyClaim(test.envelope, testKeys())
			requireProof(t, refusal, test.want)
			assert.Nil(t, claim)
		})
	}
	for _, keys := range []stack.PublicKeys{nil, {"agent:agt_test:v1": publicOf(testKey())[:31]}} { // no key, and one that would panic
		requireProof(t, failure(stack.VerifyClaim(vectorEnvelope, keys)), stack.ProofKey)
	}
	_, err = stack.VerifyClaimCOSE(make([]byte, stack.MaxClaimSize+1), testKeys())
	requireProof(t, err, stack.ProofEncoding)
}

// slicesReplace replaces the only occurrence of a part.
func slicesReplace(b, part, by []byte) []byte {
	if bytes.Count(b, part) != 1 {
		panic("the part is not there once")
	}
	return bytes.Replace(b, part, by, 1)
}

func TestParseJWKS(t *testing.T) {
	t.Parallel()
	x := base64.RawURLEncoding.EncodeToString(publicOf(testKey()))
	key := func(fields string) string { return `{"kty":"OKP","crv":"Ed25519","x":"` + x + `",` + fields + `}` }
	keys, err := stack.ParseJWKS([]byte(`{"keys":[` + key(`"kid":"k1","use":"sig","alg":"EdDSA"`) + `,` + key(`"kid":"k2"`) + `,` +
		key(`"kid":"enc","use":"enc"`) + `,` + key(`"kid":"alg","alg":"ES256"`) + `,` + key(`"use":"sig"`) +
		`,{"kty":"RSA","kid":"rsa","n":"x","e":"AQAB"},{"kty":"OKP","crv":"X25519","kid":"x","x":"a"}]}`))
	require.NoError(t, err)
	assert.Equal(t, stack.PublicKeys{"k1": publicOf(testKey()), "k2": publicOf(testKey())}, keys)
	for name, bad := range map[string]string{
		"nothing": ``, "no object": `[]`, "a number for a key": `{"keys":[1]}`,
		"no x":          `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k"}]}`,
		"a short x":     `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AAAA"}]}`,
		"padding":       `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + x + `="}]}`,
		"a weak key":    `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + strings.Repeat("A", 43) + `"}]}`,
		"a name twice":  `{"keys":[` + key(`"kid":"k","kid":"l"`) + `]}`,
		"one kid twice": `{"keys":[` + key(`"kid":"k"`) + `,` + key(`"kid":"k"`) + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireProof(t, failure(stack.ParseJWKS([]byte(bad))), stack.ProofKey)
		})
	}
	keys, err = stack.ParseJWKS([]byte(`{}`))
	require.NoError(t, err)
	assert.Empty(t, keys)
}

// deploymentKeys fetches the JWKS of a mock, as anybody may.
func deploymentKeys(t testing.TB, srv *stacktest.Server) stack.PublicKeys {
	t.Helper()
	var set json.RawMessage
	require.NoError(t, srv.Client().Do(t.Context(), "GET", "/v1/.well-known/jwks.json", nil, &set))
	keys, err := stack.ParseJWKS(set)
	require.NoError(t, err)
	require.Len(t, keys, 1)
	return keys
}

// FuzzVerifyClaim feeds any text, and any payload under a good signature.
func FuzzVerifyClaim(f *testing.F) {
	payload, err := hex.DecodeString(vectorPayload)
	require.NoError(f, err)
	f.Add(vectorEnvelope, payload)
	f.Add("", []byte{})
	f.Add("hECgQEA", []byte{0xbf, 0xff})
	f.Add("0oRDoQEmoEBA", []byte{0xa1, 0x61, 0x61, 0xc1, 0x00})
	for _, message := range []string{coseEd25519, coseEd448, coseHeaderArray, coseHeaderTwice, coseUnprotected2} {
		raw, err := hex.DecodeString(message)
		require.NoError(f, err)
		f.Add(base64.RawURLEncoding.EncodeToString(raw[1:]), raw)
	}
	keys := testKeys()
	f.Fuzz(func(t *testing.T, envelope string, payload []byte) {
		for _, text := range []string{envelope, base64.RawURLEncoding.EncodeToString(sealed(t, testKey(), claimHeaders(), payload))} {
			claim, err := stack.VerifyClaim(text, keys)
			var proof *stack.ProofError
			if err != nil {
				require.ErrorAs(t, err, &proof)
				require.NotContains(t, err.Error(), "\n")
				require.Nil(t, claim)
				continue
			}
			require.Equal(t, "agent:agt_test:v1", claim.KeyID)
			var fields map[string]any
			require.NoError(t, claim.Decode(&fields))
			again, err := stack.SignClaim(fields, testKey(), "agt_test")
			require.NoError(t, err, "what was read can be signed")
			second, err := stack.VerifyClaim(again, keys)
			require.NoError(t, err)
			require.NoError(t, cbor.Wellformed(second.Payload))
		}
	})
}

// FuzzParseJWKS feeds any bytes: no panic, and keys of the right length only.
func FuzzParseJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg","kid":"k1"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Add([]byte(`{"keys":[],"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + strings.Repeat("A", 43) + `"}]}`))
	f.Add([]byte(weakSet("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := stack.ParseJWKS(data)
		var proof *stack.ProofError
		require.True(t, err == nil || errors.As(err, &proof))
		for kid, key := range keys {
			require.NotEmpty(t, kid)
			require.NoError(t, edkey.Check(key))
		}
	})
}

// An agent that keeps its key itself signs what it claims; who knows the public half can verify that anywhere.
func ExampleSignClaim() {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	envelope, err := stack.SignClaim(stack.Claim{{"type", "intent"}, {"summary", "Acknowledge tickets"}}, private, "agt_1")
	if err != nil {
		log.Fatal(err)
	}
	claim, err := stack.VerifyClaim(envelope, stack.PublicKeys{stack.AgentKeyID("agt_1"): public})
	if err != nil {
		log.Fatal(err)
	}
	var content struct {
		Type    string `json:"type"`
		Summary string `json:"summary"`
	}
	if err = claim.Decode(&content); err != nil {
		log.Fatal(err)
	}
	fmt.Println(claim.KeyID, content.Type, "-", content.Summary)
	// Output: agent:agt_1:v1 intent - Acknowledge tickets
}

func BenchmarkSignClaim(b *testing.B) {
	key, claim := testKey(), vectorClaim()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := stack.SignClaim(claim, key, "agt_test"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyClaim(b *testing.B) {
	keys := testKeys()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := stack.VerifyClaim(vectorEnvelope, keys); err != nil {
			b.Fatal(err)
		}
	}
}
