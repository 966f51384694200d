package stack_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

const (
	reportSchema = `{"type":"object","properties":{"rows":{"type":"array","items":` +
		`{"type":"object","properties":{"n":{"type":"integer"}}}}},"required":["rows"]}`
	reportPayload = `{"rows":[{"n":12345678901234567890,"note":"canary-8d41 <&>"}]}`
	payloadCanary = "canary-8d41"
)

// handoff is a client with a producer and a consumer.
type handoff struct {
	srv      *stacktest.Server
	client   *stack.Client
	from, to *stack.Agent
}

func newHandoff(t *testing.T) handoff {
	t.Helper()
	srv := stacktest.New(t)
	client := srv.Client()
	return handoff{srv, client, registerAgent(t, client, "producer", "", stack.Logged),
		registerAgent(t, client, "consumer", "", stack.Logged)}
}

func (h handoff) create(t *testing.T, change ...func(*stack.DropoffCreateParams)) *stack.Dropoff {
	t.Helper()
	params := stack.DropoffCreateParams{FromAgentID: h.from.ID, ToAgentID: h.to.ID, Schema: json.RawMessage(reportSchema)}
	for _, fn := range change {
		fn(&params)
	}
	d, err := h.client.Dropoffs.Create(t.Context(), params)
	require.NoError(t, err)
	return d
}

func (h handoff) deposit(t *testing.T, id string, change ...func(*stack.DropoffDepositParams)) (*stack.Dropoff, error) {
	t.Helper()
	params := stack.DropoffDepositParams{AgentID: h.from.ID, Payload: json.RawMessage(reportPayload)}
	for _, fn := range change {
		fn(&params)
	}
	return h.client.Dropoffs.Deposit(t.Context(), id, params)
}

func (h handoff) collect(t *testing.T, id string) (*stack.CollectedDropoff, error) {
	t.Helper()
	return h.client.Dropoffs.Collect(t.Context(), id, stack.DropoffCollectParams{AgentID: h.to.ID})
}

func (h handoff) get(t *testing.T, id string) *stack.Dropoff {
	t.Helper()
	d, err := h.client.Dropoffs.Get(t.Context(), id)
	require.NoError(t, err)
	return d
}

func TestDropoffHandsOver(t *testing.T) {
	t.Parallel()
	h := newHandoff(t)
	d := h.create(t)
	assert.True(t, strings.HasPrefix(d.ID, "drp_"))
	assert.Equal(t, stack.Dropoff{ID: d.ID, OperatorID: h.srv.OperatorID(), FromAgentID: h.from.ID, ToAgentID: h.to.ID,
		Status: stack.DropoffCreated, Schema: json.RawMessage(reportSchema), OnExpire: stack.OnExpireNotify, CreatedAt: d.CreatedAt,
		ExpiresAt: d.CreatedAt.Add(30 * time.Minute)}, *d)

	filled, err := h.deposit(t, d.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{stack.DropoffDeposited, len(reportPayload), false},
		[]any{filled.Status, filled.DepositedBytes, filled.DepositedAt.IsZero()})
	collected, err := h.collect(t, d.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{d.ID, stack.DropoffCollected, reportPayload},
		[]any{collected.ID, collected.Status, string(collected.Payload)},
		"numbers and text are as they were deposited")
	last := h.get(t, d.ID)
	assert.Equal(t, []any{stack.DropoffCollected, false}, []any{last.Status, last.CollectedAt.IsZero()})

	second := h.create(t, func(p *stack.DropoffCreateParams) { p.TTL = 24 * time.Hour; p.OnExpire = stack.OnExpireNotify })
	all, err := h.client.Dropoffs.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []stack.Dropoff{*last, *second}, all)

	for action, agent := range map[string]string{"dropoff.deposit": h.from.ID, "dropoff.collect": h.to.ID} {
		rows := auditOf(t, h.client, action)
		require.Len(t, rows, 1)
		assert.Equal(t, []any{"dropoff", stack.OutcomeSuccess, agent, d.ID, ""},
			[]any{rows[0].Layer, rows[0].Outcome, rows[0].AgentID, rows[0].TraceID, rows[0].PassportJTI})
	}
	assert.Len(t, auditOf(t, h.client, "dropoff.create"), 2)
	h.srv.RequireAuditIntact(t)
}

