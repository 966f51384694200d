package stack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// auditLog makes a sound log of n rows, perMillisecond of each millisecond.
func auditLog(n, perMillisecond int) []stack.AuditEntry {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rows := make([]stack.AuditEntry, n)
	for i := range rows {
		rows[i] = stack.AuditEntry{EntryID: fmt.Sprintf("aud_%d", i), Timestamp: begin.Add(time.Duration(i/perMillisecond) * time.Millisecond),
			OperatorID: "op_1", AgentID: fmt.Sprintf("agt_%d", i%3), PassportJTI: "pp_1", Layer: "proxy", Action: "credential.proxy",
			Outcome: stack.OutcomeSuccess, Duration: 1500 * time.Microsecond, ErrorMessage: "a, \"b\"\nc"}
	}
	rehash(rows, 0)
	return rows
}

// rehash makes the chain sound again from row k on, as a server would that rewrites its log.
func rehash(rows []stack.AuditEntry, k int) {
	for i := k; i < len(rows); i++ {
		rows[i].PrevEntryHash = stack.AuditGenesis
		if i > 0 {
			rows[i].PrevEntryHash = rows[i-1].EntryHash
		}
		rows[i].EntryHash = rows[i].Hash()
	}
}

func rowsOf(rows []stack.AuditEntry) iter.Seq2[stack.AuditEntry, error] {
	return func(yield func(stack.AuditEntry, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
}

// headOf is the pin behind row i.
func headOf(rows []stack.AuditEntry, i int) stack.AuditHead {
	return stack.AuditHead{Hash: rows[i].EntryHash, EntryID: rows[i].EntryID, Count: i + 1, Timestamp: rows[i].Timestamp}
}

// lyingServer answers like an API that shows these rows as its log, with no row of one millisecond parted when an export
// is cut. It calls the last row its head unless another is given.
func lyingServer(t *testing.T, srv *stacktest.Server, rows []stack.AuditEntry, claimed ...stack.ChainHead) *stack.Client {
	t.Helper()
	return srv.Client(stack.WithHTTPClient(&http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		var answer any
		if req.URL.Path == "/v1/audit/chain-head" {
			head := stack.ChainHead{HeadHash: stack.AuditGenesis, EntryCount: len(rows)}
			if len(rows) > 0 {
				head.HeadHash = rows[len(rows)-1].EntryHash
			}
			answer = append([]stack.ChainHead{head}, claimed...)[len(claimed)]
		} else {
			export := stack.AuditExport{Entries: []stack.AuditEntry{}}
			from, _ := time.Parse(time.RFC3339Nano, req.URL.Query().Get("from"))
			for _, row := range rows {
				if row.Timestamp.Before(from) {
					continue
				}
				if n := len(export.Entries); n >= 3 && row.Timestamp.After(export.Entries[n-1].Timestamp) {
					export.Truncated, export.NextFrom = true, row.Timestamp
					break
				}
				export.Entries = append(export.Entries, row)
			}
			answer = export
		}
		body, err := json.Marshal(answer)
		if err != nil {
			return nil, err
		}
		return &http.Response{StatusCode: http.StatusOK, Request: req, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(bytes.NewReader(body))}, nil
	})}))
}

