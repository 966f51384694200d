package forward

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"strings"
)

// unpack returns the body of an answer as it was before it was compressed by gzip or deflate, and takes the headers away that
// say so. net/http does that only for what came over a network and was asked for.
func unpack(resp *http.Response) io.ReadCloser {
	open := func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
	switch strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))) {
	case "gzip", "x-gzip":
	case "deflate":
		open = func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }
	default:
		return resp.Body
	}
	resp.Header.Del("Content-Encoding")
	return &unpacked{ReadCloser: resp.Body, open: open}
}

// unpacked opens its reader when it is first read: there may be nothing to read, or not yet.
type unpacked struct {
	io.ReadCloser // packed

	open   func(io.Reader) (io.Reader, error)
	reader io.Reader
	err    error
}

func (u *unpacked) Read(p []byte) (int, error) {
	if u.err == nil && u.reader == nil {
		packed := bufio.NewReader(u.ReadCloser)
		if _, u.err = packed.Peek(1); u.err == nil {
			if u.reader, u.err = u.open(packed); errors.Is(u.err, io.EOF) {
				u.err = io.ErrUnexpectedEOF
			}
		}
	}
	if u.err != nil {
		return 0, u.err
	}
	return u.reader.Read(p)
}
