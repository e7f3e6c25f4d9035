package schedule

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
)

// TestProbeLeavesItsSite has the domain of a probe move elsewhere while the probe
// runs: the site that it leaves is probed by another one.
func TestProbeLeavesItsSite(t *testing.T) {
	for _, back := range []bool{false, true} {
		s := under(Limits{High: 10}, 0)
		for i := range 4 {
			add(s, fmt.Sprint("a", i), "a", 0, 0)
			add(s, fmt.Sprint("b", i), "b", 0, 0)
		}
		first := s.Due(start, 4)
		for _, u := range first {
			s.Locate(u, "mx", s.fallback, start)
		}
		slow := first[0] // still looks for its way when the site is suspended
		for _, u := range first[1:] {
			end(s, u, nobody, start)
		}
		now := start.Add(time.Minute)
		probe := s.Due(now, 10)
		if len(probe) != 1 || probe[0].Domain() != slow.Domain() {
			t.Fatal(ids(probe), slow.Domain())
		}
		s.Locate(slow, "", nil, now) // the DNS says nothing of the domain now
		if !back || s.Locate(probe[0], "mx", nil, now) {
			end(s, probe[0], nobody, now)
		}
		now = now.Add(time.Hour)
		found := false
		for _, u := range s.Due(now, 10) {
			found = found || u.Dest().SiteName() == "mx"
		}
		if !found {
			t.Errorf("back %v: nobody probes the site", back)
		}
	}
}

// TestJoiningABlockedSite has a domain with more mail than places turn out to
// belong to a site that must wait: what is left of it has its turn when that is
// over.
func TestJoiningABlockedSite(t *testing.T) {
	s := under(Limits{High: 1}, 0)
	rate := &Limits{High: 10, Rate: Rate{Count: 1, Per: time.Minute}}
	add(s, "a", "a", 0, 0)
	a := s.Due(start, 1)[0]
	if !s.Locate(a, "mx", rate, start) {
		t.Fatal("no place")
	}
	end(s, a, reached, start)
	for i := range 3 {
		add(s, fmt.Sprint("b", i), "b", 0, 0)
	}
	if s.Locate(expect(t, s, 0, 10, "b0")[0], "mx", rate, start) {
		t.Fatal("beyond the rate")
	}
	s.Expire(start, 10)
	if next, ok := s.Next(start); !ok || !next.Equal(start.Add(time.Minute)) {
		t.Fatalf("next %v, %v", next.Sub(start), ok)
	}
	expect(t, s, time.Minute, 10, "b0")
}

// TestJoiningTogether has several deliveries of a domain run when its site is
// learned of: each of them asks for a place there.
func TestJoiningTogether(t *testing.T) {
	for name, l := range map[string]*Limits{"rate": {High: 10, Rate: Rate{Count: 1, Per: time.Minute}}, "suspended": {High: 10}} {
		s := under(Limits{High: 10}, 0)
		add(s, "a", "a", 0, 0)
		a := s.Due(start, 1)[0]
		s.Locate(a, "mx", l, start)
		if name == "rate" {
			end(s, a, reached, start)
		} else {
			end(s, a, nobody, start)
		}
		for i := range 5 {
			add(s, fmt.Sprint("b", i), "b", 0, 0)
		}
		for _, u := range s.Due(start, 10) {
			if s.Locate(u, "mx", l, start) {
				t.Errorf("%s: %s got a place", name, u.ID())
			}
		}
		if n := len(s.Due(start.Add(time.Minute), 10)); n != 1 {
			t.Errorf("%s: %d after a minute", name, n)
		}
	}
}

// TestSites lives through days in which domains change their MX, which is found
// out while deliveries run, and holds that no delivery is stuck, that one runs
// only where its site has admitted it, and that no site is forgotten too early
// or too late.
func TestSites(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { sites(t, rand.New(rand.NewPCG(seed, 11))) })
	}
}

