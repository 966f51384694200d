package mockserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/token"
)

const (
	defaultPassportTTL = 15 * time.Minute
	defaultInterval    = 5 * time.Minute
	refreshGrace       = 24 * time.Hour // how long after its expiry a passport may be refreshed
)

// passport is the record of one passport. It, and not the expiry inside a signed token, decides what is valid online.
type passport struct {
	claims        stack.PassportClaims
	token         string // as it was signed last
	intent        *stack.Intent
	mission       *mission
	parent        *passport
	children      []*passport
	ttl           time.Duration // what a refresh grants unless it asks for another
	issuedAt      time.Time
	expiresAt     time.Time
	checkpointDue time.Time // enforced only: without a checkpoint by then it dies
	expired       bool      // its expiry has been noticed
	checkedOutAt  time.Time
	revokedAt     time.Time
	reason        string // of the revocation

	checkpoints []stack.ReportedCheckpoint
	checkout    *checkout
	drift       *detect.Drift
	burst       detect.Burst
	observed    []detect.ObservedCall
	delegatedTo []string
}

func (p *passport) jti() string                { return p.claims.JTI }
func (p *passport) agentID() string            { return p.claims.Subject }
func (p *passport) mode() stack.Accountability { return p.claims.STK.Accountability }

// ended reports whether the passport was checked out or revoked.
func (p *passport) ended() bool { return !p.checkedOutAt.IsZero() || !p.revokedAt.IsZero() }

// live reports whether the passport may be used.
func (p *passport) live(now time.Time) bool { return !p.ended() && now.Before(p.expiresAt) }

func (p *passport) status(now time.Time) string {
	switch {
	case !p.checkedOutAt.IsZero():
		return "checked_out"
	case !p.revokedAt.IsZero():
		return "revoked"
	case !now.Before(p.expiresAt):
		return "expired"
	}
	return "active"
}

// service finds what the passport reaches of a service: it must be granted and, where an intent was declared, be named by
// it.
func (p *passport) service(name string) (stack.PassportService, bool) {
	for _, s := range slices.Backward(p.claims.STK.Services) { // of several connections of a provider, the newest granted
		if s.ServiceName == name && p.declares(name) {
			return s, true
		}
	}
	return stack.PassportService{}, false
}

func (p *passport) declares(service string) bool {
	if len(p.claims.STK.IntentServices) == 0 {
		return true
	}
	for _, s := range p.claims.STK.IntentServices {
		if s == service {
			return true
		}
	}
	return false
}

func (p *passport) grantedProviders() []string {
	names := make([]string, 0, len(p.claims.STK.Services))
	for _, s := range p.claims.STK.Services {
		names = append(names, s.ServiceName)
	}
	return names
}

func passportRoutes() []route {
	return []route{
		endpoint("POST", "/v1/passports/issue", (*Server).issuePassport),
		endpoint("POST", "/v1/passports/refresh", (*Server).refreshPassport),
		endpoint("POST", "/v1/passports/verify", (*Server).verifyPassport, public),
		endpoint("POST", "/v1/passports/delegate", (*Server).delegatePassport),
		endpoint("POST", "/v1/passports/revoke", (*Server).revokeOne),
		endpoint("POST", "/v1/passports/revoke-agent/{agent_id}", (*Server).revokeByAgent),
		endpoint("POST", "/v1/passports/revoke-session/{session_id}", (*Server).revokeBySession),
		endpoint("POST", "/v1/passports/revoke-all", (*Server).revokeEverything),
		endpoint("GET", "/v1/passports/active", (*Server).listActivePassports),
		endpoint("POST", "/v1/passports/{passport_jti}/checkpoint", (*Server).checkpointPassport),
		endpoint("POST", "/v1/passports/{passport_jti}/checkout", (*Server).checkoutPassport),
		endpoint("GET", "/v1/passports/{passport_jti}/report", (*Server).reportPassport),
		endpoint("GET", "/v1/.well-known/jwks.json", (*Server).jwks, public),
		endpoint("GET", "/v1/operators/{operator_id}/jwks.json", (*Server).operatorJWKS, public),
	}
}

