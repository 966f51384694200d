// Package audit is the hash-chained audit log of one operator: it appends rows, lists and exports them, and checks that
// nobody has changed them. (contract: semantics 8, server-api 20)
package audit

import (
	"errors"
	"time"

	"github.com/getstack-go/stack"
)

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

// Head returns the hash of the last row, [stack.AuditGenesis] when there is none, and the number of rows. Kept elsewhere, the
// two prove later that the log up to there was not rewritten.
func (c *Chain) Head() (hash string, count int) { return c.hashBefore(len(c.rows)), len(c.rows) }

// hashBefore returns the hash of the row before the i-th.
func (c *Chain) hashBefore(i int) string {
	if i == 0 {
		return stack.AuditGenesis
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

// Verify checks the rows of Range(from, to), at most limit of them from the oldest on (0 is no limit): that each has the
// hash of its content, and the hash of the row before it. It stops at the first break.
func (c *Chain) Verify(from, to time.Time, limit int) *stack.ChainVerification {
	start, end := c.bounds(from, to)
	if limit > 0 {
		end = min(end, start+limit)
	}
	r := &stack.ChainVerification{Valid: true}
	r.HeadHash, _ = c.Head()
	head := stack.AuditHead{Hash: c.hashBefore(start), Count: start}
	for _, row := range c.rows[start:end] {
		r.Checked++
		var broken *stack.ChainError
		var err error
		if head, err = head.Next(row); errors.As(err, &broken) {
			r.Valid, r.FirstBreak = false, &broken.ChainBreak
			break
		}
	}
	return r
}
