// Command labeller is an agent that labels the open issues of a GitHub repository with go-github, which knows nothing of
// STACK: its HTTP client is the Mission's. The model runs through the LLM gateway, so that the process holds neither GitHub's
// token nor the model's key.
//
// What the agent may do is not left to its model: the passport that it writes with is for adding labels to issues of one
// repository, and only for some labels. One issue asks for another label; the model obeys, and STACK refuses the call.
//
//	go run ./examples/labeller
//
// Everything is embedded: the mock STACK server, a GitHub-like service, and a scripted model.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/google/go-github/v75/github"
	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/chains"
	"github.com/tmc/langchaingo/llms/openai"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/examples/internal/modelserver"
	"github.com/getstack-go/stack/examples/internal/setup"
	"github.com/getstack-go/stack/langchain"
	"github.com/getstack-go/stack/stacktest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "labeller:", err)
		os.Exit(1)
	}
}

// labeller is what a run needs.
type labeller struct {
	client       *stack.Client
	agentID      string
	repo, models *stack.Connection
	out          io.Writer
}

// run is the whole program but for its process.
func run(ctx context.Context, out io.Writer) error {
	server, err := stacktest.Start()
	if err != nil {
		return err
	}
	defer server.Close()
	hub := &fakeGitHub{}
	server.Upstream("api.github.com", hub)
	modelserver.Install(server, think)

	l := &labeller{client: server.Client(), out: out}
	if err = l.setUp(ctx); err != nil {
		return err
	}
	issues, err := l.read(ctx)
	if err != nil {
		return err
	}
	if err = l.label(ctx, issues); err != nil {
		return err
	}
	l.printf("\nOn GitHub\n")
	for _, issue := range issues {
		l.printf("  #%d  %s\n", issue.GetNumber(), hub.labelled(issue.GetNumber()))
	}
	return nil
}

func (l *labeller) setUp(ctx context.Context) (err error) {
	if l.repo, err = setup.Connect(ctx, l.client, "github", githubToken, "repo"); err != nil {
		return err
	}
	if l.models, err = setup.Connect(ctx, l.client, "openai", modelserver.Key, "chat"); err != nil {
		return err
	}
	agent, err := setup.Agent(ctx, l.client, "labeller", stack.Enforced, l.repo, l.models)
	if err != nil {
		return err
	}
	l.agentID = agent.ID
	return nil
}

// read lists the open issues, in a Mission that cannot write.
func (l *labeller) read(ctx context.Context) (issues []*github.Issue, err error) {
	err = l.client.Passports.RunMission(ctx, stack.MissionParams{
		AgentID: l.agentID, Intent: "Read the open issues of acme/shop", Services: []string{"github"},
		Scopes: []stack.PassportScope{{ServiceConnectionID: l.repo.ID, Scopes: l.repo.Scopes, Constraints: []stack.Constraint{
			{Path: "method", Op: stack.OpEq, Value: "GET"},
			{Path: "url.pathname", Op: stack.OpEq, Value: "/repos/acme/shop/issues"},
		}}},
	}, func(ctx context.Context, mission *stack.Mission) error {
		gh := github.NewClient(mission.HTTPClient("github"))
		opts := &github.IssueListByRepoOptions{State: "open"}
		for {
			page, resp, listErr := gh.Issues.ListByRepo(ctx, "acme", "shop", opts)
			if listErr != nil {
				return listErr
			}
			issues = append(issues, page...)
			if resp.NextPage == 0 {
				return nil
			}
			opts.ListOptions.Page = resp.NextPage
		}
	})
	l.printf("%d open issues\n\n", len(issues))
	return issues, err
}

type labelIn struct {
	Label string `json:"label" jsonschema:"name of the label"`
}

// label lets the agent label each issue, in a Mission that can do nothing else. The tool takes one label, so the constraint on
// the first of the body holds for all.
func (l *labeller) label(ctx context.Context, issues []*github.Issue) (err error) {
	mission, err := l.client.Passports.Mission(ctx, stack.MissionParams{
		AgentID: l.agentID, Intent: "Label the open issues of acme/shop", Services: []string{"github", "openai"},
		Scopes: []stack.PassportScope{
			{ServiceConnectionID: l.models.ID, Scopes: l.models.Scopes},
			{ServiceConnectionID: l.repo.ID, Scopes: l.repo.Scopes, Constraints: []stack.Constraint{
				{Path: "method", Op: stack.OpEq, Value: "POST"},
				{Path: "url.pathname", Op: stack.OpMatches, Value: `^/repos/acme/shop/issues/\d+/labels$`},
				{Path: "body.0", Op: stack.OpIn, Value: []any{"bug", "documentation", "enhancement", "question"}},
			}},
		},
	})
	if err != nil {
		return err
	}
	defer mission.Close(&err)
	model, err := langchain.OpenAI(mission, openai.WithModel("demo"))
	if err != nil {
		return err
	}
	gh := github.NewClient(mission.HTTPClient("github"))
	for _, issue := range issues {
		add, err := langchain.NewTool("add_label", "Add one label to the issue.",
			func(ctx context.Context, in labelIn) (string, error) { // the model chooses the label, and not the issue
				_, _, err := gh.Issues.AddLabelsToIssue(ctx, "acme", "shop", issue.GetNumber(), []string{in.Label})
				return "added " + in.Label, err
			})
		if err != nil {
			return err
		}
		ts := []tools.Tool{add}
		agent := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(langchain.Model(model, ts...), ts))
		answer, err := chains.Run(mission.Context(), agent, "Label this issue as its title says.\nTitle: "+issue.GetTitle())
		if err != nil {
			return fmt.Errorf("issue %d: %w", issue.GetNumber(), err)
		}
		l.printf("#%d  %-44s  %s\n", issue.GetNumber(), issue.GetTitle(), answer)
	}
	return l.report(ctx, mission)
}

// report prints what is on record: the refusals, and what the model used.
func (l *labeller) report(ctx context.Context, mission *stack.Mission) error {
	l.printf("\n%s", mission.Summary())
	events, err := l.client.SecurityEvents.List(ctx, stack.SecurityEventListParams{})
	if err != nil {
		return err
	}
	l.printf("\nSecurity events\n")
	for _, event := range events.Events {
		l.printf("  %s, %s: %s\n", event.SignalType, event.Severity, event.Message)
	}
	used, err := l.client.LLM.SummarizeUsage(ctx, stack.LLMUsageSummaryParams{LLMUsageFilter: stack.LLMUsageFilter{MissionID: mission.ID()}})
	if err != nil {
		return err
	}
	l.printf("\nModel: %d calls, %d tokens in, %d out\n", used.Totals.Calls, used.Totals.InputTokens, used.Totals.OutputTokens)
	return nil
}

func (l *labeller) printf(format string, args ...any) { _, _ = fmt.Fprintf(l.out, format, args...) }
