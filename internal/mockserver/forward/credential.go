package forward

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
)

const redacted = "[REDACTED]"

// minSecret is the length from which on a secret is looked for in answers. Shorter ones would shred ordinary text.
const minSecret = 6

// Credential is what the proxy adds to a call: headers, query parameters, or both. Make one with [Bearer], [Header],
// [Basic], [Query] or [Custom]; the zero value adds nothing. It does not show its secrets when printed or logged.
type Credential struct {
	headers []pair
	query   []pair
	secrets []stack.Secret // the texts that no answer may contain
}

type pair struct {
	name  string
	value stack.Secret
}

// Bearer is a token in the Authorization header.
func Bearer(token string) Credential { return Header("Authorization", "Bearer ", token) }

// Header is a secret in the named header, after a prefix such as "Bot ", which may be empty.
func Header(name, prefix, secret string) Credential {
	return Credential{
		headers: []pair{{http.CanonicalHeaderKey(name), stack.NewSecret(prefix + secret)}},
		secrets: []stack.Secret{stack.NewSecret(secret)},
	}
}

// Basic is a user name and a password in the Authorization header. The user name itself is no secret.
func Basic(username, password string) Credential {
	both := base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
	c := Header("Authorization", "Basic ", both)
	c.secrets = append(c.secrets, stack.NewSecret(password))
	return c
}

// Query is a secret in the named query parameter.
func Query(name, secret string) Credential {
	value := stack.NewSecret(secret)
	return Credential{query: []pair{{name, value}}, secrets: []stack.Secret{value}}
}

// Custom is the credential of a custom service given as a map: username and password together as basic, and each entry
// named header:<Name> as that header. Other entries are not sent. It fails with an [*Error] when nothing is left to send.
// (contract: decisions, Catalogue)
func Custom(fields map[string]string) (Credential, error) {
	var c Credential
	if username, ok := fields["username"]; ok {
		if password, ok := fields["password"]; ok {
			c = Basic(username, password)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		name, ok := strings.CutPrefix(key, "header:")
		if !ok {
			continue
		}
		h := Header(name, "", fields[key])
		c.headers = append(c.headers, h.headers...)
		c.secrets = append(c.secrets, h.secrets...)
	}
	if len(c.headers) == 0 {
		return Credential{}, invalid("credential", "has nothing that can be sent",
			"a token, or a map with username and password, or with entries named header:<Name>")
	}
	return c, c.check()
}

// And is the credential with another beside it, which has the last word where both name the same place.
func (c Credential) And(other Credential) Credential {
	return Credential{headers: slices.Concat(c.headers, other.headers), query: slices.Concat(c.query, other.query),
		secrets: slices.Concat(c.secrets, other.secrets)}
}

// String names where the credential goes, and nothing of what it is.
func (c Credential) String() string {
	var places []string
	for _, h := range c.headers {
		places = append(places, "header "+h.name)
	}
	for _, q := range c.query {
		places = append(places, "query "+q.name)
	}
	return "credential(" + strings.Join(places, ", ") + ")"
}

// Format writes String whatever the verb.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// LogValue gives slog what String says.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// check reports a credential that HTTP cannot carry.
func (c Credential) check() error {
	for _, h := range c.headers {
		if !validHeaderName(h.name) || isFraming(h.name) {
			return invalid("credential", fmt.Sprintf("names the header %q", clip(h.name)), "sent in an ordinary header")
		}
		if !validHeaderValue(h.value.Reveal()) {
			return invalid("credential", "for the header "+h.name+" has control characters in it", "one line of text")
		}
	}
	return nil
}

// inject adds the credential to a request, in place of whatever the caller put there.
func (c Credential) inject(r *http.Request) {
	for _, h := range c.headers {
		r.Header.Set(h.name, h.value.Reveal())
	}
	for _, q := range c.query {
		var kept []string
		for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
			key, _, _ := strings.Cut(part, "=")
			if name, err := url.QueryUnescape(key); part != "" && (err != nil || name != q.name) {
				kept = append(kept, part)
			}
		}
		kept = append(kept, url.QueryEscape(q.name)+"="+url.QueryEscape(q.value.Reveal()))
		r.URL.RawQuery = strings.Join(kept, "&")
	}
}

