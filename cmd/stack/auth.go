package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

var loginCommand = command{
	name: "auth login", summary: "Sign in with a one-time code",
	details: `It shows a code and the page where you enter it, in any browser on any device, and waits until you have approved there.
The session is written to ~/.stack/credentials.json, where the SDKs find it too; it ends when it is not used for 30 days.`,
	examples: []string{"auth login", "auth login --base-url http://127.0.0.1:4242", "auth login --scopes audit:read,passports:read"},
	setup: func(flags *flag.FlagSet) func(context.Context, *app, []string) error {
		scopes := flags.String("scopes", "", "ask for these `scopes` only, separated by commas")
		noBrowser := flags.Bool("no-browser", false, "do not offer to open the browser")
		return func(ctx context.Context, a *app, _ []string) error {
			wanted := strings.FieldsFunc(*scopes, func(r rune) bool { return r == ',' || r == ' ' })
			client, err := stack.SignIn(ctx, stack.SignInParams{File: a.credentialsFile(), Scopes: wanted,
				Prompt: func(ctx context.Context, code stack.DeviceCode) error { return a.prompt(ctx, code, *noBrowser) }}, a.reach()...)
			if err != nil {
				return err
			}
			if a.getenv("STACK_API_KEY") != "" {
				say(a.err, "STACK_API_KEY is set: it is used in place of this session as long as it is.\n")
			}
			return a.showStatus(ctx, client, a.sessionStatus())
		}
	},
}

// prompt shows the code, and opens the page when the person presses Enter. They may as well open it elsewhere, so nothing waits
// for that.
func (a *app) prompt(ctx context.Context, code stack.DeviceCode, noBrowser bool) error {
	say(a.err, "Your one-time code: %s\n", code.UserCode)
	if !a.terminal || noBrowser {
		say(a.err, "Open %s and enter it there, before %s.\n", code.VerificationURI, local(code.ExpiresAt))
		return nil
	}
	page := cmp.Or(code.VerificationURIComplete, code.VerificationURI)
	say(a.err, "Press Enter to open %s in your browser, or enter the code there on another device.\n", code.VerificationURI)
	go func() {
		if _, err := bufio.NewReader(a.in).ReadString('\n'); err != nil || ctx.Err() != nil {
			return
		}
		if err := a.browse(page); err != nil {
			say(a.err, "The browser does not open (%s): open the page yourself.\n", err)
		}
	}()
	return nil
}

var statusCommand = command{
	name: "auth status", summary: "Say who is signed in",
	details:  `It asks the server, so that it also says whether the key or the session is still good.`,
	examples: []string{"auth status", "auth status --json"},
	setup: func(*flag.FlagSet) func(context.Context, *app, []string) error {
		return func(ctx context.Context, a *app, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if a.getenv("STACK_API_KEY") != "" {
				return a.showStatus(ctx, client, authStatus{Method: "api_key", Source: "STACK_API_KEY"})
			}
			return a.showStatus(ctx, client, a.sessionStatus())
		}
	},
}

// authStatus is who is signed in, and by what.
type authStatus struct {
	BaseURL    string    `json:"base_url"`
	OperatorID string    `json:"operator_id,omitempty"` // unknown to who may neither read the audit log nor the balance
	Method     string    `json:"method"`                // api_key or session
	Source     string    `json:"source"`
	Scopes     []string  `json:"scopes,omitempty"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"` // unless it is used before
}

// sessionStatus is what the credentials file says beside its secrets.
func (a *app) sessionStatus() authStatus {
	status := authStatus{Method: "session", Source: a.credentialsFile()}
	var file struct {
		Scope   string `json:"scope"`
		Expires int64  `json:"refresh_expires_at"`
	}
	if data, err := os.ReadFile(status.Source); err == nil && json.Unmarshal(data, &file) == nil {
		status.Scopes = strings.Fields(file.Scope)
		if file.Expires != 0 {
			status.ExpiresAt = time.Unix(file.Expires, 0).UTC()
		}
	}
	return status
}

func (a *app) showStatus(ctx context.Context, client *stack.Client, status authStatus) (err error) {
	status.BaseURL = client.BaseURL()
	if status.OperatorID, err = operatorOf(ctx, client); err != nil {
		return err
	}
	if status.Method == "session" { // asking may have renewed it
		status.ExpiresAt = a.sessionStatus().ExpiresAt
	}
	if a.json {
		return a.emit(status)
	}
	say(a.out, "Signed in to %s", status.BaseURL)
	if status.OperatorID != "" {
		say(a.out, " as %s", plain(status.OperatorID))
	}
	say(a.out, "\n")
	rows := [][]string{{"  by", plain(status.Source)}}
	if len(status.Scopes) > 0 {
		rows = append(rows, []string{"  scopes", plain(strings.Join(status.Scopes, ", "))})
	}
	if !status.ExpiresAt.IsZero() {
		rows = append(rows, []string{"  until", local(status.ExpiresAt) + ", or 30 days after its next use"})
	}
	return a.table(rows)
}

// operatorOf asks the server whose account the caller acts for, which no route of its own says: the audit log's rows do, and the
// balance. It is empty for a caller who may read neither.
func operatorOf(ctx context.Context, client *stack.Client) (string, error) {
	log, err := client.Audit.List(ctx, stack.AuditListParams{Limit: 1})
	if err == nil && len(log.Entries) > 0 {
		return log.Entries[0].OperatorID, nil
	}
	if err != nil && !errors.Is(err, stack.ErrForbidden) {
		return "", err
	}
	balance, err := client.Billing.Balance(ctx)
	if errors.Is(err, stack.ErrForbidden) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return balance.OperatorID, nil
}

var logoutCommand = command{
	name: "auth logout", summary: "End the session",
	details: `It has the server revoke the session and removes ~/.stack/credentials.json. When the server cannot be reached, the file stays;
--local removes it all the same.`,
	examples: []string{"auth logout", "auth logout --local"},
	setup: func(flags *flag.FlagSet) func(context.Context, *app, []string) error {
		localOnly := flags.Bool("local", false, "remove the file without asking the server")
		return func(ctx context.Context, a *app, _ []string) error {
			revoked, err := stack.SignOut(ctx, stack.SignOutParams{File: a.credentialsFile(), Local: *localOnly}, a.reach()...)
			switch {
			case err != nil:
				return err
			case a.json:
				return a.emit(map[string]bool{"revoked": revoked})
			case revoked:
				say(a.out, "Signed out.\n")
			default:
				say(a.out, "Signed out here. The server has not ended the session: that happens when it is not used for 30 days.\n")
			}
			if a.getenv("STACK_API_KEY") != "" {
				say(a.err, "STACK_API_KEY is still set, and authenticates.\n")
			}
			return nil
		}
	},
}
