package stack_test

import (
	"bytes"
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

func TestMissionRulesOnTheWire(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id := s.mission(t, time.Hour)
	open := func(field string, value any) map[string]any {
		return map[string]any{"intent_summary": "x", field: value}
	}
	tests := map[string]struct {
		method, path string
		body         map[string]any
		field        string
	}{
		"no summary":             {"POST", "/v1/missions", map[string]any{}, "body.intent_summary"},
		"a blank summary":        {"POST", "/v1/missions", map[string]any{"intent_summary": " \n"}, "body.intent_summary"},
		"too long a life":        {"POST", "/v1/missions", open("expires_in_seconds", 86401), "body.expires_in_seconds"},
		"a life of less":         {"POST", "/v1/missions", open("expires_in_seconds", -1), "body.expires_in_seconds"},
		"a life beyond numbers":  {"POST", "/v1/missions", open("expires_in_seconds", 1e300), "body.expires_in_seconds"},
		"too long a duration":    {"POST", "/v1/missions", open("max_duration_seconds", 86401), "body.max_duration_seconds"},
		"a negative size":        {"POST", "/v1/missions", open("max_dropoff_bytes", -1), "body.max_dropoff_bytes"},
		"a negative coverage":    {"POST", "/v1/missions", open("coverage_cap_cents", -1), "body.coverage_cap_cents"},
		"a negative concurrency": {"POST", "/v1/missions", open("max_concurrent_intents", -1), "body.max_concurrent_intents"},
		"an empty behaviour": {"POST", "/v1/missions", open("cap_behavior", map[string]any{"max_actions": ""}),
			"body.cap_behavior.max_actions"},
		"many services":          {"POST", "/v1/missions", open("intent_services", make([]string, 65)), "body.intent_services"},
		"a text for a number":    {"POST", "/v1/missions", open("max_actions", "5"), "body.max_actions"},
		"an unknown field":       {"POST", "/v1/missions", open("max_fun", 1), "body.max_fun"},
		"a key without a fleet":  {"POST", "/v1/missions", open("idempotency_key", "once"), "body.idempotency_key"},
		"access without a fleet": {"POST", "/v1/missions", open("requested_access", []any{}), "body.requested_access"},
		"operations likewise":    {"POST", "/v1/missions", open("requested_operations", []any{}), "body.requested_operations"},
		"limits likewise":        {"POST", "/v1/missions", open("limits", map[string]any{}), "body.limits"},
		"a start without agent": {"POST", "/v1/missions/start", map[string]any{"mission": open("max_actions", 1)},
			"body.agent_id"},
		"a start of nothing": {"POST", "/v1/missions/start", map[string]any{"agent_id": s.agent.ID}, "body.mission"},
		"a bad Mission in it": {"POST", "/v1/missions/start",
			map[string]any{"agent_id": s.agent.ID, "mission": open("max_actions", -1)},
			"body.mission.max_actions"},
		"another's Mission in it": {"POST", "/v1/missions/start",
			map[string]any{"agent_id": s.agent.ID, "mission": open("agent_id", "agt_x")},
			"body.mission.agent_id"},
		"a fleet's start": {"POST", "/v1/missions/start",
			map[string]any{"fleet_policy_id": "flp_x", "idempotency_key": "once"}, "body.agent_id"},
		"two forms of a start": {"POST", "/v1/missions/start", map[string]any{"agent_id": s.agent.ID,
			"mission": open("max_actions", 1), "intent_summary": "x"}, "body.intent_summary"},
		"a renewal of what":  {"POST", "/v1/missions/" + id + "/renew", map[string]any{"ttl_seconds": 60}, "body"},
		"an output as text":  {"POST", "/v1/missions/" + id + "/complete", map[string]any{"output": "done"}, "body.output"},
		"no reason":          {"POST", "/v1/missions/" + id + "/revoke", map[string]any{"notes": "x"}, "body.reason"},
		"an empty reason":    {"POST", "/v1/missions/" + id + "/revoke", map[string]any{"reason": ""}, "body.reason"},
		"page 0":             {"GET", "/v1/missions?page=0", nil, "query.page"},
		"limit 0":            {"GET", "/v1/missions?limit=0", nil, "query.limit"},
		"limit 101":          {"GET", "/v1/missions?limit=101", nil, "query.limit"},
		"a page of words":    {"GET", "/v1/missions?page=first", nil, "query.page"},
		"a page twice":       {"GET", "/v1/missions?page=1&page=2", nil, "query.page"},
		"a status like none": {"GET", "/v1/missions?status=not_found", nil, "query.status"},
		"an unknown filter":  {"GET", "/v1/missions?agent_id=agt_x", nil, "query.agent_id"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var body any
			if tc.body != nil {
				body = tc.body
			}
			apiErr := requireRefused(t, s.client.Do(t.Context(), tc.method, tc.path, body, nil), http.StatusBadRequest,
				"INVALID_REQUEST")
			assert.Equal(t, tc.field, apiErr.Details["field"])
			assert.Contains(t, apiErr.Details, "allowed")
		})
	}
	t.Cleanup(func() {
		assert.Equal(t, 1, s.countRows("mission.open"))
		assert.Len(t, s.OpenMissions(), 1, "and it goes on")
	})
}

