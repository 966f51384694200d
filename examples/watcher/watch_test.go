package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newWatcher is the agent under test, with the whole STACK server and a GitHub that gets an issue every two hours.
func newWatcher(t *testing.T, opts ...stack.Option) (*watcher, *stacktest.Server, *hub) {
	t.Helper()
	srv := stacktest.New(t, stacktest.FailOnOpenMissions())
	github := newHub(2 * time.Hour)
	srv.Upstream("api.github.com", github)
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{"github"}})
	return &watcher{client: srv.Client(opts...), agentID: agent.ID, every: 5 * time.Minute, rotate: 4 * time.Hour, out: io.Discard}, srv, github
}

// A day of work. In the bubble of synctest it takes no time: the server's clock is virtual, too.
func TestDay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, srv, github := newWatcher(t, stack.WithPollInterval(time.Minute))
		ctx, cancel := context.WithTimeoutCause(t.Context(), 23*time.Hour, errTimeIsUp)
		defer cancel()

		require.ErrorIs(t, w.watch(ctx), errTimeIsUp)

		assert.Equal(t, 6, w.passports)
		assert.Equal(t, 11, w.greeted)
		assert.Len(t, github.comments, 11)
		assert.Equal(t, []int{1}, slices.Compact(slices.Collect(maps.Values(github.comments))), "each once")
		srv.RequireNoSecurityEvents(t)
		srv.RequireAuditIntact(t)
	})
}

// The kill switch stops it between two looks.
func TestStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, srv, _ := newWatcher(t)
		began := time.Now()
		time.AfterFunc(5*time.Hour+30*time.Second, func() {
			_, err := srv.Client().Passports.RevokeAgent(t.Context(), w.agentID, "enough")
			assert.NoError(t, err)
		})

		require.ErrorIs(t, w.watch(t.Context()), stack.ErrPassportRevoked)

		assert.WithinDuration(t, began.Add(5*time.Hour+time.Minute), time.Now(), 30*time.Second)
		assert.Equal(t, 2, w.greeted)
	})
}

// GitHub is away for an hour: what is new then is greeted afterwards, and nothing twice.
func TestGitHubIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, srv, github := newWatcher(t)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Hour, errTimeIsUp)
		defer cancel()
		srv.Fault(stacktest.Fault{Method: "GET", Path: "upstream:api.github.com", Times: 12, Status: 503})

		err := w.watch(ctx)

		require.ErrorIs(t, err, errTimeIsUp)
		assert.Equal(t, 2, w.greeted)
		assert.Len(t, github.comments, 2)
	})
}

func TestProgram(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), settings{200 * time.Millisecond, time.Second, 4 * time.Second}, &out))
		assert.Contains(t, out.String(), "4 issues greeted under 4 passports of one Mission.")
	})
}

func TestProgramInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		interrupt := errors.New("interrupt")
		time.AfterFunc(time.Second, func() { cancel(interrupt) })
		require.ErrorIs(t, run(ctx, settings{200 * time.Millisecond, time.Hour, time.Hour}, io.Discard), interrupt)
	})
}
