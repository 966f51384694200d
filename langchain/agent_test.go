package langchain_test

import (
	"context"
	"encoding/json"
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
