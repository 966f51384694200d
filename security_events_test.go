package stack_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// startLogged registers a logged agent and opens a Mission for it that declares slack.
func startLogged(t *testing.T, client *stack.Client, name string) (*stack.StartedMission, *stack.Agent) {
	t.Helper()
	agent, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: name, AccountabilityMode: stack.Logged})
	require.NoError(t, err)
	return startMission(t, client, agent), agent
}

func startMission(t *testing.T, client *stack.Client, agent *stack.Agent) *stack.StartedMission {
	t.Helper()
	started, err := client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agent.ID,
		Mission:  stack.MissionOpenParams{IntentSummary: "answer tickets"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "answer tickets", Services: []string{"slack"}}}})
	require.NoError(t, err)
	return started
}

// raiseEvents has the passport of a logged agent report n services outside its scope: n warnings.
func raiseEvents(t *testing.T, client *stack.Client, jti string, n int) {
	t.Helper()
	services := make([]string, n)
	for i := range services {
		services[i] = fmt.Sprintf("elsewhere-%d", i)
	}
	_, err := client.Passports.Checkpoint(t.Context(), jti, stack.CheckpointParams{ServicesUsed: services, ActionsCount: n})
	require.NoError(t, err)
}

func listEvents(t *testing.T, client *stack.Client, params stack.SecurityEventListParams) *stack.SecurityEventPage {
	t.Helper()
	page, err := client.SecurityEvents.List(t.Context(), params)
	require.NoError(t, err)
	return page
}

func TestSecurityEventsListAndGet(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	assert.Equal(t, stack.SecurityEventPage{Events: []stack.SecurityEvent{}, Page: 1, Limit: 50},
		*listEvents(t, client, stack.SecurityEventListParams{}))

	first, firstAgent := startLogged(t, client, "first")
	second, secondAgent := startLogged(t, client, "second")
	raiseEvents(t, client, first.Passport.JTI, 3)
	raiseEvents(t, client, second.Passport.JTI, 60)

	page := listEvents(t, client, stack.SecurityEventListParams{})
	assert.Len(t, page.Events, 50, "50 by default")
	assert.Equal(t, []int{63, 1, 50}, []int{page.UnresolvedCount, page.Page, page.Limit})
	event := page.Events[0]
	assert.Equal(t, "elsewhere-59", event.Metadata["service"], "newest first")
	assert.Equal(t, []any{"slack"}, event.Metadata["intent_services"])
	assert.Contains(t, event.Metadata, "granted_providers")
	assert.Equal(t, secondAgent.ID, event.AgentID)
	assert.Equal(t, second.Passport.JTI, event.PassportJTI)
	assert.Equal(t, secondAgent.OperatorID, event.OperatorID)
	assert.Equal(t, "credential_outside_scope", event.SignalType)
	assert.Equal(t, stack.SeverityWarning, event.Severity)
	assert.NotEmpty(t, event.Message)
	assert.False(t, event.Resolved)

	for name, tt := range map[string]struct {
		params stack.SecurityEventListParams
		events int
		count  int
	}{
		"the rest":           {stack.SecurityEventListParams{Page: 2}, 13, 63},
		"beyond the last":    {stack.SecurityEventListParams{Page: 3}, 0, 63},
		"the largest page":   {stack.SecurityEventListParams{Limit: 100}, 63, 63},
		"one agent":          {stack.SecurityEventListParams{AgentID: firstAgent.ID}, 3, 3},
		"one agent in pages": {stack.SecurityEventListParams{AgentID: firstAgent.ID, Page: 2, Limit: 2}, 1, 3},
		"no such agent":      {stack.SecurityEventListParams{AgentID: "agt_none"}, 0, 0},
	} {
		page := listEvents(t, client, tt.params)
		assert.NotNil(t, page.Events, name)
		assert.Len(t, page.Events, tt.events, name)
		assert.Equal(t, tt.count, page.UnresolvedCount, name)
	}

	got, err := client.SecurityEvents.Get(t.Context(), event.ID)
	require.NoError(t, err)
	assert.Equal(t, event, *got)
}

func TestSecurityEventsResolve(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	started, agent := startLogged(t, client, "bot")
	raiseEvents(t, client, started.Passport.JTI, 2)
	page := listEvents(t, client, stack.SecurityEventListParams{})
	event := page.Events[0]

	resolved, err := client.SecurityEvents.Resolve(t.Context(), event.ID)
	require.NoError(t, err)
	assert.True(t, resolved.Resolved)
	assert.False(t, resolved.ResolvedAt.Before(event.CreatedAt))
	again, err := client.SecurityEvents.Resolve(t.Context(), event.ID)
	require.NoError(t, err)
	assert.Equal(t, resolved, again, "a repetition changes nothing")
	got, err := client.SecurityEvents.Get(t.Context(), event.ID)
	require.NoError(t, err)
	assert.Equal(t, resolved, got, "a resolved event can still be read")

	page = listEvents(t, client, stack.SecurityEventListParams{})
	assert.Equal(t, 1, page.UnresolvedCount)
	require.Len(t, page.Events, 1)
	assert.NotEqual(t, event.ID, page.Events[0].ID)

	rows := auditRows(t, client, "security_event.resolve")
	require.Len(t, rows, 1, "one change, one row")
	assert.Equal(t, agent.ID, rows[0].AgentID)
	assert.Equal(t, started.Passport.JTI, rows[0].PassportJTI)
}

