package tool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/jsonschema-go/jsonschema"
)

// Option changes a tool while it is made.
type Option func(*config) error

type config struct {
	adjust    func(*jsonschema.Schema)
	policy    Policy
	maxOutput int
	logger    *slog.Logger
	hook      Hook
}

// WithSchema lets adjust change the schema made from the arguments' type, for what Go types cannot say: enumerations,
// bounds, patterns, examples. It must stay the schema of an object. The changed schema is also what arguments are checked
// against.
func WithSchema(adjust func(*jsonschema.Schema)) Option {
	return func(c *config) error {
		if adjust == nil {
			return errors.New("WithSchema: the function is nil")
		}
		c.adjust = adjust
		return nil
	}
}

// WithPolicy replaces [DefaultPolicy]. A policy for one more kind of error handles that kind and calls DefaultPolicy for the
// rest.
func WithPolicy(policy Policy) Option {
	return func(c *config) error {
		if policy == nil {
			return errors.New("WithPolicy: the policy is nil")
		}
		c.policy = policy
		return nil
	}
}

// WithMaxOutput bounds the text that a call gives the model to n bytes, plus a line that says how much was cut off. The
// default is 32 KiB.
func WithMaxOutput(n int) Option {
	return func(c *config) error {
		if n < 1 {
			return fmt.Errorf("WithMaxOutput: %d is not a positive number of bytes", n)
		}
		c.maxOutput = n
		return nil
	}
}

// WithLogger logs the stack of a function that panics. Without it the stack is dropped.
func WithLogger(logger *slog.Logger) Option {
	return func(c *config) error {
		if logger == nil {
			return errors.New("WithLogger: the logger is nil")
		}
		c.logger = logger
		return nil
	}
}

// Hook is told of each call before the tool runs, and of its outcome through the function that it returns, which may be nil.
// The tool runs with the context that it returns, which must come of the one it is given. It runs inside the call, so it
// must not block.
type Hook func(ctx context.Context, tool, input string) (context.Context, func(Outcome))

// WithHook watches the calls of the tool, to trace them, or to log those of a local tool with [stack.Mission.Log] under a
// service that the Mission declared. A proxied call is logged by the Mission itself; do not log it again.
func WithHook(hook Hook) Option {
	return func(c *config) error {
		if hook == nil {
			return errors.New("WithHook: the hook is nil")
		}
		c.hook = hook
		return nil
	}
}
