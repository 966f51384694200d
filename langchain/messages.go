package langchain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tmc/langchaingo/llms"
)

const functionType = "function"

// replay rewrites earlier calls: each becomes a message of its own, directly followed by its result. The Anthropic client
// sends only the first part of an assistant's message, and agents merge calls of different turns; OpenAI takes this form,
// too.
func replay(messages []llms.MessageContent) []llms.MessageContent {
	out := make([]llms.MessageContent, 0, len(messages))
	for i := 0; i < len(messages); i++ {
		message := messages[i]
		rest, calls := splitParts(message.Parts)
		if message.Role != llms.ChatMessageTypeAI || len(calls) == 0 {
			out = append(out, message)
			continue
		}
		var results []llms.ToolCallResponse
		for i+1 < len(messages) {
			more, ok := resultsOf(messages[i+1])
			if !ok {
				break
			}
			results = append(results, more...)
			i++
		}
		if len(rest) > 0 {
			out = append(out, llms.MessageContent{Role: llms.ChatMessageTypeAI, Parts: rest})
		}
		for _, call := range calls {
			call = replayCall(call)
			out = append(out, llms.MessageContent{Role: llms.ChatMessageTypeAI, Parts: []llms.ContentPart{call}})
			at := slices.IndexFunc(results, func(r llms.ToolCallResponse) bool { return r.ToolCallID == call.ID })
			if at < 0 {
				continue
			}
			result := results[at]
			results = slices.Delete(results, at, at+1)
			if result.Name == "" && call.FunctionCall != nil {
				result.Name = call.FunctionCall.Name
			}
			out = append(out, resultMessage(result))
		}
		for _, result := range results { // of no call: the provider may say what it thinks of that
			out = append(out, resultMessage(result))
		}
	}
	return out
}

func resultMessage(result llms.ToolCallResponse) llms.MessageContent {
	return llms.MessageContent{Role: llms.ChatMessageTypeTool, Parts: []llms.ContentPart{result}}
}

// splitParts separates the calls of a message from the rest of it, without blank texts.
func splitParts(parts []llms.ContentPart) (rest []llms.ContentPart, calls []llms.ToolCall) {
	for _, part := range parts {
		switch part := part.(type) {
		case llms.ToolCall:
			calls = append(calls, part)
		case llms.TextContent:
			if strings.TrimSpace(part.Text) != "" { // Anthropic refuses what is only space
				rest = append(rest, part)
			}
		default:
			rest = append(rest, part)
		}
	}
	return rest, calls
}

// resultsOf returns the results that a message holds, if it holds nothing else.
func resultsOf(message llms.MessageContent) ([]llms.ToolCallResponse, bool) {
	if message.Role != llms.ChatMessageTypeTool {
		return nil, false
	}
	results := make([]llms.ToolCallResponse, 0, len(message.Parts))
	for _, part := range message.Parts {
		result, ok := part.(llms.ToolCallResponse)
		if !ok {
			return nil, false
		}
		results = append(results, result)
	}
	return results, true
}

// replayCall gives a call a type, and the arguments back the JSON object from which the functions agent took a lone __arg1.
func replayCall(call llms.ToolCall) llms.ToolCall {
	if call.Type == "" {
		call.Type = functionType
	}
	if call.FunctionCall == nil {
		return call
	}
	f := *call.FunctionCall
	var object map[string]json.RawMessage
	if strings.TrimSpace(f.Arguments) == "" {
		f.Arguments = "{}"
	} else if json.Unmarshal([]byte(f.Arguments), &object) != nil || object == nil {
		wrapped, err := json.Marshal(map[string]string{"__arg1": f.Arguments})
		if err != nil {
			panic(err) // a map of strings
		}
		f.Arguments = string(wrapped)
	}
	call.FunctionCall = &f
	return call
}

