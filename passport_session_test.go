package stack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
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

// session issues a passport and keeps it.
func (s *stage) session(t *testing.T, lifetime time.Duration, change ...func(*stack.PassportIssueParams)) *stack.PassportSession {
	t.Helper()
	session, err := s.client.Passports.Session(t.Context(), s.issueParams(s.mission(t, lifetime), change...))
	require.NoError(t, err)
	return session
}

func tokenOf(t *testing.T, source stack.TokenSource) string {
	t.Helper()
	token, err := source.Token(t.Context())
	require.NoError(t, err)
	return token.Reveal()
}

// The token is the same until 60 seconds, or a third of a short life, before its end; then it is another one of the same
// passport.
func TestPassportSessionRenews(t *testing.T) {
	t.Parallel()
	for ttl, grace := range map[time.Duration]time.Duration{0: time.Minute, time.Hour: time.Minute, time.Minute: 20 * time.Second} {
		t.Run(ttl.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				session := s.session(t, 12*time.Hour, func(p *stack.PassportIssueParams) { p.TTL = ttl })
				jti := session.JTI()
				for range 3 {
					first := tokenOf(t, session)
					life := time.Until(session.ExpiresAt())
					requests := s.Requests()
					time.Sleep(life - grace - time.Second) // virtual
					assert.Equal(t, first, tokenOf(t, session))
					assert.Equal(t, requests, s.Requests(), "not before its time")
					time.Sleep(2 * time.Second)
					next := tokenOf(t, session)
					assert.NotEqual(t, first, next)
					assert.Equal(t, requests+1, s.Requests())
					claims := s.claims(t, stack.NewSecret(next))
					assert.Equal(t, jti, claims.JTI)
					assert.Equal(t, claims.ExpiresAt.Unix(), session.ExpiresAt().Unix())
				}
			})
		})
	}
}

// However many ask at once, the passport is renewed once.
func TestPassportSessionRenewsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		session := s.session(t, time.Hour)
		old := tokenOf(t, session)
		time.Sleep(14*time.Minute + 30*time.Second) // virtual
		s.Fault(stacktest.Fault{Path: "/v1/passports/refresh", Delay: 5 * time.Second})
		requests := s.Requests()
		var all sync.WaitGroup
		var given sync.Map
		ctx, cancel := context.WithCancelCause(t.Context())
		impatient := errors.New("impatient")
		for i := range 100 {
			all.Go(func() {
				if i%10 == 0 { // these give up, and take nothing from the others
					_, err := session.Token(ctx)
					assert.ErrorIs(t, err, impatient)
					return
				}
				given.Store(tokenOf(t, session), true)
			})
		}
		time.Sleep(time.Second)
		cancel(impatient)
		all.Wait()
		assert.Equal(t, requests+1, s.Requests())
		n := 0
		given.Range(func(token, _ any) bool {
			n++
			assert.NotEqual(t, old, token)
			return true
		})
		assert.Equal(t, 1, n)
	})
}

// A renewal that fails for a passing reason does no harm as long as the token is good.
func TestPassportSessionServerInTrouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged, stack.WithMaxRetries(0))
		session := s.session(t, 2*time.Hour)
		old := tokenOf(t, session)
		trouble := s.Fault(stacktest.Fault{Path: "/v1/passports/refresh", Status: 503, Times: 100})
		time.Sleep(14*time.Minute + 10*time.Second) // virtual
		requests := s.Requests()
		for range 3 {
			assert.Equal(t, old, tokenOf(t, session))
		}
		assert.Equal(t, requests+1, s.Requests(), "it is not asked again at once")
		time.Sleep(6 * time.Second)
		assert.Equal(t, old, tokenOf(t, session))
		assert.Equal(t, requests+2, s.Requests())
		time.Sleep(time.Minute)
		_, err := session.Token(t.Context())
		var apiErr *stack.Error
		require.ErrorAs(t, err, &apiErr, "the token is dead")
		assert.Equal(t, 503, apiErr.Status)
		trouble.Remove()
		time.Sleep(6 * time.Second)
		assert.NotEqual(t, old, tokenOf(t, session), "within its time a dead token can be renewed")
	})
}

// Once the passport is gone, that is said, without asking the server again.
func TestPassportSessionEnds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end   func(t *testing.T, s *stage, session *stack.PassportSession, mission string)
		check func(t *testing.T, err error)
	}{
		"revoked": {func(t *testing.T, s *stage, session *stack.PassportSession, _ string) {
			_, err := s.client.Passports.Revoke(t.Context(), session.JTI(), "rogue")
			require.NoError(t, err)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, stack.ErrPassportRevoked) }},
		"checked out": {func(t *testing.T, s *stage, session *stack.PassportSession, _ string) {
			_, err := s.client.Passports.Checkout(t.Context(), session.JTI(), stack.CheckpointParams{ServicesUsed: []string{}})
			require.NoError(t, err)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, stack.ErrPassportRevoked) }},
		"Mission completed": {func(t *testing.T, s *stage, _ *stack.PassportSession, mission string) {
			_, err := s.client.Missions.Complete(t.Context(), mission, stack.MissionCompleteParams{})
			require.NoError(t, err)
		}, func(t *testing.T, err error) {
			var ended *stack.MissionEndedError
			if errors.As(err, &ended) {
				assert.Equal(t, stack.MissionCompleted, ended.State)
				return
			}
			require.ErrorIs(t, err, stack.ErrPassportRevoked)
		}},
		"too late": {func(*testing.T, *stage, *stack.PassportSession, string) {
			time.Sleep(25 * time.Hour) // virtual
		}, func(t *testing.T, err error) {
			var ended *stack.MissionEndedError
			require.True(t, errors.As(err, &ended) || errors.Is(err, stack.ErrPassportExpired), err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, stack.Logged)
				mission := s.mission(t, 24*time.Hour)
				session, err := s.client.Passports.Session(t.Context(), s.issueParams(mission))
				require.NoError(t, err)
				tc.end(t, s, session, mission)
				time.Sleep(15 * time.Minute)
				_, err = session.Token(t.Context())
				require.Error(t, err)
				tc.check(t, err)
				requests := s.Requests()
				_, again := session.Token(t.Context())
				assert.Equal(t, err, again)
				assert.Equal(t, requests, s.Requests())
			})
		})
	}
}

