package stack

import (
	"cmp"
	"context"
	"net"
	"net/url"
	"os"
	"strings"
)

// bearer gives the token with which a call authenticates.
type bearer func(ctx context.Context) (Secret, error)

func always(token Secret) bearer {
	return func(context.Context) (Secret, error) { return token, nil }
}

// credentials are what a client authenticates with: the one that is set.
type credentials struct {
	key    Secret
	bearer bearer
	file   string // of an OAuth session
	person opener // who will sign in
}

func (c credentials) isZero() bool { return c.key.IsZero() && c.bearer == nil && c.file == "" }

// authenticate gives the transport what it sends as bearer.
func (c credentials) authenticate(t *transport) error {
	switch {
	case c.bearer != nil:
		t.bearer = c.bearer
	case c.file != "":
		session, err := newFileSession(c.file, t)
		if err != nil {
			return err
		}
		t.bearer = session.bearer
	case c.person != nil:
		t.bearer = (&browserSession{transport: t, open: c.person}).bearer
	default:
		t.bearer = always(c.key)
	}
	return nil
}

// resolveCredentials picks the base URL and the credentials that may be sent to it, as [New] documents; person is nil where there
// is none to ask. The URL comes also with [ErrNoCredentials].
func resolveCredentials(base *url.URL, given credentials, person opener) (*url.URL, credentials, error) {
	ambient, err := parseBaseURL("STACK_BASE_URL", cmp.Or(os.Getenv("STACK_BASE_URL"), DefaultBaseURL))
	if base == nil {
		if err != nil {
			return nil, credentials{}, err
		}
		base = ambient
	}
	if !given.isZero() {
		return base, given, nil
	}
	ambientKey, found := os.Getenv("STACK_API_KEY"), "STACK_API_KEY"
	var file string
	if ambientKey == "" {
		if file, found = defaultCredentialsFile(), "the session in ~/.stack/credentials.json"; file == "" {
			found = "what a person approves in the browser"
		}
	}
	trusted := base.String() == DefaultBaseURL || err == nil && base.String() == ambient.String() || isLoopback(base.Hostname())
	switch {
	case ambientKey == "" && file == "" && person == nil:
		return base, credentials{}, &Error{Code: noCredentials, Message: "set STACK_API_KEY, pass WithAPIKey, or sign in, " +
			"which makes ~/.stack/credentials.json; a program that runs in a terminal, and not in CI, asks for that itself"}
	case !trusted:
		return base, credentials{}, &Error{Code: noCredentials, Message: found + " is not sent to " + base.Host +
			", a base URL given in code; pass WithAPIKey or WithCredentialsFile, or set STACK_BASE_URL"}
	case file != "":
		return base, credentials{file: file}, nil
	case ambientKey == "":
		return base, credentials{person: person}, nil
	}
	return base, credentials{key: NewSecret(ambientKey)}, checkKey("STACK_API_KEY", ambientKey)
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
