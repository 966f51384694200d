package forward_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/forward"
)

func requireError(t testing.TB, err error, status int, code string) *forward.Error {
	t.Helper()
	var e *forward.Error
	require.True(t, errors.As(err, &e), "%v is no *forward.Error", err)
	require.Equal(t, code, e.Code, e.Message)
	require.Equal(t, status, e.Status)
	return e
}

func mustURL(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := forward.ParseURL(raw)
	require.NoError(t, err)
	return u
}

// upstream is a forwarder with one mapped host.
func upstream(t testing.TB, host string, handler http.HandlerFunc) *forward.Forwarder {
	t.Helper()
	f := forward.New(forward.Options{})
	require.NoError(t, f.Map(host, forward.Target{Handler: handler}))
	return f
}

// received is what a handler saw.
type received struct {
	method, host, path, query, body string
	header                          http.Header
}

func record(into *received) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		*into = received{r.Method, r.Host, r.URL.EscapedPath(), r.URL.RawQuery, string(body), r.Header.Clone()}
		w.WriteHeader(http.StatusNoContent)
	}
}

func TestRequestReachesItsUpstream(t *testing.T) {
	t.Parallel()
	var got received
	f := upstream(t, "slack.com", record(&got))
	resp, err := f.Do(t.Context(), forward.Request{
		Method: "post", URL: mustURL(t, "https://SLACK.com:443/api/chat%2Fx?a=1"), Query: map[string]string{"b": "x y"},
		Headers:    map[string]string{"X-Team": "t", "accept": "application/json"},
		Body:       json.RawMessage(` {"n": 12345678901234567890.10, "a": "b"} `),
		Credential: forward.Bearer("xoxb-secret"), AllowedHosts: []string{"slack.com"},
	})
	require.NoError(t, err)
	assert.Equal(t, &forward.Response{Status: 204, Headers: map[string]string{}, Body: json.RawMessage("null")}, resp)
	assert.Equal(t, "POST", got.method)
	assert.Equal(t, "slack.com", got.host)
	assert.Equal(t, "/api/chat%2Fx", got.path)
	assert.Equal(t, "a=1&b=x+y", got.query)
	assert.Equal(t, `{"n": 12345678901234567890.10, "a": "b"}`, got.body, "JSON is sent as it was written")
	assert.Equal(t, http.Header{"Accept": {"application/json"}, "Authorization": {"Bearer xoxb-secret"},
		"Content-Type": {"application/json"}, "User-Agent": {"stack-proxy"}, "X-Team": {"t"}}, got.header)
}

func TestHeadersThatStayBehind(t *testing.T) {
	t.Parallel()
	var got received
	f := upstream(t, "h.io", record(&got))
	headers := map[string]string{"X-Kept": "1", "User-Agent": "mine", "Connection": "close, X-Hop", "X-Hop": "1"}
	for _, name := range []string{"authorization", "Proxy-Authorization", "COOKIE", "X-API-Key", "api-key",
		"x-passport-token",
		"X-STACK-Anything", "x-intent-approval-id", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding",
		"Upgrade", "Host", "Content-Length", "Expect", "Accept-Encoding", "Proxy-Authenticate"} {
		headers[name] = "caller"
	}
	_, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "http://h.io"), Headers: headers})
	require.NoError(t, err)
	assert.Equal(t, http.Header{"X-Kept": {"1"}, "User-Agent": {"mine"}}, got.header)
	assert.Equal(t, "h.io", got.host)
	assert.Equal(t, "/", got.path)
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	custom := func(fields map[string]string) forward.Credential {
		c, err := forward.Custom(fields)
		require.NoError(t, err)
		return c
	}
	tests := []struct {
		name   string
		c      forward.Credential
		header map[string]string
		query  string
	}{
		{"none", forward.Credential{}, nil, "key=caller&a=1"},
		{"bearer", forward.Bearer("tok"), map[string]string{"Authorization": "Bearer tok"}, "key=caller&a=1"},
		{"named header", forward.Header("x-api-key", "", "sk"), map[string]string{"X-Api-Key": "sk"}, "key=caller&a=1"},
		{"prefix", forward.Header("Authorization", "Bot ", "b"), map[string]string{"Authorization": "Bot b"},
			"key=caller&a=1"},
		{"basic", forward.Basic("AC1", "p:w"), map[string]string{"Authorization": basic("AC1:p:w")}, "key=caller&a=1"},
		{"query takes the caller's place", forward.Query("key", "s&t"), nil, "a=1&key=s%26t"},
		{"custom basic", custom(map[string]string{"username": "u", "password": "p", "account_id": "9"}),
			map[string]string{"Authorization": basic("u:p")}, "key=caller&a=1"},
		{"custom headers beside basic", custom(map[string]string{"username": "u", "password": "p",
			"header:X-One": "1", "header:X-Two": "2"}),
			map[string]string{"Authorization": basic("u:p"), "X-One": "1", "X-Two": "2"}, "key=caller&a=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got received
			_, err := upstream(t, "h.io", record(&got)).Do(t.Context(), forward.Request{Method: "GET",
				URL: mustURL(t, "https://h.io/?key=caller&a=1"), Credential: tt.c,
				Headers: map[string]string{"X-One": "caller", "Authorization": "caller"}})
			require.NoError(t, err)
			assert.Equal(t, tt.query, got.query)
			if tt.header["X-One"] == "" {
				assert.Equal(t, "caller", got.header.Get("X-One"))
				got.header.Del("X-One")
			}
			got.header.Del("User-Agent")
			want := http.Header{}
			for name, value := range tt.header {
				want.Set(name, value)
			}
			assert.Equal(t, want, got.header)
		})
	}
}

