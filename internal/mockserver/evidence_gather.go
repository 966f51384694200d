package mockserver

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

// scopeContent is what a scope takes in: its Missions and passports, security events, and which rows of the audit log.
type scopeContent struct {
	missions  []*mission
	passports []*passport
	events    []*stack.SecurityEvent
	from, to  time.Time // of a period
}

// gather puts together what is on record of a scope. A Mission brings its passports; a session its passports and their
// Missions; an incident the passport that its event names and those delegated from it, with their Mission; a period the
// Missions that were open in it, with all their passports. Each brings the events and audit rows that name something of it,
// a period those of its time. This is ours.
func (s *Server) gather(op *operator, scope stack.EvidenceScope, now time.Time, airGap bool) (*stack.EvidenceManifest, error) {
	content, err := op.contentOf(scope, now)
	if err != nil {
		return nil, err
	}
	head, count := op.chain.Head()
	m := &stack.EvidenceManifest{Type: stack.EvidenceManifestType, Version: stack.EvidenceVersion, OperatorID: op.id, Scope: scope,
		From: content.from, To: content.to, CreatedAt: now.UTC(), AirGap: airGap,
		ChainHead: stack.ChainHead{HeadHash: head, EntryCount: count}}
	named := map[string]bool{} // ids by which rows of the audit log are found
	for _, mission := range content.missions {
		named[mission.MissionID] = true
		m.Missions = append(m.Missions, mission.view())
		for _, r := range mission.reviews {
			if airGap {
				envelope, signErr := s.signer.SignClaim(r.Claim)
				if signErr != nil {
					return nil, signErr
				}
				r.EnvelopeCOSE = base64.RawURLEncoding.EncodeToString(envelope)
			}
			m.OperatorReviews = append(m.OperatorReviews, r)
		}
	}
	for _, p := range content.passports {
		named[p.jti()] = true
		m.Passports = append(m.Passports, *p.report(now))
	}
	for _, e := range content.events {
		named[e.ID] = true
		m.SecurityEvents = append(m.SecurityEvents, *e)
	}
	for _, row := range op.chain.Range(content.from, content.to) {
		if scope.Kind == stack.EvidencePeriod || named[row.TraceID] || named[row.PassportJTI] {
			m.Audit = append(m.Audit, row)
		}
	}
	if airGap {
		if m.Keys, err = json.Marshal(s.signer.JWKS()); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// contentOf finds what a scope takes in, and refuses one that there is not.
func (op *operator) contentOf(scope stack.EvidenceScope, now time.Time) (c scopeContent, err error) {
	switch scope.Kind {
	case stack.EvidenceMission:
		m, err := op.missionByID(scope.Ref)
		if err != nil {
			return c, err
		}
		c.missions, c.passports = []*mission{m}, m.passports
	case stack.EvidenceSession:
		for p := range op.passports.all() {
			if p.claims.STK.SessionID == scope.Ref {
				c.addPassport(p)
			}
		}
		if c.passports == nil {
			return c, notFound("session", scope.Ref)
		}
	case stack.EvidenceIncident:
		id := scope.Ref[len("incident:"):]
		e, ok := op.events.get(id)
		if !ok {
			return c, notFound("security event", id)
		}
		if p, ok := op.passports.get(e.PassportJTI); ok {
			for _, member := range p.lineage() {
				c.addPassport(member)
			}
		} else {
			c.events = []*stack.SecurityEvent{e}
		}
	case stack.EvidencePeriod:
		c.from, c.to = quarter(scope.Ref)
		if c.from.After(now) {
			return c, invalid("body.scope.ref", scope.Ref, "a quarter that has begun")
		}
		for m := range op.missions.all() {
			if m.OpenedAt.Before(c.to) && (m.EndedAt.IsZero() || !m.EndedAt.Before(c.from)) {
				c.missions = append(c.missions, m)
				c.passports = append(c.passports, m.passports...)
			}
		}
	}
	jtis := map[string]bool{}
	for _, p := range c.passports {
		jtis[p.jti()] = true
	}
	for e := range op.events.all() {
		inPeriod := !c.from.IsZero() && !e.CreatedAt.Before(c.from) && e.CreatedAt.Before(c.to)
		if inPeriod || jtis[e.PassportJTI] {
			c.events = append(c.events, e)
		}
	}
	return c, nil
}

// addPassport takes in a passport and its Mission, if that is new.
func (c *scopeContent) addPassport(p *passport) {
	c.passports = append(c.passports, p)
	if !slices.Contains(c.missions, p.mission) {
		c.missions = append(c.missions, p.mission)
	}
}

// lineage is a passport with all that were delegated from it, breadth first.
func (p *passport) lineage() []*passport {
	all := []*passport{p}
	for i := 0; i < len(all); i++ {
		all = append(all, all[i].children...)
	}
	return all
}
