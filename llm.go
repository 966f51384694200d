package stack

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// LLMService calls language models through STACK's gateway, which injects the provider's key, so that it is never in the
// agent's process. Bodies and answers are the provider's own. Reach it as [Client].LLM, or, for calls under a Mission's
// passport that the Mission logs, as [Mission.LLM].
//
// A model call may have acted, and cost money, when it fails: it is sent again by the SDK only after a 429 or when no
// connection was made. An OperationID makes repeating it by hand harmless.
type LLMService struct {
	client  *Client
	mission *Mission // whose calls these are; nil: nobody's
}

// LLMProvider is a provider of language models behind the gateway.
type LLMProvider string

// LLM providers. Each is also the provider key of the service that has to be connected and granted.
const (
	LLMAnthropic  LLMProvider = "anthropic"
	LLMOpenAI     LLMProvider = "openai"
	LLMOpenRouter LLMProvider = "openrouter"
)

// target is the provider's endpoint, where the gateway sends the call.
func (p LLMProvider) target() string {
	switch p {
	case LLMAnthropic:
		return "https://api.anthropic.com/v1/messages"
	case LLMOpenRouter:
		return "https://openrouter.ai/api/v1/chat/completions"
	default:
		return "https://api.openai.com/v1/chat/completions"
	}
}

// TokenSource gives a passport token that works: a [*Mission] and a [*PassportSession] renew theirs when it is time, a
// [StaticToken] stays what it is.
type TokenSource interface {
	Token(ctx context.Context) (Secret, error)
}

// StaticToken is a passport token that somebody else looks after.
type StaticToken struct{ token Secret }

// NewStaticToken makes a [TokenSource] of one token.
func NewStaticToken(token Secret) StaticToken { return StaticToken{token} }

// Token returns the token.
func (t StaticToken) Token(context.Context) (Secret, error) { return t.token, nil }

// LLMParams is a call to a language model.
type LLMParams struct {
	// Body is the provider's request, sent as JSON just as it is written: a json.RawMessage, a map, or a struct of the provider's
	// own SDK.
	Body any
	// Passport authorises the call. [Mission.LLM] has its own, which wins.
	Passport TokenSource
	// ApprovalID names an approved intent, where the operator's policy asks for one.
	ApprovalID string
	// OperationID makes a call that is not streamed happen once: repeated unchanged, it gets the same answer and the provider is
	// not asked again. See [NewOperationID].
	OperationID string
	// Headers are those of the provider's API that the gateway passes on: anthropic-version and anthropic-beta, and HTTP-Referer
	// and X-Title of OpenRouter. Others are refused.
	Headers map[string]string
}

// LogValue gives slog what may be logged of a call: not its prompts.
func (p LLMParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("operation_id", p.OperationID))
}

// LLMTokens is what a call used, as the provider counts it: the input tokens of Anthropic leave out what came from its cache,
// those of the others hold it. Nil is what the provider did not say.
type LLMTokens struct {
	Input      *int `json:"input_tokens"`
	Output     *int `json:"output_tokens"`
	CacheRead  *int `json:"cache_read_tokens"`
	CacheWrite *int `json:"cache_write_tokens"`
}

// LLMResponse is a provider's answer: all of it, and what is alike in all of them.
type LLMResponse struct {
	Provider   LLMProvider
	Raw        json.RawMessage // the answer as the provider wrote it
	ID         string          // the provider's
	Model      string          // the one that answered
	Text       string          // what it said, tool calls aside; of the first choice
	StopReason string          // in the provider's words, such as end_turn or stop
	Tokens     LLMTokens
}

// Decode unmarshals the whole answer into v, such as a type of the provider's own SDK.
func (r *LLMResponse) Decode(v any) error { return json.Unmarshal(r.Raw, v) }

// Anthropic sends a request of Anthropic's Messages API and returns the whole answer, within the client's timeout; what takes
// longer is to be streamed, see [LLMService.AnthropicStream].
//
// It fails with a [*ParamError] before anything is sent, as [ProxyService.Request] does when the gateway refuses the call,
// with code UPSTREAM_<status> when the provider refuses it (its own error is in Details["upstream"]), and with codes
// UPSTREAM_TIMEOUT, UPSTREAM_UNREACHABLE and RESPONSE_TOO_LARGE when it gave no answer.
//
// POST /v1/llm/anthropic/messages
func (s *LLMService) Anthropic(ctx context.Context, params LLMParams) (*LLMResponse, error) {
	return s.send(ctx, LLMAnthropic, post("/v1/llm/anthropic/messages"), params)
}

