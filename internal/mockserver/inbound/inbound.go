// Package inbound checks the signatures of webhooks that other services send. It knows nothing of operators and routes.
//
// AgentMail signs by the scheme of its sender Svix: base64 of HMAC-SHA256 over "id.timestamp.body", the key in base64 after
// whsec_, id, timestamp and a list of signatures in the headers svix-id, svix-timestamp and svix-signature. What a generic
// provider does is described by a [Generic].
package inbound

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // HMAC-SHA1 is what some providers sign with; as a MAC it holds
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far the time of a signature may be from now, in either direction, where no other is set.
const Tolerance = 5 * time.Minute

const (
	maxHeader     = 4 << 10 // bytes of a header that is looked at
	maxSignatures = 16      // in one header
	maxID         = 256     // bytes of a message's id
)

// ErrSignature is what a check fails with. Its text names the header and what is wrong with it, and holds nothing secret.
var ErrSignature = errors.New("the signature is refused")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSignature, fmt.Sprintf(format, args...))
}

// The headers of AgentMail.
const (
	headerID        = "svix-id"
	headerTimestamp = "svix-timestamp"
	headerSignature = "svix-signature"
)

// AgentMailKey reads a signing secret of AgentMail: whsec_ and the key in base64, of 16 to 64 bytes.
func AgentMailKey(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < 16 || len(key) > 64 {
		return nil, errors.New("a signing secret of AgentMail is whsec_ followed by 16 to 64 bytes in base64")
	}
	return key, nil
}

// VerifyAgentMail checks a request of AgentMail under a key from [AgentMailKey] and returns the message's id, which is the
// same when the message is sent again. It fails with [ErrSignature].
func VerifyAgentMail(header http.Header, body, key []byte, now time.Time) (id string, err error) {
	id, err = single(header, headerID)
	if err != nil {
		return "", err
	}
	if len(id) > maxID {
		return "", refused("the header %s has more than %d bytes", headerID, maxID)
	}
	stamp, err := single(header, headerTimestamp)
	if err != nil {
		return "", err
	}
	list, err := single(header, headerSignature)
	if err != nil {
		return "", err
	}
	signatures, err := parseList(list)
	if err != nil {
		return "", err
	}
	want := sum(sha256.New, key, id, ".", stamp, ".", string(body))
	good := 0
	for _, signature := range signatures {
		good |= subtle.ConstantTimeCompare(want, signature)
	}
	if good == 0 {
		return "", refused("none in %s fits", headerSignature)
	}
	return id, fresh(headerTimestamp, stamp, now, Tolerance)
}

// parseList reads a list such as "v1,<base64> v1,<base64>"; signatures of other versions are passed over.
func parseList(list string) (signatures [][]byte, err error) {
	for entry := range strings.SplitSeq(list, " ") {
		version, text, _ := strings.Cut(entry, ",")
		if version != "v1" {
			continue
		}
		signature, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(signature) != sha256.Size || len(signatures) == maxSignatures {
			return nil, refused("the header %s has a v1 that is no HMAC-SHA256 in base64, or more than %d", headerSignature,
				maxSignatures)
		}
		signatures = append(signatures, signature)
	}
	if signatures == nil {
		return nil, refused("the header %s has no signature of version v1", headerSignature)
	}
	return signatures, nil
}

// Generic is how a provider signs: a MAC in a header, of the body alone or, where there is a TimestampHeader, of
// "timestamp.body".
type Generic struct {
	Header          string
	Prefix          string // before the MAC, such as sha256=
	SHA1            bool   // HMAC-SHA1 in place of HMAC-SHA256
	Base64          bool   // in place of hex
	TimestampHeader string // with Unix seconds; empty where the provider does not send the time
	Tolerance       time.Duration
}

// Verify checks a request and returns an id of its content: the MAC, which is the same only for the same content, however it
// was written in the header. It fails with [ErrSignature].
func (g Generic) Verify(header http.Header, body, key []byte, now time.Time) (id string, err error) {
	value, err := single(header, g.Header)
	if err != nil {
		return "", err
	}
	text, ok := strings.CutPrefix(value, g.Prefix)
	if !ok {
		return "", refused("the header %s does not begin with %s", g.Header, g.Prefix)
	}
	decode, encoding := hex.DecodeString, "hex"
	if g.Base64 {
		decode, encoding = base64.StdEncoding.DecodeString, "base64"
	}
	got, err := decode(text)
	if err != nil {
		return "", refused("the header %s is not in %s", g.Header, encoding)
	}
	algorithm := sha256.New
	if g.SHA1 {
		algorithm = sha1.New
	}
	if g.TimestampHeader == "" {
		want := sum(algorithm, key, string(body))
		if !hmac.Equal(want, got) {
			return "", refused("that in %s does not fit", g.Header)
		}
		return hex.EncodeToString(want), nil
	}
	stamp, err := single(header, g.TimestampHeader)
	if err != nil {
		return "", err
	}
	want := sum(algorithm, key, stamp, ".", string(body))
	if !hmac.Equal(want, got) {
		return "", refused("that in %s does not fit", g.Header)
	}
	return hex.EncodeToString(want), fresh(g.TimestampHeader, stamp, now, g.Tolerance)
}

// single returns a header that must be there once.
func single(header http.Header, name string) (string, error) {
	values := header.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", refused("the header %s must be there once, and not empty", name)
	}
	if len(values[0]) > maxHeader {
		return "", refused("the header %s has more than %d bytes", name, maxHeader)
	}
	return values[0], nil
}

// fresh refuses a time that is too far from now.
func fresh(name, stamp string, now time.Time, tolerance time.Duration) error {
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<33 {
		return refused("the header %s is no time in Unix seconds", name)
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return refused("the header %s is %s from now, more than %s", name, age.Abs().Truncate(time.Second), tolerance)
	}
	return nil
}

func sum(algorithm func() hash.Hash, key []byte, parts ...string) []byte {
	mac := hmac.New(algorithm, key)
	for _, part := range parts {
		_, _ = mac.Write([]byte(part)) // a hash never fails
	}
	return mac.Sum(nil)
}
