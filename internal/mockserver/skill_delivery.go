package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

// claimInvocation is the publisher's promise to do it; nobody else can then.
func (s *Server) claimInvocation(_ context.Context, c *caller, in invocationIn) (*stack.Invocation, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	inv, err := s.market.invocationFor(c.op, in.InvocationID, true)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	if err := inv.mustBe(now, stack.InvocationPending); err != nil {
		return nil, err
	}
	inv.Status, inv.StartedAt = stack.InvocationRunning, &now
	c.op.record(now, skillRow("skill.claim", inv.ID))
	return inv.seenBy(c.op), nil
}

// mustBe refuses an invocation in another state. One whose time is up is as good as expired, though its buyer has not been
// looked at since.
func (inv *invocation) mustBe(now time.Time, allowed ...stack.InvocationStatus) error {
	status := inv.Status
	if !status.Final() && !now.Before(inv.ExpiresAt) {
		status = stack.InvocationExpired
	}
	if slices.Contains(allowed, status) {
		return nil
	}
	return refuse(http.StatusConflict, "INVOCATION_STATE", "the invocation is "+string(status),
		map[string]any{"check": "invocation_state", "sent": inv.ID, "status": status, "allowed": allowed})
}

type completeInvocationIn struct {
	InvocationID string `path:"invocation_id"`
	Body         struct {
		Output json.RawMessage `json:"output"`
	} `body:""`
}

func (s *Server) completeInvocation(_ context.Context, c *caller, in completeInvocationIn) (*stack.Invocation, error) {
	output := in.Body.Output
	if !bytes.HasPrefix(bytes.TrimSpace(output), []byte("{")) {
		return nil, invalid("body.output", "no object", "a JSON object")
	}
	return s.deliver(c, in.InvocationID, "skill.complete", func(inv *invocation, now time.Time) error {
		if err := inv.mustBe(now, stack.InvocationRunning); err != nil {
			return err
		}
		if err := inv.skill.validate(inv.skill.output, "body.output", output); err != nil {
			return err
		}
		inv.end(now, stack.InvocationCompleted, output, nil)
		return nil
	})
}

type failInvocationIn struct {
	InvocationID string `path:"invocation_id"`
	Body         struct {
		Error stack.InvocationError `json:"error"`
	} `body:""`
}

func (s *Server) failInvocation(_ context.Context, c *caller, in failInvocationIn) (*stack.Invocation, error) {
	reason := in.Body.Error
	if err := firstError(filled("body.error.code", reason.Code), atMost("body.error.code", reason.Code, 100),
		filled("body.error.message", reason.Message), atMost("body.error.message", reason.Message, 1000)); err != nil {
		return nil, err
	}
	return s.deliver(c, in.InvocationID, "skill.fail", func(inv *invocation, now time.Time) error {
		if err := inv.mustBe(now, stack.InvocationPending, stack.InvocationRunning); err != nil {
			return err
		}
		inv.end(now, stack.InvocationFailed, nil, &reason)
		return nil
	})
}

// deliver lets a publisher end an open invocation, and then settles it with its buyer. The two operators are locked one after
// the other.
func (s *Server) deliver(c *caller, id, action string, end func(*invocation, time.Time) error) (*stack.Invocation, error) {
	now := s.clock.now()
	ended := func() (*invocation, *stack.Invocation, error) {
		s.market.mu.Lock()
		defer s.market.mu.Unlock()
		inv, err := s.market.invocationFor(c.op, id, true)
		if err != nil {
			return nil, nil, err
		}
		if inv.skill.ExecutionMode != stack.ExecuteOpen {
			return nil, nil, refuse(http.StatusConflict, "INVOCATION_STATE", "the server itself runs this skill",
				map[string]any{"check": "execution_mode", "sent": inv.skill.ExecutionMode, "allowed": stack.ExecuteOpen})
		}
		if err := end(inv, now); err != nil {
			return nil, nil, err
		}
		return inv, inv.seenBy(c.op), nil
	}
	inv, seen, err := ended()
	if err != nil {
		return nil, err
	}
	s.settleInvocation(inv)
	c.op.mu.Lock()
	defer c.op.mu.Unlock()
	c.op.record(now, skillRow(action, id))
	return seen, nil
}

// end is the one way an invocation comes to its end. The market is locked.
func (inv *invocation) end(now time.Time, status stack.InvocationStatus, output json.RawMessage, reason *stack.InvocationError) {
	inv.Status, inv.Output, inv.Error, inv.CompletedAt = status, output, reason, &now
	if inv.StartedAt != nil {
		inv.Duration = now.Sub(*inv.StartedAt)
	}
	inv.Input = nil // it has served its purpose
}

// settleInvocation pays the publisher of an invocation that has ended, or gives the buyer the price back.
func (s *Server) settleInvocation(inv *invocation) {
	inv.buyer.mu.Lock()
	defer inv.buyer.mu.Unlock()
	s.settleLocked(inv, s.clock.now())
}

func (s *Server) settleLocked(inv *invocation, now time.Time) {
	defer inv.buyer.holdPool()()
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	row := skillRow("skill.result", inv.ID)
	row.AgentID, row.Duration = inv.AgentID, inv.Duration
	if inv.Status == stack.InvocationCompleted {
		s.market.earn(inv.skill.OperatorID, inv.Price)
		inv.remember()
	} else {
		row.Outcome, row.ErrorCode = stack.OutcomeFailure, inv.Error.Code
		if inv.Price > 0 {
			inv.buyer.payer().wallet.move(now, stack.TransactionRefund, inv.Price, "refund of "+inv.ID)
		}
	}
	inv.buyer.record(now, row)
}

// remember keeps what an agent learns from a skill for the data-flow wall of its Mission. The buyer is locked.
func (inv *invocation) remember() {
	if inv.passport == nil {
		return
	}
	if m := inv.passport.mission; !slices.Contains(m.skills, inv.SkillID) {
		m.skills = append(m.skills, inv.SkillID)
	}
	inv.passport.remember(inv.SkillID, inv.Output)
}

func (m *market) earn(operatorID string, cents int) {
	if m.earned == nil {
		m.earned = map[string]stack.EarningsCents{}
	}
	sum := m.earned[operatorID]
	sum.Unpaid += cents
	sum.Lifetime += cents
	m.earned[operatorID] = sum
}

// earnings is what a publisher has earned with its skills.
func (m *market) earnings(operatorID string) stack.EarningsCents {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.earned[operatorID]
}

// expireInvocation ends an open invocation whose publisher was too late. The buyer is locked.
func (s *Server) expireInvocation(inv *invocation, at time.Time) {
	s.market.mu.Lock()
	over := inv.Status.Final()
	if !over {
		inv.end(at, stack.InvocationExpired, nil, &stack.InvocationError{Code: "EXPIRED", Message: "nobody completed it in time"})
	}
	s.market.mu.Unlock()
	if !over {
		s.settleLocked(inv, at)
	}
}
