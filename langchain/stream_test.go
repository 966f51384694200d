package langchain_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/llms"

	"github.com/getstack-go/stack/langchain"
)

// askStreaming asks a model that has tools, streaming, and returns what was streamed beside the answer.
func askStreaming(t *testing.T, llm llms.Model) (*llms.ContentResponse, string, error) {
	t.Helper()
	_, post := poster(t)
	model := langchain.Model(llm, post)
	model.StreamWithTools = true
	var streamed strings.Builder
	response, err := model.GenerateContent(t.Context(), []llms.MessageContent{text(llms.ChatMessageTypeHuman, "Hi")},
		llms.WithTools([]llms.Tool{{Type: "function", Function: &llms.FunctionDefinition{Name: "post"}}}),
		llms.WithStreamingFunc(func(_ context.Context, piece []byte) error {
			streamed.Write(piece)
			return nil
		}))
	return response, streamed.String(), err
}

func TestStreamedAnswer(t *testing.T) {
	t.Parallel()
	onEachWire(t, func(t *testing.T, on wire) {
		llm, _ := on.scripted(t, strings.Join(on.stream("", "All is well."), ""))
		response, streamed, err := askStreaming(t, llm)
		require.NoError(t, err)
		assert.Equal(t, "All is well.", response.Choices[0].Content)
		assert.Equal(t, "All is well.", streamed)

		llm, _ = on.scripted(t, strings.Join(on.stream("", "I post both.",
			call{"c1", "post", `{"text":"x"}`}, call{"c2", "post", `{"text":"y"}`}), ""))
		response, streamed, err = askStreaming(t, llm)
		require.NoError(t, err)
		require.Len(t, response.Choices, 1)
		choice := response.Choices[0]
		assert.Equal(t, "I post both.", choice.Content)
		assert.True(t, strings.HasPrefix(streamed, "I post both."), streamed)
		require.Len(t, choice.ToolCalls, 2)
		for i, want := range []llms.ToolCall{
			{ID: "c1", Type: "function", FunctionCall: &llms.FunctionCall{Name: "post", Arguments: `{"text":"x"}`}},
			{ID: "c2", Type: "function", FunctionCall: &llms.FunctionCall{Name: "post", Arguments: `{"text":"y"}`}},
		} {
			assert.Equal(t, want, choice.ToolCalls[i])
		}
	})
}

// A stream that ends after any of its events but the last is no answer, whether the connection breaks or is closed in order.
func TestTruncatedStream(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"closed": func() {}, "broken": func() { panic(http.ErrAbortHandler) }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEachWire(t, func(t *testing.T, on wire) {
				for _, calls := range [][]call{nil, {{"c1", "post", `{"text":"x"}`}}} {
					events := on.stream("", "All is well.", calls...)
					for n := range len(events) - on.optional {
						llm, _ := on.model(t, func(w http.ResponseWriter, _ *http.Request, _ int, _ []string) {
							write(w, strings.Join(events[:n], ""))
							assert.NoError(t, http.NewResponseController(w).Flush())
							end()
						})
						response, _, err := askStreaming(t, llm)
						require.Error(t, err, "after %d events of %d", n, len(events))
						assert.Nil(t, response)
						if name == "closed" && on.name == "OpenAI" {
							require.ErrorIs(t, err, io.ErrUnexpectedEOF)
						}
					}
				}
			})
		})
	}
}

// A provider's error inside a stream ends it, also when the stream is ended as usual then.
func TestFailingStream(t *testing.T) {
	t.Parallel()
	onEachWire(t, func(t *testing.T, on wire) {
		events := on.stream("", "All is well.")
		said := strings.Join(events[:len(events)-on.optional-2], "")
		for _, rest := range []string{"", events[len(events)-1]} {
			llm, _ := on.scripted(t, said+on.failure+rest)
			response, streamed, err := askStreaming(t, llm)
			require.Error(t, err)
			assert.Nil(t, response)
			assert.Equal(t, "All is", strings.TrimSpace(strings.TrimSuffix(streamed, "well.")))
		}
	})
}

