package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// errPublic stands for a connection to a public address, which tests do not make.
var errPublic = errors.New("a public address")

// dials is a forwarder that dials: by its own DNS, and to public addresses into a server of the test's.
type dials struct {
	*Forwarder
	mu      sync.Mutex
	answers [][]string // of the DNS, one after the other; the last one stays
	passed  []string   // the addresses that the guard let through
}

func newDials(t *testing.T, public http.HandlerFunc, answers ...[]string) *dials {
	t.Helper()
	server := httptest.NewServer(public)
	t.Cleanup(server.Close)
	d := &dials{Forwarder: New(Options{AllowDial: true}), answers: answers}
	d.dialed = newTransport(&net.Dialer{})
	dialer := &net.Dialer{
		Resolver: &net.Resolver{PreferGo: true, Dial: d.dns},
		ControlContext: func(ctx context.Context, network, address string, c syscall.RawConn) error {
			if err := guard(ctx, network, address, c); err != nil {
				return err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.passed = append(d.passed, address)
			return errPublic
		},
	}
	d.dialed.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		before := d.dialled()
		conn, err := dialer.DialContext(ctx, network, address)
		if d.dialled() > before {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		}
		return conn, err
	}
	return d
}

func (d *dials) dialled() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.passed)
}

// dns is a connection to a name server that answers as the test says, for every name.
func (d *dials) dns(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close() //nolint:errcheck // a pipe's never fails
		for {
			var size [2]byte
			if _, err := io.ReadFull(server, size[:]); err != nil {
				return
			}
			query := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(server, query); err != nil {
				return
			}
			answer := d.answer(query)
			if _, err := server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
				return
			}
		}
	}()
	return client, nil
}

// answer makes the answer to a query: a header, the question, and an address record for each address of the asked-for kind.
func (d *dials) answer(query []byte) []byte {
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5 // the root, the type and the class
	kind := binary.BigEndian.Uint16(query[end-4:])
	d.mu.Lock()
	defer d.mu.Unlock()
	var records []byte
	count := uint16(0)
	for _, text := range d.answers[0] {
		addr := netip.MustParseAddr(text)
		if addr.Is4() != (kind == 1) {
			continue
		}
		count++
		records = append(records, 0xc0, 12) // the name of the question
		records = binary.BigEndian.AppendUint16(records, kind)
		records = append(records, 0, 1, 0, 0, 0, 0) // internet, for no time
		records = binary.BigEndian.AppendUint16(records, uint16(len(addr.AsSlice())))
		records = append(records, addr.AsSlice()...)
	}
	if kind == 1 && len(d.answers) > 1 { // both kinds are asked for; this is the one that counts
		d.answers = d.answers[1:]
	}
	out := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1}, binary.BigEndian.AppendUint16(nil, count)...)
	out = append(out, 0, 0, 0, 0)
	return append(append(out, query[12:end]...), records...)
}

func (d *dials) get(t *testing.T, raw string) (*Response, error) {
	t.Helper()
	u, err := ParseURL(raw)
	if err != nil {
		return nil, err
	}
	return d.Do(t.Context(), Request{Method: "GET", URL: u, AllowedHosts: []string{u.Host}, Credential: Bearer("s3cret-token")})
}

