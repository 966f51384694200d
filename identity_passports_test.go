package stack_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// issueWith starts a Mission whose passport names identity claims.
func issueWith(t *testing.T, client *stack.Client, agentID string, claimIDs ...string) (*stack.StartedMission, error) {
	t.Helper()
	return client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agentID,
		Mission: stack.MissionOpenParams{IntentSummary: "file taxes"},
		Passport: &stack.MissionPassportParams{IdentityClaimIDs: claimIDs,
			Intent: &stack.Intent{Summary: "file taxes", Services: []string{"slack"}}}})
}

func TestPassportsCarryClaims(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	agent, child := registerAgent(t, client, "bot", "", stack.Logged), registerAgent(t, client, "child", "", stack.Logged)
	grantAll(t, client, agent.ID, connectSlack(t, client, "xoxb-0123456789"))
	claims := append(verified(t, srv, "plaid"), verified(t, srv, "bankid_se", stack.ClaimVerifiedIdentity)...)

	auto := passportFor(t, client, agent.ID, "slack")
	assert.Equal(t, []map[string]any{
		{"claim_id": claims[0].ID, "provider": "plaid", "layer": "humanity", "claim_type": "verified_human",
			"assurance_level": "high",
			"verified_at":     float64(claims[0].VerifiedAt.Unix()), "expires_at": float64(claims[0].ExpiresAt.Unix())},
		{"claim_id": claims[1].ID, "provider": "bankid_se", "layer": "identity", "claim_type": "verified_identity",
			"assurance_level": "high",
			"verified_at":     float64(claims[1].VerifiedAt.Unix()), "expires_at": float64(claims[1].ExpiresAt.Unix())},
	}, verification(t, client, auto.Token).Claims.STK.IdentityClaims, "nothing personal, not even the reference")

	settings(t, client, stack.IdentitySettingsParams{ClaimInheritance: stack.InheritOptIn})
	assert.Empty(t, carried(t, client, passportFor(t, client, agent.ID, "slack").Token))
	named, err := issueWith(t, client, agent.ID, claims[1].ID)
	require.NoError(t, err)
	assert.Equal(t, []any{claims[1].ID}, carried(t, client, named.Passport.Token))
	delegated, err := client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: named.Passport.Token,
		ChildAgentID: child.ID})
	require.NoError(t, err)
	assert.Equal(t, []any{claims[1].ID}, carried(t, client, delegated.Token), "a delegate stands for the same person")
	renewed, err := client.Missions.Renew(t.Context(), named.MissionID)
	require.NoError(t, err)
	assert.Equal(t, []any{claims[1].ID}, carried(t, client, renewed.Passport.Token))

	for name, tt := range map[string]struct {
		ids    []string
		status int
		code   string
	}{
		"unknown": {[]string{"clm_none"}, http.StatusNotFound, "NOT_FOUND"},
		"twice":   {[]string{claims[0].ID, claims[0].ID}, http.StatusBadRequest, "INVALID_REQUEST"},
		"many":    {make([]string, 17), http.StatusBadRequest, "INVALID_REQUEST"},
	} {
		refused := refusal(t, failure(issueWith(t, client, agent.ID, tt.ids...)), tt.status, tt.code)
		assert.NotEmpty(t, refused.Details, name)
	}
	_, err = client.Identity.RevokeClaim(t.Context(), claims[0].ID)
	require.NoError(t, err)
	_, err = issueWith(t, client, agent.ID, claims[0].ID)
	assert.Equal(t, "identity_claim_state", refusal(t, err, http.StatusForbidden, "FORBIDDEN").Details["check"])
}

// However many claims there are, a passport that inherits them is not too large to sign.
func TestPassportsInheritTheNewestClaims(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	agent := registerAgent(t, client, "bot", "", stack.Logged)
	var want []any
	for range 20 {
		want = append(want, verified(t, srv, "plaid")[0].ID)
	}
	assert.Equal(t, want[4:], carried(t, client, passportFor(t, client, agent.ID, "slack").Token))
}