// A stream without usage, or with a chunk after the reason to stop, as some providers send, is whole.
func TestStreamsOfOtherProviders(t *testing.T) {
	t.Parallel()
	events := openAIStream("", "All is well.")
	text, stop, usage, done := strings.Join(events[:len(events)-3], ""), events[len(events)-3], events[len(events)-2], events[len(events)-1]
	openRouters := `data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}],"usage":{"prompt_tokens":1,"completion_tokens":1}}` + "\n\n"
	for name, stream := range map[string]string{
		"no usage":             text + stop + done,
		"no reason":            text + usage + done,
		"a chunk after reason": text + stop + openRouters + done,
		"comments between":     ": processing\n\n" + text + ": processing\n\n" + stop + done,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			llm, _ := scriptedOpenAI(t, stream)
			response, _, err := askStreaming(t, llm)
			require.NoError(t, err)
			assert.Equal(t, "All is well.", response.Choices[0].Content)
		})
	}
}

// langchaingo's OpenAI client joins the parts of calls in the order in which they come.
func TestMixedCallsInAStream(t *testing.T) {
	t.Parallel()
	begin := func(index, id string) string {
		return `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":` + index + `,"id":"` + id +
			`","type":"function","function":{"name":"post","arguments":""}}]}}]}` + "\n\n"
	}
	more := func(index, kind, arguments string) string {
		return `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":` + index + kind +
			`,"function":{"arguments":` + toJSON(arguments) + `}}]}}]}` + "\n\n"
	}
	stop := `data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}` + "\n\ndata: [DONE]\n\n"
	for name, stream := range map[string]string{
		"one after the other, by parts": begin("0", "c1") + begin("1", "c2") + more("0", "", `{"text":"x"}`) + more("1", "", `{"text":"y"}`),
		"the type in each part":         begin("0", "c1") + more("0", `,"type":"function"`, `{"text"`) + more("0", `,"type":"function"`, `:"x"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			llm, _ := scriptedOpenAI(t, stream+stop)
			_, _, err := askStreaming(t, llm)
			require.EqualError(t, err, "langchain: the provider mixes its streamed tool calls; ask it without streaming")
		})
	}
}

// pieces is a model that streams what it is given, as langchaingo's OpenAI client does: parts of calls in place of texts.
type pieces struct {
	innerModel
	all [][2]string // reasoning and text
}

func (m *pieces) GenerateContent(
	ctx context.Context, _ []llms.MessageContent, options ...llms.CallOption,
) (*llms.ContentResponse, error) {
	var o llms.CallOptions
	for _, opt := range options {
		opt(&o)
	}
	for _, p := range m.all {
		if err := o.StreamingFunc(ctx, []byte(p[1])); err != nil {
			return nil, err
		}
		if err := o.StreamingReasoningFunc(ctx, []byte(p[0]), []byte(p[1])); err != nil {
			return nil, err
		}
	}
	return &llms.ContentResponse{}, nil
}

func TestOnlySpeechIsStreamed(t *testing.T) {
	t.Parallel()
	const part = `[{"type":"","function":{"name":"","arguments":"{\"a\":1}"}}]`
	inner := &pieces{all: [][2]string{{"hm", ""}, {"", "a"}, {"", ""}, {"", part}, {"so", part},
		{"", `[{"id":"c1"}]`}, {"", `[{"function":{},"price":3}]`}, {"", part + "."}, {"", "[{"}}}
	_, post := poster(t)
	model := langchain.Model(inner, post)
	model.StreamWithTools = true
	var said []string
	var thought [][2]string
	_, err := model.GenerateContent(t.Context(), nil,
		llms.WithTools([]llms.Tool{{Type: "function", Function: &llms.FunctionDefinition{Name: "post"}}}),
		llms.WithStreamingFunc(func(_ context.Context, piece []byte) error { said = append(said, string(piece)); return nil }),
		llms.WithStreamingReasoningFunc(func(_ context.Context, reasoning, piece []byte) error {
			thought = append(thought, [2]string{string(reasoning), string(piece)})
			return nil
		}))
	require.NoError(t, err)
	texts := []string{"a", `[{"id":"c1"}]`, `[{"function":{},"price":3}]`, part + ".", "[{"}
	assert.Equal(t, texts, said)
	want := [][2]string{{"hm", ""}, {"", "a"}, {"so", ""}}
	for _, text := range texts[1:] {
		want = append(want, [2]string{"", text})
	}
	assert.Equal(t, want, thought)
}
