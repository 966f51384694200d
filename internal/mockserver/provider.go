package mockserver

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/getstack-go/stack"
)

// The stand-in providers are authorization servers of the services that are connected by OAuth, one for each. STACK is their
// only client: it knows them by their addresses, and they it by its secret. Nothing of it is the contract's.
const (
	providersPath         = "/providers/"
	providerClientID      = "stack"
	providerTokenLifetime = time.Hour
	maxProviderCodes      = 1000
	maxProviderGrants     = 10_000
)

var providerPage = template.Must(template.New("page").Parse(pageHead + `
<title>{{.Provider}} (mock)</title>
<h1>STACK asks for your {{.Provider}} account</h1>
<p>This page of the STACK mock stands in for {{.Provider}}.{{with .Account}} The agents of {{.}} may then use your account:{{end}}</p>
<ul>{{range .Scopes}}<li>{{.}}</li>{{end}}</ul>
<form method="post">
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</form>
</html>
`))

var providerProblemPage = template.Must(template.New("page").Parse(pageHead + `
<title>Consent is not possible (mock)</title>
<h1>Consent is not possible</h1>
<p role="alert">{{.Problem}}</p>
</html>
`))

// providerState is what the providers know. Its lock is taken for moments only, and no other within it.
type providerState struct {
	mu     sync.Mutex
	secret string               // of their client
	codes  table[providerCode]  // by the hash of the code
	grants table[providerGrant] // those that were not revoked
}

// providerCode is a code, which is good for one try.
type providerCode struct {
	provider, redirectURI, challenge string
	scopes                           []string
	expiresAt                        time.Time
}

// providerGrant is what a person has granted to STACK at a provider.
type providerGrant struct {
	provider string
	scopes   []string
	refresh  keyHash // of the newest refresh token
}

func (p *providerState) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.secret, p.codes, p.grants = rand.Text(), table[providerCode]{}, table[providerGrant]{}
}

func (p *providerState) clientSecret() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.secret
}

func providerRoutes() []route {
	const page = providersPath + "{provider}/authorize"
	return []route{
		endpoint("GET", page, (*Server).showProviderConsent, webPage, sendsOn),
		endpoint("POST", page, (*Server).consentAtProvider, webPage, sendsOn, foreignBody, bodyLimit(maxClientBody)),
		endpoint("POST", providersPath+"{provider}/token", (*Server).providerToken, oauth, foreignBody, bodyLimit(maxClientBody)),
	}
}

// providerRequest is a well-formed request for consent.
type providerRequest struct {
	authorization
	entry *catalogEntry
}

// readProviderRequest reads a request for consent. What is wrong with one is shown to the person: it is not as STACK has
// made it.
func (s *Server) readProviderRequest(provider, query, base string) (providerRequest, *apiError) {
	e, ok := catalogued(provider)
	if !ok || e.Provider != provider || e.AuthKind != stack.AuthKindOAuth {
		return providerRequest{}, invalid("provider", provider, "the provider key of a service that is connected by OAuth")
	}
	form, refusal := formOf(query)
	if refusal != nil {
		return providerRequest{}, refusal
	}
	a := authorization{redirectURI: form["redirect_uri"], state: form["state"], challenge: form["code_challenge"],
		scopes: strings.Fields(form["scope"])}
	switch {
	case form["client_id"] != providerClientID:
		refusal = invalid("client_id", form["client_id"], providerClientID)
	case a.redirectURI != base+callbackPath:
		refusal = invalid("redirect_uri", a.redirectURI, base+callbackPath)
	case form["response_type"] != "code":
		refusal = invalid("response_type", form["response_type"], "code")
	case form["code_challenge_method"] != "S256":
		refusal = invalid("code_challenge_method", form["code_challenge_method"], "S256")
	case !isChallenge(a.challenge):
		refusal = invalid("code_challenge", a.challenge, "the SHA-256 of the verifier, in base64url without padding")
	case len(a.state) > maxState:
		refusal = invalid("state", a.state, "shorter")
	default:
		if refusal = checkScopes("scope", a.scopes); refusal == nil {
			return providerRequest{a, e}, nil
		}
	}
	return providerRequest{}, refusal
}

