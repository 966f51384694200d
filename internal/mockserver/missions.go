package mockserver

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

const (
	defaultMissionLifetime = 15 * time.Minute
	maxIntentSummary       = 500
	maxNotes               = 1000
	maxEndedMissions       = 2_500  // that are remembered with their passports and checkouts; the one that ended first goes
	maxMissionEvents       = 20_000 // of one Mission's activity; later ones are counted in the audit log only
)

// mission is the unit of authority and accounting: its passports die with it.
type mission struct {
	stack.MissionRecord
	operator    *operator
	maxDuration time.Duration
	end         *stack.MissionEnd
	passports   []*passport
	flow        *detect.Flow
	skills      []string // whose outputs flow has remembered, by their ids
	events      []stack.MissionEvent
	fleet       *fleetPermit           // nil outside fleets
	signals     map[stack.Severity]int // security events of its passports
	reviews     []stack.OperatorReview // newest last
	revisions   int                    // reviews issued, those that are no longer kept too
}

func missionRoutes() []route {
	return []route{
		endpoint("POST", "/v1/missions", (*Server).openMission),
		endpoint("GET", "/v1/missions", (*Server).listMissions),
		endpoint("POST", "/v1/missions/start", (*Server).startMission),
		endpoint("GET", "/v1/missions/{mission_id}", (*Server).getMission),
		endpoint("POST", "/v1/missions/{mission_id}/renew", (*Server).renewMission),
		endpoint("POST", "/v1/missions/{mission_id}/complete", (*Server).completeMission),
		endpoint("POST", "/v1/missions/{mission_id}/revoke", (*Server).revokeMission),
		endpoint("GET", "/v1/missions/{mission_id}/replay", (*Server).missionActivity),
		endpoint("GET", "/v1/missions/{mission_id}/operator-reviews", (*Server).listOperatorReviews),
		endpoint("GET", "/v1/missions/{mission_id}/operator-reviews/{claim_id}/download", (*Server).downloadOperatorReview, answers[string]("application/cose")),
	}
}

// missionByID finds a Mission; the message is the one that clients recognise.
func (op *operator) missionByID(id string) (*mission, error) {
	if m, ok := op.missions.get(id); ok {
		return m, nil
	}
	return nil, refuse(http.StatusNotFound, "NOT_FOUND", "Mission not found: "+clip(id), map[string]any{"check": "exists", "sent": clip(id)})
}

// mustBeLive refuses with the message by which clients recognise how the Mission ended.
func (m *mission) mustBeLive() error {
	text := map[stack.MissionState]string{stack.MissionCompleted: "is completed", stack.MissionRevoked: "is revoked", stack.MissionExpired: "has expired"}
	if m.Status == stack.MissionLive {
		return nil
	}
	return forbidden(fmt.Sprintf("Mission %s %s", m.MissionID, text[m.Status]),
		map[string]any{"check": "mission_state", "sent": m.Status, "allowed": stack.MissionLive})
}

// mustServe refuses a Mission that is over or was opened for another agent.
func (m *mission) mustServe(agentID string) error {
	if err := m.mustBeLive(); err != nil {
		return err
	}
	if m.AgentID != "" && m.AgentID != agentID {
		return forbidden("the Mission is assigned to another agent", map[string]any{"check": "mission_agent", "sent": agentID, "allowed": m.AgentID})
	}
	return nil
}

type openMissionIn struct {
	Body stack.MissionOpenParams `body:""`
}

func (s *Server) openMission(_ context.Context, c *caller, in openMissionIn) (*stack.OpenedMission, error) {
	open := func() (*mission, error) { return s.open(c.op, "body.", in.Body) }
	var m *mission
	var err error
	if in.Body.FleetPolicyID != "" && in.Body.IdempotencyKey != "" {
		m, err = onceByBody(s, c.op, "POST /v1/missions", "body.", in.Body.IdempotencyKey, in.Body, open)
	} else {
		m, err = open()
	}
	if err != nil {
		return nil, err
	}
	return m.opened(), nil
}

