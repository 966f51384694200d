package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

var testTime = time.Date(2026, 3, 1, 12, 0, 0, 999_999_999, time.UTC)

func testClaims() stack.PassportClaims {
	return stack.PassportClaims{
		JTI: "pp_1", Subject: "agt_1", IssuedAt: testTime, ExpiresAt: testTime.Add(15 * time.Minute),
		STK: stack.PassportSTK{
			OperatorID: "op_1", AgentID: "agt_1", AgentName: "Triage <bot> & co.", SessionID: "ses_1",
			Services: []stack.PassportService{{
				ServiceName: "slack", ConnectionID: "scon_1", Scopes: []string{"chat:write"},
				Constraints:   []stack.Constraint{{Path: "method", Op: stack.OpIn, Value: []any{"GET", "POST"}}},
				AllowDataFrom: []string{},
			}},
			IdentityClaims: []map[string]any{}, DelegationDepth: 1, MissionIDs: []string{"ms_1"},
			Accountability: stack.Enforced, IntentSummary: "Triage tickets", IntentServices: []string{"slack"},
			CheckpointInterval: 5 * time.Minute, ParentPassportID: "pp_0",
		},
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	s := NewRandomSigner()
	minted, err := s.Sign(testClaims())
	require.NoError(t, err)
	got, err := s.Verify(minted)
	require.NoError(t, err)

	want := testClaims()
	want.Issuer, want.Audience = Issuer, Audience
	want.IssuedAt, want.ExpiresAt = want.IssuedAt.Truncate(time.Second), want.ExpiresAt.Truncate(time.Second)
	assert.Equal(t, want, got)
}

// TestWire looks at the token as another implementation does.
func TestWire(t *testing.T) {
	t.Parallel()
	s := NewRandomSigner()
	minted, err := s.Sign(testClaims())
	require.NoError(t, err)
	parts := strings.Split(minted, ".")
	require.Len(t, parts, 3)

	var header, claims map[string]any
	require.NoError(t, json.Unmarshal(unbase64(t, parts[0]), &header))
	require.NoError(t, json.Unmarshal(unbase64(t, parts[1]), &claims))
	assert.Equal(t, map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": s.jwk.KeyID}, header)
	assert.Equal(t, "getstack.run", claims["iss"])
	assert.Equal(t, "stack:passport", claims["aud"])
	// Neither time is rounded up past the record's.
	assert.InDelta(t, testTime.Unix(), claims["iat"], 0)
	assert.InDelta(t, testTime.Unix()+900, claims["exp"], 0)
	assert.Equal(t, "agt_1", claims["stk"].(map[string]any)["agent_id"])
	assert.InDelta(t, 300, claims["stk"].(map[string]any)["checkpoint_interval"], 0)
	assert.Equal(t, "Triage <bot> & co.", claims["stk"].(map[string]any)["agent_name"])

	jwks, err := json.Marshal(s.JWKS())
	require.NoError(t, err)
	var set struct{ Keys []map[string]string }
	require.NoError(t, json.Unmarshal(jwks, &set))
	require.Len(t, set.Keys, 1)
	public := unbase64(t, set.Keys[0]["x"])
	assert.True(t, ed25519.Verify(public, []byte(parts[0]+"."+parts[1]), unbase64(t, parts[2])))
}

func TestListsAreNeverNull(t *testing.T) {
	t.Parallel()
	c := testClaims()
	c.STK.Services, c.STK.IdentityClaims = nil, nil
	minted, err := NewRandomSigner().Sign(c)
	require.NoError(t, err)
	payload := string(unbase64(t, strings.Split(minted, ".")[1]))
	assert.Contains(t, payload, `"services":[]`)
	assert.Contains(t, payload, `"identity_claims":[]`)
}

// TestJWKS uses the key of RFC 8037, appendix A.
func TestJWKS(t *testing.T) {
	t.Parallel()
	var seed [ed25519.SeedSize]byte
	copy(seed[:], unbase64(t, "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
	got, err := json.Marshal(NewSigner(seed).JWKS())
	require.NoError(t, err)
	assert.JSONEq(t, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
		"kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","use":"sig","alg":"EdDSA"}]}`, string(got))
	assert.NotEqual(t, NewRandomSigner().JWKS(), NewRandomSigner().JWKS())
}

func TestExpiredPasses(t *testing.T) {
	t.Parallel()
	s := NewRandomSigner()
	c := testClaims()
	c.IssuedAt, c.ExpiresAt = time.Unix(1000, 0), time.Unix(2000, 0)
	minted, err := s.Sign(c)
	require.NoError(t, err)
	_, err = s.Verify(minted)
	require.NoError(t, err, "the record decides")
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	s := NewRandomSigner()
	tests := []struct {
		name   string
		change func(*stack.PassportClaims)
		want   string
	}{
		{"no jti", func(c *stack.PassportClaims) { c.JTI = "" }, "jti must not be empty"},
		{"no sub", func(c *stack.PassportClaims) { c.Subject = "" }, "sub must not be empty"},
		{"no iat", func(c *stack.PassportClaims) { c.IssuedAt = time.Time{} }, "iat must be set"},
		{"no exp", func(c *stack.PassportClaims) { c.ExpiresAt = time.Time{} }, "exp must be set"},
		{"no operator", func(c *stack.PassportClaims) { c.STK.OperatorID = "" }, "stk.operator_id must not be empty"},
		{"another agent", func(c *stack.PassportClaims) { c.STK.AgentID = "agt_2" }, "stk.agent_id must equal sub"},
		{"a fraction of a second", func(c *stack.PassportClaims) { c.STK.CheckpointInterval = time.Millisecond },
			"whole number of seconds"},
		{"too long", func(c *stack.PassportClaims) { c.STK.AgentName = strings.Repeat("x", MaxSize) },
			"at most 16384 are allowed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := testClaims()
			test.change(&c)
			minted, err := s.Sign(c)
			require.ErrorContains(t, err, test.want)
			assert.Empty(t, minted)
		})
	}
}

const goodClaims = `{"jti":"pp_1","sub":"agt_1","iss":"getstack.run","aud":"stack:passport","iat":1000,"exp":2000,` +
	`"stk":{"operator_id":"op_1","agent_id":"agt_1"}}`

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	s := NewRandomSigner()
	kid := s.jwk.KeyID
	header := fmt.Sprintf(`{"alg":"EdDSA","typ":"JWT","kid":%q}`, kid)
	good := forge(t, s, header, goodClaims)
	_, err := s.Verify(good)
	require.NoError(t, err, "the cases below fail for what they change only")
	parts := strings.Split(good, ".")
	claims := func(old, replacement string) string {
		changed := strings.Replace(goodClaims, old, replacement, 1)
		require.NotEqual(t, goodClaims, changed)
		return forge(t, s, header, changed)
	}
	headed := func(format string, args ...any) string { return forge(t, s, fmt.Sprintf(format, args...), goodClaims) }
	hmac := func() string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"jti": "pp_1", "sub": "agt_1", "iss": Issuer, "aud": Audience, "iat": 1000, "exp": 2000,
			"stk": map[string]any{"operator_id": "op_1", "agent_id": "agt_1"},
		})
		token.Header["kid"] = kid
		signed, err := token.SignedString([]byte(s.key().Public().(ed25519.PublicKey)))
		require.NoError(t, err)
		return signed
	}

	tests := []struct {
		name, token string
		want        error
	}{
		{"nothing", "", ErrMalformed},
		{"one segment", "abc", ErrMalformed},
		{"two segments", parts[0] + "." + parts[1], ErrMalformed},
		{"four segments", good + ".", ErrMalformed},
		{"a bearer prefix", "Bearer " + good, ErrMalformed},
		{"a trailing newline", good + "\n", ErrMalformed},
		{"a newline inside", good[:10] + "\r\n" + good[10:], ErrMalformed},
		{"a trailing space", good + " ", ErrMalformed},
		{"padding", good + "=", ErrMalformed},
		{"stray bits in the signature's last character", strayBits(good), ErrMalformed},
		{"too long", good + strings.Repeat("A", MaxSize), ErrMalformed},
		{"header that is no JSON", headed(`x`), ErrMalformed},
		{"header null", headed(`null`), ErrInvalidSignature},
		{"crit", headed(`{"alg":"EdDSA","typ":"JWT","kid":%q,"crit":["b64"],"b64":true}`, kid), ErrMalformed},
		{"another typ", headed(`{"alg":"EdDSA","typ":"at+jwt","kid":%q}`, kid), ErrMalformed},
		{"no typ", headed(`{"alg":"EdDSA","kid":%q}`, kid), ErrMalformed},

		{"claims null", forge(t, s, header, `null`), ErrMalformed},
		{"claims an array", forge(t, s, header, `[]`), ErrMalformed},
		{"claims with trailing data", forge(t, s, header, goodClaims+"{}"), ErrMalformed},
		{"no claims", forge(t, s, header, `{}`), ErrMalformed},
		{"no jti", claims(`"jti":"pp_1",`, ``), ErrMalformed},
		{"jti a number", claims(`"pp_1"`, `1`), ErrMalformed},
		{"no sub", claims(`"sub":"agt_1",`, ``), ErrMalformed},
		{"no iss", claims(`"iss":"getstack.run",`, ``), ErrMalformed},
		{"no aud", claims(`"aud":"stack:passport",`, ``), ErrMalformed},
		{"no iat", claims(`"iat":1000,`, ``), ErrMalformed},
		{"iat null", claims(`1000`, `null`), ErrMalformed},
		{"no exp", claims(`,"exp":2000`, ``), ErrMalformed},
		{"exp quoted", claims(`2000`, `"2000"`), ErrMalformed},
		{"exp a fraction", claims(`2000`, `2000.5`), ErrMalformed},
		{"exp beyond 64 bits", claims(`2000`, `1e30`), ErrMalformed},
		{"exp negative", claims(`2000`, `-1`), ErrMalformed},
		{"no stk", claims(`,"stk":{"operator_id":"op_1","agent_id":"agt_1"}`, ``), ErrMalformed},
		{"stk a string", claims(`{"operator_id":"op_1","agent_id":"agt_1"}`, `"op_1"`), ErrMalformed},
		{"no operator", claims(`"operator_id":"op_1",`, ``), ErrMalformed},
		{"another agent", claims(`"agent_id":"agt_1"`, `"agent_id":"agt_2"`), ErrMalformed},

		{"another issuer", claims(`getstack.run`, `https://api.getstack.run`), ErrInvalidSignature},
		{"another audience", claims(`stack:passport`, `stack:agent`), ErrInvalidSignature},
		{"no kid", headed(`{"alg":"EdDSA","typ":"JWT"}`), ErrInvalidSignature},
		{"unknown kid", headed(`{"alg":"EdDSA","typ":"JWT","kid":"k1"}`), ErrInvalidSignature},
		{"kid no string", headed(`{"alg":"EdDSA","typ":"JWT","kid":["k1"]}`), ErrInvalidSignature},
		{"no alg", headed(`{"typ":"JWT","kid":%q}`, kid), ErrInvalidSignature},
		{"alg none", headed(`{"alg":"none","typ":"JWT","kid":%q}`, kid), ErrInvalidSignature},
		{"alg Ed25519", headed(`{"alg":"Ed25519","typ":"JWT","kid":%q}`, kid), ErrInvalidSignature},
		{"HMAC with the public key", hmac(), ErrInvalidSignature},
		{"no signature", parts[0] + "." + parts[1] + ".", ErrInvalidSignature},
		{"a signature cut short", parts[0] + "." + parts[1] + "." + parts[2][:80], ErrInvalidSignature},
		{"another key", forge(t, NewRandomSigner(), header, goodClaims), ErrInvalidSignature},
		{"other claims under the signature", parts[0] + "." +
			strings.Split(claims("pp_1", "pp_2"), ".")[1] + "." + parts[2], ErrInvalidSignature},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := s.Verify(test.token)
			require.ErrorIs(t, err, test.want)
			assert.True(t, isOne(err))
			assert.Zero(t, got, "no claims of a token that was refused")
			for _, part := range strings.Split(test.token, ".") {
				if len(part) > 10 {
					assert.NotContains(t, err.Error(), part)
				}
			}
		})
	}
}

