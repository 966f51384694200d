package mockserver

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

const (
	defaultBindingLife = 30 * day
	maxBindingLife     = 365 * day
	maxBindingProofs   = 16
)

// binding is an authority binding in all its versions.
type binding struct {
	id       string
	versions []*bindingVersion
	requests []*stack.ApprovalRequest
	parent   *bindingVersion // of a delegated binding
	depth    int             // delegations above it
}

type bindingVersion struct {
	stack.AuthorityBinding
	of *binding
}

func (b *binding) newest() *bindingVersion { return b.versions[len(b.versions)-1] }

// current is the version that is active or, if none is, the newest.
func (b *binding) current() *bindingVersion {
	for _, v := range b.versions {
		if v.Status == stack.BindingActive {
			return v
		}
	}
	return b.newest()
}

func (b *binding) view() stack.AuthorityBinding { return b.current().AuthorityBinding }

// onItsWay reports whether a version has not been decided about yet.
func (v *bindingVersion) onItsWay() bool {
	return v.Status == stack.BindingDraft || v.Status == stack.BindingPending || v.Status == stack.BindingApproved
}

// live reports whether a version may be used, now or later.
func (v *bindingVersion) live() bool { return v.Status == stack.BindingActive || v.onItsWay() }

// restsOn reports whether a version was made with a version of a proof; 0 is any.
func (v *bindingVersion) restsOn(proofID string, version int) bool {
	return slices.ContainsFunc(v.Proofs, func(p stack.ProofVersion) bool {
		return p.ProofID == proofID && (version == 0 || version == p.Version)
	})
}

type (
	bindingOut struct {
		Binding *stack.AuthorityBinding `json:"binding"`
	}
	bindingsOut struct {
		Bindings []stack.AuthorityBinding `json:"bindings"`
	}
)

type createBindingIn struct {
	Body stack.AuthorityBindingParams `body:""`
}

func (s *Server) createBinding(_ context.Context, c *caller, in createBindingIn) (*bindingOut, error) {
	op, now, p := c.op, s.clock.now(), in.Body
	profile := op.activeProfile(stack.ProfileReceiver)
	if profile == nil {
		return nil, wrongState("profile", string(stack.ProfileReceiver), "not active", "an active profile of kind receiver")
	}
	if err := checkBinding(&p, profile.Rules, now); err != nil {
		return nil, err
	}
	if _, err := op.activePrincipal(p.PrincipalID); err != nil {
		return nil, err
	}
	if _, err := op.agentByID(p.AgentID); err != nil {
		return nil, err
	}
	if _, err := op.receiverByID(p.ReceiverID); err != nil {
		return nil, err
	}
	proofs, err := op.proofsFor(p)
	if err != nil {
		return nil, err
	}
	b := &binding{id: newID("bnd_")}
	if p.BindingID != "" {
		if b, err = op.nextOfBinding(p); err != nil {
			return nil, err
		}
	}
	required := 1
	if approval := op.activeProfile(stack.ProfileApproval); approval != nil {
		required = or(approval.Rules.RequiredApprovals, required)
	}
	v, err := op.addVersion(b, stack.AuthorityBinding{Status: stack.BindingDraft, PrincipalID: p.PrincipalID, AgentID: p.AgentID,
		ReceiverID: p.ReceiverID, ReceiverProfileVersionID: profile.ID, Services: p.Services, Proofs: proofs, Purpose: p.Purpose,
		RequiredApprovals: required, MaxUses: p.MaxUses, MayDelegate: p.MayDelegate,
		ExpiresAt: p.ExpiresAt.UTC()}, now)
	if err != nil {
		return nil, err
	}
	op.recordAuthority(now, "binding_create", b.id, "")
	return &bindingOut{&v.AuthorityBinding}, nil
}

