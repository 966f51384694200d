package stack

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	defaultCheckpointInterval = 5 * time.Minute  // of an enforced passport that asked for none
	checkpointMargin          = 5 * time.Second  // a checkpoint is sent so long before it is due
	renewalGrace              = 60 * time.Second // a token is renewed so long before it dies, or at a third of a short life
	closeTimeout              = 30 * time.Second // bound of everything that Close does
	attemptTimeout            = 8 * time.Second  // of one attempt at a checkout or at closing, so that one that hangs leaves time for others
	inFlightTimeout           = 5 * time.Second  // how long Close waits for a checkpoint in flight before it breaks it off
	maxSummary                = 500              // characters of an error that a failure summary quotes
)

// MissionParams describes one bounded run of an agent.
type MissionParams struct {
	AgentID  string
	Intent   string   // what the run is for, at most 500 characters; enforced and logged agents need it
	Services []string // the services that it will use; others are refused

	WillDelegate      bool          // whether it will hand passports on
	EstimatedDuration time.Duration // a run of more than twice this is flagged
	// ExpiresIn is the Mission's lifetime, at most 24 hours; default: EstimatedDuration, else 15 minutes. Ignored with MissionID.
	ExpiresIn time.Duration
	// CheckpointInterval is 1 minute to 1 hour; default: 5 minutes when the agent is enforced, else no checkpoints.
	CheckpointInterval time.Duration
	TTL                time.Duration   // of the passport, 1 minute to 1 hour, default 15 minutes; it is renewed as long as the Mission lives
	Scopes             []PassportScope // narrows what is granted; default: all of it

	// Caps of a Mission that is opened here; zero is no cap.
	MaxActions           int
	MaxActionsPerService map[string]int
	CapBehavior          map[string]CapBehavior

	// MissionID binds to a Mission that somebody else opened: it is left open at the end.
	MissionID string

	// OnCheckpointError hears of each failed attempt to send a checkpoint. It runs on the checkpoint's goroutine and must not
	// call the Mission's Close.
	OnCheckpointError func(error)
}

func (p MissionParams) check() error {
	if err := required("agent_id", p.AgentID); err != nil {
		return err
	}
	if p.Intent == "" && p.MissionID == "" {
		return &ParamError{Param: "intent", Reason: "is empty; a Mission declares what it is for"}
	}
	if err := between("estimated_duration_seconds", p.EstimatedDuration, time.Second, MaxMissionLifetime); err != nil {
		return err
	}
	if err := between("expires_in_seconds", p.ExpiresIn, time.Second, MaxMissionLifetime); err != nil {
		return err
	}
	return checkPassportTimes(p.TTL, p.CheckpointInterval)
}

func (p MissionParams) intent() *Intent {
	if p.Intent == "" && len(p.Services) == 0 {
		return nil
	}
	return &Intent{Summary: p.Intent, Services: p.Services, WillDelegate: p.WillDelegate, EstimatedDuration: p.EstimatedDuration}
}

// Mission is one bounded run of an agent under a passport. It keeps the passport alive, records what the agent does, sends
// checkpoints on schedule, stops the run when the kill switch is pulled, and checks out when the run ends, however it ends.
//
// Open one with [PassportsService.Mission] and defer [Mission.Close]. A Mission is safe for concurrent use.
type Mission struct {
	client   *Client
	params   MissionParams
	id       string
	jti      string
	owns     bool // opened here, so closed here
	passesOn bool // to the next passport of a continuous Mission, whose journal takes over
	journal  *missionJournal
	rotation int
	rotateAt time.Time
	mode     Accountability
	interval time.Duration // of checkpoints; 0 is none
	opened   time.Time

	ctx    context.Context
	cancel context.CancelCauseFunc

	// reporting is held by whoever talks to the server about this passport's account: one checkpoint, renewal or checkout at
	// a time. A channel, so that waiting for it can be given up.
	reporting chan struct{}
	known     string          // id of the last checkpoint that was taken; who holds reporting has it
	unsure    *sentCheckpoint // that may have been taken after it; who holds reporting has it
	// background bounds the work that the timer starts; breakOff ends it.
	background context.Context
	breakOff   context.CancelFunc
	running    sync.WaitGroup // ticks of the timer
	closing    sync.Once

	mu       sync.Mutex
	token    Secret
	life     tokenLife
	account  account
	timer    *time.Timer
	done     bool // closing or closed: no more ticks
	dead     bool // the passport is gone: no more ticks
	failures int  // failed attempts since the last accepted checkpoint
	failed   error
	summary  string
	output   map[string]any
	leaving  map[*ToolCall]struct{} // calls that are under way
	left     []ToolCall             // those that were when the passport was found to be gone
	result   *Checkout
	closeErr error
	ended    time.Time
}

