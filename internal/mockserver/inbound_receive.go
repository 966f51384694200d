package mockserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/inbound"
	"github.com/getstack-go/stack/internal/mockserver/inject"
	"github.com/getstack-go/stack/internal/mockserver/notify"
)

const (
	maxReceived    = 1000 // deliveries that an operator's view remembers
	maxSeen        = 4096 // messages that a webhook knows again
	forwardTimeout = 15 * time.Second
)

// InboundStatus is what became of a message that came in.
type InboundStatus string

// Inbound statuses.
const (
	InboundReceived  InboundStatus = "received"  // checked, and kept back since there is no forward_url
	InboundPending   InboundStatus = "pending"   // being scanned or forwarded
	InboundForwarded InboundStatus = "forwarded" // the receiver answered with a 2xx
	InboundBlocked   InboundStatus = "blocked"   // prompt injection: not forwarded
	InboundFailed    InboundStatus = "failed"    // the receiver did not take it: the provider may send it again
	InboundDuplicate InboundStatus = "duplicate" // only in answers: it was dealt with before
)

// InboundDelivery is a message that came in through an inbound webhook with a good signature.
type InboundDelivery struct {
	ID         string            `json:"id"` // the same when the provider sends it again
	WebhookID  string            `json:"webhook_id"`
	AgentID    string            `json:"agent_id"`
	Status     InboundStatus     `json:"status"`
	Verdict    stack.ScanVerdict `json:"verdict,omitempty"`     // of the scan, once it was made
	StatusCode int               `json:"status_code,omitempty"` // of the receiver's last answer; 0 where there was none
	Attempts   int               `json:"attempts"`              // how often the provider sent it while it was not done
	ReceivedAt time.Time         `json:"received_at"`
}

type receiveInboundIn struct {
	Slug   string      `path:"slug"`
	Header http.Header `headers:""`
	Body   []byte      `raw:""`
}

type inboundReceipt struct {
	ID     string        `json:"id"`
	Status InboundStatus `json:"status"`
}

// inboundMessage is a message on its way through.
type inboundMessage struct {
	receiveInboundIn
	op       *operator
	webhook  *inboundWebhook
	incoming []byte // the provider's key
	delivery *InboundDelivery

	// Of the moment when it was admitted.
	downstream []byte
	forwardURL string
	scanner    *inject.Scanner
}

// receiveInbound takes what a provider sends: signature, replay, injection scan, and on to the receiver. The operator is locked
// between these steps, not while a signature is computed, a content scanned or the receiver waited for.
func (s *Server) receiveInbound(ctx context.Context, _ *caller, in receiveInboundIn) (*inboundReceipt, error) {
	m, err := s.openInbound(in)
	if err != nil {
		return nil, err
	}
	defer func() { clear(m.incoming); clear(m.downstream) }()
	key, err := m.verify()
	if err != nil {
		return nil, m.unsigned(s.clock.now(), err)
	}
	content, err := m.content()
	if err != nil {
		return nil, err
	}
	done, err := s.admitInbound(m, key)
	if done != nil || err != nil {
		return done, err
	}
	ctx = context.WithoutCancel(ctx) // a provider who hangs up must not leave it half done
	if goesOn, refusal := s.screenInbound(m, s.inspect(ctx, m.scanner, content, inject.Deep)); refusal != nil {
		return nil, refusal
	} else if !goesOn {
		return &inboundReceipt{m.delivery.ID, InboundBlocked}, nil
	}
	if m.forwardURL == "" {
		return s.settleInbound(m, InboundReceived, 0, nil)
	}
	status, err := s.forwardInbound(ctx, m)
	return s.settleInbound(m, InboundForwarded, status, err)
}

