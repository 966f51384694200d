package stack_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// show sends a request through a middleware, with the values of its header, to a handler that names the agent.
func show(t *testing.T, v *stack.PassportVerifier, values ...string) *httptest.ResponseRecorder {
	t.Helper()
	handler := stack.PassportMiddleware(v)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, ok := stack.PassportFromContext(r.Context())
		assert.True(t, ok)
		_, _ = fmt.Fprint(w, claims.Subject)
	}))
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	for _, value := range values {
		r.Header.Add("x-stack-passport", value)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestPassportMiddleware(t *testing.T) {
	t.Parallel()
	f := newForger("k1")
	expired := f.sign(f.header(), goodClaims(time.Now().Add(-time.Hour)))
	for name, test := range map[string]struct {
		values          []string
		status          int
		code            string
		reason          stack.VerificationReason
		claim, demanded string
	}{
		"a passport":         {[]string{f.good()}, 200, "", "", "", ""},
		"the first counts":   {[]string{f.good(), "x"}, 200, "", "", "", ""},
		"and not the second": {[]string{"x", f.good()}, 401, "UNAUTHORIZED", stack.RefusedMalformed, "", `Stack-Passport error="malformed"`},
		"two in one":         {[]string{f.good() + "," + f.good()}, 401, "UNAUTHORIZED", stack.RefusedMalformed, "", `Stack-Passport error="malformed"`},
		"no header":          {nil, 401, "UNAUTHORIZED", stack.RefusedMissing, "", "Stack-Passport"},
		"an empty one":       {[]string{""}, 401, "UNAUTHORIZED", stack.RefusedMissing, "", "Stack-Passport"},
		"with Bearer":        {[]string{"Bearer " + f.good()}, 401, "UNAUTHORIZED", stack.RefusedMalformed, "", `Stack-Passport error="malformed"`},
		"expired":            {[]string{expired}, 401, "PASSPORT_EXPIRED", stack.RefusedExpired, "exp", `Stack-Passport error="expired"`},
		"of another":         {[]string{newForger("k1").good()}, 401, "UNAUTHORIZED", stack.RefusedSignature, "", `Stack-Passport error="signature"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			v := f.verifier(t, func(c *stack.PassportVerifierConfig) {
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			w := show(t, v, test.values...)
			require.Equal(t, test.status, w.Code)
			assert.Equal(t, test.demanded, w.Header().Get("WWW-Authenticate"))
			if test.status == http.StatusOK {
				assert.Equal(t, "agt_1", w.Body.String())
				assert.Empty(t, log.String())
				return
			}
			requireRefusedAnswer(t, w, test.code, test.reason, test.claim)
			assert.Empty(t, w.Header().Get("Retry-After"))
			assert.Contains(t, log.String(), string(test.reason))
			for _, value := range test.values {
				for part := range strings.SplitSeq(value, ".") {
					if len(part) > 10 {
						assert.NotContains(t, w.Body.String()+log.String(), part)
					}
				}
			}
		})
	}
	_, ok := stack.PassportFromContext(t.Context())
	assert.False(t, ok)
}

func requireRefusedAnswer(t *testing.T, w *httptest.ResponseRecorder, code string, reason stack.VerificationReason, claim string) {
	t.Helper()
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	var body struct {
		Error struct {
			Code, Message string
			Details       struct {
				Check, Reason, Claim string
			}
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	assert.Equal(t, code, body.Error.Code)
	assert.NotEmpty(t, body.Error.Message)
	assert.Equal(t, "passport", body.Error.Details.Check)
	assert.Equal(t, string(reason), body.Error.Details.Reason)
	assert.Equal(t, claim, body.Error.Details.Claim)
}

// What cannot be verified at the moment is not the caller's fault.
func TestPassportMiddlewareUnavailable(t *testing.T) {
	t.Parallel()
	inKeyTest(t, func(k *keyTest) {
		k.server.serve(func(s *keyServer) { s.status = http.StatusInternalServerError })
		for _, v := range []*stack.PassportVerifier{k.verifier, nil, {}} {
			w := show(k.T, v, k.old.good())
			require.Equal(k, http.StatusServiceUnavailable, w.Code)
			assert.Equal(k, "5", w.Header().Get("Retry-After"))
			assert.Empty(k, w.Header().Get("WWW-Authenticate"))
			requireRefusedAnswer(k.T, w, "VERIFICATION_UNAVAILABLE", stack.RefusedUnavailable, "")
		}
	})
}

// Keys that cannot be fetched are logged, though nobody waits for them.
func TestKeysOutOfReachAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		v, err := stack.NewPassportVerifier(stack.PassportVerifierConfig{HTTPClient: &http.Client{Transport: &keyServer{status: 503}},
			Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), stack.NewSecret(newForger("k").good()))
		requireRefusal(t, err, stack.RefusedUnavailable, "")
		assert.Contains(t, log.String(), "level=WARN")
		assert.Contains(t, log.String(), "503")
	})
}

// onlineStage is a mock, a verifier that asks it, and a count of how often.
type onlineStage struct {
	*stage
	verifier *stack.PassportVerifier
	asked    func() int
}

func inOnlineStage(t *testing.T, window time.Duration, test func(*testing.T, *onlineStage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		before := 0
		online := s.Client(stack.WithMaxRetries(0), stack.WithHTTPClient(&http.Client{Transport: transportFunc(
			func(r *http.Request) (*http.Response, error) {
				before++
				return s.Transport().RoundTrip(r)
			})}))
		v, err := stack.NewPassportVerifier(s.verifies(func(c *stack.PassportVerifierConfig) { c.Online, c.RevocationWindow = online, window }))
		require.NoError(t, err)
		test(t, &onlineStage{s, v, func() int { return before }})
	})
}

func (s *onlineStage) check(t *testing.T, p *stack.Passport, want stack.VerificationReason) error {
	t.Helper()
	got, err := s.verifier.Verify(t.Context(), p.Token)
	if want == "" {
		require.NoError(t, err)
		assert.Equal(t, p.JTI, got.JTI)
		return nil
	}
	requireRefusal(t, err, want, p.Token.Reveal())
	return err
}

// A revocation counts when the answer before it is over: one answer serves for all tokens of a passport.
func TestVerifyOnline(t *testing.T) {
	t.Parallel()
	inOnlineStage(t, 0, func(t *testing.T, s *onlineStage) {
		p, other := s.issue(t), s.issue(t)
		time.Sleep(time.Second)
		renewed, err := s.client.Passports.Refresh(t.Context(), stack.PassportRefreshParams{Token: p.Token})
		require.NoError(t, err)
		_ = s.check(t, p, "")
		_ = s.check(t, renewed, "")
		_ = s.check(t, other, "")
		assert.Equal(t, 2, s.asked())
		_, err = s.client.Passports.Revoke(t.Context(), p.JTI, "went mad")
		require.NoError(t, err)
		time.Sleep(30*time.Second - time.Nanosecond)
		_ = s.check(t, p, "")
		time.Sleep(time.Nanosecond)
		err = s.check(t, p, stack.RefusedRevoked)
		require.ErrorIs(t, err, stack.ErrPassportRevoked)
		assert.ErrorContains(t, err, "went mad")
		_ = s.check(t, renewed, stack.RefusedRevoked)
		_ = s.check(t, other, "")
		assert.Equal(t, 4, s.asked())
		w := show(t, s.verifier, p.Token.Reveal())
		assert.Equal(t, http.StatusUnauthorized, w.Code)
		requireRefusedAnswer(t, w, "PASSPORT_REVOKED", stack.RefusedRevoked, "")
	})
}

// Everything that the server may say.
func TestVerifyOnlineStates(t *testing.T) {
	t.Parallel()
	inOnlineStage(t, time.Second, func(t *testing.T, s *onlineStage) {
		done := s.issue(t)
		_, err := s.client.Passports.Checkout(t.Context(), done.JTI, stack.CheckpointParams{ServicesUsed: []string{"slack"}})
		require.NoError(t, err)
		assert.ErrorContains(t, s.check(t, done, stack.RefusedRevoked), "checked_out")

		mission := s.mission(t, time.Hour)
		over, err := s.client.Passports.Issue(t.Context(), s.issueParams(mission))
		require.NoError(t, err)
		_, err = s.client.Missions.Complete(t.Context(), mission, stack.MissionCompleteParams{})
		require.NoError(t, err)
		_ = s.check(t, over, stack.RefusedMissionEnded)

		lost := s.issue(t)
		short := s.issue(t, func(p *stack.PassportIssueParams) { p.TTL = time.Minute })
		s.Advance(time.Minute)
		require.ErrorIs(t, s.check(t, short, stack.RefusedExpired), stack.ErrPassportExpired)

		s.Reset()
		_ = s.check(t, lost, stack.RefusedByServer)
	})
}

// A server that cannot be asked lets nothing pass, and is asked again. Many who wait ask once.
func TestVerifyOnlineFails(t *testing.T) {
	t.Parallel()
	inOnlineStage(t, 0, func(t *testing.T, s *onlineStage) {
		p := s.issue(t)
		s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/passports/verify", Status: http.StatusInternalServerError, Times: 1})
		err := s.check(t, p, stack.RefusedUnavailable)
		var api *stack.Error
		require.ErrorAs(t, err, &api)
		assert.Equal(t, http.StatusInternalServerError, api.Status)
		_ = s.check(t, p, "")
		assert.Equal(t, 2, s.asked())

		time.Sleep(time.Minute)
		s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/passports/verify", Delay: time.Second, Times: 1})
		results := make(chan error)
		for range 20 {
			go func() {
				results <- failure(s.verifier.Verify(t.Context(), p.Token))
			}()
		}
		for range 20 {
			require.NoError(t, <-results)
		}
		assert.Equal(t, 3, s.asked())
		forged := strings.Replace(p.Token.Reveal(), ".", "x.", 1)
		_, err = s.verifier.Verify(t.Context(), stack.NewSecret(forged))
		requireRefusal(t, err, stack.RefusedMalformed, forged)
		assert.Equal(t, 3, s.asked(), "nobody is asked about what is wrong anyway")
	})
}
