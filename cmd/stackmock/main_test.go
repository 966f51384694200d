package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver"
)

func TestMain(m *testing.M) {
	if os.Getenv("STACKMOCK_AS_PROCESS") != "" { // this test binary stands for the command, so that nothing has to be built
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// process starts the command with flags and reads its first line.
type process struct {
	*exec.Cmd
	greeting
	stdout *bufio.Reader
	stderr *lockedBuffer
}

// lockedBuffer may be read while the process still writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func start(t *testing.T, flags ...string) *process {
	t.Helper()
	p := command(t, flags...)
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	p.stdout = bufio.NewReader(out)
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	line, err := p.stdout.ReadString('\n')
	require.NoError(t, err, p.stderr.String())
	require.NoError(t, json.Unmarshal([]byte(line), &p.greeting), line)
	return p
}

func command(t *testing.T, flags ...string) *process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // so that one that should have failed does not run on
	t.Cleanup(cancel)
	p := &process{Cmd: exec.CommandContext(ctx, self, flags...), stderr: &lockedBuffer{}}
	p.Env = append(os.Environ(), "STACKMOCK_AS_PROCESS=1")
	p.Stderr = p.stderr
	return p
}

func (p *process) client(t *testing.T) *stack.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := stack.New(stack.WithBaseURL(p.URL), stack.WithAPIKey(p.APIKey), stack.WithHTTPClient(&http.Client{Transport: transport}))
	require.NoError(t, err)
	return c
}

// control calls a control route and returns its status and answer.
func (p *process) control(t *testing.T, method, path, body string, change ...func(*http.Request)) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, c := range change {
		c(req)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	var answer map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return resp.StatusCode, answer
}

func TestProcess(t *testing.T) {
	t.Parallel()
	p := start(t, "-addr", "127.0.0.1:0")
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+$`, p.URL)
	assert.True(t, strings.HasPrefix(p.APIKey, "sk_live_"))
	assert.True(t, strings.HasPrefix(p.OperatorID, "op_"))
	agent, err := p.client(t).Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "a-1"})
	require.NoError(t, err)
	assert.Equal(t, p.OperatorID, agent.OperatorID)
	status, answer := p.control(t, "GET", "/_mock/state", "")
	assert.Equal(t, http.StatusNotFound, status, "control routes are off: %v", answer)
	assert.NotContains(t, fmt.Sprint(answer), "the nearest is GET /_mock")

	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	rest, err := io.ReadAll(p.stdout)
	require.NoError(t, err)
	assert.Empty(t, rest, "nothing but the first line is on standard output")
	require.NoError(t, p.Wait(), "SIGTERM ends it with status 0")
	log := p.stderr.String()
	assert.NotContains(t, log, p.APIKey)
	assert.Contains(t, log, "STACK_BASE_URL="+p.URL)
	assert.Regexp(t, `msg=request method=POST route=/v1/agents/register status=200 duration=\S+ request_id=req_`, log)
	assert.Contains(t, log, `msg="no such route" method=GET path=/_mock/state`)
}

func TestInterruptEndsItToo(t *testing.T) {
	t.Parallel()
	p := start(t, "-addr", ":0") // all of the machine's addresses
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+$`, p.URL, "one that can be called")
	_, err := p.client(t).Agents.List(t.Context())
	require.NoError(t, err)
	require.NoError(t, p.Process.Signal(os.Interrupt))
	require.NoError(t, p.Wait())
}

func TestHelp(t *testing.T) {
	t.Parallel()
	var out, diagnostics bytes.Buffer
	assert.Zero(t, stackmock(t.Context(), []string{"-h"}, &out, &diagnostics))
	assert.Empty(t, out.String())
	for _, part := range []string{"-addr", "-upstream", "-seed", "-control", "-allow-dial", "-chaos", exampleSeed} {
		assert.Contains(t, diagnostics.String(), part)
	}
}

