package stack_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func answerTo(t testing.TB, status int, body string) error {
	t.Helper()
	s := &scripted{steps: []step{answer(status, body, "X-Request-Id", "req_1")}}
	c, err := stack.New(stack.WithBaseURL("https://api.example"), stack.WithAPIKey("k"), stack.WithMaxRetries(0), stack.WithHTTPClient(&http.Client{Transport: s}))
	require.NoError(t, err)
	_, err = c.Passports.Issue(t.Context(), stack.PassportIssueParams{AgentID: "agt_1", MissionIDs: []string{"ms_1"}})
	return err
}

// Both shapes of error bodies, and what is neither.
func TestErrorBodies(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body, message, code string
		details             map[string]any
	}{
		"full":                  {`{"error":{"code":"C","message":"m","details":{"a":1}}}`, "m", "C", map[string]any{"a": 1.0}},
		"no code":               {`{"error":{"message":"m"}}`, "m", "UNKNOWN", map[string]any{}},
		"no message":            {`{"error":{"code":"C"}}`, "API error: 418", "C", map[string]any{}},
		"empty message":         {`{"error":{"code":"C","message":""}}`, "API error: 418", "C", map[string]any{}},
		"message is no string":  {`{"error":{"code":"C","message":7}}`, "API error: 418", "C", map[string]any{}},
		"code is no string":     {`{"error":{"code":7,"message":"m"}}`, "m", "UNKNOWN", map[string]any{}},
		"details are no object": {`{"error":{"code":"C","message":"m","details":[1]}}`, "m", "C", map[string]any{}},
		"RFC 6749":              {`{"error":"invalid_grant","error_description":"d","extra":1}`, "d", "INVALID_GRANT", map[string]any{"extra": 1.0}},
		"RFC 6749 with message": {`{"error":"invalid_grant","message":"m"}`, "m", "INVALID_GRANT", map[string]any{}},
		"RFC 6749 alone":        {`{"error":"invalid_grant"}`, "invalid_grant", "INVALID_GRANT", map[string]any{}},
		"null":                  {`{"error":null}`, "API error: 418", "UNKNOWN", map[string]any{}},
		"absent":                {`{"x":1}`, "API error: 418", "UNKNOWN", map[string]any{}},
		"no object":             {`[1,2]`, "API error: 418", "UNKNOWN", map[string]any{}},
		"not JSON":              {"<html>\n  <b>Bad\tgateway</b>", "<html> <b>Bad gateway</b>", "UNKNOWN", map[string]any{}},
		"white space":           {" \n", "API error: 418", "UNKNOWN", map[string]any{}},
		"empty":                 {"", "API error: 418", "UNKNOWN", map[string]any{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var e *stack.Error
			require.ErrorAs(t, answerTo(t, 418, tc.body), &e)
			assert.Equal(t, tc.message, e.Message)
			assert.Equal(t, tc.code, e.Code)
			assert.Equal(t, tc.details, e.Details)
			assert.Equal(t, 418, e.Status)
			assert.Equal(t, "req_1", e.RequestID)
			assert.Equal(t, "/v1/passports/issue", e.Route)
			assert.NotContains(t, e.Error(), "\n")
		})
	}
	var e *stack.Error
	require.ErrorAs(t, answerTo(t, 500, strings.Repeat("ü", 2<<20)), &e)
	assert.Less(t, len(e.Message), 300, "a huge body is not read, let alone printed")
}

