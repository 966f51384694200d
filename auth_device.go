package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	deviceGrant       = "urn:ietf:params:oauth:grant-type:device_code"
	revokeRoute       = "/oauth/revoke"
	defaultDevicePoll = 5 * time.Second // where the server names none, and what is added when it is asked too often (RFC 8628, 3.5)
	maxDeviceCode     = 24 * time.Hour  // for which a person is waited for at the most, whatever the server says
	maxPromptText     = 2048            // characters of a URI that a person is shown
)

// SignInParams say how a person signs in with [SignIn].
type SignInParams struct {
	// Prompt tells the person where to enter which code. It is called once and must return while the person may still act: the
	// server is asked only afterwards whether they have approved. When it fails, so does the sign-in. It is required.
	Prompt func(ctx context.Context, code DeviceCode) error

	File   string   // that the session is written to; default ~/.stack/credentials.json
	Scopes []string // to ask for; default all ten, such as agents:read
}

// DeviceCode is what a person needs to approve a sign-in: a short code and the page where they enter it. What it holds can be
// printed to a terminal as it is.
type DeviceCode struct {
	UserCode                string    // such as WDJB-MJHT
	VerificationURI         string    // of the page
	VerificationURIComplete string    // of the page with the code filled in; empty when the server gives none
	ExpiresAt               time.Time // when the code is no longer good
}

// deviceAuthorization is the answer of RFC 8628, section 3.2.
type deviceAuthorization struct {
	DeviceCode              Secret  `json:"device_code"`
	UserCode                string  `json:"user_code"`
	VerificationURI         string  `json:"verification_uri"`
	VerificationURIComplete string  `json:"verification_uri_complete"`
	ExpiresIn               seconds `json:"expires_in"`
	Interval                seconds `json:"interval"`
}

// SignIn signs a person in by the device flow, which needs no browser on this machine: Prompt shows them a code that they enter on
// a page of the server, wherever they have a browser, and SignIn waits until they have approved. It writes the session to the
// credentials file, where this SDK and the others find it, in place of one that may be there, and returns a client that uses it.
// The options are those of [New]; credentials among them are not used.
//
// It fails with [ErrSignInRequired] when the person refuses or the code expires before they approve, with the context's error when
// that is done first, and when the file cannot be written, which it tries as well as it can before the person is troubled.
//
// POST /oauth/register, POST /oauth/device_authorization, POST /oauth/token
func SignIn(ctx context.Context, params SignInParams, opts ...Option) (*Client, error) {
	if params.Prompt == nil {
		return nil, &ParamError{Param: "Prompt", Reason: "is nil; it must show the person the code"}
	}
	t, path, err := signInTransport(params.File, opts)
	if err != nil {
		return nil, err
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("stack: the credentials file cannot be written: %w", err)
	}
	scopes := params.Scopes
	if len(scopes) == 0 {
		scopes = signInScopes
	}
	clientID, err := registerClient(ctx, t, clientRegistration{Name: onThisHost("STACK Go SDK"),
		GrantTypes: []string{deviceGrant, "refresh_token"}, SoftwareID: softwareID})
	if err != nil {
		return nil, err
	}
	cl := post(deviceAuthRoute).withForm(url.Values{"client_id": {clientID}, "scope": {strings.Join(scopes, " ")}})
	asked, err := sendBy[deviceAuthorization](ctx, t, cl)
	if err != nil {
		return nil, err
	}
	if err = asked.check(); err != nil {
		return nil, &DecodeError{Method: cl.method, Route: cl.pattern, Err: err}
	}
	expires := time.Now().Add(min(time.Duration(asked.ExpiresIn), maxDeviceCode))
	if err = params.Prompt(ctx, DeviceCode{asked.UserCode, asked.VerificationURI, asked.VerificationURIComplete, expires}); err != nil {
		return nil, err
	}
	session, err := asked.wait(ctx, t, clientID, expires)
	if err != nil {
		return nil, err
	}
	if session.Scope != "" {
		scopes = strings.Fields(session.Scope)
	}
	// The code is used up: who no longer waits does not lose the session.
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.http.Timeout)
	defer cancel()
	if err = saveCredentials(saving, path, clientID, session.RefreshToken, strings.Join(scopes, " ")); err != nil {
		return nil, err
	}
	return New(slices.Concat(opts, []Option{WithCredentialsFile(path)})...)
}

// signInTransport is how to reach the server without credentials, and where the credentials file is.
func signInTransport(file string, opts []Option) (t *transport, path string, err error) {
	if path = file; path == "" {
		if path, err = credentialsPath(); err != nil {
			return nil, "", err
		}
	}
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, "", err
	}
	base, _, err := resolveCredentials(cfg.baseURL, credentials{file: path}, nil)
	if err != nil {
		return nil, "", err
	}
	return newTransport(base, cfg), path, nil
}