// Whatever a name is said to have for an address, no address is dialled but a public one.
func TestNamesOfPrivateAddresses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer []string
		passed string // the address that is called; none when empty
	}{
		"public":                     {[]string{"93.184.216.34"}, "93.184.216.34"},
		"loopback":                   {[]string{"127.0.0.1"}, ""},
		"metadata":                   {[]string{"169.254.169.254"}, ""},
		"metadata of IPv6":           {[]string{"fd00:ec2::254"}, ""},
		"loopback in IPv6":           {[]string{"::1"}, ""},
		"loopback, mapped":           {[]string{"::ffff:127.0.0.1"}, ""},
		"loopback behind NAT64":      {[]string{"64:ff9b::7f00:1"}, ""},
		"loopback by 6to4":           {[]string{"2002:7f00:1::1"}, ""},
		"unspecified":                {[]string{"0.0.0.0"}, ""},
		"several private":            {[]string{"10.0.0.1", "192.168.0.1", "127.0.0.1"}, ""},
		"private, then public":       {[]string{"10.0.0.1", "93.184.216.34"}, "93.184.216.34"},
		"public, then private":       {[]string{"93.184.216.34", "10.0.0.1"}, "93.184.216.34"},
		"private IPv6, public IPv4":  {[]string{"fd00::1", "93.184.216.34"}, "93.184.216.34"},
		"public behind NAT64, local": {[]string{"64:ff9b:1::1.1.1.1"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			called := 0
			d := newDials(t, func(http.ResponseWriter, *http.Request) { called++ }, tt.answer)
			_, err := d.get(t, "http://rebind.example/")
			if tt.passed == "" {
				var refused *Error
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, CodeTargetBlocked, refused.Code)
				assert.False(t, refused.Dispatched)
				assert.Empty(t, d.passed)
				assert.Zero(t, called)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 1, called)
			for _, address := range d.passed {
				assert.Equal(t, tt.passed+":80", address)
			}
		})
	}
}

// A name that had a public address a moment ago is looked at again for each connection: for the next call, and for each
// redirect.
func TestNamesThatChange(t *testing.T) {
	t.Parallel()
	public, private := []string{"93.184.216.34"}, []string{"127.0.0.1"}
	called := 0
	d := newDials(t, func(w http.ResponseWriter, r *http.Request) {
		if called++; r.URL.Path == "/hop" {
			w.Header().Set("Location", "/secret")
			w.WriteHeader(http.StatusFound)
		}
	}, public, private)
	_, err := d.get(t, "http://rebind.example/")
	require.NoError(t, err)
	_, err = d.get(t, "http://rebind.example/")
	var refused *Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, CodeTargetBlocked, refused.Code)
	assert.Equal(t, 1, called)

	d.answers = [][]string{public, private}
	_, err = d.get(t, "http://rebind.example/hop")
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, CodeTargetBlocked, refused.Code)
	assert.True(t, refused.Dispatched, "the first hop was")
	assert.Equal(t, 2, called)
}

