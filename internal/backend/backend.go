// Package backend remembers what the relay knows about the hosts of its routes: which
// one is next, which could not be reached, and how many messages are on their way
// to each route. It does no I/O and starts nothing: its caller probes the hosts that are
// Due.
package backend

import (
	"context"
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
	turns map[string]uint // messages so far, by the name of the route
	slots map[string]Slot // a token for each message on its way, likewise
	dead  map[Spot]*Loss
	Wake  chan struct{} // holds one token after that has grown
}

// New returns an empty Set.
func New() *Set {
	return &Set{turns: map[string]uint{}, slots: map[string]Slot{}, dead: map[Spot]*Loss{}, Wake: make(chan struct{}, 1)}
}

// Spot is one host of one route: what another route finds out at the same
// host, with other credentials or encryption, says nothing about it.
type Spot struct {
	Route string
	Hop   mail.NextHop
}

// Loss is a host that could not be reached.
type Loss struct {
	Route   *route.Route
	due     time.Time // when it is looked at again
	probing bool
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

// Slot is one of the messages that may be on their way to a route at the same time; nil:
// there is no limit.
type Slot chan struct{}

// Leave gives the slot back.
func (s Slot) Leave() {
	if s != nil {
		<-s
	}
}

// Enter waits until the route has a connection to spare, and reports whether it
// got one before ctx ended.
func (b *Set) Enter(ctx context.Context, r *route.Route) (s Slot, ok bool) {
	if r.MaxConnections <= 0 || r.Name == route.NoteNextHop { // one name for many routes, each of one host
		return nil, true
	}
	b.mu.Lock()
	slots := b.slots[r.Name]
	if cap(slots) != r.MaxConnections { // the first message, or the first since that was changed
		slots = make(Slot, r.MaxConnections)
		b.slots[r.Name] = slots
	}
	b.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return slots, true
	case <-ctx.Done():
		return nil, false
	}
}

// Lost notes that a host could not be reached, and reports whether that is new.
// The only host of a route is tried whatever happened, so it is not noted.
func (b *Set) Lost(r *route.Route, hop mail.NextHop, now time.Time) bool {
	if len(r.Hosts) < 2 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	one := Spot{r.Name, hop}
	if b.dead[one] != nil {
		return false
	}
	b.dead[one] = &Loss{Route: r, due: now.Add(r.DeadRetry)}
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

// Due returns the dead hosts that are due, which the caller then probes, and
// the time until the next one is; 0: there is none.
func (b *Set) Due(now time.Time) (due map[Spot]*Loss, next time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	due = map[Spot]*Loss{}
	for one, l := range b.dead {
		// A host that is being probed already is left to that probe.
		switch wait := l.due.Sub(now); {
		case l.probing:
		case wait <= 0:
			l.probing, due[one] = true, l
		case next == 0 || wait < next:
			next = wait
		}
	}
	return due, next
}

// PutOff puts off a host that is still dead.
func (b *Set) PutOff(l *Loss, now time.Time) {
	b.mu.Lock()
	l.probing, l.due = false, now.Add(l.Route.DeadRetry)
	b.mu.Unlock()
	b.signal()
}
