package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/getstack-go/stack"
)

// seed is what a -seed file holds:
//
//	{
//	  "services": [
//	    {"service": "slack", "credential": "xoxb-test", "scopes": ["chat:write"]},
//	    {"service": "crm", "credential": {"username": "u", "password": "p"}}
//	  ],
//	  "agents": [
//	    {"name": "triage", "accountability_mode": "enforced", "services": ["slack"]}
//	  ]
//	}
//
// A service is one of the catalogue, or else becomes a custom one. An agent has the fields of its registration, and the
// services that it is granted with all their scopes. The ids that result are printed to standard error.
type seed struct {
	Services []seedService `json:"services"`
	Agents   []seedAgent   `json:"agents"`
}

type seedService struct {
	Service    string         `json:"service"`
	Credential seedCredential `json:"credential"`
	Scopes     []string       `json:"scopes"`
}

// seedCredential is a text, or named texts.
type seedCredential struct{ stack.CustomCredential }

func (c *seedCredential) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &c.Token); err == nil {
		return nil
	}
	if err := json.Unmarshal(data, &c.Fields); err != nil {
		return errors.New("credential must be a string or an object of strings")
	}
	return nil
}

type seedAgent struct {
	stack.AgentRegisterParams
	Services []string `json:"services"`
}

// loadSeed fills the server through its API, so that a seed obeys the same rules.
func loadSeed(ctx context.Context, server greeting, name string, diagnostics io.Writer) error {
	client, err := stack.New(stack.WithBaseURL(server.URL), stack.WithAPIKey(server.APIKey))
	if err != nil {
		return err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var s seed
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err = dec.Decode(&s); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("more than one JSON value")
	}
	catalogue := map[string]stack.Service{}
	available, err := client.Services.ListAvailable(ctx)
	if err != nil {
		return err
	}
	for _, entry := range available {
		catalogue[entry.Provider] = entry
	}
	connections := map[string]*stack.Connection{}
	for i, service := range s.Services {
		connection, err := connect(ctx, client, catalogue, service)
		if err != nil {
			return fmt.Errorf("services[%d] (%s): %w", i, service.Service, err)
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

func connect(ctx context.Context, client *stack.Client, catalogue map[string]stack.Service, s seedService) (*stack.Connection, error) {
	entry, ok := catalogue[s.Service]
	if !ok {
		return client.Services.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: s.Service, Credential: s.Credential.CustomCredential,
			Scopes: s.Scopes})
	}
	if s.Credential.Fields != nil {
		return nil, errors.New("a service of the catalogue takes its credential as a string")
	}
	if len(s.Scopes) == 0 {
		s.Scopes = entry.Scopes
	}
	return client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: entry.ID, OAuthToken: s.Credential.Token, Scopes: s.Scopes})
}
