package forward_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/forward"
)

// rawUpstream is a server that takes one request, gives the answer byte by byte as the test wrote it, and hangs up.
func rawUpstream(t *testing.T, answer func(io.Writer)) (f *forward.Forwarder, request func() string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	got := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			got <- ""
			return
		}
		defer conn.Close() //nolint:errcheck // the other side tells
		var head bytes.Buffer
		in := bufio.NewReader(io.TeeReader(conn, &head))
		if req, err := http.ReadRequest(in); err == nil {
			_, _ = io.Copy(io.Discard, req.Body)
		}
		got <- head.String()
		answer(conn)
	}()
	f = forward.New(forward.Options{})
	require.NoError(t, f.Map("up.io", forward.Target{URL: "http://" + listener.Addr().String()}))
	return f, func() string { return <-got }
}

func text(answer string) func(io.Writer) {
	return func(w io.Writer) { _, _ = io.WriteString(w, answer) }
}

// Whatever an upstream answers, the caller gets one answer that says one thing, or an error; never more than the upstream's own
// first message, and nothing of how it was framed.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name, answer string
		body         string // of a good answer; empty when it is refused
	}{
		{"good", ok + "Content-Length: 2\r\n\r\nhi", `"hi"`},
		{"two lengths that agree", ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", `"hi"`},
		{"two lengths", ok + "Content-Length: 2\r\nContent-Length: 5\r\n\r\nhi", ""},
		{"two lengths in one", ok + "Content-Length: 2, 5\r\n\r\nhi", ""},
		{"negative length", ok + "Content-Length: -1\r\n\r\nhi", ""},
		{"length with a sign", ok + "Content-Length: +2\r\n\r\nhi", ""},
		{"length too long", ok + "Content-Length: 5\r\n\r\nhi", ""},
		{"length beyond numbers", ok + "Content-Length: 99999999999999999999\r\n\r\nhi", ""},
		{"length and chunks", ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", `"hi"`},
		{"chunks and a length", ok + "Transfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n2\r\nhi\r\n0\r\n\r\n", `"hi"`},
		{"two codings", ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ""},
		{"list of codings", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ""},
		{"unknown coding", ok + "Transfer-Encoding: xchunked\r\n\r\nhi", ""},
		{"chunk without end", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", ""},
		{"chunk of no number", ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n", ""},
		{"chunk beyond numbers", ok + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhi", ""},
		{"negative chunk", ok + "Transfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n", ""},
		{"second answer behind", ok + "Content-Length: 2\r\n\r\nhi" + ok + "X-Split: 1\r\nContent-Length: 4\r\n\r\nevil", `"hi"`},
		{"body of an answer without", "HTTP/1.1 204 No Content\r\n\r\nevil", "null"},
		{"split by a bare newline", ok + "X-A: b\nX-Split: 1\r\nContent-Length: 2\r\n\r\nhi", `"hi"`},
		{"bare return", ok + "X-A: b\rX-Split: 1\r\nContent-Length: 2\r\n\r\nhi", ""},
		{"header without colon", ok + "nothing\r\nContent-Length: 2\r\n\r\nhi", ""},
		{"space before colon", ok + "Content-Length : 1\r\n\r\nhi", `"hi"`},
		{"null in a value", ok + "X-A: a\x00b\r\nContent-Length: 2\r\n\r\nhi", ""},
		{"first line folded", ok + " X-A: b\r\nContent-Length: 2\r\n\r\nhi", ""},
		{"no status", "HTTP/1.1\r\n\r\nhi", ""},
		{"status of letters", "HTTP/1.1 abc\r\n\r\nhi", ""},
		{"status beyond", "HTTP/1.1 99999 X\r\n\r\nhi", ""},
		{"negative status", "HTTP/1.1 -20 X\r\n\r\nhi", ""},
		{"no HTTP at all", "hi", ""},
		{"nothing", "", ""},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", ""},
		{"large header", ok + "X-A: " + strings.Repeat("a", 2<<20) + "\r\nContent-Length: 2\r\n\r\nhi", ""},
		{"many headers", ok + strings.Repeat("X-A: b\r\n", 300_000) + "Content-Length: 2\r\n\r\nhi", ""},
		{"endless hints", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", 100_000) + ok + "\r\n", ""},
		{"gzip that is none", ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi", ""},
		{"gzip cut short", ok + "Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, request := rawUpstream(t, text(tt.answer))
			resp, err := f.Do(t.Context(), forward.Request{Method: "POST", URL: mustURL(t, "https://up.io/"),
				Credential: forward.Bearer("s3cret-token"), Body: json.RawMessage(`{}`)})
			assert.NotEmpty(t, request())
			if tt.body == "" {
				e := requireError(t, err, 502, forward.CodeUnreachable)
				assert.True(t, e.Dispatched)
				assert.Less(t, len(e.Message), 300)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.body, string(resp.Body))
			for _, name := range []string{"content-length", "transfer-encoding", "connection"} {
				assert.NotContains(t, resp.Headers, name)
			}
			for name, value := range resp.Headers {
				assert.NotContains(t, name+value, "\n")
				assert.NotContains(t, name, " ")
			}
		})
	}
}

// What a caller gives as headers frames nothing: what leaves has one host, one length and no coding, and no second request.
func TestCallersFrameNothing(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string]map[string]string{
		"length":               {"Content-Length": "0"},
		"length and coding":    {"Content-Length": "4", "Transfer-Encoding": "chunked"},
		"coding, lower case":   {"transfer-encoding": "chunked"},
		"te":                   {"TE": "trailers, deflate"},
		"trailer":              {"Trailer": "X-Secret"},
		"upgrade":              {"Connection": "Upgrade", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"},
		"named as hop-by-hop":  {"Connection": "close, x-secret , Authorization", "X-Secret": "1"},
		"named in lower case":  {"connection": "x-secret", "X-SECRET": "1"},
		"proxy connection":     {"Proxy-Connection": "keep-alive", "Keep-Alive": "timeout=9"},
		"host":                 {"Host": "evil.io"},
		"expect":               {"Expect": "100-continue"},
		"credentials":          {"Authorization": "Basic x", "Cookie": "a=b", "Proxy-Authorization": "x"},
		"the account's own":    {"X-Passport-Token": "x", "X-STACK-Operation": "x", "X-Intent-Approval-Id": "x"},
		"credential as a hop":  {"Connection": "Authorization, Content-Length, Host"},
		"encoding of answers":  {"Accept-Encoding": "identity;q=1, *;q=0"},
		"forwarded, which may": {"X-Kept": "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, request := rawUpstream(t, text("HTTP/1.1 204 No Content\r\n\r\n"))
			_, err := f.Do(t.Context(), forward.Request{Method: "POST", URL: mustURL(t, "https://up.io/a"), Headers: headers,
				Credential: forward.Bearer("s3cret-token"), Body: json.RawMessage(`{"a":1}`)})
			require.NoError(t, err)
			want := "POST /a HTTP/1.1\r\nHost: up.io\r\nUser-Agent: stack-proxy\r\nContent-Length: 7\r\n" +
				"Authorization: Bearer s3cret-token\r\nContent-Type: application/json\r\n"
			switch {
			case headers["X-Kept"] != "":
				want += "X-Kept: a\r\n"
			case headers["HTTP2-Settings"] != "":
				want += "Http2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n" // which means nothing without its Upgrade
			}
			want += "Accept-Encoding: gzip\r\nConnection: close\r\n\r\n" + `{"a":1}`
			assert.Equal(t, want, request())
		})
	}
}

// Nothing that a caller gives breaks out of its line.
func TestCallersBreakNoLine(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{
		"CRLF": "a\r\nX-Injected: 1", "LF": "a\nX-Injected: 1", "CR": "a\rX-Injected: 1", "null": "a\x00b", "escape": "a\x1bb",
		"vertical tab": "a\vb", "delete": "a\x7fb", "a whole request": "a\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := upstream(t, "up.io", func(http.ResponseWriter, *http.Request) { t.Error("the upstream was called") })
			for where, r := range map[string]forward.Request{
				"value":      {Headers: map[string]string{"X-A": bad}},
				"name":       {Headers: map[string]string{bad: "a"}},
				"type":       {Headers: map[string]string{"Content-Type": bad}},
				"method":     {Method: bad},
				"credential": {Credential: forward.Bearer(bad)},
				"named":      {Credential: forward.Header("X-Key", "", bad)},
			} {
				r.URL = mustURL(t, "https://up.io/")
				if r.Method == "" {
					r.Method = "POST"
				}
				_, err := f.Do(t.Context(), r)
				require.Error(t, err, where)
				assert.NotContains(t, err.Error(), "\n", where)
			}
			_, err := forward.ParseURL("https://up.io/" + bad)
			require.Error(t, err)
		})
	}
	var got received
	f := upstream(t, "up.io", record(&got))
	_, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://up.io/%0d%0aX-Injected:1"),
		Query: map[string]string{"a\r\nb": "c\r\nd"}})
	require.NoError(t, err, "encoded they are data")
	assert.Equal(t, "/%0d%0aX-Injected:1", got.path)
	assert.Equal(t, "a%0D%0Ab=c%0D%0Ad", got.query)
}

