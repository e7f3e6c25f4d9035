// Package dispatch decides which ready unit gets the next place: the inner part of
// package schedule, which decides when units are ready. It has the ready and the
// running units, the domains as far as they have any, and the sites.
//
// Domains that share their MX are one site. A site has places, a rate and a state
// (package throttle), and its ready units wait in this way:
//
//	Dispatcher.rings[class]      the sites in turn, for each class
//	  └─ site.rings[class]       the domains in turn within the site
//	       └─ Domain.lists[class]    the units, first come first served
//
// A site with something ready is in exactly one of these places, or one of its running
// units brings it back when it ends:
//
//	          offer                         front, pick
//	┌──────────────────▶ rings ──────────────────────────▶ a unit runs
//	│                      │ it may not begin an attempt now:
//	│   ┌──────────────────┼──────────────────┬────────────────────┐
//	│   ▼                  ▼                  ▼                    ▼
//	│ alarms             leftOut            slowWait            (nowhere)
//	│ rated, suspended   crowded            slowed              full, stuck,
//	│   │                  │                  │                 probed
//	│   │ its time comes   │ any unit ends    │ room for slow    │ one of its
//	└───┴──────────────────┴──────────────────┴──────────────────┘ units ends
//
// Pick goes round the sites, and within a site round its domains, one unit of each
// at a time, so that a destination with much mail does not keep the others waiting.
// Mail that was never tried goes before retries and mail from the null sender,
// except that each of these gets every tenth place, so that a steady stream of
// fresh mail cannot starve it. Retries have at most three quarters; a tenth is kept
// for the null sender, which never gets more than a quarter. See share.go for how
// many places a site may have, and slow.go for those that keep attempts waiting.
//
// Invariants: the running units with a place are at most Options.Concurrency, those
// without one at most Options.Outside, and those of a site at most its limit, but for
// domains that joined it while they ran and the probe of a suspended one; each domain with a ready or running
// unit has a site. Times are nanoseconds since 1970. Nothing returns an error, and
// a Dispatcher is not safe for concurrent use.
package dispatch

import (
	"math"
	"time"

	"tarishi/internal/schedule/order"
	"tarishi/internal/schedule/throttle"
)

// tenth: one place in so many is a retry's, and one the null sender's.
const tenth = 10

// Options are the caps on running units; 0 means that there is none.
type Options struct {
	Concurrency int            // in all
	Random      func() float64 // in [0,1), for the jitter of probes; nil: none

	// Outside is how many units may go on without a place, beside those of
	// Concurrency; 0: none, and no destination is slow.
	Outside int
	// Deadline is after how long Recall hands out a running unit, a second more
	// for each recipient beyond the first; 0: never.
	Deadline time.Duration
}

// Dispatcher has the ready and the running units. Use New.
type Dispatcher struct {
	o       Options
	sharing bool         // there are enough places to share them out
	caps    [classes]int // places of a class at most
	reserve int          // places that only the null sender gets

	sites   map[string]*site // those that Locate named
	rings   [classes]ring
	alarms  order.Heap[*site] // with something ready that only time keeps from running
	leftOut []*site           // with something ready and no place but for their share
	runs    []*Unit
	spans   []span // of each of runs

	running int // with a place
	byClass [classes]int
	turn    int
	slowness
}

// New returns an empty Dispatcher.
func New(o Options) *Dispatcher {
	s := &Dispatcher{sites: map[string]*site{}}
	s.setOptions(o)
	s.reviewAt, s.lateAt = math.MaxInt64, math.MaxInt64
	return s
}

// setOptions replaces the caps, and shares the places out anew.
func (s *Dispatcher) setOptions(o Options) {
	if o.Concurrency <= 0 || o.Concurrency > math.MaxInt32 {
		o.Concurrency = math.MaxInt32
	}
	c := o.Concurrency
	s.o, s.watching = o, o.Outside > 0 || o.Deadline > 0
	s.sharing, s.reserve, s.caps = false, 0, [classes]int{c, c, c}

	// Below ten and four places there is nothing to share out.
	if c >= 4 && c < math.MaxInt32 {
		s.sharing = true
		s.caps[retry], s.caps[null] = c-c/4, c/4
	}
	if c >= tenth {
		s.reserve = c / tenth
	}
}

// Running returns the units that run, in no order. The slice is the Dispatcher's.
func (s *Dispatcher) Running() []*Unit { return s.runs }

