package mockserver

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
)

const (
	maxFleets        = 1000 // of an operator, with the revoked ones
	fleetSessionLife = 24 * time.Hour
)

// fleet is a policy with those who have joined.
type fleet struct {
	stack.FleetPolicy
	members table[fleetMember]  // by agent id
	live    map[string]*mission // those that run
	session *stack.FleetSession // the last one, which may be over
}

// fleetMember is an agent that has joined a fleet.
type fleetMember struct {
	stack.FleetMember
	fleet *fleet
}

func fleetRoutes() []route {
	return []route{
		endpoint("POST", "/v1/fleets/session", (*Server).fleetSession),
		endpoint("GET", "/v1/fleets", (*Server).listFleets),
		endpoint("GET", "/v1/fleets/membership/{agent_id}", (*Server).fleetMembership, answers[*stack.FleetMember](jsonMedia)),
		endpoint("GET", "/v1/fleets/{policy_id}", (*Server).getFleet),
		endpoint("GET", "/v1/fleets/{policy_id}/members", (*Server).listFleetMembers),
		endpoint("POST", "/v1/fleets", (*Server).activateFleet, adminOnly, idempotent(true)),
		endpoint("PUT", "/v1/fleets/{policy_id}", (*Server).reviseFleet, adminOnly, idempotent(true)),
		endpoint("POST", "/v1/fleets/{policy_id}/members/{agent_id}/revoke", (*Server).revokeFleetMember),
		endpoint("POST", "/v1/fleets/{policy_id}/revoke", (*Server).revokeFleet, adminOnly),
		endpoint("POST", "/v1/fleets/{policy_id}/enrollment-challenges", (*Server).challengeAgent),
		endpoint("POST", "/v1/fleets/{policy_id}/enroll", (*Server).enrollAgent),
		endpoint("POST", "/v1/fleets/{policy_id}/workload/enrollment-challenges", (*Server).challengeWorkload),
		endpoint("POST", "/v1/fleets/{policy_id}/workload/enroll", (*Server).enrollWorkload),
	}
}

// row begins an audit row about the fleet.
func (f *fleet) row(action string) stack.AuditEntry {
	return stack.AuditEntry{Action: action, TraceID: f.ID}
}

func (f *fleet) view() *stack.FleetPolicy {
	v := f.FleetPolicy
	v.MemberCount, v.LiveMissions = f.activeMembers(), len(f.live)
	return &v
}

func (f *fleet) activeMembers() (n int) {
	for m := range f.members.all() {
		if m.Status == stack.FleetActive {
			n++
		}
	}
	return n
}

func (op *operator) fleetByID(id string) (*fleet, error) {
	return op.fleets.find("fleet policy", id)
}

// activeFleet finds a fleet and refuses one that is over.
func (op *operator) activeFleet(id string) (*fleet, error) {
	f, err := op.fleetByID(id)
	if err != nil {
		return nil, err
	}
	if f.Status == stack.FleetRevoked {
		return nil, refuse(http.StatusConflict, "FLEET_REVOKED", "the fleet is revoked", map[string]any{"check": "fleet_status",
			"sent": f.ID, "revoked_at": f.RevokedAt, "allowed": "an active fleet"})
	}
	return f, nil
}

// beyondFleet refuses what would be more than a policy gives.
func beyondFleet(field string, sent, allowed any) *apiError {
	return refuse(http.StatusForbidden, "FLEET_LIMIT_EXCEEDED", fmt.Sprintf("%s is %s; the fleet's policy allows %s", field,
		show(sent), show(allowed)), map[string]any{"check": "fleet_limit", "field": field, "sent": sent, "allowed": allowed})
}

type activateFleetIn struct {
	Body stack.FleetDefinition `body:""`
}

func (s *Server) activateFleet(_ context.Context, c *caller, in activateFleetIn) (*stack.FleetPolicy, error) {
	op, d, now := c.op, in.Body, s.clock.now()
	if err := c.checkDefinition(&d); err != nil {
		return nil, err
	}
	if have := op.fleets.len(); have >= maxFleets {
		return nil, beyondFleet("fleets", have+1, fmt.Sprintf("at most %d of an operator", maxFleets))
	}
	if err := op.approvedFleet(now, c, "fleet.activate", d.Name, d); err != nil {
		return nil, err
	}
	f := &fleet{live: map[string]*mission{}, FleetPolicy: stack.FleetPolicy{ID: newID("flp_"), OperatorID: op.id,
		Status: stack.FleetActive, Revision: 1, Definition: d, CreatedAt: now, UpdatedAt: now}}
	op.fleets.put(f.ID, f)
	op.record(now, f.row("fleet.activate"))
	return f.view(), nil
}

