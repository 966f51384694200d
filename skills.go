package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"strings"
	"time"
)

// SkillsService publishes what an account's agents can do for others, finds what others offer, and has it done. Reach it as
// [Client].Skills.
type SkillsService struct{ client *Client }

// Errors of skills.
var (
	// ErrTrustLevelInsufficient means that a skill demands more identity than the caller's account has verified.
	ErrTrustLevelInsufficient error = &kind{text: "trust level insufficient", codes: []string{"TRUST_LEVEL_INSUFFICIENT"}}
	// ErrUnauthorizedSkillAccess means that the agent's skill access does not reach the skill.
	ErrUnauthorizedSkillAccess error = &kind{text: "unauthorized skill access", codes: []string{"UNAUTHORIZED_SKILL_ACCESS"}}
)

// TrustLevel is how much identity stands behind an account.
type TrustLevel string

// Trust levels, from least to most. (contract: semantics 18)
const (
	TrustL0 TrustLevel = "L0" // none
	TrustL1 TrustLevel = "L1" // a person has been verified
	TrustL2 TrustLevel = "L2" // who it is has been verified
)

// SkillStatus is whether a skill can be invoked.
type SkillStatus string

// Skill statuses.
const (
	SkillActive    SkillStatus = "active"
	SkillSuspended SkillStatus = "suspended"
)

// ExecutionMode says who runs a skill.
type ExecutionMode string

// Execution modes. (contract: semantics 19)
const (
	ExecuteOpen   ExecutionMode = "open"   // the publisher's agent, which claims and completes invocations
	ExecuteSealed ExecutionMode = "sealed" // the server, at once; nobody but the publisher sees the steps
	ExecuteSource ExecutionMode = "source" // the server, at once; everybody sees the steps
)

// CredentialMode says whose connections the steps of a skill use.
type CredentialMode string

// Credential modes.
const (
	CredentialsNone   CredentialMode = "none"
	CredentialsBuyer  CredentialMode = "buyer_provides"
	CredentialsSeller CredentialMode = "seller_provides"
	CredentialsBoth   CredentialMode = "both" // the buyer's where there is one, else the seller's
)

// RequiredCredential is a connection that the steps of a skill need.
type RequiredCredential struct {
	Provider string   `json:"provider"`
	Scopes   []string `json:"scopes,omitempty"`
}

// StepType is the kind of an execution step.
type StepType string

// Step types.
const (
	StepLLM    StepType = "llm"    // asks a model; the result is its text
	StepScript StepType = "script" // runs JavaScript; the result is what it returns
)

// ExecutionStep is one step of a sealed or source skill. Steps run in order, each with the result of the one before.
type ExecutionStep struct {
	Type StepType `json:"type"`

	// LLMProvider is anthropic, openai or openrouter, LLMModel the provider's name of a model.
	LLMProvider string          `json:"llm_provider,omitempty"`
	LLMModel    string          `json:"llm_model,omitempty"`
	LLMConfig   *SkillLLMConfig `json:"llm_config,omitempty"`
	// UserMessage is what the model is asked. $INPUT and $PREV in it, and $INPUT.name and $PREV.name, stand for the input and
	// the last result. The default is $PREV, which is the input in the first step.
	UserMessage string `json:"user_message,omitempty"`

	// Runtime is javascript, which is the default of a script.
	Runtime string `json:"runtime,omitempty"`
	// Script is the body of a function of $INPUT and $PREV that returns a value with a JSON form.
	Script string `json:"script,omitempty"`
}

// SkillLLMConfig tunes a model in an llm step.
type SkillLLMConfig struct {
	Temperature  *float64 `json:"temperature,omitempty"`   // 0 to 2
	MaxTokens    int      `json:"max_tokens,omitempty"`    // default 1024
	SystemPrompt string   `json:"system_prompt,omitempty"` // may have $INPUT and $PREV in it
}

