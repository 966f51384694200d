package mockserver

import (
	"crypto/ed25519"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

// holdings is an operator with one of everything.
type holdings struct {
	op     *operator
	client *stack.Client
	key    ed25519.PrivateKey // of its agent
	// ids are its objects by the names that inputs refer to them with. A name that means different things on different routes
	// has the beginning of the route's pattern before it.
	ids map[string]string
}

// planted gives the server another operator with one of everything that a route can refer to. Its texts are called canary.
func planted(t *testing.T, s *Server, canary string) *holdings {
	t.Helper()
	op, client := newStranger(t, s)
	ctx, ids := t.Context(), map[string]string{}
	h := &holdings{op: op, client: client, ids: ids}
	must := require.NoError

	agent, key := enrollHand(t, client, canary)
	h.key = key
	challenge, err := client.Agents.EnrollmentChallenge(ctx, agent.ID)
	must(t, err)
	ids["agent_id"], ids["operator_id"] = agent.ID, op.id
	ids["from_agent"], ids["to_agent"], ids["child_agent_id"] = agent.ID, agent.ID, agent.ID
	ids["/v1/agents:challenge_id"] = challenge.ChallengeID
	conn, err := client.Services.Connect(ctx, stack.ServiceConnectParams{ServiceID: "slack", OAuthToken: stack.NewSecret("xoxb-" + canary),
		Scopes: []string{"chat:write"}})
	must(t, err)
	ids["connection_id"], ids["service_connection_id"] = conn.ID, conn.ID
	_, err = client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: conn.ID, Scopes: conn.Scopes})
	must(t, err)
	custom, err := client.Services.ConnectCustom(ctx, stack.ServiceConnectCustomParams{Name: canary, Credential: stack.CustomCredential{Token: stack.NewSecret("s3cret-" + canary)}})
	must(t, err)
	ids["provider"] = custom.Provider

	intent := &stack.Intent{Summary: canary, Services: []string{"slack"}}
	mission := func() string {
		m, failed := client.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: canary, AgentID: agent.ID})
		must(t, failed)
		return m.MissionID
	}
	issue := func(missionID string) *stack.Passport {
		p, failed := client.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: agent.ID, MissionIDs: []string{missionID}, Intent: intent})
		must(t, failed)
		return p
	}
	done := issue(mission())
	ended, _ := op.passports.get(done.JTI)
	_, err = client.Passports.Checkout(ctx, done.JTI, stack.CheckpointParams{ServicesUsed: []string{"github"}})
	must(t, err)
	ids["checkout_id"] = ended.checkout.CheckoutID
	op.mu.Lock()
	op.raise(s.clock.now(), nil, detect.Finding{Signal: "credential_burst", Severity: stack.SeverityWarning})
	op.mu.Unlock()
	for event := range op.events.all() {
		ids["event_id"] = event.ID
	}
	ids["mission_id"] = mission()
	ids["mission_ids"], ids["mission_ref"] = ids["mission_id"], ids["mission_id"]
	passport := issue(ids["mission_id"])
	ids["jti"], ids["passport_jti"], ids["passport_id"] = passport.JTI, passport.JTI, passport.JTI
	ids["token"], ids["parent_passport_token"], ids["X-Passport-Token"] = passport.Token.Reveal(), passport.Token.Reveal(), passport.Token.Reveal()
	for p := range op.passports.all() {
		ids["session_id"] = p.claims.STK.SessionID
	}
	over, _ := op.missions.get(mission())
	_, err = client.Missions.Complete(ctx, over.MissionID, stack.MissionCompleteParams{})
	must(t, err)
	ids["/v1/missions/{mission_id}/operator-reviews/{claim_id}:mission_id"] = over.MissionID
	ids["/v1/missions/{mission_id}/operator-reviews/{claim_id}:claim_id"] = over.reviews[0].ClaimID

	dropoff, err := client.Dropoffs.Create(ctx, stack.DropoffCreateParams{FromAgentID: agent.ID, ToAgentID: agent.ID, Schema: map[string]any{}})
	must(t, err)
	ids["dropoff_id"] = dropoff.ID
	submitted, err := client.Intents.Submit(ctx, stack.IntentSubmitParams{PassportToken: passport.Token, SkipSimulation: true,
		Intent: stack.IntentClaim{IntentType: stack.IntentProxy, Action: "POST", Target: "https://slack.com/api/" + canary,
			Parameters: &stack.IntentParameters{Service: "slack"}}})
	must(t, err)
	for claim := range op.intentClaims.all() {
		ids["intent_claim_ref"] = claim.id
	}
	ids["approval_id"], ids["X-Intent-Approval-Id"] = submitted.ApprovalID, submitted.ApprovalID
	ids["claim_id"] = claimsFrom(t, s, op, client, stack.ClaimVerifiedHuman)[0].ID
	ids["identity_claim_ids"] = ids["claim_id"]
	requirement, err := client.Identity.SetServiceRequirement(ctx, custom.Provider, stack.ServiceRequirementParams{Layer: stack.LayerHumanity,
		RequiresClaim: stack.ClaimVerifiedHuman, MinimumAssurance: stack.AssuranceLow})
	must(t, err)
	ids["service_id"], ids["requirement_id"] = custom.Provider, requirement.ID

	sk, err := client.Skills.Publish(ctx, stack.SkillPublishParams{Name: "skill", Description: canary, AgentID: agent.ID})
	must(t, err)
	inv, err := client.Skills.Invoke(ctx, sk.ID, stack.SkillInvokeParams{Input: map[string]any{"text": canary}, AgentID: agent.ID})
	must(t, err)
	request, err := client.Skills.PostRequest(ctx, stack.SkillRequestParams{Description: "skill " + canary})
	must(t, err)
	ids["skill_id"], ids["invocation_id"], ids["/v1/skill-requests:request_id"] = sk.ID, inv.ID, request.ID

	member, err := client.Team.Invite(ctx, stack.TeamInviteParams{Email: canary + "@example.com", Name: canary, Role: stack.RoleReadonly})
	must(t, err)
	_, err = s.AcceptInvitation(member.ID)
	must(t, err)
	ids["member_id"] = member.ID
	channel, err := client.Notifications.Create(ctx, stack.ChannelCreateParams{ChannelType: stack.ChannelEmail, Destination: canary + "@example.com"})
	must(t, err)
	ids["channel_id"] = channel.ID
	for d := range op.destinations.all() {
		ids["destination_id"] = d.ID
	}
	webhook, err := client.InboundWebhooks.Create(ctx, stack.InboundWebhookParams{Provider: stack.ProviderGeneric, AgentID: agent.ID})
	must(t, err)
	ids["webhook_id"] = webhook.ID
	pack, err := exportMission(t, client, ids["mission_id"])
	must(t, err)
	ids["pack_id"], ids["ref"] = pack.PackID, ids["mission_id"]

	hand := &fleetHand{s, op, client, conn}
	fleet := hand.activate(t, "fleet")
	ids["policy_id"], ids["fleet_policy_id"] = fleet.ID, fleet.ID
	ids["/v1/fleets/{policy_id}/members:agent_id"] = hand.enroll(t, fleet.ID, "member").AgentID
	ids["/v1/fleets/membership:agent_id"] = ids["/v1/fleets/{policy_id}/members:agent_id"]
	enrolment, err := client.Fleets.EnrollmentChallenge(ctx, fleet.ID)
	must(t, err)
	ids["/v1/fleets:challenge_id"] = enrolment.ChallengeID

	binding, _ := authorised(t, s, client)
	api := client.Authority
	session, err := api.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: binding.PrincipalID, Kind: "consent",
		Purpose: canary, IdempotencyKey: "session"})
	must(t, err)
	oidc, err := api.CreateEnterpriseOIDCRequest(ctx, stack.EnterpriseOIDCParams{PrincipalID: binding.PrincipalID, Purpose: canary,
		IdempotencyKey: "oidc"})
	must(t, err)
	receiver, err := api.GetReceiver(ctx, binding.ReceiverID)
	must(t, err)
	op.authority.uses.put("use_"+canary, &stack.AuthorityUse{ID: "use_" + canary, OperatorID: op.id})
	op.authority.presentations.put("pres_"+canary, &stack.AuthorityPresentation{ID: "pres_" + canary, OperatorID: op.id})
	ids["use_id"], ids["presentation_id"] = "use_"+canary, "pres_"+canary
	ids["principal_id"], ids["binding_id"], ids["receiver_id"] = binding.PrincipalID, binding.ID, binding.ReceiverID
	ids["authority_binding_ids"], ids["proof_id"], ids["proof_ids"] = binding.ID, binding.Proofs[0].ProofID, binding.Proofs[0].ProofID
	ids["key_id"], ids["profile_id"] = receiver.Keys[0].ID, binding.ReceiverProfileVersionID
	ids["/v1/authority/bindings:agent_id"] = binding.AgentID
	ids["/v1/authority/proof-collection-sessions:session_id"] = session.ID
	ids["/v1/authority/enterprise-oidc:request_id"] = oidc.ID

	created, err := client.PartnerTenants.Create(ctx, canary)
	must(t, err)
	ids["tenant_id"] = created.OperatorID
	tenants, err := stack.New(stack.WithAPIKey(created.APIKey.Reveal()), stack.WithBaseURL("http://mock.test"),
		stack.WithHTTPClient(&http.Client{Transport: direct{s}}))
	must(t, err)
	theirs, _ := enrollHand(t, tenants, canary)
	lent, err := tenants.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: canary, AgentID: theirs.ID})
	must(t, err)
	hook, err := client.PartnerTenants.CreateInboundWebhook(ctx, created.OperatorID, stack.InboundWebhookParams{Provider: stack.ProviderGeneric,
		AgentID: theirs.ID})
	must(t, err)
	ids["/v1/partner/tenants:agent_id"], ids["/v1/partner/tenants:webhook_id"] = theirs.ID, hook.ID
	ids["/v1/partner/tenants:mission_ids"] = lent.MissionID
	connect, err := client.PartnerConnect.Connect(ctx, stack.ConnectParams{Email: canary + "@example.com", Scopes: connectScopes})
	must(t, err)
	ids["grant_id"] = connect.GrantID
	return h
}

