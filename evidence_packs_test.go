package stack_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// export makes a pack and verifies it as its reader would, without the server.
func (s *stage) export(t *testing.T, p stack.EvidencePackExportParams) (*stack.EvidencePack, *stack.VerifiedEvidence) {
	t.Helper()
	pack, err := s.client.EvidencePacks.Export(t.Context(), p)
	require.NoError(t, err)
	verified, err := stack.VerifyEvidencePack(pack.Manifest, pack.EnvelopeCOSE, deploymentKeys(t, s.Server))
	require.NoError(t, err)
	return pack, verified
}

func scopeOf(kind stack.EvidenceScopeKind, ref string) stack.EvidencePackExportParams {
	return stack.EvidencePackExportParams{Scope: stack.EvidenceScope{Kind: kind, Ref: ref}}
}

// quarter is the reference of the running one.
func (s *stage) quarter() string {
	now := s.Now().UTC()
	return fmt.Sprintf("period:%d-Q%d", now.Year(), (now.Month()+2)/3)
}

// ranMission runs a whole logged Mission with a checkpoint, a stray report and a checkout.
func (s *stage) ranMission(t *testing.T) (missionID string, pass *stack.Passport) {
	t.Helper()
	started, err := s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: s.agent.ID,
		Mission: stack.MissionOpenParams{IntentSummary: "Acknowledge <tickets> & \u2028 more", ExpiresIn: time.Hour,
			BaselineProfile: map[string]any{"z": 1e21, "a": []any{0.1, math.Copysign(0, -1), 1e-7}, "é": "\u0007"}},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "Acknowledge tickets", Services: []string{"slack"}}}})
	require.NoError(t, err)
	pass = &started.Passport
	_, err = s.do(t, pass, post("#support"))
	require.NoError(t, err)
	report := stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: 1, ToolCalls: []stack.ToolCall{
		{Service: "slack", Method: "POST", Target: "https://slack.com/api/chat.postMessage"}}}
	_, err = s.client.Passports.Checkpoint(t.Context(), pass.JTI, report)
	require.NoError(t, err)
	_, err = s.client.Passports.Checkpoint(t.Context(), pass.JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}})
	require.NoError(t, err)
	_, err = s.client.Passports.Checkout(t.Context(), pass.JTI, stack.CheckpointParams{ActionsCount: 1})
	require.NoError(t, err)
	_, err = s.client.Missions.Complete(t.Context(), started.MissionID, stack.MissionCompleteParams{Output: map[string]any{"acknowledged": 1}})
	require.NoError(t, err)
	return started.MissionID, pass
}

