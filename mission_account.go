package stack

import (
	"slices"
)

const (
	batchCalls = 2_000   // calls of one checkpoint at most
	batchBytes = 600_000 // their size on the wire, roughly; the server takes bodies of 1 MiB
	keptCalls  = 10_000  // reported calls beyond these are dropped from memory
)

// account is what a Mission has to report. Calls move from pending to reported when a checkpoint with them is accepted;
// reported ones beyond keptCalls are dropped, and only counted.
type account struct {
	pending     []ToolCall
	reported    []ToolCall
	total       int // all calls ever logged
	checkpoints int // accepted ones
	failed      int // attempts at one that failed
	services    []string
	perService  map[string]*serviceCount
	delegatedTo []string
}

type serviceCount struct {
	calls, failed int
	methods       map[string]int
}

func (a *account) add(call ToolCall, failed bool) {
	a.pending = append(a.pending, call)
	a.total++
	count := a.perService[call.Service]
	if count == nil {
		if a.perService == nil {
			a.perService = map[string]*serviceCount{}
		}
		count = &serviceCount{methods: map[string]int{}}
		a.perService[call.Service] = count
		a.services = append(a.services, call.Service)
	}
	count.calls++
	count.methods[call.Method]++
	if failed {
		count.failed++
	}
}

// drop forgets all but the last n pending calls; they stay counted.
func (a *account) drop(n int) {
	if over := len(a.pending) - n; over > n/10 { // not one by one
		a.pending = slices.Clone(a.pending[over:])
	}
}

// fitting returns how many of the calls, from the first, go into one body.
func fitting(calls []ToolCall) int {
	size := 0
	for i, call := range calls {
		size += len(call.Service) + len(call.Method) + len(call.Target) + 48
		if i >= batchCalls || size > batchBytes && i > 0 {
			return i
		}
	}
	return len(calls)
}

// checkpoint reports what is pending, as far as one body holds it. The calls stay pending until accepted is told of them.
func (a *account) checkpoint() CheckpointParams {
	calls := slices.Clone(a.pending[:fitting(a.pending)])
	p := CheckpointParams{ServicesUsed: []string{}, ActionsCount: len(calls), ToolCalls: calls, DelegatedTo: slices.Clone(a.delegatedTo)}
	for _, call := range calls {
		if !slices.Contains(p.ServicesUsed, call.Service) {
			p.ServicesUsed = append(p.ServicesUsed, call.Service)
		}
	}
	return p
}

// accepted moves the first n pending calls: a checkpoint with them was taken.
func (a *account) accepted(n int) {
	a.checkpoints++
	a.reported = append(a.reported, a.pending[:n]...)
	a.pending = slices.Clone(a.pending[n:])
	if over := len(a.reported) - keptCalls; over > 0 {
		a.reported = slices.Clone(a.reported[over:])
	}
}

// checkout reports the count of all calls, and of the calls themselves the latest that one body holds. Those that no
// checkpoint has taken come first in line.
func (a *account) checkout(summary string) CheckpointParams {
	calls := slices.Concat(a.reported, a.pending)
	slices.Reverse(calls)
	calls = calls[:fitting(calls)]
	slices.Reverse(calls)
	return CheckpointParams{ServicesUsed: append([]string{}, a.services...), ActionsCount: a.total, ToolCalls: calls, Summary: summary,
		DelegatedTo: slices.Clone(a.delegatedTo)}
}
