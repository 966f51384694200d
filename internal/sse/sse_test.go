package sse_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/sse"
)

// read decodes a whole stream.
func read(r io.Reader) (events []sse.Event, err error) {
	lines, decoder := sse.NewLines(r), sse.Decoder{}
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			if e, ok := decoder.Flush(); ok {
				events = append(events, e)
			}
			return events, nil
		}
		if err != nil {
			return events, err
		}
		e, ok, err := decoder.Line(line)
		if err != nil {
			return events, err
		}
		if ok {
			events = append(events, e)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	event := func(name, data string) sse.Event { return sse.Event{Name: name, Data: []byte(data)} }
	tests := map[string]struct {
		stream string
		want   []sse.Event
	}{
		"nothing":                  {"", nil},
		"data":                     {"data: a\n\n", []sse.Event{event("", "a")}},
		"no space after the colon": {"data:a\n\n", []sse.Event{event("", "a")}},
		"two spaces":               {"data:  a\n\n", []sse.Event{event("", " a")}},
		"a name":                   {"event: ping\ndata: {}\n\n", []sse.Event{event("ping", "{}")}},
		"the name after":           {"data: {}\nevent:ping\n\n", []sse.Event{event("ping", "{}")}},
		"several lines":            {"data: {\ndata: }\n\n", []sse.Event{event("", "{\n}")}},
		"an empty data line":       {"data\ndata:\n\n", []sse.Event{event("", "\n")}},
		"no data is no event":      {"event: ping\n\ndata: a\n\n", []sse.Event{event("", "a")}},
		"comments and ids":         {": keep-alive\nid: 1\nretry: 5\nfoo: bar\ndata: a\n\n", []sse.Event{event("", "a")}},
		"carriage returns":         {"event: x\r\ndata: a\r\n\r\n", []sse.Event{event("x", "a")}},
		"byte order mark":          {"\ufeffdata: a\n\n", []sse.Event{event("", "a")}},
		"no blank line at the end": {"data: a\n\ndata: b", []sse.Event{event("", "a"), event("", "b")}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := read(strings.NewReader(tc.stream))
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
			got, err = read(iotest.OneByteReader(strings.NewReader(tc.stream)))
			require.NoError(t, err)
			assert.Equal(t, tc.want, got, "byte by byte")
		})
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	long := "data: " + strings.Repeat("x", sse.MaxLine-len("data: \n"))
	events, err := read(strings.NewReader(long + "\n\n"))
	require.NoError(t, err)
	require.Len(t, events, 1)
	_, err = read(strings.NewReader(long + "x\n\n"))
	require.ErrorIs(t, err, sse.ErrTooLong)
	_, err = read(strings.NewReader(strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 9)))
	require.ErrorIs(t, err, sse.ErrTooLong, "many lines of one event")
	broken := errors.New("broken")
	events, err = read(io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	assert.Len(t, events, 1, "half a line is none")
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{"data: {\"a\":1}\n\n", "event: x\r\ndata:\n\n", "\ufeff:\n\ndata", "data: [DONE]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		events, err := read(bytes.NewReader(stream))
		require.NoError(t, err)
		again, err := read(iotest.OneByteReader(bytes.NewReader(stream)))
		require.NoError(t, err)
		require.Equal(t, events, again, "how the bytes arrive does not matter")
		for _, e := range events {
			require.NotContains(t, e.Name, "\n")
			require.LessOrEqual(t, len(e.Data), len(stream))
		}
	})
}
