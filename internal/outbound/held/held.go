// Package held knows the recipients that are not to be attempted: a pure data
// structure beside the schedule. A recipient is marked when a hold is asked for, and
// parked when its delivery comes up, with everything needed to schedule it again.
package held

import (
	"maps"
	"slices"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/schedule"
)

// Parked is a delivery of held recipients that came up.
type Parked struct {
	schedule.Delivery
	Kept remember.Kept
}

// Register has held recipients by message and index; nil while the delivery has not
// come up. The zero Register is empty, and not safe for concurrent use.
type Register map[mail.ID]map[int]*Parked

// Has reports whether a recipient is held.
func (h Register) Has(id mail.ID, recipient int) bool {
	_, marked := h[id][recipient]
	return marked
}

// Mark notes that a recipient is held, unless it is parked already.
func (h Register) Mark(id mail.ID, recipient int) {
	if h[id][recipient] == nil {
		h.putParked(id, recipient, nil)
	}
}

// Park keeps a held recipient out of the schedule.
func (h Register) Park(v Parked, recipient int) {
	v.Recipients = []int{recipient}
	h.putParked(v.ID, recipient, &v)
}

func (h Register) putParked(id mail.ID, recipient int, v *Parked) {
	if h[id] == nil {
		h[id] = map[int]*Parked{}
	}
	h[id][recipient] = v
}

// Unmark forgets marks of recipients that are done with. Parked ones stay.
func (h Register) Unmark(id mail.ID, recipients []int) {
	of := h[id]
	for _, i := range recipients {
		if of[i] == nil {
			delete(of, i)
		}
	}
	if len(of) == 0 {
		delete(h, id)
	}
}

// Take forgets recipients, nil means all of the message, and returns the deliveries
// of those that were parked: those that are due together are one, unless each is to be
// apart.
func (h Register) Take(id mail.ID, recipients []int, apart bool) (all []*Parked) {
	// Recipients that are only marked are in the schedule still, and need nothing.
	of := h[id]
	if recipients == nil {
		recipients = slices.Sorted(maps.Keys(of))
	}
	type key struct {
		domain   string
		attempts int
		next     int64
	}

	// They were one delivery before, and are one again.
	together := map[key]*Parked{}
	for _, i := range recipients {
		v := of[i]
		delete(of, i)
		if v == nil {
			continue
		}
		k := key{v.Domain, v.Attempts, v.Next.UnixNano()}
		if first := together[k]; first != nil && !apart {
			first.Recipients = append(first.Recipients, i)
			continue
		}
		together[k] = v
		all = append(all, v)
	}
	if len(of) == 0 {
		delete(h, id)
	}
	return all
}
