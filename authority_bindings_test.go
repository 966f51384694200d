package stack_test

import (
	"fmt"
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

func TestAuthorityBindingLife(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	draft := s.draft(t, func(p *stack.AuthorityBindingParams) { p.MaxUses = 7 })
	assert.True(t, strings.HasPrefix(draft.ID, "bnd_"))
	assert.Regexp(t, "^sha256:[0-9a-f]{64}$", draft.Digest)
	profile := draft.ReceiverProfileVersionID
	assert.True(t, strings.HasPrefix(profile, "prv_"))
	assert.Equal(t, stack.AuthorityBinding{ID: draft.ID, OperatorID: s.OperatorID(), Version: 1, Status: stack.BindingDraft,
		PrincipalID: s.principal.ID, AgentID: s.agent.ID, ReceiverID: s.receiver.ID, ReceiverProfileVersionID: profile,
		Services: []string{"slack"}, Proofs: []stack.ProofVersion{{ProofID: s.proof.ID, Version: 1}}, Purpose: "Answer tickets",
		RequiredApprovals: 1, MaxUses: 7, Digest: draft.Digest, CreatedAt: draft.CreatedAt,
		ExpiresAt: draft.CreatedAt.Add(30 * 24 * time.Hour)}, *draft)

	requests, err := s.api.CreateApprovalRequests(ctx, draft.ID, stack.ApprovalRequestParams{
		Approvers: []string{"a@example.com", "b@example.com"}, Message: "Please <look>", IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	require.Len(t, requests, 2)
	first := requests[0]
	assert.Equal(t, stack.ApprovalRequest{ID: first.ID, OperatorID: s.OperatorID(), BindingID: draft.ID, BindingVersion: 1,
		Approver: "a@example.com", Message: "Please <look>", ApprovalURL: first.ApprovalURL, Status: stack.RequestPending,
		CreatedAt: first.CreatedAt, ExpiresAt: first.CreatedAt.Add(24 * time.Hour)}, first)
	assert.Equal(t, stack.BindingPending, s.status(t, draft.ID, 1))
	_, page := s.fetch(t, "GET", first.ApprovalURL, "")
	for _, line := range []string{"An approval by a@example.com", "Purpose: Answer tickets", "Services: slack", draft.Digest,
		s.agent.ID, "Before: Slack (slack.com)", "At most 7 uses", "Principal &lt;P&gt;", "Please &lt;look&gt;"} {
		assert.Contains(t, page, line)
	}
	status, page := s.fetch(t, "POST", first.ApprovalURL+"/approve", "")
	assert.Equal(t, http.StatusOK, status, page)
	assert.Equal(t, stack.BindingApproved, s.status(t, draft.ID, 1))
	list, err := s.api.ListApprovalRequests(ctx, draft.ID)
	require.NoError(t, err)
	assert.Equal(t, []stack.RequestStatus{stack.RequestApproved, stack.RequestCancelled},
		[]stack.RequestStatus{list[0].Status, list[1].Status}, "nothing is left to decide")
	assert.False(t, list[0].DecidedAt.IsZero())

	active, err := s.api.ActivateBinding(ctx, draft.ID, stack.BindingActivateParams{IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	assert.Equal(t, []any{stack.BindingActive, draft.Digest, true, false}, []any{active.Status, active.Digest,
		strings.HasPrefix(active.ClaimID, "pc_"), active.ActivatedAt.IsZero()})
	bindings, err := s.api.ListBindings(ctx)
	require.NoError(t, err)
	assert.Equal(t, []stack.AuthorityBinding{*active}, bindings)

	revoked, err := s.api.RevokeBinding(ctx, draft.ID, authorityReason("no_longer_needed"))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.BindingRevoked, "no_longer_needed", false},
		[]any{revoked.Status, revoked.ReasonCode, revoked.RevokedAt.IsZero()})
	tomb, err := s.api.EraseBinding(ctx, draft.ID, authorityWrite())
	require.NoError(t, err)
	assert.Equal(t, stack.Tombstone{ID: draft.ID, OperatorID: s.OperatorID(), Object: "binding", ErasedAt: tomb.ErasedAt}, *tomb)
	for name, err := range map[string]error{
		"get":      failure(s.api.GetBinding(ctx, draft.ID, authorityVersion(1))),
		"requests": failure(s.api.ListApprovalRequests(ctx, draft.ID)),
		"erase":    failure(s.api.EraseBinding(ctx, draft.ID, authorityWrite())),
		"revoke":   failure(s.api.RevokeBinding(ctx, draft.ID, authorityReason("x"))),
		"passport": failure(s.client.Passports.Issue(ctx, s.issueParams(s.mission(t, time.Hour), carrying(draft.ID)))),
	} {
		require.Error(t, err, name)
		requireErased(t, err, tomb)
	}
	status, _ = s.fetch(t, "GET", first.ApprovalURL, "")
	assert.Equal(t, http.StatusNotFound, status)
	for action, n := range map[string]int{"binding_create": 1, "approval_request": 1, "request_approve": 1, "request_cancel": 1,
		"binding_approve": 1, "binding_activate": 1, "binding_revoke": 1, "binding_erase": 1} {
		assert.Equal(t, n, s.countRows("authority."+action), action)
	}
	s.RequireAuditIntact(t)
}

// Every call on a binding in every state: it works, or says in which state the binding is.
func TestAuthorityBindingStates(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	pending := func() string {
		b := s.draft(t)
		s.askApproval(t, b.ID, "first")
		return b.ID
	}
	lendable := func(p *stack.AuthorityBindingParams) { p.MayDelegate = true }
	reach := map[stack.BindingStatus]func() string{
		stack.BindingDraft:   func() string { return s.draft(t).ID },
		stack.BindingPending: pending,
		stack.BindingApproved: func() string {
			b := s.draft(t)
			require.NoError(t, s.ApproveAuthority(s.askApproval(t, b.ID, "first")[0].ID))
			return b.ID
		},
		stack.BindingActive: func() string { return s.active(t, lendable).ID },
		stack.BindingRejected: func() string {
			b := s.draft(t)
			require.NoError(t, s.RejectAuthority(s.askApproval(t, b.ID, "first", "second")[0].ID))
			return b.ID
		},
		stack.BindingRevoked: func() string {
			b := s.active(t, lendable)
			require.NoError(t, failure(s.api.RevokeBinding(ctx, b.ID, authorityReason("x"))))
			return b.ID
		},
		stack.BindingExpired: func() string {
			b := s.draft(t, func(p *stack.AuthorityBindingParams) { p.ExpiresAt = s.Now().Add(time.Second) })
			s.Advance(time.Second)
			return b.ID
		},
	}
	calls := map[string]struct {
		call func(id string) error
		ok   []stack.BindingStatus // the states in which it works
	}{
		"ask": {func(id string) error {
			return failure(s.api.CreateApprovalRequests(ctx, id, stack.ApprovalRequestParams{Approvers: []string{"somebody"},
				IdempotencyKey: authorityKey()}))
		}, []stack.BindingStatus{stack.BindingDraft, stack.BindingPending}},
		"activate": {func(id string) error {
			return failure(s.api.ActivateBinding(ctx, id, stack.BindingActivateParams{IdempotencyKey: authorityKey()}))
		}, []stack.BindingStatus{stack.BindingApproved}},
		"delegate": {func(id string) error {
			return failure(s.api.DelegateBinding(ctx, id, stack.BindingDelegateParams{AgentID: other.ID, IdempotencyKey: authorityKey()}))
		}, []stack.BindingStatus{stack.BindingActive}},
		"revoke": {func(id string) error {
			return failure(s.api.RevokeBinding(ctx, id, authorityReason("x")))
		}, []stack.BindingStatus{stack.BindingDraft, stack.BindingPending, stack.BindingApproved, stack.BindingActive}},
		"erase": {func(id string) error { return failure(s.api.EraseBinding(ctx, id, authorityWrite())) },
			[]stack.BindingStatus{stack.BindingDraft, stack.BindingPending, stack.BindingApproved, stack.BindingRejected,
				stack.BindingRevoked, stack.BindingExpired}},
		"next version": {func(id string) error {
			return failure(s.api.CreateBinding(ctx, s.binding(func(p *stack.AuthorityBindingParams) { p.BindingID = id })))
		}, []stack.BindingStatus{stack.BindingActive, stack.BindingRejected, stack.BindingExpired}},
	}
	for status, arrive := range reach {
		for name, c := range calls {
			id := arrive()
			require.Equal(t, status, s.status(t, id, 0))
			err := c.call(id)
			works := false
			for _, ok := range c.ok {
				works = works || ok == status
			}
			if works {
				require.NoError(t, err, "%s of one that is %s", name, status)
				continue
			}
			require.Error(t, err, "%s of one that is %s", name, status)
			requireState(t, err, status)
			assert.Equal(t, status, s.status(t, id, 0), "%s changes nothing", name)
		}
	}
}

func TestAuthorityBindingRefusals(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	stranger := s.newPrincipal(t)
	theirs := s.newProof(t, stranger.ID)
	active := s.active(t)
	other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged})
	for name, tt := range map[string]struct {
		change func(*stack.AuthorityBindingParams)
		field  string // empty: not found
	}{
		"principal":        {func(p *stack.AuthorityBindingParams) { p.PrincipalID = "prn_x" }, ""},
		"agent":            {func(p *stack.AuthorityBindingParams) { p.AgentID = "agt_x" }, ""},
		"receiver":         {func(p *stack.AuthorityBindingParams) { p.ReceiverID = "rcv_x" }, ""},
		"proof":            {func(p *stack.AuthorityBindingParams) { p.ProofIDs = []string{"prf_x"} }, ""},
		"binding":          {func(p *stack.AuthorityBindingParams) { p.BindingID = "bnd_x" }, ""},
		"another's proof":  {func(p *stack.AuthorityBindingParams) { p.ProofIDs = []string{theirs.ID} }, "body.proof_ids[0]"},
		"proof twice":      {func(p *stack.AuthorityBindingParams) { p.ProofIDs = []string{"a", "a"} }, "body.proof_ids[1]"},
		"many proofs":      {func(p *stack.AuthorityBindingParams) { p.ProofIDs = make([]string, 17) }, "body.proof_ids"},
		"empty service":    {func(p *stack.AuthorityBindingParams) { p.Services = []string{""} }, "body.services[0]"},
		"service twice":    {func(p *stack.AuthorityBindingParams) { p.Services = []string{"a", "a"} }, "body.services[1]"},
		"many services":    {func(p *stack.AuthorityBindingParams) { p.Services = make([]string, 65) }, "body.services"},
		"long purpose":     {func(p *stack.AuthorityBindingParams) { p.Purpose = strings.Repeat("x", 501) }, "body.purpose"},
		"blank purpose":    {func(p *stack.AuthorityBindingParams) { p.Purpose = " " }, "body.purpose"},
		"in the past":      {func(p *stack.AuthorityBindingParams) { p.ExpiresAt = s.Now() }, "body.expires_at"},
		"too late":         {func(p *stack.AuthorityBindingParams) { p.ExpiresAt = s.Now().Add(366 * 24 * time.Hour) }, "body.expires_at"},
		"many uses":        {func(p *stack.AuthorityBindingParams) { p.MaxUses = 1<<31 + 1 }, "body.max_uses"},
		"other's agent":    {func(p *stack.AuthorityBindingParams) { p.BindingID, p.AgentID = active.ID, other.ID }, "body.agent_id"},
		"other's receiver": {func(p *stack.AuthorityBindingParams) { p.BindingID, p.ReceiverID = active.ID, s.plainReceiver(t).ID }, "body.receiver_id"},
		"other principal": {func(p *stack.AuthorityBindingParams) {
			p.BindingID, p.PrincipalID, p.ProofIDs = active.ID, stranger.ID, []string{theirs.ID}
		}, "body.principal_id"},
	} {
		_, err := s.api.CreateBinding(ctx, s.binding(tt.change))
		require.Error(t, err, name)
		if tt.field == "" {
			require.ErrorIs(t, err, stack.ErrNotFound, name)
			continue
		}
		requireField(t, err, tt.field)
	}
	for name, err := range map[string]error{
		"get":     failure(s.api.GetBinding(ctx, "bnd_x", authorityVersion(0))),
		"version": failure(s.api.GetBinding(ctx, active.ID, authorityVersion(2))),
		"ask": failure(s.api.CreateApprovalRequests(ctx, "bnd_x", stack.ApprovalRequestParams{Approvers: []string{"a"},
			IdempotencyKey: authorityKey()})),
		"requests":         failure(s.api.ListApprovalRequests(ctx, "bnd_x")),
		"activate":         failure(s.api.ActivateBinding(ctx, "bnd_x", stack.BindingActivateParams{IdempotencyKey: authorityKey()})),
		"activate version": failure(s.api.ActivateBinding(ctx, active.ID, stack.BindingActivateParams{Version: 2, IdempotencyKey: authorityKey()})),
		"delegate":         failure(s.api.DelegateBinding(ctx, "bnd_x", stack.BindingDelegateParams{AgentID: other.ID, IdempotencyKey: authorityKey()})),
		"revoke":           failure(s.api.RevokeBinding(ctx, "bnd_x", authorityReason("x"))),
		"erase":            failure(s.api.EraseBinding(ctx, "bnd_x", authorityWrite())),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	requireField(t, failure(s.api.RevokeBinding(ctx, active.ID, authorityReason("No!"))), "body.reason_code")
}

// plainReceiver makes a receiver that is not verified.
func (s *authorityStage) plainReceiver(t *testing.T) *stack.Receiver {
	t.Helper()
	r, err := s.api.CreateReceiver(t.Context(), stack.ReceiverParams{Name: "Plain", Hosts: []string{"plain.example"},
		IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	return r
}

func TestAuthorityApprovals(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	s.activateProfile(t, stack.ProfileApproval, stack.ProfileRules{RequiredApprovals: 2})
	b := s.draft(t)
	assert.Equal(t, 2, b.RequiredApprovals)
	ask := func(names ...string) error {
		return failure(s.api.CreateApprovalRequests(ctx, b.ID, stack.ApprovalRequestParams{Approvers: names,
			IdempotencyKey: authorityKey()}))
	}
	for field, names := range map[string][]string{
		"body.approvers[1]": {"a", "a"}, "body.approvers[0]": {" "}, "body.approvers": make([]string, 11)} {
		requireField(t, ask(names...), field)
	}
	_, err := s.api.CreateApprovalRequests(ctx, b.ID, stack.ApprovalRequestParams{Approvers: []string{"a"},
		Message: strings.Repeat("x", 501), IdempotencyKey: authorityKey()})
	requireField(t, err, "body.message")
	requireField(t, s.client.Do(ctx, "POST", "/v1/authority/bindings/"+b.ID+"/approval-requests", map[string]any{"approvers": []string{}}, nil),
		"header Idempotency-Key")

	first := s.askApproval(t, b.ID, "first")[0]
	requireState(t, ask("second", "first"), stack.RequestPending)
	require.NoError(t, s.ApproveAuthority(first.ID))
	require.NoError(t, s.ApproveAuthority(first.ID), "which counts once")
	requireState(t, ask("first"), stack.RequestApproved)
	assert.Equal(t, stack.BindingPending, s.status(t, b.ID, 1))
	second := s.askApproval(t, b.ID, "second", "third")
	require.NoError(t, s.ApproveAuthority(second[0].ID))
	assert.Equal(t, stack.BindingApproved, s.status(t, b.ID, 1))
	require.ErrorContains(t, s.RejectAuthority(second[1].ID), "cancelled")

	no := s.draft(t)
	requests := s.askApproval(t, no.ID, "first", "second")
	require.NoError(t, s.ApproveAuthority(requests[0].ID))
	require.NoError(t, s.RejectAuthority(requests[1].ID))
	assert.Equal(t, stack.BindingRejected, s.status(t, no.ID, 1), "one no is enough")

	crowd := s.draft(t)
	for i := range 10 {
		names := make([]string, 10)
		for j := range names {
			names[j] = fmt.Sprint("p", i, "-", j)
		}
		s.askApproval(t, crowd.ID, names...)
	}
	_, err = s.api.CreateApprovalRequests(ctx, crowd.ID, stack.ApprovalRequestParams{Approvers: []string{"one more"},
		IdempotencyKey: authorityKey()})
	requireState(t, err, "with 100 approval requests")
}

func TestAuthorityBindingVersions(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	first := s.active(t)
	pass := s.issue(t, carrying(first.ID))
	next := s.draft(t, func(p *stack.AuthorityBindingParams) { p.BindingID, p.Services = first.ID, []string{"slack", "github"} })
	assert.Equal(t, []any{first.ID, 2, stack.BindingDraft}, []any{next.ID, next.Version, next.Status})
	assert.NotEqual(t, first.Digest, next.Digest)
	got, err := s.api.GetBinding(ctx, first.ID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, first, got, "the version in force")
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#a"), pass))
	require.NoError(t, err, "which stays so until the next one is activated")

	require.NoError(t, s.ApproveAuthority(s.askApproval(t, first.ID, "boss")[0].ID))
	_, err = s.api.ActivateBinding(ctx, first.ID, stack.BindingActivateParams{Version: 1, IdempotencyKey: authorityKey()})
	requireState(t, err, stack.BindingActive)
	active, err := s.api.ActivateBinding(ctx, first.ID, stack.BindingActivateParams{Version: 2, IdempotencyKey: authorityKey()})
	require.NoError(t, err)
	assert.Equal(t, []any{2, stack.BindingActive}, []any{active.Version, active.Status})
	assert.Equal(t, stack.BindingSuperseded, s.status(t, first.ID, 1))
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#a"), pass))
	require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive)
	refs := s.claims(t, s.issue(t, carrying(first.ID)).Token).STK.AuthorityRefs
	assert.Equal(t, []any{2, active.Digest}, []any{refs[0].BindingVersion, refs[0].BindingDigest})

	third := s.draft(t, func(p *stack.AuthorityBindingParams) { p.BindingID = first.ID })
	_, err = s.api.RevokeBinding(ctx, first.ID, authorityReason("x"))
	require.NoError(t, err)
	for n, want := range map[int]stack.BindingStatus{1: stack.BindingSuperseded, 2: stack.BindingRevoked, third.Version: stack.BindingRevoked} {
		assert.Equal(t, want, s.status(t, first.ID, n), "version %d", n)
	}
}

func TestAuthorityBindingsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newAuthorityStage(t)
		other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
		until := s.Now().Add(10 * time.Minute)
		b := s.active(t, func(p *stack.AuthorityBindingParams) { p.ExpiresAt, p.MayDelegate = until, true })
		child, err := s.api.DelegateBinding(t.Context(), b.ID, stack.BindingDelegateParams{AgentID: other.ID,
			IdempotencyKey: authorityKey()})
		require.NoError(t, err)
		pass := s.issue(t, carrying(b.ID))
		assert.Equal(t, until.Unix(), s.claims(t, pass.Token).STK.AuthorityRefs[0].ExpiresAt.Unix())
		time.Sleep(10*time.Minute - time.Second)
		_, err = s.client.Proxy.Request(t.Context(), withPassport(post("#a"), pass))
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = s.client.Proxy.Request(t.Context(), withPassport(post("#a"), pass))
		require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive)
		assert.Equal(t, "expired", requireRefused(t, err, 403, "AUTHORITY_BINDING_INACTIVE").Details["reason"])
		assert.Equal(t, []stack.BindingStatus{stack.BindingExpired, stack.BindingExpired},
			[]stack.BindingStatus{s.status(t, b.ID, 0), s.status(t, child.ID, 0)})
		assert.Equal(t, 2, s.countRows("authority.binding_expire"))
	})
}

