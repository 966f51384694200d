package pipenet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack/internal/pipenet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cases are run both in a synctest bubble, where an hour passes at once, and outside, where none may take real time.
var cases = []struct {
	name string
	run  func(t *testing.T)
}{
	{"bytes arrive in order, both ways at once", testBothWays},
	{"close ends the other side's reads with EOF", testCloseReader},
	{"close fails the other side's writes", testCloseWriter},
	{"close wakes this side's own calls", testCloseSelf},
	{"a deadline in the past fails at once and can be lifted", testPastDeadline},
	{"setting a deadline wakes a call that waits", testWakeByDeadline},
	{"concurrent writes do not mix", testConcurrentWrites},
	{"closing the listener ends accept and dial", testListenerClose},
	{"dialling honours the context", testDialContext},
	{"connections outlive their listener", testConnOutlivesListener},
	{"an HTTP server shuts down", testHTTP},
	{"a refusal reaches a client that still sends", testEarlyAnswer},
	{"an answer cut short is an error", testAbort},
}

func TestOutsideBubble(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

func TestInBubble(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, c.run)
		})
	}
}

// connect returns both ends of a connection, which are closed when the test ends.
func connect(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l := pipenet.Listen()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		assert.NoError(t, err)
		accepted <- c
	}()
	client, err := l.DialContext(t.Context(), "tcp", "mock:80")
	require.NoError(t, err)
	server = <-accepted
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
		_ = l.Close()
	})
	return client, server
}

func testBothWays(t *testing.T) {
	a, b := connect(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	var wg sync.WaitGroup
	for _, c := range []net.Conn{a, b} {
		wg.Go(func() {
			n, err := c.Write(data)
			assert.NoError(t, err)
			assert.Equal(t, len(data), n)
		})
		wg.Go(func() {
			got := make([]byte, len(data))
			_, err := io.ReadFull(c, got)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(data, got))
		})
	}
	wg.Wait()
}

func testCloseReader(t *testing.T) {
	a, b := connect(t)
	go func() {
		_, err := a.Write([]byte("last words"))
		assert.NoError(t, err)
		assert.NoError(t, a.Close())
	}()
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	assert.Equal(t, "last words", string(got))
	_, err = b.Read(make([]byte, 1))
	assert.Equal(t, io.EOF, err)
}

func testCloseWriter(t *testing.T) {
	a, b := connect(t)
	waiting := make(chan error, 1)
	go func() {
		_, err := b.Write(make([]byte, 1<<20))
		waiting <- err
	}()
	_, err := io.ReadFull(a, make([]byte, 10))
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.Error(t, <-waiting)
	_, err = b.Write([]byte("x"))
	require.Error(t, err)
}

func testCloseSelf(t *testing.T) {
	a, _ := connect(t)
	waiting := make(chan error, 2)
	go func() {
		_, err := a.Read(make([]byte, 1))
		waiting <- err
	}()
	go func() {
		_, err := a.Write(make([]byte, 1<<20))
		waiting <- err
	}()
	require.NoError(t, a.Close())
	require.Error(t, <-waiting)
	require.Error(t, <-waiting)
	_, err := a.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = a.Write([]byte("x"))
	require.Error(t, err)
}

func testPastDeadline(t *testing.T) {
	a, b := connect(t)
	require.NoError(t, a.SetDeadline(time.Unix(1, 0)))
	_, err := a.Read(make([]byte, 1))
	requireTimeout(t, err)
	_, err = a.Write([]byte("x"))
	requireTimeout(t, err)

	require.NoError(t, a.SetDeadline(time.Time{}))
	go func() {
		_, werr := b.Write([]byte("x"))
		assert.NoError(t, werr)
	}()
	_, err = a.Read(make([]byte, 1))
	require.NoError(t, err)
}

func testWakeByDeadline(t *testing.T) {
	a, _ := connect(t)
	read, write := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 1))
		read <- err
	}()
	go func() {
		_, err := a.Write(make([]byte, 1<<20))
		write <- err
	}()
	require.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
	requireTimeout(t, <-read)
	select {
	case err := <-write:
		require.Failf(t, "the write heeds the deadline for reads", "%v", err)
	default:
	}
	require.NoError(t, a.SetWriteDeadline(time.Unix(1, 0)))
	requireTimeout(t, <-write)
}

func requireTimeout(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}

func testConcurrentWrites(t *testing.T) {
	a, b := connect(t)
	const size = 1000
	var wg sync.WaitGroup
	for _, letter := range []string{"a", "b", "c"} {
		wg.Go(func() {
			_, err := a.Write([]byte(strings.Repeat(letter, size)))
			assert.NoError(t, err)
		})
	}
	seen := map[string]bool{}
	for range 3 {
		block := make([]byte, size)
		_, err := io.ReadFull(b, block)
		require.NoError(t, err)
		first := string(block[:1])
		require.Equal(t, strings.Repeat(first, size), string(block))
		seen[first] = true
	}
	require.Len(t, seen, 3)
	wg.Wait()
}