func TestSentinels(t *testing.T) {
	t.Parallel()
	byStatus := map[int]error{401: stack.ErrUnauthorized, 403: stack.ErrForbidden, 404: stack.ErrNotFound, 409: stack.ErrConflict, 429: stack.ErrRateLimited}
	for status, sentinel := range byStatus {
		err := fmt.Errorf("wrapped: %w", answerTo(t, status, `{"error":{"code":"ANY","message":"m"}}`))
		for other, s := range byStatus {
			assert.Equal(t, other == status, errors.Is(err, s), "%d against %v", status, s)
		}
		require.ErrorIs(t, err, sentinel)
	}
	byCode := map[string]error{"INVALID_REQUEST": stack.ErrInvalidRequest, "PASSPORT_REVOKED": stack.ErrPassportRevoked, "PASSPORT_EXPIRED": stack.ErrPassportExpired,
		"PASSPORT_BLOCKED": stack.ErrPassportBlocked, "ACCOUNTABILITY_REQUIRED": stack.ErrAccountabilityRequired, "CHECKPOINT_NOT_AVAILABLE": stack.ErrCheckpointNotAvailable,
		"GOVERNANCE_APPROVAL_REQUIRED": stack.ErrGovernanceApprovalRequired, "INTENT_APPROVAL_REQUIRED": stack.ErrIntentApprovalRequired,
		"MISSION_CAP_EXCEEDED": stack.ErrMissionCapExceeded, "DATA_FLOW_BLOCKED": stack.ErrDataFlowBlocked, "PROMPT_INJECTION_BLOCKED": stack.ErrPromptInjectionBlocked,
		"CREDENTIAL_ACCESS_DENIED": stack.ErrCredentialAccessDenied, "SCOPE_ESCALATION": stack.ErrScopeEscalation, "DELEGATION_DEPTH_EXCEEDED": stack.ErrDelegationDepthExceeded,
		"OPERATION_IN_PROGRESS": stack.ErrOperationInProgress, "OPERATION_ID_REUSED": stack.ErrOperationReused, "OPERATION_OUTCOME_UNKNOWN": stack.ErrOutcomeUnknown}
	for code, sentinel := range byCode {
		err := answerTo(t, 400, `{"error":{"code":"`+code+`","message":"m"}}`)
		for other, s := range byCode {
			assert.Equal(t, other == code, errors.Is(err, s), "%s against %v", code, s)
		}
		require.ErrorIs(t, err, sentinel)
	}
}

func TestMissionEndedMessages(t *testing.T) {
	t.Parallel()
	tests := []struct {
		status  int
		message string
		state   stack.MissionState
		id      string
	}{
		{403, "Sorry: Mission ms_a-B_9 is completed, go away", stack.MissionCompleted, "ms_a-B_9"},
		{404, "Mission ms_1 is revoked", stack.MissionRevoked, "ms_1"},
		{403, "Mission ms_1 has expired", stack.MissionExpired, "ms_1"},
		{404, "Mission ms_1 not found", stack.MissionNotFound, "ms_1"},
		{404, "Mission not found: ms_1", stack.MissionNotFound, "ms_1"},
		{403, "a passport is bound to exactly one Mission", stack.MissionMissing, ""},
		{404, "a passport is bound to exactly one Mission", "", ""},
		{400, "Mission ms_1 is completed", "", ""},
		{410, "Mission ms_1 has expired", "", ""},
		{403, "Mission mis_1 is completed", "", ""},
		{403, "mission ms_1 is completed", "", ""},
	}
	for _, tc := range tests {
		err := answerTo(t, tc.status, `{"error":{"code":"FORBIDDEN","message":"`+tc.message+`"}}`)
		var ended *stack.MissionEndedError
		if tc.state == "" {
			assert.False(t, errors.As(err, &ended), "%d %s", tc.status, tc.message)
			continue
		}
		require.ErrorAs(t, err, &ended, tc.message)
		assert.Equal(t, tc.state, ended.State)
		assert.Equal(t, tc.id, ended.MissionID)
		var cause *stack.Error
		require.ErrorAs(t, err, &cause, "the API's answer is kept")
		assert.Equal(t, tc.message, cause.Message)
	}
}

func FuzzErrorBodies(f *testing.F) {
	f.Add(403, `{"error":{"code":"C","message":"Mission ms_1 is revoked","details":{"a":[1]}}}`)
	f.Add(500, `{"error":"x"}`)
	f.Add(404, "\xff<")
	f.Fuzz(func(t *testing.T, status int, body string) {
		status = 400 + (status%200+200)%200
		err := answerTo(t, status, body)
		var e *stack.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, status, e.Status)
		assert.NotEmpty(t, e.Message)
		assert.NotNil(t, e.Details)
		if utf8.ValidString(body) {
			assert.True(t, utf8.ValidString(e.Error()))
		}
	})
}
