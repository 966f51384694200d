// Package pipenet is a network in memory: a listener, and a dialer that reaches it. It needs no port, and whoever waits in
// it waits on channels and timers, so it works inside a testing/synctest bubble.
//
// Its connections are those of [net.Pipe]: a write waits until the other end has read it, Close of one end gives [io.EOF]
// to the other's reader and [io.ErrClosedPipe] to its writer, and deadlines work. Connections with a buffer of their own
// were measured: they save less than a fifth of a small HTTP request's 20 µs, which is not worth 150 lines.
package pipenet

import (
	"context"
	"net"
	"sync"
)

// Listener is both ends of one in-memory network: a server accepts from it what a client dials with DialContext. It is a
// [net.Listener] and is safe for concurrent use.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Listen returns a new, open listener.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept waits for the next connection that is dialled. It fails with [net.ErrClosed] once the listener is closed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// DialContext connects to the listener, whatever network and address say, and waits until the connection is accepted. It
// fails with [net.ErrClosed] once the listener is closed, and with the context's error when that is done first. Its
// signature is that of the field of the same name in http.Transport.
func (l *Listener) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends Accept and DialContext, the calls that wait and those to come. Connections stay open. It never fails and may
// be called again.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr returns an address that says "pipe".
func (l *Listener) Addr() net.Addr { return addr{} }

type addr struct{}

func (addr) Network() string { return "pipe" }
func (addr) String() string  { return "pipe" }
