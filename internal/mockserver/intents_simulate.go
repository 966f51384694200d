package mockserver

import (
	"errors"
	"net/http"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
)

// What a simulation looks at of what is no proxied call.
var (
	llmChecks   = []string{"service_scope", "authority_bindings", "intent_approval"}
	skillChecks = []string{"authority_bindings", "intent_approval"}
)

func checksOf(kind stack.IntentType) []proxyCheck {
	names := skillChecks
	switch kind {
	case stack.IntentProxy:
		return proxyChecks
	case stack.IntentLLM:
		names = llmChecks
	}
	var checks []proxyCheck
	for _, step := range proxyChecks {
		for _, name := range names {
			if step.name == name {
				checks = append(checks, step)
			}
		}
	}
	return checks
}

// simulate runs the checks of the proxy on a call and changes nothing. It goes on after a refusal, to find all; what would
// be raised and charged is what comes before the first. Without the gate it judges the call as if it were approved.
func (s *Server) simulate(intent *intended, gate bool) (*stack.IntentSimulation, error) {
	call, proxied := intent.call, intent.kind == stack.IntentProxy
	defer call.op.holdPool()()
	run := &simulation{call: call, out: &stack.IntentSimulation{Allowed: true, SimulatedAt: call.now,
		DenialReasons: []stack.DenialReason{}, PredictedDetectorFires: []stack.PredictedFire{},
		SimulatedCost: stack.SimulatedCost{Meters: map[string]int{}}}}
	diagnostics := &run.out.Diagnostics
	diagnostics.ApprovalRequired = call.op.policy.RequireIntentApproval && call.in.Method != http.MethodGet
	if f := call.passport.burst.PredictProxiedCall(call.now); proxied && f != nil && run.predict(*f) {
		run.deny("passport_state", refuse(http.StatusUnauthorized, "PASSPORT_REVOKED",
			"the passport is revoked: "+f.Reason(), map[string]any{"check": "passport_state", "allowed": "active"}))
	}
	for _, step := range checksOf(intent.kind) {
		check := stack.SimulatedCheck{Check: step.name, Outcome: stack.CheckPassed}
		switch {
		case step.name == "intent_approval" && !gate,
			step.name == "credential" && call.service.ServiceName == "", // out of scope: there is none to look at
			step.name == "url_safety" && call.connection == nil:
			check.Outcome = stack.CheckSkipped
		default:
			allowed, used := run.out.Allowed, len(call.uses)
			err := step.check(s, call)
			if allowed {
				for _, f := range call.findings {
					run.predict(f)
				}
				for _, use := range call.uses[used:] {
					run.out.SimulatedCost.Meters[use.meter]++
					run.out.SimulatedCost.OverageCents += use.cents
				}
			}
			call.findings = nil
			if err != nil {
				var refusal *apiError
				if !errors.As(err, &refusal) {
					return nil, err
				}
				run.deny(step.name, refusal)
				check.Outcome, check.Code = stack.CheckRefused, refusal.code
			}
		}
		diagnostics.Checks = append(diagnostics.Checks, check)
	}
	if run.out.Allowed && proxied {
		run.out.SimulatedCost.MissionActions = 1
		var f *detect.Finding
		diagnostics.Novelty, diagnostics.TotalNovelty, f = call.passport.drift.Predict(call.seen())
		if f != nil {
			run.predict(*f)
		}
	}
	return run.out, nil
}

// simulation is the result of a dry run in the making.
type simulation struct {
	call *proxyCall
	out  *stack.IntentSimulation
}

func (r *simulation) deny(check string, refusal *apiError) {
	r.out.Allowed = false
	r.out.DenialReasons = append(r.out.DenialReasons, stack.DenialReason{Check: check, Status: refusal.status,
		Code: refusal.code, Message: refusal.message, Details: refusal.details})
}

// predict notes a finding as it would be raised, and reports whether the passport would fall by it.
func (r *simulation) predict(f detect.Finding) (revokes bool) {
	f, heard := r.call.op.tuned(f)
	if !heard {
		return false
	}
	revokes = r.call.passport.fallsBy(f)
	r.out.PredictedDetectorFires = append(r.out.PredictedDetectorFires, stack.PredictedFire{SignalType: string(f.Signal),
		Severity: f.Severity, Message: f.Message, Metadata: f.Metadata, RevokesPassport: revokes})
	return revokes
}
