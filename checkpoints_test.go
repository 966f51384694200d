package stack_test

import (
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

func TestCheckpointMovesTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		p := s.issue(t, func(p *stack.PassportIssueParams) { p.CheckpointInterval = 2 * time.Minute })
		for i := range 10 { // far beyond the token's own expiry
			time.Sleep(2*time.Minute - time.Second)
			cp, err := s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: i, Summary: "busy"})
			require.NoError(t, err)
			assert.Equal(t, 2*time.Minute, cp.NewExpiresAt.Sub(s.Now()))
			assert.Equal(t, p.JTI, cp.PassportJTI)
			assert.True(t, strings.HasPrefix(cp.CheckpointID, "cp_"))
			assert.Empty(t, cp.Flags)
		}
		time.Sleep(2*time.Minute - time.Nanosecond)
		assert.Equal(t, "active", s.Passport(p.JTI).Passport.Status, "no grace, but not earlier either")
		time.Sleep(time.Nanosecond)
		assert.Equal(t, "checkpoint_silence_fire:"+p.JTI, s.RequireRevoked(t, p.JTI))
		assert.Equal(t, []string{"checkpoint_silence"}, s.signals())
		_, err := s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
		s.RequireAuditIntact(t)
	})
}

func TestSilenceCascades(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		root := s.issue(t)
		time.Sleep(time.Minute)
		child := s.chain(t, root, 1)[1]
		time.Sleep(4 * time.Minute)
		assert.Contains(t, s.RequireRevoked(t, child.JTI), "checkpoint_silence_fire:"+root.JTI)
	})
}

func TestExpiryWithoutSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		short := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL, p.CheckpointInterval = time.Minute, time.Hour })
		logged := newStage(t, stack.Logged)
		p := logged.issue(t)
		time.Sleep(30 * time.Minute)
		assert.Equal(t, "expired", s.Passport(short.JTI).Passport.Status, "it expired before a checkpoint was due")
		assert.Empty(t, s.signals())
		time.Sleep(30 * time.Minute)
		assert.Equal(t, "revoked", logged.Passport(p.JTI).Passport.Status, "its Mission expired")
		assert.Empty(t, logged.signals())
		_, err := s.client.Passports.Checkpoint(t.Context(), short.JTI, stack.CheckpointParams{})
		require.ErrorIs(t, err, stack.ErrUnauthorized)
	})
}

func TestCheckpointReportsAnUndeclaredService(t *testing.T) {
	t.Parallel()
	tests := map[stack.Accountability]struct {
		severity stack.Severity
		revoked  bool
	}{
		stack.Enforced: {stack.SeverityCritical, true},
		stack.Logged:   {stack.SeverityWarning, false},
	}
	for mode, tc := range tests {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, mode)
			p := s.issue(t)
			cp, err := s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}, ActionsCount: 1,
				ToolCalls: []stack.ToolCall{{Service: "github", Method: "GET"}}})
			require.NoError(t, err)
			assert.Equal(t, []string{"credential_outside_scope:github"}, cp.Flags)
			events := s.SecurityEvents()
			require.Len(t, events, 1)
			assert.Equal(t, tc.severity, events[0].Severity)
			assert.Equal(t, []any{"slack"}, toAny(t, events[0].Metadata["intent_services"]))
			assert.Equal(t, tc.revoked, !s.Passport(p.JTI).Passport.RevokedAt.IsZero())
		})
	}
}

// toAny gives a list of strings the form that JSON would give it.
func toAny(t *testing.T, v any) (list []any) {
	t.Helper()
	names, ok := v.([]string)
	require.True(t, ok, "%T", v)
	for _, name := range names {
		list = append(list, name)
	}
	return list
}

func TestCheckpointRefusals(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	p := s.issue(t)
	tests := map[string]stack.CheckpointParams{
		"body.summary":               {Summary: strings.Repeat("x", 1001)},
		"body.services_used[0]":      {ServicesUsed: []string{" "}},
		"body.tool_calls[0].service": {ToolCalls: []stack.ToolCall{{Method: "GET"}}},
		"body.tool_calls[0].method":  {ToolCalls: []stack.ToolCall{{Service: "slack", Method: strings.Repeat("x", 129)}}},
	}
	for field, params := range tests {
		_, err := s.client.Passports.Checkpoint(t.Context(), p.JTI, params)
		apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, field, apiErr.Details["field"])
		_, err = s.client.Passports.Checkout(t.Context(), p.JTI, params)
		mustRefuse(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	}
	_, err := s.client.Passports.Checkpoint(t.Context(), "pp_x", stack.CheckpointParams{})
	mustRefuse(t, err, 404, "NOT_FOUND")
	_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{ActionsCount: -1})
	requireParam(t, err, "actions_count")
	standard := newStage(t, stack.Standard)
	_, err = standard.client.Passports.Checkpoint(t.Context(), standard.issue(t).JTI, stack.CheckpointParams{})
	require.ErrorIs(t, err, stack.ErrCheckpointNotAvailable)
	mustRefuse(t, err, 404, "CHECKPOINT_NOT_AVAILABLE")
}

func TestCheckoutIsOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	p := s.issue(t)
	_, err := s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p))
	require.NoError(t, err)
	out, err := s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: 1,
		ToolCalls: []stack.ToolCall{{Service: "slack", Method: "POST", Target: "https://slack.com/api/chat.postMessage"}}, Summary: "done"})
	require.NoError(t, err)
	assert.Equal(t, stack.ReviewClean, out.ReviewStatus)
	assert.Empty(t, out.Flags)
	assert.True(t, strings.HasPrefix(out.CheckoutID, "co_"))
	_, err = s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{})
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	_, err = s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p))
	require.ErrorIs(t, err, stack.ErrPassportRevoked, "later use is refused")
	assert.Equal(t, []string{"post_checkout_access"}, s.signals())
	_, err = s.client.Passports.Checkout(t.Context(), "pp_x", stack.CheckpointParams{})
	mustRefuse(t, err, 404, "NOT_FOUND")
}

// What went wrong can be accounted for all the same.
func TestCheckoutOfADeadPassport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		revoked := s.issue(t)
		_, err := s.client.Passports.Revoke(t.Context(), revoked.JTI, "rogue")
		require.NoError(t, err)
		_, err = s.client.Passports.Checkout(t.Context(), revoked.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
		expired := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL = time.Minute })
		time.Sleep(2 * time.Minute)
		_, err = s.client.Passports.Checkout(t.Context(), expired.JTI, stack.CheckpointParams{})
		require.NoError(t, err)
	})
}

// Every post-hoc check can be reached through the API.
func TestPostHocChecks(t *testing.T) {
	t.Parallel()
	call := stack.ToolCall{Service: "slack", Method: "POST", Target: "https://slack.com/api/chat.postMessage"}
	proxied := func(t *testing.T, s *stage, p *stack.Passport) {
		_, err := s.client.Proxy.Post(t.Context(), withPassport(post("#support"), p))
		require.NoError(t, err)
	}
	none := func(*testing.T, *stage, *stack.Passport) {}
	reported := stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: 1, ToolCalls: []stack.ToolCall{call}}
	tests := map[string]struct {
		issue  func(*stack.PassportIssueParams)
		run    func(*testing.T, *stage, *stack.Passport)
		report stack.CheckpointParams
		flag   stack.Flag
		status stack.ReviewStatus
	}{
		"undeclared_service": {nil, none, stack.CheckpointParams{ServicesUsed: []string{"github"}, ActionsCount: 1},
			stack.Flag{Severity: stack.SeverityCritical}, stack.ReviewBlocked},
		"unreported_action": {nil, proxied, stack.CheckpointParams{}, stack.Flag{Severity: stack.SeverityWarning}, stack.ReviewFlagged},
		"phantom_action":    {nil, none, reported, stack.Flag{Severity: stack.SeverityWarning}, stack.ReviewFlagged},
		"action_count_mismatch": {nil, proxied, stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: 7, ToolCalls: []stack.ToolCall{call}},
			stack.Flag{Severity: stack.SeverityInfo}, stack.ReviewClean},
		"undeclared_delegation": {nil, func(t *testing.T, s *stage, p *stack.Passport) {
			proxied(t, s, p)
			child := s.Agent(t, stacktest.AgentConfig{})
			_, err := s.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: p.Token, ChildAgentID: child.ID})
			require.NoError(t, err)
		}, reported, stack.Flag{Severity: stack.SeverityWarning}, stack.ReviewFlagged},
		"duration_overrun": {func(p *stack.PassportIssueParams) { p.Intent.EstimatedDuration = time.Minute }, func(t *testing.T, s *stage, p *stack.Passport) {
			proxied(t, s, p)
			time.Sleep(2*time.Minute + time.Second)
		}, reported, stack.Flag{Severity: stack.SeverityWarning}, stack.ReviewFlagged},
		"missed_checkpoints": {func(p *stack.PassportIssueParams) { p.CheckpointInterval = time.Minute }, func(t *testing.T, s *stage, p *stack.Passport) {
			proxied(t, s, p)
			time.Sleep(3 * time.Minute)
		}, reported, stack.Flag{Severity: stack.SeverityWarning}, stack.ReviewFlagged},
		"high_failure_rate": {nil, func(t *testing.T, s *stage, p *stack.Passport) {
			for range 5 {
				s.Fault(stacktest.Fault{Path: "upstream:slack.com", Status: 500})
				_, err := s.client.Proxy.Get(t.Context(), withPassport(stack.ProxyRequest{Service: "slack", URL: "https://slack.com/x"}, p))
				require.NoError(t, err)
			}
		}, stack.CheckpointParams{}, stack.Flag{Severity: stack.SeverityInfo}, ""},
		"idle_mission": {nil, none, stack.CheckpointParams{}, stack.Flag{Severity: stack.SeverityInfo}, stack.ReviewClean},
	}
	for flag, tc := range tests {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				var change []func(*stack.PassportIssueParams)
				if tc.issue != nil {
					change = append(change, tc.issue)
				}
				p := s.issue(t, change...)
				tc.run(t, s, p)
				out, err := s.client.Passports.Checkout(t.Context(), p.JTI, tc.report)
				require.NoError(t, err)
				var found *stack.Flag
				for _, f := range out.Flags {
					if f.Type == flag {
						found = &f
					}
				}
				require.NotNil(t, found, out.Flags)
				assert.Equal(t, tc.flag.Severity, found.Severity)
				assert.NotEmpty(t, found.Message)
				if tc.status != "" {
					assert.Equal(t, tc.status, out.ReviewStatus, out.Flags)
				}
			})
		})
	}
}

