package stack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/getstack-go/stack"
)

// credentialsFile writes what a sign-in writes.
func (s *oauthStage) credentialsFile(t *testing.T, more ...string) string {
	t.Helper()
	fields := map[string]any{"client_id": s.conf.ClientID, "refresh_token": s.signIn(t).RefreshToken, "scope": "agents:read"}
	for _, name := range more {
		fields[name] = map[string]any{"kept": 1.0}
	}
	path := filepath.Join(t.TempDir(), "credentials.json")
	writeJSON(t, path, fields)
	return path
}

func writeJSON(t *testing.T, path string, fields map[string]any) {
	t.Helper()
	data, err := json.Marshal(fields)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o644))
}

func readJSON(t *testing.T, path string) (fields map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &fields))
	return fields
}

func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOAuthStage(t)
		path := s.credentialsFile(t, "profile")
		before := readJSON(t, path)
		client := s.Client(stack.WithCredentialsFile(path))
		assert.Equal(t, before, readJSON(t, path), "New only reads")

		list := func() map[string]any {
			_, err := client.Agents.List(t.Context())
			require.NoError(t, err)
			return readJSON(t, path)
		}
		first := list()
		assert.Equal(t, "client_id issued_at profile refresh_expires_at refresh_token scope", keys(first))
		assert.NotEqual(t, before["refresh_token"], first["refresh_token"])
		assert.Equal(t, before["profile"], first["profile"], "what it does not know it keeps")
		assert.InDelta(t, time.Now().Unix(), first["issued_at"], 1)
		assert.InDelta(t, time.Now().Add(30*24*time.Hour).Unix(), first["refresh_expires_at"], 1)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Contains(t, string(text), "\n  \"client_id\": \"")
		if runtime.GOOS != "windows" {
			info, statErr := os.Stat(path)
			require.NoError(t, statErr)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		}
		time.Sleep(4 * time.Minute)
		assert.Equal(t, first, list(), "the access token is good still")
		time.Sleep(31 * time.Second)
		assert.NotEqual(t, first, list(), "30 s before its expiry it is renewed")
		for range 3 {
			time.Sleep(29 * 24 * time.Hour)
			list()
		}
		left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".credentials*"))
		require.NoError(t, err)
		assert.Empty(t, left, "no temporary file stays")

		time.Sleep(30 * 24 * time.Hour)
		last := readJSON(t, path)
		_, err = client.Agents.List(t.Context())
		require.ErrorIs(t, err, stack.ErrSignInRequired)
		assert.NotContains(t, err.Error(), last["refresh_token"])
		assert.Equal(t, last, readJSON(t, path))
	})
}

// Several clients, as in several processes, take turns with one file and do not end its session.
func TestCredentialsFileIsShared(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	path := s.credentialsFile(t)
	var calls sync.WaitGroup
	for range 8 {
		client := s.Client(stack.WithCredentialsFile(path))
		for range 4 {
			calls.Go(func() {
				_, err := client.Agents.List(t.Context())
				assert.NoError(t, err)
			})
		}
	}
	calls.Wait()
	assert.Equal(t, 8, s.countRows("oauth.refresh"), "one refresh for a client, whatever its calls")
	assert.Equal(t, 0, s.countRows("oauth.session_revoke"))
	_, err := s.Client(stack.WithCredentialsFile(path)).Agents.List(t.Context())
	require.NoError(t, err)
}

// A program without the lock has been faster: what it has written counts.
func TestCredentialsFileLostRace(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	path := s.credentialsFile(t)
	fields := readJSON(t, path)
	fields["refresh_token"] = "ort_stale"
	stale := filepath.Join(t.TempDir(), "credentials.json")
	writeJSON(t, stale, fields)
	raced := false
	through := transportFunc(func(r *http.Request) (*http.Response, error) {
		if !raced && r.URL.Path == "/oauth/token" {
			raced = true
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(stale, data, 0o600))
		}
		return s.Transport().RoundTrip(r)
	})
	_, err := s.Client(stack.WithCredentialsFile(stale), stack.WithHTTPClient(&http.Client{Transport: through})).Agents.List(t.Context())
	require.NoError(t, err)
	assert.True(t, raced)
}

