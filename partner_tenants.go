package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// PartnerTenantsService runs STACK under a product of one's own: each customer gets an isolated account, a tenant, that the
// partner provisions and manages. A tenant has no plan: it draws on the partner's allowance and wallet. In the mock every
// account on the enterprise plan may be a partner, and changes take an admin's key or the account's own. For customers who own
// their account, see [PartnerConnectService]. Reach it as [Client].PartnerTenants.
type PartnerTenantsService struct{ client *Client }

var (
	// ErrTenantLimitReached means that the partner's deal allows no further tenant.
	ErrTenantLimitReached error = &kind{text: "tenant limit reached", codes: []string{"TENANT_LIMIT_REACHED"}}
	// ErrAllowanceExhausted means that partner and tenants together have used up a negotiated hard cap.
	ErrAllowanceExhausted error = &kind{text: "pooled allowance exhausted", codes: []string{"ALLOWANCE_EXHAUSTED"}}
	// ErrTenantBilledByPartner means that a tenant's key was used to change something about billing, which is the partner's.
	ErrTenantBilledByPartner error = &kind{text: "the tenant is billed by its partner", codes: []string{"TENANT_BILLED_BY_PARTNER"}}
	// ErrBillingAccountInactive means that a tenant's partner is suspended or gone.
	ErrBillingAccountInactive error = &kind{text: "the partner's billing account is inactive", codes: []string{"BILLING_ACCOUNT_INACTIVE"}}
)

// TierPartner is the tier of a tenant, which has no plan of its own.
const TierPartner Tier = "partner"

// BillingPartner is the Billing of a tenant: its partner pays.
const BillingPartner = "partner"

// TenantStatus says whether a tenant can do anything.
type TenantStatus string

// Tenant statuses.
const (
	TenantActive  TenantStatus = "active"
	TenantRevoked TenantStatus = "revoked"
)

// TenantUsage is a tenant's share of the partner's pool in the running month.
type TenantUsage struct {
	Period  string `json:"period"` // such as 2026-01
	Actions int    `json:"actions"`
}

// Tenant is a customer's account that a partner manages.
type Tenant struct {
	OperatorID         string       `json:"operator_id"` // what the methods call tenantID
	ExternalCustomerID string       `json:"external_customer_id,omitempty"`
	Tier               Tier         `json:"tier"`    // TierPartner
	Billing            string       `json:"billing"` // BillingPartner
	Status             TenantStatus `json:"status"`
	CreatedAt          time.Time    `json:"created_at"`
	RevokedAt          time.Time    `json:"revoked_at,omitzero"`
	Usage              *TenantUsage `json:"usage,omitempty"` // nil in the answer to Create
}

// CreatedTenant is a new tenant with its API key, which is shown this once.
type CreatedTenant struct {
	Tenant
	APIKey Secret `json:"api_key"` // a client with this key acts as the tenant
}

// LogValue gives slog the tenant without its key.
func (t CreatedTenant) LogValue() slog.Value {
	return slog.GroupValue(slog.String("operator_id", t.OperatorID), slog.String("external_customer_id", t.ExternalCustomerID),
		slog.Any("api_key", t.APIKey))
}

type createTenantParams struct {
	ExternalCustomerID string `json:"external_customer_id,omitempty"`
}

// Create makes a tenant. externalCustomerID is the partner's own name of the customer and may be empty.
//
// It fails with [ErrTenantLimitReached] when the deal allows no more (1000 in the mock, unless its policy says fewer), with
// [ErrForbidden] for an account that is no partner, and, in the mock, with code TENANT_EXISTS (409) when a live tenant has
// the externalCustomerID; its Details then have the operator_id.
//
// POST /v1/partner/tenants
func (s *PartnerTenantsService) Create(ctx context.Context, externalCustomerID string) (*CreatedTenant, error) {
	return send[CreatedTenant](ctx, s.client, post("/v1/partner/tenants").with(createTenantParams{externalCustomerID}))
}

type tenantList struct {
	Tenants []Tenant `json:"tenants"`
}

// List returns the tenants, revoked ones too, oldest first.
//
// GET /v1/partner/tenants
func (s *PartnerTenantsService) List(ctx context.Context) ([]Tenant, error) {
	list, err := send[tenantList](ctx, s.client, get("/v1/partner/tenants"))
	if err != nil {
		return nil, err
	}
	return list.Tenants, nil
}

