package forward

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
)

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
