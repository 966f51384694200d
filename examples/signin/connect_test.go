package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// A person connects a service in a real browser, and ends on the mock's page or, sent on from there, on the application's.
func TestConnectByBrowser(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	srv := stacktest.New(t)
	base, err := srv.URL()
	require.NoError(t, err)
	client, err := stack.New(stack.WithBaseURL(base), stack.WithAPIKey(srv.APIKey()))
	require.NoError(t, err)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<p id="result">` + r.URL.Query().Get("status") + r.URL.Query().Get("error") + `</p>`))
	}))
	t.Cleanup(app.Close)
	connect := func(redirectURI string) {
		asked, refused := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "github", Scopes: []string{"repo"},
			RedirectURI: redirectURI})
		require.NoError(t, refused)
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(asked.AuthorizationURL)))
		assert.Equal(t, "repo", text(t, ctx, "li"))
	}
	connect("")
	require.NoError(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(`button[value="approve"]`))))
	assert.Equal(t, "GitHub is connected", text(t, ctx, "#connected"))
	connect("")
	require.NoError(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(`button[value="deny"]`))))
	assert.Contains(t, text(t, ctx, `[role="alert"]`), "was denied")
	connect(app.URL)
	require.NoError(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(`button[value="approve"]`))))
	assert.Equal(t, "connected", text(t, ctx, "#result"))
	connect(app.URL)
	require.NoError(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(`button[value="deny"]`))))
	assert.Equal(t, "access_denied", text(t, ctx, "#result"))

	list, err := client.Services.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 2)
}
