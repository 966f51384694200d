package mockserver

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/constraint"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

// connection is an operator's account with a service, its credential sealed.
type connection struct {
	stack.Connection
	sealed    vault.Sealed
	tokenEnds time.Time // when the token that a provider has given does; zero for a credential that lasts
	consent   *consent  // that somebody is asked for
	renewal   *renewal  // that is under way
}

// grant lets an agent use a connection.
type grant struct {
	stack.Grant
}

func serviceRoutes() []route {
	return []route{
		endpoint("GET", "/v1/services", (*Server).listCatalog),
		endpoint("GET", "/v1/services/connected", (*Server).listConnections),
		endpoint("GET", "/v1/services/templates", (*Server).listTemplates),
		endpoint("POST", "/v1/services/connect", (*Server).connectService),
		endpoint("GET", callbackPath, (*Server).connectCallback, webPage, sendsOn),
		endpoint("POST", "/v1/services/custom", (*Server).connectCustom),
		endpoint("POST", "/v1/services/{connection_id}/verify", (*Server).verifyConnection, waits),
		endpoint("DELETE", "/v1/services/{connection_id}/disconnect", (*Server).disconnectService),
		endpoint("POST", "/v1/services/grant", (*Server).grantAccess),
		endpoint("DELETE", "/v1/services/agents/{agent_id}/revoke", (*Server).revokeAccess),
		endpoint("GET", "/v1/agents/{agent_id}/permissions", (*Server).agentPermissions),
	}
}

const (
	maxScopes = 64
	maxScope  = 256
	maxHosts  = 32
	maxHost   = 259 // with a port
)

// checkScopes holds the rules for a list of scopes. The names are not held against the catalogue, which cannot know all of
// them.
func checkScopes(field string, scopes []string) *apiError {
	if len(scopes) == 0 {
		return invalid(field, "empty", "at least one scope")
	}
	return cmp.Or(listAtMost(field, scopes, maxScopes, maxScope), distinct(field, scopes))
}

// distinct refuses a list that names something twice.
func distinct(field string, values []string) *apiError {
	for i, v := range values {
		if slices.Contains(values[:i], v) {
			return invalid(fmt.Sprintf("%s[%d]", field, i), v, "named once")
		}
	}
	return nil
}

type connectServiceIn struct {
	Body stack.ServiceConnectParams `body:""`
}

// connectService takes a token that the caller has or, without one, has a person asked for their consent.
func (s *Server) connectService(ctx context.Context, c *caller, in connectServiceIn) (*stack.Connection, error) {
	p := in.Body
	e, ok := catalogued(p.ServiceID)
	if !ok {
		return nil, notFound("service", p.ServiceID)
	}
	if err := firstError(checkScopes("body.scopes", p.Scopes), checkReturnURL("body.redirect_uri", p.RedirectURI)); err != nil {
		return nil, err
	}
	conn, err := c.connectionOf(e, &p)
	if err != nil {
		return nil, err
	}
	hosts, err := e.checkFields(p.Fields)
	if err != nil {
		return nil, err
	}
	as := account{scopes: p.Scopes, fields: p.Fields, hosts: hosts}
	if p.OAuthToken.IsZero() {
		return s.askConsent(ctx, c, e, conn, as, p.RedirectURI)
	}
	if p.RedirectURI != "" {
		return nil, invalid("body.redirect_uri", "given with a token", "left out: there is nobody to send on")
	}
	token := p.OAuthToken.Reveal()
	secret := secretContent{Token: token}
	if e.Injection.Kind == stack.InjectBasic {
		user := cmp.Or(p.Fields[fieldUsername], p.Fields[fieldAccount])
		secret = secretContent{Fields: map[string]string{fieldUsername: user, fieldPassword: token}}
	}
	if err := firstError(checkToken("body.oauth_token", token)); err != nil {
		return nil, err
	}
	return s.connect(c, conn, secret, as)
}

