package langchain_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/llms/anthropic"
)

// wire is a provider's format. What must hold for every provider is tested for each of wires.
type wire struct {
	name string
	// model is langchaingo's own client of a local server that answers each request with respond. Asked gives what it was
	// asked, one list of messages for each request, system messages left out.
	model func(t *testing.T, respond respond) (llm llms.Model, asked func() [][]string)
	// answer is an answer that is not streamed, and stream the same as events; reason is how the answer ends, the usual way
	// when empty.
	answer func(reason, text string, calls ...call) string
	stream func(reason, text string, calls ...call) []string
	// failure is an event that reports an error, and optional how many events at the end of a stream may be missing.
	failure  string
	optional int
	// The words for the end of an answer that was cut, and of one that was kept back.
	cut, refused string
}

// respond answers the n-th request, from 0, of which asked are the messages.
type respond func(w http.ResponseWriter, r *http.Request, n int, asked []string)

var wires = []wire{
	{
		name: "OpenAI",
		model: func(t *testing.T, respond respond) (llms.Model, func() [][]string) {
			llm, s := newOpenAI(t, func(w http.ResponseWriter, r *http.Request, n int, asked openAIRequest) {
				respond(w, r, n, plain(asked.lines()))
			})
			return llm, func() (asked [][]string) {
				for _, r := range s.all() {
					asked = append(asked, plain(r.lines()))
				}
				return asked
			}
		},
		answer:   openAIWholeAnswer,
		stream:   openAIStream,
		failure:  "data: " + `{"error":{"message":"overloaded"}}` + "\n\n",
		optional: 2, // usage and [DONE]
		cut:      "length",
		refused:  "content_filter",
	},
	{
		name: "Anthropic",
		model: func(t *testing.T, respond respond) (llms.Model, func() [][]string) {
			llm, s := newAnthropic(t, func(w http.ResponseWriter, r *http.Request, n int, asked anthropicRequest) {
				respond(w, r, n, asked.lines())
			})
			return llm, func() (asked [][]string) {
				for _, r := range s.all() {
					asked = append(asked, r.lines())
				}
				return asked
			}
		},
		answer:  anthropicWholeAnswer,
		stream:  anthropicStream,
		failure: anthropicEvent("error", map[string]any{"error": map[string]any{"type": "overloaded_error", "message": "overloaded"}}),
		cut:     "max_tokens",
		refused: "refusal",
	},
}

// plain makes OpenAI's messages those of Anthropic: results come from the user.
func plain(lines []string) []string {
	var out []string
	for _, line := range lines {
		if !strings.HasPrefix(line, "system: ") {
			out = append(out, strings.Replace(line, "tool ", "user ", 1))
		}
	}
	return out
}

// onEachWire runs a test for each provider's format.
func onEachWire(t *testing.T, test func(t *testing.T, on wire)) {
	t.Helper()
	for _, on := range wires {
		t.Run(on.name, func(t *testing.T) {
			t.Parallel()
			test(t, on)
		})
	}
}

// scripted is a model that answers in turn.
func (on wire) scripted(t *testing.T, answers ...string) (llms.Model, func() [][]string) {
	t.Helper()
	turn := inTurn[[]string](t, answers)
	return on.model(t, turn)
}

// says is an answer that ends as usual.
func (on wire) says(text string, calls ...call) string { return on.answer("", text, calls...) }

func openAIWholeAnswer(reason, text string, calls ...call) string {
	answer := openAIAnswer(text, calls...)
	if reason != "" {
		answer = strings.NewReplacer(`"finish_reason":"stop"`, fmt.Sprintf(`"finish_reason":%q`, reason),
			`"finish_reason":"tool_calls"`, fmt.Sprintf(`"finish_reason":%q`, reason)).Replace(answer)
	}
	return answer
}

