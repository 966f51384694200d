package langchain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/llms/anthropic"
	"github.com/tmc/langchaingo/llms/openai"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
)

// providerKey is the key of all providers. It must never be in what the process sends.
const providerKey = "sk-canary-93b1-of-the-provider"

// provider is one of the gateway's providers as the tests know it.
type provider struct {
	name   stack.LLMProvider
	host   string
	open   func(*stack.Mission) (llms.Model, error)
	answer string
	events []string
}

var providers = []provider{
	{stack.LLMOpenAI, "api.openai.com", func(m *stack.Mission) (llms.Model, error) {
		return langchain.OpenAI(m, openai.WithModel("gpt-4o"))
	}, openAIAnswer("Hello there"), openAIChunks("Hello ", "there")},
	{stack.LLMOpenRouter, "openrouter.ai", func(m *stack.Mission) (llms.Model, error) {
		return langchain.OpenRouter(m, openai.WithModel("some/model"))
	}, openAIAnswer("Hello there"), openAIChunks("Hello ", "there")},
	{stack.LLMAnthropic, "api.anthropic.com", func(m *stack.Mission) (llms.Model, error) {
		return langchain.Anthropic(m, anthropic.WithModel("claude-sonnet-4"))
	}, anthropicAnswer(anthropicBlock{Type: "text", Text: "Hello there"}), anthropicEvents("Hello ", "there")},
}

func openAIChunks(texts ...string) []string {
	events := []string{`data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}` + "\n\n"}
	for _, text := range texts {
		events = append(events, "data: "+toJSON(map[string]any{"choices": []any{map[string]any{"index": 0,
			"delta": map[string]any{"content": text}}}})+"\n\n")
	}
	return append(events, `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n",
		`data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}`+"\n\n", "data: [DONE]\n\n")
}

func anthropicEvents(texts ...string) []string {
	event := func(name, data string) string { return "event: " + name + "\ndata: " + data + "\n\n" }
	events := []string{
		event("message_start", `{"type":"message_start","message":{"id":"msg_1","role":"assistant","model":"claude","usage":{"input_tokens":11}}}`),
		event("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`),
		event("ping", "{\"type\":\ndata: \"ping\"}"), // over two lines
	}
	for _, text := range texts {
		events = append(events, event("content_block_delta", toJSON(map[string]any{"type": "content_block_delta", "index": 0,
			"delta": map[string]any{"type": "text_delta", "text": text}})))
	}
	return append(events, event("content_block_stop", `{"type":"content_block_stop","index":0}`),
		event("message_delta", `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}`),
		event("message_stop", `{"type":"message_stop"}`))
}

// send writes events one by one, and stops when the caller has gone.
func send(w http.ResponseWriter, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, event := range events {
		write(w, event)
		_ = http.NewResponseController(w).Flush()
	}
}

// ServeHTTP answers as it was asked, plainly or streamed.
func (p provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct{ Stream bool }
	if json.NewDecoder(r.Body).Decode(&request) != nil {
		http.Error(w, "no JSON", http.StatusBadRequest)
		return
	}
	if request.Stream {
		send(w, p.events...)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	write(w, p.answer)
}

// leaving keeps everything that leaves the process.
type leaving struct {
	base http.RoundTripper
	mu   sync.Mutex
	all  []*http.Request // without their bodies
	text strings.Builder
}

func (l *leaving) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	l.mu.Lock()
	l.all = append(l.all, req)
	fmt.Fprintf(&l.text, "%s %s\n%v\n%s\n", req.Method, req.URL, req.Header, body)
	l.mu.Unlock()
	return l.base.RoundTrip(req)
}

// models returns the requests to the gateway.
func (l *leaving) models() (requests []*http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, req := range l.all {
		if strings.HasPrefix(req.URL.Path, "/v1/llm/") && req.Method == http.MethodPost {
			requests = append(requests, req)
		}
	}
	return requests
}

// gateway is a Mission that may use all providers.
type gateway struct {
	*stacktest.Server
	client  *stack.Client
	agent   stacktest.Agent
	mission *stack.Mission
	leaving *leaving
}

func newGateway(t *testing.T, change ...func(*stack.MissionParams)) *gateway {
	t.Helper()
	srv := stacktest.New(t)
	names := make([]string, 0, len(providers))
	for _, p := range providers {
		names = append(names, string(p.name))
		srv.Upstream(p.host, p)
	}
	g := &gateway{Server: srv, leaving: &leaving{base: srv.Transport()},
		agent: srv.Agent(t, stacktest.AgentConfig{Services: names, Credential: providerKey, Mode: stack.Logged})}
	g.client = srv.Client(stack.WithHTTPClient(&http.Client{Transport: g.leaving}))
	params := stack.MissionParams{AgentID: g.agent.ID, Intent: "Answer questions", Services: names}
	for _, fn := range change {
		fn(&params)
	}
	var err error
	g.mission, err = g.client.Passports.Mission(t.Context(), params)
	require.NoError(t, err)
	t.Cleanup(func() { g.mission.Close(nil) })
	return g
}

