package stack

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// SigningKeys fetches the keys with which the deployment signs passports and claims, for [VerifyClaim] and
// [VerifyEvidencePack]. Keep them: a key is good for what it has signed also when it is no longer served. It fails with a
// [*ProofError] for an answer that is no key set.
//
// GET /v1/.well-known/jwks.json
func (c *Client) SigningKeys(ctx context.Context) (PublicKeys, error) {
	set, err := send[json.RawMessage](ctx, c, get("/v1/.well-known/jwks.json"))
	if err != nil {
		return nil, err
	}
	return ParseJWKS(*set)
}

// OperatorKeys fetches the keys with which an operator's agents sign their own claims, by [AgentKeyID], for [VerifyClaim]. They
// never sign passports, and a [PassportVerifier] does not take them. It fails with [ErrNotFound], and with a [*ProofError] for
// an answer that is no key set.
//
// GET /v1/operators/{operator_id}/jwks.json
func (c *Client) OperatorKeys(ctx context.Context, operatorID string) (PublicKeys, error) {
	set, err := send[json.RawMessage](ctx, c, get("/v1/operators/{operator_id}/jwks.json", operatorID))
	if err != nil {
		return nil, err
	}
	return ParseJWKS(*set)
}

const (
	maxLeeway               = 5 * time.Minute
	defaultRevocationWindow = 30 * time.Second
	maxRevocationWindow     = 5 * time.Minute
	revocationTimeout       = 10 * time.Second
	verifiedKept            = 1024 // passports, at least, that are known to be good
	revocationsKept         = 4096 // answers, at least
)

// PassportVerifierConfig says how a [PassportVerifier] works. The zero value verifies passports of the hosted service.
type PassportVerifierConfig struct {
	// Keys are the deployment's keys, by their kid, for a verifier that never uses the network: [Client.SigningKeys] or
	// [ParseJWKS] gives them. JWKSURL, instead of them, is where they are fetched: https, or http to a loopback address. The
	// default is that of [DefaultBaseURL]. An operator's own set is refused.
	Keys    PublicKeys
	JWKSURL string

	// HTTPClient fetches the JWKS, through a copy that follows no redirect and takes 10 s at most.
	HTTPClient *http.Client

	Issuer   string // default [PassportIssuer]
	Audience string // default [PassportAudience]

	// Leeway is how far the clocks of issuer and verifier may be apart, for exp, nbf and iat: at most 5 minutes, default none.
	Leeway time.Duration

	// Online asks the server, when everything else is well, whether a passport was revoked since: no signature tells. A
	// passport is refused while the server cannot be reached. An answer counts for all tokens of a passport for RevocationWindow,
	// which may be up to 5 minutes; the default is 30 s. nil asks nobody: a revoked passport passes until it expires.
	Online           *Client
	RevocationWindow time.Duration

	// Logger is told at warning level of key sets that could not be fetched, and at debug level of the reasons why
	// [PassportMiddleware] refuses; never of tokens. The default logs nothing.
	Logger *slog.Logger
}

// PassportVerifier verifies passports by their signature, without a call to STACK for each. It remembers passports that it has
// verified (between 1,024 and 2,048) and the keys of the deployment: those are fetched when the first passport comes, anew in the
// background when they are over 5 minutes old, and at once, though at most every 5 s, when a passport names another key. While
// they cannot be had, those of the last 24 hours serve. It runs no goroutine but for a fetch under way, and need not be closed.
// It is safe for concurrent use. (contract: endpoints 5)
type PassportVerifier struct {
	keys             *keySource
	issuer, audience string
	leeway           time.Duration
	online           *revocations // nil: not asked
	logger           *slog.Logger

	mu       sync.Mutex
	verified recent[*verifiedPassport] // by the token
}

// verifiedPassport is a passport whose signature is good, of a key that was good then.
type verifiedPassport struct {
	kid    string
	key    ed25519.PublicKey
	claims *PassportClaims
}

