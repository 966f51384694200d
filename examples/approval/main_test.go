package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func output(t *testing.T, answers string) (out string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		require.NoError(t, run(t.Context(), strings.NewReader(answers), &buf))
		out = buf.String()
	})
	return out
}

func TestApproved(t *testing.T) {
	t.Parallel()
	out := output(t, "y\nyes\nY\n")
	assert.Contains(t, out, "Refund 49.00 for ch_1001: duplicate. Approve? [y/N] y\n  refunded ch_1001\n")
	assert.Contains(t, out, "Refund 9900.00 for ch_1003")
	assert.Contains(t, out, "Refunds that Stripe got: 3")
	assert.NotContains(t, out, "stopped")
}

func TestRejected(t *testing.T) {
	t.Parallel()
	out := output(t, "y\nn\n")
	assert.Contains(t, out, "refunded ch_1001")
	assert.NotContains(t, out, "refunded ch_1002")
	assert.NotContains(t, out, "ch_1003")
	assert.Contains(t, out, "Refunds that Stripe got: 1\nThe agent was stopped by the person who said no.\n")
}

// Nobody at the terminal approves nothing.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	assert.Contains(t, output(t, ""), "Refunds that Stripe got: 0")
}
