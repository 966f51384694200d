package mockserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// fleetHand does what the owner of a fleet does.
type fleetHand struct {
	s      *Server
	op     *operator
	client *stack.Client
	conn   *stack.Connection
}

func newFleetHand(t *testing.T) *fleetHand {
	t.Helper()
	s, op, client := newDirect(t)
	conn, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: stack.NewSecret("t"),
		Scopes: []string{"chat:write"}})
	require.NoError(t, err)
	return &fleetHand{s, op, client, conn}
}

func (h *fleetHand) definition() stack.FleetDefinition {
	return stack.FleetDefinition{Name: "Fleet", Members: stack.FleetMembers{AccountabilityMode: stack.Logged},
		Access: []stack.PassportScope{{ServiceConnectionID: h.conn.ID, Scopes: h.conn.Scopes}}}
}

// activate activates a fleet under an idempotency key.
func (h *fleetHand) activate(t *testing.T, key string) *stack.FleetPolicy {
	t.Helper()
	params := stack.FleetActivateParams{IdempotencyKey: key}
	_, err := h.client.Fleets.Activate(t.Context(), h.definition(), params)
	var refused *stack.Error
	require.ErrorAs(t, err, &refused)
	params.GovernanceApprovalID, _ = refused.Details["approval_id"].(string)
	require.NoError(t, h.s.Approve(params.GovernanceApprovalID))
	f, err := h.client.Fleets.Activate(t.Context(), h.definition(), params)
	require.NoError(t, err)
	return f
}

// answer answers a challenge with a fresh key.
func answer(t *testing.T, c *stack.EnrollmentChallenge, key string) stack.FleetEnrollParams {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	b64 := base64.RawURLEncoding.EncodeToString
	return stack.FleetEnrollParams{Name: "helper", IdempotencyKey: key, ChallengeID: c.ChallengeID,
		PublicKey: stack.PublicKeyJWK{KTY: "OKP", CRV: "Ed25519", X: b64(public)},
		Proof:     stack.NewSecret(b64(ed25519.Sign(private, []byte(c.Challenge))))}
}

func (h *fleetHand) enroll(t *testing.T, fleet, key string) *stack.FleetMember {
	t.Helper()
	c, err := h.client.Fleets.EnrollmentChallenge(t.Context(), fleet)
	require.NoError(t, err)
	m, err := h.client.Fleets.Enroll(t.Context(), fleet, answer(t, c, key))
	require.NoError(t, err)
	return m
}

func startOf(m *stack.FleetMember, key string) stack.MissionStartParams {
	return stack.MissionStartParams{AgentID: m.AgentID, Mission: stack.MissionOpenParams{IntentSummary: "x",
		FleetPolicyID: m.FleetPolicyID, IdempotencyKey: key}}
}

// Another operator's fleets, members and challenges are not there.
func TestFleetsOfOperatorsDoNotMeet(t *testing.T) {
	t.Parallel()
	h := newFleetHand(t)
	f := h.activate(t, "k")
	m := h.enroll(t, f.ID, "k")
	session, err := h.client.Fleets.Session(t.Context(), f.ID)
	require.NoError(t, err)
	challenge, err := h.client.Fleets.EnrollmentChallenge(t.Context(), f.ID)
	require.NoError(t, err)
	other, stranger := newStranger(t, h.s)
	ctx, fleets := t.Context(), stranger.Fleets
	rows, foreignRows := h.op.chain.Len(), other.chain.Len()
	for name, err := range map[string]error{
		"activate": failure(fleets.Activate(ctx, h.definition(), stack.FleetActivateParams{IdempotencyKey: "k"})),
		"revise": failure(fleets.Revise(ctx, f.ID, stack.FleetDefinition{Name: "x"},
			stack.FleetReviseParams{ExpectedRevision: 1, IdempotencyKey: "k"})),
		"get":                failure(fleets.Get(ctx, f.ID)),
		"members":            failure(fleets.Members(ctx, f.ID)),
		"members_page":       failure(fleets.MembersPage(ctx, f.ID, stack.FleetPageParams{})),
		"membership":         failure(fleets.Membership(ctx, m.AgentID)),
		"session":            failure(fleets.Session(ctx, f.ID)),
		"challenge":          failure(fleets.EnrollmentChallenge(ctx, f.ID)),
		"workload challenge": failure(fleets.WorkloadEnrollmentChallenge(ctx, f.ID)),
		"enroll":             failure(fleets.Enroll(ctx, f.ID, answer(t, challenge, "k"))),
		"enroll_workload":    failure(fleets.EnrollWorkload(ctx, f.ID, answer(t, challenge, "k2"))),
		"revoke_member":      failure(fleets.RevokeMember(ctx, f.ID, m.AgentID)),
		"revoke":             failure(fleets.Revoke(ctx, f.ID)),
		"start":              failure(stranger.Missions.Start(ctx, startOf(m, "k"))),
		"revoke_session":     failure(stranger.Passports.RevokeSession(ctx, session.SessionID, "")),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	assert.Equal(t, rows, h.op.chain.Len(), "nothing happened here")
	assert.Equal(t, foreignRows, other.chain.Len(), "nor there")
	list, err := fleets.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, list)
}