// TestDocumentedSeed loads the seed that -h shows, and checks that the package's comment shows the same one.
func TestDocumentedSeed(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	for line := range strings.Lines(exampleSeed) {
		assert.Contains(t, string(source), "//\t"+line)
	}
	file := filepath.Join(t.TempDir(), "seed.json")
	require.NoError(t, os.WriteFile(file, []byte(exampleSeed), 0o600))
	mock := mockserver.New(mockserver.Options{})
	var diagnostics bytes.Buffer
	require.NoError(t, loadSeed(t.Context(), mock, file, &diagnostics))
	counts := mock.Counts()
	assert.Equal(t, []int{1, 3, 2}, []int{counts["agents"], counts["connections"], counts["grants"]})
	assert.Equal(t, 4, strings.Count(diagnostics.String(), "seed: "))
	now, err := mock.ChangePolicy(mockserver.PolicyChange{})
	require.NoError(t, err)
	assert.Equal(t, mockserver.Policy{Tier: stack.TierDeveloper, RateLimitPerMinute: 600}, now)
}

func TestControlRoutes(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"path": r.URL.RequestURI(), "auth": r.Header.Get("Authorization")})
	}))
	t.Cleanup(upstream.Close)
	p := start(t, "-addr", "127.0.0.1:0", "-control", "-quiet")
	c := p.client(t)

	status, answer := p.control(t, "POST", "/_mock/clock", `{"advance_seconds": 300}`)
	require.Equal(t, http.StatusOK, status)
	now, err := time.Parse(time.RFC3339Nano, answer["now"].(string))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(5*time.Minute), now, time.Minute)

	status, answer = p.control(t, "POST", "/_mock/upstreams", `{"host":"crm.example","url":"`+upstream.URL+`"}`)
	require.Equal(t, http.StatusOK, status)
	assert.Equal(t, map[string]any{"host": "crm.example", "url": upstream.URL}, answer)

	agent, err := c.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "a-1"})
	require.NoError(t, err)
	connection, err := c.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "crm",
		Credential: stack.CustomCredential{Token: stack.NewSecret("crm-token")}})
	require.NoError(t, err)
	_, err = c.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: connection.ID, Scopes: connection.Scopes})
	require.NoError(t, err)
	err = c.Passports.RunMission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "x", Services: []string{"crm"}},
		func(ctx context.Context, m *stack.Mission) error {
			resp, proxyErr := m.Proxy(ctx, stack.ProxyRequest{Service: "crm", URL: "https://crm.example/v1/people?page=2"})
			if proxyErr != nil {
				return proxyErr
			}
			var got map[string]string
			require.NoError(t, resp.Decode(&got))
			assert.Equal(t, map[string]string{"path": "/v1/people?page=2", "auth": "[REDACTED]"}, map[string]string{"path": got["path"],
				"auth": strings.TrimPrefix(got["auth"], "Bearer ")})
			return nil
		})
	require.NoError(t, err)

	status, answer = p.control(t, "POST", "/_mock/faults", `{"method":"GET","path":"/v1/agents","times":1,"status":503,"code":"BUSY","retry_after_seconds":0,"close":null}`)
	require.Equal(t, http.StatusOK, status)
	assert.NotEmpty(t, answer["fault_id"])
	status, answer = p.control(t, "GET", "/v1/agents", "")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Equal(t, "BUSY", answer["error"].(map[string]any)["code"])
	status, _ = p.control(t, "GET", "/v1/agents", "")
	assert.Equal(t, http.StatusUnauthorized, status, "the fault is used up, and the call is handled")

	_, err = c.Agents.Unblock(t.Context(), agent.ID, stack.AgentUnblockParams{})
	require.NoError(t, err, "an agent that is not blocked needs no approval")
	status, answer = p.control(t, "POST", "/_mock/approve", `{"approval_id":"gov_none"}`)
	assert.Equal(t, http.StatusNotFound, status)
	assert.Equal(t, "NOT_FOUND", answer["error"].(map[string]any)["code"])

	status, answer = p.control(t, "POST", "/_mock/policy", `{"rate_limit_per_minute": 1}`)
	require.Equal(t, http.StatusOK, status)
	assert.Equal(t, map[string]any{"require_intent_approval": false, "revocation_delay_seconds": 0.0, "rate_limit_per_minute": 1.0, "tier": "enterprise"}, answer)
	_, _ = c.Agents.List(t.Context()) // this or the next one is one too many for the minute
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = c.Agents.List(ctx)
	require.ErrorIs(t, err, stack.ErrRateLimited)
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	assert.Positive(t, apiErr.RetryAfter)

	status, answer = p.control(t, "GET", "/_mock/state", "")
	require.Equal(t, http.StatusOK, status)
	assert.Equal(t, 1.0, answer["agents"])
	status, answer = p.control(t, "POST", "/_mock/reset", `{}`)
	require.Equal(t, http.StatusOK, status)
	assert.Equal(t, map[string]any{"url": p.URL, "api_key": p.APIKey, "operator_id": p.OperatorID}, answer)
	_, answer = p.control(t, "GET", "/_mock/state", "")
	assert.Equal(t, 0.0, answer["agents"])
}

