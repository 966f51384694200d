package forward_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/forward"
)

const form = "application/x-www-form-urlencoded"

func TestBodies(t *testing.T) {
	t.Parallel()
	object := func(v ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(v); i += 2 {
			m[v[i].(string)] = v[i+1]
		}
		return m
	}
	tests := []struct {
		name, contentType, body string
		sent, sentType          string
		content                 any // what DecodeBody says
	}{
		{"none", "", "", "", "", nil},
		{"null", "", " null ", "", "", nil},
		{"none keeps the type", "text/csv", "", "", "text/csv", nil},
		{"object", "", `{"a": 1.0}`, `{"a": 1.0}`, "application/json", object("a", json.Number("1.0"))},
		{"object under a JSON type", "application/vnd.github+json", `{"a":1}`, `{"a":1}`,
			"application/vnd.github+json", object("a", json.Number("1"))},
		{"array", "", `["a",{"b":[]}]`, `["a",{"b":[]}]`, "application/json", []any{"a", object("b", []any{})}},
		{"same key in two objects", "", `[{"a":1},{"a":{"a":2}}]`, `[{"a":1},{"a":{"a":2}}]`, "application/json",
			[]any{object("a", json.Number("1")), object("a", object("a", json.Number("2")))}},
		{"key that is also a value", "", `{"a":"a","b":"a"}`, `{"a":"a","b":"a"}`, "application/json", object("a",
			"a", "b", "a")},
		{"number", "", `12345678901234567890`, `12345678901234567890`, "application/json",
			json.Number("12345678901234567890")},
		{"true", "", `true`, `true`, "application/json", true},
		{"number under a form type", form, `1`, `1`, form, json.Number("1")},
		{"text", "", `"a\u00e9\n"`, "aé\n", "text/plain; charset=utf-8", "aé\n"},
		{"empty text", "", `""`, "", "text/plain; charset=utf-8", ""},
		{"text under its own type", "text/xml", `"<a/>"`, "<a/>", "text/xml", "<a/>"},
		{"text that is JSON by its type", "application/json", `"{\"a\":1}"`, `{"a":1}`, "application/json",
			object("a", json.Number("1"))},
		{"text that is not JSON despite its type", "application/json", `"{a:1}"`, `{a:1}`, "application/json", "{a:1}"},
		{"text that is JSON under another type", "text/plain", `"{\"a\":1}"`, `{"a":1}`, "text/plain", `{"a":1}`},
		{"text that is a form", form, `"channel=%23a&x=1&x=2"`, "channel=%23a&x=1&x=2", form,
			url.Values{"channel": {"#a"}, "x": {"1", "2"}}},
		{"text that is a bad form", form, `"a=%zz"`, "a=%zz", form, "a=%zz"},
		{"object as a form", form + "; charset=utf-8", `{"channel":"#a b","n":1e3,"ok":true,"gone":null,"x":["1",2,null]}`,
			"channel=%23a+b&n=1e3&ok=true&x=1&x=2", form + "; charset=utf-8",
			url.Values{"channel": {"#a b"}, "n": {"1e3"}, "ok": {"true"}, "x": {"1", "2"}}},
		{"empty object as a form", form, `{}`, "", form, url.Values{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			headers := map[string]string{}
			if tt.contentType != "" {
				headers["content-TYPE"] = tt.contentType
			}
			var got received
			_, err := upstream(t, "h.io", record(&got)).Do(t.Context(), forward.Request{Method: "POST",
				URL:     mustURL(t, "https://h.io"),
				Headers: headers, Body: json.RawMessage(tt.body)})
			require.NoError(t, err)
			assert.Equal(t, tt.sent, got.body)
			assert.Equal(t, tt.sentType, got.header.Get("Content-Type"))
			content, err := forward.DecodeBody(headers, json.RawMessage(tt.body))
			require.NoError(t, err)
			assert.Equal(t, tt.content, content)
		})
	}
	_, err := forward.DecodeBody(map[string]string{"a b": ""}, nil)
	_ = requireError(t, err, 400, forward.CodeInvalidRequest)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, contentType, sent, want string
		binary                        bool
	}{
		{"JSON", "application/json; charset=utf-8", ` {"id": 12345678901234567890, "t": "<&>"} `,
			`{"id": 12345678901234567890, "t": "<&>"}`, false},
		{"JSON by suffix", "application/problem+json", `[1.0]`, `[1.0]`, false},
		{"type in another case", "Application/JSON", `null`, `null`, false},
		{"broken JSON", "application/json", `{"a":`, `"{\"a\":"`, false},
		{"text", "text/plain", "ok <&>\n", `"ok <&>\n"`, false},
		{"JSON under another type", "text/plain", `{"a":1}`, `"{\"a\":1}"`, false},
		{"no type", "", "plain text", `"plain text"`, false},
		{"empty", "application/json", "", `null`, false},
		{"bytes", "image/png", "\x89PNG\xff",
			`{"base64":"` + base64.StdEncoding.EncodeToString([]byte("\x89PNG\xff")) + `"}`, true},
		{"bytes under a JSON type", "application/json", "\"\xff\"", `{"base64":"Iv8i"}`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := upstream(t, "h.io", func(w http.ResponseWriter, _ *http.Request) {
				if tt.contentType != "" {
					w.Header().Set("Content-Type", tt.contentType)
				}
				w.WriteHeader(418)
				_, _ = io.WriteString(w, tt.sent)
			})
			resp, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://h.io")})
			require.NoError(t, err, "an upstream's 4xx is an answer")
			assert.Equal(t, 418, resp.Status)
			assert.Equal(t, tt.want, string(resp.Body))
			assert.True(t, json.Valid(resp.Body))
			assert.Equal(t, tt.binary, resp.Headers["x-stack-body-encoding"] == "base64")
		})
	}
}

