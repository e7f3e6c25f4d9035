package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"

	"tarishi/internal/schedule/unit"
)

// Why says in a few words what a unit waits for.
func (s *Schedule) Why(u *Unit, now time.Time) string {
	switch u.State() {
	case unit.Waiting:
		return "due " + u.Next().UTC().Format(time.RFC3339)
	case unit.Running, unit.Displaced:
		return "running"
	case unit.Doomed:
		if end, _ := deadlines(u); end > now.UnixNano() {
			return "its sender is to be told that it is late"
		}
		return "expired"
	case unit.Gone:
		return "gone"
	}
	return s.dispatch.Why(u, now.UnixNano())
}

// DestinationStat describes one domain.
type DestinationStat struct {
	Domain string // "domain via route" for what goes another way, see Reroute
	Site   string // the domain itself, unless it shares its MX with others

	Waiting, Ready, Running int
	Oldest                  time.Time // arrival of the oldest message; zero: there is none

	// Of the site: 0, zero and "" where there is no limit, suspension or error.
	Limit          int // attempts at a time, now
	Rate           Rate
	SuspendedUntil time.Time
	LastError      string
}

// Destinations returns the limit domains with the most units, the largest
// first. Oldest may be too old by what left within the last seconds: to find it
// takes a look at every unit, which is not done more often.
func (s *Schedule) Destinations(now time.Time, limit int) []DestinationStat {
	s.dateSome(now)
	all := s.firstDomains(limit, largerFirst)
	out := make([]DestinationStat, 0, len(all))
	for _, d := range all {
		out = append(out, describe(d))
	}
	return out
}

// firstDomains returns the limit domains with a unit that come first in an order. It
// looks at each once and does not sort them all.
func (s *Schedule) firstDomains(limit int, order func(a, b *domain) int) []*domain {
	limit = max(limit, 0)
	var all []*domain
	for _, d := range s.domains {
		if n := len(all); d.Units == 0 || n == limit && (n == 0 || order(all[n-1], d) <= 0) {
			continue
		}

		// The list is short: an insertion costs less than a sort of all domains.
		i, _ := slices.BinarySearchFunc(all, d, order)
		if all = slices.Insert(all, i, d); len(all) > limit {
			all = all[:limit]
		}
	}
	return all
}

// largerFirst and olderFirst are orders of domains that have a unit.
func largerFirst(a, b *domain) int {
	return cmp.Or(cmp.Compare(b.Units, a.Units), cmp.Compare(a.Name, b.Name))
}

func olderFirst(a, b *domain) int {
	return cmp.Or(cmp.Compare(a.Oldest, b.Oldest), cmp.Compare(a.Name, b.Name))
}

// describe describes a domain.
func describe(d *domain) DestinationStat {
	site := d.Site()
	return DestinationStat{
		Domain: d.Key(), Ready: d.Ready(), Running: d.Active(), Waiting: int(d.Units) - d.Ready() - d.Active(),
		Oldest: time.Unix(0, d.Oldest),
		Site:   site.Name, Limit: site.Limit, Rate: site.Rate, SuspendedUntil: site.SuspendedUntil, LastError: site.LastError,
	}
}

// Rest sums destinations up.
type Rest struct {
	Destinations, Suspended int
	Waiting, Ready, Running int
	Oldest                  time.Time // arrival of the oldest message; zero: there is none
}

// Overview returns limit destinations, by turns the one with the oldest message
// and the one with the most units, and what all others have together. Oldest is
// as in Destinations.
func (s *Schedule) Overview(now time.Time, limit int) (top []DestinationStat, rest Rest) {
	s.dateSome(now)
	byAge, bySize := s.firstDomains(limit, olderFirst), s.firstDomains(limit, largerFirst)

	// By turns from both lists, each domain once.
	chosen := make(map[*domain]bool, len(byAge))
	choose := func(d *domain) {
		if len(chosen) < limit && !chosen[d] {
			chosen[d] = true
			top = append(top, describe(d))
		}
	}
	for i := range byAge {
		choose(byAge[i])
		choose(bySize[i])
	}

	// Everything that was not chosen is summed up.
	oldest := int64(math.MaxInt64)
	for _, d := range s.domains {
		if d.Units == 0 || chosen[d] {
			continue
		}
		rest.Destinations++
		rest.Waiting += int(d.Units) - d.Ready() - d.Active()
		rest.Ready += d.Ready()
		rest.Running += d.Active()
		if until, _ := d.Suspended(); until != 0 {
			rest.Suspended++
		}
		oldest = min(oldest, d.Oldest)
	}
	if rest.Destinations > 0 {
		rest.Oldest = time.Unix(0, oldest)
	}
	return top, rest
}

// dateSome dates now and then: the more units there are, the less often.
func (s *Schedule) dateSome(now time.Time) {
	// To find the oldest takes a look at all units, and people look at overviews again and again.
	at := now.UnixNano()
	if at-s.dated > int64(10*time.Second)+int64(s.units)*int64(10*time.Microsecond) {
		s.dated = at
		s.dateDomains()
	}
}

// dateDomains makes the domains' oldest exact where it is not.
func (s *Schedule) dateDomains() {
	any := false
	for _, d := range s.domains {
		if d.Stale {
			d.Oldest, any = math.MaxInt64, true
		}
	}
	if !any {
		return
	}

	// One walk serves all domains that need it.
	s.Walk(func(u *Unit) bool {
		if d := u.Dest(); d.Stale {
			d.Oldest = min(d.Oldest, u.Arrived())
		}
		return true
	})
	for _, d := range s.domains {
		d.Stale = false
	}
}

// Suspension describes a domain on a suspended site.
type Suspension struct {
	Until time.Time // the next probe
	Ready int       // units that wait for it
}

// Suspensions returns the suspended domains, by name. Of domains that go several
// ways it has those with all ways together, and the earliest probe.
func (s *Schedule) Suspensions(now time.Time) map[string]Suspension {
	// A domain is suspended as far as one of its ways is.
	all := map[string]Suspension{}
	for _, d := range s.domains {
		until, _ := d.Suspended()
		if until <= now.UnixNano() {
			continue
		}
		old, there := all[d.Name]
		v := Suspension{time.Unix(0, until), d.Ready() + old.Ready}
		if there && old.Until.Before(v.Until) {
			v.Until = old.Until
		}
		all[d.Name] = v
	}
	return all
}

// LastError returns what was last reported of a running unit's site; "": nothing.
func (s *Schedule) LastError(u *Unit) string { return u.Dest().LastError() }
