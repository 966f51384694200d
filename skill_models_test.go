package stack_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// asking is a skill that asks a model of OpenAI.
func asking(mode stack.CredentialMode) stack.SkillPublishParams {
	return stack.SkillPublishParams{Name: "ask", Description: "Asks a model", ExecutionMode: stack.ExecuteSealed, CredentialMode: mode,
		ExecutionSteps: []stack.ExecutionStep{{Type: stack.StepLLM, LLMProvider: "openai", LLMModel: "gpt-asked",
			UserMessage: "Answer $INPUT.text"}}}
}

// openAI answers as OpenAI does.
const openAI = `{"model":"gpt-answered","choices":[{"message":{"content":"the answer of the model"}}],` +
	`"usage":{"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}`

func newAskingStage(t *testing.T, config stacktest.AgentConfig) *stage {
	t.Helper()
	config.Mode = or(config.Mode, stack.Logged)
	s := newStageWith(t, config)
	s.Upstream("api.openai.com", answers(jsonType, openAI))
	return s
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func connectOpenAI(t *testing.T, client *stack.Client) *stack.Connection {
	t.Helper()
	conn, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "openai",
		OAuthToken: stack.NewSecret("sk-of-openai"), Scopes: []string{"api"}})
	require.NoError(t, err)
	return conn
}

func llmUsage(t *testing.T, client *stack.Client) []stack.LLMUsage {
	t.Helper()
	page, err := client.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{})
	require.NoError(t, err)
	return page.Items
}

// A model that a skill asks is asked through the gateway: it is among the calls to models, and personal data is taken out.
// (contract: server-api 21)
func TestSkillModelsAreTheGateways(t *testing.T) {
	t.Parallel()
	s := newAskingStage(t, stacktest.AgentConfig{Services: []string{"openai"}})
	sk := publish(t, s.client, asking(stack.CredentialsBuyer))
	m := s.started(t)
	params := text("ada@example.com")
	params.PassportID = m.Passport.JTI
	inv := invoke(t, s.client, sk.ID, params)
	require.Equal(t, stack.InvocationCompleted, inv.Status, inv.Error)
	assert.Equal(t, []int{12, 3}, []int{*inv.LLMTokensInput, *inv.LLMTokensOutput})

	sent := string(s.Forwarded("api.openai.com")[0].Body)
	assert.Contains(t, sent, "Answer [EMAIL_1]")
	assert.Contains(t, sent, "Security context")
	rows := llmUsage(t, s.client)
	require.Len(t, rows, 1)
	row := rows[0]
	input, output, cached := 12, 3, 4
	assert.Equal(t, stack.LLMUsage{ID: row.ID, Provider: stack.LLMOpenAI, Model: "gpt-answered", PassportJTI: m.Passport.JTI,
		MissionID: m.MissionID, AgentID: s.agent.ID, LLMTokens: stack.LLMTokens{Input: &input, Output: &output, CacheRead: &cached},
		Status: 200, Outcome: stack.LLMCompleted, Complete: true, Duration: row.Duration, CreatedAt: row.CreatedAt}, row)
	var audit []stack.AuditEntry
	for _, entry := range s.Audit() {
		if entry.Action == "llm.call" {
			audit = append(audit, entry)
		}
	}
	require.Len(t, audit, 1)
	assert.Equal(t, []any{inv.ID, m.Passport.JTI, s.agent.ID, stack.OutcomeSuccess},
		[]any{audit[0].TraceID, audit[0].PassportJTI, audit[0].AgentID, audit[0].Outcome})
	assert.NotEmpty(t, audit[0].PayloadHash)

	off := false
	_, err := s.client.Agents.Update(t.Context(), s.agent.ID, stack.AgentUpdateParams{LLMInjectSystemPrompt: &off, LLMRedactPII: &off})
	require.NoError(t, err)
	invoke(t, s.client, sk.ID, params)
	sent = string(s.Forwarded("api.openai.com")[1].Body)
	assert.Contains(t, sent, "Answer ada@example.com")
	assert.NotContains(t, sent, "Security context")
	s.RequireAuditIntact(t)
}

