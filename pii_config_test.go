package stack_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestPIIConfig(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		client := srv.Client()
		get := func() *stack.PIIConfig {
			c, err := client.PIIConfig.Get(t.Context())
			require.NoError(t, err)
			return c
		}
		update := func(params stack.PIIConfigParams) *stack.PIIConfig {
			c, err := client.PIIConfig.Update(t.Context(), params)
			require.NoError(t, err)
			assert.Equal(t, c, get(), "it is in force")
			return c
		}
		// governed makes a change that needs a human, and checks that it does.
		governed := func(change func(approval string) (*stack.PIIConfig, error)) *stack.PIIConfig {
			before := get()
			_, err := change("")
			require.ErrorIs(t, err, stack.ErrGovernanceApprovalRequired)
			apiErr := requireRefused(t, err, 403, "GOVERNANCE_APPROVAL_REQUIRED")
			assert.Equal(t, before, get())
			approval, _ := apiErr.Details["approval_id"].(string)
			_, err = change(approval)
			require.ErrorIs(t, err, stack.ErrGovernanceApprovalRequired, "it is not approved yet")
			require.NoError(t, srv.Approve(approval))
			c, err := change(approval)
			require.NoError(t, err)
			return c
		}
		loosen := func(params stack.PIIConfigParams) *stack.PIIConfig {
			return governed(func(approval string) (*stack.PIIConfig, error) {
				params.GovernanceApprovalID = approval
				return client.PIIConfig.Update(t.Context(), params)
			})
		}
		reset := func() *stack.PIIConfig {
			return governed(func(approval string) (*stack.PIIConfig, error) {
				return client.PIIConfig.Reset(t.Context(), stack.PIIConfigResetParams{GovernanceApprovalID: approval})
			})
		}
		defaults := &stack.PIIConfig{Enabled: true, Threshold: 0.4}
		assert.Equal(t, defaults, get())

		c := update(stack.PIIConfigParams{Threshold: ptr(0.2)})
		assert.Equal(t, &stack.PIIConfig{Configured: true, Enabled: true, Threshold: 0.2, UpdatedAt: c.UpdatedAt}, c)
		assert.Equal(t, time.Now().UTC(), c.UpdatedAt)
		assert.Equal(t, 0.2, update(stack.PIIConfigParams{}).Threshold, "what is not sent stays")
		assert.Equal(t, 0.3, loosen(stack.PIIConfigParams{Threshold: ptr(0.3)}).Threshold)
		assert.Equal(t, 0.4, loosen(stack.PIIConfigParams{Clear: []stack.PIIField{stack.PIIThreshold}}).Threshold, "null clears it")
		assert.Equal(t, []string{"SE", "US"}, loosen(stack.PIIConfigParams{Countries: []string{"SE", "US"}}).Countries)
		assert.Equal(t, []string{}, loosen(stack.PIIConfigParams{Countries: []string{}}).Countries, "no country")
		assert.Nil(t, update(stack.PIIConfigParams{Clear: []stack.PIIField{stack.PIICountries}}).Countries, "all countries is tighter")
		assert.False(t, loosen(stack.PIIConfigParams{Enabled: ptr(false)}).Enabled)
		assert.Equal(t, 1.0, update(stack.PIIConfigParams{Threshold: ptr(1.0)}).Threshold, "nothing is redacted: it loosens nothing")
		assert.True(t, update(stack.PIIConfigParams{Clear: []stack.PIIField{stack.PIIEnabled}}).Enabled)
		assert.Equal(t, defaults, reset())
		assert.Equal(t, defaults, get())
		assert.Equal(t, defaults, reset(), "any reset needs a human")
	})
}

// An approval is for the change that was asked for, and no other.
func TestPIIConfigApproval(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	_, err := client.PIIConfig.Update(t.Context(), stack.PIIConfigParams{Threshold: ptr(0.5)})
	apiErr := requireRefused(t, err, 403, "GOVERNANCE_APPROVAL_REQUIRED")
	approval, _ := apiErr.Details["approval_id"].(string)
	require.NoError(t, srv.Approve(approval))
	_, err = client.PIIConfig.Update(t.Context(), stack.PIIConfigParams{Threshold: ptr(0.9), GovernanceApprovalID: approval})
	requireRefused(t, err, 403, "GOVERNANCE_APPROVAL_REQUIRED")
	_, err = client.PIIConfig.Reset(t.Context(), stack.PIIConfigResetParams{GovernanceApprovalID: approval})
	requireRefused(t, err, 403, "GOVERNANCE_APPROVAL_REQUIRED")
	_, err = client.PIIConfig.Update(t.Context(), stack.PIIConfigParams{Threshold: ptr(0.5), GovernanceApprovalID: approval})
	require.NoError(t, err)
	_, err = client.PIIConfig.Update(t.Context(), stack.PIIConfigParams{Threshold: ptr(0.2)})
	require.NoError(t, err)
	_, err = client.PIIConfig.Update(t.Context(), stack.PIIConfigParams{Threshold: ptr(0.5), GovernanceApprovalID: approval})
	requireRefused(t, err, 403, "GOVERNANCE_APPROVAL_REQUIRED")
}

