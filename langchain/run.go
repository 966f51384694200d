package langchain

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tmc/langchaingo/callbacks"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/schema"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/tool"
)

// Defaults of [RunParams].
const (
	DefaultMaxIterations = 10
	DefaultMaxParallel   = 8
)

// What ends a run that has no answer. The [RunResult] beside it says how far the run came.
var (
	ErrMaxIterations = errors.New("langchain: the model still calls tools after the last iteration")
	ErrMaxTokens     = errors.New("langchain: the run has used up its tokens")
	// ErrLength means that the model's answer was cut at its length: a call in it would be half a call.
	ErrLength = errors.New("langchain: the model's answer was cut at its length")
	// ErrRefused means that the model refused, or that the provider kept its answer back.
	ErrRefused = errors.New("langchain: the model refused to answer")
	// ErrNoAnswer means that the model gave neither text nor a call. Through langchaingo's OpenAI client a refusal looks like that.
	ErrNoAnswer = errors.New("langchain: the model's answer is empty")
)

// ended is what the model is told, should the conversation go on, of a call that ended the run or was ended with it.
const ended = `{"error":{"code":"RUN_ENDED","message":"the run ended; whether the call was made is not known"}}`

// RunParams describes a run of [Run].
type RunParams struct {
	// Messages begin the conversation; there must be at least one. Foreign text belongs into messages of the human and the
	// tool role.
	Messages []llms.MessageContent
	// Tools are what the model may call. Names must differ in more than case.
	Tools []*Tool
	// MaxIterations bounds how often the model is asked; default: DefaultMaxIterations.
	MaxIterations int
	// MaxTokens bounds the sum of the tokens that models report, sent and received; 0 is no bound. It is looked at after
	// each answer and the calls in it, so the last one may cross it.
	MaxTokens int
	// MaxParallel bounds how many calls of one answer run at the same time; default: DefaultMaxParallel.
	MaxParallel int
	// Stream, if set, is given the model's text piece by piece, also in turns that carry tools (see ToolModel.StreamWithTools).
	// Its error ends the run.
	Stream func(ctx context.Context, piece []byte) error
	// Options go with each call of the model, such as llms.WithTemperature.
	Options []llms.CallOption
}

// RunResult is what came of a run.
type RunResult struct {
	Text string // the model's last answer
	// Messages are the whole conversation, from the first message to the last answer, fit to go on with.
	Messages []llms.MessageContent
	Calls    []RunCall // in the order in which the model made them
	Usage    RunUsage
}

// RunCall is one call of a tool.
type RunCall struct {
	ID        string
	Tool      string // as the model named it
	Arguments string // as the model gave them
	tool.Outcome
}

// RunUsage sums what the models reported. What a provider does not report counts as nothing.
type RunUsage struct {
	ModelCalls   int
	InputTokens  int // what was sent, with what the provider has in its cache
	OutputTokens int
}

// Run is an agent's loop: it asks the model, runs the tools that it calls, tells it what they answered, and goes on until it
// answers without a call. It needs nothing of langchaingo's agents, and tells what their executor drops.
//
// The calls of one answer run at the same time, and are told in the order in which the model made them. A failure goes to
// the model or ends the run as the tool's policy says (see [tool.DefaultPolicy]); the first that ends it cancels the
// others. Run returns when all have returned, so nothing of it goes on afterwards. A tool that there is not is a failure
// for the model.
//
// The model is wrapped in [Model], unless it is a [*ToolModel] already, which may have a CallbacksHandler: that is told of
// the tool calls, one by one, and of the end as well.
//
// Run fails with [ErrMaxIterations], [ErrMaxTokens], [ErrLength], [ErrRefused] and [ErrNoAnswer]; with the error of the model
// or of a tool; and with the cause of the context's end, which in a Mission's context is why the Mission is over. The
// result is there also then. Only for parameters that make no sense, with a [*stack.ParamError], there is none.
func Run(ctx context.Context, model llms.Model, params RunParams) (*RunResult, error) {
	r, err := newRun(model, params)
	if err != nil {
		return nil, err
	}
	if err = r.loop(ctx); err != nil {
		r.handler.HandleChainError(ctx, err)
	}
	return &r.RunResult, err
}

