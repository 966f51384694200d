package mockserver

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

var auditBegin = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// fill records n rows, several to each millisecond.
func fill(op *operator, n, perMillisecond int) {
	op.mu.Lock()
	defer op.mu.Unlock()
	for i := range n {
		op.record(auditBegin.Add(time.Duration(i/perMillisecond)*time.Millisecond), stack.AuditEntry{Action: "agent.update"})
	}
}

func TestCutExport(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name             string
		rows, each       int // so many of a millisecond
		most, kept       int
		cut, indivisible bool
	}{
		{name: "none", rows: 0, each: 1, most: 5, kept: 0},
		{name: "as many as fit", rows: 5, each: 1, most: 5, kept: 5},
		{name: "as many as fit of one millisecond", rows: 5, each: 5, most: 5, kept: 5},
		{name: "one more", rows: 6, each: 1, most: 5, kept: 5, cut: true},
		{name: "in the middle of a millisecond", rows: 10, each: 3, most: 5, kept: 3, cut: true},
		{name: "at the end of a millisecond", rows: 10, each: 3, most: 6, kept: 6, cut: true},
		{name: "a millisecond that does not fit", rows: 6, each: 6, most: 5, indivisible: true},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, op, _ := newDirect(t)
			fill(op, tt.rows, tt.each)
			rows := op.chain.Range(time.Time{}, time.Time{})
			export, err := cutExport(rows, tt.most)
			if tt.indivisible {
				var refusal *apiError
				require.ErrorAs(t, err, &refusal)
				assert.Equal(t, "INVALID_REQUEST", refusal.code)
				return
			}
			require.NoError(t, err)
			require.Len(t, export.Entries, tt.kept)
			require.Equal(t, tt.cut, export.Truncated)
			if tt.cut {
				assert.Equal(t, rows[tt.kept].Timestamp, export.NextFrom)
			}
		})
	}
}

func TestEveryExportSaysThatItWasCut(t *testing.T) {
	t.Parallel()
	_, op, _ := newDirect(t)
	fill(op, 4, 1)
	rows := op.chain.Range(time.Time{}, time.Time{})
	for _, format := range []stack.AuditFormat{stack.AuditJSON, stack.AuditNDJSON, stack.AuditCSV} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			export, err := cutExport(rows, 3)
			require.NoError(t, err)
			out, err := encodeExport(export, format)
			require.NoError(t, err)
			assert.Equal(t, []string{"true"}, out.header["X-Stack-Truncated"])
			assert.Equal(t, []string{rows[3].Timestamp.Format(time.RFC3339Nano)}, out.header["X-Stack-Next-From"])
			assert.Equal(t, []string{rows[0].EntryID, rows[1].EntryID, rows[2].EntryID}, exportedIDs(t, format, out.body))
			if format == stack.AuditJSON {
				var body stack.AuditExport
				require.NoError(t, json.Unmarshal(out.body, &body))
				assert.True(t, body.Truncated)
				assert.Equal(t, rows[3].Timestamp, body.NextFrom)
			}
		})
	}
}

func TestAllGoesOnWhereAnExportWasCut(t *testing.T) {
	t.Parallel()
	const rows = stack.MaxAuditExport + 10
	_, op, client := newDirect(t)
	fill(op, rows, 3) // 50,000 is in the middle of a millisecond
	whole := op.chain.Range(time.Time{}, time.Time{})
	i := 0
	for entry, err := range client.Audit.All(t.Context(), stack.AuditRange{}) {
		require.NoError(t, err)
		if entry.EntryID != whole[i].EntryID {
			t.Fatalf("row %d is %s, want %s", i, entry.EntryID, whole[i].EntryID)
		}
		i++
	}
	assert.Equal(t, rows, i)

	var buf bytes.Buffer
	done, err := client.Audit.Export(t.Context(), stack.AuditExportParams{Format: stack.AuditCSV}, &buf)
	require.NoError(t, err)
	next := whole[stack.MaxAuditExport/3*3].Timestamp
	assert.Equal(t, stack.AuditExported{Bytes: int64(buf.Len()), Truncated: true, NextFrom: next}, *done)
}

// exportedIDs reads the entry ids out of an export.
func exportedIDs(t *testing.T, format stack.AuditFormat, data []byte) []string {
	t.Helper()
	var ids []string
	switch format {
	case stack.AuditJSON:
		var export stack.AuditExport
		require.NoError(t, json.Unmarshal(data, &export))
		for _, e := range export.Entries {
			ids = append(ids, e.EntryID)
		}
	case stack.AuditNDJSON:
		dec := json.NewDecoder(bytes.NewReader(data))
		for dec.More() {
			var e stack.AuditEntry
			require.NoError(t, dec.Decode(&e))
			ids = append(ids, e.EntryID)
		}
	case stack.AuditCSV:
		records, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
		require.NoError(t, err)
		require.Equal(t, "entry_id", records[0][0])
		for _, record := range records[1:] {
			ids = append(ids, record[0])
		}
	}
	return ids
}

func TestVerifyChainReportsTampering(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	fill(op, 10, 1)
	rows := op.chain.Range(time.Time{}, time.Time{})
	rows[6].Action = "agent.delete" // nobody but a test can: the slice is the log itself
	got, err := client.Audit.VerifyChain(t.Context(), stack.AuditVerifyParams{})
	require.NoError(t, err)
	assert.False(t, got.Valid)
	assert.Equal(t, 7, got.Checked)
	require.NotNil(t, got.FirstBreak)
	assert.Equal(t, 6, got.FirstBreak.Index)
	assert.Equal(t, rows[6].EntryID, got.FirstBreak.EntryID)
	assert.Equal(t, stack.ChainEntryHash, got.FirstBreak.Reason)
	assert.Equal(t, rows[6].EntryHash, got.FirstBreak.Got)
	assert.NotEqual(t, got.FirstBreak.Got, got.FirstBreak.Expected)
	assert.Equal(t, rows[9].EntryHash, got.HeadHash)

	got, err = client.Audit.VerifyChain(t.Context(), stack.AuditVerifyParams{Limit: 6})
	require.NoError(t, err)
	assert.True(t, got.Valid, "the rows before it are sound")
	assert.Equal(t, 6, got.Checked)
}
