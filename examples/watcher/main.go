// Command watcher is an agent that runs for long: it looks after a repository and greets each new issue, under one Mission
// whose passports change. Each passport accounts for its own stretch of the work.
//
//	go run ./examples/watcher                                  # some seconds: a passport each second
//	go run ./examples/watcher -every 1m -rotate 4h -for 24h    # as it would be used
//
// Everything is embedded: the mock STACK server and a GitHub-like service that gets an issue now and then. The test beside it
// shows how such an agent is tested: a day in virtual time, in milliseconds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// settings say how long and how often.
type settings struct {
	every, rotate, forHow time.Duration
}

func main() {
	var cfg settings
	flag.DurationVar(&cfg.every, "every", 200*time.Millisecond, "how often to look for new issues")
	flag.DurationVar(&cfg.rotate, "rotate", time.Second, "how long to keep a passport")
	flag.DurationVar(&cfg.forHow, "for", 4*time.Second, "how long to watch, at most 24h")
	flag.Parse()
	if cfg.every <= 0 || cfg.rotate <= 0 || cfg.forHow <= 0 || cfg.forHow > 24*time.Hour || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "watcher: the durations must be positive, and -for at most 24h; see -h")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "watcher:", err)
		os.Exit(1)
	}
}

// run is the whole program but for its process.
func run(ctx context.Context, cfg settings, out io.Writer) error {
	server, err := stacktest.Start()
	if err != nil {
		return err
	}
	defer server.Close()
	hub := newHub(cfg.forHow / 5)
	server.Upstream("api.github.com", hub)
	client := server.Client()
	agentID, err := register(ctx, client)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.forHow, errTimeIsUp)
	defer cancel()
	w := &watcher{client: client, agentID: agentID, every: cfg.every, rotate: cfg.rotate, out: out}
	if err = w.watch(ctx); err != nil && !errors.Is(err, errTimeIsUp) {
		return err
	}
	_, _ = fmt.Fprintf(out, "\n%d issues greeted under %d passports of one Mission.\n", w.greeted, w.passports)
	return nil
}

// errTimeIsUp ends the watch as planned.
var errTimeIsUp = errors.New("the time is up")

// register connects GitHub and registers the agent.
func register(ctx context.Context, client *stack.Client) (agentID string, err error) {
	github, err := client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "github",
		OAuthToken: stack.NewSecret("ghp_the-agent-never-sees-this"), Scopes: []string{"repo"}})
	if err != nil {
		return "", err
	}
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "watcher", AccountabilityMode: stack.Enforced})
	if err != nil {
		return "", err
	}
	_, err = client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: github.ID,
		Scopes: github.Scopes})
	return agent.ID, err
}
