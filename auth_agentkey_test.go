package stack_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// enrollParams answers a fresh challenge of an agent.
func (s *stage) enrollParams(t *testing.T, key signer, agentID string) stack.AgentEnrollParams {
	t.Helper()
	c, err := s.client.Agents.EnrollmentChallenge(t.Context(), agentID)
	require.NoError(t, err)
	return stack.AgentEnrollParams{PublicKey: key.jwk(), ChallengeID: c.ChallengeID, SignedChallenge: key.prove(c.Challenge)}
}

// enrolled gives an agent a key.
func (s *stage) enrolled(t *testing.T, agentID string) signer {
	t.Helper()
	key := newSigner(t)
	require.NoError(t, failure(s.client.Agents.Enroll(t.Context(), agentID, s.enrollParams(t, key, agentID))))
	return key
}

// goodToken is what an agent signs.
func goodToken(agentID, jti string) jwt.MapClaims {
	now := time.Now().Unix()
	return jwt.MapClaims{"iss": "stack-sdk", "sub": agentID, "aud": "stack:agent", "iat": now, "nbf": now, "exp": now + 60, "jti": jti}
}

func (k signer) sign(t *testing.T, claims jwt.MapClaims, header ...string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i]] = header[i+1]
	}
	signed, err := token.SignedString(k.PrivateKey)
	require.NoError(t, err)
	return signed
}

// with is a client whose bearer is the given one.
func (s *stage) with(bearer string) *stack.Client {
	return s.Client(stack.WithAPIKey(bearer), stack.WithMaxRetries(0))
}

func TestAgentEnroll(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	ctx, agents := t.Context(), s.client.Agents
	challenge, err := agents.EnrollmentChallenge(ctx, s.agent.ID)
	require.NoError(t, err)
	assert.Contains(t, challenge.Challenge, s.agent.ID)
	assert.WithinDuration(t, time.Now().Add(5*time.Minute), challenge.ExpiresAt, time.Minute)
	key := newSigner(t)
	enrolled, err := agents.Enroll(ctx, s.agent.ID, stack.AgentEnrollParams{PublicKey: key.jwk(),
		ChallengeID: challenge.ChallengeID, SignedChallenge: key.prove(challenge.Challenge)})
	require.NoError(t, err)
	assert.Equal(t, &stack.AgentEnrollment{AgentID: s.agent.ID, PublicKey: key.jwk(), EnrolledAt: enrolled.EnrolledAt}, enrolled)
	assert.WithinDuration(t, time.Now(), enrolled.EnrolledAt, time.Minute)
	require.NoError(t, failure(s.with(key.sign(t, goodToken(s.agent.ID, "1"))).Agents.Get(ctx, s.agent.ID)))

	again, err := agents.Enroll(ctx, s.agent.ID, s.enrollParams(t, key, s.agent.ID))
	require.NoError(t, err, "the answer was lost")
	assert.Equal(t, enrolled, again)
	assert.Equal(t, 1, s.countRows("agent.enroll"))

	other := s.enrolled(t, s.agent.ID)
	assert.Equal(t, 1, s.countRows("agent.rotate_key"))
	_, err = s.with(key.sign(t, goodToken(s.agent.ID, "2"))).Agents.Get(ctx, s.agent.ID)
	requireRefused(t, err, http.StatusUnauthorized, "INVALID_AGENT_TOKEN")
	require.NoError(t, failure(s.with(other.sign(t, goodToken(s.agent.ID, "3"))).Agents.Get(ctx, s.agent.ID)))
}