func TestAuthorityDelegation(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	agents := make([]string, 6)
	for i := range agents {
		agents[i] = s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}}).ID
	}
	delegate := func(id string, change func(*stack.BindingDelegateParams)) (*stack.AuthorityBinding, error) {
		p := stack.BindingDelegateParams{AgentID: agents[0], IdempotencyKey: authorityKey()}
		if change != nil {
			change(&p)
		}
		return s.api.DelegateBinding(ctx, id, p)
	}
	closed := s.active(t)
	_, err := delegate(closed.ID, nil)
	require.ErrorIs(t, err, stack.ErrForbidden)
	requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")

	root := s.active(t, func(p *stack.AuthorityBindingParams) {
		p.MayDelegate, p.Services, p.MaxUses = true, []string{"slack", "github"}, 9
	})
	until := root.ExpiresAt.Add(-time.Hour)
	child, err := delegate(root.ID, func(p *stack.BindingDelegateParams) {
		p.Services, p.ExpiresAt, p.MaxUses, p.MayDelegate = []string{"slack"}, until, 2, true
	})
	require.NoError(t, err)
	want := *root
	want.ID, want.AgentID, want.ParentBindingID, want.RequiredApprovals = child.ID, agents[0], root.ID, 0
	want.Services, want.ExpiresAt, want.MaxUses = []string{"slack"}, until, 2
	want.Digest, want.ClaimID, want.CreatedAt, want.ActivatedAt = child.Digest, child.ClaimID, child.CreatedAt, child.ActivatedAt
	assert.Equal(t, want, *child, "in force at once, and no more than its parent")
	assert.NotEqual(t, root.Digest, child.Digest)

	for field, change := range map[string]func(*stack.BindingDelegateParams){
		"body.services[1]": func(p *stack.BindingDelegateParams) { p.Services = []string{"slack", "notion"} },
		"body.expires_at":  func(p *stack.BindingDelegateParams) { p.ExpiresAt = root.ExpiresAt.Add(time.Second) },
	} {
		_, err = delegate(root.ID, change)
		require.ErrorIs(t, err, stack.ErrScopeEscalation)
		assert.Equal(t, field, requireRefused(t, err, 400, "SCOPE_ESCALATION").Details["field"])
	}
	for field, change := range map[string]func(*stack.BindingDelegateParams){
		"body.services[1]": func(p *stack.BindingDelegateParams) { p.Services = []string{"slack", "slack"} },
		"body.expires_at":  func(p *stack.BindingDelegateParams) { p.ExpiresAt = s.Now() },
		"body.agent_id":    func(p *stack.BindingDelegateParams) { p.AgentID = s.agent.ID },
	} {
		_, err = delegate(root.ID, change)
		requireField(t, err, field)
	}
	_, err = delegate(root.ID, func(p *stack.BindingDelegateParams) { p.AgentID = "agt_x" })
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = s.api.CreateBinding(ctx, s.binding(func(p *stack.AuthorityBindingParams) { p.BindingID, p.AgentID = child.ID, agents[0] }))
	requireField(t, err, "body.binding_id")

	last := child
	for _, id := range agents[1:4] {
		last, err = delegate(last.ID, func(p *stack.BindingDelegateParams) { p.AgentID, p.MayDelegate = id, true })
		require.NoError(t, err)
	}
	_, err = delegate(last.ID, func(p *stack.BindingDelegateParams) { p.AgentID = agents[4] })
	require.ErrorIs(t, err, stack.ErrDelegationDepthExceeded)
	requireRefused(t, err, http.StatusBadRequest, "DELEGATION_DEPTH_EXCEEDED")

	_, err = s.api.RevokeBinding(ctx, child.ID, authorityReason("lost_trust"))
	require.NoError(t, err)
	b, err := s.api.GetBinding(ctx, last.ID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.BindingRevoked, "lost_trust"}, []any{b.Status, b.ReasonCode}, "all below it falls")
	assert.Equal(t, stack.BindingActive, s.status(t, root.ID, 0))

	other, err := delegate(root.ID, nil)
	require.NoError(t, err)
	s.draft(t, func(p *stack.AuthorityBindingParams) { p.BindingID = root.ID })
	s.activate(t, root.ID)
	b, err = s.api.GetBinding(ctx, other.ID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, []any{stack.BindingRevoked, "parent_superseded"}, []any{b.Status, b.ReasonCode})
}
