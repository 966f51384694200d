package stack_test

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

const hookURL = "https://hooks.example/in"

func TestDestinationAdd(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind        stack.ChannelType
		sent, kept  string
		verified    bool
		withASecret bool
	}{
		"email":             {kind: stack.ChannelEmail, sent: "Ada@Example.COM", kept: "Ada@example.com"},
		"the operator's":    {kind: stack.ChannelEmail, sent: stacktest.OperatorEmail, kept: stacktest.OperatorEmail, verified: true},
		"the same, shouted": {kind: stack.ChannelEmail, sent: strings.ToUpper(stacktest.OperatorEmail), kept: "OPERATOR@example.com", verified: true},
		"sms":               {kind: stack.ChannelSMS, sent: "+41791234567", kept: "+41791234567"},
		"webhook":           {kind: stack.ChannelWebhook, sent: "HTTPS://Hooks.Example:443/in?x=1#top", kept: "https://hooks.example/in?x=1", withASecret: true},
		"plain http":        {kind: stack.ChannelWebhook, sent: "http://127.0.0.1:9999/in", kept: "http://127.0.0.1:9999/in", withASecret: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := stacktest.New(t)
			client := srv.Client()
			d, err := client.DeliveryMethods.Add(t.Context(), stack.DestinationAddParams{ChannelType: tt.kind, Destination: tt.sent, Label: "on call"})
			require.NoError(t, err)
			assert.Regexp(t, `^ndst_[a-z2-7]{26}$`, d.ID)
			assert.Equal(t, []any{srv.OperatorID(), tt.kind, tt.kept, "on call", tt.verified, tt.verified},
				[]any{d.OperatorID, d.ChannelType, d.Destination, d.Label, d.Verified, !d.VerifiedAt.IsZero()})
			assert.False(t, d.CreatedAt.IsZero())
			if tt.withASecret {
				assert.Regexp(t, `^whsec_[a-z2-7]{52}$`, d.WebhookSecret.Reveal())
			} else {
				assert.True(t, d.WebhookSecret.IsZero())
			}
			list, err := client.DeliveryMethods.List(t.Context())
			require.NoError(t, err)
			d.WebhookSecret = stack.Secret{}
			assert.Equal(t, []stack.Destination{*d}, list, "without the secret")
			rows := auditOf(t, client, "destination.add")
			require.Len(t, rows, 1)
			assert.Equal(t, d.ID, rows[0].TraceID)
			assert.Empty(t, srv.Outbox(), "no code is sent unasked")
		})
	}
}

// The bytes on the wire. (contract: server-api 17)
func TestDestinationOnTheWire(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	const fields = "channel_type created_at destination id operator_id verified webhook_secret"
	added := s.raw(t, "POST", "/v1/notifications/destinations", map[string]any{"channel_type": "email", "destination": "ada@example.com"})
	assert.Equal(t, fields, keys(added))
	assert.Nil(t, added["webhook_secret"])
	added = s.raw(t, "POST", "/v1/notifications/destinations", map[string]any{"channel_type": "webhook", "destination": hookURL})
	assert.Equal(t, fields, keys(added))
	assert.Contains(t, added["webhook_secret"], "whsec_")
	var list []map[string]any
	require.NoError(t, s.client.Do(t.Context(), "GET", "/v1/notifications/destinations", nil, &list))
	require.Len(t, list, 2)
	assert.Nil(t, list[1]["webhook_secret"])

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://stack.mock/v1/notifications/destinations",
		strings.NewReader(`{"channel_type":"sms","destination":"+41791234567"}`))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.APIKey())
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.Transport().RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusCreated, resp.StatusCode)
}

