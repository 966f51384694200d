package stack_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// Six hours with a checkpoint every five minutes: the passport lives throughout, and every logged call is in exactly one
// accepted checkpoint.
func TestSixHourMission(t *testing.T) {
	t.Parallel()
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		m := s.open(t, func(p *stack.MissionParams) { p.CheckpointInterval, p.ExpiresIn = 5*time.Minute, 7*time.Hour })
		var logged int
		for range 6 * 60 / 7 {
			time.Sleep(7 * time.Minute)
			m.Log("slack", "POST", fmt.Sprintf("https://slack.com/api/%d", logged))
			logged++
			require.Equal(t, "active", s.Passport(m.JTI()).Passport.Status)
		}
		token, err := m.Token(t.Context())
		require.NoError(t, err)
		v, err := s.client.Passports.Verify(t.Context(), token)
		require.NoError(t, err)
		require.True(t, v.Valid, v.Reason)
		require.True(t, v.Claims.ExpiresAt.After(time.Now()), "the token itself is alive, too")
		require.NoError(t, m.Checkpoint(t.Context()))
		seen := map[string]int{}
		checkpoints := s.Checkpoints(m.JTI())
		for _, cp := range checkpoints {
			for _, call := range cp.ToolCalls {
				seen[call.Target]++
			}
		}
		assert.GreaterOrEqual(t, len(checkpoints), 72)
		assert.Len(t, seen, logged)
		for target, n := range seen {
			assert.Equal(t, 1, n, target)
		}
		m.Close(&err)
		require.NoError(t, err)
	})
	t.Logf("six virtual hours took %s", time.Since(began))
}

// Faults 1 and 2: a failed checkpoint is told and tried again before the deadline.
func TestCheckpointIsRetriedBeforeItsDeadline(t *testing.T) {
	t.Parallel()
	faults := map[string]stacktest.Fault{
		"refused":       {Status: 503},
		"hangs":         {Delay: 30 * time.Second},
		"answer lost":   {Close: stacktest.CloseAfter},
		"never arrived": {Close: stacktest.CloseBefore},
		"cut short":     {TruncateBytes: 5},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var told []error
				s := newStage(t, stack.Enforced)
				m := s.open(t, func(p *stack.MissionParams) {
					p.CheckpointInterval = time.Minute
					p.OnCheckpointError = func(err error) { told = append(told, err) }
				})
				m.Log("slack", "POST", "https://slack.com/1")
				fault.Method, fault.Path = "POST", "/v1/passports/{passport_jti}/checkpoint"
				s.Fault(fault)
				time.Sleep(61 * time.Second)
				synctest.Wait()
				m.Log("slack", "POST", "https://slack.com/2")
				time.Sleep(time.Minute)
				synctest.Wait()
				require.NoError(t, m.Context().Err(), "the passport is alive after its first deadline")
				seen := map[string]int{}
				for _, cp := range s.Checkpoints(m.JTI()) {
					for _, call := range cp.ToolCalls {
						seen[call.Target]++
					}
				}
				assert.Equal(t, map[string]int{"https://slack.com/1": 1, "https://slack.com/2": 1}, seen)
				if fault.Close != stacktest.CloseAfter && fault.TruncateBytes == 0 { // those were found to have arrived
					assert.NotEmpty(t, told)
					assert.NotZero(t, m.Summary().FailedCheckpoints)
				}
				m.Close(nil)
			})
		})
	}
}

// Fault 4: short intervals are kept.
func TestCheckpointsGoOutFiveSecondsEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		began := time.Now()
		m := s.open(t, func(p *stack.MissionParams) { p.CheckpointInterval = time.Minute })
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		var at []time.Duration
		for _, cp := range s.Checkpoints(m.JTI()) {
			at = append(at, cp.CreatedAt.Sub(began))
		}
		assert.Equal(t, []time.Duration{55 * time.Second, 110 * time.Second, 165 * time.Second}, at)
		m.Close(nil)
	})
}

// Fault 5: a call logged while a checkpoint is in flight goes with the next.
func TestCallLoggedDuringACheckpointIsNotLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		m := s.open(t)
		m.Log("slack", "POST", "first")
		s.Fault(stacktest.Fault{Path: "/v1/passports/{passport_jti}/checkpoint", Delay: time.Second})
		done := make(chan error, 1)
		go func() { done <- m.Checkpoint(t.Context()) }()
		time.Sleep(500 * time.Millisecond)
		m.Log("slack", "POST", "second")
		require.NoError(t, <-done)
		require.NoError(t, m.Checkpoint(t.Context()))
		var targets []string
		for _, cp := range s.Checkpoints(m.JTI()) {
			for _, call := range cp.ToolCalls {
				targets = append(targets, call.Target)
			}
		}
		assert.Equal(t, []string{"first", "second"}, targets)
		m.Close(nil)
	})
}

