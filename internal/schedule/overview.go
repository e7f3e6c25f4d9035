package schedule

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Why says in a few words what a unit waits for.
func (s *Schedule) Why(u *Unit, now time.Time) string {
	switch u.state {
	case waiting:
		return "due " + u.Next().UTC().Format(time.RFC3339)
	case running, displaced:
		return "running"
	case doomed:
		if end, _ := u.ends(); end > now.UnixNano() {
			return "its sender is to be told that it is late"
		}
		return "expired"
	case gone:
		return "gone"
	}
	t := u.dest.site
	name := t.name
	switch why, until := s.blocked(t, now.UnixNano()); why {
	case suspended:
		return fmt.Sprintf("%s could not be reached, next probe %s (%s)", name, stamp(until), t.lastError)
	case probed:
		return fmt.Sprintf("%s could not be reached, another message probes it (%s)", name, t.lastError)
	case rated:
		return fmt.Sprintf("the rate of %s, next attempt %s", name, stamp(until))
	case crowded:
		return fmt.Sprintf("%s has its share of all attempts at a time, %d", name, t.running)
	case stuck:
		return fmt.Sprintf("%s keeps %d attempts waiting", name, t.late)
	case slowed:
		return fmt.Sprintf("%s is slow, and %d attempts at slow destinations run", name, s.slow)
	case full:
		return fmt.Sprintf("%s has its %d attempts at a time", name, t.running)
	}
	if !s.room(u.class()) {
		return fmt.Sprintf("all %d attempts at a time run", s.running)
	}
	return "ready"
}

func stamp(at int64) string { return time.Unix(0, at).UTC().Format(time.RFC3339) }

// DestinationStat is what is known of one domain.
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
	all := s.first(limit, larger)
	out := make([]DestinationStat, 0, len(all))
	for _, d := range all {
		out = append(out, d.stat())
	}
	return out
}

// first returns the limit domains with a unit that come first in an order. It
// looks at each once and does not sort them all.
func (s *Schedule) first(limit int, order func(a, b *domain) int) []*domain {
	limit = max(limit, 0)
	var all []*domain
	for _, d := range s.domains {
		if n := len(all); d.units == 0 || n == limit && (n == 0 || order(all[n-1], d) <= 0) {
			continue
		}
		i, _ := slices.BinarySearchFunc(all, d, order)
		if all = slices.Insert(all, i, d); len(all) > limit {
			all = all[:limit]
		}
	}
	return all
}

// larger and older are orders of domains that have a unit.
func larger(a, b *domain) int {
	return cmp.Or(cmp.Compare(b.units, a.units), cmp.Compare(a.name, b.name))
}

func older(a, b *domain) int {
	return cmp.Or(cmp.Compare(a.oldest, b.oldest), cmp.Compare(a.name, b.name))
}

func (d *domain) stat() DestinationStat {
	v := DestinationStat{
		Domain: d.key(), Ready: int(d.ready), Running: int(d.active),
		Waiting: int(d.units - d.ready - d.active), Oldest: time.Unix(0, d.oldest),
	}
	t := d.site
	if t == nil {
		t = newSite(d.name, d.limits)
		t.lastError = d.lastError
	}
	v.Site, v.Rate, v.LastError = t.name, t.limits.Rate, t.lastError
	if p := t.places(); p < math.MaxInt32 {
		v.Limit = int(p)
	}
	if t.until != 0 {
		v.SuspendedUntil = time.Unix(0, t.until)
	}
	return v
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
	byAge, bySize := s.first(limit, older), s.first(limit, larger)
	chosen := make(map[*domain]bool, len(byAge))
	choose := func(d *domain) {
		if len(chosen) < limit && !chosen[d] {
			chosen[d] = true
			top = append(top, d.stat())
		}
	}
	for i := range byAge {
		choose(byAge[i])
		choose(bySize[i])
	}
	oldest := int64(math.MaxInt64)
	for _, d := range s.domains {
		if d.units == 0 || chosen[d] {
			continue
		}
		rest.Destinations++
		rest.Waiting += int(d.units - d.ready - d.active)
		rest.Ready += int(d.ready)
		rest.Running += int(d.active)
		if d.site != nil && d.site.until != 0 {
			rest.Suspended++
		}
		oldest = min(oldest, d.oldest)
	}
	if rest.Destinations > 0 {
		rest.Oldest = time.Unix(0, oldest)
	}
	return top, rest
}

// dateSome dates now and then: the more units there are, the less often.
func (s *Schedule) dateSome(now time.Time) {
	at := now.UnixNano()
	if at-s.dated > int64(10*time.Second)+int64(s.units)*int64(10*time.Microsecond) {
		s.dated = at
		s.date()
	}
}

// date makes the domains' oldest exact where it is not.
func (s *Schedule) date() {
	any := false
	for _, d := range s.domains {
		if d.stale {
			d.oldest, any = math.MaxInt64, true
		}
	}
	if !any {
		return
	}
	s.Walk(func(u *Unit) bool {
		if d := u.dest; d.stale {
			d.oldest = min(d.oldest, u.received)
		}
		return true
	})
	for _, d := range s.domains {
		d.stale = false
	}
}

// Suspension is what is known of a domain whose site is suspended.
type Suspension struct {
	Until time.Time // the next probe
	Ready int       // units that wait for it
}

// Suspensions returns the suspended domains, by name. Of domains that go several
// ways it has those with all ways together, and the earliest probe.
func (s *Schedule) Suspensions(now time.Time) map[string]Suspension {
	all := map[string]Suspension{}
	for _, d := range s.domains {
		if d.site == nil || d.site.until <= now.UnixNano() {
			continue
		}
		old, there := all[d.name]
		v := Suspension{time.Unix(0, d.site.until), int(d.ready) + old.Ready}
		if there && old.Until.Before(v.Until) {
			v.Until = old.Until
		}
		all[d.name] = v
	}
	return all
}

// LastError returns what was last reported of a running unit's site; "": nothing.
func (s *Schedule) LastError(u *Unit) string {
	if u.dest.site == nil {
		return u.dest.lastError
	}
	return u.dest.site.lastError
}
