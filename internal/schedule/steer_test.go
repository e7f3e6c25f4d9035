package schedule

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/schedule/unit"
)

// under returns a Schedule whose every destination has the limits l.
func under(l Limits, concurrency int) *Schedule {
	return New(Options{Concurrency: concurrency, Limits: func(string) *Limits { return &l }})
}

var (
	reached   = Outcome{Reached: true}
	throttled = Outcome{Reached: true, Throttled: true, Err: "421 slow down"}
	nobody    = Outcome{Err: "connection refused"}
)

// end reports what became of a unit and ends it, as outbound does.
func end(s *Schedule, u *Unit, o Outcome, now time.Time) {
	s.Report(u, o, now)
	if o.Reached {
		s.Done(u)
	} else {
		s.Defer(u, now, u.Recipients(), u.Attempts()+1, now.Add(time.Hour))
	}
}

func TestSuspension(t *testing.T) {
	s := under(Limits{Low: 1, High: 3, Probes: []time.Duration{2 * time.Minute, 4 * time.Minute}}, 0)
	for i := range 10 {
		add(s, fmt.Sprint("a", i), "a", 0, 0)
	}
	add(s, "b0", "b", 0, 0)
	units := expect(t, s, 0, 10, "a0", "b0", "a1", "a2")
	s.Report(units[1], reached, start)
	s.Done(units[1])
	for _, u := range []*Unit{units[0], units[2], units[3]} {
		end(s, u, nobody, start)
	}
	expect(t, s, 59*time.Second, 10)
	s.Expire(start, 10)
	if next, ok := s.Next(start); !ok || next.Sub(start) != time.Minute {
		t.Fatalf("next %v %v", next.Sub(start), ok)
	}
	probe := expect(t, s, time.Minute, 10, "a3")[0]
	expect(t, s, 110*time.Second, 10) // one probe at a time
	end(s, probe, nobody, start.Add(time.Minute))
	expect(t, s, 3*time.Minute-1, 10)
	probe = expect(t, s, 3*time.Minute, 10, "a4")[0]
	s.Defer(probe, start.Add(3*time.Minute), []int{0}, 0, start.Add(3*time.Minute)) // cut off: it says nothing
	probe = expect(t, s, 3*time.Minute, 10, "a5")[0]
	end(s, probe, nobody, start.Add(3*time.Minute))
	probe = expect(t, s, 5*time.Minute, 10, "a6")[0] // the last interval goes on
	end(s, probe, reached, start.Add(5*time.Minute))
	back := expect(t, s, 5*time.Minute, 10, "a7", "a8") // two places to begin with
	end(s, back[0], reached, start.Add(5*time.Minute))
	for _, u := range s.Due(start.Add(5*time.Minute), 10) {
		if u.Attempts() != 0 {
			t.Error("waiting for a suspended destination counted as an attempt")
		}
	}
}

// TestDoubt: failures in a row take places away, one success gives them back.
func TestDoubt(t *testing.T) {
	s := under(Limits{Low: 4, High: 4}, 0)
	for i := range 20 {
		add(s, fmt.Sprint("a", i), "a", 0, 0)
	}
	u := expect(t, s, 0, 10, "a0", "a1", "a2", "a3")
	end(s, u[0], nobody, start)
	end(s, u[1], nobody, start)
	expect(t, s, 0, 10)
	end(s, u[2], reached, start)
	expect(t, s, 0, 10, "a4", "a5", "a6")
}

func TestSuspensionIsJittered(t *testing.T) {
	for random, want := range map[float64]time.Duration{0: 48 * time.Second, 0.5: time.Minute, 0.999999: 72 * time.Second} {
		s := New(Options{Random: func() float64 { return random }, Limits: func(string) *Limits {
			return &Limits{High: 1, Probes: []time.Duration{2 * time.Minute}}
		}})
		add(s, "a", "a", 0, 0)
		add(s, "b", "a", 0, 0)
		end(s, expect(t, s, 0, 1, "a")[0], nobody, start)
		s.Expire(start, 10)
		if next, _ := s.Next(start); next.Sub(start).Round(time.Second) != want {
			t.Errorf("%v: %v", random, next.Sub(start))
		}
	}
}

