package stack_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// verified has a person verified by a provider, and returns the claims.
func verified(t *testing.T, srv *stacktest.Server, providerKey string, claimTypes ...string) []stack.IdentityClaim {
	t.Helper()
	client := srv.Client()
	session, err := client.Identity.InitiateVerification(t.Context(),
		stack.VerificationParams{ProviderKey: providerKey, RequestedClaims: claimTypes})
	require.NoError(t, err)
	require.NoError(t, srv.VerifyIdentity(session.SessionRef))
	done, err := client.Identity.CompleteVerification(t.Context(), providerKey, session.SessionRef)
	require.NoError(t, err)
	return done.Claims
}

func activeClaims(t *testing.T, client *stack.Client) []stack.IdentityClaim {
	t.Helper()
	claims, err := client.Identity.ListClaims(t.Context())
	require.NoError(t, err)
	return claims
}

func settings(t *testing.T, client *stack.Client, params stack.IdentitySettingsParams) *stack.IdentitySettings {
	t.Helper()
	s, err := client.Identity.UpdateSettings(t.Context(), params)
	require.NoError(t, err)
	return s
}

// carried lists the claim ids of a passport's token.
func carried(t *testing.T, client *stack.Client, token stack.Secret) []any {
	t.Helper()
	ids := []any{}
	for _, c := range verification(t, client, token).Claims.STK.IdentityClaims {
		ids = append(ids, c["claim_id"])
	}
	return ids
}

func TestIdentityProviders(t *testing.T) {
	t.Parallel()
	providers, err := stacktest.New(t).Client().Identity.ListProviders(t.Context())
	require.NoError(t, err)
	var keys []string
	for _, p := range providers {
		keys = append(keys, p.Key)
		assert.NotEmpty(t, p.Name)
		assert.NotEmpty(t, p.Description)
		assert.Equal(t, []stack.IdentityLayer{stack.LayerHumanity, stack.LayerIdentity}, p.Layers)
		assert.Equal(t, []string{stack.ClaimVerifiedHuman, stack.ClaimVerifiedIdentity}, p.ClaimTypes)
		assert.Equal(t, stack.AssuranceHigh, p.Assurance)
	}
	assert.Equal(t, []string{"bankid_se", "stripe_identity", "login_gov", "id_me", "plaid"}, keys)
}

func TestIdentityVerification(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	session, err := client.Identity.InitiateVerification(t.Context(), stack.VerificationParams{ProviderKey: "login_gov",
		RequestedClaims: []string{stack.ClaimVerifiedIdentity,
			stack.ClaimVerifiedHuman}, ReturnURL: "https://app.example/back?a=<b>"})
	require.NoError(t, err)
	assert.Equal(t, stack.VerificationPending, session.Status)
	assert.False(t, session.ExpiresAt.IsZero())

	complete := func() (*stack.IdentityVerification, error) {
		return client.Identity.CompleteVerification(t.Context(), "login_gov", session.SessionRef)
	}
	_, err = complete()
	require.ErrorIs(t, err, stack.ErrVerificationPending)
	refused := refusal(t, err, http.StatusConflict, "VERIFICATION_PENDING")
	assert.Equal(t, []any{"verification_state", "pending"}, []any{refused.Details["check"], refused.Details["status"]})
	assert.Empty(t, activeClaims(t, client))

	page := openPage(t, srv, http.MethodGet, session.AuthorizationURL)
	assert.Contains(t, page, "<h1>Login.gov</h1>")
	assert.Contains(t, page, `<form method="post"><button>`)
	assert.NotContains(t, page, "app.example")
	_, err = complete()
	require.ErrorIs(t, err, stack.ErrVerificationPending, "looking is not acting")
	for range 2 {
		page = openPage(t, srv, http.MethodPost, session.AuthorizationURL)
		assert.Contains(t, page, `<a href="https://app.example/back?a=%3cb%3e">`)
		assert.NotContains(t, page, "<form")
	}
	require.NoError(t, srv.VerifyIdentity(session.SessionRef))
	assert.Len(t, auditOf(t, client, "identity.verify_confirm"), 1)

	done, err := complete()
	require.NoError(t, err)
	assert.Equal(t, []any{session.SessionRef, "login_gov", stack.VerificationVerified},
		[]any{done.SessionRef, done.ProviderKey, done.Status})
	require.Len(t, done.Claims, 2)
	for i, want := range []stack.IdentityClaim{
		{Layer: stack.LayerIdentity, ClaimType: "verified_identity", AssuranceLevel: stack.AssuranceHigh},
		{Layer: stack.LayerHumanity, ClaimType: "verified_human", AssuranceLevel: stack.AssuranceSubstantial},
	} {
		claim := done.Claims[i]
		assert.True(t, strings.HasPrefix(claim.ID, "clm_"))
		assert.NotEmpty(t, claim.ClaimRef)
		want.ID, want.ClaimRef, want.VerifiedAt = claim.ID, claim.ClaimRef, claim.VerifiedAt
		want.ExpiresAt = claim.VerifiedAt.Add(365 * 24 * time.Hour)
		want.OperatorID, want.ProviderKey = srv.OperatorID(), "login_gov"
		assert.Equal(t, want, claim)
	}
	again, err := complete()
	require.NoError(t, err)
	assert.Equal(t, done, again, "a repetition makes no more claims")
	assert.Equal(t, done.Claims, activeClaims(t, client))
	for _, action := range []string{"identity.verify_initiate", "identity.verify_complete"} {
		rows := auditOf(t, client, action)
		require.Len(t, rows, 1, action)
		assert.Equal(t, "system", rows[0].Layer)
	}
	defaulted := verified(t, srv, "plaid")
	require.Len(t, defaulted, 1)
	assert.Equal(t, []any{"verified_human", stack.AssuranceHigh}, []any{defaulted[0].ClaimType, defaulted[0].AssuranceLevel})
	srv.RequireAuditIntact(t)
}

