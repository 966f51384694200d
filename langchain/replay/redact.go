package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
)

// usual are forms of what must not be in a file that is kept, with what stands for it.
var usual = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[a-z0-9._~+/-]{8,}=*`), "$1 [REDACTED]"},
	{regexp.MustCompile(`\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*`), "[REDACTED]"}, // a JWT
	{regexp.MustCompile(`\b(sk|pk|rk|xox[a-z]|gh[a-z]|github_pat|glpat|whsec)[-_][\w-]{12,}`), "[REDACTED]"},
	{regexp.MustCompile(`\b(AKIA|ASIA|AIza)[\w-]{12,}`), "[REDACTED]"},
	{regexp.MustCompile(`\b[\w.+-]+@[\w-]+(\.[\w-]+)+\b`), "[EMAIL]"},
}

// Option changes what is redacted.
type Option func(*redactor)

// Redact replaces each of the words by [REDACTED], and each match of the patterns. It adds to what is redacted anyway. Times
// and ids that differ from run to run need it as well, or no replay would fit.
func Redact(words []string, patterns ...*regexp.Regexp) Option {
	return func(r *redactor) {
		for _, word := range words {
			if word != "" {
				r.words = append(r.words, word, "[REDACTED]")
			}
		}
		r.patterns = append(r.patterns, patterns...)
	}
}

type redactor struct {
	words    []string // each followed by what stands for it
	replacer *strings.Replacer
	patterns []*regexp.Regexp
}

func newRedactor(opts []Option) (r redactor) {
	for _, opt := range opts {
		opt(&r)
	}
	r.replacer = strings.NewReplacer(r.words...)
	return r
}

// literal is a string in a JSON text.
var literal = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// encoded is v as a line of JSON whose strings are redacted, in the order in which it is written.
func (r redactor) encoded(v any) ([]byte, error) {
	text, err := marshal(v)
	return literal.ReplaceAllFunc(text, func(quoted []byte) []byte {
		var plain string
		if json.Unmarshal(quoted, &plain) != nil {
			return quoted // it cannot be: the text is JSON
		}
		clean := r.text(plain)
		if clean == plain {
			return quoted
		}
		again, encodeErr := marshal(clean)
		err = errors.Join(err, encodeErr)
		return bytes.TrimSpace(again)
	}), err
}

// tree is v as JSON values whose strings are redacted, to compare.
func (r redactor) tree(v any) (tree any, err error) {
	text, err := r.encoded(v)
	if err != nil {
		return nil, err
	}
	return tree, decode(text, &tree)
}

func (r redactor) text(s string) string {
	s = r.replacer.Replace(s)
	for _, pattern := range r.patterns {
		s = pattern.ReplaceAllLiteralString(s, "[REDACTED]")
	}
	for _, form := range usual {
		s = form.pattern.ReplaceAllString(s, form.by)
	}
	return s
}
