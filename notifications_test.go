package stack_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// addChannel leads events to a destination.
func addChannel(t *testing.T, client *stack.Client, d *stack.Destination, least stack.Severity, events ...stack.NotificationEvent) *stack.NotificationChannel {
	t.Helper()
	ch, err := client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: d.ChannelType, Destination: d.ID,
		MinSeverity: least, Events: events})
	require.NoError(t, err)
	return ch
}

func TestChannelCreate(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	create := func(kind stack.ChannelType, to string) *stack.NotificationChannel {
		ch, err := client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: kind, Destination: to})
		require.NoError(t, err)
		return ch
	}
	own := create(stack.ChannelEmail, stacktest.OperatorEmail)
	assert.Regexp(t, `^nch_[a-z2-7]{26}$`, own.ID)
	assert.Regexp(t, `^ndst_`, own.DestinationID, "an address becomes a destination")
	assert.Equal(t, &stack.NotificationChannel{ID: own.ID, OperatorID: srv.OperatorID(), ChannelType: stack.ChannelEmail,
		Destination: stacktest.OperatorEmail, DestinationID: own.DestinationID, Events: []stack.NotificationEvent{},
		MinSeverity: stack.SeverityWarning, Active: true, Verified: true, CreatedAt: own.CreatedAt}, own)

	hook := create(stack.ChannelWebhook, hookURL)
	assert.False(t, hook.Verified)
	assert.Regexp(t, `^whsec_`, hook.WebhookSecret.Reveal(), "shown where the destination is made")
	again := create(stack.ChannelWebhook, "https://HOOKS.example/in")
	assert.Equal(t, hook.DestinationID, again.DestinationID, "one destination for an address")
	assert.True(t, again.WebhookSecret.IsZero())
	byID := create(stack.ChannelWebhook, hook.DestinationID)
	assert.Equal(t, hookURL, byID.Destination)

	list, err := client.Notifications.List(t.Context())
	require.NoError(t, err)
	hook.WebhookSecret = stack.Secret{}
	assert.Equal(t, []stack.NotificationChannel{*own, *hook, *again, *byID}, list)
	destinations, err := client.DeliveryMethods.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, destinations, 2)
	assert.Len(t, auditOf(t, client, "channel.create"), 4)
	assert.Len(t, auditOf(t, client, "destination.add"), 2)
}

func TestChannelRefusals(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	own, err := client.DeliveryMethods.Add(t.Context(), stack.DestinationAddParams{ChannelType: stack.ChannelEmail, Destination: stacktest.OperatorEmail})
	require.NoError(t, err)
	create := func(p stack.ChannelCreateParams) error { return failure(client.Notifications.Create(t.Context(), p)) }
	requireParam(t, create(stack.ChannelCreateParams{Destination: own.ID}), "channel_type")
	requireParam(t, create(stack.ChannelCreateParams{ChannelType: stack.ChannelEmail}), "destination")
	require.ErrorIs(t, create(stack.ChannelCreateParams{ChannelType: stack.ChannelEmail, Destination: "ndst_none"}), stack.ErrNotFound)
	for field, p := range map[string]stack.ChannelCreateParams{
		"body.channel_type": {ChannelType: stack.ChannelSMS, Destination: own.ID},
		"body.destination":  {ChannelType: stack.ChannelSMS, Destination: "12"},
		"body.min_severity": {ChannelType: stack.ChannelEmail, Destination: own.ID, MinSeverity: "fatal"},
		"body.events[1]":    {ChannelType: stack.ChannelEmail, Destination: own.ID, Events: []stack.NotificationEvent{"passport", "passport.renewed"}},
		"body.events[0]":    {ChannelType: stack.ChannelEmail, Destination: own.ID, Events: []stack.NotificationEvent{stack.EventTest}},
		"body.events[2]":    {ChannelType: stack.ChannelEmail, Destination: own.ID, Events: []stack.NotificationEvent{"passport", "agent", "passport"}},
		"body.events":       {ChannelType: stack.ChannelEmail, Destination: own.ID, Events: make([]stack.NotificationEvent, 1000)},
	} {
		refused := requireRefused(t, create(p), http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, field, refused.Details["field"])
	}
	list, err := client.Notifications.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)

	for range 100 {
		require.NoError(t, create(stack.ChannelCreateParams{ChannelType: stack.ChannelEmail, Destination: own.ID}))
	}
	requireRefused(t, create(stack.ChannelCreateParams{ChannelType: stack.ChannelEmail, Destination: "new@example.com"}), http.StatusForbidden, "TIER_LIMIT_EXCEEDED")
	destinations, err := client.DeliveryMethods.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, destinations, 1, "a refused channel leaves no destination behind")
}

