package stack_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// fleetStage is a mock with Slack connected, without any agent's grant on it, and short ways to fleets.
type fleetStage struct {
	*stage
	slack stack.Connection
	keys  int // idempotency keys that were made
}

func newFleetStage(t *testing.T) *fleetStage {
	t.Helper()
	s := newStage(t, stack.Logged)
	return &fleetStage{stage: s, slack: s.agent.Connections["slack"]}
}

func (s *fleetStage) key() string {
	s.keys++
	return fmt.Sprintf("key-%d", s.keys)
}

// definition is a policy that gives Slack, and lets its logged members post to C123.
func (s *fleetStage) definition(change ...func(*stack.FleetDefinition)) stack.FleetDefinition {
	d := stack.FleetDefinition{Name: "Support", Members: stack.FleetMembers{AccountabilityMode: stack.Logged},
		Access: []stack.PassportScope{{ServiceConnectionID: s.slack.ID, Scopes: s.slack.Scopes}},
		Operations: []stack.FleetOperation{{Name: "post-update", Service: "slack", Methods: []string{"POST"},
			Path: "/api/chat.*", Constraints: []stack.Constraint{{Path: "body.channel", Op: stack.OpEq, Value: "C123"}}}},
		Limits: stack.FleetLimits{MaxActions: 10}}
	for _, c := range change {
		c(&d)
	}
	return d
}

// activate activates a policy as a caller with a human at hand does.
func (s *fleetStage) activate(t *testing.T, change ...func(*stack.FleetDefinition)) *stack.FleetPolicy {
	t.Helper()
	return s.Fleet(t, s.definition(change...))
}

// signer is a key pair of somebody who wants to join.
type signer struct{ ed25519.PrivateKey }

func newSigner(t *testing.T) signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return signer{private}
}

func (k signer) jwk() stack.PublicKeyJWK {
	public := k.Public().(ed25519.PublicKey)
	return stack.PublicKeyJWK{KTY: "OKP", CRV: "Ed25519", X: base64.RawURLEncoding.EncodeToString(public)}
}

func (k signer) prove(challenge string) stack.Secret {
	return stack.NewSecret(base64.RawURLEncoding.EncodeToString(ed25519.Sign(k.PrivateKey, []byte(challenge))))
}

// answer answers a challenge.
func (s *fleetStage) answer(k signer, c *stack.EnrollmentChallenge) stack.FleetEnrollParams {
	return stack.FleetEnrollParams{Name: "helper", IdempotencyKey: s.key(), PublicKey: k.jwk(), ChallengeID: c.ChallengeID,
		Proof: k.prove(c.Challenge)}
}

// start starts a Mission of a member.
func (s *fleetStage) start(t *testing.T, m *stack.FleetMember, change ...func(*stack.MissionStartParams)) *stack.StartedMission {
	t.Helper()
	started, err := s.client.Missions.Start(t.Context(), s.startParams(m, change...))
	require.NoError(t, err)
	return started
}

func (s *fleetStage) startParams(m *stack.FleetMember, change ...func(*stack.MissionStartParams)) stack.MissionStartParams {
	p := stack.MissionStartParams{AgentID: m.AgentID, Mission: stack.MissionOpenParams{IntentSummary: "Post support updates",
		FleetPolicyID: m.FleetPolicyID, IdempotencyKey: s.key()}}
	for _, c := range change {
		c(&p)
	}
	return p
}

func TestFleetActivate(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	f := s.activate(t)
	assert.Regexp(t, `^flp_[a-z0-9]{26}$`, f.ID)
	assert.Equal(t, s.OperatorID(), f.OperatorID)
	assert.Equal(t, stack.FleetActive, f.Status)
	assert.Equal(t, 1, f.Revision)
	assert.Equal(t, s.definition(func(d *stack.FleetDefinition) {
		d.Members = stack.FleetMembers{Max: 100, Kinds: []stack.FleetMemberKind{"agent", "workload"}, AccountabilityMode: stack.Logged}
		d.MaxMissionTTL, d.MaxPassportTTL = 24*time.Hour, time.Hour
	}), f.Definition, "the defaults are filled in")
	assert.Equal(t, 1, s.countRows("fleet.activate"))

	got, err := s.client.Fleets.Get(t.Context(), f.ID)
	require.NoError(t, err)
	assert.Equal(t, f, got)
	require.ErrorIs(t, failure(s.client.Fleets.Get(t.Context(), "flp_x")), stack.ErrNotFound)
}

