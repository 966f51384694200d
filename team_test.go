package stack_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// join has somebody invited and accept, and returns the member with a client of theirs.
func join(t *testing.T, srv *stacktest.Server, params stack.TeamInviteParams) (*stack.TeamInvitation, *stack.Client) {
	t.Helper()
	if params.Email == "" {
		params.Email = string(params.Role) + "@example.com"
	}
	params.Name = "Somebody"
	member, err := srv.Client().Team.Invite(t.Context(), params)
	require.NoError(t, err)
	key, err := srv.AcceptInvitation(member.ID)
	require.NoError(t, err)
	return member, srv.Client(stack.WithAPIKey(key.Reveal()))
}

func TestTeamInviteAndAccept(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	invited, err := client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "ada@example.com", Name: "Ada"})
	require.NoError(t, err)
	assert.Regexp(t, `^mem_[a-z0-9]{26}$`, invited.ID)
	assert.Equal(t, srv.OperatorID(), invited.OperatorID)
	assert.Equal(t, stack.RoleStandard, invited.Role, "the default")
	assert.Equal(t, stack.MemberInvited, invited.Status)
	assert.Nil(t, invited.AllowedConnections, "all")
	assert.NotContains(t, fmt.Sprintf("%v %+v", invited, invited), invited.InvitationURL.Reveal(), "the link is a secret")

	key, err := srv.AcceptInvitation(invited.ID)
	require.NoError(t, err)
	assert.Regexp(t, `^sk_live_`, key.Reveal())
	_, err = srv.AcceptInvitation(invited.ID)
	require.ErrorContains(t, err, "has been accepted")
	_, err = srv.AcceptInvitation("mem_nobody")
	require.ErrorContains(t, err, "not found")

	members, err := srv.Client(stack.WithAPIKey(key.Reveal())).Team.List(t.Context())
	require.NoError(t, err, "a member's key works")
	require.Len(t, members, 1)
	assert.Equal(t, stack.MemberActive, members[0].Status)
	assert.False(t, members[0].AcceptedAt.IsZero())

	var actions []string
	for _, row := range srv.Audit() {
		actions = append(actions, row.Action)
	}
	assert.Equal(t, []string{"team.invite", "team.accept"}, actions)
}

// The page stands in for the mail with the invitation.
func TestTeamInvitationPage(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	_, err := srv.URL()
	require.NoError(t, err)
	member, err := srv.Client().Team.Invite(t.Context(), stack.TeamInviteParams{Email: "ada@example.com", Name: "<Ada>"})
	require.NoError(t, err)
	link := member.InvitationURL.Reveal()
	require.Contains(t, link, "/team/invitations/")
	web := &http.Client{Transport: srv.Transport()}
	page := func(method, url string, want int) string {
		t.Helper()
		req, bad := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
		require.NoError(t, bad)
		resp, bad := web.Do(req)
		require.NoError(t, bad)
		defer func() { assert.NoError(t, resp.Body.Close()) }()
		text, bad := io.ReadAll(resp.Body)
		require.NoError(t, bad)
		require.Equal(t, want, resp.StatusCode, string(text))
		return string(text)
	}
	first := page("GET", link, 200)
	assert.Contains(t, first, "&lt;Ada&gt; (ada@example.com)", "names are escaped")
	assert.NotContains(t, first, "sk_live_")
	key := regexp.MustCompile(`sk_live_\w+`).FindString(page("POST", link, 200))
	require.NotEmpty(t, key)
	_, err = srv.Client(stack.WithAPIKey(key)).Team.List(t.Context())
	require.NoError(t, err)
	page("GET", link, 404)
	page("POST", link, 404)
}

