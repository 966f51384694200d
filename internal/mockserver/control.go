package mockserver

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

// The control routes let a test in another process move the clock, map upstreams, inject faults and stand in for the human.
// They are off unless asked for, and answer loopback only. (contract: decisions, Time, faults, control)
func controlRoutes() []route {
	return []route{
		endpoint("POST", "/_mock/clock", (*Server).controlClock, public),
		endpoint("POST", "/_mock/upstreams", (*Server).controlUpstream, public),
		endpoint("POST", "/_mock/faults", (*Server).controlFault, public),
		endpoint("POST", "/_mock/approve", (*Server).controlApprove, public),
		endpoint("POST", "/_mock/policy", (*Server).controlPolicy, public),
		endpoint("POST", "/_mock/reset", (*Server).controlReset, public),
		endpoint("GET", "/_mock/state", (*Server).controlState, public),
	}
}

// mountControl adds the control routes to the router.
func (s *Server) mountControl(mux chi.Router) {
	for _, r := range controlRoutes() {
		mux.MethodFunc(r.method, r.pattern, func(w http.ResponseWriter, req *http.Request) {
			if !fromLoopback(req) {
				id := newID("req_")
				w.Header().Set("X-Request-Id", id)
				s.answerError(w, req, id, forbidden("the control routes answer loopback only",
					map[string]any{"check": "loopback", "sent": clip(req.Host), "allowed": "a loopback address and a loopback Host header"}))
				return
			}
			s.serve(w, req, &r)
		})
	}
}

// fromLoopback checks both ends: the address that connected, and the Host header, by which a page in a browser that was
// tricked into a request shows. The in-memory network has no address.
func fromLoopback(req *http.Request) bool {
	if req.RemoteAddr == "pipe" {
		return true
	}
	remote, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil || !isLoopback(remote) {
		return false
	}
	host, _, err := net.SplitHostPort(req.Host)
	if err != nil {
		host = req.Host
	}
	return isLoopback(host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

type controlClockIn struct {
	Body struct {
		AdvanceSeconds float64 `json:"advance_seconds"`
	} `body:""`
}

type controlClockOut struct {
	Now time.Time `json:"now"`
}

const maxAdvance = 10 * 365 * 24 * time.Hour

func (s *Server) controlClock(_ context.Context, _ *caller, in controlClockIn) (*controlClockOut, error) {
	seconds := in.Body.AdvanceSeconds
	if seconds < 0 || seconds > maxAdvance.Seconds() {
		return nil, invalid("body.advance_seconds", seconds, "0 to ten years")
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
		return nil, refuse(http.StatusBadRequest, "INVALID_REQUEST", err.Error(), map[string]any{"check": "validation", "sent": in.Body})
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
	if err := firstError(
		filled("body.path", b.Path),
		within("body.times", b.Times, 0, 1_000_000),
		oneOf("body.close", b.Close, CloseBefore, CloseAfter),
		within("body.delay_ms", b.DelayMS, 0, 3_600_000),
		within("body.retry_after_seconds", b.RetryAfterSeconds, 0, 1_000_000),
		within("body.truncate_bytes", b.TruncateBytes, 0, 1<<30),
	); err != nil {
		return nil, err
	}
	if b.Status != 0 && (b.Status < 400 || b.Status > 599) {
		return nil, invalid("body.status", b.Status, "400 to 599")
	}
	return &controlFaultOut{s.AddFault(Fault{Method: b.Method, Path: b.Path, Times: b.Times, Status: b.Status, Code: b.Code,
		RetryAfter: time.Duration(b.RetryAfterSeconds) * time.Second, Delay: time.Duration(b.DelayMS) * time.Millisecond, Close: b.Close,
		TruncateBytes: b.TruncateBytes})}, nil
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

type controlPolicy struct {
	RequireIntentApproval  *bool       `json:"require_intent_approval,omitempty"`
	RevocationDelaySeconds *int        `json:"revocation_delay_seconds,omitempty"`
	RateLimitPerMinute     *int        `json:"rate_limit_per_minute,omitempty"`
	Tier                   *stack.Tier `json:"tier,omitempty"`
}

type controlPolicyIn struct {
	Body controlPolicy `body:""`
}

func (s *Server) controlPolicy(_ context.Context, _ *caller, in controlPolicyIn) (*controlPolicy, error) {
	p, b := s.Policy(), in.Body
	if b.RequireIntentApproval != nil && *b.RequireIntentApproval {
		return nil, invalid("body.require_intent_approval", true, "false, as long as this mock has no gate for intent approvals")
	}
	delay := int(p.RevocationDelay / time.Second)
	replace(&p.RequireIntentApproval, b.RequireIntentApproval)
	replace(&delay, b.RevocationDelaySeconds)
	replace(&p.RateLimitPerMinute, b.RateLimitPerMinute)
	replace(&p.Tier, b.Tier)
	if err := firstError(
		within("body.revocation_delay_seconds", delay, 0, 3600),
		within("body.rate_limit_per_minute", p.RateLimitPerMinute, 0, 1_000_000),
		oneOf("body.tier", or(p.Tier, "?"), stack.TierFree, stack.TierDeveloper, stack.TierStudio, stack.TierEnterprise),
	); err != nil {
		return nil, err
	}
	p.RevocationDelay = time.Duration(delay) * time.Second
	s.SetPolicy(p)
	return &controlPolicy{&p.RequireIntentApproval, &delay, &p.RateLimitPerMinute, &p.Tier}, nil
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

func (s *Server) controlState(context.Context, *caller, none) (*map[string]int, error) {
	counts := s.Counts()
	return &counts, nil
}
