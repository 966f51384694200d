package detect

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestDriftNovelty(t *testing.T) {
	t.Parallel()
	get := func(service, host, path string) Call { return Call{service, host, "GET", path} }
	post := func(service, host, path string) Call { return Call{service, host, "POST", path} }
	tests := map[string]struct {
		calls []Call
		want  []float64
		fires int // index of the call that fires, -1 for none
	}{
		"first call on each declared service": {
			[]Call{post("slack", "slack.com", "/api/chat"), get("github", "api.github.com", "/user")},
			[]float64{0, 0}, -1,
		},
		"same call again": {
			[]Call{get("slack", "slack.com", "/a"), get("slack", "slack.com", "/a")}, []float64{0, 0}, -1,
		},
		"same template": {
			[]Call{get("github", "api.github.com", "/repos/1"), get("github", "api.github.com", "/repos/2")},
			[]float64{0, 0}, -1,
		},
		"spelling of host, method and path": {
			[]Call{
				get("slack", "slack.com", "/a"),
				{Service: "slack", Host: "SLACK.com:443", Method: "get", Path: "a/"},
				{Service: "slack", Host: "slack.com.", Method: "GET", Path: "//b/../a"},
			},
			[]float64{0, 0, 0}, -1,
		},
		"another port is another host": {
			[]Call{get("slack", "slack.com", "/a"), get("slack", "slack.com:8443", "/a")}, []float64{0, 0.6}, -1,
		},
		"new path": {
			[]Call{get("slack", "slack.com", "/a"), get("slack", "slack.com", "/b"), get("slack", "slack.com", "/b")},
			[]float64{0, 0.25, 0}, -1,
		},
		"new method of the same class": {
			[]Call{post("slack", "slack.com", "/a"), {"slack", "slack.com", "PUT", "/a"}}, []float64{0, 0.25}, -1,
		},
		"head and options are reads": {
			[]Call{get("slack", "slack.com", "/a"), {"slack", "slack.com", "HEAD", "/a"}, {"slack", "slack.com", "OPTIONS", "/a"}},
			[]float64{0, 0.25, 0.25}, -1,
		},
		"first write after reads": {
			[]Call{get("slack", "slack.com", "/a"), post("slack", "slack.com", "/a"), post("slack", "slack.com", "/b")},
			[]float64{0, 0.5, 0.25}, -1,
		},
		"read after writes is no new class": {
			[]Call{post("slack", "slack.com", "/a"), get("slack", "slack.com", "/a")}, []float64{0, 0.25}, -1,
		},
		"the class belongs to the service": {
			[]Call{get("slack", "slack.com", "/a"), post("github", "api.github.com", "/a")}, []float64{0, 0}, -1,
		},
		"new host": {
			[]Call{get("slack", "slack.com", "/a"), get("slack", "files.slack.com", "/a"), get("slack", "files.slack.com", "/b")},
			[]float64{0, 0.6, 0.25}, -1,
		},
		"first write on a new host fires alone": {
			[]Call{get("slack", "slack.com", "/a"), post("slack", "evil.example", "/a")}, []float64{0, 0.85}, 1,
		},
		"granted but not declared fires at once, then is known": {
			[]Call{get("notion", "api.notion.com", "/v1/users"), get("notion", "api.notion.com", "/v1/users")},
			[]float64{0.8, 0}, 0,
		},
		"first write on an undeclared service is no new class": {
			[]Call{post("notion", "api.notion.com", "/v1/pages")}, []float64{0.8}, 0,
		},
		"neither declared nor granted, and not learned": {
			[]Call{get("stripe", "api.stripe.com", "/v1"), get("stripe", "api.stripe.com", "/v1")}, []float64{1, 1}, 0,
		},
		"total reaches 2.00 exactly": {
			[]Call{
				get("slack", "slack.com", "/a"), get("slack", "slack.com", "/b"), get("slack", "slack.com", "/c"),
				get("slack", "slack.com", "/d"), get("slack", "slack.com", "/e"), get("slack", "slack.com", "/f"),
				get("slack", "slack.com", "/g"), get("slack", "slack.com", "/h"), get("slack", "slack.com", "/i"),
				get("slack", "slack.com", "/j"),
			},
			[]float64{0, .25, .25, .25, .25, .25, .25, .25, .25, .25}, 8,
		},
		"total of 1.95 does not fire": {
			[]Call{
				get("slack", "slack.com", "/a"), get("slack", "b.slack.com", "/a"), get("slack", "c.slack.com", "/a"),
				get("slack", "slack.com", "/b"), get("slack", "slack.com", "/c"), get("slack", "slack.com", "/d"),
				get("slack", "slack.com", "/e"),
			},
			[]float64{0, .6, .6, .25, .25, .25, .25}, 6,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := NewDrift([]string{"slack", "github"}, []string{"slack", "github", "notion"})
			fired := -1
			for i, call := range tt.calls {
				novelty, finding := d.Observe(call)
				assert.InDelta(t, tt.want[i], novelty, 0, "call %d", i)
				if finding != nil {
					require.Equal(t, -1, fired, "fires once")
					fired = i
				}
			}
			assert.Equal(t, tt.fires, fired)
		})
	}
}

