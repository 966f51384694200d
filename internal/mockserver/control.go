package mockserver

import (
	"context"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

// The control routes let a test in another process move the clock, map upstreams, inject faults and stand in for the human.
// They are off unless asked for, and answer loopback only. (contract: decisions, Time, faults, control)
func controlRoutes() []route {
	return []route{
		endpoint("POST", "/_mock/clock", (*Server).controlClock, control),
		endpoint("POST", "/_mock/upstreams", (*Server).controlUpstream, control),
		endpoint("POST", "/_mock/faults", (*Server).controlFault, control),
		endpoint("POST", "/_mock/approve", (*Server).controlApprove, control),
		endpoint("POST", "/_mock/session", (*Server).controlSession, control),
		endpoint("POST", "/_mock/policy", (*Server).controlPolicy, control),
		endpoint("POST", "/_mock/reset", (*Server).controlReset, control),
		endpoint("GET", "/_mock/state", (*Server).controlState, control),
		endpoint("GET", "/_mock/notifications", (*Server).controlNotifications, control),
	}
}

func control(r *route) { r.control = true }

// checkControl lets only programs of this machine use the control routes. A web page may reach loopback too: its request
// shows by a Host that is not loopback, or by a content type that needs no permission across origins.
func checkControl(req *http.Request) error {
	if !fromLoopback(req) {
		return forbidden("the control routes answer loopback only", map[string]any{"check": "loopback", "sent": clip(req.Host),
			"allowed": "a loopback address and a loopback Host header"})
	}
	if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); req.Method == http.MethodPost && (err != nil || kind != "application/json") {
		return unsupportedMediaType(req)
	}
	return nil
}

