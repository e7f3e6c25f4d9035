// Package schedule decides what is due: a pure data structure without I/O,
// goroutines or a clock (now is always an argument).
//
// A Unit is one delivery: some recipients of one message that share a
// destination domain. It is in one of four states:
//
//	waiting  its time has not come: in one heap ordered by that time
//	ready    due: in its domain's list, first come first served
//	doomed   its lifetime ended while it was ready, or its sender is to be
//	         warned: Expire hands it out
//	running  handed out by Due or Expire, until Done, Defer or Drop
//
// Domains that share their MX are one site (Locate says which), and mail for a
// domain that goes another way may be part of another (Reroute). A site has
// places, a rate and a state: one that could not be reached by several attempts
// in a row is suspended, and one unit at a time probes whether it is back. What
// waits for a place, for the rate or for the end of a suspension is ready, and
// its attempts do not count up.
//
// Due goes round the sites, and within a site round its domains, one unit of
// each at a time, so that a destination with much mail does not keep the others
// waiting. Mail that was never tried goes before retries and mail from the null
// sender, except that each of these gets every tenth place, so that a steady
// stream of fresh mail cannot starve it. While others wait, and while it is not
// known to take mail, a site gets a place only while it has less than three times
// the places that would be left: that is not quite three quarters of all, and
// however many want all they can get, some places are left for those that have
// none. A site that takes mail, and nobody else waits, may have all; the first
// place that it leaves is then for whoever comes. Retries have at most three
// quarters; a tenth is kept for the null sender, which never gets more than a
// quarter. (Below ten and four places there is nothing to share out.)
//
// Destinations that keep an attempt waiting cannot hold all places, see slow.go:
// an attempt without an outcome gives its place over to those who wait, and one
// that takes long is recalled when too many do.
//
// Invariants: a unit is in exactly one state; the running units with a place are
// at most Options.Concurrency, those without one at most Options.Outside, and
// those of a site at most its limit, but for
// domains that joined it while they ran; every unit that does not run has a due
// time, or Why tells what it waits for; each is handed out at the latest when
// its lifetime is over; domains and sites are forgotten a while after their
// last unit. Nothing returns an error. A Schedule is not safe for concurrent
// use.
package schedule

import (
	"math"
	"strings"
	"time"
)

const (
	tenth     = 10               // one place in so many is a retry's, and one the null sender's
	lastTry   = 10 * time.Minute // what a unit that is too old when it comes in has for one attempt
	idleFor   = 15 * time.Minute // how long what was learned of a domain is kept without mail
	maxIdle   = 20_000           // domains without mail
	maxDoomed = 16               // running by Expire, at a time
	maxAtOnce = 10_000           // made ready or doomed in one call, so that nobody has to wait long for the Schedule
	backward  = time.Minute      // by so much the clock may be behind without being set back
	share     = 3                // a site may have so many times the places that are left
)

// Options are the caps on running units; 0 means that there is none.
type Options struct {
	Concurrency    int // in all
	PerDestination int // for each site, if Limits is nil

	Limits func(domain string) *Limits // of a domain and of the site of its own
	Random func() float64              // in [0,1), for the jitter of probes; nil: none

	// Outside is how many units may go on without a place, beside those of
	// Concurrency; 0: none, and no destination is slow.
	Outside int
	// Deadline is after how long Recall hands out a running unit, a second more
	// for each recipient beyond the first; 0: never.
	Deadline time.Duration
}

// Schedule is the units of one queue. Use New.
type Schedule struct {
	o        Options
	fallback *Limits
	sharing  bool         // there are enough places to share them out
	caps     [classes]int // places of a class at most
	reserve  int          // places that only the null sender gets

	domains map[string]*domain
	sites   map[string]*site // those that Locate named
	idle    []*domain        // those that had no units and are kept, in turn
	waiting heap
	rings   [classes]ring
	alarms  alarms
	leftOut []*site // with something ready and no place but for share
	doomed  list
	runs    []*Unit
	spans   []span // of each of runs
	delays

	units   int
	running int // of Due, with a place
	dooming int // running of Expire
	byClass [classes]int
	turn    int

	sweepAt int64 // no ready unit expires before
	restAt  int64 // nor is there a sweep before, after one that was work
	seen    int64 // the latest now
	dated   int64 // when the domains' oldest were exact
}

// New returns an empty Schedule.
func New(o Options) *Schedule {
	if o.Concurrency <= 0 || o.Concurrency > math.MaxInt32 {
		o.Concurrency = math.MaxInt32
	}
	s := &Schedule{
		o: o, fallback: &Limits{Low: max(o.PerDestination, 0), High: max(o.PerDestination, 0)},
		domains: map[string]*domain{}, sites: map[string]*site{}, sweepAt: math.MaxInt64,
	}
	s.delays.init(o)
	c := o.Concurrency
	s.caps = [classes]int{c, c, c}
	if c >= 4 && c < math.MaxInt32 {
		s.sharing = true
		s.caps[retry], s.caps[null] = c-c/4, c/4
	}
	if c >= tenth {
		s.reserve = c / tenth
	}
	return s
}

