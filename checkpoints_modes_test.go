package stack_test

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestCheckpointByMode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		report := stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: 1}
		logged := newStage(t, stack.Logged)
		p := logged.issue(t, func(p *stack.PassportIssueParams) { p.CheckpointInterval = time.Minute })
		time.Sleep(5 * time.Minute)
		cp, err := logged.client.Passports.Checkpoint(t.Context(), p.JTI, report)
		require.NoError(t, err, "late is no matter")
		assert.True(t, cp.NewExpiresAt.IsZero(), "it keeps nothing alive")
		assert.Equal(t, p.ExpiresAt, logged.Passport(p.JTI).Passport.ExpiresAt)
		assert.Empty(t, logged.SecurityEvents())
		assert.Equal(t, 1, logged.countRows("passport.checkpoint"), "but on record")
		time.Sleep(10 * time.Minute)
		_, err = logged.client.Passports.Checkpoint(t.Context(), p.JTI, report)
		expired := requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_EXPIRED")
		assert.Equal(t, map[string]any{"check": "passport_state", "sent": "expired", "allowed": "active"}, expired.Details)
		assert.Empty(t, logged.SecurityEvents(), "a report is no use of the passport")

		standard := newStage(t, stack.Standard)
		p = standard.issue(t)
		_, err = standard.client.Passports.Checkpoint(t.Context(), p.JTI, report)
		apiErr := requireRefused(t, err, http.StatusNotFound, "CHECKPOINT_NOT_AVAILABLE")
		assert.Equal(t, map[string]any{"check": "accountability_mode", "sent": "standard",
			"allowed": []any{"enforced", "logged"}}, apiErr.Details)
		out, err := standard.client.Passports.Checkout(t.Context(), p.JTI,
			stack.CheckpointParams{ServicesUsed: []string{"github"}, ActionsCount: 9})
		require.NoError(t, err)
		assert.Equal(t, stack.Checkout{CheckoutID: out.CheckoutID, PassportJTI: p.JTI, ReviewStatus: stack.ReviewClean,
			Flags: []stack.Flag{}}, *out)
	})
}

// A checkpoint gives one whole interval from its own time, up to the Mission's end.
func TestCheckpointArithmetic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		began := s.Now()
		p, err := s.client.Passports.Issue(t.Context(), s.issueParams(s.mission(t, 12*time.Minute)))
		require.NoError(t, err)
		for _, tc := range []struct{ at, want time.Duration }{
			{time.Second, 5*time.Minute + time.Second}, // early: no interval is added to another
			{4 * time.Minute, 9 * time.Minute},
			{9*time.Minute - time.Nanosecond, 12 * time.Minute}, // the last moment; the Mission ends first
			{11 * time.Minute, 12 * time.Minute},
		} {
			time.Sleep(began.Add(tc.at).Sub(s.Now()))
			var cp *stack.Checkpoint
			cp, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
			require.NoError(t, err, tc.at)
			assert.Equal(t, tc.want, cp.NewExpiresAt.Sub(began), tc.at)
		}
		time.Sleep(time.Minute)
		assert.Equal(t, "Mission expired", s.RequireRevoked(t, p.JTI))
		assert.Empty(t, s.signals(), "the Mission ended; nobody was silent")
		_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
		apiErr := requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
		assert.Equal(t, map[string]any{"check": "passport_state", "sent": "revoked", "allowed": "active",
			"revocation_reason": "Mission expired"}, apiErr.Details)
	})
}

// Silence is told at the deadline, whether or not the passport had expired before, and whenever somebody looks.
func TestSilence(t *testing.T) {
	t.Parallel()
	for name, ttl := range map[string]time.Duration{"alive until then": time.Hour, "expired before": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Enforced)
				p := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL, p.CheckpointInterval = ttl, 5*time.Minute })
				deadline := s.Now().Add(5 * time.Minute)
				time.Sleep(5*time.Minute - time.Second)
				assert.Empty(t, s.signals())
				time.Sleep(40 * time.Minute) // nobody looks for a while
				reason := s.RequireRevoked(t, p.JTI)
				assert.Equal(t, "checkpoint_silence_fire:"+p.JTI, reason)
				events := s.SecurityEvents()
				require.Len(t, events, 1)
				e := events[0]
				assert.Equal(t, []any{"checkpoint_silence", stack.SeverityCritical, p.JTI, s.agent.ID, deadline, false},
					[]any{e.SignalType, e.Severity, e.PassportJTI, e.AgentID, e.CreatedAt, e.Resolved})
				assert.Equal(t, deadline, s.Passport(p.JTI).Passport.RevokedAt)
				_, err := s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p))
				require.ErrorIs(t, err, stack.ErrPassportRevoked)
				_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
				require.ErrorIs(t, err, stack.ErrPassportRevoked)
			})
		})
	}
}

