package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"time"
)

// InboundWebhooksService gives other services a URL to which they can send what an agent is to read, such as mail. Whatever
// comes in is checked for its signature and for prompt injection before it is sent on. Reach it as [Client].InboundWebhooks.
type InboundWebhooksService struct{ client *Client }

// Headers of what an inbound webhook forwards, beside [HeaderWebhookSignature] and [HeaderWebhookDelivery]. The mock's; those of
// the hosted service are not known. The signature is of the body, so these are only as sure as the connection.
const (
	HeaderInboundWebhook = "X-Stack-Inbound-Webhook" // InboundWebhook.ID
	HeaderInboundVerdict = "X-Stack-Scan-Verdict"    // what the scan for prompt injection said: clean or suspicious
)

// InboundProvider is who sends to an inbound webhook.
type InboundProvider string

// Inbound providers.
const (
	ProviderAgentMail InboundProvider = "agentmail"
	ProviderGeneric   InboundProvider = "generic" // anybody who signs with an HMAC, as an [InboundGenericConfig] describes
)

// SignatureAlgorithm is what a generic provider signs with.
type SignatureAlgorithm string

// Signature algorithms. (contract: endpoints 1.7)
const (
	HMACSHA256 SignatureAlgorithm = "hmac-sha256"
	HMACSHA1   SignatureAlgorithm = "hmac-sha1"
)

// SignatureEncoding is how a generic provider writes its signature.
type SignatureEncoding string

// Signature encodings.
const (
	EncodingHex    SignatureEncoding = "hex"
	EncodingBase64 SignatureEncoding = "base64"
)

// Bounds of [InboundGenericConfig].Tolerance.
const (
	MinWebhookTolerance = time.Second
	MaxWebhookTolerance = time.Hour
)

// InboundGenericConfig describes how a generic provider signs. The names of its fields are this project's: the hosted
// service's are not known.
type InboundGenericConfig struct {
	SignatureHeader string             `json:"signature_header,omitempty"` // default X-Webhook-Signature
	Algorithm       SignatureAlgorithm `json:"algorithm,omitempty"`        // default HMACSHA256
	Encoding        SignatureEncoding  `json:"encoding,omitempty"`         // default EncodingHex
	Prefix          string             `json:"prefix,omitempty"`           // before the signature, such as sha256=
	// TimestampHeader is where the provider sends the time in Unix seconds. When it is set, the signature is of
	// "timestamp.body", and one that is too old is refused; when it is empty, it is of the body alone.
	TimestampHeader string        `json:"timestamp_header,omitempty"`
	Tolerance       time.Duration `json:"tolerance_seconds,omitzero"` // 1s to 1h, default 5m; with a TimestampHeader only
}

// MarshalJSON writes the duration in seconds.
func (c InboundGenericConfig) MarshalJSON() ([]byte, error) {
	type plain InboundGenericConfig
	return marshalJSON(struct {
		plain
		Tolerance seconds `json:"tolerance_seconds,omitzero"`
	}{plain(c), seconds(c.Tolerance)})
}

// UnmarshalJSON reads the duration in seconds.
func (c *InboundGenericConfig) UnmarshalJSON(data []byte) error {
	type plain InboundGenericConfig
	w := struct {
		*plain
		Tolerance seconds `json:"tolerance_seconds"`
	}{plain: (*plain)(c)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	c.Tolerance = time.Duration(w.Tolerance)
	return nil
}

// InboundWebhookParams describes an inbound webhook.
type InboundWebhookParams struct {
	Provider      InboundProvider       `json:"provider"`
	AgentID       string                `json:"agent_id"`                 // whose content it is
	ForwardURL    string                `json:"forward_url,omitempty"`    // http(s); without one, what comes in is checked and kept back
	GenericConfig *InboundGenericConfig `json:"generic_config,omitempty"` // of ProviderGeneric only
}

func (p InboundWebhookParams) check() error {
	if err := cmp.Or(required("provider", string(p.Provider)), required("agent_id", p.AgentID)); err != nil {
		return err
	}
	if p.ForwardURL != "" {
		if u, err := url.Parse(p.ForwardURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return &ParamError{Param: "forward_url", Reason: "is no absolute http or https URL"}
		}
	}
	if p.GenericConfig == nil {
		return nil
	}
	return between("generic_config.tolerance_seconds", p.GenericConfig.Tolerance, MinWebhookTolerance, MaxWebhookTolerance)
}

// InboundWebhookStatus says whether an inbound webhook takes anything.
type InboundWebhookStatus string

// Inbound webhook statuses.
const (
	InboundActive  InboundWebhookStatus = "active"
	InboundRevoked InboundWebhookStatus = "revoked"
)

// InboundWebhook is a URL of STACK's to which another service sends.
type InboundWebhook struct {
	ID            string                `json:"id"`
	OperatorID    string                `json:"operator_id"`
	Provider      InboundProvider       `json:"provider"`
	Slug          string                `json:"slug"`        // the last part of WebhookURL
	WebhookURL    string                `json:"webhook_url"` // give it to the provider
	AgentID       string                `json:"agent_id"`
	ForwardURL    string                `json:"forward_url,omitempty"`
	GenericConfig *InboundGenericConfig `json:"generic_config,omitempty"` // with its defaults filled in
	Status        InboundWebhookStatus  `json:"status"`
	// SigningSecretConfigured is false while STACK does not know what the provider signs with: then it takes nothing.
	SigningSecretConfigured bool      `json:"signing_secret_configured"`
	CreatedAt               time.Time `json:"created_at"`
	RevokedAt               time.Time `json:"revoked_at,omitzero"`
}

// CreatedInboundWebhook is a new inbound webhook with its secrets, which are shown this once.
type CreatedInboundWebhook struct {
	InboundWebhook
	// WebhookSecret is the downstream key: what is forwarded is signed with it, see [VerifyWebhookSignature].
	WebhookSecret Secret `json:"webhook_secret"`
	// IncomingSigningSecret is what a generic provider is to sign with. It is empty for ProviderAgentMail, which has a secret of
	// its own: see [InboundWebhooksService.SetProviderSigningSecret].
	IncomingSigningSecret Secret `json:"incoming_signing_secret,omitzero"`
}

// LogValue gives slog the webhook without its secrets.
func (w CreatedInboundWebhook) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", w.ID), slog.String("provider", string(w.Provider)),
		slog.Any("webhook_secret", w.WebhookSecret), slog.Any("incoming_signing_secret", w.IncomingSigningSecret))
}