// TestAuditChainAgainstALyingServer has a server show another log than the one that was pinned: each lie is found, and the
// first bad row named, over the API from the pin on, and over a whole export in every form.
func TestAuditChainAgainstALyingServer(t *testing.T) {
	t.Parallel()
	const pinned = 7 // of ten rows, two a millisecond
	edit := func(i int) func([]stack.AuditEntry) []stack.AuditEntry {
		return func(rows []stack.AuditEntry) []stack.AuditEntry {
			rows[i].Outcome = stack.OutcomeBlocked
			return rows
		}
	}
	tests := []struct {
		name    string
		lie     func([]stack.AuditEntry) []stack.AuditEntry
		reason  stack.ChainReason // what a whole export shows
		index   int
		id      string
		fromPin stack.ChainReason // what the API shows to who reads from the pin on; "" when that is as it was
	}{
		{"the end cut off", func(rows []stack.AuditEntry) []stack.AuditEntry { return rows[:5] },
			stack.ChainPinMissing, 5, "aud_7", stack.ChainPinMissing},
		{"everything cut off", func([]stack.AuditEntry) []stack.AuditEntry { return nil },
			stack.ChainPinMissing, 0, "aud_7", stack.ChainPinMissing},
		{"the pinned row alone cut off the end", func(rows []stack.AuditEntry) []stack.AuditEntry { return rows[:pinned] },
			stack.ChainPinMissing, 7, "aud_7", stack.ChainPinMissing},
		{"a row left out", func(rows []stack.AuditEntry) []stack.AuditEntry { return slices.Delete(rows, 4, 5) },
			stack.ChainPrevHash, 4, "aud_5", ""},
		{"a row left out after the pin", func(rows []stack.AuditEntry) []stack.AuditEntry { return slices.Delete(rows, 8, 9) },
			stack.ChainPrevHash, 8, "aud_9", stack.ChainPrevHash},
		{"a row left out and the rest hashed anew", func(rows []stack.AuditEntry) []stack.AuditEntry {
			rows = slices.Delete(rows, 4, 5)
			rehash(rows, 4)
			return rows
		}, stack.ChainPinMissing, 6, "aud_7", stack.ChainPinMissing},
		{"the beginning cut off and the rest hashed anew", func(rows []stack.AuditEntry) []stack.AuditEntry {
			rows = rows[2:]
			rehash(rows, 0)
			return rows
		}, stack.ChainPinMissing, 5, "aud_7", stack.ChainPinMissing},
		{"a fork before the pin", func(rows []stack.AuditEntry) []stack.AuditEntry {
			edit(3)(rows)
			rehash(rows, 3)
			return rows
		}, stack.ChainPinMissing, 7, "aud_7", stack.ChainPinMissing},
		{"a fork at the pin", func(rows []stack.AuditEntry) []stack.AuditEntry {
			edit(pinned)(rows)
			rehash(rows, pinned)
			return rows
		}, stack.ChainPinMissing, 7, "aud_7", stack.ChainPinMissing},
		{"a fork that ends before the pin", func(rows []stack.AuditEntry) []stack.AuditEntry {
			rows = edit(3)(rows[:6])
			rehash(rows, 3)
			return rows
		}, stack.ChainPinMissing, 6, "aud_7", stack.ChainPinMissing},
		{"rows put in another order", func(rows []stack.AuditEntry) []stack.AuditEntry {
			rows[4], rows[5] = rows[5], rows[4]
			return rows
		}, stack.ChainPrevHash, 4, "aud_5", ""},
		{"rows put in another order and hashed anew", func(rows []stack.AuditEntry) []stack.AuditEntry {
			rows[3], rows[4] = rows[4], rows[3]
			rehash(rows, 3)
			return rows
		}, stack.ChainOutOfOrder, 4, "aud_3", stack.ChainPinMissing},
		{"a row replaced", edit(4), stack.ChainEntryHash, 4, "aud_4", ""},
		{"a row replaced after the pin", edit(9), stack.ChainEntryHash, 9, "aud_9", stack.ChainEntryHash},
		{"a row replaced with a good hash", func(rows []stack.AuditEntry) []stack.AuditEntry {
			edit(4)(rows)
			rows[4].EntryHash = rows[4].Hash()
			return rows
		}, stack.ChainPrevHash, 5, "aud_5", ""},
		{"the pinned row replaced with a good hash", func(rows []stack.AuditEntry) []stack.AuditEntry {
			edit(pinned)(rows)
			rows[pinned].EntryHash = rows[pinned].Hash()
			return rows
		}, stack.ChainPinMissing, 7, "aud_7", stack.ChainPinMissing},
		{"a row shown twice", func(rows []stack.AuditEntry) []stack.AuditEntry { return slices.Insert(rows, 4, rows[3]) },
			stack.ChainPrevHash, 4, "aud_3", ""},
		{"the pinned row shown twice", func(rows []stack.AuditEntry) []stack.AuditEntry { return slices.Insert(rows, 8, rows[7]) },
			stack.ChainPrevHash, 8, "aud_7", stack.ChainPrevHash},
		{"a row of the server's own put in", func(rows []stack.AuditEntry) []stack.AuditEntry {
			added := rows[3]
			added.EntryID, added.PrevEntryHash = "aud_x", rows[3].EntryHash
			added.EntryHash = added.Hash()
			return slices.Insert(rows, 4, added)
		}, stack.ChainPrevHash, 5, "aud_4", ""},
		{"newest first", func(rows []stack.AuditEntry) []stack.AuditEntry {
			slices.Reverse(rows)
			return rows
		}, stack.ChainPinMissing, 0, "aud_9", stack.ChainPinMissing},
	}
	srv := stacktest.New(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			honest := auditLog(10, 2)
			pin := headOf(honest, pinned)
			shown := tt.lie(slices.Clone(honest))
			requireBreak := func(err error, reason stack.ChainReason) *stack.ChainError {
				var broken *stack.ChainError
				require.ErrorAs(t, err, &broken)
				require.Equal(t, reason, broken.Reason, err)
				assert.NotEqual(t, broken.Expected, broken.Got)
				assert.Contains(t, err.Error(), string(reason))
				assert.Contains(t, err.Error(), broken.EntryID)
				return broken
			}

			for _, format := range []stack.AuditFormat{stack.AuditJSON, stack.AuditNDJSON, stack.AuditCSV} {
				got, err := stack.VerifyAuditChain(stack.ReadAuditExport(exportOf(t, format, shown), format), pin)
				broken := requireBreak(err, tt.reason)
				assert.Equal(t, tt.index, broken.Index, format)
				assert.Equal(t, tt.id, broken.EntryID, format)
				assert.Equal(t, pin, got, "the pin is not lost")
			}

			client := lyingServer(t, srv, shown)
			got, err := client.Audit.Verify(t.Context(), pin)
			if tt.fromPin == "" {
				require.NoError(t, err, "what is older than the pin is not read again")
				return
			}
			assert.NotEmpty(t, requireBreak(err, tt.fromPin).EntryID)
			assert.Equal(t, pin, got)
			hashOnly := stack.AuditHead{Hash: pin.Hash}
			_, err = client.Audit.Verify(t.Context(), hashOnly)
			require.Error(t, err, "a pin without its place")
		})
	}
}

