package stack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestVerifyWebhookSignature(t *testing.T) {
	t.Parallel()
	secret, body := stack.NewSecret("whsec_test"), []byte(mail)
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	v1 := ",v1=" + hex.EncodeToString(mac(sha256.New, []byte("whsec_test"), stamp+"."+mail))
	zeros := ",v1=" + strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		values []string
		good   bool
	}{
		"good":            {[]string{"t=" + stamp + v1}, true},
		"several":         {[]string{"t=" + stamp + zeros + v1 + ",v2=x"}, true},
		"spaces":          {[]string{strings.ReplaceAll("t="+stamp+v1, ",", ", ")}, true},
		"none":            {nil, false},
		"two headers":     {[]string{"t=" + stamp + v1, "t=" + stamp + v1}, false},
		"no time":         {[]string{v1}, false},
		"two times":       {[]string{"t=" + stamp + ",t=" + stamp + v1}, false},
		"padded time":     {[]string{"t=0" + stamp + v1}, false},
		"another time":    {[]string{"t=" + stamp + "0" + v1}, false},
		"no signature":    {[]string{"t=" + stamp}, false},
		"another":         {[]string{"t=" + stamp + zeros}, false},
		"short":           {[]string{"t=" + stamp + v1[:20]}, false},
		"too many":        {[]string{"t=" + stamp + strings.Repeat(zeros, 8) + v1}, false},
		"too long":        {[]string{"t=" + stamp + v1 + "," + strings.Repeat("x", 1024)}, false},
		"negative time":   {[]string{"t=-1" + v1}, false},
		"time out of int": {[]string{"t=99999999999999999999" + v1}, false},
	} {
		header := http.Header{stack.HeaderWebhookSignature: c.values}
		err := stack.VerifyWebhookSignature(header, body, secret, 0)
		if c.good {
			require.NoError(t, err, name)
			require.ErrorIs(t, stack.VerifyWebhookSignature(header, append(bytes.Clone(body), ' '), secret, 0), stack.ErrWebhookSignature)
			require.ErrorIs(t, stack.VerifyWebhookSignature(header, body, stack.NewSecret("other"), 0), stack.ErrWebhookSignature)
			continue
		}
		require.ErrorIs(t, err, stack.ErrWebhookSignature, name)
		assert.NotContains(t, err.Error(), "whsec_test")
	}
	requireParam(t, stack.VerifyWebhookSignature(nil, nil, stack.Secret{}, 0), "secret")
	requireParam(t, stack.VerifyWebhookSignature(nil, nil, secret, -1), "tolerance")
}

func FuzzVerifyWebhookSignature(f *testing.F) {
	f.Add("t=1,v1=00", "body")
	f.Add("t=1700000000,v1="+strings.Repeat("0", 64), "")
	f.Fuzz(func(t *testing.T, value, body string) {
		header := http.Header{stack.HeaderWebhookSignature: {value}}
		err := stack.VerifyWebhookSignature(header, []byte(body), stack.NewSecret("whsec_fuzz"), 0)
		require.ErrorIs(t, err, stack.ErrWebhookSignature, "nobody guesses an HMAC")
	})
}
