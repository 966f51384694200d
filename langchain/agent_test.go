package langchain_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/chains"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/tool"
)

// stockTool is a tool as langchaingo's own are: it takes one text.
type stockTool struct{ got []string }

func (*stockTool) Name() string        { return "shout" }
func (*stockTool) Description() string { return "Shout a text." }
func (s *stockTool) Call(_ context.Context, input string) (string, error) {
	s.got = append(s.got, input)
	return strings.ToUpper(input), nil
}

const (
	postSchema = `{"type":"object","properties":{"channel":{"type":"string","description":"name of the channel"},` +
		`"text":{"type":"string"}},"required":["channel","text"],"additionalProperties":false}`
	arg1Schema = `{"type":"object","properties":{"__arg1":{"type":"string","title":"__arg1"}},"required":["__arg1"]}`
)

func TestSchemaOnTheWire(t *testing.T) {
	t.Parallel()
	t.Run("OpenAI", func(t *testing.T) {
		t.Parallel()
		_, post := poster(t)
		ts := []tools.Tool{post, &stockTool{}}
		llm, script := scriptedOpenAI(t, openAIAnswer("Nothing to do."))
		out, err := run(t.Context(), langchain.Model(llm, ts...), "Hi", ts)
		require.NoError(t, err)
		assert.Equal(t, "Nothing to do.", out)

		request := script.all()[0]
		assert.Nil(t, request.Functions)
		require.Len(t, request.Tools, 2)
		assert.Equal(t, "post", request.Tools[0].Function.Name)
		assert.Equal(t, "Post a message.", request.Tools[0].Function.Description)
		assert.JSONEq(t, postSchema, string(request.Tools[0].Function.Parameters))
		assert.JSONEq(t, arg1Schema, string(request.Tools[1].Function.Parameters))
	})
	t.Run("Anthropic", func(t *testing.T) {
		t.Parallel()
		_, post := poster(t)
		ts := []tools.Tool{post, &stockTool{}}
		llm, script := scriptedAnthropic(t, anthropicAnswer(anthropicBlock{Type: "text", Text: "Nothing to do."}))
		out, err := run(t.Context(), langchain.Model(llm, ts...), "Hi", ts)
		require.NoError(t, err)
		assert.Equal(t, "Nothing to do.", out)

		request := script.all()[0]
		require.Len(t, request.Tools, 2)
		assert.Equal(t, "post", request.Tools[0].Name)
		assert.JSONEq(t, postSchema, string(request.Tools[0].InputSchema))
		assert.JSONEq(t, arg1Schema, string(request.Tools[1].InputSchema))
	})
}

func TestParallelCalls(t *testing.T) {
	t.Parallel()
	tests := map[string][]call{
		"different": {{"c1", "post", `{"channel":"#a","text":"x"}`}, {"c2", "post", `{"channel":"#b","text":"y"}`}},
		"identical": {{"c1", "post", `{"channel":"#a","text":"x"}`}, {"c2", "post", `{"channel":"#a","text":"x"}`}},
	}
	for name, calls := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, post := poster(t)
			ts := []tools.Tool{post}
			llm, script := scriptedOpenAI(t, openAIAnswer("I post both.", calls...), openAIAnswer("Done."))
			out, err := run(t.Context(), langchain.Model(llm, ts...), "Post", ts)
			require.NoError(t, err)
			assert.Equal(t, "Done.", out)

			var wantPosts []string
			wantLines := []string{"system: You are a helpful AI assistant.", "user: Post"}
			for _, c := range calls {
				var in postIn
				require.NoError(t, json.Unmarshal([]byte(c.args), &in))
				wantPosts = append(wantPosts, in.Channel+": "+in.Text)
				wantLines = append(wantLines, fmt.Sprintf("assistant %s=post(%s)", c.id, c.args),
					fmt.Sprintf("tool %s: posted %q", c.id, in.Text))
			}
			assert.Equal(t, wantPosts, made.all())
			assert.Equal(t, wantLines, script.all()[1].lines())
		})
	}
}

