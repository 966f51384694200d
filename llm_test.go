package stack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// llmProvider is a provider as the tests know it: where it is, what it answers, and the client's methods for it.
type llmProvider struct {
	name             stack.LLMProvider
	host, path, body string // of a request
	answer           string // its whole answer
	events           string // its streamed answer
	call             func(*stack.LLMService, context.Context, stack.LLMParams) (*stack.LLMResponse, error)
	stream           func(*stack.LLMService, context.Context, stack.LLMParams) func(func(*stack.LLMEvent, error) bool)
}

const (
	anthropicEvents = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-x\"," +
		"\"usage\":{\"input_tokens\":11,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n" +
		": a comment\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n" +
		"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello \"}}\n\n" +
		"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"there\"}}\n\n" +
		"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\n" +
		"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	openAIEvents = "data: {\"id\":\"c1\",\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n" +
		"data:{\"id\":\"c1\",\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello \"}}]}\n\n" +
		"data: {\"id\":\"c1\",\"model\":\"gpt-x\",\n" +
		"data: \"choices\":[{\"index\":0,\"delta\":{\"content\":\"there\"}},{\"index\":1,\"delta\":{\"content\":\"no\"}}]}\n\n" +
		"data: {\"id\":\"c1\",\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" +
		"data: {\"id\":\"c1\",\"model\":\"gpt-x\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7," +
		"\"prompt_tokens_details\":{\"cached_tokens\":3}}}\n\n" +
		"data: [DONE]\n\n"
)

var llmProviders = []llmProvider{
	{name: stack.LLMAnthropic, host: "api.anthropic.com", path: "/v1/messages",
		body: `{"model":"claude-x","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`,
		answer: `{"id":"msg_1","model":"claude-x","content":[{"type":"text","text":"Hello "},{"type":"text","text":"there"}],` +
			`"stop_reason":"end_turn","usage":{"input_tokens":11,"output_tokens":7,"cache_read_input_tokens":3}}`,
		events: anthropicEvents, call: (*stack.LLMService).Anthropic,
		stream: func(s *stack.LLMService, ctx context.Context, p stack.LLMParams) func(func(*stack.LLMEvent, error) bool) {
			return s.AnthropicStream(ctx, p)
		}},
	{name: stack.LLMOpenAI, host: "api.openai.com", path: "/v1/chat/completions",
		body: `{"model":"gpt-x","messages":[{"role":"user","content":"hi"}]}`,
		answer: `{"id":"c1","model":"gpt-x","choices":[{"message":{"role":"assistant","content":"Hello there"},"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":3}}}`,
		events: openAIEvents, call: (*stack.LLMService).OpenAI,
		stream: func(s *stack.LLMService, ctx context.Context, p stack.LLMParams) func(func(*stack.LLMEvent, error) bool) {
			return s.OpenAIStream(ctx, p)
		}},
	{name: stack.LLMOpenRouter, host: "openrouter.ai", path: "/api/v1/chat/completions",
		body: `{"model":"some/model","messages":[{"role":"user","content":"hi"}]}`,
		answer: `{"id":"c1","model":"some/model","choices":[{"message":{"role":"assistant","content":"Hello there"},"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":11,"completion_tokens":7,"cost":0.0125,"prompt_tokens_details":{"cached_tokens":3}}}`,
		events: strings.ReplaceAll(openAIEvents, "gpt-x", "some/model"), call: (*stack.LLMService).OpenRouter,
		stream: func(s *stack.LLMService, ctx context.Context, p stack.LLMParams) func(func(*stack.LLMEvent, error) bool) {
			return s.OpenRouterStream(ctx, p)
		}},
}

// llmStage is a mock whose agent may use all three providers, which answer, plainly or streamed, as they were asked.
type llmStage struct {
	*stage
	passport *stack.Passport
}

const llmKey = "sk-provider-0123456789-not-a-real-key"

// newLLMStage starts it with an agent of the given mode, whose toggles are off unless a change says otherwise.
func newLLMStage(t *testing.T, mode stack.Accountability, opts ...stack.Option) *llmStage {
	t.Helper()
	srv, transport, logger := watched(t)
	opts = append([]stack.Option{stack.WithHTTPClient(&http.Client{Transport: transport}), stack.WithLogger(logger)}, opts...)
	var names []string
	for _, p := range llmProviders {
		names = append(names, string(p.name))
		srv.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var request struct {
				Stream bool `json:"stream"`
			}
			if json.NewDecoder(r.Body).Decode(&request) != nil {
				http.Error(w, "no JSON", http.StatusBadRequest)
				return
			}
			if request.Stream {
				streams(p.events)(w, r)
				return
			}
			answers("application/json", p.answer)(w, r)
		}))
	}
	s := &llmStage{stage: &stage{srv, srv.Client(opts...), srv.Agent(t, stacktest.AgentConfig{Mode: mode, Services: names,
		Credential: llmKey})}}
	s.toggle(t, false, false)
	s.passport = s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.Services = names })
	return s
}

