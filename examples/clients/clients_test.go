package clients_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// credential is what the service is connected with. The clients never have it.
const credential = "canary-credential-of-the-service"

// bench is a Mission with one service, which a handler stands for.
type bench struct {
	*stacktest.Server
	client  *stack.Client
	mission *stack.Mission
	host    string
}

// newBench starts one. Every request to the service must carry the credential, which the proxy puts in.
func newBench(t *testing.T, service, host string, handler http.Handler, constraints ...stack.Constraint) *bench {
	t.Helper()
	srv := stacktest.New(t)
	srv.Upstream(host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+credential {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	agent := srv.Agent(t, stacktest.AgentConfig{Services: []string{service}, Credential: credential, Constraints: constraints})
	b := &bench{Server: srv, client: srv.Client(), host: host}
	var err error
	b.mission, err = b.client.Passports.Mission(t.Context(), stack.MissionParams{AgentID: agent.ID, Intent: "Use " + service,
		Services: []string{service}})
	require.NoError(t, err)
	t.Cleanup(func() { b.mission.Close(nil) })
	return b
}

// arrived returns what the service received.
func (b *bench) arrived() []stacktest.ForwardedRequest { return b.Forwarded(b.host) }

// answer is a handler that always answers the same.
func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}
