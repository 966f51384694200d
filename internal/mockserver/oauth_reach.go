package mockserver

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/token"
)

// oauthScopes are all scopes. (contract: endpoints 4.5)
var oauthScopes = []string{
	"passports:read", "passports:write", "agents:read", "agents:write", "services:read", "services:connect",
	"credentials:read", "proxy:read", "proxy:write", "audit:read",
}

// scopeRoutes are the routes that an OAuth access token may call, each with the scope that it takes. A route that is not here is
// refused: it is the account's own business, and no scope of the contract speaks of it.
var scopeRoutes = map[string]string{
	"GET /v1/agents":                                  "agents:read",
	"GET /v1/agents/{agent_id}":                       "agents:read",
	"GET /v1/agents/{agent_id}/permissions":           "agents:read",
	"POST /v1/agents/register":                        "agents:write",
	"PATCH /v1/agents/{agent_id}":                     "agents:write",
	"DELETE /v1/agents/{agent_id}":                    "agents:write",
	"POST /v1/agents/{agent_id}/unblock":              "agents:write",
	"POST /v1/agents/{agent_id}/enrollment-challenge": "agents:write", // (contract: endpoints 4.6)
	"POST /v1/agents/{agent_id}/enroll":               "agents:write",
	"POST /v1/services/grant":                         "agents:write",
	"DELETE /v1/services/agents/{agent_id}/revoke":    "agents:write",

	"GET /v1/services":                               "services:read",
	"GET /v1/services/templates":                     "services:read",
	"GET /v1/services/connected":                     "services:read",
	"GET /v1/services/{service_id}/requirements":     "services:read",
	"POST /v1/services/connect":                      "services:connect",
	"POST /v1/services/custom":                       "services:connect",
	"POST /v1/services/{connection_id}/verify":       "services:connect",
	"DELETE /v1/services/{connection_id}/disconnect": "services:connect",

	"GET /v1/credentials/{provider}":                    "credentials:read",
	"GET /v1/credentials/by-connection/{connection_id}": "credentials:read",

	"GET /v1/passports/active":                       "passports:read",
	"GET /v1/passports/reviews":                      "passports:read",
	"GET /v1/passports/{passport_jti}/report":        "passports:read",
	"POST /v1/passports/issue":                       "passports:write",
	"POST /v1/passports/refresh":                     "passports:write",
	"POST /v1/passports/delegate":                    "passports:write",
	"POST /v1/passports/revoke":                      "passports:write",
	"POST /v1/passports/revoke-agent/{agent_id}":     "passports:write",
	"POST /v1/passports/revoke-session/{session_id}": "passports:write",
	"POST /v1/passports/revoke-all":                  "passports:write",
	"POST /v1/passports/{passport_jti}/checkpoint":   "passports:write",
	"POST /v1/passports/{passport_jti}/checkout":     "passports:write",

	"GET /v1/missions":                        "passports:read",
	"GET /v1/missions/{mission_id}":           "passports:read",
	"GET /v1/missions/{mission_id}/replay":    "passports:read",
	"POST /v1/missions":                       "passports:write",
	"POST /v1/missions/start":                 "passports:write",
	"POST /v1/missions/{mission_id}/renew":    "passports:write",
	"POST /v1/missions/{mission_id}/complete": "passports:write",
	"POST /v1/missions/{mission_id}/revoke":   "passports:write",

	// An agent may ask for approval; to give it is a person's.
	"GET /v1/intents/pending":       "passports:read",
	"GET /v1/intents/{approval_id}": "passports:read",
	"POST /v1/intents/simulate":     "passports:write",
	"POST /v1/intents/submit":       "passports:write",

	"GET /v1/proxy/usage":                      "proxy:read",
	"POST /v1/proxy/operations/get":            "proxy:read",
	"POST /v1/proxy":                           "proxy:write", // a GET through it takes proxy:read only
	"GET /v1/scan/usage":                       "proxy:read",
	"POST /v1/scan":                            "proxy:write",
	"GET /v1/llm/usage":                        "proxy:read",
	"GET /v1/llm/usage/summary":                "proxy:read",
	"POST /v1/llm/anthropic/messages":          "proxy:write",
	"POST /v1/llm/openai/chat/completions":     "proxy:write",
	"POST /v1/llm/openrouter/chat/completions": "proxy:write",

	"GET /v1/audit":              "audit:read",
	"GET /v1/audit/chain-head":   "audit:read",
	"GET /v1/audit/verify-chain": "audit:read",
	"GET /v1/audit/export":       "audit:read",
}

