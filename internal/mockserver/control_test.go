package mockserver

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestControlAnswersLoopbackOnly(t *testing.T) {
	t.Parallel()
	s := New(Options{Control: true})
	tests := map[string]struct {
		remote, host string
		status       int
	}{
		"IPv4":                 {"127.0.0.1:1234", "127.0.0.1:4242", http.StatusOK},
		"IPv6":                 {"[::1]:1234", "[::1]:4242", http.StatusOK},
		"IPv6 without port":    {"[::1]:1234", "[::1]", http.StatusOK},
		"by name":              {"127.0.0.1:1234", "LocalHost:4242", http.StatusOK},
		"in memory":            {"pipe", "stack.mock", http.StatusOK},
		"from elsewhere":       {"192.0.2.1:1234", "127.0.0.1:4242", http.StatusForbidden},
		"a rebound name":       {"127.0.0.1:1234", "evil.example:4242", http.StatusForbidden},
		"a name that looks it": {"127.0.0.1:1234", "localhost.evil.example", http.StatusForbidden},
		"no host":              {"127.0.0.1:1234", "", http.StatusForbidden},
		"no address":           {"", "127.0.0.1:4242", http.StatusForbidden},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := httptest.NewRequest(http.MethodGet, "/_mock/state", nil)
			req.RemoteAddr, req.Host = tc.remote, tc.host
			rec := httptest.NewRecorder()
			s.ServeHTTP(rec, req)
			assert.Equal(t, tc.status, rec.Code, rec.Body.String())
			assert.NotEmpty(t, rec.Header().Get("X-Request-Id"))
			if tc.status != http.StatusOK {
				assert.Contains(t, rec.Body.String(), `"code":"FORBIDDEN"`)
			}
		})
	}
}

// postControl calls a control route from loopback and returns the status and the answer.
func postControl(t *testing.T, s *Server, path, body string) (int, string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.RemoteAddr, req.Host = "127.0.0.1:1234", "127.0.0.1:4242"
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

func TestClockStaysWithinTenYears(t *testing.T) {
	t.Parallel()
	s := New(Options{Control: true})
	for range 10 {
		status, answer := postControl(t, s, "/_mock/clock", `{"advance_seconds": 31536000}`)
		require.Equal(t, http.StatusOK, status, answer)
	}
	status, answer := postControl(t, s, "/_mock/clock", `{"advance_seconds": 1}`)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, answer, "ten years")
	assert.WithinDuration(t, time.Now().Add(maxAhead), s.Now(), time.Minute)
	status, _ = postControl(t, s, "/_mock/reset", `{}`)
	assert.Equal(t, http.StatusOK, status)
	assert.WithinDuration(t, time.Now(), s.Now(), time.Minute)
}

func TestPolicyChangesOnlyWhatIsGiven(t *testing.T) {
	t.Parallel()
	s := New(Options{Control: true})
	for _, step := range []struct{ change, want string }{
		{`{"tier":"studio"}`, `{"require_intent_approval":false,"revocation_delay_seconds":0,"rate_limit_per_minute":0,"tier":"studio"}`},
		{`{"revocation_delay_seconds":30}`, `{"require_intent_approval":false,"revocation_delay_seconds":30,"rate_limit_per_minute":0,"tier":"studio"}`},
		{`{"require_intent_approval":true}`, `{"require_intent_approval":true,"revocation_delay_seconds":30,"rate_limit_per_minute":0,"tier":"studio"}`},
		{`{"require_intent_approval":false}`, `{"require_intent_approval":false,"revocation_delay_seconds":30,"rate_limit_per_minute":0,"tier":"studio"}`},
		{`{}`, `{"require_intent_approval":false,"revocation_delay_seconds":30,"rate_limit_per_minute":0,"tier":"studio"}`},
	} {
		status, answer := postControl(t, s, "/_mock/policy", step.change)
		require.Equal(t, http.StatusOK, status)
		assert.JSONEq(t, step.want, answer)
	}
	for _, bad := range []string{`{"tier":"gold","rate_limit_per_minute":7}`, `{"tier":""}`, `{"revocation_delay_seconds":3601}`,
		`{"revocation_delay_seconds":9223372036854775807}`, `{"rate_limit_per_minute":-1}`, `{"require_intent_approval":"yes"}`} {
		status, answer := postControl(t, s, "/_mock/policy", bad)
		assert.Equal(t, http.StatusBadRequest, status, answer)
	}
	_, answer := postControl(t, s, "/_mock/policy", `{}`)
	assert.Contains(t, answer, `"rate_limit_per_minute":0`, "a change that is refused changes nothing")
}

func TestUpstreamRefusalKeepsPasswords(t *testing.T) {
	t.Parallel()
	status, answer := postControl(t, New(Options{Control: true}), "/_mock/upstreams",
		`{"host":"slack.com","url":"http://user:hush-hush@127.0.0.1:1"}`)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, answer, "user info")
	assert.NotContains(t, answer, "hush-hush")
}
