package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver"
	"github.com/getstack-go/stack/internal/pipenet"
)

// exampleSeed shows what a seed may hold. The package's comment has the same.
const exampleSeed = `{
  "services": [
    {"service": "slack", "credential": "xoxb-test", "scopes": ["chat:write"]},
    {"service": "salesforce", "credential": "token", "fields": {"instance_url": "https://acme.my.salesforce.com"}},
    {"service": "crm", "credential": {"username": "u", "password": "p"}}
  ],
  "agents": [
    {"name": "triage", "accountability_mode": "enforced", "services": ["slack", "crm"]}
  ],
  "policy": {"tier": "developer", "rate_limit_per_minute": 600}
}
`

// seed is what a -seed file holds; see the package's comment.
type seed struct {
	Services []seedService           `json:"services,omitempty"`
	Agents   []seedAgent             `json:"agents,omitempty"`
	Policy   mockserver.PolicyChange `json:"policy,omitzero"`
}

type seedService struct {
	Service    string            `json:"service"`
	Credential json.RawMessage   `json:"credential"` // a string, or an object of strings for a custom service
	Scopes     []string          `json:"scopes,omitempty"`
	Fields     map[string]string `json:"fields,omitempty"`
}

type seedAgent struct {
	stack.AgentRegisterParams
	Services []string `json:"services,omitempty"`
}

// loadSeed fills the server through its API, so that a seed obeys the same rules, but without its port.
func loadSeed(ctx context.Context, mock *mockserver.Server, name string, diagnostics io.Writer) error {
	data, err := os.ReadFile(name)
	if err != nil {
		var path *os.PathError // its text would name the file again
		if errors.As(err, &path) {
			err = path.Err
		}
		return err
	}
	var s seed
	if err = mockserver.DecodeStrict("seed", data, &s); err != nil {
		return err
	}
	pipe := pipenet.Listen()
	server := &http.Server{Handler: mock,
		BaseContext: func(net.Listener) context.Context { return mockserver.Calm(context.Background()) }}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(pipe) // ends with ErrServerClosed
	}()
	transport := &http.Transport{DialContext: pipe.DialContext}
	defer func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		<-served
	}()
	client, err := stack.New(stack.WithBaseURL("http://stack.mock"), stack.WithAPIKey(mock.Credentials().APIKey),
		stack.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		return err
	}
	if err = s.apply(ctx, client, diagnostics); err != nil {
		return err
	}
	if _, err = mock.ChangePolicy(s.Policy); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// apply connects the services, registers the agents and grants them what they name.
func (s seed) apply(ctx context.Context, client *stack.Client, diagnostics io.Writer) error {
	available, err := client.Services.ListAvailable(ctx)
	if err != nil {
		return err
	}
	catalogue := map[string]stack.Service{}
	for _, entry := range available {
		catalogue[entry.Provider] = entry
	}
	connections := map[string]*stack.Connection{}
	for i, service := range s.Services {
		connection, err := service.connect(ctx, client, catalogue)
		if err != nil {
			return fmt.Errorf("services[%d] (%s): %w", i, service.Service, err)
		}
		if _, twice := connections[service.Service]; twice {
			return fmt.Errorf("services[%d] (%s): the service is there twice", i, service.Service)
		}
		connections[service.Service] = connection
		_, _ = fmt.Fprintf(diagnostics, "seed: service %s is %s\n", service.Service, connection.ID)
	}
	for i, agent := range s.Agents {
		registered, err := client.Agents.Register(ctx, agent.AgentRegisterParams)
		if err != nil {
			return fmt.Errorf("agents[%d] (%s): %w", i, agent.Name, err)
		}
		for _, service := range agent.Services {
			connection, ok := connections[service]
			if !ok {
				return fmt.Errorf("agents[%d] (%s): service %q is not among the seed's services", i, agent.Name, service)
			}
			if _, err := client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: registered.ID, ServiceConnectionID: connection.ID,
				Scopes: connection.Scopes}); err != nil {
				return fmt.Errorf("agents[%d] (%s): granting %s: %w", i, agent.Name, service, err)
			}
		}
		_, _ = fmt.Fprintf(diagnostics, "seed: agent %s is %s\n", agent.Name, registered.ID)
	}
	return nil
}

func (s seedService) connect(ctx context.Context, client *stack.Client, catalogue map[string]stack.Service) (*stack.Connection, error) {
	credential, err := s.credential()
	if err != nil {
		return nil, err
	}
	entry, ok := catalogue[s.Service]
	if !ok {
		if s.Fields != nil {
			return nil, errors.New("fields are for services of the catalogue, and it has none of this name")
		}
		return client.Services.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: s.Service, Credential: credential, Scopes: s.Scopes})
	}
	if credential.Fields != nil {
		return nil, errors.New("credential is an object; a service of the catalogue takes a string")
	}
	if len(s.Scopes) == 0 {
		s.Scopes = entry.Scopes
	}
	return client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: entry.ID, OAuthToken: credential.Token, Scopes: s.Scopes,
		Fields: s.Fields})
}

// credential reads a credential without ever quoting it.
func (s seedService) credential() (c stack.CustomCredential, err error) {
	if json.Unmarshal(s.Credential, &c.Token) == nil && !c.Token.IsZero() {
		return c, nil
	}
	if json.Unmarshal(s.Credential, &c.Fields) == nil && len(c.Fields) > 0 {
		return c, nil
	}
	return c, errors.New("credential must be a non-empty string or object of strings")
}
