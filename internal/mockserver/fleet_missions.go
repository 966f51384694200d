package mockserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/constraint"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

// fleetPermit is what a fleet gives to one of its Missions. It stays as it was when the Mission began.
type fleetPermit struct {
	of *fleet
	stack.FleetMission
	maxPassportTTL time.Duration
}

func (f *fleetPermit) view(usage stack.MissionUsage) *stack.FleetMission {
	v := f.FleetMission
	v.Usage = stack.FleetUsage{MissionUsage: usage, CallsPerOperation: cloneMap(v.Usage.CallsPerOperation)}
	return &v
}

// startBody is the body of a start in either of its forms: an agent and its Mission, or a Mission of a fleet, whose fields stand
// beside those of the start itself. The fields are there for the binding to hold a body against. (contract: endpoints 2.17)
type startBody struct {
	fleetForm
	IntentSummary string                       `json:"intent_summary,omitempty"` // which the first form has in mission
	Mission       *stack.MissionOpenParams     `json:"mission,omitempty"`
	Passport      *stack.MissionPassportParams `json:"passport,omitempty"`

	params stack.MissionStartParams
	beside string // a field of the second form
}

type fleetForm stack.MissionOpenParams

// UnmarshalJSON reads either form.
func (b *startBody) UnmarshalJSON(data []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	_, nested := fields["mission"]
	for _, name := range sortedKeys(fields) {
		if nested && name != "agent_id" && name != "mission" && name != "passport" {
			b.beside = name
		}
	}
	if err := json.Unmarshal(data, &b.params); err != nil {
		return err
	}
	if nested {
		b.Mission = &b.params.Mission
	}
	return nil
}

// read returns what the body asks for, and the name before the fields of its Mission.
func (b *startBody) read() (p stack.MissionStartParams, at string, err error) {
	p, at = b.params, "body."
	switch {
	case b.beside != "":
		err = invalid("body."+b.beside, "given beside mission", "given inside mission, or without a mission")
	case b.Mission != nil:
		at = "body.mission."
	case p.Mission.FleetPolicyID == "":
		err = invalid("body.mission", nil, "an object; or, for a Mission of a fleet, fleet_policy_id beside the Mission's fields")
	}
	if err == nil && p.AgentID == "" {
		err = invalid("body.agent_id", nil, "the id of an agent")
	}
	return p, at, err
}

// permit works out what a fleet gives to a Mission that is asked for. It lowers the Mission's own caps and life to that.
func (op *operator) permit(now time.Time, at string, p *stack.MissionOpenParams) (*fleetPermit, error) {
	f, err := op.activeFleet(p.FleetPolicyID)
	if err != nil {
		return nil, err
	}
	if err = firstError(filled(at+"agent_id", p.AgentID)); err != nil {
		return nil, err
	}
	permit := &fleetPermit{of: f, maxPassportTTL: f.Definition.MaxPassportTTL, FleetMission: stack.FleetMission{FleetPolicyID: f.ID,
		Revision: f.Revision, SessionID: f.runningSession(now),
		Usage: stack.FleetUsage{CallsPerOperation: map[string]int{}}}}
	if err = permit.mayServe(p.AgentID); err != nil {
		return nil, err
	}
	d := &f.Definition
	if d.MaxLiveMissions > 0 && len(f.live) >= d.MaxLiveMissions {
		return nil, beyondFleet("live_missions", len(f.live)+1, d.MaxLiveMissions)
	}
	if p.ExpiresIn > d.MaxMissionTTL {
		return nil, beyondFleet(at+"expires_in_seconds", int(p.ExpiresIn/time.Second), int(d.MaxMissionTTL/time.Second))
	}
	p.ExpiresIn = or(p.ExpiresIn, min(defaultMissionLifetime, d.MaxMissionTTL))
	if permit.Access, err = op.fleetAccess(at, d, p); err != nil {
		return nil, err
	}
	if permit.Operations, err = fleetOperations(at, d, p, permit.Access); err != nil {
		return nil, err
	}
	if permit.Limits, err = fleetLimits(at, d, p); err != nil {
		return nil, err
	}
	p.MaxActions, p.MaxDropoffBytes = permit.Limits.MaxActions, permit.Limits.MaxDropoffBytes
	p.MaxActionsPerService = permit.Limits.MaxActionsPerService
	return permit, nil
}