func TestPIIConfigBadValues(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	for name, tc := range map[string]struct{ body, field string }{
		"threshold above":     {`{"threshold":1.01}`, "body.threshold"},
		"threshold below":     {`{"threshold":-0.1}`, "body.threshold"},
		"threshold no number": {`{"threshold":"0.4"}`, "body.threshold"},
		"threshold too great": {`{"threshold":1e999}`, "body.threshold"},
		"enabled no bool":     {`{"enabled":1}`, "body.enabled"},
		"lower case":          {`{"countries":["se"]}`, "body.countries"},
		"no such country":     {`{"countries":["XX"]}`, "body.countries"},
		"null in the list":    {`{"countries":["SE",null]}`, "body.countries"},
		"countries no list":   {`{"countries":"SE"}`, "body.countries"},
		"unknown field":       {`{"kinds":[]}`, "body.kinds"},
	} {
		err := s.client.Do(t.Context(), "PUT", "/v1/pii/config", json.RawMessage(tc.body), nil)
		apiErr := requireRefused(t, err, 400, "INVALID_REQUEST")
		assert.Equal(t, tc.field, apiErr.Details["field"], name)
	}
	c, err := s.client.PIIConfig.Get(t.Context())
	require.NoError(t, err)
	assert.False(t, c.Configured)
	assert.Equal(t, "configured countries enabled threshold", keys(s.raw(t, "GET", "/v1/pii/config", nil)))

	requests := s.Requests()
	for param, params := range map[string]stack.PIIConfigParams{
		"threshold":    {Threshold: ptr(1.5)},
		"countries[1]": {Countries: []string{"SE", "Sweden"}},
		"Clear":        {Clear: []stack.PIIField{"kinds"}},
		"enabled":      {Enabled: ptr(true), Clear: []stack.PIIField{stack.PIIEnabled}},
	} {
		_, err = s.client.PIIConfig.Update(t.Context(), params)
		requireParam(t, err, param)
	}
	assert.Equal(t, requests, s.Requests())
}

// The configuration is what the gateway redacts by.
func TestPIIConfigAtTheGateway(t *testing.T) {
	t.Parallel()
	s := newLLMStage(t, stack.Logged)
	s.toggle(t, false, true)
	said := func() string {
		const body = `{"model":"m","messages":[{"role":"user","content":"ada@example.com, Swedish personal number 811228-9874"}]}`
		_, err := s.client.LLM.OpenAI(t.Context(), s.params(body))
		require.NoError(t, err)
		sent := s.Forwarded("api.openai.com")
		var request struct{ Messages []struct{ Content string } }
		require.NoError(t, json.Unmarshal(sent[len(sent)-1].Body, &request))
		return request.Messages[0].Content
	}
	set := func(params stack.PIIConfigParams) {
		_, err := s.client.PIIConfig.Update(t.Context(), params)
		apiErr := requireRefused(t, err, 403, "GOVERNANCE_APPROVAL_REQUIRED")
		params.GovernanceApprovalID, _ = apiErr.Details["approval_id"].(string)
		require.NoError(t, s.Approve(params.GovernanceApprovalID))
		_, err = s.client.PIIConfig.Update(t.Context(), params)
		require.NoError(t, err)
	}
	assert.Equal(t, "[EMAIL_1], Swedish personal number [NATIONAL_ID:SE_1]", said())
	set(stack.PIIConfigParams{Countries: []string{"US"}})
	assert.Equal(t, "[EMAIL_1], Swedish personal number 811228-9874", said())
	set(stack.PIIConfigParams{Enabled: ptr(false)})
	assert.Equal(t, "ada@example.com, Swedish personal number 811228-9874", said())
}
