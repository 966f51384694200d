package mockserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/inject"
)

func detectorConfigRoutes() []route {
	return []route{
		endpoint("GET", "/v1/detectors/config", (*Server).listDetectorConfigs),
		endpoint("GET", "/v1/detectors/{detector_key}/config", (*Server).getDetectorConfig),
		endpoint("PUT", "/v1/detectors/{detector_key}/config", (*Server).updateDetectorConfig, adminOnly),
		endpoint("DELETE", "/v1/detectors/{detector_key}/config", (*Server).resetDetectorConfig, adminOnly),
	}
}

// severities, from least to most.
var severities = []stack.Severity{stack.SeverityInfo, stack.SeverityWarning, stack.SeverityCritical}

// tuned returns a finding as the operator has set its detector, and whether it is to be heard at all.
func (op *operator) tuned(f detect.Finding) (tuned detect.Finding, heard bool) {
	config, ok := op.detectors[f.Signal]
	if !ok {
		return f, true
	}
	f.Severity = severityUnder(config, f.Severity)
	return f, config.Enabled
}

// tunedAll returns those of the findings that are to be heard, as the operator has set their detectors.
func (op *operator) tunedAll(findings []detect.Finding) []detect.Finding {
	var heard []detect.Finding
	for _, f := range findings {
		if tuned, ok := op.tuned(f); ok {
			heard = append(heard, tuned)
		}
	}
	return heard
}

// severityUnder is what an operator makes of a severity. For injection the scanner has done it: there the overrides' keys are
// patterns.
func severityUnder(config *stack.DetectorConfig, s stack.Severity) stack.Severity {
	return or(config.SeverityOverrides[string(s)], s)
}

// signalNamed finds a detector by its key.
func signalNamed(key string) (detect.Signal, error) {
	all := slices.Concat(detect.RealTime(), detect.PostHoc())
	if slices.Contains(all, detect.Signal(key)) {
		return detect.Signal(key), nil
	}
	err := notFound("detector", key)
	err.details["allowed"] = all
	return "", err
}

type detectorIn struct {
	Key string `path:"detector_key"`
}

func (s *Server) listDetectorConfigs(_ context.Context, c *caller, _ none) (*stack.DetectorConfigs, error) {
	list := stack.DetectorConfigs{Configs: []stack.DetectorConfig{}}
	for _, key := range slices.Sorted(maps.Keys(c.op.detectors)) {
		list.Configs = append(list.Configs, *c.op.detectors[key])
	}
	return &list, nil
}

func (s *Server) getDetectorConfig(_ context.Context, c *caller, in detectorIn) (*stack.DetectorConfig, error) {
	signal, err := signalNamed(in.Key)
	if err != nil {
		return nil, err
	}
	return c.op.detectorConfig(signal)
}

// detectorConfig finds how the operator has set a detector. (contract: endpoints 2.25)
func (op *operator) detectorConfig(signal detect.Signal) (*stack.DetectorConfig, error) {
	if config, ok := op.detectors[signal]; ok {
		return config, nil
	}
	err := notFound("configuration of the detector", string(signal))
	err.message += "; it is on its built-in defaults"
	return nil, err
}

type updateDetectorIn struct {
	Key  string `path:"detector_key"`
	Body struct {
		Enabled           *bool                     `json:"enabled,omitempty"`
		CustomPatterns    []json.RawMessage         `json:"custom_patterns,omitempty"`
		WhitelistPatterns []json.RawMessage         `json:"whitelist_patterns,omitempty"`
		SeverityOverrides map[string]stack.Severity `json:"severity_overrides,omitempty"`
	} `body:""`
}

