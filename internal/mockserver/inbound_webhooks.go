package mockserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/inbound"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

// inboundPath is where providers send to; the slug after it cannot be guessed.
const inboundPath = "/v1/inbound/"

const (
	maxInboundWebhooks = 1000 // active ones, and as many revoked ones are remembered
	minSigningSecret   = 16   // bytes
	maxSigningSecret   = 512
	maxHeaderName      = 64
	maxPrefix          = 64
)

// inboundWebhooks are an operator's inbound webhooks and what came in through them.
type inboundWebhooks struct {
	table[inboundWebhook]
	bySlug   map[string]*inboundWebhook
	received []*InboundDelivery // the newest maxReceived
}

// inboundWebhook is a URL for a provider, its secrets sealed.
type inboundWebhook struct {
	stack.InboundWebhook
	incoming   vault.Sealed // of the provider; zero until it is set
	downstream vault.Sealed
	seen       table[InboundDelivery] // by what a message is known by when it comes again; the newest maxSeen
}

func inboundWebhookRoutes() []route {
	return []route{
		endpoint("POST", "/v1/operator/inbound-webhooks", (*Server).createInboundWebhook),
		endpoint("GET", "/v1/operator/inbound-webhooks", (*Server).listInboundWebhooks),
		endpoint("GET", "/v1/operator/inbound-webhooks/{webhook_id}", (*Server).getInboundWebhook),
		endpoint("DELETE", "/v1/operator/inbound-webhooks/{webhook_id}", (*Server).revokeInboundWebhook),
		endpoint("PUT", "/v1/operator/inbound-webhooks/{webhook_id}/provider-signing-secret", (*Server).setSigningSecret),
		endpoint("POST", inboundPath+"{slug}", (*Server).receiveInbound, public, foreignBody),
	}
}

func (w *inboundWebhook) row(action string) stack.AuditEntry {
	return stack.AuditEntry{AgentID: w.AgentID, Action: action, TraceID: w.ID}
}

// view is the webhook as its owner sees it, with the URL at which this server is reached.
func (w *inboundWebhook) view(ctx context.Context) stack.InboundWebhook {
	v := w.InboundWebhook
	v.WebhookURL = baseURL(ctx) + inboundPath + v.Slug
	return v
}

type createInboundWebhookIn struct {
	Body stack.InboundWebhookParams `body:""`
}

func (s *Server) createInboundWebhook(
	ctx context.Context, c *caller, in createInboundWebhookIn,
) (*stack.CreatedInboundWebhook, error) {
	return s.makeInboundWebhook(ctx, c.op, in.Body)
}

// makeInboundWebhook makes a webhook of an operator, whose lock is held.
func (s *Server) makeInboundWebhook(
	ctx context.Context, op *operator, p stack.InboundWebhookParams,
) (*stack.CreatedInboundWebhook, error) {
	if err := firstError(chosen("body.provider", p.Provider, stack.ProviderAgentMail, stack.ProviderGeneric)); err != nil {
		return nil, err
	}
	a, err := op.agentByID(p.AgentID)
	if err != nil {
		return nil, err
	}
	if err = checkForwardURL(p.ForwardURL); err != nil {
		return nil, err
	}
	config, err := genericConfig(p)
	if err != nil {
		return nil, err
	}
	if err = op.inbound.makeRoom(); err != nil {
		return nil, err
	}
	now := s.clock.now()
	w := &inboundWebhook{InboundWebhook: stack.InboundWebhook{ID: newID("whk_"), OperatorID: op.id, Provider: p.Provider,
		Slug: strings.ToLower(rand.Text()), AgentID: a.ID, ForwardURL: p.ForwardURL, GenericConfig: config,
		Status: stack.InboundActive, CreatedAt: now}}
	out := &stack.CreatedInboundWebhook{WebhookSecret: newSigningSecret("whsec_")}
	if w.downstream, err = s.vault.Seal([]byte(out.WebhookSecret.Reveal()), w.sealContext("downstream")); err != nil {
		return nil, err
	}
	if p.Provider == stack.ProviderGeneric {
		out.IncomingSigningSecret = newSigningSecret("whin_")
		if err = s.sealIncoming(w, out.IncomingSigningSecret); err != nil {
			return nil, err
		}
	}
	op.inbound.add(w)
	op.record(now, w.row("inbound_webhook.create"))
	out.InboundWebhook = w.view(ctx)
	return out, nil
}

func newSigningSecret(prefix string) stack.Secret {
	return stack.NewSecret(prefix + strings.ToLower(rand.Text()+rand.Text()))
}

