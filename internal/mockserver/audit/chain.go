// Package audit is the hash-chained audit log of one operator: it appends rows, lists and exports them, and checks that
// nobody has changed them. (contract: semantics 8, server-api 20)
package audit

import (
	"time"

	"github.com/getstack-go/stack"
)

// Genesis is what the first row has as the hash of the row before it.
const Genesis = "0000000000000000000000000000000000000000000000000000000000000000"

// Chain is an append-only log in which each row holds the hash of the row before. The zero value is an empty log, ready
// for use. A Chain is not safe for concurrent use: its owner locks. A slice that Range returned may be read without the
// lock, since rows never change.
type Chain struct {
	rows []stack.AuditEntry // in order of time
}

// Append adds e as the last row and returns it as it was stored: with both hashes set, and its timestamp cut to
// milliseconds. A timestamp before the last row's is lifted to that, so that the order of time is the order of the chain.
func (c *Chain) Append(e stack.AuditEntry) stack.AuditEntry {
	var last int64
	if n := len(c.rows); n > 0 {
		last = c.rows[n-1].Timestamp.UnixMilli()
	}
	e.Timestamp = time.UnixMilli(max(e.Timestamp.UnixMilli(), last)).UTC()
	e.PrevEntryHash, _ = c.Head()
	e.EntryHash = e.Hash()
	c.rows = append(c.rows, e)
	return e
}

// Len returns the number of rows.
func (c *Chain) Len() int { return len(c.rows) }

// Head returns the hash of the last row, [Genesis] when there is none, and the number of rows. Kept elsewhere, the two
// prove later that the log up to there was not rewritten.
func (c *Chain) Head() (hash string, count int) { return c.hashBefore(len(c.rows)), len(c.rows) }

// hashBefore returns the hash of the row before the i-th.
func (c *Chain) hashBefore(i int) string {
	if i == 0 {
		return Genesis
	}
	return c.rows[i-1].EntryHash
}

// Filter narrows a listing; a zero field narrows nothing.
type Filter struct {
	Since       time.Time // rows strictly newer, compared in milliseconds
	AgentID     string
	PassportJTI string
	Limit       int
}

// Newest returns the rows that match f, newest first.
func (c *Chain) Newest(f Filter) []stack.AuditEntry {
	var found []stack.AuditEntry
	for i := len(c.rows) - 1; i >= 0; i-- {
		e := &c.rows[i]
		if !f.Since.IsZero() && e.Timestamp.UnixMilli() <= f.Since.UnixMilli() {
			break
		}
		if f.AgentID != "" && e.AgentID != f.AgentID || f.PassportJTI != "" && e.PassportJTI != f.PassportJTI {
			continue
		}
		found = append(found, *e)
		if len(found) == f.Limit {
			break
		}
	}
	return found
}

// Range returns the rows from the moment from on, up to but without the moment to, oldest first. A zero time is no bound.
// The slice is a view of the log: the caller must not change it.
func (c *Chain) Range(from, to time.Time) []stack.AuditEntry {
	start, end := c.bounds(from, to)
	return c.rows[start:end:end]
}

// bounds returns the positions of Range. It searches from both ends, not by halves: a row whose time was tampered with
// must not hide others from Verify.
func (c *Chain) bounds(from, to time.Time) (start, end int) {
	end = len(c.rows)
	for ; start < end && c.rows[start].Timestamp.Before(from); start++ {
	}
	for ; end > start && !to.IsZero() && !c.rows[end-1].Timestamp.Before(to); end-- {
	}
	return start, end
}

// Reason says how a row breaks the chain.
type Reason string

// Reasons.
const (
	EntryHashMismatch Reason = "entry_hash_mismatch" // the row is not what its hash says: it was changed
	PrevHashMismatch  Reason = "prev_hash_mismatch"  // the row does not follow the one before: one was added, removed or moved
)

// Break is the place where a chain is broken.
type Break struct {
	Index    int    // of the row in the whole log, from 0
	EntryID  string // of the row
	Reason   Reason
	Expected string // the hash that the rest of the log asks for
	Got      string // the hash that the row has
}

// Result is the outcome of Verify.
type Result struct {
	Valid      bool
	Checked    int    // rows looked at, with the one that breaks the chain
	FirstBreak *Break // nil when valid
	HeadHash   string // the hash of the log's last row, Genesis when there is none
}

// Verify checks the rows of Range(from, to), at most limit of them from the oldest on (0 is no limit): that each has the
// hash of its content, and the hash of the row before it. It stops at the first break.
func (c *Chain) Verify(from, to time.Time, limit int) Result {
	start, end := c.bounds(from, to)
	if limit > 0 {
		end = min(end, start+limit)
	}
	r := Result{Valid: true}
	r.HeadHash, _ = c.Head()
	for i := start; i < end && r.Valid; i++ {
		e := &c.rows[i]
		r.Checked++
		if want := e.Hash(); want != e.EntryHash {
			r.FirstBreak = &Break{i, e.EntryID, EntryHashMismatch, want, e.EntryHash}
		} else if want := c.hashBefore(i); want != e.PrevEntryHash {
			r.FirstBreak = &Break{i, e.EntryID, PrevHashMismatch, want, e.PrevEntryHash}
		}
		r.Valid = r.FirstBreak == nil
	}
	return r
}
