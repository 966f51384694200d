package langchain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tmc/langchaingo/callbacks"
	"github.com/tmc/langchaingo/llms"
)

// ToolModel is a language model made fit for typed tools; see [Model]. It is safe for concurrent use when the model inside
// it is. Set its fields before the first call.
type ToolModel struct {
	// CallbacksHandler, if set, is told of the start and end of each model call and of each failure; some of langchaingo's
	// clients report only a part of that. Give a handler to this model or to the one inside. A [Handler] may be given to both.
	CallbacksHandler callbacks.Handler

	// StreamWithTools lets calls that carry tools stream. It is off because langchaingo's OpenAI client joins streamed tool
	// calls without looking at which is which, which some providers mix; what shows that they were is an error then. The
	// streaming function is given what the model says, not its tool calls. Calls without tools stream as they are asked to.
	StreamWithTools bool

	inner      llms.Model
	parameters map[string]func() map[string]any // schemas by tool name
	err        error                            // a mistake in the arguments of Model, returned by each call
}

var _ llms.Model = (*ToolModel)(nil)

// Model wraps a language model for use with tools, in langchaingo's own agents or alone. Tools may be *Tool or any other
// type with a name, such as langchaingo's tools.Tool; the schema is that of the method Parameters() map[string]any, and a
// tool without one keeps what the agent declares.
//
// On the way in, functions are declared as tools, with their real schemas, and earlier calls are replayed in a form that
// OpenAI and Anthropic both take. On the way out, the parts of one answer are put together. A call whose context is done
// fails with [context.Cause] of it, whatever the client made of that, so a run on a Mission's context ends with the
// Mission's error. A stream that breaks off, which the OpenAI client takes for an answer, fails with io.ErrUnexpectedEOF.
//
// Every call fails when inner is nil or two tools have names that are equal without regard to case, since agents would
// call the later one for both.
func Model[T interface{ Name() string }](inner llms.Model, tools ...T) *ToolModel {
	m := &ToolModel{inner: inner, parameters: map[string]func() map[string]any{}}
	if inner == nil {
		m.err = errors.New("langchain: the model to wrap is nil")
	}
	seen := map[string]string{}
	for _, t := range tools {
		name := t.Name()
		if other, ok := seen[strings.ToUpper(name)]; ok {
			m.err = fmt.Errorf("langchain: the tool names %q and %q differ in case at most", other, name)
		}
		seen[strings.ToUpper(name)] = name
		if typed, ok := any(t).(interface{ Parameters() map[string]any }); ok {
			m.parameters[name] = typed.Parameters
		}
	}
	return m
}

// modelCall is what the callbacks of one model call find in their context.
type modelCall struct {
	start        time.Time
	begun, ended atomic.Bool // whether a Handler has logged it; the client inside may report it, too
}

type modelCallKey struct{}

// Call asks for the answer to a single prompt.
//
// Deprecated: langchaingo keeps it for compatibility. Use GenerateContent.
func (m *ToolModel) Call(ctx context.Context, prompt string, options ...llms.CallOption) (string, error) {
	return llms.GenerateFromSinglePrompt(ctx, m, prompt, options...)
}

// GenerateContent asks the model inside for the next message; see [Model] for what it mends.
func (m *ToolModel) GenerateContent(
	ctx context.Context, messages []llms.MessageContent, options ...llms.CallOption,
) (*llms.ContentResponse, error) {
	if m.err != nil {
		return nil, m.err
	}
	messages = replay(messages)
	handler := m.CallbacksHandler
	if handler == nil {
		handler = callbacks.SimpleHandler{}
	}
	ctx = context.WithValue(ctx, modelCallKey{}, &modelCall{start: time.Now()})

	handler.HandleLLMGenerateContentStart(ctx, messages)
	response, err := m.generate(ctx, messages, options)
	if err != nil {
		handler.HandleLLMError(ctx, err)
		return nil, err
	}
	handler.HandleLLMGenerateContentEnd(ctx, response)
	return response, nil
}

func (m *ToolModel) generate(
	ctx context.Context, messages []llms.MessageContent, options []llms.CallOption,
) (*llms.ContentResponse, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var alternatives, streamed bool // alternatives: several choices are several answers
	last := func(o *llms.CallOptions) {
		m.declare(o)
		alternatives = o.N > 1 || o.CandidateCount > 1
		streamed = o.StreamingFunc != nil || o.StreamingReasoningFunc != nil
	}
	response, err := m.inner.GenerateContent(ctx, messages, append(slices.Clip(options), last)...)
	if ctx.Err() != nil { // clients return a text for it, or half an answer without an error
		return nil, context.Cause(ctx)
	}
	if err != nil || response == nil {
		return response, err
	}
	response = answer(response, alternatives)
	if streamed {
		err = checkStreamed(response)
	}
	if err != nil {
		return nil, err
	}
	return response, nil
}

// declare turns functions into tools and gives those it knows their schema. Slices behind the options are shared, so it
// makes new ones.
func (m *ToolModel) declare(o *llms.CallOptions) {
	tools := make([]llms.Tool, 0, len(o.Functions)+len(o.Tools))
	for _, f := range o.Functions {
		tools = append(tools, llms.Tool{Type: functionType, Function: &f})
	}
	tools = append(tools, o.Tools...)
	for i, t := range tools {
		if t.Function == nil {
			continue
		}
		if parameters, ok := m.parameters[t.Function.Name]; ok {
			known := *t.Function
			known.Parameters = parameters()
			tools[i].Function = &known
		}
	}
	o.Functions = nil
	if o.ToolChoice == nil && o.FunctionCallBehavior != "" {
		o.ToolChoice = string(o.FunctionCallBehavior)
	}
	o.FunctionCallBehavior = ""
	if o.Tools = nil; len(tools) > 0 {
		o.Tools = tools
		if !m.StreamWithTools {
			o.StreamingFunc, o.StreamingReasoningFunc = nil, nil
		}
		onlySpeech(o)
	}
}
