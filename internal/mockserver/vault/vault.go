// Package vault keeps secrets encrypted in memory by envelope encryption: each secret has a data key of its own, and the
// data keys are wrapped by one root key. Both steps are AES-256-GCM. (contract: semantics 13)
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// keySize is the length of an AES-256 key.
const keySize = 32

// ErrOpen is what Open fails with. It does not say which of its reasons it was, and holds nothing of the content.
var ErrOpen = errors.New("the sealed value cannot be opened: " +
	"it was sealed for another context or by another vault, or was altered")

// Vault seals and opens secrets. It is safe for concurrent use. Nothing but the running process knows its root key, so a
// Sealed is worth nothing after the process has ended.
type Vault struct {
	root func() *[keySize]byte // a function, since fmt may print what a pointer points to
}

// Sealed is an encrypted secret with its wrapped data key. It may be copied, kept and printed; it shows the secret to
// nobody but the vault that sealed it. The zero value cannot be opened.
type Sealed struct {
	wrappedKey []byte // the nonce, then the data key under the root key
	ciphertext []byte // the nonce, then the secret under the data key
}

// NewRandom returns a vault with a fresh random root key.
func NewRandom() *Vault {
	key := randomKey()
	return &Vault{root: func() *[keySize]byte { return key }}
}

// Seal encrypts plaintext under a fresh data key. The context names what the secret belongs to, such as an operator and a
// connection; it is authenticated with both the secret and its key, so the sealed value opens for that context only.
// Seal fails when context is empty. It leaves plaintext as it is: the caller wipes it.
func (v *Vault) Seal(plaintext []byte, context string) (Sealed, error) {
	if context == "" {
		return Sealed{}, errors.New("context must not be empty: it says what the secret belongs to")
	}
	key := randomKey()
	defer clear(key[:])
	wrappedKey, err := encrypt(v.root(), key[:], context)
	if err != nil {
		return Sealed{}, err
	}
	ciphertext, err := encrypt(key, plaintext, context)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{wrappedKey: wrappedKey, ciphertext: ciphertext}, nil
}

// Open decrypts what Seal made for the same context. It fails with [ErrOpen]. The caller wipes the result.
func (v *Vault) Open(s Sealed, context string) ([]byte, error) {
	unwrapped, err := decrypt(v.root(), s.wrappedKey, context)
	if err != nil {
		return nil, err
	}
	defer clear(unwrapped)
	if len(unwrapped) != keySize {
		return nil, ErrOpen
	}
	return decrypt((*[keySize]byte)(unwrapped), s.ciphertext, context)
}

func randomKey() *[keySize]byte {
	var key [keySize]byte
	_, _ = rand.Read(key[:]) // never fails: it ends the program instead
	return &key
}

// encrypt returns the nonce, which is random, and then the ciphertext.
func encrypt(key *[keySize]byte, plaintext []byte, context string) ([]byte, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plaintext, []byte(context)), nil
}

func decrypt(key *[keySize]byte, sealed []byte, context string) ([]byte, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, nil, sealed, []byte(context))
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

func newGCM(key *[keySize]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("set up AES: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("set up AES-GCM: %w", err)
	}
	return aead, nil
}
