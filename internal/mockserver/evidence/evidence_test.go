package evidence

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func manifest(rows int) stack.EvidenceManifest {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	m := stack.EvidenceManifest{Type: stack.EvidenceManifestType, Version: stack.EvidenceVersion, PackID: "ep_1", OperatorID: "op_1",
		Scope: stack.EvidenceScope{Kind: stack.EvidencePeriod, Ref: "period:2026-Q1"}, From: at, To: at, CreatedAt: at, AirGap: true,
		Supersedes: "ep_0", Keys: json.RawMessage(`{ "keys" : [] }`), ChainHead: stack.ChainHead{HeadHash: "0", EntryCount: 3},
		Missions: []stack.MissionRecord{{MissionID: "ms_1", IntentSummary: "<a> & \u2028 \x01 é 😀",
			Output: map[string]any{"\r": 1, "1": 333333333.33333329, "ö": 1e30, "€": 4.5, "\U0001f600": 2e-3, "\ufb33": 1e-27, "\u0080": 0}}},
		Passports:       []stack.PassportReport{{}},
		SecurityEvents:  []stack.SecurityEvent{{ID: "sev_1", Metadata: map[string]any{"b": nil, "a": []any{true}}}},
		OperatorReviews: []stack.OperatorReview{{ClaimID: "pc_1", Claim: map[string]any{"n": 1.0}}},
	}
	for i := range rows {
		m.Audit = append(m.Audit, stack.AuditEntry{EntryID: fmt.Sprint("aud_", i), Timestamp: at})
	}
	return m
}

// Build writes piece by piece what the canonical form of the whole would be.
func TestBuild(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]stack.EvidenceManifest{"full": manifest(3), "empty": {Type: "x"}} {
		got, err := Build(m, 1<<20)
		require.NoError(t, err, name)
		var read stack.EvidenceManifest
		require.NoError(t, json.Unmarshal(got, &read), name)
		assert.Equal(t, len(m.Audit), read.Sections["audit"].Count, name)
		assert.Len(t, read.Sections, 5, name)
		whole, err := jcs.Transform(got)
		require.NoError(t, err, name)
		assert.Equal(t, string(whole), string(got), name)
		again, err := Build(m, 1<<20)
		require.NoError(t, err, name)
		assert.Equal(t, string(got), string(again), name)
		m.Sections = read.Sections
		read.Missions, read.Passports = nil, nil // these two are compared by their bytes above
		m.Missions, m.Passports = nil, nil
		if name == "full" {
			m.Keys = json.RawMessage(`{"keys":[]}`)
			assert.Equal(t, m, read)
		}
	}
	got, err := Build(manifest(0), 1<<20)
	require.NoError(t, err)
	assert.Contains(t, string(got), `"intent_summary":"<a> & `+"\u2028"+` \u0001 é 😀"`, "nothing is escaped that need not be")
	assert.Contains(t, string(got), `"output":{"\r":1,"1":333333333.3333333,"`+"\u0080"+`":0,"ö":1e+30,"€":4.5,"😀":0.002,"`+"\ufb33"+`":1e-27}`,
		"the order of RFC 8785, 3.2.3, and its numbers")
}

func TestBuildIsBounded(t *testing.T) {
	t.Parallel()
	m := manifest(100)
	whole, err := Build(m, 1<<20)
	require.NoError(t, err)
	for _, limit := range []int{0, 1, 1000, len(whole) / 2, len(whole) - 200} {
		_, err = Build(m, limit)
		require.ErrorIs(t, err, ErrTooLarge, limit)
	}
	_, err = Build(m, len(whole)+200)
	require.NoError(t, err)
	m.OperatorReviews[0].Claim["f"] = func() {}
	_, err = Build(m, 1<<20)
	require.ErrorContains(t, err, "operator_reviews[0]")
}

// The canonical form is that of RFC 8785: its example of 3.2.2, and numbers of its appendix B.
func TestCanonicalForm(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`: `{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		`[-0, 5e-324, -1.7976931348623157e308, 9007199254740992, 295147905179352830000, 1e23, 0.000001, 333333333.3333332]`:                                                   `[0,5e-324,-1.7976931348623157e+308,9007199254740992,295147905179352830000,1e+23,0.000001,333333333.3333332]`,
	} {
		got, err := jcs.Transform([]byte(in))
		require.NoError(t, err)
		assert.Equal(t, want, string(got))
	}
	for _, bad := range []string{`{"a":1,"a":1}`, `"\ud800"`, `1e999`, `[1,]`, `{} {}`, "\"\xff\"", `01`, `NaN`} {
		_, err := jcs.Transform([]byte(bad))
		assert.Error(t, err, bad)
	}
}

func BenchmarkBuild(b *testing.B) {
	m := manifest(1000)
	whole, err := Build(m, 1<<24)
	require.NoError(b, err)
	b.SetBytes(int64(len(whole)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(m, 1<<24); err != nil {
			b.Fatal(err)
		}
	}
}
