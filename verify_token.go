package stack

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack/internal/strictjson"
)

// What every passport says of itself. (contract: endpoints 5.1)
const (
	PassportIssuer   = "getstack.run"
	PassportAudience = "stack:passport"
)

// MaxPassportSize is the length in bytes that a passport token may have.
const MaxPassportSize = 16 << 10

const (
	maxTokenHeader = 1 << 10      // bytes in base64url: it is read before anybody has vouched for it
	lastSecond     = 253402300799 // of the year 9999
)

// Passports of others are read here and not by golang-jwt: that takes the last of two members of one name, reads claims before
// the signature is checked, and adds half as much again to the cost of the signature.

// compactToken is a token taken apart. Nothing of it is verified but its form.
type compactToken struct {
	kid       string
	signed    string // header and payload, as they were signed
	payload   string // in base64url
	signature [ed25519.SignatureSize]byte
}

// splitToken takes a token apart. The payload is not looked at: that is for who has verified the signature.
func splitToken(text string) (*compactToken, *VerificationError) {
	header, rest, two := strings.Cut(text, ".")
	payload, signature, three := strings.Cut(rest, ".")
	if !two || !three || len(header) > maxTokenHeader || strings.Contains(signature, ".") {
		return nil, unverified(RefusedMalformed, "", "it must be three parts joined by dots, the first of at most %d bytes", maxTokenHeader)
	}
	t := &compactToken{signed: text[:len(header)+1+len(payload)], payload: payload}
	plain, err := decodeBase64(header)
	if err != nil {
		return nil, unverified(RefusedMalformed, "", "its header is not base64url without padding")
	}
	if refusal := t.readHeader(string(plain)); refusal != nil {
		return nil, refusal
	}
	if err = t.readSignature(signature); err != nil {
		return nil, unverified(RefusedMalformed, "", "its signature %s", err)
	}
	return t, nil
}

func (t *compactToken) readHeader(text string) *VerificationError {
	var alg, typ string
	var critical, unencoded bool
	r := strictjson.New(text)
	r.Object(func(name string) {
		switch name {
		case "alg":
			alg = r.String()
		case "kid":
			t.kid = r.String()
		case "typ":
			typ = r.String()
		case "crit":
			critical = true
			r.Skip()
		case "b64":
			unencoded = true
			r.Skip()
		default:
			r.Skip()
		}
	})
	switch err := r.End(); {
	case err != nil:
		return unverified(RefusedMalformed, "", "its header cannot be read: %s", err)
	case critical || unencoded:
		return unverified(RefusedMalformed, "", "its header asks for an extension (crit, b64); none is supported")
	case alg != "EdDSA":
		return unverified(RefusedAlgorithm, "", "alg is %q; it must be EdDSA", oneLine(alg, maxNameText))
	case typ != "" && !strings.EqualFold(typ, "JWT"):
		return unverified(RefusedMalformed, "", "typ is %q; that of a passport is JWT", oneLine(typ, maxNameText))
	}
	return nil
}

func (t *compactToken) readSignature(text string) error {
	if len(text) != base64.RawURLEncoding.EncodedLen(len(t.signature)) {
		return errors.New("is not one of Ed25519: it has another length")
	}
	plain, err := decodeBase64(text)
	copy(t.signature[:], plain)
	if err != nil {
		return errors.New("is not base64url without padding")
	}
	return nil
}

// verifiedBy checks the signature.
func (t *compactToken) verifiedBy(key ed25519.PublicKey) bool {
	return ed25519.Verify(key, []byte(t.signed), t.signature[:])
}

// claims reads the payload. It fails where claims are missing that every passport has, or contradict each other, but it does
// not compare them with what the verifier expects. (contract: endpoints 5.2)
func (t *compactToken) claims(audience string) (*PassportClaims, *VerificationError) {
	plain, err := decodeBase64(t.payload)
	if err != nil {
		return nil, unverified(RefusedMalformed, "", "its claims are not base64url without padding")
	}
	c := &PassportClaims{}
	r := strictjson.New(string(plain))
	readClaims(r, c, audience)
	var wrong *strictjson.Error
	switch err = r.End(); {
	case errors.As(err, &wrong) && !wrong.Syntax && wrong.Path != "":
		return nil, unverified(RefusedClaim, wrong.Path, "%s", wrong.Reason)
	case err != nil:
		return nil, unverified(RefusedMalformed, "", "its claims cannot be read: %s", err)
	}
	for _, claim := range []struct {
		name    string
		missing bool
	}{
		{"exp", c.ExpiresAt.IsZero()}, {"iat", c.IssuedAt.IsZero()}, {"jti", c.JTI == ""}, {"sub", c.Subject == ""},
		{"iss", c.Issuer == ""}, {"aud", c.Audience == ""}, {"stk.operator_id", c.STK.OperatorID == ""},
		{"stk.agent_id", c.STK.AgentID == ""},
	} {
		if claim.missing {
			return nil, unverified(RefusedClaim, claim.name, "is missing or empty")
		}
	}
	if c.STK.AgentID != c.Subject {
		return nil, unverified(RefusedClaim, "stk.agent_id", "is not the agent of sub")
	}
	return c, nil
}

