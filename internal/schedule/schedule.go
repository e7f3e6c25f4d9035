// Package schedule decides which deliveries are due: a pure data structure without I/O,
// goroutines or a clock (now is always an argument).
//
// A Unit is one delivery: some recipients of one message that share a destination
// domain. Package unit has a picture of its states:
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
// in a row is suspended, and one unit at a time probes whether it is back (package
// throttle has the picture). What waits for a place, for the rate or for the end of
// a suspension is ready, and its attempts do not count up.
//
// Which ready unit gets the next place is the business of package dispatch.
// Destinations that keep an attempt waiting cannot hold all places there: an
// attempt without an outcome gives its place over to others that wait, and one
// that takes long is recalled when too many do.
//
// Invariants: a unit is in exactly one state; every unit that does not run has a due
// time, or Why gives the reason; each is handed out at the latest when its
// lifetime is over; domains and sites are forgotten a while after their last unit.
// Nothing returns an error. A Schedule is not safe for concurrent use.
package schedule

import (
	"maps"
	"math"
	"strings"
	"time"

	"tarishi/internal/schedule/dispatch"
	"tarishi/internal/schedule/order"
	"tarishi/internal/schedule/throttle"
	"tarishi/internal/schedule/unit"
)

const (
	lastTry   = 10 * time.Minute // what a unit that is too old when it comes in has for one attempt
	idleFor   = 15 * time.Minute // how long what was learned of a domain is kept without mail
	maxIdle   = 20_000           // domains without mail
	maxDoomed = 16               // running by Expire, at a time
	maxAtOnce = 10_000           // made ready or doomed in one call, so that nobody has to wait long for the Schedule
	backward  = time.Minute      // by so much the clock may be behind without being set back
)

// The parts of a Schedule that its callers name.
type (
	Unit     = dispatch.Unit
	Delivery = unit.Delivery
	Limits   = throttle.Limits
	Rate     = throttle.Rate
	Outcome  = throttle.Outcome
	Recall   = dispatch.Recall
	Change   = dispatch.Change
)

// The changes of a site.
const (
	Same      = dispatch.Same
	Suspended = dispatch.Suspended
	Resumed   = dispatch.Resumed
)

// Options are the caps on running units; 0 means that there is none.
type Options struct {
	Concurrency    int // in all
	PerDestination int // for each site, if Limits is nil

	Limits func(domain string) *Limits // of a domain and of a site that only it has
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
	dispatch *dispatch.Dispatcher // of the ready and the running units

	domains map[string]*domain
	idle    []*domain // those that had no units and are kept, in turn
	waiting order.Heap[*Unit]
	doomed  order.List[*Unit]
	given   order.List[*Unit] // running, and handed out by Expire
	units   int

	sweepAt int64 // no ready unit expires before
	restAt  int64 // nor is there a sweep before, after one that was work
	seen    int64 // the latest now
	dated   int64 // when the domains' oldest were exact
}

type domain = dispatch.Domain

// New returns an empty Schedule.
func New(o Options) *Schedule {
	s := &Schedule{domains: map[string]*domain{}, sweepAt: math.MaxInt64, dispatch: dispatch.New(o.dispatch())}
	s.setOptions(o)
	return s
}

func (s *Schedule) setOptions(o Options) {
	each := max(o.PerDestination, 0)
	s.o, s.fallback = o, &Limits{Low: each, High: each}
}

// dispatch is the part of the options that is about running units.
func (o *Options) dispatch() dispatch.Options {
	return dispatch.Options{Concurrency: o.Concurrency, Random: o.Random, Outside: o.Outside, Deadline: o.Deadline}
}

