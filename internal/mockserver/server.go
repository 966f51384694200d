package mockserver

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/inject"
	"github.com/getstack-go/stack/internal/mockserver/token"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

// Options configure a [Server]. The zero value is a server for tests: no network, no control routes, silent.
type Options struct {
	Logger    *slog.Logger // default: silent
	Control   bool         // serve the /_mock/ routes, to loopback only
	AllowDial bool         // let proxied calls to hosts without an upstream go out to the network

	Classifier inject.Classifier // the third layer of the injection scan; nil is off

	// Chaos is the seed of a bad day: about one call in five of each route, and of what the proxy sends to each host, goes wrong
	// in a way that the real world knows. nil is a good day.
	Chaos *uint64
}

// Server is the whole mock. It is an http.Handler and safe for concurrent use.
type Server struct {
	logger  *slog.Logger
	clock   clock
	signer  *token.Signer
	vault   *vault.Vault
	forward *forward.Forwarder
	faults  faultTable
	keys    keyring
	oauth   oauthState

	providers providerState
	consents  consentState

	market  market
	routes  []route
	handler http.Handler
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	senders sync.WaitGroup // goroutines that deliver notifications and renew tokens

	classifier inject.Classifier
	scanner    *inject.Scanner // of operators that have set nothing

	connecting sync.Mutex // before mu and every operator's lock

	mu        sync.RWMutex
	operators map[string]*operator
	accounts  map[string]string // ids of operators by their owner's address
	first     Credentials
	unknown   []string // requests that no route took
}

// Credentials are what a client needs to act for an operator.
type Credentials struct {
	APIKey     string
	OperatorID string
}

// New makes a server with one operator on the enterprise tier.
func New(opts Options) *Server {
	s := &Server{logger: opts.Logger, signer: token.NewRandomSigner(), vault: vault.NewRandom()}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.classifier, s.scanner = opts.Classifier, newScanner(opts.Classifier)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.forward = forward.New(forward.Options{AllowDial: opts.AllowDial, Wrap: s.upstreamFaults})
	s.handler = s.newRouter(opts.Control)
	s.faults.day = newBadDay(opts.Chaos)
	id := newID("op_")
	s.first = Credentials{APIKey: newAPIKey(id), OperatorID: id}
	s.Reset()
	return s
}

// Reset forgets everything but the first operator's id and key, the signing key, the routes and the upstreams; the clock is
// the process's again, and a bad day begins anew.
func (s *Server) Reset() {
	s.faults.clear()
	s.clock.ahead.Store(0)
	for _, op := range s.allOperators() {
		op.stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknown = nil
	op := newOperator(s, s.first.OperatorID)
	s.operators = map[string]*operator{op.id: op}
	op.email = OperatorEmail
	s.accounts = map[string]string{op.email: op.id}
	s.keys.clear()
	s.market.clear()
	s.oauth.clear()
	s.providers.clear()
	s.consents.clear()
	s.keys.add(s.first.APIKey, keyOwner{op: op})
}

// Close ends what the server does of itself, such as deliveries, and returns when nothing of it runs any more. What was under
// way is given up. Requests that come later are served still.
func (s *Server) Close() {
	s.cancel()
	for _, op := range s.allOperators() {
		op.stop()
	}
	s.senders.Wait()
}

func (s *Server) allOperators() []*operator {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.operators))
}

// Credentials returns the first operator's id and key.
func (s *Server) Credentials() Credentials { return s.first }

// Now is the server's time.
func (s *Server) Now() time.Time { return s.clock.now() }

// Advance moves the server's clock; everything that falls due on the way has happened when it returns, deliveries too: it
// waits for the answers of their receivers.
func (s *Server) Advance(d time.Duration) time.Time {
	s.clock.advance(d)
	now := s.clock.now()
	for _, op := range s.allOperators() {
		op.settle()
	}
	return now
}

// ServeHTTP answers the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// operatorByID finds an operator by its id.
func (s *Server) operatorByID(id string) (*operator, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	op, ok := s.operators[id]
	return op, ok
}

// atOperator runs fn on the operators, each locked and up to date, until one says that it has what is looked for.
func (s *Server) atOperator(fn func(*operator, time.Time) (found bool, err error)) (found bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, op := range s.operators {
		if found, err = op.upToDate(fn); found {
			break
		}
	}
	return found, err
}

func (op *operator) upToDate(fn func(*operator, time.Time) (bool, error)) (bool, error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	now := op.server.clock.now()
	op.sweep(now)
	return fn(op, now)
}

// MapUpstream sends proxied calls to a host to a handler in this process or to a server's base URL.
func (s *Server) MapUpstream(host string, target forward.Target) error {
	return s.forward.Map(host, target)
}
