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
	goleak.VerifyTestMain(m)
}
