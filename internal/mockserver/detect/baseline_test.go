package detect_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/getstack-go/stack/internal/mockserver/detect"
)

func baseline(actions ...int) (b detect.Baseline) {
	for _, n := range actions {
		b.Add(n)
	}
	return b
}

func TestBaselineUnusual(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		history []int
		actions int
		want    bool
	}{
		"no history":                     {nil, 1_000_000, false},
		"four earlier checkouts":         {[]int{1, 1, 1, 1}, 1_000_000, false},
		"five earlier checkouts":         {[]int{1, 1, 1, 1, 1}, 1_000_000, true},
		"constant history, one more":     {[]int{10, 10, 10, 10, 10}, 11, false},
		"constant history, at the floor": {[]int{16, 16, 16, 16, 16}, 28, false}, // 16 + 3·√16
		"constant history, above it":     {[]int{16, 16, 16, 16, 16}, 29, true},
		"idle history, at the floor":     {[]int{0, 0, 0, 0, 0}, 3, false},
		"idle history, above it":         {[]int{0, 0, 0, 0, 0}, 4, true},
		"wide history, inside":           {[]int{0, 40, 0, 40, 20}, 80, false}, // 20 + 3·20
		"wide history, above":            {[]int{0, 40, 0, 40, 20}, 81, true},
		"far below is not unusual":       {[]int{100, 100, 100, 100, 100}, 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, baseline(tt.history...).Unusual(tt.actions))
		})
	}
}

func TestBaselineIsMeanAndDeviation(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		n := 2 + random.IntN(98)
		history := make([]int, n)
		sum := 0.0
		for i := range history {
			history[i] = random.IntN(1000)
			sum += float64(history[i])
		}
		mean, squares := sum/float64(n), 0.0
		for _, x := range history {
			squares += (float64(x) - mean) * (float64(x) - mean)
		}
		b := baseline(history...)
		assert.InDelta(t, mean, b.Mean(), 1e-6)
		assert.InDelta(t, max(1, math.Sqrt(mean), math.Sqrt(squares/float64(n-1))), b.Deviation(), 1e-6)
	}
}

func TestBaselineRolls(t *testing.T) {
	t.Parallel()
	var b detect.Baseline
	for range 10_000 {
		b.Add(10)
	}
	assert.True(t, b.Unusual(1000))
	for range 1000 {
		b.Add(1000)
	}
	assert.InDelta(t, 1000, b.Mean(), 1, "the old habit has faded")
	assert.False(t, b.Unusual(1000))
	assert.False(t, b.Unusual(1001))
	assert.True(t, b.Unusual(1200))
}
