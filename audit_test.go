package stack_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// registerOnePerSecond registers n agents, a second apart, and so writes n audit rows. It runs in a bubble.
func registerOnePerSecond(t *testing.T, client *stack.Client, n int) []*stack.Agent {
	t.Helper()
	agents := make([]*stack.Agent, n)
	for i := range agents {
		if i > 0 {
			time.Sleep(time.Second) // virtual
		}
		agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "agent-" + strings.Repeat("x", i+1)})
		require.NoError(t, err)
		agents[i] = agent
	}
	return agents
}

func agentIDs(entries []stack.AuditEntry) []string {
	ids := []string{}
	for _, e := range entries {
		ids = append(ids, e.AgentID)
	}
	return ids
}

func TestAuditList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := stacktest.New(t).Client()
		agents := registerOnePerSecond(t, client, 25)
		newest := func(n int) []string {
			ids := []string{}
			for i := range n {
				ids = append(ids, agents[len(agents)-1-i].ID)
			}
			return ids
		}
		list := func(params stack.AuditListParams) *stack.AuditPage {
			page, err := client.Audit.List(t.Context(), params)
			require.NoError(t, err)
			return page
		}

		page := list(stack.AuditListParams{})
		assert.Equal(t, newest(20), agentIDs(page.Entries), "20 by default, newest first")
		assert.Equal(t, page.Entries[0].Timestamp, page.MaxTimestamp)
		assert.WithinDuration(t, time.Now(), page.MaxTimestamp, time.Millisecond)
		for i, e := range page.Entries[:19] {
			assert.Equal(t, page.Entries[i+1].EntryHash, e.PrevEntryHash, "rows hang together")
		}
		first := page.Entries[0]
		assert.Equal(t, "agent.register", first.Action)
		assert.Equal(t, stack.OutcomeSuccess, first.Outcome)
		assert.Equal(t, "system", first.Layer)
		assert.Equal(t, agents[0].OperatorID, first.OperatorID)
		assert.True(t, strings.HasPrefix(first.EntryID, "aud_"))

		assert.Equal(t, newest(1), agentIDs(list(stack.AuditListParams{Limit: 1}).Entries))
		assert.Equal(t, newest(25), agentIDs(list(stack.AuditListParams{Limit: 100}).Entries))
		assert.Equal(t, []string{agents[3].ID}, agentIDs(list(stack.AuditListParams{AgentID: agents[3].ID}).Entries))

		since := page.Entries[2].Timestamp
		assert.Equal(t, newest(2), agentIDs(list(stack.AuditListParams{Since: since}).Entries), "strictly newer")
		assert.Equal(t, newest(1), agentIDs(list(stack.AuditListParams{Since: since, Limit: 1}).Entries))
		for name, params := range map[string]stack.AuditListParams{
			"nothing newer":      {Since: page.MaxTimestamp},
			"no such agent":      {AgentID: "agt_none"},
			"no such passport":   {PassportJTI: "pp_none"},
			"a passport's agent": {AgentID: agents[0].ID, PassportJTI: "pp_none"},
		} {
			page := list(params)
			assert.NotNil(t, page.Entries, name)
			assert.Empty(t, page.Entries, name)
			assert.True(t, page.MaxTimestamp.IsZero(), name)
		}
	})
}

func TestAuditListByPassport(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	first, _ := startLogged(t, client, "first")
	second, _ := startLogged(t, client, "second")
	page, err := client.Audit.List(t.Context(), stack.AuditListParams{PassportJTI: first.Passport.JTI})
	require.NoError(t, err)
	require.NotEmpty(t, page.Entries)
	for _, e := range page.Entries {
		assert.Equal(t, first.Passport.JTI, e.PassportJTI)
		assert.NotEqual(t, second.Passport.JTI, e.PassportJTI)
	}
}

func TestAuditRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	early, late := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	cases := []struct {
		name, field string
		call        func() error
	}{
		{"limit below 1", "query.limit", func() error {
			_, err := client.Audit.List(t.Context(), stack.AuditListParams{Limit: -1})
			return err
		}},
		{"limit over 100", "query.limit", func() error {
			_, err := client.Audit.List(t.Context(), stack.AuditListParams{Limit: 101})
			return err
		}},
		{"verify limit below 1", "query.limit", func() error {
			_, err := client.Audit.VerifyChain(t.Context(), stack.AuditVerifyParams{Limit: -1})
			return err
		}},
		{"verify backwards", "query.to", func() error {
			_, err := client.Audit.VerifyChain(t.Context(), stack.AuditVerifyParams{From: late, To: early})
			return err
		}},
		{"export backwards", "query.to", func() error {
			_, err := client.Audit.Export(t.Context(), stack.AuditExportParams{From: late, To: early}, &bytes.Buffer{})
			return err
		}},
		{"export format", "query.format", func() error {
			_, err := client.Audit.Export(t.Context(), stack.AuditExportParams{Format: "xml"}, &bytes.Buffer{})
			return err
		}},
		{"time that is none", "query.since", func() error {
			return client.Do(t.Context(), http.MethodGet, "/v1/audit?since=yesterday", nil, nil)
		}},
		{"time beyond JSON", "query.from", func() error {
			return client.Do(t.Context(), http.MethodGet, "/v1/audit/verify-chain?from=9223372036854775807", nil, nil)
		}},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.call()
			require.ErrorIs(t, err, stack.ErrInvalidRequest)
			var apiErr *stack.Error
			require.ErrorAs(t, err, &apiErr)
			assert.Equal(t, tt.field, apiErr.Details["field"])
			assert.NotEmpty(t, apiErr.Details["allowed"])
		})
	}
}

