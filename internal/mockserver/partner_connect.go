package mockserver

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

const (
	grantTokenPrefix = "sk_grant_"

	maxPartnerGrants    = 1000 // of one partner, ended ones too
	maxConnectProviders = 64
)

// partnerGrant is what a partner may do in an account that is not its own. It belongs to the account, whose lock guards it; the
// partner keeps a reference. As with tenants, a partner's lock is let go of before an account's is taken.
type partnerGrant struct {
	stack.PartnerConnection
	account *operator
	token   keyHash // on the keyring while the grant is active
	consent string  // lets the account's owner decide; empty once they have
}

// partnerGrantRef is a grant as its partner finds it again.
type partnerGrantRef struct {
	id, email string
	account   *operator
}

func partnerConnectRoutes() []route {
	const one = "/v1/partner/connections/{grant_id}"
	return []route{
		endpoint("POST", "/v1/partner/connect", (*Server).partnerConnect, adminOnly, unlocked),
		endpoint("GET", "/v1/partner/connections", (*Server).listPartnerConnections, unlocked),
		endpoint("GET", one, (*Server).getPartnerConnection, unlocked),
		endpoint("DELETE", one, (*Server).revokePartnerConnection, adminOnly, unlocked),
		endpoint("POST", one+"/rotate-token", (*Server).rotateGrantToken, adminOnly, unlocked),
		endpoint("GET", consentPath+"{token}", (*Server).showConsent, webPage),
		endpoint("POST", consentPath+"{token}/approve", (*Server).consentOnPage, webPage),
		endpoint("POST", consentPath+"{token}/deny", (*Server).denyOnPage, webPage),
	}
}

func (g *partnerGrant) row(action string) stack.AuditEntry {
	return stack.AuditEntry{Action: action, TraceID: g.GrantID}
}

// view is the grant as the partner sees it: whose account it is shows once the owner has agreed.
func (g *partnerGrant) view() stack.PartnerConnection {
	v := g.PartnerConnection
	if v.ApprovedAt.IsZero() {
		v.OperatorID = ""
	}
	return v
}

type partnerConnectIn struct {
	Body stack.ConnectParams `body:""`
}

func (s *Server) partnerConnect(ctx context.Context, c *caller, in partnerConnectIn) (*stack.Connected, error) {
	p := in.Body
	if err := checkConnect(p); err != nil {
		return nil, err
	}
	email := strings.ToLower(p.Email)
	s.connecting.Lock() // of two calls for one address, the second finds the grant of the first
	defer s.connecting.Unlock()
	ref, full, err := s.openGrant(c.op, email)
	if err != nil {
		return nil, err
	}
	if ref.account != nil { // there is a grant, perhaps one that has ended
		var again *stack.Connected
		err = ref.at(func(g *partnerGrant, _ time.Time) error {
			if g.Status == stack.ConnectActive || g.Status == stack.ConnectPending {
				again = &stack.Connected{PartnerConnection: g.view()}
			}
			return nil
		})
		if again != nil || err != nil {
			return again, err
		}
	}
	if full != nil {
		return nil, full
	}
	account, created := s.accountOf(email)
	g := &partnerGrant{account: account, PartnerConnection: stack.PartnerConnection{GrantID: newID("pgr_"), Email: email,
		ExternalCustomerID: p.ExternalCustomerID, OperatorID: account.id, Scopes: p.Scopes, Providers: p.Providers,
		Status: stack.ConnectPending, CreatedAt: s.clock.now()}}
	if g.Scopes == nil {
		g.Scopes = slices.Clone(connectScopes)
	}
	out, err := s.makeGrant(ctx, g, created)
	if err != nil {
		return nil, err
	}
	c.op.mu.Lock()
	defer c.op.mu.Unlock()
	c.op.connects.put(g.GrantID, &partnerGrantRef{g.GrantID, email, account})
	c.op.record(s.clock.now(), g.row("partner.connect"))
	return out, nil
}

