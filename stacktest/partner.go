package stacktest

import "github.com/getstack-go/stack"

// ApproveGrant stands in for the owner of an account whom a partner asks for a grant: it does what the button on the page of its
// ConsentURL does. The grant's token works then. It fails for a grant that is unknown or does not wait for consent.
func (s *Server) ApproveGrant(grantID string) error { return s.mock.DecideGrant(grantID, true) }

// DenyGrant is [Server.ApproveGrant] for an owner who does not want it.
func (s *Server) DenyGrant(grantID string) error { return s.mock.DecideGrant(grantID, false) }

// RevokeGrant stands in for the owner of an account who takes a partner's grant back, with all that
// [stack.PartnerConnectService.RevokeConnection] does. It fails for a grant that is unknown.
func (s *Server) RevokeGrant(grantID string) error { return s.mock.RevokeGrant(grantID) }

// AccountKey makes an API key of the account with an e-mail address, such as one that a partner has made by its Connect: it
// stands in for its owner. It fails when there is no such account. That of the server's own operator is OperatorEmail.
func (s *Server) AccountKey(email string) (stack.Secret, error) { return s.mock.AccountKey(email) }