func TestAuditChain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := stacktest.New(t).Client()
		head, err := client.Audit.ChainHead(t.Context())
		require.NoError(t, err)
		assert.Equal(t, stack.ChainHead{HeadHash: strings.Repeat("0", 64)}, *head, "nothing has happened")
		verified, err := client.Audit.VerifyChain(t.Context(), stack.AuditVerifyParams{})
		require.NoError(t, err)
		assert.Equal(t, stack.ChainVerification{Valid: true, HeadHash: head.HeadHash}, *verified)

		agents := registerOnePerSecond(t, client, 6)
		page, err := client.Audit.List(t.Context(), stack.AuditListParams{})
		require.NoError(t, err)
		head, err = client.Audit.ChainHead(t.Context())
		require.NoError(t, err)
		assert.Equal(t, stack.ChainHead{HeadHash: page.Entries[0].EntryHash, EntryCount: len(agents)}, *head)

		at := func(i int) time.Time { return page.Entries[len(page.Entries)-1-i].Timestamp }
		for name, tt := range map[string]struct {
			params  stack.AuditVerifyParams
			checked int
		}{
			"all":                   {stack.AuditVerifyParams{}, 6},
			"the oldest two":        {stack.AuditVerifyParams{Limit: 2}, 2},
			"more than there are":   {stack.AuditVerifyParams{Limit: 100}, 6},
			"from is inclusive":     {stack.AuditVerifyParams{From: at(4)}, 2},
			"to is exclusive":       {stack.AuditVerifyParams{To: at(4)}, 4},
			"both":                  {stack.AuditVerifyParams{From: at(1), To: at(4)}, 3},
			"an empty range":        {stack.AuditVerifyParams{From: at(1), To: at(1)}, 0},
			"a range and a limit":   {stack.AuditVerifyParams{From: at(1), Limit: 2}, 2},
			"after the last of all": {stack.AuditVerifyParams{From: at(5).Add(time.Millisecond)}, 0},
		} {
			got, err := client.Audit.VerifyChain(t.Context(), tt.params)
			require.NoError(t, err, name)
			assert.Equal(t, stack.ChainVerification{Valid: true, Checked: tt.checked, HeadHash: head.HeadHash}, *got, name)
		}
	})
}

func TestAuditExport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := stacktest.New(t).Client()
		registerOnePerSecond(t, client, 5)
		page, err := client.Audit.List(t.Context(), stack.AuditListParams{})
		require.NoError(t, err)
		rows := page.Entries
		slices.Reverse(rows)
		export := func(params stack.AuditExportParams) []byte {
			var buf bytes.Buffer
			done, err := client.Audit.Export(t.Context(), params, &buf)
			require.NoError(t, err)
			assert.Equal(t, stack.AuditExported{Bytes: int64(buf.Len())}, *done)
			return buf.Bytes()
		}

		for name, tt := range map[string]struct {
			from, to time.Time
			want     []stack.AuditEntry
		}{
			"all":       {want: rows},
			"from":      {from: rows[2].Timestamp, want: rows[2:]},
			"to":        {to: rows[2].Timestamp, want: rows[:2]},
			"range":     {from: rows[1].Timestamp, to: rows[3].Timestamp, want: rows[1:3]},
			"none":      {from: rows[4].Timestamp.Add(time.Millisecond), want: []stack.AuditEntry{}},
			"one point": {from: rows[1].Timestamp, to: rows[1].Timestamp, want: []stack.AuditEntry{}},
		} {
			var doc stack.AuditExport
			require.NoError(t, json.Unmarshal(export(stack.AuditExportParams{From: tt.from, To: tt.to}), &doc), name)
			assert.Equal(t, stack.AuditExport{Entries: tt.want}, doc, name)

			lines := export(stack.AuditExportParams{From: tt.from, To: tt.to, Format: stack.AuditNDJSON})
			got := []stack.AuditEntry{}
			for line := range bytes.Lines(lines) {
				var e stack.AuditEntry
				require.NoError(t, json.Unmarshal(line, &e), name)
				got = append(got, e)
			}
			assert.Equal(t, tt.want, got, name)

			table := export(stack.AuditExportParams{From: tt.from, To: tt.to, Format: stack.AuditCSV})
			records, err := csv.NewReader(bytes.NewReader(table)).ReadAll()
			require.NoError(t, err, name)
			require.Len(t, records, len(tt.want)+1, name)
			assert.Equal(t, "entry_id", records[0][0], name)
			assert.Equal(t, "entry_hash", records[0][len(records[0])-1], name)
			for i, e := range tt.want {
				assert.Equal(t, e.EntryID, records[i+1][0], name)
				assert.Equal(t, e.EntryHash, records[i+1][len(records[i+1])-1], name)
			}
		}
	})
}

