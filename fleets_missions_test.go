package stack_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// The scenario of the package's own description. (contract: endpoints 3.8)
func TestFleetAcceptance(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, missions := t.Context(), s.client.Missions
	member := s.FleetMember(t, s.activate(t).ID)
	request := s.startParams(member)
	started, err := missions.Start(ctx, request)
	require.NoError(t, err)
	repeated, err := missions.Start(ctx, request)
	require.NoError(t, err)
	assert.Equal(t, started, repeated)

	sum := sha256.Sum256(fmt.Appendf(nil, `["%s", "support-update"]`, started.MissionID))
	operation := hex.EncodeToString(sum[:])
	call := withPassport(post("C123"), &started.Passport)
	call.OperationID = operation
	resp, err := s.client.Proxy.Post(ctx, call)
	require.NoError(t, err)
	assert.Equal(t, 200, resp.Status)
	call = withPassport(post("OTHER"), &started.Passport)
	call.OperationID = operation + "_denied"
	_, err = s.client.Proxy.Post(ctx, call)
	require.ErrorIs(t, err, stack.ErrFleetOperationNotAllowed)
	apiErr := requireRefused(t, err, http.StatusForbidden, "FLEET_OPERATION_NOT_ALLOWED")
	assert.Equal(t, []any{`post-update: body.channel is "OTHER"; allowed: "C123"`}, apiErr.Details["operations"])

	before, err := missions.Get(ctx, started.MissionID)
	require.NoError(t, err)
	renewed, err := missions.Renew(ctx, started.MissionID)
	require.NoError(t, err)
	after, err := missions.Get(ctx, renewed.MissionID)
	require.NoError(t, err)
	assert.Equal(t, started.MissionID, renewed.MissionID)
	assert.NotEqual(t, started.Passport.JTI, renewed.Passport.JTI)
	assert.Equal(t, before.Fleet, after.Fleet)
	assert.Equal(t, before.ExpiresAt, after.ExpiresAt)
	assert.Equal(t, stack.FleetLimits{MaxActions: 10, MaxActionsPerService: nil}, after.Fleet.Limits)
	assert.Equal(t, stack.FleetUsage{MissionUsage: stack.MissionUsage{Actions: 1, ActionsPerService: map[string]int{"slack": 1}},
		CallsPerOperation: map[string]int{"post-update": 1}}, after.Fleet.Usage)
	end, err := missions.Complete(ctx, started.MissionID, stack.MissionCompleteParams{Output: map[string]any{"done": true}})
	require.NoError(t, err)
	assert.Equal(t, "completed_successful", end.TerminalState)

	request.Mission.IdempotencyKey += "-stop"
	stopped, err := missions.Start(ctx, request)
	require.NoError(t, err)
	assert.NotEqual(t, started.MissionID, stopped.MissionID)
	_, err = missions.Revoke(ctx, stopped.MissionID, stack.MissionRevokeParams{Reason: stack.ReasonOperatorClean})
	require.NoError(t, err)
	var ended *stack.MissionEndedError
	require.ErrorAs(t, failure(missions.Renew(ctx, stopped.MissionID)), &ended)
	assert.Equal(t, stack.MissionRevoked, ended.State)
}

