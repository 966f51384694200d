package detect_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

func TestSignals(t *testing.T) {
	t.Parallel()
	assert.Len(t, detect.RealTime(), 13)
	assert.Len(t, detect.PostHoc(), 10)
	all := slices.Concat(detect.RealTime(), detect.PostHoc())
	slices.Sort(all)
	assert.Len(t, slices.Compact(all), 23, "every id is unique")

	list := detect.RealTime()
	list[0] = "changed"
	assert.NotEqual(t, list, detect.RealTime(), "the answer is the caller's own")
}

func TestSeverity(t *testing.T) {
	t.Parallel()
	want := map[detect.Signal]stack.Severity{
		"scope_drift": "warning", "credential_burst": "warning", "checkpoint_silence": "critical",
		"post_checkout_access": "critical", "revoked_passport_use": "critical", "expired_passport_use": "warning",
		"constraint_violation": "warning", "data_flow_violation": "critical", "prompt_injection": "warning",
		"mission_cap_exceeded": "critical", "delegation_violation": "warning", "auth_failure_burst": "warning",
		"undeclared_service": "critical", "unreported_action": "warning", "phantom_action": "warning",
		"action_count_mismatch": "info", "undeclared_delegation": "warning", "duration_overrun": "warning",
		"missed_checkpoints": "warning", "high_failure_rate": "info", "volume_anomaly": "warning", "idle_mission": "info",
		"no_such_detector": "info",
	}
	modes := []stack.Accountability{stack.Enforced, stack.Logged, stack.Standard}
	for signal, severity := range want {
		for _, mode := range modes {
			assert.Equal(t, severity, signal.Severity(mode), "%s %s", signal, mode)
		}
	}
	for _, signal := range slices.Concat(detect.RealTime(), detect.PostHoc()) {
		if signal != detect.CredentialOutsideScope {
			assert.Contains(t, want, signal)
		}
	}
	assert.Equal(t, stack.SeverityCritical, detect.CredentialOutsideScope.Severity(stack.Enforced))
	assert.Equal(t, stack.SeverityWarning, detect.CredentialOutsideScope.Severity(stack.Logged))
	assert.Equal(t, stack.SeverityCritical, detect.CredentialOutsideScope.Severity(stack.Standard))
}

func TestReason(t *testing.T) {
	t.Parallel()
	f := detect.Finding{Signal: detect.ScopeDrift, Detail: "cumulative_2.00"}
	assert.Equal(t, "scope_drift_fire:cumulative_2.00", f.Reason())
}

func TestLongNamesAreCut(t *testing.T) {
	t.Parallel()
	_, findings := detect.NewDrift(nil, nil).Observe(detect.Call{Service: strings.Repeat("é", 5000), Method: "GET"})
	require.NotNil(t, findings)
	assert.Less(t, len(findings.Message), 250)
	assert.True(t, utf8.ValidString(findings.Message))
}
