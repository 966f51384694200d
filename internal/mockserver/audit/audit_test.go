package audit

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

var start = time.UnixMilli(1767225600123).UTC()

// row is the i-th row of newChain, as it is appended.
func row(i int) stack.AuditEntry {
	return stack.AuditEntry{
		EntryID: fmt.Sprintf("aud_%d", i), Timestamp: start.Add(time.Duration(i) * time.Second), TraceID: "tr", SpanID: "sp",
		ParentSpanID: "pa", OperatorID: "op_1", AgentID: fmt.Sprintf("agt_%d", i%2), PassportJTI: fmt.Sprintf("pp_%d", i%3),
		Layer: "proxy", Action: "credential.proxy", Outcome: stack.OutcomeFailure, Duration: 1500 * time.Microsecond,
		PayloadHash: "ab", ErrorCode: "UPSTREAM_TIMEOUT", ErrorMessage: "no answer",
	}
}

func newChain(n int) *Chain {
	var c Chain
	for i := range n {
		c.Append(row(i))
	}
	return &c
}

// TestHashVectors compares with hashes that were computed by Node.js: SHA-256 of JSON.stringify of the eight keys.
func TestHashVectors(t *testing.T) {
	t.Parallel()
	var odd strings.Builder
	for i := range rune(' ') {
		odd.WriteRune(i)
	}
	odd.WriteString("\"\\/<>&\x7f\u0080\u00e9\u2028\u2029\ufeff\ufffd\U0001f600")

	first := stack.AuditEntry{
		EntryID: "aud_1", Timestamp: start, OperatorID: "op_1", AgentID: "agt_1", Layer: "vault", Action: "passport.issue",
		Outcome: stack.OutcomeSuccess, PrevEntryHash: stack.AuditGenesis,
	}
	tests := []struct {
		name  string
		entry stack.AuditEntry
		want  string
	}{
		{"the first row", first, "bbee8b8e809f9fa069ef445fdb975b335d458f775fa2a0874033366e221a6c80"},
		{"no agent", stack.AuditEntry{
			EntryID: "aud_2", Timestamp: time.UnixMilli(1767225601000), OperatorID: "op_1", Layer: "proxy",
			Action: "credential.proxy", Outcome: stack.OutcomeBlocked, PrevEntryHash: first.Hash(),
		}, "5b41dfcb2bdef3cc42c5dd85c1e19685e3022c7314c4436f80f95bf4ca2edff6"},
		{"every character that is written in its own way", stack.AuditEntry{
			EntryID: odd.String(), Timestamp: time.UnixMilli(0), OperatorID: odd.String(), AgentID: odd.String(),
			Layer: "system", Action: odd.String(), Outcome: stack.OutcomeFailure, PrevEntryHash: stack.AuditGenesis,
		}, "5b04ad80efd9c8989b9cc4aba9fef0f9f71f55e2a5d75f026a831af6c21257b5"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, test.entry.Hash())
		})
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	var c Chain
	hash, count := c.Head()
	assert.Equal(t, strings.Repeat("0", 64), hash)
	assert.Zero(t, count)
	assert.Zero(t, c.Len())

	in := row(0)
	in.Timestamp = start.Add(999 * time.Microsecond).In(time.FixedZone("", 3600))
	in.PrevEntryHash, in.EntryHash = "forged", "forged"
	first := c.Append(in)
	assert.Equal(t, start, first.Timestamp)
	assert.Equal(t, stack.AuditGenesis, first.PrevEntryHash)
	assert.Equal(t, first.Hash(), first.EntryHash)

	late := row(1)
	late.Timestamp = start.Add(-time.Hour)
	second := c.Append(late)
	assert.Equal(t, start, second.Timestamp, "lifted to the row before")
	assert.Equal(t, first.EntryHash, second.PrevEntryHash)

	hash, count = c.Head()
	assert.Equal(t, second.EntryHash, hash)
	assert.Equal(t, 2, count)
	assert.Equal(t, 2, c.Len())
	assert.Equal(t, []stack.AuditEntry{first, second}, c.Range(time.Time{}, time.Time{}))

	var unset Chain
	assert.Equal(t, time.UnixMilli(0).UTC(), unset.Append(stack.AuditEntry{}).Timestamp)
	assert.True(t, unset.Verify(time.Time{}, time.Time{}, 0).Valid)
}

