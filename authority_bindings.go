package stack

import (
	"context"
	"fmt"
	"time"
)

// BindingStatus is the state of one version of an authority binding.
type BindingStatus string

// Binding statuses, in the order in which a binding goes through them; the last four are final. Only an active binding can be
// carried by a passport.
const (
	BindingDraft      BindingStatus = "draft"            // nobody has been asked to approve it
	BindingPending    BindingStatus = "pending_approval" // people have been asked
	BindingApproved   BindingStatus = "approved"         // enough of them have approved
	BindingActive     BindingStatus = "active"           // in force
	BindingSuperseded BindingStatus = "superseded"       // a newer version was activated
	BindingRejected   BindingStatus = "rejected"         // somebody has said no
	BindingRevoked    BindingStatus = "revoked"
	BindingExpired    BindingStatus = "expired"
)

// AuthorityBindingParams describes a binding, or the next version of one.
type AuthorityBindingParams struct {
	// BindingID makes it the next version of this binding, of the same principal, agent and receiver. Its last version must
	// be active, rejected or expired.
	BindingID string `json:"binding_id,omitempty"`

	PrincipalID string   `json:"principal_id"`
	AgentID     string   `json:"agent_id"` // who may act
	ReceiverID  string   `json:"receiver_id"`
	Services    []string `json:"services"`  // that the agent may use for the principal: 1 to 64 names
	ProofIDs    []string `json:"proof_ids"` // 1 to 16 active proofs of the principal
	Purpose     string   `json:"purpose"`   // what people who approve are shown; at most 500 characters

	ExpiresAt      time.Time `json:"expires_at,omitzero"`    // default: in 30 days; at most a year ahead
	MaxUses        int       `json:"max_uses,omitempty"`     // calls, delegated ones included; default: any number
	MayDelegate    bool      `json:"may_delegate,omitempty"` // lets the binding be delegated to other agents
	IdempotencyKey string    `json:"-"`                      // mandatory
}

func (p AuthorityBindingParams) check() error {
	for _, f := range []struct{ name, value string }{{"principal_id", p.PrincipalID}, {"agent_id", p.AgentID},
		{"receiver_id", p.ReceiverID}, {"purpose", p.Purpose}} {
		if err := required(f.name, f.value); err != nil {
			return err
		}
	}
	if len(p.Services) == 0 {
		return &ParamError{Param: "services", Reason: "is empty; it must name at least one service"}
	}
	if len(p.ProofIDs) == 0 {
		return &ParamError{Param: "proof_ids", Reason: "is empty; a binding rests on at least one proof"}
	}
	return checkUses(p.MaxUses)
}

func checkUses(n int) error {
	if n < 0 {
		return &ParamError{Param: "max_uses", Reason: fmt.Sprintf("is %d; it may be 1 or more, or 0 for any number", n)}
	}
	return nil
}

// ProofVersion names the version of a proof that a binding rests on.
type ProofVersion struct {
	ProofID string `json:"proof_id"`
	Version int    `json:"version"`
}

