package stacktest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestFleetIsReadyToWork(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	fleet := srv.Fleet(t, stack.FleetDefinition{Name: "Support"})
	assert.Equal(t, stack.FleetActive, fleet.Status)
	first, second := srv.FleetMember(t, fleet.ID), srv.FleetMember(t, fleet.ID)
	assert.NotEqual(t, first.AgentID, second.AgentID)
	_, err := srv.Client().Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x", AgentID: first.AgentID,
		FleetPolicyID: fleet.ID})
	require.NoError(t, err)
}

func TestFleetFailsTheTest(t *testing.T) {
	t.Parallel()
	for says, do := range map[string]func(*stacktest.Server, stacktest.TB){
		"activating the fleet":     func(s *stacktest.Server, tb stacktest.TB) { s.Fleet(tb, stack.FleetDefinition{}) },
		"asking to join the fleet": func(s *stacktest.Server, tb stacktest.TB) { s.FleetMember(tb, "flp_x") },
		"joining the fleet": func(s *stacktest.Server, tb stacktest.TB) {
			fleet := s.Fleet(tb, stack.FleetDefinition{Name: "Small", Members: stack.FleetMembers{Max: 1}})
			s.FleetMember(tb, fleet.ID)
			s.FleetMember(tb, fleet.ID)
		},
	} {
		failures := try(t, func(tb stacktest.TB) { do(stacktest.New(tb), tb) })
		require.Len(t, failures, 1)
		assert.Contains(t, failures[0], says)
	}
}
