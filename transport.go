package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	maxErrorBody  = 1 << 20  // more of an error body than this is not read
	maxAnswerBody = 48 << 20 // a proxied answer may hold 10 MB, base64-encoded and escaped
)

// send makes a call and decodes its answer.
func send[T any](ctx context.Context, c *Client, cl *call) (*T, error) {
	return sendBy[T](ctx, c.transport, cl)
}

func sendBy[T any](ctx context.Context, t *transport, cl *call) (*T, error) {
	ans, err := t.do(ctx, cl)
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := ans.decode(cl, out); err != nil {
		return nil, err
	}
	return out, nil
}

// sendList makes a call whose answer is a bare array.
func sendList[T any](ctx context.Context, c *Client, cl *call) ([]T, error) {
	out, err := send[[]T](ctx, c, cl)
	if err != nil {
		return nil, err
	}
	return *out, nil
}

// download makes a call whose answer is bytes, and writes them to w; what names them in the error of a writer that fails.
func (c *Client) download(ctx context.Context, cl *call, what string, w io.Writer) (int64, error) {
	ans, err := c.transport.do(ctx, cl)
	if err != nil {
		return 0, err
	}
	n, err := w.Write(ans.body)
	if err != nil {
		return int64(n), fmt.Errorf("stack: writing the %s: %w", what, err)
	}
	return int64(n), nil
}

// answer is a read response with a good status.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) decode(cl *call, out any) error {
	if a.status == http.StatusNoContent {
		return nil
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return &DecodeError{Method: cl.method, Route: cl.pattern, Status: a.status, Excerpt: excerptUnlessJSON(a.body), Err: err}
	}
	return nil
}

// transport is the one place where requests are built, sent, retried and read.
type transport struct {
	base       *url.URL
	bearer     bearer // authorises one request; nil sends it without credentials
	bearerOnce bool   // and no other
	userAgent  string
	logger     *slog.Logger
	http       *http.Client
	streams    *http.Client // of answers that may take longer than a timeout
	maxRetries int
	budget     *retryBudget
}

func newTransport(base *url.URL, cfg config) *transport {
	inner := http.Client{}
	if cfg.httpClient != nil {
		inner = *cfg.httpClient
	} else if pool, ok := http.DefaultTransport.(*http.Transport); ok { // a program may have put its own in that place: then that
		pool = pool.Clone()
		pool.MaxIdleConnsPerHost = pool.MaxIdleConns // all calls go to one host
		inner.Transport = pool
	}
	inner.CheckRedirect = refuseForeignRedirect
	streams := inner
	streams.Transport, streams.Timeout = &quietTransport{inner.Transport, cfg.timeout}, 0
	inner.Timeout = cfg.timeout
	t := &transport{base: base, logger: cfg.logger, http: &inner, streams: &streams, maxRetries: cfg.maxRetries,
		budget:    newRetryBudget(),
		userAgent: fmt.Sprintf("getstack-go/%s (%s; %s/%s)", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)}
	if cfg.userAgent != "" {
		t.userAgent += " " + cfg.userAgent
	}
	return t
}

// by is the same transport with another bearer.
func (t *transport) by(b bearer) *transport {
	other := *t
	other.bearer = b
	return &other
}

// as is the same transport for an agent, which signs each request anew.
func (t *transport) as(a *agentAuth) *transport {
	agent := t.by(a.bearer)
	agent.bearerOnce = true
	return agent
}

// redirectError refuses a redirect. The client's credentials would follow it.
type redirectError struct{ reason string }

func (e *redirectError) Error() string { return "redirect refused: " + e.reason }

func refuseForeignRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case first.Method != http.MethodGet && first.Method != http.MethodHead:
		return &redirectError{"the call is a " + first.Method}
	case req.URL.Scheme != first.URL.Scheme || req.URL.Host != first.URL.Host:
		return &redirectError{"it leads to another scheme, host or port"}
	case len(via) >= 5:
		return &redirectError{"too many in a row"}
	}
	return nil
}

// do sends a call, again where that is safe, and returns its answer or a typed error.
func (t *transport) do(ctx context.Context, cl *call) (*answer, error) {
	ans := &answer{}
	resp, err := t.exchange(ctx, cl, t.http, ans, ans.read)
	if resp != nil {
		defer resp.Body.Close() //nolint:errcheck // nothing is lost: the body is read or given up
	}
	if err != nil {
		return nil, err
	}
	return ans, nil
}

