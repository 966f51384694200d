package stack

import (
	"cmp"
	"encoding/json"
	"time"
)

// FleetMission is what a Mission has of its fleet. It stays as it was when the Mission began; only Usage grows.
type FleetMission struct {
	FleetPolicyID string            `json:"fleet_policy_id"`
	Revision      int               `json:"revision"`             // of the policy
	SessionID     string            `json:"session_id,omitempty"` // of the fleet's session, if one was running
	Access        []PassportService `json:"access"`
	Operations    []FleetOperation  `json:"operations"` // null is all calls
	Limits        FleetLimits       `json:"limits"`
	Usage         FleetUsage        `json:"usage"`
}

// FleetUsage is what a Mission of a fleet has used of its limits.
type FleetUsage struct {
	MissionUsage
	CallsPerOperation map[string]int `json:"calls_per_operation"`
}

// RequestedOperation picks an operation of a fleet's policy for a Mission, and may narrow it.
type RequestedOperation struct {
	Name        string       `json:"name"`
	Constraints []Constraint `json:"constraints,omitempty"` // hold beside the policy's
	MaxCalls    int          `json:"max_calls,omitempty"`   // at most the policy's, which is the default
}

// fleetStart is the form that a start has in a fleet.
type fleetStart struct {
	*plainMission
	ExpiresIn   seconds                `json:"expires_in_seconds,omitzero"`
	MaxDuration seconds                `json:"max_duration_seconds,omitzero"`
	Passport    *MissionPassportParams `json:"passport,omitempty"`
}

type plainMission MissionOpenParams

// MarshalJSON writes one of the two forms.
func (p MissionStartParams) MarshalJSON() ([]byte, error) {
	if p.Mission.FleetPolicyID == "" {
		type plain MissionStartParams
		return marshalJSON(plain(p))
	}
	m := p.Mission
	m.AgentID = cmp.Or(p.AgentID, m.AgentID)
	return marshalJSON(fleetStart{(*plainMission)(&m), seconds(m.ExpiresIn), seconds(m.MaxDuration), p.Passport})
}

// UnmarshalJSON reads either form.
func (p *MissionStartParams) UnmarshalJSON(data []byte) error {
	var form struct {
		FleetPolicyID string `json:"fleet_policy_id"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return err
	}
	if form.FleetPolicyID == "" {
		type plain MissionStartParams
		return json.Unmarshal(data, (*plain)(p))
	}
	w := fleetStart{plainMission: &plainMission{}}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	m := MissionOpenParams(*w.plainMission)
	m.ExpiresIn, m.MaxDuration = time.Duration(w.ExpiresIn), time.Duration(w.MaxDuration)
	*p = MissionStartParams{AgentID: m.AgentID, Mission: m, Passport: w.Passport}
	return nil
}
