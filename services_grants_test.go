package stack_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestServicesVerify(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	connection := connectSlack(t, client, "xoxb-0123456789")
	verified, err := client.Services.Verify(t.Context(), connection.ID)
	require.NoError(t, err)
	assert.True(t, verified.Verified)
	assert.False(t, verified.VerifiedAt.Before(connection.ConnectedAt))
	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []stack.Connection{*verified}, list)
	assert.Len(t, auditOf(t, client, "service.verify"), 1)

	_, err = client.Services.Verify(t.Context(), "scon_none")
	mustRefuse(t, err, http.StatusNotFound, "NOT_FOUND")
	require.ErrorIs(t, err, stack.ErrNotFound)
}

func TestServicesGrants(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerAgent(t, client, "bot", "", stack.Logged)
	slack, crm := connectSlack(t, client, "xoxb-0123456789"), connectCustom(t, client, "crm", "crm-0123456789")
	none, err := client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.AgentPermissions{AgentID: agent.ID, Grants: []stack.Grant{}}, *none)

	constraints := []stack.Constraint{{Path: "body.channel", Op: stack.OpIn, Value: []any{"#support"}}}
	first, err := client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID,
		ServiceConnectionID: slack.ID,
		Scopes:              []string{"chat:write"}, Constraints: constraints, AllowDataFrom: []string{"*"}})
	require.NoError(t, err)
	assert.Equal(t, stack.Grant{AgentID: agent.ID, ServiceConnectionID: slack.ID, Provider: "slack",
		Scopes:      []string{"chat:write"},
		Constraints: constraints, AllowDataFrom: []string{"*"}, CreatedAt: first.CreatedAt}, *first)
	assert.False(t, first.CreatedAt.IsZero())
	second, err := client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID,
		ServiceConnectionID: crm.ID,
		Scopes:              []string{"use"}, AllowDataFrom: []string{}})
	require.NoError(t, err)
	assert.Equal(t, []string{}, second.AllowDataFrom, "an empty list is not the same as none given")
	permissions, err := client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, []stack.Grant{*first, *second}, permissions.Grants)

	replaced := grantAll(t, client, agent.ID, slack)
	assert.Nil(t, replaced.AllowDataFrom)
	assert.Nil(t, replaced.Constraints)
	permissions, err = client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, []stack.Grant{*second, *replaced}, permissions.Grants, "granting again replaces, and counts as the newest")
	rows := auditOf(t, client, "grant.create")
	require.Len(t, rows, 3)
	assert.Equal(t, []any{"system", agent.ID}, []any{rows[0].Layer, rows[0].AgentID})

	_, err = client.Services.GetAgentPermissions(t.Context(), "agt_none")
	mustRefuse(t, err, http.StatusNotFound, "NOT_FOUND")
}

func TestServicesGrantRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerAgent(t, client, "bot", "", stack.Logged)
	slack := connectSlack(t, client, "xoxb-0123456789")
	grant := func(change func(*stack.GrantParams)) error {
		params := stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: []string{"chat:write"}}
		change(&params)
		return failure(client.Services.GrantAgentAccess(t.Context(), params))
	}
	scopes := func(scopes ...string) error { return grant(func(p *stack.GrantParams) { p.Scopes = scopes }) }
	constraints := func(cs ...stack.Constraint) error { return grant(func(p *stack.GrantParams) { p.Constraints = cs }) }
	dataFrom := func(names ...string) error { return grant(func(p *stack.GrantParams) { p.AllowDataFrom = names }) }
	for name, tt := range map[string]struct {
		err   error
		field string
		says  string // in the message
	}{
		"scope twice": {scopes("chat:write", "chat:write"), "scopes[1]", "once"},
		"empty scope": {scopes(""), "scopes[0]", "non-empty"},
		"constraint path": {constraints(stack.Constraint{Path: "cookie", Op: stack.OpEq, Value: "x"}),
			"constraints", "url.pathname"},
		"constraint op": {constraints(stack.Constraint{Path: "method", Op: "like", Value: "x"}),
			"constraints", "starts_with"},
		"constraint pattern": {constraints(stack.Constraint{Path: "method", Op: stack.OpMatches, Value: "("}),
			"constraints", "RE2"},
		"too many constraints":      {constraints(make([]stack.Constraint, 33)...), "constraints", "at most 32"},
		"data from nowhere":         {dataFrom(""), "allow_data_from[0]", "non-empty"},
		"data from one thing twice": {dataFrom("crm", "crm"), "allow_data_from[1]", "once"},
	} {
		refused := refusal(t, tt.err, http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, "body."+tt.field, refused.Details["field"], name)
		assert.Contains(t, refused.Message, tt.says, name)
	}
	for name, err := range map[string]error{
		"unknown agent":      grant(func(p *stack.GrantParams) { p.AgentID = "agt_none" }),
		"unknown connection": grant(func(p *stack.GrantParams) { p.ServiceConnectionID = "scon_none" }),
		"the catalogue's id": grant(func(p *stack.GrantParams) { p.ServiceConnectionID = "svc_slack" }),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	err := scopes("chat:write", "admin")
	refused := refusal(t, err, http.StatusBadRequest, "SCOPE_ESCALATION")
	require.ErrorIs(t, err, stack.ErrScopeEscalation)
	assert.Equal(t, map[string]any{"check": "scope", "field": "body.scopes[1]", "sent": "admin",
		"allowed": []any{"chat:write", "channels:read"}}, refused.Details)
	permissions, err := client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Empty(t, permissions.Grants, "nothing refused is granted")
}

func TestServicesRevokeAgentAccess(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent, other := registerAgent(t, client, "bot", "", stack.Logged), registerAgent(t, client, "other", "", stack.Logged)
	slack, crm := connectSlack(t, client, "xoxb-0123456789"), connectCustom(t, client, "crm", "crm-0123456789")
	grantAll(t, client, agent.ID, slack)
	grantAll(t, client, agent.ID, crm)
	kept := grantAll(t, client, other.ID, slack)
	passport, theirs := passportFor(t, client, agent.ID, "slack"), passportFor(t, client, other.ID, "slack")
	child, err := client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: passport.Token,
		ChildAgentID: other.ID})
	require.NoError(t, err)

	revoked, err := client.Services.RevokeAgentAccess(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.AccessRevocation{AgentID: agent.ID, GrantsRevoked: 2, PassportsRevoked: 2}, *revoked)
	for _, token := range []stack.Secret{passport.Token, child.Token} {
		v := verification(t, client, token)
		assert.Equal(t, []any{false, "revoked"}, []any{v.Valid, v.Reason})
	}
	assert.True(t, verification(t, client, theirs.Token).Valid, "another agent's passport lives on")
	permissions, err := client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Empty(t, permissions.Grants)
	permissions, err = client.Services.GetAgentPermissions(t.Context(), other.ID)
	require.NoError(t, err)
	assert.Equal(t, []stack.Grant{*kept}, permissions.Grants)
	next := passportFor(t, client, agent.ID, "slack")
	assert.Empty(t, verification(t, client, next.Token).Claims.STK.Services, "the next passport carries no grant")
	rows := auditOf(t, client, "grant.revoke")
	require.Len(t, rows, 1)
	assert.Equal(t, agent.ID, rows[0].AgentID)

	again, err := client.Services.RevokeAgentAccess(t.Context(), other.ID)
	require.NoError(t, err)
	assert.Equal(t, 1, again.GrantsRevoked)
	again, err = client.Services.RevokeAgentAccess(t.Context(), other.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.AccessRevocation{AgentID: other.ID}, *again, "a repetition finds nothing")
	_, err = client.Services.RevokeAgentAccess(t.Context(), "agt_none")
	mustRefuse(t, err, http.StatusNotFound, "NOT_FOUND")
}

