package stack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// heard reads a stream to its end.
func heard(stream func(func(*stack.LLMEvent, error) bool)) (events []*stack.LLMEvent, text string, err error) {
	for event, failure := range stream {
		if failure != nil {
			if event != nil || err != nil {
				panic("an error is the last thing, and comes alone")
			}
			err = failure
			continue
		}
		events = append(events, event)
		text += event.Text
	}
	return events, text, err
}

func (s *llmStage) listen(t *testing.T, p llmProvider) (events []*stack.LLMEvent, text string, err error) {
	t.Helper()
	return heard(p.stream(s.client.LLM, t.Context(), s.params(p.body)))
}

func TestLLMStream(t *testing.T) {
	t.Parallel()
	for _, p := range llmProviders {
		t.Run(string(p.name), func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Enforced)
			events, text, err := s.listen(t, p)
			require.NoError(t, err)
			assert.Equal(t, "Hello there", text)
			var stop string
			var tokens stack.LLMTokens
			for _, e := range events {
				assert.Equal(t, p.name, e.Provider)
				assert.NoError(t, e.Decode(new(map[string]any)))
				if e.StopReason != "" {
					stop = e.StopReason
				}
				if e.Tokens != nil && e.Tokens.Input != nil {
					tokens = *e.Tokens
				}
			}
			assert.Contains(t, []string{"end_turn", "stop"}, stop)
			assert.Equal(t, ptr(11), tokens.Input)
			assert.Equal(t, ptr(3), tokens.CacheRead)
			if p.name == stack.LLMAnthropic {
				require.Len(t, events, 6)
				assert.Equal(t, "ping", events[1].Name)
				assert.Equal(t, `{"type": "ping"}`, string(events[1].Raw), "data is the provider's own")
				assert.Equal(t, "message_stop", events[5].Name)
			} else {
				require.Len(t, events, 5)
				assert.Contains(t, string(events[2].Raw), "\n", "the lines of one event are joined")
			}
			sent := s.Forwarded(p.host)
			require.Len(t, sent, 1)
			assert.JSONEq(t, strings.Replace(p.body, "{", `{"stream":true,`, 1), string(sent[0].Body))

			rows := s.usage(t)
			require.Len(t, rows, 1)
			row := rows[0]
			assert.Equal(t, stack.LLMUsage{ID: row.ID, Provider: p.name, Model: row.Model, PassportJTI: s.passport.JTI,
				MissionID: row.MissionID, AgentID: s.agent.ID, Stream: true, Status: 200, Outcome: stack.LLMCompleted, Complete: true,
				LLMTokens: stack.LLMTokens{Input: ptr(11), Output: ptr(7), CacheRead: ptr(3)},
				Duration:  row.Duration, CreatedAt: row.CreatedAt}, row)
			assert.Contains(t, p.events, `"model":"`+row.Model)
			assert.Equal(t, stack.OutcomeSuccess, s.lastRow(t, "llm.call").Outcome)

			params := s.params(strings.Replace(p.body, "{", `{"stream":true,"n":1.0,`, 1))
			_, text, err = heard(p.stream(s.client.LLM, t.Context(), params))
			require.NoError(t, err, "stream may be in the body already")
			assert.Equal(t, "Hello there", text)
			params = s.params(strings.Replace(p.body, "{", `{"stream":false,`, 1))
			_, _, err = heard(p.stream(s.client.LLM, t.Context(), params))
			require.NoError(t, err, "the method decides")
		})
	}
}

