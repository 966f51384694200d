package stack_test

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// The gate lets through what was approved, once, and tells of everything else what is wrong.
func TestIntentGate(t *testing.T) {
	t.Parallel()
	s := gated(t, stack.Enforced)
	p, other := s.issue(t), s.issue(t)
	call := post("#support")
	tests := map[string]struct {
		approvalID func(t *testing.T) string
		change     func(*stack.ProxyRequest)
		says       string
	}{
		"none":    {func(*testing.T) string { return "" }, nil, "none was sent"},
		"unknown": {func(*testing.T) string { return "apr_none" }, nil, "unknown"},
		"pending": {func(t *testing.T) string { return s.submit(t, p, call).ApprovalID }, nil, "pending"},
		"another Mission's": {func(t *testing.T) string { return s.approved(t, other, call) }, nil,
			"another agent or Mission"},
		"method":     {nil, func(r *stack.ProxyRequest) { r.Method = "PUT" }, "is for POST"},
		"path":       {nil, func(r *stack.ProxyRequest) { r.URL = "https://slack.com/api/chat.delete" }, "is for POST"},
		"host":       {nil, func(r *stack.ProxyRequest) { r.URL = "https://evil.example/api/chat.postMessage" }, "is for POST"},
		"scheme":     {nil, func(r *stack.ProxyRequest) { r.URL = "http://slack.com/api/chat.postMessage" }, "is for POST"},
		"query":      {nil, func(r *stack.ProxyRequest) { r.URL = slackPost }, "is for POST"},
		"more query": {nil, func(r *stack.ProxyRequest) { r.Query = map[string]string{"also": "this"} }, "is for POST"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := withPassport(call, p)
			if tc.approvalID != nil {
				r.ApprovalID = tc.approvalID(t)
			} else {
				r.ApprovalID = s.approved(t, p, call)
			}
			if tc.change != nil {
				tc.change(&r)
			}
			_, err := s.client.Proxy.Request(t.Context(), r)
			refused := requireRefused(t, err, 403, "INTENT_APPROVAL_REQUIRED")
			require.ErrorIs(t, err, stack.ErrIntentApprovalRequired)
			assert.Contains(t, refused.Message, tc.says)
			assert.Equal(t, "intent_approval", refused.Details["check"])
			assert.Contains(t, refused.Details["allowed"], "X-Intent-Approval-Id")
			assert.NotContains(t, refused.Message, "in-the-query")
			if tc.approvalID == nil {
				row, err := s.client.Intents.Get(t.Context(), r.ApprovalID)
				require.NoError(t, err)
				assert.Zero(t, row.UsedAt, "a call that does not fit uses nothing up")
			}
		})
	}

	t.Run("reading", func(t *testing.T) {
		t.Parallel()
		_, err := s.client.Proxy.Get(t.Context(), stack.ProxyRequest{Service: "slack", URL: slackPost, PassportToken: p.Token,
			ApprovalID: "apr_none"})
		require.NoError(t, err)
	})
	t.Run("the query left open", func(t *testing.T) {
		t.Parallel()
		open := call
		open.URL = slackPost
		r := withPassport(call, p)
		r.ApprovalID = s.approved(t, p, open)
		_, err := s.client.Proxy.Request(t.Context(), r)
		require.NoError(t, err, "an intent without a query holds for every query")
	})
	t.Run("the query in another order", func(t *testing.T) {
		t.Parallel()
		approved, r := call, withPassport(call, p)
		approved.URL, approved.Query = slackPost+"?a=1", map[string]string{"b": "2"}
		r.ApprovalID, r.URL, r.Query = s.approved(t, p, approved), "https://SLACK.com:443/api/chat.postMessage?b=2&a=1", nil
		_, err := s.client.Proxy.Request(t.Context(), r)
		require.NoError(t, err)
	})
	t.Run("a Mission", func(t *testing.T) {
		t.Parallel()
		m := s.open(t)
		token, err := m.Token(t.Context())
		require.NoError(t, err)
		r := call
		r.ApprovalID = s.approved(t, &stack.Passport{Token: token}, call)
		_, err = m.Proxy(t.Context(), r)
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, call.URL, http.NoBody)
		require.NoError(t, err)
		req.Header.Set("X-Intent-Approval-Id", s.approved(t, &stack.Passport{Token: token}, call))
		resp, err := m.HTTPClient("slack").Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		m.Close(&err)
		require.NoError(t, err)
	})
	t.Run("the policy is off", func(t *testing.T) {
		t.Parallel()
		open := newStage(t, stack.Enforced)
		p := open.issue(t)
		r := withPassport(call, p)
		r.ApprovalID = "apr_none"
		_, err := open.client.Proxy.Request(t.Context(), r)
		require.NoError(t, err, "there is no gate to look at it")
	})
}

func TestIntentApprovalIsUsedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := gated(t, stack.Logged)
		p, ctx := s.issue(t), t.Context()
		r := withPassport(post("#support"), p)
		r.ApprovalID, r.OperationID = s.approved(t, p, r), stack.NewOperationID()
		first, err := s.client.Proxy.Request(ctx, r)
		require.NoError(t, err)
		row, err := s.client.Intents.Get(ctx, r.ApprovalID)
		require.NoError(t, err)
		assert.Equal(t, []any{stack.IntentApproved, s.Now(), r.OperationID}, []any{row.Status, row.UsedAt, row.OperationID})
		require.Error(t, s.Approve(r.ApprovalID), "it is closed")

		time.Sleep(14*time.Minute + 59*time.Second)
		again, err := s.client.Proxy.Request(ctx, r)
		require.NoError(t, err, "the unchanged repetition has its approval")
		assert.Equal(t, first, again)
		changed := r
		changed.Body = map[string]any{"channel": "#other"}
		_, err = s.client.Proxy.Request(ctx, changed)
		requireRefused(t, err, 409, "OPERATION_ID_REUSED")
		r.OperationID = ""
		_, err = s.client.Proxy.Request(ctx, r)
		assert.Equal(t, "used", requireRefused(t, err, 403, "INTENT_APPROVAL_REQUIRED").Details["status"])
		assert.Len(t, s.Forwarded("slack.com"), 1)
		assert.Equal(t, 1, s.countRows("intent.use"))

		p = s.issue(t)
		r = withPassport(post("#support"), p)
		r.ApprovalID = s.approved(t, p, r, func(p *stack.IntentSubmitParams) { p.ExpiresIn = time.Minute })
		time.Sleep(time.Minute)
		_, err = s.client.Proxy.Request(ctx, r)
		assert.Equal(t, "expired", requireRefused(t, err, 403, "INTENT_APPROVAL_REQUIRED").Details["status"])
	})
}

// A call that was refused later, or that never left, leaves its approval as it was.
func TestIntentApprovalOfACallNotSent(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.SetPolicy(stacktest.Policy{RequireIntentApproval: true})
	s := &stage{srv, srv.Client(stack.WithMaxRetries(0)),
		srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})}
	p, ctx := s.issue(t), t.Context()
	elsewhere := withPassport(post("#support"), p)
	elsewhere.URL = "https://elsewhere.example/"
	elsewhere.ApprovalID = s.approved(t, p, elsewhere)
	_, err := s.client.Proxy.Request(ctx, elsewhere)
	requireRefused(t, err, 403, "PROXY_HOST_NOT_ALLOWED")

	r := withPassport(post("#support"), p)
	r.ApprovalID = s.approved(t, p, r)
	_, err = s.client.Proxy.Request(ctx, r)
	requireRefused(t, err, 502, "UPSTREAM_UNREACHABLE") // nothing is mapped: it was not sent
	for _, id := range []string{elsewhere.ApprovalID, r.ApprovalID} {
		row, getErr := s.client.Intents.Get(ctx, id)
		require.NoError(t, getErr)
		assert.Zero(t, row.UsedAt)
	}
	assert.Equal(t, 1, s.countRows("intent.release"))
	s.Upstream("slack.com", http.NotFoundHandler())
	resp, err := s.client.Proxy.Request(ctx, r)
	require.NoError(t, err)
	assert.Equal(t, 404, resp.Status)
	_, err = s.client.Proxy.Request(ctx, r)
	requireRefused(t, err, 403, "INTENT_APPROVAL_REQUIRED") // a service's refusal is an answer
}

// Of many calls at once, one uses the approval.
func TestIntentApprovalConcurrently(t *testing.T) {
	t.Parallel()
	s := gated(t, stack.Logged)
	p := s.issue(t)
	r := withPassport(post("#support"), p)
	r.ApprovalID = s.approved(t, p, r)
	var wg sync.WaitGroup
	errs := make([]error, 30)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.client.Proxy.Request(t.Context(), r) })
	}
	wg.Wait()
	passed := 0
	for _, err := range errs {
		if err == nil {
			passed++
			continue
		}
		requireRefused(t, err, 403, "INTENT_APPROVAL_REQUIRED")
	}
	assert.Equal(t, 1, passed)
	assert.Len(t, s.Forwarded("slack.com"), 1)
}
