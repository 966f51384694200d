package langchain_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/llms"

	"github.com/getstack-go/stack/langchain"
)

// innerModel is a model that keeps what it is asked and gives a fixed answer.
type innerModel struct {
	messages []llms.MessageContent
	options  llms.CallOptions
	response *llms.ContentResponse
	err      error
}

func (m *innerModel) GenerateContent(
	_ context.Context, messages []llms.MessageContent, options ...llms.CallOption,
) (*llms.ContentResponse, error) {
	m.messages = messages
	for _, opt := range options {
		opt(&m.options)
	}
	return m.response, m.err
}

func (*innerModel) Call(context.Context, string, ...llms.CallOption) (string, error) {
	return "", errors.New("deprecated")
}

func text(role llms.ChatMessageType, s string) llms.MessageContent {
	return llms.MessageContent{Role: role, Parts: []llms.ContentPart{llms.TextContent{Text: s}}}
}

func calls(parts ...llms.ContentPart) llms.MessageContent {
	return llms.MessageContent{Role: llms.ChatMessageTypeAI, Parts: parts}
}

func results(parts ...llms.ContentPart) llms.MessageContent {
	return llms.MessageContent{Role: llms.ChatMessageTypeTool, Parts: parts}
}

func toolCall(id, args string) llms.ToolCall {
	return llms.ToolCall{ID: id, Type: "function", FunctionCall: &llms.FunctionCall{Name: "f", Arguments: args}}
}

func result(id, content string) llms.ToolCallResponse {
	return llms.ToolCallResponse{ToolCallID: id, Name: "f", Content: content}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	human, ai := text(llms.ChatMessageTypeHuman, "hi"), text(llms.ChatMessageTypeAI, "ho")
	tests := map[string]struct{ in, want []llms.MessageContent }{
		"no calls": {[]llms.MessageContent{human, ai, human}, []llms.MessageContent{human, ai, human}},
		"one call": {
			[]llms.MessageContent{human, calls(toolCall("1", `{"a":1}`)), results(result("1", "x")), ai},
			[]llms.MessageContent{human, calls(toolCall("1", `{"a":1}`)), results(result("1", "x")), ai},
		},
		"text, then two calls with one message of results in another order": {
			[]llms.MessageContent{
				calls(llms.TextContent{Text: "ho"}, toolCall("1", `{}`), toolCall("2", `{}`)),
				results(result("2", "y"), result("1", "x")),
			},
			[]llms.MessageContent{
				ai, calls(toolCall("1", `{}`)), results(result("1", "x")), calls(toolCall("2", `{}`)), results(result("2", "y")),
			},
		},
		"empty text": {
			[]llms.MessageContent{calls(llms.TextContent{}, toolCall("1", `{}`)), results(result("1", "x"))},
			[]llms.MessageContent{calls(toolCall("1", `{}`)), results(result("1", "x"))},
		},
		"calls without ids": {
			[]llms.MessageContent{
				calls(toolCall("", `{"n":1}`), toolCall("", `{"n":2}`)), results(result("", "x")), results(result("", "y")),
			},
			[]llms.MessageContent{
				calls(toolCall("", `{"n":1}`)), results(result("", "x")), calls(toolCall("", `{"n":2}`)), results(result("", "y")),
			},
		},
		"type and name added": {
			[]llms.MessageContent{
				calls(llms.ToolCall{ID: "1", FunctionCall: &llms.FunctionCall{Name: "f", Arguments: "{}"}}),
				results(llms.ToolCallResponse{ToolCallID: "1", Content: "x"}),
			},
			[]llms.MessageContent{calls(toolCall("1", `{}`)), results(result("1", "x"))},
		},
		"arguments that are no object": {
			[]llms.MessageContent{
				calls(toolCall("1", `a "b"`), toolCall("2", ` `), toolCall("3", `[1]`), toolCall("4", `null`), toolCall("5", `{"a":`)),
				results(result("1", "x"), result("2", "x"), result("3", "x"), result("4", "x"), result("5", "x")),
			},
			[]llms.MessageContent{
				calls(toolCall("1", `{"__arg1":"a \"b\""}`)), results(result("1", "x")),
				calls(toolCall("2", `{}`)), results(result("2", "x")),
				calls(toolCall("3", `{"__arg1":"[1]"}`)), results(result("3", "x")),
				calls(toolCall("4", `{"__arg1":"null"}`)), results(result("4", "x")),
				calls(toolCall("5", `{"__arg1":"{\"a\":"}`)), results(result("5", "x")),
			},
		},
		"a call without a result and a result without a call": {
			[]llms.MessageContent{
				calls(toolCall("1", `{}`), toolCall("2", `{}`)), results(result("2", "y")), results(result("3", "z")),
			},
			[]llms.MessageContent{
				calls(toolCall("1", `{}`)), calls(toolCall("2", `{}`)), results(result("2", "y")), results(result("3", "z")),
			},
		},
		"a call without a function": {
			[]llms.MessageContent{calls(llms.ToolCall{ID: "1", Type: "other"}), results(result("1", "x"))},
			[]llms.MessageContent{calls(llms.ToolCall{ID: "1", Type: "other"}), results(result("1", "x"))},
		},
		"a tool message of another kind": {
			[]llms.MessageContent{calls(toolCall("1", `{}`)), results(llms.TextContent{Text: "x"})},
			[]llms.MessageContent{calls(toolCall("1", `{}`)), results(llms.TextContent{Text: "x"})},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner := &innerModel{}
			_, err := langchain.Model[*langchain.Tool](inner).GenerateContent(t.Context(), tt.in)
			require.NoError(t, err)
			assert.Equal(t, tt.want, inner.messages)
		})
	}
}

