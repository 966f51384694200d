package detect_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

const chatURL = "https://slack.com/api/chat.postMessage"

func count(n int) *int { return &n }

func reported(n int) []detect.ToolCall {
	return slices.Repeat([]detect.ToolCall{{Service: "slack", Method: "POST", Target: chatURL}}, n)
}

func observed(n int) []detect.ObservedCall {
	return slices.Repeat([]detect.ObservedCall{{Service: "slack", Method: "POST", URL: chatURL}}, n)
}

// honest is a checkout with nothing to find.
func honest() detect.Checkout {
	return detect.Checkout{
		Mode: stack.Enforced, IntentServices: []string{"slack"}, Started: epoch, Ended: epoch.Add(time.Minute),
		ServicesUsed: []string{"slack"}, ActionsCount: count(2), ToolCalls: reported(2), Observed: observed(2),
	}
}

func TestReview(t *testing.T) {
	t.Parallel()
	hour := func(c *detect.Checkout, elapsed time.Duration) { c.Ended = c.Started.Add(elapsed) }
	call := func(service, method, target string) detect.ToolCall {
		return detect.ToolCall{Service: service, Method: method, Target: target}
	}
	tests := map[string]struct {
		change func(*detect.Checkout)
		want   string // "signal:detail" of each finding, with spaces between
		status stack.ReviewStatus
	}{
		"honest":           {func(*detect.Checkout) {}, "", "clean"},
		"honest in logged": {func(c *detect.Checkout) { c.Mode = stack.Logged }, "", "clean"},
		"standard is not reviewed": {func(c *detect.Checkout) {
			*c = detect.Checkout{Mode: stack.Standard, ServicesUsed: []string{"stripe"}, DelegatedTo: []string{"agt_1"}}
		}, "", "clean"},

		// undeclared_service
		"undeclared in services_used": {func(c *detect.Checkout) { c.ServicesUsed = []string{"slack", "stripe", "stripe"} },
			"undeclared_service:stripe", "blocked"},
		"undeclared in tool_calls": {func(c *detect.Checkout) {
			c.ToolCalls, c.ActionsCount = append(c.ToolCalls, call("stripe", "charge", "")), count(3)
		}, "undeclared_service:stripe", "blocked"},
		"undeclared in a checkpoint": {func(c *detect.Checkout) {
			c.Checkpointed, c.ActionsCount = []detect.ToolCall{call("stripe", "charge", "")}, count(3)
		}, "undeclared_service:stripe", "blocked"},
		"undeclared and observed": {func(c *detect.Checkout) {
			c.Observed = append(c.Observed, detect.ObservedCall{Service: "stripe", Method: "GET", URL: "https://api.stripe.com"})
		}, "undeclared_service:stripe unreported_action:stripe", "blocked"},
		"one finding for each service": {func(c *detect.Checkout) { c.ServicesUsed = []string{"b", "a", "slack", "a"} },
			"undeclared_service:a undeclared_service:b", "blocked"},
		"nothing declared": {func(c *detect.Checkout) { c.IntentServices = nil }, "undeclared_service:slack", "blocked"},

		// unreported_action and phantom_action
		"one not reported": {func(c *detect.Checkout) { c.Observed = observed(3) }, "unreported_action:slack", "flagged"},
		"none reported": {func(c *detect.Checkout) { c.ToolCalls, c.ServicesUsed, c.ActionsCount = nil, nil, nil },
			"unreported_action:slack", "flagged"},
		"one never made": {func(c *detect.Checkout) { c.Observed = observed(1) }, "phantom_action:slack", "flagged"},
		"another method": {func(c *detect.Checkout) { c.Observed[1].Method = "GET" },
			"unreported_action:slack phantom_action:slack", "flagged"},
		"another path": {func(c *detect.Checkout) { c.Observed[1].URL = "https://slack.com/api/other" },
			"unreported_action:slack phantom_action:slack", "flagged"},
		"another host": {func(c *detect.Checkout) { c.Observed[1].URL = "https://evil.example/api/chat.postMessage" },
			"unreported_action:slack phantom_action:slack", "flagged"},
		"same target, other spelling": {func(c *detect.Checkout) {
			c.ToolCalls[0] = call("slack", " post ", "HTTPS://u:p@SLACK.com:443/api/chat.postMessage?token=x#y")
		}, "", "clean"},
		"root with and without slash": {func(c *detect.Checkout) {
			c.ToolCalls[0].Target, c.Observed[0].URL = "http://slack.com:80", "http://slack.com/"
		}, "", "clean"},
		"reported without a target": {func(c *detect.Checkout) { c.ToolCalls[0].Target = "" }, "", "clean"},
		"a target that is no URL":   {func(c *detect.Checkout) { c.ToolCalls[0].Target = "#general" }, "", "clean"},
		"a target of another scheme": {func(c *detect.Checkout) { c.ToolCalls[0].Target = "slack://chat/1" },
			"", "clean"},
		"without a target, once only": {func(c *detect.Checkout) {
			c.ToolCalls, c.ActionsCount = []detect.ToolCall{call("slack", "POST", "")}, count(1)
		}, "unreported_action:slack", "flagged"},
		"phantom on a connected service": {func(c *detect.Checkout) {
			c.IntentServices = append(c.IntentServices, "notion")
			c.ToolCalls, c.ActionsCount = append(c.ToolCalls, call("notion", "GET", "")), count(3)
			c.Connected = func(s string) bool { return s == "notion" }
		}, "phantom_action:notion", "flagged"},
		"a service of the agent's own is not proxied": {func(c *detect.Checkout) {
			c.IntentServices = append(c.IntentServices, "calculator")
			c.ToolCalls, c.ActionsCount = append(c.ToolCalls, call("calculator", "GET", "")), count(3)
			c.Connected = func(s string) bool { return s == "notion" }
		}, "", "clean"},
		"a method that is not HTTP's is no proxied call": {func(c *detect.Checkout) {
			c.ToolCalls, c.ActionsCount = append(c.ToolCalls, call("slack", "summarise", "")), count(3)
		}, "", "clean"},
		"summary that covers all": {func(c *detect.Checkout) { c.ToolCalls = nil }, "", "clean"},
		"summary that says more":  {func(c *detect.Checkout) { c.ToolCalls, c.ActionsCount = nil, count(9) }, "", "clean"},
		"summary that says less": {func(c *detect.Checkout) { c.ToolCalls, c.ActionsCount = nil, count(1) },
			"unreported_action:slack", "flagged"},
		"summary with a negative number": {func(c *detect.Checkout) { c.ToolCalls, c.ActionsCount = nil, count(-3) },
			"unreported_action:slack", "flagged"},
		"summary that does not name the service": {func(c *detect.Checkout) { c.ToolCalls, c.ServicesUsed = nil, nil },
			"unreported_action:slack", "flagged"},

		// action_count_mismatch
		"counts more than it lists": {func(c *detect.Checkout) { c.ActionsCount = count(3) },
			"action_count_mismatch:3_of_2", "clean"},
		"counts less than it lists": {func(c *detect.Checkout) { c.ActionsCount = count(1) },
			"action_count_mismatch:1_of_2", "clean"},
		"counts nothing but lists": {func(c *detect.Checkout) { c.ActionsCount = count(0) },
			"action_count_mismatch:0_of_2", "clean"},
		"gives no count": {func(c *detect.Checkout) { c.ActionsCount = nil }, "", "clean"},

		// Checkpoints and checkout together.
		"all calls again": {func(c *detect.Checkout) { c.Checkpointed = reported(1) }, "", "clean"},
		"only the later calls, with the total": {func(c *detect.Checkout) {
			c.Checkpointed, c.ToolCalls = reported(1), reported(1)
		}, "", "clean"},
		"only the later calls, with their own count": {func(c *detect.Checkout) {
			c.Checkpointed = []detect.ToolCall{call("slack", "GET", "")}
			c.ToolCalls, c.ActionsCount = reported(2), count(2)
			c.Observed = append(c.Observed, detect.ObservedCall{Service: "slack", Method: "GET"})
		}, "", "clean"},
		"a count that does not fit the lists": {func(c *detect.Checkout) {
			c.Checkpointed, c.ActionsCount = reported(1), count(4)
		}, "action_count_mismatch:4_of_2", "clean"},
		"checkpointed and left out at the end": {func(c *detect.Checkout) {
			c.Checkpointed, c.ToolCalls = reported(2), nil
		}, "", "clean"},

		// undeclared_delegation
		"delegated": {func(c *detect.Checkout) { c.DelegatedTo = []string{"agt_1", "agt_2", "agt_1"} },
			"undeclared_delegation:2_agents", "flagged"},
		"delegation observed": {func(c *detect.Checkout) { c.ObservedDelegations = []string{"agt_1"} },
			"undeclared_delegation:1_agents", "flagged"},
		"delegation announced": {func(c *detect.Checkout) { c.DelegatedTo, c.WillDelegate = []string{"agt_1"}, true },
			"", "clean"},

		// duration_overrun
		"twice the estimate": {func(c *detect.Checkout) { c.Estimate = 30 * time.Second }, "", "clean"},
		"over twice the estimate": {func(c *detect.Checkout) { c.Estimate = 29 * time.Second },
			"duration_overrun:1m0s", "flagged"},
		"any time, no estimate":    {func(c *detect.Checkout) { hour(c, 24*time.Hour) }, "", "clean"},
		"ended before it started?": {func(c *detect.Checkout) { c.Estimate = 1; hour(c, -time.Hour) }, "", "clean"},

		// missed_checkpoints
		"before the first interval": {func(c *detect.Checkout) {
			c.Mode, c.CheckpointInterval = stack.Logged, time.Minute+1
		}, "", "clean"},
		"after one interval": {func(c *detect.Checkout) { c.Mode, c.CheckpointInterval = stack.Logged, time.Minute },
			"missed_checkpoints:0_of_1", "flagged"},
		"one for each interval": {func(c *detect.Checkout) {
			c.Mode, c.CheckpointInterval, c.Checkpoints = stack.Logged, time.Minute, 1
		}, "", "clean"},
		"two of three": {func(c *detect.Checkout) {
			c.Mode, c.CheckpointInterval, c.Checkpoints = stack.Logged, 20*time.Second, 2
		}, "missed_checkpoints:2_of_3", "flagged"},
		"enforced has checkpoint_silence": {func(c *detect.Checkout) { c.CheckpointInterval = time.Second }, "", "clean"},

		// high_failure_rate
		"3 of 5 failed": {func(c *detect.Checkout) { failed(c, 3, 5) }, "high_failure_rate:3_of_5", "clean"},
		"3 of 6 failed": {func(c *detect.Checkout) { failed(c, 3, 6) }, "", "clean"},
		"4 of 4 failed": {func(c *detect.Checkout) { failed(c, 4, 4) }, "", "clean"},
		"2 of 5 failed": {func(c *detect.Checkout) { failed(c, 2, 5) }, "", "clean"},

		// volume_anomaly
		"usual volume": {func(c *detect.Checkout) { c.Baseline = baseline(1, 1, 1, 1, 1) }, "", "clean"},
		"unusual volume": {func(c *detect.Checkout) { failed(c, 0, 5); c.Baseline = baseline(1, 1, 1, 1, 1) },
			"volume_anomaly:5_actions", "flagged"},
		"unusual volume by a summary": {func(c *detect.Checkout) {
			c.ToolCalls, c.ActionsCount, c.Baseline = nil, count(5), baseline(1, 1, 1, 1, 1)
		}, "volume_anomaly:5_actions", "flagged"},
		"four earlier checkouts": {func(c *detect.Checkout) { failed(c, 0, 50); c.Baseline = baseline(1, 1, 1, 1) },
			"", "clean"},

		// idle_mission
		"idle": {func(c *detect.Checkout) {
			c.ServicesUsed, c.ToolCalls, c.Observed, c.ActionsCount = nil, nil, nil, count(0)
		}, "idle_mission:no_actions", "clean"},
		"idle, no count": {func(c *detect.Checkout) {
			c.ServicesUsed, c.ToolCalls, c.Observed, c.ActionsCount = nil, nil, nil, nil
		}, "idle_mission:no_actions", "clean"},
		"observed only is not idle": {func(c *detect.Checkout) {
			c.ServicesUsed, c.ToolCalls, c.ActionsCount = nil, nil, count(0)
		}, "unreported_action:slack", "flagged"},
		"reported only is not idle": {func(c *detect.Checkout) {
			c.ToolCalls, c.Observed, c.ActionsCount = nil, nil, count(1)
		}, "", "clean"},

		"critical outweighs warnings": {func(c *detect.Checkout) {
			c.ServicesUsed, c.DelegatedTo, c.ActionsCount = []string{"stripe"}, []string{"agt_1"}, count(7)
		}, "undeclared_service:stripe action_count_mismatch:7_of_2 undeclared_delegation:1_agents", "blocked"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := honest()
			tt.change(&c)
			findings := detect.Review(c)
			status := detect.Status(findings)
			var got []string
			for _, f := range findings {
				got = append(got, string(f.Signal)+":"+f.Detail)
				assert.Contains(t, detect.PostHoc(), f.Signal)
				assert.Equal(t, f.Signal.Severity(c.Mode), f.Severity)
				assert.True(t, strings.HasSuffix(f.Message, "."))
				assert.NotContains(t, f.Message, "%!")
				_, err := json.Marshal(f.Metadata)
				require.NoError(t, err)
			}
			assert.Equal(t, tt.want, strings.Join(got, " "))
			assert.Equal(t, tt.status, status)
		})
	}
}

