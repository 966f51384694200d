package mockserver

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/constraint"
)

const (
	maxFleetName       = 128
	maxFleetMembers    = 1000 // of one fleet at a time
	defaultMembers     = 100
	maxOperations      = 64 // of one policy
	maxOperationPath   = 256
	maxFleetMissions   = 100_000
	maxFleetLimit      = 1 << 31
	maxFleetLimitBytes = 1 << 40
)

// checkDefinition holds the rules for a policy that the caller makes, and fills in its defaults.
func (c *caller) checkDefinition(d *stack.FleetDefinition) error {
	if err := firstError(
		filled("body.name", d.Name), atMost("body.name", d.Name, maxFleetName),
		atMost("body.description", d.Description, 500),
		within("body.members.max", d.Members.Max, 0, maxFleetMembers),
		oneOf("body.members.accountability_mode", d.Members.AccountabilityMode, stack.Enforced, stack.Logged, stack.Standard),
		within("body.max_live_missions", d.MaxLiveMissions, 0, maxFleetMissions),
		lasting("body.max_mission_ttl_seconds", d.MaxMissionTTL, 1, stack.MaxMissionLifetime),
		lasting("body.max_passport_ttl_seconds", d.MaxPassportTTL, stack.MinPassportTTL, stack.MaxPassportTTL),
	); err != nil {
		return err
	}
	for i, kind := range d.Members.Kinds {
		field := fmt.Sprintf("body.members.kinds[%d]", i)
		if err := firstError(chosen(field, kind, stack.FleetAgent, stack.FleetWorkload)); err != nil {
			return err
		}
		if slices.Contains(d.Members.Kinds[:i], kind) {
			return invalid(field, string(kind), "named once")
		}
	}
	services, err := c.checkAccess(d.Access)
	if err != nil {
		return err
	}
	if err := checkOperations(d.Operations, services); err != nil {
		return err
	}
	if err := checkLimits("body.limits", d.Limits, services); err != nil {
		return err
	}
	d.Members.Max = or(d.Members.Max, defaultMembers)
	d.Members.AccountabilityMode = or(d.Members.AccountabilityMode, stack.Enforced)
	if len(d.Members.Kinds) == 0 {
		d.Members.Kinds = []stack.FleetMemberKind{stack.FleetAgent, stack.FleetWorkload}
	}
	d.MaxMissionTTL = or(d.MaxMissionTTL, stack.MaxMissionLifetime)
	d.MaxPassportTTL = or(d.MaxPassportTTL, stack.MaxPassportTTL)
	return nil
}

// checkAccess holds the rules for what a policy gives, and returns the services of it.
func (c *caller) checkAccess(access []stack.PassportScope) (services []string, err error) {
	if len(access) > maxServices {
		return nil, invalid("body.access", fmt.Sprintf("a list of %d", len(access)), fmt.Sprintf("a list of at most %d", maxServices))
	}
	seen := map[string]bool{}
	for i, a := range access {
		at := fmt.Sprintf("body.access[%d]", i)
		conn, err := c.connection(a.ServiceConnectionID)
		if err != nil {
			return nil, err
		}
		if seen[conn.ID] {
			return nil, invalid(at+".service_connection_id", conn.ID, "named once")
		}
		seen[conn.ID] = true
		if err := firstError(checkScopes(at+".scopes", a.Scopes),
			listAtMost(at+".allow_data_from", a.AllowDataFrom, maxServices, maxServiceName),
			distinct(at+".allow_data_from", a.AllowDataFrom)); err != nil {
			return nil, err
		}
		if slices.Contains(a.AllowDataFrom, "*") {
			return nil, invalid(at+".allow_data_from", "*", "exact service names, or left out for all")
		}
		for j, scope := range a.Scopes {
			if !slices.Contains(conn.Scopes, scope) {
				field := fmt.Sprintf("%s.scopes[%d]", at, j)
				return nil, refuse(http.StatusBadRequest, "SCOPE_ESCALATION", fmt.Sprintf("%s is %q; the connection has %s", field,
					clip(scope), strings.Join(conn.Scopes, ", ")),
					map[string]any{"check": "scope", "field": field, "sent": clip(scope), "allowed": conn.Scopes})
			}
		}
		if err := constraint.Validate(a.Constraints); err != nil {
			return nil, invalid(at+".constraints", err.Error(), "a list of valid constraints")
		}
		services = append(services, conn.Provider)
	}
	return services, nil
}