// checkBinding holds the rules for the fields of a binding, its receiver profile's among them, and fills in when it ends.
func checkBinding(p *stack.AuthorityBindingParams, rules stack.ProfileRules, now time.Time) error {
	if len(p.Services) == 0 {
		return invalid("body.services", "empty", "at least one service")
	}
	if len(p.ProofIDs) == 0 {
		return invalid("body.proof_ids", "empty", "at least one proof")
	}
	most := or(rules.MaxLifetime, maxBindingLife)
	if err := firstError(
		listAtMost("body.services", p.Services, maxServices, maxServiceName),
		distinct("body.services", p.Services),
		listAtMost("body.proof_ids", p.ProofIDs, maxBindingProofs, maxName),
		distinct("body.proof_ids", p.ProofIDs),
		filled("body.purpose", p.Purpose),
		atMost("body.purpose", p.Purpose, maxPurpose),
		within("body.max_uses", p.MaxUses, 0, 1<<31),
		ahead("body.expires_at", p.ExpiresAt, now, most),
	); err != nil {
		return err
	}
	for i, name := range p.Services {
		if len(rules.Services) > 0 && !slices.Contains(rules.Services, name) {
			return invalid(fmt.Sprintf("body.services[%d]", i), name,
				"one that the active receiver profile allows: "+strings.Join(rules.Services, ", "))
		}
	}
	if p.ExpiresAt.IsZero() {
		p.ExpiresAt = now.Add(min(defaultBindingLife, most))
	}
	return nil
}

// proofsFor finds the proofs of a new version, in their versions of now.
func (op *operator) proofsFor(p stack.AuthorityBindingParams) ([]stack.ProofVersion, error) {
	var accepted []stack.ProofKind
	if profile := op.activeProfile(stack.ProfileProof); profile != nil {
		accepted = profile.Rules.AcceptedProofKinds
	}
	proofs := make([]stack.ProofVersion, len(p.ProofIDs))
	for i, id := range p.ProofIDs {
		field := fmt.Sprintf("body.proof_ids[%d]", i)
		pr, err := op.proofByID(id)
		if err != nil {
			return nil, err
		}
		v := pr.newest()
		switch {
		case v.PrincipalID != p.PrincipalID:
			return nil, invalid(field, id, "a proof of the binding's principal")
		case v.Status != stack.ProofActive:
			return nil, wrongState("proof", id, v.Status, "an active proof")
		case len(accepted) > 0 && !slices.Contains(accepted, v.Kind):
			return nil, invalid(field, "of kind "+string(v.Kind),
				fmt.Sprintf("of a kind that the active proof profile accepts: %s", accepted))
		}
		proofs[i] = stack.ProofVersion{ProofID: id, Version: v.Version}
	}
	return proofs, nil
}

// nextOfBinding finds a binding that may have the version that is made.
func (op *operator) nextOfBinding(p stack.AuthorityBindingParams) (*binding, error) {
	b, err := op.bindingByID(p.BindingID)
	if err != nil {
		return nil, err
	}
	last := b.newest()
	switch {
	case b.parent != nil:
		return nil, invalid("body.binding_id", b.id, "a binding that is not delegated")
	case last.PrincipalID != p.PrincipalID:
		return nil, invalid("body.principal_id", p.PrincipalID, last.PrincipalID+", the binding's")
	case last.AgentID != p.AgentID:
		return nil, invalid("body.agent_id", p.AgentID, last.AgentID+", the binding's")
	case last.ReceiverID != p.ReceiverID:
		return nil, invalid("body.receiver_id", p.ReceiverID, last.ReceiverID+", the binding's")
	case last.onItsWay() || last.Status == stack.BindingRevoked:
		return nil, wrongState("binding", b.id, last.Status, "a binding whose last version is active, rejected or expired")
	case len(b.versions) == maxVersions:
		return nil, wrongState("binding", b.id, fmt.Sprintf("in its version %d", maxVersions), "a binding with fewer versions")
	}
	return b, nil
}

// addVersion puts the next version of a binding on record, the first one of a new binding.
func (op *operator) addVersion(b *binding, v stack.AuthorityBinding, now time.Time) (*bindingVersion, error) {
	v.ID, v.OperatorID, v.Version, v.CreatedAt = b.id, op.id, len(b.versions)+1, now
	sum, err := digestOf(v.ID, v.Version, v.PrincipalID, v.AgentID, v.ReceiverID, v.ReceiverProfileVersionID, v.Services,
		v.Proofs, v.Purpose, v.MaxUses, v.MayDelegate, v.ParentBindingID, v.ExpiresAt)
	if err != nil {
		return nil, err
	}
	v.Digest = "sha256:" + hex.EncodeToString(sum[:])
	added := &bindingVersion{v, b}
	b.versions = append(b.versions, added)
	op.authority.bindings.put(b.id, b)
	op.due.add(v.ExpiresAt, func(at time.Time) { op.endVersion(added, stack.BindingExpired, "", at) })
	return added, nil
}