func sites(t *testing.T, r *rand.Rand) {
	plain := &Limits{Low: 1, High: 3}
	limits := map[string]*Limits{
		"": plain, "rated": {Low: 1, High: 5, Rate: Rate{Count: 6, Per: time.Minute}}, "dead": {Low: 1, High: 6}, "narrow": {Low: 1, High: 1}, "wide": {Low: 2, High: 8, Start: 2},
	}
	names := []string{"", "rated", "dead", "narrow", "wide"}
	s := New(Options{Concurrency: 12, Random: r.Float64, Limits: func(string) *Limits { return plain }})
	type run struct {
		u            *Unit
		picked       time.Time
		site, at     string // at that time, and where it was located
		locate, over time.Time
		located      bool
	}
	var runs []*run
	at := map[string]string{}
	now, made, rated := start, 0, 0
	healed := start.Add(20 * time.Hour)
	for step := 0; now.Before(healed) || s.Len() > 0; step++ {
		if now.After(healed.Add(12 * time.Hour)) {
			t.Fatalf("%d units are left: %+v", s.Len(), s.Stat())
		}
		if now.Before(healed) && r.IntN(3) == 0 {
			domain := fmt.Sprint("d", r.IntN(9))
			for range 1 + r.IntN(4) {
				s.Add(now, Delivery{ID: mail.ID(fmt.Sprint(made)), Domain: domain, Recipients: []int{0}, Attempts: r.IntN(2), Received: now})
				made++
			}
			if r.IntN(4) == 0 {
				at[domain] = names[r.IntN(len(names))]
			}
		}
		if r.IntN(300) == 0 {
			s.Flush(fmt.Sprint("d", r.IntN(9)), now)
		}
		left := runs[:0]
		for _, x := range runs {
			site := at[x.u.Domain()]
			if x.located {
				site = x.at
			}
			if !x.located && !x.locate.After(now) {
				route := ""
				if x.u.Domain() < "d3" && r.IntN(3) > 0 { // a plugin routes some of its mail
					route = names[1+r.IntN(len(names)-1)]
					site = route
				}
				s.Reroute(x.u, route, now)
				x.at = site
				if !s.Locate(x.u, site, limits[site], now) {
					continue
				}
				x.located = true
				if d := x.u.Dest(); d.SiteName() != cmp.Or(site, d.Name) {
					t.Fatalf("%s is at %s, not %s", d.Name, d.SiteName(), site)
				}
				if site == "rated" {
					rated++
				}
			}
			if !x.located || x.over.After(now) {
				left = append(left, x)
				continue
			}
			o := reached
			if site == "dead" && now.Before(healed) && r.IntN(5) > 0 {
				o = nobody
			}
			if r.IntN(10) > 0 { // else it is cut off
				s.Report(x.u, o, now)
			}
			switch {
			case o.Reached:
				s.Done(x.u)
			default:
				s.Defer(x.u, now, []int{0}, x.u.Attempts()+1, now.Add(time.Duration(r.IntN(40))*time.Minute))
			}
		}
		runs = left
		for _, u := range s.Due(now, 100) {
			locate := now.Add(time.Duration(r.IntN(20)) * time.Second)
			runs = append(runs, &run{u: u, picked: now, site: u.Dest().SiteName(), locate: locate, over: locate.Add(time.Duration(r.IntN(60)) * time.Second)})
		}
		if len(runs) != s.Stat().Running {
			t.Fatalf("%d run, not %d", len(runs), s.Stat().Running)
		}
		if u := s.Expire(now, 10); len(u) > 0 {
			t.Fatalf("%v is given up, and has no lifetime", ids(u))
		}
		next, ok := s.Next(now)
		switch {
		case ok && !next.After(now):
			t.Fatal("Next is now, and Due had nothing more")
		case !ok && len(runs) == 0 && s.Len() > 0:
			s.Walk(func(u *Unit) bool { t.Error(u.Domain(), s.Why(u, now)); return true })
			t.Fatalf("nothing runs, and nothing will: %+v", s.Stat())
		}
		if step%3 == 0 {
			active := map[*domain]int{}
			s.Walk(func(u *Unit) bool {
				if u.Running() {
					active[u.Dest()]++
				}
				return true
			})
			for key, d := range s.domains {
				if d.Key() != key || d.Active() != active[d] {
					t.Fatalf("%s: %d run, not %d", d.Key(), active[d], d.Active())
				}
			}
		}
		now = now.Add(time.Duration(1+r.IntN(15)) * time.Second)
	}
	if most := int(now.Sub(start)/(10*time.Second)) + 6; rated > most {
		t.Errorf("%d attempts beyond a rate that allows %d", rated, most)
	}
}

