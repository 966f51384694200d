package stacktest

import "github.com/getstack-go/stack/internal/mockserver"

// InboundDelivery is a message that came in through an inbound webhook with a good signature.
type InboundDelivery = mockserver.InboundDelivery

// InboundStatus is what became of an [InboundDelivery].
type InboundStatus = mockserver.InboundStatus

// Inbound statuses.
const (
	InboundReceived  = mockserver.InboundReceived  // checked, and kept back since there is no forward_url
	InboundPending   = mockserver.InboundPending   // being scanned or forwarded
	InboundForwarded = mockserver.InboundForwarded // the receiver answered with a 2xx
	InboundBlocked   = mockserver.InboundBlocked   // prompt injection: not forwarded
	InboundFailed    = mockserver.InboundFailed    // the receiver did not take it: the provider may send it again
)

// InboundDeliveries returns what came in through the first operator's inbound webhooks with a good signature, oldest first and
// at most the newest 1000. What was forwarded is to be seen at the [Server.Upstream] that stands for the receiver.
func (s *Server) InboundDeliveries() []InboundDelivery { return s.mock.InboundDeliveries() }
