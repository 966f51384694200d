package stacktest

import "github.com/getstack-go/stack/internal/mockserver"

// OperatorEmail is the registered address of the server's operator. A destination of that address is verified at once.
const OperatorEmail = mockserver.OperatorEmail

// Delivery is a notification for a webhook, with what became of it.
type Delivery = mockserver.Delivery

// DeliveryAttempt is one request to a webhook.
type DeliveryAttempt = mockserver.DeliveryAttempt

// DeliveryStatus is how far a [Delivery] has come.
type DeliveryStatus = mockserver.DeliveryStatus

// Delivery statuses.
const (
	DeliveryWaiting   = mockserver.DeliveryWaiting   // for its first or its next attempt
	DeliveryDelivered = mockserver.DeliveryDelivered // the webhook answered with a 2xx
	DeliveryDead      = mockserver.DeliveryDead      // given up: a dead letter
)

// Message is an email or an SMS that the server would have sent. It goes nowhere.
type Message = mockserver.Message

// VerificationCode returns the code that a destination waits for; empty where it waits for none.
func (s *Server) VerificationCode(destinationID string) string {
	return s.mock.VerificationCode(destinationID)
}

// Outbox returns the emails and SMS that notifications and verifications have become, oldest first and at most 1000.
func (s *Server) Outbox() []Message { return s.mock.Outbox() }

// Deliveries returns the notifications for webhooks, oldest first, once those that are due were tried; it waits for the
// answers of their receivers. [Server.Upstream] gives a webhook's host a receiver. A delivery that fails is tried again after
// 10 s, 40 s, 2 min 40 s, 10 min 40 s and 42 min 40 s; then it is a dead letter. The last 1000 that were delivered and the
// last 1000 dead letters are remembered.
func (s *Server) Deliveries() []Delivery { return s.mock.Deliveries() }

// DeadLetters returns those of [Server.Deliveries] that were given up.
func (s *Server) DeadLetters() (dead []Delivery) {
	for _, d := range s.Deliveries() {
		if d.Status == DeliveryDead {
			dead = append(dead, d)
		}
	}
	return dead
}
