package langchain_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/schema"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
	"github.com/getstack-go/stack/tool"
)

func human(prompt string) []llms.MessageContent {
	return []llms.MessageContent{llms.TextParts(llms.ChatMessageTypeHuman, prompt)}
}

// transferIn has four arguments of four types.
type transferIn struct {
	To    string   `json:"to"`
	Cents int      `json:"cents"`
	Fast  bool     `json:"fast"`
	Tags  []string `json:"tags"`
}

const transfer = `{"to":"bob","cents":1250,"fast":true,"tags":["rent","may"]}`

// A stock agent and our loop solve the same task, on both wires, with a tool of four typed arguments.
func TestSameTask(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"OpenAI", "Anthropic"} {
		for _, ours := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ours %t", provider, ours), func(t *testing.T) {
				t.Parallel()
				var got []transferIn
				pay, err := langchain.NewTool("pay", "Pay somebody.", func(_ context.Context, in transferIn) (string, error) {
					got = append(got, in)
					return "paid", nil
				})
				require.NoError(t, err)
				var llm llms.Model
				var lines func() []string
				if provider == "OpenAI" {
					model, script := scriptedOpenAI(t, openAIAnswer("", call{"c1", "pay", transfer}), openAIAnswer("Bob has it."))
					llm, lines = model, func() []string { return script.all()[1].lines() }
				} else {
					model, script := scriptedAnthropic(t,
						anthropicAnswer(anthropicBlock{Type: "text", Text: "I pay."},
							anthropicBlock{Type: "tool_use", ID: "c1", Name: "pay", Input: json.RawMessage(transfer)}),
						anthropicAnswer(anthropicBlock{Type: "text", Text: "Bob has it."}))
					llm, lines = model, func() []string { return script.all()[1].lines() }
				}
				if ours {
					result, runErr := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Pay Bob"), Tools: []*langchain.Tool{pay}})
					require.NoError(t, runErr)
					assert.Equal(t, "Bob has it.", result.Text)
					assert.Equal(t, langchain.RunUsage{ModelCalls: 2, InputTokens: 22, OutputTokens: 14}, result.Usage)
					require.Len(t, result.Calls, 1)
					assert.Equal(t, langchain.RunCall{ID: "c1", Tool: "pay", Arguments: result.Calls[0].Arguments, Outcome: tool.Outcome{Output: "paid"}},
						result.Calls[0])
					assert.JSONEq(t, transfer, result.Calls[0].Arguments)
				} else {
					ts := []tools.Tool{pay}
					answer, runErr := run(t.Context(), langchain.Model(llm, ts...), "Pay Bob", ts)
					require.NoError(t, runErr)
					assert.Equal(t, "Bob has it.", answer)
				}
				assert.Equal(t, []transferIn{{"bob", 1250, true, []string{"rent", "may"}}}, got)
				assert.Contains(t, strings.Join(lines(), "\n"), "c1: paid")
			})
		}
	}
}

// The calls of one answer run at the same time, and their results are told in the order of the calls.
func TestRunParallel(t *testing.T) {
	t.Parallel()
	var running sync.WaitGroup
	running.Add(3)
	meet, err := langchain.NewTool("meet", "Wait for the others.", func(_ context.Context, in struct {
		Name string `json:"name"`
	}) (string, error) {
		running.Done()
		running.Wait() // for all three: one after the other would never end
		return in.Name + " met them", nil
	})
	require.NoError(t, err)
	llm, script := scriptedOpenAI(t, openAIAnswer("", call{"c1", "meet", `{"name":"a"}`}, call{"c2", "meet", `{"name":"b"}`},
		call{"c3", "meet", `{"name":"c"}`}), openAIAnswer("Done."))
	result, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Meet"), Tools: []*langchain.Tool{meet}})
	require.NoError(t, err)
	assert.Equal(t, []string{"user: Meet", `assistant c1=meet({"name":"a"})`, "tool c1: a met them", `assistant c2=meet({"name":"b"})`,
		"tool c2: b met them", `assistant c3=meet({"name":"c"})`, "tool c3: c met them"}, script.all()[1].lines())
	require.Len(t, result.Calls, 3)
	assert.Equal(t, "c met them", result.Calls[2].Output)
	assert.Len(t, result.Messages, 6, "the question, the calls, three results, the answer")

	// The conversation can go on.
	llm, script = scriptedOpenAI(t, openAIAnswer("You are welcome."))
	_, err = langchain.Run(t.Context(), llm, langchain.RunParams{Messages: append(result.Messages, human("Thanks")...)})
	require.NoError(t, err)
	assert.Equal(t, "user: Thanks", script.all()[0].lines()[8])
}