func TestRevokedClaim(t *testing.T) {
	t.Parallel()
	for _, auto := range []bool{true, false} {
		t.Run(fmt.Sprintf("auto-revoke %t", auto), func(t *testing.T) {
			t.Parallel()
			srv := stacktest.New(t)
			client := srv.Client()
			settings(t, client, stack.IdentitySettingsParams{AutoRevoke: &auto, ClaimInheritance: stack.InheritOptIn})
			agent, child := registerAgent(t, client, "bot", "", stack.Logged), registerAgent(t, client, "child", "", stack.Logged)
			claim, other := verified(t, srv, "plaid")[0], verified(t, srv, "id_me")[0]
			with, err := issueWith(t, client, agent.ID, claim.ID)
			require.NoError(t, err)
			delegated, err := client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: with.Passport.Token,
				ChildAgentID: child.ID})
			require.NoError(t, err)
			without, err := issueWith(t, client, agent.ID, other.ID)
			require.NoError(t, err)

			revoked, err := client.Identity.RevokeClaim(t.Context(), claim.ID)
			require.NoError(t, err)
			assert.Equal(t, []any{"bulk_claim", claim.ID, []string{claim.ID}},
				[]any{revoked.Type, revoked.ClaimID, revoked.RevokedClaims})
			gone := 0
			if auto {
				gone = 2
			}
			assert.Equal(t, gone, revoked.RevokedCount+revoked.CascadedCount)
			for _, token := range []stack.Secret{with.Passport.Token, delegated.Token} {
				assert.Equal(t, !auto, verification(t, client, token).Valid)
			}
			assert.True(t, verification(t, client, without.Passport.Token).Valid, "a passport without it lives on")
			assert.Equal(t, []stack.IdentityClaim{other}, activeClaims(t, client))

			again, err := client.Identity.RevokeClaim(t.Context(), claim.ID)
			require.NoError(t, err)
			assert.Equal(t, []any{revoked.RevokedAt, 0, []string{}}, []any{again.RevokedAt, again.RevokedCount, again.RevokedClaims})
			assert.Len(t, auditOf(t, client, "identity.claim_revoke"), 1)
			if auto {
				rows := auditOf(t, client, "passport.revoke")
				require.NotEmpty(t, rows)
				assert.Equal(t, "Identity claim revoked", rows[0].ErrorMessage)
			}
		})
	}
}

var (
	human = stack.ServiceRequirementParams{Layer: stack.LayerHumanity, RequiresClaim: stack.ClaimVerifiedHuman,
		MinimumAssurance:  stack.AssuranceHigh,
		AcceptedProviders: []string{"plaid", "id_me"}}
	identity = stack.ServiceRequirementParams{Layer: stack.LayerIdentity, RequiresClaim: stack.ClaimVerifiedIdentity,
		MinimumAssurance: stack.AssuranceSubstantial, RequiresPII: true, LawfulBasis: "contract"}
	delegation = stack.ServiceRequirementParams{Layer: stack.LayerDelegation, RequiresClaim: stack.ClaimDelegation,
		MinimumAssurance: stack.AssuranceLow, RequiredScopes: []string{"tax:file"}}
)

func TestServiceRequirements(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	set := func(serviceID string, params stack.ServiceRequirementParams) *stack.ServiceRequirement {
		r, err := client.Identity.SetServiceRequirement(t.Context(), serviceID, params)
		require.NoError(t, err)
		return r
	}
	list := func(serviceID string) []stack.ServiceRequirement {
		all, err := client.Identity.GetServiceRequirements(t.Context(), serviceID)
		require.NoError(t, err)
		return all
	}
	assert.Equal(t, []stack.ServiceRequirement{}, list("slack"))
	first, second := set("svc_slack", human), set("slack", identity)
	basis := "contract"
	assert.Equal(t, stack.ServiceRequirement{ID: first.ID, OperatorID: srv.OperatorID(), ServiceID: "svc_slack",
		Layer:         stack.LayerHumanity,
		RequiresClaim: "verified_human", MinimumAssurance: stack.AssuranceHigh, AcceptedProviders: []string{"plaid",
			"id_me"}}, *first)
	assert.Equal(t, stack.ServiceRequirement{ID: second.ID, OperatorID: srv.OperatorID(), ServiceID: "svc_slack",
		Layer:         stack.LayerIdentity,
		RequiresClaim: "verified_identity", MinimumAssurance: stack.AssuranceSubstantial, RequiresPII: true, LawfulBasis: &basis}, *second)
	assert.Equal(t, []stack.ServiceRequirement{*first, *second}, list("slack"), "by key and by id")
	connectCustom(t, client, "tax-office", "tax-0123456789")
	third := set("tax-office", delegation)
	assert.Equal(t, "tax-office", third.ServiceID)

	require.NoError(t, client.Identity.DeleteServiceRequirement(t.Context(), "slack", first.ID))
	require.ErrorIs(t, client.Identity.DeleteServiceRequirement(t.Context(), "slack", first.ID), stack.ErrNotFound)
	require.ErrorIs(t, client.Identity.DeleteServiceRequirement(t.Context(), "slack", third.ID), stack.ErrNotFound,
		"another service's")
	assert.Equal(t, []stack.ServiceRequirement{*second}, list("svc_slack"))
	replaced, err := client.Identity.ReplaceServiceRequirement(t.Context(), "slack", &human)
	require.NoError(t, err)
	require.Len(t, replaced.Requirements, 1)
	assert.Equal(t, "verified_human", replaced.Requirements[0].RequiresClaim)
	assert.Equal(t, replaced.Requirements, list("slack"))
	cleared, err := client.Identity.ReplaceServiceRequirement(t.Context(), "slack", nil)
	require.NoError(t, err)
	assert.Equal(t, []stack.ServiceRequirement{}, cleared.Requirements)
	assert.Len(t, list("tax-office"), 1)
	for action, n := range map[string]int{"service.requirement_set": 3, "service.requirement_delete": 1,
		"service.requirement_replace": 2} {
		assert.Len(t, auditOf(t, client, action), n, action)
	}
	for range 16 {
		set("github", human)
	}
	_, err = client.Identity.SetServiceRequirement(t.Context(), "github", human)
	mustRefuse(t, err, http.StatusConflict, "TOO_MANY_REQUIREMENTS")
}

func TestServiceRequirementRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	post := func(body map[string]any) error {
		full := map[string]any{"layer": "humanity", "requires_claim": "verified_human", "minimum_assurance": "low"}
		for key, value := range body {
			full[key] = value
		}
		return client.Do(t.Context(), "POST", "/v1/services/slack/requirements", full, nil)
	}
	for name, tt := range map[string]struct {
		err   error
		field string
	}{
		"layer":     {post(map[string]any{"layer": "soul"}), "body.layer"},
		"assurance": {post(map[string]any{"minimum_assurance": "total"}), "body.minimum_assurance"},
		"claim":     {post(map[string]any{"requires_claim": "verified_identity"}), "body.requires_claim"},
		"provider": {post(map[string]any{"accepted_providers": []string{"plaid", "acme"}}),
			"body.accepted_providers[1]"},
		"provider twice": {post(map[string]any{"accepted_providers": []string{"plaid", "plaid"}}),
			"body.accepted_providers[1]"},
		"scopes of a human": {post(map[string]any{"required_scopes": []string{"tax:file"}}), "body.required_scopes"},
		"PII of a human":    {post(map[string]any{"requires_pii": true}), "body.requires_pii"},
		"identity, no PII": {post(map[string]any{"layer": "identity", "requires_claim": "verified_identity",
			"lawful_basis": "contract"}), "body.requires_pii"},
		"identity, no basis": {post(map[string]any{"layer": "identity", "requires_claim": "verified_identity",
			"requires_pii": true}), "body.lawful_basis"},
		"unknown field": {post(map[string]any{"colour": "red"}), "body.colour"},
		"replace, no requirement": {client.Do(t.Context(), "PUT", "/v1/services/slack/requirements", map[string]any{}, nil),
			"body.requirement"},
		"replace, bad one": {client.Do(t.Context(), "PUT", "/v1/services/slack/requirements",
			map[string]any{"requirement": map[string]any{
				"layer": "soul", "requires_claim": "x", "minimum_assurance": "low"}}, nil), "body.requirement.layer"},
		"replace, lacks a field": {client.Do(t.Context(), "PUT", "/v1/services/slack/requirements",
			map[string]any{"requirement": map[string]any{
				"layer": "humanity"}}, nil), "body.requirement.minimum_assurance"},
	} {
		refused := refusal(t, tt.err, http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, tt.field, refused.Details["field"], name)
		assert.NotNil(t, refused.Details["allowed"], name)
	}
	require.NoError(t, post(map[string]any{"accepted_providers": nil, "required_scopes": nil, "lawful_basis": nil}),
		"null is left out")
	for _, err := range []error{
		failure(client.Identity.GetServiceRequirements(t.Context(), "nowhere")),
		failure(client.Identity.SetServiceRequirement(t.Context(), "nowhere", human)),
		failure(client.Identity.ReplaceServiceRequirement(t.Context(), "nowhere", nil)),
		client.Identity.DeleteServiceRequirement(t.Context(), "nowhere", "srq_x"),
	} {
		require.ErrorIs(t, err, stack.ErrNotFound)
	}
}