// However a URL writes a host that is not outside: no spelling of it is dialled.
func TestHostileURLs(t *testing.T) {
	t.Parallel()
	const metadata = "/latest/meta-data/iam/security-credentials/"
	for name, raw := range map[string]string{
		"loopback":                     "http://127.0.0.1/",
		"loopback, another":            "http://127.127.127.127/",
		"loopback, port":               "http://127.0.0.1:8080/",
		"decimal":                      "http://2130706433/",
		"decimal, dot":                 "http://2130706433./",
		"decimal metadata":             "http://2852039166" + metadata,
		"octal":                        "http://0177.0.0.1/",
		"octal, whole":                 "http://017700000001/",
		"octal, padded":                "http://0000177.0000.0000.0001/",
		"hexadecimal":                  "http://0x7f000001/",
		"hexadecimal, parts":           "http://0x7f.0x0.0x0.0x1/",
		"hexadecimal, capital":         "http://0X7F.1/",
		"mixed radix":                  "http://0x7f.0.0.01/",
		"short, two parts":             "http://127.1/",
		"short, three parts":           "http://127.0.1/",
		"short, one part":              "http://0/",
		"too many parts":               "http://127.0.0.1.1/",
		"part too large":               "http://383.0.0.1/",
		"overflow":                     "http://4294967297/",
		"leading zero":                 "http://127.0.0.01/",
		"trailing dot":                 "http://127.0.0.1./",
		"two trailing dots":            "http://localhost../",
		"metadata":                     "http://169.254.169.254" + metadata,
		"metadata, hexadecimal parts":  "http://0xa9.0xfe.0xa9.0xfe/",
		"metadata by name":             "http://metadata.google.internal/computeMetadata/v1/",
		"localhost":                    "http://localhost/",
		"localhost, mixed case":        "http://LoCaLhOsT/",
		"localhost, trailing dot":      "http://localhost./",
		"below localhost":              "http://x.localhost/",
		"name of loopback":             "http://localtest.me/",
		"punycode":                     "http://xn--bcher-kva.example/",
		"IDN digits":                   "http://①②⑦.⓪.⓪.①/",
		"IDN full stop":                "http://127。0。0。1/",
		"full-width":                   "http://１２７.0.0.1/",
		"Kelvin sign":                  "http://\u212Aelvin/",
		"soft hyphen":                  "http://local\u00adhost/",
		"percent-encoded host":         "http://%31%32%37.0.0.1/",
		"percent-encoded dot":          "http://127%2e0%2e0%2e1/",
		"percent-encoded at":           "http://slack.com%40127.0.0.1/",
		"IPv6 loopback":                "http://[::1]/",
		"IPv6 loopback, long":          "http://[0:0:0:0:0:0:0:1]/",
		"IPv6 loopback, padded":        "http://[0000:0000:0000:0000:0000:0000:0000:0001]:80/",
		"IPv6 unspecified":             "http://[::]/",
		"IPv4 mapped":                  "http://[::ffff:127.0.0.1]/",
		"IPv4 mapped, hexadecimal":     "http://[::ffff:7f00:1]/",
		"IPv4 mapped metadata":         "http://[::FFFF:A9FE:A9FE]/",
		"IPv4 compatible":              "http://[::127.0.0.1]/",
		"IPv4 translated":              "http://[::ffff:0:127.0.0.1]/",
		"NAT64":                        "http://[64:ff9b::127.0.0.1]/",
		"NAT64 metadata":               "http://[64:ff9b::a9fe:a9fe]/",
		"NAT64 of a local kind":        "http://[64:ff9b:1::7f00:1]/",
		"6to4":                         "http://[2002:7f00:0001::]/",
		"Teredo":                       "http://[2001:0:7f00:1::]/",
		"ISATAP, link-local":           "http://[fe80::5efe:7f00:1]/",
		"zone":                         "http://[fe80::1%25eth0]/",
		"zone of loopback":             "http://[::1%25lo]/",
		"zone, plain":                  "http://[::1%lo]/",
		"bracket never closed":         "http://[::1/",
		"IPv6 without brackets":        "http://::1/",
		"IPvFuture":                    "http://[v1.127.0.0.1]/",
		"user info":                    "http://slack.com@127.0.0.1/",
		"user info, encoded slash":     "http://slack.com%2f@127.0.0.1/",
		"password":                     "http://slack.com:443@127.0.0.1/",
		"empty user":                   "http://@127.0.0.1/",
		"two at signs":                 "http://a@slack.com@127.0.0.1/",
		"backslash":                    `http://127.0.0.1\@slack.com/`,
		"backslashes for slashes":      `http:\\127.0.0.1\`,
		"backslash in host":            `http://slack.com\.127.0.0.1/`,
		"one slash":                    "http:/127.0.0.1/",
		"no slash":                     "http:127.0.0.1/",
		"three slashes":                "http:///127.0.0.1/",
		"no scheme":                    "//127.0.0.1/",
		"tab in scheme":                "ht\ttp://127.0.0.1/",
		"tab in host":                  "http://127.0\t.0.1/",
		"newline in host":              "http://127.0.0.1\n/",
		"CRLF and a header":            "http://slack.com/\r\nX-Injected: 1",
		"CRLF and a request":           "http://slack.com/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /",
		"null byte":                    "http://127.0.0.1\x00.slack.com/",
		"space in host":                "http://127.0.0.1 .slack.com/",
		"space before":                 " http://127.0.0.1/",
		"question mark for slash":      "http://127.0.0.1?@slack.com/",
		"fragment for slash":           "http://127.0.0.1#@slack.com/",
		"port zero":                    "http://127.0.0.1:0/",
		"port beyond":                  "http://slack.com:65616/",
		"port negative":                "http://slack.com:-80/",
		"port with plus":               "http://slack.com:+80/",
		"two ports":                    "http://slack.com:80:80/",
		"file":                         "file:///etc/passwd",
		"file on a host":               "file://127.0.0.1/etc/passwd",
		"gopher":                       "gopher://127.0.0.1:6379/_FLUSHALL",
		"dict":                         "dict://127.0.0.1:11211/stats",
		"ftp":                          "ftp://127.0.0.1/",
		"data":                         "data:text/plain,x",
		"javascript":                   "javascript:alert(1)",
		"unix socket":                  "unix:///var/run/docker.sock",
		"jar":                          "jar:http://127.0.0.1!/",
		"scheme in scheme":             "url:http://127.0.0.1/",
		"private 10":                   "http://10.0.0.1/",
		"private 172":                  "http://172.16.0.1/",
		"private 192":                  "http://192.168.0.1/",
		"shared":                       "http://100.100.100.200/",
		"this network":                 "http://0.0.0.0/",
		"broadcast":                    "http://255.255.255.255/",
		"multicast":                    "http://224.0.0.1/",
		"metadata of a public address": "http://168.63.129.16/",
		"unique local":                 "http://[fd00:ec2::254]/",
		"too long":                     "http://slack.com/" + strings.Repeat("a", maxURL),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDials(t, func(http.ResponseWriter, *http.Request) {}, []string{"127.0.0.1", "::1"})
			_, err := d.get(t, raw)
			var refused *Error
			require.ErrorAs(t, err, &refused)
			assert.Contains(t, []string{CodeInvalidURL, CodeTargetBlocked}, refused.Code, refused.Message)
			assert.False(t, refused.Dispatched)
			assert.Empty(t, d.passed)
			assert.NotContains(t, refused.Message, "s3cret")
		})
	}
}