func TestSkillModelsThatFail(t *testing.T) {
	t.Parallel()
	s := newAskingStage(t, stacktest.AgentConfig{Services: []string{"openai"}})
	sk := publish(t, s.client, asking(stack.CredentialsNone))
	for _, tc := range []struct {
		name    string
		prepare func()
		code    string
		outcome stack.LLMOutcome // empty where nothing was sent
	}{
		{"refused", func() {
			s.Upstream("api.openai.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }))
		},
			"UPSTREAM_429", stack.LLMUpstreamError},
		{"no text", func() { s.Upstream("api.openai.com", answers(jsonType, `{}`)) }, "MODEL_ANSWER", stack.LLMCompleted},
		{"no connection", func() {
			s.Fault(stacktest.Fault{Path: "upstream:api.openai.com", Times: 1, Close: stacktest.CloseBefore})
		},
			"UPSTREAM_UNREACHABLE", ""},
		{"no answer", func() {
			s.Fault(stacktest.Fault{Path: "upstream:api.openai.com", Times: 1, Close: stacktest.CloseAfter})
		},
			"UPSTREAM_UNREACHABLE", stack.LLMNoAnswer},
		{"cut", func() { s.Fault(stacktest.Fault{Path: "upstream:api.openai.com", Times: 1, TruncateBytes: 1}) }, "UPSTREAM_UNREACHABLE", stack.LLMIncomplete},
	} {
		before := len(llmUsage(t, s.client))
		tc.prepare()
		inv := invoke(t, s.client, sk.ID, text("x"))
		require.Equal(t, stack.InvocationFailed, inv.Status, tc.name)
		assert.Equal(t, tc.code, inv.Error.Code, tc.name)
		rows := llmUsage(t, s.client)
		if tc.outcome == "" {
			assert.Len(t, rows, before, tc.name)
			continue
		}
		require.Len(t, rows, before+1, tc.name)
		assert.Equal(t, tc.outcome, rows[0].Outcome, tc.name)
		assert.Equal(t, "gpt-asked", rows[0].Model, tc.name)
		assert.Empty(t, rows[0].AgentID, "the operator itself")
	}
}

// Whoever invokes reaches no more of the account's connections through a skill than they do without.
func TestSkillsUseTheKeysThatTheirCallerMay(t *testing.T) {
	t.Parallel()
	s := newAskingStage(t, stacktest.AgentConfig{Services: []string{"slack"}})
	conn := connectOpenAI(t, s.client)
	sk := publish(t, s.client, asking(stack.CredentialsBuyer))
	status := func(client *stack.Client, skillID string, params stack.SkillInvokeParams) stack.InvocationStatus {
		t.Helper()
		inv := invoke(t, client, skillID, params)
		if inv.Status == stack.InvocationFailed {
			assert.Equal(t, "CREDENTIAL_MISSING", inv.Error.Code)
		}
		return inv.Status
	}
	_, bound := join(t, s.Server, stack.TeamInviteParams{Role: stack.RoleStandard,
		AllowedConnections: []string{s.agent.Connections["slack"].ID}})
	byAgent, byPassport := text("x"), text("x")
	byAgent.AgentID, byPassport.PassportID = s.agent.ID, s.issue(t).JTI
	assert.Equal(t, stack.InvocationCompleted, status(s.client, sk.ID, text("x")), "the operator's own")
	assert.Equal(t, stack.InvocationFailed, status(bound, sk.ID, text("x")), "outside the member's connections")
	assert.Equal(t, stack.InvocationFailed, status(s.client, sk.ID, byAgent), "the agent has no grant")
	assert.Equal(t, stack.InvocationFailed, status(s.client, sk.ID, byPassport), "the passport does not reach it")
	theirs := publish(t, bound, asking(stack.CredentialsSeller))
	assert.Equal(t, stack.InvocationFailed, status(s.client, theirs.ID, text("x")), "who wrote it could not use it")
	text := "Asks"
	_, err := s.client.Skills.Update(t.Context(), theirs.ID, stack.SkillUpdateParams{Description: &text})
	require.NoError(t, err)
	assert.Equal(t, stack.InvocationCompleted, status(bound, theirs.ID, byAgent), "the operator stands for it now")

	_, err = s.client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: s.agent.ID, ServiceConnectionID: conn.ID,
		Scopes: []string{"api"}})
	require.NoError(t, err)
	assert.Equal(t, stack.InvocationCompleted, status(s.client, sk.ID, byAgent))
	assert.Equal(t, stack.InvocationFailed, status(bound, sk.ID, byAgent))
	assert.Equal(t, stack.InvocationFailed, status(s.client, sk.ID, byPassport), "it was issued before")
	byPassport.PassportID = s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.Services = []string{"openai"} }).JTI
	assert.Equal(t, stack.InvocationCompleted, status(s.client, sk.ID, byPassport))
	byPassport.PassportID = s.issue(t).JTI
	assert.Equal(t, stack.InvocationFailed, status(s.client, sk.ID, byPassport), "its intent does not name it")
}