func TestFleetMissionStart(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx := t.Context()
	f := s.activate(t)
	member := s.FleetMember(t, f.ID)
	started := s.start(t, member)
	claims := s.claims(t, started.Passport.Token)
	require.Len(t, claims.STK.Services, 1, "though no grant was made")
	assert.Equal(t, s.slack.ID, claims.STK.Services[0].ConnectionID)
	assert.Equal(t, "Post support updates", claims.STK.IntentSummary)
	assert.Equal(t, []string{"slack"}, claims.STK.IntentServices)
	assert.Equal(t, stack.Logged, claims.STK.Accountability)
	record, err := s.client.Missions.Get(ctx, started.MissionID)
	require.NoError(t, err)
	require.NotNil(t, record.Fleet)
	assert.Equal(t, f.ID, record.Fleet.FleetPolicyID)
	assert.Equal(t, 1, record.Fleet.Revision)
	assert.Equal(t, f.Definition.Operations, record.Fleet.Operations)
	assert.Equal(t, 10, record.Caps.MaxActions)
	policy, err := s.client.Fleets.Get(ctx, f.ID)
	require.NoError(t, err)
	assert.Equal(t, 1, policy.LiveMissions)

	own := s.start(t, member, func(p *stack.MissionStartParams) {
		p.Mission.IntentServices = []string{"slack"}
		p.Passport = &stack.MissionPassportParams{TTL: 2 * time.Minute, AccountabilityMode: stack.Enforced,
			Intent: &stack.Intent{Summary: "Its own", Services: []string{"slack"}}}
	})
	claims = s.claims(t, own.Passport.Token)
	assert.Equal(t, "Its own", claims.STK.IntentSummary)
	assert.Equal(t, stack.Enforced, claims.STK.Accountability)
	assert.Equal(t, 2*time.Minute, claims.ExpiresAt.Sub(claims.IssuedAt))
}

// Either way of writing a fleet's start is understood.
func TestFleetStartOnTheWire(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	member := s.FleetMember(t, s.activate(t).ID)
	flat := map[string]any{"fleet_policy_id": member.FleetPolicyID, "agent_id": member.AgentID, "idempotency_key": "wire",
		"intent_summary": "Post", "expires_in_seconds": 600, "passport": map[string]any{"ttl_seconds": 60}}
	started := s.raw(t, "POST", "/v1/missions/start", flat)
	assert.Equal(t, "claim_id expires_at mission_id passport", keys(started))
	record := s.raw(t, "GET", "/v1/missions/"+started["mission_id"].(string), nil)
	assert.Equal(t, "access fleet_policy_id limits operations revision usage", keys(record["fleet"].(map[string]any)))

	nested := map[string]any{"agent_id": member.AgentID, "passport": map[string]any{"ttl_seconds": 60}, "mission": map[string]any{
		"fleet_policy_id": member.FleetPolicyID, "idempotency_key": "wire", "intent_summary": "Post", "expires_in_seconds": 600}}
	assert.Equal(t, started, s.raw(t, "POST", "/v1/missions/start", nested), "the same request in its other form")

	for name, tc := range map[string]struct {
		change func(map[string]any)
		field  string
	}{
		"no key":        {func(b map[string]any) { delete(b, "idempotency_key") }, "body.idempotency_key"},
		"no agent":      {func(b map[string]any) { delete(b, "agent_id") }, "body.agent_id"},
		"no summary":    {func(b map[string]any) { delete(b, "intent_summary") }, "body.intent_summary"},
		"unknown field": {func(b map[string]any) { b["nonsense"] = 1 }, "body.nonsense"},
		"both forms":    {func(b map[string]any) { b["mission"] = map[string]any{"intent_summary": "x"} }, "body.intent_summary"},
		"wrong type":    {func(b map[string]any) { b["limits"] = "none" }, "body.limits"},
		"unknown limit": {func(b map[string]any) { b["limits"] = map[string]any{"max_fun": 1} }, "body.limits.max_fun"},
		"a passport's":  {func(b map[string]any) { b["passport"] = map[string]any{"ttl_seconds": 1} }, "body.ttl_seconds"},
		"a bad key within": {func(b map[string]any) {
			b["mission"] = map[string]any{"intent_summary": "x", "fleet_policy_id": b["fleet_policy_id"]}
			for _, name := range []string{"fleet_policy_id", "idempotency_key", "intent_summary", "expires_in_seconds"} {
				delete(b, name)
			}
		}, "body.mission.idempotency_key"},
		"a bad key":      {func(b map[string]any) { b["idempotency_key"] = "é" }, "body.idempotency_key"},
		"no access list": {func(b map[string]any) { b["requested_access"] = map[string]any{} }, "body.requested_access"},
	} {
		body := map[string]any{}
		for k, v := range flat {
			body[k] = v
		}
		body["idempotency_key"] = name
		tc.change(body)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := s.client.Do(t.Context(), "POST", "/v1/missions/start", body, nil)
			apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
			if name != "both forms" {
				assert.Equal(t, tc.field, apiErr.Details["field"])
			}
		})
	}
}

