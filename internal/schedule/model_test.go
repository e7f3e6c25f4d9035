package schedule

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/schedule/unit"
)

// FuzzModel does everything that a Schedule is for, in any order, and holds the
// promises of the package comment after each step. Nothing here computes what the
// Schedule should do next: it only says what must never happen.
func FuzzModel(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		m := newModel(t, rand.New(rand.NewPCG(seed, 5)))
		for range 300 {
			m.step()
			m.audit()
		}
		m.drain()
	})
}

// attempt is a unit that Due handed out.
type attempt struct {
	began    time.Time
	recalled int
	overdue  bool
}

// model is a Schedule and what its user knows of the units.
type model struct {
	t      *testing.T
	r      *rand.Rand
	s      *Schedule
	o      Options
	now    time.Time
	made   int
	limits []*Limits // of a site by its number, 0: of a domain by itself
	idle   map[*Unit]bool
	run    map[*Unit]*attempt // handed out by Due
	given  map[*Unit]bool     // handed out by Expire
	probes map[string]*Unit   // by site: the unit that it was handed out while suspended
	early  map[*Unit]bool     // ready when the clock was set back
	over   excess
}

func newModel(t *testing.T, r *rand.Rand) *model {
	m := &model{
		t: t, r: r, now: start,
		idle: map[*Unit]bool{}, run: map[*Unit]*attempt{}, given: map[*Unit]bool{}, probes: map[string]*Unit{}, early: map[*Unit]bool{},
	}
	m.limits = m.newLimits()
	m.o = m.newOptions()
	m.s = New(m.o)
	return m
}

func (m *model) newLimits() (all []*Limits) {
	r := m.r
	for range 4 {
		l := &Limits{Low: r.IntN(3), High: r.IntN(6), Start: r.IntN(4), Probes: []time.Duration{time.Minute, time.Hour}}
		if r.IntN(3) == 0 {
			l.Rate = Rate{Count: 1 + r.IntN(9), Per: time.Minute}
		}
		if r.IntN(3) > 0 {
			l.Lifetime, l.Patience, l.Warning = time.Duration(1+r.IntN(20))*time.Hour, time.Duration(r.IntN(5))*time.Hour, time.Duration(r.IntN(4))*time.Hour
		}
		all = append(all, l)
	}
	return all
}

func (m *model) newOptions() Options {
	r := m.r
	o := Options{Concurrency: []int{0, 1, 3, 7, 12, 25}[r.IntN(6)], Random: r.Float64, Limits: func(string) *Limits { return m.limits[0] }}
	if r.IntN(3) > 0 {
		o.Outside = []int{0, 1, 10, 100}[r.IntN(4)]
		o.Deadline = time.Duration(r.IntN(3)) * time.Minute
	}
	return o
}

// use replaces all limits while units run. Nothing ends by that and nothing begins, but
// what runs may be more than the new limits allow, and must not become more then.
func (m *model) use() {
	was := m.limits
	m.limits = m.newLimits()
	if m.r.IntN(2) == 0 {
		m.o = m.newOptions()
	}
	asked := map[string]bool{}
	m.s.Use(m.o, m.now, func(domain, site string, of *Limits) *Limits {
		asked[domain] = true
		n := slices.Index(was, of)
		if n < 0 {
			m.t.Fatalf("%s at %q had the limits of an earlier generation", domain, site)
		}
		return m.limits[n]
	})
	m.over.with, m.over.without = m.s.dispatch.Places()
	m.over.null, m.over.retries = m.classes()
	for _, d := range m.s.domains {
		if !asked[d.Name] || !slices.Contains(m.limits, d.Limits()) {
			m.t.Fatalf("%s has its old limits", d.Key())
		}
	}
}

// excess is how many ran when the caps changed, or since, if that is less.
type excess struct{ with, without, null, retries int }

