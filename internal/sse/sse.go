// Package sse reads streams of server-sent events: lines with a bound, and the events that they make up. It is what the
// client's LLM streams and the mock's gateway have in common.
package sse

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// MaxLine is the longest line, and the longest data of one event, in bytes. Models send images as single lines.
const MaxLine = 8 << 20

// ErrTooLong means that a line, or the data of one event, is over [MaxLine].
var ErrTooLong = errors.New("a line or an event of the stream is over 8 MiB")

// Lines reads a stream line by line. It holds one line at a time.
type Lines struct {
	r    *bufio.Reader
	long []byte // a line that is longer than the reader's buffer
}

// NewLines returns the lines of r.
func NewLines(r io.Reader) *Lines { return &Lines{r: bufio.NewReaderSize(r, 16<<10)} }

// Next returns the next line with its line feed; the last one of a stream that ends without a line feed has none. The bytes
// are good until the next call. It fails with io.EOF at the end, with [ErrTooLong], or with what reading failed with; what
// there is of a line then is dropped.
func (l *Lines) Next() ([]byte, error) {
	l.long = l.long[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.long)+len(part) > MaxLine {
			return nil, ErrTooLong
		}
		switch {
		case err == nil && len(l.long) == 0:
			return part, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF):
			return nil, err
		}
		l.long = append(l.long, part...)
		switch {
		case err == nil:
			return l.long, nil
		case errors.Is(err, io.EOF) && len(l.long) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			return l.long, nil // the reader says EOF again
		}
	}
}

// Event is one server-sent event.
type Event struct {
	Name string // of its event field; often empty
	Data []byte // its data lines, joined by line feeds
}

// Decoder puts lines together to events. The zero value is ready.
type Decoder struct {
	began bool
	event Event
	has   bool // a data line
}

// Line takes the next line, with or without its line feed, and returns the event that it ends, if it ends one. Comments,
// ids and fields that nobody knows are skipped; one space after the colon is optional. It fails with [ErrTooLong].
func (d *Decoder) Line(line []byte) (event Event, ok bool, err error) {
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if !d.began {
		line, d.began = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")), true
	}
	if len(line) == 0 {
		event, ok = d.Flush()
		return event, ok, nil
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "event":
		d.event.Name = string(value)
	case "data":
		if len(d.event.Data)+1+len(value) > MaxLine {
			return Event{}, false, ErrTooLong
		}
		if d.has {
			d.event.Data = append(d.event.Data, '\n')
		}
		d.event.Data, d.has = append(d.event.Data, value...), true
	}
	return Event{}, false, nil
}

// Flush returns the event that is waiting for its blank line, if it has data: a stream may end without that line.
func (d *Decoder) Flush() (event Event, ok bool) {
	event, ok = d.event, d.has
	d.event, d.has = Event{}, false
	return event, ok
}
