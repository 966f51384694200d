package mockserver

import (
	"net"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// Whatever is sent to the approval page, it sends people on only to this machine, with their program's state.
func FuzzApproval(f *testing.F) {
	s := New(Options{})
	op, _ := s.operatorByID(s.first.OperatorID)
	op.agents.put("agt_1", &agent{Agent: stack.Agent{ID: "agt_1"}})
	for _, callback := range []string{"http://127.0.0.1:5/cb", "http://[::1]:5/cb?x=1", "http://localhost/cb", "http://127.0.0.1:5\\@a.example/"} {
		f.Add(url.Values{"agent_id": {"agt_1"}, "callback": {callback}, "state": {"a&b=\r\n"}, "machine": {"m"}, "process": {"p"}}.Encode(), true)
	}
	f.Add("agent_id=agt_1&callback=http://127.0.0.1:5/cb%00&state=1", false)
	f.Fuzz(func(t *testing.T, query string, approve bool) {
		location, err := s.DecideEnrollment(approvalPath+"?"+query, approve)
		if err != nil {
			return
		}
		u, err := url.Parse(location)
		require.NoError(t, err)
		assert.Equal(t, "http", u.Scheme)
		assert.True(t, u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback(), location)
		sent, err := url.ParseQuery(query)
		require.NoError(t, err)
		given := u.Query()
		assert.Contains(t, given["state"], sent.Get("state"))
		good := slices.ContainsFunc(given["ticket"], func(text string) bool {
			_, ok := s.keys.ticket(text, s.clock.now())
			return ok
		})
		assert.Equal(t, approve, good, location)
	})
}
