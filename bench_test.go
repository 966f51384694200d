package stack_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// benchStage is a mock with an agent, a live passport and a Slack.
func benchStage(b *testing.B) (*stack.Client, *stack.StartedMission) {
	b.Helper()
	srv := stacktest.New(b)
	srv.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	}))
	agent := srv.Agent(b, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	client := srv.Client()
	m, err := client.Missions.Start(b.Context(), stack.MissionStartParams{AgentID: agent.ID, Mission: stack.MissionOpenParams{IntentSummary: "bench"},
		Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "bench", Services: []string{"slack"}}}})
	require.NoError(b, err)
	return client, m
}

// One proxied write, from the client through the whole pipeline to the service and back, over the in-memory network.
func BenchmarkProxiedCall(b *testing.B) {
	client, m := benchStage(b)
	b.ReportAllocs()
	for b.Loop() {
		_, err := client.Proxy.Post(b.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/chat.postMessage",
			Body: map[string]string{"channel": "#support", "text": "On it"}, PassportToken: m.Passport.Token})
		require.NoError(b, err)
	}
}

// The same with more to scan for injection, which is what its time goes with.
func BenchmarkProxiedCallBySize(b *testing.B) {
	client, m := benchStage(b)
	for _, size := range []int{1 << 10, 16 << 10, 256 << 10} {
		text := strings.Repeat("Thanks for the quick turnaround on ticket 48213; the rollback is done. ", size/70)
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, err := client.Proxy.Post(b.Context(), stack.ProxyRequest{Service: "slack", URL: "https://slack.com/api/chat.postMessage",
					Body: map[string]string{"channel": "#support", "text": text}, PassportToken: m.Passport.Token})
				require.NoError(b, err)
			}
		})
	}
}

// The poll that a client with open Missions makes.
func BenchmarkListActive(b *testing.B) {
	client, _ := benchStage(b)
	b.ReportAllocs()
	for b.Loop() {
		_, err := client.Passports.ListActive(b.Context(), stack.PassportListParams{})
		require.NoError(b, err)
	}
}

func BenchmarkCheckpointParamsJSON(b *testing.B) {
	p := stack.CheckpointParams{ServicesUsed: []string{"slack"}, ActionsCount: 100}
	for range 100 {
		p.ToolCalls = append(p.ToolCalls, stack.ToolCall{Service: "slack", Method: "POST", Target: "https://slack.com/api/chat.postMessage"})
	}
	b.ReportAllocs()
	for b.Loop() {
		_, err := json.Marshal(p)
		require.NoError(b, err)
	}
}

// A dry run of a proxied write that is not kept.
func BenchmarkSimulateIntent(b *testing.B) {
	client, m := benchStage(b)
	keep := false
	params := stack.IntentSimulateParams{Persist: &keep, PassportToken: m.Passport.Token,
		Intent: stack.IntentOf(stack.ProxyRequest{Service: "slack", Method: "POST", URL: "https://slack.com/api/chat.postMessage",
			Body: map[string]string{"channel": "#support", "text": "On it"}})}
	b.ReportAllocs()
	for b.Loop() {
		sim, err := client.Intents.Simulate(b.Context(), params)
		require.NoError(b, err)
		require.True(b, sim.Allowed)
	}
}

// The same in a fleet whose policy has as many operations as it may; the last one fits.
func BenchmarkFleetProxiedCall(b *testing.B) {
	client, m := benchFleet(b)
	b.ReportAllocs()
	for b.Loop() {
		_, err := client.Proxy.Post(b.Context(), withPassport(post("C63"), &m.Passport))
		require.NoError(b, err)
	}
}

func benchFleet(b *testing.B) (*stack.Client, *stack.StartedMission) {
	b.Helper()
	srv := stacktest.New(b)
	srv.Upstream("slack.com", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	slack := srv.Agent(b, stacktest.AgentConfig{Services: []string{"slack"}}).Connections["slack"]
	d := stack.FleetDefinition{Name: "bench", Members: stack.FleetMembers{AccountabilityMode: stack.Logged},
		Access: []stack.PassportScope{{ServiceConnectionID: slack.ID, Scopes: slack.Scopes}}}
	for i := range 64 {
		d.Operations = append(d.Operations, stack.FleetOperation{Name: fmt.Sprintf("post-%d", i), Service: "slack",
			Methods: []string{"POST"}, Path: "/api/*", Constraints: []stack.Constraint{{Path: "body.channel", Op: stack.OpEq, Value: fmt.Sprintf("C%d", i)}}})
	}
	member := srv.FleetMember(b, srv.Fleet(b, d).ID)
	client := srv.Client()
	m, err := client.Missions.Start(b.Context(), stack.MissionStartParams{AgentID: member.AgentID, Mission: stack.MissionOpenParams{
		IntentSummary: "bench", FleetPolicyID: member.FleetPolicyID, IdempotencyKey: "bench"}})
	require.NoError(b, err)
	return client, m
}
