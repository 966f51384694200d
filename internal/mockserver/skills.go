package mockserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/schema"
	"github.com/getstack-go/stack/internal/mockserver/script"
)

const (
	maxSkillTags  = 20
	maxSkillTag   = 50
	maxSkillSteps = 10
	maxScript     = 64 << 10 // bytes
	maxPrompt     = 32 << 10 // bytes
	maxSkillPrice = 100_000  // cents
)

// market is what operators share: the skills of all, with their invocations, the requests for more, and what they earned. Its
// lock is taken after an operator's, never before.
type market struct {
	mu          sync.Mutex
	skills      table[skill]
	invocations table[invocation]
	requests    table[stack.SkillRequest]
	earned      map[string]stack.EarningsCents // by publisher
}

func (m *market) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.skills, m.invocations, m.requests, m.earned = table[skill]{}, table[invocation]{}, table[stack.SkillRequest]{}, nil
}

// skill is what a publisher offers. It is replaced as a whole when it changes, so that an invocation keeps the one it began with.
type skill struct {
	stack.Skill
	input, output *schema.Schema // nil takes anything
	by            *caller        // who wrote it last: it uses of the publisher's connections what they may
}

func skillRoutes() []route {
	return []route{
		endpoint("POST", "/v1/skills", (*Server).publishSkill),
		endpoint("GET", "/v1/skills", (*Server).browseSkills),
		endpoint("GET", "/v1/skills/mine", (*Server).listOwnedSkills),
		endpoint("GET", "/v1/skills/{skill_id}", (*Server).getSkill),
		endpoint("PATCH", "/v1/skills/{skill_id}", (*Server).updateSkill),
		endpoint("POST", "/v1/skills/{skill_id}/suspend", (*Server).suspendSkill),
		endpoint("POST", "/v1/skills/{skill_id}/activate", (*Server).activateSkill),
		endpoint("POST", "/v1/skills/{skill_id}/check-trust", (*Server).checkTrust, reads),
	}
}

