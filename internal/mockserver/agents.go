package mockserver

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

// agent is a registered agent and what its earlier checkouts were like.
type agent struct {
	stack.Agent
	baseline detect.Baseline
}

func agentRoutes() []route {
	return []route{
		endpoint("POST", "/v1/agents/register", (*Server).registerAgent),
		endpoint("GET", "/v1/agents", (*Server).listAgents),
		endpoint("GET", "/v1/agents/{agent_id}", (*Server).getAgent),
		endpoint("PATCH", "/v1/agents/{agent_id}", (*Server).updateAgent),
		endpoint("DELETE", "/v1/agents/{agent_id}", (*Server).deleteAgent),
		endpoint("POST", "/v1/agents/{agent_id}/unblock", (*Server).unblockAgent),
	}
}

var agentName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*[a-z0-9]$`)

// checkAgent holds the rules for an agent's fields, for registration and change alike.
func checkAgent(a *stack.Agent) error {
	return firstError(
		checkAgentName(a.Name),
		atMost("body.description", a.Description, 256),
		atMost("body.icon_url", a.IconURL, 100_000),
		anIcon("body.icon_url", a.IconURL),
		chosen("body.status", a.Status, stack.AgentActive, stack.AgentSuspended),
		chosen("body.accountability_mode", a.AccountabilityMode, stack.Enforced, stack.Logged, stack.Standard),
		chosen("body.credential_access", a.CredentialAccess, stack.CredentialDirect, stack.CredentialProxyPreferred, stack.CredentialProxyOnly),
		chosen("body.key_mode", a.KeyMode, stack.KeyStackManaged, stack.KeyCustomerManaged, stack.KeyCoSigned),
		chosen("body.on_warning", a.OnWarning, stack.EscalateNotify, stack.EscalateBlock),
		chosen("body.on_critical", a.OnCritical, stack.EscalateNotify, stack.EscalateBlock),
		oneOf("body.skill_access_mode", a.SkillAccessMode, stack.SkillsAll, stack.SkillsListed, stack.SkillsNone),
		listAtMost("body.allowed_skills", a.AllowedSkills, 100, 64),
	)
}

func checkAgentName(name string) *apiError {
	if !agentName.MatchString(name) || len(name) > 64 {
		return invalid("body.name", name, "2 to 64 lower-case letters, digits and inner hyphens")
	}
	return nil
}

// anIcon refuses what is no place to find a picture at; the empty value is none.
func anIcon(field, value string) *apiError {
	u, err := url.Parse(value)
	switch {
	case value == "", err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "":
		return nil
	case strings.HasPrefix(value, "data:") && strings.Contains(value, ","):
		return nil
	}
	return invalid(field, value, "an http or https URL, or a data URI")
}

type registerAgentIn struct {
	Body stack.AgentRegisterParams `body:""`
}

func (s *Server) registerAgent(_ context.Context, c *caller, in registerAgentIn) (*stack.Agent, error) {
	a, err := c.op.register(s.clock.now(), in.Body)
	if err != nil {
		return nil, err
	}
	return &a.Agent, nil
}

// register puts a new agent on record.
func (op *operator) register(now time.Time, p stack.AgentRegisterParams) (*agent, error) {
	a := &agent{Agent: stack.Agent{
		ID: newID("agt_"), OperatorID: op.id, Name: p.Name, Description: p.Description, Status: stack.AgentActive, IconURL: p.IconURL,
		AccountabilityMode: stack.Enforced, CredentialAccess: stack.CredentialProxyOnly, KeyMode: stack.KeyStackManaged,
		OnWarning: stack.EscalateNotify, OnCritical: stack.EscalateNotify, LLMInjectSystemPrompt: true, LLMRedactPII: true,
		CreatedAt: now, UpdatedAt: now,
	}}
	if err := oneOf("body.profile", p.Profile, stack.ProfileProxiedLLMBot); err != nil {
		return nil, err
	}
	if p.Profile == stack.ProfileProxiedLLMBot {
		a.AccountabilityMode = stack.Logged
	}
	override(&a.AccountabilityMode, p.AccountabilityMode)
	override(&a.CredentialAccess, p.CredentialAccess)
	override(&a.KeyMode, p.KeyMode)
	override(&a.OnWarning, p.OnWarning)
	override(&a.OnCritical, p.OnCritical)
	replace(&a.LLMInjectSystemPrompt, p.LLMInjectSystemPrompt)
	replace(&a.LLMRedactPII, p.LLMRedactPII)
	if err := checkAgent(&a.Agent); err != nil {
		return nil, err
	}
	if err := op.capacity("agents", op.agents.len()); err != nil {
		return nil, err
	}
	op.agents.put(a.ID, a)
	op.record(now, stack.AuditEntry{AgentID: a.ID, Action: "agent.register"})
	return a, nil
}

// override sets a field when a value was given.
func override[T ~string](field *T, value T) {
	if value != "" {
		*field = value
	}
}

// replace sets a field when a value was given.
func replace[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

func (s *Server) listAgents(_ context.Context, c *caller, _ none) (*[]stack.Agent, error) {
	list := []stack.Agent{}
	for a := range c.op.agents.all() {
		list = append(list, a.Agent)
	}
	return &list, nil
}

type agentIn struct {
	AgentID string `path:"agent_id"`
}

// agentByID finds one of the operator's agents.
func (op *operator) agentByID(id string) (*agent, error) {
	return op.agents.find("agent", id)
}

func (s *Server) getAgent(_ context.Context, c *caller, in agentIn) (*stack.Agent, error) {
	a, err := c.op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	return &a.Agent, nil
}

type updateAgentIn struct {
	AgentID string                  `path:"agent_id"`
	Body    stack.AgentUpdateParams `body:""`
}

func (s *Server) updateAgent(_ context.Context, c *caller, in updateAgentIn) (*stack.Agent, error) {
	a, err := c.op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	changed, p := a.Agent, in.Body
	replace(&changed.Name, p.Name)
	replace(&changed.Description, p.Description)
	replace(&changed.Status, p.Status)
	replace(&changed.AccountabilityMode, p.AccountabilityMode)
	replace(&changed.CredentialAccess, p.CredentialAccess)
	replace(&changed.OnWarning, p.OnWarning)
	replace(&changed.OnCritical, p.OnCritical)
	replace(&changed.LLMInjectSystemPrompt, p.LLMInjectSystemPrompt)
	replace(&changed.LLMRedactPII, p.LLMRedactPII)
	replace(&changed.SkillAccessMode, p.SkillAccessMode)
	if p.AllowedSkills != nil {
		changed.AllowedSkills = p.AllowedSkills
	}
	replace(&changed.IconURL, p.IconURL)
	if err := checkAgent(&changed); err != nil {
		return nil, err
	}
	now := s.clock.now()
	changed.UpdatedAt = now
	a.Agent = changed
	c.op.record(now, stack.AuditEntry{AgentID: a.ID, Action: "agent.update"})
	return &a.Agent, nil
}

func (s *Server) deleteAgent(_ context.Context, c *caller, in agentIn) (*stack.Deleted, error) {
	a, err := c.op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	if m, ok := c.op.fleetMembers[a.ID]; ok {
		c.op.dismiss(now, m)
	}
	c.op.revokeAgent(now, a.ID, "Agent deleted")
	c.op.dropGrants(a.ID)
	c.op.revokeInboundWhere(now, func(w *inboundWebhook) bool { return w.AgentID == a.ID })
	c.op.agents.delete(a.ID)
	s.keys.removeAgent(a.ID)
	c.op.record(now, stack.AuditEntry{AgentID: a.ID, Action: "agent.delete"})
	return &stack.Deleted{ID: a.ID, Deleted: true}, nil
}

func (s *Server) unblockAgent(_ context.Context, c *caller, in agentIn) (*stack.Agent, error) {
	a, err := c.op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	if !a.PassportBlocked {
		return &a.Agent, nil
	}
	now := s.clock.now()
	if err := c.op.governed(now, c, "agent.unblock", a.ID); err != nil {
		return nil, err
	}
	a.PassportBlocked, a.PassportBlockedReason, a.PassportBlockedAt, a.UpdatedAt = false, "", time.Time{}, now
	c.op.record(now, stack.AuditEntry{AgentID: a.ID, Action: "agent.unblock"})
	return &a.Agent, nil
}

// blockAgent keeps an agent from further passports until it is unblocked.
func (op *operator) blockAgent(now time.Time, a *agent, reason string) {
	a.PassportBlocked, a.PassportBlockedReason, a.PassportBlockedAt, a.UpdatedAt = true, reason, now, now
	op.record(now, stack.AuditEntry{AgentID: a.ID, Action: "agent.block", ErrorMessage: reason})
	op.tell(now, stack.EventAgentBlocked, "The agent "+a.Name+" gets no more passports: "+reason,
		map[string]any{"agent_id": a.ID, "reason": reason})
}

// mayHavePassport refuses agents that are suspended or blocked.
func (a *agent) mayHavePassport() error {
	if a.PassportBlocked {
		return refuse(http.StatusForbidden, "PASSPORT_BLOCKED", "the agent is blocked from passports: "+a.PassportBlockedReason,
			map[string]any{"check": "passport_blocked", "sent": a.ID, "allowed": "an agent that is not blocked; unblock it first"})
	}
	if a.Status == stack.AgentSuspended {
		return forbidden("the agent is suspended", map[string]any{"check": "agent_status", "sent": a.ID, "allowed": "an active agent"})
	}
	return nil
}
