// Package replay records a run of an agent once, against the real model and the real services, and replays it as often as a
// test likes, without either: what the agent asks must be what it asked then, and it gets the same answers. The file is the
// golden master of the agent: JSON Lines, one exchange each, that can be read and kept with the test.
//
// To record, wrap the model and the transport of the STACK client; the agent does not change.
//
//	recorder := replay.NewRecorder(file)
//	client, err := stack.New(stack.WithHTTPClient(&http.Client{Transport: recorder.Transport(nil)}))
//	…
//	err = run(ctx, client, agentID, recorder.Model(llm))
//	err = errors.Join(err, recorder.Err())
//
// To replay, give the agent the recorded model, and the mock the recorded services:
//
//	recorded, err := replay.Open(file)
//	…
//	srv := stacktest.New(t)
//	srv.Upstream("slack.com", recorded.Upstream())
//	err = run(t.Context(), srv.Client(), agent.ID, recorded.Model())
//	assert.Empty(t, recorded.Unused())
//
// Everything that STACK itself does happens anew in each replay: passports, checks, checkpoints, the audit log.
//
// What is written is redacted: keys and tokens of usual forms, e-mail addresses, and what [Redact] adds. A replay redacts what
// the agent asks in the same way before it compares, so give it the same.
package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/tmc/langchaingo/llms"
)

// maxBody bounds what is recorded of one exchange.
const maxBody = 16 << 20

// exchange is a line of the file: either of the two.
type exchange struct {
	Model    *modelExchange    `json:"model,omitempty"`
	Upstream *upstreamExchange `json:"upstream,omitempty"`
}

type modelExchange struct {
	Asked    modelRequest  `json:"asked"`
	Answered []modelChoice `json:"answered"`
}

// modelRequest is what a model was asked: messages as langchaingo encodes them, and the names of the tools on offer.
type modelRequest struct {
	Messages any      `json:"messages"`
	Tools    []string `json:"tools,omitempty"`
}

type modelChoice struct {
	Content    string         `json:"content,omitempty"`
	StopReason string         `json:"stop_reason,omitempty"`
	ToolCalls  []modelCall    `json:"tool_calls,omitempty"`
	Usage      map[string]int `json:"usage,omitempty"`
}

type modelCall struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type upstreamExchange struct {
	Asked    upstreamRequest `json:"asked"`
	Answered upstreamAnswer  `json:"answered"`
}

// upstreamRequest is a request that was proxied. Query and form are in a fixed order.
type upstreamRequest struct {
	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"`
	Query  string `json:"query,omitempty"`
	Form   string `json:"form,omitempty"`
	Body   any    `json:"body,omitempty"` // JSON, or text as a string
}

type upstreamAnswer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"` // as the proxy gives it
}

// Recorder writes the exchanges of a run. It is safe for concurrent use.
type Recorder struct {
	redactor

	mu  sync.Mutex
	out io.Writer
	err error
}

// NewRecorder makes a recorder that writes each exchange to out as soon as it is complete.
func NewRecorder(out io.Writer, opts ...Option) *Recorder {
	return &Recorder{redactor: newRedactor(opts), out: out}
}

// Err returns the first failure to record. The run goes on without a record then, and its file is good for nothing.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *Recorder) write(e exchange) {
	line, err := r.encoded(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && r.err == nil {
		_, err = r.out.Write(line)
	}
	r.fail(err)
}

// fail keeps the first error; the lock is held.
func (r *Recorder) fail(err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("replay: record: %w", err)
	}
}

// marshal encodes in one line, with <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return buf.Bytes(), err
}

// Model records what the model is asked and what it answers. A call that fails is no part of the record.
func (r *Recorder) Model(inner llms.Model) llms.Model { return &recordedModel{r, inner} }

type recordedModel struct {
	recorder *Recorder
	inner    llms.Model
}

// Call asks for the answer to a single prompt.
//
// Deprecated: langchaingo keeps it for compatibility. Use GenerateContent.
func (m *recordedModel) Call(ctx context.Context, prompt string, options ...llms.CallOption) (string, error) {
	return llms.GenerateFromSinglePrompt(ctx, m, prompt, options...)
}

func (m *recordedModel) GenerateContent(
	ctx context.Context, messages []llms.MessageContent, options ...llms.CallOption,
) (*llms.ContentResponse, error) {
	asked := requestOf(messages, options)
	response, err := m.inner.GenerateContent(ctx, messages, options...)
	if err == nil && response != nil {
		m.recorder.write(exchange{Model: &modelExchange{Asked: asked, Answered: choicesOf(response)}})
	}
	return response, err
}

