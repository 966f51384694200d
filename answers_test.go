package stack_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

const agentKeys = "accountability_mode created_at credential_access description id key_mode llm_inject_system_prompt llm_redact_pii " +
	"name on_critical on_warning operator_id passport_blocked status updated_at"

const activeKeys = "accountability agent_id agent_name delegation_depth expires_at issued_at jti mission_id services session_id"

// Every answer has the documented keys, under exactly these names. (contract: endpoints 2.1, 2.2, 2.17)
func TestAnswersHaveTheirKeys(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	intent := map[string]any{"summary": "Test", "services": []string{"slack"}, "will_delegate": true}

	agent := s.raw(t, "POST", "/v1/agents/register", map[string]any{"name": "second"})
	assert.Equal(t, agentKeys, keys(agent))
	at := "/v1/agents/" + agent["id"].(string)
	assert.Equal(t, agentKeys, keys(s.raw(t, "GET", at, nil)))
	assert.Equal(t, agentKeys, keys(s.raw(t, "PATCH", at, map[string]any{"description": "x"})))
	assert.Equal(t, agentKeys, keys(s.raw(t, "POST", at+"/unblock", nil)), "nothing to unblock")
	assert.Equal(t, "deleted id", keys(s.raw(t, "DELETE", at, nil)))

	opened := s.raw(t, "POST", "/v1/missions", map[string]any{"intent_summary": "Test"})
	assert.Equal(t, "claim_id expires_at mission_id", keys(opened))
	mission := opened["mission_id"].(string)
	issued := s.raw(t, "POST", "/v1/passports/issue", map[string]any{"agent_id": s.agent.ID,
		"mission_ids": []string{mission}, "intent": intent})
	assert.Equal(t, "accountability expires_at jti token", keys(issued))
	token, jti := issued["token"].(string), issued["jti"].(string)
	refreshed := s.raw(t, "POST", "/v1/passports/refresh", map[string]any{"token": token, "ttl_seconds": nil})
	assert.Equal(t, "accountability expires_at jti token", keys(refreshed))
	assert.Equal(t, "claims valid", keys(s.raw(t, "POST", "/v1/passports/verify", map[string]any{"token": token})))
	assert.Equal(t, "reason valid", keys(s.raw(t, "POST", "/v1/passports/verify", map[string]any{"token": "x"})))

	var active []map[string]any
	require.NoError(t, s.client.Do(t.Context(), "GET", "/v1/passports/active?agent_id="+s.agent.ID, nil, &active))
	require.Len(t, active, 1)
	assert.Equal(t, activeKeys, keys(active[0]))

	child := s.Agent(t, stacktest.AgentConfig{})
	delegated := s.raw(t, "POST", "/v1/passports/delegate", map[string]any{"parent_passport_token": token,
		"child_agent_id": child.ID, "scopes": []any{}})
	assert.Equal(t, "accountability expires_at jti token", keys(delegated))

	report := map[string]any{"services_used": []string{"slack"}, "actions_count": 0}
	assert.Equal(t, "checkpoint_id flags new_expires_at passport_jti",
		keys(s.raw(t, "POST", "/v1/passports/"+jti+"/checkpoint", report)))
	checkout := s.raw(t, "POST", "/v1/passports/"+jti+"/checkout",
		map[string]any{"services_used": []string{"github"}, "actions_count": 1})
	assert.Equal(t, "checkout_id flags passport_jti review_status", keys(checkout))
	assert.Equal(t, "message severity type", keys(checkout["flags"].([]any)[0].(map[string]any)))
	full := s.raw(t, "GET", "/v1/passports/"+jti+"/report", nil)
	assert.Equal(t, "checkout checkpoints intent passport review", keys(full))
	assert.Equal(t, "accountability agent_id agent_name checked_out_at delegation_depth expires_at issued_at jti mission_id services session_id status",
		keys(full["passport"].(map[string]any)))

	revocation := "cascaded cascaded_count jti reason revoked_at revoked_count type"
	assert.Equal(t, revocation, keys(s.raw(t, "POST", "/v1/passports/revoke",
		map[string]any{"jti": delegated["jti"], "reason": nil})))
	session := active[0]["session_id"].(string)
	none := map[string]any{"reason": nil}
	assert.Equal(t, "agent_id "+strings.ReplaceAll(revocation, "jti ", ""),
		keys(s.raw(t, "POST", "/v1/passports/revoke-agent/"+s.agent.ID, none)))
	bySession := s.raw(t, "POST", "/v1/passports/revoke-session/"+session, none)
	assert.Equal(t, "cascaded cascaded_count reason revoked_at revoked_count session_id type", keys(bySession))
	assert.Equal(t, "cascaded cascaded_count reason revoked_at revoked_count type",
		keys(s.raw(t, "POST", "/v1/passports/revoke-all", none)))

	started := s.raw(t, "POST", "/v1/missions/start", map[string]any{"agent_id": s.agent.ID,
		"mission":  map[string]any{"intent_summary": "Test"},
		"passport": map[string]any{"intent": intent}})
	assert.Equal(t, "claim_id expires_at mission_id passport", keys(started))
	assert.Subset(t, started["passport"], map[string]any{"accountability": "enforced"})
	assert.Contains(t, started["passport"], "token")
	at = "/v1/missions/" + started["mission_id"].(string)
	renewed := s.raw(t, "POST", at+"/renew", map[string]any{})
	assert.Equal(t, "expires_at mission_id passport", keys(renewed))
	record := s.raw(t, "GET", at, nil)
	assert.Equal(t, "agent_id caps claim_id expires_at intent_services intent_summary mission_id opened_at operator_id passports status usage", keys(record))
	list := s.raw(t, "GET", "/v1/missions?limit=1&page=1&status=live", nil)
	assert.Equal(t, "items limit page total", keys(list))
	assert.Equal(t, record, list["items"].([]any)[0])
	assert.Equal(t, "caps events mission_id status usage", keys(s.raw(t, "GET", at+"/replay", nil)))
	assert.Equal(t, map[string]any{"items": []any{}}, s.raw(t, "GET", at+"/operator-reviews", nil))
	assert.Equal(t, "claim_id completed_at mission_id terminal_state transitioned",
		keys(s.raw(t, "POST", at+"/complete", map[string]any{})))
	revoked := s.raw(t, "POST", "/v1/missions/"+mission+"/revoke", map[string]any{"reason": "adversarial"})
	assert.Equal(t, "claim_id completed_at mission_id reason terminal_state transitioned", keys(revoked))
	s.RequireNoUnknownRequests(t)
}

