package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/getstack-go/stack"
)

const (
	maxBody      = 1 << 20  // of every route but the proxy
	maxProxyBody = 10 << 20 // of a proxied call

	bodyPatience = time.Minute // for the whole body of a request to come
)

// route is one endpoint: who may call it, what it takes and gives, and the function that holds its rule.
type route struct {
	method, pattern string
	name            string         // the handler's
	public          bool           // no bearer needed
	operatorOnly    bool           // member keys are refused
	role            stack.TeamRole // the least that a member needs
	control         bool           // no bearer, but loopback only and JSON only
	unlocked        bool           // the handler takes its operator's lock itself
	waits           bool           // the handler lets go of the lock while it waits for others
	idempotent      bool           // an Idempotency-Key makes a repetition give the first answer
	keyRequired     bool           // and there must be one
	billing         bool           // it changes something about billing, which a tenant may not
	foreignBody     bool           // the body may be of any content type
	oauth           bool           // errors are in the shape of RFC 6749
	sendsOn         bool           // a page that may redirect
	showsProblems   bool           // a page that shows what is wrong
	maxBody         int64          // bytes
	success         int            // status of a good answer
	in, out         reflect.Type
	media           []string // of a good answer; nil is JSON
	handle          func(s *Server, ctx context.Context, c *caller, in reflect.Value) (any, error)
}

type routeOption func(*route)

func public(r *route)        { r.public = true }
func created(r *route)       { r.success = http.StatusCreated }
func operatorOnly(r *route)  { r.operatorOnly = true }
func unlocked(r *route)      { r.unlocked = true }
func waits(r *route)         { r.waits = true }
func billing(r *route)       { r.billing = true }
func foreignBody(r *route)   { r.foreignBody = true }
func sendsOn(r *route)       { r.sendsOn, r.showsProblems = true, true }
func showsProblems(r *route) { r.showsProblems = true }
func oauth(r *route)         { r.public, r.oauth = true, true }
func adminOnly(r *route)     { r.role = stack.RoleAdmin }
func reads(r *route)         { r.role = stack.RoleReadonly } // though it is no GET
func bodyLimit(n int64) routeOption {
	return func(r *route) { r.maxBody = n }
}

// endpoint puts a typed handler into the route table. In is a struct that [bind] fills; use none for a call without input.
func endpoint[In, Out any](
	method, pattern string, handler func(*Server, context.Context, *caller, In) (*Out, error), opts ...routeOption,
) route {
	r := route{method: method, pattern: pattern, name: nameOf(handler), maxBody: maxBody, success: http.StatusOK, role: stack.RoleStandard,
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out]()}
	r.handle = func(s *Server, ctx context.Context, c *caller, in reflect.Value) (any, error) {
		out, err := handler(s, ctx, c, in.Interface().(In))
		if err != nil {
			return nil, err
		}
		return out, nil
	}
	if method == http.MethodGet {
		r.role = stack.RoleReadonly
	}
	for _, opt := range opts {
		opt(&r)
	}
	return r
}

// nameOf is the name of a method.
func nameOf(method any) string {
	name := runtime.FuncForPC(reflect.ValueOf(method).Pointer()).Name()
	return name[strings.LastIndexByte(name, '.')+1:]
}

// named is for a handler that is no method.
func named(name string) routeOption { return func(r *route) { r.name = name } }

// none is the input of an endpoint that takes nothing.
type none struct{}

// routes is the one route table.
func routes() []route {
	return slices.Concat(
		teamRoutes(),
		agentRoutes(),
		agentKeyRoutes(),
		agentApprovalRoutes(),
		passportRoutes(),
		missionRoutes(),
		serviceRoutes(),
		providerRoutes(),
		credentialRoutes(),
		proxyRoutes(),
		auditRoutes(),
		securityEventRoutes(),
		reviewRoutes(),
		skillRoutes(),
		skillInvocationRoutes(),
		skillRequestRoutes(),
		usageRoutes(),
		billingRoutes(),
		identityRoutes(),
		serviceRequirementRoutes(),
		dropoffRoutes(),
		scanRoutes(),
		detectorConfigRoutes(),
		intentRoutes(),
		llmRoutes(),
		piiConfigRoutes(),
		notificationRoutes(),
		deliveryMethodRoutes(),
		fleetRoutes(),
		authorityRoutes(),
		evidencePackRoutes(),
		inboundWebhookRoutes(),
		partnerTenantRoutes(),
		partnerConnectRoutes(),
		openAPIRoutes(),
		oauthRoutes(),
	)
}

