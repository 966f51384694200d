package stack_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestFleetEnroll(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, fleets := t.Context(), s.client.Fleets
	f := s.activate(t)
	challenge, err := fleets.EnrollmentChallenge(ctx, f.ID)
	require.NoError(t, err)
	assert.NotEmpty(t, challenge.Challenge)
	assert.WithinDuration(t, time.Now().Add(5*time.Minute), challenge.ExpiresAt, time.Minute)
	key := newSigner(t)
	params := s.answer(key, challenge)
	member, err := fleets.Enroll(ctx, f.ID, params)
	require.NoError(t, err)
	assert.Equal(t, &stack.FleetMember{AgentID: member.AgentID, FleetPolicyID: f.ID, Name: "helper", Kind: stack.FleetAgent,
		Status: stack.FleetActive, PublicKey: key.jwk(), EnrolledAt: member.EnrolledAt}, member)
	agent, err := s.client.Agents.Get(ctx, member.AgentID)
	require.NoError(t, err)
	assert.Equal(t, stack.Logged, agent.AccountabilityMode, "as the policy says")
	assert.Equal(t, stack.CredentialProxyOnly, agent.CredentialAccess)

	again, err := fleets.Enroll(ctx, f.ID, params)
	require.NoError(t, err, "the answer was lost")
	assert.Equal(t, member, again)
	next, err := fleets.EnrollmentChallenge(ctx, f.ID)
	require.NoError(t, err)
	params.ChallengeID, params.Proof = next.ChallengeID, key.prove(next.Challenge)
	again, err = fleets.Enroll(ctx, f.ID, params)
	require.NoError(t, err, "begun anew")
	assert.Equal(t, member, again)
	params.Name = "another"
	require.ErrorIs(t, failure(fleets.Enroll(ctx, f.ID, params)), stack.ErrIdempotencyKeyReused)

	membership, err := fleets.Membership(ctx, member.AgentID)
	require.NoError(t, err)
	assert.Equal(t, member, membership)
	membership, err = fleets.Membership(ctx, s.agent.ID)
	require.NoError(t, err)
	assert.Nil(t, membership)
	require.ErrorIs(t, failure(fleets.Membership(ctx, "agt_x")), stack.ErrNotFound)
	policy, err := fleets.Get(ctx, f.ID)
	require.NoError(t, err)
	assert.Equal(t, 1, policy.MemberCount)
	assert.Equal(t, 1, s.countRows("fleet.enroll"))

	challenge, err = fleets.WorkloadEnrollmentChallenge(ctx, f.ID)
	require.NoError(t, err)
	workload, err := fleets.EnrollWorkload(ctx, f.ID, s.answer(newSigner(t), challenge))
	require.NoError(t, err)
	assert.Equal(t, stack.FleetWorkload, workload.Kind)
}

