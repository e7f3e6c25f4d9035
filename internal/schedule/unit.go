package schedule

import (
	"math"
	"time"

	"tarishi/internal/mail"
)

type class uint8

// The classes of ready units. Mail from the null sender, DSNs above all, has
// places of its own, tried or not.
const (
	fresh class = iota
	retry
	null
	classes
)

type state uint8

const (
	waiting state = iota
	ready
	doomed // expired while it was ready: Expire hands it out
	running
	displaced // running, and its domain has become part of another site meanwhile
	gone
)

type flags uint8

const (
	fromNull flags = 1 << iota
	overdue        // it was too old when it came in: there is one attempt left
	expired        // handed out by Expire
	marked         // see Unit.Mark
	late           // handed out by Expire for Limits.Warning
)

// Delivery is what Add puts in: some recipients of one message that share a
// domain.
type Delivery struct {
	ID         mail.ID
	Domain     string    // canonical
	Recipients []int     // indices in the message's envelope, at least one
	Attempts   int       // that ended in a deferral
	Next       time.Time // due; the zero time and any time up to now: at once
	Received   time.Time // when the message came; its lifetime begins there
	Null       bool      // from the null sender
	Marked     bool      // see Unit.Mark
}

// Unit is one delivery. Its fields are packed because a million of them may
// wait at a time: 64 bytes. A running Unit belongs to whom Due or Expire gave
// it; other units may only be read through the Schedule.
type Unit struct {
	dest     *domain
	more     *more    // what does not fit in here
	next     int64    // when due: nanoseconds since 1970
	received int64    // as next
	id       mail.Key // unless more has it
	first    int32
	index    int32 // in the heap, list or set that its state says
	attempts uint16
	state    state
	flags    flags // while the unit runs they are its runner's, unlike state
}

// more is what few units need.
type more struct {
	recipients []int32 // all, unless it is only Unit.first
	id         mail.ID // one that has no key
}

// ID returns the message's id.
func (u *Unit) ID() mail.ID {
	if u.more != nil && u.more.id != "" {
		return u.more.id
	}
	return u.id.ID()
}

// Domain returns the destination domain as it was given to Add.
func (u *Unit) Domain() string { return u.dest.name }

// Recipients returns the indices of the recipients in the message's envelope.
func (u *Unit) Recipients() []int {
	if u.more == nil || u.more.recipients == nil {
		return []int{int(u.first)}
	}
	all := make([]int, len(u.more.recipients))
	for i, r := range u.more.recipients {
		all[i] = int(r)
	}
	return all
}

// Attempts returns how many attempts ended in a deferral.
func (u *Unit) Attempts() int { return int(u.attempts) }

// Next returns when the unit was or becomes due.
func (u *Unit) Next() time.Time { return time.Unix(0, u.next) }

// Received returns when the message came.
func (u *Unit) Received() time.Time { return time.Unix(0, u.received) }

// Null reports whether the message is from the null sender.
func (u *Unit) Null() bool { return u.flags&fromNull != 0 }

// Running reports whether the unit has been handed out.
func (u *Unit) Running() bool { return u.state == running || u.state == displaced }

// Expired reports whether the unit was handed out by Expire: it is to be given
// up without another attempt.
func (u *Unit) Expired() bool { return u.flags&expired != 0 }

// Late reports whether the unit was handed out by Expire although its lifetime
// is not over: Limits.Warning is.
func (u *Unit) Late() bool { return u.flags&late != 0 }

// Mark notes that a warning about the unit has been given; it is not Late again.
// Only who runs the unit may call it.
func (u *Unit) Mark() { u.flags |= marked }

// Marked reports whether Mark was called.
func (u *Unit) Marked() bool { return u.flags&marked != 0 }

func (u *Unit) set(recipients []int, attempts int, next time.Time) {
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

func (u *Unit) class() class {
	switch {
	case u.flags&fromNull != 0:
		return null
	case u.attempts == 0:
		return fresh
	}
	return retry
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