func TestReplayCopies(t *testing.T) {
	t.Parallel()
	call := toolCall("1", "text")
	in := []llms.MessageContent{calls(call, toolCall("2", "{}")), results(result("1", "x"), result("2", "y"))}
	_, err := langchain.Model[*langchain.Tool](&innerModel{}).GenerateContent(t.Context(), in)
	require.NoError(t, err)
	assert.Equal(t, "text", call.FunctionCall.Arguments)
	assert.Equal(t, []llms.MessageContent{calls(call, toolCall("2", "{}")), results(result("1", "x"), result("2", "y"))}, in)
}

func TestDeclare(t *testing.T) {
	t.Parallel()
	_, post := poster(t)
	stock := map[string]any{"type": "object"}
	functions := []llms.FunctionDefinition{
		{Name: "post", Description: "d", Parameters: stock}, {Name: "other", Parameters: stock},
	}
	listed := []llms.Tool{
		{Type: "function", Function: &llms.FunctionDefinition{Name: "post", Parameters: stock}}, {Type: "web_search"},
	}

	inner := &innerModel{}
	model := langchain.Model(inner, post)
	stream := func(context.Context, []byte) error { return nil }
	reason := func(context.Context, []byte, []byte) error { return nil }
	_, err := model.GenerateContent(t.Context(), nil,
		llms.WithFunctions(functions), llms.WithTools(listed),
		llms.WithStreamingFunc(stream), llms.WithStreamingReasoningFunc(reason),
		llms.WithFunctionCallBehavior(llms.FunctionCallBehaviorNone), llms.WithTemperature(0.5))
	require.NoError(t, err)

	got := inner.options
	assert.Empty(t, got.Functions)
	assert.Empty(t, got.FunctionCallBehavior)
	assert.Equal(t, "none", got.ToolChoice)
	assert.InDelta(t, 0.5, got.Temperature, 0)
	assert.Nil(t, got.StreamingFunc)
	assert.Nil(t, got.StreamingReasoningFunc)
	assert.Equal(t, []llms.Tool{
		{Type: "function", Function: &llms.FunctionDefinition{Name: "post", Description: "d", Parameters: post.Parameters()}},
		{Type: "function", Function: &llms.FunctionDefinition{Name: "other", Parameters: stock}},
		{Type: "function", Function: &llms.FunctionDefinition{Name: "post", Parameters: post.Parameters()}},
		{Type: "web_search"},
	}, got.Tools)
	assert.Equal(t, stock, functions[0].Parameters, "shared option values were changed")
	assert.Equal(t, stock, listed[0].Function.Parameters, "shared option values were changed")

	// Without tools nothing is added, and streaming is the caller's business.
	inner = &innerModel{}
	_, err = langchain.Model(inner, post).GenerateContent(t.Context(), nil,
		llms.WithStreamingFunc(stream), llms.WithToolChoice("auto"))
	require.NoError(t, err)
	assert.Nil(t, inner.options.Tools)
	assert.NotNil(t, inner.options.StreamingFunc)
	assert.Equal(t, "auto", inner.options.ToolChoice)

	// A choice that was made stays.
	inner = &innerModel{}
	_, err = langchain.Model(inner, post).GenerateContent(t.Context(), nil,
		llms.WithToolChoice("required"), llms.WithFunctionCallBehavior(llms.FunctionCallBehaviorAuto))
	require.NoError(t, err)
	assert.Equal(t, "required", inner.options.ToolChoice)
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	call := func(id string) llms.ToolCall {
		return llms.ToolCall{ID: id, FunctionCall: &llms.FunctionCall{Name: "f", Arguments: "{}"}}
	}
	parts := []*llms.ContentChoice{
		{GenerationInfo: map[string]any{"ThinkingContent": "hm", "InputTokens": 1}, ReasoningContent: "hm"},
		{Content: "a", StopReason: "tool_use", GenerationInfo: map[string]any{"ThinkingContent": "", "OutputTokens": 2}},
		nil,
		{ToolCalls: []llms.ToolCall{call("1")}},
		{Content: "b", ToolCalls: []llms.ToolCall{call("2")}, FuncCall: call("2").FunctionCall},
	}
	inner := &innerModel{response: &llms.ContentResponse{Choices: parts}}

	got, err := langchain.Model[*langchain.Tool](inner).GenerateContent(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, []*llms.ContentChoice{{
		Content: "a\nb", StopReason: "tool_use", ReasoningContent: "hm",
		GenerationInfo: map[string]any{"ThinkingContent": "hm", "InputTokens": 1, "OutputTokens": 2},
		ToolCalls:      []llms.ToolCall{toolCall("1", "{}"), toolCall("2", "{}")},
		FuncCall:       call("2").FunctionCall,
	}}, got.Choices)
	assert.Empty(t, parts[3].ToolCalls[0].Type, "a response that may be shared was changed")
	assert.Empty(t, parts[0].Content, "a response that may be shared was changed")

	for name, opt := range map[string]llms.CallOption{"n": llms.WithN(2), "candidates": llms.WithCandidateCount(2)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner := &innerModel{response: &llms.ContentResponse{Choices: parts}}
			got, err := langchain.Model[*langchain.Tool](inner).GenerateContent(t.Context(), nil, opt)
			require.NoError(t, err)
			assert.Len(t, got.Choices, 4, "alternatives were put together")
		})
	}
}

