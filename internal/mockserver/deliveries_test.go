package mockserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

// hooked makes a server whose first operator has a verified webhook that wants everything, served by handler.
func hooked(t *testing.T, handler http.HandlerFunc) (*Server, *operator, *stack.Client, *destination) {
	t.Helper()
	s, op, client := newDirect(t)
	t.Cleanup(s.Close)
	require.NoError(t, s.MapUpstream("hooks.example", forward.Target{Handler: handler}))
	ch, err := client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelWebhook,
		Destination: "https://hooks.example/in", MinSeverity: stack.SeverityInfo})
	require.NoError(t, err)
	op.mu.Lock()
	defer op.mu.Unlock()
	d, ok := op.destinations.get(ch.DestinationID)
	require.True(t, ok)
	d.Verified = true
	return s, op, client, d
}

// tellTimes notifies n times at once.
func (op *operator) tellTimes(n int) {
	op.mu.Lock()
	defer op.mu.Unlock()
	for range n {
		op.tell(op.server.clock.now(), stack.EventAgentBlocked, "Test.", map[string]any{})
	}
}

// However much happens, no more than so many deliveries wait, are sent at a time, and are remembered.
func TestDeliveriesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most, hits atomic.Int32
		var fail atomic.Bool
		s, op, _, _ := hooked(t, func(w http.ResponseWriter, _ *http.Request) {
			hits.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			if fail.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		op.tellTimes(maxWaiting + 5)
		list := s.Deliveries()
		require.Len(t, list, maxWaiting+5)
		assert.EqualValues(t, maxWaiting, hits.Load())
		assert.EqualValues(t, maxSenders, most.Load())
		for i, d := range list {
			want := DeliveryDelivered
			if i >= maxWaiting {
				want = DeliveryDead
				assert.Equal(t, "1000 deliveries are waiting already", d.Error)
				assert.Empty(t, d.Attempts)
			}
			require.Equal(t, want, d.Status, i)
		}

		op.tellTimes(3)
		list = s.Deliveries()
		assert.Len(t, list, maxFinished+5, "the oldest that were delivered are forgotten")
		assert.Equal(t, maxWaiting-3, func() int {
			n := 0
			for _, d := range list[:maxWaiting] {
				if d.Status == DeliveryDelivered {
					n++
				}
			}
			return n
		}())

		fail.Store(true)
		for range 2 {
			op.tellTimes(maxWaiting)
			s.Advance(3 * time.Hour)
		}
		dead := 0
		for _, d := range s.Deliveries() {
			if d.Status == DeliveryDead {
				dead++
			}
		}
		assert.Equal(t, maxFinished, dead)
	})
}

func TestOutboxIsBounded(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	t.Cleanup(s.Close)
	_, err := client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelEmail, Destination: OperatorEmail})
	require.NoError(t, err)
	op.tellTimes(maxFinished + 7)
	assert.Len(t, s.Outbox(), maxFinished)
}

// What waits for a destination that is deleted is given up when its time comes.
func TestDeletedDestinationGetsNothing(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	s, op, client, d := hooked(t, func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
	op.tellTimes(1)
	require.Len(t, s.Deliveries(), 1)
	channels, err := client.Notifications.List(t.Context())
	require.NoError(t, err)
	_, err = client.Notifications.Delete(t.Context(), channels[0].ID)
	require.NoError(t, err)
	_, err = client.DeliveryMethods.Delete(t.Context(), d.ID, stack.DestinationParams{})
	require.NoError(t, err)
	s.Advance(time.Minute)
	list := s.Deliveries()
	require.Len(t, list, 1)
	assert.Equal(t, []any{DeliveryDead, "the destination was deleted", 1}, []any{list[0].Status, list[0].Error, len(list[0].Attempts)})
	assert.EqualValues(t, 1, hits.Load())
}

// A secret that cannot be opened sends nothing unsigned.
func TestWebhookSecretIsSealed(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	s, op, client, d := hooked(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	secret, err := s.secretOf(d)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(secret.Reveal(), "whsec_"))
	assert.NotContains(t, fmt.Sprintf("%+v %s", d, d.sealed), secret.Reveal())
	op.mu.Lock()
	d.sealed = vault.Sealed{}
	op.mu.Unlock()
	op.tellTimes(1)
	list := s.Deliveries()
	require.Len(t, list, 1)
	assert.Equal(t, []any{DeliveryDead, "the destination's secret cannot be opened"}, []any{list[0].Status, list[0].Error})
	_, err = client.DeliveryMethods.Test(t.Context(), d.ID, stack.DestinationParams{})
	var refused *stack.Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "INTERNAL", refused.Code)
	assert.Zero(t, hits.Load())
}

