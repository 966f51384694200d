package stack_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func (s *authorityStage) uses(t *testing.T) []stack.AuthorityUse {
	t.Helper()
	list, err := s.api.ListUses(t.Context())
	require.NoError(t, err)
	return list
}

func (s *authorityStage) presentations(t *testing.T) []stack.AuthorityPresentation {
	t.Helper()
	list, err := s.api.ListPresentations(t.Context())
	require.NoError(t, err)
	return list
}

func (s *authorityStage) used(t *testing.T, bindingID string) int {
	t.Helper()
	b, err := s.api.GetBinding(t.Context(), bindingID, authorityVersion(0))
	require.NoError(t, err)
	return b.Uses
}

func TestAuthorityUsesAndPresentations(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	assert.Empty(t, s.uses(t))
	assert.NotNil(t, s.uses(t))
	b := s.active(t)
	pass := s.issue(t, carrying(b.ID))
	claims := s.claims(t, pass.Token)
	assert.Equal(t, []stack.AuthorityRef{{BindingID: b.ID, BindingVersion: 1, BindingClaimID: b.ClaimID, BindingDigest: b.Digest,
		ReceiverID: s.receiver.ID, ReceiverProfileVersionID: b.ReceiverProfileVersionID, ExpiresAt: b.ExpiresAt.Truncate(time.Second)}},
		claims.STK.AuthorityRefs, "and nothing of a proof or a person")

	request := withPassport(post("#support"), pass)
	request.OperationID = strings.Repeat("o", 24)
	for range 2 { // the second asks again for the answer of the first
		_, err := s.client.Proxy.Request(ctx, request)
		require.NoError(t, err)
	}
	uses := s.uses(t)
	require.Len(t, uses, 1)
	use := uses[0]
	assert.Equal(t, stack.AuthorityUse{ID: use.ID, OperatorID: s.OperatorID(), BindingID: b.ID, BindingVersion: 1, AgentID: s.agent.ID,
		PassportJTI: pass.JTI, MissionID: claims.STK.MissionIDs[0], ReceiverID: s.receiver.ID, Service: "slack", Method: "POST",
		Host: "slack.com", Outcome: stack.UseAllowed, UsedAt: use.UsedAt}, use)
	got, err := s.api.GetUse(ctx, use.ID)
	require.NoError(t, err)
	assert.Equal(t, use, *got)
	assert.Equal(t, 1, s.used(t, b.ID))

	sent := s.Forwarded("slack.com")
	require.Len(t, sent, 1)
	assert.Equal(t, pass.Token.Reveal(), sent[0].Header.Get("X-Stack-Passport"), "the receiver can verify it")
	assert.Equal(t, "Bearer "+stacktest.DefaultCredential, sent[0].Header.Get("Authorization"))
	shown := s.presentations(t)
	require.Len(t, shown, 1)
	p := shown[0]
	assert.Equal(t, stack.AuthorityPresentation{ID: p.ID, OperatorID: s.OperatorID(), UseID: use.ID, BindingID: b.ID, BindingVersion: 1,
		BindingClaimID: b.ClaimID, BindingDigest: b.Digest, ReceiverID: s.receiver.ID,
		ReceiverProfileVersionID: b.ReceiverProfileVersionID, PassportJTI: pass.JTI, Host: "slack.com", PresentedAt: p.PresentedAt}, p)
	one, err := s.api.GetPresentation(ctx, p.ID)
	require.NoError(t, err)
	assert.Equal(t, p, *one)

	tomb, err := s.api.ErasePresentation(ctx, p.ID, authorityWrite())
	require.NoError(t, err)
	assert.Equal(t, stack.Tombstone{ID: p.ID, OperatorID: s.OperatorID(), Object: "presentation", ErasedAt: tomb.ErasedAt}, *tomb)
	requireErased(t, failure(s.api.GetPresentation(ctx, p.ID)), tomb)
	requireErased(t, failure(s.api.ErasePresentation(ctx, p.ID, authorityWrite())), tomb)
	assert.Empty(t, s.presentations(t))
	assert.Len(t, s.uses(t), 1)
	for name, err := range map[string]error{
		"use":          failure(s.api.GetUse(ctx, "use_x")),
		"presentation": failure(s.api.GetPresentation(ctx, "pres_x")),
		"erase":        failure(s.api.ErasePresentation(ctx, "pres_x", authorityWrite())),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	s.RequireNoSecurityEvents(t)
	s.RequireAuditIntact(t)
}

// The passport is shown to the receiver of a binding that covers the call, and to nobody else.
func TestAuthorityPassportIsShownToItsReceiverOnly(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	s.Upstream("elsewhere.example", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	s.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("you sent " + r.Header.Get("X-Stack-Passport"))) // the passport must not come back to the agent
	}))
	agent := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack", "crm"}})
	b := s.active(t, func(p *stack.AuthorityBindingParams) { p.AgentID, p.Services = agent.ID, []string{"crm"} })
	issued, err := s.client.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: agent.ID, MissionIDs: []string{s.mission(t, time.Hour)},
		Intent: &stack.Intent{Summary: "x", Services: []string{"slack", "crm"}}, AuthorityBindingIDs: []string{b.ID}})
	require.NoError(t, err)
	for _, tt := range []struct {
		service, url string
		uses, shown  int
	}{
		{"slack", "https://slack.com/a", 0, 0}, // not covered
		{"crm", "https://elsewhere.example/a", 1, 0},
		{"crm", "http://slack.com/a", 2, 0}, // anybody on the way could read it
		{"crm", "https://slack.com:8443/a", 3, 0},
		{"crm", "https://slack.com/a", 4, 1},
		{"crm", "https://SLACK.com:443/a", 5, 2},
	} {
		resp, err := s.client.Proxy.Get(ctx, withPassport(stack.ProxyRequest{Service: tt.service, URL: tt.url,
			Headers: map[string]string{"X-Stack-Passport": "forged"}}, issued))
		require.NoError(t, err, tt.url)
		assert.NotContains(t, string(resp.Body), issued.Token.Reveal(), tt.url)
		assert.Len(t, s.uses(t), tt.uses, tt.url)
		assert.Len(t, s.presentations(t), tt.shown, tt.url)
	}
	shown := 0
	for _, host := range []string{"slack.com", "elsewhere.example"} {
		for _, r := range s.Forwarded(host) {
			if h := r.Header.Get("X-Stack-Passport"); h != "" {
				assert.Equal(t, issued.Token.Reveal(), h)
				shown++
			}
		}
	}
	assert.Equal(t, 2, shown)
}

