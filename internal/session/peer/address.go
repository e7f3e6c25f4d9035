package peer

import (
	"net"
	"net/netip"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/localaddr"
	"tarishi/internal/mail"
	"tarishi/internal/result"
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

// NewConnection returns what hooks see of a connection that has begun, the address that it was
// made from, which is a proxy's where one has handed it on, and our own end of the socket. own
// are the addresses of this host.
func NewConnection(conn net.Conn, own *localaddr.Set) (c *hook.Connection, from, to netip.AddrPort) {
	remote := AddrPort(conn.RemoteAddr())
	c = &hook.Connection{
		ID: mail.NewConnectionID(), Local: AddrPort(conn.LocalAddr()), Start: time.Now(), Notes: mail.Notes{}, Results: new(result.Store),
		Remote: hook.Remote{Addr: remote, Private: localaddr.IsPrivate(remote.Addr()), Local: IsLocal(remote.Addr(), own)},
	}
	through, ok := conn.(handedOn)
	if !ok {
		return c, remote, c.Local
	}
	proxy, socket := through.Socket()
	c.Proxy = hook.Proxy{Addr: AddrPort(proxy), Type: haproxy}
	c.Notes["proxy"] = note(c)
	return c, c.Proxy.Addr, AddrPort(socket)
}

// haproxy is the hook.Proxy.Type of the PROXY protocol.
const haproxy = "haproxy"

// note is the note "proxy" of a connection that was handed on by the PROXY protocol, as Haraka
// has it.
func note(c *hook.Connection) map[string]any {
	remote, proto := c.Remote.Addr, "TCP6"
	if remote.Addr().Is4() {
		proto = "TCP4"
	}
	return map[string]any{
		"type": haproxy, "proto": proto, "src_ip": remote.Addr().String(), "src_port": float64(remote.Port()),
		"dst_ip": c.Local.Addr().String(), "dst_port": float64(c.Local.Port()), "proxy_ip": c.Proxy.Addr.Addr().String(),
	}
}