// openPage asks for the page of a verification as a browser does.
func openPage(t *testing.T, srv *stacktest.Server, method, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := srv.Transport().RoundTrip(req)
	require.NoError(t, err)
	defer func() { assert.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	assert.Equal(t, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
	assert.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'")
	return string(body)
}

func TestIdentityVerificationRefusals(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	initiate := func(providerKey, returnURL string, claims ...string) error {
		return failure(client.Identity.InitiateVerification(t.Context(), stack.VerificationParams{ProviderKey: providerKey,
			RequestedClaims: claims, ReturnURL: returnURL}))
	}
	session, err := client.Identity.InitiateVerification(t.Context(), stack.VerificationParams{ProviderKey: "plaid"})
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		err    error
		status int
		code   string
		field  any
	}{
		"unknown provider": {initiate("acme", ""), http.StatusNotFound, "NOT_FOUND", nil},
		"unknown claim": {initiate("plaid", "", "verified_human", "verified_dog"), http.StatusBadRequest,
			"INVALID_REQUEST", "body.requested_claims[1]"},
		"a delegation": {initiate("plaid", "", stack.ClaimDelegation), http.StatusBadRequest, "INVALID_REQUEST",
			"body.requested_claims[0]"},
		"claim twice": {initiate("plaid", "", "verified_human", "verified_human"), http.StatusBadRequest,
			"INVALID_REQUEST", "body.requested_claims[1]"},
		"return to a script": {initiate("plaid", "javascript:alert(1)"), http.StatusBadRequest, "INVALID_REQUEST",
			"body.return_url"},
		"return to a path": {initiate("plaid", "/back"), http.StatusBadRequest, "INVALID_REQUEST", "body.return_url"},
		"return with a password": {initiate("plaid", "https://u:secret@app.example/"), http.StatusBadRequest,
			"INVALID_REQUEST", "body.return_url"},
		"complete, unknown": {failure(client.Identity.CompleteVerification(t.Context(), "plaid", "idv_none")),
			http.StatusNotFound, "NOT_FOUND", nil},
		"complete, other provider": {failure(client.Identity.CompleteVerification(t.Context(), "id_me", session.SessionRef)),
			http.StatusBadRequest, "INVALID_REQUEST", "body.provider_key"},
		"revoke, unknown": {failure(client.Identity.RevokeClaim(t.Context(), "clm_none")), http.StatusNotFound,
			"NOT_FOUND", nil},
	} {
		refused := refusal(t, tt.err, tt.status, tt.code)
		assert.Equal(t, tt.field, refused.Details["field"], name)
		assert.NotContains(t, fmt.Sprint(refused, refused.Details), "secret", name)
	}
	require.Error(t, srv.VerifyIdentity("idv_none"))

	other := stacktest.New(t)
	_, err = other.Client().Identity.CompleteVerification(t.Context(), "plaid", session.SessionRef)
	require.ErrorIs(t, err, stack.ErrNotFound)
}

func TestIdentityVerificationExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		client := srv.Client()
		idle, err := client.Identity.InitiateVerification(t.Context(), stack.VerificationParams{ProviderKey: "plaid"})
		require.NoError(t, err)
		late, err := client.Identity.InitiateVerification(t.Context(), stack.VerificationParams{ProviderKey: "plaid"})
		require.NoError(t, err)
		time.Sleep(15*time.Minute - time.Nanosecond)
		require.NoError(t, srv.VerifyIdentity(late.SessionRef))
		time.Sleep(time.Nanosecond)
		require.ErrorContains(t, srv.VerifyIdentity(idle.SessionRef), "VERIFICATION_EXPIRED")
		for _, ref := range []string{idle.SessionRef, late.SessionRef} {
			_, err = client.Identity.CompleteVerification(t.Context(), "plaid", ref)
			mustRefuse(t, err, http.StatusGone, "VERIFICATION_EXPIRED")
		}
		assert.Empty(t, activeClaims(t, client))
	})
}

