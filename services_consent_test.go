package stack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

const (
	providerTokens = "/providers/{provider}/token"
	githubUser     = "https://api.github.com/user"
)

// askFor begins to connect GitHub by consent.
func askFor(t *testing.T, client *stack.Client, change ...func(*stack.ServiceConnectParams)) *stack.Connection {
	t.Helper()
	p := stack.ServiceConnectParams{ServiceID: "github", Scopes: []string{"repo", "user:email"}}
	for _, c := range change {
		c(&p)
	}
	asked, err := client.Services.Connect(t.Context(), p)
	require.NoError(t, err)
	return asked
}

// anew asks for a connection again.
func anew(id string) func(*stack.ServiceConnectParams) {
	return func(p *stack.ServiceConnectParams) { p.ConnectionID = id }
}

// consented is a stage whose agent may use GitHub, to which somebody has consented. GitHub answers with the token that it
// saw.
type consented struct {
	*stage
	github *stack.Connection
}

func newConsented(t *testing.T, opts ...stack.Option) *consented {
	t.Helper()
	s := newStage(t, stack.Logged, opts...)
	s.Upstream("api.github.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"seen": r.Header.Get("Authorization")})
	}))
	github, err := s.ApproveConnection(askFor(t, s.client).AuthorizationURL)
	require.NoError(t, err)
	grantAll(t, s.client, s.agent.ID, github)
	return &consented{s, github}
}

// call makes a proxied call to GitHub under a fresh passport.
func (s *consented) call(t *testing.T, ctx context.Context) (*stack.ProxyResponse, error) {
	t.Helper()
	return s.client.Proxy.Request(ctx, withPassport(stack.ProxyRequest{Service: "github", Method: "GET", URL: githubUser},
		passportFor(t, s.client, s.agent.ID, "github")))
}

// mustCall makes a call that succeeds, and returns the token that GitHub saw.
func (s *consented) mustCall(t *testing.T) (token string) {
	t.Helper()
	resp, err := s.call(t, t.Context())
	require.NoError(t, err)
	require.JSONEq(t, `{"seen":"Bearer [REDACTED]"}`, string(resp.Body), "the token does not come back")
	return s.token(t)
}

// token is what GitHub saw last.
func (s *consented) token(t *testing.T) string {
	t.Helper()
	all := s.Forwarded("api.github.com")
	require.NotEmpty(t, all)
	token, ok := strings.CutPrefix(all[len(all)-1].Header.Get("Authorization"), "Bearer github_at_")
	require.True(t, ok, "the provider's access token")
	return token
}

// now is the connection as it is.
func (s *consented) now(t *testing.T) stack.Connection {
	t.Helper()
	list, err := s.client.Services.List(t.Context())
	require.NoError(t, err)
	for _, c := range list {
		if c.ID == s.github.ID {
			return c
		}
	}
	require.Fail(t, "the connection is gone")
	return stack.Connection{}
}

