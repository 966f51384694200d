package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/pii"
)

// maxLLMBody is the largest request to a model: prompts hold documents and pictures.
const maxLLMBody = 32 << 20

func llmRoutes() []route {
	llmAnswer := answers[json.RawMessage](jsonMedia, "text/event-stream", anyMedia)
	return []route{
		endpoint("POST", "/v1/llm/anthropic/messages", gateway(anthropicAPI), named("callAnthropic"), unlocked, bodyLimit(maxLLMBody), llmAnswer),
		endpoint("POST", "/v1/llm/openai/chat/completions", gateway(openAIAPI), named("callOpenAI"), unlocked, bodyLimit(maxLLMBody), llmAnswer),
		endpoint("POST", "/v1/llm/openrouter/chat/completions", gateway(openRouterAPI), named("callOpenRouter"), unlocked, bodyLimit(maxLLMBody), llmAnswer),
		endpoint("GET", "/v1/llm/usage", (*Server).listLLMUsage),
		endpoint("GET", "/v1/llm/usage/summary", (*Server).summarizeLLMUsage),
	}
}

type llmIn struct {
	Passport    stack.Secret `header:"X-Passport-Token"`
	ApprovalID  string       `header:"X-Intent-Approval-Id"`
	OperationID string       `header:"X-STACK-Authority-Request-Id"`

	AnthropicVersion string `header:"Anthropic-Version"`
	AnthropicBeta    string `header:"Anthropic-Beta"`
	Referer          string `header:"HTTP-Referer"`
	Title            string `header:"X-Title"`

	Body json.RawMessage `body:""`
}

// gateway is the handler of one provider.
func gateway(api llmAPI) func(*Server, context.Context, *caller, llmIn) (*document, error) {
	return func(s *Server, ctx context.Context, c *caller, in llmIn) (*document, error) {
		return s.callLLM(ctx, c, api, in)
	}
}

// llmCall is a call to a model: a proxied call whose request the gateway knows and whose answer it reads along.
type llmCall struct {
	*proxyCall
	server *Server
	api    llmAPI
	model  string // that was asked for
	stream bool   // was asked for
	began  time.Time
	status int // the provider's, once it has answered
	tally  llmTally
}

// callLLM sends a call to a model through the checks of the proxy, to which its provider is a service like any other.
func (s *Server) callLLM(ctx context.Context, c *caller, api llmAPI, in llmIn) (*document, error) {
	call := &llmCall{server: s, api: api, proxyCall: &proxyCall{caller: c, op: c.op, action: actionLLM, approvalID: in.ApprovalID,
		operationID: in.OperationID, in: proxyBody{Service: string(api.provider), Method: http.MethodPost, URL: api.url,
			Headers: api.headers(in), Body: in.Body}}}
	if err := call.read(); err != nil {
		return nil, err
	}
	if err := call.validate(); err != nil {
		return nil, err
	}
	if err := s.clearCall(ctx, call.proxyCall, in.Passport); err != nil {
		return nil, call.explain(err)
	}
	if call.replay != nil {
		return llmDocument(call.replay), nil
	}
	call.shape()
	if call.operation != nil && !call.stream {
		ctx = context.WithoutCancel(ctx) // a caller who hangs up must find the answer under the operation id
	}
	call.began, call.tally.provider = s.clock.now(), api.provider
	answer, err := s.forward.Open(ctx, call.request())
	if err != nil {
		return nil, call.broke(ctx, err)
	}
	call.status = answer.Status
	if answer.IsEventStream() && answer.Status < 300 {
		return &document{contentType: "text/event-stream", header: llmHeaders(answer.Headers),
			live: &llmStream{llmCall: call, ctx: ctx, answer: answer}}, nil
	}
	defer answer.Close()
	resp, err := answer.Response()
	if err != nil {
		return nil, call.broke(ctx, err)
	}
	call.tally.document(resp.Body)
	out, err := s.settleCall(call.proxyCall, resp, nil, s.clock.now().Sub(call.began))
	if err != nil {
		return nil, err
	}
	outcome := stack.LLMCompleted
	if resp.Status >= 300 {
		outcome = stack.LLMUpstreamError
	}
	call.count(outcome)
	return llmDocument(out), nil
}

