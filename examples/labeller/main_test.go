package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack/examples/internal/modelserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLabeller(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, run(t.Context(), &b))
	out := b.String()
	assert.Contains(t, out, "7 open issues", "all pages")
	for _, line := range []string{"#1  bug\n", "#2  question\n", "#3  documentation\n", "#4  enhancement\n", "#5  bug\n", "#6  none\n", "#7  question\n"} {
		assert.Contains(t, out, "  "+line)
	}
	assert.Regexp(t, `#6 +Release 2.0 .+ I may not do that; left to a person.`, out)
	assert.Contains(t, out, "constraint_violation, warning")
	assert.Contains(t, out, "Model: 14 calls, 168 tokens in, 42 out")
	assert.NotContains(t, out, githubToken)
	assert.NotContains(t, out, modelserver.Key)
}

func TestLabellerStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b bytes.Buffer
	require.ErrorIs(t, run(ctx, &b), context.Canceled)
}
