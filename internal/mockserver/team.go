package mockserver

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/mail"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

const (
	maxMembers     = 1000 // on any plan
	maxMemberName  = 100
	maxEmail       = 254
	maxConnections = 256 // in one member's list
)

// member is somebody who may act for the operator.
type member struct {
	stack.TeamMember
	invitation string  // lets the invited person in; empty once accepted
	key        keyHash // once accepted
}

func (m *member) row(action string) stack.AuditEntry {
	return stack.AuditEntry{Action: action, TraceID: m.ID}
}

func teamRoutes() []route {
	return []route{
		endpoint("POST", "/v1/team/members", (*Server).inviteMember, adminOnly),
		endpoint("GET", "/v1/team/members", (*Server).listMembers),
		endpoint("PATCH", "/v1/team/members/{member_id}", (*Server).updateMember, adminOnly),
		endpoint("DELETE", "/v1/team/members/{member_id}", (*Server).revokeMember, adminOnly),
		endpoint("GET", invitationPath+"{token}", (*Server).showInvitation, webPage),
		endpoint("POST", invitationPath+"{token}", (*Server).acceptOnPage, webPage),
	}
}

type inviteMemberIn struct {
	Body stack.TeamInviteParams `body:""`
}

func (s *Server) inviteMember(ctx context.Context, c *caller, in inviteMemberIn) (*stack.TeamInvitation, error) {
	p, op, now := in.Body, c.op, s.clock.now()
	if err := cmp.Or(checkEmail("body.email", p.Email), checkMember(p.Name, p.Role)); err != nil {
		return nil, err
	}
	if err := op.checkConnections(p.AllowedConnections); err != nil {
		return nil, err
	}
	for m := range op.members.all() {
		if strings.EqualFold(m.Email, p.Email) {
			return nil, refuse(http.StatusConflict, "MEMBER_EXISTS", "the address is a member's already", map[string]any{
				"check": "unique", "field": "body.email", "sent": clip(p.Email), "member_id": m.ID,
				"allowed": "an address that no member has"})
		}
	}
	if err := op.capacity(capMembers, op.members.len()); err != nil {
		return nil, err
	}
	if op.members.len() >= maxMembers {
		return nil, refuse(http.StatusForbidden, "TIER_LIMIT_EXCEEDED", fmt.Sprintf("a team has at most %d members", maxMembers),
			map[string]any{"check": "plan_limit", "resource": capMembers, "allowed": fmt.Sprintf("at most %d", maxMembers)})
	}
	m := &member{invitation: newID(""), TeamMember: stack.TeamMember{ID: newID("mem_"), OperatorID: op.id, Email: p.Email,
		Name: p.Name, Role: cmp.Or(p.Role, stack.RoleStandard), Status: stack.MemberInvited,
		AllowedConnections: p.AllowedConnections, InvitedAt: now}}
	op.members.put(m.ID, m)
	op.record(now, m.row("team.invite"))
	return &stack.TeamInvitation{TeamMember: m.TeamMember,
		InvitationURL: stack.NewSecret(baseURL(ctx) + invitationPath + m.invitation)}, nil
}

// checkEmail refuses what is not the bare address of a mailbox.
func checkEmail(field, address string) error {
	if a, err := mail.ParseAddress(address); err != nil || a.Address != address || len(address) > maxEmail {
		return invalid(field, address, fmt.Sprintf("an address such as ada@example.com, at most %d bytes", maxEmail))
	}
	return nil
}

func checkMember(name string, role stack.TeamRole) error {
	return firstError(filled("body.name", name), atMost("body.name", name, maxMemberName),
		oneOf("body.role", role, rolesUp...))
}

// checkConnections refuses a list with what is no connection of the operator.
func (op *operator) checkConnections(ids []string) error {
	const field = "body.allowed_connections"
	if len(ids) > maxConnections {
		return invalid(field, fmt.Sprintf("a list of %d", len(ids)), fmt.Sprintf("a list of at most %d", maxConnections))
	}
	for i, id := range ids {
		if _, ok := op.connections.get(id); !ok {
			return invalid(fmt.Sprintf("%s[%d]", field, i), id, "the id of a connection (scon_…)")
		}
	}
	return firstError(distinct(field, ids))
}

func (s *Server) listMembers(_ context.Context, c *caller, _ none) (*[]stack.TeamMember, error) {
	list := []stack.TeamMember{}
	for m := range c.op.members.all() {
		list = append(list, m.TeamMember)
	}
	return &list, nil
}

type updateMemberIn struct {
	MemberID string `path:"member_id"`
	Body     struct {
		Name               string          `json:"name,omitempty"`
		Role               stack.TeamRole  `json:"role,omitempty"`
		AllowedConnections json.RawMessage `json:"allowed_connections,omitempty"` // null is all
	} `body:""`
}

func (s *Server) updateMember(_ context.Context, c *caller, in updateMemberIn) (*stack.TeamMember, error) {
	m, err := c.op.memberByID(in.MemberID)
	if err != nil {
		return nil, err
	}
	p := in.Body
	if err := checkMember(cmp.Or(p.Name, m.Name), p.Role); err != nil {
		return nil, err
	}
	if len(p.AllowedConnections) > 0 {
		var ids []string
		if json.Unmarshal(p.AllowedConnections, &ids) != nil {
			return nil, invalid("body.allowed_connections", "something else", "a list of ids, or null for all connections")
		}
		if err := c.op.checkConnections(ids); err != nil {
			return nil, err
		}
		m.AllowedConnections = ids
	}
	override(&m.Name, p.Name)
	override(&m.Role, p.Role)
	c.op.record(s.clock.now(), m.row("team.update"))
	return &m.TeamMember, nil
}

type memberIn struct {
	MemberID string `path:"member_id"`
}

// revokeMember takes the key away at once. (contract: server-api 27)
func (s *Server) revokeMember(_ context.Context, c *caller, in memberIn) (*stack.TeamMember, error) {
	m, err := c.op.memberByID(in.MemberID)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	s.keys.remove(m.key)
	c.op.members.delete(m.ID)
	m.Status, m.RevokedAt = stack.MemberRevoked, now
	c.op.record(now, m.row("team.revoke"))
	return &m.TeamMember, nil
}

func (op *operator) memberByID(id string) (*member, error) {
	return op.members.find("member", id)
}

// acceptInvitation makes an invited person a member and returns their key, which nobody sees again.
func (s *Server) acceptInvitation(op *operator, m *member, now time.Time) (stack.Secret, error) {
	if m.Status != stack.MemberInvited {
		return stack.Secret{}, refuse(http.StatusConflict, "INVITATION_ACCEPTED", "the invitation has been accepted",
			map[string]any{"check": "member_status", "sent": m.Status, "allowed": stack.MemberInvited})
	}
	key := newAPIKey(op.id)
	m.key = s.keys.add(key, keyOwner{op: op, memberID: m.ID})
	m.Status, m.AcceptedAt, m.invitation = stack.MemberActive, now, ""
	op.record(now, m.row("team.accept"))
	return stack.NewSecret(key), nil
}

// AcceptInvitation stands in for a person who was invited to any operator's team, and returns their API key. It fails when
// there is no such member, and when they have accepted already.
func (s *Server) AcceptInvitation(memberID string) (key stack.Secret, err error) {
	found, err := s.atOperator(func(op *operator, now time.Time) (bool, error) {
		m, ok := op.members.get(memberID)
		if !ok {
			return false, nil
		}
		key, err = s.acceptInvitation(op, m, now)
		return true, err
	})
	if !found {
		return stack.Secret{}, notFound("member", memberID)
	}
	return key, err
}