// fromLoopback checks both ends: the address that connected, and the host that the caller thinks it talks to. The in-memory
// network has no address.
func fromLoopback(req *http.Request) bool {
	if req.RemoteAddr == "pipe" {
		return true
	}
	remote, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil || !isLoopback(remote) {
		return false
	}
	return isLoopback((&url.URL{Host: req.Host}).Hostname())
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

type controlClockIn struct {
	Body struct {
		AdvanceSeconds float64 `json:"advance_seconds"`
	} `body:""`
}

type controlClockOut struct {
	Now time.Time `json:"now"`
}

const maxAhead = 10 * 365 * 24 * time.Hour // of the process's clock, in all

func (s *Server) controlClock(_ context.Context, _ *caller, in controlClockIn) (*controlClockOut, error) {
	seconds, left := in.Body.AdvanceSeconds, maxAhead-time.Duration(s.clock.ahead.Load())
	if seconds < 0 || seconds > left.Seconds() {
		return nil, invalid("body.advance_seconds", seconds, fmt.Sprintf("0 to %.0f: the clock may go ten years ahead in all", left.Seconds()))
	}
	return &controlClockOut{s.Advance(time.Duration(seconds * float64(time.Second)))}, nil
}

type controlUpstream struct {
	Host string `json:"host"`
	URL  string `json:"url"`
}

type controlUpstreamIn struct {
	Body controlUpstream `body:""`
}

func (s *Server) controlUpstream(_ context.Context, _ *caller, in controlUpstreamIn) (*controlUpstream, error) {
	if err := firstError(filled("body.host", in.Body.Host), filled("body.url", in.Body.URL)); err != nil {
		return nil, err
	}
	if err := s.MapUpstream(in.Body.Host, forward.Target{URL: in.Body.URL}); err != nil {
		return nil, refuse(http.StatusBadRequest, "INVALID_REQUEST", err.Error(), map[string]any{"check": "validation", "field": "body"})
	}
	return &in.Body, nil
}

type controlFaultIn struct {
	Body struct {
		Method            string  `json:"method,omitempty"`
		Path              string  `json:"path"`
		Times             int     `json:"times,omitempty"`
		Status            int     `json:"status,omitempty"`
		Code              string  `json:"code,omitempty"`
		RetryAfterSeconds int     `json:"retry_after_seconds,omitempty"`
		DelayMS           int     `json:"delay_ms,omitempty"`
		Close             CloseAt `json:"close,omitempty"`
		TruncateBytes     int     `json:"truncate_bytes,omitempty"`
	} `body:""`
}

type controlFaultOut struct {
	FaultID string `json:"fault_id"`
}

func (s *Server) controlFault(_ context.Context, _ *caller, in controlFaultIn) (*controlFaultOut, error) {
	b := in.Body
	// Bounded here, since a larger number would not fit a duration; AddFault checks the rest.
	if err := firstError(
		within("body.delay_ms", b.DelayMS, 0, 3_600_000),
		within("body.retry_after_seconds", b.RetryAfterSeconds, 0, 1_000_000),
	); err != nil {
		return nil, err
	}
	id, err := s.AddFault(Fault{Method: b.Method, Path: b.Path, Times: b.Times, Status: b.Status, Code: b.Code,
		RetryAfter: time.Duration(b.RetryAfterSeconds) * time.Second, Delay: time.Duration(b.DelayMS) * time.Millisecond, Close: b.Close,
		TruncateBytes: b.TruncateBytes})
	if err != nil {
		return nil, err
	}
	return &controlFaultOut{id}, nil
}

type controlApproveIn struct {
	Body struct {
		ApprovalID string `json:"approval_id"`
	} `body:""`
}

type controlApproveOut struct {
	ApprovalID string `json:"approval_id"`
	Status     string `json:"status"`
}

func (s *Server) controlApprove(_ context.Context, _ *caller, in controlApproveIn) (*controlApproveOut, error) {
	if err := s.Approve(in.Body.ApprovalID); err != nil {
		return nil, err
	}
	return &controlApproveOut{in.Body.ApprovalID, "approved"}, nil
}

type controlPolicyIn struct {
	Body PolicyChange `body:""`
}

func (s *Server) controlPolicy(_ context.Context, _ *caller, in controlPolicyIn) (*PolicyChange, error) {
	p, err := s.ChangePolicy(in.Body)
	if err != nil {
		return nil, err
	}
	delay := int(p.RevocationDelay / time.Second)
	return &PolicyChange{RequireIntentApproval: &p.RequireIntentApproval, RevocationDelaySeconds: &delay,
		RateLimitPerMinute: &p.RateLimitPerMinute, Tier: &p.Tier,
		// Policies of our own are not among the fields that every answer has.
		RequireDestinationApproval: unlessZero(p.RequireDestinationApproval),
		TenantLimit:                unlessZero(p.TenantLimit), ActionCap: unlessZero(p.ActionCap), PartnerInactive: unlessZero(p.PartnerInactive)}, nil
}

func unlessZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

type controlResetIn struct {
	Body struct{} `body:""`
}

type controlResetOut struct {
	URL        string `json:"url"`
	APIKey     string `json:"api_key"`
	OperatorID string `json:"operator_id"`
}

func (s *Server) controlReset(ctx context.Context, _ *caller, _ controlResetIn) (*controlResetOut, error) {
	s.Reset()
	return &controlResetOut{baseURL(ctx), s.first.APIKey, s.first.OperatorID}, nil
}

// baseURL is the address on which the request came in.
func baseURL(ctx context.Context) string {
	if addr, ok := ctx.Value(http.LocalAddrContextKey).(net.Addr); ok {
		return "http://" + addr.String()
	}
	return ""
}

// controlSessionOut is the session of a person in the dashboard.
type controlSessionOut struct {
	SessionToken stack.Secret `json:"session_token"`
	ExpiresAt    time.Time    `json:"expires_at"`
}

func (s *Server) controlSession(context.Context, *caller, none) (*controlSessionOut, error) {
	session, expiresAt := s.SessionToken()
	return &controlSessionOut{stack.NewSecret(session), expiresAt}, nil
}

func (s *Server) controlState(context.Context, *caller, none) (*map[string]int, error) {
	counts := s.Counts()
	return &counts, nil
}

// controlNotificationsOut is what the first operator was told, for tests that cannot receive it: codes are in the messages.
type controlNotificationsOut struct {
	Messages   []Message  `json:"messages"`
	Deliveries []Delivery `json:"deliveries"`
}

func (s *Server) controlNotifications(context.Context, *caller, none) (*controlNotificationsOut, error) {
	return &controlNotificationsOut{append([]Message{}, s.Outbox()...), append([]Delivery{}, s.Deliveries()...)}, nil
}
