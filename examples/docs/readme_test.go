package docs

import (
	"context"
	"log"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/chains"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/examples/internal/scripted"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
)

// run is the README's first code.
func run(ctx context.Context, client *stack.Client, agentID string) (err error) {
	mission, err := client.Passports.Mission(ctx, stack.MissionParams{AgentID: agentID,
		Intent: "Triage and acknowledge new support tickets", Services: []string{"slack"}})
	if err != nil {
		return err
	}
	defer mission.Close(&err) // checkout, then complete; on error or panic: failure summary, then revoke
	resp, err := mission.Proxy(mission.Context(), stack.ProxyRequest{Service: "slack", Method: "POST",
		URL: "https://slack.com/api/chat.postMessage", Body: map[string]any{"channel": "#support", "text": "On it"}})
	if err != nil {
		return err
	}
	log.Println(resp.Status)
	return nil
}

type PostIn struct {
	Channel string `json:"channel" jsonschema:"name of the channel, with its #"`
	Text    string `json:"text"`
}

// ask runs langchaingo's own agent with one tool.
func ask(mission *stack.Mission, llm llms.Model) (string, error) {
	post, err := langchain.ProxyTool[PostIn]("slack_post", "Post a message to a Slack channel.", mission, langchain.Endpoint{
		Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage"})
	if err != nil {
		return "", err
	}
	ts := []tools.Tool{post}
	agent := agents.NewOpenAIFunctionsAgent(langchain.Model(llm, ts...), ts)
	return chains.Run(mission.Context(), agents.NewExecutor(agent), "Acknowledge ticket 17.")
}

//nolint:paralleltest // as the README shows it, short
func TestRun(t *testing.T) {
	srv := stacktest.New(t)              // the whole server, in memory
	srv.Upstream("slack.com", slackStub) // an http.Handler stands for Slack
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	err := run(t.Context(), srv.Client(), agent.ID) // your code
	require.NoError(t, err)
	assert.Len(t, srv.Forwarded("slack.com"), 1)
}

func TestAsk(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.Upstream("slack.com", slackStub)
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	model := scripted.New(scripted.Calls("slack_post", PostIn{Channel: "#support", Text: "On it"}), scripted.Says("Done."))
	err := srv.Client().Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Acknowledge",
		Services: []string{"slack"}},
		func(_ context.Context, mission *stack.Mission) error {
			answer, err := ask(mission, model)
			assert.Equal(t, "Done.", answer)
			return err
		})
	require.NoError(t, err)
	assert.Len(t, srv.Forwarded("slack.com"), 1)
}
