package mockserver

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// Every route takes a member's key as its row in the table says, and no key not at all.
func TestRolesOnEveryRoute(t *testing.T) {
	t.Parallel()
	for _, role := range rolesUp {
		t.Run(string(role), func(t *testing.T) {
			t.Parallel()
			s, _, client := newDirect(t)
			member, err := client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "a@example.com", Name: "A", Role: role})
			require.NoError(t, err)
			key, err := s.AcceptInvitation(member.ID)
			require.NoError(t, err)
			with := func(bearer string) func(*http.Request) {
				return func(req *http.Request) { req.Header.Set("Authorization", bearer) }
			}
			for _, r := range s.routes {
				if r.public || r.control {
					continue
				}
				name := r.method + " " + r.pattern
				target := strings.NewReplacer("{", "", "}", "").Replace(r.pattern)
				rec, _ := ask(t, s, r.method, target, "", with(""))
				assert.Equal(t, http.StatusUnauthorized, rec.Code, name)
				rec, answer := ask(t, s, r.method, target, "", with("Bearer "+key.Reveal()))
				refused := false
				if rec.Code == http.StatusForbidden {
					_, details := refusalOf(t, answer)
					refused = details["check"] == "role"
				}
				assert.Equal(t, !mayByContract(role, r.method, r.pattern), refused, name)
			}
		})
	}
}

// mayByContract says again, apart from the table, what the roles are for. (contract: server-api 2.2)
func mayByContract(role stack.TeamRole, method, pattern string) bool {
	under := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(pattern, prefix) })
	}
	own := under("/v1/audit", "/v1/security-events", "/v1/evidence-packs") // the last hold both of the others
	read := method == http.MethodGet || pattern == "/v1/proxy/operations/get" || strings.HasSuffix(pattern, "/check-trust")
	manage := !read && (under("/v1/team", "/v1/billing", "/v1/detectors", "/v1/partner/", "/v1/authority/profile-versions", "/v1/notifications", "/v1/pii", "/v1/operators/me/identity-settings") ||
		slices.Contains([]string{"/v1/intents/{approval_id}/approve", "/v1/fleets", "/v1/fleets/{policy_id}",
			"/v1/fleets/{policy_id}/revoke"}, pattern))
	switch {
	case own:
		return false
	case read:
		return true
	case manage:
		return role == stack.RoleAdmin
	}
	return role != stack.RoleReadonly
}

func TestTeamOfAnotherOperator(t *testing.T) {
	t.Parallel()
	s, _, client := newDirect(t)
	member, err := client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "a@example.com", Name: "A"})
	require.NoError(t, err)
	_, stranger := newStranger(t, s)
	_, err = stranger.Team.Update(t.Context(), member.ID, stack.TeamUpdateParams{Role: stack.RoleAdmin})
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = stranger.Team.Revoke(t.Context(), member.ID)
	require.ErrorIs(t, err, stack.ErrNotFound)
	list, err := stranger.Team.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
	_, err = stranger.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "a@example.com", Name: "A"})
	require.NoError(t, err, "somebody may be a member of two teams")
}
