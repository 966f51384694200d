package replay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/llms"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/langchain/replay"
	"github.com/getstack-go/stack/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echoing is a "real" model: it asks for a tool call for each line of the prompt, and then says how often the answers
// held a word.
type echoing struct{ calls int }

func (m *echoing) Call(context.Context, string, ...llms.CallOption) (string, error) { return "", nil }

func (m *echoing) GenerateContent(
	ctx context.Context, messages []llms.MessageContent, options ...llms.CallOption,
) (*llms.ContentResponse, error) {
	m.calls++
	var o llms.CallOptions
	for _, option := range options {
		option(&o)
	}
	if len(messages) == 1 {
		return &llms.ContentResponse{Choices: []*llms.ContentChoice{{StopReason: "tool_calls",
			GenerationInfo: map[string]any{"PromptTokens": 3, "CompletionTokens": 4, "other": "x"},
			ToolCalls: []llms.ToolCall{{ID: "c1", Type: "function",
				FunctionCall: &llms.FunctionCall{Name: "slack_post", Arguments: `{"channel":"#a","text":"to bob@example.org"}`}}}}}}, nil
	}
	if o.StreamingFunc != nil {
		for _, piece := range []string{"Do", "ne."} {
			if err := o.StreamingFunc(ctx, []byte(piece)); err != nil {
				return nil, err
			}
		}
	}
	return &llms.ContentResponse{Choices: []*llms.ContentChoice{{Content: "Done.", StopReason: "stop"}}}, nil
}

type postIn struct {
	Channel string `json:"channel"`
	Text    string `json:"text"`
}

// run is somebody's agent: one question to the model, a tool call, the answer, streamed; and two calls of its own.
func run(ctx context.Context, client *stack.Client, agentID string, llm llms.Model, streamed io.Writer) error {
	return client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Post", Services: []string{"slack"}},
		func(ctx context.Context, mission *stack.Mission) error {
			post, err := langchain.ProxyTool[postIn]("slack_post", "Post.", mission, langchain.Endpoint{Service: "slack", Method: "POST",
				URL: "https://slack.com/api/chat.postMessage?pretty=1"})
			if err != nil {
				return err
			}
			offer := llms.WithTools([]llms.Tool{{Type: "function", Function: &llms.FunctionDefinition{Name: "slack_post"}}})
			messages := []llms.MessageContent{llms.TextParts(llms.ChatMessageTypeHuman, "Tell bob@example.org, key sk_live_0123456789abcdef")}
			answer, err := llm.GenerateContent(ctx, messages, offer)
			if err != nil {
				return err
			}
			call := answer.Choices[0].ToolCalls[0]
			observation, err := post.Call(ctx, call.FunctionCall.Arguments)
			if err != nil {
				return err
			}
			messages = append(messages, llms.MessageContent{Role: llms.ChatMessageTypeAI, Parts: []llms.ContentPart{call}},
				llms.MessageContent{Role: llms.ChatMessageTypeTool, Parts: []llms.ContentPart{llms.ToolCallResponse{
					ToolCallID: call.ID, Name: "slack_post", Content: observation}}})
			_, err = llm.GenerateContent(ctx, messages, offer, llms.WithStreamingFunc(func(_ context.Context, piece []byte) error {
				_, writeErr := streamed.Write(piece)
				return writeErr
			}))
			if err != nil {
				return err
			}
			form := map[string]any{"channel": "C1", "ts": []any{"1", "2"}, "n": 17}
			for _, request := range []stack.ProxyRequest{
				{Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.delete", Body: form,
					Headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}},
				{Service: "slack", URL: "https://slack.com/api/files?b=2", Query: map[string]string{"a": "1"}},
			} {
				response, err := mission.Proxy(ctx, request)
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintf(streamed, " %d %s", response.Status, response.Body)
			}
			return nil
		})
}

// stageOf is a mock whose Slack is the given one, and an agent.
func stageOf(t *testing.T, slack http.Handler) (*stacktest.Server, string) {
	t.Helper()
	srv := stacktest.New(t)
	srv.Upstream("slack.com", slack)
	return srv, srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}}).ID
}