func readClaims(r *strictjson.Reader, c *PassportClaims, audience string) {
	r.Object(func(name string) {
		switch name {
		case "jti":
			c.JTI = r.String()
		case "sub":
			c.Subject = r.String()
		case "iss":
			c.Issuer = r.String()
		case "aud":
			c.Audience = readAudience(r, audience)
		case "iat":
			c.IssuedAt = readTime(r)
		case "exp":
			c.ExpiresAt = readTime(r)
		case "nbf":
			c.NotBefore = readTime(r)
		case "stk":
			r.Object(func(name string) { readSTK(r, &c.STK, name) })
		default:
			r.Skip()
		}
	})
}

// readTime reads whole seconds since 1970; null is the zero time, as if the claim were not there.
func readTime(r *strictjson.Reader) time.Time {
	if r.Next() == 'n' {
		r.Skip()
		return time.Time{}
	}
	n := r.Int()
	if n <= 0 || n > lastSecond {
		r.Fail("must be a whole number of seconds after 1970 and before the year 10000")
	}
	return time.Unix(n, 0).UTC()
}

// readAudience reads a string, or an array of them: of that the one that is looked for, else the first.
func readAudience(r *strictjson.Reader, wanted string) string {
	if r.Next() != '[' {
		return r.String()
	}
	list := r.Strings()
	if slices.Contains(list, wanted) {
		return wanted
	}
	return strings.Join(list[:min(1, len(list))], "")
}

func readSTK(r *strictjson.Reader, c *PassportSTK, name string) {
	switch name {
	case "operator_id":
		c.OperatorID = r.String()
	case "agent_id":
		c.AgentID = r.String()
	case "agent_name":
		c.AgentName = r.String()
	case "session_id":
		c.SessionID = r.String()
	case "services":
		if r.Array(func() { c.Services = append(c.Services, readService(r)) }) && c.Services == nil {
			c.Services = []PassportService{}
		}
	case "identity_claims":
		c.IdentityClaims = r.Objects()
	case "delegation_depth":
		c.DelegationDepth = int(readCount(r, maxDelegationDepth))
	case "mission_ids":
		c.MissionIDs = r.Strings()
	case "accountability":
		c.Accountability = Accountability(r.String())
	case "intent_summary":
		c.IntentSummary = r.String()
	case "intent_services":
		c.IntentServices = r.Strings()
	case "checkpoint_interval":
		c.CheckpointInterval = time.Duration(readCount(r, maxIntervalSeconds)) * time.Second
	case "parent_passport_id":
		c.ParentPassportID = r.String()
	case "authority_refs":
		r.Array(func() { c.AuthorityRefs = append(c.AuthorityRefs, readAuthorityRef(r)) })
	case "intent_refs":
		c.IntentRefs = r.Objects()
	case "platform_intent":
		c.PlatformIntent = r.String()
	default:
		r.Skip()
	}
}

// Bounds of what a verifier takes, far beyond what the API signs.
const (
	maxDelegationDepth = 1000
	maxIntervalSeconds = 366 * 24 * 3600
)

func readCount(r *strictjson.Reader, most int64) int64 {
	n := r.Int()
	if n < 0 || n > most {
		r.Fail("is out of bounds")
	}
	return n
}

func readService(r *strictjson.Reader) (s PassportService) {
	r.Object(func(name string) {
		switch name {
		case "service_name":
			s.ServiceName = r.String()
		case "connection_id":
			s.ConnectionID = r.String()
		case "scopes":
			s.Scopes = r.Strings()
		case "constraints":
			r.Array(func() { s.Constraints = append(s.Constraints, readConstraint(r)) })
		case "allow_data_from":
			s.AllowDataFrom = r.Strings()
		default:
			r.Skip()
		}
	})
	return s
}

func readConstraint(r *strictjson.Reader) (c Constraint) {
	r.Object(func(name string) {
		switch name {
		case "path":
			c.Path = r.String()
		case "op":
			c.Op = ConstraintOp(r.String())
		case "value":
			c.Value = r.Value()
		default:
			r.Skip()
		}
	})
	return c
}

func readAuthorityRef(r *strictjson.Reader) (a AuthorityRef) {
	r.Object(func(name string) {
		switch name {
		case "binding_id":
			a.BindingID = r.String()
		case "binding_version":
			a.BindingVersion = int(readCount(r, math.MaxInt32))
		case "binding_claim_id":
			a.BindingClaimID = r.String()
		case "binding_digest":
			a.BindingDigest = r.String()
		case "receiver_id":
			a.ReceiverID = r.String()
		case "receiver_profile_version_id":
			a.ReceiverProfileVersionID = r.String()
		case "expires_at":
			a.ExpiresAt = readTime(r)
		default:
			r.Skip()
		}
	})
	return a
}