func TestFleetStartIsIdempotent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFleetStage(t)
		ctx, missions := t.Context(), s.client.Missions
		f := s.activate(t)
		member, other := s.FleetMember(t, f.ID), s.FleetMember(t, f.ID)
		params := s.startParams(member)
		first, err := missions.Start(ctx, params)
		require.NoError(t, err)
		changed := params
		changed.AgentID = other.AgentID
		require.ErrorIs(t, failure(missions.Start(ctx, changed)), stack.ErrIdempotencyKeyReused)
		opened, err := missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x", AgentID: member.AgentID, FleetPolicyID: f.ID,
			IdempotencyKey: params.Mission.IdempotencyKey})
		require.NoError(t, err, "a key belongs to its route")
		assert.NotEqual(t, first.MissionID, opened.MissionID)
		again, err := missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x", AgentID: member.AgentID, FleetPolicyID: f.ID,
			IdempotencyKey: params.Mission.IdempotencyKey})
		require.NoError(t, err)
		assert.Equal(t, opened, again)
		without, err := missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x", AgentID: member.AgentID, FleetPolicyID: f.ID})
		require.NoError(t, err)
		assert.NotEqual(t, opened.MissionID, without.MissionID)

		refused := s.startParams(member, func(p *stack.MissionStartParams) {
			p.Mission.Limits = &stack.FleetLimits{MaxActions: 11}
		})
		require.ErrorIs(t, failure(missions.Start(ctx, refused)), stack.ErrFleetLimitExceeded)
		refused.Mission.Limits = nil
		require.NoError(t, failure(missions.Start(ctx, refused)), "a refused start leaves its key free")
		requireParam(t, failure(missions.Start(ctx, s.startParams(member, func(p *stack.MissionStartParams) {
			p.Mission.IdempotencyKey = ""
		}))), "idempotency_key")

		time.Sleep(24 * time.Hour)
		late, err := missions.Start(ctx, params)
		require.NoError(t, err)
		assert.NotEqual(t, first.MissionID, late.MissionID, "the key is free after 24 hours")
	})
}

