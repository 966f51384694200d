package stack_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// connectSlack connects Slack with two scopes.
func connectSlack(t *testing.T, client *stack.Client, token string) *stack.Connection {
	t.Helper()
	connection, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "slack",
		OAuthToken: stack.NewSecret(token), Scopes: []string{"chat:write", "channels:read"}})
	require.NoError(t, err)
	return connection
}

// connectCustom connects a custom service with a token.
func connectCustom(t *testing.T, client *stack.Client, name, token string) *stack.Connection {
	t.Helper()
	connection, err := client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: name,
		Credential: stack.CustomCredential{Token: stack.NewSecret(token)}, Scopes: []string{"use"}})
	require.NoError(t, err)
	return connection
}

// grantAll lets an agent use a connection with all its scopes.
func grantAll(t *testing.T, client *stack.Client, agentID string, connection *stack.Connection) *stack.Grant {
	t.Helper()
	grant, err := client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agentID,
		ServiceConnectionID: connection.ID, Scopes: connection.Scopes})
	require.NoError(t, err)
	return grant
}

// registerAgent registers an agent with the given access mode and accountability.
func registerAgent(t *testing.T, client *stack.Client, name string, access stack.CredentialAccess,
	mode stack.Accountability) *stack.Agent {
	t.Helper()
	agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: name, CredentialAccess: access,
		AccountabilityMode: mode})
	require.NoError(t, err)
	return agent
}

// passportFor opens a Mission for an agent and issues a passport whose intent names the services.
func passportFor(t *testing.T, client *stack.Client, agentID string, services ...string) *stack.Passport {
	t.Helper()
	started, err := client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agentID,
		Mission:  stack.MissionOpenParams{IntentSummary: "answer tickets"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "answer tickets", Services: services, WillDelegate: true}}})
	require.NoError(t, err)
	return &started.Passport
}

// refusal asserts that err is the API's refusal with this status and code, and returns it.
func refusal(t *testing.T, err error, status int, code string) *stack.Error {
	t.Helper()
	var refused *stack.Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, status, refused.Status, refused.Error())
	assert.Equal(t, code, refused.Code, refused.Error())
	assert.NotEmpty(t, refused.RequestID)
	return refused
}

// auditOf lists the newest audit rows of one action.
func auditOf(t *testing.T, client *stack.Client, action string) []stack.AuditEntry {
	t.Helper()
	page, err := client.Audit.List(t.Context(), stack.AuditListParams{Limit: 100})
	require.NoError(t, err)
	var rows []stack.AuditEntry
	for _, row := range page.Entries {
		if row.Action == action {
			rows = append(rows, row)
		}
	}
	return rows
}

func TestServicesListAvailable(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	entries, err := client.Services.ListAvailable(t.Context())
	require.NoError(t, err)
	byProvider := map[string]stack.Service{}
	for _, e := range entries {
		assert.NotContains(t, byProvider, e.Provider, "one entry a provider")
		byProvider[e.Provider] = e
		assert.True(t, strings.HasPrefix(e.ID, "svc_"), e.ID)
		for _, text := range []string{e.Name, e.Description} {
			assert.NotEmpty(t, text, e.Provider)
		}
		assert.NotEmpty(t, e.AllowedHosts, e.Provider)
		assert.NotEmpty(t, e.Scopes, e.Provider)
		assert.Contains(t, []stack.AuthKind{stack.AuthKindOAuth, stack.AuthKindAPIKey, stack.AuthKindBasic, stack.AuthKindCustom}, e.AuthKind)
		assert.Contains(t, []stack.InjectionKind{stack.InjectBearer, stack.InjectHeader, stack.InjectBasic}, e.Injection.Kind)
		assert.Equal(t, e.Injection.Kind == stack.InjectHeader, e.Injection.Header != "", "%s: a named header has a name", e.Provider)
	}
	for _, provider := range strings.Fields("slack github google notion linear jira hubspot stripe openai anthropic openrouter supabase " +
		"discord twilio sendgrid resend agentmail zendesk intercom salesforce") {
		assert.Contains(t, byProvider, provider)
	}
	assert.Contains(t, byProvider["slack"].AllowedHosts, "slack.com")
	assert.Contains(t, byProvider["github"].AllowedHosts, "api.github.com")
	assert.Subset(t, byProvider["slack"].Scopes, []string{"chat:write", "channels:read"})
	assert.Equal(t, stack.Injection{Kind: stack.InjectHeader, Header: "x-api-key"}, byProvider["anthropic"].Injection)

	again, err := client.Services.ListAvailable(t.Context())
	require.NoError(t, err)
	assert.Equal(t, entries, again, "ids are stable")
}

