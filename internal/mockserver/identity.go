package mockserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

const (
	verificationLifetime = 15 * time.Minute
	maxPassportClaims    = 16 // in one passport: its token has a bounded size
	maxDelegatedScopes   = 64
	maxURL               = 2048
)

// identityProvider verifies people. Which providers there are is the hosted service's; what each gives is too, as far as
// known. (contract: server-api 16)
type identityProvider struct {
	stack.IdentityProvider
	assurance map[string]stack.Assurance // by claim type
}

var identityProviders = []identityProvider{
	provider("bankid_se", "BankID Sweden", "the Swedish banks' electronic identification", stack.AssuranceHigh),
	provider("stripe_identity", "Stripe Identity", "a document and a selfie", stack.AssuranceHigh),
	provider("login_gov", "Login.gov", "IAL1 for verified_human, IAL2 for verified_identity", stack.AssuranceSubstantial),
	provider("id_me", "ID.me", "IAL1 for verified_human, IAL2 for verified_identity", stack.AssuranceSubstantial),
	provider("plaid", "Plaid", "a bank account's holder", stack.AssuranceHigh),
}

func provider(key, name, description string, humanity stack.Assurance) identityProvider {
	return identityProvider{assurance: map[string]stack.Assurance{stack.ClaimVerifiedHuman: humanity,
		stack.ClaimVerifiedIdentity: stack.AssuranceHigh},
		IdentityProvider: stack.IdentityProvider{Key: key, Name: name, Description: description, Assurance: stack.AssuranceHigh,
			Layers:     []stack.IdentityLayer{stack.LayerHumanity, stack.LayerIdentity},
			ClaimTypes: []string{stack.ClaimVerifiedHuman, stack.ClaimVerifiedIdentity}}}
}

// claimTypes says which type of claim each layer has.
var claimTypes = map[stack.IdentityLayer]string{stack.LayerHumanity: stack.ClaimVerifiedHuman,
	stack.LayerIdentity: stack.ClaimVerifiedIdentity, stack.LayerDelegation: stack.ClaimDelegation}

func layerOf(claimType string) stack.IdentityLayer {
	for layer, name := range claimTypes {
		if name == claimType {
			return layer
		}
	}
	return ""
}

// identityClaim is a claim on record. What is known of a person beside it is a stand-in, and sealed.
type identityClaim struct {
	stack.IdentityClaim
	sealed  vault.Sealed           // of layer identity
	basis   *identityClaim         // of a delegation: whose claim it rests on
	revoked *stack.ClaimRevocation // how it was withdrawn
}

func (c *identityClaim) active(now time.Time) bool {
	return c.revoked == nil && now.Before(c.ExpiresAt)
}

func (c *identityClaim) sealContext() string { return c.OperatorID + "/" + c.ID }

// verification is a person's verification under way.
type verification struct {
	ref       string
	provider  *identityProvider
	requested []string // claim types
	returnURL string
	expiresAt time.Time
	confirmed bool // the person has done their part
	result    *stack.IdentityVerification
}

var defaultIdentitySettings = stack.IdentitySettings{ClaimTTL: stack.ClaimTTL1Year, ClaimInheritance: stack.InheritAuto,
	AutoRevoke: true}

const day = 24 * time.Hour

var claimTTLs = map[stack.ClaimTTL]time.Duration{stack.ClaimTTL30Days: 30 * day, stack.ClaimTTL90Days: 90 * day,
	stack.ClaimTTL180Days: 180 * day, stack.ClaimTTL1Year: 365 * day}

func identityRoutes() []route {
	return []route{
		endpoint("GET", "/v1/operators/me/identity-settings", (*Server).getIdentitySettings),
		endpoint("PATCH", "/v1/operators/me/identity-settings", (*Server).updateIdentitySettings, adminOnly),
		endpoint("GET", "/v1/identity/providers", (*Server).listIdentityProviders),
		endpoint("POST", "/v1/identity/verify/initiate", (*Server).initiateVerification),
		endpoint("POST", "/v1/identity/verify/complete", (*Server).completeVerification),
		endpoint("POST", "/v1/identity/delegate", (*Server).grantDelegation),
		endpoint("GET", "/v1/identity/claims", (*Server).listClaims),
		endpoint("DELETE", "/v1/identity/claims/{claim_id}", (*Server).revokeClaim),
		endpoint("GET", verificationPath+"{session_ref}", (*Server).showVerification, webPage),
		endpoint("POST", verificationPath+"{session_ref}", (*Server).confirmOnPage, webPage),
	}
}

