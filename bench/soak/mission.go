package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/getstack-go/stack"
)

// mission is the n-th Mission of a worker: most are closed, one in twenty is revoked while it runs, and after one in fifty
// people look at what there is.
func (w *world) mission(ctx context.Context, worker, n int) (err error) {
	m, err := w.client.Passports.Mission(ctx, stack.MissionParams{AgentID: w.agents[worker%2], Intent: "Soak the mock",
		Services: []string{"slack", "openai"}, WillDelegate: true, ExpiresIn: 6 * time.Hour, TTL: time.Hour})
	if err != nil {
		return err
	}
	if n%20 == 0 {
		if _, err = w.client.Passports.Revoke(ctx, m.JTI(), "soak"); err == nil {
			err = w.revoked(m)
		}
		var closing error
		m.Close(&closing) // tells that it was revoked
		return err
	}
	defer m.Close(&err)
	token, err := m.Token(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, *stack.Mission, stack.Secret) error{w.calls, w.think, w.handOver, w.ask, w.delegate} {
		if err = step(ctx, m, token); err != nil {
			return err
		}
	}
	if n%10 == 1 { // a script takes longer than everything else
		if _, err = w.client.Skills.Invoke(ctx, w.skill, stack.SkillInvokeParams{Input: map[string]any{"text": "hello"}, PassportID: m.JTI()}); err != nil {
			return err
		}
	}
	if n%50 == 1 {
		return w.look(ctx, m)
	}
	return nil
}

// revoked makes the call that a revoked passport must not be let through with.
func (w *world) revoked(m *stack.Mission) error {
	_, err := m.Proxy(context.WithoutCancel(m.Context()), stack.ProxyRequest{Service: "slack", Method: "POST", URL: slackURL, Body: "late"})
	if !errors.Is(err, stack.ErrPassportRevoked) {
		return fmt.Errorf("a call of a revoked passport: %w", err)
	}
	return nil
}

const slackURL = "https://slack.com/api/chat.postMessage"

func (w *world) calls(ctx context.Context, m *stack.Mission, _ stack.Secret) error {
	for i := range 8 {
		r := stack.ProxyRequest{Service: "slack", Method: "POST", URL: slackURL,
			Body: map[string]string{"channel": "#support", "text": "On it, number " + strconv.Itoa(i)}}
		if i%4 == 0 {
			r.Method, r.Body = "GET", nil
		}
		if _, err := m.Proxy(ctx, r); err != nil {
			return err
		}
	}
	return m.Checkpoint(ctx)
}

func (w *world) think(ctx context.Context, m *stack.Mission, token stack.Secret) error {
	if _, err := m.LLM().OpenAI(ctx, stack.LLMParams{Body: json.RawMessage(
		`{"model":"gpt-x","messages":[{"role":"user","content":"What is to be done?"}]}`)}); err != nil {
		return err
	}
	_, err := w.client.Scan.Scan(ctx, stack.ScanParams{Content: "The export of 1,204 rows finished at 11:05.", PassportToken: token})
	return err
}

func (w *world) handOver(ctx context.Context, m *stack.Mission, token stack.Secret) error {
	from := m.AgentID()
	d, err := w.client.Dropoffs.Create(ctx, stack.DropoffCreateParams{FromAgentID: from, ToAgentID: w.other(from),
		Schema: json.RawMessage(`{"type":"object","required":["rows"]}`), TTL: time.Hour, PassportToken: token})
	if err != nil {
		return err
	}
	if _, err = w.client.Dropoffs.Deposit(ctx, d.ID, stack.DropoffDepositParams{AgentID: from, PassportToken: token,
		Payload: map[string]any{"rows": []int{1, 2, 3}}}); err != nil {
		return err
	}
	_, err = w.client.Dropoffs.Collect(ctx, d.ID, stack.DropoffCollectParams{AgentID: w.other(from)})
	return err
}

func (w *world) other(agent string) string {
	if agent == w.agents[0] {
		return w.agents[1]
	}
	return w.agents[0]
}

func (w *world) ask(ctx context.Context, _ *stack.Mission, token stack.Secret) error {
	intent := stack.IntentOf(stack.ProxyRequest{Service: "slack", Method: "POST", URL: slackURL, Body: map[string]string{"text": "may I"}})
	submitted, err := w.client.Intents.Submit(ctx, stack.IntentSubmitParams{Intent: intent, ExpiresIn: time.Hour, PassportToken: token})
	if err != nil {
		return err
	}
	if err = w.srv.Approve(submitted.ApprovalID); err != nil {
		return err
	}
	_, err = w.client.Credentials.Get(ctx, "slack", stack.CredentialParams{PassportToken: token})
	return err
}

func (w *world) delegate(ctx context.Context, m *stack.Mission, _ stack.Secret) error {
	child, err := m.Delegate(ctx, stack.PassportDelegateParams{ChildAgentID: w.other(m.AgentID())})
	if err != nil {
		return err
	}
	if _, err = w.client.Passports.Verify(ctx, child.Token); err != nil {
		return err
	}
	_, err = w.client.Passports.Checkout(ctx, child.JTI, stack.CheckpointParams{ServicesUsed: []string{}})
	return err
}

// look reads one page of everything.
func (w *world) look(ctx context.Context, m *stack.Mission) error {
	c := w.client
	for _, read := range []func() error{
		func() error { return last(c.Agents.List(ctx)) },
		func() error { return last(c.Services.List(ctx)) },
		func() error { return last(c.Team.List(ctx)) },
		func() error { return last(c.Passports.ListActive(ctx, stack.PassportListParams{})) },
		func() error { return last(c.Passports.Report(ctx, m.JTI())) },
		func() error { return last(c.Missions.List(ctx, stack.MissionListParams{})) },
		func() error { return last(c.Audit.List(ctx, stack.AuditListParams{})) },
		func() error { return last(c.SecurityEvents.List(ctx, stack.SecurityEventListParams{})) },
		func() error { return last(c.Reviews.List(ctx, stack.ReviewListParams{})) },
		func() error { return last(c.Billing.Balance(ctx)) },
		func() error { return last(c.Usage.Get(ctx, stack.UsageParams{})) },
		func() error { return last(c.Identity.ListClaims(ctx)) },
		func() error { return last(c.InboundWebhooks.List(ctx)) },
		func() error { return last(c.DetectorConfig.List(ctx)) },
		func() error { return last(c.PIIConfig.Get(ctx)) },
		func() error { return last(c.Fleets.List(ctx)) },
		func() error { return last(c.Notifications.List(ctx)) },
		func() error { return last(c.DeliveryMethods.List(ctx)) },
		func() error { return last(c.Skills.ListInvocations(ctx)) },
		func() error { return last(c.LLM.ListUsage(ctx, stack.LLMUsageListParams{})) },
		func() error { return last(c.EvidencePacks.List(ctx, stack.EvidencePackListParams{})) },
		func() error { return last(c.Authority.ListBindings(ctx)) },
		func() error { return last(c.PartnerTenants.List(ctx)) },
		func() error { return last(c.PartnerConnect.ListConnections(ctx)) },
	} {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

func last[T any](_ T, err error) error { return err }
