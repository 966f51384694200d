package stack_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

const slackPost = "https://slack.com/api/chat.postMessage"

// gated is a stage whose policy asks for approved intents.
func gated(t *testing.T, mode stack.Accountability) *stage {
	t.Helper()
	s := newStage(t, mode)
	s.SetPolicy(stacktest.Policy{RequireIntentApproval: true})
	return s
}

// submit asks for the approval of a call.
func (s *stage) submit(t *testing.T, p *stack.Passport, r stack.ProxyRequest,
	change ...func(*stack.IntentSubmitParams)) *stack.SubmittedIntent {
	t.Helper()
	params := stack.IntentSubmitParams{Intent: stack.IntentOf(r), PassportToken: p.Token}
	for _, c := range change {
		c(&params)
	}
	submitted, err := s.client.Intents.Submit(t.Context(), params)
	require.NoError(t, err)
	return submitted
}

// approved has a call approved.
func (s *stage) approved(t *testing.T, p *stack.Passport, r stack.ProxyRequest,
	change ...func(*stack.IntentSubmitParams)) string {
	t.Helper()
	id := s.submit(t, p, r, change...).ApprovalID
	require.NoError(t, s.Approve(id))
	return id
}

func (s *stage) simulate(t *testing.T, p *stack.Passport, r stack.ProxyRequest) *stack.IntentSimulation {
	t.Helper()
	keep := false
	sim, err := s.client.Intents.Simulate(t.Context(), stack.IntentSimulateParams{Intent: stack.IntentOf(r), Persist: &keep,
		PassportToken: p.Token, ApprovalID: r.ApprovalID})
	require.NoError(t, err)
	return sim
}

func TestIntentSubmit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		p, ctx := s.issue(t), t.Context()
		claims := s.claims(t, p.Token)
		intent := stack.IntentOf(post("#support"))
		intent.NamedIntent, intent.EstimatedCostCents, intent.Reason = "slack.post", 12, "The customer waits"
		intent.Requires, intent.UserSubject = []string{"slack:chat:write"}, "user-7"
		submitted, err := s.client.Intents.Submit(ctx, stack.IntentSubmitParams{Intent: intent, PassportToken: p.Token})
		require.NoError(t, err)
		assert.Equal(t, stack.IntentPending, submitted.Status)
		assert.Equal(t, s.Now().Add(15*time.Minute), submitted.ExpiresAt)
		assert.True(t, submitted.Simulation.Allowed, submitted.Simulation.DenialReasons)
		assert.Equal(t, submitted.Simulation.ClaimID, submitted.SimulatedClaimID)
		assert.Equal(t, submitted.IntentClaimID, submitted.Simulation.IntentClaimRef)

		row, err := s.client.Intents.Get(ctx, submitted.ApprovalID)
		require.NoError(t, err)
		assert.Equal(t, []string{submitted.ApprovalID, s.OperatorID(), s.agent.ID, p.JTI},
			[]string{row.ID, row.OperatorID, row.AgentID, row.PassportJTI})
		want := intent
		want.Type, want.AgentID, want.Accountability = "intent", s.agent.ID, stack.Enforced
		want.MissionRef, want.SubmittedAt = claims.STK.MissionIDs[0], s.Now()
		assert.Equal(t, want, row.Intent, "what was left out is filled in")
		assert.Equal(t, want.MissionRef, row.MissionID)

		bare := s.submit(t, p, post("#support"), func(p *stack.IntentSubmitParams) { p.SkipSimulation = true })
		assert.Nil(t, bare.Simulation)
		assert.Empty(t, bare.SimulatedClaimID)
		assert.NotEqual(t, submitted.IntentClaimID, bare.IntentClaimID)

		page, err := s.client.Intents.ListPending(ctx, stack.IntentListParams{})
		require.NoError(t, err)
		require.Len(t, page.Items, 2)
		assert.Equal(t, []any{2, 1, 20, row.ID, bare.ApprovalID}, []any{page.Total, page.Page, page.Limit, page.Items[0].ID,
			page.Items[1].ID})

		decided, err := s.client.Intents.Approve(ctx, row.ID, stack.IntentApproveParams{Notes: "fine"})
		require.NoError(t, err)
		assert.Equal(t, []any{stack.IntentApproved, "fine", s.OperatorID(), s.Now()},
			[]any{decided.Status, decided.Notes, decided.DecidedBy, decided.DecidedAt})
		for _, action := range []string{"intent.submit", "intent.simulate", "intent.approve"} {
			assert.Positive(t, s.countRows(action), action)
		}

		time.Sleep(15 * time.Minute)
		late, err := s.client.Intents.Get(ctx, bare.ApprovalID)
		require.NoError(t, err)
		assert.Equal(t, stack.IntentExpired, late.Status)
		assert.Equal(t, 1, s.countRows("intent.expire"), "what was decided stays what it is")
		_, err = s.client.Intents.Approve(ctx, bare.ApprovalID, stack.IntentApproveParams{})
		requireRefused(t, err, 409, "APPROVAL_CLOSED")
		require.ErrorIs(t, err, stack.ErrApprovalClosed)
		s.RequireAuditIntact(t)
	})
}