// one returns any of some units, nil if there is none.
func one[V any](m *model, of map[*Unit]V) *Unit {
	if len(of) == 0 {
		return nil
	}
	all := slices.SortedFunc(maps.Keys(of), func(a, b *Unit) int { return slices.Compare([]byte(a.ID()), []byte(b.ID())) })
	return all[m.r.IntN(len(all))]
}

func (m *model) domain() string { return fmt.Sprint("d", m.r.IntN(5)) }

func (m *model) step() {
	r, s := m.r, m.s
	switch r.IntN(23) {
	case 0, 1, 2, 3:
		n, domain := 1, m.domain()
		if r.IntN(300) == 0 {
			n = 150
		}
		for range n {
			m.add(domain)
		}
	case 4, 5, 6:
		m.due(r.IntN(6))
	case 7:
		m.expire(r.IntN(4))
	case 8, 9, 10:
		if u := one(m, m.run); u != nil {
			m.locate(u)
		}
	case 11, 12:
		if u := one(m, m.run); u != nil {
			s.Report(u, []Outcome{reached, reached, throttled, nobody, nobody}[r.IntN(5)], m.now)
			m.end(u)
		}
	case 13:
		if u := one(m, m.run); u != nil { // it says nothing
			m.end(u)
		}
	case 14:
		if u := one(m, m.given); u != nil {
			if u.Late() && r.IntN(2) == 0 {
				u.Mark()
			}
			m.end(u)
		}
	case 15:
		if u := one(m, m.idle); u != nil { // it was taken out of the queue
			s.Drop(u)
			delete(m.idle, u)
		}
	case 16:
		if r.IntN(5) == 0 {
			m.flush()
		}
	case 17:
		s.Overview(m.now, r.IntN(4))
		s.Destinations(m.now, r.IntN(4))
	case 18:
		m.recall()
	case 19:
		if r.IntN(3) == 0 {
			m.use()
		}
	default:
		m.pass()
	}
}

func (m *model) add(domain string) {
	r := m.r
	v := Delivery{
		ID: mail.ID(fmt.Sprint(m.made)), Domain: domain, Recipients: []int{m.made}, Attempts: r.IntN(2),
		Next: m.now.Add(time.Duration(r.IntN(400)-300) * time.Second), Received: m.now.Add(-time.Duration(r.IntN(100)) * time.Minute),
		Null: r.IntN(5) == 0, Marked: r.IntN(5) == 0,
	}
	if r.IntN(20) == 0 {
		v.Received = m.now.Add(-1000 * time.Hour)
	}
	m.made++
	m.idle[m.s.Add(m.now, v)] = true
}

// due has units handed out one by one: each is due, its site has a place for it, and
// one that is suspended is probed by one unit at a time.
func (m *model) due(limit int) {
	for range limit {
		units := m.s.Due(m.now, 1)
		if len(units) == 0 {
			break
		}
		u := units[0]
		if !m.idle[u] || u.Next().After(m.now) && !m.early[u] {
			m.t.Fatalf("%s was handed out, scheduled: %v, due %v, now %v", u.ID(), m.idle[u], u.Next(), m.now)
		}
		delete(m.idle, u)
		m.run[u] = &attempt{began: m.now}
		m.hasPlace(u)
	}
	m.s.Due(m.now, 0) // it follows the clock
	m.places()
}

// hasPlace holds that the site of a unit that has just been handed out is within its
// limits.
func (m *model) hasPlace(u *Unit) {
	var at DestinationStat
	all := m.s.Destinations(m.now, 1000)
	for _, d := range all {
		if d.Domain == u.Dest().Key() {
			at = d
		}
	}
	running := 0
	for _, d := range all {
		if d.Site == at.Site {
			running += d.Running
		}
	}
	switch {
	case at.SuspendedUntil.After(m.now):
		m.t.Fatalf("%s was handed out while %s is suspended", u.ID(), at.Site)
	case !at.SuspendedUntil.IsZero():
		if p := m.probes[at.Site]; p != nil {
			m.t.Fatalf("%s probes %s, and so does %s", u.ID(), at.Site, p.ID())
		}
		m.probes[at.Site] = u
	case at.Limit > 0 && running > at.Limit:
		m.t.Fatalf("%d run at %s, which may have %d", running, at.Site, at.Limit)
	}
}