func TestAgentEnrollRefusals(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	ctx, agents := t.Context(), s.client.Agents
	neighbour := s.Agent(t, stacktest.AgentConfig{}).ID
	taken := s.enrolled(t, neighbour)
	x := func(text string) func(*stack.AgentEnrollParams) {
		return func(p *stack.AgentEnrollParams) { p.PublicKey.X = text }
	}
	weak := func(text string) func(*stack.AgentEnrollParams) {
		raw, err := hex.DecodeString(text)
		require.NoError(t, err)
		return x(base64.RawURLEncoding.EncodeToString(raw))
	}
	tests := map[string]struct {
		change func(*stack.AgentEnrollParams)
		status int
		code   string
		field  string
		open   bool // the challenge still serves
	}{
		"another kind of key": {func(p *stack.AgentEnrollParams) { p.PublicKey.KTY = "RSA" }, 400, "INVALID_REQUEST", "body.public_key.kty", true},
		"another curve":       {func(p *stack.AgentEnrollParams) { p.PublicKey.CRV = "X25519" }, 400, "INVALID_REQUEST", "body.public_key.crv", true},
		"a short key":         {x("AAAA"), 400, "INVALID_REQUEST", "body.public_key.x", true},
		"the identity":        {weak("01" + strings.Repeat("00", 31)), 400, "INVALID_REQUEST", "body.public_key.x", true},
		"a key of order 2":    {weak("ec" + strings.Repeat("ff", 30) + "7f"), 400, "INVALID_REQUEST", "body.public_key.x", true},
		"a key of order 4":    {weak(strings.Repeat("00", 32)), 400, "INVALID_REQUEST", "body.public_key.x", true},
		"a key of order 8":    {weak("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), 400, "INVALID_REQUEST", "body.public_key.x", true},
		"a key not reduced":   {weak("ee" + strings.Repeat("ff", 30) + "7f"), 400, "INVALID_REQUEST", "body.public_key.x", true},
		"a key off the curve": {weak("02" + strings.Repeat("00", 31)), 400, "INVALID_REQUEST", "body.public_key.x", true},
		"a padded signature": {func(p *stack.AgentEnrollParams) {
			p.SignedChallenge = stack.NewSecret(p.SignedChallenge.Reveal() + "==")
		}, 400, "INVALID_REQUEST", "body.signed_challenge", true},
		"an unknown challenge":  {func(p *stack.AgentEnrollParams) { p.ChallengeID = "ach_x" }, 403, "ENROLLMENT_CHALLENGE_INVALID", "body.challenge_id", true},
		"another's challenge":   {func(p *stack.AgentEnrollParams) { p.ChallengeID = s.enrollParams(t, taken, neighbour).ChallengeID }, 403, "ENROLLMENT_CHALLENGE_INVALID", "body.challenge_id", true},
		"another agent's key":   {func(p *stack.AgentEnrollParams) { p.PublicKey = taken.jwk() }, 409, "KEY_ALREADY_ENROLLED", "body.public_key", true},
		"another key's proof":   {func(p *stack.AgentEnrollParams) { p.PublicKey = newSigner(t).jwk() }, 403, "ENROLLMENT_PROOF_INVALID", "body.signed_challenge", false},
		"the proof of nonsense": {func(p *stack.AgentEnrollParams) { p.SignedChallenge = taken.prove("nonsense") }, 403, "ENROLLMENT_PROOF_INVALID", "body.signed_challenge", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := s.Agent(t, stacktest.AgentConfig{}).ID
			good := s.enrollParams(t, newSigner(t), id) // not before: a challenge lives five minutes
			bad := good
			tc.change(&bad)
			_, err := agents.Enroll(t.Context(), id, bad)
			refused := requireRefused(t, err, tc.status, tc.code)
			assert.Equal(t, tc.field, refused.Details["field"])
			assert.NotContains(t, fmt.Sprint(refused.Message, refused.Details), bad.SignedChallenge.Reveal())
			_, err = agents.Enroll(t.Context(), id, good)
			if tc.open {
				require.NoError(t, err, "nothing is lost")
			} else {
				requireRefused(t, err, 403, "ENROLLMENT_CHALLENGE_INVALID")
			}
		})
	}
	good := s.enrollParams(t, newSigner(t), s.agent.ID)
	require.ErrorIs(t, failure(agents.Enroll(ctx, "agt_x", good)), stack.ErrNotFound)
	require.ErrorIs(t, failure(agents.EnrollmentChallenge(ctx, "agt_x")), stack.ErrNotFound)
	require.NoError(t, failure(agents.Enroll(ctx, s.agent.ID, good)))
	requireRefused(t, failure(agents.Enroll(ctx, s.agent.ID, good)), 403, "ENROLLMENT_CHALLENGE_INVALID")
	for param, change := range map[string]func(*stack.AgentEnrollParams){
		"public_key.x":     x(""),
		"challenge_id":     func(p *stack.AgentEnrollParams) { p.ChallengeID = "" },
		"signed_challenge": func(p *stack.AgentEnrollParams) { p.SignedChallenge = stack.Secret{} },
	} {
		bad := good
		change(&bad)
		requireParam(t, failure(agents.Enroll(ctx, s.agent.ID, bad)), param)
	}
}

func TestAgentChallengesEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		early, late := s.enrollParams(t, newSigner(t), s.agent.ID), s.enrollParams(t, newSigner(t), s.agent.ID)
		time.Sleep(5*time.Minute - time.Second)
		require.NoError(t, failure(s.client.Agents.Enroll(t.Context(), s.agent.ID, early)))
		time.Sleep(time.Second)
		requireRefused(t, failure(s.client.Agents.Enroll(t.Context(), s.agent.ID, late)), 403, "ENROLLMENT_CHALLENGE_INVALID")
		for range 1000 {
			require.NoError(t, failure(s.client.Agents.EnrollmentChallenge(t.Context(), s.agent.ID)))
		}
		_, err := s.Client(stack.WithMaxRetries(0)).Agents.EnrollmentChallenge(t.Context(), s.agent.ID)
		require.ErrorIs(t, err, stack.ErrRateLimited)
	})
}

func TestAgentTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testAgentTokens)
}

func testAgentTokens(t *testing.T) {
	const invalid, unknown = "INVALID_AGENT_TOKEN", "UNAUTHORIZED"
	now := time.Now().Unix()
	set := func(name string, value any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = value } }
	drop := func(name string) func(jwt.MapClaims) { return func(c jwt.MapClaims) { delete(c, name) } }
	at := func(iat, exp int64) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) { c["iat"], c["nbf"], c["exp"] = iat, iat, exp }
	}
	s := newStage(t, stack.Enforced)
	key := s.enrolled(t, s.agent.ID)
	tests := map[string]struct {
		change func(jwt.MapClaims)
		code   string // empty passes
		says   string
	}{
		"good":                   {set("x", 1), "", ""},
		"a clock that is slow":   {at(now-64, now-4), "", ""},
		"a clock that is fast":   {at(now+5, now+65), "", ""},
		"over":                   {at(now-65, now-5), invalid, "expired"},
		"to come":                {at(now+6, now+66), invalid, "future"},
		"nbf to come":            {set("nbf", now+6), invalid, "future"},
		"iat to come":            {set("iat", now+6), invalid, "future"},
		"too long a life":        {at(now, now+61), invalid, "1m0s"},
		"no exp":                 {drop("exp"), invalid, "exp"},
		"no iat":                 {drop("iat"), invalid, "iat"},
		"no nbf":                 {drop("nbf"), invalid, "nbf"},
		"no jti":                 {drop("jti"), invalid, "jti"},
		"a long jti":             {set("jti", strings.Repeat("j", 129)), invalid, "jti"},
		"no aud":                 {drop("aud"), invalid, "aud"},
		"another aud":            {set("aud", "stack:passport"), invalid, "aud"},
		"two aud":                {set("aud", []string{"stack:agent", "x"}), invalid, "aud"},
		"no sub":                 {drop("sub"), invalid, "sub"},
		"an agent without a key": {set("sub", s.Agent(t, stacktest.AgentConfig{}).ID), invalid, "sub"},
		"another issuer":         {set("iss", "getstack.run"), unknown, "kind"},
		"no issuer":              {drop("iss"), unknown, "kind"},
		"no time":                {set("exp", "soon"), unknown, "kind"},
		"too large":              {set("x", strings.Repeat("x", 4<<10)), unknown, "kind"},
	}
	for name, tc := range tests {
		claims := goodToken(s.agent.ID, "aj_"+name)
		tc.change(claims)
		token := key.sign(t, claims)
		_, err := s.with(token).Agents.Get(t.Context(), s.agent.ID)
		if tc.code == "" {
			require.NoError(t, err, name)
			_, err = s.with(token).Agents.Get(t.Context(), s.agent.ID)
			requireRefused(t, err, http.StatusUnauthorized, "AGENT_TOKEN_REPLAYED")
			continue
		}
		refused := requireRefused(t, err, http.StatusUnauthorized, tc.code)
		assert.Contains(t, refused.Message, tc.says, name)
		assert.NotContains(t, fmt.Sprint(refused.Message, refused.Details), token[:40])
	}
}

