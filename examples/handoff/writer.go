package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/getstack-go/stack"
)

// writer is the second agent. All it has is a passport that was handed to it, and the id of a drop-off.
type writer struct {
	client   *stack.Client
	agentID  string
	passport stack.Secret
}

type slackMessage struct {
	Channel string `json:"channel"`
	Text    string `json:"text"`
}

// work collects the findings, has the model write about them, and posts what it wrote.
func (w *writer) work(ctx context.Context, dropoffID string) (string, error) {
	collected, err := w.client.Dropoffs.Collect(ctx, dropoffID, stack.DropoffCollectParams{AgentID: w.agentID, PassportToken: w.passport})
	if err != nil {
		return "", fmt.Errorf("collecting the findings: %w", err)
	}
	var findings dossier
	if err = json.Unmarshal(collected.Payload, &findings); err != nil {
		return "", fmt.Errorf("reading the findings: %w", err)
	}
	prompt := &strings.Builder{}
	_, _ = fmt.Fprintf(prompt, "Write one sentence about: %s\n", findings.Title)
	for _, f := range findings.Findings {
		_, _ = fmt.Fprintf(prompt, "- %s\n", f.Text)
	}
	answer, err := w.client.LLM.OpenAI(ctx, stack.LLMParams{Passport: stack.NewStaticToken(w.passport), Body: map[string]any{
		"model": "demo", "messages": []any{map[string]any{"role": "user", "content": prompt.String()}}}})
	if err != nil {
		return "", fmt.Errorf("writing: %w", err)
	}
	return answer.Text, w.post(ctx, "#news", answer.Text)
}

func (w *writer) post(ctx context.Context, channel, text string) error {
	_, err := w.client.Proxy.Request(ctx, stack.ProxyRequest{PassportToken: w.passport, Service: "slack", Method: "POST",
		URL: "https://slack.com/api/chat.postMessage", Body: slackMessage{channel, text}})
	if err != nil {
		return fmt.Errorf("posting to %s: %w", channel, err)
	}
	return nil
}

// readNotion is what the writer may not do.
func (w *writer) readNotion(ctx context.Context) error {
	_, err := w.client.Proxy.Request(ctx, stack.ProxyRequest{PassportToken: w.passport, Service: "notion", URL: notionPage})
	return err
}
