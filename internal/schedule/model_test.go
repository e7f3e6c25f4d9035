package schedule

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tarishi/internal/mail"
)

// FuzzModel does everything that a Schedule is for, in any order, beside a plain
// model: what is scheduled and what runs. After each step the structures are
// counted anew, see audit, and in the end all that is left comes out.
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

// model is what its Schedule must do.
type model struct {
	t      *testing.T
	r      *rand.Rand
	s      *Schedule
	now    time.Time
	places int // in all; 0: no cap
	more   int // Options.Outside
	made   int
	limits []*Limits       // of a site by its number, 0: of a domain by itself
	idle   map[*Unit]int64 // scheduled, and when due
	run    map[*Unit]bool  // handed out by Due: it was located
	at     map[*Unit]*site // of those: where it has a place
	given  map[*Unit]bool  // handed out by Expire
}

func newModel(t *testing.T, r *rand.Rand) *model {
	m := &model{
		t: t, r: r, now: start, places: []int{0, 1, 3, 7, 12, 25}[r.IntN(6)],
		idle: map[*Unit]int64{}, run: map[*Unit]bool{}, at: map[*Unit]*site{}, given: map[*Unit]bool{},
	}
	for range 4 {
		l := &Limits{Low: r.IntN(3), High: r.IntN(6), Start: r.IntN(4), Probes: []time.Duration{time.Minute, time.Hour}}
		if r.IntN(3) == 0 {
			l.Rate = Rate{1 + r.IntN(9), time.Minute}
		}
		if r.IntN(3) > 0 {
			l.Lifetime, l.Patience, l.Warning = time.Duration(1+r.IntN(20))*time.Hour, time.Duration(r.IntN(5))*time.Hour, time.Duration(r.IntN(4))*time.Hour
		}
		m.limits = append(m.limits, l)
	}
	o := Options{Concurrency: m.places, Random: r.Float64, Limits: func(string) *Limits { return m.limits[0] }}
	if r.IntN(3) > 0 {
		o.Outside = []int{0, 1, 10, 100}[r.IntN(4)]
		o.Deadline = time.Duration(r.IntN(3)) * time.Minute
	}
	m.more = o.Outside
	m.s = New(o)
	return m
}

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
	t, r, s := m.t, m.r, m.s
	switch r.IntN(22) {
	case 0, 1, 2, 3:
		n, domain := 1, m.domain()
		if r.IntN(300) == 0 {
			n = 150
		}
		for range n {
			m.add(domain)
		}
	case 4, 5, 6:
		limit := r.IntN(6)
		if r.IntN(20) == 0 {
			limit = 100
		}
		m.due(limit)
	case 7:
		m.expire(r.IntN(4))
	case 8, 9, 10: // it finds out where it goes
		if u := one(m, m.run); u != nil {
			site := r.IntN(len(m.limits))
			route := ""
			if site > 0 && r.IntN(3) == 0 {
				route = fmt.Sprint("route", site)
			}
			s.Reroute(u, route, m.now)
			name := fmt.Sprint("site", site)
			if site == 0 {
				name = ""
			}
			l := m.limits[site]
			if r.IntN(10) == 0 { // another domain of the site may have others
				l = m.limits[r.IntN(len(m.limits))]
			}
			if m.run[u] = s.Locate(u, name, l, m.now); !m.run[u] {
				delete(m.run, u)
				m.idle[u] = u.next
				break
			}
			if in := u.dest.site; in.shared != (site > 0) || in.shared && in.name != name || in.limits != l {
				t.Fatalf("%s is at %q, not %q, with %+v", u.ID(), in.name, name, in.limits)
			} else if in.until == 0 && in.running > in.places() || in.until != 0 && in.probe != u && in != m.at[u] {
				t.Fatalf("%s may go on, and %q has no place", u.ID(), in.name)
			} else {
				m.at[u] = in
			}
		}
	case 11, 12:
		if u := one(m, m.run); u != nil && m.run[u] {
			o := []Outcome{reached, reached, throttled, nobody, nobody}[r.IntN(5)]
			s.Report(u, o, m.now)
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
			domain := m.domain()
			if r.IntN(3) == 0 {
				domain = ""
			}
			waiting := slices.Clone(s.waiting)
			n := s.Flush(domain, m.now)
			for _, u := range waiting {
				if domain == "" || u.Domain() == domain {
					m.idle[u] = min(m.idle[u], m.now.UnixNano())
					n--
				}
			}
			if n != 0 {
				t.Fatalf("%d flushed beyond those that waited", n)
			}
		}
	case 17:
		s.Overview(m.now, r.IntN(4))
		s.Destinations(m.now, r.IntN(4))
	case 18:
		m.recall()
	default:
		m.pass()
	}
}

