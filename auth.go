package stack

import (
	"cmp"
	"net"
	"net/url"
	"os"
	"strings"
)

// resolveCredentials picks the base URL and the key that may be sent to it, as [New] documents. The URL comes also with
// [ErrNoCredentials].
func resolveCredentials(base *url.URL, key Secret) (*url.URL, Secret, error) {
	ambient, err := parseBaseURL("STACK_BASE_URL", cmp.Or(os.Getenv("STACK_BASE_URL"), DefaultBaseURL))
	if base == nil {
		if err != nil {
			return nil, Secret{}, err
		}
		base = ambient
	}
	if !key.IsZero() {
		return base, key, nil
	}
	ambientKey := os.Getenv("STACK_API_KEY")
	trusted := base.String() == DefaultBaseURL || err == nil && base.String() == ambient.String() || isLoopback(base.Hostname())
	switch {
	case ambientKey == "":
		return base, Secret{}, &Error{Code: noCredentials, Message: "set STACK_API_KEY or pass WithAPIKey"}
	case !trusted:
		return base, Secret{}, &Error{Code: noCredentials, Message: "STACK_API_KEY is not sent to " + base.Host +
			", a base URL given in code; pass WithAPIKey, or set STACK_BASE_URL"}
	}
	return base, NewSecret(ambientKey), checkKey("STACK_API_KEY", ambientKey)
}

// checkKey refuses a key that no header could carry; source names where it came from.
func checkKey(source, key string) error {
	if strings.ContainsFunc(key, blankOrForeign) {
		return &ParamError{Param: source, Reason: "has a space or a character outside printable ASCII; it must be the bare key"}
	}
	return nil
}

func blankOrForeign(r rune) bool { return r <= ' ' || r > '~' }

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