func TestRunBoundsParallelCalls(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int32
	count, err := langchain.NewTool("count", "Count who runs.", func(context.Context, struct{}) (string, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				return "", nil
			}
		}
	})
	require.NoError(t, err)
	many := make([]call, 50)
	for i := range many {
		many[i] = call{fmt.Sprintf("c%d", i), "count", "{}"}
	}
	llm, _ := scriptedOpenAI(t, openAIAnswer("", many...), openAIAnswer("Done."))
	result, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Count"), Tools: []*langchain.Tool{count}, MaxParallel: 2})
	require.NoError(t, err)
	assert.Len(t, result.Calls, 50)
	assert.LessOrEqual(t, most.Load(), int32(2))
}

func TestRunWithoutAnswer(t *testing.T) {
	t.Parallel()
	post := call{"c1", "post", `{"channel":"#a","text":"x"}`}
	for name, c := range map[string]struct {
		answers []string
		params  langchain.RunParams
		want    error
		text    string
		posted  int
	}{
		"empty":            {[]string{openAIAnswer(" ")}, langchain.RunParams{}, langchain.ErrNoAnswer, " ", 0},
		"iterations":       {[]string{openAIAnswer("", post), openAIAnswer("", post)}, langchain.RunParams{MaxIterations: 2}, langchain.ErrMaxIterations, "", 2},
		"tokens":           {[]string{openAIAnswer("", post)}, langchain.RunParams{MaxTokens: 18}, langchain.ErrMaxTokens, "", 1},
		"tokens left over": {[]string{openAIAnswer("", post), openAIAnswer("Done.")}, langchain.RunParams{MaxTokens: 19}, nil, "Done.", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, poster := poster(t)
			llm, script := scriptedOpenAI(t, c.answers...)
			c.params.Messages, c.params.Tools = human("Post"), []*langchain.Tool{poster}
			result, err := langchain.Run(t.Context(), llm, c.params)
			require.ErrorIs(t, err, c.want)
			require.NotNil(t, result)
			assert.Equal(t, c.text, result.Text)
			assert.Len(t, made.all(), c.posted)
			assert.Len(t, script.all(), len(c.answers))
			assert.Equal(t, len(c.answers), result.Usage.ModelCalls)
		})
	}
}

// What the model does wrong it is told, and can mend.
func TestRunObservations(t *testing.T) {
	t.Parallel()
	made, post := poster(t)
	llm, script := scriptedOpenAI(t,
		openAIAnswer("", call{"c1", "tweet", `{}`}, call{"c2", "post", `{"channel":1}`}),
		openAIAnswer("", call{"", "POST", `{"channel":"#a","text":"x"}`}), openAIAnswer("Done."))
	result, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Post"), Tools: []*langchain.Tool{post}})
	require.NoError(t, err)
	lines := script.all()[1].lines()
	assert.Equal(t, `tool c1: {"error":{"code":"UNKNOWN_TOOL","message":"there is no tool \"tweet\"; the tools are post"}}`, lines[2])
	assert.Contains(t, lines[4], "INVALID_ARGUMENTS")
	require.Error(t, result.Calls[0].Err)
	assert.Equal(t, []string{"#a: x"}, made.all(), "a name in another case is the tool's")
	assert.Equal(t, "call_3", result.Calls[2].ID, "a call without an id gets one")
}