// streams is a provider that streams what is in text, an event at a time.
func streams(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, event := range strings.SplitAfter(text, "\n\n") {
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

func (s *llmStage) toggle(t *testing.T, system, redact bool) {
	t.Helper()
	_, err := s.client.Agents.Update(t.Context(), s.agent.ID, stack.AgentUpdateParams{LLMInjectSystemPrompt: &system, LLMRedactPII: &redact})
	require.NoError(t, err)
}

func (s *llmStage) params(body string) stack.LLMParams {
	return stack.LLMParams{Body: json.RawMessage(body), Passport: stack.NewStaticToken(s.passport.Token)}
}

// usage lists the calls to models, newest first.
func (s *llmStage) usage(t *testing.T) []stack.LLMUsage {
	t.Helper()
	page, err := s.client.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{})
	require.NoError(t, err)
	return page.Items
}

func ptr[T any](v T) *T { return &v }

func TestLLMCall(t *testing.T) {
	t.Parallel()
	for _, p := range llmProviders {
		t.Run(string(p.name), func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Enforced)
			body := strings.Replace(p.body, `{"model"`, `{ "unknown" : 12345678901234567890.10, "html":"<&>", "model"`, 1)
			resp, err := p.call(s.client.LLM, t.Context(), s.params(body))
			require.NoError(t, err)
			assert.Equal(t, p.answer, string(resp.Raw), "the answer is the provider's own")
			tokens := stack.LLMTokens{Input: ptr(11), Output: ptr(7), CacheRead: ptr(3)}
			assert.Equal(t, tokens, resp.Tokens)
			assert.Equal(t, p.name, resp.Provider)
			assert.Equal(t, "Hello there", resp.Text)
			assert.Contains(t, []string{"end_turn", "stop"}, resp.StopReason)
			assert.Contains(t, []string{"msg_1", "c1"}, resp.ID)
			var own struct{ Model string }
			require.NoError(t, resp.Decode(&own))
			assert.Equal(t, resp.Model, own.Model)

			sent := s.Forwarded(p.host)
			require.Len(t, sent, 1)
			var compact strings.Builder
			compact.Write(sent[0].Body)
			assert.JSONEq(t, body, compact.String())
			assert.Contains(t, compact.String(), `12345678901234567890.10`, "numbers stay as they are written")
			assert.Contains(t, compact.String(), `"<&>"`)
			assert.Equal(t, "POST "+p.path, sent[0].Method+" "+sent[0].Path)
			key, version := "Bearer "+llmKey, ""
			if p.name == stack.LLMAnthropic {
				key, version = "", "2023-06-01"
				assert.Equal(t, llmKey, sent[0].Header.Get("X-Api-Key"))
			}
			assert.Equal(t, key, sent[0].Header.Get("Authorization"))
			assert.Equal(t, version, sent[0].Header.Get("Anthropic-Version"))
			for name := range sent[0].Header {
				assert.NotContains(t, name, "Passport")
			}

			rows := s.usage(t)
			require.Len(t, rows, 1)
			row := rows[0]
			assert.True(t, strings.HasPrefix(row.ID, "llmu_"))
			assert.Equal(t, stack.LLMUsage{ID: row.ID, Provider: p.name, Model: resp.Model, PassportJTI: s.passport.JTI,
				MissionID: row.MissionID, AgentID: s.agent.ID, LLMTokens: tokens, Status: 200, Outcome: stack.LLMCompleted, Complete: true,
				CostCents: row.CostCents, Duration: row.Duration, CreatedAt: row.CreatedAt}, row)
			assert.Equal(t, p.name == stack.LLMOpenRouter, row.CostCents != nil, "OpenRouter says what it costs")
			assert.Equal(t, stack.OutcomeSuccess, s.lastRow(t, "llm.call").Outcome)
		})
	}
}

