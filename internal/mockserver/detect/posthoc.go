package detect

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

// Checkout holds what is known of a passport when it is checked out.
type Checkout struct {
	Mode stack.Accountability

	// What the passport's intent declared.
	IntentServices []string
	WillDelegate   bool
	Estimate       time.Duration // 0: none was given

	Started, Ended     time.Time
	CheckpointInterval time.Duration // 0: none was declared
	Checkpoints        int           // how many were accepted

	// What the agent reported. ToolCalls are the checkout's own: all calls since the start, or only the later ones of a
	// long run. Checkpointed are those of all accepted checkpoints, in order. A call in both counts once.
	ServicesUsed []string // of the checkout and all checkpoints
	ActionsCount *int     // the checkout's; nil: not given
	ToolCalls    []ToolCall
	Checkpointed []ToolCall
	DelegatedTo  []string

	// What the server saw. Observed holds every proxied call that the passport made, also those that were refused, because
	// an agent reports these too; a retry answered from a stored operation is no call of its own.
	Observed            []ObservedCall
	ObservedDelegations []string // agent ids
	// Connected says whether a service is one whose calls go through the proxy. A service that was observed always is;
	// nil stands for no other.
	Connected func(service string) bool

	Baseline Baseline // the agent's earlier checkouts
}

// ToolCall is a call as the agent reports it. Target may be empty.
type ToolCall struct {
	Service, Method, Target string
}

// ObservedCall is a proxied call that the server saw. Failed says that it was refused, did not reach the service, or was
// answered with a status of 400 or more.
type ObservedCall struct {
	Service, Method, URL string
	Failed               bool
}

// maxPerSignal bounds the findings of one detector in one review; one more then says how many were left out.
const maxPerSignal = 20

// Review runs the ten post-hoc detectors over a checkout. A passport in standard mode is not reviewed: there are no findings.
//
// Reported and observed calls are compared as two heaps by service, method in upper case, and target, which is the URL's
// scheme, host and path. A call whose target is empty or no absolute http URL matches any call of its service and method.
// A report that lists no call at all but gives a number of actions is a summary: it covers that many observed calls of the
// services it names. (contract: decisions, Detectors)
func Review(c Checkout) []Finding {
	if c.Mode == stack.Standard {
		return nil
	}
	r := review{Checkout: c, reported: mergeReported(c), observedServices: map[string]bool{}}
	for _, call := range c.Observed {
		r.observedServices[call.Service] = true
	}
	r.undeclaredServices()
	r.compareCalls()
	r.actionCount()
	r.delegation()
	r.duration()
	r.checkpoints()
	r.failures()
	r.volume()

	return r.findings
}

// Status is what findings make of a review: blocked with a critical one, else flagged with a warning, else clean.
func Status(findings []Finding) stack.ReviewStatus {
	status := stack.ReviewClean
	for _, f := range findings {
		switch f.Severity {
		case stack.SeverityCritical:
			return stack.ReviewBlocked
		case stack.SeverityWarning:
			status = stack.ReviewFlagged
		}
	}
	return status
}

// Actions is how much the passport did: the larger of the calls reported and the calls observed, where a report that lists
// no call stands for the number it gives. It is what the agent's [Baseline] is made of.
func (c Checkout) Actions() int {
	return c.actions(len(mergeReported(c)))
}

func (c Checkout) actions(reported int) int {
	if reported == 0 && c.ActionsCount != nil {
		reported = *c.ActionsCount
	}
	return max(reported, len(c.Observed))
}

type review struct {
	Checkout
	reported         []ToolCall // normalised, each once
	observedServices map[string]bool
	findings         []Finding
}

func (r *review) add(s Signal, detail string, metadata map[string]any, format string, args ...any) {
	r.findings = append(r.findings, Finding{
		Signal: s, Severity: s.Severity(r.Mode), Message: fmt.Sprintf(format, args...), Detail: detail, Metadata: metadata,
	})
}

// each adds one finding for each of the first maxPerSignal items, and one for all the rest.
func each[T any](r *review, s Signal, items []T, one func(T)) {
	for _, item := range items[:min(len(items), maxPerSignal)] {
		one(item)
	}
	if more := len(items) - maxPerSignal; more > 0 {
		r.add(s, "more", map[string]any{"more": more}, "%d more findings of this kind were left out.", more)
	}
}

func (r *review) undeclaredServices() {
	undeclared := map[string]bool{}
	note := func(service string) {
		if !slices.Contains(r.IntentServices, service) {
			undeclared[service] = true
		}
	}
	for _, service := range r.ServicesUsed {
		note(service)
	}
	for _, call := range r.reported {
		note(call.Service)
	}
	for service := range r.observedServices {
		note(service)
	}
	each(r, UndeclaredService, slices.Sorted(maps.Keys(undeclared)), func(service string) {
		seen := r.observedServices[service]
		how := "reported"
		if seen {
			how = "observed"
		}
		r.add(UndeclaredService, shown(service), map[string]any{"service": shown(service), "observed": seen},
			"A call to %s was %s, which the intent does not declare.", shown(service), how)
	})
}

