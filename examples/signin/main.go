// Command signin is a web application whose users sign in with STACK: each goes through the consent page once, and what the
// application then does for them, it does with their own access token, which is renewed when it expires. It never sees
// their API key.
//
//	go run ./examples/signin                # prints two addresses; open the second in a browser
//
// Everything is embedded, the STACK server is the mock. Its page asks for an API key to know who you are, where the hosted
// service has a dashboard with a session; the key to type is printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func main() {
	address := flag.String("addr", "127.0.0.1:0", "loopback `address` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *address, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "signin:", err)
		os.Exit(1)
	}
}

// run serves the application until the context ends.
func run(ctx context.Context, address string, out io.Writer) error {
	server, err := stacktest.Start()
	if err != nil {
		return err
	}
	defer server.Close()
	stackURL, err := server.URL()
	if err != nil {
		return err
	}
	if _, err = server.Client().Agents.Register(ctx, stack.AgentRegisterParams{Name: "night-shift"}); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	self := "http://" + listener.Addr().String()
	app, err := newApplication(ctx, stackURL, self)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	_, _ = fmt.Fprintf(out, "STACK (mock)     %s, sign in with the key %s\nthe application  %s\n", stackURL, server.APIKey(), self)

	web := &http.Server{Handler: app, ReadHeaderTimeout: 5 * time.Second}
	stopped := context.AfterFunc(ctx, func() { _ = web.Close() })
	defer stopped()
	if err = web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
