package peer

import (
	"net"
	"net/netip"
	"slices"

	"tarishi/internal/localaddr"
)

// AddrPort returns an address of a connection; that of no connection where it is none of
// TCP.
func AddrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

// IsPrivate reports whether an address is none of the Internet's.
func IsPrivate(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsPrivate() ||
		slices.ContainsFunc(documentationNets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// IsLocal reports whether an address is one of this host's or of its link's. own are those
// of this host.
func IsLocal(a netip.Addr, own *localaddr.Set) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is6() && a.IsPrivate() || own.Has(a)
}

var documentationNets = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
}
