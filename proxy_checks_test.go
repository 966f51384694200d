package stack_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// proxyRaw makes a proxied GET past the checks of the SDK, and returns the status and the error of the answer.
func (s *stage) proxyRaw(
	t *testing.T, token stack.Secret, service, target string,
) (status int, code string, details map[string]any) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"service": service, "method": "GET", "url": target})
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://stack.mock/v1/proxy", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header = http.Header{"Authorization": {"Bearer " + s.APIKey()}, "Content-Type": {jsonType},
		"X-Passport-Token": {token.Reveal()}}
	resp, err := s.Transport().RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "hunter2")
	var answer struct {
		Error struct {
			Code    string
			Details map[string]any
		}
	}
	require.NoError(t, json.Unmarshal(text, &answer))
	return resp.StatusCode, answer.Error.Code, answer.Error.Details
}

// The service must be granted and named by the intent. What a refusal does depends on the mode. (contract: server-api 9.3)
func TestProxyServiceScope(t *testing.T) {
	t.Parallel()
	tests := map[stack.Accountability]struct {
		severity stack.Severity
		dies     bool
	}{stack.Enforced: {stack.SeverityCritical, true}, stack.Logged: {stack.SeverityWarning, false}, stack.Standard: {}}
	for mode, tc := range tests {
		for name, service := range map[string]string{"granted and not declared": "github", "declared and not granted": "notion",
			"neither": "linear"} {
			t.Run(string(mode)+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newStageWith(t, stacktest.AgentConfig{Mode: mode, Services: []string{"slack", "github"}})
				s.Upstream("api.github.com", answers(jsonType, `{}`))
				p := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.Services = []string{"slack", "notion"} })
				_, err := s.do(t, p, stack.ProxyRequest{Service: service, URL: "https://api.github.com/"})
				apiErr := requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
				assert.Equal(t, map[string]any{"check": "service_scope", "sent": service, "allowed": []any{"slack"},
					"intent_services": []any{"slack", "notion"}, "granted_providers": []any{"slack", "github"}}, apiErr.Details)
				assert.Empty(t, s.Forwarded("api.github.com"))
				assert.Equal(t, stack.OutcomeBlocked, s.lastRow(t, "credential.proxy").Outcome)
				assert.Equal(t, 1, s.countRows("detector.credential_outside_scope"))
				_, err = s.do(t, p, read)
				assert.Equal(t, tc.dies, err != nil)
				if mode == stack.Standard {
					assert.Empty(t, s.SecurityEvents(), "it leaves a trace in the audit log only")
					return
				}
				event := s.SecurityEvents()[0]
				assert.Equal(t, "credential_outside_scope", event.SignalType)
				assert.Equal(t, tc.severity, event.Severity)
				assert.Equal(t, p.JTI, event.PassportJTI)
				if tc.dies {
					require.ErrorIs(t, err, stack.ErrPassportRevoked)
					assert.Equal(t, "credential_outside_scope_fire:"+service, s.RequireRevoked(t, p.JTI))
				}
			})
		}
	}
}

// A passport without an intent reaches what is granted.
func TestProxyWithoutAnIntent(t *testing.T) {
	t.Parallel()
	s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Standard, Services: []string{"slack"}})
	p := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent = nil })
	_, err := s.do(t, p, read)
	require.NoError(t, err)
	_, err = s.do(t, p, stack.ProxyRequest{Service: "github", URL: "https://api.github.com/"})
	requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
}

