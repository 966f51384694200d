package stacktest

import "github.com/getstack-go/stack"

// ApproveSignIn stands in for a person whom an OAuth client has sent to the authorize page: it does what the Approve button
// does for someone who has signed in as the server's own operator. It returns where the page sends them then, which is the
// client's redirect URI with the code, or with the error of a request that the server refuses. It fails for an address that
// the page does not show: of an unknown client, or with a redirect URI that is not the client's.
func (s *Server) ApproveSignIn(authorizeURL string) (callback string, err error) {
	return s.mock.DecideSignIn(authorizeURL, true)
}

// DenySignIn is [Server.ApproveSignIn] for a person who does not want it.
func (s *Server) DenySignIn(authorizeURL string) (callback string, err error) {
	return s.mock.DecideSignIn(authorizeURL, false)
}

// SessionToken stands in for a person who signs in to the dashboard as the server's own operator: their session, for
// [stack.WithSessionToken], is good for 24 hours, and needs no governance approvals.
func (s *Server) SessionToken() stack.Secret {
	session, _ := s.mock.SessionToken()
	return stack.NewSecret(session)
}

// ApproveEnrollment stands in for a person whom an agent in a terminal has sent to the page where its key is approved, /sdk-bootstrap:
// it does what the Approve button does for someone who has signed in as the server's own operator. It returns where the page sends
// them then, which is the agent's callback with the ticket. It fails for an address that the page does not show, and for an agent
// that the operator does not have.
func (s *Server) ApproveEnrollment(approvalURL string) (callback string, err error) {
	return s.mock.DecideEnrollment(approvalURL, true)
}

// DenyEnrollment is [Server.ApproveEnrollment] for a person who does not want it.
func (s *Server) DenyEnrollment(approvalURL string) (callback string, err error) {
	return s.mock.DecideEnrollment(approvalURL, false)
}

// ApproveConnection stands in for a person who opens the AuthorizationURL of a connection at the provider and approves
// there. It returns the connection as it is then. It fails for a URL that is none, has expired, or was used before.
func (s *Server) ApproveConnection(authorizationURL string) (*stack.Connection, error) {
	return s.mock.DecideConnection(authorizationURL, true)
}

// DenyConnection is [Server.ApproveConnection] for a person who does not want it: what was pending is gone then.
func (s *Server) DenyConnection(authorizationURL string) error {
	_, err := s.mock.DecideConnection(authorizationURL, false)
	return err
}

// RevokeAtProvider stands in for a person who takes their consent back at the provider. The connection's token is good until
// it ends, an hour after it was given; the provider then refuses to renew it. It fails for a connection that is unknown, and
// for one with a token that no provider has given.
func (s *Server) RevokeAtProvider(connectionID string) error {
	return s.mock.RevokeAtProvider(connectionID)
}

// ApproveDevice stands in for a person who enters the code that a device or a command shows: it does what the Approve button of
// the page does for someone who has signed in as the server's own operator. It fails for a code with which nothing waits.
func (s *Server) ApproveDevice(userCode string) error { return s.mock.DecideDevice(userCode, true) }

// DenyDevice is [Server.ApproveDevice] for a person who does not want it.
func (s *Server) DenyDevice(userCode string) error { return s.mock.DecideDevice(userCode, false) }
