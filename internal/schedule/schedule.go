// Package schedule decides what is due: a pure data structure without I/O,
// goroutines or a clock (now is always an argument).
//
// A Unit is one delivery: some recipients of one message that share a
// destination domain. It is in one of three states:
//
//	waiting  its time has not come: in one heap ordered by that time
//	ready    due: in its destination's list, first come first served
//	running  handed out by Due, until Done, Defer or Drop
//
// Due goes round the destinations, one unit of each at a time, so that a
// destination with much mail does not keep the others waiting. Mail that was
// never tried goes before retries, except that a retry gets every tenth place
// so that a steady stream of fresh mail cannot starve it. A destination at its
// cap is left out until one of its units ends.
//
// Invariants: a unit is in exactly one state; the running units are at most
// Options.Concurrency in all and Options.PerDestination for each destination;
// destinations without units are forgotten. Nothing returns an error. A
// Schedule is not safe for concurrent use.
package schedule

import (
	"math"
	"strings"
	"time"

	"tarishi/internal/mail"
)

// retryShare is the place in a row of picks that goes to a retry while both
// fresh mail and retries are ready.
const retryShare = 10

// Options are the caps on running units; 0 means that there is none.
type Options struct {
	Concurrency    int // in all
	PerDestination int // for each domain
}

type class uint8

const (
	fresh class = iota
	retry
	classes
)

type state uint8

const (
	waiting state = iota
	ready
	running
	gone
)

// Unit is one delivery. Its fields are packed because a million of them may
// wait at a time: 64 bytes. A running Unit belongs
// to whom Due gave it; other units may only be read through the Schedule.
type Unit struct {
	dest     *destination
	more     *more    // what does not fit in here
	link     *Unit    // next in its destination's list, while ready
	next     int64    // when due: nanoseconds since 1970
	id       mail.Key // unless more has it
	first    int32
	index    int32 // in the heap, while waiting
	attempts uint16
	state    state
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

// Domain returns the destination as it was given to Add.
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

// Running reports whether the unit has been handed out by Due.
func (u *Unit) Running() bool { return u.state == running }

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
	u.more = nil
	if m.id != "" || m.recipients != nil {
		u.more = &more{m.recipients, m.id}
	}
	u.attempts = uint16(min(max(attempts, 0), math.MaxUint16))
	u.next = nanoseconds(next)
}

func (u *Unit) class() class {
	if u.attempts == 0 {
		return fresh
	}
	return retry
}

// destination is one domain. All its units share the one object.
type destination struct {
	name    string
	units   int32 // in any state
	running int32
	lists   [classes]list
}

// list is what is ready for a destination, and the destination's place in the
// ring of those that have something ready.
type list struct {
	head, tail *Unit
	link       *destination
	queued     bool
}

// ring is the destinations whose turn it is, first come first served.
type ring struct{ head, tail *destination }

// Schedule is the units of one queue. Use New.
type Schedule struct {
	o       Options
	dests   map[string]*destination
	waiting heap
	rings   [classes]ring
	units   int
	running int
	streak  int // fresh units picked in a row while a retry was ready
}

// New returns an empty Schedule.
func New(o Options) *Schedule {
	if o.Concurrency <= 0 {
		o.Concurrency = math.MaxInt32
	}
	if o.PerDestination <= 0 {
		o.PerDestination = math.MaxInt32
	}
	return &Schedule{o: o, dests: map[string]*destination{}}
}

// Add puts a delivery in: the recipients, by their indices in the envelope, of
// message id at domain (in its canonical form), after that many deferrals, due
// at next. The zero time and any time up to now mean at once.
func (s *Schedule) Add(now time.Time, id mail.ID, domain string, recipients []int, attempts int, next time.Time) *Unit {
	d := s.dests[domain]
	if d == nil {
		domain = strings.Clone(domain) // it may be part of a larger string
		d = &destination{name: domain}
		s.dests[domain] = d
	}
	d.units++
	s.units++
	u := &Unit{dest: d}
	if k, ok := id.Key(); ok {
		u.id = k
	} else {
		u.more = &more{id: id}
	}
	u.set(recipients, attempts, next)
	s.place(u, now)
	return u
}

// Due hands out up to limit units that are due at now and fit the caps. They
// are running from then on.
func (s *Schedule) Due(now time.Time, limit int) []*Unit {
	at := now.UnixNano()
	for len(s.waiting) > 0 && s.waiting[0].next <= at {
		s.ready(s.waiting.pop())
	}
	limit = min(limit, s.o.Concurrency-s.running)
	var due []*Unit
	for len(due) < limit {
		u := s.pick()
		if u == nil {
			break
		}
		u.state = running
		u.dest.running++
		s.running++
		due = append(due, u)
	}
	return due
}

// pick takes the next ready unit off its list, or returns nil.
func (s *Schedule) pick() *Unit {
	first, second := fresh, retry
	if s.streak >= retryShare-1 {
		first, second = retry, fresh
	}
	u := s.take(first)
	if u == nil {
		u = s.take(second)
	}
	switch {
	case u == nil:
	case u.class() == retry || s.rings[retry].head == nil:
		s.streak = 0
	default:
		s.streak++
	}
	return u
}

