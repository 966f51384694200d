package mockserver

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
)

// connectScopes are the scopes that a partner's grant may have.
var connectScopes = []stack.ConnectScope{
	stack.ScopeAgentsRead, stack.ScopeAgentsWrite, stack.ScopeServicesRead, stack.ScopeServicesConnect, stack.ScopeCredentialsRead,
	stack.ScopePassportsRead, stack.ScopePassportsWrite, stack.ScopeProxyRead, stack.ScopeProxyWrite, stack.ScopeWebhooksRead,
	stack.ScopeWebhooksWrite,
}

// grantRoutes are the routes that a grant token may call, each with the scope that it takes. A route that is not here is
// refused: it would show or change more of the account than the grant made. Lists that come in pages are not here, since a
// page would show by its gaps how much more there is.
var grantRoutes = map[string]stack.ConnectScope{
	"POST /v1/agents/register":                     stack.ScopeAgentsWrite,
	"GET /v1/agents":                               stack.ScopeAgentsRead,
	"GET /v1/agents/{agent_id}":                    stack.ScopeAgentsRead,
	"PATCH /v1/agents/{agent_id}":                  stack.ScopeAgentsWrite,
	"DELETE /v1/agents/{agent_id}":                 stack.ScopeAgentsWrite,
	"GET /v1/agents/{agent_id}/permissions":        stack.ScopeAgentsRead,
	"POST /v1/services/grant":                      stack.ScopeAgentsWrite,
	"DELETE /v1/services/agents/{agent_id}/revoke": stack.ScopeAgentsWrite,

	"GET /v1/services":                                  stack.ScopeServicesRead,
	"GET /v1/services/templates":                        stack.ScopeServicesRead,
	"GET /v1/services/connected":                        stack.ScopeServicesRead,
	"POST /v1/services/connect":                         stack.ScopeServicesConnect,
	"POST /v1/services/custom":                          stack.ScopeServicesConnect,
	"POST /v1/services/{connection_id}/verify":          stack.ScopeServicesConnect,
	"DELETE /v1/services/{connection_id}/disconnect":    stack.ScopeServicesConnect,
	"GET /v1/credentials/{provider}":                    stack.ScopeCredentialsRead,
	"GET /v1/credentials/by-connection/{connection_id}": stack.ScopeCredentialsRead,

	"POST /v1/missions":                            stack.ScopePassportsWrite,
	"POST /v1/missions/start":                      stack.ScopePassportsWrite,
	"GET /v1/missions/{mission_id}":                stack.ScopePassportsRead,
	"POST /v1/missions/{mission_id}/renew":         stack.ScopePassportsWrite,
	"POST /v1/missions/{mission_id}/complete":      stack.ScopePassportsWrite,
	"POST /v1/missions/{mission_id}/revoke":        stack.ScopePassportsWrite,
	"POST /v1/passports/issue":                     stack.ScopePassportsWrite,
	"POST /v1/passports/refresh":                   stack.ScopePassportsWrite,
	"POST /v1/passports/delegate":                  stack.ScopePassportsWrite,
	"POST /v1/passports/revoke":                    stack.ScopePassportsWrite,
	"POST /v1/passports/revoke-agent/{agent_id}":   stack.ScopePassportsWrite,
	"GET /v1/passports/active":                     stack.ScopePassportsRead,
	"POST /v1/passports/{passport_jti}/checkpoint": stack.ScopePassportsWrite,
	"POST /v1/passports/{passport_jti}/checkout":   stack.ScopePassportsWrite,
	"GET /v1/passports/{passport_jti}/report":      stack.ScopePassportsRead,

	"POST /v1/proxy": stack.ScopeProxyWrite, // a GET through it takes proxy:read only

	"POST /v1/operator/inbound-webhooks":                                     stack.ScopeWebhooksWrite,
	"GET /v1/operator/inbound-webhooks":                                      stack.ScopeWebhooksRead,
	"GET /v1/operator/inbound-webhooks/{webhook_id}":                         stack.ScopeWebhooksRead,
	"DELETE /v1/operator/inbound-webhooks/{webhook_id}":                      stack.ScopeWebhooksWrite,
	"PUT /v1/operator/inbound-webhooks/{webhook_id}/provider-signing-secret": stack.ScopeWebhooksWrite,
}

// partnerGrant returns what a grant is at the moment, for the length of one request.
func (op *operator) partnerGrant(id string) (stack.PartnerConnection, bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	g, ok := op.partnerGrants.get(id)
	if !ok || g.Status != stack.ConnectActive {
		return stack.PartnerConnection{}, false
	}
	return g.PartnerConnection, true
}

// grantMayCall refuses a route that the caller's grant does not open.
func (c *caller) grantMayCall(r *route) error {
	scope, ok := grantRoutes[r.method+" "+r.pattern]
	if !ok {
		return forbidden("a grant token may not call this route", map[string]any{"check": "grant_route",
			"sent": r.method + " " + r.pattern, "allowed": "the account's own API key"})
	}
	if scope == stack.ScopeProxyWrite { // which of the two it takes shows in the body
		return nil
	}
	return c.mustHave(scope)
}

func (c *caller) mustHave(scope stack.ConnectScope) error {
	if slices.Contains(c.grant.Scopes, scope) {
		return nil
	}
	return forbidden("the grant has not the scope "+string(scope), map[string]any{"check": "grant_scope", "sent": c.grant.Scopes,
		"allowed": scope})
}

