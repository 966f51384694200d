package mockserver

import (
	"context"
	"time"

	"github.com/getstack-go/stack"
)

type createOIDCRequestIn struct {
	Body stack.EnterpriseOIDCParams `body:""`
}

// createOIDCRequest asks a human. It grants nothing: what they approve is a proof, on which a binding may rest.
// (contract: server-api 25)
func (s *Server) createOIDCRequest(ctx context.Context, c *caller,
	in createOIDCRequestIn) (*stack.EnterpriseOIDCRequest, error) {
	op, now, b := c.op, s.clock.now(), in.Body
	if err := firstError(filled("body.purpose", b.Purpose), atMost("body.purpose", b.Purpose, maxPurpose)); err != nil {
		return nil, err
	}
	principal, err := op.activePrincipal(b.PrincipalID)
	if err != nil {
		return nil, err
	}
	r := &stack.EnterpriseOIDCRequest{ID: newID("oidc_"), OperatorID: op.id, PrincipalID: principal.ID, Purpose: b.Purpose,
		Status: stack.RequestPending, CreatedAt: now, ExpiresAt: now.Add(decisionLifetime)}
	r.ApprovalURL = decisionURL(ctx, r.ID)
	op.authority.oidcRequests.put(r.ID, r)
	op.ask(&decision{id: r.ID, principalID: principal.ID, title: "Sign in for " + principal.DisplayName,
		lines: []string{b.Purpose}, expiresAt: r.ExpiresAt, status: &r.Status, decidedAt: &r.DecidedAt,
		decided: func(at time.Time) error {
			if r.Status != stack.RequestApproved {
				return nil
			}
			content, err := collectedContent(principal, r.Purpose, at)
			if err != nil {
				return err
			}
			v, err := s.addProof(op, &proof{}, stack.Proof{PrincipalID: principal.ID, Kind: stack.ProofEnterpriseOIDC,
				Source: stack.ProofFromOIDC}, content, at)
			if err == nil {
				r.ProofID = v.ID
			}
			return err
		}})
	op.recordAuthority(now, "oidc_request_create", r.ID, "")
	return r, nil
}

type oidcRequestIn struct {
	RequestID string `path:"request_id"`
}

func (s *Server) getOIDCRequest(_ context.Context, c *caller, in oidcRequestIn) (*stack.EnterpriseOIDCRequest, error) {
	return find(c.op, &c.op.authority.oidcRequests, "enterprise OIDC request", in.RequestID)
}

type (
	useOut struct {
		Use *stack.AuthorityUse `json:"use"`
	}
	usesOut struct {
		Uses []stack.AuthorityUse `json:"uses"`
	}
	presentationOut struct {
		Presentation *stack.AuthorityPresentation `json:"presentation"`
	}
	presentationsOut struct {
		Presentations []stack.AuthorityPresentation `json:"presentations"`
	}
)

func (s *Server) listUses(_ context.Context, c *caller, _ none) (*usesOut, error) {
	return &usesOut{newest(&c.op.authority.uses, itself)}, nil
}

type useIn struct {
	UseID string `path:"use_id"`
}

func (s *Server) getUse(_ context.Context, c *caller, in useIn) (*useOut, error) {
	u, err := find(c.op, &c.op.authority.uses, "use", in.UseID)
	return &useOut{u}, err
}

func (s *Server) listPresentations(_ context.Context, c *caller, _ none) (*presentationsOut, error) {
	return &presentationsOut{newest(&c.op.authority.presentations, itself)}, nil
}

type presentationIn struct {
	PresentationID string `path:"presentation_id"`
}

func (op *operator) presentationByID(id string) (*stack.AuthorityPresentation, error) {
	return find(op, &op.authority.presentations, "presentation", id)
}

func (s *Server) getPresentation(_ context.Context, c *caller, in presentationIn) (*presentationOut, error) {
	p, err := c.op.presentationByID(in.PresentationID)
	return &presentationOut{p}, err
}

func (s *Server) erasePresentation(_ context.Context, c *caller, in presentationIn) (*tombstoneOut, error) {
	p, err := c.op.presentationByID(in.PresentationID)
	if err != nil {
		return nil, err
	}
	return &tombstoneOut{erased(c.op, &c.op.authority.presentations, "presentation", p.ID, s.clock.now())}, nil
}
