package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/getstack-go/stack"
)

const maxHeadsFile = 1 << 20

var verifyCommand = command{
	name: "audit verify", args: "[FILE]", most: 1, summary: "Verify the audit log's hash chain",
	details: `It reads the rows and computes their hashes itself; the server's word for it does not count. How far the log went is kept in
~/.stack/audit-heads.json, so that the next time also shows whether what was seen then was cut off, changed or reordered since.

With FILE it verifies an export in place of the server's log: a .json, .ndjson, .jsonl or .csv file, one that goes as far as
what was kept also against that. An export that does not begin with the log's first row needs --pin.`,
	examples: []string{"audit verify", "audit verify --json", "audit verify march.ndjson", "audit verify april.csv --pin 5d41402abc4b2a76b9719d911017c592ae3f…"},
	setup: func(flags *flag.FlagSet) func(context.Context, *app, []string) error {
		pin := flags.String("pin", "", "the `hash` of a row that must be there, or that comes right before the first; in place of what was kept")
		return func(ctx context.Context, a *app, args []string) error {
			if len(args) == 1 {
				return a.verifyFile(args[0], *pin)
			}
			return a.verifyLog(ctx, *pin)
		}
	},
}

// verified is what audit verify found.
type verified struct {
	Valid      bool              `json:"valid"`
	OperatorID string            `json:"operator_id,omitempty"`
	Since      *stack.AuditHead  `json:"since,omitempty"` // what was kept, and still holds
	Head       *stack.AuditHead  `json:"head,omitempty"`
	FirstBreak *stack.ChainBreak `json:"first_break,omitempty"`
}

// verifyLog verifies the server's log from what was kept on, and keeps how far it goes.
func (a *app) verifyLog(ctx context.Context, hash string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	operator, err := operatorOf(ctx, client)
	if err != nil {
		return err
	}
	heads, err := a.readHeads()
	if err != nil {
		return err
	}
	pin := heads[operator]
	if hash != "" {
		pin = stack.AuditHead{Hash: hash}
	}
	head, err := client.Audit.Verify(ctx, pin)
	if err = a.showVerified(operator, pin, head, err); err != nil || head.Hash == "" {
		return err
	}
	heads[operator] = head
	return a.writeHeads(heads)
}

// verifyFile verifies an export. It changes nothing of what was kept: the file may be anybody's.
func (a *app) verifyFile(name, hash string) error {
	format, err := formatOf(name)
	if err != nil {
		return err
	}
	var operator string
	var last stack.AuditEntry
	for row, err := range readExport(name, format) {
		if err != nil {
			return err
		}
		operator, last = cmp.Or(operator, row.OperatorID), row
	}
	heads, err := a.readHeads()
	if err != nil {
		return err
	}
	pin := heads[operator]
	if last.Timestamp.Before(pin.Timestamp) { // it ends before: then that is of no use
		pin = stack.AuditHead{}
	}
	if hash != "" {
		pin = stack.AuditHead{Hash: hash}
	}
	head, err := stack.VerifyAuditChain(readExport(name, format), pin)
	return a.showVerified(operator, pin, head, err)
}

func formatOf(name string) (stack.AuditFormat, error) {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json":
		return stack.AuditJSON, nil
	case ".ndjson", ".jsonl":
		return stack.AuditNDJSON, nil
	case ".csv":
		return stack.AuditCSV, nil
	}
	return "", misuse("%q is no name of an export: it must end in .json, .ndjson, .jsonl or .csv", plain(name))
}

// readExport walks the rows of a file.
func readExport(name string, format stack.AuditFormat) iter.Seq2[stack.AuditEntry, error] {
	return func(yield func(stack.AuditEntry, error) bool) {
		file, err := os.Open(name)
		if err != nil {
			yield(stack.AuditEntry{}, err)
			return
		}
		defer file.Close() //nolint:errcheck // it was only read
		for row, err := range stack.ReadAuditExport(file, format) {
			if !yield(row, err) {
				return
			}
		}
	}
}

// showVerified prints the outcome of a verification, and gives its error back.
func (a *app) showVerified(operator string, pin, head stack.AuditHead, err error) error {
	var broken *stack.ChainError
	if err != nil && !errors.As(err, &broken) {
		return err
	}
	if a.json {
		out := verified{Valid: err == nil, OperatorID: operator}
		if pin.Hash != "" {
			out.Since = &pin
		}
		if broken != nil {
			out.FirstBreak = &broken.ChainBreak
		} else {
			out.Head = &head
		}
		if printed := a.emit(out); printed != nil {
			return printed
		}
		return err
	}
	switch {
	case broken != nil && broken.Reason == stack.ChainPrevHash && broken.Index == 0:
		return fmt.Errorf("%w\nRows that do not begin with the first of the log need --pin", err)
	case broken != nil:
		return err
	case head.Hash == "":
		say(a.out, "The audit log is empty.\n")
		return nil
	}
	say(a.out, "The audit log of %s is whole up to %s", plain(operator), local(head.Timestamp))
	switch {
	case head.Count == 0 || pin.Hash != "" && pin.Count == 0:
		say(a.out, ", from the pinned row on.\n")
	case pin.Hash == "":
		say(a.out, ": %d rows from its beginning, compared with none that was kept.\n", head.Count)
	default:
		say(a.out, ": %d rows, %d of them new since %s.\n", head.Count, head.Count-pin.Count, local(pin.Timestamp))
	}
	say(a.out, "Its head is %s.\n", head.Hash)
	return nil
}

func (a *app) headsFile() string { return filepath.Join(a.home, ".stack", "audit-heads.json") }

// readHeads reads how far the logs went, by operator.
func (a *app) readHeads() (map[string]stack.AuditHead, error) {
	heads := map[string]stack.AuditHead{}
	file, err := os.Open(a.headsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return heads, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	if err = json.NewDecoder(io.LimitReader(file, maxHeadsFile)).Decode(&heads); err == nil && heads == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not what audit verify has written (%w): restore it, or remove it to begin anew", a.headsFile(), err)
	}
	return heads, nil
}

// writeHeads writes them whole or not at all.
func (a *app) writeHeads(heads map[string]stack.AuditHead) error {
	text, err := json.MarshalIndent(heads, "", "  ")
	if err != nil {
		return err
	}
	if err = os.MkdirAll(filepath.Dir(a.headsFile()), 0o700); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(a.headsFile()), ".audit-heads-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		_ = next.Close()
		_ = os.Remove(next.Name()) // fails when it has become the file
	}()
	if _, err = next.Write(text); err != nil {
		return err
	}
	if err = errors.Join(next.Sync(), next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), a.headsFile())
}
