package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestMain(m *testing.M) {
	if os.Getenv("STACK_AS_PROCESS") != "" { // this test binary stands for the command, so that nothing has to be built
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// stage is a mock and the world of a person who calls commands.
type stage struct {
	*stacktest.Server
	home string
	env  map[string]string
	tty  bool

	mu     sync.Mutex
	opened []string // pages in the browser
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := stacktest.New(t)
	return &stage{Server: s, home: t.TempDir(), env: map[string]string{"STACK_BASE_URL": "http://stack.mock"}}
}

// withKey is the same for a person with an API key.
func (s *stage) withKey() *stage {
	s.env["STACK_API_KEY"] = s.APIKey()
	return s
}

// ran is a command that runs, or has.
type ran struct {
	status   int
	out, err lockedBuffer
	done     chan struct{}
}

// lockedBuffer may be read while it is written.
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

func (s *stage) start(ctx context.Context, in string, args ...string) *ran {
	r := &ran{done: make(chan struct{})}
	a := &app{in: strings.NewReader(in), out: &r.out, err: &r.err, getenv: func(name string) string { return s.env[name] }, home: s.home,
		terminal: s.tty, options: []stack.Option{stack.WithHTTPClient(&http.Client{Transport: s.Transport()})},
		browse: func(page string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.opened = append(s.opened, page)
			return nil
		}}
	go func() {
		r.status = a.run(ctx, args)
		close(r.done)
	}()
	return r
}

// run runs a command to its end. Nothing secret is in what it prints.
func (s *stage) run(t *testing.T, args ...string) *ran {
	t.Helper()
	r := s.start(t.Context(), "", args...)
	<-r.done
	for _, secret := range []string{s.APIKey(), "ort_", "eyJ", "odc_"} {
		assert.NotContains(t, r.out.String()+r.err.String(), secret)
	}
	return r
}

// good runs a command that succeeds, and gives what it prints.
func (s *stage) good(t *testing.T, args ...string) string {
	t.Helper()
	r := s.run(t, args...)
	require.Zero(t, r.status, r.err.String())
	return r.out.String()
}

// lines reads JSON, one object a line.
func lines(t *testing.T, text string) (out []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var object map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &object), line)
		out = append(out, object)
	}
	return out
}

var oneTimeCode = regexp.MustCompile(`(?m)^Your one-time code: (\S+)$`)

// login begins a sign-in, and waits until it shows its code. It is for synctest.
func (s *stage) login(t *testing.T, in string, args ...string) (*ran, string) {
	t.Helper()
	r := s.start(t.Context(), in, append([]string{"auth", "login"}, args...)...)
	synctest.Wait()
	shown := oneTimeCode.FindStringSubmatch(r.err.String())
	require.NotNil(t, shown, r.err.String())
	return r, shown[1]
}

func TestLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r, code := s.login(t, "")
		assert.Contains(t, r.err.String(), "/oauth/device and enter it there, before "+local(time.Now().Add(15*time.Minute)))
		time.Sleep(2 * time.Minute)
		require.NoError(t, s.ApproveDevice(code))
		<-r.done
		require.Zero(t, r.status, r.err.String())
		assert.Regexp(t, `^Signed in to http://stack\.mock as op_\w+\n  by +\S+credentials\.json\n  scopes +passports:read, .*\n  until +\d{4}-`, r.out.String())
		assert.NotContains(t, r.out.String()+r.err.String(), "ort_")
		info, err := os.Stat(filepath.Join(s.home, ".stack", "credentials.json"))
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode())
		assert.Empty(t, s.opened)

		shown := lines(t, s.good(t, "auth", "status", "--json"))[0]
		assert.Equal(t, "http://stack.mock", shown["base_url"])
		assert.Equal(t, s.OperatorID(), shown["operator_id"])
		assert.Equal(t, "session", shown["method"])
		assert.Len(t, shown["scopes"], 10)
		expires, err := time.Parse(time.RFC3339, shown["expires_at"].(string))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(30*24*time.Hour), expires, time.Minute)

		// On a terminal, Enter opens the browser; a session with a narrow scope takes the place of the other.
		s.tty = true
		r, code = s.login(t, "\n", "--scopes", "agents:read,passports:read", "--json")
		assert.Equal(t, []string{"http://pipe/oauth/device?user_code=" + code}, s.opened)
		require.NoError(t, s.ApproveDevice(code))
		<-r.done
		require.Zero(t, r.status, r.err.String())
		shown = lines(t, r.out.String())[0]
		assert.Equal(t, []any{"agents:read", "passports:read"}, shown["scopes"])
		assert.NotContains(t, shown, "operator_id", "who may not read the log does not learn it")
		assert.Equal(t, "There are no such Missions.\n", s.run(t, "mission", "list").err.String())
		refused := s.run(t, "audit", "tail")
		assert.Equal(t, failed, refused.status)
		assert.Contains(t, refused.err.String(), "audit:read")

		s.opened = nil
		s.withKey()
		r, code = s.login(t, "\n", "--no-browser")
		require.NoError(t, s.ApproveDevice(code))
		<-r.done
		assert.Empty(t, s.opened)
		assert.Contains(t, r.err.String(), "STACK_API_KEY is set")
	})
}

func TestLoginFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r, code := s.login(t, "")
		require.NoError(t, s.DenyDevice(code))
		<-r.done
		assert.Equal(t, notSignedIn, r.status)
		assert.Contains(t, r.err.String(), "the person has denied the request")
		r, _ = s.login(t, "")
		<-r.done
		assert.Equal(t, notSignedIn, r.status)
		assert.Contains(t, r.err.String(), "nobody has approved in time")
		ctx, cancel := context.WithCancel(t.Context())
		interrupted := s.start(ctx, "", "auth", "login")
		synctest.Wait()
		cancel()
		<-interrupted.done
		assert.Equal(t, failed, interrupted.status)
		assert.NoFileExists(t, filepath.Join(s.home, ".stack", "credentials.json"))
		r = s.run(t, "auth", "login", "--scopes", "everything")
		assert.Equal(t, failed, r.status)
		assert.Contains(t, r.err.String(), "everything")
	})
}

func TestStatusAndLogout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		for _, command := range []string{"status", "logout"} {
			r := s.run(t, "auth", command)
			assert.Equal(t, notSignedIn, r.status)
			assert.Contains(t, r.err.String(), "Sign in with: stack auth login")
			assert.Empty(t, r.out.String())
		}
		s.withKey()
		assert.Equal(t, "Signed in to http://stack.mock as "+s.OperatorID()+"\n  by  STACK_API_KEY\n", s.good(t, "auth", "status"), "also before anything is in the log")
		s.env["STACK_API_KEY"] = "sk_live_nobody"
		r := s.run(t, "auth", "status")
		assert.Equal(t, notSignedIn, r.status)
		assert.Contains(t, r.err.String(), "The key is that of STACK_API_KEY")
		delete(s.env, "STACK_API_KEY")

		for _, tc := range []struct {
			args []string
			want string
		}{{nil, "Signed out.\n"}, {[]string{"--json"}, `{"revoked":true}` + "\n"}, {[]string{"--local"}, "Signed out here. "}} {
			r, code := s.login(t, "")
			require.NoError(t, s.ApproveDevice(code))
			<-r.done
			require.Zero(t, r.status, r.err.String())
			assert.True(t, strings.HasPrefix(s.good(t, append([]string{"auth", "logout"}, tc.args...)...), tc.want), tc.want)
			assert.Equal(t, notSignedIn, s.run(t, "auth", "status").status)
		}
		ended := 0
		for _, row := range s.Audit() {
			if row.Action == "oauth.session_revoke" {
				ended++
			}
		}
		assert.Equal(t, 2, ended)
	})
}

func TestTail(t *testing.T) {
	t.Parallel()
	s := newStage(t).withKey()
	var agents []*stack.Agent
	for i := range 3 {
		agent, err := s.Client().Agents.Register(t.Context(), stack.AgentRegisterParams{Name: fmt.Sprintf("agent-%d", i)})
		require.NoError(t, err)
		agents = append(agents, agent)
	}
	rows := lines(t, s.good(t, "audit", "tail", "-n", "2", "--json"))
	require.Len(t, rows, 2)
	assert.Equal(t, agents[1].ID, rows[0]["agent_id"], "the oldest first")
	assert.Equal(t, agents[2].ID, rows[1]["agent_id"])
	assert.IsType(t, 0.0, rows[0]["timestamp"], "the names and forms are the API's")
	shown := s.good(t, "audit", "tail", "--agent", agents[0].ID)
	assert.Regexp(t, `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  success  agent\.register +`+agents[0].ID+`  -\n$`, shown)
	assert.Empty(t, s.good(t, "audit", "tail", "-n", "0"))
	assert.Empty(t, s.good(t, "audit", "tail", "--since", "0s"))
	assert.Empty(t, s.good(t, "audit", "tail", "--passport", "pp_none"))
	assert.Len(t, lines(t, s.good(t, "audit", "tail", "--since", time.Now().Add(-time.Hour).Format(time.RFC3339), "--json")), 3)
}