func (g *gateway) model(t *testing.T, p provider) llms.Model {
	t.Helper()
	model, err := p.open(g.mission)
	require.NoError(t, err)
	return model
}

func (g *gateway) usage(t *testing.T) []stack.LLMUsage {
	t.Helper()
	page, err := g.client.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{LLMUsageFilter: stack.LLMUsageFilter{MissionID: g.mission.ID()}})
	require.NoError(t, err)
	return page.Items
}

func ask(ctx context.Context, model llms.Model, options ...llms.CallOption) (*llms.ContentResponse, error) {
	return model.GenerateContent(ctx, []llms.MessageContent{text(llms.ChatMessageTypeHuman, "hi")}, options...)
}

// hear asks for a stream and returns its chunks.
func hear(ctx context.Context, model llms.Model) (chunks []string, response *llms.ContentResponse, err error) {
	response, err = ask(ctx, model, llms.WithStreamingFunc(func(_ context.Context, chunk []byte) error {
		if len(chunk) > 0 {
			chunks = append(chunks, string(chunk))
		}
		return nil
	}))
	return chunks, response, err
}

// each runs a test for each provider.
func each(t *testing.T, fn func(*testing.T, provider)) {
	t.Helper()
	for _, p := range providers {
		t.Run(string(p.name), func(t *testing.T) {
			t.Parallel()
			fn(t, p)
		})
	}
}

// Both kinds of answer come through; the usage is the Mission's, the Mission knows its calls, and the key is nowhere but at
// the provider.
func TestGatewayModels(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		model := g.model(t, p)
		response, err := ask(t.Context(), model)
		require.NoError(t, err)
		assert.Equal(t, "Hello there", response.Choices[0].Content)
		chunks, response, err := hear(t.Context(), model)
		require.NoError(t, err)
		assert.Equal(t, []string{"Hello ", "there"}, chunks)
		assert.Equal(t, "Hello there", response.Choices[0].Content)
		assert.NotEmpty(t, response.Choices[0].StopReason)
		said, err := llms.GenerateFromSinglePrompt(t.Context(), model, "hi")
		require.NoError(t, err)
		assert.Equal(t, "Hello there", said)
		said, err = model.Call(t.Context(), "hi") //nolint:staticcheck // deprecated, and still a part of llms.Model
		require.NoError(t, err)
		assert.Equal(t, "Hello there", said)

		rows := g.usage(t)
		require.Len(t, rows, 4)
		for i, row := range rows {
			assert.Equal(t, []any{p.name, g.mission.JTI(), g.agent.ID, i == 2, true}, []any{row.Provider, row.PassportJTI, row.AgentID,
				row.Stream, row.Complete})
			assert.Equal(t, []int{11, 7}, []int{*row.Input, *row.Output})
		}
		var err2 error
		g.mission.Close(&err2)
		require.NoError(t, err2)
		checkout := g.RequireCheckedOut(t, g.mission.JTI())
		assert.Equal(t, 4, checkout.ActionsCount)

		for _, sent := range g.Forwarded(p.host) {
			assert.Contains(t, []string{"Bearer " + providerKey, ""}, sent.Header.Get("Authorization"))
			assert.Contains(t, []string{providerKey, ""}, sent.Header.Get("X-Api-Key"))
			assert.NotEqual(t, sent.Header.Get("Authorization"), sent.Header.Get("X-Api-Key"), "one of them")
		}
		assert.NotContains(t, g.leaving.text.String(), providerKey)
		for _, req := range g.leaving.models() {
			assert.Equal(t, "Bearer "+g.APIKey(), req.Header.Get("Authorization"))
			assert.NotEmpty(t, req.Header.Get("X-Passport-Token"))
			assert.Empty(t, req.Header.Get("X-Api-Key"))
		}
	})
}

