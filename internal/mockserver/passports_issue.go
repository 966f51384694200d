package mockserver

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/constraint"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/token"
)

type issuePassportIn struct {
	Body stack.PassportIssueParams `body:""`
}

func (s *Server) issuePassport(_ context.Context, c *caller, in issuePassportIn) (*stack.Passport, error) {
	a, m, err := c.op.bearerOf(in.Body.AgentID, in.Body.MissionIDs)
	if err != nil {
		return nil, err
	}
	return s.issue(c.op, a, m, in.Body)
}

// bearerOf finds the agent that is to have a passport, and the one Mission for which it is.
func (op *operator) bearerOf(agentID string, missionIDs []string) (*agent, *mission, error) {
	if len(missionIDs) != 1 {
		return nil, nil, forbidden("a passport is bound to exactly one Mission", map[string]any{
			"check": "mission_ids", "sent": len(missionIDs), "allowed": "a list of exactly one Mission id"})
	}
	a, err := op.agentByID(agentID)
	if err != nil {
		return nil, nil, err
	}
	m, err := op.missionByID(missionIDs[0])
	if err != nil {
		return nil, nil, err
	}
	return a, m, m.mustServe(a.ID)
}

// issue makes a root passport for an agent within a Mission that may serve it.
func (s *Server) issue(op *operator, a *agent, m *mission, params stack.PassportIssueParams) (*stack.Passport, error) {
	return s.issueUnder(op, a, m, params, mustDeclare)
}

// issueUnder is issue with a rule of its own for what has to be declared.
func (s *Server) issueUnder(op *operator, a *agent, m *mission, params stack.PassportIssueParams,
	declared func(stack.Accountability, *stack.Intent) error) (*stack.Passport, error) {
	now := s.clock.now()
	if err := a.mayHavePassport(); err != nil {
		return nil, err
	}
	if m.fleet != nil {
		if err := m.fleet.mayServe(a.ID); err != nil {
			return nil, err
		}
		params.Intent = or(params.Intent, m.intent())
	}
	mode := or(params.AccountabilityMode, a.AccountabilityMode)
	if err := checkIssue(a, mode, params); err != nil {
		return nil, err
	}
	if err := declared(mode, params.Intent); err != nil {
		return nil, err
	}
	if params.Scopes == nil {
		params.Scopes = params.Services
	}
	ttl, err := m.passportTTL(params.TTL)
	if err != nil {
		return nil, err
	}
	services, err := op.reach(a, m, params.Scopes)
	if err != nil {
		return nil, err
	}
	if params.IdentityClaimIDs == nil && op.madeBy[a.ID] != "" { // what is proven of the owner says nothing of a partner's agent
		params.IdentityClaimIDs = []string{}
	}
	claims, err := op.carry(params.IdentityClaimIDs, now)
	if err != nil {
		return nil, err
	}
	refs, err := op.authorityRefs(a, m, params.AuthorityBindingIDs)
	if err != nil {
		return nil, err
	}
	p := &passport{intent: params.Intent, mission: m, ttl: ttl}
	p.claims.STK = stack.PassportSTK{Services: services, SessionID: m.newSession(), CheckpointInterval: params.CheckpointInterval,
		Accountability: mode, IdentityClaims: claims, AuthorityRefs: refs}
	return s.admit(op, a, p, now.Add(p.ttl), "passport.issue")
}

