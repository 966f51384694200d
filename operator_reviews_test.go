package stack_test

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// reviews lists the operator reviews of a Mission, each of which is downloaded and verified offline.
func (s *stage) reviews(t *testing.T, missionID string) []stack.OperatorReview {
	t.Helper()
	reviews, err := s.client.Missions.ListOperatorReviews(t.Context(), missionID)
	require.NoError(t, err)
	keys := deploymentKeys(t, s.Server)
	for _, r := range reviews {
		var first, second bytes.Buffer
		n, err := s.client.Missions.DownloadOperatorReview(t.Context(), missionID, r.ClaimID, &first)
		require.NoError(t, err)
		assert.EqualValues(t, first.Len(), n)
		_, err = s.client.Missions.DownloadOperatorReview(t.Context(), missionID, r.ClaimID, &second)
		require.NoError(t, err)
		assert.Equal(t, first.Bytes(), second.Bytes(), "the same bytes each time")
		claim, err := stack.VerifyClaimCOSE(first.Bytes(), keys)
		require.NoError(t, err)
		var signed map[string]any
		require.NoError(t, claim.Decode(&signed))
		assert.JSONEq(t, string(canonicalOf(t, signed)), string(canonicalOf(t, r.Claim)), "what is shown is what was signed")
		assert.Equal(t, []any{s.OperatorID(), r.ClaimID, float64(r.IssuedAt.UnixMilli()), "operator_review"},
			[]any{r.OperatorID, r.Claim["claim_id"], r.Claim["issued_at_ms"], r.Claim["type"]})
		assert.Regexp(t, `^pc_[a-z2-7]{26}$`, r.ClaimID)
	}
	return reviews
}

// pick takes some fields out of a claim.
func pick(claim map[string]any, names ...string) (values []any) {
	for _, name := range names {
		values = append(values, claim[name])
	}
	return values
}

func TestOperatorReviewAtTheEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end      func(t *testing.T, s *stage, id string)
		terminal string
		reason   any
	}{
		"completed": {func(t *testing.T, s *stage, id string) {
			t.Helper()
			require.NoError(t, failure(s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{})))
		}, "completed_successful", nil},
		"revoked": {func(t *testing.T, s *stage, id string) {
			t.Helper()
			require.NoError(t, failure(s.client.Missions.Revoke(t.Context(), id, stack.MissionRevokeParams{Reason: stack.ReasonAdversarial})))
		}, "revoked", "adversarial"},
		"expired": {func(*testing.T, *stage, string) { time.Sleep(2 * time.Hour) }, "expired", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				m, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "Test", AgentID: s.agent.ID, ExpiresIn: time.Hour})
				require.NoError(t, err)
				id, opened := m.MissionID, s.Now()
				pass, err := s.client.Passports.Issue(t.Context(), s.issueParams(id))
				require.NoError(t, err)
				require.NoError(t, failure(s.do(t, pass, post("#support"))))
				require.NoError(t, failure(s.client.Passports.Checkpoint(t.Context(), pass.JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}})))
				assert.Empty(t, s.reviews(t, id), "a live Mission has none")
				test.end(t, s, id)
				reviews := s.reviews(t, id)
				require.Len(t, reviews, 1)
				claim := reviews[0].Claim
				assert.Equal(t, []any{id, s.agent.ID, test.terminal, test.reason, "mission_end", 1.0, 1.0, 1.0, 0.0, "clean"},
					pick(claim, "mission_id", "agent_id", "terminal_state", "end_reason", "cause", "revision", "actions", "passports", "checkouts", "review_status"))
				assert.Equal(t, map[string]any{"info": 0.0, "warning": 1.0, "critical": 0.0}, claim["security_events"])
				assert.NotContains(t, claim, "supersedes")
				record, err := s.client.Missions.Get(t.Context(), id)
				require.NoError(t, err)
				assert.Equal(t, []any{float64(record.EndedAt.UnixMilli()), float64(record.EndedAt.UnixMilli())}, pick(claim, "ended_at_ms", "issued_at_ms"))
				if name == "expired" {
					assert.Equal(t, opened.Add(time.Hour), reviews[0].IssuedAt, "when it ended, not when somebody looked")
				}
				end, err := s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{})
				require.NoError(t, err)
				assert.Equal(t, end.ClaimID, claim["end_claim_id"])
				assert.Len(t, s.reviews(t, id), 1, "an end that is asked for again is none")
			})
		})
	}
}

