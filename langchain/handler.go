package langchain

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/tmc/langchaingo/callbacks"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/schema"

	"github.com/getstack-go/stack/tool"
)

// Handler logs model calls, agent actions, tool calls and failures of a run to slog: durations, tokens, sizes, names and
// call ids, no contents. It only logs: proxied calls are recorded by the Mission itself, and a second record would count
// them twice.
//
// One handler may be given to the model, the executor and the tools, see [ToolModel], agents.WithCallbacksHandler and
// [WithHandler]; each thing is logged once. It is safe for concurrent use.
type Handler struct {
	callbacks.SimpleHandler // what is not logged

	// Contents adds what models and tools said and were told, which may be private. Set it before the first run.
	Contents bool

	logger *slog.Logger
}

var _ callbacks.Handler = (*Handler)(nil)

// NewHandler makes a handler that logs to logger, or to [slog.Default] when it is nil. Give it a logger that names the
// Mission: logger.With("mission_id", id).
func NewHandler(logger *slog.Logger) *Handler {
	if logger == nil {
		logger = slog.Default()
	}
	return &Handler{logger: logger}
}

// content is an attribute for the size of a text, and for the text itself if it may be shown.
func (h *Handler) content(key, text string) slog.Attr {
	if h.Contents {
		return slog.String(key, text)
	}
	return slog.Int(key+"_bytes", len(text))
}

// failure is an attribute for an error. That of wrong arguments quotes them.
func (h *Handler) failure(err error) slog.Attr {
	var argument *tool.ArgumentError
	if errors.As(err, &argument) && !h.Contents {
		return slog.String("error", "invalid arguments")
	}
	return slog.String("error", err.Error())
}

func took(start time.Time) slog.Attr { return slog.Duration("duration", time.Since(start)) }

// HandleLLMGenerateContentStart logs at debug level what a model is asked.
func (h *Handler) HandleLLMGenerateContentStart(ctx context.Context, messages []llms.MessageContent) {
	if call, ok := ctx.Value(modelCallKey{}).(*modelCall); ok && call.begun.Swap(true) {
		return
	}
	if !h.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	var text strings.Builder
	for _, message := range messages {
		for _, part := range message.Parts {
			switch part := part.(type) {
			case llms.TextContent:
				text.WriteString(part.Text + "\n")
			case llms.ToolCallResponse:
				text.WriteString(part.Content + "\n")
			}
		}
	}
	h.logger.LogAttrs(ctx, slog.LevelDebug, "model asked",
		slog.Int("messages", len(messages)), h.content("text", text.String()))
}

// HandleLLMGenerateContentEnd logs a model's answer.
func (h *Handler) HandleLLMGenerateContentEnd(ctx context.Context, response *llms.ContentResponse) {
	var attrs []slog.Attr
	if call, ok := ctx.Value(modelCallKey{}).(*modelCall); ok {
		if call.ended.Swap(true) {
			return
		}
		attrs = append(attrs, took(call.start))
	}
	if response != nil && len(response.Choices) > 0 && response.Choices[0] != nil {
		choice := response.Choices[0]
		attrs = append(attrs, h.content("text", choice.Content), slog.Int("tool_calls", len(choice.ToolCalls)),
			slog.String("stop_reason", choice.StopReason))
		input, output := tokens(choice)
		if input+output > 0 {
			attrs = append(attrs, slog.Int("input_tokens", input), slog.Int("output_tokens", output))
		}
	}
	h.logger.LogAttrs(ctx, slog.LevelInfo, "model answered", attrs...)
}

// HandleLLMError logs the failure of a model call.
func (h *Handler) HandleLLMError(ctx context.Context, err error) {
	var attrs []slog.Attr
	if call, ok := ctx.Value(modelCallKey{}).(*modelCall); ok {
		if call.ended.Swap(true) {
			return
		}
		attrs = append(attrs, took(call.start))
	}
	h.logger.LogAttrs(ctx, slog.LevelError, "model call failed", append(attrs, h.failure(err))...)
}

// HandleAgentAction logs that an agent is about to call a tool. It alone knows the id of the call.
func (h *Handler) HandleAgentAction(ctx context.Context, action schema.AgentAction) {
	h.logger.LogAttrs(ctx, slog.LevelInfo, "agent calls tool",
		slog.String("tool", action.Tool), slog.String("call_id", action.ToolID), h.content("input", action.ToolInput))
}

// HandleAgentFinish logs that an agent has its answer.
func (h *Handler) HandleAgentFinish(ctx context.Context, finish schema.AgentFinish) {
	output, _ := finish.ReturnValues["output"].(string)
	h.logger.LogAttrs(ctx, slog.LevelInfo, "agent finished", h.content("output", output))
}

// HandleToolEnd logs what the model is given by a tool, as a warning when that is a failure.
func (h *Handler) HandleToolEnd(ctx context.Context, output string) {
	var attrs []slog.Attr
	level := slog.LevelInfo
	if call, ok := ctx.Value(toolCallKey{}).(*toolCall); ok {
		attrs = append(attrs, slog.String("tool", call.name), took(call.start))
		if call.failure != nil {
			level = slog.LevelWarn
			attrs = append(attrs, h.failure(call.failure))
		}
	}
	h.logger.LogAttrs(ctx, level, "tool answered", append(attrs, h.content("output", output))...)
}

// HandleToolError logs a failure of a tool that ends the run.
func (h *Handler) HandleToolError(ctx context.Context, err error) {
	var attrs []slog.Attr
	if call, ok := ctx.Value(toolCallKey{}).(*toolCall); ok {
		attrs = append(attrs, slog.String("tool", call.name), took(call.start))
	}
	h.logger.LogAttrs(ctx, slog.LevelError, "tool ended the run", append(attrs, h.failure(err))...)
}

// HandleChainError logs that a run failed, and with what.
func (h *Handler) HandleChainError(ctx context.Context, err error) {
	h.logger.LogAttrs(ctx, slog.LevelError, "run failed", h.failure(err))
}
