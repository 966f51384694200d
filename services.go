package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// ServicesService connects services and grants agents access to them. Reach it as [Client].Services.
type ServicesService struct{ client *Client }

// AuthKind says what kind of credential a service takes.
type AuthKind string

// Auth kinds.
const (
	AuthKindOAuth  AuthKind = "oauth"
	AuthKindAPIKey AuthKind = "api_key"
	AuthKindBasic  AuthKind = "basic"
	AuthKindCustom AuthKind = "custom"
)

// InjectionKind says where the proxy puts a credential.
type InjectionKind string

// Injection kinds.
const (
	InjectBearer InjectionKind = "bearer" // Authorization: Bearer …
	InjectHeader InjectionKind = "header" // a header of the service's own
	InjectBasic  InjectionKind = "basic"  // Authorization: Basic …
)

// Injection says how the proxy puts a credential into a call.
type Injection struct {
	Kind   InjectionKind `json:"kind"`
	Header string        `json:"header,omitempty"` // with InjectHeader
	Prefix string        `json:"prefix,omitempty"` // with InjectHeader: what stands before the credential
}

// Service is a service of the catalogue, which can be connected.
type Service struct {
	ID           string    `json:"id"`
	Provider     string    `json:"provider"` // key that intents, passports and proxied calls name it by
	Name         string    `json:"name"`
	Description  string    `json:"description"`
	AuthKind     AuthKind  `json:"auth_kind"`
	Injection    Injection `json:"injection"`
	AllowedHosts []string  `json:"allowed_hosts"` // where its credential may go; instance_url picks the host of a "*." entry
	Scopes       []string  `json:"scopes"`        // the usual ones; others may be named
}

// CredentialField is one thing that connecting a service takes.
type CredentialField struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Secret      bool   `json:"secret"`
	Required    bool   `json:"required"`
}

// ServiceTemplate says what connecting a service takes: the field oauth_token goes into the token of
// [ServiceConnectParams], the others into its Fields. The template of the provider "custom" is that of
// [CustomCredential].
type ServiceTemplate struct {
	Provider string            `json:"provider"`
	Name     string            `json:"name"`
	AuthKind AuthKind          `json:"auth_kind"`
	Fields   []CredentialField `json:"fields"`
}

// ConnectionStatus is whether a connection may be used.
type ConnectionStatus string

// Connection statuses. The mock has them all; what the hosted service calls a connection that waits for somebody is not
// known.
const (
	ConnectionConnected    ConnectionStatus = "connected"
	ConnectionDisconnected ConnectionStatus = "disconnected"
	// ConnectionPending waits for the consent that its AuthorizationURL asks for. It goes when nobody gives it.
	ConnectionPending ConnectionStatus = "pending"
	// ConnectionReauthRequired cannot be used: the provider refuses to renew its token. See [ErrReauthRequired].
	ConnectionReauthRequired ConnectionStatus = "reauth_required"
)

// Connection is an operator's account with a service. It never holds the secret.
type Connection struct {
	ID           string            `json:"id"`
	OperatorID   string            `json:"operator_id"`
	ServiceID    string            `json:"service_id,omitempty"` // of the catalogue; empty for a custom service
	Provider     string            `json:"provider"`
	Name         string            `json:"name"`
	Description  string            `json:"description,omitempty"`
	Status       ConnectionStatus  `json:"status"`
	Scopes       []string          `json:"scopes"`
	Fields       map[string]string `json:"fields,omitempty"`        // fill the {{placeholders}} of proxied URLs
	AllowedHosts []string          `json:"allowed_hosts,omitempty"` // where the credential may go; empty is anywhere
	Verified     bool              `json:"verified"`
	VerifiedAt   time.Time         `json:"verified_at,omitzero"` // of the last check, whatever it found
	ConnectedAt  time.Time         `json:"connected_at"`         // of a pending one: since when it waits

	// AuthorizationURL is the page of the provider where a person consents, and AuthorizationExpiresAt until when they may.
	// Only the answer of [ServicesService.Connect] has them, of a call without a token.
	AuthorizationURL       string    `json:"authorization_url,omitempty"`
	AuthorizationExpiresAt time.Time `json:"authorization_expires_at,omitzero"`
}

// List returns the operator's connections, oldest first.
//
// GET /v1/services/connected
func (s *ServicesService) List(ctx context.Context) ([]Connection, error) {
	return sendList[Connection](ctx, s.client, get("/v1/services/connected"))
}

// ListAvailable returns the catalogue.
//
// GET /v1/services
func (s *ServicesService) ListAvailable(ctx context.Context) ([]Service, error) {
	return sendList[Service](ctx, s.client, get("/v1/services"))
}

// ListTemplates returns, for each service of the catalogue and for custom ones, what connecting it takes.
//
// GET /v1/services/templates
func (s *ServicesService) ListTemplates(ctx context.Context) ([]ServiceTemplate, error) {
	return sendList[ServiceTemplate](ctx, s.client, get("/v1/services/templates"))
}

