package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

const (
	warmUp    = 50
	slackURL  = "https://slack.com/api/chat.postMessage"
	slackText = `{"ok":true,"channel":"C012345","ts":"1700000000.000100","message":{"text":"On it"}}`
)

// A run with this variable is the mock alone, in a process of its own: what a benchmark then measures of its own process's memory is the
// client's.
const serverVariable = "STACK_BENCH_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverVariable) == "" {
		os.Exit(m.Run())
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type address struct{ URL, APIKey string }

// serve is the mock until its standard input ends.
func serve() error {
	srv, err := stacktest.Start()
	if err != nil {
		return err
	}
	defer srv.Close()
	url, err := srv.URL()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(address{url, srv.APIKey()})
	}
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return err
}

// serverProcess starts the mock in another process and returns a client of it.
func serverProcess(b *testing.B, opts ...stack.Option) *stack.Client {
	b.Helper()
	self, err := os.Executable()
	require.NoError(b, err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 10*time.Minute)
	cmd := exec.CommandContext(ctx, self)
	cmd.Env, cmd.Stderr = append(os.Environ(), serverVariable+"=1"), os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		cancel()
	})
	var at address
	require.NoError(b, json.NewDecoder(bufio.NewReader(stdout)).Decode(&at))
	client, err := stack.New(append([]stack.Option{stack.WithBaseURL(at.URL), stack.WithAPIKey(at.APIKey)}, opts...)...)
	require.NoError(b, err)
	return client
}

// alternate runs the sides in turns, each turn beginning with another one, and returns how long each run of each took, sorted.
func alternate(b *testing.B, sides ...func()) [][]time.Duration {
	b.Helper()
	for range warmUp {
		for _, side := range sides {
			side()
		}
	}
	took := make([][]time.Duration, len(sides))
	b.ReportAllocs()
	for turn := 0; b.Loop(); turn++ {
		for i := range sides {
			n := (turn + i) % len(sides)
			began := time.Now()
			sides[n]()
			took[n] = append(took[n], time.Since(began))
		}
	}
	for _, times := range took {
		slices.Sort(times)
	}
	return took
}

// quantile of sorted times, in nanoseconds.
func quantile(times []time.Duration, q float64) float64 {
	return float64(times[min(int(q*float64(len(times))), len(times)-1)])
}

// slack is a provider on a loopback port.
func slack(b *testing.B) *httptest.Server {
	b.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, slackText)
	}))
	b.Cleanup(upstream.Close)
	return upstream
}

// stage is a mock on a loopback port whose Slack is at another, with a live passport.
type stage struct {
	srv   *stacktest.Server
	url   string
	token stack.Secret
}

func newStage(b *testing.B, upstream string) *stage {
	b.Helper()
	s := &stage{srv: stacktest.New(b)}
	var err error
	s.url, err = s.srv.URL()
	require.NoError(b, err)
	require.NoError(b, s.srv.UpstreamURL("slack.com", upstream))
	agent := s.srv.Agent(b, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	started, err := s.srv.Client().Missions.Start(b.Context(), stack.MissionStartParams{AgentID: agent.ID,
		Mission:  stack.MissionOpenParams{IntentSummary: "bench"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "bench", Services: []string{"slack"}}}})
	require.NoError(b, err)
	s.token = started.Passport.Token
	return s
}

func check(b *testing.B, err error) {
	if err != nil {
		b.Fatal(err)
	}
}
