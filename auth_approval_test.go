package stack_test

import (
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// approvalURL is where an agent sends a person.
func approvalURL(agentID string, change ...func(url.Values)) string {
	q := url.Values{"agent_id": {agentID}, "callback": {"http://127.0.0.1:9/cb"}, "state": {"the state"}, "machine": {"laptop"},
		"process": {"go <b>"}}
	for _, c := range change {
		c(q)
	}
	return mockURL + "/sdk-bootstrap?" + q.Encode()
}

// ticket has the operator approve.
func (s *stage) ticket(t *testing.T, agentID string) string {
	t.Helper()
	callback, err := s.ApproveEnrollment(approvalURL(agentID))
	require.NoError(t, err)
	u, err := url.Parse(callback)
	require.NoError(t, err)
	require.Equal(t, "state ticket", keys(u.Query()))
	return u.Query().Get("ticket")
}

// enrolBy enrols a fresh key with a bearer.
func (s *stage) enrolBy(t *testing.T, bearer, agentID string) error {
	own := *s
	own.client = s.with(bearer)
	c, err := own.client.Agents.EnrollmentChallenge(t.Context(), agentID)
	if err != nil {
		return err
	}
	key := newSigner(t)
	return failure(own.client.Agents.Enroll(t.Context(), agentID, stack.AgentEnrollParams{PublicKey: key.jwk(), ChallengeID: c.ChallengeID,
		SignedChallenge: key.prove(c.Challenge)}))
}

// The page as a browser has it.
func TestApprovalPage(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	address := approvalURL(s.agent.ID)
	resp := s.send(t, "GET", address, nil)
	assert.Equal(t, 200, resp.StatusCode)
	assert.Contains(t, resp.Header.Get("Content-Security-Policy"), "form-action 'self' http:;")
	assert.Contains(t, resp.text, "A key for "+s.agent.ID)
	assert.Contains(t, resp.text, "go &lt;b&gt; on laptop")

	press := func(address, key, decision string) reply {
		return s.send(t, "POST", address, url.Values{"api_key": {key}, "decision": {decision}})
	}
	member, err := s.client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "b@example.com", Name: "B", Role: stack.RoleReadonly})
	require.NoError(t, err)
	memberKey, err := s.AcceptInvitation(member.ID)
	require.NoError(t, err)
	for name, tc := range map[string]struct{ address, key, says string }{
		"no key":           {address, "", "no API key of an account"},
		"nobody's key":     {address, s.APIKey() + "x", "no API key of an account"},
		"an access token":  {address, s.signIn(t).AccessToken, "no API key of an account"},
		"a ticket":         {address, s.ticket(t, s.agent.ID), "no API key of an account"},
		"a readonly one's": {address, memberKey.Reveal(), "readonly members approve no keys"},
		"an unknown agent": {approvalURL("agt_none"), s.APIKey(), "agt_none"},
	} {
		again := press(tc.address, tc.key, "approve")
		assert.Equal(t, 403, again.StatusCode, name)
		assert.Empty(t, again.Header.Get("Location"), name)
		assert.Contains(t, again.text, tc.says, name)
	}
	assert.Equal(t, 400, press(address, s.APIKey(), "maybe").StatusCode)

	before := s.countRows("agent.enrollment_approve")
	for key, rows := range map[string]int{"": 0, s.APIKey(): 1} {
		had := s.countRows("agent.enrollment_deny")
		denied := press(address, key, "deny")
		assert.Equal(t, 303, denied.StatusCode)
		assert.Equal(t, url.Values{"error": {"access_denied"}, "state": {"the state"}}, denied.location(t))
		assert.Equal(t, had+rows, s.countRows("agent.enrollment_deny"), "the account learns of it where it is known whose it is")
	}
	approved := press(address, s.APIKey(), "approve")
	assert.Equal(t, 303, approved.StatusCode)
	assert.True(t, strings.HasPrefix(approved.Header.Get("Location"), "http://127.0.0.1:9/cb?"))
	assert.Equal(t, before+1, s.countRows("agent.enrollment_approve"))
	require.NoError(t, s.enrolBy(t, approved.location(t).Get("ticket"), s.agent.ID))
	s.RequireAuditIntact(t)
}

// What is no good address is told to the person, and sends nobody on.
func TestApprovalPageRefusals(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	for name, change := range map[string]func(url.Values){
		"no agent":           set("agent_id", ""),
		"what is no agent":   set("agent_id", "svc_1"),
		"no callback":        set("callback", ""),
		"elsewhere":          set("callback", "http://example.com/cb"),
		"like loopback":      set("callback", "http://127.0.0.1.example.com/cb"),
		"https":              set("callback", "https://127.0.0.1/cb"),
		"another scheme":     set("callback", "com.example.app:/cb"),
		"a script":           set("callback", "javascript:alert(1)"),
		"with a fragment":    set("callback", "http://127.0.0.1:9/cb#x"),
		"with a user":        set("callback", "http://u@127.0.0.1:9/cb"),
		"no state":           set("state", ""),
		"a huge state":       set("state", strings.Repeat("x", 4097)),
		"a long machine":     set("machine", strings.Repeat("é", 81)),
		"a long process":     set("process", strings.Repeat("é", 81)),
		"a parameter, twice": func(q url.Values) { q.Add("state", "other") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := approvalURL(s.agent.ID, change)
			for _, resp := range []reply{s.send(t, "GET", address, nil),
				s.send(t, "POST", address, url.Values{"api_key": {s.APIKey()}, "decision": {"approve"}})} {
				assert.Equal(t, 400, resp.StatusCode)
				assert.Empty(t, resp.Header.Get("Location"))
				assert.Contains(t, resp.text, "A key cannot be approved")
			}
			_, err := s.ApproveEnrollment(address)
			require.Error(t, err)
		})
	}
	_, err := s.ApproveEnrollment(s.authorizeURL())
	require.ErrorContains(t, err, "/sdk-bootstrap")
	callback, err := s.ApproveEnrollment(approvalURL(s.agent.ID, set("callback", "http://localhost:5/cb?x=1"), set("machine", ""), set("process", "")))
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(callback, "http://localhost:5/cb?x=1&"), callback)
}