var (
	skillName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}[a-z0-9]$`)
	semver    = regexp.MustCompile(`^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z.-]{1,64})?(\+[0-9A-Za-z.-]{1,64})?$`)

	trustLevels     = []stack.TrustLevel{stack.TrustL0, stack.TrustL1, stack.TrustL2}
	credentialModes = []stack.CredentialMode{stack.CredentialsNone, stack.CredentialsBuyer, stack.CredentialsSeller,
		stack.CredentialsBoth}
)

type publishSkillIn struct {
	Body stack.SkillPublishParams `body:""`
}

func (s *Server) publishSkill(_ context.Context, c *caller, in publishSkillIn) (*stack.Skill, error) {
	p, op, now := in.Body, c.op, s.clock.now()
	if p.AgentID != "" {
		if _, err := op.agentByID(p.AgentID); err != nil {
			return nil, err
		}
	}
	sk := &skill{by: c, Skill: stack.Skill{ID: newID("skl_"), OperatorID: op.id, AgentID: p.AgentID, Name: p.Name,
		Description: p.Description, Version: or(p.Version, "1.0.0"), Tags: p.Tags, TrustLevelRequired: or(p.TrustLevel, stack.TrustL0),
		Status: stack.SkillActive, ExecutionMode: or(p.ExecutionMode, stack.ExecuteOpen),
		CredentialMode: or(p.CredentialMode, stack.CredentialsNone), RequiredCredentials: p.RequiredCredentials,
		ExecutionSteps: p.ExecutionSteps, PricePerInvocation: p.PricePerInvocation, CreatedAt: now, UpdatedAt: now}}
	if !skillName.MatchString(p.Name) {
		return nil, invalid("body.name", p.Name, "2 to 64 lower-case letters, digits and inner hyphens")
	}
	if err := sk.schemas(p.InputSchema, p.OutputSchema); err != nil {
		return nil, err
	}
	if err := sk.check(); err != nil {
		return nil, err
	}
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	mine, _ := s.market.published(op, func(time.Time) int { return 0 })
	if err := op.capacity(capSkills, mine); err != nil {
		return nil, err
	}
	s.market.skills.put(sk.ID, sk)
	op.record(now, skillRow("skill.publish", sk.ID))
	return sk.seenBy(op), nil
}

func skillRow(action, id string) stack.AuditEntry {
	return stack.AuditEntry{Layer: "skills", Action: action, TraceID: id}
}

// schemas compiles the schemas that are given; nil leaves one as it is.
func (sk *skill) schemas(input, output any) error {
	for _, part := range []struct {
		field    string
		given    any
		raw      *json.RawMessage
		compiled **schema.Schema
	}{{"body.input_schema", input, &sk.InputSchema, &sk.input}, {"body.output_schema", output, &sk.OutputSchema, &sk.output}} {
		if part.given == nil {
			continue
		}
		raw, err := json.Marshal(part.given)
		if err != nil {
			return err
		}
		compiled, err := schema.Compile(raw)
		if err != nil {
			return refuseSchema(part.field, err)
		}
		*part.raw, *part.compiled = raw, compiled
	}
	return nil
}

// check holds the rules of a whole skill, new or changed.
func (sk *skill) check() error {
	if sk.Tags == nil {
		sk.Tags = []string{}
	}
	if sk.RequiredCredentials == nil {
		sk.RequiredCredentials = []stack.RequiredCredential{}
	}
	if !semver.MatchString(sk.Version) {
		return invalid("body.version", sk.Version, "a semantic version such as 1.0.0")
	}
	if err := firstError(
		filled("body.description", sk.Description), atMost("body.description", sk.Description, 1000),
		listAtMost("body.tags", sk.Tags, maxSkillTags, maxSkillTag), distinct("body.tags", sk.Tags),
		chosen("body.trust_level_required", sk.TrustLevelRequired, trustLevels...),
		chosen("body.execution_mode", sk.ExecutionMode, stack.ExecuteOpen, stack.ExecuteSealed, stack.ExecuteSource),
		chosen("body.credential_mode", sk.CredentialMode, credentialModes...),
		within("body.price_per_invocation", sk.PricePerInvocation, 0, maxSkillPrice),
	); err != nil {
		return err
	}
	if len(sk.RequiredCredentials) > maxSkillSteps {
		return invalid("body.required_credentials", fmt.Sprintf("a list of %d", len(sk.RequiredCredentials)),
			fmt.Sprintf("a list of at most %d", maxSkillSteps))
	}
	for i, needed := range sk.RequiredCredentials {
		at := fmt.Sprintf("body.required_credentials[%d]", i)
		if err := firstError(filled(at+".provider", needed.Provider), atMost(at+".provider", needed.Provider, maxServiceName),
			listAtMost(at+".scopes", needed.Scopes, maxScopes, maxScope)); err != nil {
			return err
		}
	}
	if sk.ExecutionMode == stack.ExecuteOpen {
		if sk.AgentID == "" {
			return invalid("body.agent_id", nil, "the agent that runs the invocations of an open skill")
		}
		if len(sk.ExecutionSteps) > 0 {
			return invalid("body.execution_steps", "given", "none for an open skill: its agent runs it")
		}
		return nil
	}
	if n := len(sk.ExecutionSteps); n == 0 || n > maxSkillSteps {
		return invalid("body.execution_steps", fmt.Sprintf("a list of %d", n),
			fmt.Sprintf("1 to %d steps for a %s skill", maxSkillSteps, sk.ExecutionMode))
	}
	for i := range sk.ExecutionSteps {
		if err := sk.checkStep(fmt.Sprintf("body.execution_steps[%d]", i), &sk.ExecutionSteps[i]); err != nil {
			return err
		}
	}
	return nil
}

func (sk *skill) checkStep(at string, step *stack.ExecutionStep) error {
	switch step.Type {
	case stack.StepLLM:
		if step.Script != "" || step.Runtime != "" {
			return invalid(at, "a script in an llm step", "llm_provider, llm_model, llm_config and user_message")
		}
		config := stack.SkillLLMConfig{}
		if step.LLMConfig != nil {
			config = *step.LLMConfig
		}
		if t := config.Temperature; t != nil && (*t < 0 || *t > 2) {
			return invalid(at+".llm_config.temperature", *t, "0 to 2")
		}
		return firstError(
			chosen(at+".llm_provider", step.LLMProvider, "anthropic", "openai", "openrouter"),
			filled(at+".llm_model", step.LLMModel), atMost(at+".llm_model", step.LLMModel, 200),
			within(at+".llm_config.max_tokens", config.MaxTokens, 0, 100_000),
			atMost(at+".llm_config.system_prompt", config.SystemPrompt, maxPrompt), atMost(at+".user_message", step.UserMessage, maxPrompt))
	case stack.StepScript:
		if step.LLMProvider != "" || step.LLMModel != "" || step.LLMConfig != nil || step.UserMessage != "" {
			return invalid(at, "a model in a script step", "runtime and script")
		}
		if err := firstError(oneOf(at+".runtime", step.Runtime, "javascript"), filled(at+".script", step.Script)); err != nil {
			return err
		}
		if len(step.Script) > maxScript {
			return invalid(at+".script", fmt.Sprintf("%d bytes", len(step.Script)), fmt.Sprintf("at most %d bytes", maxScript))
		}
		var failure *script.Error
		if err := script.Check(step.Script); errors.As(err, &failure) {
			return invalid(at+".script", failure.Message, "the body of a JavaScript function that returns a value")
		} else if err != nil {
			return err
		}
		return nil
	}
	return firstError(chosen(at+".type", step.Type, stack.StepLLM, stack.StepScript))
}

// seenBy is a skill as an operator may see it: the steps of a sealed one are its publisher's alone.
func (sk *skill) seenBy(op *operator) *stack.Skill {
	out := sk.Skill
	if sk.OperatorID != op.id {
		out.AgentID = ""
		if sk.ExecutionMode != stack.ExecuteSource {
			out.ExecutionSteps = nil
		}
	}
	return &out
}

// skillByID finds a skill that an operator may see. The market is locked.
func (m *market) skillByID(op *operator, id string) (*skill, error) {
	if sk, ok := m.skills.get(id); ok && (sk.Status == stack.SkillActive || sk.OperatorID == op.id) {
		return sk, nil
	}
	return nil, refuse(http.StatusNotFound, "SKILL_NOT_FOUND", "skill not found: "+clip(id),
		map[string]any{"check": "exists", "sent": clip(id)})
}

type skillIn struct {
	SkillID string `path:"skill_id"`
}

func (s *Server) getSkill(_ context.Context, c *caller, in skillIn) (*stack.Skill, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	sk, err := s.market.skillByID(c.op, in.SkillID)
	if err != nil {
		return nil, err
	}
	return sk.seenBy(c.op), nil
}

type browseSkillsIn struct {
	Query      string            `query:"query"`
	Tags       string            `query:"tags"`
	TrustLevel stack.TrustLevel  `query:"trust_level"`
	Status     stack.SkillStatus `query:"status"`
	Limit      int               `query:"limit"`
	Offset     int               `query:"offset"`
}

func (s *Server) browseSkills(_ context.Context, c *caller, in browseSkillsIn) (*[]stack.Skill, error) {
	limit := or(in.Limit, 20)
	if err := firstError(
		oneOf("query.trust_level", in.TrustLevel, trustLevels...),
		oneOf("query.status", in.Status, stack.SkillActive, stack.SkillSuspended),
		within("query.limit", limit, 1, 100), within("query.offset", in.Offset, 0, 1<<30),
		atMost("query.query", in.Query, 200), atMost("query.tags", in.Tags, maxSkillTags*maxSkillTag),
	); err != nil {
		return nil, err
	}
	most := slices.Index(trustLevels, or(in.TrustLevel, stack.TrustL2))
	tags := slices.DeleteFunc(strings.Split(in.Tags, ","), func(tag string) bool { return tag == "" })
	words := strings.Fields(strings.ToLower(in.Query))
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	var found []*skill
	for sk := range s.market.skills.all() {
		text := strings.ToLower(sk.Name + "\n" + sk.Description + "\n" + strings.Join(sk.Tags, "\n"))
		lacks := func(word string) bool { return !strings.Contains(text, word) }
		untagged := func(tag string) bool { return !slices.Contains(sk.Tags, tag) }
		if sk.Status == or(in.Status, stack.SkillActive) && (sk.Status == stack.SkillActive || sk.OperatorID == c.op.id) &&
			slices.Index(trustLevels, sk.TrustLevelRequired) <= most && !slices.ContainsFunc(tags, untagged) &&
			!slices.ContainsFunc(words, lacks) {
			found = append(found, sk)
		}
	}
	slices.SortStableFunc(found, func(a, b *skill) int { return cmp.Compare(b.InvocationCount, a.InvocationCount) })
	list := []stack.Skill{}
	for _, sk := range found[min(in.Offset, len(found)):min(in.Offset+limit, len(found))] {
		list = append(list, *sk.seenBy(c.op))
	}
	return &list, nil
}

func (s *Server) listOwnedSkills(_ context.Context, c *caller, _ none) (*[]stack.Skill, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	list := []stack.Skill{}
	for sk := range s.market.skills.all() {
		if sk.OperatorID == c.op.id {
			list = append(list, sk.Skill)
		}
	}
	return &list, nil
}

type updateSkillIn struct {
	SkillID string                  `path:"skill_id"`
	Body    stack.SkillUpdateParams `body:""`
}

func (s *Server) updateSkill(_ context.Context, c *caller, in updateSkillIn) (*stack.Skill, error) {
	p := in.Body
	return s.changeSkill(c, in.SkillID, "skill.update", func(sk *skill) error {
		sk.by = c
		replace(&sk.Description, p.Description)
		replace(&sk.Version, p.Version)
		replace(&sk.TrustLevelRequired, p.TrustLevel)
		replace(&sk.CredentialMode, p.CredentialMode)
		replace(&sk.PricePerInvocation, p.PricePerInvocation)
		if p.Tags != nil {
			sk.Tags = p.Tags
		}
		if p.RequiredCredentials != nil {
			sk.RequiredCredentials = p.RequiredCredentials
		}
		if p.ExecutionSteps != nil {
			sk.ExecutionSteps = p.ExecutionSteps
		}
		if err := sk.schemas(p.InputSchema, p.OutputSchema); err != nil {
			return err
		}
		return sk.check()
	})
}

func (s *Server) suspendSkill(_ context.Context, c *caller, in skillIn) (*stack.Skill, error) {
	return s.changeSkill(c, in.SkillID, "skill.suspend", func(sk *skill) error {
		sk.Status = stack.SkillSuspended
		return nil
	})
}

func (s *Server) activateSkill(_ context.Context, c *caller, in skillIn) (*stack.Skill, error) {
	return s.changeSkill(c, in.SkillID, "skill.activate", func(sk *skill) error {
		sk.Status = stack.SkillActive
		return nil
	})
}

// changeSkill puts a changed copy in place of one of the operator's skills.
func (s *Server) changeSkill(c *caller, id, action string, change func(*skill) error) (*stack.Skill, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	sk, err := s.market.skillByID(c.op, id)
	if err != nil {
		return nil, err
	}
	if sk.OperatorID != c.op.id {
		return nil, notFound("skill of this operator", id)
	}
	changed, now := *sk, s.clock.now()
	if err := change(&changed); err != nil {
		return nil, err
	}
	changed.UpdatedAt = now
	s.market.skills.put(id, &changed)
	c.op.record(now, skillRow(action, id))
	return changed.seenBy(c.op), nil
}

// suspendSkills takes everything that an operator offers off the market.
func (op *operator) suspendSkills(now time.Time) {
	m := &op.server.market
	m.mu.Lock()
	defer m.mu.Unlock()
	for sk := range m.skills.all() {
		if sk.OperatorID == op.id && sk.Status == stack.SkillActive {
			changed := *sk
			changed.Status, changed.UpdatedAt = stack.SkillSuspended, now
			m.skills.put(sk.ID, &changed) // in its place
			op.record(now, skillRow("skill.suspend", sk.ID))
		}
	}
}

// published counts an operator's skills, and those of them that were published inside a period. The market is locked.
func (m *market) published(op *operator, inside func(time.Time) int) (all, made int) {
	for sk := range m.skills.all() {
		if sk.OperatorID == op.id {
			all++
			made += inside(sk.CreatedAt)
		}
	}
	return all, made
}

func (s *Server) checkTrust(_ context.Context, c *caller, in skillIn) (*stack.TrustCheck, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	sk, err := s.market.skillByID(c.op, in.SkillID)
	if err != nil {
		return nil, err
	}
	check := c.op.trust(sk, s.clock.now())
	return &check, nil
}

// trust holds an operator's active identity claims against what a skill demands.
func (op *operator) trust(sk *skill, now time.Time) stack.TrustCheck {
	check := stack.TrustCheck{SkillID: sk.ID, Required: sk.TrustLevelRequired, Level: stack.TrustL0}
	for claim := range op.claims.all() {
		if !claim.active(now) {
			continue
		}
		switch {
		case claim.Layer == stack.LayerIdentity:
			check.Level = stack.TrustL2
		case claim.Layer == stack.LayerHumanity && check.Level == stack.TrustL0:
			check.Level = stack.TrustL1
		}
	}
	check.Satisfied = slices.Index(trustLevels, check.Level) >= slices.Index(trustLevels, check.Required)
	if !check.Satisfied {
		needs := map[stack.TrustLevel]string{stack.TrustL1: stack.ClaimVerifiedHuman, stack.TrustL2: stack.ClaimVerifiedIdentity}
		check.Reason = "an active " + needs[check.Required] + " claim is needed"
	}
	return check
}