// TestWireRecomputes takes a row as the wire has it and recomputes its hash from that alone, as an auditor would.
func TestWireRecomputes(t *testing.T) {
	t.Parallel()
	for _, agent := range []string{"agt_1", ""} {
		var c Chain
		e := row(0)
		e.AgentID = agent
		e = c.Append(e)
		wire, err := json.Marshal(e)
		require.NoError(t, err)
		var got map[string]any
		require.NoError(t, json.Unmarshal(wire, &got))
		assert.Equal(t, agent, got["agent_id"], "an empty string in the JSON as in the hash")
		var read stack.AuditEntry
		require.NoError(t, json.Unmarshal(wire, &read))
		assert.Equal(t, e, read)
		assert.Equal(t, got["entry_hash"], read.Hash())
	}
}

func TestNewest(t *testing.T) {
	t.Parallel()
	c := newChain(10)
	tests := []struct {
		name   string
		filter Filter
		want   []int
	}{
		{"all", Filter{}, []int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		{"limit", Filter{Limit: 3}, []int{9, 8, 7}},
		{"limit beyond", Filter{Limit: 30, AgentID: "agt_0"}, []int{8, 6, 4, 2, 0}},
		{"since is strict", Filter{Since: start.Add(7 * time.Second)}, []int{9, 8}},
		{"since within the same millisecond", Filter{Since: start.Add(7*time.Second + 999*time.Microsecond)}, []int{9, 8}},
		{"since a millisecond before", Filter{Since: start.Add(7*time.Second - time.Millisecond)}, []int{9, 8, 7}},
		{"agent", Filter{AgentID: "agt_1"}, []int{9, 7, 5, 3, 1}},
		{"passport", Filter{PassportJTI: "pp_0"}, []int{9, 6, 3, 0}},
		{"everything at once", Filter{Since: start, AgentID: "agt_1", PassportJTI: "pp_0", Limit: 1}, []int{9}},
		{"nobody", Filter{AgentID: "agt_9"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, ids(test.want), entryIDs(c.Newest(test.filter)))
		})
	}
	assert.Empty(t, new(Chain).Newest(Filter{}))
}

func TestRange(t *testing.T) {
	t.Parallel()
	c := newChain(5)
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second) }
	tests := []struct {
		name     string
		from, to time.Time
		want     []int
	}{
		{"all", time.Time{}, time.Time{}, []int{0, 1, 2, 3, 4}},
		{"from is inclusive, to is not", at(1), at(3), []int{1, 2}},
		{"from only", at(3), time.Time{}, []int{3, 4}},
		{"to only", time.Time{}, at(2), []int{0, 1}},
		{"between two rows", at(1).Add(1), at(1).Add(2), nil},
		{"before all", time.Time{}, at(0), nil},
		{"after all", at(5), time.Time{}, nil},
		{"upside down", at(3), at(1), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, ids(test.want), entryIDs(c.Range(test.from, test.to)))
			r := c.Verify(test.from, test.to, 0)
			assert.True(t, r.Valid)
			assert.Equal(t, len(test.want), r.Checked)
		})
	}
	assert.Empty(t, new(Chain).Range(time.Time{}, time.Time{}))
}

// TestRangeIsSafeToKeep appends, as a later request would, while and after the slice is used.
func TestRangeIsSafeToKeep(t *testing.T) {
	t.Parallel()
	c := newChain(3)
	kept := c.Range(time.Time{}, time.Time{})
	want := slices.Clone(kept)
	_ = append(kept, stack.AuditEntry{EntryID: "a caller's own"})
	c.Append(row(3))
	assert.Equal(t, want, kept)
	assert.Equal(t, "aud_3", c.Range(time.Time{}, time.Time{})[3].EntryID)
}

