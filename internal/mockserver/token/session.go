package token

import (
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
	return s.signTyped(sessionType, jwt.RegisteredClaims{Subject: operatorID, Issuer: Issuer,
		Audience: jwt.ClaimStrings{sessionAudience}, IssuedAt: jwt.NewNumericDate(issuedAt), ExpiresAt: jwt.NewNumericDate(expiresAt)})
}

// VerifySession returns whose session a token is that is good at the given time. It fails with [ErrAccessExpired] or
// [ErrInvalidSignature]; no error holds anything of the token.
func (s *Signer) VerifySession(token string, now time.Time) (operatorID string, err error) {
	var c jwt.RegisteredClaims
	if err = s.verifyTyped(token, sessionType, sessionAudience, &c, now); err != nil {
		return "", err
	}
	return c.Subject, nil
}
