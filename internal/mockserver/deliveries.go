package mockserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/notify"
)

// Bounds of an operator's notifications.
const (
	maxWaiting  = 1000 // deliveries that were not made yet; more become dead letters at once
	maxFinished = 1000 // deliveries that were made, dead letters, and messages that are remembered, each
	maxSenders  = 8    // attempts at a time
)

// DeliveryStatus is how far a [Delivery] has come.
type DeliveryStatus string

// Delivery statuses.
const (
	DeliveryWaiting   DeliveryStatus = "waiting"   // for its first or its next attempt
	DeliveryDelivered DeliveryStatus = "delivered" // the webhook answered with a 2xx
	DeliveryDead      DeliveryStatus = "dead"      // given up: a dead letter
)

// Delivery is a notification for a webhook.
type Delivery struct {
	DestinationID string             `json:"destination_id"`
	URL           string             `json:"url"`
	Event         stack.WebhookEvent `json:"event"` // its ID is the delivery's
	Status        DeliveryStatus     `json:"status"`
	Attempts      []DeliveryAttempt  `json:"attempts"`
	NextAttempt   time.Time          `json:"next_attempt,omitzero"` // while it waits
	Error         string             `json:"error,omitempty"`       // why it was given up

	number int // in order of their making
}

// DeliveryAttempt is one request to a webhook.
type DeliveryAttempt struct {
	At         time.Time `json:"at"`                    // when it was due
	StatusCode int       `json:"status_code,omitempty"` // 0 where there was no answer
	Error      string    `json:"error,omitempty"`       // empty when it was delivered
}

// Message is an email or an SMS that the server would have sent. It goes nowhere.
type Message struct {
	DestinationID string             `json:"destination_id"`
	ChannelType   stack.ChannelType  `json:"channel_type"`
	To            string             `json:"to"`
	Subject       string             `json:"subject"`
	Text          string             `json:"text"`
	Code          string             `json:"code,omitempty"` // of a verification
	Event         stack.WebhookEvent `json:"event"`
	SentAt        time.Time          `json:"sent_at"`
}

// mailroom is where an operator's notifications wait and end up. Its operator's lock guards it.
type mailroom struct {
	waiting   table[Delivery]
	ready     []*Delivery // of those that wait, the due ones
	senders   int         // goroutines that make deliveries
	idle      sync.Cond   // no sender runs; L is the operator's lock
	delivered []*Delivery
	dead      []*Delivery
	messages  []*Message
	made      int
}

// remember appends to a list of bounded length, at the cost of the oldest.
func remember[T any](list []*T, v *T) []*T {
	if len(list) >= maxFinished {
		list = slices.Delete(list, 0, 1)
	}
	return append(list, v)
}

// tell notifies of something that happened.
func (op *operator) tell(now time.Time, kind stack.NotificationEvent, message string, data map[string]any) {
	op.notify(now, kind, eventSeverities[kind], message, data)
}

// notify sends an event to each destination that a channel leads to which wants it, once.
func (op *operator) notify(
	now time.Time, kind stack.NotificationEvent, severity stack.Severity, message string, data any,
) {
	var told []*destination
	for ch := range op.channels.all() {
		if !ch.to.Verified || !ch.wants(kind, severity) || slices.Contains(told, ch.to) {
			continue
		}
		told = append(told, ch.to)
		op.deliver(now, ch.to, op.event(now, kind, severity, message, data))
	}
}

// event makes an event for one destination. Data is what the API itself answers with, so it has a JSON form.
func (op *operator) event(
	now time.Time, kind stack.NotificationEvent, severity stack.Severity, message string, data any,
) stack.WebhookEvent {
	raw, err := json.Marshal(data)
	if err != nil {
		op.server.logger.Error("event cannot be encoded", "type", kind, "error", err)
		raw = json.RawMessage("{}")
	}
	return stack.WebhookEvent{ID: newID("ndel_"), Type: kind, Severity: severity, OperatorID: op.id, Message: message,
		CreatedAt: now, Data: raw}
}

func (op *operator) deliver(now time.Time, to *destination, event stack.WebhookEvent) {
	if to.ChannelType != stack.ChannelWebhook {
		op.mail(now, to, event, "")
		return
	}
	op.mailroom.made++
	d := &Delivery{DestinationID: to.ID, URL: to.Destination.Destination, Event: event, Status: DeliveryWaiting, NextAttempt: now,
		number: op.mailroom.made}
	if op.mailroom.waiting.len() >= maxWaiting {
		op.bury(now, d, fmt.Sprintf("%d deliveries are waiting already", maxWaiting))
		return
	}
	op.mailroom.waiting.put(event.ID, d)
	op.makeReady(d)
}

// mail puts an email or an SMS into the outbox.
func (op *operator) mail(now time.Time, to *destination, event stack.WebhookEvent, code string) {
	m := &Message{DestinationID: to.ID, ChannelType: to.ChannelType, To: to.Destination.Destination,
		Subject: fmt.Sprintf("[STACK] %s: %s", event.Severity, event.Type), Text: event.Message, Code: code, Event: event, SentAt: now}
	op.mailroom.messages = remember(op.mailroom.messages, m)
}

// makeReady hands a delivery to the senders. A server that is closed has none.
func (op *operator) makeReady(d *Delivery) {
	if op.ctx.Err() != nil {
		return
	}
	op.mailroom.ready = append(op.mailroom.ready, d)
	if op.mailroom.senders < maxSenders {
		op.mailroom.senders++
		op.server.senders.Go(op.send)
	}
}