func TestTeamInviteRefusals(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	_, err := client.Team.Invite(t.Context(), stack.TeamInviteParams{Name: "Ada"})
	requireParam(t, err, "email")
	_, err = client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "ada@example.com"})
	requireParam(t, err, "name")
	_, err = client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "ada@example.com", Name: "Ada"})
	require.NoError(t, err)

	for name, tc := range map[string]struct {
		change func(*stack.TeamInviteParams)
		status int
		code   string
		field  string
	}{
		"no address":         {func(p *stack.TeamInviteParams) { p.Email = "ada" }, 400, "INVALID_REQUEST", "body.email"},
		"a name and address": {func(p *stack.TeamInviteParams) { p.Email = "Ada <a@b.c>" }, 400, "INVALID_REQUEST", "body.email"},
		"a blank name":       {func(p *stack.TeamInviteParams) { p.Name = " " }, 400, "INVALID_REQUEST", "body.name"},
		"a long name":        {func(p *stack.TeamInviteParams) { p.Name = strings.Repeat("x", 101) }, 400, "INVALID_REQUEST", "body.name"},
		"another role":       {func(p *stack.TeamInviteParams) { p.Role = "owner" }, 400, "INVALID_REQUEST", "body.role"},
		"no connection": {func(p *stack.TeamInviteParams) { p.AllowedConnections = []string{"scon_1"} }, 400,
			"INVALID_REQUEST", "body.allowed_connections[0]"},
		"a member already": {func(p *stack.TeamInviteParams) { p.Email = "ADA@example.com" }, 409, "MEMBER_EXISTS", "body.email"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stack.TeamInviteParams{Email: "bob@example.com", Name: "Bob"}
			tc.change(&p)
			_, err := client.Team.Invite(t.Context(), p)
			refusal := requireRefused(t, err, tc.status, tc.code)
			assert.Equal(t, tc.field, refusal.Details["field"])
		})
	}
}

// The seats are those of the plan. (contract: server-api 4)
func TestTeamSeats(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	srv.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
	client := srv.Client()
	invite := func(email string) (*stack.TeamInvitation, error) {
		return client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: email, Name: "Ada"})
	}
	first, err := invite("a@example.com")
	require.NoError(t, err)
	_, err = invite("b@example.com")
	refusal := requireRefused(t, err, 403, "TIER_LIMIT_EXCEEDED")
	assert.EqualValues(t, 1, refusal.Details["limit"])
	used, err := client.Usage.Get(t.Context(), stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, 1, used.Consumption.Meters["members"].Used)
	_, err = client.Team.Revoke(t.Context(), first.ID)
	require.NoError(t, err)
	_, err = invite("b@example.com")
	require.NoError(t, err, "a seat is free again")
}

func TestTeamRevokeAndUpdate(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	member, theirs := join(t, srv, stack.TeamInviteParams{Role: stack.RoleReadonly})
	_, err := theirs.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot"})
	requireRefused(t, err, 403, "FORBIDDEN")

	updated, err := client.Team.Update(t.Context(), member.ID, stack.TeamUpdateParams{Role: stack.RoleStandard, Name: "Bea"})
	require.NoError(t, err)
	assert.Equal(t, stack.RoleStandard, updated.Role)
	assert.Equal(t, "Bea", updated.Name)
	_, err = theirs.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot"})
	require.NoError(t, err, "a new role holds from the next call on")

	_, err = client.Team.Update(t.Context(), member.ID, stack.TeamUpdateParams{Role: "owner"})
	requireRefused(t, err, 400, "INVALID_REQUEST")
	for _, call := range map[string]func(id string) error{
		"update": func(id string) error {
			return failure(client.Team.Update(t.Context(), id, stack.TeamUpdateParams{Name: "x"}))
		},
		"revoke": func(id string) error { return failure(client.Team.Revoke(t.Context(), id)) },
	} {
		requireRefused(t, call("mem_nobody"), 404, "NOT_FOUND")
		requireParam(t, call(""), "member_id")
	}

	gone, err := client.Team.Revoke(t.Context(), member.ID)
	require.NoError(t, err)
	assert.Equal(t, stack.MemberRevoked, gone.Status)
	assert.False(t, gone.RevokedAt.IsZero())
	_, err = theirs.Agents.List(t.Context())
	requireRefused(t, err, 401, "INVALID_API_KEY")
	members, err := client.Team.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, members)
}

