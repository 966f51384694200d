package stack_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/getstack-go/stack"
)

// requireOAuthError checks a refusal in the shape of RFC 6749.
func requireOAuthError(t *testing.T, err error, status int, code string) {
	t.Helper()
	apiErr := requireRefused(t, err, status, strings.ToUpper(code))
	assert.Regexp(t, `^[ !#-\[\]-~]+$`, apiErr.Message)
}

func TestOAuthMetadata(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Standard)
	server := s.raw(t, "GET", "/.well-known/oauth-authorization-server", nil)
	issuer := server["issuer"].(string)
	assert.Equal(t, issuer+"/oauth/token", server["token_endpoint"])
	assert.Equal(t, issuer+"/oauth/authorize", server["authorization_endpoint"])
	assert.Equal(t, issuer+"/oauth/register", server["registration_endpoint"])
	assert.Equal(t, []any{"S256"}, server["code_challenge_methods_supported"])
	assert.Contains(t, server["token_endpoint_auth_methods_supported"], "none")
	assert.Len(t, server["scopes_supported"], 10)
	resource := s.raw(t, "GET", "/.well-known/oauth-protected-resource", nil)
	assert.Equal(t, []any{issuer}, resource["authorization_servers"])

	req, err := http.NewRequestWithContext(t.Context(), "GET", mockURL+"/v1/agents", nil)
	require.NoError(t, err)
	resp, err := s.Transport().RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 401, resp.StatusCode)
	assert.Equal(t, `Bearer resource_metadata="`+issuer+`/.well-known/oauth-protected-resource"`, resp.Header.Get("WWW-Authenticate"))
}

func TestOAuthRegister(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Standard)
	register := func(body map[string]any) (map[string]any, error) {
		var out map[string]any
		return out, s.client.Do(t.Context(), "POST", "/oauth/register", body, &out)
	}
	for name, tc := range map[string]struct {
		body map[string]any
		code string
	}{
		"no redirect":     {map[string]any{"client_name": "x"}, "invalid_redirect_uri"},
		"relative":        {map[string]any{"redirect_uris": []string{"/callback"}}, "invalid_redirect_uri"},
		"http elsewhere":  {map[string]any{"redirect_uris": []string{"http://example.com/cb"}}, "invalid_redirect_uri"},
		"like loopback":   {map[string]any{"redirect_uris": []string{"http://127.0.0.1.example.com/cb"}}, "invalid_redirect_uri"},
		"fragment":        {map[string]any{"redirect_uris": []string{"https://example.com/cb#x"}}, "invalid_redirect_uri"},
		"user":            {map[string]any{"redirect_uris": []string{"https://a@example.com/cb"}}, "invalid_redirect_uri"},
		"script":          {map[string]any{"redirect_uris": []string{"javascript:alert(1)"}}, "invalid_redirect_uri"},
		"policy breakout": {map[string]any{"redirect_uris": []string{"https://example.com;script-src/cb"}}, "invalid_redirect_uri"},
		"too many":        {map[string]any{"redirect_uris": strings.Fields(strings.Repeat("https://a.example/ ", 11))}, "invalid_redirect_uri"},
		"wrong type":      {map[string]any{"redirect_uris": "https://a.example/"}, "invalid_client_metadata"},
		"grant":           {map[string]any{"redirect_uris": []string{callbackURL}, "grant_types": []string{"password"}}, "invalid_client_metadata"},
		"response":        {map[string]any{"redirect_uris": []string{callbackURL}, "response_types": []string{"token"}}, "invalid_client_metadata"},
		"auth method":     {map[string]any{"redirect_uris": []string{callbackURL}, "token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"},
		"scope":           {map[string]any{"redirect_uris": []string{callbackURL}, "scope": "agents:read everything"}, "invalid_client_metadata"},
		"name":            {map[string]any{"redirect_uris": []string{callbackURL}, "client_name": strings.Repeat("x", 201)}, "invalid_client_metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := register(tc.body)
			requireOAuthError(t, err, 400, tc.code)
		})
	}
	t.Run("good", func(t *testing.T) {
		t.Parallel()
		for _, uri := range []string{"https://example.com/cb?x=1", "http://localhost:1/cb", "http://[::1]:7/cb", "com.example.app:/cb"} {
			var out map[string]any
			require.NoError(t, s.client.Do(t.Context(), "POST", "/oauth/register", map[string]any{"redirect_uris": []string{uri},
				"logo_uri": "https://example.com/logo.png"}, &out), "what is unknown is ignored")
			assert.Equal(t, "client_id client_id_issued_at grant_types redirect_uris response_types scope token_endpoint_auth_method", keys(out))
			assert.Equal(t, "none", out["token_endpoint_auth_method"])
		}
	})
}