// connectionOf begins a connection with a service, or finds the one that is to be connected anew. That keeps all that agents
// were granted, and the fields unless others are given.
func (c *caller) connectionOf(e *catalogEntry, p *stack.ServiceConnectParams) (*connection, error) {
	if p.ConnectionID == "" {
		return &connection{Connection: stack.Connection{ServiceID: e.ID, Provider: e.Provider, Name: e.Name, Description: e.Description}}, nil
	}
	conn, err := c.connection(p.ConnectionID)
	if err != nil {
		return nil, err
	}
	if conn.Provider != e.Provider {
		return nil, invalid("body.connection_id", "a connection of "+conn.Provider, "one of "+e.Provider)
	}
	for _, scope := range conn.Scopes {
		if !slices.Contains(p.Scopes, scope) {
			return nil, invalid("body.scopes", "without "+clip(scope), "all scopes that the connection has, and others")
		}
	}
	if p.Fields == nil {
		p.Fields = conn.Fields
	}
	return conn, nil
}

type connectCustomIn struct {
	Body struct {
		Name         string          `json:"name"`
		Credential   json.RawMessage `json:"credential"` // a string, or an object of strings
		Description  string          `json:"description,omitempty"`
		Scopes       []string        `json:"scopes,omitempty"`
		AllowedHosts []string        `json:"allowed_hosts,omitempty"`
	} `body:""`
}

var (
	customName = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$`)
	hostName   = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?(:[0-9]{1,5})?$`)
)

// checkHost refuses what is not the host of a URL in lower case.
func checkHost(field, host string) *apiError {
	if len(host) > maxHost || !hostName.MatchString(host) {
		return invalid(field, host, "a host name in lower case such as api.example.com, with a port where it is not the usual one")
	}
	return nil
}

func (s *Server) connectCustom(_ context.Context, c *caller, in connectCustomIn) (*stack.Connection, error) {
	p := in.Body
	if !customName.MatchString(p.Name) {
		return nil, invalid("body.name", p.Name, "1 to 64 lower-case letters, digits, and inner hyphens and underscores")
	}
	if _, ok := catalogued(p.Name); ok || p.Name == skillService {
		return nil, invalid("body.name", p.Name, "a name that no service of the catalogue has, nor "+skillService)
	}
	if len(p.Scopes) == 0 {
		p.Scopes = []string{anyScope}
	}
	if err := firstError(checkScopes("body.scopes", p.Scopes), atMost("body.description", p.Description, 256),
		listAtMost("body.allowed_hosts", p.AllowedHosts, maxHosts, maxHost),
		distinct("body.allowed_hosts", p.AllowedHosts)); err != nil {
		return nil, err
	}
	for i, host := range p.AllowedHosts {
		if err := checkHost(fmt.Sprintf("body.allowed_hosts[%d]", i), strings.TrimPrefix(host, "*.")); err != nil {
			return nil, err
		}
	}
	secret, err := customSecret(p.Credential)
	if err != nil {
		return nil, err
	}
	return s.connect(c, &connection{Connection: stack.Connection{Provider: p.Name, Name: p.Name, Description: p.Description}},
		secret, account{scopes: p.Scopes, hosts: p.AllowedHosts})
}

// account is what a connection reaches of a service.
type account struct {
	scopes []string
	fields map[string]string
	hosts  []string
}

// connect makes a connection that can be used at once.
func (s *Server) connect(caller *caller, conn *connection, secret secretContent, as account) (*stack.Connection, error) {
	if err := caller.enter(conn); err != nil {
		return nil, err
	}
	if err := s.complete(caller.op, conn, secret, as, s.clock.now()); err != nil {
		return nil, err
	}
	return &conn.Connection, nil
}

// enter gives a connection that is new its id, if the caller may have it. A member who is bound to some connections may use
// it too.
func (c *caller) enter(conn *connection) error {
	if err := c.mayConnect(conn.Provider); err != nil || conn.ID != "" {
		return err
	}
	if err := c.op.capacity(capServices, c.op.connections.len()); err != nil {
		return err
	}
	conn.ID, conn.OperatorID = newID("scon_"), c.op.id
	c.op.letUse(c.member, conn.ID)
	return nil
}