func TestCredentialsThatCannotBeSent(t *testing.T) {
	t.Parallel()
	for _, fields := range []map[string]string{nil, {"token": "s3cret"}, {"username": "u"}, {"password": "s3cret"}} {
		_, err := forward.Custom(fields)
		e := requireError(t, err, 400, forward.CodeInvalidRequest)
		assert.Equal(t, "credential", e.Field)
		assert.NotContains(t, e.Error(), "s3cret")
	}
	for _, name := range []string{"", "a b", "Host", "Connection", "content-length"} {
		_, err := forward.Custom(map[string]string{"header:" + name: "s3cret"})
		assert.NotContains(t, requireError(t, err, 400, forward.CodeInvalidRequest).Error(), "s3cret")
	}
	f := upstream(t, "h.io", func(http.ResponseWriter, *http.Request) { t.Error("the upstream was called") })
	_, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://h.io"),
		Credential: forward.Bearer("s3cret\r\nX: y")})
	e := requireError(t, err, 400, forward.CodeInvalidRequest)
	assert.NotContains(t, e.Error(), "s3cret")
	assert.False(t, e.Dispatched)
}

func TestCredentialDoesNotPrint(t *testing.T) {
	t.Parallel()
	r := forward.Request{Credential: forward.Basic("someone", "s3cret-password")}
	hidden := struct{ inner forward.Credential }{forward.Query("api_key", "s3cret-password")}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range []any{r, &r, hidden, &hidden, r.Credential} {
			assert.NotContains(t, fmt.Sprintf(format, v), "s3cret")
			assert.NotContains(t, fmt.Sprintf(format, v),
				base64.StdEncoding.EncodeToString([]byte("someone:s3cret-password")))
			assert.NotContains(t, fmt.Sprintf(format, v), fmt.Sprintf("%x", "s3cret"))
		}
	}
	assert.Equal(t, "credential(header Authorization)", r.Credential.String())
	assert.Equal(t, "credential(query api_key)", hidden.inner.LogValue().String())
	data, err := json.Marshal(r)
	require.NoError(t, err)
	assert.NotContains(t, string(data), "s3cret")
}

