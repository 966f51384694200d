package mockserver

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/edkey"
)

const (
	challengeLife = 5 * time.Minute
	maxChallenges = 1000 // of an operator, that wait for their answer

	agentTokenIssuer = "stack-sdk"
	agentTokenLife   = time.Minute
	agentTokenLeeway = 5 * time.Second // between the clocks of agent and server
	maxAgentToken    = 4 << 10         // bytes
	maxAgentJTI      = 128             // characters
	maxTokensSeen    = 50_000          // of one agent, that could still pass if they were not remembered
)

func agentKeyRoutes() []route {
	return []route{
		endpoint("POST", "/v1/agents/{agent_id}/enrollment-challenge", (*Server).challengeKey),
		endpoint("POST", "/v1/agents/{agent_id}/enroll", (*Server).enrollKey),
	}
}

// enrollChallenge is a text that the holder of a key signs, once.
type enrollChallenge struct {
	stack.EnrollmentChallenge
	agentID string // of an agent that is there already; else it is for a fleet
	fleet   *fleet
	kind    stack.FleetMemberKind
}

// challenge puts a challenge on record. Its text says what it is for, so that its signature is of no use elsewhere.
func (op *operator) challenge(now time.Time, prefix, purpose string, ch *enrollChallenge) (*stack.EnrollmentChallenge, error) {
	if have := op.challenges.len(); have >= maxChallenges {
		err := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "too many challenges wait for their answer",
			map[string]any{"check": "challenges", "sent": have + 1, "allowed": maxChallenges})
		for oldest := range op.challenges.all() {
			err.retryAfter = oldest.ExpiresAt.Sub(now)
			break
		}
		return nil, err
	}
	ch.EnrollmentChallenge = stack.EnrollmentChallenge{ChallengeID: newID(prefix), Challenge: purpose + ":" + rand.Text(),
		ExpiresAt: now.Add(challengeLife)}
	op.challenges.put(ch.ChallengeID, ch)
	op.due.add(ch.ExpiresAt, func(time.Time) { op.challenges.delete(ch.ChallengeID) })
	return &ch.EnrollmentChallenge, nil
}

func (s *Server) challengeKey(_ context.Context, c *caller, in agentIn) (*stack.EnrollmentChallenge, error) {
	a, err := c.op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	ch, err := c.op.challenge(now, "ach_", "stack-agent-enrollment:"+a.ID, &enrollChallenge{agentID: a.ID})
	if err != nil {
		return nil, err
	}
	c.op.record(now, stack.AuditEntry{AgentID: a.ID, Action: "agent.enrollment_challenge"})
	return ch, nil
}

// keyProof is a public key and the signature that shows who has the private one.
type keyProof struct {
	jwk    stack.PublicKeyJWK
	public ed25519.PublicKey
	proof  []byte
	field  string // of the proof
}