func TestFlushProbes(t *testing.T) {
	s := under(Limits{High: 1}, 0)
	add(s, "a", "a", 0, 0)
	add(s, "b", "a", 0, 0)
	add(s, "c", "a", 0, 0)
	end(s, expect(t, s, 0, 1, "a")[0], nobody, start)
	expect(t, s, time.Second, 10)
	if n := s.Flush("a", start.Add(time.Second)); n != 1 {
		t.Fatal(n)
	}
	expect(t, s, time.Second, 10, "b")
}

// TestFlushMessages: a message's own units are due, those of others are not, and its
// suspended destination is probed.
func TestFlushMessages(t *testing.T) {
	s := under(Limits{Low: 1, High: 1}, 0)
	add(s, "a0", "a", 0, 0)
	if _, change, _ := s.Report(expect(t, s, 0, 10, "a0")[0], nobody, start); change != Suspended {
		t.Error(change)
	}
	add(s, "a1", "a", 0, 0)
	add(s, "b0", "b", 1, time.Hour)
	add(s, "b1", "b", 1, time.Hour)
	expect(t, s, 0, 10)
	if got := s.Suspensions(start); len(got) != 1 || got["a"].Ready != 1 || !got["a"].Until.After(start) {
		t.Errorf("%+v", got)
	}
	if n := s.FlushMessages(start, "b1"); n != 1 {
		t.Error(n)
	}
	expect(t, s, 0, 10, "b1")
	if n := s.FlushMessages(start, "a1"); n != 1 {
		t.Error(n)
	}
	probe := expect(t, s, 0, 10, "a1")[0]
	if site, change, _ := s.Report(probe, reached, start); site != "a" || change != Resumed {
		t.Error(site, change)
	}
	if n := s.FlushMessages(start, "none"); n != 0 || len(s.Suspensions(start)) != 0 {
		t.Error(n)
	}
}

func TestRate(t *testing.T) {
	s := under(Limits{Rate: Rate{Count: 600, Per: time.Minute}}, 0)
	for i := range 40 {
		add(s, fmt.Sprint(i), "a", 0, 0)
	}
	if n := len(s.Due(start, 100)); n != 10 {
		t.Fatalf("%d at once", n)
	}
	next, ok := s.Next(start)
	if !ok || next.Sub(start) != 100*time.Millisecond {
		t.Fatalf("next %v %v", next.Sub(start), ok)
	}
	got := 0
	for now := start; now.Before(start.Add(2 * time.Second)); now = now.Add(7 * time.Millisecond) {
		for _, u := range s.Due(now, 100) {
			got++
			s.Report(u, reached, now)
			s.Done(u)
		}
	}
	if got != 19 { // one every 100 ms
		t.Fatalf("%d in two seconds", got)
	}
}

// TestRateIsRemembered: a destination without mail keeps what it has used.
func TestRateIsRemembered(t *testing.T) {
	s := under(Limits{Rate: Rate{Count: 10, Per: time.Hour}}, 0)
	add(s, "a", "a", 0, 0)
	s.Done(expect(t, s, 0, 1, "a")[0])
	s.Due(start.Add(time.Minute), 1)
	s.Add(start, Delivery{ID: "b", Domain: "a", Recipients: []int{0}})
	expect(t, s, 6*time.Minute-1, 1)
	s.Done(expect(t, s, 6*time.Minute, 1, "b")[0])
	for range 10 {
		s.Due(start.Add(5*time.Hour), 1)
	}
	if len(s.domains) != 0 || len(s.idle) != 0 {
		t.Error("it is never forgotten")
	}
}

func TestAdaptation(t *testing.T) {
	s := under(Limits{Low: 2, High: 8, Start: 2}, 0)
	for i := range 1000 {
		add(s, fmt.Sprint(i), "a", 0, 0)
	}
	running := func() []*Unit {
		s.Due(start, 100)
		return append([]*Unit(nil), s.dispatch.Running()...)
	}
	round := func(o Outcome) int {
		all := running()
		for _, u := range all {
			s.Report(u, o, start)
			s.Done(u)
		}
		return len(running())
	}
	steps := func(o Outcome, n int) (got []int) {
		for range n {
			got = append(got, round(o))
		}
		return got
	}
	if got := fmt.Sprint(steps(reached, 4)); got != "[3 4 5 6]" && got != "[4 8 8 8]" {
		t.Fatal("grows", got)
	}
	for len(running()) < 8 {
		round(reached)
	}
	if got := fmt.Sprint(steps(throttled, 4)); got != "[4 2 2 2]" { // once for each round
		t.Fatal("shrinks", got)
	}
	if got := steps(reached, 30); got[0] > 4 || got[29] != 8 {
		t.Fatal("grows again", got)
	}
}

