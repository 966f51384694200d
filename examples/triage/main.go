// Command triage is the five-minute path: a langchaingo agent works through a file of support tickets under a STACK
// passport. It acknowledges each ticket in the Slack channel that its topic belongs to, through the credential proxy, so that
// the agent never holds Slack's token; checkpoints account for what happened, and a checkout ends the run. At the end it
// prints what was declared beside what was done, the checkpoints, the review, the verified audit log, and what Slack got.
//
// Without flags and keys everything is embedded: the mock STACK server, a Slack-like service, and a scripted model behind an
// OpenAI-compatible endpoint.
//
//	go run ./examples/triage                     # the 20 tickets that ship beside it
//	go run ./examples/triage -tickets FILE       # other tickets, JSON Lines; - is standard input
//	go run ./examples/triage -kill-after 5       # pull the kill switch after five tickets
//	go run ./examples/triage -live               # the hosted service and a real model (STACK_API_KEY, OPENAI_API_KEY)
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/getstack-go/stack"
)

//go:embed tickets.jsonl
var sampleTickets string

type settings struct {
	tickets   string
	killAfter int
	live      bool
	verbose   bool
}

func main() {
	var cfg settings
	flag.StringVar(&cfg.tickets, "tickets", "", "JSON Lines `file` of tickets, - for standard input (default: the sample that ships)")
	flag.IntVar(&cfg.killAfter, "kill-after", 0, "pull the kill switch after `N` tickets")
	flag.BoolVar(&cfg.live, "live", false, "use the hosted STACK service and a real model: needs STACK_API_KEY and OPENAI_API_KEY")
	flag.BoolVar(&cfg.verbose, "v", false, "log the agent's steps")
	flag.Parse()
	if flag.NArg() > 0 || cfg.killAfter < 0 {
		fmt.Fprintln(os.Stderr, "triage: takes flags only, and -kill-after must not be negative; see -h")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg, os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "triage:", err)
		os.Exit(1)
	}
}

// run is the whole program but for its process.
func run(ctx context.Context, cfg settings, in io.Reader, out, diagnostics io.Writer) error {
	tickets, err := openTickets(cfg.tickets, in)
	if err != nil {
		return err
	}
	defer tickets.Close() //nolint:errcheck // it was only read

	list, skipped, err := readTickets(tickets, func(line int, problem error) {
		_, _ = fmt.Fprintf(diagnostics, "triage: line %d skipped: %s\n", line, problem)
	})
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("no ticket to work on (%d lines skipped)", skipped)
	}

	logger := slog.New(slog.DiscardHandler)
	if cfg.verbose {
		logger = slog.New(slog.NewTextHandler(diagnostics, nil))
	}
	env, err := prepare(ctx, cfg.live, logger)
	if err != nil {
		return err
	}
	defer env.close()

	job := &triage{env: env, out: out, logger: logger, killAfter: cfg.killAfter}
	runErr := job.work(ctx, list)
	if job.mission == nil {
		return runErr
	}
	if err := job.report(context.WithoutCancel(ctx), skipped); err != nil {
		return errors.Join(runErr, err)
	}
	if job.killed && errors.Is(runErr, stack.ErrPassportRevoked) {
		_, _ = fmt.Fprintln(out, "The kill switch stopped the agent, as asked.")
		return nil
	}
	return runErr
}

func openTickets(name string, in io.Reader) (io.ReadCloser, error) {
	switch name {
	case "":
		return io.NopCloser(strings.NewReader(sampleTickets)), nil
	case "-":
		return io.NopCloser(in), nil
	}
	return os.Open(name)
}
