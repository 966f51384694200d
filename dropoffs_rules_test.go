package stack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
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
