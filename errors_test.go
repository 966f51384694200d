package stack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func answerTo(t testing.TB, status int, body string) error {
	t.Helper()
	s := &scripted{steps: []step{answer(status, body, "X-Request-Id", "req_1")}}
	c, err := stack.New(stack.WithBaseURL("https://api.example"), stack.WithAPIKey("k"), stack.WithMaxRetries(0),
		stack.WithHTTPClient(&http.Client{Transport: s}))
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
		"RFC 6749":              {`{"error":"bad_grant","error_description":"d","extra":1}`, "d", "BAD_GRANT", map[string]any{"extra": 1.0}},
		"RFC 6749 with message": {`{"error":"invalid_grant","message":"m"}`, "m", "INVALID_GRANT", map[string]any{}},
		"RFC 6749 alone":        {`{"error":"invalid_grant"}`, "invalid_grant", "INVALID_GRANT", map[string]any{}},
		"RFC 6749, empty":       {`{"error":"","error_description":"d"}`, "d", "UNKNOWN", map[string]any{}},
		"RFC 6749, not text":    {`{"error":"e","error_description":7,"message":[]}`, "e", "E", map[string]any{}},
		"empty code":            {`{"error":{"code":"","message":"m"}}`, "m", "UNKNOWN", map[string]any{}},
		"empty object":          {`{"error":{}}`, "API error: 418", "UNKNOWN", map[string]any{}},
		"null inside":           {`{"error":{"code":null,"message":null,"details":null}}`, "API error: 418", "UNKNOWN", map[string]any{}},
		"number":                {`{"error":500}`, "API error: 418", "UNKNOWN", map[string]any{}},
		"list":                  {`{"error":["m"]}`, "API error: 418", "UNKNOWN", map[string]any{}},
		"null alone":            {`null`, "API error: 418", "UNKNOWN", map[string]any{}},
		"text":                  {`"m"`, "API error: 418", "UNKNOWN", map[string]any{}},
		"cut":                   {`{"error":{"code":"C"`, `{"error":{"code":"C"`, "UNKNOWN", map[string]any{}},
		"trailing":              {`{"error":{"code":"C"}} x`, `{"error":{"code":"C"}} x`, "UNKNOWN", map[string]any{}},
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
	require.ErrorAs(t, answerTo(t, 500, strings.Repeat(" ", 4000)), &e)
	assert.Equal(t, "API error: 500", e.Message)
}

// The text of an error is one line that a log can take, whatever the API says; its fields keep what was said.
func TestErrorsAreOneLine(t *testing.T) {
	t.Parallel()
	evil := "a\nlevel=ERROR msg=forged\r\n\x1b[31mred\x00\u2028\u202e\tz"
	body, err := json.Marshal(map[string]any{"error": map[string]any{"code": "C\nC", "message": evil}})
	require.NoError(t, err)
	err = answerTo(t, 403, string(body))
	const want = "a level=ERROR msg=forged [31mred z"
	require.EqualError(t, err, "stack: POST /v1/passports/issue: 403 C C: "+want+" (request req_1)")
	var e *stack.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, evil, e.Message)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "error", e)
	assert.Contains(t, log.String(), `"error":{"status":403,"code":"C C","message":"`+want+`","method":"POST",`+
		`"route":"/v1/passports/issue","request_id":"req_1"}`)

	for name, body := range map[string]string{
		"long message": `{"error":{"code":"C","message":"` + strings.Repeat("é", 1<<19) + `"}}`,
		"long Mission": `{"error":{"code":"C","message":"Mission ms_` + strings.Repeat("x", 1<<19) + ` is revoked"}}`,
		"long code":    `{"error":{"code":"` + strings.Repeat("C", 1<<19) + `","message":"m"}}`,
		"long kind":    `{"error":"` + strings.Repeat("c", 1<<19) + `"}`,
		"long HTML":    "<html>" + strings.Repeat("\n<p>", 1<<17),
	} {
		err = answerTo(t, 403, body)
		assert.Less(t, len(err.Error()), 800, name)
		assert.Contains(t, err.Error(), "(request req_1)", name)
		assert.True(t, utf8.ValidString(err.Error()), name)
	}
	err = answerTo(t, 404, `{"error":{"code":"N","message":"Mission ms_1 not found\nforged"}}`)
	require.EqualError(t, err, "stack: Mission ms_1 has ended (not_found): stack: POST /v1/passports/issue: 404 N: "+
		"Mission ms_1 not found forged (request req_1)")
}

