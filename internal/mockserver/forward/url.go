package forward

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxURL is the longest URL that is forwarded, in bytes.
const maxURL = 8 << 10

const goodURL = "an absolute http or https URL with a host and without user info"

func badURL(was string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: CodeInvalidURL, Field: "url", Allowed: goodURL,
		Message: "url " + was + "; it must be " + goodURL}
}

// ParseURL reads the target of a proxied call: an absolute http or https URL of at most 8 KiB with a host, and without user
// info and control characters. It returns it in one canonical form: scheme and host in lower case, no trailing dot, no
// port that is the scheme's own, no fragment, the query percent-encoded. Names must be in their ASCII form. It fails with an
// [*Error] of code INVALID_URL that says what was wrong and quotes nothing that may hold a secret.
func ParseURL(raw string) (*url.URL, error) {
	switch {
	case raw == "":
		return nil, badURL("is empty")
	case len(raw) > maxURL:
		return nil, badURL(fmt.Sprintf("is %d bytes long, more than %d", len(raw), maxURL))
	case strings.ContainsFunc(raw, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, badURL("has control characters in it")
	}
	u, err := url.Parse(raw)
	var escape url.EscapeError
	var host url.InvalidHostError
	switch {
	case errors.As(err, &escape):
		return nil, badURL("has a bad percent-encoding")
	case errors.As(err, &host):
		return nil, badURL("has a host with invalid characters")
	case err != nil: // the cause may quote a part of a password that was taken for a port
		return nil, badURL("cannot be parsed")
	case u.Scheme == "":
		return nil, badURL("has no scheme")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, badURL(fmt.Sprintf("has the scheme %q", clip(u.Scheme)))
	case u.User != nil:
		return nil, badURL("has user info")
	case u.Hostname() == "":
		return nil, badURL("has no host")
	}
	u.Host, err = canonicalHost(u.Hostname(), u.Port(), u.Scheme)
	if err != nil {
		return nil, badURL(err.Error())
	}
	u.Fragment, u.RawFragment, u.ForceQuery = "", "", false
	u.RawQuery = escapeQuery(u.RawQuery)
	return u, nil
}

// canonicalHost writes host and port in one form. Without a scheme, every port is kept.
func canonicalHost(name, port, scheme string) (string, error) {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr.Zone() != "" {
			return "", errors.New("has a host with a zone")
		}
		name = addr.String()
		if addr.Is6() {
			name = "[" + name + "]"
		}
	} else if !validName(name) {
		return "", errors.New("has a host that is neither a domain name in ASCII nor a full IP address")
	}
	if port == "" || scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return name, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("has a port that is not between 1 and 65535")
	}
	return name + ":" + strconv.FormatUint(n, 10), nil
}

// validName reports whether s is a domain name. Names whose last label is a number are refused: some resolvers take
// 127.1 or 0x7f000001 for an address.
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// escapeQuery percent-encodes what may not stand in a request line as it is.
func escapeQuery(query string) string {
	var b strings.Builder
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// WithQuery returns u with further query parameters after its own; a key that is already there is then there twice.
func WithQuery(u *url.URL, query map[string]string) *url.URL {
	joined := *u
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if joined.RawQuery != "" {
			joined.RawQuery += "&"
		}
		joined.RawQuery += url.QueryEscape(key) + "=" + url.QueryEscape(query[key])
	}
	return &joined
}

var placeholders = []string{"account_id", "instance_url"}

// Expand replaces the placeholders {{instance_url}} and {{account_id}} in a URL by the values that belong to a connection.
// {{instance_url}} is a whole origin, such as https://acme.my.salesforce.com, so it must begin the URL and end at a slash;
// {{account_id}} is escaped as a part of a path. It fails with an [*Error] that names a placeholder which is unknown, has no
// value or stands in the wrong place.
func Expand(raw string, values map[string]string) (string, error) {
	var b strings.Builder
	for rest := raw; ; {
		before, after, found := strings.Cut(rest, "{{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, tail, closed := strings.Cut(after, "}}")
		if !closed {
			return "", badPlaceholder("{{"+clip(after), "is not closed", "followed by }}")
		}
		rest = tail
		shown := "{{" + clip(name) + "}}"
		if !slices.Contains(placeholders, name) {
			return "", badPlaceholder(shown, "is unknown", "{{account_id}} or {{instance_url}}")
		}
		value := values[name]
		if value == "" {
			return "", badPlaceholder(shown, "has no value", "set on the connection")
		}
		if name == "account_id" {
			value = url.PathEscape(value)
		} else {
			value = strings.TrimSuffix(value, "/")
			if b.Len() > 0 || tail != "" && !strings.ContainsAny(tail[:1], "/?#") {
				return "", badPlaceholder(shown, "stands in the wrong place",
					"the beginning of the URL, followed by a slash")
			}
		}
		b.WriteString(value)
	}
}

func badPlaceholder(name, was, allowed string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: CodeInvalidURL, Field: "url", Sent: name, Allowed: allowed,
		Message: fmt.Sprintf("the placeholder %s in url %s; it must be %s", name, was, allowed)}
}

// hostKey reads a host of a mapping or of an allow list: a name or an address, with a port or without.
func hostKey(host string) (string, error) {
	name, port := host, ""
	if addr, err := netip.ParseAddr(host); err != nil || !addr.Is6() {
		u, err := url.Parse("//" + host)
		if err != nil || u.Host != host || u.Hostname() == "" {
			return "", badHost(host)
		}
		name, port = u.Hostname(), u.Port()
	}
	key, err := canonicalHost(name, port, "")
	if err != nil {
		return "", badHost(host)
	}
	return key, nil
}

func badHost(host string) error {
	return fmt.Errorf("host is %q; it must be a domain name in ASCII or a full IP address, with a port or without",
		clip(host))
}

// hostKeys are the two keys under which u's host may be listed, the one with its port first.
func hostKeys(u *url.URL) [2]string {
	port := u.Port()
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	name := strings.TrimSuffix(u.Host, ":"+u.Port())
	return [2]string{name + ":" + port, name}
}

// allowedHost reports whether u's host is in the list. An entry *.example.com stands for every name below example.com, and
// not for example.com itself.
func allowedHost(u *url.URL, list []string) bool {
	keys := hostKeys(u)
	for _, entry := range list {
		host, below := strings.CutPrefix(entry, "*.")
		key, err := hostKey(host)
		if err != nil {
			continue
		}
		if below && (strings.HasSuffix(keys[0], "."+key) || strings.HasSuffix(keys[1], "."+key)) ||
			!below && slices.Contains(keys[:], key) {
			return true
		}
	}
	return false
}