// approvedFleet asks for a human's approval of this very definition: one of another must not do.
func (op *operator) approvedFleet(now time.Time, c *caller, action, what string, d stack.FleetDefinition) error {
	digest, err := digestOf(d)
	if err != nil {
		return err
	}
	return op.governed(now, c, action, what+" "+hex.EncodeToString(digest[:8]))
}

type reviseFleetIn struct {
	PolicyID string                `path:"policy_id"`
	IfMatch  *int                  `header:"If-Match"`
	Body     stack.FleetDefinition `body:""`
}

func (s *Server) reviseFleet(_ context.Context, c *caller, in reviseFleetIn) (*stack.FleetPolicy, error) {
	op, d, now := c.op, in.Body, s.clock.now()
	f, err := op.activeFleet(in.PolicyID)
	if err != nil {
		return nil, err
	}
	if in.IfMatch == nil {
		return nil, invalid("header If-Match", nil, "the revision that is to be replaced, as a bare number")
	}
	if *in.IfMatch != f.Revision {
		return nil, refuse(http.StatusConflict, "REVISION_CONFLICT", fmt.Sprintf("the policy has revision %d by now", f.Revision),
			map[string]any{"check": "revision", "field": "header If-Match", "sent": *in.IfMatch, "allowed": f.Revision})
	}
	if err := c.checkDefinition(&d); err != nil {
		return nil, err
	}
	if loosens(&f.Definition, &d) {
		if err := op.approvedFleet(now, c, "fleet.revise", fmt.Sprintf("%s@%d", f.ID, f.Revision), d); err != nil {
			return nil, err
		}
	}
	f.Definition, f.UpdatedAt = d, now
	f.Revision++
	op.record(now, f.row("fleet.revise"))
	return f.view(), nil
}

type fleetIn struct {
	PolicyID string `path:"policy_id"`
}

func (s *Server) getFleet(_ context.Context, c *caller, in fleetIn) (*stack.FleetPolicy, error) {
	f, err := c.op.fleetByID(in.PolicyID)
	if err != nil {
		return nil, err
	}
	return f.view(), nil
}

// listOrPage is a bare array, or one page of it where the caller asked for a page. (contract: endpoints 1.9)
type listOrPage[T any] struct {
	Items []T  `json:"items"`
	Total int  `json:"total"`
	Page  int  `json:"page"`
	Limit int  `json:"limit"`
	bare  bool // write Items alone
}

// MarshalJSON writes one of the two forms.
func (l listOrPage[T]) MarshalJSON() ([]byte, error) {
	if l.bare {
		return json.Marshal(l.Items)
	}
	type plain listOrPage[T]
	return json.Marshal(plain(l))
}

// pageOf cuts a page out of a sequence, or takes all of it when none is asked for.
func pageOf[T, V any](seq iter.Seq[*T], number, size *int, view func(*T) V) (*listOrPage[V], error) {
	l := &listOrPage[V]{Items: []V{}, bare: number == nil && size == nil}
	if l.bare {
		for v := range seq {
			l.Items = append(l.Items, view(v))
		}
		return l, nil
	}
	var err error
	if l.Page, l.Limit, err = paging(number, size, 20); err != nil {
		return nil, err
	}
	found, total := page(seq, l.Page, l.Limit, nil)
	for _, v := range found {
		l.Items = append(l.Items, view(v))
	}
	l.Total = total
	return l, nil
}

type listFleetsIn struct {
	Page  *int `query:"page"`
	Limit *int `query:"limit"`
}

func (s *Server) listFleets(_ context.Context, c *caller, in listFleetsIn) (*listOrPage[stack.FleetPolicy], error) {
	return pageOf(c.op.fleets.newest(), in.Page, in.Limit, func(f *fleet) stack.FleetPolicy { return *f.view() })
}

type listFleetMembersIn struct {
	PolicyID string `path:"policy_id"`
	Page     *int   `query:"page"`
	Limit    *int   `query:"limit"`
}

func (s *Server) listFleetMembers(
	_ context.Context, c *caller, in listFleetMembersIn,
) (*listOrPage[stack.FleetMember], error) {
	f, err := c.op.fleetByID(in.PolicyID)
	if err != nil {
		return nil, err
	}
	return pageOf(f.members.all(), in.Page, in.Limit, func(m *fleetMember) stack.FleetMember { return m.FleetMember })
}

// fleetMembership answers null for an agent that is in no fleet, or no longer in one.
func (s *Server) fleetMembership(_ context.Context, c *caller, in agentIn) (*stack.FleetMember, error) {
	a, err := c.op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	m, ok := c.op.fleetMembers[a.ID]
	if !ok || m.Status != stack.FleetActive {
		return nil, nil //nolint:nilnil // null is the answer
	}
	return &m.FleetMember, nil
}

