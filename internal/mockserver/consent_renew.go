package mockserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

const (
	renewalMargin   = time.Minute // before a token ends
	providerTimeout = 10 * time.Second
)

// providerConfig is this server as a client of a provider that has the given address.
func (s *Server) providerConfig(provider, base string) *oauth2.Config {
	at := base + providersPath + provider
	return &oauth2.Config{ClientID: providerClientID, ClientSecret: s.providers.clientSecret(),
		Endpoint: oauth2.Endpoint{AuthURL: at + "/authorize", TokenURL: at + "/token", AuthStyle: oauth2.AuthStyleInHeader}}
}

// atProvider calls a provider, which is in this process. The call ends with the operator, not with who waits for it.
func (s *Server) atProvider(
	op *operator, provider string, call func(context.Context, *oauth2.Config) (*oauth2.Token, error),
) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(op.ctx, providerTimeout)
	defer cancel()
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: forward.Local(s)})
	return call(ctx, s.providerConfig(provider, "http://provider.mock"))
}

// redeemAtProvider exchanges a code for tokens. The operator is locked before and after, not in between.
func (s *Server) redeemAtProvider(op *operator, provider string, asked *consent, code string) (*oauth2.Token, error) {
	op.mu.Unlock()
	defer op.mu.Lock()
	return s.atProvider(op, provider, func(ctx context.Context, config *oauth2.Config) (*oauth2.Token, error) {
		config.RedirectURL = asked.callback
		return config.Exchange(ctx, code, oauth2.VerifierOption(asked.verifier))
	})
}

// install puts the tokens of a provider into a connection. Scopes are those that it has granted.
func (s *Server) install(op *operator, conn *connection, as account, tokens *oauth2.Token, now time.Time) error {
	if scope, _ := tokens.Extra("scope").(string); scope != "" {
		as.scopes = strings.Fields(scope)
	}
	if err := s.complete(op, conn, secretContent{Token: tokens.AccessToken, Refresh: tokens.RefreshToken}, as, now); err != nil {
		return err
	}
	conn.endsAfter(tokens, now)
	return nil
}

// endsAfter notes when a token ends. One that does not say so lasts.
func (c *connection) endsAfter(tokens *oauth2.Token, now time.Time) {
	c.tokenEnds = time.Time{}
	if tokens.ExpiresIn > 0 {
		c.tokenEnds = now.Add(time.Duration(tokens.ExpiresIn) * time.Second)
	}
}

// stale reports whether the token has ended, or will soon.
func (c *connection) stale(now time.Time) bool {
	return !c.tokenEnds.IsZero() && !now.Add(renewalMargin).Before(c.tokenEnds)
}

// renewal is the one way to a provider for all who wait for a fresh token.
type renewal struct {
	done    chan struct{}
	problem string // why there is none; empty when there is. It may be read when done is closed
}

// freshenCall renews the credential of a call that was admitted with a stale one.
func (s *Server) freshenCall(ctx context.Context, call *proxyCall) (err error) {
	if !call.stale {
		return nil
	}
	call.op.mu.Lock()
	defer call.op.mu.Unlock()
	if err = s.freshen(ctx, call.op, call.connection); err != nil {
		return err
	}
	call.hosts = call.connection.AllowedHosts // it may have been connected anew
	call.credential, err = s.credentialOf(call.connection)
	return err
}

// freshen sees to it that a connection can be used, and renews its token where that is stale. A provider that does not answer
// is no harm while the old one is good. The operator is locked before and after, not while the provider is waited for.
func (s *Server) freshen(ctx context.Context, op *operator, conn *connection) error {
	if refusal := conn.mustBeUsable(); refusal != nil {
		return refusal
	}
	if !conn.stale(s.clock.now()) {
		return nil
	}
	err := s.renew(ctx, op, conn)
	if conn.Status == stack.ConnectionConnected && s.clock.now().Before(conn.tokenEnds) {
		return nil
	}
	return err
}

