package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/audit"
)

func auditRoutes() []route {
	return []route{
		endpoint("GET", "/v1/audit", (*Server).listAudit, operatorOnly),
		endpoint("GET", "/v1/audit/chain-head", (*Server).auditHead, operatorOnly),
		endpoint("GET", "/v1/audit/verify-chain", (*Server).verifyAudit, operatorOnly),
		endpoint("GET", "/v1/audit/export", (*Server).exportAudit, operatorOnly, unlocked,
			answers[stack.AuditExport](jsonMedia, "application/x-ndjson", "text/csv")),
	}
}

type listAuditIn struct {
	Limit       *int      `query:"limit"`
	Since       time.Time `query:"since"`
	AgentID     string    `query:"agent_id"`
	PassportJTI string    `query:"passport_jti"`
}

func (s *Server) listAudit(_ context.Context, c *caller, in listAuditIn) (*stack.AuditPage, error) {
	_, limit, err := paging(nil, in.Limit, 20)
	if err != nil {
		return nil, err
	}
	filter := audit.Filter{Since: in.Since, AgentID: in.AgentID, PassportJTI: in.PassportJTI, Limit: limit}
	p := &stack.AuditPage{Entries: c.op.chain.Newest(filter)}
	if len(p.Entries) == 0 {
		p.Entries = []stack.AuditEntry{}
		return p, nil
	}
	p.MaxTimestamp = p.Entries[0].Timestamp
	return p, nil
}

func (s *Server) auditHead(_ context.Context, c *caller, _ none) (*stack.ChainHead, error) {
	hash, count := c.op.chain.Head()
	return &stack.ChainHead{HeadHash: hash, EntryCount: count}, nil
}

type verifyAuditIn struct {
	From  time.Time `query:"from"`
	To    time.Time `query:"to"`
	Limit *int      `query:"limit"`
}

func (s *Server) verifyAudit(_ context.Context, c *caller, in verifyAuditIn) (*stack.ChainVerification, error) {
	limit := 0
	if in.Limit != nil {
		limit = *in.Limit
		if err := firstError(within("query.limit", limit, 1, 1<<31)); err != nil {
			return nil, err
		}
	}
	if err := firstError(inOrder("query.to", in.From, in.To)); err != nil {
		return nil, err
	}
	return c.op.chain.Verify(in.From, in.To, limit), nil
}

// inOrder refuses an end before its beginning; a zero time is no bound.
func inOrder(field string, from, to time.Time) *apiError {
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		return invalid(field, to.Format(time.RFC3339Nano), "no earlier than "+from.Format(time.RFC3339Nano))
	}
	return nil
}

type exportAuditIn struct {
	From   time.Time         `query:"from"`
	To     time.Time         `query:"to"`
	Format stack.AuditFormat `query:"format"`
}

// exportAudit reads the log under the lock and encodes it without: rows never change.
func (s *Server) exportAudit(_ context.Context, c *caller, in exportAuditIn) (*document, error) {
	if err := firstError(
		oneOf("query.format", in.Format, stack.AuditJSON, stack.AuditNDJSON, stack.AuditCSV),
		inOrder("query.to", in.From, in.To),
	); err != nil {
		return nil, err
	}
	c.op.mu.Lock()
	c.op.sweep(s.clock.now())
	rows := c.op.chain.Range(in.From, in.To)
	c.op.mu.Unlock()
	export, err := cutExport(rows, stack.MaxAuditExport)
	if err != nil {
		return nil, err
	}
	return encodeExport(export, in.Format)
}

// cutExport takes as many rows as an answer may hold, and never some of one millisecond: the export that goes on begins
// with a time, and would repeat or skip the others.
func cutExport(rows []stack.AuditEntry, most int) (*stack.AuditExport, error) {
	if len(rows) <= most {
		return &stack.AuditExport{Entries: append([]stack.AuditEntry{}, rows...)}, nil
	}
	cut := most
	for cut > 0 && rows[cut-1].Timestamp.Equal(rows[cut].Timestamp) {
		cut--
	}
	if cut == 0 {
		return nil, refuse(http.StatusBadRequest, "INVALID_REQUEST",
			fmt.Sprintf("more than %d rows are of one millisecond and cannot be exported", most),
			map[string]any{"check": "export_rows", "sent": rows[0].Timestamp, "allowed": most})
	}
	return &stack.AuditExport{Entries: rows[:cut], Truncated: true, NextFrom: rows[cut].Timestamp}, nil
}

func encodeExport(export *stack.AuditExport, format stack.AuditFormat) (*document, error) {
	var buf bytes.Buffer
	var err error
	out := &document{contentType: "application/json"}
	switch format {
	case stack.AuditNDJSON:
		out.contentType, err = "application/x-ndjson", audit.WriteNDJSON(&buf, export.Entries)
	case stack.AuditCSV:
		out.contentType, err = "text/csv; charset=utf-8", audit.WriteCSV(&buf, export.Entries)
	default:
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		err = enc.Encode(export)
	}
	if err != nil {
		return nil, err
	}
	out.body = buf.Bytes()
	if export.Truncated {
		out.header = http.Header{"X-Stack-Truncated": {"true"}, "X-Stack-Next-From": {export.NextFrom.Format(time.RFC3339Nano)}}
	}
	return out, nil
}