func TestVerifyEmptyAndLimit(t *testing.T) {
	t.Parallel()
	assert.Equal(t, &stack.ChainVerification{Valid: true, HeadHash: stack.AuditGenesis}, new(Chain).Verify(time.Time{}, time.Time{}, 0))
	c := newChain(10)
	head, _ := c.Head()
	assert.Equal(t, &stack.ChainVerification{Valid: true, Checked: 10, HeadHash: head}, c.Verify(time.Time{}, time.Time{}, 0))
	assert.Equal(t, &stack.ChainVerification{Valid: true, Checked: 4, HeadHash: head}, c.Verify(time.Time{}, time.Time{}, 4))
	assert.Equal(t, 10, c.Verify(time.Time{}, time.Time{}, 100).Checked)
	c.rows[5].Action = "x"
	assert.True(t, c.Verify(time.Time{}, time.Time{}, 5).Valid, "not reached")
	assert.False(t, c.Verify(time.Time{}, time.Time{}, 6).Valid)
}

// TestTampering changes a log behind its back in every way that the chain is to show.
func TestTampering(t *testing.T) {
	t.Parallel()
	edit := func(change func(*stack.AuditEntry)) func(*Chain) {
		return func(c *Chain) { change(&c.rows[4]) }
	}
	tests := []struct {
		name   string
		tamper func(*Chain)
		index  int
		id     string
		reason stack.ChainReason
	}{
		{"entry id", edit(func(e *stack.AuditEntry) { e.EntryID = "aud_x" }), 4, "aud_x", stack.ChainEntryHash},
		{"timestamp", edit(func(e *stack.AuditEntry) {
			e.Timestamp = e.Timestamp.Add(time.Millisecond)
		}), 4, "aud_4", stack.ChainEntryHash},
		{"operator", edit(func(e *stack.AuditEntry) { e.OperatorID = "op_2" }), 4, "aud_4", stack.ChainEntryHash},
		{"agent", edit(func(e *stack.AuditEntry) { e.AgentID = "" }), 4, "aud_4", stack.ChainEntryHash},
		{"layer", edit(func(e *stack.AuditEntry) { e.Layer = "vault" }), 4, "aud_4", stack.ChainEntryHash},
		{"action", edit(func(e *stack.AuditEntry) { e.Action = "passport.issue" }), 4, "aud_4", stack.ChainEntryHash},
		{"outcome", edit(func(e *stack.AuditEntry) { e.Outcome = stack.OutcomeSuccess }), 4, "aud_4", stack.ChainEntryHash},
		{"previous hash", edit(func(e *stack.AuditEntry) { e.PrevEntryHash = stack.AuditGenesis }), 4, "aud_4", stack.ChainEntryHash},
		{"entry hash", edit(func(e *stack.AuditEntry) { e.EntryHash = stack.AuditGenesis }), 4, "aud_4", stack.ChainEntryHash},
		{"a field moved into its neighbour", edit(func(e *stack.AuditEntry) {
			e.OperatorID, e.AgentID = e.OperatorID+`","agent_id":"x`, ""
		}), 4, "aud_4", stack.ChainEntryHash},
		{"changed and hashed again", edit(func(e *stack.AuditEntry) {
			e.Outcome = stack.OutcomeSuccess
			e.EntryHash = e.Hash()
		}), 5, "aud_5", stack.ChainPrevHash},
		{"the first row removed", func(c *Chain) { c.rows = c.rows[1:] }, 0, "aud_1", stack.ChainPrevHash},
		{"a row removed", func(c *Chain) { c.rows = slices.Delete(c.rows, 4, 5) }, 4, "aud_5", stack.ChainPrevHash},
		{"a row inserted with good hashes of its own", func(c *Chain) {
			e := c.rows[3]
			e.EntryID, e.PrevEntryHash = "aud_x", c.rows[3].EntryHash
			e.EntryHash = e.Hash()
			c.rows = slices.Insert(c.rows, 4, e)
		}, 5, "aud_4", stack.ChainPrevHash},
		{"a row repeated", func(c *Chain) { c.rows = slices.Insert(c.rows, 4, c.rows[3]) }, 4, "aud_3", stack.ChainPrevHash},
		{"two rows swapped", func(c *Chain) { c.rows[4], c.rows[5] = c.rows[5], c.rows[4] }, 4, "aud_5", stack.ChainPrevHash},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(10)
			require.True(t, c.Verify(time.Time{}, time.Time{}, 0).Valid)
			test.tamper(c)
			r := c.Verify(time.Time{}, time.Time{}, 0)
			assert.False(t, r.Valid)
			assert.Equal(t, test.index+1, r.Checked)
			require.NotNil(t, r.FirstBreak)
			assert.Equal(t, test.index, r.FirstBreak.Index)
			assert.Equal(t, test.id, r.FirstBreak.EntryID)
			assert.Equal(t, test.reason, r.FirstBreak.Reason)
			e := c.rows[test.index]
			if test.reason == stack.ChainEntryHash {
				assert.Equal(t, e.Hash(), r.FirstBreak.Expected)
				assert.Equal(t, e.EntryHash, r.FirstBreak.Got)
			} else {
				assert.Equal(t, c.hashBefore(test.index), r.FirstBreak.Expected)
				assert.Equal(t, e.PrevEntryHash, r.FirstBreak.Got)
			}
			assert.NotEqual(t, r.FirstBreak.Expected, r.FirstBreak.Got)
		})
	}
}

