package docs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"

	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/llms/openai"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
)

// answer is a run with our own loop, and a model behind STACK's gateway: its key is not in this process either.
func answer(ctx context.Context, mission *stack.Mission, question string, ts ...*langchain.Tool) (*langchain.RunResult, error) {
	llm, err := langchain.OpenAI(mission, openai.WithModel("gpt-4o"))
	if err != nil {
		return nil, err
	}
	return langchain.Run(ctx, llm, langchain.RunParams{
		Messages:      []llms.MessageContent{llms.TextParts(llms.ChatMessageTypeHuman, question)},
		Tools:         ts,
		MaxIterations: 8,
		MaxTokens:     50_000,
	})
}

// readIn is what the model has to say to read a page.
type readIn struct {
	Page string `json:"page"`
}

// newReadTool makes a tool whose answers are looked at before the model sees them.
func newReadTool(client *stack.Client, mission *stack.Mission) (*langchain.Tool, error) {
	read, err := langchain.ProxyTool[readIn]("read", "Read a page of the wiki.", mission, langchain.Endpoint{
		Service: "wiki", Method: "GET", URL: "https://wiki.example/{page}"})
	if err != nil {
		return nil, err
	}
	return langchain.Guard(read, client.Scan, langchain.GuardParams{Context: stack.ScanWebpage, Passport: mission.Token})
}

// logged is a model whose calls, and the calls of tools in a run, are logged under the Mission's id.
func logged(llm llms.Model, mission *stack.Mission, logger *slog.Logger, ts ...*langchain.Tool) *langchain.ToolModel {
	model := langchain.Model(llm, ts...)
	model.CallbacksHandler = langchain.NewHandler(logger.With("mission_id", mission.ID()))
	return model
}

// provider stands for OpenAI: it asks for the page, and then says what is on it.
func provider(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Messages []struct{ Role string }
	}
	_ = json.NewDecoder(r.Body).Decode(&asked)
	message := `{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"read","arguments":"{\"page\":\"hours\"}"}}]}`
	reason := "tool_calls"
	if asked.Messages[len(asked.Messages)-1].Role == "tool" {
		message, reason = `{"role":"assistant","content":"From nine to five."}`, "stop"
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"choices":[{"index":0,"message":%s,"finish_reason":%q}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}`,
		message, reason)
}

func Example_models() {
	srv, err := stacktest.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Upstream("api.openai.com", http.HandlerFunc(provider))
	srv.Upstream("wiki.example", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "Open from nine to five.")
	}))
	agent := srv.Agent(setup{}, stacktest.AgentConfig{Services: []string{"openai", "wiki"}})
	client := srv.Client()
	err = client.Passports.RunMission(context.Background(), stack.MissionParams{AgentID: agent.ID, Intent: "Answer questions",
		Services: []string{"openai", "wiki"}},
		func(ctx context.Context, mission *stack.Mission) error {
			read, toolErr := newReadTool(client, mission)
			if toolErr != nil {
				return toolErr
			}
			result, runErr := answer(ctx, mission, "When are you open?", read)
			if runErr != nil {
				return runErr
			}
			fmt.Println(result.Text)
			fmt.Println(result.Usage.ModelCalls, "model calls,", result.Usage.InputTokens+result.Usage.OutputTokens, "tokens,", len(result.Calls), "tool call")

			plain, modelErr := langchain.OpenAI(mission)
			if modelErr != nil {
				return modelErr
			}
			_, runErr = langchain.Run(ctx, logged(plain, mission, slog.New(slog.DiscardHandler), read), langchain.RunParams{
				Messages: []llms.MessageContent{llms.TextParts(llms.ChatMessageTypeHuman, "And on Sundays?")}, Tools: []*langchain.Tool{read}})
			return runErr
		})
	fmt.Println(err)
	// Output:
	// From nine to five.
	// 2 model calls, 36 tokens, 1 tool call
	// <nil>
}
