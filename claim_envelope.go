package stack

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	cosesign "github.com/veraison/go-cose"

	"github.com/getstack-go/stack/internal/cose"
	"github.com/getstack-go/stack/internal/edkey"
	"github.com/getstack-go/stack/internal/strictjson"
)

// MaxClaimSize is the number of bytes that a signed claim may have.
const MaxClaimSize = 1 << 20

// Claim is the content of a signed claim whose fields are signed in the order in which they stand. Values are what CBOR
// knows: nil, booleans, integers, floats, strings, byte slices, slices, maps, structs, and further Claims.
type Claim []ClaimField

// ClaimField is one field of a [Claim].
type ClaimField struct {
	Name  string
	Value any
}

// MarshalCBOR writes the fields in their order. It fails when two of them have one name.
func (c Claim) MarshalCBOR() ([]byte, error) {
	head, err := cose.Encode(uint64(len(c)))
	if err != nil {
		return nil, err
	}
	head[0] |= 5 << 5 // the head of a map is that of a number with another major type
	seen := make(map[string]bool, len(c))
	for _, field := range c {
		if seen[field.Name] {
			return nil, fmt.Errorf("the field %q is there twice", field.Name)
		}
		seen[field.Name] = true
		for _, part := range []any{field.Name, field.Value} {
			encoded, err := cose.Encode(part)
			if err != nil {
				return nil, fmt.Errorf("the field %q: %w", field.Name, err)
			}
			head = append(head, encoded...)
		}
	}
	return head, nil
}

const agentKeyPrefix = "agent:"

// AgentKeyID is the id under which an agent's own key signs claims.
func AgentKeyID(agentID string) string { return agentKeyPrefix + agentID + ":v1" }

// SignClaim signs a claim with the key of an agent that keeps its key itself, and returns the COSE_Sign1 in base64url. The
// claim is a [Claim], whose order is kept, or a map or struct, whose keys (cbor or json tags) are sorted; any order verifies.
// The key is an ed25519.PrivateKey or a signer that holds an Ed25519 key elsewhere. It fails with a [*ParamError] for a
// claim that is no map or too large, another kind of key, or an empty agent id. Nothing is sent. (contract: endpoints 6)
func SignClaim(claim any, key crypto.Signer, agentID string) (string, error) {
	if err := required("agent_id", agentID); err != nil {
		return "", err
	}
	if err := checkSigner(key); err != nil {
		return "", err
	}
	signed, err := cose.Sign(key, AgentKeyID(agentID), claim)
	if err != nil {
		return "", &ParamError{Param: "envelope", Reason: "cannot be signed: " + err.Error()}
	}
	if len(signed) > MaxClaimSize {
		return "", &ParamError{Param: "envelope", Reason: fmt.Sprintf("has %d bytes once signed; at most %d are allowed",
			len(signed), MaxClaimSize)}
	}
	return base64.RawURLEncoding.EncodeToString(signed), nil
}

// checkSigner refuses what is no Ed25519 key; a private key of another length would panic.
func checkSigner(key crypto.Signer) error {
	const must = "it must be an Ed25519 private key"
	if key == nil {
		return &ParamError{Param: "private_key", Reason: "is nil; " + must}
	}
	if private, ok := key.(ed25519.PrivateKey); ok && len(private) != ed25519.PrivateKeySize {
		return &ParamError{Param: "private_key", Reason: fmt.Sprintf("has %d bytes; %s", len(private), must)}
	}
	if _, ok := key.Public().(ed25519.PublicKey); !ok {
		return &ParamError{Param: "private_key", Reason: "is of another kind; " + must}
	}
	return nil
}

// PublicKeys are keys to verify with, by their id: kid in a JWKS, [AgentKeyID] for agents' own keys.
type PublicKeys map[string]ed25519.PublicKey

