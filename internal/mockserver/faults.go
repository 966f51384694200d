package mockserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Fault makes the next calls that match go wrong. Path is a route pattern such as /v1/proxy, or upstream:<host> for what
// the proxy sends there. The empty Method matches all; Times 0 means once.
type Fault struct {
	Method        string
	Path          string
	Times         int
	Status        int    // answer this instead of handling the call
	Code          string // with Status; FAULT_INJECTED when empty
	RetryAfter    time.Duration
	Delay         time.Duration // wait before anything else
	Close         CloseAt       // drop the connection
	TruncateBytes int           // answer only so many bytes of the body, then drop the connection
}

// CloseAt says when a fault drops the connection.
type CloseAt string

// Moments to drop the connection.
const (
	CloseNever  CloseAt = ""
	CloseBefore CloseAt = "before" // the call is not handled
	CloseAfter  CloseAt = "after"  // the call is handled and its answer lost
)

// faultTable holds the faults in force. The zero value is ready.
type faultTable struct {
	mu     sync.Mutex
	next   int
	faults []*activeFault
}

type activeFault struct {
	Fault
	id   string
	left int
}

// add puts a fault in force and returns its id.
func (t *faultTable) add(f Fault) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	id := fmt.Sprintf("flt_%d", t.next)
	t.faults = append(t.faults, &activeFault{Fault: f, id: id, left: max(f.Times, 1)})
	return id
}

// remove takes a fault away and reports how many of its calls it has not seen.
func (t *faultTable) remove(id string) (left int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range t.faults {
		if f.id == id {
			t.faults = append(t.faults[:i], t.faults[i+1:]...)
			return f.left
		}
	}
	return 0
}

// left returns how many calls a fault is still to meet.
func (t *faultTable) left(id string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.faults {
		if f.id == id {
			return f.left
		}
	}
	return 0
}

func (t *faultTable) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = nil
}

// take finds the newest fault that matches and counts it down.
func (t *faultTable) take(method, path string) *faultRun {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := len(t.faults) - 1; i >= 0; i-- {
		f := t.faults[i]
		if f.Path != path || f.Method != "" && !strings.EqualFold(f.Method, method) {
			continue
		}
		if f.left--; f.left == 0 {
			t.faults = append(t.faults[:i], t.faults[i+1:]...)
		}
		return &faultRun{f.Fault}
	}
	return nil
}

// match takes the fault of an API call, waits its delay, and returns the refusal that it stands for, if it does.
func (t *faultTable) match(ctx context.Context, method, path string) (*faultRun, error) {
	run := t.take(method, path)
	if run == nil {
		return nil, nil
	}
	run.wait(ctx)
	if ctx.Err() != nil { // the caller has hung up; the call is not handled behind its back
		panic(http.ErrAbortHandler)
	}
	if run.fault.Status == 0 {
		return run, nil
	}
	return run, run.refusal()
}

// faultRun is a fault at work on one call; a nil one does nothing.
type faultRun struct{ fault Fault }

func (r *faultRun) wait(ctx context.Context) {
	if r.fault.Delay <= 0 {
		return
	}
	timer := time.NewTimer(r.fault.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *faultRun) refusal() *apiError {
	code := r.fault.Code
	if code == "" {
		code = "FAULT_INJECTED"
	}
	err := refuse(r.fault.Status, code, "a fault that the test asked for", nil)
	err.retryAfter = r.fault.RetryAfter
	return err
}

func (r *faultRun) before() {
	if r != nil && r.fault.Close == CloseBefore {
		panic(http.ErrAbortHandler)
	}
}

func (r *faultRun) after() {
	if r != nil && r.fault.Close == CloseAfter {
		panic(http.ErrAbortHandler)
	}
}

// writer cuts the body where the fault says.
func (r *faultRun) writer(w http.ResponseWriter) http.ResponseWriter {
	if r == nil || r.fault.TruncateBytes <= 0 {
		return w
	}
	return &cutWriter{w, r.fault.TruncateBytes}
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		_, _ = w.ResponseWriter.Write(p[:w.left])
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	w.left -= len(p)
	return w.ResponseWriter.Write(p)
}

// upstreamFaults lets the faults of an upstream ("upstream:slack.com") happen around the round tripper that reaches it.
func (s *Server) upstreamFaults(host string, next http.RoundTripper) http.RoundTripper {
	return faultyUpstream{&s.faults, "upstream:" + host, next}
}

type faultyUpstream struct {
	faults *faultTable
	path   string
	next   http.RoundTripper
}

var (
	errDroppedBefore = errors.New("connection dropped before the request")
	errDroppedAfter  = errors.New("connection dropped after the request")
)

func (u faultyUpstream) RoundTrip(r *http.Request) (*http.Response, error) {
	run := u.faults.take(r.Method, u.path)
	if run == nil {
		return u.next.RoundTrip(r)
	}
	run.wait(r.Context())
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	switch {
	case run.fault.Close == CloseBefore:
		return nil, errDroppedBefore
	case run.fault.Status != 0:
		return &http.Response{StatusCode: run.fault.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
			Body: http.NoBody, Request: r}, nil
	}
	resp, err := u.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if run.fault.Close == CloseAfter {
		return nil, errors.Join(errDroppedAfter, resp.Body.Close())
	}
	if n := run.fault.TruncateBytes; n > 0 {
		resp.Body = &cutBody{resp.Body, n}
	}
	return resp, nil
}

// cutBody ends a body early, as a dropped connection does.
type cutBody struct {
	io.ReadCloser
	left int
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