// Every service of the catalogue can be connected with what its template names, and says what is missing otherwise.
func TestServicesListTemplates(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	templates, err := client.Services.ListTemplates(t.Context())
	require.NoError(t, err)
	entries, err := client.Services.ListAvailable(t.Context())
	require.NoError(t, err)
	require.Len(t, templates, len(entries)+1)
	values := map[string]string{"account_id": "AC0123456789", "username": "AKIA0123456789"}
	for i, e := range entries {
		template := templates[i]
		require.Equal(t, e.Provider, template.Provider)
		require.Equal(t, stack.CredentialField{Name: "oauth_token", Description: template.Fields[0].Description, Secret: true,
			Required: true}, template.Fields[0])
		values["instance_url"] = "https://acme" + strings.TrimPrefix(e.AllowedHosts[0], "*")
		fields := map[string]string{}
		for _, f := range template.Fields[1:] {
			assert.False(t, f.Secret, "only the token is secret")
			_, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: e.ID,
				OAuthToken: stack.NewSecret("token-0123456789"), Scopes: e.Scopes[:1], Fields: fields})
			refused := refusal(t, err, http.StatusBadRequest, "INVALID_REQUEST")
			assert.Equal(t, "body.fields."+f.Name, refused.Details["field"], e.Provider)
			fields[f.Name] = values[f.Name]
		}
		connection, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: e.ID,
			OAuthToken: stack.NewSecret("token-0123456789"), Scopes: e.Scopes[:1], Fields: fields})
		require.NoError(t, err, e.Provider)
		assert.Equal(t, e.ID, connection.ServiceID)
		if _, ok := fields["instance_url"]; ok {
			assert.Equal(t, []string{"acme" + strings.TrimPrefix(e.AllowedHosts[0], "*")}, connection.AllowedHosts)
			assert.Equal(t, fields, connection.Fields)
		} else {
			assert.Equal(t, e.AllowedHosts, connection.AllowedHosts)
		}
	}
	custom := templates[len(entries)]
	assert.Equal(t, "custom", custom.Provider)
	assert.Len(t, custom.Fields, 3)
}