// The first failure that ends a run cancels what else runs, and nothing goes on afterwards.
func TestRunAborts(t *testing.T) {
	t.Parallel()
	waiting, stopped := make(chan struct{}), make(chan struct{})
	wait, err := langchain.NewTool("wait", "Wait.", func(ctx context.Context, _ struct{}) (string, error) {
		close(waiting)
		<-ctx.Done()
		close(stopped)
		return "", ctx.Err()
	})
	require.NoError(t, err)
	fail, err := langchain.NewTool("fail", "Fail.", func(context.Context, struct{}) (string, error) {
		<-waiting
		return "", stack.ErrMissionCapExceeded
	})
	require.NoError(t, err)
	made, post := poster(t)
	llm, script := scriptedOpenAI(t, openAIAnswer("", call{"c1", "wait", ""}, call{"c2", "fail", ""},
		call{"c3", "post", `{"channel":"#a","text":"x"}`}))
	result, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Go"), Tools: []*langchain.Tool{wait, fail, post},
		MaxParallel: 2})
	require.ErrorIs(t, err, stack.ErrMissionCapExceeded)
	require.ErrorContains(t, err, "tool fail")
	select {
	case <-stopped:
	default:
		assert.Fail(t, "Run has returned before its tools")
	}
	require.Len(t, result.Calls, 3)
	assert.True(t, result.Calls[0].Abort)
	assert.LessOrEqual(t, len(made.all()), 1, "what had not begun may not begin")
	assert.Len(t, script.all(), 1)
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("the Mission is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop, err := langchain.NewTool("stop", "Stop.", func(context.Context, struct{}) (string, error) {
		cancel(cause)
		return "stopped", nil
	})
	require.NoError(t, err)
	llm, script := scriptedOpenAI(t, openAIAnswer("", call{"c1", "stop", ""}))
	_, err = langchain.Run(ctx, llm, langchain.RunParams{Messages: human("Go"), Tools: []*langchain.Tool{stop}})
	require.ErrorIs(t, err, cause)
	assert.Len(t, script.all(), 1)
}

func TestRunStreams(t *testing.T) {
	t.Parallel()
	_, post := poster(t)
	llm, script := newOpenAI(t, func(w http.ResponseWriter, _ *http.Request, _ int, _ openAIRequest) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, piece := range []string{"On", " it", "."} {
			write(w, `data: {"choices":[{"index":0,"delta":{"content":"`+piece+`"}}]}`+"\n\n")
		}
		write(w, `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
	})
	var pieces []string
	result, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Go"), Tools: []*langchain.Tool{post},
		Stream: func(_ context.Context, piece []byte) error {
			if len(piece) > 0 {
				pieces = append(pieces, string(piece))
			}
			return nil
		}})
	require.NoError(t, err)
	assert.Equal(t, "On it.", result.Text)
	assert.Equal(t, []string{"On", " it", "."}, pieces)
	assert.True(t, script.all()[0].Stream)
	assert.Len(t, script.all()[0].Tools, 1)
}

func TestRunTellsItsHandler(t *testing.T) {
	t.Parallel()
	_, post := poster(t)
	llm, _ := scriptedOpenAI(t, openAIAnswer("", call{"c1", "post", `{"channel":"#a","text":"x"}`}), openAIAnswer("Done."))
	model := langchain.Model(llm, post)
	told := &actions{}
	model.CallbacksHandler = told
	_, err := langchain.Run(t.Context(), model, langchain.RunParams{Messages: human("Go"), Tools: []*langchain.Tool{post}})
	require.NoError(t, err)
	assert.Equal(t, []string{`post {"channel":"#a","text":"x"} c1`, "finished: Done."}, told.seen)
}

// actions keeps what an agent does.
type actions struct {
	langchain.Handler
	seen []string
}

func (a *actions) HandleAgentAction(_ context.Context, action schema.AgentAction) {
	a.seen = append(a.seen, action.Tool+" "+action.ToolInput+" "+action.ToolID)
}

func (a *actions) HandleAgentFinish(_ context.Context, finish schema.AgentFinish) {
	a.seen = append(a.seen, fmt.Sprint("finished: ", finish.ReturnValues["output"]))
}

func (*actions) HandleLLMGenerateContentStart(context.Context, []llms.MessageContent) {}
func (*actions) HandleLLMGenerateContentEnd(context.Context, *llms.ContentResponse)   {}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	_, post := poster(t)
	llm, script := scriptedOpenAI(t)
	for param, run := range map[string]func() (*langchain.RunResult, error){
		"model": func() (*langchain.RunResult, error) {
			return langchain.Run(t.Context(), nil, langchain.RunParams{Messages: human("x")})
		},
		"messages": func() (*langchain.RunResult, error) { return langchain.Run(t.Context(), llm, langchain.RunParams{}) },
		"tools": func() (*langchain.RunResult, error) {
			return langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("x"), Tools: []*langchain.Tool{post, post}})
		},
		"max iterations": func() (*langchain.RunResult, error) {
			return langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("x"), MaxIterations: -1})
		},
	} {
		result, err := run()
		var bad *stack.ParamError
		require.ErrorAs(t, err, &bad, param)
		assert.Equal(t, param, bad.Param)
		assert.Nil(t, result)
	}
	assert.Empty(t, script.all())
}

// thinking is a model in memory: it posts to its own channel, and then says what came of it.
type thinking struct{ channel string }

func (m thinking) Call(context.Context, string, ...llms.CallOption) (string, error) { return "", nil }

func (m thinking) GenerateContent(_ context.Context, messages []llms.MessageContent, _ ...llms.CallOption) (*llms.ContentResponse, error) {
	last := messages[len(messages)-1]
	if result, ok := last.Parts[0].(llms.ToolCallResponse); ok {
		return &llms.ContentResponse{Choices: []*llms.ContentChoice{{Content: result.Content, StopReason: "stop"}}}, nil
	}
	return &llms.ContentResponse{Choices: []*llms.ContentChoice{{StopReason: "tool_calls", ToolCalls: []llms.ToolCall{{ID: "c1", Type: "function",
		FunctionCall: &llms.FunctionCall{Name: "slack_post", Arguments: fmt.Sprintf(`{"channel":%q,"text":"On it"}`, m.channel)}}}}}}, nil
}

// Two hundred agents in one process: half with our loop, half stock ones, each under a Mission of its own.
func TestManyRuns(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t, stacktest.FailOnOpenMissions())
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in postIn
		_ = json.NewDecoder(r.Body).Decode(&in)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"in":%q}`, in.Channel)
	}))
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	client := srv.Client()
	post, err := langchain.ProxyTool[postIn]("slack_post", "Post.", tool.FromContext(), langchain.Endpoint{Service: "slack", Method: "POST",
		URL: "https://slack.com/api/chat.postMessage"})
	require.NoError(t, err)
	ts := []tools.Tool{post}

	const runs = 200
	var wait sync.WaitGroup
	for i := range runs {
		wait.Go(func() {
			channel := fmt.Sprintf("#%d", i)
			runErr := client.Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Post", Services: []string{"slack"}},
				func(ctx context.Context, mission *stack.Mission) error {
					ctx = tool.NewContext(ctx, mission)
					want := fmt.Sprintf(`{"status":200,"body":{"in":%q}}`, channel)
					if i%2 == 0 {
						result, err := langchain.Run(ctx, thinking{channel}, langchain.RunParams{Messages: human("Post"), Tools: []*langchain.Tool{post}})
						if err == nil {
							assert.Equal(t, want, result.Text)
						}
						return err
					}
					answer, err := run(ctx, langchain.Model(thinking{channel}, ts...), "Post", ts, agents.WithMaxIterations(3))
					assert.Equal(t, want, answer)
					return err
				})
			assert.NoError(t, runErr)
		})
	}
	wait.Wait()
	assert.Len(t, srv.Forwarded("slack.com"), runs)
	srv.RequireNoSecurityEvents(t)
	srv.RequireAuditIntact(t)
}