// Places returns how many units run with a place, and how many without.
func (s *Dispatcher) Places() (with, without int) { return s.running, s.outside }

// Begin hands out up to limit ready units that fit the caps. They run from then
// on.
func (s *Dispatcher) Begin(now int64, limit int) []*Unit {
	s.admitSlow(now)
	var due []*Unit
	for len(due) < limit && s.running < s.o.Concurrency {
		u := s.pickUnit(now)
		if u == nil {
			// A slow site may have lost its turn just now: then it is another one's.
			if s.admitSlow(now) {
				continue
			}
			break
		}
		s.startUnit(u, now)
		due = append(due, u)
	}
	return due
}

// pickUnit takes the next ready unit off its list, or returns nil.
func (s *Dispatcher) pickUnit(now int64) *Unit {
	// Every tenth place goes to a retry first, every other tenth to the null sender.
	order := [classes]class{fresh, null, retry}
	switch {
	case s.turn == tenth-1:
		order = [classes]class{retry, null, fresh}
	case s.turn == tenth/2-1 || s.running >= s.o.Concurrency-s.reserve:
		order = [classes]class{null, fresh, retry}
	}
	for _, c := range order {
		if !s.hasRoom(c) {
			continue
		}
		t := s.frontSite(c, now)
		if t == nil {
			continue
		}

		// Site and domain go to the end of their rings if they have more.
		r := &t.rings[c]
		s.rings[c].pop(c)
		d := r.pop(c)
		u := d.lists[c].Pop()
		d.ready--
		if d.lists[c].Len() > 0 {
			r.push(d, c)
		}
		t.takePlace(u, now)
		s.offerTurn(t, now)
		s.turn = (s.turn + 1) % tenth
		return u
	}
	return nil
}

// WakeSites offers the sites that rate or suspension held up until now.
func (s *Dispatcher) WakeSites(now int64) {
	for len(s.alarms) > 0 && s.alarms[0].alarmAt <= now {
		s.offerTurn(s.alarms[0], now)
	}
}

// Next returns when Begin or Recall may have something to do: now if Begin has at
// once, math.MaxInt64 if only a change of the units can bring it about.
func (s *Dispatcher) Next(now int64) int64 {
	// A site at the front that no class has room for waits for a place: that may be taken from
	// an attempt that is late. The look at the front may have taken a slow site's turn, and
	// then it is another one's.
	wanted := false
	for {
		for c := range classes {
			if s.frontSite(c, now) != nil {
				if s.hasRoom(c) {
					return now
				}
				wanted = true
			}
		}
		if !s.admitSlow(now) {
			break
		}
	}
	next := s.nextReview(wanted)
	if len(s.alarms) > 0 {
		next = min(next, s.alarms[0].alarmAt)
	}
	return next
}

// Rewind follows a clock that was set back by so much. domains are all that have a
// site.
func (s *Dispatcher) Rewind(by, now int64, domains func(yield func(*Domain) bool)) {
	s.rewindSpans(by)
	done := map[*site]bool{}
	for d := range domains {
		if t := d.site; t != nil && !done[t] {
			done[t] = true
			t.Rewind(by)
			s.offerTurn(t, now)
		}
	}
}

// Outcome is the result of an attempt, see throttle.Outcome.
type Outcome = throttle.Outcome

// Change is what a report changes for a site.
type Change uint8

// The changes of a site.
const (
	Same Change = iota
	Suspended
	Resumed
)

// Report notes the outcome of a running unit's attempt. It comes before Release.
// extended reports whether a suspension began or goes on after a probe.
func (s *Dispatcher) Report(u *Unit, o Outcome, now int64) (change Change, extended bool) {
	t := u.dest.site
	was := t.Suspended() != 0

	// An attempt with an outcome is neither recalled nor late any more.
	r := &s.spans[*u.Place()]
	r.answered = true
	extended = t.Report(o, t.running, t.probe == u, now, s.o.Random)
	if o.Local {
		return Same, false
	}
	if s.o.Outside > 0 {
		s.learnPace(t, time.Duration(max(now-r.began, 0)))
	}
	s.offerTurn(t, now)
	switch is := t.Suspended() != 0; {
	case is && !was:
		change = Suspended
	case was && !is:
		change = Resumed
	}
	return change, extended
}