// A passport that cannot live longer than its Mission is not asked about on every call, and says so when it is dead.
func TestPassportSessionAtTheMissionsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		session := s.session(t, 10*time.Minute)
		time.Sleep(9*time.Minute + 30*time.Second) // virtual
		requests := s.Requests()
		for range 20 {
			tokenOf(t, session)
		}
		assert.Equal(t, requests+1, s.Requests())
		time.Sleep(time.Minute)
		_, err := session.Token(t.Context())
		var ended *stack.MissionEndedError
		require.ErrorAs(t, err, &ended)
		assert.Equal(t, stack.MissionExpired, ended.State)
	})
}

// An enforced passport owes checkpoints, which a session does not send.
func TestPassportSessionOwesACheckpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		session := s.session(t, time.Hour, func(p *stack.PassportIssueParams) { p.CheckpointInterval = 5 * time.Minute })
		time.Sleep(4 * time.Minute) // virtual
		_, err := s.client.Passports.Checkpoint(t.Context(), session.JTI(), stack.CheckpointParams{ServicesUsed: []string{}})
		require.NoError(t, err)
		time.Sleep(4 * time.Minute)
		tokenOf(t, session)
		_, err = s.client.Proxy.Post(t.Context(), withToken(post("#a"), tokenOf(t, session)))
		require.NoError(t, err, "the checkpoint extended it")
		time.Sleep(10 * time.Minute)
		_, err = session.Token(t.Context())
		require.ErrorIs(t, err, stack.ErrPassportRevoked, "it kept silent")
	})
}

func withToken(r stack.ProxyRequest, token string) stack.ProxyRequest {
	r.PassportToken = stack.NewSecret(token)
	return r
}

func TestPassportSessionRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	_, err := s.client.Passports.Session(t.Context(), stack.PassportIssueParams{AgentID: s.agent.ID})
	requireParam(t, err, "mission_ids")
	mission := s.mission(t, time.Hour)
	_, err = s.client.Missions.Complete(t.Context(), mission, stack.MissionCompleteParams{})
	require.NoError(t, err)
	_, err = s.client.Passports.Session(t.Context(), s.issueParams(mission))
	var ended *stack.MissionEndedError
	require.ErrorAs(t, err, &ended)

	for _, token := range []string{"a.b", "x.y.z", "eyJhbGciOiJub25lIn0.e30."} {
		client, err := stack.New(stack.WithAPIKey("sk_live_x"), stack.WithBaseURL("http://mock.test"), stack.WithHTTPClient(&http.Client{
			Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
				return jsonAnswer(r, `{"token":"`+token+`","jti":"pp_1","expires_at":"2026-01-01T00:00:00Z"}`), nil
			})}))
		require.NoError(t, err)
		_, err = client.Passports.Session(t.Context(), s.issueParams("ms_1"))
		var decode *stack.DecodeError
		require.ErrorAs(t, err, &decode, token)
		assert.NotContains(t, err.Error(), token)
	}
}

func jsonAnswer(r *http.Request, body string) *http.Response {
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: readCloser{bytes.NewReader([]byte(body))}}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// Neither printing nor logging a session or a static token shows the token.
func TestPassportSessionIsNotShown(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	session := s.session(t, time.Hour)
	token := tokenOf(t, session)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "session", session, "static", stack.NewStaticToken(stack.NewSecret(token)),
		"params", stack.LLMParams{Passport: stack.NewStaticToken(stack.NewSecret(token))})
	shown := log.String() + fmt.Sprintf("%v %+v %#v", session, session, stack.NewStaticToken(stack.NewSecret(token)))
	assert.NotContains(t, shown, token)
	assert.Contains(t, log.String(), session.JTI())
}

// A session authorises every kind of call that takes a passport, and a Mission is a source of tokens as well.
func TestTokenSources(t *testing.T) {
	t.Parallel()
	s := newLLMStage(t, stack.Logged)
	mission := s.open(t, func(p *stack.MissionParams) { p.Services = []string{"openai"} })
	session := s.session(t, time.Hour, func(p *stack.PassportIssueParams) { p.Intent.Services = []string{"openai"} })
	var asked atomic.Int32
	for _, source := range []stack.TokenSource{mission, session, stack.NewStaticToken(s.passport.Token),
		countingSource{session, &asked}} {
		_, err := s.client.LLM.OpenAI(t.Context(), stack.LLMParams{Body: json.RawMessage(llmProviders[1].body), Passport: source})
		require.NoError(t, err)
	}
	assert.EqualValues(t, 1, asked.Load(), "once a call")
	refused := errors.New("no token")
	_, err := s.client.LLM.OpenAI(t.Context(), stack.LLMParams{Body: json.RawMessage(llmProviders[1].body), Passport: failingSource{refused}})
	require.ErrorIs(t, err, refused)
	mission.Close(&err)
}

type countingSource struct {
	stack.TokenSource
	asked *atomic.Int32
}

func (c countingSource) Token(ctx context.Context) (stack.Secret, error) {
	c.asked.Add(1)
	return c.TokenSource.Token(ctx)
}

type failingSource struct{ err error }

func (f failingSource) Token(context.Context) (stack.Secret, error) { return stack.Secret{}, f.err }
