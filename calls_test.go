package stack_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// Every call that changes something is in the audit log when its answer is there, and the chain holds throughout.
func TestEveryChangeIsAudited(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	c, ctx := s.client, t.Context()
	child := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged})
	slack := s.agent.Connections["slack"]
	open := func() string { return s.mission(t, time.Hour) }
	blocked := registerLogged(t, c, "blocky")
	warning := stack.EscalateBlock
	_, err := c.Agents.Update(ctx, blocked.ID, stack.AgentUpdateParams{OnWarning: &warning})
	require.NoError(t, err)
	_, err = c.Passports.Checkpoint(ctx, startMission(t, c, blocked).Passport.JTI,
		stack.CheckpointParams{ServicesUsed: []string{"github"}})
	require.NoError(t, err)
	live, done := s.issue(t), s.issue(t)
	var waiting *stack.Passport
	var intent *stack.SubmittedIntent
	session := s.claims(t, live.Token).STK.SessionID
	mission, ended, killed, renewable := open(), open(), open(), open()
	_, err = c.Passports.Issue(ctx, s.issueParams(renewable))
	require.NoError(t, err)
	flagged := checkOut(t, c, registerLogged(t, c, "flagged"), flaggedReport)
	event := s.SecurityEvents()[0].ID
	var custom *stack.Connection

	calls := []struct {
		name, action string // the action of one of the rows that the call writes
		call         func() error
	}{
		{"agents.register", "agent.register", func() error {
			return failure(c.Agents.Register(ctx, stack.AgentRegisterParams{Name: "new-one"}))
		}},
		{"agents.update", "agent.update", func() error {
			return failure(c.Agents.Update(ctx, child.ID, stack.AgentUpdateParams{}))
		}},
		{"agents.suspend", "agent.update", func() error { return failure(c.Agents.Suspend(ctx, child.ID)) }},
		{"agents.activate", "agent.update", func() error { return failure(c.Agents.Activate(ctx, child.ID)) }},
		{"agents.unblock", "agent.unblock", func() error {
			approval, _ := approvalNeeded(t, failure(c.Agents.Unblock(ctx, blocked.ID, stack.AgentUnblockParams{})))
			require.NoError(t, s.Approve(approval))
			return failure(c.Agents.Unblock(ctx, blocked.ID, stack.AgentUnblockParams{GovernanceApprovalID: approval}))
		}},
		{"missions.open", "mission.open", func() error {
			return failure(c.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x"}))
		}},
		{"missions.start", "passport.issue", func() error {
			return failure(c.Missions.Start(ctx, stack.MissionStartParams{AgentID: s.agent.ID,
				Mission:  stack.MissionOpenParams{IntentSummary: "x"},
				Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}}}}))
		}},
		{"missions.renew", "passport.issue", func() error { return failure(c.Missions.Renew(ctx, renewable)) }},
		{"missions.complete", "mission.complete", func() error {
			return failure(c.Missions.Complete(ctx, ended, stack.MissionCompleteParams{}))
		}},
		{"missions.revoke", "mission.revoke", func() error {
			return failure(c.Missions.Revoke(ctx, killed, stack.MissionRevokeParams{Reason: stack.ReasonAdversarial}))
		}},
		{"passports.issue", "passport.issue", func() error { return failure(c.Passports.Issue(ctx, s.issueParams(mission))) }},
		{"passports.refresh", "passport.refresh", func() error {
			return failure(c.Passports.Refresh(ctx, stack.PassportRefreshParams{Token: live.Token}))
		}},
		{"passports.delegate", "passport.delegate", func() error {
			return failure(c.Passports.Delegate(ctx, stack.PassportDelegateParams{ParentToken: live.Token,
				ChildAgentID: child.ID}))
		}},
		{"proxy.request", "credential.proxy", func() error {
			return failure(c.Proxy.Post(ctx, withPassport(post("#support"), live)))
		}},
		{"passports.checkpoint", "passport.checkpoint", func() error {
			return failure(c.Passports.Checkpoint(ctx, live.JTI, stack.CheckpointParams{}))
		}},
		{"passports.checkout", "passport.checkout", func() error {
			return failure(c.Passports.Checkout(ctx, done.JTI, stack.CheckpointParams{}))
		}},
		{"passports.revoke", "passport.revoke", func() error { return failure(c.Passports.Revoke(ctx, done.JTI, "")) }},
		{"passports.revoke_session", "passport.revoke", func() error {
			return failure(c.Passports.RevokeSession(ctx, session, ""))
		}},
		{"passports.revoke_agent", "passport.revoke_bulk_agent",
			func() error { return failure(c.Passports.RevokeAgent(ctx, s.agent.ID, "")) }},
		{"passports.revoke_all", "passport.revoke_bulk_operator",
			func() error { return failure(c.Passports.RevokeAll(ctx, "")) }},
		{"intents.simulate", "intent.simulate", func() error {
			waiting = s.issue(t)
			return failure(c.Intents.Simulate(ctx, stack.IntentSimulateParams{Intent: stack.IntentOf(post("#x")),
				PassportToken: waiting.Token}))
		}},
		{"intents.submit", "intent.submit", func() (err error) {
			intent, err = c.Intents.Submit(ctx, stack.IntentSubmitParams{Intent: stack.IntentOf(post("#x")),
				PassportToken: waiting.Token})
			return err
		}},
		{"intents.approve", "intent.approve", func() error {
			return failure(c.Intents.Approve(ctx, intent.ApprovalID, stack.IntentApproveParams{}))
		}},
		{"intents.reject", "intent.reject", func() error {
			return failure(c.Intents.Reject(ctx, s.submit(t, waiting, post("#x")).ApprovalID, stack.IntentRejectParams{}))
		}},
		{"reviews.decide", "review.blocked", func() error {
			return failure(c.Reviews.Decide(ctx, flagged.CheckoutID, stack.ReviewDecideParams{Decision: stack.DecisionBlocked}))
		}},
		{"security_events.resolve", "security_event.resolve",
			func() error { return failure(c.SecurityEvents.Resolve(ctx, event)) }},
		{"services.connect", "service.connect", func() error {
			return failure(c.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack",
				OAuthToken: stack.NewSecret("t"), Scopes: []string{"x"}}))
		}},
		{"services.connect_custom", "service.connect", func() (err error) {
			custom, err = c.Services.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: "crm",
				Credential: stack.CustomCredential{Token: stack.NewSecret("t")}})
			return err
		}},
		{"services.verify", "service.verify", func() error { return failure(c.Services.Verify(ctx, custom.ID)) }},
		{"services.grant", "grant.create", func() error {
			return failure(c.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: child.ID,
				ServiceConnectionID: slack.ID, Scopes: slack.Scopes}))
		}},
		{"credentials.get", "credential.retrieve", func() error {
			return failure(c.Credentials.Get(ctx, "crm", stack.CredentialParams{}))
		}},
		{"services.revoke_agent_access", "grant.revoke", func() error {
			return failure(c.Services.RevokeAgentAccess(ctx, child.ID))
		}},
		{"services.disconnect", "service.disconnect", func() error { return failure(c.Services.Disconnect(ctx, custom.ID)) }},
		{"agents.delete", "agent.delete", func() error { return failure(c.Agents.Delete(ctx, child.ID)) }},
	}
	for _, tc := range calls {
		before := len(s.Audit())
		require.NoError(t, tc.call(), tc.name)
		added := s.Audit()[before:]
		assert.True(t, slices.ContainsFunc(added, func(e stack.AuditEntry) bool { return e.Action == tc.action }), "%s: %v",
			tc.name, added)
		s.RequireAuditIntact(t)
	}

	// Reading leaves no trace.
	before := len(s.Audit())
	for name, err := range map[string]error{
		"agents":   failure(c.Agents.List(ctx)),
		"missions": failure(c.Missions.List(ctx, stack.MissionListParams{})),
		"mission":  failure(c.Missions.Get(ctx, mission)),
		"activity": failure(c.Missions.Activity(ctx, mission)),
		"active":   failure(c.Passports.ListActive(ctx, stack.PassportListParams{})),
		"report":   failure(c.Passports.Report(ctx, done.JTI)),
		"verify":   failure(c.Passports.Verify(ctx, live.Token)),
		"audit":    failure(c.Audit.List(ctx, stack.AuditListParams{})),
		"again":    failure(c.Missions.Complete(ctx, ended, stack.MissionCompleteParams{})),
	} {
		require.NoError(t, err, name)
	}
	assert.Len(t, s.Audit(), before)
}