// A client may be registered without end: the oldest that nobody has signed in to make room.
func TestOAuthClientsAreBounded(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	kept, tok := s.conf.ClientID, s.signIn(t)
	idle := newClientID(t, s)
	for range 1000 {
		newClientID(t, s)
	}
	_, err := s.ApproveSignIn(s.authorizeURL(set("client_id", idle)))
	require.Error(t, err)
	assert.Equal(t, kept, s.conf.ClientID)
	s.code(t)
	_, err = s.as(tok).Agents.List(t.Context())
	require.NoError(t, err)
}

func newClientID(t *testing.T, s *oauthStage) string {
	t.Helper()
	return s.raw(t, "POST", "/oauth/register", map[string]any{"redirect_uris": []string{callbackURL}})["client_id"].(string)
}

func TestOAuthAuthorize(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	for name, tc := range map[string]struct {
		change func(url.Values)
		code   string // that the client is told; empty where only the person may know
	}{
		"unknown client":    {set("client_id", "oac_none"), ""},
		"no client":         {set("client_id", ""), ""},
		"no redirect":       {set("redirect_uri", ""), ""},
		"another path":      {set("redirect_uri", "http://127.0.0.1:9/callback/x"), ""},
		"another host":      {set("redirect_uri", "http://127.0.0.2:9/callback"), ""},
		"a longer one":      {set("redirect_uri", callbackURL+"?x=1"), ""},
		"localhost":         {set("redirect_uri", "http://localhost:9/callback"), ""},
		"parameter twice":   {func(q url.Values) { q.Add("state", "other") }, ""},
		"no response type":  {set("response_type", ""), "invalid_request"},
		"implicit":          {set("response_type", "token"), "unsupported_response_type"},
		"no challenge":      {set("code_challenge", ""), "invalid_request"},
		"plain challenge":   {set("code_challenge_method", "plain"), "invalid_request"},
		"no method":         {set("code_challenge_method", ""), "invalid_request"},
		"short challenge":   {set("code_challenge", "abc"), "invalid_request"},
		"unknown scope":     {set("scope", "agents:read everything"), "invalid_scope"},
		"a foreign service": {set("resource", "https://example.com"), "invalid_target"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := s.authorizeURL(tc.change)
			resp := s.send(t, "GET", address, nil)
			callback, err := s.ApproveSignIn(address)
			if tc.code == "" {
				require.Error(t, err)
				assert.Equal(t, 400, resp.StatusCode)
				assert.Contains(t, resp.text, "Sign-in is not possible")
				assert.Empty(t, resp.Header.Get("Location"))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 303, resp.StatusCode)
			assert.Contains(t, resp.Header.Get("Location"), "error="+tc.code+"&", "the page and the helper agree")
			u, err := url.Parse(callback)
			require.NoError(t, err)
			assert.Equal(t, tc.code, u.Query().Get("error"))
			assert.NotEmpty(t, u.Query().Get("error_description"))
			assert.Equal(t, "the state", u.Query().Get("state"))
			assert.Empty(t, u.Query().Get("code"))
		})
	}
	for name, change := range map[string]func(url.Values){
		"as it is":     set("resource", "https://api.getstack.run"),
		"another port": set("redirect_uri", "http://127.0.0.1:54321/callback"),
		"no scope":     set("scope", ""),
		"more":         set("prompt", "login"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.code(t, change)
		})
	}
}

