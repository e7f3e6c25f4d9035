// Package unit packs one delivery into few bytes: a million of them may wait at a
// time. It has no behaviour: packages schedule and dispatch move units from one
// state to another.
//
//	            Add, Defer: not due yet
//	──────────────┬──────────────────────────────┐
//	              │ Add, Defer: due              ▼
//	              ▼            its time, Flush   ┌─────────┐
//	          ┌───────┐◀───────────────────────── │ Waiting │
//	    ┌────▶│ Ready │                          └─────────┘
//	    │     └─┬───┬─┘ its lifetime is over, or its   ▲
//	    │       │   │   sender is to be warned         │
//	    │       │   ▼                                  │
//	    │       │ ┌────────┐  Expire                   │ Defer
//	    │       │ │ Doomed ├──────────────┐            │
//	    │       │ └───┬────┘              ▼            │
//	    │   Due │     │ its site     ┌─────────────────┴───┐
//	    │       │     │ is back      │ Running             │  Done, Drop   ┌──────┐
//	    │◀──────┼─────┘              │ (Displaced: its     ├──────────────▶│ Gone │
//	    │       └───────────────────▶│ domain has become   │               └──────┘
//	    │                            │ part of another     │   Drop takes a unit out
//	    └────────────────────────────┤ site, see Locate)   │   of any state.
//	      Locate: no place there now └─────────────────────┘
package unit

import (
	"math"
	"time"

	"tarishi/internal/mail"
)

// State says where a unit is, see the picture above.
type State uint8

// The states of a unit.
const (
	Waiting State = iota
	Ready
	Doomed    // handed out by Expire next
	Running   // handed out
	Displaced // running, and its domain has become part of another site meanwhile
	Gone
)

// Flags are facts about a unit.
type Flags uint8

// The flags of a unit.
const (
	FromNull Flags = 1 << iota
	Overdue        // it was too old when it came in: there is one attempt left
	Expired        // handed out by Expire
	Marked         // see Packed.Mark
	Late           // handed out by Expire for Limits.Warning
)

// Delivery is what a unit is made of: some recipients of one message that share a
// domain.
type Delivery struct {
	ID         mail.ID
	Domain     string    // canonical
	Recipients []int     // indices in the message's envelope, at least one
	Attempts   int       // that ended in a deferral
	Next       time.Time // due; the zero time and any time up to now: at once
	Received   time.Time // when the message came; its lifetime begins there
	Null       bool      // from the null sender
	Marked     bool      // see Packed.Mark
}

// Packed is one delivery in 56 bytes. State and place belong to the structure that
// has the unit; they are here because there is room for them.
type Packed struct {
	more     *more    // what does not fit in here
	next     int64    // when due: nanoseconds since 1970
	received int64    // as next
	id       mail.Key // unless more has it
	first    int32
	place    int32
	attempts uint16
	state    State
	flags    Flags // while the unit runs they belong to the caller that runs it
}

// more is what few units need.
type more struct {
	recipients []int32 // all, unless it is only Packed.first
	id         mail.ID // one that has no key
}

// Pack packs a delivery, which is in no state yet.
func Pack(v Delivery) Packed {
	// Nearly every ID has a short form, and needs no memory beside the unit then.
	u := Packed{received: nanoseconds(v.Received)}
	if k, ok := v.ID.Key(); ok {
		u.id = k
	} else {
		u.more = &more{id: v.ID}
	}
	if v.Null {
		u.flags |= FromNull
	}
	if v.Marked {
		u.flags |= Marked
	}
	u.SetDelivery(v.Recipients, v.Attempts, v.Next)
	return u
}

// At returns when the unit was or becomes due, Arrived when the message came, in
// nanoseconds since 1970.
func (u *Packed) At() int64      { return u.next }
func (u *Packed) Arrived() int64 { return u.received }

// SetAt changes when the unit is due. The caller restores the order.
func (u *Packed) SetAt(next int64) { u.next = next }

// Place is the unit's index in the structure that its state says.
func (u *Packed) Place() *int32 { return &u.place }

// State returns where the unit is. SetState is for the packages that move it.
func (u *Packed) State() State         { return u.state }
func (u *Packed) SetState(state State) { u.state = state }

// Has reports whether one of some flags is set; Set and Clear change them.
func (u *Packed) Has(some Flags) bool { return u.flags&some != 0 }
func (u *Packed) Set(some Flags)      { u.flags |= some }
func (u *Packed) Clear(some Flags)    { u.flags &^= some }

// IsOf reports whether the unit is part of one of some messages: keys has those of
// which the IDs have a Key.
func (u *Packed) IsOf(keys map[mail.Key]bool, others map[mail.ID]bool) bool {
	if u.more != nil && u.more.id != "" {
		return others[u.more.id]
	}
	return keys[u.id]
}

// ID returns the message's id.
func (u *Packed) ID() mail.ID {
	if u.more != nil && u.more.id != "" {
		return u.more.id
	}
	return u.id.ID()
}

// Recipients returns the indices of the recipients in the message's envelope.
func (u *Packed) Recipients() []int {
	if u.more == nil || u.more.recipients == nil {
		return []int{int(u.first)}
	}
	all := make([]int, len(u.more.recipients))
	for i, r := range u.more.recipients {
		all[i] = int(r)
	}
	return all
}

// Many returns how many recipients there are.
func (u *Packed) Many() int {
	if u.more == nil || u.more.recipients == nil {
		return 1
	}
	return len(u.more.recipients)
}

// Attempts returns how many attempts ended in a deferral.
func (u *Packed) Attempts() int { return int(u.attempts) }

// Next returns when the unit was or becomes due.
func (u *Packed) Next() time.Time { return time.Unix(0, u.next) }

// Received returns when the message came.
func (u *Packed) Received() time.Time { return time.Unix(0, u.received) }

// Null reports whether the message is from the null sender.
func (u *Packed) Null() bool { return u.flags&FromNull != 0 }

// Running reports whether the unit has been handed out.
func (u *Packed) Running() bool { return u.state == Running || u.state == Displaced }

// Expired reports whether the unit was handed out by Expire: it is to be given
// up without another attempt.
func (u *Packed) Expired() bool { return u.flags&Expired != 0 }

// Late reports whether the unit was handed out by Expire although its lifetime
// is not over: Limits.Warning is.
func (u *Packed) Late() bool { return u.flags&Late != 0 }

// Mark notes that a warning about the unit has been given; it is not Late again.
// Only the caller that runs the unit may call it.
func (u *Packed) Mark() { u.flags |= Marked }

// Marked reports whether Mark was called.
func (u *Packed) Marked() bool { return u.flags&Marked != 0 }

// SetDelivery replaces the recipients, the number of deferrals and the time when
// the unit is due.
func (u *Packed) SetDelivery(recipients []int, attempts int, next time.Time) {
	var m more
	if u.more != nil {
		m.id = u.more.id
	}
	if len(recipients) == 1 {
		u.first = int32(recipients[0])
	} else {
		m.recipients = make([]int32, len(recipients))
		for i, r := range recipients {
			m.recipients[i] = int32(r)
		}
	}

	// Nearly all units fit without more.
	switch {
	case m.id == "" && m.recipients == nil:
		u.more = nil
	case u.more == nil:
		u.more = &more{m.recipients, m.id}
	default:
		u.more.recipients = m.recipients
	}
	u.attempts = uint16(min(max(attempts, 0), math.MaxUint16))
	u.next = nanoseconds(next)
}

// nanoseconds is UnixNano for every time, also those outside its range.
func nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s <= 0: // the zero time too: at once
		return 0
	case s >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return t.UnixNano()
}
