package forward_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/forward"
)

func TestDeliver(t *testing.T) {
	t.Parallel()
	var got received
	f := upstream(t, "hooks.example", record(&got))
	header := http.Header{"X-Stack-Event": {"a.b"}, "Content-Type": {"application/json"}, "User-Agent": {"stack-webhooks"}}
	status, err := f.Deliver(t.Context(), mustURL(t, "https://hooks.example/in?x=1"), header, []byte(`{ "a": 1 }`))
	require.NoError(t, err)
	assert.Equal(t, http.StatusNoContent, status)
	assert.Equal(t, []string{"POST", "hooks.example", "/in", "x=1", `{ "a": 1 }`},
		[]string{got.method, got.host, got.path, got.query, got.body}, "the body byte for byte")
	assert.Equal(t, []string{"a.b"}, got.header["X-Stack-Event"], "the server's own headers stay")
}

// Whatever is answered is a status, and a redirect is not followed.
func TestDeliverAnswers(t *testing.T) {
	t.Parallel()
	for _, want := range []int{200, 204, 302, 308, 404, 410, 500} {
		var hits atomic.Int32
		f := upstream(t, "hooks.example", func(w http.ResponseWriter, _ *http.Request) {
			hits.Add(1)
			w.Header().Set("Location", "https://hooks.example/elsewhere")
			w.WriteHeader(want)
		})
		status, err := f.Deliver(t.Context(), mustURL(t, "https://hooks.example/in"), http.Header{}, nil)
		require.NoError(t, err)
		assert.Equal(t, want, status)
		assert.EqualValues(t, 1, hits.Load(), want)
	}
}

// An answer that does not end is no trouble.
func TestDeliverLongAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chunk := []byte(strings.Repeat("x", 64<<10))
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	f := forward.New(forward.Options{})
	require.NoError(t, f.Map("hooks.example", forward.Target{URL: server.URL}))
	status, err := f.Deliver(t.Context(), mustURL(t, "https://hooks.example/in"), http.Header{}, nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status)
}

// The dialling rules are those of proxied calls.
func TestDeliverDials(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	off, on := forward.New(forward.Options{}), forward.New(forward.Options{AllowDial: true})
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		target := mustURL(t, "http://"+host+":"+port)
		_, err := off.Deliver(t.Context(), target, http.Header{}, nil)
		_ = requireError(t, err, 502, forward.CodeUnreachable)
		_, err = on.Deliver(t.Context(), target, http.Header{}, nil)
		_ = requireError(t, err, 403, forward.CodeTargetBlocked)
	}
	assert.Zero(t, hits.Load())
}

func TestDeliverTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		f := upstream(t, "hooks.example", func(http.ResponseWriter, *http.Request) { <-release })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		_, err := f.Deliver(ctx, mustURL(t, "https://hooks.example/in"), http.Header{}, nil)
		_ = requireError(t, err, 504, forward.CodeTimeout)
		assert.Equal(t, 10*time.Second, time.Since(began))
	})
}
