package stack_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// tune sets a detector, with a human's approval where it is asked for.
func (s *stage) tune(t *testing.T, key stack.DetectorKey, params stack.DetectorConfigParams) *stack.DetectorConfig {
	t.Helper()
	config, err := s.client.DetectorConfig.Update(t.Context(), key, params)
	if err != nil {
		params.GovernanceApprovalID, _ = approvalNeeded(t, err)
		require.NoError(t, s.Approve(params.GovernanceApprovalID))
		config, err = s.client.DetectorConfig.Update(t.Context(), key, params)
	}
	require.NoError(t, err)
	return config
}

// reset puts a detector back on its defaults, with a human's approval.
func (s *stage) reset(t *testing.T, key stack.DetectorKey) {
	t.Helper()
	approval, _ := approvalNeeded(t, s.client.DetectorConfig.Reset(t.Context(), key, ""))
	require.NoError(t, s.Approve(approval))
	require.NoError(t, s.client.DetectorConfig.Reset(t.Context(), key, approval))
}

var off, on = new(bool), func() *bool { b := true; return &b }()

func TestDetectorConfig(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	c, ctx := s.client.DetectorConfig, t.Context()
	all, err := c.List(ctx)
	require.NoError(t, err)
	assert.Equal(t, []stack.DetectorConfig{}, all.Configs)
	_, err = c.Get(ctx, stack.DetectorPromptInjection)
	require.ErrorIs(t, err, stack.ErrNotFound)
	requireRefused(t, err, http.StatusNotFound, "NOT_FOUND")

	made, err := c.Update(ctx, stack.DetectorPromptInjection, stack.DetectorConfigParams{
		CustomPatterns:    []stack.DetectorPattern{{Pattern: "bluebird"}, {ID: "acme.2", Pattern: "redwing", Severity: stack.SeverityWarning}},
		SeverityOverrides: map[string]stack.Severity{"extraction.ask_prompt": stack.SeverityCritical}})
	require.NoError(t, err)
	want := &stack.DetectorConfig{DetectorKey: "prompt_injection", Enabled: true, WhitelistPatterns: []stack.DetectorPattern{},
		CustomPatterns: []stack.DetectorPattern{{ID: "custom.0", Pattern: "bluebird", Severity: stack.SeverityCritical},
			{ID: "acme.2", Pattern: "redwing", Severity: stack.SeverityWarning}},
		SeverityOverrides: map[string]stack.Severity{"extraction.ask_prompt": stack.SeverityCritical},
		CreatedAt:         made.CreatedAt, UpdatedAt: made.UpdatedAt}
	assert.Equal(t, want, made)
	got, err := c.Get(ctx, stack.DetectorPromptInjection)
	require.NoError(t, err)
	assert.Equal(t, want, got)

	// What is not sent stays, and what is sent takes the old one's place.
	more := s.tune(t, stack.DetectorPromptInjection,
		stack.DetectorConfigParams{WhitelistPatterns: []stack.DetectorPattern{{Pattern: "our newsletter"}}})
	assert.Equal(t, want.CustomPatterns, more.CustomPatterns)
	assert.Equal(t, []stack.DetectorPattern{{ID: "whitelist.0", Pattern: "our newsletter"}}, more.WhitelistPatterns)
	assert.Equal(t, want.CreatedAt, more.CreatedAt)
	less := s.tune(t, stack.DetectorPromptInjection, stack.DetectorConfigParams{CustomPatterns: []stack.DetectorPattern{},
		SeverityOverrides: map[string]stack.Severity{}})
	assert.Empty(t, less.CustomPatterns)
	assert.Empty(t, less.SeverityOverrides)
	assert.Equal(t, more.WhitelistPatterns, less.WhitelistPatterns)

	s.tune(t, stack.DetectorIdleMission, stack.DetectorConfigParams{Enabled: off})
	all, err = c.List(ctx)
	require.NoError(t, err)
	require.Len(t, all.Configs, 2)
	assert.Equal(t, []stack.DetectorKey{"idle_mission", "prompt_injection"},
		[]stack.DetectorKey{all.Configs[0].DetectorKey, all.Configs[1].DetectorKey})

	s.reset(t, stack.DetectorIdleMission)
	_, err = c.Get(ctx, stack.DetectorIdleMission)
	require.ErrorIs(t, err, stack.ErrNotFound)
	require.ErrorIs(t, c.Reset(ctx, stack.DetectorIdleMission, ""), stack.ErrNotFound, "no human is asked for nothing")
	assert.Equal(t, []int{4, 1}, []int{s.countRows("detector_config.update"), s.countRows("detector_config.reset")})
}

