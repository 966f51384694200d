package inject

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// The limits of an operator's configuration.
const (
	MaxPatterns      = 100  // custom patterns, and whitelist patterns, each
	MaxPatternLength = 1000 // bytes of one expression
	maxProgram       = 2000 // instructions of one
)

// Pattern is an operator's own expression, in RE2 syntax. It is matched without regard to case, against the text and
// against everything decoded from it.
type Pattern struct {
	// ID names the pattern in a [Match]. Empty means custom.N, or whitelist.N, N being its place in the list from 0.
	ID string
	// Expr must not match the empty text.
	Expr string
	// Severity is [Suspicious] or [Critical]; empty means critical. A whitelist pattern has none.
	Severity Verdict
}

// Config says what to look for. [DefaultConfig] is that of an operator that set nothing; the zero value finds nothing.
type Config struct {
	Enabled bool
	// Custom are looked for besides the catalogue. What they say is not weakened by the words around.
	Custom []Pattern
	// Whitelist excuses each hit of the catalogue that lies wholly inside a match of one of these.
	Whitelist []Pattern
	// SeverityOverrides gives patterns of the catalogue another severity, by id ("override.ignore_previous") or family
	// ("override"); an id goes before its family. [Clean] switches a pattern off.
	SeverityOverrides map[string]Verdict
	// Classifier is the third layer, asked about texts of 60 characters or more that are not already critical, for at most
	// 3 seconds. Nil means off. (contract: semantics 14)
	Classifier Classifier
}

// DefaultConfig returns what holds for an operator that set nothing: enabled, the catalogue as it is.
func DefaultConfig() Config {
	return Config{Enabled: true}
}

// New returns a Scanner. It fails with a [*ConfigError] when a pattern or an override is not valid.
func New(c Config) (*Scanner, error) {
	c.Custom, c.Whitelist = slices.Clone(c.Custom), slices.Clone(c.Whitelist)
	c.SeverityOverrides = maps.Clone(c.SeverityOverrides)
	s := &Scanner{config: c, rules: slices.Clone(catalogue().rules)}
	var err error
	if s.custom, err = compile("custom", c.Custom); err != nil {
		return nil, err
	}
	if s.excuse, err = compile("whitelist", c.Whitelist); err != nil {
		return nil, err
	}
	if err := s.override(c.SeverityOverrides); err != nil {
		return nil, err
	}
	return s, nil
}

// custom is an operator's pattern, ready to use.
type custom struct {
	id       string
	expr     *regexp.Regexp
	severity Verdict
}

// ConfigError says what is wrong with a [Config].
type ConfigError struct {
	Field   string // such as custom_patterns[1] or severity_overrides["jailbreak"]
	Sent    string // what it was, in quotes where it was text
	Allowed string // what it must be
	Err     error  // why an expression does not compile; else nil
}

func (e *ConfigError) Error() string {
	text := fmt.Sprintf("%s must be %s, and was %s", e.Field, e.Allowed, e.Sent)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns why an expression does not compile.
func (e *ConfigError) Unwrap() error { return e.Err }

// compile compiles the patterns of one of the two lists.
func compile(list string, patterns []Pattern) ([]custom, error) {
	if len(patterns) > MaxPatterns {
		return nil, &ConfigError{Field: list + "_patterns", Sent: fmt.Sprintf("a list of %d", len(patterns)),
			Allowed: fmt.Sprintf("a list of at most %d", MaxPatterns)}
	}
	compiled := make([]custom, len(patterns))
	for i, p := range patterns {
		bad := &ConfigError{Field: fmt.Sprintf("%s_patterns[%d]", list, i), Sent: fmt.Sprintf("%.80q", p.Expr)}
		expr, err := compileExpr(p.Expr, bad)
		if err != nil {
			return nil, err
		}
		severity := p.Severity
		switch {
		case list == "whitelist" && severity != "":
			bad.Field, bad.Sent, bad.Allowed = bad.Field+".severity", fmt.Sprintf("%.20q", severity), "empty"
			return nil, bad
		case severity == "":
			severity = Critical
		case severity.rank() < Suspicious.rank():
			bad.Field, bad.Sent, bad.Allowed = bad.Field+".severity", fmt.Sprintf("%.20q", severity), "suspicious or critical"
			return nil, bad
		}
		id := p.ID
		if id == "" {
			id = fmt.Sprintf("%s.%d", list, i)
		}
		compiled[i] = custom{id: id, expr: expr, severity: severity}
	}
	return compiled, nil
}

// compileExpr compiles one expression, or says what is wrong with it in bad.
func compileExpr(text string, bad *ConfigError) (*regexp.Regexp, error) {
	if len(text) > MaxPatternLength {
		bad.Sent, bad.Allowed = fmt.Sprintf("%d bytes", len(text)), fmt.Sprintf("at most %d bytes", MaxPatternLength)
		return nil, bad
	}
	if strings.TrimSpace(text) == "" {
		bad.Allowed = "a non-empty expression"
		return nil, bad
	}
	whole := "(?i:" + text + ")"
	size, err := programSize(whole)
	if err != nil {
		bad.Allowed, bad.Err = "an RE2 expression", err
		return nil, bad
	}
	if size > maxProgram { // each byte of a text may cost a step through all of it
		bad.Allowed = fmt.Sprintf("simpler: an RE2 program of at most %d instructions", maxProgram)
		return nil, bad
	}
	expr := regexp.MustCompile(whole)
	if expr.MatchString("") {
		bad.Allowed = "an expression that does not match the empty text"
		return nil, bad
	}
	return expr, nil
}

// programSize returns how many instructions an expression compiles to.
func programSize(expr string) (int, error) {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return 0, err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return 0, err
	}
	return len(program.Inst), nil
}