func TestControlRoutesRefuse(t *testing.T) {
	t.Parallel()
	p := start(t, "-addr", "127.0.0.1:0", "-control", "-quiet")
	tests := map[string]struct {
		path, body string
		change     func(*http.Request)
		status     int
	}{
		"foreign Host header": {"/_mock/clock", `{"advance_seconds":1}`, func(r *http.Request) { r.Host = "evil.example" }, http.StatusForbidden},
		"a form":              {"/_mock/clock", `advance_seconds=1`, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, http.StatusUnsupportedMediaType},
		"backwards":           {"/_mock/clock", `{"advance_seconds":-1}`, nil, http.StatusBadRequest},
		"unknown field":       {"/_mock/clock", `{"advance_seconds":1,"x":1}`, nil, http.StatusBadRequest},
		"bad close":           {"/_mock/faults", `{"path":"/v1/proxy","close":"during"}`, nil, http.StatusBadRequest},
		"bad status":          {"/_mock/faults", `{"path":"/v1/proxy","status":200}`, nil, http.StatusBadRequest},
		"bad upstream":        {"/_mock/upstreams", `{"host":"a b","url":"http://127.0.0.1:1"}`, nil, http.StatusBadRequest},
		"bad tier":            {"/_mock/policy", `{"tier":"gold"}`, nil, http.StatusBadRequest},
		"bad approval gate":   {"/_mock/policy", `{"require_intent_approval":"yes"}`, nil, http.StatusBadRequest},
		"too far ahead":       {"/_mock/clock", `{"advance_seconds":1e300}`, nil, http.StatusBadRequest},
		"no such route":       {"/_mock/faults", `{"path":"/v1/agent","status":500}`, nil, http.StatusBadRequest},
		"endless delay":       {"/_mock/faults", `{"path":"/v1/agents","delay_ms":9223372036854775807}`, nil, http.StatusBadRequest},
		"a post without body": {"/_mock/reset", ``, nil, http.StatusUnsupportedMediaType},
		"a reset with more":   {"/_mock/reset", `{"all":true}`, nil, http.StatusBadRequest},
		"wrong method":        {"/_mock/state", `{}`, nil, http.StatusMethodNotAllowed},
		"unknown route":       {"/_mock/clocks", `{}`, nil, http.StatusNotFound},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var change []func(*http.Request)
			if tc.change != nil {
				change = append(change, tc.change)
			}
			status, answer := p.control(t, "POST", tc.path, tc.body, change...)
			assert.Equal(t, tc.status, status, answer)
			assert.NotEmpty(t, answer["error"].(map[string]any)["message"])
		})
	}
}

func TestSeed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "seed.json")
	require.NoError(t, os.WriteFile(file, []byte(`{
		"services": [{"service":"slack","credential":"xoxb-seed"},
		             {"service":"crm","credential":{"username":"u","password":"seed-password"},"scopes":["read"]}],
		"agents": [{"name":"triage","accountability_mode":"logged","services":["slack","crm"]}]}`), 0o600))
	p := start(t, "-addr", "127.0.0.1:0", "-seed", file)
	c := p.client(t)
	agents, err := c.Agents.List(t.Context())
	require.NoError(t, err)
	require.Len(t, agents, 1)
	assert.Equal(t, stack.Logged, agents[0].AccountabilityMode)
	permissions, err := c.Services.GetAgentPermissions(t.Context(), agents[0].ID)
	require.NoError(t, err)
	assert.Len(t, permissions.Grants, 2)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.Wait())
	assert.NotContains(t, p.stderr.String(), "seed-password")
	assert.Contains(t, p.stderr.String(), agents[0].ID)
}

