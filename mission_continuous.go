package stack

import (
	"context"
	"errors"
	"iter"
	"time"
)

// DefaultRotationInterval is how long a continuous Mission keeps a passport.
const DefaultRotationInterval = 4 * time.Hour

// ContinuousMissionParams describes a long run under one Mission whose passports change.
type ContinuousMissionParams struct {
	MissionParams
	// RotationInterval is how long a passport is kept, default 4 hours.
	RotationInterval time.Duration
}

// ContinuousMission runs one Mission under a row of passports: each iteration yields a Mission object with a passport of its
// own and an empty account. Work in the body until [Mission.ShouldRotate] says so, then let the loop go on: it checks the
// passport out and issues the next.
//
//	for mission, err := range client.Passports.ContinuousMission(ctx, params) {
//		if err != nil {
//			return err
//		}
//		for !mission.ShouldRotate() {
//			if err := step(mission); err != nil {
//				return mission.Fail(err)
//			}
//		}
//	}
//
// The lifetime of the Mission, when ExpiresIn is not given, is 24 hours, the longest there is, and not the usual 15 minutes:
// a rotation must fit in. The iterator yields an error once and last: a [*MissionEndedError] when the Mission is over. When
// the body leaves the loop, the passport is checked out and a Mission that was opened here is completed; after
// [Mission.Fail], a panic, or the loss of the passport it is revoked. What goes wrong then is logged and kept in
// [Mission.Err] of the last Mission object.
//
// POST /v1/missions/start, POST /v1/passports/issue and the calls of [Mission.Close]
func (s *PassportsService) ContinuousMission(ctx context.Context, params ContinuousMissionParams) iter.Seq2[*Mission, error] {
	return func(yield func(*Mission, error) bool) {
		if params.RotationInterval < 0 {
			yield(nil, &ParamError{Param: "rotation interval", Reason: "is negative"})
			return
		}
		each := params.MissionParams
		interval := firstSet(params.RotationInterval, DefaultRotationInterval)
		if each.MissionID == "" && each.ExpiresIn == 0 {
			each.ExpiresIn = MaxMissionLifetime
		}
		m, err := s.Mission(ctx, each)
		if err != nil {
			yield(nil, err)
			return
		}
		owns := m.owns
		for rotation := 0; ; rotation++ {
			m.rotation, m.rotateAt = rotation, m.opened.Add(interval)
			if !s.turn(m, yield) {
				return
			}
			each.MissionID = m.id
			next, err := s.rotate(ctx, m, each, owns)
			if err != nil {
				yield(nil, err)
				return
			}
			m = next
		}
	}
}

// turn lends a Mission to the loop's body, and closes it when the body leaves the loop.
func (s *PassportsService) turn(m *Mission, yield func(*Mission, error) bool) bool {
	goOn, returned := false, false
	defer func() {
		if !returned {
			_ = m.Fail(errLeft)
		}
		if !goOn {
			m.Close(nil)
		}
	}()
	goOn = yield(m, nil)
	returned = true
	return goOn
}

// rotate checks a passport out and goes on under a new one. When there is none to be had, the Mission is ended if it is
// ours.
func (s *PassportsService) rotate(ctx context.Context, m *Mission, params MissionParams, owns bool) (*Mission, error) {
	m.owns, m.passesOn = false, true // the Mission goes on
	var closeErr error
	m.Close(&closeErr)
	if closeErr != nil {
		m.client.logger.Warn("rotation: closing the passport", "mission_id", m.id, "error", closeErr)
	}
	next, err := s.Mission(ctx, params)
	if err == nil {
		next.owns = owns
		next.journal.open(journalOpened{MissionID: next.id, JTI: next.jti, Owns: owns})
		m.journal.open(journalOpened{MissionID: m.id, JTI: m.jti})
		if journalErr := m.journal.end(closeErr == nil); journalErr != nil {
			m.client.logger.Warn("rotation: ending the journal", "mission_id", m.id, "error", journalErr)
		}
		return next, nil
	}
	if !owns {
		return nil, errors.Join(err, m.journal.end(closeErr == nil))
	}
	endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_, revokeErr := s.client.Missions.Revoke(endCtx, m.id, MissionRevokeParams{Reason: ReasonOperatorClean, Notes: failureSummary(err)})
	return nil, errors.Join(err, revokeErr, m.journal.end(closeErr == nil && revokeErr == nil))
}

// ShouldRotate reports whether a continuous Mission's passport has been kept for the rotation interval, or has ended. It is
// false in every other Mission that runs.
func (m *Mission) ShouldRotate() bool {
	return m.ctx.Err() != nil || !m.rotateAt.IsZero() && !time.Now().Before(m.rotateAt)
}
