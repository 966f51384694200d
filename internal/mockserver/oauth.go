package mockserver

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/getstack-go/stack"
)

const (
	authorizePath        = "/oauth/authorize"
	authServerPath       = "/.well-known/oauth-authorization-server"
	protectedPath        = "/.well-known/oauth-protected-resource"
	grantCode            = "authorization_code"
	grantRefresh         = "refresh_token"
	grantExchange        = "urn:ietf:params:oauth:grant-type:token-exchange"
	maxOAuthClients      = 1000
	maxOAuthCodes        = 1000
	maxOAuthSessions     = 10_000
	maxRedirectURIs      = 10
	maxRedirectURI       = 2048
	maxClientName        = 200
	maxClientBody        = 64 << 10
	accessTokenLifetime  = 5 * time.Minute     // (contract: server-api 2.1)
	codeLifetime         = 5 * time.Minute     // (contract: endpoints 4.5)
	refreshTokenLifetime = 30 * 24 * time.Hour // from each use (contract: endpoints 4.3)
)

// oauthState is what the authorization server knows. Its lock is taken for moments only, and no other within it.
type oauthState struct {
	mu       sync.Mutex
	macKey   [32]byte // of refresh tokens
	clients  table[oauthClient]
	codes    table[oauthCode]    // by the hash of the code
	devices  table[deviceSignIn] // by the hash of the device code
	sessions table[oauthSession]

	misses      int // wrong user codes
	missesSince time.Time
}

// oauthClient is a registered client. It does not change.
type oauthClient struct {
	id, name     string
	redirectURIs []string
	grants       []string
	scopes       []string
	authMethod   string
	secret       keyHash // zero for a public client
}

// oauthSession is what a person has granted to a client, and lives on by its refresh tokens.
type oauthSession struct {
	id, clientID string
	key          keyHash // of who signed in; when that key ends, the session does
	scopes       []string
	uses         int // how often it was refreshed: only the refresh token of that number is good
	expiresAt    time.Time
}

func (o *oauthState) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = rand.Read(o.macKey[:]) // never fails: it ends the program instead
	o.clients, o.codes, o.sessions = table[oauthClient]{}, table[oauthCode]{}, table[oauthSession]{}
	o.devices, o.misses = table[deviceSignIn]{}, 0
}

func oauthRoutes() []route {
	return []route{
		endpoint("GET", authServerPath, (*Server).authServerMetadata, public),
		endpoint("GET", protectedPath, (*Server).protectedMetadata, public),
		endpoint("POST", "/oauth/register", (*Server).registerClient, oauth, created, bodyLimit(maxClientBody)),
		endpoint("GET", authorizePath, (*Server).showAuthorization, webPage, sendsOn),
		endpoint("POST", authorizePath, (*Server).authorizeOnPage, webPage, sendsOn, foreignBody, bodyLimit(maxClientBody)),
		endpoint("POST", deviceAuthPath, (*Server).authorizeDevice, oauth, foreignBody, bodyLimit(maxClientBody)),
		endpoint("GET", devicePath, (*Server).showDevice, webPage, showsProblems),
		endpoint("POST", devicePath, (*Server).decideDeviceOnPage, webPage, showsProblems, foreignBody, bodyLimit(maxClientBody)),
		endpoint("POST", revokePath, (*Server).revokeToken, oauth, foreignBody, bodyLimit(maxClientBody)),
		endpoint("POST", "/oauth/token", (*Server).oauthToken, oauth, foreignBody, bodyLimit(maxClientBody)),
		endpoint("POST", "/v1/oauth/token", (*Server).oauthToken, oauth, foreignBody, bodyLimit(maxClientBody), named("oauthTokenUnderVersion")),
	}
}

// authServer is the metadata of RFC 8414.
type authServer struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	RegistrationEndpoint  string   `json:"registration_endpoint"`
	DeviceEndpoint        string   `json:"device_authorization_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	ScopesSupported       []string `json:"scopes_supported"`
	ResponseTypes         []string `json:"response_types_supported"`
	GrantTypes            []string `json:"grant_types_supported"`
	AuthMethods           []string `json:"token_endpoint_auth_methods_supported"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported"`
}

// grantTypes are all grants of the token endpoint.
var grantTypes = []string{grantCode, grantRefresh, grantDevice, grantExchange}

// clientAuthMethods are the ways in which a client may show at the token endpoint who it is.
var clientAuthMethods = []string{"none", "client_secret_post", "client_secret_basic"}

