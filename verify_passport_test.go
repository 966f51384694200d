package stack_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

// forger signs any header and any claims, as the deployment would if it did.
type forger struct {
	kid string
	key ed25519.PrivateKey
}

func newForger(kid string) forger {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return forger{kid, key}
}

func (f forger) keys() stack.PublicKeys { return stack.PublicKeys{f.kid: publicOf(f.key)} }

// jwks is the key set that the deployment serves.
func (f forger) jwks() string {
	return `{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"` + f.kid + `","x":"` +
		base64.RawURLEncoding.EncodeToString(publicOf(f.key)) + `"}]}`
}

func (f forger) header() string { return fmt.Sprintf(`{"alg":"EdDSA","typ":"JWT","kid":%q}`, f.kid) }

func (f forger) sign(header, claims string) string {
	text := unpadded(header) + "." + unpadded(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(f.key, []byte(text)))
}

func unpadded(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// goodClaims are those of a passport of 15 minutes.
func goodClaims(now time.Time) string {
	return fmt.Sprintf(`{"jti":"pp_1","sub":"agt_1","iss":"getstack.run","aud":"stack:passport","iat":%d,"exp":%d,`+
		`"stk":{"operator_id":"op_1","agent_id":"agt_1","agent_name":"triage","session_id":"ses_1","services":[{"service_name":"slack",`+
		`"connection_id":"scon_1","scopes":["chat:write"],"constraints":[{"path":"method","op":"in","value":["POST"]}],`+
		`"allow_data_from":[]}],"identity_claims":[{"claim_id":"clm_1"}],"delegation_depth":0,"mission_ids":["ms_1"],`+
		`"accountability":"enforced","checkpoint_interval":300}}`, now.Unix(), now.Add(15*time.Minute).Unix())
}

// good is a token that passes.
func (f forger) good() string { return f.sign(f.header(), goodClaims(time.Now())) }

func (f forger) verifier(t testing.TB, change ...func(*stack.PassportVerifierConfig)) *stack.PassportVerifier {
	t.Helper()
	config := stack.PassportVerifierConfig{Keys: f.keys()}
	for _, c := range change {
		c(&config)
	}
	v, err := stack.NewPassportVerifier(config)
	require.NoError(t, err)
	return v
}

// requireRefusal checks for what reason a passport was refused, and that the error does not give the token away.
func requireRefusal(t *testing.T, err error, want stack.VerificationReason, token string) stack.VerificationError {
	t.Helper()
	var refusal *stack.VerificationError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, want, refusal.Reason, err.Error())
	assert.Contains(t, err.Error(), string(want))
	assert.NotContains(t, err.Error(), "\n")
	assert.Less(t, len(err.Error()), 1500)
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 10 {
			assert.NotContains(t, fmt.Sprintf("%+v", *refusal), part)
		}
	}
	return *refusal
}

// What the mock mints is verified, with fixed keys and with those that it serves, and says what the server says it does.
func TestVerifyPassport(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced)
	p := s.issue(t)
	child, err := s.delegate(t, p, func(d *stack.PassportDelegateParams) { d.Scopes = []stack.PassportScope{} })
	require.NoError(t, err)
	keys, err := s.client.SigningKeys(t.Context())
	require.NoError(t, err)
	for _, token := range []stack.Secret{p.Token, child.Token} {
		want := s.claims(t, token)
		for _, config := range []stack.PassportVerifierConfig{{Keys: keys}, s.verifies()} {
			got, refusal := stack.VerifyPassport(t.Context(), token, config)
			require.NoError(t, refusal)
			assert.Equal(t, want, got)
		}
	}
	_, err = stack.VerifyPassport(t.Context(), p.Token, stack.PassportVerifierConfig{JWKSURL: "http://example.com/"})
	requireParam(t, err, "JWKSURL")
}