// Keys, organisations, addresses and clients of the environment and of options stay out of it.
func TestGatewayIgnoresOtherKeys(t *testing.T) {
	for _, name := range []string{"OPENAI_API_KEY", "OPENAI_ORGANIZATION", "ANTHROPIC_API_KEY"} {
		t.Setenv(name, "canary-in-the-environment")
	}
	t.Setenv("OPENAI_BASE_URL", "http://192.0.2.1/elsewhere")
	t.Setenv("OPENAI_MODEL", "from-the-environment")
	g := newGateway(t)
	elsewhere := &http.Client{Transport: failing{}}
	for _, open := range []func() (llms.Model, error){
		func() (llms.Model, error) {
			return langchain.OpenAI(g.mission, openai.WithToken("canary-option"), openai.WithOrganization("canary-org"),
				openai.WithBaseURL("http://192.0.2.1"), openai.WithHTTPClient(elsewhere))
		},
		func() (llms.Model, error) { return langchain.OpenRouter(g.mission) },
		func() (llms.Model, error) {
			return langchain.Anthropic(g.mission, anthropic.WithToken("canary-option"), anthropic.WithBaseURL("http://192.0.2.1"),
				anthropic.WithHTTPClient(elsewhere))
		},
	} {
		model, err := open()
		require.NoError(t, err)
		_, err = ask(t.Context(), model)
		require.NoError(t, err)
		_, _, err = hear(t.Context(), model)
		require.NoError(t, err)
	}
	assert.NotContains(t, g.leaving.text.String(), "canary")
	assert.Contains(t, string(g.Forwarded("api.openai.com")[0].Body), "from-the-environment", "a model is no secret")
}

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("not this way")
}

// What options say of a call reaches the provider.
func TestGatewayPassesOptionsOn(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	chat, err := langchain.OpenAI(g.mission, openai.WithModel("gpt-4o"), openai.WithResponseFormat(openai.ResponseFormatJSON))
	require.NoError(t, err)
	options := []llms.CallOption{llms.WithTemperature(0.5), llms.WithMaxTokens(77), llms.WithStopWords([]string{"END"})}
	_, err = ask(t.Context(), chat, append(options, llms.WithSeed(5))...)
	require.NoError(t, err)
	sent := map[string]any{}
	require.NoError(t, json.Unmarshal(g.Forwarded("api.openai.com")[0].Body, &sent))
	assert.Equal(t, []any{"gpt-4o", 0.5, 77.0, 5.0, []any{"END"}, map[string]any{"type": "json_object"}},
		[]any{sent["model"], sent["temperature"], sent["max_completion_tokens"], sent["seed"], sent["stop"], sent["response_format"]})

	claude, err := langchain.Anthropic(g.mission, anthropic.WithModel("claude-sonnet-4"))
	require.NoError(t, err)
	_, err = ask(t.Context(), claude, append(options, anthropic.WithPromptCaching(), anthropic.WithBetaHeader("of-2026"))...)
	require.NoError(t, err)
	clear(sent)
	got := g.Forwarded("api.anthropic.com")[0]
	require.NoError(t, json.Unmarshal(got.Body, &sent))
	assert.Equal(t, []any{"claude-sonnet-4", 0.5, 77.0, []any{"END"}},
		[]any{sent["model"], sent["temperature"], sent["max_tokens"], sent["stop_sequences"]})
	assert.Equal(t, "2023-06-01", got.Header.Get("Anthropic-Version"))
	assert.Contains(t, got.Header.Get("Anthropic-Beta"), "of-2026")
	assert.Contains(t, got.Header.Get("Anthropic-Beta"), "prompt-caching")
}

// langchaingo's own agent works through the gateway, with two calls in one answer.
func TestGatewayTools(t *testing.T) {
	t.Parallel()
	inTurn := func(g *gateway, host string, answers ...string) {
		var mu sync.Mutex
		g.Upstream(host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			w.Header().Set("Content-Type", "application/json")
			write(w, answers[0])
			answers = answers[1:]
		}))
	}
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		if p.name == stack.LLMAnthropic {
			inTurn(g, p.host, anthropicAnswer(anthropicBlock{Type: "text", Text: "I post both."},
				anthropicBlock{Type: "tool_use", ID: "c1", Name: "post", Input: json.RawMessage(`{"channel":"#a","text":"one"}`)},
				anthropicBlock{Type: "tool_use", ID: "c2", Name: "post", Input: json.RawMessage(`{"channel":"#b","text":"two"}`)}),
				anthropicAnswer(anthropicBlock{Type: "text", Text: "done"}))
		} else {
			inTurn(g, p.host, openAIAnswer("", call{"c1", "post", `{"channel":"#a","text":"one"}`},
				call{"c2", "post", `{"channel":"#b","text":"two"}`}), openAIAnswer("done"))
		}
		made, post := poster(t)
		ts := []tools.Tool{post}
		answer, err := run(g.mission.Context(), langchain.Model(g.model(t, p), ts...), "post both", ts)
		require.NoError(t, err)
		assert.Equal(t, "done", answer)
		assert.Equal(t, []string{"#a: one", "#b: two"}, made.all())
		sent := g.Forwarded(p.host)
		require.Len(t, sent, 2)
		assert.Contains(t, string(sent[0].Body), `"channel"`, "the real schema")
		assert.Len(t, g.usage(t), 2)
	})
}