// TestClockGoesBack has the system's clock set back by a day: what was learned
// before lasts no longer for it.
func TestClockGoesBack(t *testing.T) {
	s := New(Options{Limits: func(domain string) *Limits {
		return &Limits{High: 10, Rate: map[string]Rate{"rated": {Count: 1, Per: time.Minute}}[domain], Lifetime: 48 * time.Hour, Patience: 40 * time.Hour}
	}})
	wrong := start.Add(24 * time.Hour)
	for i := range 2 {
		s.Add(wrong, Delivery{ID: mail.ID(fmt.Sprint("r", i)), Domain: "rated", Recipients: []int{0}, Received: start})
		s.Add(wrong, Delivery{ID: mail.ID(fmt.Sprint("d", i)), Domain: "dead", Recipients: []int{0}, Received: start})
	}
	s.Add(wrong, Delivery{ID: "later", Domain: "late", Recipients: []int{0}, Received: start, Attempts: 1, Next: wrong.Add(10 * time.Minute)})
	for _, u := range s.Due(wrong, 10) {
		if u.Domain() == "dead" {
			s.Report(u, nobody, wrong)
		}
		s.Drop(u)
	}
	s.Add(wrong, Delivery{ID: "d2", Domain: "dead", Recipients: []int{0}, Received: start})
	expect(t, s, 24*time.Hour, 10)
	s.Expire(wrong, 10)
	expect(t, s, 0, 10)
	expect(t, s, time.Minute, 10, "d2", "r1")
	expect(t, s, 9*time.Minute, 10)
	if next, ok := s.Next(start.Add(9 * time.Minute)); !ok || next.After(start.Add(11*time.Minute)) {
		t.Errorf("next in %v", next.Sub(start))
	}
	expect(t, s, 11*time.Minute, 10, "later")

	s.Add(start.Add(11*time.Minute), Delivery{ID: "d3", Domain: "dead", Recipients: []int{0}, Received: start.Add(-48 * time.Hour)})
	if u := s.Expire(start.Add(22*time.Minute), 10); len(u) != 1 {
		t.Errorf("%v: nothing is given up before the clock is where it was", ids(u))
	}
}

// TestPatienceBeginsWithTheSuspension has mail that waited for other things
// before, a hold for instance, come to a destination that is down.
func TestPatienceBeginsWithTheSuspension(t *testing.T) {
	s := under(Limits{High: 1, Lifetime: 100 * time.Hour, Patience: 10 * time.Hour, Probes: []time.Duration{30 * time.Minute}}, 0)
	for _, id := range []mail.ID{"old", "probe", "older"} {
		age := map[mail.ID]time.Duration{"old": 20 * time.Hour, "older": 95 * time.Hour}[id]
		s.Add(start, Delivery{ID: id, Domain: "a", Recipients: []int{0}, Received: start.Add(-age)})
	}
	given := map[mail.ID]time.Duration{}
	for now := start; now.Before(start.Add(12 * time.Hour)); now = now.Add(time.Minute) {
		for _, u := range s.Due(now, 1) {
			s.Report(u, nobody, now)
			s.Defer(u, now, []int{0}, u.Attempts()+1, now)
		}
		for _, u := range s.Expire(now, 10) {
			given[u.ID()] = now.Sub(start)
			s.Done(u)
		}
	}
	if given["older"] != 5*time.Hour || given["old"] != 10*time.Hour || given["probe"] != 10*time.Hour {
		t.Error(given)
	}
}

