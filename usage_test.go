package stack_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestUsageOfAMonth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		made := time.Now().UTC() // a bubble begins at midnight of 2000-01-01
		client := stacktest.New(t).Client()
		time.Sleep(time.Hour)
		agent := registerLogged(t, client, "bot")
		startMission(t, client, agent)
		startMission(t, client, agent)
		usage, err := client.Usage.Get(t.Context(), stack.UsageParams{})
		require.NoError(t, err)
		head, err := client.Audit.ChainHead(t.Context())
		require.NoError(t, err)
		assert.Equal(t, stack.Usage{
			Tier: stack.TierEnterprise, PeriodStart: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
			PeriodEnd:   time.Date(2000, 2, 1, 0, 0, 0, 0, time.UTC),
			PeriodLabel: "2000-01", AccountSince: made, Passthrough: map[string]any{},
			Consumption: stack.Consumption{
				Activity: stack.Activity{Total: head.EntryCount},
				Actions:  stack.ActionUsage{AllowanceCoverage: 1, AllowanceTier: stack.TierEnterprise},
				Meters: map[string]stack.Meter{"passports": {Used: 2}, "proxy_calls": {}, "scans": {}, "agents": {Used: 1}, "services": {},
					"members": {}, "skills": {}, "dropoffs": {}, "free_skill_invocations": {}},
			},
		}, *usage)

		time.Sleep(31 * 24 * time.Hour)
		usage, err = client.Usage.Get(t.Context(), stack.UsageParams{})
		require.NoError(t, err)
		assert.Equal(t, "2000-02", usage.PeriodLabel)
		assert.Zero(t, usage.Consumption.Meters["passports"].Used, "what flows begins anew with the month")
		assert.Equal(t, 1, usage.Consumption.Meters["agents"].Used, "what is kept does not")
	})
}

func TestUsageOfAWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := stacktest.New(t).Client()
		made := time.Now().UTC()
		agent := registerLogged(t, client, "first")
		startMission(t, client, agent)
		time.Sleep(time.Hour) // the Mission expires meanwhile, with its passport: two rows more
		middle := time.Now().UTC()
		registerLogged(t, client, "second")
		startMission(t, client, agent)
		startMission(t, client, agent)
		later, month := middle.Add(time.Millisecond), time.Date(2000, 2, 1, 0, 0, 0, 0, time.UTC)

		for name, tt := range map[string]struct {
			params                 stack.UsageParams
			start, end             time.Time
			passports, agents, all int
		}{
			"since is inclusive": {stack.UsageParams{Since: middle}, middle, month, 2, 1, 5},
			"until is exclusive": {stack.UsageParams{Until: middle}, made, middle, 1, 1, 5},
			"both":               {stack.UsageParams{Since: made, Until: later}, made, later, 3, 2, 10},
			"an empty window":    {stack.UsageParams{Since: middle, Until: middle}, middle, middle, 0, 0, 0},
			"before the account": {stack.UsageParams{Until: made.Add(-time.Hour)}, made.Add(-time.Hour), made.Add(-time.Hour), 0, 0, 0},
			"after the month":    {stack.UsageParams{Since: month.Add(time.Hour)}, month.Add(time.Hour), month.Add(time.Hour), 0, 0, 0},
		} {
			usage, err := client.Usage.Get(t.Context(), tt.params)
			require.NoError(t, err, name)
			assert.Equal(t, "custom", usage.PeriodLabel, name)
			assert.Equal(t, []time.Time{tt.start, tt.end}, []time.Time{usage.PeriodStart, usage.PeriodEnd}, name)
			assert.Nil(t, usage.Passthrough, name)
			assert.Equal(t, tt.passports, usage.Consumption.Meters["passports"].Used, name)
			assert.Nil(t, usage.Consumption.Meters["passports"].CreatedInWindow, name)
			agents := usage.Consumption.Meters["agents"]
			assert.Equal(t, 2, agents.Used, name)
			require.NotNil(t, agents.CreatedInWindow, name)
			assert.Equal(t, tt.agents, *agents.CreatedInWindow, name)
			assert.Equal(t, tt.all, usage.Consumption.Activity.Total, name)
		}
	})
}

// TestUsageOnTheWire looks at the keys that clients in other languages read, and at both forms of times.
func TestUsageOnTheWire(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	for _, query := range []string{
		"", "?since=946684800000", "?until=2100-01-01T00:00:00Z", "?since=2000-01-01&until=2100-01-01T00:00:00",
	} {
		var usage map[string]any
		require.NoError(t, client.Do(t.Context(), http.MethodGet, "/v1/usage"+query, nil, &usage))
		for _, key := range []string{"tier", "period_start", "period_end", "period_label", "account_since", "consumption",
			"passthrough", "spend_cents", "wallet_cents", "earnings_cents"} {
			assert.Contains(t, usage, key, query)
		}
		assert.Equal(t, query != "", usage["passthrough"] == nil, query)
		consumption, _ := usage["consumption"].(map[string]any)
		assert.Contains(t, consumption["activity"], "total", query)
		for _, key := range []string{"used", "limit", "allowance_coverage", "allowance_tier"} {
			assert.Contains(t, consumption["actions"], key, query)
		}
		for _, key := range []string{"skills", "llm_compute", "identity", "overage", "total"} {
			assert.Contains(t, usage["spend_cents"], key, query)
		}
		assert.Contains(t, usage["wallet_cents"], "balance", query)
		assert.Contains(t, usage["earnings_cents"], "unpaid", query)
		assert.Contains(t, usage["earnings_cents"], "lifetime", query)
	}
}

