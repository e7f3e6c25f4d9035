package outbound

import (
	"fmt"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/schedule"
)

// Hold keeps recipients of a message, by their indices in its envelope, from
// being attempted until Release. An attempt that runs is not stopped. Held
// recipients do not expire. The queue is told by who calls.
func (o *Outbound) Hold(id mail.ID, recipients []int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, i := range recipients {
		if h := o.held[id]; h == nil || h[i] == nil {
			o.hold(id, i, nil)
		}
	}
}

// hold notes that a recipient is held. The caller holds o.mu.
func (o *Outbound) hold(id mail.ID, recipient int, v *schedule.Delivery) {
	h := o.held[id]
	if h == nil {
		h = map[int]*schedule.Delivery{}
		o.held[id] = h
	}
	h[recipient] = v
}

// park keeps a held recipient out of the schedule. The caller holds o.mu.
func (o *Outbound) park(v *schedule.Delivery, recipient int) {
	v.Recipients = []int{recipient}
	o.hold(v.ID, recipient, v)
}

// Release makes recipients that were held due now.
func (o *Outbound) Release(id mail.ID, recipients []int) {
	o.mu.Lock()
	type key struct {
		domain   string
		attempts int
	}
	groups := map[key]*schedule.Delivery{}
	h := o.held[id]
	now := o.o.Now()
	for _, i := range recipients {
		v, held := h[i]
		delete(h, i)
		if !held || v == nil {
			continue
		}
		k := key{v.Domain, v.Attempts}
		if g := groups[k]; g != nil && !o.o.AlwaysSplit {
			g.Recipients = append(g.Recipients, i)
			continue
		} else if g != nil {
			o.schedule.Add(now, *g)
		}
		v.Next = time.Time{}
		groups[k] = v
	}
	for _, v := range groups {
		o.schedule.Add(now, *v)
	}
	if len(h) == 0 {
		delete(o.held, id)
	}
	o.mu.Unlock()
	o.signal()
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
		if len(h) == 0 || o.owed[u] {
			kept = append(kept, u)
			continue
		}
		var free []int
		parked := false
		for _, i := range u.Recipients() {
			if _, held := h[i]; !held {
				free = append(free, i)
				continue
			}
			parked = true
			o.park(&schedule.Delivery{
				ID: u.ID(), Domain: u.Domain(), Attempts: u.Attempts(), Received: u.Received(), Null: u.Null(), Marked: u.Marked(),
			}, i)
		}
		switch {
		case !parked:
			kept = append(kept, u)
		case len(free) == 0:
			delete(o.notes, u)
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
	o.schedule.Walk(func(u *schedule.Unit) bool {
		if gone[u.ID()] && !u.Running() {
			units = append(units, u)
		}
		return true
	})
	for _, u := range units {
		delete(o.owed, u)
		delete(o.notes, u)
		o.schedule.Drop(u)
	}
	for _, id := range ids {
		delete(o.held, id)
	}
}

// Waiting says what a delivery of a message waits for.
type Waiting struct {
	Domain     string
	Recipients []int // indices in the envelope
	Attempts   int   // that ended in a deferral
	Next       time.Time
	Reason     string // in a few words
}

// Explain tells what each delivery of a message waits for, in no order. Nothing
// is returned for a message that is not scheduled.
func (o *Outbound) Explain(id mail.ID) []Waiting {
	disabled := o.o.Disabled()
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.o.Now()
	var all []Waiting
	o.schedule.Walk(func(u *schedule.Unit) bool {
		if u.ID() != id {
			return true
		}
		w := Waiting{u.Domain(), u.Recipients(), u.Attempts(), u.Next(), o.schedule.Why(u, now)}
		switch {
		case u.Running():
		case o.owed[u]:
			w.Reason = "the queue could not record that it is done with, " + w.Reason
		case disabled:
			w.Reason = fmt.Sprintf("delivery is disabled (%s)", w.Reason)
		}
		all = append(all, w)
		return true
	})
	for i, v := range o.held[id] {
		if v != nil {
			all = append(all, Waiting{v.Domain, []int{i}, v.Attempts, v.Next, "held"})
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
