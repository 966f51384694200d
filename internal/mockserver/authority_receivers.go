package mockserver

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

const (
	challengePath     = "/authority/receivers/challenges/"
	challengeLifetime = 15 * time.Minute
	maxReceiverHosts  = 16
	maxReceiverKeys   = 10  // active at once
	maxKeyHistory     = 100 // revoked ones included
)

// receiverChallenge is the challenge that a receiver was given last.
type receiverChallenge struct {
	stack.ReceiverChallenge
	answeredWith string // the id of the key
}

type (
	receiverOut struct {
		Receiver *stack.Receiver `json:"receiver"`
	}
	receiversOut struct {
		Receivers []stack.Receiver `json:"receivers"`
	}
	receiverKeyOut struct {
		Key *stack.ReceiverKey `json:"key"`
	}
	challengeOut struct {
		Challenge *stack.ReceiverChallenge `json:"challenge"`
	}
)

type createReceiverIn struct {
	Body stack.ReceiverParams `body:""`
}

func (s *Server) createReceiver(_ context.Context, c *caller, in createReceiverIn) (*receiverOut, error) {
	now, b := s.clock.now(), in.Body
	if len(b.Hosts) == 0 {
		return nil, invalid("body.hosts", "empty", "at least one host")
	}
	if err := firstError(
		filled("body.name", b.Name),
		atMost("body.name", b.Name, maxName),
		listAtMost("body.hosts", b.Hosts, maxReceiverHosts, maxHost),
		distinct("body.hosts", b.Hosts),
	); err != nil {
		return nil, err
	}
	for i, host := range b.Hosts {
		if err := checkHost(fmt.Sprintf("body.hosts[%d]", i), host); err != nil {
			return nil, err
		}
	}
	r := &stack.Receiver{ID: newID("rcv_"), OperatorID: c.op.id, Name: b.Name, Hosts: b.Hosts, Status: stack.ReceiverUnverified,
		Keys: []stack.ReceiverKey{}, CreatedAt: now}
	c.op.authority.receivers.put(r.ID, r)
	c.op.recordAuthority(now, "receiver_create", r.ID, "")
	return &receiverOut{r}, nil
}

func (s *Server) listReceivers(_ context.Context, c *caller, _ none) (*receiversOut, error) {
	return &receiversOut{newest(&c.op.authority.receivers, itself)}, nil
}

func (op *operator) receiverByID(id string) (*stack.Receiver, error) {
	return find(op, &op.authority.receivers, "receiver", id)
}

type receiverIn struct {
	ReceiverID string `path:"receiver_id"`
}

func (s *Server) getReceiver(_ context.Context, c *caller, in receiverIn) (*receiverOut, error) {
	r, err := c.op.receiverByID(in.ReceiverID)
	return &receiverOut{r}, err
}

type addReceiverKeyIn struct {
	ReceiverID string                  `path:"receiver_id"`
	Body       stack.ReceiverKeyParams `body:""`
}

// activeKeys counts the keys of a receiver that are not revoked.
func activeKeys(r *stack.Receiver) (n int) {
	for _, k := range r.Keys {
		if k.Status == stack.ReceiverKeyActive {
			n++
		}
	}
	return n
}

func (s *Server) addReceiverKey(_ context.Context, c *caller, in addReceiverKeyIn) (*receiverKeyOut, error) {
	now := s.clock.now()
	r, err := c.op.receiverByID(in.ReceiverID)
	if err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(in.Body.PublicKey)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, invalid("body.public_key", in.Body.PublicKey,
			"the 32 bytes of an Ed25519 public key in base64url without padding")
	}
	for _, k := range r.Keys {
		if k.PublicKey == in.Body.PublicKey {
			return nil, wrongState("key", k.ID, k.Status, "a key that the receiver has never had")
		}
	}
	if n := activeKeys(r); n >= maxReceiverKeys || len(r.Keys) >= maxKeyHistory {
		return nil, wrongState("receiver", r.ID, fmt.Sprintf("with %d active keys of %d", n, len(r.Keys)),
			fmt.Sprintf("a receiver with fewer than %d active keys, and %d in all", maxReceiverKeys, maxKeyHistory))
	}
	k := stack.ReceiverKey{ID: newID("rky_"), ReceiverID: r.ID, Algorithm: "Ed25519", PublicKey: in.Body.PublicKey,
		Status: stack.ReceiverKeyActive, CreatedAt: now}
	r.Keys = append(r.Keys, k)
	c.op.recordAuthority(now, "receiver_key_add", k.ID, "")
	return &receiverKeyOut{&k}, nil
}