// Faults 7 and 8: closing during a checkpoint waits for it; nothing is sent afterwards.
func TestCloseWaitsForACheckpointInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		m := s.open(t, func(p *stack.MissionParams) { p.CheckpointInterval = time.Minute })
		s.Fault(stacktest.Fault{Path: "/v1/passports/{passport_jti}/checkpoint", Delay: time.Second})
		time.Sleep(55*time.Second + 500*time.Millisecond)
		var err error
		m.Close(&err)
		require.NoError(t, err)
		require.Len(t, s.Checkpoints(m.JTI()), 1)
		assert.False(t, s.Checkpoints(m.JTI())[0].CreatedAt.After(s.Checkout(m.JTI()).SubmittedAt))
		before := s.Requests()
		time.Sleep(10 * time.Minute)
		assert.Equal(t, before, s.Requests())
	})
}

// Fault 17: memory and bodies stay bounded on long runs, and the total is still told.
func TestLongRunStaysBounded(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	m := s.open(t, func(p *stack.MissionParams) { p.CheckpointInterval = time.Hour })
	const calls = 25_000
	for i := range calls {
		m.Log("slack", "POST", fmt.Sprintf("https://slack.com/api/chat.postMessage/%d", i))
	}
	var err error
	m.Close(&err)
	require.NoError(t, err)
	checkout := s.Checkout(m.JTI())
	assert.Equal(t, calls, checkout.ActionsCount)
	seen := map[string]int{}
	for _, cp := range s.Checkpoints(m.JTI()) {
		for _, call := range cp.ToolCalls {
			seen[call.Target]++
		}
	}
	for _, call := range checkout.ToolCalls {
		seen[call.Target] = max(seen[call.Target], 1)
	}
	assert.Len(t, seen, calls, "every call was reported")
}

// The answer of a checkpoint is lost, and so is what the server says of it: its calls go in no other checkpoint until that is
// known, and are not forgotten.
func TestCheckpointIsNotSentTwice(t *testing.T) {
	t.Parallel()
	const checkpoint, report = "/v1/passports/{passport_jti}/checkpoint", "/v1/passports/{passport_jti}/report"
	for name, at := range map[string]stacktest.CloseAt{"taken": stacktest.CloseAfter, "not taken": stacktest.CloseBefore} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged, stack.WithMaxRetries(0))
				m := s.open(t)
				m.Log("slack", "POST", "first")
				s.Fault(stacktest.Fault{Path: checkpoint, Close: at})
				s.Fault(stacktest.Fault{Path: report, Status: 503})
				require.Error(t, m.Checkpoint(t.Context()))
				m.Log("slack", "POST", "second")
				s.Fault(stacktest.Fault{Path: report, Status: 503})
				require.Error(t, m.Checkpoint(t.Context()), "it is still not known")
				assert.Equal(t, 2, m.Summary().Pending)
				require.NoError(t, m.Checkpoint(t.Context()))
				m.Log("slack", "POST", "third")
				require.NoError(t, m.Checkpoint(t.Context()))
				assert.Zero(t, m.Summary().Pending)
				m.Log("slack", "POST", "fourth")
				s.Fault(stacktest.Fault{Path: checkpoint, Close: stacktest.CloseBefore})
				require.Error(t, m.Checkpoint(t.Context()), "this one was not taken, and an earlier one is not taken for it")
				assert.Equal(t, 1, m.Summary().Pending)
				var targets []string
				for _, cp := range s.Checkpoints(m.JTI()) {
					for _, call := range cp.ToolCalls {
						targets = append(targets, call.Target)
					}
				}
				assert.Equal(t, []string{"first", "second", "third"}, targets)
				m.Close(nil)
			})
		})
	}
}

// Where the server does not say whether a checkpoint was taken, its calls are rather told twice than not.
func TestCheckpointIsSentAgainWhereNobodyTells(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged, stack.WithMaxRetries(0))
	m := s.open(t)
	m.Log("slack", "POST", "first")
	s.Fault(stacktest.Fault{Path: "/v1/passports/{passport_jti}/checkpoint", Close: stacktest.CloseAfter})
	s.Fault(stacktest.Fault{Path: "/v1/passports/{passport_jti}/report", Status: 403})
	require.Error(t, m.Checkpoint(t.Context()))
	require.NoError(t, m.Checkpoint(t.Context()))
	assert.Len(t, s.Checkpoints(m.JTI()), 2)
	m.Close(nil)
	assert.Equal(t, 1, s.Checkout(m.JTI()).ActionsCount)
}
