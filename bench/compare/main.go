// Command compare runs the Python SDK and the Go SDK at the same work, proxied writes, against the same stackmock, and prints
// calls per second and memory side by side.
//
//	go run ./bench/compare [-calls 2000] [-workers 32] [-rounds 3] [-python PATH]
//
// The mock and each run of a client are processes of their own; the upstream is in this one. Both clients run in turns, and of all rounds the
// median counts; memory is the most that a client's process held (its peak RSS), the interpreter and the runtime included. Without
// -python, which names an interpreter that has the SDK, a virtual environment is made of .ci/interop/requirements.txt. It is
// run from the root of the repository.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/getstack-go/stack"
)

// settings are what a run of a client gets on standard input.
type settings struct {
	Way     string `json:"way"` // sequential, or a kind of concurrency
	URL     string `json:"url"`
	APIKey  string `json:"api_key"`
	Token   string `json:"token"`
	Calls   int    `json:"calls"`
	Workers int    `json:"workers"`
}

type result struct {
	CallsPerSecond float64 `json:"calls_per_second"`
	rss            float64 // bytes
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := compare(ctx)
	stop()
	if err != nil {
		slog.Error("compare failed", "error", err)
		os.Exit(1)
	}
}

func compare(ctx context.Context) error {
	s := settings{}
	flag.IntVar(&s.Calls, "calls", 2000, "proxied `calls` of one run")
	flag.IntVar(&s.Workers, "workers", 32, "`workers` of a concurrent run")
	rounds := flag.Int("rounds", 3, "`runs` of each, of which the median counts")
	python := flag.String("python", "", "`interpreter` that has the Python SDK")
	client := flag.Bool("client", false, "be one run of the Go client: settings on standard input")
	flag.Parse()
	if *client {
		return run(ctx, os.Stdin, os.Stdout)
	}
	if s.Calls < 1 || s.Workers < 1 || *rounds < 1 {
		return errors.New("-calls, -workers and -rounds must be at least 1")
	}
	scratch, err := os.MkdirTemp("", "stack-compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // a temporary folder
	if *python == "" {
		if *python, err = environment(ctx, scratch); err != nil {
			return err
		}
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"ok":true,"ts":"1700000000.000100"}`)
	}))
	defer upstream.Close()
	stop, err := s.startMock(ctx, scratch, upstream.URL)
	if err != nil {
		return err
	}
	defer stop()
	if err = s.openMission(ctx); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	golang, py := []string{self, "-client"}, []string{*python, filepath.Join("bench", "compare", "compare.py")}
	return s.table(ctx, *rounds, []contest{
		{"sequential", "sequential", golang, py},
		{"threads", fmt.Sprintf("%d threads", s.Workers), golang, py},
		{"tasks", fmt.Sprintf("%d asyncio tasks", s.Workers), golang, py},
	})
}

// contest is one way to work, for both. Go has one kind of concurrency and answers to both of Python's.
type contest struct {
	way, name  string
	golang, py []string
}

// table runs the contests and prints them.
func (s settings) table(ctx context.Context, rounds int, contests []contest) error {
	fmt.Printf("%d proxied writes a run, median of %d runs; %s, %d CPUs\n\n", s.Calls, rounds, runtime.Version(), runtime.NumCPU())
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(out, "\tGo calls/s\tPython calls/s\tGo/Python\tGo MB\tPython MB\tPython/Go\t")
	for _, c := range contests {
		var golang, py []result
		for range rounds {
			for _, side := range []struct {
				command []string
				results *[]result
			}{{c.golang, &golang}, {c.py, &py}} {
				r, err := s.child(ctx, c.way, side.command)
				if err != nil {
					return err
				}
				*side.results = append(*side.results, r)
			}
		}
		g, p := median(golang), median(py)
		_, _ = fmt.Fprintf(out, "%s\t%.0f\t%.0f\t%.1f\t%.1f\t%.1f\t%.1f\t\n", c.name, g.CallsPerSecond, p.CallsPerSecond,
			g.CallsPerSecond/p.CallsPerSecond, g.rss/1e6, p.rss/1e6, p.rss/g.rss)
	}
	return out.Flush()
}

func median(runs []result) result {
	slices.SortFunc(runs, func(a, b result) int { return int(a.CallsPerSecond - b.CallsPerSecond) })
	m := runs[len(runs)/2]
	slices.SortFunc(runs, func(a, b result) int { return int(a.rss - b.rss) })
	m.rss = runs[len(runs)/2].rss
	return m
}

// child is one run of a client in a process of its own.
func (s settings) child(ctx context.Context, way string, command []string) (result, error) {
	s.Way = way
	in, err := json.Marshal(s)
	if err != nil {
		return result{}, err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // our own commands
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, os.Stderr
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if err = cmd.Run(); err != nil {
		return result{}, fmt.Errorf("%s: %w", command, err)
	}
	var r result
	if err = json.Unmarshal(out.Bytes(), &r); err != nil {
		return result{}, fmt.Errorf("%s printed %q: %w", command, out.String(), err)
	}
	r.rss = peak(cmd.ProcessState)
	return r, nil
}

// peak is the most memory that a process held.
func peak(state *os.ProcessState) float64 {
	usage := state.SysUsage().(*syscall.Rusage)
	if runtime.GOOS == "darwin" { // bytes there, kilobytes elsewhere
		return float64(usage.Maxrss)
	}
	return float64(usage.Maxrss) * 1024
}

// run is one run of the Go client.
func run(ctx context.Context, in io.Reader, out io.Writer) error {
	var s settings
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return err
	}
	client, err := stack.New(stack.WithBaseURL(s.URL), stack.WithAPIKey(s.APIKey))
	if err != nil {
		return err
	}
	workers := s.Workers
	if s.Way == "sequential" {
		workers = 1
	}
	var next atomic.Int64
	failed := make([]error, workers)
	var wg sync.WaitGroup
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			for int(next.Add(1)) <= s.Calls && failed[w] == nil {
				failed[w] = post(ctx, client, stack.NewSecret(s.Token))
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err = errors.Join(failed...); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result{CallsPerSecond: float64(s.Calls) / took.Seconds()})
}

func post(ctx context.Context, client *stack.Client, token stack.Secret) error {
	resp, err := client.Proxy.Post(ctx, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/chat.postMessage",
		Body: map[string]string{"channel": "#support", "text": "On it"}, PassportToken: token})
	if err == nil && resp.Status != http.StatusOK {
		err = fmt.Errorf("the service answered %d", resp.Status)
	}
	return err
}

// environment makes a virtual environment with the Python SDK and returns its interpreter.
func environment(ctx context.Context, scratch string) (string, error) {
	folder := filepath.Join(scratch, "venv")
	python := filepath.Join(folder, "bin", "python")
	for _, command := range [][]string{
		{"python3", "-m", "venv", folder},
		{python, "-m", "pip", "install", "--quiet", "--requirement", filepath.Join(".ci", "interop", "requirements.txt")},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // our own commands
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("%s: %w", command, err)
		}
	}
	return python, nil
}

// startMock builds and starts stackmock, and takes its address and key.
func (s *settings) startMock(ctx context.Context, scratch, upstream string) (stop func(), err error) {
	binary, seed := filepath.Join(scratch, "stackmock"), filepath.Join(scratch, "seed.json")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/stackmock") //nolint:gosec // our own command
	build.Stderr = os.Stderr
	if err = build.Run(); err != nil {
		return nil, fmt.Errorf("building stackmock: %w", err)
	}
	if err = os.WriteFile(seed, []byte(`{"services": [{"service": "slack", "credential": "xoxb-compare"}],
		"agents": [{"name": "compare", "accountability_mode": "standard", "services": ["slack"]}]}`), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "-addr", "127.0.0.1:0", "-quiet", "-upstream", "slack.com="+upstream, "-seed", seed) //nolint:gosec // our own command
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err = cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	if err = json.NewDecoder(out).Decode(s); err != nil {
		stop()
		return nil, fmt.Errorf("stackmock did not start: %w", err)
	}
	return stop, nil
}

// openMission opens the Mission that all runs work in, and takes its passport.
func (s *settings) openMission(ctx context.Context) error {
	client, err := stack.New(stack.WithBaseURL(s.URL), stack.WithAPIKey(s.APIKey))
	if err != nil {
		return err
	}
	agents, err := client.Agents.List(ctx)
	if err != nil {
		return err
	}
	started, err := client.Missions.Start(ctx, stack.MissionStartParams{AgentID: agents[0].ID,
		Mission:  stack.MissionOpenParams{IntentSummary: "compare", ExpiresIn: time.Hour},
		Passport: &stack.MissionPassportParams{TTL: time.Hour}})
	if err != nil {
		return err
	}
	s.Token = started.Passport.Token.Reveal()
	return nil
}