func TestAgentTokensForged(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	key := s.enrolled(t, s.agent.ID)
	public, err := base64.RawURLEncoding.DecodeString(key.jwk().X)
	require.NoError(t, err)
	hs256, err := jwt.NewWithClaims(jwt.SigningMethodHS256, goodToken(s.agent.ID, "1")).SignedString(public)
	require.NoError(t, err)
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, goodToken(s.agent.ID, "2")).SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	good := key.sign(t, goodToken(s.agent.ID, "3"))
	tampered := strings.Split(good, ".")
	tampered[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(decoded(t, tampered[1]), `"3"`, `"4"`, 1)))
	for _, token := range map[string]string{
		"none": none, "HS256 with the public key": hs256, "tampered": strings.Join(tampered, "."),
		"another key": newSigner(t).sign(t, goodToken(s.agent.ID, "5")), "crit": key.sign(t, goodToken(s.agent.ID, "6"), "crit", "x"),
		"typ": key.sign(t, goodToken(s.agent.ID, "7"), "typ", "dpop+jwt"),
	} {
		_, err := s.with(token).Agents.Get(t.Context(), s.agent.ID)
		requireRefused(t, err, http.StatusUnauthorized, "INVALID_AGENT_TOKEN")
	}
	assert.Equal(t, 6, s.countRows("auth.failure"), "each is counted")
	require.ErrorIs(t, failure(s.with(good+"=").Agents.Get(t.Context(), s.agent.ID)), stack.ErrUnauthorized)
	for range 20 {
		_ = failure(s.with(none).Agents.Get(t.Context(), s.agent.ID))
	}
	assert.Contains(t, s.signals(), "auth_failure_burst")
}

func decoded(t *testing.T, segment string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(segment)
	require.NoError(t, err)
	return string(raw)
}

// A token is forgotten only when it could not pass any more.
func TestAgentTokenReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		key := s.enrolled(t, s.agent.ID)
		claims := goodToken(s.agent.ID, "once")
		claims["iat"], claims["nbf"], claims["exp"] = time.Now().Unix()+5, time.Now().Unix()+5, time.Now().Unix()+65
		token := key.sign(t, claims)
		require.NoError(t, failure(s.with(token).Agents.Get(t.Context(), s.agent.ID)))
		for _, wait := range []time.Duration{0, time.Minute, 9 * time.Second} {
			time.Sleep(wait)
			requireRefused(t, failure(s.with(token).Agents.Get(t.Context(), s.agent.ID)), 401, "AGENT_TOKEN_REPLAYED")
		}
		time.Sleep(2 * time.Second)
		requireRefused(t, failure(s.with(token).Agents.Get(t.Context(), s.agent.ID)), 401, "INVALID_AGENT_TOKEN")
	})
}