// Each state refuses what does not fit it, with a code of its own.
func TestDropoffStates(t *testing.T) {
	t.Parallel()
	h := newHandoff(t)
	created, deposited, collected, expired := h.create(t).ID, h.create(t).ID, h.create(t).ID, h.create(t).ID
	for _, id := range []string{deposited, collected} {
		_, err := h.deposit(t, id)
		require.NoError(t, err)
	}
	_, err := h.collect(t, collected)
	require.NoError(t, err)
	ended, err := h.client.Dropoffs.Expire(t.Context(), expired)
	require.NoError(t, err)
	assert.Equal(t, []any{stack.DropoffExpired, false}, []any{ended.Status, ended.ExpiredAt.IsZero()})
	again, err := h.client.Dropoffs.Expire(t.Context(), expired)
	require.NoError(t, err)
	assert.Equal(t, ended, again, "expiring twice changes nothing")
	rows := auditOf(t, h.client, "dropoff.expire")
	require.Len(t, rows, 1)
	assert.Equal(t, []any{"dropoff", "expired by the operator", h.from.ID},
		[]any{rows[0].Layer, rows[0].ErrorMessage, rows[0].AgentID})

	for name, tt := range map[string]struct {
		err    error
		status int
		code   string
		is     error
	}{
		"collect before the deposit": {failure(h.collect(t, created)), http.StatusConflict, "DROPOFF_NOT_DEPOSITED",
			stack.ErrDropoffNotDeposited},
		"collect again": {failure(h.collect(t, collected)), http.StatusConflict, "DROPOFF_ALREADY_COLLECTED",
			stack.ErrDropoffAlreadyCollected},
		"collect after expiry": {failure(h.collect(t, expired)), http.StatusGone, "DROPOFF_EXPIRED",
			stack.ErrDropoffExpired},
		"deposit again": {failure(h.deposit(t, deposited)), http.StatusConflict, "DROPOFF_ALREADY_DEPOSITED",
			stack.ErrDropoffAlreadyDeposited},
		"deposit after collection": {failure(h.deposit(t, collected)), http.StatusConflict, "DROPOFF_ALREADY_COLLECTED",
			stack.ErrDropoffAlreadyCollected},
		"deposit after expiry": {failure(h.deposit(t, expired)), http.StatusGone, "DROPOFF_EXPIRED",
			stack.ErrDropoffExpired},
		"expire after collection": {failure(h.client.Dropoffs.Expire(t.Context(), collected)), http.StatusConflict,
			"DROPOFF_ALREADY_COLLECTED",
			stack.ErrDropoffAlreadyCollected},
		"get, unknown": {failure(h.client.Dropoffs.Get(t.Context(), "drp_none")), http.StatusNotFound, "NOT_FOUND",
			stack.ErrNotFound},
		"deposit, unknown": {failure(h.deposit(t, "drp_none")), http.StatusNotFound, "NOT_FOUND", stack.ErrNotFound},
		"collect, unknown": {failure(h.collect(t, "drp_none")), http.StatusNotFound, "NOT_FOUND", stack.ErrNotFound},
		"expire, unknown": {failure(h.client.Dropoffs.Expire(t.Context(), "drp_none")), http.StatusNotFound, "NOT_FOUND",
			stack.ErrNotFound},
	} {
		refused := refusal(t, tt.err, tt.status, tt.code)
		require.ErrorIs(t, tt.err, tt.is, name)
		assert.NotEmpty(t, refused.Details["check"], name)
		assert.NotErrorIs(t, tt.err, stack.ErrSchemaValidationFailed, name)
	}
	_, err = h.collect(t, deposited)
	require.NoError(t, err, "what was refused has harmed nothing")
}