// TestAuditVerifyHoldsTheServerToItsHead has a server leave off new rows that it counts.
func TestAuditVerifyHoldsTheServerToItsHead(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	rows := auditLog(6, 1)
	claimed := stack.ChainHead{HeadHash: rows[5].EntryHash, EntryCount: 6}
	for name, pin := range map[string]stack.AuditHead{"no pin": {}, "a pin": headOf(rows, 3)} {
		got, err := lyingServer(t, srv, rows[:5], claimed).Audit.Verify(t.Context(), pin)
		var broken *stack.ChainError
		require.ErrorAs(t, err, &broken, name)
		assert.Equal(t, stack.ChainBreak{Index: 5, Reason: stack.ChainHeadMissing, Expected: rows[5].EntryHash, Got: rows[4].EntryHash},
			broken.ChainBreak, name)
		assert.Equal(t, pin, got, name)
	}
	head, err := lyingServer(t, srv, rows, stack.ChainHead{HeadHash: rows[2].EntryHash, EntryCount: 3}).Audit.Verify(t.Context(), stack.AuditHead{})
	require.NoError(t, err, "rows may come after the head was asked for")
	assert.Equal(t, headOf(rows, 5), head)
}

func TestVerifyAuditChain(t *testing.T) {
	t.Parallel()
	rows := auditLog(10, 2)
	end := headOf(rows, 9)
	tests := []struct {
		name string
		rows []stack.AuditEntry
		pin  stack.AuditHead
		want stack.AuditHead
	}{
		{"from the beginning", rows, stack.AuditHead{}, end},
		{"from the beginning, named", rows, stack.AuditHead{Hash: stack.AuditGenesis}, end},
		{"no rows", nil, stack.AuditHead{}, stack.AuditHead{}},
		{"all rows, pinned", rows, headOf(rows, 4), end},
		{"all rows, pinned at the first", rows, headOf(rows, 0), end},
		{"all rows, pinned at the last", rows, end, end},
		{"from the pinned millisecond on", rows[4:], headOf(rows, 5), end},
		{"from the pinned row on", rows[5:], headOf(rows, 5), end},
		{"from the row after the pin on", rows[6:], headOf(rows, 5), end},
		{"from the middle, pinned at the last", rows[3:], end, end},
		{"a pin that is only a hash", rows, stack.AuditHead{Hash: rows[4].EntryHash}, end},
		{"a pin of the server's head", rows, stack.AuditHead{Hash: rows[4].EntryHash, Count: 5}, end},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			head, err := stack.VerifyAuditChain(rowsOf(tt.rows), tt.pin)
			require.NoError(t, err)
			assert.Equal(t, tt.want, head)
			kept, err := json.Marshal(head)
			require.NoError(t, err)
			var again stack.AuditHead
			require.NoError(t, json.Unmarshal(kept, &again))
			assert.Equal(t, head, again, "a head can be kept as JSON")
		})
	}

	t.Run("nothing new after the pin reads as missing", func(t *testing.T) {
		t.Parallel()
		_, err := stack.VerifyAuditChain(rowsOf(nil), end)
		var broken *stack.ChainError
		require.ErrorAs(t, err, &broken)
		assert.Equal(t, stack.ChainPinMissing, broken.Reason)
	})
	t.Run("a log without its first rows has no beginning", func(t *testing.T) {
		t.Parallel()
		_, err := stack.VerifyAuditChain(rowsOf(rows[3:]), stack.AuditHead{})
		var broken *stack.ChainError
		require.ErrorAs(t, err, &broken)
		assert.Equal(t, stack.ChainBreak{EntryID: "aud_3", Reason: stack.ChainPrevHash, Expected: stack.AuditGenesis, Got: rows[2].EntryHash},
			broken.ChainBreak)
		head, err := stack.VerifyAuditChain(rowsOf(rows[3:]), stack.AuditHead{Hash: rows[3].PrevEntryHash, Count: 3})
		require.NoError(t, err)
		assert.Equal(t, end, head)
	})
	t.Run("an error of the rows", func(t *testing.T) {
		t.Parallel()
		failure := errors.New("line is down")
		head, err := stack.VerifyAuditChain(func(yield func(stack.AuditEntry, error) bool) {
			_ = yield(rows[0], nil) && yield(stack.AuditEntry{}, failure)
		}, headOf(rows, 0))
		require.ErrorIs(t, err, failure)
		assert.Equal(t, headOf(rows, 0), head)
	})
	for name, pin := range map[string]stack.AuditHead{
		"too short":       {Hash: "abc"},
		"upper case":      {Hash: strings.ToUpper(end.Hash), Count: 1},
		"a row, no hash":  {Count: 3, EntryID: "aud_2"},
		"a time, no hash": {Timestamp: end.Timestamp},
	} {
		t.Run("a pin that cannot be: "+name, func(t *testing.T) {
			t.Parallel()
			_, err := stack.VerifyAuditChain(rowsOf(rows), pin)
			requireParam(t, err, "pin.hash")
			_, err = stacktest.New(t).Client().Audit.Verify(t.Context(), pin)
			requireParam(t, err, "pin.hash")
		})
	}
	_, err := stack.VerifyAuditChain(rowsOf(rows), stack.AuditHead{Hash: end.Hash, Count: -1})
	requireParam(t, err, "pin.count")
}

