package mockserver

import (
	"slices"

	"github.com/getstack-go/stack"
)

// agentMay are the routes that an agent may call with its own key: what it needs to do its work and to account for it. A route
// that is not here is refused: it decides about agents, shows the account or is for people. What a call refers to must be the
// agent's own, see [agentReferences]; an agent_id that is left out is the agent's. (contract: server-api 2.1 and 2.4)
var agentMay = []string{
	"GET /v1/agents/{agent_id}",
	"GET /v1/agents/{agent_id}/permissions",
	"GET /v1/fleets/membership/{agent_id}",

	"POST /v1/missions",
	"POST /v1/missions/start",
	"GET /v1/missions/{mission_id}",
	"POST /v1/missions/{mission_id}/renew",
	"POST /v1/missions/{mission_id}/complete",
	"POST /v1/missions/{mission_id}/revoke",

	"POST /v1/passports/issue",
	"POST /v1/passports/refresh",
	"POST /v1/passports/delegate", // to whom is free: the child's passport is of use to the child only
	"POST /v1/passports/revoke",
	"GET /v1/passports/active",
	"POST /v1/passports/{passport_jti}/checkpoint",
	"POST /v1/passports/{passport_jti}/checkout",
	"GET /v1/passports/{passport_jti}/report",

	"POST /v1/proxy",
	"POST /v1/proxy/operations/get",
	"GET /v1/credentials/{provider}",
	"GET /v1/credentials/by-connection/{connection_id}",
	"POST /v1/llm/anthropic/messages",
	"POST /v1/llm/openai/chat/completions",
	"POST /v1/llm/openrouter/chat/completions",
	"POST /v1/scan",

	"POST /v1/intents/simulate",
	"POST /v1/intents/submit",
	"GET /v1/intents/{approval_id}",

	"POST /v1/dropoffs",
	"GET /v1/dropoffs/{dropoff_id}",
	"POST /v1/dropoffs/{dropoff_id}/deposit",
	"POST /v1/dropoffs/{dropoff_id}/collect",

	"GET /v1/services",
	"GET /v1/skills",
	"GET /v1/skills/{skill_id}",
	"POST /v1/skills/{skill_id}/invoke",
	"GET /v1/skills/invocations/{invocation_id}",
}

// agentMayCall refuses a route that is not for agents.
func (c *caller) agentMayCall(r *route) error {
	if slices.Contains(agentMay, r.method+" "+r.pattern) {
		return nil
	}
	return forbidden("an agent's key may not call this route", map[string]any{"check": "agent_route",
		"sent": r.method + " " + r.pattern, "allowed": "the account's own API key"})
}

// agentReferences are the names by which inputs refer to what an agent can have, each with what looks whether it is its own.
var agentReferences = map[string]func(s *Server, c *caller, value string) (mine bool){
	"agent_id":              (*Server).agentItself,
	"from_agent":            (*Server).agentItself,
	"mission_id":            (*Server).agentMission,
	"mission_ids":           (*Server).agentMission,
	"jti":                   (*Server).agentPassport,
	"passport_jti":          (*Server).agentPassport,
	"passport_id":           (*Server).agentPassport,
	"token":                 (*Server).agentToken,
	"parent_passport_token": (*Server).agentToken,
	"X-Passport-Token":      (*Server).agentToken,
	"approval_id":           (*Server).agentApproval,
	"X-Intent-Approval-Id":  (*Server).agentApproval,
	"dropoff_id":            (*Server).agentDropoff,
	"invocation_id":         (*Server).agentInvocation,
}

func (s *Server) agentItself(c *caller, id string) bool { return id == c.agentID }

func (s *Server) agentMission(c *caller, id string) bool {
	m, ok := c.op.missions.get(id)
	return ok && m.AgentID == c.agentID
}

func (s *Server) agentPassport(c *caller, jti string) bool {
	p, ok := c.op.passports.get(jti)
	return !ok || p.agentID() == c.agentID
}

func (s *Server) agentToken(c *caller, token string) bool {
	if p, ok := c.op.tokens[token]; ok {
		return p.agentID() == c.agentID
	}
	claims, err := s.signer.Verify(token)
	return err != nil || s.agentPassport(c, claims.JTI)
}

func (s *Server) agentApproval(c *caller, id string) bool {
	a, ok := c.op.approvals.get(id)
	return !ok || a.AgentID == c.agentID
}

func (s *Server) agentDropoff(c *caller, id string) bool {
	d, ok := c.op.dropoffs.get(id)
	return ok && (d.FromAgentID == c.agentID || d.ToAgentID == c.agentID)
}

func (s *Server) agentInvocation(c *caller, id string) bool {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	inv, ok := s.market.invocations.get(id)
	return ok && inv.buyer == c.op && inv.AgentID == c.agentID
}

// references are what binds the caller's inputs to its part of the account.
func (c *caller) references() map[string]func(*Server, *caller, string) bool {
	if c.agentID != "" {
		return agentReferences
	}
	return grantReferences
}

// passports says which passports the caller may present.
func (c *caller) passports() string {
	if c.agentID != "" {
		return "a passport of the agent that calls"
	}
	return "a passport that was issued with the grant"
}

// mustPresent refuses an agent that shows no passport where the account's own key needs none.
func (c *caller) mustPresent(token stack.Secret) error {
	if c.agentID == "" || !token.IsZero() {
		return nil
	}
	return unauthorized("UNAUTHORIZED", "an agent needs a passport for this", "X-Passport-Token: "+c.passports())
}
