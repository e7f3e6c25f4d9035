package schedule

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// TestAloneTakesAll: a site that takes mail has all places while nobody else
// waits, but those of the null sender; then what it leaves is for the others.
func TestAloneTakesAll(t *testing.T) {
	s := under(Limits{}, 20)
	for i := range 200 {
		add(s, fmt.Sprint("a", i), "a", 0, 0)
	}
	share := s.Due(start, 100)
	if n := len(share); n < 10 || n > 15 {
		t.Fatalf("%d places for a site of which nothing is known", n)
	}
	end(s, share[0], reached, start)
	s.Due(start, 100)
	if n, _ := s.dispatch.Places(); n != 18 {
		t.Fatalf("%d of 20 places are used", n)
	}
	for i := range 3 {
		add(s, fmt.Sprint("b", i), fmt.Sprint("b", i), 0, 0)
	}
	expect(t, s, 0, 10) // no place is left
	for i := range 3 {
		end(s, share[1+i], reached, start)
		expect(t, s, 0, 10, fmt.Sprint("b", i))
	}
	end(s, share[4], reached, start)
	if u := s.Due(start, 100); len(u) != 1 || u[0].Domain() != "a" {
		t.Fatalf("%v: nobody else waits", ids(u))
	}
	end(s, share[5], throttled, start)
	if u := s.Due(start, 100); len(u) != 0 {
		t.Fatalf("%v: more for a site that has too much", ids(u))
	}
}

// TestManyDomainsLeaveOneSite: taking what is ready out of a site with very many
// domains takes no time that grows with their square.
func TestManyDomainsLeaveOneSite(t *testing.T) {
	const domains = 100_000
	s := under(Limits{High: 1, Lifetime: time.Hour}, 0)
	for i := range domains {
		add(s, fmt.Sprint("first", i), fmt.Sprint("d", i), 0, 0)
	}
	for range domains { // each joins the site, and is put back but for the first
		u := s.Due(start, 1)[0]
		s.Locate(u, "mx", nil, start)
	}
	for i := range domains {
		add(s, fmt.Sprint("more", i), fmt.Sprint("d", i), 0, 0)
	}
	began := time.Now()
	now := start.Add(2 * time.Hour)
	n := 0
	for s.Len() > 1 { // one runs
		all := s.Expire(now, math.MaxInt)
		if s.doomed.Len() > maxAtOnce {
			t.Fatalf("%d are taken on at once", s.doomed.Len())
		}
		n += len(all)
		for _, u := range all {
			s.Done(u)
		}
		next, ok := s.Next(now)
		if !ok && s.Len() > 1 {
			t.Fatalf("%d units are left", s.Len())
		}
		if next.After(now) {
			now = next
		}
	}
	if took := time.Since(began); took > time.Minute { // it takes a quarter of a second
		t.Errorf("%d units were given up in %v", n, took)
	}
	if n != 2*domains-1 {
		t.Errorf("%d units were given up", n)
	}
}

// TestHugeLimits: no number that a configuration may hold turns round.
func TestHugeLimits(t *testing.T) {
	for name, l := range map[string]Limits{
		"lifetime": {Lifetime: math.MaxInt64, Patience: math.MaxInt64, Warning: math.MaxInt64},
		"rate":     {Rate: Rate{Count: math.MaxInt32, Per: time.Second}},
		"a day":    {Rate: Rate{Count: math.MaxInt32, Per: 24 * time.Hour}},
		"places":   {Low: math.MaxInt32, High: math.MaxInt32, Start: math.MaxInt32},
		"probes":   {High: 1, Probes: []time.Duration{math.MaxInt64}},
	} {
		s := under(l, 0)
		add(s, "a", "a", 0, 0)
		add(s, "later", "a", 1, time.Minute)
		if u := s.Due(start, 10); len(u) != 1 {
			t.Errorf("%s: %v", name, ids(u))
		} else {
			end(s, u[0], nobody, start)
		}
		if u := s.Expire(start.Add(time.Hour), 10); len(u) != 0 {
			t.Errorf("%s: %v is given up", name, ids(u))
		}
		if u := s.Due(start.Add(2*time.Hour), 10); len(u) == 0 {
			t.Errorf("%s: nothing is due", name)
		}
	}
}

// TestFlushProbesEveryDomain: all that is suspended is probed at once, however
// often it failed before.
func TestFlushProbesEveryDomain(t *testing.T) {
	s := under(Limits{High: 1, Probes: []time.Duration{time.Hour}}, 0)
	for _, d := range []string{"a", "b", "c"} {
		add(s, d+"1", d, 0, 0)
		add(s, d+"2", d, 0, 0)
	}
	for _, u := range s.Due(start, 10) {
		end(s, u, nobody, start)
	}
	now := start.Add(15 * time.Minute)
	for _, u := range s.Due(now, 10) {
		end(s, u, nobody, now)
	}
	expect(t, s, 15*time.Minute+time.Second, 10)
	if n := s.Flush("", now.Add(time.Second)); n != 6 {
		t.Errorf("%d became due", n)
	}
	if u := s.Due(now.Add(time.Second), 10); len(u) != 3 {
		t.Errorf("%v: a probe for each was to be made", ids(u))
	}
}

func TestLargestDestinations(t *testing.T) {
	s := New(Options{})
	for i := range 50 {
		for n := range i*37%50 + 1 {
			add(s, fmt.Sprint(i, ".", n), fmt.Sprintf("d%02d", i*37%50+1), 1, time.Hour)
		}
	}
	add(s, "tie", "d48", 1, time.Hour)
	var got []string
	for _, d := range s.Destinations(start, 4) {
		got = append(got, fmt.Sprintf("%s %d", d.Domain, d.Waiting))
	}
	if text := fmt.Sprint(got); text != "[d50 50 d48 49 d49 49 d47 47]" {
		t.Error(text)
	}
	if n := len(s.Destinations(start, 0)) + len(s.Destinations(start, -1)); n != 0 {
		t.Errorf("%d of none", n)
	}
	if n := len(s.Destinations(start, 1000)); n != 50 {
		t.Errorf("%d of 50", n)
	}
}
