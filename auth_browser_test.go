package stack_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// desk is a machine with a home directory, a person before it and nothing to authenticate with.
type desk struct {
	*stage
	home   string
	mu     sync.Mutex
	opened []*url.URL // pages
	shown  []visit    // what came of the person's answers
}

type visit struct {
	status int
	text   string
}

// newDesk furnishes the home directory that the test has set.
func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{stage: newStage(t, stack.Enforced), home: os.Getenv("HOME")}
	for name, value := range map[string]string{"USERPROFILE": d.home, "STACK_API_KEY": "", "STACK_BASE_URL": "",
		"STACK_AUTH_INTERACTIVE": "", "CI": "", "STACK_DASHBOARD_URL": ""} {
		t.Setenv(name, value)
	}
	return d
}

// client has no credentials, and a person who answers pages by a function, which returns the address that the page sends them to.
func (d *desk) client(t *testing.T, answer func(page string) (string, error), opts ...stack.Option) *stack.Client {
	t.Helper()
	client, err := stack.New(append([]stack.Option{stack.WithBaseURL("http://localhost:1"), stack.WithMaxRetries(0),
		stack.WithHTTPClient(&http.Client{Transport: d.Transport()}), stack.WithBrowser(d.answering(answer))}, opts...)...)
	require.NoError(t, err)
	return client
}

func (d *desk) answering(answer func(page string) (string, error)) func(context.Context, string) error {
	return func(ctx context.Context, page string) error {
		u, err := url.Parse(page)
		if err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.opened = append(d.opened, u)
		callback, err := answer(page)
		if err != nil || callback == "" {
			return err
		}
		return d.visit(ctx, callback)
	}
}

// visit opens a page of our own as a browser does.
func (d *desk) visit(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(resp.Body)
	d.shown = append(d.shown, visit{resp.StatusCode, string(text)})
	return err
}

