package langchain_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
)

// both asks plainly and for a stream.
func both(t *testing.T, ctx context.Context, model llms.Model, check func(error)) {
	t.Helper()
	_, err := ask(ctx, model)
	check(err)
	_, _, err = hear(ctx, model)
	check(err)
}

// A passport that is gone shows as that, and so does a Mission that is over.
func TestGatewayRevoked(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		_, err := g.client.Passports.Revoke(t.Context(), g.mission.JTI(), "enough")
		require.NoError(t, err)
		both(t, t.Context(), g.model(t, p), func(err error) {
			require.ErrorIs(t, err, stack.ErrPassportRevoked)
			var apiErr *stack.Error
			require.ErrorAs(t, err, &apiErr)
			assert.Equal(t, http.StatusUnauthorized, apiErr.Status)
		})
		require.ErrorIs(t, context.Cause(g.mission.Context()), stack.ErrPassportRevoked, "the Mission learnt of it")
		both(t, g.mission.Context(), g.model(t, p), func(err error) { require.ErrorIs(t, err, stack.ErrPassportRevoked) })
		assert.Empty(t, g.Forwarded(p.host))
	})
}

func TestGatewayMissionEnded(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway(t)
			defer g.mission.Close(nil)
			_, err := g.client.Missions.Complete(t.Context(), g.mission.ID(), stack.MissionCompleteParams{})
			require.NoError(t, err)
			time.Sleep(2 * time.Minute) // the poll has seen it
			for _, ctx := range []context.Context{t.Context(), g.mission.Context()} {
				both(t, ctx, g.model(t, p), func(err error) {
					var ended *stack.MissionEndedError
					require.ErrorAs(t, err, &ended)
					assert.Equal(t, g.mission.ID(), ended.MissionID)
				})
			}
		})
	})
}

// The kill switch ends a run of langchaingo's own agent at the next call of the model, with the Mission's context or not.
func TestGatewayKilledInMidRun(t *testing.T) {
	t.Parallel()
	for name, ctx := range map[string]func(*gateway, context.Context) context.Context{
		"context of the Mission": func(g *gateway, _ context.Context) context.Context { return g.mission.Context() },
		"another context":        func(_ *gateway, ctx context.Context) context.Context { return ctx },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			g.Upstream("api.openai.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				write(w, openAIAnswer("", call{"c1", "look", `{}`}))
			}))
			look, err := langchain.NewTool("look", "Look.", func(ctx context.Context, _ struct{}) (string, error) {
				_, revokeErr := g.client.Passports.RevokeAgent(context.WithoutCancel(ctx), g.agent.ID, "enough")
				return "seen", revokeErr
			})
			require.NoError(t, err)
			ts := []tools.Tool{look}
			_, err = run(ctx(g, t.Context()), langchain.Model(g.model(t, providers[0]), ts...), "look", ts)
			require.ErrorIs(t, err, stack.ErrPassportRevoked)
			assert.Len(t, g.Forwarded("api.openai.com"), 1)
		})
	}
}

// A refusal of the gateway stays what it is.
func TestGatewayRefusals(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t, func(params *stack.MissionParams) {
			params.Services = slices.DeleteFunc(params.Services, func(name string) bool { return name == string(p.name) })
		})
		both(t, t.Context(), g.model(t, p), func(err error) {
			var apiErr *stack.Error
			require.ErrorAs(t, err, &apiErr)
			require.ErrorIs(t, err, stack.ErrForbidden)
			assert.Contains(t, apiErr.Details, "hint")
		})
		assert.Empty(t, g.Forwarded(p.host))
	})
}

// An error of the provider keeps its status, and is retried by one layer only, if at all.
func TestGatewayProviderErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ status, times int }{{400, 1}, {401, 1}, {404, 1}, {429, 1 + stack.DefaultMaxRetries}, {500, 1}, {503, 1}, {529, 1}} {
		each(t, func(t *testing.T, p provider) {
			for _, stream := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					g := newGateway(t)
					defer g.mission.Close(nil)
					var asked atomic.Int64
					g.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						asked.Add(1)
						w.Header().Set("Content-Type", "application/json")
						w.WriteHeader(tc.status)
						write(w, `{"error":{"type":"some_error","message":"the provider says no"}}`)
					}))
					model := g.model(t, p)
					var err error
					if stream {
						_, _, err = hear(t.Context(), model)
					} else {
						_, err = ask(t.Context(), model)
					}
					var apiErr *stack.Error
					require.ErrorAs(t, err, &apiErr)
					assert.Equal(t, tc.status, apiErr.Status)
					assert.True(t, strings.HasPrefix(apiErr.Code, "UPSTREAM_"), apiErr.Code)
					assert.Contains(t, toJSON(apiErr.Details["upstream"]), "the provider says no")
					assert.EqualValues(t, tc.times, asked.Load(), "status %d, stream %t", tc.status, stream)
				})
			}
		})
	}
}

