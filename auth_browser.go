package stack

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"golang.org/x/oauth2"
)

const (
	personPatience  = 5 * time.Minute // for which a person is waited for (contract: endpoints 4.5 and 4.6)
	callbackHeader  = 10 * time.Second
	callbackHeaders = 32 << 10
)

// opener brings a person to a page.
type opener func(ctx context.Context, address string) error

// WithBrowser replaces the way in which a client brings a person to a page where they sign in, or approve an agent's key: open
// is called with the page's address in place of printing it to standard error and starting the machine's browser. It also says
// that there is a person, though standard output is no terminal; STACK_AUTH_INTERACTIVE=false and CI still say that there is
// none. The page sends the person on to a port of this machine's loopback interface, so their browser must run here, or reach
// that port through a tunnel.
//
// open must return without waiting for the answer; its context ends when nobody waits for that any more. When it fails, the
// calls that wait fail with its error.
func WithBrowser(open func(ctx context.Context, address string) error) Option {
	return func(c *config) error {
		if open == nil {
			return &ParamError{Param: "WithBrowser", Reason: "is nil; leave the option out for the machine's own browser"}
		}
		c.browser = open
		return nil
	}
}

// person returns how a person is asked, or nil when there is none to ask. (contract: endpoints 4.2)
func (c *config) person() opener {
	if strings.EqualFold(os.Getenv("STACK_AUTH_INTERACTIVE"), "false") || os.Getenv("CI") != "" {
		return nil
	}
	if c.browser == nil && isatty.IsTerminal(os.Stdout.Fd()) {
		return openBrowser
	}
	return c.browser
}

// openBrowser prints an address for the person and tries to open it: the browser may as well be on another machine.
func openBrowser(ctx context.Context, address string) error {
	fmt.Fprintf(os.Stderr, "\nSTACK: approve in your browser. If it does not open, open this address:\n\n  %s\n\n", address)
	name, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...) // the browser may live on
	if cmd.Start() == nil {
		_ = cmd.Process.Release() // nobody waits for it
	}
	return nil
}

// question is what a person answers on a page of the server, which sends them on to a port of ours with the answer.
type question struct {
	path    string // of our port
	answer  string // the parameter that holds the answer
	refused int    // our status when the answer is an error
	// page gives the page's address.
	page func(ctx context.Context, callback, state string) (string, error)
}

// reply is how a question ends.
type reply struct {
	answer Secret
	err    error
}

// listenLoopback opens a free port for the answer to a question.
func listenLoopback(ctx context.Context) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("stack: no port for the browser's answer: %w", err)
	}
	return l, nil
}

// ask brings the person to the page and waits for the answer, at the most for [personPatience]. It closes the listener. A
// request without our state is none of the page's and changes nothing.
func (q *question) ask(ctx context.Context, l net.Listener, open opener) (answer Secret, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("stack: asking a person in the browser, for want of an API key: %w", err)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, personPatience, &Error{Code: signInTimedOut,
		Message: "nobody has approved in the browser for " + personPatience.String() + "; a new client asks again"})
	defer cancel()
	state, replies := rand.Text(), make(chan reply, 1)
	defer q.serve(l, state, replies)()
	address, err := q.page(ctx, "http://"+l.Addr().String()+q.path, state)
	if err == nil {
		if err = open(ctx, address); err != nil {
			err = fmt.Errorf("opening it: %w", err)
		}
	}
	if ctx.Err() == nil && err != nil {
		return Secret{}, err
	}
	select {
	case r := <-replies:
		return r.answer, r.err
	case <-ctx.Done():
		var late *Error
		if errors.As(context.Cause(ctx), &late) {
			return Secret{}, late
		}
		return Secret{}, cancellation(ctx)
	}
}

