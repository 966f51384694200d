package forward

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
)

// Deliver posts a body of the server's own, such as an alert for a webhook: no caller's headers and no credential are
// involved, and the given headers go as they are. It is sent at most once, by the rules that hold for every call: mapped hosts
// go to their target, others are dialled at public addresses only, or not at all. Redirects are not followed: they would take
// what was signed for one receiver to another. Deliver returns the status of the answer, whatever it is, and fails with an
// [*Error] when there was none. The context bounds how long it waits.
func (f *Forwarder) Deliver(ctx context.Context, target *url.URL, header http.Header, body []byte) (status int, err error) {
	out, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return 0, badURL("cannot be called")
	}
	out.Header = header
	c := &call{forwarder: f}
	resp, err := c.RoundTrip(out)
	if err != nil {
		return 0, c.failure(ctx, target.Host, err, Credential{}.redactor())
	}
	_ = resp.Body.Close() // nobody looks at what is in it
	return resp.StatusCode, nil
}
