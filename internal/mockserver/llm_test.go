package mockserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/pii"
)

// Another operator's calls to models are not there, and neither is its configuration.
func TestLLMOfAnotherOperator(t *testing.T) {
	t.Parallel()
	s, op, client := newDirect(t)
	op.llmUsage.add(stack.LLMUsage{ID: "llmu_1", Provider: stack.LLMOpenAI, AgentID: "agt_1"})
	op.llmUsage.add(stack.LLMUsage{ID: "llmu_2", Provider: stack.LLMOpenAI, AgentID: "agt_1"})
	page, err := client.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{Limit: 1})
	require.NoError(t, err)
	assert.Equal(t, "llmu_2", page.Items[0].ID)
	_, stranger := newStranger(t, s)
	theirs, err := stranger.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{LLMUsageFilter: stack.LLMUsageFilter{AgentID: "agt_1"}})
	require.NoError(t, err)
	assert.Empty(t, theirs.Items)
	_, err = stranger.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{Cursor: *page.NextCursor})
	require.ErrorIs(t, err, stack.ErrInvalidRequest, "a place that its history does not have")
	sum, err := stranger.LLM.SummarizeUsage(t.Context(), stack.LLMUsageSummaryParams{})
	require.NoError(t, err)
	assert.Equal(t, &stack.LLMUsageSummary{Buckets: []stack.LLMUsageBucket{}}, sum)

	_, started := startLogged(t, client, "theirs")
	_, err = stranger.LLM.OpenAI(t.Context(), stack.LLMParams{Body: json.RawMessage(`{"model":"m"}`),
		Passport: stack.NewStaticToken(started.Passport.Token)})
	require.ErrorIs(t, err, stack.ErrUnauthorized, "another operator's passport is nobody's")

	threshold := 0.1
	_, err = client.PIIConfig.Update(t.Context(), stack.PIIConfigParams{Threshold: &threshold})
	require.NoError(t, err)
	config, err := stranger.PIIConfig.Get(t.Context())
	require.NoError(t, err)
	assert.False(t, config.Configured)
}

// The history is bounded, and cursors into what it forgot end the list.
func TestLLMHistoryIsBounded(t *testing.T) {
	t.Parallel()
	_, op, client := newDirect(t)
	for i := range maxLLMUsage {
		op.llmUsage.add(stack.LLMUsage{ID: fmt.Sprint(i), CreatedAt: time.Unix(int64(i), 0)})
	}
	cursor := ""
	for page := range 99 {
		p, err := client.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{Limit: 100, Cursor: cursor})
		require.NoError(t, err)
		require.Len(t, p.Items, 100)
		require.Equal(t, fmt.Sprint(maxLLMUsage-1-100*page), p.Items[0].ID)
		require.NotNil(t, p.NextCursor)
		cursor = *p.NextCursor
	}
	op.llmUsage.add(stack.LLMUsage{ID: "new"})
	assert.Len(t, op.llmUsage.rows, maxLLMUsage*9/10+1)
	p, err := client.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{Limit: 100, Cursor: cursor})
	require.NoError(t, err)
	assert.Empty(t, p.Items, "they are forgotten")
	assert.Nil(t, p.NextCursor)
	p, err = client.LLM.ListUsage(t.Context(), stack.LLMUsageListParams{Limit: 1})
	require.NoError(t, err)
	assert.Equal(t, "new", p.Items[0].ID)
}

