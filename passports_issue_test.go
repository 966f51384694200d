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

// The bounds of the wire hold on the server as well, whoever checks before.
func TestIssueRulesOnTheWire(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	mission := s.mission(t, time.Hour)
	slack := s.agent.Connections["slack"]
	scope := func(more map[string]any) []any {
		m := map[string]any{"service_connection_id": slack.ID, "scopes": slack.Scopes[:1]}
		for k, v := range more {
			m[k] = v
		}
		return []any{m}
	}
	constraints := make([]any, 33)
	for i := range constraints {
		constraints[i] = map[string]any{"path": fmt.Sprintf("body.f%d", i), "op": "eq", "value": i}
	}
	tests := map[string]struct {
		change  map[string]any
		field   string
		allowed any
	}{
		"ttl too short":   {map[string]any{"ttl_seconds": 59}, "body.ttl_seconds", "60 to 3600 seconds"},
		"ttl too long":    {map[string]any{"ttl_seconds": 3601}, "body.ttl_seconds", "60 to 3600 seconds"},
		"ttl negative":    {map[string]any{"ttl_seconds": -900}, "body.ttl_seconds", "60 to 3600 seconds"},
		"ttl with a part": {map[string]any{"ttl_seconds": 90.5}, "body.ttl_seconds", "a whole number of seconds"},
		"ttl as text":     {map[string]any{"ttl_seconds": "900"}, "body.ttl_seconds", "a whole number of seconds"},
		"interval too short": {map[string]any{"checkpoint_interval_seconds": 59}, "body.checkpoint_interval_seconds",
			"60 to 3600 seconds"},
		"interval too long": {map[string]any{"checkpoint_interval_seconds": 3601}, "body.checkpoint_interval_seconds",
			"60 to 3600 seconds"},
		"estimate negative": {map[string]any{"intent": map[string]any{"summary": "x", "services": []string{"slack"},
			"estimated_duration_seconds": -1}},
			"body.intent.estimated_duration_seconds", "0 to 86400 seconds"},
		"an empty service": {map[string]any{"intent": map[string]any{"summary": "x", "services": []string{""}}},
			"body.intent.services[0]", "a non-empty string"},
		"services missing": {map[string]any{"intent": map[string]any{"summary": "x"}}, "body.intent.services", "an array"},
		"an unknown mode": {map[string]any{"accountability_mode": "strict"}, "body.accountability_mode",
			"one of enforced, logged, standard"},
		"an unknown field": {map[string]any{"expires_in_seconds": 60}, "body.expires_in_seconds", nil},
		"two lists":        {map[string]any{"scopes": scope(nil), "services": scope(nil)}, "body.services", "given alone"},
		"a connection twice": {map[string]any{"scopes": append(scope(nil), scope(nil)...)},
			"body.scopes[1].service_connection_id",
			"named once"},
		"a scope twice": {map[string]any{"scopes": scope(map[string]any{"scopes": []string{"chat:write",
			"chat:write"}})}, "body.scopes[0].scopes[1]", "named once"},
		"too many constraints": {map[string]any{"scopes": scope(map[string]any{"constraints": constraints})},
			"body.scopes[0].constraints", "valid constraints"},
		"an empty source": {map[string]any{"scopes": scope(map[string]any{"allow_data_from": []string{" "}})},
			"body.scopes[0].allow_data_from[0]", "a non-empty string"},
	}
	before := s.countRows("passport.issue")
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := map[string]any{"agent_id": s.agent.ID, "mission_ids": []string{mission},
				"intent": map[string]any{"summary": "x", "services": []string{"slack"}}}
			for k, v := range tc.change {
				body[k] = v
			}
			err := s.client.Do(t.Context(), "POST", "/v1/passports/issue", body, nil)
			apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
			assert.Equal(t, tc.field, apiErr.Details["field"])
			if tc.allowed != nil {
				assert.Equal(t, tc.allowed, apiErr.Details["allowed"])
			}
		})
	}
	t.Cleanup(func() { assert.Equal(t, before, s.countRows("passport.issue")) })
	for _, ids := range []any{[]string{}, []string{mission, mission}, nil} {
		err := s.client.Do(t.Context(), "POST", "/v1/passports/issue",
			map[string]any{"agent_id": s.agent.ID, "mission_ids": ids}, nil)
		apiErr := requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
		assert.Contains(t, apiErr.Message, "bound to exactly one Mission")
		assert.Equal(t, "mission_ids", apiErr.Details["check"])
	}
}

