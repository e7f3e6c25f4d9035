package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"go.uber.org/zap"
)

// binding is how one configured address is bound.
type binding struct {
	named   string // the address as it is configured
	network string // for net.Listen: "tcp4", "tcp6", or "tcp" for both families
	addr    string
	covered string // the configured address whose socket takes its connections; "": none
}

// BindMissing binds those of the addresses, "ip:port", "[ipv6]:port", ":port" or "host:port"
// each, that are not bound already. "0.0.0.0" is every IPv4 address. "[::]" and ":port"
// are every address of both families, but IPv6 alone where an IPv4 address with the same
// port is in the list. An address that another one of the list covers shares its socket.
//
// The result has one entry for each address, nil for those that need no new socket. If one
// cannot be bound none stays bound and the error names it.
func BindMissing(addrs []string, bound func(i int) bool, log *zap.Logger) ([]net.Listener, error) {
	all := make([]net.Listener, len(addrs))
	// All or none: a daemon that listens on a part of its addresses looks well and is not.
	for i, b := range bindings(addrs) {
		if bound(i) {
			continue
		}
		ln, err := b.bind(log, nil)
		if err != nil {
			for _, ln := range all[:i] {
				if ln != nil {
					ln.Close()
				}
			}
			return nil, err
		}
		all[i] = ln
	}
	return all, nil
}

// bind binds the address, with what control does to the socket before. It returns nil
// where the address needs no socket.
func (b binding) bind(log *zap.Logger, control func(network, address string, c syscall.RawConn) error) (net.Listener, error) {
	if b.covered != "" {
		log.Info("an address is covered by another one", zap.String("address", b.named), zap.String("by", b.covered))
		return nil, nil
	}
	config := net.ListenConfig{KeepAlive: keepAlive, Control: control}
	ln, err := config.Listen(context.Background(), b.network, b.addr)
	switch {
	case err == nil:
		return ln, nil
	case b.network == "tcp6" && errors.Is(err, syscall.EAFNOSUPPORT):
		log.Warn("this host has no IPv6", zap.String("address", b.named))
		return nil, nil
	}
	return nil, fmt.Errorf("listen on %s: %w", b.named, cause(err))
}

// bindings decides how each of addrs is bound, so that no two of them are in each
// other's way.
func bindings(addrs []string) []binding {
	// Which socket an address needs depends on the others with the same port.
	ends := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		ends[i] = endpoint(addr)
	}
	all := make([]binding, len(addrs))
	for i, end := range ends {
		all[i] = binding{named: addrs[i], network: "tcp", addr: addrs[i]}
		if !end.IsValid() {
			continue // Listen reports why
		}

		// First as if it were alone.
		any6 := end.Addr().Is6() && end.Addr().IsUnspecified()
		switch {
		case end.Addr().Is4(): // "tcp" would make every address of both families of 0.0.0.0
			all[i].network, all[i].addr = "tcp4", end.String()
		case any6: // ":port" works on a host without IPv6 too
			all[i].addr = fmt.Sprintf(":%d", end.Port())
		}
		if end.Port() == 0 {
			continue
		}

		// Then beside the others: two sockets cannot have the same part of the address space.
		for k, other := range ends {
			switch {
			case k == i || !other.IsValid() || other.Port() != end.Port():
			case other.Addr().Is4() != end.Addr().Is4():
				if any6 {
					all[i].network, all[i].addr = "tcp6", fmt.Sprintf("[::]:%d", end.Port())
				}
			case other.Addr() == end.Addr() && k < i, other.Addr() != end.Addr() && other.Addr().IsUnspecified():
				all[i].covered = addrs[k]
			}
		}
	}
	return all
}

// parts returns the addresses that b takes connections of, 0.0.0.0 and :: each for all of
// their family; nil: it is not known.
func (b binding) parts() []netip.AddrPort {
	end := endpoint(b.addr)
	switch {
	case !end.IsValid() || end.Port() == 0 || b.covered != "":
		return nil
	case b.network == "tcp" && end.Addr().Is6() && end.Addr().IsUnspecified():
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), end.Port()), end}
	}
	return []netip.AddrPort{end}
}

// without returns b for those of its addresses alone that are not in others. ok is false
// if there are none.
func (b binding) without(others []netip.AddrPort) (rest binding, ok bool) {
	parts := b.parts()
	missing := slices.DeleteFunc(slices.Clone(parts), func(one netip.AddrPort) bool { return includes(others, one) })
	switch {
	case len(missing) == len(parts):
		return b, true
	case len(missing) == 0:
		return b, false
	}
	// Of both families one is there.
	b.network, b.addr = "tcp6", missing[0].String()
	if missing[0].Addr().Is4() {
		b.network = "tcp4"
	}
	return b, true
}

// includes reports whether connections to one are connections to an address of all.
func includes(all []netip.AddrPort, one netip.AddrPort) bool {
	return slices.ContainsFunc(all, func(wide netip.AddrPort) bool {
		return wide == one || wide.Port() == one.Port() && wide.Addr().IsUnspecified() && wide.Addr().Is4() == one.Addr().Is4()
	})
}

// isWithin reports whether all connections that b takes are connections to an address of
// all.
func (b binding) isWithin(all []netip.AddrPort) bool {
	parts := b.parts()
	return len(parts) > 0 && !slices.ContainsFunc(parts, func(one netip.AddrPort) bool { return !includes(all, one) })
}

// endpoint is the address that net.Listen would bind for addr, :: where it would
// bind every one; the zero value if there is none.
func endpoint(addr string) netip.AddrPort {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return netip.AddrPort{}
	}
	ip := a.AddrPort().Addr().Unmap()
	if !ip.IsValid() {
		ip = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(ip, uint16(a.Port))
}