// slack is the "real" service.
func slack(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api/chat.postMessage":
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Ratelimit-Remaining", "7")
		_, _ = w.Write([]byte(`{"ok":true,"id":12345678901234567890,"by":"eve@example.org"}`))
	case "/api/chat.delete":
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte("no such message"))
	default:
		w.Header().Set("Content-Type", "application/pdf")
		_, _ = w.Write([]byte{0xff, 0x00, 0xfe})
	}
}

// record runs the agent for real, and returns the record and what the agent said.
func record(t *testing.T, opts ...replay.Option) (file, said string) {
	t.Helper()
	srv, agentID := stageOf(t, http.HandlerFunc(slack))
	var out, streamed bytes.Buffer
	recorder := replay.NewRecorder(&out, opts...)
	client := srv.Client(stack.WithHTTPClient(&http.Client{Transport: recorder.Transport(srv.Transport())}))
	require.NoError(t, run(t.Context(), client, agentID, recorder.Model(&echoing{}), &streamed))
	require.NoError(t, recorder.Err())
	return out.String(), streamed.String()
}

func TestRecordAndReplay(t *testing.T) {
	t.Parallel()
	file, said := record(t)
	require.Equal(t, `Done. 404 "no such message" 200 {"base64":"/wD+"}`, said)
	assert.Equal(t, 5, strings.Count(file, "\n"), file)
	assert.Contains(t, file, "12345678901234567890", "numbers stay as they are")

	recorded, err := replay.Open(strings.NewReader(file))
	require.NoError(t, err)
	require.Len(t, recorded.Unused(), 5)
	srv, agentID := stageOf(t, recorded.Upstream())
	var again bytes.Buffer
	require.NoError(t, run(t.Context(), srv.Client(), agentID, recorded.Model(), &again))
	assert.Equal(t, said, again.String())
	assert.Empty(t, recorded.Unused())
	forwarded := srv.Forwarded("slack.com")
	require.Len(t, forwarded, 3)
	assert.Equal(t, "/api/chat.postMessage", forwarded[0].Path)
	srv.RequireAuditIntact(t)
}

// What is private is not in the file, and a replay fits all the same.
func TestRecordIsRedacted(t *testing.T) {
	t.Parallel()
	secret := replay.Redact([]string{"C1"}, regexp.MustCompile(`pretty=\d`))
	file, _ := record(t, secret)
	for _, private := range []string{"bob@example.org", "eve@example.org", "sk_live_0123456789abcdef", "C1", "pretty", stacktest.DefaultCredential} {
		assert.NotContains(t, file, private)
	}
	assert.Contains(t, file, "Tell [EMAIL], key [REDACTED]")

	recorded, err := replay.Open(strings.NewReader(file), secret)
	require.NoError(t, err)
	// What the model says comes from the file, so the agent now sends the placeholder; that is what was recorded, too.
	srv, agentID := stageOf(t, recorded.Upstream())
	require.NoError(t, run(t.Context(), srv.Client(), agentID, recorded.Model(), io.Discard))
	assert.Empty(t, recorded.Unused())
}