// The page as a browser has it.
func TestOAuthConsentPage(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t, "agents:read", "proxy:write")
	address := s.authorizeURL()
	resp := s.send(t, "GET", address, nil)
	page := resp.text
	assert.Equal(t, 200, resp.StatusCode)
	assert.Contains(t, resp.Header.Get("Content-Security-Policy"), "form-action 'self' http:;")
	assert.Contains(t, page, "Test &lt;b&gt; asks to sign in")
	assert.Contains(t, page, callbackURL)
	assert.Contains(t, page, "<li>proxy:write</li>")
	assert.NotContains(t, page, "audit:read")

	press := func(key, decision string) (int, url.Values, string) {
		pressed := s.send(t, "POST", address, url.Values{"api_key": {key}, "decision": {decision}})
		return pressed.StatusCode, pressed.location(t), pressed.text
	}
	for _, wrong := range []string{"", "sk_live_nobody", s.APIKey() + "x", "sk_grant_x"} {
		status, query, again := press(wrong, "approve")
		assert.Equal(t, 403, status)
		assert.Empty(t, query)
		assert.Contains(t, again, "no API key of an account")
	}
	status, _, again := press(s.APIKey(), "maybe")
	assert.Equal(t, 400, status, again)
	status, query, _ := press("", "deny")
	assert.Equal(t, 303, status)
	assert.Equal(t, "access_denied", query.Get("error"))
	assert.Equal(t, "the state", query.Get("state"))
	status, query, _ = press(s.APIKey(), "approve")
	assert.Equal(t, 303, status)
	tok, err := s.conf.Exchange(s.ctx(t), query.Get("code"), oauth2.VerifierOption(s.verifier))
	require.NoError(t, err)
	assert.Equal(t, "agents:read proxy:write", tok.Extra("scope"))

	denied, err := s.DenySignIn(address)
	require.NoError(t, err)
	assert.Contains(t, denied, "error=access_denied")
	_, _, again = press(tok.AccessToken, "approve")
	assert.Contains(t, again, "no API key of an account", "an access token makes no other")
	resp = s.send(t, "POST", address, nil)
	assert.Equal(t, 400, resp.StatusCode)
}

func TestOAuthTokenRefusals(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	for name, tc := range map[string]struct {
		change func(url.Values)
		status int
		code   string
	}{
		"no grant type":   {set("grant_type", ""), 400, "invalid_request"},
		"password":        {set("grant_type", "password"), 400, "unsupported_grant_type"},
		"no code":         {set("code", ""), 400, "invalid_request"},
		"wrong code":      {set("code", "oaz_guess"), 400, "invalid_grant"},
		"no client":       {set("client_id", ""), 401, "invalid_client"},
		"wrong client":    {set("client_id", "oac_guess"), 401, "invalid_client"},
		"secret of none":  {set("client_secret", "x"), 401, "invalid_client"},
		"another client":  {set("client_id", newClientID(t, s)), 400, "invalid_grant"},
		"no redirect":     {set("redirect_uri", ""), 400, "invalid_request"},
		"other redirect":  {set("redirect_uri", "http://127.0.0.1:8/callback"), 400, "invalid_grant"},
		"no verifier":     {set("code_verifier", ""), 400, "invalid_request"},
		"wrong verifier":  {set("code_verifier", oauth2.GenerateVerifier()), 400, "invalid_grant"},
		"short verifier":  {set("code_verifier", "x"), 400, "invalid_grant"},
		"parameter twice": {func(q url.Values) { q.Add("code", "x") }, 400, "invalid_request"},
		"refresh of none": {func(q url.Values) { q.Set("grant_type", "refresh_token") }, 400, "invalid_request"},
		"forged refresh": {func(q url.Values) {
			q.Set("grant_type", "refresh_token")
			q.Set("refresh_token", "ort_ost_x.0.AAAA")
		}, 400, "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			form := s.codeForm(s.code(t))
			tc.change(form)
			status, out := s.token(t, form)
			assert.Equal(t, tc.status, status, out)
			assert.Equal(t, tc.code, out["error"])
			assert.NotEmpty(t, out["error_description"])
			assert.NotContains(t, out, "access_token")
		})
	}
	t.Run("not a form", func(t *testing.T) {
		t.Parallel()
		err := s.client.Do(t.Context(), "POST", "/v1/oauth/token", map[string]any{"grant_type": "refresh_token"}, nil)
		requireOAuthError(t, err, 400, "invalid_request")
	})
	t.Run("a failed try uses the code up", func(t *testing.T) {
		t.Parallel()
		code := s.code(t)
		form := s.codeForm(code)
		form.Set("code_verifier", oauth2.GenerateVerifier())
		_, out := s.token(t, form)
		assert.Equal(t, "invalid_grant", out["error"])
		_, out = s.token(t, s.codeForm(code))
		assert.Equal(t, "invalid_grant", out["error"])
	})
	t.Run("no refresh registered", func(t *testing.T) {
		t.Parallel()
		status, out := s.token(t, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {newClientID(t, s)}})
		assert.Equal(t, 400, status)
		assert.Equal(t, "unauthorized_client", out["error"])
	})
}