func TestDropoffSchema(t *testing.T) {
	t.Parallel()
	h := newHandoff(t)
	d := h.create(t)
	_, err := h.deposit(t, d.ID, func(p *stack.DropoffDepositParams) {
		p.Payload = map[string]any{"rows": []any{map[string]any{"n": 1}, map[string]any{"n": payloadCanary}}}
	})
	require.ErrorIs(t, err, stack.ErrSchemaValidationFailed)
	refused := refusal(t, err, http.StatusBadRequest, "SCHEMA_VALIDATION_FAILED")
	assert.Equal(t, map[string]any{"check": "schema", "field": "body.payload", "path": "/rows/1/n", "keyword": "type",
		"allowed": "integer"},
		refused.Details)
	assert.NotContains(t, refused.Error(), payloadCanary)
	assert.Equal(t, stack.DropoffCreated, h.get(t, d.ID).Status)
	rows := auditOf(t, h.client, "dropoff.deposit")
	require.Len(t, rows, 1)
	assert.Equal(t, []any{stack.OutcomeBlocked, "SCHEMA_VALIDATION_FAILED", ""},
		[]any{rows[0].Outcome, rows[0].ErrorCode, rows[0].ErrorMessage})
	_, err = h.deposit(t, d.ID)
	require.NoError(t, err, "the producer may try again")

	draft7 := h.create(t, func(p *stack.DropoffCreateParams) {
		p.Schema = map[string]any{"$schema": "http://json-schema.org/draft-07/schema#",
			"items":           []any{map[string]any{"type": "string"}},
			"additionalItems": false}
	})
	_, err = h.deposit(t, draft7.ID, func(p *stack.DropoffDepositParams) { p.Payload = []any{"a", "b"} })
	require.ErrorIs(t, err, stack.ErrSchemaValidationFailed)
	_, err = h.deposit(t, draft7.ID, func(p *stack.DropoffDepositParams) { p.Payload = []string{"a"} })
	require.NoError(t, err)

	null := h.create(t, func(p *stack.DropoffCreateParams) { p.Schema = map[string]any{"type": "null"} })
	_, err = h.deposit(t, null.ID, func(p *stack.DropoffDepositParams) { p.Payload = nil })
	require.NoError(t, err)
	collected, err := h.collect(t, null.ID)
	require.NoError(t, err)
	assert.Equal(t, "null", string(collected.Payload))

	for name, tt := range map[string]struct {
		schema any
		path   string
	}{
		"of no type": {map[string]any{"properties": map[string]any{"a": map[string]any{"type": "strin"}}},
			"/properties/a/type"},
		"of another document":  {map[string]any{"$ref": "https://example.com/s.json"}, "/$ref"},
		"of itself":            {map[string]any{"$ref": "#"}, ""},
		"that is a boolean":    {true, ""},
		"that is a list":       {[]any{}, ""},
		"that is much":         {map[string]any{"description": strings.Repeat("x", 65<<10)}, ""},
		"that is no JSON text": {"{}", ""},
	} {
		_, err := h.client.Dropoffs.Create(t.Context(), stack.DropoffCreateParams{FromAgentID: h.from.ID, ToAgentID: h.to.ID,
			Schema: tt.schema})
		refused := refusal(t, err, http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, []any{"schema", "body.schema", tt.path}, []any{refused.Details["check"], refused.Details["field"],
			refused.Details["path"]}, name)
	}
}