// An agent that asks something else is told what differs.
func TestReplayMismatch(t *testing.T) {
	t.Parallel()
	file, _ := record(t)
	recorded, err := replay.Open(strings.NewReader(file))
	require.NoError(t, err)
	ask := func(text string, options ...llms.CallOption) error {
		_, err = recorded.Model().GenerateContent(t.Context(), []llms.MessageContent{llms.TextParts(llms.ChatMessageTypeHuman, text)}, options...)
		return err
	}
	offer := llms.WithTools([]llms.Tool{{Type: "function", Function: &llms.FunctionDefinition{Name: "slack_post"}}})
	var mismatch *replay.MismatchError
	require.ErrorAs(t, ask("Tell carol", offer), &mismatch)
	assert.Equal(t, "replay: not what was recorded in line 1: messages[0].text is \"Tell carol\", and was \"Tell [EMAIL], key [REDACTED]\"",
		mismatch.Error())
	require.ErrorAs(t, ask("Tell bob@example.org, key sk_live_0123456789abcdef"), &mismatch)
	assert.Equal(t, "tools", mismatch.Where)
	assert.Len(t, recorded.Unused(), 5, "nothing is used up by it")

	srv, agentID := stageOf(t, recorded.Upstream())
	err = srv.Client().Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agentID, Intent: "Post", Services: []string{"slack"}},
		func(ctx context.Context, mission *stack.Mission) error {
			response, callErr := mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: "POST",
				URL: "https://slack.com/api/chat.postMessage?pretty=1", Body: postIn{Channel: "#b", Text: "x"}})
			require.NoError(t, callErr)
			assert.Equal(t, http.StatusNotImplemented, response.Status)
			assert.Contains(t, string(response.Body), `body.channel is`)
			return nil
		})
	require.NoError(t, err)

	empty, err := replay.Open(strings.NewReader("\n"))
	require.NoError(t, err)
	_, err = empty.Model().GenerateContent(t.Context(), nil)
	require.ErrorAs(t, err, &mismatch)
	assert.Contains(t, err.Error(), "did not ask that much")

	gone, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stopped")
	cancel(cause)
	_, err = recorded.Model().GenerateContent(gone, nil)
	require.ErrorIs(t, err, cause)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{
		"no JSON":       "{",
		"neither":       "{}",
		"both":          `{"model":{"asked":{"messages":[]},"answered":[]},"upstream":{"asked":{"method":"GET","host":"a","path":"/"},"answered":{"status":200}}}`,
		"no status":     `{"upstream":{"asked":{"method":"GET","host":"a","path":"/"},"answered":{"status":99}}}`,
		"unknown field": `{"model":{"asked":{"messages":[]},"answered":[],"at":1}}`,
	} {
		_, err := replay.Open(strings.NewReader("\n" + file))
		require.ErrorContains(t, err, "line 2", name)
	}
}

// full takes no more.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

// A record that fails does not stop the run, and is told of.
func TestRecordFails(t *testing.T) {
	t.Parallel()
	srv, agentID := stageOf(t, http.HandlerFunc(slack))
	recorder := replay.NewRecorder(full{})
	client := srv.Client(stack.WithHTTPClient(&http.Client{Transport: recorder.Transport(srv.Transport())}))
	require.NoError(t, run(t.Context(), client, agentID, recorder.Model(&echoing{}), io.Discard))
	require.ErrorContains(t, recorder.Err(), "the disk is full")
}

// Refusals of STACK itself are not the services' answers.
func TestRecordLeavesRefusals(t *testing.T) {
	t.Parallel()
	srv, agentID := stageOf(t, http.HandlerFunc(slack))
	var out bytes.Buffer
	recorder := replay.NewRecorder(&out)
	client := srv.Client(stack.WithHTTPClient(&http.Client{Transport: recorder.Transport(srv.Transport())}))
	err := client.Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agentID, Intent: "Post", Services: []string{"slack"}},
		func(ctx context.Context, mission *stack.Mission) error {
			_, err := mission.Proxy(ctx, stack.ProxyRequest{Service: "github", URL: "https://api.github.com/user"})
			return err
		})
	require.ErrorIs(t, err, stack.ErrForbidden)
	require.NoError(t, recorder.Err())
	assert.Empty(t, out.String())
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"model":{"asked":{"messages":[{"role":"human","text":"a"}]},"answered":[{"content":"b","tool_calls":[{"id":"1","name":"n","arguments":"{}"}]}]}}`))
	f.Add([]byte(`{"upstream":{"asked":{"method":"GET","host":"a.example","path":"/"},"answered":{"status":200,"headers":{"content-type":"application/json"},"body":[1]}}}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		recorded, err := replay.Open(bytes.NewReader(file))
		if err != nil {
			return
		}
		_ = recorded.Unused()
		_, _ = recorded.Model().GenerateContent(t.Context(), []llms.MessageContent{llms.TextParts(llms.ChatMessageTypeHuman, "a")})
		w := &answer{header: http.Header{}}
		recorded.Upstream().ServeHTTP(w, &http.Request{Method: "GET", Host: "a.example", URL: &url.URL{Path: "/"}, Body: http.NoBody,
			Header: http.Header{}})
	})
}

type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }
