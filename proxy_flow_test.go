package stack_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// (contract: decisions, Data-flow wall)
func TestDataFlowWall(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		allow   []string
		mode    stack.Accountability
		blocked bool
	}{
		"absent allows":      {nil, stack.Enforced, false},
		"empty allows none":  {[]string{}, stack.Enforced, true},
		"empty, logged":      {[]string{}, stack.Logged, true},
		"named":              {[]string{"github"}, stack.Enforced, false},
		"another named":      {[]string{"notion"}, stack.Enforced, true},
		"a wildcard for all": {[]string{"*"}, stack.Enforced, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := flowStage(t, tc.mode, tc.allow)
			_, err := s.do(t, p, post("FYI: "+flowSecret+"."))
			if !tc.blocked {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, stack.ErrDataFlowBlocked)
			apiErr := requireRefused(t, err, http.StatusForbidden, "DATA_FLOW_BLOCKED")
			allowed := []any{}
			for _, service := range tc.allow {
				allowed = append(allowed, service)
			}
			assert.Equal(t, map[string]any{"check": "data_flow", "allowed": allowed, "source_service": "github",
				"target_service": "slack", "found_in": "body.channel"}, apiErr.Details)
			assert.NotContains(t, apiErr.Message, flowSecret)
			event := s.SecurityEvents()[0]
			assert.Equal(t, "data_flow_violation", event.SignalType)
			assert.Equal(t, stack.SeverityCritical, event.Severity)
			told, err := json.Marshal([]any{s.SecurityEvents(), s.Audit()})
			require.NoError(t, err)
			assert.NotContains(t, string(told), flowSecret)
			assert.Empty(t, s.Forwarded("slack.com"))
			_, err = s.do(t, p, read)
			if tc.mode == stack.Enforced {
				require.ErrorIs(t, err, stack.ErrPassportRevoked)
				assert.Equal(t, "data_flow_violation_fire:github_to_slack", s.RequireRevoked(t, p.JTI))
			} else {
				require.NoError(t, err)
			}
		})
	}
}

const flowSecret = "the quarterly numbers of the company"

// flowStage is an agent that has read something through github, and may use slack.
func flowStage(t *testing.T, mode stack.Accountability, allow []string) (*stage, *stack.Passport) {
	t.Helper()
	s := newStageWith(t, stacktest.AgentConfig{Mode: mode, Services: []string{"slack", "github"}, AllowDataFrom: allow})
	s.Upstream("api.github.com", answers(jsonType,
		`{"huge":1e400,"short":"fifteen letters","kind":"application/json","deep":[{"body":"  `+flowSecret+`\n"}]}`))
	m := s.started(t)
	_, err := s.do(t, &m.Passport, stack.ProxyRequest{Service: "github", URL: "https://api.github.com/x"})
	require.NoError(t, err)
	return s, &m.Passport
}

