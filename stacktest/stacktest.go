// Package stacktest runs the whole STACK server in the test's process.
package stacktest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/pipenet"
)

// TB is the part of testing.TB that the package uses.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// Option configures a [Server].
type Option func(*options)

type options struct{ server mockserver.Options }

// WithLogger makes the server log.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.server.Logger = l } }

// Server is a running mock.
type Server struct {
	mock      *mockserver.Server
	http      *http.Server
	listener  *pipenet.Listener
	transport *http.Transport
	done      chan struct{}
	requests  atomic.Int64

	mu        sync.Mutex
	forwarded map[string][]ForwardedRequest
}

// ForwardedRequest is what an upstream received.
type ForwardedRequest struct {
	Method, Path, Query string
	Header              http.Header
	Body                []byte
}

// Start starts a server; Close ends it.
func Start(opts ...Option) (*Server, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s := &Server{mock: mockserver.New(o.server), listener: pipenet.Listen(), done: make(chan struct{}), forwarded: map[string][]ForwardedRequest{}}
	s.http = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.mock.ServeHTTP(w, r)
	})}
	s.transport = &http.Transport{DialContext: s.listener.DialContext}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(s.listener)
	}()
	return s, nil
}

// New starts a server for a test.
func New(t TB, opts ...Option) *Server {
	t.Helper()
	s, err := Start(opts...)
	if err != nil {
		t.Fatalf("stacktest: %s", err)
	}
	t.Cleanup(s.Close)
	return s
}

// Close ends the server.
func (s *Server) Close() {
	s.transport.CloseIdleConnections()
	_ = s.http.Close()
	_ = s.listener.Close()
	<-s.done
}

// Client returns a client.
func (s *Server) Client(opts ...stack.Option) *stack.Client {
	base := []stack.Option{stack.WithBaseURL("http://stack.mock"), stack.WithAPIKey(s.mock.Credentials().APIKey),
		stack.WithHTTPClient(&http.Client{Transport: s.transport})}
	c, err := stack.New(append(base, opts...)...)
	if err != nil {
		panic(err)
	}
	return c
}

// Requests counts requests.
func (s *Server) Requests() int { return int(s.requests.Load()) }

// Upstream maps a host.
func (s *Server) Upstream(host string, h http.Handler) {
	_ = s.mock.MapUpstream(host, forward.Target{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.forwarded[host] = append(s.forwarded[host], ForwardedRequest{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), body})
		s.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	})})
}

// Forwarded lists what arrived.
func (s *Server) Forwarded(host string) []ForwardedRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]ForwardedRequest(nil), s.forwarded[host]...)
}

var _ = fmt.Sprint
var _ = net.ErrClosed
var _ = time.Now
