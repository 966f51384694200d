package stack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// watch knows each secret that went over the wire between a stage's client and its mock, in either direction, and at the end
// of the test looks for them where none belongs: in the logs of both at debug level, in the audit log, in the security events,
// in what was delivered to webhooks, and in what the mock answers about itself. So every test of a stage is a test of that.
type watch struct {
	mu      sync.Mutex
	log     bytes.Buffer
	secrets map[string]string // where each was seen first
}

const (
	shortestSecret = len(canary) // shorter values of tests could be anything
	mostSecrets    = 300
)

// watched is the mock of a stage, and a link to it for its client, under a watch.
func watched(t *testing.T) (srv *stacktest.Server, transport http.RoundTripper, logger *slog.Logger) {
	t.Helper()
	w := &watch{secrets: map[string]string{stacktest.DefaultCredential: "the default credential"}}
	logger = slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv = stacktest.New(t, stacktest.WithLogger(logger))
	t.Cleanup(func() {
		for where, text := range w.observable(t, srv) {
			for secret, seen := range w.secrets {
				assert.False(t, strings.Contains(text, secret), "a secret that was seen in %s is in %s too", seen, where)
			}
		}
	})
	return srv, watchedTransport{w, srv.Transport()}, logger
}

// Write takes lines of the log.
func (w *watch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// learn notes a secret.
func (w *watch) learn(secret, where string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.secrets[secret]; !known && len(secret) >= shortestSecret && len(w.secrets) < mostSecrets {
		w.secrets[secret] = where
	}
}

// observable is what somebody without the secrets may see.
func (w *watch) observable(t *testing.T, srv *stacktest.Server) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for name, v := range map[string]any{"the audit log": srv.Audit(), "a security event": srv.SecurityEvents(),
		"a delivery": srv.Deliveries(), "an inbound delivery": srv.InboundDeliveries(), "a Mission": srv.OpenMissions(),
		"an unknown request": srv.UnknownRequests()} {
		var text strings.Builder
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		require.NoError(t, enc.Encode(v), name)
		texts[name] = text.String()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	texts["a log"] = w.log.String()
	return texts
}

// secretNames are the JSON names of the fields that hold a [stack.Secret].
var secretNames = sync.OnceValue(func() map[string]bool {
	names := map[string]bool{"credential": true, "oauth_token": true, "access_token": true, "refresh_token": true, "credentials": true, "api_key": true, "key": true, "device_code": true,
		"code_verifier": true, "client_secret": true}
	for _, v := range exported {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(v)) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.Type == reflect.TypeFor[stack.Secret]() && name != "" && name != "-" {
				names[name] = true
			}
		}
	}
	delete(names, "content") // of a proof, but also of any message to a model
	return names
})

// learnJSON notes the secrets in a decoded document.
func (w *watch) learnJSON(v any, name, where string) {
	switch v := v.(type) {
	case string:
		if secretNames()[name] {
			w.learn(v, name+" of "+where)
		}
	case []any:
		for _, item := range v {
			w.learnJSON(item, name, where)
		}
	case map[string]any:
		for key, item := range v {
			if name == "credential" || name == "credentials" {
				key = name // a map of secrets
			}
			w.learnJSON(item, key, where)
		}
	}
}

type watchedTransport struct {
	*watch
	base http.RoundTripper
}

func (w watchedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	where := req.Method + " " + req.URL.Path
	bearer := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	w.learn(bearer, "Authorization of "+where)
	w.learn(req.Header.Get("X-Passport-Token"), "X-Passport-Token of "+where)
	if req.GetBody != nil {
		if body, err := req.GetBody(); err == nil {
			data, _ := io.ReadAll(body)
			w.learnDocument(data, where)
		}
	}
	resp, err := w.base.RoundTrip(req)
	if err != nil || resp.Header.Get("Content-Type") != "application/json" || strings.HasSuffix(req.URL.Path, ".json") {
		return resp, err
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(data), failing{err}))
	w.learnDocument(data, "the answer to "+where)
	return resp, nil
}

func (w watchedTransport) learnDocument(data []byte, where string) {
	var document any
	if json.Unmarshal(data, &document) == nil {
		w.learnJSON(document, "", where)
	}
}

// Every call that takes a secret is made to the mock with the canary in it: refused or not, it comes back in no error, and, as
// for all tests of a stage, in no log, audit row or event.
func TestSecretsOfCallsStayInTheMock(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	failed := 0
	for name, call := range callsWithSecrets(t, s.client) {
		err := call()
		if err == nil {
			continue
		}
		failed++
		for ; err != nil; err = errors.Unwrap(err) {
			requireBare(t, prints(err), name)
		}
	}
	assert.Greater(t, failed, 10)
}

// The watch itself sees a secret where it should not be, whoever put it there.
func TestWatchSeesSecrets(t *testing.T) {
	t.Parallel()
	names := slices.Sorted(maps.Keys(secretNames()))
	for _, name := range []string{"token", "webhook_secret", "grant_token", "refresh_token", "signing_secret", "device_code", "proof"} {
		assert.Contains(t, names, name)
	}
	w := &watch{secrets: map[string]string{}}
	link := watchedTransport{w, transportFunc(func(r *http.Request) (*http.Response, error) {
		header := http.Header{"Content-Type": {"application/json"}}
		return &http.Response{StatusCode: 200, Header: header, Body: io.NopCloser(strings.NewReader(`{"x":[{"token":"answer-canary"}]}`)), Request: r}, nil
	})}
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://stack.mock/x", strings.NewReader(
		`{"credential":{"username":"user-canary-1"},"credentials":["list-canary-1"],"name":"not-a-secret-1","oauth_token":"short"}`))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer bearer-canary")
	req.Header.Set("X-Passport-Token", "passport-canary")
	resp, err := link.RoundTrip(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, errors.Join(err, resp.Body.Close()))
	assert.JSONEq(t, `{"x":[{"token":"answer-canary"}]}`, string(body))
	assert.Equal(t, []string{"answer-canary", "bearer-canary", "list-canary-1", "passport-canary", "user-canary-1"},
		slices.Sorted(maps.Keys(w.secrets)))
	srv := stacktest.New(t, stacktest.WithLogger(slog.New(slog.NewTextHandler(w, nil))))
	require.Error(t, srv.Client().Do(t.Context(), "GET", "/v1/answer-canary", nil, nil))
	seen := w.observable(t, srv)
	assert.Contains(t, seen["a log"], "answer-canary")
	assert.Contains(t, seen["an unknown request"], "answer-canary")
}