// ServiceConnectParams connects a service of the catalogue.
type ServiceConnectParams struct {
	ServiceID  string   `json:"service_id"`           // the entry's id or its provider key
	OAuthToken Secret   `json:"oauth_token,omitzero"` // the access token, API key or password; left out to have a person consent
	Scopes     []string `json:"scopes"`               // at least one

	// RedirectURI is where the person's browser goes after the consent, with connection_id and status, or error, in its query.
	// Without one they see a page that says so. It goes with a consent only. An absolute http(s) URL.
	RedirectURI string `json:"redirect_uri,omitempty"`

	// ConnectionID connects that connection anew instead of making another: it keeps its id and its grants. The scopes must
	// hold all that it has. The mock takes it; whether the hosted service does is not known.
	ConnectionID string `json:"connection_id,omitempty"`

	// Fields are what the service's template asks for beside the token, such as instance_url. They are no secrets. The mock
	// takes them; whether the hosted service does is not known.
	Fields map[string]string `json:"fields,omitempty"`
}

// LogValue gives slog the parameters without the token.
func (p ServiceConnectParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("service_id", p.ServiceID), slog.Any("scopes", p.Scopes),
		slog.String("connection_id", p.ConnectionID), slog.Any("oauth_token", p.OAuthToken))
}

// Connect connects a service of the catalogue.
//
// With a token that the caller already has, the connection can be used at once. Without one, for a service whose AuthKind is
// AuthKindOAuth, somebody is to consent: the answer has an AuthorizationURL, where the provider asks them, within 10 minutes
// and once. (contract: server-api 2.3) Until then the connection is ConnectionPending and cannot be granted; when they deny,
// or nobody comes, it is gone. Whoever opens the URL decides whose account is connected, so give it to that person only.
// From then on the proxy has the provider renew the token when it expires. When the provider refuses that, calls fail with
// [ErrReauthRequired] until somebody consents again: call Connect with the ConnectionID.
//
// It fails with a [*ParamError] without a service id or a scope, with [ErrNotFound] for a service that the catalogue does
// not have and for an unknown connection, with [ErrInvalidRequest] when the token or a field is missing or malformed, and
// with code TIER_LIMIT_EXCEEDED when the plan has no service left.
//
// POST /v1/services/connect
func (s *ServicesService) Connect(ctx context.Context, params ServiceConnectParams) (*Connection, error) {
	if err := required("service_id", params.ServiceID); err != nil {
		return nil, err
	}
	if err := someScopes(params.Scopes); err != nil {
		return nil, err
	}
	return send[Connection](ctx, s.client, post("/v1/services/connect").with(params))
}

// someScopes returns a ParamError when no scope is named.
func someScopes(scopes []string) error {
	if len(scopes) == 0 {
		return &ParamError{Param: "scopes", Reason: "is empty; it must name at least one scope"}
	}
	return nil
}

// CustomCredential is the secret of a custom service: either a Token or Fields.
type CustomCredential struct {
	// Token is injected as a bearer token.
	Token Secret
	// Fields are injected by name: username with password as basic authentication, header:<Name> as the header of that
	// name.
	Fields map[string]Secret
}

// MarshalJSON writes the token as a string, or the fields as an object.
func (c CustomCredential) MarshalJSON() ([]byte, error) {
	if c.Fields != nil {
		return marshalJSON(c.Fields)
	}
	return marshalJSON(c.Token)
}

// UnmarshalJSON reads either form, so that stored parameters can be read back.
func (c *CustomCredential) UnmarshalJSON(data []byte) error {
	*c = CustomCredential{}
	if bytes.HasPrefix(data, []byte("{")) {
		return json.Unmarshal(data, &c.Fields)
	}
	return json.Unmarshal(data, &c.Token)
}

// LogValue gives slog a placeholder.
func (c CustomCredential) LogValue() slog.Value { return slog.StringValue(redacted) }

// ServiceConnectCustomParams connects a service that the catalogue does not have.
type ServiceConnectCustomParams struct {
	Name        string           `json:"name"` // the provider key: at most 64 lower-case letters, digits, inner - and _
	Credential  CustomCredential `json:"credential"`
	Description string           `json:"description,omitempty"` // at most 256 characters
	Scopes      []string         `json:"scopes,omitempty"`      // names for what may be granted; the mock's default is api

	// AllowedHosts limits where the credential may go; empty is anywhere. The mock takes it; whether the hosted service does
	// is not known.
	AllowedHosts []string `json:"allowed_hosts,omitempty"`
}

// LogValue gives slog the parameters without the credential.
func (p ServiceConnectCustomParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", p.Name), slog.Any("scopes", p.Scopes), slog.Any("credential", p.Credential))
}

// ConnectCustom connects a service that the catalogue does not have. It fails with a [*ParamError] without a name, and
// unless the credential has either a token or fields; with [ErrInvalidRequest] for a name that is malformed or a built-in
// provider's, and for a credential that cannot be injected; and with code TIER_LIMIT_EXCEEDED when the plan has no service
// left.
//
// POST /v1/services/custom
func (s *ServicesService) ConnectCustom(ctx context.Context, params ServiceConnectCustomParams) (*Connection, error) {
	if err := required("name", params.Name); err != nil {
		return nil, err
	}
	if params.Credential.Token.IsZero() == (len(params.Credential.Fields) == 0) {
		return nil, &ParamError{Param: "credential", Reason: "must have either a token or fields"}
	}
	return send[Connection](ctx, s.client, post("/v1/services/custom").with(params))
}

