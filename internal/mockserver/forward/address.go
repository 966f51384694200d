package forward

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
)

// blockedPrefixes are the addresses that no outside service has, or that answer with a cloud machine's own credentials.
var blockedPrefixes = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared (carrier-grade NAT)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "metadata"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local (metadata)"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.31.196.0/24"), "reserved"},
	{netip.MustParsePrefix("192.52.193.0/24"), "reserved"},
	{netip.MustParsePrefix("192.88.99.0/24"), "reserved"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("192.175.48.0/24"), "reserved"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("2001::/23"), "reserved"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("2002::/16"), "6to4"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
)

// blocked says what kind of address keeps addr from being dialled, or "" when it may be. IPv4 inside IPv6 (mapped, or behind
// NAT64) counts as the IPv4 address. Outside the public IPv6 range everything is blocked.
func blocked(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	for _, b := range blockedPrefixes {
		if b.prefix.Contains(addr) {
			return b.what
		}
	}
	if !addr.Is4() && !globalUnicast.Contains(addr) {
		return "reserved"
	}
	return ""
}

// guard is a [net.Dialer]'s ControlContext: it sees each address after DNS, right before the connection is made.
func guard(_ context.Context, network, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%s %q is not an IP address with a port", network, address)
	}
	if what := blocked(target.Addr()); what != "" {
		return &Error{Status: http.StatusForbidden, Code: CodeTargetBlocked, Field: "url", Sent: target.Addr().String(),
			Allowed: "a host with a public address",
			Message: fmt.Sprintf("the target's address %s is %s; only public addresses are called", target.Addr(), what)}
	}
	return nil
}

// newTransport makes a transport that opens one connection a call and speaks HTTP/1.1. Without reuse it has no idle
// connections to look after, checks the address of every call, and never sends a request a second time on its own, which
// net/http does when a reused connection turns out to be dead.
func newTransport(dialer *net.Dialer) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            dialer.DialContext,
		DisableKeepAlives:      true,
		Protocols:              protocols,
		MaxResponseHeaderBytes: 1 << 20,
	}
}
