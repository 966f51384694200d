// Package scripted is a language model that gives prepared answers, so that the examples need neither a provider nor a key.
package scripted

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/tmc/langchaingo/llms"
)

// Model gives its answers one after the other, whatever it is asked. It is safe for concurrent use.
type Model struct {
	mu      sync.Mutex
	answers []*llms.ContentChoice
}

// New makes a model with the answers.
func New(answers ...*llms.ContentChoice) *Model { return &Model{answers: answers} }

// Then adds an answer, and returns the model.
func (m *Model) Then(answer *llms.ContentChoice) *Model {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers = append(m.answers, answer)
	return m
}

// Calls is an answer that asks for one call of a tool.
func Calls(tool string, arguments any) *llms.ContentChoice {
	text, err := json.Marshal(arguments)
	if err != nil {
		panic(err) // a mistake in the script
	}
	return &llms.ContentChoice{StopReason: "tool_calls", ToolCalls: []llms.ToolCall{{ID: "call_1", Type: "function",
		FunctionCall: &llms.FunctionCall{Name: tool, Arguments: string(text)}}}}
}

// Says is an answer that ends a run.
func Says(text string) *llms.ContentChoice {
	return &llms.ContentChoice{Content: text, StopReason: "stop"}
}

// GenerateContent gives the next answer, and an error when there is none left.
func (m *Model) GenerateContent(
	ctx context.Context, _ []llms.MessageContent, _ ...llms.CallOption,
) (*llms.ContentResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(m.answers) == 0 {
		return nil, errors.New("the script has no more answers")
	}
	next := m.answers[0]
	m.answers = m.answers[1:]
	return &llms.ContentResponse{Choices: []*llms.ContentChoice{next}}, nil
}

// Call asks for the answer to a single prompt.
//
// Deprecated: langchaingo keeps it for compatibility. Use GenerateContent.
func (m *Model) Call(ctx context.Context, prompt string, options ...llms.CallOption) (string, error) {
	return llms.GenerateFromSinglePrompt(ctx, m, prompt, options...)
}
