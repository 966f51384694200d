package stack

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"time"
)

// maxAuditRow is how much of an export may be read for one row of it.
const maxAuditRow = 1 << 20

// ReadAuditExport reads the rows of an export that [AuditService.Export] wrote, in the form it wrote; the zero value is
// [AuditJSON]. It reads on as the rows are walked and keeps none, so a file of any size takes little memory; a row may take
// 1 MB. Keys and columns that it does not know are passed over. It yields an error once and last: for an export that is not
// of the form or ends in the middle of a row, for a table that lacks a column of the hash, and for what r fails with.
//
// Several NDJSON exports may follow each other in one reader. An export that was cut ([AuditExported].Truncated) reads like
// any other: verify the one that goes on where it was cut with the head of this one as its pin.
func ReadAuditExport(r io.Reader, format AuditFormat) iter.Seq2[AuditEntry, error] {
	return func(yield func(AuditEntry, error) bool) {
		in := &rationed{r: r, left: maxAuditRow}
		n := 0
		each := func(row AuditEntry) bool {
			n++
			in.left = maxAuditRow
			return yield(row, nil)
		}
		var err error
		switch format {
		case AuditJSON, "":
			err = readAuditJSON(json.NewDecoder(in), each)
		case AuditNDJSON:
			err = readAuditLines(json.NewDecoder(in), each)
		case AuditCSV:
			err = readAuditCSV(csv.NewReader(in), each)
		default:
			err = &ParamError{Param: "format", Reason: fmt.Sprintf("is %q; it may be %s, %s or %s", format, AuditJSON, AuditNDJSON, AuditCSV)}
		}
		if err != nil && !errors.Is(err, errRowsLeft) {
			yield(AuditEntry{}, fmt.Errorf("stack: audit export, after %d rows: %w", n, err))
		}
	}
}

// errRowsLeft says that the loop over the rows was left.
var errRowsLeft = errors.New("left")

// rationed reads from r and fails when that gives more than left bytes.
type rationed struct {
	r    io.Reader
	left int
}

// Read implements io.Reader.
func (in *rationed) Read(p []byte) (int, error) {
	if in.left <= 0 {
		return 0, fmt.Errorf("a row is over %d bytes", maxAuditRow)
	}
	n, err := in.r.Read(p[:min(len(p), in.left)])
	in.left -= n
	return n, err
}

// readAuditJSON reads an AuditExport, one row after the other.
func readAuditJSON(dec *json.Decoder, each func(AuditEntry) bool) error {
	if err := wantDelim(dec, '{'); err != nil {
		return err
	}
	found := false
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		if key != "entries" {
			var skipped json.RawMessage
			if err = dec.Decode(&skipped); err != nil {
				return err
			}
			continue
		}
		if found {
			return errors.New("it has entries twice")
		}
		found = true
		if err = wantDelim(dec, '['); err != nil {
			return err
		}
		if err = readAuditRows(dec, each); err != nil {
			return err
		}
		if err = wantDelim(dec, ']'); err != nil {
			return err
		}
	}
	if err := wantDelim(dec, '}'); err != nil {
		return err
	}
	if !found {
		return errors.New("it has no entries")
	}
	switch _, err := dec.Token(); {
	case err == nil:
		return errors.New("something follows its end")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// readAuditRows reads the rows of an array up to its end.
func readAuditRows(dec *json.Decoder, each func(AuditEntry) bool) error {
	for dec.More() {
		var row AuditEntry
		if err := dec.Decode(&row); err != nil {
			return err
		}
		if !each(row) {
			return errRowsLeft
		}
	}
	return nil
}

// readAuditLines reads rows up to the end of the input.
func readAuditLines(dec *json.Decoder, each func(AuditEntry) bool) error {
	for {
		var row AuditEntry
		if err := dec.Decode(&row); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if !each(row) {
			return errRowsLeft
		}
	}
}

// wantDelim reads the delimiter.
func wantDelim(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err == nil && got != want {
		return fmt.Errorf("%q where %q belongs", oneLine(fmt.Sprint(got), maxNameText), want)
	}
	return err
}

// readAuditCSV reads the table by the names in its header.
func readAuditCSV(table *csv.Reader, each func(AuditEntry) bool) error {
	table.ReuseRecord = true
	header, err := table.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("it has no header")
	}
	if err != nil {
		return err
	}
	var row AuditEntry
	var timestamp, duration string
	columns := map[string]*string{
		"entry_id": &row.EntryID, "timestamp": &timestamp, "trace_id": &row.TraceID, "span_id": &row.SpanID,
		"parent_span_id": &row.ParentSpanID, "operator_id": &row.OperatorID, "agent_id": &row.AgentID,
		"passport_jti": &row.PassportJTI, "layer": &row.Layer, "action": &row.Action, "outcome": (*string)(&row.Outcome),
		"duration_ms": &duration, "payload_hash": &row.PayloadHash, "error_code": &row.ErrorCode,
		"error_message": &row.ErrorMessage, "prev_entry_hash": &row.PrevEntryHash, "entry_hash": &row.EntryHash,
	}
	for _, name := range []string{"entry_id", "timestamp", "operator_id", "agent_id", "layer", "action", "outcome",
		"prev_entry_hash", "entry_hash"} { // what a hash is made of
		if !slices.Contains(header, name) {
			return fmt.Errorf("it has no column %s", name)
		}
	}
	cells := make([]*string, len(header))
	for i, name := range header {
		cell, known := columns[name]
		if !known {
			cell = new(string)
		} else if slices.Contains(cells, cell) {
			return fmt.Errorf("it has the column %s twice", name)
		}
		cells[i] = cell
	}
	for {
		record, err := table.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i, cell := range record {
			*cells[i] = cell
		}
		ms, err := strconv.ParseInt(timestamp, 10, 64)
		if err != nil {
			return fmt.Errorf("timestamp is %q; it must be in milliseconds", oneLine(timestamp, maxNameText))
		}
		row.Timestamp, row.Duration = time.UnixMilli(ms).UTC(), 0
		if duration != "" {
			if row.Duration, err = scaled([]byte(duration), time.Millisecond); err != nil {
				return fmt.Errorf("duration_ms is %q; it must be in milliseconds", oneLine(duration, maxNameText))
			}
		}
		if !each(row) {
			return errRowsLeft
		}
	}
}
