// Package backend remembers what the relay knows about the hosts of its routes: which
// one is next, which could not be reached, and how many messages are on their way
// to each route. It does no I/O and starts nothing: its caller probes the hosts that are
// Due.
package backend

import (
	"maps"
	"slices"
	"sync"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/route"
)

// Set remembers, for routes with several hosts, the next one and those that could
// not be reached, and for all routes how many messages are on their way: the pool
// counts connections for each host, TLS policy and user alone.
type Set struct {
	mu    sync.Mutex
	known map[string]*route.Route // the routes there are, by name; nil: Use was not called yet
	turns map[string]uint         // messages so far, by the name of the route
	gates map[string]*gate        // likewise
	dead  map[Spot]*loss
	Wake  chan struct{} // holds one token after that has grown
}

// New returns an empty Set, which believes that every route is there.
func New() *Set {
	return &Set{turns: map[string]uint{}, gates: map[string]*gate{}, dead: map[Spot]*loss{}, Wake: make(chan struct{}, 1)}
}

// Spot is one host of one route: what another route finds out at the same
// host, with other credentials or encryption, says nothing about it.
type Spot struct {
	Route string
	Hop   mail.NextHop
}

// loss is a host that could not be reached.
type loss struct {
	route   *route.Route
	due     time.Time // when it is looked at again
	probing bool
}

// Use says which routes there are. The knowledge of a host stays if the route still
// has it, and is dropped if not. Messages of a route that is gone, which come from
// connections that began before, find its hosts without that.
func (b *Set) Use(f *route.Settings) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known = make(map[string]*route.Route, 1+len(f.Routes))
	b.known[f.Main.Name] = &f.Main
	for _, r := range f.Routes {
		b.known[r.Name] = r
	}
	maps.DeleteFunc(b.turns, func(name string, _ uint) bool { return b.known[name] == nil })

	// A probe goes by the route as it is now.
	for one, l := range b.dead {
		if !b.canLose(b.known[one.Route], one.Hop) {
			delete(b.dead, one)
			continue
		}
		l.route = b.known[one.Route]
	}
	b.signal()

	// More messages may be on their way now, or there is nobody left to count.
	for name, g := range b.gates {
		if r := b.known[name]; r != nil {
			g.limit = r.MaxConnections
		}
		b.admit(g)
	}
}

// canLose reports whether it is worth to remember that a host of a route cannot be
// reached: not of its only host, nor of one that the route has not any more.
func (b *Set) canLose(r *route.Route, hop mail.NextHop) bool {
	if r != nil && b.known != nil {
		r = b.known[r.Name]
	}
	return r != nil && len(r.Hosts) > 1 && (b.known == nil || slices.Contains(r.Hosts, hop))
}

// Order returns the hosts of a route as a message is to try them: those that
// are well, each message beginning with the next one if they take turns, and
// the dead ones only behind them, for the case that all others fail too.
func (b *Set) Order(r *route.Route) []mail.NextHop {
	if len(r.Hosts) < 2 {
		return r.Hosts
	}
	b.mu.Lock()
	defer b.mu.Unlock()

	// A route in turn begins with the next host for each message, whatever became of the
	// last one.
	turn := uint(0)
	if r.InTurn {
		turn = b.turns[r.Name]
		b.turns[r.Name]++
	}

	// Hosts that were lost come last: a wrong belief must not keep mail back.
	var well, dead []mail.NextHop
	for _, hop := range r.Hosts {
		if b.dead[Spot{r.Name, hop}] != nil {
			dead = append(dead, hop)
		} else {
			well = append(well, hop)
		}
	}
	list := make([]mail.NextHop, 0, len(r.Hosts))
	for _, some := range [][]mail.NextHop{well, dead} {
		for i := range uint(len(some)) {
			list = append(list, some[(turn+i)%uint(len(some))])
		}
	}
	return list
}

// Lost notes that a host could not be reached, and reports whether that is new.
// The only host of a route is tried whatever happened, so it is not noted.
func (b *Set) Lost(r *route.Route, hop mail.NextHop, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := Spot{r.Name, hop}
	if b.dead[one] != nil || !b.canLose(r, hop) {
		return false
	}
	b.dead[one] = &loss{route: r, due: now.Add(r.DeadRetry)}
	b.signal()
	return true
}

// signal says that there is something new for Due.
func (b *Set) signal() {
	select {
	case b.Wake <- struct{}{}:
	default:
	}
}

// Found notes that a host is well, and reports whether that is new.
func (b *Set) Found(r *route.Route, hop mail.NextHop) bool {
	if len(r.Hosts) < 2 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	one := Spot{r.Name, hop}
	was := b.dead[one] != nil
	delete(b.dead, one)
	return was
}

// Probe is a dead host to look at, by the route that it belongs to.
type Probe struct {
	Spot
	By *route.Route
}

// Due returns the dead hosts that are due, which the caller then probes, and
// the time until the next one is; 0: there is none.
func (b *Set) Due(now time.Time) (due []Probe, next time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for one, l := range b.dead {
		// A host that is being probed already is left to that probe.
		switch wait := l.due.Sub(now); {
		case l.probing:
		case wait <= 0:
			l.probing = true
			due = append(due, Probe{one, l.route})
		case next == 0 || wait < next:
			next = wait
		}
	}
	return due, next
}

// PutOff puts off a host that is still dead, unless it was forgotten meanwhile.
func (b *Set) PutOff(one Spot, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.dead[one]; l != nil {
		l.probing, l.due = false, now.Add(l.route.DeadRetry)
		b.signal()
	}
}
