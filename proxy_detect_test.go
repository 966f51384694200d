package stack_test

import (
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

// at is a read of a path of Slack's.
func at(path string) stack.ProxyRequest {
	return stack.ProxyRequest{Service: "slack", URL: "https://slack.com/" + path}
}

// Eight new paths at 0.25 reach 2.00. The call that does so still goes through; what comes of it is the mode's matter.
// (contract: decisions, Scope drift)
func TestScopeDrift(t *testing.T) {
	t.Parallel()
	for _, mode := range []stack.Accountability{stack.Enforced, stack.Logged, stack.Standard} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, mode)
			p := s.issue(t)
			for i := range 8 {
				_, err := s.do(t, p, at(fmt.Sprintf("%c/list", 'a'+i)))
				require.NoError(t, err)
			}
			assert.Zero(t, s.countRows("detector.scope_drift"))
			_, err := s.do(t, p, at("one/more"))
			require.NoError(t, err)
			assert.Equal(t, 1, s.countRows("detector.scope_drift"))
			for i := range 8 {
				if _, err = s.do(t, p, at(fmt.Sprintf("%c/get", 'a'+i))); err != nil {
					break
				}
			}
			assert.Equal(t, 1, s.countRows("detector.scope_drift"), "once per passport")
			switch mode {
			case stack.Enforced:
				require.ErrorIs(t, err, stack.ErrPassportRevoked)
				assert.Len(t, s.Forwarded("slack.com"), 9, "the next call is refused")
				assert.Equal(t, "scope_drift_fire:cumulative_2.00", s.RequireRevoked(t, p.JTI))
				assert.Equal(t, []string{"scope_drift", "revoked_passport_use"}, s.signals())
			case stack.Logged:
				require.NoError(t, err)
				assert.Equal(t, []string{"scope_drift"}, s.signals())
				assert.Equal(t, stack.SeverityWarning, s.SecurityEvents()[0].Severity)
			case stack.Standard:
				require.NoError(t, err)
				assert.Empty(t, s.signals())
			}
		})
	}
}

// One call that is far from everything: another host, 0.60, and the first write, 0.25.
func TestScopeDriftOfOneCall(t *testing.T) {
	t.Parallel()
	s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Enforced, Services: []string{"own"}})
	s.Upstream("own.example", answers(jsonType, `{}`))
	s.Upstream("files.own.example", answers(jsonType, `{}`))
	m := s.started(t)
	_, err := s.do(t, &m.Passport, stack.ProxyRequest{Service: "own", URL: "https://own.example/x"})
	require.NoError(t, err)
	_, err = s.do(t, &m.Passport, stack.ProxyRequest{Service: "own", Method: "PUT", URL: "https://files.own.example/x"})
	require.NoError(t, err)
	assert.Equal(t, "scope_drift_fire:single_call_0.85", s.RequireRevoked(t, m.Passport.JTI))
}

// A call that reached its service is scored without an answer, too; one that did not reach it is not.
func TestScopeDriftOfFailedCalls(t *testing.T) {
	t.Parallel()
	for _, lost := range []stacktest.CloseAt{stacktest.CloseBefore, stacktest.CloseAfter} {
		s := newStage(t, stack.Logged, stack.WithMaxRetries(0))
		p := s.issue(t)
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Close: lost, Times: 9})
		for i := range 9 {
			_, err := s.do(t, p, at(fmt.Sprintf("%c/list", 'a'+i)))
			requireRefused(t, err, http.StatusBadGateway, "UPSTREAM_UNREACHABLE")
		}
		assert.Equal(t, lost == stacktest.CloseAfter, len(s.signals()) == 1, lost)
	}
}

// More than 60 proxied calls in 30 s are a warning, more than three times as many critical. (contract: decisions, Detectors)
func TestProxyBurst(t *testing.T) {
	t.Parallel()
	for _, mode := range []stack.Accountability{stack.Enforced, stack.Logged} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, mode)
				p := s.issue(t)
				use := func(n int) (err error) {
					for range n {
						_, err = s.do(t, p, read)
					}
					return err
				}
				require.NoError(t, use(60))
				time.Sleep(30 * time.Second)
				require.NoError(t, use(60))
				assert.Empty(t, s.signals(), "the window has moved on")
				require.NoError(t, use(1))
				assert.Equal(t, []string{"credential_burst"}, s.signals())
				assert.Equal(t, stack.SeverityWarning, s.SecurityEvents()[0].Severity)
				assert.EqualValues(t, 61, s.SecurityEvents()[0].Metadata["credential_count"])
				require.NoError(t, use(180-61), "a warning stops nothing")
				before := len(s.Forwarded("slack.com"))
				err := use(1)
				assert.Equal(t, stack.SeverityCritical, s.SecurityEvents()[1].Severity)
				if mode == stack.Logged {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, stack.ErrPassportRevoked)
				assert.Len(t, s.Forwarded("slack.com"), before, "the call that fires is refused itself")
				assert.Equal(t, "credential_burst_fire:181_proxied_call_in_30s", s.RequireRevoked(t, p.JTI))
				assert.Equal(t, stack.OutcomeBlocked, s.lastRow(t, "credential.proxy").Outcome)
			})
		})
	}
}

