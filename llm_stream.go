package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/getstack-go/stack/internal/sse"
)

// MaxLLMLine is the longest line of a stream, and the longest event, in bytes (8 MiB); a longer one ends the stream with
// [ErrLLMLineTooLong].
const MaxLLMLine = sse.MaxLine

// ErrLLMLineTooLong means that a line or an event of a stream is longer than [MaxLLMLine].
var ErrLLMLineTooLong = sse.ErrTooLong

// LLMEvent is one event of a stream: all of it, and what is alike in all of them.
type LLMEvent struct {
	Provider LLMProvider
	Name     string          // of the event's event line, such as content_block_delta; OpenAI and OpenRouter give none
	Raw      json.RawMessage // the event's data as the provider wrote it

	Text       string     // what the model says with this event; often empty
	StopReason string     // in the provider's words, on the event that says why the model stopped
	Tokens     *LLMTokens // on an event that holds usage: what was used up to it, as far as it says
}

// Decode unmarshals the whole event into v.
func (e *LLMEvent) Decode(v any) error { return json.Unmarshal(e.Raw, v) }

// LLMStreamError ends a stream that did not come to its end: Unwrap gives io.ErrUnexpectedEOF when it was cut off, os.
// ErrDeadlineExceeded when nothing arrived for the client's timeout, [ErrLLMLineTooLong], a JSON error for an event that is
// none, or the cause of the end of the caller's context.
type LLMStreamError struct {
	Provider LLMProvider
	Events   int // how many were yielded before
	Err      error
}

func (e *LLMStreamError) Error() string {
	return fmt.Sprintf("stack: the stream of %s broke off after %d events: %s", e.Provider, e.Events, e.Err)
}

// Unwrap returns the reason.
func (e *LLMStreamError) Unwrap() error { return e.Err }

// LLMProviderError is an error that the provider reports inside a stream, such as overloaded_error.
type LLMProviderError struct {
	Provider LLMProvider
	Type     string          // the provider's, such as overloaded_error; may be empty
	Message  string          // for people
	Raw      json.RawMessage // the event's data as the provider wrote it
}

func (e *LLMProviderError) Error() string {
	text := fmt.Sprintf("stack: %s reports an error in the stream", e.Provider)
	for _, part := range []string{oneLine(e.Type, maxNameText), oneLine(e.Message, maxMessageText)} {
		if part != "" {
			text += ": " + part
		}
	}
	return text
}

// AnthropicStream sends a request of Anthropic's Messages API, with stream set, and yields the events of its answer as they
// arrive. The call is made when the loop begins, and made again by another loop. Leaving the loop, or ending ctx, ends the
// call. The client's timeout bounds how long the stream may keep silent, not how long it is.
//
// An error is the last thing that is yielded. It is that of [LLMService.Anthropic] when there is no stream, an
// [*LLMProviderError] when the provider reports one inside it, and an [*LLMStreamError] when the stream breaks off: without its
// last event (message_stop; [DONE] of the other providers) a stream never ends silently.
//
// POST /v1/llm/anthropic/messages
func (s *LLMService) AnthropicStream(ctx context.Context, params LLMParams) iter.Seq2[*LLMEvent, error] {
	return s.stream(ctx, LLMAnthropic, "/v1/llm/anthropic/messages", params)
}

// OpenAIStream sends a request of OpenAI's chat completions API, with stream set, and yields its chunks as they arrive, as
// [LLMService.AnthropicStream] does. With stream_options.include_usage in the body, the last of them has the usage.
//
// POST /v1/llm/openai/chat/completions
func (s *LLMService) OpenAIStream(ctx context.Context, params LLMParams) iter.Seq2[*LLMEvent, error] {
	return s.stream(ctx, LLMOpenAI, "/v1/llm/openai/chat/completions", params)
}

// OpenRouterStream sends a request of OpenRouter's chat completions API, with stream set, and yields its chunks as they
// arrive, as [LLMService.AnthropicStream] does.
//
// POST /v1/llm/openrouter/chat/completions
func (s *LLMService) OpenRouterStream(ctx context.Context, params LLMParams) iter.Seq2[*LLMEvent, error] {
	return s.stream(ctx, LLMOpenRouter, "/v1/llm/openrouter/chat/completions", params)
}

func (s *LLMService) stream(ctx context.Context, provider LLMProvider, pattern string, params LLMParams) iter.Seq2[*LLMEvent, error] {
	return func(yield func(*LLMEvent, error) bool) {
		began, back := time.Now(), s.leaves(provider)
		defer back()
		resp, sent, err := s.openStream(ctx, pattern, params)
		if err != nil {
			back()
			if sent {
				err = withOperation(s.settle(provider, began, err), params.OperationID)
			}
			yield(nil, err)
			return
		}
		defer resp.Body.Close() //nolint:errcheck // what was not read is given up
		events, settled := 0, false
		settle := func(err error) error {
			settled = true
			return s.settle(provider, began, err)
		}
		defer func() {
			if !settled { // the loop was left
				_ = settle(nil)
			}
		}()
		for event, err := range llmEvents(provider, resp.Body) {
			if err == nil {
				events++
				if !yield(event, nil) {
					return
				}
				continue
			}
			var reported *LLMProviderError
			if !errors.As(err, &reported) {
				if ctx.Err() != nil {
					err = cancellation(ctx)
				}
				err = &LLMStreamError{Provider: provider, Events: events, Err: err}
			}
			yield(nil, settle(err))
			return
		}
	}
}

