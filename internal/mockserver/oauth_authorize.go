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

const maxState = 4096

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

var authorizationErrorPage = template.Must(template.New("page").Parse(pageHead + `
<title>Sign-in is not possible (mock)</title>
<h1>Sign-in is not possible</h1>
<p>{{.}}</p>
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
		return authorizationProblem(forPerson)
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
		if form, forPerson = formBody(in.ContentType, in.Raw); forPerson == nil && form["decision"] != "approve" && form["decision"] != "deny" {
			forPerson = invalid("decision", form["decision"], "approve or deny")
		}
	}
	switch {
	case forPerson != nil:
		return authorizationProblem(forPerson)
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
	if isAccessToken(key) {
		return "", unauthorized("UNAUTHORIZED", "an access token signs nobody in", "an API key")
	}
	c, err := s.callerOf(key)
	if err != nil {
		return "", err
	}
	if c.grant != nil {
		return "", unauthorized("UNAUTHORIZED", "a partner's grant signs nobody in", "an API key")
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
	u, err := url.Parse(a.redirectURI)
	if err != nil { // it was parsed when it was registered
		panic(err)
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += answer.Encode()
	return u.String()
}

func (a authorization) refused(refusal *apiError) *document {
	return redirect(a.location(url.Values{"error": {refusal.code}, "error_description": {oauthText(refusal.message)}}))
}

func redirect(location string) *document {
	return &document{status: http.StatusSeeOther, contentType: "text/plain; charset=utf-8", body: []byte("Go back to the application.\n"),
		header: http.Header{"Location": {location}, "Referrer-Policy": {"no-referrer"}}}
}

// page shows what the client asks for. A form's redirects count as its targets, so the client's scheme is one.
func (a authorization) page(problem string) (*document, error) {
	out, err := htmlPage(authorizationPage, map[string]any{"Client": a.client.name, "RedirectURI": a.redirectURI, "Scopes": a.scopes,
		"Problem": problem})
	if err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(a.redirectURI, ":")
	policy := out.header.Get("Content-Security-Policy")
	out.header.Set("Content-Security-Policy", strings.Replace(policy, "form-action 'self'", "form-action 'self' "+scheme+":", 1))
	if problem != "" {
		out.status = http.StatusForbidden
	}
	return out, nil
}

func authorizationProblem(refusal *apiError) (*document, error) {
	var buf strings.Builder
	if err := authorizationErrorPage.Execute(&buf, refusal.message); err != nil {
		return nil, err
	}
	return &document{status: http.StatusBadRequest, contentType: "text/html; charset=utf-8", body: []byte(buf.String()),
		header: http.Header{"Content-Security-Policy": {"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}}}, nil
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
