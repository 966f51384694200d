package main

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// The pages to which the SDK itself brings a person, each approved in a real browser: the sign-in of a client, the code of a
// device, the key of an agent. They share the environment, so they are no parallel tests.
func TestSDKPagesByBrowser(t *testing.T) {
	ctx := browser(t)
	srv := stacktest.New(t)
	address, err := srv.URL()
	require.NoError(t, err)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("CI", "")
	t.Setenv("STACK_API_KEY", "")
	t.Setenv("STACK_AUTH_INTERACTIVE", "")
	t.Setenv("STACK_DASHBOARD_URL", address)
	_, err = srv.Client().Agents.Register(t.Context(), stack.AgentRegisterParams{Name: "night-shift"})
	require.NoError(t, err)

	approve := func(_ context.Context, page string) error {
		return chromedp.Do(ctx, chromedp.Navigate(page),
			chromedp.SendKeys(chromedp.CSS(`input[name="api_key"]`), srv.APIKey()),
			chromedp.Click(chromedp.CSS(`button[value="approve"]`)))
	}

	client, err := stack.New(stack.WithBaseURL(address), stack.WithBrowser(approve))
	require.NoError(t, err)
	agents, err := client.Agents.List(t.Context())
	require.NoError(t, err)
	require.Len(t, agents, 1)
	assert.Equal(t, "Approved", text(t, ctx, "h1"))

	client, err = stack.SignIn(t.Context(), stack.SignInParams{File: filepath.Join(t.TempDir(), "credentials.json"),
		Prompt: func(_ context.Context, code stack.DeviceCode) error {
			return chromedp.Do(ctx, chromedp.Navigate(code.VerificationURI),
				chromedp.SendKeys(chromedp.CSS(`input[name="user_code"]`), code.UserCode),
				chromedp.Click(chromedp.CSS(`button`)),
				chromedp.SendKeys(chromedp.CSS(`input[name="api_key"]`), srv.APIKey()),
				chromedp.Click(chromedp.CSS(`button[value="approve"]`)))
		}}, stack.WithBaseURL(address))
	require.NoError(t, err)
	_, err = client.Agents.List(t.Context())
	require.NoError(t, err)

	t.Setenv("HOME", t.TempDir()) // without the session of the sign-in above, the agent's key needs a person
	agent, err := stack.New(stack.WithBaseURL(address), stack.WithAgent(agents[0].ID), stack.WithBrowser(approve))
	require.NoError(t, err)
	own, err := agent.Agents.Get(t.Context(), agents[0].ID)
	require.NoError(t, err)
	assert.Equal(t, "night-shift", own.Name)
}