func TestModelFailures(t *testing.T) {
	t.Parallel()
	_, post := poster(t)
	other := langchain.Must(langchain.NewTool("Post", "d", func(context.Context, struct{}) (string, error) { return "", nil }))

	_, err := langchain.Model(nil, post).GenerateContent(t.Context(), nil)
	require.EqualError(t, err, "langchain: the model to wrap is nil")
	_, err = langchain.Model(&innerModel{}, post, other).GenerateContent(t.Context(), nil)
	require.EqualError(t, err, `langchain: the tool names "post" and "Post" differ in case at most`)

	broken := errors.New("broken")
	_, err = langchain.Model(&innerModel{err: broken}, post).GenerateContent(t.Context(), nil)
	require.ErrorIs(t, err, broken)

	// A finished context wins over whatever the client makes of it, and nothing is asked.
	cause := errors.New("the Mission has ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	inner := &innerModel{response: &llms.ContentResponse{}}
	_, err = langchain.Model(inner, post).GenerateContent(ctx, []llms.MessageContent{text(llms.ChatMessageTypeHuman, "hi")})
	require.ErrorIs(t, err, cause)
	assert.Nil(t, inner.messages)
}

func TestModelCall(t *testing.T) {
	t.Parallel()
	inner := &innerModel{response: &llms.ContentResponse{Choices: []*llms.ContentChoice{{Content: "ho"}}}}
	out, err := llms.GenerateFromSinglePrompt(t.Context(), langchain.Model[*langchain.Tool](inner), "hi")
	require.NoError(t, err)
	assert.Equal(t, "ho", out)
	out, err = langchain.Model[*langchain.Tool](inner).Call(t.Context(), "hi")
	require.NoError(t, err)
	assert.Equal(t, "ho", out)
	assert.Equal(t, []llms.MessageContent{text(llms.ChatMessageTypeHuman, "hi")}, inner.messages)
}

func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	var used []string
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		if strings.Contains(dep, "tmc/langchaingo") {
			used = append(used, dep)
		}
		for _, heavy := range []string{"starlark", "sprig", "gonja", "internal/mockserver", "stacktest"} {
			assert.NotContains(t, dep, heavy)
		}
	}
	assert.ElementsMatch(t, []string{
		"github.com/tmc/langchaingo/llms", "github.com/tmc/langchaingo/callbacks", "github.com/tmc/langchaingo/schema",
		"github.com/tmc/langchaingo/httputil",
		"github.com/tmc/langchaingo/llms/openai", "github.com/tmc/langchaingo/llms/openai/internal/openaiclient",
		"github.com/tmc/langchaingo/llms/anthropic", "github.com/tmc/langchaingo/llms/anthropic/internal/anthropicclient",
	}, used)
}
