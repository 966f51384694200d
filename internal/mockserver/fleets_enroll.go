package mockserver

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

const (
	challengeLife = 5 * time.Minute
	maxChallenges = 1000 // of an operator, that wait for their answer
)

// enrollChallenge is a text that the holder of a key signs, once.
type enrollChallenge struct {
	stack.EnrollmentChallenge
	fleet *fleet
	kind  stack.FleetMemberKind
}

func (s *Server) challengeAgent(_ context.Context, c *caller, in fleetIn) (*stack.EnrollmentChallenge, error) {
	return s.challenge(c.op, in.PolicyID, stack.FleetAgent)
}

func (s *Server) challengeWorkload(_ context.Context, c *caller, in fleetIn) (*stack.EnrollmentChallenge, error) {
	return s.challenge(c.op, in.PolicyID, stack.FleetWorkload)
}

func (s *Server) challenge(op *operator, policyID string, kind stack.FleetMemberKind) (*stack.EnrollmentChallenge, error) {
	now := s.clock.now()
	f, err := op.activeFleet(policyID)
	if err != nil {
		return nil, err
	}
	if err := f.letsIn(kind); err != nil {
		return nil, err
	}
	if have := op.challenges.len(); have >= maxChallenges {
		err := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "too many challenges wait for their answer",
			map[string]any{"check": "challenges", "sent": have + 1, "allowed": maxChallenges})
		for oldest := range op.challenges.all() {
			err.retryAfter = oldest.ExpiresAt.Sub(now)
			break
		}
		return nil, err
	}
	// The text says what it is for, so that its signature is of no use elsewhere.
	ch := &enrollChallenge{fleet: f, kind: kind, EnrollmentChallenge: stack.EnrollmentChallenge{ChallengeID: newID("fch_"),
		Challenge: fmt.Sprintf("stack-fleet-enrollment:%s:%s:%s", f.ID, kind, rand.Text()), ExpiresAt: now.Add(challengeLife)}}
	op.challenges.put(ch.ChallengeID, ch)
	op.due.add(ch.ExpiresAt, func(time.Time) { op.challenges.delete(ch.ChallengeID) })
	op.record(now, f.row("fleet.challenge"))
	return &ch.EnrollmentChallenge, nil
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
	key, err := readJWK("body.public_key", p.PublicKey)
	if err != nil {
		return nil, err
	}
	proof, err := base64.RawURLEncoding.Strict().DecodeString(p.Proof.Reveal())
	if err != nil || len(proof) != ed25519.SignatureSize {
		return nil, invalid("body.proof", "something else", fmt.Sprintf("the base64url, without padding, of %d bytes",
			ed25519.SignatureSize))
	}
	if err = firstError(checkAgentName(p.Name)); err != nil {
		return nil, err
	}
	ch, ok := op.challenges.get(p.ChallengeID)
	if !ok || ch.fleet != f || ch.kind != kind {
		return nil, refuse(http.StatusForbidden, "ENROLLMENT_CHALLENGE_INVALID", "the challenge is unknown, used, too old or for "+
			"another fleet or kind of member", map[string]any{"check": "enrollment_challenge", "field": "body.challenge_id",
			"sent": clip(p.ChallengeID), "allowed": "a fresh challenge of this fleet, used once"})
	}
	if have, most := f.activeMembers(), f.Definition.Members.Max; have >= most {
		return nil, beyondFleet("members.max", have+1, most)
	}
	for _, other := range op.fleetMembers {
		if other.PublicKey.X == p.PublicKey.X { // thrown out or not: a key that was withdrawn stays so
			return nil, refuse(http.StatusConflict, "KEY_ALREADY_ENROLLED", "the key is an agent's already", map[string]any{
				"check": "unique", "field": "body.public_key", "sent": p.PublicKey.X, "agent_id": other.AgentID,
				"allowed": "a key that no agent has had"})
		}
	}
	if !ed25519.Verify(key, []byte(ch.Challenge), proof) {
		op.challenges.delete(ch.ChallengeID)
		row := f.row("fleet.enroll")
		row.Outcome, row.ErrorCode = stack.OutcomeBlocked, "ENROLLMENT_PROOF_INVALID"
		op.record(now, row)
		return nil, refuse(http.StatusForbidden, "ENROLLMENT_PROOF_INVALID", "the proof is not the key's signature of the challenge",
			map[string]any{"check": "enrollment_proof", "field": "body.proof",
				"allowed": "the Ed25519 signature over the UTF-8 bytes of a fresh challenge"})
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
	row := f.row("fleet.enroll")
	row.AgentID = a.ID
	op.record(now, row)
	return m, nil
}

// readJWK reads a public Ed25519 key.
func readJWK(field string, jwk stack.PublicKeyJWK) (ed25519.PublicKey, error) {
	if err := firstError(chosen(field+".kty", jwk.KTY, "OKP"), chosen(field+".crv", jwk.CRV, "Ed25519")); err != nil {
		return nil, err
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(jwk.X)
	if err != nil || len(key) != ed25519.PublicKeySize || base64.RawURLEncoding.EncodeToString(key) != jwk.X {
		return nil, invalid(field+".x", jwk.X, fmt.Sprintf("the base64url, without padding, of %d bytes", ed25519.PublicKeySize))
	}
	return key, nil
}
