package audit

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"time"

	"github.com/getstack-go/stack"
)

// WriteNDJSON writes each entry as one line of JSON. It fails when w does.
func WriteNDJSON(w io.Writer, entries []stack.AuditEntry) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, e := range entries {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

// columns are those of the CSV export: the keys of the wire, in its order.
var columns = []string{
	"entry_id", "timestamp", "trace_id", "span_id", "parent_span_id", "operator_id", "agent_id", "passport_jti",
	"layer", "action", "outcome", "duration_ms", "payload_hash", "error_code", "error_message",
	"prev_entry_hash", "entry_hash",
}

// WriteCSV writes a header row with the wire's key names and then a row for each entry, with an empty cell for what JSON
// would leave out. It fails when w does.
//
// Cells are written as they are, also those that a spreadsheet would take for a formula (beginning with =, +, - or @): an
// apostrophe before them would make the export say what the log does not, and hashes could not be recomputed from it.
// People who open the file in a spreadsheet must import its columns as text.
func WriteCSV(w io.Writer, entries []stack.AuditEntry) error {
	out := csv.NewWriter(w)
	if err := out.Write(columns); err != nil {
		return err
	}
	for _, e := range entries {
		var duration string
		if e.Duration != 0 {
			duration = strconv.FormatFloat(float64(e.Duration)/float64(time.Millisecond), 'f', -1, 64)
		}
		if err := out.Write([]string{
			e.EntryID, strconv.FormatInt(e.Timestamp.UnixMilli(), 10), e.TraceID, e.SpanID, e.ParentSpanID, e.OperatorID,
			e.AgentID, e.PassportJTI, e.Layer, e.Action, string(e.Outcome), duration, e.PayloadHash, e.ErrorCode,
			e.ErrorMessage, e.PrevEntryHash, e.EntryHash,
		}); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
