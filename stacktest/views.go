package stacktest

import (
	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver"
)

// Audit returns the audit log, oldest first.
func (s *Server) Audit() []stack.AuditEntry { return s.mock.Audit() }

// SecurityEvents returns what the detectors saw, resolved events too, oldest first.
func (s *Server) SecurityEvents() []stack.SecurityEvent { return s.mock.SecurityEvents() }

// Passport returns what is on record about a passport, nil when there is none.
func (s *Server) Passport(jti string) *stack.PassportReport {
	report, _ := s.mock.PassportReport(jti)
	return report
}

// Checkpoints returns the accepted checkpoints of a passport, in order.
func (s *Server) Checkpoints(jti string) []stack.ReportedCheckpoint {
	if report := s.Passport(jti); report != nil {
		return report.Checkpoints
	}
	return nil
}

// Checkout returns the checkout of a passport, nil before there is one.
func (s *Server) Checkout(jti string) *stack.ReportedCheckout {
	if report := s.Passport(jti); report != nil {
		return report.Checkout
	}
	return nil
}

// Mission returns a Mission, and whether there is one with that id.
func (s *Server) Mission(id string) (stack.MissionRecord, bool) { return s.mock.MissionRecord(id) }

// OpenMissions returns the Missions that are live.
func (s *Server) OpenMissions() []stack.MissionRecord { return s.mock.OpenMissions() }

// Approve stands in for the human in the dashboard. It approves a governance approval (gov_…), whose id is in the details of
// the refused call, or a submitted intent (apr_…). It fails for an id that is unknown, used, rejected or expired.
func (s *Server) Approve(approvalID string) error { return s.mock.Approve(approvalID) }

// AcceptInvitation stands in for somebody who was invited to the team, and returns their API key. It fails for an id that
// is unknown, and for a member who has accepted already.
func (s *Server) AcceptInvitation(memberID string) (stack.Secret, error) {
	return s.mock.AcceptInvitation(memberID)
}

// TopUp puts money into the operator's wallet, as a payment would. It fails for less than one cent and more than a million.
func (s *Server) TopUp(cents int) error { return s.mock.TopUp(cents) }

// Policy is what a test may set of the operator's account.
type Policy = mockserver.Policy

// SetPolicy sets the operator's whole policy; an empty plan is the enterprise one. It panics on a value out of bounds.
func (s *Server) SetPolicy(p Policy) {
	if err := s.mock.SetPolicy(p); err != nil {
		panic("stacktest: " + err.Error())
	}
}

// UnknownRequests returns the requests that no route took, oldest first and at most 100: method, path, and the nearest route.
func (s *Server) UnknownRequests() []string { return s.mock.UnknownRequests() }

// RequireCheckedOut fails the test at once unless the passport was checked out.
func (s *Server) RequireCheckedOut(t TB, jti string) *stack.ReportedCheckout {
	t.Helper()
	report := s.Passport(jti)
	switch {
	case report == nil:
		t.Fatalf("stacktest: there is no passport %q", jti)
	case report.Checkout == nil:
		t.Fatalf("stacktest: passport %s was not checked out; it is %s", jti, report.Passport.Status)
	}
	return report.Checkout
}

// RequireRevoked fails the test at once unless the passport is revoked, and returns the reason.
func (s *Server) RequireRevoked(t TB, jti string) (reason string) {
	t.Helper()
	report := s.Passport(jti)
	switch {
	case report == nil:
		t.Fatalf("stacktest: there is no passport %q", jti)
	case report.Passport.RevokedAt.IsZero():
		t.Fatalf("stacktest: passport %s is not revoked; it is %s", jti, report.Passport.Status)
	}
	return report.Passport.RevocationReason
}

// RequireNoUnknownRequests fails the test at once if a request came that no route takes.
func (s *Server) RequireNoUnknownRequests(t TB) {
	t.Helper()
	for _, request := range s.UnknownRequests() {
		t.Fatalf("stacktest: no route %s", request)
	}
}

// RequireNoSecurityEvents fails the test at once if a detector saw something.
func (s *Server) RequireNoSecurityEvents(t TB) {
	t.Helper()
	for _, e := range s.SecurityEvents() {
		t.Fatalf("stacktest: %s event %s: %s %v", e.Severity, e.SignalType, e.Message, e.Metadata)
	}
}

// RequireAuditIntact fails the test at once unless the audit log's chain verifies.
func (s *Server) RequireAuditIntact(t TB) {
	t.Helper()
	if result := s.mock.VerifyAudit(); !result.Valid {
		t.Fatalf("stacktest: the audit chain is broken: %+v", result.FirstBreak)
	}
}
