package stack

import (
	"context"
	"log/slog"
	"time"
)

// NotificationsService manages channels: rules that say which events are told to which destination. The destinations
// themselves are the business of [DeliveryMethodsService]. Reach it as [Client].Notifications.
type NotificationsService struct{ client *Client }

// NotificationEvent is what a notification is about, and what the filter of a channel names. A name has a family and a kind,
// such as passport.revoked; a filter may also name a family, such as passport, for all of its kinds. The Data of a
// [WebhookEvent] is an object with the fields that are given here.
type NotificationEvent string

// The catalogue of events. Each has one severity, but for security events, which have their own.
const (
	// EventSecurity is the family of what detectors saw: security_event.scope_drift and so on, one kind for each signal type.
	// Data is the [SecurityEvent]. Of agents in standard mode there are none.
	EventSecurity NotificationEvent = "security_event"

	// EventPassportRevoked, a warning: the kill switch was pulled, by whoever. One event tells of all passports that one call
	// revoked. Data: reason, revoked_count, cascaded_count, passports (at most 100 jtis).
	EventPassportRevoked NotificationEvent = "passport.revoked"
	// EventMissionRevoked, a warning. Data: mission_id, agent_id, reason, notes.
	EventMissionRevoked NotificationEvent = "mission.revoked"
	// EventAgentBlocked, critical: the agent gets no more passports. Data: agent_id, reason.
	EventAgentBlocked NotificationEvent = "agent.blocked"
	// EventReviewFlagged, a warning: a checkout has flags to look at. Data: checkout_id, passport_jti, agent_id, flags.
	EventReviewFlagged NotificationEvent = "review.flagged"
	// EventReviewBlocked, critical: a checkout has critical flags. Data as for EventReviewFlagged.
	EventReviewBlocked NotificationEvent = "review.blocked"
	// EventGovernanceRequested, a warning: a call waits for a human's approval. Data: approval_id, action, target, expires_at.
	EventGovernanceRequested NotificationEvent = "governance.approval_requested"
	// EventIntentRequested, a warning: an intent waits for a human's decision. Data: approval_id, agent_id, passport_jti,
	// mission_id, action, reason, expires_at; [IntentsService.Get] has the rest.
	EventIntentRequested NotificationEvent = "intent.approval_requested"
	// EventDropoffExpired, a warning: nobody collected it. Data: dropoff_id, from_agent_id, to_agent_id, status.
	EventDropoffExpired NotificationEvent = "dropoff.expired"
	// EventReauthRequired, a warning: a provider refuses to renew a connection's token, so that somebody must consent anew.
	// Data: connection_id, provider, name.
	EventReauthRequired NotificationEvent = "connection.reauth_required"

	// EventTest and EventVerification, both info, are sent on demand and to one destination; no filter is asked and none can
	// name them. Data: destination_id, and code in a verification.
	EventTest         NotificationEvent = "notification.test"
	EventVerification NotificationEvent = "notification.verification"
)

// NotificationChannel says which events are told to a destination.
type NotificationChannel struct {
	ID            string              `json:"id"`
	OperatorID    string              `json:"operator_id"`
	ChannelType   ChannelType         `json:"channel_type"`
	Destination   string              `json:"destination"` // the address
	DestinationID string              `json:"destination_id"`
	Events        []NotificationEvent `json:"events"` // empty is all
	MinSeverity   Severity            `json:"min_severity"`
	Active        bool                `json:"active"`
	Verified      bool                `json:"verified"` // the destination is, so that something is delivered
	CreatedAt     time.Time           `json:"created_at"`

	// WebhookSecret is there in the answer to a Create that made a new webhook destination, and not shown again.
	WebhookSecret Secret `json:"webhook_secret,omitzero"`
}

// LogValue gives slog the channel without the address and the secret.
func (c NotificationChannel) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", c.ID), slog.String("channel_type", string(c.ChannelType)),
		slog.String("destination_id", c.DestinationID), slog.Bool("active", c.Active), slog.Bool("verified", c.Verified))
}