// recall ends some of the attempts that are to be ended.
func (m *model) recall() {
	for _, c := range m.s.Recall(m.now) {
		if _, runs := m.run[c.Unit]; !runs {
			m.t.Fatalf("%s is to be ended, and does not run", c.Unit.ID())
		}
		if m.r.IntN(3) > 0 {
			if c.Overdue {
				m.s.Report(c.Unit, nobody, m.now)
			}
			m.end(c.Unit)
		}
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
	u := m.s.Add(m.now, v)
	m.idle[u] = u.next
}

// end ends a unit that was handed out.
func (m *model) end(u *Unit) {
	delete(m.run, u)
	delete(m.given, u)
	if m.r.IntN(2) == 0 {
		m.s.Done(u)
		return
	}
	m.s.Defer(u, m.now, u.Recipients(), u.Attempts()+m.r.IntN(2), m.now.Add(time.Duration(m.r.IntN(90)-20)*time.Minute))
	m.idle[u] = u.next
}

// pass lets time pass, now and then backwards.
func (m *model) pass() {
	switch m.r.IntN(12) {
	case 0:
		m.now = m.now.Add(time.Duration(m.r.IntN(10)) * time.Hour)
	case 1:
		if m.r.IntN(4) == 0 {
			m.now = m.now.Add(-time.Duration(m.r.IntN(100_000)) * time.Second)
			by := m.s.seen - m.now.UnixNano()
			waiting := slices.Clone(m.s.waiting)
			m.due(0) // as outbound does each minute
			if by > int64(backward) {
				for _, u := range waiting {
					m.idle[u] -= by
				}
			}
		}
	case 2, 3, 4:
		m.skip()
	default:
		m.now = m.now.Add(time.Duration(m.r.IntN(90)) * time.Second)
	}
}

// skip goes on to the time that Next gives: at that time there is something to do.
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
	state := func() string {
		first := int64(0)
		if len(m.s.alarms) > 0 {
			first = m.s.alarms[0].alarmAt
		}
		d := m.s.delays
		return fmt.Sprint(len(m.run), len(m.given), len(m.s.waiting), m.s.doomed.n, len(m.s.alarms), first, m.s.nextSweep(), d.outside, d.reviewAt, d.lateAt)
	}
	was := state()
	m.all()
	if state() == was {
		m.t.Fatalf("nothing happened at the time that Next gave: %s", was)
	}
}

// all has all handed out that may be, and returns when there is more.
func (m *model) all() (next time.Time, ok bool) {
	for range 5 { // what is given up may make room for others
		m.recall()
		m.due(1000)
		m.expire(1000)
		if next, ok = m.s.Next(m.now); !ok || next.After(m.now) {
			return next, ok
		}
	}
	m.t.Fatalf("Next is now, and nothing more is handed out: %+v", m.s.Stat())
	return next, ok
}

func (m *model) due(limit int) {
	s := m.s
	due := s.Due(m.now, limit)
	if len(due) > limit {
		m.t.Fatalf("%d handed out of %d", len(due), limit)
	}
	for _, u := range due {
		next, scheduled := m.idle[u]
		if !scheduled {
			m.t.Fatalf("%s was handed out, and is not scheduled", u.ID())
		}
		if next > m.now.UnixNano() && next != u.next {
			m.t.Fatalf("%s is early", u.ID())
		}
		if at := u.dest.site; at.until == 0 && at.running > at.places() || at.until != 0 && at.probe == nil {
			m.t.Fatalf("%s was handed out, and %s has no place", u.ID(), at.name)
		}
		delete(m.idle, u)
		m.run[u], m.at[u] = false, u.dest.site
	}
	if m.places > 0 && (s.running > m.places || s.outside > m.more || len(m.run) > s.running+s.outside) {
		m.t.Fatalf("%d run", len(m.run))
	}
	if m.places >= 4 && (s.byClass[retry] > m.places-m.places/4 || s.byClass[null] > m.places/4) {
		m.t.Fatalf("a class has more than its part: %v of %d", s.byClass, m.places)
	}
}