// All that a passport may say is read as encoding/json reads it.
func TestVerifyReadsEveryClaim(t *testing.T) {
	t.Parallel()
	var want stack.PassportClaims
	filler{wire: true}.fill(reflect.ValueOf(&want).Elem())
	want.IssuedAt, want.NotBefore, want.ExpiresAt = time.Unix(1, 0).UTC(), time.Unix(2, 0).UTC(), time.Unix(253402300799, 0).UTC()
	want.Issuer, want.Audience, want.STK.AgentID = stack.PassportIssuer, stack.PassportAudience, want.Subject
	text, err := json.Marshal(want)
	require.NoError(t, err)
	f := newForger("k1")
	v := f.verifier(t)
	token := stack.NewSecret(f.sign(f.header(), string(text)))
	for range 2 { // the second time it is known
		got, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, want, *got)
		// Nobody changes what another one is given.
		got.STK.Services[0].Scopes[0], got.STK.MissionIDs[0], got.STK.AuthorityRefs[0].BindingID = "x", "x", "x"
		got.STK.Services[0].Constraints[0].Value, got.STK.IdentityClaims[0]["name"], got.STK.IntentRefs[0]["name"] = "x", "x", "x"
	}
}

func TestVerifyTakes(t *testing.T) {
	t.Parallel()
	f := newForger("k1")
	now := time.Now()
	claims := func(old, by string) string {
		changed := strings.Replace(goodClaims(now), old, by, 1)
		require.NotEqual(t, goodClaims(now), changed)
		return f.sign(f.header(), changed)
	}
	for name, token := range map[string]string{
		"as it is":              f.good(),
		"no typ":                f.sign(`{"alg":"EdDSA","kid":"k1"}`, goodClaims(now)),
		"typ in small letters":  f.sign(`{"kid":"k1","typ":"jwt","alg":"EdDSA","x":{"y":[1]}}`, goodClaims(now)),
		"an unknown claim":      claims(`"iss"`, `"future":{"a":[1,null]},"iss"`),
		"an unknown stk":        claims(`"agent_name"`, `"future":[{}],"agent_name"`),
		"names in another case": claims(`"sub"`, `"SUB":"agt_2","sub"`),
		"audiences":             claims(`"stack:passport"`, `["other","stack:passport"]`),
		"nbf":                   claims(`"iat"`, `"nbf":1,"iat"`),
		"nbf null":              claims(`"iat"`, `"nbf":null,"iat"`),
		"optional nulls":        claims(`["ms_1"]`, `null`),
		"space":                 claims(`{`, " {\n\t"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := f.verifier(t).Verify(t.Context(), stack.NewSecret(token))
			require.NoError(t, err)
			assert.Equal(t, "agt_1", got.Subject)
			assert.Equal(t, stack.PassportAudience, got.Audience)
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	f := newForger("k1")
	now := time.Now()
	good := f.good()
	_, err := f.verifier(t).Verify(t.Context(), stack.NewSecret(good))
	require.NoError(t, err, "the cases below fail for what they change only")
	header, payload, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(payload, ".")
	headed := func(text string) string { return f.sign(text, goodClaims(now)) }
	claims := func(old, by string) string {
		changed := strings.Replace(goodClaims(now), old, by, 1)
		require.NotEqual(t, goodClaims(now), changed, old)
		return f.sign(f.header(), changed)
	}
	at := func(claim string, d time.Duration) string {
		return f.sign(f.header(), strings.Replace(goodClaims(now), `"iss"`, fmt.Sprintf(`"%s":%d,"iss"`, claim, now.Add(d).Unix()), 1))
	}
	hs256 := func() string {
		text := unpadded(`{"alg":"HS256","typ":"JWT","kid":"k1"}`) + "." + payload
		mac := hmac.New(sha256.New, publicOf(f.key))
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	strayBit := func(text string) string { // of the last character, which stands for no byte
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return text[:len(text)-1] + string(alphabet[strings.IndexByte(alphabet, text[len(text)-1])^1])
	}
	last := good[:len(good)-1]
	tests := []struct {
		name, token string
		want        stack.VerificationReason
		claim       string
	}{
		{"nothing", "", stack.RefusedMissing, ""},
		{"one part", "abc", stack.RefusedMalformed, ""},
		{"two parts", header + "." + payload, stack.RefusedMalformed, ""},
		{"four parts", good + ".", stack.RefusedMalformed, ""},
		{"a bearer prefix", "Bearer " + good, stack.RefusedMalformed, ""},
		{"two values in one", good + ", " + good, stack.RefusedMalformed, ""},
		{"a line break", good + "\n", stack.RefusedMalformed, ""},
		{"a line break inside", good[:9] + "\r\n" + good[9:], stack.RefusedMalformed, ""},
		{"a space", " " + good, stack.RefusedMalformed, ""},
		{"padding", good + "=", stack.RefusedMalformed, ""},
		{"a padded header", header + "=." + payload + "." + signature, stack.RefusedMalformed, ""},
		{"standard base64", header + "." + payload + "." + strings.Repeat("+/", 43), stack.RefusedMalformed, ""},
		{"a stray bit in the signature", strayBit(good), stack.RefusedMalformed, ""},
		{"a stray bit in the claims", f.loosely(f.header(), goodClaims(now), strayBit), stack.RefusedMalformed, ""},
		{"too long", f.sign(f.header(), goodClaims(now)+strings.Repeat(" ", stack.MaxPassportSize)), stack.RefusedMalformed, ""},
		{"a long header", headed(`{"alg":"EdDSA","kid":"k1","x":"` + strings.Repeat("x", 1024) + `"}`), stack.RefusedMalformed, ""},
		{"a header that is no JSON", headed("x"), stack.RefusedMalformed, ""},
		{"a header that is no object", headed("[]"), stack.RefusedMalformed, ""},
		{"a null header", headed("null"), stack.RefusedMalformed, ""},
		{"something after the header", headed(f.header() + "{}"), stack.RefusedMalformed, ""},
		{"alg twice", headed(`{"alg":"none","alg":"EdDSA","kid":"k1"}`), stack.RefusedMalformed, ""},
		{"kid twice", headed(`{"alg":"EdDSA","kid":"k0","kid":"k1"}`), stack.RefusedMalformed, ""},
		{"kid twice, escaped", headed(`{"alg":"EdDSA","kid":"k0","\u006bid":"k1"}`), stack.RefusedMalformed, ""},
		{"kid no string", headed(`{"alg":"EdDSA","kid":1}`), stack.RefusedMalformed, ""},
		{"crit", headed(`{"alg":"EdDSA","kid":"k1","crit":["exp"],"exp":1}`), stack.RefusedMalformed, ""},
		{"an empty crit", headed(`{"alg":"EdDSA","kid":"k1","crit":[]}`), stack.RefusedMalformed, ""},
		{"b64", headed(`{"alg":"EdDSA","kid":"k1","b64":false}`), stack.RefusedMalformed, ""},
		{"an access token", headed(`{"alg":"EdDSA","typ":"at+jwt","kid":"k1"}`), stack.RefusedMalformed, ""},

		{"none", headed(`{"alg":"none","kid":"k1"}`), stack.RefusedAlgorithm, ""},
		{"none without a signature", unpadded(`{"alg":"none"}`) + "." + payload + ".", stack.RefusedAlgorithm, ""},
		{"no alg", headed(`{"kid":"k1"}`), stack.RefusedAlgorithm, ""},
		{"alg in another case", headed(`{"alg":"eddsa","kid":"k1"}`), stack.RefusedAlgorithm, ""},
		{"its name in another case", headed(`{"ALG":"EdDSA","kid":"k1"}`), stack.RefusedAlgorithm, ""},
		{"alg Ed25519", headed(`{"alg":"Ed25519","kid":"k1"}`), stack.RefusedAlgorithm, ""},
		{"HS256 with the public key", hs256(), stack.RefusedAlgorithm, ""},

		{"no kid", headed(`{"alg":"EdDSA"}`), stack.RefusedUnknownKey, ""},
		{"an unknown kid", headed(`{"alg":"EdDSA","kid":"k2"}`), stack.RefusedUnknownKey, ""},
		{"a kid that would break the line", headed(`{"alg":"EdDSA","kid":"\n\u001b[31m"}`), stack.RefusedUnknownKey, ""},

		{"no signature", header + "." + payload + ".", stack.RefusedMalformed, ""},
		{"a signature cut short", last, stack.RefusedMalformed, ""},
		{"another signature", header + "." + payload + "." + strings.Repeat("A", 86), stack.RefusedSignature, ""},
		{"another key under the kid", newForger("k1").good(), stack.RefusedSignature, ""},
		{"other claims", header + "." + unpadded(strings.ReplaceAll(goodClaims(now), "agt_1", "agt_2")) + "." + signature, stack.RefusedSignature, ""},
		{"another header", unpadded(`{"alg":"EdDSA","kid":"k1"}`) + "." + payload + "." + signature, stack.RefusedSignature, ""},
		{"garbage for claims, unsigned", header + ".e30." + signature, stack.RefusedSignature, ""},

		{"claims that are no JSON", f.sign(f.header(), "x"), stack.RefusedMalformed, ""},
		{"claims that are no object", f.sign(f.header(), "[]"), stack.RefusedMalformed, ""},
		{"no claims at all", f.sign(f.header(), ""), stack.RefusedMalformed, ""},
		{"something after the claims", f.sign(f.header(), goodClaims(now)+"{}"), stack.RefusedMalformed, ""},
		{"sub twice", claims(`"sub"`, `"sub":"agt_2","sub"`), stack.RefusedMalformed, ""},
		{"exp twice", claims(`"exp"`, `"exp":1,"exp"`), stack.RefusedMalformed, ""},
		{"stk twice", claims(`"stk"`, `"stk":{},"stk"`), stack.RefusedMalformed, ""},
		{"agent_id twice", claims(`"agent_id"`, `"agent_id":"agt_1","agent_id"`), stack.RefusedMalformed, ""},
		{"a name twice, deep down", claims(`{"claim_id":"clm_1"}`, `{"claim_id":"clm_1","claim_id":"clm_2"}`), stack.RefusedMalformed, ""},
		{"a name twice in what is unknown", claims(`"iss"`, `"x":{"a":1,"a":1},"iss"`), stack.RefusedMalformed, ""},
		{"no UTF-8", claims("triage", "\xff"), stack.RefusedMalformed, ""},

		{"no jti", claims(`"jti":"pp_1",`, ""), stack.RefusedClaim, "jti"},
		{"an empty jti", claims(`"pp_1"`, `""`), stack.RefusedClaim, "jti"},
		{"jti null", claims(`"pp_1"`, `null`), stack.RefusedClaim, "jti"},
		{"jti a number", claims(`"pp_1"`, `1`), stack.RefusedClaim, "jti"},
		{"no sub", claims(`"sub":"agt_1",`, ""), stack.RefusedClaim, "sub"},
		{"sub in another case only", claims(`"sub"`, `"Sub"`), stack.RefusedClaim, "sub"},
		{"no iss", claims(`"iss":"getstack.run",`, ""), stack.RefusedClaim, "iss"},
		{"iss a list", claims(`"getstack.run"`, `["getstack.run"]`), stack.RefusedClaim, "iss"},
		{"no aud", claims(`"aud":"stack:passport",`, ""), stack.RefusedClaim, "aud"},
		{"no audience in the list", claims(`"stack:passport"`, `[]`), stack.RefusedClaim, "aud"},
		{"an audience that is none", claims(`"stack:passport"`, `["stack:passport",1]`), stack.RefusedClaim, "aud"},
		{"no iat", claims(fmt.Sprintf(`"iat":%d,`, now.Unix()), ""), stack.RefusedClaim, "iat"},
		{"iat a fraction", claims(fmt.Sprint(now.Unix()), fmt.Sprint(now.Unix())+".5"), stack.RefusedClaim, "iat"},
		{"iat negative", claims(fmt.Sprint(now.Unix()), "-1"), stack.RefusedClaim, "iat"},
		{"no exp", claims(fmt.Sprintf(`,"exp":%d`, now.Add(15*time.Minute).Unix()), ""), stack.RefusedClaim, "exp"},
		{"exp quoted", claims(fmt.Sprint(now.Add(15*time.Minute).Unix()), `"9999999999"`), stack.RefusedClaim, "exp"},
		{"exp beyond time", claims(fmt.Sprint(now.Add(15*time.Minute).Unix()), "9223372036854775807"), stack.RefusedClaim, "exp"},
		{"exp beyond 64 bits", claims(fmt.Sprint(now.Add(15*time.Minute).Unix()), "1e30"), stack.RefusedClaim, "exp"},
		{"nbf no number", claims(`"iss"`, `"nbf":true,"iss"`), stack.RefusedClaim, "nbf"},
		{"no stk", claims(`"stk"`, `"other"`), stack.RefusedClaim, "stk.operator_id"},
		{"stk null", f.sign(f.header(), goodClaims(now)[:strings.Index(goodClaims(now), `"stk"`)]+`"stk":null}`), stack.RefusedClaim, "stk"},
		{"no operator", claims(`"operator_id":"op_1",`, ""), stack.RefusedClaim, "stk.operator_id"},
		{"no agent", claims(`"agent_id":"agt_1",`, ""), stack.RefusedClaim, "stk.agent_id"},
		{"another agent", claims(`"agent_id":"agt_1"`, `"agent_id":"agt_2"`), stack.RefusedClaim, "stk.agent_id"},
		{"scopes no list", claims(`["chat:write"]`, `"chat:write"`), stack.RefusedClaim, "stk.services.scopes"},
		{"identity claims no list", claims(`[{"claim_id":"clm_1"}]`, `{}`), stack.RefusedClaim, "stk.identity_claims"},
		{"a depth below 0", claims(`"delegation_depth":0`, `"delegation_depth":-1`), stack.RefusedClaim, "stk.delegation_depth"},
		{"an endless interval", claims(`:300`, `:9223372036854775807`), stack.RefusedClaim, "stk.checkpoint_interval"},

		{"expired", claims(fmt.Sprint(now.Add(15*time.Minute).Unix()), fmt.Sprint(now.Unix()-1)), stack.RefusedExpired, "exp"},
		{"not yet valid", at("nbf", time.Hour), stack.RefusedNotYetValid, "nbf"},
		{"issued in the future", claims(fmt.Sprint(now.Unix()), fmt.Sprint(now.Unix()+3600)), stack.RefusedIssuedInFuture, "iat"},
		{"another issuer", claims("getstack.run", "https://getstack.run"), stack.RefusedIssuer, "iss"},
		{"another audience", claims("stack:passport", "stack:agent"), stack.RefusedAudience, "aud"},
		{"other audiences", claims(`"stack:passport"`, `["a","b"]`), stack.RefusedAudience, "aud"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := f.verifier(t)
			for range 2 { // a refusal is not remembered as something good
				got, err := v.Verify(t.Context(), stack.NewSecret(test.token))
				refusal := requireRefusal(t, err, test.want, test.token)
				assert.Equal(t, test.claim, refusal.Claim)
				assert.Nil(t, got)
			}
		})
	}
}

// loosely signs a token whose claims are encoded loosely.
func (f forger) loosely(header, claims string, change func(string) string) string {
	for len(claims)%3 == 0 { // there must be bits to spare
		claims += " "
	}
	text := unpadded(header) + "." + change(unpadded(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(f.key, []byte(text)))
}

// The sentinels of the API's refusals name those of a verifier as well.
func TestVerificationErrors(t *testing.T) {
	t.Parallel()
	f := newForger("k1")
	v := f.verifier(t)
	_, err := v.Verify(t.Context(), stack.NewSecret(f.sign(f.header(), goodClaims(time.Now().Add(-time.Hour)))))
	require.ErrorIs(t, err, stack.ErrPassportExpired)
	require.NotErrorIs(t, err, stack.ErrPassportRevoked)
	_, err = v.Verify(t.Context(), stack.NewSecret("x"))
	require.NotErrorIs(t, err, stack.ErrPassportExpired)
	for _, none := range []*stack.PassportVerifier{nil, {}} {
		_, err = none.Verify(t.Context(), stack.NewSecret(f.good()))
		requireRefusal(t, err, stack.RefusedUnavailable, "")
	}
}

// A passport lasts until the second before its exp; leeway moves every bound. What is known to be good still expires.
func TestVerifyByTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newForger("k1")
		strict := f.verifier(t)
		lenient := f.verifier(t, func(c *stack.PassportVerifierConfig) { c.Leeway = 2 * time.Second })
		now := time.Now()
		claims := strings.Replace(goodClaims(now), `"iss"`, fmt.Sprintf(`"nbf":%d,"iss"`, now.Unix()), 1)
		token := stack.NewSecret(f.sign(f.header(), claims))
		check := func(v *stack.PassportVerifier, want stack.VerificationReason) {
			t.Helper()
			_, err := v.Verify(t.Context(), token)
			if want == "" {
				require.NoError(t, err)
				return
			}
			requireRefusal(t, err, want, token.Reveal())
		}
		check(strict, "")
		time.Sleep(15*time.Minute - time.Nanosecond)
		check(strict, "")
		time.Sleep(time.Nanosecond)
		check(strict, stack.RefusedExpired)
		check(lenient, "")
		time.Sleep(2 * time.Second)
		check(lenient, stack.RefusedExpired)

		for _, claim := range []string{"nbf", "iat"} {
			want := map[string]stack.VerificationReason{"nbf": stack.RefusedNotYetValid, "iat": stack.RefusedIssuedInFuture}[claim]
			now = time.Now().Truncate(time.Second)
			later := fmt.Sprintf(`"%s":%d`, claim, now.Unix()+3)
			claims = strings.Replace(goodClaims(now), fmt.Sprintf(`"iat":%d`, now.Unix()), `"iat":1,"nbf":1`, 1)
			token = stack.NewSecret(f.sign(f.header(), strings.Replace(claims, `"`+claim+`":1`, later, 1)))
			check(strict, want)
			check(lenient, want)
			time.Sleep(time.Second)
			check(strict, want)
			check(lenient, "")
			time.Sleep(2 * time.Second)
			check(strict, "")
		}
	})
}