func TestEvidenceOfAMission(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id, pass := s.ranMission(t)
	otherID, otherPass := s.ranMission(t) // which must not be in it
	head, err := s.client.Audit.ChainHead(t.Context())
	require.NoError(t, err)
	pack, verified := s.export(t, scopeOf(stack.EvidenceMission, id))

	assert.Regexp(t, `^ep_[a-z2-7]{26}$`, pack.PackID)
	assert.Regexp(t, `^pc_[a-z2-7]{26}$`, pack.ClaimID)
	claim := pack.PackClaim
	assert.Equal(t, verified.Claim, claim, "the claim that is shown is the one that was signed")
	assert.Equal(t, []any{"evidence_pack", 1, pack.ClaimID, pack.PackID, s.OperatorID(), len(pack.Manifest), false, ""},
		[]any{claim.Type, claim.Version, claim.ClaimID, claim.PackID, claim.OperatorID, claim.ManifestBytes, claim.AirGap, claim.Supersedes})
	canonical, err := jcs.Transform(pack.Manifest)
	require.NoError(t, err)
	assert.Equal(t, string(canonical), string(pack.Manifest), "the manifest is canonical as it stands in the answer")

	m := verified.Manifest
	assert.Equal(t, []any{pack.PackID, s.OperatorID(), stack.EvidenceScope{Kind: stack.EvidenceMission, Ref: id}, *head},
		[]any{m.PackID, m.OperatorID, m.Scope, m.ChainHead})
	assert.Equal(t, claim.IssuedAt.UnixMilli(), m.CreatedAt.UnixMilli())
	assert.Empty(t, m.Keys)
	require.Len(t, m.Missions, 1)
	record, err := s.client.Missions.Get(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, *record, m.Missions[0])
	require.Len(t, m.Passports, 1)
	report, err := s.client.Passports.Report(t.Context(), pass.JTI)
	require.NoError(t, err)
	assert.Equal(t, *report, m.Passports[0], "with its checkpoints and checkout")
	assert.Len(t, m.Passports[0].Checkpoints, 2)
	require.NotNil(t, m.Passports[0].Checkout)
	require.Len(t, m.SecurityEvents, 1)
	assert.Equal(t, "credential_outside_scope", m.SecurityEvents[0].SignalType)
	require.Len(t, m.OperatorReviews, 1)
	assert.Empty(t, m.OperatorReviews[0].EnvelopeCOSE, "only in an air-gapped pack")

	var actions []string
	for _, row := range m.Audit {
		actions = append(actions, row.Action)
		assert.NotContains(t, []string{otherID, otherPass.JTI}, row.TraceID)
		assert.NotEqual(t, otherPass.JTI, row.PassportJTI)
		assert.Contains(t, s.Audit(), row)
	}
	assert.Equal(t, []string{"mission.open", "passport.issue", "credential.proxy", "passport.checkpoint", "passport.checkpoint",
		"detector.credential_outside_scope", "passport.checkout", "mission.complete"}, actions)
	assert.Equal(t, 1, s.countRows("evidence_pack.export"))
	s.RequireAuditIntact(t)

	got, err := s.client.EvidencePacks.Get(t.Context(), pack.PackID)
	require.NoError(t, err)
	want := *pack
	want.Manifest = nil
	assert.Equal(t, &want, got, "the same envelope each time, without the manifest")
	var buf bytes.Buffer
	n, err := s.client.EvidencePacks.Download(t.Context(), pack.PackID, &buf)
	require.NoError(t, err)
	assert.Equal(t, []any{int64(len(pack.Manifest)), string(pack.Manifest)}, []any{n, buf.String()})
	_, err = s.client.EvidencePacks.Download(t.Context(), pack.PackID, &failingWriter{})
	require.ErrorContains(t, err, "writing the manifest")

	again, second := s.export(t, scopeOf(stack.EvidenceMission, id))
	assert.NotEqual(t, pack.PackID, again.PackID)
	assert.Equal(t, m.Sections, second.Manifest.Sections, "nothing happened in between")
}

func TestEvidenceOfASession(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	root := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.WillDelegate = true })
	other := s.issue(t)
	child, err := s.delegate(t, root, func(p *stack.PassportDelegateParams) {
		p.ChildAgentID = s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged}).ID
	})
	require.NoError(t, err)
	session := s.claims(t, root.Token).STK.SessionID
	_, verified := s.export(t, scopeOf(stack.EvidenceSession, session))
	var jtis []string
	for _, p := range verified.Manifest.Passports {
		jtis = append(jtis, p.Passport.JTI)
		assert.Equal(t, session, p.Passport.SessionID)
	}
	assert.Contains(t, jtis, root.JTI)
	assert.NotContains(t, jtis, other.JTI)
	assert.Equal(t, s.claims(t, child.Token).STK.SessionID == session, len(jtis) == 2)
	require.Len(t, verified.Manifest.Missions, 1)
	for _, row := range verified.Manifest.Audit {
		assert.NotEqual(t, other.JTI, row.PassportJTI)
	}
	assert.NotEmpty(t, verified.Manifest.Audit)
	assert.Empty(t, verified.Manifest.SecurityEvents)
}

func TestEvidenceOfAnIncident(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	root := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.WillDelegate = true })
	family := s.chain(t, root, 2)
	_, err := s.client.Passports.Checkpoint(t.Context(), family[1].JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}})
	require.NoError(t, err)
	events := s.SecurityEvents()
	require.Len(t, events, 1)
	event, err := s.client.SecurityEvents.Resolve(t.Context(), events[0].ID)
	require.NoError(t, err)
	for _, ref := range []string{"incident:" + event.ID, event.ID} {
		pack, verified := s.export(t, scopeOf(stack.EvidenceIncident, ref))
		assert.Equal(t, "incident:"+event.ID, pack.PackClaim.Scope.Ref, "one form is kept")
		m := verified.Manifest
		var jtis, actions []string
		for _, p := range m.Passports {
			jtis = append(jtis, p.Passport.JTI)
		}
		for _, row := range m.Audit {
			actions = append(actions, row.Action)
			assert.NotEqual(t, root.JTI, row.PassportJTI)
		}
		assert.Equal(t, []string{family[1].JTI, family[2].JTI}, jtis, "the passport and what was delegated from it")
		assert.Equal(t, []stack.SecurityEvent{*event}, m.SecurityEvents)
		for _, action := range []string{"detector.credential_outside_scope", "passport.revoke", "passport.revoke_cascade", "security_event.resolve"} {
			assert.Contains(t, actions, action)
		}
	}
}