// A handler of a test's own that writes a line break into a header sends no second header.
func TestAnswersBreakNoLine(t *testing.T) {
	t.Parallel()
	f := upstream(t, "up.io", func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-A"] = []string{"a\r\nSet-Cookie: b"}
	})
	resp, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://up.io/")})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"x-a": "a  Set-Cookie: b"}, resp.Headers)
}

// A small answer that unpacks to a large one is given up at the bound, and takes no more memory than that.
func TestDecompressionBomb(t *testing.T) { //nolint:paralleltest // it looks at what the process allocates
	var bomb bytes.Buffer
	packed := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 300 {
		_, err := packed.Write(zeros)
		require.NoError(t, err)
	}
	require.NoError(t, packed.Close())
	require.Less(t, bomb.Len(), 1<<20)
	f, request := rawUpstream(t, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", bomb.Len())
		_, _ = w.Write(bomb.Bytes())
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://up.io/")})
	runtime.ReadMemStats(&after)
	_ = request()
	e := requireError(t, err, 502, forward.CodeResponseTooLarge)
	assert.True(t, e.Dispatched)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100<<20), "10 MiB, read into a slice that grows")
}

// An upstream that sends a byte now and then holds a call no longer than one that sends nothing.
func TestDrippingUpstream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := upstream(t, "h.io", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "a")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
		})
		began := time.Now()
		_, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://h.io")})
		_ = requireError(t, err, 504, forward.CodeTimeout)
		assert.Equal(t, 30*time.Second, time.Since(began))
		time.Sleep(time.Second) // for the handler to see it
	})
}
