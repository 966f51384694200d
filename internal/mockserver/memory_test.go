package mockserver

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestTableMakesRoom(t *testing.T) {
	t.Parallel()
	over := func(v *int) bool { return *v >= 0 }
	var tab table[int]
	for i := range 4 {
		v := i
		if i == 0 {
			v = -1 // it is not over
		}
		tab.makeRoom(3, over)
		tab.put(strconv.Itoa(i), &v)
	}
	assert.Equal(t, []string{"0", "2", "3"}, tab.order, "the oldest that is over has gone")
	assert.Len(t, tab.byID, 3)
	tab.makeRoom(3, func(*int) bool { return false })
	assert.Equal(t, 3, tab.len(), "what is not over stays")
	tab.delete("0")
	tab.delete("3")
	assert.Equal(t, []string{"2"}, tab.order)
}

// What ended first is forgotten when too many Missions have ended, with its passports and their checkouts; one that is open
// stays, however old.
func TestEndedMissionsAreForgotten(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	ctx := t.Context()
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "bot", AccountabilityMode: stack.Standard})
	require.NoError(t, err)
	start := func() *stack.StartedMission {
		m, startErr := client.Missions.Start(ctx, stack.MissionStartParams{AgentID: agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "x"}})
		require.NoError(t, startErr)
		return m
	}
	open, first := start(), start()
	checkout, err := client.Passports.Checkout(ctx, first.Passport.JTI, stack.CheckpointParams{ServicesUsed: []string{}})
	require.NoError(t, err)
	_, err = client.Missions.Complete(ctx, first.MissionID, stack.MissionCompleteParams{})
	require.NoError(t, err)
	op.mu.Lock()
	for range maxEndedMissions - 1 {
		m, openErr := s.open(op, "", stack.MissionOpenParams{IntentSummary: "x"})
		require.NoError(t, openErr)
		op.endMission(s.clock.now(), m, stack.MissionCompleted, "", "")
	}
	op.mu.Unlock()
	_, err = client.Missions.Get(ctx, first.MissionID)
	require.NoError(t, err, "the limit itself is remembered")

	op.mu.Lock()
	m, err := s.open(op, "", stack.MissionOpenParams{IntentSummary: "x"})
	require.NoError(t, err)
	op.endMission(s.clock.now(), m, stack.MissionCompleted, "", "")
	_, known := op.checkouts.get(checkout.CheckoutID)
	assert.False(t, known)
	assert.NotContains(t, op.tokens, first.Passport.Token.Reveal())
	assert.Equal(t, maxEndedMissions+1, op.missions.len())
	op.mu.Unlock()
	_, err = client.Missions.Get(ctx, first.MissionID)
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = client.Passports.Report(ctx, first.Passport.JTI)
	require.ErrorIs(t, err, stack.ErrNotFound)
	got, err := client.Missions.Get(ctx, open.MissionID)
	require.NoError(t, err)
	assert.Equal(t, stack.MissionLive, got.Status)
	s.Advance(24 * time.Hour) // deadlines of what is gone do nothing
	got, err = client.Missions.Get(ctx, open.MissionID)
	require.NoError(t, err)
	assert.Equal(t, stack.MissionExpired, got.Status)
}

// The oldest write is forgotten when there are too many; one that is under way stays.
func TestWritesAreForgotten(t *testing.T) {
	t.Parallel()
	op := newOperator(New(Options{}), newID("op_"))
	begin := func(id string) *operation {
		o := &operation{}
		call := &proxyCall{op: op, operationID: id, operation: o, now: op.server.Now()}
		call.beginOperation()
		return o
	}
	under := begin("under way")
	for i := range maxKnownWrites {
		o := begin(strconv.Itoa(i))
		o.DeliveryState = stack.DeliveryResponseReceived
	}
	assert.Equal(t, maxKnownWrites, op.operations.len())
	kept, ok := op.operations.get("under way")
	assert.True(t, ok)
	assert.Same(t, under, kept)
	_, ok = op.operations.get("0")
	assert.False(t, ok)
	_, ok = op.operations.get("1")
	assert.True(t, ok)
}