func (s *Server) authServerMetadata(ctx context.Context, _ *caller, _ none) (*authServer, error) {
	base := baseURL(ctx)
	return &authServer{Issuer: base, AuthorizationEndpoint: base + authorizePath, TokenEndpoint: base + "/oauth/token",
		RegistrationEndpoint: base + "/oauth/register", DeviceEndpoint: base + deviceAuthPath, RevocationEndpoint: base + revokePath,
		JWKSURI: base + "/v1/.well-known/jwks.json", ScopesSupported: oauthScopes, ResponseTypes: []string{"code"}, GrantTypes: grantTypes,
		AuthMethods: clientAuthMethods, ChallengeMethods: []string{"S256"}}, nil
}

// protectedResource is the metadata of RFC 9728.
type protectedResource struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ScopesSupported      []string `json:"scopes_supported"`
	BearerMethods        []string `json:"bearer_methods_supported"`
}

func (s *Server) protectedMetadata(ctx context.Context, _ *caller, _ none) (*protectedResource, error) {
	base := baseURL(ctx)
	return &protectedResource{base, []string{base}, oauthScopes, []string{"header"}}, nil
}

// challenge tells a client that was refused where it may learn how to sign in. (contract: server-api 2.3)
func challenge(ctx context.Context) string {
	return `Bearer resource_metadata="` + baseURL(ctx) + protectedPath + `"`
}

func invalidClientData(field string, sent any, allowed string) *apiError {
	err := invalid(field, sent, allowed)
	err.code = "invalid_client_metadata"
	if strings.HasPrefix(field, "redirect_uris") {
		err.code = "invalid_redirect_uri"
	}
	return err
}

// clientData is the metadata of a client that the server heeds. It ignores what else there is, as RFC 7591 wants it to.
type clientData struct {
	ClientName    string   `json:"client_name,omitempty"`
	RedirectURIs  []string `json:"redirect_uris"`
	GrantTypes    []string `json:"grant_types"`
	ResponseTypes []string `json:"response_types"`
	AuthMethod    string   `json:"token_endpoint_auth_method"`
	Scope         string   `json:"scope"`
	SoftwareID    string   `json:"software_id,omitempty"`
}

type registeredClient struct {
	ClientID     string        `json:"client_id"`
	IssuedAt     int64         `json:"client_id_issued_at"`
	ClientSecret *stack.Secret `json:"client_secret,omitempty"`
	SecretEnds   *int64        `json:"client_secret_expires_at,omitempty"`
	clientData
}

type registerClientIn struct {
	Raw []byte `raw:""`
}

// registerClient is dynamic client registration. (contract: endpoints 4.5; server-api 2.3)
func (s *Server) registerClient(_ context.Context, _ *caller, in registerClientIn) (*registeredClient, error) {
	var data clientData
	if err := json.Unmarshal(in.Raw, &data); err != nil {
		return nil, invalidClientData("body", "not what is expected", "a JSON object of client metadata: redirect_uris is an array of strings")
	}
	if err := data.complete(); err != nil {
		return nil, err
	}
	now := s.clock.now()
	c := &oauthClient{id: newID("oac_"), name: data.ClientName, redirectURIs: data.RedirectURIs, grants: data.GrantTypes,
		scopes: strings.Fields(data.Scope), authMethod: data.AuthMethod}
	out := &registeredClient{ClientID: c.id, IssuedAt: now.Unix(), clientData: data}
	if c.authMethod != "none" {
		secret, never := stack.NewSecret(newID("ocs_")+strings.ToLower(rand.Text())), int64(0)
		c.secret, out.ClientSecret, out.SecretEnds = hashKey(secret.Reveal()), &secret, &never
	}
	if !s.oauth.add(c, now) {
		return nil, refuse(http.StatusServiceUnavailable, "temporarily_unavailable", "there are too many clients with a session",
			map[string]any{"check": "client_limit", "allowed": fmt.Sprintf("at most %d", maxOAuthClients)})
	}
	return out, nil
}

// add keeps a client. Where there are too many, the oldest that nobody has signed in to goes.
func (o *oauthState) add(c *oauthClient, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.clients.len() >= maxOAuthClients {
		o.prune(now)
		used := map[string]bool{}
		for session := range o.sessions.all() {
			used[session.clientID] = true
		}
		for _, id := range o.clients.order {
			if !used[id] {
				o.clients.delete(id)
				break
			}
		}
	}
	if o.clients.len() >= maxOAuthClients {
		return false
	}
	o.clients.put(c.id, c)
	return true
}

// prune forgets codes, devices and sessions whose time is over.
func (o *oauthState) prune(now time.Time) {
	for id, code := range o.codes.byID {
		if !now.Before(code.expiresAt) {
			o.codes.delete(id)
		}
	}
	for id, d := range o.devices.byID {
		if !now.Before(d.expiresAt.Add(deviceCodeLifetime)) {
			o.devices.delete(id)
		}
	}
	for id, session := range o.sessions.byID {
		if !now.Before(session.expiresAt) {
			o.sessions.delete(id)
		}
	}
}

