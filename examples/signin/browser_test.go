package main

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// browser starts a headless Chromium. STACK_TEST_BROWSER=required makes its absence a failure, as CI wants it.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		require.NotEqual(t, "required", os.Getenv("STACK_TEST_BROWSER"), "no browser is installed: install Debian's chromium")
		t.Skip("no browser is installed: install Debian's chromium to see the consent pages approved in it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // waits until the browser has ended
	return ctx
}

// startProgram starts the program, and returns its address and the key that it prints.
func startProgram(t *testing.T) (app, key string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	out := &output{ready: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- run(ctx, "127.0.0.1:0", out) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-done)
	})
	select {
	case <-out.ready:
	case err := <-done:
		done <- err
		require.NoError(t, err)
	}
	parts := regexp.MustCompile(`key (\S+)\n.*(http://\S+)\n`).FindStringSubmatch(out.text.String())
	require.Len(t, parts, 3, out.text.String())
	return parts[2], parts[1]
}

// output is closed for reading by its first write.
type output struct {
	once  sync.Once
	text  bytes.Buffer
	ready chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.once.Do(func() {
		o.text.Write(p)
		close(o.ready)
	})
	return len(p), nil
}

// A person approves the consent page in a real browser, and the application acts for them.
func TestSignInByBrowser(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	app, key := startProgram(t)
	require.NoError(t, chromedp.Do(ctx,
		chromedp.Navigate(app),
		chromedp.Click(chromedp.CSS("#login")),
		chromedp.WaitVisible(chromedp.CSS(`input[name="api_key"]`))))
	assert.Equal(t, "agents:read", text(t, ctx, "ul"))
	require.NoError(t, chromedp.Do(ctx,
		chromedp.SendKeys(chromedp.CSS(`input[name="api_key"]`), "sk_live_of_nobody"),
		chromedp.Click(chromedp.CSS(`button[value="approve"]`))))
	assert.Equal(t, "That is no API key of an account here.", text(t, ctx, `[role="alert"]`))
	require.NoError(t, chromedp.Do(ctx,
		chromedp.SendKeys(chromedp.CSS(`input[name="api_key"]`), key),
		chromedp.Click(chromedp.CSS(`button[value="approve"]`))))
	assert.Equal(t, "night-shift: active", text(t, ctx, "#agents"))
}

// text waits for an element to be visible, and returns what it says.
func text(t *testing.T, ctx context.Context, selector chromedp.CSS) string {
	t.Helper()
	said, err := chromedp.Run(ctx, chromedp.Text(selector))
	require.NoError(t, err)
	return said
}

// A person who denies is sent back, and signed in to nothing.
func TestSignInDeniedByBrowser(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	app, _ := startProgram(t)
	require.NoError(t, chromedp.Do(ctx,
		chromedp.Navigate(app+"/login"),
		chromedp.Click(chromedp.CSS(`button[value="deny"]`))))
	assert.Equal(t, "You were not signed in: access_denied", text(t, ctx, "#problem"))
	address, err := chromedp.Run(ctx, chromedp.Location())
	require.NoError(t, err)
	u, err := url.Parse(address)
	require.NoError(t, err)
	assert.Equal(t, "/callback", u.Path)
}