// An approval is for one definition, once; the key makes its call happen once.
func TestFleetActivateApprovals(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, fleets := t.Context(), s.client.Fleets
	params := stack.FleetActivateParams{IdempotencyKey: "once"}
	harmless := s.definition(func(d *stack.FleetDefinition) { d.Access, d.Operations = nil, nil })
	approval, details := approvalNeeded(t, failure(fleets.Activate(ctx, harmless, params)))
	assert.Equal(t, "fleet.activate", details["action"])
	assert.Contains(t, details["target"], "Support")
	require.NoError(t, s.Approve(approval))
	params.GovernanceApprovalID = approval
	other, _ := approvalNeeded(t, failure(fleets.Activate(ctx, s.definition(), params)))
	assert.NotEqual(t, approval, other, "that is not what the human has seen")

	first, err := fleets.Activate(ctx, harmless, params)
	require.NoError(t, err)
	again, err := fleets.Activate(ctx, harmless, params)
	require.NoError(t, err)
	assert.Equal(t, first, again, "the same key and body, the same answer")
	params.GovernanceApprovalID = ""
	again, err = fleets.Activate(ctx, harmless, params)
	require.NoError(t, err)
	assert.Equal(t, first, again, "which needs no further approval")
	err = failure(fleets.Activate(ctx, s.definition(), params))
	requireRefused(t, err, http.StatusConflict, "IDEMPOTENCY_KEY_REUSED")
	require.ErrorIs(t, err, stack.ErrIdempotencyKeyReused)
	require.ErrorIs(t, err, stack.ErrConflict)
	params.IdempotencyKey, params.GovernanceApprovalID = "twice", approval
	approvalNeeded(t, failure(fleets.Activate(ctx, harmless, params)))
	list, err := fleets.List(ctx)
	require.NoError(t, err)
	assert.Len(t, list, 1)
}