// OpenAI sends a request of OpenAI's chat completions API and returns the whole answer. It fails as [LLMService.Anthropic]
// does.
//
// POST /v1/llm/openai/chat/completions
func (s *LLMService) OpenAI(ctx context.Context, params LLMParams) (*LLMResponse, error) {
	return s.send(ctx, LLMOpenAI, post("/v1/llm/openai/chat/completions"), params)
}

// OpenRouter sends a request of OpenRouter's chat completions API and returns the whole answer. It fails as
// [LLMService.Anthropic] does.
//
// POST /v1/llm/openrouter/chat/completions
func (s *LLMService) OpenRouter(ctx context.Context, params LLMParams) (*LLMResponse, error) {
	return s.send(ctx, LLMOpenRouter, post("/v1/llm/openrouter/chat/completions"), params)
}

func (s *LLMService) send(ctx context.Context, provider LLMProvider, cl *call, params LLMParams) (*LLMResponse, error) {
	body, streams, err := llmBody(params.Body)
	if err == nil && streams {
		err = &ParamError{Param: "body.stream", Reason: "is true; call the method that ends in Stream"}
	}
	if err != nil {
		return nil, err
	}
	if err = s.prepare(ctx, cl.with(body), params); err != nil {
		return nil, err
	}
	began, back := time.Now(), s.leaves(provider)
	ans, err := s.client.transport.do(ctx, cl)
	back()
	if err = s.settle(provider, began, err); err != nil {
		return nil, withOperation(err, params.OperationID)
	}
	out := &LLMResponse{Provider: provider, Raw: ans.body}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(ans.body, &object); err != nil || object == nil {
		return nil, &DecodeError{Method: cl.method, Route: cl.pattern, Status: ans.status, Excerpt: excerptUnlessJSON(ans.body),
			Err: cmp.Or(err, errNoObject)}
	}
	out.read()
	return out, nil
}

// prepare puts what the headers hold into a call.
func (s *LLMService) prepare(ctx context.Context, cl *call, params LLMParams) error {
	if params.OperationID != "" && !operationIDPattern.MatchString(params.OperationID) {
		return &ParamError{Param: "operation id", Reason: "must be 22 to 256 letters, digits, hyphens and underscores"}
	}
	for name, value := range params.Headers {
		switch strings.ToLower(name) {
		case "anthropic-version", "anthropic-beta", "http-referer", "x-title":
			cl.head(name, value)
		default:
			return &ParamError{Param: "headers", Reason: fmt.Sprintf("has %q; the gateway passes on anthropic-version, "+
				"anthropic-beta, HTTP-Referer and X-Title", excerpt([]byte(name)))}
		}
	}
	source := params.Passport
	if s.mission != nil {
		source = s.mission
	}
	if source == nil {
		return &ParamError{Param: "passport", Reason: "is nil; it is required"}
	}
	token, err := source.Token(ctx)
	if err != nil {
		return err
	}
	if token.IsZero() {
		return &ParamError{Param: "passport", Reason: "gave an empty token"}
	}
	cl.passport(token).head("X-Intent-Approval-Id", params.ApprovalID).head(operationHeader, params.OperationID)
	return nil
}

var errNoObject = errors.New("it is not an object")

// call is how a call to the provider is logged.
func (p LLMProvider) call() ToolCall {
	return ToolCall{Service: string(p), Method: "POST", Target: p.target()}
}

// leaves tells the Mission, if there is one, that a call is under way, until back is called.
func (s *LLMService) leaves(provider LLMProvider) (back func()) {
	if s.mission == nil {
		return func() {}
	}
	return s.mission.leaves(provider.call())
}

// settle tells the Mission, if there is one, of a call and how it went.
func (s *LLMService) settle(provider LLMProvider, began time.Time, err error) error {
	if s.mission == nil {
		return err
	}
	if err == nil {
		s.mission.confirm(began)
	}
	if err == nil || reachedProxy(err) || fromUpstream(err) {
		s.mission.log(provider.call(), err != nil)
	}
	return s.mission.watch(err)
}

// fromUpstream reports whether an error is the provider's own answer.
func fromUpstream(err error) bool {
	var apiErr *Error
	return errors.As(err, &apiErr) && strings.HasPrefix(apiErr.Code, upstreamCode)
}

// LLM returns the gateway under this Mission's passport: calls need no passport of their own, and are logged as those of
// [Mission.Proxy] are. When one shows that the passport is gone, the Mission's context ends.
func (m *Mission) LLM() *LLMService { return &LLMService{client: m.client, mission: m} }