// send makes deliveries as long as some are ready.
func (op *operator) send() {
	op.mu.Lock()
	defer op.mu.Unlock()
	for m := &op.mailroom; len(m.ready) > 0 && op.ctx.Err() == nil; {
		d := m.ready[0]
		m.ready = m.ready[1:]
		op.attempt(d)
	}
	op.mailroom.senders--
	if op.mailroom.senders == 0 {
		op.mailroom.idle.Broadcast()
	}
}

// attempt tries a delivery once, with the operator unlocked meanwhile.
func (op *operator) attempt(d *Delivery) {
	to, ok := op.destinations.get(d.DestinationID)
	if !ok {
		op.bury(d.NextAttempt, d, "the destination was deleted")
		return
	}
	secret, err := op.server.secretOf(to)
	if err != nil {
		op.server.logger.Error("webhook secret cannot be opened", "destination", to.ID, "error", err)
		op.bury(d.NextAttempt, d, "the destination's secret cannot be opened")
		return
	}
	try := DeliveryAttempt{At: d.NextAttempt}
	began := time.Now()
	op.mu.Unlock()
	try.StatusCode, try.Error = op.server.post(op.ctx, to.target, secret, d.Event)
	op.mu.Lock()
	if op.ctx.Err() != nil { // the server ends; that is not the webhook's doing
		return
	}
	d.Attempts = append(d.Attempts, try)
	// A clock that was moved on has left the due time behind: what follows is counted from when the attempt would have ended.
	ended := try.At.Add(time.Since(began))
	if try.Error == "" {
		op.mailroom.waiting.delete(d.Event.ID)
		d.Status, d.NextAttempt = DeliveryDelivered, time.Time{}
		op.mailroom.delivered = remember(op.mailroom.delivered, d)
		return
	}
	delay, again := notify.Delay(len(d.Attempts))
	if !again {
		op.bury(ended, d, fmt.Sprintf("%d attempts failed; the last one: %s", len(d.Attempts), try.Error))
		return
	}
	d.NextAttempt = ended.Add(delay)
	op.due.add(d.NextAttempt, func(time.Time) { op.makeReady(d) })
}

// bury makes a dead letter of a delivery.
func (op *operator) bury(now time.Time, d *Delivery, why string) {
	op.mailroom.waiting.delete(d.Event.ID)
	d.Status, d.NextAttempt, d.Error = DeliveryDead, time.Time{}, why
	op.mailroom.dead = remember(op.mailroom.dead, d)
	op.record(now, stack.AuditEntry{Action: "notification.dead_letter", TraceID: d.Event.ID, Outcome: stack.OutcomeFailure,
		ErrorMessage: why})
}

// post makes one signed request to a webhook. failure is empty when it was taken. The signature has the process's time and
// not the server's: a receiver holds it against its own clock, which no test moves by moving the server's.
func (s *Server) post(
	ctx context.Context, target *url.URL, secret stack.Secret, event stack.WebhookEvent,
) (status int, failure string) {
	body, err := json.Marshal(event)
	if err != nil {
		return 0, err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, notify.Timeout)
	defer cancel()
	status, err = s.forward.Deliver(ctx, target, http.Header{
		"Content-Type":               {"application/json"},
		"User-Agent":                 {"stack-webhooks"},
		stack.HeaderWebhookDelivery:  {event.ID},
		stack.HeaderWebhookEvent:     {string(event.Type)},
		stack.HeaderWebhookSignature: {notify.Sign(secret.Reveal(), time.Now(), body)},
	}, body)
	switch {
	case err != nil:
		return 0, err.Error()
	case status < 200 || status > 299:
		return status, fmt.Sprintf("it answered with status %d", status)
	}
	return status, ""
}

// settle waits until everything that fell due has happened, deliveries too.
func (op *operator) settle() {
	op.mu.Lock()
	defer op.mu.Unlock()
	for {
		op.sweep(op.server.clock.now())
		if op.mailroom.senders == 0 {
			return
		}
		op.mailroom.idle.Wait()
	}
}

// Deliveries returns the first operator's notifications for webhooks, oldest first, once those that are due were tried. The
// last 1000 that were delivered and the last 1000 dead letters are remembered.
func (s *Server) Deliveries() (list []Delivery) {
	if op, ok := s.operatorByID(s.first.OperatorID); ok {
		op.settle()
	}
	s.view(func(op *operator) {
		all := slices.Concat(op.mailroom.delivered, op.mailroom.dead, slices.Collect(op.mailroom.waiting.all()))
		slices.SortFunc(all, func(a, b *Delivery) int { return a.number - b.number })
		for _, d := range all {
			c := *d
			c.Attempts, c.Event.Data = append([]DeliveryAttempt{}, d.Attempts...), slices.Clone(d.Event.Data)
			list = append(list, c)
		}
	})
	return list
}

// Outbox returns the emails and SMS that the first operator's notifications and verifications have become, oldest first and
// at most 1000.
func (s *Server) Outbox() (list []Message) {
	s.view(func(op *operator) {
		for _, m := range op.mailroom.messages {
			c := *m
			c.Event.Data = slices.Clone(m.Event.Data)
			list = append(list, c)
		}
	})
	return list
}

// VerificationCode returns the code that a destination of the first operator waits for; empty where it waits for none.
func (s *Server) VerificationCode(destinationID string) (code string) {
	s.view(func(op *operator) {
		if d, ok := op.destinations.get(destinationID); ok {
			code = d.codes.Pending(s.clock.now())
		}
	})
	return code
}
