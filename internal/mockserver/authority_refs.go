package mockserver

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

const maxPassportBindings = 16 // in one passport: its token has a bounded size

// passportHeader is where third parties expect a passport. (contract: server-api 7.1)
const passportHeader = "X-Stack-Passport"

// lapse says why a version is not in force; empty when it is.
func (op *operator) lapse(v *bindingVersion) string {
	if v.Status != stack.BindingActive {
		return string(v.Status)
	}
	if r, ok := op.authority.receivers.get(v.ReceiverID); !ok || r.Status != stack.ReceiverVerified {
		return "receiver_unverified"
	}
	return ""
}

// exhausted reports whether a version, or one that it was delegated from, has had all its uses.
func (v *bindingVersion) exhausted() bool {
	for ; v != nil; v = v.of.parent {
		if v.MaxUses > 0 && v.Uses >= v.MaxUses {
			return true
		}
	}
	return false
}

// use counts a use of a version, or takes it back, there and where it was delegated from.
func (v *bindingVersion) use(n int) {
	for ; v != nil; v = v.of.parent {
		v.Uses += n
	}
}

func bindingInactive(bindingID, reason string, details map[string]any) error {
	all := map[string]any{"check": "authority_binding", "sent": bindingID, "binding_id": bindingID, "reason": reason,
		"allowed": "an authority binding of the agent's own that is active, at a verified receiver, with uses left"}
	for key, value := range details {
		all[key] = value
	}
	return refuse(http.StatusForbidden, "AUTHORITY_BINDING_INACTIVE",
		fmt.Sprintf("the authority binding %s is not in force: %s", bindingID, reason), all)
}

// bindingsInForce finds bindings that an agent may act under now; an empty agent id is any.
func (op *operator) bindingsInForce(field string, ids []string, agentID string) ([]*bindingVersion, error) {
	if err := firstError(listAtMost(field, ids, maxPassportBindings, maxName), distinct(field, ids)); err != nil {
		return nil, err
	}
	var found []*bindingVersion
	for i, id := range ids {
		b, err := op.bindingByID(id)
		if err != nil {
			return nil, err
		}
		v := b.current()
		reason := op.lapse(v)
		if reason == "" && v.exhausted() {
			reason = "exhausted"
		}
		if reason == "" && agentID != "" && v.AgentID != agentID {
			reason = "other_agent"
		}
		if reason != "" {
			return nil, bindingInactive(id, reason, map[string]any{"field": fmt.Sprintf("%s[%d]", field, i)})
		}
		found = append(found, v)
	}
	return found, nil
}

// authorityRefs makes what a new passport says of the bindings that it is to carry: those that are named, or else all of its
// Mission's, beyond which none can be named where it has some.
func (op *operator) authorityRefs(a *agent, m *mission, ids []string) ([]stack.AuthorityRef, error) {
	const field = "body.authority_binding_ids"
	ofMission := m.AuthorityBindingIDs
	if ids == nil {
		ids = ofMission
	}
	for i, id := range ids {
		if len(ofMission) > 0 && !slices.Contains(ofMission, id) {
			at := fmt.Sprintf("%s[%d]", field, i)
			return nil, refuse(http.StatusBadRequest, "SCOPE_ESCALATION", at+" goes beyond the Mission's authority bindings",
				map[string]any{"check": "authority_binding", "field": at, "sent": clip(id), "allowed": ofMission})
		}
	}
	versions, err := op.bindingsInForce(field, ids, a.ID)
	if err != nil {
		return nil, err
	}
	return refsTo(versions), nil
}

func refsTo(versions []*bindingVersion) (refs []stack.AuthorityRef) {
	for _, v := range versions {
		refs = append(refs, stack.AuthorityRef{BindingID: v.ID, BindingVersion: v.Version, BindingClaimID: v.ClaimID,
			BindingDigest: v.Digest, ReceiverID: v.ReceiverID, ReceiverProfileVersionID: v.ReceiverProfileVersionID,
			ExpiresAt: v.ExpiresAt})
	}
	return refs
}

// bindingIDs names the bindings of a passport. It is never nil, which would mean the default.
func (p *passport) bindingIDs() []string {
	ids := []string{}
	for _, ref := range p.claims.STK.AuthorityRefs {
		ids = append(ids, ref.BindingID)
	}
	return ids
}

// delegatedRefs makes what a delegated passport carries: of the parent's bindings, what was delegated to its agent. A binding
// itself stays with the agent that it was made for.
func (op *operator) delegatedRefs(parent *passport, agentID string) []stack.AuthorityRef {
	carried := parent.bindingIDs()
	var versions []*bindingVersion
	for b := range op.authority.bindings.newest() {
		v := b.current()
		if b.parent != nil && v.AgentID == agentID && slices.Contains(carried, b.parent.ID) && op.lapse(v) == "" &&
			len(versions) < maxPassportBindings {
			versions = append(versions, v)
		}
	}
	return refsTo(versions)
}

// underAuthority is a proxied call's use of one binding.
type underAuthority struct {
	version *bindingVersion
	use     *stack.AuthorityUse
	present bool // the call goes to a host of the receiver
}

// lapsedBinding is a binding of a passport that is not in force any more.
type lapsedBinding struct {
	ref    stack.AuthorityRef
	reason string
}

func (l *lapsedBinding) refusal() error {
	return bindingInactive(l.ref.BindingID, l.reason, map[string]any{"binding_version": l.ref.BindingVersion})
}

