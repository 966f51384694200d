package stack_test

import (
	"encoding/json"
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

const operationID = "op-0123456789-0123456789"

func (s *stage) operation(t *testing.T, p *stack.Passport, id string) (*stack.ProxyOperation, error) {
	t.Helper()
	return s.client.Proxy.GetOperation(t.Context(), stack.ProxyOperationParams{OperationID: id, IncludeResponse: true,
		PassportToken: p.Token})
}

// An operation id is for one request of one agent: unchanged it gives the answer again, changed it is refused.
// (contract: decisions, Proxy: Operations)
func TestOperationReplay(t *testing.T) {
	t.Parallel()
	base := func() stack.ProxyRequest {
		return stack.ProxyRequest{Service: "slack", Method: "POST", URL: "https://slack.com/api/x?a=1", OperationID: operationID,
			Headers: map[string]string{"X-A": "1"}, Query: map[string]string{"b": "2"}, Body: json.RawMessage(`{"c":[3,4],"d":1.0}`)}
	}
	tests := map[string]struct {
		change func(*stack.ProxyRequest)
		same   bool
	}{
		"unchanged": {func(*stack.ProxyRequest) {}, true},
		"other JSON spacing": {func(r *stack.ProxyRequest) { r.Body = json.RawMessage(` { "d" : 1.0, "c" : [ 3, 4 ] } `) },
			true},
		"method in capitals": {func(r *stack.ProxyRequest) { r.Method = "post" }, true},
		"another service":    {func(r *stack.ProxyRequest) { r.Service, r.URL = "own", "https://own.example/" }, false},
		"another method":     {func(r *stack.ProxyRequest) { r.Method = "PUT" }, false},
		"another URL":        {func(r *stack.ProxyRequest) { r.URL += "&c" }, false},
		"another header":     {func(r *stack.ProxyRequest) { r.Headers["X-A"] = "2" }, false},
		"a header more":      {func(r *stack.ProxyRequest) { r.Headers["X-B"] = "2" }, false},
		"another query":      {func(r *stack.ProxyRequest) { r.Query["b"] = "3" }, false},
		"another body":       {func(r *stack.ProxyRequest) { r.Body = json.RawMessage(`{"c":[4,3],"d":1.0}`) }, false},
		"another number":     {func(r *stack.ProxyRequest) { r.Body = json.RawMessage(`{"c":[3,4],"d":1}`) }, false},
		"no body":            {func(r *stack.ProxyRequest) { r.Body = nil }, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack", "own"}})
			s.Upstream("own.example", answers(jsonType, `{}`))
			n := 0
			s.Upstream("slack.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n++
				answers(jsonType, `{"n":`+strings.Repeat("1", 20+n)+`}`)(w, r)
			}))
			m := s.started(t)
			first, err := s.do(t, &m.Passport, base())
			require.NoError(t, err)
			r := base()
			tc.change(&r)
			again, err := s.do(t, &m.Passport, r)
			assert.Len(t, s.Forwarded("slack.com"), 1, "it happened once")
			assert.Empty(t, s.Forwarded("own.example"))
			if tc.same {
				require.NoError(t, err)
				assert.Equal(t, first, again)
				assert.Equal(t, "replayed", s.lastRow(t, "credential.proxy").ErrorMessage)
				return
			}
			require.ErrorIs(t, err, stack.ErrOperationReused)
			apiErr := requireRefused(t, err, http.StatusConflict, "OPERATION_ID_REUSED")
			assert.Equal(t, operationID, apiErr.OperationID)
			assert.Equal(t, map[string]any{"check": "operation_replay", "sent": operationID, "delivery_state": "response_received",
				"allowed": "a new operation id for a new request, or the unchanged request"}, apiErr.Details)
		})
	}
}

