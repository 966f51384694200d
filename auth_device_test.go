package stack_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// inMemory are the options that reach a mock.
func inMemory(s interface{ Transport() http.RoundTripper }) []stack.Option {
	return []stack.Option{stack.WithBaseURL(mockURL), stack.WithHTTPClient(&http.Client{Transport: s.Transport()})}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOAuthStage(t)
		path := filepath.Join(t.TempDir(), "home", ".stack", "credentials.json")
		var shown stack.DeviceCode
		client, err := stack.SignIn(t.Context(), stack.SignInParams{File: path, Prompt: func(_ context.Context, code stack.DeviceCode) error {
			shown = code
			time.AfterFunc(3*time.Minute, func() { assert.NoError(t, s.ApproveDevice(code.UserCode)) })
			return nil
		}}, inMemory(s)...)
		require.NoError(t, err)
		assert.Equal(t, shown.VerificationURI+"?user_code="+shown.UserCode, shown.VerificationURIComplete)
		assert.WithinDuration(t, time.Now().Add(12*time.Minute), shown.ExpiresAt, 10*time.Second)
		agents, err := client.Agents.List(t.Context())
		require.NoError(t, err)
		assert.Len(t, agents, 1)

		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode())
		fields := readJSON(t, path)
		assert.Equal(t, "client_id issued_at refresh_expires_at refresh_token scope", keys(fields))
		assert.Len(t, strings.Fields(fields["scope"].(string)), 10)
		_, err = s.Client(stack.WithCredentialsFile(path)).Audit.List(t.Context(), stack.AuditListParams{})
		require.NoError(t, err, "another process finds the session")

		// A second sign-in takes the place of the first, which a client of it notices when it must refresh.
		narrow, err := stack.SignIn(t.Context(), stack.SignInParams{File: path, Scopes: []string{"agents:read"},
			Prompt: func(_ context.Context, code stack.DeviceCode) error { return s.ApproveDevice(code.UserCode) }}, inMemory(s)...)
		require.NoError(t, err)
		_, err = narrow.Audit.List(t.Context(), stack.AuditListParams{})
		requireRefused(t, err, 403, "FORBIDDEN")
		assert.Equal(t, "agents:read", readJSON(t, path)["scope"])
	})
}

func TestSignInFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOAuthStage(t)
		broken := errors.New("no terminal")
		ctx, cancel := context.WithCancelCause(t.Context())
		for name, tc := range map[string]struct {
			ctx    context.Context
			prompt func(context.Context, stack.DeviceCode) error
			want   error
			took   time.Duration
		}{
			"denied":    {t.Context(), func(_ context.Context, c stack.DeviceCode) error { return s.DenyDevice(c.UserCode) }, stack.ErrSignInRequired, 5 * time.Second},
			"too late":  {t.Context(), func(context.Context, stack.DeviceCode) error { return nil }, stack.ErrSignInRequired, 15 * time.Minute},
			"no prompt": {t.Context(), func(context.Context, stack.DeviceCode) error { return broken }, broken, 0},
			"cancelled": {ctx, func(context.Context, stack.DeviceCode) error {
				time.AfterFunc(7*time.Second, func() { cancel(broken) })
				return nil
			}, broken, 7 * time.Second},
		} {
			path, begun := filepath.Join(t.TempDir(), "credentials.json"), time.Now()
			_, err := stack.SignIn(tc.ctx, stack.SignInParams{File: path, Prompt: tc.prompt}, inMemory(s)...)
			require.ErrorIs(t, err, tc.want, name)
			assert.WithinDuration(t, begun.Add(tc.took), time.Now(), 10*time.Millisecond, name)
			assert.NoFileExists(t, path, name)
		}
	})
}

func TestSignInParams(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	prompt := func(context.Context, stack.DeviceCode) error { return errors.New("nobody is asked") }
	_, err := stack.SignIn(t.Context(), stack.SignInParams{})
	requireParam(t, err, "Prompt")
	_, err = stack.SignIn(t.Context(), stack.SignInParams{Prompt: prompt, File: "x"}, stack.WithTimeout(-1))
	requireParam(t, err, "WithTimeout")
	_, err = stack.SignOut(t.Context(), stack.SignOutParams{File: "x"}, nil)
	requireParam(t, err, "option")
	_, err = stack.SignIn(t.Context(), stack.SignInParams{Prompt: prompt, Scopes: []string{"everything"},
		File: filepath.Join(t.TempDir(), "c.json")}, inMemory(s)...)
	requireRefused(t, err, 400, "INVALID_SCOPE")
	taken := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(taken, nil, 0o600))
	before := s.Requests()
	_, err = stack.SignIn(t.Context(), stack.SignInParams{Prompt: prompt, File: filepath.Join(taken, "c.json")}, inMemory(s)...)
	require.ErrorContains(t, err, "the credentials file cannot be written")
	assert.Equal(t, before, s.Requests(), "the person is not troubled for nothing")
}

// byPath stands for a server that answers on each path as it is told.
type byPath map[string]func() (int, string)

func (a byPath) Transport() http.RoundTripper { return a }

