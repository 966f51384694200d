package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

// decide is the person's side: it looks for what waits for a decision, asks, and passes the answer on, until the context
// ends.
func decide(ctx context.Context, client *stack.Client, in io.Reader, out io.Writer) error {
	answers := bufio.NewReader(in)
	for {
		for pending, err := range client.Intents.AllPending(ctx, stack.IntentListParams{}) {
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				err = ask(ctx, client, pending, answers, out)
			}
			if err != nil {
				return err
			}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// ask puts one request before the person. No answer is a no.
func ask(ctx context.Context, client *stack.Client, pending stack.IntentApproval, answers *bufio.Reader, out io.Writer) error {
	_, _ = fmt.Fprintf(out, "%s. Approve? [y/N] ", pending.Intent.Reason)
	answer, err := answers.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	_, _ = fmt.Fprintln(out, answer)
	if answer == "y" || answer == "yes" {
		_, err = client.Intents.Approve(ctx, pending.ID, stack.IntentApproveParams{Notes: "at the terminal"})
		return err
	}
	_, err = client.Intents.Reject(ctx, pending.ID, stack.IntentRejectParams{Notes: "at the terminal"})
	return err
}
