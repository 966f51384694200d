package forward

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBlocked(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, addr, want string }{
		{"public IPv4", "1.1.1.1", ""},
		{"public IPv4 beside private", "172.15.255.255", ""},
		{"public IPv4 beside private, above", "172.32.0.0", ""},
		{"public IPv4 beside shared", "100.128.0.0", ""},
		{"public IPv6", "2606:4700:4700::1111", ""},
		{"unspecified", "0.0.0.0", "unspecified"},
		{"this network", "0.1.2.3", "unspecified"},
		{"loopback", "127.0.0.1", "loopback"},
		{"loopback, high", "127.255.255.254", "loopback"},
		{"private 10", "10.0.0.1", "private"},
		{"private 172.16", "172.16.0.1", "private"},
		{"private 172.31", "172.31.255.255", "private"},
		{"private 192.168", "192.168.1.1", "private"},
		{"shared", "100.64.0.1", "shared (carrier-grade NAT)"},
		{"metadata in the shared range", "100.100.100.200", "shared (carrier-grade NAT)"},
		{"metadata", "169.254.169.254", "link-local (metadata)"},
		{"link-local", "169.254.0.1", "link-local (metadata)"},
		{"metadata with a public address", "168.63.129.16", "metadata"},
		{"metadata in the protocol range", "192.0.0.192", "reserved"},
		{"documentation", "192.0.2.1", "documentation"},
		{"documentation 2", "198.51.100.1", "documentation"},
		{"documentation 3", "203.0.113.1", "documentation"},
		{"benchmarking", "198.19.255.255", "benchmarking"},
		{"multicast", "224.0.0.1", "multicast"},
		{"reserved", "240.0.0.1", "reserved"},
		{"broadcast", "255.255.255.255", "reserved"},
		{"IPv6 unspecified", "::", "unspecified"},
		{"IPv6 loopback", "::1", "loopback"},
		{"IPv6 link-local with a zone", "fe80::1%eth0", "link-local"},
		{"IPv6 private", "fd12:3456::1", "private"},
		{"IPv6 metadata", "fd00:ec2::254", "private"},
		{"IPv6 multicast", "ff02::1", "multicast"},
		{"IPv6 documentation", "2001:db8::1", "documentation"},
		{"IPv6 documentation, new", "3fff::1", "documentation"},
		{"IPv6 site-local", "fec0::1", "reserved"},
		{"Teredo", "2001:0:4136:e378::1", "reserved"},
		{"6to4 of loopback", "2002:7f00:1::1", "6to4"},
		{"mapped loopback", "::ffff:127.0.0.1", "loopback"},
		{"mapped metadata", "::ffff:a9fe:a9fe", "link-local (metadata)"},
		{"mapped public", "::ffff:1.1.1.1", ""},
		{"compatible loopback", "::127.0.0.1", "reserved"},
		{"NAT64 of loopback", "64:ff9b::7f00:1", "loopback"},
		{"NAT64 of private", "64:ff9b::10.1.2.3", "private"},
		{"NAT64 of public", "64:ff9b::1.1.1.1", ""},
		{"NAT64 of a local kind", "64:ff9b:1::1.1.1.1", "reserved"},
		{"discard", "100::1", "reserved"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, blocked(netip.MustParseAddr(tt.addr)))
		})
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	require.NoError(t, guard(t.Context(), "tcp4", "1.1.1.1:443", nil))
	require.Error(t, guard(t.Context(), "tcp", "localhost:443", nil), "only addresses reach the guard")
	var e *Error
	require.True(t, errors.As(guard(t.Context(), "tcp6", "[::ffff:10.0.0.1]:443", nil), &e))
	assert.Equal(t, CodeTargetBlocked, e.Code)
	assert.Equal(t, 403, e.Status)
	assert.Contains(t, e.Message, "private")
}