// carried finds the version that a passport's reference names, unless its binding was erased.
func (op *operator) carried(ref stack.AuthorityRef) (*bindingVersion, bool) {
	b, ok := op.authority.bindings.get(ref.BindingID)
	if !ok {
		return nil, false
	}
	return b.versions[ref.BindingVersion-1], true
}

// lapsedOf finds a binding of a passport that is not in force any more, nil where all are: as soon as one is not, the passport
// is good for nothing.
func (op *operator) lapsedOf(p *passport) *lapsedBinding {
	for _, ref := range p.claims.STK.AuthorityRefs {
		reason := "erased"
		if v, ok := op.carried(ref); ok {
			reason = op.lapse(v)
		}
		if reason != "" {
			return &lapsedBinding{ref, reason}
		}
	}
	return nil
}

// checkAuthority looks at the bindings that the passport carries. Those that cover the service are used by the call, unless it
// only asks again for the answer of an earlier one.
func (s *Server) checkAuthority(call *proxyCall) error {
	names := []string{call.in.Service}
	if call.in.Service == skillService { // the simulation of an invocation
		names = append(names, call.in.URL)
	}
	versions, lapsed := call.op.covering(call.passport, names...)
	if call.isRepetition() {
		versions, lapsed = nil, call.op.lapsedOf(call.passport)
	}
	if call.lapsed = lapsed; lapsed != nil {
		return lapsed.refusal()
	}
	for _, v := range versions {
		call.authority = append(call.authority, underAuthority{version: v, present: call.reaches(v)})
	}
	return nil
}

// covering finds those bindings of a passport that cover a service, or a skill: by any of its names. It is in vain when one of
// the passport's is not in force any more, or one that covers it has no use left.
func (op *operator) covering(p *passport, names ...string) ([]*bindingVersion, *lapsedBinding) {
	if lapsed := op.lapsedOf(p); lapsed != nil {
		return nil, lapsed
	}
	var found []*bindingVersion
	for _, ref := range p.claims.STK.AuthorityRefs {
		v, ok := op.carried(ref)
		covers := func(name string) bool { return slices.Contains(v.Services, name) }
		if !ok || !slices.ContainsFunc(names, covers) {
			continue
		}
		if exhausts(found, v) {
			return nil, &lapsedBinding{ref, "exhausted"}
		}
		found = append(found, v)
	}
	return found, nil
}

// exhausts reports whether there can be no use of a version beside one of each of others: they may come from one binding.
func exhausts(others []*bindingVersion, v *bindingVersion) bool {
	for _, other := range others {
		other.use(1)
		defer other.use(-1)
	}
	return v.exhausted()
}

// reaches reports whether a call goes to the receiver of a binding, on a way that shows the passport to nobody else.
func (call *proxyCall) reaches(v *bindingVersion) bool {
	r, ok := call.op.authority.receivers.get(v.ReceiverID)
	return ok && call.target != nil && call.target.Scheme == "https" && slices.Contains(r.Hosts, call.target.Host)
}

// recordUse puts the use that a call makes of a binding on record.
func (call *proxyCall) recordUse(ref stack.AuthorityRef, outcome stack.UseOutcome, reason string) *stack.AuthorityUse {
	u := stack.AuthorityUse{Service: clip(call.in.Service), Method: call.in.Method, Outcome: outcome, Reason: reason, UsedAt: call.now}
	if call.target != nil {
		u.Host = call.target.Host
	}
	return call.op.recordUse(call.passport, ref, u)
}

// recordUse puts a use of a binding under a passport on record.
func (op *operator) recordUse(p *passport, ref stack.AuthorityRef, u stack.AuthorityUse) *stack.AuthorityUse {
	u.ID, u.OperatorID, u.BindingID, u.BindingVersion = newID("use_"), op.id, ref.BindingID, ref.BindingVersion
	u.AgentID, u.PassportJTI, u.MissionID, u.ReceiverID = p.agentID(), p.jti(), p.mission.MissionID, ref.ReceiverID
	keep(&op.authority.uses, u.ID, &u)
	return &u
}

// useAuthority counts the uses of a call that passed every check, and has it carry the passport where a receiver will see it.
func (call *proxyCall) useAuthority() {
	present := false
	for i := range call.authority {
		a := &call.authority[i]
		a.version.use(1)
		a.use = call.recordUse(refsTo([]*bindingVersion{a.version})[0], stack.UseAllowed, "")
		present = present || a.present
	}
	if present {
		call.credential = call.credential.And(forward.Header(passportHeader, "", call.passport.token))
	}
}

// settleAuthority notes which receivers were shown their binding, or takes back the uses of a call that was not sent.
func (call *proxyCall) settleAuthority(sent bool) {
	for _, a := range call.authority {
		switch {
		case !sent:
			a.version.use(-1)
			a.use.Outcome = stack.UseNotSent
		case a.present:
			p := &stack.AuthorityPresentation{ID: newID("pres_"), OperatorID: call.op.id, UseID: a.use.ID, BindingID: a.version.ID,
				BindingVersion: a.version.Version, BindingClaimID: a.version.ClaimID, BindingDigest: a.version.Digest,
				ReceiverID: a.version.ReceiverID, ReceiverProfileVersionID: a.version.ReceiverProfileVersionID,
				PassportJTI: call.passport.jti(), Host: call.target.Host, PresentedAt: call.now}
			keep(&call.op.authority.presentations, p.ID, p)
		}
	}
}