// Our own loop streams through the gateway, and its usage is what the gateway counted.
func TestGatewayRun(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		var pieces []string
		result, err := langchain.Run(g.mission.Context(), g.model(t, p), langchain.RunParams{
			Messages: []llms.MessageContent{text(llms.ChatMessageTypeHuman, "hi")},
			Stream: func(_ context.Context, piece []byte) error {
				if len(piece) > 0 {
					pieces = append(pieces, string(piece))
				}
				return nil
			},
		})
		require.NoError(t, err)
		assert.Equal(t, "Hello there", result.Text)
		assert.Equal(t, []string{"Hello ", "there"}, pieces)
		rows := g.usage(t)
		require.Len(t, rows, 1)
		assert.Equal(t, []int{result.Usage.InputTokens, result.Usage.OutputTokens}, []int{*rows[0].Input, *rows[0].Output})

		_, err = g.client.Passports.Revoke(t.Context(), g.mission.JTI(), "enough")
		require.NoError(t, err)
		_, err = langchain.Run(t.Context(), g.model(t, p), langchain.RunParams{
			Messages: []llms.MessageContent{text(llms.ChatMessageTypeHuman, "hi")}})
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
	})
}

// Personal data in what the user says does not reach the provider.
func TestGatewayRedacts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		_, err := llms.GenerateFromSinglePrompt(t.Context(), g.model(t, p), "write to jane.roe@example.com")
		require.NoError(t, err)
		body := string(g.Forwarded(p.host)[0].Body)
		assert.NotContains(t, body, "jane.roe")
		assert.Contains(t, body, "[EMAIL_1]")
	})
}

// The token of a long Mission is renewed between two calls.
func TestGatewayRenewsTheToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, func(p *stack.MissionParams) { p.TTL, p.ExpiresIn = 5*time.Minute, 2*time.Hour })
		model := g.model(t, providers[0])
		for range 3 {
			_, err := ask(g.mission.Context(), model)
			require.NoError(t, err)
			_, _, err = hear(g.mission.Context(), model)
			require.NoError(t, err)
			time.Sleep(20 * time.Minute)
		}
		tokens := map[string]bool{}
		for _, req := range g.leaving.models() {
			tokens[req.Header.Get("X-Passport-Token")] = true
		}
		assert.Len(t, tokens, 3)
		for _, row := range g.usage(t) {
			assert.Equal(t, g.mission.JTI(), row.PassportJTI, "always the same passport")
		}
		g.mission.Close(nil)
	})
}

// Calls of many goroutines share one model.
func TestGatewayConcurrently(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	var wg sync.WaitGroup
	for _, p := range providers {
		model := g.model(t, p)
		for range 10 {
			wg.Go(func() {
				response, err := ask(t.Context(), model)
				if assert.NoError(t, err) {
					assert.Equal(t, "Hello there", response.Choices[0].Content)
				}
				chunks, _, err := hear(t.Context(), model)
				assert.NoError(t, err)
				assert.Equal(t, []string{"Hello ", "there"}, chunks)
			})
		}
	}
	wg.Wait()
	assert.Len(t, g.leaving.models(), 60)
}

func TestGatewayConstructors(t *testing.T) {
	t.Parallel()
	var bad *stack.ParamError
	for _, p := range providers {
		_, err := p.open(nil)
		require.ErrorAs(t, err, &bad)
		assert.Equal(t, "mission", bad.Param)
	}
	g := newGateway(t)
	_, err := langchain.OpenAI(g.mission, openai.WithAPIType(openai.APITypeAzure))
	require.ErrorIs(t, err, openai.ErrMissingAzureModel)
	legacy, err := langchain.Anthropic(g.mission, anthropic.WithModel("claude"), anthropic.WithLegacyTextCompletionsAPI())
	require.NoError(t, err)
	_, err = ask(t.Context(), legacy)
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "path", bad.Param)
	assert.Empty(t, g.leaving.models())
	model := g.model(t, providers[0])
	_, embeds := model.(interface {
		CreateEmbedding(ctx context.Context, inputTexts []string) ([][]float32, error)
	})
	assert.False(t, embeds, "the gateway has no embeddings")
}
