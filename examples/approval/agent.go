package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tmc/langchaingo/agents"
	"github.com/tmc/langchaingo/chains"
	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/tools"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/langchain"
)

// refund is what the model has to say to pay somebody back.
type refund struct {
	Charge string `json:"charge" jsonschema:"id of the charge, such as ch_1001"`
	Cents  int    `json:"amount" jsonschema:"in cents"`
	Reason string `json:"reason" jsonschema:"duplicate or requested_by_customer"`
}

// patience is how long the agent waits for a person.
const patience = 10 * time.Minute

// work runs the agent inside one Mission.
func work(ctx context.Context, client *stack.Client, agentID string, llm llms.Model, out io.Writer) (err error) {
	mission, err := client.Passports.Mission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Refund what customers ask for",
		Services: []string{"stripe"}, ExpiresIn: time.Hour})
	if err != nil {
		return err
	}
	defer mission.Close(&err)

	pay, err := langchain.NewTool("refund", "Pay a charge back, in part or whole. A person has to agree, so it may take a while.",
		func(ctx context.Context, in refund) (string, error) {
			if payErr := payBack(ctx, client, mission, in); payErr != nil {
				return "", payErr
			}
			_, _ = fmt.Fprintf(out, "  refunded %s\n", in.Charge)
			return "refunded", nil
		})
	if err != nil {
		return err
	}
	ts := []tools.Tool{pay}
	executor := agents.NewExecutor(agents.NewOpenAIFunctionsAgent(langchain.Model(llm, ts...), ts), agents.WithMaxIterations(len(requests)+1))
	answer, err := chains.Run(mission.Context(), executor, fmt.Sprintf("Refund what is asked for: %+v", requests))
	if err != nil {
		return err
	}
	mission.SetResult(answer, nil)
	return nil
}

// payBack makes the refund. Where the policy asks for an approval, it has the very same call approved and repeats it with that.
func payBack(ctx context.Context, client *stack.Client, mission *stack.Mission, in refund) error {
	call := stack.ProxyRequest{Service: "stripe", Method: "POST", URL: "https://api.stripe.com/v1/refunds", Body: in}
	response, err := mission.Proxy(ctx, call)
	if errors.Is(err, stack.ErrIntentApprovalRequired) {
		if call.ApprovalID, err = approval(ctx, client, mission, call, in); err != nil {
			return err
		}
		response, err = mission.Proxy(ctx, call)
	}
	if err == nil && !response.OK() {
		err = fmt.Errorf("stripe answered %d", response.Status)
	}
	return err
}

// errUndecided says that nobody has decided in time. The model is told, and may go on to something else.
var errUndecided = errors.New("nobody has decided about it in time")

// approval puts a call before a person and waits for what they say.
func approval(
	ctx context.Context, client *stack.Client, mission *stack.Mission, call stack.ProxyRequest, in refund,
) (id string, err error) {
	token, err := mission.Token(ctx)
	if err != nil {
		return "", err
	}
	intent := stack.IntentOf(call)
	intent.Reason = fmt.Sprintf("Refund %d.%02d for %s: %s", in.Cents/100, in.Cents%100, in.Charge, in.Reason)
	outcome, err := client.Intents.SubmitAndWait(ctx, stack.IntentSubmitParams{Intent: intent, PassportToken: token},
		stack.IntentWaitParams{Timeout: patience})
	switch {
	case err != nil:
		return "", err
	case outcome.Approved():
		return outcome.Initial.ApprovalID, nil
	case outcome.Final.Status == stack.IntentRejected: // and with that the passport is revoked
		return "", fmt.Errorf("%w: a person has rejected the refund of %s", stack.ErrPassportRevoked, in.Charge)
	}
	return "", errUndecided
}
