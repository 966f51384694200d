package mockserver

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/token"
)

// What an OAuth access token may call is there, and takes a scope that there is: reading takes one to read.
func TestScopeRoutes(t *testing.T) {
	t.Parallel()
	byName := map[string]route{}
	for _, r := range routes() {
		byName[r.method+" "+r.pattern] = r
	}
	used := map[string]bool{}
	for name, scope := range scopeRoutes {
		r, ok := byName[name]
		if !assert.True(t, ok, "%s is no route", name) {
			continue
		}
		used[scope] = true
		assert.Contains(t, oauthScopes, scope, name)
		assert.False(t, r.public || r.control, name)
		reading := r.method == http.MethodGet || r.role == stack.RoleReadonly
		assert.Equal(t, reading, strings.HasSuffix(scope, ":read"), "%s takes %s", name, scope)
	}
	for _, scope := range oauthScopes {
		assert.True(t, used[scope] || scope == "proxy:read", "%s opens a route", scope)
	}
	for name, r := range byName { // what manages the account, its people and its partners
		if r.role == stack.RoleAdmin || strings.HasPrefix(r.pattern, "/v1/team") || strings.HasPrefix(r.pattern, "/v1/partner") {
			assert.NotContains(t, scopeRoutes, name)
		}
	}
}

// signAccess makes an access token of a session that the server has.
func signAccess(t *testing.T, s *Server, operatorID, sessionID string, scopes ...string) string {
	t.Helper()
	text, err := s.signer.SignAccess(token.Access{ID: "oat_1", Subject: operatorID, SessionID: sessionID, Scopes: scopes,
		IssuedAt: s.clock.now(), ExpiresAt: s.clock.now().Add(time.Minute)})
	require.NoError(t, err)
	return text
}

// Every route that no scope opens is refused to an access token that has all scopes.
func TestAccessTokenOnEveryRoute(t *testing.T) {
	t.Parallel()
	s, op, _ := newDirect(t)
	session := &oauthSession{id: "ost_1", key: hashKey(s.first.APIKey), expiresAt: s.clock.now().Add(time.Hour)}
	s.oauth.sessions.put(session.id, session)
	access := func(scopes ...string) string { return "Bearer " + signAccess(t, s, op.id, session.id, scopes...) }
	all, none := access(oauthScopes...), access("no:scope")
	checkOf := func(r route, bearer string) any {
		target := strings.NewReplacer("{", "", "}", "").Replace(r.pattern)
		body := ""
		if r.pattern == "/v1/proxy" {
			body = `{"service":"slack","method":"POST","url":"https://slack.com/"}`
		}
		rec, answer := ask(t, s, r.method, target, body, func(req *http.Request) { req.Header.Set("Authorization", bearer) })
		if rec.Code != http.StatusForbidden {
			return nil
		}
		_, details := refusalOf(t, answer)
		return details["check"]
	}
	for _, r := range s.routes {
		if r.public || r.control {
			continue
		}
		name := r.method + " " + r.pattern
		if _, open := scopeRoutes[name]; open {
			assert.Equal(t, "oauth_scope", checkOf(r, none), name)
			assert.NotContains(t, []any{"oauth_scope", "oauth_route"}, checkOf(r, all), name)
		} else {
			assert.Equal(t, "oauth_route", checkOf(r, all), name)
		}
	}
}

func TestLoopbackRedirects(t *testing.T) {
	t.Parallel()
	c := &oauthClient{redirectURIs: []string{"http://127.0.0.1:5/cb", "http://[::1]/cb", "https://a.example/cb", "http://localhost:5/cb"}}
	for uri, want := range map[string]bool{
		"http://127.0.0.1:5/cb": true, "http://127.0.0.1/cb": true, "http://127.0.0.1:65535/cb": true, "http://[::1]:7/cb": true,
		"https://a.example/cb": true, "http://localhost:5/cb": true,
		"http://localhost:6/cb": false, "https://a.example:443/cb": false, "https://a.example/cb/": false, "https://A.example/cb": false,
		"http://127.0.0.1:5/cb?x": false, "http://127.0.0.1:5/cB": false, "http://127.0.0.2:5/cb": false, "https://127.0.0.1:5/cb": false,
		"http://127.0.0.1:5/cb#": false, "http://u@127.0.0.1:5/cb": false, "http://[::1%25lo]:7/cb": false, "": false,
	} {
		assert.Equal(t, want, c.redirects(uri), uri)
	}
}

// Whatever is sent to the authorize page, it sends a code or an error only to a URI of the client.
func FuzzAuthorize(f *testing.F) {
	s := New(Options{})
	c := &oauthClient{id: "oac_1", redirectURIs: []string{"http://127.0.0.1:5/cb", "com.example.app:/cb", "https://a.example/cb?x=1"},
		scopes: oauthScopes}
	s.oauth.add(c, s.clock.now())
	for _, uri := range c.redirectURIs {
		f.Add(url.Values{"client_id": {"oac_1"}, "redirect_uri": {uri}, "response_type": {"code"}, "state": {"a&b=\r\n"},
			"code_challenge_method": {"S256"}, "code_challenge": {strings.Repeat("A", 43)}, "scope": {"agents:read"}}.Encode())
	}
	f.Add("client_id=oac_1&redirect_uri=http://127.0.0.1:5/cb%00")
	f.Fuzz(func(t *testing.T, query string) {
		location, err := s.DecideSignIn(authorizePath+"?"+query, true)
		if err != nil {
			return
		}
		u, err := url.Parse(location)
		require.NoError(t, err)
		at := u.Query()
		assert.True(t, at.Has("code") != at.Has("error"), location)
		to, _, _ := strings.Cut(location, "?")
		assert.True(t, slices.ContainsFunc(c.redirectURIs, func(uri string) bool {
			registered, _, _ := strings.Cut(uri, "?")
			return withoutLoopbackPort(to) == withoutLoopbackPort(registered)
		}), location)
	})
}

// Whatever is sent as a refresh token or a bearer, only what the server made is taken.
func FuzzOAuthTokens(f *testing.F) {
	s := New(Options{})
	good := s.oauth.refreshToken(oauthSession{id: "ost_1", uses: 3})
	access, err := s.signer.SignAccess(token.Access{ID: "a", IssuedAt: s.clock.now(), ExpiresAt: s.clock.now().Add(time.Hour)})
	require.NoError(f, err)
	f.Add(good)
	f.Add(access)
	f.Add("ort_ost_1.3.")
	f.Add("ort_ost_1.4." + strings.Split(good, ".")[2])
	f.Fuzz(func(t *testing.T, text string) {
		id, uses, ok := s.oauth.readRefreshToken(text)
		assert.Equal(t, text == good, ok && id == "ost_1" && uses == 3)
		if isAccessToken(text) {
			_, err := s.signer.VerifyAccess(text, s.clock.now())
			assert.Equal(t, text == access, err == nil)
		}
	})
}
