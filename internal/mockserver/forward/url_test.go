package forward_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/forward"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, raw, want string }{
		{"plain", "https://slack.com/api/chat.postMessage?a=1", "https://slack.com/api/chat.postMessage?a=1"},
		{"case, dot and port", "HTTPS://Slack.COM.:443/X", "https://slack.com/X"},
		{"port of the other scheme", "http://slack.com:443/", "http://slack.com:443/"},
		{"port with zeros", "http://slack.com:0081", "http://slack.com:81"},
		{"empty port", "http://slack.com:/", "http://slack.com/"},
		{"fragment", "https://h.io/a?b#c", "https://h.io/a?b"},
		{"spaces and letters beyond ASCII", "https://h.io/a b/é?q=two words&x=é",
			"https://h.io/a%20b/%C3%A9?q=two%20words&x=%C3%A9"},
		{"encoded path stays", "https://h.io/a%2Fb", "https://h.io/a%2Fb"},
		{"IPv4", "http://1.2.3.4:8080/", "http://1.2.3.4:8080/"},
		{"IPv6", "http://[2001:DB8:0::1]:8080/", "http://[2001:db8::1]:8080/"},
		{"bare name", "http://upstream/", "http://upstream/"},
		{"longest", "https://h.io/" + strings.Repeat("a", 8192-13), "https://h.io/" + strings.Repeat("a", 8192-13)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u, err := forward.ParseURL(tt.raw)
			require.NoError(t, err)
			assert.Equal(t, tt.want, u.String())
		})
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, raw, was string }{
		{"empty", "", "is empty"},
		{"too long", "https://h.io/" + strings.Repeat("a", 8192-12), "is 8193 bytes long"},
		{"no scheme", "slack.com/api", "has no scheme"},
		{"relative scheme", "//slack.com/api", "has no scheme"},
		{"other scheme", "ftp://slack.com", `has the scheme "ftp"`},
		{"file", "file:///etc/passwd", `has the scheme "file"`},
		{"no host", "https:///api", "has no host"},
		{"opaque", "https:slack.com", "has no host"},
		{"port only", "https://:443/", "has no host"},
		{"user", "https://me@slack.com/", "has user info"},
		{"user and password", "https://me:s3cretpw@slack.com/", "has user info"},
		{"password taken for a port", "https://me:s3cretpw#@slack.com/", "cannot be parsed"},
		{"newline", "https://slack.com/\r\nX: y", "has control characters"},
		{"tab before", "\thttps://slack.com/", "has control characters"},
		{"space before", " https://slack.com/", "cannot be parsed"},
		{"delete", "https://slack.com/\x7f", "has control characters"},
		{"bad encoding", "https://slack.com/%zz", "has a bad percent-encoding"},
		{"backslash", `https://evil.com\.slack.com/`, "has a host with invalid characters"},
		{"backslash before user", `https://slack.com\@evil.com/`, "cannot be parsed"},
		{"placeholder", "https://{{instance_url}}/x", "has a host with invalid characters"},
		{"look-alike host", "https://ⓢlack.com/", "has a host that is neither"},
		{"host of underscores only", "https://a..b/", "has a host that is neither"},
		{"short IPv4", "http://127.1/", "has a host that is neither"},
		{"decimal IPv4", "http://2130706433/", "has a host that is neither"},
		{"hexadecimal IPv4", "http://0x7f000001/", "has a host that is neither"},
		{"octal IPv4", "http://0177.0.0.1/", "has a host that is neither"},
		{"long label", "http://" + strings.Repeat("a", 64) + ".com/", "has a host that is neither"},
		{"long host", "http://" + strings.Repeat("a.", 127) + "com/", "has a host that is neither"},
		{"zone", "http://[fe80::1%25eth0]/", "has a host with a zone"},
		{"port zero", "http://h.io:0/", "has a port"},
		{"port too large", "http://h.io:65536/", "has a port"},
		{"port of letters", "http://h.io:abc/", "cannot be parsed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := forward.ParseURL(tt.raw)
			e := requireError(t, err, 400, forward.CodeInvalidURL)
			assert.Contains(t, e.Error(), "url "+tt.was)
			assert.Equal(t, "url", e.Field)
			assert.NotContains(t, e.Error(), "s3cretpw")
			assert.False(t, e.Dispatched)
		})
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	values := map[string]string{"instance_url": "https://acme.my.salesforce.com/", "account_id": "AC/1 2"}
	tests := []struct{ name, raw, want, fails string }{
		{"none", "https://h.io/{x}", "https://h.io/{x}", ""},
		{"instance", "{{instance_url}}/services/data", "https://acme.my.salesforce.com/services/data", ""},
		{"instance alone", "{{instance_url}}", "https://acme.my.salesforce.com", ""},
		{"account, escaped", "https://h.io/{{account_id}}/x", "https://h.io/AC%2F1%202/x", ""},
		{"both, twice", "{{instance_url}}?a={{account_id}}&b={{account_id}}",
			"https://acme.my.salesforce.com?a=AC%2F1%202&b=AC%2F1%202", ""},
		{"unknown", "https://h.io/{{tenant}}", "", "the placeholder {{tenant}} in url is unknown"},
		{"unknown by case", "https://h.io/{{Account_ID}}", "", "the placeholder {{Account_ID}} in url is unknown"},
		{"empty", "https://h.io/{{}}", "", "the placeholder {{}} in url is unknown"},
		{"open", "https://h.io/{{account_id", "", "the placeholder {{account_id in url is not closed"},
		{"instance as a part of a host", "{{instance_url}}.evil.com/", "",
			"the placeholder {{instance_url}} in url stands in the wrong place"},
		{"instance before user info", "{{instance_url}}@evil.com/", "",
			"the placeholder {{instance_url}} in url stands in the wrong place"},
		{"instance in the middle", "https://h.io/{{instance_url}}", "",
			"the placeholder {{instance_url}} in url stands in the wrong place"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := forward.Expand(tt.raw, values)
			if tt.fails != "" {
				assert.Contains(t, requireError(t, err, 400, forward.CodeInvalidURL).Error(), tt.fails)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
	_, err := forward.Expand("https://h.io/{{account_id}}", nil)
	assert.Contains(t, requireError(t, err, 400, forward.CodeInvalidURL).Error(), "{{account_id}} in url has no value")
}

func TestWithQuery(t *testing.T) {
	t.Parallel()
	u, err := url.Parse("https://h.io/?a=1;2")
	require.NoError(t, err)
	got := forward.WithQuery(u, map[string]string{"b": "x y", "a": "&"})
	assert.Equal(t, "https://h.io/?a=1;2&a=%26&b=x+y", got.String(), "what is there stays as it is")
	assert.Equal(t, "https://h.io/?a=1;2", u.String(), "the original stays as it is")
	u.RawQuery = ""
	assert.Equal(t, "https://h.io/?a=1", forward.WithQuery(u, map[string]string{"a": "1"}).String())
	assert.Equal(t, "https://h.io/", forward.WithQuery(u, nil).String())
}

// FuzzParseURL holds that an accepted URL is canonical, and as harmless as ParseURL promises.
func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{"https://Slack.com.:443/a%2Fb?q=é z#f", "http://[::1%25a]:80", "http://a@b:c",
		"HTTP://127.1:0", "{{x}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := forward.ParseURL(raw)
		if err != nil {
			return
		}
		text := u.String()
		again, err := forward.ParseURL(text)
		if err != nil {
			if len(text) > 8192 { // percent-encoding made it longer
				return
			}
			t.Fatalf("%q gives %q, which is refused: %v", raw, text, err)
		}
		if again.String() != text {
			t.Fatalf("%q gives %q and then %q", raw, text, again)
		}
		if u.User != nil || u.Fragment != "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			t.Fatalf("%q is accepted as %#v", raw, u)
		}
		if strings.ContainsFunc(u.RequestURI()+u.Host, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Fatalf("%q gives the request line %q to %q", raw, u.RequestURI(), u.Host)
		}
	})
}
