package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

const (
	maxRequirements = 16 // of one service
	maxLawfulBasis  = 256
)

// serviceRequirement is what a service demands of the passports that use it. It holds for the service's key, and so for every
// connection of it.
type serviceRequirement struct {
	stack.ServiceRequirement
	provider string
}

func serviceRequirementRoutes() []route {
	return []route{
		endpoint("GET", "/v1/services/{service_id}/requirements", (*Server).getRequirements),
		endpoint("POST", "/v1/services/{service_id}/requirements", (*Server).setRequirement),
		endpoint("PUT", "/v1/services/{service_id}/requirements", (*Server).replaceRequirement),
		endpoint("DELETE", "/v1/services/{service_id}/requirements/{requirement_id}", (*Server).deleteRequirement),
	}
}

// requirable finds the service that an id means: one of the catalogue, or a connected custom one.
func (op *operator) requirable(id string) (serviceID, provider string, err error) {
	if e, ok := catalogued(id); ok {
		return e.ID, e.Provider, nil
	}
	for conn := range op.connections.all() {
		if conn.Provider == id {
			return id, id, nil
		}
	}
	return "", "", notFound("service", id)
}

// requirementsOf lists the requirements of a service's key, oldest first.
func (op *operator) requirementsOf(provider string) []*serviceRequirement {
	var list []*serviceRequirement
	for r := range op.requirements.all() {
		if r.provider == provider {
			list = append(list, r)
		}
	}
	return list
}

func (op *operator) requirementViews(provider string) []stack.ServiceRequirement {
	views := []stack.ServiceRequirement{}
	for _, r := range op.requirementsOf(provider) {
		views = append(views, r.ServiceRequirement)
	}
	return views
}

type requirementsIn struct {
	ServiceID string `path:"service_id"`
}

func (s *Server) getRequirements(_ context.Context, c *caller, in requirementsIn) (*[]stack.ServiceRequirement, error) {
	_, provider, err := c.op.requirable(in.ServiceID)
	if err != nil {
		return nil, err
	}
	views := c.op.requirementViews(provider)
	return &views, nil
}

type setRequirementIn struct {
	ServiceID string                         `path:"service_id"`
	Body      stack.ServiceRequirementParams `body:""`
}

func (s *Server) setRequirement(_ context.Context, c *caller, in setRequirementIn) (*stack.ServiceRequirement, error) {
	serviceID, provider, err := c.op.requirable(in.ServiceID)
	if err != nil {
		return nil, err
	}
	if err := checkRequirement("body", in.Body); err != nil {
		return nil, err
	}
	if len(c.op.requirementsOf(provider)) >= maxRequirements {
		return nil, refuse(http.StatusConflict, "TOO_MANY_REQUIREMENTS", "the service has as many requirements as it may",
			map[string]any{
				"check": "requirement_count", "sent": maxRequirements + 1, "allowed": maxRequirements})
	}
	r := c.op.addRequirement(serviceID, provider, in.Body)
	c.op.record(s.clock.now(), stack.AuditEntry{Action: "service.requirement_set", TraceID: r.ID})
	return &r.ServiceRequirement, nil
}

func (op *operator) addRequirement(serviceID, provider string, p stack.ServiceRequirementParams) *serviceRequirement {
	r := &serviceRequirement{provider: provider, ServiceRequirement: stack.ServiceRequirement{ID: newID("srq_"),
		OperatorID: op.id,
		ServiceID:  serviceID, Layer: p.Layer, RequiresClaim: p.RequiresClaim, MinimumAssurance: p.MinimumAssurance,
		AcceptedProviders: p.AcceptedProviders, RequiredScopes: p.RequiredScopes, RequiresPII: p.RequiresPII}}
	if p.LawfulBasis != "" {
		r.LawfulBasis = &p.LawfulBasis
	}
	op.requirements.put(r.ID, r)
	return r
}

// checkRequirement holds the rules for a requirement, so that none is taken that nobody could meet.
func checkRequirement(at string, p stack.ServiceRequirementParams) error {
	if err := firstError(
		chosen(at+".layer", p.Layer, stack.LayerHumanity, stack.LayerIdentity, stack.LayerDelegation),
		chosen(at+".minimum_assurance", p.MinimumAssurance, assurances...),
		listAtMost(at+".accepted_providers", p.AcceptedProviders, len(identityProviders), maxServiceName),
		distinct(at+".accepted_providers", p.AcceptedProviders),
		listAtMost(at+".required_scopes", p.RequiredScopes, maxDelegatedScopes, maxScope),
		distinct(at+".required_scopes", p.RequiredScopes),
		atMost(at+".lawful_basis", p.LawfulBasis, maxLawfulBasis),
	); err != nil {
		return err
	}
	if want := claimTypes[p.Layer]; p.RequiresClaim != want {
		return invalid(at+".requires_claim", p.RequiresClaim, want+", the claim of layer "+string(p.Layer))
	}
	var keys []string
	for _, provider := range identityProviders {
		keys = append(keys, provider.Key)
	}
	for i, key := range p.AcceptedProviders {
		if err := firstError(chosen(fmt.Sprintf("%s.accepted_providers[%d]", at, i), key, keys...)); err != nil {
			return err
		}
	}
	if len(p.RequiredScopes) > 0 && p.Layer != stack.LayerDelegation {
		return invalid(at+".required_scopes", "given", "left out: only layer delegation has scopes")
	}
	if p.Layer != stack.LayerIdentity {
		if p.RequiresPII {
			return invalid(at+".requires_pii", true, "false: only layer identity has personal data")
		}
		return nil
	}
	if !p.RequiresPII {
		return invalid(at+".requires_pii", false, "true for layer identity")
	}
	return firstError(filled(at+".lawful_basis", p.LawfulBasis))
}