// renew has the provider give a new token, or waits with others for the one that is under way. Who no longer waits takes it
// from nobody. The operator is locked before and after, not in between.
func (s *Server) renew(ctx context.Context, op *operator, conn *connection) error {
	r := conn.renewal
	if r == nil {
		if op.ctx.Err() != nil {
			return conn.notRenewed("the server is closed")
		}
		secret, err := s.unseal(conn)
		if err != nil {
			return err
		}
		r = &renewal{done: make(chan struct{})}
		conn.renewal = r
		s.senders.Go(func() { s.askProvider(op, conn, r, secret.Refresh) })
	}
	op.mu.Unlock()
	hungUp := false
	select {
	case <-r.done:
	case <-ctx.Done():
		hungUp = true
	}
	op.mu.Lock()
	op.sweep(s.clock.now())
	if hungUp {
		return refuse(http.StatusBadGateway, "CLIENT_CLOSED", "the caller hung up", map[string]any{"check": "credential"})
	}
	if refusal := conn.mustBeUsable(); refusal != nil {
		return refusal
	}
	if r.problem != "" {
		return conn.notRenewed(r.problem)
	}
	return nil
}

func (c *connection) notRenewed(problem string) *apiError {
	return refuse(http.StatusBadGateway, "PROVIDER_UNAVAILABLE", c.Provider+" did not renew the connection's token: "+problem,
		map[string]any{"check": "credential", "connection_id": c.ID, "provider": c.Provider, "allowed": "to try again later"})
}

// askProvider renews a token, and marks the connection where the provider refuses for good.
func (s *Server) askProvider(op *operator, conn *connection, r *renewal, refresh string) {
	tokens, err := s.atProvider(op, conn.Provider, func(ctx context.Context, config *oauth2.Config) (*oauth2.Token, error) {
		return config.TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	})
	op.mu.Lock()
	defer op.mu.Unlock()
	defer close(r.done)
	if conn.renewal != r { // it was disconnected or connected anew meanwhile
		return
	}
	conn.renewal = nil
	now := s.clock.now()
	row := conn.row("service.refresh")
	if err == nil {
		if err = s.seal(conn, secretContent{Token: tokens.AccessToken, Refresh: tokens.RefreshToken}); err == nil {
			conn.endsAfter(tokens, now)
		}
	}
	var refused *oauth2.RetrieveError
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.ErrorCode == "invalid_grant":
		conn.Status, conn.Verified = stack.ConnectionReauthRequired, false
		row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomeFailure, "CONNECTION_REAUTH_REQUIRED", conn.mustBeUsable().message
		op.tell(now, stack.EventReauthRequired, row.ErrorMessage+".", map[string]any{"connection_id": conn.ID, "provider": conn.Provider,
			"name": conn.Name})
	default:
		r.problem = "it cannot be reached"
		if refused != nil {
			r.problem = fmt.Sprintf("it answered %d", refused.Response.StatusCode)
		}
		row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomeFailure, "PROVIDER_UNAVAILABLE", r.problem
	}
	op.record(now, row)
}

// mustBeUsable refuses a connection that is not connected, and says what would help.
func (c *connection) mustBeUsable() *apiError {
	switch c.Status {
	case stack.ConnectionConnected:
		return nil
	case stack.ConnectionPending:
		return c.pending()
	case stack.ConnectionReauthRequired:
		return refuse(http.StatusForbidden, "CONNECTION_REAUTH_REQUIRED",
			fmt.Sprintf("%s refuses to renew the token of connection %s; somebody must consent anew", c.Provider, c.ID),
			map[string]any{"check": "credential", "connection_id": c.ID, "provider": c.Provider,
				"allowed": "POST /v1/services/connect with this connection_id and no oauth_token, and the consent at its authorization_url"})
	}
	return connectionGone(c.ID)
}

func (c *connection) pending() *apiError {
	return refuse(http.StatusConflict, "CONNECTION_PENDING", "nobody has consented yet to connect "+c.Provider,
		map[string]any{"check": "credential", "connection_id": c.ID, "sent": c.Status, "allowed": stack.ConnectionConnected})
}

func connectionGone(id string) *apiError {
	return forbidden("the service's connection is gone", map[string]any{"check": "credential", "sent": id, "allowed": "a connected service"})
}
