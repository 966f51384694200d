package stacktest

import (
	"crypto/rand"
	"strings"

	"github.com/getstack-go/stack"
)

// AgentConfig describes an agent that is ready to work.
type AgentConfig struct {
	Name     string               // default: a fresh one
	Mode     stack.Accountability // default: enforced
	Access   stack.CredentialAccess
	Services []string // provider keys of the catalogue, or names of custom services
	// Credential is what services that are not connected yet are connected with; default: [DefaultCredential].
	Credential string
	// Constraints narrow the grants of all services.
	Constraints []stack.Constraint
	// AllowDataFrom limits which services' data may flow into each; nil allows all.
	AllowDataFrom []string
}

// DefaultCredential is the credential of services that [Server.Agent] connects.
const DefaultCredential = "stacktest-credential"

// Agent is a registered agent with its services connected and granted.
type Agent struct {
	stack.Agent
	Connections map[string]stack.Connection // by provider
}

// Agent registers an agent, connects its services (those that are connected already are used) and grants them. It fails the
// test when one of these calls is refused.
func (s *Server) Agent(t TB, cfg AgentConfig) Agent {
	t.Helper()
	ctx, client := t.Context(), s.setup()
	if cfg.Name == "" {
		cfg.Name = freshName()
	}
	if cfg.Credential == "" {
		cfg.Credential = DefaultCredential
	}
	registered, err := client.Agents.Register(ctx, stack.AgentRegisterParams{Name: cfg.Name, AccountabilityMode: cfg.Mode, CredentialAccess: cfg.Access})
	if err != nil {
		t.Fatalf("stacktest: registering the agent: %s", err)
	}
	agent := Agent{Agent: *registered, Connections: map[string]stack.Connection{}}
	for _, name := range cfg.Services {
		connection, err := s.connect(t, client, name, cfg.Credential)
		if err != nil {
			t.Fatalf("stacktest: connecting %s: %s", name, err)
		}
		if _, err := client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: connection.ID,
			Scopes: connection.Scopes, Constraints: cfg.Constraints, AllowDataFrom: cfg.AllowDataFrom}); err != nil {
			t.Fatalf("stacktest: granting %s: %s", name, err)
		}
		agent.Connections[name] = *connection
	}
	return agent
}

func freshName() string { return "agent-" + strings.ToLower(rand.Text()[:12]) }

// connect returns the operator's connection with a service, making it if there is none.
func (s *Server) connect(t TB, client *stack.Client, name, credential string) (*stack.Connection, error) {
	ctx := t.Context()
	connected, err := client.Services.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range connected {
		if c.Provider == name && c.Status == stack.ConnectionConnected {
			return &c, nil
		}
	}
	available, err := client.Services.ListAvailable(ctx)
	if err != nil {
		return nil, err
	}
	for _, entry := range available {
		if entry.Provider == name {
			return client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: entry.ID, OAuthToken: stack.NewSecret(credential),
				Scopes: entry.Scopes})
		}
	}
	return client.Services.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: name,
		Credential: stack.CustomCredential{Token: stack.NewSecret(credential)}, Scopes: []string{"use"}})
}