// NewPassportVerifier makes a verifier. Make one, and use it for all passports. It fails with a [*ParamError] for a
// configuration that cannot work, such as a weak key or a URL that is not https. It makes no network call.
func NewPassportVerifier(config PassportVerifierConfig) (*PassportVerifier, error) {
	if config.Leeway < 0 || config.Leeway > maxLeeway {
		return nil, &ParamError{Param: "Leeway", Reason: fmt.Sprintf("is %s; it may be 0s to %s", config.Leeway, maxLeeway)}
	}
	if config.RevocationWindow < 0 || config.RevocationWindow > maxRevocationWindow {
		return nil, &ParamError{Param: "RevocationWindow", Reason: fmt.Sprintf("is %s; it may be up to %s, and 0s is the default of %s",
			config.RevocationWindow, maxRevocationWindow, defaultRevocationWindow)}
	}
	if config.RevocationWindow != 0 && config.Online == nil {
		return nil, &ParamError{Param: "RevocationWindow", Reason: "is of no use without Online"}
	}
	if config.Keys != nil && config.JWKSURL != "" {
		return nil, &ParamError{Param: "Keys", Reason: "are given together with JWKSURL; give one of the two"}
	}
	v := &PassportVerifier{issuer: cmp.Or(config.Issuer, PassportIssuer), audience: cmp.Or(config.Audience, PassportAudience),
		leeway: config.Leeway, logger: cmp.Or(config.Logger, slog.New(slog.DiscardHandler)),
		verified: recent[*verifiedPassport]{limit: verifiedKept}}
	var err error
	if config.Keys != nil {
		v.keys, err = givenKeys(config.Keys)
	} else {
		v.keys, err = fetchedKeys(cmp.Or(config.JWKSURL, DefaultBaseURL+jwksPath), config.HTTPClient, v.logger)
	}
	if err != nil {
		return nil, err
	}
	if config.Online != nil {
		v.online = &revocations{client: config.Online, window: cmp.Or(config.RevocationWindow, defaultRevocationWindow),
			answers: recent[*asked[Verification]]{limit: revocationsKept}}
	}
	return v, nil
}

// VerifyPassport verifies one passport, as [PassportVerifier.Verify] does it. Who verifies more than one makes a verifier, which
// keeps the keys. It fails with a [*ParamError] for a configuration that cannot work, and with a [*VerificationError].
func VerifyPassport(ctx context.Context, token Secret, config PassportVerifierConfig) (*PassportClaims, error) {
	v, err := NewPassportVerifier(config)
	if err != nil {
		return nil, err
	}
	return v.Verify(ctx, token)
}

// Verify returns what a passport says, once it is sure that the deployment says so and that it holds now: a token of at most
// [MaxPassportSize] bytes in strict base64url, with alg EdDSA and no extension, a kid of the deployment's, a good signature, claims
// without a name twice, all that every passport has, stk.agent_id equal to sub, exp to come, nbf and iat not, and the issuer and
// audience that were asked for. It fails with a [*VerificationError], whose Reason says which of these is not so. What it returns
// is the caller's own. The context bounds a wait for keys or, with PassportVerifierConfig.Online, for the server.
// (contract: endpoints 5.2)
func (v *PassportVerifier) Verify(ctx context.Context, token Secret) (*PassportClaims, error) {
	if v == nil || v.keys == nil {
		return nil, unavailable("the verifier was not made by NewPassportVerifier", nil)
	}
	p, refusal := v.verify(ctx, token.Reveal())
	if refusal == nil {
		refusal = v.expects(p.claims, time.Now())
	}
	if refusal == nil && v.online != nil {
		refusal = v.online.check(ctx, p.claims.JTI, token)
	}
	if refusal != nil {
		return nil, refusal
	}
	return p.claims.clone(), nil
}

