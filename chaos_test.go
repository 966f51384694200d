package stack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// Twenty bad days in the life of the SDK, and what holds on each: a write arrives at most once, and is answered, refused, or of
// unknown outcome as the error says; every call that arrived is in the account of its Mission, once; each error says which call
// it is of and what is wrong; no Mission stays open; the audit log is whole.
func TestBadDays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newBadDay(t, seed).live(t) })
		})
	}
}

// badDay is a mock on a bad day, and what its service has got.
type badDay struct {
	*stacktest.Server
	client       *stack.Client
	agent, child stacktest.Agent

	mu       sync.Mutex
	arrived  map[string]int // calls at the service by their path
	failures int            // errors that the SDK has returned
	late     int            // Missions that were closed by Recover
}

func newBadDay(t *testing.T, seed uint64) *badDay {
	t.Helper()
	srv := stacktest.New(t, stacktest.WithChaos(seed), stacktest.FailOnOpenMissions())
	d := &badDay{Server: srv, arrived: map[string]int{}, client: srv.Client(stack.WithJournal(t.TempDir()), stack.WithPollInterval(time.Minute))}
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.arrived[r.URL.Path]++
		d.mu.Unlock()
		answers(jsonType, `{"ok":true}`)(w, r)
	}))
	anthropic := llmProviders[0]
	srv.Upstream(anthropic.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if assert.NoError(t, err) && strings.Contains(string(body), `"stream":true`) {
			streams(anthropic.events)(w, r)
			return
		}
		answers(jsonType, anthropic.answer)(w, r)
	}))
	services := []string{"slack", "anthropic"}
	d.agent = srv.Agent(t, stacktest.AgentConfig{Mode: stack.Enforced, Services: services, Credential: llmKey})
	d.child = srv.Agent(t, stacktest.AgentConfig{Mode: stack.Enforced, Services: services})
	return d
}

// live is the day: Missions that end well, that fail and that go on and on, and what nobody's Mission is needed for.
func (d *badDay) live(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	params := stack.MissionParams{AgentID: d.agent.ID, Intent: "Get through a bad day", Services: []string{"slack", "anthropic"},
		WillDelegate: true, ExpiresIn: 4 * time.Hour, CheckpointInterval: 5 * time.Minute}
	fiasco := errors.New("a fiasco")
	for i := range 4 {
		var mission *stack.Mission
		err := d.client.Passports.RunMission(ctx, params, func(ctx context.Context, m *stack.Mission) error {
			mission = m
			d.work(ctx, t, m, fmt.Sprint("mission-", i))
			if i == 3 {
				return fiasco
			}
			return nil
		})
		if mission != nil && i == 3 {
			require.ErrorIs(t, err, fiasco)
		}
		if err != nil && !errors.Is(err, fiasco) {
			d.explained(t, err)
		}
		d.settled(t, mission)
	}
	d.rotate(t, params)
	for i := range 4 {
		d.handOver(t, fmt.Sprint("parcel-", i))
	}
	d.read(t)

	d.recoverAll(t)
	d.RequireAuditIntact(t)
	_, err := again(t, func() (stack.AuditHead, error) { return d.client.Audit.Verify(ctx, stack.AuditHead{}) })
	require.NoError(t, err, "the client finds the audit log whole, too")
	d.RequireNoUnknownRequests(t)
	t.Logf("%d requests, %d errors, %d calls at the service, %d Missions, %d times to be recovered", d.Requests(), d.failures,
		len(d.arrived), len(d.opened()), d.late)
	assert.Positive(t, d.failures, "it was a bad day")
}

// work is what an agent does in a Mission, with three hands, for an hour.
func (d *badDay) work(ctx context.Context, t *testing.T, m *stack.Mission, name string) {
	t.Helper()
	var hands sync.WaitGroup
	for hand := range 3 {
		hands.Go(func() {
			for i := range 8 {
				path := fmt.Sprintf("/%s/%d/%d", name, hand, i)
				d.write(ctx, t, m, path)
				if i%3 == 0 {
					_, err := m.Proxy(ctx, stack.ProxyRequest{Service: "slack", URL: "https://slack.com" + path + "/read"})
					d.explained(t, err)
				}
				time.Sleep(7 * time.Minute)
			}
		})
	}
	hands.Go(func() {
		request := stack.LLMParams{Body: json.RawMessage(llmProviders[0].body)}
		for range 3 {
			answer, err := m.LLM().Anthropic(ctx, request)
			d.explained(t, err)
			assert.True(t, err != nil || answer.Text == "Hello there")
			said := ""
			for event, streamErr := range m.LLM().AnthropicStream(ctx, request) {
				if err = streamErr; err == nil {
					said += event.Text
				}
			}
			d.explained(t, err)
			assert.True(t, err != nil || said == "Hello there", "what ends without an error is whole: %s", said)
			m.Log("slack", "GET", "https://slack.com/local")
			d.explained(t, m.Checkpoint(ctx))
		}
		d.delegate(ctx, t, m, "/"+name+"/child")
	})
	hands.Wait()
}