// Use replaces the options, and with them the limits of all that is scheduled. renew
// returns the limits of a domain that had others before; site names the one that it
// shares, "" is one for itself. Nothing is lost by it, and nothing ends: what runs keeps
// its place, and where more runs than is allowed now, nothing begins until enough has ended.
func (s *Schedule) Use(o Options, now time.Time, renew func(domain, site string, was *Limits) *Limits) {
	at := now.UnixNano()
	s.follow(at)
	s.setOptions(o)
	s.dispatch.Use(o.dispatch(), at, maps.Values(s.domains), func(d *domain, site string) *Limits {
		return renew(d.Name, site, d.Limits())
	})

	// Ready units may have another lifetime, so they are looked at anew.
	s.sweepAt = min(s.sweepAt, at)
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
		d = dispatch.NewDomain(name, "", s.limits(name))
		s.domains[name] = d
	}
	at := now.UnixNano()
	s.seen = max(s.seen, at)
	u := dispatch.NewUnit(d, v)
	s.countUnit(d, u)
	s.units++

	// A unit that is late already has lastTry from now on, not from when it was due.
	l := d.Limits()
	if l.Lifetime > 0 && u.Arrived() <= at-int64(l.Lifetime) {
		u.Set(unit.Overdue)
	}
	if u.Has(unit.Overdue) || l.Warning > 0 && u.Arrived() <= at-int64(l.Warning) {
		u.SetAt(max(u.At(), at))
	}
	s.placeUnit(u, at)
	return u
}

// Due hands out up to limit units that are due at now and fit the caps. They
// are running from then on.
func (s *Schedule) Due(now time.Time, limit int) []*Unit {
	at := now.UnixNano()
	s.promote(at)
	due := s.dispatch.Begin(at, limit)
	s.forgetIdle(at)
	return due
}

// Recall returns the units with an attempt to be ended. They run until
// Done, Defer or Drop as all others. Each is returned once, or a second time as
// overdue. It also takes places from those that are late, so it is to be called
// before Due.
func (s *Schedule) Recall(now time.Time) []Recall {
	at := now.UnixNano()
	s.follow(at)
	return s.dispatch.Recall(at)
}

// promote makes due units ready, or the first of them, and gives turns to sites
// that waited for this time.
func (s *Schedule) promote(now int64) {
	s.follow(now)
	for n := 0; n < maxAtOnce && len(s.waiting) > 0 && s.waiting[0].At() <= now; n++ {
		s.putReady(s.waiting.Pop(), now, false)
	}
	s.dispatch.WakeSites(now)
}

// follow notes the time. If the clock was set back, future events are as far away as
// before.
func (s *Schedule) follow(now int64) {
	by := s.seen - now
	if by <= int64(backward) {
		s.seen = max(s.seen, now)
		return
	}
	s.seen, s.sweepAt, s.restAt, s.dated = now, 0, 0, 0
	for _, u := range s.waiting {
		u.SetAt(u.At() - by)
	}

	// What was learned of sites is rewound with them.
	for _, d := range s.domains {
		d.Idle = min(d.Idle, now)
	}
	s.dispatch.Rewind(by, now, maps.Values(s.domains))
}

// Done forgets a running unit: all its recipients are settled.
func (s *Schedule) Done(u *Unit) { s.Drop(u) }

// Defer ends a running unit, which becomes due again at next with the
// recipients that are left and the new number of deferrals.
func (s *Schedule) Defer(u *Unit, now time.Time, recipients []int, attempts int, next time.Time) {
	at := now.UnixNano()
	s.release(u, at)
	u.Clear(unit.Expired | unit.Late | unit.Overdue)
	u.SetDelivery(recipients, attempts, next)
	s.placeUnit(u, at)
}

// Drop forgets a unit in any state. Doing it twice is harmless.
func (s *Schedule) Drop(u *Unit) {
	switch u.State() {
	case unit.Waiting:
		s.waiting.Remove(u)
	case unit.Ready:
		s.dispatch.TakeReady(u)
	case unit.Doomed:
		s.doomed.Remove(u)
	case unit.Running, unit.Displaced:
		s.release(u, s.seen)
	case unit.Gone:
		return
	}

	// It may be the last unit of its domain.
	u.SetState(unit.Gone)
	s.units--
	s.dismiss(u.Dest(), u)
}

// release ends a running unit, which is in no state then.
func (s *Schedule) release(u *Unit, now int64) {
	switch {
	case !u.Running():
		panic("schedule: a unit that is not running ends")
	case u.Has(unit.Expired | unit.Late):
		s.given.Remove(u)
	default:
		s.dispatch.Release(u, now)
	}
}

