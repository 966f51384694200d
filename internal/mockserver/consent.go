package mockserver

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/getstack-go/stack"
)

const (
	callbackPath    = "/v1/services/oauth/callback"
	consentLifetime = 10 * time.Minute // (contract: server-api 2.3)
	codeDenied      = "access_denied"  // of OAuth
)

// connectedPage is where a person ends who was asked to connect a service.
var connectedPage = template.Must(template.New("page").Parse(pageHead + `
<title>Connecting a service (mock)</title>
{{if .Name}}<h1 id="connected">{{.Name}} is connected</h1>
<p>Agents may use it now, as far as they are granted. You can close this page.</p>
{{else}}<h1>Nothing was connected</h1>
<p role="alert">{{.Problem}}</p>
<p>To try again, ask for a new link.</p>{{end}}
</html>
`))

// consent is what somebody is asked for who opens the authorization URL of a connection. There is one at a time: a new one
// takes the place of the last.
type consent struct {
	nonce       string
	verifier    string // of PKCE
	callback    string
	redirectURI string
	as          account // that the connection becomes
	expiresAt   time.Time
}

// consentState makes states that nobody else can.
type consentState struct {
	mu  sync.Mutex
	key [32]byte
}

func (c *consentState) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = rand.Read(c.key[:]) // never fails: it ends the program instead
}

func (c *consentState) mac(body string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return macOf(c.key[:], body)
}

// connectState is what the state of an authorization URL says: whose and which connection it is for.
type connectState struct {
	operatorID, connectionID, nonce string
	expiresAt                       time.Time
}

func (c *consentState) sign(st connectState) string {
	body := strings.Join([]string{st.operatorID, st.connectionID, st.nonce, strconv.FormatInt(st.expiresAt.UnixMilli(), 10)}, ".")
	return body + "." + c.mac(body)
}

// read takes apart a state that this server has signed.
func (c *consentState) read(text string) (st connectState, ok bool) {
	end := strings.LastIndexByte(text, '.')
	if end < 0 || len(text) > maxState || !hmac.Equal([]byte(text[end+1:]), []byte(c.mac(text[:end]))) {
		return connectState{}, false
	}
	parts := strings.Split(text[:end], ".")
	if len(parts) != 4 {
		return connectState{}, false
	}
	ms, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil {
		return connectState{}, false
	}
	return connectState{parts[0], parts[1], parts[2], time.UnixMilli(ms)}, true
}

// scopeToken is what OAuth can ask for, by RFC 6749, 3.3.
var scopeToken = regexp.MustCompile(`^[!#-\[\]-~]+$`)

// askConsent has somebody asked at the provider whether a service may be connected.
func (s *Server) askConsent(
	ctx context.Context, c *caller, e *catalogEntry, conn *connection, as account, redirectURI string,
) (*stack.Connection, error) {
	if e.AuthKind != stack.AuthKindOAuth {
		return nil, invalid("body.oauth_token", nil, "the "+tokenNames[e.AuthKind]+" of the account: "+e.Name+" asks nobody for consent")
	}
	for i, scope := range as.scopes {
		if !scopeToken.MatchString(scope) {
			return nil, invalid(fmt.Sprintf("body.scopes[%d]", i), scope, "printable ASCII without spaces, quotes and backslashes")
		}
	}
	if err := c.enter(conn); err != nil {
		return nil, err
	}
	now := s.clock.now()
	if conn.Status == "" {
		conn.Status, conn.ConnectedAt = stack.ConnectionPending, now
		conn.Scopes, conn.Fields, conn.AllowedHosts = as.scopes, as.fields, as.hosts
		c.op.connections.put(conn.ID, conn)
	}
	base := baseURL(ctx)
	asked := &consent{nonce: newID(""), verifier: oauth2.GenerateVerifier(), callback: base + callbackPath, redirectURI: redirectURI,
		as: as, expiresAt: now.Add(consentLifetime)}
	conn.consent = asked
	op := c.op
	op.due.add(asked.expiresAt, func(at time.Time) {
		if conn.consent == asked {
			op.endConsent(at, conn, "AUTHORIZATION_EXPIRED")
		}
	})
	op.record(now, conn.row("service.authorize"))
	config := s.providerConfig(e.Provider, base)
	config.RedirectURL, config.Scopes = asked.callback, as.scopes
	state := s.consents.sign(connectState{op.id, conn.ID, asked.nonce, asked.expiresAt})
	out := conn.Connection
	out.AuthorizationURL = config.AuthCodeURL(state, oauth2.S256ChallengeOption(asked.verifier))
	out.AuthorizationExpiresAt = asked.expiresAt
	return &out, nil
}

// endConsent gives up to connect a service. A connection that never was is gone; another stays as it was.
func (op *operator) endConsent(now time.Time, conn *connection, code string) {
	conn.consent = nil
	row := conn.row("service.authorize")
	row.Outcome, row.ErrorCode = stack.OutcomeFailure, code
	op.record(now, row)
	if conn.Status == stack.ConnectionPending {
		conn.Status = stack.ConnectionDisconnected
		op.connections.delete(conn.ID)
	}
}

