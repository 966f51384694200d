package stack

import (
	"context"
	"fmt"
	"iter"
	"regexp"
	"time"
)

// AuditGenesis is what the first row of an audit log has as the hash of the row before it. (contract: server-api 20)
const AuditGenesis = "0000000000000000000000000000000000000000000000000000000000000000"

// AuditHead is a place in an audit log: behind the row that has the hash. Kept where the server cannot write, as JSON for
// example, it pins the log: [VerifyAuditChain] then shows any change of the rows up to there. The zero value is the
// beginning of every log. One can be made of a [ChainHead] as well; it needs the hash only.
type AuditHead struct {
	Hash      string    `json:"hash"`               // entry_hash of the row; empty or [AuditGenesis] at the beginning
	EntryID   string    `json:"entry_id,omitempty"` // of the row
	Count     int       `json:"count"`              // rows up to there, 0 when that is not known
	Timestamp time.Time `json:"timestamp,omitzero"` // of the row; with it [AuditService.Verify] need not read what is older
}

// ChainReason says how a row breaks an audit chain.
type ChainReason string

// Reasons. The last two need a memory of the log, which [AuditService.VerifyChain] has not.
const (
	ChainEntryHash   ChainReason = "entry_hash_mismatch" // the row is not what its hash says: it was changed
	ChainPrevHash    ChainReason = "prev_hash_mismatch"  // it does not follow the row before: one was added, removed or moved
	ChainOutOfOrder  ChainReason = "out_of_order"        // it is older than the row before
	ChainPinMissing  ChainReason = "pin_missing"         // the pinned row is not there: the log was cut, or written anew
	ChainHeadMissing ChainReason = "head_missing"        // the log does not have the row that the server calls its head
)

// ChainError is the first row at which an audit log is not what it must be. Index counts from the beginning of the log
// where the pin or the first row tells where that is, else from the first row that was read. For [ChainPinMissing] the row
// is the one that stands where the pinned one was, or, when the log ends before, the pinned one itself.
type ChainError struct{ ChainBreak }

// Error describes the break in one line that is safe to log.
func (e *ChainError) Error() string {
	says := map[ChainReason]string{
		ChainEntryHash:   "by its content its hash is %s, it says %s",
		ChainPrevHash:    "the hash of the row before it is %s, it says %s",
		ChainOutOfOrder:  "the row before it is of %s, it is of %s",
		ChainPinMissing:  "the row with the pinned hash %s is not in the log; in its place is %s",
		ChainHeadMissing: "the server says that its log ends with %s; the rows that it gives end with %s",
	}[e.Reason]
	return fmt.Sprintf("stack: audit row %d (%s): %s: "+says, e.Index, oneLine(e.EntryID, maxNameText), e.Reason,
		oneLine(e.Expected, maxNameText), oneLine(e.Got, maxNameText))
}

// Next returns the head of the log that goes on with the row. It fails with a [*ChainError] when the row is not what its
// hash says, does not follow the row of h, or is older than that.
//
// The hash covers what [AuditEntry.Hash] names and no other field of the row.
func (h AuditHead) Next(row AuditEntry) (AuditHead, error) {
	broken := func(reason ChainReason, expected, got string) (AuditHead, error) {
		return h, &ChainError{ChainBreak{Index: h.Count, EntryID: row.EntryID, Reason: reason, Expected: expected, Got: got}}
	}
	if want := row.Hash(); row.EntryHash != want {
		return broken(ChainEntryHash, want, row.EntryHash)
	}
	if want := h.hash(); row.PrevEntryHash != want {
		return broken(ChainPrevHash, want, row.PrevEntryHash)
	}
	if !h.Timestamp.IsZero() && row.Timestamp.UnixMilli() < h.Timestamp.UnixMilli() {
		return broken(ChainOutOfOrder, h.Timestamp.Format(time.RFC3339Nano), row.Timestamp.Format(time.RFC3339Nano))
	}
	return AuditHead{Hash: row.EntryHash, EntryID: row.EntryID, Count: h.Count + 1, Timestamp: row.Timestamp}, nil
}

func (h AuditHead) hash() string {
	if h.Hash == "" {
		return AuditGenesis
	}
	return h.Hash
}

var sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// check refuses a pin that cannot be one.
func (h AuditHead) check() error {
	switch {
	case !sha256Pattern.MatchString(h.hash()):
		return &ParamError{Param: "pin.hash", Reason: fmt.Sprintf("is %q; it must be 64 hexadecimal digits in lower case",
			oneLine(h.Hash, maxNameText))}
	case h.hash() == AuditGenesis && (h.Count != 0 || h.EntryID != "" || !h.Timestamp.IsZero()):
		return &ParamError{Param: "pin.hash", Reason: "is missing; the pin names a row"}
	case h.Count < 0:
		return &ParamError{Param: "pin.count", Reason: fmt.Sprintf("is %d; it must be 0 or more", h.Count)}
	}
	return nil
}

// VerifyAuditChain verifies the rows of an audit log, oldest first, and returns the head to pin next: that every row is
// what its hash says, that each follows the one before, and that the pinned row is among them or directly before the first.
// So with a pin the rows may begin anywhere up to it: at the first row of the log, at the pinned one, or right after it;
// without one (the zero value) they must begin at the first. It reads the rows one by one and keeps none.
//
// It fails with a [*ChainError] that names the first bad row, with a [*ParamError] for a pin that cannot be one, and with
// the error of the rows; the head is then the pin again. What it cannot know: that rows were left off the end since the
// pin, as nobody has seen them. And what the chain does not cover can be changed unseen, see [AuditEntry.Hash].
//
// Rows come from [AuditService.All], from [ReadAuditExport], or are a recorded slice. When the server has dropped the rows of
// a retention period the log no longer begins at the first: the PrevEntryHash of the oldest row, once trusted, is the pin.
func VerifyAuditChain(rows iter.Seq2[AuditEntry, error], pin AuditHead) (AuditHead, error) {
	if err := pin.check(); err != nil {
		return pin, err
	}
	var head AuditHead                   // after the rows so far
	pinned := pin.hash() == AuditGenesis // the pin has been passed
	first, fromMiddle := true, false
	missing := func(index int, id, got string) (AuditHead, error) {
		return pin, &ChainError{ChainBreak{Index: index, EntryID: id, Reason: ChainPinMissing, Expected: pin.Hash, Got: got}}
	}
	for row, err := range rows {
		if err != nil {
			return pin, err
		}
		if first && !pinned && row.PrevEntryHash != AuditGenesis {
			if pinned = row.PrevEntryHash == pin.Hash; pinned {
				head = pin
			} else {
				head, fromMiddle = AuditHead{Hash: row.PrevEntryHash}, true
			}
		}
		first = false
		if head, err = head.Next(row); err != nil {
			return pin, err
		}
		switch {
		case pinned:
		case head.Hash == pin.Hash:
			if pinned = true; fromMiddle {
				head.Count = pin.Count
			}
		case pin.EntryID != "" && row.EntryID == pin.EntryID, !fromMiddle && head.Count == pin.Count,
			!pin.Timestamp.IsZero() && row.Timestamp.UnixMilli() > pin.Timestamp.UnixMilli():
			return missing(head.Count-1, row.EntryID, row.EntryHash)
		}
	}
	if !pinned {
		return missing(head.Count, pin.EntryID, "its end, "+head.hash())
	}
	if first {
		return pin, nil
	}
	return head, nil
}

// Verify verifies the rows of the log from the pin on, as [VerifyAuditChain] does, without trusting the server's own
// [AuditService.VerifyChain], and that the head that the server names is among them. It returns the head to pin next time;
// begin with the zero pin, which verifies the whole log. A pin without a Timestamp has it read the whole log as well.
//
// GET /v1/audit/chain-head, GET /v1/audit/export
func (s *AuditService) Verify(ctx context.Context, pin AuditHead) (AuditHead, error) {
	if err := pin.check(); err != nil {
		return pin, err
	}
	claimed, err := s.ChainHead(ctx) // before the rows, which may grow
	if err != nil {
		return pin, err
	}
	seen := claimed.HeadHash == pin.hash()
	head, err := VerifyAuditChain(func(yield func(AuditEntry, error) bool) {
		for row, err := range s.All(ctx, AuditRange{From: pin.Timestamp}) {
			seen = seen || row.EntryHash == claimed.HeadHash
			if !yield(row, err) {
				return
			}
		}
	}, pin)
	if err == nil && !seen {
		return pin, &ChainError{ChainBreak{Index: head.Count, Reason: ChainHeadMissing, Expected: claimed.HeadHash, Got: head.hash()}}
	}
	return head, err
}
