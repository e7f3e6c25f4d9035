package dispatch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/schedule/throttle"
	"tarishi/internal/schedule/unit"
)

// FuzzStructures does everything that a Dispatcher is for, in any order, and counts
// its structures anew after each step: every list, ring and count is what the units
// and domains say, and a site with something ready waits for something that will
// come.
func FuzzStructures(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	// What is rare: a slow site loses the turn that it was called for, and a probe is located
	// when its site is not suspended any more.
	for _, seed := range []uint64{208, 294, 897, 1106, 1183, 5270} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		w := newWalk(t, rand.New(rand.NewPCG(seed, 9)))
		for range 300 {
			w.step()
			w.audit()
		}
		w.drain()
	})
}

// walk is a Dispatcher and its units.
type walk struct {
	t       *testing.T
	r       *rand.Rand
	s       *Dispatcher
	now     int64
	made    int
	limits  []*throttle.Limits // of a site by its number, 0: of a domain by itself
	domains []*Domain          // the last ones are what goes another way
	ready   []*Unit
	located map[*Unit]*site // of those that run: the place that it was given
}

func newWalk(t *testing.T, r *rand.Rand) *walk {
	w := &walk{t: t, r: r, now: int64(1e18), located: map[*Unit]*site{}}
	for range 4 {
		l := &throttle.Limits{Low: r.IntN(3), High: r.IntN(6), Start: r.IntN(4), Probes: []time.Duration{time.Minute, time.Hour}}
		if r.IntN(3) == 0 {
			l.Rate = throttle.Rate{Count: 1 + r.IntN(9), Per: time.Minute}
		}
		w.limits = append(w.limits, l)
	}
	for _, route := range []string{"", "route"} {
		for i := range 5 {
			w.domains = append(w.domains, NewDomain(fmt.Sprint("d", i), route, w.limits[0]))
		}
	}
	o := Options{Concurrency: []int{0, 1, 3, 7, 12, 25}[r.IntN(6)], Random: r.Float64}
	if r.IntN(3) > 0 {
		o.Outside = []int{0, 1, 10, 100}[r.IntN(4)]
		o.Deadline = time.Duration(r.IntN(3)) * time.Minute
	}
	w.s = New(o)
	return w
}

// one takes any element out, the zero value if there is none.
func one[E any](r *rand.Rand, all []E) (e E) {
	if len(all) == 0 {
		return e
	}
	return all[r.IntN(len(all))]
}

func (w *walk) step() {
	r, s := w.r, w.s
	switch r.IntN(18) {
	case 0, 1, 2, 3:
		n, d := 1, w.domains[r.IntN(5)]
		if r.IntN(300) == 0 {
			n = 150
		}
		for range n {
			u := NewUnit(d, unit.Delivery{ID: mail.ID(fmt.Sprint(w.made)), Recipients: []int{w.made}, Attempts: r.IntN(2), Null: r.IntN(5) == 0})
			w.made++
			w.putReady(u)
		}
	case 4, 5, 6:
		w.begin(r.IntN(6))
	case 7, 8, 9:
		if u := one(r, s.runs); u != nil {
			w.locate(u)
		}
	case 10, 11:
		if u := one(r, s.runs); u != nil && w.located[u] != nil {
			s.Report(u, []Outcome{{Reached: true}, {Reached: true}, {Reached: true, Throttled: true}, {}, {}, {Local: true}}[r.IntN(6)], w.now)
			w.end(u)
		}
	case 12:
		if u := one(r, s.runs); u != nil { // it says nothing
			w.end(u)
		}
	case 13:
		if u := one(r, w.ready); u != nil {
			s.TakeReady(u)
			w.ready = slices.DeleteFunc(w.ready, func(v *Unit) bool { return v == u })
		}
	case 14:
		if d := one(r, w.domains); d.site != nil && d.site.Suspended() > w.now {
			s.ProbeNow(d, w.now)
		}
	case 15:
		w.recall()
	default:
		w.pass()
	}
}

