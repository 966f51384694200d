package stack_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func object(required ...string) map[string]any {
	properties := map[string]any{}
	for _, name := range required {
		properties[name] = map[string]any{"type": "string"}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

// shout is a sealed skill that says a text louder.
func shout() stack.SkillPublishParams {
	return stack.SkillPublishParams{Name: "shout", Description: "Says a text louder", ExecutionMode: stack.ExecuteSealed,
		InputSchema: object("text"), OutputSchema: object("text"), Tags: []string{"text", "fun"},
		ExecutionSteps: []stack.ExecutionStep{{Type: stack.StepScript, Script: `return {text: $INPUT.text.toUpperCase()}`}}}
}

func publish(t *testing.T, client *stack.Client, params stack.SkillPublishParams) *stack.Skill {
	t.Helper()
	sk, err := client.Skills.Publish(t.Context(), params)
	require.NoError(t, err)
	return sk
}

func names(skills []stack.Skill) []string {
	all := []string{}
	for _, sk := range skills {
		all = append(all, sk.Name)
	}
	return all
}

func TestSkillPublish(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	sk := publish(t, client, shout())
	assert.Regexp(t, `^skl_`, sk.ID)
	assert.Equal(t, srv.OperatorID(), sk.OperatorID)
	assert.Equal(t, "1.0.0", sk.Version)
	assert.Equal(t, stack.TrustL0, sk.TrustLevelRequired)
	assert.Equal(t, stack.SkillActive, sk.Status)
	assert.Equal(t, stack.CredentialsNone, sk.CredentialMode)
	assert.JSONEq(t, `{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}`, string(sk.InputSchema))
	assert.Len(t, sk.ExecutionSteps, 1, "they are its publisher's to see")

	got, err := client.Skills.Get(t.Context(), sk.ID)
	require.NoError(t, err)
	assert.Equal(t, sk, got)
	mine, err := client.Skills.ListOwned(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"shout"}, names(mine))
	_, err = client.Skills.Get(t.Context(), "skl_none")
	requireRefused(t, err, 404, "SKILL_NOT_FOUND")
}

func TestSkillPublishRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	_, err := client.Skills.Publish(t.Context(), stack.SkillPublishParams{Description: "x"})
	requireParam(t, err, "name")
	_, err = client.Skills.Publish(t.Context(), stack.SkillPublishParams{Name: "xx"})
	requireParam(t, err, "description")
	step := func(s stack.ExecutionStep) func(*stack.SkillPublishParams) {
		return func(p *stack.SkillPublishParams) { p.ExecutionSteps = []stack.ExecutionStep{s} }
	}
	hot := 2.5
	for name, tc := range map[string]struct {
		change func(*stack.SkillPublishParams)
		field  string
	}{
		"name":           {func(p *stack.SkillPublishParams) { p.Name = "Shout" }, "body.name"},
		"description":    {func(p *stack.SkillPublishParams) { p.Description = strings.Repeat("x", 1001) }, "body.description"},
		"version":        {func(p *stack.SkillPublishParams) { p.Version = "1.0" }, "body.version"},
		"input schema":   {func(p *stack.SkillPublishParams) { p.InputSchema = map[string]any{"type": "thing"} }, "body.input_schema"},
		"output schema":  {func(p *stack.SkillPublishParams) { p.OutputSchema = []any{} }, "body.output_schema"},
		"tags":           {func(p *stack.SkillPublishParams) { p.Tags = []string{"a", "a"} }, "body.tags[1]"},
		"trust":          {func(p *stack.SkillPublishParams) { p.TrustLevel = "L9" }, "body.trust_level_required"},
		"mode":           {func(p *stack.SkillPublishParams) { p.ExecutionMode = "closed" }, "body.execution_mode"},
		"credentials":    {func(p *stack.SkillPublishParams) { p.CredentialMode = "mine" }, "body.credential_mode"},
		"price":          {func(p *stack.SkillPublishParams) { p.PricePerInvocation = -1 }, "body.price_per_invocation"},
		"no steps":       {func(p *stack.SkillPublishParams) { p.ExecutionSteps = nil }, "body.execution_steps"},
		"an open one":    {func(p *stack.SkillPublishParams) { p.ExecutionMode = stack.ExecuteOpen }, "body.agent_id"},
		"a step of none": {step(stack.ExecutionStep{Type: "shell"}), "body.execution_steps[0].type"},
		"no JavaScript":  {step(stack.ExecutionStep{Type: stack.StepScript, Script: "return ("}), "body.execution_steps[0].script"},
		"no script":      {step(stack.ExecutionStep{Type: stack.StepScript}), "body.execution_steps[0].script"},
		"a runtime": {step(stack.ExecutionStep{Type: stack.StepScript, Runtime: "python", Script: "x"}),
			"body.execution_steps[0].runtime"},
		"a mixed step": {step(stack.ExecutionStep{Type: stack.StepScript, Script: "return 1", LLMModel: "x"}),
			"body.execution_steps[0]"},
		"a provider": {step(stack.ExecutionStep{Type: stack.StepLLM, LLMProvider: "me", LLMModel: "x"}),
			"body.execution_steps[0].llm_provider"},
		"a temperature": {step(stack.ExecutionStep{Type: stack.StepLLM, LLMProvider: "openai", LLMModel: "x",
			LLMConfig: &stack.SkillLLMConfig{Temperature: &hot}}), "body.execution_steps[0].llm_config.temperature"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := shout()
			tc.change(&p)
			_, refused := client.Skills.Publish(t.Context(), p)
			assert.Equal(t, tc.field, requireRefused(t, refused, 400, "INVALID_REQUEST").Details["field"])
		})
	}
	p := shout()
	p.AgentID = "agt_none"
	_, err = client.Skills.Publish(t.Context(), p)
	requireRefused(t, err, 404, "NOT_FOUND")
}

