package stack

import (
	"cmp"
	"context"
	"log/slog"
	"time"
)

// TeamService manages who may act for the account beside its owner. Each member has an API key of their own, limited by a
// role and, where the account says so, to some connections. Reach it as [Client].Team.
type TeamService struct{ client *Client }

// TeamRole says what a member may do. (contract: server-api 2.2)
type TeamRole string

// Team roles, from least to most. Security events and the audit log are for the account's own key alone.
const (
	// RoleReadonly reads, and retrieves the credentials of its connections. It changes nothing.
	RoleReadonly TeamRole = "readonly"
	// RoleStandard does everything else but manage members and the account's settings. It is the default.
	RoleStandard TeamRole = "standard"
	// RoleAdmin manages members and settings too.
	RoleAdmin TeamRole = "admin"
)

// MemberStatus is how far a membership has come.
type MemberStatus string

// Member statuses.
const (
	MemberInvited MemberStatus = "invited" // the invitation is not accepted, so there is no key
	MemberActive  MemberStatus = "active"
	MemberRevoked MemberStatus = "revoked" // only in the answer of Revoke
)

// TeamMember is somebody who may act for the account.
type TeamMember struct {
	ID         string       `json:"id"`
	OperatorID string       `json:"operator_id"`
	Email      string       `json:"email"`
	Name       string       `json:"name"`
	Role       TeamRole     `json:"role"`
	Status     MemberStatus `json:"status"`
	// AllowedConnections are the connections that the member may use. Nil is all, empty is none.
	AllowedConnections []string  `json:"allowed_connections"`
	InvitedAt          time.Time `json:"invited_at"`
	AcceptedAt         time.Time `json:"accepted_at,omitzero"`
	RevokedAt          time.Time `json:"revoked_at,omitzero"`
}

// TeamInviteParams invites a member.
type TeamInviteParams struct {
	Email string   `json:"email"`
	Name  string   `json:"name"`           // 1 to 100 characters
	Role  TeamRole `json:"role,omitempty"` // default RoleStandard
	// AllowedConnections are the ids of the connections that the member may use. Nil is all, empty is none. A connection
	// that the member makes is added to them.
	AllowedConnections []string `json:"allowed_connections,omitzero"`
}

// TeamInvitation is a member who has been invited.
type TeamInvitation struct {
	TeamMember
	// InvitationURL is where the invitation is accepted. The hosted service is known to invite by mail; the link in the
	// answer stands for that mail in the mock. Whoever opens it gets the member's key, so it is a secret.
	InvitationURL Secret `json:"invitation_url"`
}

// LogValue keeps the link out of logs.
func (i TeamInvitation) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", i.ID), slog.String("role", string(i.Role)), slog.Any("invitation_url", i.InvitationURL))
}

// Invite invites a member. It takes an admin's key or the account's own. The member gets an API key on accepting.
//
// It fails with a [*ParamError] without an address or a name, with [ErrInvalidRequest] for an address that is none, a role
// or a connection that does not exist, with [ErrForbidden] for a lesser key, with code MEMBER_EXISTS (409) when the address is
// a member's already, and with code TIER_LIMIT_EXCEEDED (403) when the plan has no seat left.
//
// POST /v1/team/members
func (s *TeamService) Invite(ctx context.Context, params TeamInviteParams) (*TeamInvitation, error) {
	if err := cmp.Or(required("email", params.Email), required("name", params.Name)); err != nil {
		return nil, err
	}
	return send[TeamInvitation](ctx, s.client, post("/v1/team/members").with(params))
}

// List returns the members, invited ones too, in the order of their invitation.
//
// GET /v1/team/members
func (s *TeamService) List(ctx context.Context) ([]TeamMember, error) {
	return sendList[TeamMember](ctx, s.client, get("/v1/team/members"))
}

// TeamUpdateParams changes a member. What is not set stays.
type TeamUpdateParams struct {
	Name string   `json:"name,omitempty"` // 1 to 100 characters
	Role TeamRole `json:"role,omitempty"`
	// AllowedConnections replaces the list; empty and not nil is none.
	AllowedConnections []string `json:"allowed_connections,omitzero"`
	// AllConnections lifts the limit to some connections. It goes before AllowedConnections, and is sent as their null.
	AllConnections bool `json:"-"`
}

// MarshalJSON writes null for all connections.
func (p TeamUpdateParams) MarshalJSON() ([]byte, error) {
	type plain TeamUpdateParams
	if !p.AllConnections {
		return marshalJSON(plain(p))
	}
	p.AllowedConnections = nil
	return marshalJSON(struct {
		plain
		AllowedConnections []string `json:"allowed_connections"`
	}{plain: plain(p)})
}

// Update changes a member from their next call on. It takes an admin's key or the account's own. It fails with [ErrNotFound]
// for no member of the account and otherwise as [TeamService.Invite] does.
//
// PATCH /v1/team/members/{member_id}
func (s *TeamService) Update(ctx context.Context, memberID string, params TeamUpdateParams) (*TeamMember, error) {
	return send[TeamMember](ctx, s.client, patch("/v1/team/members/{member_id}", memberID).with(params))
}

// Revoke ends a membership: its key is refused from now on. It takes an admin's key or the account's own, and fails with
// [ErrNotFound] for no member of the account.
//
// DELETE /v1/team/members/{member_id}
func (s *TeamService) Revoke(ctx context.Context, memberID string) (*TeamMember, error) {
	return send[TeamMember](ctx, s.client, del("/v1/team/members/{member_id}", memberID))
}
