package mockserver

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

const (
	maxApprovers        = 10  // who are asked at once
	maxApprovalRequests = 100 // of one binding, all its versions together
)

type approvalRequestsOut struct {
	ApprovalRequests []stack.ApprovalRequest `json:"approval_requests"`
}

type createApprovalRequestsIn struct {
	BindingID string                      `path:"binding_id"`
	Body      stack.ApprovalRequestParams `body:""`
}

func (s *Server) createApprovalRequests(ctx context.Context, c *caller,
	in createApprovalRequestsIn) (*approvalRequestsOut, error) {
	op, now, approvers := c.op, s.clock.now(), in.Body.Approvers
	b, err := op.bindingByID(in.BindingID)
	if err != nil {
		return nil, err
	}
	if len(approvers) == 0 {
		return nil, invalid("body.approvers", "empty", "at least one person")
	}
	if err = firstError(listAtMost("body.approvers", approvers, maxApprovers, maxName), distinct("body.approvers", approvers),
		atMost("body.message", in.Body.Message, maxPurpose)); err != nil {
		return nil, err
	}
	v := b.newest()
	if v.Status != stack.BindingDraft && v.Status != stack.BindingPending {
		return nil, wrongState("binding", b.id, v.Status, "a binding whose newest version is a draft or waits for approval")
	}
	if len(b.requests)+len(approvers) > maxApprovalRequests {
		return nil, wrongState("binding", b.id, fmt.Sprintf("with %d approval requests", len(b.requests)),
			fmt.Sprintf("a binding with at most %d", maxApprovalRequests))
	}
	for _, name := range approvers { // one person counts once
		for _, r := range b.requests {
			asked := r.Status == stack.RequestPending || r.Status == stack.RequestApproved
			if r.BindingVersion == v.Version && r.Approver == name && asked {
				return nil, wrongState("approval request", r.ID, r.Status, "somebody who has no request that is pending or approved")
			}
		}
	}
	out := &approvalRequestsOut{}
	for _, name := range approvers {
		out.ApprovalRequests = append(out.ApprovalRequests, *op.askToApprove(ctx, v, name, in.Body.Message, now))
	}
	v.Status = stack.BindingPending
	op.recordAuthority(now, "approval_request", b.id, "")
	return out, nil
}

// askToApprove makes the request to one person.
func (op *operator) askToApprove(ctx context.Context, v *bindingVersion, name, message string,
	now time.Time) *stack.ApprovalRequest {
	r := &stack.ApprovalRequest{ID: newID("apq_"), OperatorID: op.id, BindingID: v.ID, BindingVersion: v.Version, Approver: name,
		Message: message, Status: stack.RequestPending, CreatedAt: now, ExpiresAt: earlier(now.Add(decisionLifetime), v.ExpiresAt)}
	r.ApprovalURL = decisionURL(ctx, r.ID)
	v.of.requests = append(v.of.requests, r)
	op.ask(&decision{id: r.ID, principalID: v.PrincipalID, bindingID: v.ID, version: v.Version, title: "An approval by " + name,
		lines: op.inWords(v, message), expiresAt: r.ExpiresAt, status: &r.Status, decidedAt: &r.DecidedAt,
		decided: func(at time.Time) error {
			op.weighApprovals(v, at)
			return nil
		}})
	return r
}

// inWords is what a person approves.
func (op *operator) inWords(v *bindingVersion, message string) []string {
	var lines []string
	if message != "" {
		lines = append(lines, message)
	}
	lines = append(lines, "Purpose: "+v.Purpose)
	if p, ok := op.authority.principals.get(v.PrincipalID); ok {
		lines = append(lines, "On the authority of: "+p.DisplayName)
	}
	if a, ok := op.agents.get(v.AgentID); ok {
		lines = append(lines, "Agent: "+a.Name+" ("+a.ID+")")
	}
	if r, ok := op.authority.receivers.get(v.ReceiverID); ok {
		lines = append(lines, "Before: "+r.Name+" ("+strings.Join(r.Hosts, ", ")+")")
	}
	lines = append(lines, "Services: "+strings.Join(v.Services, ", "), "Until: "+v.ExpiresAt.Format(time.RFC3339))
	if v.MaxUses > 0 {
		lines = append(lines, fmt.Sprintf("At most %d uses", v.MaxUses))
	}
	if v.MayDelegate {
		lines = append(lines, "The agent may delegate it to other agents")
	}
	return append(lines, "Digest of all this: "+v.Digest)
}

// weighApprovals looks whether a version is approved or rejected now. What is left to decide is cancelled.
func (op *operator) weighApprovals(v *bindingVersion, now time.Time) {
	approvals, rejected := 0, false
	for _, r := range v.of.requests {
		if r.BindingVersion == v.Version {
			rejected = rejected || r.Status == stack.RequestRejected
			if r.Status == stack.RequestApproved {
				approvals++
			}
		}
	}
	switch {
	case rejected:
		op.endVersion(v, stack.BindingRejected, "", now)
	case approvals >= v.RequiredApprovals:
		v.Status = stack.BindingApproved
		op.recordAuthority(now, "binding_approve", v.ID, "")
		op.cancelDecisions(func(d *decision) bool { return d.bindingID == v.ID && d.version == v.Version }, now)
	}
}

func (s *Server) listApprovalRequests(_ context.Context, c *caller, in bindingIn) (*approvalRequestsOut, error) {
	b, err := c.op.bindingByID(in.BindingID)
	if err != nil {
		return nil, err
	}
	list := make([]stack.ApprovalRequest, len(b.requests))
	for i, r := range b.requests {
		list[i] = *r
	}
	return &approvalRequestsOut{list}, nil
}
