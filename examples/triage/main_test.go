package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func triageOutput(t *testing.T, cfg settings, in string) (out, diagnostics string) {
	t.Helper()
	var o, d bytes.Buffer
	require.NoError(t, run(t.Context(), cfg, strings.NewReader(in), &o, &d))
	return o.String(), d.String()
}

func TestTriage(t *testing.T) {
	t.Parallel()
	out, diagnostics := triageOutput(t, settings{}, "")
	assert.Empty(t, diagnostics)
	assert.Contains(t, out, "20/20 T-1020")
	assert.Contains(t, out, "20 tickets acknowledged, 0 left, 0 lines skipped")
	assert.Regexp(t, `slack +yes +20 +0 +POST×20`, out)
	assert.Contains(t, out, "review: clean")
	assert.Contains(t, out, "chain verified")
	assert.Len(t, regexp.MustCompile(`(?m)^  #\w+ +On it: T-10\d\d \(.+\)$`).FindAllString(out, -1), 20)
	assert.NotContains(t, out, slackToken)
}

func TestTriageKilled(t *testing.T) {
	t.Parallel()
	out, _ := triageOutput(t, settings{killAfter: 5}, "")
	assert.Contains(t, out, "kill switch: 1 passport revoked")
	assert.Contains(t, out, "T-1006  stopped: PASSPORT_REVOKED")
	assert.Contains(t, out, "5 tickets acknowledged, 15 left")
	assert.Contains(t, out, "revoked: operator pulled the kill switch")
	assert.Contains(t, out, "The kill switch stopped the agent, as asked.")
	assert.NotContains(t, out, "T-1007")
}

func TestTriageSkipsMalformedLines(t *testing.T) {
	t.Parallel()
	out, diagnostics := triageOutput(t, settings{tickets: "-"}, "{\"id\":\"T-1\",\"subject\":\"Refund\"}\noops\n")
	assert.Contains(t, diagnostics, "line 2 skipped")
	assert.Contains(t, out, "1 tickets acknowledged, 0 left, 1 lines skipped")
}

func TestTriageWithoutTickets(t *testing.T) {
	t.Parallel()
	var o, d bytes.Buffer
	err := run(t.Context(), settings{tickets: "-"}, strings.NewReader("oops\n"), &o, &d)
	require.ErrorContains(t, err, "no ticket to work on")
}

func TestTriageLiveNeedsKeys(t *testing.T) {
	t.Setenv("STACK_API_KEY", "")
	t.Setenv("STACK_AUTH_INTERACTIVE", "false")
	t.Setenv("OPENAI_API_KEY", "")
	var o, d bytes.Buffer
	err := run(t.Context(), settings{live: true}, strings.NewReader(""), &o, &d)
	require.ErrorContains(t, err, "STACK_API_KEY")
}
