package stack

import (
	"context"
	"log/slog"
	"time"
)

// PublicKeyJWK is a public Ed25519 key. (contract: endpoints 4.6)
type PublicKeyJWK struct {
	KTY string `json:"kty"` // OKP
	CRV string `json:"crv"` // Ed25519
	X   string `json:"x"`   // the 32 bytes in base64url without padding
}

// EnrollmentChallenge is what the holder of a key signs to prove that it is theirs. It serves once.
type EnrollmentChallenge struct {
	ChallengeID string    `json:"challenge_id"`
	Challenge   string    `json:"challenge"`
	ExpiresAt   time.Time `json:"expires_at"` // five minutes after it was made
}

// EnrollmentChallenge makes a challenge for an agent that is to join a fleet. It fails with [ErrNotFound], with
// [ErrFleetRevoked], with [ErrForbidden] where the policy lets no agents in, and with [ErrRateLimited] when too many challenges
// wait for their answer. [FleetsService.EnrollLocal] does the whole of it.
//
// POST /v1/fleets/{policy_id}/enrollment-challenges
func (s *FleetsService) EnrollmentChallenge(ctx context.Context, policyID string) (*EnrollmentChallenge, error) {
	return s.challenge(ctx, post("/v1/fleets/{policy_id}/enrollment-challenges", policyID))
}

// WorkloadEnrollmentChallenge makes a challenge for a workload that is to join a fleet. It fails as
// [FleetsService.EnrollmentChallenge] does.
//
// POST /v1/fleets/{policy_id}/workload/enrollment-challenges
func (s *FleetsService) WorkloadEnrollmentChallenge(ctx context.Context, policyID string) (*EnrollmentChallenge, error) {
	return s.challenge(ctx, post("/v1/fleets/{policy_id}/workload/enrollment-challenges", policyID))
}

func (s *FleetsService) challenge(ctx context.Context, cl *call) (*EnrollmentChallenge, error) {
	cl.keyed = true // one that nobody answers does nothing
	return send[EnrollmentChallenge](ctx, s.client, cl.with(struct{}{}))
}

// FleetEnrollParams has an agent or a workload join a fleet.
type FleetEnrollParams struct {
	Name           string       `json:"name"`            // of the agent that is registered for it, as in AgentRegisterParams
	IdempotencyKey string       `json:"idempotency_key"` // makes a repetition give the same agent, for 24 hours
	PublicKey      PublicKeyJWK `json:"public_key"`
	ChallengeID    string       `json:"challenge_id"`
	// Proof is the Ed25519 signature over the UTF-8 bytes of the challenge, in base64url without padding.
	Proof Secret `json:"proof"`
}

// LogValue gives slog the parameters without the proof.
func (p FleetEnrollParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", p.Name), slog.String("challenge_id", p.ChallengeID), slog.Any("proof", p.Proof))
}

func (p FleetEnrollParams) check() error {
	return firstError(required("name", p.Name), required("idempotency_key", p.IdempotencyKey),
		required("public_key.x", p.PublicKey.X), required("challenge_id", p.ChallengeID), required("proof", p.Proof.Reveal()))
}

// Enroll registers an agent and makes it a member of a fleet, once it has proved by an answered challenge that it holds the key.
// A repetition with the same idempotency key, name and key gives the same agent, whatever its challenge. It fails with a
// [*ParamError], with [ErrInvalidRequest], with [ErrNotFound], with [ErrFleetRevoked], with code ENROLLMENT_CHALLENGE_INVALID
// for a challenge that is unknown, used, too old or of another fleet, with code ENROLLMENT_PROOF_INVALID for a proof that is not
// the key's, with code KEY_ALREADY_ENROLLED for a key that an agent has, and with [ErrFleetLimitExceeded] when the fleet is full.
//
// POST /v1/fleets/{policy_id}/enroll
func (s *FleetsService) Enroll(ctx context.Context, policyID string, params FleetEnrollParams) (*FleetMember, error) {
	return s.enroll(ctx, post("/v1/fleets/{policy_id}/enroll", policyID), params)
}

// EnrollWorkload registers an agent for a workload and makes it a member of a fleet. Its challenge is of
// [FleetsService.WorkloadEnrollmentChallenge]. It fails as [FleetsService.Enroll] does.
//
// POST /v1/fleets/{policy_id}/workload/enroll
func (s *FleetsService) EnrollWorkload(ctx context.Context, policyID string, params FleetEnrollParams) (*FleetMember, error) {
	return s.enroll(ctx, post("/v1/fleets/{policy_id}/workload/enroll", policyID), params)
}

func (s *FleetsService) enroll(ctx context.Context, cl *call, params FleetEnrollParams) (*FleetMember, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	cl.keyed = true // by its idempotency key
	return send[FleetMember](ctx, s.client, cl.with(params))
}

// FleetEnrollLocalParams has an agent or a workload of this machine join a fleet.
type FleetEnrollLocalParams struct {
	Name           string // of the agent that is registered for it
	IdempotencyKey string // stands for the key: the same fleet and idempotency key use the same key pair again
}

// EnrollLocal has an agent of this machine join a fleet: it makes a key pair here, or takes the one that it made before for
// the same fleet and idempotency key, and answers a challenge with it. The pair is kept in ~/.stack/agents, under a name made of
// fleet and idempotency key and under the agent's id, each in a file that only this user can read (mode 0600). The Python SDK
// finds it there as well, and the other way round. A repetition, also after a failure half way, gives the same agent.
//
// It fails with a [*ParamError], with the reason why a key file could not be read or written, and as [FleetsService.Enroll]
// does. When only the file of the agent's id could not be written, the member comes with the error. (contract: endpoints 4.7)
//
// POST /v1/fleets/{policy_id}/enrollment-challenges and POST /v1/fleets/{policy_id}/enroll
func (s *FleetsService) EnrollLocal(ctx context.Context, policyID string, params FleetEnrollLocalParams) (*FleetMember, error) {
	return enrollLocal(ctx, policyID, params, s.EnrollmentChallenge, s.Enroll)
}

// EnrollWorkloadLocal has a workload of this machine join a fleet, as [FleetsService.EnrollLocal] has an agent.
//
// POST /v1/fleets/{policy_id}/workload/enrollment-challenges and POST /v1/fleets/{policy_id}/workload/enroll
func (s *FleetsService) EnrollWorkloadLocal(
	ctx context.Context, policyID string, params FleetEnrollLocalParams,
) (*FleetMember, error) {
	return enrollLocal(ctx, policyID, params, s.WorkloadEnrollmentChallenge, s.EnrollWorkload)
}

func enrollLocal(
	ctx context.Context, policyID string, params FleetEnrollLocalParams,
	challenge func(context.Context, string) (*EnrollmentChallenge, error),
	enroll func(context.Context, string, FleetEnrollParams) (*FleetMember, error),
) (*FleetMember, error) {
	if err := firstError(required("policy_id", policyID), required("name", params.Name),
		required("idempotency_key", params.IdempotencyKey)); err != nil {
		return nil, err
	}
	key, err := fleetKey(ctx, policyID, params.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	asked, err := challenge(ctx, policyID)
	if err != nil {
		return nil, err
	}
	member, err := enroll(ctx, policyID, FleetEnrollParams{Name: params.Name, IdempotencyKey: params.IdempotencyKey,
		PublicKey: key.public(), ChallengeID: asked.ChallengeID, Proof: key.prove(asked.Challenge)})
	if err != nil {
		return nil, err
	}
	return member, key.keepFor(member.AgentID)
}
