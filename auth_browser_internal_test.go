package stack

import (
	"context"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/pipenet"
)

// A person has five minutes.
func TestPersonPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		q := question{path: "/callback", answer: "code", page: func(context.Context, string, string) (string, error) { return "http://x", nil }}
		_, err := q.ask(t.Context(), pipenet.Listen(), func(context.Context, string) error { return nil })
		require.ErrorIs(t, err, ErrSignInRequired)
		require.ErrorContains(t, err, "5m0s")
		assert.Equal(t, 5*time.Minute, time.Since(began))
		_, err = q.ask(t.Context(), pipenet.Listen(), func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		})
		require.ErrorIs(t, err, ErrSignInRequired, "an opener that waits has no more time")
		assert.Equal(t, 10*time.Minute, time.Since(began))
	})
}

func TestDashboardURL(t *testing.T) {
	t.Setenv("STACK_DASHBOARD_URL", "")
	for base, want := range map[string]string{
		"https://api.getstack.run": "https://getstack.run", "http://localhost:4242": "http://localhost:3100",
		"http://127.0.0.1:1/x": "http://localhost:3100", "https://localhost": "https://getstack.run", "http://a.example": "https://getstack.run",
	} {
		u, err := url.Parse(base)
		require.NoError(t, err)
		t.Setenv("STACK_DASHBOARD_URL", "")
		got, err := dashboardURL(u)
		require.NoError(t, err)
		assert.Equal(t, want, got, base)
		t.Setenv("STACK_DASHBOARD_URL", "https://dash.example/x/")
		got, err = dashboardURL(u)
		require.NoError(t, err)
		assert.Equal(t, "https://dash.example/x", got)
	}
}
