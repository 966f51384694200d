package stack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// An agent shows its passport: it must live, and be of the agent whose turn it is.
func TestDropoffPassports(t *testing.T) {
	t.Parallel()
	h := newHandoff(t)
	theirs, mine := passportFor(t, h.client, h.to.ID, "slack"), passportFor(t, h.client, h.from.ID, "slack")
	dead := passportFor(t, h.client, h.from.ID, "slack")
	_, err := h.client.Passports.Revoke(t.Context(), dead.JTI, "gone")
	require.NoError(t, err)
	live := verification(t, h.client, mine.Token).Claims.STK.MissionIDs[0]

	d := h.create(t, func(p *stack.DropoffCreateParams) { p.PassportToken = mine.Token })
	assert.Equal(t, live, d.MissionID, "it belongs to the Mission of the passport that made it")
	create := func(token stack.Secret) error {
		return failure(h.client.Dropoffs.Create(t.Context(), stack.DropoffCreateParams{FromAgentID: h.from.ID, ToAgentID: h.to.ID,
			Schema: map[string]any{}, PassportToken: token}))
	}
	deposit := func(token stack.Secret, jti, missionID string) error {
		return failure(h.deposit(t, d.ID, func(p *stack.DropoffDepositParams) {
			p.PassportToken, p.PassportJTI, p.MissionID = token, jti, missionID
		}))
	}
	none, forged := stack.Secret{}, stack.NewSecret("x.y.z")
	for name, tt := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"create, another's":         {create(theirs.Token), http.StatusForbidden, "FORBIDDEN"},
		"create, revoked":           {create(dead.Token), http.StatusUnauthorized, "PASSPORT_REVOKED"},
		"create, forged":            {create(forged), http.StatusUnauthorized, "UNAUTHORIZED"},
		"deposit, another's":        {deposit(theirs.Token, "", ""), http.StatusForbidden, "FORBIDDEN"},
		"deposit, another's by jti": {deposit(none, theirs.JTI, ""), http.StatusForbidden, "FORBIDDEN"},
		"deposit, revoked":          {deposit(dead.Token, "", ""), http.StatusUnauthorized, "PASSPORT_REVOKED"},
		"deposit, revoked by jti":   {deposit(none, dead.JTI, ""), http.StatusUnauthorized, "PASSPORT_REVOKED"},
		"deposit, unknown jti":      {deposit(none, "pp_none", ""), http.StatusNotFound, "NOT_FOUND"},
		"deposit, two passports":    {deposit(mine.Token, theirs.JTI, ""), http.StatusBadRequest, "INVALID_REQUEST"},
		"deposit, another Mission":  {deposit(mine.Token, "", "ms_other"), http.StatusBadRequest, "INVALID_REQUEST"},
		"deposit, unknown Mission":  {deposit(none, "", "ms_none"), http.StatusNotFound, "NOT_FOUND"},
		"deposit, other's Mission": {deposit(none, "", verification(t, h.client, theirs.Token).Claims.STK.MissionIDs[0]),
			http.StatusForbidden, "FORBIDDEN"},
		"deposit, forged":             {deposit(forged, "", ""), http.StatusUnauthorized, "UNAUTHORIZED"},
		"collect, the producer's own": {collectWith(t, h, d.ID, mine.Token), http.StatusForbidden, "FORBIDDEN"},
	} {
		refused := refusal(t, tt.err, tt.status, tt.code)
		assert.NotEmpty(t, refused.Details["check"], name)
		for _, secret := range []stack.Secret{mine.Token, theirs.Token, dead.Token} {
			assert.NotContains(t, fmt.Sprint(refused, refused.Details), secret.Reveal(), name)
		}
	}
	assert.Len(t, eventsOf(t, h.client, "revoked_passport_use"), 3)

	require.NoError(t, deposit(none, mine.JTI, live))
	rows := auditOf(t, h.client, "dropoff.deposit")
	assert.Equal(t, []any{mine.JTI, stack.OutcomeSuccess}, []any{rows[0].PassportJTI, rows[0].Outcome})
	require.NoError(t, collectWith(t, h, d.ID, theirs.Token))
	mission, err := h.client.Missions.Activity(t.Context(), live)
	require.NoError(t, err)
	assert.Equal(t, len(reportPayload), mission.Usage.DropoffBytes)
	var kinds []string
	for _, e := range mission.Events {
		kinds = append(kinds, e.Type)
	}
	assert.Subset(t, kinds, []string{"dropoff.create", "dropoff.deposit"})

	// A delegate deposits under the Mission of its parent, which is assigned to the parent.
	child, err := h.client.Passports.Delegate(t.Context(), stack.PassportDelegateParams{ParentToken: theirs.Token,
		ChildAgentID: h.from.ID})
	require.NoError(t, err)
	byChild := h.create(t, func(p *stack.DropoffCreateParams) { p.PassportToken = child.Token })
	_, err = h.deposit(t, byChild.ID, func(p *stack.DropoffDepositParams) { p.PassportToken = child.Token })
	require.NoError(t, err)

	// Once its Mission is over, a drop-off that was made in it takes nothing more.
	late := h.create(t, func(p *stack.DropoffCreateParams) { p.PassportToken = mine.Token })
	_, err = h.client.Missions.Complete(t.Context(), live, stack.MissionCompleteParams{})
	require.NoError(t, err)
	refused := refusal(t, failure(h.deposit(t, late.ID)), http.StatusForbidden, "FORBIDDEN")
	assert.Equal(t, "mission_state", refused.Details["check"])
}

