package langchain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/callbacks"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/llms/anthropic"
	"github.com/tmc/langchaingo/llms/openai"
	"github.com/tmc/langchaingo/schema"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/tool"
)

// records reads what a JSON handler wrote, without times, and of sizes only whether there is anything.
func records(t *testing.T, log *bytes.Buffer) []map[string]any {
	t.Helper()
	var list []map[string]any
	dec := json.NewDecoder(log)
	for dec.More() {
		var r map[string]any
		require.NoError(t, dec.Decode(&r))
		for _, key := range []string{"time", "duration"} {
			if _, ok := r[key]; ok {
				assert.NotZero(t, r[key])
			}
			delete(r, key)
		}
		for key, value := range r {
			if size, ok := value.(float64); ok && strings.HasSuffix(key, "_bytes") {
				r[key] = size > 0
			}
		}
		list = append(list, r)
	}
	return list
}

func newLog(level slog.Level) (*bytes.Buffer, *slog.Logger) {
	var log bytes.Buffer
	return &log, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: level})).With("mission_id", "ms_1")
}

const canary = "canary-7f3a"

// handled is a run with the same handler in every place that takes one.
func handled(t *testing.T, handler *langchain.Handler, answers ...string) error {
	t.Helper()
	p := &posts{}
	post, err := langchain.NewTool("post", "Post a message.", func(ctx context.Context, in postIn) (string, error) {
		switch in.Channel {
		case "#none":
			return "", errors.New("no such channel")
		case "#end":
			return "", &stack.Error{Status: 401, Code: "PASSPORT_REVOKED"}
		}
		return p.add(ctx, in)
	}, langchain.WithHandler(handler))
	require.NoError(t, err)
	ts := []tools.Tool{post}
	llm, _ := newOpenAI(t, inTurn[openAIRequest](t, answers), openai.WithCallback(handler))
	model := langchain.Model(llm, ts...)
	model.CallbacksHandler = handler
	_, err = run(t.Context(), model, canary, ts, agents.WithCallbacksHandler(handler))
	return err
}

func TestHandlerLogsARun(t *testing.T) {
	t.Parallel()
	log, logger := newLog(slog.LevelDebug)
	err := handled(t, langchain.NewHandler(logger),
		openAIAnswer("", call{"c1", "post", `{"channel":"#a","text":"` + canary + `"}`}),
		openAIAnswer("", call{"c2", "post", `{"channel":"#a","canary-7f3a":1}`}),
		openAIAnswer("", call{"c3", "post", `{"channel":"#none","text":"x"}`}),
		openAIAnswer("Done "+canary))
	require.NoError(t, err)
	assert.NotContains(t, log.String(), canary)

	info := func(msg string, more map[string]any) map[string]any {
		all := map[string]any{"level": "INFO", "msg": msg, "mission_id": "ms_1"}
		maps.Copy(all, more)
		return all
	}
	asked := func(messages int) map[string]any {
		return info("model asked", map[string]any{"level": "DEBUG", "messages": float64(messages), "text_bytes": true})
	}
	answered := func(text bool, calls int, reason string) map[string]any {
		return info("model answered", map[string]any{"text_bytes": text, "tool_calls": float64(calls), "stop_reason": reason,
			"input_tokens": 11.0, "output_tokens": 7.0})
	}
	action := func(id string) map[string]any {
		return info("agent calls tool", map[string]any{"tool": "post", "call_id": id, "input_bytes": true})
	}
	gave := func(more map[string]any) map[string]any {
		all := info("tool answered", map[string]any{"tool": "post", "output_bytes": true})
		maps.Copy(all, more)
		return all
	}
	assert.Equal(t, []map[string]any{
		asked(2), answered(false, 1, "tool_calls"), action("c1"), gave(nil),
		asked(4), answered(false, 1, "tool_calls"), action("c2"),
		gave(map[string]any{"level": "WARN", "error": "invalid arguments"}),
		asked(6), answered(false, 1, "tool_calls"), action("c3"),
		gave(map[string]any{"level": "WARN", "error": "no such channel"}),
		asked(8), answered(true, 0, "stop"), info("agent finished", map[string]any{"output_bytes": true}),
	}, records(t, log))
}

func TestHandlerLogsTheEndOfARun(t *testing.T) {
	t.Parallel()
	log, logger := newLog(slog.LevelWarn)
	err := handled(t, langchain.NewHandler(logger), openAIAnswer("", call{"c1", "post", `{"channel":"#end","text":"x"}`}))
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	text := "tool post: stack: 401 PASSPORT_REVOKED"
	assert.Equal(t, []map[string]any{
		{"level": "ERROR", "msg": "tool ended the run", "mission_id": "ms_1", "tool": "post", "error": text},
		{"level": "ERROR", "msg": "run failed", "mission_id": "ms_1", "error": text},
	}, records(t, log))
}