func (s *Server) jwks(context.Context, *caller, none) (*token.JWKS, error) {
	set := s.signer.JWKS()
	return &set, nil
}

type operatorJWKSIn struct {
	OperatorID string `path:"operator_id"`
}

// operatorJWKS gives the keys of an operator's agents, by the ids under which they sign claims. The deployment's key, which
// signs passports, is not among them.
func (s *Server) operatorJWKS(_ context.Context, _ *caller, in operatorJWKSIn) (*token.JWKS, error) {
	op, ok := s.operatorByID(in.OperatorID)
	if !ok {
		return nil, notFound("operator", in.OperatorID)
	}
	return &token.JWKS{Keys: s.keys.ofOperator(op)}, nil
}

// readToken checks a token's signature and finds its record.
func (s *Server) readToken(op *operator, text stack.Secret) (*passport, error) {
	if text.IsZero() {
		return nil, unauthorized("UNAUTHORIZED", "a passport is required", "X-Passport-Token: a passport of this operator")
	}
	if p, ok := op.tokens[text.Reveal()]; ok { // to the letter what was signed last
		return p, nil
	}
	claims, err := s.signer.Verify(text.Reveal())
	if err != nil {
		op.authFailed(s.clock.now(), "", "INVALID_PASSPORT")
		why := "its signature is not this server's"
		if errors.Is(err, token.ErrMalformed) {
			why = "it is not a passport token"
		}
		return nil, refuse(http.StatusUnauthorized, "UNAUTHORIZED", "the passport is not valid: "+why,
			map[string]any{"check": "passport_signature", "allowed": "a token that this server has issued"})
	}
	p, ok := op.passports.get(claims.JTI)
	if !ok {
		return nil, refuse(http.StatusUnauthorized, "UNAUTHORIZED", "the passport is not on record",
			map[string]any{"check": "passport_record", "sent": claims.JTI, "allowed": "a passport of this operator"})
	}
	return p, nil
}

// present checks a passport that is shown with a call: signature, record, and what usable looks at.
func (s *Server) present(op *operator, text stack.Secret, now time.Time) (*passport, error) {
	p, err := s.readToken(op, text)
	if err != nil {
		return nil, err
	}
	if err := op.usable(p, now, 0); err != nil {
		return nil, err
	}
	return p, nil
}

// usable refuses a passport that is revoked or expired, or whose Mission is over. What is wrong with it is raised as an event
// first. A revocation is heeded when it is as old as delay.
func (op *operator) usable(p *passport, now time.Time, delay time.Duration) error {
	sent := map[string]any{"check": "passport_state", "sent": p.jti(), "allowed": "a live passport"}
	switch {
	case !p.checkedOutAt.IsZero():
		op.raise(now, p, detect.Finding{Signal: detect.PostCheckoutAccess, Severity: stack.SeverityCritical, Detail: p.jti(),
			Message: "A passport was used after its checkout.", Metadata: map[string]any{"checked_out_at": p.checkedOutAt}})
		return refuse(http.StatusUnauthorized, "PASSPORT_REVOKED", "the passport was checked out", sent)
	case !p.revokedAt.IsZero() && !now.Before(p.revokedAt.Add(delay)):
		op.raise(now, p, detect.Finding{Signal: detect.RevokedPassportUse, Severity: stack.SeverityCritical, Detail: p.jti(),
			Message: "A revoked passport was used.", Metadata: map[string]any{"revoked_at": p.revokedAt, "revocation_reason": p.reason}})
		sent["revocation_reason"] = p.reason
		return refuse(http.StatusUnauthorized, "PASSPORT_REVOKED", "the passport is revoked: "+p.reason, sent)
	case !now.Before(p.expiresAt): // revoked or not: a revocation that has not spread yet keeps nothing alive
		op.raise(now, p, detect.Finding{Signal: detect.ExpiredPassportUse, Severity: stack.SeverityWarning, Detail: p.jti(),
			Message: "An expired passport was used.", Metadata: map[string]any{"expired_at": p.expiresAt}})
		sent["expired_at"] = p.expiresAt
		return refuse(http.StatusUnauthorized, "PASSPORT_EXPIRED", "the passport has expired", sent)
	}
	if err := p.mission.mustBeLive(); err != nil {
		return err
	}
	if a, ok := op.agents.get(p.agentID()); ok && a.Status == stack.AgentSuspended {
		return a.mayHavePassport()
	}
	return nil
}