func collectWith(t *testing.T, h handoff, id string, token stack.Secret) error {
	t.Helper()
	return failure(h.client.Dropoffs.Collect(t.Context(), id, stack.DropoffCollectParams{AgentID: h.to.ID,
		PassportToken: token}))
}

func TestDropoffMissionCap(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		behavior stack.CapBehavior
		mode     stack.Accountability
		refused  bool
		severity stack.Severity
		revoked  bool
	}{
		"block":           {"", stack.Logged, true, stack.SeverityCritical, false},
		"block, enforced": {stack.CapBlock, stack.Enforced, true, stack.SeverityCritical, true},
		"warn":            {stack.CapWarn, stack.Enforced, false, stack.SeverityWarning, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandoff(t)
			h.from = registerAgent(t, h.client, "bot", "", tt.mode)
			open := stack.MissionOpenParams{IntentSummary: "report", MaxDropoffBytes: len(reportPayload) + 10}
			if tt.behavior != "" {
				open.CapBehavior = map[string]stack.CapBehavior{"max_dropoff_bytes": tt.behavior}
			}
			started, err := h.client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: h.from.ID, Mission: open,
				Passport: &stack.MissionPassportParams{Intent: &stack.Intent{Summary: "report", Services: []string{"slack"}}}})
			require.NoError(t, err)
			with := func(p *stack.DropoffDepositParams) { p.PassportToken = started.Passport.Token }
			_, err = h.deposit(t, h.create(t).ID, with)
			require.NoError(t, err)
			d := h.create(t)
			_, err = h.deposit(t, d.ID, with)
			events := eventsOf(t, h.client, "mission_cap_exceeded")
			require.Len(t, events, 1)
			assert.Equal(t, tt.severity, events[0].Severity)
			assert.Equal(t, tt.revoked, !verification(t, h.client, started.Passport.Token).Valid)
			if !tt.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, stack.ErrMissionCapExceeded)
			refused := refusal(t, err, http.StatusForbidden, "MISSION_CAP_EXCEEDED")
			assert.Equal(t, map[string]any{"check": "mission_cap", "cap": "max_dropoff_bytes",
				"sent":    float64(2 * len(reportPayload)),
				"allowed": float64(len(reportPayload) + 10)}, refused.Details)
			assert.Equal(t, stack.DropoffCreated, h.get(t, d.ID).Status)
			record, err := h.client.Missions.Get(t.Context(), started.MissionID)
			require.NoError(t, err)
			assert.Equal(t, len(reportPayload), record.Usage.DropoffBytes)
		})
	}
}

func TestDropoffExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandoff(t)
		empty := h.create(t, func(p *stack.DropoffCreateParams) { p.TTL = time.Minute })
		full := h.create(t, func(p *stack.DropoffCreateParams) { p.TTL = 2 * time.Minute })
		done := h.create(t, func(p *stack.DropoffCreateParams) { p.TTL = 2 * time.Minute })
		for _, d := range []*stack.Dropoff{full, done} {
			_, err := h.deposit(t, d.ID)
			require.NoError(t, err)
		}
		_, err := h.collect(t, done.ID)
		require.NoError(t, err)

		time.Sleep(time.Minute - time.Nanosecond)
		assert.Equal(t, stack.DropoffCreated, h.get(t, empty.ID).Status)
		time.Sleep(time.Nanosecond)
		assert.Equal(t, []any{stack.DropoffExpired, empty.ExpiresAt},
			[]any{h.get(t, empty.ID).Status, h.get(t, empty.ID).ExpiredAt})
		_, err = h.deposit(t, empty.ID)
		require.ErrorIs(t, err, stack.ErrDropoffExpired)
		time.Sleep(time.Hour)
		_, err = h.collect(t, full.ID)
		require.ErrorIs(t, err, stack.ErrDropoffExpired)
		assert.Equal(t, stack.DropoffCollected, h.get(t, done.ID).Status, "what was collected does not expire")

		rows := auditOf(t, h.client, "dropoff.expire")
		require.Len(t, rows, 2)
		assert.Equal(t, []any{"dropoff", full.ID, full.ExpiresAt.UnixMilli(), "its time is up"},
			[]any{rows[0].Layer, rows[0].TraceID, rows[0].Timestamp.UnixMilli(), rows[0].ErrorMessage})
		h.srv.RequireNoSecurityEvents(t)
		h.srv.RequireAuditIntact(t)
	})
}

// Of many that collect at once exactly one gets the payload.
func TestDropoffIsCollectedOnce(t *testing.T) {
	t.Parallel()
	h := newHandoff(t)
	d := h.create(t)
	_, err := h.deposit(t, d.ID)
	require.NoError(t, err)
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			switch _, err := h.client.Dropoffs.Collect(t.Context(), d.ID, stack.DropoffCollectParams{AgentID: h.to.ID}); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, stack.ErrDropoffAlreadyCollected):
				lost.Add(1)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, []int32{1, 15}, []int32{won.Load(), lost.Load()})
}

// Nothing but collection shows a payload.
func TestDropoffShowsNoPayload(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := stacktest.New(t, stacktest.WithLogger(logger))
	client := srv.Client(stack.WithLogger(logger))
	h := handoff{srv, client, registerAgent(t, client, "producer", "", stack.Logged),
		registerAgent(t, client, "consumer", "", stack.Logged)}
	d := h.create(t)
	params := stack.DropoffDepositParams{AgentID: h.from.ID, Payload: json.RawMessage(reportPayload)}
	filled, err := client.Dropoffs.Deposit(t.Context(), d.ID, params)
	require.NoError(t, err)
	all, err := client.Dropoffs.List(t.Context())
	require.NoError(t, err)
	var raw any
	require.NoError(t, client.Do(t.Context(), "GET", "/v1/dropoffs/"+d.ID, nil, &raw))
	_, again := client.Dropoffs.Deposit(t.Context(), d.ID, params)
	require.Error(t, again)
	collected, err := h.collect(t, d.ID)
	require.NoError(t, err)
	assert.Contains(t, string(collected.Payload), payloadCanary)
	logger.Info("all", "params", params, "collected", *collected, "filled", *filled, "create",
		stack.DropoffCreateParams{Schema: reportPayload},
		"collect", stack.DropoffCollectParams{AgentID: "a", PassportToken: stack.NewSecret(payloadCanary)})
	seen := fmt.Sprintf("%+v %+v %+v %+v %s", filled, all, raw, again, log.String())
	for _, row := range srv.Audit() {
		seen += fmt.Sprintf("%+v", row)
	}
	assert.NotContains(t, seen, payloadCanary)
}