// override applies overrides to the scanner's rules.
func (s *Scanner) override(overrides map[string]Verdict) error {
	for _, key := range slices.Sorted(maps.Keys(overrides)) {
		if overrides[key].rank() == 0 {
			return &ConfigError{Field: fmt.Sprintf("severity_overrides[%.60q]", key), Sent: fmt.Sprintf("%.20q", overrides[key]),
				Allowed: "clean, suspicious or critical"}
		}
		if !slices.ContainsFunc(s.rules, func(r rule) bool { return r.id == key || r.family == key }) {
			return &ConfigError{Field: "severity_overrides", Sent: fmt.Sprintf("%.60q", key),
				Allowed: "keyed by a pattern of the catalogue or a family: " + strings.Join(s.names(), ", ")}
		}
	}
	for i := range s.rules {
		s.rules[i].severity = severityOf(s.rules[i], overrides)
	}
	return nil
}

// names returns the families and ids of the catalogue, in order.
func (s *Scanner) names() []string {
	var names []string
	for _, r := range s.rules {
		names = append(names, r.family, r.id)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// severityOf returns a rule's severity under overrides.
func severityOf(r rule, overrides map[string]Verdict) Verdict {
	if v, ok := overrides[r.id]; ok {
		return v
	}
	if v, ok := overrides[r.family]; ok {
		return v
	}
	return r.severity
}

// Loosens reports whether going from old to c finds less in any respect: switched off, a custom pattern gone or less
// severe, a whitelist pattern more, or a lower severity. Such a change needs governance approval. (contract: server-api 18)
func (c Config) Loosens(old Config) bool {
	if !old.Enabled {
		return false
	}
	if !c.Enabled {
		return true
	}
	for _, was := range old.Custom {
		if !slices.ContainsFunc(c.Custom, func(p Pattern) bool {
			return p.Expr == was.Expr && p.severity().rank() >= was.severity().rank()
		}) {
			return true
		}
	}
	for _, p := range c.Whitelist {
		if !slices.ContainsFunc(old.Whitelist, func(was Pattern) bool { return was.Expr == p.Expr }) {
			return true
		}
	}
	return slices.ContainsFunc(catalogue().rules, func(r rule) bool {
		return severityOf(r, c.SeverityOverrides).rank() < severityOf(r, old.SeverityOverrides).rank()
	})
}

// severity returns the severity that a custom pattern has.
func (p Pattern) severity() Verdict {
	if p.Severity == "" {
		return Critical
	}
	return p.Severity
}

// PatternInfo describes one pattern of the catalogue.
type PatternInfo struct {
	ID       string
	Family   string
	Severity Verdict
}

// Catalogue returns the built-in patterns, in order of their ids.
func Catalogue() []PatternInfo {
	var infos []PatternInfo
	for _, r := range catalogue().rules {
		infos = append(infos, PatternInfo{ID: r.id, Family: r.family, Severity: r.severity})
	}
	slices.SortFunc(infos, func(a, b PatternInfo) int { return strings.Compare(a.ID, b.ID) })
	return infos
}
