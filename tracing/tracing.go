// Package tracing makes OpenTelemetry spans of an agent's run, after the semantic conventions for generative AI: one span for
// the run (invoke_agent), and in it one for each model call (chat), each tool call (execute_tool) and each proxied request.
// Every span names the Mission and the passport, so that a trace and the audit log can be laid side by side.
//
//	tracer := tracing.New(otel.GetTracerProvider(), mission, "triage")
//	ctx, end := tracer.Start(mission.Context())
//	defer end(&err)
//	model := langchain.Model(tracer.Model(llm, "openai", "gpt-4o"), ts...)
//	post, err := langchain.ProxyTool[PostIn]("slack_post", "…", tracer.Proxier(), endpoint, tool.WithHook(tracer.Hook()))
//
// Spans hold names, counts, statuses and codes. They never hold what models, tools and services said and were told, the
// path or query of a URL, the text of an error, or a token.
//
// It is a module of its own, for those who use OpenTelemetry.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/tmc/langchaingo/llms"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/tool"
)

// Attributes that the semantic conventions do not have.
const (
	MissionIDKey   = attribute.Key("stack.mission.id")
	PassportJTIKey = attribute.Key("stack.passport.jti")
	ServiceKey     = attribute.Key("stack.service")      // provider key of a proxied request's service
	OperationIDKey = attribute.Key("stack.operation.id") // of a proxied write
)

// Tracer makes the spans of one Mission. It is safe for concurrent use.
type Tracer struct {
	tracer  trace.Tracer
	mission *stack.Mission
	agent   string
}

// New makes a tracer for the Mission's run by the agent of the given name. It panics when the provider or the Mission is nil.
func New(provider trace.TracerProvider, mission *stack.Mission, agentName string) *Tracer {
	if provider == nil || mission == nil {
		panic("tracing: New needs a tracer provider and a Mission")
	}
	return &Tracer{mission: mission, agent: agentName, tracer: provider.Tracer("github.com/getstack-go/stack/tracing",
		trace.WithInstrumentationVersion(stack.Version), trace.WithSchemaURL(semconv.SchemaURL))}
}

func (t *Tracer) start(
	ctx context.Context, name string, kind trace.SpanKind, attrs ...attribute.KeyValue,
) (context.Context, trace.Span) {
	attrs = append(attrs, MissionIDKey.String(t.mission.ID()), PassportJTIKey.String(t.mission.JTI()),
		semconv.GenAIAgentID(t.mission.AgentID()))
	return t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
}

// finish ends a span; an error gives it a status and its kind, never its text.
func finish(span trace.Span, err error) {
	if err != nil {
		kind := errorType(err)
		span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		span.SetStatus(codes.Error, kind)
	}
	span.End()
}

// errorType is the code of an API's refusal, and else the type of an error.
func errorType(err error) string {
	var refused *stack.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, &refused) && refused.Code != "":
		return refused.Code
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return strings.TrimPrefix(fmt.Sprintf("%T", err), "*")
		}
		err = inner
	}
}

// Start begins the span of the run, and returns the context for all that happens in it. end ends it, with the error that err
// points to, if any; it may be deferred directly.
func (t *Tracer) Start(ctx context.Context) (run context.Context, end func(err *error)) {
	name := strings.TrimSpace("invoke_agent " + t.agent)
	attrs := []attribute.KeyValue{semconv.GenAIOperationNameInvokeAgent}
	if t.agent != "" {
		attrs = append(attrs, semconv.GenAIAgentName(t.agent))
	}
	run, span := t.start(ctx, name, trace.SpanKindInternal, attrs...)
	return run, func(err *error) {
		if err == nil {
			err = new(error)
		}
		finish(span, *err)
	}
}

// Hook makes a span for each call of a tool that is made with it; see [tool.WithHook]. A failure of which the model is told
// is one of the span, too.
func (t *Tracer) Hook() tool.Hook {
	return func(ctx context.Context, name, _ string) (context.Context, func(tool.Outcome)) {
		ctx, span := t.start(ctx, "execute_tool "+name, trace.SpanKindInternal, semconv.GenAIOperationNameExecuteTool,
			semconv.GenAIToolName(name), semconv.GenAIToolType("function"))
		return ctx, func(out tool.Outcome) { finish(span, out.Err) }
	}
}

