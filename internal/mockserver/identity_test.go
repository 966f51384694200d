package mockserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

// claimsFrom has a person verified, and returns their claims as they are on record.
func claimsFrom(t *testing.T, s *Server, op *operator, client *stack.Client, claimTypes ...string) []*identityClaim {
	t.Helper()
	session, err := client.Identity.InitiateVerification(t.Context(),
		stack.VerificationParams{ProviderKey: "bankid_se", RequestedClaims: claimTypes})
	require.NoError(t, err)
	require.NoError(t, s.VerifyIdentity(session.SessionRef))
	done, err := client.Identity.CompleteVerification(t.Context(), "bankid_se", session.SessionRef)
	require.NoError(t, err)
	var claims []*identityClaim
	for _, c := range done.Claims {
		claim, ok := op.claims.get(c.ID)
		require.True(t, ok)
		claims = append(claims, claim)
	}
	return claims
}

// Of a person who is only known to be one nothing is kept; of one who is identified a sealed stand-in, until the claim ends.
func TestPersonalDataIsSealedAndWiped(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, s *Server, client *stack.Client, claimID string){
		"revoked": func(t *testing.T, _ *Server, client *stack.Client, claimID string) {
			require.NoError(t, failure(client.Identity.RevokeClaim(t.Context(), claimID)))
		},
		"expired": func(_ *testing.T, s *Server, _ *stack.Client, _ string) { s.Advance(366 * day) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, op, client := newDirect(t)
			claims := claimsFrom(t, s, op, client, stack.ClaimVerifiedHuman, stack.ClaimVerifiedIdentity)
			assert.Equal(t, vault.Sealed{}, claims[0].sealed)
			plain, err := s.vault.Open(claims[1].sealed, claims[1].sealContext())
			require.NoError(t, err)
			assert.Contains(t, string(plain), claims[1].ClaimRef)
			_, err = s.vault.Open(claims[1].sealed, claims[0].sealContext())
			require.ErrorIs(t, err, vault.ErrOpen, "it opens for its own claim only")
			end(t, s, client, claims[1].ID)
			assert.Equal(t, vault.Sealed{}, claims[1].sealed)
		})
	}
}

// Many that complete a verification at once get the same claims.
func TestVerificationIsCompletedOnce(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	session, err := client.Identity.InitiateVerification(t.Context(), stack.VerificationParams{ProviderKey: "plaid"})
	require.NoError(t, err)
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			assert.NoError(t, s.VerifyIdentity(session.SessionRef))
			if done, err := client.Identity.CompleteVerification(t.Context(), "plaid", session.SessionRef); assert.NoError(t, err) {
				ids[i] = done.Claims[0].ID
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		assert.Equal(t, ids[0], id)
	}
	assert.Equal(t, 1, op.claims.len())
}

// The page needs no key, and shows nothing to somebody without the reference.
func TestVerificationPage(t *testing.T) {
	t.Parallel()
	s, _, client := newDirect(t)
	session, err := client.Identity.InitiateVerification(t.Context(), stack.VerificationParams{ProviderKey: "plaid"})
	require.NoError(t, err)
	ask := func(method, path string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody))
		return rec
	}
	for _, path := range []string{"/identity/verify/idv_none", "/identity/verify/%3Cscript%3E"} {
		for _, method := range []string{"GET", "POST"} {
			rec := ask(method, path)
			assert.Equal(t, []any{http.StatusNotFound, "application/json"}, []any{rec.Code, rec.Header().Get("Content-Type")})
		}
	}
	path := verificationPath + session.SessionRef
	assert.Equal(t, http.StatusOK, ask("GET", path).Code)
	s.Advance(time.Hour)
	assert.Equal(t, http.StatusGone, ask("GET", path).Code)
	assert.Equal(t, http.StatusGone, ask("POST", path).Code)
}

func TestRequirementIsMetByOneClaim(t *testing.T) {
	t.Parallel()
	claim := func(change func(*identityClaim)) *identityClaim {
		c := &identityClaim{IdentityClaim: stack.IdentityClaim{ProviderKey: "plaid", Layer: stack.LayerDelegation,
			ClaimType:      stack.ClaimDelegation,
			AssuranceLevel: stack.AssuranceSubstantial, DelegatedScopes: []string{"a", "b"}}}
		change(c)
		return c
	}
	r := &serviceRequirement{ServiceRequirement: stack.ServiceRequirement{Layer: stack.LayerDelegation,
		RequiresClaim:    stack.ClaimDelegation,
		MinimumAssurance: stack.AssuranceSubstantial, AcceptedProviders: []string{"id_me",
			"plaid"}, RequiredScopes: []string{"b", "a"}}}
	for name, tt := range map[string]struct {
		change func(*identityClaim)
		met    bool
	}{
		"exactly":        {func(*identityClaim) {}, true},
		"more assurance": {func(c *identityClaim) { c.AssuranceLevel = stack.AssuranceHigh }, true},
		"less assurance": {func(c *identityClaim) { c.AssuranceLevel = stack.AssuranceLow }, false},
		"other provider": {func(c *identityClaim) { c.ProviderKey = "login_gov" }, false},
		"other layer":    {func(c *identityClaim) { c.Layer = stack.LayerIdentity }, false},
		"other claim":    {func(c *identityClaim) { c.ClaimType = stack.ClaimVerifiedIdentity }, false},
		"fewer scopes":   {func(c *identityClaim) { c.DelegatedScopes = []string{"a"} }, false},
		"more scopes":    {func(c *identityClaim) { c.DelegatedScopes = []string{"a", "b", "c"} }, true},
	} {
		assert.Equal(t, tt.met, r.metBy(claim(tt.change)), fmt.Sprint(name, r.words()))
	}
}