func TestFixedConcurrencyDoesNotAdapt(t *testing.T) {
	s := under(Limits{Low: 5, High: 5}, 0)
	for i := range 100 {
		add(s, fmt.Sprint(i), "a", 0, 0)
	}
	for range 5 {
		all := s.Due(start, 100)
		if len(all) != 5 {
			t.Fatal(len(all))
		}
		for _, u := range all {
			s.Report(u, throttled, start)
			s.Done(u)
		}
	}
}

func TestSite(t *testing.T) {
	s := under(Limits{High: 3}, 0)
	shared := &Limits{Low: 2, High: 2}
	for i := range 3 {
		add(s, fmt.Sprint("a", i), "a", 0, 0)
		add(s, fmt.Sprint("b", i), "b", 0, 0)
	}
	u := expect(t, s, 0, 4, "a0", "b0", "a1", "b1")
	if !s.Locate(u[0], "mx", shared, start) { // with it comes a1
		t.Fatal("no place in an empty site")
	}
	if s.Locate(u[1], "mx", shared, start) {
		t.Fatal("a third and fourth place in a site of two")
	}
	expect(t, s, 0, 10)
	s.Done(u[0])
	s.Done(u[2])
	again := expect(t, s, 0, 10, "a2") // b1 is running
	s.Done(u[3])
	again = append(again, s.Due(start, 10)...)
	if len(again) != 2 {
		t.Fatal(ids(again))
	}
	if got := strings.Join(ids(again), ","); !strings.Contains(got, "b0") || !strings.Contains(got, "a2") {
		t.Fatalf("%s: b0 was first in its list, and the domains take turns", got)
	}
	for _, v := range again {
		if !s.Locate(v, "mx", shared, start) {
			t.Fatal("not where it belongs")
		}
	}
	// suspended together, and parted again
	end(s, again[0], nobody, start)
	end(s, again[1], nobody, start)
	expect(t, s, 0, 10)
	late := add(s, "c0", "c", 0, 0)
	if got := expect(t, s, 0, 10, "c0")[0]; got != late || s.Locate(got, "mx", shared, start) {
		t.Fatal("a domain joins a suspended site and runs")
	}
	probe := s.Due(start.Add(time.Minute), 10)
	if len(probe) != 1 {
		t.Fatal(ids(probe))
	}
	if !s.Locate(probe[0], "", nil, start.Add(time.Minute)) || probe[0].Dest().SiteName() != probe[0].Domain() {
		t.Fatal("it has a site of its own now")
	}
	if more := s.Due(start.Add(time.Minute), 10); len(more) == 0 {
		t.Fatal("the probe has left, another one has its turn")
	}
}

func TestExpiryWhileSuspended(t *testing.T) {
	s := under(Limits{High: 1, Lifetime: time.Hour, Patience: 20 * time.Minute, Probes: []time.Duration{10 * time.Hour}}, 0)
	add(s, "a", "a", 0, 0)
	add(s, "b", "a", 0, 0)
	end(s, expect(t, s, 0, 1, "a")[0], nobody, start)
	for now := start; now.Before(start.Add(10 * time.Minute)); now = now.Add(time.Minute) {
		if u := s.Expire(now, 10); len(u) > 0 {
			t.Fatal("early")
		}
	}
	s.Report(expect(t, s, 15*time.Minute, 1, "b")[0], nobody, start.Add(15*time.Minute))
	s.Defer(s.dispatch.Running()[0], start.Add(15*time.Minute), []int{0}, 1, start.Add(15*time.Minute))
	now := start.Add(20 * time.Minute)
	u := s.Expire(now, 10)
	if len(u) != 1 || u[0].ID() != "b" || !u[0].Expired() || s.Stat().Running != 1 {
		t.Fatal(ids(u))
	}
	s.Defer(u[0], now, []int{0}, 1, now.Add(time.Minute)) // its DSN could not be written
	if u[0].Expired() {
		t.Error("still marked")
	}
	if u = s.Expire(now.Add(time.Minute), 10); len(u) != 1 {
		t.Fatal("not given up again")
	}
	s.Done(u[0])
}