// The wall looks at every part of a request.
func TestDataFlowWallLooksEverywhere(t *testing.T) {
	t.Parallel()
	plus, percent := strings.ReplaceAll(flowSecret, " ", "+"), strings.ReplaceAll(flowSecret, " ", "%20")
	headers := func(name, value string) map[string]string { return map[string]string{name: value} }
	form := headers("Content-Type", formType)
	tests := map[string]struct {
		foundIn string // empty when it may pass
		r       stack.ProxyRequest
	}{
		"JSON": {"body.blocks[0].text",
			stack.ProxyRequest{Body: map[string]any{"blocks": []any{map[string]string{"text": flowSecret}}}}},
		"a name":       {"body (a name)", stack.ProxyRequest{Body: map[string]int{flowSecret: 1}}},
		"text":         {"body", stack.ProxyRequest{Body: "FYI: " + flowSecret}},
		"encoded text": {"body", stack.ProxyRequest{Body: percent}},
		"form":         {"body.text[0]", stack.ProxyRequest{Body: "text=FYI%3A+" + plus, Headers: form}},
		"form of an object": {"body.text[0]",
			stack.ProxyRequest{Body: map[string]string{"text": flowSecret}, Headers: form}},
		"form with a semicolon": {"body", stack.ProxyRequest{Body: "a;text=" + plus, Headers: form}},
		"form with a fault":     {"body", stack.ProxyRequest{Body: "text=" + plus + "&a=100%", Headers: form}},
		"query":                 {"query.q", stack.ProxyRequest{Query: headers("q", flowSecret)}},
		"URL's query":           {"query", stack.ProxyRequest{URL: "https://slack.com/?q=" + plus}},
		"query with semicolons": {"query", stack.ProxyRequest{URL: "https://slack.com/?a=1;q=" + plus + ";"}},
		"path":                  {"path", stack.ProxyRequest{URL: "https://slack.com/" + percent}},
		"header":                {"headers.X-Note", stack.ProxyRequest{Headers: headers("X-Note", flowSecret)}},
		"content type": {"headers.Content-Type",
			stack.ProxyRequest{Headers: headers("Content-Type", "text/plain; note="+flowSecret), Body: "x"}},
		"accept": {"headers.Accept", stack.ProxyRequest{Headers: headers("Accept", flowSecret)}},

		"something else": {"", stack.ProxyRequest{Body: "the yearly numbers of the company"}},
		"a part of it":   {"", stack.ProxyRequest{Body: flowSecret[:30]}},
		"a short field":  {"", stack.ProxyRequest{Body: "fifteen letters"}},
		"its media type": {"",
			stack.ProxyRequest{Headers: headers("Content-Type", "application/json; charset=utf-8"), Body: "{}"}},
		"what it takes":    {"", stack.ProxyRequest{Headers: headers("accept", "text/html;q=0.5, application/json")}},
		"percent signs":    {"", stack.ProxyRequest{Body: "100% of %zz and %e"}},
		"back to its home": {"", stack.ProxyRequest{Service: "github", URL: "https://api.github.com/x", Body: flowSecret}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := flowStage(t, stack.Logged, []string{})
			tc.r.Method = "POST"
			if tc.r.URL == "" {
				tc.r.URL = "https://slack.com/api/x"
			}
			if tc.r.Service == "" {
				tc.r.Service = "slack"
			}
			_, err := s.do(t, p, tc.r)
			if tc.foundIn == "" {
				require.NoError(t, err)
				return
			}
			apiErr := requireRefused(t, err, http.StatusForbidden, "DATA_FLOW_BLOCKED")
			assert.Equal(t, tc.foundIn, apiErr.Details["found_in"])
		})
	}
}

// The answer of a write that is had again, in another Mission of the agent, is behind that Mission's wall, too.
func TestDataFlowWallSeesReplays(t *testing.T) {
	t.Parallel()
	again := map[string]func(*stage, *testing.T, *stack.Passport, stack.ProxyRequest) error{
		"replayed": func(s *stage, t *testing.T, p *stack.Passport, r stack.ProxyRequest) error {
			return failure(s.do(t, p, r))
		},
		"asked for": func(s *stage, t *testing.T, p *stack.Passport, r stack.ProxyRequest) error {
			return failure(s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: r.OperationID,
				IncludeResponse: true, PassportToken: p.Token}))
		},
	}
	for name, get := range again {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := flowStage(t, stack.Logged, []string{})
			r := stack.ProxyRequest{Service: "github", Method: "POST", URL: "https://api.github.com/x", OperationID: operationID}
			_, err := s.do(t, p, r)
			require.NoError(t, err)
			other := s.started(t)
			_, err = s.do(t, &other.Passport, post(flowSecret))
			require.NoError(t, err, "another Mission has not read it yet")
			require.NoError(t, get(s, t, &other.Passport, r))
			_, err = s.do(t, &other.Passport, post(flowSecret))
			require.ErrorIs(t, err, stack.ErrDataFlowBlocked)
		})
	}
}
