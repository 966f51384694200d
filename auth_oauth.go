package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/oauth2"
)

const (
	oauthTokenRoute      = "/oauth/token"
	deviceAuthRoute      = "/oauth/device_authorization"
	refreshMargin        = 30 * time.Second    // before an access token's expiry (contract: endpoints 4.4)
	defaultAccessLife    = 5 * time.Minute     // of an access token whose answer does not say (contract: endpoints 4.4)
	refreshTokenLifetime = 30 * 24 * time.Hour // (contract: endpoints 4.3)
	maxCredentialsFile   = 64 << 10
	lockPoll             = 20 * time.Millisecond
)

// OAuthEndpoint returns where an OAuth client signs in to the server with the given base URL, for an [oauth2.Config]: by an
// authorization code, or by the device flow. Clients are public: they have no secret and use PKCE.
func OAuthEndpoint(baseURL string) (oauth2.Endpoint, error) {
	base, err := parseBaseURL("baseURL", baseURL)
	if err != nil {
		return oauth2.Endpoint{}, err
	}
	return oauth2.Endpoint{AuthURL: base.String() + "/oauth/authorize", DeviceAuthURL: base.String() + deviceAuthRoute,
		TokenURL: base.String() + oauthTokenRoute, AuthStyle: oauth2.AuthStyleInParams}, nil
}

// WithTokenSource authenticates each call with an OAuth access token of the source, such as that of [oauth2.Config.TokenSource],
// which refreshes a token when it expires. It is asked for each call, waits as long as it likes, and must be safe for
// concurrent use. Give its first [oauth2.Token] an Expiry, or only a RefreshToken: x/oauth2 takes a token without an Expiry for
// one that never expires. A source that fails makes the call fail with its error, or with an [*Error] that holds the
// server's answer; [ErrSignInRequired] matches when that ends the session.
func WithTokenSource(source oauth2.TokenSource) Option {
	return func(c *config) error {
		if source == nil {
			return &ParamError{Param: "WithTokenSource", Reason: "is nil; leave the option out for other credentials"}
		}
		c.credentials = credentials{bearer: func(context.Context) (Secret, error) {
			tok, err := source.Token()
			if err != nil {
				return Secret{}, tokenError(err)
			}
			if tok == nil || tok.AccessToken == "" {
				return Secret{}, &Error{Code: noCredentials, Message: "the token source gave no access token"}
			}
			return NewSecret(tok.AccessToken), checkKey("WithTokenSource", tok.AccessToken)
		}}
		return nil
	}
}

// WithCredentialsFile authenticates with the OAuth session in a file, such as "stack auth login" and the other SDKs write to
// ~/.stack/credentials.json, which [New] finds by itself where nothing else is given. Its refresh token is sent to whatever
// base URL the client has.
//
// The file is JSON with a client_id and a refresh_token. A call that needs an access token exchanges the refresh token for one
// at POST /oauth/token and keeps it, in memory, until 30 s before its expiry. The server takes each refresh token once, so
// the file is rewritten with the next one: whole or not at all, with mode 0600, and with what else is in it. Processes that
// share the file take turns by a lock on a file beside it, whose name ends in .lock. A refresh that loses against a program
// that does not know the lock reads the file again.
//
// Reading the file happens in New, which fails where there is none or it is not well-formed. A session that has ended makes
// calls fail with [ErrSignInRequired]. (contract: endpoints 4.3 and 4.4)
func WithCredentialsFile(path string) Option {
	return func(c *config) error {
		if path == "" {
			return &ParamError{Param: "WithCredentialsFile", Reason: "is empty; leave the option out for ~/.stack/credentials.json"}
		}
		c.credentials = credentials{file: path}
		return nil
	}
}

// tokenError turns a refusal of the token endpoint into an [*Error].
func tokenError(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return stripURL(err)
	}
	apiErr := parseError(refused.Response.StatusCode, refused.Response.Header, refused.Body)
	apiErr.Method, apiErr.Route, apiErr.Attempts = http.MethodPost, oauthTokenRoute, 1
	return apiErr
}

// defaultCredentialsFile is where the session of a person is, or empty where there is none.
func defaultCredentialsFile() string {
	path, err := credentialsPath()
	if err != nil {
		return ""
	}
	if _, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// fileSession is the OAuth session in a credentials file.
type fileSession struct {
	path     string
	tokenURL string
	http     *http.Client
	logger   *slog.Logger

	turn     chan struct{} // holds one token: who has taken it may touch what is below
	access   Secret
	expires  time.Time
	unsaved  Secret // a refresh token that could not be written
	replaced string // the refresh token in the file that unsaved comes after
}

// newFileSession checks that the file is there and well-formed.
func newFileSession(path string, t *transport) (*fileSession, error) {
	if _, err := readCredentials(path); err != nil {
		return nil, err
	}
	f := &fileSession{path: path, tokenURL: t.base.String() + oauthTokenRoute, http: t.http, logger: t.logger, turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	return f, nil
}

// bearer gives an access token, a fresh one where the last has expired. A refresh that has begun goes on when the caller
// does not wait for it: the server has perhaps used up the refresh token, and only its answer has the next.
func (f *fileSession) bearer(ctx context.Context) (Secret, error) {
	select {
	case <-f.turn:
	case <-ctx.Done():
		return Secret{}, cancellation(ctx)
	}
	if !f.access.IsZero() && time.Now().Before(f.expires.Add(-refreshMargin)) {
		access := f.access
		f.turn <- struct{}{}
		return access, nil
	}
	type result struct {
		access Secret
		err    error
	}
	done := make(chan result, 1)
	go func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.http.Timeout)
		defer cancel()
		err := f.refreshLocked(bounded)
		done <- result{f.access, err}
		f.turn <- struct{}{}
	}()
	select {
	case r := <-done:
		return r.access, r.err
	case <-ctx.Done():
		return Secret{}, cancellation(ctx)
	}
}