func TestSkillsOfAPlan(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
	for range 5 {
		publish(t, srv.Client(), shout())
	}
	_, err := srv.Client().Skills.Publish(t.Context(), shout())
	requireRefused(t, err, 403, "TIER_LIMIT_EXCEEDED")
}

func TestSkillBrowse(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	for _, name := range []string{"shout", "whisper", "translate"} {
		p := shout()
		p.Name, p.Description = name, "Can "+name+" a text"
		if name == "translate" {
			p.Tags, p.TrustLevel = []string{"text", "language"}, stack.TrustL1
		}
		publish(t, client, p)
	}
	owned, err := client.Skills.ListOwned(t.Context())
	require.NoError(t, err)
	_, err = client.Skills.Suspend(t.Context(), owned[1].ID)
	require.NoError(t, err)
	_, err = client.Skills.Invoke(t.Context(), owned[2].ID, stack.SkillInvokeParams{Input: map[string]any{"text": "x"}})
	require.ErrorIs(t, err, stack.ErrTrustLevelInsufficient)
	_, err = client.Skills.Invoke(t.Context(), owned[0].ID, stack.SkillInvokeParams{Input: map[string]any{"text": "x"}})
	require.NoError(t, err)

	for name, tc := range map[string]struct {
		params stack.SkillBrowseParams
		want   []string
	}{
		"all, the most invoked first": {stack.SkillBrowseParams{}, []string{"shout", "translate"}},
		"words":                       {stack.SkillBrowseParams{Query: "TEXT can trans"}, []string{"translate"}},
		"no such words":               {stack.SkillBrowseParams{Query: "text nowhere"}, []string{}},
		"a tag":                       {stack.SkillBrowseParams{Tags: []string{"fun"}}, []string{"shout"}},
		"two tags":                    {stack.SkillBrowseParams{Tags: []string{"text", "language"}}, []string{"translate"}},
		"little trust":                {stack.SkillBrowseParams{TrustLevel: stack.TrustL0}, []string{"shout"}},
		"suspended":                   {stack.SkillBrowseParams{Status: stack.SkillSuspended}, []string{"whisper"}},
		"a page":                      {stack.SkillBrowseParams{Limit: 1, Offset: 1}, []string{"translate"}},
		"past the end":                {stack.SkillBrowseParams{Offset: 9}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			skills, err := client.Skills.Browse(t.Context(), tc.params)
			require.NoError(t, err)
			assert.Equal(t, tc.want, names(skills))
		})
	}
	var all []stack.Skill
	for sk, err := range client.Skills.All(t.Context(), stack.SkillBrowseParams{Limit: 1}) {
		require.NoError(t, err)
		all = append(all, sk)
	}
	assert.Equal(t, []string{"shout", "translate"}, names(all))
	for field, params := range map[string]stack.SkillBrowseParams{"query.limit": {Limit: 101}, "query.offset": {Offset: -1},
		"query.status": {Status: "x"}, "query.trust_level": {TrustLevel: "x"}, "query.query": {Query: strings.Repeat("x", 201)}} {
		_, err := client.Skills.Browse(t.Context(), params)
		assert.Equal(t, field, requireRefused(t, err, 400, "INVALID_REQUEST").Details["field"])
	}
}