// The kill switch ends a run as it ends everything in a Mission.
func TestRunRevoked(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.Upstream("slack.com", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	client := srv.Client()
	err := client.Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Post", Services: []string{"slack"}},
		func(ctx context.Context, mission *stack.Mission) error {
			post, err := langchain.ProxyTool[postIn]("slack_post", "Post.", mission, langchain.Endpoint{Service: "slack", Method: "POST",
				URL: "https://slack.com/api/chat.postMessage"})
			require.NoError(t, err)
			_, err = client.Passports.Revoke(ctx, mission.JTI(), "enough")
			require.NoError(t, err)
			_, err = langchain.Run(ctx, thinking{"#a"}, langchain.RunParams{Messages: human("Post"), Tools: []*langchain.Tool{post}})
			return err
		})
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	assert.Empty(t, srv.Forwarded("slack.com"))
}

// A context that ends in the middle of a stream is the end of the run, not of the answer.
func TestRunCancelledMidStream(t *testing.T) {
	t.Parallel()
	cause := errors.New("the Mission is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	llm, _ := newOpenAI(t, func(w http.ResponseWriter, r *http.Request, _ int, _ openAIRequest) {
		w.Header().Set("Content-Type", "text/event-stream")
		write(w, `data: {"choices":[{"index":0,"delta":{"content":"On"}}]}`+"\n\n")
		assert.NoError(t, http.NewResponseController(w).Flush())
		<-r.Context().Done()
	})
	result, err := langchain.Run(ctx, llm, langchain.RunParams{Messages: human("Go"), Stream: func(context.Context, []byte) error {
		cancel(cause)
		return nil
	}})
	require.ErrorIs(t, err, cause)
	assert.Empty(t, result.Text)
}
