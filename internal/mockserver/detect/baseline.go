package detect

import "math"

const (
	baselineMin   = 5   // checkouts before anything is called unusual
	baselineMax   = 100 // checkouts that count in full
	baselineSigma = 3
)

// Baseline is an agent's usual number of actions per checkout: a mean and a deviation that follow the agent (Welford's
// method). From the hundredth checkout on each new one weighs a hundredth and older ones fade, so that it takes three
// numbers however long the agent lives. The zero value is an agent without history.
type Baseline struct {
	n        int
	mean, m2 float64
}

// Add notes the number of actions of a checkout. Add it after [Review], which compares with the earlier ones.
func (b *Baseline) Add(actions int) {
	if b.n == baselineMax {
		b.n--
		b.m2 *= float64(baselineMax-1) / baselineMax
	}
	b.n++
	delta := float64(actions) - b.mean
	b.mean += delta / float64(b.n)
	b.m2 += delta * (float64(actions) - b.mean)
}

// Mean is the usual number of actions.
func (b Baseline) Mean() float64 { return b.mean }

// Deviation is the standard deviation of the number of actions, but not less than the square root of the mean nor than 1:
// what chance alone does to a count. Without this floor an agent that has always done 10 things would be reported for
// doing 11.
func (b Baseline) Deviation() float64 {
	floor := max(1, math.Sqrt(b.mean))
	if b.n < 2 {
		return floor
	}
	return max(floor, math.Sqrt(b.m2/float64(b.n-1)))
}

// Unusual reports whether a number of actions lies more than three deviations above the mean. With fewer than 5 earlier
// checkouts nothing is unusual.
func (b Baseline) Unusual(actions int) bool {
	return b.n >= baselineMin && float64(actions) > b.mean+baselineSigma*b.Deviation()
}