// A passport that had expired before its agent lost its grants cannot be refreshed back into them.
func TestServicesRevokeAgentAccessOfAnExpiredPassport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := stacktest.New(t).Client()
		agent := registerAgent(t, client, "bot", "", stack.Logged)
		grantAll(t, client, agent.ID, connectSlack(t, client, "xoxb-0123456789"))
		started, err := client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agent.ID,
			Mission: stack.MissionOpenParams{IntentSummary: "answer tickets", ExpiresIn: 2 * time.Hour},
			Passport: &stack.MissionPassportParams{TTL: time.Minute,
				Intent: &stack.Intent{Summary: "answer tickets", Services: []string{"slack"}}}})
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		_, err = client.Services.RevokeAgentAccess(t.Context(), agent.ID)
		require.NoError(t, err)
		_, err = client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: started.Passport.Token})
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
	})
}

func TestServicesDisconnect(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent, other := registerAgent(t, client, "bot", "", stack.Logged), registerAgent(t, client, "other", "", stack.Logged)
	slack, crm := connectSlack(t, client, "xoxb-0123456789"), connectCustom(t, client, "crm", "crm-0123456789")
	grantAll(t, client, agent.ID, slack)
	keptGrant := grantAll(t, client, agent.ID, crm)
	grantAll(t, client, other.ID, crm)
	passport, theirs := passportFor(t, client, agent.ID, "slack"), passportFor(t, client, other.ID, "crm")
	child, err := client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: passport.Token,
		ChildAgentID: other.ID})
	require.NoError(t, err)

	gone, err := client.Services.Disconnect(t.Context(), slack.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.Disconnection{ID: slack.ID, Provider: "slack", Status: stack.ConnectionDisconnected, GrantsRevoked: 1,
		PassportsRevoked: 2}, *gone)
	for _, token := range []stack.Secret{passport.Token, child.Token} {
		v := verification(t, client, token)
		assert.Equal(t, []any{false, "revoked", "Service disconnected"}, []any{v.Valid, v.Reason, v.RevocationReason})
	}
	assert.True(t, verification(t, client, theirs.Token).Valid)
	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []stack.Connection{*crm}, list)
	permissions, err := client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, []stack.Grant{*keptGrant}, permissions.Grants)
	assert.Len(t, auditOf(t, client, "service.disconnect"), 1)
	assert.Len(t, auditOf(t, client, "grant.revoke"), 1)

	for name, call := range map[string]func() error{
		"disconnect": func() error { return failure(client.Services.Disconnect(t.Context(), slack.ID)) },
		"verify":     func() error { return failure(client.Services.Verify(t.Context(), slack.ID)) },
		"grant": func() error {
			return failure(client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID,
				ServiceConnectionID: slack.ID,
				Scopes:              []string{"chat:write"}}))
		},
		"credential": func() error {
			return failure(client.Credentials.GetByConnection(t.Context(), slack.ID, stack.CredentialParams{}))
		},
	} {
		require.ErrorIs(t, call(), stack.ErrNotFound, name)
	}
}

// A delegate outlives its parent's checkout, but not the connection that it reaches.
func TestServicesDisconnectReachesDelegates(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent, other := registerAgent(t, client, "bot", "", stack.Logged), registerAgent(t, client, "other", "", stack.Logged)
	slack := connectSlack(t, client, "xoxb-0123456789")
	grantAll(t, client, agent.ID, slack)
	parent := passportFor(t, client, agent.ID, "slack")
	child, err := client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: parent.Token,
		ChildAgentID: other.ID})
	require.NoError(t, err)
	_, err = client.Passports.Checkout(t.Context(), parent.JTI, stack.CheckpointParams{ServicesUsed: []string{}})
	require.NoError(t, err)
	require.True(t, verification(t, client, child.Token).Valid)
	gone, err := client.Services.Disconnect(t.Context(), slack.ID)
	require.NoError(t, err)
	assert.Equal(t, 1, gone.PassportsRevoked)
	assert.False(t, verification(t, client, child.Token).Valid)
}

