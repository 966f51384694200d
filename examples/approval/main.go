// Command approval is an agent whose every write needs a person's approval. It works through three refund requests: each is
// put before the person at the terminal with what would come of it, is made when they approve, and when they reject, the
// agent is stopped.
//
//	go run ./examples/approval                  # asks you
//	go run ./examples/approval -answers yyn     # answers for you: two are made, the third ends the run
//
// Everything is embedded: the mock STACK server with the policy that asks for approvals, a Stripe-like service, and a
// scripted model. With the hosted service the person sits in the dashboard instead.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/examples/internal/scripted"
	"github.com/getstack-go/stack/stacktest"
)

func main() {
	answers := flag.String("answers", "", "`letters`, y or n, one for each request, instead of asking")
	flag.Parse()
	if strings.Trim(*answers, "yn") != "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "approval: -answers takes the letters y and n; see -h")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	in := io.Reader(os.Stdin)
	if *answers != "" {
		in = strings.NewReader(strings.Join(strings.Split(*answers, ""), "\n") + "\n")
	}
	err := run(ctx, in, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "approval:", err)
		os.Exit(1)
	}
}

// requests are what customers have asked for.
var requests = []refund{
	{Charge: "ch_1001", Cents: 4900, Reason: "duplicate"},
	{Charge: "ch_1002", Cents: 1250, Reason: "requested_by_customer"},
	{Charge: "ch_1003", Cents: 990000, Reason: "requested_by_customer"},
}

// run is the whole program but for its process: the agent at its work, and beside it the person who decides.
func run(ctx context.Context, in io.Reader, out io.Writer) error {
	server, err := stacktest.Start()
	if err != nil {
		return err
	}
	defer server.Close()
	server.SetPolicy(stacktest.Policy{RequireIntentApproval: true})
	server.Upstream("api.stripe.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"refund","status":"succeeded"}`)
	}))
	client := server.Client()
	agentID, err := register(ctx, client)
	if err != nil {
		return err
	}

	deskCtx, closeDesk := context.WithCancel(ctx)
	decided := make(chan error, 1)
	go func() { decided <- decide(deskCtx, client, in, out) }()
	err = work(ctx, client, agentID, model(), out)
	closeDesk()
	err = errors.Join(err, <-decided)

	_, _ = fmt.Fprintf(out, "\nRefunds that Stripe got: %d\n", len(server.Forwarded("api.stripe.com")))
	if errors.Is(err, stack.ErrPassportRevoked) {
		_, _ = fmt.Fprintln(out, "The agent was stopped by the person who said no.")
		return nil
	}
	return err
}

// register connects Stripe and registers the agent.
func register(ctx context.Context, client *stack.Client) (agentID string, err error) {
	stripe, err := client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "stripe",
		OAuthToken: stack.NewSecret("rk_the-agent-never-sees-this"), Scopes: []string{"refunds:write"}})
	if err != nil {
		return "", err
	}
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "refunds", AccountabilityMode: stack.Enforced})
	if err != nil {
		return "", err
	}
	_, err = client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: stripe.ID,
		Scopes: stripe.Scopes})
	return agent.ID, err
}

// model stands for a model that reads the requests and refunds each.
func model() *scripted.Model {
	m := scripted.New()
	for _, request := range requests {
		m.Then(scripted.Calls("refund", request))
	}
	return m.Then(scripted.Says("All requests are dealt with."))
}
