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

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// newDeviceStage is a mock with a registered client that has no browser.
func newDeviceStage(t *testing.T, scopes ...string) *oauthStage {
	t.Helper()
	s := newOAuthStage(t, scopes...)
	s.conf.ClientID = s.raw(t, "POST", "/oauth/register", map[string]any{"client_name": "Device <b>",
		"grant_types": []string{deviceGrant, "refresh_token"}})["client_id"].(string)
	return s
}

// device begins a sign-in.
func (s *oauthStage) device(t *testing.T) *oauth2.DeviceAuthResponse {
	t.Helper()
	d, err := s.conf.DeviceAuth(s.ctx(t))
	require.NoError(t, err)
	return d
}

// poll asks once what the person has decided, and gives the error's code.
func (s *oauthStage) poll(t *testing.T, d *oauth2.DeviceAuthResponse) (string, map[string]any) {
	t.Helper()
	status, out := s.token(t, url.Values{"grant_type": {deviceGrant}, "device_code": {d.DeviceCode}, "client_id": {s.conf.ClientID}})
	if status == http.StatusOK {
		return "", out
	}
	assert.Equal(t, http.StatusBadRequest, status, out)
	assert.NotEmpty(t, out["error_description"])
	assert.NotContains(t, out, "access_token")
	return out["error"].(string), out
}

// The whole flow with x/oauth2 as the client: what comes of it is a session like any other.
func TestDeviceFlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newDeviceStage(t, "agents:read", "audit:read")
		d := s.device(t)
		assert.Regexp(t, `^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`, d.UserCode)
		assert.True(t, strings.HasSuffix(d.VerificationURI, "/oauth/device"), d.VerificationURI)
		assert.Equal(t, d.VerificationURI+"?user_code="+d.UserCode, d.VerificationURIComplete)
		assert.WithinDuration(t, time.Now().Add(15*time.Minute), d.Expiry, time.Second)
		assert.EqualValues(t, 5, d.Interval)

		begun := time.Now()
		time.AfterFunc(time.Minute, func() { assert.NoError(t, s.ApproveDevice(strings.ToLower(strings.ReplaceAll(d.UserCode, "-", " ")))) })
		tok, err := s.conf.DeviceAccessToken(s.ctx(t), d)
		require.NoError(t, err)
		assert.WithinDuration(t, begun.Add(time.Minute), time.Now(), 6*time.Second)
		assert.Equal(t, "agents:read audit:read", tok.Extra("scope"))
		client := s.Client(stack.WithTokenSource(s.conf.TokenSource(s.ctx(t), tok)))
		time.Sleep(10 * time.Minute)
		_, err = client.Agents.List(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 1, s.countRows("oauth.authorize"))
		assert.Equal(t, 1, s.countRows("oauth.sign_in"))
		assert.Equal(t, 1, s.countRows("oauth.refresh"))

		require.Error(t, s.ApproveDevice(d.UserCode), "a code is decided once")
		code, _ := s.poll(t, d)
		assert.Equal(t, "invalid_grant", code)
		_, err = client.Agents.List(t.Context())
		requireRefused(t, err, 401, "UNAUTHORIZED")
		assert.Equal(t, 1, s.countRows("oauth.session_revoke"), "who redeems it again ends the session")
	})
}

// A device learns why it has no tokens, and is held to its interval.
func TestDevicePolling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newDeviceStage(t)
		pending, denied := s.device(t), s.device(t)
		for _, step := range []struct {
			wait time.Duration
			want string
		}{{0, "authorization_pending"}, {5 * time.Second, "authorization_pending"}, {4100 * time.Millisecond, "authorization_pending"},
			{3 * time.Second, "slow_down"}, {5 * time.Second, "slow_down"}, {15 * time.Second, "authorization_pending"}} {
			time.Sleep(step.wait)
			code, out := s.poll(t, pending)
			assert.Equal(t, step.want, code, "after %s: %v", step.wait, out)
		}
		require.NoError(t, s.DenyDevice(denied.UserCode))
		for range 2 {
			code, _ := s.poll(t, denied)
			assert.Equal(t, "access_denied", code)
		}
		require.Error(t, s.ApproveDevice(denied.UserCode))

		time.Sleep(15 * time.Minute)
		require.Error(t, s.ApproveDevice(pending.UserCode), "too late")
		code, _ := s.poll(t, pending)
		assert.Equal(t, "expired_token", code)
		time.Sleep(15 * time.Minute)
		s.device(t) // which clears up
		code, _ = s.poll(t, pending)
		assert.Equal(t, "invalid_grant", code)
	})
}