func TestVolumeAnomaly(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	checkout := func(actions int) *stack.Checkout {
		p := s.issue(t)
		out, err := s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: actions})
		require.NoError(t, err)
		return out
	}
	for i := range 6 {
		assert.Equal(t, stack.ReviewClean, checkout(10+i%2).ReviewStatus)
	}
	out := checkout(500)
	assert.Equal(t, stack.ReviewFlagged, out.ReviewStatus)
	assert.Equal(t, "volume_anomaly", out.Flags[0].Type)
}

func TestReport(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	p := s.issue(t)
	var raw map[string]any
	require.NoError(t, s.client.Do(t.Context(), "GET", "/v1/passports/"+p.JTI+"/report", nil, &raw))
	assert.Len(t, raw, 5, "exactly five keys, which the Python SDK insists on")
	for _, key := range []string{"passport", "intent", "checkpoints", "checkout", "review"} {
		assert.Contains(t, raw, key)
	}
	_, err := s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: 3, Summary: "half way"})
	require.NoError(t, err)
	_, err = s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{Summary: "done"})
	require.NoError(t, err)
	report, err := s.client.Passports.Report(t.Context(), p.JTI)
	require.NoError(t, err)
	assert.Equal(t, "checked_out", report.Passport.Status)
	assert.Equal(t, "Test", report.Intent.Summary)
	require.Len(t, report.Checkpoints, 1)
	assert.Equal(t, "half way", report.Checkpoints[0].Summary)
	assert.Equal(t, 3, report.Checkpoints[0].ActionsCount)
	assert.Equal(t, "done", report.Checkout.Summary)
	assert.Nil(t, report.Review)
	_, err = s.client.Passports.Report(t.Context(), "pp_x")
	mustRefuse(t, err, 404, "NOT_FOUND")
}

// What a detector does depends on the mode.
func TestModesOfDetectors(t *testing.T) {
	t.Parallel()
	tests := map[stack.Accountability]struct {
		event   string
		revoked bool
	}{
		stack.Enforced: {"critical", true},
		stack.Logged:   {"warning", false},
		stack.Standard: {"", false},
	}
	for mode, tc := range tests {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, mode)
			p := s.issue(t)
			_, err := s.client.Proxy.Get(t.Context(), withPassport(stack.ProxyRequest{Service: "github", URL: "https://api.github.com/"}, p))
			mustRefuse(t, err, 403, "FORBIDDEN")
			if tc.event == "" {
				assert.Empty(t, s.SecurityEvents())
			} else {
				assert.Equal(t, stack.Severity(tc.event), s.SecurityEvents()[0].Severity)
			}
			assert.Equal(t, tc.revoked, !s.Passport(p.JTI).Passport.RevokedAt.IsZero())
			var audited bool
			for _, row := range s.Audit() {
				audited = audited || row.Action == "detector.credential_outside_scope"
			}
			assert.True(t, audited, "the audit log has it in every mode")
		})
	}
}