// placeUnit puts a unit that is in no structure where its time says.
func (s *Schedule) placeUnit(u *Unit, now int64) {
	if u.At() <= now {
		s.putReady(u, now, false)
		return
	}
	u.SetState(unit.Waiting)
	s.waiting.Push(u)
	s.dispatch.Shrink(u.Dest(), now)
}

// putReady makes a unit ready, behind those that are or before them.
func (s *Schedule) putReady(u *Unit, now int64, first bool) {
	s.dispatch.PutReady(u, now, first)
	s.sweepAt = min(s.sweepAt, handOutBy(u))
}

// Next returns when Due or Expire has something to hand out: now if one would
// at once, else the earliest time at which one may. ok is false when only the
// end of a running unit or an Add can change anything.
func (s *Schedule) Next(now time.Time) (next time.Time, ok bool) {
	// Units with a place to go are due at once.
	at := now.UnixNano()
	earliest := s.dispatch.Next(at)
	if earliest == at || s.doomed.Len() > 0 && s.given.Len() < maxDoomed {
		return now, true
	}

	// Otherwise the first of: an expiry, a review of what runs, a unit that falls due.
	earliest = min(earliest, s.nextSweep())
	if len(s.waiting) > 0 {
		earliest = min(earliest, s.waiting[0].At())
	}
	if earliest == math.MaxInt64 {
		return time.Time{}, false
	}
	return time.Unix(0, earliest), true
}

// Report notes the outcome of a running unit's attempt. It comes before Done or
// Defer. An attempt that says nothing about the destination is not reported. It
// returns what that changes for which site, and when a suspended one is probed.
func (s *Schedule) Report(u *Unit, o Outcome, now time.Time) (site string, change Change, probe time.Time) {
	if !u.Running() || u.Has(unit.Expired|unit.Late) {
		return "", Same, time.Time{}
	}

	// The state of the site may change, and with it how long its mail is kept.
	at := now.UnixNano()
	change, extended := s.dispatch.Report(u, o, at)
	if extended { // some may be past their patience
		s.sweepAt = min(s.sweepAt, at)
	}
	if change == Suspended {
		until, _ := u.Dest().Suspended()
		probe = time.Unix(0, until)
	}
	return u.Dest().SiteName(), change, probe
}

// Locate says to which site a running unit's domain belongs: a name for those
// that share their MX, or "" for a site for itself, and the site's limits (nil:
// those that Options.Limits gave). All units of the domain follow. It returns
// false when that site has no place for the unit now, which then is ready again
// and does not belong to the caller any more.
func (s *Schedule) Locate(u *Unit, name string, l *Limits, now time.Time) bool {
	at := now.UnixNano()
	d := u.Dest()
	before := d.Limits()
	located, moved := s.dispatch.Locate(u, name, l, at)

	// The domain's ready units may be given up earlier there.
	if d.Ready() > 0 && (moved || d.Limits() != before) {
		s.sweepAt = min(s.sweepAt, at)
	}
	if !located {
		s.sweepAt = min(s.sweepAt, handOutBy(u))
	}
	return located
}

// Reroute says that a running unit goes another way than its domain: route names
// it, "" is the domain's. What goes one way to a domain is apart from all other
// mail for it: Locate and Report are about that alone.
func (s *Schedule) Reroute(u *Unit, route string, now time.Time) {
	// Nearly all mail goes the way of its domain.
	from := u.Dest()
	if from.Route == route {
		return
	}
	to := dispatch.NewDomain(from.Name, route, nil)
	if d := s.domains[to.Key()]; d != nil {
		to = d
	} else {
		to = dispatch.NewDomain(from.Name, route, s.limits(from.Name))
		s.domains[to.Key()] = to
	}

	// The unit is counted where it goes, and not any more where it was.
	s.dispatch.Reroute(u, to, now.UnixNano())
	s.dismiss(from, u)
	s.countUnit(to, u)
}