// Each kind of path, end to end. (contract: server-api 10)
func TestProxyConstraints(t *testing.T) {
	t.Parallel()
	good := func() stack.ProxyRequest {
		return stack.ProxyRequest{Service: "slack", Method: "post", URL: "https://SLACK.com/api/chat.postMessage/?a=1",
			Query: map[string]string{"b": "2"}, Headers: map[string]string{"x-team": "T1", "X-Token": "hunter2"},
			Body: map[string]any{"channel": "#support", "deep": []any{map[string]int{"n": 7}}}}
	}
	tests := map[string]struct {
		holds     stack.Constraint
		breaks    func(*stack.ProxyRequest)
		sent      any
		isMissing bool
	}{
		"method": {stack.Constraint{Path: "method", Op: stack.OpIn, Value: []string{"GET", "POST"}},
			func(r *stack.ProxyRequest) { r.Method = "DELETE" }, "DELETE", false},
		"path": {stack.Constraint{Path: "url.pathname", Op: stack.OpStartsWith, Value: "/api/chat."},
			func(r *stack.ProxyRequest) { r.URL = "https://slack.com/api/%66iles" }, "/api/files", false},
		"whole path": {stack.Constraint{Path: "url.pathname", Op: stack.OpEq, Value: "/api/chat.postMessage"},
			func(r *stack.ProxyRequest) { r.URL += "&x=/../y"; r.URL = "https://slack.com/api/../x" }, "/x", false},
		"host": {stack.Constraint{Path: "url.host", Op: stack.OpEq, Value: "slack.com"},
			func(r *stack.ProxyRequest) { r.URL = "https://files.slack.com/" }, "files.slack.com", false},
		"origin": {stack.Constraint{Path: "url.origin", Op: stack.OpEq, Value: "https://slack.com"},
			func(r *stack.ProxyRequest) { r.URL = "http://slack.com/api/chat.postMessage" }, "http://slack.com", false},
		"header": {stack.Constraint{Path: "headers.x-team", Op: stack.OpMatches, Value: "^T[0-9]$"},
			func(r *stack.ProxyRequest) { r.Headers["x-team"] = "T10" }, "T10", false},
		"no header": {stack.Constraint{Path: "headers.x-team", Op: stack.OpNotEq, Value: "T2"},
			func(r *stack.ProxyRequest) { delete(r.Headers, "x-team") }, nil, true},
		"a secret": {stack.Constraint{Path: "headers.x-token", Op: stack.OpEq, Value: "hunter2"},
			func(r *stack.ProxyRequest) { r.Headers["X-Token"] = "hunter2x" }, "[REDACTED]", false},
		"query": {stack.Constraint{Path: "query.b", Op: stack.OpNotIn, Value: []string{"3"}},
			func(r *stack.ProxyRequest) { r.Query["b"] = "3" }, "3", false},
		"URL's query": {stack.Constraint{Path: "query.a", Op: stack.OpEq, Value: "1"},
			func(r *stack.ProxyRequest) { r.URL += "&a=2" }, "2", false},
		"key of both": {stack.Constraint{Path: "query.b", Op: stack.OpEq, Value: "2"},
			func(r *stack.ProxyRequest) { r.URL += "&b=4" }, "4", false},
		"bad query": {stack.Constraint{Path: "query.a", Op: stack.OpEq, Value: "1"},
			func(r *stack.ProxyRequest) { r.URL += "&c=2;d=3" }, nil, true},
		"body": {stack.Constraint{Path: "body.channel", Op: stack.OpEq, Value: "#support"},
			func(r *stack.ProxyRequest) { r.Body = map[string]string{"channel": "#random"} }, "#random", false},
		"deep body": {stack.Constraint{Path: "body.deep.0.n", Op: stack.OpEq, Value: 7},
			func(r *stack.ProxyRequest) { r.Body = map[string]any{"deep": []any{map[string]string{"n": "7"}}} }, "7", false},
		"no body": {stack.Constraint{Path: "body.channel", Op: stack.OpEq, Value: "#support"},
			func(r *stack.ProxyRequest) { r.Body = nil }, nil, true},
		"form": {stack.Constraint{Path: "body.channel", Op: stack.OpEq, Value: "#support"}, func(r *stack.ProxyRequest) {
			r.Headers["Content-Type"], r.Body = formType, "channel=%23support&channel=%23x"
		}, "#x", false},
		"broken form": {stack.Constraint{Path: "body.channel", Op: stack.OpEq, Value: "#support"}, func(r *stack.ProxyRequest) {
			r.Headers["Content-Type"], r.Body = formType, "channel=%23support;channel=%23x"
		}, nil, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Enforced, Services: []string{"slack"},
				Constraints: []stack.Constraint{tc.holds}})
			p := s.issue(t)
			_, err := s.do(t, p, good())
			require.NoError(t, err)
			bad := good()
			tc.breaks(&bad)
			_, err = s.do(t, p, bad)
			apiErr := requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
			assert.Equal(t, "constraint", apiErr.Details["check"])
			assert.Equal(t, tc.holds.Path, apiErr.Details["path"])
			assert.EqualValues(t, tc.holds.Op, apiErr.Details["op"])
			assert.Equal(t, tc.sent, apiErr.Details["sent"])
			assert.Equal(t, tc.isMissing, apiErr.Details["missing"])
			assert.Contains(t, apiErr.Details, "allowed")
			assert.Len(t, s.Forwarded("slack.com"), 1)
			event := s.SecurityEvents()[0]
			assert.Equal(t, "constraint_violation", event.SignalType)
			assert.Equal(t, stack.SeverityWarning, event.Severity)
			_, err = s.do(t, p, good())
			require.NoError(t, err, "a warning does not revoke")
		})
	}
}

