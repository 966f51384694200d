package mockserver

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"strings"
)

// caller is who makes a request.
type caller struct {
	op         *operator // nil on public routes
	requestID  string
	governance string // X-Governance-Approval
}

type keyHash [sha256.Size]byte

const apiKeyPrefix = "sk_live_"

// newAPIKey makes an operator's key. Its first characters name the operator, so that a wrong key can be counted
// against the one it was meant for.
func newAPIKey(operatorID string) string {
	return apiKeyPrefix + keyHint(operatorID) + strings.ToLower(rand.Text())
}

const hintLength = 8

func keyHint(operatorID string) string { return strings.TrimPrefix(operatorID, "op_")[:hintLength] }

// authenticate finds the caller of a request.
func (s *Server) authenticate(req *http.Request, r *route) (*caller, error) {
	if r.public {
		return &caller{}, nil
	}
	if r.control {
		return &caller{}, checkControl(req)
	}
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, unauthorized("UNAUTHORIZED", "no bearer token", "Authorization: Bearer sk_live_…")
	}
	if !strings.HasPrefix(token, apiKeyPrefix) {
		return nil, unauthorized("UNAUTHORIZED", "the bearer is not a kind that this server knows", "an API key (sk_live_…)")
	}
	s.mu.RLock()
	op := s.keys[sha256.Sum256([]byte(token))]
	suspect := s.hints[strings.TrimPrefix(token, apiKeyPrefix)[:min(hintLength, len(token)-len(apiKeyPrefix))]]
	s.mu.RUnlock()
	if op == nil {
		if suspect != nil {
			suspect.mu.Lock()
			suspect.authFailed(s.clock.now(), "", "INVALID_API_KEY")
			suspect.mu.Unlock()
		}
		return nil, unauthorized("INVALID_API_KEY", "the key belongs to nobody", "a live API key")
	}
	if limit, wait := op.rateLimited(s.clock.now()); wait > 0 {
		err := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "too many requests in this minute",
			map[string]any{"check": "rate_limit", "allowed": limit})
		err.retryAfter = wait
		return nil, err
	}
	return &caller{op: op, governance: req.Header.Get("X-Governance-Approval")}, nil
}

func unauthorized(code, message, allowed string) *apiError {
	return refuse(http.StatusUnauthorized, code, message, map[string]any{"check": "authentication", "allowed": allowed})
}