// What fell due while nobody looked is told in the order of its time, and at its time.
func TestALateLookFindsEverythingInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		short := s.mission(t, 4*time.Minute)
		ended, err := s.client.Passports.Issue(t.Context(), s.issueParams(short))
		require.NoError(t, err)
		slow := s.issue(t, func(p *stack.PassportIssueParams) { p.CheckpointInterval = 450 * time.Second })
		fast := s.issue(t, func(p *stack.PassportIssueParams) { p.CheckpointInterval = 2 * time.Minute })
		worker := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
		logged := s.issue(t, func(p *stack.PassportIssueParams) { p.AgentID, p.TTL = worker.ID, 7*time.Minute })
		_, err = s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: logged.Token, TTL: 8 * time.Minute})
		require.NoError(t, err)
		began, before := s.Now(), len(s.Audit())
		s.Advance(30 * time.Minute)
		type row struct {
			at          time.Duration
			action, jti string
		}
		var got []row
		for _, e := range s.Audit()[before:] {
			got = append(got, row{e.Timestamp.Sub(began), e.Action, e.PassportJTI})
		}
		assert.Equal(t, []row{
			{2 * time.Minute, "detector.checkpoint_silence", fast.JTI},
			{2 * time.Minute, "passport.revoke", fast.JTI},
			{4 * time.Minute, "mission.expire", ""},
			{4 * time.Minute, "passport.revoke", ended.JTI},
			{450 * time.Second, "detector.checkpoint_silence", slow.JTI},
			{450 * time.Second, "passport.revoke", slow.JTI},
			{8 * time.Minute, "passport.expire", logged.JTI}, // which was set for 7 minutes at first
		}, slices.DeleteFunc(got, func(r row) bool { return r.action == "passport.expire" && r.jti == ended.JTI }))
		s.RequireAuditIntact(t)
	})
}

// What each mode makes of a finding: enforced revokes for what is critical, logged records, standard keeps the audit row.
func TestDetectorsByMode(t *testing.T) {
	t.Parallel()
	use := func(t *testing.T, s *stage, p *stack.Passport) {
		require.Error(t, failure(s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p))))
	}
	acts := map[string]struct {
		act      func(*testing.T, *stage, *stack.Passport)
		severity stack.Severity
		revokes  bool // when enforced, a passport that was not revoked before
	}{
		"post_checkout_access": {func(t *testing.T, s *stage, p *stack.Passport) {
			require.NoError(t, failure(s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{})))
			use(t, s, p)
		}, stack.SeverityCritical, true},
		"revoked_passport_use": {func(t *testing.T, s *stage, p *stack.Passport) {
			require.NoError(t, failure(s.client.Passports.Revoke(t.Context(), p.JTI, "rogue")))
			use(t, s, p)
		}, stack.SeverityCritical, false},
		"expired_passport_use": {func(t *testing.T, s *stage, p *stack.Passport) {
			time.Sleep(time.Minute)
			use(t, s, p)
		}, stack.SeverityWarning, false},
		"delegation_violation": {func(t *testing.T, s *stage, p *stack.Passport) {
			_, err := s.delegate(t, p, func(p *stack.PassportDelegateParams) {
				p.Scopes = []stack.PassportScope{{ServiceConnectionID: "scon_x", Scopes: []string{"x"}}}
			})
			require.ErrorIs(t, err, stack.ErrScopeEscalation)
		}, stack.SeverityWarning, false},
	}
	for signal, tc := range acts {
		for _, mode := range []stack.Accountability{stack.Enforced, stack.Logged, stack.Standard} {
			t.Run(signal+"/"+string(mode), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t, mode)
					p := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL = time.Minute })
					child, err := s.delegate(t, p)
					require.NoError(t, err)
					tc.act(t, s, p)
					assert.Equal(t, 1, s.countRows("detector."+signal), "the audit log has it in every mode")
					events := s.SecurityEvents()
					if mode == stack.Standard {
						assert.Empty(t, events)
					} else {
						require.Len(t, events, 1)
						assert.Equal(t, []any{signal, tc.severity, p.JTI},
							[]any{events[0].SignalType, events[0].Severity, events[0].PassportJTI})
						assert.NotEmpty(t, events[0].Message)
					}
					record := s.Passport(p.JTI).Passport
					if tc.revokes && mode == stack.Enforced {
						assert.Equal(t, signal+"_fire:"+p.JTI, record.RevocationReason)
						assert.Equal(t, record.RevocationReason, s.RequireRevoked(t, child.JTI), "with what was delegated")
					} else if signal != "revoked_passport_use" {
						assert.True(t, record.RevokedAt.IsZero())
					}
				})
			})
		}
	}
}