// read takes what the gateway itself needs from the request; the rest is between the caller and the provider.
func (call *llmCall) read() error {
	var known struct {
		Model  any `json:"model"`
		Stream any `json:"stream"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(call.in.Body), []byte("{")) || json.Unmarshal(call.in.Body, &known) != nil {
		return invalid("body", "no object", "the provider's request, a JSON object")
	}
	call.model, _ = known.Model.(string)
	if call.model = strings.TrimSpace(call.model); call.model == "" {
		return invalid("body.model", known.Model, "the name of a model")
	}
	var ok bool
	if call.stream, ok = known.Stream.(bool); !ok && known.Stream != nil {
		return invalid("body.stream", known.Stream, "true or false")
	}
	return nil
}

// explain adds to a refusal for the provider's sake what would help.
func (call *llmCall) explain(err error) error {
	var refusal *apiError
	if !errors.As(err, &refusal) || refusal.details["check"] != "service_scope" {
		return err
	}
	call.op.mu.Lock()
	defer call.op.mu.Unlock()
	name := call.in.Service
	hint := fmt.Sprintf("grant the agent the operator's %s connection, and name %s among the services of the passport's intent", name, name)
	connected := false
	for conn := range call.op.connections.all() {
		connected = connected || conn.Provider == name && conn.Status == "connected"
	}
	if !connected {
		hint = fmt.Sprintf("connect %s with the operator's key of that provider first; then %s", name, hint)
	}
	refusal.details["hint"] = hint
	return refusal
}

// shape makes the request as it goes out: with the security context, without personal data, where the agent has it so.
func (call *llmCall) shape() {
	call.op.mu.Lock()
	system, redactor := call.op.shaping(call.passport.agentID())
	call.op.mu.Unlock()
	call.in.Body = call.api.shape(call.in.Body, system, redactor)
}

// shaping is what the gateway does to the requests of an agent, or of the operator itself: whether it adds the security
// context, and what takes personal data out, nil for nothing.
func (op *operator) shaping(agentID string) (system bool, redactor *pii.Redactor) {
	a, ok := op.agents.get(agentID)
	if !ok || a.LLMRedactPII {
		redactor = op.pii.redactor()
	}
	return !ok || a.LLMInjectSystemPrompt, redactor
}

// errHungUp ends a call whose caller does not want the rest of its answer.
var errHungUp = &forward.Error{Status: http.StatusBadGateway, Code: "CLIENT_CLOSED", Message: "the caller hung up",
	Dispatched: true}

// broke records a call whose answer did not come, or not as a whole, and returns the refusal.
func (call *llmCall) broke(ctx context.Context, err error) error {
	var failure *forward.Error
	sent := !errors.As(err, &failure) || failure.Dispatched
	outcome := stack.LLMIncomplete
	switch {
	case ctx.Err() != nil && sent, errors.Is(err, errHungUp):
		err, outcome = errHungUp, stack.LLMClientClosed
	case call.status == 0:
		outcome = stack.LLMNoAnswer
	}
	_, refusal := call.server.settleCall(call.proxyCall, nil, err, call.server.clock.now().Sub(call.began))
	if sent {
		call.count(outcome)
	}
	return refusal
}

// llmDocument gives a provider's answer back as the provider wrote it: none answers with a bare JSON string, so that is what
// was no JSON.
func llmDocument(resp *stack.ProxyResponse) *document {
	out := &document{status: resp.Status, contentType: or(resp.Headers["content-type"], "application/json"),
		header: llmHeaders(resp.Headers), body: resp.Body}
	var binary struct {
		Base64 []byte `json:"base64"`
	}
	var text string
	switch {
	case string(resp.Body) == "null":
		out.body = nil
	case resp.Headers[forward.EncodingHeader] != "" && json.Unmarshal(resp.Body, &binary) == nil:
		out.body = binary.Base64
	case json.Unmarshal(resp.Body, &text) == nil:
		out.body = []byte(text)
	}
	out.header.Set("X-Stack-Upstream-Status", strconv.Itoa(resp.Status))
	return out
}

// llmHeaders picks the headers of a provider that its own clients read.
func llmHeaders(headers map[string]string) http.Header {
	out := http.Header{}
	for name, value := range headers {
		known := name == "request-id" || name == "retry-after"
		for _, prefix := range []string{"anthropic-", "openai-", "x-ratelimit-"} {
			known = known || strings.HasPrefix(name, prefix)
		}
		if known {
			out.Set(name, value)
		}
	}
	return out
}