// stream sends a call, again where that is safe, and returns as soon as its answer begins. Instead of the timeout of other
// calls it has one of the same length on silence. The body must be closed.
func (t *transport) stream(ctx context.Context, cl *call) (*http.Response, error) {
	ans := &answer{}
	resp, err := t.exchange(ctx, cl, t.streams, ans, func(resp *http.Response) error {
		if good(resp.StatusCode) {
			ans.status, ans.header = resp.StatusCode, resp.Header
			return nil
		}
		return ans.read(resp)
	})
	if err != nil && resp != nil {
		_ = resp.Body.Close()
	}
	return resp, err
}

func good(status int) bool { return status >= 200 && status < 300 }

// exchange builds a call's request and sends it until its answer is read into ans. The response is not nil where one came.
func (t *transport) exchange(
	ctx context.Context, cl *call, client *http.Client, ans *answer, read func(*http.Response) error,
) (*http.Response, error) {
	target, err := cl.url(t.base)
	if err != nil {
		return nil, err
	}
	var body any // a nil interface keeps retryablehttp from sending an empty body
	contentType := "application/json"
	if cl.form != nil {
		body, contentType = []byte(cl.form.Encode()), "application/x-www-form-urlencoded"
	} else if cl.body != nil {
		if body, err = marshalJSON(cl.body); err != nil {
			return nil, &ParamError{Param: "body of " + cl.method + " " + cl.pattern, Reason: "cannot be sent as JSON: " + err.Error()}
		}
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, cl.method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("stack: %s %s: %w", cl.method, cl.pattern, stripURL(err))
	}
	for name, values := range cl.header {
		if strings.ContainsFunc(values[0], func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, &ParamError{Param: name, Reason: "has a character outside printable ASCII, which a header cannot carry"}
		}
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", t.userAgent)
	req.SetResponseHandler(read)
	x := &exchange{transport: t, http: client, call: cl, began: time.Now()}
	if err = ctx.Err(); err != nil {
		return nil, x.failure(ctx, err)
	}
	if err = x.authorize(req.Request); err != nil {
		return nil, x.failure(ctx, err)
	}
	resp, err := x.client().Do(req)
	if err != nil {
		return resp, x.failure(ctx, err)
	}
	if !passing(ans.status) {
		t.budget.refund()
	}
	if !good(ans.status) {
		apiErr := parseError(ans.status, ans.header, ans.body)
		apiErr.Method, apiErr.Route, apiErr.Attempts, apiErr.acted = cl.method, cl.pattern, x.n, x.actedBefore
		if cl.missionBound {
			return resp, asMissionEnded(apiErr)
		}
		return resp, apiErr
	}
	return resp, nil
}

// read takes the whole body, up to a bound. Of a refusal, what arrived is enough: its status counts.
func (a *answer) read(resp *http.Response) error {
	limit := int64(maxAnswerBody)
	if resp.StatusCode >= 400 {
		limit = maxErrorBody
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil && resp.StatusCode < 400 {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if int64(len(body)) > limit {
		if resp.StatusCode < 400 {
			return &tooLargeError{limit}
		}
		body = body[:limit]
	}
	a.status, a.header, a.body = resp.StatusCode, resp.Header, body
	return nil
}

type tooLargeError struct{ limit int64 }

func (e *tooLargeError) Error() string { return fmt.Sprintf("the answer is over %d bytes", e.limit) }

// unsentError marks a call that certainly did not act: no attempt reached the server, or each was refused at the door.
type unsentError struct{ error }

func (e *unsentError) Unwrap() error { return e.error }

// sentError marks a call that got no answer and may have acted. What it wraps may be the cause of a context's end, and such a
// cause may look like an answer of the API's.
type sentError struct{ error }

func (e *sentError) Unwrap() error { return e.error }

func stripURL(err error) error {
	var urlErr *url.Error
	for errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	return err
}

// neverSent reports that no connection was made.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// exchange is one call across its attempts.
type exchange struct {
	*transport
	http  *http.Client
	call  *call
	began time.Time
	n     int           // the attempt that runs, from 1
	wait  time.Duration // before the next one
	final bool          // the attempt's status ends the call; its body is read next
	acted bool          // an attempt may have reached the server and done something

	actedBefore bool // one before this one may have
}

// client makes the retry loop of this one call: its hooks get no other state than what is theirs.
func (x *exchange) client() *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient:     x.http,
		RetryMax:       x.maxRetries,
		CheckRetry:     x.checkRetry,
		PrepareRetry:   x.authorize,
		RequestLogHook: func(_ retryablehttp.Logger, _ *http.Request, n int) { x.n, x.final = n+1, false },
		Backoff:        func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return x.wait },
		ErrorHandler:   retryablehttp.PassthroughErrorHandler,
	}
}

