package mockserver

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/pipenet"
)

// A caller who sends a body a byte at a time is answered after a minute; one who is only slow to be answered is waited for.
func TestSlowCallers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pause  time.Duration // between two bytes
		status int
		took   time.Duration
	}{
		"a byte every ten seconds": {10 * time.Second, http.StatusBadRequest, time.Minute},
		"nothing at all":           {time.Hour, http.StatusBadRequest, time.Minute},
		"slow, but in time":        {time.Second, http.StatusOK, 14 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, pipe := New(Options{}), pipenet.Listen()
				server := &http.Server{Handler: s}
				go func() { _ = server.Serve(pipe) }()
				conn, err := pipe.DialContext(t.Context(), "", "")
				require.NoError(t, err)
				body := `{"name":"bot"}`
				_, err = fmt.Fprintf(conn, "POST /v1/agents/register HTTP/1.1\r\nHost: mock.test\r\nAuthorization: Bearer %s\r\n"+
					"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", s.first.APIKey, len(body))
				require.NoError(t, err)
				began, sent := time.Now(), make(chan struct{})
				go func() {
					defer close(sent)
					for i := range len(body) {
						time.Sleep(tt.pause)
						if _, failed := io.WriteString(conn, body[i:i+1]); failed != nil {
							return
						}
					}
				}()
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				require.NoError(t, err)
				answer, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, tt.status, resp.StatusCode, string(answer))
				assert.Equal(t, tt.took, time.Since(began))
				assert.Equal(t, tt.status != http.StatusOK, strings.Contains(string(answer), "whole within a minute"))
				require.NoError(t, conn.Close())
				<-sent
				require.NoError(t, server.Close())
				s.Close()
			})
		})
	}
}

// The clock that bounds the body does not go on while the handler works.
func TestTheBodysBoundEndsWithIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, pipe := New(Options{}), pipenet.Listen()
		_, err := s.AddFault(Fault{Method: "POST", Path: "/v1/agents/register", Times: 1, Delay: 5 * time.Minute})
		require.NoError(t, err)
		server := &http.Server{Handler: s}
		go func() { _ = server.Serve(pipe) }()
		transport := &http.Transport{DialContext: pipe.DialContext}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://mock.test/v1/agents/register",
			strings.NewReader(`{"name":"bot"}`))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+s.first.APIKey)
		req.Header.Set("Content-Type", "application/json")
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		transport.CloseIdleConnections()
		require.NoError(t, server.Close())
		s.Close()
	})
}

// Each way of sending too much is refused by a bound that is told.
func TestOversizedRequests(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	for name, tt := range map[string]struct {
		method, target, body string
		status               int
	}{
		"body":            {"POST", "/v1/agents/register", `{"name":"` + strings.Repeat("a", 1<<20) + `"}`, 413},
		"proxied body":    {"POST", "/v1/proxy", `{"body":"` + strings.Repeat("a", 10<<20) + `"}`, 413},
		"depth":           {"POST", "/v1/dropoffs", `{"from_agent":"a","to_agent":"b","schema":` + deep + `}`, 400},
		"proxied depth":   {"POST", "/v1/proxy", `{"service":"a","method":"POST","url":"https://a.io","body":` + deep + `}`, 400},
		"number":          {"POST", "/v1/agents/register", `{"name":"bot","config":` + strings.Repeat("9", 1000) + `}`, 400},
		"path":            {"GET", "/v1/agents/" + strings.Repeat("a", 100_000), "", 404},
		"query":           {"GET", "/v1/audit?agent_id=" + strings.Repeat("a", 100_000), "", 200},
		"query, repeated": {"GET", "/v1/audit?" + strings.Repeat("limit=1&", 10_000), "", 400},
		"query, unknown":  {"GET", "/v1/audit?" + strings.Repeat("a=1&", 10_000), "", 400},
	} {
		rec, _ := ask(t, s, tt.method, tt.target, tt.body)
		assert.Equal(t, tt.status, rec.Code, "%s: %.200s", name, rec.Body)
		assert.Less(t, rec.Body.Len(), 2000, name)
	}
}
