package pipenet_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/getstack-go/stack/internal/pipenet"
)

// BenchmarkHTTP is a GET over a connection that is kept alive.
func BenchmarkHTTP(b *testing.B) {
	l := pipenet.Listen()
	stop := serve(b, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"ok":true}`)
	}))
	client := newClient(l)
	b.ReportAllocs()
	for b.Loop() {
		get(b, client, "http://mock/")
	}
	client.CloseIdleConnections()
	stop()
}