func TestIdentitySettings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		client := srv.Client()
		begin, err := client.Identity.GetSettings(t.Context())
		require.NoError(t, err)
		assert.Equal(t, stack.IdentitySettings{ClaimTTL: stack.ClaimTTL1Year, ClaimInheritance: stack.InheritAuto,
			AutoRevoke: true}, *begin)
		old := verified(t, srv, "plaid")[0]
		no := false
		changed := settings(t, client, stack.IdentitySettingsParams{ClaimInheritance: stack.InheritOptIn, AutoRevoke: &no})
		assert.Equal(t, stack.IdentitySettings{ClaimTTL: stack.ClaimTTL1Year, ClaimInheritance: stack.InheritOptIn}, *changed)
		assert.Len(t, auditOf(t, client, "identity.settings_update"), 1)
		for ttl, days := range map[stack.ClaimTTL]int{"30d": 30, "90d": 90, "180d": 180, "1y": 365} {
			settings(t, client, stack.IdentitySettingsParams{ClaimTTL: ttl})
			claim := verified(t, srv, "plaid")[0]
			assert.Equal(t, claim.VerifiedAt.AddDate(0, 0, days), claim.ExpiresAt, string(ttl))
		}
		for field, params := range map[string]stack.IdentitySettingsParams{
			"body.identity_claim_ttl": {ClaimTTL: "2y"}, "body.identity_claim_inheritance": {ClaimInheritance: "never"},
		} {
			_, err := client.Identity.UpdateSettings(t.Context(), params)
			assert.Equal(t, field, refusal(t, err, http.StatusBadRequest, "INVALID_REQUEST").Details["field"])
		}
		time.Sleep(30 * 24 * time.Hour)
		assert.Len(t, activeClaims(t, client), 4)
		time.Sleep(335*24*time.Hour - time.Second)
		assert.Contains(t, activeClaims(t, client), old)
		time.Sleep(time.Second)
		assert.Empty(t, activeClaims(t, client), "each holds as long as it was made for")
		assert.Len(t, auditOf(t, client, "identity.claim_expire"), 5)
	})
}

