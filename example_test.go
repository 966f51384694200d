package stack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// The whole of it, against the mock: with the hosted service the client is stack.New(), and there is nothing to close.
func Example() {
	srv, err := stacktest.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Upstream("slack.com", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println("Slack got", r.Method, r.URL.Path, "with", r.Header.Get("Authorization"))
	}))

	run := func(ctx context.Context, client *stack.Client) error {
		agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "triage", AccountabilityMode: stack.Enforced})
		if err != nil {
			return err
		}
		slack, err := client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack",
			OAuthToken: stack.NewSecret("xoxb-the-agent-never-sees-this"), Scopes: []string{"chat:write"}})
		if err != nil {
			return err
		}
		if _, err = client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID,
			Scopes: slack.Scopes}); err != nil {
			return err
		}
		return client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agent.ID, Intent: "Acknowledge tickets",
			Services: []string{"slack"}},
			func(ctx context.Context, mission *stack.Mission) error {
				resp, err := mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: "POST",
					URL:  "https://slack.com/api/chat.postMessage",
					Body: map[string]any{"channel": "#support", "text": "On it"}})
				if err != nil {
					return err
				}
				fmt.Println("answered", resp.Status)
				return nil
			})
	}
	if err := run(context.Background(), srv.Client()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("Missions left open:", len(srv.OpenMissions()))
	// Output:
	// Slack got POST /api/chat.postMessage with Bearer xoxb-the-agent-never-sees-this
	// answered 200
	// Missions left open: 0
}

// exampleAgent starts a mock whose Slack says yes to everything, and registers an agent that may use it.
func exampleAgent(ctx context.Context) (srv *stacktest.Server, client *stack.Client, agentID string) {
	srv, err := stacktest.Start()
	if err != nil {
		log.Fatal(err)
	}
	srv.Upstream("slack.com", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	client = srv.Client()
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "triage"})
	if err != nil {
		log.Fatal(err)
	}
	slack, err := client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack",
		OAuthToken: stack.NewSecret("xoxb-1"), Scopes: []string{"chat:write"}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: slack.ID,
		Scopes: slack.Scopes}); err != nil {
		log.Fatal(err)
	}
	return srv, client, agent.ID
}

// Close, deferred at once, checks out on every path: here a run that goes wrong.
func ExamplePassportsService_Mission() {
	ctx := context.Background()
	srv, client, agentID := exampleAgent(ctx)
	defer srv.Close()

	var missionID, jti string
	run := func() (err error) {
		mission, err := client.Passports.Mission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Acknowledge tickets",
			Services: []string{"slack"}})
		if err != nil {
			return err
		}
		defer mission.Close(&err)
		missionID, jti = mission.ID(), mission.JTI()

		if _, err = mission.Proxy(mission.Context(), stack.ProxyRequest{Service: "slack",
			URL: "https://slack.com/api/conversations.list"}); err != nil {
			return err
		}
		return errors.New("the model made no sense")
	}
	fmt.Println("error:", run())

	report, err := client.Passports.Report(ctx, jti)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("checkout: %d action, %q\n", report.Checkout.ActionsCount, report.Checkout.Summary)
	mission, err := client.Missions.Get(ctx, missionID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("Mission:", mission.Status, mission.EndReason)
	// Output:
	// error: the model made no sense
	// checkout: 1 action, "Mission failed: *errors.errorString: the model made no sense"
	// Mission: revoked operator_initiated_clean
}

// What was declared beside what was done.
func ExampleMission_Summary() {
	ctx := context.Background()
	srv, client, agentID := exampleAgent(ctx)
	defer srv.Close()

	mission, err := client.Passports.Mission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Acknowledge tickets",
		Services: []string{"slack"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, method := range []string{"GET", "POST", "POST"} {
		_, err = mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: method,
			URL: "https://slack.com/api/chat.postMessage"})
		if err != nil {
			log.Fatal(err)
		}
	}
	// Nobody granted it this one:
	_, err = mission.Proxy(ctx, stack.ProxyRequest{Service: "github", URL: "https://api.github.com/user"})
	mission.Close(&err)

	summary := mission.Summary()
	summary.MissionID, summary.AgentID, summary.PassportJTI = "ms_1", "agt_1", "pp_1" // they differ from run to run
	fmt.Print(summary)
	// Output:
	// Mission ms_1: Acknowledge tickets
	//   agent agt_1, enforced, passport pp_1
	//   SERVICE  DECLARED  CALLS  FAILED  METHODS
	//   slack    yes       3      0       GET×1 POST×2
	//   github   NO        1      1       GET×1
	//   4 calls, 1 failed; 0 checkpoints
	//   review: blocked
	//     critical undeclared_service: A call to github was observed, which the intent does not declare.
}

