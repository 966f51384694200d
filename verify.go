package stack

import (
	"context"
	"encoding/json"
)

// SigningKeys fetches the keys with which the deployment signs passports and claims, for [VerifyClaim] and
// [VerifyEvidencePack]. Keep them: a key is good for what it has signed also when it is no longer served. It fails with a
// [*ProofError] for an answer that is no key set.
//
// GET /v1/.well-known/jwks.json
func (c *Client) SigningKeys(ctx context.Context) (PublicKeys, error) {
	set, err := send[json.RawMessage](ctx, c, get("/v1/.well-known/jwks.json"))
	if err != nil {
		return nil, err
	}
	return ParseJWKS(*set)
}
