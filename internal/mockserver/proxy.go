package mockserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/constraint"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

func proxyRoutes() []route {
	return []route{
		endpoint("POST", "/v1/proxy", (*Server).proxy, unlocked, bodyLimit(maxProxyBody)),
		endpoint("POST", "/v1/proxy/operations/get", (*Server).getOperation),
		endpoint("GET", "/v1/proxy/usage", (*Server).proxyUsage),
	}
}

type proxyIn struct {
	Passport    stack.Secret `header:"X-Passport-Token"`
	ApprovalID  string       `header:"X-Intent-Approval-Id"`
	OperationID string       `header:"X-STACK-Authority-Request-Id"`
	Body        proxyBody    `body:""`
}

// proxyBody is a stack.ProxyRequest whose body is kept as it was written, so that numbers stay exact.
type proxyBody struct {
	Service string            `json:"service"`
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"`
	Query   map[string]string `json:"query,omitempty"`
}

// proxyCall is one call on its way through the checks.
type proxyCall struct {
	op          *operator
	now         time.Time
	in          proxyBody
	approvalID  string
	operationID string            // of a write; empty where it has none
	digest      [sha256.Size]byte // of a write with an id
	content     any               // the body as the service will understand it
	target      *url.URL          // with placeholders filled in
	targetErr   error

	passport   *passport
	service    stack.PassportService
	connection *connection
	credential forward.Credential
	operation  *operation           // nil for a call without an operation id
	replay     *stack.ProxyResponse // set when the operation has its answer already
}

// proxyChecks is the pipeline before a call is forwarded, in its order. Every one runs with the operator locked; the first
// that refuses ends the call. The checks of intent approvals and injection have their places between these.
// (contract: decisions, Proxy)
var proxyChecks = []struct {
	name  string
	check func(*Server, *proxyCall) error
}{
	{"plan_meter", (*Server).checkPlan},
	{"service_scope", (*Server).checkServiceScope},
	{"identity_requirements", (*Server).checkIdentity},
	{"constraints", (*Server).checkConstraints},
	{"mission_caps", (*Server).checkMissionCaps},
	{"data_flow", (*Server).checkDataFlow},
	// injection scan of the outgoing body
	// intent approval
	{"operation_replay", (*Server).checkReplay},
	{"credential", (*Server).openCredential},
	{"url_safety", (*Server).checkURL},
}

// proxy sends a call to a connected service under a passport. The operator is locked while the call is checked and while
// its outcome is recorded, not while the service is waited for.
func (s *Server) proxy(ctx context.Context, c *caller, in proxyIn) (*stack.ProxyResponse, error) {
	call := &proxyCall{op: c.op, in: in.Body, approvalID: in.ApprovalID, operationID: in.OperationID}
	if err := call.validate(); err != nil {
		return nil, err
	}
	if err := s.admitCall(call, in.Passport); err != nil {
		return nil, err
	}
	if call.replay != nil {
		return call.replay, nil
	}
	if call.operation != nil {
		ctx = context.WithoutCancel(ctx) // a caller who hangs up must find the answer under the operation id
	}
	began := s.clock.now()
	resp, err := s.forward.Do(ctx, call.request())
	return s.settleCall(call, resp, err, s.clock.now().Sub(began))
}

// request is the call as it goes out.
func (call *proxyCall) request() forward.Request {
	return forward.Request{Method: call.in.Method, URL: call.target, Query: call.in.Query, Headers: call.in.Headers,
		Body: call.in.Body, Credential: call.credential, AllowedHosts: call.connection.AllowedHosts}
}

var proxyMethods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

// validate refuses what is wrong with the request itself, before anything about its caller is looked at.
func (call *proxyCall) validate() error {
	in := &call.in
	in.Method = strings.ToUpper(in.Method)
	if !slices.Contains(proxyMethods, in.Method) {
		return invalid("body.method", in.Method, "one of "+strings.Join(proxyMethods, ", "))
	}
	if err := firstError(filled("body.service", in.Service), atMost("body.service", in.Service, maxServiceName)); err != nil {
		return err
	}
	if call.operationID != "" {
		if err := checkOperationID("header X-STACK-Authority-Request-Id", call.operationID); err != nil {
			return err
		}
	}
	if in.Method == http.MethodGet { // only a write has to happen once
		call.operationID = ""
	}
	content, err := forward.DecodeBody(in.Headers, in.Body)
	var failure *forward.Error
	if errors.As(err, &failure) {
		return refuseForward("body", failure)
	}
	if err != nil {
		return err
	}
	call.content = content
	if call.operationID != "" {
		call.digest, err = call.makeDigest()
	}
	return err
}

