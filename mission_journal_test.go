package stack_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// journalStage is a mock and a client with a journal.
type journalStage struct {
	*stage
	dir    string
	client *stack.Client
}

func newJournalStage(t *testing.T, mode stack.Accountability) *journalStage {
	t.Helper()
	s := &journalStage{stage: newStage(t, mode), dir: filepath.Join(t.TempDir(), "journal")}
	s.client = s.Client(stack.WithJournal(s.dir))
	return s
}

func (s *journalStage) mission(t *testing.T, params stack.MissionParams) *stack.Mission {
	t.Helper()
	params.AgentID, params.Intent, params.Services = s.agent.ID, "Post", []string{"slack"}
	m, err := s.client.Passports.Mission(t.Context(), params)
	require.NoError(t, err)
	return m
}

// files are the names in the journal's folder.
func (s *journalStage) files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// died returns a client that finds the journal as it is now, without the locks: as if its owner had died this moment.
func (s *journalStage) died(t *testing.T, change ...func(journal []byte) []byte) (*stack.Client, string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range s.files(t) {
		if !strings.HasSuffix(name, ".journal") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		require.NoError(t, err)
		for _, c := range change {
			text = c(text)
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	return s.Client(stack.WithJournal(dir)), dir
}

func isEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

// A Mission that is closed leaves nothing, and one that runs is nobody's to recover.
func TestJournalOfAClosedMission(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Enforced)
	info, err := os.Stat(s.dir)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	m := s.mission(t, stack.MissionParams{})
	m.Log("slack", "POST", "https://slack.com/api/chat.postMessage?token=x")
	require.Len(t, s.files(t), 2, "the journal and its lock")

	recovered, err := s.client.Passports.Recover(t.Context())
	require.NoError(t, err)
	assert.Empty(t, recovered)

	m.Close(&err)
	require.NoError(t, err)
	isEmpty(t, s.dir)
}

// What was logged is checked out, and the Mission ended.
func TestRecover(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Enforced)
	m := s.mission(t, stack.MissionParams{})
	for i := range 3 {
		m.Log("slack", "POST", fmt.Sprintf("https://slack.com/api/%d?token=x", i))
	}
	require.NoError(t, m.Checkpoint(t.Context()))
	m.Log("slack", "GET", "https://slack.com/api/last")
	_, err := m.Proxy(t.Context(), stack.ProxyRequest{Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage"})
	require.NoError(t, err)

	client, dir := s.died(t)
	recovered, err := client.Passports.Recover(t.Context())
	require.NoError(t, err)
	require.Len(t, recovered, 1)
	r := recovered[0]
	assert.Equal(t, stack.RecoveredMission{MissionID: m.ID(), PassportJTI: m.JTI(), AgentID: s.agent.ID, Calls: 5, Checkout: r.Checkout}, r)
	require.NotNil(t, r.Checkout)
	checkout := s.RequireCheckedOut(t, m.JTI())
	assert.Equal(t, 5, checkout.ActionsCount)
	require.Len(t, checkout.ToolCalls, 5)
	assert.Equal(t, "https://slack.com/api/0", checkout.ToolCalls[0].Target)
	assert.Equal(t, "Mission failed: the process that ran it died.", checkout.Summary)
	record, _ := s.Mission(m.ID())
	assert.Equal(t, stack.MissionRevoked, record.Status)
	isEmpty(t, dir)

	recovered, err = client.Passports.Recover(t.Context())
	require.NoError(t, err)
	assert.Empty(t, recovered, "once")
	m.Close(nil)
}

// Whatever byte the process died at, what is whole before it is recovered, and the Mission is ended.
func TestRecoverTorn(t *testing.T) {
	t.Parallel()
	for _, left := range []int{1, 7, 30} {
		s := newJournalStage(t, stack.Logged)
		m := s.mission(t, stack.MissionParams{})
		for range 4 {
			m.Log("slack", "POST", "https://slack.com/api/chat.postMessage")
		}
		client, dir := s.died(t, func(journal []byte) []byte { return journal[:len(journal)-left] })
		recovered, err := client.Passports.Recover(t.Context())
		require.NoError(t, err)
		require.Len(t, recovered, 1)
		assert.True(t, recovered[0].Torn)
		assert.Equal(t, 3, recovered[0].Calls)
		assert.Equal(t, 3, s.RequireCheckedOut(t, m.JTI()).ActionsCount)
		assert.Empty(t, s.OpenMissions())
		isEmpty(t, dir)
		m.Close(nil)
	}
}

// A Mission whose opening was not answered any more is found by its mark.
func TestRecoverUnanswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newJournalStage(t, stack.Enforced)
		other := s.mission(t, stack.MissionParams{}) // which nobody may end
		s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/missions/start", Close: stacktest.CloseAfter})
		_, err := s.client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: s.agent.ID, Intent: "Post", Services: []string{"slack"}})
		require.Error(t, err)
		require.Len(t, s.OpenMissions(), 2)

		recovered, err := s.client.Passports.Recover(t.Context())
		require.NoError(t, err)
		require.Len(t, recovered, 1)
		assert.NotEmpty(t, recovered[0].MissionID)
		assert.Empty(t, recovered[0].PassportJTI)
		require.Len(t, s.OpenMissions(), 1)
		assert.Equal(t, other.ID(), s.OpenMissions()[0].MissionID)

		// One that did not even begin: looked for until the server must have been done with it.
		client, dir := s.died(t)
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.MkdirAll(dir, 0o700))
		s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/missions/start", Close: stacktest.CloseBefore, Times: 10})
		_, err = client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: s.agent.ID, Intent: "Post", Services: []string{"slack"}})
		require.Error(t, err)
		began := time.Now()
		recovered, err = client.Passports.Recover(t.Context())
		require.NoError(t, err)
		require.Len(t, recovered, 1)
		assert.Empty(t, recovered[0].MissionID)
		assert.Less(t, time.Since(began), 6*time.Second)
		isEmpty(t, dir)
		other.Close(nil)
	})
}

