package replay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/tmc/langchaingo/llms"
)

// Run is a recorded run. It is safe for concurrent use: what is asked at the same time may be asked in any order.
type Run struct {
	redactor

	mu        sync.Mutex
	exchanges []*replayed
}

// replayed is an exchange with its request as a tree to compare with.
type replayed struct {
	exchange
	line  int
	asked any
	used  bool
}

// MismatchError says that the agent has asked what it did not ask in the recorded run.
type MismatchError struct {
	// Line of the recording's first exchange of that kind that was not asked again yet; 0 when there is none left.
	Line int
	// Where the two differ first, such as messages[1].text, and what is there now and was there then.
	Where, Now, Then string
}

// Error says where the two differ.
func (e *MismatchError) Error() string {
	if e.Line == 0 {
		return "replay: the recorded run did not ask that much; now asked: " + e.Now
	}
	return fmt.Sprintf("replay: not what was recorded in line %d: %s is %s, and was %s", e.Line, e.Where, e.Now, e.Then)
}

// Open reads a recorded run. It fails, with the line, when the file is not one.
func Open(file io.Reader, opts ...Option) (*Run, error) {
	run := &Run{redactor: newRedactor(opts)}
	lines := bufio.NewReader(file)
	last := false
	for number := 1; !last; number++ {
		line, readErr := lines.ReadBytes('\n')
		if readErr != nil && !errors.Is(readErr, io.EOF) {
			return nil, fmt.Errorf("replay: line %d: %w", number, readErr)
		}
		if len(bytes.TrimSpace(line)) > 0 {
			r, err := run.read(line)
			if err != nil {
				return nil, fmt.Errorf("replay: line %d is no exchange: %w", number, err)
			}
			r.line = number
			run.exchanges = append(run.exchanges, r)
		}
		last = readErr != nil
	}
	return run, nil
}

// read reads one line.
func (r *Run) read(line []byte) (*replayed, error) {
	e := &replayed{}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(&e.exchange); err != nil {
		return nil, err
	}
	var err error
	switch {
	case (e.Model == nil) == (e.Upstream == nil):
		return nil, errors.New("it must have either model or upstream")
	case e.Model != nil:
		e.asked, err = r.tree(e.Model.Asked)
	case e.Upstream.Answered.Status < 200 || e.Upstream.Answered.Status > 599:
		return nil, fmt.Errorf("its status is %d; it must be 200 to 599", e.Upstream.Answered.Status)
	default:
		e.asked, err = r.tree(e.Upstream.Asked)
	}
	return e, err
}

// Unused describes the exchanges that were not asked again.
func (r *Run) Unused() (unused []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.exchanges {
		if !e.used {
			unused = append(unused, fmt.Sprintf("line %d: %s", e.line, short(e.asked)))
		}
	}
	return unused
}

// take finds the first unused exchange of a kind with the request, and uses it up.
func (r *Run) take(request any, ofKind func(*replayed) bool) (*replayed, error) {
	asked, err := r.tree(request)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	mismatch := &MismatchError{Now: short(asked)}
	for _, e := range r.exchanges {
		if e.used || !ofKind(e) {
			continue
		}
		if reflect.DeepEqual(e.asked, asked) {
			e.used = true
			return e, nil
		}
		if mismatch.Line == 0 {
			where, now, then := difference("", asked, e.asked)
			mismatch = &MismatchError{Line: e.line, Where: strings.TrimPrefix(where, "."), Now: short(now), Then: short(then)}
		}
	}
	return nil, mismatch
}

// short is the beginning of a value's JSON.
func short(v any) string {
	text, err := marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	runes := []rune(strings.TrimSpace(string(text)))
	if len(runes) > 300 {
		return string(runes[:300]) + "…"
	}
	return string(runes)
}