func TestIdentityDelegation(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	verified(t, srv, "plaid", stack.ClaimVerifiedHuman)
	_, err := client.Identity.GrantDelegation(t.Context(), []string{"tax:file"})
	require.ErrorIs(t, err, stack.ErrIdentityRequirementsNotMet)
	refused := refusal(t, err, http.StatusForbidden, "IDENTITY_REQUIREMENTS_NOT_MET")
	assert.Equal(t, "identity_layer", refused.Details["check"])

	settings(t, client, stack.IdentitySettingsParams{ClaimTTL: stack.ClaimTTL30Days})
	basis := verified(t, srv, "bankid_se", stack.ClaimVerifiedIdentity)[0]
	settings(t, client, stack.IdentitySettingsParams{ClaimTTL: stack.ClaimTTL1Year})
	claim, err := client.Identity.GrantDelegation(t.Context(), []string{"tax:file", "tax:read"})
	require.NoError(t, err)
	assert.Equal(t, stack.IdentityClaim{ID: claim.ID, OperatorID: srv.OperatorID(), ProviderKey: "bankid_se",
		Layer:     stack.LayerDelegation,
		ClaimType: stack.ClaimDelegation, ClaimRef: claim.ClaimRef, AssuranceLevel: stack.AssuranceHigh, VerifiedAt: claim.VerifiedAt,
		ExpiresAt: basis.ExpiresAt, DelegatedScopes: []string{"tax:file",
			"tax:read"}}, *claim, "it ends no later than what it rests on")
	assert.Len(t, auditOf(t, client, "identity.delegate"), 1)
	for field, scopes := range map[string][]string{
		"body.delegated_scopes[1]": {"a", "a"}, "body.delegated_scopes[0]": {" "}, "body.delegated_scopes": make([]string, 65)} {
		refused = refusal(t, failure(client.Identity.GrantDelegation(t.Context(), scopes)), http.StatusBadRequest,
			"INVALID_REQUEST")
		assert.Equal(t, field, refused.Details["field"])
	}

	revoked, err := client.Identity.RevokeClaim(t.Context(), basis.ID)
	require.NoError(t, err)
	assert.Equal(t, []string{basis.ID, claim.ID}, revoked.RevokedClaims, "a delegation falls with its basis")
	again, err := client.Identity.RevokeClaim(t.Context(), claim.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{claim.ID, []string{}}, []any{again.ClaimID, again.RevokedClaims})
	assert.Len(t, activeClaims(t, client), 1)
}

func TestIdentityParamErrors(t *testing.T) {
	t.Parallel()
	client, err := stack.New(stack.WithAPIKey("sk_live_x"), stack.WithBaseURL("http://stack.mock"),
		stack.WithHTTPClient(&http.Client{Transport: noCalls{t}}))
	require.NoError(t, err)
	human := stack.ServiceRequirementParams{Layer: stack.LayerHumanity, RequiresClaim: stack.ClaimVerifiedHuman,
		MinimumAssurance: stack.AssuranceLow}
	require1 := func(change func(*stack.ServiceRequirementParams)) error {
		params := human
		change(&params)
		_, err := client.Identity.ReplaceServiceRequirement(t.Context(), "slack", &params)
		require.Error(t, err)
		return failure(client.Identity.SetServiceRequirement(t.Context(), "slack", params))
	}
	for name, tt := range map[string]struct {
		err   error
		param string
	}{
		"provider": {failure(client.Identity.InitiateVerification(t.Context(), stack.VerificationParams{})),
			"provider_key"},
		"complete, provider": {failure(client.Identity.CompleteVerification(t.Context(), "", "idv_x")), "provider_key"},
		"complete, session":  {failure(client.Identity.CompleteVerification(t.Context(), "plaid", "")), "session_ref"},
		"delegation":         {failure(client.Identity.GrantDelegation(t.Context(), nil)), "delegated_scopes"},
		"claim":              {failure(client.Identity.RevokeClaim(t.Context(), "")), "claim_id"},
		"requirements":       {failure(client.Identity.GetServiceRequirements(t.Context(), "")), "service_id"},
		"layer":              {require1(func(p *stack.ServiceRequirementParams) { p.Layer = "" }), "layer"},
		"requires claim":     {require1(func(p *stack.ServiceRequirementParams) { p.RequiresClaim = "" }), "requires_claim"},
		"assurance":          {require1(func(p *stack.ServiceRequirementParams) { p.MinimumAssurance = "" }), "minimum_assurance"},
		"no basis": {require1(func(p *stack.ServiceRequirementParams) { p.Layer, p.RequiresPII = stack.LayerIdentity, true }),
			"lawful_basis"},
		"no PII": {require1(func(p *stack.ServiceRequirementParams) {
			p.Layer, p.LawfulBasis = stack.LayerIdentity,
				"contract"
		}), "lawful_basis"},
		"set, service":         {failure(client.Identity.SetServiceRequirement(t.Context(), "", human)), "service_id"},
		"replace, service":     {failure(client.Identity.ReplaceServiceRequirement(t.Context(), "", nil)), "service_id"},
		"delete, service":      {client.Identity.DeleteServiceRequirement(t.Context(), "", "srq_x"), "service_id"},
		"delete, requirement":  {client.Identity.DeleteServiceRequirement(t.Context(), "slack", ""), "requirement_id"},
		"delete, no id at all": {client.Identity.DeleteServiceRequirement(t.Context(), "slack", ".."), "requirement_id"},
	} {
		var param *stack.ParamError
		require.ErrorAs(t, tt.err, &param, name)
		assert.Equal(t, tt.param, param.Param, name)
	}
}
