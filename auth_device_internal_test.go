package stack

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever a server answers, what a person is shown of it does nothing to a terminal, and what is opened is a page.
func FuzzDeviceAuthorization(f *testing.F) {
	f.Add(`{"device_code":"x","user_code":"AB-CD","verification_uri":"https://a.example/device","expires_in":600,"interval":5}`)
	f.Add(`{"device_code":"x","user_code":"\u001b[2J","verification_uri":"file:///bin/sh","expires_in":-1,"interval":1e300}`)
	f.Add(`{"device_code":"x","user_code":"A","verification_uri":"http://a","verification_uri_complete":"http://a/ -x","expires_in":1}`)
	f.Fuzz(func(t *testing.T, body string) {
		var d deviceAuthorization
		if json.Unmarshal([]byte(body), &d) != nil || d.check() != nil {
			return
		}
		assert.Positive(t, time.Duration(d.ExpiresIn))
		assert.GreaterOrEqual(t, time.Duration(d.Interval), time.Duration(0))
		for _, text := range []string{d.UserCode, d.VerificationURI, d.VerificationURIComplete} {
			assert.Regexp(t, `^[!-~]*$`, text)
		}
		u, err := url.Parse(d.VerificationURI)
		require.NoError(t, err)
		assert.Contains(t, []string{"http", "https"}, u.Scheme)
	})
}