type providerPageIn struct {
	Provider string `path:"provider"`
	Query    string `rawquery:"response_type client_id redirect_uri scope state code_challenge code_challenge_method"`
}

func (s *Server) showProviderConsent(ctx context.Context, _ *caller, in providerPageIn) (*document, error) {
	a, refusal := s.readProviderRequest(in.Provider, in.Query, baseURL(ctx))
	if refusal != nil {
		return providerProblem(refusal)
	}
	account := ""
	if st, ok := s.consents.read(a.state); ok {
		if op, ok := s.operatorByID(st.operatorID); ok {
			account = or(op.email, op.id)
		}
	}
	out, err := htmlPage(providerPage, map[string]any{"Provider": a.entry.Name, "Account": account, "Scopes": a.scopes})
	if err != nil {
		return nil, err
	}
	// A form's redirects count as its targets, and where the client sends the person in the end the provider does not know.
	policy := out.header.Get("Content-Security-Policy")
	out.header.Set("Content-Security-Policy", strings.Replace(policy, "form-action 'self'", "form-action 'self' http: https:", 1))
	return out, nil
}

func providerProblem(refusal *apiError) (*document, error) {
	out, err := htmlPage(providerProblemPage, map[string]any{"Problem": refusal.message})
	if err != nil {
		return nil, err
	}
	out.status = http.StatusBadRequest
	return out, nil
}

type providerDecisionIn struct {
	Provider    string `path:"provider"`
	Query       string `rawquery:"response_type client_id redirect_uri scope state code_challenge code_challenge_method"`
	ContentType string `header:"Content-Type"`
	Raw         []byte `raw:""`
}

// consentAtProvider is what the buttons of the page do.
func (s *Server) consentAtProvider(ctx context.Context, _ *caller, in providerDecisionIn) (*document, error) {
	a, refusal := s.readProviderRequest(in.Provider, in.Query, baseURL(ctx))
	if refusal == nil {
		var form map[string]string
		if form, refusal = formBody(in.ContentType, in.Raw); refusal == nil {
			if refusal = chosen("decision", form["decision"], "approve", "deny"); refusal == nil {
				return redirect(s.decideAtProvider(a, form["decision"] == "approve")), nil
			}
		}
	}
	return providerProblem(refusal)
}

// decideAtProvider returns where the person is sent who has approved or denied.
func (s *Server) decideAtProvider(a providerRequest, approve bool) (location string) {
	if !approve {
		return a.location(url.Values{"error": {"access_denied"}, "error_description": {"The person has denied the request."}})
	}
	code := newID("pac_") + newID("")
	p, now := &s.providers, s.clock.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, c := range p.codes.byID {
		if !now.Before(c.expiresAt) {
			p.codes.delete(id)
		}
	}
	if p.codes.len() >= maxProviderCodes {
		p.codes.delete(p.codes.order[0])
	}
	p.codes.put(codeID(code), &providerCode{provider: a.entry.Provider, redirectURI: a.redirectURI, challenge: a.challenge, scopes: a.scopes,
		expiresAt: now.Add(codeLifetime)})
	return a.location(url.Values{"code": {code}})
}

type providerTokenIn struct {
	Provider      string       `path:"provider"`
	ContentType   string       `header:"Content-Type"`
	Authorization stack.Secret `header:"Authorization"`
	Raw           []byte       `raw:""`
}