func TestDestinationAddRefuses(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	add := func(kind stack.ChannelType, address, label string) error {
		return failure(client.DeliveryMethods.Add(t.Context(), stack.DestinationAddParams{ChannelType: kind, Destination: address, Label: label}))
	}
	requireParam(t, add("", "ada@example.com", ""), "channel_type")
	requireParam(t, add(stack.ChannelEmail, "", ""), "destination")
	for _, tt := range []struct {
		kind    stack.ChannelType
		address string
		field   string
	}{
		{"pigeon", "ada@example.com", "body.channel_type"},
		{stack.ChannelEmail, "ada", "body.destination"},
		{stack.ChannelEmail, "Ada <ada@example.com>", "body.destination"},
		{stack.ChannelEmail, "ada@example.com\r\nBcc: x@example.com", "body.destination"},
		{stack.ChannelEmail, strings.Repeat("a", 250) + "@example.com", "body.destination"},
		{stack.ChannelSMS, "0791234567", "body.destination"},
		{stack.ChannelSMS, "+41 79 123 45 67", "body.destination"},
		{stack.ChannelSMS, "+0791234567", "body.destination"},
		{stack.ChannelSMS, "+4179123456789012", "body.destination"},
		{stack.ChannelWebhook, "hooks.example/in", "body.destination"},
		{stack.ChannelWebhook, "ftp://hooks.example/in", "body.destination"},
		{stack.ChannelWebhook, "https://user:hush@hooks.example/in", "body.destination"},
		{stack.ChannelWebhook, "https://hooks.example/" + strings.Repeat("x", 2048), "body.destination"},
	} {
		refused := requireRefused(t, add(tt.kind, tt.address, ""), http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, tt.field, refused.Details["field"], tt.address)
		assert.NotContains(t, fmt.Sprintf("%s %v", refused.Message, refused.Details), "hush")
	}
	refused := requireRefused(t, add(stack.ChannelEmail, "ada@example.com", strings.Repeat("x", 65)), http.StatusBadRequest, "INVALID_REQUEST")
	assert.Equal(t, "body.label", refused.Details["field"])

	require.NoError(t, add(stack.ChannelWebhook, hookURL, ""))
	err := add(stack.ChannelWebhook, "https://HOOKS.example:443/in", "again")
	require.ErrorIs(t, err, stack.ErrDestinationExists)
	list, listErr := client.DeliveryMethods.List(t.Context())
	require.NoError(t, listErr)
	require.Len(t, list, 1)
	assert.Equal(t, list[0].ID, requireRefused(t, err, http.StatusConflict, "DESTINATION_EXISTS").Details["destination_id"])

	for i := range 99 {
		require.NoError(t, add(stack.ChannelEmail, fmt.Sprintf("a%d@example.com", i), ""))
	}
	requireRefused(t, add(stack.ChannelEmail, "one-more@example.com", ""), http.StatusForbidden, "TIER_LIMIT_EXCEEDED")
}

// A mailbox is proven by the code in a mail, a phone by the one in an SMS.
func TestDestinationVerifiedByMessage(t *testing.T) {
	t.Parallel()
	for kind, address := range map[stack.ChannelType]string{stack.ChannelEmail: "ada@example.com", stack.ChannelSMS: "+41791234567"} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			srv := stacktest.New(t)
			methods := srv.Client().DeliveryMethods
			d, err := methods.Add(t.Context(), stack.DestinationAddParams{ChannelType: kind, Destination: address})
			require.NoError(t, err)
			assert.Empty(t, srv.VerificationCode(d.ID))
			_, err = methods.Verify(t.Context(), d.ID, "123456", stack.DestinationParams{})
			require.ErrorIs(t, err, stack.ErrCodeExpired, "none was sent")
			sent, err := methods.SendVerificationCode(t.Context(), d.ID, stack.DestinationParams{})
			require.NoError(t, err)
			code := srv.VerificationCode(d.ID)
			assert.Regexp(t, `^[0-9]{6}$`, code)
			outbox := srv.Outbox()
			require.Len(t, outbox, 1)
			assert.Equal(t, &stack.CodeSent{DestinationID: d.ID, ChannelType: kind, Sent: true,
				ExpiresAt: outbox[0].SentAt.Add(10 * time.Minute)}, sent)
			assert.Equal(t, []any{d.ID, kind, address, code, stack.EventVerification}, []any{outbox[0].DestinationID, outbox[0].ChannelType,
				outbox[0].To, outbox[0].Code, outbox[0].Event.Type})
			assert.Contains(t, outbox[0].Text, code)
			assert.NotContains(t, outbox[0].Subject, code)

			_, err = methods.Verify(t.Context(), d.ID, otherCode(code), stack.DestinationParams{})
			require.ErrorIs(t, err, stack.ErrWrongCode)
			assert.EqualValues(t, 4, requireRefused(t, err, http.StatusBadRequest, "CODE_INCORRECT").Details["attempts_left"])
			verified, err := methods.Verify(t.Context(), d.ID, code, stack.DestinationParams{})
			require.NoError(t, err)
			assert.True(t, verified.Verified)
			assert.False(t, verified.VerifiedAt.IsZero())
			again, err := methods.Verify(t.Context(), d.ID, "000000", stack.DestinationParams{})
			require.NoError(t, err)
			assert.Equal(t, verified, again, "it stays so")
			assert.Empty(t, srv.VerificationCode(d.ID))
			_, err = methods.SendVerificationCode(t.Context(), d.ID, stack.DestinationParams{})
			require.ErrorIs(t, err, stack.ErrDestinationVerified)
			for _, row := range srv.Audit() {
				assert.NotContains(t, fmt.Sprint(row), code, "the audit log has no codes")
			}
			assert.Len(t, auditOf(t, srv.Client(), "destination.verify"), 2, "the wrong one too")
		})
	}
}

