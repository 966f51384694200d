package mockserver

import (
	"context"
	"html/template"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
)

// consentPath is where the owner of an account decides about a partner's grant: a page of the mock's own.
const consentPath = "/partner/consent/"

var consentPage = template.Must(template.New("page").Parse(pageHead + `
<title>A partner asks (mock)</title>
<h1>A partner asks for your account</h1>
{{if eq .Status "pending_consent"}}<p>It wants to act in the account of {{.Email}}, with what it makes there itself, and may then:</p>
<ul>{{range .Scopes}}<li>{{.}}</li>{{end}}</ul>
{{with .Providers}}<p>It may connect only:</p><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
<form method="post" action="{{.Token}}/approve"><button>Approve</button></form>
<form method="post" action="{{.Token}}/deny"><button>Deny</button></form>
{{else}}<p>Done: the grant is {{.Status}}.</p>{{end}}
</html>
`))

type consentIn struct {
	Token string `path:"token"`
}

func (s *Server) showConsent(_ context.Context, _ *caller, in consentIn) (*document, error) {
	return s.onConsentPage(in.Token, func(*partnerGrant, time.Time) {})
}

func (s *Server) consentOnPage(_ context.Context, _ *caller, in consentIn) (*document, error) {
	return s.onConsentPage(in.Token, s.activateGrant)
}

func (s *Server) denyOnPage(_ context.Context, _ *caller, in consentIn) (*document, error) {
	return s.onConsentPage(in.Token, denyGrant)
}

func denyGrant(g *partnerGrant, now time.Time) {
	g.Status, g.RevokedAt, g.consent = stack.ConnectDenied, now, ""
	g.account.record(now, g.row("partner.grant_deny"))
}

// onConsentPage does something with the grant that a token is for, and shows it.
func (s *Server) onConsentPage(token string, act func(*partnerGrant, time.Time)) (out *document, err error) {
	found, err := s.atOperator(func(op *operator, now time.Time) (bool, error) {
		for g := range op.partnerGrants.all() {
			if g.consent != "" && sameSecret(g.consent, token) {
				act(g, now)
				out, err = htmlPage(consentPage, map[string]any{"Email": g.Email, "Scopes": g.Scopes, "Providers": g.Providers,
					"Status": string(g.Status), "Token": token})
				return true, err
			}
		}
		return false, nil
	})
	if !found {
		return nil, notFound("open consent", "the one asked for")
	}
	return out, err
}

// DecideGrant stands in for the owner of an account who is asked for a partner's grant. It fails when there is no such grant
// and when it does not wait for consent.
func (s *Server) DecideGrant(grantID string, approve bool) error {
	return s.atAnyGrant(grantID, func(g *partnerGrant, now time.Time) error {
		if g.Status != stack.ConnectPending {
			return refuse(http.StatusConflict, "GRANT_DECIDED", "the grant is "+string(g.Status),
				map[string]any{"check": "grant_status", "sent": grantID, "allowed": stack.ConnectPending})
		}
		if approve {
			s.activateGrant(g, now)
		} else {
			denyGrant(g, now)
		}
		return nil
	})
}

// RevokeGrant stands in for the owner of an account who takes a partner's grant back. It fails when there is no such grant.
func (s *Server) RevokeGrant(grantID string) error {
	return s.atAnyGrant(grantID, func(g *partnerGrant, now time.Time) error {
		s.revokeGrant(g, now)
		return nil
	})
}

func (s *Server) atAnyGrant(id string, fn func(*partnerGrant, time.Time) error) error {
	found, err := s.atOperator(func(op *operator, now time.Time) (bool, error) {
		g, ok := op.partnerGrants.get(id)
		if !ok {
			return false, nil
		}
		return true, fn(g, now)
	})
	if !found {
		return notFound("grant", id)
	}
	return err
}

// AccountKey makes an API key of the account with an e-mail address, as its owner could. It fails when there is none.
func (s *Server) AccountKey(email string) (stack.Secret, error) {
	s.mu.RLock()
	account, ok := s.operators[s.accounts[email]]
	s.mu.RUnlock()
	if !ok {
		return stack.Secret{}, notFound("account", email)
	}
	key := newAPIKey(account.id)
	s.keys.add(key, keyOwner{op: account})
	return stack.NewSecret(key), nil
}
