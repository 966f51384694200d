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
	sealed vault.Sealed
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
		endpoint("POST", "/v1/services/custom", (*Server).connectCustom),
		endpoint("POST", "/v1/services/{connection_id}/verify", (*Server).verifyConnection),
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

// connectService takes a token that the caller has. It does not start an OAuth consent.
func (s *Server) connectService(_ context.Context, c *caller, in connectServiceIn) (*stack.Connection, error) {
	p := in.Body
	e, ok := catalogued(p.ServiceID)
	if !ok {
		return nil, notFound("service", p.ServiceID)
	}
	if err := firstError(checkScopes("body.scopes", p.Scopes)); err != nil {
		return nil, err
	}
	if p.OAuthToken.IsZero() {
		return nil, invalid("body.oauth_token", nil,
			"the "+tokenNames[e.AuthKind]+" of the account; an OAuth consent cannot be started here")
	}
	hosts, err := e.checkFields(p.Fields)
	if err != nil {
		return nil, err
	}
	token := p.OAuthToken.Reveal()
	secret := secretContent{token: token}
	if e.Injection.Kind == stack.InjectBasic {
		user := cmp.Or(p.Fields[fieldUsername], p.Fields[fieldAccount])
		secret = secretContent{fields: map[string]string{fieldUsername: user, fieldPassword: token}}
	}
	if err := firstError(checkToken("body.oauth_token", token)); err != nil {
		return nil, err
	}
	return s.connect(c, secret, stack.Connection{ServiceID: e.ID, Provider: e.Provider, Name: e.Name,
		Description: e.Description, Scopes: p.Scopes, Fields: p.Fields, AllowedHosts: hosts})
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
	return s.connect(c, secret, stack.Connection{Provider: p.Name, Name: p.Name, Description: p.Description,
		Scopes: p.Scopes, AllowedHosts: p.AllowedHosts})
}

// connect completes a connection and seals its secret. A member who is bound to some connections may use the new one too.
func (s *Server) connect(caller *caller, secret secretContent, conn stack.Connection) (*stack.Connection, error) {
	op := caller.op
	if err := caller.mayConnect(conn.Provider); err != nil {
		return nil, err
	}
	if err := op.capacity(capServices, op.connections.len()); err != nil {
		return nil, err
	}
	now := s.clock.now()
	conn.ID, conn.OperatorID, conn.Status, conn.ConnectedAt = newID("scon_"), op.id, stack.ConnectionConnected, now
	c := &connection{Connection: conn}
	if err := s.seal(c, secret); err != nil {
		return nil, err
	}
	op.connections.put(c.ID, c)
	op.letUse(caller.member, c.ID)
	op.record(now, stack.AuditEntry{Layer: "vault", Action: "service.connect"})
	return &c.Connection, nil
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

// verifyConnection checks that the vault still yields the credential and that it can be injected. Nobody but the vault is
// asked: a provider's own test call would reach whatever handler a test has put in the provider's place, unannounced.
func (s *Server) verifyConnection(_ context.Context, c *caller, in connectionIn) (*stack.Connection, error) {
	conn, err := c.connection(in.ConnectionID)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	row := stack.AuditEntry{Layer: "vault", Action: "service.verify"}
	_, err = s.credentialOf(conn)
	conn.Verified, conn.VerifiedAt = err == nil, now
	if err != nil {
		row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomeFailure, "CREDENTIAL_UNREADABLE", err.Error()
	}
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
	op.record(now, stack.AuditEntry{Layer: "vault", Action: "service.disconnect"})
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
