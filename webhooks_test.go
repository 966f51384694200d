package stack_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

const webhookBody = `{"id":"ndel_1","type":"passport.revoked","severity":"warning","operator_id":"op_1","message":"m",` +
	`"created_at":"2026-03-01T12:00:00Z","data":{"reason":"x"},"new_field":1}`

var webhookSecret = stack.NewSecret("whsec_test")

// hook is a webhook that keeps what it takes, and fails the test on a signature that is not good.
type hook struct {
	t      *testing.T
	answer func(n int) int // the status of the n-th answer, from 1; nil is 204

	mu     sync.Mutex
	secret stack.Secret
	events []stack.WebhookEvent
	bodies []string
	at     []time.Time
	got    []http.Header
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	_, err := body.ReadFrom(r.Body)
	assert.NoError(h.t, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	event, err := stack.VerifyWebhook(r.Header, body.Bytes(), h.secret, time.Second)
	if !assert.NoError(h.t, err) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	h.events, h.bodies, h.at, h.got = append(h.events, *event), append(h.bodies, body.String()), append(h.at, time.Now()), append(h.got, r.Header.Clone())
	status := http.StatusNoContent
	if h.answer != nil {
		status = h.answer(len(h.events))
	}
	if status == http.StatusFound {
		w.Header().Set("Location", "https://hooks.example/elsewhere")
	}
	w.WriteHeader(status)
}

// types lists what came, but for verifications.
func (h *hook) types() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := []string{}
	for _, e := range h.events {
		if e.Type != stack.EventVerification {
			list = append(list, string(e.Type))
		}
	}
	return list
}

// addHook adds a webhook destination with a receiver, and verifies it. The codes do not count as received.
func addHook(t *testing.T, srv *stacktest.Server, host string) (*stack.Destination, *hook) {
	t.Helper()
	client := srv.Client()
	d, err := client.DeliveryMethods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelWebhook,
		Destination: "https://" + host + "/in"})
	require.NoError(t, err)
	h := &hook{t: t, secret: d.WebhookSecret}
	srv.Upstream(host, h)
	_, err = client.DeliveryMethods.SendVerificationCode(t.Context(), d.ID, stack.DestinationParams{})
	require.NoError(t, err)
	verified, err := client.DeliveryMethods.Verify(t.Context(), d.ID, srv.VerificationCode(d.ID), stack.DestinationParams{})
	require.NoError(t, err)
	require.True(t, verified.Verified)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events, h.bodies, h.at, h.got = nil, nil, nil, nil
	return d, h
}