// Every row is shown once, whatever happens to the server meanwhile.
func TestTailFollows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t).withKey()
		register := func(names ...string) {
			for _, name := range names {
				_, err := s.Client().Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "agent-" + name})
				require.NoError(t, err)
			}
		}
		register("a", "b", "c")
		ctx, cancel := context.WithCancel(t.Context())
		all := s.start(ctx, "", "audit", "tail", "-f", "--json")
		synctest.Wait()
		first := lines(t, all.out.String())
		require.Len(t, first, 3)
		one := s.start(ctx, "", "audit", "tail", "-f", "--json", "-n", "0", "--agent", first[0]["agent_id"].(string))
		newer := s.start(ctx, "", "audit", "tail", "-f", "--json", "--since", "0s")
		register("d") // in the same moment
		time.Sleep(time.Minute)
		for i := range 150 { // more than a listing holds
			register(fmt.Sprint("e", i))
		}
		s.Fault(stacktest.Fault{Path: "/v1/audit/export", Status: 503, Times: 12})
		time.Sleep(time.Minute)
		_, err := s.Client().Agents.Update(t.Context(), first[0]["agent_id"].(string), stack.AgentUpdateParams{})
		if err != nil { // an update needs a change
			_, err = s.Client().Agents.Delete(t.Context(), first[0]["agent_id"].(string))
		}
		require.NoError(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		seen := map[any]int{}
		for _, row := range lines(t, all.out.String()) {
			seen[row["entry_id"]]++
		}
		for _, row := range s.Audit() {
			assert.Equal(t, 1, seen[row.EntryID], row.Action)
		}
		assert.Equal(t, 1, strings.Count(all.err.String(), "Trying again."), all.err.String())
		for _, row := range lines(t, one.out.String()) {
			assert.Equal(t, first[0]["agent_id"], row["agent_id"])
		}
		assert.NotEmpty(t, one.out.String())
		assert.Len(t, lines(t, newer.out.String()), len(s.Audit())-4, "strictly newer, as the listing has it")
		cancel()
		for _, r := range []*ran{all, one, newer} {
			<-r.done
			assert.Zero(t, r.status, r.err.String())
		}

		s.env["STACK_API_KEY"] = "sk_live_nobody"
		r := s.run(t, "audit", "tail", "-f")
		assert.Equal(t, notSignedIn, r.status)
	})
}

func TestRevokeAndMissions(t *testing.T) {
	t.Parallel()
	s := newStage(t).withKey()
	agent, err := s.Client().Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "bot"})
	require.NoError(t, err)
	var open []*stack.OpenedMission
	for i := range 3 {
		m, openErr := s.Client().Missions.Open(t.Context(), stack.MissionOpenParams{AgentID: agent.ID, IntentSummary: fmt.Sprintf("Tidy up\x1b[2J %d %s", i, strings.Repeat("x", 80))})
		require.NoError(t, openErr)
		open = append(open, m)
	}
	shown := s.good(t, "mission", "list", "--limit", "2")
	assert.NotContains(t, shown, "\x1b")
	rows := strings.Split(strings.TrimSpace(shown), "\n")
	require.Len(t, rows, 3)
	assert.Regexp(t, `^MISSION +STATUS +AGENT +OPENED +END +INTENT$`, rows[0])
	assert.Contains(t, rows[1], open[2].MissionID, "the newest first")
	assert.True(t, strings.HasSuffix(rows[1], "x…"), rows[1])
	all := lines(t, s.good(t, "mission", "list", "--limit", "0", "--json"))
	require.Len(t, all, 3)
	assert.Equal(t, open[0].MissionID, all[2]["mission_id"])
	assert.Equal(t, "live", all[0]["status"])
	assert.Empty(t, s.good(t, "mission", "list", "--status", "revoked"))
	r := s.run(t, "mission", "list", "--status", "lost")
	assert.Equal(t, failed, r.status)
	assert.Contains(t, r.err.String(), "lost")

	passport, err := s.Client().Passports.Issue(t.Context(), stack.PassportIssueParams{AgentID: agent.ID, Intent: &stack.Intent{Summary: "x", Services: []string{"slack"}}, MissionIDs: []string{open[0].MissionID}})
	require.NoError(t, err)
	assert.Equal(t, "Revoked passport "+passport.JTI+".\n", s.good(t, "passports", "revoke", passport.JTI, "--reason", "wrong channel"))
	assert.Equal(t, "Passport "+passport.JTI+" was revoked before.\n", s.good(t, "passports", "revoke", "--reason", "again", "--", passport.JTI))
	assert.Equal(t, passport.JTI, lines(t, s.good(t, "passports", "revoke", passport.JTI, "--reason", "again", "--json"))[0]["jti"])
	r = s.run(t, "passports", "revoke", "pp_none", "--reason", "x")
	assert.Equal(t, failed, r.status)
	assert.Contains(t, r.err.String(), "404 NOT_FOUND")
}