// The two toggles change what they are for, and nothing else.
func TestLLMToggles(t *testing.T) {
	t.Parallel()
	const mail = "write to ada@example.com or ada@example.com, not bob@example.org"
	tests := map[string]struct {
		provider     int
		system, pii  bool
		body, change string // the body, and what of it is different upstream; CONTEXT is the security context
	}{
		"neither": {0, false, false, `{ "messages":[{"role":"user","content":"` + mail + `"}] , "n": 1.0, "model":"m" }`, ""},
		"nothing to redact": {1, false, true, `{ "messages":[{"role":"user","content":"\u0068i"}] , "n": 1.0, "model":"m" }`,
			""},
		"system alone": {0, true, false, `{"model":"m","system":"Be brief.","messages":[{"role":"user","content":"` + mail + `"}]}`,
			`{"model":"m","system":"CONTEXT\n\nBe brief.","messages":[{"role":"user","content":"` + mail + `"}]}`},
		"no system yet": {0, true, false, `{"model":"m","messages":[]}`, `{"model":"m","system":"CONTEXT","messages":[]}`},
		"system is null": {0, true, false, `{"model":"m","system":null,"messages":[]}`,
			`{"model":"m","system":"CONTEXT","messages":[]}`},
		"system blocks": {0, true, false, `{"model":"m","system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}`,
			`{"model":"m","system":[{"type":"text","text":"CONTEXT"},{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}`},
		"system of no known shape": {0, true, false, `{"model":"m","system":7}`, ""},
		"system message": {1, true, false, `{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":"b"}]}`,
			`{"model":"m","messages":[{"role":"system","content":"CONTEXT"},{"role":"system","content":"a"},{"role":"user","content":"b"}]}`},
		"messages of no known shape": {2, true, true, `{"model":"m","messages":"` + mail + `"}`, ""},
		"a user's text": {2, false, true,
			`{"model":"m","n":1e400,"messages":[{"role":"user","name":"ada@example.com","content":"` + mail + `","x":1.50}]}`,
			`{"model":"m","n":1e400,"messages":[{"role":"user","name":"ada@example.com",` +
				`"content":"write to [EMAIL_1] or [EMAIL_1], not [EMAIL_2]","x":1.50}]}`},
		"text parts": {0, false, true,
			`{"model":"m","system":"ada@example.com","messages":[{"role":"user","content":[{"type":"text","text":"bob@example.org"},` +
				`{"type":"image","source":{"data":"ada@example.com"}},{"type":"tool_result","content":"ada@example.com"},7]},` +
				`{"role":"assistant","content":"ada@example.com"},{"role":"user","content":"<bob@example.org>"},null,"ada@example.com"]}`,
			`{"model":"m","system":"ada@example.com","messages":[{"role":"user","content":[{"type":"text","text":"[EMAIL_1]"},` +
				`{"type":"image","source":{"data":"ada@example.com"}},{"type":"tool_result","content":"ada@example.com"},7]},` +
				`{"role":"assistant","content":"ada@example.com"},{"role":"user","content":"<[EMAIL_1]>"},null,"ada@example.com"]}`},
		"both": {1, true, true, `{"model":"m","messages":[{"role":"user","content":"ada@example.com"},{"role":"tool","content":"ada@example.com"}]}`,
			`{"model":"m","messages":[{"role":"system","content":"CONTEXT"},{"role":"user","content":"[EMAIL_1]"},` +
				`{"role":"tool","content":"ada@example.com"}]}`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Logged)
			s.toggle(t, tc.system, tc.pii)
			p := llmProviders[tc.provider]
			_, err := p.call(s.client.LLM, t.Context(), s.params(tc.body))
			require.NoError(t, err)
			got := string(s.Forwarded(p.host)[0].Body)
			if tc.change == "" {
				var sent strings.Builder
				enc := json.NewEncoder(&sent)
				enc.SetEscapeHTML(false)
				require.NoError(t, enc.Encode(json.RawMessage(tc.body)))
				assert.Equal(t, strings.TrimSpace(sent.String()), got, "byte for byte as it was sent")
				return
			}
			context := regexpContext.FindString(got)
			assert.Equal(t, tc.system, context != "")
			if tc.system {
				got = strings.Replace(got, context, "CONTEXT", 1)
			}
			assert.Equal(t, numbersAsText(t, tc.change), numbersAsText(t, got))
		})
	}
}

// regexpContext is the security context, up to where its string, or its part of one, ends.
var regexpContext = regexp.MustCompile(`Security context[^"\\]*`)

// numbersAsText decodes JSON with its numbers as they are written.
func numbersAsText(t *testing.T, document string) (v any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(document))
	dec.UseNumber()
	require.NoError(t, dec.Decode(&v), document)
	return v
}