func TestFleetEnrollRefusals(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, fleets := t.Context(), s.client.Fleets
	f, other := s.activate(t), s.activate(t)
	agents := s.activate(t, func(d *stack.FleetDefinition) { d.Members.Kinds = []stack.FleetMemberKind{stack.FleetAgent} })
	fresh := func(t *testing.T) (signer, stack.FleetEnrollParams) {
		key := newSigner(t)
		c, err := fleets.EnrollmentChallenge(ctx, f.ID)
		require.NoError(t, err)
		return key, s.answer(key, c)
	}
	key, used := fresh(t)
	require.NoError(t, failure(fleets.Enroll(ctx, f.ID, used)))
	tests := map[string]struct {
		change func(*stack.FleetEnrollParams)
		status int
		code   string
		field  string
		open   bool // the challenge still serves
	}{
		"a name that is none":    {func(p *stack.FleetEnrollParams) { p.Name = "Big Bot" }, 400, "INVALID_REQUEST", "body.name", true},
		"another kind of key":    {func(p *stack.FleetEnrollParams) { p.PublicKey.KTY = "RSA" }, 400, "INVALID_REQUEST", "body.public_key.kty", true},
		"another curve":          {func(p *stack.FleetEnrollParams) { p.PublicKey.CRV = "X25519" }, 400, "INVALID_REQUEST", "body.public_key.crv", true},
		"a short key":            {func(p *stack.FleetEnrollParams) { p.PublicKey.X = "AAAA" }, 400, "INVALID_REQUEST", "body.public_key.x", true},
		"a key on two lines":     {func(p *stack.FleetEnrollParams) { p.PublicKey.X += "\n" }, 400, "INVALID_REQUEST", "body.public_key.x", true},
		"a padded proof":         {func(p *stack.FleetEnrollParams) { p.Proof = stack.NewSecret(p.Proof.Reveal() + "==") }, 400, "INVALID_REQUEST", "body.proof", true},
		"a key for idempotency":  {func(p *stack.FleetEnrollParams) { p.IdempotencyKey = strings.Repeat("k", 256) }, 400, "INVALID_REQUEST", "body.idempotency_key", true},
		"an unknown challenge":   {func(p *stack.FleetEnrollParams) { p.ChallengeID = "fch_x" }, 403, "ENROLLMENT_CHALLENGE_INVALID", "body.challenge_id", true},
		"a used challenge":       {func(p *stack.FleetEnrollParams) { p.ChallengeID = used.ChallengeID }, 403, "ENROLLMENT_CHALLENGE_INVALID", "body.challenge_id", true},
		"an enrolled key":        {func(p *stack.FleetEnrollParams) { p.PublicKey = key.jwk() }, 409, "KEY_ALREADY_ENROLLED", "body.public_key", true},
		"another key's proof":    {func(p *stack.FleetEnrollParams) { p.PublicKey = newSigner(t).jwk() }, 403, "ENROLLMENT_PROOF_INVALID", "body.proof", false},
		"a proof of other words": {func(p *stack.FleetEnrollParams) { p.Proof = key.prove("other words") }, 403, "ENROLLMENT_PROOF_INVALID", "body.proof", false},
	}
	for name, tc := range tests {
		_, good := fresh(t)
		bad := good
		tc.change(&bad)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := fleets.Enroll(t.Context(), f.ID, bad)
			apiErr := requireRefused(t, err, tc.status, tc.code)
			assert.Equal(t, tc.field, apiErr.Details["field"])
			assert.NotContains(t, fmt.Sprint(apiErr.Message, apiErr.Details), bad.Proof.Reveal(), "the proof is not told")
			_, err = fleets.Enroll(t.Context(), f.ID, good)
			if tc.open {
				require.NoError(t, err, "nothing is lost")
			} else {
				requireRefused(t, err, 403, "ENROLLMENT_CHALLENGE_INVALID")
			}
		})
	}
	_, p := fresh(t)
	requireRefused(t, failure(fleets.Enroll(ctx, other.ID, p)), 403, "ENROLLMENT_CHALLENGE_INVALID")
	requireRefused(t, failure(fleets.EnrollWorkload(ctx, f.ID, p)), 403, "ENROLLMENT_CHALLENGE_INVALID")
	require.ErrorIs(t, failure(fleets.Enroll(ctx, "flp_x", p)), stack.ErrNotFound)
	require.ErrorIs(t, failure(fleets.EnrollmentChallenge(ctx, "flp_x")), stack.ErrNotFound)
	apiErr := requireRefused(t, failure(fleets.WorkloadEnrollmentChallenge(ctx, agents.ID)), 403, "FORBIDDEN")
	assert.Equal(t, "fleet_member_kind", apiErr.Details["check"])
	for param, change := range map[string]func(*stack.FleetEnrollParams){
		"name":            func(p *stack.FleetEnrollParams) { p.Name = "" },
		"idempotency_key": func(p *stack.FleetEnrollParams) { p.IdempotencyKey = "" },
		"public_key.x":    func(p *stack.FleetEnrollParams) { p.PublicKey.X = "" },
		"challenge_id":    func(p *stack.FleetEnrollParams) { p.ChallengeID = "" },
		"proof":           func(p *stack.FleetEnrollParams) { p.Proof = stack.Secret{} },
	} {
		bad := p
		change(&bad)
		requireParam(t, failure(fleets.Enroll(ctx, f.ID, bad)), param)
	}
}

func TestFleetChallengesEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFleetStage(t)
		f := s.activate(t)
		c, err := s.client.Fleets.EnrollmentChallenge(t.Context(), f.ID)
		require.NoError(t, err)
		late, err := s.client.Fleets.EnrollmentChallenge(t.Context(), f.ID)
		require.NoError(t, err)
		time.Sleep(5*time.Minute - time.Second)
		require.NoError(t, failure(s.client.Fleets.Enroll(t.Context(), f.ID, s.answer(newSigner(t), c))))
		time.Sleep(time.Second)
		_, err = s.client.Fleets.Enroll(t.Context(), f.ID, s.answer(newSigner(t), late))
		requireRefused(t, err, 403, "ENROLLMENT_CHALLENGE_INVALID")

		one := s.client
		s.client = s.Client(stack.WithMaxRetries(0))
		for range 1000 {
			require.NoError(t, failure(s.client.Fleets.EnrollmentChallenge(t.Context(), f.ID)))
		}
		_, err = s.client.Fleets.EnrollmentChallenge(t.Context(), f.ID)
		require.ErrorIs(t, err, stack.ErrRateLimited)
		assert.Equal(t, 5*time.Minute, requireRefused(t, err, http.StatusTooManyRequests, "RATE_LIMITED").RetryAfter)
		time.Sleep(5 * time.Minute)
		require.NoError(t, failure(one.Fleets.EnrollmentChallenge(t.Context(), f.ID)))
	})
}

