package mockserver

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/getstack-go/stack"
)

// No text but one that the server has signed is a state, and that says what was signed.
func FuzzConnectState(f *testing.F) {
	s := New(Options{})
	good := connectState{"op_1", "scon_1", "nonce", time.UnixMilli(1_700_000_000_123)}
	signed := s.consents.sign(good)
	for _, seed := range []string{signed, signed + "x", signed[:len(signed)-1], "", ".", "....", "a.b.c.1." + s.consents.mac("a.b.c.2"),
		"a.b.c.x." + s.consents.mac("a.b.c.x"), "a.b." + s.consents.mac("a.b"), strings.Repeat(".", 10_000), New(Options{}).consents.sign(good)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		st, ok := s.consents.read(text)
		if ok {
			assert.Equal(t, text, s.consents.sign(st))
		} else {
			assert.Zero(t, st.nonce)
		}
	})
}

func TestConnectState(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	want := connectState{"op_1", "scon_1", "nonce", time.UnixMilli(1_700_000_000_123)}
	signed := s.consents.sign(want)
	got, ok := s.consents.read(signed)
	require.True(t, ok)
	assert.Equal(t, want, got)
	_, ok = s.consents.read("a.b.c.x." + s.consents.mac("a.b.c.x"))
	assert.False(t, ok, "signed, and still none")
	s.Reset()
	_, ok = s.consents.read(signed)
	assert.False(t, ok, "a reset forgets what was asked before")
}

// tokensOf sends a form to a provider's token endpoint as its client, unless a change has it otherwise.
func tokensOf(t *testing.T, s *Server, provider string, form url.Values, change ...func(*http.Request)) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	return ask(t, s, "POST", "/providers/"+provider+"/token", form.Encode(), append([]func(*http.Request){func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(providerClientID, s.providers.clientSecret())
	}}, change...)...)
}