// Another operator's destinations and channels are as if there were none, and its events are nobody else's.
func TestNotificationsOfAnotherOperator(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	s, _, client, d := hooked(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	other, stranger := newStranger(t, s)
	channels, err := client.Notifications.List(t.Context())
	require.NoError(t, err)
	id, ctx, none := channels[0].ID, t.Context(), stack.DestinationParams{}
	for name, err := range map[string]error{
		"channel update":    failure(stranger.Notifications.Update(ctx, id, stack.ChannelUpdateParams{})),
		"channel delete":    failure(stranger.Notifications.Delete(ctx, id)),
		"channel send-code": failure(stranger.Notifications.SendVerificationCode(ctx, id)),
		"channel verify":    failure(stranger.Notifications.Verify(ctx, id, "123456")),
		"channel test":      failure(stranger.Notifications.Test(ctx, id)),
		"delete":            failure(stranger.DeliveryMethods.Delete(ctx, d.ID, none)),
		"rotate-secret":     failure(stranger.DeliveryMethods.RotateSecret(ctx, d.ID, none)),
		"send-code":         failure(stranger.DeliveryMethods.SendVerificationCode(ctx, d.ID, none)),
		"verify":            failure(stranger.DeliveryMethods.Verify(ctx, d.ID, "123456", none)),
		"test":              failure(stranger.DeliveryMethods.Test(ctx, d.ID, none)),
		"channel create": failure(stranger.Notifications.Create(ctx, stack.ChannelCreateParams{ChannelType: stack.ChannelWebhook,
			Destination: d.ID})),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	list, err := stranger.DeliveryMethods.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, list)
	theirs, err := stranger.Notifications.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, theirs)
	other.tellTimes(1)
	s.Advance(0)
	assert.Zero(t, hits.Load())
	_, err = stranger.DeliveryMethods.Add(ctx, stack.DestinationAddParams{ChannelType: stack.ChannelWebhook, Destination: d.Destination.Destination})
	require.NoError(t, err, "two operators may have the same address")
}

// Real dialling is bound to public addresses, for alerts as for proxied calls.
func TestWebhookOnLoopbackIsNotDialled(t *testing.T) {
	t.Parallel()
	s := New(Options{AllowDial: true})
	t.Cleanup(s.Close)
	client, err := stack.New(stack.WithAPIKey(s.Credentials().APIKey), stack.WithBaseURL("http://mock.test"),
		stack.WithHTTPClient(&http.Client{Transport: direct{s}}))
	require.NoError(t, err)
	for _, address := range []string{"http://127.0.0.1:1/in", "http://169.254.169.254/latest", "http://[::1]:1/in"} {
		d, err := client.DeliveryMethods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelWebhook, Destination: address})
		require.NoError(t, err)
		_, err = client.DeliveryMethods.SendVerificationCode(t.Context(), d.ID, stack.DestinationParams{})
		require.ErrorIs(t, err, stack.ErrDeliveryFailed)
		require.ErrorContains(t, err, "only public addresses are called")
	}
}

// Events, changes, looks and moves of the clock at once.
func TestNotificationsConcurrently(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	s, op, client, d := hooked(t, func(w http.ResponseWriter, _ *http.Request) {
		if hits.Add(1)%3 == 0 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				op.tellTimes(2)
				switch i % 4 {
				case 0:
					s.Advance(15 * time.Second)
				case 1:
					s.Deliveries()
				case 2:
					_, err := client.DeliveryMethods.RotateSecret(t.Context(), d.ID, stack.DestinationParams{})
					assert.NoError(t, err)
				case 3:
					_, err := client.DeliveryMethods.Test(t.Context(), d.ID, stack.DestinationParams{})
					assert.NoError(t, err)
				}
			}
		})
	}
	wg.Wait()
	s.Advance(3 * time.Hour)
	list := s.Deliveries()
	assert.Len(t, list, 160)
	ids := map[string]bool{}
	for _, d := range list {
		ids[d.Event.ID] = true
		assert.NotEqual(t, DeliveryWaiting, d.Status)
	}
	assert.Len(t, ids, 160)
	require.True(t, s.VerifyAudit().Valid)
}

// The catalogue of the SDK is the one that filters are held against.
func TestEventCatalogue(t *testing.T) {
	t.Parallel()
	names := make([]string, len(eventNames))
	for i, n := range eventNames {
		names[i] = string(n)
	}
	assert.Equal(t, strings.Fields(`agent agent.blocked connection connection.reauth_required dropoff dropoff.expired governance governance.approval_requested
		intent intent.approval_requested mission mission.revoked passport passport.revoked review review.blocked review.flagged security_event
		security_event.auth_failure_burst security_event.checkpoint_silence security_event.constraint_violation
		security_event.credential_burst security_event.credential_outside_scope security_event.data_flow_violation
		security_event.delegation_violation security_event.expired_passport_use security_event.mission_cap_exceeded
		security_event.post_checkout_access security_event.prompt_injection security_event.revoked_passport_use
		security_event.scope_drift`), names)
}

// The control route shows another process what it cannot receive.
func TestControlNotifications(t *testing.T) {
	t.Parallel()
	s := New(Options{Control: true})
	t.Cleanup(s.Close)
	look := func() (out struct {
		Messages   []map[string]any `json:"messages"`
		Deliveries []map[string]any `json:"deliveries"`
	}) {
		rec, answer := ask(t, s, "GET", "/_mock/notifications", "", func(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost" })
		require.Equal(t, http.StatusOK, rec.Code, answer)
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &out))
		require.NotNil(t, out.Messages)
		require.NotNil(t, out.Deliveries)
		return out
	}
	assert.Empty(t, look().Messages)
	client, err := stack.New(stack.WithAPIKey(s.Credentials().APIKey), stack.WithBaseURL("http://mock.test"),
		stack.WithHTTPClient(&http.Client{Transport: direct{s}}))
	require.NoError(t, err)
	ch, err := client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelEmail, Destination: "ada@example.com"})
	require.NoError(t, err)
	_, err = client.Notifications.SendVerificationCode(t.Context(), ch.ID)
	require.NoError(t, err)
	message := look().Messages[0]
	assert.Equal(t, s.VerificationCode(ch.DestinationID), message["code"])
	assert.Equal(t, "ada@example.com", message["to"])
}

// An event that nobody wants costs next to nothing.
func BenchmarkTellNobody(b *testing.B) {
	b.ReportAllocs()
	op := newOperator(New(Options{}), newID("op_"))
	now, data := time.Now(), map[string]any{}
	for b.Loop() {
		op.tell(now, stack.EventAgentBlocked, "Test.", data)
	}
}