// admitCall runs the checks and reserves what the call uses.
func (s *Server) admitCall(call *proxyCall, token stack.Secret) error {
	op := call.op
	op.mu.Lock()
	defer op.mu.Unlock()
	call.now = s.clock.now()
	op.sweep(call.now)
	p, err := s.readToken(op, token)
	if err != nil {
		return err
	}
	if err = op.usable(p, call.now, op.policy.RevocationDelay); err != nil {
		return err
	}
	call.passport = p
	if f := p.burst.ProxiedCall(call.now); f != nil {
		op.raise(call.now, p, *f)
		if p.ended() {
			return call.refused(p.mustBeOpen(call.now))
		}
	}
	call.resolveTarget()
	for _, step := range proxyChecks {
		if err := step.check(s, call); err != nil {
			return call.refused(err)
		}
		if call.replay != nil {
			p.remember(call.in.Service, call.replay)
			op.record(call.now, call.row(stack.OutcomeSuccess, "", "replayed"))
			return nil
		}
	}
	if err := op.charge(call.now, meterActions); err != nil {
		return call.refused(err)
	}
	call.use(1)
	call.beginOperation()
	return nil
}

// use counts the call, or takes the count back, against the caps of its Mission.
func (call *proxyCall) use(n int) {
	usage := &call.passport.mission.Usage
	usage.Actions += n
	usage.ActionsPerService[call.in.Service] += n
}

// refused records a call that a check has stopped.
func (call *proxyCall) refused(err error) error {
	code := "INTERNAL"
	var refusal *apiError
	if errors.As(err, &refusal) {
		code = refusal.code
	}
	call.op.record(call.now, call.row(stack.OutcomeBlocked, code, err.Error()))
	call.observe(true)
	call.op.note(call.now, call.passport, "credential.proxy", map[string]any{"service": clip(call.in.Service), "method": call.in.Method,
		"url": call.bareURL(), "refused": code})
	return err
}

// row begins the audit row of a call.
func (call *proxyCall) row(outcome stack.AuditOutcome, code, message string) stack.AuditEntry {
	row := call.passport.row("credential.proxy")
	row.Layer, row.Outcome, row.ErrorCode, row.ErrorMessage = "vault", outcome, code, message
	if len(call.in.Body) > 0 {
		sum := sha256.Sum256(call.in.Body)
		row.PayloadHash = hex.EncodeToString(sum[:])
	}
	return row
}

const maxObserved = 50_000 // calls that one passport's review can look at

// observe keeps the call for the review at checkout.
func (call *proxyCall) observe(failed bool) {
	p := call.passport
	if len(p.observed) < maxObserved {
		p.observed = append(p.observed, detect.ObservedCall{Service: call.in.Service, Method: call.in.Method, URL: call.bareURL(),
			Failed: failed})
	}
}

// bareURL is what may be kept of the URL: no user information, query or fragment.
func (call *proxyCall) bareURL() string {
	if call.target == nil {
		return ""
	}
	return call.target.Scheme + "://" + call.target.Host + call.target.EscapedPath()
}

// resolveTarget fills in placeholders and parses the URL. A failure is told at its place in the order.
func (call *proxyCall) resolveTarget() {
	raw := call.in.URL
	if service, ok := call.passport.service(call.in.Service); ok {
		call.connection, _ = call.op.connections.get(service.ConnectionID)
	}
	if strings.Contains(raw, "{{") && call.connection != nil {
		raw, call.targetErr = forward.Expand(raw, call.connection.Fields)
		if call.targetErr != nil {
			return
		}
	}
	call.target, call.targetErr = forward.ParseURL(raw)
}

func (s *Server) checkPlan(call *proxyCall) error { return call.op.charge(call.now, meterProxy) }

func (s *Server) checkServiceScope(call *proxyCall) error {
	p, name := call.passport, call.in.Service
	service, ok := p.service(name)
	if !ok {
		call.op.raise(call.now, p, outsideScope(p, name, "A proxied call names a service outside the passport's scope."))
		return forbidden(fmt.Sprintf("service %q is outside the passport's scope", clip(name)), map[string]any{"check": "service_scope",
			"sent": clip(name), "allowed": p.reachableServices(), "intent_services": p.claims.STK.IntentServices,
			"granted_providers": p.grantedProviders()})
	}
	call.service = service
	return nil
}