func (m *model) expire(limit int) {
	for _, u := range m.s.Expire(m.now, limit) {
		if _, scheduled := m.idle[u]; !scheduled {
			m.t.Fatalf("%s was given up, and is not scheduled", u.ID())
		}
		l, age := u.dest.limits, m.now.Sub(u.Received())
		over := l.Lifetime > 0 && age >= l.Lifetime || u.dest.site != nil && u.dest.site.until != 0 && l.Patience > 0 && age >= l.Patience
		late := l.Warning > 0 && age >= l.Warning && !u.Marked() && !u.Null()
		if u.Expired() && !over || u.Late() && (!late || u.Expired()) || !u.Expired() && !u.Late() {
			m.t.Fatalf("%s given up after %v: expired %v, late %v", u.ID(), age, u.Expired(), u.Late())
		}
		delete(m.idle, u)
		m.given[u] = true
	}
}

// drain ends all that runs until nothing is left.
func (m *model) drain() {
	m.due(0) // follow the clock
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
		m.audit()
		m.skip()
	}
	for range 10 {
		m.now = m.now.Add(idleFor + time.Hour)
		m.due(0)
	}
	if s := m.s; len(s.domains)+len(s.sites)+len(s.idle)+len(s.alarms)+len(s.waiting)+len(s.runs)+s.doomed.n+s.running+s.dooming > 0 {
		m.t.Fatalf("something is left: %+v", s)
	}
}

// audit holds what is always true of a Schedule.
func (m *model) audit() {
	t, s := m.t, m.s
	t.Helper()
	in := map[*Unit]state{}
	found := func(u *Unit, is ...state) {
		if _, twice := in[u]; twice || !slices.Contains(is, u.state) {
			t.Fatalf("%s is in two places, or in one that is not that of state %d", u.ID(), u.state)
		}
		in[u] = u.state
	}
	for i, u := range s.waiting {
		found(u, waiting)
		if int(u.index) != i || u.next < s.waiting[max(0, (i-1)/2)].next {
			t.Fatalf("%s is in a wrong place of the heap", u.ID())
		}
	}
	active, byClass, dooming := map[*domain]int32{}, [classes]int{}, 0
	outside, slow, late := 0, 0, map[*domain]int32{}
	for i, u := range s.runs {
		r := s.spans[i]
		found(u, running, displaced)
		if int(u.index) != i || m.run[u] && m.given[u] {
			t.Fatalf("%s is in a wrong place", u.ID())
		}
		if u.Expired() || u.Late() {
			dooming++
			continue
		}
		if m.run[u] && u.state == displaced && u.dest.site.running <= 0 {
			t.Fatalf("%s runs nowhere", u.ID())
		}
		active[u.dest]++
		if r.slow {
			slow++
		}
		if r.outside {
			outside++
			late[u.dest]++
			continue
		}
		byClass[u.class()]++
	}
	if s.outside != outside || s.slow != slow || m.more == 0 && slow+outside > 0 {
		t.Fatalf("%d are slow and %d outside, the Schedule says %d and %d", slow, outside, s.slow, s.outside)
	}
	if s.running+s.outside != len(m.run) || s.dooming != len(m.given) || s.dooming != dooming || s.byClass != byClass || s.dooming > maxDoomed {
		t.Fatalf("%d and %d run, the Schedule says %d and %d, %v not %v", len(m.run), len(m.given), s.running, s.dooming, byClass, s.byClass)
	}
	s.doomed.walk(func(u *Unit) bool { found(u, doomed); return true })

	units, domains, at, atLate := map[*domain]int32{}, map[*site]int32{}, map[*site]int32{}, map[*site]int32{}
	end := int64(1<<63 - 1)
	for key, d := range s.domains {
		due := int32(0)
		for c := range classes {
			if d.lists == nil {
				break
			}
			n := 0
			d.lists[c].walk(func(u *Unit) bool {
				found(u, ready)
				end = min(end, u.end())
				if u.dest != d || u.class() != c {
					t.Fatalf("%s is in a list of others", u.ID())
				}
				n++
				return true
			})
			if d.lists[c].n != n || d.lists[c].queued != (n > 0) {
				t.Fatalf("%s has %d ready units, not %d", key, n, d.lists[c].n)
			}
			due += int32(n)
		}
		if d.key() != key || d.ready != due || d.active != active[d] || d.late != late[d] || d.units == 0 && !d.listed || d.listed != slices.Contains(s.idle, d) {
			t.Fatalf("%s: %d are ready, and %d run: %+v", key, due, active[d], d)
		}
		if due+d.active > 0 && d.site == nil {
			t.Fatalf("%s has no site", key)
		}
		if d.site != nil {
			domains[d.site]++
			at[d.site] += d.active
			atLate[d.site] += d.late
		}
	}
	for x, n := range atLate {
		if x.late != n {
			t.Fatalf("%s: %d run without a place, not %d", x.name, n, x.late)
		}
	}
	if now := m.now.UnixNano(); s.sweepAt > max(end, now) || s.restAt > now+int64(backward+time.Second) {
		t.Fatalf("a unit is to be given up %v before anybody looks", time.Duration(s.nextSweep()-end))
	}
	for u := range in {
		units[u.dest]++
		if s.domains[u.dest.key()] != u.dest {
			t.Fatalf("%s belongs to nothing", u.ID())
		}
	}
	for d, n := range units {
		if d.units != n {
			t.Fatalf("%s has %d units, not %d", d.key(), n, d.units)
		}
	}
	if len(in) != s.Len() || s.Len() != len(m.idle)+len(m.run)+len(m.given) {
		t.Fatalf("%d units, the Schedule says %d, the model %d", len(in), s.Len(), len(m.idle)+len(m.run)+len(m.given))
	}
	for u := range m.idle {
		if _, ok := in[u]; !ok || u.Running() {
			t.Fatalf("%s is not scheduled", u.ID())
		}
	}
	m.auditSites(domains, at)
}