// failed makes all of total calls honestly reported and the first n of them failed.
func failed(c *detect.Checkout, n, total int) {
	c.ToolCalls, c.Observed, c.ActionsCount = reported(total), observed(total), count(total)
	for i := range n {
		c.Observed[i].Failed = true
	}
}

func TestReviewFindingsAreGroupedAndBounded(t *testing.T) {
	t.Parallel()
	c := honest()
	c.ToolCalls, c.ActionsCount = nil, count(0)
	c.Observed = slices.Concat(observed(500), []detect.ObservedCall{{Service: "slack", Method: "get"}})
	findings := detect.Review(c)
	require.Len(t, findings, 2, "one for each service and method")
	assert.Equal(t, map[string]any{"service": "slack", "method": "GET", "count": 1}, findings[0].Metadata)
	assert.Equal(t, map[string]any{"service": "slack", "method": "POST", "count": 500}, findings[1].Metadata)

	c.ActionsCount = count(-3)
	negative := detect.Review(c)
	assert.Equal(t, findings, negative, "a negative number covers nothing")

	c = honest()
	for i := range 1000 {
		c.ServicesUsed = append(c.ServicesUsed, fmt.Sprintf("%04d", i)+strings.Repeat("x", 10_000))
		c.DelegatedTo = append(c.DelegatedTo, fmt.Sprint(i)+strings.Repeat("y", 10_000))
	}
	findings = detect.Review(c)
	status := detect.Status(findings)
	require.Len(t, findings, 22, "20 services, one for the rest, one delegation")
	assert.Equal(t, map[string]any{"more": 980}, findings[20].Metadata)
	assert.Equal(t, stack.ReviewBlocked, status)
	text, err := json.Marshal(findings)
	require.NoError(t, err)
	assert.Less(t, len(text), 20_000)
}

