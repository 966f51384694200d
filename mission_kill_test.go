package stack_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// journalChildEnv makes the test's program the one that is killed: the folder of the journal, the server, and the agent, by
// spaces. The API key is in STACK_API_KEY.
const journalChildEnv = "STACK_TEST_JOURNAL_CHILD"

// journalChild opens one Mission after the other and works in them until it is killed. It says on standard output what it has
// done: "mission", before it opens one, and the jti and the number of its logged calls after each that was logged.
func journalChild() {
	parts := strings.Fields(os.Getenv(journalChildEnv))
	client, err := stack.New(stack.WithJournal(parts[0]), stack.WithBaseURL(parts[1]))
	if err != nil {
		panic(err)
	}
	var out sync.Mutex
	say := func(text string) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(text)
	}
	for {
		say("mission")
		err = client.Passports.RunMission(context.Background(), stack.MissionParams{AgentID: parts[2], Intent: "Work until killed",
			Services: []string{"slack"}},
			func(ctx context.Context, mission *stack.Mission) error {
				var working sync.WaitGroup
				var counting sync.Mutex
				logged := 0
				for worker := range 3 {
					working.Go(func() {
						for i := range 8 {
							if worker == 0 && i%2 == 1 {
								_, _ = mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage"})
							} else {
								mission.Log("slack", "POST", "https://slack.com/api/local")
							}
							counting.Lock()
							logged++
							say(fmt.Sprint(mission.JTI(), " ", logged))
							counting.Unlock()
							if worker == 1 && i%3 == 2 {
								_ = mission.Checkpoint(ctx)
							}
						}
					})
				}
				working.Wait()
				return nil
			})
		if err != nil {
			panic(err)
		}
	}
}

// A program that is killed at any moment loses no call that it has logged, and after Recover no Mission is open.
func TestKilled(t *testing.T) {
	t.Parallel()
	const rounds = 25
	s := newStage(t, stack.Enforced)
	address, err := s.URL()
	require.NoError(t, err)
	program, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret
	recoveredMissions, calls := 0, 0
	for range rounds {
		after := random.IntN(60) // lines
		logged := killAfter(t, program, fmt.Sprintf("%s %s %s", dir, address, s.agent.ID), s.APIKey(), after)

		client := s.Client(stack.WithJournal(dir), stack.WithBaseURL(address))
		recovered, err := client.Passports.Recover(t.Context())
		require.NoError(t, err)
		recoveredMissions += len(recovered)
		assert.Empty(t, s.OpenMissions(), "killed after %d lines", after)
		for jti, n := range logged {
			checkout := s.Checkout(jti)
			if assert.NotNil(t, checkout, "killed after %d lines", after) {
				assert.GreaterOrEqual(t, checkout.ActionsCount, n, "killed after %d lines", after)
				assert.Len(t, checkout.ToolCalls, checkout.ActionsCount)
			}
			calls += n
		}
		isEmpty(t, dir)
	}
	t.Logf("%d rounds, %d Missions recovered, %d logged calls, none lost", rounds, recoveredMissions, calls)
	s.RequireAuditIntact(t)
}

// killAfter runs the child and kills it when it has said so many lines. It returns how many calls were logged under each passport
// by what it said until its end.
func killAfter(t *testing.T, program, environment, key string, lines int) (logged map[string]int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), journalChildEnv+"="+environment, "STACK_API_KEY="+key)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	logged = map[string]int{}
	scanner := bufio.NewScanner(out)
	for n := 0; scanner.Scan(); n++ {
		if n == lines {
			require.NoError(t, cmd.Process.Kill())
		}
		jti, count, ok := strings.Cut(scanner.Text(), " ")
		if ok {
			logged[jti], err = strconv.Atoi(count)
			require.NoError(t, err)
		}
	}
	require.Error(t, cmd.Wait(), "it is killed, or it has failed")
	return logged
}
