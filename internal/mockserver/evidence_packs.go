package mockserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/evidence"
)

const (
	maxManifest    = 16 << 20  // bytes of one pack's manifest
	maxPacks       = 1000      // of one operator, on any plan
	maxPackStorage = 256 << 20 // bytes of all manifests of one operator
	packsResource  = "evidence_packs"
)

// evidencePack is an exported pack: nothing of it changes but what supersedes it.
type evidencePack struct {
	stack.EvidencePack
	manifest []byte
}

func evidencePackRoutes() []route {
	return []route{
		endpoint("POST", "/v1/evidence-packs", (*Server).exportEvidence, operatorOnly, unlocked),
		endpoint("GET", "/v1/evidence-packs", (*Server).listEvidence, operatorOnly),
		endpoint("GET", "/v1/evidence-packs/{pack_id}", (*Server).getEvidence, operatorOnly),
		endpoint("GET", "/v1/evidence-packs/{pack_id}/download", (*Server).downloadEvidence, operatorOnly, answers[stack.EvidenceManifest](jsonMedia)),
	}
}

// mayHavePacks refuses an operator who is not on the enterprise plan. (contract: server-api 4 and 23)
func (op *operator) mayHavePacks() error {
	tier := op.policy.Tier
	if tier == stack.TierEnterprise {
		return nil
	}
	return refuse(http.StatusForbidden, "TIER_LIMIT_EXCEEDED", fmt.Sprintf("the %s plan has no evidence packs", tier),
		map[string]any{"check": "plan_limit", "resource": packsResource, "tier": tier, "sent": tier, "allowed": stack.TierEnterprise})
}

type exportEvidenceIn struct {
	Body stack.EvidencePackExportParams `body:""`
}

// exportEvidence looks at the record under the operator's lock and encodes what it found without, which takes its time.
func (s *Server) exportEvidence(_ context.Context, c *caller, in exportEvidenceIn) (*stack.EvidencePack, error) {
	m, err := s.draftPack(c.op, in.Body)
	if err != nil {
		return nil, err
	}
	manifest, err := evidence.Build(*m, maxManifest)
	if errors.Is(err, evidence.ErrTooLarge) {
		return nil, refuse(http.StatusBadRequest, "INVALID_REQUEST", fmt.Sprintf("the manifest of %s would be over %d bytes", m.Scope, maxManifest),
			map[string]any{"check": "pack_size", "field": "body.scope", "sent": m.Scope, "allowed": fmt.Sprintf(
				"a scope with a manifest of at most %d bytes, such as a Mission", maxManifest)})
	}
	if err != nil {
		return nil, err
	}
	return s.keepPack(c.op, m, manifest)
}

// draftPack gathers the content of a pack. What it refers to is never changed afterwards.
func (s *Server) draftPack(op *operator, p stack.EvidencePackExportParams) (*stack.EvidenceManifest, error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	if err := op.mayHavePacks(); err != nil {
		return nil, err
	}
	scope, err := parseScope("body.scope", p.Scope)
	if err != nil {
		return nil, err
	}
	if _, err = op.placeForPack(scope, p.Supersedes); err != nil {
		return nil, err
	}
	m, err := s.gather(op, scope, now, p.AirGap)
	if err != nil {
		return nil, err
	}
	m.PackID, m.Supersedes = newID("ep_"), p.Supersedes
	return m, nil
}

// keepPack signs a pack and puts it on record.
func (s *Server) keepPack(op *operator, m *stack.EvidenceManifest, manifest []byte) (*stack.EvidencePack, error) {
	sum := sha256.Sum256(manifest)
	pack := &evidencePack{manifest: manifest, EvidencePack: stack.EvidencePack{PackID: m.PackID, ClaimID: newID("pc_")}}
	pack.PackClaim = stack.EvidencePackClaim{Type: stack.EvidencePackType, Version: stack.EvidenceVersion, ClaimID: pack.ClaimID,
		PackID: pack.PackID, OperatorID: op.id, IssuedAt: m.CreatedAt, Scope: m.Scope, Supersedes: m.Supersedes, AirGap: m.AirGap,
		ManifestSHA256: hex.EncodeToString(sum[:]), ManifestBytes: len(manifest)}
	answer, err := s.sealed(pack)
	if err != nil {
		return nil, err
	}
	answer.Manifest = manifest
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	old, err := op.placeForPack(m.Scope, m.Supersedes) // again: another export may have come between
	if err != nil {
		return nil, err
	}
	op.packs.put(pack.PackID, pack)
	op.packBytes += len(manifest)
	if old != nil {
		old.SupersededBy = pack.PackID
	}
	op.record(now, stack.AuditEntry{Action: "evidence_pack.export", TraceID: pack.PackID})
	return answer, nil
}

// placeForPack refuses a pack for which there is no room, or which may not supersede the one that it names, and finds that.
func (op *operator) placeForPack(scope stack.EvidenceScope, supersedes string) (old *evidencePack, err error) {
	if supersedes != "" {
		if old, err = op.supersedable(supersedes, scope); err != nil {
			return nil, err
		}
	}
	return old, op.roomForPack()
}

// supersedable finds a pack that a new one of the scope may replace.
func (op *operator) supersedable(id string, scope stack.EvidenceScope) (*evidencePack, error) {
	old, err := op.packByID(id)
	if err != nil {
		return nil, err
	}
	if old.PackClaim.Scope != scope {
		return nil, invalid("body.supersedes", id, fmt.Sprintf("a pack of the scope %s; that one is of %s", scope, old.PackClaim.Scope))
	}
	if old.SupersededBy != "" {
		return nil, refuse(http.StatusConflict, "EVIDENCE_PACK_SUPERSEDED", "the pack is superseded already, by "+old.SupersededBy,
			map[string]any{"check": "pack_state", "sent": id, "superseded_by": old.SupersededBy, "allowed": "the newest pack of its line"})
	}
	return old, nil
}

