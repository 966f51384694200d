package stack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"testing"

	"github.com/gowebpki/jcs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// signedPack signs the claim of a pack with the test key.
func signedPack(t testing.TB, claim stack.EvidencePackClaim) string {
	t.Helper()
	text, err := json.Marshal(claim)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(text, &fields))
	fields["issued_at_ms"], fields["version"], fields["manifest_bytes"] = claim.IssuedAt.UnixMilli(), claim.Version, claim.ManifestBytes
	envelope, err := stack.SignClaim(fields, testKey(), "agt_test")
	require.NoError(t, err)
	return envelope
}

func TestVerifyEvidencePack(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	id, _ := s.ranMission(t)
	pack, _ := s.export(t, scopeOf(stack.EvidenceMission, id))
	quarterly, _ := s.export(t, scopeOf(stack.EvidencePeriod, s.quarter()))
	keys := deploymentKeys(t, s.Server)

	var indented bytes.Buffer
	require.NoError(t, json.Indent(&indented, pack.Manifest, "", "  "))
	verified, err := stack.VerifyEvidencePack(indented.Bytes(), pack.EnvelopeCOSE, keys)
	require.NoError(t, err, "as the Python SDK writes it into a file")
	assert.Equal(t, pack.PackID, verified.Manifest.PackID)
	var anyForm any
	dec := json.NewDecoder(bytes.NewReader(pack.Manifest))
	dec.UseNumber()
	require.NoError(t, dec.Decode(&anyForm))
	escaped, err := json.Marshal(anyForm) // <, > and & as escapes
	require.NoError(t, err)
	require.NotEqual(t, string(pack.Manifest), string(escaped))
	_, err = stack.VerifyEvidencePack(escaped, pack.EnvelopeCOSE, keys)
	require.NoError(t, err)

	replaced := func(old, by string) []byte {
		require.Contains(t, string(pack.Manifest), old)
		return bytes.Replace(pack.Manifest, []byte(old), []byte(by), 1)
	}
	for name, test := range map[string]struct {
		manifest []byte
		envelope string
		check    stack.ProofCheck
		says     string
	}{
		"nothing":             {nil, pack.EnvelopeCOSE, stack.ProofManifest, "canonical"},
		"no JSON":             {[]byte("{"), pack.EnvelopeCOSE, stack.ProofManifest, "canonical"},
		"a name twice":        {[]byte(`{"a":1,"a":2}`), pack.EnvelopeCOSE, stack.ProofManifest, "canonical"},
		"another pack's":      {quarterly.Manifest, pack.EnvelopeCOSE, stack.ProofDigest, "not the one that was signed"},
		"a changed event":     {replaced("credential_outside_scope\"}", "scope_drift\"}"), pack.EnvelopeCOSE, stack.ProofDigest, "section security_events"},
		"a changed row":       {replaced(`"action":"passport.checkout"`, `"action":"passport.checkpoint"`), pack.EnvelopeCOSE, stack.ProofDigest, "section audit"},
		"a changed head":      {replaced(`"entry_count":`, `"entry_count":1`), pack.EnvelopeCOSE, stack.ProofDigest, "not the one that was signed"},
		"too large":           {make([]byte, 64<<20+1), pack.EnvelopeCOSE, stack.ProofManifest, "over"},
		"no envelope":         {pack.Manifest, "", stack.ProofEncoding, ""},
		"another envelope":    {pack.Manifest, quarterly.EnvelopeCOSE, stack.ProofDigest, ""},
		"an agent's envelope": {pack.Manifest, vectorEnvelope, stack.ProofKey, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, refusal := stack.VerifyEvidencePack(test.manifest, test.envelope, keys)
			assert.Contains(t, requireProof(t, refusal, test.check).Reason, test.says)
			assert.Nil(t, got)
		})
	}
	_, err = stack.VerifyEvidencePack(pack.Manifest, pack.EnvelopeCOSE, testKeys())
	requireProof(t, err, stack.ProofKey)

	// From here on somebody whose key is trusted signs what does not fit together.
	good := pack.PackClaim
	_, err = stack.VerifyEvidencePack(pack.Manifest, signedPack(t, good), testKeys())
	require.NoError(t, err, "the cases below fail for what they change only")
	for name, change := range map[string]func(*stack.EvidencePackClaim){
		"type": func(c *stack.EvidencePackClaim) { c.Type = "operator_review" }, "version": func(c *stack.EvidencePackClaim) { c.Version = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claim := good
			change(&claim)
			requireProof(t, failure(stack.VerifyEvidencePack(pack.Manifest, signedPack(t, claim), testKeys())), stack.ProofPayload)
		})
	}
	envelope, err := stack.SignClaim(stack.Claim{{"type", 1}}, testKey(), "agt_test")
	require.NoError(t, err)
	_, err = stack.VerifyEvidencePack(pack.Manifest, envelope, testKeys())
	requireProof(t, err, stack.ProofPayload)
	for name, change := range map[string]func(*stack.EvidencePackClaim){
		"pack":       func(c *stack.EvidencePackClaim) { c.PackID = "ep_other" },
		"operator":   func(c *stack.EvidencePackClaim) { c.OperatorID = "op_other" },
		"scope":      func(c *stack.EvidencePackClaim) { c.Scope.Ref = "ms_other" },
		"supersedes": func(c *stack.EvidencePackClaim) { c.Supersedes = "ep_older" },
		"air gap":    func(c *stack.EvidencePackClaim) { c.AirGap = true },
		"size":       func(c *stack.EvidencePackClaim) { c.ManifestBytes++ },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claim := good
			change(&claim)
			requireProof(t, failure(stack.VerifyEvidencePack(pack.Manifest, signedPack(t, claim), testKeys())), stack.ProofManifest)
		})
	}
}