func checkConnect(p stack.ConnectParams) error {
	if err := checkEmail("body.email", p.Email); err != nil {
		return err
	}
	if err := firstError(
		atMost("body.external_customer_id", p.ExternalCustomerID, maxExternalCustomer),
		listAtMost("body.providers", p.Providers, maxConnectProviders, maxServiceName),
		distinct("body.providers", p.Providers),
	); err != nil {
		return err
	}
	for i, scope := range p.Scopes {
		if err := chosen(fmt.Sprintf("body.scopes[%d]", i), scope, connectScopes...); err != nil {
			return err
		}
		if slices.Contains(p.Scopes[:i], scope) {
			return invalid(fmt.Sprintf("body.scopes[%d]", i), string(scope), "named once")
		}
	}
	for i, provider := range p.Providers {
		if e, ok := catalogued(provider); !ok || e.Provider != provider {
			return invalid(fmt.Sprintf("body.providers[%d]", i), provider, "the provider key of a service of the catalogue, such as slack")
		}
	}
	return nil
}

// openGrant checks that an account may connect to others, and finds the newest grant that it has on an address, if any. Full
// refuses one more.
func (s *Server) openGrant(op *operator, email string) (ref partnerGrantRef, full, err error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.sweep(s.clock.now())
	if err = op.mustBePartner(); err != nil {
		return ref, nil, err
	}
	if op.connects.len() >= maxPartnerGrants {
		full = refuse(http.StatusConflict, "CONNECTION_LIMIT_REACHED", fmt.Sprintf("a partner has at most %d grants", maxPartnerGrants),
			map[string]any{"check": "grant_limit", "used": op.connects.len(), "allowed": fmt.Sprintf("at most %d", maxPartnerGrants)})
	}
	for r := range op.connects.newest() {
		if r.email == email {
			return *r, full, nil
		}
	}
	return ref, full, nil
}

// accountOf finds the account of an address, or makes one, on the free plan. It belongs to whoever has the address.
func (s *Server) accountOf(email string) (account *operator, created bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.accounts[email]; ok {
		return s.operators[id], false
	}
	account = newOperator(s, newID("op_"))
	account.email, account.policy = email, Policy{Tier: stack.TierFree}
	s.operators[account.id], s.accounts[email] = account, account.id
	return account, true
}

// makeGrant puts a grant on the record of its account: active where the account was made for it, else for its owner to decide.
func (s *Server) makeGrant(ctx context.Context, g *partnerGrant, created bool) (*stack.Connected, error) {
	account := g.account
	account.mu.Lock()
	defer account.mu.Unlock()
	now := s.clock.now()
	account.sweep(now)
	if account.partnerGrants.len() >= maxPartnerGrants {
		return nil, refuse(http.StatusConflict, "CONNECTION_LIMIT_REACHED", fmt.Sprintf("an account has at most %d grants", maxPartnerGrants),
			map[string]any{"check": "grant_limit", "allowed": fmt.Sprintf("at most %d", maxPartnerGrants)})
	}
	token := newGrantToken()
	g.token = hashKey(token)
	account.partnerGrants.put(g.GrantID, g)
	account.record(now, g.row("partner.grant_request"))
	out := &stack.Connected{GrantToken: stack.NewSecret(token)}
	if created {
		s.activateGrant(g, now)
	} else {
		g.consent = newID("")
		out.ConsentURL = stack.NewSecret(baseURL(ctx) + consentPath + g.consent)
	}
	out.PartnerConnection = g.view()
	return out, nil
}

func newGrantToken() string { return grantTokenPrefix + strings.ToLower(rand.Text()+rand.Text()[:8]) }

func (s *Server) activateGrant(g *partnerGrant, now time.Time) {
	g.Status, g.ApprovedAt, g.consent = stack.ConnectActive, now, ""
	s.keys.addHash(g.token, keyOwner{op: g.account, grantID: g.GrantID})
	g.account.record(now, g.row("partner.grant_activate"))
}

// at runs fn with a grant, its account locked and up to date.
func (r partnerGrantRef) at(fn func(g *partnerGrant, now time.Time) error) error {
	_, err := r.account.upToDate(func(account *operator, now time.Time) (bool, error) {
		g, ok := account.partnerGrants.get(r.id)
		if !ok {
			return false, notFound("grant", r.id)
		}
		return true, fn(g, now)
	})
	return err
}

// grantRefs copies a partner's references.
func (s *Server) grantRefs(op *operator) (refs []partnerGrantRef) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.sweep(s.clock.now())
	for r := range op.connects.all() {
		refs = append(refs, *r)
	}
	return refs
}

