// Package stacktest runs the whole STACK server in the process of a test, so that code which uses the SDK can be tested with
// no network and no account. It is real behaviour: passports are signed, credentials injected and calls forwarded,
// detectors run, the audit log is chained.
//
//	srv := stacktest.New(t)
//	srv.Upstream("slack.com", slackStub)
//	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
//	err := run(t.Context(), srv.Client(), agent.ID)
//	srv.RequireAuditIntact(t)
//
// By default the server is on an in-memory network: it needs no port, and works inside a testing/synctest bubble, where a
// Mission of six hours takes milliseconds. [Server.URL] opens a loopback port for clients in other processes.
//
// What the mock knows of the hosted service, and what is a decision of this project, is listed in the README under Fidelity.
package stacktest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/pipenet"
)

// TB is the part of [testing.TB] that this package uses.
type TB interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Option configures a [Server].
type Option func(*Server)

// WithLogger makes the server log each request at info level, and what goes wrong in it at error level. The default logs
// nothing.
func WithLogger(logger *slog.Logger) Option { return func(s *Server) { s.logger = logger } }

// FailOnOpenMissions makes the test fail at its end when a Mission is still live: somebody forgot to close it.
func FailOnOpenMissions() Option { return func(s *Server) { s.failOnOpen = true } }

// WithChaos gives the server a bad day: about one call in five of each route, and of what the proxy sends to each host, goes
// wrong as calls do in the real world. It is answered 429 with a Retry-After or 500, 502, 503 or 504, is late by up to 5 s, hangs
// for 45 s, which is past the client's timeout and the proxy's, loses its connection before it is handled or its answer afterwards,
// or gets a part of its answer. Of one route's calls no more than two in a row go wrong.
//
// What happens to a call follows from the seed, the route and the number of the call among those of its route, so that a run
// whose calls come in the same order has the same day; [New] logs the seed. Faults that a test asks for by [Server.Fault] come
// first, and what helpers such as [Server.Agent] do to set a test up is spared.
func WithChaos(seed uint64) Option { return func(s *Server) { s.chaos = &seed } }

// Server is a running mock. It is safe for concurrent use.
type Server struct {
	mock       *mockserver.Server
	logger     *slog.Logger
	failOnOpen bool
	classifier InjectionClassifier
	chaos      *uint64

	http      *http.Server
	pipe      *pipenet.Listener
	transport *http.Transport // clients' connections to pipe
	calmPipe  *pipenet.Listener
	calm      *http.Transport // connections to calmPipe, of which a bad day keeps away
	serving   sync.WaitGroup  // listeners, and connections with what is handled on them
	requests  atomic.Int64

	mu        sync.Mutex
	url       string // of the loopback port, once it is open
	forwarded map[string][]ForwardedRequest
}

// Start starts a server for a program that is no test. It must be closed.
func Start(opts ...Option) (*Server, error) {
	s := &Server{pipe: pipenet.Listen(), calmPipe: pipenet.Listen(), logger: slog.New(slog.DiscardHandler), forwarded: map[string][]ForwardedRequest{}}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("stacktest: option %d is nil", i)
		}
		opt(s)
	}
	options := mockserver.Options{Logger: s.logger, Chaos: s.chaos}
	if s.classifier != nil {
		options.Classifier = classifier{s.classifier}
	}
	s.mock = mockserver.New(options)
	s.transport = &http.Transport{DialContext: s.pipe.DialContext, DisableCompression: true}
	s.calm = &http.Transport{DialContext: s.calmPipe.DialContext, DisableCompression: true}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serveHTTP), ConnState: s.connState, // no timeouts: its clients are the test's own
		BaseContext: s.baseContext}
	s.serve(s.pipe)
	s.serve(s.calmPipe)
	return s, nil
}

// New starts a server for a test, which closes it at its end. Requests that no route took are then logged: most likely the
// code under test, or the test, has mistyped one.
func New(t TB, opts ...Option) *Server {
	t.Helper()
	s, err := Start(opts...)
	if err != nil {
		t.Fatalf("%s", err)
	}
	if s.chaos != nil {
		t.Logf("stacktest: a bad day, which is stacktest.WithChaos(%d)", *s.chaos)
	}
	t.Cleanup(func() {
		if s.failOnOpen {
			for _, m := range s.OpenMissions() {
				t.Errorf("stacktest: Mission %s (%s) was left open", m.MissionID, m.IntentSummary)
			}
		}
		s.Close()
		for _, request := range s.UnknownRequests() {
			t.Logf("stacktest: no route %s", request)
		}
	})
	return s
}