func (s *Server) newRouter(control bool) http.Handler {
	mux := chi.NewRouter()
	s.routes = routes()
	if control {
		s.routes = append(s.routes, controlRoutes()...)
	}
	for i := range s.routes {
		r := &s.routes[i]
		mux.MethodFunc(r.method, r.pattern, func(w http.ResponseWriter, req *http.Request) { s.serve(w, req, r) })
	}
	mux.NotFound(s.unknownRoute)
	mux.MethodNotAllowed(s.wrongMethod)
	return mux
}

// serve runs one request through its route: faults, body, caller, input, handler, answer.
func (s *Server) serve(w http.ResponseWriter, req *http.Request, r *route) {
	id := newID("req_")
	w.Header().Set("X-Request-Id", id)
	// The body is read first of all: only then does the connection tell when the caller hangs up, which ends a fault's delay.
	body, bodyErr := readBody(w, req, r)
	logged := &statusWriter{ResponseWriter: w}
	w = logged
	began := time.Now()
	defer func() {
		s.logger.Info("request", "method", r.method, "route", r.pattern, "status", logged.status,
			"duration", time.Since(began), "request_id", id)
	}()
	fault, refusal := s.faults.match(req.Context(), r.method, r.pattern)
	if refusal != nil {
		s.answerError(w, req, id, refusal, r.oauth)
		return
	}
	fault.before()
	var out *document
	err := bodyErr
	if err == nil {
		out, err = s.dispatch(req, r, id, body)
	}
	if out != nil && out.live != nil {
		defer out.live.close()
	}
	fault.after()
	w = fault.writer(w)
	if err != nil {
		s.answerError(w, req, id, err, r.oauth)
		return
	}
	s.write(w, or(out.status, r.success), out)
}

// statusWriter remembers the status for the log; 0 is a dropped connection.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// dispatch runs the handler and encodes what it gives while its operator is still locked.
func (s *Server) dispatch(req *http.Request, r *route, requestID string, body []byte) (out *document, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.logger.Error("handler panicked", "route", r.method+" "+r.pattern, "request_id", requestID, "panic", fmt.Sprint(p),
				"stack", string(debug.Stack()))
			err = errors.New("panic")
		}
	}()
	c, err := s.authenticate(req, r)
	if err != nil {
		return nil, err
	}
	c.requestID = requestID
	in := reflect.New(r.in).Elem()
	if err = bind(in, req, body); err != nil {
		return nil, err
	}
	if err = s.withinReach(c, in); err != nil {
		return nil, err
	}
	key, err := r.keyOf(req)
	if err != nil {
		return nil, err
	}
	run := func() (*document, error) {
		answer, refusal := r.handle(s, req.Context(), c, in)
		if refusal != nil {
			return nil, refusal
		}
		c.granted(answer)
		return encode(answer)
	}
	if c.op == nil || r.unlocked && key == "" {
		return run()
	}
	c.op.mu.Lock()
	defer c.op.mu.Unlock()
	now := s.clock.now()
	c.op.sweep(now)
	if key == "" {
		return run()
	}
	digest, err := requestDigest(req, body)
	if err != nil {
		return nil, err
	}
	return once(c.op, now, r.method+" "+r.pattern, key, digest, func() (*document, error) {
		if r.unlocked {
			c.op.mu.Unlock()
			defer c.op.mu.Lock()
		}
		return run()
	})
}

// document is an answer with its bytes made. A handler returns one itself where the answer is not JSON.
type document struct {
	status      int // 200 when it is 0
	contentType string
	header      http.Header
	body        []byte
	live        liveBody // in place of body
}

// liveBody is a body that is sent while it comes into being. The operator is not locked then.
type liveBody interface {
	// send writes the body. An error drops the connection, so that the caller does not take a part for the whole.
	send(w io.Writer, flush func() error) error
	// close is called once, sent or not.
	close()
}

