package stacktest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"

	"github.com/getstack-go/stack"
)

// Fleet activates a fleet and stands in for the human who approves it. It fails the test when that is refused.
func (s *Server) Fleet(t TB, definition stack.FleetDefinition) *stack.FleetPolicy {
	t.Helper()
	fleets, params := s.setup().Fleets, stack.FleetActivateParams{IdempotencyKey: rand.Text()}
	_, err := fleets.Activate(t.Context(), definition, params)
	var refused *stack.Error
	if errors.Is(err, stack.ErrGovernanceApprovalRequired) && errors.As(err, &refused) {
		params.GovernanceApprovalID, _ = refused.Details["approval_id"].(string)
		if err = s.Approve(params.GovernanceApprovalID); err != nil {
			t.Fatalf("stacktest: approving the fleet: %s", err)
		}
	}
	fleet, err := fleets.Activate(t.Context(), definition, params)
	if err != nil {
		t.Fatalf("stacktest: activating the fleet: %s", err)
	}
	return fleet
}

// FleetMember has a fresh agent join a fleet with a key that is forgotten afterwards. It fails the test when that is refused.
func (s *Server) FleetMember(t TB, fleetPolicyID string) *stack.FleetMember {
	t.Helper()
	fleets := s.setup().Fleets
	challenge, err := fleets.EnrollmentChallenge(t.Context(), fleetPolicyID)
	if err != nil {
		t.Fatalf("stacktest: asking to join the fleet: %s", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("stacktest: making a key: %s", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	member, err := fleets.Enroll(t.Context(), fleetPolicyID, stack.FleetEnrollParams{Name: freshName(), IdempotencyKey: rand.Text(),
		PublicKey:   stack.PublicKeyJWK{KTY: "OKP", CRV: "Ed25519", X: encode(public)},
		ChallengeID: challenge.ChallengeID, Proof: stack.NewSecret(encode(ed25519.Sign(private, []byte(challenge.Challenge))))})
	if err != nil {
		t.Fatalf("stacktest: joining the fleet: %s", err)
	}
	return member
}