// Every call that changes something is in the audit log when its answer is there; a repetition and a look leave no trace.
func TestFleetsAreAudited(t *testing.T) {
	t.Parallel()
	h := newFleetHand(t)
	ctx, fleets := t.Context(), h.client.Fleets
	f := h.activate(t, "k")
	lone := h.enroll(t, f.ID, "lone")
	challenge, err := fleets.EnrollmentChallenge(ctx, f.ID)
	require.NoError(t, err)
	request := answer(t, challenge, "joins")
	for _, tc := range []struct {
		action string
		call   func() error
		again  bool // a repetition changes nothing
	}{
		{"fleet.challenge", func() error { return failure(fleets.WorkloadEnrollmentChallenge(ctx, f.ID)) }, false},
		{"fleet.enroll", func() error { return failure(fleets.Enroll(ctx, f.ID, request)) }, true},
		{"fleet.session", func() error { return failure(fleets.Session(ctx, f.ID)) }, true},
		{"mission.open", func() error { return failure(h.client.Missions.Start(ctx, startOf(lone, "start"))) }, true},
		{"fleet.revise", func() error {
			return failure(fleets.Revise(ctx, f.ID, h.definition(), stack.FleetReviseParams{ExpectedRevision: 1, IdempotencyKey: "r"}))
		}, true},
		{"fleet.revoke_member", func() error { return failure(fleets.RevokeMember(ctx, f.ID, lone.AgentID)) }, true},
		{"fleet.revoke", func() error { return failure(fleets.Revoke(ctx, f.ID)) }, true},
	} {
		before := h.op.chain.Len()
		require.NoError(t, tc.call(), tc.action)
		var actions []string
		for _, row := range h.s.Audit()[before:] {
			actions = append(actions, row.Action)
			if row.Action == tc.action && tc.action != "mission.open" {
				assert.Equal(t, f.ID, row.TraceID, "the row names the fleet")
			}
		}
		assert.Contains(t, actions, tc.action)
		if after := h.op.chain.Len(); tc.again {
			require.NoError(t, tc.call(), tc.action)
			assert.Equal(t, after, h.op.chain.Len(), tc.action)
		}
	}
	assert.True(t, h.s.VerifyAudit().Valid)
}

// However many ask at once with one key, one Mission begins.
func TestFleetStartsAtOnce(t *testing.T) {
	t.Parallel()
	h := newFleetHand(t)
	m := h.enroll(t, h.activate(t, "k").ID, "k")
	ids := make([]string, 32)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			started, err := h.client.Missions.Start(t.Context(), startOf(m, "once"))
			if assert.NoError(t, err) {
				ids[i] = started.MissionID
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		assert.Equal(t, ids[0], id)
	}
	assert.Equal(t, 1, h.op.missions.len())
}

