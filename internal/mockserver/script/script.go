// Package script runs the JavaScript of a skill's script step: bounded in time, memory and output, and with nothing but the
// language. There is no file, no network, no timer and no module. (contract: server-api 15)
//
// The engine is QuickJS, in pure Go. It counts every byte that a script allocates and stops a script at any instruction,
// inside a regular expression too; an engine that shares Go's heap can do neither.
package script

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"modernc.org/quickjs"
)

// Limits bound one run.
type Limits struct {
	Time   time.Duration // of computing
	Memory int           // bytes of the engine's heap, which holds about 100 KB before the script begins
	Output int           // bytes of the result as JSON
}

// DefaultLimits are what a skill's step gets. The time is the hosted service's, the rest is ours.
var DefaultLimits = Limits{Time: 30 * time.Second, Memory: 64 << 20, Output: 1 << 20}

const maxDepth = 2000 // calls inside each other; each takes up to 9 KB of a goroutine's stack

// Reason says why a script has no result.
type Reason string

// Reasons.
const (
	Syntax  Reason = "syntax"  // it is no JavaScript
	Thrown  Reason = "thrown"  // it threw, or recursed too deeply
	Timeout Reason = "timeout" // it took longer than Limits.Time
	Memory  Reason = "memory"  // it needed more than Limits.Memory
	Output  Reason = "output"  // it returned nothing, nothing that has a JSON form, or more than Limits.Output
)

// Error is why a script has no result. Its message is the script's own where it threw.
type Error struct {
	Reason  Reason
	Message string
}

func (e *Error) Error() string { return e.Message }

const maxMessage = 500 // bytes of what a script threw

// Run runs a script as the body of a function of $INPUT and $PREV, two JSON values, and gives what it returns as JSON. Every
// run has an engine of its own. It fails with an [*Error].
func Run(source string, input, prev json.RawMessage, limits Limits) (json.RawMessage, error) {
	program, err := program(source, input, prev)
	if err != nil {
		return nil, err
	}
	vm, err := start(limits)
	if err != nil {
		return nil, err
	}
	result, err := vm.Eval(program, quickjs.EvalGlobal)
	closeErr := vm.Close()
	if err != nil {
		return nil, explain(err, limits)
	}
	text, ok := result.(string)
	switch {
	case closeErr != nil:
		return nil, fmt.Errorf("script engine: %w", closeErr)
	case !ok:
		return nil, &Error{Output, "the script must return a value that has a JSON form"}
	case len(text) > limits.Output:
		return nil, &Error{Output, fmt.Sprintf("the script returned %d bytes of JSON; at most %d are taken", len(text), limits.Output)}
	}
	return json.RawMessage(text), nil
}

// Check says whether a source is the body of a function. It runs nothing of it. It fails with an [*Error].
func Check(source string) error {
	vm, err := start(DefaultLimits)
	if err != nil {
		return err
	}
	_, err = vm.Compile(function(source), quickjs.EvalGlobal)
	if closeErr := vm.Close(); err == nil && closeErr != nil {
		return fmt.Errorf("script engine: %w", closeErr)
	}
	if err != nil {
		return explain(err, DefaultLimits)
	}
	return nil
}

func start(limits Limits) (*quickjs.VM, error) {
	vm, err := quickjs.NewVM()
	if err != nil {
		return nil, fmt.Errorf("script engine: %w", err)
	}
	vm.SetMemoryLimit(uintptr(limits.Memory))
	vm.SetMaxStackSize(maxDepth)
	if err := vm.SetEvalTimeout(limits.Time); err != nil {
		return nil, errors.Join(fmt.Errorf("script engine: %w", err), vm.Close())
	}
	return vm, nil
}

// function makes a function of a body. The line breaks keep a comment at the body's end from swallowing the rest.
func function(body string) string { return "(function ($INPUT, $PREV) {\n" + body + "\n})" }

func program(source string, input, prev json.RawMessage) (string, error) {
	var p strings.Builder
	p.WriteString("JSON.stringify(" + function(source) + "(")
	for i, value := range []json.RawMessage{input, prev} {
		if len(value) == 0 {
			value = json.RawMessage("null")
		}
		literal, err := json.Marshal(string(value)) // a JSON string is a JavaScript string
		if err != nil {
			return "", err
		}
		if i > 0 {
			p.WriteString(", ")
		}
		p.WriteString("JSON.parse(" + string(literal) + ")")
	}
	p.WriteString("))")
	return p.String(), nil
}

// explain tells the engine's failures apart.
func explain(err error, limits Limits) error {
	message := strings.ToValidUTF8(err.Error(), "\uFFFD")
	switch message {
	case "null": // what the engine throws when there is no memory left to make an error in; and throw null
		return &Error{Thrown, "the script threw null, or had no memory left"}
	case "InternalError: interrupted":
		return &Error{Timeout, fmt.Sprintf("the script took more than %s", limits.Time)}
	case "InternalError: out of memory":
		return &Error{Memory, fmt.Sprintf("the script needed more than %d bytes of memory", limits.Memory)}
	}
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	if strings.HasPrefix(message, "SyntaxError:") {
		return &Error{Syntax, message}
	}
	return &Error{Thrown, message}
}
