// Command stackmock is the STACK reference mock as a process, for clients in any language.
//
//	stackmock [-addr 127.0.0.1:4242] [-upstream host=URL]... [-seed FILE] [-control] [-allow-dial] [-chaos SEED] [-quiet]
//
// The first line on standard output is one JSON object, {"url","api_key","operator_id"}; it is written when the server is
// ready. Everything for people goes to standard error. SIGTERM and SIGINT end the process cleanly, with status 0. A wrong
// flag ends it with status 2, anything else that fails with status 1.
//
// -upstream sends proxied calls, and notifications for webhooks, to a host to a server of yours, path and query kept; it may be
// repeated. -control turns on the routes under /_mock/, for loopback only: they move the clock, inject faults, approve, and show
// the emails, SMS and webhook deliveries that notifications have become. A destination for notifications that has the
// operator's own address, operator@example.com, needs no verification. -allow-dial lets calls to other hosts go out to the
// network, to public addresses only. -quiet leaves out the log line of each request.
//
// -chaos gives the server a bad day: about one call in five of each route, and of what the proxy sends to each host, is refused
// with 429 or a 5xx, late, hanging for 45 s, cut off before it is handled, or answered in part or not at all. What happens to a call
// follows from the seed, a number, and from how many calls of its route came before; the seed is printed to standard error. The
// control routes and the -seed are spared.
//
// -seed fills the server from a file before it is ready. The file is a JSON object, every part of it optional:
//
//	{
//	  "services": [
//	    {"service": "slack", "credential": "xoxb-test", "scopes": ["chat:write"]},
//	    {"service": "salesforce", "credential": "token", "fields": {"instance_url": "https://acme.my.salesforce.com"}},
//	    {"service": "crm", "credential": {"username": "u", "password": "p"}}
//	  ],
//	  "agents": [
//	    {"name": "triage", "accountability_mode": "enforced", "services": ["slack", "crm"]}
//	  ],
//	  "policy": {"tier": "developer", "rate_limit_per_minute": 600}
//	}
//
// A service is one of the catalogue, connected with all its scopes unless some are named, or else becomes a custom one. An
// agent has the fields of its registration, and the services that it is granted, with all their scopes. The policy is set last
// and has the fields of the control route's. The ids that result are printed to standard error.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/getstack-go/stack/internal/mockserver"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := stackmock(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

type settings struct {
	addr      string
	upstreams upstreams
	seed      string
	control   bool
	allowDial bool
	chaos     *uint64
	quiet     bool
}

// upstreams is the repeatable flag host=URL.
type upstreams map[string]string

func (u upstreams) String() string { return "" }

func (u upstreams) Set(value string) error {
	host, url, ok := strings.Cut(value, "=")
	if !ok || host == "" || url == "" {
		return errors.New("must be host=URL, such as slack.com=http://127.0.0.1:9999")
	}
	u[host] = url
	return nil
}

// usageError is a command line that cannot be meant.
type usageError struct{ error }

// stackmock runs the program and returns its status.
func stackmock(ctx context.Context, args []string, out, diagnostics io.Writer) int {
	cfg := settings{upstreams: upstreams{}}
	flags := flag.NewFlagSet("stackmock", flag.ContinueOnError)
	flags.SetOutput(diagnostics)
	flags.StringVar(&cfg.addr, "addr", "127.0.0.1:4242", "`address` to listen on; port 0 picks a free one")
	flags.Var(cfg.upstreams, "upstream", "send proxied calls to a host to a base URL: `host=URL`, repeatable")
	flags.StringVar(&cfg.seed, "seed", "", "JSON `file` with services, agents and a policy to begin with")
	flags.BoolVar(&cfg.control, "control", false, "serve the control routes under /_mock/, to loopback only")
	flags.BoolVar(&cfg.allowDial, "allow-dial", false, "let proxied calls to hosts without -upstream go out to the network")
	flags.Func("chaos", "have a bad day, on which about one call in five goes wrong, as the number `SEED` has it", func(value string) error {
		seed, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return errors.New("must be a whole number, not below zero")
		}
		cfg.chaos = &seed
		return nil
	})
	flags.BoolVar(&cfg.quiet, "quiet", false, "do not log requests")
	flags.Usage = func() {
		_, _ = fmt.Fprint(diagnostics, "stackmock is the STACK reference mock as a process.\n\nUsage: stackmock [flags]\n\n")
		flags.PrintDefaults()
		_, _ = fmt.Fprintf(diagnostics, "\nA seed file is a JSON object, every part of it optional:\n\n%s\n", exampleSeed)
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil: // it has been printed
		return 2
	}
	err := run(ctx, cfg, flags.Args(), out, diagnostics)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(diagnostics, "stackmock:", err)
	var usage usageError
	if errors.As(err, &usage) {
		_, _ = fmt.Fprintln(diagnostics, "stackmock -h tells more")
		return 2
	}
	return 1
}

