package stack_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// The kill switch reaches an agent that is blocked in a slow call, one that is between calls and one that makes no call, each
// with the reason, and the summary says which calls had left. It takes a poll interval; two when the server had just confirmed
// the passport, since the next round does not ask for that one.
func TestKillSwitch(t *testing.T) {
	t.Parallel()
	const interval = stack.DefaultPollInterval
	slow := func(ctx context.Context, t *testing.T, m *stack.Mission, method string) {
		t.Helper()
		_, err := m.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: method, URL: "https://slack.com/slow?secret=in-the-query"})
		require.ErrorIs(t, err, stack.ErrPassportRevoked, "the call ends with the reason")
		assert.Equal(t, method == http.MethodPost, isUnknown(err), "a write may have happened")
	}
	slowCall := []stack.ToolCall{{Service: "slack", Method: "POST", Target: "https://slack.com/slow"}}
	tests := map[string]struct {
		work     func(context.Context, *testing.T, *stack.Mission) // until it is stopped
		underWay []stack.ToolCall
		calls    int // of the account
		within   time.Duration
	}{
		"blocked in a write": {func(ctx context.Context, t *testing.T, m *stack.Mission) { t.Helper(); slow(ctx, t, m, "POST") },
			slowCall, 1, interval},
		"blocked in a read": {func(ctx context.Context, t *testing.T, m *stack.Mission) { t.Helper(); slow(ctx, t, m, "GET") },
			[]stack.ToolCall{{Service: "slack", Method: "GET", Target: "https://slack.com/slow"}}, 1, interval},
		"between calls": {func(ctx context.Context, t *testing.T, m *stack.Mission) {
			t.Helper()
			time.Sleep(interval + interval/2 - time.Second) // right before the switch is pulled
			_, err := m.Proxy(ctx, post("#support"))
			require.NoError(t, err)
			<-ctx.Done()
		}, nil, 1, 2 * interval},
		"making no call": {func(ctx context.Context, _ *testing.T, _ *stack.Mission) { <-ctx.Done() }, nil, 0, interval},
		"in two calls at once": {func(ctx context.Context, t *testing.T, m *stack.Mission) {
			t.Helper()
			done := make(chan struct{})
			go func() { defer close(done); slow(ctx, t, m, "POST") }()
			slow(ctx, t, m, "POST")
			<-done
		}, append(slowCall, slowCall...), 2, interval},
		"finding out by itself": {func(ctx context.Context, t *testing.T, m *stack.Mission) {
			t.Helper()
			time.Sleep(interval + interval/2 + time.Second) // right after
			_, err := m.Proxy(ctx, post("#support"))
			require.ErrorIs(t, err, stack.ErrPassportRevoked)
		}, nil, 0, time.Second},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Enforced, stack.WithTimeout(10*time.Minute))
				s.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						time.Sleep(29 * time.Second)
					}
					answers(jsonType, `{"ok":true}`)(w, r)
				}))
				m := s.open(t)
				var pulled, stopped time.Time
				context.AfterFunc(m.Context(), func() { stopped = time.Now() })
				time.AfterFunc(interval+interval/2, func() {
					pulled = time.Now()
					_, err := s.client.Passports.Revoke(t.Context(), m.JTI(), "gone rogue")
					assert.NoError(t, err)
				})
				if tc.underWay != nil { // so that the call is still on its way when the news comes
					time.Sleep(interval)
				}
				tc.work(m.Context(), t, m)
				synctest.Wait()
				require.ErrorIs(t, m.Context().Err(), context.Canceled)
				require.ErrorIs(t, context.Cause(m.Context()), stack.ErrPassportRevoked)
				require.ErrorContains(t, context.Cause(m.Context()), "gone rogue")
				assert.LessOrEqual(t, stopped.Sub(pulled), tc.within)
				m.Close(nil)
				summary := m.Summary()
				assert.Equal(t, tc.underWay, summary.UnderWay)
				assert.Equal(t, tc.calls, summary.Calls)
				if tc.underWay != nil {
					assert.Contains(t, summary.String(), "under way when the passport was lost:\n    slack "+tc.underWay[0].Method+" https://slack.com/slow\n")
				} else {
					assert.NotContains(t, summary.String(), "under way")
				}
				assert.Equal(t, tc.calls, s.RequireCheckedOut(t, m.JTI()).ActionsCount)
				time.Sleep(time.Minute) // until the service has done what it was asked for
			})
		})
	}
}

// Calls to models are under way until they have their answer, those that are streamed until the last event.
func TestKillSwitchDuringCallsToModels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLLMStage(t, stack.Enforced)
		s.Fault(stacktest.Fault{Path: "upstream:api.openai.com", Delay: 20 * time.Second})
		m := s.open(t, func(p *stack.MissionParams) { p.Services = []string{"anthropic", "openai"} })
		time.AfterFunc(time.Second, func() {
			_, err := s.client.Passports.Revoke(t.Context(), m.JTI(), "gone rogue")
			assert.NoError(t, err)
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := m.LLM().OpenAI(m.Context(), stack.LLMParams{Body: json.RawMessage(llmProviders[1].body)})
			assert.ErrorIs(t, err, stack.ErrPassportRevoked)
		}()
		for _, err := range m.LLM().AnthropicStream(m.Context(), stack.LLMParams{Body: json.RawMessage(llmProviders[0].body)}) {
			require.NoError(t, err)
			<-m.Context().Done() // in the middle of it
			break
		}
		<-done
		m.Close(nil)
		var services []string
		for _, call := range m.Summary().UnderWay {
			services = append(services, call.Service)
		}
		assert.ElementsMatch(t, []string{"anthropic", "openai"}, services)
		assert.Equal(t, 2, m.Summary().Calls)
	})
}

func isUnknown(err error) bool { return errors.Is(err, stack.ErrOutcomeUnknown) }