// places holds the caps on all that runs.
func (m *model) places() {
	with, without := m.s.dispatch.Places()
	c := m.o.Concurrency
	if c > 0 && with > max(c, m.over.with) || without > max(m.o.Outside, m.over.without) || with+without != len(m.run) {
		m.t.Fatalf("%d run in %d places, and %d outside", len(m.run), with, without)
	}
	null, retries := m.classes()
	if c >= 4 && m.o.Outside+m.over.without == 0 && (null > max(c/4, m.over.null) || retries > max(c-c/4, m.over.retries)) {
		m.t.Fatalf("a class has more than its part: %d from the null sender and %d retries of %d", null, retries, c)
	}
	m.over = excess{min(with, m.over.with), min(without, m.over.without), min(null, m.over.null), min(retries, m.over.retries)}
}

// classes counts what runs from the null sender, and the retries.
func (m *model) classes() (null, retries int) {
	for u := range m.run {
		switch {
		case u.Null():
			null++
		case u.Attempts() > 0:
			retries++
		}
	}
	return null, retries
}

// locate has a running unit find out where it goes.
func (m *model) locate(u *Unit) {
	number := m.r.IntN(len(m.limits))
	route, name := "", ""
	if number > 0 {
		name = fmt.Sprint("site", number)
		if m.r.IntN(3) == 0 {
			route = fmt.Sprint("route", number)
		}
	}
	l := m.limits[number]
	if m.r.IntN(10) == 0 { // another domain of the site may have others
		l = m.limits[m.r.IntN(len(m.limits))]
	}
	m.s.Reroute(u, route, m.now)
	if u.Dest().SiteName() != name { // its site is probed by another unit
		maps.DeleteFunc(m.probes, func(_ string, p *Unit) bool { return p.Dest() == u.Dest() })
	}
	maps.DeleteFunc(m.probes, func(_ string, p *Unit) bool { return p == u })
	if !m.s.Locate(u, name, l, m.now) {
		delete(m.run, u)
		m.idle[u] = true
		return
	}
	if got := u.Dest().SiteName(); got != name && (name != "" || got != u.Domain()) || u.Dest().Limits() != l {
		m.t.Fatalf("%s is at %q, not %q, with %+v", u.ID(), got, name, u.Dest().Limits())
	}
}

// recall ends some of the attempts that are to be ended: those that run, once for
// others, and once because they took too long.
func (m *model) recall() {
	for _, c := range m.s.Recall(m.now) {
		a := m.run[c.Unit]
		if a == nil {
			m.t.Fatalf("%s is to be ended, and does not run", c.Unit.ID())
		}
		took := m.now.Sub(a.began)
		switch {
		case a.overdue || !c.Overdue && a.recalled > 0:
			m.t.Fatalf("%s is to be ended twice", c.Unit.ID())
		case !c.Overdue && (took < 2*time.Second || m.o.Outside == 0):
			m.t.Fatalf("%s makes room after %v", c.Unit.ID(), took)
		case c.Overdue && took < 2*time.Minute && (m.o.Deadline == 0 || took < m.o.Deadline):
			m.t.Fatalf("%s is overdue after %v", c.Unit.ID(), took)
		}
		a.recalled++
		a.overdue = c.Overdue
		if m.r.IntN(3) > 0 {
			if c.Overdue {
				m.s.Report(c.Unit, nobody, m.now)
			}
			m.end(c.Unit)
		}
	}
}