// Get returns a tenant. It fails with [ErrNotFound].
//
// GET /v1/partner/tenants/{tenant_id}
func (s *PartnerTenantsService) Get(ctx context.Context, tenantID string) (*Tenant, error) {
	return send[Tenant](ctx, s.client, get("/v1/partner/tenants/{tenant_id}", tenantID))
}

// TenantRevocation says what the revocation of a tenant did.
type TenantRevocation struct {
	OperatorID       string    `json:"operator_id"`
	Transitioned     bool      `json:"transitioned"` // false when it was revoked before
	WebhooksRevoked  int       `json:"webhooks_revoked"`
	PassportsRevoked int       `json:"passports_revoked"`
	RevokedAt        time.Time `json:"revoked_at"`
}

// Revoke ends a tenant: its keys are refused from then on, its inbound webhooks and its passports are revoked. It may be
// repeated, and then finishes what was left. It fails with [ErrNotFound].
//
// DELETE /v1/partner/tenants/{tenant_id}
func (s *PartnerTenantsService) Revoke(ctx context.Context, tenantID string) (*TenantRevocation, error) {
	cl := del("/v1/partner/tenants/{tenant_id}", tenantID)
	cl.keyed = true // a repetition finishes it
	return send[TenantRevocation](ctx, s.client, cl)
}

// CreateInboundWebhook makes an inbound webhook of a tenant, for one of its agents. It fails as
// [InboundWebhooksService.Create] does, with [ErrNotFound] for an unknown tenant too, and with code TENANT_REVOKED (409).
//
// POST /v1/partner/tenants/{tenant_id}/inbound-webhooks
func (s *PartnerTenantsService) CreateInboundWebhook(
	ctx context.Context, tenantID string, params InboundWebhookParams,
) (*CreatedInboundWebhook, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return send[CreatedInboundWebhook](ctx, s.client, post("/v1/partner/tenants/{tenant_id}/inbound-webhooks", tenantID).with(params))
}

// SigningSecretStatus says that the secret of a tenant's inbound webhook is set.
type SigningSecretStatus struct {
	WebhookID string `json:"webhook_id"`
	Status    string `json:"status"` // configured
}

// SetInboundWebhookSigningSecret sets the secrets of a tenant's inbound webhook. Unlike
// [InboundWebhooksService.SetProviderSigningSecret] it makes no downstream key: one that is left out stays as it is. It fails as
// that does, with [ErrNotFound] for an unknown tenant too, and with code TENANT_REVOKED (409).
//
// PUT /v1/partner/tenants/{tenant_id}/inbound-webhooks/{webhook_id}/provider-signing-secret
func (s *PartnerTenantsService) SetInboundWebhookSigningSecret(
	ctx context.Context, tenantID, webhookID string, params ProviderSecretParams,
) (*SigningSecretStatus, error) {
	if err := required("signing_secret", params.SigningSecret.Reveal()); err != nil {
		return nil, err
	}
	cl := put("/v1/partner/tenants/{tenant_id}/inbound-webhooks/{webhook_id}/provider-signing-secret", tenantID, webhookID)
	return send[SigningSecretStatus](ctx, s.client, cl.with(params))
}

// TenantScope narrows a tenant's passport. Without a connection it means all of the agent's, each as far as it has the scopes.
type TenantScope struct {
	ServiceConnectionID string       `json:"service_connection_id,omitempty"`
	Scopes              []string     `json:"scopes"`
	Constraints         []Constraint `json:"constraints,omitempty"`
	AllowDataFrom       []string     `json:"allow_data_from,omitzero"` // as in PassportScope
}

// TenantPassportParams asks for a passport of a tenant's agent. It has no intent: in the mock, the Mission's summary and the
// services that the passport reaches stand for it.
type TenantPassportParams struct {
	AgentID            string         `json:"agent_id"`
	MissionIDs         []string       `json:"mission_ids"`                   // exactly one, of the tenant
	TTL                time.Duration  `json:"ttl_seconds,omitzero"`          // 1m to 1h; the server's default is 15m
	Services           []TenantScope  `json:"services,omitempty"`            // default: all that is granted
	NamedIntents       []string       `json:"named_intents,omitempty"`       // the mock has no catalogue of them, and refuses any
	AccountabilityMode Accountability `json:"accountability_mode,omitempty"` // at least the agent's
}