func keyOfReceiver(r *stack.Receiver, id string) (*stack.ReceiverKey, error) {
	if i := slices.IndexFunc(r.Keys, func(k stack.ReceiverKey) bool { return k.ID == id }); i >= 0 {
		return &r.Keys[i], nil
	}
	return nil, notFound("receiver key", id)
}

type revokeReceiverKeyIn struct {
	ReceiverID string                      `path:"receiver_id"`
	KeyID      string                      `path:"key_id"`
	Body       stack.AuthorityReasonParams `body:""`
}

func (s *Server) revokeReceiverKey(_ context.Context, c *caller, in revokeReceiverKeyIn) (*receiverKeyOut, error) {
	now := s.clock.now()
	r, err := c.op.receiverByID(in.ReceiverID)
	if err != nil {
		return nil, err
	}
	k, err := keyOfReceiver(r, in.KeyID)
	if err != nil {
		return nil, err
	}
	if err = checkReason(in.Body.ReasonCode); err != nil {
		return nil, err
	}
	if k.Status != stack.ReceiverKeyActive {
		return nil, wrongState("key", k.ID, k.Status, "an active key")
	}
	k.Status, k.RevokedAt, k.ReasonCode = stack.ReceiverKeyRevoked, now, in.Body.ReasonCode
	c.op.recordAuthority(now, "receiver_key_revoke", k.ID, k.ReasonCode)
	if r.VerifiedKeyID == k.ID {
		r.Status, r.VerifiedAt, r.VerifiedKeyID = stack.ReceiverUnverified, time.Time{}, ""
		c.op.recordAuthority(now, "receiver_unverify", r.ID, k.ReasonCode)
	}
	return &receiverKeyOut{k}, nil
}

// challengeOf finds the challenge that a receiver was given last.
func (op *operator) challengeOf(receiverID string) *receiverChallenge {
	for ch := range op.authority.challenges.all() {
		if ch.ReceiverID == receiverID {
			return ch
		}
	}
	return nil
}

func (s *Server) challengeReceiver(ctx context.Context, c *caller, in receiverIn) (*challengeOut, error) {
	op, now := c.op, s.clock.now()
	r, err := op.receiverByID(in.ReceiverID)
	if err != nil {
		return nil, err
	}
	if activeKeys(r) == 0 {
		return nil, wrongState("receiver", r.ID, "without a key", "a receiver with an active key")
	}
	if last := op.challengeOf(r.ID); last != nil {
		op.authority.challenges.delete(last.ID)
	}
	ch := &receiverChallenge{ReceiverChallenge: stack.ReceiverChallenge{ID: newID("rch_"), ReceiverID: r.ID,
		ExpiresAt: now.Add(challengeLifetime)}}
	// It says what it is for, so that the signature is worth nothing elsewhere.
	ch.Challenge = "stack-authority-receiver-verification:" + r.ID + ":" + newID("")
	ch.ResponseURL = baseURL(ctx) + challengePath + ch.ID
	op.authority.challenges.put(ch.ID, ch)
	op.recordAuthority(now, "receiver_challenge", r.ID, "")
	return &challengeOut{&ch.ReceiverChallenge}, nil
}