// answer puts the parts of an answer together, unless they are alternatives to each other: the Anthropic client makes a
// choice of each part, and agents read only the first. It makes a new response: the given one may be a cache's.
func answer(response *llms.ContentResponse, alternatives bool) *llms.ContentResponse {
	choices := make([]*llms.ContentChoice, 0, len(response.Choices))
	for _, c := range response.Choices {
		if c == nil {
			continue
		}
		choice := *c
		choice.ToolCalls = slices.Clone(c.ToolCalls)
		for i := range choice.ToolCalls {
			if choice.ToolCalls[i].Type == "" {
				choice.ToolCalls[i].Type = functionType
			}
		}
		if len(choices) == 0 || alternatives {
			choices = append(choices, &choice)
			continue
		}
		add(choices[0], &choice)
	}
	return &llms.ContentResponse{Choices: choices}
}

// add puts the next part of an answer to what there is of it.
func add(whole, part *llms.ContentChoice) {
	whole.Content = join(whole.Content, part.Content)
	whole.ReasoningContent = join(whole.ReasoningContent, part.ReasoningContent)
	whole.ToolCalls = append(whole.ToolCalls, part.ToolCalls...)
	if whole.StopReason == "" {
		whole.StopReason = part.StopReason
	}
	if whole.FuncCall == nil {
		whole.FuncCall = part.FuncCall
	}
	info := map[string]any{}
	maps.Copy(info, part.GenerationInfo) // usage is that of the whole answer, in each part
	maps.Copy(info, whole.GenerationInfo)
	whole.GenerationInfo = info
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n" + b
}

var (
	errBrokenStream = fmt.Errorf("langchain: the model's stream broke off: %w", io.ErrUnexpectedEOF)
	errMixedCalls   = errors.New("langchain: the provider mixes its streamed tool calls; ask it without streaming")
)

// checkStreamed finds what the OpenAI client does not see in a stream: that it ended early, be it after an error that the
// provider reported in it, and that the arguments of several calls became those of one.
func checkStreamed(response *llms.ContentResponse) error {
	for _, choice := range response.Choices {
		// That client always has these two. A whole stream has a reason at its end, or usage after that.
		input, isInt := choice.GenerationInfo["PromptTokens"].(int)
		output, _ := choice.GenerationInfo["CompletionTokens"].(int)
		if isInt && input+output == 0 && choice.StopReason == "" {
			return errBrokenStream
		}
		for _, call := range choice.ToolCalls {
			if call.FunctionCall == nil {
				continue
			}
			var first json.RawMessage
			arguments := json.NewDecoder(strings.NewReader(call.FunctionCall.Arguments))
			if call.FunctionCall.Name == "" || arguments.Decode(&first) == nil && arguments.More() {
				return errMixedCalls
			}
		}
	}
	return nil
}

// onlySpeech keeps from streaming functions the parts of tool calls, which langchaingo's OpenAI client gives them as JSON in
// place of a text, and pieces of nothing.
func onlySpeech(o *llms.CallOptions) {
	if stream := o.StreamingFunc; stream != nil {
		o.StreamingFunc = func(ctx context.Context, piece []byte) error {
			if len(piece) == 0 || isCallPart(piece) {
				return nil
			}
			return stream(ctx, piece)
		}
	}
	if stream := o.StreamingReasoningFunc; stream != nil {
		o.StreamingReasoningFunc = func(ctx context.Context, reasoning, piece []byte) error {
			if isCallPart(piece) {
				piece = nil
			}
			if len(reasoning)+len(piece) == 0 {
				return nil
			}
			return stream(ctx, reasoning, piece)
		}
	}
}

// isCallPart reports whether a streamed piece is a list of parts of calls, and nothing but that.
func isCallPart(piece []byte) bool {
	var parts []struct {
		ID       string          `json:"id"`
		Type     string          `json:"type"`
		Function json.RawMessage `json:"function"`
	}
	if !bytes.HasPrefix(piece, []byte("[{")) {
		return false
	}
	list := json.NewDecoder(bytes.NewReader(piece))
	list.DisallowUnknownFields()
	if list.Decode(&parts) != nil || list.More() {
		return false
	}
	for _, part := range parts {
		if part.Function == nil {
			return false
		}
	}
	return true
}
