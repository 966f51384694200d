package mockserver

import (
	"context"
	"encoding/base64"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

const (
	maxState      = 4096
	signInProblem = "Sign-in is not possible"
)

// authorizationPage is where a person grants a client what it asks for. On the hosted service they have signed in to the
// dashboard; here an API key says who they are.
var authorizationPage = template.Must(template.New("page").Parse(pageHead + `
<title>Sign in (mock)</title>
<h1>{{or .Client "An application without a name"}} asks to sign in</h1>
<p>It sends you on to <code>{{.RedirectURI}}</code>, and may then act for your account:</p>
<ul>{{range .Scopes}}<li>{{.}}</li>{{end}}</ul>
{{with .Problem}}<p role="alert"><strong>{{.}}</strong></p>{{end}}
<form method="post">
<p><label>API key of your account<br><input type="password" name="api_key" autocomplete="off" autofocus></label></p>
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</form>
</html>
`))

var refusalPage = template.Must(template.New("page").Parse(pageHead + `
<title>{{.Title}} (mock)</title>
<h1>{{.Title}}</h1>
<p>{{.Message}}</p>
<p>Close this page and begin again in the application.</p>
</html>
`))

// oauthCode is an authorization code. It stays for its whole life, so that a second use is noticed.
type oauthCode struct {
	clientID, redirectURI, challenge string
	key                              keyHash // of who signed in
	scopes                           []string
	expiresAt                        time.Time
	used                             bool
	session                          string // that came of it
}

// authorization is a well-formed request for a code.
type authorization struct {
	client                        *oauthClient
	redirectURI, state, challenge string
	scopes                        []string
}

// readAuthorization reads a request for a code. Until client and redirect URI are known to be good, what is wrong is shown to the
// person; after that, refusal says it to the client.
func (s *Server) readAuthorization(query, base string) (a authorization, refusal, forPerson *apiError) {
	form, forPerson := formOf(query)
	if forPerson != nil {
		return a, nil, forPerson
	}
	bad := func(code, field, allowed string) *apiError {
		err := invalid(field, or(form[field], "missing"), allowed)
		err.code = code
		return err
	}
	var ok bool
	if a.client, ok = s.oauth.client(form["client_id"]); !ok {
		return a, nil, bad("invalid_client", "client_id", "the id of a client that was registered at /oauth/register")
	}
	if a.redirectURI = form["redirect_uri"]; !a.client.redirects(a.redirectURI) {
		return a, nil, bad("invalid_request", "redirect_uri", "one of the URIs that the client has registered, to the letter")
	}
	if len(form["state"]) > maxState {
		return a, bad("invalid_request", "state", fmt.Sprintf("at most %d bytes", maxState)), nil
	}
	a.state, a.challenge = form["state"], form["code_challenge"]
	switch resource := form["resource"]; {
	case form["response_type"] == "":
		return a, bad("invalid_request", "response_type", "code"), nil
	case form["response_type"] != "code":
		return a, bad("unsupported_response_type", "response_type", "code"), nil
	case form["code_challenge_method"] != "S256":
		return a, bad("invalid_request", "code_challenge_method", "S256"), nil
	case !isChallenge(a.challenge):
		return a, bad("invalid_request", "code_challenge", "the SHA-256 of the verifier, in base64url without padding"), nil
	case resource != "" && resource != stack.DefaultBaseURL && resource != base:
		return a, bad("invalid_target", "resource", stack.DefaultBaseURL+" or "+base), nil
	}
	a.scopes, refusal = readScopes(form["scope"], a.client.scopes)
	return a, refusal, nil
}

func isChallenge(text string) bool {
	sum, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(sum) == len(keyHash{}) && !strings.ContainsAny(text, "\r\n")
}

type authorizationIn struct {
	Query string `rawquery:"response_type client_id redirect_uri scope state resource code_challenge code_challenge_method"`
}

func (s *Server) showAuthorization(ctx context.Context, _ *caller, in authorizationIn) (*document, error) {
	a, refusal, forPerson := s.readAuthorization(in.Query, baseURL(ctx))
	switch {
	case forPerson != nil:
		return problemPage(signInProblem, forPerson)
	case refusal != nil:
		return a.refused(refusal), nil
	}
	return a.page("")
}

type authorizeIn struct {
	Query       string `rawquery:"response_type client_id redirect_uri scope state resource code_challenge code_challenge_method"`
	ContentType string `header:"Content-Type"`
	Raw         []byte `raw:""`
}

// authorizeOnPage is what the buttons of the page do.
func (s *Server) authorizeOnPage(ctx context.Context, _ *caller, in authorizeIn) (*document, error) {
	a, refusal, forPerson := s.readAuthorization(in.Query, baseURL(ctx))
	var form map[string]string
	if forPerson == nil {
		form, forPerson = readDecision(in.ContentType, in.Raw)
	}
	switch {
	case forPerson != nil:
		return problemPage(signInProblem, forPerson)
	case refusal != nil:
		return a.refused(refusal), nil
	}
	location, err := s.decide(a, form["api_key"], form["decision"] == "approve")
	if err != nil {
		return a.page("That is no API key of an account here.")
	}
	return redirect(location), nil
}

// decide gives the client a code when the person approves and is who the key says, or else tells it of the refusal.
func (s *Server) decide(a authorization, key string, approve bool) (location string, err error) {
	if !approve {
		return a.location(url.Values{"error": {"access_denied"}, "error_description": {"The person has denied the request."}}), nil
	}
	c, refusal := s.personOf(key)
	if refusal != nil {
		return "", refusal
	}
	code := newID("oaz_") + newID("")
	s.oauth.keepCode(code, &oauthCode{clientID: a.client.id, redirectURI: a.redirectURI, challenge: a.challenge, key: hashKey(key),
		scopes: a.scopes, expiresAt: s.clock.now().Add(codeLifetime)}, s.clock.now())
	c.op.recordAlone(stack.AuditEntry{Action: "oauth.authorize", TraceID: a.client.id})
	return a.location(url.Values{"code": {code}}), nil
}

// keepCode keeps a code; where there are too many, the oldest goes.
func (o *oauthState) keepCode(code string, c *oauthCode, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.prune(now)
	if o.codes.len() >= maxOAuthCodes {
		o.codes.delete(o.codes.order[0])
	}
	o.codes.put(codeID(code), c)
}

func codeID(code string) string {
	hash := hashKey(code)
	return string(hash[:])
}

// location is the redirect URI with the answer in its query.
func (a authorization) location(answer url.Values) string {
	if a.state != "" {
		answer.Set("state", a.state)
	}
	return withAnswer(a.redirectURI, answer)
}

func (a authorization) refused(refusal *apiError) *document {
	return redirect(a.location(url.Values{"error": {refusal.code}, "error_description": {oauthText(refusal.message)}}))
}

func redirect(location string) *document {
	return &document{status: http.StatusSeeOther, contentType: "text/plain; charset=utf-8", body: []byte("Go back to the application.\n"),
		header: http.Header{"Location": {location}, "Referrer-Policy": {"no-referrer"}}}
}

// page shows what the client asks for.
func (a authorization) page(problem string) (*document, error) {
	return pageToSendOn(authorizationPage, a.redirectURI, problem, map[string]any{"Client": a.client.name, "RedirectURI": a.redirectURI,
		"Scopes": a.scopes})
}

// problemPage tells a person what is wrong with the address that they were sent to.
func problemPage(title string, refusal *apiError) (*document, error) {
	out, err := htmlPage(refusalPage, map[string]any{"Title": title, "Message": refusal.message})
	if err != nil {
		return nil, err
	}
	out.status = http.StatusBadRequest
	return out, nil
}

// formBody reads a body that must be a form.
func formBody(contentType string, raw []byte) (map[string]string, *apiError) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, refuse(http.StatusBadRequest, "invalid_request", "the body must be a form", map[string]any{
			"check": "content_type", "sent": clip(contentType), "allowed": "application/x-www-form-urlencoded"})
	}
	return formOf(string(raw))
}

// DecideSignIn stands in for a person who opens the address of the authorize page, signs in as the first operator and approves
// or denies. It returns where the page sends them then. It fails for an address that the page refuses to show.
func (s *Server) DecideSignIn(address string, approve bool) (location string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Path != authorizePath {
		return "", fmt.Errorf("the address must be one of %s", authorizePath)
	}
	base := *u
	base.Path, base.RawQuery = "", ""
	a, refusal, forPerson := s.readAuthorization(u.RawQuery, base.String())
	switch {
	case forPerson != nil:
		return "", forPerson
	case refusal != nil:
		return a.refused(refusal).header.Get("Location"), nil
	}
	return s.decide(a, s.first.APIKey, approve)
}
