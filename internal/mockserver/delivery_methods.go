package mockserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/notify"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

// OperatorEmail is the registered address of the first operator: a destination of that address needs no verification.
const OperatorEmail = "operator@example.com"

const (
	maxDestinations = 100
	maxLabel        = 64
)

// destination is an address. Its secret is sealed; the object that it embeds never holds it.
type destination struct {
	stack.Destination
	target *url.URL     // of a webhook
	sealed vault.Sealed // the secret of a webhook
	codes  notify.Codes
}

func (d *destination) sealContext() string { return d.OperatorID + "/" + d.ID }

func (d *destination) row(action string) stack.AuditEntry {
	return stack.AuditEntry{Action: "destination." + action, TraceID: d.ID}
}

func deliveryMethodRoutes() []route {
	const one = "/v1/notifications/destinations/{destination_id}"
	return []route{
		endpoint("POST", "/v1/notifications/destinations", (*Server).addDestination, adminOnly, created),
		endpoint("GET", "/v1/notifications/destinations", (*Server).listDestinations),
		endpoint("DELETE", one, (*Server).deleteDestination, adminOnly),
		endpoint("POST", one+"/rotate-secret", (*Server).rotateDestinationSecret, adminOnly),
		endpoint("POST", one+"/send-code", (*Server).sendDestinationCode, adminOnly, unlocked),
		endpoint("POST", one+"/verify", (*Server).verifyDestination, adminOnly),
		endpoint("POST", one+"/test", (*Server).testDestination, adminOnly, unlocked),
	}
}

// consent asks for a human's approval of an action on a destination, where the policy wants one. The contract says that the
// routes take an approval, and not that they demand it. (contract: server-api 2.5)
func (op *operator) consent(now time.Time, c *caller, action, target string) error {
	if !op.policy.RequireDestinationApproval {
		return nil
	}
	return op.governed(now, c, "destination."+action, target)
}

type addDestinationIn struct {
	Body stack.DestinationAddParams `body:""`
}

func (s *Server) addDestination(_ context.Context, c *caller, in addDestinationIn) (*stack.Destination, error) {
	d, err := s.readDestination(in.Body.ChannelType, in.Body.Destination)
	if err != nil {
		return nil, err
	}
	if err = firstError(atMost("body.label", in.Body.Label, maxLabel)); err != nil {
		return nil, err
	}
	if other := c.op.destinationAt(d); other != nil {
		return nil, refuse(http.StatusConflict, "DESTINATION_EXISTS", "the address is a destination already", map[string]any{
			"check": "unique", "field": "body.destination", "destination_id": other.ID, "allowed": "an address that is no destination"})
	}
	d.Label = in.Body.Label
	return s.newDestination(c, d)
}

var phoneNumber = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// readDestination checks an address and writes it in one form.
func (s *Server) readDestination(kind stack.ChannelType, address string) (*destination, error) {
	const field = "body.destination"
	d := &destination{Destination: stack.Destination{ChannelType: kind, Destination: address}}
	switch kind {
	case stack.ChannelEmail:
		if err := checkEmail(field, address); err != nil {
			return nil, err
		}
		at := strings.LastIndexByte(address, '@')
		d.Destination.Destination = address[:at] + strings.ToLower(address[at:])
	case stack.ChannelSMS:
		if !phoneNumber.MatchString(address) {
			return nil, invalid(field, address, "a number such as +41791234567: + and 7 to 15 digits, without spaces")
		}
	case stack.ChannelWebhook:
		target, err := forward.ParseURL(address)
		var bad *forward.Error
		switch {
		case errors.As(err, &bad):
			return nil, invalid(field, redacted, bad.Allowed+" ("+bad.Message+")")
		case err != nil:
			return nil, err
		case len(address) > maxURL:
			return nil, invalid(field, redacted, fmt.Sprintf("at most %d characters", maxURL))
		}
		d.target, d.Destination.Destination = target, target.String()
	default:
		return nil, firstError(chosen("body.channel_type", kind, stack.ChannelEmail, stack.ChannelSMS, stack.ChannelWebhook))
	}
	return d, nil
}

// destinationAt finds the destination with the same address.
func (op *operator) destinationAt(d *destination) *destination {
	for other := range op.destinations.all() {
		if other.ChannelType == d.ChannelType && other.Destination.Destination == d.Destination.Destination {
			return other
		}
	}
	return nil
}

// newDestination puts a destination on record and returns it with its secret.
func (s *Server) newDestination(c *caller, d *destination) (*stack.Destination, error) {
	op, now := c.op, s.clock.now()
	if op.destinations.len() >= maxDestinations {
		return nil, tooMany("destinations", maxDestinations)
	}
	if err := op.consent(now, c, "add", d.Destination.Destination); err != nil {
		return nil, err
	}
	d.ID, d.OperatorID, d.CreatedAt = newID("ndst_"), op.id, now
	if d.ChannelType == stack.ChannelEmail && strings.EqualFold(d.Destination.Destination, op.email) {
		d.Verified, d.VerifiedAt = true, now
	}
	shown := d.Destination
	if d.ChannelType == stack.ChannelWebhook {
		var err error
		if shown.WebhookSecret, err = s.newSecret(d); err != nil {
			return nil, err
		}
	}
	op.destinations.put(d.ID, d)
	op.record(now, d.row("add"))
	return &shown, nil
}