// A start whose passport is refused leaves nothing behind, and its key is free.
func TestFleetStartFailsWhole(t *testing.T) {
	t.Parallel()
	h := newFleetHand(t)
	f := h.activate(t, "k")
	m := h.enroll(t, f.ID, "k")
	_, err := h.client.Agents.Suspend(t.Context(), m.AgentID)
	require.NoError(t, err)
	require.ErrorIs(t, failure(h.client.Missions.Start(t.Context(), startOf(m, "once"))), stack.ErrForbidden)
	own, _ := h.op.fleets.get(f.ID)
	assert.Empty(t, own.live)
	_, err = h.client.Agents.Activate(t.Context(), m.AgentID)
	require.NoError(t, err)
	require.NoError(t, failure(h.client.Missions.Start(t.Context(), startOf(m, "once"))))
	assert.Len(t, own.live, 1)
}

// Missions that end by themselves count no longer as live.
func TestFleetMissionsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newFleetHand(t)
		f := h.activate(t, "k")
		require.NoError(t, failure(h.client.Missions.Start(t.Context(), startOf(h.enroll(t, f.ID, "k"), "once"))))
		time.Sleep(defaultMissionLifetime)
		now, err := h.client.Fleets.Get(t.Context(), f.ID)
		require.NoError(t, err)
		assert.Zero(t, now.LiveMissions)
	})
}

func TestFleetsAreBounded(t *testing.T) {
	t.Parallel()
	h := newFleetHand(t)
	f := h.activate(t, "k")
	own, _ := h.op.fleets.get(f.ID)
	for range maxFleets - 1 {
		h.op.fleets.put(newID("flp_"), own)
	}
	_, err := h.client.Fleets.Activate(t.Context(), h.definition(), stack.FleetActivateParams{IdempotencyKey: "one too many"})
	require.ErrorIs(t, err, stack.ErrFleetLimitExceeded)
}

// A start is read strictly, and whatever is accepted says the same when it is written again.
func FuzzStartBody(f *testing.F) {
	for _, body := range []string{`{}`, `{"agent_id":"agt_1","mission":{"intent_summary":"x","expires_in_seconds":60}}`,
		`{"fleet_policy_id":"flp_1","agent_id":"agt_1","idempotency_key":"k","intent_summary":"x","limits":{"max_actions":1}}`,
		`{"fleet_policy_id":"flp_1","agent_id":"agt_1","mission":{"intent_summary":"x"}}`,
		`{"agent_id":"agt_1","mission":{"intent_summary":"x","fleet_policy_id":"flp_1"},"passport":null}`,
		`{"fleet_policy_id":"flp_1","agent_id":"a","requested_operations":[{"name":"o"}],"requested_access":[],"mission":null}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		read := func(data []byte) (stack.MissionStartParams, error) {
			var b startBody
			if err := decodeStrict(data, &b); err != nil {
				return stack.MissionStartParams{}, err
			}
			p, _, err := b.read()
			return p, err
		}
		p, err := read(data)
		if err != nil {
			var refusal *apiError
			require.True(t, errors.As(err, &refusal))
			assert.Equal(t, http.StatusBadRequest, refusal.status)
			return
		}
		written, err := json.Marshal(p)
		require.NoError(t, err)
		again, err := read(written)
		require.NoError(t, err, string(written))
		rewritten, err := json.Marshal(again)
		require.NoError(t, err)
		assert.JSONEq(t, string(written), string(rewritten))
	})
}

// The digest of a call depends on what it says, not on how it is written.
func FuzzRequestDigest(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":[2,{"c":null}]}`))
	f.Add([]byte(`{"n":12345678901234567890}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var content map[string]any
		if json.Unmarshal(data, &content) != nil {
			return
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://mock.test/v1/x?a=1", nil)
		require.NoError(t, err)
		one, err := requestDigest(req, data)
		require.NoError(t, err)
		two, err := requestDigest(req, append([]byte(" "), data...))
		require.NoError(t, err)
		assert.Equal(t, one, two)
		req.Header.Set("If-Match", "1")
		three, err := requestDigest(req, data)
		require.NoError(t, err)
		assert.NotEqual(t, one, three)
	})
}
