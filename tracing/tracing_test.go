package tracing_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/llms"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
	"github.com/getstack-go/stack/tool"
	"github.com/getstack-go/stack/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a model that gives one answer.
type scripted struct {
	answer *llms.ContentResponse
	err    error
}

func (m scripted) GenerateContent(context.Context, []llms.MessageContent, ...llms.CallOption) (*llms.ContentResponse, error) {
	return m.answer, m.err
}

func (m scripted) Call(context.Context, string, ...llms.CallOption) (string, error) { return "", nil }

const private = "canary-0f1e2d"

type postIn struct {
	Channel string `json:"channel"`
	Text    string `json:"text"`
}

// stage is a Mission whose spans are kept.
type stage struct {
	*stacktest.Server
	mission *stack.Mission
	tracer  *tracing.Tracer
	spans   *tracetest.SpanRecorder
}

func newStage(t *testing.T) *stage {
	t.Helper()
	srv := stacktest.New(t)
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = fmt.Fprintf(w, `{"said":%q}`, private)
	}))
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	mission, err := srv.Client().Passports.Mission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Post",
		Services: []string{"slack"}})
	require.NoError(t, err)
	t.Cleanup(func() { mission.Close(new(error)) })
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	return &stage{Server: srv, mission: mission, spans: spans, tracer: tracing.New(provider, mission, "triage")}
}

// span finds the one span of a name that has ended.
func (s *stage) span(t *testing.T, name string) (sdktrace.ReadOnlySpan, map[string]any) {
	t.Helper()
	var found sdktrace.ReadOnlySpan
	for _, span := range s.spans.Ended() {
		if span.Name() == name {
			require.Nil(t, found, "two spans are called %s", name)
			found = span
		}
	}
	require.NotNil(t, found, "no span is called %s", name)
	attrs := map[string]any{}
	for _, attr := range found.Attributes() {
		attrs[string(attr.Key)] = attr.Value.AsInterface()
	}
	assert.Equal(t, s.mission.ID(), attrs["stack.mission.id"], name)
	assert.Equal(t, s.mission.JTI(), attrs["stack.passport.jti"], name)
	assert.Equal(t, s.mission.AgentID(), attrs["gen_ai.agent.id"], name)
	for _, key := range []string{"stack.mission.id", "stack.passport.jti", "gen_ai.agent.id"} {
		delete(attrs, key)
	}
	return found, attrs
}

// One span for the run, and in it one for each model call, tool call and request.
func TestRun(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	post, err := tool.ProxyTool[postIn]("slack_post", "Post.", s.tracer.Proxier(), tool.Endpoint{Service: "slack", Method: "POST",
		URL: "https://slack.com/api/{channel}?text={text}"}, tool.WithHook(s.tracer.Hook()))
	require.NoError(t, err)
	model := s.tracer.Model(scripted{answer: &llms.ContentResponse{Choices: []*llms.ContentChoice{{Content: private, StopReason: "stop",
		GenerationInfo: map[string]any{"PromptTokens": 11, "CompletionTokens": 7}}}}}, "openai", "gpt-4o")

	ctx, end := s.tracer.Start(s.mission.Context())
	_, err = model.GenerateContent(ctx, []llms.MessageContent{llms.TextParts(llms.ChatMessageTypeHuman, private)},
		llms.WithModel("gpt-4o-mini"), llms.WithMaxTokens(100))
	require.NoError(t, err)
	answer, err := post.Call(ctx, `{"channel":"chat.`+private+`","text":"`+private+`"}`)
	require.NoError(t, err)
	require.Contains(t, answer, private, "the tool works as ever")
	end(&err)

	run, attrs := s.span(t, "invoke_agent triage")
	assert.Equal(t, map[string]any{"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "triage"}, attrs)
	assert.False(t, run.Parent().IsValid())
	chat, attrs := s.span(t, "chat gpt-4o-mini")
	assert.Equal(t, map[string]any{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
		"gen_ai.request.model": "gpt-4o-mini", "gen_ai.request.max_tokens": int64(100), "gen_ai.usage.input_tokens": int64(11),
		"gen_ai.usage.output_tokens": int64(7), "gen_ai.response.finish_reasons": []string{"stop"}}, attrs)
	assert.Equal(t, run.SpanContext().SpanID(), chat.Parent().SpanID())
	execute, attrs := s.span(t, "execute_tool slack_post")
	assert.Equal(t, map[string]any{"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "slack_post",
		"gen_ai.tool.type": "function"}, attrs)
	assert.Equal(t, run.SpanContext().SpanID(), execute.Parent().SpanID())
	request, attrs := s.span(t, "POST slack")
	assert.NotEmpty(t, attrs["stack.operation.id"])
	delete(attrs, "stack.operation.id")
	assert.Equal(t, map[string]any{"stack.service": "slack", "http.request.method": "POST", "server.address": "slack.com",
		"http.response.status_code": int64(200)}, attrs)
	assert.Equal(t, execute.SpanContext().SpanID(), request.Parent().SpanID())
	s.nothingPrivate(t)
}

// nothingPrivate looks for what the spans must not have.
func (s *stage) nothingPrivate(t *testing.T) {
	t.Helper()
	token, err := s.mission.Token(t.Context())
	require.NoError(t, err)
	for _, span := range tracetest.SpanStubsFromReadOnlySpans(s.spans.Ended()) {
		text, err := json.Marshal(span)
		require.NoError(t, err)
		for _, secret := range []string{private, token.Reveal(), stacktest.DefaultCredential, s.APIKey()} {
			assert.NotContains(t, string(text), secret, span.Name)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	wants := func(name, kind string) {
		t.Helper()
		span, attrs := s.span(t, name)
		assert.Equal(t, kind, attrs["error.type"], name)
		assert.Equal(t, codes.Error, span.Status().Code, name)
		assert.NotContains(t, span.Status().Description, private)
	}
	ctx, end := s.tracer.Start(t.Context())
	failing, err := tool.New("failing", "Fail.", func(context.Context, struct{}) (string, error) { return "", errors.New(private) },
		tool.WithHook(s.tracer.Hook()))
	require.NoError(t, err)
	_, err = failing.Call(ctx, "")
	require.NoError(t, err, "the model is told")
	wants("execute_tool failing", "errors.errorString")

	_, err = s.tracer.Model(scripted{err: fmt.Errorf("%s: %w", private, context.DeadlineExceeded)}, "openai", "gpt-4o").GenerateContent(ctx, nil)
	require.Error(t, err)
	wants("chat gpt-4o", "timeout")

	response, err := s.tracer.Proxier().Proxy(ctx, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/missing"})
	require.NoError(t, err, "an upstream's status is data")
	assert.Equal(t, 404, response.Status)
	wants("GET slack", "404")
	_, err = s.tracer.Proxier().Proxy(ctx, stack.ProxyRequest{Service: "github", Method: "delete", URL: "https://api.github.com/" + private})
	require.Error(t, err)
	wants("DELETE github", "FORBIDDEN")
	end(&err)
	wants("invoke_agent triage", "FORBIDDEN")
	s.nothingPrivate(t)
}

func TestNewWithoutMission(t *testing.T) {
	t.Parallel()
	assert.Panics(t, func() { tracing.New(nil, nil, "") })
}
