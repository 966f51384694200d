package langchain_test

import (
	"testing"

	"go.uber.org/goleak"
)

// langchaingo's Anthropic client leaves a goroutine behind when an error event comes in a stream and anything after it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(
		"github.com/tmc/langchaingo/llms/anthropic/internal/anthropicclient.parseStreamingMessageResponse.func1"))
}