func TestIssuerAndAudience(t *testing.T) {
	t.Parallel()
	f := newForger("k1")
	v := f.verifier(t, func(c *stack.PassportVerifierConfig) { c.Issuer, c.Audience = "eu.getstack.run", "partner" })
	_, err := v.Verify(t.Context(), stack.NewSecret(f.good()))
	requireRefusal(t, err, stack.RefusedIssuer, "")
	claims := strings.Replace(goodClaims(time.Now()), "getstack.run", "eu.getstack.run", 1)
	_, err = v.Verify(t.Context(), stack.NewSecret(f.sign(f.header(), claims)))
	requireRefusal(t, err, stack.RefusedAudience, "")
	got, err := v.Verify(t.Context(), stack.NewSecret(f.sign(f.header(), strings.Replace(claims, "stack:passport", "partner", 1))))
	require.NoError(t, err)
	assert.Equal(t, "partner", got.Audience)
}

// It remembers many passports, and far more pass.
func TestVerifyManyPassports(t *testing.T) {
	t.Parallel()
	f := newForger("k1")
	v := f.verifier(t)
	for i := range 5000 {
		claims := strings.Replace(goodClaims(time.Now()), "pp_1", fmt.Sprintf("pp_%d", i), 1)
		got, err := v.Verify(t.Context(), stack.NewSecret(f.sign(f.header(), claims)))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("pp_%d", i), got.JTI)
	}
}

