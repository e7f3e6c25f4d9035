package localaddr

import (
	"net/netip"
	"slices"
)

// IsNear reports whether an address is one of loopback, of the link or of a private network
// (RFC 1918, RFC 4193): what goes there stays out of the world's sight.
func IsNear(a netip.Addr) bool { return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() }

// IsPrivate reports whether an address is not one of the world: of loopback, link-local,
// unique local (RFC 4193), private (RFC 1918), or for documentation (RFC 5737).
func IsPrivate(a netip.Addr) bool {
	// Clients are known by the IPv4 address that an IPv6 address stands for.
	a = a.Unmap()
	return IsNear(a) ||
		slices.ContainsFunc(documentationNets, func(p netip.Prefix) bool { return p.Contains(a) })
}

var documentationNets = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
}
