package outbound

import (
	"maps"
	"slices"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/schedule"
)

// parked is a held recipient whose delivery came up, and what is needed to
// schedule it again.
type parked struct {
	schedule.Delivery
	kept attempt.Kept
}

// Hold keeps recipients of a message, by their indices in its envelope (nil: all
// that are not settled), from being attempted until Release. It is durable when
// Hold returns nil; an error is the queue's. An attempt that runs is not stopped,
// but is the last one. Held recipients do not expire.
func (o *Outbound) Hold(id mail.ID, recipients []int) error {
	o.holding.Lock()
	defer o.holding.Unlock()
	if err := o.o.Queue.Hold(id, recipients); err != nil {
		return err
	}
	p, _ := o.o.Queue.Find(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range p.Recipients {
		if r.Held && o.held[id][r.Index] == nil {
			o.hold(id, r.Index, nil)
		}
	}
	return nil
}

// hold notes that a recipient is held. The caller holds o.mu.
func (o *Outbound) hold(id mail.ID, recipient int, v *parked) {
	h := o.held[id]
	if h == nil {
		h = map[int]*parked{}
		o.held[id] = h
	}
	h[recipient] = v
}

// park keeps a held recipient out of the schedule. The caller holds o.mu.
func (o *Outbound) park(v *parked, recipient int) {
	v.Recipients = []int{recipient}
	o.hold(v.ID, recipient, v)
}

// Release undoes Hold, in the same way; nil means all that are held. Recipients
// whose time came meanwhile are due now, others at their time.
func (o *Outbound) Release(id mail.ID, recipients []int) error {
	o.holding.Lock()
	defer o.holding.Unlock()
	if err := o.o.Queue.Release(id, recipients); err != nil {
		return err
	}
	o.unpark(id, recipients)
	return nil
}

// unpark schedules what was held; nil means all.
func (o *Outbound) unpark(id mail.ID, recipients []int) {
	o.mu.Lock()
	h := o.held[id]
	if recipients == nil {
		recipients = slices.Sorted(maps.Keys(h))
	}
	if o.flushed != nil { // the queue may have told of it already, see load
		o.released = append(o.released, id)
	}
	type key struct {
		domain   string
		attempts int
		next     int64
	}
	groups := map[key]*parked{}
	var order []*parked
	for _, i := range recipients {
		v := h[i]
		delete(h, i)
		if v == nil {
			continue
		}
		k := key{v.Domain, v.Attempts, v.Next.UnixNano()}
		if g := groups[k]; g != nil && !o.o.AlwaysSplit {
			g.Recipients = append(g.Recipients, i)
			continue
		}
		groups[k] = v
		order = append(order, v)
	}
	now := o.o.Now()
	for _, v := range order {
		o.keepFor(o.schedule.Add(now, v.Delivery), v.kept)
	}
	if len(h) == 0 {
		delete(o.held, id)
	}
	o.mu.Unlock()
	o.signal()
}

// reconcile unparks what was parked although it is not held any more.
func (o *Outbound) reconcile(id mail.ID) {
	o.holding.Lock()
	defer o.holding.Unlock()
	p, _ := o.o.Queue.Find(id)
	free := []int{}
	for _, r := range p.Recipients {
		if !r.Held {
			free = append(free, r.Index)
		}
	}
	o.unpark(id, free)
}

// withhold takes held recipients out of units that were handed out, and returns
// the units that are to run. The caller holds o.mu.
func (o *Outbound) withhold(now time.Time, units []*schedule.Unit) []*schedule.Unit {
	if len(o.held) == 0 {
		return units
	}
	kept := units[:0]
	for _, u := range units {
		h := o.held[u.ID()]
		if len(h) == 0 {
			kept = append(kept, u)
			continue
		}
		var free []int
		taken := false
		for _, i := range u.Recipients() {
			if _, held := h[i]; !held {
				free = append(free, i)
				continue
			}
			taken = true
			k := o.kept[u].Clone() // each has its own
			o.park(&parked{schedule.Delivery{
				ID: u.ID(), Domain: u.Domain(), Attempts: u.Attempts(), Next: u.Next(), Received: u.Received(), Null: u.Null(), Marked: u.Marked(),
			}, k}, i)
		}
		switch {
		case !taken:
			kept = append(kept, u)
		case len(free) == 0:
			delete(o.kept, u)
			o.schedule.Done(u)
		default:
			o.schedule.Defer(u, now, free, u.Attempts(), now)
		}
	}
	return kept
}

// unmark forgets that recipients are held which are done with. The caller holds
// o.mu.
func (o *Outbound) unmark(id mail.ID, recipients []int) {
	h := o.held[id]
	if len(h) == 0 {
		return
	}
	for _, i := range recipients {
		if h[i] == nil {
			delete(h, i)
		}
	}
	if len(h) == 0 {
		delete(o.held, id)
	}
}