func TestNewPassportVerifierRefuses(t *testing.T) {
	t.Parallel()
	f := newForger("k1")
	s := newStage(t, stack.Logged)
	for name, test := range map[string]struct {
		param  string
		config stack.PassportVerifierConfig
	}{
		"no keys":           {"Keys", stack.PassportVerifierConfig{Keys: stack.PublicKeys{}}},
		"a key without id":  {"Keys", stack.PassportVerifierConfig{Keys: stack.PublicKeys{"": publicOf(f.key)}}},
		"half a key":        {"Keys", stack.PassportVerifierConfig{Keys: stack.PublicKeys{"k": publicOf(f.key)[:31]}}},
		"a weak key":        {"Keys", stack.PassportVerifierConfig{Keys: stack.PublicKeys{"k": make([]byte, 32)}}},
		"an agent's key":    {"Keys", stack.PassportVerifierConfig{Keys: testKeys()}},
		"both":              {"Keys", stack.PassportVerifierConfig{Keys: f.keys(), JWKSURL: "https://api.getstack.run/x"}},
		"no URL":            {"JWKSURL", stack.PassportVerifierConfig{JWKSURL: "api.getstack.run"}},
		"another scheme":    {"JWKSURL", stack.PassportVerifierConfig{JWKSURL: "file:///etc/passwd"}},
		"a broken URL":      {"JWKSURL", stack.PassportVerifierConfig{JWKSURL: "https://[::1"}},
		"a password":        {"JWKSURL", stack.PassportVerifierConfig{JWKSURL: "https://u:p@api.getstack.run/"}},
		"http":              {"JWKSURL", stack.PassportVerifierConfig{JWKSURL: "http://api.getstack.run/v1/.well-known/jwks.json"}},
		"an operator's set": {"JWKSURL", stack.PassportVerifierConfig{JWKSURL: "https://api.getstack.run/v1/operators/op_1/jwks.json"}},
		"that, disguised":   {"JWKSURL", stack.PassportVerifierConfig{JWKSURL: "https://api.getstack.run/v1/%6Fperators//op_1/jwks.json/?x=1"}},
		"leeway below 0":    {"Leeway", stack.PassportVerifierConfig{Keys: f.keys(), Leeway: -1}},
		"too much leeway":   {"Leeway", stack.PassportVerifierConfig{Keys: f.keys(), Leeway: time.Hour}},
		"window below 0":    {"RevocationWindow", stack.PassportVerifierConfig{Keys: f.keys(), Online: s.client, RevocationWindow: -1}},
		"too long a window": {"RevocationWindow", stack.PassportVerifierConfig{Keys: f.keys(), Online: s.client, RevocationWindow: time.Hour}},
		"a window offline":  {"RevocationWindow", stack.PassportVerifierConfig{Keys: f.keys(), RevocationWindow: time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := stack.NewPassportVerifier(test.config)
			requireParam(t, err, test.param)
			assert.Nil(t, v)
			assert.NotContains(t, err.Error(), "u:p")
		})
	}
	_, err := stack.NewPassportVerifier(stack.PassportVerifierConfig{})
	require.NoError(t, err, "the zero value is for the hosted service")
}