// requestOf is what a model is asked.
func requestOf(messages []llms.MessageContent, options []llms.CallOption) modelRequest {
	var o llms.CallOptions
	for _, option := range options {
		option(&o)
	}
	asked := modelRequest{Messages: messages}
	for _, t := range o.Tools {
		if t.Function != nil {
			asked.Tools = append(asked.Tools, t.Function.Name)
		}
	}
	for _, f := range o.Functions {
		asked.Tools = append(asked.Tools, f.Name)
	}
	return asked
}

func choicesOf(response *llms.ContentResponse) (choices []modelChoice) {
	for _, choice := range response.Choices {
		if choice == nil {
			continue
		}
		kept := modelChoice{Content: choice.Content, StopReason: choice.StopReason, Usage: map[string]int{}}
		for _, call := range choice.ToolCalls {
			if call.FunctionCall != nil {
				kept.ToolCalls = append(kept.ToolCalls, modelCall{call.ID, call.FunctionCall.Name, call.FunctionCall.Arguments})
			}
		}
		for key, value := range choice.GenerationInfo {
			if n, ok := value.(int); ok {
				kept.Usage[key] = n
			}
		}
		choices = append(choices, kept)
	}
	return choices
}

// Transport records the requests that go through STACK's credential proxy on their way through base, with what the services
// answered. It is for the HTTP client of the STACK client, whose other calls it leaves alone; nil stands for
// [http.DefaultTransport]. Refusals of STACK itself are no part of the record.
func (r *Recorder) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return recordedTransport{r, base}
}

type recordedTransport struct {
	recorder *Recorder
	base     http.RoundTripper
}

func (t recordedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPost || !strings.HasSuffix(req.URL.Path, "/v1/proxy") || req.Body == nil {
		return t.base.RoundTrip(req)
	}
	sent, err := io.ReadAll(req.Body)
	if err = errors.Join(err, req.Body.Close()); err != nil {
		return nil, err
	}
	again := req.Clone(req.Context())
	again.Body = io.NopCloser(bytes.NewReader(sent))
	resp, err := t.base.RoundTrip(again)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(got), failing{err}, rest), rest}
	if err == nil {
		t.keep(sent, got)
	}
	return resp, nil
}

// failing gives an error, if there is one, to who reads it.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// keep writes what was sent to the proxy and what came back.
func (t recordedTransport) keep(sent, got []byte) {
	var request struct {
		Method  string            `json:"method"`
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
		Query   map[string]string `json:"query"`
		Body    json.RawMessage   `json:"body"`
	}
	var answer upstreamAnswer
	err := errors.Join(json.Unmarshal(sent, &request), decode(got, &answer))
	u, urlErr := url.Parse(request.URL)
	if err = errors.Join(err, urlErr); err != nil || len(got) > maxBody {
		t.recorder.mu.Lock()
		defer t.recorder.mu.Unlock()
		t.recorder.fail(errors.Join(errors.New("a proxied call is not what was expected, or over 16 MiB"), err))
		return
	}
	query := u.Query()
	for name, value := range request.Query {
		query.Set(name, value)
	}
	asked := upstreamRequest{Method: request.Method, Host: u.Host, Path: u.EscapedPath(), Query: query.Encode()}
	var text string
	isForm := strings.HasPrefix(header(request.Headers, "content-type"), formType)
	switch {
	case json.Unmarshal(request.Body, &text) == nil: // a string is sent as it is
		asked.setBody([]byte(text), isForm)
	case isForm:
		asked.Form = formOf(request.Body).Encode()
	default:
		asked.setBody(request.Body, false)
	}
	t.recorder.write(exchange{Upstream: &upstreamExchange{Asked: asked, Answered: answer}})
}

const formType = "application/x-www-form-urlencoded"

// setBody takes what reached the service: a form in its fixed order, JSON as its values, all else as text.
func (r *upstreamRequest) setBody(text []byte, isForm bool) {
	if isForm {
		if form, err := url.ParseQuery(string(text)); err == nil {
			r.Form = form.Encode()
			return
		}
	}
	if len(text) > 0 && decode(text, &r.Body) != nil {
		r.Body = string(text)
	}
}

// formOf is the form that the proxy makes of an object. (contract: decisions, Bodies through the proxy)
func formOf(object []byte) url.Values {
	var fields map[string]any
	_ = decode(object, &fields) // what is no object was refused by the proxy
	form := url.Values{}
	for key, value := range fields {
		items, isList := value.([]any)
		if !isList {
			items = []any{value}
		}
		for _, item := range items {
			if item != nil {
				form.Add(key, fmt.Sprint(item))
			}
		}
	}
	return form
}

// decode keeps numbers as they are written.
func decode(text []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(v); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the JSON")
	}
	return nil
}

func header(headers map[string]string, name string) string {
	for key, value := range headers {
		if strings.EqualFold(key, name) {
			return value
		}
	}
	return ""
}