func TestUsageRefusals(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	now := time.Now()
	_, err := client.Usage.Get(t.Context(), stack.UsageParams{Since: now, Until: now.Add(-time.Second)})
	require.ErrorIs(t, err, stack.ErrInvalidRequest)
	for _, query := range []string{"?since=soon", "?until=9999-12-31T23:59:59-01:00", "?since=9223372036854775807", "?until="} {
		err := client.Do(t.Context(), http.MethodGet, "/v1/usage"+query, nil, nil)
		assert.ErrorIs(t, err, stack.ErrInvalidRequest, query)
	}
}

// TestUsageCountsProxiedCalls tells the calls that were let through from those that were refused: both are counted by the
// plan's meter, only the first are actions.
func TestUsageCountsProxiedCalls(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	agent := registerLogged(t, client, "bot")
	connection, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "slack",
		OAuthToken: stack.NewSecret("xoxb-1"), Scopes: []string{"chat:write"}})
	require.NoError(t, err)
	_, err = client.Services.GrantAgentAccess(t.Context(), stack.GrantParams{AgentID: agent.ID,
		ServiceConnectionID: connection.ID, Scopes: []string{"chat:write"}})
	require.NoError(t, err)
	token := startMission(t, client, agent).Passport.Token
	for range 3 {
		_, err = client.Proxy.Get(t.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/auth.test",
			PassportToken: token})
		require.NoError(t, err)
	}
	_, err = client.Proxy.Get(t.Context(), stack.ProxyRequest{Service: "github", URL: "https://api.github.com/user",
		PassportToken: token})
	require.ErrorIs(t, err, stack.ErrForbidden)

	usage, err := client.Usage.Get(t.Context(), stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, 3, usage.Consumption.Actions.Used)
	assert.Equal(t, stack.Meter{Used: 4}, usage.Consumption.Meters["proxy_calls"])
	assert.Equal(t, stack.Meter{Used: 1}, usage.Consumption.Meters["services"])
	meter, err := client.Proxy.Usage(t.Context())
	require.NoError(t, err)
	assert.Equal(t, stack.MeterUsage{Tier: stack.TierEnterprise, Used: 4, Period: usage.PeriodLabel}, *meter)

	srv.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
	meter, err = client.Proxy.Usage(t.Context())
	require.NoError(t, err)
	limit, left := 5_000, 4_996
	assert.Equal(t, stack.MeterUsage{Tier: stack.TierFree, Limit: &limit, Used: 4, Remaining: &left, Period: usage.PeriodLabel}, *meter)
}

func TestPlansLimitAgents(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	register := func(i int) error {
		_, err := client.Agents.Register(t.Context(), stack.AgentRegisterParams{Name: fmt.Sprintf("bot-%d", i)})
		return err
	}
	for i := range 11 {
		require.NoError(t, register(i), "the first operator's plan has no limits")
	}
	srv.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
	err := register(11)
	var apiErr *stack.Error
	require.ErrorAs(t, err, &apiErr)
	assert.Equal(t, http.StatusForbidden, apiErr.Status)
	assert.Equal(t, "TIER_LIMIT_EXCEEDED", apiErr.Code)
	for key, want := range map[string]any{
		"check": "plan_limit", "resource": "agents", "tier": "free", "limit": 10.0, "used": 11.0,
	} {
		assert.Equal(t, want, apiErr.Details[key], key)
	}
	usage, err := client.Usage.Get(t.Context(), stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, stack.TierFree, usage.Tier)
	assert.Equal(t, 50_000, *usage.Consumption.Meters["passports"].Limit)
	assert.Equal(t, 5_000, *usage.Consumption.Meters["proxy_calls"].Limit)
	assert.Equal(t, 10, *usage.Consumption.Meters["agents"].Limit)
	srv.SetPolicy(stacktest.Policy{Tier: stack.TierDeveloper})
	require.NoError(t, register(11))
}

func TestConsumptionKeepsEveryMeter(t *testing.T) {
	t.Parallel()
	wire := `{"activity":{"total":7},"actions":{"used":3,"limit":null,"allowance_coverage":0.5,"allowance_tier":"studio",
		"pooled":true,"own_used":1,"tenants":2},
		"passports":{"used":2,"limit":10},
		"invented":{"used":1,"limit":null,"created_in_window":1},"text":"not a meter","nothing":null}`
	var c stack.Consumption
	require.NoError(t, json.Unmarshal([]byte(wire), &c))
	one, two, ten := 1, 2, 10
	want := stack.Consumption{Activity: stack.Activity{Total: 7},
		Actions: stack.ActionUsage{Used: 3, AllowanceCoverage: 0.5, AllowanceTier: stack.TierStudio,
			Pooled: true, OwnUsed: &one, Tenants: &two},
		Meters: map[string]stack.Meter{"passports": {Used: 2, Limit: &ten}, "invented": {Used: 1, CreatedInWindow: &one}}}
	assert.Equal(t, want, c)
	again, err := json.Marshal(c)
	require.NoError(t, err)
	var back stack.Consumption
	require.NoError(t, json.Unmarshal(again, &back))
	assert.Equal(t, want, back)
	require.Error(t, json.Unmarshal([]byte(`{"actions":7}`), &c))
}

func FuzzConsumption(f *testing.F) {
	f.Add([]byte(`{"activity":{"total":7},"actions":{"used":3,"limit":null},"passports":{"used":2,"limit":10}}`))
	f.Add([]byte(`{"a":null,"b":[],"c":{"used":"x"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c, back stack.Consumption
		if json.Unmarshal(data, &c) != nil {
			return
		}
		again, err := json.Marshal(c)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(again, &back))
		if c.Meters == nil {
			c.Meters = map[string]stack.Meter{} // null stays null, an object makes a map
		}
		require.Equal(t, c, back)
	})
}