func (p *passport) reachableServices() []string {
	names := []string{}
	for _, name := range p.grantedProviders() {
		if p.declares(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (s *Server) checkConstraints(call *proxyCall) error {
	if len(call.service.Constraints) == 0 {
		return nil
	}
	if call.targetErr != nil {
		return call.invalidURL()
	}
	v := constraint.Check(call.service.Constraints, constraint.Request{Method: call.in.Method, URL: forward.WithQuery(call.target, call.in.Query),
		Headers: call.in.Headers, Body: call.content})
	if v == nil {
		return nil
	}
	call.op.raise(call.now, call.passport, detect.Finding{Signal: detect.ConstraintViolation, Severity: stack.SeverityWarning,
		Detail: clip(v.Constraint.Path), Message: "A proxied call breaks a constraint: " + v.Error() + ".",
		Metadata: map[string]any{"service": call.in.Service, "path": v.Constraint.Path, "op": v.Constraint.Op}})
	return forbidden("a constraint does not hold: "+v.Error(), map[string]any{"check": "constraint", "path": v.Constraint.Path,
		"op": v.Constraint.Op, "sent": clipped(v.Got), "allowed": v.Constraint.Value, "missing": v.Missing})
}

// checkMissionCaps refuses the call that would cross a cap, or lets it through with a warning where the Mission says so. The
// repetition of a write that was sent already is no further action.
func (s *Server) checkMissionCaps(call *proxyCall) error {
	m, repeated := call.passport.mission, call.isRepetition()
	var crossed []capCrossing
	if limit := m.Caps.MaxActions; limit > 0 && m.Usage.Actions >= limit && !repeated {
		crossed = append(crossed, capCrossing{"max_actions", m.Usage.Actions + 1, limit})
	}
	if limit, ok := m.Caps.MaxActionsPerService[call.in.Service]; ok && m.Usage.ActionsPerService[call.in.Service] >= limit && !repeated {
		crossed = append(crossed, capCrossing{"max_actions_per_service", m.Usage.ActionsPerService[call.in.Service] + 1, limit})
	}
	if m.maxDuration > 0 && call.now.Sub(m.OpenedAt) > m.maxDuration {
		crossed = append(crossed, capCrossing{"max_duration_seconds", int(call.now.Sub(m.OpenedAt) / time.Second), int(m.maxDuration / time.Second)})
	}
	for _, c := range crossed {
		if err := call.op.crosses(call.now, call.passport, m, c, "A proxied call", map[string]any{"service": call.in.Service}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) checkDataFlow(call *proxyCall) error {
	parts := []detect.Part{{Name: "body", Value: call.content}, {Name: "query", Value: call.in.Query}}
	if text, ok := call.content.(string); ok { // a form with a fault in it comes as text, and the service may read it yet
		parts = append(parts, detect.Part{Name: "body", Value: unescaped(text)})
	}
	if call.target != nil {
		parts = append(parts, detect.Part{Name: "path", Value: call.target.Path},
			detect.Part{Name: "query", Value: unescaped(call.target.RawQuery)})
	}
	headers := map[string]string{}
	for name, value := range call.in.Headers {
		if kind := strings.EqualFold(name, "Content-Type") || strings.EqualFold(name, "Accept"); !kind || !mediaTypes.MatchString(value) {
			headers[name] = value
		}
	}
	parts = append(parts, detect.Part{Name: "headers", Value: headers})
	f := call.passport.mission.flow.Check(call.in.Service, call.service.AllowDataFrom, parts...)
	if f == nil {
		return nil
	}
	call.op.raise(call.now, call.passport, *f)
	details := map[string]any{"check": "data_flow", "allowed": call.service.AllowDataFrom}
	for key, value := range f.Metadata {
		details[key] = value
	}
	return refuse(http.StatusForbidden, "DATA_FLOW_BLOCKED", f.Message, details)
}

// mediaTypes is what every request has in its Content-Type and Accept headers: "application/json" is long enough to be a
// remembered field. Parameters that are long enough for one are not among them.
var mediaTypes = regexp.MustCompile(`^(?:(?:^|,)\s*[\w.+*-]+/[\w.+*-]+(?:\s*;\s*[\w-]{1,15}="?[\w.-]{0,15}"?)*\s*)+$`)

// unescaped undoes the percent-encoding of a form or a query as far as it is one.
func unescaped(text string) string {
	parts := strings.Split(strings.ReplaceAll(text, "+", " "), "%")
	for i, part := range parts[1:] {
		if len(part) >= 2 {
			if b, err := hex.DecodeString(part[:2]); err == nil {
				parts[i+1] = string(b) + part[2:]
				continue
			}
		}
		parts[i+1] = "%" + part
	}
	return strings.Join(parts, "")
}

func (s *Server) openCredential(call *proxyCall) error {
	if call.connection == nil || call.connection.Status != "connected" {
		return refuse(http.StatusForbidden, "FORBIDDEN", "the service's connection is gone", map[string]any{"check": "credential",
			"sent": call.service.ConnectionID, "allowed": "a connected service"})
	}
	credential, err := s.credentialOf(call.connection)
	call.credential = credential
	return err
}

func (s *Server) checkURL(call *proxyCall) error {
	if call.targetErr == nil {
		_, call.targetErr = s.forward.CheckURL(call.request())
	}
	if call.targetErr != nil {
		return call.invalidURL()
	}
	return nil
}

func (call *proxyCall) invalidURL() error {
	var failure *forward.Error
	if !errors.As(call.targetErr, &failure) {
		return call.targetErr
	}
	refusal := refuseForward("url_safety", failure)
	refusal.details["url"] = call.bareURL()
	return refusal
}

// refuseForward answers with what stopped a call on its way out.
func refuseForward(check string, failure *forward.Error) *apiError {
	details := map[string]any{"check": check}
	for name, value := range map[string]string{"field": failure.Field, "sent": failure.Sent, "allowed": failure.Allowed} {
		if value != "" {
			details[name] = value
		}
	}
	return refuse(failure.Status, failure.Code, failure.Message, details)
}

// settleCall records how a forwarded call ended: operation, data flow, audit, drift.
func (s *Server) settleCall(call *proxyCall, resp *forward.Response, err error, took time.Duration) (*stack.ProxyResponse, error) {
	call.op.mu.Lock()
	defer call.op.mu.Unlock()
	call.now = s.clock.now()
	call.op.sweep(call.now)
	if err != nil {
		return nil, call.failed(err, took)
	}
	out := &stack.ProxyResponse{Status: resp.Status, Headers: resp.Headers, Body: resp.Body}
	call.finishOperation(out)
	call.passport.remember(call.in.Service, out)
	row := call.row(stack.OutcomeSuccess, "", "")
	if resp.Status >= 400 {
		row.Outcome, row.ErrorCode = stack.OutcomeFailure, fmt.Sprintf("UPSTREAM_%d", resp.Status)
	}
	call.settled(row, took, true, "status", resp.Status)
	return out, nil
}

// failed records a call that got no answer from the service. What was not sent counts against no cap.
func (call *proxyCall) failed(err error, took time.Duration) error {
	var failure *forward.Error
	if !errors.As(err, &failure) {
		failure = &forward.Error{Status: http.StatusBadGateway, Code: forward.CodeUnreachable, Message: err.Error(), Dispatched: true}
	}
	if !failure.Dispatched {
		call.use(-1)
	}
	refusal := refuseForward("forward", failure)
	refusal.details["url"] = call.bareURL()
	if state, ok := call.failOperation(failure.Dispatched); ok {
		refusal.details["operation_id"], refusal.details["delivery_state"] = call.operationID, state
	}
	row := call.row(stack.OutcomeFailure, failure.Code, failure.Message)
	if failure.Status == http.StatusForbidden || failure.Status == http.StatusBadRequest {
		row.Outcome = stack.OutcomeBlocked
	}
	call.settled(row, took, failure.Dispatched, "error", failure.Code)
	return refusal
}

// settled is the end of every call that passed the checks. One that reached its service is scored, with an answer or without.
func (call *proxyCall) settled(row stack.AuditEntry, took time.Duration, sent bool, result string, value any) {
	op, p := call.op, call.passport
	call.observe(row.Outcome != stack.OutcomeSuccess)
	row.Duration = took
	op.record(call.now, row)
	op.note(call.now, p, row.Action, map[string]any{"service": call.in.Service, "method": call.in.Method, "url": call.bareURL(), result: value})
	if !sent {
		return
	}
	if _, f := p.drift.Observe(detect.Call{Service: call.in.Service, Host: call.target.Host, Method: call.in.Method, Path: call.target.Path}); f != nil {
		op.raise(call.now, p, *f)
	}
}

// remember keeps what the agent learns from a service for the data-flow wall of its Mission.
func (p *passport) remember(service string, resp *stack.ProxyResponse) {
	var content any
	dec := json.NewDecoder(bytes.NewReader(resp.Body))
	dec.UseNumber() // a number out of range must not keep the rest from being remembered
	if dec.Decode(&content) == nil {
		p.mission.flow.Remember(service, content)
	}
}

func (s *Server) proxyUsage(_ context.Context, c *caller, _ none) (*stack.MeterUsage, error) {
	u := c.op.meterUsage(s.clock.now(), meterProxy)
	return &u, nil
}
