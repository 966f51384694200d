package stack_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestFleetRevokeMember(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, fleets := t.Context(), s.client.Fleets
	f := s.activate(t)
	bad, good := s.FleetMember(t, f.ID), s.FleetMember(t, f.ID)
	first, second, other := s.start(t, bad), s.start(t, bad), s.start(t, good)
	r, err := fleets.RevokeMember(ctx, f.ID, bad.AgentID)
	require.NoError(t, err)
	assert.Equal(t, &stack.FleetRevocation{FleetPolicyID: f.ID, AgentID: bad.AgentID, Status: stack.FleetRevoked, RevokedAt: r.RevokedAt,
		RevokedMembers: 1, RevokedMissions: 2, RevokedPassports: 2}, r)
	for _, m := range []*stack.StartedMission{first, second} {
		assert.Equal(t, "Fleet member revoked", s.RequireRevoked(t, m.Passport.JTI))
		var ended *stack.MissionEndedError
		require.ErrorAs(t, failure(s.client.Missions.Renew(ctx, m.MissionID)), &ended)
		require.ErrorIs(t, failure(s.client.Proxy.Post(ctx, withPassport(post("C123"), &m.Passport))), stack.ErrPassportRevoked)
	}
	require.NoError(t, failure(s.client.Proxy.Post(ctx, withPassport(post("C123"), &other.Passport))), "the others go on")
	membership, err := fleets.Membership(ctx, bad.AgentID)
	require.NoError(t, err)
	assert.Nil(t, membership)
	members, err := fleets.Members(ctx, f.ID)
	require.NoError(t, err)
	assert.Equal(t, []stack.FleetStatus{stack.FleetRevoked, stack.FleetActive}, []stack.FleetStatus{members[0].Status, members[1].Status})
	require.ErrorIs(t, failure(s.client.Missions.Start(ctx, s.startParams(bad))), stack.ErrFleetMembershipRequired)

	again, err := fleets.RevokeMember(ctx, f.ID, bad.AgentID)
	require.NoError(t, err)
	assert.Equal(t, &stack.FleetRevocation{FleetPolicyID: f.ID, AgentID: bad.AgentID, Status: stack.FleetRevoked, RevokedAt: r.RevokedAt}, again)
	assert.Equal(t, 1, s.countRows("fleet.revoke_member"))
	require.ErrorIs(t, failure(fleets.RevokeMember(ctx, f.ID, s.agent.ID)), stack.ErrNotFound, "it never was in it")
	require.ErrorIs(t, failure(fleets.RevokeMember(ctx, "flp_x", good.AgentID)), stack.ErrNotFound)
	require.ErrorIs(t, failure(fleets.RevokeMember(ctx, s.activate(t).ID, good.AgentID)), stack.ErrNotFound)

	_, err = s.client.Agents.Delete(ctx, good.AgentID)
	require.NoError(t, err)
	record, err := s.client.Missions.Get(ctx, other.MissionID)
	require.NoError(t, err)
	assert.Equal(t, stack.MissionRevoked, record.Status, "who is deleted has left")
}