var operationName = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$`)

func checkOperations(operations []stack.FleetOperation, services []string) error {
	if len(operations) > maxOperations {
		return invalid("body.operations", fmt.Sprintf("a list of %d", len(operations)), fmt.Sprintf("a list of at most %d", maxOperations))
	}
	seen := map[string]bool{}
	for i := range operations {
		o, at := &operations[i], fmt.Sprintf("body.operations[%d]", i)
		switch {
		case !operationName.MatchString(o.Name):
			return invalid(at+".name", o.Name, "1 to 64 lower-case letters, digits and inner hyphens and underscores")
		case seen[o.Name]:
			return invalid(at+".name", o.Name, "named once")
		case o.Path != "" && (!strings.HasPrefix(o.Path, "/") || strings.Contains(strings.TrimSuffix(o.Path, "*"), "*")):
			return invalid(at+".path", o.Path, "a path that begins with a slash, with a * at most at its end")
		}
		seen[o.Name] = true
		if err := firstError(chosen(at+".service", o.Service, services...), distinct(at+".methods", o.Methods),
			atMost(at+".path", o.Path, maxOperationPath), within(at+".max_calls", o.MaxCalls, 0, maxFleetLimit)); err != nil {
			return err
		}
		for j, method := range o.Methods {
			if err := firstError(chosen(fmt.Sprintf("%s.methods[%d]", at, j), method, proxyMethods...)); err != nil {
				return err
			}
		}
		if err := constraint.Validate(operationRules(o)); err != nil {
			return invalid(at+".constraints", err.Error(), "a list of valid constraints")
		}
	}
	return nil
}

// operationRules are all that a call must satisfy to be of an operation.
func operationRules(o *stack.FleetOperation) []stack.Constraint {
	rules := slices.Clone(o.Constraints) // first, so that an error counts them as they were sent
	if o.Methods != nil {
		rules = append(rules, stack.Constraint{Path: "method", Op: stack.OpIn, Value: anyList(o.Methods)})
	}
	if prefix, open := strings.CutSuffix(o.Path, "*"); open {
		rules = append(rules, stack.Constraint{Path: "url.pathname", Op: stack.OpStartsWith, Value: prefix})
	} else if o.Path != "" {
		rules = append(rules, stack.Constraint{Path: "url.pathname", Op: stack.OpEq, Value: o.Path})
	}
	return rules
}

func anyList(texts []string) []any {
	list := make([]any, len(texts))
	for i, text := range texts {
		list[i] = text
	}
	return list
}

// checkLimits holds the rules for limits, of a policy or of a Mission of it.
func checkLimits(at string, l stack.FleetLimits, services []string) error {
	if err := firstError(within(at+".max_actions", l.MaxActions, 0, maxFleetLimit),
		within(at+".max_dropoff_bytes", l.MaxDropoffBytes, 0, maxFleetLimitBytes)); err != nil {
		return err
	}
	for _, service := range sortedKeys(l.MaxActionsPerService) {
		field := at + ".max_actions_per_service"
		if err := firstError(chosen(field, service, services...),
			within(field+"."+service, l.MaxActionsPerService[service], 0, maxFleetLimit)); err != nil {
			return err
		}
	}
	return nil
}

// loosens reports whether a definition gives anywhere more than the one before it. Both have their defaults filled in. In doubt
// it does: then a human looks at it. (contract: server-api 2.5)
func loosens(before, after *stack.FleetDefinition) bool {
	moreKinds := slices.ContainsFunc(after.Members.Kinds, func(k stack.FleetMemberKind) bool {
		return !slices.Contains(before.Members.Kinds, k)
	})
	return moreKinds || after.Members.Max > before.Members.Max ||
		rank(after.Members.AccountabilityMode) < rank(before.Members.AccountabilityMode) ||
		more(before.MaxLiveMissions, after.MaxLiveMissions) ||
		after.MaxMissionTTL > before.MaxMissionTTL || after.MaxPassportTTL > before.MaxPassportTTL ||
		moreAccess(before.Access, after.Access) || moreOperations(before.Operations, after.Operations) ||
		moreLimits(before.Limits, after.Limits)
}

// more compares limits of which zero is none.
func more(before, after int) bool { return before != 0 && (after == 0 || after > before) }

func moreLimits(before, after stack.FleetLimits) bool {
	for service, limit := range before.MaxActionsPerService {
		if n, ok := after.MaxActionsPerService[service]; !ok || n > limit {
			return true
		}
	}
	return more(before.MaxActions, after.MaxActions) || more(before.MaxDropoffBytes, after.MaxDropoffBytes)
}

func moreAccess(before, after []stack.PassportScope) bool {
	for _, a := range after {
		i := slices.IndexFunc(before, func(b stack.PassportScope) bool { return b.ServiceConnectionID == a.ServiceConnectionID })
		if i < 0 || beyond(before[i].Scopes, a.Scopes) || fewer(before[i].Constraints, a.Constraints) {
			return true
		}
		if from := before[i].AllowDataFrom; from != nil && (a.AllowDataFrom == nil || beyond(from, a.AllowDataFrom)) {
			return true
		}
	}
	return false
}

func moreOperations(before, after []stack.FleetOperation) bool {
	if before == nil {
		return false
	}
	for _, a := range after {
		i := slices.IndexFunc(before, func(b stack.FleetOperation) bool { return b.Name == a.Name })
		if i < 0 {
			return true
		}
		b := before[i]
		wider := b.Methods != nil && (a.Methods == nil || beyond(b.Methods, a.Methods)) || b.Path != "" && a.Path != b.Path
		if wider || a.Service != b.Service || more(b.MaxCalls, a.MaxCalls) || fewer(b.Constraints, a.Constraints) {
			return true
		}
	}
	return after == nil
}

// beyond reports whether a list names something that the list before did not.
func beyond(before, after []string) bool {
	return slices.ContainsFunc(after, func(name string) bool { return !slices.Contains(before, name) })
}

// fewer reports whether a constraint of the list before is not there any more.
func fewer(before, after []stack.Constraint) bool {
	return slices.ContainsFunc(before, func(c stack.Constraint) bool { return !holds(after, c) })
}

func holds(list []stack.Constraint, c stack.Constraint) bool {
	return slices.ContainsFunc(list, func(have stack.Constraint) bool { return reflect.DeepEqual(have, c) })
}