func (w *walk) putReady(u *Unit) {
	w.s.PutReady(u, w.now, w.r.IntN(5) == 0)
	w.ready = append(w.ready, u)
}

// begin has units handed out, which get a place that there is.
func (w *walk) begin(limit int) {
	for _, u := range w.s.Begin(w.now, limit) {
		if !slices.Contains(w.ready, u) {
			w.t.Fatalf("%s was handed out, and is not ready", u.ID())
		}
		if at := u.dest.site; at.Suspended() == 0 && at.running > at.Places() || at.Suspended() != 0 && at.probe == nil {
			w.t.Fatalf("%s was handed out, and %s has no place", u.ID(), at.name)
		}
		w.ready = slices.DeleteFunc(w.ready, func(v *Unit) bool { return v == u })
		w.located[u] = u.dest.site
	}
}

// locate has a running unit find out where it goes.
func (w *walk) locate(u *Unit) {
	number := w.r.IntN(len(w.limits))
	l, name := w.limits[number], ""
	if number > 0 {
		name = fmt.Sprint("site", number)
	}
	if w.r.IntN(10) == 0 { // another domain of the site may have others
		l = w.limits[w.r.IntN(len(w.limits))]
	}
	i := slices.Index(w.domains, u.dest)
	if to := w.domains[i%5+5*min(number, w.r.IntN(2))%10]; to != u.dest && number > 0 {
		w.s.Reroute(u, to, w.now)
	}
	located, _ := w.s.Locate(u, name, l, w.now)
	at := u.dest.site
	switch {
	case !located:
		delete(w.located, u)
		w.ready = append(w.ready, u)
	case at.shared != (number > 0) || at.shared && at.name != name || at.Limits() != l:
		w.t.Fatalf("%s is at %q, not %q, with %+v", u.ID(), at.name, name, at.Limits())
	case at.probe == u: // it has its place since the site was suspended
		w.located[u] = at
	case at.Suspended() == 0 && at.running > at.Places(), at.Suspended() != 0 && at != w.located[u]:
		w.t.Fatalf("%s may go on, and %q has no place", u.ID(), at.name)
	default:
		w.located[u] = at
	}
}

func (w *walk) recall() {
	for _, c := range w.s.Recall(w.now) {
		if !slices.Contains(w.s.runs, c.Unit) {
			w.t.Fatalf("%s is to be ended, and does not run", c.Unit.ID())
		}
		if w.r.IntN(3) > 0 {
			w.end(c.Unit)
		}
	}
}

// end ends a running unit, which is ready again, or gone. Its domain keeps what is
// known of the site.
func (w *walk) end(u *Unit) {
	w.s.Release(u, w.now)
	delete(w.located, u)
	if w.r.IntN(2) == 0 {
		u.SetDelivery(u.Recipients(), u.Attempts()+w.r.IntN(2), time.Time{})
		w.putReady(u)
		return
	}
	if u.dest.active == 0 {
		w.s.Shrink(u.dest, w.now)
	}
}

// pass lets time pass, now and then backwards.
func (w *walk) pass() {
	switch w.r.IntN(12) {
	case 0:
		w.now += int64(w.r.IntN(10)) * int64(time.Hour)
	case 1:
		if w.r.IntN(4) == 0 {
			by := int64(w.r.IntN(100_000)) * int64(time.Second)
			w.now -= by
			w.s.Rewind(by, w.now, slices.Values(w.domains))
		}
	case 2, 3, 4:
		if next := w.s.Next(w.now); next < 1<<62 {
			w.now = max(w.now, next)
		}
	default:
		w.now += int64(w.r.IntN(90)) * int64(time.Second)
	}
	w.s.WakeSites(w.now)
}

