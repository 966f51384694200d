package stack_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// A revocation goes down the tree, breadth first, and neither up nor sideways.
func TestRevocationOfABranch(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	root := s.issue(t)
	left, right := s.chain(t, root, 3), s.chain(t, root, 1)
	r, err := s.client.Passports.Revoke(t.Context(), left[1].JTI, "")
	require.NoError(t, err)
	assert.Equal(t, stack.Revocation{Type: "single", JTI: left[1].JTI, RevokedCount: 1, CascadedCount: 2,
		Cascaded: []string{left[2].JTI, left[3].JTI},
		Reason:   "revoked by the operator", RevokedAt: r.RevokedAt}, *r)
	assert.Equal(t, map[string]string{left[1].JTI: "passport.revoke", left[2].JTI: "passport.revoke_cascade",
		left[3].JTI: "passport.revoke_cascade"},
		s.revocations(t))
	for _, p := range []*stack.Passport{root, right[1]} {
		assert.True(t, verification(t, s.client, p.Token).Valid)
	}

	before := len(s.Audit())
	again, err := s.client.Passports.Revoke(t.Context(), left[1].JTI, "with another reason")
	require.NoError(t, err)
	assert.Equal(t, stack.Revocation{Type: "single", JTI: left[1].JTI, Cascaded: []string{},
		Reason: "revoked by the operator", RevokedAt: r.RevokedAt}, *again)
	assert.Len(t, s.Audit(), before, "nothing has changed")

	r, err = s.client.Passports.Revoke(t.Context(), root.JTI, "all of it")
	require.NoError(t, err)
	assert.Equal(t, []string{right[1].JTI}, r.Cascaded, "who fell before does not fall again")
	assert.Len(t, s.revocations(t), 5)
	assert.Equal(t, "revoked by the operator", s.RequireRevoked(t, left[3].JTI))
	assert.Equal(t, "all of it", s.RequireRevoked(t, right[1].JTI))
}

func TestRevocationRules(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	session := s.claims(t, p.Token).STK.SessionID
	long := strings.Repeat("x", 501)
	for name, err := range map[string]error{
		"one":     failure(s.client.Passports.Revoke(t.Context(), p.JTI, long)),
		"agent":   failure(s.client.Passports.RevokeAgent(t.Context(), s.agent.ID, long)),
		"session": failure(s.client.Passports.RevokeSession(t.Context(), session, long)),
		"all":     failure(s.client.Passports.RevokeAll(t.Context(), long)),
	} {
		apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, "body.reason", apiErr.Details["field"], name)
		assert.Equal(t, 501.0, apiErr.Details["length"], name)
	}
	for name, err := range map[string]error{
		"one":     failure(s.client.Passports.Revoke(t.Context(), "pp_x", "")),
		"agent":   failure(s.client.Passports.RevokeAgent(t.Context(), "agt_x", "")),
		"session": failure(s.client.Passports.RevokeSession(t.Context(), "ses_x", "")),
	} {
		apiErr := requireRefused(t, err, http.StatusNotFound, "NOT_FOUND")
		assert.Equal(t, "exists", apiErr.Details["check"], name)
	}
	requireParam(t, failure(s.client.Passports.RevokeAgent(t.Context(), "", "")), "agent_id")
	requireParam(t, failure(s.client.Passports.RevokeSession(t.Context(), "", "")), "session_id")
	mustRefuse(t, s.client.Do(t.Context(), "POST", "/v1/passports/revoke", map[string]any{"jti": ""}, nil), 400,
		"INVALID_REQUEST")
	assert.Empty(t, s.revocations(t))
	assert.True(t, verification(t, s.client, p.Token).Valid)
}

