package forward_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/forward"
)

// lines reads an answer's lines to their end.
func lines(a *forward.Answer) (text string, err error) {
	var all strings.Builder
	for {
		line, err := a.Next()
		if err != nil {
			return all.String(), err
		}
		all.Write(line)
	}
}

func open(t *testing.T, f *forward.Forwarder, c forward.Credential) *forward.Answer {
	t.Helper()
	a, err := f.Open(t.Context(), forward.Request{Method: "POST", URL: mustURL(t, "https://h.io/x"), Credential: c})
	require.NoError(t, err)
	t.Cleanup(a.Close)
	return a
}

// says writes and flushes one part after the other.
func says(parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, part := range parts {
			_, _ = io.WriteString(w, part)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// A handler in this process and a server elsewhere stream alike: what is written arrives before the answer is whole.
func TestLinesArriveAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for _, local := range []bool{true, false} {
		t.Run(map[bool]string{true: "handler", false: "server"}[local], func(t *testing.T) {
			t.Parallel()
			read, gone := make(chan struct{}), make(chan struct{})
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(gone)
				says("data: a\n\n")(w, r)
				<-read
				says("data: b\n\n", "data: half")(w, r)
				<-r.Context().Done()
			})
			f := forward.New(forward.Options{})
			target := forward.Target{Handler: handler}
			if !local {
				server := httptest.NewServer(handler)
				t.Cleanup(server.Close)
				target = forward.Target{URL: server.URL}
			}
			require.NoError(t, f.Map("h.io", target))
			a := open(t, f, forward.Credential{})
			assert.Equal(t, 200, a.Status)
			assert.True(t, a.IsEventStream())
			line, err := a.Next()
			require.NoError(t, err)
			assert.Equal(t, "data: a\n", string(line))
			close(read)
			for range 2 {
				_, err = a.Next()
				require.NoError(t, err)
			}
			a.Close()
			<-gone // the upstream learns that nobody listens
			_, err = a.Next()
			require.NoError(t, err, "a line that was there already")
			_, err = a.Next()
			_ = requireError(t, err, 502, forward.CodeUnreachable)
		})
	}
}

func TestAnswerBreaksOff(t *testing.T) {
	t.Parallel()
	tests := map[string]http.HandlerFunc{
		"abort": func(w http.ResponseWriter, r *http.Request) {
			says("data: a\n\n", "data: ha")(w, r)
			panic(http.ErrAbortHandler)
		},
		"panic": func(w http.ResponseWriter, r *http.Request) {
			says("data: a\n\n")(w, r)
			panic("oops")
		},
	}
	for name, handler := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := lines(open(t, upstream(t, "h.io", handler), forward.Credential{}))
			assert.Equal(t, "data: a\n\n", text, "half a line is not passed on")
			e := requireError(t, err, 502, forward.CodeUnreachable)
			assert.True(t, e.Dispatched)
		})
	}
	text, err := lines(open(t, upstream(t, "h.io", says("data: a\n\n", "data: b")), forward.Credential{}))
	require.ErrorIs(t, err, io.EOF)
	assert.Equal(t, "data: a\n\ndata: b", text, "the last line needs no line feed")
	_, err = lines(open(t, upstream(t, "h.io", says(strings.Repeat("x", 9<<20))), forward.Credential{}))
	_ = requireError(t, err, 502, forward.CodeResponseTooLarge)
}

func TestLinesWithoutSecrets(t *testing.T) {
	t.Parallel()
	const secret = "sk-0123456789"
	for _, parts := range [][]string{
		{"data: {\"a\":\"sk-0123456789\"}\n"}, {"data: {\"a\":\"sk-012", "3456789\"}\n"}, strings.Split("data: {\"a\":\"sk-0123456789\"}\n", ""),
		{"data:{\"a\":\"\\u0073k-0123456789\"}\r\n"},
	} {
		text, err := lines(open(t, upstream(t, "h.io", says(parts...)), forward.Bearer(secret)))
		require.ErrorIs(t, err, io.EOF)
		assert.Equal(t, "data: {\"a\":\"[REDACTED]\"}\n", text)
	}
	text, err := lines(open(t, upstream(t, "h.io", says("event: sk-0123456789\n", "data: x sk-0123456789 {\n", "data: {\"a\": 1.0}\n")),
		forward.Bearer(secret)))
	require.ErrorIs(t, err, io.EOF)
	assert.Equal(t, "event: [REDACTED]\ndata: x [REDACTED] {\ndata: {\"a\": 1.0}\n", text, "what holds none stays as it is")
}

// An opened call has no bound on its length, but one on silence.
func TestPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(pause time.Duration) *forward.Forwarder {
			return upstream(t, "h.io", func(w http.ResponseWriter, r *http.Request) {
				for range 20 {
					select {
					case <-time.After(pause): // virtual
						says("data: a\n")(w, r)
					case <-r.Context().Done():
						return
					}
				}
			})
		}
		began := time.Now()
		text, err := lines(open(t, slow(9*time.Minute), forward.Credential{}))
		require.ErrorIs(t, err, io.EOF)
		assert.Equal(t, strings.Repeat("data: a\n", 20), text)
		assert.Equal(t, 3*time.Hour, time.Since(began))
		_, err = slow(11*time.Minute).Open(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://h.io")})
		e := requireError(t, err, 504, forward.CodeTimeout)
		assert.True(t, e.Dispatched)

		f := upstream(t, "h.io", func(w http.ResponseWriter, r *http.Request) {
			says("data: a\n")(w, r)
			<-r.Context().Done()
		})
		text, err = lines(open(t, f, forward.Credential{}))
		assert.Equal(t, "data: a\n", text)
		_ = requireError(t, err, 504, forward.CodeTimeout)

		ctx, cancel := context.WithCancelCause(t.Context())
		a, err := f.Open(ctx, forward.Request{Method: "GET", URL: mustURL(t, "https://h.io")})
		require.NoError(t, err)
		cancel(errors.New("enough"))
		_, err = a.Next() // the line, if it was there before
		if err == nil {
			_, err = a.Next()
		}
		e = requireError(t, err, 502, forward.CodeUnreachable)
		assert.Contains(t, e.Message, "cancelled")
		a.Close()
	})
}

// Do takes a handler's flushes as it takes the rest.
func TestDoWithFlushes(t *testing.T) {
	t.Parallel()
	resp, err := upstream(t, "h.io", says("data: a\n\n", "data: b\n\n")).Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://h.io")})
	require.NoError(t, err)
	assert.JSONEq(t, `"data: a\n\ndata: b\n\n"`, string(resp.Body))
}

func BenchmarkLines(b *testing.B) {
	for name, words := range map[string]string{"usual": "some text", "each like the beginning of the secret": "some words"} {
		b.Run(name, func(b *testing.B) {
			stream := strings.Repeat("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\""+words+"\"}}]}\n\n", 1000)
			f := upstream(b, "h.io", says(stream))
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				a, err := f.Open(b.Context(), forward.Request{Method: "GET", URL: mustURL(b, "https://h.io"), Credential: forward.Bearer("sk-0123456789")})
				require.NoError(b, err)
				text, err := lines(a)
				require.ErrorIs(b, err, io.EOF)
				a.Close()
				require.Len(b, text, len(stream))
			}
		})
	}
}
