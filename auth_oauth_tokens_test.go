package stack_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/getstack-go/stack"
)

// A passport is no access token, and no other text that looks like one is.
func TestOAuthForgedAccessTokens(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	good := s.signIn(t).AccessToken
	parts := strings.Split(good, ".")
	passport := s.issue(t)
	for name, token := range map[string]string{
		"passport":        passport.Token.Reveal(),
		"no signature":    parts[0] + "." + parts[1] + ".",
		"other claims":    parts[0] + "." + strings.Split(passport.Token.Reveal(), ".")[1] + "." + parts[2],
		"header only":     parts[0] + ".",
		"none":            "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0." + parts[1] + ".",
		"trailing bits":   good + "A",
		"passport's head": strings.Split(passport.Token.Reveal(), ".")[0] + "." + parts[1] + "." + parts[2],
	} {
		_, err := s.as(&oauth2.Token{AccessToken: token}).Agents.List(t.Context())
		requireRefused(t, err, 401, "UNAUTHORIZED")
		assert.NotContains(t, err.Error(), token, name)
	}
	v, err := s.client.Passports.Verify(t.Context(), stack.NewSecret(good))
	require.NoError(t, err)
	assert.False(t, v.Valid, "nor is an access token a passport")
	s.Reset()
	_, err = s.as(&oauth2.Token{AccessToken: good}).Agents.List(t.Context())
	requireRefused(t, err, 401, "UNAUTHORIZED")
}

func TestOAuthTokenExchange(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t, "passports:write")
	tok := s.signIn(t)
	p := s.issue(t)
	form := func() url.Values {
		return url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {p.Token.Reveal()},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}}
	}
	for _, bearer := range []string{s.APIKey(), tok.AccessToken} {
		status, out := s.token(t, form(), "Authorization", "Bearer "+bearer)
		require.Equal(t, 200, status, out)
		assert.Equal(t, "access_token expires_in issued_token_type token_type", keys(out))
		assert.Equal(t, "N_A", out["token_type"])
		assert.Equal(t, p.JTI, s.claims(t, stack.NewSecret(out["access_token"].(string))).JTI)
	}
	status, out := s.token(t, form())
	assert.Equal(t, 401, status)
	assert.Equal(t, "unauthorized", out["error"])
	for field, wrong := range map[string]string{"subject_token": "", "subject_token_type": "x", "requested_token_type": "x"} {
		bad := form()
		set(field, wrong)(bad)
		status, out = s.token(t, bad, "Authorization", "Bearer "+s.APIKey())
		assert.Equal(t, 400, status, field)
		assert.Equal(t, "invalid_request", out["error"], field)
	}
	_, err := s.client.Passports.Revoke(t.Context(), p.JTI, "")
	require.NoError(t, err)
	status, out = s.token(t, form(), "Authorization", "Bearer "+s.APIKey())
	assert.Equal(t, 400, status)
	assert.Equal(t, "invalid_grant", out["error"])
	assert.Contains(t, out["error_description"], "PASSPORT_REVOKED")
}