func TestFleetMissionRefusals(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	f := s.activate(t, func(d *stack.FleetDefinition) {
		d.MaxMissionTTL, d.MaxPassportTTL = time.Hour, 10*time.Minute
		d.Operations[0].MaxCalls = 3
		d.Operations = append(d.Operations, stack.FleetOperation{Name: "read", Service: "slack", Methods: []string{"GET"}})
		d.Limits = stack.FleetLimits{MaxActions: 10, MaxDropoffBytes: 10, MaxActionsPerService: map[string]int{"slack": 5}}
	})
	member := s.FleetMember(t, f.ID)
	elsewhere := s.FleetMember(t, s.activate(t).ID)
	limits := func(l stack.FleetLimits) func(*stack.MissionStartParams) {
		return func(p *stack.MissionStartParams) { p.Mission.Limits = &l }
	}
	operations := func(o ...stack.RequestedOperation) func(*stack.MissionStartParams) {
		return func(p *stack.MissionStartParams) { p.Mission.RequestedOperations = o }
	}
	access := func(a ...stack.PassportScope) func(*stack.MissionStartParams) {
		return func(p *stack.MissionStartParams) { p.Mission.RequestedAccess = a }
	}
	const invalid, limit, escalation = "INVALID_REQUEST", "FLEET_LIMIT_EXCEEDED", "SCOPE_ESCALATION"
	tests := map[string]struct {
		change func(*stack.MissionStartParams)
		status int
		code   string
		field  any
	}{
		"no member":        {func(p *stack.MissionStartParams) { p.AgentID = s.agent.ID }, 403, "FLEET_MEMBERSHIP_REQUIRED", nil},
		"of another fleet": {func(p *stack.MissionStartParams) { p.AgentID = elsewhere.AgentID }, 403, "FLEET_MEMBERSHIP_REQUIRED", nil},
		"no agent":         {func(p *stack.MissionStartParams) { p.AgentID = "agt_x" }, 404, "NOT_FOUND", nil},
		"no fleet":         {func(p *stack.MissionStartParams) { p.Mission.FleetPolicyID = "flp_x" }, 404, "NOT_FOUND", nil},
		"too long":         {func(p *stack.MissionStartParams) { p.Mission.ExpiresIn = 2 * time.Hour }, 403, limit, "body.expires_in_seconds"},
		"a long passport": {func(p *stack.MissionStartParams) { p.Passport = &stack.MissionPassportParams{TTL: time.Hour} }, 403, limit,
			"ttl_seconds"},
		"a weaker mode": {func(p *stack.MissionStartParams) {
			p.Passport = &stack.MissionPassportParams{AccountabilityMode: stack.Standard}
		}, 400, invalid, "body.accountability_mode"},
		"a cap":              {func(p *stack.MissionStartParams) { p.Mission.MaxActions = 1 }, 400, invalid, "body.max_actions"},
		"a cap of a service": {func(p *stack.MissionStartParams) { p.Mission.MaxActionsPerService = map[string]int{"slack": 1} }, 400, invalid, "body.max_actions_per_service"},
		"a cap that lets pass": {func(p *stack.MissionStartParams) {
			p.Mission.CapBehavior = map[string]stack.CapBehavior{"max_actions": stack.CapWarn}
		}, 400, invalid, "body.cap_behavior.max_actions"},
		"more actions":       {limits(stack.FleetLimits{MaxActions: 11}), 403, limit, "body.limits.max_actions"},
		"fewer than none":    {limits(stack.FleetLimits{MaxActions: -1}), 400, invalid, "body.limits.max_actions"},
		"more bytes":         {limits(stack.FleetLimits{MaxDropoffBytes: 11}), 403, limit, "body.limits.max_dropoff_bytes"},
		"more of a service":  {limits(stack.FleetLimits{MaxActionsPerService: map[string]int{"slack": 6}}), 403, limit, "body.limits.max_actions_per_service.slack"},
		"another operation":  {operations(stack.RequestedOperation{Name: "delete"}), 400, escalation, "body.requested_operations[0].name"},
		"an operation twice": {operations(stack.RequestedOperation{Name: "read"}, stack.RequestedOperation{Name: "read"}), 400, invalid, "body.requested_operations[1].name"},
		"many operations":    {operations(make([]stack.RequestedOperation, 65)...), 400, invalid, "body.requested_operations"},
		"more calls":         {operations(stack.RequestedOperation{Name: "post-update", MaxCalls: 4}), 403, limit, "body.requested_operations[0].max_calls"},
		"bad constraints": {operations(stack.RequestedOperation{Name: "read", Constraints: []stack.Constraint{{Path: "x", Op: "eq", Value: 1}}}),
			400, invalid, "body.requested_operations[0].constraints"},
		"other access":   {access(stack.PassportScope{ServiceConnectionID: "scon_x", Scopes: []string{"x"}}), 400, escalation, "body.requested_access[0].service_connection_id"},
		"other scopes":   {access(stack.PassportScope{ServiceConnectionID: s.slack.ID, Scopes: []string{"admin"}}), 400, escalation, "body.requested_access[0].scopes"},
		"access to none": {access([]stack.PassportScope{}...), 400, "ACCOUNTABILITY_REQUIRED", nil},
		"operations without access": {func(p *stack.MissionStartParams) {
			access([]stack.PassportScope{}...)(p)
			operations(stack.RequestedOperation{Name: "read"})(p)
		}, 400, escalation, "body.requested_operations[0].name"},
	}
	for name, tc := range tests {
		params := s.startParams(member, tc.change)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := s.client.Missions.Start(t.Context(), params)
			apiErr := requireRefused(t, err, tc.status, tc.code)
			if tc.field != nil {
				assert.Equal(t, tc.field, apiErr.Details["field"])
			}
		})
	}
	t.Cleanup(func() { assert.Empty(t, s.OpenMissions(), "nothing stays open behind a refusal") })
}

