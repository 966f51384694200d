package mockserver

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Whatever the order in which deadlines were set, a sweep fires those that are due in the order of their time, each once,
// with those that firing sets on the way.
func TestSweepFiresInOrder(t *testing.T) {
	t.Parallel()
	op := newOperator(New(Options{}), newID("op_"))
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var fired []time.Duration
	fire := func(at time.Time) { fired = append(fired, at.Sub(began)) }
	for _, minute := range rand.Perm(100) {
		op.due.add(began.Add(time.Duration(minute)*time.Minute), func(at time.Time) {
			fire(at)
			if at.Sub(began) == 10*time.Minute { // such as a Mission whose end revokes what was to expire
				op.due.add(began.Add(30*time.Second), fire) // overdue already
				op.due.add(began.Add(20*time.Minute+time.Second), fire)
				op.due.add(began.Add(70*time.Minute+time.Second), fire)
			}
		})
	}
	op.sweep(began.Add(-time.Nanosecond))
	assert.Empty(t, fired)
	op.sweep(began)
	assert.Equal(t, []time.Duration{0}, fired, "what is due at this very moment is due")
	op.sweep(began.Add(50 * time.Minute))
	assert.Len(t, fired, 51+2)
	assert.Equal(t, 30*time.Second, fired[11], "at once")
	assert.True(t, slices.IsSorted(slices.Delete(slices.Clone(fired), 11, 12)))
	op.sweep(began.Add(50 * time.Minute))
	assert.Len(t, fired, 53, "nothing fires twice")
	op.sweep(began.Add(24 * time.Hour))
	assert.Len(t, fired, 103)
	assert.Equal(t, 99*time.Minute, fired[102])
	assert.Empty(t, op.due.heap)
}

func BenchmarkSweep(b *testing.B) {
	b.ReportAllocs()
	op := newOperator(New(Options{}), newID("op_"))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10_000 {
		op.due.add(now.Add(time.Duration(i)*time.Hour), func(time.Time) {})
	}
	for b.Loop() {
		op.due.add(now, func(time.Time) {})
		op.sweep(now)
	}
}