// drain ends all that runs until nothing is left.
func (w *walk) drain() {
	for step := 0; len(w.ready)+len(w.s.runs) > 0; step++ {
		if step > 20_000 {
			w.t.Fatalf("%d units are left", len(w.ready)+len(w.s.runs))
		}
		for _, u := range slices.Clone(w.s.runs) {
			w.s.Report(u, Outcome{Reached: true}, w.now)
			w.s.Release(u, w.now)
			delete(w.located, u)
		}
		w.audit()
		w.s.Recall(w.now)
		w.begin(1000)
		if len(w.s.runs) > 0 {
			continue
		}
		next := w.s.Next(w.now)
		if next == 1<<63-1 && len(w.ready) > 0 {
			w.t.Fatalf("nothing runs, and nothing will: %s", w.s.Why(w.ready[0], w.now))
		}
		w.now = max(w.now, next)
		w.s.WakeSites(w.now)
	}
	w.audit()
	for _, d := range w.domains {
		w.s.Shrink(d, w.now)
		w.s.LeaveSite(d)
	}
	if s := w.s; len(s.sites)+len(s.alarms)+len(s.runs)+len(s.leftOut)+s.running+s.outside+s.slow > 0 || s.byClass != [classes]int{} {
		w.t.Fatalf("something is left: %+v", s)
	}
}

// audit holds what is always true of a Dispatcher.
func (w *walk) audit() {
	w.t.Helper()
	w.auditRunning()
	w.auditReady()
	w.auditSites()
}

// auditRunning counts what runs, by class and domain.
func (w *walk) auditRunning() {
	t, s := w.t, w.s
	active, without, byClass, slow, outside := map[*Domain]int32{}, map[*Domain]int32{}, [classes]int{}, 0, 0
	for i, u := range s.runs {
		r := s.spans[i]
		if int(*u.Place()) != i || !u.Running() || w.located[u] == nil {
			t.Fatalf("%s is in a wrong place", u.ID())
		}
		active[u.dest]++
		if r.slow {
			slow++
		}
		if r.outside {
			outside++
			without[u.dest]++
			continue
		}
		byClass[r.class]++
	}
	if len(s.runs) != len(w.located) || s.running+s.outside != len(s.runs) {
		t.Fatalf("%d run of %d", s.running+s.outside, len(w.located))
	}
	if s.byClass != byClass || s.outside != outside || s.slow != slow || s.o.Outside == 0 && slow+outside > 0 {
		t.Fatalf("%v run, %d are slow and %d outside, the Dispatcher says %v, %d and %d", byClass, slow, outside, s.byClass, s.slow, s.outside)
	}
	if c := s.o.Concurrency; s.running > c || s.outside > s.o.Outside || c >= 4 && (s.byClass[retry] > c-c/4 || s.byClass[null] > max(c/4, 1)) {
		t.Fatalf("more run than may: %d, %d outside, %v", s.running, s.outside, s.byClass)
	}
	for _, d := range w.domains {
		if d.active != active[d] || d.outside != without[d] {
			t.Fatalf("%s: %d run, not %d", d.Key(), active[d], d.active)
		}
	}
}

// auditReady finds each ready unit once, where it belongs.
func (w *walk) auditReady() {
	t, found := w.t, map[*Unit]bool{}
	for _, d := range w.domains {
		n := 0
		for c := range classes {
			if d.lists == nil {
				break
			}
			in := 0
			d.lists[c].Walk(func(u *Unit) bool {
				if found[u] || u.State() != unit.Ready || u.dest != d || u.classOf() != c {
					t.Fatalf("%s is in a list of others", u.ID())
				}
				found[u] = true
				in++
				return true
			})
			if d.lists[c].Len() != in || d.lists[c].queued != (in > 0) {
				t.Fatalf("%s has %d ready units, not %d", d.Key(), in, d.lists[c].Len())
			}
			n += in
		}
		if int(d.ready) != n || d.ready+d.active > 0 && d.site == nil {
			t.Fatalf("%s: %d are ready: %+v", d.Key(), n, d)
		}
	}
	if len(found) != len(w.ready) {
		t.Fatalf("%d are ready, not %d", len(found), len(w.ready))
	}
}