// page opens an address as a browser does that does not follow redirects. A form is posted.
func page(t *testing.T, srv *stacktest.Server, address string, form url.Values) (status int, text, location string) {
	t.Helper()
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	require.NoError(t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := srv.Transport().RoundTrip(req)
	require.NoError(t, err)
	defer func() { assert.NoError(t, resp.Body.Close()) }()
	shown, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if resp.StatusCode != http.StatusSeeOther {
		assert.Equal(t, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
		assert.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'")
	}
	return resp.StatusCode, string(shown), resp.Header.Get("Location")
}

// press presses a button of the provider's page, and returns where that leads.
func press(t *testing.T, srv *stacktest.Server, address, decision string) (callback string) {
	t.Helper()
	status, text, callback := page(t, srv, address, url.Values{"decision": {decision}})
	require.Equal(t, http.StatusSeeOther, status, text)
	return callback
}

// altered is an address with other values in its query; an empty one is taken out.
func altered(t *testing.T, address string, pairs ...string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	query := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
		if pairs[i+1] == "" {
			query.Del(pairs[i])
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

func TestConnectByConsent(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	asked := askFor(t, s.client)
	assert.Equal(t, []any{stack.ConnectionPending, "github", "GitHub", []string{"repo", "user:email"}},
		[]any{asked.Status, asked.Provider, asked.Name, asked.Scopes})
	assert.WithinDuration(t, s.Now().Add(10*time.Minute), asked.AuthorizationExpiresAt, 5*time.Second)
	u, err := url.Parse(asked.AuthorizationURL)
	require.NoError(t, err)
	assert.Equal(t, "/providers/github/authorize", u.Path)
	assert.Equal(t, "repo user:email", u.Query().Get("scope"))

	list, err := s.client.Services.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, []any{asked.ID, stack.ConnectionPending, ""}, []any{list[1].ID, list[1].Status, list[1].AuthorizationURL})
	mustRefuse(t, failure(s.client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: s.agent.ID,
		ServiceConnectionID: asked.ID, Scopes: asked.Scopes})), http.StatusConflict, "CONNECTION_PENDING")
	mustRefuse(t, failure(s.client.Credentials.GetByConnection(t.Context(), asked.ID, stack.CredentialParams{})), http.StatusConflict, "CONNECTION_PENDING")
	require.ErrorIs(t, failure(s.client.Credentials.Get(t.Context(), "github", stack.CredentialParams{})), stack.ErrNotFound)
	checked, err := s.client.Services.Verify(t.Context(), asked.ID)
	require.NoError(t, err)
	assert.False(t, checked.Verified)
	require.Error(t, s.RevokeAtProvider(asked.ID), "nothing was given yet")

	status, text, _ := page(t, s.Server, asked.AuthorizationURL, nil)
	require.Equal(t, http.StatusOK, status)
	for _, shown := range []string{"GitHub", "<li>repo</li>", "<li>user:email</li>", "operator@"} {
		assert.Contains(t, text, shown)
	}
	callback := press(t, s.Server, asked.AuthorizationURL, "approve")
	assert.Contains(t, callback, "/v1/services/oauth/callback?")
	status, text, _ = page(t, s.Server, callback, nil)
	require.Equal(t, http.StatusOK, status, text)
	assert.Contains(t, text, "GitHub is connected")

	list, err = s.client.Services.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, []any{asked.ID, stack.ConnectionConnected, asked.Scopes, []string{"api.github.com", "uploads.github.com"}},
		[]any{list[1].ID, list[1].Status, list[1].Scopes, list[1].AllowedHosts})
	checked, err = s.client.Services.Verify(t.Context(), asked.ID)
	require.NoError(t, err)
	assert.True(t, checked.Verified)
	read, err := s.client.Credentials.GetByConnection(t.Context(), asked.ID, stack.CredentialParams{})
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(read.Credential.Reveal(), "github_at_"))

	assert.Equal(t, asked.ID, s.lastRow(t, "service.connect").TraceID)
	assert.Equal(t, 1, s.countRows("service.authorize"))
	for _, row := range s.Audit() {
		assert.NotContains(t, fmt.Sprintf("%+v", row), "github_at_")
		assert.NotContains(t, fmt.Sprintf("%+v", row), "pgt_")
	}
	s.RequireAuditIntact(t)
}

// The agent's calls carry the token that the provider gave, which nobody else sees.
func TestConsentedCalls(t *testing.T) {
	t.Parallel()
	s := newConsented(t)
	token := s.mustCall(t)
	assert.Equal(t, token, s.mustCall(t), "the token is good for an hour")
	assert.Zero(t, s.countRows("service.refresh"))
	for _, row := range s.Audit() {
		assert.NotContains(t, fmt.Sprintf("%+v", row), token)
	}
}

