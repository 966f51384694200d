// Package forward sends proxied calls to their upstreams, safely. It knows nothing of passports, scopes or operations: it is
// given a target, what to send and the credential to inject, and sees to URL safety, header rules, dialling, redirects,
// limits, the form of the answer and that no secret comes back in it. (contract: decisions, Proxy)
//
// Where the contract is silent, these rules are this package's own:
//
//   - Names of response headers are in lower case, and several values of one name are joined by ", ". Headers named
//     x-stack-* are dropped in this direction too: they would pass for the proxy's own.
//   - A redirect that is not followed (another host, a downgrade to http, the sixth in a row) is itself the answer: the
//     caller gets its 3xx status and its location. An upgrade from http to https on the same host is followed.
//   - An empty list of allowed hosts stands for every mapped host, and for no other.
//   - JSON with a key twice in one object is refused: what was checked and what the upstream reads could differ.
//   - A body of null is no body. In a form, null fields are left out.
//   - Secrets shorter than 6 characters are not looked for in answers, since they would shred ordinary text. Others are
//     recognised escaped, in base64 and in hexadecimal digits, too; not when they are encrypted, packed otherwise than by
//     gzip or deflate, reversed or told in parts. In an event stream they are recognised over several events.
//   - An answer packed by gzip or deflate is unpacked, whether it was asked for or not.
//   - Hosts are ASCII, and a name whose last label is a number is refused.
package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	timeout      = 30 * time.Second // for a whole call with its redirects
	maxResponse  = 10 << 20         // bytes, after decompression
	maxRedirects = 5
)

// Options configure a [Forwarder].
type Options struct {
	// AllowDial lets calls to hosts that are not mapped go out to the network, to public addresses only.
	AllowDial bool
	// Wrap, when set, is asked on each call for a round tripper around the one that reaches the host, so that a call can be
	// failed, delayed or recorded. Host has no port. The wrapper sees requests before the credential is injected. An error
	// that it returns without calling next counts as not dispatched.
	Wrap func(host string, next http.RoundTripper) http.RoundTripper
}

// Target is where calls to a mapped host go: one of its fields is set.
type Target struct {
	// Handler serves the calls in this process, without any network.
	Handler http.Handler
	// URL is the base URL of a server, such as http://127.0.0.1:9999. Path, query and Host header stay the call's own.
	URL string
}

// Forwarder sends calls to upstreams. Make one with [New]. It is safe for concurrent use and needs no closing: it keeps no
// connections and no goroutines beyond its calls.
type Forwarder struct {
	wrap   func(host string, next http.RoundTripper) http.RoundTripper
	mapped *http.Transport // to the URLs of targets, which may be on loopback
	dialed *http.Transport // to anywhere public; nil when dialling is off

	mu      sync.RWMutex
	targets map[string]target
}

type target struct {
	handler http.Handler
	base    *url.URL
}

// New returns a forwarder without mapped hosts.
func New(opts Options) *Forwarder {
	f := &Forwarder{wrap: opts.Wrap, mapped: newTransport(&net.Dialer{}), targets: map[string]target{}}
	if opts.AllowDial {
		f.dialed = newTransport(&net.Dialer{ControlContext: guard})
	}
	return f
}

// Map sends the calls to a host to a target, in place of an earlier one. The host is a name in any case, for all its ports
// or, written host:port, for that one. It fails on a host or a target that is malformed.
func (f *Forwarder) Map(host string, t Target) error {
	key, err := hostKey(host)
	if err != nil {
		return err
	}
	if (t.Handler == nil) == (t.URL == "") {
		return fmt.Errorf("target of %s must have a handler or a URL, and not both", key)
	}
	to := target{handler: t.Handler}
	if t.URL != "" {
		base, err := ParseURL(t.URL)
		if err != nil {
			return fmt.Errorf("target of %s: %w", key, err)
		}
		if strings.Trim(base.Path, "/") != "" || base.RawQuery != "" {
			return fmt.Errorf("target of %s is %q; it must have neither path nor query", key, clip(t.URL))
		}
		to.base = base
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets[key] = to
	return nil
}

// Unmap undoes Map for the host, if it was mapped.
func (f *Forwarder) Unmap(host string) {
	key, err := hostKey(host)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.targets, key)
}

func (f *Forwarder) lookup(u *url.URL) (target, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, key := range hostKeys(u) {
		if t, ok := f.targets[key]; ok {
			return t, true
		}
	}
	return target{}, false
}

// Request is a call for an upstream.
type Request struct {
	// Method is GET, POST, PUT, PATCH or DELETE, in any case.
	Method string
	// URL is the target, from [ParseURL].
	URL *url.URL
	// Query is added to the URL's own.
	Query map[string]string
	// Headers are the caller's. Credentials and what belongs to the connection are left out.
	Headers map[string]string
	// Body is JSON as it was received; nil and null are no body.
	Body json.RawMessage
	// Credential is injected, whatever the caller's headers say.
	Credential Credential
	// AllowedHosts are the hosts to which the credential may go: names, with a port or without, or *.example.com for all names
	// below example.com. An empty list allows every mapped host.
	AllowedHosts []string
}

// Response is an upstream's answer, without secrets.
type Response struct {
	// Status is the upstream's, whatever it is.
	Status int
	// Headers have names in lower case; several of one name are joined by ", ".
	Headers map[string]string
	// Body is the JSON of a JSON answer, else a JSON string, or {"base64": "…"} for what is no text (then the header
	// x-stack-body-encoding is base64), or null.
	Body json.RawMessage
}

var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