type answerChallengeIn struct {
	ChallengeID string `path:"challenge_id"`
	Body        struct {
		KeyID     string `json:"key_id"`
		Signature string `json:"signature"`
	} `body:""`
}

type answerChallengeOut struct {
	ChallengeID string `json:"challenge_id"`
	Status      string `json:"status"` // answered
}

// answerChallenge is for the receiver itself, who has no key of this server: what it signs with is what lets it in.
func (s *Server) answerChallenge(_ context.Context, _ *caller, in answerChallengeIn) (*answerChallengeOut, error) {
	signature, err := base64.RawURLEncoding.Strict().DecodeString(in.Body.Signature)
	if err != nil || len(signature) != ed25519.SignatureSize {
		return nil, invalid("body.signature", in.Body.Signature, "the 64 bytes of an Ed25519 signature in base64url without padding")
	}
	if err = s.AnswerReceiverChallenge(in.ChallengeID, in.Body.KeyID, signature); err != nil {
		return nil, err
	}
	return &answerChallengeOut{in.ChallengeID, "answered"}, nil
}

// AnswerReceiverChallenge does what a receiver of any operator does who answers its challenge: it hands in the challenge's
// signature by one of its keys. It fails for a challenge that is unknown, replaced or has expired, a key that is not an active
// one of the receiver's, and a signature that is not by that key.
func (s *Server) AnswerReceiverChallenge(challengeID, keyID string, signature []byte) error {
	tableOf := func(op *operator) *table[receiverChallenge] { return &op.authority.challenges }
	return atObject(s, "challenge", challengeID, tableOf, func(op *operator, ch *receiverChallenge, now time.Time) error {
		if !now.Before(ch.ExpiresAt) {
			return wrongState("challenge", ch.ID, "expired", "a challenge that has not expired")
		}
		r, err := op.receiverByID(ch.ReceiverID)
		if err != nil {
			return err
		}
		k, err := keyOfReceiver(r, keyID)
		if err != nil {
			return err
		}
		if k.Status != stack.ReceiverKeyActive {
			return wrongState("key", k.ID, k.Status, "an active key")
		}
		public, err := base64.RawURLEncoding.DecodeString(k.PublicKey)
		if err != nil {
			return err
		}
		if !ed25519.Verify(public, []byte(ch.Challenge), signature) {
			return forbidden("the signature is not the challenge's by this key", map[string]any{"check": "receiver_signature",
				"sent": k.ID, "allowed": "the Ed25519 signature of the challenge's text by the key"})
		}
		ch.answeredWith = k.ID
		op.recordAuthority(now, "receiver_answer", r.ID, "")
		return nil
	})
}

// verifyReceiver makes a receiver verified by what it has shown, once.
func (s *Server) verifyReceiver(_ context.Context, c *caller, in receiverIn) (*receiverOut, error) {
	op, now := c.op, s.clock.now()
	r, err := op.receiverByID(in.ReceiverID)
	if err != nil {
		return nil, err
	}
	const allowed = "a receiver that has answered its last challenge, with a key that is active still, before it expired"
	ch := op.challengeOf(r.ID)
	switch {
	case ch == nil:
		return nil, wrongState("receiver", r.ID, "without a challenge", allowed)
	case !now.Before(ch.ExpiresAt):
		return nil, wrongState("challenge", ch.ID, "expired", allowed)
	case ch.answeredWith == "":
		return nil, wrongState("challenge", ch.ID, "unanswered", allowed)
	}
	k, err := keyOfReceiver(r, ch.answeredWith)
	if err != nil {
		return nil, err
	}
	if k.Status != stack.ReceiverKeyActive {
		return nil, wrongState("key", k.ID, k.Status, allowed)
	}
	r.Status, r.VerifiedAt, r.VerifiedKeyID = stack.ReceiverVerified, now, k.ID
	op.authority.challenges.delete(ch.ID)
	op.recordAuthority(now, "receiver_verify", r.ID, "")
	return &receiverOut{r}, nil
}
