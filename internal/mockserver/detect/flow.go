package detect

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	flowMinRunes     = 16
	flowWindow       = 16   // bytes; a field of 16 characters has at least so many
	flowMaxFields    = 4096 // remembered per service
	flowMaxPerPrefix = 256  // different lengths of remembered fields that begin with the same window
)

// Flow is the data-flow wall of one Mission. It remembers the strings that came in through each service and finds them
// again in what goes out to another one.
//
// It keeps no text. A string of at least 16 characters, without the white space around it, is kept as its length, a
// polynomial hash and an HMAC-SHA256, both under keys of this Flow's own that never leave it. The hash of its first 16 bytes
// is looked for at every byte of an outgoing string; where it stands, the lengths that such fields have are tried with the
// hash, and the HMAC confirms a hit. The work grows with the length of what goes out, at worst times those lengths.
//
// Bounds: of each service the newest 4096 strings, the longest unseen going first, so that a talkative service cannot wash
// out another's; and strings of 256 different lengths that begin with the same 16 bytes, beyond which another length is not
// taken. The text must reappear as it was: encoded, translated or shortened it is not found.
type Flow struct {
	mac      hash.Hash
	base     uint64                     // of the polynomial hash
	lead     uint64                     // base to the power flowWindow-1
	order    map[string]*list.List      // service → its fields, the longest unseen first
	fields   map[uint64][]*list.Element // hash of the whole → the same text from each service that answered it
	prefixes map[uint64][]span          // hash of the first window → the lengths that begin with it
}

type field struct {
	service     string
	length      int
	sum, prefix uint64
	mac         [sha256.Size]byte
}

// span counts the fields of one first window that have one length.
type span struct {
	length, count int
	power         uint64 // base to the power of the length
}

// Part is a piece of an outgoing request: a name, such as "body", "query", "path" or "headers", and its decoded value. Leave
// out what every request has, such as Content-Type and Accept headers: "application/json" is a string of 16 characters.
type Part struct {
	Name  string
	Value any
}

// NewFlow begins a Mission's record.
func NewFlow() *Flow {
	key := make([]byte, sha256.Size+8)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	base := binary.LittleEndian.Uint64(key[sha256.Size:])%(prime-256) + 256
	return &Flow{
		mac:      hmac.New(sha256.New, key[:sha256.Size]),
		base:     base,
		lead:     power(base, flowWindow-1),
		order:    map[string]*list.List{},
		fields:   map[uint64][]*list.Element{},
		prefixes: map[uint64][]span{},
	}
}

// Remember takes in an answer that came through a service: the strings in its decoded JSON body, not the names of fields
// and not numbers.
func (f *Flow) Remember(service string, body any) {
	walk(body, false, func(s string) bool {
		f.remember(service, strings.TrimSpace(s))
		return false
	})
}

func (f *Flow) remember(service, s string) {
	if utf8.RuneCountInString(s) < flowMinRunes {
		return
	}
	sum := f.sum(s)
	for _, known := range f.fields[sum] {
		if known.Value.(*field).service == service {
			f.order[service].MoveToBack(known)
			return
		}
	}
	prefix := f.sum(s[:flowWindow])
	spans := f.prefixes[prefix]
	i := spanOf(spans, len(s))
	if i < 0 {
		if len(spans) == flowMaxPerPrefix {
			return
		}
		i, spans = len(spans), append(spans, span{length: len(s), power: power(f.base, len(s))})
		f.prefixes[prefix] = spans
	}
	spans[i].count++
	order := f.order[service]
	if order == nil {
		order = list.New()
		f.order[service] = order
	}
	f.fields[sum] = append(f.fields[sum], order.PushBack(&field{service, len(s), sum, prefix, f.hmac(s)}))
	if order.Len() > flowMaxFields {
		f.forget(order)
	}
}

// forget drops the field of one service that was not seen for longest.
func (f *Flow) forget(order *list.List) {
	oldest := order.Front()
	old := order.Remove(oldest).(*field)
	same := slices.DeleteFunc(f.fields[old.sum], func(e *list.Element) bool { return e == oldest })
	if f.fields[old.sum] = same; len(same) == 0 {
		delete(f.fields, old.sum)
	}
	spans := f.prefixes[old.prefix]
	i := spanOf(spans, old.length)
	if spans[i].count--; spans[i].count == 0 {
		spans = slices.Delete(spans, i, i+1)
	}
	if f.prefixes[old.prefix] = spans; len(spans) == 0 {
		delete(f.prefixes, old.prefix)
	}
}