// Do sends a call, at most once, and waits at most 30 s for the whole answer of at most 10 MiB. It fails with an [*Error];
// answers of 4xx and 5xx are no errors. Redirects within the same host are followed, at most 5.
func (f *Forwarder) Do(ctx context.Context, r Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a, err := f.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.Response()
}

// prepare makes the outgoing request, without the credential, or refuses it.
func (f *Forwarder) prepare(ctx context.Context, r Request) (*http.Request, error) {
	method := strings.ToUpper(r.Method)
	if !slices.Contains(methods, method) {
		return nil, invalid("method", fmt.Sprintf("is %q", clip(r.Method)), "one of "+strings.Join(methods, ", "))
	}
	u, err := f.CheckURL(r)
	if err != nil {
		return nil, err
	}
	if err = r.Credential.check(); err != nil {
		return nil, err
	}
	header, err := requestHeader(r.Headers)
	if err != nil {
		return nil, err
	}
	body, err := convertBody(header, r.Body)
	if err != nil {
		return nil, err
	}
	if header.Get("Content-Type") == "" && body.contentType != "" {
		header.Set("Content-Type", body.contentType)
	}
	var reader io.Reader
	if body.bytes != nil {
		reader = bytes.NewReader(body.bytes)
	}
	out, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return nil, badURL("cannot be called")
	}
	out.Header = header
	return out, nil
}

// CheckURL returns the URL that a call would go to, or the same [*Error] for which [Forwarder.Do] would refuse it before it
// is sent: a URL that cannot be called, or a host to which the credential may not go.
func (f *Forwarder) CheckURL(r Request) (*url.URL, error) {
	if r.URL == nil {
		return nil, badURL("is missing")
	}
	u, err := ParseURL(WithQuery(r.URL, r.Query).String())
	if err != nil {
		return nil, err
	}
	return u, f.checkHost(u, r.AllowedHosts)
}

// checkHost refuses a host that is not in the list, or, with no list, one that is not mapped and would be dialled.
func (f *Forwarder) checkHost(u *url.URL, list []string) error {
	if len(list) > 0 && allowedHost(u, list) {
		return nil
	}
	allowed := strings.Join(list, ", ")
	if len(list) == 0 {
		if _, mapped := f.lookup(u); mapped || f.dialed == nil {
			return nil
		}
		allowed = "a mapped host, since the connection names no allowed hosts"
	}
	return &Error{Status: http.StatusForbidden, Code: CodeHostNotAllowed, Field: "url", Sent: u.Host, Allowed: allowed,
		Message: fmt.Sprintf("the credential may not go to the host %s; allowed: %s", clip(u.Host), allowed)}
}

// checkRedirect follows a redirect only within the same host; otherwise the redirect is the answer.
func checkRedirect(next *http.Request, via []*http.Request) error {
	last := via[len(via)-1].URL
	target, err := ParseURL(next.URL.String())
	if err != nil || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	upgrade := last.Scheme == "http" && target.Scheme == "https" && last.Port() == "" && target.Port() == ""
	if target.Hostname() != last.Hostname() || !upgrade && (target.Scheme != last.Scheme || target.Port() != last.Port()) {
		return http.ErrUseLastResponse
	}
	next.URL = target
	return nil
}

// call is the round tripper of one call with its redirects.
type call struct {
	forwarder  *Forwarder
	credential Credential
	dispatched atomic.Bool // something may have reached the upstream
}

// RoundTrip sends one request through the wrapper for its host.
func (c *call) RoundTrip(r *http.Request) (*http.Response, error) {
	var next http.RoundTripper = roundTripper(c.send)
	if c.forwarder.wrap != nil {
		next = c.forwarder.wrap(r.URL.Hostname(), next)
	}
	return next.RoundTrip(r)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// send injects the credential and reaches the upstream.
func (c *call) send(r *http.Request) (*http.Response, error) {
	to, mapped := c.forwarder.lookup(r.URL)
	transport := c.forwarder.mapped
	if !mapped {
		if transport = c.forwarder.dialed; transport == nil {
			return nil, unreachable("no upstream is mapped for the host " + clip(r.URL.Host) + ", and dialling is off")
		}
	}
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { c.dispatched.Store(true) },
	})
	r = r.Clone(ctx)
	c.credential.inject(r)
	if to.handler != nil {
		c.dispatched.Store(true)
		return serveLocal(to.handler, r)
	}
	if to.base != nil {
		r.Host = r.URL.Host
		r.URL.Scheme, r.URL.Host = to.base.Scheme, to.base.Host
	}
	return transport.RoundTrip(r)
}

// failure turns an error of the transport, which may quote the URL or a header, into one for the caller.
func (c *call) failure(ctx context.Context, host string, err error, secrets *redactor) *Error {
	var refused *Error
	if errors.As(err, &refused) {
		e := *refused
		e.Dispatched = c.dispatched.Load()
		return &e
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var network net.Error
	e := unreachable(fmt.Sprintf("the upstream %s failed: %s", clip(host), clip(secrets.text(err.Error()))))
	switch silent := errors.Is(context.Cause(ctx), errPatience); {
	case errors.Is(ctx.Err(), context.Canceled) && !silent:
		e.Message = fmt.Sprintf("the call to %s was cancelled", clip(host))
	case ctx.Err() != nil, errors.As(err, &network) && network.Timeout():
		e.Status, e.Code = http.StatusGatewayTimeout, CodeTimeout
		e.Message = fmt.Sprintf("the upstream %s did not answer in time", clip(host))
	}
	e.Dispatched = c.dispatched.Load()
	return e
}
