package mockserver

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

// failure drops a call's result.
func failure(_ any, err error) error { return err }

func connectTwo(t *testing.T, client *stack.Client) (first, second *stack.Connection) {
	t.Helper()
	params := stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: stack.NewSecret("xoxb-canary-0123456789"),
		Scopes: []string{"x"}}
	first, err := client.Services.Connect(t.Context(), params)
	require.NoError(t, err)
	second, err = client.Services.Connect(t.Context(), params)
	require.NoError(t, err)
	return first, second
}

// A sealed credential opens for its own connection only, and verify finds that out.
func TestVerifyFindsAnUnreadableCredential(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	first, second := connectTwo(t, client)
	a, _ := op.connections.get(first.ID)
	b, _ := op.connections.get(second.ID)
	a.sealed, b.sealed = b.sealed, a.sealed

	checked, err := client.Services.Verify(t.Context(), first.ID)
	require.NoError(t, err)
	assert.False(t, checked.Verified)
	assert.False(t, checked.VerifiedAt.IsZero())
	rows := op.chain.Range(time.Time{}, time.Time{})
	row := rows[len(rows)-1]
	assert.Equal(t, []any{"service.verify", stack.OutcomeFailure, "CREDENTIAL_UNREADABLE"}, []any{row.Action, row.Outcome,
		row.ErrorCode})

	_, err = client.Credentials.GetByConnection(t.Context(), first.ID, stack.CredentialParams{})
	var refused *stack.Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, []any{http.StatusInternalServerError, "INTERNAL"}, []any{refused.Status, refused.Code})
	assert.NotContains(t, refused.Error(), "canary")
}

func TestDisconnectWipesTheSecret(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	first, _ := connectTwo(t, client)
	held, ok := op.connections.get(first.ID) // as a proxied call under way holds it
	require.True(t, ok)
	_, err := client.Services.Disconnect(t.Context(), first.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.ConnectionDisconnected, held.Status)
	_, err = s.credentialOf(held)
	require.ErrorIs(t, err, vault.ErrOpen)
}

func TestServicesPlanLimit(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	op.policy.Tier = stack.TierFree
	connect := func() (*stack.Connection, error) {
		return client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "crm",
			Credential: stack.CustomCredential{Token: stack.NewSecret("t")}})
	}
	var last *stack.Connection
	var err error
	for range plans[stack.TierFree][capServices] {
		last, err = connect()
		require.NoError(t, err)
	}
	_, err = connect()
	var refused *stack.Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, []any{http.StatusForbidden, "TIER_LIMIT_EXCEEDED"}, []any{refused.Status, refused.Code})
	_, err = client.Services.Disconnect(t.Context(), last.ID)
	require.NoError(t, err)
	_, err = connect()
	require.NoError(t, err, "a service that is gone makes room")
}

// Another operator's objects are not there.
func TestServicesOfAnotherOperator(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	theirs, _ := connectTwo(t, client)
	agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot"})
	require.NoError(t, err)

	_, stranger := newStranger(t, s)
	for name, call := range map[string]func() error{
		"verify":      func() error { return failure(stranger.Services.Verify(t.Context(), theirs.ID)) },
		"disconnect":  func() error { return failure(stranger.Services.Disconnect(t.Context(), theirs.ID)) },
		"revoke":      func() error { return failure(stranger.Services.RevokeAgentAccess(t.Context(), agent.ID)) },
		"permissions": func() error { return failure(stranger.Services.GetAgentPermissions(t.Context(), agent.ID)) },
		"grant": func() error {
			return failure(stranger.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID,
				ServiceConnectionID: theirs.ID, Scopes: []string{"x"}}))
		},
		"credential": func() error { return failure(stranger.Credentials.Get(t.Context(), "slack", stack.CredentialParams{})) },
		"credential by connection": func() error {
			return failure(stranger.Credentials.GetByConnection(t.Context(), theirs.ID, stack.CredentialParams{}))
		},
	} {
		require.ErrorIs(t, call(), stack.ErrNotFound, name)
	}
	list, err := stranger.Services.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
	assert.Equal(t, 2, op.connections.len())
}

// What is taken as a custom credential comes back from the vault as it was, can be injected, and is never shown.
func FuzzCustomSecret(f *testing.F) {
	for _, seed := range []string{`"token"`, `""`, `null`, `1`, `[]`, `{}`, `{"username":"a","password":"b"}`, `{"username":"a:","password":""}`,
		`{"header:X-Key":"v","header:x-key":"w"}`, `{"header:Host":"v"}`, `{"header:":"v"}`, `{"header:A":"\r\n"}`,
		`{"header:A":" "}`,
		`{"x":"y"}`, `{"username":1}`, `{"username":"ä","password":"ß"}`, `"\ud800"`, `"\u0000"`,
		`{"header:Authorization":"Token x"}`} {
		f.Add([]byte(seed))
	}
	s := New(Options{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return // the body's decoder has refused it
		}
		secret, err := customSecret(raw)
		if err != nil {
			var fields map[string]string
			if json.Unmarshal(raw, &fields) != nil {
				return
			}
			for name, value := range fields {
				fields[name] = value + "canary-0123456789"
			}
			raw, err = json.Marshal(fields)
			require.NoError(t, err)
			if _, err = customSecret(raw); err != nil {
				assert.NotContains(t, err.Error(), "canary")
			}
			return
		}
		c := &connection{Connection: stack.Connection{ID: "scon_x", OperatorID: "op_x", Provider: "crm"}}
		require.NoError(t, s.seal(c, secret))
		opened, err := s.unseal(c)
		require.NoError(t, err)
		require.Equal(t, secret, opened)
		credential, err := s.credentialOf(c)
		require.NoError(t, err)
		require.NotEqual(t, "credential()", credential.String())
	})
}