// A code dies after five minutes, and a second use ends what came of the first.
func TestOAuthCodeIsSingleUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOAuthStage(t)
		late := s.code(t)
		time.Sleep(5 * time.Minute)
		_, out := s.token(t, s.codeForm(late))
		assert.Equal(t, "invalid_grant", out["error"])

		code := s.code(t)
		status, first := s.token(t, s.codeForm(code))
		require.Equal(t, 200, status)
		client := s.as(&oauth2.Token{AccessToken: first["access_token"].(string)})
		_, err := client.Agents.List(t.Context())
		require.NoError(t, err)
		_, out = s.token(t, s.codeForm(code))
		assert.Equal(t, "invalid_grant", out["error"])
		_, err = client.Agents.List(t.Context())
		requireRefused(t, err, 401, "UNAUTHORIZED")
		_, out = s.token(t, s.refreshForm(first["refresh_token"].(string)))
		assert.Equal(t, "invalid_grant", out["error"])
		assert.Equal(t, 1, s.countRows("oauth.session_revoke"))
	})
}

func TestOAuthRotation(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	first := s.signIn(t)
	form := s.refreshForm(first.RefreshToken)
	form.Set("scope", "agents:read")
	status, second := s.token(t, form)
	require.Equal(t, 200, status, second)
	assert.Equal(t, "access_token expires_in refresh_token scope token_type", keys(second))
	assert.InDelta(t, 300, second["expires_in"], 0)
	assert.Equal(t, "agents:read", second["scope"])
	assert.NotEqual(t, first.RefreshToken, second["refresh_token"])
	narrow := s.as(&oauth2.Token{AccessToken: second["access_token"].(string)})
	_, err := narrow.Agents.List(t.Context())
	require.NoError(t, err)
	_, err = narrow.Services.List(t.Context())
	requireRefused(t, err, 403, "FORBIDDEN")

	form = s.refreshForm(second["refresh_token"].(string))
	form.Set("scope", "everything")
	_, out := s.token(t, form)
	assert.Equal(t, "invalid_scope", out["error"], "and the token is not used up")
	form = s.refreshForm(second["refresh_token"].(string))
	form.Set("client_id", newRefreshClient(t, s))
	_, out = s.token(t, form)
	assert.Equal(t, "invalid_grant", out["error"], "another client's")
	status, third := s.token(t, s.refreshForm(second["refresh_token"].(string)))
	require.Equal(t, 200, status)
	assert.Len(t, strings.Fields(third["scope"].(string)), 10, "the session's scopes are what they were")

	_, out = s.token(t, s.refreshForm(first.RefreshToken))
	assert.Equal(t, "invalid_grant", out["error"])
	assert.Contains(t, out["error_description"], "used before")
	_, out = s.token(t, s.refreshForm(third["refresh_token"].(string)))
	assert.Equal(t, "invalid_grant", out["error"], "the newest has died with its family")
	_, err = narrow.Agents.List(t.Context())
	requireRefused(t, err, 401, "UNAUTHORIZED")
}

func newRefreshClient(t *testing.T, s *oauthStage) string {
	t.Helper()
	return s.raw(t, "POST", "/oauth/register", map[string]any{"redirect_uris": []string{callbackURL},
		"grant_types": []string{"authorization_code", "refresh_token"}})["client_id"].(string)
}