func TestReviewDoesNotChangeWhatItIsGiven(t *testing.T) {
	t.Parallel()
	c := honest()
	c.ToolCalls = append(make([]detect.ToolCall, 0, 10), c.ToolCalls...)
	c.Checkpointed = append(make([]detect.ToolCall, 0, 10), reported(1)...)
	c.ToolCalls[0].Method = "post"
	c.DelegatedTo = []string{"b", "a"}
	detect.Review(c)
	assert.Equal(t, "post", c.ToolCalls[0].Method)
	assert.Equal(t, detect.ToolCall{}, c.Checkpointed[:2][1])
	assert.Equal(t, []string{"b", "a"}, c.DelegatedTo)
}

func TestActions(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		checkout detect.Checkout
		want     int
	}{
		"nothing":              {detect.Checkout{}, 0},
		"reported":             {detect.Checkout{ToolCalls: reported(3), Observed: observed(2)}, 3},
		"observed":             {detect.Checkout{ToolCalls: reported(1), Observed: observed(2)}, 2},
		"a summary":            {detect.Checkout{ActionsCount: count(7), Observed: observed(2)}, 7},
		"a boast beside calls": {detect.Checkout{ActionsCount: count(1_000_000), ToolCalls: reported(3)}, 3},
		"a negative number":    {detect.Checkout{ActionsCount: count(-7)}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, tt.checkout.Actions())
		})
	}
}