// The whole of an error, read through errors.As.
func TestErrorFields(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const body = `{"error":{"code":"RATE_LIMITED","message":"slow","details":{"limit":1}}}`
		s := &scripted{steps: []step{broken(errDial), answer(429, body, "X-Request-Id", "req_9", "Retry-After", "40")}}
		_, err := script(t, s).Agents.Update(t.Context(), "agt_1", stack.AgentUpdateParams{})
		var e *stack.Error
		require.ErrorAs(t, fmt.Errorf("outer: %w", errors.Join(errors.New("other"), err)), &e)
		assert.Equal(t, stack.Error{Status: 429, Code: "RATE_LIMITED", Message: "slow", Details: map[string]any{"limit": 1.0},
			RequestID: "req_9", Method: "PATCH", Route: "/v1/agents/{agent_id}", RetryAfter: 40 * time.Second, Attempts: 2}, *e)
	})
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	for body, excerpt := range map[string]string{
		"<html>\n<h1>Sign in</h1>":            "<html> <h1>Sign in</h1>",
		"":                                    "",
		"  \n":                                "",
		"Bad gateway":                         "Bad gateway",
		"<" + strings.Repeat("x", 1<<20):      "<" + strings.Repeat("x", 199) + "…",
		` {"token":"eyJ`:                      "", // it may hold a secret
		`["eyJ"]`:                             "",
		`"eyJ"`:                               "",
		`{"id":1,"token":"eyJ","created_at":`: "",
	} {
		_, err := script(t, &scripted{steps: []step{answer(200, body)}}).Agents.Get(t.Context(), "agt_1")
		var decode *stack.DecodeError
		require.ErrorAs(t, err, &decode, body)
		assert.Equal(t, excerpt, decode.Excerpt)
		assert.Equal(t, []any{"GET", "/v1/agents/{agent_id}", 200}, []any{decode.Method, decode.Route, decode.Status})
		assert.Regexp(t, `^stack: GET /v1/agents/\{agent_id\}: 200 with a body that is not the expected JSON: .+$`, err.Error())
		assert.NotContains(t, err.Error(), "eyJ")
		require.Error(t, errors.Unwrap(err), "the decoder's own error")
	}
}

