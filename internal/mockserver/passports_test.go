package mockserver

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// newStranger gives the server another operator and returns it with a client.
func newStranger(t *testing.T, s *Server) (*operator, *stack.Client) {
	t.Helper()
	op := newOperator(s, newID("op_"))
	key := newAPIKey(op.id)
	s.mu.Lock()
	s.operators[op.id] = op
	s.mu.Unlock()
	s.keys.add(key, keyOwner{op: op})
	client, err := stack.New(stack.WithAPIKey(key), stack.WithBaseURL("http://mock.test"),
		stack.WithHTTPClient(&http.Client{Transport: direct{s}}))
	require.NoError(t, err)
	return op, client
}

// startLogged registers a logged agent and starts a Mission of it.
func startLogged(t *testing.T, client *stack.Client, name string) (*stack.Agent, *stack.StartedMission) {
	t.Helper()
	agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: name, AccountabilityMode: stack.Logged})
	require.NoError(t, err)
	started, err := client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agent.ID,
		Mission:  stack.MissionOpenParams{IntentSummary: "x", ExpiresIn: 24 * time.Hour},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}}}})
	require.NoError(t, err)
	return agent, started
}

// Another operator's agents, passports and Missions are not there, and its tokens are nobody's. Only verification, which
// needs no key, tells of them. (contract: server-api 3)
func TestOperatorsDoNotMeet(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	agent, started := startLogged(t, client, "theirs")
	other, stranger := newStranger(t, s)
	mine, own := startLogged(t, stranger, "mine")
	ctx, jti, mission, token := t.Context(), started.Passport.JTI, started.MissionID, started.Passport.Token
	_, err := client.Passports.Checkpoint(ctx, jti, stack.CheckpointParams{ServicesUsed: []string{"github"}})
	require.NoError(t, err)
	session := op.passports.byID[jti].claims.STK.SessionID
	var event string
	for e := range op.events.all() {
		event = e.ID
	}
	intent := &stack.Intent{Summary: "x", Services: []string{"slack"}}
	rows, foreignRows := op.chain.Len(), other.chain.Len()
	calls := map[string]error{
		"agents.get":        failure(stranger.Agents.Get(ctx, agent.ID)),
		"agents.update":     failure(stranger.Agents.Suspend(ctx, agent.ID)),
		"agents.unblock":    failure(stranger.Agents.Unblock(ctx, agent.ID, stack.AgentUnblockParams{})),
		"agents.delete":     failure(stranger.Agents.Delete(ctx, agent.ID)),
		"missions.get":      failure(stranger.Missions.Get(ctx, mission)),
		"missions.renew":    failure(stranger.Missions.Renew(ctx, mission)),
		"missions.replay":   failure(stranger.Missions.Activity(ctx, mission)),
		"missions.complete": failure(stranger.Missions.Complete(ctx, mission, stack.MissionCompleteParams{})),
		"missions.revoke": failure(stranger.Missions.Revoke(ctx, mission,
			stack.MissionRevokeParams{Reason: stack.ReasonAdversarial})),
		"missions.reviews":  failure(stranger.Missions.ListOperatorReviews(ctx, mission)),
		"missions.download": failure(stranger.Missions.DownloadOperatorReview(ctx, mission, "pc_x", io.Discard)),
		"missions.open": failure(stranger.Missions.Open(ctx,
			stack.MissionOpenParams{IntentSummary: "x", AgentID: agent.ID})),
		"missions.start": failure(stranger.Missions.Start(ctx,
			stack.MissionStartParams{AgentID: agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "x"}})),
		"passports.issue to the agent": failure(stranger.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: agent.ID,
			MissionIDs: []string{own.MissionID}, Intent: intent})),
		"passports.issue in the Mission": failure(stranger.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: mine.ID,
			MissionIDs: []string{mission}, Intent: intent})),
		"passports.delegate": failure(stranger.Passports.Delegate(ctx,
			stack.PassportDelegateParams{ParentToken: own.Passport.Token, ChildAgentID: agent.ID})),
		"passports.checkpoint":     failure(stranger.Passports.Checkpoint(ctx, jti, stack.CheckpointParams{})),
		"passports.checkout":       failure(stranger.Passports.Checkout(ctx, jti, stack.CheckpointParams{})),
		"passports.report":         failure(stranger.Passports.Report(ctx, jti)),
		"passports.revoke":         failure(stranger.Passports.Revoke(ctx, jti, "")),
		"passports.revoke_agent":   failure(stranger.Passports.RevokeAgent(ctx, agent.ID, "")),
		"passports.revoke_session": failure(stranger.Passports.RevokeSession(ctx, session, "")),
		"security_events.get":      failure(stranger.SecurityEvents.Get(ctx, event)),
		"security_events.resolve":  failure(stranger.SecurityEvents.Resolve(ctx, event)),
	}
	for name, err := range calls {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
		var refused *stack.Error
		require.ErrorAs(t, err, &refused, name)
		assert.Equal(t, "NOT_FOUND", refused.Code, name)
		assert.Equal(t, "exists", refused.Details["check"], name)
	}
	for name, err := range map[string]error{
		"refresh": failure(stranger.Passports.Refresh(ctx, stack.PassportRefreshParams{Token: token})),
		"delegate": failure(stranger.Passports.Delegate(ctx,
			stack.PassportDelegateParams{ParentToken: token, ChildAgentID: mine.ID})),
		"proxy": failure(stranger.Proxy.Get(ctx, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/",
			PassportToken: token})),
	} {
		var refused *stack.Error
		require.ErrorAs(t, err, &refused, name)
		assert.Equal(t, []any{http.StatusUnauthorized, "UNAUTHORIZED", "passport_record"},
			[]any{refused.Status, refused.Code, refused.Details["check"]}, name)
	}
	agents, err := stranger.Agents.List(ctx)
	require.NoError(t, err)
	assert.Len(t, agents, 1)
	missions, err := stranger.Missions.List(ctx, stack.MissionListParams{})
	require.NoError(t, err)
	assert.Equal(t, []any{1, own.MissionID}, []any{missions.Total, missions.Items[0].MissionID})
	active, err := stranger.Passports.ListActive(ctx, stack.PassportListParams{SessionID: session})
	require.NoError(t, err)
	assert.Empty(t, active)
	assert.Equal(t, foreignRows, other.chain.Len(), "nothing happened here")
	assert.Equal(t, rows, op.chain.Len(), "nor there")

	_, err = stranger.Passports.RevokeAll(ctx, "my own")
	require.NoError(t, err)
	v, err := stranger.Passports.Verify(ctx, token)
	require.NoError(t, err)
	assert.True(t, v.Valid, v.Reason)
	v, err = client.Passports.Verify(ctx, own.Passport.Token)
	require.NoError(t, err)
	assert.Equal(t, []any{"revoked", "my own"}, []any{v.Reason, v.RevocationReason})
}