// A passport that is over, or none, opens nothing, and its use is an event. (contract: decisions, Detectors)
func TestDeadPassports(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		end      func(*testing.T, *stage, *stack.Passport)
		status   int
		code     string
		check    string
		signal   string
		severity stack.Severity
	}{
		"revoked": {func(t *testing.T, s *stage, p *stack.Passport) {
			require.NoError(t, failure(s.client.Passports.Revoke(t.Context(), p.JTI, "rogue")))
		}, 401, "PASSPORT_REVOKED", "passport_state", "revoked_passport_use", stack.SeverityCritical},
		"checked out": {func(t *testing.T, s *stage, p *stack.Passport) {
			require.NoError(t, failure(s.client.Passports.Checkout(t.Context(), p.JTI, stack.CheckpointParams{})))
		}, 401, "PASSPORT_REVOKED", "passport_state", "post_checkout_access", stack.SeverityCritical},
		"expired": {func(*testing.T, *stage, *stack.Passport) { time.Sleep(15 * time.Minute) },
			401, "PASSPORT_EXPIRED", "passport_state", "expired_passport_use", stack.SeverityWarning},
		"agent suspended": {func(t *testing.T, s *stage, p *stack.Passport) {
			status := stack.AgentSuspended
			require.NoError(t, failure(s.client.Agents.Update(t.Context(), s.agent.ID, stack.AgentUpdateParams{Status: &status})))
		}, 403, "FORBIDDEN", "agent_status", "", ""},
		"garbage": {func(_ *testing.T, _ *stage, p *stack.Passport) { p.Token = stack.NewSecret("not a token") },
			401, "UNAUTHORIZED", "passport_signature", "", ""},
		"tampered with": {func(_ *testing.T, _ *stage, p *stack.Passport) {
			text := []byte(p.Token.Reveal())
			text[len(text)/2] ^= 1
			p.Token = stack.NewSecret(string(text))
		}, 401, "UNAUTHORIZED", "passport_signature", "", ""},
		"of another server": {func(t *testing.T, _ *stage, p *stack.Passport) {
			p.Token = newStage(t, stack.Logged).issue(t).Token
		}, 401, "UNAUTHORIZED", "passport_signature", "", ""},
		"missing": {func(_ *testing.T, _ *stage, p *stack.Passport) { p.Token = stack.Secret{} },
			401, "UNAUTHORIZED", "authentication", "", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				p := s.issue(t)
				token := p.Token
				tc.end(t, s, p)
				_, err := s.do(t, p, read)
				apiErr := requireRefused(t, err, tc.status, tc.code)
				assert.Equal(t, tc.check, apiErr.Details["check"])
				assert.NotContains(t, fmt.Sprint(apiErr.Error(), apiErr.Details), token.Reveal())
				assert.Empty(t, s.Forwarded("slack.com"))
				if tc.signal == "" {
					assert.Empty(t, s.signals())
					return
				}
				event := s.SecurityEvents()[0]
				assert.Equal(t, []any{tc.signal, tc.severity, p.JTI}, []any{event.SignalType, event.Severity, event.PassportJTI})
				assert.Equal(t, 1, s.countRows("detector."+tc.signal))
			})
		})
	}
}

// A revocation that takes its time to spread is a matter of the proxy alone: everything else heeds it at once.
// (contract: decisions, Time, faults, control)
func TestRevocationDelayIsTheProxysOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Logged, Access: stack.CredentialDirect,
			Services: []string{"slack"}})
		s.SetPolicy(stacktest.Policy{RevocationDelay: 30 * time.Second})
		p := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.WillDelegate = true })
		_, err := s.client.Passports.Revoke(t.Context(), p.JTI, "rogue")
		require.NoError(t, err)
		_, err = s.delegate(t, p)
		requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
		_, err = s.client.Credentials.Get(t.Context(), "slack", stack.CredentialParams{PassportToken: p.Token})
		requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
		_, err = s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: p.Token})
		requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
		_, err = s.client.Passports.Checkpoint(t.Context(), p.JTI, stack.CheckpointParams{})
		requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
		_, err = s.operation(t, p, operationID)
		requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
		assert.Equal(t, "revoked", verification(t, s.client, p.Token).Reason)
		time.Sleep(30*time.Second - time.Nanosecond)
		_, err = s.do(t, p, post("#support"))
		require.NoError(t, err, "the revocation has not reached the proxy")
		time.Sleep(time.Nanosecond)
		_, err = s.do(t, p, post("#support"))
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
		assert.Len(t, s.Forwarded("slack.com"), 1)
	})
}