// A caller who does not wait for the answer does not lose the next refresh token.
func TestCredentialsFileOutlivesCallers(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	path := s.credentialsFile(t)
	ctx, cancel := context.WithCancel(t.Context())
	through := transportFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/oauth/token" {
			cancel()
		}
		return s.Transport().RoundTrip(r)
	})
	client := s.Client(stack.WithCredentialsFile(path), stack.WithHTTPClient(&http.Client{Transport: through}))
	_, err := client.Agents.List(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, err = client.Agents.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, s.countRows("oauth.refresh"))
	_, err = s.Client(stack.WithCredentialsFile(path)).Agents.List(t.Context())
	require.NoError(t, err, "and it is in the file")
}

// Where the next refresh token has no place, this one is not used up.
func TestCredentialsFileCannotBeWritten(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	path := s.credentialsFile(t)
	client := s.Client(stack.WithCredentialsFile(path))
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o500))
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(path), 0o700) })
	if probe, err := os.Create(filepath.Join(filepath.Dir(path), "probe")); err == nil {
		_ = probe.Close()
		t.Skip("this user may write everywhere")
	}
	_, err := client.Agents.List(t.Context())
	require.ErrorContains(t, err, "credentials file")
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o700))
	_, err = client.Agents.List(t.Context())
	require.NoError(t, err)
}

// Nor where the lock cannot be had, whoever runs this.
func TestCredentialsFileCannotBeLocked(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	path := s.credentialsFile(t)
	client := s.Client(stack.WithCredentialsFile(path))
	before := readJSON(t, path)
	require.NoError(t, os.Mkdir(path+".lock", 0o700))
	_, err := client.Agents.List(t.Context())
	require.ErrorContains(t, err, "credentials file")
	assert.Equal(t, before, readJSON(t, path))
	assert.Zero(t, s.countRows("oauth.refresh"), "the refresh token was not sent")
	require.NoError(t, os.Remove(path+".lock"))
	_, err = client.Agents.List(t.Context())
	require.NoError(t, err)
}

// When the rewrite itself fails, the session lives on in the process, and the log says so.
func TestCredentialsFileRewriteFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOAuthStage(t)
		path := s.credentialsFile(t)
		aside := path + ".aside"
		blocked := true
		through := transportFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/oauth/token" && blocked { // a directory in its place cannot be replaced
				require.NoError(t, os.Rename(path, aside))
				require.NoError(t, os.Mkdir(path, 0o700))
				defer func() {
					time.AfterFunc(time.Second, func() { _ = os.Remove(path); _ = os.Rename(aside, path) })
				}()
			}
			return s.Transport().RoundTrip(r)
		})
		var log bytes.Buffer
		client := s.Client(stack.WithCredentialsFile(path), stack.WithHTTPClient(&http.Client{Transport: through}),
			stack.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		for range 2 {
			_, err := client.Agents.List(t.Context())
			require.NoError(t, err)
			assert.Contains(t, log.String(), "not rewritten")
			assert.NotContains(t, log.String(), "ort_")
			time.Sleep(6 * time.Minute)
		}
		blocked = false
		_, err := client.Agents.List(t.Context())
		require.NoError(t, err)
		_, err = s.Client(stack.WithCredentialsFile(path)).Agents.List(t.Context())
		require.NoError(t, err, "the file is right again")
	})
}

func TestCredentialsFileRefusals(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"empty": "", "not JSON": "refresh_token=hunter2", "array": `["hunter2"]`, "null": "null", "no client": `{"refresh_token":"hunter2"}`,
		"no token": `{"client_id":"x"}`, "empty token": `{"client_id":"x","refresh_token":""}`, "number": `{"client_id":"x","refresh_token":1}`,
		"null token": `{"client_id":"x","refresh_token":null}`, "huge": string(make([]byte, 65<<10)),
	} {
		path := filepath.Join(t.TempDir(), "credentials.json")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := stack.New(stack.WithCredentialsFile(path))
		requireParam(t, err, path)
		assert.NotContains(t, err.Error(), "hunter2", name)
	}
	_, err := stack.New(stack.WithCredentialsFile(filepath.Join(t.TempDir(), "none")))
	require.ErrorIs(t, err, stack.ErrNoCredentials)
	_, err = stack.New(stack.WithCredentialsFile(""))
	requireParam(t, err, "WithCredentialsFile")
	_, err = stack.New(stack.WithTokenSource(nil))
	requireParam(t, err, "WithTokenSource")
	_, err = stack.OAuthEndpoint("nonsense")
	requireParam(t, err, "baseURL")
}