// mayConnect refuses a connection with a provider that the caller's grant does not name.
func (c *caller) mayConnect(provider string) error {
	if c.grant == nil || c.grant.Providers == nil || slices.Contains(c.grant.Providers, provider) {
		return nil
	}
	return forbidden("the grant does not name this provider", map[string]any{"check": "grant_providers", "sent": clip(provider),
		"allowed": c.grant.Providers})
}

// made reports whether something was made with the caller's grant. The operator is locked.
func (c *caller) made(id string) bool { return c.op.madeBy[id] == c.grant.GrantID }

// grantReferences are the names by which inputs refer to what a grant can make, each with what looks it up. An id that is not
// of the operator is left to the handler, which says so.
var grantReferences = map[string]func(s *Server, c *caller, value string) (made bool){
	"agent_id":              (*Server).grantMade,
	"child_agent_id":        (*Server).grantMade,
	"connection_id":         (*Server).grantMade,
	"service_connection_id": (*Server).grantMade,
	"webhook_id":            (*Server).grantMade,
	"mission_id":            (*Server).grantMade,
	"mission_ids":           (*Server).grantMade,
	// No grant makes these: what the account's owner has proven, been given and set up is not lent out.
	"identity_claim_ids":    (*Server).grantMade,
	"authority_binding_ids": (*Server).grantMade,
	"fleet_policy_id":       (*Server).grantMade,
	"jti":                   (*Server).grantMadePassport,
	"passport_jti":          (*Server).grantMadePassport,
	"token":                 (*Server).grantMadeToken,
	"parent_passport_token": (*Server).grantMadeToken,
	"X-Passport-Token":      (*Server).grantMadeToken,
}

func (s *Server) grantMade(c *caller, id string) bool { return c.made(id) }

func (s *Server) grantMadePassport(c *caller, jti string) bool {
	p, ok := c.op.passports.get(jti)
	return !ok || c.made(p.agentID())
}

func (s *Server) grantMadeToken(c *caller, token string) bool {
	if p, ok := c.op.tokens[token]; ok {
		return c.made(p.agentID())
	}
	claims, err := s.signer.Verify(token)
	return err != nil || s.grantMadePassport(c, claims.JTI)
}

// withinReach refuses an input that refers to something which was not made with the caller's grant, or is not the calling
// agent's: to them, the rest of the account is not there.
func (s *Server) withinReach(c *caller, in reflect.Value) error {
	if call, ok := in.Interface().(proxyIn); ok && (c.grant != nil || c.scopes != nil) {
		scope := stack.ScopeProxyWrite
		if strings.EqualFold(call.Body.Method, http.MethodGet) {
			scope = stack.ScopeProxyRead
		}
		if c.scopes != nil {
			return c.mustHaveScope(string(scope))
		}
		if err := c.mustHave(scope); err != nil {
			return err
		}
	}
	if c.grant == nil && c.agentID == "" {
		return nil
	}
	if start, ok := in.Interface().(startMissionIn); ok { // which keeps apart what it has read
		in = reflect.ValueOf(struct{ Body stack.MissionStartParams }{start.Body.params})
	}
	c.op.mu.Lock()
	defer c.op.mu.Unlock()
	for i := range in.NumField() {
		tag := in.Type().Field(i).Tag
		name := or(or(tag.Get("path"), tag.Get("query")), tag.Get("header"))
		if err := s.withinReachAt(c, name, in.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// withinReachAt looks at one value of an input and all that is in it.
func (s *Server) withinReachAt(c *caller, name string, v reflect.Value) error {
	if secret, ok := v.Interface().(stack.Secret); ok {
		v = reflect.ValueOf(secret.Reveal())
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return s.withinReachAt(c, name, v.Elem())
		}
	case reflect.String:
		if name == "agent_id" && c.agentID != "" && v.String() == "" && v.CanSet() {
			v.SetString(c.agentID) // an agent that names none means itself
		}
		if mine := c.references()[name]; mine != nil && v.String() != "" && !mine(s, c, v.String()) {
			if strings.Contains(strings.ToLower(name), "token") {
				return unauthorized("UNAUTHORIZED", "the passport is not on record", c.passports())
			}
			return notFound(name, v.String())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return nil
		}
		for i := range v.Len() {
			if err := s.withinReachAt(c, name, v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			wire, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !field.IsExported() || wire == "" && !field.Anonymous {
				continue
			}
			if err := s.withinReachAt(c, wire, v.Field(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// granted gives an answer its place in the caller's grant: what was made belongs to it, and of a list only what belongs to it is
// shown. The operator is locked: no route that makes or lists such things is unlocked.
func (c *caller) granted(answer any) {
	if c.grant == nil {
		return
	}
	switch out := answer.(type) {
	case *stack.Agent:
		c.op.made(out.ID, c.grant)
	case *stack.Connection:
		c.op.made(out.ID, c.grant)
	case *stack.OpenedMission:
		c.op.made(out.MissionID, c.grant)
	case *stack.StartedMission:
		c.op.made(out.MissionID, c.grant)
	case *stack.CreatedInboundWebhook:
		c.op.made(out.ID, c.grant)
	case *[]stack.Agent:
		*out = slices.DeleteFunc(*out, func(a stack.Agent) bool { return !c.made(a.ID) })
	case *[]stack.ActivePassport:
		*out = slices.DeleteFunc(*out, func(p stack.ActivePassport) bool { return !c.made(p.AgentID) })
	case *inboundWebhookList:
		out.Webhooks = slices.DeleteFunc(out.Webhooks, func(w stack.InboundWebhook) bool { return !c.made(w.ID) })
	}
}

func (op *operator) made(id string, grant *stack.PartnerConnection) {
	if op.madeBy == nil {
		op.madeBy = map[string]string{}
	}
	op.madeBy[id] = grant.GrantID
}