func TestIntentIsDemandedByMode(t *testing.T) {
	t.Parallel()
	for mode, demanded := range map[stack.Accountability]bool{stack.Enforced: true, stack.Logged: true, stack.Standard: false} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, mode)
			for name, intent := range map[string]*stack.Intent{"none": nil, "no services": {Summary: "x"},
				"no summary": {Services: []string{"slack"}}} {
				_, err := s.client.Passports.Issue(t.Context(),
					s.issueParams(s.mission(t, time.Hour), func(p *stack.PassportIssueParams) { p.Intent = intent }))
				if !demanded {
					require.NoError(t, err, name)
					continue
				}
				apiErr := requireRefused(t, err, http.StatusBadRequest, "ACCOUNTABILITY_REQUIRED")
				assert.Contains(t, apiErr.Message, string(mode))
				assert.Contains(t, apiErr.Details, "sent")
				assert.Contains(t, apiErr.Details, "allowed")
			}
		})
	}
}

// A passport may be held to account more closely than its agent, never less.
func TestPassportMode(t *testing.T) {
	t.Parallel()
	modes := []stack.Accountability{stack.Standard, stack.Logged, stack.Enforced}
	for agentRank, agentMode := range modes {
		s := newStage(t, agentMode)
		for rank, mode := range modes {
			p, err := s.client.Passports.Issue(t.Context(), s.issueParams(s.mission(t, time.Hour),
				func(p *stack.PassportIssueParams) { p.AccountabilityMode = mode }))
			if rank < agentRank {
				apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
				assert.Equal(t, "body.accountability_mode", apiErr.Details["field"])
				assert.Equal(t, "at least the agent's, "+string(agentMode), apiErr.Details["allowed"])
				continue
			}
			require.NoError(t, err)
			assert.Equal(t, mode, p.Accountability)
			assert.Equal(t, mode, s.claims(t, p.Token).STK.Accountability)
		}
	}
}

// A scope can only take away from the grant, and says what it went beyond.
func TestScopesNarrowTheGrant(t *testing.T) {
	t.Parallel()
	standing := stack.Constraint{Path: "method", Op: stack.OpIn, Value: []any{"GET", "POST"}}
	added := stack.Constraint{Path: "body.channel", Op: stack.OpEq, Value: "#support"}
	srv := stacktest.New(t)
	agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack", "github"},
		Constraints: []stack.Constraint{standing}, AllowDataFrom: []string{"github", "crm"}})
	s := &stage{srv, srv.Client(), agent}
	slack := agent.Connections["slack"]
	mission := s.mission(t, time.Hour)
	issue := func(scopes ...stack.PassportScope) (*stack.Passport, error) {
		return s.client.Passports.Issue(t.Context(), s.issueParams(mission,
			func(p *stack.PassportIssueParams) { p.Scopes = scopes }))
	}

	all, err := issue()
	require.NoError(t, err)
	services := s.claims(t, all.Token).STK.Services
	require.Len(t, services, 2, "everything that is granted")
	assert.Equal(t, stack.PassportService{ServiceName: "slack", ConnectionID: slack.ID, Scopes: slack.Scopes,
		Constraints:   []stack.Constraint{standing},
		AllowDataFrom: []string{"github", "crm"}}, services[0])

	one, err := issue(stack.PassportScope{ServiceConnectionID: slack.ID, Scopes: slack.Scopes[:1],
		Constraints:   []stack.Constraint{added, standing},
		AllowDataFrom: []string{"crm"}})
	require.NoError(t, err)
	assert.Equal(t, []stack.PassportService{{ServiceName: "slack", ConnectionID: slack.ID, Scopes: slack.Scopes[:1],
		Constraints: []stack.Constraint{standing, added}, AllowDataFrom: []string{"crm"}}}, s.claims(t, one.Token).STK.Services,
		"the grant's constraints stay, once, and the passport's come on top")

	named, err := s.client.Passports.Issue(t.Context(), s.issueParams(mission, func(p *stack.PassportIssueParams) {
		p.Services = []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes[:1]}}
	}))
	require.NoError(t, err, "under the field's other name")
	assert.Equal(t, []string{"github", "crm"}, s.claims(t, named.Token).STK.Services[0].AllowDataFrom,
		"left out, the grant's is inherited")

	nothing := s.raw(t, "POST", "/v1/passports/issue", map[string]any{"agent_id": agent.ID,
		"mission_ids": []string{mission}, "scopes": []any{},
		"intent": map[string]any{"summary": "x", "services": []string{"slack"}}})
	assert.Empty(t, s.claims(t, stack.NewSecret(nothing["token"].(string))).STK.Services, "no scope is no service")

	ids := []any{slack.ID, agent.Connections["github"].ID}
	for name, tc := range map[string]struct {
		scope   stack.PassportScope
		field   string
		sent    any
		allowed any
	}{
		"connection": {stack.PassportScope{ServiceConnectionID: "scon_x", Scopes: []string{"a"}}, "service_connection_id",
			"scon_x", ids},
		"scope": {stack.PassportScope{ServiceConnectionID: slack.ID, Scopes: []string{"admin"}}, "scopes", "admin",
			toAny(t, slack.Scopes)},
		"data flow": {stack.PassportScope{ServiceConnectionID: slack.ID, Scopes: slack.Scopes,
			AllowDataFrom: []string{"crm", "gmail"}},
			"allow_data_from", "gmail", []any{"github", "crm"}},
	} {
		apiErr := requireRefused(t, failure(issue(tc.scope)), http.StatusBadRequest, "SCOPE_ESCALATION")
		require.ErrorIs(t, failure(issue(tc.scope)), stack.ErrScopeEscalation)
		assert.Equal(t, map[string]any{"check": "scope", "field": "body.scopes[0]." + tc.field, "sent": tc.sent,
			"allowed": tc.allowed}, apiErr.Details, name)
	}
	assert.Empty(t, s.SecurityEvents(), "asking is no event")
}