func TestProxyConstraintsAreAllChecked(t *testing.T) {
	t.Parallel()
	s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}, Constraints: []stack.Constraint{
		{Path: "method", Op: stack.OpEq, Value: "POST"}, {Path: "body.channel", Op: stack.OpStartsWith, Value: "#s"}}})
	p := s.issue(t, func(p *stack.PassportIssueParams) { // and the passport adds one to those of the grant
		slack := s.agent.Connections["slack"]
		p.Scopes = []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes,
			Constraints: []stack.Constraint{{Path: "body.channel", Op: stack.OpNotEq, Value: "#sales"}}}}
	})
	for channel, ok := range map[string]bool{"#support": true, "#sales": false, "#random": false} {
		_, err := s.do(t, p, post(channel))
		assert.Equal(t, ok, err == nil, channel)
	}
}

// A call that would cross a cap is refused, and an enforced passport dies of it; with cap_behavior warn it goes through.
// (contract: decisions, Missions and passports)
func TestMissionCaps(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*stack.MissionOpenParams){
		"max_actions": func(p *stack.MissionOpenParams) { p.MaxActions = 2 },
		"max_actions_per_service": func(p *stack.MissionOpenParams) {
			p.MaxActionsPerService = map[string]int{"slack": 2, "github": 9}
		},
		"max_duration_seconds": func(p *stack.MissionOpenParams) { p.MaxDuration = time.Minute },
	}
	for capName, change := range tests {
		for _, mode := range []stack.Accountability{stack.Enforced, stack.Logged} {
			for _, behavior := range []stack.CapBehavior{"", stack.CapBlock, stack.CapWarn} {
				t.Run(capName+"/"+string(mode)+"/"+string(behavior), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						s := newStage(t, mode)
						m := s.started(t, change, func(p *stack.MissionOpenParams) {
							if behavior != "" {
								p.CapBehavior = map[string]stack.CapBehavior{capName: behavior}
							}
						})
						for range 2 {
							_, err := s.do(t, &m.Passport, read)
							require.NoError(t, err)
						}
						time.Sleep(time.Minute)
						if capName == "max_duration_seconds" {
							_, err := s.do(t, &m.Passport, read)
							require.NoError(t, err, "to the second")
							time.Sleep(time.Second)
						}
						require.Empty(t, s.SecurityEvents())
						before := len(s.Forwarded("slack.com"))
						_, err := s.do(t, &m.Passport, read)
						events := s.SecurityEvents()
						assert.Equal(t, "mission_cap_exceeded", events[0].SignalType)
						assert.Equal(t, capName, events[0].Metadata["cap"])
						if behavior == stack.CapWarn {
							require.NoError(t, err)
							assert.Equal(t, stack.SeverityWarning, events[0].Severity)
							assert.Len(t, s.Forwarded("slack.com"), before+1)
							return
						}
						require.ErrorIs(t, err, stack.ErrMissionCapExceeded)
						apiErr := requireRefused(t, err, http.StatusForbidden, "MISSION_CAP_EXCEEDED")
						want := map[string]any{"check": "mission_cap", "cap": capName, "sent": 3.0, "allowed": 2.0}
						if capName == "max_duration_seconds" {
							want["sent"], want["allowed"] = 61.0, 60.0
						}
						assert.Equal(t, want, apiErr.Details)
						assert.Equal(t, stack.SeverityCritical, events[0].Severity)
						assert.Len(t, s.Forwarded("slack.com"), before)
						_, err = s.do(t, &m.Passport, read)
						if mode == stack.Enforced {
							require.ErrorIs(t, err, stack.ErrPassportRevoked)
							assert.Equal(t, "mission_cap_exceeded_fire:"+capName, s.RequireRevoked(t, m.Passport.JTI))
						} else {
							require.ErrorIs(t, err, stack.ErrMissionCapExceeded)
						}
					})
				})
			}
		}
	}
}