// bearers are the keys of every kind of caller that acts for the operator, by the names of the kinds.
func (h *holdings) bearers(t *testing.T, s *Server) map[string]func() string {
	t.Helper()
	always := func(key string) func() string { return func() string { return "Bearer " + key } }
	owner := newAPIKey(h.op.id)
	hash := s.keys.add(owner, keyOwner{op: h.op})
	all := map[string]func() string{
		"no key": func() string { return "" }, "wrong key": always("sk_live_00000000wrong"), "unknown kind": always("wrong"),
		"owner": always(owner),
	}
	for _, role := range rolesUp {
		member, err := h.client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: string(role) + "@example.com", Name: "M", Role: role})
		require.NoError(t, err)
		key, err := s.AcceptInvitation(member.ID)
		require.NoError(t, err)
		all["member "+string(role)] = always(key.Reveal())
	}
	grant := stack.PartnerConnection{GrantID: "pgr_sweep", Status: stack.ConnectActive, Scopes: connectScopes}
	h.op.partnerGrants.put(grant.GrantID, &partnerGrant{PartnerConnection: grant, account: h.op})
	s.keys.add(grantTokenPrefix+"sweep", keyOwner{op: h.op, grantID: grant.GrantID})
	for _, id := range h.ids {
		h.op.made(id, &grant)
	}
	all["grant"] = always(grantTokenPrefix + "sweep")
	all["agent"] = func() string { // each token is good once
		return "Bearer " + agentToken(t, h.key, h.ids["agent_id"], newID("jti_"))
	}
	session := &oauthSession{id: "ost_sweep", key: hash, expiresAt: s.clock.now().Add(time.Hour)}
	s.oauth.sessions.put(session.id, session)
	all["oauth, all scopes"] = always(signAccess(t, s, h.op.id, session.id, oauthScopes...))
	for _, scope := range oauthScopes {
		all["oauth "+scope] = always(signAccess(t, s, h.op.id, session.id, scope))
	}
	return all
}
