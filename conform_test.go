package stack_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/conform"
	"github.com/getstack-go/stack/internal/mockserver"
)

// description is the API's own, which every answer to the client of a stage is held against.
var description = sync.OnceValue(func() *conform.Checker {
	rec := httptest.NewRecorder()
	mockserver.New(mockserver.Options{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	c, err := conform.New(rec.Body.Bytes())
	if err != nil {
		panic(err)
	}
	return c
})

// conforming fails the test for an answer that the description does not foresee.
func conforming(t *testing.T, base http.RoundTripper) stack.Option {
	t.Helper()
	return stack.WithHTTPClient(&http.Client{Transport: conformingTransport{t, base}})
}

type conformingTransport struct {
	t    *testing.T
	base http.RoundTripper
}

func (c conformingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.base.RoundTrip(req)
	if err != nil || resp.Header.Get("Content-Type") != "application/json" {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err}))
	if err == nil && !asked(body) {
		err := description().Answer(req.Method, req.URL, resp.StatusCode, resp.Header.Get("Content-Type"), body)
		assert.NoError(c.t, err)
	}
	return resp, nil
}

// asked says whether the answer is not the API's own: a fault that the test asked for, or that there is no such route.
func asked(body []byte) bool {
	for _, text := range []string{"a fault that the test asked for", `"ROUTE_NOT_FOUND"`, `"METHOD_NOT_ALLOWED"`} {
		if strings.Contains(string(body), text) {
			return true
		}
	}
	return false
}

// failing is the end of a body: its error, or none.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

func TestConformingTransportSeesWhatIsAmiss(t *testing.T) {
	t.Parallel()
	req := httptest.NewRequest(http.MethodGet, "http://stack.mock/v1/agents/agt_1", nil)
	for name, answer := range map[string]struct {
		status int
		kind   string
		body   string
	}{
		"field missing":  {200, "application/json", `{"id":"agt_1"}`},
		"no JSON":        {200, "application/json", `{`},
		"other kind":     {200, "text/html", `<p>`},
		"unknown status": {418, "application/json", `{"error":{"code":"X","message":"y"}}`},
		"unknown code":   {404, "application/json", `{"error":{"code":"X","message":"y"}}`},
	} {
		assert.Error(t, description().Answer(req.Method, req.URL, answer.status, answer.kind, []byte(answer.body)), name)
	}
	good := `{"error":{"code":"NOT_FOUND","message":"agent not found"}}`
	assert.NoError(t, description().Answer(req.Method, req.URL, 404, "application/json", []byte(good)))
	assert.ErrorIs(t, errors.Join(readAll(failing{io.ErrUnexpectedEOF})), io.ErrUnexpectedEOF)
}

func readAll(r io.Reader) error {
	_, err := io.ReadAll(r)
	return err
}
