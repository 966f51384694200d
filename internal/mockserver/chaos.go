package mockserver

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const (
	badInARow  = 2                // calls of one route that go wrong one after another, at most
	hang       = 45 * time.Second // is past the timeout of the client, and that of a call to an upstream
	maxBadDays = 1_000            // routes and hosts that are counted by themselves
)

// badDay makes calls go wrong that nobody has asked a fault for: about one in five of each route, and of what the proxy sends
// to each host. What happens to a call follows from the seed, the route and the number of the call alone.
type badDay struct {
	seed   uint64
	routes map[string]*routeDay
}

type routeDay struct {
	calls int // so far
	bad   int // of the latest, in a row
}

func newBadDay(seed *uint64) *badDay {
	if seed == nil {
		return nil
	}
	return &badDay{*seed, map[string]*routeDay{}}
}

// next is what goes wrong with the next call of a route; nil is nothing.
func (d *badDay) next(method, path string) *faultRun {
	name := method + " " + path
	route := d.routes[name]
	if route == nil {
		if len(d.routes) >= maxBadDays { // hosts, of which a caller may make up any number
			name = upstreamPath
		}
		if route = d.routes[name]; route == nil {
			route = &routeDay{}
			d.routes[name] = route
		}
	}
	route.calls++
	//nolint:gosec // it is to be foreseen
	chance := rand.New(rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d %s %d", d.seed, name, route.calls))))
	if route.bad == badInARow || chance.IntN(5) != 0 {
		route.bad = 0
		return nil
	}
	route.bad++
	f := misfortune(chance)
	if f.Status != 0 && strings.HasPrefix(path, upstreamPath) {
		f.Code = "unavailable"
	}
	return &faultRun{f}
}

// misfortune is one of the ways in which calls go wrong, each as likely as another.
func misfortune(chance *rand.Rand) (f Fault) {
	switch chance.IntN(7) {
	case 0:
		f.Status, f.RetryAfter = http.StatusTooManyRequests, time.Duration(1+chance.IntN(3))*time.Second
	case 1:
		f.Status = []int{http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
			http.StatusGatewayTimeout}[chance.IntN(4)]
	case 2:
		f.Delay = 50*time.Millisecond + time.Duration(chance.IntN(5_000))*time.Millisecond
	case 3:
		f.Delay = hang
	case 4:
		f.Close = CloseBefore
	case 5:
		f.Close = CloseAfter
	case 6:
		f.TruncateBytes = 1 + chance.IntN(40)
	}
	return f
}

type calmKey struct{}

// Calm marks the requests of a context as those that a bad day leaves alone.
func Calm(ctx context.Context) context.Context { return context.WithValue(ctx, calmKey{}, true) }

func isCalm(ctx context.Context) bool { return ctx.Value(calmKey{}) != nil }
