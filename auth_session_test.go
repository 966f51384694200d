package stack_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// A person in the dashboard does what the operator may, for a day, and needs nobody's approval.
func TestSessionToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		_, err := s.client.PIIConfig.Reset(t.Context(), stack.PIIConfigResetParams{})
		require.ErrorIs(t, err, stack.ErrGovernanceApprovalRequired)

		session := s.SessionToken()
		person := s.Client(stack.WithSessionToken(session))
		_, err = person.PIIConfig.Reset(t.Context(), stack.PIIConfigResetParams{})
		require.NoError(t, err)
		_, err = person.SecurityEvents.List(t.Context(), stack.SecurityEventListParams{})
		require.NoError(t, err)

		time.Sleep(24 * time.Hour)
		_, err = person.Agents.List(t.Context())
		require.ErrorIs(t, err, stack.ErrUnauthorized)
		require.ErrorContains(t, err, "the session has expired")

		// Neither is the other: a passport is no session, and a session of another server none of this one.
		other := newStage(t, stack.Enforced)
		_, err = s.Client(stack.WithSessionToken(other.SessionToken())).Agents.List(t.Context())
		require.ErrorIs(t, err, stack.ErrUnauthorized)
		_, err = s.Client(stack.WithSessionToken(other.issue(t).Token)).Agents.List(t.Context())
		require.ErrorIs(t, err, stack.ErrUnauthorized)
	})
	var bad *stack.ParamError
	_, err := stack.New(stack.WithSessionToken(stack.Secret{}))
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "WithSessionToken", bad.Param)
}