func TestAgentReach(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	ctx := t.Context()
	key := s.enrolled(t, s.agent.ID)
	n := 0
	client := s.Client(stack.WithHTTPClient(&http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
		n++
		r.Header.Set("Authorization", "Bearer "+key.sign(t, goodToken(s.agent.ID, fmt.Sprint(n))))
		return s.Transport().RoundTrip(r)
	})}))
	other := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	mission, err := s.client.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x", AgentID: other.ID})
	require.NoError(t, err)
	theirs, err := s.client.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: other.ID, MissionIDs: []string{mission.MissionID},
		Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}}})
	require.NoError(t, err)
	third := s.Agent(t, stacktest.AgentConfig{}).ID
	approval := s.submit(t, theirs, post("#x")).ApprovalID
	dropoff, err := s.client.Dropoffs.Create(ctx, stack.DropoffCreateParams{FromAgentID: other.ID, ToAgentID: third,
		Schema: json.RawMessage(`{"type":"object"}`)})
	require.NoError(t, err)
	for name, call := range map[string]error{
		"agent":         failure(client.Agents.Get(ctx, other.ID)),
		"open":          failure(client.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "x", AgentID: other.ID})),
		"start":         failure(client.Missions.Start(ctx, stack.MissionStartParams{AgentID: other.ID, Mission: stack.MissionOpenParams{IntentSummary: "x"}})),
		"get mission":   failure(client.Missions.Get(ctx, mission.MissionID)),
		"complete":      failure(client.Missions.Complete(ctx, mission.MissionID, stack.MissionCompleteParams{})),
		"issue":         failure(client.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: other.ID, MissionIDs: []string{mission.MissionID}})),
		"their mission": failure(client.Passports.Issue(ctx, stack.PassportIssueParams{AgentID: s.agent.ID, MissionIDs: []string{mission.MissionID}})),
		"revoke":        failure(client.Passports.Revoke(ctx, theirs.JTI, "")),
		"report":        failure(client.Passports.Report(ctx, theirs.JTI)),
		"checkpoint":    failure(client.Passports.Checkpoint(ctx, theirs.JTI, stack.CheckpointParams{})),
		"active":        failure(client.Passports.ListActive(ctx, stack.PassportListParams{AgentID: other.ID})),
		"drop-off":      failure(client.Dropoffs.Get(ctx, dropoff.ID)),
		"membership":    failure(client.Fleets.Membership(ctx, other.ID)),
		"approval":      failure(client.Intents.Get(ctx, approval)),
	} {
		require.ErrorIs(t, call, stack.ErrNotFound, name)
	}
	require.ErrorIs(t, failure(client.Proxy.Request(ctx, withPassport(post("#x"), theirs))), stack.ErrUnauthorized)
	require.ErrorIs(t, failure(client.Passports.Refresh(ctx, stack.PassportRefreshParams{Token: theirs.Token})), stack.ErrUnauthorized)
	require.ErrorIs(t, failure(client.Credentials.Get(ctx, "slack", stack.CredentialParams{})), stack.ErrUnauthorized)
	active, err := client.Passports.ListActive(ctx, stack.PassportListParams{})
	require.NoError(t, err)
	assert.Empty(t, active, "others are not shown")
	assert.Empty(t, s.Forwarded("slack.com"))

	for name, call := range map[string]error{
		"list agents":    failure(client.Agents.List(ctx)),
		"register":       failure(client.Agents.Register(ctx, stack.AgentRegisterParams{Name: "more"})),
		"unsuspend":      failure(client.Agents.Activate(ctx, s.agent.ID)),
		"delete itself":  failure(client.Agents.Delete(ctx, s.agent.ID)),
		"unblock itself": failure(client.Agents.Unblock(ctx, s.agent.ID, stack.AgentUnblockParams{})),
		"another key":    failure(client.Agents.EnrollmentChallenge(ctx, s.agent.ID)),
		"approve itself": failure(client.Intents.Approve(ctx, "apr_x", stack.IntentApproveParams{})),
		"audit":          failure(client.Audit.List(ctx, stack.AuditListParams{})),
		"team":           failure(client.Team.List(ctx)),
		"grant itself":   failure(client.Services.GrantAgentAccess(ctx, stack.GrantParams{AgentID: s.agent.ID, ServiceConnectionID: "scon_x", Scopes: []string{"x"}})),
		"kill switch":    failure(client.Passports.RevokeAll(ctx, "")),
		"review itself":  failure(client.Reviews.Decide(ctx, "co_x", stack.ReviewDecideParams{Decision: "approved"})),
	} {
		requireRefused(t, call, http.StatusForbidden, "FORBIDDEN")
		var refused *stack.Error
		require.ErrorAs(t, call, &refused)
		assert.Equal(t, "agent_route", refused.Details["check"], name)
	}

	require.NoError(t, failure(s.client.Agents.Suspend(ctx, s.agent.ID)))
	refused := requireRefused(t, failure(client.Agents.Get(ctx, s.agent.ID)), http.StatusForbidden, "FORBIDDEN")
	assert.Equal(t, "agent_status", refused.Details["check"])
	require.NoError(t, failure(s.client.Agents.Activate(ctx, s.agent.ID)))
	require.NoError(t, failure(client.Agents.Get(ctx, s.agent.ID)))
	require.NoError(t, failure(s.client.Agents.Delete(ctx, s.agent.ID)))
	requireRefused(t, failure(client.Agents.Get(ctx, s.agent.ID)), http.StatusUnauthorized, "INVALID_AGENT_TOKEN")
}

