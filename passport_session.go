package stack

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// PassportSession is a passport that keeps its token alive, for calls outside a [Mission]: nobody sends checkpoints for it and
// nobody checks it out. Its [PassportSession.Token] goes wherever a passport token is asked for, and the session itself where
// a [TokenSource] is. Make one with [PassportsService.Session]. It is safe for concurrent use, and needs no closing.
type PassportSession struct {
	client *Client
	jti    string
	ttl    time.Duration

	mu        sync.Mutex
	token     Secret
	expiresAt time.Time // of the token, on this machine's clock
	renewAt   time.Time
	renewal   *renewal // the one that is under way
	gone      error    // why the passport can never be renewed
}

// renewal is one refresh, and what everybody waits for who asks for the token meanwhile.
type renewal struct {
	done chan struct{}
	err  error // once done
}

// renewalRetry is how long a token that could not be renewed, or not extended, is used before that is tried again.
const renewalRetry = 5 * time.Second

// Session issues a passport, as [PassportsService.Issue] does and with its errors, and keeps its token alive.
//
// POST /v1/passports/issue
func (s *PassportsService) Session(ctx context.Context, params PassportIssueParams) (*PassportSession, error) {
	passport, err := s.Issue(ctx, params)
	if err != nil {
		return nil, err
	}
	session := &PassportSession{client: s.client, jti: passport.JTI, ttl: params.TTL}
	if err := session.learn(passport.Token); err != nil {
		return nil, &DecodeError{Method: "POST", Route: "/v1/passports/issue", Status: 200, Err: err}
	}
	return session, nil
}

// learn takes in a token. The session is locked or not shared yet.
func (s *PassportSession) learn(token Secret) error {
	issuedAt, expiresAt, err := unverifiedTimes(token)
	if err != nil {
		return err
	}
	now, before := time.Now(), s.expiresAt
	skew := issuedAt.Sub(now)
	if skew.Abs() < 2*time.Second { // iat is in whole seconds
		skew = 0
	}
	s.token, s.expiresAt = token, expiresAt.Add(-skew)
	s.renewAt = s.expiresAt.Add(-min(renewalGrace, s.expiresAt.Sub(now)/3))
	if !s.expiresAt.After(before) { // not now: its Mission ends, or a checkpoint is due
		s.renewAt = now.Add(renewalRetry)
	}
	return nil
}

// JTI is the id of the passport.
func (s *PassportSession) JTI() string { return s.jti }

// ExpiresAt is when the current token expires, on this machine's clock.
func (s *PassportSession) ExpiresAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiresAt
}

// LogValue gives slog the session without its token.
func (s *PassportSession) LogValue() slog.Value {
	return slog.GroupValue(slog.String("jti", s.jti), slog.Time("expires_at", s.ExpiresAt()))
}

// Token returns a token of the passport that works. It is renewed within 60 seconds of its end, or in the last third of a
// short life; all who ask meanwhile wait for that one renewal. As long as the token is good, a renewal that fails for a passing
// reason only delays the next.
//
// It fails with a [*MissionEndedError], [ErrPassportRevoked] (checked out, too) or [ErrPassportExpired] when the passport is
// gone, from then on without asking the server; with what the renewal failed with when the token is dead; and with the cause
// of ctx's end.
//
// POST /v1/passports/refresh, when it is time
func (s *PassportSession) Token(ctx context.Context) (Secret, error) {
	s.mu.Lock()
	if s.gone != nil || time.Now().Before(s.renewAt) {
		defer s.mu.Unlock()
		return s.current(nil)
	}
	running := s.renewal
	if running == nil {
		running = &renewal{done: make(chan struct{})}
		s.renewal = running
		go s.renew(context.WithoutCancel(ctx), running, s.token) // whoever gives up does not take it from the others
	}
	s.mu.Unlock()
	select {
	case <-running.done:
	case <-ctx.Done():
		return Secret{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current(running.err)
}

// current is what a caller gets after a renewal that ended so. The session is locked.
func (s *PassportSession) current(failed error) (Secret, error) {
	switch {
	case s.gone != nil:
		return Secret{}, s.gone
	case time.Now().Before(s.expiresAt):
		return s.token, nil
	case failed != nil:
		return Secret{}, failed
	}
	return Secret{}, &Error{Code: "PASSPORT_EXPIRED",
		Message: "the passport has expired and was not extended: its Mission is ending, or it owes a checkpoint"}
}

// renew signs the passport again, within the client's timeout and retries.
func (s *PassportSession) renew(ctx context.Context, running *renewal, token Secret) {
	defer close(running.done)
	passport, err := s.client.Passports.Refresh(ctx, PassportRefreshParams{Token: token, TTL: s.ttl})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewal = nil
	if err == nil {
		err = s.learn(passport.Token)
	}
	if running.err = err; err == nil {
		return
	}
	s.renewAt = time.Now().Add(renewalRetry)
	if cause, gone := fatal(err); gone {
		s.gone = cause
		return
	}
	s.client.logger.Warn("passport renewal failed", slog.String("passport_jti", s.jti), slog.Any("error", err))
}
