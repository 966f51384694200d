package stack

import "fmt"

// VerificationReason says why [PassportVerifier.Verify] refuses a passport.
type VerificationReason string

// Reasons of a refusal, in the order in which they are looked for.
const (
	RefusedMissing        VerificationReason = "missing"          // there is no token
	RefusedMalformed      VerificationReason = "malformed"        // it is no passport token, whoever signed it, or too long
	RefusedAlgorithm      VerificationReason = "algorithm"        // its alg is not EdDSA
	RefusedUnknownKey     VerificationReason = "unknown_key"      // its kid is that of no key of the deployment
	RefusedSignature      VerificationReason = "signature"        // it was changed, or another key signed it
	RefusedClaim          VerificationReason = "claim"            // a claim is missing, of another type, or contradicts another
	RefusedExpired        VerificationReason = "expired"          // exp is over, or, online, what the server has on record
	RefusedNotYetValid    VerificationReason = "not_yet_valid"    // nbf is to come
	RefusedIssuedInFuture VerificationReason = "issued_in_future" // iat is to come
	RefusedIssuer         VerificationReason = "issuer"           // iss is another
	RefusedAudience       VerificationReason = "audience"         // aud is another
	RefusedRevoked        VerificationReason = "revoked"          // online: it was revoked or checked out
	RefusedMissionEnded   VerificationReason = "mission_ended"    // online: its Mission is over
	RefusedByServer       VerificationReason = "by_server"        // online: the server does not take it for its own

	// RefusedUnavailable is the only reason that says nothing of the passport: its key, or with PassportVerifierConfig.Online
	// its state, could not be had. The same passport may pass later.
	RefusedUnavailable VerificationReason = "unavailable"
)

// VerificationError says why a passport was refused. It never holds the token. errors.Is finds [ErrPassportExpired] in an
// expired one and [ErrPassportRevoked] in a revoked one.
type VerificationError struct {
	Reason VerificationReason
	Claim  string // the claim that Reason is about, such as stk.operator_id; else empty
	Detail string // for people, not stable
	Err    error  // why something was unavailable, such as the context's error
}

// Error says in one line what was wrong.
func (e *VerificationError) Error() string {
	text := "stack: the passport is refused: " + string(e.Reason)
	if e.Claim != "" {
		text += ": " + oneLine(e.Claim, maxNameText)
	}
	if e.Detail != "" {
		text += ": " + oneLine(e.Detail, maxMessageText)
	}
	if e.Err != nil {
		text += ": " + oneLine(e.Err.Error(), maxMessageText)
	}
	return text
}

// Is reports whether target is the sentinel of the reason.
func (e *VerificationError) Is(target error) bool {
	return target == ErrPassportExpired && e.Reason == RefusedExpired ||
		target == ErrPassportRevoked && e.Reason == RefusedRevoked
}

// Unwrap returns the error behind [RefusedUnavailable].
func (e *VerificationError) Unwrap() error { return e.Err }

func unverified(reason VerificationReason, claim, format string, args ...any) *VerificationError {
	return &VerificationError{Reason: reason, Claim: claim, Detail: fmt.Sprintf(format, args...)}
}

func unavailable(what string, err error) *VerificationError {
	return &VerificationError{Reason: RefusedUnavailable, Detail: what, Err: err}
}
