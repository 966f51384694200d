package stack

import (
	"context"
	"log/slog"
	"time"
)

// PartnerConnectService lets a partner act in accounts that belong to its customers, as far as each customer allows. For
// accounts that the partner owns and manages, see [PartnerTenantsService]. In the mock every account on the enterprise plan may
// be a partner, and changes take an admin's key or the account's own. Reach it as [Client].PartnerConnect.
type PartnerConnectService struct{ client *Client }

// ConnectScope names a part of what a grant token may do.
type ConnectScope string

// Connect scopes. Those of webhooks are this project's; the others are the scopes of the hosted service's OAuth.
const (
	ScopeAgentsRead      ConnectScope = "agents:read"
	ScopeAgentsWrite     ConnectScope = "agents:write" // register, change and remove agents, and grant them connections
	ScopeServicesRead    ConnectScope = "services:read"
	ScopeServicesConnect ConnectScope = "services:connect"
	ScopeCredentialsRead ConnectScope = "credentials:read"
	ScopePassportsRead   ConnectScope = "passports:read"
	ScopePassportsWrite  ConnectScope = "passports:write" // Missions and passports
	ScopeProxyRead       ConnectScope = "proxy:read"
	ScopeProxyWrite      ConnectScope = "proxy:write"
	ScopeWebhooksRead    ConnectScope = "webhooks:read"
	ScopeWebhooksWrite   ConnectScope = "webhooks:write"
)

// ConnectParams asks for a customer's account.
type ConnectParams struct {
	Email              string         `json:"email"`
	ExternalCustomerID string         `json:"external_customer_id,omitempty"` // the partner's own name of the customer
	Scopes             []ConnectScope `json:"scopes,omitempty"`               // default: all
	Providers          []string       `json:"providers,omitempty"`            // which services may be connected; default: all
}

// PartnerConnectionStatus says how far a [PartnerConnection] has come.
type PartnerConnectionStatus string

// Partner connection statuses.
const (
	ConnectActive  PartnerConnectionStatus = "active"
	ConnectPending PartnerConnectionStatus = "pending_consent" // the account's owner has not decided: the token is good for nothing yet
	ConnectDenied  PartnerConnectionStatus = "denied"
	ConnectRevoked PartnerConnectionStatus = "revoked"
)

// PartnerConnection is a grant: what a partner may do in a customer's account.
type PartnerConnection struct {
	GrantID            string                  `json:"grant_id"`
	Email              string                  `json:"email"`
	ExternalCustomerID string                  `json:"external_customer_id,omitempty"`
	OperatorID         string                  `json:"operator_id,omitempty"` // the customer's account, once it is active
	Scopes             []ConnectScope          `json:"scopes"`
	Providers          []string                `json:"providers"` // nil is all
	Status             PartnerConnectionStatus `json:"status"`
	CreatedAt          time.Time               `json:"created_at"`
	ApprovedAt         time.Time               `json:"approved_at,omitzero"`
	RevokedAt          time.Time               `json:"revoked_at,omitzero"`
}

// Connected is the answer to [PartnerConnectService.Connect].
type Connected struct {
	PartnerConnection
	// GrantToken is the API key of a client that acts under the grant: stack.New(stack.WithAPIKey(token.Reveal())). It is shown
	// once, by the call that made the grant, and empty in later answers.
	GrantToken Secret `json:"grant_token,omitzero"`
	// ConsentURL is where the owner of an account that exists decides. The hosted service asks them by mail; the link in the
	// answer stands for that mail in the mock. Whoever opens it can decide, so it is a secret.
	ConsentURL Secret `json:"consent_url,omitzero"`
}

// LogValue gives slog the grant without its token.
func (c Connected) LogValue() slog.Value {
	return slog.GroupValue(slog.String("grant_id", c.GrantID), slog.String("status", string(c.Status)),
		slog.Any("grant_token", c.GrantToken), slog.Any("consent_url", c.ConsentURL))
}