func TestServicesConnectAndList(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	empty, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []stack.Connection{}, empty)

	slack := connectSlack(t, client, "xoxb-0123456789")
	assert.True(t, strings.HasPrefix(slack.ID, "scon_"), slack.ID)
	assert.NotEmpty(t, slack.OperatorID)
	assert.Equal(t, []any{"svc_slack", "slack", "Slack", stack.ConnectionConnected, []string{"chat:write", "channels:read"}, false},
		[]any{slack.ServiceID, slack.Provider, slack.Name, slack.Status, slack.Scopes, slack.Verified})
	assert.Contains(t, slack.AllowedHosts, "slack.com")
	assert.False(t, slack.ConnectedAt.IsZero())
	second, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "svc_slack",
		OAuthToken: stack.NewSecret("xoxb-9876543210"), Scopes: []string{"a-scope-that-no-catalogue-lists"}})
	require.NoError(t, err, "by the entry's id, a second account")
	assert.NotEqual(t, slack.ID, second.ID)

	custom, err := client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "crm", Description: "Our CRM",
		Credential:   stack.CustomCredential{Token: stack.NewSecret("crm-0123456789")},
		AllowedHosts: []string{"crm.example", "*.crm.example:8443"}})
	require.NoError(t, err)
	assert.Equal(t, []any{"", "crm", "crm", "Our CRM", []string{"api"}, []string{"crm.example", "*.crm.example:8443"}},
		[]any{custom.ServiceID, custom.Provider, custom.Name, custom.Description, custom.Scopes, custom.AllowedHosts})
	basic, err := client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "erp", Scopes: []string{"read", "write"},
		Credential: stack.CustomCredential{Fields: map[string]stack.Secret{"username": stack.NewSecret("ada"),
			"password": stack.NewSecret("p4ssword:ä"), "header:X-Tenant": stack.NewSecret("acme")}}})
	require.NoError(t, err)
	assert.Equal(t, []string{"read", "write"}, basic.Scopes)
	assert.Nil(t, basic.AllowedHosts)

	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []stack.Connection{*slack, *second, *custom, *basic}, list, "oldest first")
	rows := auditOf(t, client, "service.connect")
	require.Len(t, rows, 4)
	assert.Equal(t, []any{"vault", stack.OutcomeSuccess}, []any{rows[0].Layer, rows[0].Outcome})
}