// write makes one write, and holds the SDK to what it says of it.
func (d *badDay) write(ctx context.Context, t *testing.T, m *stack.Mission, path string) {
	t.Helper()
	resp, err := m.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: "POST", URL: "https://slack.com" + path, Body: map[string]string{"text": "hi"}})
	d.explained(t, err)
	switch arrived := d.arrivals(path); {
	case err == nil && resp.OK():
		assert.Equal(t, 1, arrived, "%s was answered", path)
	case errors.Is(err, stack.ErrOutcomeUnknown):
		assert.LessOrEqual(t, arrived, 1, "%s may have happened", path)
	default:
		assert.Zero(t, arrived, "%s was refused: %v", path, err)
	}
}

// delegate hands a passport on, and the child works with it.
func (d *badDay) delegate(ctx context.Context, t *testing.T, m *stack.Mission, path string) {
	t.Helper()
	child, err := m.Delegate(ctx, stack.PassportDelegateParams{ChildAgentID: d.child.ID})
	d.explained(t, err)
	if err != nil {
		return
	}
	resp, err := d.client.Proxy.Post(ctx, stack.ProxyRequest{Service: "slack", URL: "https://slack.com" + path, PassportToken: child.Token})
	d.explained(t, err)
	assert.True(t, err != nil || !resp.OK() || d.arrivals(path) == 1)
	assert.LessOrEqual(t, d.arrivals(path), 1)
}

// rotate works under several passports of one Mission.
func (d *badDay) rotate(t *testing.T, params stack.MissionParams) {
	t.Helper()
	var missions []*stack.Mission
	for m, err := range d.client.Passports.ContinuousMission(t.Context(), stack.ContinuousMissionParams{MissionParams: params, RotationInterval: time.Hour}) {
		d.explained(t, err)
		if err != nil {
			break
		}
		missions = append(missions, m)
		for i := 0; !m.ShouldRotate() && m.Context().Err() == nil; i++ {
			d.write(m.Context(), t, m, fmt.Sprintf("/rotation-%d/%d", m.Rotation(), i))
			time.Sleep(10 * time.Minute)
		}
		if m.Rotation() == 2 {
			break
		}
	}
	for _, m := range missions {
		d.settled(t, m)
	}
}

// handOver passes a parcel from one agent to the other; it comes out once, or not at all.
func (d *badDay) handOver(t *testing.T, text string) {
	t.Helper()
	ctx, payload := t.Context(), fmt.Sprintf("%q", text)
	parcel, err := again(t, func() (*stack.Dropoff, error) {
		p, err := d.client.Dropoffs.Create(ctx, stack.DropoffCreateParams{FromAgentID: d.agent.ID, ToAgentID: d.child.ID,
			Schema: json.RawMessage(`{"type":"string"}`), TTL: stack.MaxDropoffTTL})
		d.explained(t, err)
		return p, err
	})
	require.NoError(t, err)
	_, err = again(t, func() (*stack.Dropoff, error) {
		p, depositErr := d.client.Dropoffs.Deposit(ctx, parcel.ID, stack.DropoffDepositParams{AgentID: d.agent.ID, Payload: json.RawMessage(payload)})
		d.explained(t, depositErr)
		if errors.Is(depositErr, stack.ErrDropoffAlreadyDeposited) { // by an attempt whose answer was lost
			return p, nil
		}
		return p, depositErr
	})
	require.NoError(t, err)
	collected := 0
	for range 10 {
		got, err := d.client.Dropoffs.Collect(ctx, parcel.ID, stack.DropoffCollectParams{AgentID: d.child.ID})
		d.explained(t, err)
		if err == nil {
			collected++
			assert.JSONEq(t, payload, string(got.Payload))
		}
	}
	assert.LessOrEqual(t, collected, 1)
}