// A passport whose binding has lapsed is good for no call, and each attempt is on record with its reason.
func TestAuthorityIsCheckedOnUse(t *testing.T) {
	t.Parallel()
	for reason, lapse := range map[string]func(t *testing.T, s *authorityStage, id string){
		"revoked": func(t *testing.T, s *authorityStage, id string) {
			require.NoError(t, failure(s.api.RevokeBinding(t.Context(), id, authorityReason("x"))))
		},
		"erased": func(t *testing.T, s *authorityStage, id string) {
			require.NoError(t, failure(s.api.RevokeBinding(t.Context(), id, authorityReason("x"))))
			require.NoError(t, failure(s.api.EraseBinding(t.Context(), id, authorityWrite())))
		},
		"superseded": func(t *testing.T, s *authorityStage, id string) {
			s.draft(t, func(p *stack.AuthorityBindingParams) { p.BindingID = id })
			s.activate(t, id)
		},
		"receiver_unverified": func(t *testing.T, s *authorityStage, _ string) {
			require.NoError(t, failure(s.api.RevokeReceiverKey(t.Context(), s.receiver.ID, s.receiver.Keys[0].ID, authorityReason("x"))))
		},
		"exhausted": func(t *testing.T, s *authorityStage, id string) {
			for range 2 { // with the one of the test, three
				_, err := s.client.Proxy.Request(t.Context(), withPassport(post("#x"), s.issue(t, carrying(id))))
				require.NoError(t, err)
			}
		},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			s := newAuthorityStage(t)
			b := s.active(t, func(p *stack.AuthorityBindingParams) { p.MaxUses = 3 })
			pass := s.issue(t, carrying(b.ID))
			_, err := s.client.Proxy.Request(t.Context(), withPassport(post("#a"), pass))
			require.NoError(t, err)
			lapse(t, s, b.ID)
			before := len(s.Forwarded("slack.com"))
			_, err = s.client.Proxy.Request(t.Context(), withPassport(post("#b"), pass))
			require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive)
			refused := requireRefused(t, err, http.StatusForbidden, "AUTHORITY_BINDING_INACTIVE")
			assert.Subset(t, refused.Details, map[string]any{"check": "authority_binding", "binding_id": b.ID, "reason": reason})
			assert.Len(t, s.Forwarded("slack.com"), before, "nothing was sent")
			last := s.uses(t)[0]
			assert.Equal(t, []any{stack.UseRefused, reason, pass.JTI}, []any{last.Outcome, last.Reason, last.PassportJTI})
			rows := s.Audit()
			assert.Equal(t, []any{stack.OutcomeBlocked, "AUTHORITY_BINDING_INACTIVE"},
				[]any{rows[len(rows)-1].Outcome, rows[len(rows)-1].ErrorCode})

			_, err = s.client.Passports.Issue(t.Context(), s.issueParams(s.mission(t, time.Hour), carrying(b.ID)))
			switch reason {
			case "superseded":
				require.NoError(t, err, "a new passport carries the new version")
			case "erased":
				require.ErrorIs(t, err, stack.ErrAuthorityErased)
			default:
				require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive)
				assert.Equal(t, reason, requireRefused(t, err, 403, "AUTHORITY_BINDING_INACTIVE").Details["reason"])
			}
		})
	}
}