// Where an agent has grants on several connections of one provider, the newest serves the key.
func TestServicesNewestGrantServes(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	var seen []string
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	}))
	client := srv.Client()
	agent := registerAgent(t, client, "bot", stack.CredentialDirect, stack.Logged)
	first, second := connectSlack(t, client, "xoxb-first-0123456789"), connectSlack(t, client, "xoxb-second-0123456789")
	for _, tt := range []struct {
		granted *stack.Connection
		token   string
	}{
		{second, "xoxb-second-0123456789"},
		{first, "xoxb-first-0123456789"},   // granted later, so it is the newest although connected earlier
		{second, "xoxb-second-0123456789"}, // granted again
	} {
		grantAll(t, client, agent.ID, tt.granted)
		passport := passportFor(t, client, agent.ID, "slack")
		credential, err := client.Credentials.Get(t.Context(), "slack", stack.CredentialParams{PassportToken: passport.Token})
		require.NoError(t, err)
		assert.Equal(t, tt.token, credential.Credential.Reveal())
		_, err = client.Proxy.Request(t.Context(), stack.ProxyRequest{Service: "slack", Method: "GET",
			URL:           "https://slack.com/api/x",
			PassportToken: passport.Token})
		require.NoError(t, err)
		assert.Equal(t, "Bearer "+tt.token, seen[len(seen)-1])
	}
}

// Each kind of credential reaches its service where the catalogue or the caller says.
func TestServicesInjection(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	var header http.Header
	var path string
	client := srv.Client()
	agent := registerAgent(t, client, "bot", "", stack.Logged)
	secret := stack.NewSecret("token-0123456789")
	for name, tt := range map[string]struct {
		connect stack.ServiceConnectParams
		custom  *stack.ServiceConnectCustomParams
		host    string
		url     string
		want    map[string]string
		path    string
	}{
		"bearer": {connect: stack.ServiceConnectParams{ServiceID: "github"}, host: "api.github.com",
			url:  "https://api.github.com/user",
			want: map[string]string{"Authorization": "Bearer token-0123456789"}, path: "/user"},
		"named header": {connect: stack.ServiceConnectParams{ServiceID: "anthropic"}, host: "api.anthropic.com",
			url: "https://api.anthropic.com/v1/models", want: map[string]string{"X-Api-Key": "token-0123456789"},
			path: "/v1/models"},
		"header with a prefix": {connect: stack.ServiceConnectParams{ServiceID: "discord"}, host: "discord.com",
			url:  "https://discord.com/api/v10/users/@me",
			want: map[string]string{"Authorization": "Bot token-0123456789"}, path: "/api/v10/users/@me"},
		"basic and account": {connect: stack.ServiceConnectParams{ServiceID: "twilio",
			Fields: map[string]string{"account_id": "AC42"}},
			host: "api.twilio.com", url: "https://api.twilio.com/2010-04-01/Accounts/{{account_id}}.json",
			want: map[string]string{"Authorization": "Basic QUM0Mjp0b2tlbi0wMTIzNDU2Nzg5"},
			path: "/2010-04-01/Accounts/AC42.json"},
		"instance": {connect: stack.ServiceConnectParams{ServiceID: "salesforce",
			Fields: map[string]string{"instance_url": "https://acme.my.salesforce.com"}}, host: "acme.my.salesforce.com",
			url: "{{instance_url}}/services/data", want: map[string]string{"Authorization": "Bearer token-0123456789"},
			path: "/services/data"},
		"custom fields": {custom: &stack.ServiceConnectCustomParams{Name: "erp", Credential: stack.CustomCredential{
			Fields: map[string]stack.Secret{"username": stack.NewSecret("ada"), "password": secret,
				"header:X-Tenant": stack.NewSecret("acme")}}},
			host: "erp.example", url: "https://erp.example/x",
			want: map[string]string{"Authorization": "Basic YWRhOnRva2VuLTAxMjM0NTY3ODk=", "X-Tenant": "acme"}, path: "/x"},
	} {
		srv.Upstream(tt.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			header, path = r.Header, r.URL.Path
			_, _ = w.Write([]byte("ok"))
		}))
		var connection *stack.Connection
		var err error
		if tt.custom != nil {
			connection, err = client.Services.ConnectCustom(t.Context(), *tt.custom)
		} else {
			tt.connect.OAuthToken, tt.connect.Scopes = secret, []string{"x"}
			connection, err = client.Services.Connect(t.Context(), tt.connect)
		}
		require.NoError(t, err, name)
		grantAll(t, client, agent.ID, connection)
		passport := passportFor(t, client, agent.ID, connection.Provider)
		_, err = client.Proxy.Request(t.Context(), stack.ProxyRequest{Service: connection.Provider, Method: "GET", URL: tt.url,
			PassportToken: passport.Token})
		require.NoError(t, err, name)
		for key, value := range tt.want {
			assert.Equal(t, value, header.Get(key), "%s: %s", name, key)
		}
		assert.Equal(t, tt.path, path, name)
	}
}