// changed is an address with other parameters.
func changed(t *testing.T, address string, change ...func(url.Values)) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	q := u.Query()
	for _, c := range change {
		c(q)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func (d *desk) credentials() string { return filepath.Join(d.home, ".stack", "credentials.json") }

// callbackOf is where a page sends the person, without an answer.
func callbackOf(page *url.URL) string {
	q := page.Query()
	return q.Get("redirect_uri") + q.Get("callback") + "?" + url.Values{"state": {q.Get("state")}}.Encode()
}

// A person signs in for all calls that wait, and the session goes on without them.
func TestBrowserSignIn(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	requests := d.Requests()
	client := d.client(t, d.ApproveSignIn)
	assert.Equal(t, requests, d.Requests(), "New makes no call")
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() { assert.NoError(t, failure(client.Agents.List(t.Context()))) })
	}
	calls.Wait()
	require.Len(t, d.opened, 1, "they are asked once")
	q := d.opened[0].Query()
	redirect := q.Get("redirect_uri")
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/callback$`, redirect)
	assert.Equal(t, "http://localhost:1/oauth/authorize", strings.Split(d.opened[0].String(), "?")[0])
	assert.Equal(t, url.Values{"response_type": {"code"}, "client_id": {q.Get("client_id")}, "redirect_uri": {redirect},
		"scope": {"passports:read passports:write agents:read agents:write services:read services:connect credentials:read " +
			"proxy:read proxy:write audit:read"}, "resource": {"https://api.getstack.run"}, "code_challenge": {q.Get("code_challenge")},
		"code_challenge_method": {"S256"}, "state": {q.Get("state")}}, q)
	assert.GreaterOrEqual(t, len(q.Get("state")), 22)
	assert.Equal(t, http.StatusOK, d.shown[0].status)
	assert.Contains(t, d.shown[0].text, "<h1>Approved</h1>")
	assert.Equal(t, 0, d.countRows("oauth.refresh"), "the first access token is used")

	file := readJSON(t, d.credentials())
	assert.Equal(t, "client_id issued_at refresh_expires_at refresh_token scope", keys(file))
	assert.Equal(t, q.Get("client_id"), file["client_id"])
	assert.Equal(t, q.Get("scope"), file["scope"])
	info, err := os.Stat(filepath.Dir(d.credentials()))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	next, err := stack.New(stack.WithBaseURL("http://localhost:1"), stack.WithHTTPClient(&http.Client{Transport: d.Transport()}))
	require.NoError(t, err)
	require.NoError(t, failure(next.Agents.List(t.Context())), "another process needs nobody")
	require.Error(t, d.visit(t.Context(), callbackOf(d.opened[0])), "the port is closed")
}

// The client that a sign-in registers says what it is.
func TestBrowserSignInRegisters(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	client := d.client(t, func(page string) (string, error) {
		u, err := url.Parse(page)
		if err != nil {
			return "", err
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://stack.mock/oauth/authorize?"+u.RawQuery, nil)
		if err != nil {
			return "", err
		}
		resp, err := d.Transport().RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close() //nolint:errcheck // it was only read
		text, err := io.ReadAll(resp.Body)
		assert.Contains(t, string(text), "<h1>STACK Go SDK on ")
		return callbackOf(u) + "&error=access_denied", err
	})
	require.ErrorIs(t, failure(client.Agents.List(t.Context())), stack.ErrSignInRequired)
}

// What a person refuses stays refused, for all who wait and all who come later.
func TestBrowserSignInDenied(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	client := d.client(t, d.DenySignIn)
	for range 2 {
		err := failure(client.Agents.List(t.Context()))
		require.ErrorIs(t, err, stack.ErrSignInRequired)
		var refused *stack.Error
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, "ACCESS_DENIED", refused.Code)
		require.ErrorContains(t, err, "API key", "what to do instead")
	}
	assert.Len(t, d.opened, 1)
	assert.Equal(t, http.StatusBadRequest, d.shown[0].status)
	assert.Contains(t, d.shown[0].text, "Not approved")
	_, err := os.Stat(d.credentials())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, failure(d.client(t, d.ApproveSignIn).Agents.List(t.Context())), "a new client asks again")
}

// Requests that are not the page's answer change nothing.
func TestBrowserStrayCallbacks(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	client := d.client(t, func(page string) (string, error) {
		callback, err := d.ApproveSignIn(page)
		if err != nil {
			return "", err
		}
		elsewhere := strings.Replace(callback, "/callback", "/favicon.ico", 1)
		for _, stray := range []string{elsewhere, changed(t, callback, set("state", "")), changed(t, callback, set("state", "guessed")),
			changed(t, callback, set("state", "guessed"), set("code", ""), set("error", "access_denied"))} {
			if err = d.visit(t.Context(), stray); err != nil {
				return "", err
			}
		}
		return callback, nil
	})
	require.NoError(t, failure(client.Agents.List(t.Context())))
	var statuses []int
	for _, v := range d.shown {
		statuses = append(statuses, v.status)
	}
	assert.Equal(t, []int{404, 400, 400, 400, 200}, statuses)
}

func TestBrowserSignInFailures(t *testing.T) {
	tests := map[string]struct {
		answer func(d *desk, page string) (string, error)
		fault  stacktest.Fault
		says   string
		code   string // of an *Error
		status int    // of the person's page
	}{
		"an opener that fails": {answer: func(*desk, string) (string, error) { return "", errors.New("no display") }, says: "no display"},
		"no code": {answer: func(d *desk, _ string) (string, error) { return callbackOf(d.opened[0]), nil }, says: "without a code",
			code: "UNKNOWN", status: 400},
		"a wrong code": {answer: func(d *desk, _ string) (string, error) { return callbackOf(d.opened[0]) + "&code=oaz_wrong", nil },
			says: "POST /oauth/token", code: "INVALID_GRANT", status: 200},
		"another error": {answer: func(d *desk, _ string) (string, error) {
			return callbackOf(d.opened[0]) + "&error=server_error&error_description=It+rains%0a", nil
		}, says: "It rains", code: "SERVER_ERROR", status: 400},
		"no registration": {fault: stacktest.Fault{Method: "POST", Path: "/oauth/register", Times: 1, Status: 503, Code: "temporarily_unavailable"},
			says: "POST /oauth/register", code: "TEMPORARILY_UNAVAILABLE"},
		"no tokens": {fault: stacktest.Fault{Method: "POST", Path: "/oauth/token", Times: 1, Status: 500, Code: "INTERNAL"},
			says: "POST /oauth/token", code: "SERVER_ERROR", status: 200},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			d := newDesk(t)
			if tc.fault.Times > 0 {
				d.Fault(tc.fault)
			}
			right := tc.answer == nil
			client := d.client(t, func(page string) (string, error) {
				if right {
					return d.ApproveSignIn(page)
				}
				return tc.answer(d, page)
			})
			err := failure(client.Agents.List(t.Context()))
			require.ErrorContains(t, err, tc.says)
			if tc.code != "" {
				var refused *stack.Error
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, tc.code, refused.Code)
			}
			if tc.status != 0 {
				assert.Equal(t, tc.status, d.shown[0].status)
			}
			assert.NotContains(t, err.Error(), "oaz_")
			_, err = os.Stat(d.credentials())
			require.ErrorIs(t, err, os.ErrNotExist)
			right = true
			require.NoError(t, failure(client.Agents.List(t.Context())), "nobody has refused: the next call asks again")
		})
	}
}

// A server that answers halves is told so, and no half a session is kept.
func TestBrowserSignInHalves(t *testing.T) {
	for path, says := range map[string]string{"/oauth/register": "no client_id", "/oauth/token": "no refresh_token"} {
		t.Run(says, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			d := newDesk(t)
			through := transportFunc(func(r *http.Request) (*http.Response, error) {
				if r.URL.Path != path {
					return d.Transport().RoundTrip(r)
				}
				return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}},
					Body: io.NopCloser(strings.NewReader(`{"access_token":"hidden","token_type":"Bearer"}`))}, nil
			})
			err := failure(d.client(t, d.ApproveSignIn, stack.WithHTTPClient(&http.Client{Transport: through})).Agents.List(t.Context()))
			var refused *stack.Error
			require.ErrorAs(t, err, &refused)
			assert.Contains(t, refused.Message, says)
			assert.NotContains(t, err.Error(), "hidden")
			_, err = os.Stat(d.credentials())
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

// Nobody is troubled when there would be no place for the session.
func TestBrowserSignInHasNoPlace(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	if err := os.Symlink(filepath.Join(d.home, "nowhere"), filepath.Join(d.home, ".stack")); err != nil {
		t.Skip(err)
	}
	err := failure(d.client(t, d.ApproveSignIn).Agents.List(t.Context()))
	require.ErrorContains(t, err, "credentials file")
	assert.Empty(t, d.opened)
}

// Another program has signed in before the first call does.
func TestBrowserSignInNotNeeded(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	first, second := d.client(t, d.ApproveSignIn), d.client(t, d.ApproveSignIn)
	require.NoError(t, failure(first.Agents.List(t.Context())))
	require.NoError(t, failure(second.Agents.List(t.Context())))
	assert.Len(t, d.opened, 1)
}

// A caller waits as long as their context lets them; the question stays open for those who wait still, and for nobody else.
func TestBrowserSignInCallersLeave(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	asked, pages := make(chan struct{}, 2), make(chan context.Context, 2)
	client, err := stack.New(stack.WithBaseURL("http://localhost:1"), stack.WithHTTPClient(&http.Client{Transport: d.Transport()}),
		stack.WithBrowser(func(ctx context.Context, address string) error {
			u, parseErr := url.Parse(address)
			d.opened = append(d.opened, u)
			pages <- ctx
			asked <- struct{}{}
			return parseErr
		}))
	require.NoError(t, err)
	ctx, leave := context.WithCancelCause(t.Context())
	left := make(chan error, 2)
	for range 2 {
		go func() { left <- failure(client.Agents.List(ctx)) }()
	}
	<-asked
	leave(errors.New("lunch"))
	for range 2 {
		err = <-left
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "lunch")
	}
	<-(<-pages).Done()

	stays := make(chan error, 1)
	go func() { stays <- failure(client.Agents.List(t.Context())) }()
	<-asked
	callback, err := d.ApproveSignIn(d.opened[1].String())
	require.NoError(t, err)
	require.NoError(t, d.visit(t.Context(), callback))
	require.NoError(t, <-stays)
	require.Error(t, d.visit(t.Context(), callbackOf(d.opened[0])), "its port is closed")
}

// Who asks, and where what they get is sent.
func TestBrowserIsForPeople(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	browser := stack.WithBrowser(func(context.Context, string) error { return errors.New("opened") })
	tests := map[string]struct {
		opts []stack.Option
		env  map[string]string
		says string
	}{
		"no terminal":                {nil, nil, "STACK_API_KEY"},
		"a person":                   {[]stack.Option{browser}, nil, ""},
		"not interactive":            {[]stack.Option{browser}, map[string]string{"STACK_AUTH_INTERACTIVE": "False"}, "STACK_API_KEY"},
		"anything else":              {[]stack.Option{browser}, map[string]string{"STACK_AUTH_INTERACTIVE": "0"}, ""},
		"CI":                         {[]stack.Option{browser}, map[string]string{"CI": "0"}, "STACK_API_KEY"},
		"a foreign URL":              {[]stack.Option{browser, stack.WithBaseURL("https://b.example")}, nil, "b.example"},
		"the same from outside":      {[]stack.Option{browser, stack.WithBaseURL("https://b.example")}, map[string]string{"STACK_BASE_URL": "https://b.example"}, ""},
		"on loopback":                {[]stack.Option{browser, stack.WithBaseURL("http://127.0.0.1:1")}, nil, ""},
		"a key is there":             {[]stack.Option{browser}, map[string]string{"STACK_API_KEY": "sk_env"}, ""},
		"a key is there, but not so": {[]stack.Option{browser, stack.WithBaseURL("https://b.example")}, map[string]string{"STACK_API_KEY": "sk_env"}, "STACK_API_KEY"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for key, value := range tc.env {
				t.Setenv(key, value)
			}
			client, err := stack.New(append(tc.opts, stack.WithHTTPClient(&http.Client{Transport: d.Transport()}))...)
			if tc.says != "" {
				require.ErrorIs(t, err, stack.ErrNoCredentials)
				require.ErrorContains(t, err, tc.says)
				return
			}
			require.NoError(t, err)
			assert.NotNil(t, client)
		})
	}
	_, err := stack.New(stack.WithBrowser(nil))
	requireParam(t, err, "WithBrowser")
}

// An agent's key is approved by a person where no API key is there.
func TestAgentApproval(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	t.Setenv("STACK_DASHBOARD_URL", "http://stack.mock/")
	client := d.client(t, d.ApproveEnrollment, stack.WithAgent(d.agent.ID))
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() { assert.NoError(t, failure(client.Agents.Get(t.Context(), d.agent.ID))) })
	}
	calls.Wait()
	require.Len(t, d.opened, 1)
	q := d.opened[0].Query()
	assert.Equal(t, "http://stack.mock/sdk-bootstrap", strings.Split(d.opened[0].String(), "?")[0])
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/cb$`, q.Get("callback"))
	assert.Regexp(t, `^go .`, q.Get("process"))
	assert.NotEmpty(t, q.Get("machine"))
	assert.Equal(t, "agent_id callback machine process state", keys(q))
	assert.Equal(t, http.StatusOK, d.shown[0].status)
	assert.Equal(t, 1, d.countRows("agent.enrollment_approve"))
	assert.Equal(t, 1, d.countRows("agent.enroll"))
	require.ErrorIs(t, failure(client.Agents.List(t.Context())), stack.ErrForbidden, "it is the agent that calls")
	_, err := os.Stat(d.credentials())
	require.ErrorIs(t, err, os.ErrNotExist)
	d.RequireAuditIntact(t)

	again, err := stack.New(stack.WithBaseURL("http://localhost:1"), stack.WithAgent(d.agent.ID),
		stack.WithHTTPClient(&http.Client{Transport: d.Transport()}))
	require.NoError(t, err)
	require.NoError(t, failure(again.Agents.Get(t.Context(), d.agent.ID)), "it has its key")
}