func TestAnswerHeaders(t *testing.T) {
	t.Parallel()
	f := upstream(t, "h.io", func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range map[string][]string{
			"Link": {"<a>; rel=next", "<b>; rel=last"}, "Retry-After": {"3"}, "X-Bad": {"a\xffb"},
			"Set-Cookie": {"a=b"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}, "Keep-Alive": {"1"}, "Content-Length": {"2"},
			"X-Stack-Body-Encoding": {"base64"}, "Transfer-Encoding": {"identity"},
		} {
			w.Header()[name] = values
		}
		_, _ = io.WriteString(w, "{}")
		w.Header().Set("X-Late", "1")
	})
	resp, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://h.io")})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"link": "<a>; rel=next, <b>; rel=last", "retry-after": "3", "x-bad": "a\uFFFDb",
		"content-type": "text/plain; charset=utf-8"}, resp.Headers)
}

func TestSecretsDoNotComeBack(t *testing.T) {
	t.Parallel()
	const secret = `sk-"a/b+c&<d>=`
	basic := base64.StdEncoding.EncodeToString([]byte("user:pass-word?>"))
	tests := []struct {
		name, contentType, sent, want string
		c                             forward.Credential
	}{
		{"text", "text/plain", "a sk-123456 b sk-123456", `"a [REDACTED] b [REDACTED]"`, forward.Bearer("sk-123456")},
		{"JSON", "application/json", `{"echo": "Bearer sk-123456", "n": 1.0}`,
			`{"echo":"Bearer [REDACTED]","n":1.0}`, forward.Bearer("sk-123456")},
		{"JSON key", "application/json", `[{"sk-123456":1}]`, `[{"[REDACTED]":1}]`, forward.Bearer("sk-123456")},
		{"JSON escapes", "application/json", `{"e":"sk-\u0031234\u00356"}`, `{"e":"[REDACTED]"}`,
			forward.Bearer("sk-123456")},
		{"JSON number", "application/json", `{"n":91234567,"m":5}`, `{"m":5,"n":"9[REDACTED]7"}`, forward.Bearer("123456")},
		{"JSON without it stays as it is", "application/json", `{"b": 1,  "a": "\u00e9"}`,
			`{"b": 1,  "a": "\u00e9"}`, forward.Bearer("sk-123456")},
		{"special characters in JSON", "application/json", `{"e":"` + `sk-\"a\/b+c&\u003cd>=` + `"}`,
			`{"e":"[REDACTED]"}`, forward.Bearer(secret)},
		{"JSON inside text", "text/plain", `x=sk-\"a/b+c\u0026\u003cd\u003e=!`, `"x=[REDACTED]!"`, forward.Bearer(secret)},
		{"JSON inside text, other escapes", "text/plain", `x=sk-\"a/b+c&<d>=!`, `"x=[REDACTED]!"`, forward.Bearer(secret)},
		{"form", "text/plain", url.QueryEscape(secret), `"[REDACTED]"`, forward.Bearer(secret)},
		{"form in lower case", "text/plain", strings.ToLower(url.QueryEscape(secret)), `"[REDACTED]"`,
			forward.Bearer(secret)},
		{"path", "text/plain", url.PathEscape(secret), `"[REDACTED]"`, forward.Bearer(secret)},
		{"basic", "text/plain", basic, `"[REDACTED]"`, forward.Basic("user", "pass-word?>")},
		{"basic without padding", "text/plain", strings.TrimRight(basic, "="), `"[REDACTED]"`, forward.Basic("user",
			"pass-word?>")},
		{"password", "text/plain", "user pass-word?>", `"user [REDACTED]"`, forward.Basic("user", "pass-word?>")},
		{"prefix stays", "text/plain", "Bot sk-123456", `"Bot [REDACTED]"`, forward.Header("Authorization", "Bot ",
			"sk-123456")},
		{"query", "text/plain", "?key=sk-123456", `"?key=[REDACTED]"`, forward.Query("key", "sk-123456")},
		{"bytes", "image/png", "\xffsk-123456",
			`{"base64":"` + base64.StdEncoding.EncodeToString([]byte("\xff[REDACTED]")) + `"}`, forward.Bearer("sk-123456")},
		{"longest first", "text/plain", "abcdef abcdefgh", `"[REDACTED] [REDACTED]"`, custom(t, "abcdef", "abcdefgh")},
		{"short secrets are left", "text/plain", "ab abcde", `"ab abcde"`, forward.Bearer("abcde")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := upstream(t, "h.io", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				w.Header().Set("X-Echo", strings.ToValidUTF8(tt.sent, ""))
				_, _ = io.WriteString(w, tt.sent)
			})
			resp, err := f.Do(t.Context(), forward.Request{Method: "GET", URL: mustURL(t, "https://h.io"), Credential: tt.c})
			require.NoError(t, err)
			assert.Equal(t, tt.want, string(resp.Body))
			if strings.Contains(tt.want, "[REDACTED]") && tt.contentType == "text/plain" {
				assert.Contains(t, resp.Headers["x-echo"], "[REDACTED]")
			}
		})
	}
}