// What was declared can be read again.
func TestMissionKeepsWhatItDeclared(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	opened, err := s.client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x",
		ExpectedCounterparties: []string{"acme"},
		BaselineProfile:        map[string]any{"a": 1.0}, ExpectedOutputShape: map[string]any{"b": "c"}, ParentPassportServices: []string{"slack"}})
	require.NoError(t, err)
	record, err := s.client.Missions.Get(t.Context(), opened.MissionID)
	require.NoError(t, err)
	assert.Equal(t, []any{[]string{"acme"}, map[string]any{"a": 1.0}, map[string]any{"b": "c"}, []string{"slack"}},
		[]any{record.ExpectedCounterparties, record.BaselineProfile, record.ExpectedOutputShape, record.ParentPassportServices})
	mirrored, ok := s.Mission(opened.MissionID)
	require.True(t, ok)
	assert.Equal(t, *record, mirrored)
}

// Everything under a Mission dies with it, once, and with its reason.
func TestMissionTakesItsPassportsWithIt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end    func(*testing.T, *stage, string)
		reason string
		action string
		state  string
	}{
		"completed": {func(t *testing.T, s *stage, id string) {
			require.NoError(t, failure(s.client.Missions.Complete(t.Context(), id, stack.MissionCompleteParams{})))
		}, "Mission completed", "mission.complete", "completed_successful"},
		"revoked": {func(t *testing.T, s *stage, id string) {
			require.NoError(t, failure(s.client.Missions.Revoke(t.Context(), id,
				stack.MissionRevokeParams{Reason: stack.ReasonOperatorClean})))
		}, "Mission revoked", "mission.revoke", "revoked"},
		"expired": {func(*testing.T, *stage, string) { time.Sleep(14 * time.Minute) }, "Mission expired", "mission.expire",
			"expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				id := s.mission(t, 14*time.Minute)
				issue := func() *stack.Passport {
					p, err := s.client.Passports.Issue(t.Context(), s.issueParams(id))
					require.NoError(t, err)
					return p
				}
				root, done, killed := issue(), issue(), issue()
				child, err := s.delegate(t, root)
				require.NoError(t, err)
				orphan, err := s.delegate(t, done)
				require.NoError(t, err)
				_, err = s.client.Passports.Checkpoint(t.Context(), child.JTI, stack.CheckpointParams{})
				require.NoError(t, err)
				require.NoError(t, failure(s.client.Passports.Checkout(t.Context(), done.JTI, stack.CheckpointParams{})))
				require.NoError(t, failure(s.client.Passports.Revoke(t.Context(), killed.JTI, "rogue")))
				tc.end(t, s, id)
				rows := s.revocations(t)
				assert.Equal(t, "passport.revoke", rows[root.JTI])
				assert.NotContains(t, rows, done.JTI, "it has had its end")
				assert.Equal(t, "rogue", s.RequireRevoked(t, killed.JTI))
				if name == "expired" { // enforced, and silent since long
					assert.Contains(t, s.RequireRevoked(t, child.JTI), "checkpoint_silence_fire:")
				} else {
					assert.Equal(t, "passport.revoke_cascade", rows[child.JTI])
					assert.Equal(t, tc.reason, s.RequireRevoked(t, orphan.JTI), "what a checked-out passport handed on")
				}
				assert.Equal(t, tc.reason, s.RequireRevoked(t, root.JTI))
				assert.Equal(t, 1, s.countRows(tc.action))
				again, err := s.client.Missions.Complete(t.Context(), id,
					stack.MissionCompleteParams{Output: map[string]any{"too": "late"}})
				require.NoError(t, err)
				assert.Equal(t, tc.state, again.TerminalState)
				assert.False(t, again.Transitioned)
				record, err := s.client.Missions.Get(t.Context(), id)
				require.NoError(t, err)
				assert.Equal(t, again.CompletedAt, record.EndedAt)
				assert.Nil(t, record.Output)
				assert.Equal(t, 1, s.countRows(tc.action), "a Mission ends once")
			})
		})
	}
}

