package stack

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
)

type passportKey struct{}

// PassportFromContext returns the claims of the passport with which a request came through [PassportMiddleware].
func PassportFromContext(ctx context.Context) (claims *PassportClaims, ok bool) {
	claims, ok = ctx.Value(passportKey{}).(*PassportClaims)
	return claims, ok
}

// passportScheme is what WWW-Authenticate asks for.
const passportScheme = "Stack-Passport"

// PassportMiddleware lets only requests through that carry a good passport in the header [HeaderPassport], and hands its claims
// on: [PassportFromContext] returns them. Of several values the first counts. It says who calls, and does not decide what
// they may do: that is for the handler, by the agent, the operator, or the services and scopes in the claims.
//
// Others get 401 with WWW-Authenticate: Stack-Passport and, in the shape of the API's errors, the code PASSPORT_EXPIRED,
// PASSPORT_REVOKED or UNAUTHORIZED with details.reason, a [VerificationReason]. While a passport cannot be verified, because
// keys or the server are out of reach, they get 503 with code VERIFICATION_UNAVAILABLE and Retry-After. No answer holds
// anything of the token. (contract: endpoints 5.1)
func PassportMiddleware(verifier *PassportVerifier) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			claims, err := verifier.Verify(r.Context(), NewSecret(r.Header.Get(HeaderPassport)))
			if err != nil {
				if verifier != nil && verifier.logger != nil {
					verifier.logger.DebugContext(r.Context(), "a request was refused for its passport", "error", err)
				}
				refusePassport(w, err)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), passportKey{}, claims)))
		})
	}
}

// refusePassport answers for a passport that was refused.
func refusePassport(w http.ResponseWriter, err error) {
	status, code, message := http.StatusUnauthorized, "UNAUTHORIZED", "a good passport is required in the header "+HeaderPassport
	details := map[string]any{"check": "passport", "allowed": HeaderPassport + ": a passport that is valid now"}
	header := w.Header()
	var refusal *VerificationError
	if errors.As(err, &refusal) {
		details["reason"] = refusal.Reason
		if refusal.Claim != "" {
			details["claim"] = oneLine(refusal.Claim, maxNameText)
		}
	}
	switch {
	case refusal == nil || refusal.Reason == RefusedUnavailable:
		status, code, message = http.StatusServiceUnavailable, "VERIFICATION_UNAVAILABLE", "the passport cannot be verified at the moment"
		header.Set("Retry-After", strconv.Itoa(int(keysFetchPause/time.Second)))
	case errors.Is(err, ErrPassportExpired):
		code, message = "PASSPORT_EXPIRED", "the passport has expired"
	case errors.Is(err, ErrPassportRevoked):
		code, message = "PASSPORT_REVOKED", "the passport is revoked"
	}
	if status == http.StatusUnauthorized {
		challenge := passportScheme
		if refusal.Reason != RefusedMissing {
			challenge += ` error="` + string(refusal.Reason) + `"`
		}
		header.Set("WWW-Authenticate", challenge)
	}
	body, _ := marshalJSON(map[string]any{"error": map[string]any{"code": code, "message": message, "details": details}})
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