// signHook signs a body as a server does, by the description of the format.
func signHook(secret string, at time.Time, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

func signed(value string) http.Header { return http.Header{stack.HeaderWebhookSignature: {value}} }

func TestVerifyWebhook(t *testing.T) {
	t.Parallel()
	good := signHook("whsec_test", time.Now(), webhookBody)
	_, mac, _ := strings.Cut(good, ",")
	stamp, _, _ := strings.Cut(good, ",")
	for name, value := range map[string]string{
		"as it is sent":      good,
		"spaces":             stamp + ", " + mac,
		"the other way":      mac + "," + stamp,
		"an unknown part":    "v0=abc," + good + ",v2=x",
		"a second signature": stamp + ",v1=" + strings.Repeat("00", 32) + "," + mac,
	} {
		event, err := stack.VerifyWebhook(signed(value), []byte(webhookBody), webhookSecret, 0)
		require.NoError(t, err, name)
		assert.Equal(t, &stack.WebhookEvent{ID: "ndel_1", Type: stack.EventPassportRevoked, Severity: stack.SeverityWarning,
			OperatorID: "op_1", Message: "m", CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Data: []byte(`{"reason":"x"}`)}, event)
	}
}

func TestVerifyWebhookRefuses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good := signHook("whsec_test", now, webhookBody)
	stamp, mac, _ := strings.Cut(good, ",")
	for name, tt := range map[string]struct {
		header http.Header
		body   string
		reason string
	}{
		"no header":         {http.Header{}, webhookBody, "0 times"},
		"two headers":       {http.Header{stack.HeaderWebhookSignature: {good, good}}, webhookBody, "2 times"},
		"an empty header":   {signed(""), webhookBody, "must have t and v1"},
		"no time":           {signed(mac), webhookBody, "must have t and v1"},
		"no signature":      {signed(stamp), webhookBody, "must have t and v1"},
		"two times":         {signed(stamp + "," + good), webhookBody, "no single time"},
		"a signed time":     {signed("t=+1," + mac), webhookBody, "no single time"},
		"a padded time":     {signed("t=01," + mac), webhookBody, "no single time"},
		"a huge time":       {signed("t=99999999999999," + mac), webhookBody, "no single time"},
		"a negative time":   {signed("t=-1," + mac), webhookBody, "no single time"},
		"no hex":            {signed(stamp + ",v1=zz"), webhookBody, "no HMAC-SHA256"},
		"a short signature": {signed(good[:len(good)-2]), webhookBody, "no HMAC-SHA256"},
		"too many":          {signed(good + strings.Repeat(","+mac, 8)), webhookBody, "too many"},
		"a long header":     {signed(good + "," + strings.Repeat("x", 1024)), webhookBody, "more than 1024"},
		"another body":      {signed(good), webhookBody + " ", "no signature fits"},
		"another secret":    {signed(signHook("whsec_other", now, webhookBody)), webhookBody, "no signature fits"},
		"another time":      {signed(fmt.Sprintf("t=%d,%s", now.Unix()+1, mac)), webhookBody, "no signature fits"},
		"no event":          {signed(signHook("whsec_test", now, "[]")), "[]", "no event"},
	} {
		event, err := stack.VerifyWebhook(tt.header, []byte(tt.body), webhookSecret, 0)
		require.ErrorIs(t, err, stack.ErrWebhookSignature, name)
		require.ErrorContains(t, err, tt.reason, name)
		assert.NotContains(t, err.Error(), "whsec_", name)
		assert.Nil(t, event, name)
	}
	_, err := stack.VerifyWebhook(signed(good), []byte(webhookBody), stack.Secret{}, 0)
	requireParam(t, err, "secret")
	_, err = stack.VerifyWebhook(signed(good), []byte(webhookBody), webhookSecret, -time.Second)
	requireParam(t, err, "tolerance")
}

// The replay window is as wide in both directions, to the second.
func TestVerifyWebhookWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tolerance := range []time.Duration{0, time.Minute} {
			width := tolerance
			if width == 0 {
				width = stack.DefaultWebhookTolerance
			}
			for _, age := range []time.Duration{0, width, -width, width + time.Second, -width - time.Second, 24 * time.Hour} {
				header := signed(signHook("whsec_test", time.Now().Add(-age), webhookBody))
				_, err := stack.VerifyWebhook(header, []byte(webhookBody), webhookSecret, tolerance)
				if age <= width && age >= -width {
					require.NoError(t, err, age)
				} else {
					require.ErrorIs(t, err, stack.ErrWebhookSignature, age)
					require.ErrorContains(t, err, "the tolerance is", age)
				}
			}
		}
	})
}

// No header gets past without a signature made with the secret, and none panics.
func FuzzVerifyWebhook(f *testing.F) {
	now := time.Now()
	f.Add("t=1,v1=00", []byte("{}"))
	f.Add(signHook("whsec_other", now, webhookBody), []byte(webhookBody))
	f.Add("t=,v1=,=,,t=1", []byte(""))
	f.Fuzz(func(t *testing.T, value string, body []byte) {
		if _, err := stack.VerifyWebhook(signed(value), body, webhookSecret, 0); err == nil {
			t.Fatalf("%q was taken", value)
		}
		// A body that is signed comes back as an event, or is refused for what it is.
		event, err := stack.VerifyWebhook(signed(signHook("whsec_test", now, string(body))), body, webhookSecret, 24*time.Hour)
		if (event == nil) == (err == nil) {
			t.Fatalf("event %v, error %v", event, err)
		}
		if err != nil && !bytes.Contains([]byte(err.Error()), []byte("no event")) {
			t.Fatal(err)
		}
	})
}

func BenchmarkVerifyWebhook(b *testing.B) {
	b.ReportAllocs()
	header := signed(signHook("whsec_test", time.Now(), webhookBody))
	body := []byte(webhookBody)
	for b.Loop() {
		if _, err := stack.VerifyWebhook(header, body, webhookSecret, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}