// serve answers the browser until stop is called, which returns when nothing of it runs any more.
func (q *question) serve(l net.Listener, state string, replies chan<- reply) (stop func()) {
	var running sync.WaitGroup // the listener, and its connections
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+q.path, func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(state)) != 1 {
			showPerson(w, http.StatusBadRequest, "This is not the answer that is waited for")
			return
		}
		got := reply{answer: NewSecret(query.Get(q.answer))}
		switch code := query.Get("error"); {
		case code != "":
			got = reply{err: &Error{Code: strings.ToUpper(oneLine(code, maxNameText)),
				Message: cmp.Or(oneLine(query.Get("error_description"), maxMessageText), "the page has refused")}}
			showPerson(w, q.refused, "Not approved")
		case got.answer.IsZero():
			got = reply{err: &Error{Code: unknownCode, Message: "the page has sent the browser back without a " + q.answer}}
			showPerson(w, http.StatusBadRequest, "The answer is missing")
		default:
			showPerson(w, http.StatusOK, "Approved")
		}
		select {
		case replies <- got: // the first counts
		default:
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: callbackHeader, MaxHeaderBytes: callbackHeaders,
		ErrorLog: log.New(io.Discard, "", 0), ConnState: func(_ net.Conn, to http.ConnState) {
			switch to {
			case http.StateNew:
				running.Add(1)
			case http.StateClosed:
				running.Done()
			}
		}}
	running.Go(func() { _ = server.Serve(l) }) // it fails when it is closed
	return func() {
		_ = server.Close()
		running.Wait()
	}
}

// showPerson sends a page whole: what comes after may close the connection.
func showPerson(w http.ResponseWriter, status int, title string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Connection", "close")
	page := fmt.Sprintf("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>%[1]s</title>\n"+
		"<body style=\"font-family: system-ui; padding: 40px\">\n<h1>%[1]s</h1>\n<p>You can close this tab.</p>\n</html>\n", title)
	h.Set("Content-Length", strconv.Itoa(len(page))) // in chunks, its end would come with the end of the handler
	w.WriteHeader(status)
	_, _ = io.WriteString(w, page)
	_ = http.NewResponseController(w).Flush()
}

// shared is work that is done once for all callers who wait for its outcome. It ends early when none of them does any more.
// Where a person is needed and does not want it, that is the outcome for good: they are not asked again and again.
type shared[T any] struct {
	mu      sync.Mutex
	running *sharedRun[T]
	refusal error
}

type sharedRun[T any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int
	value   T
	err     error
}

