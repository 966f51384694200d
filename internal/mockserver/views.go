package mockserver

import (
	"maps"
	"slices"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/audit"
)

// The views below show the first operator's state to a test. They are copies, made with the operator locked and after
// everything that fell due has happened.

// view runs fn with the first operator locked and up to date.
func (s *Server) view(fn func(op *operator)) {
	op, ok := s.operatorByID(s.first.OperatorID)
	if !ok {
		return
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	op.sweep(s.clock.now())
	fn(op)
}

// Audit returns the audit log, oldest first.
func (s *Server) Audit() (entries []stack.AuditEntry) {
	s.view(func(op *operator) {
		entries = op.chain.Newest(audit.Filter{})
		slices.Reverse(entries)
	})
	return entries
}

// SecurityEvents returns all security events, resolved ones too, oldest first.
func (s *Server) SecurityEvents() (events []stack.SecurityEvent) {
	s.view(func(op *operator) {
		for e := range op.events.all() {
			event := *e
			event.Metadata = maps.Clone(e.Metadata)
			events = append(events, event)
		}
	})
	return events
}

// PassportReport returns what is on record about a passport.
func (s *Server) PassportReport(jti string) (report *stack.PassportReport, ok bool) {
	s.view(func(op *operator) {
		var p *passport
		if p, ok = op.passports.get(jti); ok {
			report = p.report(s.clock.now())
		}
	})
	return report, ok
}

// MissionRecord returns a Mission.
func (s *Server) MissionRecord(id string) (record stack.MissionRecord, ok bool) {
	s.view(func(op *operator) {
		var m *mission
		if m, ok = op.missions.get(id); ok {
			record = m.view()
		}
	})
	return record, ok
}

// OpenMissions returns the Missions that are live, oldest first.
func (s *Server) OpenMissions() (records []stack.MissionRecord) {
	s.view(func(op *operator) {
		for m := range op.missions.all() {
			if m.Status == stack.MissionLive {
				records = append(records, m.view())
			}
		}
	})
	return records
}

// VerifyAudit checks the whole audit chain.
func (s *Server) VerifyAudit() (result *stack.ChainVerification) {
	s.view(func(op *operator) { result = op.chain.Verify(time.Time{}, time.Time{}, 0) })
	return result
}

// UnknownRequests returns the requests that no route took, oldest first and at most 100: method, path, and the nearest route.
func (s *Server) UnknownRequests() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.unknown)
}

// Counts returns how many objects of each kind the first operator has.
func (s *Server) Counts() (counts map[string]int) {
	s.view(func(op *operator) {
		counts = map[string]int{"agents": op.agents.len(), "connections": op.connections.len(), "grants": op.grants.len(),
			"missions": op.missions.len(), "passports": op.passports.len(), "checkouts": op.checkouts.len(), "security_events": op.events.len(),
			"governance_approvals": op.governance.len(), "intent_approvals": op.approvals.len(),
			"intent_claims": op.intentClaims.len(), "dropoffs": op.dropoffs.len(), "identity_claims": op.claims.len(),
			"inbound_webhooks":      op.inbound.len(),
			"notification_channels": op.channels.len(), "notification_destinations": op.destinations.len(),
			"service_requirements": op.requirements.len(), "detector_configs": len(op.detectors),
			"fleets": op.fleets.len(), "fleet_members": len(op.fleetMembers),
			"authority_bindings": op.authority.bindings.len(), "authority_uses": op.authority.uses.len(),
			"evidence_packs": op.packs.len(), "operations": op.operations.len(), "audit_entries": op.chain.Len()}
	})
	return counts
}