// Fifty workers in one Mission, each of which issues, delegates, checkpoints, and is then checked out, revoked or renewed.
func TestPassportsConcurrently(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	child := s.Agent(t, stacktest.AgentConfig{})
	shared := s.mission(t, time.Hour)
	const workers = 50
	var wg sync.WaitGroup
	jtis := make([]string, workers)
	for i := range workers {
		wg.Go(func() {
			p, err := s.client.Passports.Issue(t.Context(), s.issueParams(shared))
			if !assert.NoError(t, err) {
				return
			}
			jtis[i] = p.JTI
			_, err = s.client.Passports.Delegate(t.Context(),
				stack.PassportDelegateParams{ParentToken: p.Token, ChildAgentID: child.ID})
			assert.NoError(t, err)
			for n := range 3 {
				_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI,
					stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: 1,
						ToolCalls: []stack.ToolCall{{Service: "slack", Method: "local", Target: fmt.Sprint(n)}}})
				assert.NoError(t, err)
			}
			_, err = s.client.Passports.ListActive(t.Context(), stack.PassportListParams{AgentID: s.agent.ID})
			assert.NoError(t, err)
			switch i % 5 {
			case 0, 1:
				_, err = s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{ActionsCount: 3})
				assert.NoError(t, err)
			case 2, 3:
				_, err = s.client.Passports.Revoke(t.Context(), p.JTI, fmt.Sprintf("worker %d", i))
				assert.NoError(t, err)
			case 4:
				if i == workers-1 {
					_, err = s.client.Passports.RevokeSession(t.Context(), s.Passport(p.JTI).Passport.SessionID, "its own")
				} else {
					_, err = s.client.Missions.Renew(t.Context(), shared)
				}
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	for i, jti := range jtis {
		report := s.Passport(jti)
		require.NotNil(t, report)
		assert.Len(t, report.Checkpoints, 3)
		want := map[int]string{0: "checked_out", 1: "checked_out", 2: "revoked", 3: "revoked", 4: "active"}[i%5]
		if i == workers-1 {
			want = "revoked"
		}
		assert.Equal(t, want, report.Passport.Status)
	}
	record, ok := s.Mission(shared)
	require.True(t, ok)
	assert.Len(t, record.Passports, 2*workers+workers/5-1)
	s.RequireAuditIntact(t)
	_, err := s.client.Passports.RevokeAll(t.Context(), "the end")
	require.NoError(t, err)
	active, err := s.client.Passports.ListActive(t.Context(), stack.PassportListParams{})
	require.NoError(t, err)
	assert.Empty(t, active)
	rows := s.revocations(t) // fails where one fell twice
	for _, jti := range jtis {
		if s.Passport(jti).Passport.CheckedOutAt.IsZero() {
			assert.Contains(t, rows, jti)
		}
	}
	s.RequireNoSecurityEvents(t)
}

// A kill switch pulled while others work: nobody gets a passport past it that it should have hit.
func TestRevokeAllDuringWork(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	mission := s.mission(t, time.Hour)
	var wg, ready sync.WaitGroup
	ready.Add(25)
	for range 25 {
		wg.Go(func() {
			p, err := s.client.Passports.Issue(t.Context(), s.issueParams(mission))
			ready.Done()
			if !assert.NoError(t, err) {
				return
			}
			for {
				_, err := s.client.Proxy.Get(t.Context(), withPassport(stack.ProxyRequest{Service: "slack",
					URL: "https://slack.com/x"}, p))
				if err != nil {
					var apiErr *stack.Error
					assert.ErrorAs(t, err, &apiErr)
					assert.Equal(t, []any{http.StatusUnauthorized, "PASSPORT_REVOKED"}, []any{apiErr.Status, apiErr.Code})
					return
				}
				if v := verification(t, s.client, p.Token); !v.Valid {
					assert.Equal(t, "revoked", v.Reason)
				}
			}
		})
	}
	ready.Wait()
	r, err := s.client.Passports.RevokeAll(t.Context(), "stop")
	require.NoError(t, err)
	assert.Equal(t, 25, r.RevokedCount)
	wg.Wait()
	s.RequireAuditIntact(t)
}
