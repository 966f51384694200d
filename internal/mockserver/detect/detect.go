// Package detect holds the rules of STACK's 23 detectors, 13 that run while a passport is used and 10 that run once at
// checkout. It knows nothing of HTTP, storage or revocation: its types are fed with facts and a time and answer findings,
// and the server decides by accountability mode what a finding does. (contract: decisions, Scope drift, Detectors,
// Data-flow wall)
//
// No type here is safe for concurrent use; whoever owns one locks it.
package detect

import (
	"slices"
	"unicode/utf8"

	"github.com/getstack-go/stack"
)

// Signal is the id of a detector, as it stands in security events, review flags and revocation reasons.
type Signal string

// Real-time detectors.
const (
	CredentialOutsideScope Signal = "credential_outside_scope"
	ScopeDrift             Signal = "scope_drift"
	CredentialBurst        Signal = "credential_burst"
	CheckpointSilence      Signal = "checkpoint_silence"
	PostCheckoutAccess     Signal = "post_checkout_access"
	RevokedPassportUse     Signal = "revoked_passport_use"
	ExpiredPassportUse     Signal = "expired_passport_use"
	ConstraintViolation    Signal = "constraint_violation"
	DataFlowViolation      Signal = "data_flow_violation"
	PromptInjection        Signal = "prompt_injection"
	MissionCapExceeded     Signal = "mission_cap_exceeded"
	DelegationViolation    Signal = "delegation_violation"
	AuthFailureBurst       Signal = "auth_failure_burst"
)

// Post-hoc detectors.
const (
	UndeclaredService    Signal = "undeclared_service"
	UnreportedAction     Signal = "unreported_action"
	PhantomAction        Signal = "phantom_action"
	ActionCountMismatch  Signal = "action_count_mismatch"
	UndeclaredDelegation Signal = "undeclared_delegation"
	DurationOverrun      Signal = "duration_overrun"
	MissedCheckpoints    Signal = "missed_checkpoints"
	HighFailureRate      Signal = "high_failure_rate"
	VolumeAnomaly        Signal = "volume_anomaly"
	IdleMission          Signal = "idle_mission"
)

var (
	realTime = []Signal{
		CredentialOutsideScope, ScopeDrift, CredentialBurst, CheckpointSilence, PostCheckoutAccess, RevokedPassportUse,
		ExpiredPassportUse, ConstraintViolation, DataFlowViolation, PromptInjection, MissionCapExceeded,
		DelegationViolation, AuthFailureBurst,
	}
	postHoc = []Signal{
		UndeclaredService, UnreportedAction, PhantomAction, ActionCountMismatch, UndeclaredDelegation, DurationOverrun,
		MissedCheckpoints, HighFailureRate, VolumeAnomaly, IdleMission,
	}
)

// RealTime lists the 13 detectors that run while a passport is used.
func RealTime() []Signal { return slices.Clone(realTime) }

// PostHoc lists the 10 detectors that run once, at checkout.
func PostHoc() []Signal { return slices.Clone(postHoc) }

// Severity gives the severity of s for a passport of the given mode. Only credential_outside_scope differs by mode: warning
// for logged, critical otherwise. For credential_burst and prompt_injection, which have two levels, it is the lower one,
// warning. An id that is no detector has severity info.
func (s Signal) Severity(mode stack.Accountability) stack.Severity {
	switch s {
	case CredentialOutsideScope:
		if mode == stack.Logged {
			return stack.SeverityWarning
		}
		return stack.SeverityCritical
	case CheckpointSilence, PostCheckoutAccess, RevokedPassportUse, DataFlowViolation, MissionCapExceeded, UndeclaredService:
		return stack.SeverityCritical
	case ScopeDrift, CredentialBurst, ExpiredPassportUse, ConstraintViolation, PromptInjection, DelegationViolation,
		AuthFailureBurst, UnreportedAction, PhantomAction, UndeclaredDelegation, DurationOverrun, MissedCheckpoints,
		VolumeAnomaly:
		return stack.SeverityWarning
	default:
		return stack.SeverityInfo
	}
}

// Finding is what a detector saw. It never holds a credential or the content of a request or an answer.
type Finding struct {
	Signal   Signal
	Severity stack.Severity
	// Message is a sentence for people.
	Message string
	// Detail is short and goes into the revocation reason.
	Detail string
	// Metadata goes into the security event as JSON.
	Metadata map[string]any
	// AgentID is whom it is about, where no passport says so.
	AgentID string
}

// Reason is the revocation reason of a finding that ends its passport: "<detector>_fire:<detail>".
func (f Finding) Reason() string { return string(f.Signal) + "_fire:" + f.Detail }

// maxShown bounds names in messages and metadata, in bytes; they come from the caller and may be of any length.
const maxShown = 120

// shown cuts s to maxShown bytes, at a character's border.
func shown(s string) string {
	if len(s) <= maxShown {
		return s
	}
	cut := maxShown
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
