package langchain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/llms/anthropic"
	"github.com/tmc/langchaingo/llms/openai"

	"github.com/getstack-go/stack"
)

const (
	gatewayURL   = "http://gateway.invalid/v1/llm/" // never dialled: a gatewayClient takes the requests
	gatewayToken = "injected-by-the-gateway"        // langchaingo's clients insist on a key
)

// OpenAI is a model of OpenAI behind STACK's gateway: langchaingo's own client, whose requests go under the Mission's
// passport through [stack.Mission.LLM], so that the model's key is never in the process. The Mission needs the service openai.
//
// Options choose the model and such; those that choose a key, an organisation, a base URL or an HTTP client have no effect.
// Streaming works as with langchaingo's client, and a stream that breaks off is an error. Errors are those of
// [stack.LLMService], whatever langchaingo makes of them: errors.Is finds [stack.ErrPassportRevoked], errors.As
// [*stack.MissionEndedError] and [*stack.Error], the last with code UPSTREAM_<status> for an error of the provider.
// [*stack.LLMProviderError] and [*stack.LLMStreamError] are those of a stream. When the context has ended, errors.Is finds its
// cause. A call is sent again by the STACK client alone, and only when it certainly did not act. An answer that is not
// streamed must come within the STACK client's timeout.
//
// The gateway knows chat completions only: embeddings fail with a [*stack.ParamError], and so does a nil mission here.
//
// POST /v1/llm/openai/chat/completions
func OpenAI(mission *stack.Mission, opts ...openai.Option) (llms.Model, error) {
	return chatCompletions(mission, stack.LLMOpenAI, opts)
}

// OpenRouter is a model of OpenRouter behind STACK's gateway, as [OpenAI] is one of OpenAI; the client is the same. The Mission
// needs the service openrouter.
//
// POST /v1/llm/openrouter/chat/completions
func OpenRouter(mission *stack.Mission, opts ...openai.Option) (llms.Model, error) {
	return chatCompletions(mission, stack.LLMOpenRouter, opts)
}

func chatCompletions(mission *stack.Mission, provider stack.LLMProvider, opts []openai.Option) (llms.Model, error) {
	client, err := newGatewayClient(mission, provider, "/chat/completions")
	if err != nil {
		return nil, err
	}
	opts = append(opts[:len(opts):len(opts)], openai.WithToken(gatewayToken), openai.WithOrganization(""),
		openai.WithBaseURL(gatewayURL+string(provider)), openai.WithHTTPClient(client))
	inner, err := openai.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("langchain: a model of %s: %w", provider, err)
	}
	return &gatewayModel{inner}, nil
}

// Anthropic is a model of Anthropic behind STACK's gateway, as [OpenAI] is one of OpenAI. The Mission needs the service
// anthropic. Beta headers are passed on. langchaingo's client has to be wrapped by [Model] for tools.
//
// POST /v1/llm/anthropic/messages
func Anthropic(mission *stack.Mission, opts ...anthropic.Option) (llms.Model, error) {
	client, err := newGatewayClient(mission, stack.LLMAnthropic, "/messages")
	if err != nil {
		return nil, err
	}
	opts = append(opts[:len(opts):len(opts)], anthropic.WithToken(gatewayToken),
		anthropic.WithBaseURL(gatewayURL+string(stack.LLMAnthropic)), anthropic.WithHTTPClient(client))
	inner, err := anthropic.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("langchain: a model of %s: %w", stack.LLMAnthropic, err)
	}
	return &gatewayModel{inner}, nil
}

type approvalKey struct{}

// WithApproval names the approved intent under which the model calls of a context run, where the operator's policy asks for
// one. It is for the models of [OpenAI], [Anthropic] and [OpenRouter]; an approval serves one call.
func WithApproval(ctx context.Context, approvalID string) context.Context {
	return context.WithValue(ctx, approvalKey{}, approvalID)
}

// gatewayModel is one of langchaingo's clients over a gatewayClient. It knows how the exchange really ended, which the
// clients hide: they make texts of the errors of contexts and networks, and take half a stream for an answer.
type gatewayModel struct{ inner llms.Model }

// gatewayCall is the exchange of one call.
type gatewayCall struct {
	mu      sync.Mutex
	whole   bool  // the answer was read to its end
	failure error // why it was not
}

type gatewayCallKey struct{}

func (c *gatewayCall) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole, c.failure = err == nil, err
}

func (c *gatewayCall) state() (whole bool, failure error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whole, c.failure
}

// Call asks for the answer to a single prompt.
func (m *gatewayModel) Call(ctx context.Context, prompt string, options ...llms.CallOption) (string, error) {
	return llms.GenerateFromSinglePrompt(ctx, m, prompt, options...)
}

// GenerateContent asks for the next message.
func (m *gatewayModel) GenerateContent(
	ctx context.Context, messages []llms.MessageContent, options ...llms.CallOption,
) (*llms.ContentResponse, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	call := &gatewayCall{}
	response, err := m.inner.GenerateContent(context.WithValue(ctx, gatewayCallKey{}, call), messages, options...)
	whole, failure := call.state()
	switch {
	case failure != nil && !errors.Is(err, failure):
		return nil, failure
	case err == nil && !whole && ctx.Err() != nil: // the client stopped reading
		return nil, context.Cause(ctx)
	case err == nil && !whole:
		return nil, io.ErrUnexpectedEOF
	}
	return response, err
}

