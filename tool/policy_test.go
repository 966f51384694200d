package tool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/tool"
)

func TestDefaultPolicyAborts(t *testing.T) {
	t.Parallel()
	tests := map[string]error{
		"mission ended": &stack.MissionEndedError{
			MissionID: "ms_1", State: stack.MissionRevoked, Err: &stack.Error{Status: 403, Code: "FORBIDDEN"},
		},
		"revoked":             &stack.Error{Status: 401, Code: "PASSPORT_REVOKED"},
		"expired":             &stack.Error{Status: 401, Code: "PASSPORT_EXPIRED"},
		"any other 401":       &stack.Error{Status: 401, Code: "INVALID_API_KEY"},
		"blocked":             &stack.Error{Status: 403, Code: "PASSPORT_BLOCKED"},
		"cap":                 &stack.Error{Status: 403, Code: "MISSION_CAP_EXCEEDED"},
		"out of credits":      &stack.Error{Status: 402, Code: "INSUFFICIENT_CREDITS"},
		"intent approval":     &stack.Error{Status: 403, Code: "INTENT_APPROVAL_REQUIRED"},
		"governance approval": &stack.Error{Status: 403, Code: "GOVERNANCE_APPROVAL_REQUIRED"},
		"outcome unknown":     &stack.Error{Status: 409, Code: "OPERATION_OUTCOME_UNKNOWN", OperationID: "op"},
		"in progress":         &stack.Error{Status: 409, Code: "OPERATION_IN_PROGRESS", OperationID: "op"},
		"write timed out":     &stack.Error{Status: 504, Code: "UPSTREAM_TIMEOUT", OperationID: "op"},
		"write cut off":       &stack.Error{Status: 502, Code: "UPSTREAM_UNREACHABLE", OperationID: "op"},
	}
	for name, cause := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := failing(t, fmt.Errorf("post: %w", cause)).Call(t.Context(), "")
			assert.Empty(t, out)
			require.ErrorIs(t, err, cause)
			assert.True(t, strings.HasPrefix(err.Error(), "tool fail: post: "), err.Error())
		})
	}
}

func TestDefaultPolicyObserves(t *testing.T) {
	t.Parallel()
	const secret = "details of the server"
	denied := func(code string) error { return &stack.Error{Status: 403, Code: code, Message: secret} }
	later := "the service cannot be reached; try again later"
	tests := map[string]struct {
		err           error
		code, message string
	}{
		"ordinary":   {errors.New("no such <ticket>"), "FAILED", "no such <ticket>"},
		"argument":   {&tool.ArgumentError{Reason: "id: 7 is odd"}, "INVALID_ARGUMENTS", "id: 7 is odd"},
		"scope":      {denied("FORBIDDEN"), "NOT_ALLOWED", "not allowed in this Mission"},
		"constraint": {denied("CONSTRAINT_VIOLATION"), "NOT_ALLOWED", "not allowed in this Mission"},
		"data flow":  {denied("DATA_FLOW_BLOCKED"), "NOT_ALLOWED", "not allowed in this Mission"},
		"injection":  {denied("PROMPT_INJECTION_BLOCKED"), "NOT_ALLOWED", "not allowed in this Mission"},
		"host":       {denied("PROXY_HOST_NOT_ALLOWED"), "NOT_ALLOWED", "not allowed in this Mission"},
		"rate limited": {
			&stack.Error{Status: 429, Code: "RATE_LIMITED", RetryAfter: 1500 * time.Millisecond},
			"RATE_LIMITED", "too many requests; try again in 2 seconds",
		},
		"rate limited without delay": {
			&stack.Error{Status: 429, Code: "RATE_LIMITED"}, "RATE_LIMITED", "too many requests; try again later",
		},
		"read timed out": {&stack.Error{Status: 504, Code: "UPSTREAM_TIMEOUT"}, "UNAVAILABLE", later},
		"read cut off":   {&stack.Error{Status: 502, Code: "UPSTREAM_UNREACHABLE"}, "UNAVAILABLE", later},
		"too large": {
			&stack.Error{Status: 502, Code: "RESPONSE_TOO_LARGE", OperationID: "op"},
			"RESPONSE_TOO_LARGE", "the call was made, but its response is too large to return; ask for less",
		},
		"other refusal": {&stack.Error{Status: 404, Code: "NOT_FOUND", Message: "no connection"}, "NOT_FOUND", "no connection"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := failing(t, fmt.Errorf("%w", tt.err)).Call(t.Context(), "")
			require.NoError(t, err)
			code, message := observed(t, out)
			assert.Equal(t, tt.code, code)
			assert.Equal(t, tt.message, message)
			assert.NotContains(t, out, secret)
		})
	}
}

func TestObservationIsBounded(t *testing.T) {
	t.Parallel()
	out, err := failing(t, errors.New(strings.Repeat("x", 1<<20))).Call(t.Context(), "")
	require.NoError(t, err)
	assert.Less(t, len(out), 1200)
}

func TestWithPolicy(t *testing.T) {
	t.Parallel()
	noRow := errors.New("no row")
	policy := tool.WithPolicy(func(err error) (string, bool) {
		var panicked *tool.PanicError
		switch {
		case errors.Is(err, noRow):
			return "nothing found", false
		case errors.As(err, &panicked):
			return "it broke", false
		}
		return tool.DefaultPolicy(err)
	})
	out, err := failing(t, fmt.Errorf("query: %w", noRow), policy).Call(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, "nothing found", out)

	_, err = failing(t, stack.ErrPassportRevoked, policy).Call(t.Context(), "")
	require.ErrorIs(t, err, stack.ErrPassportRevoked)

	panics, err := tool.New("t", "d", func(context.Context, struct{}) (string, error) { panic("x") }, policy)
	require.NoError(t, err)
	out, err = panics.Call(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, "it broke", out)

	// A finished context ends the run whatever the policy says.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = failing(t, noRow, policy).Call(ctx, "")
	require.ErrorIs(t, err, context.Canceled)
}