// Mission opens a Mission (or binds to one, with MissionID), issues its passport and starts looking after it. The returned
// Mission must be closed, on every path: defer its Close at once.
//
// It fails as [MissionsService.Start] or [PassportsService.Issue] do, and leaves nothing open then.
//
// POST /v1/missions/start, or POST /v1/passports/issue with MissionID
func (s *PassportsService) Mission(ctx context.Context, params MissionParams) (*Mission, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	j, err := s.client.newJournal(params)
	if err != nil {
		return nil, err
	}
	if params.MissionID != "" {
		passport, bindErr := s.bind(ctx, params)
		if bindErr != nil {
			return nil, errors.Join(bindErr, j.end(true))
		}
		m, newErr := s.client.newMission(ctx, params, params.MissionID, false, *passport, j)
		if newErr != nil {
			return nil, errors.Join(newErr, j.end(true))
		}
		return m, nil
	}
	started, err := s.client.Missions.Start(ctx, MissionStartParams{
		AgentID: params.AgentID,
		Mission: MissionOpenParams{IntentSummary: params.Intent, IntentServices: params.Services,
			ExpiresIn: firstSet(params.ExpiresIn, params.EstimatedDuration), MaxActions: params.MaxActions,
			MaxActionsPerService: params.MaxActionsPerService, CapBehavior: params.CapBehavior, BaselineProfile: j.profile()},
		Passport: &MissionPassportParams{Intent: params.intent(), TTL: params.TTL, CheckpointInterval: params.CheckpointInterval, Scopes: params.Scopes},
	})
	if err != nil { // where it is open whether there is a Mission now, Recover looks for it
		return nil, errors.Join(err, j.end(!ambiguous(err)))
	}
	m, err := s.client.newMission(ctx, params, started.MissionID, true, started.Passport, j)
	if err != nil { // the Mission is open and its passport unusable: nobody else will close it
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_, closeErr := s.client.Missions.Revoke(closeCtx, started.MissionID, MissionRevokeParams{Reason: ReasonOperatorClean, Notes: err.Error()})
		return nil, errors.Join(err, closeErr, j.end(closeErr == nil))
	}
	return m, nil
}

func (s *PassportsService) bind(ctx context.Context, params MissionParams) (*Passport, error) {
	return s.Issue(ctx, PassportIssueParams{AgentID: params.AgentID, MissionIDs: []string{params.MissionID}, Intent: params.intent(),
		TTL: params.TTL, CheckpointInterval: params.CheckpointInterval, Scopes: params.Scopes})
}

func firstSet(values ...time.Duration) time.Duration {
	for _, v := range values {
		if v != 0 {
			return v
		}
	}
	return 0
}

// RunMission runs fn inside a Mission: [PassportsService.Mission], fn with the Mission's context, [Mission.Close]. Its error
// joins fn's with those of the checkout and the closing. A panic in fn, or a runtime.Goexit, is checked out as a failure
// and goes on.
func (s *PassportsService) RunMission(ctx context.Context, params MissionParams, fn func(ctx context.Context, m *Mission) error) (err error) {
	m, err := s.Mission(ctx, params)
	if err != nil {
		return err
	}
	returned := false
	defer m.Close(&err)
	defer func() {
		if !returned {
			_ = m.Fail(errLeft)
		}
	}()
	err = fn(m.Context(), m)
	returned = true
	return err
}

var errLeft = errors.New("the run ended without returning")

