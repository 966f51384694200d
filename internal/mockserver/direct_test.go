package mockserver

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// direct is a transport that hands each request to the server itself.
type direct struct{ server *Server }

func (d direct) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil { // a server always has one
		req = req.Clone(req.Context())
		req.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	d.server.ServeHTTP(rec, req)
	return rec.Result(), nil
}

// newDirect makes a server, its first operator and a client of it, for tests that must look inside.
func newDirect(t *testing.T) (*Server, *operator, *stack.Client) {
	t.Helper()
	s := New(Options{})
	client, err := stack.New(stack.WithAPIKey(s.Credentials().APIKey), stack.WithBaseURL("http://mock.test"),
		stack.WithHTTPClient(&http.Client{Transport: direct{s}}))
	require.NoError(t, err)
	op, ok := s.operatorByID(s.Credentials().OperatorID)
	require.True(t, ok)
	return s, op, client
}
