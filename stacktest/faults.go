package stacktest

import (
	"github.com/getstack-go/stack/internal/mockserver"
)

// Fault makes the next calls that match go wrong, the newest fault that matches first. Path is the pattern of a route, such as
// /v1/passports/{passport_jti}/checkpoint, or upstream:<host> for what the proxy sends there.
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

// Fault puts a fault in force. It panics on one that could never happen, such as for a route that there is not: a test with
// it would prove nothing.
func (s *Server) Fault(f Fault) *FaultHandle {
	id, err := s.mock.AddFault(f)
	if err != nil {
		panic("stacktest: " + err.Error())
	}
	return &FaultHandle{s, id}
}

// Remaining returns how many calls the fault is still to meet.
func (h *FaultHandle) Remaining() int { return h.server.mock.FaultLeft(h.id) }

// Remove takes the fault away.
func (h *FaultHandle) Remove() { h.server.mock.RemoveFault(h.id) }