// MarshalJSON writes the duration in seconds.
func (p TenantPassportParams) MarshalJSON() ([]byte, error) {
	type plain TenantPassportParams
	return marshalJSON(struct {
		plain
		TTL seconds `json:"ttl_seconds,omitzero"`
	}{plain(p), seconds(p.TTL)})
}

// UnmarshalJSON reads the duration in seconds.
func (p *TenantPassportParams) UnmarshalJSON(data []byte) error {
	type plain TenantPassportParams
	w := struct {
		*plain
		TTL seconds `json:"ttl_seconds"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.TTL = time.Duration(w.TTL)
	return nil
}

// IssuePassport issues a passport of a tenant's agent, within one of the tenant's Missions. It fails as
// [PassportsService.Issue] does, but never with a [*MissionEndedError], with [ErrNotFound] for an unknown tenant too, and with
// code TENANT_REVOKED (409).
//
// POST /v1/partner/tenants/{tenant_id}/passports/issue
func (s *PartnerTenantsService) IssuePassport(
	ctx context.Context, tenantID string, params TenantPassportParams,
) (*Passport, error) {
	if err := required("agent_id", params.AgentID); err != nil {
		return nil, err
	}
	if len(params.MissionIDs) != 1 || params.MissionIDs[0] == "" {
		return nil, &ParamError{Param: "mission_ids", Reason: "must hold exactly one Mission id: a passport is bound to exactly one Mission"}
	}
	if err := between("ttl_seconds", params.TTL, MinPassportTTL, MaxPassportTTL); err != nil {
		return nil, err
	}
	return send[Passport](ctx, s.client, post("/v1/partner/tenants/{tenant_id}/passports/issue", tenantID).with(params))
}

// HeaderPassport is where a partner puts a passport for others to verify, such as in a mail or a call: the token itself,
// without "Bearer ".
const HeaderPassport = "X-Stack-Passport"

// OutboundPassportParams asks for a passport to be shown to others.
type OutboundPassportParams struct {
	AgentID            string
	MissionID          string
	Scopes             []string       // default: all that is granted
	TTL                time.Duration  // default 15m
	AccountabilityMode Accountability // default Enforced
	NamedIntents       []string
}

// OutboundPassport is a passport to be shown to others.
type OutboundPassport struct {
	Token       Secret    `json:"token"`
	PassportID  string    `json:"passport_id"`
	ExpiresAt   time.Time `json:"expires_at"`
	HeaderValue Secret    `json:"header_value"` // of HeaderPassport
}

// LogValue gives slog the passport without its token.
func (p OutboundPassport) LogValue() slog.Value {
	return slog.GroupValue(slog.String("passport_id", p.PassportID), slog.Time("expires_at", p.ExpiresAt), slog.Any("token", p.Token))
}

// MintOutboundPassport issues a passport of a tenant's agent that is to be shown to others in the header [HeaderPassport]: with
// 15 minutes to live and enforced unless the parameters say otherwise. It fails as [PartnerTenantsService.IssuePassport] does.
//
// POST /v1/partner/tenants/{tenant_id}/passports/issue
func (s *PartnerTenantsService) MintOutboundPassport(
	ctx context.Context, tenantID string, params OutboundPassportParams,
) (*OutboundPassport, error) {
	if err := required("mission_id", params.MissionID); err != nil {
		return nil, err
	}
	issue := TenantPassportParams{AgentID: params.AgentID, MissionIDs: []string{params.MissionID},
		TTL: cmp.Or(params.TTL, 15*time.Minute), NamedIntents: params.NamedIntents,
		AccountabilityMode: cmp.Or(params.AccountabilityMode, Enforced)}
	if len(params.Scopes) > 0 {
		issue.Services = []TenantScope{{Scopes: params.Scopes}}
	}
	p, err := s.IssuePassport(ctx, tenantID, issue)
	if err != nil {
		return nil, err
	}
	return &OutboundPassport{Token: p.Token, PassportID: p.JTI, ExpiresAt: p.ExpiresAt, HeaderValue: p.Token}, nil
}