func TestSentinels(t *testing.T) {
	t.Parallel()
	byStatus := map[int]error{401: stack.ErrUnauthorized, 403: stack.ErrForbidden, 404: stack.ErrNotFound,
		409: stack.ErrConflict, 429: stack.ErrRateLimited}
	for status, sentinel := range byStatus {
		err := fmt.Errorf("wrapped: %w", answerTo(t, status, `{"error":{"code":"ANY","message":"m"}}`))
		for other, s := range byStatus {
			assert.Equal(t, other == status, errors.Is(err, s), "%d against %v", status, s)
		}
		require.ErrorIs(t, err, sentinel)
	}
	byCode := []struct {
		sentinel error
		codes    []string
	}{
		{stack.ErrInvalidRequest, []string{"INVALID_REQUEST", "VALIDATION_ERROR", "INVALID_URL"}},
		{stack.ErrPassportRevoked, []string{"PASSPORT_REVOKED"}},
		{stack.ErrPassportExpired, []string{"PASSPORT_EXPIRED"}},
		{stack.ErrPassportBlocked, []string{"PASSPORT_BLOCKED"}},
		{stack.ErrAccountabilityRequired, []string{"ACCOUNTABILITY_REQUIRED"}},
		{stack.ErrCheckpointNotAvailable, []string{"CHECKPOINT_NOT_AVAILABLE"}},
		{stack.ErrGovernanceApprovalRequired, []string{"GOVERNANCE_APPROVAL_REQUIRED"}},
		{stack.ErrIntentApprovalRequired, []string{"INTENT_APPROVAL_REQUIRED"}},
		{stack.ErrMissionCapExceeded, []string{"MISSION_CAP_EXCEEDED"}},
		{stack.ErrDataFlowBlocked, []string{"DATA_FLOW_BLOCKED"}},
		{stack.ErrPromptInjectionBlocked, []string{"PROMPT_INJECTION_BLOCKED"}},
		{stack.ErrCredentialAccessDenied, []string{"CREDENTIAL_ACCESS_DENIED"}},
		{stack.ErrScopeEscalation, []string{"SCOPE_ESCALATION"}},
		{stack.ErrDelegationDepthExceeded, []string{"DELEGATION_DEPTH_EXCEEDED"}},
		{stack.ErrOperationInProgress, []string{"OPERATION_IN_PROGRESS"}},
		{stack.ErrOperationReused, []string{"OPERATION_ID_REUSED"}},
		{stack.ErrOutcomeUnknown, []string{"OPERATION_OUTCOME_UNKNOWN"}},
		{stack.ErrNoCredentials, []string{"NO_CREDENTIALS"}},
	}
	for i, kind := range byCode {
		assert.Regexp(t, `^stack: [a-z ]+$`, kind.sentinel.Error())
		for _, code := range kind.codes {
			err := fmt.Errorf("wrapped: %w", answerTo(t, 400, `{"error":{"code":"`+code+`","message":"m"}}`))
			for k, other := range byCode {
				assert.Equal(t, i == k, errors.Is(err, other.sentinel), "%s against %v", code, other.sentinel)
			}
		}
	}
	assert.NotErrorIs(t, answerTo(t, 400, `{"error":{"message":"m"}}`), stack.ErrInvalidRequest, "a code says so, no status")
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
		{403, "Mission ms_ is completed", "", ""},
		{403, "Mission ms_1 completed", "", ""},
		{404, "Mission not found", "", ""},
		{404, "Mission not found: 1", "", ""},
		{401, "Mission ms_1 is revoked", "", ""},
		{409, "Mission ms_1 is completed", "", ""},
		{500, "Mission ms_1 not found", "", ""},
		{403, "", "", ""},
		{403, "Mission ms_1 not found; Mission ms_2 is completed", stack.MissionCompleted, "ms_2"}, // in the contract's order
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
		require.ErrorIs(t, fmt.Errorf("outer: %w", err), map[int]error{403: stack.ErrForbidden, 404: stack.ErrNotFound}[tc.status])
	}
}

// The same words in an answer to another call are a refusal like any other.
func TestMissionEndsOnlyWhereACallIsBoundToIt(t *testing.T) {
	t.Parallel()
	c := script(t, &scripted{steps: []step{answer(403, `{"error":{"code":"FORBIDDEN","message":"Mission ms_1 is revoked"}}`)}})
	ctx, token := t.Context(), stack.NewSecret("t")
	issue := stack.PassportIssueParams{AgentID: "agt_1", MissionIDs: []string{"ms_1"}}
	for name, tc := range map[string]struct {
		err   error
		bound bool
	}{
		"issue":      {failure(c.Passports.Issue(ctx, issue)), true},
		"refresh":    {failure(c.Passports.Refresh(ctx, stack.PassportRefreshParams{Token: token})), true},
		"checkpoint": {failure(c.Passports.Checkpoint(ctx, "pp_1", stack.CheckpointParams{})), false},
		"checkout":   {failure(c.Passports.Checkout(ctx, "pp_1", stack.CheckpointParams{})), false},
		"get":        {failure(c.Missions.Get(ctx, "ms_1")), false},
		"complete":   {failure(c.Missions.Complete(ctx, "ms_1", stack.MissionCompleteParams{})), false},
		"proxy":      {failure(c.Proxy.Get(ctx, stack.ProxyRequest{Service: "slack", URL: "https://slack.com/x"})), false},
		"do":         {c.Do(ctx, "POST", "/v1/passports/issue", nil, nil), false},
	} {
		var ended *stack.MissionEndedError
		assert.Equal(t, tc.bound, errors.As(tc.err, &ended), name)
		assert.ErrorIs(t, tc.err, stack.ErrForbidden, name)
	}
}
