package token

import "github.com/getstack-go/stack/internal/cose"

// SignClaim returns the COSE_Sign1 of a claim that the deployment makes, under the id that its key has in the JWKS. The same
// claim has the same bytes each time. It fails for a claim that is no map or cannot be encoded. (contract: endpoints 6)
func (s *Signer) SignClaim(claim any) ([]byte, error) { return cose.Sign(s.key(), s.jwk.KeyID, claim) }