func isAccessToken(bearer string) bool { return token.IsAccess(bearer) }

// oauthCaller finds who has granted an access token. Its session is still there, and so is the key of who signed in.
func (s *Server) oauthCaller(bearer string) (*caller, error) {
	access, err := s.signer.VerifyAccess(bearer, s.clock.now())
	if errors.Is(err, token.ErrAccessExpired) {
		return nil, invalidBearer("the access token has expired")
	}
	if err != nil {
		return nil, invalidBearer("the access token is not one of this server")
	}
	s.oauth.mu.Lock()
	session, ok := s.oauth.sessions.get(access.SessionID)
	var key keyHash
	if ok {
		key = session.key
	}
	s.oauth.mu.Unlock()
	if ok {
		if c, there := s.signedIn(key); there {
			c.scopes = access.Scopes
			return c, nil
		}
	}
	return nil, invalidBearer("the session of the access token has ended")
}

func invalidBearer(message string) *apiError {
	return unauthorized("UNAUTHORIZED", message, "an access token that was refreshed at /oauth/token less than 5 minutes ago")
}

// signedIn is who signed in with a key, while that key is good.
func (s *Server) signedIn(key keyHash) (*caller, bool) {
	owner, ok := s.keys.owner(key)
	if !ok {
		return nil, false
	}
	return owner.caller()
}

// scopeFor refuses a route that the scopes of the caller's access token do not open.
func (c *caller) scopeFor(r *route) error {
	if c.scopes == nil {
		return nil
	}
	scope, ok := scopeRoutes[r.method+" "+r.pattern]
	if !ok {
		return forbidden("an OAuth access token may not call this route: no scope is for it", map[string]any{"check": "oauth_route",
			"sent": r.method + " " + r.pattern, "allowed": "an API key of the account"})
	}
	if r.pattern == "/v1/proxy" { // which of the two it takes shows in the body
		return nil
	}
	return c.mustHaveScope(scope)
}

// mustHaveScope answers a missing scope as RFC 6750 does, so that a client can ask for it.
func (c *caller) mustHaveScope(scope string) error {
	if slices.Contains(c.scopes, scope) {
		return nil
	}
	err := forbidden("the access token has not the scope "+scope, map[string]any{"check": "oauth_scope", "sent": c.scopes,
		"allowed": scope})
	err.header = http.Header{"Www-Authenticate": {`Bearer error="insufficient_scope", scope="` + scope + `"`}}
	return err
}

// mayGrant cuts scopes to what a person may grant: credentials are for admins. (contract: semantics 20)
func (c *caller) mayGrant(scopes []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
		return scope == string(stack.ScopeCredentialsRead) && c.member != nil && c.member.Role != stack.RoleAdmin
	})
}

// readScopes reads a list of scopes, each once. Those that may be asked for are allowed; none sent means all of them.
func readScopes(sent string, allowed []string) ([]string, *apiError) {
	names := strings.Fields(sent)
	if len(names) == 0 {
		return allowed, nil
	}
	var scopes []string
	for _, name := range names {
		if !slices.Contains(allowed, name) {
			return nil, refuse(http.StatusBadRequest, "invalid_scope", "the scope "+clip(name)+" may not be asked for",
				map[string]any{"check": "scope", "sent": clip(name), "allowed": allowed})
		}
		if !slices.Contains(scopes, name) {
			scopes = append(scopes, name)
		}
	}
	return scopes, nil
}