// A ticket enrols one key for one agent, and does nothing else.
func TestEnrolmentTickets(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	other := s.Agent(t, stacktest.AgentConfig{}).ID
	ticket := s.ticket(t, s.agent.ID)
	client := s.with(ticket)
	for name, err := range map[string]error{
		"the agent":    failure(client.Agents.Get(t.Context(), s.agent.ID)),
		"all agents":   failure(client.Agents.List(t.Context())),
		"the log":      failure(client.Audit.ChainHead(t.Context())),
		"its Missions": failure(client.Missions.Open(t.Context(), stack.MissionOpenParams{IntentSummary: "x"})),
	} {
		assert.Equal(t, "ticket_route", requireRefused(t, err, 403, "FORBIDDEN").Details["check"], name)
	}
	require.ErrorIs(t, s.enrolBy(t, ticket, other), stack.ErrNotFound, "another agent")
	wrong := stack.AgentEnrollParams{PublicKey: newSigner(t).jwk(), ChallengeID: "ach_x", SignedChallenge: newSigner(t).prove("x")}
	requireRefused(t, failure(client.Agents.Enroll(t.Context(), s.agent.ID, wrong)), 403, "ENROLLMENT_CHALLENGE_INVALID")
	require.NoError(t, s.enrolBy(t, ticket, s.agent.ID), "what was refused has not used it up")
	requireRefused(t, s.enrolBy(t, ticket, s.agent.ID), 401, "UNAUTHORIZED")
	requireRefused(t, s.enrolBy(t, "etk_nonsense", s.agent.ID), 401, "UNAUTHORIZED")

	tenant := newTenant(t, stack.Logged)
	_, err := tenant.ApproveEnrollment(approvalURL(tenant.bot.ID))
	require.ErrorContains(t, err, "agent not found", "another account's agent")
}

// However many hold a ticket, it enrols one key.
func TestEnrolmentTicketIsUsedOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	ticket := s.ticket(t, s.agent.ID)
	client := s.with(ticket)
	var enrolled atomic.Int32
	var calls sync.WaitGroup
	answers := make([]stack.AgentEnrollParams, 8)
	for i := range answers {
		key := newSigner(t)
		c, err := client.Agents.EnrollmentChallenge(t.Context(), s.agent.ID)
		require.NoError(t, err)
		answers[i] = stack.AgentEnrollParams{PublicKey: key.jwk(), ChallengeID: c.ChallengeID, SignedChallenge: key.prove(c.Challenge)}
	}
	for _, params := range answers {
		calls.Go(func() {
			if failure(client.Agents.Enroll(t.Context(), s.agent.ID, params)) == nil {
				enrolled.Add(1)
			}
		})
	}
	calls.Wait()
	assert.EqualValues(t, 1, enrolled.Load())
	assert.Equal(t, 1, s.countRows("agent.enroll")+s.countRows("agent.rotate_key"))
}

// A ticket ends after five minutes, and with who gave it.
func TestEnrolmentTicketsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOAuthStage(t)
		early, late := s.ticket(t, s.agent.ID), s.ticket(t, s.agent.ID)
		time.Sleep(5*time.Minute - time.Second)
		require.NoError(t, s.enrolBy(t, early, s.agent.ID))
		time.Sleep(time.Second)
		requireRefused(t, s.enrolBy(t, late, s.agent.ID), 401, "UNAUTHORIZED")

		member, err := s.client.Team.Invite(t.Context(), stack.TeamInviteParams{Email: "b@example.com", Name: "B"})
		require.NoError(t, err)
		key, err := s.AcceptInvitation(member.ID)
		require.NoError(t, err)
		given := s.send(t, "POST", approvalURL(s.agent.ID), url.Values{"api_key": {key.Reveal()}, "decision": {"approve"}})
		require.NoError(t, failure(s.client.Team.Revoke(t.Context(), member.ID)))
		requireRefused(t, s.enrolBy(t, given.location(t).Get("ticket"), s.agent.ID), 401, "UNAUTHORIZED")

		oldest := s.ticket(t, s.agent.ID)
		for range 1000 {
			s.ticket(t, s.agent.ID)
		}
		requireRefused(t, s.enrolBy(t, oldest, s.agent.ID), 401, "UNAUTHORIZED")
		require.NoError(t, s.enrolBy(t, s.ticket(t, s.agent.ID), s.agent.ID))
	})
}
