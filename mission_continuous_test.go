package stack_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func goexit() { runtime.Goexit() }

func (s *stage) continuous(change ...func(*stack.ContinuousMissionParams)) stack.ContinuousMissionParams {
	p := stack.ContinuousMissionParams{MissionParams: s.params()}
	p.ExpiresIn = 0
	for _, c := range change {
		c(&p)
	}
	return p
}

// Fault 12: the defaults go together. A rotation after four hours finds the Mission alive.
func TestContinuousMissionRotates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		var jtis []string
		var id string
		for m, err := range s.client.Passports.ContinuousMission(t.Context(), s.continuous()) {
			require.NoError(t, err)
			jtis, id = append(jtis, m.JTI()), m.ID()
			assert.Equal(t, len(jtis)-1, m.Rotation())
			for !m.ShouldRotate() {
				_, err := m.Proxy(m.Context(), post("#support"))
				require.NoError(t, err)
				time.Sleep(20 * time.Minute)
			}
			if len(jtis) == 3 {
				break
			}
		}
		assert.Len(t, jtis, 3)
		assert.NotEqual(t, jtis[0], jtis[1])
		for _, jti := range jtis {
			s.RequireCheckedOut(t, jti)
			assert.Equal(t, 12, s.Checkout(jti).ActionsCount, "each passport accounts for its own calls")
		}
		record, err := s.client.Missions.Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, stack.MissionCompleted, record.Status)
		assert.Equal(t, jtis, record.Passports)
	})
}

// Fault 13: an error in the loop's body is not taken for success.
func TestContinuousMissionFails(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	run := func(s *stage, ctx context.Context, body func(*stack.Mission) error) error {
		for m, err := range s.client.Passports.ContinuousMission(ctx, s.continuous()) {
			if err != nil {
				return err
			}
			return body(m)
		}
		return nil
	}
	t.Run("by saying so", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, stack.Logged)
		var last *stack.Mission
		err := run(s, t.Context(), func(m *stack.Mission) error { last = m; return m.Fail(boom) })
		require.ErrorIs(t, err, boom)
		record, err := s.client.Missions.Get(t.Context(), last.ID())
		require.NoError(t, err)
		assert.Equal(t, stack.MissionRevoked, record.Status)
		assert.Contains(t, record.EndNotes, "boom")
	})
	t.Run("by a panic", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, stack.Logged)
		var last *stack.Mission
		assert.PanicsWithValue(t, "kaboom", func() {
			_ = run(s, t.Context(), func(m *stack.Mission) error { last = m; panic("kaboom") })
		})
		s.RequireCheckedOut(t, last.JTI())
		record, err := s.client.Missions.Get(t.Context(), last.ID())
		require.NoError(t, err)
		assert.Equal(t, stack.MissionRevoked, record.Status)
	})
}

func TestContinuousMissionEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		var errs []error
		turns := 0
		for m, err := range s.client.Passports.ContinuousMission(t.Context(), s.continuous(func(p *stack.ContinuousMissionParams) {
			p.ExpiresIn, p.RotationInterval = 30*time.Minute, time.Hour
		})) {
			if err != nil {
				errs = append(errs, err)
				continue
			}
			turns++
			for !m.ShouldRotate() {
				time.Sleep(time.Minute)
			}
		}
		assert.Equal(t, 1, turns)
		require.Len(t, errs, 1)
		var ended *stack.MissionEndedError
		require.ErrorAs(t, errs[0], &ended)
		assert.Equal(t, stack.MissionExpired, ended.State)
	})
}
