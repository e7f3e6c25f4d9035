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
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"tarishi/internal/mail"
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

// Expire hands out up to limit units whose lifetime ended while they were
// ready: their site has no place, is suspended, or nobody asks Due. Those of
// which the sender is to be warned come too. They take no places.
func (s *Schedule) Expire(now time.Time, limit int) []*Unit {
	at := now.UnixNano()
	s.promote(at)
	s.sweep(at)
	var out []*Unit
	for len(out) < limit && s.dooming < maxDoomed && s.doomed.n > 0 {
		u := s.doomed.pop()
		switch end, warning := u.ends(); {
		case end <= at:
			u.flags |= expired
		case warning <= at:
			u.flags |= late
		default: // its site is back
			s.makeReady(u, at, true)
			continue
		}
		s.list(u, span{})
		s.dooming++
		out = append(out, u)
	}
	return out
}

// list puts a unit among those that run.
func (s *Schedule) list(u *Unit, r span) {
	u.state = running
	u.index = int32(len(s.runs))
	s.runs, s.spans = append(s.runs, u), append(s.spans, r)
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

// pick takes the next ready unit off its list, or returns nil.
func (s *Schedule) pick(now int64) *Unit {
	order := [classes]class{fresh, null, retry}
	switch {
	case s.turn == tenth-1:
		order = [classes]class{retry, null, fresh}
	case s.turn == tenth/2-1 || s.running >= s.o.Concurrency-s.reserve:
		order = [classes]class{null, fresh, retry}
	}
	for _, c := range order {
		if !s.room(c) {
			continue
		}
		t := s.front(c, now)
		if t == nil {
			continue
		}
		r := &t.rings[c]
		s.rings[c].pop(c)
		d := r.pop(c)
		u := d.lists[c].pop()
		d.ready--
		if d.lists[c].n > 0 {
			r.push(d, c)
		}
		t.take(u, now)
		s.offer(t, now)
		s.turn = (s.turn + 1) % tenth
		return u
	}
	return nil
}

// room reports whether one more of a class may run.
func (s *Schedule) room(c class) bool {
	if s.running >= s.o.Concurrency || s.byClass[c] >= s.caps[c] {
		return false
	}
	return c == null || s.running-s.byClass[null] < s.o.Concurrency-s.reserve
}

// front returns the first site of a class that has a place for a unit. Those
// that have none lose their turn until they are offered again.
func (s *Schedule) front(c class, now int64) *site {
	for t := s.rings[c].head; t != nil; t = s.rings[c].head {
		if t.rings[c].head != nil {
			why, until := s.blocked(t, now)
			if why == open {
				return t
			}
			s.await(t, why, until)
		}
		s.rings[c].pop(c)
	}
	return nil
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

// admit makes u one of d's units.
func (d *domain) admit(u *Unit) {
	if d.units == 0 || u.received < d.oldest {
		d.oldest, d.stale = u.received, false
	}
	d.units++
	u.dest = d
}

// dismiss is the opposite; u is in no structure of its domain any more.
func (s *Schedule) dismiss(u *Unit) {
	d := u.dest
	if u.received == d.oldest {
		d.stale = true
	}
	if d.units--; d.units == 0 {
		s.retire(d)
	}
}

// retire forgets a domain without units, at once if nothing was learned of it.
func (s *Schedule) retire(d *domain) {
	d.idle = s.seen
	if d.listed {
		return
	}
	if d.site == nil || d.site.plain(s.seen) {
		s.erase(d)
		return
	}
	d.listed = true
	s.idle = append(s.idle, d)
	if len(s.idle) > maxIdle {
		s.unidle()
	}
}

// unidle takes the first domain off the list, and forgets it if it still has no
// units.
func (s *Schedule) unidle() {
	d := s.idle[0]
	s.idle[0] = nil
	if s.idle = s.idle[1:]; len(s.idle) == 0 {
		s.idle = nil
	}
	d.listed = false
	if d.units == 0 {
		s.erase(d)
	}
}

func (s *Schedule) erase(d *domain) {
	s.leaveSite(d)
	delete(s.domains, d.key())
}

// forget forgets what was learned of domains that have had no mail for long. It
// looks at two at a time, so that it never takes long.
func (s *Schedule) forget(now int64) {
	for range min(2, len(s.idle)) {
		d := s.idle[0]
		busy := d.site != nil && (d.site.tat > now || d.site.until > now)
		if d.units == 0 && (busy || now-d.idle < int64(idleFor)) {
			s.idle = append(s.idle[1:], d)
			continue
		}
		s.unidle()
	}
}

// Flush makes what waits for domain due at now; domain "" means every one. A
// suspended site is probed at once. It returns how many units became due.
func (s *Schedule) Flush(domain string, now time.Time) int {
	at := now.UnixNano()
	s.follow(at)
	for _, d := range s.domains {
		if t := d.site; t != nil && t.until > at && (domain == "" || d.name == domain) {
			t.until = at
			s.offer(t, at)
		}
	}
	n := 0
	for _, u := range s.waiting {
		if domain == "" || u.dest.name == domain {
			u.next = min(u.next, at)
			n++
		}
	}
	if domain != "" { // else what was in order still is
		s.waiting.order()
	}
	s.promote(at)
	return n
}

// FlushMessages is Flush for the units of some messages. Those that wait for a
// suspended site count, too.
func (s *Schedule) FlushMessages(now time.Time, messages ...mail.ID) int {
	at := now.UnixNano()
	n, probe := 0, []*site{}
	s.WalkOf(func(u *Unit) bool {
		t := u.dest.site
		late := t != nil && t.until > at
		if late && !slices.Contains(probe, t) {
			probe = append(probe, t)
		}
		switch {
		case u.state == waiting:
			u.next = min(u.next, at)
			n++
		case u.state == ready && late:
			n++
		}
		return true
	}, messages...)
	for _, t := range probe {
		t.until = at
		s.offer(t, at)
	}
	s.waiting.order()
	s.promote(at)
	return n
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

// nextSweep is when the ready units are to be looked at.
func (s *Schedule) nextSweep() int64 {
	if s.units == len(s.waiting)+len(s.runs)+s.doomed.n {
		return math.MaxInt64
	}
	return max(s.sweepAt, s.restAt)
}

// sweep dooms the ready units whose lifetime is over, or many of them. It looks
// at every ready unit, and is to take no noticeable part of the time.
func (s *Schedule) sweep(now int64) {
	if s.nextSweep() > now {
		return
	}
	looked, next := 0, int64(math.MaxInt64)
	var over []*Unit
	all := s.walkReady(func(u *Unit) bool {
		looked++
		if end := u.end(); end <= now {
			over = append(over, u)
		} else {
			next = min(next, end)
		}
		return len(over) < maxAtOnce
	})
	if !all {
		next = now
	}
	s.sweepAt = next
	s.restAt = now + int64(100*time.Millisecond) + int64(looked)*int64(20*time.Microsecond)
	slices.SortFunc(over, func(a, b *Unit) int { return cmp.Compare(a.received, b.received) })
	for _, u := range over {
		s.unready(u)
		u.state = doomed
		s.doomed.push(u)
	}
}

// end is when Expire is to hand out a unit that is ready.
func (u *Unit) end() int64 {
	end, warning := u.ends()
	return min(end, warning)
}

// ends returns when a unit that is ready is given up, and when its sender is
// warned.
func (u *Unit) ends() (end, warning int64) {
	end, warning = math.MaxInt64, math.MaxInt64
	l := u.dest.limits
	if l.Warning > 0 && u.flags&(marked|fromNull) == 0 && u.received < math.MaxInt64-int64(l.Warning) {
		warning = max(u.received+int64(l.Warning), u.next+int64(lastTry))
	}
	if l.Lifetime > 0 && u.received <= math.MaxInt64-int64(l.Lifetime) {
		end = u.received + int64(l.Lifetime)
		if u.flags&overdue != 0 {
			end = max(end, u.next+int64(lastTry))
		}
	}
	if t := u.dest.site; t != nil && t.until != 0 && l.Patience > 0 {
		if from := max(u.received, t.since); from <= math.MaxInt64-int64(l.Patience) {
			end = min(end, from+int64(l.Patience))
		}
	}
	return end, warning
}

// Len returns the number of units in any state.
func (s *Schedule) Len() int { return s.units }

// Stat counts the units by state; doomed ones count as ready.
type Stat struct{ Waiting, Ready, Running int }

// Stat returns how many units are in each state.
func (s *Schedule) Stat() Stat {
	return Stat{
		Waiting: len(s.waiting),
		Ready:   s.units - len(s.waiting) - len(s.runs),
		Running: len(s.runs),
	}
}

// Walk calls fn for each unit, in no order, until it returns false. fn must not
// change the Schedule; what it collects may be dropped afterwards.
func (s *Schedule) Walk(fn func(*Unit) bool) {
	for _, all := range [][]*Unit{s.waiting, s.runs} {
		for _, u := range all {
			if !fn(u) {
				return
			}
		}
	}
	if s.doomed.walk(fn) {
		s.walkReady(fn)
	}
}

// WalkOf is Walk for the units of some messages. It looks at all units too, but
// makes no text of their ids, which takes most of the time.
func (s *Schedule) WalkOf(fn func(*Unit) bool, messages ...mail.ID) {
	keys, others := map[mail.Key]bool{}, map[mail.ID]bool{}
	for _, id := range messages {
		if k, ok := id.Key(); ok {
			keys[k] = true
		} else {
			others[id] = true
		}
	}
	s.Walk(func(u *Unit) bool {
		wanted := keys[u.id]
		if u.more != nil && u.more.id != "" {
			wanted = others[u.more.id]
		}
		return !wanted || fn(u)
	})
}

// walkReady calls fn for each ready unit until it returns false.
func (s *Schedule) walkReady(fn func(*Unit) bool) bool {
	for _, d := range s.domains {
		if d.ready == 0 {
			continue
		}
		for c := range classes {
			if !d.lists[c].walk(fn) {
				return false
			}
		}
	}
	return true
}

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

// place puts a unit that is in no structure where its time says.
func (s *Schedule) place(u *Unit, now time.Time) {
	at := now.UnixNano()
	if u.next <= at {
		s.makeReady(u, at, false)
		return
	}
	u.state = waiting
	s.waiting.push(u)
	s.shrink(u.dest, at)
}

// shrink drops what a domain has only while mail of it is due: with many
// domains nearly all wait.
func (s *Schedule) shrink(d *domain, now int64) {
	if d.ready > 0 {
		return
	}
	d.lists = nil
	if t := d.site; t != nil && t.plain(now) {
		d.lastError = t.lastError
		s.leaveSite(d)
	}
}

func (s *Schedule) makeReady(u *Unit, now int64, first bool) {
	d, c := u.dest, u.class()
	u.state = ready
	if d.lists == nil {
		d.lists = new([classes]domainList)
	}
	d.settle()
	if first {
		d.lists[c].unshift(u)
	} else {
		d.lists[c].push(u)
	}
	d.ready++
	s.sweepAt = min(s.sweepAt, u.end())
	if t := d.site; !d.lists[c].queued {
		t.rings[c].push(d, c)
		if !t.rings[c].queued {
			s.offer(t, now)
		}
	}
}

// settle gives d a site if it has none.
func (d *domain) settle() {
	if d.site == nil {
		d.site = newSite(d.name, d.limits)
		d.site.domains, d.site.lastError = 1, d.lastError
	}
}

// unready takes a ready unit out of its list.
func (s *Schedule) unready(u *Unit) {
	d, c := u.dest, u.class()
	d.lists[c].remove(u)
	d.ready--
	if d.lists[c].n == 0 && d.lists[c].queued {
		d.site.rings[c].remove(d, c)
	}
	if !d.site.pending() {
		s.alarms.remove(d.site)
	}
}

// unlist takes a unit out of those that run.
func (s *Schedule) unlist(u *Unit) span {
	end := len(s.runs) - 1
	last, r := s.runs[end], s.spans[u.index]
	s.runs[u.index], s.spans[u.index] = last, s.spans[end]
	last.index = u.index
	s.runs[end] = nil
	s.runs, s.spans = s.runs[:end], s.spans[:end]
	return r
}

// release takes a running unit's places away from the counts; its site gets its
// turns back if it was left out for its limit.
func (s *Schedule) release(u *Unit, now int64) {
	if !u.Running() {
		panic("schedule: a unit that is not running ends")
	}
	if u.flags&(expired|late) != 0 {
		s.unlist(u)
		s.dooming--
		return
	}
	t := u.dest.site
	s.leave(t, u)
	s.free(u)
	if t.pending() {
		s.offer(t, now)
	}
	s.readmit(now)
}

// free takes a unit that Due handed out away from the counts of those that run.
func (s *Schedule) free(u *Unit) {
	r := s.unlist(u)
	if r.slow {
		s.slow--
	}
	if r.outside {
		s.outside--
		return
	}
	s.running--
	s.byClass[r.class]--
}
