package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// quietTransport bounds how long an answer may keep silent, before its headers and between any two of its bytes, in place of
// a bound on the whole of it.
type quietTransport struct {
	next  http.RoundTripper // nil is http.DefaultTransport
	limit time.Duration
}

// errSilent is the cause with which a silent answer is ended.
var errSilent = errors.New("silent")

// RoundTrip sends one request.
func (t *quietTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	b := &quietBody{ctx: ctx, limit: t.limit, timer: time.AfterFunc(t.limit, func() { cancel(errSilent) }), cancel: cancel}
	resp, err := next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		b.release()
		return nil, b.explain(err)
	}
	b.ReadCloser = resp.Body
	resp.Body = b
	return resp, nil
}

// quietBody is the body of such an answer.
type quietBody struct {
	io.ReadCloser
	ctx    context.Context
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (b *quietBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop() // a reader that takes its time is not the answer's silence
	return n, b.explain(err)
}

// Close gives up what was not read.
func (b *quietBody) Close() error {
	b.release()
	return b.ReadCloser.Close()
}

func (b *quietBody) release() {
	b.timer.Stop()
	b.cancel(nil)
}

// explain tells silence from other failures.
func (b *quietBody) explain(err error) error {
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(b.ctx), errSilent) {
		return fmt.Errorf("nothing arrived for %s: %w", b.limit, os.ErrDeadlineExceeded)
	}
	return err
}
