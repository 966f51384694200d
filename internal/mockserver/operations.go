package mockserver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"regexp"
	"time"

	"github.com/getstack-go/stack"
)

const (
	operationLife  = 24 * time.Hour // how long the answer of a write can be had again
	maxKnownWrites = 10_000         // writes whose ids are known; the oldest that is not under way goes
)

// operation is one proxied write: sent once, answered again for its unchanged repetition.
type operation struct {
	stack.ProxyOperation
	digest   [sha256.Size]byte
	agentID  string
	response *stack.ProxyResponse

	observedBy *passport // whose review looks at it
	observedAt int       // its place among what that passport did
}

var operationIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{22,256}$`)

func checkOperationID(field, id string) error {
	if !operationIDPattern.MatchString(id) {
		return invalid(field, id, "22 to 256 letters, digits, hyphens and underscores")
	}
	return nil
}

// makeDigest sums up the request: two with the same digest are the same.
func (call *proxyCall) makeDigest() ([sha256.Size]byte, error) {
	in := call.in
	canonical, err := json.Marshal([]any{in.Service, in.Method, in.URL, in.Headers, call.content, in.Query})
	return sha256.Sum256(canonical), err
}

// isRepetition reports whether the call repeats, unchanged, a write that was sent or is being sent.
func (call *proxyCall) isRepetition() bool {
	o, ok := call.op.operations.get(call.operationID)
	return ok && call.owns(o) && o.AccountingState != stack.AccountingReleased
}

// owns reports whether an operation is of this very request by this agent.
func (call *proxyCall) owns(o *operation) bool {
	return o.digest == call.digest && o.agentID == call.passport.agentID()
}

// checkReplay looks for an earlier use of the operation id.
func (s *Server) checkReplay(call *proxyCall) error {
	if call.operationID == "" {
		return nil
	}
	o, ok := call.op.operations.get(call.operationID)
	if !ok {
		call.operation = &operation{digest: call.digest, agentID: call.passport.agentID()}
		return nil
	}
	o.expire(call.now)
	refused := func(code, message string) error {
		return refuse(http.StatusConflict, code, message, map[string]any{"check": "operation_replay", "sent": call.operationID,
			"delivery_state": o.DeliveryState, "allowed": "a new operation id for a new request, or the unchanged request"})
	}
	switch {
	case !call.owns(o):
		return refused("OPERATION_ID_REUSED", "the operation id belongs to another request")
	case o.DeliveryState == stack.DeliveryOutcomeUnknown:
		return refused("OPERATION_OUTCOME_UNKNOWN", "the write was sent and its answer was lost; it is not sent again")
	case o.DeliveryState == stack.DeliveryResponseReceived && o.ReplayState == stack.ReplayNone:
		return refused("OPERATION_NOT_REPLAYABLE", "the call happened and its answer was streamed, which is not kept")
	case o.DeliveryState == stack.DeliveryResponseReceived && o.response == nil:
		return refused("OPERATION_ANSWER_EXPIRED", "the write happened more than 24 hours ago and its answer is gone")
	case o.DeliveryState == stack.DeliveryResponseReceived:
		call.replay = o.response
	case o.AccountingState == stack.AccountingReleased: // it never left; this is its next try
		call.operation = o
	default:
		return refused("OPERATION_IN_PROGRESS", "the write is still running")
	}
	return nil
}

// beginOperation marks the write as on its way.
func (call *proxyCall) beginOperation() {
	o := call.operation
	if o == nil {
		return
	}
	at := call.now
	o.ProxyOperation = stack.ProxyOperation{OperationID: call.operationID, DeliveryState: stack.DeliveryDispatching,
		ReplayState: stack.ReplayNone, AccountingState: stack.AccountingReserved, Provider: call.in.Service,
		Method: call.in.Method, CreatedAt: or(o.CreatedAt, at), DispatchedAt: &at, ProviderOutcome: "pending"}
	call.op.operations.makeRoom(maxKnownWrites, func(old *operation) bool { return old.DeliveryState != stack.DeliveryDispatching })
	call.op.operations.put(call.operationID, o)
}

// finishOperation keeps the answer; nil is one that was streamed.
func (call *proxyCall) finishOperation(resp *stack.ProxyResponse) {
	o := call.operation
	if o == nil {
		return
	}
	at := call.now
	o.DeliveryState, o.AccountingState, o.ProviderOutcome = stack.DeliveryResponseReceived, stack.AccountingCommitted, "not_required"
	o.ResponseReceivedAt, o.response = &at, resp
	if resp == nil {
		return
	}
	o.ReplayState = stack.ReplayAvailable
}

// failOperation records a write without an answer: not sent, or sent and lost.
func (call *proxyCall) failOperation(dispatched bool) (stack.DeliveryState, bool) {
	o := call.operation
	if o == nil {
		return "", false
	}
	if dispatched { // its provider's outcome stays pending
		o.DeliveryState, o.AccountingState = stack.DeliveryOutcomeUnknown, stack.AccountingCommitted
	} else {
		o.DeliveryState, o.AccountingState = stack.DeliveryAdmitted, stack.AccountingReleased
		o.DispatchedAt, o.ProviderOutcome = nil, "not_required"
	}
	return o.DeliveryState, true
}

// expire drops the answer when it is too old. It runs before anything looks at the operation.
func (o *operation) expire(now time.Time) {
	if o.response != nil && !now.Before(o.ResponseReceivedAt.Add(operationLife)) {
		o.response, o.ReplayState = nil, stack.ReplayExpired
	}
}

type getOperationIn struct {
	Passport stack.Secret `header:"X-Passport-Token"`
	Body     struct {
		OperationID     string `json:"operation_id"`
		IncludeResponse bool   `json:"include_response"`
	} `body:""`
}

func (s *Server) getOperation(_ context.Context, c *caller, in getOperationIn) (*stack.ProxyOperation, error) {
	if err := checkOperationID("body.operation_id", in.Body.OperationID); err != nil {
		return nil, err
	}
	now := s.clock.now()
	p, err := s.present(c.op, in.Passport, now)
	if err != nil {
		return nil, err
	}
	o, ok := c.op.operations.get(in.Body.OperationID)
	if !ok || o.agentID != p.agentID() {
		return nil, notFound("operation", in.Body.OperationID)
	}
	o.expire(now)
	view := o.ProxyOperation
	if in.Body.IncludeResponse && o.response != nil {
		view.Response = o.response
		p.remember(o.Provider, o.response.Body)
	}
	return &view, nil
}