// auditRows returns the audit rows of an action, oldest first.
func auditRows(t *testing.T, client *stack.Client, action string) []stack.AuditEntry {
	t.Helper()
	rows := []stack.AuditEntry{}
	for e, err := range client.Audit.All(t.Context(), stack.AuditRange{}) {
		require.NoError(t, err)
		if e.Action == action {
			rows = append(rows, e)
		}
	}
	return rows
}

func TestSecurityEventsRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	list := func(params stack.SecurityEventListParams) error {
		_, err := client.SecurityEvents.List(t.Context(), params)
		return err
	}
	for name, params := range map[string]stack.SecurityEventListParams{
		"page below 1": {Page: -1}, "page beyond counting": {Page: 1_000_001},
		"limit below 1": {Limit: -1}, "limit over 100": {Limit: 101},
	} {
		assert.ErrorIs(t, list(params), stack.ErrInvalidRequest, name)
	}
	_, err := client.SecurityEvents.Get(t.Context(), "sev_none")
	require.ErrorIs(t, err, stack.ErrNotFound)
	_, err = client.SecurityEvents.Resolve(t.Context(), "sev_none")
	require.ErrorIs(t, err, stack.ErrNotFound)
	var paramErr *stack.ParamError
	_, err = client.SecurityEvents.Get(t.Context(), "")
	require.ErrorAs(t, err, &paramErr)
	assert.Equal(t, "event_id", paramErr.Param)
	assert.Empty(t, auditRows(t, client, "security_event.resolve"))
}

func TestSecurityEventsAll(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	started, _ := startLogged(t, client, "bot")
	raiseEvents(t, client, started.Passport.JTI, 7)
	walk := func(params stack.SecurityEventListParams, each func(stack.SecurityEvent) bool) (services []any, failures []error) {
		for e, err := range client.SecurityEvents.All(t.Context(), params) {
			if err != nil {
				failures = append(failures, err)
				continue
			}
			if services = append(services, e.Metadata["service"]); !each(e) {
				break
			}
		}
		return services, failures
	}
	on := func(stack.SecurityEvent) bool { return true }
	all, failures := walk(stack.SecurityEventListParams{Limit: 3}, on)
	assert.Empty(t, failures)
	require.Len(t, all, 7)
	assert.Equal(t, []any{"elsewhere-6", "elsewhere-0"}, []any{all[0], all[6]})
	rest, _ := walk(stack.SecurityEventListParams{Limit: 3, Page: 2}, on)
	assert.Equal(t, all[3:], rest, "from a page on")
	one, _ := walk(stack.SecurityEventListParams{Limit: 3}, func(stack.SecurityEvent) bool { return false })
	assert.Equal(t, all[:1], one, "a loop may be left")

	srv.Fault(stacktest.Fault{Method: http.MethodGet, Path: "/v1/security-events", Status: http.StatusForbidden})
	none, failures := walk(stack.SecurityEventListParams{Limit: 3}, on)
	assert.Empty(t, none)
	require.Len(t, failures, 1)
	assert.ErrorIs(t, failures[0], stack.ErrForbidden)

	resolved, failures := walk(stack.SecurityEventListParams{Limit: 2}, func(e stack.SecurityEvent) bool {
		_, err := client.SecurityEvents.Resolve(t.Context(), e.ID)
		return assert.NoError(t, err)
	})
	assert.Empty(t, failures)
	assert.Equal(t, all, resolved, "resolving on the way passes none over")
	none, _ = walk(stack.SecurityEventListParams{}, on)
	assert.Empty(t, none)
}

// TestSecurityEventsAllYieldsWhatItHasBeforeItsError loses the third page.
func TestSecurityEventsAllYieldsWhatItHasBeforeItsError(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	started, _ := startLogged(t, client, "bot")
	raiseEvents(t, client, started.Passport.JTI, 7)
	lists := 0
	losing := roundTripper(func(req *http.Request) (*http.Response, error) {
		if lists++; lists == 3 {
			srv.Fault(stacktest.Fault{Method: http.MethodGet, Path: "/v1/security-events", Status: http.StatusForbidden})
		}
		return srv.Transport().RoundTrip(req)
	})
	failing := srv.Client(stack.WithHTTPClient(&http.Client{Transport: losing}))
	var seen []string
	var failures []error
	for e, err := range failing.SecurityEvents.All(t.Context(), stack.SecurityEventListParams{Limit: 2}) {
		if err != nil {
			failures = append(failures, err)
			continue
		}
		require.Empty(t, failures, "an error comes last")
		seen = append(seen, e.ID)
	}
	assert.Len(t, slices.Compact(seen), 4)
	require.Len(t, failures, 1)
	assert.ErrorIs(t, failures[0], stack.ErrForbidden)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestSecurityEventsResolveConcurrently(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	started, _ := startLogged(t, client, "bot")
	raiseEvents(t, client, started.Passport.JTI, 1)
	page := listEvents(t, client, stack.SecurityEventListParams{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := client.SecurityEvents.Resolve(t.Context(), page.Events[0].ID)
			assert.NoError(t, err)
			_, err = client.SecurityEvents.Get(t.Context(), page.Events[0].ID)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.Len(t, auditRows(t, client, "security_event.resolve"), 1)
}