// What a skill answers is content like a service's, named by the skill's id. (contract: decisions, Data-flow wall)
func TestSkillOutputsAtTheWall(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		allow   func(skillID string) []string
		blocked bool
	}{
		"absent allows":     {func(string) []string { return nil }, false},
		"empty allows none": {func(string) []string { return []string{} }, true},
		"named":             {func(id string) []string { return []string{id} }, false},
		"another named":     {func(string) []string { return []string{"skl_other", "openai"} }, true},
		"all skills":        {func(string) []string { return []string{"skill"} }, false},
		"everything":        {func(string) []string { return []string{"*"} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := stacktest.New(t)
			sk := publish(t, srv.Client(), asking(stack.CredentialsSeller))
			s := &stage{srv, srv.Client(), srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"},
				AllowDataFrom: tc.allow(sk.ID)})}
			s.Upstream("api.openai.com", answers(jsonType, openAI))
			s.Upstream("slack.com", answers(jsonType, `{"ok":true}`))
			connectOpenAI(t, s.client)
			p := &s.started(t).Passport
			params := text("x")
			params.PassportID, params.IdempotencyKey = p.JTI, "once"
			for range 2 {
				require.Equal(t, stack.InvocationCompleted, invoke(t, s.client, sk.ID, params).Status)
			}
			_, err := s.do(t, p, post("FYI: the answer of the model."))
			if !tc.blocked {
				require.NoError(t, err)
				return
			}
			details := requireRefused(t, err, http.StatusForbidden, "DATA_FLOW_BLOCKED").Details
			assert.Equal(t, []any{sk.ID, "slack"}, []any{details["source_service"], details["target_service"]})
			_, err = s.do(t, p, post("nothing of it"))
			require.NoError(t, err)
		})
	}
}

// The publisher of an open skill delivers later; its output is remembered all the same, and a passport may name one of the
// skills that its grant allows.
func TestOpenSkillOutputsAtTheWall(t *testing.T) {
	t.Parallel()
	s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}, AllowDataFrom: []string{"skill"}})
	s.Upstream("slack.com", answers(jsonType, `{"ok":true}`))
	open := shout()
	open.ExecutionMode, open.ExecutionSteps, open.AgentID = stack.ExecuteOpen, nil, s.agent.ID
	sk := publish(t, s.client, open)
	narrowed := func(from ...string) func(*stack.PassportIssueParams) {
		return func(p *stack.PassportIssueParams) {
			p.Scopes = []stack.PassportScope{{ServiceConnectionID: s.agent.Connections["slack"].ID, Scopes: []string{"chat:write"},
				AllowDataFrom: append([]string{}, from...)}}
		}
	}
	_, err := s.client.Passports.Issue(t.Context(), s.issueParams(s.mission(t, 0), narrowed("github")))
	require.ErrorIs(t, err, stack.ErrScopeEscalation)
	for _, tc := range []struct {
		from    []string
		blocked bool
	}{{[]string{sk.ID}, false}, {nil, true}} {
		p := s.issue(t, narrowed(tc.from...))
		params := text("x")
		params.PassportID = p.JTI
		inv := invoke(t, s.client, sk.ID, params)
		_, err = s.client.Skills.ClaimInvocation(t.Context(), inv.ID)
		require.NoError(t, err)
		_, err = s.client.Skills.CompleteInvocation(t.Context(), inv.ID, map[string]any{"text": "what the publisher found"})
		require.NoError(t, err)
		_, err = s.do(t, p, post("Look: what the publisher found"))
		if tc.blocked {
			require.ErrorIs(t, err, stack.ErrDataFlowBlocked)
		} else {
			require.NoError(t, err)
		}
	}
}