func TestUsage(t *testing.T) {
	t.Parallel()
	s := newStage(t).withKey()
	for _, tc := range []struct{ args, says string }{
		{"", "Usage: stack <command>"},
		{"auht", `there is no command "auht"`},
		{"auth", `there is no command "auth"`},
		{"auth lgoin", "stack auth -h tells more."},
		{"x \x1b[2J", "there is no command"},
		{"audit tail -x", "flag provided but not defined: -x"},
		{"audit tail -n many", "invalid value"},
		{"audit tail -n 101", "-n is 101; it may be 0 to 100"},
		{"audit tail --since yesterday", "--since is"},
		{"audit tail --since -5m", "--since is"},
		{"audit tail now", `unexpected argument "now"`},
		{"audit verify a.json b.json", `unexpected argument "b.json"`},
		{"passports revoke --reason x", "jti is missing"},
		{"passports revoke pp_1", "--reason is missing"},
		{"mission list --limit -1", "--limit is -1"},
	} {
		r := s.run(t, strings.Fields(tc.args)...)
		assert.Equal(t, misused, r.status, tc.args)
		assert.Contains(t, r.err.String(), tc.says, tc.args)
		assert.NotContains(t, r.err.String(), "\x1b")
		assert.Empty(t, r.out.String())
	}
	assert.Zero(t, s.Requests())
	assert.Contains(t, s.good(t, "-h"), "audit verify")
	assert.NotContains(t, s.good(t, "auth", "--help"), "audit verify")
	for _, c := range commands() {
		help := s.good(t, append(strings.Fields(c.name), "-h")...)
		assert.Contains(t, help, "Usage: stack "+c.name)
		require.NotEmpty(t, c.examples)
		for _, example := range c.examples {
			assert.True(t, strings.HasPrefix(example, c.name), example)
			assert.Contains(t, help, "$ stack "+example)
		}
	}
	s.env["STACK_BASE_URL"] = "ftp://x"
	r := s.run(t, "auth", "status")
	assert.Equal(t, failed, r.status)
	assert.NotZero(t, s.run(t, "auth", "status", "--base-url", "http://user:pass@stack.mock").status)
	assert.Contains(t, s.good(t, "auth", "status", "--base-url", "http://other.mock"), "Signed in to http://other.mock")
}

// The command as a process of its own.
func TestProcess(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	url, err := s.URL()
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	command := func(args ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Env = append(os.Environ(), "STACK_AS_PROCESS=1", "HOME="+s.home, "STACK_BASE_URL="+url, "STACK_API_KEY=")
		return cmd
	}
	login := command("auth", "login")
	prompt, err := login.StderrPipe()
	require.NoError(t, err)
	var out bytes.Buffer
	login.Stdout = &out
	require.NoError(t, login.Start())
	var shown []byte
	for buf := make([]byte, 256); !oneTimeCode.Match(shown); {
		n, readErr := prompt.Read(buf)
		require.NoError(t, readErr, string(shown))
		shown = append(shown, buf[:n]...)
	}
	require.NoError(t, s.ApproveDevice(string(oneTimeCode.FindSubmatch(shown)[1])))
	_, err = io.Copy(io.Discard, prompt)
	require.NoError(t, err)
	require.NoError(t, login.Wait())
	assert.Contains(t, out.String(), "Signed in to "+url+" as "+s.OperatorID())

	text, err := command("audit", "verify").Output()
	require.NoError(t, err)
	assert.Contains(t, string(text), "is whole")
	text, err = command("auth", "logout").Output()
	require.NoError(t, err)
	assert.Equal(t, "Signed out.\n", string(text))
	err = command("auth", "status").Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, notSignedIn, exit.ExitCode())
}