// llmBody encodes a body and says whether it asks for a stream.
func llmBody(body any) (raw json.RawMessage, streams bool, err error) {
	if raw, err = marshalJSON(body); err != nil {
		return nil, false, &ParamError{Param: "body", Reason: "cannot be sent as JSON: " + err.Error()}
	}
	var known struct {
		Stream any `json:"stream"`
	}
	if len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &known) != nil {
		return nil, false, &ParamError{Param: "body", Reason: "must be a JSON object, the provider's request"}
	}
	streams, ok := known.Stream.(bool)
	if !ok && known.Stream != nil {
		return nil, false, &ParamError{Param: "body.stream", Reason: "must be true or false"}
	}
	return raw, streams, nil
}

// read fills in what is alike in all answers, as far as it is there.
func (r *LLMResponse) read() {
	var a struct {
		ID         string `json:"id"`
		Model      string `json:"model"`
		StopReason string `json:"stop_reason"`
		Content    []struct {
			Text string `json:"text"`
		} `json:"content"`
		Choices []struct {
			FinishReason string `json:"finish_reason"`
			Message      struct {
				Content any `json:"content"`
			} `json:"message"`
		} `json:"choices"`
		Usage json.RawMessage `json:"usage"`
	}
	_ = json.Unmarshal(r.Raw, &a) // what has another shape stays empty; the rest is filled in
	r.ID, r.Model, r.StopReason = a.ID, a.Model, a.StopReason
	var text strings.Builder
	for _, block := range a.Content {
		text.WriteString(block.Text)
	}
	if len(a.Choices) > 0 {
		r.StopReason = a.Choices[0].FinishReason
		if said, ok := a.Choices[0].Message.Content.(string); ok {
			text.WriteString(said)
		}
	}
	r.Text = text.String()
	r.Tokens, _ = ReadLLMTokens(r.Provider, a.Usage)
}