// A revocation that has not spread yet lets a passport through, but not past its own end. (contract: decisions, Time, faults, control)
func TestDelayedRevocationKeepsNothingAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		s.SetPolicy(stacktest.Policy{RevocationDelay: 2 * time.Minute})
		p := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL = time.Minute })
		_, err := s.client.Passports.Revoke(t.Context(), p.JTI, "rogue")
		require.NoError(t, err)
		use := func() error {
			return failure(s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p)))
		}
		time.Sleep(59 * time.Second)
		require.NoError(t, use())
		time.Sleep(time.Second)
		mustRefuse(t, use(), http.StatusUnauthorized, "PASSPORT_EXPIRED")
		time.Sleep(time.Minute)
		mustRefuse(t, use(), http.StatusUnauthorized, "PASSPORT_REVOKED")
	})
}

// The report tells the whole fate of a passport, in every state.
func TestReportStates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		short := func(p *stack.PassportIssueParams) { p.TTL = time.Minute }
		active, revoked, expired, done := s.issue(t), s.issue(t), s.issue(t, short), s.issue(t, short)
		require.NoError(t, failure(s.client.Passports.Revoke(t.Context(), revoked.JTI, "rogue")))
		time.Sleep(2 * time.Minute)
		require.NoError(t, failure(s.client.Passports.Checkout(t.Context(), done.JTI, stack.CheckpointParams{Summary: "late"})))
		for jti, want := range map[string]string{active.JTI: "active", revoked.JTI: "revoked", expired.JTI: "expired",
			done.JTI: "checked_out"} {
			r, err := s.client.Passports.Report(t.Context(), jti)
			require.NoError(t, err)
			assert.Equal(t, want, r.Passport.Status)
			assert.Equal(t, &stack.Intent{Summary: "Test", Services: []string{"slack"}}, r.Intent)
			assert.Equal(t, []stack.ReportedCheckpoint{}, r.Checkpoints)
			assert.Equal(t, want == "checked_out", r.Checkout != nil)
			assert.Equal(t, want == "checked_out", !r.Passport.CheckedOutAt.IsZero())
			assert.Equal(t, want == "revoked", !r.Passport.RevokedAt.IsZero())
		}
		_, err := s.client.Passports.Checkout(t.Context(), done.JTI, stack.CheckpointParams{})
		apiErr := requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
		assert.Equal(t, s.Checkout(done.JTI).CheckoutID, apiErr.Details["checkout_id"])

		standard := newStage(t, stack.Standard)
		p := standard.issue(t, func(p *stack.PassportIssueParams) { p.Intent = nil })
		raw := standard.raw(t, "GET", "/v1/passports/"+p.JTI+"/report", nil)
		assert.Equal(t, "checkout checkpoints intent passport review", keys(raw))
		assert.Equal(t, []any{nil, nil, nil, []any{}}, []any{raw["intent"], raw["checkout"], raw["review"], raw["checkpoints"]})
	})
}