// List returns the operator's channels, oldest first.
//
// GET /v1/notifications/channels
func (s *NotificationsService) List(ctx context.Context) ([]NotificationChannel, error) {
	return sendList[NotificationChannel](ctx, s.client, get("/v1/notifications/channels"))
}

// ChannelCreateParams describes a channel.
type ChannelCreateParams struct {
	ChannelType ChannelType `json:"channel_type"`
	// Destination is the id of a destination (ndst_…) or an address. An address that is no destination yet becomes one.
	Destination string              `json:"destination"`
	Events      []NotificationEvent `json:"events,omitempty"`       // names or families; empty is all
	MinSeverity Severity            `json:"min_severity,omitempty"` // default: warning
}

// Create makes a channel, which is active. It delivers as soon as its destination is verified. It fails with a [*ParamError]
// without a type or a destination, with [ErrNotFound] for an id that is no destination, with [ErrInvalidRequest] for a type
// that is not the destination's, an address that is none, an event or a severity that does not exist, with code
// TIER_LIMIT_EXCEEDED at 100 channels, and for a new address as [DeliveryMethodsService.Add] does.
//
// POST /v1/notifications/channels
func (s *NotificationsService) Create(ctx context.Context, params ChannelCreateParams) (*NotificationChannel, error) {
	if err := required("channel_type", string(params.ChannelType)); err != nil {
		return nil, err
	}
	if err := required("destination", params.Destination); err != nil {
		return nil, err
	}
	return send[NotificationChannel](ctx, s.client, post("/v1/notifications/channels").with(params))
}

// ChannelUpdateParams changes a channel; what is nil stays as it is.
type ChannelUpdateParams struct {
	Events      *[]NotificationEvent `json:"events,omitempty"` // an empty list is all
	MinSeverity *Severity            `json:"min_severity,omitempty"`
	Active      *bool                `json:"active,omitempty"` // false delivers nothing
}

// Update changes a channel and returns it as it is then. What happened before and waits to be delivered still is. It fails
// with [ErrNotFound] and with [ErrInvalidRequest] for an event or a severity that does not exist.
//
// PATCH /v1/notifications/channels/{channel_id}
func (s *NotificationsService) Update(
	ctx context.Context, channelID string, params ChannelUpdateParams,
) (*NotificationChannel, error) {
	cl := patch("/v1/notifications/channels/{channel_id}", channelID).with(params)
	cl.keyed = true // it sets values
	return send[NotificationChannel](ctx, s.client, cl)
}

// Delete removes a channel; its destination stays. It fails with [ErrNotFound].
//
// DELETE /v1/notifications/channels/{channel_id}
func (s *NotificationsService) Delete(ctx context.Context, channelID string) (*Deleted, error) {
	return send[Deleted](ctx, s.client, del("/v1/notifications/channels/{channel_id}", channelID))
}

// SendVerificationCode sends a code to the channel's destination, as [DeliveryMethodsService.SendVerificationCode] does.
//
// POST /v1/notifications/channels/{channel_id}/send-code
func (s *NotificationsService) SendVerificationCode(ctx context.Context, channelID string) (*CodeSent, error) {
	return send[CodeSent](ctx, s.client, post("/v1/notifications/channels/{channel_id}/send-code", channelID))
}

// Verify verifies the channel's destination, and so all channels that lead there, as [DeliveryMethodsService.Verify] does.
//
// POST /v1/notifications/channels/{channel_id}/verify
func (s *NotificationsService) Verify(ctx context.Context, channelID, code string) (*NotificationChannel, error) {
	if err := checkCode(code); err != nil {
		return nil, err
	}
	return send[NotificationChannel](ctx, s.client, post("/v1/notifications/channels/{channel_id}/verify", channelID).
		with(verifyCodeParams{code}))
}

// Test sends a notification of type [EventTest] to the channel's destination, whatever the channel's filters, as
// [DeliveryMethodsService.Test] does.
//
// POST /v1/notifications/channels/{channel_id}/test
func (s *NotificationsService) Test(ctx context.Context, channelID string) (*DeliveryTest, error) {
	return send[DeliveryTest](ctx, s.client, post("/v1/notifications/channels/{channel_id}/test", channelID))
}
