package stack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// An agent that works has what it needs, and only what is its own.
func TestWithAgent(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	s := newStage(t, stack.Enforced)
	ctx := t.Context()
	client := s.Client(stack.WithAgent(s.agent.ID))
	self, err := client.Agents.Get(ctx, s.agent.ID)
	require.NoError(t, err)
	assert.Equal(t, s.agent.ID, self.ID)
	assert.Equal(t, 1, s.countRows("agent.enroll"))

	p := s.params()
	require.NoError(t, client.Passports.RunMission(ctx, p, func(ctx context.Context, m *stack.Mission) error {
		resp, proxyErr := m.Proxy(ctx, post("#support"))
		require.NoError(t, proxyErr)
		assert.Equal(t, http.StatusOK, resp.Status)
		require.NoError(t, failure(client.Passports.Report(ctx, m.JTI())))
		active, activeErr := client.Passports.ListActive(ctx, stack.PassportListParams{})
		require.NoError(t, activeErr)
		assert.Len(t, active, 1)
		token, tokenErr := m.Token(ctx)
		require.NoError(t, tokenErr)
		require.NoError(t, failure(client.Scan.Scan(ctx, stack.ScanParams{Content: "hello", PassportToken: token})))
		intent, intentErr := client.Intents.Submit(ctx, stack.IntentSubmitParams{Intent: stack.IntentOf(post("#x")), PassportToken: token})
		require.NoError(t, intentErr)
		require.NoError(t, failure(client.Intents.Get(ctx, intent.ApprovalID)))
		handed, handErr := client.Dropoffs.Create(ctx, stack.DropoffCreateParams{FromAgentID: s.agent.ID,
			ToAgentID: s.Agent(t, stacktest.AgentConfig{}).ID, Schema: json.RawMessage(`{"type":"object"}`)})
		require.NoError(t, handErr)
		return failure(client.Dropoffs.Deposit(ctx, handed.ID, stack.DropoffDepositParams{AgentID: s.agent.ID, Payload: map[string]any{},
			PassportToken: token}))
	}))
	own, err := client.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "Own"})
	require.NoError(t, err)
	record, err := s.client.Missions.Get(ctx, own.MissionID)
	require.NoError(t, err)
	assert.Equal(t, s.agent.ID, record.AgentID, "an agent that names none means itself")
	require.NoError(t, failure(client.Missions.Complete(ctx, own.MissionID, stack.MissionCompleteParams{})))
	assert.Equal(t, 1, s.countRows("agent.enroll"), "once")
	s.RequireAuditIntact(t)
}

// However many begin at once, in however many processes, one key comes of it.
func TestWithAgentAtOnce(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	s := newStage(t, stack.Enforced)
	var wg sync.WaitGroup
	for range 8 { // each stands for a process
		client := s.Client(stack.WithAgent(s.agent.ID))
		for range 4 {
			wg.Go(func() { assert.NoError(t, failure(client.Agents.Get(t.Context(), s.agent.ID))) })
		}
	}
	wg.Wait()
	assert.Equal(t, 1, s.countRows("agent.enroll"))
	assert.Equal(t, 0, s.countRows("agent.rotate_key"))
	files, err := os.ReadDir(filepath.Join(home, ".stack", "agents"))
	require.NoError(t, err)
	require.Len(t, files, 1, "nothing else lies about")
	info, err := files[0].Info()
	require.NoError(t, err)
	assert.Equal(t, s.agent.ID+".json", info.Name())
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	var file map[string]any
	data, err := os.ReadFile(filepath.Join(home, ".stack", "agents", info.Name()))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &file))
	assert.Equal(t, s.agent.ID, file["agent_id"])
	at, err := time.Parse(time.RFC3339, fmt.Sprint(file["enrolled_at"]))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), at, time.Minute)
}