func TestAllowedHosts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		list []string
		url  string
		ok   bool
	}{
		{"empty list, mapped host", nil, "https://a.example.com", true},
		{"listed", []string{"x.io", "A.example.com."}, "https://a.example.com", true},
		{"listed, other port", []string{"a.example.com"}, "https://a.example.com:8443", true},
		{"listed with its port", []string{"a.example.com:8443"}, "https://a.example.com:8443", true},
		{"listed with the scheme's port", []string{"a.example.com:443"}, "https://a.example.com", true},
		{"listed with another port", []string{"a.example.com:8443"}, "https://a.example.com", false},
		{"wildcard", []string{"*.example.com"}, "https://a.example.com", true},
		{"wildcard with a port", []string{"*.example.com:8443"}, "https://a.example.com:8443", true},
		{"wildcard with another port", []string{"*.example.com:8443"}, "https://a.example.com", false},
		{"wildcard is not the domain", []string{"*.example.com"}, "https://example.com", false},
		{"wildcard ends at a dot", []string{"*.example.com"}, "https://evilexample.com", false},
		{"longer name", []string{"a.example.com"}, "https://a.example.com.evil.io", false},
		{"other", []string{"a.example.com"}, "https://b.example.com", false},
		{"malformed entry allows nothing", []string{"*", "", "https://a.example.com"}, "https://a.example.com", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			f := upstream(t, "a.example.com", func(http.ResponseWriter, *http.Request) { calls++ })
			for _, host := range []string{"example.com", "evilexample.com", "a.example.com.evil.io", "b.example.com"} {
				require.NoError(t, f.Map(host, forward.Target{Handler: http.HandlerFunc(func(http.ResponseWriter,
					*http.Request) {
					calls++
				})}))
			}
			_, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, tt.url),
				AllowedHosts: tt.list, Credential: forward.Bearer("s3cret")})
			if tt.ok {
				require.NoError(t, err)
				assert.Equal(t, 1, calls)
				return
			}
			e := requireError(t, err, 403, forward.CodeHostNotAllowed)
			assert.False(t, e.Dispatched)
			assert.Equal(t, mustURL(t, tt.url).Host, e.Sent)
			assert.Equal(t, strings.Join(tt.list, ", "), e.Allowed)
			assert.Zero(t, calls)
		})
	}
}

func TestMapping(t *testing.T) {
	t.Parallel()
	named := func(name string) forward.Target {
		return forward.Target{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_,
				_ = io.WriteString(w, name)
		})}
	}
	f := forward.New(forward.Options{})
	require.NoError(t, f.Map("H.io.", named("any port")))
	require.NoError(t, f.Map("h.io:8080", named("8080")))
	require.NoError(t, f.Map("h.io:443", named("443")))
	require.NoError(t, f.Map("::1", named("IPv6")))
	require.NoError(t, f.Map("[2001:db8::1]:80", named("IPv6 80")))
	get := func(raw string) string {
		resp, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, raw)})
		if err != nil {
			return requireError(t, err, 502, forward.CodeUnreachable).Code
		}
		return string(resp.Body)
	}
	assert.Equal(t, `"any port"`, get("http://h.io"))
	assert.Equal(t, `"443"`, get("https://h.io"))
	assert.Equal(t, `"8080"`, get("http://h.io:8080"))
	assert.Equal(t, `"any port"`, get("https://h.io:8443"))
	assert.Equal(t, `"IPv6"`, get("http://[::1]:9/"))
	assert.Equal(t, `"IPv6 80"`, get("http://[2001:db8::1]/"))
	assert.Equal(t, "UPSTREAM_UNREACHABLE", get("http://www.h.io"))
	require.NoError(t, f.Map("h.io", named("later")))
	assert.Equal(t, `"later"`, get("http://h.io"))
	f.Unmap("H.IO")
	f.Unmap("no such/host")
	assert.Equal(t, "UPSTREAM_UNREACHABLE", get("http://h.io"))
	assert.Equal(t, `"8080"`, get("http://h.io:8080"))

	for _, host := range []string{"", "a b", "https://h.io", "h.io/x", "me@h.io", "h.io:0", "ⓢlack.com", "127.1", "*.h.io"} {
		assert.ErrorContains(t, f.Map(host, named("x")), "host is", host)
	}
	require.ErrorContains(t, f.Map("h.io", forward.Target{}), "must have a handler or a URL")
	require.ErrorContains(t, f.Map("h.io", forward.Target{Handler: http.NotFoundHandler(), URL: "http://x"}),
		"must have a handler or a URL")
	require.ErrorContains(t, f.Map("h.io", forward.Target{URL: "127.0.0.1:80"}), "url")
	require.ErrorContains(t, f.Map("h.io", forward.Target{URL: "http://x/base"}), "neither path nor query")
	require.ErrorContains(t, f.Map("h.io", forward.Target{URL: "http://x?a=b"}), "neither path nor query")
}