// What the client lets pass and the server refuses. canary must not come back.
func TestServicesConnectRefusals(t *testing.T) {
	t.Parallel()
	const canary = "canary\n0123456789"
	client := stacktest.New(t).Client()
	token := stack.NewSecret("token-0123456789")
	catalogued := func(params stack.ServiceConnectParams) func(t *testing.T) error {
		return func(t *testing.T) error {
			_, err := client.Services.Connect(t.Context(), params)
			return err
		}
	}
	custom := func(params stack.ServiceConnectCustomParams) func(t *testing.T) error {
		return func(t *testing.T) error {
			_, err := client.Services.ConnectCustom(t.Context(), params)
			return err
		}
	}
	fields := func(pairs ...string) stack.CustomCredential {
		m := map[string]stack.Secret{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = stack.NewSecret(pairs[i+1])
		}
		return stack.CustomCredential{Fields: m}
	}
	many := map[string]stack.Secret{}
	for i := range 17 {
		many[fmt.Sprintf("header:X-%d", i)] = token
	}
	good := stack.CustomCredential{Token: token}
	one := []string{"x"}
	for name, tt := range map[string]struct {
		call   func(t *testing.T) error
		status int
		code   string
		field  string // of the details; empty where there is none
		says   string // in the message
	}{
		"unknown service": {catalogued(stack.ServiceConnectParams{ServiceID: "svc_none", OAuthToken: token, Scopes: one}),
			404, "NOT_FOUND", "", "svc_none"},
		"no token": {catalogued(stack.ServiceConnectParams{ServiceID: "slack", Scopes: one}),
			400, "INVALID_REQUEST", "body.oauth_token", "oauth_token is missing"},
		"token with a control character": {catalogued(stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: stack.NewSecret(canary), Scopes: one}),
			400, "INVALID_REQUEST", "body.oauth_token", "without spaces"},
		"endless token": {catalogued(stack.ServiceConnectParams{ServiceID: "slack", Scopes: one,
			OAuthToken: stack.NewSecret(strings.Repeat("x", 16<<10+1))}), 400, "INVALID_REQUEST", "body.oauth_token", "16384"},
		"empty scope": {catalogued(stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: token, Scopes: []string{"x", " "}}),
			400, "INVALID_REQUEST", "body.scopes[1]", "non-empty"},
		"scope twice": {catalogued(stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: token, Scopes: []string{"x", "x"}}),
			400, "INVALID_REQUEST", "body.scopes[1]", "once"},
		"too many scopes": {catalogued(stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: token, Scopes: make([]string, 65)}),
			400, "INVALID_REQUEST", "body.scopes", "at most 64"},
		"long scope": {catalogued(stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: token, Scopes: []string{strings.Repeat("x", 257)}}),
			400, "INVALID_REQUEST", "body.scopes[0]", "at most 256"},
		"field where none is needed": {catalogued(stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: token, Scopes: one,
			Fields: map[string]string{"team": "T1"}}), 400, "INVALID_REQUEST", "body.fields.team", "needs no fields"},
		"unknown field": {catalogued(stack.ServiceConnectParams{ServiceID: "twilio", OAuthToken: token, Scopes: one,
			Fields: map[string]string{"account_id": "AC1", "team": "T1"}}), 400, "INVALID_REQUEST", "body.fields.team", "account_id"},
		"bad account": {catalogued(stack.ServiceConnectParams{ServiceID: "twilio", OAuthToken: token, Scopes: one,
			Fields: map[string]string{"account_id": "a/../b"}}), 400, "INVALID_REQUEST", "body.fields.account_id", "letters"},
		"another's instance": {catalogued(stack.ServiceConnectParams{ServiceID: "salesforce", OAuthToken: token, Scopes: one,
			Fields: map[string]string{"instance_url": "https://evil.example"}}), 400, "INVALID_REQUEST", "body.fields.instance_url", "*.salesforce.com"},
		"instance that only ends alike": {catalogued(stack.ServiceConnectParams{ServiceID: "salesforce", OAuthToken: token, Scopes: one,
			Fields: map[string]string{"instance_url": "https://.salesforce.com"}}), 400, "INVALID_REQUEST", "body.fields.instance_url", "https://host"},
		"instance without TLS": {catalogued(stack.ServiceConnectParams{ServiceID: "salesforce", OAuthToken: token, Scopes: one,
			Fields: map[string]string{"instance_url": "http://acme.my.salesforce.com"}}), 400, "INVALID_REQUEST", "body.fields.instance_url", "https"},
		"instance with user information": {catalogued(stack.ServiceConnectParams{ServiceID: "salesforce", OAuthToken: token, Scopes: one,
			Fields: map[string]string{"instance_url": "https://u:canary@acme.my.salesforce.com"}}), 400, "INVALID_REQUEST", "body.fields.instance_url", "[REDACTED]"},

		"custom name with a space": {custom(stack.ServiceConnectCustomParams{Name: "My CRM", Credential: good}),
			400, "INVALID_REQUEST", "body.name", "My CRM"},
		"custom name too long": {custom(stack.ServiceConnectCustomParams{Name: strings.Repeat("x", 65), Credential: good}),
			400, "INVALID_REQUEST", "body.name", "1 to 64"},
		"custom name of a provider": {custom(stack.ServiceConnectCustomParams{Name: "slack", Credential: good}),
			400, "INVALID_REQUEST", "body.name", "catalogue"},
		"custom name of an entry": {custom(stack.ServiceConnectCustomParams{Name: "svc_slack", Credential: good}),
			400, "INVALID_REQUEST", "body.name", "catalogue"},
		"custom description": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: good, Description: strings.Repeat("ä", 257)}),
			400, "INVALID_REQUEST", "body.description", "at most 256"},
		"custom scope": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: good, Scopes: []string{""}}),
			400, "INVALID_REQUEST", "body.scopes[0]", "non-empty"},
		"custom host": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: good, AllowedHosts: []string{"a.example", "https://crm.example"}}),
			400, "INVALID_REQUEST", "body.allowed_hosts[1]", "api.example.com"},
		"custom token with a control character": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: stack.CustomCredential{Token: stack.NewSecret(canary)}}),
			400, "INVALID_REQUEST", "body.credential", "without spaces"},
		"custom username alone": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("username", "canary")}),
			400, "INVALID_REQUEST", "body.credential", "need each other"},
		"custom password alone": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("password", "canary")}),
			400, "INVALID_REQUEST", "body.credential", "need each other"},
		"custom username with a colon": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("username", "can:canary", "password", "x")}),
			400, "INVALID_REQUEST", "body.credential.username", "colon"},
		"custom empty username": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("username", "", "password", "x")}),
			400, "INVALID_REQUEST", "body.credential.username", "1 to 16384"},
		"custom unknown entry": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("canary", "canary")}),
			400, "INVALID_REQUEST", "body.credential", "header:<Name>"},
		"custom header that the proxy manages": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("header:Host", "canary")}),
			400, "INVALID_REQUEST", "body.credential", "Host"},
		"custom header with a bad name": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("header:X Y", "canary")}),
			400, "INVALID_REQUEST", "body.credential", "header"},
		"custom header with a line break": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("header:X-Key", canary)}),
			400, "INVALID_REQUEST", "body.credential", "X-Key"},
		"custom empty header": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("header:X-Key", "")}),
			400, "INVALID_REQUEST", "body.credential.header:X-Key", "1 to 16384"},
		"custom header twice": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: fields("header:X-Key", "canary", "header:x-key", "canary")}),
			400, "INVALID_REQUEST", "body.credential.header:x-key", "once"},
		"custom authorization twice": {custom(stack.ServiceConnectCustomParams{Name: "crm",
			Credential: fields("username", "ada", "password", "canary", "header:authorization", "canary")}),
			400, "INVALID_REQUEST", "body.credential.header:authorization", "Authorization"},
		"custom with too many entries": {custom(stack.ServiceConnectCustomParams{Name: "crm", Credential: stack.CustomCredential{Fields: many}}),
			400, "INVALID_REQUEST", "body.credential", "header:<Name>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused := refusal(t, tt.call(t), tt.status, tt.code)
			if tt.field != "" {
				assert.Equal(t, tt.field, refused.Details["field"])
				assert.NotEmpty(t, refused.Details["allowed"])
			}
			assert.Contains(t, refused.Message, tt.says)
			assert.NotContains(t, fmt.Sprint(refused, refused.Details), "canary")
		})
	}
}