// sign signs a passport's claims as its record has them.
func (s *Server) sign(p *passport, now time.Time) (*stack.Passport, error) {
	p.claims.IssuedAt, p.claims.ExpiresAt = now, p.expiresAt
	text, err := s.signer.Sign(p.claims)
	if errors.Is(err, token.ErrTooLong) {
		return nil, refuse(http.StatusBadRequest, "INVALID_REQUEST", err.Error(), map[string]any{"check": "passport_size",
			"allowed": fmt.Sprintf("at most %d bytes: ask for fewer services, scopes and constraints", token.MaxSize)})
	}
	if err != nil {
		return nil, err
	}
	return &stack.Passport{Token: stack.NewSecret(text), JTI: p.jti(), ExpiresAt: p.expiresAt, Accountability: p.mode()}, nil
}

// remember keeps the token that was signed last, by which its passport is found without a verification.
func (op *operator) remember(p *passport, signed *stack.Passport) {
	delete(op.tokens, p.token)
	p.token = signed.Token.Reveal()
	op.tokens[p.token] = p
}

type refreshPassportIn struct {
	Body stack.PassportRefreshParams `body:""`
}

func (s *Server) refreshPassport(_ context.Context, c *caller, in refreshPassportIn) (*stack.Passport, error) {
	op, now := c.op, s.clock.now()
	if err := lasting("body.ttl_seconds", in.Body.TTL, stack.MinPassportTTL, stack.MaxPassportTTL); err != nil {
		return nil, err
	}
	p, err := s.readToken(op, in.Body.Token)
	if err != nil {
		return nil, err
	}
	if err = p.mission.mustBeLive(); err != nil {
		return nil, err
	}
	if p.ended() {
		return nil, p.mustBeOpen(now)
	}
	if now.After(p.expiresAt.Add(refreshGrace)) {
		return nil, refuse(http.StatusUnauthorized, "PASSPORT_EXPIRED", "the passport expired more than 24 hours ago", map[string]any{
			"check": "refresh_grace", "sent": p.expiresAt, "allowed": "at most 24 hours after the expiry"})
	}
	if a, ok := op.agents.get(p.agentID()); ok {
		if err = a.mayHavePassport(); err != nil {
			return nil, err
		}
	}
	ttl, err := p.mission.passportTTL(or(in.Body.TTL, p.ttl))
	if err != nil {
		return nil, err
	}
	op.extend(p, now.Add(ttl))
	signed, err := s.sign(p, now)
	if err != nil {
		return nil, err
	}
	op.remember(p, signed)
	op.record(now, p.row("passport.refresh"))
	return signed, nil
}

// extend moves a passport's expiry on, but never back.
func (op *operator) extend(p *passport, to time.Time) {
	if to = p.noLaterThan(to); to.After(p.expiresAt) {
		p.expiresAt, p.expired = to, false
		if !to.Equal(p.checkpointDue) { // which is in the heap already
			op.due.add(to, whenDue(&op.passports, p.jti(), op.passportDue))
		}
	}
}