// Wherever a stream is cut, by the provider or on the way from the gateway, it never ends as if that were its end.
func TestLLMStreamCutAtEveryByte(t *testing.T) {
	t.Parallel()
	for _, p := range llmProviders {
		for _, where := range []string{"provider", "gateway", "provider, cleanly"} {
			t.Run(string(p.name)+" "+where, func(t *testing.T) {
				t.Parallel()
				s := newLLMStage(t, stack.Logged)
				whole, _, err := s.listen(t, p)
				require.NoError(t, err)
				last := strings.TrimRight(p.events, "\n")
				route := "/v1/llm/" + string(p.name) + "/chat/completions"
				if p.name == stack.LLMAnthropic {
					route = "/v1/llm/anthropic/messages"
				}
				for cut := range len(p.events) {
					var fault *stacktest.FaultHandle
					switch {
					case where == "provider, cleanly":
						s.Upstream(p.host, streams(p.events[:cut]))
					case cut == 0: // a fault that cuts nothing off is none
						continue
					case where == "provider":
						fault = s.Fault(stacktest.Fault{Path: "upstream:" + p.host, TruncateBytes: cut})
					default:
						fault = s.Fault(stacktest.Fault{Path: route, TruncateBytes: cut})
					}
					events, _, err := s.listen(t, p)
					if fault != nil {
						require.Zero(t, fault.Remaining())
					}
					require.LessOrEqual(t, len(events), len(whole))
					for i, e := range events {
						require.Equal(t, string(whole[i].Raw), string(e.Raw), "what is yielded is whole")
					}
					if err == nil { // the last event was there, whatever of the blank line after it
						require.GreaterOrEqual(t, cut, len(last))
						require.Len(t, events, len(whole))
						continue
					}
					var broken *stack.LLMStreamError
					require.ErrorAs(t, err, &broken, "cut at %d", cut)
					require.Equal(t, len(events), broken.Events)
					page, listErr := s.client.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{Limit: 1})
					require.NoError(t, listErr)
					row := page.Items[0]
					if where != "gateway" && cut < len(last) {
						require.False(t, row.Complete)
						require.Equal(t, stack.LLMIncomplete, row.Outcome)
					}
					var syntax *json.SyntaxError
					if !errors.As(err, &syntax) { // inside an event that ended with the stream
						require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", cut)
					}
				}
			})
		}
	}
}

// Events arrive while the provider is still writing, and the provider learns when nobody listens any more.
func TestLLMStreamHangUp(t *testing.T) {
	t.Parallel()
	for _, p := range llmProviders {
		for _, how := range []string{"break", "cancel"} {
			t.Run(string(p.name)+" "+how, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newLLMStage(t, stack.Logged)
					gone := make(chan struct{})
					s.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer close(gone)
						streams(p.events[:strings.Index(p.events, "there")-10])(w, r)
						<-r.Context().Done()
					}))
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					reason := errors.New("the user closed the window")
					var failure error
					for event, err := range p.stream(s.client.LLM, ctx, s.params(p.body)) {
						failure = err
						if err == nil && event.Text != "" {
							if how == "break" {
								break
							}
							cancel(reason)
						}
					}
					<-gone
					synctest.Wait()
					if how == "cancel" {
						require.ErrorIs(t, failure, context.Canceled)
						require.ErrorIs(t, failure, reason)
					} else {
						require.NoError(t, failure)
					}
					row := s.usage(t)[0]
					assert.Equal(t, stack.LLMClientClosed, row.Outcome)
					assert.False(t, row.Complete)
					if p.name == stack.LLMAnthropic {
						assert.Equal(t, ptr(11), row.Input, "what was seen so far")
						assert.Equal(t, ptr(1), row.Output)
					} else {
						assert.Nil(t, row.Input)
					}
					assert.Equal(t, "CLIENT_CLOSED", s.lastRow(t, "llm.call").ErrorCode)
				})
			})
		}
	}
}