func TestLLMTally(t *testing.T) {
	t.Parallel()
	n := func(i int) *int { return &i }
	for name, tc := range map[string]struct {
		provider stack.LLMProvider
		stream   string
		want     stack.LLMTokens
		complete bool
	}{
		"usage grows": {stack.LLMAnthropic, "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n" +
			"data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\ndata: {\"type\":\"message_stop\"}\n\n",
			stack.LLMTokens{Input: n(5), Output: n(9)}, true},
		"cache":           {stack.LLMAnthropic, usageLine(`{"cache_creation_input_tokens":2,"cache_read_input_tokens":0}`), stack.LLMTokens{CacheWrite: n(2), CacheRead: n(0)}, false},
		"none":            {stack.LLMOpenAI, "data: {\"choices\":[]}\n\ndata: [DONE]\n\n", stack.LLMTokens{}, true},
		"usage is null":   {stack.LLMOpenAI, usageLine(`null`), stack.LLMTokens{}, false},
		"counts of sense": {stack.LLMOpenAI, usageLine(`{"prompt_tokens":-1,"completion_tokens":1.5}`) + usageLine(`{"prompt_tokens":1e3,"completion_tokens":"7"}`), stack.LLMTokens{}, false},
		"too great":       {stack.LLMOpenAI, usageLine(`{"prompt_tokens":99999999999999999999}`), stack.LLMTokens{}, false},
		"the last word":   {stack.LLMOpenAI, usageLine(`{"prompt_tokens":1}`) + usageLine(`{"prompt_tokens":2}`), stack.LLMTokens{Input: n(2)}, false},
		"half an end":     {stack.LLMAnthropic, "event: message_stop\ndata: {\"type\":\"mes", stack.LLMTokens{}, false},
		"no blank line":   {stack.LLMOpenAI, "data: [DONE]", stack.LLMTokens{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tally := tallied(tc.provider, []byte(tc.stream))
			assert.Equal(t, tc.want, tally.tokens)
			assert.Equal(t, tc.complete, tally.complete)
		})
	}
}

func usageLine(usage string) string { return `data: {"usage":` + usage + "}\n\n" }

func tallied(provider stack.LLMProvider, stream []byte) *llmTally {
	tally := &llmTally{provider: provider}
	for line := range bytes.Lines(stream) {
		tally.line(line)
	}
	tally.end()
	return tally
}

// What is heard of a model is bounded.
func TestLLMTallyIsBounded(t *testing.T) {
	t.Parallel()
	tally := &llmTally{}
	for i := range 100 {
		tally.hear(i, strings.Repeat("x", 1<<15))
	}
	tally.hear(-1, "x")
	assert.Len(t, tally.texts, 1<<20>>15)
	for range 100 {
		tally.hear(0, strings.Repeat("x", 1<<15))
	}
	assert.LessOrEqual(t, tally.kept, 1<<20)
}

func FuzzLLMTally(f *testing.F) {
	for _, seed := range []string{"event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":1}}}\n\n",
		"data: {\"choices\":[{\"index\":3,\"delta\":{\"content\":\"x\"}}],\"usage\":{\"cost\":0.1}}\n\ndata: [DONE]\n\n", "data: {\"error\":{}}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, provider := range []stack.LLMProvider{stack.LLMAnthropic, stack.LLMOpenAI} {
			tally := tallied(provider, stream)
			for _, count := range []*int{tally.tokens.Input, tally.tokens.Output, tally.tokens.CacheRead, tally.tokens.CacheWrite} {
				require.True(t, count == nil || *count >= 0)
			}
			require.True(t, tally.cost == nil || *tally.cost >= 0)
			require.LessOrEqual(t, tally.kept, len(stream)*3)
			whole := &llmTally{provider: provider}
			whole.document(stream)
		}
	})
}

// Whatever a request looks like, shaping it changes system and user texts and nothing else.
func FuzzLLMShape(f *testing.F) {
	f.Add([]byte(`{"model":"m","n":1.0,"system":[{"type":"text","text":"a"}],"messages":[{"role":"user","content":"a@example.com"}]}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"type":"text","text":"a@example.com"},null,3]},{"role":"tool"}],"x":{"y":[1e999]}}`))
	f.Add([]byte(`{"system":null,"messages":{}}`))
	redactor, err := pii.New(pii.DefaultConfig())
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		var before map[string]json.RawMessage
		if json.Unmarshal(body, &before) != nil || before == nil {
			t.Skip()
		}
		for _, api := range []llmAPI{anthropicAPI, openAIAPI} {
			require.Equal(t, body, []byte(api.shape(body, false, nil)), "neither toggle changes a byte")
			out := api.shape(body, true, redactor)
			var after map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(out, &after))
			for name, value := range before {
				if name == "system" || name == "messages" {
					continue
				}
				require.Equal(t, compact(t, value), compact(t, after[name]))
			}
			if api.provider == stack.LLMAnthropic {
				var messages, was []json.RawMessage
				if json.Unmarshal(before["messages"], &was) == nil {
					require.NoError(t, json.Unmarshal(after["messages"], &messages))
					require.Len(t, messages, len(was))
				}
			}
		}
	})
}

func compact(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, json.Compact(&b, raw))
	return b.String()
}