func encode(answer any) (*document, error) {
	if d, ok := answer.(*document); ok {
		return d, nil
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(answer); err != nil {
		return nil, err
	}
	return &document{contentType: "application/json", body: buf.Bytes()}, nil
}

func (s *Server) write(w http.ResponseWriter, status int, out *document) {
	h := w.Header()
	for name, values := range out.header {
		h[name] = values
	}
	h.Set("Content-Type", out.contentType)
	h.Set("Cache-Control", "no-store")
	if out.live != nil {
		w.WriteHeader(status)
		flush := http.NewResponseController(w).Flush
		if flush() != nil || out.live.send(w, flush) != nil {
			panic(http.ErrAbortHandler)
		}
		return
	}
	h.Set("Content-Length", fmt.Sprint(len(out.body)))
	w.WriteHeader(status)
	_, _ = w.Write(out.body)
}

// answerError writes an error in the API's shape, or in that of OAuth. What is not an apiError is ours: it is logged and not
// shown.
func (s *Server) answerError(w http.ResponseWriter, req *http.Request, requestID string, err error, oauth bool) {
	var refusal *apiError
	if !errors.As(err, &refusal) {
		s.logger.Error("request failed", "method", req.Method, "request_id", requestID, "error", err)
		refusal = refuse(http.StatusInternalServerError, "INTERNAL", "the server failed; its log has request "+requestID, nil)
	}
	var body any = refusal.body()
	if oauth {
		body = refusal.oauthBody()
	}
	out, err := encode(body)
	if err != nil {
		s.logger.Error("error cannot be encoded", "request_id", requestID, "error", err)
		out = &document{contentType: "application/json", body: []byte(`{"error":{"code":"INTERNAL","message":"the server failed"}}`)}
	}
	out.header = refusal.header
	if refusal.status == http.StatusUnauthorized && refusal.header == nil {
		out.header = http.Header{"Www-Authenticate": {challenge(req.Context())}}
	}
	if refusal.retryAfter > 0 {
		w.Header().Set("Retry-After", retryAfterSeconds(refusal.retryAfter))
	}
	s.write(w, refusal.status, out)
}

const maxUnknown = 100 // requests without a route that are remembered

// noteUnknown tells of a request that has no route: most likely somebody mistyped.
func (s *Server) noteUnknown(req *http.Request, requestID, nearest string) {
	s.logger.Warn("no such route", "method", clip(req.Method), "path", clip(req.URL.Path), "nearest", nearest,
		"request_id", requestID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unknown) < maxUnknown {
		s.unknown = append(s.unknown, clip(req.Method)+" "+clip(req.URL.Path)+" (the nearest is "+nearest+")")
	}
}

func (s *Server) unknownRoute(w http.ResponseWriter, req *http.Request) {
	id := newID("req_")
	w.Header().Set("X-Request-Id", id)
	nearest := s.nearestRoute(req.Method, req.URL)
	s.noteUnknown(req, id, nearest)
	s.answerError(w, req, id, refuse(http.StatusNotFound, "ROUTE_NOT_FOUND",
		fmt.Sprintf("no route %s %s; the nearest is %s", req.Method, clip(req.URL.Path), nearest),
		map[string]any{"check": "route", "sent": req.Method + " " + clip(req.URL.Path), "nearest": nearest}), false)
}

func (s *Server) wrongMethod(w http.ResponseWriter, req *http.Request) {
	var allowed []string
	for _, r := range s.routes {
		if matches(r.pattern, req.URL) && !slices.Contains(allowed, r.method) {
			allowed = append(allowed, r.method)
		}
	}
	if len(allowed) == 0 { // of a method that it does not know, chi does not look for the path
		s.unknownRoute(w, req)
		return
	}
	slices.Sort(allowed)
	id := newID("req_")
	w.Header().Set("X-Request-Id", id)
	nearest := s.nearestRoute(req.Method, req.URL)
	s.noteUnknown(req, id, nearest)
	err := refuse(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED",
		fmt.Sprintf("%s is not allowed on %s; %s is", req.Method, clip(req.URL.Path), strings.Join(allowed, ", ")),
		map[string]any{"check": "method", "sent": req.Method, "allowed": allowed, "nearest": nearest})
	err.header = http.Header{"Allow": {strings.Join(allowed, ", ")}}
	s.answerError(w, req, id, err, false)
}

func matches(pattern string, u *url.URL) bool {
	have, want := strings.Split(u.EscapedPath(), "/"), strings.Split(pattern, "/")
	if len(have) != len(want) {
		return false
	}
	for i, segment := range want {
		if !isPlaceholder(segment) && segment != have[i] {
			return false
		}
	}
	return true
}

func isPlaceholder(segment string) bool { return strings.HasPrefix(segment, "{") }

// nearestRoute finds the route whose pattern differs least from what was asked for.
func (s *Server) nearestRoute(method string, u *url.URL) string {
	best, least := "", 1<<30
	have := strings.Split(clip(u.EscapedPath()), "/")
	for _, r := range s.routes {
		want := strings.Split(r.pattern, "/")
		cost := 0
		if r.method != method {
			cost = 1
		}
		for i := range max(len(have), len(want)) {
			switch {
			case i >= len(have):
				cost += 2 + len(want[i])/2
			case i >= len(want):
				cost += 2 + len(have[i])/2
			case isPlaceholder(want[i]):
				cost++
			default:
				cost += editDistance(have[i], want[i])
			}
		}
		if cost < least {
			best, least = r.method+" "+r.pattern, cost
		}
	}
	return best
}

// editDistance counts the letters to change, insert or drop.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func unescapeSegment(segment string) string {
	if plain, err := url.PathUnescape(segment); err == nil {
		return plain
	}
	return segment
}
