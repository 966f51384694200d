package stack

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// tokenLife holds what is known of a passport's times, on this machine's clock.
type tokenLife struct {
	skew       time.Duration // the server's clock minus ours
	signed     time.Time     // exp inside the token
	record     time.Time     // expiry in the server's record, which checkpoints move
	renewAt    time.Time     // when to renew the token; zero: not before something moves
	checkpoint time.Time     // when the next checkpoint is to be sent; zero: never
	confirmed  time.Time     // when the server last took the passport for alive
}

// learn takes in a token that was just issued or renewed. The Mission is locked or not shared yet.
func (m *Mission) learn(p Passport, issuedAt, expiresAt time.Time) {
	now := time.Now()
	m.life.skew = issuedAt.Sub(now)
	if m.life.skew.Abs() < 2*time.Second { // iat is in whole seconds
		m.life.skew = 0
	}
	m.life.confirmed = now
	before := m.life.signed
	m.life.signed = expiresAt.Add(-m.life.skew)
	m.moveRecord(p.ExpiresAt)
	grace := min(renewalGrace, m.life.signed.Sub(now)/3)
	m.life.renewAt = m.life.signed.Add(-grace)
	if !m.life.signed.After(before) || m.mode == Enforced && !m.life.record.After(m.life.signed) {
		m.life.renewAt = time.Time{} // nothing to be had: the Mission ends then, or a checkpoint has to come first
	}
}

// confirm notes that the server took the passport for alive at a moment.
func (m *Mission) confirm(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life.confirmed = at
}

// unconfirmed reports whether the server has said nothing of the passport for a while.
func (m *Mission) unconfirmed(since time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.life.confirmed.After(since)
}

// moveRecord takes in what the server says of the expiry on its clock.
func (m *Mission) moveRecord(expiresAt time.Time) {
	if at := expiresAt.Add(-m.life.skew); at.After(m.life.record) {
		m.life.record = at
	}
}

// schedule sets the one timer of the Mission to whatever is due next. The Mission is locked.
func (m *Mission) schedule() {
	m.stopTimer()
	next := m.life.checkpoint
	if at := m.life.renewAt; !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	if m.done || m.dead || next.IsZero() {
		return
	}
	m.timer = time.AfterFunc(time.Until(next), m.tick)
}

func (m *Mission) stopTimer() {
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}

// tick does what is due. It runs on the timer's goroutine, one at a time but for a tick that a full batch called for.
func (m *Mission) tick() {
	m.mu.Lock()
	if m.done || m.dead {
		m.mu.Unlock()
		return
	}
	m.running.Add(1)
	m.mu.Unlock()
	defer m.running.Done()

	if m.hold(m.background) != nil {
		return
	}
	if m.due(func() time.Time { return m.life.checkpoint }) {
		m.scheduledCheckpoint()
	}
	if m.due(func() time.Time { return m.life.renewAt }) {
		_ = m.renew(m.background) // renew has logged it and set the next try
	}
	m.release()

	m.mu.Lock()
	defer m.mu.Unlock()
	m.schedule()
}

func (m *Mission) due(at func() time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := at()
	return !t.IsZero() && !time.Now().Before(t) && !m.done && !m.dead
}

// scheduledCheckpoint sends a checkpoint and, if that fails, sets the next try: soon while the deadline is ahead.
func (m *Mission) scheduledCheckpoint() {
	m.mu.Lock()
	left := time.Until(m.life.record)
	m.mu.Unlock()
	ctx, cancel := m.background, context.CancelFunc(func() {})
	if m.mode == Enforced { // an attempt that hangs must leave room for another before the deadline
		ctx, cancel = context.WithTimeout(ctx, max(time.Second, left/2))
	}
	err := m.report(ctx)
	cancel()
	if err == nil {
		return
	}
	m.mu.Lock()
	m.failures++
	m.account.failed++
	wait := retryDelay(m.failures, left > 0 && m.mode == Enforced)
	m.life.checkpoint = time.Now().Add(wait)
	closing := m.done
	m.mu.Unlock()
	if closing && errors.Is(err, context.Canceled) {
		return // Close broke it off; the calls go with the checkout
	}
	m.client.logger.Warn("checkpoint failed", slog.String("mission_id", m.id), slog.Any("error", err), slog.Duration("next_try", wait))
	if m.params.OnCheckpointError != nil {
		m.params.OnCheckpointError(err)
	}
}

// retryDelay doubles from a fifth of a second, to two seconds where a deadline is close and a minute elsewhere.
func retryDelay(failures int, pressing bool) time.Duration {
	ceiling := time.Minute
	if pressing {
		ceiling = 2 * time.Second
	}
	d := min(200*time.Millisecond<<min(failures-1, 10), ceiling)
	return d/2 + rand.N(d/2)
}

