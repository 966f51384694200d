package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/getstack-go/stack"
)

// accessType is the typ of access tokens (RFC 9068). It keeps them apart from passports, which the same key signs.
const accessType = "at+jwt"

// Access is what an OAuth access token says.
type Access struct {
	ID        string
	Subject   string
	ClientID  string
	SessionID string
	Scopes    []string
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// accessClaims are the claims of an [Access] on the wire.
type accessClaims struct {
	jwt.RegisteredClaims
	ClientID  string `json:"client_id"`
	SessionID string `json:"sid"`
	Scope     string `json:"scope"`
}

// ErrAccessExpired is an access token, or a session, whose time is over; every other fault of one is [ErrInvalidSignature].
var ErrAccessExpired = errors.New("the access token has expired")

// IsAccess reports whether a bearer claims to be an access token. Only [Signer.VerifyAccess] says whether it is one.
func IsAccess(bearer string) bool { return typeOf(bearer) == accessType }

// typeOf is the typ that a bearer claims, empty for what is no JWT.
func typeOf(bearer string) string {
	first, _, ok := strings.Cut(bearer[:min(len(bearer), MaxSize)], ".")
	data, err := base64.RawURLEncoding.DecodeString(first)
	var header struct {
		Type string `json:"typ"`
	}
	if !ok || err != nil || json.Unmarshal(data, &header) != nil {
		return ""
	}
	return header.Type
}

// SignAccess returns an access token for the API.
func (s *Signer) SignAccess(a Access) (string, error) {
	return s.signTyped(accessType, accessClaims{
		RegisteredClaims: jwt.RegisteredClaims{ID: a.ID, Subject: a.Subject, Issuer: Issuer, Audience: jwt.ClaimStrings{stack.DefaultBaseURL},
			IssuedAt: jwt.NewNumericDate(a.IssuedAt), ExpiresAt: jwt.NewNumericDate(a.ExpiresAt)},
		ClientID: a.ClientID, SessionID: a.SessionID, Scope: strings.Join(a.Scopes, " "),
	})
}

// signTyped signs a bearer of the given typ, which keeps it apart from all else that the same key signs.
func (s *Signer) signTyped(typ string, claims jwt.Claims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	t.Header["kid"], t.Header["typ"] = s.jwk.KeyID, typ
	signed, err := t.SignedString(s.key())
	if err != nil {
		return "", fmt.Errorf("sign a token of type %s: %w", typ, err)
	}
	return signed, nil
}

// VerifyAccess returns what an access token of this server says that is good at the given time. It fails with
// [ErrAccessExpired] or [ErrInvalidSignature]; no error holds anything of the token.
func (s *Signer) VerifyAccess(token string, now time.Time) (Access, error) {
	var c accessClaims
	if err := s.verifyTyped(token, accessType, stack.DefaultBaseURL, &c, now); err != nil {
		return Access{}, err
	}
	return Access{ID: c.ID, Subject: c.Subject, ClientID: c.ClientID, SessionID: c.SessionID, Scopes: strings.Fields(c.Scope),
		IssuedAt: c.IssuedAt.Time, ExpiresAt: c.ExpiresAt.Time}, nil
}

// verifyTyped reads the claims of a bearer of the given typ that is good at the given time, for the given audience. What it
// leaves in claims when it fails is not to be believed.
func (s *Signer) verifyTyped(token, typ, audience string, claims jwt.Claims, now time.Time) error {
	if len(token) > MaxSize || strings.ContainsAny(token, "\r\n") {
		return ErrInvalidSignature
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithStrictDecoding(),
		jwt.WithIssuer(Issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(func() time.Time { return now }))
	parsed, err := parser.ParseWithClaims(token, claims, s.publicKey)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return ErrAccessExpired
	case err != nil || parsed.Header["typ"] != typ:
		return ErrInvalidSignature
	}
	return nil
}
