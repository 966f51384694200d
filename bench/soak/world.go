package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// world is a mock with services behind it, and what Missions need in it.
type world struct {
	srv      *stacktest.Server
	client   *stack.Client
	upstream *httptest.Server
	hook     atomic.Int64 // notifications that came in
	agents   [2]string
	skill    string
}

func (w *world) close() {
	w.srv.Close()
	w.upstream.Close()
}

// newWorld starts everything. The upstreams are on a port: what goes through stacktest's own handlers is kept for tests to see.
func newWorld(ctx context.Context) (*world, error) {
	srv, err := stacktest.Start()
	if err != nil {
		return nil, err
	}
	w := &world{srv: srv, client: srv.Client()}
	w.upstream = httptest.NewServer(http.HandlerFunc(w.answer))
	if err = w.furnish(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// answer is what the services say: a model, a webhook's receiver, or Slack.
func (w *world) answer(out http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	out.Header().Set("Content-Type", "application/json")
	switch r.Host {
	case "hooks.example.com":
		w.hook.Add(1)
	case "api.openai.com":
		_, _ = io.WriteString(out, `{"id":"c1","model":"gpt-x","choices":[{"message":{"role":"assistant","content":"Hello there"},`+
			`"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":7}}`)
	default:
		_, _ = io.WriteString(out, `{"ok":true,"ts":"1700000000.000100"}`)
	}
}

func (w *world) furnish(ctx context.Context) error {
	for _, host := range []string{"slack.com", "api.openai.com", "hooks.example.com"} {
		if err := w.srv.UpstreamURL(host, w.upstream.URL); err != nil {
			return err
		}
	}
	for i := range w.agents {
		a, err := w.client.Agents.Register(ctx, stack.AgentRegisterParams{Name: fmt.Sprintf("soak-%d", i), AccountabilityMode: stack.Logged,
			CredentialAccess: stack.CredentialDirect})
		if err != nil {
			return err
		}
		w.agents[i] = a.ID
	}
	if err := w.connect(ctx, "slack", "openai"); err != nil {
		return err
	}
	object := json.RawMessage(`{"type":"object"}`)
	sk, err := w.client.Skills.Publish(ctx, stack.SkillPublishParams{Name: "shout", Description: "Says a text louder",
		ExecutionMode: stack.ExecuteSealed, InputSchema: object, OutputSchema: object,
		ExecutionSteps: []stack.ExecutionStep{{Type: stack.StepScript, Script: `return {text: $INPUT.text.toUpperCase()}`}}})
	if err != nil {
		return err
	}
	w.skill = sk.ID
	return w.subscribe(ctx)
}

// connect connects services and grants them to all agents.
func (w *world) connect(ctx context.Context, providers ...string) error {
	available, err := w.client.Services.ListAvailable(ctx)
	if err != nil {
		return err
	}
	for _, provider := range providers {
		for _, entry := range available {
			if entry.Provider != provider {
				continue
			}
			c, err := w.client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: entry.ID,
				OAuthToken: stack.NewSecret("soak-credential"), Scopes: entry.Scopes})
			if err != nil {
				return err
			}
			for _, agent := range w.agents {
				if _, err = w.client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent, ServiceConnectionID: c.ID,
					Scopes: c.Scopes}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// subscribe has a webhook told of everything.
func (w *world) subscribe(ctx context.Context) error {
	d, err := w.client.DeliveryMethods.Add(ctx, stack.DestinationAddParams{ChannelType: stack.ChannelWebhook,
		Destination: "https://hooks.example.com/in"})
	if err != nil {
		return err
	}
	if _, err = w.client.DeliveryMethods.SendVerificationCode(ctx, d.ID, stack.DestinationParams{}); err != nil {
		return err
	}
	if _, err = w.client.DeliveryMethods.Verify(ctx, d.ID, w.srv.VerificationCode(d.ID), stack.DestinationParams{}); err != nil {
		return err
	}
	_, err = w.client.Notifications.Create(ctx, stack.ChannelCreateParams{ChannelType: stack.ChannelWebhook, Destination: d.ID,
		MinSeverity: stack.SeverityInfo})
	return err
}

// verify says whether the audit log is whole and the webhook was told of what happened.
func (w *world) verify(ctx context.Context) error {
	v, err := w.client.Audit.VerifyChain(ctx, stack.AuditVerifyParams{})
	if err != nil {
		return err
	}
	if !v.Valid || w.hook.Load() == 0 {
		return fmt.Errorf("the audit chain is valid: %t; notifications that arrived: %d", v.Valid, w.hook.Load())
	}
	return nil
}