// complete seals a connection's secret, in place of an earlier one.
func (s *Server) complete(op *operator, conn *connection, secret secretContent, as account, now time.Time) error {
	if err := s.seal(conn, secret); err != nil {
		return err
	}
	conn.Scopes, conn.Fields, conn.AllowedHosts = as.scopes, as.fields, as.hosts
	conn.Status, conn.ConnectedAt = stack.ConnectionConnected, now
	conn.tokenEnds, conn.consent, conn.renewal = time.Time{}, nil, nil
	op.connections.put(conn.ID, conn)
	op.record(now, conn.row("service.connect"))
	return nil
}

func (c *connection) row(action string) stack.AuditEntry {
	return stack.AuditEntry{Layer: "vault", Action: action, TraceID: c.ID}
}

func (s *Server) listConnections(_ context.Context, c *caller, _ none) (*[]stack.Connection, error) {
	list := []stack.Connection{}
	for conn := range c.op.connections.all() {
		if c.reaches(conn.ID) {
			list = append(list, conn.Connection)
		}
	}
	return &list, nil
}

type connectionIn struct {
	ConnectionID string `path:"connection_id"`
}

// letUse lets a member who is bound to some connections use another.
func (op *operator) letUse(m *stack.TeamMember, connectionID string) {
	if m == nil || m.AllowedConnections == nil {
		return
	}
	if kept, ok := op.members.get(m.ID); ok {
		kept.AllowedConnections = append(slices.Clip(kept.AllowedConnections), connectionID)
	}
}

// connectionByID finds one of the operator's connections.
func (op *operator) connectionByID(id string) (*connection, error) {
	return op.connections.find("connection", id)
}

// verifyConnection checks that the vault still yields the credential and that it can be injected. A token that can be
// renewed is renewed, which shows what the provider thinks of it. Nobody else is asked: a test call to a service would reach
// whatever handler a test has put in its place, unannounced.
func (s *Server) verifyConnection(ctx context.Context, c *caller, in connectionIn) (*stack.Connection, error) {
	conn, err := c.connection(in.ConnectionID)
	if err != nil {
		return nil, err
	}
	if conn.Status == stack.ConnectionConnected && !conn.tokenEnds.IsZero() {
		if err = s.renew(ctx, c.op, conn); err != nil && conn.Status == stack.ConnectionConnected {
			return nil, err // it could not be tested
		}
		if conn, err = c.connection(in.ConnectionID); err != nil {
			return nil, err
		}
	}
	now := s.clock.now()
	row := conn.row("service.verify")
	if refusal := conn.mustBeUsable(); refusal != nil {
		row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomeFailure, refusal.code, refusal.message
	} else if _, err = s.credentialOf(conn); err != nil {
		row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomeFailure, "CREDENTIAL_UNREADABLE", err.Error()
	}
	conn.Verified, conn.VerifiedAt = row.Outcome == "", now
	c.op.record(now, row)
	return &conn.Connection, nil
}

// disconnectService takes a connection away, with all that hangs on it: its secret, its grants, and the passports of every
// agent that had a grant on it or reaches it by delegation.
func (s *Server) disconnectService(_ context.Context, c *caller, in connectionIn) (*stack.Disconnection, error) {
	conn, err := c.connection(in.ConnectionID)
	if err != nil {
		return nil, err
	}
	return c.op.disconnect(s.clock.now(), conn), nil
}

func (op *operator) disconnect(now time.Time, conn *connection) *stack.Disconnection {
	conn.Status, conn.sealed = stack.ConnectionDisconnected, vault.Sealed{} // a call under way may still hold it
	conn.consent, conn.renewal = nil, nil
	op.connections.delete(conn.ID)
	var affected []string
	for g := range op.grants.all() {
		if g.ServiceConnectionID == conn.ID {
			affected = append(affected, g.AgentID)
		}
	}
	for _, agentID := range affected {
		op.grants.delete(grantKey(agentID, conn.ID))
		op.record(now, stack.AuditEntry{AgentID: agentID, Action: "grant.revoke"})
	}
	revoked, cascaded := op.revokeWhere(now, "Service disconnected", func(p *passport) bool {
		_, reaches := p.reaching(conn.ID)
		return reaches || slices.Contains(affected, p.agentID())
	})
	op.record(now, conn.row("service.disconnect"))
	return &stack.Disconnection{ID: conn.ID, Provider: conn.Provider, Status: conn.Status, GrantsRevoked: len(affected),
		PassportsRevoked: revoked + len(cascaded)}
}

