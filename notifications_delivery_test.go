package stack_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// A webhook that fails is tried again after 10 s, 40 s, 2 min 40 s, 10 min 40 s and 42 min 40 s: the same body under the same
// id with a new signature. Then it is a dead letter.
func TestDeliveryRetries(t *testing.T) {
	t.Parallel()
	delays := []time.Duration{0, 10 * time.Second, 40 * time.Second, 160 * time.Second, 640 * time.Second, 2560 * time.Second}
	for name, tt := range map[string]struct {
		failing int // answers that are failures
		status  int
	}{
		"recovers at once":  {1, http.StatusInternalServerError},
		"recovers late":     {5, http.StatusServiceUnavailable},
		"a redirect":        {2, http.StatusFound},
		"refuses":           {3, http.StatusBadRequest},
		"never recovers":    {1000, http.StatusInternalServerError},
		"never wants it":    {1000, http.StatusGone},
		"always redirects":  {1000, http.StatusFound},
		"no failure at all": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				d, h := addHook(t, s.Server, "hooks.example")
				addChannel(t, s.client, d, stack.SeverityWarning)
				h.answer = func(n int) int {
					if n <= tt.failing {
						return tt.status
					}
					return http.StatusOK
				}
				_, err := s.client.Passports.Revoke(t.Context(), s.issue(t).JTI, "")
				require.NoError(t, err)
				began := time.Now()
				time.Sleep(2 * time.Hour) // nobody calls the server meanwhile
				synctest.Wait()
				attempts := min(tt.failing+1, len(delays))
				require.Len(t, h.events, attempts)
				due := began
				signatures := map[string]bool{}
				for i := range attempts {
					due = due.Add(delays[i])
					assert.Equal(t, due, h.at[i], "attempt %d", i+1)
					assert.Equal(t, h.bodies[0], h.bodies[i])
					assert.Equal(t, h.events[0].ID, h.got[i].Get(stack.HeaderWebhookDelivery))
					signatures[h.got[i].Get(stack.HeaderWebhookSignature)] = true
				}
				assert.Len(t, signatures, attempts)
				deliveries := s.Deliveries()
				require.Len(t, deliveries, 1)
				got := deliveries[0]
				require.Len(t, got.Attempts, attempts)
				assert.True(t, due.Equal(got.Attempts[attempts-1].At))
				assert.True(t, got.NextAttempt.IsZero())
				if tt.failing < len(delays) {
					assert.Equal(t, stacktest.DeliveryDelivered, got.Status)
					assert.Empty(t, s.DeadLetters())
					return
				}
				assert.Equal(t, deliveries, s.DeadLetters())
				assert.Contains(t, got.Error, fmt.Sprintf("6 attempts failed; the last one: it answered with status %d", tt.status))
				rows := auditOf(t, s.client, "notification.dead_letter")
				require.Len(t, rows, 1)
				assert.Equal(t, []any{stack.OutcomeFailure, got.Event.ID}, []any{rows[0].Outcome, rows[0].TraceID})
				s.RequireAuditIntact(t)
			})
		})
	}
}

// A receiver that does not answer is given 10 s, and the next attempt counts from there. Others do not wait for it, nor does
// who calls the API.
func TestDeliveryTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		d, _ := addHook(t, s.Server, "hooks.example")
		addChannel(t, s.client, d, stack.SeverityWarning)
		other, h := addHook(t, s.Server, "other.example")
		addChannel(t, s.client, other, stack.SeverityWarning)
		began := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		s.Upstream("hooks.example", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			at = append(at, time.Since(began))
			mu.Unlock()
			<-r.Context().Done()
		}))
		_, err := s.client.Passports.Revoke(t.Context(), s.issue(t).JTI, "")
		require.NoError(t, err)
		assert.Equal(t, began, time.Now(), "the call does not wait")
		synctest.Wait()
		assert.Len(t, h.events, 1, "nor does the other receiver")
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		assert.Equal(t, []time.Duration{0, 20 * time.Second}, at)
		mu.Unlock()
		assert.Contains(t, s.Deliveries()[0].Attempts[0].Error, "did not answer in time")
	})
}

// When the clock is moved on, all attempts that fell due have been made when that is done, each as at its own time.
func TestDeliveryWhenTheClockIsMoved(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	d, h := addHook(t, s.Server, "hooks.example")
	addChannel(t, s.client, d, stack.SeverityWarning)
	h.answer = func(int) int { return http.StatusInternalServerError }
	_, err := s.client.Passports.Revoke(t.Context(), s.issue(t).JTI, "")
	require.NoError(t, err)
	s.Advance(0)
	assert.Len(t, h.types(), 1)
	s.Advance(11 * time.Second)
	assert.Len(t, h.types(), 2)
	deliveries := s.Deliveries()
	require.Len(t, deliveries, 1)
	assert.Equal(t, stacktest.DeliveryWaiting, deliveries[0].Status)
	assert.WithinDuration(t, deliveries[0].Attempts[1].At.Add(40*time.Second), deliveries[0].NextAttempt, time.Second)
	s.Advance(2 * time.Hour)
	assert.Len(t, h.types(), 6, "their signatures are fresh: the receiver's clock did not move")
	dead := s.DeadLetters()
	require.Len(t, dead, 1)
	began := dead[0].Attempts[0].At
	assert.WithinDuration(t, began.Add(3410*time.Second), dead[0].Attempts[5].At, 10*time.Second)
}

// People are told of what falls due though nobody calls the server: a checkpoint that did not come revokes the passport.
func TestNotificationOfWhatFallsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		d, h := addHook(t, s.Server, "hooks.example")
		s.issue(t)
		began := time.Now()
		addChannel(t, s.client, d, stack.SeverityWarning, stack.EventSecurity+".checkpoint_silence", stack.EventPassportRevoked)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.ElementsMatch(t, []string{"security_event.checkpoint_silence", "passport.revoked"}, h.types(), "they go out side by side")
		assert.Equal(t, 5*time.Minute, h.at[0].Sub(began).Round(time.Minute))
	})
}

// Closing the server gives up what is under way, and Reset forgets it.
func TestDeliveryEndsWithTheServer(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*stacktest.Server){
		"close": (*stacktest.Server).Close,
		"reset": (*stacktest.Server).Reset,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				d, h := addHook(t, s.Server, "hooks.example")
				addChannel(t, s.client, d, stack.SeverityWarning)
				failing, _ := addHook(t, s.Server, "failing.example")
				addChannel(t, s.client, failing, stack.SeverityWarning)
				s.Fault(stacktest.Fault{Path: "upstream:failing.example", Status: 500, Times: 1000})
				var hung atomic.Int32
				s.Upstream("hooks.example", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					hung.Add(1)
					<-r.Context().Done()
				}))
				_, err := s.client.Passports.Revoke(t.Context(), s.issue(t).JTI, "")
				require.NoError(t, err)
				synctest.Wait()
				require.EqualValues(t, 1, hung.Load())
				began := time.Now()
				end(s.Server)
				assert.Equal(t, began, time.Now(), "it does not wait for the receiver")
				synctest.Wait()
				for _, d := range s.Deliveries() { // none after a reset
					assert.Equal(t, stacktest.DeliveryWaiting, d.Status)
					if d.URL == hookURL {
						assert.Empty(t, d.Attempts, "that it was given up is not the receiver's doing")
					}
				}
				time.Sleep(2 * time.Hour)
				assert.EqualValues(t, 1, hung.Load())
				assert.Empty(t, h.types())
			})
		})
	}
}