// run is a run under way.
type run struct {
	RunParams
	RunResult
	model   *ToolModel
	handler callbacks.Handler
	set     *tool.Set
	options []llms.CallOption
}

func newRun(model llms.Model, params RunParams) (*run, error) {
	for _, n := range []struct {
		name  string
		value int
	}{{"max iterations", params.MaxIterations}, {"max tokens", params.MaxTokens}, {"max parallel", params.MaxParallel}} {
		if n.value < 0 {
			return nil, &stack.ParamError{Param: n.name, Reason: fmt.Sprintf("is %d; it must not be negative", n.value)}
		}
	}
	switch {
	case model == nil:
		return nil, &stack.ParamError{Param: "model", Reason: "is nil"}
	case len(params.Messages) == 0:
		return nil, &stack.ParamError{Param: "messages", Reason: "is empty; say what the model is to do"}
	}
	set, err := tool.NewSet(params.Tools...)
	if err != nil {
		return nil, &stack.ParamError{Param: "tools", Reason: err.Error()}
	}
	r := &run{RunParams: params, set: set, handler: callbacks.SimpleHandler{}}
	if r.MaxIterations == 0 {
		r.MaxIterations = DefaultMaxIterations
	}
	if r.MaxParallel == 0 {
		r.MaxParallel = DefaultMaxParallel
	}
	r.RunResult.Messages = slices.Clone(params.Messages)

	wrapped, ok := model.(*ToolModel)
	if !ok {
		wrapped = Model(model, params.Tools...)
	}
	r.model = wrapped
	if wrapped.CallbacksHandler != nil {
		r.handler = wrapped.CallbacksHandler
	}
	r.options = slices.Clone(params.Options)
	if len(params.Tools) > 0 {
		r.options = append(r.options, llms.WithTools(definitions(params.Tools)))
	}
	if params.Stream != nil {
		streaming := *wrapped // the caller's own keeps its setting
		streaming.StreamWithTools = true
		r.model = &streaming
		r.options = append(r.options, llms.WithStreamingFunc(params.Stream))
	}
	return r, nil
}

// definitions declare tools to a model.
func definitions(tools []*Tool) []llms.Tool {
	list := make([]llms.Tool, len(tools))
	for i, t := range tools {
		list[i] = llms.Tool{Type: functionType, Function: &llms.FunctionDefinition{Name: t.Name(), Description: t.Description(),
			Parameters: t.Parameters()}}
	}
	return list
}

func (r *run) loop(ctx context.Context) error {
	for range r.MaxIterations {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r.MaxTokens > 0 && r.Usage.InputTokens+r.Usage.OutputTokens >= r.MaxTokens {
			return ErrMaxTokens
		}
		choice, err := r.ask(ctx)
		if err != nil {
			return err
		}
		if len(choice.ToolCalls) == 0 {
			if r.Text = choice.Content; strings.TrimSpace(r.Text) == "" {
				return ErrNoAnswer
			}
			r.handler.HandleAgentFinish(ctx, schema.AgentFinish{ReturnValues: map[string]any{"output": r.Text}})
			return nil
		}
		if err = r.call(ctx, choice.ToolCalls); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return ErrMaxIterations
}

// ask asks the model for its next message, and takes that into the conversation.
func (r *run) ask(ctx context.Context) (*llms.ContentChoice, error) {
	response, err := r.model.GenerateContent(ctx, r.RunResult.Messages, r.options...)
	if err != nil {
		return nil, err
	}
	r.Usage.ModelCalls++
	if response == nil || len(response.Choices) == 0 {
		return nil, ErrNoAnswer
	}
	choice := response.Choices[0]
	input, output := tokens(choice)
	r.Usage.InputTokens += input
	r.Usage.OutputTokens += output

	message := llms.MessageContent{Role: llms.ChatMessageTypeAI}
	if choice.Content != "" {
		message.Parts = append(message.Parts, llms.TextContent{Text: choice.Content})
	}
	if err = unfinished(choice.StopReason); err == nil {
		for i := range choice.ToolCalls {
			if choice.ToolCalls[i].ID == "" { // a result must say of which call it is
				choice.ToolCalls[i].ID = fmt.Sprintf("call_%d", len(r.Calls)+i+1)
			}
			message.Parts = append(message.Parts, choice.ToolCalls[i])
		}
	}
	if len(message.Parts) > 0 {
		r.RunResult.Messages = append(r.RunResult.Messages, message)
	}
	if err != nil {
		r.Text = choice.Content
	}
	return choice, err
}

// unfinished says what is wrong with an answer that ended for the reason. Each provider has words of its own.
func unfinished(reason string) error {
	switch strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(reason), "finishreason"), "_", "") {
	case "length", "maxtokens", "modellength", "modelcontextwindowexceeded":
		return ErrLength
	case "contentfilter", "contentfiltered", "refusal", "safety", "recitation", "guardrailintervened":
		return ErrRefused
	}
	return nil
}

