package mockserver

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// The two sides of a market see of each other what they must, and no more.
func TestSkillsBetweenOperators(t *testing.T) {
	t.Parallel()
	s, seller, client := newDirect(t)
	buyer, theirs := newStranger(t, s)
	worker, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "worker"})
	require.NoError(t, err)
	params := stack.SkillPublishParams{Name: "shout", Description: "Louder", ExecutionMode: stack.ExecuteSealed,
		ExecutionSteps:     []stack.ExecutionStep{{Type: stack.StepScript, Script: `return {text: $INPUT.text + "!"}`}},
		PricePerInvocation: 30}
	sealed, err := client.Skills.Publish(t.Context(), params)
	require.NoError(t, err)
	params.ExecutionMode = stack.ExecuteSource
	source, err := client.Skills.Publish(t.Context(), params)
	require.NoError(t, err)
	params.ExecutionMode, params.ExecutionSteps, params.AgentID = stack.ExecuteOpen, nil, worker.ID
	open, err := client.Skills.Publish(t.Context(), params)
	require.NoError(t, err)

	seen, err := theirs.Skills.Get(t.Context(), sealed.ID)
	require.NoError(t, err)
	assert.Empty(t, seen.ExecutionSteps)
	seen, err = theirs.Skills.Get(t.Context(), source.ID)
	require.NoError(t, err)
	assert.Len(t, seen.ExecutionSteps, 1)
	seen, err = theirs.Skills.Get(t.Context(), open.ID)
	require.NoError(t, err)
	assert.Empty(t, seen.AgentID)
	for _, refused := range []error{
		failure(theirs.Skills.Update(t.Context(), sealed.ID, stack.SkillUpdateParams{})),
		failure(theirs.Skills.Suspend(t.Context(), sealed.ID)), failure(theirs.Skills.Activate(t.Context(), sealed.ID)),
		failure(theirs.Skills.ListPendingInvocations(t.Context(), open.ID)),
	} {
		require.ErrorIs(t, refused, stack.ErrNotFound)
	}

	buyer.mu.Lock()
	buyer.credit(s.Now(), 100)
	buyer.mu.Unlock()
	input := stack.SkillInvokeParams{Input: map[string]any{"text": "secret"}}
	done, err := theirs.Skills.Invoke(t.Context(), sealed.ID, input)
	require.NoError(t, err)
	assert.JSONEq(t, `{"text":"secret!"}`, string(done.Output))
	asSeller, err := client.Skills.GetInvocation(t.Context(), done.ID)
	require.NoError(t, err)
	assert.Empty(t, asSeller.Input, "sealed")
	assert.Equal(t, "null", string(asSeller.Output), "sealed")

	waiting, err := theirs.Skills.Invoke(t.Context(), open.ID, input)
	require.NoError(t, err)
	for _, refused := range []error{
		failure(theirs.Skills.ClaimInvocation(t.Context(), waiting.ID)),
		failure(theirs.Skills.CompleteInvocation(t.Context(), waiting.ID, map[string]any{})),
		failure(theirs.Skills.FailInvocation(t.Context(), waiting.ID, stack.InvocationError{Code: "X", Message: "x"})),
	} {
		require.ErrorIs(t, refused, stack.ErrNotFound, "only the publisher can")
	}
	pending, err := client.Skills.ListPendingInvocations(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, pending, 1)
	assert.JSONEq(t, `{"text":"secret"}`, string(pending[0].Input), "who does the work reads it")
	_, err = client.Skills.ClaimInvocation(t.Context(), waiting.ID)
	require.NoError(t, err)
	_, err = client.Skills.CompleteInvocation(t.Context(), waiting.ID, map[string]any{"ok": true})
	require.NoError(t, err)
	assert.Equal(t, stack.EarningsCents{Unpaid: 60, Lifetime: 60}, s.market.earnings(seller.id))
	assert.Zero(t, s.market.earnings(buyer.id))
	usage, err := theirs.Usage.Get(t.Context(), stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, 40, usage.WalletCents.Balance)
	mine, err := client.Skills.ListInvocations(t.Context())
	require.NoError(t, err)
	assert.Empty(t, mine)

	_, stranger := newStranger(t, s)
	_, err = stranger.Skills.GetInvocation(t.Context(), done.ID)
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = client.Skills.Suspend(t.Context(), sealed.ID)
	require.NoError(t, err)
	_, err = theirs.Skills.Get(t.Context(), sealed.ID)
	require.ErrorIs(t, err, stack.ErrNotFound)
}

