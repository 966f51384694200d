package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"time"
)

// AuditOutcome says how an audited action ended.
type AuditOutcome string

// Audit outcomes.
const (
	OutcomeSuccess AuditOutcome = "success"
	OutcomeFailure AuditOutcome = "failure"
	OutcomePending AuditOutcome = "pending"
	OutcomeBlocked AuditOutcome = "blocked"
)

// AuditEntry is one row of an operator's hash-chained audit log. (contract: server-api 20)
type AuditEntry struct {
	EntryID      string        `json:"entry_id"`
	Timestamp    time.Time     `json:"timestamp"` // epoch milliseconds on the wire
	TraceID      string        `json:"trace_id,omitempty"`
	SpanID       string        `json:"span_id,omitempty"`
	ParentSpanID string        `json:"parent_span_id,omitempty"`
	OperatorID   string        `json:"operator_id"`
	AgentID      string        `json:"agent_id"`
	PassportJTI  string        `json:"passport_jti,omitempty"`
	Layer        string        `json:"layer"`  // vault, proxy, dropoff, skills or system
	Action       string        `json:"action"` // dotted, such as passport.issue or credential.proxy
	Outcome      AuditOutcome  `json:"outcome"`
	Duration     time.Duration `json:"duration_ms,omitzero"` // milliseconds on the wire
	PayloadHash  string        `json:"payload_hash,omitempty"`
	ErrorCode    string        `json:"error_code,omitempty"`
	ErrorMessage string        `json:"error_message,omitempty"`

	// PrevEntryHash is the hash of the row before, 64 zeros for the first. EntryHash is the SHA-256, in hex, of the JSON
	// object {entry_id, timestamp, operator_id, agent_id, layer, action, outcome, prev_entry_hash} in this key order.
	PrevEntryHash string `json:"prev_entry_hash"`
	EntryHash     string `json:"entry_hash"`
}

// MarshalJSON writes the entry as the wire has it.
func (e AuditEntry) MarshalJSON() ([]byte, error) {
	type plain AuditEntry
	return marshalJSON(struct {
		plain
		Timestamp epochMillis  `json:"timestamp"`
		Duration  milliseconds `json:"duration_ms,omitzero"`
	}{plain(e), epochMillis(e.Timestamp), milliseconds(e.Duration)})
}