// AuthorityBinding is one version of a binding.
type AuthorityBinding struct {
	ID          string        `json:"id"`
	OperatorID  string        `json:"operator_id"`
	Version     int           `json:"version"` // from 1
	Status      BindingStatus `json:"status"`
	PrincipalID string        `json:"principal_id"`
	AgentID     string        `json:"agent_id"`
	ReceiverID  string        `json:"receiver_id"`
	// ReceiverProfileVersionID is the profile of kind receiver that was active when the version was made.
	ReceiverProfileVersionID string         `json:"receiver_profile_version_id"`
	Services                 []string       `json:"services"`
	Proofs                   []ProofVersion `json:"proofs"`
	Purpose                  string         `json:"purpose"`
	RequiredApprovals        int            `json:"required_approvals"` // 0 for a delegated binding
	MaxUses                  int            `json:"max_uses,omitempty"`
	Uses                     int            `json:"uses"` // of this version and of what was delegated from it
	MayDelegate              bool           `json:"may_delegate"`
	ParentBindingID          string         `json:"parent_binding_id,omitempty"` // of a delegated binding
	// Digest is sha256: and the SHA-256 in hex of what the version says, by which a receiver recognises it.
	Digest      string    `json:"digest"`
	ClaimID     string    `json:"claim_id,omitempty"` // since its activation
	CreatedAt   time.Time `json:"created_at"`
	ActivatedAt time.Time `json:"activated_at,omitzero"`
	ExpiresAt   time.Time `json:"expires_at"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	ReasonCode  string    `json:"reason_code,omitempty"` // why it was revoked
}

// CreateBinding drafts a binding, or the next version of one; it says nothing to anybody until it is approved and activated,
// and the version that was active stays so until then. It fails with a [*ParamError] for a field that is missing; with
// [ErrInvalidRequest] for what the active profiles do not allow; with [ErrNotFound] for a principal, agent, receiver or proof
// that there is not; and with [ErrAuthorityState] for a principal that is archived, a proof that is not active, a binding
// whose last version is still on its way or was revoked, and when no profile of kind receiver is active.
//
// POST /v1/authority/bindings
func (s *AuthorityService) CreateBinding(ctx context.Context, params AuthorityBindingParams) (*AuthorityBinding, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return authorityWrite[AuthorityBinding](ctx, s.client, post("/v1/authority/bindings").with(params), params.IdempotencyKey,
		"binding")
}

// ListBindings returns each binding that is not erased, in the version of [AuthorityService.GetBinding], newest first; of more
// than 1000 the newest.
//
// GET /v1/authority/bindings
func (s *AuthorityService) ListBindings(ctx context.Context) ([]AuthorityBinding, error) {
	return sendWrappedList[AuthorityBinding](ctx, s.client, get("/v1/authority/bindings"), "bindings")
}

// GetBinding returns a binding, by default the version that is active or, if none is, the newest. It fails with a
// [*ParamError] for a negative version, with [ErrNotFound] for an unknown binding or version, and with [ErrAuthorityErased].
//
// GET /v1/authority/bindings/{binding_id}
func (s *AuthorityService) GetBinding(
	ctx context.Context, bindingID string, params AuthorityVersionParams,
) (*AuthorityBinding, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return sendWrapped[AuthorityBinding](ctx, s.client,
		get("/v1/authority/bindings/{binding_id}", bindingID).number("version", params.Version), "binding")
}

// ApprovalRequestParams asks people to approve the newest version of a binding.
type ApprovalRequestParams struct {
	Approvers      []string `json:"approvers"`         // names or addresses of 1 to 10 people, each of at most 200 characters
	Message        string   `json:"message,omitempty"` // to them; at most 500 characters
	IdempotencyKey string   `json:"-"`                 // mandatory
}

// ApprovalRequest asks one person to approve one version of a binding.
type ApprovalRequest struct {
	ID             string        `json:"id"`
	OperatorID     string        `json:"operator_id"`
	BindingID      string        `json:"binding_id"`
	BindingVersion int           `json:"binding_version"`
	Approver       string        `json:"approver"`
	Message        string        `json:"message,omitempty"`
	ApprovalURL    string        `json:"approval_url"` // where the person is sent
	Status         RequestStatus `json:"status"`
	CreatedAt      time.Time     `json:"created_at"`
	ExpiresAt      time.Time     `json:"expires_at"`
	DecidedAt      time.Time     `json:"decided_at,omitzero"`
}

// CreateApprovalRequests asks people to approve the newest version of a binding, and returns one request for each. The version
// is approved when as many have said yes as it requires, and rejected as soon as one says no. More people may be asked while
// it waits. It fails with a [*ParamError] without approvers, with [ErrInvalidRequest], with [ErrAuthorityState] unless the
// version is a draft or waits, and for somebody whose request is pending or approved; with [ErrNotFound] and with
// [ErrAuthorityErased].
//
// The mock's ApprovalURL is a page of its own, whose buttons stand in for the person.
//
// POST /v1/authority/bindings/{binding_id}/approval-requests
func (s *AuthorityService) CreateApprovalRequests(
	ctx context.Context, bindingID string, params ApprovalRequestParams,
) ([]ApprovalRequest, error) {
	if len(params.Approvers) == 0 {
		return nil, &ParamError{Param: "approvers", Reason: "is empty; it must name at least one person"}
	}
	list, err := authorityWrite[[]ApprovalRequest](ctx, s.client,
		post("/v1/authority/bindings/{binding_id}/approval-requests", bindingID).with(params), params.IdempotencyKey,
		"approval_requests")
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// ListApprovalRequests returns the approval requests of all versions of a binding, oldest first. It fails with [ErrNotFound]
// and with [ErrAuthorityErased].
//
// GET /v1/authority/bindings/{binding_id}/approval-requests
func (s *AuthorityService) ListApprovalRequests(ctx context.Context, bindingID string) ([]ApprovalRequest, error) {
	return sendWrappedList[ApprovalRequest](ctx, s.client, get("/v1/authority/bindings/{binding_id}/approval-requests", bindingID),
		"approval_requests")
}

// BindingActivateParams chooses the version that comes into force.
type BindingActivateParams struct {
	Version        int    `json:"-"` // default: the newest
	IdempotencyKey string `json:"-"` // mandatory
}

// ActivateBinding brings an approved version of a binding into force. The version that was active is superseded: what was
// delegated from it is revoked, and passports that carry it are of no use any more. It fails with a [*ParamError] for a
// negative version; with [ErrAuthorityState] unless the version is approved and its receiver verified; with [ErrNotFound] and
// with [ErrAuthorityErased].
//
// POST /v1/authority/bindings/{binding_id}/activate
func (s *AuthorityService) ActivateBinding(
	ctx context.Context, bindingID string, params BindingActivateParams,
) (*AuthorityBinding, error) {
	if err := (AuthorityVersionParams{params.Version}).check(); err != nil {
		return nil, err
	}
	cl := post("/v1/authority/bindings/{binding_id}/activate", bindingID).number("version", params.Version).with(params)
	return authorityWrite[AuthorityBinding](ctx, s.client, cl, params.IdempotencyKey, "binding")
}

// BindingDelegateParams says what of a binding another agent gets; it can only be less.
type BindingDelegateParams struct {
	AgentID        string    `json:"agent_id"`               // another one than the binding's
	Services       []string  `json:"services,omitempty"`     // default: all of the binding
	ExpiresAt      time.Time `json:"expires_at,omitzero"`    // default: the binding's
	MaxUses        int       `json:"max_uses,omitempty"`     // default: any number; each counts for the binding as well
	MayDelegate    bool      `json:"may_delegate,omitempty"` // lets it be delegated further, over at most 4 hops
	IdempotencyKey string    `json:"-"`                      // mandatory
}

// DelegateBinding makes a binding for another agent out of an active one, in force at once: who approved the binding has
// approved that it may be delegated. A delegated passport of that agent carries it in the place of its parent's. It falls with
// the binding that it came from. It fails with a [*ParamError] without an agent; with [ErrScopeEscalation] for more than the
// binding has; with [ErrForbidden] when the binding may not be delegated, [ErrDelegationDepthExceeded] when it has been too
// often; with [ErrAuthorityState] unless it is active, [ErrNotFound] and [ErrAuthorityErased].
//
// POST /v1/authority/bindings/{binding_id}/delegate
func (s *AuthorityService) DelegateBinding(
	ctx context.Context, bindingID string, params BindingDelegateParams,
) (*AuthorityBinding, error) {
	if err := required("agent_id", params.AgentID); err != nil {
		return nil, err
	}
	if err := checkUses(params.MaxUses); err != nil {
		return nil, err
	}
	return authorityWrite[AuthorityBinding](ctx, s.client,
		post("/v1/authority/bindings/{binding_id}/delegate", bindingID).with(params), params.IdempotencyKey, "binding")
}

// RevokeBinding ends a binding for good, in every version that is not over yet, with all that was delegated from it. Calls
// under a passport that carries it are refused from then on. It returns the version that [AuthorityService.GetBinding] does.
// It fails with [ErrAuthorityState] when all versions are over, with [ErrNotFound] and with [ErrAuthorityErased].
//
// POST /v1/authority/bindings/{binding_id}/revoke
func (s *AuthorityService) RevokeBinding(
	ctx context.Context, bindingID string, params AuthorityReasonParams,
) (*AuthorityBinding, error) {
	return authorityReason[AuthorityBinding](ctx, s.client, post("/v1/authority/bindings/{binding_id}/revoke", bindingID),
		params, "binding")
}

// EraseBinding wipes a binding with its versions and approval requests, and returns the tombstone. It fails with
// [ErrAuthorityState] while a version is active, which must be revoked first; with [ErrNotFound], and with
// [ErrAuthorityErased] the next time.
//
// POST /v1/authority/bindings/{binding_id}/erase
func (s *AuthorityService) EraseBinding(ctx context.Context, bindingID string, params AuthorityWriteParams) (*Tombstone, error) {
	return authorityWrite[Tombstone](ctx, s.client, post("/v1/authority/bindings/{binding_id}/erase", bindingID).with(params),
		params.IdempotencyKey, "tombstone")
}