// ParseJWKS reads the Ed25519 signing keys of a JWKS, such as the deployment's, which the API serves without a login at
// /v1/.well-known/jwks.json. Keys of other kinds or uses are left out. It fails with a [*ProofError] for what is no JWKS, a
// key that is not one or is weak (of a low order, or not canonically encoded: anybody could sign for it, or it would have two
// names), two keys of one id, and an object with two members of one name. (contract: endpoints 5.3)
func ParseJWKS(data []byte) (PublicKeys, error) {
	var set struct {
		Keys []struct {
			KeyType   string `json:"kty"`
			Curve     string `json:"crv"`
			X         string `json:"x"`
			KeyID     string `json:"kid"`
			Use       string `json:"use"`
			Algorithm string `json:"alg"`
		} `json:"keys"`
	}
	if err := cmp.Or(strictjson.Check(string(data)), json.Unmarshal(data, &set)); err != nil {
		return nil, &ProofError{Check: ProofKey, Reason: "the key set is no JWKS", Err: err}
	}
	keys := PublicKeys{}
	for i, k := range set.Keys {
		if k.KeyType != "OKP" || k.Curve != "Ed25519" || k.KeyID == "" || k.Use != "" && k.Use != "sig" ||
			k.Algorithm != "" && k.Algorithm != "EdDSA" {
			continue
		}
		x, err := decodeBase64(k.X)
		if err != nil || len(x) != ed25519.PublicKeySize {
			return nil, proofFailed(ProofKey, "x of the key %d is not the base64url of 32 bytes", i)
		}
		if err = edkey.Check(x); err != nil {
			return nil, &ProofError{Check: ProofKey, Reason: fmt.Sprintf("x of the key %d", i), Err: err}
		}
		if _, twice := keys[k.KeyID]; twice {
			return nil, proofFailed(ProofKey, "the key %d has the kid of another", i)
		}
		keys[k.KeyID] = x
	}
	return keys, nil
}

// ProofCheck names what failed in an offline verification.
type ProofCheck string

// Checks of an offline verification, in their order.
const (
	ProofEncoding  ProofCheck = "encoding"  // the envelope is not the base64url of a COSE_Sign1
	ProofHeader    ProofCheck = "header"    // its algorithm, type or key id is not a claim's
	ProofKey       ProofCheck = "key"       // the key that it names is not among those given
	ProofSignature ProofCheck = "signature" // it was changed, or another key has signed it
	ProofPayload   ProofCheck = "payload"   // what is signed is not the kind of claim expected
	ProofManifest  ProofCheck = "manifest"  // the manifest is not one, or speaks of another pack than the claim
	ProofDigest    ProofCheck = "digest"    // the manifest is not the one that was signed
	ProofAudit     ProofCheck = "audit"     // an audit row of the manifest does not have the hash of its content
)

// ProofError says why something could not be verified offline. Nothing of it may be trusted then.
type ProofError struct {
	Check  ProofCheck
	Reason string
	Err    error // what the parser said, if it said anything
}

// Error names the check and what was wrong.
func (e *ProofError) Error() string {
	text := "stack: not proven: " + string(e.Check) + ": " + oneLine(e.Reason, maxMessageText)
	if e.Err != nil {
		text += ": " + oneLine(e.Err.Error(), maxMessageText)
	}
	return text
}

// Unwrap returns the parser's error.
func (e *ProofError) Unwrap() error { return e.Err }

func proofFailed(check ProofCheck, format string, args ...any) *ProofError {
	return &ProofError{Check: check, Reason: fmt.Sprintf(format, args...)}
}

// VerifiedClaim is a claim whose signature is good.
type VerifiedClaim struct {
	KeyID   string // of the key that signed it
	Payload []byte // the claim in CBOR, as it was signed
}

// Decode reads the claim into v: a map[string]any, or a struct by its cbor or json tags. It fails with a [*ProofError] for a
// claim that does not fit.
func (c *VerifiedClaim) Decode(v any) error {
	if err := cose.Decode(c.Payload, v); err != nil {
		return &ProofError{Check: ProofPayload, Reason: "the claim cannot be read", Err: err}
	}
	return nil
}