func TestChannelUpdateAndDelete(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	n := srv.Client().Notifications
	ch, err := n.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelEmail, Destination: stacktest.OperatorEmail})
	require.NoError(t, err)
	events, critical, off := []stack.NotificationEvent{stack.EventSecurity, stack.EventSecurity + ".scope_drift"}, stack.SeverityCritical, false
	updated, err := n.Update(t.Context(), ch.ID, stack.ChannelUpdateParams{Events: &events, MinSeverity: &critical, Active: &off})
	require.NoError(t, err)
	ch.Events, ch.MinSeverity, ch.Active = events, critical, off
	assert.Equal(t, ch, updated)
	same, err := n.Update(t.Context(), ch.ID, stack.ChannelUpdateParams{})
	require.NoError(t, err)
	assert.Equal(t, ch, same)

	bad, none := stack.Severity(""), []stack.NotificationEvent{"x"}
	_, err = n.Update(t.Context(), ch.ID, stack.ChannelUpdateParams{MinSeverity: &bad, Active: ptr(true)})
	requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	_, err = n.Update(t.Context(), ch.ID, stack.ChannelUpdateParams{Events: &none, Active: ptr(true)})
	requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	all := []stack.NotificationEvent{}
	updated, err = n.Update(t.Context(), ch.ID, stack.ChannelUpdateParams{Events: &all})
	require.NoError(t, err)
	ch.Events = all
	assert.Equal(t, ch, updated, "a refused change changed nothing")

	deleted, err := n.Delete(t.Context(), ch.ID)
	require.NoError(t, err)
	assert.Equal(t, &stack.Deleted{ID: ch.ID, Deleted: true}, deleted)
	for name, call := range map[string]func(id string) error{
		"update": func(id string) error {
			return failure(n.Update(t.Context(), id, stack.ChannelUpdateParams{}))
		},
		"delete":    func(id string) error { return failure(n.Delete(t.Context(), id)) },
		"send-code": func(id string) error { return failure(n.SendVerificationCode(t.Context(), id)) },
		"verify":    func(id string) error { return failure(n.Verify(t.Context(), id, "123456")) },
		"test":      func(id string) error { return failure(n.Test(t.Context(), id)) },
	} {
		require.ErrorIs(t, call(ch.ID), stack.ErrNotFound, name)
		requireParam(t, call(""), "channel_id")
	}
}

// A channel's code, verification and test are its destination's.
func TestChannelVerify(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	n := srv.Client().Notifications
	ch, err := n.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelSMS, Destination: "+41791234567"})
	require.NoError(t, err)
	_, err = n.Test(t.Context(), ch.ID)
	require.ErrorIs(t, err, stack.ErrDestinationNotVerified)
	sent, err := n.SendVerificationCode(t.Context(), ch.ID)
	require.NoError(t, err)
	assert.Equal(t, ch.DestinationID, sent.DestinationID)
	requireParam(t, failure(n.Verify(t.Context(), ch.ID, "x")), "code")
	code := srv.VerificationCode(ch.DestinationID)
	require.ErrorIs(t, failure(n.Verify(t.Context(), ch.ID, otherCode(code))), stack.ErrWrongCode)
	verified, err := n.Verify(t.Context(), ch.ID, code)
	require.NoError(t, err)
	ch.Verified = true
	assert.Equal(t, ch, verified)
	done, err := n.Test(t.Context(), ch.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{ch.ID, ch.DestinationID, true}, []any{done.ChannelID, done.DestinationID, done.Delivered})
	assert.Equal(t, stack.EventTest, srv.Outbox()[1].Event.Type)
}