func (s *Schedule) take(c class) *Unit {
	for d := s.pop(c); d != nil; d = s.pop(c) {
		l := &d.lists[c]
		if l.head == nil || int(d.running) >= s.o.PerDestination {
			continue // it comes back with a unit, or when one of its units ends
		}
		u := l.head
		if l.head = u.link; l.head == nil {
			l.tail = nil
		} else {
			s.push(d, c)
		}
		u.link = nil
		return u
	}
	return nil
}

// Done forgets a running unit: all its recipients are settled.
func (s *Schedule) Done(u *Unit) { s.Drop(u) }

// Defer ends a running unit, which becomes due again at next with the
// recipients that are left and the new number of deferrals.
func (s *Schedule) Defer(u *Unit, now time.Time, recipients []int, attempts int, next time.Time) {
	s.release(u)
	u.set(recipients, attempts, next)
	s.place(u, now)
}

// Drop forgets a unit in any state. Doing it twice is harmless.
func (s *Schedule) Drop(u *Unit) {
	switch u.state {
	case waiting:
		s.waiting.remove(int(u.index))
	case ready:
		u.dest.lists[u.class()].remove(u)
	case running:
		s.release(u)
	case gone:
		return
	}
	u.state = gone
	s.units--
	if u.dest.units--; u.dest.units == 0 {
		delete(s.dests, u.dest.name)
	}
}

// Flush makes what waits for domain due at now; domain "" means every one. It
// returns how many units that were.
func (s *Schedule) Flush(domain string, now time.Time) int {
	d := s.dests[domain]
	if domain != "" && d == nil {
		return 0
	}
	kept := s.waiting[:0]
	var flushed []*Unit
	for _, u := range s.waiting {
		if domain != "" && u.dest != d {
			kept = append(kept, u)
			continue
		}
		u.next = nanoseconds(now)
		flushed = append(flushed, u)
	}
	clear(s.waiting[len(kept):])
	s.waiting = kept
	s.waiting.order()
	for _, u := range flushed {
		s.ready(u)
	}
	return len(flushed)
}

// Next returns when Due has something to hand out: now if it would at once,
// else the time of the unit that waits least. ok is false when only the end of
// a running unit or an Add can change anything.
func (s *Schedule) Next(now time.Time) (next time.Time, ok bool) {
	if s.running >= s.o.Concurrency {
		return time.Time{}, false
	}
	for c := range s.rings {
		for d := s.rings[c].head; d != nil; d = d.lists[c].link {
			if d.lists[c].head != nil && int(d.running) < s.o.PerDestination {
				return now, true
			}
		}
	}
	if len(s.waiting) == 0 {
		return time.Time{}, false
	}
	return s.waiting[0].Next(), true
}

// Len returns the number of units in any state.
func (s *Schedule) Len() int { return s.units }

// Stat counts the units by state.
type Stat struct{ Waiting, Ready, Running int }

// Stat returns how many units are in each state.
func (s *Schedule) Stat() Stat {
	return Stat{
		Waiting: len(s.waiting),
		Ready:   s.units - len(s.waiting) - s.running,
		Running: s.running,
	}
}

// Walk calls fn for each waiting and each ready unit, in no order, until it
// returns false. fn must not change the Schedule.
func (s *Schedule) Walk(fn func(*Unit) bool) {
	for _, u := range s.waiting {
		if !fn(u) {
			return
		}
	}
	for _, d := range s.dests {
		for c := range d.lists {
			for u := d.lists[c].head; u != nil; u = u.link {
				if !fn(u) {
					return
				}
			}
		}
	}
}

// place puts a unit that is in no structure where its time says.
func (s *Schedule) place(u *Unit, now time.Time) {
	if u.next <= now.UnixNano() {
		s.ready(u)
		return
	}
	u.state = waiting
	s.waiting.push(u)
}

func (s *Schedule) ready(u *Unit) {
	u.state = ready
	c := u.class()
	l := &u.dest.lists[c]
	if l.tail == nil {
		l.head = u
	} else {
		l.tail.link = u
	}
	l.tail = u
	s.push(u.dest, c)
}

// release takes a running unit's places away from the counts; its destination
// gets its turns back if it was left out for its cap.
func (s *Schedule) release(u *Unit) {
	if u.state != running {
		panic("schedule: a unit that is not running ends")
	}
	s.running--
	u.dest.running--
	for c := range classes {
		if u.dest.lists[c].head != nil {
			s.push(u.dest, c)
		}
	}
}

func (s *Schedule) push(d *destination, c class) {
	l, r := &d.lists[c], &s.rings[c]
	if l.queued || int(d.running) >= s.o.PerDestination {
		return
	}
	l.queued = true
	if r.tail == nil {
		r.head = d
	} else {
		r.tail.lists[c].link = d
	}
	r.tail = d
}

func (s *Schedule) pop(c class) *destination {
	r := &s.rings[c]
	d := r.head
	if d == nil {
		return nil
	}
	l := &d.lists[c]
	if r.head = l.link; r.head == nil {
		r.tail = nil
	}
	l.link, l.queued = nil, false
	return d
}

func (l *list) remove(u *Unit) {
	var before *Unit
	for v := l.head; v != nil; before, v = v, v.link {
		if v != u {
			continue
		}
		if before == nil {
			l.head = u.link
		} else {
			before.link = u.link
		}
		if l.tail == u {
			l.tail = before
		}
		u.link = nil
		return
	}
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
