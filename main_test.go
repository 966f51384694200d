package stack_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(journalChildEnv) != "" { // this process is to be killed
		journalChild()
		return
	}
	// Nobody is there to sign in, also when a person runs the tests in a terminal.
	if err := os.Setenv("STACK_AUTH_INTERACTIVE", "false"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