// Constraints of the grant and of the scope count together.
func TestConstraintsAddUp(t *testing.T) {
	t.Parallel()
	list := func(from, n int) (cs []stack.Constraint) {
		for i := range n {
			cs = append(cs, stack.Constraint{Path: fmt.Sprintf("body.f%d", from+i), Op: stack.OpEq, Value: "x"})
		}
		return cs
	}
	srv := stacktest.New(t)
	agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}, Constraints: list(0, 20)})
	s := &stage{srv, srv.Client(), agent}
	issue := func(cs []stack.Constraint) error {
		slack := agent.Connections["slack"]
		return failure(s.client.Passports.Issue(t.Context(),
			s.issueParams(s.mission(t, time.Hour), func(p *stack.PassportIssueParams) {
				p.Scopes = []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes, Constraints: cs}}
			})))
	}
	require.NoError(t, issue(list(20, 12)))
	require.NoError(t, issue(list(0, 32)), "those of the grant again, and twelve more")
	apiErr := requireRefused(t, issue(list(20, 13)), http.StatusBadRequest, "INVALID_REQUEST")
	assert.Contains(t, apiErr.Message, "the agent's grant")
}

// A passport that does not fit into a token is refused, and leaves nothing behind.
func TestPassportThatIsTooLarge(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	slack := s.agent.Connections["slack"]
	used := func() int {
		u, err := s.client.Usage.Get(t.Context(), stack.UsageParams{})
		require.NoError(t, err)
		return u.Consumption.Meters["passports"].Used
	}
	before := used()
	_, err := s.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: s.agent.ID,
		Mission: stack.MissionOpenParams{IntentSummary: "x"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}},
			Scopes: []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes,
				Constraints: []stack.Constraint{{Path: "body.text", Op: stack.OpEq, Value: strings.Repeat("x", 20_000)}}}}}})
	apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	assert.Equal(t, "passport_size", apiErr.Details["check"])
	assert.Contains(t, apiErr.Details["allowed"], "16384 bytes")
	assert.Equal(t, before, used(), "it is not counted")
	assert.Empty(t, s.OpenMissions())
	active, err := s.client.Passports.ListActive(t.Context(), stack.PassportListParams{})
	require.NoError(t, err)
	assert.Empty(t, active)
	assert.Zero(t, s.countRows("passport.issue"))
}

func TestRefreshOfAnEnforcedPassport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		began := s.Now()
		p := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL, p.CheckpointInterval = time.Minute, 5*time.Minute })
		refresh := func(ttl time.Duration) (*stack.Passport, error) {
			return s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: p.Token, TTL: ttl})
		}
		assert.Equal(t, time.Minute, p.ExpiresAt.Sub(began))
		time.Sleep(30 * time.Second)
		again, err := refresh(0)
		require.NoError(t, err)
		assert.Equal(t, 90*time.Second, again.ExpiresAt.Sub(began), "by default its own lifetime from now")
		again, err = refresh(time.Minute)
		require.NoError(t, err)
		assert.Equal(t, 90*time.Second, again.ExpiresAt.Sub(began), "never back")
		time.Sleep(90 * time.Second)
		assert.Equal(t, "expired", verification(t, s.client, p.Token).Reason)
		again, err = refresh(time.Hour)
		require.NoError(t, err, "it expired, and owes no checkpoint yet")
		assert.Equal(t, p.JTI, again.JTI)
		assert.Equal(t, 5*time.Minute, again.ExpiresAt.Sub(began), "never past the checkpoint")
		assert.True(t, verification(t, s.client, p.Token).Valid, "the record decides, whatever the old token says")

		cp, err := s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
		assert.Equal(t, 7*time.Minute, cp.NewExpiresAt.Sub(began),
			"a checkpoint gives a whole interval, beyond the asked-for lifetime")
		time.Sleep(5*time.Minute - time.Second)
		again, err = refresh(0)
		require.NoError(t, err)
		assert.Equal(t, cp.NewExpiresAt, again.ExpiresAt)
		time.Sleep(time.Second)
		apiErr := requireRefused(t, failure(refresh(0)), http.StatusUnauthorized, "PASSPORT_REVOKED")
		assert.Equal(t, "checkpoint_silence_fire:"+p.JTI, apiErr.Details["revocation_reason"])
		assert.Equal(t, "revoked", apiErr.Details["sent"])
		assert.Equal(t, 4, s.countRows("passport.refresh"), "a refusal is none")
	})
}