func TestFleetDefinitionRules(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	access := func(change func(*stack.PassportScope)) func(*stack.FleetDefinition) {
		return func(d *stack.FleetDefinition) { change(&d.Access[0]) }
	}
	operation := func(change func(*stack.FleetOperation)) func(*stack.FleetDefinition) {
		return func(d *stack.FleetDefinition) { change(&d.Operations[0]) }
	}
	bad := []stack.Constraint{{Path: "nowhere", Op: stack.OpEq, Value: "x"}}
	tests := map[string]func(*stack.FleetDefinition){
		"body.name":                            func(d *stack.FleetDefinition) { d.Name = strings.Repeat("x", 129) },
		"body.description":                     func(d *stack.FleetDefinition) { d.Description = strings.Repeat("x", 501) },
		"body.members.max":                     func(d *stack.FleetDefinition) { d.Members.Max = 1001 },
		"body.members.kinds[0]":                func(d *stack.FleetDefinition) { d.Members.Kinds = []stack.FleetMemberKind{"robot"} },
		"body.members.kinds[1]":                func(d *stack.FleetDefinition) { d.Members.Kinds = []stack.FleetMemberKind{"agent", "agent"} },
		"body.members.accountability_mode":     func(d *stack.FleetDefinition) { d.Members.AccountabilityMode = "loose" },
		"body.max_live_missions":               func(d *stack.FleetDefinition) { d.MaxLiveMissions = -1 },
		"body.access":                          func(d *stack.FleetDefinition) { d.Access = slices.Repeat(d.Access, 65) },
		"body.access[1].service_connection_id": func(d *stack.FleetDefinition) { d.Access = append(d.Access, d.Access[0]) },
		"body.access[0].scopes":                access(func(a *stack.PassportScope) { a.Scopes = []string{} }),
		"body.access[0].constraints":           access(func(a *stack.PassportScope) { a.Constraints = bad }),
		"body.access[0].allow_data_from":       access(func(a *stack.PassportScope) { a.AllowDataFrom = []string{"*"} }),
		"body.operations":                      func(d *stack.FleetDefinition) { d.Operations = make([]stack.FleetOperation, 65) },
		"body.operations[0].name":              operation(func(o *stack.FleetOperation) { o.Name = "Post!" }),
		"body.operations[1].name":              func(d *stack.FleetDefinition) { d.Operations = append(d.Operations, d.Operations[0]) },
		"body.operations[0].service":           operation(func(o *stack.FleetOperation) { o.Service = "github" }),
		"body.operations[0].methods[0]":        operation(func(o *stack.FleetOperation) { o.Methods = []string{"post"} }),
		"body.operations[0].methods[1]":        operation(func(o *stack.FleetOperation) { o.Methods = []string{"GET", "GET"} }),
		"body.operations[0].path":              operation(func(o *stack.FleetOperation) { o.Path = "/a*b" }),
		"body.operations[0].constraints":       operation(func(o *stack.FleetOperation) { o.Constraints = bad }),
		"body.operations[0].max_calls":         operation(func(o *stack.FleetOperation) { o.MaxCalls = -1 }),
		"body.limits.max_actions":              func(d *stack.FleetDefinition) { d.Limits.MaxActions = -1 },
		"body.limits.max_dropoff_bytes":        func(d *stack.FleetDefinition) { d.Limits.MaxDropoffBytes = -1 },
		"body.limits.max_actions_per_service": func(d *stack.FleetDefinition) {
			d.Limits.MaxActionsPerService = map[string]int{"github": 1}
		},
		"body.limits.max_actions_per_service.slack": func(d *stack.FleetDefinition) {
			d.Limits.MaxActionsPerService = map[string]int{"slack": -1}
		},
	}
	for field, change := range tests {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			_, err := s.client.Fleets.Activate(t.Context(), s.definition(change), stack.FleetActivateParams{IdempotencyKey: field})
			apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
			assert.Equal(t, field, apiErr.Details["field"])
			assert.NotEmpty(t, apiErr.Details["allowed"])
		})
	}
	t.Run("a scope that the connection does not have", func(t *testing.T) {
		t.Parallel()
		d := s.definition(access(func(a *stack.PassportScope) { a.Scopes = []string{"admin"} }))
		_, err := s.client.Fleets.Activate(t.Context(), d, stack.FleetActivateParams{IdempotencyKey: "scope"})
		require.ErrorIs(t, err, stack.ErrScopeEscalation)
	})
	t.Run("a connection that there is not", func(t *testing.T) {
		t.Parallel()
		d := s.definition(access(func(a *stack.PassportScope) { a.ServiceConnectionID = "scon_x" }))
		_, err := s.client.Fleets.Activate(t.Context(), d, stack.FleetActivateParams{IdempotencyKey: "gone"})
		require.ErrorIs(t, err, stack.ErrNotFound)
	})
	t.Run("before anything is sent", func(t *testing.T) {
		t.Parallel()
		ctx, fleets, ok := t.Context(), s.client.Fleets, stack.FleetActivateParams{IdempotencyKey: "k"}
		requireParam(t, failure(fleets.Activate(ctx, stack.FleetDefinition{}, ok)), "name")
		requireParam(t, failure(fleets.Activate(ctx, s.definition(), stack.FleetActivateParams{})), "Idempotency-Key")
		for param, change := range map[string]func(*stack.FleetDefinition){
			"max_mission_ttl_seconds":  func(d *stack.FleetDefinition) { d.MaxMissionTTL = 25 * time.Hour },
			"max_passport_ttl_seconds": func(d *stack.FleetDefinition) { d.MaxPassportTTL = time.Second },
		} {
			requireParam(t, failure(fleets.Activate(ctx, s.definition(change), ok)), param)
		}
		revise := stack.FleetReviseParams{IdempotencyKey: "k"}
		requireParam(t, failure(fleets.Revise(ctx, "flp_x", s.definition(), revise)), "If-Match")
		revise = stack.FleetReviseParams{ExpectedRevision: 1}
		requireParam(t, failure(fleets.Revise(ctx, "flp_x", s.definition(), revise)), "Idempotency-Key")
		requireParam(t, failure(fleets.Get(ctx, "")), "policy_id")
	})
}

