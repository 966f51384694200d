package mockserver

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A day is the same for the same seed, however the routes' calls mix; one call in five goes wrong, in all the ways there are,
// and no more than two of a route in a row.
func TestBadDay(t *testing.T) {
	t.Parallel()
	const calls = 5_000
	routes := [][2]string{{"GET", "/v1/agents"}, {"POST", "/v1/agents"}, {"POST", upstreamPath + "slack.com"}}
	one := func(d *badDay, route [2]string) string {
		run := d.next(route[0], route[1])
		if run == nil {
			return ""
		}
		return fmt.Sprintf("%+v", run.fault)
	}
	seed, other := uint64(7), uint64(8)
	days := map[[2]string][]string{}
	day := newBadDay(&seed)
	for _, route := range routes {
		inARow := 0
		for range calls {
			run := day.next(route[0], route[1])
			if run == nil {
				days[route] = append(days[route], "")
				inARow = 0
				continue
			}
			inARow++
			require.LessOrEqual(t, inARow, badInARow)
			require.NoError(t, New(Options{}).checkFault(Fault{Path: "/v1/agents", Delay: run.fault.Delay, Status: run.fault.Status,
				RetryAfter: run.fault.RetryAfter, Code: run.fault.Code, Close: run.fault.Close, TruncateBytes: run.fault.TruncateBytes}))
			days[route] = append(days[route], fmt.Sprintf("%+v", run.fault))
		}
	}
	statuses, kinds := map[int]int{}, map[string]int{}
	day, wrong := newBadDay(&seed), 0
	for range calls {
		run := day.next("GET", "/v1/agents")
		if run == nil {
			continue
		}
		wrong++
		switch f := run.fault; {
		case f.Status != 0:
			statuses[f.Status]++
		case f.Close != CloseNever:
			kinds[string(f.Close)]++
		case f.Delay == hang:
			kinds["hang"]++
		case f.Delay != 0:
			kinds["late"]++
		case f.TruncateBytes != 0:
			kinds["cut"]++
		}
	}
	assert.InDelta(t, calls/5, wrong, calls/50)
	assert.Len(t, statuses, 5, statuses)
	assert.Len(t, kinds, 5, kinds)

	mixed, position := newBadDay(&seed), map[[2]string]int{}
	for range calls {
		route := routes[rand.IntN(len(routes))] //nolint:gosec // any order will do
		require.Equal(t, days[route][position[route]], one(mixed, route))
		position[route]++
	}
	differs := false
	for i, elsewhere := 0, newBadDay(&other); i < calls; i++ {
		differs = differs || one(elsewhere, routes[0]) != days[routes[0]][i]
	}
	assert.True(t, differs)
	assert.NotEqual(t, days[routes[0]], days[routes[1]], "each route has a day of its own")
}

// Made-up hosts do not fill the memory.
func TestBadDayIsBounded(t *testing.T) {
	t.Parallel()
	seed := uint64(1)
	day, wrong := newBadDay(&seed), 0
	for i := range 3 * maxBadDays {
		if day.next("GET", fmt.Sprint(upstreamPath, i)) != nil {
			wrong++
		}
	}
	assert.LessOrEqual(t, len(day.routes), maxBadDays+1)
	assert.InDelta(t, 3*maxBadDays/5, wrong, maxBadDays/10)
}
