package stack

import (
	"context"
	"time"
)

// ReceiverStatus is the state of a receiver.
type ReceiverStatus string

// Receiver statuses.
const (
	ReceiverUnverified ReceiverStatus = "unverified"
	ReceiverVerified   ReceiverStatus = "verified" // it has shown that it holds one of its keys
)

// ReceiverParams describes a receiver.
type ReceiverParams struct {
	Name           string   `json:"name"`  // at most 200 characters
	Hosts          []string `json:"hosts"` // 1 to 16, in lower case, with a port where it is not 443
	IdempotencyKey string   `json:"-"`     // mandatory
}

// Receiver is a party before which agents act on somebody's authority. A proxied call under a binding that goes to one of its
// hosts over https carries the passport in the X-Stack-Passport header, which the receiver can verify: that is a presentation.
type Receiver struct {
	ID            string         `json:"id"`
	OperatorID    string         `json:"operator_id"`
	Name          string         `json:"name"`
	Hosts         []string       `json:"hosts"`
	Status        ReceiverStatus `json:"status"`
	Keys          []ReceiverKey  `json:"keys"` // oldest first
	VerifiedAt    time.Time      `json:"verified_at,omitzero"`
	VerifiedKeyID string         `json:"verified_key_id,omitempty"` // the key that it has shown
	CreatedAt     time.Time      `json:"created_at"`
}

// CreateReceiver puts a receiver on record, unverified and without keys. It fails with a [*ParamError] for a field that is
// missing, and with [ErrInvalidRequest].
//
// POST /v1/authority/receivers
func (s *AuthorityService) CreateReceiver(ctx context.Context, params ReceiverParams) (*Receiver, error) {
	if err := required("name", params.Name); err != nil {
		return nil, err
	}
	if len(params.Hosts) == 0 {
		return nil, &ParamError{Param: "hosts", Reason: "is empty; it must name at least one host"}
	}
	return authorityWrite[Receiver](ctx, s.client, post("/v1/authority/receivers").with(params), params.IdempotencyKey,
		"receiver")
}

// ListReceivers returns the receivers, newest first; of more than 1000 the newest.
//
// GET /v1/authority/receivers
func (s *AuthorityService) ListReceivers(ctx context.Context) ([]Receiver, error) {
	return sendWrappedList[Receiver](ctx, s.client, get("/v1/authority/receivers"), "receivers")
}

// GetReceiver returns a receiver. It fails with [ErrNotFound].
//
// GET /v1/authority/receivers/{receiver_id}
func (s *AuthorityService) GetReceiver(ctx context.Context, receiverID string) (*Receiver, error) {
	return sendWrapped[Receiver](ctx, s.client, get("/v1/authority/receivers/{receiver_id}", receiverID), "receiver")
}

// ReceiverChallenge is a text that a receiver signs to show that it holds a key.
type ReceiverChallenge struct {
	ID         string `json:"id"`
	ReceiverID string `json:"receiver_id"`
	// Challenge is signed with Ed25519, as the bytes that it is.
	Challenge string `json:"challenge"`
	// ResponseURL takes the receiver's POST of {"key_id", "signature"}, the signature in base64url without padding. It needs no
	// other authentication.
	ResponseURL string    `json:"response_url"`
	ExpiresAt   time.Time `json:"expires_at"` // 15 minutes after it was made
}

// CreateReceiverVerificationChallenge makes a challenge, in the place of an earlier one. Give it to the receiver, and call
// [AuthorityService.VerifyReceiver] when it has answered. It fails with [ErrAuthorityState] for a receiver without a key that
// is active, and with [ErrNotFound].
//
// POST /v1/authority/receivers/{receiver_id}/verification-challenges
func (s *AuthorityService) CreateReceiverVerificationChallenge(
	ctx context.Context, receiverID string, params AuthorityWriteParams,
) (*ReceiverChallenge, error) {
	return authorityWrite[ReceiverChallenge](ctx, s.client,
		post("/v1/authority/receivers/{receiver_id}/verification-challenges", receiverID).with(params), params.IdempotencyKey,
		"challenge")
}

// VerifyReceiver makes a receiver verified whose answer to the last challenge has come. It can be repeated with a new
// challenge, to rest on another key. It fails with [ErrAuthorityState] when there is no challenge, no answer, the challenge has
// expired or the key was revoked since; and with [ErrNotFound].
//
// POST /v1/authority/receivers/{receiver_id}/verify
func (s *AuthorityService) VerifyReceiver(
	ctx context.Context, receiverID string, params AuthorityWriteParams,
) (*Receiver, error) {
	return authorityWrite[Receiver](ctx, s.client, post("/v1/authority/receivers/{receiver_id}/verify", receiverID).with(params),
		params.IdempotencyKey, "receiver")
}

// ReceiverKeyStatus is the state of a receiver's key.
type ReceiverKeyStatus string

// Receiver key statuses.
const (
	ReceiverKeyActive  ReceiverKeyStatus = "active"
	ReceiverKeyRevoked ReceiverKeyStatus = "revoked"
)

// ReceiverKeyParams registers a key of a receiver.
type ReceiverKeyParams struct {
	PublicKey      string `json:"public_key"` // Ed25519: its 32 bytes in base64url without padding
	IdempotencyKey string `json:"-"`          // mandatory
}

// ReceiverKey is a public key of a receiver.
type ReceiverKey struct {
	ID         string            `json:"id"`
	ReceiverID string            `json:"receiver_id"`
	Algorithm  string            `json:"algorithm"` // Ed25519
	PublicKey  string            `json:"public_key"`
	Status     ReceiverKeyStatus `json:"status"`
	CreatedAt  time.Time         `json:"created_at"`
	RevokedAt  time.Time         `json:"revoked_at,omitzero"`
	ReasonCode string            `json:"reason_code,omitempty"` // why it was revoked
}

// AddReceiverKey registers a key; a receiver may have 10 that are active. It fails with a [*ParamError] without a key, with
// [ErrInvalidRequest] for one that is none, with [ErrAuthorityState] for one that the receiver has or had already or that is
// one too many, and with [ErrNotFound].
//
// POST /v1/authority/receivers/{receiver_id}/keys
func (s *AuthorityService) AddReceiverKey(
	ctx context.Context, receiverID string, params ReceiverKeyParams,
) (*ReceiverKey, error) {
	if err := required("public_key", params.PublicKey); err != nil {
		return nil, err
	}
	return authorityWrite[ReceiverKey](ctx, s.client, post("/v1/authority/receivers/{receiver_id}/keys", receiverID).with(params),
		params.IdempotencyKey, "key")
}

// RevokeReceiverKey withdraws a key. A receiver that was verified by it is unverified again, and calls under its bindings are
// refused until it has shown another key. It fails with [ErrAuthorityState] for a key that is revoked already, and with
// [ErrNotFound].
//
// POST /v1/authority/receivers/{receiver_id}/keys/{key_id}/revoke
func (s *AuthorityService) RevokeReceiverKey(
	ctx context.Context, receiverID, keyID string, params AuthorityReasonParams,
) (*ReceiverKey, error) {
	return authorityReason[ReceiverKey](ctx, s.client,
		post("/v1/authority/receivers/{receiver_id}/keys/{key_id}/revoke", receiverID, keyID), params, "key")
}