// mayServe refuses an agent that is no active member of the fleet.
func (f *fleetPermit) mayServe(agentID string) error {
	if m, ok := f.of.members.get(agentID); ok && m.Status == stack.FleetActive {
		return nil
	}
	return refuse(http.StatusForbidden, "FLEET_MEMBERSHIP_REQUIRED", "the agent is no active member of the fleet", map[string]any{
		"check": "fleet_membership", "sent": agentID, "allowed": "an agent that has enrolled in " + f.of.ID})
}

// fleetAccess is the policy's access, as far as its connections are still there, or the part of it that is asked for.
func (op *operator) fleetAccess(at string, d *stack.FleetDefinition, p *stack.MissionOpenParams) ([]stack.PassportService, error) {
	standing := []stack.PassportService{}
	for _, a := range d.Access {
		if conn, ok := op.connections.get(a.ServiceConnectionID); ok {
			standing = append(standing, stack.PassportService{ServiceName: conn.Provider, ConnectionID: conn.ID, Scopes: a.Scopes,
				Constraints: a.Constraints, AllowDataFrom: a.AllowDataFrom})
		}
	}
	if p.RequestedAccess == nil {
		return standing, nil
	}
	return narrow(at+"requested_access", "the fleet's policy", standing, p.RequestedAccess)
}

// fleetOperations are the policy's operations at the services that the Mission reaches, or those that are asked for.
func fleetOperations(
	at string, d *stack.FleetDefinition, p *stack.MissionOpenParams, access []stack.PassportService,
) ([]stack.FleetOperation, error) {
	if d.Operations == nil && p.RequestedOperations == nil {
		return nil, nil
	}
	given, names := []stack.FleetOperation{}, []string{}
	for _, o := range d.Operations {
		if slices.ContainsFunc(access, func(s stack.PassportService) bool { return s.ServiceName == o.Service }) {
			given, names = append(given, o), append(names, o.Name)
		}
	}
	if p.RequestedOperations == nil {
		return given, nil
	}
	if len(p.RequestedOperations) > maxOperations {
		return nil, invalid(at+"requested_operations", fmt.Sprintf("a list of %d", len(p.RequestedOperations)),
			fmt.Sprintf("a list of at most %d", maxOperations))
	}
	asked := []stack.FleetOperation{}
	for i, r := range p.RequestedOperations {
		field := fmt.Sprintf("%srequested_operations[%d]", at, i)
		n := slices.Index(names, r.Name)
		if n < 0 {
			return nil, refuse(http.StatusBadRequest, "SCOPE_ESCALATION", field+".name is no operation that the fleet's policy gives "+
				"for the Mission's access", map[string]any{"check": "fleet_operation", "field": field + ".name", "sent": clip(r.Name),
				"allowed": names})
		}
		o := given[n]
		if slices.ContainsFunc(asked, func(have stack.FleetOperation) bool { return have.Name == o.Name }) {
			return nil, invalid(field+".name", r.Name, "named once")
		}
		if err := firstError(within(field+".max_calls", r.MaxCalls, 0, maxFleetLimit)); err != nil {
			return nil, err
		}
		var err error
		if o.MaxCalls, err = lowered(field+".max_calls", o.MaxCalls, r.MaxCalls); err != nil {
			return nil, err
		}
		if err := constraint.Validate(r.Constraints); err != nil {
			return nil, invalid(field+".constraints", err.Error(), "a list of valid constraints")
		}
		o.Constraints = slices.Clone(o.Constraints)
		for _, c := range r.Constraints {
			if !holds(o.Constraints, c) {
				o.Constraints = append(o.Constraints, c)
			}
		}
		if err := constraint.Validate(operationRules(&o)); err != nil { // together they may be too many
			return nil, invalid(field+".constraints", err.Error(), "few enough, with those of the policy")
		}
		asked = append(asked, o)
	}
	return asked, nil
}

// lowered is the limit that holds when one is given and another asked for; zero is none of either.
func lowered(field string, given, asked int) (int, error) {
	if given != 0 && asked > given {
		return 0, beyondFleet(field, asked, given)
	}
	return or(asked, given), nil
}

