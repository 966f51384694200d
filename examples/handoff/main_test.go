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

func TestHandoff(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, run(t.Context(), &b))
	out := b.String()
	for _, line := range []string{
		"researcher, without a source: SCHEMA_VALIDATION_FAILED at /findings/0",
		"writer, collecting again: DROPOFF_ALREADY_COLLECTED",
		"writer, in another channel: FORBIDDEN by the check constraint",
		"writer, in Notion: FORBIDDEN by the check service_scope\n",
		"The Mission is over. writer: PASSPORT_REVOKED",
		"What Slack received\n  #news  This quarter: orders grew by 12 per cent; refunds fell by a third.\n",
	} {
		assert.Contains(t, out, line)
	}
	for _, secret := range []string{notionToken, slackToken, modelserver.Key} {
		assert.NotContains(t, out, secret)
	}
}

func TestHandoffStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b bytes.Buffer
	require.ErrorIs(t, run(ctx, &b), context.Canceled)
}