func custom(t *testing.T, secrets ...string) forward.Credential {
	t.Helper()
	fields := map[string]string{}
	for i, secret := range secrets {
		fields["header:X-"+string(rune('A'+i))] = secret
	}
	c, err := forward.Custom(fields)
	require.NoError(t, err)
	return c
}

// FuzzBody holds that a body either is refused or arrives as what DecodeBody says, and that what comes back is JSON without
// the secret.
func FuzzBody(f *testing.F) {
	const secret = "s3cret-\"/é"
	f.Add("application/json", `{"a":[1,{"b":null}]}`)
	f.Add(form, `{"a":["x",1,true,null]}`)
	f.Add("", `"text s3cret-\"\/\u00e9"`)
	f.Add("application/json", `"{\"s3cret-\\\"/é\":1e400}"`)
	f.Add("image/png", `"\u0000\ud800"`)
	f.Fuzz(func(t *testing.T, contentType, body string) {
		headers := map[string]string{"Content-Type": contentType}
		content, err := forward.DecodeBody(headers, json.RawMessage(body))
		if err != nil {
			_ = requireError(t, err, 400, forward.CodeInvalidRequest)
		}
		var got string
		forwarder := upstream(t, "h.io", func(w http.ResponseWriter, r *http.Request) {
			data, readErr := io.ReadAll(r.Body)
			if readErr != nil {
				panic(readErr)
			}
			got = string(data)
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			_, _ = io.WriteString(w, got)
		})
		resp, doErr := forwarder.Do(t.Context(), forward.Request{Method: "POST", URL: &url.URL{Scheme: "https",
			Host: "h.io"},
			Headers: headers, Body: json.RawMessage(body), Credential: forward.Bearer(secret)})
		if (err == nil) != (doErr == nil) {
			t.Fatalf("DecodeBody says %v and Do says %v", err, doErr)
		}
		if err != nil {
			return
		}
		switch content := content.(type) {
		case nil:
			require.Empty(t, got)
		case string:
			require.Equal(t, content, got)
		case url.Values:
			values, err := url.ParseQuery(got)
			require.NoError(t, err)
			require.Equal(t, content, values)
		default:
			require.Equal(t, content, decode(t, got))
		}
		require.True(t, json.Valid(resp.Body) && utf8.Valid(resp.Body), "%q", resp.Body)
		require.NotContains(t, string(resp.Body), secret)
		require.NotContains(t, flat(decode(t, string(resp.Body))), secret)
	})
}

func decode(t *testing.T, text string) (v any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	require.NoError(t, dec.Decode(&v))
	return v
}

// flat joins all strings and keys in a value.
func flat(v any) string {
	var b strings.Builder
	switch v := v.(type) {
	case string:
		return v
	case []any:
		for _, item := range v {
			b.WriteString(flat(item) + "\n")
		}
	case map[string]any:
		for key, item := range v {
			b.WriteString(key + "\n" + flat(item) + "\n")
		}
	}
	return b.String()
}
