// Package setup does for the examples what an operator does once: it connects services and grants them to agents.
package setup

import (
	"context"
	"fmt"
	"time"

	"github.com/getstack-go/stack"
)

// Connect connects a service of the catalogue with a credential, which no agent ever sees.
func Connect(ctx context.Context, client *stack.Client, service, credential string, scopes ...string) (*stack.Connection, error) {
	return client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: service, OAuthToken: stack.NewSecret(credential),
		Scopes: scopes})
}

// Agent registers an agent, with the time in its name, and grants it connections.
func Agent(
	ctx context.Context, client *stack.Client, name string, mode stack.Accountability, connections ...*stack.Connection,
) (*stack.Agent, error) {
	agent, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: fmt.Sprintf("%s-%d", name, time.Now().Unix()),
		AccountabilityMode: mode})
	if err != nil {
		return nil, err
	}
	for _, c := range connections {
		if _, err = client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: c.ID,
			Scopes: c.Scopes}); err != nil {
			return nil, err
		}
	}
	return agent, nil
}