func (w *inboundWebhook) sealContext(which string) string {
	return w.OperatorID + "/" + w.ID + "/" + which
}

func (s *Server) sealIncoming(w *inboundWebhook, secret stack.Secret) (err error) {
	w.incoming, err = s.vault.Seal([]byte(secret.Reveal()), w.sealContext("incoming"))
	w.SigningSecretConfigured = err == nil
	return err
}

// checkForwardURL refuses what cannot be called. Where it leads is judged when it is dialled.
func checkForwardURL(raw string) error {
	if raw == "" {
		return nil
	}
	_, err := forward.ParseURL(raw)
	var bad *forward.Error
	if errors.As(err, &bad) {
		refusal := invalid("body.forward_url", "not usable", bad.Allowed) // it may hold a secret
		refusal.message = "body.forward_" + bad.Message
		return refusal
	}
	return err
}

// genericConfig fills in how a generic provider signs.
func genericConfig(p stack.InboundWebhookParams) (*stack.InboundGenericConfig, error) {
	if p.Provider != stack.ProviderGeneric {
		if p.GenericConfig != nil {
			return nil, invalid("body.generic_config", "an object", "left out: it is for the provider generic")
		}
		return nil, nil
	}
	var c stack.InboundGenericConfig
	if p.GenericConfig != nil {
		c = *p.GenericConfig
	}
	const at = "body.generic_config."
	if err := firstError(
		headerName(at+"signature_header", c.SignatureHeader),
		headerName(at+"timestamp_header", c.TimestampHeader),
		oneOf(at+"algorithm", c.Algorithm, stack.HMACSHA256, stack.HMACSHA1),
		oneOf(at+"encoding", c.Encoding, stack.EncodingHex, stack.EncodingBase64),
		atMost(at+"prefix", c.Prefix, maxPrefix),
		lasting(at+"tolerance_seconds", c.Tolerance, stack.MinWebhookTolerance, stack.MaxWebhookTolerance),
	); err != nil {
		return nil, err
	}
	c.SignatureHeader = or(c.SignatureHeader, "X-Webhook-Signature")
	c.Algorithm, c.Encoding = or(c.Algorithm, stack.HMACSHA256), or(c.Encoding, stack.EncodingHex)
	switch {
	case c.TimestampHeader != "":
		c.Tolerance = or(c.Tolerance, inbound.Tolerance)
	case c.Tolerance != 0:
		return nil, invalid(at+"tolerance_seconds", int(c.Tolerance/time.Second), "left out where there is no timestamp_header")
	}
	if strings.EqualFold(c.SignatureHeader, c.TimestampHeader) {
		return nil, invalid(at+"timestamp_header", c.TimestampHeader, "another header than the signature's")
	}
	return &c, nil
}

// headerName refuses what is no name of a header; the empty value stands for "not given".
func headerName(field, name string) *apiError {
	bad := func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	if len(name) > maxHeaderName || strings.ContainsFunc(name, bad) {
		return invalid(field, name, fmt.Sprintf("at most %d letters, digits, hyphens and underscores", maxHeaderName))
	}
	return nil
}

// makeRoom refuses a webhook when there are too many active ones, and forgets the oldest revoked one where there are.
func (t *inboundWebhooks) makeRoom() error {
	active, revoked := 0, (*inboundWebhook)(nil)
	for w := range t.newest() {
		if w.Status == stack.InboundActive {
			active++
		} else {
			revoked = w
		}
	}
	if active >= maxInboundWebhooks {
		return refuse(http.StatusForbidden, "TIER_LIMIT_EXCEEDED",
			fmt.Sprintf("an account has at most %d active inbound webhooks", maxInboundWebhooks), map[string]any{
				"check": "plan_limit", "resource": "inbound_webhooks", "used": active, "allowed": fmt.Sprintf("at most %d", maxInboundWebhooks)})
	}
	if t.len() >= 2*maxInboundWebhooks {
		delete(t.bySlug, revoked.Slug)
		t.delete(revoked.ID)
	}
	return nil
}

func (t *inboundWebhooks) add(w *inboundWebhook) {
	if t.bySlug == nil {
		t.bySlug = map[string]*inboundWebhook{}
	}
	t.bySlug[w.Slug] = w
	t.put(w.ID, w)
}

// revokeWhere revokes the active webhooks that are meant, and returns how many that were.
func (op *operator) revokeInboundWhere(now time.Time, which func(*inboundWebhook) bool) (revoked int) {
	for w := range op.inbound.all() {
		if w.Status == stack.InboundActive && which(w) {
			w.Status, w.RevokedAt = stack.InboundRevoked, now
			w.SigningSecretConfigured, w.incoming, w.downstream, w.seen = false, vault.Sealed{}, vault.Sealed{}, table[InboundDelivery]{}
			op.record(now, w.row("inbound_webhook.revoke"))
			revoked++
		}
	}
	return revoked
}