func TestEvidenceOfAnIncidentWithoutAPassport(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	for range 20 {
		_, err := s.do(t, &stack.Passport{Token: stack.NewSecret("not.a.token")}, post("#x"))
		require.Error(t, err)
	}
	events := s.SecurityEvents()
	require.NotEmpty(t, events)
	require.Equal(t, "auth_failure_burst", events[0].SignalType)
	_, verified := s.export(t, scopeOf(stack.EvidenceIncident, "incident:"+events[0].ID))
	m := verified.Manifest
	assert.Equal(t, []any{0, 0, 1, 1}, []any{len(m.Missions), len(m.Passports), len(m.SecurityEvents), len(m.Audit)})
	assert.Equal(t, "detector.auth_failure_burst", m.Audit[0].Action)
}

func TestEvidenceOfAPeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // which begins on 2000-01-01
		s := newStage(t, stack.Logged)
		first, _ := s.ranMission(t)
		time.Sleep(91*24*time.Hour - time.Hour) // 2000-03-31 23:00
		across := s.mission(t, 2*time.Hour)
		time.Sleep(3 * time.Hour)
		second, _ := s.ranMission(t)
		ids := func(m stack.EvidenceManifest) (list []string) {
			for _, mission := range m.Missions {
				list = append(list, mission.MissionID)
			}
			return list
		}
		_, q1 := s.export(t, scopeOf(stack.EvidencePeriod, "period:2000-Q1"))
		_, q2 := s.export(t, scopeOf(stack.EvidencePeriod, "2000-Q2"))
		assert.Equal(t, []string{first, across}, ids(q1.Manifest))
		assert.Equal(t, []string{across, second}, ids(q2.Manifest), "a Mission across the border is in both")
		april := time.Date(2000, 4, 1, 0, 0, 0, 0, time.UTC)
		assert.Equal(t, []time.Time{april.AddDate(0, -3, 0), april}, []time.Time{q1.Manifest.From, q1.Manifest.To})
		assert.Equal(t, []time.Time{april, april.AddDate(0, 3, 0)}, []time.Time{q2.Manifest.From, q2.Manifest.To})
		assert.Equal(t, "period:2000-Q2", q2.Manifest.Scope.Ref)
		rows := append(append([]stack.AuditEntry{}, q1.Manifest.Audit...), q2.Manifest.Audit...)
		all := s.Audit()
		assert.Equal(t, all[:len(rows)], rows, "all rows of the two quarters, each once")
		assert.Equal(t, "evidence_pack.export", all[len(rows)].Action)
		assert.Len(t, q1.Manifest.SecurityEvents, 1)
		assert.Len(t, q2.Manifest.SecurityEvents, 1)
		_, empty := s.export(t, scopeOf(stack.EvidencePeriod, "period:1999-Q4"))
		assert.Empty(t, empty.Manifest.Audit)
		assert.Contains(t, empty.Manifest.Sections, "audit")
		_, err := s.client.EvidencePacks.Export(t.Context(), scopeOf(stack.EvidencePeriod, "period:2000-Q3"))
		refused := requireRefused(t, err, 400, "INVALID_REQUEST")
		assert.Equal(t, "a quarter that has begun", refused.Details["allowed"])
	})
}

func TestAirGappedEvidence(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id, _ := s.ranMission(t)
	p := scopeOf(stack.EvidenceMission, id)
	p.AirGap = true
	pack, verified := s.export(t, p)
	assert.True(t, pack.PackClaim.AirGap)
	m := verified.Manifest
	keys, err := stack.ParseJWKS(m.Keys)
	require.NoError(t, err)
	assert.Equal(t, deploymentKeys(t, s.Server), keys)
	require.Len(t, m.OperatorReviews, 1)
	claim, err := stack.VerifyClaim(m.OperatorReviews[0].EnvelopeCOSE, keys)
	require.NoError(t, err)
	var buf bytes.Buffer
	_, err = s.client.Missions.DownloadOperatorReview(t.Context(), id, m.OperatorReviews[0].ClaimID, &buf)
	require.NoError(t, err)
	assert.Equal(t, base64.RawURLEncoding.EncodeToString(buf.Bytes()), m.OperatorReviews[0].EnvelopeCOSE)
	var fields map[string]any
	require.NoError(t, claim.Decode(&fields))
	assert.Equal(t, "operator_review", fields["type"])
}