// TestUnhashedFields pins what the rule of the hash leaves out. (contract: semantics 8)
func TestUnhashedFields(t *testing.T) {
	t.Parallel()
	c := newChain(3)
	e := &c.rows[1]
	e.TraceID, e.SpanID, e.ParentSpanID, e.PassportJTI = "x", "x", "x", "x"
	e.PayloadHash, e.ErrorCode, e.ErrorMessage, e.Duration = "x", "x", "x", time.Hour
	assert.True(t, c.Verify(time.Time{}, time.Time{}, 0).Valid)
}

func TestVerifyRangeLooksAtTheRowBefore(t *testing.T) {
	t.Parallel()
	c := newChain(10)
	c.rows[4].Action = "x"
	c.rows[4].EntryHash = c.rows[4].Hash()
	r := c.Verify(c.rows[5].Timestamp, time.Time{}, 0)
	assert.Equal(t, &stack.ChainBreak{Index: 5, EntryID: "aud_5", Reason: stack.ChainPrevHash, Expected: c.rows[4].EntryHash,
		Got: c.rows[5].PrevEntryHash}, r.FirstBreak)
	assert.Equal(t, 1, r.Checked)
	assert.True(t, c.Verify(c.rows[6].Timestamp, time.Time{}, 0).Valid)
	assert.True(t, c.Verify(time.Time{}, c.rows[5].Timestamp, 0).Valid, "the row after is outside")
}

// TestTamperedTimeHidesNothing moves a row far away in time, which would lead a search by halves astray.
func TestTamperedTimeHidesNothing(t *testing.T) {
	t.Parallel()
	for _, away := range []time.Duration{-1000 * time.Hour, 1000 * time.Hour} {
		for i := 1; i < 9; i++ {
			c := newChain(10)
			from, to := c.rows[0].Timestamp, c.rows[9].Timestamp
			c.rows[i].Timestamp = c.rows[i].Timestamp.Add(away)
			r := c.Verify(from, to, 0)
			if i == 8 && away > 0 {
				// The last row of the range has left it, and nothing inside says so; the whole log does.
				assert.True(t, r.Valid)
				r = c.Verify(time.Time{}, time.Time{}, 0)
			}
			require.NotNil(t, r.FirstBreak, "row %d by %s", i, away)
			assert.Equal(t, i, r.FirstBreak.Index)
		}
	}
}

