package detect

import (
	"fmt"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

const (
	credentialWindow = 30 * time.Second
	maxReads         = 10 // raw credential reads in a window; one more is a burst
	maxCalls         = 60 // proxied calls in a window; one more is a burst
	criticalFactor   = 3

	authWindow   = 60 * time.Second
	authFailures = 20
)

// Burst watches how often one passport uses credentials: more than 10 raw reads, or more than 60 proxied calls, within 30
// seconds is a credential_burst warning, more than three times as many a critical one. Each level fires when it is reached
// and again only after a use has found the window below it. A use leaves the window when it is 30 seconds old.
// The zero value is ready; it holds at most 212 times.
type Burst struct {
	reads, calls window
}

// CredentialRead notes a raw credential read at now.
func (b *Burst) CredentialRead(now time.Time) *Finding {
	return credentialBurst(&b.reads, now, maxReads, "credential_read", "raw credential reads")
}

// ProxiedCall notes a proxied call at now.
func (b *Burst) ProxiedCall(now time.Time) *Finding {
	return credentialBurst(&b.calls, now, maxCalls, "proxied_call", "proxied calls")
}

// PredictProxiedCall answers what ProxiedCall would, without noting the call.
func (b *Burst) PredictProxiedCall(now time.Time) *Finding {
	trial := Burst{calls: b.calls}
	trial.calls.ring = slices.Clone(b.calls.ring)
	return trial.ProxiedCall(now)
}

func credentialBurst(w *window, now time.Time, limit int, source, plural string) *Finding {
	count, reached := w.add(now, credentialWindow, limit+1, criticalFactor*limit+1)
	if !reached {
		return nil
	}
	severity := stack.SeverityWarning
	if count > criticalFactor*limit {
		severity = stack.SeverityCritical
	}
	seconds := int(credentialWindow.Seconds())
	return &Finding{
		Signal:   CredentialBurst,
		Severity: severity,
		Message:  fmt.Sprintf("%d %s by one passport within %d seconds.", count, plural, seconds),
		Detail:   fmt.Sprintf("%d_%s_in_%ds", count, source, seconds),
		Metadata: map[string]any{"credential_count": count, "time_window_seconds": seconds, "source": source},
	}
}

// FailureBurst watches the failed authentications against one operator: 20 within 60 seconds is an auth_failure_burst
// warning. It fires as [Burst] does. The zero value is ready; it holds at most 20 times.
type FailureBurst struct {
	failures window
}

// Observe notes a failed authentication at now.
func (b *FailureBurst) Observe(now time.Time) *Finding {
	count, reached := b.failures.add(now, authWindow, authFailures)
	if !reached {
		return nil
	}
	seconds := int(authWindow.Seconds())
	return &Finding{
		Signal:   AuthFailureBurst,
		Severity: AuthFailureBurst.Severity(""),
		Message:  fmt.Sprintf("%d failed authentications for one operator within %d seconds.", count, seconds),
		Detail:   fmt.Sprintf("%d_failures_in_%ds", count, seconds),
		Metadata: map[string]any{"failure_count": count, "time_window_seconds": seconds},
	}
}

// window counts events over a sliding time. It keeps only the newest events, as many as the highest level asks for, so its
// count stops there.
type window struct {
	ring        []int64 // Unix nanoseconds, the oldest at head
	head, count int
	level       int // how many levels were reached at the last event
}

// add notes an event and answers the number of events within the length of time that ends now, and whether that number has
// just reached a level it was below at the event before. Levels ascend and are the same on each call. A time before the
// last event's counts as that event's.
func (w *window) add(now time.Time, length time.Duration, levels ...int) (count int, reached bool) {
	if w.ring == nil {
		w.ring = make([]int64, levels[len(levels)-1])
	}
	at := now.UnixNano()
	if w.count > 0 {
		at = max(at, w.ring[(w.head+w.count-1)%len(w.ring)])
	}
	for w.count > 0 && (w.count == len(w.ring) || at-w.ring[w.head] >= int64(length)) {
		w.head = (w.head + 1) % len(w.ring)
		w.count--
	}
	w.ring[(w.head+w.count)%len(w.ring)] = at
	w.count++

	before := w.level
	w.level = 0
	for w.level < len(levels) && w.count >= levels[w.level] {
		w.level++
	}
	return w.count, w.level > before
}