type replaceRequirementIn struct {
	ServiceID string `path:"service_id"`
	Body      struct {
		Requirement json.RawMessage `json:"requirement"` // null takes all away
	} `body:""`
}

func (s *Server) replaceRequirement(_ context.Context, c *caller, in replaceRequirementIn) (*stack.ServiceRequirements,
	error) {
	serviceID, provider, err := c.op.requirable(in.ServiceID)
	if err != nil {
		return nil, err
	}
	var p stack.ServiceRequirementParams
	none := bytes.Equal(in.Body.Requirement, []byte("null"))
	if !none {
		if err := decodeStrictAs("body.requirement", in.Body.Requirement, &p); err != nil {
			return nil, err
		}
		if err := checkRequirement("body.requirement", p); err != nil {
			return nil, err
		}
	}
	for _, r := range c.op.requirementsOf(provider) {
		c.op.requirements.delete(r.ID)
	}
	row := stack.AuditEntry{Action: "service.requirement_replace"}
	if !none {
		row.TraceID = c.op.addRequirement(serviceID, provider, p).ID
	}
	c.op.record(s.clock.now(), row)
	return &stack.ServiceRequirements{Requirements: c.op.requirementViews(provider)}, nil
}

type deleteRequirementIn struct {
	ServiceID     string `path:"service_id"`
	RequirementID string `path:"requirement_id"`
}

func (s *Server) deleteRequirement(_ context.Context, c *caller, in deleteRequirementIn) (*stack.ServiceRequirements,
	error) {
	_, provider, err := c.op.requirable(in.ServiceID)
	if err != nil {
		return nil, err
	}
	r, ok := c.op.requirements.get(in.RequirementID)
	if !ok || r.provider != provider {
		return nil, notFound("requirement", in.RequirementID)
	}
	c.op.requirements.delete(r.ID)
	c.op.record(s.clock.now(), stack.AuditEntry{Action: "service.requirement_delete", TraceID: r.ID})
	return &stack.ServiceRequirements{Requirements: c.op.requirementViews(provider)}, nil
}

var assurances = []stack.Assurance{stack.AssuranceLow, stack.AssuranceSubstantial, stack.AssuranceHigh}

// metBy reports whether a claim satisfies the requirement.
func (r *serviceRequirement) metBy(c *identityClaim) bool {
	if c.Layer != r.Layer || c.ClaimType != r.RequiresClaim ||
		slices.Index(assurances, c.AssuranceLevel) < slices.Index(assurances, r.MinimumAssurance) ||
		len(r.AcceptedProviders) > 0 && !slices.Contains(r.AcceptedProviders, c.ProviderKey) {
		return false
	}
	for _, scope := range r.RequiredScopes {
		if !slices.Contains(c.DelegatedScopes, scope) {
			return false
		}
	}
	return true
}

// words says what would satisfy the requirement.
func (r *serviceRequirement) words() string {
	text := fmt.Sprintf("an active %s claim of at least %s assurance", r.RequiresClaim, r.MinimumAssurance)
	if len(r.AcceptedProviders) > 0 {
		text += " from " + strings.Join(r.AcceptedProviders, " or ")
	}
	if len(r.RequiredScopes) > 0 {
		text += " for " + strings.Join(r.RequiredScopes, " and ")
	}
	return text
}

// mustMeet refuses a passport that does not carry what a service demands. Each demand is met by one claim, which must still
// be valid: the record decides, and not what the token was signed with.
func (op *operator) mustMeet(now time.Time, p *passport, provider string) error {
	carried := op.claimsOf(p)
	unmet, wanted := []map[string]any{}, []string{}
	for _, r := range op.requirementsOf(provider) {
		if slices.ContainsFunc(carried, func(c *identityClaim) bool { return c.active(now) && r.metBy(c) }) {
			continue
		}
		unmet = append(unmet, map[string]any{"requirement_id": r.ID, "layer": r.Layer, "requires_claim": r.RequiresClaim,
			"minimum_assurance": r.MinimumAssurance, "accepted_providers": r.AcceptedProviders, "required_scopes": r.RequiredScopes})
		wanted = append(wanted, r.words())
	}
	if len(unmet) == 0 {
		return nil
	}
	sent := []string{}
	for _, c := range carried {
		sent = append(sent, c.words(now))
	}
	return refuse(http.StatusForbidden, "IDENTITY_REQUIREMENTS_NOT_MET",
		fmt.Sprintf("service %s demands %s, which the passport does not carry", provider,
			strings.Join(wanted, ", and ")), map[string]any{
			"check": "identity_requirements", "service": provider, "unmet": unmet, "sent": sent, "allowed": wanted})
}

// checkIdentity holds the service's requirements against the call's passport.
func (s *Server) checkIdentity(call *proxyCall) error {
	return call.op.mustMeet(call.now, call.passport, call.service.ServiceName)
}
