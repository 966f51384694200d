package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/llms/openai"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// environment is what the job runs in: the same for the mock and for the real thing.
type environment struct {
	client  *stack.Client
	agentID string
	model   llms.Model
	slack   *fakeSlack // nil when Slack is real
	closers []func()
}

func (e *environment) close() {
	for i := len(e.closers) - 1; i >= 0; i-- {
		e.closers[i]()
	}
}

func prepare(ctx context.Context, live bool, logger *slog.Logger) (*environment, error) {
	if live {
		return prepareLive(ctx, logger)
	}
	return prepareMock(ctx, logger)
}

// prepareMock starts everything in this process.
func prepareMock(ctx context.Context, logger *slog.Logger) (env *environment, err error) {
	env = &environment{slack: &fakeSlack{}}
	defer func() {
		if err != nil {
			env.close()
		}
	}()
	server, err := stacktest.Start(stacktest.WithLogger(logger))
	if err != nil {
		return nil, err
	}
	env.closers = append(env.closers, server.Close)
	server.Upstream("slack.com", env.slack)
	env.client = server.Client(stack.WithLogger(logger))

	url, stop, err := serve(http.HandlerFunc(scriptedModel))
	if err != nil {
		return nil, err
	}
	env.closers = append(env.closers, stop)
	env.model, err = openai.New(openai.WithBaseURL(url+"/v1"), openai.WithToken("scripted"), openai.WithModel("scripted"))
	if err != nil {
		return nil, err
	}

	connection, err := env.client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: stack.NewSecret(slackToken),
		Scopes: []string{"chat:write", "channels:read"}})
	if err != nil {
		return nil, err
	}
	return env, env.register(ctx, *connection)
}

// prepareLive uses the hosted service, where Slack must be connected already, and a real model.
func prepareLive(ctx context.Context, logger *slog.Logger) (*environment, error) {
	if os.Getenv("STACK_API_KEY") == "" || os.Getenv("OPENAI_API_KEY") == "" {
		return nil, errors.New("-live needs STACK_API_KEY and OPENAI_API_KEY")
	}
	client, err := stack.New(stack.WithLogger(logger))
	if err != nil {
		return nil, err
	}
	name := os.Getenv("OPENAI_MODEL")
	if name == "" {
		name = "gpt-4o-mini"
	}
	model, err := openai.New(openai.WithModel(name))
	if err != nil {
		return nil, err
	}
	env := &environment{client: client, model: model}
	connections, err := client.Services.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, connection := range connections {
		if connection.Provider == "slack" {
			return env, env.register(ctx, connection)
		}
	}
	return nil, errors.New("no Slack connection: connect Slack in the dashboard first")
}

// register makes the agent and grants it the connection.
func (e *environment) register(ctx context.Context, connection stack.Connection) error {
	agent, err := e.client.Agents.Register(ctx, stack.AgentRegisterParams{Name: fmt.Sprintf("triage-%d", time.Now().Unix()),
		Description: "Acknowledges support tickets in Slack", AccountabilityMode: stack.Enforced})
	if err != nil {
		return err
	}
	e.agentID = agent.ID
	_, err = e.client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: connection.ID,
		Scopes: connection.Scopes})
	return err
}

// serve starts an HTTP server on a free loopback port.
func serve(handler http.Handler) (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with ErrServerClosed
	}()
	return "http://" + listener.Addr().String(), func() { _ = server.Close(); <-done }, nil
}