// redactor replaces a credential's secrets in what comes back from an upstream.
type redactor struct {
	forms    []string
	replacer *strings.Replacer
}

func (c Credential) redactor() redactor {
	var r redactor
	for _, s := range c.secrets {
		r.forms = append(r.forms, forms(s.Reveal())...)
	}
	// The longest first: the replacer takes the first that fits, and one form may begin with another.
	slices.SortFunc(r.forms, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	r.forms = slices.Compact(r.forms)
	var pairs []string
	for _, form := range r.forms {
		pairs = append(pairs, form, redacted)
	}
	r.replacer = strings.NewReplacer(pairs...)
	return r
}

// forms lists the ways in which a secret may be written: plain, inside JSON, inside a URL, and, for what basic
// authentication sends, without its padding.
func forms(secret string) []string {
	if len(secret) < minSecret {
		return nil
	}
	list := []string{secret, strings.TrimRight(secret, "=")}
	for _, quoted := range [][]byte{encodeJSON(secret), escapedJSON(secret)} {
		list = append(list, string(quoted[1:len(quoted)-1]))
	}
	for _, escaped := range []string{url.QueryEscape(secret), url.PathEscape(secret)} {
		list = append(list, escaped, lowerEscapes(escaped))
	}
	return slices.DeleteFunc(list, func(form string) bool { return len(form) < minSecret })
}

// lowerEscapes writes the hexadecimal digits of percent-encodings in lower case.
func lowerEscapes(s string) string {
	out := []byte(s)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i+1:i+3], strings.ToLower(s[i+1:i+3]))
		}
	}
	return string(out)
}

// text returns s without secrets.
func (r redactor) text(s string) string {
	if len(r.forms) == 0 {
		return s
	}
	return r.replacer.Replace(s)
}

// json returns a JSON document without secrets. It stays byte for byte as it was unless it holds one, or might: inside a
// JSON string any character may be written as an escape.
func (r redactor) json(document []byte) []byte {
	if len(r.forms) == 0 {
		return document
	}
	text := string(document)
	suspicious := strings.Contains(text, `\`) ||
		slices.ContainsFunc(r.forms, func(form string) bool { return strings.Contains(text, form) })
	if !suspicious {
		return document
	}
	value, err := decodeJSON(document)
	if err != nil {
		return []byte(`"` + redacted + `"`) // it was checked before, so this does not happen
	}
	value, found := r.value(value)
	if !found {
		return document
	}
	return encodeJSON(value)
}

// line returns a line of an event stream without secrets. Its JSON is looked into as that of a document is.
func (r redactor) line(line []byte) []byte {
	if len(r.forms) == 0 {
		return line
	}
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if trimmed := bytes.TrimSpace(data); ok && len(trimmed) > 0 && json.Valid(trimmed) {
		clean := r.json(trimmed)
		if bytes.Equal(clean, trimmed) {
			return line
		}
		return slices.Concat([]byte("data: "), clean, []byte("\n"))
	}
	text := string(line)
	if clean := r.text(text); clean != text {
		return []byte(clean)
	}
	return line
}

// value returns a decoded JSON value without secrets, and whether it had one.
func (r redactor) value(v any) (out any, found bool) {
	switch v := v.(type) {
	case string:
		clean := r.text(v)
		return clean, clean != v
	case json.Number:
		if clean := r.text(v.String()); clean != v.String() {
			return clean, true
		}
	case []any:
		for i, item := range v {
			cleanItem, hit := r.value(item)
			v[i], found = cleanItem, found || hit
		}
		return v, found
	case map[string]any:
		clean := make(map[string]any, len(v))
		for key, item := range v {
			name := r.text(key)
			cleanItem, hit := r.value(item)
			clean[name] = cleanItem
			found = found || hit || name != key
		}
		return clean, found
	}
	return v, false
}