// complete checks a client's metadata and fills in the defaults.
func (d *clientData) complete() error {
	if d.GrantTypes == nil {
		d.GrantTypes = []string{grantCode}
	}
	switch n := len(d.RedirectURIs); {
	case n == 0 && slices.Contains(d.GrantTypes, grantCode):
		return invalidClientData("redirect_uris", nil, "an array of URIs")
	case n > maxRedirectURIs:
		return invalidClientData("redirect_uris", fmt.Sprintf("an array of %d", n), fmt.Sprintf("an array of at most %d", maxRedirectURIs))
	case utf8.RuneCountInString(d.ClientName) > maxClientName:
		return invalidClientData("client_name", d.ClientName, fmt.Sprintf("at most %d characters", maxClientName))
	case len(d.SoftwareID) > maxClientName:
		return invalidClientData("software_id", d.SoftwareID, fmt.Sprintf("at most %d bytes", maxClientName))
	}
	for i, uri := range d.RedirectURIs {
		if !mayRedirectTo(uri) {
			return invalidClientData(fmt.Sprintf("redirect_uris[%d]", i), uri, "an https URI, an http URI of the loopback interface "+
				"or one of a private scheme such as com.example.app:/callback, without user information and fragment")
		}
	}
	if d.RedirectURIs == nil {
		d.RedirectURIs = []string{}
	}
	if d.ResponseTypes == nil {
		d.ResponseTypes = []string{"code"}
	}
	if d.AuthMethod == "" {
		d.AuthMethod = "none"
	}
	if d.Scope == "" {
		d.Scope = strings.Join(oauthScopes, " ")
	}
	for _, l := range []struct {
		field         string
		sent, allowed []string
	}{
		{"grant_types", d.GrantTypes, grantTypes},
		{"response_types", d.ResponseTypes, []string{"code"}},
		{"token_endpoint_auth_method", []string{d.AuthMethod}, clientAuthMethods},
		{"scope", strings.Fields(d.Scope), oauthScopes},
	} {
		for _, sent := range l.sent {
			if !slices.Contains(l.allowed, sent) {
				return invalidClientData(l.field, sent, "of "+strings.Join(l.allowed, ", "))
			}
		}
	}
	return nil
}

// mayRedirectTo reports whether an authorization code may be sent to a URI, as RFC 8252 and OAuth 2.1 have it.
func mayRedirectTo(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || len(uri) > maxRedirectURI || u.User != nil || strings.ContainsAny(uri, "#\\;,'\"<> ") {
		return false
	}
	switch u.Scheme {
	case "https":
		return u.Hostname() != ""
	case "http":
		return u.Hostname() == "localhost" || isLoopbackIP(u)
	}
	return strings.Contains(u.Scheme, ".") && u.Host == ""
}

func isLoopbackIP(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback() && ip.Zone() == ""
}

// redirects reports whether a URI is one of the client's: to the letter, but for the port of a loopback address, which is
// not known before (RFC 8252, 7.3).
func (c *oauthClient) redirects(uri string) bool {
	return mayRedirectTo(uri) && slices.ContainsFunc(c.redirectURIs, func(registered string) bool {
		return uri == registered || withoutLoopbackPort(uri) == withoutLoopbackPort(registered)
	})
}

func withoutLoopbackPort(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" || !isLoopbackIP(u) {
		return uri
	}
	u.Host = strings.TrimSuffix(u.Host, ":"+u.Port())
	return u.String()
}

// isSecret compares in constant time.
func (c *oauthClient) isSecret(secret string) bool {
	sent := hashKey(secret)
	return subtle.ConstantTimeCompare(sent[:], c.secret[:]) == 1
}

func (o *oauthState) client(id string) (*oauthClient, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.clients.get(id)
}

// formOf reads a form strictly: a parameter may be there once. One without a value counts as absent, as in RFC 6749.
func formOf(encoded string) (map[string]string, *apiError) {
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_request", "the form is not well-formed",
			map[string]any{"check": "validation", "allowed": "name=value pairs with valid percent-encoding, joined by &"})
	}
	form := map[string]string{}
	for name, sent := range values {
		if len(sent) > 1 {
			return nil, refuse(http.StatusBadRequest, "invalid_request", clip(name)+" is given more than once",
				map[string]any{"check": "validation", "field": clip(name), "allowed": "given once"})
		}
		form[name] = sent[0]
	}
	return form, nil
}