// Skill is something that can be invoked.
type Skill struct {
	ID                  string               `json:"id"`
	OperatorID          string               `json:"operator_id"` // its publisher
	AgentID             string               `json:"agent_id,omitempty"`
	Name                string               `json:"name"`
	Description         string               `json:"description"`
	Version             string               `json:"version"`
	InputSchema         json.RawMessage      `json:"input_schema"`  // null is anything
	OutputSchema        json.RawMessage      `json:"output_schema"` // null is anything
	Tags                []string             `json:"tags"`
	TrustLevelRequired  TrustLevel           `json:"trust_level_required"`
	Status              SkillStatus          `json:"status"`
	ExecutionMode       ExecutionMode        `json:"execution_mode"`
	CredentialMode      CredentialMode       `json:"credential_mode"`
	RequiredCredentials []RequiredCredential `json:"required_credentials"`
	ExecutionSteps      []ExecutionStep      `json:"execution_steps,omitempty"` // of source skills, and of one's own
	PricePerInvocation  int                  `json:"price_per_invocation"`      // cents
	AverageRating       *float64             `json:"average_rating"`            // nil when nobody has rated it
	InvocationCount     int                  `json:"invocation_count"`
	CreatedAt           time.Time            `json:"created_at"`
	UpdatedAt           time.Time            `json:"updated_at"`
}

// SkillPublishParams describes a new skill.
type SkillPublishParams struct {
	Name        string `json:"name"`              // 2 to 64 lower-case letters, digits and inner hyphens
	Description string `json:"description"`       // 1 to 1000 characters
	Version     string `json:"version,omitempty"` // semantic; default 1.0.0
	// InputSchema and OutputSchema are JSON Schemas, of draft 2020-12 or draft-07; default: anything.
	InputSchema  any        `json:"input_schema,omitempty"`
	OutputSchema any        `json:"output_schema,omitempty"`
	Tags         []string   `json:"tags,omitempty"`
	TrustLevel   TrustLevel `json:"trust_level_required,omitempty"` // default TrustL0
	// AgentID is the agent that runs invocations; an open skill needs one.
	AgentID             string               `json:"agent_id,omitempty"`
	ExecutionMode       ExecutionMode        `json:"execution_mode,omitempty"`  // default ExecuteOpen
	CredentialMode      CredentialMode       `json:"credential_mode,omitempty"` // default CredentialsNone
	RequiredCredentials []RequiredCredential `json:"required_credentials,omitempty"`
	ExecutionSteps      []ExecutionStep      `json:"execution_steps,omitempty"`      // of sealed and source skills
	PricePerInvocation  int                  `json:"price_per_invocation,omitempty"` // cents; default free
}

// SkillUpdateParams changes a skill. What is not set stays; the execution mode cannot change.
type SkillUpdateParams struct {
	Description         *string              `json:"description,omitempty"`
	Version             *string              `json:"version,omitempty"`
	InputSchema         any                  `json:"input_schema,omitempty"`
	OutputSchema        any                  `json:"output_schema,omitempty"`
	Tags                []string             `json:"tags,omitzero"`
	TrustLevel          *TrustLevel          `json:"trust_level_required,omitempty"`
	CredentialMode      *CredentialMode      `json:"credential_mode,omitempty"`
	RequiredCredentials []RequiredCredential `json:"required_credentials,omitzero"`
	ExecutionSteps      []ExecutionStep      `json:"execution_steps,omitempty"`
	PricePerInvocation  *int                 `json:"price_per_invocation,omitempty"`
}

// Publish offers a skill. It fails with a [*ParamError] without a name or a description; with [ErrInvalidRequest] for a field
// out of bounds, a schema that is none, a script that is no JavaScript, steps where the mode has none and none where it needs
// some; with [ErrNotFound] for an unknown agent; and with code TIER_LIMIT_EXCEEDED when the plan holds no more skills.
//
// POST /v1/skills
func (s *SkillsService) Publish(ctx context.Context, params SkillPublishParams) (*Skill, error) {
	if err := cmp.Or(required("name", params.Name), required("description", params.Description)); err != nil {
		return nil, err
	}
	return send[Skill](ctx, s.client, post("/v1/skills").with(params))
}