func TestExpiryWhileNobodyAsks(t *testing.T) {
	s := under(Limits{Lifetime: time.Hour, Warning: 30 * time.Minute}, 0)
	add(s, "a", "a", 0, 0)
	add(s, "b", "a", 1, 20*time.Minute)
	s.Add(start, Delivery{ID: "null", Domain: "a", Recipients: []int{0}, Received: start, Null: true})
	if next, _ := s.Next(start); !next.Equal(start) {
		t.Fatal(next)
	}
	now := start.Add(30 * time.Minute)
	u := s.Expire(now, 10)
	if len(u) != 2 || !u[0].Late() || u[0].Expired() {
		t.Fatal(ids(u))
	}
	for _, one := range u {
		one.Mark()
		s.Defer(one, now, one.Recipients(), one.Attempts(), one.Next())
	}
	if u = s.Expire(now.Add(time.Minute), 10); len(u) != 0 {
		t.Fatal("warned of twice")
	}
	if u = s.Expire(start.Add(time.Hour), 10); len(u) != 3 || !u[0].Expired() {
		t.Fatal(ids(u))
	}
}

// TestOverdue: what was too old when it came in gets one attempt.
func TestOverdue(t *testing.T) {
	s := under(Limits{High: 1, Lifetime: time.Hour}, 0)
	for _, id := range []string{"a", "b"} {
		s.Add(start, Delivery{ID: mail.ID(id), Domain: "a", Recipients: []int{0}, Attempts: 3, Next: start.Add(-time.Hour), Received: start.Add(-5 * time.Hour)})
	}
	if u := s.Expire(start.Add(time.Minute), 10); len(u) > 0 {
		t.Fatal("given up without an attempt")
	}
	tried := expect(t, s, time.Minute, 10, "a")[0]
	if u := s.Expire(start.Add(lastTry), 10); len(u) != 1 || u[0].ID() != "b" {
		t.Fatal(ids(u))
	}
	s.Defer(tried, start.Add(lastTry), []int{0}, 4, start.Add(lastTry))
	if u := s.Expire(start.Add(lastTry+time.Minute), 10); len(u) != 1 || u[0] != tried {
		t.Fatalf("%v: it has had its attempt", ids(u))
	}
}

// TestLateWhenItCameIn: mail that is old when it comes in, after the daemon was
// stopped for long, is tried before anybody is warned.
func TestLateWhenItCameIn(t *testing.T) {
	s := under(Limits{High: 1, Lifetime: 48 * time.Hour, Warning: 4 * time.Hour}, 0)
	for _, id := range []string{"a", "b"} {
		s.Add(start, Delivery{ID: mail.ID(id), Domain: "a", Recipients: []int{0}, Next: start.Add(-time.Hour), Received: start.Add(-5 * time.Hour)})
	}
	expect(t, s, 0, 10, "a")
	if u := s.Expire(start.Add(lastTry-time.Second), 10); len(u) > 0 {
		t.Fatalf("%v: there was no time for an attempt", ids(u))
	}
	if u := s.Expire(start.Add(lastTry), 10); len(u) != 1 || !u[0].Late() || u[0].ID() != "b" {
		t.Fatal(ids(u))
	}
}

func TestNullSenderHasItsShare(t *testing.T) {
	s := under(Limits{}, 20)
	for i := range 100 {
		add(s, fmt.Sprint("f", i), fmt.Sprint("d", i), 0, 0)
		add(s, fmt.Sprint("r", i), fmt.Sprint("d", i), 1, 0)
	}
	if n := len(s.Due(start, 100)); n != 18 { // two are kept
		t.Fatal(n)
	}
	for i := range 100 {
		s.Add(start, Delivery{ID: mail.ID(fmt.Sprint("n", i)), Domain: fmt.Sprint("d", i), Recipients: []int{0}, Received: start, Null: true})
	}
	if u := s.Due(start, 100); len(u) != 2 || !u[0].Null() || !u[1].Null() {
		t.Fatal(ids(u))
	}
	for _, u := range append([]*Unit(nil), s.dispatch.Running()...) {
		s.Done(u)
	}
	s.Due(start, 100)
	n := 0
	for _, u := range s.dispatch.Running() {
		if u.Null() {
			n++
		}
	}
	if n < 2 || n > 5 {
		t.Fatalf("%d of 20 places are the null sender's", n)
	}
}