func otherCode(code string) string {
	var n int
	_, _ = fmt.Sscanf(code, "%d", &n)
	return fmt.Sprintf("%06d", (n+1)%1_000_000)
}

// Codes are rare, short-lived, and not to be guessed.
func TestDestinationCodeLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		methods := srv.Client().DeliveryMethods
		d, err := methods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelEmail, Destination: "ada@example.com"})
		require.NoError(t, err)
		send := func() error {
			return failure(methods.SendVerificationCode(t.Context(), d.ID, stack.DestinationParams{}))
		}
		verify := func(code string) error {
			return failure(methods.Verify(t.Context(), d.ID, code, stack.DestinationParams{}))
		}
		for _, code := range []string{"", "12345", "1234567", "12345a", "１２３４５６"} {
			requireParam(t, verify(code), "code")
		}
		require.NoError(t, send())
		err = send()
		require.ErrorIs(t, err, stack.ErrRateLimited)
		assert.Equal(t, time.Minute, requireRefused(t, err, http.StatusTooManyRequests, "RATE_LIMITED").RetryAfter)
		code := srv.VerificationCode(d.ID)
		for range 5 {
			require.ErrorIs(t, verify(otherCode(code)), stack.ErrWrongCode)
		}
		require.ErrorIs(t, verify(code), stack.ErrCodeExpired, "it cannot be guessed on and on")

		time.Sleep(time.Minute)
		require.NoError(t, send())
		code = srv.VerificationCode(d.ID)
		time.Sleep(10 * time.Minute)
		require.ErrorIs(t, verify(code), stack.ErrCodeExpired)
		assert.Empty(t, srv.VerificationCode(d.ID))

		require.NoError(t, send())
		first := srv.VerificationCode(d.ID)
		time.Sleep(time.Minute)
		require.NoError(t, send())
		if second := srv.VerificationCode(d.ID); first != second {
			require.ErrorIs(t, verify(first), stack.ErrWrongCode, "the last one counts")
		}
		time.Sleep(time.Minute)
		require.NoError(t, send())
		time.Sleep(time.Minute)
		refused := requireRefused(t, send(), http.StatusTooManyRequests, "RATE_LIMITED")
		assert.Equal(t, 46*time.Minute, refused.RetryAfter, "five in an hour")
		require.NoError(t, verify(srv.VerificationCode(d.ID)))
	})
}

// A webhook is proven by the code that it gets in a signed request.
func TestDestinationVerifiedByWebhook(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	methods := srv.Client().DeliveryMethods
	d, err := methods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelWebhook, Destination: hookURL})
	require.NoError(t, err)
	_, err = methods.SendVerificationCode(t.Context(), d.ID, stack.DestinationParams{})
	require.ErrorIs(t, err, stack.ErrDeliveryFailed, "nothing is there")
	requireRefused(t, err, http.StatusBadGateway, "DELIVERY_FAILED")

	h := &hook{t: t, secret: d.WebhookSecret}
	srv.Upstream("hooks.example", h)
	srv.Advance(time.Minute)
	_, err = methods.SendVerificationCode(t.Context(), d.ID, stack.DestinationParams{})
	require.NoError(t, err)
	require.Len(t, h.events, 1)
	event := h.events[0]
	assert.Equal(t, []any{stack.EventVerification, stack.SeverityInfo, srv.OperatorID()}, []any{event.Type, event.Severity, event.OperatorID})
	code := srv.VerificationCode(d.ID)
	assert.JSONEq(t, fmt.Sprintf(`{"destination_id":%q,"code":%q}`, d.ID, code), string(event.Data))
	assert.Equal(t, []string{event.ID, string(event.Type), "application/json", "stack-webhooks"}, []string{h.got[0].Get(stack.HeaderWebhookDelivery),
		h.got[0].Get(stack.HeaderWebhookEvent), h.got[0].Get("Content-Type"), h.got[0].Get("User-Agent")})
	verified, err := methods.Verify(t.Context(), d.ID, code, stack.DestinationParams{})
	require.NoError(t, err)
	assert.True(t, verified.Verified)
	assert.True(t, verified.WebhookSecret.IsZero(), "the secret is not shown again")
	assert.Empty(t, srv.Deliveries(), "codes are not tried again")
}