func TestFleetIsFull(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	f := s.activate(t, func(d *stack.FleetDefinition) { d.Members.Max = 1 })
	first := s.FleetMember(t, f.ID)
	c, err := s.client.Fleets.EnrollmentChallenge(t.Context(), f.ID)
	require.NoError(t, err)
	params := s.answer(newSigner(t), c)
	_, err = s.client.Fleets.Enroll(t.Context(), f.ID, params)
	require.ErrorIs(t, err, stack.ErrFleetLimitExceeded)
	requireRefused(t, err, http.StatusForbidden, "FLEET_LIMIT_EXCEEDED")
	require.NoError(t, failure(s.client.Fleets.RevokeMember(t.Context(), f.ID, first.AgentID)))
	require.NoError(t, failure(s.client.Fleets.Enroll(t.Context(), f.ID, params)), "there is room again")
}

// What the plan refuses costs no challenge.
func TestFleetEnrollBeyondThePlan(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	f := s.activate(t)
	c, err := s.client.Fleets.EnrollmentChallenge(t.Context(), f.ID)
	require.NoError(t, err)
	params := s.answer(newSigner(t), c)
	s.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
	for range 9 {
		s.FleetMember(t, f.ID)
	}
	_, err = s.client.Fleets.Enroll(t.Context(), f.ID, params)
	requireRefused(t, err, http.StatusForbidden, "TIER_LIMIT_EXCEEDED")
	s.SetPolicy(stacktest.Policy{Tier: stack.TierEnterprise})
	require.NoError(t, failure(s.client.Fleets.Enroll(t.Context(), f.ID, params)))
}

// The key is made here, and is found again whatever went wrong on the way.
func TestFleetEnrollLocal(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	dir := filepath.Join(home, ".stack", "agents")
	s := newFleetStage(t)
	ctx, fleets := t.Context(), s.client.Fleets
	f := s.activate(t)
	params := stack.FleetEnrollLocalParams{Name: "helper", IdempotencyKey: "this-machine"}

	s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/fleets/{policy_id}/enroll", Times: 2, Close: stacktest.CloseAfter})
	_, err := s.Client(stack.WithMaxRetries(0)).Fleets.EnrollLocal(ctx, f.ID, params)
	require.Error(t, err, "it has joined, and does not know")
	member, err := fleets.EnrollLocal(ctx, f.ID, params)
	require.NoError(t, err)
	again, err := fleets.EnrollLocal(ctx, f.ID, params)
	require.NoError(t, err)
	assert.Equal(t, member, again)
	members, err := fleets.Members(ctx, f.ID)
	require.NoError(t, err)
	assert.Len(t, members, 1, "one agent for all of it")
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, files, 2)
	data, err := os.ReadFile(filepath.Join(dir, member.AgentID+".json"))
	require.NoError(t, err)
	assert.Contains(t, string(data), member.PublicKey.X)

	workload, err := fleets.EnrollWorkloadLocal(ctx, f.ID, stack.FleetEnrollLocalParams{Name: "job", IdempotencyKey: "job-1"})
	require.NoError(t, err)
	assert.Equal(t, stack.FleetWorkload, workload.Kind)
	assert.NotEqual(t, member.PublicKey, workload.PublicKey)

	for param, p := range map[string]stack.FleetEnrollLocalParams{"name": {IdempotencyKey: "k"}, "idempotency_key": {Name: "n"}} {
		requireParam(t, failure(fleets.EnrollLocal(ctx, f.ID, p)), param)
	}
	requireParam(t, failure(fleets.EnrollLocal(ctx, "", params)), "policy_id")
	files, err = os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, files, 4, "what is refused makes no key")
	require.ErrorIs(t, failure(fleets.EnrollLocal(ctx, "flp_x", params)), stack.ErrNotFound)
	ended, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("no more"))
	require.ErrorContains(t, failure(fleets.EnrollLocal(ended, f.ID, params)), "no more")
}