// A start that cannot issue its passport leaves a revoked Mission, and says why.
func TestStartThatFails(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	slack := s.agent.Connections["slack"]
	intent := &stack.Intent{Summary: "x", Services: []string{"slack"}}
	for name, tc := range map[string]struct {
		passport *stack.MissionPassportParams
		code     string
	}{
		"no intent": {nil, "ACCOUNTABILITY_REQUIRED"},
		"escalation": {&stack.MissionPassportParams{Intent: intent,
			Scopes: []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: []string{"admin"}}}}, "SCOPE_ESCALATION"},
		"a weaker mode": {&stack.MissionPassportParams{Intent: intent, AccountabilityMode: stack.Logged}, "INVALID_REQUEST"},
		"a claim":       {&stack.MissionPassportParams{Intent: intent, IdentityClaimIDs: []string{"clm_x"}}, "NOT_FOUND"},
	} {
		_, err := s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: s.agent.ID,
			Mission:  stack.MissionOpenParams{IntentSummary: "x"},
			Passport: tc.passport})
		var apiErr *stack.Error
		require.ErrorAs(t, err, &apiErr, name)
		require.Equal(t, tc.code, apiErr.Code, name)
		page, err := s.client.Missions.List(t.Context(), stack.MissionListParams{Limit: 1})
		require.NoError(t, err)
		m := page.Items[0]
		assert.Equal(t, []any{stack.MissionRevoked, "operator_initiated_clean", "the passport could not be issued"},
			[]any{m.Status, m.EndReason, m.EndNotes}, name)
		assert.Empty(t, m.Passports)
	}
	assert.Empty(t, s.OpenMissions())
	requireParam(t, failure(s.client.Missions.Start(t.Context(),
		stack.MissionStartParams{AgentID: s.agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "x"},
			Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "x", Services: []string{"slack"},
				EstimatedDuration: 1500 * time.Millisecond}}})),
		"intent.estimated_duration_seconds")
}

// A renewal gives the same permission as far as it still stands.
func TestRenewalGoesByTheGrant(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	slack := s.agent.Connections["slack"]
	id := s.mission(t, time.Hour)
	first, err := s.client.Passports.Issue(t.Context(), s.issueParams(id, func(p *stack.PassportIssueParams) {
		p.TTL = 10 * time.Minute
		p.Scopes = []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes[:1], AllowDataFrom: []string{}}}
	}))
	require.NoError(t, err)
	child, err := s.delegate(t, first)
	require.NoError(t, err)
	require.NotEmpty(t, child.JTI)
	renewed, err := s.client.Missions.Renew(t.Context(), id)
	require.NoError(t, err)
	was, is := s.claims(t, first.Token).STK, s.claims(t, renewed.Passport.Token).STK
	assert.Equal(t, was.Services, is.Services)
	assert.Equal(t, []any{s.agent.ID, 0, was.IntentSummary, was.IntentServices},
		[]any{is.AgentID, is.DelegationDepth, is.IntentSummary, is.IntentServices},
		"the root's, not its delegate's")
	assert.NotEqual(t, was.SessionID, is.SessionID)

	enforced := stack.Enforced
	_, err = s.client.Agents.Update(t.Context(), s.agent.ID, stack.AgentUpdateParams{AccountabilityMode: &enforced})
	require.NoError(t, err)
	renewed, err = s.client.Missions.Renew(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, stack.Enforced, renewed.Passport.Accountability, "the agent is held to account more closely since")

	_, err = s.client.Services.GrantAgentAccess(t.Context(),
		stack.GrantParams{AgentID: s.agent.ID, ServiceConnectionID: slack.ID, Scopes: slack.Scopes[1:2]})
	require.NoError(t, err)
	mustRefuse(t, failure(s.client.Missions.Renew(t.Context(), id)), http.StatusBadRequest, "SCOPE_ESCALATION")
}

