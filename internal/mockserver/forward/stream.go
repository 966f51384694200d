package forward

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	// heldFrom is how many characters of a secret may be a coincidence: so short a beginning at the end of an event does not
	// delay it.
	heldFrom = 3
	// maxHeld and maxHeldLines bound what waits for the rest of what may be a secret, in bytes and lines. What is more goes.
	maxHeld      = 256 << 10
	maxHeldLines = 2048
	// maxPlaces bounds the texts of one event, and the places of all events, that are looked at over several events.
	maxPlaces = 64
	// maxTail bounds what is remembered of each, in bytes: the longest secret that is recognised over several events.
	maxTail = 16 << 10
)

// stream takes secrets out of the lines of an event stream. Models say their text in small pieces, of which the reader makes
// one text again; so what one place in the JSON of one event after the other holds is looked at as one text, too, and a line
// that ends with the beginning of a secret waits for the lines after it. A document that one event spreads over several lines
// is not put together.
type stream struct {
	secrets *redactor
	tails   map[string]string // of the places, what has left already and may be the beginning of a secret
	held    []*heldLine
	bytes   int // of held
	free    int // of held, how many may go
}

// heldLine is a line on its way.
type heldLine struct {
	line    []byte
	size    int // of the line as it came
	event   any // the JSON of its data, if it is that
	pieces  []*piece
	changed bool
}

// piece is a string in the data of an event.
type piece struct {
	place string
	text  string
	put   func(string) // writes it back into the event
}

// next returns the next line that may go.
func (s *stream) next() ([]byte, bool) {
	if s.free == 0 {
		return nil, false
	}
	first := s.held[0]
	s.held, s.free, s.bytes = s.held[1:], s.free-1, s.bytes-first.size
	for _, p := range first.pieces {
		s.remember(p.place, s.tails[p.place]+p.text)
	}
	if first.changed {
		return slices.Concat([]byte("data: "), encodeJSON(first.event), []byte("\n")), true
	}
	return first.line, true
}

// remember keeps what may be the beginning of a secret.
func (s *stream) remember(place, text string) {
	text = text[max(0, len(text)-maxTail):]
	open, _, _ := s.secrets.find(text, 0)
	if text = text[open:]; text == "" {
		delete(s.tails, place)
	} else if len(s.tails) < maxPlaces || s.tails[place] != "" {
		s.tails[place] = text
	}
}

// last lets everything go, since no line follows, and returns the next line.
func (s *stream) last() ([]byte, bool) {
	s.free = len(s.held)
	return s.next()
}

// passes reports, at a glance, that there is nothing to do about a line, as is the rule.
func (s *stream) passes(line []byte) bool {
	if s.secrets == nil {
		return true
	}
	if len(s.held) > 0 || len(s.tails) > 0 || bytes.IndexByte(line, '\\') >= 0 {
		return false
	}
	text := strings.TrimRight(string(line), "\r\n")
	if open, _, found := s.secrets.find(text, 0); found || open < len(text) {
		return false
	}
	data, isData := strings.CutPrefix(text, "data:")
	for isData {
		var value string
		if _, data, isData = strings.Cut(data, `"`); !isData {
			break
		}
		if value, data, isData = strings.Cut(data, `"`); !isData || strings.HasPrefix(data, ":") {
			continue
		}
		if open, _, _ := s.secrets.find(value, 0); open < len(value) {
			return false
		}
	}
	return true
}

// add takes the next line.
func (s *stream) add(line []byte) {
	if s.tails == nil {
		s.tails = map[string]string{}
	}
	h := s.read(line)
	h.size = len(line)
	s.held = append(s.held, h)
	s.bytes += h.size
	s.free = len(s.held)
	for _, place := range s.places() {
		s.free = min(s.free, s.clean(place))
	}
	if s.bytes > maxHeld || len(s.held) > maxHeldLines {
		s.free = len(s.held)
	}
}

