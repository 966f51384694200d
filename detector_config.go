package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"time"
)

// DetectorConfigService adapts the detectors to an operator's needs. Reach it as [Client].DetectorConfig.
type DetectorConfigService struct{ client *Client }

// DetectorKey is the id of a detector, as it stands in [SecurityEvent].SignalType and [Flag].Type.
type DetectorKey string

// Detectors that run while a passport is used. (contract: decisions, Detectors)
const (
	DetectorCredentialOutsideScope DetectorKey = "credential_outside_scope"
	DetectorScopeDrift             DetectorKey = "scope_drift"
	DetectorCredentialBurst        DetectorKey = "credential_burst"
	DetectorCheckpointSilence      DetectorKey = "checkpoint_silence"
	DetectorPostCheckoutAccess     DetectorKey = "post_checkout_access"
	DetectorRevokedPassportUse     DetectorKey = "revoked_passport_use"
	DetectorExpiredPassportUse     DetectorKey = "expired_passport_use"
	DetectorConstraintViolation    DetectorKey = "constraint_violation"
	DetectorDataFlowViolation      DetectorKey = "data_flow_violation"
	DetectorPromptInjection        DetectorKey = "prompt_injection"
	DetectorMissionCapExceeded     DetectorKey = "mission_cap_exceeded"
	DetectorDelegationViolation    DetectorKey = "delegation_violation"
	DetectorAuthFailureBurst       DetectorKey = "auth_failure_burst"
)

// Detectors that run once, at checkout.
const (
	DetectorUndeclaredService    DetectorKey = "undeclared_service"
	DetectorUnreportedAction     DetectorKey = "unreported_action"
	DetectorPhantomAction        DetectorKey = "phantom_action"
	DetectorActionCountMismatch  DetectorKey = "action_count_mismatch"
	DetectorUndeclaredDelegation DetectorKey = "undeclared_delegation"
	DetectorDurationOverrun      DetectorKey = "duration_overrun"
	DetectorMissedCheckpoints    DetectorKey = "missed_checkpoints"
	DetectorHighFailureRate      DetectorKey = "high_failure_rate"
	DetectorVolumeAnomaly        DetectorKey = "volume_anomaly"
	DetectorIdleMission          DetectorKey = "idle_mission"
)

// DetectorPattern is an operator's own expression, for prompt_injection only. It is matched without regard to case, against a
// text and against everything that is decoded from it.
type DetectorPattern struct {
	// ID names the pattern in a [ScanMatch]: up to 64 letters, digits and the signs _ . - and none of the catalogue's. The
	// default is custom.N or whitelist.N, N being the place in its list from 0.
	ID      string `json:"id,omitempty"`
	Pattern string `json:"pattern"` // RE2 syntax, at most 1,000 bytes; it must not match the empty text
	// Severity is warning (the verdict is suspicious) or critical, the default. A whitelist pattern has none.
	Severity Severity `json:"severity,omitempty"`
}

// UnmarshalJSON also takes a string, which is the pattern alone.
func (p *DetectorPattern) UnmarshalJSON(data []byte) error {
	*p = DetectorPattern{}
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, &p.Pattern)
	}
	type plain DetectorPattern
	return json.Unmarshal(data, (*plain)(p))
}

// DetectorConfig is how an operator has set a detector.
type DetectorConfig struct {
	DetectorKey       DetectorKey         `json:"detector_key"`
	Enabled           bool                `json:"enabled"`
	CustomPatterns    []DetectorPattern   `json:"custom_patterns"`
	WhitelistPatterns []DetectorPattern   `json:"whitelist_patterns"`
	SeverityOverrides map[string]Severity `json:"severity_overrides"`
	CreatedAt         time.Time           `json:"created_at"`
	UpdatedAt         time.Time           `json:"updated_at"`
}

// DetectorConfigs are the detectors that an operator has set.
type DetectorConfigs struct {
	Configs []DetectorConfig `json:"configs"`
}

// List returns the detectors that the operator has set, in the order of their keys; all others are as they are built.
//
// GET /v1/detectors/config
func (s *DetectorConfigService) List(ctx context.Context) (*DetectorConfigs, error) {
	return send[DetectorConfigs](ctx, s.client, get("/v1/detectors/config"))
}

// Get returns how the operator has set a detector. It fails with [ErrNotFound] when it is as it is built, and when there is
// none of that key; the latter error's Details list the keys under "allowed".
//
// GET /v1/detectors/{detector_key}/config
func (s *DetectorConfigService) Get(ctx context.Context, key DetectorKey) (*DetectorConfig, error) {
	return send[DetectorConfig](ctx, s.client, get("/v1/detectors/{detector_key}/config", string(key)))
}

// DetectorConfigParams sets a detector. What is nil stays as it is, or as it is built; an empty list or map that is not nil
// takes the old one away.
type DetectorConfigParams struct {
	// Enabled false silences a detector: no event, no flag, no revocation. What is refused without it stays refused, such as
	// a service outside the passport's scope; injection is then not looked for at all.
	Enabled *bool `json:"enabled,omitempty"`
	// CustomPatterns are looked for besides the catalogue; at most 100, prompt_injection only.
	CustomPatterns []DetectorPattern `json:"custom_patterns,omitzero"`
	// WhitelistPatterns excuse what of the catalogue lies wholly inside a match; at most 100, prompt_injection only.
	WhitelistPatterns []DetectorPattern `json:"whitelist_patterns,omitzero"`
	// SeverityOverrides changes severities. For prompt_injection the key is the id or family of a catalogue pattern, such as
	// override.ignore_previous or jailbreak; warning then is a suspicious verdict, and info none. For all others the key is
	// the severity that the detector gives: {"warning": "critical"}.
	SeverityOverrides map[string]Severity `json:"severity_overrides,omitzero"`

	// GovernanceApprovalID is needed with an API key where the change loosens anything: a detector off, a severity lower, a
	// custom pattern less, a whitelist pattern more. It is the approval that the refusal names, once a human has approved it,
	// and holds for this very change.
	GovernanceApprovalID string `json:"-"`
}

// Update sets a detector and returns it as it is then. It fails with [ErrNotFound] for an unknown detector, with code
// TIER_LIMIT_EXCEEDED below the studio plan, with [ErrInvalidRequest] for a pattern that does not compile and an override
// that does not exist, and with [ErrGovernanceApprovalRequired] for a change that loosens it.
//
// PUT /v1/detectors/{detector_key}/config
func (s *DetectorConfigService) Update(
	ctx context.Context, key DetectorKey, params DetectorConfigParams,
) (*DetectorConfig, error) {
	cl := put("/v1/detectors/{detector_key}/config", string(key)).with(params)
	cl.keyed = true // it sets values
	return send[DetectorConfig](ctx, s.client, cl.head("X-Governance-Approval", params.GovernanceApprovalID))
}

// Reset takes the operator's settings of a detector away, so that it is as it is built. With an API key it always needs a
// governance approval. It fails with [ErrNotFound] when there are none, with code TIER_LIMIT_EXCEEDED below the studio plan,
// and with [ErrGovernanceApprovalRequired].
//
// DELETE /v1/detectors/{detector_key}/config
func (s *DetectorConfigService) Reset(ctx context.Context, key DetectorKey, governanceApprovalID string) error {
	_, err := send[struct{}](ctx, s.client,
		del("/v1/detectors/{detector_key}/config", string(key)).head("X-Governance-Approval", governanceApprovalID))
	return err
}