// fleetLimits are the policy's limits, lowered to those that are asked for. What they bound has no other caps.
func fleetLimits(at string, d *stack.FleetDefinition, p *stack.MissionOpenParams) (l stack.FleetLimits, err error) {
	caps := map[string]bool{"max_actions": p.MaxActions != 0, "max_dropoff_bytes": p.MaxDropoffBytes != 0,
		"max_actions_per_service": p.MaxActionsPerService != nil}
	for _, name := range sortedKeys(caps) {
		if caps[name] {
			return l, invalid(at+name, "given beside fleet_policy_id", "given in limits")
		}
		if p.CapBehavior[name] == stack.CapWarn {
			return l, invalid(at+"cap_behavior."+name, string(stack.CapWarn), "block: what a fleet limits is not let through")
		}
	}
	l = d.Limits
	l.MaxActionsPerService = cloneMap(l.MaxActionsPerService)
	if p.Limits == nil {
		return l, nil
	}
	at += "limits"
	ask := *p.Limits
	if err = checkLimits(at, ask, sortedKeys(ask.MaxActionsPerService)); err != nil {
		return l, err
	}
	if l.MaxActions, err = lowered(at+".max_actions", l.MaxActions, ask.MaxActions); err != nil {
		return l, err
	}
	if l.MaxDropoffBytes, err = lowered(at+".max_dropoff_bytes", l.MaxDropoffBytes, ask.MaxDropoffBytes); err != nil {
		return l, err
	}
	for _, service := range sortedKeys(ask.MaxActionsPerService) {
		n := ask.MaxActionsPerService[service]
		if given, ok := l.MaxActionsPerService[service]; ok && n > given {
			return l, beyondFleet(at+".max_actions_per_service."+clip(service), n, given)
		}
		l.MaxActionsPerService[service] = n
	}
	return l, nil
}

// newSession is the session of a new passport: the one of the fleet where it had one, else one of its own.
func (m *mission) newSession() string {
	if m.fleet != nil && m.fleet.SessionID != "" {
		return m.fleet.SessionID
	}
	return newID("ses_")
}

// intent is what a passport is asked for when it declares nothing of its own.
func (m *mission) intent() *stack.Intent {
	services := m.IntentServices
	if len(services) == 0 {
		for _, s := range m.fleet.Access {
			services = append(services, s.ServiceName)
		}
	}
	return &stack.Intent{Summary: m.IntentSummary, Services: services}
}

// passportTTL is how long a passport of the Mission lives, or an error where its fleet gives less than is asked for.
func (m *mission) passportTTL(asked time.Duration) (time.Duration, error) {
	if m.fleet == nil {
		return or(asked, defaultPassportTTL), nil
	}
	if most := m.fleet.maxPassportTTL; asked > most {
		return 0, beyondFleet("ttl_seconds", int(asked/time.Second), int(most/time.Second))
	}
	return or(asked, min(defaultPassportTTL, m.fleet.maxPassportTTL)), nil
}

// checkFleetOperation refuses a call that fits none of the operations that its Mission has of a fleet, and one whose operation
// has no calls left.
func (s *Server) checkFleetOperation(call *proxyCall) error {
	m := call.passport.mission
	f := m.fleet
	if f == nil || f.Operations == nil {
		return nil
	}
	if call.targetErr != nil {
		return call.invalidURL()
	}
	why, judged := []string{}, call.judged()
	var spent *stack.FleetOperation
	for i := range f.Operations {
		o := &f.Operations[i]
		if o.Service != call.in.Service {
			continue
		}
		if v := constraint.Check(operationRules(o), judged); v != nil {
			why = append(why, o.Name+": "+v.Error())
		} else if o.MaxCalls > 0 && f.Usage.CallsPerOperation[o.Name] >= o.MaxCalls && !call.isRepetition() {
			spent = o
		} else {
			call.fleetOperation = o.Name
			return nil
		}
	}
	if spent != nil {
		finding, err := m.crosses(capCrossing{"max_calls", f.Usage.CallsPerOperation[spent.Name] + 1, spent.MaxCalls}, "A proxied call",
			map[string]any{"service": call.in.Service, "operation": spent.Name})
		call.find(finding)
		return err
	}
	call.find(detect.Finding{Signal: detect.ConstraintViolation, Severity: stack.SeverityWarning,
		Detail: "fleet_operation", Message: "A proxied call fits no operation of its fleet.",
		Metadata: map[string]any{"service": call.in.Service, "method": call.in.Method, "url": call.bareURL(), "fleet_policy_id": f.FleetPolicyID}})
	return refuse(http.StatusForbidden, "FLEET_OPERATION_NOT_ALLOWED", "the call fits no operation that the Mission's fleet allows",
		map[string]any{"check": "fleet_operation", "sent": call.in.Method + " " + call.bareURL(), "operations": why,
			"allowed": "a call that fits one of the Mission's operations"})
}
