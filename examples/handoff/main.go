// Command handoff is two agents with one task: a researcher reads findings in Notion and hands them to a writer, who writes
// about them and posts to Slack.
//
// The findings go through a drop-off: checked against a schema, and collected once, by the writer alone. The right to write and
// post goes with a delegated passport, which reaches less far than the researcher's: it has no Notion, and one channel. When the
// researcher's passport ends, the writer's does, too.
//
//	go run ./examples/handoff
//
// Everything is embedded: the mock STACK server, the two services, and a scripted model behind the LLM gateway.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/examples/internal/modelserver"
	"github.com/getstack-go/stack/examples/internal/setup"
	"github.com/getstack-go/stack/stacktest"
)

const notionPage = "https://api.notion.com/v1/pages/quarter"

// dossier is what is handed over, and dossierSchema is what it must look like.
type dossier struct {
	Title    string    `json:"title"`
	Findings []finding `json:"findings"`
}

type finding struct {
	Text   string `json:"text"`
	Source string `json:"source,omitempty"`
}

var dossierSchema = map[string]any{"type": "object", "required": []string{"title", "findings"}, "properties": map[string]any{
	"title": map[string]any{"type": "string", "minLength": 1},
	"findings": map[string]any{"type": "array", "minItems": 1, "items": map[string]any{"type": "object",
		"required": []string{"text", "source"}, "properties": map[string]any{
			"text": map[string]any{"type": "string"}, "source": map[string]any{"type": "string"}}}},
}}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "handoff:", err)
		os.Exit(1)
	}
}

// handoff is what a run needs.
type handoff struct {
	client                *stack.Client
	notion, slack, models *stack.Connection
	researcher, writer    *stack.Agent
	out                   io.Writer
}

// run is the whole program but for its process.
func run(ctx context.Context, out io.Writer) error {
	server, err := stacktest.Start()
	if err != nil {
		return err
	}
	defer server.Close()
	slack := &fakeSlack{}
	server.Upstream("slack.com", slack)
	server.Upstream("api.notion.com", http.HandlerFunc(fakeNotion))
	modelserver.Install(server, write)

	h := &handoff{client: server.Client(), out: out}
	if err = h.setUp(ctx); err != nil {
		return err
	}
	var w *writer
	if err = h.client.Passports.RunMission(ctx, stack.MissionParams{AgentID: h.researcher.ID, Intent: "Report on the quarter",
		Services: []string{"notion", "slack", "openai"}, WillDelegate: true,
	}, func(ctx context.Context, mission *stack.Mission) (err error) {
		w, err = h.research(ctx, mission)
		return err
	}); err != nil {
		return err
	}
	err = w.post(ctx, "#news", "one more thing")
	if !errors.Is(err, stack.ErrPassportRevoked) {
		return errors.Join(errors.New("the writer's passport outlived the researcher's"), err)
	}
	h.printf("The Mission is over. writer: %s\n\nWhat Slack received\n", short(err))
	for _, line := range slack.all() {
		h.printf("  %s\n", line)
	}
	return nil
}

func (h *handoff) setUp(ctx context.Context) (err error) {
	if h.notion, err = setup.Connect(ctx, h.client, "notion", notionToken, "read"); err != nil {
		return err
	}
	if h.slack, err = setup.Connect(ctx, h.client, "slack", slackToken, "chat:write"); err != nil {
		return err
	}
	if h.models, err = setup.Connect(ctx, h.client, "openai", modelserver.Key, "chat"); err != nil {
		return err
	}
	if h.researcher, err = setup.Agent(ctx, h.client, "researcher", stack.Logged, h.notion, h.slack, h.models); err != nil {
		return err
	}
	h.writer, err = setup.Agent(ctx, h.client, "writer", stack.Logged) // without grants: its passports are handed to it
	return err
}