// Checkpoint reports now what was logged since the last checkpoint, instead of waiting for its time. In standard mode,
// which has none, it does nothing. On failure the calls stay and go with the next. It fails with [ErrPassportRevoked] or
// [ErrPassportExpired] when the passport is gone, which ends the Mission's context as well.
//
// POST /v1/passports/{passport_jti}/checkpoint
func (m *Mission) Checkpoint(ctx context.Context) error {
	if m.mode == Standard {
		return nil
	}
	if err := m.usable(); err != nil {
		return err
	}
	if err := m.hold(ctx); err != nil {
		return err
	}
	defer m.release()
	err := m.report(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.schedule()
	return err
}

// flush sends ahead of a checkout what would not fit into its body.
func (m *Mission) flush(ctx context.Context) error {
	m.mu.Lock()
	fits := fitting(m.account.pending) == len(m.account.pending)
	dead := m.dead
	m.mu.Unlock()
	if fits || dead || m.mode == Standard {
		return nil
	}
	if err := m.hold(ctx); err != nil {
		return err
	}
	defer m.release()
	return m.report(ctx)
}

// sentCheckpoint is a checkpoint with the first so many pending calls, and when it was sent.
type sentCheckpoint struct {
	calls int
	began time.Time
}

// report sends the pending calls, in several checkpoints if they are many. Whoever calls it holds the account.
func (m *Mission) report(ctx context.Context) error {
	for {
		sent, cp, err := m.sendCheckpoint(ctx)
		if err != nil {
			return m.watch(err)
		}
		if cp == nil { // an earlier one was not taken after all: its calls are to be sent again
			continue
		}
		if len(cp.Flags) > 0 {
			m.client.logger.Warn("checkpoint was flagged", slog.String("mission_id", m.id), slog.Any("flags", cp.Flags))
		}
		m.known = cp.CheckpointID
		more := false
		m.journal.write(m, journalRecord{Accepted: &sent.calls}, func() { more = m.accepted(sent.calls, cp, sent.began) })
		if !more {
			return nil
		}
	}
}

// sendCheckpoint sends a checkpoint, unless it is to be found out first whether the one before it, whose answer was lost, was
// taken: its calls are not to be sent in another. That one was not where neither a checkpoint nor an error is returned.
func (m *Mission) sendCheckpoint(ctx context.Context) (sentCheckpoint, *Checkpoint, error) {
	var lost error
	if m.unsure == nil {
		m.mu.Lock()
		params := m.account.checkpoint()
		m.mu.Unlock()
		sent := sentCheckpoint{params.ActionsCount, time.Now()}
		cp, err := m.client.Passports.Checkpoint(ctx, m.jti, params)
		if err == nil || !ambiguous(err) {
			return sent, cp, err
		}
		m.unsure, lost = &sent, err
	}
	sent := *m.unsure
	cp, err := m.arrived(ctx)
	if err != nil && ambiguous(err) {
		return sent, nil, firstError(lost, err)
	}
	m.unsure = nil // it is known, or will never be: then its calls are rather told twice than not
	if cp == nil {
		return sent, nil, lost
	}
	return sent, cp, nil
}

// accepted takes in that a checkpoint with the first n pending calls was taken. It tells whether more of them wait than fit
// into the next.
func (m *Mission) accepted(n int, cp *Checkpoint, began time.Time) (more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.account.accepted(n)
	m.life.confirmed = began
	m.failures = 0
	m.moveRecord(cp.NewExpiresAt)
	if m.interval > 0 {
		m.life.checkpoint = began.Add(m.interval - checkpointMargin)
	} else {
		m.life.checkpoint = time.Time{}
	}
	if m.life.record.After(m.life.signed) { // the token can be signed again, up to there
		m.life.renewAt = m.life.signed.Add(-renewalGrace)
	}
	return fitting(m.account.pending) < len(m.account.pending)
}

// arrived returns the checkpoint that was taken after the last one that is known, nil where there is none.
func (m *Mission) arrived(ctx context.Context) (*Checkpoint, error) {
	report, err := m.client.Passports.Report(ctx, m.jti)
	if err != nil {
		return nil, err
	}
	known := slices.IndexFunc(report.Checkpoints, func(cp ReportedCheckpoint) bool { return cp.CheckpointID == m.known })
	if known+1 == len(report.Checkpoints) {
		return nil, nil //nolint:nilnil // there is none
	}
	return &report.Checkpoints[len(report.Checkpoints)-1].Checkpoint, nil
}

// usable returns why the Mission cannot be used, if so.
func (m *Mission) usable() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done {
		return &Error{Code: "MISSION_CLOSED", Message: "the Mission " + m.id + " was closed"}
	}
	return context.Cause(m.ctx)
}

// Token returns a token of the passport that works: it is renewed within 60 seconds of its end. It fails when the Mission is
// closed or its context has ended, with the cause of that, and when an expired token cannot be renewed.
//
// POST /v1/passports/refresh, when it is time
func (m *Mission) Token(ctx context.Context) (Secret, error) {
	if err := m.usable(); err != nil {
		return Secret{}, err
	}
	for {
		m.mu.Lock()
		token, renewAt, dead := m.token, m.life.renewAt, !time.Now().Before(m.life.record)
		m.mu.Unlock()
		if renewAt.IsZero() || time.Now().Before(renewAt) {
			return token, nil
		}
		if err := m.hold(ctx); err != nil {
			return Secret{}, err
		}
		var err error
		if m.due(func() time.Time { return m.life.renewAt }) { // nobody else has done it meanwhile
			err = m.renew(ctx)
		}
		m.release()
		if err != nil {
			if _, gone := fatal(err); gone || dead {
				return Secret{}, err
			}
			return token, nil
		}
	}
}

// renew signs the passport again. Whoever calls it holds the account.
func (m *Mission) renew(ctx context.Context) error {
	m.mu.Lock()
	token := m.token
	m.mu.Unlock()
	passport, err := m.client.Passports.Refresh(ctx, PassportRefreshParams{Token: token, TTL: m.params.TTL})
	var issuedAt, expiresAt time.Time
	if err == nil {
		issuedAt, expiresAt, err = unverifiedTimes(passport.Token)
	}
	if err != nil {
		err = m.watch(err)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.life.renewAt = time.Now().Add(5 * time.Second)
		m.client.logger.Warn("passport renewal failed", slog.String("mission_id", m.id), slog.Any("error", err))
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.token = passport.Token
	m.learn(*passport, issuedAt, expiresAt)
	m.schedule()
	return nil
}
