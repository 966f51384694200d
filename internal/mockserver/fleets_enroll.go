package mockserver

import (
	"context"
	"fmt"
	"slices"

	"github.com/getstack-go/stack"
)

func (s *Server) challengeAgent(_ context.Context, c *caller, in fleetIn) (*stack.EnrollmentChallenge, error) {
	return s.challengeMember(c.op, in.PolicyID, stack.FleetAgent)
}

func (s *Server) challengeWorkload(_ context.Context, c *caller, in fleetIn) (*stack.EnrollmentChallenge, error) {
	return s.challengeMember(c.op, in.PolicyID, stack.FleetWorkload)
}

func (s *Server) challengeMember(
	op *operator, policyID string, kind stack.FleetMemberKind,
) (*stack.EnrollmentChallenge, error) {
	now := s.clock.now()
	f, err := op.activeFleet(policyID)
	if err != nil {
		return nil, err
	}
	if err = f.letsIn(kind); err != nil {
		return nil, err
	}
	ch, err := op.challenge(now, "fch_", fmt.Sprintf("stack-fleet-enrollment:%s:%s", f.ID, kind), &enrollChallenge{fleet: f, kind: kind})
	if err != nil {
		return nil, err
	}
	op.record(now, f.row("fleet.challenge"))
	return ch, nil
}

// letsIn refuses a kind of member that the policy does not name.
func (f *fleet) letsIn(kind stack.FleetMemberKind) error {
	if slices.Contains(f.Definition.Members.Kinds, kind) {
		return nil
	}
	return forbidden(fmt.Sprintf("the fleet has no members of the kind %s", kind),
		map[string]any{"check": "fleet_member_kind", "sent": kind, "allowed": f.Definition.Members.Kinds})
}

type enrollFleetIn struct {
	PolicyID string                  `path:"policy_id"`
	Body     stack.FleetEnrollParams `body:""`
}

func (s *Server) enrollAgent(_ context.Context, c *caller, in enrollFleetIn) (*stack.FleetMember, error) {
	return s.enroll(c.op, in, stack.FleetAgent)
}

func (s *Server) enrollWorkload(_ context.Context, c *caller, in enrollFleetIn) (*stack.FleetMember, error) {
	return s.enroll(c.op, in, stack.FleetWorkload)
}

// enroll lets somebody join once: the repetition of a call, with whatever challenge, finds the same member.
func (s *Server) enroll(op *operator, in enrollFleetIn, kind stack.FleetMemberKind) (*stack.FleetMember, error) {
	p := in.Body
	what := []string{p.Name, p.PublicKey.X, string(kind)}
	m, err := onceByBody(s, op, "enroll "+in.PolicyID, "body.", p.IdempotencyKey, what, func() (*fleetMember, error) {
		return s.join(op, in.PolicyID, p, kind)
	})
	if err != nil {
		return nil, err
	}
	return &m.FleetMember, nil
}

func (s *Server) join(op *operator, policyID string, p stack.FleetEnrollParams, kind stack.FleetMemberKind) (*fleetMember, error) {
	now := s.clock.now()
	f, err := op.activeFleet(policyID)
	if err != nil {
		return nil, err
	}
	if err = f.letsIn(kind); err != nil {
		return nil, err
	}
	key, err := readProof(p.PublicKey, "body.proof", p.Proof)
	if err != nil {
		return nil, err
	}
	if err = firstError(checkAgentName(p.Name)); err != nil {
		return nil, err
	}
	ch, ok := op.challenges.get(p.ChallengeID)
	if !ok || ch.fleet != f || ch.kind != kind {
		return nil, badChallenge(p.ChallengeID, "fleet or kind of member")
	}
	if have, most := f.activeMembers(), f.Definition.Members.Max; have >= most {
		return nil, beyondFleet("members.max", have+1, most)
	}
	if err = op.mustBeNew(key, ""); err != nil {
		return nil, err
	}
	if err = op.answered(now, ch, key, f.row("fleet.enroll")); err != nil {
		return nil, err
	}
	a, err := op.register(now, stack.AgentRegisterParams{Name: p.Name, AccountabilityMode: f.Definition.Members.AccountabilityMode})
	if err != nil {
		return nil, err
	}
	op.challenges.delete(ch.ChallengeID)
	m := &fleetMember{fleet: f, FleetMember: stack.FleetMember{AgentID: a.ID, FleetPolicyID: f.ID, Name: a.Name, Kind: kind,
		Status: stack.FleetActive, PublicKey: p.PublicKey, EnrolledAt: now}}
	f.members.put(a.ID, m)
	op.fleetMembers[a.ID] = m
	s.keys.addAgent(&agentKey{op: op, agentID: a.ID, jwk: p.PublicKey, public: key.public, enrolledAt: now})
	row := f.row("fleet.enroll")
	row.AgentID = a.ID
	op.record(now, row)
	return m, nil
}