func (s *Server) getIdentitySettings(_ context.Context, c *caller, _ none) (*stack.IdentitySettings, error) {
	return &c.op.identity, nil
}

type updateIdentitySettingsIn struct {
	Body stack.IdentitySettingsParams `body:""`
}

func (s *Server) updateIdentitySettings(_ context.Context, c *caller,
	in updateIdentitySettingsIn) (*stack.IdentitySettings, error) {
	if err := firstError(
		oneOf("body.identity_claim_ttl", in.Body.ClaimTTL, stack.ClaimTTL30Days, stack.ClaimTTL90Days, stack.ClaimTTL180Days,
			stack.ClaimTTL1Year),
		oneOf("body.identity_claim_inheritance", in.Body.ClaimInheritance, stack.InheritAuto, stack.InheritOptIn),
	); err != nil {
		return nil, err
	}
	settings := &c.op.identity
	override(&settings.ClaimTTL, in.Body.ClaimTTL)
	override(&settings.ClaimInheritance, in.Body.ClaimInheritance)
	replace(&settings.AutoRevoke, in.Body.AutoRevoke)
	c.op.record(s.clock.now(), stack.AuditEntry{Action: "identity.settings_update"})
	return settings, nil
}

func (s *Server) listIdentityProviders(context.Context, *caller, none) (*[]stack.IdentityProvider, error) {
	all := make([]stack.IdentityProvider, len(identityProviders))
	for i, p := range identityProviders {
		all[i] = p.IdentityProvider
	}
	return &all, nil
}

func identityProviderByKey(key string) (*identityProvider, error) {
	for i := range identityProviders {
		if p := &identityProviders[i]; p.Key == key {
			return p, nil
		}
	}
	return nil, notFound("identity provider", key)
}

type initiateVerificationIn struct {
	Body stack.VerificationParams `body:""`
}

func (s *Server) initiateVerification(ctx context.Context, c *caller,
	in initiateVerificationIn) (*stack.VerificationSession, error) {
	p, err := identityProviderByKey(in.Body.ProviderKey)
	if err != nil {
		return nil, err
	}
	requested := in.Body.RequestedClaims
	if len(requested) == 0 {
		requested = []string{stack.ClaimVerifiedHuman} // no more than is asked for
	}
	for i, claimType := range requested {
		if err := firstError(chosen(fmt.Sprintf("body.requested_claims[%d]", i), claimType, p.ClaimTypes...)); err != nil {
			return nil, err
		}
	}
	if err := firstError(distinct("body.requested_claims", requested),
		checkReturnURL("body.return_url", in.Body.ReturnURL)); err != nil {
		return nil, err
	}
	now := s.clock.now()
	v := &verification{ref: newID("idv_"), provider: p, requested: requested, returnURL: in.Body.ReturnURL,
		expiresAt: now.Add(verificationLifetime)}
	c.op.verifications.put(v.ref, v)
	c.op.record(now, stack.AuditEntry{Action: "identity.verify_initiate"})
	return &stack.VerificationSession{SessionRef: v.ref, AuthorizationURL: baseURL(ctx) + verificationPath + v.ref,
		Status: stack.VerificationPending, ExpiresAt: v.expiresAt}, nil
}

func checkReturnURL(field, text string) *apiError {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || len(text) > maxURL {
		return invalid(field, redacted, fmt.Sprintf(
			"an absolute http or https URL without user information, of at most %d characters", maxURL))
	}
	return nil
}

type completeVerificationIn struct {
	Body struct {
		ProviderKey string `json:"provider_key"`
		SessionRef  string `json:"session_ref"`
	} `body:""`
}

// completeVerification makes the claims, once: a repetition returns them again.
func (s *Server) completeVerification(_ context.Context, c *caller,
	in completeVerificationIn) (*stack.IdentityVerification, error) {
	op, now := c.op, s.clock.now()
	v, ok := op.verifications.get(in.Body.SessionRef)
	if !ok {
		return nil, notFound("verification", in.Body.SessionRef)
	}
	if in.Body.ProviderKey != v.provider.Key {
		return nil, invalid("body.provider_key", in.Body.ProviderKey, v.provider.Key+", which the verification was started with")
	}
	if v.result != nil {
		return v.result, nil
	}
	if err := v.mustBeOpen(now); err != nil {
		return nil, err
	}
	if !v.confirmed {
		return nil, refuse(http.StatusConflict, "VERIFICATION_PENDING", "the person has not done their part yet", map[string]any{
			"check": "verification_state", "sent": v.ref, "status": stack.VerificationPending, "expires_at": v.expiresAt,
			"allowed": "a verification that the person has finished at its authorization_url"})
	}
	result := &stack.IdentityVerification{SessionRef: v.ref, ProviderKey: v.provider.Key, Status: stack.VerificationVerified}
	for _, claimType := range v.requested {
		claim := &identityClaim{IdentityClaim: stack.IdentityClaim{ProviderKey: v.provider.Key, Layer: layerOf(claimType),
			ClaimType: claimType, AssuranceLevel: v.provider.assurance[claimType], ExpiresAt: now.Add(claimTTLs[op.identity.ClaimTTL])}}
		if err := s.makeClaim(op, claim, now); err != nil {
			return nil, err
		}
		result.Claims = append(result.Claims, claim.IdentityClaim)
	}
	v.result = result
	op.record(now, stack.AuditEntry{Action: "identity.verify_complete"})
	return result, nil
}