func TestRefusedInput(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*forward.Request)
		code   string
		want   string
	}{
		{"no method", func(r *forward.Request) { r.Method = "" }, "INVALID_REQUEST", `method is ""; it must be one of GET`},
		{"other method", func(r *forward.Request) { r.Method = "TRACE" }, "INVALID_REQUEST", `method is "TRACE"`},
		{"no URL", func(r *forward.Request) { r.URL = nil }, "INVALID_URL", "url is missing"},
		{"URL that was not parsed here", func(r *forward.Request) { r.URL = &url.URL{Scheme: "ftp", Host: "h.io"} },
			"INVALID_URL", "ftp"},
		{"query too long", func(r *forward.Request) { r.Query = map[string]string{"a": strings.Repeat("b", 9000)} },
			"INVALID_URL", "bytes long"},
		{"header name", func(r *forward.Request) { r.Headers = map[string]string{"a b": "s3cret"} },
			"INVALID_REQUEST", `headers has the name "a b"`},
		{"empty header name", func(r *forward.Request) { r.Headers = map[string]string{"": "s3cret"} },
			"INVALID_REQUEST", `headers has the name ""`},
		{"header value", func(r *forward.Request) { r.Headers = map[string]string{"X-A": "s3cret\r\nB: c"} },
			"INVALID_REQUEST", "headers.X-A has control characters"},
		{"header twice", func(r *forward.Request) { r.Headers = map[string]string{"X-A": "s3cret", "x-a": "2"} },
			"INVALID_REQUEST", "headers.x-a is there twice"},
		{"many headers", func(r *forward.Request) {
			r.Headers = map[string]string{}
			for i := range 101 {
				r.Headers[fmt.Sprint("X-", i)] = "s3cret"
			}
		}, "INVALID_REQUEST", "headers has 101 names"},
		{"large headers", func(r *forward.Request) {
			r.Headers = map[string]string{"X-A": strings.Repeat("a", 16<<10), "X-B": strings.Repeat("a", 16<<10)}
		}, "INVALID_REQUEST", "headers is too large; it must be at most 32768 bytes"},
		{"deep JSON", func(r *forward.Request) {
			r.Body = json.RawMessage(strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000))
		}, "INVALID_REQUEST", "body is not valid JSON"},
		{"no JSON", func(r *forward.Request) { r.Body = json.RawMessage(`{"a":`) }, "INVALID_REQUEST",
			"body is not valid JSON"},
		{"two JSON values", func(r *forward.Request) { r.Body = json.RawMessage(`{} {}`) }, "INVALID_REQUEST",
			"body is not valid JSON"},
		{"no UTF-8", func(r *forward.Request) { r.Body = json.RawMessage("\"\xff\"") }, "INVALID_REQUEST",
			"body is not valid UTF-8"},
		{"key twice", func(r *forward.Request) { r.Body = json.RawMessage(`[{"a":{"b":1,"\u0062":2}}]`) },
			"INVALID_REQUEST", `body has the key "b" twice`},
		{"key twice in text", func(r *forward.Request) {
			r.Headers, r.Body = map[string]string{"Content-Type": "application/json"}, json.RawMessage(`"{\"a\":1,\"a\":2}"`)
		}, "INVALID_REQUEST", `body has the key "a" twice`},
		{"nested form", func(r *forward.Request) {
			r.Headers = map[string]string{"content-type": "Application/X-WWW-Form-Urlencoded; charset=utf-8"}
			r.Body = json.RawMessage(`{"a":"b","blocks":[{}]}`)
		}, "INVALID_REQUEST", "body.blocks is nested"},
		{"form of an array", func(r *forward.Request) {
			r.Headers, r.Body = map[string]string{"content-type": "application/x-www-form-urlencoded"},
				json.RawMessage(`[1]`)
		}, "INVALID_REQUEST", "body is an array"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := upstream(t, "h.io", func(http.ResponseWriter, *http.Request) { t.Error("the upstream was called") })
			r := forward.Request{Method: "POST", URL: mustURL(t, "https://h.io/")}
			tt.change(&r)
			_, err := f.Do(t.Context(), r)
			e := requireError(t, err, 400, tt.code)
			assert.Contains(t, e.Error(), tt.want)
			assert.NotContains(t, e.Error(), "s3cret")
			assert.False(t, e.Dispatched)
		})
	}
}
