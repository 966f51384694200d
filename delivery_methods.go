package stack

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// DeliveryMethodsService manages destinations: the addresses that notifications may go to, each proven to be the operator's.
// The channels of [NotificationsService] say what goes where. Reach it as [Client].DeliveryMethods.
type DeliveryMethodsService struct{ client *Client }

// Sentinels for errors.Is of destinations; they match by the API's code.
var (
	ErrDestinationExists error = &kind{text: "the destination exists already", codes: []string{"DESTINATION_EXISTS"}}
	ErrDestinationInUse  error = &kind{text: "channels use the destination", codes: []string{"DESTINATION_IN_USE"}}

	// ErrDestinationNotVerified means that nothing is sent to an address before it is verified.
	ErrDestinationNotVerified error = &kind{text: "the destination is not verified",
		codes: []string{"DESTINATION_NOT_VERIFIED"}}
	// ErrDestinationVerified means that no code is sent to an address that is verified already.
	ErrDestinationVerified error = &kind{text: "the destination is verified already",
		codes: []string{"DESTINATION_ALREADY_VERIFIED"}}
	// ErrWrongCode means that the code is not the one that was sent. The error's Details hold "attempts_left".
	ErrWrongCode error = &kind{text: "the verification code is wrong", codes: []string{"CODE_INCORRECT"}}
	// ErrCodeExpired means that a new code must be sent: there is none, it is too old, or too many wrong ones were given.
	ErrCodeExpired error = &kind{text: "there is no verification code to check against", codes: []string{"CODE_EXPIRED"}}
	// ErrDeliveryFailed means that a webhook did not take what was sent to it.
	ErrDeliveryFailed error = &kind{text: "the webhook did not take it", codes: []string{"DELIVERY_FAILED"}}
)

// ChannelType is a way of reaching somebody.
type ChannelType string

// Channel types.
const (
	ChannelEmail   ChannelType = "email"
	ChannelSMS     ChannelType = "sms"
	ChannelWebhook ChannelType = "webhook"
)

// Destination is an address that notifications may go to.
type Destination struct {
	ID          string      `json:"id"`
	OperatorID  string      `json:"operator_id"`
	ChannelType ChannelType `json:"channel_type"`
	Destination string      `json:"destination"` // the address, in one form: domain and host in lower case
	Label       string      `json:"label,omitempty"`
	Verified    bool        `json:"verified"`
	VerifiedAt  time.Time   `json:"verified_at,omitzero"`

	// WebhookSecret signs what is sent to a webhook; see [VerifyWebhook]. Add and RotateSecret show it, once.
	WebhookSecret Secret    `json:"webhook_secret"`
	CreatedAt     time.Time `json:"created_at"`
}

// MarshalJSON writes null for a secret that is not shown.
func (d Destination) MarshalJSON() ([]byte, error) {
	type plain Destination
	w := struct {
		plain
		WebhookSecret *Secret `json:"webhook_secret"`
	}{plain: plain(d)}
	if !d.WebhookSecret.IsZero() {
		w.WebhookSecret = &d.WebhookSecret
	}
	return marshalJSON(w)
}

// LogValue gives slog the destination without its secret, and without the address, which may be a person's.
func (d Destination) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", d.ID), slog.String("channel_type", string(d.ChannelType)),
		slog.Bool("verified", d.Verified))
}

// DestinationAddParams names an address.
type DestinationAddParams struct {
	ChannelType ChannelType `json:"channel_type"`
	// Destination is a bare email address, a phone number such as +41791234567, or an http(s) URL without user information.
	Destination string `json:"destination"`
	Label       string `json:"label,omitempty"` // for people, at most 64 characters

	// GovernanceApprovalID names a human's approval, where the operator's policy demands one.
	GovernanceApprovalID string `json:"-"`
}

// Add adds a destination. It is not verified yet, and nothing is delivered to it, unless it is the operator's own email
// address. The secret of a webhook is in the answer and is not shown again. It fails with a [*ParamError] without a type or
// an address, with [ErrInvalidRequest] for an address that is none, with [ErrDestinationExists], with code
// TIER_LIMIT_EXCEEDED at 100 destinations, and with [ErrGovernanceApprovalRequired] where the policy demands an approval.
//
// POST /v1/notifications/destinations
func (s *DeliveryMethodsService) Add(ctx context.Context, params DestinationAddParams) (*Destination, error) {
	if err := required("channel_type", string(params.ChannelType)); err != nil {
		return nil, err
	}
	if err := required("destination", params.Destination); err != nil {
		return nil, err
	}
	return send[Destination](ctx, s.client, post("/v1/notifications/destinations").with(params).
		head(governanceHeader, params.GovernanceApprovalID))
}

// List returns the operator's destinations, oldest first, without secrets.
//
// GET /v1/notifications/destinations
func (s *DeliveryMethodsService) List(ctx context.Context) ([]Destination, error) {
	return sendList[Destination](ctx, s.client, get("/v1/notifications/destinations"))
}

// DestinationParams holds the approval for an action on a destination.
type DestinationParams struct {
	// GovernanceApprovalID names a human's approval, where the operator's policy demands one: without it the call fails with
	// ErrGovernanceApprovalRequired, whose details hold the approval_id to have approved.
	GovernanceApprovalID string `json:"-"`
}