func TestFleetRequestedAccessAndOperations(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	s.Upstream("api.github.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) }))
	github := s.Agent(t, stacktest.AgentConfig{Services: []string{"github"}}).Connections["github"]
	ctx := t.Context()
	f := s.activate(t, func(d *stack.FleetDefinition) {
		d.Access = append(d.Access, stack.PassportScope{ServiceConnectionID: github.ID, Scopes: github.Scopes})
		d.Operations = append(d.Operations, stack.FleetOperation{Name: "read-issues", Service: "github", Methods: []string{"GET"},
			Path: "/repos/acme/app/issues"}, stack.FleetOperation{Name: "read", Service: "slack", Methods: []string{"GET"}})
	})
	member := s.FleetMember(t, f.ID)
	m := s.start(t, member, func(p *stack.MissionStartParams) {
		p.Mission.RequestedAccess = []stack.PassportScope{{ServiceConnectionID: s.slack.ID, Scopes: s.slack.Scopes[:1]}}
		p.Mission.RequestedOperations = []stack.RequestedOperation{{Name: "post-update", MaxCalls: 2,
			Constraints: []stack.Constraint{{Path: "body.text", Op: stack.OpEq, Value: "On it"}}}}
		p.Mission.Limits = &stack.FleetLimits{MaxActions: 5, MaxActionsPerService: map[string]int{"slack": 4}}
	})
	claims := s.claims(t, m.Passport.Token)
	require.Len(t, claims.STK.Services, 1)
	assert.Equal(t, s.slack.Scopes[:1], claims.STK.Services[0].Scopes)
	record, err := s.client.Missions.Get(ctx, m.MissionID)
	require.NoError(t, err)
	require.Len(t, record.Fleet.Operations, 1)
	assert.Len(t, record.Fleet.Operations[0].Constraints, 2)
	assert.Equal(t, stack.FleetLimits{MaxActions: 5, MaxActionsPerService: map[string]int{"slack": 4}}, record.Fleet.Limits)

	proxy := func(p *stack.Passport, r stack.ProxyRequest) error {
		return failure(s.client.Proxy.Request(ctx, withPassport(r, p)))
	}
	issues := stack.ProxyRequest{Service: "github", Method: "GET", URL: "https://api.github.com/repos/acme/app/issues"}
	history := stack.ProxyRequest{Service: "slack", Method: "GET", URL: "https://slack.com/api/conversations.history"}
	other := post("C123")
	other.Body = map[string]any{"channel": "C123", "text": "Buy now"}
	elsewhere := post("C123")
	elsewhere.URL = "https://slack.com/api/files.upload"
	assert.Equal(t, "service_scope", refusedCheck(t, proxy(&m.Passport, issues)), "it did not ask for that")
	for name, r := range map[string]stack.ProxyRequest{"not asked for": history, "narrowed": other, "another path": elsewhere} {
		require.ErrorIs(t, proxy(&m.Passport, r), stack.ErrFleetOperationNotAllowed, name)
	}
	assert.Contains(t, s.signals(), "constraint_violation")
	require.NoError(t, proxy(&m.Passport, post("C123")))
	require.NoError(t, proxy(&m.Passport, post("C123")))
	err = proxy(&m.Passport, post("C123"))
	require.ErrorIs(t, err, stack.ErrMissionCapExceeded)
	apiErr := requireRefused(t, err, http.StatusForbidden, "MISSION_CAP_EXCEEDED")
	assert.Equal(t, "max_calls", apiErr.Details["cap"])

	renewed, err := s.client.Missions.Renew(ctx, m.MissionID)
	require.NoError(t, err)
	assert.Equal(t, claims.STK.Services, s.claims(t, renewed.Passport.Token).STK.Services, "the same permission")
	require.ErrorIs(t, proxy(&renewed.Passport, post("C123")), stack.ErrMissionCapExceeded, "the usage stays with the Mission")
	require.ErrorIs(t, proxy(&renewed.Passport, history), stack.ErrFleetOperationNotAllowed)

	all := s.start(t, member)
	require.NoError(t, proxy(&all.Passport, issues), "without a request it has all that the policy gives")
	require.NoError(t, proxy(&all.Passport, history))
	issues.URL += "/1"
	require.ErrorIs(t, proxy(&all.Passport, issues), stack.ErrFleetOperationNotAllowed)
}

// refusedCheck names the check that refused.
func refusedCheck(t *testing.T, err error) any {
	t.Helper()
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	return apiErr.Details["check"]
}

// What was sent before and is asked for again is one call.
func TestFleetLimitsCountOnce(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx := t.Context()
	m := s.start(t, s.FleetMember(t, s.activate(t, func(d *stack.FleetDefinition) {
		d.Operations[0].MaxCalls = 1
		d.Limits = stack.FleetLimits{MaxActions: 2}
		d.Operations = append(d.Operations, stack.FleetOperation{Name: "any-get", Service: "slack", Methods: []string{"GET"}})
	}).ID))
	call := withPassport(post("C123"), &m.Passport)
	call.OperationID = "once-and-only-once-0123"
	for range 3 {
		require.NoError(t, failure(s.client.Proxy.Post(ctx, call)))
	}
	look := withPassport(stack.ProxyRequest{Service: "slack", Method: "GET", URL: "https://slack.com/api/x"}, &m.Passport)
	require.NoError(t, failure(s.client.Proxy.Request(ctx, look)))
	err := failure(s.client.Proxy.Request(ctx, look))
	require.ErrorIs(t, err, stack.ErrMissionCapExceeded)
	assert.Equal(t, "max_actions", requireRefused(t, err, http.StatusForbidden, "MISSION_CAP_EXCEEDED").Details["cap"])
	record, err := s.client.Missions.Get(ctx, m.MissionID)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"post-update": 1, "any-get": 1}, record.Fleet.Usage.CallsPerOperation)
	assert.Equal(t, 2, record.Fleet.Usage.Actions)
}

