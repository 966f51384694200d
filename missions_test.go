package stack_test

import (
	"errors"
	"io"
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

func TestMissionLifetimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		byDefault, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x"})
		require.NoError(t, err)
		assert.Equal(t, 15*time.Minute, byDefault.ExpiresAt.Sub(s.Now()))
		assert.True(t, strings.HasPrefix(byDefault.MissionID, "ms_"))
		assert.True(t, strings.HasPrefix(byDefault.ClaimID, "pc_"))
		longest, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x", ExpiresIn: 24 * time.Hour})
		require.NoError(t, err)
		assert.Equal(t, 24*time.Hour, longest.ExpiresAt.Sub(s.Now()))
		time.Sleep(15 * time.Minute)
		record, err := s.client.Missions.Get(t.Context(), byDefault.MissionID)
		require.NoError(t, err)
		assert.Equal(t, stack.MissionExpired, record.Status)
		assert.Equal(t, byDefault.ExpiresAt, record.EndedAt)
	})
}

func TestMissionRecord(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	params := stack.MissionOpenParams{IntentSummary: "All fields", AgentID: s.agent.ID, IntentServices: []string{"slack"}, ExpectedCounterparties: []string{"acme"},
		BaselineProfile: map[string]any{"a": 1.0}, ExpectedOutputShape: map[string]any{"b": 2.0}, MaxActions: 5, MaxActionsPerService: map[string]int{"slack": 3},
		MaxDropoffBytes: 100, MaxDuration: time.Hour, MaxConcurrentIntents: 2, CoverageCapCents: 900, CapBehavior: map[string]stack.CapBehavior{"max_actions": stack.CapWarn},
		ExpiresIn: 2 * time.Hour, ParentPassportServices: []string{"slack"}}
	opened, err := s.client.Missions.Open(t.Context(), params)
	require.NoError(t, err)
	record, err := s.client.Missions.Get(t.Context(), opened.MissionID)
	require.NoError(t, err)
	assert.Equal(t, opened.ClaimID, record.ClaimID)
	assert.Equal(t, s.agent.ID, record.AgentID)
	assert.Equal(t, stack.MissionLive, record.Status)
	assert.Equal(t, stack.MissionCaps{MaxActions: 5, MaxActionsPerService: map[string]int{"slack": 3}, MaxDropoffBytes: 100, MaxDurationSeconds: 3600,
		MaxConcurrentIntents: 2, CoverageCapCents: 900, CapBehavior: params.CapBehavior}, record.Caps)
	assert.Empty(t, record.Passports)
}

func TestOpenRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	bad := map[string]stack.MissionOpenParams{
		"body.intent_summary":                {IntentSummary: strings.Repeat("x", 501)},
		"body.intent_services[0]":            {IntentSummary: "x", IntentServices: []string{""}},
		"body.max_actions":                   {IntentSummary: "x", MaxActions: -1},
		"body.max_actions_per_service.slack": {IntentSummary: "x", MaxActionsPerService: map[string]int{"slack": -1}},
		"body.cap_behavior":                  {IntentSummary: "x", CapBehavior: map[string]stack.CapBehavior{"max_fun": stack.CapWarn}},
		"body.cap_behavior.max_actions":      {IntentSummary: "x", CapBehavior: map[string]stack.CapBehavior{"max_actions": "shrug"}},
	}
	for field, params := range bad {
		_, err := client.Missions.Open(t.Context(), params)
		apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, field, apiErr.Details["field"])
	}
	for name, params := range map[string]stack.MissionOpenParams{
		"agent":   {IntentSummary: "x", AgentID: "agt_x"},
		"binding": {IntentSummary: "x", AuthorityBindingIDs: []string{"b"}},
		"fleet":   {IntentSummary: "x", FleetPolicyID: "flp_x"},
	} {
		_, err := client.Missions.Open(t.Context(), params)
		require.ErrorIs(t, err, stack.ErrNotFound, name)
	}
	_, err := client.Missions.Open(t.Context(), stack.MissionOpenParams{})
	requireParam(t, err, "intent_summary")
	_, err = client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x", ExpiresIn: 25 * time.Hour})
	requireParam(t, err, "expires_in_seconds")
	_, err = client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x", MaxDuration: time.Millisecond})
	requireParam(t, err, "max_duration_seconds")
}

func TestStart(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	params := stack.MissionStartParams{AgentID: s.agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "x"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}}, TTL: time.Minute}}
	started, err := s.client.Missions.Start(t.Context(), params)
	require.NoError(t, err)
	assert.Equal(t, s.agent.ID, s.claims(t, started.Passport.Token).Subject)
	record, err := s.client.Missions.Get(t.Context(), started.MissionID)
	require.NoError(t, err)
	assert.Equal(t, s.agent.ID, record.AgentID, "the Mission is the agent's")
	assert.Equal(t, []string{started.Passport.JTI}, record.Passports)

	params.Passport = nil // an enforced agent must declare an intent, so the passport cannot be issued
	_, err = s.client.Missions.Start(t.Context(), params)
	require.ErrorIs(t, err, stack.ErrAccountabilityRequired)
	page, err := s.client.Missions.List(t.Context(), stack.MissionListParams{Status: stack.MissionLive})
	require.NoError(t, err)
	assert.Len(t, page.Items, 1, "nothing stays open behind it")
	_, err = s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: "agt_x", Mission: stack.MissionOpenParams{IntentSummary: "x"}})
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = s.client.Missions.Start(t.Context(), stack.MissionStartParams{Mission: stack.MissionOpenParams{IntentSummary: "x"}})
	requireParam(t, err, "agent_id")
	params.Mission.AgentID = "agt_other"
	_, err = s.client.Missions.Start(t.Context(), params)
	mustRefuse(t, err, 400, "INVALID_REQUEST")
}