// The kill switch: the passport, everything delegated from it, and the agent's next call.
func ExamplePassportsService_Revoke() {
	ctx := context.Background()
	srv, client, agentID := exampleAgent(ctx)
	defer srv.Close()

	err := client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Acknowledge tickets",
		Services: []string{"slack"}},
		func(ctx context.Context, mission *stack.Mission) error {
			// Anybody with the operator's key may do this, from anywhere.
			revocation, err := client.Passports.Revoke(ctx, mission.JTI(), "it posts nonsense")
			if err != nil {
				return err
			}
			fmt.Println("revoked:", revocation.RevokedCount, "and", revocation.CascadedCount, "delegated")

			_, err = mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: "POST",
				URL: "https://slack.com/api/chat.postMessage"})
			fmt.Println("the next call is refused:", errors.Is(err, stack.ErrPassportRevoked))
			fmt.Println("and the run's context has ended:", ctx.Err())
			return err
		})
	fmt.Println("the run tells why:", errors.Is(err, stack.ErrPassportRevoked))
	fmt.Println("Slack got", len(srv.Forwarded("slack.com")), "calls")
	// Output:
	// revoked: 1 and 0 delegated
	// the next call is refused: true
	// and the run's context has ended: context canceled
	// the run tells why: true
	// Slack got 0 calls
}

// An endpoint that has no method yet, with the SDK's authentication, retries and errors.
func ExampleClient_Do() {
	ctx := context.Background()
	srv, client, agentID := exampleAgent(ctx)
	defer srv.Close()

	var agent struct {
		Name string `json:"name"`
	}
	if err := client.Do(ctx, "PATCH", "/v1/agents/"+agentID, map[string]any{"name": "triage-2"}, &agent); err != nil {
		log.Fatal(err)
	}
	fmt.Println(agent.Name)

	err := client.Do(ctx, "PATCH", "/v1/agents/"+agentID, map[string]any{"status": "asleep"}, nil)
	var refused *stack.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Status, refused.Code, refused.Details["field"], "may be", refused.Details["allowed"])
	}
	// Output:
	// triage-2
	// 400 INVALID_REQUEST body.status may be one of active, suspended
}

// Somebody consents to connect their GitHub account, and the provider gives a token that no one else sees. In a test the
// mock's person does it; otherwise the URL is shown to a real one.
func ExampleServicesService_Connect() {
	srv, err := stacktest.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	ctx, client := context.Background(), srv.Client()

	github, err := client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "github", Scopes: []string{"repo"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(github.Status)
	if github, err = srv.ApproveConnection(github.AuthorizationURL); err != nil {
		log.Fatal(err)
	}
	fmt.Println(github.Status, github.Scopes)

	// Later they take it back at GitHub, and are asked again.
	if err = srv.RevokeAtProvider(github.ID); err != nil {
		log.Fatal(err)
	}
	if github, err = client.Services.Verify(ctx, github.ID); err != nil {
		log.Fatal(err)
	}
	fmt.Println(github.Status)
	github, err = client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "github", Scopes: github.Scopes,
		ConnectionID: github.ID})
	if err != nil {
		log.Fatal(err)
	}
	if github, err = srv.ApproveConnection(github.AuthorizationURL); err != nil {
		log.Fatal(err)
	}
	fmt.Println(github.Status)
	// Output:
	// pending
	// connected [repo]
	// reauth_required
	// connected
}

// A program that is told what happens: it adds itself as a webhook, proves that the address is its own, and checks what
// it receives.
func ExampleVerifyWebhook() {
	srv, err := stacktest.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	ctx, client := context.Background(), srv.Client()
	hook, err := client.DeliveryMethods.Add(ctx, stack.DestinationAddParams{ChannelType: stack.ChannelWebhook,
		Destination: "https://hooks.example/stack"})
	if err != nil {
		log.Fatal(err)
	}
	codes := make(chan string, 1)
	srv.Upstream("hooks.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, readErr := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if readErr != nil {
			http.Error(w, "too large", http.StatusBadRequest)
			return
		}
		event, verifyErr := stack.VerifyWebhook(r.Header, body, hook.WebhookSecret, 0)
		if verifyErr != nil {
			http.Error(w, "bad signature", http.StatusUnauthorized)
			return
		}
		if event.Type != stack.EventVerification {
			fmt.Printf("%s %s: %s\n", event.Severity, event.Type, event.Message)
			return
		}
		var data struct{ Code string }
		if json.Unmarshal(event.Data, &data) != nil {
			http.Error(w, "no code", http.StatusBadRequest)
			return
		}
		codes <- data.Code
	}))
	if _, err = client.DeliveryMethods.SendVerificationCode(ctx, hook.ID, stack.DestinationParams{}); err != nil {
		log.Fatal(err)
	}
	if _, err = client.DeliveryMethods.Verify(ctx, hook.ID, <-codes, stack.DestinationParams{}); err != nil {
		log.Fatal(err)
	}
	if _, err = client.Notifications.Create(ctx, stack.ChannelCreateParams{ChannelType: stack.ChannelWebhook, Destination: hook.ID,
		Events: []stack.NotificationEvent{stack.EventPassportRevoked}}); err != nil {
		log.Fatal(err)
	}
	if _, err = client.DeliveryMethods.Test(ctx, hook.ID, stack.DestinationParams{}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// info notification.test: This is a test. Nothing has happened.
}