// A Mission that is over gets a new revision with every late checkout and every decision, and not for what came before.
func TestOperatorReviewRevisions(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id := s.mission(t, time.Hour)
	issue := func() string {
		p, err := s.client.Passports.Issue(t.Context(), s.issueParams(id))
		require.NoError(t, err)
		return p.JTI
	}
	early, late := issue(), issue()
	checkout := func(jti, service string) *stack.Checkout {
		c, err := s.client.Passports.Checkout(t.Context(), jti, stack.CheckpointParams{ServicesUsed: []string{service}, ActionsCount: 1})
		require.NoError(t, err)
		return c
	}
	decide := func(c *stack.Checkout, decision stack.ReviewDecision, notes string) *stack.Review {
		p := stack.ReviewDecideParams{Decision: decision, Notes: notes}
		r, err := s.client.Reviews.Decide(t.Context(), c.CheckoutID, p)
		if decision == stack.DecisionApproved {
			refused := requireRefused(t, err, 403, "GOVERNANCE_APPROVAL_REQUIRED")
			p.GovernanceApprovalID, _ = refused.Details["approval_id"].(string)
			require.NoError(t, s.Approve(p.GovernanceApprovalID))
			r, err = s.client.Reviews.Decide(t.Context(), c.CheckoutID, p)
		}
		require.NoError(t, err)
		return r
	}
	first := checkout(early, "github")
	require.Equal(t, stack.ReviewBlocked, first.ReviewStatus)
	assert.Empty(t, s.reviews(t, id))
	require.NoError(t, failure(s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{})))
	second := checkout(late, "slack")
	approval := decide(first, stack.DecisionApproved, "seen <and> fine")
	block := decide(second, stack.DecisionBlocked, "")
	reviews := s.reviews(t, id)
	require.Len(t, reviews, 4)
	var got [][]any
	for i, r := range reviews {
		got = append(got, pick(r.Claim, "revision", "cause", "checkouts", "review_status", "checkout_id", "review_id", "decision", "notes"))
		if i > 0 {
			assert.Equal(t, r.ClaimID, reviews[i-1].Claim["supersedes"])
			assert.False(t, r.IssuedAt.After(reviews[i-1].IssuedAt))
		}
	}
	assert.Equal(t, [][]any{
		{4.0, "decision", 2.0, "blocked", second.CheckoutID, block.ReviewID, "blocked", nil},
		{3.0, "decision", 2.0, string(second.ReviewStatus), first.CheckoutID, approval.ReviewID, "approved", "seen <and> fine"},
		{2.0, "checkout", 2.0, "blocked", second.CheckoutID, nil, nil, nil},
		{1.0, "mission_end", 1.0, "blocked", nil, nil, nil, nil},
	}, got)
	dossiers, err := s.client.Missions.ListDossiers(t.Context(), id)
	require.NoError(t, err)
	assert.Empty(t, dossiers, "which are of the older kind")
	_, err = s.client.Missions.DownloadOperatorReview(t.Context(), s.mission(t, time.Hour), reviews[0].ClaimID, io.Discard)
	mustRefuse(t, err, 404, "NOT_FOUND")
	requireParam(t, failure(s.client.Missions.DownloadOperatorReview(t.Context(), id, "", io.Discard)), "claim_id")
}

// A decision before the end leads to no revision, but the first one knows of it.
func TestOperatorReviewKnowsEarlierDecisions(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id := s.mission(t, time.Hour)
	p, err := s.client.Passports.Issue(t.Context(), s.issueParams(id))
	require.NoError(t, err)
	c, err := s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{})
	require.NoError(t, err)
	require.Equal(t, stack.ReviewClean, c.ReviewStatus)
	require.NoError(t, failure(s.client.Reviews.Decide(t.Context(), c.CheckoutID, stack.ReviewDecideParams{Decision: stack.DecisionBlocked})))
	assert.Empty(t, s.reviews(t, id))
	require.NoError(t, failure(s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{})))
	reviews := s.reviews(t, id)
	require.Len(t, reviews, 1)
	assert.Equal(t, []any{"blocked", 1.0}, pick(reviews[0].Claim, "review_status", "checkouts"))
}
