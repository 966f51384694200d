package mockserver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/token"
)

const (
	refreshTokenPrefix = "ort_"
	tokenTypeJWT       = "urn:ietf:params:oauth:token-type:jwt"
)

type oauthTokenIn struct {
	ContentType   string       `header:"Content-Type"`
	Authorization stack.Secret `header:"Authorization"`
	Raw           []byte       `raw:""`
}

// oauthTokens is the answer of the token endpoint.
type oauthTokens struct {
	AccessToken     stack.Secret `json:"access_token"`
	IssuedTokenType string       `json:"issued_token_type,omitempty"`
	TokenType       string       `json:"token_type"`
	ExpiresIn       int          `json:"expires_in"`
	RefreshToken    stack.Secret `json:"refresh_token,omitzero"`
	Scope           string       `json:"scope,omitempty"`
}

// oauthToken is the token endpoint, under both of its paths. (contract: endpoints 1.10 and 4.4)
func (s *Server) oauthToken(ctx context.Context, _ *caller, in oauthTokenIn) (*oauthTokens, error) {
	form, refusal := formBody(in.ContentType, in.Raw)
	if refusal != nil {
		return nil, refusal
	}
	grant := form["grant_type"]
	if grant == grantExchange {
		return s.exchangePassport(ctx, in.Authorization, form)
	}
	redeem, ok := map[string]func(*Server, *oauthClient, map[string]string) (*oauthTokens, error){grantCode: (*Server).redeemCode,
		grantRefresh: (*Server).refreshSession, grantDevice: (*Server).redeemDevice}[grant]
	if !ok {
		code := "unsupported_grant_type"
		if grant == "" {
			code = "invalid_request"
		}
		return nil, badForm(code, "grant_type", grant, strings.Join(grantTypes, ", "))
	}
	client, err := s.clientOf(in.Authorization.Reveal(), form)
	if err != nil {
		return nil, err
	}
	if err = client.mayUse(grant); err != nil {
		return nil, err
	}
	return redeem(s, client, form)
}

func badForm(code, field, sent, allowed string) *apiError {
	err := invalid(field, or(sent, "missing"), allowed)
	err.code = code
	return err
}

// clientOf finds the client that a request is from, and has it prove that where it has a secret.
func (s *Server) clientOf(authorization string, form map[string]string) (*oauthClient, error) {
	id, secret, method := form["client_id"], form["client_secret"], "none"
	if secret != "" {
		method = "client_secret_post"
	}
	if scheme, encoded, ok := strings.Cut(authorization, " "); ok && strings.EqualFold(scheme, "Basic") {
		if secret != "" {
			return nil, invalidClient("the client's secret is sent in two ways", "one way")
		}
		var good bool
		if id, secret, good = basicOf(encoded); !good {
			return nil, invalidClient("the Basic credentials are not well-formed", "client_id and client_secret, each percent-encoded")
		}
		if sent := form["client_id"]; sent != "" && sent != id {
			return nil, invalidClient("two clients are named", "one client_id")
		}
		if method = "client_secret_basic"; secret == "" {
			method = "none"
		}
	}
	client, ok := s.oauth.client(id)
	switch {
	case !ok:
		return nil, invalidClient("the client is not known", "the client_id of a client that was registered at /oauth/register")
	case client.authMethod != method:
		return nil, invalidClient("the client does not authenticate by "+method, client.authMethod)
	case method != "none" && !client.isSecret(secret):
		return nil, invalidClient("the client's secret is wrong", "the secret from its registration")
	}
	return client, nil
}

func basicOf(encoded string) (id, secret string, ok bool) {
	plain, err := base64.StdEncoding.DecodeString(encoded)
	id, secret, ok = strings.Cut(string(plain), ":")
	id, idErr := url.QueryUnescape(id)
	secret, secretErr := url.QueryUnescape(secret)
	return id, secret, ok && err == nil && idErr == nil && secretErr == nil
}

func invalidClient(message, allowed string) *apiError {
	err := refuse(http.StatusUnauthorized, "invalid_client", message, map[string]any{"check": "client", "allowed": allowed})
	err.header = http.Header{"Www-Authenticate": {`Basic realm="stack"`}}
	return err
}

func invalidGrant(message, allowed string) *apiError {
	return refuse(http.StatusBadRequest, "invalid_grant", message, map[string]any{"check": "grant", "allowed": allowed})
}

