package mockserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

const maxChannels = 100

// eventSeverities is the catalogue of events, but for security events, each of which has a severity of its own.
var eventSeverities = map[stack.NotificationEvent]stack.Severity{
	stack.EventPassportRevoked:     stack.SeverityWarning,
	stack.EventMissionRevoked:      stack.SeverityWarning,
	stack.EventAgentBlocked:        stack.SeverityCritical,
	stack.EventReviewFlagged:       stack.SeverityWarning,
	stack.EventReviewBlocked:       stack.SeverityCritical,
	stack.EventGovernanceRequested: stack.SeverityWarning,
	stack.EventIntentRequested:     stack.SeverityWarning,
	stack.EventDropoffExpired:      stack.SeverityWarning,
	stack.EventReauthRequired:      stack.SeverityWarning,
}

// severitiesUp are the severities from the least to the most.
var severitiesUp = []stack.Severity{stack.SeverityInfo, stack.SeverityWarning, stack.SeverityCritical}

// eventNames is what a filter may hold: events and their families.
var eventNames = allEventNames()

func allEventNames() []stack.NotificationEvent {
	names := slices.Collect(maps.Keys(eventSeverities))
	for _, signal := range detect.RealTime() {
		names = append(names, securityEvent(string(signal)))
	}
	for _, name := range names {
		names = append(names, family(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func securityEvent(signal string) stack.NotificationEvent {
	return stack.EventSecurity + "." + stack.NotificationEvent(signal)
}

// family is what stands before the dot of an event's name.
func family(event stack.NotificationEvent) stack.NotificationEvent {
	name, _, _ := strings.Cut(string(event), ".")
	return stack.NotificationEvent(name)
}

// channel is a rule that leads events to a destination.
type channel struct {
	stack.NotificationChannel
	to *destination
}

// wants reports whether the channel's rule lets an event through.
func (ch *channel) wants(kind stack.NotificationEvent, severity stack.Severity) bool {
	return ch.Active && slices.Index(severitiesUp, severity) >= slices.Index(severitiesUp, ch.MinSeverity) &&
		(len(ch.Events) == 0 || slices.Contains(ch.Events, kind) || slices.Contains(ch.Events, family(kind)))
}

func (ch *channel) view() *stack.NotificationChannel {
	v := ch.NotificationChannel
	v.Verified = ch.to.Verified
	return &v
}

func (ch *channel) row(action string) stack.AuditEntry {
	return stack.AuditEntry{Action: "channel." + action, TraceID: ch.ID}
}

func notificationRoutes() []route {
	const one = "/v1/notifications/channels/{channel_id}"
	return []route{
		endpoint("GET", "/v1/notifications/channels", (*Server).listChannels),
		endpoint("POST", "/v1/notifications/channels", (*Server).createChannel, adminOnly),
		endpoint("PATCH", one, (*Server).updateChannel, adminOnly),
		endpoint("DELETE", one, (*Server).deleteChannel, adminOnly),
		endpoint("POST", one+"/send-code", (*Server).sendChannelCode, adminOnly, unlocked),
		endpoint("POST", one+"/verify", (*Server).verifyChannel, adminOnly),
		endpoint("POST", one+"/test", (*Server).testChannel, adminOnly, unlocked),
	}
}

func (s *Server) listChannels(_ context.Context, c *caller, _ none) (*[]stack.NotificationChannel, error) {
	list := []stack.NotificationChannel{}
	for ch := range c.op.channels.all() {
		list = append(list, *ch.view())
	}
	return &list, nil
}

// checkEvents refuses a filter that names what never happens: it would silence the channel.
func checkEvents(events []stack.NotificationEvent) error {
	const field = "body.events"
	if len(events) > len(eventNames) {
		return invalid(field, fmt.Sprintf("a list of %d", len(events)), fmt.Sprintf("a list of at most %d", len(eventNames)))
	}
	for i, e := range events {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := firstError(chosen(at, e, eventNames...)); err != nil {
			return err
		}
		if slices.Contains(events[:i], e) {
			return invalid(at, string(e), "named once")
		}
	}
	return nil
}

type createChannelIn struct {
	Body stack.ChannelCreateParams `body:""`
}

// createChannel takes the id of a destination or an address. An address that is new becomes a destination, by the same rules
// as one that is added on its own.
func (s *Server) createChannel(_ context.Context, c *caller, in createChannelIn) (*stack.NotificationChannel, error) {
	op, p := c.op, in.Body
	if err := firstError(oneOf("body.min_severity", p.MinSeverity, severitiesUp...)); err != nil {
		return nil, err
	}
	if err := checkEvents(p.Events); err != nil {
		return nil, err
	}
	if op.channels.len() >= maxChannels {
		return nil, tooMany("channels", maxChannels)
	}
	to, secret, err := s.channelDestination(c, p.ChannelType, p.Destination)
	if err != nil {
		return nil, err
	}
	now := s.clock.now()
	ch := &channel{to: to, NotificationChannel: stack.NotificationChannel{ID: newID("nch_"), OperatorID: op.id,
		ChannelType: to.ChannelType, Destination: to.Destination.Destination, DestinationID: to.ID,
		Events: append([]stack.NotificationEvent{}, p.Events...), MinSeverity: or(p.MinSeverity, stack.SeverityWarning), Active: true, CreatedAt: now}}
	op.channels.put(ch.ID, ch)
	op.setAlarm() // the first channel is somebody to tell
	op.record(now, ch.row("create"))
	shown := ch.view()
	shown.WebhookSecret = secret
	return shown, nil
}

// channelDestination finds the destination that a new channel leads to, or makes it, which gives a webhook its secret.
func (s *Server) channelDestination(
	c *caller, kind stack.ChannelType, address string,
) (to *destination, secret stack.Secret, err error) {
	if strings.HasPrefix(address, "ndst_") {
		if to, err = c.op.destinationByID(address); err != nil {
			return nil, secret, err
		}
		return to, secret, firstError(chosen("body.channel_type", kind, to.ChannelType))
	}
	if to, err = s.readDestination(kind, address); err != nil {
		return nil, secret, err
	}
	if known := c.op.destinationAt(to); known != nil {
		return known, secret, nil
	}
	made, err := s.newDestination(c, to)
	if err != nil {
		return nil, secret, err
	}
	return to, made.WebhookSecret, nil
}

type channelIn struct {
	ChannelID string `path:"channel_id"`
}

func (op *operator) channelByID(id string) (*channel, error) {
	return op.channels.find("channel", id)
}

// destinationOf finds where a channel leads.
func (op *operator) destinationOf(channelID string) (*destination, error) {
	ch, err := op.channelByID(channelID)
	if err != nil {
		return nil, err
	}
	return ch.to, nil
}

type updateChannelIn struct {
	ChannelID string                    `path:"channel_id"`
	Body      stack.ChannelUpdateParams `body:""`
}

func (s *Server) updateChannel(_ context.Context, c *caller, in updateChannelIn) (*stack.NotificationChannel, error) {
	ch, err := c.op.channelByID(in.ChannelID)
	if err != nil {
		return nil, err
	}
	p := in.Body
	if p.MinSeverity != nil {
		if err = firstError(chosen("body.min_severity", *p.MinSeverity, severitiesUp...)); err != nil {
			return nil, err
		}
	}
	if p.Events != nil {
		if err = checkEvents(*p.Events); err != nil {
			return nil, err
		}
		ch.Events = append([]stack.NotificationEvent{}, *p.Events...)
	}
	replace(&ch.MinSeverity, p.MinSeverity)
	replace(&ch.Active, p.Active)
	c.op.record(s.clock.now(), ch.row("update"))
	return ch.view(), nil
}

func (s *Server) deleteChannel(_ context.Context, c *caller, in channelIn) (*stack.Deleted, error) {
	ch, err := c.op.channelByID(in.ChannelID)
	if err != nil {
		return nil, err
	}
	c.op.channels.delete(ch.ID)
	c.op.record(s.clock.now(), ch.row("delete"))
	return &stack.Deleted{ID: ch.ID, Deleted: true}, nil
}

func (s *Server) sendChannelCode(ctx context.Context, c *caller, in channelIn) (*stack.CodeSent, error) {
	return s.sendCode(ctx, c, func() (*destination, error) { return c.op.destinationOf(in.ChannelID) })
}

type verifyChannelIn struct {
	ChannelID string   `path:"channel_id"`
	Body      codeBody `body:""`
}

func (s *Server) verifyChannel(_ context.Context, c *caller, in verifyChannelIn) (*stack.NotificationChannel, error) {
	ch, err := c.op.channelByID(in.ChannelID)
	if err != nil {
		return nil, err
	}
	if err = s.verifyCode(c, ch.to, in.Body.Code); err != nil {
		return nil, err
	}
	return ch.view(), nil
}

func (s *Server) testChannel(ctx context.Context, c *caller, in channelIn) (*stack.DeliveryTest, error) {
	return s.sendTest(ctx, c, in.ChannelID, func() (*destination, error) { return c.op.destinationOf(in.ChannelID) })
}
