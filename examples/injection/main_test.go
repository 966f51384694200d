package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestInjection(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	parts := strings.Split(out.String(), "\n")
	section := func(name, end string) string {
		from := slices.Index(parts, name)
		require.GreaterOrEqual(t, from, 0, out.String())
		to := slices.Index(parts, end)
		return strings.Join(parts[from+1:to], "\n")
	}
	const sent = "  the agent says: Done.\n" + `  sent: {"text":"Message 1","to":"sales@acme.example"}`
	assert.Equal(t, `  refused: send {"to":"eve@elsewhere.example","text":"Prices: …"}`+"\n"+sent+
		"\n  security event: warning constraint_violation", section("unguarded", "annotated"))
	assert.Equal(t, sent, section("annotated", "dropped"))
	assert.Equal(t, "  refused: read {\"number\":2}\n"+sent, section("dropped", "reported"))
	reported := section("reported", "")
	assert.Contains(t, reported, "the agent was stopped")
	assert.Contains(t, reported, "security event: critical prompt_injection")
	assert.NotContains(t, reported, "sent:")
}