func tooMany(what string, most int) error {
	return refuse(http.StatusForbidden, "TIER_LIMIT_EXCEEDED", fmt.Sprintf("there are %d %s already", most, what),
		map[string]any{"check": "plan_limit", "resource": what, "limit": most, "allowed": fmt.Sprintf("at most %d", most)})
}

// newSecret gives a webhook a new secret and seals it.
func (s *Server) newSecret(d *destination) (stack.Secret, error) {
	text := "whsec_" + strings.ToLower(rand.Text()+rand.Text())
	sealed, err := s.vault.Seal([]byte(text), d.sealContext())
	if err != nil {
		return stack.Secret{}, err
	}
	d.sealed = sealed
	return stack.NewSecret(text), nil
}

func (s *Server) secretOf(d *destination) (stack.Secret, error) {
	plain, err := s.vault.Open(d.sealed, d.sealContext())
	if err != nil {
		return stack.Secret{}, err
	}
	defer clear(plain)
	return stack.NewSecret(string(plain)), nil
}

func (s *Server) listDestinations(_ context.Context, c *caller, _ none) (*[]stack.Destination, error) {
	list := []stack.Destination{}
	for d := range c.op.destinations.all() {
		list = append(list, d.Destination)
	}
	return &list, nil
}

type destinationIn struct {
	DestinationID string `path:"destination_id"`
}

func (op *operator) destinationByID(id string) (*destination, error) {
	return op.destinations.find("destination", id)
}

func (s *Server) deleteDestination(_ context.Context, c *caller, in destinationIn) (*stack.Deleted, error) {
	op, now := c.op, s.clock.now()
	d, err := op.destinationByID(in.DestinationID)
	if err != nil {
		return nil, err
	}
	users := []string{}
	for ch := range op.channels.all() {
		if ch.to == d {
			users = append(users, ch.ID)
		}
	}
	if len(users) > 0 {
		return nil, refuse(http.StatusConflict, "DESTINATION_IN_USE", "channels lead to the destination", map[string]any{
			"check": "in_use", "sent": d.ID, "channels": users, "allowed": "a destination without channels; delete them first"})
	}
	if err = op.consent(now, c, "delete", d.ID); err != nil {
		return nil, err
	}
	op.destinations.delete(d.ID)
	op.record(now, d.row("delete"))
	return &stack.Deleted{ID: d.ID, Deleted: true}, nil
}

func (s *Server) rotateDestinationSecret(_ context.Context, c *caller, in destinationIn) (*stack.Destination, error) {
	op, now := c.op, s.clock.now()
	d, err := op.destinationByID(in.DestinationID)
	if err != nil {
		return nil, err
	}
	if d.ChannelType != stack.ChannelWebhook {
		return nil, refuse(http.StatusBadRequest, "INVALID_REQUEST", fmt.Sprintf("%s destinations have no secret", d.ChannelType),
			map[string]any{"check": "channel_type", "sent": d.ChannelType, "allowed": stack.ChannelWebhook})
	}
	if err = op.consent(now, c, "rotate_secret", d.ID); err != nil {
		return nil, err
	}
	shown := d.Destination
	if shown.WebhookSecret, err = s.newSecret(d); err != nil {
		return nil, err
	}
	op.record(now, d.row("rotate_secret"))
	return &shown, nil
}

func (s *Server) sendDestinationCode(ctx context.Context, c *caller, in destinationIn) (*stack.CodeSent, error) {
	return s.sendCode(ctx, c, func() (*destination, error) { return c.op.destinationByID(in.DestinationID) })
}

