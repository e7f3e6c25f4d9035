package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"go.uber.org/zap"

	"tarishi/internal/ini"
)

// Change is a change of addresses and limits that has been prepared: new addresses are
// bound, and clients that connect to them wait in the queue of the kernel. Either Apply or
// Discard has to follow.
type Change struct {
	listener *Listener
	settings Settings
	sockets  []*socket // in the order of settings.Addrs
	added    []*socket // those of them that are new
}

// Change prepares new settings. An address that stays keeps its socket. On an error, which
// names file, key and address, nothing is changed. One Change at a time.
func (l *Listener) Change(next Settings) (*Change, error) {
	change, err := l.prepare(next)
	if err == nil {
		return change, nil
	}
	// Only a start can bind such a port, before it gives up its rights.
	text := err.Error()
	if errors.Is(err, syscall.EACCES) {
		text += "; a port below 1024 can be bound at the start only, so restart the daemon"
	}
	return nil, errors.New(ini.Problem{File: ini.Place(smtpFile), Key: "listen", Text: text}.String())
}

// prepare binds the addresses of next that have no socket yet.
func (l *Listener) prepare(next Settings) (*Change, error) {
	if len(next.Addrs) == 0 {
		return nil, errors.New("listen: no address is configured")
	}
	l.mu.Lock()
	old := slices.Clone(l.sockets)
	l.mu.Unlock()

	// Sockets that stay are known first, for they decide what is missing.
	wanted := bindings(next.Addrs)
	kept, more := keep(wanted, old)
	var there []netip.AddrPort
	for _, s := range slices.Concat(kept, more) {
		if s != nil {
			there = append(there, s.parts()...)
		}
	}

	change := &Change{listener: l, settings: next}
	for i, b := range wanted {
		s := kept[i]
		if rest, missing := b.without(there); s == nil && missing {
			var err error
			if s, err = change.bind(rest, old); err != nil {
				change.Discard()
				return nil, err
			}
		}
		if s != nil {
			change.sockets = append(change.sockets, s)
		}
	}
	change.sockets = append(change.sockets, more...)
	return change, nil
}

// keep returns those of the old sockets that stay: for each of the wanted addresses the one
// that is bound as it would be, nil where there is none, and more that the wanted addresses
// include. The kernel prefers a narrow socket to a wide one; it stays beside that, for a
// close could cost a client.
func keep(wanted []binding, old []*socket) (kept, more []*socket) {
	// An old socket serves one address: those with port 0 look alike.
	rest := slices.Clone(old)
	kept = make([]*socket, len(wanted))
	var all []netip.AddrPort
	for i, b := range wanted {
		all = append(all, b.parts()...)
		same := func(s *socket) bool { return b.covered == "" && s.network == b.network && s.addr == b.addr }
		if at := slices.IndexFunc(rest, same); at >= 0 {
			kept[i] = rest[at]
			rest = slices.Delete(rest, at, at+1)
		}
	}
	return kept, slices.DeleteFunc(rest, func(s *socket) bool { return !s.isWithin(all) })
}

// bind binds a new address; nil: it needs no socket. Where an old socket has a part in the
// address the new one is bound beside it, so that no client is refused in between.
func (c *Change) bind(b binding, old []*socket) (*socket, error) {
	// Most addresses are free; only where one is not is it looked for the reason.
	ln, err := b.bind(c.listener.o.Log, nil)
	if errors.Is(err, syscall.EADDRINUSE) {
		if own := inTheWay(b, old); len(own) > 0 {
			if ln, err = c.bindBeside(b, own); err != nil {
				err = fmt.Errorf("%w: %s of this daemon is in the way, so restart it", err, own[0].named)
			}
		}
	}
	if err != nil || ln == nil {
		return nil, err
	}
	s := newSocket(ln, b)
	c.added = append(c.added, s)
	return s, nil
}

// inTheWay returns those of some sockets that have the port of b.
func inTheWay(b binding, sockets []*socket) (own []*socket) {
	port := endpoint(b.addr).Port()
	for _, s := range sockets {
		if at, err := netip.ParseAddrPort(s.Addr().String()); err == nil && at.Port() == port {
			own = append(own, s)
		}
	}
	return own
}

// Apply has the change take effect: connections are accepted on the new addresses, and on
// those that are gone no more. What they have accepted goes on to its end, and so does what
// waits to be accepted. Limits count at once, for connections that come.
func (c *Change) Apply() {
	// A stop may have come first: then nothing may accept any more.
	l := c.listener
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		c.Discard()
		return
	}
	was, limit := l.sockets, ceiling(c.settings.MaxConnections, l.o.Reserve)
	l.sockets, l.settings, l.most = c.sockets, c.settings, limit
	for _, s := range c.added {
		l.startAccepting(s)
	}
	l.mu.Unlock()

	// A limit that cannot be kept is reported once, where it is set.
	if limit < c.settings.MaxConnections {
		l.o.Log.Warn("the descriptor limit allows fewer connections than are configured", zap.Int("connections", limit), zap.Int("configured", c.settings.MaxConnections))
	}

	// The new addresses answer before the old ones fall silent.
	gone := slices.DeleteFunc(slices.Clone(was), func(s *socket) bool { return slices.Contains(c.sockets, s) })
	for _, s := range gone {
		s.dismiss()
	}
	for _, s := range gone {
		if s.over != nil {
			<-s.over
		}
	}
}

// Discard closes what was bound: all stays as it is.
func (c *Change) Discard() {
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []netip.AddrPort
	for _, s := range l.sockets {
		all = append(all, s.parts()...)
	}
	for _, s := range c.added {
		// Clients of an address that stays may be in its queue already.
		if !l.closed && s.isWithin(all) {
			l.sockets = append(l.sockets, s)
			l.startAccepting(s)
		} else {
			s.Close()
		}
	}
}
