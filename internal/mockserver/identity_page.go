package mockserver

import (
	"bytes"
	"context"
	"html/template"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
)

// verificationPath is where the person who is verified is sent: a page of the mock's own, whose button stands in for them.
const verificationPath = "/identity/verify/"

// verificationPage has no script and loads nothing.
var verificationPage = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Provider}} (mock)</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}
button{font:inherit;padding:.5rem 1rem}
</style>
<h1>{{.Provider}}</h1>
<p>This page of the STACK mock stands in for {{.Provider}}. It attests:</p>
<ul>{{range .Claims}}<li>{{.}}</li>{{end}}</ul>
{{if .Confirmed}}<p>Done: the verification can be completed now.</p>
{{with .ReturnURL}}<p><a href="{{.}}">Go back</a></p>{{end}}
{{else}}<form method="post"><button>I am this person</button></form>{{end}}
</html>
`))

type verificationIn struct {
	SessionRef string `path:"session_ref"`
}

func (s *Server) showVerification(_ context.Context, _ *caller, in verificationIn) (out *document, err error) {
	err = s.atVerification(in.SessionRef, func(_ *operator, v *verification, now time.Time) error {
		if err = v.mustBeOpen(now); err == nil {
			out, err = v.page()
		}
		return err
	})
	return out, err
}

func (s *Server) confirmOnPage(ctx context.Context, c *caller, in verificationIn) (*document, error) {
	if err := s.VerifyIdentity(in.SessionRef); err != nil {
		return nil, err
	}
	return s.showVerification(ctx, c, in)
}

func (v *verification) page() (*document, error) {
	var buf bytes.Buffer
	err := verificationPage.Execute(&buf, map[string]any{"Provider": v.provider.Name, "Claims": v.requested,
		"Confirmed": v.confirmed,
		"ReturnURL": v.returnURL})
	if err != nil {
		return nil, err
	}
	return &document{contentType: "text/html; charset=utf-8", body: buf.Bytes(), header: http.Header{
		"Content-Security-Policy": {"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"},
		"Referrer-Policy":         {"no-referrer"}}}, nil
}

// VerifyIdentity stands in for the person of a verification of any operator: they have done their part at the provider, and it
// can be completed. Doing so twice is as good as once. It fails for a session that is unknown or has expired.
func (s *Server) VerifyIdentity(sessionRef string) error {
	return s.atVerification(sessionRef, func(op *operator, v *verification, now time.Time) error {
		if err := v.mustBeOpen(now); err != nil {
			return err
		}
		if !v.confirmed {
			v.confirmed = true
			op.record(now, stack.AuditEntry{Action: "identity.verify_confirm"})
		}
		return nil
	})
}

// atVerification runs fn on a verification, with its operator locked and up to date. The person has no key: the reference,
// which cannot be guessed, is what lets them in.
func (s *Server) atVerification(ref string, fn func(*operator, *verification, time.Time) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, op := range s.operators {
		if found, err := op.atVerification(ref, fn); found {
			return err
		}
	}
	return notFound("verification", ref)
}

func (op *operator) atVerification(ref string, fn func(*operator, *verification, time.Time) error) (found bool, err error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	v, ok := op.verifications.get(ref)
	if !ok {
		return false, nil
	}
	now := op.server.clock.now()
	op.sweep(now)
	return true, fn(op, v, now)
}
