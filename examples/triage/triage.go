package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/chains"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
)

// checkpointEvery is how many tickets lie between two checkpoints that the program asks for, besides those on schedule.
const checkpointEvery = 5

// triage is one run of the agent.
type triage struct {
	env       *environment
	out       io.Writer
	logger    *slog.Logger
	killAfter int

	mission   *stack.Mission
	killed    bool
	handled   int
	failed    int
	remaining int
}

type postIn struct {
	Channel string `json:"channel" jsonschema:"name of the channel, with its #"`
	Text    string `json:"text" jsonschema:"the message, one line"`
}

type postOut struct {
	OK      bool   `json:"ok"`
	Channel string `json:"channel,omitempty"`
	Error   string `json:"error,omitempty"`
}

const instructions = `Acknowledge this support ticket: post one short message with its id and subject to the channel that its topic belongs to.
Channels: #billing (money), #incidents (something is down or slow), #product (bugs and ideas), #security, #support (all else).

`

// work runs the agent over the tickets inside one Mission.
func (t *triage) work(ctx context.Context, tickets []Ticket) (err error) {
	mission, err := t.env.client.Passports.Mission(ctx, stack.MissionParams{
		AgentID:            t.env.agentID,
		Intent:             "Triage and acknowledge new support tickets",
		Services:           []string{"slack"},
		CheckpointInterval: 5 * time.Minute,
		ExpiresIn:          time.Hour,
	})
	if err != nil {
		return err
	}
	t.mission, t.remaining = mission, len(tickets)
	defer mission.Close(&err) // checkout, then complete; on error or panic: failure summary, then revoke
	t.printf("Mission %s, passport %s, %s\n\n", mission.ID(), mission.JTI(), mission.Accountability())

	post, err := langchain.NewTool("slack_post", "Post a message to a Slack channel.",
		func(ctx context.Context, in postIn) (postOut, error) {
			resp, callErr := mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: "POST",
				URL: "https://slack.com/api/chat.postMessage", Body: in})
			if callErr != nil {
				return postOut{}, callErr
			}
			var out postOut
			return out, resp.Decode(&out)
		})
	if err != nil {
		return err
	}
	ts := []tools.Tool{post}
	model := langchain.Model(t.env.model, ts...)
	handler := langchain.NewHandler(t.logger)
	model.CallbacksHandler = handler
	executor := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(model, ts), agents.WithCallbacksHandler(handler))

	for i, ticket := range tickets {
		if t.killAfter > 0 && i == t.killAfter {
			if err := t.kill(ctx); err != nil {
				return err
			}
		}
		if i > 0 && i%checkpointEvery == 0 && !t.killed {
			if err := mission.Checkpoint(mission.Context()); err != nil {
				return err
			}
			t.printf("  — checkpoint after %d tickets\n", i)
		}
		answer, err := chains.Run(mission.Context(), executor, prompt(ticket))
		if err != nil {
			t.printf("%2d/%d %s  stopped: %s\n", i+1, len(tickets), ticket.ID, short(err))
			return fmt.Errorf("ticket %s: %w", ticket.ID, err)
		}
		t.handled++
		t.remaining--
		t.printf("%2d/%d %s  %-48s  %s\n", i+1, len(tickets), ticket.ID, clip(ticket.Subject, 48), answer)
	}
	mission.SetResult(fmt.Sprintf("Acknowledged %d tickets.", t.handled), map[string]any{"tickets": t.handled})
	return nil
}

// prompt is what the agent is asked about one ticket. The ticket is foreign text: it goes into the user's message only.
func prompt(t Ticket) string {
	return fmt.Sprintf("%sTicket %s\nFrom: %s\nSubject: %s\n%s\n", instructions, t.ID, t.From, t.Subject, t.Body)
}

// kill stands for an operator who has seen enough. The agent is not told: it finds out at its next call.
func (t *triage) kill(ctx context.Context) error {
	r, err := t.env.client.Passports.RevokeAgent(ctx, t.env.agentID, "operator pulled the kill switch")
	if err != nil {
		return err
	}
	t.killed = true
	t.printf("  — kill switch: %d passport revoked; the agent goes on without knowing\n", r.RevokedCount)
	return nil
}

func (t *triage) printf(format string, args ...any) { _, _ = fmt.Fprintf(t.out, format, args...) }

func clip(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}

// short names what ended the run.
func short(err error) string {
	var apiErr *stack.Error
	if errors.As(err, &apiErr) {
		return apiErr.Code + ": " + apiErr.Message
	}
	return err.Error()
}