// expire holds that nothing is given up before its time.
func (m *model) expire(limit int) {
	for _, u := range m.s.Expire(m.now, limit) {
		if !m.idle[u] {
			m.t.Fatalf("%s was given up, and is not scheduled", u.ID())
		}
		l, age := u.Dest().Limits(), m.now.Sub(u.Received())
		until, _ := u.Dest().Suspended()
		over := l.Lifetime > 0 && age >= l.Lifetime || until != 0 && l.Patience > 0 && age >= l.Patience
		late := l.Warning > 0 && age >= l.Warning && !u.Marked() && !u.Null()
		if u.Expired() && !over || u.Late() && (!late || u.Expired()) || !u.Expired() && !u.Late() {
			m.t.Fatalf("%s given up after %v: expired %v, late %v", u.ID(), age, u.Expired(), u.Late())
		}
		delete(m.idle, u)
		m.given[u] = true
	}
}

// end ends a unit that was handed out.
func (m *model) end(u *Unit) {
	delete(m.run, u)
	delete(m.given, u)
	delete(m.early, u)
	maps.DeleteFunc(m.probes, func(_ string, p *Unit) bool { return p == u })
	if m.r.IntN(2) == 0 {
		m.s.Done(u)
		return
	}
	m.s.Defer(u, m.now, u.Recipients(), u.Attempts()+m.r.IntN(2), m.now.Add(time.Duration(m.r.IntN(90)-20)*time.Minute))
	m.idle[u] = true
}

// flush counts what it makes due, which all is due then.
func (m *model) flush() {
	domain := m.domain()
	if m.r.IntN(3) == 0 {
		domain = ""
	}
	waiting := 0
	for u := range m.idle {
		if u.State() == unit.Waiting && (domain == "" || u.Domain() == domain) {
			waiting++
		}
	}
	if n := m.s.Flush(domain, m.now); n != waiting {
		m.t.Fatalf("%d flushed of %d that waited", n, waiting)
	}
	for u := range m.idle {
		if u.State() == unit.Waiting && u.Next().After(m.now) && (domain == "" || u.Domain() == domain) {
			m.t.Fatalf("%s is not due after a flush", u.ID())
		}
	}
}

// pass lets time pass, now and then backwards: then what is to come is as far away
// as it was, and what runs has run for as long.
func (m *model) pass() {
	switch m.r.IntN(12) {
	case 0:
		m.now = m.now.Add(time.Duration(m.r.IntN(10)) * time.Hour)
	case 1:
		if m.r.IntN(4) == 0 {
			m.setBack(backward + time.Duration(1+m.r.IntN(100_000))*time.Second)
		}
	case 2, 3, 4:
		m.skip()
	default:
		m.now = m.now.Add(time.Duration(m.r.IntN(90)) * time.Second)
	}
	m.due(0) // as outbound does each minute
}

func (m *model) setBack(by time.Duration) {
	m.due(0)
	waits := map[*Unit]time.Duration{}
	for u := range m.idle {
		if u.State() == unit.Waiting {
			waits[u] = u.Next().Sub(m.now)
		} else {
			m.early[u] = true
		}
	}
	m.now = m.now.Add(-by)
	m.due(0)
	for u, wait := range waits {
		if got := u.Next().Sub(m.now); got != wait && u.Next().After(m.now) {
			m.t.Fatalf("%s is due in %v, not %v, since the clock was set back", u.ID(), got, wait)
		}
	}
	for u, a := range m.run { // one that finds no place where it goes is ready again
		a.began = a.began.Add(-by)
		m.early[u] = true
	}
}

// skip goes on to the time that Next gives. While something is scheduled and nothing
// runs there is such a time.
func (m *model) skip() {
	next, ok := m.all()
	if !ok {
		if len(m.run)+len(m.given) == 0 && len(m.idle) > 0 {
			for u := range m.idle {
				m.t.Error(u.Domain(), m.s.Why(u, m.now))
			}
			m.t.Fatalf("nothing runs, and nothing will: %+v", m.s.Stat())
		}
		return
	}
	m.now = next
	m.all()
}