// TestOneDestinationLeavesPlaces: neither mail to one destination nor retries
// take all places.
func TestOneDestinationLeavesPlaces(t *testing.T) {
	s := under(Limits{}, 20)
	for i := range 100 {
		add(s, fmt.Sprint("a", i), "a", 0, 0)
	}
	if n := len(s.Due(start, 100)); n < 10 || n > 15 {
		t.Fatal(n)
	}
	s = under(Limits{}, 20)
	for i := range 100 {
		add(s, fmt.Sprint("a", i), fmt.Sprint("d", i), 1, 0)
	}
	if n := len(s.Due(start, 100)); n != 15 {
		t.Fatal(n)
	}
}

func TestWhy(t *testing.T) {
	s := New(Options{Concurrency: 3, Limits: func(d string) *Limits {
		return map[string]*Limits{"rate": {Rate: Rate{Count: 1, Per: time.Minute}}, "full": {High: 1}, "dead": {High: 1}}[d]
	}})
	why := func(u *Unit, want string) {
		t.Helper()
		if got := s.Why(u, start); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	why(add(s, "w", "x", 1, time.Hour), "due 2030-01-01T01:00:00Z")
	add(s, "1", "dead", 0, 0)
	end(s, expect(t, s, 0, 1, "1")[0], nobody, start)
	why(add(s, "2", "dead", 0, 0), "dead could not be reached, next probe 2030-01-01T00:00:30Z (connection refused)")
	add(s, "3", "rate", 0, 0)
	why(expect(t, s, 0, 1, "3")[0], "running")
	why(add(s, "4", "rate", 0, 0), "the rate of rate, next attempt 2030-01-01T00:01:00Z")
	add(s, "5", "full", 0, 0)
	expect(t, s, 0, 1, "5")
	why(add(s, "6", "full", 0, 0), "full has its 1 attempts at a time")
	add(s, "7", "y", 0, 0)
	expect(t, s, 0, 1, "7")
	why(add(s, "8", "y", 0, 0), "all 3 attempts at a time run")
}

func TestDestinations(t *testing.T) {
	s := New(Options{Limits: func(string) *Limits { return &Limits{High: 2, Rate: Rate{Count: 100, Per: time.Second}} }})
	old := s.Add(start, Delivery{ID: "0", Domain: "a", Recipients: []int{0}, Received: start.Add(-time.Hour)})
	for i := range 4 {
		s.Add(start, Delivery{ID: mail.ID(fmt.Sprint(i)), Domain: "a", Recipients: []int{0}, Received: start.Add(time.Duration(i) * time.Second)})
	}
	add(s, "w", "a", 1, time.Hour)
	add(s, "b", "b", 1, time.Hour)
	u := s.Due(start, 2)
	s.Locate(u[1], "mx", &Limits{High: 2}, start)
	got := s.Destinations(start, 1)
	want := DestinationStat{Domain: "a", Site: "mx", Waiting: 1, Ready: 3, Running: 2, Oldest: start.Add(-time.Hour), Limit: 2}
	if len(got) != 1 || !got[0].Oldest.Equal(want.Oldest) {
		t.Fatalf("%+v", got)
	}
	got[0].Oldest = want.Oldest
	if got[0] != want {
		t.Fatalf("\n got %+v\nwant %+v", got[0], want)
	}
	s.Report(old, nobody, start)
	s.Done(old)
	got = s.Destinations(start.Add(time.Minute), 10)
	if len(got) != 2 || !got[0].Oldest.Equal(start) || got[0].LastError != nobody.Err {
		t.Fatalf("%+v", got)
	}
}

// TestWorld lives through days of a world with healthy, slow, dead, throttling
// and rate-limited destinations, and checks that no unit is lost or stuck, that
// none is tried after its end or given up before, that the limits hold, and that
// healthy destinations do not notice the others.
func TestWorld(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { world(t, rand.New(rand.NewPCG(seed, 3))) })
	}
}