// newMission takes charge of an issued passport.
func (c *Client) newMission(
	ctx context.Context, params MissionParams, id string, owns bool, passport Passport, j *missionJournal,
) (*Mission, error) {
	m := &Mission{client: c, params: params, id: id, owns: owns, journal: j, opened: time.Now(), reporting: make(chan struct{}, 1)}
	m.mode, m.interval = passport.Accountability, params.CheckpointInterval
	claims, err := unverifiedClaims(passport.Token)
	if err != nil || passport.JTI == "" || id == "" {
		return nil, &DecodeError{Method: "POST", Route: "/v1/missions/start", Status: 200,
			Err: errors.New("the answer lacks a Mission id or a usable passport")}
	}
	if m.mode == "" {
		m.mode = claims.STK.Accountability
	}
	switch {
	case m.mode == Standard:
		m.interval = 0
	case m.mode == Enforced && m.interval == 0:
		m.interval = firstSet(claims.STK.CheckpointInterval, defaultCheckpointInterval)
	}
	m.jti, m.token = passport.JTI, passport.Token
	j.open(journalOpened{MissionID: id, JTI: m.jti, Owns: owns})
	m.learn(passport, claims.IssuedAt, claims.ExpiresAt)
	if m.interval > 0 {
		m.life.checkpoint = m.opened.Add(m.interval - checkpointMargin)
	}
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	m.background, m.breakOff = context.WithCancel(context.WithoutCancel(ctx))
	m.mu.Lock()
	m.schedule()
	m.mu.Unlock()
	c.poller.add(m)
	return m, nil
}

// ID is the Mission's id.
func (m *Mission) ID() string { return m.id }

// AgentID is the agent that runs it.
func (m *Mission) AgentID() string { return m.params.AgentID }

// JTI is the id of the passport.
func (m *Mission) JTI() string { return m.jti }

// Accountability is the passport's mode.
func (m *Mission) Accountability() Accountability { return m.mode }

// Rotation is 0, or how many passports of a continuous Mission came before this one.
func (m *Mission) Rotation() int { return m.rotation }

// Context is derived from the opener's. It ends when the SDK learns that the passport is gone, with that as its cause: an
// [*Error] that is [ErrPassportRevoked] or [ErrPassportExpired], or a [*MissionEndedError]. It ends when the Mission is
// closed, too.
func (m *Mission) Context() context.Context { return m.ctx }

// Err returns nil while the Mission runs, and afterwards why it ended badly, if it did: the revocation, the failed
// checkout, the failed closing.
func (m *Mission) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closeErr
}

// Result returns the checkout, nil before there is one.
func (m *Mission) Result() *Checkout {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.result
}

// SetResult gives the checkout a summary (at most 1000 characters) and the Mission an output for the case that it ends well.
func (m *Mission) SetResult(summary string, output map[string]any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.summary, m.output = clip(summary, 1000), output
}

// Fail marks the Mission as failed with err, as if the run had returned it, and returns err. Inside a continuous Mission it
// is the way to say so, since the loop cannot see why its body was left: return m.Fail(err). Only the first error counts;
// nil does nothing.
func (m *Mission) Fail(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == nil {
		m.failed = err
	}
	return err
}

// die ends the Mission's context with a cause. The run is expected to stop and to close the Mission.
func (m *Mission) die(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done || m.dead {
		return
	}
	m.dead = true
	for call := range m.leaving {
		m.left = append(m.left, *call)
	}
	m.client.logger.Warn("mission ended from outside", "mission_id", m.id, "cause", cause, "calls_under_way", len(m.left))
	m.stopTimer()
	m.cancel(cause)
}

// leaves notes that a call is under way, until back is called.
func (m *Mission) leaves(call ToolCall) (back func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaving == nil {
		m.leaving = map[*ToolCall]struct{}{}
	}
	m.leaving[&call] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.leaving, &call)
	}
}

// fatal tells whether an error means that the passport is gone, and gives it the form that the context's cause has.
func fatal(err error) (cause error, gone bool) {
	var ended *MissionEndedError
	if errors.As(err, &ended) {
		return ended, true
	}
	var apiErr *Error
	if !errors.As(err, &apiErr) {
		return nil, false
	}
	if errors.Is(apiErr, ErrPassportRevoked) || errors.Is(apiErr, ErrPassportExpired) {
		return apiErr, true
	}
	if mapped := asMissionEnded(apiErr); errors.As(mapped, &ended) {
		return ended, true
	}
	return nil, false
}

