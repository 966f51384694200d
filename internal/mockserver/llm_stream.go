package mockserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

// llmStream passes a provider's event stream on as it arrives. It holds one line at a time, since a secret could be spread
// over two chunks of one; nobody can read an event before its last line is there.
type llmStream struct {
	*llmCall
	ctx    context.Context // the caller's
	answer *forward.Answer
	done   bool // settled
}

func (l *llmStream) send(w io.Writer, flush func() error) error {
	for {
		line, err := l.answer.Next()
		if errors.Is(err, io.EOF) {
			l.tally.end()
			if l.ctx.Err() != nil { // the provider stopped because nobody listens
				l.settle(errHungUp)
				return errHungUp
			}
			l.settle(nil)
			return flush()
		}
		if err != nil {
			l.settle(err)
			return err
		}
		l.tally.line(line)
		if _, err = w.Write(line); err == nil && len(bytes.TrimSpace(line)) == 0 {
			err = flush()
		}
		if err != nil {
			l.settle(errHungUp)
			return err
		}
	}
}

func (l *llmStream) close() {
	l.answer.Close()
	l.settle(errHungUp)
}

// settle records how the stream ended, once; failure is what broke it off.
func (l *llmStream) settle(failure error) {
	if l.done {
		return
	}
	l.done = true
	if failure != nil && !l.tally.complete && !l.tally.failed { // after its end a stream may go as it likes
		_ = l.broke(l.ctx, failure) // the caller has had its answer
		return
	}
	outcome, code := stack.LLMCompleted, ""
	switch {
	case l.tally.failed:
		outcome, code = stack.LLMUpstreamError, "UPSTREAM_ERROR"
	case !l.tally.complete:
		outcome, code = stack.LLMIncomplete, "STREAM_INCOMPLETE"
	}
	l.finish(code)
	l.count(outcome)
}

// finish records a call whose stream came to the end of its body; the code says what was wrong with it nevertheless.
func (l *llmStream) finish(code string) {
	op := l.op
	op.mu.Lock()
	defer op.mu.Unlock()
	l.now = l.server.clock.now()
	op.sweep(l.now)
	l.finishOperation(nil)
	for _, text := range l.tally.texts {
		l.passport.mission.flow.Remember(l.in.Service, text.String())
	}
	row := l.row(stack.OutcomeSuccess, code, "")
	if code != "" {
		row.Outcome = stack.OutcomeFailure
	}
	l.settled(row, l.now.Sub(l.began), true, "status", http.StatusOK)
}