func TestMissionsAllPages(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged, stack.WithMaxRetries(0))
	for range 10 {
		s.mission(t, time.Hour)
	}
	walk := func(params stack.MissionListParams) (n int, errs []error) {
		for _, err := range s.client.Missions.All(t.Context(), params) {
			if err != nil {
				errs = append(errs, err)
				continue
			}
			assert.Empty(t, errs, "an error is the last")
			n++
		}
		return n, errs
	}
	n, errs := walk(stack.MissionListParams{Limit: 4, Page: 2})
	assert.Equal(t, 6, n, "from a page on")
	assert.Empty(t, errs)
	before := s.Requests()
	n, _ = walk(stack.MissionListParams{Limit: 5})
	assert.Equal(t, 10, n)
	assert.Equal(t, 3, s.Requests()-before, "a full last page asks once more")

	for _, status := range []stack.MissionState{"", stack.MissionLive} {
		all := s.client.Missions.All(t.Context(), stack.MissionListParams{Limit: 4, Status: status})
		second := transportFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Query().Get("page") == "2" {
				return nil, errors.New("the wire is cut")
			}
			return s.Transport().RoundTrip(r)
		})
		broken := s.Client(stack.WithMaxRetries(0), stack.WithHTTPClient(&http.Client{Transport: second}))
		var items, failures int
		for _, err := range broken.Missions.All(t.Context(), stack.MissionListParams{Limit: 4, Status: status}) {
			if err != nil {
				require.ErrorContains(t, err, "the wire is cut")
				failures++
				continue
			}
			items++
		}
		assert.Equal(t, []int{4, 1}, []int{items, failures}, "what was read comes first")
		for range 2 {
			n := 0
			for _, err := range all {
				require.NoError(t, err)
				n++
			}
			assert.Equal(t, 10, n, "each range starts over")
		}
	}
}

// The mock issues no dossiers, and no reviews in other forms than its own, so another server stands for the hosted one here.
func TestReviewsOfADashboard(t *testing.T) {
	t.Parallel()
	const items = `{"items":[
		{"claim_id":"pc_1","operator_id":"op_1","issued_at_ms":1767225600123,"claim":{"type":"dossier","incident_classification":"inconclusive"}},
		{"claim_id":"pc_2","operator_id":"op_1","issued_at_ms":1767225600124,"claim":{"type":"operator_review"}},
		{"claim_id":"pc_3","operator_id":"op_1","issued_at_ms":null,"body":{"type":"dossier","text":"<old>"}},
		{"claim_id":"pc_4","operator_id":"op_1","issued_at_ms":5,"claim":null}]}`
	client := stacktest.New(t).Client(stack.WithHTTPClient(&http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
		body := items
		if strings.HasSuffix(r.URL.Path, "/download") {
			body = "\xd2\x84cose"
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
			Request: r}, nil
	})}))
	reviews, err := client.Missions.ListOperatorReviews(t.Context(), "ms_1")
	require.NoError(t, err)
	require.Len(t, reviews, 4)
	assert.Equal(t, time.UnixMilli(1767225600123).UTC(), reviews[0].IssuedAt)
	dossiers, err := client.Missions.ListDossiers(t.Context(), "ms_1")
	require.NoError(t, err)
	assert.Equal(t, []stack.OperatorReview{
		{ClaimID: "pc_1", OperatorID: "op_1", IssuedAt: time.UnixMilli(1767225600123).UTC(),
			Body: map[string]any{"type": "dossier", "incident_classification": "inconclusive"}},
		{ClaimID: "pc_3", OperatorID: "op_1", Body: map[string]any{"type": "dossier", "text": "<old>"}},
	}, dossiers)
	var buf bytes.Buffer
	n, err := client.Missions.DownloadOperatorReview(t.Context(), "ms_1", "pc_1", &buf)
	require.NoError(t, err)
	assert.Equal(t, []any{int64(6), "\xd2\x84cose"}, []any{n, buf.String()}, "the exact bytes")
	_, err = client.Missions.DownloadOperatorReview(t.Context(), "ms_1", "pc_1", &failingWriter{})
	require.ErrorContains(t, err, "writing the review")
	requireParam(t, failure(client.Missions.DownloadOperatorReview(t.Context(), "ms_1", "", &buf)), "claim_id")
}