func (m *mission) opened() *stack.OpenedMission {
	return &stack.OpenedMission{MissionID: m.MissionID, ClaimID: m.ClaimID, ExpiresAt: m.ExpiresAt}
}

// open checks and puts a Mission on record.
func (s *Server) open(op *operator, at string, p stack.MissionOpenParams) (*mission, error) {
	now := s.clock.now()
	if err := checkOpen(at, p); err != nil {
		return nil, err
	}
	if p.AgentID != "" {
		if _, err := op.agentByID(p.AgentID); err != nil {
			return nil, err
		}
	}
	if _, err := op.bindingsInForce(at+"authority_binding_ids", p.AuthorityBindingIDs, p.AgentID); err != nil {
		return nil, err
	}
	var permit *fleetPermit
	if p.FleetPolicyID != "" {
		var err error
		if permit, err = op.permit(now, at, &p); err != nil {
			return nil, err
		}
	}
	m := &mission{fleet: permit, operator: op, maxDuration: p.MaxDuration, flow: detect.NewFlow(),
		signals: map[stack.Severity]int{}, MissionRecord: stack.MissionRecord{
			MissionID: newID("ms_"), ClaimID: newID("pc_"), OperatorID: op.id, AgentID: p.AgentID, Status: stack.MissionLive,
			IntentSummary: p.IntentSummary, IntentServices: p.IntentServices, OpenedAt: now, ExpiresAt: now.Add(or(p.ExpiresIn, defaultMissionLifetime)),
			Caps: stack.MissionCaps{MaxActions: p.MaxActions, MaxActionsPerService: p.MaxActionsPerService, MaxDropoffBytes: p.MaxDropoffBytes,
				MaxDurationSeconds: int(p.MaxDuration / time.Second), MaxConcurrentIntents: p.MaxConcurrentIntents,
				CoverageCapCents: p.CoverageCapCents, CapBehavior: p.CapBehavior},
			Usage: stack.MissionUsage{ActionsPerService: map[string]int{}}, Passports: []string{},
			ExpectedCounterparties: p.ExpectedCounterparties, BaselineProfile: p.BaselineProfile, ExpectedOutputShape: p.ExpectedOutputShape,
			ParentPassportServices: p.ParentPassportServices, AuthorityBindingIDs: p.AuthorityBindingIDs,
		}}
	if m.IntentServices == nil {
		m.IntentServices = []string{}
	}
	op.missions.put(m.MissionID, m)
	if permit != nil {
		permit.of.live[m.MissionID] = m
	}
	op.due.add(m.ExpiresAt, whenDue(&op.missions, m.MissionID, op.missionDue))
	op.record(now, stack.AuditEntry{AgentID: m.AgentID, TraceID: m.MissionID, Action: "mission.open"})
	m.note(now, "mission.open", nil, map[string]any{"intent_summary": m.IntentSummary, "expires_at": m.ExpiresAt})
	return m, nil
}

