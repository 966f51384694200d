package stacktest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client(stack.WithMaxRetries(0))
	list := func() error { _, err := client.Agents.List(t.Context()); return err }

	twice := srv.Fault(stacktest.Fault{Method: "GET", Path: "/v1/agents", Times: 2, Status: 503, Code: "BUSY", RetryAfter: 3 * time.Second})
	var apiErr *stack.Error
	require.ErrorAs(t, list(), &apiErr)
	assert.Equal(t, "BUSY", apiErr.Code)
	assert.Equal(t, 3*time.Second, apiErr.RetryAfter)
	assert.Equal(t, 1, twice.Remaining())
	require.Error(t, list())
	require.NoError(t, list(), "used up")

	gone := srv.Fault(stacktest.Fault{Path: "/v1/agents", Times: 5, Status: 500})
	gone.Remove()
	require.NoError(t, list())

	srv.Fault(stacktest.Fault{Path: "/v1/agents/register", Close: stacktest.CloseBefore})
	_, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "lost"})
	require.Error(t, err)
	srv.Fault(stacktest.Fault{Path: "/v1/agents/register", Close: stacktest.CloseAfter})
	_, err = client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "kept"})
	require.Error(t, err)
	srv.Fault(stacktest.Fault{Path: "/v1/agents", TruncateBytes: 10})
	require.Error(t, list())
	agents, err := client.Agents.List(t.Context())
	require.NoError(t, err)
	require.Len(t, agents, 1)
	assert.Equal(t, "kept", agents[0].Name, "before: not handled; after: handled, and the answer lost")
}

func TestUpstreamFaults(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fault   stacktest.Fault
		code    string
		arrives int
	}{
		"status":    {stacktest.Fault{Status: 500}, "", 0},
		"code":      {stacktest.Fault{Status: 429, Code: "ratelimited", RetryAfter: 1500 * time.Millisecond}, "", 0},
		"before":    {stacktest.Fault{Close: stacktest.CloseBefore}, "UPSTREAM_UNREACHABLE", 0},
		"after":     {stacktest.Fault{Close: stacktest.CloseAfter}, "OPERATION_OUTCOME_UNKNOWN", 1},
		"truncated": {stacktest.Fault{TruncateBytes: 3}, "OPERATION_OUTCOME_UNKNOWN", 1},
		"too late":  {stacktest.Fault{Delay: time.Minute}, "UPSTREAM_TIMEOUT", 0},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv := stacktest.New(t)
				srv.Upstream("slack.com", ok)
				agent := srv.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
				tc.fault.Path = "upstream:Slack.com"
				srv.Fault(tc.fault)
				var got *stack.ProxyResponse
				err := run(t.Context(), srv.Client(stack.WithMaxRetries(0), stack.WithTimeout(5*time.Minute)), agent.ID,
					func(ctx context.Context, m *stack.Mission) (err error) { got, err = m.Proxy(ctx, post()); return err })
				assert.Len(t, srv.Forwarded("slack.com"), tc.arrives)
				if tc.code == "" {
					require.NoError(t, err)
					assert.Equal(t, tc.fault.Status, got.Status)
					if tc.fault.Code != "" {
						assert.Equal(t, "2", got.Headers["retry-after"], "rounded up")
						assert.JSONEq(t, `{"error":"ratelimited"}`, string(got.Body))
					}
					return
				}
				var apiErr *stack.Error
				require.ErrorAs(t, err, &apiErr)
				assert.Equal(t, tc.code, apiErr.Code, apiErr.Message)
			})
		})
	}
}

func TestAFaultThatCouldNeverHappenPanics(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	tests := map[string]struct {
		fault stacktest.Fault
		want  string
	}{
		"no such route":     {stacktest.Fault{Path: "/v1/agent", Status: 500}, "such as GET /v1/agents, or upstream:<host>"},
		"an id":             {stacktest.Fault{Path: "/v1/agents/agt_1", Status: 500}, "/v1/agents/{agent_id}"},
		"not this method":   {stacktest.Fault{Method: "PUT", Path: "/v1/proxy", Status: 500}, `"PUT /v1/proxy"`},
		"no host":           {stacktest.Fault{Path: "upstream:", Status: 500}, "body.path"},
		"host with port":    {stacktest.Fault{Path: "upstream:slack.com:443", Status: 500}, "body.path"},
		"no effect":         {stacktest.Fault{Path: "/v1/proxy"}, "without effect"},
		"two effects":       {stacktest.Fault{Path: "/v1/proxy", Status: 500, Close: stacktest.CloseAfter}, "in several ways"},
		"good status":       {stacktest.Fault{Path: "/v1/proxy", Status: 200}, "400 to 599"},
		"code alone":        {stacktest.Fault{Path: "/v1/proxy", Code: "BUSY", Delay: time.Second}, "body.status"},
		"bad close":         {stacktest.Fault{Path: "/v1/proxy", Close: "during"}, "one of before, after"},
		"negative delay":    {stacktest.Fault{Path: "/v1/proxy", Delay: -time.Second}, "body.delay_ms"},
		"negative times":    {stacktest.Fault{Path: "/v1/proxy", Status: 500, Times: -1}, "body.times"},
		"negative truncate": {stacktest.Fault{Path: "/v1/proxy", TruncateBytes: -1}, "body.truncate_bytes"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() { assert.Contains(t, fmt.Sprint(recover()), tc.want) }()
			srv.Fault(tc.fault)
		})
	}
}

func TestATruncatedRefusal(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	fault := srv.Fault(stacktest.Fault{Path: "/v1/agents/{agent_id}", TruncateBytes: 10})
	_, err := srv.Client(stack.WithMaxRetries(0)).Agents.Get(t.Context(), "agt_none")
	require.ErrorIs(t, err, stack.ErrNotFound, "of a refusal, the status is enough")
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	assert.Equal(t, "UNKNOWN", apiErr.Code, "its body never came whole")
	assert.Zero(t, fault.Remaining())
}