func (s *Server) listBindings(_ context.Context, c *caller, _ none) (*bindingsOut, error) {
	return &bindingsOut{newest(&c.op.authority.bindings, (*binding).view)}, nil
}

func (op *operator) bindingByID(id string) (*binding, error) {
	return find(op, &op.authority.bindings, "binding", id)
}

type versionOfBindingIn struct {
	BindingID string `path:"binding_id"`
	Version   *int   `query:"version"`
}

func (s *Server) getBinding(_ context.Context, c *caller, in versionOfBindingIn) (*bindingOut, error) {
	b, err := c.op.bindingByID(in.BindingID)
	if err != nil {
		return nil, err
	}
	v, err := inVersion("binding", b.id, b.versions, in.Version, b.current())
	if err != nil {
		return nil, err
	}
	return &bindingOut{&v.AuthorityBinding}, nil
}

func (s *Server) activateBinding(_ context.Context, c *caller, in versionOfBindingIn) (*bindingOut, error) {
	op, now := c.op, s.clock.now()
	b, err := op.bindingByID(in.BindingID)
	if err != nil {
		return nil, err
	}
	v, err := inVersion("binding", b.id, b.versions, in.Version, b.newest())
	if err != nil {
		return nil, err
	}
	if v.Status != stack.BindingApproved {
		return nil, wrongState("binding", b.id, v.Status, "a version that is approved")
	}
	receiver, err := op.receiverByID(v.ReceiverID)
	if err != nil {
		return nil, err
	}
	if receiver.Status != stack.ReceiverVerified {
		return nil, wrongState("receiver", receiver.ID, receiver.Status, "a verified receiver")
	}
	if before := b.current(); before != v {
		op.endVersion(before, stack.BindingSuperseded, "", now)
	}
	v.Status, v.ActivatedAt, v.ClaimID = stack.BindingActive, now, newID("pc_")
	op.recordAuthority(now, "binding_activate", b.id, "")
	return &bindingOut{&v.AuthorityBinding}, nil
}

type delegateBindingIn struct {
	BindingID string                      `path:"binding_id"`
	Body      stack.BindingDelegateParams `body:""`
}

func (s *Server) delegateBinding(_ context.Context, c *caller, in delegateBindingIn) (*bindingOut, error) {
	op, now, p := c.op, s.clock.now(), in.Body
	b, err := op.bindingByID(in.BindingID)
	if err != nil {
		return nil, err
	}
	v := b.current()
	if v.Status != stack.BindingActive {
		return nil, wrongState("binding", b.id, v.Status, "an active binding")
	}
	if _, err = op.agentByID(p.AgentID); err != nil {
		return nil, err
	}
	if err = v.mayGive(p, now); err != nil {
		return nil, err
	}
	child := &binding{id: newID("bnd_"), parent: v, depth: b.depth + 1}
	given := v.AuthorityBinding
	given.AgentID, given.ParentBindingID, given.ActivatedAt, given.ClaimID = p.AgentID, b.id, now, newID("pc_")
	given.ExpiresAt, given.MaxUses, given.MayDelegate = or(p.ExpiresAt, v.ExpiresAt).UTC(), p.MaxUses, p.MayDelegate
	given.Uses, given.RequiredApprovals = 0, 0
	if p.Services != nil {
		given.Services = p.Services
	}
	added, err := op.addVersion(child, given, now)
	if err != nil {
		return nil, err
	}
	op.recordAuthority(now, "binding_delegate", child.id, "")
	return &bindingOut{&added.AuthorityBinding}, nil
}