func TestHandlerLogsContentsIfAsked(t *testing.T) {
	t.Parallel()
	log, logger := newLog(slog.LevelDebug)
	handler := langchain.NewHandler(logger)
	handler.Contents = true
	input := `{"channel":"#a","text":"` + canary + `","x":1}`
	require.NoError(t, handled(t, handler, openAIAnswer("", call{"c1", "post", input}), openAIAnswer("Done")))
	got := records(t, log)
	assert.Contains(t, got[0]["text"], canary)
	assert.Equal(t, input, got[2]["input"])
	assert.Contains(t, got[3]["output"], "INVALID_ARGUMENTS")
	assert.Contains(t, got[3]["error"], `unexpected additional properties ["x"]`)
	assert.Equal(t, "Done", got[5]["text"])
	assert.Equal(t, "Done", got[6]["output"])
}

// Each client reports failures in its own way or not at all; with the wrapper it is once for each.
func TestHandlerLogsAModelFailureOnce(t *testing.T) {
	t.Parallel()
	refuse := func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusInternalServerError)
		write(w, `{"error":{"message":"overloaded"}}`)
	}
	log, logger := newLog(slog.LevelDebug)
	handler := langchain.NewHandler(logger)
	tests := map[string]llms.Model{}

	openAI, _ := newOpenAI(t,
		func(w http.ResponseWriter, _ *http.Request, _ int, _ openAIRequest) { refuse(w) }, openai.WithCallback(handler))
	tests["OpenAI"] = openAI
	_, url := serve(t, checkAnthropic,
		func(w http.ResponseWriter, _ *http.Request, _ int, _ anthropicRequest) { refuse(w) })
	claude, err := anthropic.New(anthropic.WithToken("key"), anthropic.WithBaseURL(url))
	require.NoError(t, err)
	claude.CallbacksHandler = handler
	tests["Anthropic"] = claude

	for name, llm := range tests { //nolint:paralleltest // They share the log.
		t.Run(name, func(t *testing.T) {
			log.Reset()
			model := langchain.Model[*langchain.Tool](llm)
			model.CallbacksHandler = handler
			_, err := model.GenerateContent(t.Context(), []llms.MessageContent{text(llms.ChatMessageTypeHuman, "hi")})
			require.Error(t, err)
			got := records(t, log)
			require.Len(t, got, 2)
			assert.Equal(t, "model asked", got[0]["msg"])
			assert.Equal(t, "model call failed", got[1]["msg"])
			assert.Contains(t, got[1]["error"], "overloaded")
		})
	}
}

// A handler works without the wrapper and without tools of ours, too.
func TestHandlerAlone(t *testing.T) {
	t.Parallel()
	log, logger := newLog(slog.LevelInfo)
	handler := langchain.NewHandler(logger)
	ctx := t.Context()
	handler.HandleLLMGenerateContentStart(ctx, nil)
	handler.HandleLLMGenerateContentEnd(ctx, nil)
	handler.HandleLLMGenerateContentEnd(ctx, &llms.ContentResponse{Choices: []*llms.ContentChoice{nil}})
	handler.HandleLLMGenerateContentEnd(ctx, &llms.ContentResponse{Choices: []*llms.ContentChoice{
		{GenerationInfo: map[string]any{"InputTokens": 1, "OutputTokens": 2}},
	}})
	handler.HandleLLMError(ctx, errors.New("a"))
	handler.HandleToolStart(ctx, "in")
	handler.HandleToolEnd(ctx, "out")
	handler.HandleToolError(ctx, errors.New("b"))
	handler.HandleAgentFinish(ctx, schema.AgentFinish{})
	got := records(t, log)
	require.Len(t, got, 7)
	assert.InDelta(t, 1, got[2]["input_tokens"], 0)
	assert.InDelta(t, 2, got[2]["output_tokens"], 0)
	assert.NotNil(t, langchain.NewHandler(nil))
}

// recorder notes the callbacks of tools.
type recorder struct {
	callbacks.SimpleHandler
	events []string
}

func (r *recorder) HandleToolStart(_ context.Context, input string) {
	r.events = append(r.events, "start "+input)
}
func (r *recorder) HandleToolEnd(_ context.Context, output string) {
	r.events = append(r.events, "end "+output)
}
func (r *recorder) HandleToolError(_ context.Context, err error) {
	r.events = append(r.events, "error "+err.Error())
}

func TestWithHandler(t *testing.T) {
	t.Parallel()
	var seen recorder
	made := langchain.Must(langchain.NewTool("t", "d", func(_ context.Context, in struct {
		How string `json:"how"`
	}) (string, error) {
		switch in.How {
		case "observe":
			return "", errors.New("no")
		case "abort":
			return "", stack.ErrPassportRevoked
		}
		return "ok", nil
	}, langchain.WithHandler(&seen)))
	for _, how := range []string{"work", "observe", "abort"} {
		_, _ = made.Call(t.Context(), fmt.Sprintf(`{"how":%q}`, how))
	}
	assert.Equal(t, []string{
		`start {"how":"work"}`, `end ok`,
		`start {"how":"observe"}`, `end {"error":{"code":"FAILED","message":"no"}}`,
		`start {"how":"abort"}`, `error tool t: stack: passport revoked`,
	}, seen.events)

	_, err := langchain.ProxyTool[struct{}]("t", "d", tool.FromContext(),
		langchain.Endpoint{Service: "s", Method: "GET", URL: "https://h/"}, langchain.WithHandler(nil))
	require.ErrorContains(t, err, "tool t: WithHook: the hook is nil")
}
