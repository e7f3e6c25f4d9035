package backend

import (
	"context"
	"slices"

	"tarishi/internal/route"
)

// gate lets so many messages at a time on their way to a route.
type gate struct {
	name    string
	limit   int // changes with the configuration; never less than 1
	inside  int // more than limit for a while after that was lowered
	waiting []chan struct{}
}

// Slot is one of the messages on their way to a route. The zero Slot is one of any
// number.
type Slot struct {
	set  *Set
	gate *gate
}

// Enter waits until the route has a connection to spare, and reports whether it
// got one before ctx ended. The limit is that of the configuration now, also for routes of
// an earlier one.
func (b *Set) Enter(ctx context.Context, r *route.Route) (s Slot, ok bool) {
	if r.MaxConnections <= 0 || r.Name == route.NoteNextHop { // one name for many routes, each of one host
		return Slot{}, true
	}

	// A gate stands as long as its route, or as somebody is inside.
	b.mu.Lock()
	g := b.gates[r.Name]
	if g == nil {
		g = &gate{name: r.Name}
		b.gates[r.Name] = g
	}
	if g.limit = r.MaxConnections; b.known[r.Name] != nil {
		g.limit = b.known[r.Name].MaxConnections
	}
	if g.inside < g.limit && len(g.waiting) == 0 {
		g.inside++
		b.mu.Unlock()
		return Slot{b, g}, true
	}

	// First come, first served: each Leave lets the next one in.
	turn := make(chan struct{})
	g.waiting = append(g.waiting, turn)
	b.mu.Unlock()
	select {
	case <-turn:
		return Slot{b, g}, true
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(g.waiting, turn); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	} else { // it was let in at the same moment
		g.inside--
	}
	b.admit(g)
	return Slot{}, false
}

// Leave gives the slot back.
func (s Slot) Leave() {
	if s.gate == nil {
		return
	}
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	s.gate.inside--
	s.set.admit(s.gate)
}

// admit lets in as many as there is room for, and forgets the gate of a route that is gone
// when nobody is left. b.mu is held.
func (b *Set) admit(g *gate) {
	for len(g.waiting) > 0 && g.inside < g.limit {
		g.inside++
		close(g.waiting[0])
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
	}
	if b.known != nil && b.known[g.name] == nil && g.inside == 0 && len(g.waiting) == 0 && b.gates[g.name] == g {
		delete(b.gates, g.name)
	}
}