// TestAuditVerify verifies the mock's log from pin to pin while others write.
func TestAuditVerify(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	head, err := client.Audit.Verify(t.Context(), stack.AuditHead{})
	require.NoError(t, err, "an empty log")
	assert.Equal(t, stack.AuditHead{}, head)

	const writers, each = 4, 10
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range each {
				_, failure := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot"})
				assert.NoError(t, failure)
			}
		})
	}
	for head.Count < writers*each/2 {
		before := head.Count
		head, err = client.Audit.Verify(t.Context(), head)
		require.NoError(t, err)
		require.GreaterOrEqual(t, head.Count, before)
	}
	writing.Wait()
	next, err := client.Audit.Verify(t.Context(), head)
	require.NoError(t, err)
	claimed, err := client.Audit.ChainHead(t.Context())
	require.NoError(t, err)
	assert.Equal(t, stack.ChainHead{HeadHash: next.Hash, EntryCount: next.Count}, *claimed)
	assert.Equal(t, writers*each, next.Count)
	again, err := client.Audit.Verify(t.Context(), stack.AuditHead{Hash: claimed.HeadHash, Count: claimed.EntryCount})
	require.NoError(t, err)
	assert.Equal(t, next, again)

	var export bytes.Buffer
	_, err = client.Audit.Export(t.Context(), stack.AuditExportParams{Format: stack.AuditCSV}, &export)
	require.NoError(t, err)
	again, err = stack.VerifyAuditChain(stack.ReadAuditExport(&export, stack.AuditCSV), head)
	require.NoError(t, err)
	assert.Equal(t, next, again)
}

func TestAuditVerifyRefused(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	for _, path := range []string{"/v1/audit/chain-head", "/v1/audit/export"} {
		srv.Fault(stacktest.Fault{Method: http.MethodGet, Path: path, Status: http.StatusForbidden})
		_, err := srv.Client().Audit.Verify(t.Context(), stack.AuditHead{})
		require.ErrorIs(t, err, stack.ErrForbidden, path)
	}
}

// BenchmarkVerifyAuditChain compares with the bare SHA-256 of the same bytes.
func BenchmarkVerifyAuditChain(b *testing.B) {
	rows := auditLog(10_000, 5)
	message := fmt.Appendf(nil, `{"entry_id":%q,"timestamp":%d,"operator_id":%q,"agent_id":%q,"layer":%q,"action":%q,"outcome":%q,"prev_entry_hash":%q}`,
		rows[1].EntryID, rows[1].Timestamp.UnixMilli(), rows[1].OperatorID, rows[1].AgentID, rows[1].Layer, rows[1].Action, rows[1].Outcome,
		rows[1].PrevEntryHash)
	b.Run("chain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := stack.VerifyAuditChain(rowsOf(rows), stack.AuditHead{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(rows)), "ns/row")
	})
	b.Run("bare SHA-256", func(b *testing.B) {
		for b.Loop() {
			for range rows {
				sha256.Sum256(message)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(rows)), "ns/row")
	})
}
