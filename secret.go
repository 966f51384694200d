package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
)

// Secret holds an API key, a token or a credential so that it is not shown by accident: its text sits behind a pointer,
// and every fmt verb, slog and the printed form of any struct around it give "[REDACTED]". JSON is the wire, so
// encoding/json does write the text; types of this package that hold a Secret redact themselves in slog.
//
// The zero value is the empty secret. Two secrets of the same text are not equal by ==; compare what Reveal gives.
type Secret struct {
	text *string
}

const redacted = "[REDACTED]"

// NewSecret wraps text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the text itself. It is the only way to read it, so a search for Reveal finds every use.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether the secret is empty; encoding/json uses it for omitzero.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String returns a fixed placeholder, or nothing for the empty secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// Format writes the placeholder whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue gives slog the placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON writes the text, for the wire.
func (s Secret) MarshalJSON() ([]byte, error) { return marshalJSON(s.Reveal()) }

// UnmarshalJSON reads the text from the wire; null is the empty secret.
func (s *Secret) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return errors.New("a secret must be a JSON string") // the decoder's own message would quote the value
	}
	*s = NewSecret(text)
	return nil
}