func grantKey(agentID, connectionID string) string { return agentID + " " + connectionID }

type grantIn struct {
	Body stack.GrantParams `body:""`
}

func (s *Server) grantAccess(_ context.Context, c *caller, in grantIn) (*stack.Grant, error) {
	p := in.Body
	a, err := c.op.agentByID(p.AgentID)
	if err != nil {
		return nil, err
	}
	conn, err := c.connection(p.ServiceConnectionID)
	if err != nil {
		return nil, err
	}
	if conn.Status == stack.ConnectionPending {
		return nil, conn.pending()
	}
	if err := firstError(checkScopes("body.scopes", p.Scopes),
		listAtMost("body.allow_data_from", p.AllowDataFrom, maxServices, maxServiceName),
		distinct("body.allow_data_from", p.AllowDataFrom)); err != nil {
		return nil, err
	}
	for i, scope := range p.Scopes {
		if !slices.Contains(conn.Scopes, scope) {
			return nil, refuse(http.StatusBadRequest, "SCOPE_ESCALATION",
				fmt.Sprintf("body.scopes[%d] is %q; the connection has %s", i, clip(scope), strings.Join(conn.Scopes, ", ")),
				map[string]any{"check": "scope", "field": fmt.Sprintf("body.scopes[%d]", i), "sent": clip(scope),
					"allowed": conn.Scopes})
		}
	}
	if err := constraint.Validate(p.Constraints); err != nil {
		return nil, invalid("body.constraints", err.Error(), "a list of valid constraints")
	}
	now := s.clock.now()
	g := &grant{stack.Grant{AgentID: a.ID, ServiceConnectionID: conn.ID, Provider: conn.Provider, Scopes: p.Scopes,
		Constraints: p.Constraints, AllowDataFrom: p.AllowDataFrom, CreatedAt: now}}
	key := grantKey(a.ID, conn.ID)
	c.op.grants.delete(key) // to the end of the order: the newest serves
	c.op.grants.put(key, g)
	c.op.record(now, stack.AuditEntry{AgentID: a.ID, Action: "grant.create"})
	return &g.Grant, nil
}

// grantsOf lists an agent's grants, oldest first; all are on live connections.
func (op *operator) grantsOf(agentID string) []*grant {
	var list []*grant
	for g := range op.grants.all() {
		if g.AgentID == agentID {
			list = append(list, g)
		}
	}
	return list
}

// dropGrants removes an agent's grants and returns how many there were.
func (op *operator) dropGrants(agentID string) int {
	grants := op.grantsOf(agentID)
	for _, g := range grants {
		op.grants.delete(grantKey(agentID, g.ServiceConnectionID))
	}
	return len(grants)
}

// revokeAccess is the kill switch of one agent.
func (s *Server) revokeAccess(_ context.Context, c *caller, in agentIn) (*stack.AccessRevocation, error) {
	a, err := c.op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	grants := c.op.dropGrants(a.ID)
	revoked, cascaded := c.op.revokeAgent(now, a.ID, "Agent access revoked")
	c.op.record(now, stack.AuditEntry{AgentID: a.ID, Action: "grant.revoke"})
	return &stack.AccessRevocation{AgentID: a.ID, GrantsRevoked: grants, PassportsRevoked: revoked + len(cascaded)}, nil
}

func (s *Server) agentPermissions(_ context.Context, c *caller, in agentIn) (*stack.AgentPermissions, error) {
	a, err := c.op.agentByID(in.AgentID)
	if err != nil {
		return nil, err
	}
	list := []stack.Grant{}
	for _, g := range c.op.grantsOf(a.ID) {
		list = append(list, g.Grant)
	}
	return &stack.AgentPermissions{AgentID: a.ID, Grants: list}, nil
}