// TestManyDue holds that much mail that is due together is taken on in parts, and
// that all of it is.
func TestManyDue(t *testing.T) {
	s := New(Options{Concurrency: 100})
	const all = 2*maxAtOnce + 10
	for i := range all {
		add(s, fmt.Sprint(i), fmt.Sprint("d", i%50), 1, time.Hour)
	}
	if n := s.Flush("", start); n != all {
		t.Fatal(n)
	}
	if w := s.Stat().Waiting; w != all-maxAtOnce {
		t.Errorf("%d wait after the flush", w)
	}
	n := 0
	for s.Len() > 0 {
		if next, ok := s.Next(start); !ok || next.After(start) {
			t.Fatalf("after %d: next %v, %v", n, next, ok)
		}
		for _, u := range s.Due(start, 1000) {
			s.Done(u)
			n++
		}
	}
	if n != all {
		t.Error(n)
	}
}

// TestWaitingDomainIsSmall holds what is kept of a domain of which nothing is due.
func TestWaitingDomainIsSmall(t *testing.T) {
	s := New(Options{Limits: func(domain string) *Limits {
		return &Limits{High: 3, Rate: map[string]Rate{"rated": {Count: 1, Per: time.Hour}}[domain]}
	}})
	for _, domain := range []string{"plain", "rated", "dead"} {
		u := add(s, domain, domain, 0, 0)
		s.Due(start, 1)
		s.Report(u, Outcome{Reached: domain != "dead", Err: "450 later"}, start)
		s.Defer(u, start, []int{0}, 1, start.Add(time.Minute))
	}
	for _, d := range s.Destinations(start, 3) {
		if d.LastError != "450 later" || d.Limit != 3 && d.Domain != "dead" || d.Site != d.Domain || (d.Domain == "dead") != !d.SuspendedUntil.IsZero() {
			t.Errorf("%+v", d)
		}
	}
	expect(t, s, time.Minute, 10, "plain", "dead")
	if why := s.Why(add(s, "more", "rated", 0, 0), start); !strings.HasPrefix(why, "the rate of rated") {
		t.Error(why)
	}
}

// TestReroute has part of a domain's mail go another way, which fails: the rest
// of it does not notice, and all mail that goes that way does.
func TestReroute(t *testing.T) {
	s := under(Limits{High: 10}, 0)
	hop := &Limits{High: 2}
	var tenants []*Unit
	for _, domain := range []string{"a", "b", "c"} {
		u := add(s, "tenant-"+domain, domain, 0, 0)
		add(s, "other-"+domain, domain, 0, 0)
		tenants = append(tenants, u)
	}
	s.Due(start, 10)
	for i, u := range tenants {
		s.Reroute(u, "hop", start)
		if got := s.Locate(u, "hop", hop, start); got != (i < 2) {
			t.Errorf("%s: located %v", u.ID(), got)
		}
	}
	end(s, tenants[0], nobody, start)
	end(s, tenants[1], nobody, start)
	for _, domain := range []string{"a", "b", "c"} {
		add(s, "fresh-"+domain, domain, 0, 0)
	}
	expect(t, s, 0, 10, "fresh-a", "fresh-b", "fresh-c")
	if why := s.Why(tenants[2], start); !strings.HasPrefix(why, "hop could not be reached") {
		t.Error(why)
	}
	if n := s.Flush("c", start); n != 0 {
		t.Errorf("%d flushed", n)
	}
	expect(t, s, 0, 10, "tenant-c") // the probe
	shown := map[string]string{}
	for _, d := range s.Destinations(start, 10) {
		shown[d.Domain] = d.Site
	}
	if len(shown) != 6 || shown["a via hop"] != "hop" || shown["a"] != "a" {
		t.Error(shown)
	}
	if n := s.Flush("a", start); n != 1 || tenants[0].Domain() != "a" {
		t.Errorf("%d flushed of %s", n, tenants[0].Domain())
	}
	s.Reroute(tenants[2], "", start)
	if !s.Locate(tenants[2], "", nil, start) || tenants[2].Dest().SiteName() != "c" {
		t.Error("it is its domain's again")
	}
	expect(t, s, 0, 10, "tenant-a")
}
