package stack_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// Reads and writes share the budget of their client, and no other client has it.
func TestWritesKeepToTheRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		p := s.issue(t)
		s.Fault(stacktest.Fault{Path: "/v1/agents", Status: 503, Times: 1000})
		for range 200 {
			_, err := s.client.Agents.List(t.Context())
			require.Error(t, err)
		}
		attempts := func(client *stack.Client) int {
			const times = 100
			fault := s.Fault(stacktest.Fault{Path: "/v1/proxy", Status: 503, Times: times})
			defer fault.Remove()
			_, err := client.Proxy.Request(t.Context(), withPassport(post("#support"), p))
			require.NotErrorIs(t, err, stack.ErrOutcomeUnknown)
			var apiErr *stack.Error
			require.ErrorAs(t, err, &apiErr)
			assert.Equal(t, 503, apiErr.Status)
			return times - fault.Remaining()
		}
		assert.Equal(t, 1, attempts(s.client), "the reads have spent it")
		assert.Equal(t, 1+stack.DefaultMaxRetries, attempts(s.Client()))
		assert.Empty(t, s.Forwarded("slack.com"))
	})
}

// A write does not wait for what its deadline does not allow: it fails at once, with the delay.
func TestWriteDoesNotWaitBeyondItsDeadline(t *testing.T) {
	t.Parallel()
	for status, limit := range map[int]time.Duration{429: 10 * time.Second, 503: 10 * time.Second, 500: 19 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, stack.Logged)
			p := s.issue(t)
			s.Fault(stacktest.Fault{Path: "/v1/proxy", Status: status, RetryAfter: 20 * time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			began := time.Now()
			_, err := s.client.Proxy.Request(ctx, withPassport(post("#support"), p))
			assert.Zero(t, time.Since(began))
			var apiErr *stack.Error
			require.ErrorAs(t, err, &apiErr)
			assert.Equal(t, 20*time.Second, apiErr.RetryAfter)
			assert.Equal(t, status, apiErr.Status)
			assert.Empty(t, s.Forwarded("slack.com"))
		})
	}
}

// Whatever a write waits for, it waits no longer than its context lives.
func TestWriteStopsWaitingWithItsContext(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fault stacktest.Fault
		slow  time.Duration // of the service
		after time.Duration
	}{
		"between attempts":     {stacktest.Fault{Status: 503, RetryAfter: 20 * time.Second}, 0, 3 * time.Second},
		"refused for now":      {stacktest.Fault{Status: 429, RetryAfter: 20 * time.Second}, 0, 3 * time.Second},
		"until it is answered": {stacktest.Fault{Delay: time.Millisecond}, 28 * time.Second, 13 * time.Second}, // by then it asks
		"for an attempt":       {stacktest.Fault{Delay: time.Minute}, 0, 3 * time.Second},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged, stack.WithTimeout(10*time.Second))
				s.Upstream("slack.com", taking(tc.slow, answers(jsonType, `{"ok":true}`)))
				p := s.issue(t)
				tc.fault.Path = "/v1/proxy"
				s.Fault(tc.fault)
				enough := errors.New("enough")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(tc.after, func() { cancel(enough) })
				began := time.Now()
				_, err := s.client.Proxy.Request(ctx, withPassport(post("#support"), p))
				require.ErrorIs(t, err, enough)
				assert.Equal(t, tc.after, time.Since(began))
				time.Sleep(time.Minute) // until the service has done what it was asked for
			})
		})
	}
}
