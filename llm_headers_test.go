package stack_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// What the caller's own headers hold goes to the provider only where it is the provider's.
func TestLLMHeaders(t *testing.T) {
	t.Parallel()
	for _, p := range llmProviders {
		t.Run(string(p.name), func(t *testing.T) {
			t.Parallel()
			s := newLLMStage(t, stack.Logged)
			s.Upstream(p.host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, name := range []string{"Request-Id", "Retry-After", "X-Ratelimit-Remaining-Requests", "Anthropic-Ratelimit-Reset"} {
					w.Header().Set(name, "7")
				}
				w.Header().Set("Openai-Processing-Ms", "took "+llmKey)
				w.Header().Set("Set-Cookie", "a=b")
				w.Header().Set("X-Request-Id", "the provider's")
				answers("application/json", `{"id":"1","echo":"`+llmKey+`"}`)(w, r)
			}))
			route := "/v1/llm/" + string(p.name) + "/chat/completions"
			if p.name == stack.LLMAnthropic {
				route = "/v1/llm/anthropic/messages"
			}
			req, err := http.NewRequestWithContext(t.Context(), "POST", s.client.BaseURL()+route, strings.NewReader(p.body))
			require.NoError(t, err)
			for name, value := range map[string]string{"Authorization": "Bearer " + s.APIKey(), "Content-Type": "application/json",
				"X-Passport-Token": s.passport.Token.Reveal(), "X-Api-Key": "sk-own", "OpenAI-Organization": "own", "Cookie": "own=1",
				"Anthropic-Version": "2024-01-01", "Anthropic-Beta": "a,b", "HTTP-Referer": "https://app.example", "X-Title": "App"} {
				req.Header.Set(name, value)
			}
			resp, err := s.Transport().RoundTrip(req)
			require.NoError(t, err)
			defer func() { require.NoError(t, resp.Body.Close()) }()
			data, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.JSONEq(t, `{"id":"1","echo":"[REDACTED]"}`, string(data))
			for name, want := range map[string]string{"Request-Id": "7", "Retry-After": "7", "X-Ratelimit-Remaining-Requests": "7",
				"Anthropic-Ratelimit-Reset": "7", "Openai-Processing-Ms": "took [REDACTED]", "Set-Cookie": "",
				"X-Stack-Upstream-Status": "200"} {
				assert.Equal(t, want, resp.Header.Get(name), name)
			}
			assert.True(t, strings.HasPrefix(resp.Header.Get("X-Request-Id"), "req_"))

			got := s.Forwarded(p.host)[0].Header
			has := map[string]string{}
			for _, name := range []string{"Anthropic-Version", "Anthropic-Beta", "Http-Referer", "X-Title", "Openai-Organization", "Cookie",
				"X-Passport-Token"} {
				if v := got.Get(name); v != "" {
					has[name] = v
				}
			}
			want := map[stack.LLMProvider]map[string]string{
				stack.LLMAnthropic:  {"Anthropic-Version": "2024-01-01", "Anthropic-Beta": "a,b"},
				stack.LLMOpenAI:     {},
				stack.LLMOpenRouter: {"Http-Referer": "https://app.example", "X-Title": "App"},
			}
			assert.Equal(t, want[p.name], has)
			assert.NotContains(t, fmt.Sprint(got), "sk-own")
		})
	}
}

// Headers of the provider's API that it may know are passed on, and no other.
func TestLLMHeadersOfTheProvider(t *testing.T) {
	t.Parallel()
	s := newLLMStage(t, stack.Logged)
	params := s.params(llmProviders[0].body)
	params.Headers = map[string]string{"anthropic-beta": "a,b", "Anthropic-Version": "2024-01-01"}
	_, err := s.client.LLM.Anthropic(t.Context(), params)
	require.NoError(t, err)
	_, _, err = heard(s.client.LLM.AnthropicStream(t.Context(), params))
	require.NoError(t, err)
	for _, sent := range s.Forwarded("api.anthropic.com") {
		assert.Equal(t, []string{"a,b", "2024-01-01"}, []string{sent.Header.Get("Anthropic-Beta"), sent.Header.Get("Anthropic-Version")})
	}
	params = s.params(llmProviders[2].body)
	params.Headers = map[string]string{"HTTP-Referer": "https://app.example", "X-Title": "App"}
	_, err = s.client.LLM.OpenRouter(t.Context(), params)
	require.NoError(t, err)
	sent := s.Forwarded("openrouter.ai")[0]
	assert.Equal(t, []string{"https://app.example", "App"}, []string{sent.Header.Get("HTTP-Referer"), sent.Header.Get("X-Title")})

	requests := s.Requests()
	for _, name := range []string{"Authorization", "x-api-key", "X-Passport-Token", "", "anthropic-beta "} {
		params.Headers = map[string]string{name: "x"}
		_, err = s.client.LLM.OpenRouter(t.Context(), params)
		requireParam(t, err, "headers")
		_, _, err = heard(s.client.LLM.OpenRouterStream(t.Context(), params))
		requireParam(t, err, "headers")
	}
	assert.Equal(t, requests, s.Requests())
}
