package detect

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// mergeReported answers the reported calls, normalised, each once. The checkout's list usually starts with calls that were
// already reported in checkpoints: with all of them, or, for a long run whose oldest calls the agent has dropped, with the
// last ones. How many is told by actions_count, the total; the overlap it implies is believed when the calls there are
// really the same. Otherwise a call counts as often as the list that has it more often says.
func mergeReported(c Checkout) []ToolCall {
	before, last := normalise(c.Checkpointed), normalise(c.ToolCalls)
	if c.ActionsCount != nil {
		overlap := len(before) + len(last) - *c.ActionsCount
		if overlap >= 0 && overlap <= min(len(before), len(last)) &&
			slices.Equal(before[len(before)-overlap:], last[:overlap]) {
			return append(before, last[overlap:]...)
		}
	}
	counted := map[ToolCall]int{}
	for _, call := range before {
		counted[call]++
	}
	for _, call := range last {
		if counted[call] > 0 {
			counted[call]--
		} else {
			before = append(before, call)
		}
	}
	return before
}

func normalise(calls []ToolCall) []ToolCall {
	out := make([]ToolCall, len(calls))
	for i, call := range calls {
		out[i] = ToolCall{call.Service, strings.ToUpper(strings.TrimSpace(call.Method)), normalTarget(call.Target)}
	}
	return out
}

// normalTarget reduces a URL to scheme://host/path, and anything that is no absolute http URL, such as a channel's name, to
// nothing.
func normalTarget(target string) string {
	u, err := url.Parse(strings.TrimSpace(target))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" { // the parser has lower-cased it
		return ""
	}
	// The parser lets hosts such as "::" pass; only an address in brackets holds a colon.
	if name := u.Hostname(); name == "" || strings.Contains(name, ":") != strings.HasPrefix(u.Host, "[") {
		return ""
	}
	defaultPort := ":80"
	if u.Scheme == "https" {
		defaultPort = ":443"
	}
	host := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(u.Host), defaultPort), ":")
	return u.Scheme + "://" + host + "/" + strings.TrimPrefix(u.EscapedPath(), "/")
}

// callGroup counts calls of one service and method.
type callGroup struct {
	service, method string
	count           int
}

func (g callGroup) metadata() map[string]any {
	return map[string]any{"service": shown(g.service), "method": shown(g.method), "count": g.count}
}

// matchCalls pairs reported with observed calls, as many as can be, and answers what is left on either side, by service and
// method.
func matchCalls(reported []ToolCall, observed []ObservedCall) (unreported, phantom []callGroup) {
	type key struct{ service, method string }
	// balance counts, for each target, observed minus reported calls. Those without a target are kept apart.
	type sides struct {
		balance                  map[string]int
		anyReported, anyObserved int
	}
	groups := map[key]*sides{}
	group := func(service, method string) *sides {
		k := key{service, method}
		if groups[k] == nil {
			groups[k] = &sides{balance: map[string]int{}}
		}
		return groups[k]
	}
	for _, call := range reported {
		g := group(call.Service, call.Method)
		if call.Target == "" {
			g.anyReported++
		} else {
			g.balance[call.Target]--
		}
	}
	for _, call := range observed {
		g := group(call.Service, strings.ToUpper(call.Method))
		if target := normalTarget(call.URL); target == "" {
			g.anyObserved++
		} else {
			g.balance[target]++
		}
	}
	for k, g := range groups {
		seen, told := 0, 0
		for _, n := range g.balance {
			seen += max(n, 0)
			told += max(-n, 0)
		}
		// A call without a target is best spent on one that has one: nothing else can match that any more.
		m := min(g.anyReported, seen)
		seen, g.anyReported = seen-m, g.anyReported-m
		m = min(g.anyObserved, told)
		told, g.anyObserved = told-m, g.anyObserved-m
		m = min(g.anyReported, g.anyObserved)
		if n := seen + g.anyObserved - m; n > 0 {
			unreported = append(unreported, callGroup{k.service, k.method, n})
		}
		if n := told + g.anyReported - m; n > 0 {
			phantom = append(phantom, callGroup{k.service, k.method, n})
		}
	}
	order := func(a, b callGroup) int {
		return cmp.Or(strings.Compare(a.service, b.service), strings.Compare(a.method, b.method))
	}
	slices.SortFunc(unreported, order)
	slices.SortFunc(phantom, order)
	return unreported, phantom
}

// summaryOmits answers what is left of the observed calls when a report without a list covers count calls of the services
// it names.
func summaryOmits(observed []callGroup, count int, services []string) []callGroup {
	var left []callGroup
	for _, g := range observed {
		if slices.Contains(services, g.service) {
			covered := min(g.count, max(count, 0))
			g.count -= covered
			count -= covered
		}
		if g.count > 0 {
			left = append(left, g)
		}
	}
	return left
}

func isHTTPMethod(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete:
		return true
	}
	return false
}