func TestConsentDenied(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	asked := askFor(t, s.client)
	callback := press(t, s.Server, asked.AuthorizationURL, "deny")
	status, text, _ := page(t, s.Server, callback, nil)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, text, "was denied")
	require.ErrorIs(t, failure(s.client.Services.Verify(t.Context(), asked.ID)), stack.ErrNotFound, "it never was")
	row := s.lastRow(t, "service.authorize")
	assert.Equal(t, []any{stack.OutcomeFailure, "ACCESS_DENIED"}, []any{row.Outcome, row.ErrorCode})

	require.NoError(t, s.DenyConnection(askFor(t, s.client).AuthorizationURL))
	list, err := s.client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 1)

	github := newConsented(t)
	require.NoError(t, github.DenyConnection(askFor(t, github.client, anew(github.github.ID)).AuthorizationURL))
	assert.Equal(t, stack.ConnectionConnected, github.now(t).Status, "it stays as it was")
	github.mustCall(t)
}

// Where the caller has named a place, the person is sent on to it, whatever came of it.
func TestConsentRedirect(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	home := func(p *stack.ServiceConnectParams) { p.RedirectURI = "https://app.example/settings?tab=services" }
	query := func(decision string) (*stack.Connection, url.Values) {
		asked := askFor(t, s.client, home)
		status, text, location := page(t, s.Server, press(t, s.Server, asked.AuthorizationURL, decision), nil)
		require.Equal(t, http.StatusSeeOther, status, text)
		u, err := url.Parse(location)
		require.NoError(t, err)
		assert.Equal(t, "app.example/settings", u.Host+u.Path)
		return asked, u.Query()
	}
	asked, sent := query("approve")
	assert.Equal(t, url.Values{"tab": {"services"}, "connection_id": {asked.ID}, "status": {"connected"}}, sent)
	asked, sent = query("deny")
	assert.Equal(t, []string{asked.ID, "access_denied", ""}, []string{sent.Get("connection_id"), sent.Get("error"), sent.Get("status")})

	for _, uri := range []string{"/settings", "ftp://app.example", "https://u:canary@app.example", "javascript:alert(1)"} {
		_, err := s.client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "github", Scopes: []string{"repo"}, RedirectURI: uri})
		refused := refusal(t, err, http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, "body.redirect_uri", refused.Details["field"])
		assert.NotContains(t, err.Error(), "canary")
	}
}

// A state is good once, for ten minutes, for one connection, and as it was made.
func TestConsentState(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	stays := func(callback, says string) {
		t.Helper()
		status, text, _ := page(t, s.Server, callback, nil)
		assert.Equal(t, http.StatusBadRequest, status)
		assert.Contains(t, text, says)
		list, err := s.client.Services.List(t.Context())
		require.NoError(t, err)
		for _, c := range list[1:] {
			assert.Equal(t, stack.ConnectionPending, c.Status)
		}
	}
	asked := askFor(t, s.client)
	callback := press(t, s.Server, asked.AuthorizationURL, "approve")
	u, err := url.Parse(callback)
	require.NoError(t, err)
	state := u.Query().Get("state")
	for i := range len(state) {
		other := byte('x')
		if state[i] == other {
			other = 'y'
		}
		stays(altered(t, callback, "state", state[:i]+string(other)+state[i+1:]), "was altered")
	}
	parts := strings.Split(state, ".")
	stays(altered(t, callback, "state", strings.Join(append([]string{"op_other"}, parts[1:]...), ".")), "was altered")
	stays(altered(t, callback, "state", ""), "was altered")
	stays(callback+"&state=x", "more than once")
	elsewhere, err := url.Parse(askFor(t, stacktest.New(t).Client()).AuthorizationURL)
	require.NoError(t, err)
	stays(altered(t, callback, "state", elsewhere.Query().Get("state")), "was altered")

	newer := askFor(t, s.client, anew(asked.ID))
	assert.Equal(t, asked.ID, newer.ID)
	stays(callback, "a newer one")
	callback = press(t, s.Server, newer.AuthorizationURL, "approve")
	status, text, _ := page(t, s.Server, callback, nil)
	require.Equal(t, http.StatusOK, status, text)
	status, text, _ = page(t, s.Server, callback, nil)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, text, "used already")
	_, err = s.ApproveConnection(newer.AuthorizationURL)
	require.ErrorContains(t, err, "used already")
}