const governanceHeader = "X-Governance-Approval"

// Delete removes a destination; what still waits to be delivered to it is given up. It fails with [ErrDestinationInUse] while
// a channel leads to it, with [ErrNotFound], and with [ErrGovernanceApprovalRequired] where the policy demands an approval.
//
// DELETE /v1/notifications/destinations/{destination_id}
func (s *DeliveryMethodsService) Delete(ctx context.Context, destinationID string, params DestinationParams) (*Deleted, error) {
	return send[Deleted](ctx, s.client, del("/v1/notifications/destinations/{destination_id}", destinationID).
		head(governanceHeader, params.GovernanceApprovalID))
}

// RotateSecret replaces the secret of a webhook at once and returns the destination with the new one, which is not shown
// again. From then on nothing is signed with the old one, not even another attempt of a delivery that failed before. It fails
// with [ErrInvalidRequest] for a destination that is no webhook, with [ErrNotFound], and with
// [ErrGovernanceApprovalRequired] where the policy demands an approval.
//
// POST /v1/notifications/destinations/{destination_id}/rotate-secret
func (s *DeliveryMethodsService) RotateSecret(
	ctx context.Context, destinationID string, params DestinationParams,
) (*Destination, error) {
	return send[Destination](ctx, s.client, post("/v1/notifications/destinations/{destination_id}/rotate-secret", destinationID).
		head(governanceHeader, params.GovernanceApprovalID))
}

// CodeSent says that a verification code is on its way.
type CodeSent struct {
	DestinationID string      `json:"destination_id"`
	ChannelType   ChannelType `json:"channel_type"`
	Sent          bool        `json:"sent"`
	ExpiresAt     time.Time   `json:"expires_at"` // until when the code is taken: 10 minutes in the mock
}

// SendVerificationCode sends a code of six digits to the destination, in place of an earlier one: by email or SMS, or to a
// webhook in a signed request of type [EventVerification]. It fails with [ErrDestinationVerified], with [ErrRateLimited]
// within a minute of the last code and after five in an hour, with [ErrDeliveryFailed] when the webhook did not take it, with
// [ErrNotFound], and with [ErrGovernanceApprovalRequired] where the policy demands an approval.
//
// POST /v1/notifications/destinations/{destination_id}/send-code
func (s *DeliveryMethodsService) SendVerificationCode(
	ctx context.Context, destinationID string, params DestinationParams,
) (*CodeSent, error) {
	return send[CodeSent](ctx, s.client, post("/v1/notifications/destinations/{destination_id}/send-code", destinationID).
		head(governanceHeader, params.GovernanceApprovalID))
}

type verifyCodeParams struct {
	Code string `json:"code"`
}

// checkCode returns a ParamError unless the code could be one. It does not quote it.
func checkCode(code string) error {
	if len(code) != 6 || strings.Trim(code, "0123456789") != "" {
		return &ParamError{Param: "code", Reason: fmt.Sprintf("has %d characters; it must be six digits", len(code))}
	}
	return nil
}

// Verify proves that the destination is the operator's by the code that was sent to it. A destination that is verified
// already stays so, whatever the code. It fails with a [*ParamError] for a code that is not six digits, with [ErrWrongCode],
// with [ErrCodeExpired] after 10 minutes or five wrong codes and before one was sent, with [ErrNotFound], and with
// [ErrGovernanceApprovalRequired] where the policy demands an approval.
//
// POST /v1/notifications/destinations/{destination_id}/verify
func (s *DeliveryMethodsService) Verify(
	ctx context.Context, destinationID, code string, params DestinationParams,
) (*Destination, error) {
	if err := checkCode(code); err != nil {
		return nil, err
	}
	return send[Destination](ctx, s.client, post("/v1/notifications/destinations/{destination_id}/verify", destinationID).
		with(verifyCodeParams{code}).head(governanceHeader, params.GovernanceApprovalID))
}

// DeliveryTest is the outcome of a test notification. Of email and SMS it says that the message was sent, of a webhook
// whether it answered with a 2xx.
type DeliveryTest struct {
	DestinationID string `json:"destination_id"`
	ChannelID     string `json:"channel_id,omitempty"` // of a test of a channel
	DeliveryID    string `json:"delivery_id"`
	Delivered     bool   `json:"delivered"`
	StatusCode    int    `json:"status_code,omitempty"` // the webhook's, where it answered
	Error         string `json:"error,omitempty"`       // why it was not delivered
}

// Test sends a notification of type [EventTest] to the destination, once, and tells how that went. It fails with
// [ErrDestinationNotVerified], with [ErrNotFound], and with [ErrGovernanceApprovalRequired] where the policy demands an
// approval.
//
// POST /v1/notifications/destinations/{destination_id}/test
func (s *DeliveryMethodsService) Test(
	ctx context.Context, destinationID string, params DestinationParams,
) (*DeliveryTest, error) {
	return send[DeliveryTest](ctx, s.client, post("/v1/notifications/destinations/{destination_id}/test", destinationID).
		head(governanceHeader, params.GovernanceApprovalID))
}
