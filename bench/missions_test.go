package bench

import (
	"errors"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// memory that is in use after a collection.
func memory() float64 {
	runtime.GC()
	runtime.GC() // for what only the first one lets go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// agentWithCRM registers an agent that may use a custom service, and returns its id.
func agentWithCRM(b *testing.B, client *stack.Client, mode stack.Accountability) string {
	b.Helper()
	agent, err := client.Agents.Register(b.Context(), stack.AgentRegisterParams{Name: "bench", AccountabilityMode: mode})
	require.NoError(b, err)
	crm, err := client.Services.ConnectCustom(b.Context(), stack.ServiceConnectCustomParams{Name: "crm",
		Credential: stack.CustomCredential{Token: stack.NewSecret("bench-credential")}, Scopes: []string{"use"}})
	require.NoError(b, err)
	_, err = client.Services.GrantAgentAccess(b.Context(), stack.GrantParams{AgentID: agent.ID, ServiceConnectionID: crm.ID, Scopes: crm.Scopes})
	require.NoError(b, err)
	return agent.ID
}

// each calls fn with 0 to n-1, from some workers.
func each(workers, n int, fn func(i int) error) error {
	var next atomic.Int64
	failed := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed[w] == nil; i = int(next.Add(1)) - 1 {
				failed[w] = fn(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// What an open and idle Mission costs its process, with 10,000 of them; the mock is another process. The aim is at most 8 KB
// and no goroutine each.
func BenchmarkOpenMissions(b *testing.B) {
	const open, workers = 10_000, 16
	pool := http.DefaultTransport.(*http.Transport).Clone()
	pool.MaxIdleConnsPerHost = workers
	client := serverProcess(b, stack.WithHTTPClient(&http.Client{Transport: pool}))
	params := stack.MissionParams{AgentID: agentWithCRM(b, client, stack.Enforced), Intent: "Wait for tickets", Services: []string{"crm"}}
	missions := make([]*stack.Mission, open)
	for b.Loop() {
		clear(missions)
		pool.CloseIdleConnections()
		before, goroutines := memory(), runtime.NumGoroutine()
		check(b, each(workers, open, func(i int) (err error) {
			missions[i], err = client.Passports.Mission(b.Context(), params)
			return err
		}))
		pool.CloseIdleConnections()
		b.ReportMetric((memory()-before)/open, "B/mission")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/open, "goroutines/mission")
		check(b, each(workers, open, func(i int) (err error) {
			missions[i].Close(&err)
			return err
		}))
	}
}

// A Mission that logs a million calls, with a checkpoint after each thousand; the mock is another process. What the process
// holds in the end is compared with what it held after the first 50,000: growth is how many bytes came with each later call.
func BenchmarkMillionCalls(b *testing.B) {
	const calls, first, each = 1_000_000, 50_000, 1000
	client := serverProcess(b)
	params := stack.MissionParams{AgentID: agentWithCRM(b, client, stack.Logged), Intent: "Log all that happens", Services: []string{"crm"}}
	for b.Loop() {
		m, err := client.Passports.Mission(b.Context(), params)
		check(b, err)
		var early float64
		for i := range calls {
			m.Log("crm", "GET", "https://crm.example.com/contacts")
			if (i+1)%each == 0 {
				check(b, m.Checkpoint(b.Context()))
			}
			if i+1 == first {
				early = memory()
			}
		}
		late := memory()
		b.ReportMetric(early/1e6, "early-MB")
		b.ReportMetric(late/1e6, "late-MB")
		b.ReportMetric((late-early)/(calls-first), "growth-B/call")
		m.Close(&err)
		check(b, err)
	}
}
