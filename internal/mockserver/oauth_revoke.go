package mockserver

import (
	"context"

	"github.com/getstack-go/stack"
)

const revokePath = "/oauth/revoke"

// revokeToken is token revocation (RFC 7009): it ends the session of a refresh or an access token. One that is none, or another
// client's, is as good as revoked.
func (s *Server) revokeToken(_ context.Context, _ *caller, in oauthTokenIn) (*none, error) {
	form, refusal := formBody(in.ContentType, in.Raw)
	if refusal != nil {
		return nil, refusal
	}
	client, err := s.clientOf(in.Authorization.Reveal(), form)
	if err != nil {
		return nil, err
	}
	if form["token"] == "" {
		return nil, badForm("invalid_request", "token", "", "a refresh or an access token")
	}
	if session, ok := s.oauth.endSession(client.id, s.sessionOf(form["token"])); ok {
		if c, there := s.signedIn(session.key); there {
			c.op.recordAlone(stack.AuditEntry{Action: "oauth.session_revoke", TraceID: session.id})
		}
	}
	return &none{}, nil
}

// sessionOf is the id of the session that a token is of; empty when it is none of this server.
func (s *Server) sessionOf(token string) string {
	if isAccessToken(token) {
		access, err := s.signer.VerifyAccess(token, s.clock.now())
		if err != nil {
			return ""
		}
		return access.SessionID
	}
	s.oauth.mu.Lock()
	defer s.oauth.mu.Unlock()
	id, _, _ := s.oauth.readRefreshToken(token)
	return id
}

func (o *oauthState) endSession(clientID, id string) (*oauthSession, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	session, ok := o.sessions.get(id)
	if !ok || session.clientID != clientID {
		return nil, false
	}
	o.sessions.delete(id)
	return session, true
}