// A stream may take as long as it likes, but not keep silent.
func TestLLMStreamTime(t *testing.T) {
	t.Parallel()
	p := llmProviders[0]
	for _, tc := range []struct {
		pause time.Duration
		fails bool
	}{{29 * time.Second, false}, {31 * time.Second, true}} {
		t.Run(tc.pause.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLLMStage(t, stack.Logged)
				s.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream")
					for _, event := range strings.SplitAfter(p.events, "\n\n") {
						_, _ = io.WriteString(w, event)
						_ = http.NewResponseController(w).Flush()
						select {
						case <-time.After(tc.pause): // virtual
						case <-r.Context().Done():
							return
						}
					}
				}))
				began := time.Now()
				_, text, err := s.listen(t, p)
				if !tc.fails {
					require.NoError(t, err)
					assert.Equal(t, "Hello there", text)
					assert.Greater(t, time.Since(began), 2*time.Minute, "far longer than the client's timeout")
					return
				}
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				assert.Equal(t, 30*time.Second, time.Since(began))
			})
		})
	}
}

// A slow reader is not the stream's silence.
func TestLLMStreamSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLLMStage(t, stack.Logged)
		for _, err := range s.client.LLM.AnthropicStream(t.Context(), s.params(llmProviders[0].body)) {
			require.NoError(t, err)
			time.Sleep(time.Minute) // virtual
		}
	})
}

func TestLLMStreamErrors(t *testing.T) {
	t.Parallel()
	const begin = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}],\"usage\":{\"prompt_tokens\":4}}\n\n"
	tests := map[string]struct {
		provider int
		stream   string
		check    func(t *testing.T, err error)
		outcome  stack.LLMOutcome
	}{
		"Anthropic reports an error": {0, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Over\\nloaded\"}}\n\n",
			reports("overloaded_error", "Over\nloaded", "stack: anthropic reports an error in the stream: overloaded_error: Over loaded"),
			stack.LLMUpstreamError},
		"OpenAI reports an error": {1, begin + "data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\",\"code\":null}}\n\ndata: [DONE]\n\n",
			reports("server_error", "boom", "stack: openai reports an error in the stream: server_error: boom"), stack.LLMUpstreamError},
		"OpenRouter reports an error": {2, begin + "data: {\"error\":{\"code\":502,\"message\":\"gone\"},\"choices\":[{\"finish_reason\":\"error\"}]}\n\n",
			reports("502", "gone", "stack: openrouter reports an error in the stream: 502: gone"), stack.LLMUpstreamError},
		"a bare error": {1, "event: error\ndata: {\"error\":\"boom\"}\n\n",
			reports("", "boom", "stack: openai reports an error in the stream: boom"), stack.LLMUpstreamError},
		"no JSON": {1, begin + "data: {oops}\n\n" + openAIEvents, func(t *testing.T, err error) {
			var syntax *json.SyntaxError
			require.ErrorAs(t, err, &syntax)
			assert.Contains(t, err.Error(), "broke off after 1 events: an event is not JSON")
		}, ""},
		"a line too long": {1, begin + "data: {\"x\":\"" + strings.Repeat("x", stack.MaxLLMLine) + "\"}\n\n" + openAIEvents,
			func(t *testing.T, err error) {
				var broken *stack.LLMStreamError // the gateway does not pass it on
				require.ErrorAs(t, err, &broken)
			}, stack.LLMIncomplete},
		"an event too long": {1, strings.Repeat("data: \""+strings.Repeat("x", 1<<20)+"\"\n", 9) + "\n",
			func(t *testing.T, err error) { require.ErrorIs(t, err, stack.ErrLLMLineTooLong) }, ""},
		"nothing": {2, "", func(t *testing.T, err error) { require.ErrorIs(t, err, io.ErrUnexpectedEOF) }, stack.LLMIncomplete},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Logged)
			p := llmProviders[tc.provider]
			s.Upstream(p.host, streams(tc.stream))
			_, _, err := s.listen(t, p)
			require.Error(t, err)
			tc.check(t, err)
			require.Eventually(t, func() bool { return len(s.usage(t)) == 1 }, 10*time.Second, time.Millisecond)
			if tc.outcome != "" {
				row := s.usage(t)[0]
				assert.Equal(t, tc.outcome, row.Outcome)
				if strings.HasPrefix(tc.stream, begin) {
					assert.Equal(t, ptr(4), row.Input)
				}
			}
		})
	}
}