// A skill that asks a model with the buyer's key is a way into that provider, and its grant's wall stands there.
func TestSkillInputsAtTheWall(t *testing.T) {
	t.Parallel()
	const secret = "the quarterly numbers of the company"
	for name, tc := range map[string]struct {
		allow   []string
		mode    stack.CredentialMode
		blocked bool
	}{
		"the buyer's key":              {[]string{}, stack.CredentialsBuyer, true},
		"either's key":                 {[]string{}, stack.CredentialsBoth, true},
		"the source is named":          {[]string{"github"}, stack.CredentialsBuyer, false},
		"nothing is said":              {nil, stack.CredentialsBuyer, false},
		"the publisher's own, no wall": {[]string{}, stack.CredentialsSeller, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAskingStage(t, stacktest.AgentConfig{Services: []string{"openai", "github"}, AllowDataFrom: tc.allow})
			s.Upstream("api.github.com", answers(jsonType, `{"body":"`+secret+`"}`))
			p := &s.started(t).Passport
			_, err := s.do(t, p, stack.ProxyRequest{Service: "github", URL: "https://api.github.com/x"})
			require.NoError(t, err)
			params := text("FYI: " + secret)
			params.PassportID = p.JTI
			inv := invoke(t, s.client, publish(t, s.client, asking(tc.mode)).ID, params)
			if !tc.blocked {
				require.Equal(t, stack.InvocationCompleted, inv.Status, inv.Error)
				return
			}
			require.Equal(t, stack.InvocationFailed, inv.Status)
			assert.Equal(t, "DATA_FLOW_BLOCKED", inv.Error.Code)
			assert.Empty(t, s.Forwarded("api.openai.com"))
			event := s.SecurityEvents()[0]
			assert.Equal(t, []any{"data_flow_violation", stack.SeverityCritical, p.JTI},
				[]any{event.SignalType, event.Severity, event.PassportJTI})
		})
	}
}

func TestNoServiceIsCalledSkill(t *testing.T) {
	t.Parallel()
	_, err := stacktest.New(t).Client().Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "skill",
		Credential: stack.CustomCredential{Token: stack.NewSecret("x")}})
	requireRefused(t, err, 400, "INVALID_REQUEST")
}

// An agent that calls with its own key invokes as itself, whether it says so or not.
func TestAgentsInvokeAsThemselves(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	sk := publish(t, s.client, shout())
	key := s.enrolled(t, s.agent.ID)
	n := 0
	agent := s.Client(stack.WithHTTPClient(&http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
		n++
		r.Header.Set("Authorization", "Bearer "+key.sign(t, goodToken(s.agent.ID, fmt.Sprint(n))))
		return s.Transport().RoundTrip(r)
	})}))
	inv := invoke(t, agent, sk.ID, text("x"))
	assert.Equal(t, s.agent.ID, inv.AgentID)
	got, err := agent.Skills.GetInvocation(t.Context(), inv.ID)
	require.NoError(t, err)
	assert.Equal(t, inv, got)
	none := stack.SkillsNone
	_, err = s.client.Agents.Update(t.Context(), s.agent.ID, stack.AgentUpdateParams{SkillAccessMode: &none})
	require.NoError(t, err)
	_, err = agent.Skills.Invoke(t.Context(), sk.ID, text("x"))
	require.ErrorIs(t, err, stack.ErrUnauthorizedSkillAccess)
}
