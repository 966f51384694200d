package forward_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/forward"
)

// delta is an event of a model, which says a piece of its text number i.
func delta(i int, text string) string {
	return fmt.Sprintf("data: {\"choices\":[{\"delta\":{\"content\":%s},\"index\":%d}],\"id\":\"chatcmpl-1\"}\n\n", quoted(text), i)
}

func quoted(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// heard puts the text number i of a stream together, as a reader does.
func heard(t testing.TB, stream string, i int) string {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(stream) {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var event struct {
			Choices []struct {
				Index int
				Delta struct{ Content string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(data), &event), data)
		for _, c := range event.Choices {
			if c.Index == i {
				text.WriteString(c.Delta.Content)
			}
		}
	}
	return text.String()
}

// A secret that a model says piece by piece does not come back, wherever it is cut, in any encoding.
func TestSecretsOverSeveralEvents(t *testing.T) {
	t.Parallel()
	const secret = "sk-01/23456789"
	for name, echo := range map[string]string{
		"plain": secret, "JSON": `sk-01\u002f2345\u0036789`, "URL": "sk-01%2F23456789",
		"base64": base64.StdEncoding.EncodeToString([]byte("x" + secret + "xx")),
	} {
		said := "My key is " + echo + ", is it not?"
		for size := 1; size <= len(said); size++ {
			var stream strings.Builder
			for from := 0; from < len(said); from += size {
				stream.WriteString("event: delta\n" + delta(0, said[from:min(from+size, len(said))]))
				if from%3 == 0 {
					stream.WriteString(": ping\n\nevent: ping\ndata: {}\n\n" + delta(1, "Shhh. "))
				}
			}
			text, err := lines(open(t, upstream(t, "h.io", says(stream.String())), forward.Bearer(secret)))
			require.ErrorIs(t, err, io.EOF)
			got := heard(t, text, 0)
			require.True(t, strings.HasPrefix(got, "My key is ") && strings.HasSuffix(got, ", is it not?"), got)
			middle := strings.TrimSuffix(strings.TrimPrefix(got, "My key is "), ", is it not?")
			require.Contains(t, middle, "[REDACTED]", name)
			require.Less(t, len(middle), len("[REDACTED]")+9, "%s: %s", name, got) // it may begin with what might have been a coincidence
			require.Equal(t, heard(t, stream.String(), 1), heard(t, text, 1), "another text is left alone")
			require.Equal(t, strings.Count(stream.String(), "\n"), strings.Count(text, "\n"), "each event is there")
		}
	}
	plain := strings.Join(strings.Split("data: x sk-01/23456789\n\n", "3"), "\n\ndata: 3")
	text, err := lines(open(t, upstream(t, "h.io", says(plain)), forward.Bearer(secret)))
	require.ErrorIs(t, err, io.EOF)
	assert.Equal(t, "data: x [REDACTED]\n\ndata: \n\n", text, "data that is no JSON")
}

// What only begins like a secret is delayed until that is clear, and comes as it was, to the byte.
func TestNoEventIsLost(t *testing.T) {
	t.Parallel()
	const secret = "sk-0123456789"
	for name, stream := range map[string]string{
		"wrong end":       delta(0, "sk-012345") + delta(0, "x"),
		"never ends":      delta(0, "sk-012345"),
		"other place":     delta(0, "sk-012345") + delta(1, "6789"),
		"begins again":    delta(0, "sk-sk-sk-01") + delta(0, "sk-01") + delta(0, "!"),
		"crooked JSON":    "data: { \"a\" :  \"s\\u006b-012\"}\r\n\r\ndata:{\"a\":1.0}\n\n",
		"many lines":      delta(0, "sk-0123") + strings.Repeat(": ping\n\n", 5000) + delta(0, "x"),
		"much":            delta(0, "sk-0123") + strings.Repeat(delta(1, strings.Repeat("x", 100_000)), 5) + delta(0, "x"),
		"many places":     "data: [" + strings.Repeat(`"sk-012",`, 10_000) + "1]\n\n" + "data: [" + strings.Repeat(`"sk-012",`, 10_000) + "1]\n\n",
		"deep":            "data: " + strings.Repeat(`{"s":[`, 500) + `"sk-01"` + strings.Repeat(`]}`, 500) + "\n\n",
		"no last newline": delta(0, "sk-01") + "data: {\"a\":\"sk-01\"}",
	} {
		text, err := lines(open(t, upstream(t, "h.io", says(stream)), forward.Bearer(secret)))
		require.ErrorIs(t, err, io.EOF)
		assert.True(t, stream == text, name)
	}
}

// An event that cannot be a part of a secret does not wait for the next one, and one that might does.
func TestEventsDoNotWait(t *testing.T) {
	t.Parallel()
	const secret = "sk-0123456789"
	for _, tt := range []struct {
		said  string
		waits bool
	}{
		{"Hello", false}, {"Hello s", false}, {"Hello sk", false}, {"Hello sk-", true}, {"Hello sk-0123456789 there", false}, {"2 + 2 = 4", false},
		{"sk-012 and", false},
	} {
		reader, writer := io.Pipe()
		f := forward.New(forward.Options{})
		require.NoError(t, f.Map("h.io", forward.Target{Handler: piped(reader)}))
		a := open(t, f, forward.Bearer(secret))
		first := delta(0, tt.said)
		go func() {
			_, _ = io.WriteString(writer, first)
			if tt.waits {
				_, _ = io.WriteString(writer, delta(0, "!"))
			}
		}()
		line, err := a.Next() // would hang if it waited
		require.NoError(t, err)
		assert.Equal(t, strings.ReplaceAll(strings.TrimSuffix(first, "\n"), secret, "[REDACTED]"), string(line))
		require.NoError(t, writer.Close())
		_, err = lines(a)
		require.ErrorIs(t, err, io.EOF)
	}
}

// piped writes what it reads, byte by byte as it comes.
func piped(r io.Reader) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		says()(w, nil)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r)
	}
}

// FuzzStream holds that a stream without the secret stays as it is, to the byte, and that one with it does not say it.
func FuzzStream(f *testing.F) {
	const secret = "sk-0123456789"
	f.Add(delta(0, "sk-01")+delta(0, "23456789"), 3)
	f.Add("data: sk-\n\ndata: 01\n", 1)
	f.Add("event: x\r\ndata: {\"index\":1,\"a\":[\"s\",{\"index\":\"x\"}]}\r\n\r\n", 5)
	f.Add("data: {\"s\":\"k\",\"s\":\"sk-\"}\n\ndata", 2)
	f.Fuzz(func(t *testing.T, stream string, size int) {
		text, err := lines(open(t, upstream(t, "h.io", says(stream)), forward.Bearer(secret)))
		require.ErrorIs(t, err, io.EOF)
		require.NotContains(t, text, secret)
		if !strings.ContainsAny(stream, `\%&=+`) && !strings.ContainsAny(stream, "skczn7U") { // no spelling of it begins
			require.Equal(t, stream, text)
		}
		said := strings.ToValidUTF8(stream, "?")
		size = max(size%20, 1)
		var pieces strings.Builder
		for echo := said + secret + "."; echo != ""; {
			n := min(size, len(echo))
			for n < len(echo) && echo[n]&0xc0 == 0x80 {
				n++
			}
			pieces.WriteString(delta(0, echo[:n]))
			echo = echo[n:]
		}
		text, err = lines(open(t, upstream(t, "h.io", says(pieces.String())), forward.Bearer(secret)))
		require.ErrorIs(t, err, io.EOF)
		require.NotContains(t, heard(t, text, 0), secret)
	})
}