// failingWriter fails after n bytes.
type failingWriter struct{ n int }

var errFull = errors.New("disk full")

func (w *failingWriter) Write(p []byte) (int, error) {
	n := min(w.n, len(p))
	w.n -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func TestAuditExportTellsWhatTheWriterRefused(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	done, err := client.Audit.Export(t.Context(), stack.AuditExportParams{}, &failingWriter{n: 3})
	require.ErrorIs(t, err, errFull)
	assert.Equal(t, int64(3), done.Bytes)
}

func TestAuditAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		client := srv.Client()
		agents := registerOnePerSecond(t, client, 4)
		walk := func(params stack.AuditRange, most int) (ids []string, failures []error) {
			for e, err := range client.Audit.All(t.Context(), params) {
				if err != nil {
					failures = append(failures, err)
					continue // an iterator that went on after its error would be seen
				}
				if ids = append(ids, e.AgentID); len(ids) == most {
					break
				}
			}
			return ids, failures
		}
		all := []string{agents[0].ID, agents[1].ID, agents[2].ID, agents[3].ID}
		ids, failures := walk(stack.AuditRange{}, -1)
		assert.Empty(t, failures)
		assert.Equal(t, all, ids, "oldest first")
		ids, _ = walk(stack.AuditRange{}, 2)
		assert.Equal(t, all[:2], ids, "a loop may be left")
		from, to := agents[1].CreatedAt.Truncate(time.Millisecond), agents[3].CreatedAt.Truncate(time.Millisecond)
		ids, _ = walk(stack.AuditRange{From: from, To: to}, -1)
		assert.Equal(t, all[1:3], ids)

		srv.Fault(stacktest.Fault{Method: http.MethodGet, Path: "/v1/audit/export", Status: http.StatusForbidden})
		ids, failures = walk(stack.AuditRange{}, -1)
		assert.Empty(t, ids)
		require.Len(t, failures, 1, "an error comes once, and last")
		assert.ErrorIs(t, failures[0], stack.ErrForbidden)
		ids, failures = walk(stack.AuditRange{}, -1)
		assert.Empty(t, failures)
		assert.Equal(t, all, ids, "each range begins anew")
	})
}

// TestAuditAgainstAServerThatIsWrong walks exports of a server whose cut leads nowhere.
func TestAuditAgainstAServerThatIsWrong(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	wrong := func(nextFrom, body string) *stack.Client {
		return srv.Client(stack.WithHTTPClient(&http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Request: req, Body: io.NopCloser(strings.NewReader(body)),
				Header: http.Header{"X-Stack-Truncated": {"true"}, "X-Stack-Next-From": {nextFrom}}}, nil
		})}))
	}
	steps := 0
	client := wrong("", `{"entries":[],"truncated":true,"next_from":"2026-01-01T00:00:00Z"}`)
	for _, err := range client.Audit.All(t.Context(), stack.AuditRange{From: at}) {
		require.ErrorContains(t, err, "not after its beginning")
		steps++
	}
	assert.Equal(t, 1, steps, "it does not walk for ever")
	var buf bytes.Buffer
	_, err := wrong("soon", "x").Audit.Export(t.Context(), stack.AuditExportParams{}, &buf)
	require.ErrorContains(t, err, "X-Stack-Next-From")
	assert.Empty(t, buf.String())
}

// TestAuditChainUnderLoad writes from many sides while others read, and finds every write in a sound chain.
func TestAuditChainUnderLoad(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	const writers, each = 8, 5
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				_, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot"})
				assert.NoError(t, err)
				got, err := client.Audit.VerifyChain(t.Context(), stack.AuditVerifyParams{})
				if assert.NoError(t, err) {
					assert.True(t, got.Valid)
				}
				_, err = client.Audit.Export(t.Context(), stack.AuditExportParams{Format: stack.AuditCSV}, &bytes.Buffer{})
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	head, err := client.Audit.ChainHead(t.Context())
	require.NoError(t, err)
	assert.Equal(t, writers*each, head.EntryCount)
}

func TestAuditPageRoundTrip(t *testing.T) {
	t.Parallel()
	for name, wire := range map[string]string{
		"empty":  `{"entries":[],"max_timestamp":null}`,
		"filled": `{"entries":[],"max_timestamp":1767225600001}`,
	} {
		var page stack.AuditPage
		require.NoError(t, json.Unmarshal([]byte(wire), &page), name)
		again, err := json.Marshal(page)
		require.NoError(t, err, name)
		assert.JSONEq(t, wire, string(again), name)
	}
}
