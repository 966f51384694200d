package mockserver

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

const dropoffCanary = "canary-77aa"

// deposited makes an agent that hands something to itself.
func deposited(t *testing.T, op *operator, client *stack.Client) *dropoff {
	t.Helper()
	agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot"})
	require.NoError(t, err)
	created, err := client.Dropoffs.Create(t.Context(), stack.DropoffCreateParams{FromAgentID: agent.ID, ToAgentID: agent.ID,
		Schema: map[string]any{}})
	require.NoError(t, err)
	_, err = client.Dropoffs.Deposit(t.Context(), created.ID, stack.DropoffDepositParams{AgentID: agent.ID,
		Payload: dropoffCanary})
	require.NoError(t, err)
	d, ok := op.dropoffs.get(created.ID)
	require.True(t, ok)
	return d
}

func TestDropoffIsSealedAndWiped(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, s *Server, client *stack.Client, d *dropoff) error{
		"collected": func(t *testing.T, _ *Server, client *stack.Client, d *dropoff) error {
			return failure(client.Dropoffs.Collect(t.Context(), d.ID, stack.DropoffCollectParams{AgentID: d.ToAgentID}))
		},
		"expired by force": func(t *testing.T, _ *Server, client *stack.Client, d *dropoff) error {
			return failure(client.Dropoffs.Expire(t.Context(), d.ID))
		},
		"expired": func(_ *testing.T, s *Server, _ *stack.Client, _ *dropoff) error {
			s.Advance(time.Hour)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, op, client := newDirect(t)
			d := deposited(t, op, client)
			assert.NotContains(t, fmt.Sprintf("%+v %s", d, d.sealed), dropoffCanary)
			sealed := d.sealed
			plain, err := s.vault.Open(sealed, d.sealContext())
			require.NoError(t, err)
			assert.Equal(t, `"`+dropoffCanary+`"`, string(plain))
			require.NoError(t, end(t, s, client, d))
			assert.Equal(t, vault.Sealed{}, d.sealed)
		})
	}
}

// A payload that does not open is gone, and the drop-off says so; it opens for its own drop-off only.
func TestDropoffThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	first, second := deposited(t, op, client), deposited(t, op, client)
	first.sealed = second.sealed
	collect := func() error {
		return failure(client.Dropoffs.Collect(t.Context(), first.ID, stack.DropoffCollectParams{AgentID: first.ToAgentID}))
	}
	var refused *stack.Error
	require.ErrorAs(t, collect(), &refused)
	assert.Equal(t, []any{http.StatusInternalServerError, "INTERNAL"}, []any{refused.Status, refused.Code})
	assert.Equal(t, stack.DropoffFailed, first.Status)
	assert.Equal(t, vault.Sealed{}, first.sealed)
	for _, err := range []error{collect(), failure(client.Dropoffs.Expire(t.Context(), first.ID))} {
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, []any{http.StatusConflict, "DROPOFF_FAILED"}, []any{refused.Status, refused.Code})
	}
	rows := op.chain.Range(time.Time{}, time.Time{})
	assert.Equal(t, []any{"dropoff.collect", stack.OutcomeBlocked, "DROPOFF_FAILED"},
		[]any{rows[len(rows)-1].Action, rows[len(rows)-1].Outcome, rows[len(rows)-1].ErrorCode})
	assert.Equal(t, []any{stack.OutcomeFailure, "INTERNAL", ""},
		[]any{rows[len(rows)-2].Outcome, rows[len(rows)-2].ErrorCode, rows[len(rows)-2].ErrorMessage})
}
