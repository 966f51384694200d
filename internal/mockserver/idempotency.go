package mockserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	idempotencyHeader = "Idempotency-Key"
	keyedLife         = 24 * time.Hour // how long the answer of a keyed call can be had again
	maxKeyed          = 10_000         // keyed calls that one operator's answers are kept of
	maxIdempotencyKey = 255
)

// keyedCall is a call that its idempotency key lets happen once.
type keyedCall struct {
	digest [sha256.Size]byte // of the request
	answer any               // nil while it runs
	until  time.Time
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
		case earlier.digest != digest:
			return nil, refused("IDEMPOTENCY_KEY_REUSED", "the idempotency key belongs to another request",
				"the unchanged request, or a new key for a new one")
		case earlier.answer == nil:
			return nil, refused("IDEMPOTENCY_KEY_IN_PROGRESS", "the first call with this idempotency key is still running",
				"the same call again, a little later")
		}
		return earlier.answer.(*T), nil
	}
	if len(op.keyed) >= maxKeyed {
		return nil, op.tooManyKeys(now)
	}
	k := &keyedCall{digest: digest, until: now.Add(keyedLife)}
	op.keyed[name] = k
	defer func() {
		if k.answer == nil { // it was refused, or it broke
			delete(op.keyed, name)
		}
	}()
	answer, err := run()
	if err != nil {
		return nil, err
	}
	k.answer = answer
	op.due.add(k.until, func(time.Time) { delete(op.keyed, name) })
	return answer, nil
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
		fmt.Sprintf("%d idempotency keys of the last 24 hours are kept already", len(op.keyed)),
		map[string]any{"check": "idempotency_key", "sent": len(op.keyed), "allowed": fmt.Sprintf("at most %d in 24 hours", maxKeyed)})
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
