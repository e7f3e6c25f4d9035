package peer

import (
	"net"
	"net/netip"

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

// IsLocal reports whether an address is one of this host's or of its link's. own are those
// of this host.
func IsLocal(a netip.Addr, own *localaddr.Set) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is6() && a.IsPrivate() || own.Has(a)
}