func TestAnthropicTextThenCalls(t *testing.T) {
	t.Parallel()
	made, post := poster(t)
	ts := []tools.Tool{post}
	llm, script := scriptedAnthropic(t,
		anthropicAnswer(anthropicBlock{Type: "text", Text: "I post both."},
			anthropicBlock{Type: "tool_use", ID: "u1", Name: "post", Input: json.RawMessage(`{"channel":"#a","text":"x"}`)},
			anthropicBlock{Type: "tool_use", ID: "u2", Name: "post", Input: json.RawMessage(`{"channel":"#b","text":"y"}`)}),
		anthropicAnswer(anthropicBlock{Type: "text", Text: "Done."}, anthropicBlock{Type: "text", Text: "Bye."}))
	out, err := run(t.Context(), langchain.Model(llm, ts...), "Post", ts)
	require.NoError(t, err)
	assert.Equal(t, "Done.\nBye.", out)
	assert.Equal(t, []string{"#a: x", "#b: y"}, made.all())
	assert.Equal(t, []string{
		"user: Post",
		`assistant u1=post({"channel":"#a","text":"x"})`, `user u1: posted "x"`,
		`assistant u2=post({"channel":"#b","text":"y"})`, `user u2: posted "y"`,
	}, script.all()[1].lines())
}