type callbackIn struct {
	Query string `rawquery:"code state error error_description"`
}

// connectCallback is where the provider sends the person back.
func (s *Server) connectCallback(_ context.Context, _ *caller, in callbackIn) (*document, error) {
	conn, asked, refusal := s.finishConsent(in.Query)
	if asked != nil && asked.redirectURI != "" {
		answer := url.Values{"connection_id": {conn.ID}, "status": {string(conn.Status)}}
		if refusal != nil {
			answer = url.Values{"connection_id": {conn.ID}, "error": {refusal.code}, "error_description": {oauthText(refusal.message)}}
		}
		return redirect(authorization{redirectURI: asked.redirectURI}.location(answer)), nil
	}
	data := map[string]any{"Name": conn.Name}
	if refusal != nil {
		data = map[string]any{"Problem": refusal.message}
	}
	out, err := htmlPage(connectedPage, data)
	if err == nil && refusal != nil {
		out.status = refusal.status
	}
	return out, err
}

// consentProblem refuses to connect a service, in words that a person is shown.
func consentProblem(code, message string) *apiError {
	return refuse(http.StatusBadRequest, code, message, map[string]any{"check": "consent", "allowed": "a link that POST /v1/services/connect " +
		"has given less than 10 minutes ago, once"})
}

// finishConsent connects the service that a provider's answer is for, and returns the connection as it is then. The consent
// is there as soon as the state is known to be good. No operator is locked while the provider is waited for.
func (s *Server) finishConsent(query string) (out stack.Connection, asked *consent, refusal *apiError) {
	form, refusal := formOf(query)
	if refusal != nil {
		return out, nil, refusal
	}
	st, ok := s.consents.read(form["state"])
	op, known := s.operatorByID(st.operatorID)
	if !ok || !known {
		return out, nil, consentProblem("invalid_state", "The link was altered, or is not of this server.")
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	if !now.Before(st.expiresAt) {
		return out, nil, consentProblem("expired_state", "The link has expired: it is good for 10 minutes.")
	}
	conn, ok := op.connections.get(st.connectionID)
	if !ok || conn.consent == nil || !sameSecret(conn.consent.nonce, st.nonce) {
		return out, nil, consentProblem("used_state", "The link was used already, or a newer one has taken its place.")
	}
	asked, out = conn.consent, conn.Connection
	conn.consent = nil // whatever comes of it
	switch {
	case form["error"] == codeDenied:
		op.endConsent(now, conn, "ACCESS_DENIED")
		return out, asked, consentProblem(codeDenied, conn.Name+" was not connected, since the consent was denied.")
	case form["error"] != "" || form["code"] == "":
		op.endConsent(now, conn, "PROVIDER_ERROR")
		why := or(clip(oauthText(form["error"])), "it sent no code")
		return out, asked, consentProblem("provider_error", conn.Name+" could not ask for consent: "+why+".")
	}
	tokens, err := s.redeemAtProvider(op, conn.Provider, asked, form["code"])
	now = s.clock.now()
	op.sweep(now)
	if again, still := op.connections.get(conn.ID); !still || again != conn {
		return out, asked, consentProblem("connection_gone", "The connection was taken away meanwhile.")
	}
	if err == nil {
		err = s.install(op, conn, asked.as, tokens, now)
	}
	if err != nil {
		s.logger.Warn("a consent could not be redeemed", "connection_id", conn.ID, "error", err)
		if conn.consent == nil { // nobody has been asked again meanwhile
			op.endConsent(now, conn, "PROVIDER_ERROR")
		}
		return out, asked, consentProblem("provider_error", conn.Name+" did not give a token.")
	}
	return conn.Connection, asked, nil
}

// DecideConnection stands in for a person who opens the authorization URL of a connection and approves or denies, and whose
// browser is sent back then. It returns the connection that there is after an approval. It fails for an address that is none,
// and where the person would be told that nothing was connected though they approved.
func (s *Server) DecideConnection(address string, approve bool) (*stack.Connection, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address is no URL")
	}
	provider, ok := strings.CutPrefix(u.Path, providersPath)
	provider, isPage := strings.CutSuffix(provider, "/authorize")
	if !ok || !isPage {
		return nil, errors.New("the address must be the authorization_url of a connection, which is below " + providersPath)
	}
	base := *u
	base.Path, base.RawQuery = "", ""
	a, refusal := s.readProviderRequest(provider, u.RawQuery, base.String())
	if refusal != nil {
		return nil, refusal
	}
	back, err := url.Parse(s.decideAtProvider(a, approve))
	if err != nil {
		return nil, err
	}
	conn, _, refusal := s.finishConsent(back.RawQuery)
	if refusal != nil && (approve || refusal.code != codeDenied) {
		return nil, refusal
	}
	return &conn, nil
}