// Each refusal comes before the provider is asked, and explains itself.
func TestLLMRefusals(t *testing.T) {
	t.Parallel()
	p := llmProviders[0]
	tests := map[string]struct {
		prepare func(t *testing.T, s *llmStage, params *stack.LLMParams)
		status  int
		code    string
		detail  string // a detail's name
		text    string // part of that detail
	}{
		"revoked": {func(t *testing.T, s *llmStage, _ *stack.LLMParams) {
			_, err := s.client.Passports.Revoke(t.Context(), s.passport.JTI, "rogue")
			require.NoError(t, err)
		}, 401, "PASSPORT_REVOKED", "check", "passport"},
		"checked out": {func(t *testing.T, s *llmStage, _ *stack.LLMParams) {
			_, err := s.client.Passports.Checkout(t.Context(), s.passport.JTI, stack.CheckpointParams{ServicesUsed: []string{}})
			require.NoError(t, err)
		}, 401, "PASSPORT_REVOKED", "check", "passport"},
		"no passport of ours": {func(_ *testing.T, _ *llmStage, params *stack.LLMParams) {
			params.Passport = stack.NewStaticToken(stack.NewSecret("a.b.c"))
		}, 401, "UNAUTHORIZED", "check", "passport"},
		"not granted": {func(t *testing.T, s *llmStage, params *stack.LLMParams) {
			other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"openai"}})
			passport := s.issue(t, func(p *stack.PassportIssueParams) { p.AgentID, p.Intent.Services = other.ID, []string{"openai"} })
			params.Passport = stack.NewStaticToken(passport.Token)
		}, 403, "FORBIDDEN", "hint", "grant the agent the operator's anthropic connection"},
		"outside the intent": {func(t *testing.T, s *llmStage, params *stack.LLMParams) {
			passport := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.Services = []string{"openai"} })
			params.Passport = stack.NewStaticToken(passport.Token)
		}, 403, "FORBIDDEN", "hint", "name anthropic among the services of the passport's intent"},
		"disconnected": {func(t *testing.T, s *llmStage, _ *stack.LLMParams) {
			_, err := s.client.Services.Disconnect(t.Context(), s.agent.Connections["anthropic"].ID)
			require.NoError(t, err)
		}, 401, "PASSPORT_REVOKED", "check", "passport"},
		"identity demanded": {func(t *testing.T, s *llmStage, _ *stack.LLMParams) {
			_, err := s.client.Identity.SetServiceRequirement(t.Context(), "anthropic", stack.ServiceRequirementParams{
				Layer: stack.LayerHumanity, RequiresClaim: stack.ClaimVerifiedHuman, MinimumAssurance: stack.AssuranceLow})
			require.NoError(t, err)
		}, 403, "IDENTITY_REQUIREMENTS_NOT_MET", "unmet", "verified_human"},
		"Mission cap": {func(t *testing.T, s *llmStage, params *stack.LLMParams) {
			m, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "Test", MaxActions: 1})
			require.NoError(t, err)
			passport, err := s.client.Passports.Issue(t.Context(), s.issueParams(m.MissionID,
				func(p *stack.PassportIssueParams) { p.Intent.Services = []string{"anthropic"} }))
			require.NoError(t, err)
			params.Passport = stack.NewStaticToken(passport.Token)
			_, err = s.client.LLM.Anthropic(t.Context(), *params)
			require.NoError(t, err, "the first action")
		}, 403, "MISSION_CAP_EXCEEDED", "cap", "max_actions"},
		"no model":          {bodyOf(`{"messages":[]}`), 400, "INVALID_REQUEST", "field", "body.model"},
		"a key twice":       {bodyOf(`{"model":"a","model":"b"}`), 400, "INVALID_REQUEST", "field", "body.model"},
		"too deep for sure": {bodyOf(`{"model":"a","x":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`), 400, "INVALID_REQUEST", "check", "validation"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Logged)
			params := s.params(p.body)
			tc.prepare(t, s, &params)
			before := len(s.Forwarded(p.host))
			_, err := p.call(s.client.LLM, t.Context(), params)
			var apiErr *stack.Error
			require.ErrorAs(t, err, &apiErr)
			assert.Equal(t, tc.code, apiErr.Code, apiErr.Message)
			assert.Equal(t, tc.status, apiErr.Status)
			assert.Contains(t, fmt.Sprint(apiErr.Details[tc.detail]), tc.text)
			events := 0
			for _, streamErr := range p.stream(s.client.LLM, t.Context(), params) {
				events++
				require.ErrorAs(t, streamErr, &apiErr, "a stream is refused with the same error")
				assert.Equal(t, tc.code, apiErr.Code)
			}
			assert.Equal(t, 1, events)
			assert.Len(t, s.Forwarded(p.host), before, "the provider is not asked")
		})
	}
}

