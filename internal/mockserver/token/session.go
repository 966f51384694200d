package token

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// sessionType is the typ of the tokens of people who have signed in to the dashboard; sessionAudience is where they are good.
const (
	sessionType     = "session+jwt"
	sessionAudience = "stack:dashboard"
)

// IsSession reports whether a bearer claims to be a dashboard session. Only [Signer.VerifySession] says whether it is one.
func IsSession(bearer string) bool { return typeOf(bearer) == sessionType }

// SignSession returns the token of a person who has signed in to an operator's dashboard.
func (s *Signer) SignSession(operatorID string, issuedAt, expiresAt time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.RegisteredClaims{Subject: operatorID, Issuer: Issuer,
		Audience: jwt.ClaimStrings{sessionAudience}, IssuedAt: jwt.NewNumericDate(issuedAt), ExpiresAt: jwt.NewNumericDate(expiresAt)})
	t.Header["kid"], t.Header["typ"] = s.jwk.KeyID, sessionType
	signed, err := t.SignedString(s.key())
	if err != nil {
		return "", fmt.Errorf("sign a session: %w", err)
	}
	return signed, nil
}

// VerifySession returns whose session a token is that is good at the given time. It fails with [ErrAccessExpired] or
// [ErrInvalidSignature]; no error holds anything of the token.
func (s *Signer) VerifySession(token string, now time.Time) (operatorID string, err error) {
	if len(token) > MaxSize || strings.ContainsAny(token, "\r\n") {
		return "", ErrInvalidSignature
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithStrictDecoding(),
		jwt.WithIssuer(Issuer), jwt.WithAudience(sessionAudience), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(func() time.Time { return now }))
	var c jwt.RegisteredClaims
	parsed, err := parser.ParseWithClaims(token, &c, s.publicKey)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return "", ErrAccessExpired
	case err != nil || parsed.Header["typ"] != sessionType:
		return "", ErrInvalidSignature
	}
	return c.Subject, nil
}