func TestDriftFinding(t *testing.T) {
	t.Parallel()
	t.Run("single call", func(t *testing.T) {
		t.Parallel()
		d := NewDrift([]string{"slack"}, []string{"slack", "notion"})
		_, f := d.Observe(Call{"notion", "api.notion.com", "GET", "/v1/pages/123"})
		require.NotNil(t, f)
		assert.Equal(t, ScopeDrift, f.Signal)
		assert.Equal(t, stack.SeverityWarning, f.Severity)
		assert.Equal(t, "scope_drift_fire:single_call_0.80", f.Reason())
		assert.Equal(t, map[string]any{
			"novelty": 0.8, "total_novelty": 0.8, "service": "notion", "host": "api.notion.com", "method": "GET",
			"path_template": "/v1/pages/{id}",
		}, f.Metadata)
	})
	t.Run("total", func(t *testing.T) {
		t.Parallel()
		d := NewDrift([]string{"slack"}, []string{"slack"})
		var f *Finding
		for i := 0; f == nil; i++ {
			require.Less(t, i, 9)
			_, f = d.Observe(Call{"slack", "slack.com", "GET", "/" + strings.Repeat("x", i+1)})
		}
		assert.Equal(t, "scope_drift_fire:cumulative_2.00", f.Reason())
		assert.InDelta(t, 2, d.Total(), 0)
	})
	t.Run("without an intent the grant is what was declared", func(t *testing.T) {
		t.Parallel()
		d := NewDrift([]string{"slack"}, []string{"slack"})
		novelty, f := d.Observe(Call{"slack", "slack.com", "DELETE", "/x"})
		assert.Zero(t, novelty)
		assert.Nil(t, f)
	})
}

func TestDriftMemoryIsBounded(t *testing.T) {
	t.Parallel()
	d := NewDrift([]string{"slack"}, []string{"slack"})
	findings := 0
	for i := range 3 * maxDriftRemembered {
		novelty, f := d.Observe(Call{"slack", fmt.Sprint("h", i), "GET", "/"})
		if f != nil {
			findings++
		}
		if i > 0 {
			require.InDelta(t, 0.6, novelty, 0)
		}
	}
	assert.Equal(t, 1, findings)
	assert.Len(t, d.seen, maxDriftRemembered)
	assert.Len(t, d.services, 1)
	novelty, _ := d.Observe(Call{"slack", "h0", "GET", "/"})
	assert.Zero(t, novelty, "what was remembered stays known")
	novelty, _ = d.Observe(Call{"slack", "h3000", "GET", "/"})
	assert.InDelta(t, 0.6, novelty, 0, "what came past the cap stays new")
}

func TestPathTemplate(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"":                       "/",
		"/":                      "/",
		"/repos/1":               "/repos/{id}",
		"/repos/1/":              "/repos/{id}",
		"repos//2/./issues/../x": "/repos/{id}/x",
		"/../../etc":             "/etc",
		"/api/chat.postMessage":  "/api/chat.postMessage",
		"/v1/users/me":           "/v1/users/me",
		"/V2/users":              "/V2/users",
		"/v2.1/a":                "/v2.1/a",
		"/v1beta2/a":             "/v1beta2/a",
		"/v3alpha/a":             "/v3alpha/a",
		"/1.0/a":                 "/1.0/a",
		"/2010-04-01/Accounts":   "/{id}/Accounts",
		"/v1234567/a":            "/{id}/a",
		"/v1x/a":                 "/{id}/a",
		"/v1beta2x/a":            "/{id}/a",
		"/users/C0123ABCD":       "/users/{id}",
		"/users/550e8400-e29b-41d4-a716-446655440000": "/users/{id}",
		"/commits/deadbeefdeadbeef":                   "/commits/{id}",
		"/commits/deadbeefdeadbee":                    "/commits/deadbeefdeadbee",
		"/commits/DEADBEEFCAFEBABE":                   "/commits/{id}",
		"/keys/abcdefghijklmnopqrstuvwxyz":            "/keys/{id}",
		"/keys/ABCDEFGHIJKLMNOPQRSTUVWXYZ":            "/keys/{id}",
		"/keys/abcdefghijklmnopqrstuvwxy":             "/keys/abcdefghijklmnopqrstuvwxy",
		"/getOrganizationMembershipSettings":          "/getOrganizationMembershipSettings",
		"/very-long-words-with-hyphens-between-them":  "/very-long-words-with-hyphens-between-them",
		"/users/bob@example.com/mail":                 "/users/{id}/mail",
		"/@scope/package":                             "/@scope/package",
		"/documents/1BxiMVs0XRA5:batchUpdate":         "/documents/{id}:batchUpdate",
		"/values/Sheet1!A1:B2":                        "/values/{id}",
		"/values/Sheet1!A1:B2:append":                 "/values/{id}:append",
		"/models:list":                                "/models:list",
		"/:verb":                                      "/:verb",
		"/report-2024.pdf":                            "/{id}",
		"/ünïcode/path":                               "/ünïcode/path",
	}
	for in, want := range tests {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, want, pathTemplate(in))
		})
	}
}

func FuzzPathTemplate(f *testing.F) {
	for _, seed := range []string{"", "/repos/1", "/v1/a:b", "../..", "/a@b:c", "/v.1", "/vbeta", "{id}", "/\xff1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, p string) {
		got := pathTemplate(p)
		if !strings.HasPrefix(got, "/") {
			t.Fatalf("%q: %q does not begin with a slash", p, got)
		}
		if again := pathTemplate(got); again != got {
			t.Fatalf("%q: not stable: %q, then %q", p, got, again)
		}
	})
}

func BenchmarkDriftObserve(b *testing.B) {
	d := NewDrift([]string{"github"}, []string{"github"})
	call := Call{"github", "api.github.com", "GET", "/repos/getstack/stack/issues/1234/comments"}
	b.ReportAllocs()
	for b.Loop() {
		d.Observe(call)
	}
}