// The claims of a passport, as another implementation decodes them. (contract: endpoints 5.4)
func TestPassportIsAJWTWithItsClaims(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	decode := func(token stack.Secret) (header, claims map[string]any) {
		parts := strings.Split(token.Reveal(), ".")
		require.Len(t, parts, 3)
		for i, out := range []*map[string]any{&header, &claims} {
			data, err := base64.RawURLEncoding.DecodeString(parts[i])
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(data, out))
		}
		return header, claims
	}
	root := s.issue(t)
	header, claims := decode(root.Token)
	assert.Equal(t, "EdDSA", header["alg"])
	jwks := s.raw(t, "GET", "/v1/.well-known/jwks.json", nil)
	assert.Equal(t, jwks["keys"].([]any)[0].(map[string]any)["kid"], header["kid"])
	assert.Equal(t, "aud exp iat iss jti stk sub", keys(claims))
	stk := claims["stk"].(map[string]any)
	const always = "accountability agent_id agent_name checkpoint_interval delegation_depth identity_claims intent_services intent_summary " +
		"mission_ids operator_id "
	assert.Equal(t, always+"services session_id", keys(stk))
	assert.Equal(t, "connection_id scopes service_name", keys(stk["services"].([]any)[0].(map[string]any)))
	assert.Equal(t, 300.0, stk["checkpoint_interval"])
	assert.Equal(t, claims["sub"], stk["agent_id"])
	assert.Equal(t, []any{}, stk["identity_claims"])

	_, claims = decode(s.chain(t, root, 1)[1].Token)
	assert.Equal(t, always+"parent_passport_id services session_id", keys(claims["stk"].(map[string]any)))
}
