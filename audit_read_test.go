package stack_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// exportOf writes rows as an export in the form, with a key or column more than are known.
func exportOf(t testing.TB, format stack.AuditFormat, rows []stack.AuditEntry) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	switch format {
	case stack.AuditJSON:
		require.NoError(t, json.NewEncoder(&buf).Encode(map[string]any{"entries": append([]stack.AuditEntry{}, rows...),
			"extra": []any{1, map[string]any{"entries": 2}}, "truncated": false}))
	case stack.AuditNDJSON:
		for _, row := range rows {
			line, err := json.Marshal(row)
			require.NoError(t, err)
			buf.WriteString(strings.Replace(string(line), "{", `{"extra":{"a":[1]},`, 1) + "\n")
		}
	case stack.AuditCSV:
		out := csv.NewWriter(&buf)
		require.NoError(t, out.Write([]string{"extra", "entry_hash", "prev_entry_hash", "error_message", "duration_ms", "passport_jti",
			"outcome", "action", "layer", "agent_id", "operator_id", "timestamp", "entry_id"}))
		for _, row := range rows {
			require.NoError(t, out.Write([]string{"x", row.EntryHash, row.PrevEntryHash, row.ErrorMessage, "1.5", row.PassportJTI,
				string(row.Outcome), row.Action, row.Layer, row.AgentID, row.OperatorID, strconv.FormatInt(row.Timestamp.UnixMilli(), 10), row.EntryID}))
		}
		out.Flush()
		require.NoError(t, out.Error())
	}
	return &buf
}

var auditForms = []stack.AuditFormat{stack.AuditJSON, stack.AuditNDJSON, stack.AuditCSV}

// readExport walks an export to its end, and fails where an error is not the last.
func readExport(t *testing.T, r io.Reader, format stack.AuditFormat) (rows []stack.AuditEntry, failure error) {
	t.Helper()
	for row, err := range stack.ReadAuditExport(r, format) {
		require.NoError(t, failure, "an error comes once, and last")
		if failure = err; err == nil {
			rows = append(rows, row)
		}
	}
	return rows, failure
}

