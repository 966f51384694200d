package main

import (
	"context"
	"flag"
	"strings"

	"github.com/getstack-go/stack"
)

var revokeCommand = command{
	name: "passports revoke", args: "<jti>", most: 1, summary: "Revoke a passport: the kill switch",
	details:  `What was delegated from the passport falls with it. The agent's next call is refused.`,
	examples: []string{`passports revoke pp_6k2… --reason "posts to the wrong channel"`},
	setup: func(flags *flag.FlagSet) func(context.Context, *app, []string) error {
		reason := flags.String("reason", "", "`why`, for the record; required")
		return func(ctx context.Context, a *app, args []string) error {
			switch {
			case len(args) == 0:
				return misuse("the passport's jti is missing")
			case strings.TrimSpace(*reason) == "":
				return misuse("--reason is missing")
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			revoked, err := client.Passports.Revoke(ctx, args[0], *reason)
			if err != nil || a.json {
				return orEmit(a, err, revoked)
			}
			if revoked.RevokedCount == 0 {
				say(a.out, "Passport %s was revoked before.\n", plain(args[0]))
				return nil
			}
			say(a.out, "Revoked passport %s.\n", plain(args[0]))
			for _, jti := range revoked.Cascaded {
				say(a.out, "Revoked %s, which was delegated from it.\n", plain(jti))
			}
			return nil
		}
	},
}

// orEmit prints a value as JSON unless there is an error.
func orEmit(a *app, err error, v any) error {
	if err != nil {
		return err
	}
	return a.emit(v)
}

const maxIntentShown = 60

var missionsCommand = command{
	name: "mission list", summary: "List Missions, newest first",
	examples: []string{"mission list", "mission list --status live", "mission list --limit 0 --json"},
	setup: func(flags *flag.FlagSet) func(context.Context, *app, []string) error {
		status := flags.String("status", "", "only those that are `live`, completed, revoked or expired")
		limit := flags.Int("limit", 20, "list so `many` at the most; 0 lists all")
		return func(ctx context.Context, a *app, _ []string) error {
			if *limit < 0 {
				return misuse("--limit is %d; it must be 0 or more", *limit)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			rows := [][]string{{"MISSION", "STATUS", "AGENT", "OPENED", "END", "INTENT"}}
			listed := 0
			for m, err := range client.Missions.All(ctx, stack.MissionListParams{Status: stack.MissionState(*status)}) {
				if err != nil {
					return err
				}
				if listed++; a.json {
					if err = a.emit(m); err != nil {
						return err
					}
				}
				end := m.ExpiresAt
				if !m.EndedAt.IsZero() {
					end = m.EndedAt
				}
				rows = append(rows, []string{plain(m.MissionID), plain(string(m.Status)), plain(m.AgentID), local(m.OpenedAt), local(end),
					short(m.IntentSummary, maxIntentShown)})
				if listed == *limit {
					break
				}
			}
			switch {
			case a.json:
				return nil
			case listed == 0:
				say(a.err, "There are no such Missions.\n")
				return nil
			}
			return a.table(rows)
		}
	},
}