// providerToken is the token endpoint of a provider.
func (s *Server) providerToken(_ context.Context, _ *caller, in providerTokenIn) (*oauthTokens, error) {
	form, refusal := formBody(in.ContentType, in.Raw)
	if refusal != nil {
		return nil, refusal
	}
	p := &s.providers
	scheme, encoded, _ := strings.Cut(in.Authorization.Reveal(), " ")
	id, secret, ok := basicOf(encoded)
	if !strings.EqualFold(scheme, "Basic") || !ok || id != providerClientID ||
		subtle.ConstantTimeCompare([]byte(secret), []byte(p.clientSecret())) != 1 {
		return nil, invalidClient("the client is not the one that the provider knows", "STACK's own client_id and client_secret")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch form["grant_type"] {
	case grantCode:
		return p.redeem(in.Provider, form, s.clock.now())
	case grantRefresh:
		return p.refresh(in.Provider, form["refresh_token"])
	}
	return nil, badForm("unsupported_grant_type", "grant_type", form["grant_type"], grantCode+" or "+grantRefresh)
}

// redeem makes a grant of a code.
func (p *providerState) redeem(provider string, form map[string]string, now time.Time) (*oauthTokens, error) {
	id := codeID(form["code"])
	code, ok := p.codes.get(id)
	p.codes.delete(id)
	if !ok || code.provider != provider || !now.Before(code.expiresAt) || code.redirectURI != form["redirect_uri"] ||
		!fitsChallenge(form["code_verifier"], code.challenge) {
		return nil, invalidGrant("the code is not good, or was not asked for by who sends it", "a code that is less than 5 minutes old, once, "+
			"with its redirect_uri and code_verifier")
	}
	if p.grants.len() >= maxProviderGrants {
		p.grants.delete(p.grants.order[0])
	}
	grantID := newID("pgt_")
	g := &providerGrant{provider: provider, scopes: code.scopes}
	p.grants.put(grantID, g)
	return g.tokens(grantID), nil
}

// refresh renews the tokens of a grant. A refresh token that was used before is known to two, so that the grant ends.
func (p *providerState) refresh(provider, token string) (*oauthTokens, error) {
	id, _, _ := strings.Cut(token, ".")
	g, ok := p.grants.get(id)
	if !ok || g.provider != provider {
		return nil, invalidGrant("the refresh token is not known, or was revoked", "the newest refresh token of a grant")
	}
	if sent := hashKey(token); subtle.ConstantTimeCompare(sent[:], g.refresh[:]) != 1 {
		p.grants.delete(id)
		return nil, invalidGrant("the refresh token was used before, so that the grant is revoked", "the newest refresh token of a grant")
	}
	return g.tokens(id), nil
}

// tokens makes the next tokens of a grant.
func (g *providerGrant) tokens(id string) *oauthTokens {
	refresh := id + "." + rand.Text()
	g.refresh = hashKey(refresh)
	return &oauthTokens{AccessToken: stack.NewSecret(newID(g.provider + "_at_")), TokenType: "Bearer",
		ExpiresIn: int(providerTokenLifetime / time.Second), RefreshToken: stack.NewSecret(refresh), Scope: strings.Join(g.scopes, " ")}
}

// RevokeAtProvider stands in for a person who takes a connection's consent back at the provider. Its token is good until it
// ends; the provider refuses to renew it. It fails for a connection that is unknown, or that no provider has given a token
// for.
func (s *Server) RevokeAtProvider(connectionID string) error {
	found, err := s.atOperator(func(op *operator, _ time.Time) (bool, error) {
		conn, ok := op.connections.get(connectionID)
		if !ok {
			return false, nil
		}
		if conn.tokenEnds.IsZero() {
			return true, invalid("connection_id", connectionID, "a connection that somebody has consented to")
		}
		secret, err := s.unseal(conn)
		if err != nil {
			return true, err
		}
		grantID, _, _ := strings.Cut(secret.Refresh, ".")
		s.providers.mu.Lock()
		defer s.providers.mu.Unlock()
		s.providers.grants.delete(grantID)
		return true, nil
	})
	if !found {
		return notFound("connection", connectionID)
	}
	return err
}
