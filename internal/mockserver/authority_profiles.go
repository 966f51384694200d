package mockserver

import (
	"context"
	"fmt"
	"time"

	"github.com/getstack-go/stack"
)

type profileOut struct {
	Profile *stack.ProfileVersion `json:"profile"`
}

type createProfileIn struct {
	Body stack.ProfileVersionParams `body:""`
}

func (s *Server) createProfile(_ context.Context, c *caller, in createProfileIn) (*profileOut, error) {
	op, now, b := c.op, s.clock.now(), in.Body
	if err := firstError(
		chosen("body.profile_kind", b.ProfileKind, stack.ProfileReceiver, stack.ProfileApproval, stack.ProfileProof),
		atMost("body.name", b.Name, maxName),
	); err != nil {
		return nil, err
	}
	if err := checkRules(b.ProfileKind, b.Rules); err != nil {
		return nil, err
	}
	p := &stack.ProfileVersion{ID: newID("prv_"), OperatorID: op.id, ProfileKind: b.ProfileKind, Version: 1, Name: b.Name,
		Status: stack.ProfileDraft, Rules: b.Rules, CreatedAt: now}
	for other := range op.authority.profiles.all() {
		if other.ProfileKind == p.ProfileKind {
			p.Version++
		}
	}
	op.authority.profiles.put(p.ID, p)
	op.recordAuthority(now, "profile_create", p.ID, "")
	return &profileOut{p}, nil
}

// checkRules refuses rules that are out of bounds or belong to another kind: ignored, they would look as if they held.
func checkRules(kind stack.ProfileKind, r stack.ProfileRules) error {
	only := func(field string, owner stack.ProfileKind, given bool) *apiError {
		if given && kind != owner {
			return invalid("body.rules."+field, "given for a profile of kind "+string(kind), "given for kind "+string(owner)+" only")
		}
		return nil
	}
	if err := firstError(
		only("services", stack.ProfileReceiver, r.Services != nil),
		only("max_lifetime_seconds", stack.ProfileReceiver, r.MaxLifetime != 0),
		only("required_approvals", stack.ProfileApproval, r.RequiredApprovals != 0),
		only("accepted_proof_kinds", stack.ProfileProof, r.AcceptedProofKinds != nil),
		listAtMost("body.rules.services", r.Services, maxServices, maxServiceName),
		distinct("body.rules.services", r.Services),
		lasting("body.rules.max_lifetime_seconds", r.MaxLifetime, time.Minute, maxBindingLife),
		within("body.rules.required_approvals", r.RequiredApprovals, 0, 10),
	); err != nil {
		return err
	}
	for i, k := range r.AcceptedProofKinds {
		at := fmt.Sprintf("body.rules.accepted_proof_kinds[%d]", i)
		if err := firstError(chosen(at, k, stack.ProofConsent, stack.ProofMandate, stack.ProofEnterpriseOIDC)); err != nil {
			return err
		}
	}
	return nil
}

// activeProfile finds the version of a kind that is in force, nil where none is.
func (op *operator) activeProfile(kind stack.ProfileKind) *stack.ProfileVersion {
	for p := range op.authority.profiles.all() {
		if p.ProfileKind == kind && p.Status == stack.ProfileActive {
			return p
		}
	}
	return nil
}

type activateProfileIn struct {
	ProfileID string                      `path:"profile_id"`
	Body      stack.ProfileActivateParams `body:""`
}

func (s *Server) activateProfile(_ context.Context, c *caller, in activateProfileIn) (*profileOut, error) {
	op, now := c.op, s.clock.now()
	p, err := find(op, &op.authority.profiles, "profile version", in.ProfileID)
	if err != nil {
		return nil, err
	}
	if in.Body.ProfileKind != p.ProfileKind {
		return nil, invalid("body.profile_kind", string(in.Body.ProfileKind), string(p.ProfileKind)+", the kind of the profile")
	}
	before := op.activeProfile(p.ProfileKind)
	if before == p {
		return nil, wrongState("profile version", p.ID, p.Status, "a version that is not active")
	}
	if before != nil {
		before.Status = stack.ProfileSuperseded
	}
	p.Status, p.ActivatedAt = stack.ProfileActive, now
	op.recordAuthority(now, "profile_activate", p.ID, "")
	return &profileOut{p}, nil
}
