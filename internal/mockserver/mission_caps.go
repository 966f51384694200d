package mockserver

import (
	"fmt"
	"net/http"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

// capCrossing is a use that would cross a cap of a Mission.
type capCrossing struct {
	cap           string // its name on the wire
	would, allows any
}

// crosses refuses a use that would cross a cap, or lets it through where the Mission says so. The finding is to be raised
// in both cases; use says what would cross, and the metadata more of it. (contract: decisions, Missions and passports)
func (m *mission) crosses(c capCrossing, use string, metadata map[string]any) (detect.Finding, error) {
	finding := detect.Finding{Signal: detect.MissionCapExceeded, Severity: stack.SeverityCritical, Detail: c.cap,
		Message:  fmt.Sprintf("%s would cross the Mission's cap %s (%v of %v).", use, c.cap, c.would, c.allows),
		Metadata: map[string]any{"mission_id": m.MissionID, "cap": c.cap, "would_be": c.would, "allowed": c.allows}}
	for key, value := range metadata {
		finding.Metadata[key] = value
	}
	if m.Caps.CapBehavior[c.cap] == stack.CapWarn {
		finding.Severity = stack.SeverityWarning
		return finding, nil
	}
	return finding, refuse(http.StatusForbidden, "MISSION_CAP_EXCEEDED", fmt.Sprintf("the call would cross the Mission's cap %s", c.cap),
		map[string]any{"check": "mission_cap", "cap": c.cap, "sent": c.would, "allowed": c.allows})
}
