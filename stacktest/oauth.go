package stacktest

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
