package docs

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// stop pulls the kill switch of one agent: all its passports, and what was delegated from them, are revoked.
func stop(ctx context.Context, client *stack.Client, agentID, why string) error {
	revoked, err := client.Passports.RevokeAgent(ctx, agentID, why)
	if err != nil {
		return err
	}
	fmt.Printf("%d passport revoked, and %d delegated\n", revoked.RevokedCount, revoked.CascadedCount)
	return nil
}

// ending says in words why a run has ended, for whoever reads the log.
func ending(err error) string {
	var ended *stack.MissionEndedError
	switch {
	case err == nil:
		return "it did its work"
	case errors.Is(err, stack.ErrPassportRevoked):
		return "somebody, or a detector, has stopped it"
	case errors.As(err, &ended):
		return "its Mission was over"
	case errors.Is(err, stack.ErrMissionCapExceeded):
		return "it was about to do more than it may"
	}
	return "it failed: " + err.Error()
}

func Example_killSwitch() {
	srv, err := stacktest.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Upstream("slack.com", slackStub)
	agent := srv.Agent(setup{}, stacktest.AgentConfig{Services: []string{"slack"}})
	ctx, client := context.Background(), srv.Client()

	err = client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agent.ID, Intent: "Answer questions", Services: []string{"slack"}},
		func(ctx context.Context, mission *stack.Mission) error {
			if stopErr := stop(context.WithoutCancel(ctx), client, agent.ID, "it posts nonsense"); stopErr != nil {
				return stopErr
			}
			_, callErr := mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/conversations.list"})
			return callErr
		})
	fmt.Println(ending(err))
	for _, event := range srv.SecurityEvents() {
		fmt.Println(event.Severity, event.SignalType)
	}
	// Output:
	// 1 passport revoked, and 0 delegated
	// somebody, or a detector, has stopped it
	// critical revoked_passport_use
}