func TestDeviceRefusals(t *testing.T) {
	t.Parallel()
	s := newDeviceStage(t)
	begin := func(form url.Values) reply { return s.send(t, "POST", "/oauth/device_authorization", form) }
	for name, tc := range map[string]struct {
		form   url.Values
		status int
		code   string
	}{
		"no client":      {url.Values{"scope": {"agents:read"}}, 401, "invalid_client"},
		"unknown client": {url.Values{"client_id": {"oac_none"}}, 401, "invalid_client"},
		"other grants":   {url.Values{"client_id": {newClientID(t, s)}}, 400, "unauthorized_client"},
		"unknown scope":  {url.Values{"client_id": {s.conf.ClientID}, "scope": {"everything"}}, 400, "invalid_scope"},
		"twice":          {url.Values{"client_id": {s.conf.ClientID, "x"}}, 400, "invalid_request"},
	} {
		resp := begin(tc.form)
		assert.Equal(t, tc.status, resp.StatusCode, name)
		assert.Contains(t, resp.text, `"error":"`+tc.code+`"`, name)
		assert.NotContains(t, resp.text, "user_code", name)
	}
	err := s.client.Do(t.Context(), "POST", "/oauth/device_authorization", map[string]any{"client_id": s.conf.ClientID}, nil)
	requireOAuthError(t, err, 400, "invalid_request")

	d := s.device(t)
	form := url.Values{"grant_type": {deviceGrant}, "client_id": {s.conf.ClientID}}
	_, out := s.token(t, form)
	assert.Equal(t, "invalid_request", out["error"], "no device_code")
	form.Set("device_code", "odc_guess")
	_, out = s.token(t, form)
	assert.Equal(t, "invalid_grant", out["error"])
	form.Set("device_code", d.DeviceCode)
	form.Set("client_id", newDeviceStageClient(t, s))
	_, out = s.token(t, form)
	assert.Equal(t, "invalid_grant", out["error"], "another client's")
	form.Set("client_id", newRefreshClient(t, s))
	_, out = s.token(t, form)
	assert.Equal(t, "unauthorized_client", out["error"])

	metadata := s.raw(t, "GET", "/.well-known/oauth-authorization-server", nil)
	assert.Equal(t, metadata["issuer"].(string)+"/oauth/device_authorization", metadata["device_authorization_endpoint"])
	assert.Contains(t, metadata["grant_types_supported"], deviceGrant)
	err = s.client.Do(t.Context(), "POST", "/oauth/register", map[string]any{"grant_types": []string{deviceGrant, "authorization_code"}}, nil)
	requireOAuthError(t, err, 400, "invalid_redirect_uri")
}

func newDeviceStageClient(t *testing.T, s *oauthStage) string {
	t.Helper()
	return s.raw(t, "POST", "/oauth/register", map[string]any{"grant_types": []string{deviceGrant}})["client_id"].(string)
}

// The page as a browser has it.
func TestDevicePage(t *testing.T) {
	t.Parallel()
	s := newDeviceStage(t, "agents:read", "proxy:write")
	entry := s.send(t, "GET", "/oauth/device", nil)
	assert.Equal(t, 200, entry.StatusCode)
	assert.Contains(t, entry.text, `<input name="user_code"`)

	d := s.device(t)
	address := "/oauth/device?user_code=" + d.UserCode
	shown := s.send(t, "GET", address, nil)
	assert.Equal(t, 200, shown.StatusCode)
	assert.Contains(t, shown.Header.Get("Content-Security-Policy"), "form-action 'self';")
	assert.Contains(t, shown.text, "Device &lt;b&gt; asks to sign in")
	assert.Contains(t, shown.text, d.UserCode)
	assert.Contains(t, shown.text, "<li>proxy:write</li>")
	assert.NotContains(t, shown.text, "audit:read")
	assert.NotContains(t, shown.text, d.DeviceCode)

	press := func(address, key, decision string) reply {
		return s.send(t, "POST", address, url.Values{"api_key": {key}, "decision": {decision}})
	}
	for _, wrong := range []string{"", "sk_live_nobody", s.APIKey() + "x", "sk_grant_x"} {
		again := press(address, wrong, "approve")
		assert.Equal(t, 403, again.StatusCode)
		assert.Contains(t, again.text, "no API key of an account")
		assert.Contains(t, again.text, d.UserCode, "and the person can try again")
	}
	for _, again := range []reply{press(address, s.APIKey(), "maybe"), s.send(t, "POST", address, nil)} {
		assert.Equal(t, 400, again.StatusCode, again.text)
	}
	for _, unknown := range []string{"BBBB-BBBB", "x", "AEIO-UUUU"} {
		for _, again := range []reply{s.send(t, "GET", "/oauth/device?user_code="+unknown, nil),
			press("/oauth/device?user_code="+unknown, s.APIKey(), "approve")} {
			assert.Equal(t, 400, again.StatusCode)
			assert.Contains(t, again.text, "no code of a device that waits")
			assert.Contains(t, again.text, `<input name="user_code"`)
		}
	}
	for _, twice := range []reply{s.send(t, "GET", address+"&user_code=x", nil), press(address+"&user_code=x", s.APIKey(), "approve")} {
		assert.Equal(t, 400, twice.StatusCode)
		assert.Contains(t, twice.text, "user_code is given more than once")
	}
	code, _ := s.poll(t, d)
	assert.Equal(t, "authorization_pending", code)
	done := press(address, s.APIKey(), "approve")
	assert.Equal(t, 200, done.StatusCode)
	assert.Contains(t, done.text, "The device was approved")
	code, out := s.poll(t, d)
	require.Empty(t, code)
	assert.Equal(t, "agents:read proxy:write", out["scope"])
	again := press(address, s.APIKey(), "deny")
	assert.Equal(t, 400, again.StatusCode, "what is decided stays")

	denied := s.device(t)
	again = press("/oauth/device?user_code="+denied.UserCode, out["access_token"].(string), "approve")
	assert.Equal(t, 403, again.StatusCode, "an access token makes no other")
	done = press("/oauth/device?user_code="+denied.UserCode, "", "deny")
	assert.Contains(t, done.text, "The device was denied")
	code, _ = s.poll(t, denied)
	assert.Equal(t, "access_denied", code)
}