// updateDetectorConfig changes what is sent of a detector's settings. What loosens them needs a human's approval, of this very
// change.
func (s *Server) updateDetectorConfig(
	_ context.Context, c *caller, in updateDetectorIn,
) (*stack.DetectorConfig, error) {
	op, now := c.op, s.clock.now()
	signal, err := signalNamed(in.Key)
	if err != nil {
		return nil, err
	}
	if err = op.needsTier(stack.TierStudio, "setting a detector"); err != nil {
		return nil, err
	}
	old := or(op.detectors[signal], &stack.DetectorConfig{DetectorKey: stack.DetectorKey(signal), Enabled: true, CreatedAt: now,
		CustomPatterns: []stack.DetectorPattern{}, WhitelistPatterns: []stack.DetectorPattern{},
		SeverityOverrides: map[string]stack.Severity{}})
	config, err := in.applyTo(*old)
	if err != nil {
		return nil, err
	}
	scanner, loosens := op.scanner, false
	if signal == detect.PromptInjection {
		scanner, loosens, err = s.rescan(old, config)
	} else {
		loosens, err = severitiesLoosen(old, config)
	}
	if err != nil {
		return nil, err
	}
	if loosens {
		if err = op.governed(now, c, "detector_config.update", changeOf(config)); err != nil {
			return nil, err
		}
	}
	config.UpdatedAt = now
	op.detectors[signal], op.scanner = config, scanner
	op.record(now, stack.AuditEntry{Action: "detector_config.update", TraceID: in.Key})
	return config, nil
}

// applyTo returns a configuration with what was sent put in.
func (in updateDetectorIn) applyTo(config stack.DetectorConfig) (*stack.DetectorConfig, error) {
	b := in.Body
	replace(&config.Enabled, b.Enabled)
	if b.SeverityOverrides != nil {
		config.SeverityOverrides = b.SeverityOverrides
	}
	for key, severity := range config.SeverityOverrides {
		if err := chosen("body.severity_overrides."+key, severity, severities...); err != nil {
			return nil, err
		}
	}
	for _, list := range []struct {
		name string
		sent []json.RawMessage
		keep *[]stack.DetectorPattern
	}{
		{"custom", b.CustomPatterns, &config.CustomPatterns},
		{"whitelist", b.WhitelistPatterns, &config.WhitelistPatterns},
	} {
		if list.sent == nil {
			continue
		}
		var err error
		if *list.keep, err = in.patterns(list.name, list.sent); err != nil {
			return nil, err
		}
	}
	return &config, nil
}

// patternID is how an operator's pattern may be named.
var patternID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// patterns reads a list of patterns, each a string or an object. Those without an id are given one.
func (in updateDetectorIn) patterns(list string, sent []json.RawMessage) ([]stack.DetectorPattern, error) {
	field := "body." + list + "_patterns"
	if len(sent) > 0 && in.Key != string(detect.PromptInjection) {
		return nil, invalid(field, fmt.Sprintf("a list of %d", len(sent)), "empty: only prompt_injection has patterns")
	}
	if len(sent) > inject.MaxPatterns {
		return nil, invalid(field, fmt.Sprintf("a list of %d", len(sent)), fmt.Sprintf("a list of at most %d", inject.MaxPatterns))
	}
	patterns := make([]stack.DetectorPattern, len(sent))
	seen := map[string]bool{}
	for i, raw := range sent {
		at, p := fmt.Sprintf("%s[%d]", field, i), &patterns[i]
		switch raw = bytes.TrimSpace(raw); {
		case bytes.HasPrefix(raw, []byte(`"`)):
			if err := json.Unmarshal(raw, p); err != nil {
				return nil, invalid(at, err.Error(), "a string or an object")
			}
		case bytes.HasPrefix(raw, []byte("{")):
			if err := decodeStrictAs(at, raw, p); err != nil {
				return nil, err
			}
		default:
			return nil, invalid(at, string(raw), "a string or an object with pattern and, if wanted, id and severity")
		}
		p.ID = or(p.ID, fmt.Sprintf("%s.%d", list, i))
		inCatalogue := slices.ContainsFunc(inject.Catalogue(), func(info inject.PatternInfo) bool { return info.ID == p.ID })
		if seen[p.ID] || inCatalogue || !patternID.MatchString(p.ID) {
			return nil, invalid(at+".id", p.ID, "up to 64 letters, digits and _ . -, and no other pattern's id")
		}
		seen[p.ID] = true
		if list == "custom" {
			p.Severity = or(p.Severity, stack.SeverityCritical)
			if err := chosen(at+".severity", p.Severity, stack.SeverityWarning, stack.SeverityCritical); err != nil {
				return nil, err
			}
		} else if p.Severity != "" {
			return nil, invalid(at+".severity", string(p.Severity), "absent: what a whitelist pattern excuses has none")
		}
	}
	return patterns, nil
}