// A call that does not get out is no use; one that a later check stops is none either.
func TestAuthorityUsesAreOfCallsThatWereSent(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	b := s.active(t, func(p *stack.AuthorityBindingParams) { p.MaxUses = 1 })
	pass := s.issue(t, carrying(b.ID))
	request := withPassport(post("#a"), pass)
	request.URL = "ftp://slack.com/"
	requireParam(t, failure(s.client.Proxy.Request(t.Context(), request)), "url")
	request.URL = "https://api.github.com/" // to which Slack's credential may not go
	_, err := s.client.Proxy.Request(t.Context(), request)
	requireRefused(t, err, http.StatusForbidden, "PROXY_HOST_NOT_ALLOWED")
	assert.Empty(t, s.uses(t))

	fault := s.Fault(stacktest.Fault{Path: "upstream:slack.com", Times: 1, Close: stacktest.CloseBefore})
	get := withPassport(stack.ProxyRequest{Service: "slack", URL: "https://slack.com/x"}, pass)
	_, err = s.Client(stack.WithMaxRetries(0)).Proxy.Request(t.Context(), get)
	require.Error(t, err)
	assert.Zero(t, fault.Remaining())
	uses := s.uses(t)
	require.Len(t, uses, 1)
	assert.Equal(t, stack.UseNotSent, uses[0].Outcome)
	assert.Zero(t, s.used(t, b.ID))
	assert.Empty(t, s.presentations(t))

	operation := withPassport(post("#a"), pass)
	operation.OperationID = strings.Repeat("r", 24)
	for range 3 { // asking again for the same write takes no further use
		_, err = s.client.Proxy.Request(t.Context(), operation)
		require.NoError(t, err)
	}
	assert.Equal(t, 1, s.used(t, b.ID))
	_, err = s.client.Proxy.Request(t.Context(), withPassport(post("#b"), pass))
	require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive)
}