type fleetMemberIn struct {
	PolicyID string `path:"policy_id"`
	AgentID  string `path:"agent_id"`
}

func (s *Server) revokeFleetMember(_ context.Context, c *caller, in fleetMemberIn) (*stack.FleetRevocation, error) {
	f, err := c.op.fleetByID(in.PolicyID)
	if err != nil {
		return nil, err
	}
	m, ok := f.members.get(in.AgentID)
	if !ok {
		return nil, notFound("member", in.AgentID)
	}
	r := c.op.dismiss(s.clock.now(), m)
	r.AgentID = m.AgentID
	return &r, nil
}

// dismiss throws a member out of its fleet, with its Missions and all its passports. Once it is out, nothing happens.
func (op *operator) dismiss(now time.Time, m *fleetMember) (r stack.FleetRevocation) {
	f := m.fleet
	if m.Status == stack.FleetActive {
		m.Status, m.RevokedAt = stack.FleetRevoked, now
		op.server.keys.removeAgent(m.AgentID)
		revoked, cascaded := op.revokeAgent(now, m.AgentID, "Fleet member revoked")
		r.RevokedMembers, r.RevokedPassports = 1, revoked+len(cascaded)
		for _, id := range sortedKeys(f.live) {
			if of := f.live[id]; of.AgentID == m.AgentID {
				op.endMission(now, of, stack.MissionRevoked, string(stack.ReasonOperatorClean), "Fleet member revoked")
				r.RevokedMissions++
			}
		}
		row := f.row("fleet.revoke_member")
		row.AgentID = m.AgentID
		op.record(now, row)
	}
	r.FleetPolicyID, r.Status, r.RevokedAt = f.ID, m.Status, m.RevokedAt
	return r
}

func (s *Server) revokeFleet(_ context.Context, c *caller, in fleetIn) (*stack.FleetRevocation, error) {
	f, err := c.op.fleetByID(in.PolicyID)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	r := &stack.FleetRevocation{FleetPolicyID: f.ID, Status: stack.FleetRevoked}
	if f.Status == stack.FleetActive {
		f.Status, f.RevokedAt, f.UpdatedAt, f.session = stack.FleetRevoked, now, now, nil
		for m := range f.members.all() {
			gone := c.op.dismiss(now, m)
			r.RevokedMembers += gone.RevokedMembers
			r.RevokedMissions += gone.RevokedMissions
			r.RevokedPassports += gone.RevokedPassports
		}
		c.op.record(now, f.row("fleet.revoke"))
	}
	r.RevokedAt = f.RevokedAt
	return r, nil
}

type fleetSessionIn struct {
	Body struct {
		FleetPolicyID string `json:"fleet_policy_id,omitempty"`
	} `body:""`
}

func (s *Server) fleetSession(_ context.Context, c *caller, in fleetSessionIn) (*stack.FleetSession, error) {
	op, now := c.op, s.clock.now()
	id := in.Body.FleetPolicyID
	if id == "" {
		var active []string
		for f := range op.fleets.all() {
			if f.Status == stack.FleetActive {
				active = append(active, f.ID)
			}
		}
		if len(active) != 1 {
			return nil, invalid("body.fleet_policy_id", nil, fmt.Sprintf("given: there are %d active fleets", len(active)))
		}
		id = active[0]
	}
	f, err := op.activeFleet(id)
	if err != nil {
		return nil, err
	}
	if f.runningSession(now) == "" {
		f.session = &stack.FleetSession{SessionID: newID("ses_"), FleetPolicyID: f.ID, StartedAt: now,
			ExpiresAt: now.Add(fleetSessionLife)}
		op.record(now, f.row("fleet.session"))
	}
	view := *f.session
	view.Revision = f.Revision
	return &view, nil
}

// runningSession returns the id of the fleet's session; empty is none.
func (f *fleet) runningSession(now time.Time) string {
	if f.session == nil || !now.Before(f.session.ExpiresAt) {
		return ""
	}
	return f.session.SessionID
}

func (op *operator) hasFleetSession(id string) bool {
	for f := range op.fleets.all() {
		if f.session != nil && f.session.SessionID == id {
			return true
		}
	}
	return false
}

// endFleetSession ends a session whose passports were revoked, so that the next Missions have another.
func (op *operator) endFleetSession(id string) {
	for f := range op.fleets.all() {
		if f.session != nil && f.session.SessionID == id {
			f.session = nil
		}
	}
}
