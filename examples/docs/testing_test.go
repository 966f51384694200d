package docs

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/examples/internal/scripted"
	"github.com/getstack-go/stack/stacktest"
)

// slackStub stands for Slack: it says yes to everything.
var slackStub = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"ok":true}`))
})

func TestAgentAcknowledges(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t, stacktest.FailOnOpenMissions()) // the whole server, in memory
	srv.Upstream("slack.com", slackStub)
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
	model := scripted.New(scripted.Calls("slack_post", postIn{Channel: "#support", Text: "On it"}), scripted.Says("Done."))

	err := acknowledge(t.Context(), srv.Client(), agent.ID, model, "17, the invoice is wrong") // your code

	require.NoError(t, err)
	posted := srv.Forwarded("slack.com")
	require.Len(t, posted, 1)
	assert.JSONEq(t, `{"channel":"#support","text":"On it"}`, string(posted[0].Body))
	srv.RequireNoSecurityEvents(t)
	srv.RequireAuditIntact(t)
}

// watch posts once an hour until the Mission is over. It stands for any agent that runs for long.
func watch(ctx context.Context, client *stack.Client, agentID string, hours int) error {
	return client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Watch the queue",
		Services: []string{"slack"}, ExpiresIn: 24 * time.Hour, CheckpointInterval: 5 * time.Minute},
		func(ctx context.Context, mission *stack.Mission) error {
			for range hours {
				if _, err := mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: "POST",
					URL: "https://slack.com/api/chat.postMessage", Body: map[string]any{"text": "All is well"}}); err != nil {
					return err
				}
				select {
				case <-time.After(time.Hour):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			return nil
		})
}

// Six hours, with their checkpoints and renewed passports, in milliseconds.
func TestSixHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		srv.Upstream("slack.com", slackStub)
		agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})

		require.NoError(t, watch(t.Context(), srv.Client(), agent.ID, 6))

		assert.Len(t, srv.Forwarded("slack.com"), 6)
		var checkpoints int
		for _, entry := range srv.Audit() {
			if entry.Action == "passport.checkpoint" {
				checkpoints++
			}
		}
		assert.GreaterOrEqual(t, checkpoints, 6*60/5)
	})
}

// The kill switch reaches an agent that makes no call.
func TestKillSwitch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		srv.Upstream("slack.com", slackStub)
		agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
		time.AfterFunc(90*time.Minute, func() {
			_, err := srv.Client().Passports.RevokeAgent(t.Context(), agent.ID, "it posts nonsense")
			assert.NoError(t, err)
		})

		began := time.Now()
		err := watch(t.Context(), srv.Client(), agent.ID, 6)

		require.ErrorIs(t, err, stack.ErrPassportRevoked)
		assert.Less(t, time.Since(began), 91*time.Minute, "within a minute")
		assert.Len(t, srv.Forwarded("slack.com"), 2)
	})
}

// Slack takes the message and the answer is lost. Nobody can know that, so the message is not sent again.
func TestAnswerIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t, stacktest.FailOnOpenMissions())
		srv.Upstream("slack.com", slackStub)
		srv.Fault(stacktest.Fault{Method: "POST", Path: "upstream:slack.com", Close: stacktest.CloseAfter})
		agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})

		err := watch(t.Context(), srv.Client(), agent.ID, 1)

		require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
		assert.Len(t, srv.Forwarded("slack.com"), 1)
	})
}
