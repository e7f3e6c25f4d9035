package outbound

import (
	"maps"
	"slices"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/account"
	"tarishi/internal/outbound/held"
	"tarishi/internal/schedule"
)

// Hold keeps recipients of a message, by their indices in its envelope (nil: all
// that are not settled), from being attempted until Release. It is durable when
// Hold returns nil; an error is the queue's. An attempt that runs is not stopped,
// but is the last one. Held recipients do not expire.
func (o *Outbound) Hold(id mail.ID, recipients []int) error {
	defer o.holding.Lock(id)()
	if err := o.o.Queue.Hold(id, recipients); err != nil {
		return err
	}

	// Waiting recipients stay in the schedule until they come up: to find them takes a look at all.
	p, _ := o.o.Queue.Find(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range p.Recipients {
		if r.Held {
			o.held.Mark(id, r.Index)
		}
	}
	return nil
}

// Release undoes Hold, in the same way; nil means all that are held. Recipients
// that fell due meanwhile are due now, others at their time.
func (o *Outbound) Release(id mail.ID, recipients []int) error {
	defer o.holding.Lock(id)()
	if err := o.o.Queue.Release(id, recipients); err != nil {
		return err
	}
	o.unpark(id, recipients)
	return nil
}

// unpark schedules what was held; nil means all.
func (o *Outbound) unpark(id mail.ID, recipients []int) {
	o.mu.Lock()
	o.adopting.Release(id) // the queue may have passed it on already, as one that is held
	now := o.o.Now()
	for _, v := range o.held.Take(id, recipients, o.current().AlwaysSplit) {
		o.keepFor(o.schedule.Add(now, v.Delivery), v.Kept)
	}
	o.mu.Unlock()
	o.signal()
}

// reconcile unparks what was parked although it is not held any more.
func (o *Outbound) reconcile(id mail.ID) {
	defer o.holding.Lock(id)()
	p, _ := o.o.Queue.Find(id)

	// Not nil: that would be all of them.
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

	// A unit may have recipients that are held and others that are not.
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
			if _, marked := h[i]; !marked {
				free = append(free, i)
				continue
			}
			taken = true
			o.held.Park(held.Parked{Kept: o.kept[u].Clone(), Delivery: schedule.Delivery{ // each has its own
				ID: u.ID(), Domain: u.Domain(), Attempts: u.Attempts(), Next: u.Next(), Received: u.Received(), Null: u.Null(), Marked: u.Marked(),
			}}, i)
		}

		// The rest of the unit is due at once, since it was handed out.
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

	// Walk must not change the schedule, so they are dropped behind it.
	var units []*schedule.Unit
	o.schedule.WalkOf(func(u *schedule.Unit) bool {
		if !u.Running() {
			units = append(units, u)
		}
		return true
	}, ids...)
	o.drop(units, func(id mail.ID) bool { return gone[id] })
}

// drop forgets units, and what else waits of messages that are gone. The caller holds
// o.mu.
func (o *Outbound) drop(units []*schedule.Unit, gone func(mail.ID) bool) {
	for _, u := range units {
		delete(o.kept, u)
		o.schedule.Drop(u)
	}
	o.notifier.Forget(gone)
	o.unrecorded = slices.DeleteFunc(o.unrecorded, func(d account.Unrecorded) bool { return gone(d.ID) })
	maps.DeleteFunc(o.held, func(id mail.ID, _ map[int]*held.Parked) bool { return gone(id) })
}