func testListenerClose(t *testing.T) {
	l := pipenet.Listen()
	assert.Equal(t, "pipe", l.Addr().Network())
	assert.Equal(t, "pipe", l.Addr().String())
	accept := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accept <- err
	}()
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-accept, net.ErrClosed)
	require.NoError(t, l.Close(), "again")

	_, err := l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = l.DialContext(t.Context(), "tcp", "mock:80")
	require.ErrorIs(t, err, net.ErrClosed)

	l = pipenet.Listen()
	dial := make(chan error, 1)
	go func() {
		_, err := l.DialContext(t.Context(), "tcp", "mock:80")
		dial <- err
	}()
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-dial, net.ErrClosed)
}

func testDialContext(t *testing.T) {
	l := pipenet.Listen()
	ctx, cancel := context.WithCancel(t.Context())
	dial := make(chan error, 1)
	go func() {
		_, err := l.DialContext(ctx, "tcp", "mock:80") // nobody accepts
		dial <- err
	}()
	cancel()
	require.ErrorIs(t, <-dial, context.Canceled)

	go func() {
		_, err := l.Accept()
		assert.ErrorIs(t, err, net.ErrClosed)
	}()
	_, err := l.DialContext(ctx, "tcp", "mock:80")
	require.ErrorIs(t, err, context.Canceled, "although somebody accepts")
	require.NoError(t, l.Close())
}

func testConnOutlivesListener(t *testing.T) {
	l := pipenet.Listen()
	go func() {
		c, err := l.Accept()
		if assert.NoError(t, err) {
			_, err = io.Copy(c, c)
			assert.NoError(t, err)
			assert.NoError(t, c.Close())
		}
	}()
	c, err := l.DialContext(t.Context(), "tcp", "mock:80")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func testHTTP(t *testing.T) {
	l := pipenet.Listen()
	stop := serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+r.URL.Path)
	}))
	client := newClient(l)
	for range 3 {
		require.Equal(t, "api.getstack.run/v1/agents", get(t, client, "http://api.getstack.run/v1/agents"))
	}
	stop() // with a connection kept alive

	require.ErrorIs(t, getError(t, client), net.ErrClosed)
}

func testEarlyAnswer(t *testing.T) {
	l := pipenet.Listen()
	stop := serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close") // no waiting for the body's rest
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}))
	resp, err := newClient(l).Do(newRequest(t, http.MethodPost, bytes.NewReader(make([]byte, 8<<20))))
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
	stop()
}

func testAbort(t *testing.T) {
	l := pipenet.Listen()
	stop := serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	resp, err := newClient(l).Do(newRequest(t, http.MethodGet, http.NoBody))
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	assert.Equal(t, "half", string(body))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NoError(t, resp.Body.Close())
	stop()
}

// TestDeadlineInVirtualTime shows that what waits in a connection lets the bubble's clock go on.
func TestDeadlineInVirtualTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a, _ := connect(t)
		require.NoError(t, a.SetReadDeadline(start.Add(time.Hour)))
		_, err := a.Read(make([]byte, 1))
		requireTimeout(t, err)
		assert.Equal(t, time.Hour, time.Since(start))

		require.NoError(t, a.SetReadDeadline(start.Add(2*time.Hour)))
		require.NoError(t, a.SetWriteDeadline(start.Add(3*time.Hour)))
		_, err = a.Write([]byte("x"))
		requireTimeout(t, err)
		assert.Equal(t, 3*time.Hour, time.Since(start))
	})
}

// TestHTTPTimeoutInVirtualTime shows that the time-outs of client and server work over the connections.
func TestHTTPTimeoutInVirtualTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := pipenet.Listen()
		stop := serve(t, l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done() // the client has gone
		}))
		client := newClient(l)
		client.Timeout = 30 * time.Second
		start := time.Now()
		require.ErrorIs(t, getError(t, client), context.DeadlineExceeded)
		assert.Equal(t, 30*time.Second, time.Since(start))
		stop()
	})
}

// serve runs an HTTP server on l; stop shuts it down in good order.
func serve(tb testing.TB, l net.Listener, handler http.Handler) (stop func()) {
	tb.Helper()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	return func() {
		tb.Helper()
		require.NoError(tb, server.Shutdown(tb.Context()))
		err := <-served
		require.True(tb, errors.Is(err, http.ErrServerClosed), "%v", err)
	}
}

func newClient(l *pipenet.Listener) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: l.DialContext}}
}

func newRequest(t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://mock/", body)
	require.NoError(t, err)
	return req
}

// getError does a GET that must get no answer.
func getError(t *testing.T, client *http.Client) error {
	t.Helper()
	resp, err := client.Do(newRequest(t, http.MethodGet, http.NoBody))
	if err == nil {
		assert.NoError(t, resp.Body.Close())
	}
	return err
}

func get(tb testing.TB, client *http.Client, url string) string {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(tb, err)
	resp, err := client.Do(req)
	require.NoError(tb, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(tb, err)
	require.NoError(tb, resp.Body.Close())
	require.Equal(tb, http.StatusOK, resp.StatusCode)
	return string(body)
}
