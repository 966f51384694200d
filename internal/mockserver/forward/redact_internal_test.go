package forward

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const hidden = `sk-"é\a/b+c&<d> %=😀?~'Z9`

// everyByte writes each byte in some way.
func everyByte(text, format string) string {
	var b strings.Builder
	for i := range len(text) {
		fmt.Fprintf(&b, format, text[i])
	}
	return b.String()
}

// everyRune writes each character in some way.
func everyRune(text, format string) string {
	var b strings.Builder
	for _, r := range text {
		fmt.Fprintf(&b, format, r)
	}
	return b.String()
}

func utf16JSON(text string) string {
	quoted := everyRune(text, "%c")
	var b strings.Builder
	for _, r := range quoted {
		if r >= 0x10000 {
			fmt.Fprintf(&b, `\u%04x\u%04X`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
			continue
		}
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

func inJSON(text string) string {
	quoted := encodeJSON(text)
	return string(quoted[1 : len(quoted)-1])
}

func escapedInJSON(text string) string {
	data, err := json.Marshal(text) // with <, > and & escaped
	if err != nil {
		panic(err)
	}
	return strings.ReplaceAll(string(data[1:len(data)-1]), "/", `\/`)
}

func wrapped(text, end string) string {
	var b strings.Builder
	for i := range len(text) {
		if i%7 == 6 {
			b.WriteString(end)
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// encodings are the ways in which an echo is recognised.
var encodings = map[string]func(string) string{
	"plain":             func(s string) string { return s },
	"query":             url.QueryEscape,
	"query, lower":      func(s string) string { return lowerEscapes(url.QueryEscape(s)) },
	"path":              url.PathEscape,
	"every byte of URL": func(s string) string { return everyByte(s, "%%%02x") },
	"query twice":       func(s string) string { return url.QueryEscape(url.QueryEscape(s)) },
	"JSON":              inJSON,
	"JSON for HTML":     escapedInJSON,
	"JSON, all by \\u":  utf16JSON,
	"JSON in JSON":      func(s string) string { return inJSON(inJSON(s)) },
	"JSON, thrice":      func(s string) string { return inJSON(inJSON(escapedInJSON(s))) },
	"HTML":              html.EscapeString,
	"HTML, decimal":     func(s string) string { return everyRune(s, "&#%d;") },
	"HTML, hexadecimal": func(s string) string { return everyRune(s, "&#x%x;") },
	"HTML in JSON":      func(s string) string { return escapedInJSON(html.EscapeString(s)) },
	"URL in HTML":       func(s string) string { return html.EscapeString(url.PathEscape(s)) },
	"JSON in URL":       func(s string) string { return url.QueryEscape(escapedInJSON(s)) },
	"Go or Python":      func(s string) string { return everyByte(s, `\x%02x`) },
	"quoted-printable":  func(s string) string { return wrapped(everyByte(s, "=%02X"), "=\r\n") },
	"hexadecimal":       func(s string) string { return hex.EncodeToString([]byte(s)) },
	"HEXADECIMAL":       func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"hex with spaces":   func(s string) string { return everyByte(s, "%02x ") },
	"hex with colons":   func(s string) string { return everyByte(s, "%02X:") },
	"base64":            func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64, bare":      func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) },
	"base64url":         func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
	"base64url, bare":   func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
	"base64, 1 before":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte("x" + s + "yz")) },
	"base64, 2 before":  func(s string) string { return base64.URLEncoding.EncodeToString([]byte("xy" + s + "z")) },
	"base64 of a header": func(s string) string {
		return base64.StdEncoding.EncodeToString([]byte("Authorization: Bearer " + s + "\r\n"))
	},
	"base64 in lines": func(s string) string { return wrapped(base64.StdEncoding.EncodeToString([]byte("x"+s)), "\r\n") },
	"base64 in lines in JSON": func(s string) string {
		return inJSON(wrapped(base64.StdEncoding.EncodeToString([]byte("xy"+s)), "\n"))
	},
	"base64 in a URL": func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(s))) },
	"base64 of JSON":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte(`{"t":"` + inJSON(s) + `"}`)) },
	"base64 of a URL": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(`x?t=` + url.QueryEscape(s))) },
}