func TestDropoffRefusals(t *testing.T) {
	t.Parallel()
	h := newHandoff(t)
	stranger := registerAgent(t, h.client, "stranger", "", stack.Logged)
	create := func(change func(*stack.DropoffCreateParams)) error {
		params := stack.DropoffCreateParams{FromAgentID: h.from.ID, ToAgentID: h.to.ID, Schema: map[string]any{}}
		change(&params)
		return failure(h.client.Dropoffs.Create(t.Context(), params))
	}
	require.ErrorIs(t, create(func(p *stack.DropoffCreateParams) { p.FromAgentID = "agt_none" }), stack.ErrNotFound)
	require.ErrorIs(t, create(func(p *stack.DropoffCreateParams) { p.ToAgentID = "agt_none" }), stack.ErrNotFound)
	refused := refusal(t, create(func(p *stack.DropoffCreateParams) { p.OnExpire = "shout" }), http.StatusBadRequest,
		"INVALID_REQUEST")
	assert.Equal(t, []any{"body.on_expire", "one of notify"}, []any{refused.Details["field"], refused.Details["allowed"]})
	for _, body := range []string{`{"ttl_seconds":0}`, `{"ttl_seconds":86401}`, `{"ttl_seconds":-1}`} {
		var raw map[string]any
		require.NoError(t, json.Unmarshal([]byte(body), &raw))
		raw["from_agent"], raw["to_agent"], raw["schema"] = h.from.ID, h.to.ID, map[string]any{}
		refused = refusal(t, h.client.Do(t.Context(), "POST", "/v1/dropoffs", raw, nil), http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, []any{"body.ttl_seconds", "1 to 86400"}, []any{refused.Details["field"], refused.Details["allowed"]})
	}

	d := h.create(t)
	wrong := func(p *stack.DropoffDepositParams) { p.AgentID = h.to.ID }
	refused = refusal(t, failure(h.deposit(t, d.ID, wrong)), http.StatusForbidden, "FORBIDDEN")
	assert.Equal(t, []any{"dropoff_agent", "the producer"}, []any{refused.Details["check"], refused.Details["allowed"]})
	_, err := h.deposit(t, d.ID)
	require.NoError(t, err)
	for _, agentID := range []string{h.from.ID, stranger.ID, "agt_none"} {
		_, err = h.client.Dropoffs.Collect(t.Context(), d.ID, stack.DropoffCollectParams{AgentID: agentID})
		refused = refusal(t, err, http.StatusForbidden, "FORBIDDEN")
		assert.Equal(t, []any{"dropoff_agent", "the consumer"}, []any{refused.Details["check"], refused.Details["allowed"]})
	}
	assert.Len(t, auditOf(t, h.client, "dropoff.collect"), 3, "refused collections are audited")

	large := h.create(t, func(p *stack.DropoffCreateParams) { p.Schema = map[string]any{} })
	_, err = h.deposit(t, large.ID, func(p *stack.DropoffDepositParams) { p.Payload = strings.Repeat("x", 1<<20) })
	mustRefuse(t, err, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")

	_, err = h.client.Agents.Delete(t.Context(), h.to.ID)
	require.NoError(t, err)
	_, err = h.collect(t, d.ID)
	require.ErrorIs(t, err, stack.ErrNotFound, "an agent that is gone collects nothing")

	other := stacktest.New(t).Client()
	_, err = other.Dropoffs.Get(t.Context(), d.ID)
	require.ErrorIs(t, err, stack.ErrNotFound, "another operator's is not there")
}

func TestDropoffParamErrors(t *testing.T) {
	t.Parallel()
	client, err := stack.New(stack.WithAPIKey("sk_live_x"), stack.WithBaseURL("http://stack.mock"),
		stack.WithHTTPClient(&http.Client{Transport: noCalls{t}}))
	require.NoError(t, err)
	create := func(from, to string, schema any, ttl time.Duration) error {
		return failure(client.Dropoffs.Create(t.Context(), stack.DropoffCreateParams{FromAgentID: from, ToAgentID: to,
			Schema: schema, TTL: ttl}))
	}
	for name, tt := range map[string]struct {
		err   error
		param string
	}{
		"producer":       {create("", "b", map[string]any{}, 0), "from_agent"},
		"consumer":       {create("a", "", map[string]any{}, 0), "to_agent"},
		"schema":         {create("a", "b", nil, 0), "schema"},
		"long":           {create("a", "b", map[string]any{}, 25*time.Hour), "ttl_seconds"},
		"half a second":  {create("a", "b", map[string]any{}, 1500*time.Millisecond), "ttl_seconds"},
		"no JSON":        {create("a", "b", func() {}, 0), "body of POST /v1/dropoffs"},
		"deposit, agent": {failure(client.Dropoffs.Deposit(t.Context(), "drp_x", stack.DropoffDepositParams{})), "agent_id"},
		"deposit, id": {failure(client.Dropoffs.Deposit(t.Context(), "", stack.DropoffDepositParams{AgentID: "a"})),
			"dropoff_id"},
		"collect, agent": {failure(client.Dropoffs.Collect(t.Context(), "drp_x", stack.DropoffCollectParams{})), "agent_id"},
		"collect, id": {failure(client.Dropoffs.Collect(t.Context(), "..", stack.DropoffCollectParams{AgentID: "a"})),
			"dropoff_id"},
		"get, id":         {failure(client.Dropoffs.Get(t.Context(), "")), "dropoff_id"},
		"force-expire id": {failure(client.Dropoffs.Expire(t.Context(), "")), "dropoff_id"},
	} {
		var param *stack.ParamError
		require.ErrorAs(t, tt.err, &param, name)
		assert.Equal(t, tt.param, param.Param, name)
	}
}