func TestAgentApprovalDenied(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	t.Setenv("STACK_DASHBOARD_URL", "http://stack.mock")
	client := d.client(t, d.DenyEnrollment, stack.WithAgent(d.agent.ID))
	for range 2 {
		err := failure(client.Agents.Get(t.Context(), d.agent.ID))
		require.ErrorIs(t, err, stack.ErrSignInRequired)
		require.ErrorContains(t, err, "enrolling a key for "+d.agent.ID)
	}
	assert.Len(t, d.opened, 1)
	assert.Equal(t, http.StatusForbidden, d.shown[0].status)
	assert.Equal(t, 1, d.countRows("agent.enrollment_deny"))
	assert.Equal(t, 0, d.countRows("agent.enroll"))
	t.Setenv("STACK_DASHBOARD_URL", "nonsense")
	requireParam(t, failure(d.client(t, d.ApproveEnrollment, stack.WithAgent(d.agent.ID)).Agents.Get(t.Context(), d.agent.ID)), "STACK_DASHBOARD_URL")
}

// An API key that is there saves the person the question.
func TestAgentApprovalNotNeeded(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	client := d.client(t, d.ApproveEnrollment, stack.WithAgent(d.agent.ID), stack.WithAPIKey(d.APIKey()))
	require.NoError(t, failure(client.Agents.Get(t.Context(), d.agent.ID)))
	assert.Empty(t, d.opened)
}

// So does the session of a person who has signed in.
func TestAgentEnrolledByASession(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d := newDesk(t)
	require.NoError(t, failure(d.client(t, d.ApproveSignIn).Agents.List(t.Context())))
	client := d.client(t, d.ApproveEnrollment, stack.WithAgent(d.agent.ID))
	require.NoError(t, failure(client.Agents.Get(t.Context(), d.agent.ID)))
	assert.Len(t, d.opened, 1, "for the sign-in")
}