func readProof(jwk stack.PublicKeyJWK, field string, proof stack.Secret) (*keyProof, error) {
	public, err := readJWK("body.public_key", jwk)
	if err != nil {
		return nil, err
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(proof.Reveal())
	if err != nil || len(signature) != ed25519.SignatureSize {
		return nil, invalid(field, "something else", fmt.Sprintf("the base64url, without padding, of %d bytes", ed25519.SignatureSize))
	}
	return &keyProof{jwk, public, signature, field}, nil
}

// readJWK reads a public Ed25519 key. It refuses what is no point of the curve, what is written otherwise than the one right
// way, and the points of a low order: signatures of those prove nothing, since everybody can make them.
func readJWK(field string, jwk stack.PublicKeyJWK) (ed25519.PublicKey, error) {
	if err := firstError(chosen(field+".kty", jwk.KTY, "OKP"), chosen(field+".crv", jwk.CRV, "Ed25519")); err != nil {
		return nil, err
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(jwk.X)
	if err != nil || len(key) != ed25519.PublicKeySize || base64.RawURLEncoding.EncodeToString(key) != jwk.X {
		return nil, invalid(field+".x", jwk.X, fmt.Sprintf("the base64url, without padding, of %d bytes", ed25519.PublicKeySize))
	}
	if err = edkey.Check(key); err != nil {
		return nil, invalid(field+".x", jwk.X, "a point of the curve Ed25519, canonically encoded and not of a low order")
	}
	return key, nil
}

// answered refuses a wrong proof. The challenge is gone then: there is one try.
func (op *operator) answered(now time.Time, ch *enrollChallenge, p *keyProof, row stack.AuditEntry) error {
	if ed25519.Verify(p.public, []byte(ch.Challenge), p.proof) {
		return nil
	}
	op.challenges.delete(ch.ChallengeID)
	row.Outcome, row.ErrorCode = stack.OutcomeBlocked, "ENROLLMENT_PROOF_INVALID"
	op.record(now, row)
	return refuse(http.StatusForbidden, "ENROLLMENT_PROOF_INVALID", "the proof is not the key's signature of the challenge",
		map[string]any{"check": "enrollment_proof", "field": p.field,
			"allowed": "the Ed25519 signature over the UTF-8 bytes of a fresh challenge"})
}

func badChallenge(id, of string) *apiError {
	return refuse(http.StatusForbidden, "ENROLLMENT_CHALLENGE_INVALID", "the challenge is unknown, used, too old or for "+
		"another "+of, map[string]any{"check": "enrollment_challenge", "field": "body.challenge_id",
		"sent": clip(id), "allowed": "a fresh challenge of this " + of + ", used once"})
}

// mustBeNew refuses a key that another agent of the operator has, and one that a fleet has thrown out: what was withdrawn
// stays so.
func (op *operator) mustBeNew(p *keyProof, agentID string) error {
	holder, taken := op.server.keys.holder(op, p.jwk.X)
	taken = taken && holder != agentID
	for _, m := range op.fleetMembers {
		if m.PublicKey.X == p.jwk.X && (m.AgentID != agentID || m.Status != stack.FleetActive) {
			holder, taken = m.AgentID, true
		}
	}
	if !taken {
		return nil
	}
	return refuse(http.StatusConflict, "KEY_ALREADY_ENROLLED", "the key is an agent's already", map[string]any{
		"check": "unique", "field": "body.public_key", "sent": p.jwk.X, "agent_id": holder, "allowed": "a key that no agent has had"})
}

type enrollKeyIn struct {
	AgentID string                  `path:"agent_id"`
	Body    stack.AgentEnrollParams `body:""`
}

// enrollKey gives an agent its key. Another one takes the place of the first, which is of no use any more; the same one again,
// proved again, changes nothing, so that a lost answer can be asked for.
func (s *Server) enrollKey(_ context.Context, c *caller, in enrollKeyIn) (*stack.AgentEnrollment, error) {
	op, now := c.op, s.clock.now()
	a, err := op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	p, err := readProof(in.Body.PublicKey, "body.signed_challenge", in.Body.SignedChallenge)
	if err != nil {
		return nil, err
	}
	ch, ok := op.challenges.get(in.Body.ChallengeID)
	if !ok || ch.agentID != a.ID {
		return nil, badChallenge(in.Body.ChallengeID, "agent")
	}
	if err = op.mustBeNew(p, a.ID); err != nil {
		return nil, err
	}
	row := stack.AuditEntry{AgentID: a.ID, Action: "agent.enroll"}
	if err = op.answered(now, ch, p, row); err != nil {
		return nil, err
	}
	if c.ticket != "" && !s.keys.useTicket(c.ticket) { // another call was faster
		return nil, badTicket()
	}
	op.challenges.delete(ch.ChallengeID)
	key, had := s.keys.agent(a.ID)
	if !had || key.jwk != p.jwk {
		if had {
			row.Action = "agent.rotate_key"
		}
		key = &agentKey{op: op, agentID: a.ID, jwk: p.jwk, public: p.public, enrolledAt: now}
		s.keys.addAgent(key)
		if m, ok := op.fleetMembers[a.ID]; ok {
			m.PublicKey = p.jwk
		}
		op.record(now, row)
	}
	return &stack.AgentEnrollment{AgentID: a.ID, PublicKey: key.jwk, EnrolledAt: key.enrolledAt}, nil
}

// agentKey is the key with which an agent calls, and what it signed of late.
type agentKey struct {
	op         *operator
	agentID    string
	jwk        stack.PublicKeyJWK
	public     ed25519.PublicKey
	enrolledAt time.Time
	seen       tokenMemory
}

// tokenMemory remembers the tokens that were used for as long as they could pass.
type tokenMemory struct {
	mu    sync.Mutex
	known map[tokenHash]struct{}
	order []seenToken // the oldest first
}

type (
	tokenHash [16]byte
	seenToken struct {
		hash  tokenHash
		until time.Time
	}
)

// admit takes in a token's id. It is not fresh when it was there; a wait says that there is no room before.
func (m *tokenMemory) admit(jti string, now time.Time) (fresh bool, wait time.Duration) {
	sum := sha256.Sum256([]byte(jti))
	hash := tokenHash(sum[:])
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.order) > 0 && !now.Before(m.order[0].until) {
		delete(m.known, m.order[0].hash)
		m.order = m.order[1:]
	}
	if _, ok := m.known[hash]; ok {
		return false, 0
	}
	if len(m.order) >= maxTokensSeen {
		return true, m.order[0].until.Sub(now)
	}
	if m.known == nil {
		m.known = map[tokenHash]struct{}{}
	}
	m.known[hash] = struct{}{}
	// One that was signed by a clock that is fast passes until its life and twice the leeway are over.
	m.order = append(m.order, seenToken{hash, now.Add(agentTokenLife + 2*agentTokenLeeway)})
	return true, 0
}

// agentTokens reads what agents sign. (contract: endpoints 4.6)
var agentTokens = jwt.NewParser(
	jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
	jwt.WithStrictDecoding(),
	jwt.WithAudience("stack:agent"),
	jwt.WithExpirationRequired(),
	jwt.WithIssuedAt(),
	jwt.WithLeeway(agentTokenLeeway),
)

// agentCaller finds the agent that signed a bearer token. The token tells the time of the caller's clock, which the control
// routes do not move: so it is held against the process's.
func (s *Server) agentCaller(text string) (*caller, error) {
	if len(text) > maxAgentToken || strings.ContainsAny(text, "\r\n") {
		return nil, unknownBearer()
	}
	var claims jwt.RegisteredClaims
	var key *agentKey
	parsed, err := agentTokens.ParseWithClaims(text, &claims, func(*jwt.Token) (any, error) {
		var ok bool
		if key, ok = s.keys.agent(claims.Subject); !ok {
			return nil, errors.New("no such agent")
		}
		return key.public, nil
	})
	if err == nil {
		err = checkAgentToken(parsed, claims)
	}
	if errors.Is(err, jwt.ErrTokenMalformed) || claims.Issuer != agentTokenIssuer {
		return nil, unknownBearer()
	}
	if err != nil {
		refusal := badAgentToken(tokenFault(err))
		if suspect, ok := s.keys.agent(claims.Subject); ok {
			suspect.failed(s.clock.now(), refusal.code)
		}
		return nil, refusal
	}
	fresh, wait := key.seen.admit(claims.ID, time.Now())
	switch {
	case !fresh:
		key.failed(s.clock.now(), "AGENT_TOKEN_REPLAYED")
		return nil, unauthorized("AGENT_TOKEN_REPLAYED", "the token was used before", "a fresh token for each request")
	case wait > 0:
		err := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "the agent has signed too many tokens in this minute",
			map[string]any{"check": "agent_tokens", "allowed": maxTokensSeen})
		err.retryAfter = wait
		return nil, err
	}
	return &caller{op: key.op, agentID: key.agentID}, key.mayCall()
}

