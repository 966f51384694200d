package mockserver

import (
	"context"
	"time"

	"github.com/getstack-go/stack"
)

type (
	principalOut struct {
		Principal *stack.Principal `json:"principal"`
	}
	principalsOut struct {
		Principals []stack.Principal `json:"principals"`
	}
	tombstoneOut struct {
		Tombstone *stack.Tombstone `json:"tombstone"`
	}
)

type createPrincipalIn struct {
	Body stack.PrincipalParams `body:""`
}

func (s *Server) createPrincipal(_ context.Context, c *caller, in createPrincipalIn) (*principalOut, error) {
	now, b := s.clock.now(), in.Body
	if err := firstError(
		chosen("body.kind", b.Kind, stack.PrincipalPerson, stack.PrincipalOrganization),
		filled("body.display_name", b.DisplayName),
		atMost("body.display_name", b.DisplayName, maxName),
		atMost("body.external_ref", b.ExternalRef, 256),
	); err != nil {
		return nil, err
	}
	p := &stack.Principal{ID: newID("prn_"), OperatorID: c.op.id, Kind: b.Kind, DisplayName: b.DisplayName,
		ExternalRef: b.ExternalRef, Status: stack.PrincipalActive, CreatedAt: now}
	c.op.authority.principals.put(p.ID, p)
	c.op.recordAuthority(now, "principal_create", p.ID, "")
	return &principalOut{p}, nil
}

func (s *Server) listPrincipals(_ context.Context, c *caller, _ none) (*principalsOut, error) {
	return &principalsOut{newest(&c.op.authority.principals, itself)}, nil
}

func (op *operator) principalByID(id string) (*stack.Principal, error) {
	return find(op, &op.authority.principals, "principal", id)
}

// activePrincipal finds a principal who lets others act.
func (op *operator) activePrincipal(id string) (*stack.Principal, error) {
	p, err := op.principalByID(id)
	if err == nil && p.Status != stack.PrincipalActive {
		err = wrongState("principal", id, p.Status, "an active principal")
	}
	return p, err
}

type principalIn struct {
	PrincipalID string `path:"principal_id"`
}

func (s *Server) getPrincipal(_ context.Context, c *caller, in principalIn) (*principalOut, error) {
	p, err := c.op.principalByID(in.PrincipalID)
	return &principalOut{p}, err
}

type archivePrincipalIn struct {
	PrincipalID string                      `path:"principal_id"`
	Body        stack.AuthorityReasonParams `body:""`
}

func (s *Server) archivePrincipal(_ context.Context, c *caller, in archivePrincipalIn) (*principalOut, error) {
	op, now := c.op, s.clock.now()
	p, err := op.activePrincipal(in.PrincipalID)
	if err != nil {
		return nil, err
	}
	if err = checkReason(in.Body.ReasonCode); err != nil {
		return nil, err
	}
	p.Status, p.ArchivedAt, p.ReasonCode = stack.PrincipalArchived, now, in.Body.ReasonCode
	op.recordAuthority(now, "principal_archive", p.ID, p.ReasonCode)
	op.endPrincipal(p.ID, p.ReasonCode, now)
	return &principalOut{p}, nil
}

// endPrincipal revokes what was done on a principal's authority, and cancels what waits for a person.
func (op *operator) endPrincipal(id, reason string, now time.Time) {
	op.endBindings(func(v *bindingVersion) bool { return v.PrincipalID == id }, stack.BindingRevoked, reason, now)
	op.cancelDecisions(func(d *decision) bool { return d.principalID == id }, now)
}

// erasePrincipal wipes all that is known of a principal. It is one call, whatever state things are in: what a person is
// entitled to must not wait for an order of steps.
func (s *Server) erasePrincipal(_ context.Context, c *caller, in principalIn) (*tombstoneOut, error) {
	op, now := c.op, s.clock.now()
	p, err := op.principalByID(in.PrincipalID)
	if err != nil {
		return nil, err
	}
	op.endPrincipal(p.ID, "principal_erased", now)
	var bindings, proofs []string
	for b := range op.authority.bindings.newest() {
		if b.newest().PrincipalID == p.ID {
			bindings = append(bindings, b.id)
		}
	}
	for _, id := range bindings {
		op.wipeBinding(id, now)
	}
	for pr := range op.authority.proofs.newest() {
		if v := pr.newest(); v.PrincipalID == p.ID && v.Status != stack.ProofErased {
			op.wipeProof(pr, now)
			proofs = append(proofs, v.ID)
		}
	}
	op.wipeDecisions(func(d *decision) bool { return d.principalID == p.ID })
	for session := range op.authority.sessions.all() {
		if session.PrincipalID == p.ID {
			session.Purpose = ""
		}
	}
	for request := range op.authority.oidcRequests.all() {
		if request.PrincipalID == p.ID {
			request.Purpose = ""
		}
	}
	op.wipe("principal", p.ID, "principal_id")
	tomb := erased(op, &op.authority.principals, "principal", p.ID, now)
	tomb.ErasedBindingIDs, tomb.ErasedProofIDs = bindings, proofs
	return &tombstoneOut{tomb}, nil
}