// A link to the file stays a link.
func TestCredentialsFileBehindALink(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	path := s.credentialsFile(t)
	link := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	before := readJSON(t, path)
	_, err := s.Client(stack.WithCredentialsFile(link)).Agents.List(t.Context())
	require.NoError(t, err)
	assert.NotEqual(t, before, readJSON(t, path))
	to, err := os.Readlink(link)
	require.NoError(t, err)
	assert.Equal(t, path, to)
}

// New finds the file where nothing else is given, and sends it only where it belongs.
func TestHomeCredentials(t *testing.T) {
	s := newOAuthStage(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	t.Setenv("STACK_API_KEY", "")
	t.Setenv("STACK_BASE_URL", "")
	sent := ""
	through := stack.WithHTTPClient(&http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path != "/oauth/token" {
			sent = r.Header.Get("Authorization")
		}
		r = r.Clone(r.Context())
		r.URL.Scheme = "http" // which is what the mock speaks
		return s.Transport().RoundTrip(r)
	})})
	_, err := stack.New(through)
	require.ErrorIs(t, err, stack.ErrNoCredentials)
	require.NoError(t, os.Mkdir(filepath.Join(home, ".stack"), 0o700))
	path := filepath.Join(home, ".stack", "credentials.json")
	require.NoError(t, os.Rename(s.credentialsFile(t), path))

	list := func(opts ...stack.Option) string {
		c, newErr := stack.New(append(opts, through)...)
		require.NoError(t, newErr)
		_, newErr = c.Agents.List(t.Context())
		require.NoError(t, newErr)
		return sent
	}
	assert.Contains(t, list(), "Bearer eyJ", "the default base URL")
	assert.Contains(t, list(stack.WithBaseURL("http://127.0.0.1:4242")), "Bearer eyJ", "loopback")
	_, err = stack.New(through, stack.WithBaseURL("https://b.example"))
	require.ErrorIs(t, err, stack.ErrNoCredentials)
	assert.Contains(t, list(stack.WithBaseURL("https://b.example"), stack.WithCredentialsFile(path)), "Bearer eyJ", "said in code")
	t.Setenv("STACK_BASE_URL", "https://b.example")
	assert.Contains(t, list(), "Bearer eyJ", "the environment's base URL")
	t.Setenv("STACK_API_KEY", s.APIKey())
	assert.Equal(t, "Bearer "+s.APIKey(), list(), "a key goes before the file")
	assert.Contains(t, list(stack.WithCredentialsFile(path)), "Bearer eyJ", "what is said in code goes before the environment")

	require.NoError(t, os.WriteFile(path, []byte("{}"), 0o600))
	t.Setenv("STACK_API_KEY", "")
	_, err = stack.New()
	requireParam(t, err, path)
}

// What a token source gives is checked, and what it fails with is told.
func TestTokenSourceFailures(t *testing.T) {
	t.Parallel()
	s := newOAuthStage(t)
	for name, source := range map[string]oauth2.TokenSource{
		"none":  sourceFunc(func() (*oauth2.Token, error) { return nil, nil }),
		"empty": oauth2.StaticTokenSource(&oauth2.Token{}),
	} {
		_, err := s.Client(stack.WithTokenSource(source)).Agents.List(t.Context())
		require.ErrorIs(t, err, stack.ErrNoCredentials, name)
	}
	_, err := s.as(&oauth2.Token{AccessToken: "two words"}).Agents.List(t.Context())
	requireParam(t, err, "WithTokenSource")
	assert.NotContains(t, err.Error(), "two words")
	_, err = s.Client(stack.WithTokenSource(sourceFunc(func() (*oauth2.Token, error) { return nil, context.DeadlineExceeded }))).Agents.List(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)

	conf := s.conf
	conf.ClientID = "oac_none"
	_, err = s.Client(stack.WithTokenSource(conf.TokenSource(s.ctx(t), &oauth2.Token{RefreshToken: "x"}))).Agents.List(t.Context())
	refusal := requireRefused(t, err, 401, "INVALID_CLIENT")
	assert.Equal(t, "/oauth/token", refusal.Route)
	_, err = s.Client(stack.WithTokenSource(s.conf.TokenSource(s.ctx(t), &oauth2.Token{RefreshToken: "x"}))).Agents.List(t.Context())
	require.ErrorIs(t, err, stack.ErrSignInRequired)
}

type sourceFunc func() (*oauth2.Token, error)

func (f sourceFunc) Token() (*oauth2.Token, error) { return f() }