// read goes through lists; one that ends without an error is whole.
func (d *badDay) read(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for range 3 {
		agents, err := d.client.Agents.List(ctx)
		d.explained(t, err)
		assert.True(t, err != nil || len(agents) == 2)
		count, err := 0, error(nil)
		for _, err = range d.client.Missions.All(ctx, stack.MissionListParams{Limit: 1}) {
			if err != nil {
				d.explained(t, err)
				break
			}
			count++
		}
		assert.True(t, err != nil || count == len(d.opened()), "%d of %d Missions", count, len(d.opened()))
		log, rows := d.Audit(), 0
		for row, err := range d.client.Audit.All(ctx, stack.AuditRange{}) {
			if err != nil {
				d.explained(t, err)
				break
			}
			assert.Equal(t, log[rows].EntryID, row.EntryID)
			rows++
		}
	}
}

// recoverAll closes what could not be closed in time.
func (d *badDay) recoverAll(t *testing.T) {
	t.Helper()
	_, err := again(t, func() (int, error) {
		recovered, err := d.client.Passports.Recover(t.Context())
		d.late += len(recovered)
		d.explained(t, err)
		return len(recovered), err
	})
	require.NoError(t, err)
	assert.Empty(t, d.OpenMissions())
}

// settled holds the account of a Mission against what has happened. nil is one that was not opened.
func (d *badDay) settled(t *testing.T, m *stack.Mission) {
	t.Helper()
	d.recoverAll(t)
	if m == nil {
		return
	}
	checkout := d.RequireCheckedOut(t, m.JTI())
	for _, flag := range checkout.Flags {
		// What the SDK sends again, a read or a call that a model's provider refused for now, is one call of the agent's and
		// several to the server. A write is one to both.
		assert.False(t, flag.Type == "unreported_action" && strings.Contains(flag.Message, "POST call(s) to slack"), flag.Message)
	}
	assert.Equal(t, m.Summary().Calls, checkout.ActionsCount)
	assert.Len(t, checkout.ToolCalls, m.Summary().Calls)
	accounted := map[string]int{}
	for _, call := range checkout.ToolCalls {
		accounted[call.Target]++
	}
	reported := map[string]int{}
	for _, cp := range d.Checkpoints(m.JTI()) {
		for _, call := range cp.ToolCalls {
			if reported[call.Target]++; strings.Contains(call.Target, "-") {
				assert.Equal(t, 1, reported[call.Target], "%s is in one checkpoint only", call.Target)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	prefix, own := "", 0
	for target := range accounted {
		if path, ok := strings.CutPrefix(target, "https://slack.com/"); ok && strings.Contains(path, "-") {
			prefix, own = strings.SplitN(path, "/", 2)[0], own+1
			assert.Equal(t, 1, accounted[target], "%s is in the account once", target)
		}
	}
	for path := range d.arrived {
		if own > 0 && strings.HasPrefix(path, "/"+prefix+"/") && !strings.HasSuffix(path, "/child") {
			assert.Equal(t, 1, accounted["https://slack.com"+path], "%s has arrived and is in the account", path)
		}
	}
}

// opened are the Missions that were opened so far.
func (d *badDay) opened() (rows []stack.AuditEntry) {
	for _, row := range d.Audit() {
		if row.Action == "mission.open" {
			rows = append(rows, row)
		}
	}
	return rows
}

func (d *badDay) arrivals(path string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.arrived[path]
}

// explained holds an error to what every error of the SDK keeps to: it is typed, or names the call that broke; nil is none.
func (d *badDay) explained(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	d.mu.Lock()
	d.failures++
	d.mu.Unlock()
	var api *stack.Error
	var broken *stack.DecodeError
	var stream *stack.LLMStreamError
	var ended *stack.MissionEndedError
	switch {
	case errors.As(err, &api):
		assert.NotEmpty(t, api.Code)
	case errors.As(err, &broken), errors.As(err, &stream), errors.As(err, &ended):
	default:
		assert.Regexp(t, `stack: (GET|POST|PATCH|PUT|DELETE) /v1/\S+: .+`, err.Error())
	}
	assert.NotContains(t, err.Error(), llmKey)
	assert.NotContains(t, err.Error(), d.APIKey())
}

// again repeats what may be repeated, for hours.
func again[T any](t *testing.T, fn func() (T, error)) (out T, err error) {
	t.Helper()
	for range 50 {
		if out, err = fn(); err == nil {
			break
		}
		time.Sleep(5 * time.Minute)
	}
	return out, err
}