func TestSupersededEvidence(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id, _ := s.ranMission(t)
	other, _ := s.ranMission(t)
	p := scopeOf(stack.EvidenceMission, id)
	old, _ := s.export(t, p)
	p.Supersedes = old.PackID
	pack, verified := s.export(t, p)
	assert.Equal(t, []string{old.PackID, old.PackID}, []string{pack.PackClaim.Supersedes, verified.Manifest.Supersedes})
	got, err := s.client.EvidencePacks.Get(t.Context(), old.PackID)
	require.NoError(t, err)
	assert.Equal(t, pack.PackID, got.SupersededBy)
	assert.Equal(t, old.EnvelopeCOSE, got.EnvelopeCOSE, "what was signed stays as it was")

	_, err = s.client.EvidencePacks.Export(t.Context(), p)
	require.ErrorIs(t, err, stack.ErrConflict)
	refused := requireRefused(t, err, 409, "EVIDENCE_PACK_SUPERSEDED")
	assert.Equal(t, pack.PackID, refused.Details["superseded_by"])
	wrong := scopeOf(stack.EvidenceMission, other)
	wrong.Supersedes = pack.PackID
	_, err = s.client.EvidencePacks.Export(t.Context(), wrong)
	refused = requireRefused(t, err, 400, "INVALID_REQUEST")
	assert.Equal(t, "body.supersedes", refused.Details["field"])
	wrong.Supersedes = "ep_unknown"
	_, err = s.client.EvidencePacks.Export(t.Context(), wrong)
	requireRefused(t, err, 404, "NOT_FOUND")
	list, err := s.client.EvidencePacks.List(t.Context(), stack.EvidencePackListParams{})
	require.NoError(t, err)
	assert.Len(t, list, 2, "a refused export leaves nothing")
}

func TestListEvidence(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	list, err := s.client.EvidencePacks.List(t.Context(), stack.EvidencePackListParams{})
	require.NoError(t, err)
	assert.Empty(t, list)
	id, _ := s.ranMission(t)
	quarter := s.quarter()
	event := s.SecurityEvents()[0].ID
	first, _ := s.export(t, scopeOf(stack.EvidenceMission, id))
	second, _ := s.export(t, scopeOf(stack.EvidencePeriod, quarter))
	third, _ := s.export(t, scopeOf(stack.EvidenceIncident, event))
	tests := []struct {
		name  string
		scope stack.EvidenceScope
		want  []*stack.EvidencePack
	}{
		{"all, newest first", stack.EvidenceScope{}, []*stack.EvidencePack{third, second, first}},
		{"a Mission", stack.EvidenceScope{Kind: stack.EvidenceMission, Ref: id}, []*stack.EvidencePack{first}},
		{"a period", stack.EvidenceScope{Kind: stack.EvidencePeriod, Ref: quarter}, []*stack.EvidencePack{second}},
		{"a period without its prefix", stack.EvidenceScope{Kind: stack.EvidencePeriod, Ref: strings.TrimPrefix(quarter, "period:")}, []*stack.EvidencePack{second}},
		{"an incident", stack.EvidenceScope{Kind: stack.EvidenceIncident, Ref: "incident:" + event}, []*stack.EvidencePack{third}},
		{"none", stack.EvidenceScope{Kind: stack.EvidenceSession, Ref: "ses_unknown"}, []*stack.EvidencePack{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			list, err := s.client.EvidencePacks.List(t.Context(), stack.EvidencePackListParams{Scope: test.scope})
			require.NoError(t, err)
			want := []stack.EvidencePack{}
			for _, p := range test.want {
				item := *p
				item.Manifest, item.EnvelopeCOSE = nil, ""
				want = append(want, item)
			}
			assert.Equal(t, want, list)
		})
	}
	for _, bad := range []string{"mission", "mission:", "nobody:x", ":", "period:2026", "mission:agt_1"} {
		err := s.client.Do(t.Context(), "GET", "/v1/evidence-packs?scope="+bad, nil, nil)
		refused := requireRefused(t, err, 400, "INVALID_REQUEST")
		assert.Contains(t, refused.Details["field"], "query.scope", bad)
	}
}