func TestFleetRevoke(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, fleets := t.Context(), s.client.Fleets
	f, other := s.activate(t), s.activate(t)
	a, b, apart := s.FleetMember(t, f.ID), s.FleetMember(t, f.ID), s.start(t, s.FleetMember(t, other.ID))
	missions := []*stack.StartedMission{s.start(t, a), s.start(t, b)}
	challenge, err := fleets.EnrollmentChallenge(ctx, f.ID)
	require.NoError(t, err)
	r, err := fleets.Revoke(ctx, f.ID)
	require.NoError(t, err)
	assert.Equal(t, &stack.FleetRevocation{FleetPolicyID: f.ID, Status: stack.FleetRevoked, RevokedAt: r.RevokedAt, RevokedMembers: 2,
		RevokedMissions: 2, RevokedPassports: 2}, r)
	for _, m := range missions {
		s.RequireRevoked(t, m.Passport.JTI)
	}
	require.NoError(t, failure(s.client.Proxy.Post(ctx, withPassport(post("C123"), &apart.Passport))), "another fleet goes on")
	again, err := fleets.Revoke(ctx, f.ID)
	require.NoError(t, err)
	assert.Equal(t, &stack.FleetRevocation{FleetPolicyID: f.ID, Status: stack.FleetRevoked, RevokedAt: r.RevokedAt}, again)
	policy, err := fleets.Get(ctx, f.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.FleetRevoked, policy.Status)
	assert.Zero(t, policy.MemberCount+policy.LiveMissions)

	for name, err := range map[string]error{
		"revise":    failure(fleets.Revise(ctx, f.ID, s.definition(), stack.FleetReviseParams{ExpectedRevision: 1, IdempotencyKey: s.key()})),
		"challenge": failure(fleets.EnrollmentChallenge(ctx, f.ID)),
		"workload":  failure(fleets.WorkloadEnrollmentChallenge(ctx, f.ID)),
		"enroll":    failure(fleets.Enroll(ctx, f.ID, s.answer(newSigner(t), challenge))),
		"session":   failure(fleets.Session(ctx, f.ID)),
		"start":     failure(s.client.Missions.Start(ctx, s.startParams(a))),
	} {
		require.ErrorIs(t, err, stack.ErrFleetRevoked, name)
		requireRefused(t, err, http.StatusConflict, "FLEET_REVOKED")
	}
	require.ErrorIs(t, failure(fleets.Revoke(ctx, "flp_x")), stack.ErrNotFound)
}

func TestFleetSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFleetStage(t)
		ctx, fleets := t.Context(), s.client.Fleets
		_, err := fleets.Session(ctx, "")
		requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
		f := s.activate(t)
		before := s.start(t, s.FleetMember(t, f.ID))
		session, err := fleets.Session(ctx, "")
		require.NoError(t, err, "there is but one fleet")
		assert.Regexp(t, `^ses_[a-z0-9]{26}$`, session.SessionID)
		assert.Equal(t, &stack.FleetSession{SessionID: session.SessionID, FleetPolicyID: f.ID, Revision: 1, StartedAt: session.StartedAt,
			ExpiresAt: session.StartedAt.Add(24 * time.Hour)}, session)
		again, err := fleets.Session(ctx, f.ID)
		require.NoError(t, err)
		assert.Equal(t, session, again)
		assert.Equal(t, 1, s.countRows("fleet.session"))
		other := s.activate(t)
		requireRefused(t, failure(fleets.Session(ctx, "")), http.StatusBadRequest, "INVALID_REQUEST")
		require.ErrorIs(t, failure(fleets.Session(ctx, "flp_x")), stack.ErrNotFound)

		one, two := s.start(t, s.FleetMember(t, f.ID)), s.start(t, s.FleetMember(t, f.ID))
		apart := s.start(t, s.FleetMember(t, other.ID))
		active, err := s.client.Passports.ListActive(ctx, stack.PassportListParams{SessionID: session.SessionID})
		require.NoError(t, err)
		assert.Len(t, active, 2)
		record, err := s.client.Missions.Get(ctx, one.MissionID)
		require.NoError(t, err)
		assert.Equal(t, session.SessionID, record.Fleet.SessionID)
		r, err := s.client.Passports.RevokeSession(ctx, session.SessionID, "enough")
		require.NoError(t, err)
		assert.Equal(t, 2, r.RevokedCount)
		s.RequireRevoked(t, one.Passport.JTI)
		s.RequireRevoked(t, two.Passport.JTI)
		for _, p := range []stack.Passport{before.Passport, apart.Passport} {
			assert.True(t, s.Passport(p.JTI).Passport.RevokedAt.IsZero())
		}
		next, err := fleets.Session(ctx, f.ID)
		require.NoError(t, err)
		assert.NotEqual(t, session.SessionID, next.SessionID, "a new one begins")
		_, err = s.client.Passports.RevokeSession(ctx, next.SessionID, "")
		require.NoError(t, err, "though it has no passport yet")

		next, err = fleets.Session(ctx, f.ID)
		require.NoError(t, err)
		time.Sleep(24 * time.Hour)
		late, err := fleets.Session(ctx, f.ID)
		require.NoError(t, err)
		assert.NotEqual(t, next.SessionID, late.SessionID)
	})
}