// openStream makes the call; sent says whether it got as far as being sent.
func (s *LLMService) openStream(ctx context.Context, pattern string, params LLMParams) (resp *http.Response, sent bool, err error) {
	body, streams, err := llmBody(params.Body)
	if err != nil {
		return nil, false, err
	}
	if !streams {
		body = askForStream(body)
	}
	cl := post(pattern).with(body).head("Accept", "text/event-stream")
	if err = s.prepare(ctx, cl, params); err != nil {
		return nil, false, err
	}
	if resp, err = s.client.transport.stream(ctx, cl); err != nil {
		return nil, true, err
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
		_ = resp.Body.Close()
		return nil, true, &DecodeError{Method: cl.method, Route: pattern, Status: resp.StatusCode,
			Err: fmt.Errorf("its content type is %q and not text/event-stream", excerpt([]byte(kind)))}
	}
	return resp, true, nil
}

// askForStream sets stream in a body that is an object. All else stays as it is written, unless the body says the opposite.
func askForStream(body json.RawMessage) json.RawMessage {
	const set = `{"stream":true`
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil || len(object) == 0 {
		return json.RawMessage(set + "}")
	}
	if _, ok := object["stream"]; !ok {
		return append(json.RawMessage(set+","), body[1:]...)
	}
	object["stream"] = json.RawMessage("true")
	out, err := marshalJSON(object)
	if err != nil { // what came from JSON always has a JSON form
		return body
	}
	return out
}

// llmEvents reads a provider's stream to its last event. A stream that ends before is io.ErrUnexpectedEOF.
func llmEvents(provider LLMProvider, body io.Reader) iter.Seq2[*LLMEvent, error] {
	return func(yield func(*LLMEvent, error) bool) {
		lines, decoder := sse.NewLines(body), sse.Decoder{}
		for ended := false; !ended; {
			line, err := lines.Next()
			var raw sse.Event
			var ok bool
			switch {
			case errors.Is(err, io.EOF):
				ended = true
				raw, ok = decoder.Flush()
			case err == nil:
				raw, ok, err = decoder.Line(line)
			}
			if err != nil && !ended {
				yield(nil, err)
				return
			}
			if !ok {
				continue
			}
			event, done, err := readLLMEvent(provider, raw)
			if event != nil || err != nil {
				if !yield(event, err) || err != nil {
					return
				}
			}
			if done {
				drain(body)
				return
			}
		}
		yield(nil, io.ErrUnexpectedEOF)
	}
}

// drain reads what follows the last event, which is nothing but the end of the body, so that the connection can be used again.
func drain(body io.Reader) {
	if b, ok := body.(*quietBody); ok {
		b.limit = min(b.limit, drainTime)
	}
	_, _ = io.CopyN(io.Discard, body, 1<<10) // whatever comes of it, the stream was whole
}

const drainTime = 200 * time.Millisecond

// readLLMEvent reads one event; done is the stream's last. [DONE] is no event of its own, and neither is one without data.
func readLLMEvent(provider LLMProvider, raw sse.Event) (event *LLMEvent, done bool, err error) {
	data := strings.TrimSpace(string(raw.Data))
	switch data {
	case "":
		return nil, false, nil
	case "[DONE]":
		return nil, true, nil
	}
	var object struct {
		Type  string          `json:"type"`
		Error json.RawMessage `json:"error"`
		Usage json.RawMessage `json:"usage"`

		Delta struct { // Anthropic
			Text       string `json:"text"`
			StopReason string `json:"stop_reason"`
		} `json:"delta"`
		Message struct {
			Usage json.RawMessage `json:"usage"`
		} `json:"message"`

		Choices []struct { // OpenAI and OpenRouter
			Index        int    `json:"index"`
			FinishReason string `json:"finish_reason"`
			Delta        struct {
				Content string `json:"content"`
			} `json:"delta"`
		} `json:"choices"`
	}
	err = json.Unmarshal([]byte(data), &object)
	var shape *json.UnmarshalTypeError
	if err != nil && !errors.As(err, &shape) {
		return nil, false, fmt.Errorf("an event is not JSON: %w", err)
	}
	name := cmp.Or(raw.Name, object.Type)
	if present(object.Error) || name == "error" {
		return nil, false, providerError(provider, object.Error, json.RawMessage(data))
	}
	event = &LLMEvent{Provider: provider, Name: raw.Name, Raw: json.RawMessage(data), Text: object.Delta.Text,
		StopReason: object.Delta.StopReason}
	for _, choice := range object.Choices {
		if choice.Index == 0 {
			event.Text += choice.Delta.Content
			event.StopReason = cmp.Or(choice.FinishReason, event.StopReason)
		}
	}
	for _, usage := range []json.RawMessage{object.Message.Usage, object.Usage} {
		if tokens, ok := ReadLLMTokens(provider, usage); ok {
			event.Tokens = &tokens
		}
	}
	return event, provider == LLMAnthropic && name == "message_stop", nil
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

func providerError(provider LLMProvider, inner, raw json.RawMessage) *LLMProviderError {
	e := &LLMProviderError{Provider: provider, Raw: raw}
	var known struct {
		Type    any `json:"type"`
		Code    any `json:"code"`
		Message any `json:"message"`
	}
	if json.Unmarshal(inner, &known) != nil { // a bare text
		_ = json.Unmarshal(inner, &e.Message)
		return e
	}
	e.Message, _ = known.Message.(string)
	if text, ok := known.Type.(string); ok {
		e.Type = text
	} else if known.Code != nil {
		e.Type = fmt.Sprint(known.Code)
	}
	return e
}
