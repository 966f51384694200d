package stack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// What a provider refuses is the provider's answer, and told apart from what the gateway refuses.
func TestLLMProviderRefuses(t *testing.T) {
	t.Parallel()
	for _, p := range llmProviders {
		t.Run(string(p.name), func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Logged)
			for status, body := range map[int]string{
				400: `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: required"}}`,
				401: `{"error":{"message":"bad key ` + llmKey + `","code":"invalid_api_key"}}`,
				500: `<html>oops</html>`, 529: `{"error":{"message":"overloaded","code":529}}`,
			} {
				s.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					if strings.HasPrefix(body, "<") {
						w.Header().Set("Content-Type", "text/html")
					}
					w.WriteHeader(status)
					_, _ = io.WriteString(w, body)
				}))
				check := func(err error) {
					var apiErr *stack.Error
					require.ErrorAs(t, err, &apiErr)
					assert.Equal(t, status, apiErr.Status)
					assert.Equal(t, fmt.Sprintf("UPSTREAM_%d", status), apiErr.Code)
					assert.NotContains(t, apiErr.Message, llmKey)
					if status == 400 {
						assert.Equal(t, "max_tokens: required", apiErr.Message)
						assert.Equal(t, "error", apiErr.Details["upstream"].(map[string]any)["type"])
					}
					if status == 500 {
						assert.Equal(t, "<html>oops</html>", apiErr.Message)
					}
				}
				_, err := p.call(s.client.LLM, t.Context(), s.params(p.body))
				check(err)
				assert.Equal(t, stack.LLMUpstreamError, s.usage(t)[0].Outcome)
				assert.Equal(t, status, s.usage(t)[0].Status)
				for _, err := range p.stream(s.client.LLM, t.Context(), s.params(p.body)) {
					check(err)
				}
				assert.True(t, s.usage(t)[0].Stream)
			}
			assert.Len(t, s.usage(t), 8)
			assert.Equal(t, stack.OutcomeFailure, s.lastRow(t, "llm.call").Outcome)
		})
	}
}

func TestLLMProviderDoesNotAnswer(t *testing.T) {
	t.Parallel()
	p := llmProviders[0]
	s := newLLMStage(t, stack.Logged)
	s.Fault(stacktest.Fault{Path: "upstream:" + p.host, Close: stacktest.CloseAfter})
	_, err := p.call(s.client.LLM, t.Context(), s.params(p.body))
	requireRefused(t, err, 502, "UPSTREAM_UNREACHABLE")
	rows := s.usage(t)
	require.Len(t, rows, 1)
	assert.Equal(t, stack.LLMNoAnswer, rows[0].Outcome)
	assert.Equal(t, "claude-x", rows[0].Model, "the one that was asked for")
	assert.Nil(t, rows[0].Input)

	s.Fault(stacktest.Fault{Path: "upstream:" + p.host, Close: stacktest.CloseBefore})
	_, err = p.call(s.client.LLM, t.Context(), s.params(p.body))
	requireRefused(t, err, 502, "UPSTREAM_UNREACHABLE")
	assert.Len(t, s.usage(t), 1, "what never left has used nothing")
}

// A call may take longer than a proxied one; one that is silent for too long is given up.
func TestLLMSlowProvider(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		delay time.Duration
		code  string
	}{{9 * time.Minute, ""}, {11 * time.Minute, "UPSTREAM_TIMEOUT"}} {
		t.Run(tc.delay.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := llmProviders[0]
				s := newLLMStage(t, stack.Logged, stack.WithTimeout(time.Hour))
				s.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					select {
					case <-time.After(tc.delay):
						answers("application/json", p.answer)(w, r)
					case <-r.Context().Done():
					}
				}))
				_, err := p.call(s.client.LLM, t.Context(), s.params(p.body))
				if tc.code == "" {
					require.NoError(t, err)
					assert.Equal(t, tc.delay, s.usage(t)[0].Duration)
					return
				}
				requireRefused(t, err, 504, tc.code)
			})
		})
	}
}

func TestLLMOperations(t *testing.T) {
	t.Parallel()
	p := llmProviders[0]
	s := newLLMStage(t, stack.Logged)
	params := s.params(p.body)
	params.OperationID = stack.NewOperationID()
	first, err := p.call(s.client.LLM, t.Context(), params)
	require.NoError(t, err)
	again, err := p.call(s.client.LLM, t.Context(), params)
	require.NoError(t, err)
	assert.Equal(t, first, again)
	assert.Len(t, s.Forwarded(p.host), 1, "the provider is asked once")
	assert.Len(t, s.usage(t), 1)

	other := params
	other.Body = json.RawMessage(`{"model":"other","messages":[]}`)
	_, err = p.call(s.client.LLM, t.Context(), other)
	apiErr := requireRefused(t, err, 409, "OPERATION_ID_REUSED")
	assert.Equal(t, params.OperationID, apiErr.OperationID)

	streamed := params
	streamed.OperationID = stack.NewOperationID()
	for _, err := range p.stream(s.client.LLM, t.Context(), streamed) {
		require.NoError(t, err)
	}
	for _, err := range p.stream(s.client.LLM, t.Context(), streamed) {
		requireRefused(t, err, 409, "OPERATION_NOT_REPLAYABLE")
	}
	assert.Len(t, s.Forwarded(p.host), 2)

	s.Upstream(p.host, answers("text/html", "<p>hm</p>"))
	odd := params
	odd.OperationID = stack.NewOperationID()
	for range 2 {
		_, err = p.call(s.client.LLM, t.Context(), odd)
		var decode *stack.DecodeError
		require.ErrorAs(t, err, &decode)
		assert.Equal(t, "<p>hm</p>", decode.Excerpt, "replayed as it was")
	}
}

