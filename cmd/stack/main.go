// Command stack signs a person in to STACK, and shows and stops what their agents do.
//
//	stack auth login            sign in with a one-time code
//	stack auth status           say who is signed in
//	stack auth logout           end the session
//	stack passports revoke      revoke a passport: the kill switch
//	stack audit tail            show the newest rows of the audit log
//	stack audit verify          verify the audit log's hash chain
//	stack mission list          list Missions
//
// Each command tells more with -h. Flags may come before and after arguments.
//
// It authenticates with the key in STACK_API_KEY or, without one, with the session in ~/.stack/credentials.json that
// "stack auth login" writes and that the SDKs use as well. It calls the server of --base-url, of STACK_BASE_URL, or
// https://api.getstack.run; naming another one sends it those credentials.
//
// Results go to standard output: for people, with times in their own zone, or with --json for programs, one JSON object a line
// with the names that the API uses. Everything else goes to standard error. The exit status is 0 for success, 1 for failure, 2 for a
// command line that cannot be meant, and 4 when nobody is signed in.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"

	"github.com/getstack-go/stack"
)

// Exit statuses.
const (
	failed      = 1
	misused     = 2
	notSignedIn = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	home, err := os.UserHomeDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stack: no place for ~/.stack:", err)
		os.Exit(failed)
	}
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, home: home, browse: browse,
		terminal: isatty.IsTerminal(os.Stdin.Fd()) && isatty.IsTerminal(os.Stderr.Fd())}
	status := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

// browse opens a page in the person's browser.
func browse(page string) error {
	name, args := "xdg-open", []string{page}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", page}
	}
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release() // nobody waits for it
}

// app is the world that a command runs in.
type app struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	home     string
	browse   func(page string) error
	terminal bool           // a person reads err and can answer on in
	options  []stack.Option // further ones, of how a server is reached

	baseURL string
	json    bool
}

// command is one thing that the program does.
type command struct {
	name     string // its words
	args     string // what it takes beside flags
	most     int    // arguments
	summary  string
	details  string
	examples []string
	// setup declares the command's flags and gives what it does.
	setup func(*flag.FlagSet) func(context.Context, *app, []string) error
}

func commands() []command {
	return []command{loginCommand, statusCommand, logoutCommand, revokeCommand, tailCommand, verifyCommand, missionsCommand}
}

// usageError is a command line that cannot be meant.
type usageError struct{ error }

func misuse(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run runs the program and returns its status.
func (a *app) run(ctx context.Context, args []string) int {
	words := min(len(args), 2)
	name := strings.Join(args[:words], " ")
	i := slices.IndexFunc(commands(), func(c command) bool { return c.name == name })
	if i < 0 {
		return a.withoutCommand(args)
	}
	c := commands()[i]
	flags := flag.NewFlagSet("stack "+name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // its errors are ours to print
	flags.StringVar(&a.baseURL, "base-url", a.getenv("STACK_BASE_URL"), "`URL` of the server; the default is STACK_BASE_URL, or "+stack.DefaultBaseURL)
	flags.BoolVar(&a.json, "json", false, "print JSON, one object a line")
	do := c.setup(flags)
	given, err := parse(flags, args[words:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		c.help(a.out, flags)
		return 0
	case err != nil:
		err = usageError{err}
	case len(given) > c.most:
		err = misuse("unexpected argument %q", given[c.most])
	default:
		err = do(ctx, a, given)
	}
	return a.report(err, "stack "+name)
}

// parse reads flags before, between and after arguments.
func parse(flags *flag.FlagSet, args []string) (given []string, err error) {
	for {
		if err = flags.Parse(args); err != nil {
			return nil, err
		}
		rest := flags.Args()
		if read := len(args) - len(rest); len(rest) == 0 || read > 0 && args[read-1] == "--" {
			return append(given, rest...), nil
		}
		given, args = append(given, rest[0]), rest[1:]
	}
}

// withoutCommand lists the commands, of a group where one is named.
func (a *app) withoutCommand(args []string) int {
	var group string
	asked := len(args) == 0
	for _, arg := range args {
		if asked = arg == "help" || slices.Contains([]string{"-h", "-help", "--help"}, arg); asked {
			break
		}
		group = strings.TrimSpace(group + " " + arg)
	}
	var listed []command
	for _, c := range commands() {
		if group == "" || strings.HasPrefix(c.name, group+" ") {
			listed = append(listed, c)
		}
	}
	if len(listed) == 0 || !asked {
		return a.report(misuse("there is no command %q", plain(cmp.Or(strings.Join(args, " "), group))), strings.TrimSpace("stack "+known(group)))
	}
	w := a.out
	if len(args) == 0 {
		w = a.err
	}
	say(w, "Usage: stack <command> [flags]\n\n")
	for _, c := range listed {
		say(w, "  %-18s %s\n", c.name, c.summary)
	}
	say(w, "\nstack <command> -h tells more.\n")
	if len(args) == 0 {
		return misused
	}
	return 0
}

// known leaves of words those that begin a command.
func known(words string) string {
	first, _, _ := strings.Cut(words, " ")
	if slices.ContainsFunc(commands(), func(c command) bool { return strings.HasPrefix(c.name, first+" ") }) {
		return first
	}
	return ""
}

// help describes a command.
func (c *command) help(w io.Writer, flags *flag.FlagSet) {
	say(w, "%s.\n\nUsage: stack %s\n", c.summary, strings.TrimSpace(c.name+" [flags] "+c.args))
	if c.details != "" {
		say(w, "\n%s\n", c.details)
	}
	say(w, "\nFlags:\n")
	flags.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = "-"
		}
		say(w, "  %-20s %s\n", strings.TrimSpace(dashes+f.Name+" "+value), usage)
	})
	say(w, "\nExamples:\n")
	for _, example := range c.examples {
		say(w, "  $ stack %s\n", example)
	}
}

// report prints an error and returns the status that says its kind.
func (a *app) report(err error, command string) int {
	if err == nil {
		return 0
	}
	text := err.Error()
	if !strings.HasPrefix(text, "stack: ") {
		text = "stack: " + text
	}
	say(a.err, "%s\n", text)
	var usage usageError
	switch {
	case errors.As(err, &usage):
		say(a.err, "%s -h tells more.\n", command)
		return misused
	case errors.Is(err, stack.ErrNoCredentials), errors.Is(err, stack.ErrSignInRequired), errors.Is(err, stack.ErrUnauthorized):
		if a.getenv("STACK_API_KEY") != "" {
			say(a.err, "The key is that of STACK_API_KEY; without it, the session of stack auth login counts.\n")
		} else {
			say(a.err, "Sign in with: stack auth login\n")
		}
		return notSignedIn
	}
	return failed
}

func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

func (a *app) credentialsFile() string { return filepath.Join(a.home, ".stack", "credentials.json") }

// reach are the options of how the server is reached.
func (a *app) reach() []stack.Option {
	options := slices.Clip(a.options)
	if a.baseURL != "" {
		options = append(options, stack.WithBaseURL(a.baseURL))
	}
	return append(options, stack.WithUserAgent("stack-cli/"+stack.Version))
}

// client is a client of who is signed in. That a person has named the server says that it may have their credentials.
func (a *app) client() (*stack.Client, error) {
	if key := a.getenv("STACK_API_KEY"); key != "" {
		return stack.New(append(a.reach(), stack.WithAPIKey(key))...)
	}
	return stack.New(append(a.reach(), stack.WithCredentialsFile(a.credentialsFile()))...)
}