func TestEvidenceRefuses(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	packs := s.client.EvidencePacks
	for name, test := range map[string]struct {
		scope stack.EvidenceScope
		param string
	}{
		"no kind":      {stack.EvidenceScope{Ref: "ms_1"}, "scope.kind"},
		"another kind": {stack.EvidenceScope{Kind: "agent", Ref: "agt_1"}, "scope.kind"},
		"no reference": {stack.EvidenceScope{Kind: stack.EvidenceMission}, "scope.ref"},
	} {
		_, err := packs.Export(t.Context(), stack.EvidencePackExportParams{Scope: test.scope})
		requireParam(t, err, test.param)
		if name == "no kind" || name == "another kind" {
			_, err = packs.List(t.Context(), stack.EvidencePackListParams{Scope: test.scope})
			requireParam(t, err, test.param)
		}
	}
	for name, test := range map[string]struct {
		kind stack.EvidenceScopeKind
		ref  string
		code string
	}{
		"another kind of id":     {stack.EvidenceMission, "ses_1", "INVALID_REQUEST"},
		"a path":                 {stack.EvidenceMission, "ms_../x", "INVALID_REQUEST"},
		"a line break":           {stack.EvidenceMission, "ms_1\n", "INVALID_REQUEST"},
		"a session's form":       {stack.EvidenceSession, "x", "INVALID_REQUEST"},
		"an empty incident":      {stack.EvidenceIncident, "incident:", "INVALID_REQUEST"},
		"a fifth quarter":        {stack.EvidencePeriod, "period:2026-Q5", "INVALID_REQUEST"},
		"a month":                {stack.EvidencePeriod, "period:2026-01", "INVALID_REQUEST"},
		"an unknown Mission":     {stack.EvidenceMission, "ms_unknown", "NOT_FOUND"},
		"an unknown session":     {stack.EvidenceSession, "ses_unknown", "NOT_FOUND"},
		"an unknown incident":    {stack.EvidenceIncident, "incident:sev_unknown", "NOT_FOUND"},
		"a quarter far too late": {stack.EvidencePeriod, "period:9999-Q4", "INVALID_REQUEST"},
	} {
		_, err := packs.Export(t.Context(), scopeOf(test.kind, test.ref))
		status := map[string]int{"INVALID_REQUEST": 400, "NOT_FOUND": 404}[test.code]
		refused := requireRefused(t, err, status, test.code)
		if status == 400 {
			assert.Equal(t, "body.scope.ref", refused.Details["field"], name)
			assert.NotEmpty(t, refused.Details["allowed"], name)
		}
	}
	err := s.client.Do(t.Context(), "POST", "/v1/evidence-packs", map[string]any{"scope": map[string]any{"kind": "agent", "ref": "x"}}, nil)
	refused := requireRefused(t, err, 400, "INVALID_REQUEST")
	assert.Equal(t, "one of mission, session, incident, period", refused.Details["allowed"])
	_, err = packs.Get(t.Context(), "ep_unknown")
	requireRefused(t, err, 404, "NOT_FOUND")
	requireParam(t, failure(packs.Get(t.Context(), "")), "pack_id")
	_, err = packs.Download(t.Context(), "ep_unknown", io.Discard)
	requireRefused(t, err, 404, "NOT_FOUND")
	requireParam(t, failure(packs.Download(t.Context(), "", io.Discard)), "pack_id")
	assert.Zero(t, s.countRows("evidence_pack.export"))
}

func TestEvidenceIsOfTheEnterprisePlan(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id, _ := s.ranMission(t)
	pack, _ := s.export(t, scopeOf(stack.EvidenceMission, id))
	packs := s.client.EvidencePacks
	for _, tier := range []stack.Tier{stack.TierFree, stack.TierDeveloper, stack.TierStudio} {
		s.SetPolicy(stacktest.Policy{Tier: tier})
		for name, call := range map[string]func() error{
			"export":   func() error { return failure(packs.Export(t.Context(), scopeOf(stack.EvidenceMission, id))) },
			"list":     func() error { return failure(packs.List(t.Context(), stack.EvidencePackListParams{})) },
			"get":      func() error { return failure(packs.Get(t.Context(), pack.PackID)) },
			"download": func() error { return failure(packs.Download(t.Context(), pack.PackID, io.Discard)) },
		} {
			refused := requireRefused(t, call(), 403, "TIER_LIMIT_EXCEEDED")
			assert.Equal(t, []any{"enterprise", string(tier)}, []any{refused.Details["allowed"], refused.Details["tier"]}, name)
		}
	}
}

func TestEvidenceIsNotForMembers(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	member, err := s.client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "a@example.com", Name: "A", Role: stack.RoleAdmin})
	require.NoError(t, err)
	key, err := s.AcceptInvitation(member.ID)
	require.NoError(t, err)
	packs := s.Client(stack.WithAPIKey(key.Reveal())).EvidencePacks
	require.ErrorIs(t, failure(packs.List(t.Context(), stack.EvidencePackListParams{})), stack.ErrForbidden)
	require.ErrorIs(t, failure(packs.Export(t.Context(), scopeOf(stack.EvidenceMission, "ms_1"))), stack.ErrForbidden)
}
