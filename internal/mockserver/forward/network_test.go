package forward_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/forward"
)

func TestURLTarget(t *testing.T) {
	t.Parallel()
	var got received
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "gzip", r.Header.Get("Accept-Encoding"))
		r.Header.Del("Accept-Encoding")
		record(&got)(&bodyless{w}, r)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		_, _ = io.WriteString(zip, `{"token":"xoxb-secret"}`)
		_ = zip.Close()
	}))
	defer server.Close()
	f := forward.New(forward.Options{})
	require.NoError(t, f.Map("slack.com", forward.Target{URL: server.URL + "/"}))
	resp, err := f.Do(t.Context(), forward.Request{Method: "PUT", URL: mustURL(t, "https://slack.com/api/a%2Fb?x=1"),
		Headers: map[string]string{"Accept-Encoding": "br"}, Body: json.RawMessage(`{"a":1}`),
		Credential: forward.Bearer("xoxb-secret")})
	require.NoError(t, err)
	assert.Equal(t, received{"PUT", "slack.com", "/api/a%2Fb", "x=1", `{"a":1}`,
		http.Header{"Authorization": {"Bearer xoxb-secret"},
			"Connection": {"close"}, "Content-Length": {"7"}, "Content-Type": {"application/json"},
			"User-Agent": {"stack-proxy"}}}, got)
	assert.Equal(t, 200, resp.Status)
	assert.Equal(t, `{"token":"[REDACTED]"}`, string(resp.Body))
	assert.NotContains(t, resp.Headers, "content-encoding")
	assert.NotContains(t, resp.Headers, "content-length")
}

// bodyless lets a test's handler answer after a recording one.
type bodyless struct{ http.ResponseWriter }

func (bodyless) WriteHeader(int) {}

func TestNothingIsDialledByDefault(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer server.Close()
	f := forward.New(forward.Options{})
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		_, err := f.Do(t.Context(), forward.Request{Method: "POST", URL: mustURL(t, "http://"+host+":"+port)})
		e := requireError(t, err, 502, forward.CodeUnreachable)
		assert.False(t, e.Dispatched)
		assert.Contains(t, e.Message, "no upstream is mapped for the host "+host)
	}
	assert.Zero(t, hits.Load())
}

func TestDiallingRefusesPrivateTargets(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer server.Close()
	f := forward.New(forward.Options{AllowDial: true})
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254", "[::1]",
		"10.0.0.1", "[64:ff9b::7f00:1]"} {
		u := mustURL(t, "http://"+host+":"+port)
		_, err = f.Do(t.Context(), forward.Request{Method: "POST", URL: u, AllowedHosts: []string{host}})
		e := requireError(t, err, 403, forward.CodeTargetBlocked)
		assert.False(t, e.Dispatched)
		assert.NotEmpty(t, e.Sent)
		_, err = f.Do(t.Context(), forward.Request{Method: "POST", URL: u, Credential: forward.Bearer("s3cret")})
		_ = requireError(t, err, 403, forward.CodeHostNotAllowed)
	}
	assert.Zero(t, hits.Load())
	require.NoError(t, f.Map("localhost", forward.Target{URL: server.URL}))
	_, err = f.Do(t.Context(), forward.Request{Method: "POST", URL: mustURL(t, "http://localhost:"+port)})
	require.NoError(t, err, "what a test maps is not guarded")
	assert.EqualValues(t, 1, hits.Load())
}