func (v *verification) mustBeOpen(now time.Time) error {
	if now.Before(v.expiresAt) {
		return nil
	}
	return refuse(http.StatusGone, "VERIFICATION_EXPIRED", "the verification was not finished in time", map[string]any{
		"check": "verification_state", "sent": v.ref, "expired_at": v.expiresAt, "allowed": "a new verification"})
}

// makeClaim puts a claim on record. Of a person who is identified it keeps a stand-in for their data, sealed with a key of its
// own; the claim holds a reference only.
func (s *Server) makeClaim(op *operator, c *identityClaim, now time.Time) error {
	c.ID, c.ClaimRef, c.OperatorID, c.VerifiedAt = newID("clm_"), newID("ref_"), op.id, now
	if c.Layer == stack.LayerIdentity {
		plain, err := json.Marshal(map[string]string{"claim_ref": c.ClaimRef, "subject": newID("subject_")})
		if err != nil {
			return err
		}
		defer clear(plain)
		if c.sealed, err = s.vault.Seal(plain, c.sealContext()); err != nil {
			return err
		}
	}
	op.claims.put(c.ID, c)
	op.due.add(c.ExpiresAt, func(at time.Time) { op.claimDue(c, at) })
	return nil
}

// claimDue notices that a claim has expired, and wipes what it refers to.
func (op *operator) claimDue(c *identityClaim, at time.Time) {
	if c.revoked == nil {
		c.sealed = vault.Sealed{}
		op.record(at, stack.AuditEntry{Action: "identity.claim_expire", TraceID: c.ID})
	}
}

type grantDelegationIn struct {
	Body struct {
		DelegatedScopes []string `json:"delegated_scopes"`
	} `body:""`
}

// grantDelegation rests on the newest identity claim: only somebody who is known can let others act for them.
func (s *Server) grantDelegation(_ context.Context, c *caller, in grantDelegationIn) (*stack.IdentityClaim, error) {
	op, now, scopes := c.op, s.clock.now(), in.Body.DelegatedScopes
	if len(scopes) == 0 {
		return nil, invalid("body.delegated_scopes", "empty", "at least one scope, such as tax:file")
	}
	if err := firstError(listAtMost("body.delegated_scopes", scopes, maxDelegatedScopes, maxScope),
		distinct("body.delegated_scopes", scopes)); err != nil {
		return nil, err
	}
	var basis *identityClaim
	for claim := range op.claims.newest() {
		if claim.Layer == stack.LayerIdentity && claim.active(now) {
			basis = claim
			break
		}
	}
	if basis == nil {
		return nil, refuse(http.StatusForbidden, "IDENTITY_REQUIREMENTS_NOT_MET", "nobody is identified who could delegate",
			map[string]any{"check": "identity_layer", "sent": "no active claim of layer identity",
				"allowed": "a " + stack.ClaimVerifiedIdentity + " claim; verify a person with it in requested_claims first"})
	}
	claim := &identityClaim{basis: basis, IdentityClaim: stack.IdentityClaim{ProviderKey: basis.ProviderKey,
		Layer: stack.LayerDelegation, ClaimType: stack.ClaimDelegation, AssuranceLevel: basis.AssuranceLevel, DelegatedScopes: scopes,
		ExpiresAt: earlier(now.Add(claimTTLs[op.identity.ClaimTTL]), basis.ExpiresAt)}}
	if err := s.makeClaim(op, claim, now); err != nil {
		return nil, err
	}
	op.record(now, stack.AuditEntry{Action: "identity.delegate", TraceID: claim.ID})
	return &claim.IdentityClaim, nil
}