func TestArg1(t *testing.T) {
	t.Parallel()
	inner := `{"channel":"#a","text":"x"}`
	fenced := "```\n" + inner + "\n```"
	tests := map[string]struct{ args, replayed string }{
		"as object":          {`{"__arg1":` + inner + `}`, `{"__arg1":` + inner + `}`},
		"as string":          {`{"__arg1":` + toJSON(inner) + `}`, inner},
		"as string in fence": {`{"__arg1":` + toJSON(fenced) + `}`, `{"__arg1":` + toJSON(fenced) + `}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, post := poster(t)
			ts := []tools.Tool{post}
			llm, script := scriptedOpenAI(t, openAIAnswer("", call{"c1", "post", tt.args}), openAIAnswer("Done."))
			_, err := run(t.Context(), langchain.Model(llm, ts...), "Post", ts)
			require.NoError(t, err)
			assert.Equal(t, []string{"#a: x"}, made.all())
			assert.Equal(t, "assistant c1=post("+tt.replayed+")", script.all()[1].lines()[2])
		})
	}

	t.Run("of a stock tool, on Anthropic", func(t *testing.T) {
		t.Parallel()
		shout := &stockTool{}
		ts := []tools.Tool{shout}
		llm, script := scriptedAnthropic(t,
			anthropicAnswer(anthropicBlock{Type: "tool_use", ID: "u1", Name: "shout", Input: json.RawMessage(`{"__arg1":"hi"}`)}),
			anthropicAnswer(anthropicBlock{Type: "text", Text: "Done."}))
		_, err := run(t.Context(), langchain.Model(llm, ts...), "Shout", ts)
		require.NoError(t, err)
		assert.Equal(t, []string{"hi"}, shout.got)
		assert.Equal(t, []string{"user: Shout", `assistant u1=shout({"__arg1":"hi"})`, "user u1: HI"}, script.all()[1].lines())
	})
}

func TestModelMendsItsArguments(t *testing.T) {
	t.Parallel()
	made, post := poster(t)
	ts := []tools.Tool{post}
	llm, script := scriptedOpenAI(t,
		openAIAnswer("", call{"c1", "post", `{"channel":"#a"}`}),
		openAIAnswer("", call{"c2", "post", `{"channel":"#a","text":"x","urgent":true}`}),
		openAIAnswer("", call{"c3", "post", `{"channel":"#a","text":5}`}),
		openAIAnswer("", call{"c4", "post", `{"channel":"#a","text":"x"}`}),
		openAIAnswer("Done."))
	_, err := run(t.Context(), langchain.Model(llm, ts...), "Post", ts)
	require.NoError(t, err)
	assert.Equal(t, []string{"#a: x"}, made.all())
	lines := script.all()[4].lines()
	assert.Contains(t, lines[3], `required: missing properties: [\"text\"]`)
	assert.Contains(t, lines[5], `unexpected additional properties [\"urgent\"]`)
	assert.Contains(t, lines[7], `text: type: 5 has type \"integer\", want \"string\"`)
	assert.Equal(t, `tool c4: posted "x"`, lines[9])
}

// A ReAct agent passes on fences and what the model made up after its input.
func TestOneShotAgent(t *testing.T) {
	t.Parallel()
	made, post := poster(t)
	ts := []tools.Tool{post}
	llm, script := scriptedOpenAI(t,
		openAIAnswer("Thought: I post.\nAction: post\n"+
			"Action Input: ```json\n{\"channel\":\"#a\",\"text\":\"x\"}\n```\nObservation: {}"),
		openAIAnswer("Final Answer: Done."))
	executor := agents.NewExecutor(agents.NewOneShotAgent(langchain.Model(llm, ts...), ts))
	out, err := chains.Run(t.Context(), executor, "Post")
	require.NoError(t, err)
	assert.Equal(t, "Done.", strings.TrimSpace(out))
	assert.Equal(t, []string{"#a: x"}, made.all())
	assert.Empty(t, script.all()[0].Tools)
}

// twoCalls is an answer that calls the tool of the name and then post.
func twoCalls(name string) string {
	return openAIAnswer("", call{"c1", name, `{}`}, call{"c2", "post", `{"channel":"#a","text":"x"}`})
}

func TestFailureOfAFunction(t *testing.T) {
	t.Parallel()
	made, post := poster(t)
	lookup := langchain.Must(langchain.NewTool("lookup", "Look up.",
		func(context.Context, struct{}) (string, error) { return "", errors.New("no such ticket") }))
	ts := []tools.Tool{lookup, post}
	llm, script := scriptedOpenAI(t, twoCalls("lookup"), openAIAnswer("Done."))
	out, err := run(t.Context(), langchain.Model(llm, ts...), "Go", ts)
	require.NoError(t, err)
	assert.Equal(t, "Done.", out)
	assert.Equal(t, []string{"#a: x"}, made.all())
	assert.Equal(t, `tool c1: {"error":{"code":"FAILED","message":"no such ticket"}}`, script.all()[1].lines()[3])
}

func TestFailuresThatEndTheRun(t *testing.T) {
	t.Parallel()
	revoked := &stack.Error{Status: 401, Code: "PASSPORT_REVOKED"}
	ended := &stack.MissionEndedError{
		MissionID: "ms_1", State: stack.MissionRevoked, Err: &stack.Error{Status: 403, Message: "Mission ms_1 is revoked"},
	}
	tests := map[string]struct {
		fn    func(context.Context, struct{}) (string, error)
		check func(*testing.T, error)
	}{
		"mission ended": {
			func(context.Context, struct{}) (string, error) { return "", ended },
			func(t *testing.T, err error) {
				var got *stack.MissionEndedError
				require.ErrorAs(t, err, &got)
				assert.Equal(t, "ms_1", got.MissionID)
			},
		},
		"passport revoked": {
			func(context.Context, struct{}) (string, error) { return "", revoked },
			func(t *testing.T, err error) { require.ErrorIs(t, err, stack.ErrPassportRevoked) },
		},
		"cap reached": {
			func(context.Context, struct{}) (string, error) {
				return "", &stack.Error{Status: 403, Code: "MISSION_CAP_EXCEEDED"}
			},
			func(t *testing.T, err error) { require.ErrorIs(t, err, stack.ErrMissionCapExceeded) },
		},
		"panic": {
			func(context.Context, struct{}) (string, error) { panic("boom") },
			func(t *testing.T, err error) {
				var got *tool.PanicError
				require.ErrorAs(t, err, &got)
				assert.Equal(t, "boom", got.Value)
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, post := poster(t)
			act := langchain.Must(langchain.NewTool("act", "Act.", tt.fn))
			ts := []tools.Tool{act, post}
			llm, script := scriptedOpenAI(t, twoCalls("act"))
			_, err := run(t.Context(), langchain.Model(llm, ts...), "Go", ts)
			require.Error(t, err)
			tt.check(t, err)
			assert.Contains(t, err.Error(), "tool act: ")
			assert.Empty(t, made.all(), "the later call of the answer was made")
			assert.Len(t, script.all(), 1)
		})
	}
}

func TestCancelInsideATool(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"with a call after it": twoCalls("stop"),
		"in the last call":     openAIAnswer("", call{"c1", "stop", `{}`}), // the next model call is what notices
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cause := &stack.MissionEndedError{MissionID: "ms_1", Err: &stack.Error{Status: 403}}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			made, post := poster(t)
			stop := langchain.Must(langchain.NewTool("stop", "Stop.",
				func(context.Context, struct{}) (string, error) { cancel(cause); return "stopped", nil }))
			ts := []tools.Tool{stop, post}
			llm, script := scriptedOpenAI(t, answer)
			_, err := run(ctx, langchain.Model(llm, ts...), "Go", ts)
			var got *stack.MissionEndedError
			require.ErrorAs(t, err, &got)
			assert.Same(t, cause, got)
			assert.Empty(t, made.all(), "the later call of the answer was made")
			assert.Len(t, script.all(), 1)
		})
	}
}