// difference finds where two trees differ first.
func difference(at string, a, b any) (where string, inA, inB any) {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		both := maps.Clone(x)
		maps.Copy(both, y)
		for _, key := range slices.Sorted(maps.Keys(both)) {
			if !reflect.DeepEqual(x[key], y[key]) {
				return difference(at+"."+key, x[key], y[key])
			}
		}
	case []any:
		y, ok := b.([]any)
		if !ok {
			break
		}
		for i := range min(len(x), len(y)) {
			if !reflect.DeepEqual(x[i], y[i]) {
				return difference(fmt.Sprintf("%s[%d]", at, i), x[i], y[i])
			}
		}
		if len(x) != len(y) {
			return "the number of " + at, len(x), len(y)
		}
	}
	return at, a, b
}

// Model gives the recorded answers to who asks what was asked then. All else fails with a [*MismatchError].
func (r *Run) Model() llms.Model { return replayedModel{r} }

type replayedModel struct{ run *Run }

// Call asks for the answer to a single prompt.
//
// Deprecated: langchaingo keeps it for compatibility. Use GenerateContent.
func (m replayedModel) Call(ctx context.Context, prompt string, options ...llms.CallOption) (string, error) {
	return llms.GenerateFromSinglePrompt(ctx, m, prompt, options...)
}

func (m replayedModel) GenerateContent(
	ctx context.Context, messages []llms.MessageContent, options ...llms.CallOption,
) (*llms.ContentResponse, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	e, err := m.run.take(requestOf(messages, options), func(e *replayed) bool { return e.Model != nil })
	if err != nil {
		return nil, err
	}
	var o llms.CallOptions
	for _, option := range options {
		option(&o)
	}
	response := &llms.ContentResponse{}
	for i, kept := range e.Model.Answered {
		choice := &llms.ContentChoice{Content: kept.Content, StopReason: kept.StopReason, GenerationInfo: map[string]any{}}
		for key, n := range kept.Usage {
			choice.GenerationInfo[key] = n
		}
		for _, call := range kept.ToolCalls {
			choice.ToolCalls = append(choice.ToolCalls, llms.ToolCall{ID: call.ID, Type: "function",
				FunctionCall: &llms.FunctionCall{Name: call.Name, Arguments: call.Arguments}})
		}
		if len(choice.ToolCalls) > 0 {
			choice.FuncCall = choice.ToolCalls[0].FunctionCall
		}
		if i == 0 && o.StreamingFunc != nil && kept.Content != "" { // in one piece: where it was cut then is chance
			if err = o.StreamingFunc(ctx, []byte(kept.Content)); err != nil {
				return nil, err
			}
		}
		response.Choices = append(response.Choices, choice)
	}
	return response, nil
}

// Upstream stands for all recorded services, behind the credential proxy of the mock. A request that was not recorded is
// answered with 501 and what differs; the credential that the proxy injects is not looked at.
func (r *Run) Upstream() http.Handler { return http.HandlerFunc(r.serve) }

func (r *Run) serve(w http.ResponseWriter, req *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, "replay: "+err.Error(), http.StatusBadRequest)
		return
	}
	asked := upstreamRequest{Method: req.Method, Host: req.Host, Path: req.URL.EscapedPath(), Query: req.URL.Query().Encode()}
	asked.setBody(text, strings.HasPrefix(req.Header.Get("Content-Type"), formType))
	e, err := r.take(asked, func(e *replayed) bool { return e.Upstream != nil })
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	answer := e.Upstream.Answered
	for name, value := range answer.Headers {
		if !slices.Contains([]string{"content-length", "content-encoding", "transfer-encoding", "x-stack-body-encoding"}, strings.ToLower(name)) {
			w.Header().Set(name, value)
		}
	}
	body := bodyOf(answer)
	w.WriteHeader(answer.Status)
	_, _ = w.Write(body)
}

// bodyOf turns what the proxy made of a body back into its bytes. (contract: decisions, Bodies through the proxy)
func bodyOf(answer upstreamAnswer) []byte {
	contentType, encoding := header(answer.Headers, "content-type"), header(answer.Headers, "x-stack-body-encoding")
	var form struct {
		Base64 []byte `json:"base64"`
	}
	if encoding == "base64" && json.Unmarshal(answer.Body, &form) == nil {
		return form.Base64
	}
	var text string
	if !strings.Contains(contentType, "json") && json.Unmarshal(answer.Body, &text) == nil {
		return []byte(text)
	}
	return answer.Body
}
