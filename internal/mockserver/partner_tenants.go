package mockserver

import (
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
	maxTenants          = 1000 // of one partner, revoked ones too
	maxExternalCustomer = 256
)

// tenant is a customer of a partner: what the partner knows of it, and the account itself. Partner and tenant each have their
// own lock. A tenant's may be held while its partner's is taken, to draw on the pool, and never the other way round: the
// routes below take the partner's, let go of it, and then take the tenant's.
type tenant struct {
	stack.Tenant
	account *operator
	key     keyHash
}

func partnerTenantRoutes() []route {
	const one = "/v1/partner/tenants/{tenant_id}"
	return []route{
		endpoint("POST", "/v1/partner/tenants", (*Server).createTenant, adminOnly, unlocked),
		endpoint("GET", "/v1/partner/tenants", (*Server).listTenants, unlocked),
		endpoint("GET", one, (*Server).getTenant, unlocked),
		endpoint("DELETE", one, (*Server).revokeTenant, adminOnly, unlocked),
		endpoint("POST", one+"/inbound-webhooks", (*Server).createTenantWebhook, adminOnly, unlocked),
		endpoint("PUT", one+"/inbound-webhooks/{webhook_id}/provider-signing-secret", (*Server).setTenantSigningSecret, adminOnly, unlocked),
		endpoint("POST", one+"/passports/issue", (*Server).issueTenantPassport, adminOnly, unlocked),
	}
}

// mustBePartner refuses an account that may have no tenants. (contract: semantics 21)
func (op *operator) mustBePartner() error {
	if op.partner == nil && op.policy.Tier == stack.TierEnterprise {
		return nil
	}
	return forbidden("the account is no partner", map[string]any{"check": "partner", "tier": op.tier(), "allowed": stack.TierEnterprise})
}

// tier is the plan under which an account is: a tenant has none.
func (op *operator) tier() stack.Tier {
	if op.partner != nil {
		return stack.TierPartner
	}
	return op.policy.Tier
}

// plan is the plan that pays for an account.
func (op *operator) plan() stack.Tier {
	if op.partner == nil {
		return op.policy.Tier
	}
	op.partner.mu.Lock()
	defer op.partner.mu.Unlock()
	return op.partner.policy.Tier
}

// mustBeBillable refuses a tenant whose partner does not pay any more.
func (op *operator) mustBeBillable() error {
	if op.partner == nil {
		return nil
	}
	op.partner.mu.Lock()
	defer op.partner.mu.Unlock()
	if op.partner.policy.PartnerInactive {
		return refuse(http.StatusForbidden, "BILLING_ACCOUNT_INACTIVE", "the tenant's partner is suspended or removed",
			map[string]any{"check": "billing_account", "allowed": "a tenant of an active partner"})
	}
	return nil
}

type createTenantIn struct {
	Body struct {
		ExternalCustomerID string          `json:"external_customer_id,omitempty"`
		Tier               json.RawMessage `json:"tier,omitempty"` // only to be refused
	} `body:""`
}