func TestDestinationTest(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	methods := srv.Client().DeliveryMethods
	d, h := addHook(t, srv, "hooks.example")
	done, err := methods.Test(t.Context(), d.ID, stack.DestinationParams{})
	require.NoError(t, err)
	require.Len(t, h.events, 1)
	assert.Equal(t, &stack.DeliveryTest{DestinationID: d.ID, DeliveryID: h.events[0].ID, Delivered: true, StatusCode: 204}, done)
	assert.Equal(t, stack.EventTest, h.events[0].Type)

	h.answer = func(int) int { return http.StatusInternalServerError }
	done, err = methods.Test(t.Context(), d.ID, stack.DestinationParams{})
	require.NoError(t, err, "the call did what it was asked for")
	assert.Equal(t, []any{false, 500}, []any{done.Delivered, done.StatusCode})
	assert.Contains(t, done.Error, "500")
	h.answer = func(int) int { return http.StatusFound }
	done, err = methods.Test(t.Context(), d.ID, stack.DestinationParams{})
	require.NoError(t, err)
	assert.Equal(t, []any{false, 302}, []any{done.Delivered, done.StatusCode})
	assert.Len(t, h.events, 3, "a redirect is not followed")
	srv.Fault(stacktest.Fault{Path: "upstream:hooks.example", Close: stacktest.CloseBefore})
	done, err = methods.Test(t.Context(), d.ID, stack.DestinationParams{})
	require.NoError(t, err)
	assert.Equal(t, []any{false, 0}, []any{done.Delivered, done.StatusCode})
	assert.NotEmpty(t, done.Error)

	own, err := methods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelEmail, Destination: stacktest.OperatorEmail})
	require.NoError(t, err)
	done, err = methods.Test(t.Context(), own.ID, stack.DestinationParams{})
	require.NoError(t, err)
	require.Len(t, srv.Outbox(), 1)
	assert.Equal(t, &stack.DeliveryTest{DestinationID: own.ID, DeliveryID: srv.Outbox()[0].Event.ID, Delivered: true}, done)

	foreign, err := methods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelEmail, Destination: "ada@example.com"})
	require.NoError(t, err)
	_, err = methods.Test(t.Context(), foreign.ID, stack.DestinationParams{})
	require.ErrorIs(t, err, stack.ErrDestinationNotVerified)
	assert.Len(t, srv.Outbox(), 1)
}

// From the rotation on nothing is signed with the old secret, not even what failed before.
func TestDestinationRotateSecret(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		methods := s.client.DeliveryMethods
		d, h := addHook(t, s.Server, "hooks.example")
		_, err := s.client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelWebhook, Destination: d.ID})
		require.NoError(t, err)
		h.answer = func(n int) int { return map[bool]int{true: 500, false: 204}[n == 1] }
		_, err = s.client.Passports.Revoke(t.Context(), s.issue(t).JTI, "")
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, h.events, 1)

		rotated, err := methods.RotateSecret(t.Context(), d.ID, stack.DestinationParams{})
		require.NoError(t, err)
		assert.Regexp(t, `^whsec_`, rotated.WebhookSecret.Reveal())
		assert.NotEqual(t, d.WebhookSecret.Reveal(), rotated.WebhookSecret.Reveal())
		assert.True(t, rotated.Verified, "it is the same address")
		h.mu.Lock()
		h.secret = rotated.WebhookSecret // the receiver refuses the old one from now on
		h.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Len(t, h.events, 2)
		assert.Equal(t, h.bodies[0], h.bodies[1])
		list, err := methods.List(t.Context())
		require.NoError(t, err)
		assert.True(t, list[0].WebhookSecret.IsZero())

		own, err := methods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelEmail, Destination: stacktest.OperatorEmail})
		require.NoError(t, err)
		_, err = methods.RotateSecret(t.Context(), own.ID, stack.DestinationParams{})
		requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	})
}