// A service that demands claims is closed to passports that do not carry them, through the proxy and for raw reads.
func TestRequirementsOnTheProxy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		client := srv.Client()
		srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
		agent := registerAgent(t, client, "bot", stack.CredentialDirect, stack.Enforced)
		grantAll(t, client, agent.ID, connectSlack(t, client, "xoxb-0123456789"))
		call := func() error {
			passport := passportFor(t, client, agent.ID, "slack")
			_, proxied := client.Proxy.Request(t.Context(), stack.ProxyRequest{Service: "slack", Method: "GET",
				URL:           "https://slack.com/api/x",
				PassportToken: passport.Token})
			_, read := client.Credentials.Get(t.Context(), "slack", stack.CredentialParams{PassportToken: passport.Token})
			assert.Equal(t, proxied == nil, read == nil, "both ways to a credential are guarded alike")
			assert.True(t, verification(t, client, passport.Token).Valid, "a requirement is no misbehaviour")
			return proxied
		}
		unmet := func() *stack.Error {
			err := call()
			require.ErrorIs(t, err, stack.ErrIdentityRequirementsNotMet)
			return refusal(t, err, http.StatusForbidden, "IDENTITY_REQUIREMENTS_NOT_MET")
		}
		require.NoError(t, call())
		for _, params := range []stack.ServiceRequirementParams{human, delegation} {
			_, err := client.Identity.SetServiceRequirement(t.Context(), "slack", params)
			require.NoError(t, err)
		}
		verified(t, srv, "bankid_se", stack.ClaimVerifiedHuman)
		refused := unmet()
		assert.Equal(t, []any{"identity_requirements", "slack", []any{"verified_human (high, bankid_se)"},
			[]any{"an active verified_human claim of at least high assurance from plaid or id_me",
				"an active delegation claim of at least low assurance for tax:file"}},
			[]any{refused.Details["check"], refused.Details["service"], refused.Details["sent"],
				refused.Details["allowed"]}, "another provider is not accepted")
		require.Len(t, refused.Details["unmet"], 2)

		verified(t, srv, "id_me", stack.ClaimVerifiedHuman)
		require.Error(t, unmet(), "IAL1 is not high")
		settings(t, client, stack.IdentitySettingsParams{ClaimTTL: stack.ClaimTTL30Days})
		claim := verified(t, srv, "plaid")[0]
		refused = unmet()
		require.Len(t, refused.Details["unmet"], 1)
		settings(t, client, stack.IdentitySettingsParams{ClaimTTL: stack.ClaimTTL1Year})
		verified(t, srv, "bankid_se", stack.ClaimVerifiedIdentity)
		_, err := client.Identity.GrantDelegation(t.Context(), []string{"tax:read"})
		require.NoError(t, err)
		require.Error(t, unmet(), "another scope")
		_, err = client.Identity.GrantDelegation(t.Context(), []string{"tax:read", "tax:file"})
		require.NoError(t, err)
		require.NoError(t, call())

		// What a passport carries counts as long as the record says so.
		no := false
		settings(t, client, stack.IdentitySettingsParams{AutoRevoke: &no})
		started, err := client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agent.ID,
			Mission: stack.MissionOpenParams{IntentSummary: "file taxes", ExpiresIn: time.Hour},
			Passport: &stack.MissionPassportParams{TTL: time.Hour, CheckpointInterval: time.Hour,
				Intent: &stack.Intent{Summary: "file taxes", Services: []string{"slack"}}}})
		require.NoError(t, err)
		proxied := func() error {
			return failure(client.Proxy.Request(t.Context(), stack.ProxyRequest{Service: "slack", Method: "GET",
				URL:           "https://slack.com/api/x",
				PassportToken: started.Passport.Token}))
		}
		require.NoError(t, proxied())
		_, err = client.Identity.RevokeClaim(t.Context(), claim.ID)
		require.NoError(t, err)
		err = proxied()
		require.ErrorIs(t, err, stack.ErrIdentityRequirementsNotMet)
		assert.Contains(t, refusal(t, err, http.StatusForbidden, "IDENTITY_REQUIREMENTS_NOT_MET").Details["sent"],
			"verified_human (high, plaid, no longer valid)")

		_, err = client.Identity.ReplaceServiceRequirement(t.Context(), "slack", nil)
		require.NoError(t, err)
		require.NoError(t, proxied())
		blocked := 0
		for _, row := range auditOf(t, client, "credential.proxy") {
			if row.ErrorCode == "IDENTITY_REQUIREMENTS_NOT_MET" {
				blocked++
			}
		}
		assert.Equal(t, 5, blocked)
		srv.RequireNoSecurityEvents(t)
	})
}

// A claim that expires closes what it opened, while the passport lives.
func TestRequirementsAndExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		client := srv.Client()
		srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
		agent := registerAgent(t, client, "bot", "", stack.Logged)
		grantAll(t, client, agent.ID, connectSlack(t, client, "xoxb-0123456789"))
		_, err := client.Identity.SetServiceRequirement(t.Context(), "slack", human)
		require.NoError(t, err)
		settings(t, client, stack.IdentitySettingsParams{ClaimTTL: stack.ClaimTTL30Days})
		claim := verified(t, srv, "plaid")[0]
		time.Sleep(time.Until(claim.ExpiresAt) - time.Minute)
		passport := passportFor(t, client, agent.ID, "slack")
		call := func() error {
			return failure(client.Proxy.Request(t.Context(), stack.ProxyRequest{Service: "slack", Method: "GET",
				URL:           "https://slack.com/api/x",
				PassportToken: passport.Token}))
		}
		require.NoError(t, call())
		time.Sleep(time.Minute)
		require.ErrorIs(t, call(), stack.ErrIdentityRequirementsNotMet)
	})
}
