package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Close ends the run: checkout, then complete; when the run failed, a checkout with a failure summary, then revoke. A bound
// Mission is checked out and left open. Defer it directly, with a pointer to the function's error result:
//
//	defer mission.Close(&err)
//
// The run has failed when *err is set, when it panicked (the panic goes on afterwards), when [Mission.Fail] said so, or when
// the passport was gone. What goes wrong in closing is joined into *err, never swallowed. Closing is bounded by 30 seconds
// of its own, so that it happens even when the opener's context is done. Further calls do nothing. err may be nil.
//
// POST /v1/passports/{passport_jti}/checkout, POST /v1/missions/{mission_id}/complete or /revoke
func (m *Mission) Close(err *error) {
	panicked := recover()
	var runErr error
	if err != nil {
		runErr = *err
	}
	if panicked != nil {
		runErr = fmt.Errorf("panic: %v", panicked)
	}
	m.closing.Do(func() {
		if closeErr := m.close(runErr); closeErr != nil && err != nil {
			*err = errors.Join(*err, closeErr)
		}
	})
	if panicked != nil {
		panic(panicked)
	}
}

// close does the work of Close and returns what is to be added to the run's error.
func (m *Mission) close(runErr error) error {
	m.client.poller.remove(m)
	m.stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), closeTimeout)
	defer cancel()
	defer m.cancel(context.Canceled)

	var problems []error
	m.mu.Lock()
	told := firstError(runErr, m.failed)
	failure := told
	if cause, gone := fatal(context.Cause(m.ctx)); gone {
		if _, known := fatal(runErr); !known { // the run did not notice, or does not say
			problems = append(problems, cause)
		}
		failure = firstError(failure, cause)
	}
	output := m.output
	m.mu.Unlock()
	if err := m.flush(ctx); err != nil {
		problems = append(problems, fmt.Errorf("checkpoint: %w", err))
	}
	m.mu.Lock()
	params := m.account.checkout(m.summary)
	m.mu.Unlock()
	if failure != nil {
		params.Summary = failureSummary(failure)
	}

	result, err := m.checkout(ctx, params)
	delivered := err == nil
	if err != nil {
		problems = append(problems, fmt.Errorf("checkout: %w", err))
	}
	if m.owns {
		if err = m.end(ctx, failure, output, params.Summary); err != nil {
			delivered = false
			problems = append(problems, fmt.Errorf("closing the Mission: %w", err))
		}
	}
	if !m.passesOn {
		if err = m.journal.end(delivered); err != nil {
			problems = append(problems, err)
		}
	}
	joined := errors.Join(problems...)
	m.mu.Lock()
	m.result, m.ended, m.closeErr = result, time.Now(), errors.Join(told, joined)
	m.mu.Unlock()
	if joined != nil {
		m.client.logger.Warn("mission closed with problems", slog.String("mission_id", m.id), slog.Any("error", joined))
	}
	return joined
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// stop ends the timer's work: a checkpoint in flight may finish, for a while.
func (m *Mission) stop() {
	m.mu.Lock()
	m.done = true
	m.stopTimer()
	m.mu.Unlock()
	patience := time.AfterFunc(inFlightTimeout, m.breakOff)
	m.running.Wait()
	patience.Stop()
	m.breakOff()
}

// checkout sends the last account, again where it is sure that it did not arrive.
func (m *Mission) checkout(ctx context.Context, params CheckpointParams) (*Checkout, error) {
	if err := m.hold(ctx); err != nil {
		return nil, err
	}
	defer m.release()
	for attempt := 0; ; attempt++ {
		result, err := attempted(ctx, func(ctx context.Context) (*Checkout, error) { return m.client.Passports.Checkout(ctx, m.JTI(), params) })
		if err == nil || attempt >= m.client.transport.maxRetries || !ambiguous(err) {
			return result, err
		}
		report, reportErr := attempted(ctx, func(ctx context.Context) (*PassportReport, error) { return m.client.Passports.Report(ctx, m.JTI()) })
		if reportErr != nil {
			return nil, errors.Join(err, reportErr)
		}
		if report.Checkout != nil {
			return &report.Checkout.Checkout, nil
		}
		if waitErr := sleep(ctx, fullJitter(attempt)); waitErr != nil {
			return nil, errors.Join(err, waitErr)
		}
	}
}

// attempted gives an attempt its share of the time.
func attempted[T any](ctx context.Context, attempt func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return attempt(ctx)
}

// end completes or revokes the Mission, again where an attempt was not answered in its time: both may be repeated.
func (m *Mission) end(ctx context.Context, failure error, output map[string]any, notes string) error {
	for {
		_, err := attempted(ctx, func(ctx context.Context) (*MissionEnd, error) {
			if failure == nil {
				return m.client.Missions.Complete(ctx, m.id, MissionCompleteParams{Output: output})
			}
			return m.client.Missions.Revoke(ctx, m.id, MissionRevokeParams{Reason: ReasonOperatorClean, Notes: notes})
		})
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}

// hold waits for its turn to talk about the passport's account.
func (m *Mission) hold(ctx context.Context) error {
	select {
	case m.reporting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Mission) release() { <-m.reporting }

// failureSummary names the kind of error and the beginning of its text.
func failureSummary(err error) string {
	kind := fmt.Sprintf("%T", err)
	return "Mission failed: " + clip(kind, 100) + ": " + clip(strings.Join(strings.Fields(err.Error()), " "), maxSummary)
}