// FuzzVerifyPassport feeds any text, and any header and claims under a good signature: no panic, typed errors only, and
// nothing passes that lacks what is promised.
func FuzzVerifyPassport(f *testing.F) {
	signer := forger{"k1", testKey()}
	claims := strings.Replace(goodClaims(time.Unix(1, 0)), fmt.Sprint(1+900), "253402300799", 1)
	f.Add(signer.sign(signer.header(), claims), signer.header(), claims)
	f.Add("a.b.c", `{"alg":"none"}`, `{"exp":1e400,"exp":1}`)
	f.Add("", `{"alg":"EdDSA","kid":"k1","crit":["b64"]}`, "null")
	v := signer.verifier(f)
	f.Fuzz(func(t *testing.T, token, header, claims string) {
		for _, text := range []string{token, signer.sign(header, claims)} {
			c, err := v.Verify(t.Context(), stack.NewSecret(text))
			if err != nil {
				var refusal *stack.VerificationError
				require.ErrorAs(t, err, &refusal)
				require.NotEqual(t, stack.RefusedUnavailable, refusal.Reason)
				require.Nil(t, c)
				continue
			}
			require.NotEmpty(t, c.JTI)
			require.NotEmpty(t, c.STK.OperatorID)
			require.Equal(t, c.Subject, c.STK.AgentID)
			require.Equal(t, stack.PassportAudience, c.Audience)
			require.True(t, c.ExpiresAt.After(time.Now()))
			again, err := json.Marshal(c)
			require.NoError(t, err)
			second, err := v.Verify(t.Context(), stack.NewSecret(signer.sign(signer.header(), string(again))))
			if err == nil { // it may have grown too long
				require.Equal(t, c.JTI, second.JTI)
			}
		}
	})
}
