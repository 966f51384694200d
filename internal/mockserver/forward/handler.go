package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Local returns a round tripper that serves every request by a handler in this process, as calls to a mapped one are.
func Local(handler http.Handler) http.RoundTripper { return local{handler} }

type local struct{ handler http.Handler }

func (l local) RoundTrip(r *http.Request) (*http.Response, error) { return serveLocal(l.handler, r) }

// serveLocal runs a request against a handler in this process, as a server would: the handler sees a request of its own
// with only the path in its URL, may flush and may hang, and its panic is a broken connection. No network is touched. A
// caller whose context ends does not wait for a handler that does not look at its own. From its first flush on, what the
// handler writes arrives as it is written.
func serveLocal(handler http.Handler, r *http.Request) (*http.Response, error) {
	// The handler's context carries none of the caller's values: a router would take them for its own.
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := context.AfterFunc(r.Context(), func() { cancel(context.Cause(r.Context())) })
	in, err := serverRequest(ctx, r)
	if err != nil {
		stop()
		cancel(nil)
		return nil, err
	}
	w := &recorder{ctx: ctx, header: http.Header{}, flushed: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		defer cancel(nil)
		defer stop()
		returned := false
		defer func() {
			if !returned { // it panicked, or ended its goroutine as t.FailNow does
				err := brokenHandler(recover())
				w.finish(err)
				done <- err
			}
		}()
		handler.ServeHTTP(w, in)
		returned = true
		w.finish(nil)
		done <- nil
	}()
	select {
	case <-w.flushed:
		return w.live(r, cancel), nil
	case err := <-done:
		if w.pipe != nil { // it flushed before it ended
			return w.live(r, cancel), nil
		}
		if err != nil {
			return nil, err
		}
		return w.response(r), nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func brokenHandler(reason any) error {
	switch reason {
	case nil:
		return errors.New("its handler ended without returning")
	case http.ErrAbortHandler:
		return errors.New("its handler aborted the connection")
	}
	return fmt.Errorf("its handler panicked: %s", clip(fmt.Sprint(reason)))
}

// serverRequest turns an outgoing request into the one that its server sees.
func serverRequest(ctx context.Context, r *http.Request) (*http.Request, error) {
	target, err := url.ParseRequestURI(r.URL.RequestURI())
	if err != nil {
		return nil, err
	}
	in := r.Clone(ctx)
	in.URL, in.RequestURI, in.RemoteAddr = target, r.URL.RequestURI(), "192.0.2.1:1234"
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.Response, in.GetBody = nil, nil
	return in, nil
}

// recorder is a [http.ResponseWriter] that keeps the answer, up to what is allowed and one byte more, until it is flushed.
type recorder struct {
	ctx    context.Context
	header http.Header
	sent   http.Header // the headers as they were when the answer began
	status int
	body   bytes.Buffer // until the first flush

	flushed chan struct{} // closed by the first flush
	reader  *io.PipeReader
	pipe    *io.PipeWriter // takes what follows
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid status %d", status))
	}
	if w.status != 0 || status < 200 {
		return
	}
	w.status, w.sent = status, w.header.Clone()
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.status == http.StatusNoContent || w.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	if w.pipe != nil {
		return w.pipe.Write(p)
	}
	n, err := w.body.Write(p[:min(len(p), maxResponse+1-w.body.Len())])
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Flush hands the answer on as far as it is.
func (w *recorder) Flush() {
	if w.pipe != nil {
		return
	}
	w.begin()
	w.reader, w.pipe = io.Pipe()
	context.AfterFunc(w.ctx, func() { w.finish(context.Cause(w.ctx)) }) // nobody may be left to read
	close(w.flushed)
}

// finish ends an answer that was flushed: well, or with what broke its handler.
func (w *recorder) finish(err error) {
	if w.pipe != nil {
		_ = w.pipe.CloseWithError(err) // it never fails
	}
}

// begin settles status and headers.
func (w *recorder) begin() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if _, ok := w.sent["Content-Type"]; !ok && w.body.Len() > 0 {
		w.sent.Set("Content-Type", http.DetectContentType(w.body.Bytes())) // as net/http's server does
	}
}

// live is the answer of a handler that goes on writing it. Closing its body tells the handler that its caller is gone.
func (w *recorder) live(r *http.Request, cancel context.CancelCauseFunc) *http.Response {
	return w.answer(r, &liveBody{io.MultiReader(&w.body, w.reader), w.reader, cancel}, -1)
}

type liveBody struct {
	io.Reader
	pipe   *io.PipeReader
	cancel context.CancelCauseFunc
}

func (b *liveBody) Close() error {
	b.cancel(context.Canceled)
	return b.pipe.Close()
}

func (w *recorder) response(r *http.Request) *http.Response {
	w.begin()
	return w.answer(r, io.NopCloser(bytes.NewReader(w.body.Bytes())), int64(w.body.Len()))
}

func (w *recorder) answer(r *http.Request, body io.ReadCloser, length int64) *http.Response {
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)),
		StatusCode:    w.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        w.sent,
		Body:          body,
		ContentLength: length,
		Request:       r,
	}
}