// What each bulk revocation hits, of two agents with two roots and a delegation between them.
func TestBulkRevocationReach(t *testing.T) {
	t.Parallel()
	type world struct {
		*stage
		other                 stacktest.Agent
		mine, child, twin, of *stack.Passport // child is the other agent's, under mine; of is the other agent's own
	}
	setUp := func(t *testing.T) *world {
		w := &world{stage: newStage(t, stack.Enforced)}
		w.other = w.Agent(t, stacktest.AgentConfig{Services: []string{"slack"}})
		w.mine, w.twin = w.issue(t), w.issue(t)
		w.of = w.issue(t, func(p *stack.PassportIssueParams) { p.AgentID = w.other.ID })
		child, err := w.delegate(t, w.mine, func(p *stack.PassportDelegateParams) { p.ChildAgentID = w.other.ID })
		require.NoError(t, err)
		w.child = child
		return w
	}
	tests := map[string]struct {
		revoke   func(*testing.T, *world) (*stack.Revocation, error)
		kind     string
		revoked  func(*world) []*stack.Passport
		cascaded func(*world) []*stack.Passport
	}{
		"agent": {func(t *testing.T, w *world) (*stack.Revocation, error) {
			return w.client.Passports.RevokeAgent(t.Context(), w.agent.ID, "why")
		}, "bulk_agent", func(w *world) []*stack.Passport { return []*stack.Passport{w.mine, w.twin} },
			func(w *world) []*stack.Passport { return []*stack.Passport{w.child} }},
		"the delegate": {func(t *testing.T, w *world) (*stack.Revocation, error) {
			return w.client.Passports.RevokeAgent(t.Context(), w.other.ID, "why")
		}, "bulk_agent", func(w *world) []*stack.Passport { return []*stack.Passport{w.of, w.child} },
			func(*world) []*stack.Passport { return nil }},
		"session": {func(t *testing.T, w *world) (*stack.Revocation, error) {
			return w.client.Passports.RevokeSession(t.Context(), w.Passport(w.child.JTI).Passport.SessionID, "why")
		}, "bulk_session", func(w *world) []*stack.Passport { return []*stack.Passport{w.mine} },
			func(w *world) []*stack.Passport { return []*stack.Passport{w.child} }},
		"all": {func(t *testing.T, w *world) (*stack.Revocation, error) {
			return w.client.Passports.RevokeAll(t.Context(), "why")
		}, "bulk_operator", func(w *world) []*stack.Passport { return []*stack.Passport{w.mine, w.twin, w.of} },
			func(w *world) []*stack.Passport { return []*stack.Passport{w.child} }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setUp(t)
			r, err := tc.revoke(t, w)
			require.NoError(t, err)
			rows, cascaded := map[string]string{}, []string{}
			for _, p := range tc.revoked(w) {
				rows[p.JTI] = "passport.revoke"
			}
			for _, p := range tc.cascaded(w) {
				rows[p.JTI], cascaded = "passport.revoke_cascade", append(cascaded, p.JTI)
			}
			assert.Equal(t, tc.kind, r.Type)
			assert.Equal(t, len(tc.revoked(w)), r.RevokedCount)
			assert.Equal(t, len(cascaded), r.CascadedCount)
			assert.Equal(t, cascaded, r.Cascaded)
			assert.Equal(t, "why", r.Reason)
			assert.Equal(t, rows, w.revocations(t))
			assert.Equal(t, 1, w.countRows("passport.revoke_"+tc.kind), "the switch itself")
			for _, p := range []*stack.Passport{w.mine, w.twin, w.of, w.child} {
				_, dead := rows[p.JTI]
				assert.Equal(t, !dead, verification(t, w.client, p.Token).Valid)
			}
			again, err := tc.revoke(t, w)
			require.NoError(t, err, "nothing is left, which is no mistake")
			assert.Zero(t, again.RevokedCount+again.CascadedCount)
			assert.Equal(t, []string{}, again.Cascaded)
			assert.Equal(t, rows, w.revocations(t))
			w.RequireAuditIntact(t)
		})
	}
}

// The kill switch reaches a passport that has expired and could be refreshed, and the children of one that is over.
func TestRevocationOfTheExpiredAndTheCheckedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		p := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL = time.Minute })
		time.Sleep(2 * time.Minute)
		require.Equal(t, "expired", verification(t, s.client, p.Token).Reason)
		r, err := s.client.Passports.RevokeAgent(t.Context(), s.agent.ID, "late")
		require.NoError(t, err)
		assert.Equal(t, 1, r.RevokedCount)
		_, err = s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: p.Token})
		require.ErrorIs(t, err, stack.ErrPassportRevoked)

		root := s.issue(t)
		child, err := s.delegate(t, root)
		require.NoError(t, err)
		_, err = s.client.Passports.Checkout(t.Context(), root.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
		assert.True(t, verification(t, s.client, child.Token).Valid)
		r, err = s.client.Passports.Revoke(t.Context(), root.JTI, "after the checkout")
		require.NoError(t, err)
		assert.Equal(t, []string{child.JTI}, r.Cascaded)
		assert.Equal(t, "after the checkout", s.RequireRevoked(t, child.JTI))
	})
}

func TestListActiveHoldsTheLiveOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		root := s.issue(t)
		short := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL = time.Minute })
		done := s.issue(t)
		child, err := s.delegate(t, root)
		require.NoError(t, err)
		_, err = s.client.Passports.Checkout(t.Context(), done.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
		list := func(params stack.PassportListParams) []stack.ActivePassport {
			active, err := s.client.Passports.ListActive(t.Context(), params)
			require.NoError(t, err)
			return active
		}
		require.Len(t, list(stack.PassportListParams{}), 3)
		time.Sleep(time.Minute)
		assert.False(t, verification(t, s.client, short.Token).Valid)
		active := list(stack.PassportListParams{})
		require.Len(t, active, 2)
		stk := s.claims(t, child.Token).STK
		assert.Equal(t, stack.ActivePassport{JTI: child.JTI, AgentID: stk.AgentID, AgentName: stk.AgentName,
			MissionID: stk.MissionIDs[0],
			SessionID: stk.SessionID, Accountability: stack.Enforced, DelegationDepth: 1, ParentPassportID: root.JTI, Services: []string{"slack"},
			IssuedAt: s.Now().Add(-time.Minute), ExpiresAt: child.ExpiresAt}, active[1])
		assert.Len(t, list(stack.PassportListParams{SessionID: stk.SessionID}), 2)
		assert.Len(t, list(stack.PassportListParams{SessionID: stk.SessionID, AgentID: stk.AgentID}), 1)
		assert.Equal(t, []stack.ActivePassport{}, list(stack.PassportListParams{SessionID: "ses_x"}),
			"none is an empty list, and not null")
	})
}