func spanOf(spans []span, length int) int {
	return slices.IndexFunc(spans, func(s span) bool { return s.length == length })
}

// Check looks in a request to a service for strings that came through other ones. allowFrom names the services whose content
// may flow into this one: nil stands for all of them (nothing is checked), empty for none. What this service has itself
// answered in the Mission may always flow back to it, wherever else it was seen. The finding names where the first such
// string stood, never the string.
func (f *Flow) Check(service string, allowFrom []string, parts ...Part) *Finding {
	if allowFrom == nil {
		return nil
	}
	for _, part := range parts {
		var source string
		where, found := walk(part.Value, true, func(s string) bool {
			source = f.find(service, allowFrom, s)
			return source != ""
		})
		if found {
			where = shown(part.Name + where)
			return &Finding{
				Signal:   DataFlowViolation,
				Severity: DataFlowViolation.Severity(""),
				Message: fmt.Sprintf("Content that came through %s was about to go to %s, which does not allow it.",
					shown(source), shown(service)),
				Detail: shown(source) + "_to_" + shown(service),
				Metadata: map[string]any{
					"source_service": shown(source), "target_service": shown(service), "found_in": where,
				},
			}
		}
	}
	return nil
}

// find names a service that may not flow into service and has answered a part of s, or nothing.
func (f *Flow) find(service string, allowFrom []string, s string) (source string) {
	if len(s) < flowWindow || len(f.fields) == 0 {
		return ""
	}
	var sums []uint64 // sums[i] is the hash of s[:i]; made when the first window stands
	window := f.sum(s[:flowWindow])
	for i := 0; ; i++ {
		spans := f.prefixes[window]
		if spans != nil && sums == nil {
			sums = f.allSums(s)
		}
		for _, span := range spans {
			if i+span.length > len(s) {
				continue
			}
			sum := subMod(sums[i+span.length], mulMod(sums[i], span.power))
			if known, ok := f.fields[sum]; ok {
				if source = f.blocked(known, service, allowFrom, s[i:i+span.length]); source != "" {
					return source
				}
			}
		}
		if i+flowWindow == len(s) {
			return ""
		}
		window = subMod(window, mulMod(uint64(s[i]), f.lead))
		window = addMod(mulMod(window, f.base), uint64(s[i+flowWindow]))
	}
}

// blocked names the first, by name, of the services in known that has answered text and may not flow into service; nothing
// when service has itself answered it. The HMAC, whose cost grows with the text, comes last: a request may hold many long
// overlapping texts that are allowed.
func (f *Flow) blocked(known []*list.Element, service string, allowFrom []string, text string) (source string) {
	var first *field
	for _, element := range known {
		switch from := element.Value.(*field); {
		case from.service == service:
			return ""
		case !slices.Contains(allowFrom, from.service) && (first == nil || from.service < first.service):
			first = from
		}
	}
	if first == nil || first.mac != f.hmac(text) {
		return ""
	}
	return first.service
}

func (f *Flow) hmac(s string) (sum [sha256.Size]byte) {
	f.mac.Reset()
	_, _ = io.WriteString(f.mac, s) // a hash never fails
	f.mac.Sum(sum[:0])
	return sum
}

func (f *Flow) sum(s string) uint64 {
	var h uint64
	for i := range len(s) {
		h = addMod(mulMod(h, f.base), uint64(s[i]))
	}
	return h
}

func (f *Flow) allSums(s string) []uint64 {
	sums := make([]uint64, len(s)+1)
	for i := range len(s) {
		sums[i+1] = addMod(mulMod(sums[i], f.base), uint64(s[i]))
	}
	return sums
}

// prime is the Mersenne prime 2^61-1, modulo which the polynomial hash is computed.
const prime = 1<<61 - 1

func addMod(a, b uint64) uint64 {
	if a += b; a >= prime {
		a -= prime
	}
	return a
}

func subMod(a, b uint64) uint64 { return addMod(a, prime-b) }

func mulMod(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return addMod(lo&prime, hi<<3|lo>>61) // 2^64 is 8, 2^61 is 1
}

func power(base uint64, n int) uint64 {
	p := uint64(1)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			p = mulMod(p, base)
		}
		base = mulMod(base, base)
	}
	return p
}