// What comes back without a good code connects nothing, and the state is used up by it.
func TestConsentWithoutGoodCode(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	stolen := press(t, s.Server, askFor(t, s.client).AuthorizationURL, "approve")
	u, err := url.Parse(stolen)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		change []string
		says   string
	}{
		"no code":                  {[]string{"code", ""}, "it sent no code"},
		"an unknown code":          {[]string{"code", "pac_none"}, "did not give a token"},
		"another connection's":     {[]string{"code", u.Query().Get("code")}, "did not give a token"},
		"an error of the provider": {[]string{"code", "", "error", "temporarily_<b>unavailable</b>"}, "temporarily_&lt;b&gt;"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := askFor(t, s.client)
			callback := altered(t, press(t, s.Server, asked.AuthorizationURL, "approve"), tc.change...)
			status, text, _ := page(t, s.Server, callback, nil)
			assert.Equal(t, http.StatusBadRequest, status)
			assert.Contains(t, text, tc.says)
			_, text, _ = page(t, s.Server, callback, nil)
			assert.Contains(t, text, "used already")
			require.ErrorIs(t, failure(s.client.Services.Verify(t.Context(), asked.ID)), stack.ErrNotFound)
		})
	}
}

func TestConsentExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		asked := askFor(t, s.client)
		callback := press(t, s.Server, asked.AuthorizationURL, "approve")
		time.Sleep(10*time.Minute - time.Second)
		_, err := s.client.Services.Verify(t.Context(), asked.ID)
		require.NoError(t, err)
		time.Sleep(time.Second)
		status, text, _ := page(t, s.Server, callback, nil)
		assert.Equal(t, http.StatusBadRequest, status)
		assert.Contains(t, text, "has expired")
		_, err = s.ApproveConnection(asked.AuthorizationURL)
		require.ErrorContains(t, err, "has expired")
		require.ErrorIs(t, failure(s.client.Services.Verify(t.Context(), asked.ID)), stack.ErrNotFound, "nobody came")
		row := s.lastRow(t, "service.authorize")
		assert.Equal(t, []any{stack.OutcomeFailure, "AUTHORIZATION_EXPIRED"}, []any{row.Outcome, row.ErrorCode})

		github := newConsented(t)
		askFor(t, github.client, anew(github.github.ID))
		time.Sleep(11 * time.Minute)
		assert.Equal(t, stack.ConnectionConnected, github.now(t).Status, "one that was connected stays it")
	})
}

// The provider shows a page for what it is asked as it should be, and for nothing else.
func TestProviderPageRefusals(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	address := askFor(t, s.client).AuthorizationURL
	for name, tc := range map[string]struct{ address, says string }{
		"another client":   {altered(t, address, "client_id", "x"), "client_id"},
		"another place":    {altered(t, address, "redirect_uri", "https://evil.example/"), "redirect_uri"},
		"no response type": {altered(t, address, "response_type", ""), "response_type"},
		"plain PKCE":       {altered(t, address, "code_challenge_method", "plain"), "code_challenge_method"},
		"no challenge":     {altered(t, address, "code_challenge", ""), "code_challenge"},
		"no scope":         {altered(t, address, "scope", ""), "scope"},
		"endless state":    {altered(t, address, "state", strings.Repeat("x", 5000)), "state"},
		"given twice":      {address + "&client_id=stack", "client_id is given more than once"},
		"unknown provider": {strings.Replace(address, "/github/", "/nobody/", 1), "provider"},
		"no OAuth there":   {strings.Replace(address, "/github/", "/stripe/", 1), "provider"},
		"an entry's id":    {strings.Replace(address, "/github/", "/svc_github/", 1), "provider"},
	} {
		for _, form := range []url.Values{nil, {"decision": {"approve"}}} {
			status, text, location := page(t, s.Server, tc.address, form)
			assert.Equal(t, http.StatusBadRequest, status, name)
			assert.Contains(t, text, tc.says, name)
			assert.Empty(t, location, name)
		}
		_, err := s.ApproveConnection(tc.address)
		require.Error(t, err, name)
	}
	for _, form := range []url.Values{{}, {"decision": {"maybe"}}} {
		status, text, _ := page(t, s.Server, address, form)
		assert.Equal(t, http.StatusBadRequest, status)
		assert.Contains(t, text, "decision is")
	}
	for _, wrong := range []string{"", ":", "http://stack.mock/providers/github", "http://stack.mock/v1/services"} {
		_, err := s.ApproveConnection(wrong)
		require.Error(t, err, wrong)
	}
	_, text, _ := page(t, s.Server, altered(t, address, "state", "forged"), nil)
	assert.NotContains(t, text, "The agents of", "whose agents, only its own state says")
	conn, err := s.ApproveConnection(address)
	require.NoError(t, err, "none of it has used up the state")
	assert.Equal(t, stack.ConnectionConnected, conn.Status)
}

