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

// handedOn is a connection with the addresses of a client behind a proxy.
type handedOn interface {
	// Socket returns the addresses between the proxy and us.
	Socket() (proxy, own net.Addr)
}

// Socket returns the proxy that has handed a connection on, invalid if none has, and our own
// address of its socket.
func Socket(conn net.Conn) (proxy, own netip.AddrPort) {
	if c, ok := conn.(handedOn); ok {
		from, to := c.Socket()
		return AddrPort(from), AddrPort(to)
	}
	return netip.AddrPort{}, AddrPort(conn.LocalAddr())
}

// ProxyNote is the note "proxy" of a connection that was handed on by the PROXY protocol, as
// Haraka has it.
func ProxyNote(remote, local, proxy netip.AddrPort) map[string]any {
	proto := "TCP6"
	if remote.Addr().Is4() {
		proto = "TCP4"
	}
	return map[string]any{
		"type": HAProxy, "proto": proto, "src_ip": remote.Addr().String(), "src_port": float64(remote.Port()),
		"dst_ip": local.Addr().String(), "dst_port": float64(local.Port()), "proxy_ip": proxy.Addr().String(),
	}
}

// HAProxy is the hook.Proxy.Type of the PROXY protocol.
const HAProxy = "haproxy"
