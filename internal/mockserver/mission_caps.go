package mockserver

import (
	"fmt"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

// capCrossing is a use that would cross a cap of a Mission.
type capCrossing struct {
	cap           string // its name on the wire
	would, allows any
}

// crosses raises a use that would cross a cap and refuses it, or lets it through where the Mission says so. The passport is
// nil when the operator acts; use says what would cross, and the metadata more of it.
// (contract: decisions, Missions and passports)
func (op *operator) crosses(now time.Time, p *passport, m *mission, c capCrossing, use string,
	metadata map[string]any) error {
	finding := detect.Finding{Signal: detect.MissionCapExceeded, Severity: stack.SeverityCritical, Detail: c.cap,
		Message:  fmt.Sprintf("%s would cross the Mission's cap %s (%v of %v).", use, c.cap, c.would, c.allows),
		Metadata: map[string]any{"mission_id": m.MissionID, "cap": c.cap, "would_be": c.would, "allowed": c.allows}}
	for key, value := range metadata {
		finding.Metadata[key] = value
	}
	warn := m.Caps.CapBehavior[c.cap] == stack.CapWarn
	if warn {
		finding.Severity = stack.SeverityWarning
	}
	op.raise(now, p, finding)
	if warn {
		return nil
	}
	return refuse(http.StatusForbidden, "MISSION_CAP_EXCEEDED", fmt.Sprintf("the call would cross the Mission's cap %s", c.cap),
		map[string]any{"check": "mission_cap", "cap": c.cap, "sent": c.would, "allowed": c.allows})
}