// greeting is the first line on standard output.
type greeting struct {
	URL        string `json:"url"`
	APIKey     string `json:"api_key"`
	OperatorID string `json:"operator_id"`
}

// run serves until ctx is done.
func run(ctx context.Context, cfg settings, args []string, out, diagnostics io.Writer) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	level := slog.LevelInfo
	if cfg.quiet {
		level = slog.LevelWarn
	}
	logger := slog.New(slog.NewTextHandler(diagnostics, &slog.HandlerOptions{Level: level}))
	mock := mockserver.New(mockserver.Options{Logger: logger, Control: cfg.control, AllowDial: cfg.allowDial, Chaos: cfg.chaos})
	defer mock.Close()
	for host, url := range cfg.upstreams {
		if err := mock.MapUpstream(host, forward.Target{URL: url}); err != nil {
			return usageError{fmt.Errorf("-upstream: %w", err)}
		}
	}
	listener, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return listenError(err)
	}
	if cfg.seed != "" { // callers wait meanwhile: nothing is accepted yet
		if err = loadSeed(ctx, mock, cfg.seed, diagnostics); err != nil {
			return errors.Join(fmt.Errorf("-seed %s: %w", cfg.seed, err), listener.Close())
		}
	}
	server := &http.Server{Handler: mock, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 128 << 10} // a passport is the largest header
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { _ = server.Close() }() // after Shutdown it has nothing left to do

	if err = greet(mock, cfg, listener.Addr(), out, diagnostics); err != nil {
		return err
	}
	select {
	case err = <-served:
		return err
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err = server.Shutdown(shutdown); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// listenError tells an address that is none from one that cannot be had.
func listenError(err error) error {
	var malformed *net.AddrError
	if err = fmt.Errorf("-addr: %w", err); errors.As(err, &malformed) {
		return usageError{err}
	}
	return err
}

// greet writes the first line, and for people how to use it.
func greet(mock *mockserver.Server, cfg settings, addr net.Addr, out, diagnostics io.Writer) error {
	hello := greeting{URL: "http://" + reachable(addr), APIKey: mock.Credentials().APIKey, OperatorID: mock.Credentials().OperatorID}
	line, err := json.Marshal(hello)
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintf(out, "%s\n", line); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(diagnostics, "STACK reference mock on %s; api_key is in the line on standard output\n"+
		"  Go:     STACK_BASE_URL=%s STACK_API_KEY=<api_key>\n"+
		"  Python: Stack(<api_key>, base_url=%q)\n", hello.URL, hello.URL, hello.URL)
	if cfg.control {
		_, _ = fmt.Fprintf(diagnostics, "  control routes: %s/_mock/{clock,upstreams,faults,approve,policy,reset,state,notifications}\n", hello.URL)
	}
	if cfg.chaos != nil {
		_, _ = fmt.Fprintf(diagnostics, "  a bad day: about one call in five goes wrong; -chaos %d has it again\n", *cfg.chaos)
	}
	return nil
}

// reachable is an address to call: one that stands for all of the machine's is not.
func reachable(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
	}
	return addr.String()
}