func TestAuthorityInPassports(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	b, second := s.active(t), s.active(t)
	other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	foreign := s.active(t, func(p *stack.AuthorityBindingParams) { p.AgentID = other.ID })
	draft := s.draft(t)
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprint("bnd_", i)
	}
	for name, tt := range map[string]struct {
		ids    []string
		status int
		code   string
		field  any
		reason any
	}{
		"unknown":       {[]string{"bnd_x"}, 404, "NOT_FOUND", nil, nil},
		"another agent": {[]string{b.ID, foreign.ID}, 403, "AUTHORITY_BINDING_INACTIVE", "body.authority_binding_ids[1]", "other_agent"},
		"draft":         {[]string{draft.ID}, 403, "AUTHORITY_BINDING_INACTIVE", "body.authority_binding_ids[0]", "draft"},
		"twice":         {[]string{b.ID, b.ID}, 400, "INVALID_REQUEST", "body.authority_binding_ids[1]", nil},
		"many":          {many, 400, "INVALID_REQUEST", "body.authority_binding_ids", nil},
	} {
		_, err := s.client.Passports.Issue(ctx, s.issueParams(s.mission(t, time.Hour), carrying(tt.ids...)))
		refused := requireRefused(t, err, tt.status, tt.code)
		assert.Equal(t, []any{tt.field, tt.reason}, []any{refused.Details["field"], refused.Details["reason"]}, name)
	}
	carried := func(token stack.Secret) []string {
		ids := []string{}
		for _, ref := range s.claims(t, token).STK.AuthorityRefs {
			ids = append(ids, ref.BindingID)
		}
		return ids
	}
	assert.Equal(t, []string{second.ID, b.ID}, carried(s.issue(t, carrying(second.ID, b.ID)).Token))
	assert.Empty(t, carried(s.issue(t).Token))

	// A Mission's bindings are those of its passports, and the most that they can have.
	mission, err := s.client.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x", AuthorityBindingIDs: []string{b.ID}})
	require.NoError(t, err)
	record, err := s.client.Missions.Get(ctx, mission.MissionID)
	require.NoError(t, err)
	assert.Equal(t, []string{b.ID}, record.AuthorityBindingIDs)
	pass, err := s.client.Passports.Issue(ctx, s.issueParams(mission.MissionID))
	require.NoError(t, err)
	assert.Equal(t, []string{b.ID}, carried(pass.Token))
	none, err := s.client.Passports.Issue(ctx, s.issueParams(mission.MissionID, carrying()))
	require.NoError(t, err)
	assert.Empty(t, carried(none.Token))
	_, err = s.client.Passports.Issue(ctx, s.issueParams(mission.MissionID, carrying(b.ID, second.ID)))
	require.ErrorIs(t, err, stack.ErrScopeEscalation)
	for name, params := range map[string]stack.MissionOpenParams{
		"draft":         {IntentSummary: "x", AuthorityBindingIDs: []string{draft.ID}},
		"another agent": {IntentSummary: "x", AgentID: other.ID, AuthorityBindingIDs: []string{b.ID}},
	} {
		_, err = s.client.Missions.Open(ctx, params)
		require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive, name)
	}
	started, err := s.client.Missions.Start(ctx, stack.MissionStartParams{AgentID: s.agent.ID,
		Mission: stack.MissionOpenParams{IntentSummary: "x"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}},
			AuthorityBindingIDs: []string{second.ID}}})
	require.NoError(t, err)
	renewed, err := s.client.Missions.Renew(ctx, started.MissionID)
	require.NoError(t, err)
	assert.Equal(t, []string{second.ID}, carried(renewed.Passport.Token))
	refreshed, err := s.client.Passports.Refresh(ctx, stack.PassportRefreshParams{Token: renewed.Passport.Token})
	require.NoError(t, err)
	assert.Equal(t, []string{second.ID}, carried(refreshed.Token))
	_, err = s.api.RevokeBinding(ctx, second.ID, authorityReason("x"))
	require.NoError(t, err)
	_, err = s.client.Missions.Renew(ctx, started.MissionID)
	require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive, "a renewal does not shake off what was revoked")
}

// A delegated passport carries what was delegated to its agent; its uses count for the binding that it came from.
func TestAuthorityInDelegatedPassports(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	ctx := t.Context()
	child := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	b := s.active(t, func(p *stack.AuthorityBindingParams) { p.MayDelegate, p.MaxUses = true, 2 })
	bystander := s.active(t, func(p *stack.AuthorityBindingParams) { p.MayDelegate = true })
	parent := s.issue(t, carrying(b.ID))
	delegate := func() *stack.Passport {
		p, err := s.delegate(t, parent, func(p *stack.PassportDelegateParams) { p.ChildAgentID = child.ID })
		require.NoError(t, err)
		return p
	}
	assert.Empty(t, s.claims(t, delegate().Token).STK.AuthorityRefs, "a binding is its agent's own")
	for _, id := range []string{b.ID, bystander.ID} {
		_, err := s.api.DelegateBinding(ctx, id, stack.BindingDelegateParams{AgentID: child.ID, IdempotencyKey: authorityKey()})
		require.NoError(t, err)
	}
	pass := delegate()
	refs := s.claims(t, pass.Token).STK.AuthorityRefs
	require.Len(t, refs, 1, "not what came from a binding that the parent does not carry")
	lent, err := s.api.GetBinding(ctx, refs[0].BindingID, authorityVersion(0))
	require.NoError(t, err)
	assert.Equal(t, []any{b.ID, child.ID}, []any{lent.ParentBindingID, lent.AgentID})

	_, err = s.client.Proxy.Request(ctx, withPassport(post("#a"), pass))
	require.NoError(t, err)
	assert.Equal(t, []int{1, 1}, []int{s.used(t, b.ID), s.used(t, lent.ID)})
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#b"), parent))
	require.NoError(t, err)
	assert.Equal(t, []int{2, 1}, []int{s.used(t, b.ID), s.used(t, lent.ID)})
	_, err = s.client.Proxy.Request(ctx, withPassport(post("#c"), pass))
	require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive)
	assert.Equal(t, "exhausted", requireRefused(t, err, 403, "AUTHORITY_BINDING_INACTIVE").Details["reason"])
}

