package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"go.uber.org/zap"
)

// binding is how one configured address is bound.
type binding struct {
	network string // for net.Listen: "tcp4", "tcp6", or "tcp" for both families
	addr    string
	covered string // the configured address whose socket takes its connections; "": none
}

// Bind binds addresses, "ip:port", "[ipv6]:port", ":port" or "host:port" each, and
// returns the sockets in that order. "0.0.0.0" is every IPv4 address. "[::]" and
// ":port" are every address of both families, but IPv6 alone where an IPv4 address
// with the same port is in the list. An address that another one of the list covers has no socket of its own.
// If one cannot be bound none stays bound and the error names it.
func Bind(addrs []string, log *zap.Logger) ([]net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: keepAlive}
	var all []net.Listener
	for i, b := range bindings(addrs) {
		if b.covered != "" {
			log.Info("an address is covered by another one", zap.String("address", addrs[i]), zap.String("by", b.covered))
			continue
		}
		ln, err := lc.Listen(context.Background(), b.network, b.addr)
		switch {
		case err == nil:
			all = append(all, ln)
		case b.network == "tcp6" && errors.Is(err, syscall.EAFNOSUPPORT):
			log.Warn("this host has no IPv6", zap.String("address", addrs[i]))
		default:
			for _, ln := range all {
				ln.Close()
			}
			return nil, fmt.Errorf("listen on %s: %w", addrs[i], cause(err))
		}
	}
	return all, nil
}

// bindings decides how each of addrs is bound, so that no two of them are in each
// other's way.
func bindings(addrs []string) []binding {
	ends := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		ends[i] = endpoint(addr)
	}
	all := make([]binding, len(addrs))
	for i, end := range ends {
		all[i] = binding{network: "tcp", addr: addrs[i]}
		if !end.IsValid() {
			continue // Listen says what is wrong with it
		}
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