// VerifyClaim verifies what [SignClaim] or the API has signed, offline: strict base64url without padding, one untagged
// COSE_Sign1, alg EdDSA, typ stack/claim+cose, a kid among the keys, no other demand in its headers, the signature, and
// a payload that is one CBOR map. It says nothing of who may claim what, or when: that is for the caller to decide, by the
// key id and the content. It fails with a [*ProofError]. (contract: endpoints 6)
func VerifyClaim(envelope string, keys PublicKeys) (*VerifiedClaim, error) {
	if len(envelope) > base64.RawURLEncoding.EncodedLen(MaxClaimSize) {
		return nil, proofFailed(ProofEncoding, "the envelope is over %d bytes", MaxClaimSize)
	}
	raw, err := decodeBase64(envelope)
	if err != nil {
		return nil, &ProofError{Check: ProofEncoding, Reason: "the envelope is not base64url without padding", Err: err}
	}
	return VerifyClaimCOSE(raw, keys)
}

// decodeBase64 reads base64url without padding, and nothing else: no line breaks, no stray bits.
func decodeBase64(text string) ([]byte, error) {
	if strings.IndexByte(text, '\n') >= 0 || strings.IndexByte(text, '\r') >= 0 { // which decoding skips
		return nil, errors.New("it contains a line break")
	}
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

// VerifyClaimCOSE does what [VerifyClaim] does with the bytes of a COSE_Sign1 themselves, such as a downloaded operator
// review. It fails with a [*ProofError].
func VerifyClaimCOSE(envelope []byte, keys PublicKeys) (*VerifiedClaim, error) {
	if len(envelope) > MaxClaimSize {
		return nil, proofFailed(ProofEncoding, "the envelope is over %d bytes", MaxClaimSize)
	}
	var m cosesign.UntaggedSign1Message
	if err := m.UnmarshalCBOR(envelope); err != nil {
		return nil, &ProofError{Check: ProofEncoding, Reason: "the envelope is no untagged COSE_Sign1", Err: err}
	}
	protected := m.Headers.Protected
	kid, _ := protected[cosesign.HeaderLabelKeyID].([]byte)
	switch alg, err := protected.Algorithm(); {
	case err != nil || alg != cosesign.AlgorithmEdDSA:
		return nil, proofFailed(ProofHeader, "its alg is not EdDSA")
	case protected[cosesign.HeaderLabelType] != cose.Type:
		return nil, proofFailed(ProofHeader, "its typ is not %s", cose.Type)
	case len(kid) == 0:
		return nil, proofFailed(ProofHeader, "it names no key (kid)")
	case protected[cosesign.HeaderLabelCritical] != nil || len(m.Headers.Unprotected) > 0:
		return nil, proofFailed(ProofHeader, "it has headers that a claim has not: crit or unprotected ones")
	}
	key, ok := keys[string(kid)]
	if !ok || len(key) != ed25519.PublicKeySize {
		return nil, proofFailed(ProofKey, "no Ed25519 key is given for the kid %q", kid)
	}
	verifier, err := cosesign.NewVerifier(cosesign.AlgorithmEdDSA, key)
	if err != nil {
		return nil, &ProofError{Check: ProofKey, Reason: "the key cannot be used", Err: err}
	}
	if m.Payload == nil {
		return nil, proofFailed(ProofEncoding, "it has no payload")
	}
	if err := m.Verify(nil, verifier); err != nil {
		return nil, &ProofError{Check: ProofSignature, Reason: "the signature is not that of the key", Err: err}
	}
	c := &VerifiedClaim{KeyID: string(kid), Payload: m.Payload}
	var content map[string]any
	if err := c.Decode(&content); err != nil {
		return nil, err
	}
	if content == nil { // null and undefined decode into anything
		return nil, proofFailed(ProofPayload, "the claim is no map")
	}
	return c, nil
}