// auditSites holds that each site counts what runs, and that it waits for
// something that will come if it has something ready.
func (m *model) auditSites(domains, running map[*site]int32) {
	t, s, now := m.t, m.s, m.now.UnixNano()
	queued := [classes]map[*site]bool{}
	for c := range classes {
		queued[c] = map[*site]bool{}
		for x := s.rings[c].head; x != nil; x = x.rings[c].link {
			queued[c][x] = true
		}
	}
	for i, x := range s.alarms {
		if int(x.alarm) != i+1 || x.alarmAt < s.alarms[max(0, (i-1)/2)].alarmAt || !x.pending() {
			t.Fatalf("the alarm of %s is in a wrong place", x.name)
		}
	}
	shared := 0
	for x, n := range domains {
		if x.domains != n || x.running != running[x] || x.shared != (s.sites[x.name] == x) {
			t.Fatalf("%s: %d domains, %d run: %+v", x.name, n, running[x], x)
		}
		if x.shared {
			shared++
		}
		if x.limit < x.low() || x.limit > x.high() {
			t.Fatalf("%s: %d places of %d to %d", x.name, x.limit, x.low(), x.high())
		}
		if p := x.probe; p != nil && (!p.Running() || p.dest.site != x) {
			t.Fatalf("%s is probed by who left: %+v", x.name, p)
		}
		if x.queued != slices.Contains(s.slowWait, x) {
			t.Fatalf("%s waits with the slow ones: %v", x.name, x.queued)
		}
		if x.leftOut != slices.Contains(s.leftOut, x) || (x.alarm > 0) != slices.Contains(s.alarms, x) {
			t.Fatalf("%s: %+v", x.name, x)
		}
		why, until := s.blocked(x, now)
		for c := range classes {
			due, n := 0, 0
			var last *domain
			for d := x.rings[c].head; d != nil; d = d.lists[c].link {
				if d.site != x || d.lists[c].before != last {
					t.Fatalf("%s: %s is in its ring", x.name, d.key())
				}
				last = d
				n++
			}
			for _, d := range s.domains {
				if d.site == x && d.lists != nil && d.lists[c].n > 0 {
					due++
				}
			}
			if due != n || last != x.rings[c].tail || x.rings[c].queued != queued[c][x] {
				t.Fatalf("%s: %d domains have something ready, not %d", x.name, due, n)
			}
			if n == 0 || queued[c][x] {
				continue
			}
			if x.leftOut && x.running > 0 && int(x.running) >= share*(s.left()-1) {
				continue // others waited lately; the end of its attempts offers it again
			}
			if x.queued {
				continue // Due offers it when there is room for slow ones
			}
			switch {
			case why == open && x.alarm == 0:
				t.Fatalf("%s has no turn", x.name)
			case (why == rated || why == suspended) && (x.alarm == 0 || x.alarmAt > until):
				t.Fatalf("%s has no alarm", x.name)
			case (why == full || why == stuck || why == probed) && x.running == 0, why == crowded && s.running == 0, why == slowed && !x.queued && !x.leftOut && x.alarm == 0 && x.running == 0:
				t.Fatalf("%s waits for nothing: %d", x.name, why)
			}
		}
	}
	if len(s.sites) != shared {
		t.Fatalf("%d sites, not %d", shared, len(s.sites))
	}
}