// Members of a fleet call with the key that they joined with, until they are thrown out.
func TestFleetMembersCall(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	s := newFleetStage(t)
	ctx := t.Context()
	f := s.activate(t)
	member, err := s.client.Fleets.EnrollLocal(ctx, f.ID, stack.FleetEnrollLocalParams{Name: "helper", IdempotencyKey: "k"})
	require.NoError(t, err)
	client := s.Client(stack.WithAgent(member.AgentID))
	membership, err := client.Fleets.Membership(ctx, member.AgentID)
	require.NoError(t, err)
	assert.Equal(t, member, membership)
	started, err := client.Missions.Start(ctx, s.startParams(member))
	require.NoError(t, err)
	require.NoError(t, failure(client.Missions.Get(ctx, started.MissionID)))

	key := s.enrolled(t, member.AgentID)
	membership, err = s.client.Fleets.Membership(ctx, member.AgentID)
	require.NoError(t, err)
	assert.Equal(t, key.jwk(), membership.PublicKey, "it has another key now")
	require.ErrorIs(t, failure(client.Fleets.Membership(ctx, member.AgentID)), stack.ErrUnauthorized)

	require.NoError(t, failure(s.client.Fleets.RevokeMember(ctx, f.ID, member.AgentID)))
	_, err = s.with(key.sign(t, goodToken(member.AgentID, "1"))).Agents.Get(ctx, member.AgentID)
	requireRefused(t, err, http.StatusUnauthorized, "INVALID_AGENT_TOKEN")
	_, err = s.client.Agents.Enroll(ctx, member.AgentID, s.enrollParams(t, key, member.AgentID))
	requireRefused(t, err, http.StatusConflict, "KEY_ALREADY_ENROLLED")
}

// The agents of a tenant end with it.
func TestAgentsOfRevokedTenant(t *testing.T) {
	t.Parallel()
	s := newTenant(t, stack.Logged)
	own := *s.stage
	own.client = s.account
	key := own.enrolled(t, s.bot.ID)
	require.NoError(t, failure(s.with(key.sign(t, goodToken(s.bot.ID, "1"))).Agents.Get(t.Context(), s.bot.ID)))
	require.NoError(t, failure(s.client.PartnerTenants.Revoke(t.Context(), s.tenant.OperatorID)))
	_, err := s.with(key.sign(t, goodToken(s.bot.ID, "2"))).Agents.Get(t.Context(), s.bot.ID)
	requireRefused(t, err, http.StatusUnauthorized, "INVALID_AGENT_TOKEN")
}