// noLaterThan bounds an expiry: never past the Mission, and for an enforced passport never past the next checkpoint, or a
// refresh would do instead of one.
func (p *passport) noLaterThan(to time.Time) time.Time {
	to = earlier(to, p.mission.ExpiresAt)
	if p.mode() == stack.Enforced {
		to = earlier(to, p.checkpointDue)
	}
	return to
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// passportDue notices that an enforced passport has gone silent: it owes a checkpoint, whether or not its token's life was
// over before. It notices as well that a passport has expired.
func (op *operator) passportDue(p *passport, now time.Time) {
	if !p.ended() && p.mode() == stack.Enforced && !p.checkpointDue.After(now) && p.checkpointDue.Before(p.mission.ExpiresAt) {
		op.raise(now, p, detect.Finding{Signal: detect.CheckpointSilence, Severity: stack.SeverityCritical, Detail: p.jti(),
			Message:  "An enforced passport passed its checkpoint deadline.",
			Metadata: map[string]any{"deadline": p.checkpointDue, "checkpoints": len(p.checkpoints)}})
	}
	if !p.ended() && !p.expired && !p.expiresAt.After(now) {
		p.expired = true
		op.record(now, p.row("passport.expire"))
	}
}

// awaitCheckpoint gives an enforced passport until the end of another interval.
func (op *operator) awaitCheckpoint(p *passport, now time.Time) {
	p.checkpointDue = now.Add(p.claims.STK.CheckpointInterval)
	op.due.add(p.checkpointDue, whenDue(&op.passports, p.jti(), op.passportDue))
}

// row begins an audit row about the passport.
func (p *passport) row(action string) stack.AuditEntry {
	return stack.AuditEntry{AgentID: p.agentID(), PassportJTI: p.jti(), Action: action}
}

type verifyPassportIn struct {
	Body struct {
		Token stack.Secret `json:"token"`
	} `body:""`
}

func (s *Server) verifyPassport(_ context.Context, _ *caller, in verifyPassportIn) (*stack.Verification, error) {
	claims, err := s.signer.Verify(in.Body.Token.Reveal())
	if errors.Is(err, token.ErrMalformed) {
		return &stack.Verification{Reason: "malformed"}, nil
	}
	op, ok := s.operatorByID(claims.STK.OperatorID)
	if err != nil || !ok {
		return &stack.Verification{Reason: "invalid_signature"}, nil
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	p, ok := op.passports.get(claims.JTI)
	if !ok {
		return &stack.Verification{Reason: "invalid_signature"}, nil
	}
	v := &stack.Verification{Claims: &claims, RevokedAt: p.revokedAt, RevocationReason: p.reason}
	switch {
	case p.mission.Status != stack.MissionLive:
		v.Reason = "mission_ended"
	case !p.checkedOutAt.IsZero() && p.revokedAt.IsZero():
		v.Reason, v.RevokedAt, v.RevocationReason = "revoked", p.checkedOutAt, "checked_out"
	case !p.revokedAt.IsZero():
		v.Reason = "revoked"
	case !now.Before(p.expiresAt):
		v.Reason = "expired"
	default:
		v.Valid = true
	}
	return v, nil
}

type listActiveIn struct {
	AgentID   string `query:"agent_id"`
	SessionID string `query:"session_id"`
}

func (s *Server) listActivePassports(_ context.Context, c *caller, in listActiveIn) (*[]stack.ActivePassport, error) {
	now := s.clock.now()
	list := []stack.ActivePassport{}
	for p := range c.op.passports.all() {
		if p.live(now) && (in.AgentID == "" || in.AgentID == p.agentID()) && (in.SessionID == "" || in.SessionID == p.claims.STK.SessionID) {
			list = append(list, p.summary())
		}
	}
	return &list, nil
}

func (p *passport) summary() stack.ActivePassport {
	stk := p.claims.STK
	return stack.ActivePassport{JTI: p.jti(), AgentID: p.agentID(), AgentName: stk.AgentName, MissionID: p.mission.MissionID,
		SessionID: stk.SessionID, Accountability: p.mode(), DelegationDepth: stk.DelegationDepth, ParentPassportID: stk.ParentPassportID,
		Services: p.grantedProviders(), IssuedAt: p.issuedAt, ExpiresAt: p.expiresAt}
}