// read takes the secrets out of one line, as far as it holds them whole, and finds the pieces of text in it.
func (s *stream) read(line []byte) *heldLine {
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if trimmed := bytes.TrimSpace(data); ok && bytes.IndexAny(trimmed, "{[") == 0 && json.Valid(trimmed) {
		if event, err := decodeJSON(trimmed); err == nil {
			clean, changed := s.secrets.value(event)
			h := &heldLine{line: slices.Clone(line), event: clean, changed: changed}
			h.collect(clean, "", func(v string) { h.event = v })
			return h
		}
	}
	clean := []byte(s.secrets.text(string(line)))
	h := &heldLine{line: clean}
	if text, ok := bytes.CutPrefix(clean, []byte("data:")); ok {
		text = bytes.TrimRight(bytes.TrimPrefix(text, []byte(" ")), "\r\n")
		h.pieces = []*piece{{text: string(text), put: func(v string) { h.line = []byte("data: " + v + "\n") }}}
	}
	return h
}

// collect lists the strings in a value. What a provider numbers itself, such as its choices, is a place of its own.
func (h *heldLine) collect(value any, place string, put func(string)) {
	if len(h.pieces) == maxPlaces {
		return
	}
	switch v := value.(type) {
	case string:
		h.pieces = append(h.pieces, &piece{place: place, text: v, put: put})
	case []any:
		for i, item := range v {
			at := place + "[]"
			if object, ok := item.(map[string]any); !ok || object["index"] == nil {
				at = place + "[" + strconv.Itoa(i) + "]"
			}
			h.collect(item, at, func(text string) { v[i] = text })
		}
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		for _, key := range keys {
			if number, ok := v[key].(json.Number); ok && (key == "index" || strings.HasSuffix(key, "_index")) {
				place += fmt.Sprintf("(%s %s)", key, number)
			}
		}
		for _, key := range keys {
			h.collect(v[key], place+"."+key, func(text string) { v[key] = text })
		}
	}
}

// places lists the places of the pieces that are held.
func (s *stream) places() []string {
	var list []string
	for _, h := range s.held {
		for _, p := range h.pieces {
			if !slices.Contains(list, p.place) {
				list = append(list, p.place)
			}
		}
	}
	return list
}

// clean takes the secrets out of the text that a place has said over all lines, and returns how many lines may go before the
// first one that holds what may be the beginning of one.
func (s *stream) clean(place string) int {
	from, gone := 0, len(s.tails[place])
	for {
		text := s.tails[place]
		for _, h := range s.held {
			for _, p := range h.pieces {
				if p.place == place {
					text += p.text
				}
			}
		}
		start, end, ok := s.secrets.find(text, from)
		switch begin := max(start, gone); {
		case ok && end <= gone:
			from = end
		case ok:
			s.cut(place, begin-gone, end-gone)
			from = begin + len(redacted)
		case len(text)-start < heldFrom:
			return len(s.held)
		default:
			return s.lineAt(place, begin-gone)
		}
	}
}

// cut replaces what a place says from start to end, over all lines.
func (s *stream) cut(place string, start, end int) {
	at, instead := 0, redacted
	for _, h := range s.held {
		for _, p := range h.pieces {
			if p.place != place {
				continue
			}
			first, last := max(start-at, 0), min(end-at, len(p.text))
			at += len(p.text)
			if first >= last {
				continue
			}
			p.text = p.text[:first] + instead + p.text[last:]
			p.put(p.text)
			h.changed, instead = h.event != nil, ""
		}
	}
}

// lineAt returns the number of the line that holds what a place says there.
func (s *stream) lineAt(place string, offset int) int {
	for i, h := range s.held {
		for _, p := range h.pieces {
			if p.place != place {
				continue
			}
			if offset < len(p.text) {
				return i
			}
			offset -= len(p.text)
		}
	}
	return len(s.held)
}