// gatewayClient answers the requests of langchaingo's clients through the gateway. Of a request it takes the body and the
// headers that the gateway passes on: no credential of the environment leaves by it.
type gatewayClient struct {
	provider stack.LLMProvider
	path     string // of the one route that there is
	send     func(context.Context, stack.LLMParams) (*stack.LLMResponse, error)
	stream   func(context.Context, stack.LLMParams) iter.Seq2[*stack.LLMEvent, error]
}

func newGatewayClient(mission *stack.Mission, provider stack.LLMProvider, path string) (*gatewayClient, error) {
	if mission == nil {
		return nil, &stack.ParamError{Param: "mission", Reason: "is nil; a model needs a Mission whose passport it runs under"}
	}
	llm := mission.LLM()
	c := &gatewayClient{provider: provider, path: path}
	switch provider {
	case stack.LLMAnthropic:
		c.send, c.stream = llm.Anthropic, llm.AnthropicStream
	case stack.LLMOpenRouter:
		c.send, c.stream = llm.OpenRouter, llm.OpenRouterStream
	default:
		c.send, c.stream = llm.OpenAI, llm.OpenAIStream
	}
	return c, nil
}

// Do answers one request.
func (c *gatewayClient) Do(req *http.Request) (*http.Response, error) {
	call, ok := req.Context().Value(gatewayCallKey{}).(*gatewayCall)
	if !ok {
		call = &gatewayCall{}
	}
	resp, err := c.do(req, call)
	if err != nil {
		call.end(err)
		return nil, err
	}
	return resp, nil
}

func (c *gatewayClient) do(req *http.Request, call *gatewayCall) (*http.Response, error) {
	if path, ok := strings.CutPrefix(req.URL.Path, "/v1/llm/"+string(c.provider)); !ok || path != c.path {
		return nil, &stack.ParamError{Param: "path", Reason: fmt.Sprintf("is %s; of %s the gateway has %s only", req.URL.Path,
			c.provider, c.path)}
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, fmt.Errorf("langchain: reading the request: %w", err)
	}
	params := stack.LLMParams{Body: json.RawMessage(body), Headers: map[string]string{}}
	params.ApprovalID, _ = req.Context().Value(approvalKey{}).(string)
	for _, name := range []string{"Anthropic-Version", "Anthropic-Beta"} {
		if values := req.Header.Values(name); len(values) > 0 {
			params.Headers[name] = strings.Join(values, ",")
		}
	}
	var asked struct {
		Stream bool `json:"stream"`
	}
	if err = json.Unmarshal(body, &asked); err != nil {
		return nil, &stack.ParamError{Param: "body", Reason: "is not a request in JSON: " + err.Error()}
	}
	if asked.Stream {
		return c.openStream(req, params, call)
	}
	answer, err := c.send(req.Context(), params)
	if err != nil {
		return nil, err
	}
	call.end(nil)
	return httpAnswer(req, "application/json", io.NopCloser(bytes.NewReader(answer.Raw))), nil
}

// openStream returns once the first event is there, so that a refusal is an error and no answer.
func (c *gatewayClient) openStream(req *http.Request, params stack.LLMParams, call *gatewayCall) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	next, stop := iter.Pull2(c.stream(ctx, params))
	s := &gatewayStream{provider: c.provider, call: call, cancel: cancel, next: next, stop: stop}
	if s.advance(); s.err != nil && !errors.Is(s.err, io.EOF) {
		err := s.err
		_ = s.Close()
		return nil, err
	}
	return httpAnswer(req, "text/event-stream", s), nil
}

func httpAnswer(req *http.Request, contentType string, body io.ReadCloser) *http.Response {
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {contentType}}, Body: body, ContentLength: -1, Request: req}
}

// gatewayStream is the body of a streamed answer: the events, one after the other as they arrive. It may be closed while it
// is read; that ends the call, and returns when the Mission knows of it.
type gatewayStream struct {
	provider stack.LLMProvider
	call     *gatewayCall
	cancel   context.CancelFunc
	closed   atomic.Bool

	mu   sync.Mutex // held while an event is awaited
	next func() (*stack.LLMEvent, error, bool)
	stop func()
	rest []byte // of the event that is read
	err  error  // what comes after it
}

var errStreamClosed = errors.New("langchain: the stream is closed")

// Read waits for the next event.
func (s *gatewayStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rest) == 0 && s.err == nil {
		s.advance()
	}
	if len(s.rest) == 0 {
		return 0, s.err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// advance takes the next event. A broken stream gives its error in the place of an event: clients would take another line
// for its end.
func (s *gatewayStream) advance() {
	event, err, ok := s.next()
	if !ok {
		if s.provider != stack.LLMAnthropic {
			s.rest = []byte("data: [DONE]\n\n")
		}
		s.err = io.EOF
		s.call.end(nil)
		return
	}
	if err == nil {
		s.rest, err = eventLines(event)
	}
	if s.err = err; err != nil && !s.closed.Load() { // what follows the client's own end is not the exchange's
		s.call.end(err)
	}
}

// eventLines writes an event as clients expect it: its data on one line.
func eventLines(event *stack.LLMEvent) ([]byte, error) {
	var b bytes.Buffer
	if event.Name != "" {
		b.WriteString("event: " + event.Name + "\n")
	}
	b.WriteString("data: ")
	err := json.Compact(&b, event.Raw)
	b.WriteString("\n\n")
	return b.Bytes(), err
}

// Close gives up what was not read.
func (s *gatewayStream) Close() error {
	s.closed.Store(true)
	s.cancel() // whoever awaits an event lets go
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	s.rest, s.err = nil, errStreamClosed
	return nil
}
