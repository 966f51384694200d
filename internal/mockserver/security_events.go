package mockserver

import (
	"context"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

// raise records what a detector found and does to the passport (nil where none is involved) what its mode demands:
// enforced and critical, or scope drift, revokes it with everything delegated from it; logged is recorded; standard leaves
// a trace in the audit log only. An agent that escalates to block gets no further passports. How the operator has set the
// detector comes before all of that. (contract: decisions, Detectors)
func (op *operator) raise(now time.Time, p *passport, f detect.Finding) {
	f, heard := op.tuned(f)
	if !heard {
		return
	}
	row := stack.AuditEntry{Action: "detector." + string(f.Signal), Outcome: stack.OutcomeBlocked,
		ErrorCode: string(f.Severity), ErrorMessage: f.Message}
	event := &stack.SecurityEvent{ID: newID("sev_"), OperatorID: op.id, SignalType: string(f.Signal), Severity: f.Severity,
		Message: f.Message, Metadata: f.Metadata, CreatedAt: now}
	if event.Metadata == nil {
		event.Metadata = map[string]any{}
	}
	if p == nil || p.mode() != stack.Standard {
		row.TraceID = event.ID
	}
	if p == nil {
		event.AgentID, row.AgentID = f.AgentID, f.AgentID
		op.record(now, row)
		op.addEvent(now, event)
		return
	}
	event.AgentID, event.PassportJTI = p.agentID(), p.jti()
	row.AgentID, row.PassportJTI = p.agentID(), p.jti()
	op.record(now, row)
	if p.mode() == stack.Standard {
		return
	}
	op.addEvent(now, event)
	p.mission.signals[event.Severity]++
	op.note(now, p, "security_event", map[string]any{
		"signal_type": event.SignalType, "severity": event.Severity, "event_id": event.ID,
	})
	if p.fallsBy(f) {
		op.revokePassport(now, p, f.Reason())
	}
	op.escalate(now, p.agentID(), f)
}

const maxEvents = 10_000 // that are remembered; the oldest goes

func (op *operator) addEvent(now time.Time, e *stack.SecurityEvent) {
	op.events.makeRoom(maxEvents, func(*stack.SecurityEvent) bool { return true })
	op.events.put(e.ID, e)
	op.notify(now, securityEvent(e.SignalType), e.Severity, e.Message, e)
}

// fallsBy reports whether a finding revokes the passport.
func (p *passport) fallsBy(f detect.Finding) bool {
	drifted := f.Signal == detect.ScopeDrift && f.Severity != stack.SeverityInfo
	return p.mode() == stack.Enforced && (f.Severity == stack.SeverityCritical || drifted)
}

// escalate blocks the agent where it asked for that.
func (op *operator) escalate(now time.Time, agentID string, f detect.Finding) {
	a, ok := op.agents.get(agentID)
	if !ok || a.PassportBlocked {
		return
	}
	if f.Severity == stack.SeverityWarning && a.OnWarning == stack.EscalateBlock ||
		f.Severity == stack.SeverityCritical && a.OnCritical == stack.EscalateBlock {
		op.blockAgent(now, a, f.Reason())
	}
}

func securityEventRoutes() []route {
	return []route{
		endpoint("GET", "/v1/security-events", (*Server).listSecurityEvents, operatorOnly),
		endpoint("GET", "/v1/security-events/{event_id}", (*Server).getSecurityEvent, operatorOnly),
		endpoint("POST", "/v1/security-events/{event_id}/resolve", (*Server).resolveSecurityEvent, operatorOnly),
	}
}

type listSecurityEventsIn struct {
	AgentID string `query:"agent_id"`
	Page    *int   `query:"page"`
	Limit   *int   `query:"limit"`
}

func (s *Server) listSecurityEvents(_ context.Context, c *caller, in listSecurityEventsIn) (*stack.SecurityEventPage, error) {
	number, size, err := paging(in.Page, in.Limit, 50)
	if err != nil {
		return nil, err
	}
	found, total := page(c.op.events.newest(), number, size, func(e *stack.SecurityEvent) bool {
		return !e.Resolved && (in.AgentID == "" || e.AgentID == in.AgentID)
	})
	events := make([]stack.SecurityEvent, len(found))
	for i, e := range found {
		events[i] = *e
	}
	return &stack.SecurityEventPage{Events: events, UnresolvedCount: total, Page: number, Limit: size}, nil
}

type securityEventIn struct {
	EventID string `path:"event_id"`
}

func (s *Server) getSecurityEvent(_ context.Context, c *caller, in securityEventIn) (*stack.SecurityEvent, error) {
	if e, ok := c.op.events.get(in.EventID); ok {
		return e, nil
	}
	return nil, notFound("security event", in.EventID)
}

// resolveSecurityEvent is idempotent: the first call says when it was resolved.
func (s *Server) resolveSecurityEvent(ctx context.Context, c *caller, in securityEventIn) (*stack.SecurityEvent, error) {
	e, err := s.getSecurityEvent(ctx, c, in)
	if err != nil || e.Resolved {
		return e, err
	}
	e.Resolved, e.ResolvedAt = true, s.clock.now()
	c.op.record(e.ResolvedAt, stack.AuditEntry{AgentID: e.AgentID, PassportJTI: e.PassportJTI, TraceID: e.ID, Action: "security_event.resolve"})
	return e, nil
}