// Whoever has not connected the provider at all is told what to do.
func TestLLMNotConnected(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	_, err := s.client.LLM.OpenRouter(t.Context(), stack.LLMParams{Body: json.RawMessage(llmProviders[2].body),
		Passport: stack.NewStaticToken(s.issue(t).Token)})
	apiErr := requireRefused(t, err, 403, "FORBIDDEN")
	assert.Contains(t, apiErr.Details["hint"], "connect openrouter with the operator's key of that provider first")
	assert.Contains(t, s.signals(), "credential_outside_scope")
}

func bodyOf(body string) func(*testing.T, *llmStage, *stack.LLMParams) {
	return func(_ *testing.T, _ *llmStage, params *stack.LLMParams) { params.Body = json.RawMessage(body) }
}

// A constraint looks at the body, the data-flow wall at what came from elsewhere.
func TestLLMChecksOfTheBody(t *testing.T) {
	t.Parallel()
	p := llmProviders[1]
	s := newLLMStage(t, stack.Logged)
	strict := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"openai", "slack"}, AllowDataFrom: []string{},
		Constraints: []stack.Constraint{{Path: "body.max_tokens", Op: "in", Value: []any{1, 100}}}})
	s.Upstream("slack.com", answers("application/json", `{"secret":"the launch is on the ninth of May"}`))
	passport := s.issue(t, func(p *stack.PassportIssueParams) {
		p.AgentID, p.Intent.Services = strict.ID, []string{"openai", "slack"}
	})
	call := func(body string) error {
		_, err := p.call(s.client.LLM, t.Context(), stack.LLMParams{Body: json.RawMessage(body), Passport: stack.NewStaticToken(passport.Token)})
		return err
	}
	require.NoError(t, call(`{"model":"m","max_tokens":100,"messages":[]}`))
	apiErr := requireRefused(t, call(`{"model":"m","max_tokens":101,"messages":[]}`), 403, "FORBIDDEN")
	assert.Equal(t, "constraint", apiErr.Details["check"])
	_, err := s.client.Proxy.Post(t.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/x",
		Body: map[string]any{"max_tokens": 1}, PassportToken: passport.Token})
	require.NoError(t, err)
	err = call(`{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"the launch is on the ninth of May"}]}`)
	requireRefused(t, err, 403, "DATA_FLOW_BLOCKED")
	require.ErrorIs(t, err, stack.ErrDataFlowBlocked)
}

func TestLLMParams(t *testing.T) {
	t.Parallel()
	s := newLLMStage(t, stack.Logged)
	requests := s.Requests()
	good := s.params(llmProviders[0].body)
	tests := map[string]struct {
		change func(*stack.LLMParams)
		param  string
	}{
		"no body":        {func(p *stack.LLMParams) { p.Body = nil }, "body"},
		"a list":         {func(p *stack.LLMParams) { p.Body = []int{1} }, "body"},
		"no JSON":        {func(p *stack.LLMParams) { p.Body = json.RawMessage(`{"a":`) }, "body"},
		"not encodable":  {func(p *stack.LLMParams) { p.Body = map[string]any{"f": func() {}} }, "body"},
		"stream is text": {func(p *stack.LLMParams) { p.Body = map[string]any{"stream": "yes"} }, "body.stream"},
		"no passport":    {func(p *stack.LLMParams) { p.Passport = nil }, "passport"},
		"empty token":    {func(p *stack.LLMParams) { p.Passport = stack.StaticToken{} }, "passport"},
		"operation id":   {func(p *stack.LLMParams) { p.OperationID = "short" }, "operation id"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			params := good
			tc.change(&params)
			for _, p := range llmProviders {
				_, err := p.call(s.client.LLM, t.Context(), params)
				requireParam(t, err, tc.param)
				n := 0
				for _, err := range p.stream(s.client.LLM, t.Context(), params) {
					n++
					requireParam(t, err, tc.param)
				}
				assert.Equal(t, 1, n)
			}
		})
	}
	params := good
	params.Body = map[string]any{"model": "m", "stream": true}
	_, err := s.client.LLM.Anthropic(t.Context(), params)
	requireParam(t, err, "body.stream")
	assert.Equal(t, requests, s.Requests(), "nothing was sent")
	assert.NotContains(t, fmt.Sprint(good.LogValue()), "hi")
}