// A deployment that lies about the log signs rows that do not have the hashes of their content, or leaves some out.
func TestVerifyEvidenceOfALiar(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	s.ranMission(t)
	pack, verified := s.export(t, scopeOf(stack.EvidencePeriod, s.quarter()))
	lie := func(t *testing.T, change func(*stack.EvidenceManifest)) error {
		t.Helper()
		m := verified.Manifest
		m.Audit = append([]stack.AuditEntry{}, m.Audit...)
		change(&m)
		manifest, claim := rebuilt(t, m, pack.PackClaim)
		return failure(stack.VerifyEvidencePack(manifest, signedPack(t, claim), testKeys()))
	}
	require.NoError(t, lie(t, func(*stack.EvidenceManifest) {}))
	for name, change := range map[string]func(*stack.EvidenceManifest){
		"a changed row": func(m *stack.EvidenceManifest) { m.Audit[2].Action = "nothing.happened" },
		"another operator's row": func(m *stack.EvidenceManifest) {
			m.Audit[2].OperatorID = "op_other"
			m.Audit[2].EntryHash = m.Audit[2].Hash()
		},
		"a row left out":        func(m *stack.EvidenceManifest) { m.Audit = append(m.Audit[:2], m.Audit[3:]...) },
		"rows in another order": func(m *stack.EvidenceManifest) { m.Audit[1], m.Audit[2] = m.Audit[2], m.Audit[1] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireProof(t, lie(t, change), stack.ProofAudit)
		})
	}
	requireProof(t, lie(t, func(m *stack.EvidenceManifest) { m.Type = "manifest" }), stack.ProofManifest)
}

// rebuilt encodes a manifest as a deployment would, sections and all.
func rebuilt(t testing.TB, m stack.EvidenceManifest, claim stack.EvidencePackClaim) ([]byte, stack.EvidencePackClaim) {
	t.Helper()
	sections := map[string]stack.EvidenceSection{}
	for name, list := range map[string]any{"audit": m.Audit, "missions": m.Missions, "operator_reviews": m.OperatorReviews,
		"passports": m.Passports, "security_events": m.SecurityEvents} {
		text := canonicalOf(t, list)
		var items []json.RawMessage
		require.NoError(t, json.Unmarshal(text, &items))
		sections[name] = stack.EvidenceSection{Count: len(items), SHA256: hexSHA256(text)}
	}
	m.Sections = sections
	text := canonicalOf(t, m)
	claim.ManifestSHA256, claim.ManifestBytes = hexSHA256(text), len(text)
	return text, claim
}

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func canonicalOf(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	canonical, err := jcs.Transform(text)
	require.NoError(t, err)
	return canonical
}

// FuzzVerifyEvidencePack feeds any manifest, under a claim that has its digest and under one that has not.
func FuzzVerifyEvidencePack(f *testing.F) {
	f.Add([]byte(`{"type":"evidence_manifest","version":1,"sections":{},"audit":[]}`))
	f.Add([]byte(`{"audit":[{"entry_id":"x"}],"missions":[],"operator_reviews":[],"passports":[],"security_events":[],"sections":{}}`))
	f.Add([]byte(`[1e999]`))
	f.Fuzz(func(t *testing.T, manifest []byte) {
		claim := stack.EvidencePackClaim{Type: stack.EvidencePackType, Version: 1, ManifestSHA256: hexSHA256(manifest), ManifestBytes: len(manifest)}
		for _, c := range []stack.EvidencePackClaim{claim, {Type: stack.EvidencePackType, Version: 1, ManifestSHA256: "0"}} {
			got, err := stack.VerifyEvidencePack(manifest, signedPack(t, c), testKeys())
			var proof *stack.ProofError
			if err != nil {
				require.ErrorAs(t, err, &proof)
				require.Nil(t, got)
			} else {
				require.Equal(t, hexSHA256(manifest), got.Claim.ManifestSHA256)
			}
		}
	})
}

// A pack is exported where there is an account, and verified where there is none.
func ExampleVerifyEvidencePack() {
	ctx := context.Background()
	srv, client, agentID := exampleAgent(ctx)
	defer srv.Close()
	mission, err := client.Passports.Mission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Acknowledge tickets",
		Services: []string{"slack"}})
	if err != nil {
		log.Fatal(err)
	}
	mission.Close(&err)
	pack, err := client.EvidencePacks.Export(ctx, stack.EvidencePackExportParams{
		Scope: stack.EvidenceScope{Kind: stack.EvidenceMission, Ref: mission.ID()}})
	if err != nil {
		log.Fatal(err)
	}
	var jwks json.RawMessage // which the verifier has from where it trusts it
	if err = client.Do(ctx, "GET", "/v1/.well-known/jwks.json", nil, &jwks); err != nil {
		log.Fatal(err)
	}

	keys, err := stack.ParseJWKS(jwks)
	if err != nil {
		log.Fatal(err)
	}
	evidence, err := stack.VerifyEvidencePack(pack.Manifest, pack.EnvelopeCOSE, keys)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(evidence.Manifest.Missions[0].IntentSummary, "-", evidence.Manifest.Missions[0].Status)

	forged := bytes.Replace(pack.Manifest, []byte("Acknowledge"), []byte("Delete"), 1)
	_, err = stack.VerifyEvidencePack(forged, pack.EnvelopeCOSE, keys)
	var proof *stack.ProofError
	fmt.Println(errors.As(err, &proof) && proof.Check == stack.ProofDigest)
	// Output:
	// Acknowledge tickets - completed
	// true
}