// Plain strings and objects are patterns alike, and answers have their keys. (contract: endpoints 2.25)
func TestDetectorConfigOnTheWire(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	body := map[string]any{"custom_patterns": []any{"bluebird", map[string]any{"id": "x", "pattern": "redwing", "severity": nil}},
		"whitelist_patterns": nil, "severity_overrides": nil, "enabled": nil}
	answer := s.raw(t, "PUT", "/v1/detectors/prompt_injection/config", body)
	assert.Equal(t, "created_at custom_patterns detector_key enabled severity_overrides updated_at whitelist_patterns", keys(answer))
	assert.Equal(t, []any{map[string]any{"id": "custom.0", "pattern": "bluebird", "severity": "critical"},
		map[string]any{"id": "x", "pattern": "redwing", "severity": "critical"}}, answer["custom_patterns"])
	assert.Equal(t, "configs", keys(s.raw(t, "GET", "/v1/detectors/config", nil)))
	var p []stack.DetectorPattern
	require.NoError(t, json.Unmarshal([]byte(`["a",{"pattern":"b","severity":"warning"}]`), &p))
	assert.Equal(t, []stack.DetectorPattern{{Pattern: "a"}, {Pattern: "b", Severity: stack.SeverityWarning}}, p)
}

func TestDetectorConfigRefuses(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	at := func(key string) string { return "/v1/detectors/" + key + "/config" }
	patterns := func(list string, p ...any) map[string]any { return map[string]any{list + "_patterns": p} }
	pattern := func(fields ...any) map[string]any {
		p := map[string]any{"pattern": "a"}
		for i := 0; i < len(fields); i += 2 {
			p[fields[i].(string)] = fields[i+1]
		}
		return patterns("custom", "b", p)
	}
	for name, tc := range map[string]struct {
		key     string
		body    map[string]any
		field   string
		message string
	}{
		"does not compile": {"prompt_injection", patterns("custom", "a", "(b"), "body.custom_patterns[1]", "missing closing )"},
		"look-ahead":       {"prompt_injection", patterns("whitelist", "a(?=b)"), "body.whitelist_patterns[0]", "invalid or unsupported Perl syntax"},
		"empty":            {"prompt_injection", patterns("custom", ""), "body.custom_patterns[0]", "a non-empty expression"},
		"matches nothing":  {"prompt_injection", patterns("custom", "a*"), "body.custom_patterns[0]", "does not match the empty text"},
		"too costly":       {"prompt_injection", patterns("custom", strings.Repeat(`\pL{500}`, 9)), "body.custom_patterns[0]", "2000 instructions"},
		"too long":         {"prompt_injection", patterns("custom", strings.Repeat("a", 1001)), "body.custom_patterns[0]", "1000 bytes"},
		"too many":         {"prompt_injection", patterns("custom", make([]any, 101)...), "body.custom_patterns", "at most 100"},
		"a number":         {"prompt_injection", patterns("custom", 1), "body.custom_patterns[0]", "a string or an object"},
		"a null":           {"prompt_injection", patterns("custom", nil), "body.custom_patterns[0]", "a string or an object"},
		"no pattern": {"prompt_injection", patterns("custom", map[string]any{"id": "x"}), "body.custom_patterns[0].pattern",
			"a string"},
		"unknown field": {"prompt_injection", pattern("regex", "x"), "body.custom_patterns[1].regex", "unknown field"},
		"bad id":        {"prompt_injection", pattern("id", "a b"), "body.custom_patterns[1].id", "64 letters"},
		"a taken id":    {"prompt_injection", pattern("id", "custom.0"), "body.custom_patterns[1].id", "no other pattern's"},
		"a built-in id": {"prompt_injection", pattern("id", "jailbreak.dan"), "body.custom_patterns[1].id", "no other pattern's"},
		"bad severity":  {"prompt_injection", pattern("severity", "info"), "body.custom_patterns[1].severity", "warning, critical"},
		"whitelist with severity": {"prompt_injection",
			patterns("whitelist", map[string]any{"pattern": "a", "severity": "warning"}), "body.whitelist_patterns[0].severity",
			"absent"},
		"patterns elsewhere": {"scope_drift", patterns("custom", "a"), "body.custom_patterns", "only prompt_injection"},
		"override to nothing": {"prompt_injection", map[string]any{"severity_overrides": map[string]any{"override": "fatal"}},
			"body.severity_overrides.override", "info, warning, critical"},
		"override of nothing": {"prompt_injection", map[string]any{"severity_overrides": map[string]any{"overide": "info"}},
			"body.severity_overrides", "override.ignore_previous"},
		"override of no severity": {"scope_drift", map[string]any{"severity_overrides": map[string]any{"high": "info"}},
			"body.severity_overrides (a key)", "info, warning, critical"},
		"not a boolean": {"scope_drift", map[string]any{"enabled": "no"}, "body.enabled", "true or false"},
	} {
		err := s.client.Do(t.Context(), "PUT", at(tc.key), tc.body, nil)
		refused := requireRefused(t, err, http.StatusBadRequest, "INVALID_REQUEST")
		assert.Equal(t, tc.field, refused.Details["field"], name)
		assert.Contains(t, refused.Message, tc.message, name)
		assert.Contains(t, refused.Details, "allowed", name)
	}
	all, err := s.client.DetectorConfig.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, all.Configs, "what is refused changes nothing")

	_, getErr := s.client.DetectorConfig.Get(t.Context(), "scope_drfit")
	_, updateErr := s.client.DetectorConfig.Update(t.Context(), "scope_drfit", stack.DetectorConfigParams{})
	for _, err := range []error{getErr, updateErr, s.client.DetectorConfig.Reset(t.Context(), "scope_drfit", "")} {
		refused := requireRefused(t, err, http.StatusNotFound, "NOT_FOUND")
		assert.Len(t, refused.Details["allowed"], 23)
	}
	_, getErr = s.client.DetectorConfig.Get(t.Context(), "")
	_, updateErr = s.client.DetectorConfig.Update(t.Context(), "", stack.DetectorConfigParams{})
	for _, err := range []error{getErr, updateErr, s.client.DetectorConfig.Reset(t.Context(), "", "")} {
		requireParam(t, err, "detector_key")
	}
}