func TestReadAuditExport(t *testing.T) {
	t.Parallel()
	want := auditLog(7, 3)
	for _, format := range auditForms {
		got, err := readExport(t, iotest.OneByteReader(exportOf(t, format, want)), format)
		require.NoError(t, err, format)
		assert.Equal(t, want, got, format)
		got, err = readExport(t, exportOf(t, format, nil), format)
		require.NoError(t, err, format)
		assert.Empty(t, got, format)
		for row, failed := range stack.ReadAuditExport(exportOf(t, format, want), format) {
			require.NoError(t, failed, format)
			assert.Equal(t, want[0], row, "a loop may be left")
			break
		}
		failure := errors.New("disk is gone")
		_, err = readExport(t, io.MultiReader(exportOf(t, format, want), iotest.ErrReader(failure)), format)
		require.ErrorIs(t, err, failure, format)
		_, err = readExport(t, iotest.ErrReader(failure), format)
		require.ErrorIs(t, err, failure, format)
	}
	got, err := readExport(t, exportOf(t, stack.AuditJSON, want), "")
	require.NoError(t, err)
	assert.Equal(t, want, got)
	two := io.MultiReader(exportOf(t, stack.AuditNDJSON, want[:3]), exportOf(t, stack.AuditNDJSON, want[3:]))
	got, err = readExport(t, two, stack.AuditNDJSON)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

// TestReadAuditExportCut cuts an export at every byte: what is left never verifies as the whole.
func TestReadAuditExportCut(t *testing.T) {
	t.Parallel()
	rows := auditLog(3, 1)
	for _, format := range auditForms {
		whole, err := io.ReadAll(exportOf(t, format, rows))
		require.NoError(t, err)
		whole = bytes.TrimRight(whole, "\n")
		for n := range whole {
			_, err = stack.VerifyAuditChain(stack.ReadAuditExport(bytes.NewReader(whole[:n]), format), headOf(rows, 2))
			require.Error(t, err, "%s, %d of %d bytes", format, n, len(whole))
		}
		_, err = stack.VerifyAuditChain(stack.ReadAuditExport(bytes.NewReader(whole), format), headOf(rows, 2))
		require.NoError(t, err, format)
	}
}

func TestReadAuditExportRefuses(t *testing.T) {
	t.Parallel()
	const header = "entry_id,timestamp,operator_id,agent_id,layer,action,outcome,prev_entry_hash,entry_hash"
	huge := strings.Repeat("x", 2<<20)
	tests := []struct {
		name   string
		format stack.AuditFormat
		text   string
		says   string
	}{
		{"JSON: nothing", stack.AuditJSON, "", "unexpected EOF"},
		{"JSON: no object", stack.AuditJSON, "[]", `"{" belongs`},
		{"JSON: no entries", stack.AuditJSON, `{"truncated":false}`, "no entries"},
		{"JSON: null", stack.AuditJSON, `{"entries":null}`, `"[" belongs`},
		{"JSON: entries twice", stack.AuditJSON, `{"entries":[],"entries":[]}`, "twice"},
		{"JSON: more after the end", stack.AuditJSON, `{"entries":[]}{}`, "follows"},
		{"JSON: cut", stack.AuditJSON, `{"entries":[]`, "unexpected EOF"},
		{"JSON: cut in a row", stack.AuditJSON, `{"entries":[{"entry_id":`, "unexpected EOF"},
		{"JSON: a wrong type", stack.AuditJSON, `{"entries":[{"entry_id":1}]}`, "cannot unmarshal"},
		{"JSON: a huge row", stack.AuditJSON, `{"entries":[{"entry_id":"` + huge + `"}]}`, "over 1048576 bytes"},
		{"JSON: a huge key", stack.AuditJSON, `{"` + huge + `":1}`, "over 1048576 bytes"},
		{"NDJSON: no JSON", stack.AuditNDJSON, "entry_id", "invalid character"},
		{"NDJSON: cut", stack.AuditNDJSON, `{"entry_id":"a"`, "unexpected EOF"},
		{"NDJSON: a bracket", stack.AuditNDJSON, `]`, "invalid character"},
		{"NDJSON: a huge row", stack.AuditNDJSON, `{"entry_id":"` + huge, "over 1048576 bytes"},
		{"CSV: nothing", stack.AuditCSV, "", "no header"},
		{"CSV: a column less", stack.AuditCSV, strings.Replace(header, ",layer", "", 1), "no column layer"},
		{"CSV: a column twice", stack.AuditCSV, header + ",layer", "column layer twice"},
		{"CSV: a cell less", stack.AuditCSV, header + "\na,1,b,c,d,e,f,g", "wrong number of fields"},
		{"CSV: no time", stack.AuditCSV, header + "\na,soon,b,c,d,e,f,g,h", `timestamp is "soon"`},
		{"CSV: no duration", stack.AuditCSV, header + ",duration_ms\na,1,b,c,d,e,f,g,h,long", `duration_ms is "long"`},
		{"CSV: a quote", stack.AuditCSV, header + "\n\"a", "quoted-field"},
		{"CSV: a huge cell", stack.AuditCSV, header + "\n\"" + huge, "over 1048576 bytes"},
		{"no such form", "xml", "", "json, ndjson or csv"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := readExport(t, strings.NewReader(tt.text), tt.format)
			require.ErrorContains(t, err, tt.says)
			assert.Less(t, len(err.Error()), 300)
		})
	}
	_, err := readExport(t, strings.NewReader(""), "xml")
	requireParam(t, err, "format")
}

// endlessRows is an export without an end.
type endlessRows struct{ rest []byte }

func (r *endlessRows) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		r.rest = []byte(`{"entry_id":"aud_1","error_message":"` + strings.Repeat("x", 4000) + `"}` + "\n")
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// TestReadAuditExportIsBounded reads 80 MB of rows; none of them is kept, and the limit of a row is not one of the export.
func TestReadAuditExportIsBounded(t *testing.T) {
	t.Parallel()
	n := 0
	for _, err := range stack.ReadAuditExport(new(endlessRows), stack.AuditNDJSON) {
		require.NoError(t, err)
		if n++; n == 20_000 {
			break
		}
	}
	assert.Equal(t, 20_000, n)
}

// FuzzReadAuditExport feeds any bytes in every form: no panic, and the rows that were read can be written and read again.
func FuzzReadAuditExport(f *testing.F) {
	rows := auditLog(3, 2)
	for i, format := range auditForms {
		data, err := io.ReadAll(exportOf(f, format, rows))
		require.NoError(f, err)
		f.Add(i, data)
		f.Add(i, data[:len(data)/2])
	}
	f.Add(0, []byte(`{"entries":[null,{}],"entries":1}`))
	f.Fuzz(func(t *testing.T, form int, data []byte) {
		format := auditForms[uint(form)%3]
		var rows []stack.AuditEntry
		for row, err := range stack.ReadAuditExport(bytes.NewReader(data), format) {
			if err == nil {
				rows = append(rows, row)
			}
		}
		var lines bytes.Buffer
		for _, row := range rows {
			line, err := json.Marshal(row)
			require.NoError(t, err)
			lines.Write(append(line, '\n'))
		}
		again, err := readExport(t, &lines, stack.AuditNDJSON)
		require.NoError(t, err)
		require.Len(t, again, len(rows))
		for i, row := range rows {
			require.Equal(t, row.Hash(), again[i].Hash())
		}
	})
}