// redeemCode opens a session with an authorization code. A code is good for one try; a second ends what came of the first.
func (s *Server) redeemCode(client *oauthClient, form map[string]string) (*oauthTokens, error) {
	for _, field := range []string{"code", "redirect_uri", "code_verifier"} {
		if form[field] == "" {
			return nil, badForm("invalid_request", field, "", "present")
		}
	}
	now := s.clock.now()
	session, reused, err := s.oauth.openSession(client, form, now)
	if reused != nil {
		s.recordEnd(reused, "AUTHORIZATION_CODE_REUSED")
	}
	if err != nil {
		return nil, err
	}
	return s.mint(session, session.scopes, now, "oauth.sign_in")
}

// openSession checks a code and makes a session of it. Ended is the session that a reuse of the code has ended.
func (o *oauthState) openSession(
	client *oauthClient, form map[string]string, now time.Time,
) (opened oauthSession, ended *oauthSession, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	const allowed = "a code of this client that is less than 5 minutes old, once"
	code, ok := o.codes.get(codeID(form["code"]))
	switch {
	case !ok || code.clientID != client.id || !now.Before(code.expiresAt):
		return opened, nil, invalidGrant("the code is not good: unknown, expired or another client's", allowed)
	case code.used:
		if ended, ok = o.sessions.get(code.session); ok {
			o.sessions.delete(code.session)
		}
		return opened, ended, invalidGrant("the code was used before; what came of it is revoked", allowed)
	}
	code.used = true
	if form["redirect_uri"] != code.redirectURI {
		return opened, nil, invalidGrant("redirect_uri is not that of the authorize request", "the same URI, to the letter")
	}
	if !fitsChallenge(form["code_verifier"], code.challenge) {
		return opened, nil, invalidGrant("code_verifier does not fit the code_challenge", "the verifier of 43 to 128 characters whose S256 was sent")
	}
	s := o.addSession(client.id, code.key, code.scopes, now)
	code.session = s.id
	return *s, nil, nil
}

// addSession keeps a new session. Where there are too many, the oldest goes.
func (o *oauthState) addSession(clientID string, key keyHash, scopes []string, now time.Time) *oauthSession {
	o.prune(now)
	if o.sessions.len() >= maxOAuthSessions {
		o.sessions.delete(o.sessions.order[0])
	}
	s := &oauthSession{id: newID("ost_"), clientID: clientID, key: key, scopes: scopes, expiresAt: now.Add(refreshTokenLifetime)}
	o.sessions.put(s.id, s)
	return s
}

// fitsChallenge is PKCE, by S256.
func fitsChallenge(verifier, challenge string) bool {
	sum := sha256.Sum256([]byte(verifier))
	made := base64.RawURLEncoding.EncodeToString(sum[:])
	return isVerifier(verifier) && subtle.ConstantTimeCompare([]byte(made), []byte(challenge)) == 1
}

func isVerifier(text string) bool {
	return len(text) >= 43 && len(text) <= 128 && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~", r)
	})
}

// refreshSession renews a session. The refresh token is used up by it; one that was used before is known to two, so the
// session ends.
func (s *Server) refreshSession(client *oauthClient, form map[string]string) (*oauthTokens, error) {
	if form["refresh_token"] == "" {
		return nil, badForm("invalid_request", "refresh_token", "", "present")
	}
	now := s.clock.now()
	session, scopes, reused, err := s.oauth.renew(client, form, now)
	if reused != nil {
		s.recordEnd(reused, "REFRESH_TOKEN_REUSED")
	}
	if err != nil {
		return nil, err
	}
	return s.mint(session, scopes, now, "oauth.refresh")
}

func (o *oauthState) renew(
	client *oauthClient, form map[string]string, now time.Time,
) (renewed oauthSession, scopes []string, ended *oauthSession, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	const allowed = "the newest refresh token of this client's session, at most 30 days old"
	id, uses, ok := o.readRefreshToken(form["refresh_token"])
	if !ok {
		return renewed, nil, nil, invalidGrant("the refresh token is not one of this server", allowed)
	}
	session, ok := o.sessions.get(id)
	if !ok || session.clientID != client.id || !now.Before(session.expiresAt) {
		return renewed, nil, nil, invalidGrant("the session has ended, or is another client's", allowed)
	}
	if uses != session.uses {
		o.sessions.delete(id)
		return renewed, nil, session, invalidGrant("the refresh token was used before, so the session is revoked: sign in again", allowed)
	}
	scopes, refusal := readScopes(form["scope"], session.scopes)
	if refusal != nil {
		return renewed, nil, nil, refusal
	}
	session.uses++
	session.expiresAt = now.Add(refreshTokenLifetime)
	return *session, scopes, nil, nil
}

