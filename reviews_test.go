package stack_test

import (
	"net/http"
	"strings"
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

// Reports that a checkout of a Mission declaring slack gets the review status of.
var (
	cleanReport   = stack.CheckpointParams{}
	flaggedReport = stack.CheckpointParams{DelegatedTo: []string{"agt_other"}}
	blockedReport = stack.CheckpointParams{ServicesUsed: []string{"elsewhere"}, ActionsCount: 1}
)

// checkOut gives the agent one more passport and checks it out.
func checkOut(t *testing.T, client *stack.Client, agent *stack.Agent, report stack.CheckpointParams) *stack.Checkout {
	t.Helper()
	out, err := client.Passports.Checkout(t.Context(), startMission(t, client, agent).Passport.JTI, report)
	require.NoError(t, err)
	return out
}

func registerLogged(t *testing.T, client *stack.Client, name string) *stack.Agent {
	t.Helper()
	agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: name, AccountabilityMode: stack.Logged})
	require.NoError(t, err)
	return agent
}

func listReviews(t *testing.T, client *stack.Client, params stack.ReviewListParams) *stack.ReviewPage {
	t.Helper()
	page, err := client.Reviews.List(t.Context(), params)
	require.NoError(t, err)
	return page
}

func TestReviewsList(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerLogged(t, client, "bot")
	assert.Equal(t, stack.ReviewPage{Items: []stack.ReviewItem{}}, *listReviews(t, client, stack.ReviewListParams{}))

	var flagged []string
	for range 3 {
		flagged = append(flagged, checkOut(t, client, agent, flaggedReport).CheckoutID)
	}
	blocked := checkOut(t, client, agent, blockedReport)
	clean := checkOut(t, client, agent, cleanReport)
	require.Equal(t, stack.ReviewBlocked, blocked.ReviewStatus)
	require.Equal(t, stack.ReviewClean, clean.ReviewStatus)

	for name, tt := range map[string]struct {
		params stack.ReviewListParams
		want   []string
		total  int
	}{
		"flagged by default": {stack.ReviewListParams{}, []string{flagged[2], flagged[1], flagged[0]}, 3},
		"flagged":            {stack.ReviewListParams{Status: stack.ReviewFlagged, Limit: 2}, []string{flagged[2], flagged[1]}, 3},
		"second page":        {stack.ReviewListParams{Limit: 2, Page: 2}, []string{flagged[0]}, 3},
		"beyond the last":    {stack.ReviewListParams{Limit: 2, Page: 3}, []string{}, 3},
		"blocked":            {stack.ReviewListParams{Status: stack.ReviewBlocked}, []string{blocked.CheckoutID}, 1},
		"clean":              {stack.ReviewListParams{Status: stack.ReviewClean, Limit: 100}, []string{clean.CheckoutID}, 1},
	} {
		page := listReviews(t, client, tt.params)
		got := []string{}
		for _, item := range page.Items {
			got = append(got, item.CheckoutID)
		}
		assert.Equal(t, tt.want, got, name)
		assert.Equal(t, tt.total, page.Total, name)
	}

	item := listReviews(t, client, stack.ReviewListParams{Status: stack.ReviewBlocked}).Items[0]
	assert.False(t, item.SubmittedAt.IsZero())
	item.SubmittedAt = time.Time{}
	assert.Equal(t, stack.ReviewItem{CheckoutID: blocked.CheckoutID, PassportJTI: blocked.PassportJTI, AgentID: agent.ID,
		AgentName: "bot", IntentSummary: "answer tickets", ReviewStatus: stack.ReviewBlocked, Flags: blocked.Flags}, item)
	require.NotEmpty(t, item.Flags)
	assert.Equal(t, "undeclared_service", item.Flags[0].Type)
}

func TestReviewsRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerLogged(t, client, "bot")
	flagged := checkOut(t, client, agent, flaggedReport).CheckoutID
	for name, params := range map[string]stack.ReviewListParams{
		"unknown status": {Status: "undecided"}, "page below 1": {Page: -1},
		"limit below 1": {Limit: -1}, "limit over 100": {Limit: 101},
	} {
		_, err := client.Reviews.List(t.Context(), params)
		assert.ErrorIs(t, err, stack.ErrInvalidRequest, name)
	}
	decide := func(id string, params stack.ReviewDecideParams) error {
		_, err := client.Reviews.Decide(t.Context(), id, params)
		return err
	}
	assert.ErrorIs(t, decide("co_none", stack.ReviewDecideParams{Decision: stack.DecisionBlocked}), stack.ErrNotFound)
	assert.ErrorIs(t, decide(flagged, stack.ReviewDecideParams{Decision: "maybe"}), stack.ErrInvalidRequest)
	long := stack.ReviewDecideParams{Decision: stack.DecisionBlocked, Notes: strings.Repeat("n", 1001)}
	assert.ErrorIs(t, decide(flagged, long), stack.ErrInvalidRequest)
	var paramErr *stack.ParamError
	require.ErrorAs(t, decide(flagged, stack.ReviewDecideParams{}), &paramErr)
	assert.Equal(t, "decision", paramErr.Param)
	require.ErrorAs(t, decide("", stack.ReviewDecideParams{Decision: stack.DecisionBlocked}), &paramErr)
	assert.Equal(t, "checkout_id", paramErr.Param)

	_, err := client.Agents.Delete(t.Context(), agent.ID)
	require.NoError(t, err)
	err = decide(flagged, stack.ReviewDecideParams{Decision: stack.DecisionBlocked, BlockFuture: true})
	require.ErrorIs(t, err, stack.ErrNotFound, "nobody is left to block")
	require.NoError(t, decide(flagged, stack.ReviewDecideParams{Decision: stack.DecisionBlocked}))
}

func TestReviewsBlock(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerLogged(t, client, "bot")
	flagged := checkOut(t, client, agent, flaggedReport)

	review, err := client.Reviews.Decide(t.Context(), flagged.CheckoutID,
		stack.ReviewDecideParams{Decision: stack.DecisionBlocked, Notes: "no"})
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(review.ReviewID, "rev_"))
	assert.Equal(t, []any{flagged.CheckoutID, agent.ID, stack.DecisionBlocked, "no", false},
		[]any{review.CheckoutID, review.AgentID, review.Decision, review.Notes, review.PassportBlocked})
	for status, total := range map[stack.ReviewStatus]int{stack.ReviewFlagged: 0, stack.ReviewBlocked: 1} {
		assert.Equal(t, total, listReviews(t, client, stack.ReviewListParams{Status: status}).Total, status)
	}
	report, err := client.Passports.Report(t.Context(), flagged.PassportJTI)
	require.NoError(t, err)
	assert.Equal(t, review, report.Review)
	rows := auditRows(t, client, "review.blocked")
	require.Len(t, rows, 1)
	assert.Equal(t, []string{agent.ID, flagged.PassportJTI}, []string{rows[0].AgentID, rows[0].PassportJTI})

	_, err = client.Reviews.Decide(t.Context(), flagged.CheckoutID, stack.ReviewDecideParams{Decision: stack.DecisionApproved})
	require.ErrorIs(t, err, stack.ErrConflict)
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	assert.Equal(t, "REVIEW_ALREADY_DECIDED", apiErr.Code)
	assert.Equal(t, review.ReviewID, apiErr.Details["review_id"])
	assert.Empty(t, auditRows(t, client, "governance.request"), "nobody is asked about what is settled")
}

func TestReviewsBlockFuture(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerLogged(t, client, "bot")
	clean := checkOut(t, client, agent, cleanReport)
	review, err := client.Reviews.Decide(t.Context(), clean.CheckoutID,
		stack.ReviewDecideParams{Decision: stack.DecisionBlocked, BlockFuture: true})
	require.NoError(t, err, "a clean checkout may be blocked as well")
	assert.True(t, review.PassportBlocked)
	got, err := client.Agents.Get(t.Context(), agent.ID)
	require.NoError(t, err)
	assert.True(t, got.PassportBlocked)
	assert.Contains(t, got.PassportBlockedReason, clean.CheckoutID)
	_, err = client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agent.ID,
		Mission:  stack.MissionOpenParams{IntentSummary: "again"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "again", Services: []string{"slack"}}}})
	require.ErrorIs(t, err, stack.ErrPassportBlocked)
	assert.Len(t, auditRows(t, client, "agent.block"), 1)
}

// approvalNeeded takes the approval out of a refusal.
func approvalNeeded(t *testing.T, err error) (id string, details map[string]any) {
	t.Helper()
	require.ErrorIs(t, err, stack.ErrGovernanceApprovalRequired)
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	require.Equal(t, http.StatusForbidden, apiErr.Status)
	require.Equal(t, "governance_approval", apiErr.Details["check"])
	require.NotEmpty(t, apiErr.Details["allowed"])
	id, _ = apiErr.Details["approval_id"].(string)
	require.True(t, strings.HasPrefix(id, "gov_"))
	return id, apiErr.Details
}