type inboundWebhookList struct {
	Webhooks []stack.InboundWebhook `json:"webhooks"`
}

func (s *Server) listInboundWebhooks(ctx context.Context, c *caller, _ none) (*inboundWebhookList, error) {
	list := &inboundWebhookList{Webhooks: []stack.InboundWebhook{}}
	for w := range c.op.inbound.all() {
		list.Webhooks = append(list.Webhooks, w.view(ctx))
	}
	return list, nil
}

type inboundWebhookIn struct {
	WebhookID string `path:"webhook_id"`
}

func (op *operator) inboundWebhookByID(id string) (*inboundWebhook, error) {
	return op.inbound.find("inbound webhook", id)
}

func (s *Server) getInboundWebhook(ctx context.Context, c *caller, in inboundWebhookIn) (*stack.InboundWebhook, error) {
	w, err := c.op.inboundWebhookByID(in.WebhookID)
	if err != nil {
		return nil, err
	}
	v := w.view(ctx)
	return &v, nil
}

// revokeInboundWebhook is idempotent: the first call says when it was revoked. (contract: server-api 26)
func (s *Server) revokeInboundWebhook(ctx context.Context, c *caller, in inboundWebhookIn) (*stack.InboundWebhook, error) {
	w, err := c.op.inboundWebhookByID(in.WebhookID)
	if err != nil {
		return nil, err
	}
	c.op.revokeInboundWhere(s.clock.now(), func(other *inboundWebhook) bool { return other == w })
	v := w.view(ctx)
	return &v, nil
}

type setSigningSecretIn struct {
	WebhookID string                     `path:"webhook_id"`
	Body      stack.ProviderSecretParams `body:""`
}

func (s *Server) setSigningSecret(
	ctx context.Context, c *caller, in setSigningSecretIn,
) (*stack.ConfiguredInboundWebhook, error) {
	w, err := c.op.inboundWebhookByID(in.WebhookID)
	if err != nil {
		return nil, err
	}
	made := in.Body.DownstreamSigningSecret.IsZero() && w.Provider == stack.ProviderGeneric
	if made {
		in.Body.DownstreamSigningSecret = newSigningSecret("whsec_")
	}
	if err := s.configureInbound(c.op, w, in.Body); err != nil {
		return nil, err
	}
	out := &stack.ConfiguredInboundWebhook{InboundWebhook: w.view(ctx)}
	if made {
		out.DownstreamSigningSecret = in.Body.DownstreamSigningSecret
	}
	return out, nil
}

// configureInbound sets the provider's secret, and the downstream one where it is given. The operator's lock is held.
func (s *Server) configureInbound(op *operator, w *inboundWebhook, p stack.ProviderSecretParams) error {
	if w.Status == stack.InboundRevoked {
		return refuse(http.StatusConflict, "WEBHOOK_REVOKED", "the inbound webhook is revoked",
			map[string]any{"check": "webhook_status", "sent": w.ID, "allowed": "an active inbound webhook"})
	}
	if w.Provider == stack.ProviderAgentMail {
		if _, err := inbound.AgentMailKey(p.SigningSecret.Reveal()); err != nil {
			return invalid("body.signing_secret", "[REDACTED]", "whsec_ followed by 16 to 64 bytes in base64, as AgentMail shows it")
		}
	} else if err := firstError(signingSecret("body.signing_secret", p.SigningSecret)); err != nil {
		return err
	}
	if !p.DownstreamSigningSecret.IsZero() {
		if err := firstError(signingSecret("body.downstream_signing_secret", p.DownstreamSigningSecret)); err != nil {
			return err
		}
		sealed, err := s.vault.Seal([]byte(p.DownstreamSigningSecret.Reveal()), w.sealContext("downstream"))
		if err != nil {
			return err
		}
		w.downstream = sealed
	}
	if err := s.sealIncoming(w, p.SigningSecret); err != nil {
		return err
	}
	op.record(s.clock.now(), w.row("inbound_webhook.set_signing_secret"))
	return nil
}

// signingSecret refuses a secret that is too short to sign with, or too long.
func signingSecret(field string, secret stack.Secret) *apiError {
	if n := len(secret.Reveal()); n < minSigningSecret || n > maxSigningSecret {
		return invalid(field, fmt.Sprintf("%d bytes long", n), fmt.Sprintf("%d to %d bytes long", minSigningSecret, maxSigningSecret))
	}
	return nil
}