// rescan makes the scanner for a configuration of prompt_injection, and says whether that finds less than the old.
func (s *Server) rescan(old, config *stack.DetectorConfig) (scanner *inject.Scanner, loosens bool, err error) {
	rules := injectConfig(config)
	rules.Classifier = s.classifier
	scanner, err = inject.New(rules)
	var bad *inject.ConfigError
	if errors.As(err, &bad) {
		refusal := invalid("body."+bad.Field, bad.Sent, bad.Allowed)
		if bad.Err != nil {
			refusal.message += " (" + clip(bad.Err.Error()) + ")"
			refusal.details["error"] = clip(bad.Err.Error())
		}
		return nil, false, refusal
	}
	return scanner, rules.Loosens(injectConfig(old)), err
}

// verdicts are what an event's severity says of a text.
var verdicts = map[stack.Severity]inject.Verdict{
	stack.SeverityInfo: inject.Clean, stack.SeverityWarning: inject.Suspicious, stack.SeverityCritical: inject.Critical,
}

// injectConfig is a configuration as the scanner takes it.
func injectConfig(config *stack.DetectorConfig) inject.Config {
	rules := inject.Config{Enabled: config.Enabled, SeverityOverrides: map[string]inject.Verdict{}}
	for _, p := range config.CustomPatterns {
		rules.Custom = append(rules.Custom, inject.Pattern{ID: p.ID, Expr: p.Pattern, Severity: verdicts[p.Severity]})
	}
	for _, p := range config.WhitelistPatterns {
		rules.Whitelist = append(rules.Whitelist, inject.Pattern{ID: p.ID, Expr: p.Pattern})
	}
	for key, severity := range config.SeverityOverrides {
		rules.SeverityOverrides[key] = verdicts[severity]
	}
	return rules
}

// severitiesLoosen reports whether a detector is heard less, or less loudly, than it was. It refuses overrides of what is no
// severity.
func severitiesLoosen(old, config *stack.DetectorConfig) (bool, error) {
	for key := range config.SeverityOverrides {
		if err := chosen("body.severity_overrides (a key)", stack.Severity(key), severities...); err != nil {
			return false, err
		}
	}
	loosens := old.Enabled && !config.Enabled
	for _, s := range severities {
		loosens = loosens || old.Enabled &&
			slices.Index(severities, severityUnder(config, s)) < slices.Index(severities, severityUnder(old, s))
	}
	return loosens, nil
}

// changeOf names a configuration, so that an approval is of one change only.
func changeOf(config *stack.DetectorConfig) string {
	plain := *config
	plain.CreatedAt, plain.UpdatedAt = time.Time{}, time.Time{}
	text, err := json.Marshal(plain)
	if err != nil {
		panic("mockserver: a detector's configuration: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return string(config.DetectorKey) + "/" + hex.EncodeToString(sum[:8])
}

// resetDetectorConfig puts a detector back on its built-in defaults, whatever they are stricter or looser in.
func (s *Server) resetDetectorConfig(_ context.Context, c *caller, in detectorIn) (*none, error) {
	op, now := c.op, s.clock.now()
	signal, err := signalNamed(in.Key)
	if err != nil {
		return nil, err
	}
	if err := op.needsTier(stack.TierStudio, "setting a detector"); err != nil {
		return nil, err
	}
	if _, err := op.detectorConfig(signal); err != nil { // before a human is asked
		return nil, err
	}
	if err := op.governed(now, c, "detector_config.reset", in.Key); err != nil {
		return nil, err
	}
	delete(op.detectors, signal)
	if signal == detect.PromptInjection {
		op.scanner = s.scanner
	}
	op.record(now, stack.AuditEntry{Action: "detector_config.reset", TraceID: in.Key})
	return &none{}, nil
}
