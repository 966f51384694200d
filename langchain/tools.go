package langchain

import (
	"context"
	"time"

	"github.com/tmc/langchaingo/callbacks"

	"github.com/getstack-go/stack/tool"
)

// Tool is a typed tool. It satisfies langchaingo's tools.Tool.
type Tool = tool.Tool

// Endpoint is the one request that a proxy tool makes.
type Endpoint = tool.Endpoint

// NewTool makes a tool of a Go function. It is [tool.New].
func NewTool[In, Out any](
	name, description string, fn func(ctx context.Context, in In) (Out, error), opts ...tool.Option,
) (*Tool, error) {
	return tool.New(name, description, fn, opts...)
}

// ProxyTool makes a tool of one HTTP request through the credential proxy; p is usually a *stack.Mission. It is
// [tool.ProxyTool].
func ProxyTool[In any](name, description string, p tool.Proxier, e Endpoint, opts ...tool.Option) (*Tool, error) {
	return tool.ProxyTool[In](name, description, p, e, opts...)
}

// GuardParams say what becomes of a tool's answer by what the scan says of it.
type GuardParams = tool.GuardParams

// Guard makes a tool whose answers are scanned for prompt injection before a model sees them; scanner is usually the
// client's Scan service. It is [tool.Guard].
func Guard(t *Tool, scanner tool.Scanner, params GuardParams) (*Tool, error) {
	return tool.Guard(t, scanner, params)
}

// Must returns t and panics if err is not nil; it is for package variables: langchain.Must(langchain.NewTool(...)).
func Must(t *Tool, err error) *Tool { return tool.Must(t, err) }

// As returns the tools as a slice of T, for what []tools.Tool{a, b} cannot say: langchain.As[tools.Tool](set.All()...). It
// panics when T is not an interface that *Tool satisfies.
func As[T any](tools ...*Tool) []T {
	list := make([]T, len(tools))
	for i, t := range tools {
		list[i] = any(t).(T)
	}
	return list
}

// toolCall is what a tool's callbacks find in their context.
type toolCall struct {
	name    string
	start   time.Time
	failure error // what the model was told of, for HandleToolEnd
}

type toolCallKey struct{}

// WithHandler calls HandleToolStart before each call of the tool, and after it either HandleToolError, when the call ends
// the run, or HandleToolEnd with what the model is given, be it a result or a failure it can act on. Nothing else in
// langchaingo makes these calls.
func WithHandler(handler callbacks.Handler) tool.Option {
	if handler == nil {
		return tool.WithHook(nil) // refused by the constructor
	}
	return tool.WithHook(func(ctx context.Context, name, input string) (context.Context, func(tool.Outcome)) {
		call := &toolCall{name: name, start: time.Now()}
		ctx = context.WithValue(ctx, toolCallKey{}, call)
		handler.HandleToolStart(ctx, input)
		return ctx, func(out tool.Outcome) {
			if out.Abort {
				handler.HandleToolError(ctx, out.Err)
				return
			}
			call.failure = out.Err
			handler.HandleToolEnd(ctx, out.Output)
		}
	})
}