// checkAgentToken holds the rules for a token that its library does not.
func checkAgentToken(t *jwt.Token, c jwt.RegisteredClaims) error {
	_, critical := t.Header["crit"]
	switch {
	case critical || t.Header["typ"] != "JWT":
		return errors.New("its header must have the typ JWT and no crit")
	case len(c.Audience) != 1:
		return errors.New("aud must be stack:agent alone")
	case c.IssuedAt == nil || c.NotBefore == nil:
		return errors.New("iat and nbf must be there")
	case c.ExpiresAt.Sub(c.IssuedAt.Time) > agentTokenLife:
		return fmt.Errorf("exp may be %s after iat at the most", agentTokenLife)
	case c.ID == "" || len(c.ID) > maxAgentJTI:
		return fmt.Errorf("jti must have 1 to %d characters", maxAgentJTI)
	}
	return nil
}

// tokenFault says what is wrong with a token. It shows nothing of it.
func tokenFault(err error) string {
	for _, fault := range []struct {
		kind error
		text string
	}{
		{jwt.ErrTokenUnverifiable, "its sub names no agent that has enrolled a key"},
		{jwt.ErrTokenSignatureInvalid, "it is not signed with EdDSA and the key that its agent has enrolled"},
		{jwt.ErrTokenExpired, "it has expired"},
		{jwt.ErrTokenNotValidYet, "its nbf is in the future"},
		{jwt.ErrTokenUsedBeforeIssued, "its iat is in the future"},
		{jwt.ErrTokenInvalidAudience, "aud must be stack:agent alone"},
		{jwt.ErrTokenRequiredClaimMissing, "exp and aud must be there"},
	} {
		if errors.Is(err, fault.kind) {
			return fault.text
		}
	}
	return err.Error()
}

func badAgentToken(fault string) *apiError {
	return unauthorized("INVALID_AGENT_TOKEN", "the agent's token does not pass: "+fault,
		"a JWT that the agent has signed with its enrolled key for this request")
}

// failed counts a failed authentication against the agent's operator.
func (k *agentKey) failed(now time.Time, code string) {
	k.op.mu.Lock()
	defer k.op.mu.Unlock()
	k.op.authFailed(now, k.agentID, code)
}

// mayCall refuses an agent that is suspended.
func (k *agentKey) mayCall() error {
	k.op.mu.Lock()
	defer k.op.mu.Unlock()
	a, ok := k.op.agents.get(k.agentID)
	if !ok { // it was deleted just now
		return badAgentToken(tokenFault(jwt.ErrTokenUnverifiable))
	}
	if a.Status == stack.AgentSuspended {
		return forbidden("the agent is suspended", map[string]any{"check": "agent_status", "sent": a.ID, "allowed": "an active agent"})
	}
	return nil
}