func reports(kind, message, text string) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		var reported *stack.LLMProviderError
		require.ErrorAs(t, err, &reported)
		assert.Equal(t, kind, reported.Type)
		assert.Equal(t, message, reported.Message)
		assert.Equal(t, text, err.Error())
		assert.Contains(t, string(reported.Raw), "error")
	}
}

// The end is the provider's word: what comes after it is not waited for.
func TestLLMStreamStopsAtItsEnd(t *testing.T) {
	t.Parallel()
	for _, p := range llmProviders {
		t.Run(string(p.name), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLLMStage(t, stack.Logged)
				s.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					streams(p.events)(w, r)
					<-r.Context().Done() // it does not hang up
				}))
				began := time.Now()
				_, text, err := s.listen(t, p)
				require.NoError(t, err)
				assert.Equal(t, "Hello there", text)
				assert.Less(t, time.Since(began), time.Second)
				synctest.Wait()
				rows := s.usage(t)
				require.Len(t, rows, 1)
				assert.True(t, rows[0].Complete, "the last event was seen, so the counts are whole")
			})
		})
	}
}

// However the provider cuts its bytes, the key that was injected does not come back.
func TestLLMStreamSecrets(t *testing.T) {
	t.Parallel()
	p := llmProviders[1]
	escaped := ""
	for _, r := range llmKey {
		escaped += fmt.Sprintf(`\u%04x`, r)
	}
	text := ": " + llmKey + "\n\nevent: x" + llmKey + "\ndata: {\"id\":\"" + llmKey + "\",\"n\":1.0}\n\ndata: {\"id\":\"" + escaped + "\"}\n\n" +
		"data: \"a " + llmKey + "\ndata: b\"\n\ndata: [DONE]\n\n"
	for _, size := range []int{1, 2, 7, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Logged)
			s.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.Header().Set("Openai-Version", llmKey)
				for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
					_, _ = io.WriteString(w, rest[:min(size, len(rest))])
					_ = http.NewResponseController(w).Flush()
				}
			}))
			req, err := http.NewRequestWithContext(t.Context(), "POST", s.client.BaseURL()+"/v1/llm/openai/chat/completions",
				strings.NewReader(`{"model":"m","stream":true,"messages":[]}`))
			require.NoError(t, err)
			req.Header = http.Header{"Authorization": {"Bearer " + s.APIKey()}, "Content-Type": {"application/json"},
				"X-Passport-Token": {s.passport.Token.Reveal()}}
			resp, err := s.Transport().RoundTrip(req)
			require.NoError(t, err)
			defer func() { require.NoError(t, resp.Body.Close()) }()
			data, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
			assert.Equal(t, "[REDACTED]", resp.Header.Get("Openai-Version"))
			assert.NotContains(t, string(data), llmKey)
			assert.Equal(t, ": [REDACTED]\n\nevent: x[REDACTED]\ndata: {\"id\":\"[REDACTED]\",\"n\":1.0}\n\ndata: {\"id\":\"[REDACTED]\"}\n\n"+
				"data: \"a [REDACTED]\ndata: b\"\n\ndata: [DONE]\n\n", string(data))
		})
	}
}

