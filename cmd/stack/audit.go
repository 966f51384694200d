package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

const (
	followEvery   = 2 * time.Second
	maxTail       = 100 // which the server lists at the most
	maxErrorShown = 80
)

var tailCommand = command{
	name: "audit tail", summary: "Show the newest rows of the audit log",
	details: `The columns are time, outcome, action, agent and passport, and the error of what has failed. With -f it goes on with each new
row until it is interrupted, also when the server is away for a while.`,
	examples: []string{"audit tail", "audit tail -f --agent agt_5x0…", "audit tail --since 1h -n 100 --json"},
	setup: func(flags *flag.FlagSet) func(context.Context, *app, []string) error {
		t := tail{}
		flags.IntVar(&t.n, "n", 20, "begin with so `many` rows, at most 100")
		flags.BoolVar(&t.follow, "f", false, "go on with each new row")
		flags.StringVar(&t.agent, "agent", "", "only rows of the agent with this `id`")
		flags.StringVar(&t.passport, "passport", "", "only rows of the passport with this `jti`")
		since := flags.String("since", "", "only rows that are newer than this `time`, such as 2026-01-02T15:04:05Z, or age, such as 90m")
		return func(ctx context.Context, a *app, _ []string) (err error) {
			if t.n < 0 || t.n > maxTail {
				return misuse("-n is %d; it may be 0 to %d", t.n, maxTail)
			}
			if *since != "" {
				if t.since, err = parseSince(*since, time.Now()); err != nil {
					return err
				}
			}
			if t.client, err = a.client(); err != nil {
				return err
			}
			t.app = a
			return t.run(ctx)
		}
	},
}

func parseSince(text string, now time.Time) (time.Time, error) {
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		return now.Add(-age), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, misuse("--since is %q; it must be a time such as 2026-01-02T15:04:05Z or an age such as 90m", text)
	}
	return at, nil
}

// tail shows the end of the audit log.
type tail struct {
	*app
	client          *stack.Client
	n               int
	follow          bool
	agent, passport string
	since           time.Time       // rows up to there were shown
	seen            map[string]bool // rows of that very moment that were shown as well
}

func (t *tail) run(ctx context.Context) error {
	page, err := t.client.Audit.List(ctx, stack.AuditListParams{Limit: max(t.n, 1), Since: t.since, AgentID: t.agent, PassportJTI: t.passport})
	if err != nil {
		return err
	}
	t.seen = map[string]bool{}
	if !t.since.IsZero() { // the listing had what is newer; an export begins with what is as old
		t.since = t.since.Truncate(time.Millisecond).Add(time.Millisecond)
	}
	for i, row := range slices.Backward(page.Entries) {
		t.pass(row)
		if i >= t.n {
			continue
		}
		if err = t.show(row); err != nil {
			return err
		}
	}
	if !t.follow {
		return nil
	}
	return t.watch(ctx)
}

// watch shows new rows until ctx is done. It reads exports, since a listing leaves out rows when many come at once.
func (t *tail) watch(ctx context.Context) error {
	away := false
	for {
		select {
		case <-time.After(followEvery):
		case <-ctx.Done():
			return nil
		}
		err := t.catchUp(ctx)
		var refused *stack.Error
		switch {
		case ctx.Err() != nil: // which ends the loop
		case err == nil:
			away = false
		case errors.As(err, &refused) && refused.Status < 500 && refused.Status != http.StatusTooManyRequests, errors.Is(err, errOutput):
			return err
		case !away:
			away = true
			say(t.err, "%s\nTrying again.\n", err)
		}
	}
}

// catchUp shows the rows that are new.
func (t *tail) catchUp(ctx context.Context) error {
	for row, err := range t.client.Audit.All(ctx, stack.AuditRange{From: t.since}) {
		if err != nil {
			return err
		}
		if t.pass(row) && (t.agent == "" || row.AgentID == t.agent) && (t.passport == "" || row.PassportJTI == t.passport) {
			if err = t.show(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// pass notes that a row was read, and says whether it is a new one.
func (t *tail) pass(row stack.AuditEntry) bool {
	if row.Timestamp.After(t.since) {
		t.since = row.Timestamp
		clear(t.seen)
	}
	isNew := !t.seen[row.EntryID]
	t.seen[row.EntryID] = true
	return isNew
}

// errOutput is that nobody reads what is printed any more.
var errOutput = errors.New("the output cannot be written")

func (t *tail) show(row stack.AuditEntry) error {
	err := error(nil)
	if t.json {
		err = t.emit(row)
	} else {
		line := fmt.Sprintf("%s  %-7s  %-28s  %-30s  %-29s", local(row.Timestamp), plain(string(row.Outcome)), plain(row.Action),
			orDash(row.AgentID), orDash(row.PassportJTI))
		if row.ErrorCode != "" {
			line += "  " + short(row.ErrorCode+" "+row.ErrorMessage, maxErrorShown)
		}
		_, err = fmt.Fprintln(t.out, strings.TrimRight(line, " "))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return plain(text)
}