func TestSkillUpdate(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	sk := publish(t, client, shout())
	version, price := "1.1.0", 7
	updated, err := client.Skills.Update(t.Context(), sk.ID, stack.SkillUpdateParams{Version: &version, PricePerInvocation: &price,
		Tags: []string{}})
	require.NoError(t, err)
	assert.Equal(t, "1.1.0", updated.Version)
	assert.Equal(t, 7, updated.PricePerInvocation)
	assert.Empty(t, updated.Tags)
	assert.Equal(t, sk.Description, updated.Description, "what is not sent stays")
	bad := "one"
	_, err = client.Skills.Update(t.Context(), sk.ID, stack.SkillUpdateParams{Version: &bad})
	requireRefused(t, err, 400, "INVALID_REQUEST")
	got, err := client.Skills.Get(t.Context(), sk.ID)
	require.NoError(t, err)
	assert.Equal(t, updated, got, "a refused change changes nothing")

	for range 2 {
		suspended, failed := client.Skills.Suspend(t.Context(), sk.ID)
		require.NoError(t, failed)
		assert.Equal(t, stack.SkillSuspended, suspended.Status)
	}
	_, err = client.Skills.Invoke(t.Context(), sk.ID, stack.SkillInvokeParams{Input: map[string]any{}})
	requireRefused(t, err, 404, "SKILL_NOT_FOUND")
	active, err := client.Skills.Activate(t.Context(), sk.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.SkillActive, active.Status)
	for _, err := range []error{
		failure(client.Skills.Update(t.Context(), "skl_none", stack.SkillUpdateParams{})),
		failure(client.Skills.Suspend(t.Context(), "skl_none")), failure(client.Skills.Activate(t.Context(), "skl_none")),
		failure(client.Skills.CheckTrust(t.Context(), "skl_none")),
	} {
		requireRefused(t, err, 404, "SKILL_NOT_FOUND")
	}
}

// Trust is a matter of the claims on record, and of nothing that a caller says.
func TestSkillTrust(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	p := shout()
	p.TrustLevel = stack.TrustL2
	sk := publish(t, client, p)
	check := func() *stack.TrustCheck {
		got, err := client.Skills.CheckTrust(t.Context(), sk.ID)
		require.NoError(t, err)
		return got
	}
	got := check()
	assert.Equal(t, stack.TrustL0, got.Level)
	assert.False(t, got.Satisfied)
	assert.Contains(t, got.Reason, stack.ClaimVerifiedIdentity)
	verified(t, srv, "bankid_se", stack.ClaimVerifiedHuman)
	assert.Equal(t, stack.TrustL1, check().Level)
	claims := verified(t, srv, "bankid_se", stack.ClaimVerifiedIdentity)
	assert.Equal(t, stack.TrustCheck{SkillID: sk.ID, Required: stack.TrustL2, Level: stack.TrustL2, Satisfied: true}, *check())
	_, err := client.Skills.Invoke(t.Context(), sk.ID, stack.SkillInvokeParams{Input: map[string]any{"text": "x"}})
	require.NoError(t, err)
	_, err = client.Identity.RevokeClaim(t.Context(), claims[0].ID)
	require.NoError(t, err)
	_, err = client.Skills.Invoke(t.Context(), sk.ID, stack.SkillInvokeParams{Input: map[string]any{"text": "x"}})
	require.ErrorIs(t, err, stack.ErrTrustLevelInsufficient)
	requireRefused(t, err, 403, "TRUST_LEVEL_INSUFFICIENT")
}
