package mockserver

import (
	"encoding/hex"
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
	"github.com/getstack-go/stack/internal/mockserver/inject"
)

// The checks of the proxy's pipeline, in its order; those of operations, identity and approvals stand where their services
// do. They change nothing but the call: what they find and what it would use up they only note in it.

func (s *Server) checkPlan(call *proxyCall) error { return call.quote(meterProxy) }

func (s *Server) checkActions(call *proxyCall) error { return call.quote(meterActions) }

func (call *proxyCall) quote(meter string) error {
	owed := 0
	for _, use := range call.uses {
		owed += use.cents
	}
	use, err := call.op.quote(call.now, meter, owed)
	if err == nil {
		call.uses = append(call.uses, use)
	}
	return err
}

func (call *proxyCall) find(f detect.Finding) { call.findings = append(call.findings, f) }

func (s *Server) checkServiceScope(call *proxyCall) error {
	p, name := call.passport, call.in.Service
	service, ok := p.service(name)
	if !ok {
		call.find(outsideScope(p, name, "A proxied call names a service outside the passport's scope."))
		return forbidden(fmt.Sprintf("service %q is outside the passport's scope", clip(name)), map[string]any{
			"check": "service_scope", "sent": clip(name), "allowed": p.reachableServices(),
			"intent_services": p.claims.STK.IntentServices, "granted_providers": p.grantedProviders()})
	}
	call.service = service
	return call.caller.reach(service.ConnectionID)
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
	v := constraint.Check(call.service.Constraints, call.judged())
	if v == nil {
		return nil
	}
	broken := v.Constraint
	call.find(detect.Finding{Signal: detect.ConstraintViolation,
		Severity: stack.SeverityWarning, Detail: clip(broken.Path),
		Message:  "A proxied call breaks a constraint: " + v.Error() + ".",
		Metadata: map[string]any{"service": call.in.Service, "path": broken.Path, "op": broken.Op}})
	return forbidden("a constraint does not hold: "+v.Error(), map[string]any{"check": "constraint", "path": broken.Path,
		"op": broken.Op, "sent": clipped(v.Got), "allowed": broken.Value, "missing": v.Missing})
}

// judged is the call as constraints look at it.
func (call *proxyCall) judged() constraint.Request {
	return constraint.Request{Method: call.in.Method, URL: forward.WithQuery(call.target, call.in.Query),
		Headers: call.in.Headers, Body: call.content}
}

// checkMissionCaps refuses the call that would cross a cap, or lets it through with a warning where the Mission says so. The
// repetition of a write that was sent already is no further action.
func (s *Server) checkMissionCaps(call *proxyCall) error {
	m, service := call.passport.mission, call.in.Service
	var crossed []capCrossing
	if !call.isRepetition() {
		used, ofService := m.Usage.Actions, m.Usage.ActionsPerService[service]
		if limit := m.Caps.MaxActions; limit > 0 && used >= limit {
			crossed = append(crossed, capCrossing{"max_actions", used + 1, limit})
		}
		if limit, ok := m.Caps.MaxActionsPerService[service]; ok && ofService >= limit {
			crossed = append(crossed, capCrossing{"max_actions_per_service", ofService + 1, limit})
		}
	}
	if age := call.now.Sub(m.OpenedAt); m.maxDuration > 0 && age > m.maxDuration {
		crossed = append(crossed, capCrossing{"max_duration_seconds", int(age / time.Second), int(m.maxDuration / time.Second)})
	}
	for _, c := range crossed {
		finding, err := m.crosses(c, "A proxied call", map[string]any{"service": service})
		call.find(finding)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) checkDataFlow(call *proxyCall) error {
	allowed := call.service.AllowDataFrom
	if allowed == nil { // an old grant: everything may flow
		return nil
	}
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
		ofMedia := strings.EqualFold(name, "Content-Type") || strings.EqualFold(name, "Accept")
		if !ofMedia || !mediaTypes.MatchString(value) {
			headers[name] = value
		}
	}
	parts = append(parts, detect.Part{Name: "headers", Value: headers})
	f := call.passport.mission.checkFlow(call.in.Service, allowed, parts...)
	if f == nil {
		return nil
	}
	call.find(*f)
	details := map[string]any{"check": "data_flow", "allowed": allowed}
	for key, value := range f.Metadata {
		details[key] = value
	}
	return refuse(http.StatusForbidden, "DATA_FLOW_BLOCKED", f.Message, details)
}

// checkFlow looks for what came in through services, or skills, that may not flow into one. Where "skill" may, every skill may.
func (m *mission) checkFlow(service string, allowed []string, parts ...detect.Part) *detect.Finding {
	if slices.Contains(allowed, skillService) {
		allowed = append(slices.Clone(allowed), m.skills...)
	}
	return m.flow.Check(service, allowed, parts...)
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

// outgoing is what of the call the service will read: the body as it is understood there, the URL after its host, query, and
// the headers that reach it.
func (call *proxyCall) outgoing() []inject.Part {
	target := call.in.URL
	if u, err := url.Parse(target); err == nil {
		target = u.RequestURI()
	}
	headers := map[string]any{}
	for name, value := range call.in.Headers {
		if forward.Reaches(name) {
			headers[name] = value
		}
	}
	query := map[string]any{}
	for name, value := range call.in.Query {
		query[name] = value
	}
	return []inject.Part{{Name: "body", Value: call.content}, {Name: "query", Value: query}, {Name: "url", Value: target},
		{Name: "headers", Value: headers}}
}

// checkInjection judges the scan of what would go out: a critical one stops the call, a suspicious one is told of.
// (contract: decisions, Injection verdict on the proxy)
func (s *Server) checkInjection(call *proxyCall) error {
	f := injectionFinding(call.injection, "A proxied call", map[string]any{"service": call.in.Service})
	if f == nil {
		return nil
	}
	call.find(*f)
	if call.injection.Verdict != inject.Critical {
		return nil
	}
	return refuseInjection("the call", call.injection)
}

func (s *Server) openCredential(call *proxyCall) error {
	if call.connection == nil {
		return connectionGone(call.service.ConnectionID)
	}
	if err := call.connection.mustBeUsable(); err != nil {
		return err
	}
	credential, err := s.credentialOf(call.connection)
	call.credential, call.stale = credential, call.connection.stale(call.now)
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
