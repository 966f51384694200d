package stack

// Accountability says how closely an agent is held to account. It belongs to the agent, and so to each of its passports.
type Accountability string

// Accountability modes.
const (
	Enforced Accountability = "enforced" // short leash: checkpoints keep the passport alive, detectors may revoke it
	Logged   Accountability = "logged"   // everything is recorded, nothing is stopped for its behaviour
	Standard Accountability = "standard" // the audit log only
)

// Severity ranks security events and checkout flags.
type Severity string

// Severities, from least to most.
const (
	SeverityInfo     Severity = "info"
	SeverityWarning  Severity = "warning"
	SeverityCritical Severity = "critical"
)

// ReviewStatus is the outcome of a checkout's post-hoc checks.
type ReviewStatus string

// Review statuses.
const (
	ReviewClean   ReviewStatus = "clean"
	ReviewFlagged ReviewStatus = "flagged"
	ReviewBlocked ReviewStatus = "blocked"
)

// ConstraintOp is the comparison of a [Constraint].
type ConstraintOp string

// Constraint operators. (contract: server-api 10)
const (
	OpEq         ConstraintOp = "eq"
	OpNotEq      ConstraintOp = "not_eq"
	OpIn         ConstraintOp = "in"
	OpNotIn      ConstraintOp = "not_in"
	OpMatches    ConstraintOp = "matches" // an RE2 pattern of at most 256 characters
	OpStartsWith ConstraintOp = "starts_with"
)

// Constraint narrows what a passport may send to a service: the value at Path must satisfy Op with Value. All constraints
// of a service must hold; there are at most 32.
type Constraint struct {
	// Path is method, url.pathname, url.host, url.origin, headers.<name>, query.<key> or body.<dotted.path>.
	Path  string       `json:"path"`
	Op    ConstraintOp `json:"op"`
	Value any          `json:"value"`
}