func TestCancelDuringAModelCall(t *testing.T) {
	t.Parallel()
	cause := errors.New("the Mission has ended")
	_, post := poster(t)
	ts := []tools.Tool{post}

	t.Run("before the answer", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		llm, _ := newOpenAI(t, func(_ http.ResponseWriter, r *http.Request, _ int, _ openAIRequest) {
			cancel(cause)
			<-r.Context().Done()
		})
		_, err := run(ctx, langchain.Model(llm, ts...), "Go", ts)
		require.ErrorIs(t, err, cause)
	})
	t.Run("in the middle of a stream", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		llm, script := newOpenAI(t, func(w http.ResponseWriter, r *http.Request, _ int, _ openAIRequest) {
			write(w, `data: {"choices":[{"index":0,"delta":{"content":"Half an"}}]}`+"\n\n")
			assert.NoError(t, http.NewResponseController(w).Flush())
			<-r.Context().Done()
		})
		model := langchain.Model(llm, ts...)
		model.StreamWithTools = true
		executor := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(model, ts))
		out, err := chains.Run(ctx, executor, "Go", chains.WithStreamingFunc(func(context.Context, []byte) error {
			cancel(cause)
			return nil
		}))
		require.ErrorIs(t, err, cause)
		assert.Empty(t, out)
		assert.True(t, script.all()[0].Stream)
	})
}

func TestNoStreamingWithTools(t *testing.T) {
	t.Parallel()
	_, post := poster(t)
	ts := []tools.Tool{post}
	llm, script := scriptedOpenAI(t, openAIAnswer("Done."))
	executor := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(langchain.Model(llm, ts...), ts))
	out, err := chains.Run(t.Context(), executor, "Go", chains.WithStreamingFunc(func(context.Context, []byte) error {
		t.Error("streamed")
		return nil
	}))
	require.NoError(t, err)
	assert.Equal(t, "Done.", out)
	assert.False(t, script.all()[0].Stream)
}

// missionOf is a stand-in for the Mission of one run.
type missionOf string

func (m missionOf) Proxy(_ context.Context, r stack.ProxyRequest) (*stack.ProxyResponse, error) {
	return &stack.ProxyResponse{Status: 200, Body: json.RawMessage(toJSON(string(m) + " " + r.URL))}, nil
}

func TestOneToolInManyRuns(t *testing.T) {
	t.Parallel()
	ticket := langchain.Must(langchain.ProxyTool[struct {
		ID int `json:"id"`
	}]("ticket", "Read a ticket.", tool.FromContext(),
		langchain.Endpoint{Service: "zendesk", Method: "GET", URL: "https://acme.zendesk.com/t/{id}"}))
	ts := []tools.Tool{ticket}
	llm, _ := newOpenAI(t, func(w http.ResponseWriter, _ *http.Request, _ int, r openAIRequest) {
		last := r.Messages[len(r.Messages)-1]
		if last.Role == "user" {
			write(w, openAIAnswer("", call{"c1", "ticket", `{"id":` + last.Content + `}`}))
			return
		}
		write(w, openAIAnswer(last.Content))
	})
	model := langchain.Model(llm, ts...)
	executor := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(model, ts))

	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			ctx := tool.NewContext(t.Context(), missionOf(fmt.Sprint("ms_", i)))
			out, err := chains.Run(ctx, executor, fmt.Sprint(i))
			assert.NoError(t, err)
			assert.Equal(t, fmt.Sprintf(`{"status":200,"body":"ms_%d https://acme.zendesk.com/t/%d"}`, i, i), out)
		})
	}
	wg.Wait()
}

func TestToolIsALangchaingoTool(t *testing.T) {
	t.Parallel()
	_, post := poster(t)
	set, err := tool.NewSet(post)
	require.NoError(t, err)
	assert.Equal(t, []tools.Tool{post}, langchain.As[tools.Tool](set.All()...))
	assert.Panics(t, func() { langchain.As[llms.Model](post) })
}