func (r *review) compareCalls() {
	unreported, phantom := matchCalls(r.reported, r.Observed)
	if len(r.reported) == 0 && r.ActionsCount != nil {
		unreported = summaryOmits(unreported, *r.ActionsCount, r.ServicesUsed)
	}
	each(r, UnreportedAction, unreported, func(g callGroup) {
		r.add(UnreportedAction, shown(g.service), g.metadata(),
			"%d %s call(s) to %s were made that the report omits.", g.count, shown(g.method), shown(g.service))
	})
	phantom = slices.DeleteFunc(phantom, func(g callGroup) bool {
		proxied := r.observedServices[g.service] || r.Connected != nil && r.Connected(g.service)
		return !proxied || !isHTTPMethod(g.method)
	})
	each(r, PhantomAction, phantom, func(g callGroup) {
		r.add(PhantomAction, shown(g.service), g.metadata(),
			"%d %s call(s) to %s were reported that never went through the proxy.", g.count, shown(g.method), shown(g.service))
	})
}

// actionCount compares the number given with the calls listed: those of the checkout, or those of the checkout and the
// checkpoints together. A report that lists no call has nothing to compare with.
func (r *review) actionCount() {
	if r.ActionsCount == nil || len(r.reported) == 0 {
		return
	}
	if n := *r.ActionsCount; n != len(r.reported) && n != len(r.ToolCalls) {
		r.add(ActionCountMismatch, fmt.Sprintf("%d_of_%d", n, len(r.reported)),
			map[string]any{"actions_count": n, "reported_calls": len(r.reported)},
			"The report counts %d actions but lists %d.", n, len(r.reported))
	}
}

func (r *review) delegation() {
	agents := map[string]bool{}
	for _, id := range slices.Concat(r.DelegatedTo, r.ObservedDelegations) {
		agents[id] = true
	}
	if r.WillDelegate || len(agents) == 0 {
		return
	}
	ids := slices.Sorted(maps.Keys(agents))
	ids = ids[:min(len(ids), maxPerSignal)]
	for i, id := range ids {
		ids[i] = shown(id)
	}
	r.add(UndeclaredDelegation, fmt.Sprintf("%d_agents", len(agents)),
		map[string]any{"agent_count": len(agents), "delegated_to": ids},
		"Work was delegated to %d agent(s), which the intent did not announce.", len(agents))
}

func (r *review) duration() {
	took := r.Ended.Sub(r.Started)
	if r.Estimate <= 0 || took <= 2*r.Estimate {
		return
	}
	r.add(DurationOverrun, took.Truncate(time.Second).String(),
		map[string]any{"duration_seconds": int(took.Seconds()), "estimated_duration_seconds": int(r.Estimate.Seconds())},
		"It took %s, more than twice the estimated %s.", took.Truncate(time.Second), r.Estimate)
}

// checkpoints is for logged passports: an enforced one that misses a checkpoint is caught by checkpoint_silence.
func (r *review) checkpoints() {
	if r.Mode != stack.Logged || r.CheckpointInterval <= 0 {
		return
	}
	if due := int(r.Ended.Sub(r.Started) / r.CheckpointInterval); r.Checkpoints < due {
		r.add(MissedCheckpoints, fmt.Sprintf("%d_of_%d", r.Checkpoints, due),
			map[string]any{"checkpoints": r.Checkpoints, "due": due},
			"%d of %d checkpoints were sent.", r.Checkpoints, due)
	}
}

func (r *review) failures() {
	failed := 0
	for _, call := range r.Observed {
		if call.Failed {
			failed++
		}
	}
	if n := len(r.Observed); n >= 5 && 2*failed > n {
		r.add(HighFailureRate, fmt.Sprintf("%d_of_%d", failed, n), map[string]any{"failed": failed, "observed": n},
			"%d of %d proxied calls failed.", failed, n)
	}
}

func (r *review) volume() {
	n := r.actions(len(r.reported))
	if n == 0 {
		r.add(IdleMission, "no_actions", nil, "The passport was checked out without any action.")
	}
	if r.Baseline.Unusual(n) {
		mean, deviation := r.Baseline.Mean(), r.Baseline.Deviation()
		r.add(VolumeAnomaly, fmt.Sprintf("%d_actions", n),
			map[string]any{"actions": n, "baseline_mean": mean, "baseline_deviation": deviation},
			"%d actions are far more than this agent's usual %.1f.", n, mean)
	}
}
