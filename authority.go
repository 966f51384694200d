package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// AuthorityService keeps on whose authority agents act. A principal is somebody who lets an agent act for them; proofs show
// that they do; a binding says which agent may use which services for the principal at which receiver, and comes into force
// when people have approved it; passports carry bindings, and each proxied call under one is a use of it. Reach it as
// [Client].Authority.
//
// Every call that changes something takes an idempotency key, which is mandatory: a repetition with the same key and
// parameters gives the first answer, and is refused with code IDEMPOTENCY_KEY_REUSED when the parameters differ.
// (contract: endpoints 2.27)
//
// The contract names the routes; the fields, the states and what they mean are this project's.
type AuthorityService struct{ client *Client }

// Kinds of errors of the authority service.
var (
	// ErrAuthorityState means that an object is not in a state in which the call would make sense, such as the activation of
	// a binding that nobody has approved. The error's Details hold its "status" and what would be "allowed".
	ErrAuthorityState error = &kind{text: "not possible in this state", codes: []string{"AUTHORITY_STATE"}}
	// ErrAuthorityErased means that the object was erased. The error's Details hold its "tombstone".
	ErrAuthorityErased error = &kind{text: "erased", codes: []string{"AUTHORITY_ERASED"}}
	// ErrAuthorityBindingInactive means that a passport carries, or was to carry, a binding that is not in force for it. The
	// error's Details name it as "binding_id", with a "reason".
	ErrAuthorityBindingInactive error = &kind{text: "the authority binding is not in force",
		codes: []string{"AUTHORITY_BINDING_INACTIVE"}}
)

// AuthorityWriteParams belong to a change that needs nothing else.
type AuthorityWriteParams struct {
	IdempotencyKey string `json:"-"` // mandatory
}

// AuthorityReasonParams belong to a change that must be given a reason.
type AuthorityReasonParams struct {
	// ReasonCode is a word of the operator's own, such as principal_request: a lower-case letter, and then up to 63
	// lower-case letters, digits and underscores.
	ReasonCode     string `json:"reason_code"`
	IdempotencyKey string `json:"-"` // mandatory
}

// Tombstone is what is left of an erased object.
type Tombstone struct {
	ID         string    `json:"id"` // of what was erased
	OperatorID string    `json:"operator_id"`
	Object     string    `json:"object"` // principal, binding or presentation
	ErasedAt   time.Time `json:"erased_at"`
	// ErasedBindingIDs and ErasedProofIDs are what went with a principal.
	ErasedBindingIDs []string `json:"erased_binding_ids,omitempty"`
	ErasedProofIDs   []string `json:"erased_proof_ids,omitempty"`
}

// authorityWrite makes a call that changes something and unwraps its answer. The idempotency key makes a repetition harmless.
func authorityWrite[T any](ctx context.Context, c *Client, cl *call, idempotencyKey, wrapper string) (*T, error) {
	if err := required("idempotency_key", idempotencyKey); err != nil {
		return nil, err
	}
	cl.keyed = true
	return sendWrapped[T](ctx, c, cl.head("Idempotency-Key", idempotencyKey), wrapper)
}

// authorityReason is authorityWrite for a change with a reason.
func authorityReason[T any](
	ctx context.Context, c *Client, cl *call, params AuthorityReasonParams, wrapper string,
) (*T, error) {
	if err := required("reason_code", params.ReasonCode); err != nil {
		return nil, err
	}
	return authorityWrite[T](ctx, c, cl.with(params), params.IdempotencyKey, wrapper)
}

// sendWrapped makes a call whose answer lies under a key of an object; an empty key is an answer that is not wrapped.
func sendWrapped[T any](ctx context.Context, c *Client, cl *call, wrapper string) (*T, error) {
	if wrapper == "" {
		return send[T](ctx, c, cl)
	}
	ans, err := c.transport.do(ctx, cl)
	if err != nil {
		return nil, err
	}
	var wrapped map[string]json.RawMessage
	if err = ans.decode(cl, &wrapped); err != nil {
		return nil, err
	}
	inner, ok := wrapped[wrapper]
	if !ok || string(inner) == "null" {
		return nil, &DecodeError{Method: cl.method, Route: cl.pattern, Status: ans.status,
			Err: fmt.Errorf("it has no %q", wrapper)}
	}
	out := new(T)
	if err = json.Unmarshal(inner, out); err != nil {
		return nil, &DecodeError{Method: cl.method, Route: cl.pattern, Status: ans.status,
			Err: fmt.Errorf("%q: %w", wrapper, err)}
	}
	return out, nil
}

// sendWrappedList is sendWrapped for an array.
func sendWrappedList[T any](ctx context.Context, c *Client, cl *call, wrapper string) ([]T, error) {
	out, err := sendWrapped[[]T](ctx, c, cl, wrapper)
	if err != nil {
		return nil, err
	}
	return *out, nil
}
