package langchain_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/llms"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
)

// Whole runs on each wire, streamed and not: a text and two calls in one answer, then the last one. Streamed is what the model
// says, and not its calls.
func TestRunOnEachWire(t *testing.T) {
	t.Parallel()
	calls := []call{{"c1", "post", `{"channel":"#a","text":"x"}`}, {"c2", "post", `{"channel":"#b","text":"y"}`}}
	for name, streams := range map[string]bool{"streamed": true, "whole": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEachWire(t, func(t *testing.T, on wire) {
				made, post := poster(t)
				params := langchain.RunParams{Messages: human("Post"), Tools: []*langchain.Tool{post}}
				answers := []string{on.says("I post both.", calls...), on.says("All is done.")}
				var streamed strings.Builder
				if streams {
					params.Stream = func(_ context.Context, piece []byte) error { streamed.Write(piece); return nil }
					answers = []string{strings.Join(on.stream("", "I post both.", calls...), ""), strings.Join(on.stream("", "All is done."), "")}
				}
				llm, asked := on.scripted(t, answers...)
				result, err := langchain.Run(t.Context(), llm, params)
				require.NoError(t, err)
				assert.Equal(t, "All is done.", result.Text)
				assert.Equal(t, langchain.RunUsage{ModelCalls: 2, InputTokens: 22, OutputTokens: 14}, result.Usage)
				assert.ElementsMatch(t, []string{"#a: x", "#b: y"}, made.all())
				require.Len(t, result.Calls, 2)
				assert.Equal(t, []string{"c1", "c2"}, []string{result.Calls[0].ID, result.Calls[1].ID})
				last := asked()[1]
				assert.Equal(t, []string{"user: Post", "assistant: I post both."}, last[:2])
				assert.Equal(t, []string{`user c1: posted "x"`, `user c2: posted "y"`}, []string{last[3], last[5]})
				if streams {
					assert.Equal(t, "I post both.All is done.", streamed.String())
				}
			})
		})
	}
}

// Half an answer is an error, with the half that there is; half a call is not made.
func TestUnfinishedAnswersOnEachWire(t *testing.T) {
	t.Parallel()
	onEachWire(t, func(t *testing.T, on wire) {
		for reason, want := range map[string]error{on.cut: langchain.ErrLength, on.refused: langchain.ErrRefused} {
			made, post := poster(t)
			params := langchain.RunParams{Messages: human("Post"), Tools: []*langchain.Tool{post}}
			said := func(text string, calls ...call) (llms.Model, func() [][]string) {
				return on.scripted(t, on.answer(reason, text, calls...))
			}
			llm, _ := said("I would")
			result, err := langchain.Run(t.Context(), llm, params)
			require.ErrorIs(t, err, want)
			assert.Equal(t, "I would", result.Text)
			assert.Equal(t, 1, result.Usage.ModelCalls)
			assert.Equal(t, 18, result.Usage.InputTokens+result.Usage.OutputTokens)

			llm, asked := said("", call{"c1", "post", `{"channel":"#a","text":"x"}`})
			_, err = langchain.Run(t.Context(), llm, params)
			require.ErrorIs(t, err, want)
			assert.Empty(t, made.all())
			assert.Len(t, asked(), 1)
		}
	})
}

// The words of providers that are not on a wire here.
func TestUnfinishedAnswersOfOthers(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]error{
		"FinishReasonMaxTokens": langchain.ErrLength, "MAX_TOKENS": langchain.ErrLength, "model_length": langchain.ErrLength,
		"model_context_window_exceeded": langchain.ErrLength, "FinishReasonSafety": langchain.ErrRefused,
		"FinishReasonRecitation": langchain.ErrRefused, "guardrail_intervened": langchain.ErrRefused,
		"FinishReasonStop": nil, "COMPLETE": nil, "": nil,
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			llm := &innerModel{response: &llms.ContentResponse{Choices: []*llms.ContentChoice{{Content: "It", StopReason: reason,
				GenerationInfo: map[string]any{"input_tokens": int32(3), "output_tokens": int32(4)}}}}}
			result, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Hi")})
			require.ErrorIs(t, err, want)
			assert.Equal(t, langchain.RunUsage{ModelCalls: 1, InputTokens: 3, OutputTokens: 4}, result.Usage)
		})
	}
}