// What a model said is known to the data-flow wall, streamed or not.
func TestLLMStreamDataFlow(t *testing.T) {
	t.Parallel()
	p := llmProviders[1]
	for _, streamed := range []bool{false, true} {
		t.Run(fmt.Sprint(streamed), func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Logged)
			const said = "the launch is on the ninth of May"
			s.Upstream("slack.com", answers("application/json", `{"ok":true}`))
			s.Upstream(p.host, answers("application/json", `{"choices":[{"message":{"content":"`+said+`"}}]}`))
			if streamed {
				s.Upstream(p.host, streams(`data: {"choices":[{"delta":{"content":"the launch is on "}}]}`+"\n\n"+
					`data: {"choices":[{"delta":{"content":"the ninth of May"}}]}`+"\n\ndata: [DONE]\n\n"))
			}
			strict := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"openai", "slack"}, AllowDataFrom: []string{}})
			passport := s.issue(t, func(p *stack.PassportIssueParams) {
				p.AgentID, p.Intent.Services = strict.ID, []string{"openai", "slack"}
			})
			params := stack.LLMParams{Body: json.RawMessage(p.body), Passport: stack.NewStaticToken(passport.Token)}
			var err error
			if streamed {
				_, _, err = heard(p.stream(s.client.LLM, t.Context(), params))
			} else {
				_, err = p.call(s.client.LLM, t.Context(), params)
			}
			require.NoError(t, err)
			_, err = s.client.Proxy.Post(t.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/x",
				Body: map[string]any{"text": said}, PassportToken: passport.Token})
			require.ErrorIs(t, err, stack.ErrDataFlowBlocked)
		})
	}
}

// An answer that is no stream is told, with what it is.
func TestLLMNoStream(t *testing.T) {
	t.Parallel()
	p := llmProviders[0]
	s := newLLMStage(t, stack.Logged)
	s.Upstream(p.host, answers("application/json", p.answer))
	_, _, err := s.listen(t, p)
	var decode *stack.DecodeError
	require.ErrorAs(t, err, &decode)
	assert.Contains(t, err.Error(), "application/json")
	s.Upstream(p.host, streams(p.events))
	_, err = p.call(s.client.LLM, t.Context(), s.params(p.body))
	require.ErrorAs(t, err, &decode)
}

// Fault by fault, a stream that does not come is an error.
func TestLLMStreamFaults(t *testing.T) {
	t.Parallel()
	p := llmProviders[0]
	const route = "/v1/llm/anthropic/messages"
	for name, tc := range map[string]struct {
		fault stacktest.Fault
		rows  int
	}{
		"close before": {stacktest.Fault{Path: route, Close: stacktest.CloseBefore}, 0},
		"close after":  {stacktest.Fault{Path: route, Close: stacktest.CloseAfter}, 1},
		"status":       {stacktest.Fault{Path: route, Status: 503}, 0},
		"no upstream":  {stacktest.Fault{Path: "upstream:" + p.host, Close: stacktest.CloseAfter}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLLMStage(t, stack.Logged)
				s.Fault(tc.fault)
				events, _, err := s.listen(t, p)
				require.Error(t, err)
				assert.Empty(t, events)
				synctest.Wait()
				assert.Len(t, s.usage(t), tc.rows)
				s.Fault(stacktest.Fault{Path: route, Delay: 20 * time.Second})
				began := time.Now()
				_, text, err := s.listen(t, p)
				require.NoError(t, err)
				assert.Equal(t, "Hello there", text)
				assert.Equal(t, 20*time.Second, time.Since(began))
			})
		})
	}
}

func BenchmarkLLMStream(b *testing.B) {
	srv := stacktest.New(b)
	const events = 1000
	chunk := "data: {\"id\":\"c1\",\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"some words\"}}]}\n\n"
	srv.Upstream("api.openai.com", streams(strings.Repeat(chunk, events)+"data: [DONE]\n\n"))
	agent := srv.Agent(b, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"openai"}})
	client := srv.Client()
	m, err := client.Missions.Start(b.Context(), stack.MissionStartParams{AgentID: agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "bench"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "bench", Services: []string{"openai"}}}})
	require.NoError(b, err)
	params := stack.LLMParams{Body: map[string]any{"model": "gpt-x", "messages": []any{}}, Passport: stack.NewStaticToken(m.Passport.Token)}
	b.SetBytes(int64(events * len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		got, _, err := heard(client.LLM.OpenAIStream(b.Context(), params))
		require.NoError(b, err)
		require.Len(b, got, events)
	}
}
