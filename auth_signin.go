package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// What signing in begins and ends with, whatever the way: a client of its own, and a credentials file.

const (
	softwareID  = "getstack-go.bootstrap"
	maxHostName = 40 // characters of the host in the name of a client (contract: endpoints 4.5)
	maxLabel    = 80 // characters of what tells a person who asks (contract: endpoints 4.6)
)

// signInScopes are what a person is asked to grant. (contract: endpoints 4.5)
var signInScopes = []string{
	"passports:read", "passports:write", "agents:read", "agents:write", "services:read", "services:connect",
	"credentials:read", "proxy:read", "proxy:write", "audit:read",
}

// clientRegistration is what a client tells of itself.
type clientRegistration struct {
	Name         string   `json:"client_name"`
	RedirectURIs []string `json:"redirect_uris,omitempty"`
	GrantTypes   []string `json:"grant_types"`
	SoftwareID   string   `json:"software_id"`
}

// registerClient registers an OAuth client, public and without a secret, and returns its id. No credentials go with the call.
func registerClient(ctx context.Context, t *transport, r clientRegistration) (clientID string, err error) {
	cl := post("/oauth/register").with(r)
	cl.keyed = true // a client that nobody signs in to does nothing
	client, err := sendBy[struct {
		ClientID string `json:"client_id"`
	}](ctx, t.by(nil), cl)
	if err != nil {
		return "", err
	}
	if client.ClientID == "" {
		return "", &Error{Code: unknownCode, Method: cl.method, Route: cl.pattern, Message: "the answer has no client_id"}
	}
	return client.ClientID, nil
}

// onThisHost is the name of a client on this machine, such as "STACK Go SDK on laptop".
func onThisHost(product string) string {
	return product + " on " + hostName(maxHostName)
}

// hostName is this machine's name, with at most so many characters.
func hostName(most int) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "an unknown host"
	}
	runes := []rune(strings.ToValidUTF8(host, "?"))
	return string(runes[:min(len(runes), most)])
}

// credentialsPath is where the session of a person belongs: ~/.stack/credentials.json. (contract: endpoints 4.3)
func credentialsPath() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("stack: no place for credentials: %w", err)
	}
	return filepath.Join(home, ".stack", "credentials.json"), nil
}

// saveCredentials makes a credentials file of a session that has just begun, whole or not at all and with mode 0600. It takes
// the place of what was there, once nobody refreshes that. Its directory is made with mode 0700.
func saveCredentials(ctx context.Context, path, clientID string, refreshToken Secret, scope string) (err error) {
	if err = os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("stack: the credentials file cannot be written: %w", err)
	}
	lock, err := lockCredentials(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	f := &credentialsFile{path: path, fields: map[string]any{"client_id": clientID, "scope": scope}}
	if real, linkErr := filepath.EvalSymlinks(path); linkErr == nil {
		f.path = real
	}
	next, err := os.CreateTemp(filepath.Dir(f.path), ".credentials-*.tmp")
	if err != nil {
		return fmt.Errorf("stack: the credentials file cannot be written: %w", err)
	}
	defer func() {
		_ = next.Close()
		_ = os.Remove(next.Name()) // fails when it has become the file
	}()
	if err = f.rewrite(next, refreshToken.Reveal(), time.Now()); err != nil {
		return fmt.Errorf("stack: the credentials file cannot be written: %w", err)
	}
	return nil
}

// lockCredentials waits until no other process writes a credentials file. Close lets go of the lock.
func lockCredentials(ctx context.Context, path string) (*flock.Flock, error) {
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return nil, fmt.Errorf("stack: lock the credentials file: %w", err)
	}
	return lock, nil
}