// tokens are what an answer used. langchaingo's clients name them each in their way. OpenAI counts what comes from its cache
// as sent, Anthropic counts it apart.
func tokens(choice *llms.ContentChoice) (input, output int) {
	of := func(name string) int {
		switch n := choice.GenerationInfo[name].(type) {
		case int:
			return n
		case int32: // Google's
			return int(n)
		}
		return 0
	}
	input = cmp.Or(of("PromptTokens"), of("input_tokens"))
	if _, apart := choice.GenerationInfo["InputTokens"]; apart {
		input = of("InputTokens") + of("CacheReadInputTokens") + of("CacheCreationInputTokens")
	}
	return input, cmp.Or(of("CompletionTokens"), of("OutputTokens"), of("output_tokens"))
}

// call runs the calls of one answer and takes their results into the conversation.
func (r *run) call(ctx context.Context, calls []llms.ToolCall) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	outcomes := make([]RunCall, len(calls))
	turn := make(chan struct{}, r.MaxParallel)
	var (
		running sync.WaitGroup
		once    sync.Once
		fatal   error // the failure that came first
	)
	for i, call := range calls {
		turn <- struct{}{}
		action := schema.AgentAction{ToolID: call.ID}
		if call.FunctionCall != nil {
			action.Tool, action.ToolInput = call.FunctionCall.Name, call.FunctionCall.Arguments
		}
		r.handler.HandleAgentAction(ctx, action)
		running.Go(func() {
			defer func() { <-turn }()
			if outcomes[i] = r.one(ctx, action); outcomes[i].Abort {
				once.Do(func() { fatal = outcomes[i].Err })
				cancel(outcomes[i].Err)
			}
		})
	}
	running.Wait()
	r.Calls = append(r.Calls, outcomes...)
	for _, outcome := range outcomes {
		result := llms.ToolCallResponse{ToolCallID: outcome.ID, Name: outcome.Tool, Content: outcome.Output}
		if outcome.Abort {
			result.Content = ended
		}
		r.RunResult.Messages = append(r.RunResult.Messages, resultMessage(result))
	}
	return fatal
}

// one runs one call.
func (r *run) one(ctx context.Context, call schema.AgentAction) RunCall {
	made := RunCall{ID: call.ToolID, Tool: call.Tool, Arguments: call.ToolInput}
	t, ok := r.set.Get(made.Tool)
	if ok {
		made.Outcome = t.Do(ctx, made.Arguments)
		return made
	}
	if ctx.Err() != nil {
		made.Err, made.Abort = context.Cause(ctx), true
		return made
	}
	names := make([]string, 0, len(r.Tools))
	for _, known := range r.Tools {
		names = append(names, known.Name())
	}
	made.Err = fmt.Errorf("there is no tool %q; the tools are %s", made.Tool, strings.Join(names, ", "))
	text, err := json.Marshal(map[string]any{"error": map[string]string{"code": "UNKNOWN_TOOL", "message": made.Err.Error()}})
	if err != nil {
		panic(err) // strings always encode
	}
	made.Output = string(text)
	return made
}