// Connect makes a grant on the account with an e-mail address. Where there is none, it makes one, which belongs to the person
// with that address, and the grant is active at once. Where there is one, its owner is asked first: the status is
// ConnectPending, and the token is refused until they have approved.
//
// What a grant token reaches is the agents, connections, Missions and inbound webhooks that were made with it, within the
// grant's scopes and providers; everything else in the account is [ErrNotFound] or [ErrForbidden] to it. Repeating Connect for
// an address returns the grant that there is, without its token.
//
// It fails with a [*ParamError] without an address, with [ErrInvalidRequest] for an address that is none, and an unknown scope
// or provider, with [ErrForbidden] for an account that is no partner, and with code CONNECTION_LIMIT_REACHED (409) when there
// are 1000 grants.
//
// POST /v1/partner/connect
func (s *PartnerConnectService) Connect(ctx context.Context, params ConnectParams) (*Connected, error) {
	if err := required("email", params.Email); err != nil {
		return nil, err
	}
	return send[Connected](ctx, s.client, post("/v1/partner/connect").with(params))
}

type partnerConnectionList struct {
	Connections []PartnerConnection `json:"connections"`
}

// ListConnections returns the grants, ended ones too, oldest first.
//
// GET /v1/partner/connections
func (s *PartnerConnectService) ListConnections(ctx context.Context) ([]PartnerConnection, error) {
	list, err := send[partnerConnectionList](ctx, s.client, get("/v1/partner/connections"))
	if err != nil {
		return nil, err
	}
	return list.Connections, nil
}

// GetConnection returns a grant, never with its token. It fails with [ErrNotFound].
//
// GET /v1/partner/connections/{grant_id}
func (s *PartnerConnectService) GetConnection(ctx context.Context, grantID string) (*PartnerConnection, error) {
	return send[PartnerConnection](ctx, s.client, get("/v1/partner/connections/{grant_id}", grantID))
}

// PartnerConnectionEnd says what the revocation of a grant did.
type PartnerConnectionEnd struct {
	GrantID            string                  `json:"grant_id"`
	Status             PartnerConnectionStatus `json:"status"`       // ConnectRevoked
	Transitioned       bool                    `json:"transitioned"` // false when it was revoked before
	PassportsRevoked   int                     `json:"passports_revoked"`
	WebhooksRevoked    int                     `json:"webhooks_revoked"`
	ConnectionsRevoked int                     `json:"connections_revoked"`
	RevokedAt          time.Time               `json:"revoked_at"`
}

// RevokeConnection ends a grant: its token is refused from then on, and the passports of the agents, the inbound webhooks and
// the connections that were made with it end. The agents stay the account owner's. Revoking twice changes nothing. It fails
// with [ErrNotFound].
//
// DELETE /v1/partner/connections/{grant_id}
func (s *PartnerConnectService) RevokeConnection(ctx context.Context, grantID string) (*PartnerConnectionEnd, error) {
	cl := del("/v1/partner/connections/{grant_id}", grantID)
	cl.keyed = true // a repetition finds it revoked
	return send[PartnerConnectionEnd](ctx, s.client, cl)
}

// RotatedToken is the new token of a grant. It is shown this once.
type RotatedToken struct {
	GrantID    string    `json:"grant_id"`
	GrantToken Secret    `json:"grant_token"`
	RotatedAt  time.Time `json:"rotated_at"`
}

// LogValue gives slog the rotation without the token.
func (r RotatedToken) LogValue() slog.Value {
	return slog.GroupValue(slog.String("grant_id", r.GrantID), slog.Any("grant_token", r.GrantToken))
}

// RotateToken gives a grant a new token, such as when the old one was lost: that one is refused from then on. It fails with
// [ErrNotFound], and with code GRANT_ENDED (409) for a grant that was revoked or denied.
//
// POST /v1/partner/connections/{grant_id}/rotate-token
func (s *PartnerConnectService) RotateToken(ctx context.Context, grantID string) (*RotatedToken, error) {
	return send[RotatedToken](ctx, s.client, post("/v1/partner/connections/{grant_id}/rotate-token", grantID).with(struct{}{}))
}