// Close ends the server and its connections. It returns when nothing of it runs any more, which takes as long as an upstream
// that was called for a write does, up to 30 s. Deliveries under way are given up.
func (s *Server) Close() {
	s.transport.CloseIdleConnections()
	s.calm.CloseIdleConnections()
	_ = s.http.Close() // its listeners' errors say only that they are closed
	s.serving.Wait()
	s.mock.Close()
}

// baseContext marks what comes over the calm pipe.
func (s *Server) baseContext(l net.Listener) context.Context {
	if l == s.calmPipe {
		return mockserver.Calm(context.Background())
	}
	return context.Background()
}

// connState counts connections. Each begins while its listener is counted, and ends after the last request on it was handled.
func (s *Server) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.serving.Add(1)
	case http.StateClosed:
		s.serving.Done()
	}
}

func (s *Server) serve(l net.Listener) {
	s.serving.Add(1)
	go func() {
		defer s.serving.Done()
		_ = s.http.Serve(l) // ends with ErrServerClosed
	}()
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.mock.ServeHTTP(w, r)
}

// Client returns a client of the server's first operator, on the in-memory network. It panics on an option that is wrong.
// [stack.WithAgent] keeps the agent's key below the home directory: set HOME to a directory of the test.
func (s *Server) Client(opts ...stack.Option) *stack.Client {
	base := []stack.Option{stack.WithBaseURL("http://stack.mock"), stack.WithAPIKey(s.APIKey()),
		stack.WithHTTPClient(&http.Client{Transport: s.transport})}
	client, err := stack.New(append(base, opts...)...)
	if err != nil {
		panic("stacktest: " + err.Error())
	}
	return client
}

// setup is the client that sets tests up.
func (s *Server) setup() *stack.Client {
	return s.Client(stack.WithHTTPClient(&http.Client{Transport: s.calm}))
}

// Transport returns the in-memory link to the server, for a client of one's own.
func (s *Server) Transport() http.RoundTripper { return s.transport }

// URL returns the base URL of a loopback port that reaches the server. The port is opened by the first call. Not for use
// inside a synctest bubble.
func (s *Server) URL() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.url != "" {
		return s.url, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("stacktest: %w", err)
	}
	s.serve(l)
	s.url = "http://" + l.Addr().String()
	return s.url, nil
}

// APIKey returns the key of the first operator.
func (s *Server) APIKey() string { return s.mock.Credentials().APIKey }

// OperatorID returns the id of the first operator.
func (s *Server) OperatorID() string { return s.mock.Credentials().OperatorID }

// Now returns the server's time.
func (s *Server) Now() time.Time { return s.mock.Now() }

// Advance moves the server's clock ahead of the process's and returns its time; everything that falls due on the way has
// happened then. Inside a synctest bubble time.Sleep moves both. It panics on a negative duration.
func (s *Server) Advance(d time.Duration) time.Time {
	if d < 0 {
		panic(fmt.Sprintf("stacktest: Advance(%s): the clock does not go back", d))
	}
	return s.mock.Advance(d)
}

// Reset forgets everything but the operator, its key, and the upstreams; the clock is the process's again,
// and a bad day begins anew.
func (s *Server) Reset() {
	s.mock.Reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forwarded = map[string][]ForwardedRequest{}
}

// Requests returns how many requests the server has got.
func (s *Server) Requests() int { return int(s.requests.Load()) }

// ForwardedRequest is a request that an upstream got, with the credential that the proxy injected.
type ForwardedRequest struct {
	Method string
	Path   string
	Query  string
	Header http.Header
	Body   []byte
}

// Upstream lets a handler stand for a host: proxied calls to it are served by the handler, in this process. A second call
// for the same host replaces the first. It panics on a host that is none.
func (s *Server) Upstream(host string, handler http.Handler) {
	recording := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "the body could not be read", http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		key := strings.ToLower(host)
		s.forwarded[key] = append(s.forwarded[key], ForwardedRequest{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), body})
		s.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler.ServeHTTP(w, r)
	})
	if err := s.mock.MapUpstream(host, forward.Target{Handler: recording}); err != nil {
		panic("stacktest: " + err.Error())
	}
}

// UpstreamURL sends proxied calls to a host to a server at a base URL, such as one in another process.
func (s *Server) UpstreamURL(host, baseURL string) error {
	return s.mock.MapUpstream(host, forward.Target{URL: baseURL})
}

// Forwarded returns what the handler of a host has got, in order. The host is to be written as it was for [Server.Upstream];
// what goes to an [Server.UpstreamURL] is not seen.
func (s *Server) Forwarded(host string) []ForwardedRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := slices.Clone(s.forwarded[strings.ToLower(host)])
	for i := range requests {
		requests[i].Header, requests[i].Body = requests[i].Header.Clone(), bytes.Clone(requests[i].Body)
	}
	return requests
}