// verify checks what does not change with time: form, signature and completeness.
func (v *PassportVerifier) verify(ctx context.Context, text string) (*verifiedPassport, *VerificationError) {
	switch {
	case text == "":
		return nil, unverified(RefusedMissing, "", "there is no token")
	case len(text) > MaxPassportSize:
		return nil, unverified(RefusedMalformed, "", "it has %d bytes; at most %d are allowed", len(text), MaxPassportSize)
	}
	v.mu.Lock()
	known, ok := v.verified.get(text)
	v.mu.Unlock()
	if ok {
		key, refusal := v.keys.find(ctx, known.kid)
		if refusal != nil {
			return nil, refusal
		}
		if key.Equal(known.key) {
			return known, nil
		}
	}
	t, refusal := splitToken(text)
	if refusal != nil {
		return nil, refusal
	}
	key, refusal := v.keys.find(ctx, t.kid)
	if refusal != nil {
		return nil, refusal
	}
	if !t.verifiedBy(key) {
		return nil, unverified(RefusedSignature, "", "the signature is not that of its key")
	}
	claims, refusal := t.claims(v.audience)
	if refusal != nil {
		return nil, refusal
	}
	p := &verifiedPassport{kid: t.kid, key: key, claims: claims}
	v.mu.Lock()
	v.verified.put(text, p)
	v.mu.Unlock()
	return p, nil
}

// expects compares the claims with the clock and with what was asked for.
func (v *PassportVerifier) expects(c *PassportClaims, now time.Time) *VerificationError {
	switch {
	case !now.Before(c.ExpiresAt.Add(v.leeway)):
		return unverified(RefusedExpired, "exp", "it ended at %s", c.ExpiresAt.Format(time.RFC3339))
	case c.NotBefore.After(now.Add(v.leeway)):
		return unverified(RefusedNotYetValid, "nbf", "it begins at %s", c.NotBefore.Format(time.RFC3339))
	case c.IssuedAt.After(now.Add(v.leeway)):
		return unverified(RefusedIssuedInFuture, "iat", "it was issued at %s, by this clock in the future", c.IssuedAt.Format(time.RFC3339))
	case c.Issuer != v.issuer:
		return unverified(RefusedIssuer, "iss", "it is %q; expected is %q", oneLine(c.Issuer, maxNameText), v.issuer)
	case c.Audience != v.audience:
		return unverified(RefusedAudience, "aud", "it is %q; expected is %q", oneLine(c.Audience, maxNameText), v.audience)
	}
	return nil
}

// revocations asks the server about passports, and remembers for a while what it said.
type revocations struct {
	client *Client
	window time.Duration

	mu      sync.Mutex
	answers recent[*asked[Verification]] // by jti
}

func (r *revocations) check(ctx context.Context, jti string, token Secret) *VerificationError {
	r.mu.Lock()
	answer, ok := r.answers.get(jti)
	if !ok || answer.answered() && (answer.err != nil || time.Since(answer.began) >= r.window) {
		answer = ask(ctx, revocationTimeout, func(ctx context.Context) (state Verification, err error) {
			said, err := r.client.Passports.Verify(ctx, token)
			if err == nil {
				state = Verification{Valid: said.Valid, Reason: said.Reason, RevocationReason: said.RevocationReason}
			}
			return state, err
		})
		r.answers.put(jti, answer)
	}
	r.mu.Unlock()
	state, err := answer.wait(ctx)
	switch {
	case err != nil:
		return unavailable("the server could not be asked whether it was revoked", err)
	case state.Valid:
		return nil
	case state.Reason == "revoked":
		return unverified(RefusedRevoked, "", "%s", cmp.Or(state.RevocationReason, "no reason was given"))
	case state.Reason == "mission_ended":
		return unverified(RefusedMissionEnded, "", "its Mission is over")
	case state.Reason == "expired":
		return unverified(RefusedExpired, "", "by the server's record it has ended")
	}
	return unverified(RefusedByServer, "", "the server says: %s", cmp.Or(state.Reason, "nothing"))
}