// TestReviewOfLongRun is a run whose agent has dropped all but the last 10,000 of its checkpointed calls, which all look
// the same or alternate: the lists alone do not say how much they overlap.
func TestReviewOfLongRun(t *testing.T) {
	t.Parallel()
	for _, kinds := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(kinds, " kinds of call"), func(t *testing.T) {
			t.Parallel()
			const checkpointed, fresh, kept = 25_000, 13, 10_000
			c := honest()
			var calls []detect.ToolCall
			c.Observed = nil
			for i := range checkpointed + fresh {
				target := fmt.Sprint("https://slack.com/api/", i%kinds)
				calls = append(calls, detect.ToolCall{Service: "slack", Method: "POST", Target: target})
				c.Observed = append(c.Observed, detect.ObservedCall{Service: "slack", Method: "POST", URL: target})
			}
			c.Checkpointed, c.ToolCalls = calls[:checkpointed], calls[checkpointed-kept:]
			c.ActionsCount = count(len(calls))
			findings := detect.Review(c)
			status := detect.Status(findings)
			assert.Empty(t, findings)
			assert.Equal(t, stack.ReviewClean, status)

			c.Observed = append(c.Observed, c.Observed[0])
			findings = detect.Review(c)
			require.Len(t, findings, 1)
			assert.Equal(t, detect.UnreportedAction, findings[0].Signal)
			assert.Equal(t, 1, findings[0].Metadata["count"])
		})
	}
}

func BenchmarkReview(b *testing.B) {
	c := honest()
	c.ToolCalls, c.Observed, c.ActionsCount = reported(1000), observed(1000), count(1000)
	b.ReportAllocs()
	for b.Loop() {
		detect.Review(c)
	}
}
