package outbound

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/schedule"
)

// parked is a held recipient whose delivery came up, and what is needed to
// schedule it again.
type parked struct {
	schedule.Delivery
	kept kept
}

// Hold keeps recipients of a message, by their indices in its envelope (nil: all
// that are not settled), from being attempted until Release. It is durable when
// Hold returns nil; an error is the queue's. An attempt that runs is not stopped,
// but is the last one. Held recipients do not expire.
func (o *Outbound) Hold(id mail.ID, recipients []int) error {
	defer o.holding.lock(id)()
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
	defer o.holding.lock(id)()
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
	o.adopting.release(id) // the queue may have passed it on already, as one that is held
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
	defer o.holding.lock(id)()
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
			k := o.kept[u]
			k.notes, k.message = k.notes.Clone(), k.message.Clone() // each has its own
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

// Forget drops messages that were taken out of the queue. An attempt that runs
// is not stopped.
func (o *Outbound) Forget(ids ...mail.ID) {
	gone := make(map[mail.ID]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var units []*schedule.Unit
	o.schedule.WalkOf(func(u *schedule.Unit) bool {
		if !u.Running() {
			units = append(units, u)
		}
		return true
	}, ids...)
	o.drop(units, func(id mail.ID) bool { return gone[id] })
}

// drop forgets units, and what else waits of messages that are gone. The caller
// holds o.mu.
func (o *Outbound) drop(units []*schedule.Unit, gone func(mail.ID) bool) {
	for _, u := range units {
		delete(o.kept, u)
		o.schedule.Drop(u)
	}
	o.gathering.forget(gone)
	o.debts = slices.DeleteFunc(o.debts, func(d debt) bool { return gone(d.id) })
	maps.DeleteFunc(o.held, func(id mail.ID, _ map[int]*parked) bool { return gone(id) })
}

// Waiting says what a delivery of a message waits for.
type Waiting struct {
	Domain     string
	Recipients []int // indices in the envelope
	Attempts   int   // that ended in a deferral
	Next       time.Time
	Reason     string // in a few words
	Host       string // that a running attempt is trying; "": none yet, or it does not run
}

// Explain tells what each delivery of a message waits for, in no order. Nothing
// is returned for a message that is not scheduled.
func (o *Outbound) Explain(id mail.ID) []Waiting {
	disabled := o.o.Disabled()
	p, _ := o.o.Queue.Find(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.o.Now()
	var all []Waiting
	o.schedule.WalkOf(func(u *schedule.Unit) bool {
		w := Waiting{Domain: u.Domain(), Recipients: u.Recipients(), Attempts: u.Attempts(), Next: u.Next(), Reason: o.schedule.Why(u, now)}
		if a := o.running[u]; a != nil {
			if host := a.host.Load(); host != nil {
				w.Host = *host
			}
		}
		held := 0
		for _, i := range w.Recipients {
			if _, marked := o.held[id][i]; marked {
				held++
			}
		}
		switch {
		case u.Running():
		case held == len(w.Recipients):
			w.Reason = "held"
		case held > 0:
			w.Reason = fmt.Sprintf("%d held, the others: %s", held, w.Reason)
		case disabled:
			w.Reason = fmt.Sprintf("delivery is disabled (%s)", w.Reason)
		}
		all = append(all, w)
		return true
	}, id)
	all = append(all, o.gathering.explain(&p)...)
	for _, d := range o.debts {
		if d.id == id {
			all = append(all, Waiting{Domain: d.domain, Recipients: d.recipients, Next: d.next, Reason: "done with, but the queue could not record it yet"})
		}
	}
	for i, v := range o.held[id] {
		if v != nil {
			all = append(all, Waiting{Domain: v.Domain, Recipients: []int{i}, Attempts: v.Attempts, Next: v.Next, Reason: "held"})
		}
	}
	return all
}

// Destinations returns what is known of the limit domains with the most
// deliveries, the largest first.
func (o *Outbound) Destinations(limit int) []schedule.DestinationStat {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.Destinations(o.o.Now(), limit)
}

// Suspensions returns the domains whose site is suspended.
func (o *Outbound) Suspensions() map[string]schedule.Suspension {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.Suspensions(o.o.Now())
}

// Overview returns what is known of limit domains, the oldest and the largest,
// and of all others together.
func (o *Outbound) Overview(limit int) ([]schedule.DestinationStat, schedule.Rest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.Overview(o.o.Now(), limit)
}
