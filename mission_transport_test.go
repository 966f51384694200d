package stack_test

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// viaTransport opens a Mission over a Slack of one's own and returns its HTTP client.
func viaTransport(t *testing.T, slack http.HandlerFunc) (*stage, *stack.Mission, *http.Client) {
	t.Helper()
	s := newStage(t, stack.Logged)
	if slack != nil {
		s.Upstream("slack.com", slack)
	}
	m := s.open(t)
	t.Cleanup(func() { m.Close(nil) })
	return s, m, m.HTTPClient("slack")
}

// trackedBody tells whether it was closed.
type trackedBody struct {
	io.Reader
	closed bool
}

func (b *trackedBody) Close() error { b.closed = true; return nil }

// answered is a response that was read and closed.
type answered struct {
	status int
	header http.Header
	length int64
	url    string
	body   string
}

func roundTrip(t *testing.T, c *http.Client, method, target, contentType, body string) answered {
	t.Helper()
	tracked := &trackedBody{Reader: strings.NewReader(body)}
	req, err := http.NewRequestWithContext(t.Context(), method, target, tracked)
	require.NoError(t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Authorization", "Bearer of-the-client")
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // it is in memory
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.True(t, tracked.closed)
	assert.Equal(t, "Bearer of-the-client", req.Header.Get("Authorization"), "the caller's request is not changed")
	return answered{resp.StatusCode, resp.Header, resp.ContentLength, resp.Request.URL.String(), string(data)}
}

func TestTransportBodies(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ contentType, body, arrives string }{
		"JSON":            {"application/json; charset=utf-8", `{"id":12345678901234567890,"a":"<b>"}`, `{"id":12345678901234567890,"a":"<b>"}`},
		"JSON dialect":    {"application/vnd.api+json", `{"a":1}`, `{"a":1}`},
		"form":            {"application/x-www-form-urlencoded", "text=a+b&channel=%23c", "channel=%23c&text=a+b"},
		"slack-go's form": {"application/x-www-form-urlencoded", "channel=C1&token=", "channel=C1"},
		"text":            {"text/plain", "plain words", "plain words"},
		"not quite JSON":  {"application/json", "{oops", "{oops"},
		"empty":           {"application/json", "", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, c := viaTransport(t, nil)
			roundTrip(t, c, "POST", "https://slack.com/api/x", tc.contentType, tc.body)
			sent := s.Forwarded("slack.com")[0]
			got := string(sent.Body)
			if form, err := url.ParseQuery(got); err == nil && strings.HasPrefix(tc.contentType, "application/x-www-form") {
				got = form.Encode()
			}
			assert.Equal(t, tc.arrives, got)
			assert.NotContains(t, sent.Header.Get("Authorization"), "of-the-client")
		})
	}
}

func TestTransportAnswers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		contentType string
		body        []byte
		status      int
	}{
		"JSON":     {"application/json", []byte(`{"id":12345678901234567890}`), 200},
		"text":     {"text/plain", []byte(`"quoted" words`), 200},
		"binary":   {"image/png", []byte{0x89, 'P', 'N', 'G', 0xff}, 200},
		"error":    {"application/json", []byte(`{"ok":false}`), 429},
		"no body":  {"", nil, 204},
		"a number": {"text/plain", []byte(`17`), 200},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, c := viaTransport(t, func(w http.ResponseWriter, _ *http.Request) {
				if tc.contentType != "" {
					w.Header().Set("Content-Type", tc.contentType)
				}
				w.Header().Set("Link", `<https://slack.com/api/x?page=2>; rel="next"`)
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(tc.status)
				_, _ = w.Write(tc.body)
			})
			resp := roundTrip(t, c, "GET", "https://slack.com/api/x", "", "")
			assert.Equal(t, tc.status, resp.status)
			assert.Equal(t, string(tc.body), resp.body)
			assert.EqualValues(t, len(tc.body), resp.length)
			assert.Equal(t, "7", resp.header.Get("Retry-After"))
			assert.Contains(t, resp.header.Get("Link"), "page=2")
			assert.Empty(t, resp.header.Get("X-Stack-Body-Encoding"))
			assert.Equal(t, "https://slack.com/api/x", resp.url)
		})
	}
}

func TestTransportRefusesBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	s, _, c := viaTransport(t, nil)
	before := s.Requests()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	require.NoError(t, w.Close())
	for name, req := range map[string]struct{ method, contentType, body string }{
		"HEAD":      {"HEAD", "", ""},
		"OPTIONS":   {"OPTIONS", "", ""},
		"multipart": {"POST", w.FormDataContentType(), form.String()},
		"binary":    {"POST", "application/octet-stream", "\xff\xfe"},
		"too large": {"POST", "text/plain", strings.Repeat("x", 9<<20+1)},
	} {
		tracked := &trackedBody{Reader: strings.NewReader(req.body)}
		r, err := http.NewRequestWithContext(t.Context(), req.method, "https://slack.com/api/x", tracked)
		require.NoError(t, err)
		r.Header.Set("Content-Type", req.contentType)
		resp, err := c.Do(r)
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
		var param *stack.ParamError
		require.ErrorAs(t, err, &param, name)
		assert.True(t, tracked.closed, name)
	}
	assert.Equal(t, before, s.Requests())
}

// A retrying client above repeats the same operation.
func TestTransportTakesTheOperationID(t *testing.T) {
	t.Parallel()
	s, _, c := viaTransport(t, nil)
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "https://slack.com/api/x", strings.NewReader("same"))
		require.NoError(t, err)
		req.Header.Set("X-STACK-Authority-Request-Id", operationID)
		resp, err := c.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	sent := s.Forwarded("slack.com")
	require.Len(t, sent, 1)
	assert.Empty(t, sent[0].Header.Get("X-STACK-Authority-Request-Id"))
}

func TestTransportFailsWithTheAPIsErrors(t *testing.T) {
	t.Parallel()
	s, m, c := viaTransport(t, nil)
	_, err := s.client.Passports.Revoke(t.Context(), m.JTI(), "enough")
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://slack.com/api/x", nil)
	require.NoError(t, err)
	resp, err := c.Do(req)
	if err == nil {
		require.NoError(t, resp.Body.Close())
	}
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	var apiErr *stack.Error
	require.True(t, errors.As(err, &apiErr))
	assert.Error(t, m.Context().Err(), "and the Mission's context has ended")
}