// lowerEscapes writes the hexadecimal digits of percent-encodings in lower case.
func lowerEscapes(s string) string {
	out := []byte(s)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i+1:i+3], strings.ToLower(s[i+1:i+3]))
		}
	}
	return string(out)
}

func TestEchoesInEveryEncoding(t *testing.T) {
	t.Parallel()
	for name, encode := range encodings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, secret := range []string{hidden, "sk-0123456789abcdef", "s3cret", "aaaaaa", `\\\\\\\\`, "%2F%2f%2", "pass word+1", "tail==", "ééé"} {
				r := Bearer(secret).redactor()
				for _, around := range [][2]string{{"", ""}, {"before ", " after"}, {"(", ")"}, {"\n", "\n"}} {
					echo := encode(secret)
					clean := r.text(around[0] + echo + around[1])
					require.NotContains(t, clean, echo)
					require.Contains(t, clean, redacted, echo)
					if !strings.Contains(name, "base64") && secret != `\\\\\\\\` { // there the secret is only a part of the echo
						require.Equal(t, around[0]+redacted+around[1], strings.TrimRight(strings.TrimSuffix(clean, around[1]), " :=")+around[1], echo)
					}
					for _, decoder := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
						for _, part := range strings.Split(clean, redacted) {
							decoded, _ := decoder.DecodeString(strings.TrimSpace(part))
							require.NotContains(t, string(decoded), secret)
						}
					}
				}
			}
		})
	}
}