// ReadLLMTokens reads a provider's usage object. It reports whether there was one.
func ReadLLMTokens(provider LLMProvider, usage json.RawMessage) (tokens LLMTokens, ok bool) {
	var u struct {
		Input      tokenCount `json:"input_tokens"`
		Output     tokenCount `json:"output_tokens"`
		CacheRead  tokenCount `json:"cache_read_input_tokens"`
		CacheWrite tokenCount `json:"cache_creation_input_tokens"`

		Prompt     tokenCount `json:"prompt_tokens"`
		Completion tokenCount `json:"completion_tokens"`
		Details    struct {
			Cached tokenCount `json:"cached_tokens"`
			Write  tokenCount `json:"cache_write_tokens"`
		} `json:"prompt_tokens_details"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(usage), []byte("{")) || json.Unmarshal(usage, &u) != nil {
		return LLMTokens{}, false
	}
	if provider == LLMAnthropic {
		return LLMTokens{u.Input.n, u.Output.n, u.CacheRead.n, u.CacheWrite.n}, true
	}
	return LLMTokens{u.Prompt.n, u.Completion.n, u.Details.Cached.n, u.Details.Write.n}, true
}

// tokenCount is a count that a provider may leave out; anything but a whole number of a sane size is nothing.
type tokenCount struct{ n *int }

const maxTokens = 1 << 40 // more than any call can use

func (c *tokenCount) UnmarshalJSON(data []byte) error {
	if n, err := strconv.Atoi(string(data)); err == nil && n >= 0 && n <= maxTokens {
		c.n = &n
	}
	return nil
}

// LLMOutcome is how a call to a model ended.
type LLMOutcome string

// LLM outcomes.
const (
	LLMCompleted     LLMOutcome = "completed"      // the answer came to its end
	LLMUpstreamError LLMOutcome = "upstream_error" // the provider answered with an error, at once or inside the stream
	LLMIncomplete    LLMOutcome = "incomplete"     // the answer broke off
	LLMClientClosed  LLMOutcome = "client_closed"  // the caller hung up before the end
	LLMNoAnswer      LLMOutcome = "no_answer"      // the provider did not answer
)

// LLMUsage is one call to a model. The calls that the gateway refused are not among them.
type LLMUsage struct {
	ID          string      `json:"id"`
	Provider    LLMProvider `json:"provider"`
	Model       string      `json:"model"` // the one that answered, else the one asked for
	PassportJTI string      `json:"passport_jti"`
	MissionID   string      `json:"mission_id"`
	AgentID     string      `json:"agent_id"`
	LLMTokens               // what was seen before a broken stream broke
	Stream      bool        `json:"stream"`
	Status      int         `json:"status"` // the provider's HTTP status; 0 without an answer
	Outcome     LLMOutcome  `json:"outcome"`
	Complete    bool        `json:"complete"` // whether the answer came to its end, and with it the token counts
	// CostCents is what the call cost, in US cents and fractions of them, where the provider says so (OpenRouter does); else nil.
	CostCents *float64      `json:"cost_cents"`
	Duration  time.Duration `json:"duration_ms"` // milliseconds on the wire
	CreatedAt time.Time     `json:"created_at"`
}

// MarshalJSON writes the duration in milliseconds.
func (u LLMUsage) MarshalJSON() ([]byte, error) {
	type plain LLMUsage
	return marshalJSON(struct {
		plain
		Duration milliseconds `json:"duration_ms"`
	}{plain(u), milliseconds(u.Duration)})
}

// UnmarshalJSON reads the duration in milliseconds.
func (u *LLMUsage) UnmarshalJSON(data []byte) error {
	type plain LLMUsage
	w := struct {
		*plain
		Duration milliseconds `json:"duration_ms"`
	}{plain: (*plain)(u)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	u.Duration = time.Duration(w.Duration)
	return nil
}

// LLMUsageFilter selects calls; what is empty selects all.
type LLMUsageFilter struct {
	Provider    LLMProvider
	PassportJTI string
	MissionID   string
	AgentID     string
	Since       time.Time // inclusive
	Until       time.Time // exclusive
}

func (f LLMUsageFilter) on(cl *call) *call {
	cl.param("provider", string(f.Provider)).param("passport_jti", f.PassportJTI).param("mission_id", f.MissionID).
		param("agent_id", f.AgentID)
	for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			cl.param(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return cl
}

// LLMUsageListParams filters and pages calls to models.
type LLMUsageListParams struct {
	LLMUsageFilter
	Limit  int    // default 20, at most 100
	Cursor string // NextCursor of the page before; empty begins with the newest
}

// LLMUsagePage is one page of calls to models, newest first.
type LLMUsagePage struct {
	Items      []LLMUsage `json:"items"`
	NextCursor *string    `json:"next_cursor"` // nil on the last page
}

// ListUsage returns one page of the calls to models, newest first. Calls that are made meanwhile do not move a page. It fails
// with [ErrInvalidRequest] for a limit out of bounds and a cursor that is none.
//
// GET /v1/llm/usage
func (s *LLMService) ListUsage(ctx context.Context, params LLMUsageListParams) (*LLMUsagePage, error) {
	cl := params.on(get("/v1/llm/usage")).number("limit", params.Limit).param("cursor", params.Cursor)
	return send[LLMUsagePage](ctx, s.client, cl)
}

// AllUsage walks the calls to models of all pages from params.Cursor on. An error ends it.
//
// GET /v1/llm/usage
func (s *LLMService) AllUsage(ctx context.Context, params LLMUsageListParams) iter.Seq2[LLMUsage, error] {
	return func(yield func(LLMUsage, error) bool) {
		for {
			page, err := s.ListUsage(ctx, params)
			if err != nil {
				yield(LLMUsage{}, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.NextCursor == nil || *page.NextCursor == params.Cursor {
				return
			}
			params.Cursor = *page.NextCursor
		}
	}
}

// LLMUsageTotals adds calls up. Counts that providers did not give are missing from the sums.
type LLMUsageTotals struct {
	Calls            int `json:"calls"`
	IncompleteCalls  int `json:"incomplete_calls"` // that did not come to their end
	InputTokens      int `json:"input_tokens"`
	OutputTokens     int `json:"output_tokens"`
	CacheReadTokens  int `json:"cache_read_tokens"`
	CacheWriteTokens int `json:"cache_write_tokens"`
	// CostCents is what the calls of known cost cost; nil when none is known.
	CostCents *float64 `json:"cost_cents"`
}

// LLMUsageBucket is the totals of one provider or, grouped by model, of one of its models.
type LLMUsageBucket struct {
	Provider LLMProvider `json:"provider"`
	Model    string      `json:"model,omitempty"` // when grouped by model
	LLMUsageTotals
}

// LLMUsageSummary adds up the calls to models: all, and by provider or model, in the order of their names.
type LLMUsageSummary struct {
	Totals  LLMUsageTotals   `json:"totals"`
	Buckets []LLMUsageBucket `json:"buckets"`
}

// LLMUsageSummaryParams selects what is added up.
type LLMUsageSummaryParams struct {
	LLMUsageFilter
	GroupByModel bool // default: by provider
}

// SummarizeUsage adds the calls to models up. It fails with [ErrInvalidRequest].
//
// GET /v1/llm/usage/summary
func (s *LLMService) SummarizeUsage(ctx context.Context, params LLMUsageSummaryParams) (*LLMUsageSummary, error) {
	cl := params.on(get("/v1/llm/usage/summary"))
	if params.GroupByModel {
		cl.param("group_by_model", "true")
	}
	return send[LLMUsageSummary](ctx, s.client, cl)
}