// A simulation tells of a binding that has lapsed, and is no use of it, nor of one in force.
func TestAuthorityInSimulations(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	b := s.active(t)
	pass := s.issue(t, carrying(b.ID))
	keep := false
	simulate := func() *stack.IntentSimulation {
		rows := len(s.Audit())
		sim, err := s.client.Intents.Simulate(t.Context(), stack.IntentSimulateParams{Intent: stack.IntentOf(post("#a")), Persist: &keep,
			PassportToken: pass.Token})
		require.NoError(t, err)
		assert.Empty(t, s.uses(t))
		assert.Len(t, s.Audit(), rows)
		return sim
	}
	assert.True(t, simulate().Allowed)
	_, err := s.api.RevokeBinding(t.Context(), b.ID, authorityReason("x"))
	require.NoError(t, err)
	sim := simulate()
	assert.False(t, sim.Allowed)
	assert.Equal(t, "AUTHORITY_BINDING_INACTIVE", sim.DenialReasons[0].Code)
}

// A raw credential is not handed out under a passport whose authority has lapsed.
func TestAuthorityAndRawCredentials(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	agent := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Access: stack.CredentialDirect, Services: []string{"slack"}})
	b := s.active(t, func(p *stack.AuthorityBindingParams) { p.AgentID = agent.ID })
	pass, err := s.client.Passports.Issue(t.Context(), stack.PassportIssueParams{AgentID: agent.ID,
		MissionIDs: []string{s.mission(t, time.Hour)}, Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}},
		AuthorityBindingIDs: []string{b.ID}})
	require.NoError(t, err)
	_, err = s.client.Credentials.Get(t.Context(), "slack", stack.CredentialParams{PassportToken: pass.Token})
	require.NoError(t, err)
	_, err = s.api.RevokeBinding(t.Context(), b.ID, authorityReason("x"))
	require.NoError(t, err)
	_, err = s.client.Credentials.Get(t.Context(), "slack", stack.CredentialParams{PassportToken: pass.Token})
	require.ErrorIs(t, err, stack.ErrAuthorityBindingInactive)
}

// What was lent twice out of one binding takes two of its uses.
func TestAuthorityUsesOfOneOriginAddUp(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	child := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	b := s.active(t, func(p *stack.AuthorityBindingParams) { p.MayDelegate, p.MaxUses = true, 3 })
	for range 2 {
		_, err := s.api.DelegateBinding(t.Context(), b.ID, stack.BindingDelegateParams{AgentID: child.ID,
			IdempotencyKey: authorityKey()})
		require.NoError(t, err)
	}
	pass, err := s.delegate(t, s.issue(t, carrying(b.ID)), func(p *stack.PassportDelegateParams) { p.ChildAgentID = child.ID })
	require.NoError(t, err)
	require.Len(t, s.claims(t, pass.Token).STK.AuthorityRefs, 2)
	_, err = s.client.Proxy.Request(t.Context(), withPassport(post("#a"), pass))
	require.NoError(t, err)
	assert.Equal(t, 2, s.used(t, b.ID))
	_, err = s.client.Proxy.Request(t.Context(), withPassport(post("#b"), pass))
	assert.Equal(t, "exhausted", requireRefused(t, err, http.StatusForbidden, "AUTHORITY_BINDING_INACTIVE").Details["reason"])
	assert.Equal(t, 2, s.used(t, b.ID), "a refusal takes none")
}