func TestDestinationDelete(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	d, _ := addHook(t, srv, "hooks.example")
	ch, err := client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelWebhook, Destination: d.ID})
	require.NoError(t, err)
	_, err = client.DeliveryMethods.Delete(t.Context(), d.ID, stack.DestinationParams{})
	require.ErrorIs(t, err, stack.ErrDestinationInUse)
	assert.Equal(t, []any{ch.ID}, requireRefused(t, err, http.StatusConflict, "DESTINATION_IN_USE").Details["channels"])
	_, err = client.Notifications.Delete(t.Context(), ch.ID)
	require.NoError(t, err)
	deleted, err := client.DeliveryMethods.Delete(t.Context(), d.ID, stack.DestinationParams{})
	require.NoError(t, err)
	assert.Equal(t, &stack.Deleted{ID: d.ID, Deleted: true}, deleted)
	list, err := client.DeliveryMethods.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
}

// destinationActions are the calls on a destination that take an approval.
func destinationActions(t *testing.T, c *stack.Client, id, code string) map[string]func(stack.DestinationParams) error {
	m, ctx := c.DeliveryMethods, t.Context()
	return map[string]func(stack.DestinationParams) error{
		"delete":        func(p stack.DestinationParams) error { return failure(m.Delete(ctx, id, p)) },
		"rotate_secret": func(p stack.DestinationParams) error { return failure(m.RotateSecret(ctx, id, p)) },
		"send_code":     func(p stack.DestinationParams) error { return failure(m.SendVerificationCode(ctx, id, p)) },
		"verify":        func(p stack.DestinationParams) error { return failure(m.Verify(ctx, id, code, p)) },
		"test":          func(p stack.DestinationParams) error { return failure(m.Test(ctx, id, p)) },
	}
}

func TestDestinationNotFound(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	for name, call := range destinationActions(t, client, "ndst_none", "123456") {
		require.ErrorIs(t, call(stack.DestinationParams{}), stack.ErrNotFound, name)
	}
	for _, call := range destinationActions(t, client, "", "123456") {
		requireParam(t, call(stack.DestinationParams{}), "destination_id")
	}
}

// An approval is taken and not demanded, unless the policy says so; then each is for one action on one destination, once.
func TestDestinationGovernance(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	add := func(host, approval string) (*stack.Destination, error) {
		d, err := client.DeliveryMethods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelWebhook,
			Destination: "https://" + host + "/in", GovernanceApprovalID: approval})
		if err == nil {
			srv.Upstream(host, &hook{t: t, secret: d.WebhookSecret})
		}
		return d, err
	}
	_, err := add("first.example", "gov_unknown")
	require.NoError(t, err)

	srv.SetPolicy(stacktest.Policy{RequireDestinationApproval: true})
	_, err = add("hooks.example", "")
	id, details := approvalNeeded(t, err)
	assert.Equal(t, []any{"destination.add", hookURL}, []any{details["action"], details["target"]})
	_, err = client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelWebhook, Destination: hookURL})
	same, _ := approvalNeeded(t, err)
	assert.Equal(t, id, same, "a channel is no way around it")
	require.NoError(t, srv.Approve(id))
	d, err := add("hooks.example", id)
	require.NoError(t, err)

	for _, name := range []string{"send_code", "verify", "test", "rotate_secret", "delete"} {
		call := destinationActions(t, client, d.ID, cmp.Or(srv.VerificationCode(d.ID), "000000"))[name]
		id, details := approvalNeeded(t, call(stack.DestinationParams{}))
		assert.Equal(t, []any{"destination." + name, d.ID}, []any{details["action"], details["target"]})
		require.NoError(t, srv.Approve(id))
		if name != "delete" {
			other := destinationActions(t, client, d.ID, "000000")["delete"]
			approvalNeeded(t, other(stack.DestinationParams{GovernanceApprovalID: id}))
		}
		require.NoError(t, call(stack.DestinationParams{GovernanceApprovalID: id}), name)
	}
}

func TestDestinationSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	d := stack.Destination{ID: "ndst_1", Destination: hookURL, WebhookSecret: stack.NewSecret("whsec_hush")}
	ch := stack.NotificationChannel{ID: "nch_1", Destination: hookURL, WebhookSecret: stack.NewSecret("whsec_hush")}
	var buf bytes.Buffer
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "d", d, "ch", ch)
	text := fmt.Sprintf("%v %+v %#v %v %+v %s", d, d, d, ch, ch, buf.String())
	assert.NotContains(t, text, "hush")
	assert.Contains(t, buf.String(), "ndst_1")
	assert.Contains(t, buf.String(), "nch_1")
}
