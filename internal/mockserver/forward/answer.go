package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/getstack-go/stack/internal/sse"
)

// patience is how long the answer of an opened call may keep silent: before its headers, and between any two of its bytes.
const patience = 10 * time.Minute

// errPatience ends the context of an opened call whose upstream has been silent for too long.
var errPatience = errors.New("the upstream kept silent")

// Answer is an upstream's answer whose body is still to be read, once, by [Answer.Response] or [Answer.Next]. It must be
// closed.
type Answer struct {
	// Status is the upstream's, whatever it is.
	Status int
	// Headers are as in [Response].
	Headers map[string]string

	contentType string
	body        io.ReadCloser
	lines       *sse.Lines
	stream      stream // what is between lines and Next
	secrets     *redactor
	call        *call
	ctx         context.Context
	host        string
	quiet       *time.Timer
	end         func()
}

// Open sends a call as [Forwarder.Do] does, at most once, and returns when the headers of its answer are there. Instead of a
// bound on the whole it has one on silence: 10 minutes. It fails as Do does. Ending ctx ends the answer as well.
func (f *Forwarder) Open(ctx context.Context, r Request) (*Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	quiet := time.AfterFunc(patience, func() { cancel(errPatience) })
	a, err := f.open(ctx, r)
	if err != nil {
		quiet.Stop()
		cancel(nil)
		return nil, err
	}
	a.quiet = quiet
	a.end = func() {
		quiet.Stop()
		cancel(nil)
	}
	return a, nil
}

// open sends a call and waits for the headers of its answer.
func (f *Forwarder) open(ctx context.Context, r Request) (*Answer, error) {
	out, err := f.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	c := &call{forwarder: f, credential: r.Credential}
	secrets := r.Credential.redactor()
	client := http.Client{Transport: c, CheckRedirect: checkRedirect}
	resp, err := client.Do(out)
	if err != nil {
		return nil, c.failure(ctx, out.URL.Host, err, secrets)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		return nil, c.failure(ctx, out.URL.Host, errors.New("it switched to another protocol"), secrets)
	}
	body := unpack(resp)
	return &Answer{Status: resp.StatusCode, Headers: responseHeaders(resp.Header, secrets),
		contentType: resp.Header.Get("Content-Type"), body: body, stream: stream{secrets: secrets}, secrets: secrets, call: c,
		ctx: ctx, host: out.URL.Host}, nil
}

// Close gives the rest of the answer up. Closing twice is as good as once.
func (a *Answer) Close() {
	_ = a.body.Close()
	if a.end != nil {
		a.end()
	}
}

// IsEventStream reports whether the body is a stream of server-sent events.
func (a *Answer) IsEventStream() bool { return mediaType(a.contentType) == "text/event-stream" }

// Response reads the body to its end, at most 10 MiB, and returns the answer as [Forwarder.Do] does.
func (a *Answer) Response() (*Response, error) {
	data, err := io.ReadAll(io.LimitReader(watched{a}, maxResponse+1))
	if err != nil {
		return nil, a.call.failure(a.ctx, a.host, err, a.secrets)
	}
	if len(data) > maxResponse {
		return nil, a.tooLarge(fmt.Sprintf("the answer of %s is larger than %d bytes", a.host, maxResponse))
	}
	out := &Response{Status: a.Status, Headers: a.Headers}
	var binary bool
	if out.Body, binary = answerBody(a.contentType, data, a.secrets); binary {
		out.Headers[EncodingHeader] = "base64"
	}
	return out, nil
}

func (a *Answer) tooLarge(message string) *Error {
	return &Error{Status: http.StatusBadGateway, Code: CodeResponseTooLarge, Message: message,
		Dispatched: a.call.dispatched.Load()}
}

// Next returns the next line of an event stream, without secrets, as soon as it is whole and cannot be a part of a secret that
// the lines after it go on with. How long the stream is does not matter, how long a line is does: at most 8 MiB. The bytes are
// good until the next call. It fails with io.EOF at the end, and otherwise with an [*Error].
func (a *Answer) Next() ([]byte, error) {
	if a.lines == nil {
		a.lines = sse.NewLines(watched{a})
	}
	for {
		if line, ok := a.stream.next(); ok {
			return line, nil
		}
		line, err := a.lines.Next()
		switch {
		case err == nil && a.stream.passes(line):
			return line, nil
		case err == nil:
			a.stream.add(line)
			continue
		}
		if line, ok := a.stream.last(); ok { // and the reader says once more what it said
			return line, nil
		}
		return nil, a.ended(err)
	}
}

// ended is the error for which a stream has no further line.
func (a *Answer) ended(err error) error {
	switch {
	case errors.Is(err, io.EOF) && a.ctx.Err() == nil: // else the upstream ended because it was told to
		return io.EOF
	case errors.Is(err, sse.ErrTooLong):
		return a.tooLarge(fmt.Sprintf("a line of the stream of %s is larger than %d bytes", a.host, sse.MaxLine))
	}
	return a.call.failure(a.ctx, a.host, err, a.secrets)
}

// watched is the body of an answer under its bound on silence.
type watched struct{ answer *Answer }

func (w watched) Read(p []byte) (int, error) {
	if w.answer.quiet != nil {
		w.answer.quiet.Reset(patience)
	}
	return w.answer.body.Read(p)
}
