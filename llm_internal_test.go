package stack

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// Whatever arrives, a stream ends with its last event or with an error, and how the bytes arrive does not matter.
func FuzzLLMEvents(f *testing.F) {
	for _, seed := range []string{"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n",
		"data: {\"error\":{\"code\":5,\"message\":[]}}\n\n", "data:{}\r\n\r\ndata: {", "data: {\"choices\":7,\"usage\":{\"prompt_tokens\":1}}\n\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, provider := range []LLMProvider{LLMAnthropic, LLMOpenAI} {
			read := func(r io.Reader) (raw []string, failure error) {
				for event, err := range llmEvents(provider, r) {
					require.NoError(t, failure, "an error is the last thing")
					if failure = err; err == nil {
						require.True(t, json.Valid(event.Raw))
						raw = append(raw, string(event.Raw))
					}
				}
				return raw, failure
			}
			whole, failure := read(bytes.NewReader(stream))
			again, failed := read(iotest.OneByteReader(bytes.NewReader(stream)))
			require.Equal(t, whole, again)
			require.Equal(t, failure == nil, failed == nil)
			if failure == nil {
				require.True(t, bytes.Contains(stream, []byte("[DONE]")) || bytes.Contains(stream, []byte("message_stop")))
			}
			var reported *LLMProviderError
			if errors.As(failure, &reported) {
				require.NotContains(t, reported.Error(), "\n")
			}
		}
	})
}