// Verify has the credential of a connection tested; Verified and Status of the answer say how that went. It fails with
// [ErrNotFound], and with code PROVIDER_UNAVAILABLE (502) when the provider of a token did not answer.
//
// The hosted service tests it at the provider. The mock checks that its vault still yields the credential and that it can be
// injected. Where somebody has consented to the connection, it has the provider renew the token; otherwise it asks no one
// else.
//
// POST /v1/services/{connection_id}/verify
func (s *ServicesService) Verify(ctx context.Context, connectionID string) (*Connection, error) {
	return send[Connection](ctx, s.client, post("/v1/services/{connection_id}/verify", connectionID))
}

// Disconnection confirms that a connection is gone, and counts what went with it.
type Disconnection struct {
	ID               string           `json:"id"`
	Provider         string           `json:"provider"`
	Status           ConnectionStatus `json:"status"`
	GrantsRevoked    int              `json:"grants_revoked"`
	PassportsRevoked int              `json:"passports_revoked"` // those delegated from others included
}

// Disconnect removes a connection for good: its secret is wiped, its grants are removed, and the passports of the agents
// that had one are revoked. It fails with [ErrNotFound].
//
// DELETE /v1/services/{connection_id}/disconnect
func (s *ServicesService) Disconnect(ctx context.Context, connectionID string) (*Disconnection, error) {
	return send[Disconnection](ctx, s.client, del("/v1/services/{connection_id}/disconnect", connectionID))
}

// Grant lets an agent use a connection with some of its scopes. It is what authorises: a passport's intent can only narrow
// it.
type Grant struct {
	AgentID             string       `json:"agent_id"`
	ServiceConnectionID string       `json:"service_connection_id"`
	Provider            string       `json:"provider"`
	Scopes              []string     `json:"scopes"`
	Constraints         []Constraint `json:"constraints,omitempty"`
	AllowDataFrom       []string     `json:"allow_data_from,omitzero"`
	CreatedAt           time.Time    `json:"created_at"`
}

// GrantParams grants an agent access to a connection.
type GrantParams struct {
	AgentID             string   `json:"agent_id"`
	ServiceConnectionID string   `json:"service_connection_id"` // a connection's id, not a catalogue service's
	Scopes              []string `json:"scopes"`                // at least one, all of them the connection's

	// Constraints narrow what may be sent, for every passport under the grant; at most 32.
	Constraints []Constraint `json:"constraints,omitempty"`
	// AllowDataFrom names the services whose data may flow into this one, "*" for all. Nil says nothing, which allows; an
	// empty list is none.
	AllowDataFrom []string `json:"allow_data_from,omitzero"`
}

// GrantAgentAccess lets an agent use a connection. A second grant on the same connection replaces the first; passports
// already issued stay as they are. Where an agent has grants on several connections of one provider, the newest serves the
// provider's key, in the mock.
//
// It fails with a [*ParamError] without ids or a scope, with [ErrNotFound] for an unknown agent or connection, with
// [ErrScopeEscalation] for a scope that the connection does not have, with [ErrInvalidRequest], and with code
// CONNECTION_PENDING (409) while nobody has consented to the connection.
//
// POST /v1/services/grant
func (s *ServicesService) GrantAgentAccess(ctx context.Context, params GrantParams) (*Grant, error) {
	if err := required("agent_id", params.AgentID); err != nil {
		return nil, err
	}
	if err := required("service_connection_id", params.ServiceConnectionID); err != nil {
		return nil, err
	}
	if err := someScopes(params.Scopes); err != nil {
		return nil, err
	}
	return send[Grant](ctx, s.client, post("/v1/services/grant").with(params))
}

// AccessRevocation counts what was taken from an agent.
type AccessRevocation struct {
	AgentID          string `json:"agent_id"`
	GrantsRevoked    int    `json:"grants_revoked"`
	PassportsRevoked int    `json:"passports_revoked"` // those delegated from others included
}

// RevokeAgentAccess is a kill switch: it removes all grants of an agent and revokes its passports. It fails with
// [ErrNotFound].
//
// DELETE /v1/services/agents/{agent_id}/revoke
func (s *ServicesService) RevokeAgentAccess(ctx context.Context, agentID string) (*AccessRevocation, error) {
	return send[AccessRevocation](ctx, s.client, del("/v1/services/agents/{agent_id}/revoke", agentID))
}

// AgentPermissions are the grants of an agent, oldest first.
type AgentPermissions struct {
	AgentID string  `json:"agent_id"`
	Grants  []Grant `json:"grants"`
}

// GetAgentPermissions returns the grants that an agent has. It fails with [ErrNotFound].
//
// GET /v1/agents/{agent_id}/permissions
func (s *ServicesService) GetAgentPermissions(ctx context.Context, agentID string) (*AgentPermissions, error) {
	return send[AgentPermissions](ctx, s.client, get("/v1/agents/{agent_id}/permissions", agentID))
}