// Writes begin with the studio plan; reads are everybody's. (contract: server-api 4)
func TestDetectorConfigByPlan(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Logged)
	stricter := stack.DetectorConfigParams{SeverityOverrides: map[string]stack.Severity{"warning": stack.SeverityCritical}}
	for tier, may := range map[stack.Tier]bool{stack.TierFree: false, stack.TierDeveloper: false, stack.TierStudio: true} {
		s.SetPolicy(stacktest.Policy{Tier: tier})
		_, err := s.client.DetectorConfig.Update(t.Context(), stack.DetectorScopeDrift, stricter)
		resetErr := s.client.DetectorConfig.Reset(t.Context(), stack.DetectorScopeDrift, "")
		_, listErr := s.client.DetectorConfig.List(t.Context())
		require.NoError(t, listErr)
		if may {
			require.NoError(t, err)
			require.ErrorIs(t, resetErr, stack.ErrGovernanceApprovalRequired)
			continue
		}
		for _, err := range []error{err, resetErr} {
			refused := requireRefused(t, err, http.StatusForbidden, "TIER_LIMIT_EXCEEDED")
			assert.Equal(t, []any{"plan_tier", string(tier), []any{"studio", "enterprise"}},
				[]any{refused.Details["check"], refused.Details["tier"], refused.Details["allowed"]})
		}
	}
}