// watch passes an error on, after ending the context if it means that the passport is gone.
func (m *Mission) watch(err error) error {
	cause, gone := fatal(err)
	if !gone {
		return err
	}
	m.die(cause)
	if _, ok := cause.(*MissionEndedError); ok { //nolint:errorlint // made by fatal, never wrapped
		return cause
	}
	return err
}

// clip cuts a text to n characters.
func clip(text string, n int) string {
	runes := []rune(strings.ToValidUTF8(text, "\uFFFD"))
	if len(runes) <= n {
		return string(runes)
	}
	return string(runes[:n-1]) + "…"
}

// Log records an action that did not go through [Mission.Proxy], which logs its own. The service must be one that the
// Mission declared, or the review will flag it. target may be empty; a URL loses its query.
func (m *Mission) Log(service, method, target string) {
	m.log(ToolCall{Service: clip(service, 128), Method: clip(method, 128), Target: clip(bareURL(target), 2000)}, false)
}

func (m *Mission) log(call ToolCall, failed bool) {
	m.journal.write(m, journalRecord{Call: &journalCall{call, failed}}, func() { m.count(call, failed) })
}

func (m *Mission) count(call ToolCall, failed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.account.add(call, failed)
	if len(m.account.pending) < batchCalls {
		return
	}
	if m.mode == Standard { // there are no checkpoints to take them
		m.account.drop(keptCalls)
	} else if !m.done && !m.dead {
		m.life.checkpoint = time.Now() // a full batch does not wait for its time
		m.schedule()
	}
}

// Delegate issues another agent a passport under this one; see [PassportsService.Delegate]. The parent token is filled in,
// and the delegation is reported with the next checkpoint and at checkout.
//
// POST /v1/passports/delegate
func (m *Mission) Delegate(ctx context.Context, params PassportDelegateParams) (*Passport, error) {
	token, err := m.Token(ctx)
	if err != nil {
		return nil, err
	}
	params.ParentToken = token
	child, err := m.client.Passports.Delegate(ctx, params)
	if err != nil {
		return nil, m.watch(err)
	}
	m.journal.write(m, journalRecord{Delegated: params.ChildAgentID}, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !slices.Contains(m.account.delegatedTo, params.ChildAgentID) {
			m.account.delegatedTo = append(m.account.delegatedTo, params.ChildAgentID)
		}
	})
	return child, nil
}

// Proxy sends a call through the credential proxy under this Mission's passport and logs it, whether it succeeded or not;
// only a call that certainly did not reach the proxy is not logged. What is logged is service, method, and the URL
// without user information, query and fragment. It fails as [ProxyService.Request] does; when that means that the passport
// is gone, the Mission's context ends as well.
//
// POST /v1/proxy
func (m *Mission) Proxy(ctx context.Context, r ProxyRequest) (*ProxyResponse, error) {
	r, err := r.normal()
	if err != nil {
		return nil, err
	}
	if r.PassportToken, err = m.Token(ctx); err != nil {
		return nil, err
	}
	began, call := time.Now(), ToolCall{Service: clip(r.Service, 128), Method: r.Method, Target: clip(bareURL(r.URL), 2000)}
	back := m.leaves(call)
	defer back()
	resp, err := m.client.Proxy.Request(ctx, r)
	if err == nil {
		m.confirm(began)
	}
	if !errors.Is(err, ErrOutcomeUnknown) { // nobody has to ask where it is
		back()
	}
	if err == nil || reachedProxy(err) {
		m.log(call, err != nil || !resp.OK())
	}
	if err != nil {
		return nil, m.watch(err)
	}
	return resp, nil
}

// reachedProxy reports whether the server may have looked at the call as an action: not when it was refused for its caller.
// A write of unknown outcome was sent, whatever kept the SDK from learning more.
func reachedProxy(err error) bool {
	var sent *sentError
	if errors.Is(err, ErrOutcomeUnknown) || errors.As(err, &sent) {
		return true
	}
	var apiErr *Error
	if errors.As(err, &apiErr) && apiErr.acted {
		return true
	}
	var param *ParamError
	var unsent *unsentError
	return !errors.As(err, &param) && !errors.As(err, &unsent) && !errors.Is(err, ErrUnauthorized) && !errors.Is(err, ErrRateLimited)
}
