package forward

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// userAgent is sent for callers who name none, since some services refuse calls without.
const userAgent = "stack-proxy"

// What a caller's headers may come to, as most servers take it.
const (
	maxHeaders     = 100
	maxHeaderBytes = 32 << 10 // of names and values
)

// isFraming reports whether a header describes the connection or the message's frame rather than the message. Such headers
// are set by the proxy itself, or not at all, in both directions.
func isFraming(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "proxy-connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
		"trailers", "transfer-encoding", "upgrade", "expect", "host", "content-length":
		return true
	}
	return false
}

// isDropped reports whether a caller's header stays behind: credentials, which only the proxy injects, what belongs to
// STACK itself, and framing. Accept-Encoding goes too, so that answers arrive readable. (contract: decisions, Proxy)
func isDropped(name string) bool {
	switch name = strings.ToLower(name); name {
	case "authorization", "cookie", "x-api-key", "api-key", "x-passport-token", "accept-encoding":
		return true
	}
	return isFraming(name) || strings.HasPrefix(name, "x-stack-") || strings.HasPrefix(name, "x-intent-")
}

// Reaches reports whether a header of that name, given by the caller, reaches the upstream.
func Reaches(name string) bool { return !isDropped(name) }

// requestHeader makes the headers for the upstream from the caller's. It fails with an [*Error] on a name or value that
// HTTP cannot carry, on a name that is there twice in different case and on too many of them; values are not quoted.
func requestHeader(caller map[string]string) (http.Header, error) {
	if len(caller) > maxHeaders {
		return nil, invalid("headers", fmt.Sprintf("has %d names", len(caller)), fmt.Sprintf("a map of at most %d", maxHeaders))
	}
	header, size := http.Header{}, 0
	named := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(caller)) {
		value, key := caller[name], http.CanonicalHeaderKey(name)
		switch {
		case !validHeaderName(name):
			return nil, invalid("headers", fmt.Sprintf("has the name %q", clip(name)),
				"a map whose names are HTTP header names")
		case !validHeaderValue(value):
			return nil, invalid("headers."+clip(name), "has control characters in it", "one line of text")
		case header[key] != nil:
			return nil, invalid("headers."+clip(name), "is there twice in different case", "given once")
		}
		if size += len(name) + len(value); size > maxHeaderBytes {
			return nil, invalid("headers", "is too large", fmt.Sprintf("at most %d bytes of names and values", maxHeaderBytes))
		}
		header.Set(key, value)
		if key == "Connection" {
			for option := range strings.SplitSeq(value, ",") {
				named[http.CanonicalHeaderKey(strings.TrimSpace(option))] = true
			}
		}
	}
	maps.DeleteFunc(header, func(name string, _ []string) bool { return isDropped(name) || named[name] })
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", userAgent)
	}
	return header, nil
}

// responseHeaders gives an upstream's headers to the caller: in lower case, several of one name joined by ", ", without
// cookies, framing and secrets.
func responseHeaders(header http.Header, secrets *redactor) map[string]string {
	out := make(map[string]string, len(header))
	for name, values := range header {
		name = strings.ToLower(name)
		if !validHeaderName(name) || name == "set-cookie" || isFraming(name) || strings.HasPrefix(name, "x-stack-") {
			continue
		}
		out[secrets.name(name)] = secrets.text(oneLine(strings.ToValidUTF8(strings.Join(values, ", "), "�")))
	}
	for _, value := range header.Values("Connection") {
		for option := range strings.SplitSeq(value, ",") {
			delete(out, strings.ToLower(strings.TrimSpace(option)))
		}
	}
	return out
}

func validHeaderName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// oneLine puts spaces for control characters: a handler in this process may have written what no server would send.
func oneLine(value string) string {
	if validHeaderValue(value) {
		return value
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, value)
}

func validHeaderValue(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
