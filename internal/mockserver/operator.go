package mockserver

import (
	"context"
	"sync"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/audit"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/inject"
)

// operator is a tenant: everything that belongs to one account. Its lock is held while a handler runs.
type operator struct {
	server  *Server
	ctx     context.Context // ends with the server, and when it is reset
	cancel  context.CancelFunc
	id      string
	since   time.Time
	email   string    // of its owner; empty for a tenant, which has none
	partner *operator // whose tenant it is; nil for an account of its own

	mu            sync.Mutex
	policy        Policy
	members       table[member]
	agents        table[agent]
	connections   table[connection]
	grants        table[grant] // by agent id + connection id
	missions      table[mission]
	ended         []*mission // the first that ended first
	passports     table[passport]
	tokens        map[string]*passport // by the token signed last: the common one needs no verification
	checkouts     table[checkout]
	dropoffs      table[dropoff]
	inbound       inboundWebhooks
	tenants       table[tenant]
	connects      table[partnerGrantRef] // what this account may do in others
	partnerGrants table[partnerGrant]    // what others may do in this account
	madeBy        map[string]string      // what was made with a partner's grant, by its id: the grant's
	identity      stack.IdentitySettings
	claims        table[identityClaim]
	verifications table[verification]
	requirements  table[serviceRequirement]
	authority     authority
	events        table[stack.SecurityEvent]
	detectors     map[detect.Signal]*stack.DetectorConfig // those that the operator has set
	scanner       *inject.Scanner                         // by the operator's own rules
	packs         table[evidencePack]
	packBytes     int // of all their manifests
	governance    table[governanceApproval]
	operations    table[operation]      // by operation id
	keyed         map[string]*keyedCall // by scope and idempotency key
	keyedBytes    int                   // of their answers
	approvals     table[intentApproval]
	intentClaims  table[intentClaim]
	pii           piiSettings
	llmUsage      llmHistory
	channels      table[channel]
	destinations  table[destination]
	mailroom      mailroom
	fleets        table[fleet]
	fleetMembers  map[string]*fleetMember // of all fleets, by agent id
	challenges    table[enrollChallenge]
	due           deadlines
	alarm         *time.Timer // of the next deadline
	chain         audit.Chain
	meters        meters
	pooled        meters // what the tenants drew on this account's plan
	wallet        wallet
	failures      detect.FailureBurst
	rate          rateWindow
}

func newOperator(s *Server, id string) *operator {
	op := &operator{server: s, id: id, since: s.clock.now(), policy: Policy{Tier: stack.TierEnterprise},
		fleetMembers: map[string]*fleetMember{}, keyed: map[string]*keyedCall{}, identity: defaultIdentitySettings, tokens: map[string]*passport{},
		detectors: map[detect.Signal]*stack.DetectorConfig{}, scanner: s.scanner}
	op.ctx, op.cancel = context.WithCancel(s.ctx)
	op.mailroom.idle.L = &op.mu
	op.due.earlier = op.setAlarm
	return op
}

// stop ends what the operator does of itself: nothing falls due without a call any more, and no delivery begins.
func (op *operator) stop() {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.cancel()
	if op.alarm != nil {
		op.alarm.Stop()
	}
}

// record writes one row into the audit chain. Layer, Action and Outcome (success when empty) are the caller's.
func (op *operator) record(now time.Time, row stack.AuditEntry) {
	row.EntryID, row.Timestamp, row.OperatorID = newID("aud_"), now, op.id
	if row.Outcome == "" {
		row.Outcome = stack.OutcomeSuccess
	}
	if row.Layer == "" {
		row.Layer = "system"
	}
	op.chain.Append(row)
}

// authFailed counts a failed authentication against the operator.
func (op *operator) authFailed(now time.Time, agentID, code string) {
	op.record(now, stack.AuditEntry{AgentID: agentID, Action: "auth.failure", Outcome: stack.OutcomeFailure, ErrorCode: code})
	if finding := op.failures.Observe(now); finding != nil {
		op.raise(now, nil, *finding)
	}
}

// rateWindow counts the requests of the running minute. It has a lock of its own, since it is asked before the operator's
// is taken.
type rateWindow struct {
	mu    sync.Mutex
	began time.Time
	count int
}

// rateLimited counts a request and, when it is one too many, says how long to wait.
func (op *operator) rateLimited(now time.Time) (limit int, wait time.Duration) {
	op.mu.Lock()
	limit = op.policy.RateLimitPerMinute
	op.mu.Unlock()
	if limit == 0 {
		return 0, 0
	}
	op.rate.mu.Lock()
	defer op.rate.mu.Unlock()
	if now.Sub(op.rate.began) >= time.Minute {
		op.rate.began, op.rate.count = now, 0
	}
	if op.rate.count++; op.rate.count > limit {
		return limit, op.rate.began.Add(time.Minute).Sub(now)
	}
	return limit, 0
}