// Where nothing is hidden nothing is lost, however much it looks like it.
func TestNothingElseIsRedacted(t *testing.T) {
	t.Parallel()
	r := Bearer("sk-0123456789").And(Basic("user", "pass-word")).redactor()
	for _, text := range []string{
		"", "sk-012345678", "k-0123456789", "SK-0123456789", "sk 0123456789", "sk-0123\n456789", `sk-\n0123456789`, "&#115;k-012345678", `\`, `\u`,
		`\u00`, "%", "%7", "&", "&#", "&#x;", "=", "=\n", "++++", "\\\\\\\\\\\\", "user", base64.StdEncoding.EncodeToString([]byte("user:pass-wor")),
		hex.EncodeToString([]byte("sk-012345678")), "%25%25%25&amp;&amp;amp;\\u0026", "sk-\xff0123456789", strings.Repeat("sk-", 1000),
	} {
		assert.Equal(t, text, r.text(text))
	}
	assert.Nil(t, Bearer("short").redactor())
	assert.Nil(t, Credential{}.redactor())
}

// What is not recognised, so that nobody believes otherwise.
func TestEchoesThatAreNotRecognised(t *testing.T) {
	t.Parallel()
	const secret = "sk-0123456789"
	r := Bearer(secret).redactor()
	once := base64.StdEncoding.EncodeToString([]byte("x" + secret))
	for name, echo := range map[string]string{
		"reversed": "9876543210-ks", "in two parts": "sk-0123 456789", "in another case": "SK-0123456789",
		"base64 twice": base64.StdEncoding.EncodeToString([]byte("x" + once)), "as numbers": everyByte(secret, "%d,"),
		"rot13": "fx-0123456789", "UTF-16": everyRune(secret, "%c\x00"),
	} {
		assert.Equal(t, echo, r.text(echo), name)
	}
}

func TestHeaderNamesAndPackedAnswers(t *testing.T) {
	t.Parallel()
	const secret = "sk-ABC-0123456789"
	packed := func(kind string, text string) []byte {
		var b bytes.Buffer
		var w io.WriteCloser = gzip.NewWriter(&b)
		if kind == "deflate" {
			w = zlib.NewWriter(&b)
		}
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	for _, kind := range []string{"gzip", "x-gzip", "deflate", "GZIP"} {
		for _, flush := range []bool{false, true} {
			f := New(Options{})
			require.NoError(t, f.Map("h.io", Target{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Content-Encoding", kind)
				w.Header().Set("X-"+secret, "1")
				w.Header().Set("Trailer", "X-Late")
				for _, b := range packed(kind, `{"token":"`+r.Header.Get("Authorization")+`"}`) {
					_, _ = w.Write([]byte{b})
					if flush {
						_ = http.NewResponseController(w).Flush()
					}
				}
				w.Header().Set("X-Late", secret)
			})}))
			target, err := ParseURL("https://h.io/x")
			require.NoError(t, err)
			resp, err := f.Do(t.Context(), Request{Method: "GET", URL: target, Credential: Bearer(secret)})
			require.NoError(t, err)
			assert.JSONEq(t, `{"token":"Bearer [REDACTED]"}`, string(resp.Body))
			assert.Equal(t, map[string]string{"content-type": "application/json", "x-[REDACTED]": "1"}, resp.Headers)
		}
	}
	for name, body := range map[string][]byte{"no gzip": []byte("plain"), "cut": packed("gzip", strings.Repeat("x", 100))[:20], "head only": packed("gzip", "x")[:3]} {
		f := New(Options{})
		require.NoError(t, f.Map("h.io", Target{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(body)
		})}))
		target, err := ParseURL("https://h.io/x")
		require.NoError(t, err)
		_, err = f.Do(t.Context(), Request{Method: "GET", URL: target})
		var failure *Error
		require.ErrorAs(t, err, &failure, name)
		assert.Equal(t, CodeUnreachable, failure.Code)
	}
}

// FuzzRedact holds that a text keeps, byte for byte, all that is not a secret, and that a secret does not stay in it,
// whatever is around it.
func FuzzRedact(f *testing.F) {
	for name := range encodings {
		f.Add("before ", name, " after")
	}
	f.Add(`{"a":"\`, "JSON", `n"}`)
	f.Add(`%25`, "query", `%`)
	f.Add(`&amp`, "HTML", `;;`)
	const secret = "sk-0123+456/789"
	r := Bearer(secret).redactor()
	f.Fuzz(func(t *testing.T, before, name, after string) {
		plain := before + after
		clean := r.text(plain)
		rest := plain
		for i, part := range strings.Split(clean, redacted) {
			at := strings.Index(rest, part)
			require.GreaterOrEqual(t, at, 0, "%q became %q", plain, clean)
			require.True(t, i > 0 || at == 0)
			rest = rest[at+len(part):]
		}
		if !strings.ContainsAny(plain, `\%&=+`) && !strings.Contains(plain, secret) && len(plain) < 6*4/3 {
			require.Equal(t, plain, clean)
		}
		encode, ok := encodings[name]
		if !ok {
			return
		}
		echo := encode(secret)
		require.NotContains(t, r.text(before+echo+after), echo)
	})
}

func BenchmarkRedact(b *testing.B) {
	for name, text := range map[string]string{
		"prose": strings.Repeat("Thanks for the quick turnaround on ticket 48213; the rollback is done. ", 1000),
		"HTML":  strings.Repeat(`<a href="/x?a=1&amp;b=%20c">a &lt; b</a> `, 1000),
		"JSON":  strings.Repeat(`{\"text\":\"a\\nb\"},`, 1000),
		"worst": strings.Repeat(`\`, 70_000),
	} {
		b.Run(name, func(b *testing.B) {
			r := Basic("user", "sk-0123456789").redactor()
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if r.text(text) != text {
					b.Fatal("changed")
				}
			}
		})
	}
	b.Run("made", func(b *testing.B) {
		c := Bearer("xoxb-0123456789-0123456789")
		b.ReportAllocs()
		for b.Loop() {
			c.redactor()
		}
	})
}
