package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/audit"
)

const rows = 1000 // of one run of a side

func entry(i int) stack.AuditEntry {
	return stack.AuditEntry{EntryID: "aud_" + strconv.Itoa(1_000_000+i), Timestamp: time.UnixMilli(1767225600123).UTC(), OperatorID: "op_1",
		AgentID: "agt_1", PassportJTI: "pp_1", Layer: "vault", Action: "credential.proxy", Outcome: stack.OutcomeSuccess,
		Duration: time.Millisecond, PayloadHash: strings.Repeat("ab", 32)}
}

// hashed is the text that the hash of a row is of.
func hashed(b *testing.B, e stack.AuditEntry) []byte {
	text, err := json.Marshal(struct {
		EntryID       string `json:"entry_id"`
		Timestamp     int64  `json:"timestamp"`
		OperatorID    string `json:"operator_id"`
		AgentID       string `json:"agent_id"`
		Layer         string `json:"layer"`
		Action        string `json:"action"`
		Outcome       string `json:"outcome"`
		PrevEntryHash string `json:"prev_entry_hash"`
	}{e.EntryID, e.Timestamp.UnixMilli(), e.OperatorID, e.AgentID, e.Layer, e.Action, string(e.Outcome), e.PrevEntryHash})
	require.NoError(b, err)
	sum := sha256.Sum256(text)
	require.Equal(b, e.Hash(), hex.EncodeToString(sum[:]))
	return text
}

// Appending rows to the audit chain, and verifying them, beside the bare SHA-256 of the same bytes.
func BenchmarkAuditBesideSHA256(b *testing.B) {
	var chain audit.Chain
	entries := make([]stack.AuditEntry, rows)
	for i := range entries {
		entries[i] = entry(i)
		chain.Append(entries[i])
	}
	text := hashed(b, chain.Range(time.Time{}, time.Time{})[1])
	took := alternate(b,
		func() {
			var c audit.Chain
			for i := range entries {
				c.Append(entries[i])
			}
		},
		func() {
			if !chain.Verify(time.Time{}, time.Time{}, 0).Valid {
				b.Fatal("broken")
			}
		},
		func() {
			for range rows {
				sha256.Sum256(text)
			}
		})
	bare := quantile(took[2], 0.5)
	b.ReportMetric(quantile(took[0], 0.5)/rows, "append-ns/row")
	b.ReportMetric(quantile(took[1], 0.5)/rows, "verify-ns/row")
	b.ReportMetric(bare/rows, "sha256-ns/row")
	b.ReportMetric(quantile(took[0], 0.5)/bare, "append/sha256")
	b.ReportMetric(quantile(took[1], 0.5)/bare, "verify/sha256")
}
