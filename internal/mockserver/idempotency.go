package mockserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	idempotencyHeader = "Idempotency-Key"
	keyedLife         = 24 * time.Hour // how long the answer of a keyed call can be had again
	maxKeyed          = 10_000         // keyed calls that one operator's answers are kept of
	maxKeyedBytes     = 64 << 20       // of all those answers
	maxIdempotencyKey = 255
)

// keyedCall is a call that its idempotency key lets happen once.
type keyedCall struct {
	digest [sha256.Size]byte // of the request
	answer any               // nil while it runs, and once it is wiped
	wiped  error             // in place of the answer
	until  time.Time
}

// size is how much of an answer is kept only for the sake of its key.
func (k *keyedCall) size() int {
	if doc, ok := k.answer.(*document); ok {
		return len(doc.body)
	}
	return 0
}

// idempotent lets an Idempotency-Key stand for one call of a route by an operator: its repetition gives the first answer and
// changes nothing. A refused call leaves its key free, since nothing has happened. Where required, a call without a key is
// refused. (contract: endpoints 1.2)
func idempotent(required bool) routeOption {
	return func(r *route) { r.idempotent, r.keyRequired = true, required }
}

// keyOf reads the Idempotency-Key of a request; empty is none.
func (r *route) keyOf(req *http.Request) (string, error) {
	field, values := "header "+idempotencyHeader, req.Header.Values(idempotencyHeader)
	switch {
	case !r.idempotent || len(values) == 0 && !r.keyRequired:
		return "", nil
	case len(values) == 0:
		return "", invalid(field, nil, idempotencyKeyForm)
	case len(values) > 1:
		return "", invalid(field, fmt.Sprintf("given %d times", len(values)), "given once")
	}
	return values[0], firstError(idempotencyKey(field, values[0]))
}

var idempotencyKeyForm = fmt.Sprintf("1 to %d printable ASCII characters that the caller makes up, new for each new call", maxIdempotencyKey)

// idempotencyKey refuses what cannot be one.
func idempotencyKey(field, key string) *apiError {
	foreign := strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
	if foreign || len(key) > maxIdempotencyKey || strings.TrimSpace(key) == "" {
		return invalid(field, key, idempotencyKeyForm)
	}
	return nil
}

// once runs a call unless its key has run already: then it gives the same answer. The key belongs to its scope, such as a
// route; the digest tells the same request from another. The operator is locked.
func once[T any](op *operator, now time.Time, scope, key string, digest [sha256.Size]byte, run func() (*T, error)) (*T, error) {
	refused := func(code, message, allowed string) error {
		return refuse(http.StatusConflict, code, message, map[string]any{"check": "idempotency_key", "sent": key, "allowed": allowed})
	}
	name := scope + "\n" + key
	if earlier, ok := op.keyed[name]; ok {
		switch {
		case earlier.wiped != nil:
			return nil, earlier.wiped
		case earlier.digest != digest:
			return nil, refused("IDEMPOTENCY_KEY_REUSED", "the idempotency key belongs to another request",
				"the unchanged request, or a new key for a new one")
		case earlier.answer == nil:
			return nil, refused("IDEMPOTENCY_KEY_IN_PROGRESS", "the first call with this idempotency key is still running",
				"the same call again, a little later")
		}
		return earlier.answer.(*T), nil
	}
	if len(op.keyed) >= maxKeyed || op.keyedBytes >= maxKeyedBytes {
		return nil, op.tooManyKeys(now)
	}
	k := &keyedCall{digest: digest, until: now.Add(keyedLife)}
	op.keyed[name] = k
	defer func() {
		if k.answer == nil && k.wiped == nil { // it was refused, or it broke
			delete(op.keyed, name)
		}
	}()
	answer, err := run()
	if err != nil {
		return nil, err
	}
	k.answer = answer
	op.keyedBytes += k.size()
	op.due.add(k.until, func(time.Time) {
		op.keyedBytes -= k.size()
		delete(op.keyed, name)
	})
	return answer, nil
}

// wipeAnswers takes away the answers of keyed calls that hold one of some texts. Their keys stay taken: a repetition is refused
// with a reason, whatever it asks for, since the digest of what was asked would tell a content that can be guessed.
func (op *operator) wipeAnswers(reason error, texts ...string) {
	for _, k := range op.keyed {
		doc, ok := k.answer.(*document)
		if ok && slices.ContainsFunc(texts, func(text string) bool { return bytes.Contains(doc.body, []byte(text)) }) {
			op.keyedBytes -= k.size()
			k.answer, k.wiped, k.digest = nil, reason, [sha256.Size]byte{}
		}
	}
}

// onceByBody is once for a call whose key is in its body, as idempotency_key at a place; what tells it from another call.
func onceByBody[T any](s *Server, op *operator, scope, at, key string, what any, run func() (*T, error)) (*T, error) {
	if err := firstError(idempotencyKey(at+"idempotency_key", key)); err != nil {
		return nil, err
	}
	digest, err := digestOf(what)
	if err != nil {
		return nil, err
	}
	return once(op, s.clock.now(), scope, key, digest, run)
}

// tooManyKeys refuses rather than forget a key that is still promised to work.
func (op *operator) tooManyKeys(now time.Time) error {
	first := now.Add(keyedLife)
	for _, k := range op.keyed {
		first = earlier(first, k.until)
	}
	err := refuse(http.StatusTooManyRequests, "IDEMPOTENCY_KEYS_EXHAUSTED",
		fmt.Sprintf("%d idempotency keys of the last 24 hours, with answers of %d bytes, are kept already", len(op.keyed), op.keyedBytes),
		map[string]any{"check": "idempotency_key", "sent": len(op.keyed), "bytes": op.keyedBytes,
			"allowed": fmt.Sprintf("at most %d in 24 hours, with answers of %d bytes", maxKeyed, maxKeyedBytes)})
	err.retryAfter = first.Sub(now)
	return err
}

// requestDigest sums up what a request asks for, whatever the order of its members: where, on which condition, and what.
func requestDigest(req *http.Request, body []byte) ([sha256.Size]byte, error) {
	var content any
	if len(bytes.TrimSpace(body)) > 0 {
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		if err := dec.Decode(&content); err != nil {
			return [sha256.Size]byte{}, err
		}
	}
	return digestOf(req.URL.EscapedPath(), req.URL.Query().Encode(), req.Header.Get("If-Match"), content)
}

// digestOf sums up values as their JSON, in which the order of an object's members does not matter.
func digestOf(values ...any) ([sha256.Size]byte, error) {
	canonical, err := json.Marshal(values)
	return sha256.Sum256(canonical), err
}
