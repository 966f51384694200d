package detect

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMatchCallsLeavesTheLeast compares with a search through all pairings.
func TestMatchCallsLeavesTheLeast(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(11, 12))
	targets := []string{"", "https://a.example/", "https://b.example/", "https://c.example/"}
	for range 2000 {
		reported := make([]ToolCall, random.IntN(7))
		for i := range reported {
			reported[i] = ToolCall{"s", "GET", targets[random.IntN(4)]}
		}
		observed := make([]ObservedCall, random.IntN(7))
		for i := range observed {
			observed[i] = ObservedCall{Service: "s", Method: "GET", URL: targets[random.IntN(4)]}
		}
		best := bestPairing(reported, observed, 0)
		unreported, phantom := matchCalls(reported, observed)
		require.Equal(t, len(observed)-best, total(unreported), "%v %v", reported, observed)
		require.Equal(t, len(reported)-best, total(phantom), "%v %v", reported, observed)
	}
}

func bestPairing(reported []ToolCall, observed []ObservedCall, used int) int {
	if len(reported) == 0 {
		return 0
	}
	best := bestPairing(reported[1:], observed, used)
	for i, call := range observed {
		same := call.URL == reported[0].Target || call.URL == "" || reported[0].Target == ""
		if same && used&(1<<i) == 0 {
			best = max(best, 1+bestPairing(reported[1:], observed, used|1<<i))
		}
	}
	return best
}

func total(groups []callGroup) (n int) {
	for _, g := range groups {
		n += g.count
	}
	return n
}

func FuzzNormalTarget(f *testing.F) {
	for _, seed := range []string{
		"", "https://slack.com", "HTTP://u:p@Host:80/a/../b?q#f", "#general", "https://[::1]:443/x", "https://a/%2F?", "//a/b",
		"https:///x", "https://a:b:c", "HTTP://:80", "http://a:", "http://::", "https://a:80:443",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got := normalTarget(target)
		if got == "" {
			return
		}
		if strings.ContainsAny(got, "?#") || !strings.HasPrefix(got, "http") {
			t.Fatalf("%q gives %q", target, got)
		}
		if again := normalTarget(got); again != got {
			t.Fatalf("%q: not stable: %q, then %q", target, got, again)
		}
	})
}