// An operation belongs to its agent, under whatever passport.
func TestOperationsOfOthers(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	r := post("#support")
	r.OperationID = operationID
	mine := s.issue(t)
	first, err := s.do(t, mine, r)
	require.NoError(t, err)
	again, err := s.do(t, s.issue(t), r)
	require.NoError(t, err, "another passport of the agent")
	assert.Equal(t, first, again)
	stranger := s.Agent(t, stacktest.AgentConfig{Mode: stack.Logged, Services: []string{"slack"}})
	theirs := s.issue(t, func(p *stack.PassportIssueParams) { p.AgentID = stranger.ID })
	_, err = s.do(t, theirs, r)
	require.ErrorIs(t, err, stack.ErrOperationReused)
	_, err = s.operation(t, theirs, operationID)
	requireRefused(t, err, http.StatusNotFound, "NOT_FOUND")
	_, err = s.operation(t, mine, stack.NewOperationID())
	requireRefused(t, err, http.StatusNotFound, "NOT_FOUND")
	assert.Len(t, s.Forwarded("slack.com"), 1)

	_, err = s.client.Passports.Revoke(t.Context(), mine.JTI, "rogue")
	require.NoError(t, err)
	_, err = s.operation(t, mine, operationID)
	requireRefused(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
	ask := func(id string) error {
		return s.client.Do(t.Context(), "POST", "/v1/proxy/operations/get",
			stack.ProxyOperationParams{OperationID: id}, nil)
	}
	requireRefused(t, ask(operationID), http.StatusUnauthorized, "UNAUTHORIZED")
	err = ask("short")
	apiErr := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
	assert.Equal(t, "body.operation_id", apiErr.Details["field"])
}

// A job that died after a write repeats it in its next Mission: that is an action of this Mission, and no phantom.
func TestReplayIsObserved(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	r := post("#support")
	r.OperationID = operationID
	for range 2 {
		m := s.open(t)
		for range 2 {
			_, err := m.Proxy(t.Context(), r)
			require.NoError(t, err)
		}
		var err error
		m.Close(&err)
		require.NoError(t, err)
		assert.Equal(t, stack.ReviewClean, m.Result().ReviewStatus, m.Result().Flags)
	}
	assert.Len(t, s.Forwarded("slack.com"), 1)
}

// A read has no operation: it may happen as often as it likes.
func TestReadWithAnOperationID(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	r := read
	r.OperationID = operationID
	var told string
	r.OnOperationID = func(id string) error { told = id; return nil }
	for range 2 {
		resp, err := s.do(t, p, r)
		require.NoError(t, err)
		assert.Equal(t, operationID, resp.OperationID)
	}
	assert.Equal(t, operationID, told)
	assert.Len(t, s.Forwarded("slack.com"), 2)
	_, err := s.operation(t, p, operationID)
	require.ErrorIs(t, err, stack.ErrNotFound)
}

// The states of an operation on its way, as they are on the wire. (contract: endpoints 2.10)
func TestOperationStates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged, stack.WithMaxRetries(0), stack.WithTimeout(time.Minute))
		m := s.started(t, func(p *stack.MissionOpenParams) { p.ExpiresIn = 24 * time.Hour })
		p, began := &m.Passport, time.Now().UTC()
		state := func(id string) *stack.ProxyOperation {
			t.Helper()
			op, err := s.operation(t, p, id)
			require.NoError(t, err)
			assert.Equal(t, []any{id, "slack", "POST"}, []any{op.OperationID, op.Provider, op.Method})
			return op
		}
		r := post("#support")
		r.OperationID = operationID

		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Close: stacktest.CloseBefore})
		_, err := s.do(t, p, r)
		apiErr := requireRefused(t, err, http.StatusBadGateway, "UPSTREAM_UNREACHABLE")
		assert.Equal(t, "admitted", apiErr.Details["delivery_state"])
		assert.Equal(t, operationID, apiErr.Details["operation_id"])
		want := &stack.ProxyOperation{OperationID: operationID, DeliveryState: stack.DeliveryAdmitted,
			ReplayState: stack.ReplayNone, AccountingState: stack.AccountingReleased, Provider: "slack", Method: "POST",
			CreatedAt: began, ProviderOutcome: "not_required"}
		assert.Equal(t, want, state(operationID))

		time.Sleep(time.Minute)
		dispatched := time.Now().UTC()
		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Delay: 10 * time.Second})
		done := make(chan error, 1)
		go func() { done <- failure(s.do(t, p, r)) }()
		time.Sleep(5 * time.Second)
		want.DeliveryState, want.AccountingState = stack.DeliveryDispatching, stack.AccountingReserved
		want.DispatchedAt, want.ProviderOutcome = &dispatched, "pending"
		assert.Equal(t, want, state(operationID))
		require.NoError(t, <-done)
		received := time.Now().UTC()
		want.DeliveryState, want.ReplayState = stack.DeliveryResponseReceived, stack.ReplayAvailable
		want.AccountingState, want.ProviderOutcome = stack.AccountingCommitted, "not_required"
		want.ResponseReceivedAt = &received
		answered := state(operationID)
		assert.JSONEq(t, `{"ok":true}`, string(answered.Response.Body))
		answered.Response = nil
		assert.Equal(t, want, answered)

		s.Fault(stacktest.Fault{Path: "upstream:slack.com", Close: stacktest.CloseAfter})
		lost := post("#lost")
		lost.OperationID = operationID + "-lost"
		_, err = s.do(t, p, lost)
		require.ErrorIs(t, err, stack.ErrOutcomeUnknown)
		unknown := state(lost.OperationID)
		assert.Equal(t, []any{stack.DeliveryOutcomeUnknown, stack.ReplayNone, stack.AccountingCommitted, "pending"},
			[]any{unknown.DeliveryState, unknown.ReplayState, unknown.AccountingState, unknown.ProviderOutcome})
		assert.NotNil(t, unknown.DispatchedAt)
		assert.Nil(t, unknown.ResponseReceivedAt)
		apiErr = requireRefused(t, failure(s.do(t, p, lost)), http.StatusConflict, "OPERATION_OUTCOME_UNKNOWN")
		assert.Equal(t, "outcome_unknown", apiErr.Details["delivery_state"])
		assert.Len(t, s.Forwarded("slack.com"), 2, "nobody sends it again")
	})
}