func TestReviewsApproveNeedsAHuman(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	agent := registerLogged(t, client, "bot")
	first, second := checkOut(t, client, agent, flaggedReport), checkOut(t, client, agent, flaggedReport)
	approve := func(checkoutID, approvalID string) (*stack.Review, error) {
		return client.Reviews.Decide(t.Context(), checkoutID,
			stack.ReviewDecideParams{Decision: stack.DecisionApproved, GovernanceApprovalID: approvalID})
	}

	_, err := approve(first.CheckoutID, "")
	id, details := approvalNeeded(t, err)
	assert.Equal(t, []any{"review.approve", first.CheckoutID, "pending"},
		[]any{details["action"], details["target"], details["status"]})
	assert.ErrorContains(t, err, "none was sent")

	_, err = approve(first.CheckoutID, "")
	again, _ := approvalNeeded(t, err)
	assert.Equal(t, id, again, "asking again does not pile up requests")
	_, err = approve(first.CheckoutID, id)
	pending, _ := approvalNeeded(t, err)
	assert.Equal(t, id, pending)
	assert.ErrorContains(t, err, "the one sent is pending")
	_, err = approve(first.CheckoutID, "gov_none")
	approvalNeeded(t, err)
	assert.ErrorContains(t, err, "unknown")

	require.NoError(t, srv.Approve(id))
	require.NoError(t, srv.Approve(id), "approving twice is as good as once")
	_, err = approve(first.CheckoutID, "")
	ready, details := approvalNeeded(t, err)
	assert.Equal(t, []any{id, "approved"}, []any{ready, details["status"]}, "the approval that is there is named")
	_, err = approve(second.CheckoutID, id)
	other, details := approvalNeeded(t, err)
	assert.NotEqual(t, id, other)
	assert.Equal(t, second.CheckoutID, details["target"])
	assert.ErrorContains(t, err, "the one sent is for review.approve of "+first.CheckoutID)

	review, err := approve(first.CheckoutID, id)
	require.NoError(t, err)
	assert.Equal(t, stack.DecisionApproved, review.Decision)
	page := listReviews(t, client, stack.ReviewListParams{Status: stack.ReviewClean})
	require.Len(t, page.Items, 1)
	assert.Equal(t, first.CheckoutID, page.Items[0].CheckoutID)

	_, err = approve(second.CheckoutID, id)
	_, _ = approvalNeeded(t, err)
	require.Error(t, srv.Approve(id), "it is used up")
	require.Error(t, srv.Approve("gov_none"))

	for action, n := range map[string]int{
		"governance.request": 2, "governance.approve": 1, "governance.use": 1, "review.approved": 1,
	} {
		rows := auditRows(t, client, action)
		assert.Len(t, rows, n, action)
		if strings.HasPrefix(action, "governance.") {
			assert.Equal(t, id, rows[0].TraceID, action)
		}
	}
}

// blockedAgent is an agent that a review has blocked.
func blockedAgent(t *testing.T, client *stack.Client) *stack.Agent {
	t.Helper()
	agent := registerLogged(t, client, "bot")
	_, err := client.Reviews.Decide(t.Context(), checkOut(t, client, agent, flaggedReport).CheckoutID,
		stack.ReviewDecideParams{Decision: stack.DecisionBlocked, BlockFuture: true})
	require.NoError(t, err)
	return agent
}

func TestGovernanceApprovalIsForOneUse(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	agent := blockedAgent(t, client)
	unblock := func(approvalID string) error {
		_, err := client.Agents.Unblock(t.Context(), agent.ID, stack.AgentUnblockParams{GovernanceApprovalID: approvalID})
		return err
	}
	id, details := approvalNeeded(t, unblock(""))
	assert.Equal(t, []any{"agent.unblock", agent.ID}, []any{details["action"], details["target"]})
	require.NoError(t, srv.Approve(id))
	require.NoError(t, unblock(id))

	flagged := checkOut(t, client, agent, flaggedReport)
	_, err := client.Reviews.Decide(t.Context(), flagged.CheckoutID,
		stack.ReviewDecideParams{Decision: stack.DecisionBlocked, BlockFuture: true})
	require.NoError(t, err)
	err = unblock(id)
	fresh, _ := approvalNeeded(t, err)
	assert.NotEqual(t, id, fresh)
	assert.ErrorContains(t, err, "the one sent is used")
}

func TestGovernanceApprovalExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		client := srv.Client()
		agent := blockedAgent(t, client)
		unblock := func(approvalID string) error {
			_, err := client.Agents.Unblock(t.Context(), agent.ID, stack.AgentUnblockParams{GovernanceApprovalID: approvalID})
			return err
		}
		asked := time.Now()
		unapproved, details := approvalNeeded(t, unblock(""))
		assert.Equal(t, asked.Add(15*time.Minute).UTC().Format(time.RFC3339Nano), details["expires_at"])
		time.Sleep(15 * time.Minute)
		require.ErrorContains(t, srv.Approve(unapproved), "expired")

		approved, _ := approvalNeeded(t, unblock(""))
		assert.NotEqual(t, unapproved, approved)
		time.Sleep(15*time.Minute - time.Nanosecond)
		require.NoError(t, srv.Approve(approved), "in the last moment")
		time.Sleep(time.Nanosecond)
		err := unblock(approved)
		fresh, _ := approvalNeeded(t, err)
		assert.NotEqual(t, approved, fresh)
		assert.ErrorContains(t, err, "the one sent is expired")

		require.NoError(t, srv.Approve(fresh))
		require.NoError(t, unblock(fresh))
	})
}

func TestReviewsAll(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	agent := registerLogged(t, client, "bot")
	var flagged []string // newest first
	for range 5 {
		flagged = append([]string{checkOut(t, client, agent, flaggedReport).CheckoutID}, flagged...)
	}
	walk := func(params stack.ReviewListParams, each func(stack.ReviewItem) bool) (ids []string, failures []error) {
		for item, err := range client.Reviews.All(t.Context(), params) {
			if err != nil {
				failures = append(failures, err)
				continue
			}
			if ids = append(ids, item.CheckoutID); !each(item) {
				break
			}
		}
		return ids, failures
	}
	on := func(stack.ReviewItem) bool { return true }
	for name, params := range map[string]stack.ReviewListParams{
		"one page": {}, "odd pages": {Limit: 2}, "full pages": {Limit: 5},
	} {
		ids, failures := walk(params, on)
		assert.Empty(t, failures, name)
		assert.Equal(t, flagged, ids, name)
	}
	ids, _ := walk(stack.ReviewListParams{Limit: 2, Page: 2}, on)
	assert.Equal(t, flagged[2:], ids)
	ids, _ = walk(stack.ReviewListParams{Limit: 2}, func(stack.ReviewItem) bool { return false })
	assert.Equal(t, flagged[:1], ids)

	srv.Fault(stacktest.Fault{Method: http.MethodGet, Path: "/v1/passports/reviews", Status: http.StatusForbidden})
	ids, failures := walk(stack.ReviewListParams{}, on)
	assert.Empty(t, ids)
	require.Len(t, failures, 1)
	assert.ErrorIs(t, failures[0], stack.ErrForbidden)

	ids, failures = walk(stack.ReviewListParams{Limit: 2}, func(item stack.ReviewItem) bool {
		_, err := client.Reviews.Decide(t.Context(), item.CheckoutID, stack.ReviewDecideParams{Decision: stack.DecisionBlocked})
		return assert.NoError(t, err)
	})
	assert.Empty(t, failures)
	assert.Equal(t, flagged, ids, "deciding on the way passes none over")
}

func TestReviewsDecideOnceConcurrently(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	agent := registerLogged(t, client, "bot")
	flagged := checkOut(t, client, agent, flaggedReport)
	_, err := client.Reviews.Decide(t.Context(), flagged.CheckoutID, stack.ReviewDecideParams{Decision: stack.DecisionApproved})
	id, _ := approvalNeeded(t, err)
	require.NoError(t, srv.Approve(id))
	var wg sync.WaitGroup
	var decided atomic.Int32
	for range 8 {
		wg.Go(func() {
			_, err := client.Reviews.Decide(t.Context(), flagged.CheckoutID,
				stack.ReviewDecideParams{Decision: stack.DecisionApproved, GovernanceApprovalID: id})
			if err == nil {
				decided.Add(1)
			} else {
				assert.ErrorIs(t, err, stack.ErrConflict)
			}
		})
		wg.Go(func() {
			_, err := client.Reviews.List(t.Context(), stack.ReviewListParams{Status: stack.ReviewClean})
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.Equal(t, int32(1), decided.Load())
	assert.Len(t, auditRows(t, client, "governance.use"), 1)
}