// Proxier is the Mission's proxy, with a span for each request.
func (t *Tracer) Proxier() tool.Proxier { return proxier{t} }

type proxier struct{ tracer *Tracer }

func (p proxier) Proxy(ctx context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
	method := strings.ToUpper(r.Method)
	if method == "" {
		method = "GET"
	}
	attrs := []attribute.KeyValue{ServiceKey.String(r.Service), semconv.HTTPRequestMethodKey.String(method)}
	if u, err := url.Parse(r.URL); err == nil {
		attrs = append(attrs, semconv.ServerAddress(u.Hostname()))
	}
	ctx, span := p.tracer.start(ctx, method+" "+r.Service, trace.SpanKindClient, attrs...)
	response, err := p.tracer.mission.Proxy(ctx, r)
	if response != nil {
		span.SetAttributes(semconv.HTTPResponseStatusCode(response.Status))
		if response.OperationID != "" {
			span.SetAttributes(OperationIDKey.String(response.OperationID))
		}
		if !response.OK() && err == nil {
			span.SetAttributes(semconv.ErrorTypeKey.String(fmt.Sprint(response.Status)))
			span.SetStatus(codes.Error, "")
		}
	}
	finish(span, err)
	return response, err
}

// Model wraps a language model, with a span for each call. Provider is its provider's name after the conventions, such as openai
// or anthropic, and name the model that it asks for when a call does not say. Wrap the provider's client, and
// what changes calls around it: langchain.Model(tracer.Model(llm, "openai", "gpt-4o"), tools...).
func (t *Tracer) Model(inner llms.Model, provider, name string) llms.Model {
	return &model{t, inner, provider, name}
}

type model struct {
	tracer         *Tracer
	inner          llms.Model
	provider, name string
}

// Call asks for the answer to a single prompt.
//
// Deprecated: langchaingo keeps it for compatibility. Use GenerateContent.
func (m *model) Call(ctx context.Context, prompt string, options ...llms.CallOption) (string, error) {
	return llms.GenerateFromSinglePrompt(ctx, m, prompt, options...)
}

func (m *model) GenerateContent(
	ctx context.Context, messages []llms.MessageContent, options ...llms.CallOption,
) (*llms.ContentResponse, error) {
	asked := llms.CallOptions{Model: m.name}
	for _, option := range options {
		option(&asked)
	}
	attrs := []attribute.KeyValue{semconv.GenAIOperationNameChat, semconv.GenAIProviderNameKey.String(m.provider),
		semconv.GenAIRequestModel(asked.Model)}
	if asked.MaxTokens > 0 {
		attrs = append(attrs, semconv.GenAIRequestMaxTokens(asked.MaxTokens))
	}
	ctx, span := m.tracer.start(ctx, strings.TrimSpace("chat "+asked.Model), trace.SpanKindClient, attrs...)
	response, err := m.inner.GenerateContent(ctx, messages, options...)
	if response != nil {
		span.SetAttributes(answered(response)...)
	}
	finish(span, err)
	return response, err
}

// answered is what a span says of an answer.
func answered(response *llms.ContentResponse) (attrs []attribute.KeyValue) {
	var reasons []string
	for _, choice := range response.Choices {
		if choice != nil && choice.StopReason != "" {
			reasons = append(reasons, choice.StopReason)
		}
	}
	if len(reasons) > 0 {
		attrs = append(attrs, semconv.GenAIResponseFinishReasons(reasons...))
	}
	if len(response.Choices) == 0 || response.Choices[0] == nil {
		return attrs
	}
	// Each choice has the usage of the whole answer. OpenAI's and Anthropic's clients name it each in their way.
	info := response.Choices[0].GenerationInfo
	for _, key := range []string{"PromptTokens", "InputTokens"} {
		if n, ok := info[key].(int); ok {
			attrs = append(attrs, semconv.GenAIUsageInputTokens(n))
		}
	}
	for _, key := range []string{"CompletionTokens", "OutputTokens"} {
		if n, ok := info[key].(int); ok {
			attrs = append(attrs, semconv.GenAIUsageOutputTokens(n))
		}
	}
	return attrs
}
