package stacktest

import (
	"github.com/getstack-go/stack/internal/mockserver"
)

// Fault makes the next calls that match go wrong. Path is a route pattern such as /v1/proxy, or upstream:<host> for what
// the proxy sends there; an empty Method matches all; Times 0 is once. Delay comes first; then Status and Code answer
// instead of the server, or Close drops the connection before the call is handled, or after it, or TruncateBytes cuts the
// answer short. The newest fault that matches wins.
type Fault = mockserver.Fault

// CloseAt says when a [Fault] drops the connection.
type CloseAt = mockserver.CloseAt

// Moments to drop the connection.
const (
	CloseBefore = mockserver.CloseBefore // the call is not handled
	CloseAfter  = mockserver.CloseAfter  // the call is handled and its answer lost
)

// FaultHandle is a fault in force.
type FaultHandle struct {
	server *Server
	id     string
}

// Fault puts a fault in force.
func (s *Server) Fault(f Fault) *FaultHandle { return &FaultHandle{s, s.mock.AddFault(f)} }

// Remaining returns how many calls the fault is still to meet.
func (h *FaultHandle) Remaining() int { return h.server.mock.FaultLeft(h.id) }

// Remove takes the fault away.
func (h *FaultHandle) Remove() { h.server.mock.RemoveFault(h.id) }