// all has all handed out that may be, and returns when there is more. Nothing that
// has outlived its lifetime is left, but for what comes when others that were given
// up have ended.
func (m *model) all() (next time.Time, ok bool) {
	for range 5 { // what is given up may make room for others
		m.recall()
		m.due(1000)
		m.expire(1000)
		if next, ok = m.s.Next(m.now); !ok || next.After(m.now) {
			if !ok || next.Sub(m.now) > time.Second { // there is no sweep to come at once
				m.noneOverdue()
			}
			return next, ok
		}
	}
	m.t.Fatalf("Next is now, and nothing more is handed out: %+v", m.s.Stat())
	return next, ok
}

func (m *model) noneOverdue() {
	if len(m.given) >= maxDoomed {
		return
	}
	for u := range m.idle {
		l := u.Dest().Limits().Lifetime
		if l > 0 && !u.Next().After(m.now) && m.now.Sub(u.Received()) > l+time.Second && m.now.Sub(u.Next()) > lastTry+time.Second {
			m.t.Fatalf("%s is kept %v after its arrival, its lifetime is %v: %s", u.ID(), m.now.Sub(u.Received()), l, m.s.Why(u, m.now))
		}
	}
}

// drain ends all that runs until nothing is left.
func (m *model) drain() {
	m.due(0)
	for step := 0; m.s.Len() > 0; step++ {
		if step > 20_000 {
			m.t.Fatalf("%d units are left: %+v", m.s.Len(), m.s.Stat())
		}
		for u := range m.run {
			m.s.Report(u, reached, m.now)
			m.s.Done(u)
		}
		for u := range m.given {
			m.s.Done(u)
		}
		clear(m.run)
		clear(m.given)
		clear(m.probes)
		m.audit()
		m.skip()
	}
	for range 10 {
		m.now = m.now.Add(idleFor + time.Hour)
		m.s.Due(m.now, 0)
	}
	if s := m.s; len(s.domains)+len(s.idle)+len(s.waiting)+s.doomed.Len()+s.given.Len()+len(s.dispatch.Running()) > 0 {
		m.t.Fatalf("something is left: %+v", s)
	}
}

// audit holds that no unit is lost, and none there twice: each is in the state that
// the user knows, and counted once.
func (m *model) audit() {
	t, s := m.t, m.s
	t.Helper()
	found, units, states := map[*Unit]bool{}, map[*domain]int32{}, Stat{}
	s.Walk(func(u *Unit) bool {
		if found[u] {
			t.Fatalf("%s is in two places", u.ID())
		}
		found[u] = true
		units[u.Dest()]++
		switch {
		case u.Running():
			states.Running++
			if m.run[u] == nil && !m.given[u] {
				t.Fatalf("%s runs, and was not handed out", u.ID())
			}
			return true
		case u.State() == unit.Waiting:
			states.Waiting++
		default:
			states.Ready++
		}
		if !m.idle[u] {
			t.Fatalf("%s is scheduled, and should not be", u.ID())
		}
		return true
	})
	if len(found) != s.Len() || s.Len() != len(m.idle)+len(m.run)+len(m.given) || states != s.Stat() {
		t.Fatalf("%d units, the Schedule says %d, the model %d; %+v, not %+v", len(found), s.Len(), len(m.idle)+len(m.run)+len(m.given), states, s.Stat())
	}
	for key, d := range s.domains {
		if d.Key() != key || d.Units != units[d] || d.Units == 0 && !d.Listed || d.Listed != slices.Contains(s.idle, d) {
			t.Fatalf("%s has %d units: %+v", key, units[d], d)
		}
		delete(units, d)
	}
	if len(units) > 0 {
		t.Fatalf("%d domains with units are forgotten", len(units))
	}
	if len(m.given) > maxDoomed {
		t.Fatalf("%d are being given up", len(m.given))
	}
}
