package mockserver

import (
	"context"
	"html/template"
	"time"

	"github.com/getstack-go/stack"
)

// verificationPath is where the person who is verified is sent: a page of the mock's own, whose button stands in for them.
const verificationPath = "/identity/verify/"

var verificationPage = template.Must(template.New("page").Parse(pageHead + `
<title>{{.Provider}} (mock)</title>
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
	return htmlPage(verificationPage, map[string]any{"Provider": v.provider.Name, "Claims": v.requested,
		"Confirmed": v.confirmed, "ReturnURL": v.returnURL})
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
	found, err := s.atOperator(func(op *operator, now time.Time) (bool, error) {
		v, ok := op.verifications.get(ref)
		if !ok {
			return false, nil
		}
		return true, fn(op, v, now)
	})
	if !found {
		return notFound("verification", ref)
	}
	return err
}