func (s *Server) listClaims(_ context.Context, c *caller, _ none) (*[]stack.IdentityClaim, error) {
	now, active := s.clock.now(), []stack.IdentityClaim{}
	for claim := range c.op.claims.all() {
		if claim.active(now) {
			active = append(active, claim.IdentityClaim)
		}
	}
	return &active, nil
}

type claimIn struct {
	ClaimID string `path:"claim_id"`
}

// revokeClaim withdraws a claim and the delegations that rest on it, and revokes the passports that carry one of them where
// the operator's settings say so. (contract: server-api 19, bulk_claim)
func (s *Server) revokeClaim(_ context.Context, c *caller, in claimIn) (*stack.ClaimRevocation, error) {
	op, now := c.op, s.clock.now()
	claim, ok := op.claims.get(in.ClaimID)
	if !ok {
		return nil, notFound("identity claim", in.ClaimID)
	}
	if claim.revoked != nil {
		again := *claim.revoked // perhaps that of the claim it rested on
		again.ClaimID, again.RevokedClaims = claim.ID, []string{}
		again.RevokedCount, again.CascadedCount, again.Cascaded = 0, 0, []string{}
		return &again, nil
	}
	const reason = "Identity claim revoked"
	r := &stack.ClaimRevocation{ClaimID: claim.ID}
	for other := range op.claims.all() {
		if other == claim || other.basis == claim && other.revoked == nil {
			other.revoked, other.sealed = r, vault.Sealed{}
			r.RevokedClaims = append(r.RevokedClaims, other.ID)
			op.record(now, stack.AuditEntry{Action: "identity.claim_revoke", TraceID: other.ID})
		}
	}
	revoked, cascaded := 0, []string(nil)
	if op.identity.AutoRevoke {
		revoked, cascaded = op.revokeWhere(now, reason, func(p *passport) bool {
			return slices.ContainsFunc(op.claimsOf(p), func(carried *identityClaim) bool { return carried.revoked == r })
		})
	}
	r.Revocation = *revocation("bulk_claim", reason, now, revoked, cascaded)
	return r, nil
}

// claimsOf returns the claims that a passport carries, as they are on record now.
func (op *operator) claimsOf(p *passport) []*identityClaim {
	var carried []*identityClaim
	for _, entry := range p.claims.STK.IdentityClaims {
		id, _ := entry["claim_id"].(string)
		if c, ok := op.claims.get(id); ok {
			carried = append(carried, c)
		}
	}
	return carried
}

// activeClaimIDs names the claims of a passport that another may carry after it. It is never nil, which would mean the
// default.
func (op *operator) activeClaimIDs(p *passport, now time.Time) []string {
	ids := []string{}
	for _, c := range op.claimsOf(p) {
		if c.active(now) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// carry makes the entries of a new passport: of the claims that are named, or else of those that are inherited.
func (op *operator) carry(ids []string, now time.Time) ([]map[string]any, error) {
	const field = "body.identity_claim_ids"
	entries := []map[string]any{}
	if ids == nil && op.identity.ClaimInheritance == stack.InheritAuto {
		for c := range op.claims.newest() {
			if c.active(now) && len(entries) < maxPassportClaims {
				entries = append(entries, c.entry())
			}
		}
		slices.Reverse(entries)
		return entries, nil
	}
	if err := firstError(listAtMost(field, ids, maxPassportClaims, maxScope), distinct(field, ids)); err != nil {
		return nil, err
	}
	for i, id := range ids {
		c, ok := op.claims.get(id)
		if !ok {
			return nil, notFound("identity claim", id)
		}
		if !c.active(now) {
			return nil, forbidden("the identity claim was revoked or has expired", map[string]any{"check": "identity_claim_state",
				"field": fmt.Sprintf("%s[%d]", field, i), "sent": id, "allowed": "an active claim"})
		}
		entries = append(entries, c.entry())
	}
	return entries, nil
}

// entry is a claim as a passport carries it. (contract: server-api 7.1)
func (c *identityClaim) entry() map[string]any {
	return map[string]any{"claim_id": c.ID, "provider": c.ProviderKey, "layer": c.Layer, "claim_type": c.ClaimType,
		"assurance_level": c.AssuranceLevel, "verified_at": c.VerifiedAt.Unix(), "expires_at": c.ExpiresAt.Unix()}
}

// words names a claim in a message.
func (c *identityClaim) words(now time.Time) string {
	text := fmt.Sprintf("%s (%s, %s", c.ClaimType, c.AssuranceLevel, c.ProviderKey)
	if len(c.DelegatedScopes) > 0 {
		text += ", for " + strings.Join(c.DelegatedScopes, " ")
	}
	if !c.active(now) {
		text += ", no longer valid"
	}
	return text + ")"
}