// A model call may have cost money: it is not sent again blindly.
func TestLLMRetries(t *testing.T) {
	t.Parallel()
	p := llmProviders[2]
	for name, tc := range map[string]struct {
		fault stacktest.Fault
		calls int
		fails bool
	}{
		"429":            {stacktest.Fault{Status: 429, Code: "RATE_LIMITED"}, 1, false},
		"503":            {stacktest.Fault{Status: 503}, 0, true},
		"a cut answer":   {stacktest.Fault{TruncateBytes: 10}, 1, true},
		"an answer lost": {stacktest.Fault{Close: stacktest.CloseAfter}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLLMStage(t, stack.Logged)
				tc.fault.Path = "/v1/llm/openrouter/chat/completions"
				s.Fault(tc.fault)
				_, err := p.call(s.client.LLM, t.Context(), s.params(p.body))
				assert.Equal(t, tc.fails, err != nil, err)
				assert.Len(t, s.Forwarded(p.host), tc.calls)
				s.Fault(tc.fault)
				failed := false
				for _, err := range p.stream(s.client.LLM, t.Context(), s.params(p.body)) {
					failed = err != nil
				}
				assert.Equal(t, tc.fails, failed)
				assert.Len(t, s.Forwarded(p.host), 2*tc.calls)
			})
		})
	}
}

func TestLLMUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLLMStage(t, stack.Logged)
		began := time.Now()
		for i := range 9 {
			p := llmProviders[i%3]
			_, err := p.call(s.client.LLM, t.Context(), s.params(p.body))
			require.NoError(t, err)
			time.Sleep(time.Minute) // virtual
		}
		all := s.usage(t)
		require.Len(t, all, 9)
		list := func(params stack.LLMUsageListParams) *stack.LLMUsagePage {
			page, err := s.client.LLM.ListUsage(t.Context(), params)
			require.NoError(t, err)
			return page
		}
		first := list(stack.LLMUsageListParams{Limit: 4})
		assert.Equal(t, all[:4], first.Items)
		require.NotNil(t, first.NextCursor)
		_, err := s.client.LLM.OpenAI(t.Context(), s.params(llmProviders[1].body))
		require.NoError(t, err)
		second := list(stack.LLMUsageListParams{Limit: 5, Cursor: *first.NextCursor})
		assert.Equal(t, all[4:9], second.Items, "a call that came meanwhile moves nothing")
		assert.Nil(t, second.NextCursor)
		var walked []stack.LLMUsage
		for row, err := range s.client.LLM.AllUsage(t.Context(), stack.LLMUsageListParams{Limit: 2, Cursor: *first.NextCursor}) {
			require.NoError(t, err)
			walked = append(walked, row)
		}
		assert.Equal(t, all[4:9], walked)
		for _, err := range s.client.LLM.AllUsage(t.Context(), stack.LLMUsageListParams{Limit: 2}) {
			require.NoError(t, err)
			break
		}

		filters := map[string]struct {
			filter stack.LLMUsageFilter
			want   int
		}{
			"provider":         {stack.LLMUsageFilter{Provider: stack.LLMOpenAI}, 4},
			"passport":         {stack.LLMUsageFilter{PassportJTI: s.passport.JTI}, 10},
			"another passport": {stack.LLMUsageFilter{PassportJTI: "pp_other"}, 0},
			"mission":          {stack.LLMUsageFilter{MissionID: all[0].MissionID}, 10},
			"another mission":  {stack.LLMUsageFilter{MissionID: "ms_other"}, 0},
			"agent":            {stack.LLMUsageFilter{AgentID: s.agent.ID}, 10},
			"another agent":    {stack.LLMUsageFilter{AgentID: "agt_other"}, 0},
			"since":            {stack.LLMUsageFilter{Since: began.Add(2 * time.Minute)}, 8},
			"until":            {stack.LLMUsageFilter{Until: began.Add(2 * time.Minute)}, 2},
			"both":             {stack.LLMUsageFilter{Since: began.Add(time.Minute), Until: began.Add(3 * time.Minute)}, 2},
			"all of them": {stack.LLMUsageFilter{Provider: stack.LLMOpenRouter, PassportJTI: s.passport.JTI, MissionID: all[0].MissionID,
				AgentID: s.agent.ID, Since: began, Until: began.Add(time.Hour)}, 3},
		}
		for name, tc := range filters {
			page := list(stack.LLMUsageListParams{LLMUsageFilter: tc.filter})
			assert.Len(t, page.Items, tc.want, name)
			assert.Nil(t, page.NextCursor, name)
			var sum *stack.LLMUsageSummary
			sum, err = s.client.LLM.SummarizeUsage(t.Context(), stack.LLMUsageSummaryParams{LLMUsageFilter: tc.filter})
			require.NoError(t, err)
			assert.Equal(t, tc.want, sum.Totals.Calls, name)
			assert.Equal(t, 11*tc.want, sum.Totals.InputTokens, name)
		}
		for _, bad := range []stack.LLMUsageListParams{{Limit: 101}, {Limit: -1}, {Cursor: "bG9s"}, {Cursor: "!"},
			{Cursor: *first.NextCursor + "00"}, {LLMUsageFilter: stack.LLMUsageFilter{Provider: "slack"}},
			{LLMUsageFilter: stack.LLMUsageFilter{Since: began, Until: began.Add(-time.Hour)}}} {
			_, err = s.client.LLM.ListUsage(t.Context(), bad)
			requireRefused(t, err, 400, "INVALID_REQUEST")
			for _, err = range s.client.LLM.AllUsage(t.Context(), bad) {
				requireRefused(t, err, 400, "INVALID_REQUEST")
			}
		}
		_, err = s.client.LLM.SummarizeUsage(t.Context(), stack.LLMUsageSummaryParams{LLMUsageFilter: stack.LLMUsageFilter{Provider: "x"}})
		requireRefused(t, err, 400, "INVALID_REQUEST")

		byProvider, err := s.client.LLM.SummarizeUsage(t.Context(), stack.LLMUsageSummaryParams{})
		require.NoError(t, err)
		byModel, err := s.client.LLM.SummarizeUsage(t.Context(), stack.LLMUsageSummaryParams{GroupByModel: true})
		require.NoError(t, err)
		three := stack.LLMUsageTotals{Calls: 3, InputTokens: 33, OutputTokens: 21, CacheReadTokens: 9}
		four := stack.LLMUsageTotals{Calls: 4, InputTokens: 44, OutputTokens: 28, CacheReadTokens: 12}
		paid := three
		paid.CostCents = ptr(3.75)
		total := stack.LLMUsageTotals{Calls: 10, InputTokens: 110, OutputTokens: 70, CacheReadTokens: 30, CostCents: ptr(3.75)}
		bucket := func(name stack.LLMProvider, model string, sum stack.LLMUsageTotals) stack.LLMUsageBucket {
			return stack.LLMUsageBucket{Provider: name, Model: model, LLMUsageTotals: sum}
		}
		assert.Equal(t, &stack.LLMUsageSummary{Totals: total, Buckets: []stack.LLMUsageBucket{bucket("anthropic", "", three),
			bucket("openai", "", four), bucket("openrouter", "", paid)}}, byProvider)
		assert.Equal(t, &stack.LLMUsageSummary{Totals: total, Buckets: []stack.LLMUsageBucket{bucket("anthropic", "claude-x", three),
			bucket("openai", "gpt-x", four), bucket("openrouter", "some/model", paid)}}, byModel)
	})
}

// A call through a Mission is in its account, and its review finds nothing to say.
func TestMissionLLM(t *testing.T) {
	t.Parallel()
	for _, p := range llmProviders {
		t.Run(string(p.name), func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Enforced)
			m := s.open(t, func(params *stack.MissionParams) { params.Services = []string{string(p.name)} })
			resp, err := p.call(m.LLM(), t.Context(), stack.LLMParams{Body: json.RawMessage(p.body)})
			require.NoError(t, err)
			assert.Equal(t, "Hello there", resp.Text)
			for _, err := range p.stream(m.LLM(), t.Context(), stack.LLMParams{Body: json.RawMessage(p.body)}) {
				require.NoError(t, err)
			}
			for _, err := range p.stream(m.LLM(), t.Context(), stack.LLMParams{Body: json.RawMessage(p.body)}) {
				require.NoError(t, err)
				break
			}
			s.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }))
			_, err = p.call(m.LLM(), t.Context(), stack.LLMParams{Body: json.RawMessage(p.body)})
			require.Error(t, err)
			require.NoError(t, m.Context().Err(), "the provider's 401 is not the passport's")
			m.Close(&err)
			result := m.Result()
			require.NotNil(t, result)
			assert.Equal(t, stack.ReviewClean, result.ReviewStatus, result.Flags)

			m = s.open(t, func(params *stack.MissionParams) { params.Services = []string{string(p.name)} })
			_, err = s.client.Passports.Revoke(t.Context(), m.JTI(), "rogue")
			require.NoError(t, err)
			_, err = p.call(m.LLM(), t.Context(), stack.LLMParams{Body: json.RawMessage(p.body)})
			require.ErrorIs(t, err, stack.ErrPassportRevoked)
			require.ErrorIs(t, context.Cause(m.Context()), stack.ErrPassportRevoked)
			m.Close(&err)
		})
	}
}