// research is the first agent's work: it reads, hands over, and has the writer write.
func (h *handoff) research(ctx context.Context, mission *stack.Mission) (*writer, error) {
	resp, err := mission.Proxy(ctx, stack.ProxyRequest{Service: "notion", URL: notionPage})
	if err != nil {
		return nil, err
	}
	var page struct {
		Title string    `json:"title"`
		Rows  []finding `json:"rows"`
	}
	if err = resp.Decode(&page); err != nil {
		return nil, err
	}
	h.printf("researcher: %d findings in Notion\n", len(page.Rows))

	dropoffID, err := h.deposit(ctx, mission, dossier{page.Title, page.Rows})
	if err != nil {
		return nil, err
	}
	passport, err := mission.Delegate(ctx, stack.PassportDelegateParams{ChildAgentID: h.writer.ID, Scopes: []stack.PassportScope{
		{ServiceConnectionID: h.models.ID, Scopes: h.models.Scopes},
		{ServiceConnectionID: h.slack.ID, Scopes: h.slack.Scopes, Constraints: []stack.Constraint{
			{Path: "body.channel", Op: stack.OpEq, Value: "#news"}}},
	}})
	if err != nil {
		return nil, err
	}
	h.printf("researcher: passport handed to the writer, for slack in #news and a model\n")

	w := &writer{client: h.client, agentID: h.writer.ID, passport: passport.Token}
	text, err := w.work(ctx, dropoffID)
	if err != nil {
		return nil, err
	}
	h.printf("writer: posted %q\n", text)
	_, err = w.client.Dropoffs.Collect(ctx, dropoffID, stack.DropoffCollectParams{AgentID: w.agentID, PassportToken: w.passport})
	if !errors.Is(err, stack.ErrDropoffAlreadyCollected) {
		return nil, errors.Join(errors.New("the writer could collect twice"), err)
	}
	h.printf("writer, collecting again: %s\n", short(err))
	return w, h.overreach(ctx, w)
}

// deposit hands the findings over. The first attempt forgets where one is from: the schema says so, and nothing is lost.
func (h *handoff) deposit(ctx context.Context, mission *stack.Mission, found dossier) (dropoffID string, err error) {
	token, err := mission.Token(ctx)
	if err != nil {
		return "", err
	}
	dropoff, err := h.client.Dropoffs.Create(ctx, stack.DropoffCreateParams{FromAgentID: h.researcher.ID, ToAgentID: h.writer.ID,
		Schema: dossierSchema, PassportToken: token})
	if err != nil {
		return "", err
	}
	params := stack.DropoffDepositParams{AgentID: h.researcher.ID, PassportToken: token,
		Payload: dossier{found.Title, []finding{{Text: found.Findings[0].Text}}}}
	_, err = h.client.Dropoffs.Deposit(ctx, dropoff.ID, params)
	var apiErr *stack.Error
	if !errors.As(err, &apiErr) || !errors.Is(err, stack.ErrSchemaValidationFailed) {
		return "", errors.Join(errors.New("a finding without a source was not refused"), err)
	}
	h.printf("researcher, without a source: %s at %v\n", apiErr.Code, apiErr.Details["path"])
	params.Payload = found
	if _, err = h.client.Dropoffs.Deposit(ctx, dropoff.ID, params); err != nil {
		return "", err
	}
	h.printf("researcher: findings deposited for the writer\n")
	return dropoff.ID, nil
}

// overreach lets the writer try what its passport does not reach.
func (h *handoff) overreach(ctx context.Context, w *writer) error {
	for _, attempt := range []struct {
		name string
		err  error
	}{{"in another channel", w.post(ctx, "#board", "hello")}, {"in Notion", w.readNotion(ctx)}} {
		if !errors.Is(attempt.err, stack.ErrForbidden) {
			return errors.Join(fmt.Errorf("the writer %s was not refused", attempt.name), attempt.err)
		}
		h.printf("writer, %s: %s\n", attempt.name, short(attempt.err))
	}
	return nil
}

func (h *handoff) printf(format string, args ...any) { _, _ = fmt.Fprintf(h.out, format, args...) }

// short names what was refused.
func short(err error) string {
	var apiErr *stack.Error
	switch {
	case !errors.As(err, &apiErr):
		return err.Error()
	case apiErr.Details["check"] != nil:
		return fmt.Sprintf("%s by the check %v", apiErr.Code, apiErr.Details["check"])
	}
	return apiErr.Code
}
