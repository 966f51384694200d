package stack_test

import (
	"fmt"
	"net/http"
	"strings"
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
		Mission: stack.MissionOpenParams{IntentSummary: "answer tickets"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "answer tickets", Services: services,
			WillDelegate: true}}})
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

// mustRefuse asserts that err is the API's refusal with this status and code.
func mustRefuse(t *testing.T, err error, status int, code string) {
	t.Helper()
	assert.NotNil(t, requireRefused(t, err, status, code))
}

// verification asks the server about a passport.
func verification(t *testing.T, client *stack.Client, token stack.Secret) *stack.Verification {
	t.Helper()
	v, err := client.Passports.Verify(t.Context(), token)
	require.NoError(t, err)
	return v
}

// failure drops a call's result.
func failure(_ any, err error) error { return err }

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
		assert.Contains(t, []stack.AuthKind{stack.AuthKindOAuth, stack.AuthKindAPIKey, stack.AuthKindBasic,
			stack.AuthKindCustom}, e.AuthKind)
		assert.Contains(t, []stack.InjectionKind{stack.InjectBearer, stack.InjectHeader, stack.InjectBasic}, e.Injection.Kind)
		assert.Equal(t, e.Injection.Kind == stack.InjectHeader, e.Injection.Header != "", "%s: a named header has a name",
			e.Provider)
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
			Required: e.AuthKind != stack.AuthKindOAuth}, template.Fields[0])
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
	assert.Equal(t, []any{"svc_slack", "slack", "Slack", stack.ConnectionConnected, []string{"chat:write",
		"channels:read"}, false},
		[]any{slack.ServiceID, slack.Provider, slack.Name, slack.Status, slack.Scopes, slack.Verified})
	assert.Contains(t, slack.AllowedHosts, "slack.com")
	assert.False(t, slack.ConnectedAt.IsZero())
	second, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "svc_slack",
		OAuthToken: stack.NewSecret("xoxb-9876543210"), Scopes: []string{"a-scope-that-no-catalogue-lists"}})
	require.NoError(t, err, "by the entry's id, a second account")
	assert.NotEqual(t, slack.ID, second.ID)

	custom, err := client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "crm",
		Description:  "Our CRM",
		Credential:   stack.CustomCredential{Token: stack.NewSecret("crm-0123456789")},
		AllowedHosts: []string{"crm.example", "*.crm.example:8443"}})
	require.NoError(t, err)
	assert.Equal(t, []any{"", "crm", "crm", "Our CRM", []string{"api"}, []string{"crm.example", "*.crm.example:8443"}},
		[]any{custom.ServiceID, custom.Provider, custom.Name, custom.Description, custom.Scopes, custom.AllowedHosts})
	basic, err := client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "erp",
		Scopes: []string{"read", "write"},
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

// What the client lets pass and the server refuses.
func TestServicesConnectRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	pairs := func(kv []string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	connect := func(serviceID, token string, scopes []string, fields ...string) error {
		return failure(client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: serviceID,
			OAuthToken: stack.NewSecret(token), Scopes: scopes, Fields: pairs(fields)}))
	}
	long, one, many := strings.Repeat("x", 16<<10+1), []string{"x"}, make([]string, 65)
	for name, tt := range map[string]struct {
		err   error
		field string
		says  string // in the message
	}{
		"no token":              {connect("stripe", "", one), "oauth_token", "oauth_token is missing"},
		"token with a line end": {connect("slack", "canary\n", one), "oauth_token", "without spaces"},
		"endless token":         {connect("slack", long, one), "oauth_token", "16384"},
		"empty scope":           {connect("slack", "t", []string{"x", " "}), "scopes[1]", "non-empty"},
		"scope twice":           {connect("slack", "t", []string{"x", "x"}), "scopes[1]", "once"},
		"too many scopes":       {connect("slack", "t", many), "scopes", "at most 64"},
		"long scope":            {connect("slack", "t", []string{long[:257]}), "scopes[0]", "at most 256"},
		"needless field":        {connect("slack", "t", one, "team", "T1"), "fields.team", "needs no fields"},
		"missing field":         {connect("twilio", "t", one), "fields.account_id", "account SID"},
		"unknown field":         {connect("twilio", "t", one, "account_id", "A", "team", "T1"), "fields.team", "account_id"},
		"bad account":           {connect("twilio", "t", one, "account_id", "a/../b"), "fields.account_id", "letters"},
		"another's instance": {connect("salesforce", "t", one, "instance_url", "https://evil.example"),
			"fields.instance_url", "*.salesforce.com"},
		"instance that only ends alike": {connect("salesforce", "t", one, "instance_url", "https://.salesforce.com"),
			"fields.instance_url", "https://host"},
		"instance without TLS": {connect("salesforce", "t", one, "instance_url", "http://acme.my.salesforce.com"),
			"fields.instance_url", "https://host"},
		"instance with a path": {connect("salesforce", "t", one, "instance_url", "https://acme.my.salesforce.com/x"),
			"fields.instance_url", "path"},
		"instance with user information": {connect("salesforce", "t", one, "instance_url", "https://u:canary@a.salesforce.com"),
			"fields.instance_url", "[REDACTED]"},
	} {
		refused := refusal(t, tt.err, http.StatusBadRequest, "INVALID_REQUEST")
		require.ErrorIs(t, tt.err, stack.ErrInvalidRequest, name)
		assert.Equal(t, "body."+tt.field, refused.Details["field"], name)
		assert.NotEmpty(t, refused.Details["allowed"], name)
		assert.Contains(t, refused.Message, tt.says, name)
		assert.NotContains(t, fmt.Sprint(refused, refused.Details), "canary", name)
	}
	mustRefuse(t, connect("svc_none", "t", one), http.StatusNotFound, "NOT_FOUND")
	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list, "nothing refused is connected")
}

func TestServicesConnectCustomRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	connect := func(params stack.ServiceConnectCustomParams) error {
		if params.Name == "" {
			params.Name = "crm"
		}
		if params.Credential.Fields == nil && params.Credential.Token.IsZero() {
			params.Credential.Token = stack.NewSecret("t")
		}
		return failure(client.Services.ConnectCustom(t.Context(), params))
	}
	named := func(name string) error { return connect(stack.ServiceConnectCustomParams{Name: name}) }
	fields := func(kv ...string) error {
		m := map[string]stack.Secret{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = stack.NewSecret(kv[i+1])
		}
		return connect(stack.ServiceConnectCustomParams{Credential: stack.CustomCredential{Fields: m}})
	}
	var many []string
	for i := range 17 {
		many = append(many, fmt.Sprintf("header:X-%d", i), "x")
	}
	for name, tt := range map[string]struct {
		err   error
		field string
		says  string // in the message
	}{
		"name with a space":  {named("My CRM"), "name", "My CRM"},
		"name too long":      {named(strings.Repeat("x", 65)), "name", "1 to 64"},
		"name of a provider": {named("slack"), "name", "catalogue"},
		"name of an entry":   {named("svc_slack"), "name", "catalogue"},
		"name with a hyphen": {named("crm-"), "name", "inner hyphens"},
		"endless description": {connect(stack.ServiceConnectCustomParams{Description: strings.Repeat("ä", 257)}),
			"description", "256"},
		"empty scope": {connect(stack.ServiceConnectCustomParams{Scopes: []string{""}}), "scopes[0]", "non-empty"},
		"scope twice": {connect(stack.ServiceConnectCustomParams{Scopes: []string{"a", "a"}}), "scopes[1]", "once"},
		"no host": {connect(stack.ServiceConnectCustomParams{AllowedHosts: []string{"a.example", "https://crm.example"}}),
			"allowed_hosts[1]", "api.example.com"},
		"host twice": {connect(stack.ServiceConnectCustomParams{AllowedHosts: []string{"a.example", "a.example"}}),
			"allowed_hosts[1]", "once"},
		"too many hosts": {connect(stack.ServiceConnectCustomParams{AllowedHosts: make([]string, 33)}), "allowed_hosts",
			"at most 32"},
		"token with a line end": {connect(stack.ServiceConnectCustomParams{
			Credential: stack.CustomCredential{Token: stack.NewSecret("canary\r\n")}}), "credential", "without spaces"},
		"username alone":        {fields("username", "canary"), "credential", "need each other"},
		"password alone":        {fields("password", "canary"), "credential", "need each other"},
		"username with a colon": {fields("username", "x:canary", "password", "x"), "credential.username", "colon"},
		"empty username":        {fields("username", "", "password", "canary"), "credential.username", "1 to 16384"},
		"endless password": {fields("username", "x", "password", strings.Repeat("x", 16<<10+1)),
			"credential.password", "16385"},
		"unknown entry":            {fields("canary", "canary"), "credential", "header:<Name>"},
		"header of the connection": {fields("header:Host", "canary"), "credential", "Host"},
		"header with a bad name":   {fields("header:X Y", "canary"), "credential", "header"},
		"header without a name":    {fields("header:", "canary"), "credential", "header"},
		"header with a line end":   {fields("header:X-Key", "canary\n"), "credential", "X-Key"},
		"empty header":             {fields("header:X-Key", ""), "credential.header:X-Key", "1 to 16384"},
		"header twice": {fields("header:X-Key", "canary", "header:x-key", "canary"),
			"credential.header:x-key", "once"},
		"authorization twice": {fields("username", "ada", "password", "canary", "header:authorization", "canary"),
			"credential.header:authorization", "Authorization"},
		"too many entries": {fields(many...), "credential", "header:<Name>"},
	} {
		refused := refusal(t, tt.err, http.StatusBadRequest, "INVALID_REQUEST")
		require.ErrorIs(t, tt.err, stack.ErrInvalidRequest, name)
		assert.Equal(t, "body."+tt.field, refused.Details["field"], name)
		assert.NotEmpty(t, refused.Details["allowed"], name)
		assert.Contains(t, refused.Message, tt.says, name)
		assert.NotContains(t, fmt.Sprint(refused, refused.Details), "canary", name)
	}
	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list, "nothing refused is connected")
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
		"no scopes": {"/v1/services/connect", "body.scopes", body{"service_id": "slack", "oauth_token": "t",
			"scopes": []string{}}},
		"scopes left out": {"/v1/services/connect", "body.scopes", body{"service_id": "slack", "oauth_token": "t"}},
		"null token": {"/v1/services/connect", "body.oauth_token", body{"service_id": "stripe",
			"oauth_token": nil, "scopes": []string{"x"}}},
		"token of a wrong type": {"/v1/services/connect", "body.oauth_token", body{"service_id": "slack",
			"oauth_token": 5, "scopes": []string{"x"}}},
		"custom without name":   {"/v1/services/custom", "body.name", body{"credential": "x"}},
		"custom without secret": {"/v1/services/custom", "body.credential", body{"name": "crm"}},
		"custom empty secret":   {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": ""}},
		"custom null secret":    {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": nil}},
		"custom empty map":      {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": body{}}},
		"custom number":         {"/v1/services/custom", "body.credential", body{"name": "crm", "credential": 12345}},
		"custom list": {"/v1/services/custom", "body.credential", body{"name": "crm",
			"credential": []string{"canary"}}},
		"custom map of a number": {"/v1/services/custom", "body.credential", body{"name": "crm",
			"credential": body{"header:X-Key": 12345}}},
		"grant without scopes": {"/v1/services/grant", "body.scopes", body{"agent_id": "agt_x",
			"service_connection_id": "scon_x"}},
		"unknown field": {"/v1/services/grant", "body.scope", body{"agent_id": "agt_x",
			"service_connection_id": "scon_x", "scope": "x"}},
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
	custom := func(name string, credential stack.CustomCredential) error {
		return failure(s.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: name, Credential: credential}))
	}
	grant := func(agentID, connectionID string, scopes ...string) error {
		return failure(s.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agentID, ServiceConnectionID: connectionID,
			Scopes: scopes}))
	}
	fields := map[string]stack.Secret{"header:X": secret}
	for name, tt := range map[string]struct {
		err   error
		param string
	}{
		"connect without id": {failure(s.Connect(ctx, stack.ServiceConnectParams{OAuthToken: secret,
			Scopes: []string{"x"}})), "service_id"},
		"connect without scope": {failure(s.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack",
			OAuthToken: secret})), "scopes"},
		"custom without name":    {custom("", stack.CustomCredential{Token: secret}), "name"},
		"custom without secret":  {custom("crm", stack.CustomCredential{}), "credential"},
		"custom with empty map":  {custom("crm", stack.CustomCredential{Fields: map[string]stack.Secret{}}), "credential"},
		"custom with both":       {custom("crm", stack.CustomCredential{Token: secret, Fields: fields}), "credential"},
		"verify without id":      {failure(s.Verify(ctx, "")), "connection_id"},
		"disconnect without id":  {failure(s.Disconnect(ctx, "")), "connection_id"},
		"grant without agent":    {grant("", "scon_x", "x"), "agent_id"},
		"grant without id":       {grant("agt_x", "", "x"), "service_connection_id"},
		"grant without scope":    {grant("agt_x", "scon_x"), "scopes"},
		"revoke without id":      {failure(s.RevokeAgentAccess(ctx, "")), "agent_id"},
		"permissions with no id": {failure(s.GetAgentPermissions(ctx, "..")), "agent_id"},
	} {
		var param *stack.ParamError
		if assert.ErrorAs(t, tt.err, &param, name) {
			assert.Equal(t, tt.param, param.Param, name)
			assert.NotContains(t, tt.err.Error(), "canary", name)
		}
	}
}