func openAIStream(reason, text string, calls ...call) []string {
	event := func(v any) string { return "data: " + toJSON(v) + "\n\n" }
	delta := func(delta map[string]any) string {
		return event(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": delta}}})
	}
	events := []string{delta(map[string]any{"role": "assistant", "content": ""})}
	for _, word := range strings.SplitAfter(text, " ") {
		if word != "" {
			events = append(events, delta(map[string]any{"content": word}))
		}
	}
	end := "stop"
	for i, c := range calls {
		end = "tool_calls"
		part := func(v map[string]any) string {
			v["index"] = i
			return delta(map[string]any{"tool_calls": []any{v}})
		}
		half := len(c.args) / 2
		events = append(events,
			part(map[string]any{"id": c.id, "type": "function", "function": map[string]any{"name": c.name, "arguments": ""}}),
			part(map[string]any{"function": map[string]any{"arguments": c.args[:half]}}),
			part(map[string]any{"function": map[string]any{"arguments": c.args[half:]}}))
	}
	if reason != "" {
		end = reason
	}
	return append(events,
		event(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]any{}, "finish_reason": end}}}),
		event(map[string]any{"choices": []any{}, "usage": map[string]any{"prompt_tokens": 11, "completion_tokens": 7}}),
		"data: [DONE]\n\n")
}

// newAnthropic is langchaingo's own client of a local server.
func newAnthropic(
	t *testing.T, respond func(http.ResponseWriter, *http.Request, int, anthropicRequest),
) (*anthropic.LLM, *script[anthropicRequest]) {
	t.Helper()
	s, url := serve(t, checkAnthropic, respond)
	llm, err := anthropic.New(
		anthropic.WithToken("key"), anthropic.WithBaseURL(url+"/v1"), anthropic.WithModel("claude-sonnet-4"))
	require.NoError(t, err)
	return llm, s
}

func anthropicBlocks(text string, calls []call) []anthropicBlock {
	var blocks []anthropicBlock
	if text != "" {
		blocks = append(blocks, anthropicBlock{Type: "text", Text: text})
	}
	for _, c := range calls {
		blocks = append(blocks, anthropicBlock{Type: "tool_use", ID: c.id, Name: c.name, Input: json.RawMessage(c.args)})
	}
	return blocks
}

func anthropicWholeAnswer(reason, text string, calls ...call) string {
	answer := anthropicAnswer(anthropicBlocks(text, calls)...)
	if reason != "" {
		answer = strings.NewReplacer(`"stop_reason":"end_turn"`, fmt.Sprintf(`"stop_reason":%q`, reason),
			`"stop_reason":"tool_use"`, fmt.Sprintf(`"stop_reason":%q`, reason)).Replace(answer)
	}
	return answer
}

func anthropicEvent(name string, fields map[string]any) string {
	fields["type"] = name
	return "event: " + name + "\ndata: " + toJSON(fields) + "\n\n"
}

func anthropicStream(reason, text string, calls ...call) []string {
	events := []string{anthropicEvent("message_start", map[string]any{"message": map[string]any{
		"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "usage": map[string]any{"input_tokens": 11, "output_tokens": 1},
	}})}
	end := "end_turn"
	for i, block := range anthropicBlocks(text, calls) {
		start, deltas := map[string]any{"type": block.Type, "text": ""}, []map[string]any{}
		if block.Type == "tool_use" {
			end = "tool_use"
			start = map[string]any{"type": block.Type, "id": block.ID, "name": block.Name, "input": map[string]any{}}
			half := len(block.Input) / 2
			for _, part := range []json.RawMessage{block.Input[:half], block.Input[half:]} {
				deltas = append(deltas, map[string]any{"type": "input_json_delta", "partial_json": string(part)})
			}
		} else {
			for _, word := range strings.SplitAfter(block.Text, " ") {
				deltas = append(deltas, map[string]any{"type": "text_delta", "text": word})
			}
		}
		events = append(events, anthropicEvent("content_block_start", map[string]any{"index": i, "content_block": start}))
		for _, delta := range deltas {
			events = append(events, anthropicEvent("content_block_delta", map[string]any{"index": i, "delta": delta}))
		}
		events = append(events, anthropicEvent("content_block_stop", map[string]any{"index": i}))
	}
	if reason != "" {
		end = reason
	}
	return append(events,
		anthropicEvent("message_delta", map[string]any{
			"delta": map[string]any{"stop_reason": end}, "usage": map[string]any{"output_tokens": 7}}),
		anthropicEvent("message_stop", map[string]any{}))
}