// check refuses what a person could not use, or what would do harm in a terminal or a browser.
func (d *deviceAuthorization) check() error {
	isPage := func(text string) bool {
		u, err := url.Parse(text)
		return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && len(text) <= maxPromptText &&
			!strings.ContainsFunc(text, blankOrForeign)
	}
	switch {
	case d.DeviceCode.IsZero():
		return errors.New("it has no device_code")
	case d.UserCode == "" || len(d.UserCode) > maxNameText || strings.ContainsFunc(d.UserCode, blankOrForeign):
		return errors.New("its user_code is missing or no printable word")
	case !isPage(d.VerificationURI) || d.VerificationURIComplete != "" && !isPage(d.VerificationURIComplete):
		return errors.New("its verification_uri is missing or no address of a page")
	case d.ExpiresIn <= 0:
		return errors.New("it has no expires_in")
	case d.Interval < 0:
		return errors.New("its interval is negative")
	}
	return nil
}

// oauthSession is what comes of a sign-in.
type oauthSession struct {
	RefreshToken Secret `json:"refresh_token"`
	Scope        string `json:"scope"`
}

// wait asks the server at its interval until the person has decided or the code has expired. A failure to reach the server ends
// nothing: the person may well take minutes.
func (d *deviceAuthorization) wait(ctx context.Context, t *transport, clientID string, expires time.Time) (*oauthSession, error) {
	cl := post(oauthTokenRoute).withForm(url.Values{"grant_type": {deviceGrant}, "device_code": {d.DeviceCode.Reveal()},
		"client_id": {clientID}})
	interval := time.Duration(d.Interval)
	if interval == 0 {
		interval = defaultDevicePoll
	}
	for {
		timer := time.NewTimer(min(interval, time.Until(expires)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("stack: waiting for the person to sign in: %w", cancellation(ctx))
		}
		if !time.Now().Before(expires) {
			return nil, &Error{Code: codeExpired, Message: "nobody has approved in time; begin again"}
		}
		session, err := sendBy[oauthSession](ctx, t, cl)
		var refused *Error
		var garbled *DecodeError
		switch {
		case err == nil && session.RefreshToken.IsZero():
			return nil, &DecodeError{Method: cl.method, Route: cl.pattern, Err: errors.New("it has no refresh_token")}
		case err == nil:
			return session, nil
		case errors.As(err, &garbled) || ctx.Err() != nil:
			return nil, err
		case !errors.As(err, &refused) || passing(refused.Status) || refused.Code == "SLOW_DOWN":
			interval += defaultDevicePoll
		case refused.Code != "AUTHORIZATION_PENDING":
			return nil, err
		}
	}
}

// SignOutParams say which session [SignOut] ends.
type SignOutParams struct {
	File  string // that has the session; default ~/.stack/credentials.json
	Local bool   // only remove the file: the session itself ends when it has not been used for 30 days
}

// SignOut ends the session in a credentials file: it has the server revoke it, and removes the file. Clients that use the file fail
// with [ErrSignInRequired] or [ErrNoCredentials] from then on, those that hold an access token at the latest when that expires. The
// options are those of [New]; credentials among them are not used.
//
// Revoked says whether the server has ended the session. It is false, and the file removed all the same, for Local and where the
// server cannot revoke sessions or does not know this one. When the server cannot be reached, SignOut fails and the file stays, so
// that it can be tried again. It fails with [ErrNoCredentials] when there is no file.
//
// POST /oauth/revoke
func SignOut(ctx context.Context, params SignOutParams, opts ...Option) (revoked bool, err error) {
	t, path, err := signInTransport(params.File, opts)
	if err != nil {
		return false, err
	}
	if _, err = os.Stat(path); err != nil {
		_, err = readCredentials(path) // which says what is wrong
		return false, err
	}
	lock, err := lockCredentials(ctx, path)
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }()
	if !params.Local {
		if revoked, err = revokeSession(ctx, t, path); err != nil {
			return false, err
		}
	}
	if path, err = filepath.EvalSymlinks(path); err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return revoked, fmt.Errorf("stack: the credentials file cannot be removed: %w", err)
	}
	return revoked, nil
}

func revokeSession(ctx context.Context, t *transport, path string) (bool, error) {
	file, err := readCredentials(path)
	if err != nil {
		return false, err
	}
	cl := post(revokeRoute).withForm(url.Values{"token": {file.refreshToken}, "token_type_hint": {"refresh_token"},
		"client_id": {file.clientID}})
	cl.keyed = true // what is revoked stays so
	_, err = t.do(ctx, cl)
	var refused *Error
	if errors.As(err, &refused) && (refused.Status == http.StatusNotFound || refused.Status == http.StatusMethodNotAllowed ||
		refused.Code == "INVALID_CLIENT") {
		return false, nil
	}
	return err == nil, err
}