// A secret shows in no listing, error, audit row or log, and not when the types that hold it are printed or logged.
func TestServicesSecretsStayHidden(t *testing.T) {
	t.Parallel()
	const canary = "canary-0123456789"
	secret := stack.NewSecret(canary)
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := stacktest.New(t).Client(stack.WithLogger(logger))

	connect := stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: secret, Scopes: []string{"x"}}
	custom := stack.ServiceConnectCustomParams{Name: "erp", Credential: stack.CustomCredential{Fields: map[string]stack.Secret{
		"username": stack.NewSecret("ada"), "password": secret, "header:X-Key": secret}}}
	first, err := client.Services.Connect(t.Context(), connect)
	require.NoError(t, err)
	second, err := client.Services.ConnectCustom(t.Context(), custom)
	require.NoError(t, err)
	_, err = client.Services.Verify(t.Context(), first.ID)
	require.NoError(t, err)
	_, err = client.Credentials.GetByConnection(t.Context(), second.ID, stack.CredentialParams{})
	require.NoError(t, err)
	credential, err := client.Credentials.Get(t.Context(), "slack", stack.CredentialParams{})
	require.NoError(t, err)
	require.Equal(t, canary, credential.Credential.Reveal())

	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	page, err := client.Audit.List(t.Context(), stack.AuditListParams{Limit: 100})
	require.NoError(t, err)
	for name, v := range map[string]any{"connection": first, "custom connection": second, "list": list, "audit": page.Entries} {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		assert.NotContains(t, string(text), canary, name)
	}
	params := stack.CredentialParams{PassportToken: secret}
	for _, v := range []any{connect, &connect, custom, &custom, custom.Credential, *credential, credential, params} {
		logger.Info("holds a secret", "value", v)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			assert.NotContains(t, fmt.Sprintf(verb, v), canary, "%T", v)
		}
	}
	assert.NotEmpty(t, log.String())
	assert.NotContains(t, log.String(), canary)
}

func TestServicesConcurrently(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerAgent(t, client, "bot", "", stack.Logged)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				connection, err := client.Services.ConnectCustom(t.Context(),
					stack.ServiceConnectCustomParams{Name: fmt.Sprintf("service-%d", i),
						Credential: stack.CustomCredential{Token: stack.NewSecret(fmt.Sprintf("token-%d-0123456789", i))}})
				if !assert.NoError(t, err) {
					return
				}
				_, err = client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID,
					ServiceConnectionID: connection.ID,
					Scopes:              connection.Scopes})
				assert.NoError(t, err)
				_, err = client.Services.Verify(t.Context(), connection.ID)
				assert.NoError(t, err)
				_, err = client.Services.List(t.Context())
				assert.NoError(t, err)
				_, err = client.Services.GetAgentPermissions(t.Context(), agent.ID)
				assert.NoError(t, err)
				credential, err := client.Credentials.Get(t.Context(), fmt.Sprintf("service-%d", i), stack.CredentialParams{})
				if assert.NoError(t, err) {
					assert.Equal(t, fmt.Sprintf("token-%d-0123456789", i), credential.Credential.Reveal())
				}
				_, err = client.Services.Disconnect(t.Context(), connection.ID)
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
	permissions, err := client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Empty(t, permissions.Grants)
}