// Each event of the catalogue happens, and its data say what it is about.
func TestNotificationEvents(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	c, ctx := s.client, t.Context()
	own, err := c.DeliveryMethods.Add(ctx, stack.DestinationAddParams{ChannelType: stack.ChannelEmail, Destination: stacktest.OperatorEmail})
	require.NoError(t, err)
	addChannel(t, c, own, stack.SeverityInfo)
	blocky := registerLogged(t, c, "blocky")
	block := stack.EscalateBlock
	_, err = c.Agents.Update(ctx, blocky.ID, stack.AgentUpdateParams{OnWarning: &block, OnCritical: &block})
	require.NoError(t, err)
	root, child, mission := s.issue(t), s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged}), s.mission(t, time.Hour)
	delegated, err := c.Passports.Delegate(ctx, stack.PassportDelegateParams{ParentToken: root.Token, ChildAgentID: child.ID})
	require.NoError(t, err)
	dropoff, err := c.Dropoffs.Create(ctx, stack.DropoffCreateParams{FromAgentID: s.agent.ID, ToAgentID: child.ID, Schema: map[string]any{}, TTL: time.Minute})
	require.NoError(t, err)
	flagged := registerLogged(t, c, "flagged")
	github, err := s.ApproveConnection(askFor(t, c).AuthorizationURL)
	require.NoError(t, err)

	for _, step := range []struct {
		name string
		do   func()
		want []string // type, severity and a part of the data of each
	}{
		{"revoke", func() { require.NoError(t, failure(c.Passports.Revoke(ctx, root.JTI, "stolen laptop"))) },
			[]string{fmt.Sprintf(`passport.revoked warning {"cascaded_count":1,"passports":[%q,%q],"reason":"stolen laptop","revoked_count":1}`, root.JTI, delegated.JTI)}},
		{"revoke again", func() { require.NoError(t, failure(c.Passports.Revoke(ctx, root.JTI, "again"))) }, nil},
		{"revoke all", func() {
			s.issue(t)
			s.issue(t)
			require.NoError(t, failure(c.Passports.RevokeAgent(ctx, s.agent.ID, "")))
		}, []string{`passport.revoked warning {"cascaded_count":0,"passports":`}},
		{"mission", func() {
			require.NoError(t, failure(c.Missions.Revoke(ctx, mission, stack.MissionRevokeParams{Reason: stack.ReasonAdversarial, Notes: "odd"})))
		}, []string{fmt.Sprintf(`mission.revoked warning {"agent_id":"","mission_id":%q,"notes":"odd","reason":"adversarial"}`, mission)}},
		{"completion", func() {
			require.NoError(t, failure(c.Missions.Complete(ctx, s.mission(t, time.Hour), stack.MissionCompleteParams{})))
		}, nil},
		{"review", func() { checkOut(t, c, flagged, flaggedReport) }, []string{`review.flagged warning {"agent_id":"` + flagged.ID}},
		{"blocked review", func() { checkOut(t, c, blocky, blockedReport) },
			[]string{`review.blocked critical {"agent_id":"` + blocky.ID, `agent.blocked critical {"agent_id":"` + blocky.ID}},
		{"governance", func() { approvalNeeded(t, failure(c.Agents.Unblock(ctx, blocky.ID, stack.AgentUnblockParams{}))) },
			[]string{`governance.approval_requested warning {"action":"agent.unblock","approval_id":"gov_`}},
		{"governance again", func() { approvalNeeded(t, failure(c.Agents.Unblock(ctx, blocky.ID, stack.AgentUnblockParams{}))) }, nil},
		{"intent", func() {
			require.NoError(t, failure(c.Intents.Submit(ctx, stack.IntentSubmitParams{Intent: stack.IntentOf(post("#x")), PassportToken: s.issue(t).Token})))
		}, []string{`intent.approval_requested warning {"action":"POST","agent_id":"` + s.agent.ID + `","approval_id":"apr_`}},
		{"security event", func() {
			require.Error(t, failure(c.Proxy.Post(ctx, withPassport(post("#x"), root))))
		}, []string{`security_event.revoked_passport_use critical {"id":"sev_`}},
		{"consent taken back", func() {
			require.NoError(t, s.RevokeAtProvider(github.ID))
			require.NoError(t, failure(c.Services.Verify(ctx, github.ID)))
		}, []string{fmt.Sprintf(`connection.reauth_required warning {"connection_id":%q,"name":"GitHub","provider":"github"}`, github.ID)}},
		{"drop-off", func() { s.Advance(time.Minute) },
			[]string{fmt.Sprintf(`dropoff.expired warning {"dropoff_id":%q,"from_agent_id":%q,"status":"expired","to_agent_id":%q}`, dropoff.ID, s.agent.ID, child.ID)}},
	} {
		before := len(s.Outbox())
		step.do()
		var got []string
		for _, m := range s.Outbox()[before:] {
			got = append(got, fmt.Sprintf("%s %s %s", m.Event.Type, m.Event.Severity, m.Event.Data))
			assert.Equal(t, []string{fmt.Sprintf("[STACK] %s: %s", m.Event.Severity, m.Event.Type), m.Event.Message, stacktest.OperatorEmail}, []string{m.Subject, m.Text, m.To})
			assert.NotEmpty(t, m.Text)
		}
		if assert.Len(t, got, len(step.want), "%s: %s", step.name, got) {
			for i, want := range step.want {
				assert.True(t, strings.HasPrefix(got[i], want), "%s: %s\nis not %s", step.name, got[i], want)
			}
		}
	}
	events := s.SecurityEvents()
	var told stack.SecurityEvent
	for _, m := range s.Outbox() {
		if strings.HasPrefix(string(m.Event.Type), "security_event.") {
			require.NoError(t, json.Unmarshal(m.Event.Data, &told))
		}
	}
	assert.Equal(t, events[len(events)-1].ID, told.ID)
}