func (s *shared[T]) wait(ctx context.Context, work func(context.Context) (T, error)) (none T, err error) {
	s.mu.Lock()
	if err = s.refusal; err != nil {
		s.mu.Unlock()
		return none, err
	}
	run := s.running
	if run == nil {
		run = s.start(ctx, work)
	}
	run.waiting++
	s.mu.Unlock()
	select {
	case <-run.done:
		return run.value, run.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if run.waiting--; run.waiting == 0 {
		run.cancel()
		if s.running == run { // who comes now begins anew
			s.running = nil
		}
	}
	return none, cancellation(ctx)
}

func (s *shared[T]) start(ctx context.Context, work func(context.Context) (T, error)) *sharedRun[T] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	run := &sharedRun[T]{done: make(chan struct{}), cancel: cancel}
	s.running = run
	go func() {
		defer cancel()
		run.value, run.err = work(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.running == run {
			s.running = nil
		}
		if errors.Is(run.err, errPersonRefused) {
			s.refusal = run.err
		}
		close(run.done)
	}()
	return run
}

// browserSession is the session of a person who signs in when the first call needs it.
type browserSession struct {
	transport *transport
	open      opener
	signingIn shared[*fileSession]
	session   atomic.Pointer[fileSession]
}

// bearer gives an access token, once the person has signed in.
func (b *browserSession) bearer(ctx context.Context) (Secret, error) {
	session := b.session.Load()
	if session == nil {
		var err error
		if session, err = b.signingIn.wait(ctx, b.signIn); err != nil {
			return Secret{}, err
		}
	}
	return session.bearer(ctx)
}

// signIn has a person sign in on the server's page, and keeps the session in the credentials file. (contract: endpoints 4.5)
func (b *browserSession) signIn(ctx context.Context) (*fileSession, error) {
	if session := b.session.Load(); session != nil {
		return session, nil
	}
	path, err := credentialsPath()
	if err != nil {
		return nil, err
	}
	session, err := newFileSession(path, b.transport)
	if errors.Is(err, ErrNoCredentials) { // unless another program has signed in meanwhile
		session, err = b.askForSession(ctx, path)
	}
	if err != nil {
		return nil, err
	}
	b.session.Store(session)
	return session, nil
}

func (b *browserSession) askForSession(ctx context.Context, path string) (*fileSession, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil { // before the person is troubled
		return nil, fmt.Errorf("stack: the credentials file cannot be written: %w", err)
	}
	l, err := listenLoopback(ctx)
	if err != nil {
		return nil, err
	}
	endpoint, err := OAuthEndpoint(b.transport.base.String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	conf, verifier := oauth2.Config{Endpoint: endpoint, Scopes: signInScopes}, oauth2.GenerateVerifier()
	code, err := (&question{path: "/callback", answer: "code", refused: http.StatusBadRequest,
		page: func(ctx context.Context, callback, state string) (address string, err error) {
			conf.RedirectURL = callback
			conf.ClientID, err = registerClient(ctx, b.transport, clientRegistration{Name: onThisHost("STACK Go SDK"),
				RedirectURIs: []string{callback}, GrantTypes: []string{"authorization_code", "refresh_token"}, SoftwareID: softwareID})
			return conf.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("resource", DefaultBaseURL)), err
		}}).ask(ctx, l, b.open)
	if err != nil {
		return nil, err
	}
	// The code is used up by this: who no longer waits does not lose the session.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.transport.http.Timeout)
	defer cancel()
	tok, err := conf.Exchange(context.WithValue(ctx, oauth2.HTTPClient, b.transport.http), code.Reveal(), oauth2.VerifierOption(verifier))
	if err != nil {
		return nil, fmt.Errorf("stack: signing in by browser: %w", tokenError(err))
	}
	if tok.RefreshToken == "" {
		return nil, &Error{Code: unknownCode, Method: http.MethodPost, Route: oauthTokenRoute, Message: "the answer has no refresh_token"}
	}
	if err = saveCredentials(ctx, path, conf.ClientID, NewSecret(tok.RefreshToken), strings.Join(signInScopes, " ")); err != nil {
		return nil, err
	}
	session, err := newFileSession(path, b.transport)
	if err == nil {
		err = session.accept(tok, time.Now())
	}
	return session, err
}

// dashboardURL is the origin of the page where agents' keys are approved. (contract: endpoints 4.6)
func dashboardURL(base *url.URL) (string, error) {
	if set := os.Getenv("STACK_DASHBOARD_URL"); set != "" {
		u, err := parseBaseURL("STACK_DASHBOARD_URL", set)
		if err != nil {
			return "", err
		}
		return u.String(), nil
	}
	if base.Scheme == "http" && isLoopback(base.Hostname()) {
		return "http://localhost:3100", nil
	}
	return "https://getstack.run", nil
}

// askForTicket has a person approve that an agent gets a key, and returns the ticket that enrols it. (contract: endpoints 4.6)
func askForTicket(ctx context.Context, base *url.URL, agentID string, open opener) (Secret, error) {
	dashboard, err := dashboardURL(base)
	if err != nil {
		return Secret{}, err
	}
	l, err := listenLoopback(ctx)
	if err != nil {
		return Secret{}, err
	}
	process := []rune(strings.ToValidUTF8("go "+filepath.Base(os.Args[0]), "?"))
	return (&question{path: "/cb", answer: "ticket", refused: http.StatusForbidden,
		page: func(_ context.Context, callback, state string) (string, error) {
			return dashboard + "/sdk-bootstrap?" + url.Values{"agent_id": {agentID}, "callback": {callback}, "state": {state},
				"machine": {hostName(maxLabel)}, "process": {string(process[:min(len(process), maxLabel)])}}.Encode(), nil
		}}).ask(ctx, l, open)
}