// refreshLocked refreshes while no other process does.
func (f *fileSession) refreshLocked(ctx context.Context) error {
	lock, err := lockCredentials(ctx, f.path)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	return f.refresh(ctx)
}

// refresh exchanges the refresh token in the file. What a program that does not know the lock has put there in the meantime
// is tried once.
func (f *fileSession) refresh(ctx context.Context) error {
	sent, err := f.refreshOnce(ctx)
	if !errors.Is(err, ErrSignInRequired) {
		return err
	}
	if now, readErr := readCredentials(f.path); readErr == nil && now.refreshToken != sent {
		_, err = f.refreshOnce(ctx)
	}
	return err
}

func (f *fileSession) refreshOnce(ctx context.Context) (sent string, err error) {
	file, err := readCredentials(f.path)
	if err != nil {
		return "", err
	}
	sent = file.refreshToken
	if !f.unsaved.IsZero() && sent == f.replaced {
		sent = f.unsaved.Reveal()
	}
	// There must be room for the next token before this one is used up.
	next, err := os.CreateTemp(filepath.Dir(file.path), ".credentials-*.tmp")
	if err != nil {
		return sent, fmt.Errorf("stack: the credentials file cannot be rewritten: %w", err)
	}
	defer func() {
		_ = next.Close()
		_ = os.Remove(next.Name()) // fails when it has become the file
	}()
	conf := oauth2.Config{ClientID: file.clientID, Endpoint: oauth2.Endpoint{TokenURL: f.tokenURL, AuthStyle: oauth2.AuthStyleInParams}}
	tok, err := conf.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, f.http), &oauth2.Token{RefreshToken: sent}).Token()
	if err != nil {
		return sent, tokenError(err)
	}
	now := time.Now()
	if err = f.accept(tok, now); err != nil {
		return sent, err
	}
	f.unsaved, f.replaced = Secret{}, ""
	if err = file.rewrite(next, tok.RefreshToken, now); err != nil { // the call can go on: the token is not lost while the process lives
		f.unsaved, f.replaced = NewSecret(tok.RefreshToken), file.refreshToken
		f.logger.LogAttrs(ctx, slog.LevelWarn, "stack credentials file was not rewritten; its session ends with this process",
			slog.String("error", err.Error()))
	}
	return sent, nil
}

// accept keeps an access token that was just issued.
func (f *fileSession) accept(tok *oauth2.Token, now time.Time) error {
	if err := checkKey("the access token of "+oauthTokenRoute, tok.AccessToken); err != nil {
		return err
	}
	f.access, f.expires = NewSecret(tok.AccessToken), tok.Expiry
	if f.expires.IsZero() {
		f.expires = now.Add(defaultAccessLife)
	}
	return nil
}

// credentialsFile is a credentials file as it was read.
type credentialsFile struct {
	path                   string // without symbolic links
	clientID, refreshToken string
	fields                 map[string]any
}

// readCredentials reads a credentials file. Its errors name the file and the field, never what is in it.
func readCredentials(path string) (*credentialsFile, error) {
	bad := func(reason string) error { return &ParamError{Param: path, Reason: reason} }
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Code: noCredentials, Message: "there is no credentials file at " + path, cause: fs.ErrNotExist}
	}
	if err != nil {
		return nil, fmt.Errorf("stack: credentials file: %w", err)
	}
	in, err := os.Open(real)
	if err != nil {
		return nil, fmt.Errorf("stack: credentials file: %w", err)
	}
	defer in.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(in, maxCredentialsFile+1))
	if err != nil {
		return nil, fmt.Errorf("stack: credentials file: %w", err)
	}
	if len(data) > maxCredentialsFile {
		return nil, bad(fmt.Sprintf("is over %d bytes; it must be a credentials file", maxCredentialsFile))
	}
	f := &credentialsFile{path: real, fields: map[string]any{}}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil || fields == nil {
		return nil, bad("is not a JSON object; sign in again to make a new one")
	}
	for name, value := range fields {
		f.fields[name] = value
	}
	for name, to := range map[string]*string{"client_id": &f.clientID, "refresh_token": &f.refreshToken} {
		if json.Unmarshal(fields[name], to) != nil || *to == "" {
			return nil, bad("has no " + name + ", which must be a string that is not empty; sign in again to make a new one")
		}
	}
	return f, nil
}

// rewrite writes the file's fields with a new refresh token into next, and puts that in its place.
func (f *credentialsFile) rewrite(next *os.File, refreshToken string, now time.Time) error {
	f.fields["refresh_token"] = refreshToken
	f.fields["issued_at"], f.fields["refresh_expires_at"] = now.Unix(), now.Add(refreshTokenLifetime).Unix()
	text, err := marshalJSON(f.fields)
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err = json.Indent(&indented, text, "", "  "); err != nil {
		return err
	}
	if _, err = next.Write(indented.Bytes()); err != nil {
		return err
	}
	if err = errors.Join(next.Sync(), next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), f.path) // CreateTemp has made it with mode 0600
}