func TestPrintingShowsNoKey(t *testing.T) {
	t.Parallel()
	s := NewRandomSigner()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, value := range []any{s, *s, struct{ s Signer }{*s}} {
			printed := fmt.Sprintf(verb, value)
			for _, form := range []string{"%v", "%s", "%x", "%d", "%#v"} {
				assert.NotContains(t, printed, fmt.Sprintf(form, s.key()))
			}
		}
	}
}

// forge signs any header and claims.
func forge(t testing.TB, s *Signer, header, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key(), []byte(text)))
}

// strayBits sets a bit of the last character that stands for no byte.
func strayBits(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	return token[:last] + string(alphabet[strings.IndexByte(alphabet, token[last])^1])
}

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	return b
}

// FuzzVerify feeds Verify with any text, and with any header and claims under a good signature: it must not panic, must
// fail with one of its two errors, and must pass nothing without the claims that it promises.
func FuzzVerify(f *testing.F) {
	s := NewRandomSigner()
	header := fmt.Sprintf(`{"alg":"EdDSA","typ":"JWT","kid":%q}`, s.jwk.KeyID)
	f.Add("", header, goodClaims)
	f.Add(forge(f, s, header, goodClaims), `{"alg":"none"}`, `{"exp":1e400}`)
	f.Add("a.b.c", `null`, `null`)
	f.Fuzz(func(t *testing.T, token, header, claims string) {
		for _, text := range []string{token, forge(t, s, header, claims)} {
			c, err := s.Verify(text)
			if err != nil {
				require.True(t, isOne(err), "%v", err)
				continue
			}
			require.NotEmpty(t, c.JTI)
			require.NotEmpty(t, c.Subject)
			require.Equal(t, c.Subject, c.STK.AgentID)
			require.Equal(t, Issuer, c.Issuer)
			require.Equal(t, Audience, c.Audience)
			require.Positive(t, c.IssuedAt.Unix())
			require.Positive(t, c.ExpiresAt.Unix())
			minted, err := s.Sign(c)
			if err == nil { // else it grew too long, or has a fraction of a second
				again, err := s.Verify(minted)
				require.NoError(t, err)
				require.Equal(t, c.JTI, again.JTI)
			}
		}
	})
}

// isOne reports whether err is exactly one of the two that Verify promises.
func isOne(err error) bool {
	return errors.Is(err, ErrMalformed) != errors.Is(err, ErrInvalidSignature)
}

func BenchmarkSign(b *testing.B) {
	s, c := NewRandomSigner(), testClaims()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	s := NewRandomSigner()
	minted, err := s.Sign(testClaims())
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(minted); err != nil {
			b.Fatal(err)
		}
	}
}
