// Package evidence builds the manifests of evidence packs: canonical JSON (RFC 8785), so that one content has one form and
// one digest, with the digest of each of its lists. It knows nothing of HTTP or of who may have which pack.
package evidence

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gowebpki/jcs"

	"github.com/getstack-go/stack"
)

// ErrTooLarge is a manifest over the size that its caller allows.
var ErrTooLarge = errors.New("the manifest is too large")

// Build returns the canonical bytes of a manifest, which it fills in with the summary of its sections. It fails with
// [ErrTooLarge] as soon as it has more than limit bytes: it encodes one item after the other, so no more is ever held.
func Build(m stack.EvidenceManifest, limit int) ([]byte, error) {
	b := builder{left: limit, sections: map[string]json.RawMessage{}}
	m.Sections = map[string]stack.EvidenceSection{}
	if err := cmp.Or(
		add(&b, &m, "missions", m.Missions),
		add(&b, &m, "passports", m.Passports),
		add(&b, &m, "security_events", m.SecurityEvents),
		add(&b, &m, "operator_reviews", m.OperatorReviews),
		add(&b, &m, "audit", m.Audit),
	); err != nil {
		return nil, err
	}
	m.Missions, m.Passports, m.SecurityEvents, m.OperatorReviews, m.Audit = nil, nil, nil, nil, nil
	head, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(head, &members); err != nil {
		return nil, err
	}
	maps.Copy(members, b.sections)
	return b.object(members)
}

// builder counts down the bytes that may still be written.
type builder struct {
	left     int
	sections map[string]json.RawMessage
}

func (b *builder) take(n int) error {
	if b.left -= n; b.left < 0 {
		return ErrTooLarge
	}
	return nil
}

// add encodes one list, and sums it up in the manifest.
func add[T any](b *builder, m *stack.EvidenceManifest, name string, items []T) error {
	list := []byte{'['}
	for i, item := range items {
		if i > 0 {
			list = append(list, ',')
		}
		text, err := canonical(item)
		if err != nil {
			return fmt.Errorf("%s[%d]: %w", name, i, err)
		}
		if err := b.take(len(text) + 1); err != nil {
			return err
		}
		list = append(list, text...)
	}
	list = append(list, ']')
	sum := sha256.Sum256(list)
	m.Sections[name] = stack.EvidenceSection{Count: len(items), SHA256: hex.EncodeToString(sum[:])}
	b.sections[name] = list
	return nil
}

// object joins members that are canonical lists and others that are not canonical yet. All names are ASCII, whose order is
// that of RFC 8785.
func (b *builder) object(members map[string]json.RawMessage) ([]byte, error) {
	out := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(members)) {
		value := []byte(members[name])
		if _, done := b.sections[name]; !done {
			var err error
			if value, err = jcs.Transform(value); err != nil {
				return nil, err
			}
			if err := b.take(len(name) + len(value) + 4); err != nil {
				return nil, err
			}
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), name...), `":`...)
		out = append(out, value...)
	}
	return append(out, '}'), nil
}

// canonical encodes a value.
func canonical(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return jcs.Transform(buf.Bytes())
}
