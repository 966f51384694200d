package stack_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// idsOf lists a caller's connections.
func idsOf(t *testing.T, client *stack.Client) (ids []string) {
	t.Helper()
	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

// anewBy tries to connect GitHub again by consent.
func anewBy(t *testing.T, client *stack.Client, id string) error {
	t.Helper()
	return failure(client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "github", ConnectionID: id,
		Scopes: []string{"repo", "user:email"}}))
}

// A consent is for the operator that asked, whoever opens the page, and for nobody else's connection.
func TestConsentOfAnotherOperator(t *testing.T) {
	t.Parallel()
	s := newTenant(t, stack.Logged)
	own, err := s.ApproveConnection(askFor(t, s.client).AuthorizationURL)
	require.NoError(t, err)
	mustRefuse(t, anewBy(t, s.account, own.ID), http.StatusNotFound, "NOT_FOUND")
	theirs, err := s.ApproveConnection(askFor(t, s.account).AuthorizationURL)
	require.NoError(t, err)
	assert.Equal(t, s.tenant.OperatorID, theirs.OperatorID)
	assert.Equal(t, []string{s.slack.ID, theirs.ID}, idsOf(t, s.account))
	assert.NotContains(t, idsOf(t, s.client), theirs.ID)
	mustRefuse(t, anewBy(t, s.client, theirs.ID), http.StatusNotFound, "NOT_FOUND")
	mustRefuse(t, failure(s.client.Services.Verify(t.Context(), theirs.ID)), http.StatusNotFound, "NOT_FOUND")

	_, text, _ := page(t, s.Server, askFor(t, s.account).AuthorizationURL, nil)
	assert.Contains(t, text, s.tenant.OperatorID, "whose agents it is about")
}

// A member who is bound to some connections may use the one that they have asked for, and renew no other.
func TestConsentOfMember(t *testing.T) {
	t.Parallel()
	s := newConsented(t)
	slack := s.agent.Connections["slack"]
	_, theirs := join(t, s.Server, stack.TeamInviteParams{Role: stack.RoleStandard, AllowedConnections: []string{slack.ID}})
	mustRefuse(t, anewBy(t, theirs, s.github.ID), http.StatusForbidden, "FORBIDDEN")
	asked := askFor(t, theirs)
	_, err := s.ApproveConnection(asked.AuthorizationURL)
	require.NoError(t, err)
	assert.Equal(t, []string{slack.ID, asked.ID}, idsOf(t, theirs))
	require.NoError(t, anewBy(t, theirs, asked.ID))

	_, reader := join(t, s.Server, stack.TeamInviteParams{Role: stack.RoleReadonly})
	mustRefuse(t, anewBy(t, reader, asked.ID), http.StatusForbidden, "FORBIDDEN")
}

// What a partner has asked for in an account goes with its grant, also while nobody has consented yet.
func TestConsentOfPartner(t *testing.T) {
	t.Parallel()
	s := newGrant(t, stack.ConnectParams{Providers: []string{"github"}})
	mustRefuse(t, failure(s.theirs.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "slack", Scopes: []string{"chat:write"}})),
		http.StatusForbidden, "FORBIDDEN")
	own, err := s.ApproveConnection(askFor(t, s.account).AuthorizationURL)
	require.NoError(t, err)
	mustRefuse(t, anewBy(t, s.theirs, own.ID), http.StatusNotFound, "NOT_FOUND")
	made, err := s.ApproveConnection(askFor(t, s.theirs).AuthorizationURL)
	require.NoError(t, err)
	waiting := askFor(t, s.theirs)
	assert.Equal(t, []string{made.ID, waiting.ID}, idsOf(t, s.theirs))
	require.NoError(t, s.RevokeGrant(s.grant.GrantID))
	assert.Equal(t, []string{own.ID}, idsOf(t, s.account))
	_, err = s.ApproveConnection(waiting.AuthorizationURL)
	require.ErrorContains(t, err, "used already")
}

// A plan that has no service left asks nobody; to connect one again takes none.
func TestConsentBeyondThePlan(t *testing.T) {
	t.Parallel()
	s := newConsented(t)
	s.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
	var err error
	for err == nil {
		_, err = s.client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "github", Scopes: []string{"repo"}})
		require.Less(t, len(idsOf(t, s.client)), 100)
	}
	mustRefuse(t, err, http.StatusForbidden, "TIER_LIMIT_EXCEEDED")
	require.NoError(t, anewBy(t, s.client, s.github.ID))
}
