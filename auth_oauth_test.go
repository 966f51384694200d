package stack_test

import (
	"context"
	"encoding/json"
	"io"
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

const (
	mockURL     = "http://stack.mock"
	callbackURL = "http://127.0.0.1:9/callback"
)

// oauthStage is a mock with a registered OAuth client.
type oauthStage struct {
	*stage
	conf     oauth2.Config
	verifier string
}

func newOAuthStage(t *testing.T, scopes ...string) *oauthStage {
	t.Helper()
	s := &oauthStage{stage: newStage(t, stack.Enforced), verifier: oauth2.GenerateVerifier()}
	endpoint, err := stack.OAuthEndpoint(mockURL)
	require.NoError(t, err)
	s.conf = oauth2.Config{Endpoint: endpoint, RedirectURL: callbackURL, Scopes: scopes}
	s.conf.ClientID = s.raw(t, "POST", "/oauth/register", map[string]any{"client_name": "Test <b>", "redirect_uris": []string{callbackURL},
		"grant_types": []string{"authorization_code", "refresh_token"}})["client_id"].(string)
	return s
}

// ctx makes x/oauth2 call the mock.
func (s *oauthStage) ctx(t *testing.T) context.Context {
	return context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: s.Transport()})
}

func (s *oauthStage) authorizeURL(change ...func(url.Values)) string {
	u := s.conf.AuthCodeURL("the state", oauth2.S256ChallengeOption(s.verifier))
	address, _ := url.Parse(u)
	q := address.Query()
	for _, c := range change {
		c(q)
	}
	address.RawQuery = q.Encode()
	return address.String()
}

// set changes one parameter, or takes it out.
func set(name, value string) func(url.Values) {
	return func(q url.Values) {
		if q.Set(name, value); value == "" {
			q.Del(name)
		}
	}
}

// code has the operator approve.
func (s *oauthStage) code(t *testing.T, change ...func(url.Values)) string {
	t.Helper()
	callback, err := s.ApproveSignIn(s.authorizeURL(change...))
	require.NoError(t, err)
	u, err := url.Parse(callback)
	require.NoError(t, err)
	require.Equal(t, "the state", u.Query().Get("state"))
	require.NotEmpty(t, u.Query().Get("code"), callback)
	return u.Query().Get("code")
}

func (s *oauthStage) signIn(t *testing.T) *oauth2.Token {
	t.Helper()
	tok, err := s.conf.Exchange(s.ctx(t), s.code(t), oauth2.VerifierOption(s.verifier))
	require.NoError(t, err)
	return tok
}

// as is a client with one access token.
func (s *oauthStage) as(tok *oauth2.Token) *stack.Client {
	return s.Client(stack.WithTokenSource(oauth2.StaticTokenSource(tok)))
}

// reply is an answer that was read.
type reply struct {
	*http.Response
	text string
}

// location is where the answer redirects to.
func (r reply) location(t *testing.T) url.Values {
	t.Helper()
	u, err := url.Parse(r.Header.Get("Location"))
	require.NoError(t, err)
	return u.Query()
}

// send makes a request past the SDK.
func (s *oauthStage) send(t *testing.T, method, target string, form url.Values, headers ...string) reply {
	t.Helper()
	body := io.Reader(nil)
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	if !strings.HasPrefix(target, "http") {
		target = mockURL + target
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	require.NoError(t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.Transport().RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{resp, string(text)}
}

// token calls the token endpoint.
func (s *oauthStage) token(t *testing.T, form url.Values, headers ...string) (int, map[string]any) {
	t.Helper()
	resp := s.send(t, "POST", "/oauth/token", form, headers...)
	var out map[string]any
	require.NoError(t, json.Unmarshal([]byte(resp.text), &out), resp.text)
	assert.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	return resp.StatusCode, out
}

func (s *oauthStage) codeForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callbackURL},
		"client_id": {s.conf.ClientID}, "code_verifier": {s.verifier}}
}

func (s *oauthStage) refreshForm(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {s.conf.ClientID}}
}

// The whole flow with x/oauth2 as the client, and a Mission that outlives many access tokens.
func TestOAuthFlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOAuthStage(t)
		tok := s.signIn(t)
		assert.Equal(t, "Bearer", tok.Type())
		assert.WithinDuration(t, time.Now().Add(5*time.Minute), tok.Expiry, time.Second)
		assert.Len(t, strings.Fields(tok.Extra("scope").(string)), 10)

		client := s.Client(stack.WithTokenSource(s.conf.TokenSource(s.ctx(t), tok)))
		for range 4 {
			m, err := client.Passports.Mission(t.Context(), s.params())
			require.NoError(t, err)
			_, err = m.Proxy(m.Context(), post("#support"))
			require.NoError(t, err)
			time.Sleep(7 * time.Minute)
			m.Close(&err)
			require.NoError(t, err)
			s.RequireCheckedOut(t, m.JTI())
		}
		assert.GreaterOrEqual(t, s.countRows("oauth.refresh"), 3)
		assert.Equal(t, 1, s.countRows("oauth.sign_in"))
		assert.Equal(t, 1, s.countRows("oauth.authorize"))

		time.Sleep(31 * 24 * time.Hour)
		_, err := client.Agents.List(t.Context())
		require.ErrorIs(t, err, stack.ErrSignInRequired, "30 days without use")
	})
}