// Create makes an inbound webhook for an agent. What comes in is answered, in the mock, with 401 when its signature is not
// right, with 409 while no signing secret is set, with 410 once the webhook is revoked, with 502 when ForwardURL cannot be
// reached or answers with no 2xx, so that the provider sends it again, and else with 200: also when it was forwarded before, and
// when the scan called it critical, in which case it is not forwarded and raises a prompt_injection event.
//
// It fails with a [*ParamError] without a provider or an agent and for a ForwardURL that is none, with [ErrInvalidRequest] for
// other values that cannot be, with [ErrNotFound] for an unknown agent, and with code TIER_LIMIT_EXCEEDED (403) when there are
// 1000 active ones.
//
// POST /v1/operator/inbound-webhooks
func (s *InboundWebhooksService) Create(ctx context.Context, params InboundWebhookParams) (*CreatedInboundWebhook, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return send[CreatedInboundWebhook](ctx, s.client, post("/v1/operator/inbound-webhooks").with(params))
}

type inboundWebhookList struct {
	Webhooks []InboundWebhook `json:"webhooks"`
}

// List returns the inbound webhooks, revoked ones too, oldest first.
//
// GET /v1/operator/inbound-webhooks
func (s *InboundWebhooksService) List(ctx context.Context) ([]InboundWebhook, error) {
	list, err := send[inboundWebhookList](ctx, s.client, get("/v1/operator/inbound-webhooks"))
	if err != nil {
		return nil, err
	}
	return list.Webhooks, nil
}

// Get returns an inbound webhook, never with its secrets. It fails with [ErrNotFound].
//
// GET /v1/operator/inbound-webhooks/{webhook_id}
func (s *InboundWebhooksService) Get(ctx context.Context, webhookID string) (*InboundWebhook, error) {
	return send[InboundWebhook](ctx, s.client, get("/v1/operator/inbound-webhooks/{webhook_id}", webhookID))
}

// Revoke ends an inbound webhook for good: it takes nothing from then on, and is listed as revoked. Revoking twice changes
// nothing. It fails with [ErrNotFound].
//
// DELETE /v1/operator/inbound-webhooks/{webhook_id}
func (s *InboundWebhooksService) Revoke(ctx context.Context, webhookID string) (*InboundWebhook, error) {
	cl := del("/v1/operator/inbound-webhooks/{webhook_id}", webhookID)
	cl.keyed = true // a repetition finds it revoked
	return send[InboundWebhook](ctx, s.client, cl)
}

// ProviderSecretParams sets the secrets of an inbound webhook.
type ProviderSecretParams struct {
	// SigningSecret is what the provider signs with: for AgentMail the whsec_… of its console, for a generic provider any text
	// of 16 to 512 bytes.
	SigningSecret Secret `json:"signing_secret"`
	// DownstreamSigningSecret is what is forwarded is signed with, 16 to 512 bytes. Without one, a generic webhook gets a new
	// one, which the answer shows once, and an AgentMail one keeps its own.
	DownstreamSigningSecret Secret `json:"downstream_signing_secret,omitzero"`
}

// LogValue keeps the secrets out of logs.
func (p ProviderSecretParams) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("signing_secret", p.SigningSecret),
		slog.Any("downstream_signing_secret", p.DownstreamSigningSecret))
}

// ConfiguredInboundWebhook is an inbound webhook whose provider's secret has been set.
type ConfiguredInboundWebhook struct {
	InboundWebhook
	// DownstreamSigningSecret is the new downstream key where one was made. It is shown this once.
	DownstreamSigningSecret Secret `json:"downstream_signing_secret,omitzero"`
}

// LogValue gives slog the webhook without its secret.
func (w ConfiguredInboundWebhook) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", w.ID), slog.String("provider", string(w.Provider)),
		slog.Any("downstream_signing_secret", w.DownstreamSigningSecret))
}

// SetProviderSigningSecret tells STACK what the provider signs with; what was signed with the secret before is refused from
// then on. AgentMail needs this call before anything can come in. It fails with a [*ParamError] without a signing secret, with
// [ErrInvalidRequest] for a secret that cannot be, with [ErrNotFound], and with code WEBHOOK_REVOKED (409) for a revoked one.
//
// PUT /v1/operator/inbound-webhooks/{webhook_id}/provider-signing-secret
func (s *InboundWebhooksService) SetProviderSigningSecret(
	ctx context.Context, webhookID string, params ProviderSecretParams,
) (*ConfiguredInboundWebhook, error) {
	if err := required("signing_secret", params.SigningSecret.Reveal()); err != nil {
		return nil, err
	}
	cl := put("/v1/operator/inbound-webhooks/{webhook_id}/provider-signing-secret", webhookID).with(params)
	return send[ConfiguredInboundWebhook](ctx, s.client, cl)
}