// Get returns a skill of any publisher. It fails with [ErrNotFound], also for another's that is suspended.
//
// GET /v1/skills/{skill_id}
func (s *SkillsService) Get(ctx context.Context, skillID string) (*Skill, error) {
	return send[Skill](ctx, s.client, get("/v1/skills/{skill_id}", skillID))
}

// SkillBrowseParams selects skills.
type SkillBrowseParams struct {
	Query      string      // words of the name, the description or a tag, all of them
	Tags       []string    // all of them
	TrustLevel TrustLevel  // that demand at most this
	Status     SkillStatus // default SkillActive; of others there are no other ones
	Limit      int         // 1 to 100; default 20
	Offset     int
}

// Browse returns skills of all publishers, the most invoked first. It fails with [ErrInvalidRequest] for a parameter out of
// bounds.
//
// GET /v1/skills
func (s *SkillsService) Browse(ctx context.Context, params SkillBrowseParams) ([]Skill, error) {
	return sendList[Skill](ctx, s.client, get("/v1/skills").param("query", params.Query).
		param("tags", strings.Join(params.Tags, ",")).param("trust_level", string(params.TrustLevel)).
		param("status", string(params.Status)).number("limit", params.Limit).number("offset", params.Offset))
}

// All walks the skills of all pages. An error ends it.
//
// GET /v1/skills
func (s *SkillsService) All(ctx context.Context, params SkillBrowseParams) iter.Seq2[Skill, error] {
	params.Limit = cmp.Or(params.Limit, 100)
	return pages(1, func(page int) ([]Skill, int, error) {
		part := params
		part.Offset += (page - 1) * params.Limit
		skills, err := s.Browse(ctx, part)
		return skills, params.Limit, err
	})
}

// ListOwned returns the account's own skills, suspended ones too, oldest first.
//
// GET /v1/skills/mine
func (s *SkillsService) ListOwned(ctx context.Context) ([]Skill, error) {
	return sendList[Skill](ctx, s.client, get("/v1/skills/mine"))
}

// Update changes one of the account's skills. Invocations that are under way keep to what they were made with. It fails with
// [ErrNotFound] for a skill that is not the account's, and otherwise as [SkillsService.Publish] does.
//
// PATCH /v1/skills/{skill_id}
func (s *SkillsService) Update(ctx context.Context, skillID string, params SkillUpdateParams) (*Skill, error) {
	return send[Skill](ctx, s.client, patch("/v1/skills/{skill_id}", skillID).with(params))
}

// Suspend takes one of the account's skills off the market; nobody can invoke it until it is active again. Doing so twice
// changes nothing. It fails with [ErrNotFound] for a skill that is not the account's.
//
// POST /v1/skills/{skill_id}/suspend
func (s *SkillsService) Suspend(ctx context.Context, skillID string) (*Skill, error) {
	cl := post("/v1/skills/{skill_id}/suspend", skillID)
	cl.keyed = true // a repetition changes nothing
	return send[Skill](ctx, s.client, cl)
}

// Activate undoes [SkillsService.Suspend], and fails as it does.
//
// POST /v1/skills/{skill_id}/activate
func (s *SkillsService) Activate(ctx context.Context, skillID string) (*Skill, error) {
	cl := post("/v1/skills/{skill_id}/activate", skillID)
	cl.keyed = true // a repetition changes nothing
	return send[Skill](ctx, s.client, cl)
}

// TrustCheck says whether the caller's account has the identity that a skill demands.
type TrustCheck struct {
	SkillID   string     `json:"skill_id"`
	Required  TrustLevel `json:"required"`
	Level     TrustLevel `json:"level"` // what the account has, by its active identity claims
	Satisfied bool       `json:"satisfied"`
	Reason    string     `json:"reason,omitempty"` // what is missing
}

// CheckTrust says whether the account's stored identity claims reach what a skill demands. It fails with [ErrNotFound].
//
// POST /v1/skills/{skill_id}/check-trust
func (s *SkillsService) CheckTrust(ctx context.Context, skillID string) (*TrustCheck, error) {
	cl := post("/v1/skills/{skill_id}/check-trust", skillID).with(struct{}{})
	cl.keyed = true // it changes nothing
	return send[TrustCheck](ctx, s.client, cl)
}
