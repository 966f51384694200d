package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/script"
)

// stepFailure is why a step, and with it the invocation, failed.
type stepFailure = stack.InvocationError

// execute runs the steps of an invocation, with nobody locked, and settles it, whatever happens: it is paid for.
func (s *Server) execute(ctx context.Context, inv *invocation) {
	ctx, cancel := context.WithTimeout(ctx, sealedSkillLife)
	defer cancel()
	run := &skillRun{server: s, inv: inv, input: inv.Input, deadline: time.Now().Add(sealedSkillLife)}
	var output json.RawMessage
	failure := &stepFailure{Code: "INTERNAL", Message: "the execution broke"}
	defer func() { s.endExecution(run, output, failure) }()
	if output, failure = run.steps(ctx); failure == nil {
		output, failure = run.result(output)
	}
}

func (s *Server) endExecution(run *skillRun, output json.RawMessage, failure *stepFailure) {
	inv := run.inv
	s.market.mu.Lock()
	if run.asked {
		inv.LLMTokensInput, inv.LLMTokensOutput = &run.tokensIn, &run.tokensOut
	}
	if now := s.clock.now(); failure != nil {
		inv.end(now, stack.InvocationFailed, nil, failure)
	} else {
		inv.end(now, stack.InvocationCompleted, output, nil)
	}
	s.market.mu.Unlock()
	s.settleInvocation(inv)
}

// skillRun is the execution of one invocation.
type skillRun struct {
	server              *Server
	inv                 *invocation
	input, prev         json.RawMessage
	deadline            time.Time
	asked               bool // a model
	tokensIn, tokensOut int
}

func (run *skillRun) steps(ctx context.Context) (json.RawMessage, *stepFailure) {
	run.prev = run.input
	for i, step := range run.inv.skill.ExecutionSteps {
		var failure *stepFailure
		if step.Type == stack.StepScript {
			run.prev, failure = run.script(step)
		} else {
			run.prev, failure = run.ask(ctx, step)
		}
		if failure != nil {
			failure.Message = fmt.Sprintf("step %d: %s", i+1, failure.Message)
			return nil, failure
		}
	}
	return run.prev, nil
}

// result makes the output of the last step's result: an object, that the output schema holds for.
func (run *skillRun) result(last json.RawMessage) (json.RawMessage, *stepFailure) {
	if !bytes.HasPrefix(bytes.TrimSpace(last), []byte("{")) {
		last = plainJSON(map[string]json.RawMessage{"result": last})
	}
	err := run.inv.skill.validate(run.inv.skill.output, "output", last)
	var refusal *apiError
	if errors.As(err, &refusal) {
		return nil, &stepFailure{Code: refusal.code, Message: refusal.message}
	}
	if err != nil {
		run.server.logger.Error("a skill's output cannot be validated", "invocation", run.inv.ID, "error", err)
		return nil, &stepFailure{Code: "INTERNAL", Message: "the output cannot be validated"}
	}
	return last, nil
}

func (run *skillRun) script(step stack.ExecutionStep) (json.RawMessage, *stepFailure) {
	limits := script.DefaultLimits
	limits.Time = min(limits.Time, max(time.Until(run.deadline), time.Millisecond))
	out, err := script.Run(step.Script, run.input, run.prev, limits)
	var failure *script.Error
	switch {
	case errors.As(err, &failure):
		return nil, &stepFailure{Code: "SCRIPT_" + strings.ToUpper(string(failure.Reason)), Message: failure.Message}
	case err != nil:
		run.server.logger.Error("the script engine failed", "invocation", run.inv.ID, "error", err)
		return nil, &stepFailure{Code: "INTERNAL", Message: "the script could not be run"}
	}
	return out, nil
}

var placeholder = regexp.MustCompile(`\$(INPUT|PREV)((?:\.[A-Za-z_][A-Za-z0-9_]*)*)`)

// fill puts values in the place of $INPUT and $PREV, and of $INPUT.name and $PREV.name. Text goes in as it is, all else as
// JSON, and what is not there as nothing. What was put in is not looked at again.
func (run *skillRun) fill(template string) string {
	return placeholder.ReplaceAllStringFunc(template, func(found string) string {
		parts := placeholder.FindStringSubmatch(found)
		raw := run.input
		if parts[1] == "PREV" {
			raw = run.prev
		}
		for _, name := range strings.Split(parts[2], ".")[1:] {
			var object map[string]json.RawMessage
			if json.Unmarshal(raw, &object) != nil {
				return ""
			}
			raw = object[name]
		}
		var text string
		if json.Unmarshal(raw, &text) == nil {
			return text
		}
		return string(raw)
	})
}