// A refused opening leaves nothing.
func TestJournalOfARefusedMission(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Enforced)
	_, err := s.client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: "agt_unknown", Intent: "Post"})
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = s.client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: s.agent.ID, MissionID: "ms_unknown"})
	require.ErrorIs(t, err, stack.ErrNotFound)
	isEmpty(t, s.dir)
}

// A checkout that fails leaves its journal, and Recover makes it good.
func TestRecoverAfterAFailedClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newJournalStage(t, stack.Enforced)
		m := s.mission(t, stack.MissionParams{})
		m.Log("slack", "POST", "")
		fault := s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/passports/{passport_jti}/checkout", Status: 503, Times: 100})
		var err error
		m.Close(&err)
		require.Error(t, err)
		require.NotEmpty(t, s.files(t))
		fault.Remove()

		recovered, err := s.client.Passports.Recover(t.Context())
		require.NoError(t, err)
		require.Len(t, recovered, 1)
		assert.Equal(t, 1, s.RequireCheckedOut(t, m.JTI()).ActionsCount)
		isEmpty(t, s.dir)
	})
}

// What cannot be recovered now stays for the next try, and does not keep the others back.
func TestRecoverTwice(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Logged)
	first, second := s.mission(t, stack.MissionParams{}), s.mission(t, stack.MissionParams{})
	client, dir := s.died(t)
	s.Fault(stacktest.Fault{Method: "GET", Path: "/v1/passports/{passport_jti}/report", Status: 404, Code: "X", Times: 1})
	s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/missions/{mission_id}/revoke", Status: 403, Times: 1})
	recovered, err := client.Passports.Recover(t.Context())
	require.ErrorIs(t, err, stack.ErrForbidden)
	require.Len(t, recovered, 2)
	require.ErrorIs(t, recovered[0].Err, stack.ErrForbidden)
	assert.Equal(t, first.ID(), recovered[0].MissionID)
	require.NoError(t, recovered[1].Err)
	assert.Equal(t, second.ID(), recovered[1].MissionID)
	recovered, err = client.Passports.Recover(t.Context())
	require.NoError(t, err)
	require.Len(t, recovered, 1)
	assert.Empty(t, s.OpenMissions())
	isEmpty(t, dir)
	first.Close(nil)
	second.Close(nil)
}

// A bound Mission is checked out and left open, and journals of another server or format are left alone.
func TestRecoverLeaves(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Logged)
	opened, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "Post", IntentServices: []string{"slack"}})
	require.NoError(t, err)
	m := s.mission(t, stack.MissionParams{MissionID: opened.MissionID})
	m.Log("slack", "POST", "")
	client, dir := s.died(t)
	recovered, err := client.Passports.Recover(t.Context())
	require.NoError(t, err)
	require.Len(t, recovered, 1)
	s.RequireCheckedOut(t, m.JTI())
	assert.Len(t, s.OpenMissions(), 1)
	isEmpty(t, dir)

	_, dir = s.died(t)
	elsewhere := s.Client(stack.WithJournal(dir), stack.WithBaseURL("http://127.0.0.1:9"))
	recovered, err = elsewhere.Passports.Recover(t.Context())
	require.NoError(t, err)
	assert.Empty(t, recovered)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x.journal"), []byte("not a journal"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600))
	_, err = elsewhere.Passports.Recover(t.Context())
	require.NoError(t, err)
	damaged := filepath.Join(dir, "damaged.journal")
	require.NoError(t, os.WriteFile(damaged, make([]byte, 5000), 0o600))
	_, err = elsewhere.Passports.Recover(t.Context())
	require.ErrorContains(t, err, "damaged.journal: it is damaged from the start")
	assert.FileExists(t, damaged)

	var bad *stack.ParamError
	_, err = s.Client().Passports.Recover(t.Context())
	require.ErrorAs(t, err, &bad)
	_, err = stack.New(stack.WithAPIKey("k"), stack.WithJournal(""))
	require.ErrorAs(t, err, &bad)
	m.Close(nil)
}