func TestComplete(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id := s.mission(t, time.Hour)
	p, err := s.client.Passports.Issue(t.Context(), s.issueParams(id))
	require.NoError(t, err)
	end, err := s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{Output: map[string]any{"n": 1.0}})
	require.NoError(t, err)
	assert.Equal(t, "completed_successful", end.TerminalState)
	assert.True(t, end.Transitioned)
	assert.Equal(t, "Mission completed", s.RequireRevoked(t, p.JTI))
	again, err := s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{Output: map[string]any{"n": 2.0}})
	require.NoError(t, err)
	assert.False(t, again.Transitioned)
	assert.Equal(t, end.ClaimID, again.ClaimID)
	assert.Equal(t, end.CompletedAt, again.CompletedAt)
	revoked, err := s.client.Missions.Revoke(t.Context(), id, stack.MissionRevokeParams{Reason: stack.ReasonAdversarial})
	require.NoError(t, err)
	assert.Equal(t, "completed_successful", revoked.TerminalState, "it ended once")
	record, err := s.client.Missions.Get(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"n": 1.0}, record.Output)
}

func TestRevokeMission(t *testing.T) {
	t.Parallel()
	for _, reason := range []stack.RevokeReason{stack.ReasonAdversarial, stack.ReasonOperatorClean} {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Logged)
			id := s.mission(t, time.Hour)
			p, err := s.client.Passports.Issue(t.Context(), s.issueParams(id))
			require.NoError(t, err)
			end, err := s.client.Missions.Revoke(t.Context(), id, stack.MissionRevokeParams{Reason: reason, Notes: "because"})
			require.NoError(t, err)
			assert.Equal(t, "revoked", end.TerminalState)
			assert.Equal(t, "Mission revoked", s.RequireRevoked(t, p.JTI))
			record, err := s.client.Missions.Get(t.Context(), id)
			require.NoError(t, err)
			assert.Equal(t, string(reason), record.EndReason)
			assert.Equal(t, "because", record.EndNotes)
		})
	}
	s := newStage(t, stack.Logged)
	id := s.mission(t, time.Hour)
	_, err := s.client.Missions.Revoke(t.Context(), id, stack.MissionRevokeParams{Reason: "bored"})
	mustRefuse(t, err, 400, "INVALID_REQUEST")
	_, err = s.client.Missions.Revoke(t.Context(), id, stack.MissionRevokeParams{Reason: stack.ReasonAdversarial, Notes: strings.Repeat("x", 1001)})
	mustRefuse(t, err, 400, "INVALID_REQUEST")
	_, err = s.client.Missions.Revoke(t.Context(), id, stack.MissionRevokeParams{})
	requireParam(t, err, "reason")
}

func TestRenewMission(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	id := s.mission(t, time.Hour)
	_, err := s.client.Missions.Renew(t.Context(), id)
	apiErr := requireRefused(t, err, 403, "FORBIDDEN")
	assert.Equal(t, "mission_passport", apiErr.Details["check"])
	first, err := s.client.Passports.Issue(t.Context(), s.issueParams(id, func(p *stack.PassportIssueParams) { p.CheckpointInterval = 2 * time.Minute }))
	require.NoError(t, err)
	_, err = s.client.Proxy.Post(t.Context(), withPassport(post("#support"), first))
	require.NoError(t, err)
	before, err := s.client.Missions.Get(t.Context(), id)
	require.NoError(t, err)
	renewed, err := s.client.Missions.Renew(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, id, renewed.MissionID)
	assert.Equal(t, before.ExpiresAt, renewed.ExpiresAt, "the deadline stays")
	assert.NotEqual(t, first.JTI, renewed.Passport.JTI)
	assert.Equal(t, s.claims(t, first.Token).STK.Services, s.claims(t, renewed.Passport.Token).STK.Services, "the same permission")
	assert.Equal(t, 2*time.Minute, s.claims(t, renewed.Passport.Token).STK.CheckpointInterval)
	after, err := s.client.Missions.Get(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, before.Usage, after.Usage, "the same recorded usage")
	assert.Equal(t, 1, after.Usage.Actions)
}