// atGrant runs fn with one of a partner's grants, its account locked and up to date.
func (s *Server) atGrant(op *operator, id string, fn func(g *partnerGrant, now time.Time) error) error {
	for _, r := range s.grantRefs(op) {
		if r.id == id {
			return r.at(fn)
		}
	}
	return notFound("grant", id)
}

type partnerConnectionList struct {
	Connections []stack.PartnerConnection `json:"connections"`
}

func (s *Server) listPartnerConnections(_ context.Context, c *caller, _ none) (*partnerConnectionList, error) {
	list := &partnerConnectionList{Connections: []stack.PartnerConnection{}}
	for _, r := range s.grantRefs(c.op) {
		if err := r.at(func(g *partnerGrant, _ time.Time) error {
			list.Connections = append(list.Connections, g.view())
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

type partnerGrantIn struct {
	GrantID string `path:"grant_id"`
}

func (s *Server) getPartnerConnection(
	_ context.Context, c *caller, in partnerGrantIn,
) (out *stack.PartnerConnection, err error) {
	err = s.atGrant(c.op, in.GrantID, func(g *partnerGrant, _ time.Time) error {
		v := g.view()
		out = &v
		return nil
	})
	return out, err
}

func (s *Server) revokePartnerConnection(
	_ context.Context, c *caller, in partnerGrantIn,
) (out *stack.PartnerConnectionEnd, err error) {
	err = s.atGrant(c.op, in.GrantID, func(g *partnerGrant, now time.Time) error {
		out = s.revokeGrant(g, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.op.recordAlone(stack.AuditEntry{Action: "partner.revoke", TraceID: in.GrantID})
	return out, nil
}

// revokeGrant ends a grant with all that was made under it but the agents, which are the account's. Each call does what is
// still to be done. (contract: server-api 29)
func (s *Server) revokeGrant(g *partnerGrant, now time.Time) *stack.PartnerConnectionEnd {
	op := g.account
	s.keys.remove(g.token)
	out := &stack.PartnerConnectionEnd{GrantID: g.GrantID, Status: stack.ConnectRevoked, Transitioned: g.Status != stack.ConnectRevoked}
	if out.Transitioned {
		g.Status, g.RevokedAt, g.consent = stack.ConnectRevoked, now, ""
		op.record(now, g.row("partner.grant_revoke"))
	}
	out.RevokedAt = g.RevokedAt
	mine := func(id string) bool { return op.madeBy[id] == g.GrantID }
	revoked, cascaded := op.revokeWhere(now, "Partner grant revoked", func(p *passport) bool { return mine(p.agentID()) })
	out.PassportsRevoked = revoked + len(cascaded)
	out.WebhooksRevoked = op.revokeInboundWhere(now, func(w *inboundWebhook) bool { return mine(w.ID) })
	for _, conn := range slices.Collect(maps.Values(op.connections.byID)) {
		if mine(conn.ID) {
			out.PassportsRevoked += op.disconnect(now, conn).PassportsRevoked
			out.ConnectionsRevoked++
		}
	}
	return out
}

type rotateGrantTokenIn struct {
	GrantID string   `path:"grant_id"`
	Body    struct{} `body:""`
}

func (s *Server) rotateGrantToken(
	_ context.Context, c *caller, in rotateGrantTokenIn,
) (out *stack.RotatedToken, err error) {
	err = s.atGrant(c.op, in.GrantID, func(g *partnerGrant, now time.Time) error {
		if g.Status != stack.ConnectActive && g.Status != stack.ConnectPending {
			return refuse(http.StatusConflict, "GRANT_ENDED", "the grant is "+string(g.Status),
				map[string]any{"check": "grant_status", "sent": g.GrantID, "allowed": "a grant that is active or pending"})
		}
		token := newGrantToken()
		s.keys.remove(g.token)
		g.token = hashKey(token)
		if g.Status == stack.ConnectActive {
			s.keys.addHash(g.token, keyOwner{op: g.account, grantID: g.GrantID})
		}
		g.account.record(now, g.row("partner.grant_rotate"))
		out = &stack.RotatedToken{GrantID: g.GrantID, GrantToken: stack.NewSecret(token), RotatedAt: now}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.op.recordAlone(stack.AuditEntry{Action: "partner.rotate", TraceID: in.GrantID})
	return out, nil
}