// mayGive refuses a delegation that the version does not allow, or that asks for more than it has.
func (v *bindingVersion) mayGive(p stack.BindingDelegateParams, now time.Time) error {
	if !v.MayDelegate {
		return forbidden("the binding may not be delegated", map[string]any{"check": "binding_delegation", "sent": v.ID,
			"allowed": "a binding that was approved with may_delegate"})
	}
	if v.of.depth == maxDelegationDepth {
		return refuse(http.StatusBadRequest, "DELEGATION_DEPTH_EXCEEDED",
			fmt.Sprintf("a binding may be delegated over at most %d hops", maxDelegationDepth),
			map[string]any{"check": "binding_delegation", "sent": v.of.depth + 1, "allowed": maxDelegationDepth})
	}
	if p.AgentID == v.AgentID {
		return invalid("body.agent_id", p.AgentID, "another agent than the binding's own")
	}
	if p.Services != nil && len(p.Services) == 0 {
		return invalid("body.services", "empty", "at least one service of the binding, or left out")
	}
	if err := firstError(distinct("body.services", p.Services), within("body.max_uses", p.MaxUses, 0, 1<<31),
		ahead("body.expires_at", p.ExpiresAt, now, maxBindingLife)); err != nil {
		return err
	}
	escalation := func(field string, sent, allowed any) error {
		return refuse(http.StatusBadRequest, "SCOPE_ESCALATION", field+" goes beyond the binding",
			map[string]any{"check": "binding_delegation", "field": field, "sent": sent, "allowed": allowed})
	}
	for i, name := range p.Services {
		if !slices.Contains(v.Services, name) {
			return escalation(fmt.Sprintf("body.services[%d]", i), clip(name), v.Services)
		}
	}
	if p.ExpiresAt.After(v.ExpiresAt) {
		return escalation("body.expires_at", p.ExpiresAt, v.ExpiresAt)
	}
	return nil
}

type revokeBindingIn struct {
	BindingID string                      `path:"binding_id"`
	Body      stack.AuthorityReasonParams `body:""`
}

func (s *Server) revokeBinding(_ context.Context, c *caller, in revokeBindingIn) (*bindingOut, error) {
	op, now := c.op, s.clock.now()
	b, err := op.bindingByID(in.BindingID)
	if err != nil {
		return nil, err
	}
	if err = checkReason(in.Body.ReasonCode); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(b.versions, (*bindingVersion).live) {
		return nil, wrongState("binding", b.id, b.newest().Status, "a binding with a version that is not over")
	}
	for _, v := range b.versions {
		op.endVersion(v, stack.BindingRevoked, in.Body.ReasonCode, now)
	}
	return &bindingOut{&b.current().AuthorityBinding}, nil
}

// endBindings ends the versions that match.
func (op *operator) endBindings(match func(*bindingVersion) bool, status stack.BindingStatus, reason string, now time.Time) {
	for b := range op.authority.bindings.all() {
		for _, v := range b.versions {
			if match(v) {
				op.endVersion(v, status, reason, now)
			}
		}
	}
}

// endVersion ends a version that is not over yet, what people are still asked about it, and all that was delegated from it.
func (op *operator) endVersion(v *bindingVersion, status stack.BindingStatus, reason string, now time.Time) {
	if !v.live() {
		return
	}
	v.Status, v.ReasonCode = status, reason
	step := "binding_" + map[stack.BindingStatus]string{stack.BindingRevoked: "revoke", stack.BindingExpired: "expire",
		stack.BindingSuperseded: "supersede", stack.BindingRejected: "reject"}[status]
	if status == stack.BindingRevoked {
		v.RevokedAt = now
	}
	op.recordAuthority(now, step, v.ID, reason)
	op.cancelDecisions(func(d *decision) bool { return d.bindingID == v.ID && d.version == v.Version }, now)
	ofIt := func(child *bindingVersion) bool { return child.of.parent == v }
	if status == stack.BindingExpired {
		op.endBindings(ofIt, status, reason, now)
	} else {
		op.endBindings(ofIt, stack.BindingRevoked, or(reason, "parent_"+string(status)), now)
	}
}

type bindingIn struct {
	BindingID string `path:"binding_id"`
}

func (s *Server) eraseBinding(_ context.Context, c *caller, in bindingIn) (*tombstoneOut, error) {
	op, now := c.op, s.clock.now()
	b, err := op.bindingByID(in.BindingID)
	if err != nil {
		return nil, err
	}
	if v := b.current(); v.Status == stack.BindingActive {
		return nil, wrongState("binding", b.id, v.Status, "a binding without an active version; revoke it first")
	}
	for _, v := range b.versions {
		op.endVersion(v, stack.BindingRevoked, "binding_erased", now)
	}
	return &tombstoneOut{op.wipeBinding(b.id, now)}, nil
}

// wipeBinding erases a binding whose versions are over.
func (op *operator) wipeBinding(id string, now time.Time) *stack.Tombstone {
	op.wipeDecisions(func(d *decision) bool { return d.bindingID == id })
	op.wipe("binding", id, "binding_id")
	return erased(op, &op.authority.bindings, "binding", id, now)
}
