package stack_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// covering has a binding cover services or skills.
func covering(services ...string) func(*stack.AuthorityBindingParams) {
	return func(p *stack.AuthorityBindingParams) { p.Services = services }
}

// An invocation is a use of the bindings that cover its skill, as a proxied call is of those that cover its service.
func TestInvocationsUseAuthority(t *testing.T) {
	t.Parallel()
	s := newAuthorityStage(t)
	sk := publish(t, s.client, shout())
	one, all, slack := s.active(t, covering(sk.ID)), s.active(t, covering("skill", "slack")), s.active(t)
	pass := s.issue(t, carrying(one.ID, all.ID, slack.ID))
	params := text("x")
	params.PassportID, params.IdempotencyKey = pass.JTI, "once"
	for range 2 { // the second asks again for the outcome of the first
		invoke(t, s.client, sk.ID, params)
	}
	uses := s.uses(t)
	require.Len(t, uses, 2)
	use := uses[1]
	assert.Equal(t, stack.AuthorityUse{ID: use.ID, OperatorID: s.OperatorID(), BindingID: one.ID, BindingVersion: 1, AgentID: s.agent.ID,
		PassportJTI: pass.JTI, MissionID: s.claims(t, pass.Token).STK.MissionIDs[0], ReceiverID: s.receiver.ID, Service: sk.ID,
		Method: "invoke", Outcome: stack.UseAllowed, UsedAt: use.UsedAt}, use)
	assert.Equal(t, all.ID, uses[0].BindingID)
	assert.Equal(t, []int{1, 1, 0}, []int{s.used(t, one.ID), s.used(t, all.ID), s.used(t, slack.ID)})
	assert.Empty(t, s.presentations(t), "no receiver was shown anything")

	params.IdempotencyKey = ""
	params.Input = map[string]any{"text": 1}
	_, err := s.client.Skills.Invoke(t.Context(), sk.ID, params)
	requireRefused(t, err, 400, "SCHEMA_VALIDATION_FAILED")
	assert.Len(t, s.uses(t), 2, "what a later check stops is no use")
	invoke(t, s.client, sk.ID, text("without a passport"))
	assert.Len(t, s.uses(t), 2)
}

// A passport whose binding has lapsed is good for no invocation either, and one that has no use left is refused.
func TestAuthorityIsCheckedOnInvocation(t *testing.T) {
	t.Parallel()
	for reason, lapse := range map[string]func(t *testing.T, s *authorityStage, sk *stack.Skill, id string){
		"revoked": func(t *testing.T, s *authorityStage, _ *stack.Skill, id string) {
			require.NoError(t, failure(s.api.RevokeBinding(t.Context(), id, authorityReason("x"))))
		},
		"receiver_unverified": func(t *testing.T, s *authorityStage, _ *stack.Skill, _ string) {
			require.NoError(t, failure(s.api.RevokeReceiverKey(t.Context(), s.receiver.ID, s.receiver.Keys[0].ID, authorityReason("x"))))
		},
		"expired": func(t *testing.T, s *authorityStage, _ *stack.Skill, _ string) { s.Advance(30 * time.Minute) },
		"exhausted": func(t *testing.T, s *authorityStage, sk *stack.Skill, id string) {
			params := text("x")
			params.PassportID = s.issue(t, carrying(id)).JTI
			invoke(t, s.client, sk.ID, params)
		},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			s := newAuthorityStage(t)
			p := shout()
			p.PricePerInvocation = 10
			sk := publish(t, s.client, p)
			require.NoError(t, s.TopUp(100))
			b := s.active(t, func(p *stack.AuthorityBindingParams) {
				p.Services, p.MaxUses, p.ExpiresAt = []string{sk.ID}, 2, s.Now().Add(20*time.Minute)
			})
			pass := s.issue(t, carrying(b.ID), func(p *stack.PassportIssueParams) { p.TTL = time.Hour })
			params := text("x")
			params.PassportID = pass.JTI
			invoke(t, s.client, sk.ID, params)
			lapse(t, s, sk, b.ID)
			before := balance(t, s.client).BalanceCents
			keep := false
			dry, err := s.client.Intents.Simulate(t.Context(), stack.IntentSimulateParams{PassportToken: pass.Token, Persist: &keep,
				Intent: stack.IntentClaim{IntentType: stack.IntentSkill, Target: sk.ID}})
			require.NoError(t, err)
			require.Len(t, dry.DenialReasons, 1)
			assert.Equal(t, "AUTHORITY_BINDING_INACTIVE", dry.DenialReasons[0].Code)
			_, err = s.client.Skills.Invoke(t.Context(), sk.ID, params)
			refused := requireRefused(t, err, http.StatusForbidden, "AUTHORITY_BINDING_INACTIVE")
			assert.Subset(t, refused.Details, map[string]any{"check": "authority_binding", "binding_id": b.ID, "reason": reason})
			assert.Equal(t, before, balance(t, s.client).BalanceCents, "nothing was paid")
			last := s.uses(t)[0]
			assert.Equal(t, []any{stack.UseRefused, reason, pass.JTI, sk.ID}, []any{last.Outcome, last.Reason, last.PassportJTI, last.Service})
			rows := s.Audit()
			assert.Equal(t, []any{"skill.invoke", stack.OutcomeBlocked, "AUTHORITY_BINDING_INACTIVE"},
				[]any{rows[len(rows)-1].Action, rows[len(rows)-1].Outcome, rows[len(rows)-1].ErrorCode})
		})
	}
}
