package mockserver

import (
	"fmt"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
)

// governanceApproval is a human's permission, asked for or given, for one action on one target, once.
// (contract: decisions, Approvals)
type governanceApproval struct {
	id, action, target string
	decided            approvalState
	expiresAt          time.Time
}

type approvalState string

const (
	approvalPending  approvalState = "pending"
	approvalApproved approvalState = "approved"
	approvalUsed     approvalState = "used"
	approvalExpired  approvalState = "expired" // only from state: nobody decides it
)

const approvalLifetime = 15 * time.Minute

func (a *governanceApproval) state(now time.Time) approvalState {
	if a.decided != approvalUsed && !now.Before(a.expiresAt) {
		return approvalExpired
	}
	return a.decided
}

// row is the audit row of a step of the approval; the rows of its steps have its id as their trace.
func (a *governanceApproval) row(step string) stack.AuditEntry {
	return stack.AuditEntry{Action: "governance." + step, TraceID: a.id}
}

// governed refuses an API-key caller who does not present an approved, unused approval for this action on this target, and
// names the approval to have approved. One that fits is used up. A person needs none: they are who would give it.
func (op *operator) governed(now time.Time, c *caller, action, target string) error {
	if c.person {
		return nil
	}
	sent := "none was sent"
	if c.governance != "" {
		sent = "the one sent is unknown"
		if a, ok := op.governance.get(c.governance); ok {
			state := a.state(now)
			switch {
			case a.action != action || a.target != target:
				sent = fmt.Sprintf("the one sent is for %s of %s", a.action, a.target)
			case state == approvalApproved:
				a.decided = approvalUsed
				op.record(now, a.row("use"))
				return nil
			default:
				sent = "the one sent is " + string(state)
			}
		}
	}
	a := op.openApproval(now, action, target)
	allowed := "X-Governance-Approval: " + a.id
	if a.decided == approvalPending {
		allowed += ", once a human has approved it"
	}
	return refuse(http.StatusForbidden, "GOVERNANCE_APPROVAL_REQUIRED", action+" needs a human's approval; "+sent, map[string]any{
		"check": "governance_approval", "sent": clip(c.governance), "approval_id": a.id, "action": action, "target": target,
		"status": a.decided, "expires_at": a.expiresAt, "allowed": allowed})
}

// openApproval finds an approval that can still be used for an action, or asks for one: a caller who repeats the call must
// not pile up requests before the human.
func (op *operator) openApproval(now time.Time, action, target string) *governanceApproval {
	for a := range op.governance.newest() {
		if a.state(now) == approvalExpired {
			break // and so are all older ones
		}
		if a.action == action && a.target == target && a.decided != approvalUsed {
			return a
		}
	}
	a := &governanceApproval{id: newID("gov_"), action: action, target: target, decided: approvalPending,
		expiresAt: now.Add(approvalLifetime)}
	op.governance.makeRoom(maxDecided, func(old *governanceApproval) bool { return old.decided == approvalUsed || !now.Before(old.expiresAt) })
	op.governance.put(a.id, a)
	row := a.row("request")
	row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomePending, "GOVERNANCE_APPROVAL_REQUIRED", action+" of "+target
	op.record(now, row)
	op.tell(now, stack.EventGovernanceRequested, action+" of "+target+" waits for a human's approval.", map[string]any{
		"approval_id": a.id, "action": action, "target": target, "expires_at": a.expiresAt})
	return a
}

// Approve approves a pending approval of any operator, of governance or of an intent: it stands for the human in the
// dashboard. Approving twice is as good as once. It fails when nobody asked for such an approval, and when it has expired,
// been used or been rejected.
func (s *Server) Approve(approvalID string) error {
	found, err := s.atOperator(func(op *operator, now time.Time) (bool, error) {
		if a, ok := op.governance.get(approvalID); ok {
			return true, op.approveGovernance(now, a)
		}
		a, ok := op.approvals.get(approvalID)
		if !ok || a.Status == stack.IntentApproved && a.UsedAt.IsZero() && now.Before(a.ExpiresAt) {
			return ok, nil
		}
		return true, op.decide(now, a, stack.IntentApproved, "dashboard", "")
	})
	if !found {
		return notFound("approval", approvalID)
	}
	return err
}

func (op *operator) approveGovernance(now time.Time, a *governanceApproval) error {
	switch state := a.state(now); state {
	case approvalPending:
		a.decided = approvalApproved
		op.record(now, a.row("approve"))
	case approvalUsed, approvalExpired:
		return refuse(http.StatusConflict, "APPROVAL_CLOSED", "the governance approval is "+string(state),
			map[string]any{"check": "approval_state", "sent": a.id, "status": state, "allowed": "a pending approval"})
	}
	return nil
}