func checkOpen(at string, p stack.MissionOpenParams) error {
	err := firstError(
		filled(at+"intent_summary", p.IntentSummary),
		atMost(at+"intent_summary", p.IntentSummary, maxIntentSummary),
		listAtMost(at+"intent_services", p.IntentServices, maxServices, maxServiceName),
		listAtMost(at+"expected_counterparties", p.ExpectedCounterparties, maxServices, maxServiceName),
		listAtMost(at+"parent_passport_services", p.ParentPassportServices, maxServices, maxServiceName),
		lasting(at+"expires_in_seconds", p.ExpiresIn, time.Second, stack.MaxMissionLifetime),
		lasting(at+"max_duration_seconds", p.MaxDuration, time.Second, stack.MaxMissionLifetime),
		within(at+"max_actions", p.MaxActions, 0, 1<<31),
		within(at+"max_dropoff_bytes", p.MaxDropoffBytes, 0, 1<<40),
		within(at+"max_concurrent_intents", p.MaxConcurrentIntents, 0, 1<<31),
		within(at+"coverage_cap_cents", p.CoverageCapCents, 0, 1<<40),
	)
	if err != nil {
		return err
	}
	for _, service := range sortedKeys(p.MaxActionsPerService) {
		if err := within(at+"max_actions_per_service."+clip(service), p.MaxActionsPerService[service], 0, 1<<31); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(p.CapBehavior) {
		switch name {
		case "max_actions", "max_actions_per_service", "max_dropoff_bytes", "max_duration_seconds", "max_concurrent_intents", "coverage_cap_cents":
		default:
			return invalid(at+"cap_behavior", name, "keyed by the name of a cap, such as max_actions")
		}
		if err := chosen(at+"cap_behavior."+name, p.CapBehavior[name], stack.CapBlock, stack.CapWarn); err != nil {
			return err
		}
	}
	if p.FleetPolicyID != "" {
		return nil
	}
	return firstError(
		fleetOnly(at+"idempotency_key", p.IdempotencyKey != ""),
		fleetOnly(at+"requested_access", p.RequestedAccess != nil),
		fleetOnly(at+"requested_operations", p.RequestedOperations != nil),
		fleetOnly(at+"limits", p.Limits != nil),
	)
}

// fleetOnly refuses a field that only a fleet's policy gives a meaning: ignored, it would look as if it had been heeded.
func fleetOnly(field string, given bool) *apiError {
	if given {
		return invalid(field, "given without fleet_policy_id", "given for a Mission of a fleet, or left out")
	}
	return nil
}

type startMissionIn struct {
	Body startBody `body:""`
}

func (s *Server) startMission(_ context.Context, c *caller, in startMissionIn) (*stack.StartedMission, error) {
	p, at, err := in.Body.read()
	if err != nil {
		return nil, err
	}
	start := func() (*stack.StartedMission, error) { return s.start(c, at, p) }
	if p.Mission.FleetPolicyID == "" {
		return start()
	}
	return onceByBody(s, c.op, "POST /v1/missions/start", at, p.Mission.IdempotencyKey, p, start)
}

func (s *Server) start(c *caller, at string, p stack.MissionStartParams) (*stack.StartedMission, error) {
	a, err := c.op.agentByID(p.AgentID)
	if err != nil {
		return nil, err
	}
	if p.Mission.AgentID != "" && p.Mission.AgentID != a.ID {
		return nil, invalid(at+"agent_id", p.Mission.AgentID, "the same as agent_id, or left out")
	}
	p.Mission.AgentID = a.ID
	m, err := s.open(c.op, at, p.Mission)
	if err != nil {
		return nil, err
	}
	issue := stack.PassportIssueParams{AgentID: a.ID, MissionIDs: []string{m.MissionID}}
	if q := p.Passport; q != nil {
		issue.Intent, issue.TTL, issue.CheckpointInterval, issue.Scopes = q.Intent, q.TTL, q.CheckpointInterval, q.Scopes
		issue.AuthorityBindingIDs, issue.IdentityClaimIDs = q.AuthorityBindingIDs, q.IdentityClaimIDs
		issue.AccountabilityMode = q.AccountabilityMode
	}
	pass, err := s.issue(c.op, a, m, issue)
	if err != nil {
		c.op.endMission(s.clock.now(), m, stack.MissionRevoked, string(stack.ReasonOperatorClean), "the passport could not be issued")
		return nil, err
	}
	return &stack.StartedMission{OpenedMission: *m.opened(), Passport: *pass}, nil
}

type missionIn struct {
	MissionID string `path:"mission_id"`
}

func (s *Server) renewMission(_ context.Context, c *caller, in missionIn) (*stack.RenewedMission, error) {
	m, err := c.op.missionByID(in.MissionID)
	if err != nil {
		return nil, err
	}
	if err = m.mustBeLive(); err != nil {
		return nil, err
	}
	last := m.root()
	if last == nil {
		return nil, forbidden("the Mission has had no passport to renew", map[string]any{"check": "mission_passport", "sent": m.MissionID,
			"allowed": "a Mission with a passport; issue one first"})
	}
	a, err := c.op.agentByID(last.agentID())
	if err != nil {
		return nil, err
	}
	pass, err := s.issue(c.op, a, m, stack.PassportIssueParams{AgentID: a.ID, MissionIDs: []string{m.MissionID}, Intent: last.intent,
		TTL: last.ttl, CheckpointInterval: last.claims.STK.CheckpointInterval, Scopes: scopesOf(last),
		IdentityClaimIDs:    c.op.activeClaimIDs(last, s.clock.now()),
		AuthorityBindingIDs: last.bindingIDs(), // not only those in force: without one that has lapsed, it would count for nothing
		AccountabilityMode:  stricter(last.mode(), a.AccountabilityMode)})
	if err != nil {
		return nil, err
	}
	return &stack.RenewedMission{MissionID: m.MissionID, ExpiresAt: m.ExpiresAt, Passport: *pass}, nil
}

// root is the newest passport of the Mission that was not delegated.
func (m *mission) root() *passport {
	for i := len(m.passports) - 1; i >= 0; i-- {
		if m.passports[i].parent == nil {
			return m.passports[i]
		}
	}
	return nil
}

// scopesOf asks for the reach of a passport again.
func scopesOf(p *passport) []stack.PassportScope {
	scopes := []stack.PassportScope{}
	for _, s := range p.claims.STK.Services {
		scopes = append(scopes, stack.PassportScope{ServiceConnectionID: s.ConnectionID, Scopes: s.Scopes, Constraints: s.Constraints,
			AllowDataFrom: s.AllowDataFrom})
	}
	return scopes
}

type completeMissionIn struct {
	MissionID string                      `path:"mission_id"`
	Body      stack.MissionCompleteParams `body:""`
}

func (s *Server) completeMission(_ context.Context, c *caller, in completeMissionIn) (*stack.MissionEnd, error) {
	m, err := c.op.missionByID(in.MissionID)
	if err != nil {
		return nil, err
	}
	if m.end == nil {
		m.Output = in.Body.Output
	}
	return c.op.endMission(s.clock.now(), m, stack.MissionCompleted, "", ""), nil
}

type revokeMissionIn struct {
	MissionID string                    `path:"mission_id"`
	Body      stack.MissionRevokeParams `body:""`
}

func (s *Server) revokeMission(_ context.Context, c *caller, in revokeMissionIn) (*stack.MissionEnd, error) {
	m, err := c.op.missionByID(in.MissionID)
	if err != nil {
		return nil, err
	}
	if err := firstError(
		chosen("body.reason", in.Body.Reason, stack.ReasonAdversarial, stack.ReasonOperatorClean),
		atMost("body.notes", in.Body.Notes, maxNotes),
	); err != nil {
		return nil, err
	}
	return c.op.endMission(s.clock.now(), m, stack.MissionRevoked, string(in.Body.Reason), in.Body.Notes), nil
}

// endMission ends a Mission once and takes its passports with it; a repetition returns how it ended.
func (op *operator) endMission(now time.Time, m *mission, state stack.MissionState, reason, notes string) *stack.MissionEnd {
	if m.end != nil {
		again := *m.end
		again.Transitioned = false
		return &again
	}
	terminal, action := string(state), "mission."+map[stack.MissionState]string{
		stack.MissionCompleted: "complete", stack.MissionRevoked: "revoke", stack.MissionExpired: "expire"}[state]
	if state == stack.MissionCompleted {
		terminal = "completed_successful"
	}
	m.Status, m.EndedAt, m.EndReason, m.EndNotes = state, now, reason, notes
	if m.fleet != nil {
		delete(m.fleet.of.live, m.MissionID)
	}
	m.end = &stack.MissionEnd{MissionID: m.MissionID, ClaimID: newID("pc_"), TerminalState: terminal, CompletedAt: now, Transitioned: true, Reason: reason}
	op.record(now, stack.AuditEntry{AgentID: m.AgentID, TraceID: m.MissionID, Action: action, ErrorMessage: reason})
	m.note(now, action, nil, map[string]any{"reason": reason})
	for _, p := range m.passports {
		if !p.ended() { // one that was checked out has its end on record
			op.revokeTree(now, p, "Mission "+string(state))
		}
	}
	if state == stack.MissionRevoked {
		op.tell(now, stack.EventMissionRevoked, "The Mission "+m.MissionID+" was revoked: "+reason, map[string]any{
			"mission_id": m.MissionID, "agent_id": m.AgentID, "reason": reason, "notes": notes})
	}
	op.reviewMission(now, m, causeEnd, nil)
	if op.ended = append(op.ended, m); len(op.ended) > maxEndedMissions {
		op.forgetMission(op.ended[0])
		op.ended = slices.Delete(op.ended, 0, 1)
	}
	return m.end
}

// forgetMission drops a Mission with its passports and their checkouts. The audit log keeps what happened in it.
func (op *operator) forgetMission(m *mission) {
	for _, p := range m.passports {
		if p.checkout != nil {
			op.checkouts.delete(p.checkout.CheckoutID)
		}
		delete(op.tokens, p.token)
		op.passports.delete(p.jti())
	}
	op.missions.delete(m.MissionID)
}

// missionDue expires a Mission whose time is up.
func (op *operator) missionDue(m *mission, now time.Time) {
	if m.Status == stack.MissionLive && !m.ExpiresAt.After(now) {
		op.endMission(now, m, stack.MissionExpired, "", "")
	}
}

func (m *mission) view() stack.MissionRecord {
	r := m.MissionRecord
	r.Passports = make([]string, len(m.passports))
	for i, p := range m.passports {
		r.Passports[i] = p.jti()
	}
	r.Usage.ActionsPerService = cloneMap(r.Usage.ActionsPerService)
	if m.fleet != nil {
		r.Fleet = m.fleet.view(r.Usage)
	}
	return r
}

func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func (s *Server) getMission(_ context.Context, c *caller, in missionIn) (*stack.MissionRecord, error) {
	m, err := c.op.missionByID(in.MissionID)
	if err != nil {
		return nil, err
	}
	r := m.view()
	return &r, nil
}

type listMissionsIn struct {
	Status stack.MissionState `query:"status"`
	Page   *int               `query:"page"`
	Limit  *int               `query:"limit"`
}

// paging fills in the defaults of a page and refuses what does not exist.
func paging(number, size *int, defaultSize int) (page, limit int, err error) {
	page, limit = 1, defaultSize
	replace(&page, number)
	replace(&limit, size)
	return page, limit, firstError(within("query.page", page, 1, 1_000_000), within("query.limit", limit, 1, 100))
}

func (s *Server) listMissions(_ context.Context, c *caller, in listMissionsIn) (*stack.MissionPage, error) {
	number, size, err := paging(in.Page, in.Limit, 20)
	if err != nil {
		return nil, err
	}
	if err := firstError(oneOf("query.status", in.Status, stack.MissionLive, stack.MissionCompleted, stack.MissionRevoked, stack.MissionExpired)); err != nil {
		return nil, err
	}
	found, total := page(c.op.missions.newest(), number, size, func(m *mission) bool { return in.Status == "" || m.Status == in.Status })
	items := make([]stack.MissionRecord, len(found))
	for i, m := range found {
		items[i] = m.view()
	}
	return &stack.MissionPage{Items: items, Total: total, Page: number, Limit: size}, nil
}

func (s *Server) missionActivity(_ context.Context, c *caller, in missionIn) (*stack.MissionActivity, error) {
	m, err := c.op.missionByID(in.MissionID)
	if err != nil {
		return nil, err
	}
	view := m.view()
	return &stack.MissionActivity{MissionID: m.MissionID, Status: m.Status, Events: m.events, Usage: view.Usage, Caps: m.Caps}, nil
}

// note adds to the activity of a passport's Mission.
func (op *operator) note(now time.Time, p *passport, kind string, data map[string]any) {
	p.mission.note(now, kind, p, data)
}

func (m *mission) note(now time.Time, kind string, p *passport, data map[string]any) {
	if len(m.events) >= maxMissionEvents {
		return
	}
	event := stack.MissionEvent{At: now, Type: kind, AgentID: m.AgentID, Data: data}
	if p != nil {
		event.PassportJTI, event.AgentID = p.jti(), p.agentID()
	}
	m.events = append(m.events, event)
}
