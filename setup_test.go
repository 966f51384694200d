package stack_test

import (
	"context"

	"github.com/getstack-go/stack"
)

// nothing is a run that does nothing.
func nothing(context.Context, *stack.Mission) error { return nil }