// What a channel lets through: by event, by family, by severity.
func TestChannelFilters(t *testing.T) {
	t.Parallel()
	const review, passport = "review.flagged", "passport.revoked" // warnings; agent.blocked and review.blocked are critical
	for name, tt := range map[string]struct {
		least  stack.Severity
		events []stack.NotificationEvent
		off    bool
		want   []string
	}{
		"all warnings":            {least: "", want: []string{review, passport, "review.blocked", "agent.blocked"}},
		"critical only":           {least: stack.SeverityCritical, want: []string{"review.blocked", "agent.blocked"}},
		"one event":               {events: []stack.NotificationEvent{stack.EventPassportRevoked}, want: []string{passport}},
		"a family":                {least: stack.SeverityInfo, events: []stack.NotificationEvent{"review"}, want: []string{review, "review.blocked"}},
		"two":                     {events: []stack.NotificationEvent{"agent", stack.EventReviewBlocked}, want: []string{"review.blocked", "agent.blocked"}},
		"a family, critical only": {least: stack.SeverityCritical, events: []stack.NotificationEvent{"review"}, want: []string{"review.blocked"}},
		"others":                  {events: []stack.NotificationEvent{stack.EventSecurity, "dropoff"}, want: []string{}},
		"inactive":                {off: true, want: []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Logged)
			d, h := addHook(t, s.Server, "hooks.example")
			ch := addChannel(t, s.client, d, tt.least, tt.events...)
			if tt.off {
				_, err := s.client.Notifications.Update(t.Context(), ch.ID, stack.ChannelUpdateParams{Active: ptr(false)})
				require.NoError(t, err)
			}
			somethingHappens(t, s)
			s.Advance(0)
			assert.ElementsMatch(t, tt.want, h.types())
		})
	}
}

// somethingHappens makes a flagged review, a revocation, a blocked review and a blocked agent.
func somethingHappens(t *testing.T, s *stage) {
	t.Helper()
	checkOut(t, s.client, registerLogged(t, s.client, "flagged"), flaggedReport)
	_, err := s.client.Passports.Revoke(t.Context(), s.issue(t).JTI, "")
	require.NoError(t, err)
	blocky := registerLogged(t, s.client, "blocky")
	_, err = s.client.Agents.Update(t.Context(), blocky.ID, stack.AgentUpdateParams{OnCritical: ptr(stack.EscalateBlock)})
	require.NoError(t, err)
	checkOut(t, s.client, blocky, blockedReport)
}