func (op *operator) roomForPack() error {
	for _, bound := range []struct {
		what       string
		have, most int
	}{{"packs", op.packs.len(), maxPacks}, {"bytes of packs", op.packBytes, maxPackStorage}} {
		if bound.have >= bound.most {
			return refuse(http.StatusForbidden, "TIER_LIMIT_EXCEEDED", fmt.Sprintf("%d %s are kept, which is as many as may be", bound.have, bound.what),
				map[string]any{"check": "plan_limit", "resource": packsResource, "limit": bound.most, "used": bound.have,
					"allowed": fmt.Sprintf("at most %d %s", bound.most, bound.what)})
		}
	}
	return nil
}

// sealed is a pack with its claim signed.
func (s *Server) sealed(p *evidencePack) (*stack.EvidencePack, error) {
	claim, err := claimOf(p.PackClaim)
	if err != nil {
		return nil, err
	}
	envelope, err := s.signer.SignClaim(claim)
	if err != nil {
		return nil, err
	}
	out := p.EvidencePack
	out.EnvelopeCOSE = base64.RawURLEncoding.EncodeToString(envelope)
	return &out, nil
}

// claimOf turns a struct into the fields that its JSON has, with whole numbers as such.
func claimOf(v any) (map[string]any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	if err = dec.Decode(&fields); err != nil {
		return nil, err
	}
	for name, value := range fields {
		if n, ok := value.(json.Number); ok {
			if fields[name], err = n.Int64(); err != nil {
				return nil, err
			}
		}
	}
	return fields, nil
}

// packByID finds a pack of an operator who may have packs.
func (op *operator) packByID(id string) (*evidencePack, error) {
	if err := op.mayHavePacks(); err != nil {
		return nil, err
	}
	return op.packs.find("evidence pack", id)
}

type listEvidenceIn struct {
	Scope string `query:"scope"`
}

type evidencePackList struct {
	Items []stack.EvidencePack `json:"items"`
}

func (s *Server) listEvidence(_ context.Context, c *caller, in listEvidenceIn) (*evidencePackList, error) {
	if err := c.op.mayHavePacks(); err != nil {
		return nil, err
	}
	var scope stack.EvidenceScope
	if in.Scope != "" {
		kind, ref, found := strings.Cut(in.Scope, ":")
		if !found {
			return nil, invalid("query.scope", in.Scope, "<kind>:<ref>, such as mission:ms_… or period:2026-Q1")
		}
		var err error
		if scope, err = parseScope("query.scope", stack.EvidenceScope{Kind: stack.EvidenceScopeKind(kind), Ref: ref}); err != nil {
			return nil, err
		}
	}
	list := &evidencePackList{Items: []stack.EvidencePack{}}
	for p := range c.op.packs.newest() {
		if in.Scope == "" || p.PackClaim.Scope == scope {
			list.Items = append(list.Items, p.EvidencePack)
		}
	}
	return list, nil
}

type evidencePackIn struct {
	PackID string `path:"pack_id"`
}

func (s *Server) getEvidence(_ context.Context, c *caller, in evidencePackIn) (*stack.EvidencePack, error) {
	p, err := c.op.packByID(in.PackID)
	if err != nil {
		return nil, err
	}
	return s.sealed(p)
}

func (s *Server) downloadEvidence(_ context.Context, c *caller, in evidencePackIn) (*document, error) {
	p, err := c.op.packByID(in.PackID)
	if err != nil {
		return nil, err
	}
	return &document{contentType: "application/json", body: p.manifest}, nil
}

// scopeForms are the forms of references, and what to say of another one.
var scopeForms = map[stack.EvidenceScopeKind]struct {
	form    *regexp.Regexp
	allowed string
}{
	stack.EvidenceMission:  {regexp.MustCompile(`^ms_[A-Za-z0-9_-]{1,64}$`), "the id of a Mission, ms_…"},
	stack.EvidenceSession:  {regexp.MustCompile(`^ses_[A-Za-z0-9_-]{1,64}$`), "the id of a session, ses_…"},
	stack.EvidenceIncident: {regexp.MustCompile(`^incident:[A-Za-z0-9_-]{1,64}$`), "incident:sev_…, with the id of a security event"},
	stack.EvidencePeriod:   {regexp.MustCompile(`^period:[0-9]{4}-Q[1-4]$`), "a quarter, such as period:2026-Q1"},
}

// parseScope checks the form of a scope and gives its reference the one form that is kept: incident:sev_… and
// period:2026-Q1 with their prefixes, which the caller may leave out. (contract: endpoints 1.7)
func parseScope(field string, s stack.EvidenceScope) (stack.EvidenceScope, error) {
	if err := firstError(chosen(field+".kind", s.Kind, stack.EvidenceMission, stack.EvidenceSession, stack.EvidenceIncident,
		stack.EvidencePeriod)); err != nil {
		return s, err
	}
	sent := s.Ref
	if s.Kind == stack.EvidenceIncident || s.Kind == stack.EvidencePeriod {
		s.Ref = s.String()
	}
	if f := scopeForms[s.Kind]; !f.form.MatchString(s.Ref) {
		return s, invalid(field+".ref", sent, f.allowed)
	}
	return s, nil
}

// quarter returns the bounds of a period in UTC.
func quarter(ref string) (from, to time.Time) {
	var year, q int
	_, _ = fmt.Sscanf(ref, "period:%d-Q%d", &year, &q) // its form has been checked
	from = time.Date(year, time.Month(3*q-2), 1, 0, 0, 0, 0, time.UTC)
	return from, from.AddDate(0, 3, 0)
}