// UnmarshalJSON reads the entry from the wire.
func (e *AuditEntry) UnmarshalJSON(data []byte) error {
	type plain AuditEntry
	w := struct {
		*plain
		Timestamp epochMillis  `json:"timestamp"`
		Duration  milliseconds `json:"duration_ms"`
	}{plain: (*plain)(e)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	e.Timestamp, e.Duration = time.Time(w.Timestamp), time.Duration(w.Duration)
	return nil
}

// AuditService reads the audit log. Reach it as [Client].Audit.
type AuditService struct{ client *Client }

// AuditListParams narrows a listing of the audit log.
type AuditListParams struct {
	Limit       int       // 1 to 100, default 20
	Since       time.Time // only rows strictly newer, to the millisecond
	AgentID     string
	PassportJTI string
}

// AuditPage holds the newest rows of the audit log, newest first.
type AuditPage struct {
	Entries      []AuditEntry `json:"entries"`
	MaxTimestamp time.Time    `json:"max_timestamp"` // of the newest row here, zero without rows; epoch milliseconds on the wire
}

// MarshalJSON writes the time in epoch milliseconds, null when it is zero.
func (p AuditPage) MarshalJSON() ([]byte, error) {
	type plain AuditPage
	return marshalJSON(struct {
		plain
		MaxTimestamp epochMillis `json:"max_timestamp"`
	}{plain(p), epochMillis(p.MaxTimestamp)})
}

// UnmarshalJSON reads the time in epoch milliseconds.
func (p *AuditPage) UnmarshalJSON(data []byte) error {
	type plain AuditPage
	w := struct {
		*plain
		MaxTimestamp epochMillis `json:"max_timestamp"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.MaxTimestamp = time.Time(w.MaxTimestamp)
	return nil
}

// List returns the newest rows. To be told what is new since then, call it again with Since set to the page's
// MaxTimestamp; when more than Limit rows are newer, the older ones of them are left out, and so is a row that came later
// in that same millisecond. [AuditService.All] leaves out none. It fails with [ErrInvalidRequest] for a limit out of bounds.
//
// GET /v1/audit
func (s *AuditService) List(ctx context.Context, params AuditListParams) (*AuditPage, error) {
	cl := get("/v1/audit").number("limit", params.Limit).
		param("agent_id", params.AgentID).param("passport_jti", params.PassportJTI)
	if !params.Since.IsZero() {
		cl.param("since", strconv.FormatInt(params.Since.UnixMilli(), 10))
	}
	return send[AuditPage](ctx, s.client, cl)
}

// moment adds a query parameter in ISO-8601 unless it is zero.
func (c *call) moment(name string, at time.Time) *call {
	if at.IsZero() {
		return c
	}
	return c.param(name, at.UTC().Format(time.RFC3339Nano))
}

// ChainHead is the end of the audit chain. Kept elsewhere, it proves later that the log up to there was not rewritten.
type ChainHead struct {
	HeadHash   string `json:"head_hash"` // entry_hash of the newest row, 64 zeros without rows
	EntryCount int    `json:"entry_count"`
}

// ChainHead returns the hash of the newest row and the number of rows.
//
// GET /v1/audit/chain-head
func (s *AuditService) ChainHead(ctx context.Context) (*ChainHead, error) {
	return send[ChainHead](ctx, s.client, get("/v1/audit/chain-head"))
}

// AuditVerifyParams selects the rows to verify. Zero fields select all.
type AuditVerifyParams struct {
	From  time.Time // inclusive
	To    time.Time // exclusive
	Limit int       // verify so many rows from the oldest on
}

// ChainVerification is the outcome of a walk along the audit chain.
type ChainVerification struct {
	Valid      bool        `json:"valid"`
	Checked    int         `json:"checked"`     // rows looked at, with the one that breaks the chain
	FirstBreak *ChainBreak `json:"first_break"` // nil when valid
	HeadHash   string      `json:"head_hash"`   // of the whole log
}

// ChainBreak is the first row that does not fit into the audit chain.
type ChainBreak struct {
	Index    int         `json:"index"` // of the row in the whole log, from 0
	EntryID  string      `json:"entry_id"`
	Reason   ChainReason `json:"reason"`
	Expected string      `json:"expected"` // the hash that the log asks for
	Got      string      `json:"got"`      // the hash that the row has
}

// VerifyChain has the server recompute the hashes of the rows and look for the first that does not fit. It fails with
// [ErrInvalidRequest] for bounds that make no sense. [AuditService.Verify] does not need to believe the server.
//
// GET /v1/audit/verify-chain
func (s *AuditService) VerifyChain(ctx context.Context, params AuditVerifyParams) (*ChainVerification, error) {
	return send[ChainVerification](ctx, s.client, get("/v1/audit/verify-chain").
		moment("from", params.From).moment("to", params.To).number("limit", params.Limit))
}

// AuditFormat is a form of the audit export.
type AuditFormat string

// Forms of the audit export.
const (
	AuditJSON   AuditFormat = "json"   // one object, an AuditExport
	AuditNDJSON AuditFormat = "ndjson" // one AuditEntry a line
	AuditCSV    AuditFormat = "csv"    // a header row of the wire's key names, then one row an entry
)

// MaxAuditExport is the number of rows that one export holds at most.
const MaxAuditExport = 50_000

// AuditExportParams selects the rows of an export and its form.
type AuditExportParams struct {
	From   time.Time   // inclusive; default: the first row
	To     time.Time   // exclusive; default: no end
	Format AuditFormat // default [AuditJSON]
}

// AuditExport is an export in JSON form, oldest row first.
type AuditExport struct {
	Entries   []AuditEntry `json:"entries"`
	Truncated bool         `json:"truncated"`
	NextFrom  time.Time    `json:"next_from,omitzero"` // when truncated
}

// AuditExported says what an export wrote.
type AuditExported struct {
	Bytes     int64
	Truncated bool      // there are more rows than [MaxAuditExport]
	NextFrom  time.Time // the From of the export that goes on where this one was cut
}

// Headers by which an answer in any form says that it was cut.
const (
	auditTruncatedHeader = "X-Stack-Truncated"
	auditNextFromHeader  = "X-Stack-Next-From"
)

// Export writes the rows, oldest first, to w in the form asked for. When there are more than [MaxAuditExport] it writes the
// first of them, never parting the rows of one millisecond, and says where to go on. It fails with [ErrInvalidRequest] for
// a form or bounds that do not exist, and as w does.
//
// GET /v1/audit/export
func (s *AuditService) Export(ctx context.Context, params AuditExportParams, w io.Writer) (*AuditExported, error) {
	ans, err := s.client.transport.do(ctx, get("/v1/audit/export").
		moment("from", params.From).moment("to", params.To).param("format", string(params.Format)))
	if err != nil {
		return nil, err
	}
	out := &AuditExported{Truncated: ans.header.Get(auditTruncatedHeader) == "true"}
	if out.Truncated {
		if out.NextFrom, err = time.Parse(time.RFC3339Nano, ans.header.Get(auditNextFromHeader)); err != nil {
			return nil, fmt.Errorf("stack: GET /v1/audit/export: header %s: %w", auditNextFromHeader, err)
		}
	}
	n, err := w.Write(ans.body)
	out.Bytes = int64(n)
	if err != nil {
		return out, fmt.Errorf("stack: writing the audit export: %w", err)
	}
	return out, nil
}

// AuditRange selects rows by their time. Zero fields are no bounds.
type AuditRange struct {
	From time.Time // inclusive
	To   time.Time // exclusive
}

// All walks the rows of a range, oldest first and each once: the listing cannot be paged backwards, so it reads exports,
// one after the other, and holds one in memory. Rows that are added on the way may be walked as well, unless the range ends
// before them. An error ends it.
//
// GET /v1/audit/export
func (s *AuditService) All(ctx context.Context, params AuditRange) iter.Seq2[AuditEntry, error] {
	return func(yield func(AuditEntry, error) bool) {
		for from := params.From; ; {
			export, err := send[AuditExport](ctx, s.client, get("/v1/audit/export").moment("from", from).moment("to", params.To))
			if err == nil && export.Truncated && !export.NextFrom.After(from) {
				err = fmt.Errorf("stack: GET /v1/audit/export: cut at %s, which is not after its beginning",
					export.NextFrom.Format(time.RFC3339Nano))
			}
			if err != nil {
				yield(AuditEntry{}, err)
				return
			}
			for _, entry := range export.Entries {
				if !yield(entry, nil) {
					return
				}
			}
			if !export.Truncated {
				return
			}
			from = export.NextFrom
		}
	}
}