// Bodies that the client cannot send.
func TestServicesRawRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	type body = map[string]any
	for name, tt := range map[string]struct {
		path, field string
		body        body
	}{
		"no scopes":              {"/v1/services/connect", "body.scopes", body{"service_id": "slack", "oauth_token": "t", "scopes": []string{}}},
		"scopes left out":        {"/v1/services/connect", "body.scopes", body{"service_id": "slack", "oauth_token": "t"}},
		"null token":             {"/v1/services/connect", "body.oauth_token", body{"service_id": "slack", "oauth_token": nil, "scopes": []string{"x"}}},
		"token of a wrong type":  {"/v1/services/connect", "body.oauth_token", body{"service_id": "slack", "oauth_token": 5, "scopes": []string{"x"}}},
		"custom without name":    {"/v1/services/custom", "body.name", body{"credential": "x"}},
		"custom without secret":  {"/v1/services/custom", "body.credential", body{"name": "crm"}},
		"custom empty secret":    {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": ""}},
		"custom null secret":     {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": nil}},
		"custom empty map":       {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": body{}}},
		"custom number":          {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": 12345}},
		"custom list":            {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": []string{"canary"}}},
		"custom map of a number": {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": body{"header:X-Key": 12345}}},
		"grant without scopes":   {"/v1/services/grant", "body.scopes", body{"agent_id": "agt_x", "service_connection_id": "scon_x"}},
		"unknown field":          {"/v1/services/grant", "body.scope", body{"agent_id": "agt_x", "service_connection_id": "scon_x", "scope": "x"}},
		"null allow_data_from": {"/v1/services/grant", "body.allow_data_from", body{"agent_id": "agt_x", "service_connection_id": "scon_x",
			"scopes": []string{"x"}, "allow_data_from": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused := refusal(t, client.Do(t.Context(), "POST", tt.path, tt.body, nil), 400, "INVALID_REQUEST")
			assert.Equal(t, tt.field, refused.Details["field"])
			assert.NotContains(t, fmt.Sprint(refused, refused.Details), "canary")
			assert.NotContains(t, fmt.Sprint(refused, refused.Details), "12345")
		})
	}
}

// noCalls fails the test when anything is sent.
type noCalls struct{ t *testing.T }

func (n noCalls) RoundTrip(req *http.Request) (*http.Response, error) {
	n.t.Errorf("%s %s was sent", req.Method, req.URL.Path)
	return nil, http.ErrUseLastResponse
}

func TestServicesParamErrors(t *testing.T) {
	t.Parallel()
	client, err := stack.New(stack.WithAPIKey("sk_live_x"), stack.WithBaseURL("http://stack.test"),
		stack.WithHTTPClient(&http.Client{Transport: noCalls{t}}))
	require.NoError(t, err)
	ctx, s, secret := t.Context(), client.Services, stack.NewSecret("canary-0123456789")
	call := func(_ any, err error) error { return err }
	for name, tt := range map[string]struct {
		err   error
		param string
	}{
		"connect without id":     {call(s.Connect(ctx, stack.ServiceConnectParams{OAuthToken: secret, Scopes: []string{"x"}})), "service_id"},
		"connect without scope":  {call(s.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: secret})), "scopes"},
		"custom without name":    {call(s.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Credential: stack.CustomCredential{Token: secret}})), "name"},
		"custom without secret":  {call(s.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: "crm"})), "credential"},
		"custom with empty map":  {call(s.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: "crm", Credential: stack.CustomCredential{Fields: map[string]stack.Secret{}}})), "credential"},
		"custom with both":       {call(s.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: "crm", Credential: stack.CustomCredential{Token: secret, Fields: map[string]stack.Secret{"header:X": secret}}})), "credential"},
		"verify without id":      {call(s.Verify(ctx, "")), "connection_id"},
		"disconnect without id":  {call(s.Disconnect(ctx, "")), "connection_id"},
		"grant without agent":    {call(s.GrantAgentAccess(ctx, stack.GrantParams{ServiceConnectionID: "scon_x", Scopes: []string{"x"}})), "agent_id"},
		"grant without id":       {call(s.GrantAgentAccess(ctx, stack.GrantParams{AgentID: "agt_x", Scopes: []string{"x"}})), "service_connection_id"},
		"grant without scope":    {call(s.GrantAgentAccess(ctx, stack.GrantParams{AgentID: "agt_x", ServiceConnectionID: "scon_x"})), "scopes"},
		"revoke without id":      {call(s.RevokeAgentAccess(ctx, "")), "agent_id"},
		"permissions without id": {call(s.GetAgentPermissions(ctx, "..")), "agent_id"},
	} {
		var param *stack.ParamError
		if assert.ErrorAs(t, tt.err, &param, name) {
			assert.Equal(t, tt.param, param.Param, name)
			assert.NotContains(t, tt.err.Error(), "canary", name)
		}
	}
}

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
	refusal(t, err, http.StatusNotFound, "NOT_FOUND")
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
	first, err := client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID,
		Scopes: []string{"chat:write"}, Constraints: constraints, AllowDataFrom: []string{"*"}})
	require.NoError(t, err)
	assert.Equal(t, stack.Grant{AgentID: agent.ID, ServiceConnectionID: slack.ID, Provider: "slack", Scopes: []string{"chat:write"},
		Constraints: constraints, AllowDataFrom: []string{"*"}, CreatedAt: first.CreatedAt}, *first)
	assert.False(t, first.CreatedAt.IsZero())
	second, err := client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: crm.ID,
		Scopes: []string{"use"}, AllowDataFrom: []string{}})
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
	refusal(t, err, http.StatusNotFound, "NOT_FOUND")
}

func TestServicesGrantRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerAgent(t, client, "bot", "", stack.Logged)
	slack := connectSlack(t, client, "xoxb-0123456789")
	ok := []string{"chat:write"}
	constraint := func(c stack.Constraint) []stack.Constraint { return []stack.Constraint{c} }
	for name, tt := range map[string]struct {
		params stack.GrantParams
		status int
		code   string
		field  any
	}{
		"unknown agent":             {stack.GrantParams{AgentID: "agt_none", ServiceConnectionID: slack.ID, Scopes: ok}, 404, "NOT_FOUND", nil},
		"unknown connection":        {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: "scon_none", Scopes: ok}, 404, "NOT_FOUND", nil},
		"the catalogue's id":        {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: "svc_slack", Scopes: ok}, 404, "NOT_FOUND", nil},
		"scope beyond":              {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: []string{"chat:write", "admin"}}, 400, "SCOPE_ESCALATION", "body.scopes[1]"},
		"scope twice":               {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: []string{"chat:write", "chat:write"}}, 400, "INVALID_REQUEST", "body.scopes[1]"},
		"constraint path":           {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: ok, Constraints: constraint(stack.Constraint{Path: "cookie", Op: stack.OpEq, Value: "x"})}, 400, "INVALID_REQUEST", "body.constraints"},
		"constraint op":             {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: ok, Constraints: constraint(stack.Constraint{Path: "method", Op: "like", Value: "x"})}, 400, "INVALID_REQUEST", "body.constraints"},
		"constraint pattern":        {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: ok, Constraints: constraint(stack.Constraint{Path: "method", Op: stack.OpMatches, Value: "("})}, 400, "INVALID_REQUEST", "body.constraints"},
		"too many constraints":      {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: ok, Constraints: make([]stack.Constraint, 33)}, 400, "INVALID_REQUEST", "body.constraints"},
		"data from nowhere":         {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: ok, AllowDataFrom: []string{""}}, 400, "INVALID_REQUEST", "body.allow_data_from[0]"},
		"data from one thing twice": {stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID, Scopes: ok, AllowDataFrom: []string{"crm", "crm"}}, 400, "INVALID_REQUEST", "body.allow_data_from[1]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := client.Services.GrantAgentAccess(t.Context(), tt.params)
			refused := refusal(t, err, tt.status, tt.code)
			assert.Equal(t, tt.field, refused.Details["field"])
			if tt.code == "SCOPE_ESCALATION" {
				require.ErrorIs(t, err, stack.ErrScopeEscalation)
				assert.Equal(t, "admin", refused.Details["sent"])
				assert.Equal(t, []any{"chat:write", "channels:read"}, refused.Details["allowed"])
			}
		})
	}
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
	child, err := client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: passport.Token, ChildAgentID: other.ID})
	require.NoError(t, err)

	revoked, err := client.Services.RevokeAgentAccess(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.AccessRevocation{AgentID: agent.ID, GrantsRevoked: 2, PassportsRevoked: 2}, *revoked)
	for _, token := range []stack.Secret{passport.Token, child.Token} {
		v, err := client.Passports.Verify(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, []any{false, "revoked"}, []any{v.Valid, v.Reason})
	}
	v, err := client.Passports.Verify(t.Context(), theirs.Token)
	require.NoError(t, err)
	assert.True(t, v.Valid, "another agent's passport lives on")
	permissions, err := client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Empty(t, permissions.Grants)
	permissions, err = client.Services.GetAgentPermissions(t.Context(), other.ID)
	require.NoError(t, err)
	assert.Equal(t, []stack.Grant{*kept}, permissions.Grants)
	next := passportFor(t, client, agent.ID, "slack")
	v, err = client.Passports.Verify(t.Context(), next.Token)
	require.NoError(t, err)
	assert.Empty(t, v.Claims.STK.Services, "the next passport carries no grant")
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
	refusal(t, err, http.StatusNotFound, "NOT_FOUND")
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
	child, err := client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: passport.Token, ChildAgentID: other.ID})
	require.NoError(t, err)

	gone, err := client.Services.Disconnect(t.Context(), slack.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.Disconnection{ID: slack.ID, Provider: "slack", Status: stack.ConnectionDisconnected, GrantsRevoked: 1,
		PassportsRevoked: 2}, *gone)
	for _, token := range []stack.Secret{passport.Token, child.Token} {
		v, err := client.Passports.Verify(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, []any{false, "revoked", "Service disconnected"}, []any{v.Valid, v.Reason, v.RevocationReason})
	}
	v, err := client.Passports.Verify(t.Context(), theirs.Token)
	require.NoError(t, err)
	assert.True(t, v.Valid)
	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []stack.Connection{*crm}, list)
	permissions, err := client.Services.GetAgentPermissions(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.Equal(t, []stack.Grant{*keptGrant}, permissions.Grants)
	assert.Len(t, auditOf(t, client, "service.disconnect"), 1)
	assert.Len(t, auditOf(t, client, "grant.revoke"), 1)

	for name, call := range map[string]func() error{
		"disconnect": func() error { _, err := client.Services.Disconnect(t.Context(), slack.ID); return err },
		"verify":     func() error { _, err := client.Services.Verify(t.Context(), slack.ID); return err },
		"grant": func() error {
			_, err := client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID,
				Scopes: []string{"chat:write"}})
			return err
		},
		"credential": func() error {
			_, err := client.Credentials.GetByConnection(t.Context(), slack.ID, stack.CredentialParams{})
			return err
		},
	} {
		require.ErrorIs(t, call(), stack.ErrNotFound, name)
	}
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
		_, err = client.Proxy.Request(t.Context(), stack.ProxyRequest{Service: "slack", Method: "GET", URL: "https://slack.com/api/x",
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
		"bearer": {connect: stack.ServiceConnectParams{ServiceID: "github"}, host: "api.github.com", url: "https://api.github.com/user",
			want: map[string]string{"Authorization": "Bearer token-0123456789"}, path: "/user"},
		"named header": {connect: stack.ServiceConnectParams{ServiceID: "anthropic"}, host: "api.anthropic.com",
			url: "https://api.anthropic.com/v1/models", want: map[string]string{"X-Api-Key": "token-0123456789"}, path: "/v1/models"},
		"header with a prefix": {connect: stack.ServiceConnectParams{ServiceID: "discord"}, host: "discord.com",
			url: "https://discord.com/api/v10/users/@me", want: map[string]string{"Authorization": "Bot token-0123456789"}, path: "/api/v10/users/@me"},
		"basic and account": {connect: stack.ServiceConnectParams{ServiceID: "twilio", Fields: map[string]string{"account_id": "AC42"}},
			host: "api.twilio.com", url: "https://api.twilio.com/2010-04-01/Accounts/{{account_id}}.json",
			want: map[string]string{"Authorization": "Basic QUM0Mjp0b2tlbi0wMTIzNDU2Nzg5"}, path: "/2010-04-01/Accounts/AC42.json"},
		"instance": {connect: stack.ServiceConnectParams{ServiceID: "salesforce",
			Fields: map[string]string{"instance_url": "https://acme.my.salesforce.com"}}, host: "acme.my.salesforce.com",
			url: "{{instance_url}}/services/data", want: map[string]string{"Authorization": "Bearer token-0123456789"}, path: "/services/data"},
		"custom fields": {custom: &stack.ServiceConnectCustomParams{Name: "erp", Credential: stack.CustomCredential{
			Fields: map[string]stack.Secret{"username": stack.NewSecret("ada"), "password": secret, "header:X-Tenant": stack.NewSecret("acme")}}},
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
				connection, err := client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: fmt.Sprintf("service-%d", i),
					Credential: stack.CustomCredential{Token: stack.NewSecret(fmt.Sprintf("token-%d-0123456789", i))}})
				if !assert.NoError(t, err) {
					return
				}
				_, err = client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: connection.ID,
					Scopes: connection.Scopes})
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