func (s *Server) createTenant(_ context.Context, c *caller, in createTenantIn) (*stack.CreatedTenant, error) {
	if len(in.Body.Tier) > 0 {
		return nil, refuse(http.StatusBadRequest, "TENANT_TIER_NOT_ALLOWED", "a tenant has no plan of its own",
			map[string]any{"check": "validation", "field": "body.tier", "allowed": "left out: tenants draw on the partner's plan"})
	}
	t, key, err := s.reserveTenant(c.op, in.Body.ExternalCustomerID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.operators[c.op.id] != c.op {
		return nil, unauthorized("INVALID_API_KEY", "the server was reset meanwhile", "a live API key")
	}
	s.operators[t.account.id] = t.account
	s.keys.add(key, keyOwner{op: t.account})
	return &stack.CreatedTenant{Tenant: t.Tenant, APIKey: stack.NewSecret(key)}, nil
}

// reserveTenant puts a tenant on the partner's record. Nobody can act as it yet.
func (s *Server) reserveTenant(op *operator, externalID string) (*tenant, string, error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	if err := op.mustBePartner(); err != nil {
		return nil, "", err
	}
	if err := firstError(atMost("body.external_customer_id", externalID, maxExternalCustomer)); err != nil {
		return nil, "", err
	}
	live := 0
	for t := range op.tenants.all() {
		if t.Status == stack.TenantRevoked {
			continue
		}
		live++
		if externalID != "" && t.ExternalCustomerID == externalID {
			return nil, "", refuse(http.StatusConflict, "TENANT_EXISTS", "a live tenant has this external_customer_id", map[string]any{
				"check": "unique", "field": "body.external_customer_id", "sent": clip(externalID), "operator_id": t.OperatorID,
				"allowed": "an id that no live tenant has"})
		}
	}
	if limit := or(op.policy.TenantLimit, maxTenants); live >= limit || op.tenants.len() >= maxTenants {
		return nil, "", refuse(http.StatusConflict, "TENANT_LIMIT_REACHED", fmt.Sprintf("the partner may have at most %d tenants", limit),
			map[string]any{"check": "tenant_limit", "used": live, "limit": limit, "allowed": fmt.Sprintf("at most %d", limit)})
	}
	id := newID("op_")
	t := &tenant{account: newOperator(s, id), Tenant: stack.Tenant{OperatorID: id, ExternalCustomerID: externalID,
		Tier: stack.TierPartner, Billing: stack.BillingPartner, Status: stack.TenantActive, CreatedAt: now}}
	t.account.partner, t.account.policy = op, Policy{Tier: stack.TierPartner}
	key := newAPIKey(id)
	t.key = hashKey(key)
	op.tenants.put(id, t)
	op.record(now, t.row("tenant.create"))
	return t, key, nil
}

func (t *tenant) row(action string) stack.AuditEntry {
	return stack.AuditEntry{Action: action, TraceID: t.OperatorID}
}

// tenantsOf lists an account's tenants as they are.
func (s *Server) tenantsOf(op *operator) []tenant {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.sweep(s.clock.now())
	list := make([]tenant, 0, op.tenants.len())
	for t := range op.tenants.all() {
		list = append(list, *t)
	}
	return list
}

// view is a tenant with its share of the pool. No lock may be held.
func (s *Server) tenantView(t tenant) stack.Tenant {
	t.account.mu.Lock()
	defer t.account.mu.Unlock()
	start, end := month(s.clock.now())
	t.Usage = &stack.TenantUsage{Period: period(start), Actions: t.account.meters.count(meterActions, start, end)}
	return t.Tenant
}

type tenantList struct {
	Tenants []stack.Tenant `json:"tenants"`
}

func (s *Server) listTenants(_ context.Context, c *caller, _ none) (*tenantList, error) {
	list := &tenantList{Tenants: []stack.Tenant{}}
	for _, t := range s.tenantsOf(c.op) {
		list.Tenants = append(list.Tenants, s.tenantView(t))
	}
	return list, nil
}

type tenantIn struct {
	TenantID string `path:"tenant_id"`
}

func (s *Server) getTenant(_ context.Context, c *caller, in tenantIn) (*stack.Tenant, error) {
	t, err := s.tenantByID(c.op, in.TenantID)
	if err != nil {
		return nil, err
	}
	v := s.tenantView(*t)
	return &v, nil
}

// tenantByID finds a tenant of the account. What it gives is a copy.
func (s *Server) tenantByID(op *operator, id string) (*tenant, error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.sweep(s.clock.now())
	if t, ok := op.tenants.get(id); ok {
		found := *t
		return &found, nil
	}
	return nil, notFound("tenant", id)
}

// asTenant runs fn with a live tenant's account locked and up to date. What it does is in the tenant's log, and that the partner
// did it is in the partner's own, under the action.
func (s *Server) asTenant(op *operator, id, action string, fn func(op *operator, now time.Time) error) error {
	t, err := s.tenantByID(op, id)
	if err != nil {
		return err
	}
	if t.Status == stack.TenantRevoked {
		return refuse(http.StatusConflict, "TENANT_REVOKED", "the tenant is revoked",
			map[string]any{"check": "tenant_status", "sent": t.OperatorID, "allowed": "a live tenant"})
	}
	if err = t.account.mustBeBillable(); err != nil {
		return err
	}
	if _, err = t.account.upToDate(func(account *operator, now time.Time) (bool, error) { return true, fn(account, now) }); err != nil {
		return err
	}
	op.recordAlone(t.row(action))
	return nil
}

// recordAlone writes one row of an account that is not locked.
func (op *operator) recordAlone(row stack.AuditEntry) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.record(op.server.clock.now(), row)
}

// revokeTenant ends a tenant: first its keys, so that nothing new comes up, then what it left. Each call does what is still to
// be done, so that it can be repeated. (contract: server-api 29)
func (s *Server) revokeTenant(_ context.Context, c *caller, in tenantIn) (*stack.TenantRevocation, error) {
	t, transitioned, err := s.closeTenant(c.op, in.TenantID)
	if err != nil {
		return nil, err
	}
	out := &stack.TenantRevocation{OperatorID: t.OperatorID, Transitioned: transitioned, RevokedAt: t.RevokedAt}
	_, err = t.account.upToDate(func(account *operator, now time.Time) (bool, error) {
		for m := range account.members.all() {
			s.keys.remove(m.key)
		}
		for a := range account.agents.all() {
			s.keys.removeAgent(a.ID)
		}
		out.WebhooksRevoked = account.revokeInboundWhere(now, func(*inboundWebhook) bool { return true })
		revoked, cascaded := account.revokeWhere(now, "Tenant revoked", func(*passport) bool { return true })
		out.PassportsRevoked = revoked + len(cascaded)
		account.suspendSkills(now)
		return true, nil
	})
	return out, err
}

func (s *Server) closeTenant(op *operator, id string) (_ *tenant, transitioned bool, err error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	t, ok := op.tenants.get(id)
	if !ok {
		return nil, false, notFound("tenant", id)
	}
	s.keys.remove(t.key)
	if t.Status == stack.TenantActive {
		t.Status, t.RevokedAt, transitioned = stack.TenantRevoked, now, true
		op.record(now, t.row("tenant.revoke"))
	}
	found := *t
	return &found, transitioned, nil
}

