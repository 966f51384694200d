package langchain_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/chains"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/llms/anthropic"
	"github.com/tmc/langchaingo/llms/openai"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack/langchain"
)

// call is a tool call of a scripted model.
type call struct{ id, name, args string }

// script is a local model server: it answers in turn, keeps what it was asked, and is as strict as the real one about
// how calls and results follow each other.
type script[R any] struct {
	mu       sync.Mutex
	requests []R
}

func (s *script[R]) all() []R {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// serve starts a server that checks each request and answers the n-th, from 0, with respond.
func serve[R any](
	t *testing.T, check func(*testing.T, R), respond func(w http.ResponseWriter, r *http.Request, n int, request R),
) (*script[R], string) {
	t.Helper()
	s := &script[R]{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request R
		if !assert.NoError(t, json.NewDecoder(r.Body).Decode(&request)) {
			return
		}
		check(t, request)
		s.mu.Lock()
		n := len(s.requests)
		s.requests = append(s.requests, request)
		s.mu.Unlock()
		respond(w, r, n, request)
	}))
	t.Cleanup(server.Close)
	return s, server.URL
}

// inTurn answers with one text after the other.
func inTurn[R any](t *testing.T, answers []string) func(http.ResponseWriter, *http.Request, int, R) {
	return func(w http.ResponseWriter, _ *http.Request, n int, _ R) {
		if !assert.Less(t, n, len(answers), "the model was asked more often than the script has answers") {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		write(w, answers[n])
	}
}

// write sends text; a client that has gone away is its own business.
func write(w io.Writer, text string) { _, _ = io.WriteString(w, text) }

type openAIRequest struct {
	Stream    bool
	Functions json.RawMessage
	Tools     []struct {
		Type     string
		Function struct {
			Name, Description string
			Parameters        json.RawMessage
		}
	}
	Messages []openAIMessage
}

type openAIMessage struct {
	Role      string `json:"role"`
	Content   string `json:"content"`
	ToolCalls []struct {
		ID       string `json:"id"`
		Type     string `json:"type"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
	ToolCallID string `json:"tool_call_id"`
}

// line is a message in short form, for comparing.
func (m openAIMessage) line() string {
	switch {
	case len(m.ToolCalls) > 0:
		text := m.Role
		for _, c := range m.ToolCalls {
			text += fmt.Sprintf(" %s=%s(%s)", c.ID, c.Function.Name, c.Function.Arguments)
		}
		return text
	case m.ToolCallID != "":
		return fmt.Sprintf("%s %s: %s", m.Role, m.ToolCallID, m.Content)
	}
	return m.Role + ": " + m.Content
}

func (r openAIRequest) lines() []string {
	lines := make([]string, 0, len(r.Messages))
	for _, m := range r.Messages {
		lines = append(lines, m.line())
	}
	return lines
}

func checkOpenAI(t *testing.T, r openAIRequest) {
	for i := 0; i < len(r.Messages); i++ {
		m := r.Messages[i]
		assert.False(t, m.Role == "tool", "a result without a call before it")
		for _, c := range m.ToolCalls {
			assert.Equal(t, "function", c.Type)
			var object map[string]any
			assert.NoError(t, json.Unmarshal([]byte(c.Function.Arguments), &object), "arguments must be a JSON object")
			i++
			if assert.Less(t, i, len(r.Messages), "a call without a result") {
				assert.Equal(t, c.ID, r.Messages[i].ToolCallID)
			}
		}
	}
}

// newOpenAI is langchaingo's own client of a local server.
func newOpenAI(
	t *testing.T, respond func(http.ResponseWriter, *http.Request, int, openAIRequest), opts ...openai.Option,
) (*openai.LLM, *script[openAIRequest]) {
	t.Helper()
	s, url := serve(t, checkOpenAI, respond)
	llm, err := openai.New(append([]openai.Option{
		openai.WithToken("key"), openai.WithBaseURL(url + "/v1"), openai.WithModel("gpt-4o"),
	}, opts...)...)
	require.NoError(t, err)
	return llm, s
}

func scriptedOpenAI(t *testing.T, answers ...string) (*openai.LLM, *script[openAIRequest]) {
	t.Helper()
	return newOpenAI(t, inTurn[openAIRequest](t, answers))
}

// openAIAnswer is an answer of text and calls.
func openAIAnswer(text string, calls ...call) string {
	list := []any{}
	for _, c := range calls {
		list = append(list, map[string]any{
			"id": c.id, "type": "function", "function": map[string]any{"name": c.name, "arguments": c.args},
		})
	}
	message := map[string]any{"role": "assistant", "content": text}
	reason := "stop"
	if len(list) > 0 {
		message["tool_calls"] = list
		reason = "tool_calls"
	}
	return toJSON(map[string]any{
		"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": reason}},
		"usage":   map[string]any{"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
	})
}

type anthropicRequest struct {
	Tools []struct {
		Name, Description string
		InputSchema       json.RawMessage `json:"input_schema"`
	}
	Messages []struct {
		Role    string
		Content []anthropicBlock
	}
}

type anthropicBlock struct {
	Type      string          `json:"type"`
	Text      string          `json:"text,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"`
	ToolUseID string          `json:"tool_use_id,omitempty"`
	Content   string          `json:"content,omitempty"`
}

func (r anthropicRequest) lines() []string {
	var lines []string
	for _, m := range r.Messages {
		for _, b := range m.Content {
			switch b.Type {
			case "tool_use":
				lines = append(lines, fmt.Sprintf("%s %s=%s(%s)", m.Role, b.ID, b.Name, b.Input))
			case "tool_result":
				lines = append(lines, fmt.Sprintf("%s %s: %s", m.Role, b.ToolUseID, b.Content))
			default:
				lines = append(lines, m.Role+": "+b.Text)
			}
		}
	}
	return lines
}

func checkAnthropic(t *testing.T, r anthropicRequest) {
	var open []string
	for _, m := range r.Messages {
		var answered []string
		for _, b := range m.Content {
			switch b.Type {
			case "tool_use":
				open = append(open, b.ID)
			case "tool_result":
				answered = append(answered, b.ToolUseID)
			}
		}
		if m.Role == "user" {
			assert.Equal(t, open, answered, "the results of a user message must be those of the calls just before it")
			open = nil
		}
	}
	assert.Empty(t, open, "a call without a result")
}

func scriptedAnthropic(t *testing.T, answers ...string) (*anthropic.LLM, *script[anthropicRequest]) {
	t.Helper()
	return newAnthropic(t, inTurn[anthropicRequest](t, answers))
}

func anthropicAnswer(blocks ...anthropicBlock) string {
	reason := "end_turn"
	for _, b := range blocks {
		if b.Type == "tool_use" {
			reason = "tool_use"
		}
	}
	return toJSON(map[string]any{
		"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": reason, "content": blocks,
		"usage": map[string]any{"input_tokens": 11, "output_tokens": 7},
	})
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// run runs langchaingo's own functions agent and executor.
func run(ctx context.Context, model llms.Model, input string, ts []tools.Tool, opts ...agents.Option) (string, error) {
	executor := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(model, ts, opts...), opts...)
	return chains.Run(ctx, executor, input)
}

type postIn struct {
	Channel string `json:"channel" jsonschema:"name of the channel"`
	Text    string `json:"text"`
}

// posts is a local stand-in for a chat service.
type posts struct {
	mu   sync.Mutex
	made []string
}

func (p *posts) add(_ context.Context, in postIn) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made = append(p.made, in.Channel+": "+in.Text)
	return fmt.Sprintf("posted %q", in.Text), nil
}

func (p *posts) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.made)
}

// poster makes the tool post.
func poster(t *testing.T) (*posts, *langchain.Tool) {
	t.Helper()
	p := &posts{}
	made, err := langchain.NewTool("post", "Post a message.", p.add)
	require.NoError(t, err)
	return p, made
}