func TestCapsHoldUnderConcurrency(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*stack.MissionOpenParams){
		"in all":      func(p *stack.MissionOpenParams) { p.MaxActions = 10 },
		"per service": func(p *stack.MissionOpenParams) { p.MaxActionsPerService = map[string]int{"slack": 10} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Logged)
			m := s.started(t, change)
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					r := read
					if i%2 == 0 {
						r = post("#support")
					}
					_, err := s.do(t, &m.Passport, r)
					if err != nil {
						assert.ErrorIs(t, err, stack.ErrMissionCapExceeded)
					}
				})
			}
			wg.Wait()
			assert.Len(t, s.Forwarded("slack.com"), 10)
			record, _ := s.Mission(m.MissionID)
			assert.Equal(t, 10, record.Usage.Actions)
			assert.Equal(t, map[string]int{"slack": 10}, record.Usage.ActionsPerService)
		})
	}
}

// Only what was sent is an action: neither a refusal nor a call that did not reach its service, nor the repetition of one
// that did.
func TestCapsCountWhatWasSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		m := s.started(t, func(p *stack.MissionOpenParams) {
			p.MaxActions, p.MaxActionsPerService = 1, map[string]int{"slack": 1}
		})
		_, err := s.do(t, &m.Passport, stack.ProxyRequest{Service: "slack", URL: "https://elsewhere.example/"})
		requireRefused(t, err, http.StatusForbidden, "PROXY_HOST_NOT_ALLOWED")
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Close: stacktest.CloseBefore, Times: 2})
		r := post("#support")
		r.OperationID = operationID
		for range 3 {
			_, err = s.do(t, &m.Passport, r)
			require.NoError(t, err)
		}
		assert.Len(t, s.Forwarded("slack.com"), 1)
		assert.Empty(t, s.SecurityEvents())
		record, _ := s.Mission(m.MissionID)
		assert.Equal(t, 1, record.Usage.Actions)
		_, err = s.do(t, &m.Passport, read)
		require.ErrorIs(t, err, stack.ErrMissionCapExceeded)
	})
}

// (contract: decisions, Proxy: URL)
func TestProxyURLs(t *testing.T) {
	t.Parallel()
	s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack", "own"}})
	s.Upstream("own.example", answers(jsonType, `{}`))
	connected, err := s.client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "fenced",
		Credential:   stack.CustomCredential{Token: stack.NewSecret("token-of-fenced")},
		AllowedHosts: []string{"own.example", "*.own.example"}})
	require.NoError(t, err)
	_, err = s.client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: s.agent.ID,
		ServiceConnectionID: connected.ID, Scopes: connected.Scopes})
	require.NoError(t, err)
	p := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.Services = []string{"slack", "own", "fenced"} })
	tests := map[string]struct {
		service, url string
		status       int
		code, check  string
	}{
		"fine":                   {"slack", "https://slack.com/api/x", 200, "", ""},
		"plain HTTP":             {"slack", "http://slack.com/api/x", 200, "", ""},
		"host in capitals":       {"slack", "HTTPS://Slack.COM:443/api/x", 200, "", ""},
		"empty":                  {"slack", "", 400, "INVALID_URL", "url_safety"},
		"relative":               {"slack", "/api/x", 400, "INVALID_URL", "url_safety"},
		"no scheme":              {"slack", "//slack.com/api/x", 400, "INVALID_URL", "url_safety"},
		"another scheme":         {"slack", "ftp://slack.com/x", 400, "INVALID_URL", "url_safety"},
		"no host":                {"slack", "https:///x", 400, "INVALID_URL", "url_safety"},
		"user info":              {"slack", "https://me:hunter2@slack.com/x", 400, "INVALID_URL", "url_safety"},
		"bad escape":             {"slack", "https://slack.com/%zz", 400, "INVALID_URL", "url_safety"},
		"a newline":              {"slack", "https://slack.com/\n", 400, "INVALID_URL", "url_safety"},
		"bad port":               {"slack", "https://slack.com:99999/", 400, "INVALID_URL", "url_safety"},
		"a number for a host":    {"slack", "https://2130706433/", 400, "INVALID_URL", "url_safety"},
		"too long":               {"slack", "https://slack.com/" + strings.Repeat("x", 8<<10), 400, "INVALID_URL", "url_safety"},
		"unknown placeholder":    {"slack", "https://slack.com/{{team}}", 400, "INVALID_URL", "url_safety"},
		"placeholder of nothing": {"slack", "https://slack.com/{{account_id}}", 400, "INVALID_URL", "url_safety"},
		"another host":           {"slack", "https://evil.example/?x=hunter2", 403, "PROXY_HOST_NOT_ALLOWED", "url_safety"},
		"a host that ends alike": {"slack", "https://notslack.com/", 403, "PROXY_HOST_NOT_ALLOWED", "url_safety"},
		"a host below":           {"slack", "https://slack.com.evil.example/", 403, "PROXY_HOST_NOT_ALLOWED", "url_safety"},
		"an address":             {"slack", "http://169.254.169.254/latest", 403, "PROXY_HOST_NOT_ALLOWED", "url_safety"},
		"custom, mapped":         {"own", "https://own.example/", 200, "", ""},
		"custom, mapped, too":    {"own", "https://slack.com/", 200, "", ""},
		"custom, not mapped":     {"own", "https://nowhere.example/", 502, "UPSTREAM_UNREACHABLE", "forward"},
		"custom, an address":     {"own", "http://127.0.0.1:1/", 502, "UPSTREAM_UNREACHABLE", "forward"},
		"fenced":                 {"fenced", "https://own.example/", 200, "", ""},
		"fenced, below":          {"fenced", "https://api.own.example/", 502, "UPSTREAM_UNREACHABLE", "forward"},
		"fenced, another":        {"fenced", "https://slack.com/", 403, "PROXY_HOST_NOT_ALLOWED", "url_safety"},
	}
	for name, tc := range tests {
		status, code, details := s.proxyRaw(t, p.Token, tc.service, tc.url)
		assert.Equal(t, tc.status, status, name)
		assert.Equal(t, tc.code, code, name)
		if tc.code == "" {
			continue
		}
		assert.Equal(t, tc.check, details["check"], name)
		if tc.check == "url_safety" {
			assert.NotEmpty(t, details["allowed"], name)
		}
		assert.Equal(t, tc.code, s.lastRow(t, "credential.proxy").ErrorCode, name)
	}
}