func (a byPath) RoundTrip(req *http.Request) (*http.Response, error) {
	status, body := a[req.URL.Path]()
	if status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

func say(status int, body string) func() (int, string) {
	return func() (int, string) { return status, body }
}

const deviceAnswer = `{"device_code":"hidden","user_code":"AB-CD","verification_uri":"https://stack.mock/device","expires_in":600,"interval":5}`

// A server may be slow, absent for a while, or answer what does harm.
func TestSignInWithOtherServers(t *testing.T) {
	t.Parallel()
	sign := func(t *testing.T, a byPath) (prompted bool, err error) {
		_, err = stack.SignIn(t.Context(), stack.SignInParams{File: filepath.Join(t.TempDir(), "credentials.json"),
			Prompt: func(context.Context, stack.DeviceCode) error { prompted = true; return nil }}, inMemory(a)...)
		return prompted, err
	}
	client := say(201, `{"client_id":"c"}`)
	for name, change := range map[string]string{
		"no device code":   `"hidden"`,
		"no code":          `"AB-CD"`,
		"no page":          `"https://stack.mock/device"`,
		"escape sequences": `"AB-CD" -> "\u001b[2J"`,
		"a program":        `"https://stack.mock/device" -> "file:///bin/sh"`,
		"spaces":           `"https://stack.mock/device" -> "https://stack.mock/device --flag"`,
		"no end":           `600 -> 0`,
		"negative":         `5} -> -5}`,
		"too long":         `5} -> 1e300}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to, ok := strings.Cut(change, " -> ")
			if !ok {
				to = `""`
			}
			prompted, err := sign(t, byPath{"/oauth/register": client,
				"/oauth/device_authorization": say(200, strings.Replace(deviceAnswer, from, to, 1))})
			var garbled *stack.DecodeError
			require.ErrorAs(t, err, &garbled)
			assert.False(t, prompted)
			assert.NotContains(t, err.Error(), "\x1b")
			assert.NotContains(t, err.Error(), "hidden")
		})
	}
	t.Run("waits", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var at []time.Duration
			begun := time.Now()
			answers := []func() (int, string){say(400, `{"error":"authorization_pending"}`), say(503, ""), say(0, ""),
				say(400, `{"error":"slow_down"}`), say(200, `{"access_token":"a","refresh_token":"r"}`)}
			_, err := sign(t, byPath{"/oauth/register": client, "/oauth/device_authorization": say(200, deviceAnswer),
				"/oauth/token": func() (int, string) {
					at = append(at, time.Since(begun).Round(time.Second))
					return answers[len(at)-1]()
				}})
			require.NoError(t, err)
			assert.Equal(t, "[5s 10s 20s 35s 55s]", fmt.Sprint(at))
		})
	})
	for name, answer := range map[string]func() (int, string){
		"garbled":          say(200, `{`),
		"no refresh token": say(200, `{"access_token":"hidden"}`),
		"another refusal":  say(400, `{"error":"invalid_grant"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				_, err := sign(t, byPath{"/oauth/register": client, "/oauth/device_authorization": say(200, deviceAnswer), "/oauth/token": answer})
				require.Error(t, err)
				assert.NotContains(t, err.Error(), "hidden")
				assert.Equal(t, 5*time.Second, time.Since(begun))
			})
		})
	}
}

func TestSignOut(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	path := s.credentialsFile(t)
	client := s.Client(stack.WithCredentialsFile(path))
	_, err := client.Agents.List(t.Context())
	require.NoError(t, err)
	s.Fault(stacktest.Fault{Path: "/oauth/revoke", Status: 500, Times: 10})
	_, err = stack.SignOut(t.Context(), stack.SignOutParams{File: path}, append(inMemory(s), stack.WithMaxRetries(0))...)
	require.ErrorContains(t, err, "POST /oauth/revoke: 500")
	require.FileExists(t, path, "it can be tried again")
	revoked, err := stack.SignOut(t.Context(), stack.SignOutParams{File: path, Local: true}, inMemory(s)...)
	require.NoError(t, err)
	assert.False(t, revoked)
	require.NoFileExists(t, path)
	_, err = client.Agents.List(t.Context())
	require.NoError(t, err, "the session is still there")

	path = s.credentialsFile(t)
	client = s.Client(stack.WithCredentialsFile(path))
	_, err = client.Agents.List(t.Context())
	require.NoError(t, err)
	for range 9 { // what is left of the fault
		_, err = stack.SignOut(t.Context(), stack.SignOutParams{File: path}, append(inMemory(s), stack.WithMaxRetries(0))...)
		require.Error(t, err)
	}
	revoked, err = stack.SignOut(t.Context(), stack.SignOutParams{File: path}, inMemory(s)...)
	require.NoError(t, err)
	assert.True(t, revoked)
	require.NoFileExists(t, path)
	_, err = client.Agents.List(t.Context())
	requireRefused(t, err, 401, "UNAUTHORIZED")
	assert.Equal(t, 1, s.countRows("oauth.session_revoke"))
	_, err = stack.SignOut(t.Context(), stack.SignOutParams{File: path}, inMemory(s)...)
	require.ErrorIs(t, err, stack.ErrNoCredentials)

	for name, answer := range map[string]func() (int, string){"no such route": say(404, ""), "no such client": say(401, `{"error":"invalid_client"}`)} {
		path = filepath.Join(t.TempDir(), "credentials.json")
		writeJSON(t, path, map[string]any{"client_id": "c", "refresh_token": "r"})
		link := path + ".link"
		require.NoError(t, os.Symlink(path, link))
		revoked, err = stack.SignOut(t.Context(), stack.SignOutParams{File: link}, inMemory(byPath{"/oauth/revoke": answer})...)
		require.NoError(t, err, name)
		assert.False(t, revoked, name)
		assert.NoFileExists(t, path, "not only the link")
	}
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err = stack.SignOut(t.Context(), stack.SignOutParams{File: path}, inMemory(s)...)
	requireParam(t, err, path)
	_, err = stack.SignOut(t.Context(), stack.SignOutParams{File: path, Local: true}, inMemory(s)...)
	require.NoError(t, err)
	assert.NoFileExists(t, path)
}