func TestRefreshRulesOnTheWire(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	for name, tc := range map[string]struct {
		body   map[string]any
		status int
		code   string
		check  string
	}{
		"ttl too short": {map[string]any{"token": p.Token.Reveal(), "ttl_seconds": 59}, 400, "INVALID_REQUEST", "validation"},
		"ttl too long":  {map[string]any{"token": p.Token.Reveal(), "ttl_seconds": 3601}, 400, "INVALID_REQUEST", "validation"},
		"no token":      {map[string]any{}, 400, "INVALID_REQUEST", "validation"},
		"an empty one":  {map[string]any{"token": ""}, 401, "UNAUTHORIZED", "authentication"},
		"not a token":   {map[string]any{"token": "a.b.c"}, 401, "UNAUTHORIZED", "passport_signature"},
		"a forged one": {map[string]any{"token": p.Token.Reveal()[:len(p.Token.Reveal())-8] + "AAAAAAAA"}, 401,
			"UNAUTHORIZED", "passport_signature"},
	} {
		err := s.client.Do(t.Context(), "POST", "/v1/passports/refresh", tc.body, nil)
		apiErr := requireRefused(t, err, tc.status, tc.code)
		assert.Equal(t, tc.check, apiErr.Details["check"], name)
		assert.NotContains(t, fmt.Sprint(err, apiErr.Details), p.Token.Reveal()[:60], "no error shows a token")
	}
	done := s.issue(t)
	_, err := s.client.Passports.Checkout(t.Context(), done.JTI, stack.CheckpointParams{})
	require.NoError(t, err)
	_, err = s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: done.Token})
	apiErr := requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
	assert.Equal(t, "checked_out", apiErr.Details["sent"])
	assert.Empty(t, s.SecurityEvents(), "nobody used it")
}

// What verify says goes by the record, and a token of any kind is an answer.
func TestVerifyGoesByTheRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		p := s.issue(t)
		_, err := s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
		time.Sleep(4 * time.Minute)
		_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
		time.Sleep(4 * time.Minute)
		v := verification(t, s.client, p.Token)
		assert.True(t, v.Valid, v.Reason)
		assert.True(t, v.Claims.ExpiresAt.Before(s.Now()), "the token's own life is over, the passport's is not")
		time.Sleep(time.Minute)
		v = verification(t, s.client, p.Token)
		assert.Equal(t, stack.Verification{Reason: "revoked", Claims: v.Claims, RevokedAt: s.Now(),
			RevocationReason: "checkpoint_silence_fire:" + p.JTI}, *v)
		assert.Equal(t, p.JTI, v.Claims.JTI)

		for _, token := range []string{"", "x", "a.b.c", p.Token.Reveal() + "x", strings.Repeat("x", 20_000)} {
			v := verification(t, s.client, stack.NewSecret(token))
			assert.False(t, v.Valid)
			assert.Contains(t, []string{"malformed", "invalid_signature"}, v.Reason)
			assert.Nil(t, v.Claims, "nothing is told of a token that is none")
		}
		mustRefuse(t, s.client.Do(t.Context(), "POST", "/v1/passports/verify", map[string]any{}, nil), 400, "INVALID_REQUEST")
		assert.Empty(t, s.SecurityEvents()[1:], "looking is no use: there is the silence and nothing else")
	})
}

// Nobody needs a key to verify a passport.
func TestVerifyIsPublic(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	stranger := s.Client(stack.WithAPIKey("sk_live_0000000000000000"))
	v, err := stranger.Passports.Verify(t.Context(), p.Token)
	require.NoError(t, err)
	assert.True(t, v.Valid)
	_, err = stranger.Passports.ListActive(t.Context(), stack.PassportListParams{})
	require.ErrorIs(t, err, stack.ErrUnauthorized)
}
