package stack

import (
	"context"
	"log/slog"
	"maps"
	"slices"
)

// CredentialsService reads raw credentials. Prefer the proxy, which keeps them out of the agent's process. Reach it as
// [Client].Credentials.
type CredentialsService struct{ client *Client }

// Credential is the raw secret of a connection: a single one, or several by field.
type Credential struct {
	Provider    string            `json:"provider"`
	Credential  Secret            `json:"credential,omitzero"` // token or key
	Credentials map[string]Secret `json:"credentials,omitempty"`
}

// LogValue gives slog the provider and the names of the fields.
func (c Credential) LogValue() slog.Value {
	return slog.GroupValue(slog.String("provider", c.Provider), slog.Any("credential", c.Credential),
		slog.Any("fields", slices.Sorted(maps.Keys(c.Credentials))))
}

// CredentialParams says under which passport a credential is read.
type CredentialParams struct {
	// PassportToken, if set, ties the read to an agent: its scope and its access mode apply, and detectors see it. Without
	// one the operator's key is enough.
	PassportToken Secret `json:"-"`
}

// Get reads the credential of a provider: of the newest connection that the passport reaches or, without a passport, that
// the operator has. It fails with [ErrNotFound] when there is none, with [ErrForbidden] when the provider is outside the
// passport's scope, with [ErrAuthorityBindingInactive] when a binding that the passport carries is not in force any more, with
// [ErrCredentialAccessDenied] when the agent is proxy_only, and with [ErrPassportRevoked] or [ErrPassportExpired].
//
// An OAuth token that a provider has given is good for a minute at least. It fails with [ErrReauthRequired] when the provider
// refuses to renew it, and with code PROVIDER_UNAVAILABLE (502) when it does not answer.
//
// GET /v1/credentials/{provider}
func (s *CredentialsService) Get(ctx context.Context, provider string, params CredentialParams) (*Credential, error) {
	return send[Credential](ctx, s.client, get("/v1/credentials/{provider}", provider).passport(params.PassportToken))
}

// GetByConnection reads the credential of one connection. It fails as [CredentialsService.Get] does.
//
// GET /v1/credentials/by-connection/{connection_id}
func (s *CredentialsService) GetByConnection(ctx context.Context, connectionID string,
	params CredentialParams) (*Credential, error) {
	return send[Credential](ctx, s.client, get("/v1/credentials/by-connection/{connection_id}", connectionID).
		passport(params.PassportToken))
}