// sendCode sends a verification code. find runs with the operator locked; the webhook is called with it unlocked.
func (s *Server) sendCode(ctx context.Context, c *caller, find func() (*destination, error)) (*stack.CodeSent, error) {
	var d *destination
	var out *stack.CodeSent
	var event stack.WebhookEvent
	var secret stack.Secret
	_, err := c.op.upToDate(func(op *operator, now time.Time) (_ bool, err error) {
		if d, err = find(); err != nil {
			return false, err
		}
		if d.Verified {
			return false, refuse(http.StatusConflict, "DESTINATION_ALREADY_VERIFIED", "the destination is verified already",
				map[string]any{"check": "destination_state", "sent": d.ID, "allowed": "a destination that is not verified"})
		}
		if err = op.consent(now, c, "send_code", d.ID); err != nil {
			return false, err
		}
		code, wait := d.codes.Next(now)
		if wait > 0 {
			err := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "a code was sent just now, or too many in this hour",
				map[string]any{"check": "code_rate", "sent": d.ID,
					"allowed": fmt.Sprintf("one in %s, %d in an hour", notify.CodePause, notify.MaxCodes)})
			err.retryAfter = wait
			return false, err
		}
		out = &stack.CodeSent{DestinationID: d.ID, ChannelType: d.ChannelType, Sent: true, ExpiresAt: now.Add(notify.CodeLifetime)}
		event = op.event(now, stack.EventVerification, stack.SeverityInfo, "Your STACK verification code is "+code+".",
			map[string]any{"destination_id": d.ID, "code": code})
		op.record(now, d.row("send_code"))
		if d.ChannelType != stack.ChannelWebhook {
			op.mail(now, d, event, code)
			return true, nil
		}
		secret, err = s.secretOf(d)
		return true, err
	})
	if err != nil || d.ChannelType != stack.ChannelWebhook {
		return out, err
	}
	if status, failure := s.post(ctx, d.target, secret, event); failure != "" {
		return nil, refuse(http.StatusBadGateway, "DELIVERY_FAILED", "the webhook did not take the code: "+failure, map[string]any{
			"check": "delivery", "sent": d.ID, "status_code": status, "allowed": "an answer of 200 to 299"})
	}
	return out, nil
}

type verifyDestinationIn struct {
	DestinationID string   `path:"destination_id"`
	Body          codeBody `body:""`
}

type codeBody struct {
	Code string `json:"code"`
}

var sixDigits = regexp.MustCompile(fmt.Sprintf(`^[0-9]{%d}$`, notify.CodeDigits))

func (s *Server) verifyDestination(_ context.Context, c *caller, in verifyDestinationIn) (*stack.Destination, error) {
	d, err := c.op.destinationByID(in.DestinationID)
	if err != nil {
		return nil, err
	}
	if err = s.verifyCode(c, d, in.Body.Code); err != nil {
		return nil, err
	}
	return &d.Destination, nil
}

// verifyCode verifies a destination. Whether a code is right is told only once a human has approved, where one must.
func (s *Server) verifyCode(c *caller, d *destination, code string) error {
	op, now := c.op, s.clock.now()
	if !sixDigits.MatchString(code) {
		return invalid("body.code", redacted, "six digits")
	}
	if d.Verified {
		return nil
	}
	if err := op.consent(now, c, "verify", d.ID); err != nil {
		return err
	}
	row := d.row("verify")
	left, err := d.codes.Check(now, code)
	switch {
	case errors.Is(err, notify.ErrWrongCode):
		row.Outcome, row.ErrorCode = stack.OutcomeBlocked, "CODE_INCORRECT"
		op.record(now, row)
		return refuse(http.StatusBadRequest, "CODE_INCORRECT", err.Error(), map[string]any{"check": "code", "field": "body.code",
			"attempts_left": left, "allowed": "the code that was sent last"})
	case err != nil:
		return refuse(http.StatusGone, "CODE_EXPIRED", err.Error()+"; have one sent", map[string]any{"check": "code",
			"sent": d.ID, "allowed": fmt.Sprintf("a code of the last %s, with at most %d wrong ones before", notify.CodeLifetime,
				notify.MaxGuesses-1)})
	}
	d.Verified, d.VerifiedAt = true, now
	op.record(now, row)
	return nil
}

func (s *Server) testDestination(ctx context.Context, c *caller, in destinationIn) (*stack.DeliveryTest, error) {
	return s.sendTest(ctx, c, "", func() (*destination, error) { return c.op.destinationByID(in.DestinationID) })
}

// sendTest sends one test notification. find runs with the operator locked; the webhook is called with it unlocked.
func (s *Server) sendTest(
	ctx context.Context, c *caller, channelID string, find func() (*destination, error),
) (*stack.DeliveryTest, error) {
	var d *destination
	var event stack.WebhookEvent
	var secret stack.Secret
	_, err := c.op.upToDate(func(op *operator, now time.Time) (_ bool, err error) {
		if d, err = find(); err != nil {
			return false, err
		}
		if !d.Verified {
			return false, refuse(http.StatusConflict, "DESTINATION_NOT_VERIFIED", "nothing is sent to the destination before it is verified",
				map[string]any{"check": "destination_state", "sent": d.ID, "allowed": "a verified destination; send a code and verify it"})
		}
		if err = op.consent(now, c, "test", d.ID); err != nil {
			return false, err
		}
		event = op.event(now, stack.EventTest, stack.SeverityInfo, "This is a test. Nothing has happened.",
			map[string]any{"destination_id": d.ID})
		op.record(now, d.row("test"))
		if d.ChannelType != stack.ChannelWebhook {
			op.mail(now, d, event, "")
			return true, nil
		}
		secret, err = s.secretOf(d)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	out := &stack.DeliveryTest{DestinationID: d.ID, ChannelID: channelID, DeliveryID: event.ID, Delivered: true}
	if d.ChannelType == stack.ChannelWebhook {
		out.StatusCode, out.Error = s.post(ctx, d.target, secret, event)
		out.Delivered = out.Error == ""
	}
	return out, nil
}
