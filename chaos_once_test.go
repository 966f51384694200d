package stack_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// Thirty-two workers write on a bad day, of the API and of the service. Each write arrives once, or its outcome is unknown and
// it has arrived once or not at all. A write that the SDK says has not happened is made again, by the worker, and has not
// happened.
func TestWritesHappenOnceOnABadDay(t *testing.T) {
	t.Parallel()
	const writes, workers, seed = 10_000, 32, 8
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t, stacktest.WithChaos(seed))
		arrived := make([]atomic.Int32, writes)
		srv.Upstream("slack.com", counting(t, arrived))
		agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
		client := srv.Client()
		began := time.Now()

		var next, answered, unknown, again atomic.Int32
		write := func(i int, passport stack.Secret) {
			r := stack.ProxyRequest{Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage",
				Body: map[string]int{"n": i}, PassportToken: passport, OperationID: stack.NewOperationID()}
			for range 100 {
				resp, err := client.Proxy.Request(t.Context(), r)
				switch {
				case err == nil && resp.OK():
					answered.Add(1)
					assert.EqualValues(t, 1, arrived[i].Load(), "the service has answered write %d", i)
					return
				case errors.Is(err, stack.ErrOutcomeUnknown):
					unknown.Add(1)
					assert.LessOrEqual(t, arrived[i].Load(), int32(1), "write %d", i)
					return
				case err == nil: // the service refused; what comes next is another write
					r.OperationID = stack.NewOperationID()
				default:
					var apiErr *stack.Error
					if !assert.ErrorAs(t, err, &apiErr, "write %d", i) {
						return
					}
					time.Sleep(apiErr.RetryAfter)
				}
				assert.Zero(t, arrived[i].Load(), "write %d has not happened: %v", i, err)
				again.Add(1)
			}
			assert.Fail(t, "a write never got through", "write %d", i)
		}
		var working sync.WaitGroup
		for range workers {
			passport := workerPassport(t, client, agent.ID)
			working.Go(func() {
				for i := next.Add(1) - 1; i < writes; i = next.Add(1) - 1 {
					write(int(i), passport)
				}
			})
		}
		working.Wait()

		var never, once, more int
		for i := range arrived {
			switch arrived[i].Load() {
			case 0:
				never++
			case 1:
				once++
			default:
				more++
			}
		}
		t.Logf("%d writes by %d workers in %s of the mock's time: %d answered, %d of unknown outcome, %d made again after it was sure "+
			"that they had not happened", writes, workers, time.Since(began).Round(time.Second), answered.Load(), unknown.Load(), again.Load())
		t.Logf("at the service: %d once, %d never, %d more than once; %d requests to the API", once, never, more, srv.Requests())
		assert.Zero(t, more)
		assert.EqualValues(t, writes, answered.Load()+unknown.Load(), "each is accounted for")
		assert.LessOrEqual(t, never, int(unknown.Load()))
		assert.Greater(t, answered.Load(), int32(writes*8/10), "and most have their answer")
		srv.RequireAuditIntact(t)
	})
}

// workerPassport gets a passport, in spite of the day.
func workerPassport(t *testing.T, client *stack.Client, agentID string) stack.Secret {
	t.Helper()
	for range 100 {
		started, err := client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agentID,
			Mission:  stack.MissionOpenParams{IntentSummary: "Write", IntentServices: []string{"slack"}, ExpiresIn: stack.MaxMissionLifetime},
			Passport: &stack.MissionPassportParams{TTL: time.Hour, Intent: &stack.Intent{Summary: "Write", Services: []string{"slack"}}}})
		if err == nil {
			return started.Passport.Token
		}
	}
	require.Fail(t, "no Mission can be started")
	return stack.Secret{}
}

// counting is a service that counts which writes arrive.
func counting(t *testing.T, arrived []atomic.Int32) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		var body struct{ N int }
		if assert.NoError(t, json.NewDecoder(r.Body).Decode(&body)) {
			arrived[body.N].Add(1)
		}
		w.Header().Set("Content-Type", jsonType)
		_, _ = fmt.Fprintf(w, `{"ok":true,"n":%d}`, body.N)
	}
}
