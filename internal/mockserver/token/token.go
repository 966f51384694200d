// Package token mints and checks passports: JWTs signed with the server's Ed25519 deployment key. It knows nothing of
// their expiry and revocation, which the server's record decides. (contract: endpoints 5.3 and 5.4; decisions, Missions
// and passports)
package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/getstack-go/stack"
)

// Issuer and Audience are the iss and aud of every passport.
const (
	Issuer   = stack.PassportIssuer
	Audience = stack.PassportAudience
)

// MaxSize is the length in bytes that a token may have.
const MaxSize = stack.MaxPassportSize

// ErrTooLong is a passport whose claims do not fit into a token of [MaxSize].
var ErrTooLong = errors.New("the token is too long")

// ErrMalformed and ErrInvalidSignature are the two ways in which Verify fails.
var (
	// ErrMalformed is a text that is no passport, whoever may have signed it.
	ErrMalformed = errors.New("malformed passport token")
	// ErrInvalidSignature is a passport that this server did not sign, or not as a passport: wrong or unknown algorithm,
	// key, signature, issuer or audience.
	ErrInvalidSignature = errors.New("invalid passport signature")
)

// Signer holds a deployment key. It is safe for concurrent use.
type Signer struct {
	key    func() ed25519.PrivateKey // a function, so that fmt cannot print the key
	jwk    JWK
	parser *jwt.Parser
}

// NewRandomSigner returns a signer with a fresh key.
func NewRandomSigner() *Signer {
	var seed [ed25519.SeedSize]byte
	_, _ = rand.Read(seed[:]) // never fails: it ends the program instead
	defer clear(seed[:])
	return NewSigner(seed)
}

// NewSigner returns a signer with the Ed25519 key of the given seed. The key's id is its RFC 7638 thumbprint.
func NewSigner(seed [ed25519.SeedSize]byte) *Signer {
	key := ed25519.NewKeyFromSeed(seed[:])
	jwk := NewJWK("", key.Public().(ed25519.PublicKey))
	thumbprint := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + jwk.X + `"}`))
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint[:])
	return &Signer{
		key: func() ed25519.PrivateKey { return key },
		jwk: jwk,
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithStrictDecoding(),
			jwt.WithoutClaimsValidation(),
		),
	}
}

// JWK is a public key as JWKS has it.
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	KeyID     string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
}

// NewJWK describes a key that signs under the given id.
func NewJWK(id string, key ed25519.PublicKey) JWK {
	return JWK{KeyType: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(key), KeyID: id, Use: "sig",
		Algorithm: jwt.SigningMethodEdDSA.Alg()}
}

// JWKS is the set of keys that offline verifiers take a passport's key from.
type JWKS struct {
	Keys []JWK `json:"keys"`
}

// JWKS returns the public half of the deployment key, for /v1/.well-known/jwks.json. (contract: endpoints 5.3)
func (s *Signer) JWKS() JWKS { return JWKS{Keys: []JWK{s.jwk}} }

// Sign returns the passport with the given claims. It sets iss and aud itself, and cuts iat and exp down to whole seconds,
// so that neither lies later than the caller's record says. It fails, naming the claim, when one is missing that Verify
// asks for, and with [ErrTooLong].
func (s *Signer) Sign(c stack.PassportClaims) (string, error) {
	c.Issuer, c.Audience = Issuer, Audience
	if c.STK.Services == nil { // these two are arrays in every passport, never null (contract: endpoints 5.4)
		c.STK.Services = []stack.PassportService{}
	}
	if c.STK.IdentityClaims == nil {
		c.STK.IdentityClaims = []map[string]any{}
	}
	if err := check(c); err != nil {
		return "", fmt.Errorf("sign a passport: %w", err)
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &claims{passport: c})
	t.Header["kid"] = s.jwk.KeyID
	signed, err := t.SignedString(s.key())
	if err != nil {
		return "", fmt.Errorf("sign a passport: %w", err)
	}
	if len(signed) > MaxSize {
		return "", fmt.Errorf("sign a passport: %w: it would have %d bytes, at most %d are allowed", ErrTooLong, len(signed), MaxSize)
	}
	return signed, nil
}

// Verify returns the claims of a passport that this server has signed. An expired or revoked passport passes: that is for
// the caller's record to say. It fails with [ErrMalformed] or [ErrInvalidSignature]; no error holds anything of the token.
func (s *Signer) Verify(token string) (stack.PassportClaims, error) {
	if len(token) > MaxSize {
		return stack.PassportClaims{}, malformed("it is %d bytes long, at most %d are allowed", len(token), MaxSize)
	}
	if strings.ContainsAny(token, "\r\n") { // which base64 decoding skips
		return stack.PassportClaims{}, malformed("it contains a line break")
	}
	var c claims
	parsed, err := s.parser.ParseWithClaims(token, &c, s.publicKey)
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return stack.PassportClaims{}, malformed("it must be three base64url segments: " +
			"a JSON header, the JSON claims of a passport, and a signature")
	case err != nil:
		return stack.PassportClaims{}, fmt.Errorf("%w: it must be signed by this server with EdDSA", ErrInvalidSignature)
	}
	if _, ok := parsed.Header["crit"]; ok || parsed.Header["typ"] != "JWT" {
		return stack.PassportClaims{}, malformed("its header must have the typ JWT and no crit")
	}
	if err := check(c.passport); err != nil {
		return stack.PassportClaims{}, malformed("%w", err)
	}
	if c.passport.Issuer != Issuer || c.passport.Audience != Audience {
		return stack.PassportClaims{}, fmt.Errorf("%w: iss must be %s and aud %s", ErrInvalidSignature, Issuer, Audience)
	}
	return c.passport, nil
}

// publicKey gives the parser the key that the header's kid names.
func (s *Signer) publicKey(t *jwt.Token) (any, error) {
	if t.Header["kid"] != s.jwk.KeyID {
		return nil, errors.New("unknown kid")
	}
	return s.key().Public(), nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// check reports what a passport lacks. An absent iat or exp decodes as 1970. (contract: endpoints 5.2)
func check(c stack.PassportClaims) error {
	switch {
	case c.JTI == "":
		return errors.New("jti must not be empty")
	case c.Subject == "":
		return errors.New("sub must not be empty")
	case c.Issuer == "":
		return errors.New("iss must not be empty")
	case c.Audience == "":
		return errors.New("aud must not be empty")
	case c.IssuedAt.Unix() <= 0:
		return errors.New("iat must be set, in whole seconds after 1970")
	case c.ExpiresAt.Unix() <= 0:
		return errors.New("exp must be set, in whole seconds after 1970")
	case c.STK.OperatorID == "":
		return errors.New("stk.operator_id must not be empty")
	case c.STK.AgentID != c.Subject:
		return errors.New("stk.agent_id must equal sub")
	}
	return nil
}

// claims makes the passport's claims fit the JWT library, whose own checks of claims are switched off: they cannot be had
// without the check of the expiry.
type claims struct {
	jwt.RegisteredClaims
	passport stack.PassportClaims
}

// MarshalJSON writes the passport's claims.
func (c *claims) MarshalJSON() ([]byte, error) { return c.passport.MarshalJSON() }

// UnmarshalJSON reads the passport's claims. It fails when iat or exp is no integer.
func (c *claims) UnmarshalJSON(data []byte) error { return c.passport.UnmarshalJSON(data) }