// Each side sees the calls to models that were made with its own key, and of the other nothing.
func TestSkillModelsBetweenOperators(t *testing.T) {
	t.Parallel()
	s, _, client := newDirect(t)
	_, theirs := newStranger(t, s)
	require.NoError(t, s.MapUpstream("api.openai.com", answering(`{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1}}`)))
	worker, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "worker"})
	require.NoError(t, err)
	agent, err := theirs.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot"})
	require.NoError(t, err)
	rows := func(c *stack.Client) []stack.LLMUsage {
		page, failed := c.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{})
		require.NoError(t, failed)
		return page.Items
	}
	for _, c := range []*stack.Client{client, theirs} {
		_, err = c.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "openai", OAuthToken: stack.NewSecret("sk-x"),
			Scopes: []string{"api"}})
		require.NoError(t, err)
	}
	connections, err := theirs.Services.List(t.Context())
	require.NoError(t, err)
	_, err = theirs.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: connections[0].ID,
		Scopes: []string{"api"}})
	require.NoError(t, err)
	for i, mode := range []stack.CredentialMode{stack.CredentialsSeller, stack.CredentialsBuyer} {
		sk, failed := client.Skills.Publish(t.Context(), stack.SkillPublishParams{Name: "ask", Description: "x", AgentID: worker.ID,
			ExecutionMode: stack.ExecuteSealed, CredentialMode: mode,
			ExecutionSteps: []stack.ExecutionStep{{Type: stack.StepLLM, LLMProvider: "openai", LLMModel: "gpt"}}})
		require.NoError(t, failed)
		inv, failed := theirs.Skills.Invoke(t.Context(), sk.ID, stack.SkillInvokeParams{Input: map[string]any{"x": 1}, AgentID: agent.ID})
		require.NoError(t, failed)
		require.Equal(t, stack.InvocationCompleted, inv.Status, inv.Error)
		require.Len(t, rows(client), 1)
		assert.Equal(t, worker.ID, rows(client)[0].AgentID, "its own, and not the buyer's")
		require.Len(t, rows(theirs), i)
	}
	assert.Equal(t, agent.ID, rows(theirs)[0].AgentID)
}

// An execution that breaks ends its invocation like any other that fails: the price goes back.
func TestBrokenExecutionIsSettled(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	op.mu.Lock()
	op.credit(s.Now(), 100)
	op.mu.Unlock()
	sk, err := client.Skills.Publish(t.Context(), stack.SkillPublishParams{Name: "broken", Description: "x", PricePerInvocation: 30,
		ExecutionMode:  stack.ExecuteSealed,
		ExecutionSteps: []stack.ExecutionStep{{Type: stack.StepLLM, LLMProvider: "openai", LLMModel: "x"}}})
	require.NoError(t, err)
	_, err = client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "openai", OAuthToken: stack.NewSecret("sk-x"),
		Scopes: []string{"api"}})
	require.NoError(t, err)
	kept, _ := s.market.skills.get(sk.ID)
	kept.by = nil // it panics when it looks whose keys it may use
	_, err = client.Skills.Invoke(t.Context(), sk.ID, stack.SkillInvokeParams{Input: map[string]any{}})
	require.Error(t, err)
	list, err := client.Skills.ListInvocations(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, stack.InvocationFailed, list[0].Status)
	assert.Equal(t, "INTERNAL", list[0].Error.Code)
	usage, err := client.Usage.Get(t.Context(), stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, 100, usage.WalletCents.Balance)
}

// What is over makes room, and what is not is kept.
func TestInvocationsAreBounded(t *testing.T) {
	t.Parallel()
	var m market
	sk := &skill{Skill: stack.Skill{ID: "skl_1"}}
	add := func(status stack.InvocationStatus) string {
		inv := &invocation{skill: sk, Invocation: stack.Invocation{ID: newID("sinv_"), Status: status}}
		m.begin(inv)
		return inv.ID
	}
	first := add(stack.InvocationPending)
	for range maxInvocations + 10 {
		add(stack.InvocationCompleted)
	}
	assert.Equal(t, maxInvocations, m.invocations.len())
	_, ok := m.invocations.get(first)
	assert.True(t, ok)
}

func BenchmarkInvokeScript(b *testing.B) {
	s := New(Options{})
	client, err := stack.New(stack.WithAPIKey(s.Credentials().APIKey), stack.WithBaseURL("http://mock.test"),
		stack.WithHTTPClient(&http.Client{Transport: direct{s}}))
	require.NoError(b, err)
	sk, err := client.Skills.Publish(b.Context(), stack.SkillPublishParams{Name: "shout", Description: "x",
		ExecutionMode:  stack.ExecuteSealed,
		ExecutionSteps: []stack.ExecutionStep{{Type: stack.StepScript, Script: `return {text: $INPUT.text}`}}})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Skills.Invoke(b.Context(), sk.ID, stack.SkillInvokeParams{Input: map[string]any{"text": "x"}}); err != nil {
			b.Fatal(err)
		}
	}
}
