package dispatch

import (
	"iter"
	"math"

	"tarishi/internal/schedule/throttle"
)

// Use replaces the caps on running units, and the limits of all domains and their sites.
// domains are all that there are, renew returns the limits of one; site is "" for a domain
// that has none, or one for itself. What runs goes on, with its place: where that is more
// than the new caps allow nothing begins until enough has ended. What was learned of the
// sites stays.
func (s *Dispatcher) Use(o Options, now int64, domains iter.Seq[*Domain], renew func(d *Domain, site string) *throttle.Limits) {
	s.setOptions(o)

	// All limits come before the first offer: a site that is offered must not be measured
	// by what was before.
	for d := range domains {
		t, site := d.site, ""
		if t != nil && t.shared {
			site = t.name
		}
		d.limits = renew(d, site)
		if t != nil {
			t.SetLimits(d.limits, now)
		}
	}

	// A site that was full, or waited for its rate, may have room now. One that has lost its
	// room still has its turn, and loses it when the turn comes. Most domains are sites for
	// themselves.
	for d := range domains {
		if t := d.site; t != nil && !t.shared {
			s.offerTurn(t, now)
		}
	}
	for _, t := range s.sites {
		s.offerTurn(t, now)
	}
	s.readmit(now)

	// What runs may have passed a bound that did not count before.
	s.reviewAt, s.lateAt = math.MaxInt64, math.MaxInt64
	if s.watching {
		s.reviewAt, s.lateAt = 0, 0
	}
}