type createTenantWebhookIn struct {
	TenantID string                     `path:"tenant_id"`
	Body     stack.InboundWebhookParams `body:""`
}

func (s *Server) createTenantWebhook(
	ctx context.Context, c *caller, in createTenantWebhookIn,
) (out *stack.CreatedInboundWebhook, err error) {
	err = s.asTenant(c.op, in.TenantID, "tenant.create_webhook", func(op *operator, _ time.Time) (err error) {
		out, err = s.makeInboundWebhook(ctx, op, in.Body)
		return err
	})
	return out, err
}

type setTenantSigningSecretIn struct {
	TenantID  string                     `path:"tenant_id"`
	WebhookID string                     `path:"webhook_id"`
	Body      stack.ProviderSecretParams `body:""`
}

// setTenantSigningSecret answers with a status only. (contract: endpoints 2.22)
func (s *Server) setTenantSigningSecret(
	_ context.Context, c *caller, in setTenantSigningSecretIn,
) (*stack.SigningSecretStatus, error) {
	err := s.asTenant(c.op, in.TenantID, "tenant.set_signing_secret", func(op *operator, _ time.Time) error {
		w, err := op.inboundWebhookByID(in.WebhookID)
		if err != nil {
			return err
		}
		return s.configureInbound(op, w, in.Body)
	})
	if err != nil {
		return nil, err
	}
	return &stack.SigningSecretStatus{WebhookID: in.WebhookID, Status: "configured"}, nil
}

type issueTenantPassportIn struct {
	TenantID string                     `path:"tenant_id"`
	Body     stack.TenantPassportParams `body:""`
}

func (s *Server) issueTenantPassport(
	_ context.Context, c *caller, in issueTenantPassportIn,
) (out *stack.Passport, err error) {
	err = s.asTenant(c.op, in.TenantID, "tenant.issue_passport", func(op *operator, _ time.Time) (err error) {
		out, err = s.issueForTenant(op, in.Body)
		return err
	})
	return out, err
}

// issueForTenant issues a passport in a tenant's account. The Mission's summary and the services that the passport reaches
// stand for an intent, which the partner does not send.
func (s *Server) issueForTenant(op *operator, p stack.TenantPassportParams) (*stack.Passport, error) {
	a, m, err := op.bearerOf(p.AgentID, p.MissionIDs)
	if err != nil {
		return nil, err
	}
	if len(p.NamedIntents) > 0 {
		return nil, invalid("body.named_intents", "not empty", "an empty list: this server has no catalogue of named intents")
	}
	params := stack.PassportIssueParams{AgentID: a.ID, MissionIDs: p.MissionIDs, TTL: p.TTL, AccountabilityMode: p.AccountabilityMode}
	if params.Scopes, err = op.tenantScopes(a, p.Services); err != nil {
		return nil, err
	}
	reached, err := op.reach(a, m, params.Scopes)
	if err != nil {
		return nil, err
	}
	params.Intent = &stack.Intent{Summary: m.IntentSummary, Services: []string{}}
	for _, service := range reached {
		if !slices.Contains(params.Intent.Services, service.ServiceName) {
			params.Intent.Services = append(params.Intent.Services, service.ServiceName)
		}
	}
	return s.issueUnder(op, a, m, params, func(stack.Accountability, *stack.Intent) error { return nil })
}

// tenantScopes writes out the scopes that name no connection: they mean all of the agent's, each as far as it has them.
func (op *operator) tenantScopes(a *agent, scopes []stack.TenantScope) ([]stack.PassportScope, error) {
	if scopes == nil {
		return nil, nil
	}
	out := []stack.PassportScope{}
	for i, scope := range scopes {
		if scope.ServiceConnectionID != "" {
			out = append(out, stack.PassportScope(scope))
			continue
		}
		if len(scopes) > 1 {
			return nil, invalid(fmt.Sprintf("body.services[%d].service_connection_id", i), nil, "the id of a connection, unless there is one entry alone")
		}
		missing := slices.Clone(scope.Scopes)
		for _, g := range op.grantsOf(a.ID) {
			part := stack.PassportScope(scope)
			part.ServiceConnectionID, part.Scopes = g.ServiceConnectionID, nil
			for _, name := range scope.Scopes {
				if slices.Contains(g.Scopes, name) {
					part.Scopes = append(part.Scopes, name)
					missing = slices.DeleteFunc(missing, func(other string) bool { return other == name })
				}
			}
			if len(part.Scopes) > 0 {
				out = append(out, part)
			}
		}
		if len(missing) > 0 || len(scope.Scopes) == 0 {
			return nil, refuse(http.StatusBadRequest, "SCOPE_ESCALATION", "no grant of the agent has the scopes "+clip(strings.Join(missing, ", ")),
				map[string]any{"check": "scope", "field": "body.services[0].scopes", "sent": clip(strings.Join(missing, ", ")),
					"allowed": "at least one scope, all of them granted to the agent"})
		}
	}
	return out, nil
}
