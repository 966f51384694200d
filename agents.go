package stack

import (
	"context"
	"time"
)

// AgentsService registers and manages agents. Reach it as [Client].Agents.
type AgentsService struct{ client *Client }

// CredentialAccess says whether an agent may read raw credentials.
type CredentialAccess string

// Ways to a credential.
const (
	CredentialDirect         CredentialAccess = "direct"
	CredentialProxyPreferred CredentialAccess = "proxy_preferred"
	CredentialProxyOnly      CredentialAccess = "proxy_only"
)

// KeyMode says who signs for an agent. It cannot change after registration.
type KeyMode string

// Key modes.
const (
	KeyStackManaged    KeyMode = "stack_managed"
	KeyCustomerManaged KeyMode = "customer_managed"
	KeyCoSigned        KeyMode = "co_signed"
)

// SkillAccess says which skills an agent may invoke. The names of the modes are the mock's.
type SkillAccess string

// Skill access modes.
const (
	SkillsAll    SkillAccess = "all" // the default
	SkillsListed SkillAccess = "listed"
	SkillsNone   SkillAccess = "none"
)

// AgentStatus is whether an agent may be given passports.
type AgentStatus string

// Agent statuses.
const (
	AgentActive    AgentStatus = "active"
	AgentSuspended AgentStatus = "suspended"
)

// Escalation is what a flag does to its agent beyond being recorded.
type Escalation string

// Escalations.
const (
	EscalateNotify Escalation = "notify"
	EscalateBlock  Escalation = "block" // no further passport for the agent until it is unblocked
)

// ProfileProxiedLLMBot registers an agent as proxy_only, logged and stack_managed; fields given explicitly win.
const ProfileProxiedLLMBot = "proxied-llm-bot"

// Agent is a registered agent.
type Agent struct {
	ID                    string           `json:"id"`
	OperatorID            string           `json:"operator_id"`
	Name                  string           `json:"name"`
	Description           string           `json:"description"`
	Status                AgentStatus      `json:"status"`
	AccountabilityMode    Accountability   `json:"accountability_mode"`
	OnWarning             Escalation       `json:"on_warning"`
	OnCritical            Escalation       `json:"on_critical"`
	PassportBlocked       bool             `json:"passport_blocked"`
	PassportBlockedReason string           `json:"passport_blocked_reason,omitempty"`
	PassportBlockedAt     time.Time        `json:"passport_blocked_at,omitzero"`
	CredentialAccess      CredentialAccess `json:"credential_access"`
	KeyMode               KeyMode          `json:"key_mode"`
	LLMInjectSystemPrompt bool             `json:"llm_inject_system_prompt"`
	LLMRedactPII          bool             `json:"llm_redact_pii"`
	SkillAccessMode       SkillAccess      `json:"skill_access_mode,omitempty"`
	AllowedSkills         []string         `json:"allowed_skills,omitempty"` // ids, for SkillsListed
	IconURL               string           `json:"icon_url,omitempty"`
	CreatedAt             time.Time        `json:"created_at"`
	UpdatedAt             time.Time        `json:"updated_at"`
}

// AgentRegisterParams describes a new agent. What is left out takes the profile's value or the server's default:
// enforced, proxy_only, stack_managed, notify, both LLM toggles on.
type AgentRegisterParams struct {
	Name                  string           `json:"name"`                  // lower-case letters, digits and inner hyphens, 2 to 64
	Description           string           `json:"description,omitempty"` // at most 256 characters
	Profile               string           `json:"profile,omitempty"`
	AccountabilityMode    Accountability   `json:"accountability_mode,omitempty"`
	CredentialAccess      CredentialAccess `json:"credential_access,omitempty"`
	KeyMode               KeyMode          `json:"key_mode,omitempty"`
	OnWarning             Escalation       `json:"on_warning,omitempty"`
	OnCritical            Escalation       `json:"on_critical,omitempty"`
	LLMInjectSystemPrompt *bool            `json:"llm_inject_system_prompt,omitempty"`
	LLMRedactPII          *bool            `json:"llm_redact_pii,omitempty"`
	IconURL               string           `json:"icon_url,omitempty"` // a URL or data URI
}

