package docs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/getstack-go/stack"
)

// newClient finds its credentials by itself: the key in STACK_API_KEY, else the session of "stack auth login".
func newClient(logger *slog.Logger) (*stack.Client, error) {
	client, err := stack.New(stack.WithLogger(logger), stack.WithUserAgent("triage/1.2"))
	if errors.Is(err, stack.ErrNoCredentials) {
		return nil, fmt.Errorf("set STACK_API_KEY, or sign in with: stack auth login: %w", err)
	}
	return client, err
}

// connectionOf finds the connection of a provider that somebody has made in the dashboard.
func connectionOf(ctx context.Context, client *stack.Client, provider string) (*stack.Connection, error) {
	connections, err := client.Services.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, connection := range connections {
		if connection.Provider == provider {
			return &connection, nil
		}
	}
	return nil, fmt.Errorf("%s is not connected: connect it in the dashboard first", provider)
}
