package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/gowebpki/jcs"
)

// maxManifestText is how large a manifest may be in any form; a canonical one has 16 MB at most.
const maxManifestText = 64 << 20

// VerifiedEvidence is an evidence pack that has been verified.
type VerifiedEvidence struct {
	KeyID    string // of the key that signed the claim
	Claim    EvidencePackClaim
	Manifest EvidenceManifest
}

// VerifyEvidencePack verifies a pack offline: the claim in its envelope (envelope_cose, see [VerifyClaim]), the manifest's
// digest against the one signed, that both speak of the same pack, the digests of the sections, and the hash of every
// audit row; in the pack of a period also that the rows follow each other without a gap. The manifest is given as it was
// downloaded or in any other form of the same JSON, such as an indented one. Take the keys from where you trust them
// ([ParseJWKS]), not from the pack, and give only the deployment's: a pack that any of them has signed passes. It fails with
// a [*ProofError], whose Check says what is wrong.
func VerifyEvidencePack(manifest []byte, envelope string, keys PublicKeys) (*VerifiedEvidence, error) {
	claim, err := VerifyClaim(envelope, keys)
	if err != nil {
		return nil, err
	}
	out := &VerifiedEvidence{KeyID: claim.KeyID}
	if out.Claim, err = evidenceClaim(claim); err != nil {
		return nil, err
	}
	canonical, err := canonicalManifest(manifest, out.Claim.ManifestSHA256)
	if err != nil {
		return nil, err
	}
	if err = json.Unmarshal(canonical, &out.Manifest); err != nil {
		return nil, &ProofError{Check: ProofManifest, Reason: "the manifest cannot be read", Err: err}
	}
	for _, check := range []func() error{
		func() error { return checkSections(canonical, out.Manifest.Sections) },
		func() error { return checkSame(out.Claim, out.Manifest, len(canonical)) },
		func() error { return checkRows(out.Manifest) },
	} {
		if err = check(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// evidenceClaim reads a claim by way of JSON, which knows the wire's times.
func evidenceClaim(claim *VerifiedClaim) (c EvidencePackClaim, err error) {
	var fields map[string]any
	if err = claim.Decode(&fields); err != nil {
		return c, err
	}
	text, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return c, &ProofError{Check: ProofPayload, Reason: "the claim is not that of an evidence pack", Err: err}
	}
	if c.Type != EvidencePackType || c.Version != EvidenceVersion {
		return c, proofFailed(ProofPayload, "the claim is %q in version %d, not %s in version %d", c.Type, c.Version,
			EvidencePackType, EvidenceVersion)
	}
	return c, nil
}

// canonicalManifest returns the canonical form of the manifest that has the digest. Where none has, it says which section was
// changed, if it is one: the digests of the sections tell.
func canonicalManifest(manifest []byte, digest string) ([]byte, error) {
	if len(manifest) > maxManifestText {
		return nil, proofFailed(ProofManifest, "the manifest is over %d bytes", maxManifestText)
	}
	if sha256Hex(manifest) == digest { // the very bytes that were signed
		return manifest, nil
	}
	canonical, err := jcs.Transform(manifest)
	if err != nil {
		return nil, &ProofError{Check: ProofManifest, Reason: "the manifest is not JSON that has a canonical form", Err: err}
	}
	if sha256Hex(canonical) == digest {
		return canonical, nil
	}
	var m EvidenceManifest
	if json.Unmarshal(canonical, &m) == nil {
		var section *ProofError
		if errors.As(checkSections(canonical, m.Sections), &section) {
			return nil, section
		}
	}
	return nil, proofFailed(ProofDigest, "the manifest is not the one that was signed: its SHA-256 is %s, signed is %s",
		sha256Hex(canonical), digest)
}

// evidenceSections are the names of the lists of a manifest.
var evidenceSections = []string{"audit", "missions", "operator_reviews", "passports", "security_events"}

// checkSections recomputes what the manifest says of its lists.
func checkSections(canonical []byte, sections map[string]EvidenceSection) error {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &parts); err != nil {
		return &ProofError{Check: ProofManifest, Reason: "the manifest is no object", Err: err}
	}
	if names := slices.Sorted(maps.Keys(sections)); !slices.Equal(names, evidenceSections) {
		return proofFailed(ProofManifest, "it sums up the sections %s; a manifest has %s",
			strings.Join(names, ", "), strings.Join(evidenceSections, ", "))
	}
	for _, name := range evidenceSections {
		var items []json.RawMessage
		if err := json.Unmarshal(parts[name], &items); err != nil || items == nil {
			return &ProofError{Check: ProofManifest, Reason: "the section " + name + " is no list", Err: err}
		}
		if want := sections[name]; len(items) != want.Count || sha256Hex(parts[name]) != want.SHA256 {
			return proofFailed(ProofDigest, "the section %s was changed: it has %d items and the SHA-256 %s; it must have %d and %s",
				name, len(items), sha256Hex(parts[name]), want.Count, want.SHA256)
		}
	}
	return nil
}

// checkSame holds the manifest against the claim.
func checkSame(c EvidencePackClaim, m EvidenceManifest, size int) error {
	switch {
	case m.Type != EvidenceManifestType || m.Version != EvidenceVersion:
		return proofFailed(ProofManifest, "it is %q in version %d, not %s in version %d", m.Type, m.Version,
			EvidenceManifestType, EvidenceVersion)
	case m.PackID != c.PackID:
		return proofFailed(ProofManifest, "it is of the pack %q, the claim of %q", m.PackID, c.PackID)
	case m.OperatorID != c.OperatorID:
		return proofFailed(ProofManifest, "it is of the operator %q, the claim of %q", m.OperatorID, c.OperatorID)
	case m.Scope != c.Scope:
		return proofFailed(ProofManifest, "its scope is %q, the claim's %q", m.Scope, c.Scope)
	case m.Supersedes != c.Supersedes || m.AirGap != c.AirGap:
		return proofFailed(ProofManifest, "supersedes or air_gap is not what the claim says")
	case size != c.ManifestBytes:
		return proofFailed(ProofManifest, "it has %d bytes, by the claim %d", size, c.ManifestBytes)
	}
	return nil
}

// checkRows recomputes the hashes of the audit rows.
func checkRows(m EvidenceManifest) error {
	for i, row := range m.Audit {
		if want := row.Hash(); row.EntryHash != want {
			return proofFailed(ProofAudit, "the row %d (%q) has the hash %q; by its content it is %s", i, row.EntryID, row.EntryHash, want)
		}
		if row.OperatorID != m.OperatorID {
			return proofFailed(ProofAudit, "the row %d (%q) is of another operator", i, row.EntryID)
		}
		if m.Scope.Kind == EvidencePeriod && i > 0 && row.PrevEntryHash != m.Audit[i-1].EntryHash {
			return proofFailed(ProofAudit, "the row %d (%q) does not follow the one before it", i, row.EntryID)
		}
	}
	return nil
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