// On a bad day calls go wrong; the seed file and the control routes are spared.
func TestChaos(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "seed.json")
	require.NoError(t, os.WriteFile(file, []byte(exampleSeed), 0o600))
	p := start(t, "-addr", "127.0.0.1:0", "-control", "-seed", file, "-chaos", "5")
	wrong := 0
	for range 40 {
		status, _ := p.control(t, "GET", "/_mock/state", "")
		require.Equal(t, http.StatusOK, status)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // some hang
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/openapi.json", http.NoBody)
		require.NoError(t, err)
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		if err != nil || resp.StatusCode != http.StatusOK {
			wrong++
		}
		cancel()
	}
	assert.InDelta(t, 8, wrong, 7)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.Wait())
	assert.Contains(t, p.stderr.String(), "-chaos 5 has it again")
}

func TestBadSeeds(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ seed, want string }{
		"unknown field":    {`{"agent":[]}`, "unknown field seed.agent; known are agents, policy, services"},
		"not JSON":         {`{`, "seed is \"cut short\""},
		"bad agent":        {`{"agents":[{"name":"No Spaces"}]}`, "agents[0] (No Spaces)"},
		"unknown service":  {`{"agents":[{"name":"a-1","services":["slack"]}]}`, `service "slack" is not among`},
		"bad credential":   {`{"services":[{"service":"slack","credential":17}]}`, "credential must be a non-empty string"},
		"mixed credential": {`{"services":[{"service":"crm","credential":{"token":"hush-hush","n":17}}]}`, "credential must be a non-empty string"},
		"object for slack": {`{"services":[{"service":"slack","credential":{"a":"b"}}]}`, "takes a string"},
		"fields for crm":   {`{"services":[{"service":"crm","credential":"x","fields":{"a":"b"}}]}`, "services[0] (crm): fields are for"},
		"missing field":    {`{"services":[{"service":"salesforce","credential":"x"}]}`, "instance_url"},
		"service twice":    {`{"services":[{"service":"crm","credential":"x"},{"service":"crm","credential":"y"}]}`, "services[1] (crm)"},
		"wrong type":       {`{"agents":[{"name":"a-1","services":"slack"}]}`, "seed.agents[0].services"},
		"trailing data":    {`{} ]`, "seed is"},
		"bad policy":       {`{"policy":{"tier":"gold"}}`, "body.tier"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "seed.json")
			require.NoError(t, os.WriteFile(file, []byte(tc.seed), 0o600))
			p := command(t, "-addr", "127.0.0.1:0", "-seed", file)
			err := p.Run()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, 1, exit.ExitCode())
			assert.Contains(t, p.stderr.String(), tc.want)
			assert.Contains(t, p.stderr.String(), file)
			assert.NotContains(t, p.stderr.String(), "hush-hush")
		})
	}
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	tests := map[string]struct {
		flags []string
		code  int
		want  string
	}{
		"unknown flag":      {[]string{"-bogus"}, 2, "bogus"},
		"argument":          {[]string{"serve"}, 2, "unexpected argument"},
		"upstream":          {[]string{"-upstream", "slack.com"}, 2, "host=URL"},
		"upstream's URL":    {[]string{"-upstream", "slack.com=ftp://x"}, 2, "slack.com"},
		"chaos":             {[]string{"-chaos", "-1"}, 2, "whole number"},
		"address":           {[]string{"-addr", "nonsense"}, 2, "-addr"},
		"address in use":    {[]string{"-addr", taken.Addr().String()}, 1, "address already in use"},
		"seed is not there": {[]string{"-addr", "127.0.0.1:0", "-seed", "/nowhere.json"}, 1, "/nowhere.json"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := command(t, tc.flags...)
			var out bytes.Buffer
			p.Stdout = &out
			var exit *exec.ExitError
			require.ErrorAs(t, p.Run(), &exit)
			assert.Equal(t, tc.code, exit.ExitCode())
			assert.Contains(t, p.stderr.String(), tc.want)
			assert.Empty(t, out.String())
		})
	}
}