func (s *Schedule) limits(domain string) *Limits {
	if s.o.Limits != nil {
		if l := s.o.Limits(domain); l != nil {
			return l
		}
	}
	return s.fallback
}

// Add puts a delivery in.
func (s *Schedule) Add(now time.Time, v Delivery) *Unit {
	d := s.domains[v.Domain]
	if d == nil {
		name := strings.Clone(v.Domain) // it may be part of a larger string
		d = &domain{name: name, limits: s.limits(name)}
		s.domains[name] = d
	}
	s.seen = max(s.seen, now.UnixNano())
	u := &Unit{received: nanoseconds(v.Received)}
	d.admit(u)
	s.units++
	if k, ok := v.ID.Key(); ok {
		u.id = k
	} else {
		u.more = &more{id: v.ID}
	}
	if v.Null {
		u.flags |= fromNull
	}
	if v.Marked {
		u.flags |= marked
	}
	u.set(v.Recipients, v.Attempts, v.Next)
	at, l := now.UnixNano(), d.limits
	if l.Lifetime > 0 && u.received <= at-int64(l.Lifetime) {
		u.flags |= overdue
	}
	if u.flags&overdue != 0 || l.Warning > 0 && u.received <= at-int64(l.Warning) {
		u.next = max(u.next, at) // lastTry counts from now
	}
	s.place(u, now)
	return u
}

// Due hands out up to limit units that are due at now and fit the caps. They
// are running from then on.
func (s *Schedule) Due(now time.Time, limit int) []*Unit {
	at := now.UnixNano()
	s.promote(at)
	s.admitSlow(at)
	var due []*Unit
	for len(due) < limit && s.running < s.o.Concurrency {
		u := s.pick(at)
		if u == nil {
			break
		}
		s.begin(u, at)
		due = append(due, u)
	}
	s.forget(at)
	return due
}

// promote makes ready what is due, or the first of it, and gives sites their
// turns whose time came.
func (s *Schedule) promote(now int64) {
	s.follow(now)
	for n := 0; n < maxAtOnce && len(s.waiting) > 0 && s.waiting[0].next <= now; n++ {
		s.makeReady(s.waiting.pop(), now, false)
	}
	for len(s.alarms) > 0 && s.alarms[0].alarmAt <= now {
		s.offer(s.alarms[0], now)
	}
}

// follow notes what time it is. If the clock was set back, what is to come is as
// far away as it was before.
func (s *Schedule) follow(now int64) {
	by := s.seen - now
	if by <= int64(backward) {
		s.seen = max(s.seen, now)
		return
	}
	s.seen, s.sweepAt, s.restAt, s.dated = now, 0, 0, 0
	s.rewind(by)
	for _, u := range s.waiting {
		u.next -= by
	}
	done := map[*site]bool{}
	for _, d := range s.domains {
		d.idle = min(d.idle, now)
		t := d.site
		if t == nil || done[t] {
			continue
		}
		done[t] = true
		t.tat -= by
		if t.until != 0 {
			t.until, t.since = max(1, t.until-by), t.since-by
		}
		s.offer(t, now)
	}
}

// Done forgets a running unit: all its recipients are settled.
func (s *Schedule) Done(u *Unit) { s.Drop(u) }

// Defer ends a running unit, which becomes due again at next with the
// recipients that are left and the new number of deferrals.
func (s *Schedule) Defer(u *Unit, now time.Time, recipients []int, attempts int, next time.Time) {
	s.release(u, now.UnixNano())
	u.flags &^= expired | late | overdue
	u.set(recipients, attempts, next)
	s.place(u, now)
}

// Drop forgets a unit in any state. Doing it twice is harmless.
func (s *Schedule) Drop(u *Unit) {
	switch u.state {
	case waiting:
		s.waiting.remove(int(u.index))
	case ready:
		s.unready(u)
	case doomed:
		s.doomed.remove(u)
	case running, displaced:
		s.release(u, s.seen)
	case gone:
		return
	}
	u.state = gone
	s.units--
	s.dismiss(u)
}

// Next returns when Due or Expire has something to hand out: now if one would
// at once, else the earliest time at which one may. ok is false when only the
// end of a running unit or an Add can change anything.
func (s *Schedule) Next(now time.Time) (next time.Time, ok bool) {
	at := now.UnixNano()
	wanted := false
	for c := range classes {
		if s.front(c, at) != nil {
			if s.room(c) {
				return now, true
			}
			wanted = true
		}
	}
	if s.doomed.n > 0 && s.dooming < maxDoomed {
		return now, true
	}
	earliest := s.nextSweep()
	earliest = min(earliest, s.nextReview(wanted))
	if len(s.waiting) > 0 {
		earliest = min(earliest, s.waiting[0].next)
	}
	if len(s.alarms) > 0 {
		earliest = min(earliest, s.alarms[0].alarmAt)
	}
	if earliest == math.MaxInt64 {
		return time.Time{}, false
	}
	return time.Unix(0, earliest), true
}
