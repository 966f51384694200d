package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// MissionSummary sets what a Mission declared beside what it did.
type MissionSummary struct {
	MissionID         string
	PassportJTI       string
	AgentID           string
	Accountability    Accountability
	Intent            string
	Services          []ServiceSummary // declared ones first, in their order, then the others
	Calls             int
	Failed            int
	Checkpoints       int // accepted
	FailedCheckpoints int // attempts that failed and were made good by a later one or the checkout
	Pending           int // calls that no checkpoint has taken yet
	DelegatedTo       []string
	// UnderWay are the calls to services and models that had left, and were not answered, when the Mission learned that its
	// passport was gone. What became of such a write is asked by its operation id, see [ProxyService.GetOperation], or at the service.
	UnderWay []ToolCall
	Opened   time.Time
	Ended    time.Time // zero while the Mission runs
	Checkout *Checkout // nil before the checkout, or when it failed
}

// ServiceSummary is one service's line of a [MissionSummary].
type ServiceSummary struct {
	Service  string
	Declared bool
	Calls    int
	Failed   int // no answer, or a status of 400 or more
	Methods  map[string]int
}

// Summary returns what the Mission declared and what it has done so far, or did.
func (m *Mission) Summary() MissionSummary {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := MissionSummary{MissionID: m.id, PassportJTI: m.jti, AgentID: m.params.AgentID, Accountability: m.mode, Intent: m.params.Intent,
		Calls: m.account.total, Checkpoints: m.account.checkpoints, FailedCheckpoints: m.account.failed, Pending: len(m.account.pending),
		DelegatedTo: slices.Clone(m.account.delegatedTo), UnderWay: slices.Clone(m.left), Opened: m.opened, Ended: m.ended, Checkout: m.result}
	names := slices.Clone(m.params.Services)
	for _, name := range m.account.services {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		line := ServiceSummary{Service: name, Declared: slices.Contains(m.params.Services, name)}
		if count := m.account.perService[name]; count != nil {
			line.Calls, line.Failed, line.Methods = count.calls, count.failed, maps.Clone(count.methods)
			s.Failed += count.failed
		}
		s.Services = append(s.Services, line)
	}
	return s
}

// String prints the summary as a table.
func (s MissionSummary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Mission %s: %s\n", s.MissionID, s.Intent)
	fmt.Fprintf(&b, "  agent %s, %s, passport %s\n", s.AgentID, s.Accountability, s.PassportJTI)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "  SERVICE\tDECLARED\tCALLS\tFAILED\tMETHODS")
	for _, line := range s.Services {
		declared := "yes"
		if !line.Declared {
			declared = "NO"
		}
		var methods []string
		for _, method := range slices.Sorted(maps.Keys(line.Methods)) {
			methods = append(methods, fmt.Sprintf("%s×%d", method, line.Methods[method]))
		}
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%d\t%d\t%s\n", line.Service, declared, line.Calls, line.Failed, strings.Join(methods, " "))
	}
	_ = w.Flush() // a strings.Builder takes everything
	fmt.Fprintf(&b, "  %d calls, %d failed; %d checkpoints", s.Calls, s.Failed, s.Checkpoints)
	if s.FailedCheckpoints > 0 {
		fmt.Fprintf(&b, " (%d attempts failed)", s.FailedCheckpoints)
	}
	if len(s.DelegatedTo) > 0 {
		fmt.Fprintf(&b, "; delegated to %s", strings.Join(s.DelegatedTo, ", "))
	}
	b.WriteString("\n")
	if len(s.UnderWay) > 0 {
		b.WriteString("  under way when the passport was lost:\n")
	}
	for _, call := range s.UnderWay {
		fmt.Fprintf(&b, "    %s %s %s\n", call.Service, call.Method, call.Target)
	}
	switch {
	case s.Checkout != nil:
		fmt.Fprintf(&b, "  review: %s\n", s.Checkout.ReviewStatus)
		for _, flag := range s.Checkout.Flags {
			fmt.Fprintf(&b, "    %s %s: %s\n", flag.Severity, flag.Type, flag.Message)
		}
	case s.Ended.IsZero():
		b.WriteString("  still running\n")
	default:
		b.WriteString("  not checked out\n")
	}
	return b.String()
}