// openInbound finds the webhook and opens the provider's key.
func (s *Server) openInbound(in receiveInboundIn) (m *inboundMessage, err error) {
	found, err := s.atOperator(func(op *operator, _ time.Time) (bool, error) {
		w, ok := op.inbound.bySlug[in.Slug]
		if !ok {
			return false, nil
		}
		m = &inboundMessage{receiveInboundIn: in, op: op, webhook: w}
		if refusal := m.mustBeOpen(); refusal != nil {
			return true, refusal
		}
		if !w.SigningSecretConfigured {
			return true, refuse(http.StatusConflict, "SIGNING_SECRET_MISSING", "the provider's signing secret has not been set",
				map[string]any{"check": "signing_secret", "allowed": "a webhook whose provider-signing-secret is set"})
		}
		var unreadable error
		m.incoming, unreadable = s.vault.Open(w.incoming, w.sealContext("incoming"))
		return true, unreadable
	})
	if !found {
		return nil, notFound("inbound webhook", "the one asked for")
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// mustBeOpen refuses a message for a webhook that takes none.
func (m *inboundMessage) mustBeOpen() error {
	if m.webhook.Status == stack.InboundRevoked {
		return refuse(http.StatusGone, "WEBHOOK_REVOKED", "the inbound webhook is revoked",
			map[string]any{"check": "webhook_status", "allowed": "an active inbound webhook"})
	}
	if err := m.op.mustBeBillable(); err != nil {
		return err
	}
	a, ok := m.op.agents.get(m.webhook.AgentID)
	if !ok || a.Status == stack.AgentSuspended {
		return forbidden("the agent is suspended", map[string]any{"check": "agent_status", "allowed": "an active agent"})
	}
	return nil
}

// verify checks the signature and returns what the message is known by when it comes again. Provider and receiver have no part
// in the clock of a test: signatures go by the process's own.
func (m *inboundMessage) verify() (string, error) {
	if m.webhook.Provider == stack.ProviderAgentMail {
		key, err := inbound.AgentMailKey(string(m.incoming))
		if err != nil {
			return "", err
		}
		return inbound.VerifyAgentMail(m.Header, m.Body, key, time.Now())
	}
	c := m.webhook.GenericConfig
	return inbound.Generic{Header: c.SignatureHeader, Prefix: c.Prefix, SHA1: c.Algorithm == stack.HMACSHA1,
		Base64: c.Encoding == stack.EncodingBase64, TimestampHeader: c.TimestampHeader, Tolerance: c.Tolerance,
	}.Verify(m.Header, m.Body, m.incoming, time.Now())
}

// unsigned counts a bad signature as a failed authentication.
func (m *inboundMessage) unsigned(now time.Time, err error) error {
	if !errors.Is(err, inbound.ErrSignature) {
		return err
	}
	m.op.mu.Lock()
	defer m.op.mu.Unlock()
	m.op.sweep(now)
	m.op.authFailed(now, m.webhook.AgentID, "INVALID_SIGNATURE")
	return unauthorized("INVALID_SIGNATURE", err.Error(), "a fresh request that the provider has signed with the secret that is set")
}

// content is the body as the receiver will understand it. What is scanned and what the receiver reads must not differ: so what
// claims to be JSON must be JSON, and have no key twice in one object.
func (m *inboundMessage) content() (any, error) {
	kind, _, _ := mime.ParseMediaType(m.Header.Get("Content-Type"))
	text := string(m.Body)
	switch {
	case json.Valid(m.Body):
		content, err := forward.DecodeBody(nil, m.Body)
		var bad *forward.Error
		if errors.As(err, &bad) {
			return nil, refuseForward("body", bad)
		}
		return content, err
	case kind == "application/json" && text != "":
		return nil, invalid("body", "not JSON", "JSON, as its content type says")
	case kind == "application/x-www-form-urlencoded":
		if form, err := url.ParseQuery(text); err == nil {
			return form, nil
		}
	}
	return text, nil
}

// admitInbound begins a delivery, or answers a message that was dealt with before.
func (s *Server) admitInbound(m *inboundMessage, key string) (*inboundReceipt, error) {
	op, w := m.op, m.webhook
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	if err := m.mustBeOpen(); err != nil { // it may have been revoked meanwhile
		return nil, err
	}
	d, again := w.seen.get(key)
	switch {
	case !again:
		d = &InboundDelivery{ID: newID("in_"), WebhookID: w.ID, AgentID: w.AgentID, ReceivedAt: now}
		if w.seen.len() == maxSeen {
			w.seen.delete(w.seen.order[0])
		}
		w.seen.put(key, d)
		if len(op.inbound.received) == maxReceived {
			op.inbound.received = slices.Delete(op.inbound.received, 0, 1)
		}
		op.inbound.received = append(op.inbound.received, d)
	case d.Status == InboundPending:
		return nil, refuse(http.StatusConflict, "DELIVERY_IN_PROGRESS", "the message is being forwarded",
			map[string]any{"check": "delivery_state", "sent": d.ID, "allowed": "the same message again when it is done"})
	case d.Status != InboundFailed:
		return &inboundReceipt{d.ID, InboundDuplicate}, nil
	}
	downstream, err := s.vault.Open(w.downstream, w.sealContext("downstream"))
	if err != nil {
		return nil, err
	}
	d.Status = InboundPending
	d.Attempts++
	m.delivery, m.downstream, m.forwardURL, m.scanner = d, downstream, w.ForwardURL, op.scanner
	return nil, nil
}

// screenInbound raises what the scan found, and reports whether the message may go on. It refuses one whose webhook was revoked
// meanwhile. (contract: decisions, Detectors)
func (s *Server) screenInbound(m *inboundMessage, result inject.Result) (goesOn bool, err error) {
	op := m.op
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	m.delivery.Verdict = stack.ScanVerdict(result.Verdict)
	if f := injectionFinding(result, "A message of an inbound webhook",
		map[string]any{"webhook_id": m.webhook.ID, "delivery_id": m.delivery.ID}); f != nil {
		f.AgentID = m.webhook.AgentID
		op.raise(now, nil, *f)
	}
	if result.Verdict == inject.Critical {
		m.delivery.Status = InboundBlocked
		op.record(now, m.row(stack.OutcomeBlocked, "PROMPT_INJECTION_BLOCKED", string(detect.PromptInjection)))
		return false, nil
	}
	if err = m.mustBeOpen(); err != nil {
		m.delivery.Status = InboundFailed
	}
	return err == nil, err
}

// row is the audit row of a message that came in.
func (m *inboundMessage) row(outcome stack.AuditOutcome, code, message string) stack.AuditEntry {
	row := m.webhook.row("inbound_webhook.receive")
	row.Layer, row.SpanID, row.Outcome, row.ErrorCode, row.ErrorMessage = "proxy", m.delivery.ID, outcome, code, message
	row.PayloadHash = payloadHash(m.Body)
	return row
}

// forwardInbound sends the body on as it came, under a signature of the downstream key.
func (s *Server) forwardInbound(ctx context.Context, m *inboundMessage) (status int, err error) {
	target, err := forward.ParseURL(m.forwardURL)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	header := http.Header{
		"User-Agent":                 {"stack-inbound"},
		stack.HeaderWebhookSignature: {notify.Sign(string(m.downstream), time.Now(), m.Body)},
		stack.HeaderWebhookDelivery:  {m.delivery.ID},
		stack.HeaderInboundWebhook:   {m.webhook.ID},
		stack.HeaderInboundVerdict:   {string(m.delivery.Verdict)},
	}
	if kind := m.Header.Get("Content-Type"); kind != "" {
		header.Set("Content-Type", kind)
	}
	return s.forward.Deliver(ctx, target, header, m.Body)
}

// settleInbound records how a message ended. What the receiver did not take is the provider's to send again.
func (s *Server) settleInbound(m *inboundMessage, good InboundStatus, status int, err error) (*inboundReceipt, error) {
	op, d := m.op, m.delivery
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	d.StatusCode = status
	if err == nil && (status == 0 || status >= 200 && status < 300) {
		d.Status = good
		op.record(now, m.row(stack.OutcomeSuccess, "", string(good)))
		return &inboundReceipt{d.ID, good}, nil
	}
	d.Status = InboundFailed
	failure := &forward.Error{Status: http.StatusBadGateway, Code: fmt.Sprintf("RECEIVER_%d", status),
		Message: fmt.Sprintf("the receiver answered with status %d", status)}
	if err != nil && !errors.As(err, &failure) {
		failure.Code, failure.Message = forward.CodeUnreachable, err.Error()
	}
	op.record(now, m.row(stack.OutcomeFailure, failure.Code, failure.Message))
	// The provider is a stranger: it learns that it may try again, and nothing of the receiver.
	return nil, refuse(http.StatusBadGateway, "FORWARD_FAILED", "the message could not be forwarded; send it again later",
		map[string]any{"check": "forward", "sent": d.ID, "allowed": "the same message again"})
}

// InboundDeliveries returns what came in through the first operator's inbound webhooks with a good signature, oldest first and
// at most the newest 1000.
func (s *Server) InboundDeliveries() (list []InboundDelivery) {
	s.view(func(op *operator) {
		for _, d := range op.inbound.received {
			list = append(list, *d)
		}
	})
	return list
}