func TestFleetWithoutOperations(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	for name, tc := range map[string]struct {
		operations []stack.FleetOperation
		passes     bool
	}{"all calls": {nil, true}, "no calls": {[]stack.FleetOperation{}, false}} {
		m := s.start(t, s.FleetMember(t, s.activate(t, func(d *stack.FleetDefinition) { d.Operations = tc.operations }).ID))
		err := failure(s.client.Proxy.Post(t.Context(), withPassport(post("OTHER"), &m.Passport)))
		if tc.passes {
			require.NoError(t, err, name)
		} else {
			require.ErrorIs(t, err, stack.ErrFleetOperationNotAllowed, name)
		}
	}
}

// A Mission keeps the revision that it began with; the next one has the new one.
func TestFleetRevisionsAndMissions(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx := t.Context()
	f := s.activate(t)
	member := s.FleetMember(t, f.ID)
	old := s.start(t, member)
	_, err := s.client.Fleets.Revise(ctx, f.ID, s.definition(func(d *stack.FleetDefinition) { d.Operations = []stack.FleetOperation{} }),
		stack.FleetReviseParams{ExpectedRevision: 1, IdempotencyKey: s.key()})
	require.NoError(t, err)
	fresh := s.start(t, member)
	require.NoError(t, failure(s.client.Proxy.Post(ctx, withPassport(post("C123"), &old.Passport))))
	require.ErrorIs(t, failure(s.client.Proxy.Post(ctx, withPassport(post("C123"), &fresh.Passport))), stack.ErrFleetOperationNotAllowed)
	for id, revision := range map[string]int{old.MissionID: 1, fresh.MissionID: 2} {
		record, err := s.client.Missions.Get(ctx, id)
		require.NoError(t, err)
		assert.Equal(t, revision, record.Fleet.Revision)
	}
}

func TestFleetLiveMissions(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	f := s.activate(t, func(d *stack.FleetDefinition) { d.MaxLiveMissions = 1 })
	a, b := s.FleetMember(t, f.ID), s.FleetMember(t, f.ID)
	first := s.start(t, a)
	params := s.startParams(b)
	_, err := s.client.Missions.Start(t.Context(), params)
	require.ErrorIs(t, err, stack.ErrFleetLimitExceeded)
	_, err = s.client.Missions.Complete(t.Context(), first.MissionID, stack.MissionCompleteParams{})
	require.NoError(t, err)
	require.NoError(t, failure(s.client.Missions.Start(t.Context(), params)), "there is room again")
}
