package tool

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
)

// Policy decides what becomes of a call's failure: the text that tells the model about it, or abort to end the run with the
// error. It is not asked when the call's context is finished: that always ends the run.
type Policy func(err error) (observation string, abort bool)

// ArgumentError says that a tool's arguments do not parse or do not fit. A function may return one of its own, for what a
// schema cannot check.
type ArgumentError struct {
	Reason string // which argument, what it was and what it may be
}

// Error describes what is wrong with the arguments. The text may quote them.
func (e *ArgumentError) Error() string { return "invalid arguments: " + e.Reason }

// PanicError says that a tool's function panicked.
type PanicError struct {
	Value any // what it panicked with
}

// Error describes the value that was panicked with.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// errDefect marks failures that are a mistake in the program and nothing that a model could mend.
var errDefect = errors.New("the tool is defective")

// fatal are the kinds of errors after which every further call would fail, or would do harm, or needs a human first.
var fatal = []error{
	errDefect,
	stack.ErrUnauthorized, stack.ErrPassportRevoked, stack.ErrPassportExpired, stack.ErrPassportBlocked,
	stack.ErrMissionCapExceeded,
	stack.ErrIntentApprovalRequired, stack.ErrGovernanceApprovalRequired,
	stack.ErrOutcomeUnknown, stack.ErrOperationInProgress,
}

// DefaultPolicy is the policy of a tool that is given none.
//
// It ends the run on a panic; when the Mission has ended; on any 401, and a revoked, expired or blocked passport; on a
// reached Mission cap and 402; when an approval is required; and on a proxied write that may have happened, which the
// model would otherwise repeat as a new operation.
//
// All else goes to the model as {"error":{"code","message"}}: INVALID_ARGUMENTS; NOT_ALLOWED for every other 403, without
// the server's reasons; RATE_LIMITED with the delay; UNAVAILABLE for a read that failed with 408 or 5xx;
// RESPONSE_TOO_LARGE; other refusals of the API under their own code; FAILED with the text of any other error.
func DefaultPolicy(err error) (observation string, abort bool) {
	var argument *ArgumentError
	var panicked *PanicError
	var ended *stack.MissionEndedError
	var api *stack.Error
	switch {
	case errors.As(err, &argument):
		return observe("INVALID_ARGUMENTS", argument.Reason), false
	case errors.As(err, &panicked), errors.As(err, &ended), isFatal(err):
		return "", true
	case errors.As(err, &api):
		return refusal(api)
	}
	return observe("FAILED", err.Error()), false
}

func isFatal(err error) bool {
	for _, kind := range fatal {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// refusal is the policy for answers of the STACK API; an upstream's status is no error at all.
func refusal(e *stack.Error) (observation string, abort bool) {
	switch {
	case e.Status == http.StatusPaymentRequired:
		return "", true
	case e.Status == http.StatusForbidden:
		return observe("NOT_ALLOWED", "not allowed in this Mission"), false
	case e.Status == http.StatusTooManyRequests:
		return observe("RATE_LIMITED", "too many requests; try again "+after(e.RetryAfter)), false
	case e.Code == "RESPONSE_TOO_LARGE":
		return observe(e.Code, "the call was made, but its response is too large to return; ask for less"), false
	case e.Status == http.StatusRequestTimeout, e.Status >= http.StatusInternalServerError:
		if e.OperationID != "" { // a write: it may have happened
			return "", true
		}
		return observe("UNAVAILABLE", "the service cannot be reached; try again "+after(e.RetryAfter)), false
	}
	return observe(e.Code, e.Message), false
}

func after(delay time.Duration) string {
	if delay <= 0 {
		return "later"
	}
	return fmt.Sprintf("in %d seconds", (delay+time.Second-1)/time.Second)
}

// observe tells the model of a failure, shortly.
func observe(code, message string) string {
	const limit = 1 << 10
	var o struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	o.Error.Code, o.Error.Message = code, cut(message, limit)
	text, err := marshal(o)
	if err != nil {
		panic(err) // two strings
	}
	return text
}
