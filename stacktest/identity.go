package stacktest

// VerifyIdentity stands in for the person of an identity verification: it does what the button on the page of its
// AuthorizationURL does. The verification can be completed then. It fails for a session that is unknown or has expired.
func (s *Server) VerifyIdentity(sessionRef string) error { return s.mock.VerifyIdentity(sessionRef) }
