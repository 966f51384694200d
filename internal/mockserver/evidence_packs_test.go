package mockserver

import (
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func exportMission(t *testing.T, client *stack.Client, missionID string) (*stack.EvidencePack, error) {
	t.Helper()
	return client.EvidencePacks.Export(t.Context(), stack.EvidencePackExportParams{
		Scope: stack.EvidenceScope{Kind: stack.EvidenceMission, Ref: missionID}})
}

func TestEvidenceIsBounded(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	_, started := startLogged(t, client, "busy")
	rows := op.chain.Len()
	target := strings.Repeat("x", 8000)
	m, _ := op.missions.get(started.MissionID)
	calls := make([]stack.ToolCall, 1100)
	for i := range calls {
		calls[i] = stack.ToolCall{Service: "slack", Method: "POST", Target: target}
	}
	for range 2 { // two times 8.8 MB
		m.passports[0].checkpoints = append(m.passports[0].checkpoints, stack.ReportedCheckpoint{CheckpointParams: stack.CheckpointParams{ToolCalls: calls}})
	}
	_, err := exportMission(t, client, started.MissionID)
	var refused *stack.Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, []any{400, "INVALID_REQUEST", "pack_size"}, []any{refused.Status, refused.Code, refused.Details["check"]})
	assert.Equal(t, []any{0, 0, rows}, []any{op.packs.len(), op.packBytes, op.chain.Len()}, "nothing is left of it")

	m.passports[0].checkpoints = m.passports[0].checkpoints[:1]
	pack, err := exportMission(t, client, started.MissionID)
	require.NoError(t, err, "8.8 MB are fine")
	assert.Equal(t, len(pack.Manifest), op.packBytes)

	op.packBytes = maxPackStorage
	_, err = exportMission(t, client, started.MissionID)
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, []any{403, "TIER_LIMIT_EXCEEDED", "plan_limit"}, []any{refused.Status, refused.Code, refused.Details["check"]})
	op.packBytes = 0
	m.passports[0].checkpoints = nil
	for op.packs.len() < maxPacks {
		op.packs.put(newID("ep_"), &evidencePack{})
	}
	_, err = exportMission(t, client, started.MissionID)
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, []any{403, "at most 1000 packs"}, []any{refused.Status, refused.Details["allowed"]})
}

// Exports at the same time, while the operator's other calls go on: of those that would supersede one pack, one does.
func TestEvidenceIsExportedOnce(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	_, started := startLogged(t, client, "watched")
	old, err := exportMission(t, client, started.MissionID)
	require.NoError(t, err)
	var group sync.WaitGroup
	var kept, late atomic.Int64
	for range 8 {
		group.Go(func() {
			_, err := client.EvidencePacks.Export(t.Context(), stack.EvidencePackExportParams{Supersedes: old.PackID,
				Scope: stack.EvidenceScope{Kind: stack.EvidenceMission, Ref: started.MissionID}})
			if err == nil {
				kept.Add(1)
			} else if errors.Is(err, stack.ErrConflict) {
				late.Add(1)
			}
		})
		group.Go(func() {
			_, err := client.Passports.Checkpoint(t.Context(), started.Passport.JTI, stack.CheckpointParams{ActionsCount: 1})
			assert.NoError(t, err)
		})
	}
	group.Wait()
	assert.Equal(t, []int64{1, 7, 2}, []int64{kept.Load(), late.Load(), int64(op.packs.len())})
}

func TestEvidenceOfAnotherOperator(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	_, started := startLogged(t, client, "theirs")
	_, err := client.Passports.Checkpoint(t.Context(), started.Passport.JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}})
	require.NoError(t, err)
	pack, err := exportMission(t, client, started.MissionID)
	require.NoError(t, err)
	other, stranger := newStranger(t, s)
	_, own := startLogged(t, stranger, "mine")
	p, _ := op.passports.get(started.Passport.JTI)
	packs := stranger.EvidencePacks
	for name, scope := range map[string]stack.EvidenceScope{
		"mission":  {Kind: stack.EvidenceMission, Ref: started.MissionID},
		"session":  {Kind: stack.EvidenceSession, Ref: p.claims.STK.SessionID},
		"incident": {Kind: stack.EvidenceIncident, Ref: op.events.order[0]},
	} {
		require.ErrorIs(t, failure(packs.Export(t.Context(), stack.EvidencePackExportParams{Scope: scope})), stack.ErrNotFound, name)
	}
	require.ErrorIs(t, failure(packs.Get(t.Context(), pack.PackID)), stack.ErrNotFound)
	require.ErrorIs(t, failure(packs.Download(t.Context(), pack.PackID, io.Discard)), stack.ErrNotFound)
	require.ErrorIs(t, failure(packs.Export(t.Context(), stack.EvidencePackExportParams{Supersedes: pack.PackID,
		Scope: stack.EvidenceScope{Kind: stack.EvidenceMission, Ref: own.MissionID}})), stack.ErrNotFound)
	list, err := packs.List(t.Context(), stack.EvidencePackListParams{})
	require.NoError(t, err)
	assert.Empty(t, list)
	assert.Zero(t, other.packs.len())
}

// Of a Mission with very many late checkouts, the newest revisions are kept, and their numbers go on.
func TestOperatorReviewsAreBounded(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	_, started := startLogged(t, client, "many")
	m, _ := op.missions.get(started.MissionID)
	now := s.clock.now()
	op.reviewMission(now, m, causeEnd, nil)
	assert.Empty(t, m.reviews, "a live Mission has none")
	op.endMission(now, m, stack.MissionCompleted, "", "")
	for i := range maxOperatorReviews + 5 {
		op.reviewMission(now.Add(time.Duration(i)), m, causeCheckout, nil)
	}
	reviews, err := client.Missions.ListOperatorReviews(t.Context(), started.MissionID)
	require.NoError(t, err)
	require.Len(t, reviews, maxOperatorReviews)
	assert.InDelta(t, maxOperatorReviews+6, reviews[0].Claim["revision"], 0)
	for i, r := range reviews[:len(reviews)-1] {
		require.Equal(t, reviews[i+1].ClaimID, r.Claim["supersedes"])
	}
	assert.NotEmpty(t, reviews[len(reviews)-1].Claim["supersedes"], "one that is no longer kept")
}
