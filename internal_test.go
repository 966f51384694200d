package stack

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// answers is a transport that gives a status (from 200) or an error for each attempt; 0 waits for the end of the context.
type answers []any

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	next := (*a)[0]
	if len(*a) > 1 {
		*a = (*a)[1:]
	}
	switch v := next.(type) {
	case error:
		return nil, v
	case int:
		if v != 0 {
			return &http.Response{StatusCode: v, Body: io.NopCloser(strings.NewReader(`{}`))}, nil
		}
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A call is unsent only when none of its attempts can have acted: what the last one met says nothing of those before.
func TestUnsent(t *testing.T) {
	t.Parallel()
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	read := &net.OpError{Op: "read", Err: errors.New("connection reset")}
	tests := map[string]struct {
		attempts answers
		keyed    bool
		ends     time.Duration // when its context does
		unsent   bool
	}{
		"dial":                    {answers{dial}, false, time.Hour, true},
		"dial, keyed":             {answers{dial}, true, time.Hour, true},
		"refused, then dial":      {answers{429, dial}, false, time.Hour, true},
		"reset":                   {answers{read}, false, time.Hour, false},
		"dial, then reset":        {answers{dial, read}, false, time.Hour, false},
		"reset, then dial":        {answers{read, dial}, true, time.Hour, false},
		"503, then dial":          {answers{503, dial}, true, time.Hour, false},
		"context ends on the way": {answers{0}, false, time.Hour, false},
		"dial, then on the way":   {answers{dial, 0}, false, time.Hour, false},
		"context ends in a wait":  {answers{dial}, false, time.Microsecond, true},
		"broken by the transport": {answers{&url.Error{Op: "Get", URL: "x", Err: io.EOF}}, false, time.Hour, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, err := New(WithAPIKey("k"), WithHTTPClient(&http.Client{Transport: &tc.attempts}))
				require.NoError(t, err)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(tc.ends, cancel)
				cl := post("/v1/x")
				cl.keyed = tc.keyed
				_, err = c.transport.do(ctx, cl)
				require.Error(t, err)
				var unsent *unsentError
				assert.Equal(t, tc.unsent, errors.As(err, &unsent), "%v", err)
				assert.Equal(t, !tc.unsent, ambiguous(err), "so the proxy knows whether to ask")
			})
		})
	}
}

func TestStripURL(t *testing.T) {
	t.Parallel()
	inner := &url.Error{Op: "Post", URL: "https://x/?key=hunter2", Err: io.ErrUnexpectedEOF}
	assert.Equal(t, io.ErrUnexpectedEOF, stripURL(&url.Error{Op: "Get", URL: "https://x/?key=hunter2", Err: inner}))
	assert.Equal(t, io.EOF, stripURL(io.EOF))
}

func TestRetryBudgetIsBounded(t *testing.T) {
	t.Parallel()
	b := newRetryBudget()
	b.refund()
	taken := 0
	for b.take() {
		taken++
	}
	assert.Equal(t, budgetSize/retryCost, taken, "a full budget stays as it is")
}

func FuzzParseError(f *testing.F) {
	for _, body := range []string{`{"error":{"code":"C","message":"Mission ms_1 is revoked","details":{"a":[1]}}}`,
		`{"error":"x","y":1}`, `{"error":{"code":"\n","message":"\u001b[0m\u202e"}}`, "<html>\xff", "", "null"} {
		f.Add(403, body)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		e := parseError(status, http.Header{"X-Request-Id": {body}}, []byte(body))
		e.Method, e.Route = http.MethodGet, "/v1/x"
		assert.Equal(t, status, e.Status)
		assert.NotEmpty(t, e.Code)
		assert.NotEmpty(t, e.Message)
		assert.NotNil(t, e.Details)
		err := asMissionEnded(e)
		require.ErrorIs(t, err, e)
		for _, text := range []string{e.Error(), err.Error()} {
			assert.True(t, utf8.ValidString(text))
			assert.False(t, strings.ContainsFunc(text, unicode.IsControl), "%q", text)
			assert.Less(t, len(text), 3*(maxMessageText+4*maxNameText))
		}
	})
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "-1", "+1", "1.5", "99999999999999999999", "Wed, 21 Oct 2099 07:28:00 GMT",
		"Wednesday, 21-Oct-99 07:28:00 GMT", "Wed Oct 21 07:28:00 2099", "Mon, 01 Jan 9999 00:00:00 GMT", "\x00"} {
		f.Add(s)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		got := parseRetryAfter(value, now)
		assert.GreaterOrEqual(t, got, time.Duration(0))
		if digits := strings.TrimLeft(value, "0"); digits != "" && strings.Trim(digits, "0123456789") == "" {
			assert.GreaterOrEqual(t, got, time.Second, "seconds are never lost, however many")
		}
		if at, err := http.ParseTime(value); err == nil && at.After(now) && at.Sub(now) < math.MaxInt64 {
			assert.Equal(t, at, now.Add(got).In(at.Location()))
		}
	})
}

func FuzzOneLine(f *testing.F) {
	f.Add("a\nb\x1b[0m\u202e", 3)
	f.Add("\xff\xfe", 1)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = min(max(limit, 0), 1000)
		got := oneLine(text, limit)
		assert.LessOrEqual(t, len(strings.TrimSuffix(got, "…")), 3*limit, "at most three bytes for a broken one")
		assert.Equal(t, got, oneLine(got, len(got)), "once is enough")
	})
}

// Whatever the id, it arrives as one segment of the path, and as it was given.
func FuzzIDsInPaths(f *testing.F) {
	for _, id := range []string{"agt_1", "a/b", "../x", "%2e%2e", "a?b#c", "é", "\xff", "a\\b", " "} {
		f.Add(id)
	}
	base := &url.URL{Scheme: "https", Host: "api.example", Path: "/pre fix", RawPath: "/pre%20fix"}
	f.Fuzz(func(t *testing.T, id string) {
		u, err := get("/v1/agents/{agent_id}/unblock", id).url(base)
		if id == "" || id == "." || id == ".." {
			var param *ParamError
			require.ErrorAs(t, err, &param)
			return
		}
		require.NoError(t, err)
		parsed, err := url.Parse(u.String())
		require.NoError(t, err)
		assert.Equal(t, "api.example", parsed.Host)
		assert.Empty(t, parsed.RawQuery+parsed.Fragment)
		segments := strings.Split(parsed.EscapedPath(), "/")
		require.Len(t, segments, 6)
		plain, err := url.PathUnescape(segments[4])
		require.NoError(t, err)
		assert.Equal(t, id, plain)
	})
}