// A passport may be refreshed for 24 hours after its expiry. No Mission of today lives long enough to see the end of that, so
// one is made here that does.
func TestRefreshGrace(t *testing.T) {
	t.Parallel()
	for late, ok := range map[time.Duration]bool{24 * time.Hour: true, 24*time.Hour + time.Nanosecond: false} {
		t.Run(late.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, op, client := newDirect(t)
				_, started := startLogged(t, client, "bot")
				m, found := op.missions.get(started.MissionID)
				require.True(t, found)
				m.ExpiresAt = m.ExpiresAt.Add(48 * time.Hour)
				time.Sleep(time.Until(started.Passport.ExpiresAt) + late)
				refreshed, err := client.Passports.Refresh(t.Context(),
					stack.PassportRefreshParams{Token: started.Passport.Token})
				if ok {
					require.NoError(t, err)
					assert.Equal(t, 15*time.Minute, time.Until(refreshed.ExpiresAt))
					return
				}
				var refused *stack.Error
				require.True(t, errors.As(err, &refused))
				assert.Equal(t, []any{http.StatusUnauthorized, "PASSPORT_EXPIRED", "refresh_grace"},
					[]any{refused.Status, refused.Code, refused.Details["check"]})
				revoked, err := client.Passports.RevokeAll(t.Context(), "")
				require.NoError(t, err)
				assert.Zero(t, revoked.RevokedCount, "it is dead for good")
			})
		})
	}
}

// Only the token that was signed last is kept for finding its passport, however often it was refreshed.
func TestOneTokenIsRemembered(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	_, started := startLogged(t, client, "bot")
	for range 10 {
		_, err := client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: started.Passport.Token})
		require.NoError(t, err, "the first token serves as well")
	}
	assert.Len(t, op.tokens, 1)
}