// A stream that breaks off in a run is no answer.
func TestRunBrokenStream(t *testing.T) {
	t.Parallel()
	onEachWire(t, func(t *testing.T, on wire) {
		made, post := poster(t)
		events := on.stream("", "", call{"c1", "post", `{"channel":"#a","text":"x"}`})
		llm, _ := on.scripted(t, strings.Join(events[:len(events)-on.optional-1], ""))
		result, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Post"), Tools: []*langchain.Tool{post},
			Stream: func(context.Context, []byte) error { return nil }})
		require.Error(t, err)
		if on.name == "OpenAI" {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
		assert.Empty(t, result.Text)
		assert.Empty(t, made.all(), "a call of half a stream was made")
	})
}

// An error of the caller's function ends a streamed run.
func TestRunStreamStops(t *testing.T) {
	t.Parallel()
	onEachWire(t, func(t *testing.T, on wire) {
		full := errors.New("the screen is full")
		llm, _ := on.scripted(t, strings.Join(on.stream("", "All is well."), ""))
		_, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Hi"),
			Stream: func(context.Context, []byte) error { return full }})
		require.ErrorIs(t, err, full)
	})
}

// A run that ended for want of an approval goes on later: the model is told that it was ended, not that the call gave nothing.
func TestRunGoesOnAfterItsEnd(t *testing.T) {
	t.Parallel()
	onEachWire(t, func(t *testing.T, on wire) {
		approved := false
		pay := langchain.Must(langchain.NewTool("pay", "Pay.", func(context.Context, struct{}) (string, error) {
			if !approved {
				return "", stack.ErrIntentApprovalRequired
			}
			return "paid", nil
		}))
		llm, _ := on.scripted(t, on.says("", call{"c1", "pay", "{}"}))
		params := langchain.RunParams{Messages: human("Pay"), Tools: []*langchain.Tool{pay}}
		result, err := langchain.Run(t.Context(), llm, params)
		require.ErrorIs(t, err, stack.ErrIntentApprovalRequired)

		approved = true
		llm, asked := on.scripted(t, on.says("", call{"c2", "pay", "{}"}), on.says("Paid."))
		params.Messages = append(result.Messages, human("It is approved now.")...)
		result, err = langchain.Run(t.Context(), llm, params)
		require.NoError(t, err)
		assert.Equal(t, "Paid.", result.Text)
		assert.Contains(t, asked()[0][2], `user c1: {"error":{"code":"RUN_ENDED"`)
	})
}

// The end of the context is why a run ends, also when a bound is reached by then.
func TestRunEndsWithItsContextAtABound(t *testing.T) {
	t.Parallel()
	for name, params := range map[string]langchain.RunParams{"iterations": {MaxIterations: 1}, "tokens": {MaxTokens: 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cause := errors.New("the Mission is over")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			stop := langchain.Must(langchain.NewTool("stop", "Stop.",
				func(context.Context, struct{}) (string, error) { cancel(cause); return "stopped", nil }))
			llm, _ := scriptedOpenAI(t, openAIAnswer("", call{"c1", "stop", "{}"}))
			params.Messages, params.Tools = human("Go"), []*langchain.Tool{stop}
			_, err := langchain.Run(ctx, llm, params)
			require.ErrorIs(t, err, cause)
		})
	}
}

// What Anthropic has in its cache is sent, too.
func TestRunCountsCachedTokens(t *testing.T) {
	t.Parallel()
	answer := strings.Replace(anthropicWholeAnswer("", "Hi."), `"input_tokens":11`,
		`"input_tokens":11,"cache_read_input_tokens":1000,"cache_creation_input_tokens":100`, 1)
	llm, _ := scriptedAnthropic(t, answer)
	result, err := langchain.Run(t.Context(), llm, langchain.RunParams{Messages: human("Hi")})
	require.NoError(t, err)
	assert.Equal(t, langchain.RunUsage{ModelCalls: 1, InputTokens: 1111, OutputTokens: 7}, result.Usage)
}

// failed keeps how a run failed.
type failed struct {
	actions
	errs []error
}

func (f *failed) HandleChainError(_ context.Context, err error) { f.errs = append(f.errs, err) }

func TestRunTellsItsHandlerOfAFailure(t *testing.T) {
	t.Parallel()
	_, post := poster(t)
	llm, _ := scriptedOpenAI(t, openAIAnswer("", call{"c1", "post", "{}"}, call{"c2", "post", "{}"}))
	model := langchain.Model(llm, post)
	told := &failed{}
	model.CallbacksHandler = told
	_, err := langchain.Run(t.Context(), model, langchain.RunParams{Messages: human("Go"), Tools: []*langchain.Tool{post}, MaxIterations: 1})
	require.ErrorIs(t, err, langchain.ErrMaxIterations)
	assert.Equal(t, []error{langchain.ErrMaxIterations}, told.errs)
	assert.Equal(t, []string{"post {} c1", "post {} c2"}, told.seen, "in the order of the calls")
}