func TestListMissions(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	var ids []string
	for range 25 {
		ids = append([]string{s.mission(t, time.Hour)}, ids...) // newest first
	}
	for _, id := range ids[:5] {
		_, err := s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{})
		require.NoError(t, err)
	}
	page, err := s.client.Missions.List(t.Context(), stack.MissionListParams{})
	require.NoError(t, err)
	assert.Len(t, page.Items, 20)
	assert.Equal(t, 25, page.Total)
	assert.Equal(t, ids[0], page.Items[0].MissionID)
	second, err := s.client.Missions.List(t.Context(), stack.MissionListParams{Page: 2})
	require.NoError(t, err)
	assert.Len(t, second.Items, 5)
	past, err := s.client.Missions.List(t.Context(), stack.MissionListParams{Page: 9, Limit: 100})
	require.NoError(t, err)
	assert.Empty(t, past.Items)
	completed, err := s.client.Missions.List(t.Context(), stack.MissionListParams{Status: stack.MissionCompleted})
	require.NoError(t, err)
	assert.Equal(t, 5, completed.Total)
	for _, bad := range []stack.MissionListParams{{Status: "lost"}, {Limit: 101}, {Page: -1}} {
		_, err := s.client.Missions.List(t.Context(), bad)
		mustRefuse(t, err, 400, "INVALID_REQUEST")
	}

	var all []string
	for m, err := range s.client.Missions.All(t.Context(), stack.MissionListParams{Limit: 7}) {
		require.NoError(t, err)
		all = append(all, m.MissionID)
	}
	assert.Equal(t, ids, all)
	before := s.Requests()
	for _, err := range s.client.Missions.All(t.Context(), stack.MissionListParams{Limit: 7}) {
		require.NoError(t, err)
		break
	}
	assert.Equal(t, 1, s.Requests()-before, "leaving the loop sends nothing more")
	ended := 0
	for m, err := range s.client.Missions.All(t.Context(), stack.MissionListParams{Status: stack.MissionLive, Limit: 7}) {
		require.NoError(t, err)
		_, err = s.client.Missions.Complete(t.Context(), m.MissionID, stack.MissionCompleteParams{})
		require.NoError(t, err)
		ended++
	}
	assert.Equal(t, 20, ended, "ending what the loop meets skips nothing")
	s.Fault(stacktest.Fault{Method: "GET", Path: "/v1/missions", Times: 1, Status: 418, Code: "TEAPOT"})
	var errs []error
	for _, err := range s.client.Missions.All(t.Context(), stack.MissionListParams{}) {
		errs = append(errs, err)
	}
	require.Len(t, errs, 1, "an error once and last")
	var apiErr *stack.Error
	require.True(t, errors.As(errs[0], &apiErr))
}

func TestMissionActivity(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	m := s.open(t)
	_, err := m.Proxy(t.Context(), post("#support"))
	require.NoError(t, err)
	require.NoError(t, m.Checkpoint(t.Context()))
	m.Close(nil)
	activity, err := s.client.Missions.Activity(t.Context(), m.ID())
	require.NoError(t, err)
	var types []string
	for _, e := range activity.Events {
		types = append(types, e.Type)
	}
	assert.Equal(t, []string{"mission.open", "passport.issue", "credential.proxy", "passport.checkpoint", "passport.checkout", "mission.complete"}, types)
	assert.Equal(t, 1, activity.Usage.Actions)
	assert.Equal(t, map[string]int{"slack": 1}, activity.Usage.ActionsPerService)
	data := activity.Events[2].Data
	assert.Equal(t, "https://slack.com/api/chat.postMessage", data["url"], "without its query")
}

func TestOperatorReviews(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id := s.mission(t, time.Hour)
	reviews, err := s.client.Missions.ListOperatorReviews(t.Context(), id)
	require.NoError(t, err)
	assert.Empty(t, reviews)
	dossiers, err := s.client.Missions.ListDossiers(t.Context(), id)
	require.NoError(t, err)
	assert.Empty(t, dossiers)
	_, err = s.client.Missions.DownloadOperatorReview(t.Context(), id, "clm_x", io.Discard)
	mustRefuse(t, err, 404, "NOT_FOUND")
}

func TestUnknownMissions(t *testing.T) {
	t.Parallel()
	missions := stacktest.New(t).Client().Missions
	calls := map[string]func(id string) error{
		"get":   func(id string) error { _, err := missions.Get(t.Context(), id); return err },
		"renew": func(id string) error { _, err := missions.Renew(t.Context(), id); return err },
		"complete": func(id string) error {
			_, err := missions.Complete(t.Context(), id, stack.MissionCompleteParams{})
			return err
		},
		"revoke": func(id string) error {
			_, err := missions.Revoke(t.Context(), id, stack.MissionRevokeParams{Reason: stack.ReasonAdversarial})
			return err
		},
		"activity": func(id string) error { _, err := missions.Activity(t.Context(), id); return err },
		"reviews":  func(id string) error { _, err := missions.ListOperatorReviews(t.Context(), id); return err },
		"dossiers": func(id string) error { _, err := missions.ListDossiers(t.Context(), id); return err },
		"download": func(id string) error {
			_, err := missions.DownloadOperatorReview(t.Context(), id, "clm_x", io.Discard)
			return err
		},
	}
	for name, call := range calls {
		require.ErrorIs(t, call("ms_unknown"), stack.ErrNotFound, name)
		requireParam(t, call(""), "mission_id")
	}
}