// A member who is bound to some connections reaches no other, on any way to it.
func TestTeamAllowedConnections(t *testing.T) {
	t.Parallel()
	st := newStage(t, stack.Logged)
	client := st.client
	slack := st.agent.Connections["slack"].ID
	other, err := client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "wiki",
		Credential: stack.CustomCredential{Token: stack.NewSecret("wiki-secret")}})
	require.NoError(t, err)
	member, theirs := join(t, st.Server, stack.TeamInviteParams{Role: stack.RoleStandard, AllowedConnections: []string{other.ID}})

	passport := st.issue(t)
	denied := map[string]func() error{
		"verify":     func() error { return failure(theirs.Services.Verify(t.Context(), slack)) },
		"disconnect": func() error { return failure(theirs.Services.Disconnect(t.Context(), slack)) },
		"grant": func() error {
			return failure(theirs.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: st.agent.ID,
				ServiceConnectionID: slack, Scopes: []string{"chat:write"}}))
		},
		"credential": func() error {
			return failure(theirs.Credentials.Get(t.Context(), "slack", stack.CredentialParams{}))
		},
		"credential by connection": func() error {
			return failure(theirs.Credentials.GetByConnection(t.Context(), slack, stack.CredentialParams{}))
		},
		"proxy": func() error {
			return failure(theirs.Proxy.Request(t.Context(), withPassport(post("#a"), passport)))
		},
	}
	for name, call := range denied {
		refusal := requireRefused(t, call(), 403, "FORBIDDEN")
		assert.Equal(t, "allowed_connections", refusal.Details["check"], name)
	}
	assert.Empty(t, st.Forwarded("slack.com"))
	got, err := theirs.Credentials.Get(t.Context(), "wiki", stack.CredentialParams{})
	require.NoError(t, err)
	assert.Equal(t, "wiki-secret", got.Credential.Reveal())
	list, err := theirs.Services.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, other.ID, list[0].ID)

	made, err := theirs.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "notes",
		Credential: stack.CustomCredential{Token: stack.NewSecret("x")}})
	require.NoError(t, err)
	_, err = theirs.Services.Verify(t.Context(), made.ID)
	require.NoError(t, err, "what a member connects is theirs to use")

	_, err = client.Team.Update(t.Context(), member.ID, stack.TeamUpdateParams{AllowedConnections: []string{}})
	require.NoError(t, err)
	_, err = theirs.Services.Verify(t.Context(), made.ID)
	requireRefused(t, err, 403, "FORBIDDEN")
	updated, err := client.Team.Update(t.Context(), member.ID, stack.TeamUpdateParams{AllConnections: true})
	require.NoError(t, err)
	assert.Nil(t, updated.AllowedConnections)
	for _, name := range []string{"verify", "credential", "proxy"} {
		require.NoError(t, denied[name](), name)
	}
	_, err = client.Team.Update(t.Context(), member.ID, stack.TeamUpdateParams{AllowedConnections: []string{"scon_none"}})
	requireRefused(t, err, 400, "INVALID_REQUEST")
}

func TestTeamUpdateParamsOnTheWire(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]stack.TeamUpdateParams{
		`{}`:                         {},
		`{"role":"admin"}`:           {Role: stack.RoleAdmin},
		`{"allowed_connections":[]}`: {AllowedConnections: []string{}},
		`{"name":"x","allowed_connections":null}`: {Name: "x", AllConnections: true, AllowedConnections: []string{"y"}},
	} {
		got, err := json.Marshal(p)
		require.NoError(t, err)
		assert.JSONEq(t, want, string(got))
	}
}