// What cannot be asked for is refused before anybody is asked.
func TestConsentRefusals(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	connect := func(change func(*stack.ServiceConnectParams)) error {
		p := stack.ServiceConnectParams{ServiceID: "github", Scopes: []string{"repo"}}
		change(&p)
		return failure(s.client.Services.Connect(t.Context(), p))
	}
	slack := s.agent.Connections["slack"]
	for name, tc := range map[string]struct {
		change func(*stack.ServiceConnectParams)
		field  string
	}{
		"a scope with a space": {func(p *stack.ServiceConnectParams) { p.Scopes = []string{"repo", "read write"} }, "body.scopes[1]"},
		"no instance":          {func(p *stack.ServiceConnectParams) { p.ServiceID = "zendesk" }, "body.fields.instance_url"},
		"another's connection": {func(p *stack.ServiceConnectParams) { p.ConnectionID = slack.ID }, "body.connection_id"},
		"fewer scopes":         {func(p *stack.ServiceConnectParams) { p.ServiceID, p.ConnectionID = "slack", slack.ID }, "body.scopes"},
		"a place for a program": {func(p *stack.ServiceConnectParams) {
			p.OAuthToken, p.RedirectURI = stack.NewSecret("t"), "https://a.example"
		}, "body.redirect_uri"},
	} {
		refused := refusal(t, connect(tc.change), http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, tc.field, refused.Details["field"], name)
	}
	mustRefuse(t, connect(anew("scon_none")), http.StatusNotFound, "NOT_FOUND")
	other := newConsented(t)
	mustRefuse(t, connect(anew(other.github.ID)), http.StatusNotFound, "NOT_FOUND")
	require.Error(t, s.RevokeAtProvider("scon_none"))
	require.ErrorContains(t, s.RevokeAtProvider(slack.ID), "consented to")
	list, err := s.client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 1)
}

// A connection that is taken away while somebody consents stays away.
func TestDisconnectBeforeConsent(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	asked := askFor(t, s.client)
	_, err := s.client.Services.Disconnect(t.Context(), asked.ID)
	require.NoError(t, err)
	_, err = s.ApproveConnection(asked.AuthorizationURL)
	require.ErrorContains(t, err, "used already")

	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		asked := askFor(t, s.client)
		s.Fault(stacktest.Fault{Path: providerTokens, Delay: time.Second})
		done := make(chan error)
		go func() { done <- failure(s.ApproveConnection(asked.AuthorizationURL)) }()
		synctest.Wait()
		_, err := s.client.Services.Disconnect(t.Context(), asked.ID)
		require.NoError(t, err)
		require.ErrorContains(t, <-done, "taken away")
	})
}

// A provider that is in trouble when the code comes has given nothing.
func TestConsentAtProviderInTrouble(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	asked := askFor(t, s.client)
	s.Fault(stacktest.Fault{Path: providerTokens, Status: 500})
	_, err := s.ApproveConnection(asked.AuthorizationURL)
	require.ErrorContains(t, err, "did not give a token")
	require.ErrorIs(t, failure(s.client.Services.Verify(t.Context(), asked.ID)), stack.ErrNotFound)
	again := askFor(t, s.client)
	_, err = s.ApproveConnection(again.AuthorizationURL)
	require.NoError(t, err)
}
