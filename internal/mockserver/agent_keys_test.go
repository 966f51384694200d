package mockserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// enrollHand registers an agent and gives it a key.
func enrollHand(t *testing.T, client *stack.Client, name string) (*stack.Agent, ed25519.PrivateKey) {
	t.Helper()
	a, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: name})
	require.NoError(t, err)
	c, err := client.Agents.EnrollmentChallenge(t.Context(), a.ID)
	require.NoError(t, err)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	b64 := base64.RawURLEncoding.EncodeToString
	_, err = client.Agents.Enroll(t.Context(), a.ID, stack.AgentEnrollParams{ChallengeID: c.ChallengeID,
		PublicKey:       stack.PublicKeyJWK{KTY: "OKP", CRV: "Ed25519", X: b64(public)},
		SignedChallenge: stack.NewSecret(b64(ed25519.Sign(private, []byte(c.Challenge))))})
	require.NoError(t, err)
	return a, private
}

func agentToken(t testing.TB, key ed25519.PrivateKey, agentID, jti string) string {
	t.Helper()
	now := time.Now().Unix()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"iss": "stack-sdk", "sub": agentID, "aud": "stack:agent",
		"iat": now, "nbf": now, "exp": now + 60, "jti": jti}).SignedString(key)
	require.NoError(t, err)
	return signed
}

// What an agent may call is there, is for members too, and each id in its path is held against the agent.
func TestAgentRoutes(t *testing.T) {
	t.Parallel()
	byName := map[string]route{}
	for _, r := range routes() {
		byName[r.method+" "+r.pattern] = r
	}
	free := map[string]bool{"provider": true, "connection_id": true, "skill_id": true} // a passport or the agent's settings bind them
	for _, name := range agentMay {
		r, ok := byName[name]
		if !assert.True(t, ok, "%s is no route", name) {
			continue
		}
		assert.False(t, r.public || r.control || r.operatorOnly || r.role == stack.RoleAdmin, name)
		for i := range r.in.NumField() {
			tag := r.in.Field(i).Tag
			for _, at := range []string{tag.Get("path"), tag.Get("header")} {
				switch at {
				case "", "Idempotency-Key", "X-STACK-Authority-Request-Id", "Anthropic-Version", "Anthropic-Beta", "HTTP-Referer", "X-Title":
				default:
					assert.True(t, free[at] || agentReferences[at] != nil, "%s takes %s, which nothing binds to the agent", name, at)
				}
			}
		}
		if r.out.Kind() == reflect.Slice && r.out.Elem().Kind() == reflect.Struct {
			assert.Contains(t, []string{"GET /v1/passports/active", "GET /v1/services", "GET /v1/skills"}, name)
		}
	}
}

// Another operator's agents are not there, and an agent stays in its own account.
func TestAgentKeysOfOperatorsDoNotMeet(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	a, key := enrollHand(t, client, "mine")
	challenge, err := client.Agents.EnrollmentChallenge(t.Context(), a.ID)
	require.NoError(t, err)
	_, stranger := newStranger(t, s)
	rows := op.chain.Len()
	require.ErrorIs(t, failure(stranger.Agents.EnrollmentChallenge(t.Context(), a.ID)), stack.ErrNotFound)
	good := answer(t, challenge, "k")
	require.ErrorIs(t, failure(stranger.Agents.Enroll(t.Context(), a.ID, stack.AgentEnrollParams{PublicKey: good.PublicKey,
		ChallengeID: challenge.ChallengeID, SignedChallenge: good.Proof})), stack.ErrNotFound)
	assert.Equal(t, rows, op.chain.Len())
	theirs, err := stranger.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "theirs"})
	require.NoError(t, err)
	rec, _ := ask(t, s, "GET", "/v1/agents/"+theirs.ID, "", bearer("Bearer "+agentToken(t, key, a.ID, "1")))
	assert.Equal(t, http.StatusNotFound, rec.Code)

	s.Reset()
	rec, _ = ask(t, s, "GET", "/v1/agents/"+a.ID, "", bearer("Bearer "+agentToken(t, key, a.ID, "2")))
	assert.Equal(t, http.StatusUnauthorized, rec.Code, "all is forgotten")
}

// A clock that a control route has moved on is not the agents'.
func TestAgentTokensKeepTheirTime(t *testing.T) {
	t.Parallel()
	s, _, client := newDirect(t)
	a, key := enrollHand(t, client, "mine")
	s.Advance(time.Hour)
	rec, _ := ask(t, s, "GET", "/v1/agents/"+a.ID, "", bearer("Bearer "+agentToken(t, key, a.ID, "1")))
	assert.Equal(t, http.StatusOK, rec.Code)
}

func TestTokenMemoryIsBounded(t *testing.T) {
	t.Parallel()
	var m tokenMemory
	began := time.Now()
	for i := range maxTokensSeen {
		fresh, wait := m.admit(fmt.Sprint(i), began.Add(time.Duration(i)))
		require.True(t, fresh)
		require.Zero(t, wait)
	}
	_, wait := m.admit("one too many", began.Add(time.Minute))
	assert.Equal(t, 10*time.Second, wait)
	fresh, wait := m.admit("later", began.Add(70*time.Second))
	assert.True(t, fresh)
	assert.Zero(t, wait)
	assert.Len(t, m.known, maxTokensSeen)
	m.admit("much later", began.Add(time.Hour))
	assert.Len(t, m.known, 1)
	assert.Len(t, m.order, 1)
}

func TestTooManyAgentTokens(t *testing.T) {
	t.Parallel()
	s, _, client := newDirect(t)
	a, key := enrollHand(t, client, "mine")
	own, _ := s.keys.agent(a.ID)
	for i := range maxTokensSeen {
		own.seen.admit(fmt.Sprint("x", i), time.Now())
	}
	rec, refused := ask(t, s, "GET", "/v1/agents/"+a.ID, "", bearer("Bearer "+agentToken(t, key, a.ID, "1")))
	assert.Equal(t, http.StatusTooManyRequests, rec.Code)
	_, details := refusalOf(t, refused)
	assert.Equal(t, "agent_tokens", details["check"])
	assert.NotEmpty(t, rec.Header().Get("Retry-After"))
}

func FuzzAgentToken(f *testing.F) {
	s := New(Options{})
	op, _ := s.operatorByID(s.first.OperatorID)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(f, err)
	op.agents.put("agt_1", &agent{Agent: stack.Agent{ID: "agt_1"}})
	s.keys.addAgent(&agentKey{op: op, agentID: "agt_1", public: public})
	good := agentToken(f, private, "agt_1", "good")
	f.Add(good)
	f.Add(good + ".")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := s.agentCaller(text)
		if err != nil {
			var refusal *apiError
			require.ErrorAs(t, err, &refusal)
			assert.Contains(t, []int{http.StatusUnauthorized, http.StatusTooManyRequests}, refusal.status)
			return
		}
		assert.Equal(t, "agt_1", c.agentID)
		assert.Equal(t, good, text, "nothing else passes")
	})
}

func BenchmarkAgentCaller(b *testing.B) {
	s := New(Options{})
	op, _ := s.operatorByID(s.first.OperatorID)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(b, err)
	op.agents.put("agt_1", &agent{Agent: stack.Agent{ID: "agt_1"}})
	own := &agentKey{op: op, agentID: "agt_1", public: public}
	s.keys.addAgent(own)
	token := agentToken(b, private, "agt_1", "good")
	b.ReportAllocs()
	for b.Loop() {
		own.seen = tokenMemory{}
		if _, err := s.agentCaller(token); err != nil {
			b.Fatal(err)
		}
	}
}