// AgentUpdateParams changes an agent; nil fields stay as they are.
type AgentUpdateParams struct {
	Name                  *string           `json:"name,omitempty"`
	Description           *string           `json:"description,omitempty"`
	Status                *AgentStatus      `json:"status,omitempty"`
	AccountabilityMode    *Accountability   `json:"accountability_mode,omitempty"`
	CredentialAccess      *CredentialAccess `json:"credential_access,omitempty"`
	OnWarning             *Escalation       `json:"on_warning,omitempty"`
	OnCritical            *Escalation       `json:"on_critical,omitempty"`
	LLMInjectSystemPrompt *bool             `json:"llm_inject_system_prompt,omitempty"`
	LLMRedactPII          *bool             `json:"llm_redact_pii,omitempty"`
	SkillAccessMode       *SkillAccess      `json:"skill_access_mode,omitempty"`
	AllowedSkills         []string          `json:"allowed_skills,omitzero"` // replaces the list; at most 100 ids
	IconURL               *string           `json:"icon_url,omitempty"`
}

// Deleted confirms a deletion.
type Deleted struct {
	ID      string `json:"id"`
	Deleted bool   `json:"deleted"`
}

// Register creates an agent. It fails with a [*ParamError] without a name, with [ErrInvalidRequest] when a field breaks
// its rule, and with code TIER_LIMIT_EXCEEDED when the plan has no agent left.
//
// POST /v1/agents/register
func (s *AgentsService) Register(ctx context.Context, params AgentRegisterParams) (*Agent, error) {
	if err := required("name", params.Name); err != nil {
		return nil, err
	}
	return send[Agent](ctx, s.client, post("/v1/agents/register").with(params))
}

// Get returns the agent with the given id. It fails with [ErrNotFound] when the operator has no such agent.
//
// GET /v1/agents/{agent_id}
func (s *AgentsService) Get(ctx context.Context, agentID string) (*Agent, error) {
	return send[Agent](ctx, s.client, get("/v1/agents/{agent_id}", agentID))
}

// List returns the operator's agents, oldest first.
//
// GET /v1/agents
func (s *AgentsService) List(ctx context.Context) ([]Agent, error) {
	return sendList[Agent](ctx, s.client, get("/v1/agents"))
}

// Update changes an agent. It fails with [ErrNotFound] or [ErrInvalidRequest].
//
// PATCH /v1/agents/{agent_id}
func (s *AgentsService) Update(ctx context.Context, agentID string, params AgentUpdateParams) (*Agent, error) {
	return send[Agent](ctx, s.client, patch("/v1/agents/{agent_id}", agentID).with(params))
}

// Suspend sets the agent's status to suspended: it gets no more passports.
//
// PATCH /v1/agents/{agent_id}
func (s *AgentsService) Suspend(ctx context.Context, agentID string) (*Agent, error) {
	status := AgentSuspended
	return s.Update(ctx, agentID, AgentUpdateParams{Status: &status})
}

// Activate sets the agent's status back to active.
//
// PATCH /v1/agents/{agent_id}
func (s *AgentsService) Activate(ctx context.Context, agentID string) (*Agent, error) {
	status := AgentActive
	return s.Update(ctx, agentID, AgentUpdateParams{Status: &status})
}

// Delete removes an agent and revokes its passports and its inbound webhooks. It fails with [ErrNotFound].
//
// DELETE /v1/agents/{agent_id}
func (s *AgentsService) Delete(ctx context.Context, agentID string) (*Deleted, error) {
	return send[Deleted](ctx, s.client, del("/v1/agents/{agent_id}", agentID))
}

// AgentUnblockParams holds the approval that unblocking needs.
type AgentUnblockParams struct {
	// GovernanceApprovalID names a human's approval. Without it, a caller with an API key gets
	// ErrGovernanceApprovalRequired, whose details hold the approval_id to have approved.
	GovernanceApprovalID string `json:"-"`
}

// Unblock lets a blocked agent have passports again. It fails with [ErrGovernanceApprovalRequired] until a human has
// approved, and with [ErrNotFound].
//
// POST /v1/agents/{agent_id}/unblock
func (s *AgentsService) Unblock(ctx context.Context, agentID string, params AgentUnblockParams) (*Agent, error) {
	return send[Agent](ctx, s.client, post("/v1/agents/{agent_id}/unblock", agentID).
		head("X-Governance-Approval", params.GovernanceApprovalID))
}