// Nobody finds a code by trying: after 60 wrong ones in a minute even right ones are refused for the rest of it.
func TestUserCodesCannotBeGuessed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newDeviceStage(t)
		d := s.device(t)
		for range 60 {
			require.Error(t, s.DenyDevice("BBBB-BBBB"))
		}
		time.Sleep(20 * time.Second)
		right := s.send(t, "GET", "/oauth/device?user_code="+d.UserCode, nil)
		assert.Equal(t, 429, right.StatusCode)
		assert.Equal(t, "40", right.Header.Get("Retry-After"))
		assert.Contains(t, right.text, "too many wrong codes")
		require.Error(t, s.ApproveDevice(d.UserCode))
		time.Sleep(40 * time.Second)
		require.NoError(t, s.ApproveDevice(d.UserCode))
	})
}

// Devices may begin without end: the oldest makes room.
func TestDeviceSignInsAreBounded(t *testing.T) {
	t.Parallel()
	s := newDeviceStage(t)
	first, second := s.device(t), s.device(t)
	seen := map[string]bool{}
	for range 999 {
		seen[s.device(t).UserCode] = true
	}
	assert.Len(t, seen, 999)
	code, _ := s.poll(t, first)
	assert.Equal(t, "invalid_grant", code)
	require.NoError(t, s.ApproveDevice(second.UserCode))
	s.Reset()
	require.Error(t, s.ApproveDevice(second.UserCode))
}

func TestTokenRevocation(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	assert.True(t, strings.HasSuffix(s.raw(t, "GET", "/.well-known/oauth-authorization-server", nil)["revocation_endpoint"].(string), "/oauth/revoke"))
	revoke := func(form url.Values) int { return s.send(t, "POST", "/oauth/revoke", form).StatusCode }
	for _, which := range []func(*oauth2.Token) string{
		func(tok *oauth2.Token) string { return tok.RefreshToken }, func(tok *oauth2.Token) string { return tok.AccessToken },
	} {
		tok := s.signIn(t)
		client := s.as(tok)
		assert.Equal(t, 200, revoke(url.Values{"client_id": {newRefreshClient(t, s)}, "token": {which(tok)}}))
		_, err := client.Agents.List(t.Context())
		require.NoError(t, err, "another client has no say")
		for range 2 { // a second time is as good
			assert.Equal(t, 200, revoke(url.Values{"client_id": {s.conf.ClientID}, "token": {which(tok)}, "token_type_hint": {"refresh_token"}}))
		}
		_, err = client.Agents.List(t.Context())
		requireRefused(t, err, 401, "UNAUTHORIZED")
		_, out := s.token(t, s.refreshForm(tok.RefreshToken))
		assert.Equal(t, "invalid_grant", out["error"])
	}
	assert.Equal(t, 2, s.countRows("oauth.session_revoke"))
	assert.Equal(t, 200, revoke(url.Values{"client_id": {s.conf.ClientID}, "token": {"no token"}}))
	assert.Equal(t, 200, revoke(url.Values{"client_id": {s.conf.ClientID}, "token": {"eyJ0eXAiOiJhdCtqd3QifQ.x.y"}}))
	assert.Equal(t, 400, revoke(url.Values{"client_id": {s.conf.ClientID}}))
	assert.Equal(t, 401, revoke(url.Values{"token": {"x"}}))
	assert.Equal(t, 400, s.send(t, "POST", "/oauth/revoke", nil).StatusCode)
}
