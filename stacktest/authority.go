package stacktest

// ApproveAuthority stands in for the person who is asked by an enterprise OIDC request, a proof collection session or an
// approval request of a binding: it does what the button on the page of its URL does. It fails for what is unknown, expired,
// cancelled or was rejected.
func (s *Server) ApproveAuthority(id string) error { return s.mock.ApproveAuthority(id) }

// RejectAuthority is [Server.ApproveAuthority] for a person who says no.
func (s *Server) RejectAuthority(id string) error { return s.mock.RejectAuthority(id) }

// AnswerReceiverChallenge does what a receiver does who answers its challenge: it hands in the Ed25519 signature of the
// challenge's text by one of its keys. It fails for a challenge that is unknown, replaced or has expired, for a key that is not
// an active one of the receiver's, and for a signature that is not by that key.
func (s *Server) AnswerReceiverChallenge(challengeID, keyID string, signature []byte) error {
	return s.mock.AnswerReceiverChallenge(challengeID, keyID, signature)
}