func TestNDJSON(t *testing.T) {
	t.Parallel()
	c := newChain(3)
	e := row(3)
	e.ErrorMessage = "<b>&\n\u2028"
	c.Append(e)
	want := c.Range(time.Time{}, time.Time{})
	var out bytes.Buffer
	require.NoError(t, WriteNDJSON(&out, want))
	assert.Contains(t, out.String(), `"error_message":"<b>&\n`)
	lines := strings.SplitAfter(out.String(), "\n")
	require.Len(t, lines, 5)
	assert.Empty(t, lines[4])
	for i, line := range lines[:4] {
		var got stack.AuditEntry
		require.NoError(t, json.Unmarshal([]byte(line), &got))
		assert.Equal(t, want[i], got)
	}

	out.Reset()
	require.NoError(t, WriteNDJSON(&out, nil))
	assert.Empty(t, out.String())
	require.ErrorIs(t, WriteNDJSON(brokenWriter{}, want), errBroken)
}

func TestCSV(t *testing.T) {
	t.Parallel()
	var c Chain
	c.Append(row(0))
	odd := row(1)
	odd.AgentID, odd.Duration, odd.ErrorMessage = "", 0, "=1+1,\"quoted\"\nsecond line \u2028é"
	c.Append(odd)
	entries := c.Range(time.Time{}, time.Time{})
	var out bytes.Buffer
	require.NoError(t, WriteCSV(&out, entries))
	records, err := csv.NewReader(&out).ReadAll()
	require.NoError(t, err)
	require.Len(t, records, 3)

	assert.Equal(t, []string{
		"aud_0", "1767225600123", "tr", "sp", "pa", "op_1", "agt_0", "pp_0", "proxy", "credential.proxy", "failure", "1.5", "ab",
		"UPSTREAM_TIMEOUT", "no answer", stack.AuditGenesis, entries[0].EntryHash,
	}, records[1])

	// The columns are the keys of the JSON, and each cell says what the JSON says.
	for i, e := range entries {
		wire, err := json.Marshal(e)
		require.NoError(t, err)
		var object map[string]any
		dec := json.NewDecoder(bytes.NewReader(wire))
		dec.UseNumber()
		require.NoError(t, dec.Decode(&object))
		for j, key := range records[0] {
			want := ""
			if value, ok := object[key]; ok {
				want = fmt.Sprint(value)
			}
			assert.Equal(t, want, records[i+1][j], key)
			delete(object, key)
		}
		assert.Empty(t, object, "keys without a column")
	}
}

func TestCSVFailsWithItsWriter(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, WriteCSV(brokenWriter{}, nil), errBroken)
	require.ErrorIs(t, WriteCSV(brokenWriter{}, newChain(100).rows), errBroken)
	var out bytes.Buffer
	require.NoError(t, WriteCSV(&out, nil))
	assert.Equal(t, strings.Join(columns, ",")+"\n", out.String())
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func BenchmarkAppend(b *testing.B) {
	var c Chain
	e := row(0)
	b.ReportAllocs()
	for b.Loop() {
		c.Append(e)
	}
}

func BenchmarkVerify(b *testing.B) {
	c := newChain(10_000)
	b.ReportAllocs()
	for b.Loop() {
		if !c.Verify(time.Time{}, time.Time{}, 0).Valid {
			b.Fatal("broken")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.Len()), "ns/row")
}

func entryIDs(entries []stack.AuditEntry) []string {
	var list []string
	for _, e := range entries {
		list = append(list, e.EntryID)
	}
	return list
}

func ids(rows []int) []string {
	var list []string
	for _, i := range rows {
		list = append(list, "aud_"+strconv.Itoa(i))
	}
	return list
}
