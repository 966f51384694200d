package mockserver

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/token"
)

// caller is who makes a request.
type caller struct {
	op         *operator                // nil on public routes
	member     *stack.TeamMember        // as it was when the request came; nil for the operator itself
	grant      *stack.PartnerConnection // likewise, of a partner who acts in the operator's account; nil otherwise
	agentID    string                   // of an agent that calls with its own key, or is to get one by a ticket; empty otherwise
	ticket     string                   // to enrol the agent's key; empty otherwise
	scopes     []string                 // of an OAuth access token; nil otherwise
	person     bool                     // who has signed in to the operator's dashboard
	requestID  string
	governance string // X-Governance-Approval
}

// authenticate finds the caller of a request, and refuses one who may not call the route.
func (s *Server) authenticate(req *http.Request, r *route) (*caller, error) {
	if r.public {
		return &caller{}, nil
	}
	if r.control {
		return &caller{}, checkControl(req)
	}
	c, err := s.admitBearer(req.Header.Get("Authorization"), r)
	if err != nil {
		return nil, err
	}
	c.governance = req.Header.Get("X-Governance-Approval")
	return c, nil
}

// admitBearer finds whose bearer it is, and refuses one who may not call the route.
func (s *Server) admitBearer(authorization string, r *route) (*caller, error) {
	scheme, bearer, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") || bearer == "" {
		return nil, unauthorized("UNAUTHORIZED", "no bearer token", "Authorization: Bearer sk_live_…")
	}
	c, err := s.callerOf(bearer)
	if err != nil {
		return nil, err
	}
	if err = c.op.mustBeBillable(); err != nil {
		return nil, err
	}
	if limit, wait := c.op.rateLimited(s.clock.now()); wait > 0 {
		err := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "too many requests in this minute",
			map[string]any{"check": "rate_limit", "allowed": limit})
		err.retryAfter = wait
		return nil, err
	}
	return c, c.mayCall(r)
}

// callerOf finds who has a bearer, by its kind. (contract: server-api 2.1)
func (s *Server) callerOf(bearer string) (*caller, error) {
	switch {
	case strings.HasPrefix(bearer, apiKeyPrefix), strings.HasPrefix(bearer, grantTokenPrefix):
		return s.keyCaller(bearer)
	case strings.HasPrefix(bearer, ticketPrefix):
		return s.ticketCaller(bearer)
	case isAccessToken(bearer):
		return s.oauthCaller(bearer)
	case token.IsSession(bearer):
		return s.sessionCaller(bearer)
	case strings.HasPrefix(bearer, jwtPrefix):
		return s.agentCaller(bearer)
	}
	return nil, unknownBearer()
}

func unknownBearer() *apiError {
	return unauthorized("UNAUTHORIZED", "the bearer is not a kind that this server knows",
		"an API key (sk_live_…), a grant token (sk_grant_…), an OAuth access token, a session or an agent's token (JWTs), "+
			"or for an enrolment its ticket (etk_…)")
}

// jwtPrefix is how every JWT begins: {" in base64.
const jwtPrefix = "eyJ"

// keyCaller finds whose API key it is.
func (s *Server) keyCaller(key string) (*caller, error) {
	owner, known, suspect := s.keys.find(key)
	if known {
		if c, ok := owner.caller(); ok {
			return c, nil
		}
	} else if suspect != nil {
		suspect.mu.Lock()
		suspect.authFailed(s.clock.now(), "", "INVALID_API_KEY")
		suspect.mu.Unlock()
	}
	return nil, unauthorized("INVALID_API_KEY", "the key belongs to nobody", "a live API key")
}

// caller is who the key's owner is at the moment, if anybody.
func (o keyOwner) caller() (*caller, bool) {
	switch {
	case o.grantID != "":
		g, ok := o.op.partnerGrant(o.grantID)
		return &caller{op: o.op, grant: &g}, ok
	case o.memberID != "":
		m, ok := o.op.member(o.memberID)
		return &caller{op: o.op, member: &m}, ok
	}
	return &caller{op: o.op}, true
}

// sessionLifetime is that of a person's session. (contract: server-api 2.1)
const sessionLifetime = 24 * time.Hour

// sessionCaller finds whose dashboard session a bearer is.
func (s *Server) sessionCaller(bearer string) (*caller, error) {
	operatorID, err := s.signer.VerifySession(bearer, s.clock.now())
	if err == nil {
		if op, ok := s.operatorByID(operatorID); ok {
			return &caller{op: op, person: true}, nil
		}
	}
	message := "the session is not one of this server"
	if errors.Is(err, token.ErrAccessExpired) {
		message = "the session has expired"
	}
	return nil, unauthorized("UNAUTHORIZED", message, "the session of a person who signed in less than 24 hours ago")
}

// SessionToken signs a person in to the dashboard of the first operator: it returns their token and when it ends.
func (s *Server) SessionToken() (session string, expiresAt time.Time) {
	now := s.clock.now()
	expiresAt = now.Add(sessionLifetime)
	session, err := s.signer.SignSession(s.first.OperatorID, now, expiresAt)
	if err != nil { // the key is the server's own
		panic(err)
	}
	return session, expiresAt
}

func unauthorized(code, message, allowed string) *apiError {
	return refuse(http.StatusUnauthorized, code, message, map[string]any{"check": "authentication", "allowed": allowed})
}

// rolesUp are the roles from the least to the most.
var rolesUp = []stack.TeamRole{stack.RoleReadonly, stack.RoleStandard, stack.RoleAdmin}

// mayCall refuses a member whose role is too low for a route. (contract: server-api 2.2)
func (c *caller) mayCall(r *route) error {
	if r.billing && c.op.partner != nil {
		return refuse(http.StatusForbidden, "TENANT_BILLED_BY_PARTNER", "a tenant's billing is its partner's",
			map[string]any{"check": "billing", "allowed": "the partner's API key"})
	}
	switch {
	case c.grant != nil:
		return c.grantMayCall(r)
	case c.ticket != "":
		return c.ticketMayCall(r)
	case c.agentID != "":
		return c.agentMayCall(r)
	case c.member == nil:
	case r.operatorOnly:
		return forbidden("this route takes the operator's own key only", map[string]any{"check": "role", "sent": c.member.Role,
			"allowed": "the operator's own API key"})
	case slices.Index(rolesUp, c.member.Role) < slices.Index(rolesUp, r.role):
		return forbidden(string(c.member.Role)+" members may not do this", map[string]any{"check": "role", "sent": c.member.Role,
			"allowed": rolesUp[slices.Index(rolesUp, r.role):]})
	}
	return c.scopeFor(r)
}

// reaches reports whether the caller may use a connection. A member may be bound to some, a grant has its own.
func (c *caller) reaches(connectionID string) bool {
	if c.grant != nil {
		return c.made(connectionID)
	}
	return c.member == nil || c.member.AllowedConnections == nil || slices.Contains(c.member.AllowedConnections, connectionID)
}

// reach refuses a member who may not use a connection.
func (c *caller) reach(connectionID string) error {
	if c.reaches(connectionID) {
		return nil
	}
	if c.grant != nil {
		return notFound("connection", connectionID)
	}
	return forbidden("the connection is outside the member's allowed_connections", map[string]any{
		"check": "allowed_connections", "sent": clip(connectionID), "allowed": c.member.AllowedConnections})
}

// connection finds one of the operator's connections that the caller may use.
func (c *caller) connection(id string) (*connection, error) {
	conn, err := c.op.connectionByID(id)
	if err != nil {
		return nil, err
	}
	return conn, c.reach(conn.ID)
}