// A stream that is cut, or that reports an error, is no answer; what was said before had its time.
func TestGatewayBrokenStreams(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		upTo := slices.IndexFunc(p.events, func(e string) bool { return strings.Contains(e, "there") })
		g.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { send(w, p.events[:upTo]...) }))
		chunks, _, err := hear(t.Context(), g.model(t, p))
		var broken *stack.LLMStreamError
		require.ErrorAs(t, err, &broken)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, []string{"Hello "}, chunks)

		g.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			send(w, append(slices.Clone(p.events[:upTo]), "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n",
				"data: [DONE]\n\n")...)
		}))
		_, _, err = hear(t.Context(), g.model(t, p))
		var reported *stack.LLMProviderError
		require.ErrorAs(t, err, &reported)
		assert.Equal(t, "overloaded_error", reported.Type)

		g.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			send(w, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"at_once\"}}\n\n")
		}))
		_, _, err = hear(t.Context(), g.model(t, p))
		require.ErrorAs(t, err, &reported)
		assert.Equal(t, "at_once", reported.Type)
		for _, row := range g.usage(t) {
			assert.False(t, row.Complete)
		}
	})
}

var errEnough = errors.New("enough")

// A cancelled stream is never an answer, and its cause is in the error.
func TestGatewayCancelledInMidStream(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		model := g.model(t, p)
		for range 30 {
			ctx, cancel := context.WithCancelCause(t.Context())
			g.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				send(w, p.events[:len(p.events)-3]...)
				<-r.Context().Done()
			}))
			var heard int
			_, err := ask(ctx, model, llms.WithStreamingFunc(func(_ context.Context, chunk []byte) error {
				if heard += len(chunk); heard > 0 {
					cancel(errEnough)
				}
				return nil
			}))
			require.ErrorIs(t, err, errEnough)
		}
	})
}

// A handler of chunks that fails ends the call with its error.
func TestGatewayStreamingFuncFails(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		over := make(chan struct{})
		g.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(over)
			send(w, p.events[:len(p.events)-3]...)
			<-r.Context().Done()
		}))
		_, err := ask(t.Context(), g.model(t, p), llms.WithStreamingFunc(func(_ context.Context, chunk []byte) error {
			if len(chunk) == 0 {
				return nil
			}
			return errEnough
		}))
		require.ErrorIs(t, err, errEnough)
		<-over // the provider is not left talking
	})
}

// The kill switch reaches a model that is in the middle of a long answer.
func TestGatewayRevokedInMidStream(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway(t)
			defer g.mission.Close(nil)
			g.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, event := range p.events {
					send(w, event)
					select {
					case <-time.After(20 * time.Second):
					case <-r.Context().Done():
						return
					}
				}
			}))
			time.AfterFunc(30*time.Second, func() {
				_, err := g.client.Passports.Revoke(t.Context(), g.mission.JTI(), "enough")
				assert.NoError(t, err)
			})
			began := time.Now()
			_, _, err := hear(g.mission.Context(), g.model(t, p))
			require.ErrorIs(t, err, stack.ErrPassportRevoked)
			assert.Less(t, time.Since(began), time.Minute+time.Second)
		})
	})
}

// A context that ends while a plain call runs shows its cause, with langchaingo's client alone.
func TestGatewayCancelledCall(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		g := newGateway(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		g.Upstream(p.host, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			cancel(errEnough)
			<-r.Context().Done()
		}))
		_, err := ask(ctx, g.model(t, p))
		require.ErrorIs(t, err, errEnough)
		require.ErrorIs(t, err, context.Canceled)
		_, err = ask(ctx, g.model(t, p))
		require.ErrorIs(t, err, errEnough)
	})
}

// A provider that keeps silent for longer than the client waits.
func TestGatewaySilence(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p provider) {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway(t)
			defer g.mission.Close(nil)
			g.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				send(w, p.events[0])
				<-r.Context().Done()
			}))
			_, _, err := hear(t.Context(), g.model(t, p))
			var broken *stack.LLMStreamError
			require.ErrorAs(t, err, &broken)
		})
	})
}

// Where the operator wants approvals, a context names one.
func TestGatewayApproval(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.SetPolicy(stacktest.Policy{RequireIntentApproval: true})
	model := g.model(t, providers[0])
	_, err := ask(t.Context(), model)
	require.ErrorIs(t, err, stack.ErrIntentApprovalRequired)
	token, err := g.mission.Token(t.Context())
	require.NoError(t, err)
	submitted, err := g.client.Intents.Submit(t.Context(), stack.IntentSubmitParams{PassportToken: token, Intent: stack.IntentClaim{
		IntentType: stack.IntentLLM, Target: "https://api.openai.com/v1/chat/completions",
		Parameters: &stack.IntentParameters{Service: "openai"}}})
	require.NoError(t, err)
	require.NoError(t, g.Approve(submitted.ApprovalID))
	approved := langchain.WithApproval(t.Context(), submitted.ApprovalID)
	_, err = ask(approved, model)
	require.NoError(t, err)
	_, err = ask(approved, model)
	require.ErrorIs(t, err, stack.ErrIntentApprovalRequired, "it served one call")
}
