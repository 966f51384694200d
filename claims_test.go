package stack_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// The claims as the server signs them. (contract: endpoints 5.4)
const claimsJSON = `{"jti":"pp_1","sub":"agt_1","iss":"https://api.getstack.run","aud":"stack","iat":1767323045,"exp":1767323945,` +
	`"stk":{"operator_id":"op_1","agent_id":"agt_1","agent_name":"triage","session_id":"ses_1",` +
	`"services":[{"service_name":"slack","connection_id":"scon_1","scopes":["chat:write"],` +
	`"constraints":[{"path":"method","op":"eq","value":"POST"}],"allow_data_from":[]}],` +
	`"identity_claims":[{"type":"email"}],"delegation_depth":1,"mission_ids":["ms_1"],"accountability":"enforced",` +
	`"intent_summary":"Triage","intent_services":["slack"],"checkpoint_interval":300,"parent_passport_id":"pp_0"}}`

func TestPassportClaims(t *testing.T) {
	t.Parallel()
	var c stack.PassportClaims
	require.NoError(t, json.Unmarshal([]byte(claimsJSON), &c))
	assert.Equal(t, stack.PassportClaims{
		JTI: "pp_1", Subject: "agt_1", Issuer: "https://api.getstack.run", Audience: "stack",
		IssuedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), ExpiresAt: time.Date(2026, 1, 2, 3, 19, 5, 0, time.UTC),
		STK: stack.PassportSTK{
			OperatorID: "op_1", AgentID: "agt_1", AgentName: "triage", SessionID: "ses_1",
			Services: []stack.PassportService{{ServiceName: "slack", ConnectionID: "scon_1", Scopes: []string{"chat:write"},
				Constraints: []stack.Constraint{{Path: "method", Op: stack.OpEq, Value: "POST"}}, AllowDataFrom: []string{}}},
			IdentityClaims: []map[string]any{{"type": "email"}}, DelegationDepth: 1, MissionIDs: []string{"ms_1"},
			Accountability: stack.Enforced, IntentSummary: "Triage", IntentServices: []string{"slack"},
			CheckpointInterval: 5 * time.Minute, ParentPassportID: "pp_0",
		},
	}, c)
	data, err := json.Marshal(c)
	require.NoError(t, err)
	assert.JSONEq(t, claimsJSON, string(data))
}

// Nothing said of the data that may flow in (nil) is not the same as none (an empty list), in both directions.
func TestAllowDataFromKeepsNilAndEmptyApart(t *testing.T) {
	t.Parallel()
	for wire, want := range map[string][]string{
		`{"service_name":"a","connection_id":"b","scopes":[]}`:                             nil,
		`{"service_name":"a","connection_id":"b","scopes":[],"allow_data_from":[]}`:        {},
		`{"service_name":"a","connection_id":"b","scopes":[],"allow_data_from":["slack"]}`: {"slack"},
	} {
		var s stack.PassportService
		require.NoError(t, json.Unmarshal([]byte(wire), &s))
		assert.Equal(t, want, s.AllowDataFrom)
		data, err := json.Marshal(s)
		require.NoError(t, err)
		assert.JSONEq(t, wire, string(data))
	}
}

func TestForeignClaims(t *testing.T) {
	t.Parallel()
	var c stack.PassportClaims
	require.NoError(t, json.Unmarshal([]byte(`{"jti":"x","nbf":1,"stk":{"agent_id":"a","platform_intent":"staff",`+
		`"accountability":"a-mode-of-tomorrow","checkpoint_interval":null,"services":null}}`), &c))
	assert.Equal(t, stack.Accountability("a-mode-of-tomorrow"), c.STK.Accountability, "an unknown value is kept")
	assert.Zero(t, c.STK.CheckpointInterval)
	assert.Equal(t, time.Unix(0, 0).UTC(), c.IssuedAt, "absent is 1970")
	for name, bad := range map[string]string{
		"iat is text": `{"iat":"now"}`, "exp is a fraction": `{"exp":1.5}`, "stk is a list": `{"stk":[]}`,
		"interval is text": `{"stk":{"checkpoint_interval":"5m"}}`, "no object": `[]`, "cut": `{"jti":`,
	} {
		assert.Error(t, json.Unmarshal([]byte(bad), &stack.PassportClaims{}), name)
	}
}

// Claims are foreign bytes: they come out of tokens that anybody may have made.
func FuzzPassportClaims(f *testing.F) {
	f.Add([]byte(claimsJSON))
	f.Add([]byte(`{"iat":-62135596800,"exp":9223372036854775807,"stk":{"checkpoint_interval":1e9}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c stack.PassportClaims
		if json.Unmarshal(data, &c) != nil {
			return
		}
		if c.STK.CheckpointInterval%time.Second != 0 {
			return // no server sends one, and it would be refused on the way back
		}
		first, err := json.Marshal(c)
		require.NoError(t, err)
		var back stack.PassportClaims
		require.NoError(t, json.Unmarshal(first, &back))
		second, err := json.Marshal(back)
		require.NoError(t, err)
		assert.Equal(t, string(first), string(second))
	})
}