func TestFleetRevise(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, fleets := t.Context(), s.client.Fleets
	f := s.activate(t)
	tighter := s.definition(func(d *stack.FleetDefinition) { d.Limits.MaxActions = 5 })
	params := stack.FleetReviseParams{ExpectedRevision: 1, IdempotencyKey: s.key()}
	second, err := fleets.Revise(ctx, f.ID, tighter, params)
	require.NoError(t, err, "what only tightens needs nobody")
	assert.Equal(t, 2, second.Revision)
	assert.Equal(t, 5, second.Definition.Limits.MaxActions)
	again, err := fleets.Revise(ctx, f.ID, tighter, params)
	require.NoError(t, err, "though the revision has moved on")
	assert.Equal(t, second, again)
	params.ExpectedRevision = 2
	require.ErrorIs(t, failure(fleets.Revise(ctx, f.ID, tighter, params)), stack.ErrIdempotencyKeyReused,
		"the condition is part of the request")

	params = stack.FleetReviseParams{ExpectedRevision: 1, IdempotencyKey: s.key()}
	err = failure(fleets.Revise(ctx, f.ID, tighter, params))
	require.ErrorIs(t, err, stack.ErrRevisionConflict)
	apiErr := requireRefused(t, err, http.StatusConflict, "REVISION_CONFLICT")
	assert.EqualValues(t, 2, apiErr.Details["allowed"])

	params.ExpectedRevision = 2
	params.GovernanceApprovalID, _ = approvalNeeded(t, failure(fleets.Revise(ctx, f.ID, s.definition(), params)))
	require.NoError(t, s.Approve(params.GovernanceApprovalID))
	third, err := fleets.Revise(ctx, f.ID, s.definition(), params)
	require.NoError(t, err)
	assert.Equal(t, 3, third.Revision)
	assert.Equal(t, 2, s.countRows("fleet.revise"))
	require.ErrorIs(t, failure(fleets.Revise(ctx, "flp_x", tighter, stack.FleetReviseParams{ExpectedRevision: 3, IdempotencyKey: s.key()})),
		stack.ErrNotFound)
	bad := s.definition(func(d *stack.FleetDefinition) { d.Members.Max = -1 })
	err = failure(fleets.Revise(ctx, f.ID, bad, stack.FleetReviseParams{ExpectedRevision: 3, IdempotencyKey: s.key()}))
	requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
}

