package mockserver

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/openapi"
)

// linksOf returns the links of a route's answer.
func linksOf(doc *openapi.Document, r route) map[string]openapi.Link {
	links := map[string]openapi.Link{}
	for _, answer := range doc.Paths[r.pattern][strings.ToLower(r.method)].Responses {
		for name, link := range answer.Links {
			links[name] = link
		}
	}
	return links
}

// resolved reads the value of a runtime expression out of an answer.
func resolved(t *testing.T, expression string, answer any) string {
	t.Helper()
	pointer, ok := strings.CutPrefix(expression, "$response.body#/")
	require.True(t, ok, expression)
	for _, name := range strings.Split(pointer, "/") {
		object, isObject := answer.(map[string]any)
		require.True(t, isObject, "%s in %v", expression, answer)
		answer = object[name]
	}
	text, ok := answer.(string)
	require.True(t, ok, "%s in %v", expression, answer)
	return text
}

// Each link leads to an operation, has every parameter of its path and no other, and takes it from a field that the answer's
// own schema has, which its example shows, or from the path that was called.
func TestOpenAPILinks(t *testing.T) {
	t.Parallel()
	doc := describeRoutes(routes())
	targets := map[string]route{}
	for _, r := range routes() {
		targets[r.name] = r
	}
	count, reached := 0, map[string]bool{}
	for _, r := range routes() {
		text, err := json.Marshal(doc.Paths[r.pattern][strings.ToLower(r.method)].Responses)
		require.NoError(t, err)
		var responses map[string]struct {
			Content map[string]struct{ Example any }
			Links   map[string]openapi.Link
		}
		require.NoError(t, json.Unmarshal(text, &responses))
		for status, answer := range responses {
			for name, link := range answer.Links {
				count++
				reached[name] = true
				assert.Contains(t, []string{"200", "201"}, status, r.pattern)
				to, ok := targets[link.OperationID]
				require.True(t, ok, "%s: no operation %s", r.pattern, link.OperationID)
				var params []string
				fromAnswer := 0
				for param, expression := range link.Parameters {
					params = append(params, "{"+param+"}")
					if part, ok := strings.CutPrefix(expression, "$request.path."); ok {
						assert.Contains(t, r.pattern, "{"+part+"}")
						continue
					}
					fromAnswer++
					assert.NotEmpty(t, resolved(t, expression, answer.Content[jsonMedia].Example), r.pattern)
				}
				assert.ElementsMatch(t, bracedName.FindAllString(to.pattern, -1), params, "%s to %s", r.pattern, to.pattern)
				assert.Positive(t, fromAnswer, "%s to %s", r.pattern, to.pattern)
			}
		}
	}
	assert.Equal(t, 376, count)
	assert.Len(t, reached, 101)

	for _, tt := range []struct{ from, to, param, value string }{
		{"registerAgent", "getAgent", "agent_id", "$response.body#/id"},
		{"openMission", "completeMission", "mission_id", "$response.body#/mission_id"},
		{"issuePassport", "checkoutPassport", "passport_jti", "$response.body#/jti"},
		{"connectService", "disconnectService", "connection_id", "$response.body#/id"},
		{"activateFleet", "getFleet", "policy_id", "$response.body#/id"},
		{"createPrincipal", "getPrincipal", "principal_id", "$response.body#/principal/id"},
		{"addReceiverKey", "revokeReceiverKey", "receiver_id", "$request.path.receiver_id"},
		{"issueTenantPassport", "showConsent", "token", ""},       // a secret
		{"openMission", "downloadOperatorReview", "claim_id", ""}, // another kind of claim
		{"connectService", "getRequirements", "service_id", ""},
		{"startTopUp", "revokeBySession", "session_id", ""},
		{"getAgent", "updateAgent", "agent_id", ""},
	} {
		require.Contains(t, targets, tt.from)
		assert.Equal(t, tt.value, linksOf(doc, targets[tt.from])[tt.to].Parameters[tt.param], "%s to %s", tt.from, tt.to)
	}
}

// TestOpenAPILinkIsFollowed makes an agent and goes where the answer's link leads.
func TestOpenAPILinkIsFollowed(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	rec, answer := ask(t, s, "POST", "/v1/agents/register", `{"name":"triage"}`)
	require.Equal(t, http.StatusOK, rec.Code)
	link := describeRoutes(routes()).Paths["/v1/agents/register"]["post"].Responses["200"].Links["getAgent"]
	id := resolved(t, link.Parameters["agent_id"], answer)
	rec, again := ask(t, s, "GET", "/v1/agents/"+id, "")
	require.Equal(t, http.StatusOK, rec.Code)
	assert.Equal(t, answer, again)
}