// Nothing goes to an address before it is verified, and nothing is caught up on afterwards.
func TestUnverifiedGetsNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	h := &hook{t: t}
	s.Upstream("hooks.example", h)
	_, err := s.client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelWebhook, Destination: hookURL, MinSeverity: stack.SeverityInfo})
	require.NoError(t, err)
	ch, err := s.client.Notifications.Create(t.Context(), stack.ChannelCreateParams{ChannelType: stack.ChannelEmail, Destination: "ada@example.com"})
	require.NoError(t, err)
	somethingHappens(t, s)
	assert.Empty(t, s.Deliveries())
	assert.Empty(t, s.Forwarded("hooks.example"))
	assert.Empty(t, s.Outbox())
	_, err = s.client.Notifications.SendVerificationCode(t.Context(), ch.ID)
	require.NoError(t, err)
	_, err = s.client.Notifications.Verify(t.Context(), ch.ID, s.VerificationCode(ch.DestinationID))
	require.NoError(t, err)
	assert.Len(t, s.Outbox(), 1, "the code")
}

// Two channels that lead to one destination tell it once; two destinations are both told.
func TestDestinationIsToldOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	first, h := addHook(t, s.Server, "hooks.example")
	second, other := addHook(t, s.Server, "other.example")
	addChannel(t, s.client, first, stack.SeverityWarning)
	addChannel(t, s.client, first, stack.SeverityInfo, "passport")
	addChannel(t, s.client, second, stack.SeverityInfo)
	_, err := s.client.Passports.Revoke(t.Context(), s.issue(t).JTI, "")
	require.NoError(t, err)
	deliveries := s.Deliveries()
	require.Len(t, deliveries, 2)
	assert.Equal(t, []string{"passport.revoked"}, h.types())
	assert.Equal(t, []string{"passport.revoked"}, other.types())
	assert.NotEqual(t, h.events[0].ID, other.events[0].ID)
	for i, want := range []string{first.ID, second.ID} {
		d := deliveries[i]
		assert.Equal(t, []any{want, stacktest.DeliveryDelivered, 1, 204, ""},
			[]any{d.DestinationID, d.Status, len(d.Attempts), d.Attempts[0].StatusCode, d.Error})
	}
	assert.Equal(t, h.events[0], deliveries[0].Event)
}

// Every change of a channel or a destination is in the audit log when its answer is there; looking leaves no trace.
func TestNotificationChangesAreAudited(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	c, ctx, none := srv.Client(), t.Context(), stack.DestinationParams{}
	d, _ := addHook(t, srv, "hooks.example")
	ch := addChannel(t, c, d, stack.SeverityInfo)
	for _, step := range []struct {
		action, id string
		call       func() error
	}{
		{"channel.update", ch.ID, func() error { return failure(c.Notifications.Update(ctx, ch.ID, stack.ChannelUpdateParams{})) }},
		{"destination.test", d.ID, func() error { return failure(c.Notifications.Test(ctx, ch.ID)) }},
		{"destination.test", d.ID, func() error { return failure(c.DeliveryMethods.Test(ctx, d.ID, none)) }},
		{"destination.rotate_secret", d.ID, func() error { return failure(c.DeliveryMethods.RotateSecret(ctx, d.ID, none)) }},
		{"", "", func() error { return failure(c.Notifications.List(ctx)) }},
		{"", "", func() error { return failure(c.DeliveryMethods.List(ctx)) }},
		{"channel.delete", ch.ID, func() error { return failure(c.Notifications.Delete(ctx, ch.ID)) }},
		{"destination.delete", d.ID, func() error { return failure(c.DeliveryMethods.Delete(ctx, d.ID, none)) }},
	} {
		before := len(srv.Audit())
		require.NoError(t, step.call(), step.action)
		added := srv.Audit()[before:]
		if step.action == "" {
			assert.Empty(t, added)
		} else if assert.Len(t, added, 1, step.action) {
			assert.Equal(t, []string{step.action, step.id}, []string{added[0].Action, added[0].TraceID})
		}
	}
	var all []string
	for _, row := range srv.Audit() {
		all = append(all, row.Action)
	}
	assert.Equal(t, []string{"destination.add", "destination.send_code", "destination.verify", "channel.create"}, all[:4])
	srv.RequireAuditIntact(t)
}
