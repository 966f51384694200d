package mockserver

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

// act is what an agent does, as an approval sees it: a method on a target of a service. Of a proxied call the target is its
// URL, of a call to a model its provider's URL, of a skill its id.
type act struct{ service, method, target string }

// String names the act without the query, which may hold what is not to be shown.
func (a act) String() string {
	target := a.target
	if u, err := forward.ParseURL(target); err == nil {
		target = bareURL(u)
	}
	return fmt.Sprintf("%s %s of %s", a.method, clip(target), clip(a.service))
}

// covers reports whether an approval of this act holds for another. URLs must be equal in scheme, host and path, and in the
// query where the approved one has any; other targets to the letter.
func (a act) covers(other act) bool {
	if a.service != other.service || a.method != other.method {
		return false
	}
	approved, err := forward.ParseURL(a.target)
	called, otherErr := forward.ParseURL(other.target)
	if err != nil || otherErr != nil {
		return a.target == other.target
	}
	approved.Path, called.Path = or(approved.Path, "/"), or(called.Path, "/")
	return bareURL(approved) == bareURL(called) && (approved.RawQuery == "" || sameQuery(approved.RawQuery, called.RawQuery))
}

// sameQuery compares two queries whatever the order of their keys. One that is malformed equals only itself.
func sameQuery(a, b string) bool {
	x, err := url.ParseQuery(a)
	y, otherErr := url.ParseQuery(b)
	if err != nil || otherErr != nil {
		return a == b
	}
	return x.Encode() == y.Encode()
}

// bareURL is what may be kept of a URL: no user information, query or fragment.
func bareURL(u *url.URL) string {
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}

// intentApproval is an intent before a person, and what they decided of it.
type intentApproval struct {
	stack.IntentApproval
	act act
}

func (a *intentApproval) row(action string) stack.AuditEntry {
	return stack.AuditEntry{AgentID: a.AgentID, PassportJTI: a.PassportJTI, Action: action, TraceID: a.ID}
}

// approved is the gate before everything that an agent does under the policy of intent approvals: proxied writes, skills and
// calls to models. It returns the approval to give to [operator.useApproval] once all other checks have passed, nil where the
// policy asks for none (what was sent is not looked at then). It changes nothing.
//
// An approval holds for the agent and the Mission whose passport it was submitted with, until it expires, for one act that
// matches. What has used it may repeat itself under the same operation id: give none where nothing else keeps a repetition
// from happening twice. (contract: decisions, Approvals)
func (op *operator) approved(now time.Time, p *passport, approvalID, operationID string, a act) (*intentApproval, error) {
	if !op.policy.RequireIntentApproval {
		return nil, nil
	}
	details := map[string]any{"check": "intent_approval", "sent": clip(approvalID), "service": clip(a.service),
		"method": a.method, "allowed": "X-Intent-Approval-Id: an approved, unexpired, unused approval of this agent for " +
			a.String() + "; submit the intent to have one"}
	ap, ok := op.approvals.get(approvalID)
	sent := ""
	switch {
	case approvalID == "":
		sent = "none was sent"
	case !ok:
		sent = "the one sent is unknown"
	case ap.AgentID != p.agentID() || ap.MissionID != p.mission.MissionID:
		sent = "the one sent is of another agent or Mission"
	case !ap.act.covers(a):
		sent, details["approved_for"] = "the one sent is for "+ap.act.String(), ap.act.String()
	case ap.Status != stack.IntentApproved:
		sent, details["status"] = "the one sent is "+string(ap.Status), ap.Status
	case !ap.UsedAt.IsZero() && operationID != "" && ap.OperationID == operationID:
		return ap, nil
	case !ap.UsedAt.IsZero():
		sent, details["status"], details["used_at"] = "the one sent was used before", "used", ap.UsedAt
	case !now.Before(ap.ExpiresAt):
		sent, details["status"], details["expired_at"] = "the one sent has expired", stack.IntentExpired, ap.ExpiresAt
	default:
		return ap, nil
	}
	return nil, refuse(http.StatusForbidden, "INTENT_APPROVAL_REQUIRED",
		fmt.Sprintf("%s needs an approved intent; %s", a, sent), details)
}

// useApproval uses an approval up. Nil is none, and one that its own operation repeats stays as it is.
func (op *operator) useApproval(now time.Time, a *intentApproval, operationID string) {
	if a == nil || !a.UsedAt.IsZero() {
		return
	}
	a.UsedAt, a.OperationID = now, operationID
	op.record(now, a.row("intent.use"))
}

// releaseApproval gives an approval back when what used it was never sent. Nil is none.
func (op *operator) releaseApproval(now time.Time, a *intentApproval) {
	if a == nil {
		return
	}
	a.UsedAt, a.OperationID = time.Time{}, ""
	op.record(now, a.row("intent.release"))
}

// checkApproval holds a proxied write to the gate; reading needs no approval.
func (s *Server) checkApproval(call *proxyCall) (err error) {
	if call.in.Method != http.MethodGet {
		call.approval, err = call.op.approved(call.now, call.passport, call.approvalID, call.operationID, call.act())
	}
	return err
}

func (call *proxyCall) act() act {
	a := act{call.in.Service, call.in.Method, call.in.URL}
	if call.target != nil {
		a.target = forward.WithQuery(call.target, call.in.Query).String()
	}
	return a
}

// decide settles a pending approval.
func (op *operator) decide(now time.Time, a *intentApproval, status stack.IntentStatus, by, notes string) error {
	if a.Status != stack.IntentPending {
		return refuse(http.StatusConflict, "APPROVAL_CLOSED", "the approval is "+string(a.Status), map[string]any{
			"check": "approval_state", "sent": a.ID, "status": a.Status, "allowed": "a pending approval"})
	}
	a.Status, a.DecidedAt, a.DecidedBy, a.Notes = status, now, by, notes
	action := "intent.approve"
	if status == stack.IntentRejected {
		action = "intent.reject"
	}
	op.record(now, a.row(action))
	op.noteApproval(now, a, action)
	return nil
}

// approvalDue expires an approval that nobody has decided.
func (op *operator) approvalDue(a *intentApproval, at time.Time) {
	if a.Status == stack.IntentPending {
		a.Status = stack.IntentExpired
		op.record(at, a.row("intent.expire"))
		op.noteApproval(at, a, "intent.expire")
	}
}

// noteApproval tells the Mission's activity of a step of an approval.
func (op *operator) noteApproval(now time.Time, a *intentApproval, action string) {
	if p, ok := op.passports.get(a.PassportJTI); ok {
		op.note(now, p, action, map[string]any{"approval_id": a.ID, "act": a.act.String()})
	}
}