func TestIntentReject(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	ctx, intents := t.Context(), s.client.Intents
	p := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.WillDelegate = true })
	child, err := s.delegate(t, p)
	require.NoError(t, err)
	id := s.submit(t, p, post("#support")).ApprovalID
	rejected, err := intents.Reject(ctx, id, stack.IntentRejectParams{Notes: "not today"})
	require.NoError(t, err)
	assert.Equal(t, []any{stack.IntentRejected, "not today", false, p.JTI, 1, []string{child.JTI}},
		[]any{rejected.Status, rejected.Notes, rejected.AgentSuspended, rejected.Revocation.JTI,
			rejected.Revocation.RevokedCount, rejected.Revocation.Cascaded})
	s.RequireRevoked(t, p.JTI)
	s.RequireRevoked(t, child.JTI)
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#support"), p))
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	_, err = intents.Reject(ctx, id, stack.IntentRejectParams{})
	requireRefused(t, err, 409, "APPROVAL_CLOSED")
	require.Error(t, s.Approve(id))

	second := s.issue(t)
	id = s.submit(t, second, post("#support")).ApprovalID
	rejected, err = intents.Reject(ctx, id, stack.IntentRejectParams{BlockFuture: true})
	require.NoError(t, err)
	assert.True(t, rejected.AgentSuspended)
	agent, err := s.client.Agents.Get(ctx, s.agent.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.AgentSuspended, agent.Status)
	_, err = s.client.Passports.Issue(ctx, s.issueParams(s.mission(t, time.Hour)))
	require.ErrorIs(t, err, stack.ErrForbidden)
}