// auditSites counts what belongs to each site, and finds each where blocked has it
// wait.
func (w *walk) auditSites() {
	t, s := w.t, w.s
	queued := [classes]map[*site]bool{}
	for c := range classes {
		queued[c] = map[*site]bool{}
		for x := s.rings[c].head; x != nil; x = x.rings[c].link {
			queued[c][x] = true
		}
	}
	for i, x := range s.alarms {
		if int(x.alarmPlace) != i || x.alarmAt < s.alarms[max(0, (i-1)/2)].alarmAt || !x.pending() {
			t.Fatalf("the alarm of %s is in a wrong place", x.name)
		}
	}
	members := map[*site][]*Domain{}
	for _, d := range w.domains {
		if d.site != nil {
			members[d.site] = append(members[d.site], d)
		}
	}
	shared := 0
	for x, domains := range members {
		running, outside := int32(0), int32(0)
		for _, d := range domains {
			running, outside = running+d.active, outside+d.outside
		}
		if int(x.domains) != len(domains) || x.running != running || x.outside != outside || x.shared != (s.sites[x.name] == x) {
			t.Fatalf("%s: %d domains, %d run: %+v", x.name, len(domains), running, x)
		}
		if x.shared {
			shared++
		}
		if p := x.probe; p != nil && (!p.Running() || p.dest.site != x) {
			t.Fatalf("%s is probed by a unit that left: %+v", x.name, p)
		}
		if x.queued != slices.Contains(s.slowWait, x) || x.leftOut != slices.Contains(s.leftOut, x) || x.alarmed != slices.Contains(s.alarms, x) {
			t.Fatalf("%s: %+v", x.name, x)
		}
		for c := range classes {
			w.auditRing(x, c, domains, queued[c][x])
		}
	}
	if len(s.sites) != shared {
		t.Fatalf("%d sites, not %d", shared, len(s.sites))
	}
}

// auditRing holds that a site's ring of one class has the domains with something
// ready, and that the site has its turn or waits for something.
func (w *walk) auditRing(x *site, c class, domains []*Domain, queued bool) {
	t, s := w.t, w.s
	due, n := 0, 0
	var last *Domain
	for d := x.rings[c].head; d != nil; d = d.lists[c].link {
		if d.site != x || d.lists[c].before != last {
			t.Fatalf("%s: %s is in its ring", x.name, d.Key())
		}
		last = d
		n++
	}
	for _, d := range domains {
		if d.lists != nil && d.lists[c].Len() > 0 {
			due++
		}
	}
	if due != n || last != x.rings[c].tail || x.rings[c].queued != queued {
		t.Fatalf("%s: %d domains have something ready, not %d", x.name, due, n)
	}
	if n == 0 || queued {
		return
	}
	if !x.alarmed && !x.leftOut && !x.queued && x.running == 0 {
		why, _ := s.obstacleOf(x, w.now)
		t.Fatalf("%s waits for nothing: %d", x.name, why)
	}
}

// TestWaitingDomainIsSmall holds what is kept of a domain that has nothing ready.
func TestWaitingDomainIsSmall(t *testing.T) {
	s, now := New(Options{}), int64(1e18)
	plain := NewDomain("plain", "", &throttle.Limits{High: 3})
	dead := NewDomain("dead", "", &throttle.Limits{High: 3})
	for _, d := range []*Domain{plain, dead} {
		s.PutReady(NewUnit(d, unit.Delivery{Recipients: []int{0}}), now, false)
		u := s.Begin(now, 1)[0]
		s.Report(u, Outcome{Reached: d == plain, Err: "450 later"}, now)
		s.Release(u, now)
		s.Shrink(d, now)
	}
	if plain.site != nil || plain.lists != nil || plain.LastError() != "450 later" {
		t.Errorf("%+v", plain)
	}
	if dead.site == nil || dead.site.Suspended() == 0 {
		t.Errorf("%+v", dead)
	}
}
