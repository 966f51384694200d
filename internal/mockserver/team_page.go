package mockserver

import (
	"context"
	"html/template"
	"time"

	"github.com/getstack-go/stack"
)

// invitationPath is where an invited person accepts: a page of the mock's own.
const invitationPath = "/team/invitations/"

var invitationPage = template.Must(template.New("page").Parse(pageHead + `
<title>Invitation (mock)</title>
<h1>Invitation</h1>
{{if .Key}}<p>You are a member now. This is your API key; it is shown once:</p>
<p><code>{{.Key}}</code></p>
{{else}}<p>{{.Name}} ({{.Email}}) is invited to act for {{.OperatorID}} as {{.Role}}.</p>
<form method="post"><button>Accept</button></form>{{end}}
</html>
`))

type invitationIn struct {
	Token string `path:"token"`
}

func (s *Server) showInvitation(_ context.Context, _ *caller, in invitationIn) (out *document, err error) {
	err = s.atInvitation(in.Token, func(_ *operator, m *member, _ time.Time) error {
		out, err = m.page(stack.Secret{})
		return err
	})
	return out, err
}

func (s *Server) acceptOnPage(_ context.Context, _ *caller, in invitationIn) (out *document, err error) {
	err = s.atInvitation(in.Token, func(op *operator, m *member, now time.Time) error {
		key, refusal := s.acceptInvitation(op, m, now)
		if refusal != nil {
			return refusal
		}
		out, err = m.page(key)
		return err
	})
	return out, err
}

func (m *member) page(key stack.Secret) (*document, error) {
	return htmlPage(invitationPage, map[string]any{"Name": m.Name, "Email": m.Email, "OperatorID": m.OperatorID,
		"Role": m.Role, "Key": key.Reveal()})
}

// atInvitation runs fn on the member whose invitation the token opens.
func (s *Server) atInvitation(token string, fn func(*operator, *member, time.Time) error) error {
	found, err := s.atOperator(func(op *operator, now time.Time) (bool, error) {
		for m := range op.members.all() {
			if m.invitation != "" && sameSecret(m.invitation, token) {
				return true, fn(op, m, now)
			}
		}
		return false, nil
	})
	if !found {
		return notFound("open invitation", "the one asked for")
	}
	return err
}
