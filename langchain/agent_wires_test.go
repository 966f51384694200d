package langchain_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/chains"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
	"github.com/getstack-go/stack/tool"
)

// langchaingo's own agent and executor, on both wires: calls of one answer, different and identical, after a text.
func TestParallelCallsOnEachWire(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][2]string{
		"different": {`{"channel":"#a","text":"x"}`, `{"channel":"#b","text":"y"}`},
		"identical": {`{"channel":"#a","text":"x"}`, `{"channel":"#a","text":"x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEachWire(t, func(t *testing.T, on wire) {
				made, post := poster(t)
				ts := []tools.Tool{post}
				llm, asked := on.scripted(t,
					on.says("I post both.", call{"c1", "post", args[0]}, call{"c2", "post", args[1]}), on.says("Done."))
				out, err := run(t.Context(), langchain.Model(llm, ts...), "Post", ts)
				require.NoError(t, err)
				assert.Equal(t, "Done.", out)
				assert.Len(t, made.all(), 2)
				last := asked()[1]
				require.Len(t, last, 5, last)
				assert.Equal(t, []string{"user: Post", "assistant c1=post(" + args[0] + ")"}, last[:2])
				assert.Equal(t, "assistant c2=post("+args[1]+")", last[3])
				assert.Equal(t, []string{"user c1: ", "user c2: "}, []string{last[2][:9], last[4][:9]})
			})
		})
	}
}

// What a model makes of a tool's arguments, and what it is told when they do not fit.
func TestArgumentsOnEachWire(t *testing.T) {
	t.Parallel()
	inner := `{"channel":"#a","text":"x"}`
	for name, tt := range map[string]struct{ args, told string }{
		"as they should be":         {inner, ""},
		"in __arg1, as object":      {`{"__arg1":` + inner + `}`, ""},
		"in __arg1, as text":        {`{"__arg1":` + toJSON(inner) + `}`, ""},
		"in a fence, text after it": {`{"__arg1":` + toJSON("```json\n"+inner+"\n```\nObservation: posted") + `}`, ""},
		"plain text":                {`{"__arg1":"#a: x"}`, "the arguments are not a JSON object"},
		"none":                      {`{}`, `missing properties: [\"channel\" \"text\"]`},
		"missing":                   {`{"channel":"#a"}`, `missing properties: [\"text\"]`},
		"unknown":                   {`{"channel":"#a","text":"x","urgent":true}`, `unexpected additional properties [\"urgent\"]`},
		"of another type":           {`{"channel":"#a","text":5}`, `text: type: 5 has type \"integer\", want \"string\"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEachWire(t, func(t *testing.T, on wire) {
				made, post := poster(t)
				ts := []tools.Tool{post}
				llm, asked := on.scripted(t, on.says("", call{"c1", "post", tt.args}), on.says("Done."))
				out, err := run(t.Context(), langchain.Model(llm, ts...), "Post", ts)
				require.NoError(t, err)
				assert.Equal(t, "Done.", out)
				told := asked()[1][2]
				if tt.told == "" {
					assert.Equal(t, []string{"#a: x"}, made.all())
					assert.Equal(t, `user c1: posted "x"`, told)
					return
				}
				assert.Empty(t, made.all())
				assert.Contains(t, told, `user c1: {"error":{"code":"INVALID_ARGUMENTS"`)
				assert.Contains(t, told, tt.told)
			})
		})
	}
}

// A failure of the function is told, and ends nothing; one after which no call makes sense ends the run.
func TestFailuresOnEachWire(t *testing.T) {
	t.Parallel()
	ended := &stack.MissionEndedError{MissionID: "ms_1", State: stack.MissionRevoked,
		Err: &stack.Error{Status: 403, Message: "Mission ms_1 is revoked"}}
	for name, tt := range map[string]struct {
		fn  func() (string, error)
		end error // nil: it is told
	}{
		"error":         {func() (string, error) { return "", errors.New("no such ticket") }, nil},
		"mission ended": {func() (string, error) { return "", fmt.Errorf("posting: %w", ended) }, ended},
		"cap reached": {func() (string, error) { return "", &stack.Error{Status: 403, Code: "MISSION_CAP_EXCEEDED"} },
			stack.ErrMissionCapExceeded},
		"panic": {func() (string, error) { panic(context.DeadlineExceeded) }, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEachWire(t, func(t *testing.T, on wire) {
				made, post := poster(t)
				act := langchain.Must(langchain.NewTool("act", "Act.", func(context.Context, struct{}) (string, error) { return tt.fn() }))
				ts := []tools.Tool{act, post}
				answers := []string{on.says("", call{"c1", "act", "{}"}, call{"c2", "post", `{"channel":"#a","text":"x"}`})}
				if tt.end == nil {
					answers = append(answers, on.says("Done."))
				}
				llm, asked := on.scripted(t, answers...)
				_, err := run(t.Context(), langchain.Model(llm, ts...), "Go", ts)
				assert.Len(t, asked(), len(answers))
				if tt.end != nil {
					require.ErrorIs(t, err, tt.end)
					assert.Contains(t, err.Error(), "tool act: ")
					assert.Empty(t, made.all(), "the later call of the answer was made")
					return
				}
				require.NoError(t, err)
				assert.Equal(t, []string{"#a: x"}, made.all())
				assert.Equal(t, `user c1: {"error":{"code":"FAILED","message":"no such ticket"}}`, asked()[1][2])
			})
		})
	}
}

// Somebody revokes the passport while the agent works: the run ends by its next call, or while the model thinks.
func TestRevokedMidRunOnEachWire(t *testing.T) {
	t.Parallel()
	for name, inModel := range map[string]bool{"before a call": false, "while the model is asked": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEachWire(t, func(t *testing.T, on wire) {
				srv := stacktest.New(t)
				srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w, `{"ok":true}`) }))
				agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
				client := srv.Client()
				err := client.Passports.RunMission(t.Context(),
					stack.MissionParams{AgentID: agent.ID, Intent: "Post", Services: []string{"slack"}},
					func(ctx context.Context, mission *stack.Mission) error {
						post := langchain.Must(langchain.ProxyTool[postIn]("post", "Post.", mission, langchain.Endpoint{
							Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage"}))
						ts := []tools.Tool{post}
						llm, asked := on.model(t, func(w http.ResponseWriter, r *http.Request, n int, _ []string) {
							if n == 1 {
								_, err := client.Passports.Revoke(r.Context(), mission.JTI(), "kill switch")
								assert.NoError(t, err)
							}
							if n == 1 && inModel { // it answers when the Mission knows, which the Mission's own call makes it
								_, err := mission.Proxy(context.WithoutCancel(ctx), stack.ProxyRequest{
									Service: "slack", Method: "GET", URL: "https://slack.com/api/users.list"})
								assert.Error(t, err)
								write(w, on.says("All is well."))
								return
							}
							write(w, on.says("", call{fmt.Sprint("c", n), "post", `{"channel":"#a","text":"x"}`}))
						})
						out, err := run(ctx, langchain.Model(llm, ts...), "Post", ts)
						assert.Empty(t, out)
						assert.Len(t, asked(), 2)
						return err
					})
				require.ErrorIs(t, err, stack.ErrPassportRevoked)
				assert.Len(t, srv.Forwarded("slack.com"), 1, "the first call only")
			})
		})
	}
}

// A context that is done ends a run with its cause, wherever the run is, and nothing after that is answered or called.
func TestCancelOnEachWire(t *testing.T) {
	t.Parallel()
	cause := &stack.MissionEndedError{MissionID: "ms_1", Err: &stack.Error{Status: 403}}
	const inTool, inLastTool, inModel, inStream = "inside a tool", "inside the last tool", "during a model call", "in the middle of a stream"
	for _, where := range []string{inTool, inLastTool, inModel, inStream} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			onEachWire(t, func(t *testing.T, on wire) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				made, post := poster(t)
				stop := langchain.Must(langchain.NewTool("stop", "Stop.",
					func(context.Context, struct{}) (string, error) { cancel(cause); return "stopped", nil }))
				ts := []tools.Tool{stop, post}
				llm, asked := on.model(t, func(w http.ResponseWriter, r *http.Request, _ int, _ []string) {
					switch where {
					case inLastTool: // the next call of the model is what notices
						write(w, on.says("", call{"c1", "stop", "{}"}))
					case inTool:
						write(w, on.says("", call{"c1", "stop", "{}"}, call{"c2", "post", `{"channel":"#a","text":"x"}`}))
					case inStream:
						events := on.stream("", "Half an answer.")
						write(w, strings.Join(events[:len(events)-3], "")) // a text of it, and no end
						assert.NoError(t, http.NewResponseController(w).Flush())
						<-r.Context().Done()
					case inModel:
						cancel(cause)
						<-r.Context().Done()
					}
				})
				model := langchain.Model(llm, ts...)
				var opts []chains.ChainCallOption
				if where == inStream {
					model.StreamWithTools = true
					opts = append(opts, chains.WithStreamingFunc(func(context.Context, []byte) error { cancel(cause); return nil }))
				}
				executor := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(model, ts))
				out, err := chains.Run(ctx, executor, "Go", opts...)
				var got *stack.MissionEndedError
				require.ErrorAs(t, err, &got)
				assert.Same(t, cause, got)
				assert.Empty(t, out)
				assert.Empty(t, made.all())
				assert.Len(t, asked(), 1)
			})
		})
	}
}

// Two hundred runs at the same time, half of them on each wire, of the stock agent and of our loop in turn, with one tool, one
// client and one server, each in a Mission of its own: none sees another's.
func TestManyMissionsOnEachWire(t *testing.T) {
	t.Parallel()
	const runs = 100
	onEachWire(t, func(t *testing.T, on wire) {
		srv := stacktest.New(t, stacktest.FailOnOpenMissions())
		srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w, `{"ok":true}`) }))
		agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
		client := srv.Client()
		post := langchain.Must(langchain.ProxyTool[postIn]("post", "Post.", tool.FromContext(), langchain.Endpoint{
			Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage"}))
		ts := []tools.Tool{post}
		llm, _ := on.model(t, func(w http.ResponseWriter, _ *http.Request, _ int, asked []string) {
			channel := strings.TrimPrefix(asked[0], "user: ")
			if len(asked) == 1 {
				write(w, on.says("", call{"a" + channel, "post", toJSON(postIn{channel, "1"})},
					call{"b" + channel, "post", toJSON(postIn{channel, "2"})}))
				return
			}
			write(w, on.says("Posted to "+channel))
		})
		executor := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(langchain.Model(llm, ts...), ts))

		var wg sync.WaitGroup
		for i := range runs {
			wg.Go(func() {
				channel := fmt.Sprint("#", i)
				err := client.Passports.RunMission(t.Context(),
					stack.MissionParams{AgentID: agent.ID, Intent: "Post", Services: []string{"slack"}},
					func(ctx context.Context, mission *stack.Mission) error {
						ctx = tool.NewContext(ctx, mission)
						if i%2 == 0 {
							result, err := langchain.Run(ctx, llm, langchain.RunParams{Messages: human(channel), Tools: []*langchain.Tool{post}})
							if err == nil {
								assert.Equal(t, "Posted to "+channel, result.Text)
							}
							return err
						}
						out, err := chains.Run(ctx, executor, channel)
						assert.Equal(t, "Posted to "+channel, out)
						return err
					})
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		var bodies []string
		for _, r := range srv.Forwarded("slack.com") {
			bodies = append(bodies, string(r.Body))
		}
		slices.Sort(bodies)
		assert.Len(t, slices.Compact(bodies), 2*runs, "each run posted its two messages, once")
	})
}