// Each passport of a continuous Mission hands the Mission on to the next; whichever is left behind, the Mission ends.
func TestJournalOfAContinuousMission(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newJournalStage(t, stack.Enforced)
		turns := 0
		for m, err := range s.client.Passports.ContinuousMission(t.Context(), stack.ContinuousMissionParams{RotationInterval: time.Hour,
			MissionParams: stack.MissionParams{AgentID: s.agent.ID, Intent: "Watch", Services: []string{"slack"}}}) {
			require.NoError(t, err)
			m.Log("slack", "GET", "")
			require.Len(t, s.files(t), 2, "the journal of this passport alone")
			if turns++; turns == 3 {
				client, _ := s.died(t)
				recovered, err := client.Passports.Recover(t.Context())
				require.NoError(t, err)
				require.Len(t, recovered, 1)
				assert.Equal(t, m.JTI(), recovered[0].PassportJTI)
				record, _ := s.Mission(m.ID())
				assert.Equal(t, stack.MissionRevoked, record.Status)
				break
			}
			time.Sleep(time.Hour)
		}
		assert.Equal(t, 3, turns)
	})
}

// A journal stays bounded: it is written anew without what the account does not keep, and nothing is miscounted by that.
func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Standard)
	m := s.mission(t, stack.MissionParams{})
	target := "https://slack.com/api/" + strings.Repeat("x", 300)
	var largest int64
	const calls = 30_000
	for i := range calls {
		m.Log("slack", "POST", target)
		if i%1000 == 0 {
			info, err := os.Stat(filepath.Join(s.dir, s.files(t)[0]))
			require.NoError(t, err)
			largest = max(largest, info.Size())
		}
	}
	assert.Less(t, largest, int64(10<<20), "30,000 calls take some 12 MB")
	client, _ := s.died(t)
	recovered, err := client.Passports.Recover(t.Context())
	require.NoError(t, err)
	assert.Equal(t, calls, recovered[0].Calls)
	assert.Equal(t, calls, s.RequireCheckedOut(t, m.JTI()).ActionsCount)
	m.Close(nil)
}

// A full disk ends the journal, not the Mission, and Close says so.
func TestJournalThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Logged)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := stack.New(stack.WithAPIKey("k"), stack.WithJournal(filepath.Join(file, "journal")))
	require.Error(t, err)

	require.NoError(t, os.RemoveAll(s.dir))
	_, err = s.client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: s.agent.ID, Intent: "Post", Services: []string{"slack"}})
	require.ErrorIs(t, err, fs.ErrNotExist, "before anything is opened")
	assert.Empty(t, s.OpenMissions())
}

// Calls of many goroutines and the checkpoints between them come back in full.
func TestJournalConcurrently(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Logged)
	m := s.mission(t, stack.MissionParams{})
	var working sync.WaitGroup
	for range 8 {
		working.Go(func() {
			for i := range 200 {
				m.Log("slack", "POST", "")
				if i%50 == 0 {
					assert.NoError(t, m.Checkpoint(t.Context()))
				}
			}
		})
	}
	working.Wait()
	client, _ := s.died(t)
	recovered, err := client.Passports.Recover(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1600, recovered[0].Calls)
	assert.False(t, recovered[0].Torn)
	assert.Equal(t, 1600, s.RequireCheckedOut(t, m.JTI()).ActionsCount)
	m.Close(nil)
}

func TestRecoverEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Logged)
	m := s.mission(t, stack.MissionParams{})
	client, _ := s.died(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	_, err := client.Passports.Recover(ctx)
	require.ErrorIs(t, err, cause)
	m.Close(nil)
}

// A checkpoint of an idle Mission has no calls, and those that come after it are not lost.
func TestRecoverAfterAnIdleCheckpoint(t *testing.T) {
	t.Parallel()
	s := newJournalStage(t, stack.Logged)
	m := s.mission(t, stack.MissionParams{})
	require.NoError(t, m.Checkpoint(t.Context()))
	m.Log("slack", "POST", "https://slack.com/api/later")
	heir, _ := s.died(t)
	recovered, err := heir.Passports.Recover(t.Context())
	require.NoError(t, err)
	require.Len(t, recovered, 1)
	assert.False(t, recovered[0].Torn)
	assert.Equal(t, 1, recovered[0].Calls)
	assert.Equal(t, 1, s.RequireCheckedOut(t, m.JTI()).ActionsCount)
	m.Close(nil)
}
