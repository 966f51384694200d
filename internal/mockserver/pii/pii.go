// Package pii finds personal data in text and puts typed placeholders in its place, such as [EMAIL_1] or
// [NATIONAL_ID:SE_2]. (contract: server-api 21, semantics 16)
//
// Mail addresses, payment cards, IBANs and IP addresses are looked for everywhere; phone numbers and national numbers by
// the configured countries. Each thing found has a confidence from 0 to 1, which comes from its shape and checksum and is
// raised or lowered by words nearby, and is redacted when that reaches the threshold.
//
// The work is linear in the text: everything is scanned by hand with a bounded look around each place.
package pii

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Kind is the kind of a thing found. Its text is also what the placeholder starts with.
type Kind string

// The kinds. The first four are looked for whatever the countries.
const (
	Email      Kind = "EMAIL"
	Card       Kind = "CARD"
	IBAN       Kind = "IBAN"
	IP         Kind = "IP"
	Phone      Kind = "PHONE"
	NationalID Kind = "NATIONAL_ID"
)

// DefaultThreshold is the threshold of an operator that set none. (contract: server-api 21)
const DefaultThreshold = 0.4

// Finding says what was found and where, never the value itself.
type Finding struct {
	Kind Kind
	// Country is the ISO 3166-1 alpha-2 code of a national number, an IBAN or a phone number; otherwise empty.
	Country string
	// Confidence is between 0 and 1, and at least the threshold, except that a value found once is redacted wherever else
	// it stands in the same call.
	Confidence float64
	// Start and End are byte offsets of the value in the string that held it, End past its last byte.
	Start, End int
}

// Config says what to redact. [DefaultConfig] is that of an operator that set nothing; the zero value redacts nothing.
type Config struct {
	Enabled bool
	// Threshold is between 0 and 1. A higher one redacts less.
	Threshold float64
	// Countries are the ISO 3166-1 alpha-2 codes, in capitals, whose phone and national numbers are looked for. Nil means
	// all; empty means none.
	Countries []string
}

// DefaultConfig returns what holds for an operator that set nothing: enabled, [DefaultThreshold], all countries.
func DefaultConfig() Config {
	return Config{Enabled: true, Threshold: DefaultThreshold}
}

// Validate fails when the threshold is not between 0 and 1 or a country is not an ISO 3166-1 alpha-2 code in capitals.
// The error names the field and what it was.
func (c Config) Validate() error {
	if !(c.Threshold >= 0 && c.Threshold <= 1) { // so that not-a-number is refused too
		return fmt.Errorf("threshold must be between 0 and 1, and was %v", c.Threshold)
	}
	for i, country := range c.Countries {
		if !isCountry(country) {
			return fmt.Errorf("countries[%d] must be an ISO 3166-1 alpha-2 code in capitals, such as \"SE\", and was %.20q",
				i, country)
		}
	}
	return nil
}

// Loosens reports whether going from old to c redacts less in any respect: switched off, a higher threshold, or a country
// fewer. Such a change needs governance approval. (contract: server-api 21)
func (c Config) Loosens(old Config) bool {
	if !old.Enabled {
		return false
	}
	if !c.Enabled || c.Threshold > old.Threshold {
		return true
	}
	if c.Countries == nil {
		return false
	}
	return old.Countries == nil ||
		slices.ContainsFunc(old.Countries, func(code string) bool { return !slices.Contains(c.Countries, code) })
}

// Redactor redacts by one [Config]. It is safe for concurrent use.
type Redactor struct {
	config       Config
	nationals    nationalIndex
	phoneRegions []string
}

// New returns a Redactor. It fails as [Config.Validate] does.
func New(c Config) (*Redactor, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.Countries = slices.Clone(c.Countries)
	r := &Redactor{config: c, nationals: indexNationals(c.Countries), phoneRegions: c.Countries}
	if c.Countries == nil {
		r.phoneRegions = defaultPhoneRegions
	}
	return r, nil
}

// Redact redacts one text in a [Session] of its own.
func (r *Redactor) Redact(text string) (string, []Finding) {
	return r.NewSession().Redact(text)
}

// RedactJSON redacts one JSON value in a [Session] of its own.
func (r *Redactor) RedactJSON(v any) (any, []Finding) {
	return r.NewSession().RedactJSON(v)
}

// NewSession starts a numbering: within a Session the same value gets the same placeholder, so that a reader of the
// redacted texts can tell things apart. One request with several messages is one Session.
func (r *Redactor) NewSession() *Session {
	return &Session{
		redactor: r,
		seen:     map[string]bool{},
		numbers:  map[string]int{},
		counts:   map[string]int{},
		phones:   map[string]phoneVerdict{},
	}
}

// Session redacts the texts of one request. It is not safe for concurrent use, and holds what it found until it is let go:
// it is not for printing.
type Session struct {
	redactor *Redactor
	seen     map[string]bool // the values found, by located.key
	numbers  map[string]int  // their numbers
	counts   map[string]int  // how many numbers each placeholder type has given out
	phones   map[string]phoneVerdict
	checks   int // how many times the phone library has been asked
}

// Redact returns text with each thing found replaced by its placeholder, and what was found, in order. All other bytes
// stay as they are, and redacting the answer again changes nothing.
func (s *Session) Redact(text string) (string, []Finding) {
	return s.redact(text, "")
}

// RedactJSON redacts the strings inside v, which is decoded JSON as encoding/json makes it, and returns the result with
// what was found. Object keys and numbers stay; a key counts as a word near its value. Objects are walked in the order of
// their keys. V itself is not changed.
func (s *Session) RedactJSON(v any) (any, []Finding) {
	var findings []Finding
	out := s.redactValue(v, "", &findings)
	return out, findings
}

// redactValue redacts the strings inside v, which stood under the object key label.
func (s *Session) redactValue(v any, label string, findings *[]Finding) any {
	switch v := v.(type) {
	case string:
		out, found := s.redact(v, label)
		*findings = append(*findings, found...)
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = s.redactValue(item, label, findings)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out[key] = s.redactValue(v[key], key, findings)
		}
		return out
	default:
		return v
	}
}

// redact redacts text, with the words of label counting as standing before it.
func (s *Session) redact(text, label string) (string, []Finding) {
	if !s.redactor.config.Enabled {
		return text, nil
	}
	found := s.find(text, label)
	if len(found) == 0 {
		return text, nil
	}
	slices.SortFunc(found, func(a, b located) int { return a.Start - b.Start })
	var out strings.Builder
	out.Grow(len(text))
	findings := make([]Finding, len(found))
	end := 0
	for i, f := range found {
		out.WriteString(text[end:f.Start])
		out.WriteString(s.placeholder(f))
		end = f.End
		findings[i] = f.Finding
	}
	out.WriteString(text[end:])
	return out.String(), findings
}

// placeholder returns what stands in for f.
func (s *Session) placeholder(f located) string {
	name := f.name()
	number, ok := s.numbers[f.key()]
	if !ok {
		s.counts[name]++
		number = s.counts[name]
		s.numbers[f.key()] = number
	}
	return "[" + name + "_" + strconv.Itoa(number) + "]"
}
