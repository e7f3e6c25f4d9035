// Package localaddr knows the addresses of this host's interfaces, and which others are
// not of the world. Addresses come and go while a daemon runs, so the list is read again
// after a minute; when that fails, the last one stays.
package localaddr

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// lifetime is how long a list is believed.
const lifetime = time.Minute

// Set is the addresses of this host. It may be used from any goroutine.
type Set struct {
	list func() ([]netip.Addr, error)
	log  *zap.Logger

	mu    sync.Mutex
	until time.Time // the list is read again after that
	own   map[netip.Addr]struct{}
}

// New returns the Set of what list gives; nil lists the system's interfaces.
func New(list func() ([]netip.Addr, error), log *zap.Logger) *Set {
	if list == nil {
		list = interfaces
	}
	return &Set{list: list, log: log}
}

// Has reports whether one of the interfaces has the address a. Zones and the
// mapping of IPv4 into IPv6 make no difference.
func (s *Set) Has(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.After(s.until) {
		s.until = now.Add(lifetime)
		s.read()
	}
	_, found := s.own[normalized(a)]
	return found
}

// read lists the addresses anew. s.mu is held.
func (s *Set) read() {
	addrs, err := s.list()
	if err != nil {
		s.log.Warn("addresses of the interfaces not known", zap.Error(err))
		return
	}
	s.own = make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		s.own[normalized(a)] = struct{}{}
	}
}

func normalized(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// interfaces asks the system.
func interfaces() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			all = append(all, p.Addr())
		}
	}
	return all, nil
}