// admit completes a new passport, signs it and puts it on record. It expires at until, its Mission's end or, when
// enforced, its first checkpoint, whichever comes first.
func (s *Server) admit(op *operator, a *agent, p *passport, until time.Time, action string) (*stack.Passport, error) {
	now := s.clock.now()
	p.issuedAt = now
	stk := &p.claims.STK
	p.claims.JTI, p.claims.Subject, p.claims.Issuer, p.claims.Audience = newID("pp_"), a.ID, token.Issuer, token.Audience
	stk.OperatorID, stk.AgentID, stk.AgentName = op.id, a.ID, a.Name
	stk.MissionIDs = []string{p.mission.MissionID}
	if p.intent != nil {
		stk.IntentSummary, stk.IntentServices = p.intent.Summary, p.intent.Services
	}
	if stk.Accountability == stack.Enforced {
		stk.CheckpointInterval = or(stk.CheckpointInterval, defaultInterval)
		p.checkpointDue = now.Add(stk.CheckpointInterval)
	}
	p.expiresAt = p.noLaterThan(until)
	signed, err := s.sign(p, now)
	if err != nil {
		return nil, err
	}
	if err := op.charge(now, meterPassports); err != nil {
		return nil, err
	}
	declared := stk.IntentServices
	if len(declared) == 0 {
		declared = p.grantedProviders()
	}
	p.drift = detect.NewDrift(declared, p.grantedProviders())
	op.remember(p, signed)
	op.passports.put(p.jti(), p)
	p.mission.passports = append(p.mission.passports, p)
	op.due.add(p.expiresAt, whenDue(&op.passports, p.jti(), op.passportDue))
	if stk.Accountability == stack.Enforced && !p.expiresAt.Equal(p.checkpointDue) {
		op.due.add(p.checkpointDue, whenDue(&op.passports, p.jti(), op.passportDue))
	}
	op.record(now, p.row(action))
	op.note(now, p, action, map[string]any{"expires_at": p.expiresAt, "services": p.grantedProviders(), "delegation_depth": stk.DelegationDepth})
	return signed, nil
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

const (
	maxServices    = 64
	maxServiceName = 128
)

// checkIssue holds the rules for the fields of a passport.
func checkIssue(a *agent, mode stack.Accountability, p stack.PassportIssueParams) error {
	if err := firstError(
		oneOf("body.accountability_mode", mode, stack.Enforced, stack.Logged, stack.Standard),
		lasting("body.ttl_seconds", p.TTL, stack.MinPassportTTL, stack.MaxPassportTTL),
		lasting("body.checkpoint_interval_seconds", p.CheckpointInterval, stack.MinCheckpointInterval, stack.MaxCheckpointInterval),
	); err != nil {
		return err
	}
	if rank(mode) < rank(a.AccountabilityMode) {
		return invalid("body.accountability_mode", string(mode), "at least the agent's, "+string(a.AccountabilityMode))
	}
	if p.Scopes != nil && p.Services != nil {
		return invalid("body.services", "given beside scopes", "given alone")
	}
	if len(p.NamedIntents) > 0 {
		return invalid("body.intents", "not empty", "an empty list: this server has no catalogue of named intents")
	}
	if p.Intent != nil {
		if err := firstError(
			atMost("body.intent.summary", p.Intent.Summary, 500),
			listAtMost("body.intent.services", p.Intent.Services, maxServices, maxServiceName),
			lasting("body.intent.estimated_duration_seconds", p.Intent.EstimatedDuration, 0, stack.MaxMissionLifetime),
		); err != nil {
			return err
		}
	}
	return nil
}

// mustDeclare refuses a passport in a mode that demands an intent when there is none.
func mustDeclare(mode stack.Accountability, intent *stack.Intent) error {
	if mode == stack.Standard {
		return nil
	}
	if intent == nil || strings.TrimSpace(intent.Summary) == "" || len(intent.Services) == 0 {
		return refuse(http.StatusBadRequest, "ACCOUNTABILITY_REQUIRED",
			fmt.Sprintf("a passport in %s mode must declare intent.summary and intent.services", mode),
			map[string]any{"check": "intent", "sent": intent, "allowed": "an intent with a summary and at least one service"})
	}
	return nil
}

// reach works out which services a passport reaches: everything that is granted, to the agent or by its Mission's fleet, or
// the part of it that scopes name.
func (op *operator) reach(a *agent, m *mission, scopes []stack.PassportScope) ([]stack.PassportService, error) {
	if m.fleet != nil {
		standing := slices.DeleteFunc(slices.Clone(m.fleet.Access), func(service stack.PassportService) bool {
			_, connected := op.connections.get(service.ConnectionID)
			return !connected
		})
		if scopes == nil {
			return standing, nil
		}
		return narrow("body.scopes", "the access of the fleet's Mission", standing, scopes)
	}
	grants := op.grantsOf(a.ID)
	standing := make([]stack.PassportService, 0, len(grants))
	for _, g := range grants {
		standing = append(standing, stack.PassportService{ServiceName: g.Provider, ConnectionID: g.ServiceConnectionID, Scopes: g.Scopes,
			Constraints: g.Constraints, AllowDataFrom: expandWildcard(g, grants)})
	}
	if scopes == nil {
		return standing, nil
	}
	return narrow("body.scopes", "the agent's grant", standing, scopes)
}

// expandWildcard resolves a grant's data-flow wildcard to the names of the agent's other services, and of skills, before it is
// signed.
func expandWildcard(g *grant, grants []*grant) []string {
	if !slices.Contains(g.AllowDataFrom, "*") {
		return g.AllowDataFrom
	}
	names := []string{}
	for _, other := range grants {
		if other.Provider != g.Provider && !slices.Contains(names, other.Provider) {
			names = append(names, other.Provider)
		}
	}
	return append(names, skillService)
}

// mayFlow reports whether a data-flow list names a service, or a skill: one by its id, or all of them as "skill".
func mayFlow(allowed []string, name string) bool {
	return slices.Contains(allowed, name) || strings.HasPrefix(name, "skl_") && slices.Contains(allowed, skillService)
}

// narrow applies scopes to what is standing: each must name a connection of it and may only take away. Errors call the scopes
// by their field.
func narrow(field, standingName string, standing []stack.PassportService, scopes []stack.PassportScope) ([]stack.PassportService, error) {
	services := []stack.PassportService{}
	for i, scope := range scopes {
		at := fmt.Sprintf("%s[%d]", field, i)
		escalation := func(field string, sent any, allowed any) error {
			return refuse(http.StatusBadRequest, "SCOPE_ESCALATION", fmt.Sprintf("%s.%s goes beyond %s", at, field, standingName),
				map[string]any{"check": "scope", "field": at + "." + field, "sent": sent, "allowed": allowed})
		}
		n := slices.IndexFunc(standing, func(s stack.PassportService) bool { return s.ConnectionID == scope.ServiceConnectionID })
		if n < 0 {
			var ids []string
			for _, s := range standing {
				ids = append(ids, s.ConnectionID)
			}
			return nil, escalation("service_connection_id", clip(scope.ServiceConnectionID), ids)
		}
		from := standing[n]
		if slices.ContainsFunc(services, func(s stack.PassportService) bool { return s.ConnectionID == from.ConnectionID }) {
			return nil, invalid(at+".service_connection_id", scope.ServiceConnectionID, "named once")
		}
		if len(scope.Scopes) == 0 {
			return nil, invalid(at+".scopes", "empty", "at least one scope of "+strings.Join(from.Scopes, ", "))
		}
		for j, want := range scope.Scopes {
			if !slices.Contains(from.Scopes, want) {
				return nil, escalation("scopes", clip(want), from.Scopes)
			}
			if slices.Contains(scope.Scopes[:j], want) {
				return nil, invalid(fmt.Sprintf("%s.scopes[%d]", at, j), want, "named once")
			}
		}
		if err := constraint.Validate(scope.Constraints); err != nil {
			return nil, invalid(at+".constraints", err.Error(), "valid constraints")
		}
		constraints := slices.Clone(from.Constraints)
		for _, c := range scope.Constraints {
			if !slices.ContainsFunc(constraints, func(have stack.Constraint) bool { return reflect.DeepEqual(have, c) }) {
				constraints = append(constraints, c)
			}
		}
		if err := constraint.Validate(constraints); err != nil { // together they may be too many
			return nil, invalid(at+".constraints", err.Error(), "few enough, with those of "+standingName)
		}
		allowFrom := from.AllowDataFrom
		if scope.AllowDataFrom != nil {
			if err := firstError(listAtMost(at+".allow_data_from", scope.AllowDataFrom, maxServices, maxServiceName)); err != nil {
				return nil, err
			}
			for _, name := range scope.AllowDataFrom {
				if name == "*" {
					return nil, invalid(at+".allow_data_from", "*", "exact service names; a wildcard belongs in the grant")
				}
				if from.AllowDataFrom != nil && !mayFlow(from.AllowDataFrom, name) {
					return nil, escalation("allow_data_from", clip(name), from.AllowDataFrom)
				}
			}
			allowFrom = scope.AllowDataFrom
		}
		services = append(services, stack.PassportService{ServiceName: from.ServiceName, ConnectionID: from.ConnectionID, Scopes: scope.Scopes,
			Constraints: constraints, AllowDataFrom: allowFrom})
	}
	return services, nil
}

const maxDelegationDepth = 4

type delegatePassportIn struct {
	Body stack.PassportDelegateParams `body:""`
}

// delegatePassport gives another agent a passport under a parent's. The parent's reach authorises it: the child needs no
// grant of its own.
func (s *Server) delegatePassport(_ context.Context, c *caller, in delegatePassportIn) (*stack.Passport, error) {
	op, now, params := c.op, s.clock.now(), in.Body
	if err := lasting("body.ttl_seconds", params.TTL, stack.MinPassportTTL, stack.MaxPassportTTL); err != nil {
		return nil, err
	}
	parent, err := s.present(op, params.ParentToken, now)
	if err != nil {
		return nil, err
	}
	child, err := op.agentByID(params.ChildAgentID)
	if err != nil {
		return nil, err
	}
	if err = child.mayHavePassport(); err != nil {
		return nil, err
	}
	violation := func(code, message string, sent, allowed any) error {
		op.raise(now, parent, detect.Finding{Signal: detect.DelegationViolation, Severity: stack.SeverityWarning, Detail: strings.ToLower(code),
			Message: "A delegation was refused: " + message + ".", Metadata: map[string]any{"child_agent_id": child.ID, "code": code}})
		return refuse(http.StatusBadRequest, code, message, map[string]any{"check": "delegation", "sent": sent, "allowed": allowed})
	}
	depth := parent.claims.STK.DelegationDepth + 1
	if depth > maxDelegationDepth {
		return nil, violation("DELEGATION_DEPTH_EXCEEDED", fmt.Sprintf("a passport may be delegated over at most %d hops", maxDelegationDepth),
			depth, maxDelegationDepth)
	}
	if rank(child.AccountabilityMode) < rank(parent.mode()) {
		return nil, violation("DELEGATION_ACCOUNTABILITY_VIOLATION",
			fmt.Sprintf("a passport in %s mode cannot be delegated to an agent in %s mode", parent.mode(), child.AccountabilityMode),
			child.AccountabilityMode, "an agent that is at least "+string(parent.mode()))
	}
	ttl, err := parent.mission.passportTTL(params.TTL)
	if err != nil {
		return nil, err
	}
	if f := parent.mission.fleet; f != nil {
		if err = f.mayServe(child.ID); err != nil {
			return nil, err
		}
	}
	services, err := narrow("body.scopes", "the parent passport", parent.claims.STK.Services, params.Scopes)
	if err != nil {
		if refusal, ok := err.(*apiError); ok && refusal.code == "SCOPE_ESCALATION" { //nolint:errorlint // made just above
			err := violation(refusal.code, refusal.message, refusal.details["sent"], refusal.details["allowed"]).(*apiError) //nolint:errorlint // made just above
			err.details["field"] = refusal.details["field"]
			return nil, err
		}
		return nil, err
	}
	intent := childIntent(parent, services)
	if intent != nil && len(intent.Services) == 0 && len(services) > 0 && len(parent.intent.Services) > 0 {
		// An intent without services would open all that is granted.
		return nil, violation("SCOPE_ESCALATION", "none of the scopes is of a service that the parent's intent declares",
			services[0].ServiceName, parent.intent.Services)
	}
	p := &passport{mission: parent.mission, parent: parent, ttl: ttl, intent: intent}
	p.claims.STK = stack.PassportSTK{Services: services, SessionID: parent.claims.STK.SessionID, DelegationDepth: depth,
		ParentPassportID: parent.jti(), CheckpointInterval: parent.claims.STK.CheckpointInterval, Accountability: child.AccountabilityMode,
		IdentityClaims: parent.claims.STK.IdentityClaims, AuthorityRefs: op.delegatedRefs(parent, child.ID)}
	issued, err := s.admit(op, child, p, earlier(now.Add(p.ttl), parent.expiresAt), "passport.delegate")
	if err != nil {
		return nil, err
	}
	parent.children = append(parent.children, p)
	parent.delegatedTo = append(parent.delegatedTo, child.ID)
	return issued, nil
}

// childIntent hands the parent's intent on, as far as the child reaches.
func childIntent(parent *passport, services []stack.PassportService) *stack.Intent {
	if parent.intent == nil {
		return nil
	}
	intent := *parent.intent
	intent.Services = []string{}
	for _, s := range services {
		if parent.declares(s.ServiceName) {
			intent.Services = append(intent.Services, s.ServiceName)
		}
	}
	return &intent
}

func rank(mode stack.Accountability) int {
	return slices.Index([]stack.Accountability{stack.Standard, stack.Logged, stack.Enforced}, mode)
}

func stricter(a, b stack.Accountability) stack.Accountability {
	if rank(a) > rank(b) {
		return a
	}
	return b
}
