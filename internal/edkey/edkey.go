// Package edkey tells Ed25519 public keys that are worth something from those that are not.
package edkey

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"filippo.io/edwards25519"
)

// Check refuses what is no public key of 32 bytes, what is no point of the curve, a point that is written otherwise than the
// one right way, so that no key has two forms, and the points of a low order: for those everybody can make signatures.
func Check(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("has %d bytes; an Ed25519 public key has %d", len(key), ed25519.PublicKeySize)
	}
	point, err := new(edwards25519.Point).SetBytes(key)
	if err != nil || !bytes.Equal(point.Bytes(), key) ||
		new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return errors.New("is weak; it must be a point of the curve Ed25519, canonically encoded and not of a low order")
	}
	return nil
}
