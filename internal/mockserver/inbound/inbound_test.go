package inbound_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/inbound"
)

// The example of Svix's documentation for those who verify by hand.
func TestAgentMailKnownVector(t *testing.T) {
	t.Parallel()
	key, err := inbound.AgentMailKey("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	require.NoError(t, err)
	header := http.Header{}
	header.Set("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	header.Set("svix-timestamp", "1614265330")
	header.Set("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	sent := time.Unix(1614265330, 0)
	for offset, good := range map[time.Duration]bool{0: true, 5 * time.Minute: true, -5 * time.Minute: true,
		5*time.Minute + time.Second: false, -5*time.Minute - time.Second: false} {
		id, refused := inbound.VerifyAgentMail(header, []byte(`{"test": 2432232314}`), key, sent.Add(offset))
		if !good {
			require.ErrorIs(t, refused, inbound.ErrSignature, offset)
			continue
		}
		require.NoError(t, refused, offset)
		assert.Equal(t, "msg_p5jXN8AQM9LWM0D4loKWxJek", id)
	}
	_, err = inbound.VerifyAgentMail(header, []byte(`{"test": 2432232315}`), key, sent)
	require.ErrorIs(t, err, inbound.ErrSignature)
}

func TestAgentMailKey(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
		"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 15)), "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65))} {
		_, err := inbound.AgentMailKey(bad)
		require.Error(t, err, bad)
		assert.NotContains(t, err.Error(), "MfKQ")
	}
}

// The test vector of RFC 2104 as RFC 4231 and RFC 2202 print them: key "Jefe", data "what do ya want for nothing?".
func TestGenericKnownVectors(t *testing.T) {
	t.Parallel()
	body, key := []byte("what do ya want for nothing?"), []byte("Jefe")
	for name, c := range map[string]struct {
		generic inbound.Generic
		value   string
	}{
		"sha256": {inbound.Generic{Header: "X-Sig"}, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		"upper":  {inbound.Generic{Header: "X-Sig", Prefix: "v0="}, "v0=5BDCC146BF60754E6A042426089575C75A003F089D2739839DEC58B964EC3843"},
		"sha1":   {inbound.Generic{Header: "X-Sig", SHA1: true}, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		"base64": {inbound.Generic{Header: "X-Sig", SHA1: true, Base64: true}, "7/zfauXrL6LSdBbV8YTfnCWafHk="},
	} {
		header := http.Header{"X-Sig": {c.value}}
		id, err := c.generic.Verify(header, body, key, time.Time{})
		require.NoError(t, err, name)
		assert.NotEmpty(t, id)
		_, err = c.generic.Verify(header, body, []byte("other"), time.Time{})
		require.ErrorIs(t, err, inbound.ErrSignature, name)
		header["X-Sig"] = append(header["X-Sig"], c.value)
		_, err = c.generic.Verify(header, body, key, time.Time{})
		require.ErrorIs(t, err, inbound.ErrSignature, "twice")
	}
}

// Nobody guesses a MAC, whatever the headers are, and what is wrong is told without a panic.
func FuzzSignatureHeaders(f *testing.F) {
	f.Add("msg_1", "1614265330", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1a,x", "{}")
	f.Add("", "-1", "v1,", "")
	f.Add("a", "99999999999999999999", strings.Repeat("v1,AAAA ", 20), "x")
	f.Fuzz(func(t *testing.T, id, stamp, signature, body string) {
		header := http.Header{}
		header.Set("svix-id", id)
		header.Set("svix-timestamp", stamp)
		header.Set("svix-signature", signature)
		now := time.Unix(1614265330, 0)
		_, err := inbound.VerifyAgentMail(header, []byte(body), []byte("0123456789abcdef"), now)
		require.ErrorIs(t, err, inbound.ErrSignature)
		for _, g := range []inbound.Generic{{Header: "svix-signature"}, {Header: "svix-signature", Base64: true, SHA1: true},
			{Header: "svix-signature", Prefix: "v1,", Base64: true, TimestampHeader: "svix-timestamp", Tolerance: time.Minute}} {
			_, err := g.Verify(header, []byte(body), []byte("0123456789abcdef"), now)
			require.ErrorIs(t, err, inbound.ErrSignature)
		}
	})
}

func BenchmarkVerify4KB(b *testing.B) {
	body, key := []byte(strings.Repeat("x", 4<<10)), []byte("0123456789abcdef")
	header := http.Header{"X-Sig": {strings.Repeat("0", 64)}}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = inbound.Generic{Header: "X-Sig"}.Verify(header, body, key, time.Time{})
	}
}