// A client with a secret shows it, in one of the two ways, as it was registered.
func TestOAuthConfidentialClient(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"client_secret_post", "client_secret_basic"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := newOAuthStage(t)
			registered := s.raw(t, "POST", "/oauth/register", map[string]any{"redirect_uris": []string{callbackURL},
				"token_endpoint_auth_method": method})
			s.conf.ClientID, s.conf.ClientSecret = registered["client_id"].(string), registered["client_secret"].(string)
			right, wrong := oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader
			if method == "client_secret_basic" {
				right, wrong = wrong, right
				s.conf.Endpoint.TokenURL = mockURL + "/v1/oauth/token" // which is the same
			}
			try := func(style oauth2.AuthStyle, secret string) error {
				conf := s.conf
				conf.Endpoint.AuthStyle, conf.ClientSecret = style, secret
				_, err := conf.Exchange(s.ctx(t), s.code(t), oauth2.VerifierOption(s.verifier))
				return err
			}
			require.NoError(t, try(right, s.conf.ClientSecret))
			for name, err := range map[string]error{"style": try(wrong, s.conf.ClientSecret), "secret": try(right, "x"), "none": try(right, "")} {
				var refused *oauth2.RetrieveError
				require.ErrorAs(t, err, &refused, name)
				assert.Equal(t, "invalid_client", refused.ErrorCode, name)
				assert.Equal(t, 401, refused.Response.StatusCode, name)
				assert.NotContains(t, err.Error(), s.conf.ClientSecret)
			}
		})
	}
}

func TestOAuthScopes(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t, "passports:write", "proxy:read", "agents:read")
	client := s.as(s.signIn(t))
	_, err := client.Agents.Get(t.Context(), s.agent.ID)
	require.NoError(t, err)
	_, err = client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "x"})
	refusal := requireRefused(t, err, 403, "FORBIDDEN")
	assert.Equal(t, "agents:write", refusal.Details["allowed"])
	_, err = client.Team.List(t.Context())
	refusal = requireRefused(t, err, 403, "FORBIDDEN")
	assert.Equal(t, "oauth_route", refusal.Details["check"])
	assert.Equal(t, "GET /v1/team/members", refusal.Details["sent"])

	p := s.issue(t)
	read := withPassport(stack.ProxyRequest{Service: "slack", Method: "GET", URL: "https://slack.com/api/conversations.list"}, p)
	_, err = client.Proxy.Request(t.Context(), read)
	require.NoError(t, err)
	_, err = client.Proxy.Request(t.Context(), withPassport(post("#x"), p))
	refusal = requireRefused(t, err, 403, "FORBIDDEN")
	assert.Equal(t, "proxy:write", refusal.Details["allowed"])

	tok := s.signIn(t)
	resp := s.send(t, "GET", "/v1/audit", nil, "Authorization", "Bearer "+tok.AccessToken)
	assert.Equal(t, 403, resp.StatusCode)
	assert.Equal(t, `Bearer error="insufficient_scope", scope="audit:read"`, resp.Header.Get("WWW-Authenticate"))

	_, other := s.token(t, s.codeForm(s.code(t, set("scope", "audit:read"))))
	_, err = s.as(&oauth2.Token{AccessToken: other["access_token"].(string)}).Audit.ChainHead(t.Context())
	require.NoError(t, err)
}

// A member signs in with their own key: their role binds the token, too, and it ends with them.
func TestOAuthMember(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t, "agents:read", "agents:write", "credentials:read", "audit:read")
	member, err := s.client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "a@example.com", Name: "A", Role: stack.RoleReadonly})
	require.NoError(t, err)
	key, err := s.AcceptInvitation(member.ID)
	require.NoError(t, err)
	resp := s.send(t, "POST", s.authorizeURL(), url.Values{"api_key": {key.Reveal()}, "decision": {"approve"}})
	tok, err := s.conf.Exchange(s.ctx(t), resp.location(t).Get("code"), oauth2.VerifierOption(s.verifier))
	require.NoError(t, err)
	assert.Equal(t, "agents:read agents:write audit:read", tok.Extra("scope"), "credentials are for admins")
	client := s.as(tok)
	_, err = client.Agents.List(t.Context())
	require.NoError(t, err)
	_, err = client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "x"})
	assert.Equal(t, "role", requireRefused(t, err, 403, "FORBIDDEN").Details["check"])
	_, err = client.Audit.ChainHead(t.Context())
	assert.Equal(t, "role", requireRefused(t, err, 403, "FORBIDDEN").Details["check"])
	_, err = s.client.Team.Revoke(t.Context(), member.ID)
	require.NoError(t, err)
	_, err = client.Agents.List(t.Context())
	requireRefused(t, err, 401, "UNAUTHORIZED")
	_, out := s.token(t, s.refreshForm(tok.RefreshToken))
	assert.Equal(t, "invalid_grant", out["error"])
}