// A change that makes a detector weaker in anything needs a human, for that very change. (contract: server-api 2.5)
func TestDetectorConfigLoosening(t *testing.T) {
	t.Parallel()
	low := map[string]stack.Severity{"critical": stack.SeverityWarning}
	high := map[string]stack.Severity{"warning": stack.SeverityCritical}
	own := []stack.DetectorPattern{{ID: "own", Pattern: "bluebird"}}
	for name, tc := range map[string]struct {
		key     stack.DetectorKey
		before  stack.DetectorConfigParams
		change  stack.DetectorConfigParams
		loosens bool
	}{
		"off":                      {"scope_drift", stack.DetectorConfigParams{}, stack.DetectorConfigParams{Enabled: off}, true},
		"on again":                 {"scope_drift", stack.DetectorConfigParams{Enabled: off}, stack.DetectorConfigParams{Enabled: on}, false},
		"severity lower":           {"credential_burst", stack.DetectorConfigParams{}, stack.DetectorConfigParams{SeverityOverrides: low}, true},
		"severity higher":          {"credential_burst", stack.DetectorConfigParams{}, stack.DetectorConfigParams{SeverityOverrides: high}, false},
		"no longer higher":         {"credential_burst", stack.DetectorConfigParams{SeverityOverrides: high}, stack.DetectorConfigParams{SeverityOverrides: map[string]stack.Severity{}}, true},
		"nothing":                  {"credential_burst", stack.DetectorConfigParams{SeverityOverrides: low}, stack.DetectorConfigParams{}, false},
		"a pattern more":           {"prompt_injection", stack.DetectorConfigParams{}, stack.DetectorConfigParams{CustomPatterns: own}, false},
		"a pattern less":           {"prompt_injection", stack.DetectorConfigParams{CustomPatterns: own}, stack.DetectorConfigParams{CustomPatterns: []stack.DetectorPattern{}}, true},
		"whitelisted":              {"prompt_injection", stack.DetectorConfigParams{}, stack.DetectorConfigParams{WhitelistPatterns: own}, true},
		"no longer whitelisted":    {"prompt_injection", stack.DetectorConfigParams{WhitelistPatterns: own}, stack.DetectorConfigParams{WhitelistPatterns: []stack.DetectorPattern{}}, false},
		"a family no longer":       {"prompt_injection", stack.DetectorConfigParams{}, stack.DetectorConfigParams{SeverityOverrides: map[string]stack.Severity{"jailbreak": stack.SeverityInfo}}, true},
		"injection not looked for": {"prompt_injection", stack.DetectorConfigParams{}, stack.DetectorConfigParams{Enabled: off}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Logged)
			before := s.tune(t, tc.key, tc.before)
			_, err := s.client.DetectorConfig.Update(t.Context(), tc.key, tc.change)
			if !tc.loosens {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, stack.ErrGovernanceApprovalRequired)
			now, err := s.client.DetectorConfig.Get(t.Context(), tc.key)
			require.NoError(t, err)
			assert.Equal(t, before, now)
			s.tune(t, tc.key, tc.change)
		})
	}
	t.Run("of another change", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, stack.Logged)
		_, err := s.client.DetectorConfig.Update(t.Context(), "scope_drift", stack.DetectorConfigParams{SeverityOverrides: low})
		approval, _ := approvalNeeded(t, err)
		require.NoError(t, s.Approve(approval))
		_, err = s.client.DetectorConfig.Update(t.Context(), "scope_drift",
			stack.DetectorConfigParams{Enabled: off, GovernanceApprovalID: approval})
		require.ErrorIs(t, err, stack.ErrGovernanceApprovalRequired)
		_, err = s.client.DetectorConfig.Update(t.Context(), "scope_drift",
			stack.DetectorConfigParams{SeverityOverrides: low, GovernanceApprovalID: approval})
		require.NoError(t, err, "it is still good for its own")
	})
}

// outside names a service that the passport does not reach.
var outside = stack.ProxyRequest{Service: "github", URL: "https://api.github.com/"}

// A detector that is off is silent, and what is refused without it stays refused; an override changes what its event does.
func TestDetectorConfigOfRealTimeDetectors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		params   stack.DetectorConfigParams
		severity stack.Severity
		dies     bool
	}{
		"built in": {stack.DetectorConfigParams{}, stack.SeverityCritical, true},
		"off":      {stack.DetectorConfigParams{Enabled: off}, "", false},
		"lower": {stack.DetectorConfigParams{SeverityOverrides: map[string]stack.Severity{"critical": stack.SeverityInfo}},
			stack.SeverityInfo, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Enforced)
			s.tune(t, stack.DetectorCredentialOutsideScope, tc.params)
			p := s.issue(t)
			_, err := s.do(t, p, outside)
			requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
			_, err = s.do(t, p, read)
			assert.Equal(t, tc.dies, err != nil)
			if tc.severity == "" {
				assert.Empty(t, s.SecurityEvents())
				assert.Zero(t, s.countRows("detector.credential_outside_scope"))
				return
			}
			assert.Equal(t, tc.severity, s.SecurityEvents()[0].Severity)
		})
	}
}

