package delivery

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// localTTL is how long the list of the interfaces' addresses is believed.
const localTTL = time.Minute

// localAddrs knows which addresses are this host.
type localAddrs struct {
	public netip.Addr
	list   func() ([]netip.Addr, error)
	log    *zap.Logger

	mu    sync.Mutex
	until time.Time
	own   map[netip.Addr]bool
}

// has reports whether a is the loopback, one of our interfaces, the public
// address, or the unspecified address, which connects to this host.
func (l *localAddrs) has(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsUnspecified() || a == l.public {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.until) {
		l.until = now.Add(localTTL)
		addrs, err := l.list()
		if err != nil {
			l.log.Warn("addresses of the interfaces not known", zap.Error(err))
		} else {
			l.own = make(map[netip.Addr]bool, len(addrs))
			for _, a := range addrs {
				l.own[a.Unmap().WithZone("")] = true
			}
		}
	}
	return l.own[a]
}

func interfaceAddrs() ([]netip.Addr, error) {
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