// An upstream leads a call nowhere: a redirect to any place but itself is handed back, and never followed.
func TestHostileRedirects(t *testing.T) {
	t.Parallel()
	for name, location := range map[string]string{
		"loopback":            "http://127.0.0.1/",
		"loopback, short":     "//127.1/",
		"metadata":            "http://169.254.169.254/latest/",
		"other host":          "http://evil.example/",
		"scheme-relative":     "//evil.example/",
		"three slashes":       "///evil.example/",
		"user info":           "http://rebind.example@evil.example/",
		"own name as user":    "http://rebind.example:80@127.0.0.1/",
		"own host, with user": "http://me:pw@rebind.example/",
		"backslash":           `http://rebind.example\@127.0.0.1/`,
		"backslashes":         `\\evil.example\`,
		"below":               "http://a.rebind.example/",
		"above":               "http://example/",
		"suffix":              "http://rebind.example.evil.example/",
		"other port":          "http://rebind.example:8080/",
		"file":                "file:///etc/passwd",
		"data":                "data:text/plain,x",
		"tab":                 "http://127.0.0.1\t/",
		"IDN":                 "http://ⓡebind.example/",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			called := 0
			d := newDials(t, func(w http.ResponseWriter, r *http.Request) {
				called++
				assert.Equal(t, "rebind.example", r.Host)
				w.Header()["Location"] = []string{location}
				w.WriteHeader(http.StatusTemporaryRedirect)
			}, []string{"93.184.216.34"})
			resp, err := d.get(t, "http://rebind.example/")
			if location == "///evil.example/" || location == `\\evil.example\` { // a path of its own
				require.NoError(t, err)
				return
			}
			assert.Equal(t, 1, called)
			if err != nil { // a location that is no URL
				var refused *Error
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, CodeUnreachable, refused.Code)
				return
			}
			assert.Equal(t, http.StatusTemporaryRedirect, resp.Status)
		})
	}
}