// (contract: server-api 9.2)
func TestProxyPlaceholders(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	for provider, fields := range map[string]map[string]string{
		"salesforce": {"instance_url": "https://acme.my.salesforce.com"}, "twilio": {"account_id": "AC.12"}} {
		conn, err := s.client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: provider,
			OAuthToken: stack.NewSecret("the-token-of-it"), Scopes: []string{"api"}, Fields: fields})
		require.NoError(t, err)
		_, err = s.client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: s.agent.ID,
			ServiceConnectionID: conn.ID, Scopes: conn.Scopes,
			Constraints: []stack.Constraint{{Path: "url.pathname", Op: stack.OpStartsWith, Value: "/v1/"}}})
		require.NoError(t, err)
	}
	for _, host := range []string{"acme.my.salesforce.com", "api.twilio.com"} {
		s.Upstream(host, answers(jsonType, `{}`))
	}
	p := s.issue(t, func(p *stack.PassportIssueParams) { p.Intent.Services = []string{"slack", "salesforce", "twilio"} })
	_, err := s.do(t, p, stack.ProxyRequest{Service: "salesforce", URL: "{{instance_url}}/v1/x?y={{instance}}"})
	requireRefused(t, err, http.StatusBadRequest, "INVALID_URL")
	_, err = s.do(t, p, stack.ProxyRequest{Service: "salesforce", URL: "{{instance_url}}/v1/x?y=z"})
	require.NoError(t, err)
	assert.Equal(t, "/v1/x", s.Forwarded("acme.my.salesforce.com")[0].Path)
	_, err = s.do(t, p, stack.ProxyRequest{Service: "salesforce", URL: "{{instance_url}}/v2/x"})
	apiErr := requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
	assert.Equal(t, "/v2/x", apiErr.Details["sent"], "constraints see the URL that is called")
	_, err = s.do(t, p, stack.ProxyRequest{Service: "twilio", URL: "https://api.twilio.com/v1/{{account_id}}/Messages"})
	require.NoError(t, err)
	assert.Equal(t, "/v1/AC.12/Messages", s.Forwarded("api.twilio.com")[0].Path)
	_, err = s.do(t, p, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/{{account_id}}"})
	requireRefused(t, err, http.StatusBadRequest, "INVALID_URL")
}
