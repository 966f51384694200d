package stack_test

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/getstack-go/stack"
)

// Open Missions cost timers, not goroutines.
//
//nolint:paralleltest // it counts the goroutines of the process
func TestManyMissionsCostNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		s.open(t).Close(nil) // the connections' goroutines are there already
		before := runtime.NumGoroutine()
		missions := make([]*stack.Mission, 200)
		for i := range missions {
			missions[i] = s.open(t)
		}
		assert.Less(t, runtime.NumGoroutine()-before, 10)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for _, m := range missions {
			assert.NoError(t, m.Context().Err())
			m.Close(nil)
			s.RequireCheckedOut(t, m.JTI())
		}
	})
}
