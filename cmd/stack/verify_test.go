package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t).withKey()
		register := func(name string) {
			_, err := s.Client().Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "agent-" + name})
			require.NoError(t, err)
			time.Sleep(time.Minute)
		}
		assert.Equal(t, "The audit log is empty.\n", s.good(t, "audit", "verify"))
		register("a")
		register("b")
		early := s.export(t, "early.ndjson", stack.AuditNDJSON, time.Time{})
		assert.Contains(t, s.good(t, "audit", "verify"), ": 2 rows from its beginning, compared with none that was kept.\n")
		register("c")
		assert.Contains(t, s.good(t, "audit", "verify"), ": 3 rows, 1 of them new since ")
		out := lines(t, s.good(t, "audit", "verify", "--json"))[0]
		assert.Equal(t, true, out["valid"])
		assert.Equal(t, s.OperatorID(), out["operator_id"])
		head, err := s.Client().Audit.ChainHead(t.Context())
		require.NoError(t, err)
		assert.Equal(t, head.HeadHash, out["head"].(map[string]any)["hash"])
		assert.Contains(t, s.good(t, "audit", "verify", "--pin", s.Audit()[0].EntryHash), "from the pinned row on")

		// Exports, also one that ends before what was kept and one that begins in the middle.
		assert.Contains(t, s.good(t, "audit", "verify", early), ": 2 rows from its beginning")
		for name, format := range map[string]stack.AuditFormat{"a.json": stack.AuditJSON, "a.csv": stack.AuditCSV, "a.JSONL": stack.AuditNDJSON} {
			assert.Contains(t, s.good(t, "audit", "verify", s.export(t, name, format, time.Time{})), ": 3 rows, 0 of them new", name)
		}
		late := s.export(t, "late.json", stack.AuditJSON, s.Audit()[1].Timestamp)
		assert.Contains(t, s.good(t, "audit", "verify", late), ": 3 rows, 0 of them new", "what was kept is among them")
		assert.Contains(t, s.good(t, "audit", "verify", late, "--pin", s.Audit()[0].EntryHash), "from the pinned row on")
		text, err := os.ReadFile(early)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(early, bytes.Replace(text, []byte("agent.register"), []byte("agent.renounce"), 1), 0o600))
		r := s.run(t, "audit", "verify", early, "--json")
		assert.Equal(t, failed, r.status)
		broken := lines(t, r.out.String())[0]
		assert.Equal(t, false, broken["valid"])
		assert.Equal(t, "entry_hash_mismatch", broken["first_break"].(map[string]any)["reason"])
		require.NoError(t, os.WriteFile(early, text[bytes.IndexByte(text, '\n')+1:], 0o600))
		r = s.run(t, "audit", "verify", early)
		assert.Equal(t, failed, r.status)
		assert.Contains(t, r.err.String(), "need --pin")

		// A server that has begun its log anew is found out, and what was kept stays.
		kept, err := os.ReadFile(filepath.Join(s.home, ".stack", "audit-heads.json"))
		require.NoError(t, err)
		s.Reset()
		register("d")
		r = s.run(t, "audit", "verify")
		assert.Equal(t, failed, r.status)
		assert.Contains(t, r.err.String(), "pin_missing")
		after, err := os.ReadFile(filepath.Join(s.home, ".stack", "audit-heads.json"))
		require.NoError(t, err)
		assert.Equal(t, string(kept), string(after))

		for _, bad := range []string{"{", "null", "[]"} {
			require.NoError(t, os.WriteFile(filepath.Join(s.home, ".stack", "audit-heads.json"), []byte(bad), 0o600))
			assert.Contains(t, s.run(t, "audit", "verify").err.String(), "audit-heads.json is not what audit verify has written", bad)
		}
		assert.Equal(t, misused, s.run(t, "audit", "verify", "log.txt").status)
		assert.Equal(t, failed, s.run(t, "audit", "verify", filepath.Join(s.home, "none.json")).status)
		assert.Equal(t, failed, s.run(t, "audit", "verify", "--pin", "abc").status)
	})
}

// export writes an export to a file.
func (s *stage) export(t *testing.T, name string, format stack.AuditFormat, from time.Time) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	file, err := os.Create(path)
	require.NoError(t, err)
	_, err = s.Client().Audit.Export(t.Context(), stack.AuditExportParams{Format: format, From: from}, file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	return path
}
