// Command stackmock is the STACK reference mock as a process, for clients in any language.
//
//	stackmock [-addr 127.0.0.1:4242] [-upstream host=URL]... [-seed FILE] [-control] [-allow-dial]
//
// The first line on standard output is one JSON object, {"url","api_key","operator_id"}; it is written when the server is
// ready. Everything for people goes to standard error. SIGTERM and SIGINT end the process cleanly, with status 0. A wrong
// flag ends it with status 2, anything else that fails with status 1.
//
// -upstream sends proxied calls to a host to a server of yours, path and query kept; it may be repeated. -control turns on
// the routes under /_mock/, which move the clock, inject faults and approve, for loopback only. -allow-dial lets proxied calls
// to other hosts go out to the network, to public addresses only. -seed fills the server from a JSON file; see [seed].
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
	"strings"
	"syscall"
	"time"

	"github.com/getstack-go/stack/internal/mockserver"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

type settings struct {
	addr      string
	upstreams upstreams
	seed      string
	control   bool
	allowDial bool
	quiet     bool
}

// upstreams is the repeatable flag host=URL.
type upstreams map[string]string

func (u upstreams) String() string { return "" }

func (u upstreams) Set(value string) error {
	host, url, ok := strings.Cut(value, "=")
	if !ok || host == "" || url == "" {
		return fmt.Errorf("must be host=URL, such as slack.com=http://127.0.0.1:9999")
	}
	u[host] = url
	return nil
}

func main() {
	cfg := settings{upstreams: upstreams{}}
	flag.StringVar(&cfg.addr, "addr", "127.0.0.1:4242", "`address` to listen on; port 0 picks a free one")
	flag.Var(cfg.upstreams, "upstream", "send proxied calls to a host to a base URL: `host=URL`, repeatable")
	flag.StringVar(&cfg.seed, "seed", "", "JSON `file` with services and agents to begin with")
	flag.BoolVar(&cfg.control, "control", false, "serve the control routes under /_mock/, to loopback only")
	flag.BoolVar(&cfg.allowDial, "allow-dial", false, "let proxied calls to hosts without -upstream go out to the network")
	flag.BoolVar(&cfg.quiet, "quiet", false, "do not log requests")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "stackmock: unexpected argument %q; see -h\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stackmock:", err)
		os.Exit(1)
	}
}

// greeting is the first line on standard output.
type greeting struct {
	URL        string `json:"url"`
	APIKey     string `json:"api_key"`
	OperatorID string `json:"operator_id"`
}

// run serves until ctx is done.
func run(ctx context.Context, cfg settings, out, diagnostics io.Writer) error {
	level := slog.LevelInfo
	if cfg.quiet {
		level = slog.LevelWarn
	}
	logger := slog.New(slog.NewTextHandler(diagnostics, &slog.HandlerOptions{Level: level}))
	mock := mockserver.New(mockserver.Options{Logger: logger, Control: cfg.control, AllowDial: cfg.allowDial})
	for host, url := range cfg.upstreams {
		if err := mock.MapUpstream(host, forward.Target{URL: url}); err != nil {
			return fmt.Errorf("-upstream %s: %w", host, err)
		}
	}
	listener, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	server := &http.Server{Handler: mock, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { _ = server.Close() }() // after Shutdown it has nothing left to do

	hello := greeting{URL: "http://" + listener.Addr().String(), APIKey: mock.Credentials().APIKey, OperatorID: mock.Credentials().OperatorID}
	if cfg.seed != "" {
		if err = loadSeed(ctx, hello, cfg.seed, diagnostics); err != nil {
			return fmt.Errorf("-seed %s: %w", cfg.seed, err)
		}
	}
	line, err := json.Marshal(hello)
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintf(out, "%s\n", line); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(diagnostics, "STACK reference mock on %s; point an SDK at it with STACK_BASE_URL and the key of the first line.\n", hello.URL)

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