// Whatever gives more anywhere needs a human, and nothing else does.
func TestFleetReviseLoosening(t *testing.T) {
	t.Parallel()
	base := func(d *stack.FleetDefinition) {
		d.Members = stack.FleetMembers{Max: 5, Kinds: []stack.FleetMemberKind{stack.FleetAgent}, AccountabilityMode: stack.Logged}
		d.Access[0].Scopes = d.Access[0].Scopes[:1]
		d.Access[0].Constraints = []stack.Constraint{{Path: "url.host", Op: stack.OpEq, Value: "slack.com"}}
		d.Access[0].AllowDataFrom = []string{"github"}
		d.Operations[0].MaxCalls = 3
		d.Limits = stack.FleetLimits{MaxActions: 10, MaxDropoffBytes: 10, MaxActionsPerService: map[string]int{"slack": 5}}
		d.MaxLiveMissions, d.MaxMissionTTL, d.MaxPassportTTL = 5, time.Hour, 10*time.Minute
	}
	tests := map[string]struct {
		change  func(*stack.FleetDefinition)
		loosens bool
	}{
		"nothing":          {func(*stack.FleetDefinition) {}, false},
		"another name":     {func(d *stack.FleetDefinition) { d.Name, d.Description = "New", "New" }, false},
		"more members":     {func(d *stack.FleetDefinition) { d.Members.Max = 6 }, true},
		"fewer members":    {func(d *stack.FleetDefinition) { d.Members.Max = 4 }, false},
		"workloads too":    {func(d *stack.FleetDefinition) { d.Members.Kinds = nil }, true},
		"a weaker mode":    {func(d *stack.FleetDefinition) { d.Members.AccountabilityMode = stack.Standard }, true},
		"a stricter mode":  {func(d *stack.FleetDefinition) { d.Members.AccountabilityMode = "" }, false},
		"more Missions":    {func(d *stack.FleetDefinition) { d.MaxLiveMissions = 6 }, true},
		"any Missions":     {func(d *stack.FleetDefinition) { d.MaxLiveMissions = 0 }, true},
		"longer Missions":  {func(d *stack.FleetDefinition) { d.MaxMissionTTL = 2 * time.Hour }, true},
		"longer passports": {func(d *stack.FleetDefinition) { d.MaxPassportTTL = 0 }, true},
		"shorter lives":    {func(d *stack.FleetDefinition) { d.MaxMissionTTL, d.MaxPassportTTL = time.Minute, time.Minute }, false},
		"no access": {func(d *stack.FleetDefinition) {
			d.Access, d.Operations = nil, []stack.FleetOperation{}
			d.Limits.MaxActionsPerService = nil
		}, true}, // a limit went with it
		"another scope":     {func(d *stack.FleetDefinition) { d.Access[0].Scopes = append(d.Access[0].Scopes, "chat:write") }, true},
		"a constraint less": {func(d *stack.FleetDefinition) { d.Access[0].Constraints = nil }, true},
		"a constraint more": {func(d *stack.FleetDefinition) {
			d.Access[0].Constraints = append(d.Access[0].Constraints, d.Operations[0].Constraints...)
		}, false},
		"data from anywhere":  {func(d *stack.FleetDefinition) { d.Access[0].AllowDataFrom = nil }, true},
		"data from elsewhere": {func(d *stack.FleetDefinition) { d.Access[0].AllowDataFrom = []string{"notion"} }, true},
		"data from nowhere":   {func(d *stack.FleetDefinition) { d.Access[0].AllowDataFrom = []string{} }, false},
		"any operation":       {func(d *stack.FleetDefinition) { d.Operations = nil }, true},
		"no operation":        {func(d *stack.FleetDefinition) { d.Operations = []stack.FleetOperation{} }, false},
		"a further operation": {func(d *stack.FleetDefinition) {
			d.Operations = append(d.Operations, stack.FleetOperation{Name: "read", Service: "slack"})
		}, true},
		"any method":        {func(d *stack.FleetDefinition) { d.Operations[0].Methods = nil }, true},
		"a further method":  {func(d *stack.FleetDefinition) { d.Operations[0].Methods = []string{"POST", "GET"} }, true},
		"another path":      {func(d *stack.FleetDefinition) { d.Operations[0].Path = "/api/*" }, true},
		"any path":          {func(d *stack.FleetDefinition) { d.Operations[0].Path = "" }, true},
		"any body":          {func(d *stack.FleetDefinition) { d.Operations[0].Constraints = nil }, true},
		"more calls":        {func(d *stack.FleetDefinition) { d.Operations[0].MaxCalls = 4 }, true},
		"fewer calls":       {func(d *stack.FleetDefinition) { d.Operations[0].MaxCalls = 2 }, false},
		"more actions":      {func(d *stack.FleetDefinition) { d.Limits.MaxActions = 11 }, true},
		"any actions":       {func(d *stack.FleetDefinition) { d.Limits.MaxActions = 0 }, true},
		"more bytes":        {func(d *stack.FleetDefinition) { d.Limits.MaxDropoffBytes = 11 }, true},
		"more of a service": {func(d *stack.FleetDefinition) { d.Limits.MaxActionsPerService = map[string]int{"slack": 6} }, true},
		"all of a service":  {func(d *stack.FleetDefinition) { d.Limits.MaxActionsPerService = nil }, true},
		"none of a service": {func(d *stack.FleetDefinition) { d.Limits.MaxActionsPerService = map[string]int{"slack": 0} }, false},
	}
	s := newFleetStage(t)
	fleets := make(map[string]*stack.FleetPolicy, len(tests))
	for name := range tests {
		fleets[name] = s.activate(t, base)
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			params := stack.FleetReviseParams{ExpectedRevision: 1, IdempotencyKey: name}
			_, err := s.client.Fleets.Revise(t.Context(), fleets[name].ID, s.definition(base, tc.change), params)
			if tc.loosens {
				approvalNeeded(t, err)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func TestFleetLists(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	ctx, fleets := t.Context(), s.client.Fleets
	empty, err := fleets.List(ctx)
	require.NoError(t, err)
	assert.Empty(t, empty)
	var ids, members []string
	for range 3 {
		ids = append(ids, s.activate(t).ID)
	}
	slices.Reverse(ids)
	list, err := fleets.List(ctx)
	require.NoError(t, err)
	var got []string
	for _, f := range list {
		got = append(got, f.ID)
	}
	assert.Equal(t, ids, got, "newest first")
	page, err := fleets.ListPage(ctx, stack.FleetPageParams{})
	require.NoError(t, err)
	assert.Equal(t, &stack.FleetPage{Items: list, Total: 3, Page: 1, Limit: 20}, page)
	page, err = fleets.ListPage(ctx, stack.FleetPageParams{Page: 2, Limit: 2})
	require.NoError(t, err)
	assert.Equal(t, &stack.FleetPage{Items: list[2:], Total: 3, Page: 2, Limit: 2}, page)
	requireRefused(t, failure(fleets.ListPage(ctx, stack.FleetPageParams{Limit: 101})), http.StatusBadRequest, "INVALID_REQUEST")
	got = nil
	for f, err := range fleets.All(ctx, stack.FleetPageParams{Limit: 2}) {
		require.NoError(t, err)
		got = append(got, f.ID)
	}
	assert.Equal(t, ids, got)

	for range 3 {
		members = append(members, s.FleetMember(t, ids[0]).AgentID)
	}
	joined, err := fleets.Members(ctx, ids[0])
	require.NoError(t, err)
	require.Len(t, joined, 3)
	second, err := fleets.MembersPage(ctx, ids[0], stack.FleetPageParams{Page: 2, Limit: 2})
	require.NoError(t, err)
	assert.Equal(t, &stack.FleetMembersPage{Items: joined[2:], Total: 3, Page: 2, Limit: 2}, second)
	got = nil
	for m, err := range fleets.AllMembers(ctx, ids[0], stack.FleetPageParams{Limit: 2}) {
		require.NoError(t, err)
		got = append(got, m.AgentID)
	}
	assert.Equal(t, members, got, "in the order in which they joined")
	require.ErrorIs(t, failure(fleets.Members(ctx, "flp_x")), stack.ErrNotFound)
	require.ErrorIs(t, failure(fleets.MembersPage(ctx, "flp_x", stack.FleetPageParams{})), stack.ErrNotFound)
	for _, err := range fleets.AllMembers(ctx, "flp_x", stack.FleetPageParams{}) {
		require.ErrorIs(t, err, stack.ErrNotFound)
	}
	assert.Equal(t, "items limit page total", keys(s.raw(t, "GET", "/v1/fleets?page=1", nil)), "one of the two is enough")
}

// What gives access is an admin's; the rest of the team works with it.
func TestFleetRoles(t *testing.T) {
	t.Parallel()
	s := newFleetStage(t)
	f := s.activate(t)
	clients := map[stack.TeamRole]*stack.Client{}
	for _, role := range []stack.TeamRole{stack.RoleReadonly, stack.RoleStandard, stack.RoleAdmin} {
		_, clients[role] = join(t, s.Server, stack.TeamInviteParams{Role: role})
	}
	ctx := t.Context()
	for role, c := range clients {
		manage := []error{
			failure(c.Fleets.Activate(ctx, s.definition(), stack.FleetActivateParams{IdempotencyKey: "k"})),
			failure(c.Fleets.Revise(ctx, f.ID, s.definition(func(d *stack.FleetDefinition) { d.Limits.MaxActions = 11 }),
				stack.FleetReviseParams{ExpectedRevision: 1, IdempotencyKey: "k"})),
		}
		for _, err := range manage {
			if role == stack.RoleAdmin {
				approvalNeeded(t, err)
			} else {
				assert.Equal(t, "role", requireRefused(t, err, http.StatusForbidden, "FORBIDDEN").Details["check"])
			}
		}
		require.NoError(t, failure(c.Fleets.List(ctx)))
		err := failure(c.Fleets.EnrollmentChallenge(ctx, f.ID))
		if role == stack.RoleReadonly {
			requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
		} else {
			require.NoError(t, err)
		}
	}
	_, bound := join(t, s.Server, stack.TeamInviteParams{Email: "bound@example.com", Role: stack.RoleAdmin,
		AllowedConnections: []string{s.Agent(t, stacktest.AgentConfig{Services: []string{"github"}}).Connections["github"].ID}})
	err := failure(bound.Fleets.Activate(ctx, s.definition(), stack.FleetActivateParams{IdempotencyKey: "k"}))
	assert.Equal(t, "allowed_connections", requireRefused(t, err, http.StatusForbidden, "FORBIDDEN").Details["check"])
}
