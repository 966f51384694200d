package docs

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/chains"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/examples/internal/scripted"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
)

// setUp is done once: it connects Slack and registers an agent that may use it.
func setUp(ctx context.Context, client *stack.Client, slackToken stack.Secret) (agentID string, err error) {
	slack, err := client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: slackToken,
		Scopes: []string{"chat:write"}})
	if err != nil {
		return "", err
	}
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "triage", AccountabilityMode: stack.Enforced})
	if err != nil {
		return "", err
	}
	_, err = client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID,
		Scopes: slack.Scopes})
	return agent.ID, err
}

// postIn is what the model has to say to post a message.
type postIn struct {
	Channel string `json:"channel" jsonschema:"name of the channel, with its #"`
	Text    string `json:"text"`
}

// acknowledge is one run of the agent: it opens a Mission, and whatever happens, closes it with an account.
func acknowledge(ctx context.Context, client *stack.Client, agentID string, llm llms.Model, ticket string) (err error) {
	mission, err := client.Passports.Mission(ctx, stack.MissionParams{AgentID: agentID,
		Intent: "Acknowledge new support tickets", Services: []string{"slack"}})
	if err != nil {
		return err
	}
	defer mission.Close(&err) // checkout, then complete; on error or panic: failure summary, then revoke

	post, err := langchain.ProxyTool[postIn]("slack_post", "Post a message to a Slack channel.", mission, langchain.Endpoint{
		Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage"})
	if err != nil {
		return err
	}
	ts := []tools.Tool{post}
	agent := agents.NewOpenAIFunctionsAgent(langchain.Model(llm, ts...), ts)
	answer, err := chains.Run(mission.Context(), agents.NewExecutor(agent), "Acknowledge this ticket in #support: "+ticket)
	if err != nil {
		return err
	}
	mission.SetResult(answer, nil)
	return nil
}

func Example_gettingStarted() {
	srv, err := stacktest.Start() // the whole server, in this process
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("Slack got", r.URL.Path, "with", r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	}))
	ctx, client := context.Background(), srv.Client() // stack.New() for the hosted service

	agentID, err := setUp(ctx, client, stack.NewSecret("xoxb-the-agent-never-sees-this"))
	if err != nil {
		log.Fatal(err)
	}
	model := scripted.New(scripted.Calls("slack_post", postIn{Channel: "#support", Text: "On it: ticket 17"}),
		scripted.Says("Ticket 17 is acknowledged."))
	if err = acknowledge(ctx, client, agentID, model, "17, the invoice is wrong"); err != nil {
		log.Fatal(err)
	}
	for _, entry := range srv.Audit() {
		fmt.Println(entry.Action, entry.Outcome)
	}
	// Output:
	// Slack got /api/chat.postMessage with Bearer xoxb-the-agent-never-sees-this
	// service.connect success
	// agent.register success
	// grant.create success
	// mission.open success
	// passport.issue success
	// credential.proxy success
	// passport.checkout success
	// mission.complete success
}
