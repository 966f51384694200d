package stacktest_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// The same seed gives the same calls the same day, again after a reset; what a test asks for comes first, and what sets it up is
// spared.
func TestChaos(t *testing.T) {
	t.Parallel()
	day := func(t *testing.T, client *stack.Client) (answers []string) {
		for range 100 {
			began := time.Now()
			_, err := client.Agents.List(t.Context())
			answer := fmt.Sprint(time.Since(began), err != nil)
			var refused *stack.Error
			if errors.As(err, &refused) {
				answer += fmt.Sprint(refused.Status, refused.RetryAfter)
			}
			answers = append(answers, answer)
		}
		return answers
	}
	days := map[uint64][]string{}
	for _, seed := range []uint64{1, 2, 1} {
		synctest.Test(t, func(t *testing.T) {
			srv := stacktest.New(t, stacktest.WithChaos(seed))
			for range 50 {
				srv.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
			}
			client := srv.Client(stack.WithMaxRetries(0))
			asked := srv.Fault(stacktest.Fault{Path: "/v1/agents/{agent_id}", Times: 20, Status: 418, Code: "KETTLE"})
			for range 20 {
				_, err := client.Agents.Get(t.Context(), "agt_1")
				require.ErrorContains(t, err, "KETTLE")
			}
			assert.Zero(t, asked.Remaining())
			srv.Reset()
			answers := day(t, client)
			wrong := 0
			for _, answer := range answers {
				if answer != "0s false" {
					wrong++
				}
			}
			assert.InDelta(t, 20, wrong, 12)
			srv.Reset()
			assert.Equal(t, answers, day(t, client))
			if before, ok := days[seed]; ok {
				assert.Equal(t, before, answers)
			}
			days[seed] = answers
		})
	}
	assert.NotEqual(t, days[1], days[2])
}

func TestChaosIsLogged(t *testing.T) {
	t.Parallel()
	r := tryLogged(t, func(tb stacktest.TB) { stacktest.New(tb, stacktest.WithChaos(42)) })
	assert.Contains(t, r.logs, "stacktest: a bad day, which is stacktest.WithChaos(42)")
}

// The bad day reaches the services, too.
func TestChaosUpstream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t, stacktest.WithChaos(3))
		srv.Upstream("slack.com", ok)
		agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
		client, statuses := srv.Client(), map[int]int{}
		var m *stack.Mission
		require.Eventually(t, func() (open bool) {
			var err error
			m, err = client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "test",
				Services: []string{"slack"}, ExpiresIn: 12 * time.Hour, TTL: time.Hour})
			return err == nil
		}, time.Hour, time.Minute)
		for range 200 {
			if resp, err := m.Proxy(t.Context(), post()); err == nil {
				statuses[resp.Status]++
			}
		}
		m.Close(nil)
		assert.Greater(t, len(statuses), 3, statuses)
		assert.Greater(t, statuses[200], 120, statuses)
	})
}
