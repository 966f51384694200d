package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault makes the next calls that match go wrong: after a delay, in one way.
type Fault struct {
	// Method is an HTTP method in any case; the empty one matches all.
	Method string
	// Path is a route pattern such as /v1/passports/{passport_jti}/checkpoint, or upstream:<host> for what the proxy sends there.
	Path string
	// Times is how many calls are met; 0 means one.
	Times int

	// Delay is waited before anything else.
	Delay time.Duration
	// Status, 400 to 599, is answered and the call not handled. An upstream's answer then has Code, if any, as {"error": Code}.
	Status int
	// Code is the error code that goes with Status. The API's is FAULT_INJECTED when it is empty.
	Code string
	// RetryAfter goes with Status, as a Retry-After header of whole seconds.
	RetryAfter time.Duration
	// Close drops the connection instead of answering.
	Close CloseAt
	// TruncateBytes answers only so many bytes of the body, then drops the connection. A shorter answer is left whole.
	TruncateBytes int
}

// upstreamPath begins the path of a fault on the way to an upstream.
const upstreamPath = "upstream:"

// checkFault refuses a fault that could never happen: a test with it would prove nothing.
func (s *Server) checkFault(f Fault) error {
	if err := firstError(
		within("body.times", f.Times, 0, 1_000_000),
		oneOf("body.close", f.Close, CloseBefore, CloseAfter),
		within("body.delay_ms", int(f.Delay/time.Millisecond), 0, 3_600_000),
		within("body.retry_after_seconds", int(f.RetryAfter/time.Second), 0, 1_000_000),
		within("body.truncate_bytes", f.TruncateBytes, 0, 1<<30),
	); err != nil {
		return err
	}
	if f.Status != 0 && (f.Status < 400 || f.Status > 599) {
		return invalid("body.status", f.Status, "400 to 599")
	}
	effects := 0
	for _, set := range []bool{f.Status != 0, f.Close != CloseNever, f.TruncateBytes != 0} {
		if set {
			effects++
		}
	}
	switch {
	case effects > 1:
		return invalid("body", "a fault in several ways", "one with status, close or truncate_bytes, and not two of them")
	case effects == 0 && f.Delay == 0:
		return invalid("body", "a fault without effect", "one with status, close, truncate_bytes or delay_ms")
	case f.Status == 0 && (f.Code != "" || f.RetryAfter != 0):
		return invalid("body.status", nil, "given when code or retry_after_seconds is")
	}
	if host, ok := strings.CutPrefix(f.Path, upstreamPath); ok {
		if host == "" || strings.ContainsAny(host, "/: ") {
			return invalid("body.path", f.Path, "upstream:<host> with a host name and no port")
		}
		return nil
	}
	for _, r := range s.routes {
		if r.pattern == f.Path && (f.Method == "" || strings.EqualFold(f.Method, r.method)) {
			return nil
		}
	}
	return invalid("body.path", strings.TrimSpace(f.Method+" "+f.Path), "the pattern of a route, such as "+
		s.nearestRoute(strings.ToUpper(f.Method), &url.URL{Path: f.Path})+", or upstream:<host>")
}

// AddFault puts a fault in force and returns its id. It fails when the fault could never happen.
func (s *Server) AddFault(f Fault) (id string, err error) {
	if err := s.checkFault(f); err != nil {
		return "", err
	}
	if strings.HasPrefix(f.Path, upstreamPath) {
		f.Path = strings.ToLower(f.Path)
	}
	return s.faults.add(f), nil
}

// RemoveFault takes a fault away, if it is still in force.
func (s *Server) RemoveFault(id string) { s.faults.remove(id) }

// FaultLeft returns how many calls a fault is still to meet.
func (s *Server) FaultLeft(id string) int { return s.faults.left(id) }

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
	day    *badDay // nil is a good one
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

func (t *faultTable) remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = slices.DeleteFunc(t.faults, func(f *activeFault) bool { return f.id == id })
}

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
	if t.day != nil { // it begins anew
		t.day = newBadDay(&t.day.seed)
	}
}

// take finds the newest fault that matches and counts it down. Without one it is the day's turn.
func (t *faultTable) take(ctx context.Context, method, path string) *faultRun {
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
	if t.day == nil || isCalm(ctx) || strings.HasPrefix(path, "/_mock/") {
		return nil
	}
	return t.day.next(method, path)
}

// match takes the fault of an API call, waits its delay, and returns the refusal that it stands for, if it does.
func (t *faultTable) match(ctx context.Context, method, path string) (*faultRun, error) {
	run := t.take(ctx, method, path)
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

// Unwrap lets http.ResponseController reach the writer below.
func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

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
	return faultyUpstream{&s.faults, upstreamPath + host, next}
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
	run := u.faults.take(r.Context(), r.Method, u.path)
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
		return run.upstreamAnswer(r), nil
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

// upstreamAnswer is what an upstream in trouble says.
func (r *faultRun) upstreamAnswer(req *http.Request) *http.Response {
	resp := &http.Response{StatusCode: r.fault.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: http.NoBody, Request: req}
	if r.fault.RetryAfter > 0 {
		resp.Header.Set("Retry-After", retryAfterSeconds(r.fault.RetryAfter))
	}
	if r.fault.Code != "" {
		body, _ := json.Marshal(map[string]string{"error": r.fault.Code}) // strings always have a JSON form
		resp.Header.Set("Content-Type", "application/json")
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return resp
}

// retryAfterSeconds writes a delay as the header wants it: whole seconds, never too few.
func retryAfterSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
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