// authorize gives an attempt its bearer, which may serve once.
func (x *exchange) authorize(req *http.Request) error {
	if x.bearer == nil {
		return nil
	}
	token, err := x.bearer(req.Context())
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	if x.bearerOnce { // net/http itself must not send it again: it does so only with a body that it can have anew
		req.GetBody = nil
		if req.Body == nil || req.Body == http.NoBody {
			req.Body = io.NopCloser(strings.NewReader(""))
		}
	}
	return nil
}

// checkRetry decides whether an attempt is followed by another. The table:
//
//	never sent (dialling failed)             every call
//	429                                      every call: it was refused, so it did not act
//	other connection errors, cut answers     reads and keyed calls
//	408, 500, 502, 503, 504                  reads and keyed calls
//	anything else                            no call
//
// Nothing is retried once the context is done, when the wait would pass its deadline or the cap, or when the client's
// retry budget is spent.
func (x *exchange) checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if x.final && err == nil { // asked again, once the body was read
		return false, nil
	}
	x.actedBefore = x.acted
	safe := x.call.method == http.MethodGet || x.call.keyed
	var again bool
	var asked time.Duration
	if err != nil {
		x.acted = x.acted || !neverSent(err)
		again = (safe || neverSent(err)) && retryableFailure(ctx, err)
	} else {
		refused := resp.StatusCode == http.StatusTooManyRequests
		x.acted = x.acted || !refused
		again = refused || safe && passing(resp.StatusCode)
		asked = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	x.wait = max(asked, fullJitter(x.n-1))
	deadline, bounded := ctx.Deadline()
	again = again && ctx.Err() == nil && x.n <= x.maxRetries && asked <= maxRetryWait &&
		(!bounded || time.Until(deadline) > x.wait) && x.budget.take()
	x.final = !again && err == nil
	x.log(ctx, resp, err, again)
	return again, nil
}

// passing reports statuses that another attempt may not meet.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryableFailure leaves out what another attempt cannot mend: refused redirects, certificates, bad schemes.
func retryableFailure(ctx context.Context, err error) bool {
	var redirect *redirectError
	var tooLarge *tooLargeError
	if errors.As(err, &redirect) || errors.As(err, &tooLarge) {
		return false
	}
	again, _ := retryablehttp.DefaultRetryPolicy(ctx, nil, err)
	return again
}

// fullJitter doubles a quarter of a second n times, up to 8 s, and takes a random part of it.
func fullJitter(n int) time.Duration {
	ceiling := 250 * time.Millisecond << min(n, 5)
	return time.Millisecond + rand.N(ceiling)
}

// failure names a failed exchange by method and route: the URL, with its query, stays out of the text. A context that
// ended is told with its cause.
func (x *exchange) failure(ctx context.Context, err error) error {
	inner := stripURL(err)
	if ctx.Err() != nil {
		inner = cancellation(ctx)
	}
	wrapped := fmt.Errorf("stack: %s %s: %w", x.call.method, x.call.pattern, inner)
	if !x.acted {
		return &unsentError{wrapped}
	}
	return &sentError{wrapped}
}

// cancellation is the end of a context that has ended, with its cause.
func cancellation(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); cause != err { //nolint:errorlint // is it the very same value
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// log tells of one attempt, or that the reading of its answer failed.
func (x *exchange) log(ctx context.Context, resp *http.Response, err error, again bool) {
	if !x.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", x.call.method), slog.String("route", x.call.pattern),
		slog.Int("attempt", x.n), slog.Duration("elapsed", time.Since(x.began)),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", stripURL(err).Error()))
	} else {
		attrs = append(attrs, slog.Int("status", resp.StatusCode), slog.String("request_id", resp.Header.Get("X-Request-Id")))
	}
	if again {
		attrs = append(attrs, slog.Duration("retry_in", x.wait))
	}
	x.logger.LogAttrs(ctx, slog.LevelDebug, "stack call", attrs...)
}