func TestIntentRefusals(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	tests := map[string]struct {
		change func(*stack.IntentClaim)
		field  string
	}{
		"type":           {func(c *stack.IntentClaim) { c.Type = "wish" }, "body.intent.type"},
		"intent type":    {func(c *stack.IntentClaim) { c.IntentType = "walk" }, "body.intent.intent_type"},
		"no action":      {func(c *stack.IntentClaim) { c.Action = "" }, "body.intent.action"},
		"unknown action": {func(c *stack.IntentClaim) { c.Action = "TRACE" }, "body.intent.action"},
		"no service":     {func(c *stack.IntentClaim) { c.Parameters = nil }, "body.intent.parameters.service"},
		"agent":          {func(c *stack.IntentClaim) { c.AgentID = "agt_other" }, "body.intent.agent_id"},
		"mode":           {func(c *stack.IntentClaim) { c.Accountability = stack.Standard }, "body.intent.accountability"},
		"Mission":        {func(c *stack.IntentClaim) { c.MissionRef = "ms_other" }, "body.intent.mission_ref"},
		"cost":           {func(c *stack.IntentClaim) { c.EstimatedCostCents = -1 }, "body.intent.estimated_cost"},
		"requires":       {func(c *stack.IntentClaim) { c.Requires = []string{""} }, "body.intent.requires[0]"},
		"a model's URL": {func(c *stack.IntentClaim) { c.IntentType, c.Target = stack.IntentLLM, "gpt" },
			"body.intent.target"},
		"a model's method": {func(c *stack.IntentClaim) { c.IntentType, c.Action = stack.IntentLLM, "GET" },
			"body.intent.action"},
		"a model's provider": {func(c *stack.IntentClaim) { c.IntentType = stack.IntentLLM },
			"body.intent.parameters.service"},
		"a skill's action": {func(c *stack.IntentClaim) { c.IntentType = stack.IntentSkill }, "body.intent.action"},
		"a skill's service": {func(c *stack.IntentClaim) { c.IntentType, c.Action = stack.IntentSkill, "" },
			"body.intent.parameters.service"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			intent := stack.IntentOf(post("#support"))
			tc.change(&intent)
			_, err := s.client.Intents.Simulate(t.Context(), stack.IntentSimulateParams{Intent: intent, PassportToken: p.Token})
			assert.Equal(t, tc.field, requireRefused(t, err, 400, "INVALID_REQUEST").Details["field"])
			_, err = s.client.Intents.Submit(t.Context(), stack.IntentSubmitParams{Intent: intent, PassportToken: p.Token})
			assert.Equal(t, tc.field, requireRefused(t, err, 400, "INVALID_REQUEST").Details["field"])
		})
	}

	ctx, intents, call := t.Context(), s.client.Intents, stack.IntentOf(post("#support"))
	for name, tc := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"rubbish passport": {failure(intents.Submit(ctx, stack.IntentSubmitParams{Intent: call,
			PassportToken: stack.NewSecret("x")})), 401, "UNAUTHORIZED"},
		"unknown claim": {failure(intents.Simulate(ctx, stack.IntentSimulateParams{Intent: call, PassportToken: p.Token,
			IntentClaimRef: "pc_none"})), 404, "NOT_FOUND"},
		"unknown approval": {failure(intents.Get(ctx, "apr_none")), 404, "NOT_FOUND"},
		"unknown to wait":  {failure(intents.Wait(ctx, "apr_none", stack.IntentWaitParams{})), 404, "NOT_FOUND"},
		"approve unknown":  {failure(intents.Approve(ctx, "apr_none", stack.IntentApproveParams{})), 404, "NOT_FOUND"},
		"reject unknown":   {failure(intents.Reject(ctx, "apr_none", stack.IntentRejectParams{})), 404, "NOT_FOUND"},
		"page zero":        {failure(intents.ListPending(ctx, stack.IntentListParams{Page: -1})), 400, "INVALID_REQUEST"},
		"a large page":     {failure(intents.ListPending(ctx, stack.IntentListParams{Limit: 101})), 400, "INVALID_REQUEST"},
		"no URL": {failure(intents.Submit(ctx, stack.IntentSubmitParams{PassportToken: p.Token, Intent: stack.IntentOf(
			stack.ProxyRequest{Service: "slack", URL: "slack.com"})})), 400, "INVALID_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireRefused(t, tc.err, tc.status, tc.code)
		})
	}
	id := s.submit(t, p, post("#support")).ApprovalID
	_, err := intents.Approve(ctx, id, stack.IntentApproveParams{Notes: string(make([]byte, 1001))})
	requireRefused(t, err, 400, "INVALID_REQUEST")

	_, err = intents.Simulate(ctx, stack.IntentSimulateParams{Intent: call})
	requireParam(t, err, "passport_token")
	_, err = intents.Submit(ctx, stack.IntentSubmitParams{PassportToken: p.Token})
	requireParam(t, err, "intent.target")
	for _, d := range []time.Duration{time.Second, 25 * time.Hour, 90500 * time.Millisecond} {
		_, err = intents.Submit(ctx, stack.IntentSubmitParams{Intent: call, PassportToken: p.Token, ExpiresIn: d})
		requireParam(t, err, "expires_in_seconds")
	}
	_, err = intents.Wait(ctx, id, stack.IntentWaitParams{Timeout: -1})
	requireParam(t, err, "timeout")
	_, err = intents.SubmitAndWait(ctx, stack.IntentSubmitParams{}, stack.IntentWaitParams{PollInterval: 1})
	requireParam(t, err, "poll_interval")
}

// Agents do not decide, members do what their role lets them.
func TestIntentApprovers(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	ctx, p := t.Context(), s.issue(t)
	id := s.submit(t, p, post("#support")).ApprovalID
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://stack.mock/v1/intents/"+id+"/approve", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.APIKey())
	req.Header.Set("X-Passport-Token", p.Token.Reveal())
	resp, err := s.Transport().RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusForbidden, resp.StatusCode)

	as := func(role stack.TeamRole) *stack.Client {
		invited, inviteErr := s.client.Team.Invite(ctx, stack.TeamInviteParams{Email: string(role) + "@example.com",
			Name: "M", Role: role})
		require.NoError(t, inviteErr)
		key, acceptErr := s.AcceptInvitation(invited.ID)
		require.NoError(t, acceptErr)
		return s.Client(stack.WithAPIKey(key.Reveal()))
	}
	readonly, standard, admin := as(stack.RoleReadonly), as(stack.RoleStandard), as(stack.RoleAdmin)
	for _, client := range []*stack.Client{readonly, standard} {
		_, err = client.Intents.Approve(ctx, id, stack.IntentApproveParams{})
		requireRefused(t, err, 403, "FORBIDDEN")
	}
	_, err = readonly.Intents.Reject(ctx, id, stack.IntentRejectParams{})
	requireRefused(t, err, 403, "FORBIDDEN")
	require.NoError(t, failure(readonly.Intents.ListPending(ctx, stack.IntentListParams{})))
	approved, err := admin.Intents.Approve(ctx, id, stack.IntentApproveParams{})
	require.NoError(t, err)
	assert.Regexp(t, "^mem_", approved.DecidedBy)
	_, err = standard.Intents.Reject(ctx, s.submit(t, p, post("#support")).ApprovalID, stack.IntentRejectParams{})
	require.NoError(t, err, "whoever may revoke a passport may reject")
}

func TestAllPendingIntents(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	var want, got []string
	for range 5 {
		want = append(want, s.submit(t, p, post("#support")).ApprovalID)
	}
	for a, err := range s.client.Intents.AllPending(t.Context(), stack.IntentListParams{Limit: 2}) {
		require.NoError(t, err)
		got = append(got, a.ID)
		require.NoError(t, s.Approve(a.ID))
	}
	assert.Equal(t, want, got)
	for _, err := range s.client.Intents.AllPending(t.Context(), stack.IntentListParams{Limit: 1000}) {
		require.ErrorIs(t, err, stack.ErrInvalidRequest)
	}
}

func TestIntentWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		p, ctx, intents := s.issue(t), t.Context(), s.client.Intents
		params := stack.IntentSubmitParams{Intent: stack.IntentOf(post("#support")), PassportToken: p.Token,
			ExpiresIn: 2 * time.Minute}

		// A person decides after 5 s: nothing is asked more often than every second.
		go func() {
			time.Sleep(5 * time.Second)
			for a, err := range intents.AllPending(ctx, stack.IntentListParams{}) {
				assert.NoError(t, err)
				assert.NoError(t, s.Approve(a.ID))
			}
		}()
		began, requests := time.Now(), s.Requests()
		outcome, err := intents.SubmitAndWait(ctx, params, stack.IntentWaitParams{})
		require.NoError(t, err)
		assert.True(t, outcome.Approved())
		assert.False(t, outcome.TimedOut)
		assert.Equal(t, outcome.Initial.ApprovalID, outcome.Final.ID)
		assert.LessOrEqual(t, time.Since(began), 6*time.Second)
		assert.LessOrEqual(t, s.Requests()-requests, 9)

		began = time.Now()
		outcome, err = intents.SubmitAndWait(ctx, params, stack.IntentWaitParams{Timeout: 10500 * time.Millisecond,
			PollInterval: 3 * time.Second})
		require.NoError(t, err, "a timeout is an outcome")
		assert.True(t, outcome.TimedOut)
		assert.False(t, outcome.Approved())
		assert.Equal(t, stack.IntentPending, outcome.Final.Status)
		assert.Equal(t, 10500*time.Millisecond, time.Since(began))

		outcome, err = intents.Wait(ctx, outcome.Final.ID, stack.IntentWaitParams{Timeout: time.Hour})
		require.NoError(t, err)
		assert.Equal(t, stack.IntentExpired, outcome.Final.Status)
		assert.Nil(t, outcome.Initial)

		short, cancel := context.WithTimeout(ctx, 2500*time.Millisecond)
		defer cancel()
		began = time.Now()
		outcome, err = intents.SubmitAndWait(short, params, stack.IntentWaitParams{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotNil(t, outcome, "the approval is not lost")
		assert.NotEmpty(t, outcome.Initial.ApprovalID)
		assert.Equal(t, 2500*time.Millisecond, time.Since(began))
	})
}