// recordEnd notes the end of a session whose secret more than one has. The log is the account's, if it is still there.
func (s *Server) recordEnd(session *oauthSession, code string) {
	if c, ok := s.signedIn(session.key); ok {
		c.op.recordAlone(stack.AuditEntry{Action: "oauth.session_revoke", TraceID: session.id, Outcome: stack.OutcomeFailure, ErrorCode: code})
	}
}

// mint makes the tokens of a session that was just opened or renewed.
func (s *Server) mint(session oauthSession, scopes []string, now time.Time, action string) (*oauthTokens, error) {
	c, ok := s.signedIn(session.key)
	if !ok {
		return nil, invalidGrant("the key of who signed in is no longer good", "to sign in again")
	}
	subject := c.op.id
	if c.member != nil {
		subject = c.member.ID
	}
	scopes = c.mayGrant(scopes)
	access, err := s.signer.SignAccess(token.Access{ID: newID("oat_"), Subject: subject, ClientID: session.clientID, SessionID: session.id,
		Scopes: scopes, IssuedAt: now, ExpiresAt: now.Add(accessTokenLifetime)})
	if err != nil {
		return nil, err
	}
	c.op.recordAlone(stack.AuditEntry{Action: action, TraceID: session.id})
	return &oauthTokens{AccessToken: stack.NewSecret(access), TokenType: "Bearer", ExpiresIn: int(accessTokenLifetime / time.Second),
		RefreshToken: stack.NewSecret(s.oauth.refreshToken(session)), Scope: strings.Join(scopes, " ")}, nil
}

// refreshToken is the token of a session's present use. It needs no record: its code can be made only by this server.
func (o *oauthState) refreshToken(session oauthSession) string {
	body := session.id + "." + strconv.Itoa(session.uses)
	return refreshTokenPrefix + body + "." + o.mac(body)
}

func (o *oauthState) mac(body string) string { return macOf(o.macKey[:], body) }

func macOf(key []byte, body string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(body))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (o *oauthState) readRefreshToken(text string) (session string, uses int, ok bool) {
	text, prefixed := strings.CutPrefix(text, refreshTokenPrefix)
	end := strings.LastIndexByte(text, '.')
	if !prefixed || end < 0 {
		return "", 0, false
	}
	if !hmac.Equal([]byte(text[end+1:]), []byte(o.mac(text[:end]))) {
		return "", 0, false
	}
	session, number, _ := strings.Cut(text[:end], ".")
	uses, err := strconv.Atoi(number)
	return session, uses, err == nil
}

// exchangePassport is token exchange (RFC 8693), which here refreshes a passport: who may do that shows the bearer.
// (contract: server-api 2.3)
func (s *Server) exchangePassport(ctx context.Context, authorization stack.Secret, form map[string]string) (*oauthTokens, error) {
	const field = "subject_token_type"
	switch {
	case form["subject_token"] == "":
		return nil, badForm("invalid_request", "subject_token", "", "a passport")
	case form[field] != tokenTypeJWT:
		return nil, badForm("invalid_request", field, form[field], tokenTypeJWT)
	case form["requested_token_type"] != "" && form["requested_token_type"] != tokenTypeJWT:
		return nil, badForm("invalid_request", "requested_token_type", form["requested_token_type"], tokenTypeJWT)
	}
	i := slices.IndexFunc(s.routes, func(r route) bool { return r.pattern == "/v1/passports/refresh" })
	c, err := s.admitBearer(authorization.Reveal(), &s.routes[i])
	if err != nil {
		return nil, err
	}
	params := refreshPassportIn{Body: stack.PassportRefreshParams{Token: stack.NewSecret(form["subject_token"])}}
	c.op.mu.Lock()
	defer c.op.mu.Unlock()
	now := s.clock.now()
	c.op.sweep(now)
	if c.grant != nil && !s.grantMadeToken(c, form["subject_token"]) {
		return nil, invalidGrant("the passport is not on record", "a passport that was issued with the grant")
	}
	passport, err := s.refreshPassport(ctx, c, params)
	if err != nil {
		return nil, asInvalidGrant(err)
	}
	return &oauthTokens{AccessToken: passport.Token, IssuedTokenType: tokenTypeJWT, TokenType: "N_A",
		ExpiresIn: int(passport.ExpiresAt.Sub(now) / time.Second)}, nil
}

// asInvalidGrant says in the words of RFC 6749 that a passport cannot be refreshed.
func asInvalidGrant(err error) error {
	var refusal *apiError
	if !errors.As(err, &refusal) {
		return err
	}
	again := *refusal
	again.status, again.code = http.StatusBadRequest, "invalid_grant"
	again.message = fmt.Sprintf("%s (%s)", refusal.message, refusal.code)
	return &again
}