// What goes wrong on the way is told, and the next call goes on from there.
func TestWithAgentFailures(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("STACK_API_KEY", "")
	dir := filepath.Join(home, ".stack", "agents")
	s := newStage(t, stack.Enforced)
	ctx := t.Context()
	for _, id := range []string{"", "agent_1", "agt_", "agt_../../x", "agt_é", "agt_1\n"} {
		requireParam(t, failure(stack.New(stack.WithAgent(id))), "WithAgent")
	}
	keyless, err := stack.New(stack.WithAgent(s.agent.ID), stack.WithBaseURL("http://mock.test"),
		stack.WithHTTPClient(&http.Client{Transport: s.Transport()}))
	require.NoError(t, err)
	requests := s.Requests()
	require.ErrorIs(t, failure(keyless.Agents.Get(ctx, s.agent.ID)), stack.ErrNoCredentials)
	assert.Equal(t, requests, s.Requests(), "nothing is sent")
	_, err = os.Stat(dir)
	require.ErrorIs(t, err, os.ErrNotExist, "nor made")

	stranger := s.Client(stack.WithAgent("agt_x"))
	err = failure(stranger.Agents.Get(ctx, "agt_x"))
	require.ErrorIs(t, err, stack.ErrNotFound)
	require.ErrorContains(t, err, "enrolling a key for agt_x")
	require.ErrorIs(t, failure(s.Client(stack.WithAgent(s.agent.ID), stack.WithAPIKey("sk_live_x")).Agents.Get(ctx, s.agent.ID)),
		stack.ErrUnauthorized)

	client := s.Client(stack.WithAgent(s.agent.ID), stack.WithMaxRetries(0))
	s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/agents/{agent_id}/enroll", Times: 1, Close: stacktest.CloseAfter})
	require.ErrorContains(t, failure(client.Agents.Get(ctx, s.agent.ID)), "enrolling")
	assert.Equal(t, 1, s.countRows("agent.enroll"), "it is enrolled, and does not know")
	require.NoError(t, failure(client.Agents.Get(ctx, s.agent.ID)))
	assert.Equal(t, 0, s.countRows("agent.rotate_key"), "with the same key")
	require.NoError(t, failure(keyless.Agents.Get(ctx, s.agent.ID)), "the key is there now")

	ended, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("no more"))
	require.ErrorContains(t, failure(s.Client(stack.WithAgent(s.agent.ID)).Agents.Get(ended, s.agent.ID)), "no more")

	path := filepath.Join(dir, s.agent.ID+".json")
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for content, says := range map[string]string{
		"":   "is not the JSON of a key pair",
		"{}": "another kind of key",
		strings.Replace(string(good), s.agent.ID, "agt_other", 1): "is another agent's",
	} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		err = failure(s.Client(stack.WithAgent(s.agent.ID)).Agents.Get(ctx, s.agent.ID))
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, "move it away")
		left, readErr := os.ReadFile(path)
		require.NoError(t, readErr)
		assert.Equal(t, content, string(left), "what is there is left alone")
	}
}

// Each attempt has a token of its own, and no retry is refused as a replay.
func TestWithAgentRetries(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	s := newStage(t, stack.Enforced)
	var seen []string
	client := s.Client(stack.WithAgent(s.agent.ID), stack.WithHTTPClient(&http.Client{
		Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
			seen = append(seen, r.Header.Get("Authorization"))
			return s.Transport().RoundTrip(r)
		})}))
	require.NoError(t, failure(client.Agents.Get(t.Context(), s.agent.ID)))
	assert.Equal(t, []string{"Bearer " + s.APIKey(), "Bearer " + s.APIKey()}, seen[:2])
	seen = nil
	s.Fault(stacktest.Fault{Method: "GET", Path: "/v1/agents/{agent_id}", Times: 2, Close: stacktest.CloseAfter})
	require.NoError(t, failure(client.Agents.Get(t.Context(), s.agent.ID)))
	require.Len(t, seen, 3, "net/http sends none again by itself")
	assert.Equal(t, 0, s.countRows("auth.failure"))
	slices.Sort(seen)
	assert.Len(t, slices.Compact(seen), 3)
	for _, header := range seen {
		parsed, _, err := jwt.NewParser().ParseUnverified(strings.TrimPrefix(header, "Bearer "), jwt.MapClaims{})
		require.NoError(t, err)
		assert.Equal(t, map[string]any{"alg": "EdDSA", "typ": "JWT"}, parsed.Header)
		claims := parsed.Claims.(jwt.MapClaims)
		iat := claims["iat"].(float64)
		assert.Regexp(t, fmt.Sprintf("^aj_%d_[0-9a-f]{12}$", int64(iat)), claims["jti"])
		delete(claims, "jti")
		assert.Equal(t, jwt.MapClaims{"iss": "stack-sdk", "sub": s.agent.ID, "aud": "stack:agent", "iat": iat, "nbf": iat, "exp": iat + 60}, claims)
	}
}
