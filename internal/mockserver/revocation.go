package mockserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

// revokePassport is the kill switch of one passport, and tells people of it.
func (op *operator) revokePassport(now time.Time, p *passport, reason string) (revoked bool, cascaded []string) {
	revoked, cascaded = op.revokeTree(now, p, reason)
	var root []string
	if revoked {
		root = []string{p.jti()}
	}
	op.tellRevoked(now, reason, root, cascaded)
	return revoked, cascaded
}

const maxTold = 100 // passports that are named in a notification

// tellRevoked notifies of what one call revoked, if it did.
func (op *operator) tellRevoked(now time.Time, reason string, revoked, cascaded []string) {
	all := slices.Concat(revoked, cascaded)
	if len(all) == 0 {
		return
	}
	op.tell(now, stack.EventPassportRevoked, fmt.Sprintf("Passports revoked (%d): %s", len(all), reason), map[string]any{
		"reason": reason, "revoked_count": len(revoked), "cascaded_count": len(cascaded), "passports": all[:min(len(all), maxTold)]})
}

// revokeTree revokes a passport with everything delegated from it, breadth first. It reports whether that is new, and the
// delegates that fell with it.
func (op *operator) revokeTree(now time.Time, p *passport, reason string) (revoked bool, cascaded []string) {
	revoked = op.kill(now, p, reason, "passport.revoke")
	queue := p.children
	for len(queue) > 0 {
		child := queue[0]
		queue = append(queue[1:], child.children...)
		if op.kill(now, child, reason, "passport.revoke_cascade") {
			cascaded = append(cascaded, child.jti())
		}
	}
	return revoked, cascaded
}

func (op *operator) kill(now time.Time, p *passport, reason, action string) bool {
	if !p.revokedAt.IsZero() {
		return false
	}
	p.revokedAt, p.reason = now, reason
	row := p.row(action)
	row.ErrorMessage = reason
	op.record(now, row)
	op.note(now, p, action, map[string]any{"reason": reason})
	return true
}

// revokeAgent revokes an agent's live passports and what was delegated from each.
func (op *operator) revokeAgent(now time.Time, agentID, reason string) (revoked int, cascaded []string) {
	return op.revokeWhere(now, reason, func(p *passport) bool { return p.agentID() == agentID })
}

// revokeWhere revokes the passports that may be used, and those that a refresh would bring back.
func (op *operator) revokeWhere(now time.Time, reason string, which func(*passport) bool) (revoked int, cascaded []string) {
	var roots []string
	for p := range op.passports.all() {
		if p.ended() || now.After(p.expiresAt.Add(refreshGrace)) || !which(p) {
			continue
		}
		ok, fell := op.revokeTree(now, p, reason)
		if ok {
			roots = append(roots, p.jti())
		}
		cascaded = append(cascaded, fell...)
	}
	op.tellRevoked(now, reason, roots, cascaded)
	return len(roots), cascaded
}

const maxReason = 500

type revokeOneIn struct {
	Body struct {
		JTI    string `json:"jti"`
		Reason string `json:"reason,omitempty"`
	} `body:""`
}

func (s *Server) revokeOne(_ context.Context, c *caller, in revokeOneIn) (*stack.Revocation, error) {
	if err := firstError(filled("body.jti", in.Body.JTI), atMost("body.reason", in.Body.Reason, maxReason)); err != nil {
		return nil, err
	}
	p, err := c.op.passportByID(in.Body.JTI)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	revoked, cascaded := c.op.revokePassport(now, p, or(in.Body.Reason, "revoked by the operator"))
	count := 0
	if revoked {
		count = 1
	}
	r := revocation("single", p.reason, p.revokedAt, count, cascaded)
	r.JTI = p.jti()
	return r, nil
}

func (op *operator) passportByID(jti string) (*passport, error) {
	if p, ok := op.passports.get(jti); ok {
		return p, nil
	}
	return nil, notFound("passport", jti)
}

func revocation(kind, reason string, at time.Time, revoked int, cascaded []string) *stack.Revocation {
	if cascaded == nil {
		cascaded = []string{}
	}
	return &stack.Revocation{Type: kind, RevokedCount: revoked, CascadedCount: len(cascaded), Cascaded: cascaded, Reason: reason, RevokedAt: at}
}

type reasonBody struct {
	Reason string `json:"reason,omitempty"`
}

type revokeByAgentIn struct {
	AgentID string     `path:"agent_id"`
	Body    reasonBody `body:""`
}

func (s *Server) revokeByAgent(_ context.Context, c *caller, in revokeByAgentIn) (*stack.Revocation, error) {
	if _, err := c.op.agentByID(in.AgentID); err != nil {
		return nil, err
	}
	r, err := s.revokeMany(c, "bulk_agent", in.Body.Reason, func(p *passport) bool { return p.agentID() == in.AgentID })
	if err != nil {
		return nil, err
	}
	r.AgentID = in.AgentID
	return r, nil
}

type revokeBySessionIn struct {
	SessionID string     `path:"session_id"`
	Body      reasonBody `body:""`
}

// revokeBySession refuses a session of which there is no passport: a kill switch that hits nothing must not look as if it had.
func (s *Server) revokeBySession(_ context.Context, c *caller, in revokeBySessionIn) (*stack.Revocation, error) {
	ofSession := func(p *passport) bool { return p.claims.STK.SessionID == in.SessionID }
	if _, count := page(c.op.passports.all(), 1, 1, ofSession); count == 0 && !c.op.hasFleetSession(in.SessionID) {
		return nil, notFound("session", in.SessionID)
	}
	r, err := s.revokeMany(c, "bulk_session", in.Body.Reason, ofSession)
	if err != nil {
		return nil, err
	}
	c.op.endFleetSession(in.SessionID)
	r.SessionID = in.SessionID
	return r, nil
}

type revokeEverythingIn struct {
	Body reasonBody `body:""`
}

func (s *Server) revokeEverything(_ context.Context, c *caller, in revokeEverythingIn) (*stack.Revocation, error) {
	return s.revokeMany(c, "bulk_operator", in.Body.Reason, func(*passport) bool { return true })
}

func (s *Server) revokeMany(c *caller, kind, reason string, which func(*passport) bool) (*stack.Revocation, error) {
	if err := firstError(atMost("body.reason", reason, maxReason)); err != nil {
		return nil, err
	}
	now := s.clock.now()
	reason = or(reason, "revoked by the operator")
	revoked, cascaded := c.op.revokeWhere(now, reason, which)
	c.op.record(now, stack.AuditEntry{Action: "passport.revoke_" + kind, ErrorMessage: reason})
	return revocation(kind, reason, now, revoked, cascaded), nil
}