func TestConnectionFailures(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := "http://" + listener.Addr().String()
	require.NoError(t, listener.Close())

	var hits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		switch r.URL.Path {
		case "/reset":
			panic(http.ErrAbortHandler)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "start")
			panic(http.ErrAbortHandler)
		case "/garbage":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "s3cret-token is no HTTP\r\n\r\n")
				_ = conn.Close()
			}
		case "/upgrade":
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
		}
	}))
	defer server.Close()
	f := forward.New(forward.Options{})
	require.NoError(t, f.Map("up.io", forward.Target{URL: server.URL}))
	require.NoError(t, f.Map("down.io", forward.Target{URL: closed}))
	require.NoError(t, f.Map("tls.io", forward.Target{URL: strings.Replace(server.URL, "http:", "https:", 1)}))
	tests := []struct {
		url        string
		dispatched bool
	}{
		{"https://down.io/x", false}, {"https://tls.io/x", false},
		{"https://up.io/reset", true}, {"https://up.io/cut", true}, {"https://up.io/garbage", true},
		{"https://up.io/upgrade", true},
	}
	for _, tt := range tests {
		for _, method := range []string{"GET", "PUT", "POST"} {
			before := hits.Load()
			_, err := f.Do(t.Context(), forward.Request{Method: method, URL: mustURL(t, tt.url),
				Body:  json.RawMessage(`"x"`),
				Query: map[string]string{"q": "private"}, Credential: forward.Query("key", "s3cret-token")})
			e := requireError(t, err, 502, forward.CodeUnreachable)
			assert.Equal(t, tt.dispatched, e.Dispatched, tt.url)
			assert.NotContains(t, e.Message, "s3cret")
			assert.NotContains(t, e.Message, "private")
			sent := hits.Load() - before
			assert.Equal(t, tt.dispatched, sent == 1, "%s %s was sent %d times", method, tt.url, sent)
		}
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, hang := range []struct {
			name    string
			handler http.HandlerFunc
		}{
			{"until the caller is gone", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
			{"whatever the caller does", func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }},
		} {
			f := upstream(t, "h.io", hang.handler)
			began := time.Now()
			_, err := f.Do(t.Context(), forward.Request{Method: "POST", URL: mustURL(t, "https://h.io")})
			e := requireError(t, err, 504, forward.CodeTimeout)
			assert.True(t, e.Dispatched, hang.name)
			assert.Equal(t, 30*time.Second, time.Since(began), hang.name)
		}
		time.Sleep(time.Hour) // virtual time stands still once the test has returned, and the second handler would never end
	})
}

func TestSlowButInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := upstream(t, "h.io", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(29 * time.Second)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "late")
		})
		resp, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://h.io")})
		require.NoError(t, err)
		assert.Equal(t, `"late"`, string(resp.Body))
	})
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := make(chan error, 1)
		f := upstream(t, "h.io", func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			seen <- context.Cause(r.Context())
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("the kill switch")
		time.AfterFunc(time.Second, func() { cancel(reason) })
		_, err := f.Do(ctx, forward.Request{Method: "POST", URL: mustURL(t, "https://h.io")})
		e := requireError(t, err, 502, forward.CodeUnreachable)
		assert.True(t, e.Dispatched)
		assert.Contains(t, e.Message, "cancelled")
		assert.Equal(t, reason, <-seen)
	})
}

func TestCallersDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := upstream(t, "h.io", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.Do(ctx, forward.Request{Method: "POST", URL: mustURL(t, "https://h.io")})
		_ = requireError(t, err, 504, forward.CodeTimeout)
	})
}

type contextKey struct{}

func TestHandlerRunsAsInAServer(t *testing.T) {
	t.Parallel()
	ctx := context.WithValue(t.Context(), contextKey{}, "the caller's own")
	f := upstream(t, "h.io", func(w http.ResponseWriter, r *http.Request) {
		assert.Nil(t, r.Context().Value(contextKey{}))
		assert.Equal(t, "/a?b=c", r.RequestURI)
		assert.Empty(t, r.URL.Host)
		assert.NotEmpty(t, r.RemoteAddr)
		assert.NotNil(t, r.Body)
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusCreated)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "<html>")
	})
	resp, err := f.Do(ctx, forward.Request{Method: "GET", URL: mustURL(t, "https://h.io/a?b=c")})
	require.NoError(t, err)
	assert.Equal(t, 201, resp.Status)
	assert.Equal(t, "text/html; charset=utf-8", resp.Headers["content-type"])
}

func TestHandlerBreaks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, want string
		handler    http.HandlerFunc
	}{
		{"panic", "its handler panicked: saw Bearer [REDACTED]", func(_ http.ResponseWriter,
			r *http.Request) {
			panic("saw " + r.Header.Get("Authorization"))
		}},
		{"abort", "its handler aborted the connection", func(http.ResponseWriter,
			*http.Request) {
			panic(http.ErrAbortHandler)
		}},
		{"goroutine ends", "its handler ended without returning", func(http.ResponseWriter,
			*http.Request) {
			runtime.Goexit()
		}},
		{"bad status", "its handler panicked: invalid status 0", func(w http.ResponseWriter,
			_ *http.Request) {
			w.WriteHeader(0)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := upstream(t, "h.io", tt.handler).Do(t.Context(), forward.Request{Method: "POST",
				URL:        mustURL(t, "https://h.io"),
				Credential: forward.Bearer("sk-123456")})
			e := requireError(t, err, 502, forward.CodeUnreachable)
			assert.True(t, e.Dispatched)
			assert.Contains(t, e.Message, tt.want)
		})
	}
}