// On the wire an answer is there only when it is asked for.
func TestOperationOnTheWire(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	r := post("#support")
	r.OperationID = operationID
	_, err := s.do(t, p, r)
	require.NoError(t, err)
	always := "accounting_state created_at delivery_state dispatched_at method operation_id provider provider_outcome " +
		"replay_state "
	for include, want := range map[string]string{"false": always + "response_received_at",
		"true": always + "response response_received_at"} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://stack.mock/v1/proxy/operations/get",
			strings.NewReader(`{"operation_id":"`+operationID+`","include_response":`+include+`}`))
		require.NoError(t, err)
		req.Header = http.Header{"Authorization": {"Bearer " + s.APIKey()}, "Content-Type": {jsonType},
			"X-Passport-Token": {p.Token.Reveal()}}
		resp, err := s.Transport().RoundTrip(req)
		require.NoError(t, err)
		var answer map[string]any
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, want, keys(answer))
	}
}

// After 24 hours the answer is gone, and the write is not made again. (contract: decisions, Proxy)
func TestOperationExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Logged)
		r := post("#support")
		r.OperationID = operationID
		_, err := s.do(t, s.issue(t), r)
		require.NoError(t, err)
		time.Sleep(24*time.Hour - time.Second)
		_, err = s.do(t, s.issue(t), r)
		require.NoError(t, err)
		time.Sleep(time.Second)
		p := s.issue(t)
		_, err = s.do(t, p, r)
		requireRefused(t, err, http.StatusConflict, "OPERATION_ANSWER_EXPIRED")
		op, err := s.operation(t, p, operationID)
		require.NoError(t, err)
		assert.Equal(t, stack.ReplayExpired, op.ReplayState)
		assert.Equal(t, stack.DeliveryResponseReceived, op.DeliveryState)
		assert.Nil(t, op.Response)
		assert.Len(t, s.Forwarded("slack.com"), 1)
	})
}

// A write that a check has refused is no operation: mended, it may go under the same id.
func TestRefusedWriteKeepsItsID(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	p := s.issue(t)
	r := post("#support")
	r.OperationID, r.URL = operationID, "https://elsewhere.example/"
	_, err := s.do(t, p, r)
	requireRefused(t, err, http.StatusForbidden, "PROXY_HOST_NOT_ALLOWED")
	_, err = s.operation(t, p, operationID)
	require.ErrorIs(t, err, stack.ErrNotFound)
	r.URL = "https://slack.com/api/x"
	_, err = s.do(t, p, r)
	require.NoError(t, err)
}
