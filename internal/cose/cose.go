// Package cose writes claims as the API has them: a COSE_Sign1 whose payload is the claim in CBOR. The client signs with
// an agent's key, the mock with the deployment's. (contract: endpoints 6)
package cose

import (
	"crypto"
	"crypto/rand"
	"errors"
	"reflect"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// Type is the typ header of every claim.
const Type = "stack/claim+cose"

// encoding writes shortest integers, definite lengths and whole doubles; the keys of maps and the fields of structs are in
// the order of their bytes, so that one claim has one encoding.
var encoding = mode(cbor.EncOptions{Sort: cbor.SortBytewiseLexical, Time: cbor.TimeRFC3339Nano,
	IndefLength: cbor.IndefLengthForbidden}.EncMode())

// decoding reads what encoding writes, and refuses what two readers might understand differently.
var decoding = mode(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
	TagsMd: cbor.TagsForbidden, MaxNestedLevels: 32, IntDec: cbor.IntDecConvertSignedOrBigInt,
	DefaultMapType: reflect.TypeFor[map[string]any]()}.DecMode())

// mode unwraps a mode whose options are constants, so that an error can be a mistake in this file only.
func mode[M any](m M, err error) M {
	if err != nil {
		panic(err)
	}
	return m
}

// Encode returns v in CBOR.
func Encode(v any) ([]byte, error) { return encoding.Marshal(v) }

// Decode reads CBOR into v. It fails for what Encode does not write: tags, indefinite lengths, repeated keys, more than 32
// levels, anything after the end.
func Decode(data []byte, v any) error { return decoding.Unmarshal(data, v) }

// Sign returns the untagged COSE_Sign1 of a claim, which must encode to a map. The key is an Ed25519 key.
func Sign(key crypto.Signer, kid string, claim any) ([]byte, error) {
	payload, err := Encode(claim)
	if err != nil {
		return nil, err
	}
	if len(payload) == 0 || payload[0]>>5 != 5 {
		return nil, errors.New("the claim does not encode to a map")
	}
	signer, err := cose.NewSigner(cose.AlgorithmEdDSA, key)
	if err != nil {
		return nil, err
	}
	return cose.Sign1Untagged(rand.Reader, signer, cose.Headers{Protected: cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA,
		cose.HeaderLabelKeyID:     []byte(kid),
		cose.HeaderLabelType:      Type,
	}}, payload, nil)
}