func TestResponseLimit(t *testing.T) {
	t.Parallel()
	const limit = 10 << 20
	size := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			chunk := strings.Repeat("a", 1<<16)
			for left := n; left > 0; left -= len(chunk) {
				if _, err := io.WriteString(w, chunk[:min(left, len(chunk))]); err != nil {
					return
				}
			}
		}
	}
	server := httptest.NewServer(size(limit + 1))
	defer server.Close()
	f := forward.New(forward.Options{})
	require.NoError(t, f.Map("fits.io", forward.Target{Handler: size(limit)}))
	require.NoError(t, f.Map("over.io", forward.Target{Handler: size(3 * limit)}))
	require.NoError(t, f.Map("net.io", forward.Target{URL: server.URL}))
	resp, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://fits.io")})
	require.NoError(t, err)
	assert.Len(t, resp.Body, limit+2)
	for _, host := range []string{"over.io", "net.io"} {
		_, err = f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://"+host)})
		e := requireError(t, err, 502, forward.CodeResponseTooLarge)
		assert.True(t, e.Dispatched)
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	type hop struct{ method, url, auth, body string }
	tests := []struct {
		name, method, from string
		status             int
		location           string
		hops               int // requests that arrive
		last               string
		answered           int
	}{
		{"same host", "GET", "https://h.io/start", 302, "/end", 2, "GET https://h.io/end", 200},
		{"same host, absolute, other case", "GET", "https://h.io/start", 301, "https://H.IO:443/end", 2,
			"GET https://h.io/end", 200},
		{"POST becomes GET on 303", "POST", "https://h.io/start", 303, "/end", 2, "GET https://h.io/end", 200},
		{"POST becomes GET on 302", "POST", "https://h.io/start", 302, "/end", 2, "GET https://h.io/end", 200},
		{"POST stays on 307", "POST", "https://h.io/start", 307, "/end", 2, "POST https://h.io/end", 200},
		{"PUT stays on 308", "PUT", "https://h.io/start", 308, "/end", 2, "PUT https://h.io/end", 200},
		{"upgrade", "GET", "http://h.io/start", 301, "https://h.io/end", 2, "GET https://h.io/end", 200},
		{"downgrade", "GET", "https://h.io/start", 301, "http://h.io/end", 1, "", 301},
		{"other host", "GET", "https://h.io/start", 302, "https://evil.io/end", 1, "", 302},
		{"subdomain", "GET", "https://h.io/start", 302, "https://a.h.io/end", 1, "", 302},
		{"other port", "GET", "https://h.io/start", 302, "https://h.io:8443/end", 1, "", 302},
		{"user info", "GET", "https://h.io/start", 302, "https://me:pw@h.io/end", 1, "", 302},
		{"other scheme", "GET", "https://h.io/start", 302, "ftp://h.io/end", 1, "", 302},
		{"no location", "GET", "https://h.io/start", 302, "", 1, "", 302},
		{"too many", "GET", "https://h.io/loop", 302, "/loop", 6, "GET https://h.io/loop", 302},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var hops []hop
			f := forward.New(forward.Options{Wrap: func(_ string, next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(r *http.Request) (*http.Response, error) {
					assert.Empty(t, r.Header.Get("Authorization"), "the wrapper does not see the credential")
					hops = append(hops, hop{method: r.Method, url: r.URL.String()})
					return next.RoundTrip(r)
				})
			}})
			for _, host := range []string{"h.io", "evil.io", "a.h.io"} {
				require.NoError(t, f.Map(host, forward.Target{Handler: http.HandlerFunc(func(w http.ResponseWriter,
					r *http.Request) {
					body, err := io.ReadAll(r.Body)
					assert.NoError(t, err)
					last := &hops[len(hops)-1]
					last.auth, last.body = r.Header.Get("Authorization"), string(body)
					if r.URL.Path != "/end" {
						if tt.location != "" {
							w.Header().Set("Location", tt.location)
						}
						w.WriteHeader(tt.status)
					}
				})}))
			}
			r := forward.Request{Method: tt.method, URL: mustURL(t, tt.from), Credential: forward.Bearer("sk-123456")}
			if tt.method != "GET" {
				r.Body = json.RawMessage(`{"a":1}`)
			}
			resp, err := f.Do(t.Context(), r)
			require.NoError(t, err)
			assert.Equal(t, tt.answered, resp.Status)
			require.Len(t, hops, tt.hops)
			for i, hop := range hops {
				assert.Equal(t, "Bearer sk-123456", hop.auth)
				if i > 0 {
					assert.Equal(t, tt.last, hop.method+" "+hop.url)
				}
				assert.Equal(t, hop.method != "GET", hop.body == `{"a":1}`)
			}
			if tt.answered == tt.status && tt.location != "" {
				assert.Equal(t, tt.location, resp.Headers["location"])
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestWrapMakesFaults(t *testing.T) {
	t.Parallel()
	reset := errors.New("connection reset")
	tests := []struct {
		name       string
		fault      func(next http.RoundTripper, r *http.Request) (*http.Response, error)
		calls      int
		code       string
		dispatched bool
	}{
		{"reset before", func(http.RoundTripper, *http.Request) (*http.Response, error) { return nil, reset }, 0,
			"UPSTREAM_UNREACHABLE", false},
		{"reset after", func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if err == nil {
				err = errors.Join(resp.Body.Close(), reset)
			}
			return nil, err
		}, 1, "UPSTREAM_UNREACHABLE", true},
		{"cut body", func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if err == nil {
				resp.Body = io.NopCloser(io.MultiReader(io.LimitReader(resp.Body, 2), brokenReader{}))
			}
			return resp, err
		}, 1, "UPSTREAM_UNREACHABLE", true},
		{"error of our own", func(http.RoundTripper, *http.Request) (*http.Response, error) {
			return nil, &forward.Error{Status: 502, Code: "FAULT", Message: "asked for", Dispatched: true}
		}, 0, "FAULT", false},
		{"delay", func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(time.Hour):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			return next.RoundTrip(r)
		}, 0, "UPSTREAM_TIMEOUT", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				f := forward.New(forward.Options{Wrap: func(host string, next http.RoundTripper) http.RoundTripper {
					assert.Equal(t, "h.io", host)
					return roundTripper(func(r *http.Request) (*http.Response, error) { return tt.fault(next, r) })
				}})
				require.NoError(t, f.Map("h.io",
					forward.Target{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						calls++
						_, _ = io.WriteString(w, "the answer")
					})}))
				_, err := f.Do(t.Context(), forward.Request{Method: "POST", URL: mustURL(t, "https://h.io:8443/")})
				var e *forward.Error
				require.True(t, errors.As(err, &e))
				assert.Equal(t, tt.code, e.Code)
				assert.Equal(t, tt.dispatched, e.Dispatched)
				assert.Equal(t, tt.calls, calls)
			})
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := upstream(t, "h.io", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		for range 50 {
			go func() {
				assert.NoError(t, f.Map("other.io", forward.Target{Handler: http.NotFoundHandler()}))
				resp, err := f.Do(t.Context(), forward.Request{Method: "POST", URL: mustURL(t, "https://h.io"),
					Body: json.RawMessage(`"x"`)})
				if assert.NoError(t, err) {
					assert.Equal(t, `"x"`, string(resp.Body))
				}
				f.Unmap("other.io")
			}()
		}
		synctest.Wait()
	})
}

func BenchmarkDo(b *testing.B) {
	f := upstream(b, "slack.com", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"ok":true,"channel":"C012345","ts":"1700000000.000100","message":{"text":"on it"}}`)
	})
	r := forward.Request{Method: "POST", URL: mustURL(b, "https://slack.com/api/chat.postMessage"),
		Headers:    map[string]string{"Accept": "application/json"},
		Body:       json.RawMessage(`{"channel":"#support","text":"on it"}`),
		Credential: forward.Bearer("xoxb-1234567890"), AllowedHosts: []string{"slack.com", "files.slack.com"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Do(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