func world(t *testing.T, r *rand.Rand) {
	kinds := []string{"good", "slow", "dead", "busy", "rated", "big"}
	limits := map[string]*Limits{}
	for _, k := range kinds {
		limits[k] = &Limits{Low: 1, High: 10, Lifetime: 12 * time.Hour, Patience: 6 * time.Hour, Probes: []time.Duration{time.Minute, 2 * time.Minute, time.Hour}}
	}
	limits["rated"].Rate = Rate{Count: 600, Per: time.Hour}
	limits["busy"].Low, limits["busy"].Start = 2, 2
	kind := func(domain string) string { k, _, _ := strings.Cut(domain, "-"); return k }
	s := New(Options{Concurrency: 60, Random: r.Float64, Limits: func(d string) *Limits { return limits[kind(d)] }})
	type running struct {
		u    *Unit
		over time.Time
	}
	var runs []running
	now, made, ended, worst := start, 0, 0, time.Duration(0)
	perDomain := map[string]int{}
	due := map[mail.ID]time.Time{}
	rated := 0
	for step := 0; now.Before(start.Add(30*time.Hour)) || s.Len() > 0; step++ {
		if step > 500_000 || now.After(start.Add(60*time.Hour)) {
			t.Fatalf("stuck with %d of %d units: %+v", s.Len(), made, s.Stat())
		}
		if now.Before(start.Add(15*time.Hour)) && made < 12_000 {
			for range r.IntN(4) {
				k := kinds[r.IntN(len(kinds))]
				id := mail.ID(fmt.Sprint(made))
				made++
				u := s.Add(now, Delivery{ID: id, Domain: fmt.Sprint(k, "-", r.IntN(5)), Recipients: []int{0}, Received: now, Null: r.IntN(20) == 0})
				due[id] = now
				_ = u
			}
		}
		for i := 0; i < len(runs); {
			x := runs[i]
			if x.over.After(now) {
				i++
				continue
			}
			runs[i] = runs[len(runs)-1]
			runs = runs[:len(runs)-1]
			k := kind(x.u.Domain())
			perDomain[x.u.Domain()]--
			o := reached
			switch {
			case k == "dead" && now.Before(start.Add(20*time.Hour)):
				o = nobody
			case k == "busy" && perDomain[x.u.Domain()] >= 3:
				o = Outcome{Throttled: true, Reached: r.IntN(2) == 0, Err: "421"}
			}
			s.Report(x.u, o, now)
			if o.Reached && !o.Throttled {
				s.Done(x.u)
				ended++
			} else {
				next := now.Add(time.Duration(1+r.IntN(60)) * time.Minute)
				due[x.u.ID()] = next
				s.Defer(x.u, now, []int{0}, x.u.Attempts()+1, next)
			}
		}
		for _, u := range s.Due(now, 1000) {
			k := kind(u.Domain())
			if now.Before(due[u.ID()]) {
				t.Fatal("early")
			}
			if k == "good" && u.Attempts() == 0 {
				worst = max(worst, now.Sub(due[u.ID()]))
			}
			if k == "rated" {
				rated++
			}
			if perDomain[u.Domain()]++; perDomain[u.Domain()] > 10 {
				t.Fatal("over the limit")
			}
			took := time.Second
			switch k {
			case "slow", "big":
				took = time.Duration(60+r.IntN(300)) * time.Second
			case "dead":
				took = 30 * time.Second
			}
			runs = append(runs, running{u, now.Add(took)})
		}
		for _, u := range s.Expire(now, 1000) {
			if age := now.Sub(u.Received()); age < 6*time.Hour || age < 12*time.Hour && kind(u.Domain()) != "dead" && kind(u.Domain()) != "busy" {
				t.Fatalf("%s given up after %v", u.Domain(), age)
			}
			s.Done(u)
			ended++
		}
		if len(runs) != s.Stat().Running {
			t.Fatalf("%d run, not %d", len(runs), s.Stat().Running)
		}
		next, ok := s.Next(now)
		if !ok && s.Len() > len(runs) && len(runs) == 0 {
			t.Fatalf("nothing runs and nothing is due: %+v", s.Stat())
		}
		if ok && !next.After(now) {
			t.Fatalf("Next is now after Due and Expire: %+v", s.Stat())
		}
		wake := now.Add(10 * time.Second)
		for _, x := range runs {
			if x.over.Before(wake) {
				wake = x.over
			}
		}
		if ok && next.Before(wake) {
			wake = next
		}
		now = wake
		s.Walk(func(u *Unit) bool {
			if u.State() == unit.Ready && now.Sub(u.Received()) > 12*time.Hour+time.Minute {
				t.Fatalf("%s is ready and past its end by %v: %s", u.Domain(), now.Sub(u.Received())-12*time.Hour, s.Why(u, now))
			}
			return step%100 == 0
		})
	}
	if ended != made {
		t.Fatalf("%d of %d units ended", ended, made)
	}
	if worst > 3*time.Minute { // without a share for those that have nothing it is an hour
		t.Errorf("fresh mail to a healthy destination waited %v", worst)
	}
}
