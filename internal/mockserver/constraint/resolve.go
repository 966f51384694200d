package constraint

import (
	"net/url"
	"path"
	"strconv"
	"strings"
)

// validPath reports whether a constraint's path has one of the known forms.
func validPath(p string) bool {
	if len(p) > maxPath {
		return false
	}
	switch p {
	case "method", "url.pathname", "url.host", "url.origin":
		return true
	}
	kind, rest, _ := strings.Cut(p, ".")
	switch kind {
	case "headers":
		return rest != "" && !strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' })
	case "query":
		return rest != ""
	case "body":
		return rest != "" && !strings.HasPrefix(rest, ".") && !strings.HasSuffix(rest, ".") && !strings.Contains(rest, "..")
	}
	return false
}

// isTextPath reports whether the path leads to text always, rather than to any JSON value.
func isTextPath(p string) bool { return !strings.HasPrefix(p, "body.") }

// isSensitive reports whether the last part of a path names something whose value should not stand in a message.
func isSensitive(p string) bool {
	last := strings.ToLower(p[strings.LastIndexByte(p, '.')+1:])
	for _, word := range []string{"authoriz", "oauth", "x-auth", "token", "apikey", "api-key", "api_key", "secret", "passw",
		"cookie", "credential"} {
		if strings.Contains(last, word) {
			return true
		}
	}
	return false
}

// resolve returns the values that a path leads to. More than one means that each must satisfy; none means it is missing.
func resolve(p string, r Request) []any {
	if !validPath(p) {
		return nil
	}
	kind, rest, _ := strings.Cut(p, ".")
	switch kind {
	case "method":
		return []any{strings.ToUpper(r.Method)}
	case "headers":
		var values []any
		for name, value := range r.Headers {
			if strings.EqualFold(name, rest) {
				values = append(values, value)
			}
		}
		return values
	case "body":
		return resolveBody(rest, r.Body)
	}
	if r.URL == nil {
		return nil
	}
	switch p {
	case "url.pathname":
		return pathReadings(r.URL.EscapedPath())
	case "url.host", "url.origin":
		host, ok := normalHost(r.URL)
		if !ok {
			return nil
		}
		if p == "url.origin" {
			host = strings.ToLower(r.URL.Scheme) + "://" + host
		}
		return []any{host}
	}
	query, err := url.ParseQuery(r.URL.RawQuery) // the only kind left
	if err != nil {
		return nil
	}
	return anys(query[rest])
}

func anys(texts []string) []any {
	var values []any
	for _, text := range texts {
		values = append(values, text)
	}
	return values
}

// resolveBody follows a dotted path through a decoded body.
func resolveBody(dotted string, body any) []any {
	if form, ok := body.(url.Values); ok {
		return anys(form[dotted])
	}
	for step := range strings.SplitSeq(dotted, ".") {
		switch node := body.(type) {
		case map[string]any:
			next, ok := node[step]
			if !ok {
				return nil
			}
			body = next
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(node) || strconv.Itoa(i) != step {
				return nil
			}
			body = node[i]
		default:
			return nil
		}
	}
	return []any{body}
}

// pathReadings returns the ways in which an upstream may understand a percent-encoded path: segment by segment, an encoded
// slash being part of its segment, and fully decoded with repeated slashes merged. Ordinary paths have one.
func pathReadings(escaped string) []any {
	decoded, err := url.PathUnescape(escaped)
	if err != nil {
		return nil
	}
	segments := strings.Split(escaped, "/")
	for i, segment := range segments {
		segment, err = url.PathUnescape(segment)
		if err != nil {
			return nil
		}
		segments[i] = strings.ReplaceAll(segment, "/", "%2F")
	}
	written, merged := resolveDots(segments), path.Clean("/"+decoded)
	if written == merged {
		return []any{written}
	}
	return []any{written, merged}
}

// resolveDots applies dot segments, keeps empty segments, and drops a trailing slash.
func resolveDots(segments []string) string {
	var kept []string
	for i, segment := range segments {
		switch {
		case i == 0 && segment == "", segment == ".":
		case segment == "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		case segment == "" && i == len(segments)-1: // the trailing slash
		default:
			kept = append(kept, segment)
		}
	}
	return "/" + strings.Join(kept, "/")
}

// normalHost returns the host in lower case, without a trailing dot and without the scheme's own port. It fails on a host
// that is empty or not ASCII, since what such a name resolves to depends on who reads it.
func normalHost(u *url.URL) (string, bool) {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", false
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if port != "" && (scheme != "https" || port != "443") && (scheme != "http" || port != "80") {
		host += ":" + port
	}
	return host, true
}

// normal brings a constraint's value into the form of what its path resolves to for this request.
func normal(p string, value any, r Request) any {
	text, ok := value.(string)
	if !ok {
		return value
	}
	switch p {
	case "method":
		return strings.ToUpper(text)
	case "url.pathname":
		if readings := pathReadings(text); len(readings) > 0 && strings.HasPrefix(text, "/") {
			return readings[0]
		}
	case "url.host":
		if u, err := url.Parse(r.URL.Scheme + "://" + text); err == nil {
			if host, ok := normalHost(u); ok {
				return host
			}
		}
	case "url.origin":
		if u, err := url.Parse(text); err == nil {
			if host, ok := normalHost(u); ok {
				return strings.ToLower(u.Scheme) + "://" + host
			}
		}
	}
	return text
}