// Scope drift revokes by itself, unless it is set to info; a warning made critical revokes as well.
func TestDetectorConfigOfWarnings(t *testing.T) {
	t.Parallel()
	novel := stack.ProxyRequest{Service: "own", URL: "https://own.example/"}
	for name, tc := range map[string]struct {
		key      stack.DetectorKey
		override map[string]stack.Severity
		dies     bool
	}{
		"drift":         {stack.DetectorScopeDrift, nil, true},
		"drift as info": {stack.DetectorScopeDrift, map[string]stack.Severity{"warning": stack.SeverityInfo}, false},
		"injection as critical": {stack.DetectorPromptInjection,
			map[string]stack.Severity{"extraction.ask_prompt": stack.SeverityCritical}, true},
		"injection as it is": {stack.DetectorPromptInjection, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStageWith(t, stacktest.AgentConfig{Mode: stack.Enforced, Services: []string{"own", "slack"}})
			s.Upstream("own.example", answers(jsonType, `{}`))
			s.tune(t, tc.key, stack.DetectorConfigParams{SeverityOverrides: tc.override})
			var p *stack.Passport
			if tc.key == stack.DetectorScopeDrift {
				p = s.issue(t, func(p *stack.PassportIssueParams) {
					p.Intent = &stack.Intent{Summary: "Test", Services: []string{"slack", "own"}}
				})
				for i := range 12 { // each path is new
					r := novel
					r.URL += fmt.Sprint("p/", strings.Repeat("x", i+1))
					_, _ = s.do(t, p, r)
				}
			} else {
				p = s.issue(t)
				_, _ = s.do(t, p, post(doubtful))
			}
			_, err := s.do(t, p, read)
			assert.Equal(t, tc.dies, err != nil, "%v %v", err, s.signals())
		})
	}
}

// A silent passport whose detector is off is not revoked: it lapses.
func TestDetectorConfigOfCheckpointSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		s.tune(t, stack.DetectorCheckpointSilence, stack.DetectorConfigParams{Enabled: off})
		p := s.issue(t)
		time.Sleep(16 * time.Minute)
		_, err := s.do(t, p, read)
		require.ErrorIs(t, err, stack.ErrPassportExpired)
		assert.Equal(t, 1, s.countRows("passport.expire"))
		assert.Zero(t, s.countRows("passport.revoke"))
	})
}

// Post-hoc detectors are tuned too, and the review's status with them.
func TestDetectorConfigOfPostHocDetectors(t *testing.T) {
	t.Parallel()
	report := stack.CheckpointParams{ServicesUsed: []string{"github"}, ActionsCount: 1}
	for name, tc := range map[string]struct {
		params stack.DetectorConfigParams
		status stack.ReviewStatus
	}{
		"built in": {stack.DetectorConfigParams{}, stack.ReviewBlocked},
		"off":      {stack.DetectorConfigParams{Enabled: off}, stack.ReviewClean},
		"lower": {stack.DetectorConfigParams{SeverityOverrides: map[string]stack.Severity{"critical": stack.SeverityWarning}},
			stack.ReviewFlagged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, stack.Logged)
			s.tune(t, stack.DetectorUndeclaredService, tc.params)
			out, err := s.client.Passports.Checkout(t.Context(), s.issue(t).JTI, report)
			require.NoError(t, err)
			assert.Equal(t, tc.status, out.ReviewStatus, out.Flags)
			assert.NotNil(t, out.Flags)
		})
	}
}

// Injection that is not looked for is not found anywhere.
func TestDetectorConfigOfInjectionOff(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	s.tune(t, stack.DetectorPromptInjection, stack.DetectorConfigParams{Enabled: off})
	p := s.issue(t)
	_, err := s.do(t, p, post(attack))
	require.NoError(t, err)
	result, err := s.client.Scan.Scan(t.Context(), stack.ScanParams{Content: attack, PassportToken: p.Token})
	require.NoError(t, err)
	assert.Equal(t, stack.VerdictClean, result.Verdict)
	assert.Empty(t, s.SecurityEvents())
}