// codeOf has somebody approve at a provider.
func codeOf(t *testing.T, s *Server, verifier string) string {
	t.Helper()
	config := s.providerConfig("github", "")
	config.RedirectURL, config.Scopes = callbackPath, []string{"repo"}
	u, err := url.Parse(config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	require.NoError(t, err)
	a, refusal := s.readProviderRequest("github", u.RawQuery, "")
	require.Nil(t, refusal)
	back, err := url.Parse(s.decideAtProvider(a, true))
	require.NoError(t, err)
	return back.Query().Get("code")
}

// A provider gives tokens to STACK alone, for a code once, and a refresh token that was used before ends what it was for.
func TestProviderTokens(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	verifier := oauth2.GenerateVerifier()
	redeem := func(code string, change ...string) url.Values {
		form := url.Values{"grant_type": {grantCode}, "code": {code}, "redirect_uri": {callbackPath}, "code_verifier": {verifier}}
		for i := 0; i < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		return form
	}
	for name, tc := range map[string]struct {
		provider string
		form     url.Values
		change   func(*http.Request)
		status   int
		code     string
	}{
		"no client":         {"github", redeem(""), func(r *http.Request) { r.Header.Del("Authorization") }, 401, "invalid_client"},
		"another client":    {"github", redeem(""), func(r *http.Request) { r.SetBasicAuth("other", s.providers.clientSecret()) }, 401, "invalid_client"},
		"a wrong secret":    {"github", redeem(""), func(r *http.Request) { r.SetBasicAuth(providerClientID, "x") }, 401, "invalid_client"},
		"no form":           {"github", redeem(""), func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 400, "invalid_request"},
		"no grant type":     {"github", redeem("", "grant_type", ""), nil, 400, "unsupported_grant_type"},
		"another provider":  {"slack", redeem(codeOf(t, s, verifier)), nil, 400, "invalid_grant"},
		"another place":     {"github", redeem(codeOf(t, s, verifier), "redirect_uri", "/x"), nil, 400, "invalid_grant"},
		"another verifier":  {"github", redeem(codeOf(t, s, verifier), "code_verifier", oauth2.GenerateVerifier()), nil, 400, "invalid_grant"},
		"unknown code":      {"github", redeem("pac_none"), nil, 400, "invalid_grant"},
		"no refresh token":  {"github", url.Values{"grant_type": {grantRefresh}}, nil, 400, "invalid_grant"},
		"unknown refresh":   {"github", url.Values{"grant_type": {grantRefresh}, "refresh_token": {"pgt_none.x"}}, nil, 400, "invalid_grant"},
		"a form badly made": {"github", url.Values{"code": {"a", "b"}}, nil, 400, "invalid_request"},
	} {
		changes := []func(*http.Request){}
		if tc.change != nil {
			changes = append(changes, tc.change)
		}
		rec, answer := tokensOf(t, s, tc.provider, tc.form, changes...)
		assert.Equal(t, tc.status, rec.Code, name)
		assert.Equal(t, tc.code, answer["error"], name)
		assert.NotEmpty(t, answer["error_description"], name)
	}

	code := codeOf(t, s, verifier)
	rec, first := tokensOf(t, s, "github", redeem(code))
	require.Equal(t, http.StatusOK, rec.Code, first)
	assert.Equal(t, []any{"Bearer", float64(3600), "repo"}, []any{first["token_type"], first["expires_in"], first["scope"]})
	rec, _ = tokensOf(t, s, "github", redeem(code))
	assert.Equal(t, http.StatusBadRequest, rec.Code, "a code is good once")

	refresh := func(provider string, of map[string]any) (int, map[string]any) {
		token, ok := of["refresh_token"].(string)
		require.True(t, ok)
		got, answer := tokensOf(t, s, provider, url.Values{"grant_type": {grantRefresh}, "refresh_token": {token}})
		return got.Code, answer
	}
	status, second := refresh("github", first)
	require.Equal(t, http.StatusOK, status)
	assert.NotEqual(t, first["access_token"], second["access_token"])
	status, _ = refresh("slack", second)
	assert.Equal(t, http.StatusBadRequest, status, "it is another's")
	status, third := refresh("github", second)
	require.Equal(t, http.StatusOK, status)
	status, _ = refresh("github", second)
	assert.Equal(t, http.StatusBadRequest, status, "it was used before")
	status, _ = refresh("github", third)
	assert.Equal(t, http.StatusBadRequest, status, "so the grant is over")

	late := codeOf(t, s, verifier)
	s.Advance(codeLifetime)
	rec, _ = tokensOf(t, s, "github", redeem(late))
	assert.Equal(t, http.StatusBadRequest, rec.Code)
}

// What the providers keep is bounded: the oldest goes.
func TestProvidersAreBounded(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	verifier := oauth2.GenerateVerifier()
	oldest := codeOf(t, s, verifier)
	for range maxProviderCodes {
		codeOf(t, s, verifier)
	}
	assert.Equal(t, maxProviderCodes, s.providers.codes.len())
	_, kept := s.providers.codes.get(codeID(oldest))
	assert.False(t, kept)
	s.Advance(codeLifetime)
	codeOf(t, s, verifier)
	assert.Equal(t, 1, s.providers.codes.len(), "those whose time is over")

	for range maxProviderGrants {
		s.providers.grants.put(newID("pgt_"), &providerGrant{})
	}
	code := codeOf(t, s, verifier)
	_, err := s.providers.redeem("github", map[string]string{"code": code, "redirect_uri": callbackPath, "code_verifier": verifier}, s.clock.now())
	require.NoError(t, err)
	assert.Equal(t, maxProviderGrants, s.providers.grants.len())
}

// What waits for consent does not outlive a reset, and a closed server renews nothing.
func TestConsentAfterTheServer(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	_, asked := ask(t, s, "POST", "/v1/services/connect", `{"service_id":"github","scopes":["repo"]}`)
	address, ok := asked["authorization_url"].(string)
	require.True(t, ok, asked)
	s.Reset()
	_, err := s.DecideConnection(address, true)
	require.ErrorContains(t, err, "altered")

	_, asked = ask(t, s, "POST", "/v1/services/connect", `{"service_id":"github","scopes":["repo"]}`)
	address, ok = asked["authorization_url"].(string)
	require.True(t, ok, asked)
	conn, err := s.DecideConnection(address, true)
	require.NoError(t, err)
	assert.Equal(t, stack.ConnectionConnected, conn.Status)
	s.Close()
	s.Advance(time.Hour)
	rec, answer := ask(t, s, "GET", "/v1/credentials/by-connection/"+conn.ID, "")
	assert.Equal(t, http.StatusBadGateway, rec.Code)
	code, _ := refusalOf(t, answer)
	assert.Equal(t, "PROVIDER_UNAVAILABLE", code)
}
