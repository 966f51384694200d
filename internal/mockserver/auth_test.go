package mockserver

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func bearer(value string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Del("Authorization")
		if value != "" {
			r.Header.Set("Authorization", value)
		}
	}
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	const none, wrong = "UNAUTHORIZED", "INVALID_API_KEY"
	key := s.first.APIKey
	for header, want := range map[string]string{"": none, "Basic abc": none, "Bearer": none, "Bearer ": none, key: none,
		"Bearer eyJx": none, "Token " + key: none, "Bearer  " + key: none, "Bearer sk_live_": wrong,
		"Bearer sk_live_nobody": wrong, "bearer " + key + "x": wrong, "Bearer " + key + " x": wrong} {
		rec, answer := ask(t, s, "GET", "/v1/agents", "", bearer(header))
		assert.Equal(t, http.StatusUnauthorized, rec.Code, header)
		code, details := refusalOf(t, answer)
		assert.Equal(t, want, code, header)
		assert.Equal(t, "authentication", details["check"])
		assert.NotEmpty(t, details["allowed"])
		assert.NotContains(t, rec.Body.String(), s.first.APIKey)
	}
	rec, _ := ask(t, s, "GET", "/v1/agents", "", bearer("bearer "+s.first.APIKey))
	assert.Equal(t, http.StatusOK, rec.Code, "the scheme's case does not matter")
	rec, _ = ask(t, s, "GET", "/v1/.well-known/jwks.json", "", bearer(""))
	assert.Equal(t, http.StatusOK, rec.Code, "the keys are public")
	rec, answer := ask(t, s, "POST", "/v1/agents/register", `{"nmae":1}`, bearer(""))
	assert.Equal(t, http.StatusUnauthorized, rec.Code, "who may not call learns nothing of the input")
	code, _ := refusalOf(t, answer)
	assert.Equal(t, "UNAUTHORIZED", code)
}

// Every route but the public ones wants a key.
func TestEveryRouteAuthenticates(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	for _, r := range s.routes {
		if r.public {
			continue
		}
		rec, answer := ask(t, s, r.method, r.pattern, "", bearer(""))
		assert.Equal(t, http.StatusUnauthorized, rec.Code, r.pattern)
		code, _ := refusalOf(t, answer)
		assert.Equal(t, "UNAUTHORIZED", code, r.pattern)
	}
}

// 20 failures in 60 s that were meant for one operator, by its key or by a passport shown to it.
// (contract: decisions, Detectors)
func TestAuthFailureBurst(t *testing.T) {
	t.Parallel()
	wrongKeys := func(s *Server) func(*http.Request) { return bearer("Bearer " + s.first.APIKey[:20] + "guess") }
	tests := map[string]struct {
		method, target, body string
		wrong                func(*Server) func(*http.Request)
		fires                bool
	}{
		"keys": {"GET", "/v1/agents", "", wrongKeys, true},
		"passports": {"POST", "/v1/proxy", `{"service":"slack","method":"GET","url":"https://slack.com/"}`,
			func(*Server) func(*http.Request) {
				return func(r *http.Request) { r.Header.Set("X-Passport-Token", "guess") }
			}, true},
		"keys of nobody": {"GET", "/v1/agents", "",
			func(*Server) func(*http.Request) { return bearer("Bearer sk_live_nobody_at_all") }, false},
		"no keys": {"GET", "/v1/agents", "", func(*Server) func(*http.Request) { return bearer("") }, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := New(Options{})
				fail := func(n int) {
					for range n {
						rec, _ := ask(t, s, tc.method, tc.target, tc.body, tc.wrong(s))
						require.Equal(t, http.StatusUnauthorized, rec.Code)
					}
				}
				fail(19)
				time.Sleep(time.Minute)
				fail(19)
				assert.Empty(t, s.SecurityEvents(), "the window has moved on")
				fail(1)
				if !tc.fires {
					assert.Empty(t, s.SecurityEvents())
					assert.Empty(t, s.Audit())
					return
				}
				events := s.SecurityEvents()
				require.Len(t, events, 1)
				assert.Equal(t, "auth_failure_burst", events[0].SignalType)
				assert.Equal(t, stack.SeverityWarning, events[0].Severity)
				failures := 0
				for _, row := range s.Audit() {
					if row.Action == "auth.failure" {
						failures++
						assert.Equal(t, stack.OutcomeFailure, row.Outcome)
						assert.NotContains(t, row.ErrorMessage, "guess")
					}
				}
				assert.Equal(t, 39, failures)
			})
		})
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		set := func(limit int) {
			_, err := s.ChangePolicy(PolicyChange{RateLimitPerMinute: &limit})
			require.NoError(t, err)
		}
		set(3)
		for range 5 { // who has no key uses nothing up
			ask(t, s, "GET", "/v1/agents", "", bearer("Bearer sk_live_nobody"))
			ask(t, s, "GET", "/v1/.well-known/jwks.json", "")
		}
		for range 3 {
			rec, _ := ask(t, s, "GET", "/v1/agents", "")
			assert.Equal(t, http.StatusOK, rec.Code)
			assert.Empty(t, rec.Header().Get("Retry-After"))
		}
		time.Sleep(20*time.Second + time.Millisecond)
		rec, answer := ask(t, s, "POST", "/v1/agents/register", `{"name":"a-1"}`)
		assert.Equal(t, http.StatusTooManyRequests, rec.Code)
		code, details := refusalOf(t, answer)
		assert.Equal(t, "RATE_LIMITED", code)
		assert.Equal(t, map[string]any{"check": "rate_limit", "allowed": 3.0}, details)
		assert.Equal(t, "40", rec.Header().Get("Retry-After"), "whole seconds, and never too few")
		time.Sleep(40 * time.Second)
		rec, _ = ask(t, s, "GET", "/v1/agents", "")
		assert.Equal(t, http.StatusOK, rec.Code)
		set(0)
		for range 5 {
			rec, _ = ask(t, s, "GET", "/v1/agents", "")
			assert.Equal(t, http.StatusOK, rec.Code)
		}
	})
}
