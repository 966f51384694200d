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
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/inject"
)

func proxyRoutes() []route {
	return []route{
		endpoint("POST", "/v1/proxy", (*Server).proxy, unlocked, bodyLimit(maxProxyBody)),
		endpoint("POST", "/v1/proxy/operations/get", (*Server).getOperation, reads),
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
	caller      *caller
	op          *operator
	action      string // what audit and activity call it
	now         time.Time
	in          proxyBody
	approvalID  string
	operationID string            // of a write; empty where it has none
	digest      [sha256.Size]byte // of a write with an id
	content     any               // the body as the service will understand it
	target      *url.URL          // with placeholders filled in
	targetErr   error

	injection inject.Result    // of the scan of what would go out
	findings  []detect.Finding // of the last check: the pipeline raises them
	uses      []meterUse       // that the last check has let through: the pipeline counts them
	lapsed    *lapsedBinding   // that the last check has refused: the pipeline records it

	passport   *passport
	service    stack.PassportService
	connection *connection
	hosts      []string        // where its credential may go; empty is anywhere
	approval   *intentApproval // that the call uses
	credential forward.Credential
	stale      bool             // the credential is to be renewed before the call goes out
	authority  []underAuthority // the bindings that it uses

	fleetOperation string // the operation of the fleet that the call fits, if its Mission is of one

	operation *operation           // nil for a call without an operation id
	replay    *stack.ProxyResponse // set when the operation has its answer already
}

// proxyCheck is a step of the pipeline. It runs with the operator locked and changes nothing but the call.
type proxyCheck struct {
	name  string
	check func(*Server, *proxyCall) error
}

// proxyChecks is the pipeline before a call is forwarded, in its order. The first that refuses ends the call; a simulation
// walks through all. (contract: decisions, Proxy)
var proxyChecks = []proxyCheck{
	{"plan_meter", (*Server).checkPlan},
	{"service_scope", (*Server).checkServiceScope},
	{"identity_requirements", (*Server).checkIdentity},
	{"authority_bindings", (*Server).checkAuthority},
	{"constraints", (*Server).checkConstraints},
	{"fleet_operations", (*Server).checkFleetOperation},
	{"mission_caps", (*Server).checkMissionCaps},
	{"data_flow", (*Server).checkDataFlow},
	{"injection", (*Server).checkInjection},
	{"intent_approval", (*Server).checkApproval},
	{"operation_replay", (*Server).checkReplay},
	{"credential", (*Server).openCredential},
	{"url_safety", (*Server).checkURL},
	{"actions_meter", (*Server).checkActions},
}

// proxy sends a call to a connected service under a passport. The operator is locked while the call is checked and while
// its outcome is recorded, not while the service is waited for.
func (s *Server) proxy(ctx context.Context, c *caller, in proxyIn) (*stack.ProxyResponse, error) {
	call := &proxyCall{caller: c, op: c.op, action: actionProxy, in: in.Body, approvalID: in.ApprovalID, operationID: in.OperationID}
	if err := call.validate(); err != nil {
		return nil, err
	}
	if err := s.clearCall(ctx, call, in.Passport); err != nil {
		return nil, err
	}
	if call.replay != nil {
		return call.replay, nil
	}
	if call.operation != nil {
		ctx = context.WithoutCancel(ctx) // a caller who hangs up must find the answer under the operation id
	}
	began := s.clock.now()
	var resp *forward.Response
	err := s.freshenCall(ctx, call)
	if err == nil {
		resp, err = s.forward.Do(ctx, call.request())
	}
	return s.settleCall(call, resp, err, s.clock.now().Sub(began))
}

// clearCall finds out whose a valid call is, scans what would go out while nothing is locked, and runs the checks.
func (s *Server) clearCall(ctx context.Context, call *proxyCall, token stack.Secret) error {
	scanner, err := s.identifyCall(call, token)
	if err != nil {
		return err
	}
	if call.action != actionLLM { // a prompt is for a model to read; the chain is for what others would have it read
		call.injection = s.inspect(ctx, scanner, call.outgoing(), inject.Deep)
	}
	return s.admitCall(call)
}

// request is the call as it goes out.
func (call *proxyCall) request() forward.Request {
	return forward.Request{Method: call.in.Method, URL: call.target, Query: call.in.Query, Headers: call.in.Headers,
		Body: call.in.Body, Credential: call.credential, AllowedHosts: call.hosts}
}

// Actions of calls to services, in the audit log and a Mission's activity.
const (
	actionProxy = "credential.proxy"
	actionLLM   = "llm.call"
)

var proxyMethods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

// validate refuses what is wrong with the request itself, before anything about its caller is looked at.
func (call *proxyCall) validate() error {
	in := &call.in
	in.Method = strings.ToUpper(in.Method)
	if !slices.Contains(proxyMethods, in.Method) {
		return invalid("body.method", in.Method, "one of "+strings.Join(proxyMethods, ", "))
	}
	if err := firstError(filled("body.service", in.Service),
		atMost("body.service", in.Service, maxServiceName)); err != nil {
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

// identifyCall finds the call's passport, and returns the scanner of its operator: what goes out under a passport that may be
// used is scanned before the checks, since the scan may take long and the operator is locked while they run.
func (s *Server) identifyCall(call *proxyCall, token stack.Secret) (*inject.Scanner, error) {
	op := call.op
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	p, err := s.readToken(op, token)
	if err != nil {
		return nil, err
	}
	call.passport = p
	return op.scanner, op.usable(p, now, op.policy.RevocationDelay)
}

// admitCall runs the checks and reserves what the call uses.
func (s *Server) admitCall(call *proxyCall) error {
	op, p := call.op, call.passport
	op.mu.Lock()
	defer op.mu.Unlock()
	call.now = s.clock.now()
	op.sweep(call.now)
	if err := op.usable(p, call.now, op.policy.RevocationDelay); err != nil {
		return err // it has ended since
	}
	if f := p.burst.ProxiedCall(call.now); f != nil {
		op.raise(call.now, p, *f)
		if p.ended() {
			return call.refused(p.mustBeOpen(call.now))
		}
	}
	call.resolveTarget()
	defer op.holdPool()() // what one check finds left of the plan, no other tenant may use meanwhile
	for _, step := range proxyChecks {
		err := step.check(s, call)
		call.takeEffect()
		if err != nil {
			return call.refused(err)
		}
		if call.replay != nil {
			p.remember(call.in.Service, call.replay.Body)
			call.observe(call.replay.Status >= 400)
			op.record(call.now, call.row(stack.OutcomeSuccess, "", "replayed"))
			return nil
		}
	}
	call.use(1)
	op.useApproval(call.now, call.approval, call.operationID)
	call.useAuthority()
	call.beginOperation()
	return nil
}

// takeEffect raises what a check has found, counts what it has let through, and records which binding is not in force.
func (call *proxyCall) takeEffect() {
	for _, f := range call.findings {
		call.op.raise(call.now, call.passport, f)
	}
	for _, use := range call.uses {
		call.op.count(call.now, use)
	}
	if l := call.lapsed; l != nil {
		call.recordUse(l.ref, stack.UseRefused, l.reason)
	}
	call.findings, call.uses, call.lapsed = nil, nil, nil
}

// use counts the call, or takes the count back, against the caps of its Mission.
func (call *proxyCall) use(n int) {
	usage := &call.passport.mission.Usage
	usage.Actions += n
	usage.ActionsPerService[call.in.Service] += n
	if call.fleetOperation != "" {
		call.passport.mission.fleet.Usage.CallsPerOperation[call.fleetOperation] += n
	}
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
	call.note("refused", code)
	return err
}

// row begins the audit row of a call.
func (call *proxyCall) row(outcome stack.AuditOutcome, code, message string) stack.AuditEntry {
	row := call.passport.row(call.action)
	row.Layer, row.Outcome, row.ErrorCode, row.ErrorMessage = "vault", outcome, code, message
	row.PayloadHash = payloadHash(call.in.Body)
	return row
}

// payloadHash is what the audit log keeps of a payload; empty when there is none.
func payloadHash(payload []byte) string {
	if len(payload) == 0 {
		return ""
	}
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

const maxObserved = 50_000 // calls that one passport's review can look at

// observe keeps the call for the review at checkout. All attempts at one write are one call, as they are for its agent.
func (call *proxyCall) observe(failed bool) {
	p, o := call.passport, call.operation
	settled := o == nil || o.AccountingState == stack.AccountingCommitted // there will be no other attempt
	if o != nil && o.observedBy == p {
		p.observed[o.observedAt].Failed = failed
		if settled {
			o.observedBy = nil
		}
		return
	}
	if len(p.observed) == maxObserved {
		return
	}
	if !settled {
		o.observedBy, o.observedAt = p, len(p.observed)
	}
	p.observed = append(p.observed, detect.ObservedCall{Service: call.in.Service, Method: call.in.Method,
		URL: call.bareURL(), Failed: failed})
}

// note tells the Mission's activity of the call and what came of it.
func (call *proxyCall) note(result string, value any) {
	call.op.note(call.now, call.passport, call.action, map[string]any{"service": clip(call.in.Service),
		"method": call.in.Method, "url": call.bareURL(), result: value})
}

// bareURL is what may be kept of the URL: no user information, query or fragment.
func (call *proxyCall) bareURL() string {
	if call.target == nil {
		return ""
	}
	return bareURL(call.target)
}

// resolveTarget fills in placeholders and parses the URL. A failure is told at its place in the order.
func (call *proxyCall) resolveTarget() {
	raw := call.in.URL
	if service, ok := call.passport.service(call.in.Service); ok {
		call.connection, _ = call.op.connections.get(service.ConnectionID)
	}
	if call.connection != nil {
		call.hosts = call.connection.AllowedHosts
	}
	if strings.Contains(raw, "{{") && call.connection != nil {
		raw, call.targetErr = forward.Expand(raw, call.connection.Fields)
		if call.targetErr != nil {
			return
		}
	}
	call.target, call.targetErr = forward.ParseURL(raw)
}

// settleCall records how a forwarded call ended: operation, data flow, audit, drift.
func (s *Server) settleCall(
	call *proxyCall, resp *forward.Response, err error, took time.Duration,
) (*stack.ProxyResponse, error) {
	call.op.mu.Lock()
	defer call.op.mu.Unlock()
	call.now = s.clock.now()
	call.op.sweep(call.now)
	if err != nil {
		return nil, call.failed(err, took)
	}
	out := &stack.ProxyResponse{Status: resp.Status, Headers: resp.Headers, Body: resp.Body}
	call.finishOperation(out)
	call.passport.remember(call.in.Service, out.Body)
	row := call.row(stack.OutcomeSuccess, "", "")
	if resp.Status >= 400 {
		row.Outcome, row.ErrorCode = stack.OutcomeFailure, fmt.Sprintf("UPSTREAM_%d", resp.Status)
	}
	call.settled(row, took, true, "status", resp.Status)
	return out, nil
}

// failed records a call that got no answer from the service. What was not sent counts against no cap and uses no approval.
func (call *proxyCall) failed(err error, took time.Duration) error {
	var failure *forward.Error
	var refusal *apiError
	if errors.As(err, &refusal) { // its credential could not be renewed
		failure = &forward.Error{Status: refusal.status, Code: refusal.code, Message: refusal.message}
	} else if !errors.As(err, &failure) {
		failure = &forward.Error{Status: http.StatusBadGateway, Code: forward.CodeUnreachable, Message: err.Error(),
			Dispatched: true}
	}
	if !failure.Dispatched {
		call.use(-1)
		call.op.releaseApproval(call.now, call.approval)
	}
	if refusal == nil {
		refusal = refuseForward("forward", failure)
	}
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

// settled is the end of every call that passed the checks. One that reached its service is scored, with an answer or
// without.
func (call *proxyCall) settled(row stack.AuditEntry, took time.Duration, sent bool, result string, value any) {
	call.settleAuthority(sent)
	call.observe(row.Outcome != stack.OutcomeSuccess)
	row.Duration = took
	call.op.record(call.now, row)
	call.note(result, value)
	if !sent {
		return
	}
	if _, f := call.passport.drift.Observe(call.seen()); f != nil {
		call.op.raise(call.now, call.passport, *f)
	}
}

// seen is the call as scope drift sees it.
func (call *proxyCall) seen() detect.Call {
	return detect.Call{Service: call.in.Service, Host: call.target.Host, Method: call.in.Method, Path: call.target.Path}
}

// remember keeps what the agent learns from a service, or a skill by its id, for the data-flow wall of its Mission.
func (p *passport) remember(service string, body json.RawMessage) {
	var content any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // a number out of range must not keep the rest from being remembered
	if dec.Decode(&content) == nil {
		p.mission.flow.Remember(service, content)
	}
}

func (s *Server) proxyUsage(_ context.Context, c *caller, _ none) (*stack.MeterUsage, error) {
	u := c.op.meterUsage(s.clock.now(), meterProxy)
	return &u, nil
}
